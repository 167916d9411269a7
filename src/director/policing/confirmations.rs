//! User Action from Fleet for the agents of its Directors: a person's confirmation on its way down.
//!
//! ```text
//!  Fleet: confirmation {agents or all, version, files, expiry, who} -> the Director's settings document
//!  Director: each id once -> its own authorizations ([`super::grants`]) -> its own roll-out; what became of it -> Fleet
//! ```
//!
//! The Director decides as if the person had spoken there: by its agents' policies, its mirror and its limits. A stolen Fleet
//! can name only what the release plane has signed, and no agent whose policy asks nobody.

use miniserde::{Deserialize, Serialize};

use crate::core::reason::Reason;
use crate::director::registry::Registry;
use crate::director::store::Table;
use crate::wire::site_policy::{CONFIRMATIONS_MAX, ConfirmationWire, FILES_MAX, NAMED_ALL_MAX, NAMED_MAX};

use super::grants::TTL_S;
use crate::core::policy::AUTHORIZATION_TTL_S;

/// How long a confirmation is shown after its end, seconds. A Director that comes back within it says what it did.
pub const SHOWN_S: u64 = 7 * 86_400;
/// Most confirmations of one store: those of a thousand Directors in a busy week, or of one stolen Fleet.
pub const STORED_MAX: usize = 10_000;
/// Most confirmations in one settings document: the open ones, and of what ended lately as many as give the Director a word
/// about those that it slept through.
pub const HANDED_MAX: usize = 4 * CONFIRMATIONS_MAX;
/// How often old ones are removed, seconds.
const PRUNE_S: u64 = 60;

/// A confirmation as it is kept: at Fleet with its Director, at a Director with what became of it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfirmationRow {
    /// What goes down.
    pub wire: ConfirmationWire,
    /// At Fleet: whose agents; empty at a Director.
    pub director: String,
    /// At a Director: when it came.
    pub taken_at: Option<u64>,
    /// At a Director: `taken`, `refused`, `revoked`.
    pub state: Option<String>,
    /// Why it is refused, or nobody's; stable code.
    pub code: Option<String>,
    /// The same for people.
    pub detail: Option<String>,
}

/// What a person confirms at Fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirm {
    /// Random.
    pub id: String,
    /// Whose agents.
    pub director: String,
    /// Which; `None` = all that wait.
    pub agents: Option<Vec<String>>,
    /// Exact.
    pub version: String,
    /// SHA-256 of its files.
    pub files: Vec<String>,
    /// Life.
    pub ttl_s: Option<u64>,
}

impl Registry {
    /// Takes over what the store held.
    pub fn load_confirmations(&mut self, rows: Vec<ConfirmationRow>) {
        self.policing.confirmations = rows.into_iter().map(|row| (row.wire.id.clone(), row)).collect();
    }

    /// At Fleet: hands a confirmation down.
    ///
    /// # Errors
    /// `agent_unknown` (the Director), `too_many_agents`, `confirmations_full`, `version_unknown`.
    pub fn confirm_agents(&mut self, ask: Confirm, now: u64) -> Result<ConfirmationRow, Reason> {
        self.known(&ask.director)?;
        let named = ask.agents.as_ref().map_or(0, Vec::len);
        if named > NAMED_MAX {
            let detail = format!("{named} agents are named, of at most {NAMED_MAX}; confirm their Director or cluster instead");
            return Err(Reason::new("too_many_agents", detail));
        }
        if ask.files.is_empty() || ask.files.len() > FILES_MAX {
            return Err(Reason::new("version_unknown", format!("there is no file of {} to be confirmed", ask.version)));
        }
        let open = || self.policing.confirmations.values().filter(|row| row.director == ask.director && row.wire.expires_at > now);
        let all_named: usize = open().filter_map(|row| row.wire.agents.as_ref()).map(Vec::len).sum();
        if open().count() >= CONFIRMATIONS_MAX || all_named + named > NAMED_ALL_MAX || self.policing.confirmations.len() >= STORED_MAX {
            let detail = format!(
                "Director {} has as many open confirmations as it is handed ({CONFIRMATIONS_MAX}, of {NAMED_ALL_MAX} agents); revoke some, or wait until they end",
                ask.director
            );
            return Err(Reason::new("confirmations_full", detail));
        }
        let life = ask.ttl_s.unwrap_or(AUTHORIZATION_TTL_S).clamp(TTL_S.0, TTL_S.1);
        let wire = ConfirmationWire {
            id: ask.id,
            agents: ask.agents,
            version: ask.version,
            files: ask.files,
            given_at: now,
            expires_at: now.saturating_add(life),
            by: self.by.clone().unwrap_or_default(),
            revoked: None,
            revision: 0,
        };
        let row = ConfirmationRow { wire, director: ask.director, ..Default::default() };
        Ok(self.hand_confirmation(row, "agents_confirmed", now))
    }

    /// At Fleet: takes one back. What has not switched is withdrawn by its Director.
    ///
    /// # Errors
    /// `confirmation_unknown`, `confirmation_over`.
    pub fn revoke_confirmation(&mut self, id: &str, now: u64) -> Result<ConfirmationRow, Reason> {
        let unknown = || Reason::new("confirmation_unknown", "there is no such confirmation; `authorizations` lists them");
        let mut row = self.policing.confirmations.get(id).filter(|row| !row.director.is_empty()).cloned().ok_or_else(unknown)?;
        if row.wire.revoked == Some(true) {
            return Ok(row);
        }
        if row.wire.expires_at <= now {
            return Err(Reason::new(
                "confirmation_over",
                format!("{id} has ended; what was ordered by it is ended with `cancel` at its Director"),
            ));
        }
        row.wire.revoked = Some(true);
        Ok(self.hand_confirmation(row, "agents_confirmation_revoked", now))
    }

    fn hand_confirmation(&mut self, mut row: ConfirmationRow, code: &str, now: u64) -> ConfirmationRow {
        row.wire.revision = self.policy_revision() + 1;
        let whom = match &row.wire.agents {
            None => "every agent that waits".to_string(),
            Some(ids) if ids.len() > 3 => format!("{} and {} more", ids[..3].join(", "), ids.len() - 3),
            Some(ids) => ids.join(", "),
        };
        let until = crate::core::time::format(row.wire.expires_at);
        let detail = format!("{} for {whom} of {}, until {until} ({})", row.wire.version, row.director, row.wire.id);
        self.event(now, &row.director.clone(), code, detail, None);
        self.put(Table::Confirmations, row.wire.id.clone(), &row);
        self.policing.confirmations.insert(row.wire.id.clone(), row.clone());
        self.hand_out = true;
        row
    }

    /// At Fleet: what a Director is handed: what is open, and what ended lately. Of what is over the id is enough.
    pub(super) fn confirmations_of(&self, director: &str, now: u64) -> Vec<ConfirmationWire> {
        let mut rows: Vec<&ConfirmationWire> =
            self.policing.confirmations.values().filter(|row| row.director == director).map(|row| &row.wire).collect();
        rows.sort_by_key(|wire| std::cmp::Reverse(wire.expires_at));
        let over = |wire: &ConfirmationWire| wire.revoked == Some(true) || wire.expires_at <= now;
        let handed = |wire: &ConfirmationWire| match over(wire) {
            true => ConfirmationWire { agents: wire.agents.as_ref().map(|_| Vec::new()), files: Vec::new(), ..wire.clone() },
            false => wire.clone(),
        };
        rows.into_iter().take(HANDED_MAX).map(handed).collect()
    }

    /// At Fleet: the revision of the newest of them.
    pub(super) fn confirmed_revision(&self, director: &str) -> Option<u64> {
        self.policing.confirmations.values().filter(|row| row.director == director).map(|row| row.wire.revision).max()
    }

    /// All of them, the newest first.
    pub fn confirmations(&self) -> Vec<&ConfirmationRow> {
        let mut out: Vec<&ConfirmationRow> = self.policing.confirmations.values().collect();
        out.sort_by_key(|row| std::cmp::Reverse((row.wire.given_at, row.wire.revision)));
        out
    }

    /// Forgets what ended long ago. An id that has not ended is kept: it must not be taken twice.
    pub(super) fn prune_confirmations(&mut self, now: u64) {
        if now < self.policing.confirmations_pruned + PRUNE_S {
            return;
        }
        self.policing.confirmations_pruned = now;
        // The newest revision of this store must not come again.
        let newest = self.policy_revision();
        let free = |row: &ConfirmationRow| row.director.is_empty() || row.wire.revision < newest;
        let over = |row: &&ConfirmationRow| row.wire.expires_at.saturating_add(SHOWN_S) < now && free(row);
        let gone: Vec<String> = self.policing.confirmations.values().filter(over).map(|row| row.wire.id.clone()).collect();
        for id in gone {
            self.policing.confirmations.remove(&id);
            self.delete(Table::Confirmations, id);
        }
        self.prune_confirmed(now);
    }
}
