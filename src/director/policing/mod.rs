//! Nodes under policy: settings by tier, and what the manager does about them by itself.
//!
//! ```text
//!  settings, authorizations, releases, reports -> marks: whose decision may be another one now
//!  marked nodes, and those whose time has come -> core::policy::decide -> one roll-out per version and window
//! ```
//!
//! The same for a Director and its agents and for Fleet and its Directors. Only what changed is looked at again, and what
//! waits for a time when that time comes: a tick without news costs nothing, however many nodes there are.
//!
//! **People and policy.** In mode `manual` only people order (`assign`). In mode `auto` a person's order goes on to its
//! end; then the policy decides again, and brings the node to the version that it names. A person's `cancel` of what the
//! policy ordered holds until `retry` or other settings. What the policy does not want any more and has not switched is
//! withdrawn; a trial goes on to its verdict.

mod act;
#[cfg(unix)]
pub mod ask;
mod cluster_views;
pub mod clusters;
pub mod confirmations;
pub mod confirmed;
pub mod grants;
#[cfg(unix)]
pub mod hand;
pub mod history;
mod judge;
pub mod leases;
mod needs;
pub mod rows;
pub mod scopes;
pub mod shared;
pub mod show;
pub mod templates;

use std::collections::{BTreeMap, BTreeSet};

pub use self::act::BY_POLICY;
use self::clusters::ClusterRow;
use self::confirmations::ConfirmationRow;
use self::confirmed::ConfirmedRow;
use self::history::ChangeRow;
use self::judge::Clockwork;
use self::rows::{GrantRow, PolicyChange, PolicyRow, Scope};
use self::templates::TemplateRow;
use super::registry::Registry;
use super::store::Table;
use crate::core::cluster::lease::Book;
use crate::core::policy::{Decision, Effective, Layer, Settings, Tier, effective};
use crate::core::reason::Reason;
use crate::core::schedule::Zone;
use crate::core::version::Version;
use crate::wire::settings::{FIELDS, SettingsWire};
use crate::wire::site_policy::ConfirmationWire;

/// Most rows of settings: one for each agent of the largest Director, and those above.
pub const ROWS_MAX: usize = super::registry::AGENTS_MAX + 1_000;

/// What the manager last said of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// [`crate::core::policy::Decision::word`].
    pub word: &'static str,
    /// Code of its reason.
    pub code: String,
    /// For people.
    pub detail: String,
    /// When it is looked at again without news.
    pub until: Option<u64>,
    /// The version in question.
    pub version: Option<String>,
}

impl Verdict {
    fn of(decision: &Decision) -> Verdict {
        let reason = decision.reason();
        let (version, until) = match decision {
            Decision::Manual { available } => (available.as_ref().map(Version::to_string), None),
            Decision::NeedsAuthorization { version, .. } => (Some(version.to_string()), None),
            Decision::Act { version, not_before, .. } => (Some(version.to_string()), Some(*not_before)),
            Decision::Wait { until, .. } => (None, *until),
            Decision::UpToDate => (None, None),
        };
        Verdict { word: decision.word(), code: reason.code.to_string(), detail: reason.detail.clone(), until, version }
    }
}

/// The policies in memory.
#[derive(Default)]
pub struct Policing {
    /// By [`Scope::key`].
    pub rows: BTreeMap<String, PolicyRow>,
    /// By node.
    pub grants: BTreeMap<String, GrantRow>,
    /// By id.
    pub clusters: BTreeMap<String, ClusterRow>,
    /// Leases by cluster.
    pub books: BTreeMap<String, Book>,
    /// What members of clusters said last; memory only: who was not heard since this start is not known to be well.
    pub words: BTreeMap<String, leases::MemberWord>,
    /// Enrollment templates by id, removed ones with them.
    templates: BTreeMap<String, TemplateRow>,
    /// At a Director: the revision of each template of Fleet that was taken over; memory only.
    template_revisions: BTreeMap<String, u64>,
    /// Confirmations for agents by id: at Fleet those that were given, at a Director those that came.
    pub confirmations: BTreeMap<String, ConfirmationRow>,
    /// At a Director: what became of them, by agent.
    pub confirmed: BTreeMap<String, ConfirmedRow>,
    /// Agents of [`Policing::confirmed`] whose file is not here yet.
    confirmed_waiting: BTreeSet<String>,
    /// What Fleet handed down and no pass has looked at.
    handed_confirmations: Vec<ConfirmationWire>,
    /// When old ones were removed last.
    confirmations_pruned: u64,
    /// At a Director: id and name of the cluster that Fleet says it is in; memory only.
    handed_cluster: Option<(String, String)>,
    /// The cluster that a node is in.
    cluster_of: BTreeMap<String, String>,
    /// Changes that are kept, by revision.
    changes: BTreeMap<u64, ChangeRow>,
    /// The same rows, read.
    layers: BTreeMap<String, Layer>,
    /// The `agents:` section of this Director's `vmetric.yml`.
    file_default: Option<Layer>,
    /// Directors' own `update:` sections, as they report them.
    files: BTreeMap<String, (SettingsWire, Layer)>,
    /// Whose decision may be another one now.
    marked: BTreeSet<String>,
    /// Everybody's may.
    all_marked: bool,
    /// Whom to look at again when.
    looks: BTreeSet<(u64, String)>,
    look_of: BTreeMap<String, u64>,
    /// The newest roll-out that a node is or was in.
    newest: BTreeMap<String, u64>,
    /// What was last said.
    pub verdicts: BTreeMap<String, Verdict>,
    /// What the releases looked like at the last pass.
    stamp: u64,
    clockwork: Clockwork,
    /// The manager's own zone; `None` = UTC.
    pub zone: Option<Zone>,
    /// Before this time the manager's clock is wrong: its program was built then.
    pub clock_floor: u64,
    /// Nodes looked at so far, for measurements.
    pub looked: u64,
}

impl Policing {
    /// What `local` means here.
    pub fn local_zone(&self) -> Zone {
        self.zone.clone().unwrap_or_else(Zone::utc)
    }

    /// A node's row of a roll-out changed.
    pub fn order_changed(&mut self, node: &str, rollout: u64) {
        let newest = self.newest.entry(node.to_string()).or_default();
        *newest = rollout.max(*newest);
        self.mark(node);
    }

    /// Something about a node is new.
    pub fn mark(&mut self, node: &str) {
        if !self.all_marked {
            self.marked.insert(node.to_string());
        }
    }

    /// Something about all of them is new.
    pub fn mark_all(&mut self) {
        self.all_marked = true;
        self.marked.clear();
    }

    fn look_at(&mut self, node: &str, at: Option<u64>) {
        if let Some(old) = self.look_of.remove(node) {
            self.looks.remove(&(old, node.to_string()));
        }
        if let Some(at) = at {
            self.looks.insert((at, node.to_string()));
            self.look_of.insert(node.to_string(), at);
        }
    }
}

impl Registry {
    /// Takes over what the store held.
    pub fn load_policies(&mut self, rows: Vec<PolicyRow>, grants: Vec<GrantRow>) {
        for row in rows {
            let scope = Scope::of(&row.scope).ok();
            if let Some(layer) = scope.and_then(|scope| layer_of(&scope, &row)) {
                self.policing.layers.insert(row.scope.clone(), layer);
            }
            self.policing.rows.insert(row.scope.clone(), row);
        }
        self.policing.grants = grants.into_iter().map(|g| (g.node.clone(), g)).collect();
        self.policing.mark_all();
    }

    /// The highest revision of settings in this store.
    pub fn policy_revision(&self) -> u64 {
        let p = &self.policing;
        // The newest change is never forgotten: the revision of a cluster that was removed does not come again.
        let rows = p
            .rows
            .values()
            .map(|r| r.revision)
            .chain(p.clusters.values().map(|c| c.revision))
            .chain(p.templates.values().map(|t| t.wire.revision))
            .chain(p.confirmations.values().filter(|c| !c.director.is_empty()).map(|c| c.wire.revision));
        rows.chain(p.changes.keys().next_back().copied()).max().unwrap_or(0)
    }

    /// Changes a scope's settings; returns the row as it is now. What changes nothing makes no revision.
    ///
    /// # Errors
    /// `settings_invalid`, `revision_conflict`, `agent_unknown`, `agent_removed`, `policies_full`, `cluster_unknown`,
    /// `policy_of_cluster`.
    pub fn set_policy(&mut self, scope: &Scope, change: &PolicyChange, now: u64) -> Result<PolicyRow, Reason> {
        self.may_have_policy(scope)?;
        if let Some(name) = change.clear.iter().find(|name| !FIELDS.contains(&name.as_str())) {
            let detail = format!("{name}: no such field; allowed: {}", FIELDS.join(", "));
            return Err(Reason::new("settings_invalid", detail));
        }
        let key = scope.key();
        let before = self.policing.rows.get(&key).cloned().unwrap_or_default();
        if let Some(expected) = change.expected.filter(|expected| *expected != before.revision) {
            return Err(self.conflict(&key, before.revision, expected));
        }
        if self.policing.rows.len() >= ROWS_MAX && !self.policing.rows.contains_key(&key) {
            return Err(Reason::new("policies_full", format!("{ROWS_MAX} settings are kept; remove some")));
        }
        let settings = change.apply(&before.settings);
        settings.check_all()?;
        let custom = change.custom.unwrap_or(if change.set.is_empty() { before.custom } else { true });
        let row = PolicyRow {
            scope: key.clone(),
            custom,
            settings,
            revision: self.policy_revision() + 1,
            changed_at: now,
            by: self.by.clone().unwrap_or_default(),
            handed: before.handed,
        };
        if row.custom == before.custom && row.settings == before.settings {
            return Ok(if before.scope.is_empty() { PolicyRow { revision: 0, ..row } } else { before });
        }
        let node = if let Scope::Node(id) = scope { id.clone() } else { String::new() };
        self.touch(&node);
        let what = history::difference(&before, &row);
        self.event(now, &node, "policy_changed", format!("{key}: {what}; revision {}", row.revision), None);
        self.keep_change(&before, &row, what);
        self.put(Table::Policies, key.clone(), &row);
        match layer_of(scope, &row) {
            Some(layer) => drop(self.policing.layers.insert(key.clone(), layer)),
            None => drop(self.policing.layers.remove(&key)),
        }
        self.policing.rows.insert(key, row.clone());
        self.settings_changed(scope);
        Ok(row)
    }

    /// Whose decision may be another one now.
    fn settings_changed(&mut self, scope: &Scope) {
        // What may be taken now is fetched now.
        self.fetch_now = true;
        match scope {
            Scope::Node(id) => self.policing.mark(id),
            Scope::Cluster(id) => self.mark_members(id),
            Scope::Organization | Scope::Default | Scope::ClusterDefault => self.policing.mark_all(),
            Scope::Agents | Scope::AgentsOfCluster(_) | Scope::AgentsOf(_) | Scope::AgentOf(..) => self.hand_out = true,
        }
    }

    /// The manager's own zone has changed, or is known now.
    pub fn set_zone(&mut self, zone: Zone) {
        if self.policing.zone.as_ref() != Some(&zone) {
            self.policing.zone = Some(zone);
            self.policing.clockwork = Clockwork::default();
            self.policing.mark_all();
        }
    }

    /// The `agents:` section of this Director's `vmetric.yml`; `None` = it has none (any more).
    ///
    /// # Errors
    /// `settings_invalid`.
    pub fn set_file_default(&mut self, settings: Option<&SettingsWire>, now: u64) -> Result<(), Reason> {
        let settings = settings.map(SettingsWire::check).transpose()?;
        let before = self.policing.file_default.as_ref().map(|l| l.settings.clone());
        if settings != before {
            // The start of the program is no change of the file: only what differs from it later counts from now.
            let changed_at = if self.policing.file_default.is_none() && now <= self.started_at { 0 } else { now };
            let layer = |settings| Layer { tier: Tier::DirectorFile, on: true, settings, changed_at };
            self.policing.file_default = settings.map(layer);
            self.policing.mark_all();
        }
        Ok(())
    }

    /// A node's own `vmetric.yml`, as it reports it; what does not pass the check is left out and told.
    pub fn set_reported(&mut self, node: &str, settings: Option<&SettingsWire>, now: u64) {
        let before = self.policing.files.get(node).map(|(wire, _)| wire);
        if before == settings {
            return;
        }
        let known = before.is_some();
        self.policing.files.remove(node);
        if let Some(wire) = settings {
            match wire.check() {
                Ok(settings) => {
                    let changed_at = if known { now } else { 0 };
                    let layer = Layer { tier: Tier::File, on: true, settings, changed_at };
                    self.policing.files.insert(node.to_string(), (wire.clone(), layer));
                }
                Err(wrong) => {
                    let reason = Reason::from(wrong);
                    self.event(now, node, "policy_refused", format!("its vmetric.yml: {reason}"), None);
                }
            }
        }
        self.policing.mark(node);
    }

    /// Whose word is this server's default: its own, or its cluster's while it is a member of one.
    pub(in crate::director) fn default_scope(&self) -> Scope {
        match self.policing.rows.contains_key(&Scope::ClusterDefault.key()) {
            true => Scope::ClusterDefault,
            false => Scope::Default,
        }
    }

    /// What counts for a node, its authorization aside.
    pub fn effective(&self, node: &str) -> Effective {
        let p = &self.policing;
        let shared = [p.layers.get("organization"), p.layers.get(&self.default_scope().key()), p.file_default.as_ref()];
        let own = match p.cluster_of.get(node) {
            Some(cluster) => Scope::Cluster(cluster.clone()),
            None => Scope::Node(node.to_string()),
        };
        let own = [p.layers.get(&own.key()), p.files.get(node).map(|(_, layer)| layer)];
        let layers: Vec<Layer> = shared.into_iter().chain(own).flatten().cloned().collect();
        effective(&layers)
    }
}

fn layer_of(scope: &Scope, row: &PolicyRow) -> Option<Layer> {
    let tier = match scope {
        Scope::Organization => Tier::Organization,
        Scope::ClusterDefault => Tier::Cluster,
        Scope::Default => Tier::Director,
        Scope::Node(_) => Tier::Node,
        Scope::Cluster(_) => Tier::Cluster,
        Scope::Agents | Scope::AgentsOfCluster(_) | Scope::AgentsOf(_) | Scope::AgentOf(..) => return None,
    };
    // What an older version wrote and this one does not take counts as nothing; `policy show` says so.
    let settings = row.settings.check().unwrap_or_else(|_| Settings::default());
    Some(Layer { tier, on: row.custom, settings, changed_at: row.changed_at })
}
