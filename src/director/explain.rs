//! `explain AGENT`: why it does not run what it should, since when, until when, whose move it is, and what a person can do.

use miniserde::{Deserialize, Serialize};

use super::policing::show::NodePolicyView;
use super::quarantine::short;
use super::records::{Agent, Order, Rollout};
use super::registry::Registry;
use super::releases::Releases;
use super::role::Role;
use super::views::AgentView;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::rollout::End;
use crate::wire::agent_api::RejectWire;

/// One command and what it does.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Remedy {
    /// To be typed as it is; empty = something to do elsewhere.
    pub command: String,
    /// What it does.
    pub what: String,
}

/// How an earlier order ended.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct LastResult {
    /// Roll-out.
    pub rollout: u64,
    /// Version.
    pub version: String,
    /// Word of the end.
    pub outcome: String,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// Everything about one agent that an operator may ask.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ExplainView {
    /// As in `agents`: versions, state, owner, code and sentence, since, deadline, contact, clock, metadata.
    pub agent: AgentView,
    /// The version it should run; absent = nobody has said.
    pub desired_version: Option<String>,
    /// The file it should run.
    pub desired_sha256: Option<String>,
    /// It runs that file, confirmed.
    pub fulfilled: bool,
    /// State of the deciding roll-out.
    pub rollout_state: Option<String>,
    /// Why the roll-out is in that state.
    pub rollout_detail: Option<String>,
    /// What happens at the deadline.
    pub then: Option<String>,
    /// When something is tried again without anybody's doing, seconds since 1970.
    pub retry_at: Option<u64>,
    /// How the last order that came to an end ended.
    pub last_result: Option<LastResult>,
    /// The newest files that the device rejects itself.
    pub rejects: Vec<RejectWire>,
    /// Why this Director keeps the desired file from it.
    pub quarantined: Option<String>,
    /// Bytes of artifacts that it was sent today, where they are limited.
    pub bytes_today: Option<u64>,
    /// How many it may have in a day.
    pub bytes_per_day: Option<u64>,
    /// Why it gets no more today.
    pub bytes_refused: Option<String>,
    /// What a person can do.
    pub remedies: Vec<Remedy>,
    /// The mirror's timestamp version, to compare the agent's with.
    pub mirror_timestamp_version: u64,
    /// The highest version in the mirror.
    pub latest_version: Option<String>,
    /// Director's time.
    pub time: u64,
    /// Every setting of its policy with its tier, what follows, and when.
    pub policy: Option<NodePolicyView>,
}

impl Registry {
    /// The agent that a word names: its id, or a host name or the beginning of an id that only one has.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_ambiguous`.
    pub fn named_agent(&self, word: &str) -> Result<String, Reason> {
        if self.known(word).is_ok() {
            return Ok(word.to_string());
        }
        let fits = |a: &&Agent| a.removed_at.is_none() && (a.hostname == word || a.id.starts_with(word));
        let found: Vec<&Agent> = self.agents.values().filter(fits).take(3).collect();
        match found.as_slice() {
            [one] => Ok(one.id.clone()),
            [] => {
                Err(self.known(word).err().unwrap_or_else(|| Reason::new("agent_unknown", format!("there is no such {}", self.role.node))))
            }
            [a, b, ..] => Err(Reason::new("agent_ambiguous", format!("'{word}' may be {}, {} or others; give the whole id", a.id, b.id))),
        }
    }

    /// Everything about one agent.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`.
    pub fn explain(&self, id: &str, releases: &Releases, mirror_timestamp: u64, now: u64) -> Result<ExplainView, Reason> {
        let agent = self.known(id)?;
        let mut view = ExplainView {
            agent: self.agent_view(agent, now),
            rejects: agent.rejects.clone().unwrap_or_default(),
            last_result: self.last_result(id),
            mirror_timestamp_version: mirror_timestamp,
            latest_version: releases.resolve(self.role.product.name, "latest").ok().map(|v| v.to_string()),
            bytes_today: self.metering.today_of(id, now).map(|(bytes, _)| bytes),
            bytes_per_day: self.metering.per_day[1],
            bytes_refused: self.metering.refused.get(id).map(|(_, reason)| reason.to_string()),
            time: now,
            policy: self.node_policy(id, releases, now).ok(),
            ..Default::default()
        };
        if let Some((order, rollout)) = self.concerning(id) {
            let file = desired_file(agent, order, rollout, releases);
            view.desired_version = Some(order.version.clone());
            view.fulfilled = file.as_ref().is_some_and(|f| *f == agent.running_sha256) && agent.running_as != "trial";
            view.quarantined = file.as_ref().and_then(|f| self.quarantined(f, id, rollout.retry, now)).map(|r| r.detail.clone());
            view.desired_sha256 = file;
            view.rollout_state = Some(rollout.state.clone());
            view.rollout_detail = Some(rollout.detail.clone()).filter(|d| !d.is_empty());
            view.then = view.agent.deadline.map(|_| at_deadline(order));
            view.retry_at = order.repair_at.or(order.until.filter(|_| order.end().is_some()));
        }
        view.remedies = remedies(&view, self.role);
        Ok(view)
    }

    /// The newest row of this agent that has come to an end after an order.
    fn last_result(&self, id: &str) -> Option<LastResult> {
        let row = |rollout: &u64| self.orders.get(&(*rollout, id.to_string()));
        let ended = self.rollouts.keys().rev().filter_map(row).find(|o| o.end().is_some() && o.generation > 0)?;
        Some(LastResult {
            rollout: ended.rollout,
            version: ended.version.clone(),
            outcome: ended.state.clone(),
            code: ended.code.clone(),
            detail: ended.detail.clone(),
            at: ended.since,
        })
    }
}

/// The file that a row means: the ordered one, or what would be ordered now.
fn desired_file(agent: &Agent, order: &Order, rollout: &Rollout, releases: &Releases) -> Option<String> {
    if !order.sha256.is_empty() {
        return Some(order.sha256.clone());
    }
    let version = rollout.version.parse().ok()?;
    let artifact = releases.artifact(&rollout.product, &version, &agent.os, &agent.architecture, &agent.version).ok()?;
    Some(hex::encode(&artifact.sha256))
}

/// What the deadline of a state brings.
fn at_deadline(order: &Order) -> String {
    match (order.step(), order.end()) {
        (Some(_), _) => "it counts as silent, which is a failure of the roll-out".into(),
        (_, Some(End::RolledBack)) if order.repair_at.is_none() => "the device may try it again by itself".into(),
        (_, Some(_)) => "it is ordered again".into(),
        _ => "it is left out of this roll-out".into(),
    }
}

/// What a person can do, the most likely first.
fn remedies(view: &ExplainView, role: &Role) -> Vec<Remedy> {
    let a = &view.agent;
    let id = &a.id;
    let mut out = Vec::new();
    let mut say = |command: String, what: &str| out.push(Remedy { command, what: what.to_string() });
    let rollout = a.rollout.unwrap_or(0);
    let director = |rest: String| role.command(&rest);
    let (node, product, title) = (role.node, role.product.name, role.title);
    match (a.state.as_str(), a.code.as_str()) {
        (_, "never_reported") => say(String::new(), &format!("start the {node}; `{product} status` there says what it does")),
        (_, "rollout_halted") => {
            say(director(format!("retry --rollout {rollout}")), "try again all that did not work, and go on with the others");
            say(director(format!("cancel --rollout {rollout}")), "give the roll-out up");
        }
        ("trial" | "switching", _) => {
            say(
                director(format!("cancel --{node} {id} --roll-back")),
                &format!("refuse the new version: the {node} goes back to the one before"),
            );
        }
        (_, "quarantined") => {
            if let Some(file) = &view.desired_sha256 {
                say(director(format!("allow {} --{node} {id}", short(file))), &format!("let this {node} have the file"));
            }
            say(director(format!("retry --{node} {id}")), "then order it again");
        }
        (_, "agent_offline") | ("silent", _) => {
            say(String::new(), &format!("look at the device: is it on, does {product} run there, does it reach this {title}"));
            say(director(format!("retry --{node} {id}")), "order it again");
            say(director(format!("cancel --{node} {id}")), "stop waiting for it");
        }
        ("rolled_back" | "refused" | "flapping" | "expired" | "no_artifact" | "cancelled", _) => {
            say(director(format!("retry --{node} {id}")), "order this version again, whatever the device has rejected");
            say(director(format!("assign --{node} {id} --version VERSION")), "order another version");
        }
        _ if view.policy.as_ref().is_some_and(|p| p.code == "needs_authorization") => {
            let version = view.policy.as_ref().and_then(|p| p.version.clone()).unwrap_or("VERSION".into());
            say(director(format!("authorize {id} {version}")), "let it take the version that waits for it");
        }
        ("idle" | "reported" | "updated" | "already", _) if view.desired_version.is_none() || view.fulfilled => {
            let latest = view.latest_version.as_deref().filter(|v| *v != a.version);
            if latest.is_some() {
                say(director(format!("assign --{node} {id} --version latest")), "order the newest version");
            }
        }
        (_, "clock_ahead") => say(String::new(), "set the device's clock"),
        _ if a.owner.is_some() => {
            say(director(format!("cancel --{node} {id}")), "end it");
            say(director("rollouts".into()), "see how the roll-out goes");
        }
        _ => {}
    }
    if a.owner.as_deref() == Some("operator") && matches!(a.state.as_str(), "waiting") {
        out.insert(0, Remedy { command: String::new(), what: format!("at the device: {}", a.detail) });
    }
    out
}
