//! Keys, signatures, thresholds.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_compact::PublicKey;
use miniserde::{Deserialize, json};

#[cfg(feature = "release")]
use super::foreign::ForeignKey;
use super::{Refusal, SIGNATURES_MAX};
use crate::core::{canonical, hex};

/// A key as metadata lists it (specification section 4.2.2).
#[derive(Deserialize)]
pub(super) struct KeyWire {
    keytype: String,
    scheme: String,
    keyval: KeyValWire,
}

/// What is in it depends on the kind of key: one of another kind may have no public half here at all.
#[derive(Deserialize)]
struct KeyValWire {
    public: Option<String>,
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

/// One signature of an envelope: in hexadecimal, if it can count at all.
pub(super) struct Signature {
    keyid: String,
    sig: String,
}

/// Which kinds of keys count. Devices, Directors and the checks of a release know one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinds {
    /// What our repositories have.
    Ed25519,
    /// What other people's repositories have as well.
    #[cfg(feature = "release")]
    Foreign,
}

/// A key that can count.
#[derive(Clone, Debug, PartialEq)]
enum Key {
    Ed25519(PublicKey),
    #[cfg(feature = "release")]
    Foreign(ForeignKey),
}

/// The keys that metadata lists, by their ids, as far as they can count. Others are valid metadata all the same.
pub(super) struct Keys {
    keys: BTreeMap<String, Key>,
    kinds: Kinds,
}

/// The keys that sign for one role, and how many of them must.
#[derive(Clone, Debug)]
pub(super) struct RoleKeys {
    keys: Vec<(String, Key)>,
    pub threshold: usize,
    pub kinds: Kinds,
}

/// The Ed25519 keys among `wire`.
pub(super) fn ed25519(wire: &BTreeMap<String, KeyWire>) -> BTreeMap<String, PublicKey> {
    wire.iter().filter_map(|(id, key)| Some((id.clone(), key.ed25519()?))).collect()
}

impl KeyWire {
    fn ed25519(&self) -> Option<PublicKey> {
        let ours = self.keytype == "ed25519" && self.scheme == "ed25519";
        hex::decode::<32>(self.keyval.public.as_deref().filter(|_| ours)?).map(PublicKey::new)
    }

    fn usable(&self, kinds: Kinds) -> Option<Key> {
        match (self.ed25519(), kinds) {
            (Some(key), _) => Some(Key::Ed25519(key)),
            (None, Kinds::Ed25519) => None,
            #[cfg(feature = "release")]
            (None, Kinds::Foreign) => ForeignKey::new(&self.keytype, &self.scheme, self.keyval.public.as_deref()?).map(Key::Foreign),
        }
    }
}

impl Keys {
    pub fn new(wire: &BTreeMap<String, KeyWire>, kinds: Kinds) -> Keys {
        Keys { keys: wire.iter().filter_map(|(id, key)| Some((id.clone(), key.usable(kinds)?))).collect(), kinds }
    }
}

/// The signatures of an envelope.
pub(super) fn signatures(role: &str, bytes: &[u8]) -> Result<Vec<Signature>, Refusal> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let Ok(wire) = json::from_str::<Vec<SignatureWire>>(text) else {
        return Err(Refusal::new("metadata_shape", role, "'signatures' is not a list of objects with 'keyid' and 'sig'"));
    };
    if wire.len() > SIGNATURES_MAX {
        return Err(Refusal::new("metadata_signatures", role, format!("more than {SIGNATURES_MAX} signatures")));
    }
    Ok(wire.into_iter().map(|SignatureWire { keyid, sig }| Signature { keyid, sig }).collect())
}

impl RoleKeys {
    /// Looks up a role's key ids. A threshold below 1 would switch verification off (CVE-2026-23992).
    ///
    /// An id that is listed again is passed over: it adds no key, and each mention would cost a pass over the document per
    /// signature.
    pub fn new(role: &str, keys: &Keys, wire: &RoleWire) -> Result<RoleKeys, Refusal> {
        let threshold = usize::try_from(wire.threshold).unwrap_or(0);
        if threshold == 0 {
            return Err(Refusal::new("metadata_threshold_zero", role, format!("a threshold of {}", wire.threshold)));
        }
        let ids: BTreeSet<&String> = wire.keyids.iter().collect();
        let listed = ids.into_iter().filter_map(|id| Some((id.clone(), keys.keys.get(id)?.clone()))).collect();
        Ok(RoleKeys { keys: listed, threshold, kinds: keys.kinds })
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many of our keys signed the canonical form of `signed`; stops counting at the threshold.
    ///
    /// Counts **public keys**: not signatures (CVE-2020-6174), not key ids (GHSA-3633-5h82-39pq), so that neither a
    /// signature given twice nor a key listed under two names counts twice.
    pub fn count(&self, signed: &[u8], signatures: &[Signature]) -> usize {
        let mut good: Vec<&Key> = Vec::new();
        for signature in signatures {
            for (_, key) in self.keys.iter().filter(|(id, _)| *id == signature.keyid) {
                if good.len() < self.threshold && !good.contains(&key) && key.signed(&signature.sig, signed) {
                    good.push(key);
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

impl Key {
    /// Is `sig` (hexadecimal) this key's signature of the canonical form of `signed`?
    fn signed(&self, sig: &str, signed: &[u8]) -> bool {
        match self {
            Key::Ed25519(key) => hex::decode::<64>(sig).is_some_and(|sig| signed_by(key, sig, signed)),
            #[cfg(feature = "release")]
            Key::Foreign(key) => key.signed(sig, signed),
        }
    }
}

/// One pass over the document: its canonical form goes straight into the verifier.
fn signed_by(key: &PublicKey, sig: [u8; 64], signed: &[u8]) -> bool {
    let Ok(mut state) = key.verify_incremental(&ed25519_compact::Signature::new(sig)) else { return false };
    canonical::canonicalize(signed, &mut |piece| state.absorb(piece)).is_ok() && state.verify().is_ok()
}
