//! What an operator sees: the documents behind `agents`, `rollouts`, `status`, and their fields, which are stable.
//!
//! An agent's `version`, `scheduled_version`, `architecture` and `os` are the specification's health fields.
//! `scheduled_version` is there from the trigger (an order was issued) to completion.

use miniserde::{Deserialize, Serialize};

use super::records::{Agent, Order, Quarantine, Rollout};
use super::registry::Registry;
use super::uplink::FleetView;
use crate::core::owner::Owner;
use crate::core::rollout::{self, ACCEPT_S, End, FETCH_TOTAL_S, OFFLINE_AFTER_S};
use crate::core::time;

/// One agent.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct AgentView {
    /// Identity.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// Version of the running file.
    pub version: String,
    /// Target version, from trigger to completion.
    pub scheduled_version: Option<String>,
    /// `amd64`, ...
    pub architecture: String,
    /// `linux`, ...
    pub os: String,
    /// `idle`, `waiting_turn`, a step, or the last order's end.
    pub state: String,
    /// Who makes the next move: `agent`, `director`, `operator`; absent when nothing is open.
    pub owner: Option<String>,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
    /// When an open state ends by itself, seconds since 1970: it counts as silent, is left out, or is tried again; absent
    /// when nothing is open.
    pub deadline: Option<u64>,
    /// Since when it is in this state.
    pub since: Option<u64>,
    /// Bytes of the ordered file on the device's disk, in percent.
    pub percent: Option<u64>,
    /// The roll-out that the state is about.
    pub rollout: Option<u64>,
    /// Generation of the last order accepted.
    pub generation: u64,
    /// `a`, `b`, `factory`.
    pub running: String,
    /// `confirmed`, `trial`, `factory`, `manual`.
    pub running_as: String,
    /// SHA-256 of the running file.
    pub running_sha256: String,
    /// Why the running file was withdrawn by its publisher, if it was.
    pub withdrawn: Option<String>,
    /// Version in the other slot.
    pub fallback_version: Option<String>,
    /// Heard of within the last minutes.
    pub online: bool,
    /// Seconds since 1970.
    pub last_contact: u64,
    /// Seconds since 1970.
    pub enrolled_at: u64,
    /// Trusted root version.
    pub root_version: u64,
    /// Trusted timestamp version.
    pub timestamp_version: u64,
    /// Trusted snapshot version.
    pub snapshot_version: u64,
    /// Trusted targets version.
    pub targets_version: u64,
    /// `ok`, `unsure`, `ahead`.
    pub clock: String,
    /// How many hashes it rejects.
    pub rejected: u64,
    /// Its device's serial number, by its own word.
    pub serial: Option<String>,
    /// Of a device that waits for approval (`approve`, `deny`): its key, as `vmetric-agent status` shows it there.
    pub fingerprint: Option<String>,
    /// Another device with this identity, which is refused: its name, address and when it was seen.
    pub second_device: Option<String>,
    /// What people called the token that it enrolled with.
    pub label: Option<String>,
}

/// All agents.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct AgentsView {
    /// In the order of their ids.
    pub agents: Vec<AgentView>,
    /// Director's time.
    pub time: u64,
}

/// One roll-out.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct RolloutView {
    /// Number.
    pub id: u64,
    /// Product.
    pub product: String,
    /// Version.
    pub version: String,
    /// `running`, `halted`, `done`, `cancelled`.
    pub state: String,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
    /// Agents in it.
    pub group: u64,
    /// Not ordered yet.
    pub waiting: u64,
    /// Under way.
    pub moving: u64,
    /// Run the version.
    pub done: u64,
    /// Rolled back, silent, flapping.
    pub failed: u64,
    /// Refused, nothing for the platform, cancelled.
    pub left_out: u64,
    /// Limit.
    pub max_in_flight: u64,
    /// Limit.
    pub max_failures: u64,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub ended_at: Option<u64>,
    /// Who makes the next move while it is not over.
    pub owner: Option<String>,
    /// Whoever has not been ordered by then is left out.
    pub deadline: Option<u64>,
}

/// All roll-outs.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct RolloutsView {
    /// Newest first.
    pub rollouts: Vec<RolloutView>,
    /// Director's time.
    pub time: u64,
}

/// Files that are not ordered.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct RejectionsView {
    /// By hash.
    pub rejections: Vec<Quarantine>,
    /// Director's time.
    pub time: u64,
}

/// The Director itself.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct StatusView {
    /// Running Director's version.
    pub version: String,
    /// Its own pending version.
    pub scheduled_version: Option<String>,
    /// `amd64`, ...
    pub architecture: String,
    /// `linux`, ...
    pub os: String,
    /// Its own slots, trial, order and why it waits: as `vmetric-agent status --json` says it of an agent.
    pub own: Option<miniserde::json::Value>,
    /// Issuer of orders.
    pub issuer: String,
    /// Pin of the site CA.
    pub pin: String,
    /// Until when browsers accept the server certificate, seconds since 1970.
    pub certificate_until: Option<u64>,
    /// Names and addresses in it.
    pub certificate_names: Option<Vec<String>>,
    /// Why it could not be renewed.
    pub certificate_error: Option<String>,
    /// End of the operator's own certificate (`--tls-cert`), seconds since 1970.
    pub company_until: Option<u64>,
    /// What is wrong with it.
    pub company_error: Option<String>,
    /// SHA-256 of the CA certificate for browsers, as they show it.
    pub browser_ca: Option<String>,
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// Running since.
    pub started_at: u64,
    /// Enrolled agents.
    pub agents: u64,
    /// Of them, heard of within the last minutes.
    pub online: u64,
    /// Parked polls.
    pub parked: u64,
    /// Downloads under way.
    pub downloads: u64,
    /// Roll-outs that run.
    pub rollouts_running: u64,
    /// Where releases come from.
    pub mirror: String,
    /// Version of the mirrored timestamp; 0 = nothing mirrored yet.
    pub timestamp_version: u64,
    /// Versions in the mirror, highest first.
    pub releases: Vec<String>,
    /// When the mirror was last found fresh.
    pub mirror_verified_at: u64,
    /// The configuration file.
    pub config: Option<String>,
    /// Why it is not in force as it is now.
    pub config_error: Option<String>,
    /// What of it waits for a restart, or is overruled by the command line.
    pub config_notes: Option<Vec<String>>,
    /// Why the last refresh was refused.
    pub mirror_error: Option<String>,
    /// What the last import brought, expired metadata with their dates included.
    pub mirror_note: Option<String>,
    /// How it stands with Fleet; absent = this Director is enrolled at none.
    pub fleet: Option<FleetView>,
    /// Director's time.
    pub time: u64,
}

impl Registry {
    /// What is shown of every agent that was not removed.
    pub fn agents_view(&self, now: u64) -> AgentsView {
        let agents = self.agents.values().filter(|a| a.removed_at.is_none()).map(|a| self.agent_view(a, now));
        let agents = agents.chain(self.pending_views(now)).collect();
        AgentsView { agents, time: now }
    }

    /// What is shown of one agent.
    pub fn agent_view(&self, agent: &Agent, now: u64) -> AgentView {
        let a = agent.clone();
        let last_contact = self.last_contact(&a.id);
        let mut view = AgentView {
            state: if a.step.is_empty() { "enrolled".into() } else { a.step },
            scheduled_version: a.scheduled_version,
            online: now.saturating_sub(last_contact) <= OFFLINE_AFTER_S,
            id: a.id,
            hostname: a.hostname,
            version: a.version,
            architecture: a.architecture,
            os: a.os,
            code: a.code,
            detail: a.detail,
            generation: a.generation,
            running: a.running,
            running_as: a.running_as,
            withdrawn: self.withdrawn.get(&a.running_sha256).cloned(),
            running_sha256: a.running_sha256,
            fallback_version: a.fallback_version,
            last_contact,
            enrolled_at: a.enrolled_at,
            root_version: a.root_version,
            timestamp_version: a.timestamp_version,
            snapshot_version: a.snapshot_version,
            targets_version: a.targets_version,
            clock: a.clock,
            rejected: a.rejected,
            serial: a.serial,
            label: a.label,
            second_device: a.second.map(|s| format!("'{}' at {}, seen {}", s.hostname, s.peer, time::format(s.at))),
            ..Default::default()
        };
        match self.concerning(&agent.id) {
            Some((order, rollout)) => self.show_order(&mut view, order, rollout),
            None => show_unordered(&mut view, self.role.node),
        }
        view
    }

    /// The order that an agent's state is about: one that is open, else the last one issued.
    pub(super) fn concerning(&self, agent: &str) -> Option<(&Order, &Rollout)> {
        let row = |id: u64| Some((self.orders.get(&(id, agent.to_string()))?, self.rollouts.get(&id)?));
        let open = self.open.iter().rev().filter_map(|id| row(*id)).find(|(o, _)| o.end().is_none());
        // The newest row may be of a roll-out that left the agent out; what happened last counts.
        let newest = || self.rollouts.keys().rev().find_map(|id| row(*id));
        let last = || newest().into_iter().chain(self.order_in_force(agent)).max_by_key(|(o, _)| o.since);
        open.or_else(last)
    }

    fn show_order(&self, view: &mut AgentView, order: &Order, rollout: &Rollout) {
        view.rollout = Some(order.rollout);
        view.state = order.state.clone();
        view.code = order.code.clone();
        view.detail = order.detail.clone();
        view.since = Some(order.since);
        let (owner, deadline) = self.move_of(order, rollout).unzip();
        (view.owner, view.deadline) = (owner.map(|o| o.word().to_string()), deadline);
        if order.step().is_some() {
            view.scheduled_version = Some(order.version.clone());
            let done = self.bytes.get(&order.agent).copied().unwrap_or(0).min(order.length);
            view.percent = (order.length > 0).then(|| (u128::from(done) * 100 / u128::from(order.length)) as u64);
        }
    }

    /// Whose move it is in an order's state, and when that state ends by itself; `None`: it is over.
    pub fn move_of(&self, order: &Order, rollout: &Rollout) -> Option<(Owner, u64)> {
        let contact = self.last_contact(&order.agent).max(self.started_at);
        match (order.step(), order.end()) {
            (Some(step), _) => {
                let deadline = rollout::deadline(step, order.since.max(self.started_at), contact, &rollout.terms(order.issued_at));
                Some((Owner::of(&order.code), deadline))
            }
            // The same roll-out orders it again, or the device tries again by itself.
            (_, Some(_)) if order.repair_at.is_some() => order.repair_at.map(|at| (Owner::Director, at)),
            (_, Some(End::RolledBack)) => order.until.map(|at| (Owner::Agent, at)),
            (_, Some(_)) => None,
            (None, None) => Some((Owner::of(&order.code), rollout.expires_at())),
        }
    }

    /// How many agents are between two versions by this Director's order and not overdue, and when the last of them is.
    pub fn trials(&self, now: u64) -> (usize, u64) {
        let switched = self.in_force.keys().filter(|id| self.known(id).is_ok()).filter_map(|id| {
            let (order, rollout) = self.order_in_force(id)?;
            order.step().filter(|s| s.has_switched())?;
            self.move_of(order, rollout).map(|(_, deadline)| deadline).filter(|deadline| *deadline > now)
        });
        switched.fold((0, 0), |(n, until), deadline| (n + 1, until.max(deadline)))
    }

    /// What is shown of every roll-out, newest first.
    pub fn rollouts_view(&self, now: u64) -> RolloutsView {
        let rollouts = self.rollouts.values().rev().filter(|r| r.pruned != Some(true)).map(|r| self.rollout_view(r)).collect();
        RolloutsView { rollouts, time: now }
    }

    /// Files that are not ordered, and to whom.
    pub fn rejections_view(&self, now: u64) -> RejectionsView {
        let live = |q: &&Quarantine| q.expires_at.is_none_or(|at| at > now);
        RejectionsView { rejections: self.quarantine.values().filter(live).cloned().collect(), time: now }
    }

    /// What is shown of one roll-out.
    pub fn rollout_view(&self, rollout: &Rollout) -> RolloutView {
        let r = rollout.clone();
        let mut view = RolloutView {
            id: r.id,
            product: r.product,
            version: r.version,
            state: r.state,
            code: r.code,
            detail: r.detail,
            group: r.group,
            max_in_flight: r.max_in_flight,
            max_failures: r.max_failures,
            created_at: r.created_at,
            ended_at: r.ended_at,
            ..Default::default()
        };
        let owner = match view.state.as_str() {
            "running" => Some(Owner::Director),
            "halted" => Some(Owner::Operator),
            _ => None,
        };
        view.owner = owner.map(|o| o.word().to_string());
        view.deadline = owner.map(|_| rollout.expires_at());
        for ((_, _), order) in self.orders.range((r.id, String::new())..(r.id + 1, String::new())) {
            *match (order.step(), order.end()) {
                (Some(_), _) => &mut view.moving,
                (_, Some(End::Updated | End::Already)) => &mut view.done,
                (_, Some(end)) if end.is_failure() => &mut view.failed,
                (_, Some(_)) => &mut view.left_out,
                _ => &mut view.waiting,
            } += 1;
        }
        view
    }
}

/// An agent that this Director has ordered nothing yet: what it does is its own, or another authority's.
fn show_unordered(view: &mut AgentView, node: &str) {
    match view.state.as_str() {
        "enrolled" if view.running_sha256.is_empty() && view.running.is_empty() => {
            (view.code, view.detail) = ("never_reported".into(), format!("enrolled, but its {node} has not reported yet; start it"));
            (view.owner, view.deadline) = (Some(Owner::Operator.word().into()), Some(view.enrolled_at.saturating_add(ACCEPT_S)));
        }
        "idle" | "reported" | "enrolled" => {}
        // An update by an operator's command on the device.
        _ => {
            view.owner = Some(Owner::of(&view.code).word().into());
            view.deadline = Some(view.last_contact.saturating_add(FETCH_TOTAL_S));
        }
    }
}
