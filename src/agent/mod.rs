//! The agent: look, decide, do, report. One thread, blocking, constant memory.
//!
//! ```text
//! service manager -> factory image = launcher --exec--> slot a | slot b | (stays) factory
//!                        ^                                   |
//!                        +------- orderly switch: exec ------+
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`launcher`] | which image starts; no network, no TLS; falls through until something runs |
//! | [`handover`] | one program after another: exec, or a parent with a child in a job |
//! | [`host`] | the launcher's device as it is |
//! | [`engine`] | one turn of work, over a [`world::World`], so that the power-cut test runs this very code |
//! | [`device`] | the world as it is: files, processes, the Director |
//! | [`talk`] | what agent and Director say to each other |
//! | `lookup` | the ordered target, by the trusted metadata |
//! | `records` | what could not be read at the start is read again |
//! | `mend` | an order for the version that runs: what is damaged in its slot comes again |
//! | [`link`] | the protocol with the Director |
//! | `duties` | what a program with more to do than to update itself adds: the Director |
//! | [`download`] | the artifact, in slices, with resume, checked as it is written |
//! | [`run`] | the main loop and the start of the process |
//! | [`check`] | the operator's own check of a version on trial |
//! | [`first_boot`] | without an identity: enroll by itself, then forget the token |
//! | [`command`] | `enroll`, `status`, `rollback`, `update --file` |

#[cfg(not(feature = "director"))]
mod alone;
pub mod args;
pub mod build;
pub mod check;
pub mod command;
pub mod device;
pub mod download;
#[cfg(feature = "director")]
pub mod duties;
pub mod engine;
pub mod enroll;
pub mod fault;
pub mod first_boot;
pub mod handover;
pub mod host;
pub mod launcher;
pub mod link;
mod lookup;
mod mend;
pub mod pins;
mod records;
pub mod run;
pub mod source;
pub mod status;
pub mod talk;
pub mod trial;
pub mod world;
