//! The engine's side: what it asks of the Director around it, on the engine's own thread.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::permit::Permit;
use super::resources;
use super::shared::{Quiet, Shared, Word};
use crate::agent::duties::{Allowed, Duties, MayFetch, Note, Package, Pause};
use crate::agent::fault;
use crate::agent::link::tick;
use crate::agent::world::Fetched;
use crate::core::first_boot::Settings;
use crate::core::reason::Reason;
use crate::core::slots::Slot;
use crate::core::stage::Stage;
use crate::core::update::{Order, SelfCheck};
use crate::director::allowance::{Allowance, Counting};
use crate::director::config::key;
use crate::director::resources as beside;
use crate::io::clock;
use crate::io::state::State;
use crate::wire::agent_api::{AnswerWire, ReportWire};

/// A drain is looked at again so soon: the agents on trial report within seconds.
const DRAIN_AGAIN_S: u64 = 2;
/// What an operator has to put right is looked at again so soon.
const REPAIR_AGAIN_S: u64 = 10;

/// The Director, as its engine knows it.
pub struct Guard {
    shared: Arc<Shared>,
    state: State,
    image: PathBuf,
    /// The configuration that was read.
    config: Option<PathBuf>,
    /// The order whose backup is made.
    backed_up: Option<(String, u64)>,
    /// Of this Director's day and rate.
    allowance: Allowance,
    /// The running version's resources are not what was signed.
    damage: Option<Damage>,
    /// The lease of its cluster.
    permit: Permit,
}

/// When a repair is tried next, and what was told of the last try.
#[derive(Default)]
struct Damage {
    /// `None`: once something wakes the engine.
    next: Option<Duration>,
    told: String,
}

impl Guard {
    /// For this Director.
    pub fn new(shared: Arc<Shared>, state: State, image: PathBuf, config: Option<PathBuf>, allowance: Allowance) -> Guard {
        Guard { shared, state, image, config, backed_up: None, allowance, damage: None, permit: Permit::default() }
    }

    /// The running version's resources are damaged: they are fetched again once nothing is ordered.
    #[must_use]
    pub fn damaged(mut self, yes: bool) -> Guard {
        self.damage = yes.then(Damage::default);
        self
    }

    /// What stands in the way, once for each cause, and when it is looked at again.
    fn not_repaired(&mut self, reason: &Reason, for_s: Option<u64>) {
        let Some(damage) = &mut self.damage else { return };
        damage.next = for_s.map(|s| clock::monotonic().saturating_add(Duration::from_secs(s)));
        if damage.told != reason.code {
            damage.told = reason.code.to_string();
            let remedy = "it serves on, and tries again; or bring this version or another one (`update --file BUNDLE`), or one that was kept (`restore`)";
            let detail = format!("the damaged resources of the running version are not repaired: {reason}; {remedy}");
            self.shared.tell(Word::Tell(Reason::new("package_not_repaired", detail)));
        }
    }

    /// The launcher is started at the switch; where it cannot be, nothing stops for it.
    fn launcher_is_there(&self) -> Result<(), Reason> {
        let path = self.image.display();
        let remedy = "the running version goes on; the factory image must be there and executable";
        let missing = |what: String| Reason::new("image_not_started", format!("{path}: {what}; {remedy}"));
        let meta = self.image.metadata().map_err(|e| missing(e.to_string()))?;
        match meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            true => Ok(()),
            false => Err(missing("is no program".into())),
        }
    }

    /// Once for each order: the binary that runs and the configuration, as they are now.
    fn back_up(&mut self, order: &Order) -> Result<(), Pause> {
        let key = (order.issuer.clone(), order.generation);
        if self.backed_up.as_ref() == Some(&key) {
            return Ok(());
        }
        self.note(Note::Begins(order, Stage::Backup));
        match resources::back_up(&self.state, &self.image, self.config.clone(), order) {
            Ok(what) => {
                self.note(Note::Done(order, Stage::Backup, what));
                self.backed_up = Some(key);
                Ok(())
            }
            Err(reason) => {
                self.note(Note::Stopped(order, Stage::Backup, reason.clone()));
                Err((reason, fault::times().recheck_s))
            }
        }
    }

    /// Waits a moment for the main loop: it answers at once unless an agent is on trial.
    fn drain(&mut self, order: &Order) -> Result<(), Pause> {
        self.note(Note::Begins(order, Stage::Stop));
        match self.shared.ask_for_quiet() {
            Quiet::Drained { parked } => {
                let how = format!("no agent is on trial, the store is written; {parked} parked polls are answered at the switch");
                self.note(Note::Done(order, Stage::Stop, how));
                Ok(())
            }
            Quiet::Agents { count, until } => {
                let until = crate::core::time::format(until);
                let detail = format!("{count} agents are on trial and need this Director's word, until {until} at the latest");
                Err((Reason::new("agents_on_trial", detail), DRAIN_AGAIN_S))
            }
            Quiet::Unanswered => Err((
                Reason::new("director_busy", "the Director's main loop has not answered yet; nothing stops before it has"),
                DRAIN_AGAIN_S,
            )),
            Quiet::Refused(reason) => {
                self.note(Note::Stopped(order, Stage::Stop, reason.clone()));
                Err((reason, REPAIR_AGAIN_S.min(fault::times().recheck_s)))
            }
        }
    }
}

impl Duties for Guard {
    fn veto(&self, order: &Order) -> Option<Reason> {
        // The operator's own command is above the operator's file.
        if order.is_local() { None } else { self.shared.veto(order) }
    }

    fn package(&mut self, package: Package) -> Result<Fetched, Reason> {
        let mut between = Counting { between: package.between, allowance: &self.allowance, allowed: None };
        beside::fetch(Package { between: &mut between, ..package })
    }

    fn may_fetch(&mut self, bytes: u64) -> Result<MayFetch, Reason> {
        self.allowance.take(bytes).map(|taken| Some(Box::new(taken) as Box<dyn Allowed>))
    }

    fn repair_due(&mut self, slot: Slot) -> Option<Order> {
        if self.damage.as_ref()?.next.is_some_and(|next| clock::monotonic() < next) {
            return None;
        }
        let order = match resources::as_ordered(&self.state, slot) {
            Ok(order) => order,
            Err(reason) => {
                self.not_repaired(&reason, Some(fault::times().recheck_s));
                return None;
            }
        };
        // In mode manual nothing is fetched, not for this either.
        if let Some(reason) = self.shared.veto(&order) {
            // Cheap to ask, and a change of the file wakes this thread.
            self.not_repaired(&reason, None);
            return None;
        }
        Some(order)
    }

    fn repair_in_s(&self) -> Option<u64> {
        let next = self.damage.as_ref()?.next?;
        Some(next.saturating_sub(clock::monotonic()).as_secs().saturating_add(1))
    }

    fn repair(&mut self, package: Package) -> Result<Fetched, Reason> {
        let mut between = Counting { between: package.between, allowance: &self.allowance, allowed: None };
        beside::repair(Package { between: &mut between, ..package })
    }

    fn repaired(&mut self, how: Result<Fetched, Reason>) {
        let again_s = Some(fault::times().recheck_s);
        match how {
            Ok(Fetched::Interrupted) => {}
            Ok(Fetched::Later(reason, for_s)) => self.not_repaired(&reason, Some(for_s)),
            Ok(Fetched::Refused(reason)) | Err(reason) => self.not_repaired(&reason, again_s),
            Ok(Fetched::Verified) => match resources::check(&self.state) {
                SelfCheck::Failed(reason) => self.not_repaired(&reason, again_s),
                _ => {
                    self.damage = None;
                    let detail = "the damaged resources of the running version were fetched again, and are what was signed";
                    self.shared.tell(Word::Tell(Reason::new("package_repaired", detail)));
                }
            },
        }
    }

    fn before_switch(&mut self, order: &Order) -> Result<(), Pause> {
        if let Err(reason) = self.launcher_is_there() {
            self.note(Note::Begins(order, Stage::Stop));
            self.note(Note::Stopped(order, Stage::Stop, reason.clone()));
            return Err((reason, REPAIR_AGAIN_S));
        }
        self.back_up(order)?;
        tick();
        if let Err((reason, for_s)) = self.permit.drained(&self.shared, &self.state, order.is_local()) {
            self.note(Note::Begins(order, Stage::Stop));
            if reason.code != "draining" {
                self.note(Note::Stopped(order, Stage::Stop, reason.clone()));
            }
            return Err((reason, for_s));
        }
        self.drain(order)?;
        self.permit.last_word(&self.shared, &self.state, order)
    }

    fn flipped(&mut self, slot: Slot, order: &Order) {
        self.note(Note::Begins(order, Stage::Resources));
        let what = resources::activated(&self.state, slot);
        self.note(Note::Done(order, Stage::Resources, what));
    }

    fn self_check(&self) -> SelfCheck {
        match self.shared.main_answers() {
            true => resources::check(&self.state),
            false => SelfCheck::CouldNotTell(Reason::new("director_busy", "the Director's main loop takes no turns")),
        }
    }

    fn on_trial(&self, yes: bool) {
        self.shared.set_on_trial(yes);
    }

    fn says(&self, report: &ReportWire) {
        self.shared.tell(Word::Report(Box::new(report.clone())));
    }

    fn heard(&self, answer: &AnswerWire) {
        self.shared.heard(answer);
    }

    fn note(&mut self, note: Note) {
        if let Note::Ended(result) = &note
            && result.outcome == "rolled_back"
        {
            resources::came_back(&self.state, &result.version);
        }
        self.shared.journal().note(note, clock::unix());
        self.shared.tell(Word::Steps);
    }

    fn identity(&self) -> Option<Result<Settings, Reason>> {
        self.shared.fleet().map(|fleet| key::settings(&fleet))
    }

    fn enrolled(&mut self) -> Option<Reason> {
        key::forget(&self.shared.fleet()?.key_file?.value).err()
    }
}
