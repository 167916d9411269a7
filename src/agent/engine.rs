//! One turn of work: record what was lost, go on with a trial, go on with an order. Each turn looks anew.

use super::world::{Fetched, Tested, World};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::rejected::Rejected;
use crate::core::release::Artifact;
use crate::core::slots::{Condition, Ended, Image, MANUAL_UPDATE, Reached, Slot};
use crate::core::update::{Accepted, Facts, Kind, Order, Step, Target, TrialFacts, TrialStep, next_step, trial_step};
use crate::wire::agent_api::ResultWire;
use crate::wire::records::verdict_word;
use crate::wire::slot::SlotWire;

/// Why an update is done.
const CONFIRMED: &str = "self-check passed and acknowledged by the authority";

/// What the caller does after a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Take the next turn at once.
    Again,
    /// Nothing to do until something is heard.
    Idle,
    /// Nothing to do for so many seconds, or until something is heard.
    Wait {
        /// Why.
        reason: Reason,
        /// How long.
        for_s: u64,
    },
    /// Start the launcher instead of this program.
    Relaunch(Reason),
}

/// Takes one turn. An error is one of the state folder: nothing was decided, the caller reports it and tries again later.
pub fn turn(world: &mut dyn World) -> Result<Turn, Reason> {
    world.read_again();
    let marks = world.marks();
    for slot in Slot::BOTH {
        if marks.slot(slot).condition == Condition::Failed {
            record_loss(world, slot)?;
            return Ok(Turn::Again);
        }
    }
    match world.running().image {
        Image::Slot(slot) if marks.slot(slot).condition == Condition::Trial => trial_turn(world, slot),
        _ => update_turn(world),
    }
}

/// A slot lost its trial or its file: the rejection, the result, and only then the marks. A power cut between repeats it.
fn record_loss(world: &mut dyn World, slot: Slot) -> Result<(), Reason> {
    let marks = world.marks();
    let lost = marks.slot(slot).clone();
    let reason = lost.failure.clone().unwrap_or_else(|| Reason::new("unknown", "the marks name no reason"));
    let described = world.slot_json(slot).ok();
    let (version, issuer, generation) = described.map_or((String::new(), String::new(), 0), |d| (d.version, d.issuer, d.generation));
    let now = world.moment();
    let entry = Rejected {
        sha256: lost.sha256,
        version: version.clone(),
        bad: lost.bad,
        reason: reason.clone(),
        count: 1,
        issuer: issuer.clone(),
        generation,
        since: now.unix,
        since_monotonic: now.monotonic,
        boot_id: now.boot_id.clone(),
        since_director: now.director,
    };
    let by_operator = reason.code == MANUAL_UPDATE;
    // A confirmed file that rotted in its slot is no fault of the release, nor is what an operator did meanwhile: it may come
    // again at once.
    if lost.bad || !(by_operator || world.was_confirmed(slot, &lost.sha256)) {
        world.reject(entry)?;
    }
    let of_order = world.accepted().filter(|a| a.order.issuer == issuer && a.order.generation == generation);
    let left = world.rejected(&lost.sha256).and_then(|r| r.remaining_s(&now, &world.times()));
    let result = ResultWire {
        outcome: "rolled_back".into(),
        verdict: verdict_word(lost.bad).into(),
        version,
        sha256: hex::encode(&lost.sha256),
        retry_at: if lost.bad || by_operator { None } else { Some(now.unix + left.unwrap_or(0)) },
        issuer,
        generation,
        ..blank_result(world, &reason, of_order.as_ref())
    };
    add_result(world, result)?;
    // A command's order is over with its trial: the command that would acknowledge another one has had its answer. An operator's
    // act is newer than the order; who ordered hears of it and decides anew.
    if of_order.is_some_and(|a| !a.ended && (lost.bad || by_operator || a.order.is_local())) {
        world.end_order()?;
    }
    let cleared = world.marks().clear(slot);
    world.save_marks(cleared)
}

fn trial_turn(world: &mut dyn World, slot: Slot) -> Result<Turn, Reason> {
    let image = Image::Slot(slot);
    let order = match trial_order(world, slot) {
        Ok(order) => order,
        // Without terms there is no deadline: a trial that nobody can end does not go on.
        Err(reason) => return Ok(give_up(world, slot, Ended::NoContact, reason)),
    };
    let (age_s, silent_s) = world.ages_s();
    let self_check = world.self_check();
    let facts = TrialFacts {
        self_check: &self_check,
        acknowledged: world.acknowledged() || was_won(world, slot),
        refused: world.refused(),
        silent_s,
        age_s,
        order: &order,
        authority: world.product().authority,
    };
    match trial_step(&facts) {
        TrialStep::SelfCheck => {
            world.run_self_check();
            Ok(Turn::Again)
        }
        TrialStep::CheckAgain { reason, for_s } => {
            world.forget_self_check();
            Ok(Turn::Wait { reason, for_s })
        }
        TrialStep::Ask { for_s } => {
            let asked = world.ask();
            if world.acknowledged() || world.refused() {
                return Ok(Turn::Again);
            }
            // Only a trial that has to wait notes how far it came: the device waits for the answer without a confirmed version.
            let marks = world.marks();
            if marks.slot(slot).evidence.reached < Reached::SelfCheck {
                world.save_marks(marks.reach(image, Reached::SelfCheck))?;
            }
            let waiting = || Reason::new("trial", "on trial: waiting for the acknowledgement of the authority");
            Ok(Turn::Wait { reason: asked.err().unwrap_or_else(waiting), for_s })
        }
        TrialStep::Confirm => {
            confirm(world, slot)?;
            Ok(Turn::Again)
        }
        TrialStep::RollBack(ended, reason) => Ok(give_up(world, slot, ended, reason)),
    }
}

/// Whether the authority has acknowledged this very trial before: its result says so, which is written last, and no order is in
/// force that could have begun it anew. Then marks and `confirmed` have rotted since, and nobody may be left to say it again.
fn was_won(world: &dyn World, slot: Slot) -> bool {
    if world.accepted().is_some_and(|a| !a.ended) {
        return false;
    }
    let (Some(last), Ok(ours)) = (world.last_result(), world.slot_json(slot)) else { return false };
    let said = (last.outcome.as_str(), &last.sha256, &last.issuer, last.generation);
    said == ("updated", &ours.sha256, &ours.issuer, ours.generation)
}

/// Ends a trial. A state folder that cannot be written keeps nobody on trial: the launcher starts no trial whose start it
/// cannot count, and takes the other image.
fn give_up(world: &mut dyn World, slot: Slot, ended: Ended, reason: Reason) -> Turn {
    let marks = world.marks().end_trial(slot, ended, reason.clone());
    if let Err(unsaved) = world.save_marks(marks) {
        log::warn!("how the trial ended is not recorded: {unsaved}");
    }
    Turn::Relaunch(reason)
}

/// The terms of the running trial: the order in force, or, if that was lost, the defaults for the slot's own description.
fn trial_order(world: &dyn World, slot: Slot) -> Result<Order, Reason> {
    let sha256 = world.marks().slot(slot).sha256;
    if let Some(accepted) = world.accepted().filter(|a| a.order.sha256 == sha256 && a.order.kind == Kind::Update) {
        return Ok(accepted.order);
    }
    world.slot_json(slot)?.as_order(&world.times()).map_err(|why| Reason::new("slot_damaged", why))
}

/// Both conditions are met. The slot's own file first: it is what lost marks are rebuilt from.
fn confirm(world: &mut dyn World, slot: Slot) -> Result<(), Reason> {
    let marks = world.marks();
    let sha256 = marks.slot(slot).sha256;
    let counter = world.slot_json(slot)?.counter;
    world.write_confirmed(slot, sha256)?;
    let now = world.moment();
    world.save_marks(marks.confirm(slot, counter, &now.boot_id, now.unix))?;
    let described = world.slot_json(slot)?;
    let ours = |a: &Accepted| !a.ended && a.order.issuer == described.issuer && a.order.generation == described.generation;
    if world.accepted().is_some_and(|a| ours(&a)) {
        // The order says so when it ends, in the next turn.
        return Ok(());
    }
    // The order was lost on the way, or had ended when lost marks put this trial back; who gave it waits for a word.
    let result = ResultWire {
        outcome: "updated".into(),
        version: described.version,
        sha256: hex::encode(&sha256),
        issuer: described.issuer,
        generation: described.generation,
        ..blank_result(world, &Reason::new("confirmed", CONFIRMED), None)
    };
    add_result(world, result)
}

fn update_turn(world: &mut dyn World) -> Result<Turn, Reason> {
    let Some(accepted) = world.accepted() else { return Ok(Turn::Idle) };
    match decide(world, &accepted) {
        Step::Idle => Ok(Turn::Idle),
        Step::Wait { reason, for_s } => Ok(Turn::Wait { reason, for_s: for_s.max(1) }),
        Step::Already => already(world, &accepted),
        Step::Drop => {
            if !accepted.order.keep_staged {
                drop_partial(world)?;
            }
            end(world, &accepted, "cancelled", &Reason::new("cancelled", "the order was withdrawn before the switch"))
        }
        Step::Refuse(reason) => {
            drop_partial(world)?;
            end(world, &accepted, "refused", &reason)
        }
        Step::LookUp => world.look_up(&accepted.order).map(|()| Turn::Again),
        Step::LookAgain => world.look_again(&accepted.order).map(|()| Turn::Again),
        Step::Clear(slot) => {
            let cleared = world.marks().clear(slot);
            world.save_marks(cleared)?;
            world.clear_slot(slot, Some(accepted.order.sha256)).map(|()| Turn::Again)
        }
        Step::Download(slot) => download(world, slot, &accepted),
        Step::SelfTest(slot) => self_test(world, slot, &accepted),
        Step::Contact => match world.contact() {
            Ok(()) => Ok(Turn::Again),
            Err(reason) => {
                let detail = format!("staged and tested, but no switch without contact: {}", reason.detail);
                Ok(Turn::Wait { reason: Reason::new("no_contact_before_switch", detail), for_s: world.times().contact_fresh_s })
            }
        },
        Step::Switch(slot, marks) => {
            let Target::Signed(artifact) = world.target() else { return Ok(Turn::Again) };
            if let Err((reason, for_s)) = world.before_switch(&accepted.order) {
                return Ok(Turn::Wait { reason, for_s: for_s.max(1) });
            }
            world.write_slot_json(slot, SlotWire::new(&artifact, &accepted.order.issuer, accepted.order.generation))?;
            world.save_marks(*marks)?;
            Ok(Turn::Relaunch(Reason::new("switch", format!("switching to {} in slot {}", artifact.path.version, slot.name()))))
        }
    }
}

fn decide(world: &dyn World, accepted: &Accepted) -> Step {
    let (marks, running, platform, target) = (world.marks(), world.running(), world.platform(), world.target());
    let (now, times) = (world.moment(), world.times());
    let slot = marks.inactive(running.image);
    let staged = world.staged(slot, &accepted.order);
    let rejected = world.rejected(&accepted.order.sha256);
    let preflight = world.preflight(slot, accepted.order.length);
    let veto = world.veto(&accepted.order);
    next_step(&Facts {
        accepted: Some(accepted),
        marks: &marks,
        running: &running,
        product: world.product(),
        platform: &platform,
        target: &target,
        staged,
        rejected: rejected.as_ref(),
        preflight: preflight.as_ref(),
        veto: veto.as_ref(),
        contact_age_s: world.contact_age_s(),
        look_age_s: world.look_age_s(),
        now: &now,
        times: &times,
    })
}

fn download(world: &mut dyn World, slot: Slot, accepted: &Accepted) -> Result<Turn, Reason> {
    let Target::Signed(artifact) = world.target() else { return Ok(Turn::Again) };
    match world.download(slot, &artifact)? {
        Fetched::Verified | Fetched::Interrupted => Ok(Turn::Again),
        Fetched::Later(reason, for_s) => Ok(Turn::Wait { reason, for_s: for_s.max(1) }),
        Fetched::Refused(reason) => end(world, accepted, "refused", &reason),
    }
}

fn self_test(world: &mut dyn World, slot: Slot, accepted: &Accepted) -> Result<Turn, Reason> {
    let Target::Signed(artifact) = world.target() else { return Ok(Turn::Again) };
    match world.self_test(slot) {
        Tested::Passed => Ok(Turn::Again),
        Tested::Bad(reason) => {
            world.reject(rejection(world, &artifact, accepted, &reason, true))?;
            world.clear_slot(slot, None)?;
            end(world, accepted, "refused", &reason)
        }
        Tested::CouldNotTell(reason) => {
            world.reject(rejection(world, &artifact, accepted, &reason, false))?;
            Ok(Turn::Again)
        }
    }
}

fn rejection(world: &dyn World, artifact: &Artifact, accepted: &Accepted, reason: &Reason, bad: bool) -> Rejected {
    let now = world.moment();
    Rejected {
        sha256: artifact.sha256,
        version: artifact.path.version.to_string(),
        bad,
        reason: reason.clone(),
        count: 1,
        issuer: accepted.order.issuer.clone(),
        generation: accepted.order.generation,
        since: now.unix,
        since_monotonic: now.monotonic,
        boot_id: now.boot_id,
        since_director: now.director,
    }
}

/// The ordered file runs. It is this order's work when the slot says so; else it ran before.
fn already(world: &mut dyn World, accepted: &Accepted) -> Result<Turn, Reason> {
    let order = &accepted.order;
    let ours = match world.running().image {
        Image::Slot(slot) => world.slot_json(slot).is_ok_and(|w| w.issuer == order.issuer && w.generation == order.generation),
        Image::Factory => false,
    };
    if ours {
        return end(world, accepted, "updated", &Reason::new("confirmed", CONFIRMED));
    }
    // Whoever orders the version that runs may do so because its files are damaged.
    match world.repair(order)? {
        None => end(world, accepted, "already", &Reason::new("already", "the ordered file runs already")),
        Some(Fetched::Verified) => {
            let detail = "the ordered file runs already; what was damaged in its slot was fetched again";
            end(world, accepted, "already", &Reason::new("repaired", detail))
        }
        Some(Fetched::Refused(reason)) => end(world, accepted, "refused", &reason),
        Some(Fetched::Later(reason, for_s)) => Ok(Turn::Wait { reason, for_s: for_s.max(1) }),
        Some(Fetched::Interrupted) => Ok(Turn::Again),
    }
}

/// Forgets partial work of an order that will not be carried out; a confirmed fallback stays.
pub(super) fn drop_partial(world: &mut dyn World) -> Result<(), Reason> {
    let (marks, running) = (world.marks(), world.running());
    let slot = marks.inactive(running.image);
    match marks.slot(slot).condition {
        Condition::Empty => world.clear_slot(slot, None),
        _ => Ok(()),
    }
}

fn end(world: &mut dyn World, accepted: &Accepted, outcome: &str, reason: &Reason) -> Result<Turn, Reason> {
    let order = &accepted.order;
    let result = ResultWire {
        outcome: outcome.into(),
        version: order.target.version.to_string(),
        sha256: hex::encode(&order.sha256),
        issuer: order.issuer.clone(),
        generation: order.generation,
        ..blank_result(world, reason, Some(accepted))
    };
    add_result(world, result)?;
    world.end_order()?;
    Ok(Turn::Again)
}

fn blank_result(world: &dyn World, reason: &Reason, accepted: Option<&Accepted>) -> ResultWire {
    let (running, now) = (world.running(), world.moment());
    let (bytes, gap_ms) = world.costs();
    ResultWire {
        code: reason.code.to_string(),
        detail: reason.detail.clone(),
        running_version: running.version.to_string(),
        running_sha256: hex::encode(&running.sha256),
        at: now.unix,
        bytes,
        gap_ms,
        seconds: accepted.map_or(0, |a| now.since(&a.at)),
        ..Default::default()
    }
}

/// The same end gets the same id, so that a power cut between the result and what follows it makes no second result.
fn add_result(world: &mut dyn World, mut result: ResultWire) -> Result<(), Reason> {
    let tries = hex::decode(&result.sha256).and_then(|sha| world.rejected(&sha)).map_or(0, |r| r.count);
    let text = format!("{}\0{}\0{}\0{}\0{tries}", result.issuer, result.generation, result.outcome, result.sha256);
    result.id = hex::encode(&hex::sha256(text.as_bytes())[..8]);
    world.add_result(result)
}
