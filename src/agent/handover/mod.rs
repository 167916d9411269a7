//! How one program follows another: at the start of a slot, at an orderly switch, after an end.
//!
//! ```text
//! Unix      service manager -> factory image --exec--> slot --exec--> factory image --exec--> ...   one process
//!           (`run --supervise`: a parent forks the first of them, and starts it again when it ends)
//! Windows   service manager -> factory image = parent, for ever
//!                                 +-- slot, or the factory image again: a child in a kill-on-close job
//! ```

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{is_parent, relaunch, supervise};
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::{is_parent, relaunch, supervise};

/// First and longest wait of a parent before it starts a dead program again, milliseconds.
const RESPAWN_MS: (u64, u64) = (100, 5_000);
