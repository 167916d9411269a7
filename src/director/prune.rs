//! What is forgotten: roll-outs that are over, so that memory and disk stay bounded in a fleet that is updated for years.
//!
//! A row whose order is in force stays: by it a trial is acknowledged and a lost version is ordered again. So does a roll-out
//! whose quarantine is in force: by its rows one sees whom it concerns.

use super::records::Rollout;
use super::registry::{Registry, order_key, rollout_key};
use super::store::Table;

/// Oldest roll-out that is kept once it is over, days: as long as the activity.
pub const ROLLOUTS_KEPT_DAYS: u64 = 90;
/// Rows that are kept in any case (about 0.7 KB each), and for each agent; beyond, the oldest roll-outs go.
pub const ROWS_KEPT: (usize, usize) = (50_000, 4);
/// Halted roll-outs whose quarantine is kept; beyond, the oldest one's is lifted.
pub const HALTED_KEPT: usize = 50;

impl Registry {
    /// Forgets roll-outs that are over and old, or too many.
    pub fn prune_rollouts(&mut self, now: u64) {
        let mut halted: Vec<u64> = self.quarantine.values().map(|q| q.rollout).filter(|id| *id > 0).collect();
        halted.sort_unstable();
        halted.dedup();
        for id in halted.drain(..halted.len().saturating_sub(HALTED_KEPT)) {
            self.release_rollout(id, now);
        }
        let rows_max = ROWS_KEPT.0.max(self.agents.len() * ROWS_KEPT.1);
        let oldest = now.saturating_sub(ROLLOUTS_KEPT_DAYS * 86_400);
        let over = |r: &&Rollout| r.state != "running" && !self.open.contains(&r.id) && !halted.contains(&r.id);
        let ids: Vec<u64> = self.rollouts.values().filter(over).map(|r| r.id).collect();
        for id in ids {
            let rollout = &self.rollouts[&id];
            let old = rollout.ended_at.unwrap_or(rollout.created_at) < oldest;
            if old || rollout.pruned == Some(true) || self.orders.len() > rows_max {
                self.forget(id);
            }
        }
    }

    fn forget(&mut self, id: u64) {
        let rows: Vec<String> = self.orders.range((id, String::new())..(id + 1, String::new())).map(|((_, a), _)| a.clone()).collect();
        let mut left = false;
        for agent in rows {
            if self.in_force.get(&agent) == Some(&id) && self.known(&agent).is_ok() {
                left = true;
                continue;
            }
            if self.in_force.get(&agent) == Some(&id) {
                self.in_force.remove(&agent);
            }
            self.delete(Table::Orders, order_key(id, &agent));
            self.orders.remove(&(id, agent));
        }
        if !left {
            // The highest number stays: the next roll-out is numbered after it.
            if self.rollouts.keys().next_back() != Some(&id) {
                self.rollouts.remove(&id);
                self.delete(Table::Rollouts, rollout_key(id));
            }
        } else if let Some(rollout) = self.rollouts.get(&id).filter(|r| r.pruned != Some(true)).cloned() {
            self.keep_rollout(Rollout { pruned: Some(true), ..rollout });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::records::{Agent, Order, Quarantine};

    const DAY: u64 = 86_400;

    fn site(rollouts: u64, agents: u64) -> Registry {
        let mut registry = Registry::default();
        for a in 0..agents {
            registry.agents.insert(format!("a{a}"), Agent { id: format!("a{a}"), ..Default::default() });
        }
        for id in 1..=rollouts {
            let ended_at = Some(id * DAY);
            registry.keep_rollout(Rollout { id, state: "done".into(), ended_at, ..Default::default() });
            for a in 0..agents {
                let order = Order { rollout: id, agent: format!("a{a}"), state: "updated".into(), generation: id, ..Default::default() };
                registry.keep_order(order);
            }
        }
        registry.index();
        registry.take_changes();
        registry
    }

    #[test]
    fn what_is_old_goes_and_what_is_in_force_stays() {
        let mut registry = site(200, 3);
        registry.prune_rollouts(200 * DAY);
        assert_eq!(registry.rollouts.len() as u64, ROLLOUTS_KEPT_DAYS + 1);
        assert_eq!(registry.orders.len(), 3 * (ROLLOUTS_KEPT_DAYS as usize + 1));
        assert!(registry.take_changes().iter().any(|c| c.table == Table::Orders && c.value.is_none()), "the disk forgets, too");
        registry.prune_rollouts(900 * DAY);
        assert_eq!((registry.rollouts.len(), registry.orders.len()), (1, 3), "the last order of each agent is in force");
        assert!(registry.order_in_force("a1").is_some_and(|(o, _)| o.rollout == 200));
        assert!(registry.rollouts_view(0).rollouts.is_empty(), "but nobody is shown half a roll-out");
    }

    #[test]
    fn rows_are_bounded_however_busy_the_site_is() {
        let mut registry = site(60, 2_000);
        registry.prune_rollouts(61 * DAY);
        assert!(registry.orders.len() <= ROWS_KEPT.0, "{}", registry.orders.len());
        assert!(registry.rollouts.contains_key(&60));
    }

    #[test]
    fn a_quarantine_keeps_its_roll_out_but_not_for_ever() {
        let mut registry = site(60, 1);
        for id in 1..=60 {
            let entry = Quarantine { sha256: format!("{id:064}"), rollout: id, ..Default::default() };
            registry.quarantine.insert(super::super::quarantine::key(&entry.sha256, "", id), entry);
        }
        registry.prune_rollouts(900 * DAY);
        assert_eq!(registry.quarantine.len(), HALTED_KEPT);
        assert!(!registry.rollouts.contains_key(&10) && registry.rollouts.contains_key(&11));
        assert_eq!(registry.recent.iter().filter(|e| e.code == "hash_allowed").count(), 10, "and it says so");
    }
}
