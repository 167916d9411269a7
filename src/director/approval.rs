//! Devices that wait for a person: whoever enrolls with a token made with `--approval` gets no identity before an operator
//! has said yes. The device asks again by itself, with the same key and token, and holds no credential until then.
//!
//! ```text
//!  asks --> waiting --approve--> approved --asks again--> an agent, one use of the token spent
//!             |  \--deny------> denied     (may still be approved)
//!             \--7 days-------> expired    (may still be approved)
//! ```
//!
//! What an operator compares is the fingerprint of the device's key, which `vmetric-agent status` shows on the device, or a
//! serial number that he knows: host name and serial number are the device's own word.

use miniserde::{Deserialize, Serialize};

use super::explain::{ExplainView, Remedy};
use super::records::{DETAIL_MAX, NAME_MAX, Pending, clean};
use super::registry::Registry;
use super::store::Table;
use super::views::AgentView;
use crate::core::owner::Owner;
use crate::core::proof::fingerprint;
use crate::core::reason::Reason;
use crate::core::rollout::OFFLINE_AFTER_S;
use crate::wire::agent_api::{APPROVAL_PENDING, EnrollWire, SERIAL_MAX};

/// Most devices that wait: a delivery. Whoever holds the token cannot fill the memory with made-up ones.
pub const PENDING_MAX: usize = 1_000;
/// How long a device waits for a person, seconds; then it is told so, and asks once in a quarter of an hour.
pub const APPROVAL_S: u64 = 7 * 86_400;
/// A device that has not asked for so long is forgotten, seconds.
pub const FORGOTTEN_S: u64 = 30 * 86_400;
/// How old the time of the last question on the disk may get, seconds.
const ASKED_KEPT_S: u64 = 600;
/// What such a device's row begins with in `agents`.
const PREFIX: &str = "pending-";

/// What `approve` and `deny` did.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ApprovalView {
    /// The device, as `agents` lists it.
    pub device: String,
    /// `approved` or `denied`.
    pub state: String,
    /// It was before.
    pub already: bool,
}

/// A device's name in `agents`, and in the activity.
fn name_of(device: &str) -> String {
    format!("{PREFIX}{}", fingerprint(device))
}

impl Pending {
    fn state(&self, now: u64) -> &str {
        if self.state == "waiting" && now > self.first_at.saturating_add(APPROVAL_S) { "expired" } else { &self.state }
    }

    fn serial_text(&self) -> String {
        self.serial.as_ref().map_or("no serial number".into(), |s| format!("serial number '{s}'"))
    }
}

impl Registry {
    /// Whether this device may enroll: a person has approved it. Else it is noted, and told to come back.
    ///
    /// # Errors
    /// `approval_needs_key`, `approvals_full`, `approval_pending`, `approval_expired`, `approval_denied`.
    pub(super) fn approved(&mut self, wire: &EnrollWire, token: &str, peer: &str, now: u64) -> Result<(), Reason> {
        let Some(device) = wire.device_key.clone() else {
            let (token, node) = (self.role.token, self.role.node);
            let detail = format!("the {token} needs approval, and this {node} has no key to be known by; update it");
            return Err(Reason::new("approval_needs_key", detail));
        };
        let fresh = self.approvals.get(&device).filter(|p| p.token == token).cloned();
        let text = |t: &str| clean(t, NAME_MAX);
        let mut pending = fresh.clone().unwrap_or_else(|| Pending {
            token: token.to_string(),
            hostname: text(&wire.hostname),
            os: text(&wire.os),
            architecture: text(&wire.architecture),
            version: text(&wire.version),
            serial: wire.serial.as_deref().map(|s| clean(s, SERIAL_MAX)),
            first_at: now,
            state: "waiting".into(),
            ..Default::default()
        });
        if fresh.is_none() && self.approvals.len() >= PENDING_MAX {
            return Err(Reason::new(
                "approvals_full",
                format!("{PENDING_MAX} devices wait for approval already; an operator has to decide"),
            ));
        }
        let due = now.saturating_sub(pending.last_at) >= ASKED_KEPT_S;
        let expires = pending.state(now) == "expired" && pending.expiry_told != Some(true);
        (pending.last_at, pending.peer) = (now, clean(peer, NAME_MAX));
        if expires {
            pending.expiry_told = Some(true);
        }
        let (name, state) = (name_of(&device), pending.state(now).to_string());
        let who = format!("{} at {}, {}", pending.hostname, pending.peer, pending.serial_text());
        let why = pending.reason.clone().map_or(String::new(), |why| format!(": {why}"));
        if due || expires {
            self.put(Table::Approvals, device.clone(), &pending);
        }
        self.approvals.insert(device, pending);
        if fresh.is_none() {
            self.event(now, &name, "approval_wanted", format!("{who}: `approve {name}` or `deny {name}`"), None);
        }
        if expires {
            self.event(now, &name, "approval_expired", format!("{who}: nobody has decided within {} days", APPROVAL_S / 86_400), None);
        }
        let (ask, title) = (format!("`{}`", self.role.command(&format!("approve {name}"))), self.role.title);
        match state.as_str() {
            "approved" => Ok(()),
            "denied" => Err(Reason::new("approval_denied", format!("an operator of this {title} has turned this device down{why}"))),
            "expired" => {
                let detail =
                    format!("nobody has approved this device within {} days; ask the {title}'s operator for {ask}", APPROVAL_S / 86_400);
                Err(Reason::new("approval_expired", detail))
            }
            _ => Err(Reason::new(APPROVAL_PENDING, format!("an operator of this {title} has to approve this device: {ask}"))),
        }
    }

    /// Seconds until a waiting device asks again: at once while somebody may be standing beside it.
    pub fn approval_retry_s(&self, device: &str, now: u64) -> u64 {
        match self.approvals.get(device).map_or(0, |p| now.saturating_sub(p.first_at)) {
            0..=600 => 15,
            601..=3_600 => 60,
            _ => 300,
        }
    }

    /// When a device with this token asked for the first time: a token that expires meanwhile does not cost it its place.
    pub(super) fn asked_at(&self, wire: &EnrollWire, token: &str) -> Option<u64> {
        let pending = self.approvals.get(wire.device_key.as_ref()?)?;
        (pending.token == token).then_some(pending.first_at)
    }

    /// It is an agent now.
    pub(super) fn forget_pending(&mut self, device: &str) {
        if self.approvals.remove(device).is_some() {
            self.delete(Table::Approvals, device.to_string());
        }
    }

    /// A person's decision. `word`: the device as `agents` names it, its fingerprint, host name or serial number.
    ///
    /// # Errors
    /// `approval_unknown`, `approval_ambiguous`.
    pub fn decide(&mut self, word: &str, approve: bool, why: Option<&str>, now: u64) -> Result<ApprovalView, Reason> {
        let device = self.named_pending(word)?;
        let Some(mut pending) = self.approvals.get(&device).cloned() else {
            return Err(Reason::new("approval_unknown", "it waits no more"));
        };
        let (state, event) = if approve { ("approved", "approval_given") } else { ("denied", "approval_denied") };
        let name = name_of(&device);
        let view = ApprovalView { device: name.clone(), state: state.into(), already: pending.state == state };
        if !view.already {
            let why = why.map(|why| clean(why, DETAIL_MAX));
            let detail = format!("{} at {}, {}", pending.hostname, pending.peer, pending.serial_text());
            let told = why.as_ref().map_or(detail.clone(), |why| format!("{detail}: {why}"));
            (pending.state, pending.decided_at, pending.reason) = (state.into(), Some(now), why);
            self.put(Table::Approvals, device.clone(), &pending);
            self.approvals.insert(device, pending);
            self.event(now, &name, event, told, None);
        }
        Ok(view)
    }

    fn named_pending(&self, word: &str) -> Result<String, Reason> {
        let digits = word.strip_prefix(PREFIX).unwrap_or(word);
        let exact = |device: &&String| fingerprint(device) == digits;
        if let Some(device) = self.approvals.keys().find(exact) {
            return Ok(device.clone());
        }
        let fits = |p: &Pending| p.serial.as_deref() == Some(word) || p.hostname == word;
        let found: Vec<&String> = self.approvals.iter().filter(|(_, p)| fits(p)).map(|(device, _)| device).take(3).collect();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let detail = format!("no device '{}' waits for approval; `{}` lists those that do", clean(word, NAME_MAX), self.role.nodes);
                Err(Reason::new("approval_unknown", detail))
            }
            [a, b, ..] => {
                let detail =
                    format!("'{}' may be {}, {} or others; compare the fingerprints", clean(word, NAME_MAX), name_of(a), name_of(b));
                Err(Reason::new("approval_ambiguous", detail))
            }
        }
    }

    /// Devices that wait, as rows of `agents`.
    pub fn pending_views(&self, now: u64) -> impl Iterator<Item = AgentView> {
        self.approvals.iter().map(move |(device, pending)| pending_view(device, pending, now))
    }

    /// `explain` of a device that waits; `None`: none that this word names.
    pub fn explain_pending(&self, word: &str, now: u64) -> Option<ExplainView> {
        let device = self.named_pending(word).ok()?;
        let agent = pending_view(&device, &self.approvals[&device], now);
        let id = agent.id.clone();
        let say = |verb: &str, what: &str| Remedy { command: self.role.command(&format!("{verb} {id}")), what: what.into() };
        let mut remedies = vec![
            say("approve", &format!("let it enroll; compare the fingerprint with `{} status` on the device first", self.role.product.name)),
            say("deny", "turn it down"),
        ];
        remedies.retain(|r| !r.command.contains(if agent.state == "approved" { " approve " } else { "\0" }));
        Some(ExplainView { agent, remedies, time: now, ..Default::default() })
    }

    /// Forgets devices that ask no more.
    pub fn prune_approvals(&mut self, now: u64) {
        let gone: Vec<String> =
            self.approvals.iter().filter(|(_, p)| p.last_at.saturating_add(FORGOTTEN_S) < now).map(|(d, _)| d.clone()).collect();
        gone.iter().for_each(|device| self.forget_pending(device));
    }
}

fn pending_view(device: &str, pending: &Pending, now: u64) -> AgentView {
    let p = pending.clone();
    let state = pending.state(now).to_string();
    let told = format!("{}, address {}, key {}", pending.serial_text(), p.peer, fingerprint(device));
    let why = p.reason.map_or(String::new(), |why| format!(": {why}"));
    let (code, detail, owner) = match state.as_str() {
        "approved" => ("approval_given", format!("approved; it enrolls when it asks again; {told}"), Some(Owner::Agent)),
        "denied" => ("approval_denied", format!("denied{why}; {told}"), None),
        "expired" => ("approval_expired", format!("nobody decided; {told}"), Some(Owner::Operator)),
        _ => (APPROVAL_PENDING, format!("waits for `approve` or `deny`; {told}"), Some(Owner::Operator)),
    };
    let deadline = match state.as_str() {
        "waiting" => Some(p.first_at.saturating_add(APPROVAL_S)),
        "denied" => None,
        _ => Some(p.last_at.saturating_add(FORGOTTEN_S)),
    };
    AgentView {
        id: name_of(device),
        hostname: p.hostname,
        version: p.version,
        architecture: p.architecture,
        os: p.os,
        state: if state == "waiting" { "pending".into() } else { state },
        owner: owner.map(|o| o.word().to_string()),
        code: code.into(),
        detail,
        deadline,
        since: Some(p.decided_at.unwrap_or(p.first_at)),
        online: now.saturating_sub(p.last_at) <= OFFLINE_AFTER_S,
        last_contact: p.last_at,
        serial: p.serial,
        fingerprint: Some(fingerprint(device)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::proof::DeviceKey;
    use crate::director::enroll::Terms;

    fn wire(device: u8, serial: Option<&str>) -> EnrollWire {
        let key = DeviceKey::new([device; 32]);
        EnrollWire {
            token: "t1".into(),
            hostname: "h".into(),
            device_key: Some(key.public()),
            proof: Some(key.prove_enrollment("t1")),
            serial: serial.map(String::from),
            ..Default::default()
        }
    }

    fn registry(uses: u64, ttl_s: u64) -> Registry {
        let mut registry = Registry::default();
        registry.create_token_for("t1", Terms { uses, ttl_s, approval: true, ..Terms::default() }, 100).unwrap();
        registry
    }

    fn ask(registry: &mut Registry, device: u8, now: u64) -> String {
        let result = registry.enroll_from(&wire(device, Some(&format!("S{device}"))), &format!("a{device}"), "10.0.0.9:1", now);
        result.map_or_else(|r| r.code.to_string(), |id| format!("ok {id}"))
    }

    #[test]
    fn a_device_waits_is_approved_and_spends_one_use() {
        let mut r = registry(1, 3_600);
        assert_eq!(ask(&mut r, 1, 100), "approval_pending");
        assert_eq!((r.agents.len(), r.tokens.values().next().unwrap().used), (0, 0), "no identity, nothing spent");
        let view = r.agents_view(101).agents.remove(0);
        assert!(view.id.starts_with("pending-") && view.detail.contains("S1") && view.detail.contains("10.0.0.9"), "{view:?}");
        assert_eq!((view.state.as_str(), view.owner.as_deref(), view.deadline), ("pending", Some("operator"), Some(100 + APPROVAL_S)));
        assert_eq!(ask(&mut r, 2, 102), "approval_pending");
        assert_eq!(r.decide("h", true, None, 103).unwrap_err().code, "approval_ambiguous");
        assert!(!r.decide("S1", true, None, 103).unwrap().already);
        assert!(r.decide(&view.id, true, None, 104).unwrap().already, "twice is once");
        // The token has expired while a person was deciding.
        assert_eq!(ask(&mut r, 1, 9_000), "ok a1");
        assert_eq!(ask(&mut r, 1, 9_001), "ok a1", "its answer was lost");
        r.decide("S2", true, None, 9_002).unwrap();
        assert_eq!(ask(&mut r, 2, 9_003), "token_used_up", "approval is no second use");
        assert_eq!(ask(&mut r, 3, 9_004), "token_expired");
        let codes: Vec<&str> = r.recent.iter().map(|e| e.code.as_str()).collect();
        assert_eq!(
            codes,
            ["token_created", "approval_wanted", "approval_wanted", "approval_given", "enrolled", "enrolled_again", "approval_given"]
        );
    }

    #[test]
    fn a_device_is_denied_with_a_reason_and_may_be_approved_later() {
        let mut r = registry(9, 3_600);
        ask(&mut r, 1, 100);
        r.decide("S1", false, Some("not ours"), 101).unwrap();
        let reason = r.enroll_from(&wire(1, None), "a1", "p", 102).unwrap_err();
        assert!(reason.code == "approval_denied" && reason.detail.contains("not ours"));
        r.decide("S1", true, None, 103).unwrap();
        assert_eq!(ask(&mut r, 1, 104), "ok a1");
        assert!(r.approvals.is_empty());
        assert_eq!(r.decide("S1", true, None, 105).unwrap_err().code, "approval_unknown");
    }

    #[test]
    fn nobody_waits_for_ever_and_nobody_fills_the_memory() {
        let mut r = registry(9, 30 * 86_400);
        assert_eq!(ask(&mut r, 1, 100), "approval_pending");
        assert_eq!(ask(&mut r, 1, 101 + APPROVAL_S), "approval_expired");
        assert_eq!(ask(&mut r, 1, 102 + APPROVAL_S), "approval_expired");
        assert_eq!(r.recent.iter().filter(|e| e.code == "approval_expired").count(), 1, "told once");
        assert_eq!(r.agents_view(103 + APPROVAL_S).agents[0].state, "expired");
        r.decide("S1", true, None, 104 + APPROVAL_S).unwrap();
        assert_eq!(ask(&mut r, 1, 105 + APPROVAL_S), "ok a1", "a late yes is a yes");
        ask(&mut r, 2, 200);
        r.prune_approvals(200 + FORGOTTEN_S);
        assert_eq!(r.approvals.len(), 1);
        r.prune_approvals(201 + FORGOTTEN_S);
        assert!(r.approvals.is_empty());
        for n in 0..PENDING_MAX {
            r.approvals.insert(n.to_string(), Pending { first_at: 0, ..Default::default() });
        }
        assert_eq!(ask(&mut r, 3, 300), "approvals_full");
        assert_eq!((r.approval_retry_s("x", 0), r.approval_retry_s("0", 900), r.approval_retry_s("0", 9_000)), (15, 60, 300));
    }

    #[test]
    fn one_without_a_key_cannot_be_told_apart() {
        let mut r = registry(9, 3_600);
        let plain = EnrollWire { token: "t1".into(), ..Default::default() };
        assert_eq!(r.enroll(&plain, "a1", 100).unwrap_err().code, "approval_needs_key");
        let view = {
            ask(&mut r, 1, 100);
            r.explain_pending("S1", 101).unwrap()
        };
        assert_eq!(view.remedies.len(), 2);
        assert!(r.explain_pending("S2", 101).is_none());
    }
}
