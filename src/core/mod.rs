//! Every decision of the system, as functions of facts and time.
//!
//! **Invariant.** Nothing here reads a file, a socket, a clock, the environment or a random source, starts a thread or
//! writes a log line. Time and seeds are arguments. So each decision is tested exhaustively, without a process or a sleep.

#[cfg(feature = "director")]
pub mod access;
pub mod backoff;
#[cfg(feature = "director")]
pub mod backup;
#[cfg(feature = "director")]
pub mod budget;
pub mod bundle;
pub mod canonical;
pub mod clock;
#[cfg(feature = "director")]
pub mod cluster;
#[cfg(feature = "director")]
pub mod contact;
pub mod copies;
pub mod failover;
pub mod first_boot;
pub mod hex;
pub mod identity;
#[cfg(feature = "director")]
pub mod inventory;
#[cfg(feature = "director")]
pub mod keep;
#[cfg(any(feature = "director", feature = "release"))]
pub mod notes;
#[cfg(feature = "fleet")]
pub mod notice;
pub mod owner;
#[cfg(feature = "package")]
pub mod package;
pub mod pins;
#[cfg(feature = "director")]
pub mod policy;
pub mod product;
pub mod program_file;
pub mod proof;
pub mod reason;
pub mod rejected;
#[cfg(feature = "director")]
pub mod relay;
pub mod release;
pub mod rollout;
#[cfg(feature = "director")]
pub mod schedule;
pub mod service;
pub mod slots;
pub mod srv;
pub mod stage;
pub mod time;
pub mod times;
pub mod trust;
pub mod update;
pub mod version;
