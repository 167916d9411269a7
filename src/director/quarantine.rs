//! Files that are not ordered, by hash: what halted a roll-out is kept from its agents, and what a person rejects from
//! everybody or from one agent. Each entry has a scope, a reason, perhaps an end, and a command that lifts it.
//!
//! A person's word about one agent counts more than one about all, and both more than a halt. `assign --retry` and
//! `retry` pass a halt's quarantine, never a person's: that one is lifted by `allow`.
//!
//! A file that runs already, confirmed, is reported and left alone: going back is a decision of its own (`assign`). A
//! trial of it is refused its acknowledgement: making permanent what was just rejected cannot be meant.

use miniserde::{Deserialize, Serialize};

use super::cancel::{Cancel, Cancelled};
use super::records::{DETAIL_MAX, Quarantine, clean};
use super::registry::Registry;
use super::releases::Releases;
use super::store::Table;
use crate::core::hex;
use crate::core::reason::Reason;

/// Most entries: far more than a site ever rejects; beyond, a script went wrong.
pub const QUARANTINE_MAX: usize = 10_000;
/// Shortest beginning of a hash that names it: eight digits, as people are used to from other tools.
pub const PREFIX_MIN: usize = 8;

/// The key of an entry.
pub fn key(sha256: &str, agent: &str, rollout: u64) -> String {
    match rollout {
        0 => format!("{sha256}/{agent}"),
        id => format!("{sha256}/#{id}"),
    }
}

/// What is to be rejected.
#[derive(Clone, Debug, Default)]
pub struct Reject {
    /// The file.
    pub sha256: String,
    /// Its version, for people.
    pub version: String,
    /// Whom it is kept from; `None` = everybody.
    pub agents: Option<Vec<String>>,
    /// Lifted by itself after so many seconds.
    pub for_s: Option<u64>,
    /// Why.
    pub why: String,
}

/// What `reject` did.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct RejectView {
    /// The file.
    pub sha256: String,
    /// Its version.
    pub version: String,
    /// It was rejected before, in the same way: nothing is new.
    pub already: bool,
    /// Orders withdrawn: the agents drop what they have staged.
    pub withdrawn: u64,
    /// On trial: refused the acknowledgement, they go back.
    pub going_back: Vec<String>,
    /// They run it, confirmed; left alone.
    pub running: Vec<String>,
}

/// What `allow` did.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct AllowView {
    /// The file.
    pub sha256: String,
    /// Its version, if anything is known of it.
    pub version: String,
    /// Entries lifted; 0 = it was not rejected.
    pub lifted: u64,
    /// Agents that reject it themselves, from a trial of their own: only a retry passes that.
    pub own: Vec<String>,
}

impl Registry {
    /// Why a file is not ordered to an agent. `retry`: a halt does not count.
    pub fn quarantined(&self, sha256: &str, agent: &str, retry: bool, now: u64) -> Option<Reason> {
        if self.quarantine.is_empty() {
            return None;
        }
        let entry = |agent: &str| self.quarantine.get(&key(sha256, agent, 0)).filter(|q| q.expires_at.is_none_or(|at| at > now));
        if let Some(by_person) = entry(agent).or_else(|| entry("")) {
            let whom = format!("for {} {}", if by_person.agent.is_empty() { "every" } else { "this" }, self.role.node);
            let until = by_person.expires_at.map_or(String::new(), |at| format!(" until {}", super::table::utc(at)));
            let detail = format!(
                "rejected {whom}{until} by {}: {}; `{} allow {}` lifts it",
                by_person.by,
                by_person.detail,
                self.role.program,
                short(sha256)
            );
            return (!by_person.allowed).then(|| Reason::new("quarantined", detail));
        }
        if retry {
            return None;
        }
        let concerned = |q: &&Quarantine| q.rollout > 0 && self.orders.contains_key(&(q.rollout, agent.to_string()));
        let halted = self.entries(sha256).find(concerned)?;
        let detail = format!(
            "this file halted roll-out {}: {}; `{} allow {}` or `retry --{} {agent}` releases it",
            halted.rollout,
            halted.detail,
            self.role.program,
            short(sha256),
            self.role.node
        );
        Some(Reason::new("quarantined", detail))
    }

    /// Why a file is not handed to a new device: rejected for every agent, or the end of any roll-out that was halted.
    pub fn kept_from_new(&self, sha256: &str, now: u64) -> Option<Reason> {
        if let Some(reason) = self.quarantined(sha256, "", false, now) {
            return Some(reason);
        }
        let person = self.quarantine.get(&key(sha256, "", 0)).is_some_and(|q| q.allowed && q.expires_at.is_none_or(|at| at > now));
        let halted = self.entries(sha256).find(|q| q.rollout > 0 && !person)?;
        let detail = format!("this file halted roll-out {}; `{} allow {}` releases it", halted.rollout, self.role.program, short(sha256));
        Some(Reason::new("quarantined", detail))
    }

    /// Every entry of a file.
    fn entries<'a>(&'a self, sha256: &str) -> impl Iterator<Item = &'a Quarantine> + use<'a> {
        let from = format!("{sha256}/");
        let end = format!("{sha256}0");
        self.quarantine.range(from..end).map(|(_, q)| q)
    }

    /// Whether a person lets this very agent have the file.
    pub(super) fn is_allowed(&self, sha256: &str, agent: &str, now: u64) -> bool {
        let entry = self.quarantine.get(&key(sha256, agent, 0));
        entry.is_some_and(|q| q.allowed && !q.agent.is_empty() && q.expires_at.is_none_or(|at| at > now))
    }

    /// When a person's rejection of a file ends by itself.
    pub(super) fn rejection_end(&self, sha256: &str, agent: &str) -> Option<u64> {
        let entry = self.quarantine.get(&key(sha256, agent, 0)).or_else(|| self.quarantine.get(&key(sha256, "", 0)));
        entry.filter(|q| !q.allowed).and_then(|q| q.expires_at)
    }

    fn keep_quarantine(&mut self, entry: Quarantine) {
        self.policing.mark_all();
        let key = key(&entry.sha256, &entry.agent, entry.rollout);
        self.put(Table::Quarantine, key.clone(), &entry);
        self.quarantine.insert(key, entry);
    }

    fn lift(&mut self, key: &str) {
        self.policing.mark_all();
        self.quarantine.remove(key);
        self.delete(Table::Quarantine, key.to_string());
    }

    /// A roll-out was halted: the files that failed in it are kept from its agents.
    pub(super) fn quarantine_failed(&mut self, rollout: u64, now: u64) {
        let rows = self.orders.range((rollout, String::new())..(rollout + 1, String::new())).map(|(_, o)| o);
        let failed = rows.filter(|o| o.end().is_some_and(|e| e.is_failure()) && !o.sha256.is_empty());
        let mut files: Vec<(String, String)> = failed.map(|o| (o.sha256.clone(), o.version.clone())).collect();
        files.sort();
        files.dedup();
        let why = self.rollouts.get(&rollout).map_or(String::new(), |r| r.detail.clone());
        for (sha256, version) in files {
            let detail = format!("{version} {} for the {} of roll-out {rollout}: {why}", short(&sha256), self.role.nodes);
            self.event(now, "", "quarantined", detail, None);
            self.keep_quarantine(Quarantine { sha256, version, rollout, since: now, detail: why.clone(), ..Default::default() });
        }
    }

    /// A roll-out's quarantine is lifted by whoever tries it again as a whole.
    pub(super) fn release_rollout(&mut self, rollout: u64, now: u64) {
        let keys: Vec<String> = self.quarantine.iter().filter(|(_, q)| q.rollout == rollout).map(|(k, _)| k.clone()).collect();
        for key in keys {
            let sha256 = key.split('/').next().unwrap_or_default().to_string();
            self.lift(&key);
            self.event(now, "", "hash_allowed", format!("{} for the {} of roll-out {rollout}", short(&sha256), self.role.nodes), None);
        }
    }

    /// Entries whose time is over.
    pub fn prune_quarantine(&mut self, now: u64) {
        let over = |q: &Quarantine| q.expires_at.is_some_and(|at| at <= now);
        let keys: Vec<String> = self.quarantine.iter().filter(|(_, q)| over(q)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            let sha256 = key.split('/').next().unwrap_or_default().to_string();
            self.lift(&key);
            self.event(now, "", "hash_allowed", format!("{}: the time of its rejection is over", short(&sha256)), None);
        }
    }

    /// Keeps a file from everybody or from some agents; withdraws its orders. Returns the agents to wake, too.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `too_many_rejections`.
    pub fn reject(&mut self, ask: &Reject, now: u64) -> Result<(RejectView, Vec<String>), Reason> {
        let scopes: Vec<String> = match &ask.agents {
            Some(ids) => ids.iter().map(|id| self.known(id).map(|a| a.id.clone())).collect::<Result<_, _>>()?,
            None => vec![String::new()],
        };
        if self.quarantine.len() + scopes.len() > QUARANTINE_MAX {
            let detail = format!("{QUARANTINE_MAX} files are rejected already; lift some with `{} allow`", self.role.program);
            return Err(Reason::new("too_many_rejections", detail));
        }
        let by = self.by.clone().unwrap_or_default();
        let mut view = RejectView { sha256: ask.sha256.clone(), version: ask.version.clone(), already: true, ..Default::default() };
        for agent in &scopes {
            let there = self.quarantine.get(&key(&ask.sha256, agent, 0));
            let same = there.is_some_and(|q| !q.allowed && q.expires_at.is_none() && ask.for_s.is_none());
            if same {
                continue;
            }
            view.already = false;
            let detail = clean(&ask.why, DETAIL_MAX);
            self.event(now, agent, "hash_rejected", format!("{} {}: {detail}", ask.version, short(&ask.sha256)), None);
            self.keep_quarantine(Quarantine {
                sha256: ask.sha256.clone(),
                version: ask.version.clone(),
                agent: agent.clone(),
                rollout: 0,
                allowed: false,
                since: now,
                expires_at: ask.for_s.map(|s| now.saturating_add(s)),
                by: by.clone(),
                detail,
            });
        }
        let wake = self.withdraw_file(ask, &mut view, now);
        Ok((view, wake))
    }

    /// Takes back what was ordered of a rejected file.
    fn withdraw_file(&mut self, ask: &Reject, view: &mut RejectView, now: u64) -> Vec<String> {
        let concerned = |id: &String| ask.agents.as_ref().is_none_or(|ids| ids.contains(id));
        let rows: Vec<(u64, String)> =
            self.orders.iter().filter(|((_, a), o)| o.sha256 == ask.sha256 && concerned(a)).map(|(k, _)| k.clone()).collect();
        let why = format!("the file was rejected: {}", clean(&ask.why, DETAIL_MAX));
        let mut wake = Vec::new();
        for (rollout, agent) in rows {
            if self.quarantined(&ask.sha256, &agent, true, now).is_none() {
                continue;
            }
            let what = self.cancel_row(rollout, &agent, &Cancel { roll_back: true, ..Cancel::new(&why) }, now);
            match what {
                Cancelled::Ended(_) => view.withdrawn += 1,
                Cancelled::Refused => view.going_back.push(agent.clone()),
                Cancelled::Nothing | Cancelled::Trial => {}
            }
            if what.told() {
                wake.push(agent);
            }
        }
        let runs = |a: &&super::records::Agent| a.removed_at.is_none() && a.running_sha256 == ask.sha256 && a.running_as != "trial";
        view.running = self.agents.values().filter(runs).map(|a| a.id.clone()).filter(concerned).collect();
        wake
    }

    /// Lifts what keeps a file from everybody, or from these agents.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`.
    pub fn allow(&mut self, sha256: &str, agents: Option<&[String]>, why: &str, now: u64) -> Result<AllowView, Reason> {
        let version = self.entries(sha256).map(|q| q.version.clone()).next().unwrap_or_default();
        let mut view = AllowView { sha256: sha256.to_string(), version: version.clone(), ..Default::default() };
        for agent in agents.unwrap_or_default() {
            self.known(agent)?;
        }
        let whom: Vec<String> = match agents {
            None => {
                let keys: Vec<String> = self.entries(sha256).map(|q| key(&q.sha256, &q.agent, q.rollout)).collect();
                view.lifted = keys.len() as u64;
                keys.iter().for_each(|key| self.lift(key));
                vec![String::new()]
            }
            Some(ids) => ids.to_vec(),
        };
        for agent in agents.unwrap_or_default() {
            let own = key(sha256, agent, 0);
            if self.quarantine.get(&own).is_some_and(|q| !q.allowed) {
                self.lift(&own);
                view.lifted += 1;
            }
            if self.quarantined(sha256, agent, false, now).is_some() {
                let by = self.by.clone().unwrap_or_default();
                let detail = clean(why, DETAIL_MAX);
                let (sha256, version, agent) = (sha256.to_string(), version.clone(), agent.clone());
                self.keep_quarantine(Quarantine { sha256, version, agent, allowed: true, since: now, by, detail, ..Default::default() });
                view.lifted += 1;
            }
        }
        if view.lifted > 0 {
            for agent in whom {
                let detail = format!("{version} {}: {}", short(sha256), clean(why, DETAIL_MAX));
                self.event(now, &agent, "hash_allowed", detail, None);
            }
        }
        let concerned = |id: &String| agents.is_none_or(|ids| ids.contains(id));
        let rejects = |a: &super::records::Agent| a.rejects.iter().flatten().any(|r| r.sha256 == sha256);
        view.own = self.agents.values().filter(|a| a.removed_at.is_none() && rejects(a)).map(|a| a.id.clone()).filter(concerned).collect();
        Ok(view)
    }

    /// The file that a hash or the beginning of one means, and its version.
    ///
    /// # Errors
    /// `hash_invalid`, `hash_unknown`, `hash_ambiguous`.
    pub fn file(&self, text: &str, releases: &Releases) -> Result<(String, String), Reason> {
        let text = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        if text.len() < PREFIX_MIN || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            let detail = format!("'{}' is no SHA-256: {PREFIX_MIN} to 64 hexadecimal digits", clean(&text, 80));
            return Err(Reason::new("hash_invalid", detail));
        }
        let released = releases.artifacts.iter().map(|a| (hex::encode(&a.sha256), a.path.version.to_string()));
        let ordered = self.orders.values().map(|o| (o.sha256.clone(), o.version.clone()));
        let running = self.agents.values().map(|a| (a.running_sha256.clone(), a.version.clone()));
        let listed = self.quarantine.values().map(|q| (q.sha256.clone(), q.version.clone()));
        let mut found: Vec<(String, String)> =
            released.chain(ordered).chain(listed).chain(running).filter(|f| f.0.starts_with(&text)).collect();
        found.sort();
        found.dedup_by(|a, b| a.0 == b.0);
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] if text.len() == 64 => Ok((text, String::new())),
            [] => Err(Reason::new("hash_unknown", format!("no file whose hash begins with {text} is known here; give all 64 digits"))),
            more => {
                Err(Reason::new("hash_ambiguous", format!("{} files have a hash that begins with {text}; give more digits", more.len())))
            }
        }
    }
}

/// The beginning of a hash, for people.
pub fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
