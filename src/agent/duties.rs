//! What a program adds to the engine that does more than update itself: the Director. It serves agents on one thread, and
//! the engine runs on another. An edge build has nothing of this.
//!
//! | the engine | the Director |
//! |---|---|
//! | before an order is looked at | may forbid it: the operator's file at the site is above Fleet ([`Duties::veto`]) |
//! | the binary is verified | fetches, verifies and unpacks the package beside it ([`Duties::package`]) |
//! | everything is staged and tested | backs up, then drains: no agent may be on trial when it stops ([`Duties::before_switch`]) |
//! | on trial | serves: listeners bound, store written, main loop alive ([`Duties::self_check`]) |
//! | each step | is noted with start, end and result ([`Duties::note`]) |

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::device::{Device, Slices};
use super::download::Between;
use super::link::{Link, tick};
use super::mend::signed;
use super::source::{Source, SourceError};
use super::world::{Fetched, World};
use crate::core::backoff;
use crate::core::first_boot::{self as first, Found, LOOK_S, Offer, Plan, Settings};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::release::TargetPath;
use crate::core::slots::{Condition, Image, Marks, Slot};
use crate::core::stage::Stage;
use crate::core::trust::Trusted;
use crate::core::update::{Order, SelfCheck};
use crate::io::fs::overwrite;
use crate::io::package::tree;
use crate::io::package::unpack::LIST;
use crate::io::state::State;
use crate::io::{clock, process, random};
use crate::wire::agent_api::{AnswerWire, ReportWire, ResultWire};
use crate::wire::slot::SlotWire;

/// What there is to be noted of an update.
#[derive(Clone, Debug)]
pub enum Note<'a> {
    /// An order was taken.
    Triggered(&'a Order),
    /// A step of this order begins; one that has begun already goes on.
    Begins(&'a Order, Stage),
    /// It is done.
    Done(&'a Order, Stage, String),
    /// It cannot go on now, or has failed: why.
    Stopped(&'a Order, Stage, Reason),
    /// The update is over.
    Ended(&'a ResultWire),
}

/// What [`Duties::package`] works with.
pub struct Package<'a> {
    /// The Director's folder.
    pub state: &'a State,
    /// The inactive slot; the verified binary is in it.
    pub slot: Slot,
    /// What the release plane has signed, fresh.
    pub trusted: &'a Trusted,
    /// The binary's path; the package lies beside it.
    pub target: &'a TargetPath,
    /// Where from.
    pub source: &'a Source<'a>,
    /// What is said between two slices.
    pub between: &'a mut dyn Between,
}

/// Bytes of the network that were allowed; what has not come when it is dropped is given back.
pub trait Allowed: Send {
    /// So many came; waits as long as a rate wants.
    fn came(&mut self, bytes: u64);
}

/// `None`: nothing counts.
pub type MayFetch = Option<Box<dyn Allowed>>;

/// Why there is no switch now, and in how many seconds it is looked at again.
pub type Pause = (Reason, u64);

/// The program around the engine.
pub trait Duties: Send {
    /// Why the site does not want this order, whoever gave it. Final for the order.
    fn veto(&self, order: &Order) -> Option<Reason>;
    /// Fetches, verifies and unpacks what belongs beside the binary; [`Fetched::Verified`] where there is nothing.
    fn package(&mut self, package: Package) -> Result<Fetched, Reason>;
    /// Whether so many bytes may be fetched over the network now; counted before the first is asked for.
    ///
    /// # Errors
    /// Why not yet.
    fn may_fetch(&mut self, bytes: u64) -> Result<MayFetch, Reason>;
    /// The running version's resources are damaged, and may be fetched again now: as if this were ordered.
    fn repair_due(&mut self, slot: Slot) -> Option<Order>;
    /// When that is due again, in seconds; `None`: nothing is damaged, or something has to wake this thread first.
    fn repair_in_s(&self) -> Option<u64>;
    /// Fetches them beside the damaged ones and puts them in their place.
    fn repair(&mut self, package: Package) -> Result<Fetched, Reason>;
    /// What came of it.
    fn repaired(&mut self, how: Result<Fetched, Reason>);
    /// Everything that comes before a stop: the backup, then the drain. Called until it is content or the order is gone.
    ///
    /// # Errors
    /// No switch yet.
    fn before_switch(&mut self, order: &Order) -> Result<(), Pause>;
    /// The marks now say that this slot runs next.
    fn flipped(&mut self, slot: Slot, order: &Order);
    /// The program's own part of the self-check.
    fn self_check(&self) -> SelfCheck;
    /// Whether this process is on trial, whenever that may have changed.
    fn on_trial(&self, yes: bool);
    /// What this program tells the authority of itself.
    fn says(&self, report: &ReportWire);
    /// What the authority answered, beside what concerns the engine.
    fn heard(&self, answer: &AnswerWire);
    /// Something happened.
    fn note(&mut self, note: Note);
    /// With what a program without an identity enrolls by itself; `None`: it waits for `enroll`.
    fn identity(&self) -> Option<Result<Settings, Reason>>;
    /// It has an identity: what holds the token loses it. What could not be done.
    fn enrolled(&mut self) -> Option<Reason>;
}

/// The stop record of a process with more than one thread: the marks and the record change together, and after a stop
/// nobody changes the marks any more.
#[derive(Clone, Default)]
pub struct StopGate(Arc<Mutex<Gate>>);

#[derive(Default)]
struct Gate {
    stopped: bool,
    record: Option<(PathBuf, Vec<u8>)>,
}

impl StopGate {
    /// An orderly stop begins: says so in the marks, which gives a trial its start back. Afterwards no thread changes them.
    pub fn stop(&self) {
        let mut gate = self.0.lock().unwrap_or_else(|e| e.into_inner());
        gate.stopped = true;
        if let Some((path, bytes)) = gate.record.take()
            && let Err(e) = overwrite(&path, &bytes, false)
        {
            log::warn!("{}: the stop is not recorded: {e}", path.display());
        }
    }

    /// Whether it has begun.
    pub fn is_stopped(&self) -> bool {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).stopped
    }

    /// Changes the marks, and with them what a stop would write.
    fn change<T>(&self, change: impl FnOnce() -> Result<(T, Option<(PathBuf, Vec<u8>)>), Reason>) -> Result<T, Reason> {
        let mut gate = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if gate.stopped {
            return Err(Reason::new("stopping", "this process stops; the next start goes on"));
        }
        let (out, record) = change()?;
        gate.record = record;
        Ok(out)
    }
}

/// The alarm of this process belongs to the main loop, not to the engine's thread.
static SHARED: AtomicBool = AtomicBool::new(false);
/// When the engine's thread took its last turn, milliseconds of the monotonic clock.
static BEAT: AtomicU64 = AtomicU64::new(0);

/// From now on [`tick`] notes the turn only.
pub fn share_alarm() {
    beat();
    SHARED.store(true, Ordering::SeqCst);
}

/// Whether the alarm is another thread's.
pub(super) fn is_shared() -> bool {
    SHARED.load(Ordering::Relaxed)
}

/// The engine's thread lives.
pub(super) fn beat() {
    BEAT.store(clock::monotonic().as_millis() as u64, Ordering::Relaxed);
}

/// Seconds since the engine's thread took its last turn.
pub fn silent_s() -> u64 {
    (clock::monotonic().as_millis() as u64).saturating_sub(BEAT.load(Ordering::Relaxed)) / 1000
}

impl Device {
    /// Gives the engine a program around it.
    pub fn attend(&mut self, duties: Box<dyn Duties>, gate: StopGate) {
        duties.on_trial(self.on_trial());
        (self.duties, self.gate) = (Some(duties), Some(gate));
        if self.agent_id.is_some() {
            self.program_is_enrolled();
        }
        self.prepare_stop();
    }

    fn note(&mut self, note: impl FnOnce(&Order) -> Note) {
        let Some(accepted) = self.accepted() else { return };
        if let Some(duties) = &mut self.duties {
            duties.note(note(&accepted.order));
        }
    }

    /// An order was taken.
    pub(super) fn triggered(&mut self) {
        self.note(|order| Note::Triggered(order));
    }

    /// A step begins, or goes on.
    pub(super) fn begins(&mut self, stage: Stage) {
        self.note(|order| Note::Begins(order, stage));
    }

    /// A step is done.
    pub(super) fn done(&mut self, stage: Stage, how: impl FnOnce() -> String) {
        self.note(|order| Note::Done(order, stage, how()));
    }

    /// A step does not get on: why.
    pub(super) fn stopped(&mut self, stage: Stage, why: &Reason) {
        let why = why.clone();
        self.note(|order| Note::Stopped(order, stage, why));
    }

    /// An update is over.
    pub(super) fn ended(&mut self, result: &ResultWire) {
        if let Some(duties) = &mut self.duties {
            duties.note(Note::Ended(result));
        }
    }

    /// A report goes out.
    pub(super) fn says(&self, report: &ReportWire) {
        self.duties.iter().for_each(|duties| duties.says(report));
    }

    /// The authority answered.
    pub(super) fn heard(&self, answer: &AnswerWire) {
        self.duties.iter().for_each(|duties| duties.heard(answer));
    }

    /// Why the site itself does not want this order.
    pub(super) fn vetoed(&self, order: &Order) -> Option<Reason> {
        self.duties.as_ref().and_then(|duties| duties.veto(order))
    }

    /// What belongs beside the verified binary.
    pub(super) fn with_package(&mut self, slot: Slot, target: &TargetPath, source: &Source) -> Result<Fetched, Reason> {
        let Some(trusted) = self.trust.as_ref().map(|(_, trusted)| trusted.clone()) else { return Ok(Fetched::Verified) };
        let Some(mut duties) = self.duties.take() else { return Ok(Fetched::Verified) };
        let state = self.state.clone();
        let reports = !self.is_local() && self.link.is_some();
        let mut between = Slices::new(self, reports);
        let package = Package { state: &state, slot, trusted: &trusted, target, source, between: &mut between };
        let fetched = duties.package(package);
        self.duties = Some(duties);
        fetched
    }

    /// The same for the version that runs, where that is damaged.
    pub(super) fn package_again(&mut self, slot: Slot, target: &TargetPath, source: &Source) -> Result<Fetched, Reason> {
        let Some(trusted) = self.trust.as_ref().map(|(_, trusted)| trusted.clone()) else { return Ok(Fetched::Interrupted) };
        let Some(mut duties) = self.duties.take() else { return Ok(Fetched::Verified) };
        let mut how = Ok(Fetched::Verified);
        if matches!(duties.self_check(), SelfCheck::Failed(_)) {
            let state = self.state.clone();
            let mut between = Repairs { device: self, said: clock::monotonic() };
            how = duties.repair(Package { state: &state, slot, trusted: &trusted, target, source, between: &mut between });
            duties.repaired(how.clone());
        }
        self.duties = Some(duties);
        how
    }

    /// Whether so many bytes may be fetched over the network.
    pub(super) fn may_fetch(&mut self, bytes: u64) -> Result<MayFetch, Reason> {
        self.duties.as_mut().map_or(Ok(None), |duties| duties.may_fetch(bytes))
    }

    /// Where nothing is ordered or on trial: damaged resources of the running version are fetched again, when that is due.
    fn repair_resources(&mut self) {
        let Image::Slot(slot) = self.running.image else { return };
        if self.on_trial() || self.accepted.as_ref().is_some_and(|a| !a.ended) {
            return;
        }
        let Some(order) = self.duties.as_mut().and_then(|duties| duties.repair_due(slot)) else { return };
        let how = self.fetch_resources(slot, &order);
        self.duties.iter_mut().for_each(|duties| duties.repaired(how.clone()));
    }

    /// The longest that may be waited for the authority: a repair has a time of its own, and no news may come before it.
    pub(super) fn longest_wait_s(&self) -> u64 {
        let busy = self.on_trial() || self.accepted.as_ref().is_some_and(|a| !a.ended);
        self.duties.as_ref().filter(|_| !busy).and_then(|duties| duties.repair_in_s()).unwrap_or(u64::MAX)
    }

    fn fetch_resources(&mut self, slot: Slot, order: &Order) -> Result<Fetched, Reason> {
        if let Err(not) = signed(self.look(order), order) {
            return Ok(not);
        }
        let (Some(link), Some(trusted)) = (self.link.take(), self.trust.as_ref().map(|(_, trusted)| trusted.clone())) else {
            return Ok(Fetched::Interrupted);
        };
        // As with a binary: reports go another way while the bytes flow.
        self.link = self.reporter(Some(&link));
        let (state, source) = (self.state.clone(), Source::Director(&link));
        let how = self.duties.take().map_or(Ok(Fetched::Interrupted), |mut duties| {
            let mut between = Repairs { device: self, said: clock::monotonic() };
            let package = Package { state: &state, slot, trusted: &trusted, target: &order.target, source: &source, between: &mut between };
            let how = duties.repair(package);
            self.duties = Some(duties);
            how
        });
        self.link = Some(link);
        how
    }

    /// A slot's description with the hash of its package's list: one hash binds binary and resources.
    pub(super) fn described(&self, slot: Slot, wire: SlotWire) -> Result<SlotWire, Reason> {
        let folder = self.state.slot_folder(slot);
        let package = match self.state.product().has_resources && folder.join(LIST).exists() {
            true => Some(hex::encode(&tree::hash_list(&folder)?)),
            false => None,
        };
        Ok(SlotWire { package, ..wire })
    }

    /// Everything else that comes before a stop.
    pub(super) fn before(&mut self, order: &Order) -> Result<(), Pause> {
        self.duties.as_mut().map_or(Ok(()), |duties| duties.before_switch(order))
    }

    /// The program's own part of the self-check.
    pub(super) fn own_part(&self) -> SelfCheck {
        self.duties.as_ref().map_or(SelfCheck::Passed, |duties| duties.self_check())
    }

    /// Saves the marks, and with them what a stop writes.
    pub(super) fn change_marks(&mut self, marks: Marks) -> Result<(), Reason> {
        let Some(gate) = self.gate.clone() else {
            let _held = process::StopsHeld::new();
            let (marks, copy) = self.state.save_marks(marks, self.copy, self.marks.sequence)?;
            (self.marks, self.copy) = (marks, Some(copy));
            self.prepare_stop();
            return Ok(());
        };
        let before = self.marks.active;
        gate.change(|| {
            let (marks, copy) = self.state.save_marks(marks, self.copy, self.marks.sequence)?;
            (self.marks, self.copy) = (marks, Some(copy));
            Ok(((), self.stop_record()))
        })?;
        let on_trial = self.on_trial();
        self.duties.iter().for_each(|duties| duties.on_trial(on_trial));
        if let Image::Slot(slot) = self.marks.active
            && self.marks.active != before
            && self.marks.slot(slot).condition == Condition::Trial
        {
            self.flipped(slot);
        }
        Ok(())
    }

    fn flipped(&mut self, slot: Slot) {
        self.done(Stage::Deployment, || format!("self-tested, and the marks name slot {}", slot.name()));
        let order = self.accepted().map(|a| a.order);
        if let (Some(duties), Some(order)) = (&mut self.duties, order) {
            duties.flipped(slot, &order);
        }
        self.begins(Stage::Start);
    }

    /// Tells whoever stops this process what to write: a signal handler, or the program around the engine.
    pub(super) fn prepare_stop(&self) {
        let Some(gate) = &self.gate else { return self.prepare_signal() };
        if let Err(reason) = gate.change(|| Ok(((), self.stop_record()))) {
            log::debug!("{reason}");
        }
    }

    /// Without an identity, at most `left`: what the program's own configuration says, else a command that wakes it.
    pub(super) fn program_looks_for_identity(&mut self, left: Duration) {
        let own_file = Offer { source: first::Source::State, name: String::new(), found: Found::Absent };
        // Written and not taken in: `take_identity` says what is wrong with it.
        let written = self.state.path(self.state.product().config).exists();
        match self.duties.as_ref().filter(|_| !written).and_then(|duties| duties.identity()) {
            None => self.no_plan(None),
            Some(Err(reason)) => self.no_plan(Some(&reason)),
            Some(Ok(settings)) => {
                let plan = Plan { settings, token_from: 0 };
                self.ask_when_due(&plan, plan.clone(), &own_file);
            }
        }
        if !self.state.path(self.state.product().config).exists() {
            self.rest_before_next(left);
        } else if written {
            // Since the look at the start of this turn, perhaps.
            self.take_new_identity();
            if self.link.is_none() {
                super::run::sleep(left.min(Duration::from_secs(LOOK_S)));
            }
        }
    }

    /// `false`: this is an agent, which has no program around it.
    pub(super) fn program_is_enrolled(&mut self) -> bool {
        let Some(duties) = &mut self.duties else { return false };
        self.status.token_left = duties.enrolled().map(|reason| {
            log::warn!("{reason}");
            reason.to_string()
        });
        true
    }

    /// A program around the engine does not begin anew for an identity: what the configuration says now is taken in, at the
    /// start of each turn. It has been written by a command, as a whole.
    pub(super) fn take_identity(&mut self) {
        if self.duties.is_some() {
            self.take_new_identity();
            self.repair_resources();
        }
    }

    fn take_new_identity(&mut self) {
        let Ok(Some((config, _))) = self.state.config() else { return };
        let address = self.link.as_ref().map(Link::address);
        let known = (self.agent_id.as_ref(), address.as_deref());
        if known == (Some(&config.agent_id), Some(config.director.trim_end_matches('/'))) {
            return;
        }
        match Link::new(&config, &self.state, self.wake_fd, tick) {
            Ok(link) => {
                log::info!("{}: this Director is {} at {}", self.state.product().config, config.agent_id, config.director);
                (self.link, self.agent_id, self.offline_grace_s) = (Some(link), Some(config.agent_id.clone()), config.offline_grace_s());
                (self.failures, self.status.refused) = (0, None);
                // By a command, perhaps, while a key waited in a file.
                self.program_is_enrolled();
                self.end_left_over().unwrap_or_else(|reason| log::warn!("{reason}"));
            }
            Err(reason) => log::error!("{reason}"),
        }
    }
}

/// How often a repair says how far it is: it is in nobody's way.
const REPAIR_SAYS: Duration = Duration::from_secs(1);

/// What is said between two slices of a repair; an order that comes meanwhile goes first. The program around the engine is
/// at work itself then, and counts the bytes.
struct Repairs<'a> {
    device: &'a mut Device,
    said: Duration,
}

impl Between for Repairs<'_> {
    fn slice(&mut self, on_disk: u64, _: u64) -> bool {
        let now = clock::monotonic();
        if now.saturating_sub(self.said) < REPAIR_SAYS {
            return !process::drain_wake();
        }
        self.said = now;
        let what = format!("fetching this version's resources again: {on_disk} bytes are on disk");
        self.device.doing("idle", &Reason::new("repairing", what), None);
        !self.device.exchange("/agent/v1/report", 0).unwrap_or(false) && !process::drain_wake()
    }

    fn wait_s(&mut self, error: &SourceError) -> u64 {
        self.device.fetch_failures = self.device.fetch_failures.saturating_add(1);
        backoff::wait_ms(self.device.fetch_failures, random::seed(), error.retry_after_s).div_ceil(1000)
    }

    fn allow(&mut self, _: u64) -> Result<(), Reason> {
        Ok(())
    }

    fn came(&mut self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::agent::run::{RunArgs, RunEnv, load};
    use crate::core::product::DIRECTOR;
    use crate::wire::config::ConfigWire;

    /// `enroll` may be faster than a turn of the engine: what it has written is taken in at the next look, and not after a rest.
    #[test]
    fn an_identity_that_comes_during_a_turn_is_taken_in_that_turn() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open_of(&DIRECTOR, folder.path()).unwrap();
        let args =
            RunArgs { product: &DIRECTOR, state: folder.path().to_path_buf(), supervise: false, raw: Vec::new(), env: RunEnv::default() };
        let mut device = load(&args, state.clone(), Path::new("/nowhere/vmetric-director"), Image::Factory, [9; 32], None).unwrap();
        device.take_new_identity();
        assert!(device.link.is_none() && device.agent_id.is_none());
        let config = ConfigWire {
            format: 1,
            director: "https://127.0.0.1:8443".into(),
            agent_id: "vm-1".into(),
            credential: "c".into(),
            pins: vec![format!("sha256:{}", "ab".repeat(32))],
            ..Default::default()
        };
        state.write_config(&config).unwrap();
        device.program_looks_for_identity(Duration::from_secs(3_600));
        assert_eq!((device.agent_id.as_deref(), device.link.is_some()), (Some("vm-1"), true));
    }
}
