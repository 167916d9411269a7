//! User Action: a person's authorization of one version on a node. It names version and file, expires, is consumed by the
//! roll-out that it starts, and can be taken back.

use miniserde::{Deserialize, Serialize};

use super::judge::Shelf;
use super::rows::GrantRow;
use crate::core::hex;
use crate::core::policy::{AUTHORIZATION_TTL_S, Candidate, Granted, Method, Mode};
use crate::core::reason::Reason;
use crate::director::records::{Agent, Order};
use crate::director::registry::Registry;
use crate::director::releases::Releases;
use crate::director::retry::LeftOut;
use crate::director::store::Table;
use crate::wire::site_policy::ConfirmationWire;

/// Shortest and longest life of an authorization, seconds: a roll-out's first agent; a change window planned a month ahead.
pub const TTL_S: (u64, u64) = (60, 31 * 86_400);

/// What a person asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorize {
    /// Whom; `None` = everybody whose method is `user_action`.
    pub nodes: Option<Vec<String>>,
    /// Exact, or `latest` for each one's platform.
    pub version: String,
    /// Life.
    pub ttl_s: Option<u64>,
}

/// What `authorize` did.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct AuthorizeView {
    /// One for each node.
    pub authorized: Vec<GrantRow>,
    /// Who got none, and why.
    pub left_out: Vec<LeftOut>,
    /// Authorizations taken back.
    pub revoked: Vec<String>,
}

/// What an authorization is given with.
pub(super) struct Terms<'a> {
    /// Exact, or `latest` for each one's platform.
    pub version: &'a str,
    /// Not used after.
    pub expires_at: u64,
    /// Fleet's confirmation that it follows from.
    pub confirmation: Option<&'a ConfirmationWire>,
}

/// An authorization that counts.
pub(super) struct Live {
    /// What it says.
    pub granted: Granted,
    /// Its roll-out is under way.
    pub used: bool,
}

impl Registry {
    /// Authorizes a version. Again for the same node: the newer word counts.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `nothing_authorized`.
    pub fn authorize(&mut self, ask: &Authorize, releases: &Releases, now: u64) -> Result<AuthorizeView, Reason> {
        let ids: Vec<String> = match &ask.nodes {
            Some(words) => words.iter().map(|w| self.named_agent(w)).collect::<Result<_, _>>()?,
            None => self.agents.values().filter(|a| a.removed_at.is_none()).map(|a| a.id.clone()).collect(),
        };
        let expires_at = now.saturating_add(ask.ttl_s.unwrap_or(AUTHORIZATION_TTL_S).clamp(TTL_S.0, TTL_S.1));
        let view = self.authorize_each(ids, &Terms { version: &ask.version, expires_at, confirmation: None }, releases, now);
        if view.authorized.is_empty() {
            let why = view.left_out.first().map_or("there are no nodes".to_string(), |l| format!("{}: {} ({})", l.agent, l.detail, l.code));
            return Err(Reason::new("nothing_authorized", why));
        }
        Ok(view)
    }

    /// The same for each of these, whoever asks: a person here, or one at Fleet.
    pub(super) fn authorize_each(&mut self, ids: Vec<String>, terms: &Terms, releases: &Releases, now: u64) -> AuthorizeView {
        let mut view = AuthorizeView { ..Default::default() };
        let product = self.product().to_string();
        let mut shelf = Shelf::new(&product, releases);
        for id in ids {
            let fits = |agent: &Agent, shelf: &mut Shelf| {
                self.authorizable(agent, terms, shelf.of(&agent.os, &agent.architecture)).map(|c| (c.version.to_string(), c.sha256))
            };
            match self.known(&id).and_then(|agent| fits(agent, &mut shelf)) {
                Ok((version, sha256)) => view.authorized.push(GrantRow {
                    node: id,
                    version,
                    sha256: hex::encode(&sha256),
                    given_at: now,
                    expires_at: terms.expires_at,
                    by: self.by.clone().unwrap_or_default(),
                    rollout: None,
                    confirmation: terms.confirmation.map(|c| c.id.clone()),
                }),
                Err(reason) => view.left_out.push(LeftOut { agent: id, code: reason.code.to_string(), detail: reason.detail.clone() }),
            }
        }
        for row in view.authorized.clone() {
            let until = crate::core::time::format(row.expires_at);
            let of = Order { version: row.version.clone(), ..Default::default() };
            self.event(now, &row.node, "authorization_given", format!("file {}, until {until}", &row.sha256[..8]), Some(&of));
            self.keep_grant(row, now);
        }
        view
    }

    /// Takes authorizations back; what was ordered by them and has not switched is withdrawn.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `nothing_authorized`.
    pub fn revoke_grants(&mut self, nodes: Option<&[String]>, now: u64) -> Result<AuthorizeView, Reason> {
        let ids: Vec<String> = match nodes {
            Some(words) => words.iter().map(|w| self.named_agent(w)).collect::<Result<_, _>>()?,
            None => self.policing.grants.keys().cloned().collect(),
        };
        let ids: Vec<String> = ids.into_iter().filter(|id| self.policing.grants.contains_key(id)).collect();
        if ids.is_empty() {
            return Err(Reason::new("nothing_authorized", "there is no authorization to take back; `policy show` lists them"));
        }
        for id in &ids {
            self.drop_grant(id, "authorization_revoked", "taken back", now);
        }
        Ok(AuthorizeView { revoked: ids, ..Default::default() })
    }

    fn authorizable<'c>(&self, agent: &Agent, terms: &Terms, candidates: &'c [Candidate]) -> Result<&'c Candidate, Reason> {
        let version = terms.version;
        let settings = self.effective(&agent.id);
        if settings.mode.value == Mode::Manual {
            let detail = "its mode is manual: order it with `assign`, or set --mode auto --method user_action";
            return Err(Reason::new("policy_manual", detail));
        }
        if settings.method.value != Method::UserAction {
            let detail = format!("its method is {}, which needs no authorization", settings.method.value.word());
            return Err(Reason::new("not_user_action", detail));
        }
        let good = candidates.iter().filter(|c| c.withdrawn.is_none());
        let found = match version {
            "latest" => good.filter(|c| !c.version.is_pre_release()).max_by(|a, b| a.version.cmp(&b.version)),
            exact => candidates.iter().find(|c| c.version.to_string() == exact),
        };
        match found {
            None => {
                let detail = format!("the mirror has no {version} for {}/{}", agent.os, agent.architecture);
                Err(Reason::new("version_unknown", detail))
            }
            Some(Candidate { withdrawn: Some(why), .. }) => Err(Reason::new("withdrawn", format!("{version} was withdrawn: {why}"))),
            Some(c) if hex::encode(&c.sha256) == agent.running_sha256 => {
                Err(Reason::new("runs_it", format!("it runs {} already", c.version)))
            }
            Some(c) if terms.confirmation.is_some_and(|wire| !wire.files.contains(&hex::encode(&c.sha256))) => {
                let detail = format!("the file of {version} here is not the one that was confirmed: Fleet's mirror and this one differ");
                Err(Reason::new("file_differs", detail))
            }
            Some(c) => Ok(c),
        }
    }

    /// A node's authorization, if it counts: not used and not expired, or used by the roll-out that is under way.
    pub(super) fn live_grant(&self, node: &str, newest: Option<&Order>, now: u64) -> Option<Live> {
        let row = self.policing.grants.get(node)?;
        let sha256 = hex::decode::<32>(&row.sha256)?;
        let version = row.version.parse().ok()?;
        let used = row.rollout.is_some();
        let under_way = newest.is_some_and(|o| Some(o.rollout) == row.rollout && o.end().is_none());
        let counts = if used { under_way } else { row.expires_at > now };
        let expires_at = if used { u64::MAX } else { row.expires_at };
        counts.then_some(Live { granted: Granted { version, sha256, expires_at }, used })
    }

    /// The roll-out consumes these nodes' authorizations.
    pub(super) fn use_grants(&mut self, nodes: &[String], rollout: u64, now: u64) {
        for node in nodes {
            let Some(row) = self.policing.grants.get(node).filter(|row| row.rollout.is_none()).cloned() else { continue };
            let of = Order { version: row.version.clone(), ..Default::default() };
            self.event(now, node, "authorization_used", format!("roll-out {rollout}"), Some(&of));
            if let Some(id) = &row.confirmation {
                self.settle(node, id, "ordered", "under_way", &format!("roll-out {rollout} of its Director"), now);
            }
            self.keep_grant(GrantRow { rollout: Some(rollout), ..row }, now);
        }
    }

    /// Forgets what has expired unused, and what was used by a roll-out that is over for its node.
    pub(super) fn expire_grants(&mut self, now: u64) {
        let over = |row: &GrantRow| match row.rollout {
            None => row.expires_at <= now,
            Some(id) => self.orders.get(&(id, row.node.clone())).is_none_or(|o| o.end().is_some()),
        };
        let gone: Vec<(String, bool)> =
            self.policing.grants.values().filter(|row| over(row)).map(|row| (row.node.clone(), row.rollout.is_none())).collect();
        for (node, unused) in gone {
            match unused {
                true => self.drop_grant(&node, "authorization_expired", "nobody acted on it in time", now),
                false => {
                    if let Some(row) = self.policing.grants.remove(&node) {
                        let order = row.rollout.and_then(|id| self.orders.get(&(id, node.clone()))).cloned();
                        self.settle_order(&row, order.as_ref(), now);
                    }
                    self.touch(&node);
                    self.delete(Table::Grants, node);
                }
            }
        }
    }

    fn keep_grant(&mut self, row: GrantRow, now: u64) {
        let before = self.policing.grants.get(&row.node).and_then(|g| g.confirmation.clone());
        if let Some(id) = before.filter(|id| row.confirmation.as_ref() != Some(id)) {
            self.settle(&row.node, &id, "replaced", "authorization_replaced", "a newer authorization took its place", now);
        }
        self.touch(&row.node);
        self.put(Table::Grants, row.node.clone(), &row);
        self.policing.mark(&row.node);
        self.policing.grants.insert(row.node.clone(), row);
    }

    pub(super) fn drop_grant(&mut self, node: &str, code: &str, why: &str, now: u64) {
        let Some(row) = self.policing.grants.remove(node) else { return };
        if let Some(id) = &row.confirmation {
            let state = if code == "authorization_expired" { "expired" } else { "revoked" };
            self.settle(node, id, state, code, why, now);
        }
        self.touch(node);
        let of = Order { version: row.version, ..Default::default() };
        self.event(now, node, code, why, Some(&of));
        self.delete(Table::Grants, node.to_string());
        self.policing.mark(node);
    }
}
