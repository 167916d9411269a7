//! Stored metadata, verified again when it is loaded: a state folder is no more trusted than the network.
//!
//! Expiry is not asked here: an expired snapshot still says which versions must not fall.

use std::collections::BTreeSet;

use super::delegation::Link;
use super::snapshot::Snapshot;
use super::targets::{TARGETS, Targets};
use super::timestamp::Timestamp;
use super::{Refusal, Trusted};

impl Trusted {
    /// The next root of a stored chain; its version must be exactly one higher than the trusted one.
    pub fn restore_root(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.accept_root(bytes).map(drop)
    }

    /// Stored timestamp, snapshot and targets, under the root that is trusted now. What fails is left out and named.
    ///
    /// If the root's keys no longer vouch for a stored timestamp or snapshot, both are left out: the power may have failed
    /// between the root that rotated their keys and the removal of the files (5.3.11). A file that is only missing or
    /// damaged takes nothing with it: the other one still protects from a rollback.
    pub fn restore_top(&mut self, timestamp: Option<&[u8]>, snapshot: Option<&[u8]>, targets: Option<&[u8]>) -> Vec<Refusal> {
        let mut left_out = Vec::new();
        let mut note = |refusal: Refusal| left_out.push(refusal);
        let timestamp = timestamp.map(|bytes| Timestamp::open(bytes, &self.root.timestamp));
        let snapshot = snapshot.map(|bytes| Snapshot::open(bytes, &self.root.snapshot));
        let rotated = matches!(&timestamp, Some(Err(e)) if e.code == "timestamp_threshold")
            || matches!(&snapshot, Some(Err(e)) if e.code == "snapshot_threshold");
        self.timestamp = timestamp.and_then(|t| t.map_err(&mut note).ok()).filter(|_| !rotated);
        self.snapshot = snapshot.and_then(|s| s.map_err(&mut note).ok()).filter(|_| !rotated);
        self.targets = targets.and_then(|bytes| {
            let open = |bytes| Targets::open("targets", &TARGETS, self.listed("targets")?, &self.root.targets, bytes);
            open(bytes).map_err(&mut note).ok()
        });
        left_out
    }

    /// A stored delegated role, under the keys of any role that we hold and that delegates to it. It is verified once more
    /// under each delegator when a search comes along.
    pub fn restore_delegated(&mut self, role: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let mut refused = Refusal::new("target_not_loaded", role, "no role that is loaded delegates to it");
        let delegators = self.targets.iter().chain(self.delegated.values());
        let names: Vec<String> = delegators.filter(|d| d.delegation(role).is_some()).map(|d| d.name.clone()).collect();
        for delegator in names {
            let link = Link { delegator, role: role.to_string() };
            match self.open_link(&link, bytes) {
                Ok(found) => {
                    self.delegated.insert(link.role, found);
                    return Ok(());
                }
                Err(e) => refused = e,
            }
        }
        Err(refused)
    }

    /// Delegated roles that somebody names, following the delegations from the top as far as they are loaded.
    pub fn named(&self) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        let mut todo: Vec<&Targets> = self.targets.iter().collect();
        while let Some(role) = todo.pop() {
            for delegation in &role.delegations {
                if named.insert(delegation.name.clone()) {
                    todo.extend(self.delegated.get(&delegation.name));
                }
            }
        }
        named
    }

    /// Drops roles that nobody names any more: no search reaches them, and a device's folder would keep them for ever.
    pub(super) fn forget_unnamed(&mut self) {
        let named = self.named();
        self.delegated.retain(|name, _| named.contains(name));
    }

    /// Roles that are delegated to by what is loaded, and are not loaded themselves.
    pub fn unloaded(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for delegation in self.targets.iter().chain(self.delegated.values()).flat_map(|role| &role.delegations) {
            if !self.delegated.contains_key(&delegation.name) && !out.contains(&delegation.name) {
                out.push(delegation.name.clone());
            }
        }
        out
    }
}
