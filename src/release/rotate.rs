//! `rotate`: other keys or another threshold for a role.

use std::collections::BTreeMap;

use super::add;
use super::envelope::{Envelope, Public};
use super::failure::{Failure, Result};
use super::init::{KEYS_MAX, named};
use super::metadata::{Holders, ROOT, TARGETS};
use super::repo::Repo;
use super::ring::{BUILD, Ring};

/// What to change.
pub struct Change {
    /// So many new keys.
    pub add: u64,
    /// Ids of keys that go.
    pub remove: Vec<String>,
    /// The new threshold, if it changes.
    pub threshold: Option<u64>,
}

/// Drafts the next root or, for a delegated role, the next targets. Does not sign.
pub fn rotate(repo: &Repo, ring: &mut Ring, role: &str, change: &Change, now: u64) -> Result<()> {
    if change.add == 0 && change.remove.is_empty() && change.threshold.is_none() {
        return Err(Failure::usage("'rotate' needs --add, --remove or --threshold"));
    }
    let (_, mut root) = repo.root()?;
    if let Some(holders) = root.roles.get(role).cloned() {
        let (holders, made) = changed(ring, role, holders, &root.keys, change)?;
        root.keys.extend(made);
        root.roles.insert(role.into(), holders);
        let used = |id: &String| root.roles.values().any(|h| h.keyids.contains(id));
        let keys = std::mem::take(&mut root.keys);
        root.keys = keys.into_iter().filter(|(id, _)| used(id)).collect();
    } else if role == BUILD {
        if change.threshold.is_some() {
            return Err(Failure::usage("--threshold does not fit 'build': each build key signs alone"));
        }
        let holders = Holders { keyids: root.build_keys.keys().cloned().collect(), threshold: 1 };
        let (holders, made) = changed(ring, role, holders, &root.build_keys, change)?;
        root.build_keys.extend(made);
        root.build_keys.retain(|id, _| holders.keyids.contains(id));
        add::sign_again(repo, ring, &root.build_keys, now)?;
    } else {
        return rotate_delegated(repo, ring, role, change, now);
    }
    root.version = repo.next_version(ROOT)?;
    root.expires = repo.settings.expires(ROOT, now);
    repo.save_draft(ROOT, &Envelope::unsigned(root.to_value()))
}

fn rotate_delegated(repo: &Repo, ring: &mut Ring, role: &str, change: &Change, now: u64) -> Result<()> {
    let (_, mut targets) = repo.targets(TARGETS)?;
    let Some(place) = targets.roles.iter().position(|r| r.name == role) else {
        return Err(Failure::new("unknown_role", format!("--role {role}: there is no such role; 'status' lists the roles")));
    };
    let (holders, made) = changed(ring, role, targets.roles[place].holders.clone(), &targets.keys, change)?;
    targets.keys.extend(made);
    targets.roles[place].holders = holders;
    let used = |id: &String| targets.roles.iter().any(|r| r.holders.keyids.contains(id));
    let keys = std::mem::take(&mut targets.keys);
    targets.keys = keys.into_iter().filter(|(id, _)| used(id)).collect();
    targets.version = repo.next_version(TARGETS)?;
    targets.expires = repo.settings.expires(TARGETS, now);
    repo.save_draft(TARGETS, &Envelope::unsigned(targets.to_value()))
}

/// The role's new holders, and the keys that are new.
fn changed(
    ring: &mut Ring,
    role: &str,
    mut holders: Holders,
    keys: &BTreeMap<String, Public>,
    change: &Change,
) -> Result<(Holders, BTreeMap<String, Public>)> {
    for id in &change.remove {
        if !holders.keyids.remove(id) {
            return Err(Failure::new("unknown_key", format!("--remove {id}: role '{role}' has no such key; 'keys' lists the full ids")));
        }
    }
    holders.threshold = change.threshold.unwrap_or(holders.threshold);
    let count = holders.keyids.len() as u64 + change.add;
    if holders.threshold == 0 || holders.threshold > count || count > KEYS_MAX {
        let text = format!(
            "{role}: {} of {count} keys is impossible; the threshold is 1 to the number of keys, at most {KEYS_MAX}",
            holders.threshold
        );
        return Err(Failure::new("threshold", text));
    }
    let made = named(ring.make(role, change.add, keys)?);
    holders.keyids.extend(made.keys().cloned());
    Ok((holders, made))
}
