//! # vmetric: signed, atomic, self-reverting updates for fleets of edge agents
//!
//! ```text
//!  vmetric-release   keys, signing, publishing: a tree of static files (TUF)
//!        |
//!  vmetric-fleet     for an organization: decides for its Directors
//!        |           HTTPS, always opened by the Director
//!  vmetric-director  at a site: mirrors the tree, decides for its agents, pushes orders over a parked poll
//!        |           HTTPS, always opened by the agent
//!  vmetric-agent     on a device: one thread, two slots, one launcher that always finds something to start
//! ```
//!
//! Two planes that never mix. The **release plane** says what may exist: signed metadata and artifacts, static files
//! that nobody on the way can forge. The **control plane** says who runs what, and when: small JSON over HTTPS, which
//! can only name what the release plane has signed.
//!
//! ## Code map
//!
//! Each layer uses only the layers above it in this table; `tests/it/tidy.rs` enforces it.
//!
//! | module | what | invariant |
//! |---|---|---|
//! | [`core`] | every decision: trust, slots, update, roll-out | no files, network, clock, environment, threads, randomness, logging |
//! | [`wire`] | bytes <-> core types | no IO; every size is limited; errors name the field |
//! | [`io`] | files, network, clock, processes | the only place that touches them |
//! | [`agent`] | look, decide, do, report; the launcher | one thread; compiles no server code |
//! | `director` | registry, mirror, orders, activity | holds no release key |
//! | `fleet` | the Director's server once more, for Directors | opens no connection to a Director |
//! | `release` | keys, signing, publishing | the only holder of private release keys |
//!
//! One direction of flow: `policy + inventory -> Decision (with its reason) -> Plan (generation) -> Step -> Event -> Report`.
//!
//! **No stored phase.** After a crash the code looks again and decides again ([`core::update::next_step`],
//! [`core::slots::next_boot`]). What is deliberately absent: a "state" field that a crash could leave lying.

#![cfg(feature = "agent")]

pub mod agent;
pub mod core;
#[cfg(feature = "director")]
pub mod director;
#[cfg(all(feature = "fleet", unix))]
pub mod fleet;
pub mod io;
#[cfg(feature = "release")]
pub mod release;
pub mod wire;
