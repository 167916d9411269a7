//! Which image runs next. Pure: every function here changes [`Marks`] in memory only; the shell makes them durable with
//! one write. Nothing here can panic.
//!
//! ```text
//!                    stage, self-test, flip (one write)
//!   Empty ------------------------------------------------> Trial
//!     ^                                                       |  confirm: self-check + acknowledgement of the authority
//!     | cleared once the loss is recorded                     v
//!   Failed <--- verdict bad / could not tell --- Trial    Confirmed
//!     ^                                                       |
//!     +---- damaged file, exec error, 5 unsettled starts -----+
//! ```
//!
//! A slot on trial carries evidence instead of a phase. After a crash the launcher looks at it and decides again:
//! [`verdict`] says what the evidence is worth, [`next_boot`] takes the first image that may start, in the order
//! active -> other confirmed slot -> factory image. The factory image can always start.

use super::hex::Sha256;
use super::reason::Reason;

/// Starts of a trial in all: each may be lost to a power cut, and a sixth says that nothing can be told any more.
pub const TRIAL_STARTS_MAX: u32 = 6;
/// Starts under one boot id that end without a word before a trial is *bad*: one may be bad luck, two are a crash loop.
pub const TRIAL_CRASHES_MAX: u32 = 2;
/// Starts in a row of a confirmed image that reach neither contact nor ten minutes of passed checks.
pub const UNSETTLED_STARTS_MAX: u32 = 5;
/// Probation ends after this many seconds even without a new boot id: servers may not reboot for years.
pub const PROBATION_S: u64 = 7 * 24 * 3600;
/// Code of a trial that ended because an operator replaced the factory image: a decision, no verdict on the file.
pub const MANUAL_UPDATE: &str = "manual_update";

/// One of the two places for an updated binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `<state>/slots/a`
    A,
    /// `<state>/slots/b`
    B,
}

impl Slot {
    /// Both, in order.
    pub const BOTH: [Slot; 2] = [Slot::A, Slot::B];

    /// The other one.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// `a` or `b`: folder name and word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }
}

/// Something the launcher can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// An updated binary.
    Slot(Slot),
    /// The factory image: launcher and last resort.
    Factory,
}

impl Image {
    /// `a`, `b` or `factory`.
    pub fn name(self) -> &'static str {
        match self {
            Image::Slot(slot) => slot.name(),
            Image::Factory => "factory",
        }
    }

    /// The image of that name.
    pub fn from_name(name: &str) -> Option<Image> {
        match name {
            "a" => Some(Image::Slot(Slot::A)),
            "b" => Some(Image::Slot(Slot::B)),
            "factory" => Some(Image::Factory),
            _ => None,
        }
    }
}

/// What the marks say of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing to start; may be written.
    #[default]
    Empty,
    /// May start while its evidence allows; goes back by itself.
    Trial,
    /// Has been confirmed by the authority that ordered it.
    Confirmed,
    /// Lost its trial or its file; kept until the loss is recorded as a result, then `Empty`.
    Failed,
}

/// How far the last start came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Reached {
    /// Counted by the launcher, nothing heard.
    #[default]
    Started,
    /// Passed its self-check.
    SelfCheck,
    /// Contact with its authority, or ten minutes of passed checks: settled.
    Contact,
}

/// How the last start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ended {
    /// Still running, or died without a word: crashed, hung, power cut.
    #[default]
    None,
    /// An orderly stop: says nothing about the binary.
    Stopped,
    /// The contact deadline passed.
    NoContact,
    /// The self-check failed.
    SelfCheckFailed,
    /// The operator asked for the rollback.
    Operator,
}

/// What is known of the starts of one image. The boot id tells a crash from a power cut.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Boot id of the last start.
    pub boot_id: String,
    /// Trial: starts in all. Confirmed and factory: starts in a row that settled nothing.
    pub starts: u32,
    /// Trial: starts under `boot_id` that ended without a word, the last one not included.
    pub crashes: u32,
    /// How far the last start came.
    pub reached: Reached,
    /// How it ended.
    pub ended: Ended,
}

/// The marks of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SlotMarks {
    /// What may be done with it.
    pub condition: Condition,
    /// The file these marks speak of; another file in the slot is not theirs.
    pub sha256: Sha256,
    /// Starts.
    pub evidence: Evidence,
    /// `Failed`: stable code and sentence. `Trial`: why it ended, as the process itself put it.
    pub failure: Option<Reason>,
    /// `Failed` only: the file itself is bad (not tried again) or nothing can be told (tried again after the cooldown).
    pub bad: bool,
}

/// Everything the launcher decides from. One durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Rises with each write, set by the writer; the higher valid copy counts.
    pub sequence: u64,
    /// What should run.
    pub active: Image,
    /// Slot A.
    pub a: SlotMarks,
    /// Slot B.
    pub b: SlotMarks,
    /// Hash of the factory image when it was last started; all zero = never.
    pub factory: Sha256,
    /// Starts of the factory image.
    pub factory_evidence: Evidence,
    /// The factory image was replaced by an operator and runs for that reason.
    pub manual: bool,
    /// The security counter below which no new release is installed.
    pub floor: u64,
    /// Boot id under which the active slot was confirmed; empty = no probation.
    pub probation_boot: String,
    /// End of probation, seconds since 1970.
    pub probation_until: u64,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks {
            sequence: 0,
            active: Image::Factory,
            a: SlotMarks::default(),
            b: SlotMarks::default(),
            factory: [0; 32],
            factory_evidence: Evidence::default(),
            manual: false,
            floor: 0,
            probation_boot: String::new(),
            probation_until: 0,
        }
    }
}

impl Marks {
    /// Marks of a slot.
    pub fn slot(&self, slot: Slot) -> &SlotMarks {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut SlotMarks {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    fn evidence_mut(&mut self, image: Image) -> &mut Evidence {
        match image {
            Image::Slot(slot) => &mut self.slot_mut(slot).evidence,
            Image::Factory => &mut self.factory_evidence,
        }
    }

    /// Where the next update goes, seen from the image that runs: never the running slot, and from the factory image the
    /// slot that would be missed least.
    pub fn inactive(&self, running: Image) -> Slot {
        let worth = |slot: Slot| match self.slot(slot).condition {
            Condition::Empty => 0,
            Condition::Failed => 1,
            Condition::Trial => 2,
            Condition::Confirmed => 3,
        };
        match running {
            Image::Slot(slot) => slot.other(),
            Image::Factory if worth(Slot::B) < worth(Slot::A) => Slot::B,
            Image::Factory => Slot::A,
        }
    }

    /// The slot that would run if the running one failed, if any.
    pub fn fallback(&self, running: Image) -> Option<Slot> {
        Slot::BOTH.into_iter().find(|&s| Image::Slot(s) != running && self.slot(s).condition == Condition::Confirmed)
    }

    /// Nothing in this slot may be started from now on; the step before its files are touched.
    #[must_use]
    pub fn clear(mut self, slot: Slot) -> Marks {
        *self.slot_mut(slot) = SlotMarks::default();
        if self.active == Image::Slot(slot) {
            self.active = self.fallback(Image::Slot(slot)).map_or(Image::Factory, Image::Slot);
        }
        self
    }

    /// The flip: this slot holds a tested file and runs next, on trial.
    #[must_use]
    pub fn start_trial(mut self, slot: Slot, sha256: Sha256) -> Marks {
        *self.slot_mut(slot) = SlotMarks { condition: Condition::Trial, sha256, ..SlotMarks::default() };
        self.active = Image::Slot(slot);
        self.manual = false;
        self
    }

    /// The trial is over and won. `counter` is the release's security counter.
    #[must_use]
    pub fn confirm(mut self, slot: Slot, counter: u64, boot_id: &str, now: u64) -> Marks {
        let marks = self.slot_mut(slot);
        marks.condition = Condition::Confirmed;
        marks.failure = None;
        marks.evidence.starts = 0;
        marks.evidence.crashes = 0;
        marks.evidence.reached = Reached::Contact;
        self.floor = self.floor.max(counter);
        self.probation_boot = boot_id.to_string();
        self.probation_until = now.saturating_add(PROBATION_S);
        self
    }

    /// After the loss of one copy of the marks: a trial that the slot's own `confirmed` says has been won since these marks
    /// were written. An earlier confirmation of the same file has a lower sequence.
    #[must_use]
    pub fn recover_confirmed(self, slot: Slot, files: &SlotFiles, boot_id: &str, now: u64) -> Marks {
        let marks = self.slot(slot);
        let won = files.confirmed.is_some_and(|sequence| sequence >= self.sequence);
        match marks.condition == Condition::Trial && marks.sha256 == files.sha256 && won {
            true => self.confirm(slot, files.counter, boot_id, now),
            false => self,
        }
    }

    /// The running image came this far (never backwards).
    #[must_use]
    pub fn reach(mut self, image: Image, reached: Reached) -> Marks {
        let evidence = self.evidence_mut(image);
        evidence.reached = evidence.reached.max(reached);
        self
    }

    /// The running image ends in this way.
    #[must_use]
    pub fn end(mut self, image: Image, ended: Ended) -> Marks {
        self.evidence_mut(image).ended = ended;
        self
    }

    /// The trial in this slot ends in this way, for this reason, which goes into its result.
    #[must_use]
    pub fn end_trial(mut self, slot: Slot, ended: Ended, reason: Reason) -> Marks {
        self.slot_mut(slot).failure = Some(reason);
        self.end(Image::Slot(slot), ended)
    }

    /// The operator wants the other image: the running slot is given up, the fallback becomes active.
    #[must_use]
    pub fn roll_back(mut self, running: Slot) -> Marks {
        let evidence = &mut self.slot_mut(running).evidence;
        evidence.ended = Ended::Operator;
        let reason = Reason::new("operator", "the operator asked for the rollback");
        self.fail(running, reason, true);
        self.active = self.fallback(Image::Slot(running)).map_or(Image::Factory, Image::Slot);
        self
    }

    /// True while the other slot must not be overwritten without the order's word: until the first settled start under
    /// another boot id, or [`PROBATION_S`]. A clock that was set back may prolong it to twice that, not for decades.
    pub fn in_probation(&self, boot_id: &str, now: u64) -> bool {
        let Image::Slot(slot) = self.active else { return false };
        let left = self.probation_until.saturating_sub(now);
        if self.probation_boot.is_empty() || left == 0 || left > 2 * PROBATION_S {
            return false;
        }
        let evidence = &self.slot(slot).evidence;
        self.probation_boot == boot_id || evidence.reached < Reached::Contact
    }

    fn fail(&mut self, slot: Slot, reason: Reason, bad: bool) {
        let marks = self.slot_mut(slot);
        marks.condition = Condition::Failed;
        marks.failure = Some(reason);
        marks.bad = bad;
    }
}

/// What the evidence of a trial is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file is at fault: not tried again until a release or a person says so.
    Bad(Reason),
    /// Nobody can say: tried again, with contact, after the cooldown.
    CouldNotTell(Reason),
    /// May start once more.
    OnTrial,
}

/// Judges a trial before its next start under `boot_id`, with this start's predecessor already counted by
/// `count_previous`.
pub fn verdict(evidence: &Evidence) -> Verdict {
    let starts = evidence.starts;
    match evidence.ended {
        Ended::SelfCheckFailed => Verdict::Bad(Reason::new("self_check_failed", "the self-check of the new version failed")),
        Ended::Operator => Verdict::Bad(Reason::new("operator", "the operator asked for the rollback")),
        Ended::NoContact => Verdict::CouldNotTell(Reason::new(
            "no_contact",
            "the authority that ordered the update was not reached before the contact deadline",
        )),
        Ended::None if evidence.crashes >= TRIAL_CRASHES_MAX => {
            Verdict::Bad(Reason::new("crashed_or_hung", format!("ended {} times without a word since the same boot", evidence.crashes)))
        }
        _ if starts >= TRIAL_STARTS_MAX => Verdict::CouldNotTell(Reason::new(
            "too_many_starts",
            format!("{starts} starts and no confirmation; power or restarts interrupted them"),
        )),
        Ended::None | Ended::Stopped => Verdict::OnTrial,
    }
}

/// Accounts for the last start of a trial: without a word under the same boot id it was a crash or a hang; under
/// another boot id the power may have failed, and what was held against it is given back.
fn count_previous(evidence: &mut Evidence, boot_id: &str) {
    if evidence.starts == 0 {
        return;
    }
    if evidence.boot_id != boot_id {
        evidence.crashes = 0;
    } else if evidence.ended == Ended::None {
        evidence.crashes = evidence.crashes.saturating_add(1);
    }
}

/// What the launcher sees.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Hash of the factory image, that is of the launcher's own file.
    pub factory: Sha256,
    /// Id of this boot.
    pub boot_id: String,
    /// Why a slot cannot start, found out in this run: missing or damaged file, signature, exec error. Index by [`Slot`] order.
    pub broken: [Option<Reason>; 2],
}

/// What starts now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The image.
    pub image: Image,
    /// To be made durable BEFORE the image is started.
    pub marks: Marks,
}

/// Takes the first image that may start and counts that start. Total: whatever the marks say, an image comes out, and
/// the factory image is always the last resort.
pub fn next_boot(marks: &Marks, seen: &Seen) -> Boot {
    let mut marks = marks.clone();
    if marks.factory != seen.factory {
        // Never started before, or replaced by an operator: a manual update runs, the slots stay as fallback.
        if marks.factory != [0; 32] {
            interrupt_trials(&mut marks, seen);
            marks.active = Image::Factory;
            marks.manual = true;
        }
        marks.factory = seen.factory;
        marks.factory_evidence = Evidence::default();
    }
    // Each turn either starts something or takes one slot out of the game; both slots and the factory image make three.
    for _ in 0..3 {
        match marks.active {
            Image::Slot(slot) => match admit_slot(&mut marks, slot, seen) {
                true => return start(marks, seen),
                false => marks.active = marks.fallback(Image::Slot(slot)).map_or(Image::Factory, Image::Slot),
            },
            Image::Factory => match unsettled(&marks.factory_evidence) >= UNSETTLED_STARTS_MAX {
                true => match marks.fallback(Image::Factory) {
                    Some(slot) if admit_slot(&mut marks, slot, seen) => {
                        marks.active = Image::Slot(slot);
                        marks.manual = false;
                        marks.factory_evidence = Evidence::default();
                        return start(marks, seen);
                    }
                    Some(_) => {}
                    None => return start(marks, seen),
                },
                false => return start(marks, seen),
            },
        }
    }
    marks.active = Image::Factory;
    start(marks, seen)
}

/// A trial ends with the operator's act: left as it is, nobody would judge or confirm it any more, and it has no deadline.
/// What its evidence proves already is told as ever.
fn interrupt_trials(marks: &mut Marks, seen: &Seen) {
    for slot in Slot::BOTH {
        if marks.slot(slot).condition == Condition::Trial && admit_slot(marks, slot, seen) {
            let detail =
                "an operator replaced the factory image while this version was on trial; the new image runs, an order may say otherwise";
            marks.fail(slot, Reason::new(MANUAL_UPDATE, detail), false);
        }
    }
}

/// May this slot start? A no is written into its marks with the reason.
fn admit_slot(marks: &mut Marks, slot: Slot, seen: &Seen) -> bool {
    let broken = seen.broken.get(slot as usize).and_then(Option::as_ref);
    match marks.slot(slot).condition {
        Condition::Empty | Condition::Failed => return false,
        Condition::Trial | Condition::Confirmed => {}
    }
    if let Some(reason) = broken {
        marks.fail(slot, reason.clone(), false);
        return false;
    }
    if marks.slot(slot).condition == Condition::Confirmed {
        let starts = unsettled(&marks.slot(slot).evidence);
        if starts < UNSETTLED_STARTS_MAX {
            return true;
        }
        let detail = format!("{starts} starts in a row reached neither contact nor ten minutes of passed checks");
        marks.fail(slot, Reason::new("crash_loop", detail), true);
        return false;
    }
    let trial = marks.slot_mut(slot);
    count_previous(&mut trial.evidence, &seen.boot_id);
    // The process on trial knew more than its evidence shows, if it ended of its own will.
    let told = matches!(trial.evidence.ended, Ended::SelfCheckFailed | Ended::NoContact | Ended::Operator);
    let own = trial.failure.take().filter(|_| told);
    match verdict(&trial.evidence) {
        Verdict::OnTrial => true,
        Verdict::Bad(reason) => {
            marks.fail(slot, own.unwrap_or(reason), true);
            false
        }
        Verdict::CouldNotTell(reason) => {
            marks.fail(slot, own.unwrap_or(reason), false);
            false
        }
    }
}

/// Starts in a row that settled nothing, as they stand before the next one.
fn unsettled(evidence: &Evidence) -> u32 {
    match (evidence.reached, evidence.ended) {
        (Reached::Contact, _) => 0,
        (_, Ended::Stopped) => evidence.starts.saturating_sub(1),
        _ => evidence.starts,
    }
}

fn start(mut marks: Marks, seen: &Seen) -> Boot {
    let image = marks.active;
    let on_trial = matches!(image, Image::Slot(slot) if marks.slot(slot).condition == Condition::Trial);
    let evidence = marks.evidence_mut(image);
    let before = if on_trial { evidence.starts } else { unsettled(evidence) };
    *evidence =
        Evidence { boot_id: seen.boot_id.clone(), starts: before.saturating_add(1), crashes: evidence.crashes, ..Evidence::default() };
    Boot { image, marks }
}

/// What a slot's own files say of it, for the day when both copies of the marks are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotFiles {
    /// Hash in `slot.json`.
    pub sha256: Sha256,
    /// Security counter in `slot.json`.
    pub counter: u64,
    /// Sequence in `confirmed`, if that file names the same hash.
    pub confirmed: Option<u64>,
}

/// Marks made anew from the slots' own files: confirmed slots count, the last confirmed first; anything else may not start.
/// The security floor is that of the confirmed slots.
pub fn rebuild(a: Option<&SlotFiles>, b: Option<&SlotFiles>) -> Marks {
    let mut marks = Marks { sequence: 1, ..Marks::default() };
    let mut last = None;
    for (slot, files) in [(Slot::A, a), (Slot::B, b)] {
        let Some(SlotFiles { sha256, counter, confirmed: Some(sequence) }) = files else { continue };
        *marks.slot_mut(slot) = SlotMarks { condition: Condition::Confirmed, sha256: *sha256, ..SlotMarks::default() };
        marks.floor = marks.floor.max(*counter);
        marks.sequence = marks.sequence.max(sequence.saturating_add(1));
        if last.is_none_or(|(_, newest)| *sequence > newest) {
            last = Some((slot, *sequence));
        }
    }
    marks.active = last.map_or(Image::Factory, |(slot, _)| Image::Slot(slot));
    marks
}

#[cfg(test)]
mod tests;
