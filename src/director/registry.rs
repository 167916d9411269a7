//! What the Director knows, in memory: agents, tokens, roll-outs, orders, the latest activity.
//!
//! No IO and no clock: time and random texts are arguments; what must reach the disk collects in [`Registry::take_changes`].
//! So each behaviour is tested without a socket, a file or a wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use miniserde::{Serialize, json};

use super::activity;
#[cfg(unix)]
use super::api_tokens::ApiToken;
use super::caller::{Heard, Strangers};
use super::muting::Muting;
use super::policing::Policing;
use super::records::{Agent, Event, NAME_MAX, Order, Pending, Quarantine, Rollout, Token, clean};
use super::role::Role;
use super::store::{Change, Table};
use crate::core::reason::Reason;
use crate::core::relay::update_id;

/// Most agents of one Director: the registry is in memory (about 2 KB each).
pub const AGENTS_MAX: usize = 100_000;

/// The state in memory.
#[derive(Default)]
pub struct Registry {
    /// What this server is, and what it manages.
    pub role: &'static Role,
    /// Who orders: the store's random id.
    pub issuer: String,
    /// Limits of what agents fetch.
    pub metering: super::metering::Metering,
    /// How much of the activity is kept.
    pub keep_activity: activity::Keep,
    /// Since when this process can hear agents; silence is counted from here at the earliest.
    pub started_at: u64,
    /// By id; removed ones stay, so that their credential is refused for good.
    pub agents: BTreeMap<String, Agent>,
    /// Last contact in memory, by agent; newer than the one on disk.
    pub contacts: BTreeMap<String, u64>,
    /// The newest report heard of each agent: its boot and its number, in memory only.
    pub newest: BTreeMap<String, (u64, u64)>,
    /// Bytes of the ordered file on each device's disk.
    pub bytes: BTreeMap<String, u64>,
    /// By the token's SHA-256.
    pub tokens: BTreeMap<String, Token>,
    /// Tokens of the API, by SHA-256.
    #[cfg(unix)]
    pub api_tokens: BTreeMap<String, ApiToken>,
    /// Devices that wait for a person, by public key.
    pub approvals: BTreeMap<String, Pending>,
    /// By number.
    pub rollouts: BTreeMap<u64, Rollout>,
    /// By roll-out and agent.
    pub orders: BTreeMap<(u64, String), Order>,
    /// Roll-outs that are running or have an agent that has not come to an end.
    pub open: BTreeSet<u64>,
    /// Roll-out whose order is in force, by agent.
    pub in_force: BTreeMap<String, u64>,
    /// Agents whose order in force is to be issued again ([`super::repair`]).
    pub repairs: BTreeSet<String>,
    /// Files that are not ordered, by [`super::quarantine::key`].
    pub quarantine: BTreeMap<String, Quarantine>,
    /// The person on whose word things change right now.
    pub by: Option<String>,
    /// Enrolled agents by their device's public key.
    pub devices: BTreeMap<String, String>,
    /// Who spoke last with an identity; memory only.
    pub heard: BTreeMap<String, Heard>,
    /// Refusals that the activity has not been told of, by code; memory only.
    pub strangers: BTreeMap<String, Strangers>,
    /// Hash and reason of what was withdrawn ([`super::withdrawn`]).
    pub withdrawn: BTreeMap<String, String>,
    /// Agents whose running a withdrawn file has been told, with its hash; told once per process.
    pub told_withdrawn: BTreeMap<String, String>,
    /// Latest events, oldest first.
    pub recent: VecDeque<Event>,
    /// Time and size of every kept event, oldest first; its first sequence is `next_seq - kept.len()`.
    pub kept: VecDeque<(u64, usize)>,
    /// Next sequence of the activity.
    pub next_seq: u64,
    /// Whose reports make too many events.
    pub muting: Muting,
    /// Agents whose row at Fleet may have changed; `None` = nobody asks.
    pub touched: Option<BTreeSet<String>>,
    /// Settings for other servers' nodes have changed: whoever waits may have to be told.
    pub hand_out: bool,
    /// Versions that were asked for by name, and until when that counts; memory only.
    pub asked: BTreeMap<crate::core::keep::Use, u64>,
    /// Something waits for a file that is not here: the mirror looks now, not in a minute.
    pub fetch_now: bool,
    /// What Fleet says of this server's nodes, as it came last; memory only.
    #[cfg(unix)]
    pub handed_down: Option<super::policing::hand::HandedWire>,
    /// Which revision of them each was told of; memory only.
    pub handed_told: BTreeMap<String, u64>,
    /// Settings, authorizations, and whose decision may be another one now.
    pub policing: Policing,
    changes: Vec<Change>,
}

/// The key of an order's row.
pub fn order_key(rollout: u64, agent: &str) -> String {
    format!("{rollout:010}/{agent}")
}

/// The key of a roll-out's row.
pub fn rollout_key(id: u64) -> String {
    format!("{id:010}")
}

impl Registry {
    /// What must reach the disk since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Derives what is not stored: open roll-outs, whose order is in force, and the highest generation issued to an agent.
    /// The row in force has that one, and is never forgotten ([`super::prune`]).
    pub fn index(&mut self) {
        self.devices =
            self.agents.values().filter(|a| a.removed_at.is_none()).filter_map(|a| Some((a.device_key.clone()?, a.id.clone()))).collect();
        self.open = self.rollouts.values().filter(|r| r.state == "running").map(|r| r.id).collect();
        for order in self.orders.values() {
            self.policing.order_changed(&order.agent, order.rollout);
            if let Some(agent) = self.agents.get_mut(&order.agent) {
                agent.issued = agent.issued.max(order.in_force());
            }
            if order.end().is_none() {
                self.open.insert(order.rollout);
            }
            if order.repair_at.is_some() {
                self.repairs.insert(order.agent.clone());
            }
            let newest = self.in_force.get(&order.agent).and_then(|id| self.orders.get(&(*id, order.agent.clone())));
            if order.generation > 0 && newest.is_none_or(|n| n.generation < order.generation) {
                self.in_force.insert(order.agent.clone(), order.rollout);
            }
        }
    }

    /// Writes a row.
    pub fn put(&mut self, table: Table, key: String, value: &impl Serialize) {
        self.changes.push(Change { table, key, value: Some(json::to_string(value)) });
    }

    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: String) {
        self.changes.push(Change { table, key, value: None });
    }

    /// Writes an agent's row.
    pub fn keep_agent(&mut self, id: &str) {
        self.touch(id);
        if let Some(value) = self.agents.get(id).map(json::to_string) {
            self.changes.push(Change { table: Table::Agents, key: id.to_string(), value: Some(value) });
        }
    }

    pub(in crate::director) fn touch(&mut self, id: &str) {
        if let Some(touched) = &mut self.touched
            && !id.is_empty()
            && !touched.contains(id)
        {
            touched.insert(id.to_string());
        }
    }

    /// Replaces an order, in memory and on disk.
    pub fn keep_order(&mut self, order: Order) {
        self.touch(&order.agent);
        self.put(Table::Orders, order_key(order.rollout, &order.agent), &order);
        if order.end().is_none() {
            self.open.insert(order.rollout);
        }
        self.policing.order_changed(&order.agent, order.rollout);
        self.orders.insert((order.rollout, order.agent.clone()), order);
    }

    /// Replaces a roll-out, in memory and on disk.
    pub fn keep_rollout(&mut self, rollout: Rollout) {
        self.put(Table::Rollouts, rollout_key(rollout.id), &rollout);
        if rollout.state == "running" {
            self.open.insert(rollout.id);
        }
        self.rollouts.insert(rollout.id, rollout);
    }

    /// Adds to the activity.
    pub fn event(&mut self, now: u64, agent: &str, code: &str, detail: impl Into<String>, of: Option<&Order>) {
        let update = of.filter(|o| o.generation > 0).map(|o| update_id(agent, o.generation, &self.issuer));
        let (version, generation) = of.map_or((String::new(), 0), |o| (o.version.clone(), o.generation));
        let detail = clean(&detail.into(), super::records::DETAIL_MAX);
        let (agent, code) = (agent.to_string(), code.to_string());
        self.note(Event { time: now, agent, code, detail, version, generation, update, ..Default::default() });
    }

    /// The same for a step of this Director's own update.
    #[cfg(unix)]
    pub fn own_step(&mut self, step: &super::own::journal::StepWire, update: Option<String>) {
        self.note(Event {
            time: step.ended.unwrap_or(step.began),
            code: step.code.clone(),
            detail: clean(&step.detail, super::records::DETAIL_MAX),
            version: step.version.clone(),
            generation: step.generation,
            step: Some(step.step.clone()).filter(|name| !name.is_empty()),
            began: Some(step.began),
            result: step.result.clone(),
            reason: step.reason.clone(),
            update,
            ..Default::default()
        });
    }

    /// Adds an event to the activity; its sequence and who caused it are filled in here.
    pub fn note(&mut self, event: Event) {
        if !self.muting.may_tell() {
            return;
        }
        let event = Event { seq: self.next_seq, by: self.by.clone(), ..event };
        log::info!("{}", activity::line(&event));
        self.next_seq += 1;
        let text = json::to_string(&event);
        self.kept.push_back((event.time, text.len()));
        self.changes.push(Change { table: Table::Activity, key: activity::key(event.seq), value: Some(text) });
        self.recent.push_back(event);
        if self.recent.len() > activity::RECENT {
            self.recent.pop_front();
        }
    }

    /// Removes events that are too old or too many.
    pub fn prune_activity(&mut self, now: u64) {
        let first = self.next_seq - self.kept.len() as u64;
        let gone = activity::expired(self.kept.make_contiguous(), self.keep_activity, now);
        self.kept.drain(..gone);
        for seq in first..first + gone as u64 {
            self.delete(Table::Activity, activity::key(seq));
        }
    }

    /// When an agent was last heard of: never before this process could hear it, or a restart would look like silence.
    pub fn last_contact(&self, agent: &str) -> u64 {
        self.contacts.get(agent).copied().unwrap_or(0)
    }

    /// The order in force for an agent, and its roll-out.
    pub fn order_in_force(&self, agent: &str) -> Option<(&Order, &Rollout)> {
        let id = *self.in_force.get(agent)?;
        Some((self.orders.get(&(id, agent.to_string()))?, self.rollouts.get(&id)?))
    }

    /// Refuses an agent from now on.
    ///
    /// # Errors
    /// `agent_unknown`, `cluster_member`.
    pub fn remove(&mut self, id: &str, now: u64) -> Result<(), Reason> {
        self.known(id)?;
        self.may_leave(id)?;
        self.cancel_agents(&[id.to_string()], &super::cancel::Cancel::new(&format!("the {} was removed", self.role.node)), now);
        if let Some(agent) = self.agents.get_mut(id) {
            agent.removed_at = Some(now);
            if let Some(device) = &agent.device_key {
                self.devices.remove(device);
            }
        }
        self.keep_agent(id);
        self.event(now, id, "removed", "its credential is refused from now on", None);
        Ok(())
    }

    /// An agent that may talk to us.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`.
    pub fn known(&self, id: &str) -> Result<&Agent, Reason> {
        match self.agents.get(id) {
            None => {
                let (title, node) = (self.role.title, self.role.node);
                Err(Reason::new("agent_unknown", format!("this {title} does not know {node} '{}'; enroll it", clean(id, NAME_MAX))))
            }
            Some(a) if a.removed_at.is_some() => {
                let (node, token) = (self.role.node, self.role.token);
                Err(Reason::new("agent_removed", format!("this {node} was removed; enroll it again with a new {token}")))
            }
            Some(a) => Ok(a),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::agent_api::EnrollWire;

    #[test]
    fn a_removed_agent_is_refused() {
        let mut registry = Registry::default();
        registry.create_token("t1", 1, 3_600, 0).unwrap();
        let wire = EnrollWire { token: "t1".into(), ..Default::default() };
        registry.enroll(&wire, "a1", 0).unwrap();
        assert!(registry.known("a1").is_ok());
        registry.remove("a1", 5).unwrap();
        assert_eq!(registry.known("a1").unwrap_err().code, "agent_removed");
        assert_eq!(registry.remove("a1", 5).unwrap_err().code, "agent_removed");
    }

    #[test]
    fn old_events_leave_the_disk() {
        let mut registry = Registry::default();
        registry.event(0, "", "x", "", None);
        registry.event(activity::KEPT_DAYS * 86_400 + 1, "", "y", "", None);
        registry.take_changes();
        registry.prune_activity(activity::KEPT_DAYS * 86_400 + 1);
        assert_eq!(registry.take_changes(), [Change { table: Table::Activity, key: activity::key(0), value: None }]);
    }
}
