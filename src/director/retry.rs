//! Trying again what did not work: agents that went back, refused, fell silent or were left out get the same version by a
//! new roll-out that passes a halt's quarantine and the devices' own rejections. What a person rejected stays rejected.

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize};

use super::orders::Assign;
use super::records::Order;
use super::registry::Registry;
use super::releases::Releases;
use crate::core::reason::Reason;
use crate::core::rollout::{End, InFlight};

/// Whom to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Every agent whose last order did not work.
    Everybody,
    /// These agents.
    Agents(Vec<String>),
    /// What did not work in this roll-out, and what it had not got to; its quarantine is lifted.
    Rollout(u64),
}

/// A roll-out made by a retry.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Again {
    /// Its number.
    pub rollout: u64,
    /// Its version.
    pub version: String,
    /// Agents in it.
    pub group: u64,
}

/// An agent that is not tried again.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct LeftOut {
    /// Who.
    pub agent: String,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
}

/// What `retry` did.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct RetryView {
    /// New roll-outs, one per version.
    pub rollouts: Vec<Again>,
    /// Agents that are not tried again.
    pub left_out: Vec<LeftOut>,
    /// Agents told at once.
    pub told: u64,
}

impl Registry {
    /// Makes roll-outs of what is to be tried again. Asking twice makes no second one: whoever is under way is left out.
    ///
    /// # Errors
    /// `rollout_unknown`, `agent_unknown`, `agent_removed`, `version_unknown`, `nothing_to_retry`.
    pub fn retry(&mut self, whom: &Whom, releases: &Releases, now: u64) -> Result<RetryView, Reason> {
        let rows = self.candidates(whom)?;
        let mut view = RetryView { rollouts: vec![], left_out: vec![], told: 0 };
        let mut groups: BTreeMap<(u64, String), Vec<String>> = BTreeMap::new();
        for row in rows {
            match self.why_not_again(&row, whom, now) {
                // One roll-out may have been made for others with other limits: each keeps its own.
                None => groups.entry((row.rollout, row.version.clone())).or_default().push(row.agent.clone()),
                Some(reason) => {
                    view.left_out.push(LeftOut { agent: row.agent, code: reason.code.to_string(), detail: reason.detail.clone() })
                }
            }
        }
        for ((rollout, version), agents) in groups {
            let Some(was) = self.rollouts.get(&rollout).cloned() else { continue };
            let ask = Assign {
                product: was.product.clone(),
                version: version.clone(),
                in_flight: InFlight::Count(u32::try_from(was.max_in_flight).unwrap_or(u32::MAX)),
                max_failures: was.max_failures,
                contact_deadline_s: was.contact_deadline_s,
                unattended: was.unattended,
                trial_max_s: was.trial_max_s,
                end_probation: was.end_probation,
                retry: true,
                switch_in_s: was.switch_at.map_or(0, |at| at.saturating_sub(now)),
                life_s: was.expires_at().saturating_sub(was.created_at),
                agents: Some(agents),
            };
            let group = ask.agents.as_ref().map_or(0, Vec::len) as u64;
            let id = self.assign(&ask, releases, now)?;
            view.rollouts.push(Again { rollout: id, version, group });
        }
        if let Whom::Rollout(id) = whom {
            self.release_rollout(*id, now);
        }
        Ok(view)
    }

    /// The rows that the question is about.
    fn candidates(&self, whom: &Whom) -> Result<Vec<Order>, Reason> {
        Ok(match whom {
            Whom::Rollout(id) => {
                let unknown = || Reason::new("rollout_unknown", format!("there is no roll-out {id}; `rollouts` lists them"));
                self.rollouts.get(id).ok_or_else(unknown)?;
                self.orders.range((*id, String::new())..(*id + 1, String::new())).map(|(_, o)| o.clone()).collect()
            }
            Whom::Agents(ids) => {
                let row = |id: &String| -> Result<Order, Reason> {
                    self.known(id)?;
                    let nothing = || Reason::new("nothing_to_retry", format!("{id} has never been ordered anything; use `assign`"));
                    self.concerning(id).map(|(order, _)| order.clone()).ok_or_else(nothing)
                };
                ids.iter().map(row).collect::<Result<_, _>>()?
            }
            Whom::Everybody => {
                let agents = self.agents.values().filter(|a| a.removed_at.is_none());
                let rows = agents.filter_map(|a| self.concerning(&a.id)).map(|(o, _)| o);
                rows.filter(|o| o.end().is_some_and(did_not_work)).cloned().collect()
            }
        })
    }

    /// Why this one is not tried again.
    fn why_not_again(&self, row: &Order, whom: &Whom, now: u64) -> Option<Reason> {
        let no = |code: &'static str, detail: String| Some(Reason::new(code, detail));
        if self.known(&row.agent).is_err() {
            return no("agent_removed", "it was removed".into());
        }
        let row_of = |id: &u64| self.orders.get(&(*id, row.agent.clone()));
        let newer = self.rollouts.range(row.rollout + 1..).filter_map(|(id, _)| row_of(id)).any(|o| o.generation > 0 || o.end().is_none());
        if newer {
            return no("newer_order", format!("a newer roll-out has this {} on its list; `explain` shows it", self.role.node));
        }
        let halted = matches!(whom, Whom::Rollout(id) if self.rollouts.get(id).is_some_and(|r| r.state == "halted"));
        match row.end() {
            Some(End::Updated | End::Already) => return no("runs_it", format!("it runs {} already", row.version)),
            // A halted roll-out orders nobody any more: those that wait are what a retry is for.
            None if row.step().is_none() && halted => {}
            None => return no("under_way", format!("roll-out {} is under way with it: {}", row.rollout, row.detail)),
            Some(_) => {}
        }
        self.quarantined(&row.sha256, &row.agent, true, now)
    }
}

/// Ends that a retry of everybody is meant for; a cancel was somebody's will.
fn did_not_work(end: End) -> bool {
    match end {
        End::RolledBack | End::Silent | End::Flapping | End::Refused | End::NoArtifact | End::Expired => true,
        End::Updated | End::Already | End::Cancelled => false,
    }
}
