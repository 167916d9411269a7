//! The release tool: keys, signing, publishing. The only holder of private release keys, and offline.
//!
//! ```text
//! init -> add -> sign -> publish -> (any web server) -> verify, as a client does
//!          ^       |
//!          +-------+  several people, several machines: each adds signatures to the drafts
//! ```
//!
//! What is written is a TUF repository (specification 1.0.34): Ed25519 only, consistent snapshots, one delegated role per
//! product and platform. See [`repo`] for the folder a release engineer works on and [`publish`] for the tree.
//!
//! **Invariant.** No private key or passphrase is ever printed, logged, written unencrypted or taken from an argument.
//! Time is an argument and signatures are deterministic, so the same content at the same time gives the same bytes.

pub mod add;
pub mod args;
pub mod bundle;
pub mod cli;
pub mod commands;
pub mod dist;
pub mod envelope;
pub mod failure;
pub mod files;
pub mod init;
pub mod inspect;
pub mod json;
pub mod keyfile;
pub mod merge;
pub mod metadata;
pub mod package;
pub mod passphrase;
pub mod publish;
pub mod renew;
pub mod repo;
pub mod ring;
pub mod rotate;
pub mod show;
pub mod sign;
pub mod state;
pub mod tuf;
pub mod verify;
pub mod withdraw;
