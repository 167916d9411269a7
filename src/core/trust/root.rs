//! Root: the keys of all top-level roles and of the binaries (specification sections 4.3, 5.2, 5.3).

use std::collections::BTreeMap;

use ed25519_compact::PublicKey;
use miniserde::Deserialize;

use super::document::{Document, Head, expired};
use super::keys::{KeyWire, Keys, Kinds, RoleKeys, RoleWire, ed25519};
use super::{Now, ROOT_MAX, Refusal, Trusted};

#[derive(Deserialize)]
struct RootWire {
    consistent_snapshot: Option<bool>,
    keys: BTreeMap<String, KeyWire>,
    roles: RolesWire,
    #[serde(rename = "x-vmetric-build-keys")]
    build_keys: Option<BTreeMap<String, KeyWire>>,
}

#[derive(Deserialize)]
struct RolesWire {
    root: RoleWire,
    timestamp: RoleWire,
    snapshot: RoleWire,
    targets: RoleWire,
}

/// A root that at least itself vouches for.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub doc: Document,
    pub head: Head,
    pub consistent_snapshot: bool,
    pub root: RoleKeys,
    pub timestamp: RoleKeys,
    pub snapshot: RoleKeys,
    pub targets: RoleKeys,
    pub build_keys: BTreeMap<String, PublicKey>,
}

impl Root {
    pub fn bootstrap(bytes: &[u8], kinds: Kinds) -> Result<Root, Refusal> {
        let root = Root::read(Document::open("root", bytes, ROOT_MAX, kinds)?, kinds)?;
        root.doc.verify("root", "root_not_self_signed", &root.root)?;
        Ok(root)
    }

    fn read(doc: Document, kinds: Kinds) -> Result<Root, Refusal> {
        let head = doc.head("root", "root")?;
        let wire: RootWire = doc.read("root")?;
        let keys = Keys::new(&wire.keys, kinds);
        let role = |name, role: &RoleWire| RoleKeys::new(name, &keys, role);
        Ok(Root {
            head,
            consistent_snapshot: wire.consistent_snapshot.unwrap_or(false),
            root: role("root", &wire.roles.root)?,
            timestamp: role("timestamp", &wire.roles.timestamp)?,
            snapshot: role("snapshot", &wire.roles.snapshot)?,
            targets: role("targets", &wire.roles.targets)?,
            build_keys: ed25519(&wire.build_keys.unwrap_or_default()),
            doc,
        })
    }

    /// One step of "5.3 Update the root role", 5.3.3 to 5.3.5. The expiry of a root on the way does not matter (5.3.7).
    fn successor(&self, bytes: &[u8]) -> Result<Root, Refusal> {
        let doc = Document::open("root", bytes, ROOT_MAX, self.root.kinds)?;
        // 5.3.4 Check for an arbitrary software attack: signed by a threshold of the keys in the trusted root ...
        doc.verify("root", "root_threshold_trusted", &self.root)?;
        let next = Root::read(doc, self.root.kinds)?;
        // ... and by a threshold of the keys in the new root (CVE-2020-15163).
        next.doc.verify("root", "root_threshold_new", &next.root)?;
        // 5.3.5 Check for a rollback attack: exactly N+1 (CVE-2025-2885).
        if next.head.version != self.head.version.saturating_add(1) {
            let detail = format!("version {} instead of {}", next.head.version, self.head.version.saturating_add(1));
            return Err(Refusal::new("root_version", "root", detail));
        }
        Ok(next)
    }
}

impl Trusted {
    /// Trusts the next root (5.3.3 to 5.3.8) and says whether timestamp and snapshot had to be dropped.
    ///
    /// Off-spec in one point: 5.3.11 drops them after the last root, here it is done with the root that rotates their
    /// keys. A walk that ends half-way (a power cut, an expired last root) would otherwise forget what it saw.
    pub(super) fn accept_root(&mut self, bytes: &[u8]) -> Result<bool, Refusal> {
        let next = self.root.successor(bytes)?;
        let before = std::mem::replace(&mut self.root, next);
        Ok(self.recover_from_fast_forward(&before))
    }

    /// "5.3.11 If the timestamp and / or snapshot keys have been rotated, then delete the trusted timestamp and snapshot
    /// metadata files." Rotated = a key that was trusted is no longer, or what we hold no longer reaches its threshold.
    /// A key that is only added was never in an attacker's hands: nothing to recover from, and no rollback check lost.
    fn recover_from_fast_forward(&mut self, before: &Root) -> bool {
        let root = &self.root;
        let kept = root.timestamp.keeps_all_of(&before.timestamp) && root.snapshot.keeps_all_of(&before.snapshot);
        let timestamp = self.timestamp.as_ref().map(|t| t.doc.verify("timestamp", "timestamp_threshold", &root.timestamp));
        let snapshot = self.snapshot.as_ref().map(|s| s.doc.verify("snapshot", "snapshot_threshold", &root.snapshot));
        let still_signed = timestamp.iter().chain(&snapshot).all(Result::is_ok);
        if (kept && still_signed) || (self.timestamp.is_none() && self.snapshot.is_none()) {
            return false;
        }
        (self.timestamp, self.snapshot) = (None, None);
        true
    }

    /// "5.3.10 Check for a freeze attack": of the last root only, after it was persisted.
    pub(super) fn check_final_root(&self, now: &Now) -> Result<(), Refusal> {
        expired("root_expired", "root", self.root.head.expires, now.at(self.issued()), 0)
    }
}
