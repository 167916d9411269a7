//! What this binary knows about itself; `build.rs` at the top level fills it in.

/// The version it calls itself.
pub const VERSION: &str = env!("VMETRIC_BUILT_VERSION");
/// The commit it was built from.
pub const COMMIT: &str = env!("VMETRIC_BUILT_COMMIT");
/// The compiler's name of the platform it was built for.
pub const TARGET: &str = env!("VMETRIC_BUILT_TARGET");
/// Sent with each request.
pub const USER_AGENT: &str = concat!("vmetric-agent/", env!("VMETRIC_BUILT_VERSION"));
/// Root metadata built in; empty = `<image>/root.json` only.
pub const ROOT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/root.json"));

/// A signed time: no clock is earlier than this build. Seconds since 1970.
pub fn time() -> u64 {
    env!("VMETRIC_BUILT_TIME").parse().unwrap_or(0)
}
