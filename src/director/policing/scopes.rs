//! Settings of one scope as a form needs them: what was typed, what is inherited, what counts, when, and what will not work.

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize};

use super::judge::candidates;
use super::rows::{PolicyChange, PolicyRow, Scope};
use super::show::{ValueView, values};
use crate::core::hex;
use crate::core::policy::{Candidate, Effective, Group, Layer, Settings, Tier, Timing, Warning, Wrong, effective, warnings};
use crate::core::product::AGENT;
use crate::core::reason::Reason;
use crate::core::schedule::{Cron, Schedule, Zone};
use crate::director::records::Agent;
use crate::director::registry::Registry;
use crate::director::releases::Releases;
use crate::wire::settings::SettingsWire;

/// Next times that are shown of a schedule.
pub const TIMES_SHOWN: usize = 5;
/// Platforms that are looked at for warnings: more than there are.
const PLATFORMS_MAX: usize = 32;

/// A setting that will not do what it reads like.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct WarningView {
    /// `mode`, `method`, `version`, `cron`.
    pub field: String,
    /// Stable code.
    pub code: String,
    /// One sentence with the remedy.
    pub detail: String,
}

/// A value that is not taken.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ProblemView {
    /// The field's name.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub detail: String,
}

/// When a schedule fires.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ScheduleView {
    /// `at 03:00 on Monday to Friday, Europe/Berlin`.
    pub words: String,
    /// The next times, seconds since 1970; none = never.
    pub next: Vec<u64>,
    /// The same in the schedule's zone, RFC 3339.
    pub next_local: Vec<String>,
}

/// One scope.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ScopeView {
    /// Its key: `organization`, `default`, `node/ID`, `cluster/ID`, `agents`, `agents/DIRECTOR`, `agents/DIRECTOR/AGENT`.
    pub scope: String,
    /// The same for people.
    pub title: String,
    /// Custom Policy is on: what was typed counts.
    pub custom: bool,
    /// What was typed, also while Custom Policy is off.
    pub typed: SettingsWire,
    /// For the revision check of a change; 0 = nothing was ever set.
    pub revision: u64,
    /// Seconds since 1970.
    pub changed_at: u64,
    /// Who changed it last.
    pub by: String,
    /// What counts without this scope's own settings.
    pub inherited: Vec<ValueView>,
    /// What counts.
    pub effective: Vec<ValueView>,
    /// The effective schedule, if mode and method follow one.
    pub schedule: Option<ScheduleView>,
    /// The cluster that the policy belongs to: nothing can be set here.
    pub cluster: Option<String>,
    /// Its name.
    pub cluster_name: Option<String>,
    /// What will not work.
    pub warnings: Vec<WarningView>,
    /// What else has a say, for people.
    pub note: Option<String>,
}

/// `policy check`: what a change would come to; nothing is changed.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct CheckView {
    /// It would be taken.
    pub ok: bool,
    /// Every field that would not.
    pub problems: Vec<ProblemView>,
    /// What would not work.
    pub warnings: Vec<WarningView>,
    /// What would count.
    pub effective: Vec<ValueView>,
    /// The schedule, if one would be followed; also while another field is wrong.
    pub schedule: Option<ScheduleView>,
    /// The scope's present revision.
    pub revision: u64,
    /// Server's time.
    pub time: u64,
}

/// A node that settings are for, as far as it matters whether they can act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// `linux`, ...
    pub os: String,
    /// `amd64`, ...
    pub arch: String,
    /// Running version.
    pub version: String,
    /// SHA-256 of the running file, hex.
    pub sha256: String,
}

impl Concerned {
    fn of(agent: &Agent) -> Concerned {
        Concerned {
            os: agent.os.clone(),
            arch: agent.architecture.clone(),
            version: agent.version.clone(),
            sha256: agent.running_sha256.clone(),
        }
    }
}

impl From<Warning> for WarningView {
    fn from(warning: Warning) -> WarningView {
        WarningView { field: warning.field.into(), code: warning.code.into(), detail: warning.detail }
    }
}

impl From<Wrong> for ProblemView {
    fn from(wrong: Wrong) -> ProblemView {
        ProblemView { field: wrong.field.into(), detail: wrong.what }
    }
}

impl Scope {
    /// True for nodes of another server.
    pub fn is_handed(&self) -> bool {
        matches!(self, Scope::Agents | Scope::AgentsOfCluster(_) | Scope::AgentsOf(_) | Scope::AgentOf(..))
    }
}

impl Registry {
    /// The tiers that count for a scope, its own one last, but for a Director's own file.
    fn tiers(&self, scope: &Scope, own: Option<Layer>) -> Vec<Layer> {
        let p = &self.policing;
        let kept = |scope: &Scope| p.layers.get(&scope.key()).cloned();
        let handed = |scope: Scope, tier| p.rows.get(&scope.key()).map(|row| layer(tier, row));
        let organization = kept(&Scope::Organization);
        let above: Vec<Option<Layer>> = match scope {
            Scope::Organization | Scope::Agents => Vec::new(),
            Scope::Default | Scope::ClusterDefault | Scope::Cluster(_) => vec![organization],
            Scope::Node(id) => {
                let file = p.files.get(id).map(|(_, layer)| layer.clone());
                vec![organization, kept(&self.default_scope()), p.file_default.clone(), file]
            }
            Scope::AgentsOf(_) | Scope::AgentsOfCluster(_) => vec![handed(Scope::Agents, Tier::Organization)],
            Scope::AgentOf(director, _) => {
                let of = match self.cluster_of(director) {
                    Some(row) => handed(Scope::AgentsOfCluster(row.id.clone()), Tier::Cluster),
                    None => handed(Scope::AgentsOf(director.clone()), Tier::Director),
                };
                vec![handed(Scope::Agents, Tier::Organization), of]
            }
        };
        // The file of a Director stands between its default and its agents' own.
        let beside = matches!(scope, Scope::Default | Scope::ClusterDefault).then(|| p.file_default.clone()).flatten();
        above.into_iter().flatten().chain(beside).chain(own).collect()
    }

    fn own_row(&self, scope: &Scope) -> PolicyRow {
        self.policing.rows.get(&scope.key()).cloned().unwrap_or_default()
    }

    /// A scope as a form needs it.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `cluster_unknown`.
    pub fn scope_view(&self, scope: &Scope, concerned: &[Concerned], releases: &Releases, now: u64) -> Result<ScopeView, Reason> {
        let row = self.own_row(scope);
        if let Scope::Node(id) = scope {
            self.known(id)?;
        }
        if let Scope::Cluster(id) | Scope::AgentsOfCluster(id) = scope {
            self.named_cluster(id)?;
        }
        let own = layer(tier_of(scope), &row);
        let cluster = self.owned_by_cluster(scope);
        let of_cluster = cluster.as_ref().map(|(_, _, scope)| layer(Tier::Cluster, &self.own_row(scope)));
        // A member's own settings rest while it is one.
        let counts = of_cluster.clone().unwrap_or_else(|| own.clone());
        let settings = effective(&self.tiers(scope, Some(counts.clone())));
        let typed = if counts.on { counts.settings } else { Settings::default() };
        Ok(ScopeView {
            scope: scope.key(),
            title: self.title(scope),
            custom: row.custom,
            typed: row.settings,
            revision: row.revision,
            changed_at: row.changed_at,
            by: row.by,
            inherited: values(&effective(&self.tiers(scope, of_cluster))),
            effective: values(&settings),
            schedule: self.schedule_view(&settings, now),
            cluster: cluster.as_ref().map(|(id, _, _)| id.clone()),
            cluster_name: cluster.map(|(_, name, _)| name),
            warnings: self.warn(scope, &typed, &settings, concerned, releases, now),
            note: self.note_of(scope),
        })
    }

    /// What a change would come to.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `cluster_unknown`, `policy_of_cluster`.
    pub fn check_policy(
        &self,
        scope: &Scope,
        change: &PolicyChange,
        concerned: &[Concerned],
        releases: &Releases,
        now: u64,
    ) -> Result<CheckView, Reason> {
        self.may_have_policy(scope)?;
        let before = self.own_row(scope);
        let wire = change.apply(&before.settings);
        let revision = before.revision;
        let (problems, settings) = match wire.check_all() {
            Ok(settings) => (Vec::new(), settings),
            Err(wrong) => (wrong.into_iter().map(ProblemView::from).collect(), readable(&wire)),
        };
        let own = Layer { tier: tier_of(scope), on: change.custom.unwrap_or(true), settings: settings.clone(), changed_at: now };
        let typed = if own.on { settings } else { Settings::default() };
        let settings = effective(&self.tiers(scope, Some(own)));
        Ok(CheckView {
            ok: problems.is_empty(),
            warnings: self.warn(scope, &typed, &settings, concerned, releases, now),
            problems,
            effective: values(&settings),
            schedule: self.schedule_view(&settings, now),
            revision,
            time: now,
        })
    }

    /// The nodes of this server that a scope is for; `None` = they are another server's.
    pub fn concerned(&self, scope: &Scope) -> Option<Vec<Concerned>> {
        let known = |id: &String| self.known(id).ok().map(Concerned::of);
        match scope {
            Scope::Organization | Scope::Default | Scope::ClusterDefault => {
                Some(self.agents.values().filter(|a| a.removed_at.is_none()).map(Concerned::of).collect())
            }
            Scope::Node(id) => Some(known(id).into_iter().collect()),
            Scope::Cluster(id) => Some(self.policing.clusters.get(id).into_iter().flat_map(|row| &row.members).filter_map(known).collect()),
            Scope::Agents | Scope::AgentsOfCluster(_) | Scope::AgentsOf(_) | Scope::AgentOf(..) => None,
        }
    }

    fn warn(
        &self,
        scope: &Scope,
        typed: &Settings,
        settings: &Effective,
        concerned: &[Concerned],
        releases: &Releases,
        now: u64,
    ) -> Vec<WarningView> {
        let handed = scope.is_handed();
        let product = if handed { AGENT.name } else { self.product() };
        let compiled = self.policing.clockwork.of(settings, &self.policing.local_zone());
        let firing = |unix: u64| compiled.as_ref().and_then(|c| c.next_after(unix));
        // What a Director keeps from its agents is that Director's to say.
        let rejected = |c: &Candidate| {
            let kept = if handed { None } else { self.kept_from_new(&hex::encode(&c.sha256), now) };
            kept.map(|reason| reason.detail.clone())
        };
        let said = warnings(typed, settings, &groups(product, concerned, releases), &firing, &rejected, now);
        said.into_iter().map(WarningView::from).collect()
    }

    fn schedule_view(&self, settings: &Effective, now: u64) -> Option<ScheduleView> {
        let followed = values(settings).iter().any(|v| v.field == "cron" || v.field == "interval");
        let zone = Zone::parse(&settings.zone.value, &self.policing.local_zone()).ok().filter(|_| followed)?;
        let schedule = match &settings.timing.value {
            Timing::Cron(text) => Schedule::Cron(Cron::parse(text).ok()?, zone.clone()),
            Timing::Interval(seconds) => Schedule::parse(&format!("{seconds}s"), &zone).ok()?,
        };
        let next: Vec<u64> = std::iter::successors(schedule.next_after(now), |at| schedule.next_after(*at)).take(TIMES_SHOWN).collect();
        let next_local = next.iter().map(|at| zone.rfc3339(*at)).collect();
        Some(ScheduleView { words: schedule.words(), next, next_local })
    }

    fn title(&self, scope: &Scope) -> String {
        let (nodes, node) = (self.role.nodes, self.role.node);
        match scope {
            Scope::Organization | Scope::Default => format!("all {nodes}"),
            Scope::ClusterDefault => format!("all {nodes}, as Fleet says for this Director's cluster"),
            Scope::AgentsOfCluster(id) => format!("the agents of cluster {}", self.policing.clusters.get(id).map_or(id, |row| &row.name)),
            Scope::Node(id) => format!("{node} {id}"),
            Scope::Cluster(id) => format!("cluster {}", self.policing.clusters.get(id).map_or(id, |row| &row.name)),
            Scope::Agents => "all agents".into(),
            Scope::AgentsOf(director) => format!("the agents of director {director}"),
            Scope::AgentOf(director, agent) => format!("agent {agent} of director {director}"),
        }
    }

    fn note_of(&self, scope: &Scope) -> Option<String> {
        match scope {
            Scope::AgentsOf(_) | Scope::AgentsOfCluster(_) | Scope::AgentOf(..) => {
                Some("This is Fleet's word. What a person sets at the Director afterwards, and the agents: section of its vmetric.yml, count there.".into())
            }
            Scope::Cluster(_) => Some(super::clusters::NOTE.into()),
            _ => None,
        }
    }
}

/// What can be read of settings with errors in them: each field by itself.
fn readable(wire: &SettingsWire) -> Settings {
    let scheduled = |wire: SettingsWire| wire.check().unwrap_or_default();
    let none = || SettingsWire { ..Default::default() };
    let timed = |cron: &Option<String>, interval: &Option<String>| {
        scheduled(SettingsWire { method: Some("schedule".into()), cron: cron.clone(), interval: interval.clone(), ..none() }).timing
    };
    Settings {
        mode: scheduled(SettingsWire { mode: wire.mode.clone(), ..none() }).mode,
        method: scheduled(SettingsWire { method: wire.method.clone(), ..none() }).method,
        version: scheduled(SettingsWire { version: wire.version.clone(), ..none() }).version,
        timing: timed(&wire.cron, &None).or_else(|| timed(&None, &wire.interval)),
        zone: scheduled(SettingsWire { zone: wire.zone.clone(), ..none() }).zone,
    }
}

fn tier_of(scope: &Scope) -> Tier {
    match scope {
        Scope::Organization | Scope::Agents => Tier::Organization,
        Scope::Cluster(_) | Scope::AgentsOfCluster(_) | Scope::ClusterDefault => Tier::Cluster,
        Scope::Default | Scope::AgentsOf(_) => Tier::Director,
        Scope::Node(_) | Scope::AgentOf(..) => Tier::Node,
    }
}

fn layer(tier: Tier, row: &PolicyRow) -> Layer {
    Layer { tier, on: row.custom, settings: row.settings.check().unwrap_or_default(), changed_at: row.changed_at }
}

/// The nodes by platform, with what there is for each.
fn groups(product: &str, concerned: &[Concerned], releases: &Releases) -> Vec<Group> {
    let mut by: BTreeMap<(&str, &str), Vec<&Concerned>> = BTreeMap::new();
    for node in concerned.iter().filter(|node| !node.os.is_empty()) {
        by.entry((&node.os, &node.arch)).or_default().push(node);
    }
    let group = |((os, arch), nodes): ((&str, &str), Vec<&Concerned>)| {
        let candidates = candidates(product, releases, os, arch);
        let counter = |node: &&&Concerned| {
            let runs = hex::decode::<32>(&node.sha256)?;
            candidates.iter().find(|c| c.sha256 == runs).map(|c| c.counter)
        };
        Group {
            platform: format!("{os}-{arch}"),
            nodes: nodes.len() as u64,
            floor: nodes.iter().filter_map(|node| counter(&node)).max(),
            lowest: nodes.iter().filter_map(|node| node.version.parse().ok()).min(),
            candidates,
        }
    };
    by.into_iter().take(PLATFORMS_MAX).map(group).collect()
}

fn schedule_text(schedule: &ScheduleView) -> String {
    let next = if schedule.next_local.is_empty() { "never".to_string() } else { schedule.next_local.join(", ") };
    format!("{:<14} {}\n{:<14} {next}\n", "when", schedule.words, "next")
}

fn warnings_text(warnings: &[WarningView]) -> String {
    warnings.iter().map(|w| format!("warning: {}: {} ({})\n", w.field, w.detail, w.code)).collect()
}

/// A scope for people: what is not in the table of everything that is set.
pub fn scope_text(view: &ScopeView) -> String {
    let mut out = format!("{}:\n", view.title);
    view.effective.iter().for_each(|v| out += &format!("{:<14} {} ({})\n", v.field, v.value, v.tier));
    out += &view.schedule.as_ref().map_or(String::new(), schedule_text);
    if let (Some(id), Some(name)) = (&view.cluster, &view.cluster_name) {
        out += &format!("{:<14} the policy belongs to cluster '{name}' ({id})\n", "cluster");
    }
    out += &view.note.as_ref().map_or(String::new(), |note| format!("{:<14} {note}\n", "note"));
    out + &warnings_text(&view.warnings)
}

/// `policy check` for people.
pub fn text(view: &CheckView) -> String {
    let mut out: String = view.problems.iter().map(|p| format!("problem: {}: {}\n", p.field, p.detail)).collect();
    out += &warnings_text(&view.warnings);
    view.effective.iter().for_each(|v| out += &format!("{:<14} {} ({})\n", v.field, v.value, v.tier));
    out += &view.schedule.as_ref().map_or(String::new(), schedule_text);
    out + if view.ok { "it would be taken\n" } else { "it would not be taken\n" }
}
