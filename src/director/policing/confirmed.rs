//! At a Director: Fleet's confirmations become authorizations of its own, once, and what becomes of each is kept until Fleet
//! has heard it.

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize};

use super::confirmations::{ConfirmationRow, HANDED_MAX, STORED_MAX};
use super::grants::{TTL_S, Terms};
use super::rows::{GrantRow, Scope};
use super::{Policing, Verdict};
use crate::core::hex;
use crate::core::policy::{Layer, Method, Mode, Wanted};
use crate::core::reason::Reason;
use crate::core::release::is_name;
use crate::core::rollout::End;
use crate::core::version::Version;
use crate::director::records::{NAME_MAX, Order, clean};
use crate::director::registry::Registry;
use crate::director::releases::Releases;
use crate::director::store::Table;
use crate::wire::fleet_api::CountWire;
use crate::wire::settings::SettingsWire;
use crate::wire::site_policy::{
    AuthorizedWire, CONFIRMATIONS_MAX, ConfirmationStateWire, ConfirmationWire, FILES_MAX, NAMED_MAX, TierWire,
};

/// Who is noted for what a person confirmed at Fleet: this, and the person's name there.
const AT_FLEET: &str = "fleet";
/// How long the outcome of an agent's confirmation is shown, seconds.
const OUTCOME_S: u64 = 30 * 86_400;
/// Longest sentence of an outcome in an agent's row at Fleet, bytes: a page of them has to fit into a message.
const SHOWN_MAX: usize = 200;

/// What became of Fleet's newest confirmation for an agent.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfirmedRow {
    /// Which agent; the key.
    pub agent: String,
    /// Which confirmation.
    pub id: String,
    /// For which version.
    pub version: String,
    /// See [`AuthorizedWire::state`].
    pub state: String,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
    /// Who gave it.
    pub by: String,
    /// Since when it is so.
    pub at: u64,
    /// Not used after.
    pub expires_at: u64,
}

impl ConfirmedRow {
    fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "waiting" | "confirmed" | "ordered")
    }
}

fn refused(code: &'static str, detail: impl Into<String>) -> Reason {
    Reason::new(code, detail.into())
}

/// Whether a confirmation may be taken: what it says, not what is to be done about it.
fn sound(wire: &ConfirmationWire, now: u64) -> Result<(), Reason> {
    let hash = |text: &String| hex::decode::<32>(text).is_some();
    let named = wire.agents.iter().flatten();
    if wire.expires_at <= now {
        let ended = crate::core::time::format(wire.expires_at);
        return Err(refused("confirmation_expired", format!("it ended at {ended}, before it was here; confirm again")));
    }
    if wire.version.parse::<Version>().is_err() || wire.files.is_empty() || wire.files.len() > FILES_MAX || !wire.files.iter().all(hash) {
        return Err(refused("confirmation_invalid", "it names no version, or no SHA-256 of its files"));
    }
    if named.clone().count() > NAMED_MAX || named.clone().any(|id| !is_name(id)) {
        return Err(refused("confirmation_invalid", format!("it names more than {NAMED_MAX} agents, or one whose id is none")));
    }
    Ok(())
}

impl Registry {
    /// Takes over what the store held.
    pub fn load_confirmed(&mut self, rows: Vec<ConfirmedRow>) {
        self.policing.confirmed = rows.into_iter().map(|row| (row.agent.clone(), row)).collect();
        let waits = |row: &&ConfirmedRow| row.state == "waiting";
        self.policing.confirmed_waiting = self.policing.confirmed.values().filter(waits).map(|row| row.agent.clone()).collect();
    }

    /// Part of a pass: takes what Fleet handed down, and looks again at what waits for its file.
    pub(super) fn take_confirmations(&mut self, releases: &Releases, new_releases: bool, now: u64) {
        for wire in std::mem::take(&mut self.policing.handed_confirmations).into_iter().take(HANDED_MAX) {
            self.take_confirmation(wire, releases, now);
        }
        let waiting: Vec<ConfirmedRow> =
            self.policing.confirmed_waiting.iter().filter_map(|id| self.policing.confirmed.get(id).cloned()).collect();
        for row in waiting {
            if row.expires_at <= now {
                self.settle(&row.agent, &row.id, "expired", "confirmation_expired", "its file did not come here in time", now);
            } else if new_releases && let Some(taken) = self.policing.confirmations.get(&row.id).cloned() {
                self.confirm_each(&taken.wire, vec![row.agent], true, releases, now);
            }
        }
    }

    fn take_confirmation(&mut self, wire: ConfirmationWire, releases: &Releases, now: u64) {
        if !is_name(&wire.id) {
            return;
        }
        let over = wire.revoked == Some(true) || wire.expires_at <= now;
        if let Some(have) = self.policing.confirmations.get(&wire.id).cloned() {
            if wire.revoked == Some(true) && have.state.as_deref() == Some("taken") {
                self.revoke_taken(have, now);
            } else if !over && have.code.is_none() && !is_same(&have.wire, &wire) {
                let reason = refused("confirmation_changed", "this id was taken with other contents before; those stay as they were");
                self.refuse_confirmation(have, &reason, now);
            }
            return;
        }
        let by = clean(&wire.by, NAME_MAX / 2);
        let wire = ConfirmationWire { by, expires_at: wire.expires_at.min(now.saturating_add(TTL_S.1)), ..wire };
        let row = ConfirmationRow { wire: wire.clone(), taken_at: Some(now), state: Some("taken".into()), ..Default::default() };
        if self.policing.confirmations.len() >= STORED_MAX {
            // Without a row it could be taken twice.
            return self.event(now, "", "confirmation_refused", format!("{}: {STORED_MAX} confirmations are kept already", wire.id), None);
        }
        if wire.revoked == Some(true) {
            return self.keep_confirmation(ConfirmationRow { state: Some("revoked".into()), ..row });
        }
        if let Err(reason) = sound(&wire, now) {
            return self.refuse_confirmation(ConfirmationRow { state: Some("refused".into()), ..row }, &reason, now);
        }
        let everybody = wire.agents.is_none();
        let ids = wire.agents.clone().unwrap_or_else(|| self.asking_for(&wire.version));
        self.keep_confirmation(row.clone());
        let nobodys = self.confirm_each(&wire, ids, false, releases, now);
        if everybody && let Some(reason) = nobodys {
            self.refuse_confirmation(row, &reason, now);
        }
    }

    /// Agents whose policy asks a person about this version.
    fn asking_for(&self, version: &str) -> Vec<String> {
        let asks = |id: &str| {
            let settings = self.effective(id);
            let other = matches!(&settings.version.value, Wanted::Exact(exact) if exact.to_string() != version);
            settings.mode.value == Mode::Auto && settings.method.value == Method::UserAction && !other
        };
        self.agents.values().filter(|a| a.removed_at.is_none() && asks(&a.id)).map(|a| a.id.clone()).collect()
    }

    /// Authorizes each of them as a person's command here would. `again`: those that wait already. Why it is nobody's.
    fn confirm_each(&mut self, wire: &ConfirmationWire, ids: Vec<String>, again: bool, releases: &Releases, now: u64) -> Option<Reason> {
        let before = self.by.replace(format!("{AT_FLEET}: {}", wire.by));
        let terms = Terms { version: &wire.version, expires_at: wire.expires_at, confirmation: Some(wire) };
        let done = self.authorize_each(ids, &terms, releases, now);
        for row in &done.authorized {
            self.keep_confirmed(&row.node, wire, "confirmed", "", "", now);
        }
        let (mut first, mut waits) = (None, false);
        for left in &done.left_out {
            let (code, detail) = (left.code.as_str(), left.detail.as_str());
            if code == "version_unknown" {
                waits = true;
                // The mirror looks now, not in a minute.
                self.fetch_now |= !again;
                if !again {
                    self.keep_confirmed(&left.agent, wire, "waiting", code, detail, now);
                }
            } else if wire.agents.is_some() || again {
                self.event(now, &left.agent, "confirmation_refused", format!("{}: {detail} ({code})", wire.id), None);
                self.keep_confirmed(&left.agent, wire, "refused", code, detail, now);
            }
            first.get_or_insert_with(|| Reason::new("nothing_authorized", format!("{}: {detail} ({code})", left.agent)));
        }
        self.by = before;
        let nobodys = done.authorized.is_empty() && !waits;
        nobodys.then(|| first.unwrap_or_else(|| refused("nothing_authorized", "no agent here waits for a person's word")))
    }

    /// Taken back at Fleet: what has switched goes on to its end, everything else is withdrawn.
    fn revoke_taken(&mut self, row: ConfirmationRow, now: u64) {
        let before = self.by.replace(AT_FLEET.to_string());
        let ours = |c: &&ConfirmedRow| c.id == row.wire.id && c.is_open();
        let open: Vec<String> = self.policing.confirmed.values().filter(ours).map(|c| c.agent.clone()).collect();
        for agent in open {
            let switched = self.newest_row(&agent).is_some_and(|(o, _)| o.end().is_none() && o.step().is_some_and(|s| s.has_switched()));
            let granted = self.policing.grants.get(&agent).is_some_and(|g| g.confirmation.as_ref() == Some(&row.wire.id));
            match (granted, switched) {
                (true, true) => {}
                (true, false) => self.drop_grant(&agent, "authorization_revoked", "taken back at Fleet", now),
                (false, _) => self.settle(&agent, &row.wire.id, "revoked", "authorization_revoked", "taken back at Fleet", now),
            }
        }
        self.by = before;
        let wire = ConfirmationWire { revoked: Some(true), ..row.wire };
        self.keep_confirmation(ConfirmationRow { wire, state: Some("revoked".into()), ..row });
    }

    fn refuse_confirmation(&mut self, row: ConfirmationRow, reason: &Reason, now: u64) {
        self.event(now, "", "confirmation_refused", format!("Fleet's confirmation {}: {reason}", row.wire.id), None);
        let (code, detail) = (Some(reason.code.to_string()), Some(reason.detail.clone()));
        self.keep_confirmation(ConfirmationRow { code, detail, ..row });
    }

    fn keep_confirmation(&mut self, row: ConfirmationRow) {
        self.put(Table::Confirmations, row.wire.id.clone(), &row);
        self.policing.confirmations.insert(row.wire.id.clone(), row);
    }

    fn keep_confirmed(&mut self, agent: &str, wire: &ConfirmationWire, state: &str, code: &str, detail: &str, now: u64) {
        // A newer word of Fleet takes the place of an older one; what that one has ordered is the grant's to end.
        if self.known(agent).is_err() {
            return;
        }
        let row = ConfirmedRow {
            agent: agent.to_string(),
            id: wire.id.clone(),
            version: wire.version.clone(),
            state: state.into(),
            code: code.into(),
            detail: detail.into(),
            by: wire.by.clone(),
            at: now,
            expires_at: wire.expires_at,
        };
        self.put_confirmed(row);
    }

    fn put_confirmed(&mut self, row: ConfirmedRow) {
        let agent = row.agent.clone();
        match row.state.as_str() {
            "waiting" => drop(self.policing.confirmed_waiting.insert(agent.clone())),
            _ => drop(self.policing.confirmed_waiting.remove(&agent)),
        }
        self.put(Table::Confirmed, agent.clone(), &row);
        self.policing.confirmed.insert(agent.clone(), row);
        self.touch(&agent);
    }

    /// What became of a confirmation for an agent, if it is still the newest for it.
    pub(super) fn settle(&mut self, agent: &str, id: &str, state: &str, code: &str, detail: &str, now: u64) {
        let Some(row) = self.policing.confirmed.get(agent).filter(|row| row.id == id && row.is_open()).cloned() else { return };
        self.put_confirmed(ConfirmedRow { state: state.into(), code: code.into(), detail: detail.into(), at: now, ..row });
    }

    /// The order that an authorization began is over.
    pub(super) fn settle_order(&mut self, grant: &GrantRow, order: Option<&Order>, now: u64) {
        let Some(id) = &grant.confirmation else { return };
        let (state, code, detail) = match order.map(|o| (o, o.end())) {
            Some((_, Some(End::Updated | End::Already))) => ("done", "runs_it".to_string(), format!("it runs {}", grant.version)),
            Some((order, _)) => ("failed", order.code.clone(), order.detail.clone()),
            None => ("failed", "order_gone".into(), "its roll-out is not remembered any more".into()),
        };
        self.settle(&grant.node, id, state, &code, &detail, now);
    }

    pub(super) fn prune_confirmed(&mut self, now: u64) {
        let over = |row: &&ConfirmedRow| !row.is_open() && row.at.saturating_add(OUTCOME_S) < now || self.known(&row.agent).is_err();
        let gone: Vec<String> = self.policing.confirmed.values().filter(over).map(|row| row.agent.clone()).collect();
        for agent in gone {
            self.policing.confirmed.remove(&agent);
            self.policing.confirmed_waiting.remove(&agent);
            self.delete(Table::Confirmed, agent.clone());
            self.touch(&agent);
        }
    }

    /// For Fleet: a person's newest word for an agent.
    pub(in crate::director) fn authorized_wire(&self, agent: &str) -> Option<AuthorizedWire> {
        let some = |text: &String| Some(clean(text, SHOWN_MAX)).filter(|t| !t.is_empty());
        let local = self.policing.grants.get(agent).filter(|grant| grant.confirmation.is_none());
        if let Some(grant) = local {
            let state = if grant.rollout.is_some() { "ordered" } else { "confirmed" };
            return Some(AuthorizedWire {
                version: grant.version.clone(),
                state: state.into(),
                by: clean(&grant.by, NAME_MAX / 2),
                at: grant.given_at,
                expires_at: grant.expires_at,
                ..Default::default()
            });
        }
        let row = self.policing.confirmed.get(agent)?;
        Some(AuthorizedWire {
            id: Some(row.id.clone()),
            version: row.version.clone(),
            state: row.state.clone(),
            code: some(&row.code),
            detail: some(&row.detail),
            by: row.by.clone(),
            at: row.at,
            expires_at: row.expires_at,
        })
    }

    /// For Fleet: how far its confirmations are, the newest first.
    pub(in crate::director) fn confirmation_states(&self) -> Vec<ConfirmationStateWire> {
        let mut counts: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for row in self.policing.confirmed.values() {
            *counts.entry(&row.id).or_default().entry(&row.state).or_default() += 1;
        }
        let of =
            |id: &str| counts.get(id).into_iter().flatten().map(|(state, count)| CountWire { state: state.to_string(), count: *count });
        let state = |row: &ConfirmationRow| ConfirmationStateWire {
            id: row.wire.id.clone(),
            state: row.state.clone().unwrap_or_default(),
            code: row.code.clone(),
            detail: row.detail.as_ref().map(|d| clean(d, SHOWN_MAX)),
            taken_at: row.taken_at,
            agents: of(&row.wire.id).collect(),
        };
        self.confirmations().into_iter().take(CONFIRMATIONS_MAX).map(state).collect()
    }

    /// For Fleet: an agent's own settings.
    pub(in crate::director) fn own_policy_wire(&self, agent: &str) -> Option<TierWire> {
        let row = self.policing.rows.get(&Scope::Node(agent.to_string()).key()).filter(|row| row.custom || !row.settings.is_empty())?;
        Some(self.tier_wire("node", &row.scope))
    }

    fn tier_wire(&self, tier: &str, key: &str) -> TierWire {
        let row = self.policing.rows.get(key).cloned().unwrap_or_default();
        let by = Some(clean(&row.by, NAME_MAX / 2));
        TierWire { tier: tier.into(), custom: row.custom, settings: row.settings, changed_at: row.changed_at, by, handed: row.handed }
    }

    /// For Fleet: the tiers above the agents' own that are in force here.
    pub(in crate::director) fn tiers_in_force(&self) -> Vec<TierWire> {
        let p = &self.policing;
        let row = |(tier, scope): (&str, Scope)| p.rows.contains_key(&scope.key()).then(|| self.tier_wire(tier, &scope.key()));
        let default = match self.default_scope() {
            Scope::ClusterDefault => ("cluster", Scope::ClusterDefault),
            other => ("director", other),
        };
        let rows = [("organization", Scope::Organization), default];
        let file = p.file_default.as_ref().map(|layer| TierWire {
            tier: layer.tier.word().into(),
            custom: true,
            settings: typed(layer),
            changed_at: layer.changed_at,
            ..Default::default()
        });
        rows.into_iter().filter_map(row).chain(file).collect()
    }
}

/// A file's settings as a person would type them.
fn typed(layer: &Layer) -> SettingsWire {
    use crate::core::policy::Timing;
    let s = &layer.settings;
    let (cron, interval) = match &s.timing {
        Some(Timing::Cron(cron)) => (Some(cron.clone()), None),
        Some(Timing::Interval(seconds)) => (None, Some(format!("{seconds}s"))),
        None => (None, None),
    };
    SettingsWire {
        mode: s.mode.map(|m| m.word().into()),
        method: s.method.map(|m| m.word().into()),
        version: s.version.as_ref().map(ToString::to_string),
        cron,
        interval,
        zone: s.zone.clone(),
    }
}

fn is_same(a: &ConfirmationWire, b: &ConfirmationWire) -> bool {
    (&a.agents, &a.version, &a.files) == (&b.agents, &b.version, &b.files)
}

/// The version for which a decision waits for a person's word.
pub(super) fn needs(verdict: Option<&Verdict>) -> Option<&str> {
    verdict.filter(|v| v.word == "needs_authorization")?.version.as_deref()
}

impl Policing {
    /// For Fleet: the version for which an agent's policy waits for a person's word.
    pub(in crate::director) fn needs(&self, agent: &str) -> Option<String> {
        needs(self.verdicts.get(agent)).map(str::to_string)
    }
}
