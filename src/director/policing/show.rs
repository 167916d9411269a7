//! What people see of policies: every setting with the tier that set it, what follows, when, and whose move it is.

use miniserde::{Deserialize, Serialize};

use super::judge::{Judgement, Shelf};
use super::rows::{GrantRow, PolicyRow, Scope};
use super::scopes::{ScopeView, scope_text};
use super::{BY_POLICY, Verdict};
use crate::core::owner::Owner;
use crate::core::policy::{Decision, Effective, Method, Mode, Set, Timing};
use crate::core::reason::Reason;
use crate::core::schedule::Zone;
use crate::director::registry::Registry;
use crate::director::releases::Releases;
use crate::director::table::{Table, until, utc};

/// One setting that counts.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ValueView {
    /// `mode`, `method`, `version`, `cron` or `interval`, `zone`.
    pub field: String,
    /// What counts.
    pub value: String,
    /// Which tier set it.
    pub tier: String,
}

/// The policy of one node.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct NodePolicyView {
    /// Which.
    pub node: String,
    /// What counts, with its tiers.
    pub values: Vec<ValueView>,
    /// `manual`, `up_to_date`, `needs_authorization`, `act`, `wait`.
    pub decision: String,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
    /// The version in question.
    pub version: Option<String>,
    /// Whose move it is: `agent`, `director`, `operator`; absent when nothing is open.
    pub owner: Option<String>,
    /// When it may act next, seconds since 1970; absent = when the cause of the wait goes away, or never by itself.
    pub next: Option<u64>,
    /// The same in the node's zone, RFC 3339.
    pub next_local: Option<String>,
    /// Its authorization.
    pub authorization: Option<GrantRow>,
    /// How a person's order and the policy go together here.
    pub note: Option<String>,
}

/// All settings, or one node's.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct PolicyView {
    /// As they were typed.
    pub rows: Vec<PolicyRow>,
    /// Authorizations that are open.
    pub authorizations: Vec<GrantRow>,
    /// What counts for whoever has nothing of its own; for one node: for it.
    pub effective: NodePolicyView,
    /// Revision of the newest change.
    pub revision: u64,
    /// Server's time.
    pub time: u64,
    /// The settings that were asked for, as a form needs them.
    pub scope: Option<ScopeView>,
}

impl Registry {
    /// What counts for a node, what follows, and when.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`.
    pub fn node_policy(&self, id: &str, releases: &Releases, now: u64) -> Result<NodePolicyView, Reason> {
        let agent = self.known(id)?;
        let settings = self.effective(id);
        let product = self.product();
        let mut shelf = Shelf::new(product, releases);
        let Judgement { settings, decision, next, .. } = self.judge(agent, settings, shelf.of(&agent.os, &agent.architecture), now);
        let verdict = match (self.policing.verdicts.get(id), &decision) {
            // It waits for others of its version, which only the pass over all of them knows.
            (Some(last), Decision::Act { .. }) if last.word == "wait" && last.until.is_some_and(|at| at >= now) => last.clone(),
            _ => Verdict::of(&decision),
        };
        let zone = Zone::parse(&settings.zone.value, &self.policing.local_zone()).unwrap_or_else(|_| Zone::utc());
        let next = match &decision {
            Decision::Act { not_before, .. } => Some(*not_before),
            Decision::Wait { until, reason } if reason.code != "window_not_open" => *until,
            Decision::Wait { .. } | Decision::UpToDate => next,
            Decision::Manual { .. } | Decision::NeedsAuthorization { .. } => None,
        };
        Ok(NodePolicyView {
            node: id.to_string(),
            values: values(&settings),
            decision: verdict.word.to_string(),
            owner: owner(&decision, &verdict).map(|o| o.word().to_string()),
            code: verdict.code,
            detail: verdict.detail,
            version: verdict.version,
            next,
            next_local: next.map(|at| zone.rfc3339(at)),
            authorization: self.policing.grants.get(id).cloned(),
            note: self.policy_note(id, &settings),
        })
    }

    /// Everything that is set, and what it means for whoever has nothing of its own.
    pub fn policies_view(&self, now: u64) -> PolicyView {
        PolicyView {
            rows: self.policing.rows.values().cloned().collect(),
            authorizations: self.policing.grants.values().cloned().collect(),
            effective: NodePolicyView { values: values(&self.effective("")), ..Default::default() },
            revision: self.policy_revision(),
            time: now,
            scope: None,
        }
    }

    /// One node's settings and what follows.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`.
    pub fn policy_view(&self, id: &str, releases: &Releases, now: u64) -> Result<PolicyView, Reason> {
        let own = match self.cluster_of(id) {
            Some(row) => Scope::Cluster(row.id.clone()),
            None => Scope::Node(id.to_string()),
        };
        let key = own.key();
        let rows = ["organization", "cluster-default", "default", &key]
            .into_iter()
            .filter_map(|key| self.policing.rows.get(key).cloned())
            .collect();
        let authorizations = self.policing.grants.get(id).cloned().into_iter().collect();
        let effective = self.node_policy(id, releases, now)?;
        Ok(PolicyView { rows, authorizations, effective, revision: self.policy_revision(), time: now, scope: None })
    }

    /// A person's order beside an automatic policy.
    fn policy_note(&self, id: &str, settings: &Effective) -> Option<String> {
        let (order, rollout) = self.newest_row(id)?;
        let by_person = rollout.policy != Some(true) && settings.mode.value == Mode::Auto;
        let named = settings.version.value.to_string();
        let set = self.role.command(&format!("policy set --{} {id}", self.role.node));
        let keep = format!("to keep {} there: `{set} --mode manual`, or --version {}", order.version, order.version);
        (by_person && named != order.version).then(|| match order.end() {
            None => format!(
                "a person ordered {} (roll-out {}); when that has ended, the policy decides again; {keep}",
                order.version, order.rollout
            ),
            Some(_) => {
                format!("a person ordered {} last (roll-out {}); the policy has the last word; {keep}", order.version, order.rollout)
            }
        })
    }
}

fn owner(decision: &Decision, verdict: &Verdict) -> Option<Owner> {
    match decision {
        Decision::Manual { available: None } | Decision::UpToDate => None,
        Decision::Manual { .. } | Decision::NeedsAuthorization { .. } => Some(Owner::Operator),
        Decision::Act { .. } => Some(Owner::Director),
        Decision::Wait { .. } => Some(match verdict.code.as_str() {
            "under_way" | "node_silent" => Owner::Agent,
            "cooldown" | "window_not_open" | "earlier_rollout" => Owner::Director,
            _ => Owner::Operator,
        }),
    }
}

/// The settings in the specification's words.
pub fn values(settings: &Effective) -> Vec<ValueView> {
    fn of<T>(field: &str, value: String, set: &Set<T>) -> ValueView {
        ValueView { field: field.into(), value, tier: set.tier.word().into() }
    }
    let mut out = vec![of("mode", settings.mode.value.word().into(), &settings.mode)];
    let auto = settings.mode.value == Mode::Auto;
    if auto {
        out.push(of("method", settings.method.value.word().into(), &settings.method));
    }
    out.push(of("version", settings.version.value.to_string(), &settings.version));
    if auto && settings.method.value == Method::Schedule {
        out.push(match &settings.timing.value {
            Timing::Cron(cron) => of("cron", cron.clone(), &settings.timing),
            Timing::Interval(seconds) => of("interval", format!("{seconds}s"), &settings.timing),
        });
        out.push(of("zone", settings.zone.value.clone(), &settings.zone));
    }
    out
}

/// One node's policy for people.
pub fn node_text(view: &NodePolicyView, now: u64) -> String {
    let mut out = String::new();
    for value in &view.values {
        out += &format!("{:<14} {} ({})\n", value.field, value.value, value.tier);
    }
    if view.node.is_empty() {
        return out;
    }
    out += &format!("{:<14} {}: {} ({})\n", "decision", view.decision, view.detail, view.code);
    if let Some(owner) = &view.owner {
        out += &format!("{:<14} {owner}\n", "whose move");
    }
    if let Some(next) = view.next {
        let local = view.next_local.as_deref().unwrap_or_default();
        out += &format!("{:<14} {} = {local}, {}\n", "next", utc(next), if next > now { until(now, next) } else { "now".into() });
    }
    if let Some(grant) = &view.authorization {
        let state = grant.rollout.map_or(format!("until {}", utc(grant.expires_at)), |id| format!("used by roll-out {id}"));
        out += &format!(
            "{:<14} {} ({}) by {}, {state}\n",
            "authorization",
            grant.version,
            &grant.sha256[..grant.sha256.len().min(8)],
            grant.by
        );
    }
    if let Some(note) = &view.note {
        out += &format!("{:<14} {note}\n", "note");
    }
    out
}

/// `policy show` for people.
pub fn text(view: &PolicyView) -> String {
    let mut out = String::new();
    if !view.rows.is_empty() {
        let mut table = Table::new(&["SETTINGS OF", "CUSTOM", "MODE", "METHOD", "VERSION", "CRON", "INTERVAL", "ZONE", "REVISION", "BY"]);
        for row in &view.rows {
            let text = |value: &Option<String>| value.clone().unwrap_or("-".into());
            let s = &row.settings;
            let mut cells = vec![row.scope.clone(), if row.custom { "on" } else { "off" }.into()];
            cells.extend([&s.mode, &s.method, &s.version, &s.cron, &s.interval, &s.zone].map(text));
            cells.extend([row.revision.to_string(), row.by.clone()]);
            table.row(cells);
        }
        out += &table.text();
        out.push('\n');
    }
    match &view.scope {
        // Of one node more is known: what follows, and when.
        Some(scope) if view.effective.node.is_empty() => out += &scope_text(scope),
        _ if view.effective.node.is_empty() => {
            out += &format!("whoever has nothing of its own has:\n{}", node_text(&view.effective, view.time))
        }
        _ => out += &format!("{} has:\n{}", view.effective.node, node_text(&view.effective, view.time)),
    }
    let warnings = view.scope.iter().filter(|_| !view.effective.node.is_empty()).flat_map(|scope| &scope.warnings);
    warnings.for_each(|w| out += &format!("warning: {}: {} ({})\n", w.field, w.detail, w.code));
    if view.effective.node.is_empty() && !view.authorizations.is_empty() {
        let mut table = Table::new(&["AUTHORIZED", "VERSION", "FILE", "UNTIL", "BY", "USED BY"]);
        for grant in &view.authorizations {
            let used = grant.rollout.map_or("-".into(), |id| format!("roll-out {id}"));
            let file = grant.sha256[..grant.sha256.len().min(8)].to_string();
            table.row(vec![grant.node.clone(), grant.version.clone(), file, utc(grant.expires_at), grant.by.clone(), used]);
        }
        out.push('\n');
        out += &table.text();
    }
    out
}

/// Whether a person or the policy made a roll-out, in one word.
pub fn made_by(policy: Option<bool>) -> &'static str {
    if policy == Some(true) { BY_POLICY } else { "person" }
}
