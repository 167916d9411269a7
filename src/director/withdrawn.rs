//! What a publisher took back: no order for it goes on, who runs it is reported and keeps running.

use std::collections::BTreeMap;

use super::cancel::Cancel;
use super::records::Order;
use super::registry::Registry;
use super::releases::Releases;
use crate::core::hex;

impl Registry {
    /// Cancels the orders of withdrawn files that have not been switched to, and tells of each agent that runs one. A trial
    /// goes on to its verdict: the device goes back by itself if it is bad, and runs no worse than another that has it.
    pub fn drop_withdrawn(&mut self, releases: &Releases, now: u64, wake: &mut Vec<String>) {
        if releases.withdrawn.is_empty() {
            self.withdrawn.clear();
            return;
        }
        self.withdrawn = releases.withdrawn.iter().map(|w| (hex::encode(&w.sha256), w.reason.clone())).collect();
        let reasons: BTreeMap<String, String> = self.withdrawn.clone();
        let open = |o: &Order| o.step().is_some_and(|s| !s.has_switched()) && o.cancel_generation == 0;
        let rows =
            self.open.iter().flat_map(|id| self.orders.range((*id, String::new())..(*id + 1, String::new()))).filter(|(_, o)| open(o));
        let gone: Vec<((u64, String), String)> = rows.filter_map(|(key, o)| Some((key.clone(), reasons.get(&o.sha256)?.clone()))).collect();
        for ((rollout, agent), reason) in gone {
            if self.cancel_row(rollout, &agent, &Cancel::new(&format!("withdrawn: {reason}")), now).told() {
                wake.push(agent);
            }
        }
        let running = self.agents.values().filter(|a| a.removed_at.is_none());
        let running = running.filter_map(|a| Some((a.id.clone(), a.running_sha256.clone(), reasons.get(&a.running_sha256)?.clone())));
        for (agent, sha256, reason) in running.collect::<Vec<_>>() {
            if self.told_withdrawn.get(&agent) != Some(&sha256) {
                let detail = format!("it runs a withdrawn version and keeps running: {reason}");
                self.event(now, &agent, "running_withdrawn", detail, None);
                self.told_withdrawn.insert(agent, sha256);
            }
        }
    }
}
