//! The only place that touches files, the network, the clock and processes.

pub mod clock;
#[cfg(target_os = "macos")]
mod darwin;
pub mod device_key;
pub mod dns;
pub mod environment;
pub mod fs;
pub mod hook;
pub mod http;
pub mod identity;
pub mod lock;
pub mod logger;
pub mod medium;
pub mod notify;
pub mod offers;
#[cfg(all(feature = "director", unix))]
pub mod open_files;
#[cfg(all(feature = "fleet", unix))]
pub mod outbound;
#[cfg(feature = "package")]
pub mod package;
#[cfg(all(feature = "director", unix))]
pub mod peer;
pub mod process;
pub mod random;
pub mod room;
#[cfg(windows)]
pub mod security;
#[cfg(feature = "director")]
pub mod serve;
pub mod service;
#[cfg(all(feature = "director", unix))]
pub mod signals;
pub mod state;
pub mod tls;
pub mod trust_store;
pub mod user;
#[cfg(all(feature = "fleet", unix))]
pub mod webhook;
#[cfg(feature = "director")]
pub mod zone;
