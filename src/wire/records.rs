//! The agent's small state files: `order.json`, `results.json`, `rejected.json`, `status.json`, `request.json`.

use miniserde::{Deserialize, Serialize};

use super::agent_api::{OrderWire, ResultWire};
use crate::core::clock::Moment;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::rejected::Rejected;
use crate::core::times::Times;
use crate::core::update::{Accepted, Kind, LOCAL_ISSUER, Order};

/// Longest of these files that is read, bytes: 32 rejections of about 700 bytes.
pub const RECORD_MAX: u64 = 64 * 1024;
/// Results kept until they are taken; the oldest goes first. An agent has one order at a time.
pub const RESULTS_MAX: usize = 8;

/// `order.json`: the order in force and what the device remembers of it.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct AcceptedWire {
    /// The order as it came.
    pub order: OrderWire,
    /// Wall clock at receipt.
    pub at: u64,
    /// Monotonic clock at receipt.
    pub at_monotonic: u64,
    /// Boot id at receipt.
    pub boot_id: String,
    /// Director's time at receipt.
    pub at_director: Option<u64>,
    /// Has come to its end.
    pub ended: bool,
    /// Bytes fetched for it.
    pub bytes: u64,
    /// Issuer of the last order that came from a Director: what the report names, also after a local update.
    pub director_issuer: String,
    /// Its generation.
    pub director_generation: u64,
    /// The identity that it was given to.
    pub agent_id: Option<String>,
}

/// An order that may not be obeyed: which field, and why.
pub fn order(wire: &OrderWire, times: &Times) -> Result<Order, Reason> {
    let bad = |field: &str, why: &str| Reason::new("bad_order", format!("the order's field {field} {why}"));
    let kind = match wire.kind.as_str() {
        "update" => Kind::Update,
        "cancel" => Kind::Cancel,
        _ => return Err(bad("kind", "is neither update nor cancel")),
    };
    if wire.issuer.is_empty() || wire.issuer.len() > 64 {
        return Err(bad("issuer", "must have 1 to 64 bytes"));
    }
    // A cancel order names the update it withdraws, so both kinds are whole.
    let target: crate::core::release::TargetPath = wire.target.parse().map_err(|e: String| bad("target", &e))?;
    if target.version.to_string() != wire.version {
        return Err(bad("version", "is not the target path's"));
    }
    let contact = if wire.contact_deadline_s == 0 { times.contact_default_s } else { wire.contact_deadline_s };
    let trial_max = if wire.trial_max_s == 0 { times.trial_default_s } else { wire.trial_max_s };
    Ok(Order {
        issuer: wire.issuer.clone(),
        generation: wire.generation,
        kind,
        target,
        sha256: hex::decode(&wire.sha256).ok_or_else(|| bad("sha256", "is no SHA-256"))?,
        length: wire.length,
        switch_in_s: wire.switch_in_s,
        contact_deadline_s: contact.clamp(times.contact_min_s, times.contact_max_s),
        unattended: wire.unattended,
        trial_max_s: trial_max.clamp(times.contact_min_s, times.trial_max_s),
        end_probation: wire.end_probation,
        retry: wire.retry,
        keep_staged: wire.keep_staged == Some(true),
    })
}

impl AcceptedWire {
    /// Whether an order is news: not the one in force, none older, and nothing that may not interrupt what runs.
    pub fn takes(order: &OrderWire, before: Option<&AcceptedWire>, on_trial: bool) -> bool {
        let local_runs = before.is_some_and(|a| !a.ended && a.order.issuer.starts_with(LOCAL_ISSUER));
        let from_director = !order.issuer.starts_with(LOCAL_ISSUER);
        let known = before.is_some_and(|a| a.director_issuer == order.issuer && order.generation <= a.director_generation);
        !on_trial && !(from_director && (local_runs || known))
    }

    /// An order as it is received now.
    pub fn receive(order: OrderWire, now: &Moment, before: Option<&AcceptedWire>) -> AcceptedWire {
        let (director_issuer, director_generation) = match order.issuer.starts_with(LOCAL_ISSUER) {
            true => before.map(|b| (b.director_issuer.clone(), b.director_generation)).unwrap_or_default(),
            false => (order.issuer.clone(), order.generation),
        };
        // A cancel that comes after the end finds nothing to withdraw: how the update ended is what there is to say of it.
        let over = |b: &AcceptedWire| b.ended && b.order.issuer == order.issuer && b.order.sha256 == order.sha256;
        let ended = order.kind == "cancel" && before.is_some_and(over);
        AcceptedWire {
            order,
            at: now.unix,
            at_monotonic: now.monotonic,
            boot_id: now.boot_id.clone(),
            at_director: now.director,
            ended,
            bytes: 0,
            director_issuer,
            director_generation,
            agent_id: None,
        }
    }

    /// Whether it was given to another identity of this device, before an `enroll --replace`: nobody waits for it any more.
    /// A trial goes on, its own deadline ends it.
    pub fn is_left_over(&self, own: Option<&str>, on_trial: bool) -> bool {
        let other = matches!((self.agent_id.as_deref(), own), (Some(of), Some(own)) if of != own);
        other && !self.ended && !on_trial && !self.order.issuer.starts_with(LOCAL_ISSUER)
    }

    /// The core's view of it.
    pub fn accepted(&self, times: &Times) -> Result<Accepted, Reason> {
        Ok(Accepted {
            order: order(&self.order, times)?,
            at: Moment { unix: self.at, monotonic: self.at_monotonic, boot_id: self.boot_id.clone(), director: self.at_director },
            ended: self.ended,
            bytes: self.bytes,
        })
    }
}

/// `results.json`.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ResultsWire {
    /// Oldest first.
    pub results: Vec<ResultWire>,
}

/// `rejected.json`.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct RejectedListWire {
    /// Oldest first.
    pub rejected: Vec<RejectedWire>,
}

/// One entry of `rejected.json`.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct RejectedWire {
    /// Hash, hex.
    pub sha256: String,
    /// Version, for people.
    pub version: String,
    /// `bad` or `could_not_tell`.
    pub verdict: String,
    /// Why; stable code.
    pub code: String,
    /// Why; one sentence.
    pub detail: String,
    /// Times it lost.
    pub count: u32,
    /// Order in force.
    pub issuer: String,
    /// Its generation.
    pub generation: u64,
    /// When, wall clock.
    pub since: u64,
    /// When, monotonic.
    pub since_monotonic: u64,
    /// Boot.
    pub boot_id: String,
    /// When, by the Director's clock.
    pub since_director: Option<u64>,
}

/// The words for a verdict.
pub fn verdict_word(bad: bool) -> &'static str {
    if bad { "bad" } else { "could_not_tell" }
}

impl From<&Rejected> for RejectedWire {
    fn from(r: &Rejected) -> RejectedWire {
        RejectedWire {
            sha256: hex::encode(&r.sha256),
            version: r.version.clone(),
            verdict: verdict_word(r.bad).into(),
            code: r.reason.code.to_string(),
            detail: r.reason.detail.clone(),
            count: r.count,
            issuer: r.issuer.clone(),
            generation: r.generation,
            since: r.since,
            since_monotonic: r.since_monotonic,
            boot_id: r.boot_id.clone(),
            since_director: r.since_director,
        }
    }
}

impl TryFrom<RejectedWire> for Rejected {
    type Error = String;

    fn try_from(w: RejectedWire) -> Result<Rejected, String> {
        Ok(Rejected {
            sha256: hex::decode(&w.sha256).ok_or("rejected.json: field sha256 is no SHA-256")?,
            version: w.version,
            bad: w.verdict != verdict_word(false),
            reason: Reason::received(w.code, w.detail),
            count: w.count,
            issuer: w.issuer,
            generation: w.generation,
            since: w.since,
            since_monotonic: w.since_monotonic,
            boot_id: w.boot_id,
            since_director: w.since_director,
        })
    }
}

/// `status.json`: what the running agent does right now; volatile, rewritten at each change.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct StatusWire {
    /// Process id of the writer.
    pub pid: u32,
    /// As in the report.
    pub step: String,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub detail: String,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// Until when.
    pub until: Option<u64>,
    /// Bytes of the ordered file on disk.
    pub bytes_done: u64,
    /// Its length.
    pub bytes_total: u64,
    /// Last authenticated answer of the Director, seconds since 1970; 0 = none by this process.
    pub contact_at: u64,
    /// Why the Director does not serve this device, since its last answer; absent = it does.
    pub refused: Option<String>,
    /// Nonce of the running trial: the operator's command acknowledges a local update with it.
    pub trial_nonce: Option<String>,
    /// Why the Director could not be asked last; stable code. Absent = it answered.
    pub link_code: Option<String>,
    /// The same, one sentence.
    pub link_detail: Option<String>,
    /// When it is asked again, seconds since 1970.
    pub link_until: Option<u64>,
    /// Whom it speaks to, when its Director has a cluster.
    pub member: Option<String>,
    /// Failures in a row.
    pub link_failures: Option<u32>,
    /// While there is no identity: each place that was looked at for address, pins and token, and what was taken of it.
    pub sources: Option<Vec<SourceWire>>,
    /// The device's key as an operator compares it, while there is no identity.
    pub fingerprint: Option<String>,
    /// A token that could not be forgotten, and what to do; absent = none.
    pub token_left: Option<String>,
    /// What this device's clock is worth: `ok`, `unsure`, `ahead`.
    pub clock: Option<String>,
    /// The Director's time at its last answer, seconds since 1970.
    pub director_time: Option<u64>,
    /// Trusted root, timestamp, snapshot, targets versions.
    pub root_version: u64,
    /// See above.
    pub timestamp_version: u64,
    /// See above.
    pub snapshot_version: u64,
    /// See above.
    pub targets_version: u64,
}

/// One place that was looked at.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct SourceWire {
    /// File, variable or name.
    pub name: String,
    /// What was taken of it, or why nothing.
    pub said: String,
}

/// `config/enroll.shown`: the token that was last shown from a file which is not the device's own. It has to be gone from
/// there once there is an identity, whatever happens in between.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ShownWire {
    /// The file.
    pub file: String,
    /// SHA-256 of the token, hex.
    pub sha256: String,
}

/// `request.json`: what a command asks of the running agent; taken (removed) by it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct RequestWire {
    /// `rollback`, `update_file`, `acknowledge`.
    pub kind: String,
    /// `update_file`: the release tree's folder, absolute.
    pub tree: String,
    /// `update_file`: the order, issued by the command.
    pub order: Option<OrderWire>,
    /// `acknowledge`: the trial's nonce.
    pub nonce: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniserde::json;

    fn wire() -> OrderWire {
        OrderWire {
            issuer: "site".into(),
            generation: 4,
            kind: "update".into(),
            target: "vmetric-agent/2.5.0/linux-amd64/vmetric-agent".into(),
            version: "2.5.0".into(),
            sha256: hex::encode(&[1; 32]),
            length: 9,
            ..Default::default()
        }
    }

    #[test]
    fn a_cancel_after_the_end_withdraws_nothing() {
        let now = Moment { unix: 9, monotonic: 9, boot_id: "boot".into(), director: None };
        let before = |ended| AcceptedWire { ended, ..AcceptedWire::receive(wire(), &now, None) };
        let cancel = || OrderWire { kind: "cancel".into(), generation: 5, ..wire() };
        let ended = |order, before: &AcceptedWire| AcceptedWire::receive(order, &now, Some(before)).ended;
        assert!(ended(cancel(), &before(true)));
        assert!(!ended(cancel(), &before(false)), "it is dropped, and that is told");
        assert!(!ended(OrderWire { generation: 5, ..wire() }, &before(true)), "the same file again is an order");
        assert!(!ended(OrderWire { sha256: hex::encode(&[2; 32]), ..cancel() }, &before(true)));
        assert!(!ended(OrderWire { issuer: "other".into(), ..cancel() }, &before(true)));
        assert!(!AcceptedWire::receive(cancel(), &now, None).ended);
    }

    #[test]
    fn orders_are_clamped_and_checked() {
        let t = Times::DEFAULT;
        let ok = order(&wire(), &t).unwrap();
        assert_eq!((ok.contact_deadline_s, ok.kind, ok.generation), (300, Kind::Update, 4));
        let long = OrderWire { contact_deadline_s: u64::MAX, trial_max_s: u64::MAX, ..wire() };
        assert_eq!(order(&long, &t).unwrap().contact_deadline_s, t.contact_max_s);
        assert_eq!(order(&long, &t).unwrap().trial_max_s, t.trial_max_s);
        assert_eq!(order(&OrderWire { contact_deadline_s: 1, ..wire() }, &t).unwrap().contact_deadline_s, t.contact_min_s);
        let refused = |w: OrderWire| order(&w, &t).unwrap_err().detail.clone();
        assert!(refused(OrderWire { kind: "format".into(), ..wire() }).contains("kind"));
        assert!(refused(OrderWire { issuer: String::new(), ..wire() }).contains("issuer"));
        assert!(refused(OrderWire { target: "../../etc".into(), ..wire() }).contains("target"));
        assert!(refused(OrderWire { version: "2.5.1".into(), ..wire() }).contains("version"));
        assert!(refused(OrderWire { sha256: "AA".into(), ..wire() }).contains("sha256"));
    }

    #[test]
    fn rejections_survive_the_round_trip() {
        let now = Moment { unix: 5, monotonic: 6, boot_id: "b".into(), director: Some(7) };
        let entry = Rejected {
            sha256: [2; 32],
            version: "2.5.0".into(),
            bad: false,
            reason: Reason::new("no_contact", "x"),
            count: 2,
            issuer: "site".into(),
            generation: 4,
            since: now.unix,
            since_monotonic: now.monotonic,
            boot_id: now.boot_id.clone(),
            since_director: now.director,
        };
        let text = json::to_string(&RejectedWire::from(&entry));
        let back: RejectedWire = json::from_str(&text).unwrap();
        assert_eq!(Rejected::try_from(back).unwrap(), entry);
        let damaged = RejectedWire { verdict: "???".into(), ..RejectedWire::from(&entry) };
        assert!(Rejected::try_from(damaged).unwrap().bad, "an unknown verdict is the careful one");
        let accepted = AcceptedWire::receive(wire(), &now, None);
        assert_eq!((accepted.director_issuer.as_str(), accepted.director_generation), ("site", 4));
        let local = AcceptedWire::receive(OrderWire { issuer: "local:1".into(), generation: 1, ..wire() }, &now, Some(&accepted));
        assert_eq!((local.director_issuer.as_str(), local.director_generation), ("site", 4), "a local update hides no order");
        assert_eq!(accepted.accepted(&Times::DEFAULT).unwrap().at, now);
    }

    #[test]
    fn an_order_to_another_identity_is_left_over_unless_it_is_on_trial() {
        let now = Moment { unix: 1, monotonic: 1, boot_id: "b".into(), director: None };
        let of = |agent: Option<&str>, issuer: &str, ended| {
            let order = OrderWire { issuer: issuer.into(), ..Default::default() };
            AcceptedWire { agent_id: agent.map(String::from), ended, ..AcceptedWire::receive(order, &now, None) }
        };
        assert!(of(Some("old"), "i", false).is_left_over(Some("new"), false));
        assert!(!of(Some("old"), "i", false).is_left_over(Some("new"), true), "on trial");
        assert!(!of(Some("old"), "i", true).is_left_over(Some("new"), false), "ended");
        assert!(!of(Some("old"), LOCAL_ISSUER, false).is_left_over(Some("new"), false), "a command's");
        for (agent, own) in [(Some("a"), Some("a")), (None, Some("a")), (Some("a"), None)] {
            assert!(!of(agent, "i", false).is_left_over(own, false), "{agent:?} {own:?}");
        }
    }
}
