//! The world as it is: files, processes, the Director.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use super::download::{self, Between};
use super::first_boot::FirstBoot;
use super::link::Link;
use super::lookup::short;
use super::records::{RESULTS, Unread};
use super::source::{Source, SourceError};
use super::trial;
use super::world::{Fetched, Tested, World};
use crate::core::backoff::{self, Pace};
use crate::core::clock::{self as judged, Clock, Moment};
use crate::core::hex::{self, Sha256};
use crate::core::product::Product;
use crate::core::reason::Reason;
use crate::core::rejected::{Rejected, reject};
use crate::core::release::{Artifact, Platform};
use crate::core::slots::{Condition, Image, Marks, Reached, Slot};
use crate::core::stage::Stage;
use crate::core::times::Times;
use crate::core::trust::Trusted;
use crate::core::update::{Accepted, LOCAL_ISSUER, Order, Running, SelfCheck, Staged, Target, check_killed};
use crate::io::medium::Medium;
use crate::io::state::State;
use crate::io::trust_store::TrustStore;
use crate::io::{clock, process, random};
use crate::wire::agent_api::ResultWire;
use crate::wire::records::{AcceptedWire, RESULTS_MAX, ResultsWire, StatusWire};
use crate::wire::slot::SlotWire;

/// Everything the running agent holds.
pub struct Device {
    pub(super) state: State,
    pub(super) times: Times,
    pub(super) running: Running,
    pub(super) marks: Marks,
    /// Which marks file holds `marks`.
    pub(super) copy: Option<usize>,
    pub(super) accepted: Option<AcceptedWire>,
    pub(super) results: Vec<ResultWire>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) target: Target,
    pub(super) staged: Staged,
    /// When the target was last looked up, or that was tried, on the monotonic clock.
    pub(super) looked_at: Duration,
    pub(super) self_check: SelfCheck,
    /// How often the operator's check was killed in this process.
    pub(super) check_kills: u32,
    pub(super) acknowledged: bool,
    pub(super) refused: bool,
    /// The Director's last answer said that it is about to stop.
    pub(super) held: bool,
    /// The order on the disk is older than the one in memory: its end could not be written yet.
    pub(super) unsaved: bool,
    /// What could not be read at the start.
    pub(super) unread: Unread,
    pub(super) nonce: String,
    pub(super) started: Duration,
    /// When its self-check had run for the first time.
    pub(super) checked: Option<Duration>,
    pub(super) link: Option<Link>,
    /// Under which it is enrolled.
    pub(super) agent_id: Option<String>,
    /// The factory image's file; the root of the factory date lies beside it.
    pub(super) image: PathBuf,
    pub(super) trust: Option<(TrustStore, Trusted)>,
    pub(super) trust_note: Result<(), Reason>,
    /// Release tree or bundle of a local update.
    pub(super) tree: Option<PathBuf>,
    pub(super) status: StatusWire,
    pub(super) hostname: String,
    pub(super) offline_grace_s: u64,
    /// The Director's time at its last answer, and when that was on the monotonic clock.
    pub(super) director_time: Option<(u64, Duration)>,
    /// Of new orders.
    pub(super) pace: Pace,
    /// Failed exchanges in a row.
    pub(super) failures: u32,
    /// What the Director named last ([`AnswerWire::spread_s`](crate::wire::agent_api::AnswerWire)).
    pub(super) spread_s: Option<u64>,
    /// Failed fetches of metadata or artifact in a row, for this order: reports in between that succeed do not count.
    pub(super) fetch_failures: u32,
    pub(super) switched_at_ms: Option<u64>,
    pub(super) gap_ms: u64,
    /// A request has to be followed by the launcher.
    pub(super) relaunch_for: Option<Reason>,
    /// While there is no identity.
    pub(super) first: FirstBoot,
    /// The program around this engine, and what its stop writes.
    #[cfg(feature = "director")]
    pub(super) duties: Option<Box<dyn super::duties::Duties>>,
    #[cfg(feature = "director")]
    pub(super) gate: Option<super::duties::StopGate>,
    /// What ends a wait for the Director.
    pub(super) wake_fd: Option<crate::io::process::WakeFd>,
}

impl Device {
    /// The floor of the clock: what has been signed.
    pub(super) fn floor(&self) -> u64 {
        let floor = super::build::time().max(self.trust.as_ref().and_then(|(_, t)| t.issued()).unwrap_or(0));
        #[cfg(feature = "company-ca")]
        crate::io::tls::company::floor_is(floor);
        floor
    }

    /// The Director's time now, if it has answered this process with one that can be true.
    pub(super) fn director_now(&self) -> Option<u64> {
        let (time, at) = self.director_time?;
        judged::believed(time.saturating_add(clock::monotonic().saturating_sub(at).as_secs()), self.floor())
    }

    /// What this device's clock is worth now.
    pub(super) fn clock(&self) -> Clock {
        judged::judge(clock::unix(), self.floor(), self.director_now())
    }

    pub(super) fn image_reached(&self) -> Reached {
        match self.running.image {
            Image::Slot(slot) => self.marks.slot(slot).evidence.reached,
            Image::Factory => self.marks.factory_evidence.reached,
        }
    }

    /// The running image came this far; one durable write per start at most.
    pub(super) fn reached(&mut self, reached: Reached) -> Result<(), Reason> {
        if self.image_reached() >= reached {
            return Ok(());
        }
        let marks = self.marks.clone().reach(self.running.image, reached);
        self.save_marks(marks)
    }

    pub(super) fn on_trial(&self) -> bool {
        matches!(self.running.image, Image::Slot(slot) if self.marks.slot(slot).condition == Condition::Trial)
    }

    /// The self-check without the operator's own; nothing is noted.
    pub(super) fn check_now(&self) -> SelfCheck {
        let expected = match self.running.image {
            Image::Slot(slot) => Some(self.marks.slot(slot).sha256),
            Image::Factory => None,
        };
        trial::self_check(&self.state, &self.running.sha256, expected.as_ref(), &self.trust_note)
    }

    /// The stop record that belongs to the marks as they are now, and where it goes.
    pub(super) fn stop_record(&self) -> Option<(PathBuf, Vec<u8>)> {
        use crate::core::slots::Ended;
        let path = self.state.next_marks_path(self.copy?);
        let mut stopped = self.marks.clone().end(self.running.image, Ended::Stopped);
        stopped.sequence = self.marks.sequence.saturating_add(1);
        Some((path, crate::wire::marks::encode(&stopped)))
    }

    /// Has the signal handler write it.
    pub(super) fn prepare_signal(&self) {
        let Some((path, record)) = self.stop_record() else { return };
        if let Err(e) = process::prepare_stop(&path, record) {
            log::warn!("a stop will not be recorded: {e}");
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.accepted.as_ref().is_some_and(|a| a.order.issuer.starts_with(LOCAL_ISSUER))
    }

    /// Who ordered what runs on trial: by the slot's own description, which belongs to the file whatever was ordered since.
    pub(super) fn trial_issuer(&self) -> String {
        match self.running.image {
            Image::Slot(slot) => self.state.slot_json(slot).map(|w| w.issuer).unwrap_or_default(),
            Image::Factory => String::new(),
        }
    }
}

/// On a fast link slices follow each other within milliseconds: nobody looks so often, and a report costs more than its slice.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What is said between two slices of a download. The Director's answer may replace the order.
pub(super) struct Slices<'a> {
    device: RefCell<&'a mut Device>,
    reports: bool,
    /// Bytes that earlier tries for this order fetched.
    before: u64,
    /// When something was said last, on the monotonic clock.
    said: Duration,
    #[cfg(feature = "director")]
    allowed: super::duties::MayFetch,
}

impl Slices<'_> {
    pub(super) fn new(device: &mut Device, reports: bool) -> Slices<'_> {
        let before = device.accepted.as_ref().map_or(0, |a| a.bytes);
        Slices {
            reports,
            before,
            said: clock::monotonic(),
            device: RefCell::new(device),
            #[cfg(feature = "director")]
            allowed: None,
        }
    }
}

impl Between for Slices<'_> {
    fn slice(&mut self, on_disk: u64, fetched: u64) -> bool {
        let device = self.device.get_mut();
        device.status.bytes_done = on_disk;
        if let Some(accepted) = &mut device.accepted {
            accepted.bytes = self.before.saturating_add(fetched);
        }
        let now = clock::monotonic();
        if on_disk < device.status.bytes_total && now.saturating_sub(self.said) < REPORT_EVERY {
            return !process::drain_wake();
        }
        self.said = now;
        device.doing("downloading", &Reason::new("downloading", format!("{on_disk} bytes are on disk")), None);
        // A report that fails does not stop the download: the bytes are flowing.
        let news = self.reports && device.exchange("/agent/v1/report", 0).unwrap_or(false);
        !news && !process::drain_wake()
    }

    fn wait_s(&mut self, error: &SourceError) -> u64 {
        let device = self.device.get_mut();
        device.fetch_failures = device.fetch_failures.saturating_add(1);
        backoff::wait_ms(device.fetch_failures, random::seed(), error.retry_after_s).div_ceil(1000)
    }

    #[cfg(feature = "director")]
    fn allow(&mut self, bytes: u64) -> Result<(), Reason> {
        self.allowed = None;
        self.allowed = self.device.get_mut().may_fetch(bytes)?;
        Ok(())
    }

    #[cfg(feature = "director")]
    fn came(&mut self, bytes: u64) {
        self.allowed.iter_mut().for_each(|allowed| allowed.came(bytes));
    }
}

impl World for Device {
    fn moment(&self) -> Moment {
        clock::moment(self.floor(), self.director_now())
    }

    fn times(&self) -> Times {
        self.times
    }

    fn marks(&self) -> Marks {
        self.marks.clone()
    }

    fn running(&self) -> Running {
        self.running.clone()
    }

    fn product(&self) -> &'static Product {
        self.state.product()
    }

    fn platform(&self) -> Platform {
        Platform::here()
    }

    fn accepted(&self) -> Option<Accepted> {
        self.accepted.as_ref().and_then(|a| a.accepted(&self.times).ok())
    }

    fn target(&self) -> Target {
        self.target.clone()
    }

    fn staged(&self, _: Slot, _: &Order) -> Staged {
        self.staged
    }

    fn last_result(&self) -> Option<ResultWire> {
        // One that is to be reported is the newer one: a cut may have come between the two files.
        self.results.last().cloned().or_else(|| self.state.read("last-result.json").ok().flatten())
    }

    fn rejected(&self, sha256: &Sha256) -> Option<Rejected> {
        self.rejected.iter().find(|r| r.sha256 == *sha256).cloned()
    }

    fn preflight(&self, slot: Slot, bytes: u64) -> Option<Reason> {
        if let Err(reason) = crate::io::room::for_update(&self.state, slot, bytes) {
            return Some(reason);
        }
        // A check that could not be run on trial would only be found out without a confirmed version.
        super::check::usable(&self.state).err().or_else(|| self.state.write("storage/preflight", &1u32).err())
    }

    fn contact_age_s(&self) -> Option<u64> {
        self.link.as_ref().filter(|_| !self.held).and_then(Link::contact_age_s)
    }

    fn look_age_s(&self) -> u64 {
        clock::monotonic().saturating_sub(self.looked_at).as_secs()
    }

    fn was_confirmed(&self, slot: Slot, sha256: &Sha256) -> bool {
        let path = self.state.slot_folder(slot).join("confirmed");
        let text = crate::io::fs::read_limited(&path, crate::wire::slot::CONFIRMED_MAX).ok().flatten().unwrap_or_default();
        text.starts_with(hex::encode(sha256).as_bytes())
    }

    fn slot_json(&self, slot: Slot) -> Result<SlotWire, Reason> {
        self.state.slot_json(slot)
    }

    fn save_marks(&mut self, marks: Marks) -> Result<(), Reason> {
        self.change_marks(marks)
    }

    fn look_up(&mut self, order: &Order) -> Result<(), Reason> {
        // An order from before a restart: whoever gave it is asked first, for it may be withdrawn, and for his time.
        if !order.is_local() && self.contact_age_s().is_none() && self.exchange("/agent/v1/report", 0).unwrap_or(false) {
            return Ok(());
        }
        self.begins(Stage::VersionCheck);
        self.doing("looking", &Reason::new("refreshing", "refreshing the trusted metadata"), None);
        self.target = self.look(order);
        match self.target.clone() {
            Target::Signed(artifact) => {
                self.done(Stage::VersionCheck, || format!("{} is signed, {} bytes", artifact.path, artifact.length));
            }
            Target::Refused(reason) | Target::Unavailable { reason, .. } => self.stopped(Stage::VersionCheck, &reason),
            Target::Unknown => {}
        }
        self.publish_status();
        Ok(())
    }

    fn look_again(&mut self, order: &Order) -> Result<(), Reason> {
        match self.look(order) {
            // An order that may switch without contact must not wait for a mirror either.
            Target::Unavailable { reason, .. } => log::warn!("the staged update could not be looked up again: {reason}"),
            other => self.target = other,
        }
        self.publish_status();
        Ok(())
    }

    fn clear_slot(&mut self, slot: Slot, keep: Option<Sha256>) -> Result<(), Reason> {
        self.staged = Staged::Nothing;
        self.state.clear_slot(slot, keep.as_ref())
    }

    fn download(&mut self, slot: Slot, artifact: &Artifact) -> Result<Fetched, Reason> {
        let Some(key) = self.trust.as_ref().and_then(|(_, t)| t.build_key(&artifact.build_keyid)) else {
            return Ok(Fetched::Refused(Reason::new("build_key_unknown", "the trusted root does not list the build key of this artifact")));
        };
        self.doing("downloading", &Reason::new("downloading", format!("fetching {}", artifact.path)), None);
        let state = self.state.clone();
        let (link, tree, local) = (self.link.take(), self.tree.clone(), self.is_local());
        let medium = match tree.as_deref().filter(|_| local).map(Medium::open).transpose() {
            Ok(medium) => medium,
            Err(reason) => {
                self.link = link;
                return Ok(Fetched::Later(reason, self.times.recheck_s));
            }
        };
        let source = match (&medium, &link) {
            (Some(medium), _) => Source::Medium(medium),
            (_, Some(link)) => Source::Director(link),
            _ => return Ok(Fetched::Later(self.not_enrolled(), self.times.recheck_s)),
        };
        // Only one client: while the artifact flows through it, reports go through a second connection of its own.
        let reporter = self.reporter(link.as_ref());
        self.link = reporter;
        self.begins(Stage::Download);
        let reports = !local && self.link.is_some();
        let mut result = download::fetch(&state, slot, artifact, key, &source, &mut Slices::new(self, reports));
        if result == Ok(Fetched::Verified) {
            result = match self.running.image == Image::Slot(slot) {
                true => self.package_again(slot, &artifact.path, &source),
                false => self.with_package(slot, &artifact.path, &source),
            };
        }
        if link.is_some() {
            self.link = link;
        }
        // Only progress: the slot's file says itself how far it is.
        let _ = self.save_order();
        self.note_fetched(artifact, &result);
        if result == Ok(Fetched::Verified) {
            self.staged = Staged::Verified;
            self.doing(
                "staged",
                &Reason::new("signature_verified", format!("signature verified: build key {}", short(&artifact.build_keyid))),
                None,
            );
        }
        result
    }

    fn self_test(&mut self, slot: Slot) -> Tested {
        self.doing("staged", &Reason::new("self_test", "running the staged file's self-test"), None);
        super::link::tick();
        let program = self.state.slot_program(slot);
        let tested = match trial::fits_here(&program) {
            Ok(()) => trial::run_self_test(&program, self.times.self_test_s),
            Err(reason) => Tested::Bad(reason),
        };
        if let Tested::Bad(reason) | Tested::CouldNotTell(reason) = &tested {
            self.begins(Stage::Deployment);
            self.stopped(Stage::Deployment, reason);
        }
        if tested == Tested::Passed {
            self.staged = Staged::Tested;
            // The last word of the old version: from here on the Director knows what silence means. It comes before the
            // decision to switch, so that an answer that withdraws the order is still obeyed. Not when it waits for its
            // time: a Director that takes it for switching would hold a cancel back for its verdict.
            if self.accepted().is_none_or(|a| a.window_s(&self.moment()) == 0) {
                self.tell("switching", &Reason::new("switching", "self-test passed; switching"));
            }
        }
        tested
    }

    fn contact(&mut self) -> Result<(), Reason> {
        self.exchange("/agent/v1/report", 0).map_err(|e| e.reason)?;
        match self.held {
            true => {
                let detail = format!("{} is about to stop; no switch until it is back", self.state.product().authority);
                Err(Reason::new("director_stopping", detail))
            }
            false => Ok(()),
        }
    }

    fn veto(&self, order: &Order) -> Option<Reason> {
        self.vetoed(order)
    }

    fn before_switch(&mut self, order: &Order) -> Result<(), (Reason, u64)> {
        self.before(order)
    }

    fn write_slot_json(&mut self, slot: Slot, wire: SlotWire) -> Result<(), Reason> {
        self.begins(Stage::Deployment);
        let wire = self.described(slot, wire)?;
        self.state.write_slot_json(slot, &wire)
    }

    fn write_confirmed(&mut self, slot: Slot, sha256: Sha256) -> Result<(), Reason> {
        self.state.write_confirmed(slot, &sha256, self.marks.sequence)
    }

    fn repair(&mut self, order: &Order) -> Result<Option<Fetched>, Reason> {
        self.repair_slot(order)
    }

    fn read_again(&mut self) {
        self.read_unread();
    }

    fn reject(&mut self, entry: Rejected) -> Result<(), Reason> {
        // Before it is written over.
        self.read_unread();
        reject(&mut self.rejected, entry);
        self.save_rejected()
    }

    fn add_result(&mut self, result: ResultWire) -> Result<(), Reason> {
        log::info!("{} {}: {} ({})", result.outcome, result.version, result.detail, result.code);
        self.read_unread();
        if !self.results.iter().any(|r| r.id == result.id) {
            self.ended(&result);
            if self.results.len() >= RESULTS_MAX {
                self.results.remove(0);
            }
            self.results.push(result.clone());
        }
        // In this order: whoever sees it as the last one sees, too, that it is not reported yet.
        self.state.write(RESULTS, &ResultsWire { results: self.results.clone() })?;
        self.state.write("last-result.json", &result)
    }

    fn end_order(&mut self) -> Result<(), Reason> {
        if let Some(accepted) = &mut self.accepted {
            accepted.ended = true;
        }
        self.status.bytes_done = 0;
        self.save_end()
    }

    fn self_check(&self) -> SelfCheck {
        self.self_check.clone()
    }

    fn run_self_check(&mut self) {
        if self.trust.is_none() {
            // What could not be read at the start may be readable by now.
            (self.trust, self.trust_note) = super::run::open_trust(&self.image, &self.state);
        }
        self.self_check = match self.check_now() {
            SelfCheck::Passed => self.own_part(),
            other => other,
        };
        if self.on_trial() && self.self_check == SelfCheck::Passed {
            self.doing("trial", &Reason::new("checking", "on trial: the operator's check runs"), Some(self.times.check_s));
            self.self_check = match super::check::run(&self.state, &self.running.version, self.times.check_s) {
                SelfCheck::CouldNotTell(reason) if reason.code == super::check::KILLED => {
                    self.check_kills += 1;
                    check_killed(self.check_kills, reason)
                }
                checked => checked,
            };
        }
        if self.on_trial() && self.self_check == SelfCheck::Passed {
            self.done(Stage::Start, || "the new version serves and has checked itself".into());
        }
        // The authority's time starts when it can be asked.
        self.checked.get_or_insert_with(clock::awake);
    }

    fn forget_self_check(&mut self) {
        self.self_check = SelfCheck::NotRun;
    }

    fn acknowledged(&self) -> bool {
        self.acknowledged
    }

    fn refused(&self) -> bool {
        self.refused
    }

    fn ages_s(&self) -> (u64, u64) {
        let since = |at: Duration| clock::awake().saturating_sub(at).as_secs();
        let busy = self.link.as_ref().and_then(Link::busy_age_s).unwrap_or(u64::MAX);
        (since(self.started), since(self.checked.unwrap_or(self.started)).min(busy))
    }

    fn ask(&mut self) -> Result<(), Reason> {
        let reason = Reason::new("trial", "on trial: waiting for the acknowledgement of the authority");
        self.doing("trial", &reason, None);
        if self.trial_issuer().starts_with(LOCAL_ISSUER) {
            // The operator's command reads the nonce from status.json and sends it back as a request.
            return Ok(());
        }
        self.exchange("/agent/v1/report", 0).map(drop).map_err(|e| e.reason)
    }

    fn costs(&self) -> (u64, u64) {
        (self.accepted.as_ref().map_or(0, |a| a.bytes), self.gap_ms)
    }
}
