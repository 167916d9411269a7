//! The update engine's decisions: [`next_step`] on the way to the switch, [`trial_step`] after it.
//!
//! There is no stored phase. The shell looks (order, marks, files, clock, contact), asks, does the one step, and looks
//! again. A crash at any point loses nothing but the work since the last durable write.
//!
//! ```text
//! order -> LookUp -> Clear -> Download* -> SelfTest -> (LookAgain) -> Contact -> Switch ==exec==> SelfCheck -> AskAuthority -> Confirm
//!             |         any step may be Wait{reason, until} or Refuse{reason}          \________ RollBack ________/
//! ```

use super::clock::Moment;
use super::hex::{self, Sha256};
use super::product::Product;
use super::reason::Reason;
use super::rejected::Rejected;
use super::release::{Artifact, Platform, TargetPath};
use super::slots::{Condition, Ended, Image, Marks, Slot};
use super::times::Times;
use super::version::Version;

/// Who says that a trial is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The managing Director, by its answer to a report.
    Director,
    /// The operator's command on this device.
    Operator,
}

/// Whether this word ends the trial of an order by that issuer, which is so only if it comes from the authority that
/// ordered it, about this very process. Nothing falls back from one authority to another.
pub fn acknowledges(by: Authority, said: &str, issuer: &str, nonce: &str) -> bool {
    let ordered_by = if issuer.starts_with(LOCAL_ISSUER) { Authority::Operator } else { Authority::Director };
    by == ordered_by && !nonce.is_empty() && said == nonce
}

/// Whether a result of this order that lies on the disk is the end that its command waits for. `condition`: of the slot that
/// holds the ordered file for it, while that slot is the active one. `old`: it lay there before the command came.
///
/// Marks that were lost may put a trial back that had ended before. What was said of it then is not the end of what runs now.
pub fn ends(condition: Option<Condition>, outcome: &str, old: bool) -> bool {
    match condition {
        Some(Condition::Trial) => false,
        Some(Condition::Confirmed) => matches!(outcome, "updated" | "already"),
        _ => !(old && outcome == "updated"),
    }
}

/// What an order asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Run this artifact.
    Update,
    /// Drop what has not been switched yet.
    Cancel,
}

/// An order as the agent keeps it. Times are relative to its receipt, so that no clock needs to agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who ordered; a local operator's order starts with [`LOCAL_ISSUER`].
    pub issuer: String,
    /// Rises with every order of the issuer.
    pub generation: u64,
    /// What to do.
    pub kind: Kind,
    /// Which artifact.
    pub target: TargetPath,
    /// Its hash.
    pub sha256: Sha256,
    /// Its length.
    pub length: u64,
    /// Earliest switch, seconds after receipt.
    pub switch_in_s: u64,
    /// Contact deadline of the trial, seconds, already clamped.
    pub contact_deadline_s: u64,
    /// Switch without contact; the trial lives up to `trial_max_s`.
    pub unattended: bool,
    /// Longest unattended trial.
    pub trial_max_s: u64,
    /// The fallback may be overwritten in probation.
    pub end_probation: bool,
    /// Lifts earlier rejections of this hash.
    pub retry: bool,
    /// A cancel leaves partial work where it is.
    pub keep_staged: bool,
}

/// Issuer prefix of `update --file`: the authority is the operator's command.
pub const LOCAL_ISSUER: &str = "local:";

impl Order {
    /// True when the operator's command on this device is the authority.
    pub fn is_local(&self) -> bool {
        self.issuer.starts_with(LOCAL_ISSUER)
    }
}

/// An order with what the device remembers of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The order.
    pub order: Order,
    /// When it was received.
    pub at: Moment,
    /// It has come to its end; kept for its issuer and generation.
    pub ended: bool,
    /// Bytes fetched for it so far.
    pub bytes: u64,
}

impl Accepted {
    /// Seconds until the order's earliest switch; 0 = it has come.
    pub fn window_s(&self, now: &Moment) -> u64 {
        self.order.switch_in_s.saturating_sub(now.since(&self.at))
    }
}

/// The running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Image.
    pub image: Image,
    /// Hash of its own file.
    pub sha256: Sha256,
    /// Version built in.
    pub version: Version,
}

/// What the trusted metadata say of the ordered target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a process holds one of these; a box would save nothing")]
pub enum Target {
    /// Not looked up since the order came.
    Unknown,
    /// Signed by the release plane.
    Signed(Artifact),
    /// Refused by the trust checks: final for this order.
    Refused(Reason),
    /// Could not be looked up now (unreachable, expired metadata): tried again.
    Unavailable {
        /// Why.
        reason: Reason,
        /// Seconds until the next try: short for a peer that is away, long for metadata that were refused.
        for_s: u64,
    },
}

/// What lies in the inactive slot, by its own evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// Nothing of this target.
    Nothing,
    /// This many bytes of it.
    Partial(u64),
    /// The whole file, hash and build signature verified in this process.
    Verified,
    /// Its self-test passed in this process, too.
    Tested,
}

/// Everything a step depends on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The order in force.
    pub accepted: Option<&'a Accepted>,
    /// The slots' marks.
    pub marks: &'a Marks,
    /// This process.
    pub running: &'a Running,
    /// What updates itself here.
    pub product: &'a Product,
    /// This device.
    pub platform: &'a Platform,
    /// The ordered target.
    pub target: &'a Target,
    /// The inactive slot.
    pub staged: Staged,
    /// Entry of the ordered hash in the rejected list.
    pub rejected: Option<&'a Rejected>,
    /// Why the disk or the permissions do not allow it now.
    pub preflight: Option<&'a Reason>,
    /// Why the site itself does not want this order, whoever gave it.
    pub veto: Option<&'a Reason>,
    /// Seconds since the authority last answered, authenticated.
    pub contact_age_s: Option<u64>,
    /// Seconds since the target was last looked up.
    pub look_age_s: u64,
    /// Now.
    pub now: &'a Moment,
    /// The times in force.
    pub times: &'a Times,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is ordered.
    Idle,
    /// The order is fulfilled: this file runs and is confirmed.
    Already,
    /// The order is withdrawn: drop partial work, unless it says [`Order::keep_staged`].
    Drop,
    /// Not now.
    Wait {
        /// Why.
        reason: Reason,
        /// Seconds from now until the cause ends or is looked at again.
        for_s: u64,
    },
    /// Not at all; ends the order.
    Refuse(Reason),
    /// Refresh the trusted metadata and find the target.
    LookUp,
    /// The same for a target that is staged: it may have been withdrawn since. What cannot be looked up stays as it was.
    LookAgain,
    /// Take the slot out of the marks, then remove its files.
    Clear(Slot),
    /// Fetch the rest of the artifact into the slot.
    Download(Slot),
    /// Run the staged file's `--self-test`.
    SelfTest(Slot),
    /// Ask the authority for a sign of life before the switch.
    Contact,
    /// Write `slot.json`, then these marks, then start the launcher.
    Switch(Slot, Box<Marks>),
}

/// Decides the next step of an update. Total and pure.
pub fn next_step(f: &Facts) -> Step {
    let Some(accepted) = f.accepted.filter(|a| !a.ended) else { return Step::Idle };
    let order = &accepted.order;
    if order.kind == Kind::Cancel {
        return Step::Drop;
    }
    if f.running.sha256 == order.sha256 {
        return Step::Already;
    }
    if let Some(reason) = wrong_order(order, f.product, f.platform) {
        return Step::Refuse(reason);
    }
    if let Some(reason) = f.veto {
        return Step::Refuse(reason.clone());
    }
    if let Some(step) = rejection(accepted, f) {
        return step;
    }
    let artifact = match f.target {
        Target::Unknown => return Step::LookUp,
        Target::Refused(reason) => return Step::Refuse(reason.clone()),
        Target::Unavailable { reason, for_s } => return Step::Wait { reason: reason.clone(), for_s: *for_s },
        Target::Signed(artifact) => artifact,
    };
    if let Some(reason) = wrong_artifact(order, artifact, f) {
        return Step::Refuse(reason);
    }
    stage(accepted, artifact, f)
}

fn wrong_order(order: &Order, product: &Product, here: &Platform) -> Option<Reason> {
    if order.target.product != product.name {
        let detail = format!("the order names product {}; this device takes {} only", order.target.product, product.name);
        return Some(Reason::new("wrong_product", detail));
    }
    if order.target.platform != *here || order.target.file != here.program(product.name) {
        let detail = format!("the order names {}; this device is {here}", order.target);
        return Some(Reason::new("wrong_platform", detail));
    }
    None
}

fn rejection(accepted: &Accepted, f: &Facts) -> Option<Step> {
    let entry = f.rejected?;
    let order = &accepted.order;
    let own = entry.issuer == order.issuer && entry.generation == order.generation;
    if order.retry && !own {
        return None;
    }
    match entry.remaining_s(f.now, f.times) {
        Some(0) => None,
        Some(for_s) => {
            let detail = format!("cooling down after: {}", entry.reason);
            Some(Step::Wait { reason: Reason::new("cooldown", detail), for_s })
        }
        // This very order found it out, and the power failed before it could say so.
        None if own => Some(Step::Refuse(entry.reason.clone())),
        None => {
            let detail = format!("{} was rejected: {}; release it with an order that says retry", entry.version, entry.reason);
            Some(Step::Refuse(Reason::new("rejected", detail)))
        }
    }
}

fn wrong_artifact(order: &Order, artifact: &Artifact, f: &Facts) -> Option<Reason> {
    if artifact.sha256 != order.sha256 || artifact.length != order.length || artifact.path != order.target {
        let detail = format!(
            "the order names {} with sha256 {}, the release plane signed {} with sha256 {}",
            order.target,
            hex::encode(&order.sha256),
            artifact.path,
            hex::encode(&artifact.sha256)
        );
        return Some(Reason::new("order_mismatch", detail));
    }
    if artifact.counter < f.marks.floor {
        let detail =
            format!("security counter {} of {} is below this device's floor {}", artifact.counter, order.target.version, f.marks.floor);
        return Some(Reason::new("below_floor", detail));
    }
    match &artifact.min_version {
        Some(min) if f.running.version < *min => {
            let detail =
                format!("{} needs at least {min} running; this is {}: update to {min} first", order.target.version, f.running.version);
            Some(Reason::new("min_version", detail))
        }
        _ => None,
    }
}

fn stage(accepted: &Accepted, artifact: &Artifact, f: &Facts) -> Step {
    let order = &accepted.order;
    let slot = f.marks.inactive(f.running.image);
    let condition = f.marks.slot(slot).condition;
    match f.staged {
        Staged::Nothing | Staged::Partial(_) => {
            if condition == Condition::Confirmed && !order.end_probation && f.marks.in_probation(&f.now.boot_id, f.now.unix) {
                let detail = "the running version is in probation and the other slot is its fallback; an order may say end-probation";
                let for_s = f.marks.probation_until.saturating_sub(f.now.unix);
                return Step::Wait { reason: Reason::new("probation", detail), for_s };
            }
            if let Some(reason) = f.preflight {
                return Step::Wait { reason: reason.clone(), for_s: f.times.recheck_s };
            }
            if condition == Condition::Empty { Step::Download(slot) } else { Step::Clear(slot) }
        }
        Staged::Verified => Step::SelfTest(slot),
        Staged::Tested if f.look_age_s >= f.times.recheck_s => Step::LookAgain,
        Staged::Tested => {
            let for_s = accepted.window_s(f.now);
            if for_s > 0 {
                let reason = Reason::new("window", "staged and tested; the order's time for the switch has not come");
                return Step::Wait { reason, for_s };
            }
            let fresh = order.is_local() || f.contact_age_s.is_some_and(|age| age <= f.times.contact_fresh_s);
            if !fresh && !order.unattended {
                return Step::Contact;
            }
            Step::Switch(slot, Box::new(f.marks.clone().start_trial(slot, artifact.sha256)))
        }
    }
}

/// Pause between two runs of a check that could not tell: what it waits for (a port, a first reading) takes seconds.
pub const CHECK_AGAIN_S: u64 = 10;

/// The self-check of a process on trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelfCheck {
    /// Not done yet.
    NotRun,
    /// All well.
    Passed,
    /// The file is at fault.
    Failed(Reason),
    /// The operator's check cannot say yet, or could not be run: done again until the trial's time is over.
    CouldNotTell(Reason),
    /// It could not tell too often for a cause that more tries make worse: the trial is over, without a verdict on the file.
    GaveUp(Reason),
}

/// The operator's check may be killed from outside so often in one process on trial: each try of a device that is out of memory
/// kills something else, too.
pub const CHECK_KILLS_MAX: u32 = 3;

/// What it means that the operator's check was killed for the `times`-th time: nothing about the file.
pub fn check_killed(times: u32, reason: Reason) -> SelfCheck {
    if times < CHECK_KILLS_MAX { SelfCheck::CouldNotTell(reason) } else { SelfCheck::GaveUp(reason) }
}

/// Everything a process on trial decides from.
#[derive(Clone, Debug)]
pub struct TrialFacts<'a> {
    /// Its self-check.
    pub self_check: &'a SelfCheck,
    /// The authority echoed this process's nonce.
    pub acknowledged: bool,
    /// The authority said no to this process's nonce: a person does not want this trial to win.
    pub refused: bool,
    /// Seconds awake since this process had checked itself, or since the authority last said that it is busy (authenticated
    /// 429 or 5xx):
    /// a manager must not cause false rollbacks.
    pub silent_s: u64,
    /// Seconds awake since this process started: what a device slept through is nobody's silence.
    pub age_s: u64,
    /// The order's terms.
    pub order: &'a Order,
    /// Who orders, for people.
    pub authority: &'a str,
}

/// What a process on trial does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialStep {
    /// Check yourself.
    SelfCheck,
    /// The same once more after so many seconds.
    CheckAgain {
        /// Why it could not tell.
        reason: Reason,
        /// Seconds until then.
        for_s: u64,
    },
    /// Ask the authority for its acknowledgement; give up after so many seconds.
    Ask {
        /// Seconds left.
        for_s: u64,
    },
    /// Both are there: make it permanent.
    Confirm,
    /// Mark how it ended and start the launcher.
    RollBack(Ended, Reason),
}

/// Decides for a process on trial. Going back is the default; only the acknowledgement of the authority that ordered
/// this update makes it permanent.
pub fn trial_step(f: &TrialFacts) -> TrialStep {
    let silence = if f.order.unattended { f.order.trial_max_s } else { f.order.contact_deadline_s };
    let left = silence.saturating_sub(f.silent_s).min(f.order.trial_max_s.max(silence).saturating_sub(f.age_s));
    match f.self_check {
        SelfCheck::Failed(reason) => TrialStep::RollBack(Ended::SelfCheckFailed, reason.clone()),
        _ if f.refused && !f.acknowledged => {
            TrialStep::RollBack(Ended::Operator, Reason::new("operator", format!("the operator of {} ended the trial", f.authority)))
        }
        SelfCheck::NotRun => TrialStep::SelfCheck,
        // Nobody can tell: that is what the end for want of contact means, too.
        SelfCheck::CouldNotTell(reason) if left == 0 => TrialStep::RollBack(Ended::NoContact, reason.clone()),
        SelfCheck::GaveUp(reason) => TrialStep::RollBack(Ended::NoContact, reason.clone()),
        SelfCheck::CouldNotTell(reason) => TrialStep::CheckAgain { reason: reason.clone(), for_s: left.min(CHECK_AGAIN_S) },
        SelfCheck::Passed if f.acknowledged => TrialStep::Confirm,
        SelfCheck::Passed if left == 0 => {
            let who = if f.order.is_local() { "the operator's command" } else { f.authority };
            let detail = format!("{who} did not acknowledge the new version within {silence} s");
            TrialStep::RollBack(Ended::NoContact, Reason::new("no_contact", detail))
        }
        SelfCheck::Passed => TrialStep::Ask { for_s: left },
    }
}

#[cfg(test)]
mod tests;
