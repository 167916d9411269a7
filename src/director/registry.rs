//! What the Director knows, in memory: agents, tokens, roll-outs, orders, the latest activity.
//!
//! No IO and no clock: time and random texts are arguments; what must reach the disk collects in [`Registry::take_changes`].
//! So each behaviour is tested without a socket, a file or a wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use miniserde::{Serialize, json};

use super::activity;
use super::records::{Agent, Event, NAME_MAX, Order, Quarantine, Rollout, Token, clean};
use super::store::{Change, Table};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::wire::agent_api::EnrollWire;

/// Most agents of one Director: the registry is in memory (about 2 KB each).
pub const AGENTS_MAX: usize = 100_000;
/// Most tokens at once.
pub const TOKENS_MAX: usize = 1_000;
/// Longest token life, seconds: 30 days.
pub const TOKEN_TTL_MAX_S: u64 = 30 * 86_400;

/// The state in memory.
#[derive(Default)]
pub struct Registry {
    /// Who orders: the store's random id.
    pub issuer: String,
    /// Since when this process can hear agents; silence is counted from here at the earliest.
    pub started_at: u64,
    /// By id; removed ones stay, so that their credential is refused for good.
    pub agents: BTreeMap<String, Agent>,
    /// Last contact in memory, by agent; newer than the one on disk.
    pub contacts: BTreeMap<String, u64>,
    /// Bytes of the ordered file on each device's disk.
    pub bytes: BTreeMap<String, u64>,
    /// By the token's SHA-256.
    pub tokens: BTreeMap<String, Token>,
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
    /// Latest events, oldest first.
    pub recent: VecDeque<Event>,
    /// Time and size of every kept event, oldest first; its first sequence is `next_seq - kept.len()`.
    pub kept: VecDeque<(u64, usize)>,
    /// Next sequence of the activity.
    pub next_seq: u64,
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

    /// Derives what is not stored: open roll-outs, and whose order is in force (the highest generation issued to an agent).
    pub fn index(&mut self) {
        self.open = self.rollouts.values().filter(|r| r.state == "running").map(|r| r.id).collect();
        for order in self.orders.values() {
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
        if let Some(agent) = self.agents.get(id).cloned() {
            self.put(Table::Agents, id.to_string(), &agent);
        }
    }

    /// Replaces an order, in memory and on disk.
    pub fn keep_order(&mut self, order: Order) {
        self.put(Table::Orders, order_key(order.rollout, &order.agent), &order);
        if order.end().is_none() {
            self.open.insert(order.rollout);
        }
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
        let event = Event {
            seq: self.next_seq,
            time: now,
            agent: agent.to_string(),
            code: code.to_string(),
            detail: clean(&detail.into(), super::records::DETAIL_MAX),
            version: of.map_or(String::new(), |o| o.version.clone()),
            generation: of.map_or(0, |o| o.generation),
            by: self.by.clone(),
        };
        log::info!("{}", activity::line(&event));
        self.next_seq += 1;
        let text = json::to_string(&event);
        self.kept.push_back((now, text.len()));
        self.changes.push(Change { table: Table::Activity, key: activity::key(event.seq), value: Some(text) });
        self.recent.push_back(event);
        if self.recent.len() > activity::RECENT {
            self.recent.pop_front();
        }
    }

    /// Removes events that are too old or too many.
    pub fn prune_activity(&mut self, now: u64) {
        let first = self.next_seq - self.kept.len() as u64;
        let gone = activity::expired(self.kept.make_contiguous(), now);
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

    /// A new token's row; `token` is its text, shown once and kept nowhere.
    ///
    /// # Errors
    /// `too_many_tokens`.
    pub fn create_token(&mut self, token: &str, uses: u64, ttl_s: u64, now: u64) -> Result<u64, Reason> {
        let gone: Vec<String> = self.tokens.iter().filter(|(_, t)| t.expires_at + TOKEN_TTL_MAX_S < now).map(|(k, _)| k.clone()).collect();
        for key in gone {
            self.tokens.remove(&key);
            self.delete(Table::Tokens, key);
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Reason::new("too_many_tokens", format!("there are {TOKENS_MAX} tokens already; wait until some expire")));
        }
        let expires_at = now + ttl_s.min(TOKEN_TTL_MAX_S);
        let row = Token { created_at: now, expires_at, uses_left: uses, used: 0 };
        let key = hex::encode(&hex::sha256(token.as_bytes()));
        self.put(Table::Tokens, key.clone(), &row);
        self.tokens.insert(key, row);
        self.event(now, "", "token_created", format!("good for {uses} enrollments within {} minutes", ttl_s / 60), None);
        Ok(expires_at)
    }

    /// Enrolls a device under a new id; the token is spent by it.
    ///
    /// The token is found by its hash: what a guesser could learn from the time of the look-up is about the hash of his
    /// guess, not about a token.
    ///
    /// # Errors
    /// `token_unknown`, `token_expired`, `token_used_up`, `site_full`.
    pub fn enroll(&mut self, wire: &EnrollWire, id: &str, now: u64) -> Result<(), Reason> {
        let key = hex::encode(&hex::sha256(wire.token.as_bytes()));
        let remedy = "make one with `vmetric-director token create`";
        let Some(mut token) = self.tokens.get(&key).cloned() else {
            return Err(Reason::new("token_unknown", format!("this Director does not know the token; {remedy}")));
        };
        if now > token.expires_at {
            return Err(Reason::new("token_expired", format!("the token expired {} s ago; {remedy}", now - token.expires_at)));
        }
        if token.uses_left == 0 {
            return Err(Reason::new("token_used_up", format!("the token has been used {} times; {remedy}", token.used)));
        }
        if self.agents.len() >= AGENTS_MAX {
            return Err(Reason::new("site_full", format!("this Director already has {AGENTS_MAX} agents")));
        }
        token.uses_left -= 1;
        token.used += 1;
        self.put(Table::Tokens, key.clone(), &token);
        self.tokens.insert(key, token);
        let text = |t: &str| clean(t, NAME_MAX);
        let agent = Agent {
            id: id.to_string(),
            hostname: text(&wire.hostname),
            os: text(&wire.os),
            architecture: text(&wire.architecture),
            version: text(&wire.version),
            enrolled_at: now,
            last_contact: now,
            ..Default::default()
        };
        let detail = format!("{} ({}-{}, {})", agent.hostname, agent.os, agent.architecture, agent.version);
        self.agents.insert(id.to_string(), agent);
        self.contacts.insert(id.to_string(), now);
        self.keep_agent(id);
        self.event(now, id, "enrolled", detail, None);
        Ok(())
    }

    /// Refuses an agent from now on.
    ///
    /// # Errors
    /// `agent_unknown`.
    pub fn remove(&mut self, id: &str, now: u64) -> Result<(), Reason> {
        self.known(id)?;
        self.cancel_agents(&[id.to_string()], &super::cancel::Cancel::new("the agent was removed"), now);
        if let Some(agent) = self.agents.get_mut(id) {
            agent.removed_at = Some(now);
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
            None => Err(Reason::new("agent_unknown", format!("this Director does not know agent '{}'; enroll it", clean(id, NAME_MAX)))),
            Some(a) if a.removed_at.is_some() => {
                Err(Reason::new("agent_removed", "this agent was removed; enroll it again with a new token"))
            }
            Some(a) => Ok(a),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(token: &str) -> EnrollWire {
        EnrollWire { token: token.into(), hostname: "h\n".into(), ..Default::default() }
    }

    fn code(result: Result<(), Reason>) -> String {
        result.err().map_or("ok".into(), |r| r.code.into_owned())
    }

    #[test]
    fn a_token_is_counted_and_expires() {
        let mut registry = Registry::default();
        registry.create_token("t1", 2, 3_600, 100).unwrap();
        assert_eq!(code(registry.enroll(&wire("t2"), "a1", 100)), "token_unknown");
        assert_eq!(code(registry.enroll(&wire("t1"), "a1", 100)), "ok");
        assert_eq!(code(registry.enroll(&wire("t1"), "a2", 3_700)), "ok");
        assert_eq!(code(registry.enroll(&wire("t1"), "a3", 3_700)), "token_used_up");
        assert_eq!(code(registry.enroll(&wire("t1"), "a3", 3_701)), "token_expired");
        assert_eq!(registry.agents["a1"].hostname, "h ");
        let changes = registry.take_changes();
        assert!(
            changes.iter().all(|c| !c.value.as_deref().unwrap_or("").contains("\"t1\"") && c.key != "t1"),
            "the token's text is not kept"
        );
    }

    #[test]
    fn a_removed_agent_is_refused() {
        let mut registry = Registry::default();
        registry.create_token("t1", 1, 3_600, 0).unwrap();
        registry.enroll(&wire("t1"), "a1", 0).unwrap();
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
