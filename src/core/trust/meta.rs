//! What one metadata file says about another: version, and maybe length and hashes.

use std::collections::BTreeMap;

use ed25519_compact::sha512;
use miniserde::Deserialize;

use super::Refusal;
use crate::core::hex::{self, Sha256};

/// An entry of `meta` in timestamp and snapshot (specification sections 4.4 and 4.6).
#[derive(Deserialize)]
pub(super) struct MetaWire {
    version: u64,
    length: Option<u64>,
    hashes: Option<BTreeMap<String, String>>,
}

/// The checked form of it.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub version: u64,
    pub length: Option<u64>,
    hashes: Hashes,
}

/// The hashes that we know; all of them must match.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hashes {
    pub sha256: Option<Sha256>,
    pub sha512: Option<[u8; 64]>,
}

/// The codes of one role for the checks that all roles share.
pub(super) struct Codes {
    pub missing: &'static str,
    pub length: &'static str,
    pub hash: &'static str,
    pub threshold: &'static str,
    pub version: &'static str,
    pub expired: &'static str,
}

impl Hashes {
    /// Unknown algorithms are passed over, but one that we know must be there: else nothing would be checked.
    pub fn new(role: &str, wire: &BTreeMap<String, String>) -> Result<Hashes, Refusal> {
        let shape = || Refusal::new("metadata_shape", role, "a hash is not lower-case hexadecimal of its length");
        let mut out = Hashes::default();
        if let Some(text) = wire.get("sha256") {
            out.sha256 = Some(hex::decode(text).ok_or_else(shape)?);
        }
        if let Some(text) = wire.get("sha512") {
            out.sha512 = Some(hex::decode(text).ok_or_else(shape)?);
        }
        match out {
            Hashes { sha256: None, sha512: None } => {
                Err(Refusal::new("metadata_no_known_hash", role, "neither SHA-256 nor SHA-512 is given"))
            }
            known => Ok(known),
        }
    }

    pub fn match_bytes(&self, bytes: &[u8]) -> bool {
        // Of the two crates that have SHA-512, the one that build signatures link anyway.
        self.sha256.is_none_or(|h| hex::sha256(bytes) == h) && self.sha512.is_none_or(|h| sha512::Hash::hash(bytes) == h)
    }
}

impl Meta {
    pub fn new(role: &str, wire: &MetaWire) -> Result<Meta, Refusal> {
        let hashes = wire.hashes.as_ref().map(|h| Hashes::new(role, h)).transpose()?.unwrap_or_default();
        if wire.version == 0 {
            return Err(Refusal::new("metadata_version_zero", role, "an entry of 'meta' has version 0"));
        }
        Ok(Meta { version: wire.version, length: wire.length, hashes })
    }

    /// How many bytes may be fetched: what was signed, and never more than the fixed limit.
    pub fn limit(&self, fixed: u64) -> u64 {
        self.length.map_or(fixed, |length| length.min(fixed))
    }

    /// "The hashes and length of the new metadata file MUST match the trusted metadata, if any."
    pub fn check_bytes(&self, role: &str, codes: &Codes, bytes: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some_and(|length| length != bytes.len() as u64) {
            let expected = self.length.unwrap_or(0);
            return Err(Refusal::new(codes.length, role, format!("{} bytes instead of {expected}", bytes.len())));
        }
        if !self.hashes.match_bytes(bytes) {
            return Err(Refusal::new(codes.hash, role, "the hash is not the signed one"));
        }
        Ok(())
    }

    /// "The version number of the new metadata file MUST match the one listed."
    pub fn check_version(&self, role: &str, codes: &Codes, version: u64) -> Result<(), Refusal> {
        if version == self.version {
            return Ok(());
        }
        Err(Refusal::new(codes.version, role, format!("version {version} instead of {}", self.version)))
    }
}
