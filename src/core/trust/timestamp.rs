//! Timestamp: which snapshot is the current one, and when that was said (specification sections 4.6, 5.4).

use miniserde::Deserialize;

use super::document::{Document, Head, expired, instant};
use super::keys::RoleKeys;
use super::meta::{Meta, MetaWire};
use super::{Now, Refusal, TIMESTAMP_MAX, Trusted};

const ROLE: &str = "timestamp";

#[derive(Deserialize)]
struct TimestampWire {
    meta: TimestampMetaWire,
    issued: Option<String>,
}

#[derive(Deserialize)]
struct TimestampMetaWire {
    #[serde(rename = "snapshot.json")]
    snapshot: MetaWire,
}

#[derive(Clone, Debug)]
pub(super) struct Timestamp {
    pub doc: Document,
    pub head: Head,
    pub issued: Option<u64>,
    pub snapshot: Meta,
}

impl Timestamp {
    /// Length, signatures, fields; no expiry and no comparison with an earlier one.
    pub fn open(bytes: &[u8], keys: &RoleKeys) -> Result<Timestamp, Refusal> {
        let doc = Document::open(ROLE, bytes, TIMESTAMP_MAX, keys.kinds)?;
        // 5.4.2 Check for an arbitrary software attack.
        doc.verify(ROLE, "timestamp_threshold", keys)?;
        let head = doc.head(ROLE, ROLE)?;
        let wire: TimestampWire = doc.read(ROLE)?;
        let issued = wire.issued.map(|text| instant(ROLE, "issued", &text)).transpose()?;
        // A floor after its own expiry would be a clock that its signer did not believe either.
        if issued.is_some_and(|at| at > head.expires) {
            return Err(Refusal::new("timestamp_issued", ROLE, "'issued' is after 'expires'"));
        }
        Ok(Timestamp { head, issued, snapshot: Meta::new(ROLE, &wire.meta.snapshot)?, doc })
    }

    fn check_expiry(&self, now: &Now) -> Result<(), Refusal> {
        expired("timestamp_expired", ROLE, self.head.expires, now.at(self.issued), now.offline_grace_s)
    }
}

impl Trusted {
    /// "5.4 Update the timestamp role." True when the new one is trusted now, false when it is the one we had.
    pub(super) fn accept_timestamp(&mut self, bytes: &[u8], now: &Now) -> Result<bool, Refusal> {
        let new = Timestamp::open(bytes, &self.root.timestamp)?;
        let rollback =
            |code, what, new, old| Err(Refusal::new(code, ROLE, format!("{what} version {new} is older than the trusted version {old}")));
        if let Some(old) = &self.timestamp {
            // 5.4.3.1 An older version is an attack, the same version is normal: the one we trust stays.
            if new.head.version < old.head.version {
                return rollback("timestamp_rollback", ROLE, new.head.version, old.head.version);
            }
            if new.head.version == old.head.version {
                return old.check_expiry(now).map(|()| false);
            }
        }
        // 5.4.3.2 The snapshot's version must not fall. Asked of the snapshot too, so that a lost timestamp file does not
        // lose the check. All of it comes before anything is persisted (CVE-2025-2888).
        let listed = self.timestamp.as_ref().map_or(0, |t| t.snapshot.version);
        let known = listed.max(self.snapshot.as_ref().map_or(0, |s| s.head.version));
        if new.snapshot.version < known {
            return rollback("timestamp_snapshot_rollback", "its snapshot's", new.snapshot.version, known);
        }
        // 5.4.4 Check for a freeze attack, 5.4.5 then persist.
        new.check_expiry(now)?;
        self.timestamp = Some(new);
        Ok(true)
    }
}
