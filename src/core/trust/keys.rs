//! Keys, signatures, thresholds.

use std::collections::BTreeMap;

use ed25519_compact::PublicKey;
use miniserde::{Deserialize, json};

use super::{Refusal, SIGNATURES_MAX};
use crate::core::{canonical, hex};

/// A key as metadata lists it (specification section 4.2.2).
#[derive(Deserialize)]
pub(super) struct KeyWire {
    keytype: String,
    scheme: String,
    keyval: KeyValWire,
}

#[derive(Deserialize)]
struct KeyValWire {
    public: String,
}

/// Who signs for a role (specification section 4.3).
#[derive(Deserialize)]
pub(super) struct RoleWire {
    pub keyids: Vec<String>,
    pub threshold: i64,
}

#[derive(Deserialize)]
struct SignatureWire {
    keyid: String,
    sig: String,
}

/// One signature of an envelope.
pub(super) struct Signature {
    keyid: String,
    sig: ed25519_compact::Signature,
}

/// The keys that sign for one role, and how many of them must.
#[derive(Clone, Debug)]
pub(super) struct RoleKeys {
    keys: Vec<(String, PublicKey)>,
    pub threshold: usize,
}

/// The Ed25519 keys among `wire`. Others are valid metadata, but none of ours can verify with them: they never count.
pub(super) fn ed25519(wire: &BTreeMap<String, KeyWire>) -> BTreeMap<String, PublicKey> {
    let usable = |key: &KeyWire| {
        let ours = key.keytype == "ed25519" && key.scheme == "ed25519";
        ours.then(|| hex::decode::<32>(&key.keyval.public)).flatten().map(PublicKey::new)
    };
    wire.iter().filter_map(|(id, key)| Some((id.clone(), usable(key)?))).collect()
}

/// The signatures of an envelope. One that is no Ed25519 signature is left out: it cannot count.
pub(super) fn signatures(role: &str, bytes: &[u8]) -> Result<Vec<Signature>, Refusal> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let Ok(wire) = json::from_str::<Vec<SignatureWire>>(text) else {
        return Err(Refusal::new("metadata_shape", role, "'signatures' is not a list of objects with 'keyid' and 'sig'"));
    };
    if wire.len() > SIGNATURES_MAX {
        return Err(Refusal::new("metadata_signatures", role, format!("more than {SIGNATURES_MAX} signatures")));
    }
    let parse = |w: SignatureWire| {
        let sig = ed25519_compact::Signature::new(hex::decode::<64>(&w.sig)?);
        Some(Signature { keyid: w.keyid, sig })
    };
    Ok(wire.into_iter().filter_map(parse).collect())
}

impl RoleKeys {
    /// Looks up a role's key ids. A threshold below 1 would switch verification off (CVE-2026-23992).
    pub fn new(role: &str, keys: &BTreeMap<String, PublicKey>, wire: &RoleWire) -> Result<RoleKeys, Refusal> {
        let threshold = usize::try_from(wire.threshold).unwrap_or(0);
        if threshold == 0 {
            return Err(Refusal::new("metadata_threshold_zero", role, format!("a threshold of {}", wire.threshold)));
        }
        let keys = wire.keyids.iter().filter_map(|id| Some((id.clone(), *keys.get(id)?))).collect();
        Ok(RoleKeys { keys, threshold })
    }

    /// How many of our keys signed the canonical form of `signed`; stops counting at the threshold.
    ///
    /// Counts **public keys**: not signatures (CVE-2020-6174), not key ids (GHSA-3633-5h82-39pq), so that neither a
    /// signature given twice nor a key listed under two names counts twice.
    pub fn count(&self, signed: &[u8], signatures: &[Signature]) -> usize {
        let mut good: Vec<PublicKey> = Vec::new();
        for signature in signatures {
            for (_, key) in self.keys.iter().filter(|(id, _)| *id == signature.keyid) {
                if good.len() < self.threshold && !good.contains(key) && signed_by(key, &signature.sig, signed) {
                    good.push(*key);
                }
            }
        }
        good.len()
    }

    /// Is every key of an earlier version of this role still one of its keys?
    pub fn keeps_all_of(&self, earlier: &RoleKeys) -> bool {
        earlier.keys.iter().all(|(_, old)| self.keys.iter().any(|(_, new)| new == old))
    }
}

/// One pass over the document: its canonical form goes straight into the verifier.
fn signed_by(key: &PublicKey, sig: &ed25519_compact::Signature, signed: &[u8]) -> bool {
    let Ok(mut state) = key.verify_incremental(sig) else { return false };
    canonical::canonicalize(signed, &mut |piece| state.absorb(piece)).is_ok() && state.verify().is_ok()
}
