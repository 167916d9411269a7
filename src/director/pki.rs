//! The site CA: made at the Director's first start, in every backup, shared by a cluster.
//!
//! ```text
//! <state>/pki/ca.key, ca.pem              Ed25519: agents pin its key; it signs their leaf and their credentials
//!             ca-p256.key, ca-p256.pem    its twin for browsers and installers
//!             leaf.key, leaf.pem          90 days; the first line says until when and for which names
//!             leaf-p256.key, leaf-p256.pem
//!             ca-former.key, retired      while the site goes over to another CA
//! ```
//!
//! Keys are PKCS#8 PEM of mode 0600; a CA's is never replaced but by `ca rotate`, a leaf's is new with each leaf. A missing
//! `ca.pem` is made again from its key. Going over to another CA: [`rotate`].
//!
//! **Why a twin.** Browsers and schannel cannot verify Ed25519, so a P-256 leaf under an Ed25519 CA is as good as none to
//! them. One P-256 CA for all would put P-256 into every agent (its code, and another key to sign credentials with) and
//! change what is frozen. So two keys, each with clients that can verify its whole chain; no agent ever needs the twin, and
//! who has it can fool browsers of this site, but no agent.
//!
//! Everything starts at 1970, so that a device with a wrong clock accepts it; agents know the CA by the hash of its key
//! ([`crate::io::tls`]). Browsers and `curl --cacert ca-p256.pem` check names and dates as they always do.

pub mod authority;
pub mod company;
pub mod credential;
pub mod leaf;
pub mod rotate;
pub mod show;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::core::hex;
use crate::core::reason::Reason;
use crate::io::tls::{self, Pin};
use authority::{Authority, Kind};
use company::Company;
use leaf::{Leaf, why_renew};
use show::Shown;

/// The site's own certificate authority, its current leaves, and the key that signs agent credentials.
pub struct SiteCa {
    dir: PathBuf,
    agents: RwLock<rotate::Agents>,
    browsers: Authority,
    shown: Arc<Shown>,
    company: RwLock<Option<Company>>,
}

/// Names that a leaf is good for. Agents do not compare them; browsers and `curl` do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

impl Names {
    /// All of them as text.
    pub fn list(&self) -> Vec<String> {
        self.dns.iter().cloned().chain(self.ips.iter().map(IpAddr::to_string)).collect()
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.list().join(","))
    }
}

impl SiteCa {
    /// Reads what is in `dir`, and makes what is missing. `now`: seconds since 1970.
    ///
    /// # Errors
    /// `pki_unreadable`, `pki_unwritable`: which file and why. An existing CA is never replaced.
    pub fn open_or_create(dir: &Path, names: &Names, now: u64) -> Result<SiteCa, Reason> {
        fs::create_dir_all(dir).map_err(|e| unwritable(dir, &e))?;
        let agents = RwLock::new(rotate::Agents::open_or_create(dir)?);
        let browsers = Authority::open_or_create(dir, Kind::P256, None)?;
        let ca = SiteCa { dir: dir.to_path_buf(), agents, browsers, shown: Arc::default(), company: RwLock::default() };
        if let Some(leaf) = Leaf::read(dir, &ca.agents().ca) {
            ca.show(leaf)?;
        }
        if let Some(leaf) = Leaf::read(dir, &ca.browsers) {
            ca.shown.set(Kind::P256, leaf);
        }
        ca.renew_if_due(names, now)?;
        Ok(ca)
    }

    fn agents(&self) -> RwLockReadGuard<'_, rotate::Agents> {
        self.agents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// SHA-256 of the SubjectPublicKeyInfo of the agents' CA: what they pin.
    pub fn pin(&self) -> Pin {
        self.agents().ca.pin
    }

    /// Both CA certificates (and the operator's chain, if there is one), for `curl --cacert` and the like; the one that browsers can use first, since some readers take only
    /// one. The first line, which readers of PEM skip, ties them to the pin.
    pub fn bundle(&self) -> String {
        let company = self.company().map_or(String::new(), |c| c.pem);
        format!("vmetric site CA pin {}\n{}{}{company}", tls::pin_text(&self.pin()), self.browsers.pem, self.agents().ca.pem)
    }

    /// From the next handshake on, the operator's certificate for everybody but agents with a pin.
    pub fn set_company(&self, company: Company) {
        self.shown.set_company(company.certified.clone());
        *self.company.write().unwrap_or_else(PoisonError::into_inner) = Some(company);
    }

    /// The operator's certificate, if there is one.
    pub fn company(&self) -> Option<Company> {
        self.company.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// SHA-256 of the browsers' CA certificate, as browsers show it.
    pub fn browser_fingerprint(&self) -> String {
        hex::encode(&hex::sha256(&self.browsers.certificate))
    }

    /// For [`crate::io::serve::serve`]; a renewed leaf is used from the next handshake on, without a restart.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        tls::server_config(self.shown.clone())
    }

    /// Makes new leaves where [`why_renew`] says so, and says why; call it often, it looks at memory only. `None` = nothing to do.
    ///
    /// # Errors
    /// `pki_unwritable`; the old leaf stays in use, the next call tries again.
    pub fn renew_if_due(&self, names: &Names, now: u64) -> Result<Option<Reason>, Reason> {
        let renew = |ca: &Authority| -> Result<Option<Reason>, Reason> {
            let Some(why) = why_renew(self.shown.facts(ca.kind).as_ref(), names, now) else { return Ok(None) };
            let leaf = Leaf::make(&self.dir, ca, names, now)?;
            match ca.kind {
                Kind::Ed25519 => self.show(leaf)?,
                Kind::P256 => self.shown.set(Kind::P256, leaf),
            }
            Ok(Some(why))
        };
        // One that cannot be written does not keep the other from being tried.
        let (agents, browsers) = (renew(&self.agents().ca), renew(&self.browsers));
        Ok(agents?.or(browsers?))
    }

    /// When the first of the current leaves expires for a browser, seconds since 1970, and the names in it.
    pub fn leaf(&self) -> (u64, Vec<String>) {
        let leaves = [Kind::Ed25519, Kind::P256].into_iter().filter_map(|k| self.shown.facts(k));
        leaves.min_by_key(|f| f.until).map_or((0, Vec::new()), |f| (f.expires(), f.names))
    }

    /// A credential for an enrolled agent, compact text, for the holder of this key only. `issued_at`: seconds since 1970.
    pub fn issue(&self, agent_id: &str, issued_at: u64, device_key: Option<&str>) -> String {
        self.agents().signer.issue(agent_id, issued_at, device_key)
    }

    /// Whose credential this is.
    ///
    /// # Errors
    /// `credential_unknown`: not ours, altered, or no credential at all; one code for all, so that a guesser learns nothing.
    pub fn check(&self, text: &str) -> Result<credential::Claims, Reason> {
        let agents = self.agents();
        let by_former = || {
            let claims = agents.former.as_ref()?.1.check(text).ok()?;
            Some(credential::Claims { outdated: true, ..claims })
        };
        agents.signer.check(text).or_else(|reason| by_former().ok_or(reason))
    }
}

fn name(text: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, text);
    name
}

fn unreadable(file: &Path, why: &dyn fmt::Display) -> Reason {
    Reason::new("pki_unreadable", format!("{}: {why}", file.display()))
}

fn unwritable(file: &Path, why: &dyn fmt::Display) -> Reason {
    Reason::new("pki_unwritable", format!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests;
