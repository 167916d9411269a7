//! What a report changes, and what is answered to it.
//!
//! A report names the order it is about by (issuer, generation); only then does it move that order's row. Events are
//! derived from the difference between the row and the report, so that a lost report loses no step: whoever is on trial
//! has fetched, checked and switched.

use super::records::{DETAIL_MAX, NAME_MAX, Order, clean};
use super::registry::Registry;
use crate::core::backoff::spread_s;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::rollout::{End, Step};
use crate::core::slots::MANUAL_UPDATE;
use crate::core::update::LOCAL_ISSUER;
use crate::wire::agent_api::{AnswerWire, ReportWire, ResultWire};

/// Longest nonce that is echoed.
const NONCE_MAX: usize = 64;
/// Why a device cannot keep an order.
const STATE_CODES: [&str; 3] = ["disk_full", "state_not_writable", "state_error"];
/// A message this much older than the newest one is not late: no request lives so long.
const LATE_MAX_US: u64 = 120 * 1_000_000;
/// Result ids that are remembered for each agent: as many results as it keeps.
const RESULT_IDS_MAX: usize = crate::wire::records::RESULTS_MAX;
/// Longest result id that is kept.
const RESULT_ID_MAX: usize = 64;

impl Registry {
    /// Takes a report in. True: a roll-out may go on.
    pub fn hear(&mut self, id: &str, report: &ReportWire, now: u64) -> bool {
        if self.is_late(id, report) {
            return false;
        }
        self.muting.begin(id, now);
        let moved = self.take_in(id, report, now);
        if let Some(untold) = self.muting.end(id) {
            let detail = format!("its reports change faster than they can be worth keeping; {untold} events were left out");
            self.event(now, id, "events_left_out", detail, None);
        }
        moved
    }

    fn take_in(&mut self, id: &str, report: &ReportWire, now: u64) -> bool {
        let Some(agent) = self.agents.get_mut(id) else { return false };
        let (ran, ran_version) = (agent.running_sha256.clone(), agent.version.clone());
        let obeyed = agent.issuer.clone();
        let was_away = now.saturating_sub(self.contacts.insert(id.to_string(), now).unwrap_or(0)) > crate::core::rollout::OFFLINE_AFTER_S;
        self.bytes.insert(id.to_string(), report.bytes_done);
        if agent.hear(report, now) {
            self.keep_agent(id);
            self.policing.mark(id);
        }
        if was_away {
            self.policing.mark(id);
        }
        self.order_above(id, report, now);
        let mut moved = self.follow_step(id, report, now) | self.ordered_elsewhere(id, &obeyed, report, now);
        self.note_not_taken(id, report, now);
        let mut lost = self.lost_without_a_word(id, report);
        if let Some(result) = &report.result {
            lost = self.lost_by(id, result);
            moved |= self.take_result(id, report, result, now);
        }
        if let Some(rollout) = lost {
            self.plan_repair(rollout, id, now);
            moved = true;
        }
        let changed = !ran.is_empty() && self.agents[id].running_sha256 != ran;
        if changed && report.result.is_none() && self.named(id, report).is_none_or(|o| o.end().is_some()) {
            let detail = format!("{ran_version} -> {}, running as {}", self.agents[id].version, self.agents[id].running_as);
            self.event(now, id, "version_changed", detail, None);
        }
        moved || changed || was_away
    }

    /// Whether the report is of a trial that this store ordered.
    pub fn on_trial(&self, id: &str, report: &ReportWire) -> bool {
        let order = self.order_of(id, report.generation).filter(|_| report.issuer == self.issuer);
        order.is_some_and(|order| report.trial_nonce.is_some() && report.trial_sha256.as_deref() == Some(order.sha256.as_str()))
    }

    /// Whether this report was overtaken by a newer one, or is that one again: it would undo what was heard since.
    fn is_late(&mut self, id: &str, report: &ReportWire) -> bool {
        let (Some(boot_id), Some(sent)) = (&report.boot_id, report.sent_us) else { return false };
        let hash = hex::sha256(boot_id.as_bytes());
        let boot = u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
        let newest = self.newest.get(id).filter(|(of, _)| *of == boot).map(|(_, newest)| *newest);
        // Far behind is no late message but a device whose clock went back: a virtual machine that was restored.
        if newest.is_some_and(|newest| sent <= newest && newest - sent < LATE_MAX_US) {
            return true;
        }
        self.newest.insert(id.to_string(), (boot, sent));
        false
    }

    /// The order in force, when the report speaks of it.
    fn named(&self, id: &str, report: &ReportWire) -> Option<&Order> {
        let (order, _) = self.order_in_force(id)?;
        (report.issuer == self.issuer && is_of(order, report.generation)).then_some(order)
    }

    /// The row of an order to this agent: the one in force, or an earlier one.
    fn order_of(&self, id: &str, generation: u64) -> Option<&Order> {
        let in_force = self.order_in_force(id).map(|(order, _)| order);
        let row = |rollout: &u64| self.orders.get(&(*rollout, id.to_string()));
        let earlier = || self.rollouts.keys().rev().filter_map(row).find(|o| is_of(o, generation));
        in_force.filter(|o| is_of(o, generation)).or_else(earlier)
    }

    /// This store was restored from a backup: the device has taken a later order of it, and takes the one in force for an old
    /// one. It is ordered anew, above that. A trial is waited for: the device takes nothing meanwhile.
    fn order_above(&mut self, id: &str, report: &ReportWire, now: u64) {
        if report.issuer != self.issuer || report.running_as == "trial" {
            return;
        }
        let Some(mut row) = self.order_in_force(id).map(|(o, _)| o.clone()) else { return };
        if !row.end().is_none_or(|end| end == End::Silent) || report.generation <= row.in_force() {
            return;
        }
        let next = self.next_generation(id);
        let detail = format!(
            "the device has taken order {} of this issuer, which knows of {} only (a restored backup); ordered anew as {next}",
            report.generation,
            row.in_force()
        );
        self.event(now, id, "order_overtaken", detail, Some(&row));
        match row.cancel_generation {
            0 => row.generation = next,
            _ => row.cancel_generation = next,
        }
        (row.state, row.since, row.until) = (Step::Ordered.word().into(), now, None);
        (row.code, row.detail) = (Step::Ordered.word().into(), Step::Ordered.sentence().into());
        self.keep_order(row);
    }

    /// The device was with another member of the cluster and has taken an order there: ours is the older one, and would send it
    /// back if it were told again.
    fn ordered_elsewhere(&mut self, id: &str, obeyed: &str, report: &ReportWire, now: u64) -> bool {
        if report.issuer.is_empty() || report.issuer == self.issuer || report.issuer == obeyed {
            return false;
        }
        // One that it has not taken yet may be newer than what it did there: it is told.
        let taken = |o: &&Order| o.step().is_some_and(|step| step > Step::Ordered) || o.end() == Some(End::Silent);
        let Some(row) = self.order_in_force(id).map(|(o, _)| o).filter(taken).cloned() else { return false };
        let detail = "it has taken a later order of another issuer since, which counts; order it again to overrule that";
        self.end(row, End::Refused, &Reason::new("ordered_elsewhere", detail), now);
        true
    }

    /// The nonce of a trial that another member of the cluster has ordered. The device is here now, and whoever ordered it may be
    /// gone: any member is that authority, unless it knows something against the file.
    pub fn acknowledged_for_another(&self, report: &ReportWire, now: u64) -> Option<String> {
        let (nonce, sha256) = (report.trial_nonce.as_ref()?, report.trial_sha256.as_ref()?);
        let foreign = !report.issuer.is_empty() && report.issuer != self.issuer && report.running_as == "trial";
        (foreign && is_nonce(nonce) && self.kept_from_new(sha256, now).is_none()).then(|| nonce.clone())
    }

    /// Moves the order's row to the step that the report shows.
    fn follow_step(&mut self, id: &str, report: &ReportWire, now: u64) -> bool {
        let Some(row) = self.named(id, report).cloned() else { return false };
        let Some(step) = step_of(report, &row) else { return false };
        // Silent agents come back, rejected files are tried again, a cancel may come too late; other ends are final.
        let reopened = match row.end() {
            None => false,
            Some(End::Silent) => true,
            Some(End::RolledBack) => report.result.is_none() && step > Step::Waiting,
            Some(End::Cancelled) => step.has_switched(),
            Some(_) => return false,
        };
        if row.end().is_some() && !reopened {
            return false;
        }
        let before = row.step().unwrap_or(Step::Ordered);
        let mut next = row.clone();
        let moved = reopened || before != step;
        if moved {
            next.since = now;
            next.state = step.word().into();
        }
        next.code = clean(&report.code, NAME_MAX);
        next.detail = clean(&report.detail, DETAIL_MAX);
        if next.code.trim().is_empty() || next.detail.trim().is_empty() {
            (next.code, next.detail) = (step.word().into(), step.sentence().into());
        }
        next.until = report.until;
        let waits_anew = step == Step::Waiting && next.code != row.code;
        self.step_events(&mut next, before, step, report, waits_anew, now);
        // The text of a download changes with every report; only what a restart needs is written.
        if moved || next.code != row.code || next.quarter != row.quarter {
            self.keep_order(next);
        } else {
            self.orders.insert((next.rollout, next.agent.clone()), next);
        }
        moved
    }

    /// The device cannot even keep the order: its report names an earlier one, and says why. The row stays where it is, with
    /// that reason; the answer brings the order again.
    fn note_not_taken(&mut self, id: &str, report: &ReportWire, now: u64) {
        let of_state = report.step == "waiting" && STATE_CODES.contains(&report.code.as_str());
        if !of_state || self.named(id, report).is_some() {
            return;
        }
        let Some(row) = self.order_in_force(id).map(|(o, _)| o.clone()) else { return };
        if row.step() == Some(Step::Ordered) && row.end().is_none() && row.code != report.code {
            let next = Order { code: clean(&report.code, NAME_MAX), detail: clean(&report.detail, DETAIL_MAX), ..row };
            self.event(now, id, "waiting", format!("{} ({})", next.detail, next.code), Some(&next));
            self.keep_order(next);
        }
    }

    /// One event for each step passed since the last report.
    fn step_events(&mut self, row: &mut Order, before: Step, step: Step, report: &ReportWire, waits_anew: bool, now: u64) {
        let id = row.agent.clone();
        let passed = |s: Step| before < s && step >= s;
        if passed(Step::Accepted) {
            self.event(now, &id, "order_accepted", "", Some(row));
        }
        if waits_anew {
            self.event(now, &id, "waiting", format!("{} ({})", row.detail, row.code), Some(row));
        }
        if passed(Step::Downloading) {
            self.event(now, &id, "download_started", format!("{} bytes", row.length), Some(row));
        }
        if step == Step::Downloading && row.length > 0 {
            let quarter = (report.bytes_done.min(row.length) as u128 * 4 / u128::from(row.length)) as u64 * 25;
            let seen = row.quarter;
            row.quarter = seen.max(quarter.min(75));
            for reached in [25, 50, 75].into_iter().filter(|q| *q > seen && *q <= quarter) {
                self.event(now, &id, "download_progress", format!("{reached} %"), Some(row));
            }
        }
        if passed(Step::Staged) {
            self.event(now, &id, "download_completed", format!("{} bytes", row.length), Some(row));
            let by = row.signed_by.as_ref().map_or(String::new(), |by| format!(" ({by})"));
            let detail = format!("hash, build signature and release signature are good{by}");
            self.event(now, &id, "signature_verified", detail, Some(row));
        }
        if passed(Step::Switching) {
            self.event(now, &id, "deployment_started", "", Some(row));
        }
        if passed(Step::Trial) {
            self.event(now, &id, "trial_started", format!("running: {}", clean(&report.running, NAME_MAX)), Some(row));
        }
    }

    /// Takes the end of an order in. The same id again changes nothing.
    fn take_result(&mut self, id: &str, report: &ReportWire, result: &ResultWire, now: u64) -> bool {
        let Some(agent) = self.agents.get_mut(id) else { return false };
        if result.id.len() > RESULT_ID_MAX || agent.has_taken(&result.id) {
            return false;
        }
        let mut ids = agent.result_ids.take().unwrap_or_default();
        if ids.len() >= RESULT_IDS_MAX {
            ids.remove(0);
        }
        ids.push(std::mem::replace(&mut agent.result_id, clean(&result.id, RESULT_ID_MAX)));
        agent.result_ids = Some(ids);
        self.keep_agent(id);
        let ours = result.issuer == self.issuer;
        let fits = |o: &&Order| ours && o.agent == id && is_of(o, result.generation);
        let Some(mut row) = self.order_of(id, result.generation).filter(fits).cloned() else {
            let (outcome, version) = (clean(&result.outcome, NAME_MAX), clean(&result.version, NAME_MAX));
            let (code, what) = match result.issuer.starts_with(LOCAL_ISSUER) {
                true => ("local_update", "by an operator's command on the device"),
                false => ("result_foreign", "by the order of another issuer"),
            };
            self.event(now, id, code, format!("{outcome} {version} {what}: {}", clean(&result.detail, DETAIL_MAX)), None);
            return false;
        };
        let (end, reason) = end_of(result, report, &row);
        // A cancel that was obeyed is what our side noted already; one that came too late takes nothing back.
        if end == End::Cancelled && matches!(row.end(), Some(End::Cancelled | End::Updated | End::Already)) {
            return true;
        }
        (row.gap_ms, row.bytes, row.seconds) = (result.gap_ms, result.bytes, result.seconds);
        if end == End::Updated {
            // Whatever reports were lost in between, it went through all of it.
            let before = row.step().unwrap_or(Step::Trial);
            self.step_events(&mut row, before, Step::Trial, report, false, now);
        }
        self.end(row.clone(), end, &reason, now);
        if let Some(retry_at) = result.retry_at.filter(|_| end == End::RolledBack) {
            row = self.orders[&(row.rollout, row.agent.clone())].clone();
            row.until = Some(retry_at);
            self.keep_order(row);
        }
        true
    }

    /// The answer to a report that [`Registry::hear`] has taken in. Nothing in it may be sent before it is durable.
    pub fn answer(&self, id: &str, report: &ReportWire, timestamp_version: u64, now: u64) -> AnswerWire {
        let mut answer = AnswerWire {
            issuer: self.issuer.clone(),
            time: now,
            timestamp_version,
            spread_s: spread_s(self.agents.len()),
            ..Default::default()
        };
        answer.lease_group = self.cluster_of(id).map(|row| row.id.clone());
        if let (Some(result), Some(agent)) = (&report.result, self.agents.get(id)) {
            answer.result_taken = agent.has_taken(&result.id).then(|| result.id.clone());
        }
        let ours = report.issuer == self.issuer;
        // Also of an order that a newer one has replaced before the news of the switch came: a manager must not send a
        // good version back for its own sake.
        if let Some(order) = self.order_of(id, report.generation).filter(|_| ours) {
            let fits = |nonce: &&String| is_nonce(nonce);
            let refused = order.refuse_trial == Some(true);
            if refused && report.running_as == "trial" && report.running_sha256 == order.sha256 {
                answer.trial_refused = report.trial_process.as_ref().or(report.trial_nonce.as_ref()).filter(fits).cloned();
            } else if !refused && report.trial_sha256.as_deref() == Some(order.sha256.as_str()) {
                answer.acknowledged = report.trial_nonce.as_ref().filter(fits).cloned();
            }
        }
        let Some((order, rollout)) = self.order_in_force(id) else { return answer };
        let known = ours && report.generation == order.in_force();
        let alive = order.cancel_generation > 0 || order.step().is_some() || order.end() == Some(End::Silent);
        // A trial hears of its cancellation after its verdict: until then there is nothing it could drop.
        // One below what the device has taken would be ignored there, again and again.
        let old = ours && report.generation > order.in_force();
        if !known && !old && alive {
            answer.order = Some(order.wire(&self.issuer, rollout, now));
        }
        answer
    }
}

/// True when an answer says anything: a poll is answered at once then.
pub fn says_something(answer: &AnswerWire) -> bool {
    let settled = answer.acknowledged.is_some() || answer.trial_refused.is_some() || answer.result_taken.is_some();
    answer.order.is_some() || settled || answer.settings_revision.is_some() || answer.members.is_some()
}

/// True for an answer that would be a lie after a power cut: an order, or the receipt of a result. The acknowledgement of a
/// trial needs no write of its own: it follows from the order, which was durable before it was sent, and the device
/// waits for it without a running version.
pub fn must_be_durable(answer: &AnswerWire) -> bool {
    answer.order.is_some() || answer.result_taken.is_some()
}

fn is_nonce(text: &str) -> bool {
    text.len() <= NONCE_MAX && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_of(order: &Order, generation: u64) -> bool {
    generation > 0 && (generation == order.generation || generation == order.cancel_generation)
}

/// The step that a report shows for the order it names; `None`: the report says nothing about it.
fn step_of(report: &ReportWire, row: &Order) -> Option<Step> {
    let on_trial = report.running_as == "trial" && report.running_sha256 == row.sha256;
    let step = match report.step.as_str() {
        // A trial is believed by its hash, not by its word, which may be about the order before.
        _ if on_trial => Step::Trial,
        "waiting" => Step::Waiting,
        "downloading" => Step::Downloading,
        "staged" => Step::Staged,
        "switching" => Step::Switching,
        // `idle`, `looking`, `starting`, `reported` and words to come: it has the order, no more is known.
        _ if row.step() == Some(Step::Ordered) => Step::Accepted,
        _ => return None,
    };
    // A cancelled order's agent that names the cancel order has dropped the rest; only a trial goes on.
    let dropped = row.cancel_generation > 0 && report.generation == row.cancel_generation;
    (!dropped || step.has_switched()).then_some(step)
}

/// What a result means: `updated` counts only when the running process itself names the ordered hash.
fn end_of(result: &ResultWire, report: &ReportWire, row: &Order) -> (End, Reason) {
    let runs = result.running_sha256 == row.sha256 && report.running_sha256 == row.sha256;
    let end = match result.outcome.as_str() {
        "updated" if runs => End::Updated,
        "already" if runs => End::Already,
        "updated" | "already" => {
            let detail = format!("said '{}' but runs another file: {}", result.outcome, report.running_sha256);
            return (End::RolledBack, Reason::received("runs_another_file".into(), clean(&detail, DETAIL_MAX)));
        }
        // A person ended this trial, here or at the device; that says nothing of the file.
        "rolled_back" if row.refuse_trial == Some(true) || result.code == MANUAL_UPDATE => End::Cancelled,
        "rolled_back" => End::RolledBack,
        "cancelled" => End::Cancelled,
        _ => End::Refused,
    };
    let mut detail = clean(&result.detail, DETAIL_MAX);
    if end == End::RolledBack && !result.verdict.is_empty() {
        detail = clean(&format!("{detail} [{}]", result.verdict), DETAIL_MAX);
    }
    if end == End::Updated {
        detail = format!("{} -> {}, {} bytes, {} s, gap {} ms", row.from_version, row.version, result.bytes, result.seconds, result.gap_ms);
    }
    (end, Reason::received(clean(&result.code, NAME_MAX), detail))
}
