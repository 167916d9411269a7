//! Assignments become roll-outs, roll-outs become orders. The decisions are [`crate::core::rollout::plan`]'s; here they are applied.
//!
//! A row exists for every agent of a roll-out from the start, so that each one's state and reason can be seen. An order's
//! generation is above everything this store issued to the agent and everything the agent reports.

use std::collections::BTreeSet;

use super::cancel::Cancel;
use super::records::{Order, Rollout, WAITING_TURN};
use super::registry::Registry;
use super::releases::Releases;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::release::{Artifact, role_name};
use crate::core::rollout::{self, AgentFacts, Decision, End, InFlight, Standing, State, Step};

/// What a person asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// Whom; `None` = every agent.
    pub agents: Option<Vec<String>>,
    /// Product.
    pub product: String,
    /// Exact, or `latest`.
    pub version: String,
    /// How many at once.
    pub in_flight: InFlight,
    /// More failures halt.
    pub max_failures: u64,
    /// Contact deadline of a trial.
    pub contact_deadline_s: u64,
    /// May switch without contact.
    pub unattended: bool,
    /// Longest unattended trial.
    pub trial_max_s: u64,
    /// May overwrite the other slot in probation.
    pub end_probation: bool,
    /// Try rejected hashes again; also releases a quarantine.
    pub retry: bool,
    /// Not before so many seconds from now.
    pub switch_in_s: u64,
    /// Whoever has not been ordered after so many seconds is left out.
    pub life_s: u64,
}

impl Registry {
    /// Makes a roll-out; the next [`Registry::advance_all`] starts its first agent.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `no_agents`, `version_unknown`, `version_invalid`.
    pub fn assign(&mut self, ask: &Assign, releases: &Releases, now: u64) -> Result<u64, Reason> {
        let version = releases.resolve(&ask.product, &ask.version)?;
        let group = self.group(ask)?;
        let id = self.rollouts.keys().next_back().copied().unwrap_or(0) + 1;
        let rollout = Rollout {
            id,
            product: ask.product.clone(),
            version: version.to_string(),
            created_at: now,
            state: "running".into(),
            group: group.len() as u64,
            max_in_flight: ask.in_flight.resolve(group.len()) as u64,
            max_failures: ask.max_failures,
            contact_deadline_s: ask.contact_deadline_s,
            unattended: ask.unattended,
            trial_max_s: ask.trial_max_s,
            end_probation: ask.end_probation,
            retry: ask.retry,
            switch_at: Some(now + ask.switch_in_s).filter(|_| ask.switch_in_s > 0),
            expires_at: Some(now.saturating_add(ask.life_s).saturating_add(ask.switch_in_s)),
            ..Default::default()
        };
        let (nodes, at_once) = (self.role.nodes, rollout.max_in_flight);
        let detail = format!("roll-out {id}: {} {version} to {} {nodes}, {at_once} at once", ask.product, group.len());
        self.supersede(&group, id, now);
        for agent in &group {
            let row = Order {
                rollout: id,
                agent: agent.clone(),
                version: version.to_string(),
                state: WAITING_TURN.into(),
                since: now,
                ..Default::default()
            };
            self.keep_order(row);
        }
        self.fetch_for(&ask.product, &version, releases);
        self.keep_rollout(rollout);
        let of = Order { version: version.to_string(), ..Default::default() };
        self.event(now, "", "rollout_created", detail, Some(&of));
        Ok(id)
    }

    /// Whether limits that a person gave can do what they are for in this very group.
    ///
    /// # Errors
    /// `max_failures_too_high`, and those of [`Registry::assign`] about agents.
    pub fn check_limits(&self, ask: &Assign) -> Result<(), Reason> {
        let group = self.group(ask)?.len() as u64;
        if group > 1 && ask.max_failures >= group {
            let detail =
                format!("--max-failures {} of {group} {} could never halt; at most {}", ask.max_failures, self.role.nodes, group - 1);
            return Err(Reason::new("max_failures_too_high", detail));
        }
        Ok(())
    }

    fn group(&self, ask: &Assign) -> Result<Vec<String>, Reason> {
        let group: BTreeSet<String> = match &ask.agents {
            Some(ids) => {
                for id in ids {
                    self.known(id)?;
                }
                ids.iter().cloned().collect()
            }
            None => self.agents.values().filter(|a| a.removed_at.is_none()).map(|a| a.id.clone()).collect(),
        };
        if group.is_empty() {
            let detail = format!("this {} has no {} yet; enroll one first", self.role.title, self.role.nodes);
            return Err(Reason::new("no_agents", detail));
        }
        Ok(group.into_iter().collect())
    }

    /// The group's older orders give way: what has not switched is cancelled, a trial goes on to its verdict.
    fn supersede(&mut self, group: &[String], by: u64, now: u64) {
        let older: Vec<(u64, String)> =
            self.orders.iter().filter(|(_, o)| o.end().is_none() || o.end() == Some(End::Silent)).map(|(k, _)| k.clone()).collect();
        let group: BTreeSet<&String> = group.iter().collect();
        for (rollout, agent) in older.into_iter().filter(|(_, a)| group.contains(a)) {
            self.cancel_row(rollout, &agent, &Cancel::new(&format!("replaced by roll-out {by}")), now);
        }
    }

    /// Looks at every roll-out that is not over and acts. Returns the agents that have something new to hear.
    pub fn advance_all(&mut self, releases: &Releases, now: u64) -> Vec<String> {
        let mut wake = Vec::new();
        self.watch_clusters(now);
        self.drop_withdrawn(releases, now, &mut wake);
        self.police(releases, now, &mut wake);
        let ids: Vec<u64> = self.open.iter().copied().collect();
        // First, so that a roll-out that still runs sees a device under repair and not one that left.
        self.repair(releases, now, &mut wake);
        for id in ids {
            self.advance(id, releases, now, &mut wake);
        }
        wake
    }

    fn advance(&mut self, id: u64, releases: &Releases, now: u64, wake: &mut Vec<String>) {
        let Some(rollout) = self.rollouts.get(&id).cloned() else { return };
        let mut finder = Finder { rollout: &rollout, releases, last: None };
        let facts: Vec<AgentFacts> = self.rows(id).map(|row| self.facts(row, &mut finder, now)).collect();
        let limits = rollout::Rollout {
            state: state_of(&rollout),
            max_in_flight: rollout.max_in_flight as usize,
            max_failures: rollout.max_failures as usize,
            expires_at: rollout.expires_at(),
        };
        let plan = rollout::plan(&limits, &facts, now);
        // Of thousands of rows most stay as they are, and this comes ten times a second.
        let news = |(row, decision): (&Order, Decision)| is_news(row, &decision).then(|| (row.agent.clone(), decision));
        let news: Vec<(String, Decision)> = self.rows(id).zip(plan.decisions).filter_map(news).collect();
        for (agent, decision) in news {
            self.apply(id, &agent, decision, releases, now, wake);
        }
        if plan.state != limits.state {
            self.close(rollout, plan.state, now, wake);
        }
        let over = self.rollouts.get(&id).is_none_or(|r| r.state != "running");
        if over && self.rows(id).all(|row| row.end().is_some()) {
            self.open.remove(&id);
        }
    }

    /// A roll-out's rows.
    fn rows(&self, id: u64) -> impl Iterator<Item = &Order> {
        self.orders.range((id, String::new())..(id + 1, String::new())).map(|(_, row)| row)
    }

    /// What is known of one agent of a roll-out.
    fn facts(&self, row: &Order, finder: &mut Finder, now: u64) -> AgentFacts {
        let mut facts = AgentFacts {
            standing: Standing::Waiting,
            runs_target: false,
            left_target: false,
            no_artifact: None,
            quarantined: None,
            busy: None,
            last_contact: 0,
        };
        if let Some(end) = row.end() {
            facts.standing = Standing::Ended(end);
            // Only this end can be undone by what the agent runs now.
            let current = || self.in_force.get(&row.agent) == Some(&row.rollout);
            if let Some(agent) = self.agents.get(&row.agent).filter(|_| end == End::Updated && current()) {
                let runs = !agent.running_sha256.is_empty();
                facts.left_target = runs && agent.running_sha256 != row.sha256 && agent.running_as != "manual";
            }
            return facts;
        }
        facts.last_contact = self.last_contact(&row.agent);
        if let Some(step) = row.step() {
            let last_contact = facts.last_contact.max(self.started_at);
            // A moving agent's reason is its own report's; the row has it already ([`is_news`]).
            let reason = Reason::new("moving", "");
            let terms = finder.rollout.terms(row.issued_at);
            facts.standing =
                Standing::Moving { reason, deadline: rollout::deadline(step, row.since.max(self.started_at), last_contact, &terms) };
            return facts;
        }
        let Some(agent) = self.agents.get(&row.agent) else { return facts };
        let retry = finder.rollout.retry;
        match finder.file(agent) {
            Ok((sha256, not_here)) => {
                facts.runs_target = agent.running_sha256 == *sha256 && agent.running_as != "trial";
                facts.quarantined = self.quarantined(sha256, &row.agent, retry, now);
                facts.busy = not_here.clone();
            }
            Err(reason) => facts.no_artifact = Some(reason.clone()),
        }
        facts.busy = self.busy(&row.agent).or_else(|| self.cluster_turn(&row.agent, now)).or(facts.busy);
        facts
    }

    /// Why an earlier order of an agent must end before a new one is issued: a trial goes on to its verdict.
    fn busy(&self, agent: &str) -> Option<Reason> {
        let (order, _) = self.order_in_force(agent)?;
        order.step().filter(|s| s.has_switched())?;
        Some(Reason::new("earlier_order", format!("{} is on trial by roll-out {}; its verdict comes first", order.version, order.rollout)))
    }

    fn apply(&mut self, id: u64, agent: &str, decision: Decision, releases: &Releases, now: u64, wake: &mut Vec<String>) {
        let row = &self.orders[&(id, agent.to_string())];
        // Another member of its cluster may have been ordered in this very plan.
        let turn = if decision == Decision::Proceed { self.cluster_turn(agent, now) } else { None };
        let until = self.rollouts.get(&id).map(Rollout::expires_at);
        let decision = turn.map_or(decision, |reason| Decision::Wait { reason, until });
        match decision {
            Decision::Proceed => {
                self.issue(row.clone(), releases, now);
                wake.push(agent.to_string());
            }
            Decision::Wait { reason, until } => {
                let (code, detail) = (reason.code.to_string(), reason.detail.clone());
                self.keep_order(Order { code, detail, until, ..row.clone() });
            }
            Decision::Refuse { reason, end } => self.end(row.clone(), end, &reason, now),
            Decision::Ended(end) => {
                let reason = why_ended(end, row);
                self.end(row.clone(), end, &reason, now);
            }
        }
    }

    pub(super) fn issue(&mut self, mut row: Order, releases: &Releases, now: u64) {
        let Some(rollout) = self.rollouts.get(&row.rollout) else { return };
        let Some(agent) = self.agents.get(&row.agent) else { return };
        let Ok(artifact) = find(agent, rollout, releases) else { return };
        // A repair may be ordered before the file is here again.
        self.fetch_now |= releases.not_here(artifact).is_some();
        row.target = artifact.path.to_string();
        row.sha256 = hex::encode(&artifact.sha256);
        row.length = artifact.length;
        row.signed_by = Some(signers(artifact));
        row.from_version = agent.version.clone();
        row.generation = self.next_generation(&row.agent);
        (row.state, row.since, row.issued_at, row.until) = (Step::Ordered.word().into(), now, now, None);
        (row.code, row.detail) = (Step::Ordered.word().into(), Step::Ordered.sentence().into());
        self.in_force.insert(row.agent.clone(), row.rollout);
        let detail = format!("{} to {}, roll-out {}", row.from_version, row.version, row.rollout);
        self.event(now, &row.agent, "update_triggered", detail, Some(&row));
        self.keep_order(row);
    }

    /// Above all that this store issued and all that the agent reports, so that no agent takes an order for an old one.
    /// The caller writes it into an order's row: that is what makes it durable ([`Registry::index`]).
    pub fn next_generation(&mut self, id: &str) -> u64 {
        let Some(agent) = self.agents.get_mut(id) else { return 0 };
        agent.issued = agent.issued.max(agent.generation).saturating_add(1);
        agent.issued
    }

    /// Ends an agent's part of a roll-out.
    pub fn end(&mut self, mut row: Order, end: End, reason: &Reason, now: u64) {
        (row.state, row.since, row.until) = (end.word().into(), now, None);
        (row.code, row.detail) = (reason.code.to_string(), reason.detail.clone());
        let code = if end == End::Updated { "confirmed" } else { end.word() };
        self.event(now, &row.agent, code, row.detail.clone(), Some(&row));
        self.keep_order(row);
    }

    /// Writes a roll-out's new state. A halt also stops those that have not switched, and the silent ones should they come
    /// back: the file is under suspicion.
    pub(super) fn close(&mut self, mut rollout: Rollout, state: State, now: u64, wake: &mut Vec<String>) {
        let id = rollout.id;
        let rows = || self.orders.range((id, String::new())..(id + 1, String::new())).map(|(_, o)| o);
        let ended = |end: End| rows().filter(|o| o.end() == Some(end)).count();
        let good = ended(End::Updated) + ended(End::Already);
        let (word, reason) = match state {
            State::Halted(reason) => ("halted", reason),
            State::Done => ("done", Reason::new("done", format!("{good} of {} run {}", rollout.group, rollout.version))),
            State::Cancelled => ("cancelled", Reason::new("cancelled", "ended by a person")),
            State::Running => return,
        };
        let stoppable = |o: &&Order| o.step().is_some_and(|s| !s.has_switched()) || o.end() == Some(End::Silent);
        let started: Vec<String> = rows().filter(stoppable).map(|o| o.agent.clone()).collect();
        (rollout.state, rollout.ended_at) = (word.into(), Some(now));
        (rollout.code, rollout.detail) = (reason.code.to_string(), reason.detail.clone());
        let of = Order { version: rollout.version.clone(), ..Default::default() };
        self.event(now, "", &format!("rollout_{word}"), format!("roll-out {id}: {}", reason.detail), Some(&of));
        self.keep_rollout(rollout);
        if word == "halted" {
            self.quarantine_failed(id, now);
            for agent in started {
                if self.cancel_row(id, &agent, &Cancel::new("the roll-out was halted"), now).told() {
                    wake.push(agent);
                }
            }
        }
    }
}

/// Whether a decision changes its row.
fn is_news(row: &Order, decision: &Decision) -> bool {
    match decision {
        Decision::Wait { reason, until } => row.step().is_none() && (row.code != reason.code || row.until != *until),
        Decision::Ended(end) => row.end() != Some(*end),
        Decision::Proceed | Decision::Refuse { .. } => true,
    }
}

/// Finds a roll-out's file for one agent after the other; most of them are of one kind.
struct Finder<'a> {
    rollout: &'a Rollout,
    releases: &'a Releases,
    last: Option<([String; 3], Result<Found, Reason>)>,
}

/// The file's hash, and why it cannot be ordered yet.
type Found = (String, Option<Reason>);

impl Finder<'_> {
    /// The file, or why there is none.
    fn file(&mut self, agent: &super::records::Agent) -> &Result<Found, Reason> {
        let kind = [&agent.os, &agent.architecture, &agent.version];
        let last = self.last.take().filter(|(of, _)| of.iter().eq(kind));
        let found = || {
            let found = find(agent, self.rollout, self.releases);
            found.map(|artifact| (hex::encode(&artifact.sha256), self.releases.not_here(artifact)))
        };
        let last = last.unwrap_or_else(|| (kind.map(String::clone), found()));
        &self.last.insert(last).1
    }
}

fn find<'a>(agent: &super::records::Agent, rollout: &Rollout, releases: &'a Releases) -> Result<&'a Artifact, Reason> {
    let version = rollout.version.parse().map_err(|_| Reason::new("version_invalid", "the roll-out's version does not parse"))?;
    releases.artifact(&rollout.product, &version, &agent.os, &agent.architecture, &agent.version)
}

fn state_of(rollout: &Rollout) -> State {
    match rollout.state.as_str() {
        "running" => State::Running,
        "halted" => State::Halted(Reason::received(rollout.code.clone(), rollout.detail.clone())),
        "done" => State::Done,
        _ => State::Cancelled,
    }
}

fn why_ended(end: End, row: &Order) -> Reason {
    match end {
        End::Silent => Reason::new("silent", format!("nothing heard by the deadline; last known: {} {}", row.state, row.detail)),
        End::Flapping => Reason::new("flapping", format!("it was updated to {} and runs something else again", row.version)),
        End::Already => Reason::new("already", "it runs this file already"),
        End::Cancelled => Reason::new("cancelled", "the roll-out is over"),
        End::Expired => Reason::new("expired", format!("its turn did not come in the roll-out's life; last: {}", row.detail)),
        other => Reason::new(other.word(), String::new()),
    }
}

/// Which keys speak for a file: its build key, and the delegated role of its product and platform.
fn signers(artifact: &Artifact) -> String {
    let key = artifact.build_keyid.get(..12).unwrap_or(&artifact.build_keyid);
    format!("build key {key}, role {}", role_name(&artifact.path.product, &artifact.path.platform))
}
