//! What the agent says of itself: the report to the Director, and `status` for the operator.

mod text;

use miniserde::{Serialize, json};

use super::device::Device;
use super::link::LinkError;
use super::run::running_as;
use super::world::World;
use crate::core::failover::sum;
use crate::core::hex;
use crate::core::owner::Owner;
use crate::core::rejected::Rejected;
use crate::core::release::Platform;
use crate::core::rollout::FETCH_TOTAL_S;
use crate::core::slots::{Condition, Image, Marks, Slot};
use crate::core::time;
use crate::core::update::{Kind, LOCAL_ISSUER, SelfCheck};
use crate::io::state::State;
use crate::io::{clock, process};
use crate::wire::agent_api::{OrderWire, PARK_MAX_S, PROTOCOL, REJECTS_MAX, RejectWire, ReportWire, ResultWire};
use crate::wire::records::{self as wire, AcceptedWire, RejectedListWire, RejectedWire, ResultsWire, SourceWire, StatusWire, verdict_word};

impl Device {
    /// The report as it stands now.
    pub(super) fn report(&self, park_s: u64) -> ReportWire {
        let here = Platform::here();
        let accepted = self.accepted.as_ref();
        let open = accepted.filter(|a| !a.ended);
        let trial = self.on_trial() && self.self_check == SelfCheck::Passed;
        let trusted = self.trust.as_ref().map_or([0; 4], |(_, t)| t.versions());
        let (issuer, generation) = self.known_order();
        let now = clock::unix();
        let config = self.state.config().ok().flatten().map(|(c, _)| c).unwrap_or_default();
        ReportWire {
            protocol: PROTOCOL,
            pins: Some(self.confirmed_pins(&config)),
            agent_id: config.agent_id.clone(),
            version: self.running.version.to_string(),
            scheduled_version: open.filter(|a| a.order.kind == "update").map(|a| a.order.version.clone()),
            architecture: here.arch,
            os: here.os,
            hostname: self.hostname.clone(),
            running: self.running.image.name().into(),
            running_sha256: hex::encode(&self.running.sha256),
            running_as: running_as(self).into(),
            fallback_version: self.marks.fallback(self.running.image).and_then(|s| self.state.slot_json(s).ok()).map(|w| w.version),
            issuer,
            generation,
            step: if self.status.step.is_empty() { "starting".into() } else { self.status.step.clone() },
            code: self.status.code.clone(),
            detail: self.status.detail.clone(),
            until: self.status.until,
            bytes_done: self.status.bytes_done,
            bytes_total: self.status.bytes_total,
            trial_nonce: trial.then(|| self.nonce.clone()),
            trial_process: self.on_trial().then(|| self.nonce.clone()),
            trial_sha256: trial.then(|| hex::encode(&self.running.sha256)),
            result: self.results.first().cloned(),
            root_version: trusted[0],
            timestamp_version: trusted[1],
            snapshot_version: trusted[2],
            targets_version: trusted[3],
            clock: self.clock().word().into(),
            time: now,
            park_s: park_s.min(PARK_MAX_S),
            rejected: self.rejected.len() as u64,
            rejects: self.rejects(),
            boot_id: Some(self.moment().boot_id),
            members: config.members.as_deref().map(sum),
            sent_us: Some(clock::monotonic().as_micros() as u64),
        }
    }
}

impl Device {
    /// The Director's newest order that this device has taken. While a version is on trial, its slot knows it, too: who lost the
    /// order must not go back for want of an answer.
    fn known_order(&self) -> (String, u64) {
        match (&self.accepted, self.running.image) {
            (Some(a), _) => (a.director_issuer.clone(), a.director_generation),
            (None, Image::Slot(slot)) if self.on_trial() => match self.state.slot_json(slot) {
                Ok(wire) if !wire.issuer.starts_with(LOCAL_ISSUER) => (wire.issuer, wire.generation),
                _ => Default::default(),
            },
            _ => Default::default(),
        }
    }

    /// The newest rejected files, for the Director's operator.
    fn rejects(&self) -> Option<Vec<RejectWire>> {
        let tell = |r: &Rejected| RejectWire {
            sha256: hex::encode(&r.sha256),
            version: r.version.clone(),
            verdict: verdict_word(r.bad).into(),
            code: r.reason.code.to_string(),
            count: r.count,
            // The same in each report, so that it is news only once.
            retry_at: (!r.bad).then(|| r.since.saturating_add(self.times.cooldown(r.count))),
        };
        (!self.rejected.is_empty()).then(|| self.rejected.iter().rev().take(REJECTS_MAX).map(tell).collect())
    }
}

impl StatusWire {
    /// The Director could not be asked.
    pub(super) fn note_failure(&mut self, error: &LinkError) {
        if !error.woken {
            (self.link_code, self.link_detail) = (Some(error.reason.code.to_string()), Some(error.reason.detail.clone()));
        }
    }

    /// It answered.
    pub(super) fn note_contact(&mut self) {
        (self.link_code, self.link_detail, self.link_until, self.link_failures) = (None, None, None, None);
    }
}

/// `status --json`: additive, documented in the README.
#[derive(Serialize, Debug, Default)]
pub struct StatusReport {
    version: String,
    scheduled_version: Option<String>,
    architecture: String,
    os: String,
    enrolled: bool,
    /// Whom it speaks to, or would.
    director: String,
    /// All members of that one's cluster.
    members: Vec<String>,
    agent_id: String,
    runs: bool,
    pid: u32,
    running: String,
    running_as: String,
    slots: Vec<SlotReport>,
    trial: Option<TrialReport>,
    step: String,
    code: String,
    detail: String,
    problem: Option<ProblemReport>,
    since: Option<String>,
    until: Option<String>,
    owner: Option<String>,
    deadline: Option<String>,
    bytes_done: u64,
    bytes_total: u64,
    last_contact: Option<String>,
    /// Why the Director could not be asked last; empty = it answered.
    contact_code: String,
    contact_detail: String,
    contact_failures: u32,
    next_contact: Option<String>,
    /// Without an identity: each place that was looked at for address, pins and token, and what was taken of it.
    sources: Vec<SourceWire>,
    /// Without an identity: the device's key, as `vmetric-director agents` shows it.
    fingerprint: Option<String>,
    /// A token that could not be forgotten.
    token_left: Option<String>,
    /// `ok`, `unsure` (before signed times), `ahead` (over a day ahead of the Director).
    clock: String,
    director_time: Option<String>,
    refused: Option<String>,
    last_result: Option<LastResult>,
    rejected: Vec<RejectedReport>,
    security_floor: u64,
    metadata: MetadataReport,
}

/// What is wrong with the state folder now, as the asking command sees it.
#[derive(Serialize, Debug)]
struct ProblemReport {
    code: String,
    detail: String,
}

impl ProblemReport {
    fn of(problem: crate::core::reason::Reason) -> ProblemReport {
        ProblemReport { code: problem.code.to_string(), detail: problem.detail.clone() }
    }
}

#[derive(Serialize, Debug)]
struct SlotReport {
    slot: String,
    condition: String,
    version: String,
    sha256: String,
    failure: Option<String>,
}

#[derive(Serialize, Debug)]
struct TrialReport {
    slot: String,
    version: String,
    starts: u32,
    reached: String,
    ended: String,
}

#[derive(Serialize, Debug)]
struct LastResult {
    outcome: String,
    version: String,
    code: String,
    detail: String,
    at: String,
    reported: bool,
}

#[derive(Serialize, Debug)]
struct RejectedReport {
    version: String,
    sha256: String,
    verdict: String,
    code: String,
    detail: String,
    since: String,
    count: u32,
}

#[derive(Serialize, Debug, Default)]
struct MetadataReport {
    root: u64,
    timestamp: u64,
    snapshot: u64,
    targets: u64,
}

fn condition_word(condition: Condition) -> &'static str {
    match condition {
        Condition::Empty => "empty",
        Condition::Trial => "trial",
        Condition::Confirmed => "confirmed",
        Condition::Failed => "failed",
    }
}

fn slot_report(state: &State, marks: &Marks, slot: Slot) -> SlotReport {
    let m = marks.slot(slot);
    let empty = m.condition == Condition::Empty;
    SlotReport {
        slot: slot.name().into(),
        condition: condition_word(m.condition).into(),
        version: if empty { String::new() } else { state.slot_json(slot).map(|w| w.version).unwrap_or_else(|_| "?".into()) },
        sha256: if empty { String::new() } else { hex::encode(&m.sha256) },
        failure: m.failure.as_ref().map(ToString::to_string),
    }
}

fn image_as(marks: &Marks, image: Image) -> &'static str {
    match image {
        Image::Slot(slot) => condition_word(marks.slot(slot).condition),
        Image::Factory if marks.manual => "manual",
        Image::Factory => "factory",
    }
}

fn trial_report(marks: &Marks, version: &str) -> Option<TrialReport> {
    let Image::Slot(slot) = marks.active else { return None };
    let m = marks.slot(slot);
    (m.condition == Condition::Trial).then(|| TrialReport {
        slot: slot.name().into(),
        version: version.into(),
        starts: m.evidence.starts,
        reached: format!("{:?}", m.evidence.reached).to_lowercase(),
        ended: format!("{:?}", m.evidence.ended).to_lowercase(),
    })
}

fn last_result(r: ResultWire, waiting: &[ResultWire]) -> LastResult {
    LastResult {
        reported: !waiting.iter().any(|open| open.id == r.id),
        outcome: r.outcome,
        version: r.version,
        code: r.code,
        detail: r.detail,
        at: time::format(r.at),
    }
}

fn rejected_report(r: RejectedWire) -> RejectedReport {
    RejectedReport {
        version: r.version,
        sha256: r.sha256,
        verdict: r.verdict,
        code: r.code,
        detail: r.detail,
        since: time::format(r.since),
        count: r.count,
    }
}

/// What the process executes, whatever the marks say: a switch may not have come about. `None`: the system does not tell.
fn running_image(state: &State, pid: Option<u32>) -> Option<Image> {
    let program = process::program_of(pid?)?;
    let slot = Slot::BOTH.into_iter().find(|slot| {
        let folder = std::fs::canonicalize(state.slot_folder(*slot));
        folder.is_ok_and(|folder| program.parent() == Some(&folder))
    });
    Some(slot.map_or(Image::Factory, Image::Slot))
}

/// Reads the state folder, which needs no running agent. `own_version` is that of the asking file.
pub fn look(state: &State, pid: Option<u32>, own_version: &str) -> StatusReport {
    let marks = state.load_marks().marks;
    let here = Platform::here();
    let now: StatusWire = state.status().unwrap_or_default();
    let now = if pid == Some(now.pid) { now } else { StatusWire::default() };
    let accepted: Option<AcceptedWire> = state.read("order.json").ok().flatten();
    let open = accepted.as_ref().filter(|a| !a.ended && a.order.kind == kind_word(Kind::Update));
    let config = state.config().ok().flatten().map(|(c, _)| c);
    // In this order: the newest result stands in its own file only when it is among those that are to be reported, or was.
    let last: Option<ResultWire> = state.read("last-result.json").ok().flatten();
    let results = state.read::<ResultsWire>("results.json").ok().flatten().unwrap_or_default().results;
    let last = results.last().cloned().or(last);
    let rejected = state.read::<RejectedListWire>("rejected.json").ok().flatten().unwrap_or_default().rejected;
    let problem = state.problem();
    let image = match running_image(state, pid) {
        // Either the launcher, in the milliseconds before it starts what the marks say, or a factory image that could not
        // note that it had to take over.
        Some(Image::Factory) if problem.is_none() => marks.active,
        Some(image) => image,
        None => marks.active,
    };
    let running = match image {
        Image::Slot(slot) => state.slot_json(slot).map(|w| w.version).unwrap_or_else(|_| "?".into()),
        Image::Factory => own_version.to_string(),
    };
    let when = |at: u64| (at > 0).then(|| time::format(at));
    let moving = (pid.is_some() && (open.is_some() || now.step == "trial")).then_some(&now);
    let deadline = moving.and_then(|now| deadline(now, open, accepted.as_ref()));
    StatusReport {
        version: running.clone(),
        scheduled_version: open.map(|a| a.order.version.clone()),
        architecture: here.arch,
        os: here.os,
        enrolled: config.is_some(),
        director: now.member.clone().or_else(|| Some(config.as_ref()?.director.clone())).unwrap_or_default(),
        members: config.as_ref().and_then(|c| c.members.clone()).unwrap_or_default(),
        agent_id: config.map(|c| c.agent_id).unwrap_or_default(),
        runs: pid.is_some(),
        pid: pid.unwrap_or(0),
        running: image.name().into(),
        running_as: image_as(&marks, image).into(),
        slots: Slot::BOTH.map(|s| slot_report(state, &marks, s)).into(),
        trial: trial_report(&marks, &running),
        problem: problem.or_else(|| crate::io::room::for_slots(&state.path("")).err()).map(ProblemReport::of),
        since: when(now.since),
        until: now.until.and_then(when),
        owner: moving.map(|now| Owner::of(&now.code).word().to_string()),
        deadline: deadline.and_then(when),
        step: now.step,
        code: now.code,
        detail: now.detail,
        bytes_done: now.bytes_done,
        bytes_total: now.bytes_total,
        last_contact: when(now.contact_at),
        contact_code: now.link_code.unwrap_or_default(),
        contact_detail: now.link_detail.unwrap_or_default(),
        contact_failures: now.link_failures.unwrap_or(0),
        next_contact: now.link_until.and_then(when),
        sources: now.sources.unwrap_or_default(),
        fingerprint: now.fingerprint,
        token_left: now.token_left,
        clock: now.clock.unwrap_or_default(),
        director_time: now.director_time.and_then(when),
        refused: now.refused,
        last_result: last.map(|r| last_result(r, &results)),
        rejected: rejected.into_iter().map(rejected_report).collect(),
        security_floor: marks.floor,
        metadata: MetadataReport {
            root: now.root_version,
            timestamp: now.timestamp_version,
            snapshot: now.snapshot_version,
            targets: now.targets_version,
        },
    }
}

/// When what goes on ends by itself: a trial by its own clock; before, the authority gives the order up.
fn deadline(now: &StatusWire, open: Option<&AcceptedWire>, accepted: Option<&AcceptedWire>) -> Option<u64> {
    match open.filter(|_| now.step != "trial") {
        Some(a) => Some(fetch_deadline(a)),
        // While the operator's check runs or cannot tell, `until` is its next run.
        None if now.code.starts_with("check") => accepted.map(|a| now.since.saturating_add(trial_s(&a.order))),
        None => now.until,
    }
}

/// When whoever ordered gives up an order that has not been switched.
pub fn fetch_deadline(accepted: &AcceptedWire) -> u64 {
    accepted.at.saturating_add(accepted.order.switch_in_s).saturating_add(FETCH_TOTAL_S)
}

/// How long a trial of this order may take.
fn trial_s(order: &OrderWire) -> u64 {
    let times = super::fault::times();
    wire::order(order, &times).map_or(times.contact_default_s, |o| if o.unattended { o.trial_max_s } else { o.contact_deadline_s })
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Update => "update",
        Kind::Cancel => "cancel",
    }
}

impl StatusReport {
    /// `running: 2.5.0 (slot b, confirmed)`.
    pub fn running_line(&self) -> String {
        match self.runs {
            true => format!("running: {} ({}, {})", self.version, place(&self.running), self.running_as),
            false => "running: nothing".into(),
        }
    }

    /// One JSON document.
    pub fn json(&self) -> String {
        json::to_string(self)
    }
}

fn place(running: &str) -> String {
    if running == "factory" { "factory image".into() } else { format!("slot {running}") }
}
