//! This Director's own updates: the agent's launcher, slots and engine, with Fleet as the authority.
//!
//! ```text
//! service manager -> factory image: launcher --exec--> slot: the Director
//!                                                        |-- main thread: serves, answers the engine's questions
//!                                                        +-- engine: the agent's loop, with a link to Fleet
//! an orderly switch: engine flips the marks -> main loop answers its polls, closes the store -> exec of the factory image
//! ```
//!
//! | step | by | what can fail comes before the stop |
//! |---|---|---|
//! | Version Check, Download, Signature Verification | engine | |
//! | Backup | [`resources`] | |
//! | Service Stop | [`permit`]: the cluster's lease; [`attend`]: drain | no agent is on trial, the store is written |
//! | Deployment, Resource Update | engine: one write of the marks | |
//! | Service Start | launcher, [`begin`] | an error at the start of a trial ends it with its reason |
//! | confirm or roll back | engine | Fleet's word, or its silence |
//!
//! Without `config/fleet.json` the engine has nobody to ask and waits for `enroll`.

pub mod attend;
pub mod command;
pub mod guard;
pub mod journal;
pub mod permit;
pub mod resources;
pub mod shared;

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use smol::LocalExecutor;

use self::guard::Guard;
use self::shared::{Shared, Word};
use super::allowance;
use super::bell::Bell;
use super::cluster::lease;
use super::config::start::Settings;
use super::config::{Config, key};
use super::site::Site;
use crate::agent::run::{self, ENV_IMAGE, ENV_LOCK, ENV_RUNNING, ENV_SWITCHED, EXIT_RUNS_ALREADY, RunArgs, Started};
use crate::agent::{build, duties, handover, link, status};
use crate::core::product::DIRECTOR;
use crate::core::reason::Reason;
use crate::core::slots::{Condition, Ended, Image, Slot};
use crate::core::update::Order;
use crate::io::state::State;
use crate::io::{clock, process};
use crate::wire::agent_api::ReportWire;
use crate::wire::records::AcceptedWire;

/// What a start turned out to be.
pub enum Begun {
    /// The Director itself.
    Director(Rc<Own>),
    /// Something that has ended: a supervisor, or a second Director.
    Ended(i32),
}

/// A Director and its place among its own versions.
pub struct Own {
    args: RunArgs,
    started: Started,
    /// What both threads hold.
    pub shared: Arc<Shared>,
    leaving: RefCell<Option<Reason>>,
    asked: Bell,
    serves: Cell<bool>,
    outside: Cell<bool>,
}

/// Finds the place of this process: supervisor, launcher or Director. The launcher returns only if nothing better can start.
///
/// # Errors
/// One sentence.
pub fn begin(args: RunArgs) -> Result<Begun, String> {
    if handover::is_parent(&args) {
        return Ok(Begun::Ended(handover::supervise(&args)));
    }
    if let Some(parent) = args.env.supervisor {
        process::die_with_parent(parent);
    }
    let supervised = args.env.supervisor.is_some();
    match run::begin(&args).map_err(|reason| reason.to_string())? {
        None if supervised => Ok(Begun::Ended(EXIT_RUNS_ALREADY)),
        None => Ok(Begun::Ended(1)),
        Some(started) => {
            link::tick();
            let shared = Arc::new(Shared::new(&started.state));
            let (leaving, asked) = (RefCell::default(), Bell::default());
            Ok(Begun::Director(Rc::new(Own { args, started, shared, leaving, asked, serves: Cell::new(false), outside: Cell::new(false) })))
        }
    }
}

/// Whether a disk said this, full, broken or read-only: nothing about the version that met it. The system's number stands in
/// the text of every error of a file.
fn is_of_the_disk(error: &str) -> bool {
    let numbers = [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EROFS, libc::EMFILE, libc::ENFILE];
    numbers.iter().any(|number| error.contains(&format!("(os error {number})")))
}

/// Whether `run` watches over itself where no service manager does: once there is something to go back to.
pub fn wants_supervisor(state: &Path) -> bool {
    let state = State::look_of(&DIRECTOR, state);
    state.path(DIRECTOR.config).exists() || Slot::BOTH.iter().any(|slot| state.slot_program(*slot).exists())
}

impl Own {
    /// The Director serves: the engine starts, and the main loop answers it.
    ///
    /// # Errors
    /// The engine's thread or its pipe cannot be made.
    pub fn serve(self: &Rc<Own>, site: &Rc<Site>, executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
        let wake_fd = process::wake_pipe().map_err(|e| format!("signals: {e}"))?;
        process::install_wake();
        duties::share_alarm();
        self.serves.set(true);
        let (args, state, image) = (self.args.clone(), self.started.state.clone(), self.started.image.clone());
        let (running, own_hash, shared) = (self.started.running, self.started.own_hash, self.shared.clone());
        let config = site.settings.borrow().file.clone();
        let (allowance, counting) = allowance::of(site);
        executor.spawn(counting).detach();
        let engine = move || {
            let mut device = match run::load(&args, state.clone(), &image, running, own_hash, Some(wake_fd)) {
                Ok(device) => device,
                Err(reason) => return log::error!("this Director does not update itself: {reason}"),
            };
            let damaged = resources::look(&state, &image);
            // What was noted is told now, not at the next start.
            shared.tell(Word::Steps);
            let guard = Guard::new(shared.clone(), state, image, config, allowance).damaged(damaged);
            device.attend(Box::new(guard), shared.gate.clone());
            let reason = device.work_on();
            shared.tell(Word::Relaunch(reason));
            // The main loop ends this process; until then this thread is no reason to.
            loop {
                run::rest();
            }
        };
        site.cluster.restore(&self.started.state);
        self.obey_file(&site.settings.borrow());
        std::thread::Builder::new().name("engine".into()).spawn(engine).map_err(|e| format!("the engine's thread: {e}"))?;
        *site.own.borrow_mut() = Some(self.clone());
        executor.spawn(attend::heart(self.clone())).detach();
        executor.spawn(lease::keep(site.clone(), self.shared.clone(), self.started.state.clone())).detach();
        executor.spawn(attend::attend(self.clone(), site.clone())).detach();
        Ok(())
    }

    /// What comes now depends on this machine, not on this version: an error here says nothing of the file.
    pub fn outside(&self, yes: bool) {
        self.outside.set(yes);
    }

    /// What the operator's file at this site forbids is not done, whoever orders it; a command at this site is the
    /// operator's, too.
    pub fn obey_file(&self, settings: &Settings) {
        // Without a file there is nothing in the configuration.
        let file = settings.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
        let config = settings.config.clone();
        let veto = move |order: &Order| config.local_policy(&file, &order.target.version).err().filter(|_| !order.is_local());
        self.shared.forbid(Box::new(veto));
        self.shared.fleet_is(settings.config.fleet.clone());
    }

    /// The engine wants the launcher.
    fn ask_to_leave(&self, reason: Reason) {
        *self.leaving.borrow_mut() = Some(reason);
        self.asked.ring();
    }

    /// Waits until it does.
    pub async fn asked_to_leave(&self) -> Reason {
        loop {
            if let Some(reason) = self.leaving.borrow().clone() {
                return reason;
            }
            self.asked.wait().await;
        }
    }

    /// Its state folder.
    pub fn state(&self) -> State {
        self.started.state.clone()
    }

    /// An orderly stop begins: a trial gets its start back.
    pub fn stop(&self) {
        self.shared.gate.stop();
    }

    /// `running: 2.5.0 (slot b, confirmed)` and the rest, as `status` shows it.
    pub fn status(&self) -> status::StatusReport {
        status::look(&self.started.state, Some(std::process::id()), build::VERSION)
    }

    /// What the file's `fleet:` comes to, where that is not what runs.
    pub fn fleet_note(&self, config: &Config) -> Option<String> {
        let known = self.started.state.config().ok().flatten().map(|(config, _)| (config.director, config.agent_id));
        let fleet = config.fleet.as_ref()?;
        let moved = known.as_ref().is_none_or(|(address, _)| address.trim_end_matches('/') != fleet.address.value.trim_end_matches('/'));
        moved.then(|| key::outlook(fleet, known.as_ref()))
    }

    /// This Director's name at Fleet; empty = it has none.
    pub fn node(&self) -> String {
        self.started.state.config().ok().flatten().map_or(String::new(), |(config, _)| config.agent_id)
    }

    /// The version that it is ordered to run; absent when there is none.
    pub fn scheduled_version(&self) -> Option<String> {
        let accepted: Option<AcceptedWire> = self.started.state.read("order.json").ok().flatten();
        accepted.filter(|a| !a.ended && a.order.kind == "update").map(|a| a.order.version)
    }

    /// When the step that it is at ends by itself: Fleet gives an order up, a trial runs out.
    pub fn deadline(&self, report: &ReportWire) -> Option<u64> {
        if report.step == "trial" {
            return report.until;
        }
        let accepted: Option<AcceptedWire> = self.started.state.read("order.json").ok().flatten();
        accepted.filter(|a| !a.ended && a.order.kind == "update").map(|a| status::fetch_deadline(&a))
    }

    /// Ends what `run` began. `how`: the launcher is wanted, or the error that ended it. `stop`: where a signal shows.
    ///
    /// # Errors
    /// As given, or why the launcher does not start.
    pub fn end(&self, how: Result<bool, String>, stop: &UnixStream) -> Result<(), String> {
        match how {
            Ok(false) => Ok(()),
            Ok(true) => self.relaunch(stop),
            Err(error) if self.serves.get() || !self.ends_trial(&error) => Err(error),
            Err(error) => {
                log::error!("this version does not start, going back: {error}");
                self.relaunch(stop).and(Err(error))
            }
        }
    }

    /// A version on trial that cannot serve says so itself: that is quicker than two crashes, and has a reason.
    fn ends_trial(&self, error: &str) -> bool {
        let Image::Slot(slot) = self.started.running else { return false };
        let loaded = self.started.state.load_marks();
        if loaded.marks.slot(slot).condition != Condition::Trial {
            return false;
        }
        let outside = self.outside.get() || is_of_the_disk(error);
        let (ended, code) = if outside { (Ended::NoContact, "start_refused") } else { (Ended::SelfCheckFailed, "start_failed") };
        let marks = loaded.marks.clone().end_trial(slot, ended, Reason::new(code, error));
        self.started.state.save_marks(marks, loaded.from, loaded.marks.sequence).is_ok()
    }

    /// The factory image takes this process's place, unless a stop has come meanwhile. What comes from now on waits for the
    /// next program.
    fn relaunch(&self, mut stop: &UnixStream) -> Result<(), String> {
        process::hold_signals();
        if stop.set_nonblocking(true).is_ok() && matches!(stop.read(&mut [0]), Ok(1)) {
            self.stop();
            return Ok(());
        }
        let mut env = vec![(ENV_SWITCHED, (clock::monotonic().as_millis() as u64).to_string())];
        if let Ok(fd) = self.started.lock.pass_on() {
            env.push((ENV_LOCK, fd.to_string()));
        }
        log::info!("starting the launcher: {}", self.started.image.display());
        let ended = process::exec(&self.started.image, &self.args.raw, &env, &[ENV_RUNNING, ENV_IMAGE]);
        let error = ended.err().map_or(String::new(), |e| e.to_string());
        Err(format!("{}: {error}; it must be there and executable", self.started.image.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_nothing_of_a_version() {
        let said = |number| format!("director.redb cannot be opened: {}; check the folder", std::io::Error::from_raw_os_error(number));
        assert!([libc::ENOSPC, libc::EIO, libc::EROFS].into_iter().all(|number| is_of_the_disk(&said(number))));
        assert!(!is_of_the_disk(&said(libc::ENOENT)) && !is_of_the_disk("the row 'x' of Agents does not parse"));
    }
}
