//! How a member of a cluster takes over the site CA of another one. Additive only.
//!
//! `POST /cluster/v1/join` with [`JoinWire`], over TLS under the site's pin; 200 with [`JoinedWire`], once per invitation.

use miniserde::{Deserialize, Serialize};

/// Where.
pub const JOIN: &str = "/cluster/v1/join";
/// Longest question, bytes.
pub const JOIN_MAX: usize = 4 * 1024;
/// Longest answer, bytes: a few keys and certificates.
pub const JOINED_MAX: usize = 64 * 1024;
/// Longest file in it, bytes.
pub const FILE_MAX: usize = 16 * 1024;
/// The files of `<state>/pki/` that members share. A leaf is each one's own.
pub const FILES: [&str; 6] = ["ca.key", "ca.pem", "ca-p256.key", "ca-p256.pem", "ca-former.key", "retired"];

/// Who wants to join.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct JoinWire {
    /// The invitation, as `cluster invite` printed it.
    pub token: String,
    /// Host name, for the activity.
    pub hostname: String,
}

/// The site CA. Secret: no `Debug`, no log.
#[derive(Serialize, Deserialize, Clone, Default)]
pub struct JoinedWire {
    /// The files that are there.
    pub files: Vec<FileWire>,
}

/// One of them.
#[derive(Serialize, Deserialize, Clone, Default)]
pub struct FileWire {
    /// One of [`FILES`].
    pub name: String,
    /// PEM.
    pub text: String,
}
