//! A version that an agent had confirmed is gone from its disk (a slot rotted, the slots were emptied): it is ordered
//! again, by the same roll-out, under a new generation. Nobody has to notice first.
//!
//! Only losses: a version that proved bad, a rollback by a person, a manual update and a cancelled or halted roll-out are
//! decisions, and stay.

use super::records::{Agent, Order};
use super::registry::Registry;
use super::releases::Releases;
use crate::core::hex;
use crate::core::rollout::End;
use crate::wire::agent_api::{ReportWire, ResultWire};

/// Shortest time between two repairs of one agent, seconds: a disk that rots all the time must not become a download
/// loop; ten minutes are the cooldown of everything else that is tried again.
pub const REPAIR_EVERY_S: u64 = 600;
/// Codes of results that tell of a lost file, not of a bad one.
const LOST: [&str; 3] = ["slot_damaged", "slot_missing", "exec_failed"];

impl Registry {
    /// The order in force, if this agent had fulfilled it and nobody took it back.
    fn fulfilled(&self, id: &str) -> Option<&Order> {
        let (order, rollout) = self.order_in_force(id)?;
        let fulfilled = matches!(order.end(), Some(End::Updated | End::Already));
        (fulfilled && order.cancel_generation == 0 && !matches!(rollout.state.as_str(), "halted" | "cancelled")).then_some(order)
    }

    /// The rows that a result speaks of as lost, seen before the result is taken in.
    pub(super) fn lost_by(&self, id: &str, result: &ResultWire) -> Option<u64> {
        let lost = result.outcome == "rolled_back" && result.verdict != "bad" && LOST.contains(&result.code.as_str());
        self.fulfilled(id).filter(|order| lost && order.sha256 == result.sha256).map(|order| order.rollout)
    }

    /// The factory image runs, has nothing more to tell, and the confirmed version is not what it runs.
    pub(super) fn lost_without_a_word(&self, id: &str, report: &ReportWire) -> Option<u64> {
        let factory = report.result.is_none() && report.running == "factory" && report.running_as == "factory";
        let lost = |order: &&Order| factory && order.sha256 != report.running_sha256 && order.repair_at.is_none();
        self.fulfilled(id).filter(lost).map(|order| order.rollout)
    }

    /// The version of this row is to be ordered again as soon as that is allowed.
    pub(super) fn plan_repair(&mut self, rollout: u64, id: &str, now: u64) {
        let Some(mut row) = self.orders.get(&(rollout, id.to_string())).cloned() else { return };
        let at = row.repaired_at.map_or(now, |last| now.max(last.saturating_add(REPAIR_EVERY_S)));
        (row.repair_at, row.until) = (Some(at), Some(at));
        self.repairs.insert(id.to_string());
        self.keep_order(row);
    }

    /// Issues the repairs whose time has come.
    pub(super) fn repair(&mut self, releases: &Releases, now: u64, wake: &mut Vec<String>) {
        for id in self.repairs.clone() {
            let Some(mut row) = self.order_in_force(&id).map(|(order, _)| order.clone()) else {
                self.repairs.remove(&id);
                continue;
            };
            let Some(at) = row.repair_at.filter(|_| self.still_lost(&row, releases, now)) else {
                self.repairs.remove(&id);
                row.repair_at = None;
                self.keep_order(row);
                continue;
            };
            if at > now || self.waits_for_another(&row) {
                continue;
            }
            self.repairs.remove(&id);
            (row.repair_at, row.repaired_at) = (None, Some(now));
            let detail = format!("{} was confirmed and is gone from the device: {}", row.version, row.detail);
            self.event(now, &id, "repair_ordered", detail, Some(&row));
            self.issue(row, releases, now);
            wake.push(id);
        }
    }

    /// Nobody withdrew it meanwhile, the agent does not run it, and the release still has that very file.
    fn still_lost(&self, row: &Order, releases: &Releases, now: u64) -> bool {
        let Some(agent) = self.agents.get(&row.agent).filter(|a| a.removed_at.is_none()) else { return false };
        let gone = |a: &Agent| a.running_sha256 != row.sha256 && a.running_as != "manual" && a.running_as != "trial";
        let same_file = |artifact: &crate::core::release::Artifact| {
            artifact.path.to_string() == row.target && hex::encode(&artifact.sha256) == row.sha256
        };
        let wanted = self.quarantined(&row.sha256, &row.agent, true, now).is_none();
        row.end().is_some() && row.cancel_generation == 0 && wanted && gone(agent) && releases.artifacts.iter().any(same_file)
    }

    /// A newer roll-out has this agent on its list: its order is the repair.
    fn waits_for_another(&self, row: &Order) -> bool {
        let open = |id: &u64| self.orders.get(&(*id, row.agent.clone())).is_some_and(|o| o.end().is_none());
        self.open.iter().any(|id| *id != row.rollout && open(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::InFlight;
    use crate::director::orders::Assign;
    use crate::director::releases::tests::artifact;
    use crate::wire::agent_api::{AnswerWire, EnrollWire};

    const TARGET: &str = "vmetric-agent/2.0.0/linux-amd64/vmetric-agent";

    struct World {
        registry: Registry,
        releases: Releases,
        now: u64,
    }

    impl World {
        /// Agent `a` was updated to 2.0.0 by roll-out 1.
        fn updated() -> World {
            let mut w = World {
                registry: Registry::default(),
                releases: Releases { artifacts: vec![artifact(TARGET)], ..Default::default() },
                now: 1_000_000,
            };
            w.registry.issuer = "i".into();
            w.registry.create_token("t", 1, 3_600, w.now).unwrap();
            let wire = EnrollWire { token: "t".into(), os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
            w.registry.enroll(&wire, "a", w.now).unwrap();
            let ask = Assign {
                agents: None,
                product: "vmetric-agent".into(),
                version: "2.0.0".into(),
                in_flight: InFlight::Count(1),
                max_failures: 0,
                contact_deadline_s: 300,
                unattended: false,
                trial_max_s: 3_600,
                end_probation: false,
                retry: false,
                switch_in_s: 0,
                life_s: 86_400 * 30,
            };
            w.registry.assign(&ask, &w.releases, w.now).unwrap();
            w.hear(w.report(0, "factory", None));
            assert!(w.hear(w.report(1, "confirmed", Some(result(1, "updated", "", "confirmed")))).order.is_none());
            assert_eq!(w.registry.orders[&(1, "a".into())].end(), Some(End::Updated));
            w
        }

        fn report(&self, generation: u64, running_as: &str, result: Option<ResultWire>) -> ReportWire {
            let sha256 = if running_as == "confirmed" { sha() } else { "00".repeat(32) };
            ReportWire {
                agent_id: "a".into(),
                os: "linux".into(),
                architecture: "amd64".into(),
                issuer: if generation > 0 { "i".into() } else { String::new() },
                generation,
                running: if running_as == "confirmed" { "a" } else { "factory" }.into(),
                running_as: running_as.into(),
                running_sha256: sha256,
                step: "idle".into(),
                result,
                ..Default::default()
            }
        }

        fn hear(&mut self, report: ReportWire) -> AnswerWire {
            self.registry.hear("a", &report, self.now);
            self.registry.advance_all(&self.releases, self.now);
            self.registry.answer("a", &report, 1, self.now)
        }

        fn events(&self, code: &str) -> usize {
            self.registry.recent.iter().filter(|e| e.code == code).count()
        }
    }

    fn sha() -> String {
        hex::encode(&hex::sha256(TARGET.as_bytes()))
    }

    fn result(generation: u64, outcome: &str, verdict: &str, code: &str) -> ResultWire {
        ResultWire {
            id: format!("{generation}{outcome}{code}"),
            issuer: "i".into(),
            generation,
            outcome: outcome.into(),
            verdict: verdict.into(),
            code: code.into(),
            sha256: sha(),
            running_sha256: if outcome == "updated" { sha() } else { String::new() },
            ..Default::default()
        }
    }

    #[test]
    fn a_damaged_slot_is_ordered_again_at_once_and_then_not_for_a_while() {
        let mut w = World::updated();
        let lost = |generation| Some(result(generation, "rolled_back", "could_not_tell", "slot_damaged"));
        let order = w.hear(w.report(1, "factory", lost(1))).order.unwrap();
        assert_eq!((order.generation, order.kind.as_str(), order.sha256), (2, "update", sha()));
        w.hear(w.report(2, "confirmed", Some(result(2, "updated", "", "confirmed"))));
        assert_eq!((w.events("repair_ordered"), w.events("confirmed")), (1, 2));
        w.now += 60;
        assert!(w.hear(w.report(2, "factory", lost(2))).order.is_none(), "it rots again within ten minutes");
        w.registry.index();
        w.now += REPAIR_EVERY_S;
        assert_eq!(w.hear(w.report(2, "factory", None)).order.unwrap().generation, 3);
    }

    #[test]
    fn an_emptied_device_is_ordered_again() {
        let mut w = World::updated();
        assert_eq!(w.hear(w.report(1, "factory", None)).order.unwrap().generation, 2);
    }

    #[test]
    fn decisions_stay() {
        for code in ["crash_loop", "operator"] {
            let mut w = World::updated();
            w.hear(w.report(1, "factory", Some(result(1, "rolled_back", "bad", code))));
            assert!(w.hear(w.report(1, "factory", None)).order.is_none(), "{code}");
        }
        let mut w = World::updated();
        assert!(w.hear(w.report(1, "manual", None)).order.is_none(), "a person replaced the image");
        w.registry.rollouts.get_mut(&1).unwrap().state = "halted".into();
        assert!(w.hear(w.report(1, "factory", None)).order.is_none(), "the file is under suspicion");
        assert_eq!(w.events("repair_ordered"), 0);
    }

    #[test]
    fn a_cancel_that_comes_too_late_takes_nothing_back() {
        let mut w = World::updated();
        w.hear(w.report(2, "confirmed", Some(result(1, "cancelled", "", "cancelled"))));
        assert_eq!(w.registry.orders[&(1, "a".into())].end(), Some(End::Updated));
    }
}
