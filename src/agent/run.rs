//! The start of the process and the main loop.
//!
//! `run` is three things, told apart by the environment that each passes to the next (frozen, see FROZEN.md):
//! the supervisor (`--supervise`, or no respawning service manager), the launcher (the factory image, nothing in
//! `VMETRIC_RUNNING`), and the program (`VMETRIC_RUNNING` = `a`, `b`; or the factory image that found nothing better).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::device::Device;
use super::engine::{Turn, turn};
use super::fault::{self, Fault};
use super::first_boot::FirstBoot;
use super::host::{Host, factory_root};
use super::launcher::launch;
use super::link::{Link, LinkError, tick};
use super::records::{self, Unread};
use super::world::World;
use super::{build, first_boot, handover, link, trial};
use crate::core::backoff::{self, Pace};
use crate::core::copies::KeyFile;
use crate::core::failover::Next;
use crate::core::hex::{self, Sha256};
use crate::core::product::Product;
use crate::core::reason::Reason;
use crate::core::slots::{Image, Reached};
use crate::core::trust::Trusted;
use crate::core::update::{Running, SelfCheck, Staged, Target};
use crate::io::lock::{Lock, Taken};
use crate::io::process::{self, WakeFd};
use crate::io::state::State;
use crate::io::trust_store::TrustStore;
use crate::io::{clock, device_key, identity, notify, random};
use crate::wire::records::{RequestWire, StatusWire};

/// Which image this process runs as: set by the launcher.
pub const ENV_RUNNING: &str = "VMETRIC_RUNNING";
/// Path of the factory image: set by the launcher, executed at an orderly switch.
pub const ENV_IMAGE: &str = "VMETRIC_IMAGE";
/// Descriptor of `run.lock`, held across exec.
pub const ENV_LOCK: &str = "VMETRIC_RUN_LOCK";
/// Monotonic milliseconds at which the old program ended.
pub const ENV_SWITCHED: &str = "VMETRIC_SWITCHED_AT";
/// Process id of the supervisor.
pub const ENV_SUPERVISOR: &str = "VMETRIC_SUPERVISOR";

/// Exit code when another agent runs with this state folder.
pub const EXIT_RUNS_ALREADY: i32 = 3;
/// A factory image that could not be executed is tried again so soon: nothing else gets on meanwhile.
const IMAGE_AGAIN_S: u64 = 60;
/// Whoever holds a slot's file (a virus scanner, a backup program; Windows) lets go of it within moments.
const IN_USE_AGAIN_S: u64 = 30;
/// A request that could not be carried out or removed for want of room is looked at again so soon: a person waits.
const REQUEST_AGAIN_S: u64 = 1;
/// What `run` was given.
#[derive(Clone, Debug)]
pub struct RunArgs {
    /// What runs.
    pub product: &'static Product,
    /// State folder.
    pub state: PathBuf,
    /// Supervise with a process of our own.
    pub supervise: bool,
    /// All arguments as given, for the next program.
    pub raw: Vec<String>,
    /// The environment's part.
    pub env: RunEnv,
}

/// What the previous program of this process passed on.
#[derive(Clone, Debug, Default)]
pub struct RunEnv {
    /// [`ENV_RUNNING`].
    pub running: Option<String>,
    /// [`ENV_IMAGE`].
    pub image: Option<PathBuf>,
    /// [`ENV_LOCK`].
    pub lock: Option<i32>,
    /// [`ENV_SWITCHED`].
    pub switched_at: Option<u64>,
    /// [`ENV_SUPERVISOR`].
    pub supervisor: Option<u32>,
    /// [`ENV_CONFIG`](super::first_boot::ENV_CONFIG).
    pub config: Option<String>,
}

/// Runs until the end of this process; returns its exit code, or does not return.
pub fn run(args: &RunArgs) -> i32 {
    if handover::is_parent(args) {
        return handover::supervise(args);
    }
    if let Some(parent) = args.env.supervisor {
        process::die_with_parent(parent);
    }
    match start(args) {
        Ok(code) => code,
        Err(reason) => {
            log::error!("{reason}");
            1
        }
    }
}

fn start(args: &RunArgs) -> Result<i32, Reason> {
    match begin(args)? {
        Some(started) => program(args, started),
        None => Ok(EXIT_RUNS_ALREADY),
    }
}

/// A process that has found its place: it holds the lock and knows which image it is.
pub struct Started {
    /// The state folder.
    pub state: State,
    /// Its `run.lock`.
    pub lock: Lock,
    /// The factory image's file.
    pub image: PathBuf,
    /// What runs.
    pub running: Image,
    /// Hash of its file.
    pub own_hash: Sha256,
}

/// Takes the lock; as the factory image also launches, and returns only if nothing better can start. `None`: another process
/// has this state folder.
pub fn begin(args: &RunArgs) -> Result<Option<Started>, Reason> {
    let own = process::own_file().map_err(|e| Reason::new("own_file", format!("cannot find the own program file: {e}")))?;
    let own_hash = trial::hash_file(&own).map_err(|e| Reason::new("own_file", format!("cannot read the own program file: {e}")))?;
    let state = State::open_of(args.product, &args.state)?;
    let Some(lock) = take_lock(&state, args)? else { return Ok(None) };
    let image = match &args.env.image {
        Some(image) => image.clone(),
        None => process::own_name().unwrap_or(own),
    };
    let running = args.env.running.as_deref().and_then(Image::from_name);
    if running.is_none() {
        process::make_alarm_deadly();
        process::hold_signals();
        tick();
        launch(&mut Host::new(&args.raw, state.clone(), &lock, image.clone(), own_hash));
    }
    Ok(Some(Started { state, lock, image, running: running.unwrap_or(Image::Factory), own_hash }))
}

pub(super) fn take_lock(state: &State, args: &RunArgs) -> Result<Option<Lock>, Reason> {
    let path = state.path("run.lock");
    if let Some(lock) = args.env.lock.and_then(|fd| Lock::inherit(fd, &path)) {
        return Ok(Some(lock));
    }
    match Lock::take(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(Taken::By(pid)) => {
            let who = pid.map_or("another process".to_string(), |p| format!("process {p}"));
            log::error!("{}: {} runs already with this state folder: {who}", path.display(), args.product.name);
            Ok(None)
        }
        Err(Taken::Error(e)) => Err(crate::io::state::file_error(&path, "lock", &e)),
    }
}

fn program(args: &RunArgs, started: Started) -> Result<i32, Reason> {
    let Started { state, lock, image, running, own_hash } = started;
    if lock.write_pid().is_err() {
        log::warn!("run.lock: the process id could not be written");
    }
    tick();
    let wake_fd = process::wake_pipe().map_err(|e| Reason::new("signals", e.to_string()))?;
    show_fault(&state);
    let mut device = load(args, state, &image, running, own_hash, Some(wake_fd))?;
    if device.agent_id.is_some() {
        device.status.token_left = first_boot::forget(&device.state);
    }
    // Not before it could be noted; the next start tries again.
    device.end_left_over().unwrap_or_else(|reason| log::warn!("{reason}"));
    device.prepare_stop();
    process::install_signals();
    log::info!("{} {} runs: {} ({})", device.state.product().name, build::VERSION, running.name(), running_as(&device));
    loop {
        let reason = work(&mut device);
        log::info!("starting the launcher: {reason}");
        let error = handover::relaunch(args, &device, &lock, &image);
        // This program goes on, the marks are as they are.
        let remedy = "the running version goes on; the file must be there and executable, its file system not mounted noexec";
        let reason = Reason::new("image_not_started", format!("{}: {error}; {remedy}", image.display()));
        log::error!("{reason}");
        let again_s = device.times.recheck_s.min(IMAGE_AGAIN_S);
        device.tell("waiting", &reason);
        device.doing("waiting", &reason, Some(again_s));
        sleep(Duration::from_secs(again_s));
    }
}

#[cfg(feature = "director")]
impl Device {
    /// For an engine beside which other threads work: turns until the launcher has to run.
    pub fn work_on(&mut self) -> Reason {
        show_fault(&self.state);
        // Not before it could be noted; the next start tries again.
        self.end_left_over().unwrap_or_else(|reason| log::warn!("{reason}"));
        log::info!("{} {} runs: {} ({})", self.state.product().name, build::VERSION, self.running.image.name(), running_as(self));
        work(self)
    }
}

/// A moment in which nothing is to be done, and the thread lives.
#[cfg(feature = "director")]
pub fn rest() {
    sleep(Duration::from_secs(1));
}

fn show_fault(state: &State) {
    match fault::built_in() {
        Fault::Crash => std::process::abort(),
        Fault::CrashLater if state.path("storage/crash-later").exists() => std::process::abort(),
        Fault::Hang => loop {
            process::sleep(Duration::from_secs(3600));
        },
        _ => {}
    }
}

/// `trial`, `confirmed`, `factory` or `manual`.
pub fn running_as(device: &Device) -> &'static str {
    match device.running.image {
        Image::Slot(_) if device.on_trial() => "trial",
        Image::Slot(_) => "confirmed",
        Image::Factory if device.marks.manual => "manual",
        Image::Factory => "factory",
    }
}

/// Reads everything this process works with. A damaged record is told and set aside; only the folder itself can stop it.
pub fn load(args: &RunArgs, state: State, image: &Path, running: Image, own: Sha256, wake_fd: Option<WakeFd>) -> Result<Device, Reason> {
    fn told<T>(result: Result<Option<T>, Reason>) -> Option<T> {
        result.unwrap_or_else(|reason| {
            log::warn!("{reason}");
            None
        })
    }
    let loaded = state.load_marks();
    let mut unread = Unread::default();
    let accepted = unread.read(&state, records::ORDER);
    let (results, rejected) = (unread.results(&state), unread.rejected(&state));
    identity::keep(&state).iter().for_each(|reason| log::warn!("{reason}"));
    let config = state.config();
    let may_make_key = matches!(&config, Ok(found) if found.as_ref().is_none_or(|(config, _)| config.device_key.is_none()));
    let config = told(config);
    if let Some((_, unknown)) = &config {
        unknown.iter().for_each(|field| log::warn!("{}: unknown field {field} is ignored", state.product().config));
    }
    // Made at the first boot, enrolled or not: never in an image, whatever is copied into one.
    if may_make_key {
        told(device_key::read_or_make(&state, KeyFile::Key).map(Some));
    }
    let link = config.as_ref().and_then(|(config, _)| told(Link::new(config, &state, wake_fd, tick).map(Some)));
    let (trust, trust_note) = open_trust(image, &state);
    let request: Option<RequestWire> = told(state.read("tree.json"));
    Ok(Device {
        times: fault::times(),
        running: Running {
            image: running,
            sha256: own,
            version: build::VERSION.parse().map_err(|_| Reason::new("version", build::VERSION))?,
        },
        marks: loaded.marks,
        copy: loaded.from,
        accepted,
        results,
        rejected,
        unread,
        target: Target::Unknown,
        staged: Staged::Nothing,
        looked_at: Duration::ZERO,
        self_check: SelfCheck::NotRun,
        acknowledged: false,
        refused: false,
        held: false,
        unsaved: false,
        check_kills: 0,
        nonce: hex::encode(&random::bytes::<16>()),
        started: clock::awake(),
        checked: None,
        link,
        agent_id: config.as_ref().map(|(config, _)| config.agent_id.clone()),
        image: image.to_path_buf(),
        trust,
        trust_note,
        tree: request.map(|r| PathBuf::from(r.tree)),
        status: StatusWire::default(),
        hostname: hostname(),
        offline_grace_s: config.as_ref().map_or(0, |(c, _)| c.offline_grace_s()),
        director_time: None,
        pace: Pace::default(),
        failures: 0,
        spread_s: None,
        fetch_failures: 0,
        switched_at_ms: args.env.switched_at,
        gap_ms: 0,
        relaunch_for: None,
        first: FirstBoot::new(args.env.config.clone()),
        wake_fd,
        #[cfg(feature = "director")]
        duties: None,
        #[cfg(feature = "director")]
        gate: None,
        state,
    })
}

/// The trust store, or why there is none.
pub fn open_trust(image: &Path, state: &State) -> (Option<(TrustStore, Trusted)>, Result<(), Reason>) {
    match factory_root(image).and_then(|root| TrustStore::open(&state.trust(), &root)) {
        Ok((mut store, trusted)) => {
            store.take_left_out().iter().for_each(|note| log::warn!("trust: {note}"));
            (Some((store, trusted)), Ok(()))
        }
        Err(reason) => {
            log::error!("trust: {reason}");
            (None, Err(reason))
        }
    }
}

/// The device's name, for people.
pub fn hostname() -> String {
    fault::hostname().unwrap_or_else(process::hostname).chars().take(64).collect()
}

/// Turns until the launcher has to run.
fn work(device: &mut Device) -> Reason {
    loop {
        tick();
        // First: what is written after these looks comes with a wake that ends the next wait.
        process::drain_wake();
        device.take_identity();
        take_requests(device);
        if let Some(reason) = device.relaunch_for.take() {
            return reason;
        }
        settle(device);
        announce(device);
        let (step, reason, for_s) = match next(device) {
            Ok(Turn::Relaunch(reason)) => return reason,
            Ok(Turn::Again) => continue,
            Ok(Turn::Idle) => ("idle", Reason::new("idle", "nothing is ordered"), None),
            Ok(Turn::Wait { reason, for_s }) => (if device.on_trial() { "trial" } else { "waiting" }, reason, Some(for_s)),
            Err(reason) => {
                log::error!("{reason}");
                let again_s = if reason.code == "file_in_use" { IN_USE_AGAIN_S } else { u64::MAX };
                ("waiting", reason, Some(device.times.recheck_s.min(again_s)))
            }
        };
        device.doing(step, &reason, for_s);
        announce(device);
        listen(device, for_s.unwrap_or(u64::MAX).min(device.longest_wait_s()));
        if step == "waiting" {
            // What was unavailable is looked at again after the wait.
            if matches!(device.target, Target::Unavailable { .. }) {
                device.target = Target::Unknown;
            }
        }
    }
}

/// Tells the service manager that the start has succeeded. A version on trial has to pass its self-check first; until then it
/// asks for more time with every sign of life. Any other one is the best that there is: what its check finds is told, and no
/// reason to be started over and over.
fn announce(device: &Device) {
    let tried = device.on_trial();
    if link::is_shared() || notify::is_ready() || (tried && device.self_check != SelfCheck::Passed) {
        return;
    }
    let found = match if tried { SelfCheck::Passed } else { device.check_now() } {
        SelfCheck::Failed(reason) | SelfCheck::CouldNotTell(reason) => format!("; {reason}"),
        _ => String::new(),
    };
    notify::ready(&format!("{} ({}){found}", build::VERSION, running_as(device)));
}

/// One turn; the end of an order that could not be written comes before anything else.
fn next(device: &mut Device) -> Result<Turn, Reason> {
    if device.unsaved { device.save_end().map(|()| Turn::Again) } else { turn(device) }
}

/// Between two tries to write the end of an order: somebody has to make room first, and each try costs a report.
const UNSAVED_WAIT: Duration = Duration::from_secs(5);

/// Ten minutes of passed checks settle a start even without contact.
fn settle(device: &mut Device) {
    let age = clock::awake().saturating_sub(device.started).as_secs();
    if !device.on_trial() && age >= device.times.settled_s && device.image_reached() < Reached::Contact {
        if matches!(device.self_check, SelfCheck::NotRun | SelfCheck::CouldNotTell(_)) {
            device.run_self_check();
        }
        if device.self_check == SelfCheck::Passed && device.reached(Reached::Contact).is_err() {
            log::warn!("the settled start could not be recorded");
        }
    }
}

/// Waits for the Director, for a request of an operator, or for the time to pass: whatever comes first.
fn listen(device: &mut Device, for_s: u64) {
    // What is staged is looked up again in between: it may have been withdrawn.
    let longest = if device.staged == Staged::Tested { device.times.recheck_s } else { 3600 };
    let until = clock::monotonic() + Duration::from_secs(for_s.min(longest));
    let mut kept_nothing = false;
    let judged = device.clock();
    loop {
        let left = until.saturating_sub(clock::monotonic());
        // A clock that was set may end what it was the reason for.
        if left.is_zero() || device.state.path("request.json").exists() || device.clock() != judged {
            return;
        }
        if device.link.is_none() {
            match device.agent_id {
                // An identity that nothing can be done with; `load` has said why.
                Some(_) => drop(sleep(left.min(Duration::from_secs(60)))),
                None => device.first_boot(left),
            }
            return;
        }
        // The first words of a process are not parked: contact settles its start, and that must not take a minute, or a
        // few power cuts in a row would count as a crash loop.
        let first = device.link.as_ref().is_some_and(|link| link.contact_age_s().is_none());
        // Nor when the state could not be written: once it can be, the next turn goes on at once.
        let at_once = device.on_trial() || first || kept_nothing || device.unsaved || device.link.as_ref().is_some_and(Link::is_curious);
        let idle = device.accepted.as_ref().is_none_or(|a| a.ended);
        if !at_once && idle && device.link.as_ref().is_some_and(Link::try_home) {
            log::info!("asking {} again", device.link.as_ref().map(Link::address).unwrap_or_default());
        }
        let park = if at_once { 0 } else { backoff::park_s(device.times.park_s, random::seed()).min(left.as_secs().max(1)) };
        let path = if park == 0 { "/agent/v1/report" } else { "/agent/v1/poll" };
        let began = clock::monotonic();
        match device.exchange(path, park) {
            Ok(true) => return,
            // There is room again, and nothing to be kept any more: the next turn says what is done now.
            Ok(false) if kept_nothing => return,
            Ok(false) if device.unsaved => {
                sleep(UNSAVED_WAIT.min(left));
                return;
            }
            Ok(false) if first && !device.on_trial() => device.publish_status(),
            Ok(false) => {
                // An answer that is early and says nothing new must not become a loop.
                let took = clock::monotonic().saturating_sub(began);
                if took < Duration::from_millis(900) {
                    sleep(Duration::from_secs(1).min(left));
                }
            }
            Err(error) if error.woken => {
                process::drain_wake();
                return;
            }
            Err(error) => {
                kept_nothing |= is_of_state(&error.reason);
                let wait = after_loss(device, &error);
                device.status.link_failures = Some(device.failures);
                device.status.link_until = Some(clock::unix().saturating_add(wait.as_secs()));
                device.publish_status();
                if sleep(wait.min(until.saturating_sub(clock::monotonic()))) {
                    return;
                }
            }
        }
        tick();
    }
}

/// How long to wait after a loss, and with whom to go on.
fn after_loss(device: &mut Device, error: &LinkError) -> Duration {
    let (tried, spread_s) = (device.on_trial(), device.spread_s.filter(|_| !device.on_trial()));
    // What this device could not write is no fault of the member's.
    let link = device.link.as_ref().filter(|_| !is_of_state(&error.reason));
    device.failures = match link.map(|link| (link.lost(error, spread_s), link.address())) {
        Some((Next::Turn(wait_ms), address)) => {
            log::warn!("{}; turning to {address} in {wait_ms} ms", error.reason);
            return Duration::from_millis(wait_ms);
        }
        Some((Next::BackOff(failures), _)) => failures,
        None => device.failures.saturating_add(1),
    };
    let seed = random::seed();
    let wait_ms = backoff::wait_ms(device.failures, seed, error.retry_after_s)
        + backoff::spread_ms(device.failures, seed, error.retry_after_s, spread_s);
    let patient = !tried || error.retry_after_s.is_some();
    let wait = Duration::from_millis(if patient { wait_ms } else { wait_ms.min(backoff::TRIAL_CAP_MS) });
    if device.failures <= 3 || device.failures.is_multiple_of(10) {
        log::warn!("{}; next try in {} s", error.reason, wait.as_secs());
    }
    wait
}

/// Sleeps in pieces that keep the liveness alarm armed. True when woken.
pub(super) fn sleep(time: Duration) -> bool {
    let end = clock::monotonic() + time;
    loop {
        tick();
        let left = end.saturating_sub(clock::monotonic());
        if left.is_zero() {
            return false;
        }
        if process::sleep(left.min(Duration::from_secs(1 + u64::from(fault::times().liveness_s) / 3))) {
            return true;
        }
    }
}

fn is_of_state(reason: &Reason) -> bool {
    ["disk_full", "state_not_writable", "state_error", "file_in_use"].contains(&reason.code.as_ref())
}

/// What an operator's command has left in `request.json`.
fn take_requests(device: &mut Device) {
    let request = match device.state.read::<RequestWire>("request.json") {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(reason) => {
            log::warn!("{reason}");
            // It was set aside; where even that fails, its being there must not become a loop.
            sleep(Duration::from_secs(u64::from(device.state.path("request.json").exists())));
            return;
        }
    };
    let told = super::command::obey(device, request).or_else(|reason| {
        log::error!("request.json: {reason}");
        // Another try may write what this one could not. What makes no sense stays without sense.
        if is_of_state(&reason) { Err(reason) } else { Ok(()) }
    });
    if let Err(reason) = told.and_then(|()| device.state.remove("request.json")) {
        log::error!("{reason}");
        device.doing("waiting", &reason, Some(REQUEST_AGAIN_S));
        sleep(Duration::from_secs(REQUEST_AGAIN_S));
    }
}

#[cfg(test)]
mod tests;
