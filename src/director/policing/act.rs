//! One pass: whoever is marked or due is judged; what is due becomes roll-outs, what is not wanted any more is withdrawn.

use std::collections::BTreeMap;

use super::confirmed::needs;
use super::judge::{Judgement, Shelf, Withdraw};
use super::{Policing, Verdict};
use crate::core::policy::{Decision, Effective};
use crate::core::rollout::{InFlight, ROLLOUT_LIFE_S};
use crate::director::cancel::Cancel;
use crate::director::orders::Assign;
use crate::director::records::{Order, Rollout, WAITING_TURN};
use crate::director::registry::Registry;
use crate::director::releases::Releases;

/// Who is noted in the activity for what happens by policy.
pub const BY_POLICY: &str = "policy";
/// At once in a roll-out by policy, of a hundred.
const IN_FLIGHT_PERCENT: u32 = 10;
/// Failures of one version, over all its roll-outs by policy, that do not halt: as for a person's.
const MAX_FAILURES: u64 = 2;
/// Contact deadline and longest unattended trial of a roll-out by policy: a person's defaults.
const CONTACT_DEADLINE_S: u64 = 300;
const TRIAL_MAX_S: u64 = 24 * 3600;
/// When to look again at a node that waits for its version's roll-out to get through those that are reachable.
const LATECOMER_LOOK_S: u64 = 2;

/// What is ordered together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Batch {
    version: String,
    opens: Option<u64>,
    closes: Option<u64>,
}

impl Policing {
    /// Whoever is marked, and those whose time has come.
    fn take_due(&mut self, everybody: impl Iterator<Item = String>, now: u64) -> Vec<String> {
        if std::mem::take(&mut self.all_marked) {
            self.marked.clear();
            return everybody.collect();
        }
        let mut due = std::mem::take(&mut self.marked);
        let later = self.looks.split_off(&(now + 1, String::new()));
        for (_, node) in std::mem::replace(&mut self.looks, later) {
            self.look_of.remove(&node);
            due.insert(node);
        }
        due.into_iter().collect()
    }
}

impl Registry {
    /// What this server manages.
    pub fn product(&self) -> &'static str {
        self.role.product.name
    }

    /// Decides for whoever there is news of, and acts.
    pub(in crate::director) fn police(&mut self, releases: &Releases, now: u64, wake: &mut Vec<String>) {
        let stamp = stamp(releases);
        let new_releases = self.policing.stamp != stamp;
        if new_releases {
            self.policing.stamp = stamp;
            self.policing.mark_all();
        }
        self.take_confirmations(releases, new_releases, now);
        self.expire_grants(now);
        self.prune_confirmations(now);
        let everybody: Vec<String> = if self.policing.all_marked { self.agents.keys().cloned().collect() } else { Vec::new() };
        let due = self.policing.take_due(everybody.into_iter(), now);
        if due.is_empty() {
            return;
        }
        self.policing.looked += due.len() as u64;
        let judgements = self.judge_all(due, releases, now);
        let mut batches: BTreeMap<Batch, Vec<String>> = BTreeMap::new();
        for (node, judgement) in judgements {
            self.policing.look_at(&node, judgement.look);
            let verdict = Verdict::of(&judgement.decision);
            if needs(self.policing.verdicts.get(&node)) != needs(Some(&verdict)) {
                self.touch(&node);
            }
            self.policing.verdicts.insert(node.clone(), verdict);
            if let Some(Withdraw { rollout, why, keep_staged }) = judgement.withdraw {
                self.by = Some(BY_POLICY.into());
                let told = self.cancel_row(rollout, &node, &Cancel { keep_staged, ..Cancel::new(&why) }, now).told();
                self.by = None;
                if told {
                    wake.push(node.clone());
                }
            } else if let Decision::Act { version, not_before, closes, .. } = judgement.decision {
                let opens = Some(not_before).filter(|at| *at > now);
                batches.entry(Batch { version: version.to_string(), opens, closes }).or_default().push(node);
            }
        }
        for (batch, nodes) in batches {
            self.launch(batch, nodes, releases, now);
        }
    }

    fn judge_all(&mut self, due: Vec<String>, releases: &Releases, now: u64) -> Vec<(String, Judgement)> {
        self.policing.clockwork.forget_answers();
        let product = self.product();
        let mut shelf = Shelf::new(product, releases);
        // Most nodes have no settings of their own.
        let common = self.effective("");
        let mut out = Vec::with_capacity(due.len());
        for node in due {
            if self.known(&node).is_err() {
                self.policing.verdicts.remove(&node);
                self.policing.look_at(&node, None);
                continue;
            }
            let settings: Effective = if self.has_own_settings(&node) { self.effective(&node) } else { common.clone() };
            let agent = &self.agents[&node];
            let judgement = self.judge(agent, settings, shelf.of(&agent.os, &agent.architecture), now);
            out.push((node, judgement));
        }
        out
    }

    pub(super) fn has_own_settings(&self, node: &str) -> bool {
        let p = &self.policing;
        (!p.files.is_empty() && p.files.contains_key(node))
            || p.layers.contains_key(&format!("node/{node}"))
            || p.cluster_of.contains_key(node)
    }

    /// Makes a roll-out, unless one of the same version is still busy: a device that comes back later does not start
    /// beside the first agent of it.
    fn launch(&mut self, batch: Batch, nodes: Vec<String>, releases: &Releases, now: u64) {
        if let Some(busy) = self.busy_rollout(&batch) {
            for node in &nodes {
                let detail = format!("{} is on its way to others by roll-out {busy}; a later one takes this node along", batch.version);
                let until = Some(now + LATECOMER_LOOK_S);
                let (code, version) = ("earlier_rollout".to_string(), Some(batch.version.clone()));
                self.policing.verdicts.insert(node.clone(), Verdict { word: "wait", code, detail, until, version });
                self.policing.look_at(node, until);
            }
            return;
        }
        let life_s = batch.closes.map_or(ROLLOUT_LIFE_S, |closes| closes.saturating_sub(now));
        let ask = Assign {
            agents: Some(nodes.clone()),
            product: self.product().to_string(),
            version: batch.version.clone(),
            in_flight: InFlight::Percent(IN_FLIGHT_PERCENT),
            max_failures: self.failures_left(&batch.version),
            contact_deadline_s: CONTACT_DEADLINE_S,
            unattended: false,
            trial_max_s: TRIAL_MAX_S,
            end_probation: false,
            retry: false,
            switch_in_s: batch.opens.map_or(0, |at| at.saturating_sub(now)),
            life_s,
        };
        self.by = Some(BY_POLICY.into());
        let made = self.assign(&ask, releases, now);
        self.by = None;
        match made {
            Ok(id) => {
                if let Some(rollout) = self.rollouts.get(&id).cloned() {
                    let expires_at = batch.closes.or(rollout.expires_at);
                    self.keep_rollout(Rollout { policy: Some(true), closes_at: batch.closes, expires_at, ..rollout });
                }
                self.use_grants(&nodes, id, now);
            }
            Err(reason) => {
                for node in &nodes {
                    let (code, detail) = (reason.code.to_string(), reason.detail.clone());
                    let until = Some(now + 60);
                    self.policing.verdicts.insert(node.clone(), Verdict { word: "wait", code, detail, until, version: None });
                    self.policing.look_at(node, until);
                }
            }
        }
    }

    /// A roll-out by policy of the same version that has reachable nodes to get through.
    fn busy_rollout(&self, batch: &Batch) -> Option<u64> {
        let same = |r: &&Rollout| r.policy == Some(true) && r.version == batch.version && r.state == "running";
        let busy = |o: &Order| o.end().is_none() && !(o.state == WAITING_TURN && o.code == "agent_offline");
        let open = self.open.iter().filter_map(|id| self.rollouts.get(id)).filter(same);
        let mut busy = open.filter(|r| self.orders.range(rollouts_of(r.id)).any(|(_, o)| busy(o)));
        busy.next().map(|r| r.id)
    }

    /// How many more nodes may fail with this version: many small roll-outs are no way around the limit of one.
    fn failures_left(&self, version: &str) -> u64 {
        let ours = |r: &&Rollout| r.policy == Some(true) && r.version == version;
        let mut failed = 0;
        for rollout in self.rollouts.values().rev().filter(ours) {
            // What a halt counted was judged then.
            if rollout.state == "halted" {
                break;
            }
            failed += self.orders.range(rollouts_of(rollout.id)).filter(|(_, o)| o.end().is_some_and(|e| e.is_failure())).count() as u64;
        }
        MAX_FAILURES.saturating_sub(failed)
    }
}

/// The keys of a roll-out's rows.
fn rollouts_of(id: u64) -> std::ops::Range<(u64, String)> {
    (id, String::new())..(id + 1, String::new())
}

/// Differs when the releases differ.
fn stamp(releases: &Releases) -> u64 {
    let word = |sha256: &[u8; 32]| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| sha256[i]));
    let there = releases.artifacts.iter().fold(1_u64, |sum, a| sum.wrapping_add(word(&a.sha256)));
    releases.withdrawn.iter().fold(there, |sum, w| sum.wrapping_mul(31).wrapping_add(word(&w.sha256)))
}
