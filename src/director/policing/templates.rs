//! Enrollment templates: many devices, one command, and a policy that each of them gets as its own.
//!
//! ```text
//!  Fleet: template + a random token -> its SHA-256 and the terms go down with the settings -> the Director's token table
//!         the token's text goes into the install command, which is shown once and kept nowhere
//! ```
//!
//! The Director checks the terms as if a person had typed them there: what a stolen Fleet says is no more than that.

use std::collections::BTreeSet;

use miniserde::{Deserialize, Serialize};

use super::rows::{PolicyChange, Scope};
use crate::core::cluster::name;
use crate::core::reason::Reason;
use crate::core::release::is_name;
use crate::director::enroll::{NEVER, TOKEN_TTL_MAX_S, TTL_NEVER_S, token_id};
use crate::director::records::{NAME_MAX, Token, clean};
use crate::director::registry::{AGENTS_MAX, Registry};
use crate::director::store::Table;
use crate::wire::fleet_api::{TemplateStateWire, TemplateWire};
use crate::wire::settings::SettingsWire;

/// Most templates, removed ones with them: their removal has to reach Directors that are away.
pub const TEMPLATES_MAX: usize = 1_000;
/// Life without a wish, seconds.
pub const LIFE_S: u64 = 7 * 86_400;

/// A template at Fleet.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct TemplateRow {
    /// What the Director gets.
    pub wire: TemplateWire,
    /// Which Director.
    pub director: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub changed_at: u64,
    /// Who changed it last.
    pub by: String,
}

/// What is wished of a template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateChange {
    /// A name for people.
    pub name: Option<String>,
    /// Devices; 0 = without a limit.
    pub uses: Option<u64>,
    /// Seconds from now; [`TTL_NEVER_S`] = without an end, which needs approval.
    pub ttl_s: Option<u64>,
    /// A person approves each device.
    pub approval: Option<bool>,
    /// It can be used.
    pub enabled: Option<bool>,
    /// The policy that devices get.
    pub settings: Option<SettingsWire>,
    /// They get it.
    pub custom: Option<bool>,
    /// The revision that the change was made from.
    pub expected: Option<u64>,
}

/// The state of a template that no Director told of.
fn word(wire: &TemplateWire, told: Option<&TemplateStateWire>, now: u64) -> &'static str {
    let used = told.map_or(0, |t| t.used);
    match wire {
        w if !w.enabled => "disabled",
        w if w.expires_at.is_some_and(|at| at < now) => "expired",
        w if w.uses.is_some_and(|uses| used >= uses) => "limit_reached",
        w if told.is_none_or(|t| t.revision != w.revision) => "waiting",
        _ => "enabled",
    }
}

impl TemplateRow {
    /// `enabled`, `disabled`, `expired`, `limit_reached`, or `waiting` until its Director has it.
    pub fn state(&self, told: Option<&TemplateStateWire>, now: u64) -> &'static str {
        word(&self.wire, told, now)
    }
}

impl Registry {
    /// Takes over what the store held.
    pub fn load_templates(&mut self, rows: Vec<TemplateRow>) {
        self.policing.templates = rows.into_iter().map(|row| (row.wire.id.clone(), row)).collect();
    }

    /// A template by its id or name.
    ///
    /// # Errors
    /// `template_unknown`.
    pub fn named_template(&self, word: &str) -> Result<&TemplateRow, Reason> {
        let mut there = self.policing.templates.values().filter(|row| !row.wire.removed);
        let found = there.find(|row| row.wire.id == word || row.wire.name.eq_ignore_ascii_case(word));
        let shown = clean(word, NAME_MAX);
        found.ok_or_else(|| Reason::new("template_unknown", format!("there is no template '{shown}'; `template list` shows them")))
    }

    /// Makes a template; `key` is the SHA-256 of its token.
    ///
    /// # Errors
    /// `templates_full`, and those of [`Registry::change_template`].
    pub fn create_template(&mut self, id: &str, director: &str, key: &str, wish: &TemplateChange, now: u64) -> Result<TemplateRow, Reason> {
        self.known(director)?;
        self.forget_removed_templates();
        if self.policing.templates.len() >= TEMPLATES_MAX {
            return Err(Reason::new("templates_full", format!("there are {TEMPLATES_MAX} templates; remove some")));
        }
        let wire = TemplateWire { id: id.into(), token_sha256: key.into(), enabled: true, ..Default::default() };
        let row = TemplateRow { wire, director: director.into(), created_at: now, ..Default::default() };
        let wish = TemplateChange { name: Some(wish.name.clone().unwrap_or_default()), ..wish.clone() };
        self.put_template(row, &wish, None, "template_created", now)
    }

    /// Changes a template, or gives it another token: the one before is worth nothing then.
    ///
    /// # Errors
    /// `template_unknown`, `revision_conflict`, `name_invalid`, `name_taken`, `token_needs_end`, `settings_invalid`.
    pub fn change_template(&mut self, word: &str, wish: &TemplateChange, key: Option<&str>, now: u64) -> Result<TemplateRow, Reason> {
        let row = self.named_template(word)?.clone();
        if let Some(expected) = wish.expected.filter(|expected| *expected != row.wire.revision) {
            let (revision, by) = (row.wire.revision, &row.by);
            let detail = format!("template '{}' is at revision {revision} (by {by}), not {expected}; look at it again", row.wire.name);
            return Err(Reason::new("revision_conflict", detail));
        }
        self.put_template(row, wish, key, "template_changed", now)
    }

    /// Removes a template; who enrolled with it stays.
    ///
    /// # Errors
    /// `template_unknown`.
    pub fn remove_template(&mut self, word: &str, now: u64) -> Result<(), Reason> {
        let mut row = self.named_template(word)?.clone();
        (row.wire.removed, row.wire.enabled) = (true, false);
        self.keep_template(row, "template_removed", now);
        Ok(())
    }

    fn put_template(
        &mut self,
        mut row: TemplateRow,
        wish: &TemplateChange,
        key: Option<&str>,
        code: &str,
        now: u64,
    ) -> Result<TemplateRow, Reason> {
        let wire = &mut row.wire;
        if let Some(text) = &wish.name {
            wire.name = name(text)?;
            let taken =
                |other: &&TemplateRow| !other.wire.removed && other.wire.id != wire.id && other.wire.name.eq_ignore_ascii_case(&wire.name);
            if self.policing.templates.values().any(|other| taken(&other)) {
                return Err(Reason::new("name_taken", format!("name: there is a template '{}' already", wire.name)));
            }
        }
        if let Some(uses) = wish.uses {
            wire.uses = (uses > 0).then_some(uses);
        }
        wire.approval = wish.approval.unwrap_or(wire.approval);
        wire.enabled = wish.enabled.unwrap_or(wire.enabled);
        // New, or to be changed: an end without a wish is a week away.
        if wish.ttl_s.is_some() || wire.revision == 0 {
            let ttl_s = wish.ttl_s.unwrap_or(LIFE_S);
            wire.expires_at = (ttl_s != TTL_NEVER_S).then(|| now.saturating_add(ttl_s.min(TOKEN_TTL_MAX_S)));
        }
        if wire.expires_at.is_none() && !wire.approval {
            let detail = "ttl: a template without an end needs approval of each device; give it an end, or approval";
            return Err(Reason::new("token_needs_end", detail));
        }
        if let Some(settings) = &wish.settings {
            settings.check_all()?;
            wire.settings = settings.clone();
            wire.custom = !settings.is_empty();
        }
        wire.custom = wish.custom.unwrap_or(wire.custom);
        if let Some(key) = key {
            wire.token_sha256 = key.into();
        }
        Ok(self.keep_template(row, code, now))
    }

    fn keep_template(&mut self, row: TemplateRow, code: &str, now: u64) -> TemplateRow {
        let wire = TemplateWire { revision: self.policy_revision() + 1, ..row.wire };
        let row = TemplateRow { wire, changed_at: now, by: self.by.clone().unwrap_or_default(), ..row };
        let detail = format!("template '{}' ({}) of director {}", row.wire.name, row.wire.id, row.director);
        self.event(now, &row.director, code, detail, None);
        self.put(Table::Templates, row.wire.id.clone(), &row);
        self.policing.templates.insert(row.wire.id.clone(), row.clone());
        self.hand_out = true;
        row
    }

    /// Room for new ones: a Director that was away for a thousand templates revokes what it does not find in the list.
    fn forget_removed_templates(&mut self) {
        if self.policing.templates.len() < TEMPLATES_MAX {
            return;
        }
        let removed = self.policing.templates.values().filter(|row| row.wire.removed);
        // The newest row keeps its revision alive.
        let oldest = removed.min_by_key(|row| row.wire.revision).map(|row| row.wire.id.clone());
        if let Some(id) = oldest {
            self.policing.templates.remove(&id);
            self.delete(Table::Templates, id);
        }
    }

    /// At Fleet: the templates of a Director.
    pub fn templates_of(&self, director: &str) -> Vec<TemplateWire> {
        self.policing.templates.values().filter(|row| row.director == director).map(|row| row.wire.clone()).collect()
    }

    /// At Fleet: every template that was not removed.
    pub fn templates(&self) -> Vec<TemplateRow> {
        self.policing.templates.values().filter(|row| !row.wire.removed).cloned().collect()
    }

    /// At a Director: makes tokens of Fleet's templates. What cannot be is told, and the rest counts.
    pub fn take_templates(&mut self, templates: &[TemplateWire], now: u64) {
        let mut good = BTreeSet::new();
        for wire in templates.iter().take(TEMPLATES_MAX).filter(|wire| wire.enabled && !wire.removed) {
            match self.take_template(wire, now) {
                Ok(key) => drop(good.insert(key)),
                Err(reason) => {
                    let detail = format!("Fleet's template '{}': {reason}", clean(&wire.name, NAME_MAX));
                    self.event(now, "", "template_refused", detail, None);
                }
            }
        }
        let gone = |(key, token): &(&String, &Token)| token.template.is_some() && token.revoked_at.is_none() && !good.contains(*key);
        let gone: Vec<String> = self.tokens.iter().filter(gone).map(|(key, _)| key.clone()).collect();
        for key in gone {
            if let Some(token) = self.tokens.get(&key).cloned() {
                self.put_token(key, Token { revoked_at: Some(now), ..token });
            }
        }
        self.policing.template_revisions = templates.iter().map(|wire| (wire.id.clone(), wire.revision)).collect();
    }

    fn take_template(&mut self, wire: &TemplateWire, now: u64) -> Result<String, Reason> {
        let hex = wire.token_sha256.len() == 64 && wire.token_sha256.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        if !hex || !is_name(&wire.id) {
            return Err(Reason::new("template_invalid", "no SHA-256 of a token, or no id"));
        }
        if wire.expires_at.is_none() && !wire.approval {
            return Err(Reason::new("token_needs_end", "a template without an end needs approval"));
        }
        wire.settings.check_all()?;
        let key = wire.token_sha256.clone();
        let before = self.tokens.get(&key).cloned();
        if before.as_ref().is_some_and(|token| token.template.as_ref() != Some(&wire.id)) {
            return Err(Reason::new("template_invalid", "this token is not the template's"));
        }
        if before.is_none() && self.tokens.len() >= crate::director::enroll::TOKENS_MAX {
            return Err(Reason::new("too_many_tokens", "there are too many tokens here; wait until some expire"));
        }
        let used = before.as_ref().map_or(0, |token| token.used);
        // Enrollments with the template's former tokens count, too.
        let all: u64 = self.tokens.values().filter(|t| t.template.as_ref() == Some(&wire.id)).map(|t| t.used).sum();
        let created_at = before.as_ref().map_or(now, |token| token.created_at);
        // Without a person who approves, no token lives longer than one that is made here.
        let latest = if wire.approval { NEVER } else { created_at.saturating_add(TOKEN_TTL_MAX_S) };
        let token = Token {
            created_at,
            expires_at: wire.expires_at.map_or(NEVER, |at| at.min(latest)),
            uses_left: wire.uses.unwrap_or(AGENTS_MAX as u64).saturating_sub(all),
            used,
            approval: wire.approval.then_some(true),
            template: Some(wire.id.clone()),
            name: Some(clean(&wire.name, NAME_MAX)),
            settings: wire.custom.then(|| wire.settings.clone()),
            ..Default::default()
        };
        if before.as_ref() != Some(&token) {
            self.put_token(key.clone(), token);
        }
        Ok(key)
    }

    fn put_token(&mut self, key: String, token: Token) {
        self.put(Table::Tokens, key.clone(), &token);
        self.tokens.insert(key, token);
    }

    /// Whoever enrolled with a token that has a policy gets it as its own, unless it has one.
    pub fn apply_token(&mut self, id: &str, key: &str, token: &Token, now: u64) {
        let Some(settings) = &token.settings else { return };
        let scope = Scope::Node(id.to_string());
        if self.policing.rows.get(&scope.key()).is_some_and(|row| row.custom) {
            return;
        }
        let change = PolicyChange { set: settings.clone(), replace: true, custom: Some(true), ..Default::default() };
        let kind = if token.template.is_some() { "template" } else { self.role.token };
        let giver = format!("{kind} {}", token.name.as_deref().unwrap_or(token_id(key)));
        let by = self.by.replace(giver.clone());
        let set = self.set_policy(&scope, &change, now);
        self.by = by;
        // It is enrolled all the same, and has what it inherits.
        if let Err(reason) = set {
            self.event(now, id, "policy_refused", format!("the settings of {giver}: {reason}"), None);
        }
    }

    /// At a Director: how far each template is, for Fleet.
    pub fn template_states(&self) -> Vec<TemplateStateWire> {
        let state = |(id, revision): (&String, &u64)| {
            let ours: Vec<(&String, &Token)> = self.tokens.iter().filter(|(_, t)| t.template.as_ref() == Some(id)).collect();
            let waits = |key: &String| self.approvals.values().filter(|p| p.token == *key && p.state == "waiting").count() as u64;
            TemplateStateWire {
                id: id.clone(),
                revision: *revision,
                used: ours.iter().map(|(_, t)| t.used).sum(),
                pending: ours.iter().map(|(key, _)| waits(key)).sum(),
            }
        };
        self.policing.template_revisions.iter().map(state).collect()
    }
}
