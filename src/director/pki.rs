//! The site CA: made at the Director's first start, in every backup, shared by a cluster.

pub mod credential;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::core::reason::Reason;
use crate::io::tls::Pin;

/// The site's own certificate authority, its current leaf, and the key that signs agent credentials.
pub struct SiteCa {
    pin: Pin,
}

/// Names that the leaf is good for. Agents do not compare them; browsers and `curl` do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

impl SiteCa {
    /// Reads `<dir>/ca.key`, `ca.pem`, `leaf.key`, `leaf.pem`, and makes what is missing. `now`: seconds since 1970.
    ///
    /// # Errors
    /// `pki_unreadable`, `pki_unwritable`: which file and why. An existing CA is never replaced.
    pub fn open_or_create(dir: &Path, names: &Names, now: u64) -> Result<SiteCa, Reason> {
        let _ = (dir, names, now);
        todo!()
    }

    /// SHA-256 of the CA's SubjectPublicKeyInfo: what agents pin.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// For [`crate::io::serve::serve`]; a renewed leaf is used from the next handshake on, without a restart.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        todo!()
    }

    /// Makes a new leaf when fewer than 30 days of the current one are left or the names changed; call it daily. `true` = made.
    ///
    /// # Errors
    /// `pki_unwritable`; the old leaf stays in use.
    pub fn renew_if_due(&self, names: &Names, now: u64) -> Result<bool, Reason> {
        let _ = (names, now);
        todo!()
    }

    /// A credential for an enrolled agent, compact text. `issued_at`: seconds since 1970.
    pub fn issue(&self, agent_id: &str, issued_at: u64) -> String {
        let _ = (agent_id, issued_at);
        todo!()
    }

    /// Whose credential this is.
    ///
    /// # Errors
    /// `credential_unknown`: not ours, altered, or no credential at all; one code for all, so that a guesser learns nothing.
    pub fn check(&self, text: &str) -> Result<credential::Claims, Reason> {
        let _ = text;
        todo!()
    }
}
