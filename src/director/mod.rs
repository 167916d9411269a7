//! A site: the registry of agents, the mirror of releases, orders, the activity, the site CA.
//!
//! ```text
//!  HTTPS -> service -> registry (memory, pure) -> changes -> store (one redb file, group commit)
//!                         |  rollout::plan: who may change version now
//!  admin.sock ------------+
//!  release tree -> mirror: verifies like an agent, serves what it has verified
//! ```
//!
//! Everything runs on one thread; only disk commits and mirror fetches are handed to helpers. No answer that promises
//! durability is sent before its commit. Absent: any key that signs releases.

pub mod activity;
#[cfg(unix)]
pub mod acts;
#[cfg(unix)]
pub mod admin;
pub mod allowance;
#[cfg(unix)]
pub mod api_tokens;
#[cfg(unix)]
pub mod approval;
pub mod args;
pub mod backup;
pub mod bell;
#[cfg(unix)]
pub mod ca;
pub mod caller;
pub mod cancel;
pub mod certificates;
#[cfg(unix)]
pub mod cluster;
#[cfg(unix)]
pub mod commands;
pub mod config;
#[cfg(unix)]
pub mod console;
pub mod dl;
pub mod enroll;
pub mod explain;
#[cfg(unix)]
pub mod extra;
pub mod install;
pub mod members;
pub mod metering;
#[cfg(unix)]
pub mod metrics;
pub mod mirror;
pub mod muting;
pub mod orders;
#[cfg(unix)]
pub mod own;
pub mod pki;
pub mod policing;
pub mod progress;
pub mod prune;
pub mod quarantine;
pub mod records;
pub mod refresh;
pub mod registry;
pub mod releases;
pub mod repair;
pub mod resources;
pub mod retry;
pub mod role;
#[cfg(unix)]
pub mod run;
pub mod schedule;
pub mod service;
#[cfg(unix)]
pub mod shown;
pub mod site;
pub mod store;
pub mod table;
pub mod throttle;
pub mod together;
pub mod tree;
pub mod uplink;
pub mod views;
pub mod withdrawn;
