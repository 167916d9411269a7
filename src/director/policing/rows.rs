//! What is kept of settings and authorizations.

use miniserde::{Deserialize, Serialize};

use crate::core::reason::Reason;
use crate::core::release::is_name;
use crate::wire::settings::SettingsWire;

/// Whom settings are for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything that this server manages, as the tier above says: Fleet's own default; at a Director, what Fleet says.
    Organization,
    /// This server's default for what it manages.
    Default,
    /// One node.
    Node(String),
    /// The members of a cluster, each of which has no settings of its own meanwhile.
    Cluster(String),
    /// Kept for another server and handed on, not evaluated here: all agents.
    Agents,
    /// The same: the agents of a cluster's members, none of which has a default of its own for them meanwhile.
    AgentsOfCluster(String),
    /// At a Director: what Fleet says for the agents of its cluster, in the place of this server's own default.
    ClusterDefault,
    /// The same: the agents of one Director.
    AgentsOf(String),
    /// The same: one agent of one Director.
    AgentOf(String, String),
}

impl Scope {
    /// The row's key.
    pub fn key(&self) -> String {
        match self {
            Scope::Organization => "organization".into(),
            Scope::Default => "default".into(),
            Scope::Node(id) => format!("node/{id}"),
            Scope::Cluster(id) => format!("cluster/{id}"),
            Scope::Agents => "agents".into(),
            Scope::AgentsOfCluster(id) => format!("cluster-agents/{id}"),
            Scope::ClusterDefault => "cluster-default".into(),
            Scope::AgentsOf(director) => format!("agents/{director}"),
            Scope::AgentOf(director, agent) => format!("agents/{director}/{agent}"),
        }
    }

    /// Reads a key back.
    ///
    /// # Errors
    /// `scope_unknown`.
    pub fn of(key: &str) -> Result<Scope, Reason> {
        let unknown = || {
            Reason::new(
                "scope_unknown",
                "expected organization, default, node/ID, cluster/ID, cluster-agents/ID, agents, agents/DIRECTOR or agents/DIRECTOR/AGENT",
            )
        };
        let parts: Vec<&str> = key.split('/').collect();
        let named = parts.iter().skip(1).all(|part| is_name(part));
        match parts.as_slice() {
            ["organization"] => Ok(Scope::Organization),
            ["default"] => Ok(Scope::Default),
            ["cluster-default"] => Ok(Scope::ClusterDefault),
            ["agents"] => Ok(Scope::Agents),
            ["cluster-agents", id] if named => Ok(Scope::AgentsOfCluster(id.to_string())),
            ["node", id] if named => Ok(Scope::Node(id.to_string())),
            ["cluster", id] if named => Ok(Scope::Cluster(id.to_string())),
            ["agents", director] if named => Ok(Scope::AgentsOf(director.to_string())),
            ["agents", director, agent] if named => Ok(Scope::AgentOf(director.to_string(), agent.to_string())),
            _ => Err(unknown()),
        }
    }
}

/// Settings of one scope. A row is never removed: its revision must not come again.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct PolicyRow {
    /// [`Scope::key`].
    pub scope: String,
    /// Custom Policy is on; off = nothing of it counts, and nothing is lost.
    pub custom: bool,
    /// As typed.
    pub settings: SettingsWire,
    /// Rises with every change in this store, over all rows.
    pub revision: u64,
    /// Seconds since 1970.
    pub changed_at: u64,
    /// Who, as in the activity.
    pub by: String,
    /// Fleet's revision of this row that was taken over last; what was changed here since stays until Fleet's is another one.
    pub handed: Option<u64>,
}

/// A person's word for one version on one node; the key is the node's.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct GrantRow {
    /// Which node.
    pub node: String,
    /// Which version.
    pub version: String,
    /// Which file.
    pub sha256: String,
    /// Seconds since 1970.
    pub given_at: u64,
    /// Not used after.
    pub expires_at: u64,
    /// Who.
    pub by: String,
    /// Consumed by this roll-out.
    pub rollout: Option<u64>,
    /// Fleet's confirmation that it follows from; absent = it was given here.
    pub confirmation: Option<String>,
}

/// What is to be changed in a scope's settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyChange {
    /// Fields that are set; the others stay.
    pub set: SettingsWire,
    /// Fields that are forgotten, by name; they are then inherited.
    pub clear: Vec<String>,
    /// Forget every field that is not set here.
    pub replace: bool,
    /// Custom Policy on or off; absent = on when something is set, else unchanged.
    pub custom: Option<bool>,
    /// The revision that the change was made from; another one in the store refuses it.
    pub expected: Option<u64>,
}

impl PolicyChange {
    /// The settings after it.
    pub fn apply(&self, before: &SettingsWire) -> SettingsWire {
        let mut out = if self.replace { SettingsWire { ..Default::default() } } else { before.clone() };
        for name in &self.clear {
            if let Some(field) = out.field(name) {
                *field = None;
            }
        }
        // One of the two is meant: a new interval beside an old cron would count for nothing, and neither belongs to
        // another method.
        let other = self.set.method.as_deref().is_some_and(|method| method != "schedule");
        if other || self.set.interval.is_some() {
            out.cron = None;
        }
        if other || self.set.cron.is_some() {
            out.interval = None;
        }
        let mut set = self.set.clone();
        for name in crate::wire::settings::FIELDS {
            if let Some(value) = set.field(name).and_then(Option::take)
                && let Some(field) = out.field(name)
            {
                *field = Some(value);
            }
        }
        out
    }
}
