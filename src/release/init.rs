//! `init`: keys, root version 1 and empty drafts.

use std::collections::BTreeMap;
use std::path::Path;

use super::envelope::{Envelope, Public, keyid};
use super::failure::{Failure, Result};
use super::metadata::{Holders, ROOT, Root, SNAPSHOT, TARGETS, TIMESTAMP, Targets};
use super::repo::{Repo, Settings};
use super::ring::{BUILD, Ring};
use super::sign;

/// Keys and thresholds of the top-level roles.
pub struct Counts {
    /// Root: keys, threshold.
    pub root: (u64, u64),
    /// Targets: keys, threshold.
    pub targets: (u64, u64),
    /// Build keys; each of them alone is enough.
    pub build: u64,
}

/// More keys than this in one role is a typing error; TUF clients also limit the size of root.
pub const KEYS_MAX: u64 = 16;
/// Longest validity, days: what never expires cannot be frozen out.
const DAYS_MAX: u64 = 3650;

/// Refuses thresholds that nobody could meet and validities that protect nobody.
pub fn check(counts: &Counts, settings: &Settings) -> Result<()> {
    let delegated = (settings.delegated_keys, settings.delegated_threshold);
    for (name, (keys, threshold)) in
        [("root", counts.root), ("targets", counts.targets), ("delegated", delegated), ("build", (counts.build, 1))]
    {
        if threshold == 0 || threshold > keys || keys > KEYS_MAX {
            let text = format!(
                "{name}: {threshold} of {keys} keys is impossible; the threshold is 1 to the number of keys, which is at most {KEYS_MAX}"
            );
            return Err(Failure::usage(text));
        }
    }
    let s = settings;
    for (name, days) in [
        ("root", s.root_days),
        ("targets", s.targets_days),
        ("delegated", s.delegated_days),
        ("snapshot", s.snapshot_days),
        ("timestamp", s.timestamp_days),
    ] {
        if days == 0 || days > DAYS_MAX {
            return Err(Failure::usage(format!("--{name}-days {days}: expected 1 to {DAYS_MAX}")));
        }
    }
    Ok(())
}

/// Makes keys and drafts. Root version 1 is signed at once, because all its keys are at hand only now.
pub fn init(folder: &Path, ring: &mut Ring, counts: &Counts, settings: Settings, now: u64) -> Result<Repo> {
    check(counts, &settings)?;
    let repo = Repo::create(folder, settings)?;
    let mut keys = BTreeMap::new();
    let mut roles = BTreeMap::new();
    for (role, (count, threshold)) in [(ROOT, counts.root), (TARGETS, counts.targets), (SNAPSHOT, (1, 1)), (TIMESTAMP, (1, 1))] {
        let made = named(ring.make(role, count, &BTreeMap::new())?);
        roles.insert(role.to_string(), Holders { keyids: made.keys().cloned().collect(), threshold });
        keys.extend(made);
    }
    let build_keys = named(ring.make(BUILD, counts.build, &BTreeMap::new())?);
    let root = Root { version: 1, expires: repo.settings.expires(ROOT, now), keys, roles, build_keys };
    repo.save_draft(ROOT, &Envelope::unsigned(root.to_value()))?;
    let targets = Targets { version: 1, expires: repo.settings.expires(TARGETS, now), ..Targets::default() };
    repo.save_draft(TARGETS, &Envelope::unsigned(targets.to_value()))?;
    sign::add_signatures(&repo, ring, ROOT)?;
    // From here on builds may embed it, so its bytes are final, published or not.
    let signed = repo.root()?.0.bytes();
    repo.record(ROOT, 1, &signed)?;
    repo.save_root(&signed)?;
    Ok(repo)
}

/// Public keys by their ids.
pub fn named(keys: Vec<Public>) -> BTreeMap<String, Public> {
    keys.into_iter().map(|public| (keyid(&public), public)).collect()
}
