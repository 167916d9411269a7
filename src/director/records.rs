//! What the store holds. Additive only: a new field is an `Option`, so that a Director one version back still reads it.

use miniserde::{Deserialize, Serialize};

use crate::core::rollout::{End, ROLLOUT_LIFE_S, Step, Terms};
use crate::wire::agent_api::{OrderWire, REJECTS_MAX, RejectWire, ReportWire};
use crate::wire::config::PINS_MAX;
use crate::wire::settings::SettingsWire;

/// An enrolled agent and what it last said. Every text came over the network and is cleaned ([`clean`]) before it gets here.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Agent {
    /// Identity.
    pub id: String,
    /// Host name, for people.
    pub hostname: String,
    /// `linux`, ...
    pub os: String,
    /// `amd64`, ...
    pub architecture: String,
    /// Seconds since 1970.
    pub enrolled_at: u64,
    /// Removed: the credential is refused since then.
    pub removed_at: Option<u64>,
    /// Last report that reached the disk; the memory knows better.
    pub last_contact: u64,
    /// Version of the running file.
    pub version: String,
    /// The agent's own word on its pending version.
    pub scheduled_version: Option<String>,
    /// `a`, `b`, `factory`.
    pub running: String,
    /// SHA-256 of the running file.
    pub running_sha256: String,
    /// `confirmed`, `trial`, `factory`, `manual`.
    pub running_as: String,
    /// Version in the other slot.
    pub fallback_version: Option<String>,
    /// Issuer of the last order it accepted.
    pub issuer: String,
    /// Generation of the last order it accepted.
    pub generation: u64,
    /// Highest generation this store issued to it.
    pub issued: u64,
    /// What it does.
    pub step: String,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
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
    /// The last result taken; the same id again changes nothing.
    pub result_id: String,
    /// The results taken before that, oldest first.
    pub result_ids: Option<Vec<String>>,
    /// The newest files that it rejects.
    pub rejects: Option<Vec<RejectWire>>,
    /// Public key of its device, hex; absent = enrolled without one.
    pub device_key: Option<String>,
    /// SHA-256 of the token that it enrolled with: the same again is a lost answer, and spends nothing.
    pub enrolled_with: Option<String>,
    /// Its device's serial number, as it said.
    pub serial: Option<String>,
    /// Which of the devices with this identity speaks ([`crate::core::identity`]).
    pub instance: Option<String>,
    /// Instances before it.
    pub former: Option<Vec<String>>,
    /// Instances that are refused.
    pub refused: Option<Vec<String>>,
    /// The second device with this identity, as it was seen last.
    pub second: Option<Second>,
    /// Pins that work for it, by its own word.
    pub pins: Option<Vec<String>>,
    /// Its credential is signed by a former CA.
    pub outdated: Option<bool>,
    /// What people called the token that it enrolled with.
    pub label: Option<String>,
}

/// A device that shows the identity of another one.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Second {
    /// Its host name, by its own word.
    pub hostname: String,
    /// Its address.
    pub peer: String,
    /// When it was seen last, seconds since 1970.
    pub at: u64,
}

impl Agent {
    /// Whether the result of this id was taken before.
    pub fn has_taken(&self, id: &str) -> bool {
        !id.is_empty() && (self.result_id == id || self.result_ids.iter().flatten().any(|taken| taken == id))
    }

    /// Takes over what a report says. Returns whether anything worth keeping on the disk changed.
    pub fn hear(&mut self, report: &ReportWire, now: u64) -> bool {
        let before = self.clone();
        let text = |t: &str| clean(t, NAME_MAX);
        self.hostname = text(&report.hostname);
        self.os = text(&report.os);
        self.architecture = text(&report.architecture);
        self.version = text(&report.version);
        self.scheduled_version = report.scheduled_version.as_deref().map(text);
        self.running = text(&report.running);
        self.running_sha256 = text(&report.running_sha256);
        self.running_as = text(&report.running_as);
        self.fallback_version = report.fallback_version.as_deref().map(text);
        self.issuer = text(&report.issuer);
        self.generation = report.generation;
        self.step = text(&report.step);
        self.code = text(&report.code);
        self.detail = clean(&report.detail, DETAIL_MAX);
        self.root_version = report.root_version;
        self.timestamp_version = report.timestamp_version;
        self.snapshot_version = report.snapshot_version;
        self.targets_version = report.targets_version;
        self.clock = text(&report.clock);
        self.rejected = report.rejected;
        self.pins = report.pins.as_ref().map(|pins| pins.iter().take(PINS_MAX).map(|pin| text(pin)).collect());
        self.rejects = report.rejects.as_ref().map(|list| list.iter().take(REJECTS_MAX).map(reject).collect());
        // The detail of a download changes with each report; it is not worth a write.
        let detail = std::mem::replace(&mut self.detail, before.detail.clone());
        let changed = *self != before;
        self.detail = detail;
        if changed || now.saturating_sub(before.last_contact) >= CONTACT_KEPT_S {
            self.last_contact = now;
            return true;
        }
        false
    }
}

/// Longest kept name, version or hash from outside, bytes.
pub const NAME_MAX: usize = 128;
/// Longest kept sentence from outside, bytes.
pub const DETAIL_MAX: usize = crate::core::reason::DETAIL_MAX;
/// How old the contact time on the disk may get: it only serves after a restart.
pub const CONTACT_KEPT_S: u64 = 600;

/// Text from a peer, safe to store and to print: no control characters, no invisible direction marks, at most `max` bytes.
pub fn clean(text: &str, max: usize) -> String {
    if text.len() <= max && text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return text.to_string();
    }
    let unsafe_mark = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(if c.is_control() || unsafe_mark(c) { ' ' } else { c });
    }
    out
}

fn reject(wire: &RejectWire) -> RejectWire {
    let text = |t: &str| clean(t, NAME_MAX);
    RejectWire {
        sha256: text(&wire.sha256),
        version: text(&wire.version),
        verdict: text(&wire.verdict),
        code: text(&wire.code),
        count: wire.count,
        retry_at: wire.retry_at,
    }
}

/// An enrollment token; its key in the table is the SHA-256 of its text, which nobody keeps.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Token {
    /// Seconds since 1970.
    pub created_at: u64,
    /// Not valid after.
    pub expires_at: u64,
    /// Enrollments left.
    pub uses_left: u64,
    /// Enrollments made.
    pub used: u64,
    /// Serial numbers that it is bound to; each enrolls once.
    pub serials: Option<Vec<String>>,
    /// Those of them that did.
    pub serials_used: Option<Vec<String>>,
    /// A person took it back.
    pub revoked_at: Option<u64>,
    /// A person approves each device.
    pub approval: Option<bool>,
    /// Fleet's template that it belongs to.
    pub template: Option<String>,
    /// What a person calls it, or the template.
    pub name: Option<String>,
    /// The policy that whoever enrolls with it gets as its own.
    pub settings: Option<SettingsWire>,
}

/// A device that waits for a person; its key in the table is its public key.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Pending {
    /// SHA-256 of the token that it asks with.
    pub token: String,
    /// Host name, by its own word.
    pub hostname: String,
    /// `linux`, ...
    pub os: String,
    /// `amd64`, ...
    pub architecture: String,
    /// Version of the running file.
    pub version: String,
    /// Serial number, by its own word.
    pub serial: Option<String>,
    /// Its address.
    pub peer: String,
    /// When it asked for the first time.
    pub first_at: u64,
    /// When it asked last.
    pub last_at: u64,
    /// `waiting`, `approved`, `denied`.
    pub state: String,
    /// When a person decided.
    pub decided_at: Option<u64>,
    /// Why, in that person's words.
    pub reason: Option<String>,
    /// The activity knows that nobody decided in time.
    pub expiry_told: Option<bool>,
}

/// One agent's part of a roll-out: waiting, ordered, or at an end.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Order {
    /// Its roll-out.
    pub rollout: u64,
    /// Who.
    pub agent: String,
    /// Generation of the update order; 0 = not issued yet.
    pub generation: u64,
    /// Generation of the cancel order that replaced it; 0 = none.
    pub cancel_generation: u64,
    /// Path in the release tree.
    pub target: String,
    /// Version.
    pub version: String,
    /// SHA-256.
    pub sha256: String,
    /// Bytes.
    pub length: u64,
    /// When the update order was issued.
    pub issued_at: u64,
    /// A word of [`Step`], of [`End`], or `waiting_turn`.
    pub state: String,
    /// Since when.
    pub since: u64,
    /// Why it waits, what it does or how it ended; stable code.
    pub code: String,
    /// The same for people.
    pub detail: String,
    /// When the state ends by itself; absent = when its cause goes away, or never.
    pub until: Option<u64>,
    /// Last of 25, 50, 75 that the activity has seen.
    pub quarter: u64,
    /// Version before.
    pub from_version: String,
    /// Result: milliseconds without a running version.
    pub gap_ms: u64,
    /// Result: bytes fetched.
    pub bytes: u64,
    /// Result: seconds from acceptance to the end.
    pub seconds: u64,
    /// The version is gone from the device and is ordered again then ([`super::repair`]).
    pub repair_at: Option<u64>,
    /// When it was ordered again last.
    pub repaired_at: Option<u64>,
    /// A person does not want this trial to win: it is refused its acknowledgement and goes back.
    pub refuse_trial: Option<bool>,
    /// The cancel order says that the agent keeps what it has fetched.
    pub keep_staged: Option<bool>,
    /// The person who ended it: a policy does not order it again then.
    pub cancelled_by: Option<String>,
    /// Which key and role the file is signed with, for people.
    pub signed_by: Option<String>,
}

/// State of an order row that has not been issued.
pub const WAITING_TURN: &str = "waiting_turn";

impl Order {
    /// What the agent does, when it does something.
    pub fn step(&self) -> Option<Step> {
        Step::ALL.into_iter().find(|s| s.word() == self.state)
    }

    /// How it ended, when it did.
    pub fn end(&self) -> Option<End> {
        End::ALL.into_iter().find(|e| e.word() == self.state)
    }

    /// The generation in force: the cancel order's, once there is one.
    pub fn in_force(&self) -> u64 {
        self.generation.max(self.cancel_generation)
    }

    /// The order as the agent gets it.
    pub fn wire(&self, issuer: &str, rollout: &Rollout, now: u64) -> OrderWire {
        let cancelled = self.cancel_generation > 0;
        OrderWire {
            issuer: issuer.to_string(),
            generation: self.in_force(),
            kind: if cancelled { "cancel" } else { "update" }.to_string(),
            target: self.target.clone(),
            version: self.version.clone(),
            sha256: self.sha256.clone(),
            length: self.length,
            issued_at: self.issued_at,
            switch_in_s: rollout.switch_at.map_or(0, |at| at.saturating_sub(now)),
            contact_deadline_s: rollout.contact_deadline_s,
            unattended: rollout.unattended,
            trial_max_s: rollout.trial_max_s,
            end_probation: rollout.end_probation,
            retry: rollout.retry,
            keep_staged: self.keep_staged.filter(|_| cancelled),
        }
    }
}

/// One assignment of a version to a group.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Rollout {
    /// Number, from 1.
    pub id: u64,
    /// Product.
    pub product: String,
    /// Version.
    pub version: String,
    /// When it was made.
    pub created_at: u64,
    /// `running`, `halted`, `done`, `cancelled`.
    pub state: String,
    /// Why; stable code.
    pub code: String,
    /// Why; for people.
    pub detail: String,
    /// When it left `running`.
    pub ended_at: Option<u64>,
    /// Agents in it.
    pub group: u64,
    /// How many at once, resolved.
    pub max_in_flight: u64,
    /// More failures halt it.
    pub max_failures: u64,
    /// Contact deadline of a trial.
    pub contact_deadline_s: u64,
    /// May switch without contact.
    pub unattended: bool,
    /// Longest unattended trial.
    pub trial_max_s: u64,
    /// May overwrite the other slot in probation.
    pub end_probation: bool,
    /// Try a rejected hash again.
    pub retry: bool,
    /// No switch before; seconds since 1970.
    pub switch_at: Option<u64>,
    /// Whoever has not been ordered by then is not ordered any more.
    pub expires_at: Option<u64>,
    /// Its rows have been forgotten but those in force; it is not shown any more.
    pub pruned: Option<bool>,
    /// Made by policy, not by a person.
    pub policy: Option<bool>,
    /// End of its window: what has not switched by then is withdrawn.
    pub closes_at: Option<u64>,
}

/// A file that is not ordered: for everybody, for one agent, or for the agents of a roll-out that it halted.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Quarantine {
    /// The file.
    pub sha256: String,
    /// Its version, for people.
    pub version: String,
    /// Only this agent; empty = see `rollout`.
    pub agent: String,
    /// Only the agents of this roll-out; 0 = every agent, if `agent` is empty.
    pub rollout: u64,
    /// For an agent: it may have the file although everybody else may not.
    pub allowed: bool,
    /// Seconds since 1970.
    pub since: u64,
    /// Lifted by itself then.
    pub expires_at: Option<u64>,
    /// Who said so; empty = the Director itself.
    pub by: String,
    /// Why.
    pub detail: String,
}

impl Rollout {
    /// When whoever has not been ordered is left out.
    pub fn expires_at(&self) -> u64 {
        self.expires_at.unwrap_or(self.created_at.saturating_add(ROLLOUT_LIFE_S))
    }

    /// The times that an order's deadlines follow from.
    pub fn terms(&self, now: u64) -> Terms {
        Terms {
            switch_in_s: self.switch_at.map_or(0, |at| at.saturating_sub(now)),
            contact_deadline_s: self.contact_deadline_s,
            unattended: self.unattended,
            trial_max_s: self.trial_max_s,
        }
    }
}

/// One line of the activity stream; the codes are in [`super::activity`].
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// Rises by one with each event of this store.
    pub seq: u64,
    /// Seconds since 1970, the Director's clock.
    pub time: u64,
    /// Which agent; empty = the site.
    pub agent: String,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub detail: String,
    /// Version concerned, or empty.
    pub version: String,
    /// Order's generation, or 0.
    pub generation: u64,
    /// Who caused it, when a person did: `uid 1000`.
    pub by: Option<String>,
    /// A step of this Director's own update, by the specification's name.
    pub step: Option<String>,
    /// When the step began, seconds since 1970; `time` is its end.
    pub began: Option<u64>,
    /// `ok`, `failed`, `superseded`.
    pub result: Option<String>,
    /// Code of the reason, when it failed.
    pub reason: Option<String>,
    /// The update that it belongs to ([`crate::core::relay::update_id`]).
    pub update: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_harmless() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{202e}d", 64), "a [2Jb c d");
        assert_eq!(clean("ééé", 5), "éé");
    }

    #[test]
    fn every_state_word_is_read_back() {
        for step in Step::ALL {
            assert_eq!(Order { state: step.word().into(), ..Default::default() }.step(), Some(step));
        }
        for end in End::ALL {
            assert_eq!(Order { state: end.word().into(), ..Default::default() }.end(), Some(end));
        }
    }
}
