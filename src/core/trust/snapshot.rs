//! Snapshot: the version of every targets role, all at once (specification sections 4.4, 5.5).

use std::collections::BTreeMap;

use miniserde::Deserialize;

use super::document::{Document, Head, expired};
use super::keys::RoleKeys;
use super::meta::{Codes, Meta, MetaWire};
use super::{Now, Refusal, SNAPSHOT_MAX, Trusted};

const ROLE: &str = "snapshot";

pub(super) const CODES: Codes = Codes {
    missing: "snapshot_missing",
    length: "snapshot_length",
    hash: "snapshot_hash",
    threshold: "snapshot_threshold",
    version: "snapshot_version",
    expired: "snapshot_expired",
};

#[derive(Deserialize)]
struct SnapshotWire {
    meta: BTreeMap<String, MetaWire>,
}

#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub doc: Document,
    pub head: Head,
    /// By file name, as signed: `targets.json`.
    meta: BTreeMap<String, Meta>,
}

impl Snapshot {
    /// Length, signatures, fields; no expiry and no comparison with timestamp or an earlier one.
    pub fn open(bytes: &[u8], keys: &RoleKeys) -> Result<Snapshot, Refusal> {
        let doc = Document::open(ROLE, bytes, SNAPSHOT_MAX, keys.kinds)?;
        // 5.5.3 Check for an arbitrary software attack.
        doc.verify(ROLE, CODES.threshold, keys)?;
        let head = doc.head(ROLE, ROLE)?;
        let wire: SnapshotWire = doc.read(ROLE)?;
        let read = |(name, wire): (String, MetaWire)| Ok((name, Meta::new(ROLE, &wire)?));
        Ok(Snapshot { head, meta: wire.meta.into_iter().map(read).collect::<Result<_, Refusal>>()?, doc })
    }

    /// What is signed about a role.
    pub fn role(&self, role: &str) -> Result<&Meta, Refusal> {
        let missing = || Refusal::new("snapshot_role_unlisted", role, "the snapshot does not list this role");
        self.meta.get(&format!("{role}.json")).ok_or_else(missing)
    }

    fn check_expiry(&self, now: u64, grace: u64) -> Result<(), Refusal> {
        expired(CODES.expired, ROLE, self.head.expires, now, grace)
    }

    /// "5.5.5 Check for a rollback attack": every role listed before, delegated ones too, is listed with no lower
    /// version (CVE-2022-29173, CVE-2025-2887).
    fn check_rollback(&self, before: &Snapshot) -> Result<(), Refusal> {
        for (name, old) in &before.meta {
            let Some(new) = self.meta.get(name) else {
                return Err(Refusal::new("snapshot_role_removed", ROLE, format!("'{name}' was listed before and is no longer")));
            };
            if new.version < old.version {
                let detail = format!("'{name}' falls from version {} to {}", old.version, new.version);
                return Err(Refusal::new("snapshot_role_rollback", ROLE, detail));
            }
        }
        Ok(())
    }
}

impl Trusted {
    /// "5.5 Update the snapshot role."
    pub(super) fn accept_snapshot(&mut self, bytes: &[u8], now: &Now) -> Result<(), Refusal> {
        let listed = self.snapshot_meta()?;
        // 5.5.2 Check against timestamp role's snapshot hash: before anything else looks at the bytes.
        listed.check_bytes(ROLE, &CODES, bytes)?;
        let new = Snapshot::open(bytes, &self.root.snapshot)?;
        // 5.5.4 Check against timestamp role's snapshot version: mix-and-match.
        listed.check_version(ROLE, &CODES, new.head.version)?;
        if let Some(before) = &self.snapshot {
            new.check_rollback(before)?;
        }
        // 5.5.6 Check for a freeze attack, 5.5.7 then persist.
        new.check_expiry(now.at(self.issued()), now.offline_grace_s)?;
        self.snapshot = Some(new);
        Ok(())
    }

    /// Is the snapshot that we hold the one that the timestamp names? If so it must be current too.
    pub(super) fn snapshot_is_listed(&self, now: &Now) -> Result<bool, Refusal> {
        let listed = self.snapshot_meta()?;
        let Some(held) = &self.snapshot else { return Ok(false) };
        let same = held.head.version == listed.version && listed.check_bytes(ROLE, &CODES, &held.doc.bytes).is_ok();
        if same {
            held.check_expiry(now.at(self.issued()), now.offline_grace_s)?;
        }
        Ok(same)
    }

    pub(super) fn snapshot_meta(&self) -> Result<&Meta, Refusal> {
        let missing = || Refusal::new("timestamp_missing", "timestamp", "no timestamp is trusted yet");
        self.timestamp.as_ref().map(|t| &t.snapshot).ok_or_else(missing)
    }
}
