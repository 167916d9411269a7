//! Targets and delegated targets: which files exist, and who may say so for which paths (specification sections 4.5, 5.6).

use std::collections::BTreeMap;

use miniserde::{Deserialize, json};

use super::document::{Document, Head, expired};
use super::keys::{KeyWire, Keys, Kinds, RoleKeys, RoleWire};
use super::meta::{Codes, Hashes, Meta};
use super::{Refusal, TARGETS_MAX, TOP_LEVEL, glob};
use crate::core::canonical;

pub(super) const TARGETS: Codes = Codes {
    missing: "targets_missing",
    length: "targets_length",
    hash: "targets_hash",
    threshold: "targets_threshold",
    version: "targets_version",
    expired: "targets_expired",
};

pub(super) const DELEGATED: Codes = Codes {
    missing: "delegated_missing",
    length: "delegated_length",
    hash: "delegated_hash",
    threshold: "delegated_threshold",
    version: "delegated_version",
    expired: "delegated_expired",
};

/// Signed field of ours: path to reason and hash of what was taken back.
const WITHDRAWN: &str = "x-vmetric-withdrawn";

#[derive(Deserialize)]
struct TargetsWire {
    delegations: Option<DelegationsWire>,
}

#[derive(Deserialize)]
struct DelegationsWire {
    keys: BTreeMap<String, KeyWire>,
    roles: Vec<DelegationWire>,
}

#[derive(Deserialize)]
struct DelegationWire {
    name: String,
    keyids: Vec<String>,
    threshold: i64,
    terminating: bool,
    paths: Option<Vec<String>>,
    path_hash_prefixes: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct TargetWire {
    length: u64,
    hashes: BTreeMap<String, String>,
}

/// A role that lists targets. The list itself stays in its verified bytes and is read when a path is asked for, so that
/// a device holds no second copy of it.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub name: String,
    pub doc: Document,
    pub head: Head,
    pub delegations: Vec<Delegation>,
}

/// What one role says about another one (specification section 4.5, `delegations`).
#[derive(Clone, Debug)]
pub(super) struct Delegation {
    pub name: String,
    pub keys: RoleKeys,
    pub terminating: bool,
    patterns: Patterns,
}

#[derive(Clone, Debug)]
enum Patterns {
    Paths(Vec<String>),
    HashPrefixes(Vec<String>),
}

/// What a role says of a release that it took back.
#[derive(Deserialize)]
pub(super) struct WithdrawnWire {
    pub reason: String,
    pub sha256: String,
}

/// One entry of `targets`.
pub(super) struct Target<'a> {
    pub length: u64,
    pub hashes: Hashes,
    /// The bytes of `custom`, if it is there.
    pub custom: Option<&'a [u8]>,
}

impl Targets {
    /// "5.6 Update the targets role", steps 2 to 4, for top-level and delegated roles alike: what the snapshot lists,
    /// under the keys of this delegator (CVE-2026-6967). Expiry is the caller's.
    pub fn open(name: &str, codes: &Codes, listed: &Meta, keys: &RoleKeys, bytes: &[u8]) -> Result<Targets, Refusal> {
        // 5.6.2 Check against snapshot role's targets hash: before anything else looks at the bytes.
        listed.check_bytes(name, codes, bytes)?;
        let doc = Document::open(name, bytes, TARGETS_MAX, keys.kinds)?;
        // 5.6.3 Check for an arbitrary software attack.
        doc.verify(name, codes.threshold, keys)?;
        let head = doc.head(name, "targets")?;
        // 5.6.4 Check against snapshot role's targets version.
        listed.check_version(name, codes, head.version)?;
        let wire: TargetsWire = doc.read(name)?;
        let delegations = wire.delegations.map(|d| delegations(name, d, keys.kinds)).transpose()?.unwrap_or_default();
        let targets = Targets { name: name.to_string(), doc, head, delegations };
        for entry in targets.entries()? {
            targets.target_in(entry.1)?;
        }
        Ok(targets)
    }

    /// 5.6.5 Check for a freeze attack. No grace: these are signed for a year.
    pub fn check_expiry(&self, codes: &Codes, now: u64) -> Result<(), Refusal> {
        expired(codes.expired, &self.name, self.head.expires, now, 0)
    }

    /// The paths listed, each with the bytes of its entry.
    pub fn entries(&self) -> Result<Vec<(String, &[u8])>, Refusal> {
        let shape = |_| Refusal::new("metadata_shape", &self.name, "'targets' is missing or no object");
        let all = canonical::member(self.doc.signed(), "targets").unwrap_or_default();
        let mut members = canonical::members(all).map_err(shape)?;
        let mut out = Vec::new();
        while let Some((path, range)) = members.next_member().map_err(shape)? {
            out.push((path, &all[range]));
        }
        Ok(out)
    }

    /// What this role says about `path`, if it lists it.
    pub fn target(&self, path: &str) -> Result<Option<Target<'_>>, Refusal> {
        let all = canonical::member(self.doc.signed(), "targets").unwrap_or_default();
        canonical::member(all, path).map(|entry| self.target_in(entry)).transpose()
    }

    fn target_in<'a>(&self, entry: &'a [u8]) -> Result<Target<'a>, Refusal> {
        let text = std::str::from_utf8(entry).unwrap_or_default();
        let Ok(wire) = json::from_str::<TargetWire>(text) else {
            return Err(Refusal::new("metadata_shape", &self.name, "a target has no 'length' and 'hashes'"));
        };
        let hashes = Hashes::new(&self.name, &wire.hashes)?;
        Ok(Target { length: wire.length, hashes, custom: canonical::member(entry, "custom") })
    }

    /// Why this role took `path` back, if it did.
    pub fn withdrawn(&self, path: &str) -> Result<Option<WithdrawnWire>, Refusal> {
        let all = canonical::member(self.doc.signed(), WITHDRAWN).unwrap_or_default();
        let Some(entry) = canonical::member(all, path) else { return Ok(None) };
        let shape = |_| Refusal::new("metadata_shape", &self.name, format!("'{WITHDRAWN}' of {path} has no 'reason' and 'sha256'"));
        json::from_str(std::str::from_utf8(entry).unwrap_or_default()).map(Some).map_err(shape)
    }

    /// The paths that this role took back.
    pub fn all_withdrawn(&self) -> Vec<String> {
        let mut out = Vec::new();
        let all = canonical::member(self.doc.signed(), WITHDRAWN).unwrap_or_default();
        let Ok(mut members) = canonical::members(all) else { return out };
        while let Ok(Some((path, _))) = members.next_member() {
            out.push(path);
        }
        out
    }

    /// A signed field beside those of TUF.
    #[cfg(any(feature = "director", feature = "release"))]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        canonical::member(self.doc.signed(), name)
    }

    /// The delegation to `role`, if there is one.
    pub fn delegation(&self, role: &str) -> Option<&Delegation> {
        self.delegations.iter().find(|d| d.name == role)
    }
}

impl Delegation {
    /// Is `path` (with `hash`, the hexadecimal SHA-256 of it) one that this delegation is about?
    pub fn covers(&self, path: &str, hash: &str) -> bool {
        match &self.patterns {
            Patterns::Paths(patterns) => patterns.iter().any(|p| glob::matches(p, path)),
            Patterns::HashPrefixes(prefixes) => prefixes.iter().any(|p| hash.starts_with(p.as_str())),
        }
    }
}

fn delegations(delegator: &str, wire: DelegationsWire, kinds: Kinds) -> Result<Vec<Delegation>, Refusal> {
    let keys = Keys::new(&wire.keys, kinds);
    let mut out: Vec<Delegation> = Vec::new();
    for role in wire.roles {
        let delegation = delegation(delegator, &keys, role)?;
        if out.iter().any(|d| d.name == delegation.name) {
            return Err(Refusal::new("delegation_twice", delegator, format!("delegates twice to '{}'", delegation.name)));
        }
        out.push(delegation);
    }
    Ok(out)
}

fn delegation(delegator: &str, keys: &Keys, wire: DelegationWire) -> Result<Delegation, Refusal> {
    // A delegated role with such a name would overwrite a top-level file.
    if wire.name.is_empty() || TOP_LEVEL.contains(&wire.name.as_str()) {
        return Err(Refusal::new("delegation_reserved", delegator, format!("delegates to '{}'", wire.name)));
    }
    let patterns = match (wire.paths, wire.path_hash_prefixes) {
        (Some(paths), None) => Patterns::Paths(paths),
        (None, Some(prefixes)) => Patterns::HashPrefixes(prefixes),
        _ => {
            let detail = format!("'{}' needs one of 'paths' and 'path_hash_prefixes'", wire.name);
            return Err(Refusal::new("delegation_patterns", delegator, detail));
        }
    };
    let role = RoleWire { keyids: wire.keyids, threshold: wire.threshold };
    Ok(Delegation { keys: RoleKeys::new(delegator, keys, &role)?, name: wire.name, terminating: wire.terminating, patterns })
}
