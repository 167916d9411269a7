//! Fleet: the control plane above the Directors.
//!
//! A Director is to Fleet what an agent is to a Director: it enrolls with an expiring API key, opens every connection, parks
//! a poll, is ordered from one version to the next by roll-outs, and confirms each with Fleet. So the server is the
//! Director's own ([`crate::director`]) under another [`role`]; here is what only Fleet has.

pub mod access;
pub mod api;
pub mod clusters;
pub mod confirm;
pub mod explain;
pub mod extra;
pub mod form;
pub mod gui;
pub mod history;
pub mod intake;
pub mod lease;
pub mod notices;
pub mod role;
pub mod store;
pub mod templates;
pub mod told;
pub mod webhooks;
