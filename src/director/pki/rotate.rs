//! The site goes over to another CA, and no agent is lost on the way.
//!
//! `ca rotate` makes a new CA and keeps the one before it as the *former* one. From then on the leaf's key is certified by
//! both, so that an agent is at home with either pin, however long it was off. Agents are told the new pin and get a new
//! credential in ordinary answers. `ca retire` removes the former key once nobody needs it.
//!
//! ```text
//! rotate:  ca.key, ca.pem -> ca-former.key      the same key twice: nothing has happened yet
//!          ca.key new                           <- from here on the site has another CA
//!          ca.pem made again                    its old bytes beside the new key are known by the former key
//!          leaf made again
//! retire:  pin -> retired                       ignored as long as the key is there
//!          ca-former.key removed                <- from here on
//! ```
//!
//! A crash between two of these lines is found and finished, or undone, at the next start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

use super::authority::{Authority, Kind, key_pair};
use super::credential::Signer;
use super::leaf::Leaf;
use super::{Names, SiteCa, unreadable, unwritable};
use crate::core::reason::Reason;
use crate::io::fs::{PRIVATE, PUBLIC, remove_if_there, sync_folder_of, write_durable};
use crate::io::tls::{Pin, parse_pin, pin_text};
use crate::wire::agent_api::PinsWire;

/// Retired pins that agents are still told of: they drop them within a day of contact; who was off for longer loses nothing
/// by keeping one.
const RETIRED_MAX: usize = 8;

/// What speaks to agents: the CA, and the one before it while somebody may need it.
pub struct Agents {
    /// The present CA.
    pub ca: Authority,
    /// Signs credentials.
    pub signer: Signer,
    /// The former CA and its signer.
    pub former: Option<(Authority, Signer)>,
    /// CAs whose keys are gone, newest last.
    pub retired: Vec<Pin>,
}

fn former_file(dir: &Path) -> PathBuf {
    Kind::Ed25519.file(dir, "ca-former", "key")
}

fn signer(ca: &Authority, file: &Path) -> Result<Signer, Reason> {
    ca.seed().map(Signer::new).ok_or_else(|| unreadable(file, &"not an Ed25519 key in PKCS#8"))
}

fn read_former(dir: &Path) -> Result<Option<Authority>, Reason> {
    let file = former_file(dir);
    if !file.exists() {
        return Ok(None);
    }
    let der = PrivatePkcs8KeyDer::from_pem_file(&file).map_err(|e| unreadable(&file, &e))?;
    let key = key_pair(Kind::Ed25519, &der).map_err(|e| unreadable(&file, &e))?;
    Authority::of_key(Kind::Ed25519, key).map(Some).map_err(|e| unreadable(&file, &e))
}

impl Agents {
    /// Reads what is there, makes what is missing, and finishes or undoes what a crash interrupted.
    ///
    /// # Errors
    /// `pki_unreadable`, `pki_unwritable`.
    pub fn open_or_create(dir: &Path) -> Result<Agents, Reason> {
        let former = read_former(dir)?;
        let ca = Authority::open_or_create(dir, Kind::Ed25519, former.as_ref().map(|f| f.pin))?;
        // The copy was made and nothing else: no rotation took place.
        let former = former.filter(|former| former.pin != ca.pin);
        let file = former_file(dir);
        if former.is_none() && file.exists() {
            remove(&file)?;
        }
        let former = former.map(|f| signer(&f, &file).map(|s| (f, s))).transpose()?;
        let text = fs::read_to_string(dir.join("retired")).unwrap_or_default();
        let kept = |pin: &Pin| *pin != ca.pin && former.as_ref().is_none_or(|(f, _)| f.pin != *pin);
        let retired = text.lines().filter_map(|line| parse_pin(line).ok()).filter(kept).collect();
        Ok(Agents { signer: signer(&ca, &Kind::Ed25519.file(dir, "ca", "key"))?, ca, former, retired })
    }
}

fn remove(file: &Path) -> Result<(), Reason> {
    remove_if_there(file).and_then(|()| sync_folder_of(file)).map_err(|e| unwritable(file, &e))
}

impl SiteCa {
    /// Shows an agents' leaf, with the former CA's word for it.
    pub(super) fn show(&self, leaf: Leaf) -> Result<(), Reason> {
        let agents = self.agents();
        let leaf = match &agents.former {
            Some((former, _)) => leaf.vouched(&self.dir, &agents.ca, former)?,
            None => leaf,
        };
        self.shown.set(Kind::Ed25519, leaf);
        Ok(())
    }

    /// Goes over to a new CA.
    ///
    /// # Errors
    /// `rotation_open`: the last one is not over; `pki_unwritable`: the old CA stays, or the next start finishes it.
    pub fn rotate(&self, names: &Names, now: u64) -> Result<(), Reason> {
        if let Some(former) = self.former_pin() {
            let detail = format!("{} is not retired yet: `ca status` shows who needs it, `ca retire` ends that", pin_text(&former));
            return Err(Reason::new("rotation_open", detail));
        }
        let file = Kind::Ed25519.file(&self.dir, "ca", "key");
        let former = former_file(&self.dir);
        let old = self.agents().ca.issuer.key().serialize_pem();
        write_durable(&former, old.as_bytes(), PRIVATE).map_err(|e| unwritable(&former, &e))?;
        let key = Kind::Ed25519.make_key().map_err(|e| unwritable(&file, &e))?;
        write_durable(&file, key.serialize_pem().as_bytes(), PRIVATE).map_err(|e| unwritable(&file, &e))?;
        self.reopen(names, now)
    }

    /// Removes the former CA's key: whoever still needs it has to enroll again.
    ///
    /// # Errors
    /// `no_rotation`, `pki_unwritable`.
    pub fn retire(&self, names: &Names, now: u64) -> Result<Pin, Reason> {
        let former = self.former_pin().ok_or_else(|| Reason::new("no_rotation", "there is no former CA; `ca rotate` makes a new one"))?;
        let mut pins = self.agents().retired.clone();
        pins.push(former);
        let first = pins.len().saturating_sub(RETIRED_MAX);
        let text: String = pins[first..].iter().map(|pin| pin_text(pin) + "\n").collect();
        let file = self.dir.join("retired");
        write_durable(&file, text.as_bytes(), PUBLIC).map_err(|e| unwritable(&file, &e))?;
        remove(&former_file(&self.dir))?;
        self.reopen(names, now)?;
        Ok(former)
    }

    fn reopen(&self, names: &Names, now: u64) -> Result<(), Reason> {
        let agents = Agents::open_or_create(&self.dir)?;
        *self.agents.write().unwrap_or_else(PoisonError::into_inner) = agents;
        let leaf = Leaf::read(&self.dir, &self.agents().ca);
        let leaf = leaf.map_or_else(|| Leaf::make(&self.dir, &self.agents().ca, names, now), Ok)?;
        self.show(leaf)
    }

    /// The pin of the former CA, while its key is kept.
    pub fn former_pin(&self) -> Option<Pin> {
        self.agents().former.as_ref().map(|(former, _)| former.pin)
    }

    /// What agents are told of the CAs.
    pub fn pins(&self) -> PinsWire {
        let agents = self.agents();
        let trust = std::iter::once(agents.ca.pin).chain(agents.former.as_ref().map(|(former, _)| former.pin));
        PinsWire { trust: trust.map(|p| pin_text(&p)).collect(), retired: agents.retired.iter().map(pin_text).collect() }
    }
}
