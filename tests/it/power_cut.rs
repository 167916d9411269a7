//! The power is cut before every durable operation of a whole update, once and in pairs, in a model of the device.
//!
//! The model runs the real launcher and the real engine; only the disk, the clock, the Director and the releases are
//! played. Writes of marks can tear; other durable writes are atomic, as `io::fs` makes them.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use vmetric::agent::engine::{Turn, turn};
use vmetric::agent::launcher::{Site, launch};
use vmetric::agent::world::{Fetched, Tested, World};
use vmetric::core::clock::Moment;
use vmetric::core::hex;
use vmetric::core::reason::Reason;
use vmetric::core::rejected::{Rejected, reject};
use vmetric::core::release::{Artifact, Platform};
use vmetric::core::slots::{Condition, Ended, Image, Marks, Reached, Slot, rebuild};
use vmetric::core::times::Times;
use vmetric::core::update::{Accepted, CHECK_KILLS_MAX, Kind, Order, Running, SelfCheck, Staged, Target, check_killed};
use vmetric::wire::agent_api::ResultWire;
use vmetric::wire::marks::newest;
use vmetric::wire::slot::{SlotWire, confirmed_text, files};

type Sha = [u8; 32];
const OLD: Sha = [1; 32];
const NEW: Sha = [2; 32];
const FACTORY: Sha = [9; 32];
/// The factory image that an operator puts in its place: an upgrade of the package.
const UPGRADED: Sha = [8; 32];
const SLICES: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kindof {
    Good,
    Crashes,
    Hangs,
    NoContact,
    FailsSelfCheck,
    FailsSelfTest,
    /// Its first self-test is killed for want of memory.
    KilledSelfTest,
    /// The root cannot be read at the first self-check of each of its processes.
    Unreadable,
    /// The Director's operator says no to its trial.
    Refused,
    /// The operator's check never can tell.
    Unsure,
    /// The operator's check is killed for want of memory, each time, or the first time of each process.
    KilledCheck,
    KilledOnce,
    /// The operator's check says no.
    FailsCheck,
    /// The operator's check can tell only the third time.
    Slow,
    /// Taken back while it waits, staged, for its time to switch.
    Withdrawn,
    /// An operator replaces the factory image while it is on trial, and restarts the service.
    Replaced,
    /// A Director's: a backup and a drain come before its switch, and agents on trial hold it up for a while.
    Drained,
    /// A Director's order that the operator's file at the site forbids.
    Forbidden,
}

struct PowerCut;

#[derive(Clone, Default)]
struct SlotDisk {
    file: Option<Sha>,
    slices: u32,
    slot_json: Option<SlotWire>,
    confirmed: Option<String>,
}

/// What survives a power cut.
#[derive(Clone)]
struct Disk {
    marks: [Option<Marks>; 2],
    slots: [SlotDisk; 2],
    accepted: Option<Accepted>,
    rejected: Vec<Rejected>,
    results: Vec<ResultWire>,
    last: Option<ResultWire>,
}

struct Device {
    disk: Disk,
    release: Kindof,
    factory: Sha,
    ops: u32,
    cuts: Vec<u32>,
    boot: u32,
    now: u64,
    booted_at: u64,
    taken: Vec<ResultWire>,
    order_given: Order,
    killed: bool,
    // the running process
    running: Running,
    current: Option<usize>,
    marks: Marks,
    target: Target,
    staged: Staged,
    looked_at: u64,
    self_check: SelfCheck,
    acked: bool,
    /// How often this process was told that agents are on trial.
    held: u32,
    /// How often the operator's check was killed in this process.
    kills: u32,
    started_at: u64,
    starts: u32,
    trial_starts: u32,
    /// How often each process reads the order in vain, and how often this one still does.
    unreadable: u32,
    unread: u32,
    /// All marks that were ever durable.
    written: Vec<Marks>,
}

fn artifact() -> Artifact {
    Artifact {
        path: format!("vmetric-agent/2.0.0/{}/vmetric-agent", Platform::here()).parse().unwrap(),
        length: 3,
        sha256: NEW,
        min_version: None,
        counter: 5,
        build_keyid: "k".into(),
        build_sig: [0; 64],
    }
}

fn order() -> Order {
    Order {
        issuer: "site".into(),
        generation: 1,
        kind: Kind::Update,
        target: artifact().path,
        sha256: NEW,
        length: 3,
        switch_in_s: 0,
        contact_deadline_s: 300,
        unattended: false,
        trial_max_s: 3600,
        end_probation: false,
        retry: false,
        keep_staged: false,
    }
}

fn running(sha256: Sha) -> Running {
    let version = if sha256 == NEW { "2.0.0" } else { "1.0.0" };
    Running { image: Image::Factory, sha256, version: version.parse().unwrap() }
}

impl Device {
    /// With slot A confirmed, or fresh from the factory.
    fn new(release: Kindof, fresh: bool, cuts: Vec<u32>) -> Device {
        let old = Artifact { sha256: OLD, counter: 1, ..artifact() };
        let slot_a = SlotDisk {
            file: Some(OLD),
            slices: 0,
            slot_json: Some(SlotWire::new(&old, "site", 0)),
            confirmed: Some(confirmed_text(&OLD, 1)),
        };
        let confirmed = Marks::default().start_trial(Slot::A, OLD).confirm(Slot::A, 1, "long ago", 0);
        let confirmed = Marks { factory: FACTORY, sequence: 7, probation_boot: String::new(), ..confirmed };
        let empty = Disk { marks: [None, None], slots: Default::default(), accepted: None, rejected: vec![], results: vec![], last: None };
        let disk = match fresh {
            true => empty,
            false => Disk { marks: [Some(confirmed), None], slots: [slot_a, SlotDisk::default()], ..empty },
        };
        Device {
            disk,
            release,
            factory: FACTORY,
            ops: 0,
            cuts,
            boot: 1,
            now: 1_900_000_000,
            booted_at: 1_899_999_000,
            taken: vec![],
            order_given: Order { switch_in_s: if release == Kindof::Withdrawn { 3600 } else { 0 }, ..order() },
            killed: false,
            running: running(FACTORY),
            current: None,
            marks: Marks::default(),
            target: Target::Unknown,
            staged: Staged::Nothing,
            looked_at: 0,
            self_check: SelfCheck::NotRun,
            acked: false,
            held: 0,
            kills: 0,
            started_at: 0,
            starts: 0,
            trial_starts: 0,
            unreadable: 0,
            unread: 0,
            written: vec![],
        }
    }

    /// A durable operation: the power may fail before it.
    fn op(&mut self) {
        self.ops += 1;
        if self.cuts.contains(&self.ops) {
            panic_any(PowerCut);
        }
    }

    fn slot(&mut self, slot: Slot) -> &mut SlotDisk {
        &mut self.disk.slots[slot as usize]
    }

    fn write_marks(&mut self, mut marks: Marks) {
        let copy = self.current.map_or(0, |c| 1 - c);
        marks.sequence = self.marks.sequence + 1;
        self.op();
        self.disk.marks[copy] = None;
        self.op();
        self.disk.marks[copy] = Some(marks.clone());
        self.written.push(marks.clone());
        (self.marks, self.current) = (marks, Some(copy));
    }

    fn read_marks(&mut self) {
        let slot_files = |disk: &SlotDisk| {
            let text = miniserde::json::to_string(disk.slot_json.as_ref()?);
            files(text.as_bytes(), disk.confirmed.as_ref().map(String::as_bytes))
        };
        let own = [slot_files(&self.disk.slots[0]), slot_files(&self.disk.slots[1])];
        let lost = self.disk.marks.iter().any(Option::is_none);
        let copies = self.disk.marks.clone().map(|m| m.ok_or("torn".to_string()));
        (self.marks, self.current) = match newest(copies) {
            Ok((mut marks, copy)) => {
                for slot in Slot::BOTH.into_iter().filter(|_| lost) {
                    if let Some(files) = &own[slot as usize] {
                        marks = marks.recover_confirmed(slot, files, &format!("boot-{}", self.boot), self.now);
                    }
                }
                (marks, Some(copy))
            }
            Err(_) => (rebuild(own[0].as_ref(), own[1].as_ref()), None),
        };
    }

    /// From the service manager's start to the end of the process. `Some(reason)`: it rests, nothing more will happen.
    fn life(&mut self) -> Option<Reason> {
        let image = match catch_unwind(AssertUnwindSafe(|| launch(self))) {
            Ok(_) => Image::Factory,
            Err(payload) => match payload.downcast::<Started>() {
                Ok(started) => Image::Slot(started.0),
                Err(payload) => std::panic::resume_unwind(payload),
            },
        };
        self.starts += 1;
        let sha256 = match image {
            Image::Slot(slot) => self.slot(slot).file.expect("a slot without a file was started"),
            Image::Factory => self.factory,
        };
        self.running = Running { image, ..running(sha256) };
        if sha256 == NEW && self.marks.active == image && !self.is_confirmed(image) {
            self.trial_starts += 1;
        }
        (self.target, self.staged, self.self_check, self.acked) = (Target::Unknown, Staged::Nothing, SelfCheck::NotRun, false);
        (self.started_at, self.held) = (self.now, 0);
        self.unread = self.unreadable;
        if sha256 == NEW {
            // Of the last process that ran the new version.
            self.kills = 0;
        }
        if sha256 == NEW && matches!(self.release, Kindof::Crashes | Kindof::Hangs) {
            self.now += if self.release == Kindof::Hangs { 180 } else { 0 };
            return None;
        }
        if sha256 == NEW && self.release == Kindof::Replaced && !self.is_confirmed(image) {
            self.factory = UPGRADED;
            let stopped = self.marks.clone().end(image, Ended::Stopped);
            self.write_marks(stopped);
            return None;
        }
        self.work()
    }

    fn is_silent(&self) -> bool {
        self.running.sha256 == NEW && self.release == Kindof::NoContact
    }

    fn kill_check(&mut self) -> SelfCheck {
        self.kills += 1;
        assert!(self.kills <= CHECK_KILLS_MAX, "asked again and again");
        check_killed(self.kills, Reason::new("check_killed", "model"))
    }

    fn is_confirmed(&self, image: Image) -> bool {
        matches!(image, Image::Slot(slot) if self.marks.slot(slot).condition == Condition::Confirmed)
    }

    fn work(&mut self) -> Option<Reason> {
        for _ in 0..200 {
            self.poll();
            let unread = self.unread;
            match turn(self).expect("the model's disk has no errors") {
                Turn::Again => {}
                Turn::Idle if unread > 0 => {}
                Turn::Idle if self.disk.results.is_empty() || self.is_silent() => return Some(Reason::new("idle", "")),
                Turn::Idle => {}
                Turn::Wait { reason, .. } if reason.code == "cooldown" && self.disk.results.is_empty() => return Some(reason),
                Turn::Wait { reason, .. } if reason.code == "window" => self.now += 600,
                Turn::Wait { for_s, .. } => self.now += for_s,
                Turn::Relaunch(_) => return None,
            }
        }
        panic!("no rest after 200 turns: {:?} {:?}", self.marks, self.disk.accepted);
    }

    /// The Director's part: it gives its order until it is accepted, and takes results.
    fn poll(&mut self) {
        if self.is_silent() {
            return;
        }
        let image = self.running.image;
        let evidence = match image {
            Image::Slot(slot) => self.marks.slot(slot).evidence.clone(),
            Image::Factory => self.marks.factory_evidence.clone(),
        };
        if evidence.reached < Reached::Contact {
            let marks = self.marks.clone().reach(image, Reached::Contact);
            self.write_marks(marks);
        }
        // While it cannot read its order, it says by its slot which one it knows, or none; then its authority has taken the end of it.
        if self.unread == 0 && self.disk.accepted.as_ref().is_none_or(|a| a.order.generation != self.order_given.generation) {
            self.op();
            self.disk.accepted = Some(Accepted { order: self.order_given.clone(), at: self.moment(), ended: false, bytes: 0 });
            self.target = Target::Unknown;
        }
        if !self.disk.results.is_empty() {
            let result = self.disk.results[0].clone();
            if !self.taken.contains(&result) {
                self.taken.push(result);
            }
            self.op();
            self.disk.results.remove(0);
        }
    }

    /// Lives and power cuts until the device rests.
    fn run(&mut self) -> Reason {
        for _ in 0..60 {
            match catch_unwind(AssertUnwindSafe(|| self.life())) {
                Ok(Some(rest)) => return rest,
                Ok(None) => {}
                Err(payload) if payload.is::<PowerCut>() => {
                    self.boot += 1;
                    self.now += 60;
                    self.booted_at = self.now;
                }
                Err(payload) => std::panic::resume_unwind(payload),
            }
        }
        panic!("no rest after 60 lives: {:?}", self.marks);
    }
}

struct Started(Slot);

impl Site for Device {
    fn load(&mut self) -> Marks {
        self.read_marks();
        self.marks.clone()
    }
    fn factory(&mut self) -> Sha {
        self.factory
    }
    fn boot_id(&mut self) -> String {
        format!("boot-{}", self.boot)
    }
    fn save(&mut self, marks: &Marks) -> Result<(), Reason> {
        self.write_marks(marks.clone());
        Ok(())
    }
    fn check(&mut self, slot: Slot, sha256: &Sha) -> Result<(), Reason> {
        let disk = self.slot(slot);
        let described = disk.slot_json.as_ref().is_some_and(|w| w.sha256 == hex::encode(sha256));
        match disk.file == Some(*sha256) && described {
            true => Ok(()),
            false => Err(Reason::new("slot_damaged", "not the file that the marks speak of")),
        }
    }
    fn start(&mut self, slot: Slot) -> Result<(), Reason> {
        panic_any(Started(slot))
    }
    fn tell(&mut self, _: &str) {}
}

impl World for Device {
    fn moment(&self) -> Moment {
        Moment { unix: self.now, monotonic: self.now - self.booted_at, boot_id: format!("boot-{}", self.boot), director: Some(self.now) }
    }
    fn times(&self) -> Times {
        Times::DEFAULT
    }
    fn marks(&self) -> Marks {
        self.marks.clone()
    }
    fn running(&self) -> Running {
        self.running.clone()
    }
    fn product(&self) -> &'static vmetric::core::product::Product {
        &vmetric::core::product::AGENT
    }

    fn platform(&self) -> Platform {
        Platform::here()
    }
    fn accepted(&self) -> Option<Accepted> {
        self.disk.accepted.clone().filter(|_| self.unread == 0)
    }
    fn target(&self) -> Target {
        self.target.clone()
    }
    fn staged(&self, _: Slot, _: &Order) -> Staged {
        self.staged
    }
    fn last_result(&self) -> Option<ResultWire> {
        self.disk.results.last().or(self.disk.last.as_ref()).cloned()
    }
    fn rejected(&self, sha256: &Sha) -> Option<Rejected> {
        self.disk.rejected.iter().find(|r| r.sha256 == *sha256).cloned()
    }
    fn preflight(&self, _: Slot, _: u64) -> Option<Reason> {
        None
    }
    fn contact_age_s(&self) -> Option<u64> {
        Some(0)
    }
    fn was_confirmed(&self, slot: Slot, sha256: &Sha) -> bool {
        self.disk.slots[slot as usize].confirmed.as_ref().is_some_and(|c| c.starts_with(&hex::encode(sha256)))
    }
    fn slot_json(&self, slot: Slot) -> Result<SlotWire, Reason> {
        self.disk.slots[slot as usize].slot_json.clone().ok_or_else(|| Reason::new("slot_damaged", "missing"))
    }
    fn save_marks(&mut self, marks: Marks) -> Result<(), Reason> {
        self.write_marks(marks);
        Ok(())
    }
    fn look_age_s(&self) -> u64 {
        self.now - self.looked_at
    }
    fn look_up(&mut self, _: &Order) -> Result<(), Reason> {
        self.looked_at = self.now;
        self.target = Target::Signed(artifact());
        Ok(())
    }
    fn look_again(&mut self, _: &Order) -> Result<(), Reason> {
        self.looked_at = self.now;
        if self.release == Kindof::Withdrawn {
            self.target = Target::Refused(Reason::new("target_withdrawn", "eats data"));
        }
        Ok(())
    }
    fn clear_slot(&mut self, slot: Slot, _: Option<Sha>) -> Result<(), Reason> {
        self.op();
        self.slot(slot).confirmed = None;
        self.op();
        self.slot(slot).slot_json = None;
        self.op();
        self.slot(slot).file = None;
        self.staged = Staged::Nothing;
        Ok(())
    }
    fn download(&mut self, slot: Slot, artifact: &Artifact) -> Result<Fetched, Reason> {
        assert_eq!(self.marks.slot(slot).condition, Condition::Empty, "a slot that may start was written");
        assert_ne!(self.running.image, Image::Slot(slot), "the running slot was written");
        while self.slot(slot).file != Some(artifact.sha256) && self.slot(slot).slices < SLICES {
            self.op();
            self.slot(slot).slices += 1;
        }
        self.op();
        *self.slot(slot) = SlotDisk { file: Some(artifact.sha256), slices: 0, ..self.slot(slot).clone() };
        self.staged = Staged::Verified;
        Ok(Fetched::Verified)
    }
    fn self_test(&mut self, _: Slot) -> Tested {
        if self.release == Kindof::FailsSelfTest {
            return Tested::Bad(Reason::new("self_test_failed", "exit code 1"));
        }
        if self.release == Kindof::KilledSelfTest && !self.killed {
            self.killed = true;
            return Tested::CouldNotTell(Reason::new("self_test_killed", "model"));
        }
        self.staged = Staged::Tested;
        Tested::Passed
    }
    fn contact(&mut self) -> Result<(), Reason> {
        Ok(())
    }
    fn veto(&self, _: &Order) -> Option<Reason> {
        (self.release == Kindof::Forbidden).then(|| Reason::new("local_policy", "the operator's file"))
    }
    fn before_switch(&mut self, order: &Order) -> Result<(), (Reason, u64)> {
        let slot = self.marks.inactive(self.running.image);
        assert_ne!(self.marks.slot(slot).condition, Condition::Trial, "the marks name a version before its backup");
        assert_eq!((self.staged, order.sha256), (Staged::Tested, NEW));
        if self.release != Kindof::Drained {
            return Ok(());
        }
        // The backup's own file.
        self.op();
        self.held += 1;
        if self.held < 3 { Err((Reason::new("agents_on_trial", "model"), 2)) } else { Ok(()) }
    }
    fn repair(&mut self, order: &Order) -> Result<Option<Fetched>, Reason> {
        let Image::Slot(slot) = self.running.image else { return Ok(None) };
        let disk = self.slot(slot).clone();
        let confirmed = self.was_confirmed(slot, &NEW);
        if disk.file == Some(NEW) && disk.slot_json.is_some() && confirmed {
            return Ok(None);
        }
        if disk.file != Some(NEW) {
            for file in [None, Some(NEW)] {
                self.op();
                self.slot(slot).file = file;
            }
        }
        if !confirmed {
            self.write_confirmed(slot, NEW)?;
        }
        if disk.slot_json.is_none() {
            self.op();
            self.slot(slot).slot_json = Some(SlotWire::new(&artifact(), &order.issuer, order.generation));
        }
        Ok(Some(Fetched::Verified))
    }
    fn write_slot_json(&mut self, slot: Slot, wire: SlotWire) -> Result<(), Reason> {
        self.op();
        self.slot(slot).confirmed = None;
        self.op();
        self.slot(slot).slot_json = Some(wire);
        Ok(())
    }
    fn write_confirmed(&mut self, slot: Slot, sha256: Sha) -> Result<(), Reason> {
        self.op();
        let text = confirmed_text(&sha256, self.marks.sequence);
        self.slot(slot).confirmed = Some(text);
        Ok(())
    }
    fn read_again(&mut self) {
        self.unread = self.unread.saturating_sub(1);
    }
    fn reject(&mut self, entry: Rejected) -> Result<(), Reason> {
        self.op();
        reject(&mut self.disk.rejected, entry);
        Ok(())
    }
    fn add_result(&mut self, result: ResultWire) -> Result<(), Reason> {
        self.op();
        if !self.disk.results.iter().any(|r| r.id == result.id) {
            self.disk.results.push(result.clone());
        }
        self.op();
        self.disk.last = Some(result);
        Ok(())
    }
    fn end_order(&mut self) -> Result<(), Reason> {
        self.op();
        if let Some(accepted) = self.disk.accepted.as_mut().filter(|_| self.unread == 0) {
            accepted.ended = true;
        }
        Ok(())
    }
    fn self_check(&self) -> SelfCheck {
        self.self_check.clone()
    }
    fn run_self_check(&mut self) {
        self.self_check = match self.release {
            Kindof::FailsSelfCheck => SelfCheck::Failed(Reason::new("self_check_failed", "model")),
            Kindof::FailsCheck => SelfCheck::Failed(Reason::new("check_failed", "its last line")),
            Kindof::Unsure => SelfCheck::CouldNotTell(Reason::new("check_unsure", "its last line")),
            Kindof::KilledCheck => self.kill_check(),
            Kindof::KilledOnce if self.now == self.started_at => self.kill_check(),
            Kindof::Unreadable if self.now == self.started_at => SelfCheck::CouldNotTell(Reason::new("root_unreadable", "model")),
            Kindof::Slow if self.now < self.started_at + 20 => SelfCheck::CouldNotTell(Reason::new("check_unsure", "not yet")),
            _ => SelfCheck::Passed,
        };
    }
    fn forget_self_check(&mut self) {
        self.self_check = SelfCheck::NotRun;
    }
    fn refused(&self) -> bool {
        self.release == Kindof::Refused && self.self_check == SelfCheck::Passed
    }
    fn acknowledged(&self) -> bool {
        self.acked
    }
    fn ages_s(&self) -> (u64, u64) {
        (self.now - self.started_at, self.now - self.started_at)
    }
    fn ask(&mut self) -> Result<(), Reason> {
        if self.release == Kindof::NoContact {
            return Err(Reason::new("unreachable", "model"));
        }
        self.acked = self.release != Kindof::Refused;
        Ok(())
    }
    fn costs(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// Whatever happened: the device runs something whole, and tells the truth.
fn check(device: &Device, rest: &Reason, fresh: bool) {
    let what = format!("{:?} cuts {:?} rest {rest}: {:?} {:?}", device.release, device.cuts, device.marks, device.taken);
    let old = if fresh { FACTORY } else { OLD };
    assert!(!device.taken.is_empty(), "nothing was reported: {what}");
    let last = device.taken.last().unwrap();
    assert_eq!(last.running_sha256, hex::encode(&device.running.sha256), "untrue report: {what}");
    assert!(device.trial_starts <= 6, "{what}");
    match device.release {
        Kindof::KilledSelfTest => {
            assert_eq!((device.running.sha256, last.outcome.as_str()), (NEW, "updated"), "{what}");
            assert!(device.is_confirmed(device.running.image) && !device.disk.rejected.iter().any(|r| r.bad), "{what}");
        }
        Kindof::Good | Kindof::Slow | Kindof::Unreadable | Kindof::KilledOnce | Kindof::Drained => {
            assert_eq!(device.running.sha256, NEW, "a good release did not land: {what}");
            assert!(device.is_confirmed(device.running.image), "{what}");
            assert_eq!((last.outcome.as_str(), device.marks.floor), ("updated", 5), "{what}");
            assert!(device.disk.rejected.is_empty(), "a good release was rejected: {what}");
        }
        Kindof::Crashes | Kindof::Hangs | Kindof::FailsSelfCheck | Kindof::FailsCheck | Kindof::Refused => {
            assert_eq!(device.running.sha256, old, "a bad release stayed: {what}");
            assert_eq!((last.outcome.as_str(), last.verdict.as_str()), ("rolled_back", "bad"), "{what}");
            assert!(device.disk.rejected.iter().any(|r| r.sha256 == NEW && r.bad), "{what}");
            assert_eq!(rest.code, "idle");
            if device.release == Kindof::FailsCheck {
                assert_eq!((last.code.as_str(), last.detail.as_str()), ("check_failed", "its last line"), "{what}");
            }
            if device.release == Kindof::Refused {
                assert_eq!(last.code, "operator", "{what}");
            }
        }
        Kindof::NoContact | Kindof::Unsure | Kindof::KilledCheck => {
            assert_eq!(device.running.sha256, old, "{what}");
            assert_eq!((last.outcome.as_str(), last.verdict.as_str()), ("rolled_back", "could_not_tell"), "{what}");
            assert_eq!(rest.code, "cooldown", "{what}");
            if device.release == Kindof::KilledCheck {
                assert_eq!(last.code, "check_killed", "{what}");
                assert_eq!(device.kills, CHECK_KILLS_MAX, "{what}");
            }
            if device.release == Kindof::Unsure {
                assert_eq!((last.code.as_str(), last.detail.as_str()), ("check_unsure", "its last line"), "{what}");
            }
        }
        Kindof::Withdrawn => {
            assert_eq!((device.running.sha256, device.trial_starts), (old, 0), "what was withdrawn was started: {what}");
            assert_eq!((last.outcome.as_str(), last.code.as_ref()), ("refused", "target_withdrawn"), "{what}");
            assert!(!device.disk.slots.iter().any(|s| s.file == Some(NEW)), "the staged copy is still there: {what}");
            assert!(!device.disk.rejected.iter().any(|r| r.sha256 == NEW), "a person may reinstate it: {what}");
        }
        Kindof::Replaced => {
            assert_eq!((device.running.sha256, device.marks.manual, rest.code.as_ref()), (UPGRADED, true, "idle"), "{what}");
            assert_eq!((last.outcome.as_str(), last.verdict.as_str()), ("rolled_back", "could_not_tell"), "{what}");
            assert_eq!((last.code.as_str(), device.trial_starts), ("manual_update", 1), "{what}");
            assert!(device.disk.rejected.is_empty(), "an operator's act is no verdict: {what}");
            let [a, b] = [&device.marks.a, &device.marks.b].map(|slot| slot.condition);
            assert!(if fresh { a == Condition::Empty } else { a == Condition::Confirmed } && b == Condition::Empty, "{what}");
        }
        Kindof::Forbidden => {
            assert_eq!((device.running.sha256, last.outcome.as_str(), last.code.as_str()), (old, "refused", "local_policy"), "{what}");
            assert!(device.disk.rejected.is_empty() && device.disk.slots.iter().all(|s| s.file != Some(NEW)), "{what}");
        }
        Kindof::FailsSelfTest => {
            assert_eq!((device.running.sha256, device.trial_starts), (old, 0), "{what}");
            assert_eq!((last.outcome.as_str(), last.code.as_ref()), ("refused", "self_test_failed"), "{what}");
        }
    }
}

const KINDS: [Kindof; 18] = [
    Kindof::Good,
    Kindof::Crashes,
    Kindof::Hangs,
    Kindof::NoContact,
    Kindof::FailsSelfCheck,
    Kindof::FailsSelfTest,
    Kindof::KilledSelfTest,
    Kindof::Unreadable,
    Kindof::Refused,
    Kindof::Unsure,
    Kindof::KilledCheck,
    Kindof::KilledOnce,
    Kindof::FailsCheck,
    Kindof::Slow,
    Kindof::Withdrawn,
    Kindof::Replaced,
    Kindof::Drained,
    Kindof::Forbidden,
];

fn run_with(release: Kindof, fresh: bool, cuts: Vec<u32>) -> Device {
    let mut device = Device::new(release, fresh, cuts);
    let mut rest = device.run();
    if release == Kindof::KilledSelfTest && rest.code == "cooldown" {
        assert_eq!(device.trial_starts, 0, "started without a self-test: {:?}", device.cuts);
        device.now += 600;
        rest = device.run();
    }
    check(&device, &rest, fresh);
    device
}

fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<PowerCut>() && !info.payload().is::<Started>() {
                default(info);
            }
        }));
    });
}

#[test]
fn without_a_cut() {
    quiet();
    for fresh in [false, true] {
        for release in KINDS {
            let device = run_with(release, fresh, vec![]);
            assert!(device.ops > 8, "{release:?}: {} operations are too few to be the whole update", device.ops);
        }
    }
}

#[test]
fn a_cut_before_every_operation_and_every_pair() {
    quiet();
    let mut runs = 0;
    for fresh in [false, true] {
        for release in KINDS {
            // A cut adds operations of its own; twice the undisturbed count covers them.
            let ops = 2 * run_with(release, fresh, vec![]).ops;
            for first in 1..=ops {
                run_with(release, fresh, vec![first]);
                for second in first + 1..=ops {
                    run_with(release, fresh, vec![first, second]);
                    runs += 1;
                }
            }
        }
    }
    assert!(runs > 5_000, "{runs} pairs are too few to be all");
}

#[test]
fn a_good_release_lands_after_any_five_cuts() {
    quiet();
    // Five cuts in the trial are below its six starts.
    let mut seed = 1u64;
    for _ in 0..3_000 {
        let cuts = (0..5)
            .map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                1 + (seed >> 33) as u32 % 60
            })
            .collect();
        run_with(Kindof::Good, seed & 1 == 0, cuts);
    }
}

#[test]
fn a_release_that_could_not_be_judged_is_tried_again_after_the_cooldown() {
    quiet();
    let mut device = run_with(Kindof::NoContact, false, vec![]);
    let starts = device.trial_starts;
    device.now += 599;
    assert_eq!(device.run().code, "cooldown");
    assert_eq!(device.trial_starts, starts, "tried before the cooldown ended");
    device.now += 1;
    device.release = Kindof::Good;
    assert_eq!(device.run().code, "idle");
    assert_eq!(device.running.sha256, NEW);
}

#[test]
fn after_an_operator_replaced_the_image_a_new_order_is_carried_out_at_once() {
    quiet();
    for fresh in [false, true] {
        let mut device = run_with(Kindof::Replaced, fresh, vec![]);
        device.release = Kindof::Good;
        assert_eq!((device.run().code.as_ref(), device.running.sha256), ("idle", UPGRADED), "the old order is over");
        device.order_given.generation = 2;
        assert_eq!(device.run().code, "idle");
        assert_eq!((device.running.sha256, device.marks.manual), (NEW, false));
    }
}

#[test]
fn a_confirmed_release_that_crash_loops_later_is_left() {
    quiet();
    let mut device = run_with(Kindof::Good, false, vec![]);
    device.release = Kindof::Crashes;
    let rest = device.run();
    assert_eq!((device.running.sha256, rest.code.as_ref()), (OLD, "idle"));
    let last = device.taken.last().unwrap();
    assert_eq!((last.outcome.as_str(), last.code.as_str()), ("rolled_back", "crash_loop"));
}

#[test]
fn both_slots_damaged_leave_the_factory_image_which_is_repaired() {
    quiet();
    let mut device = run_with(Kindof::Good, false, vec![]);
    for slot in Slot::BOTH {
        device.slot(slot).file = Some([0xdd; 32]);
    }
    device.run();
    assert_eq!(device.running.image, Image::Factory);
    device.order_given.generation = 2;
    device.run();
    assert_eq!(device.running.sha256, NEW, "the Director's next order repairs it");
}

#[test]
fn lost_marks_are_rebuilt_at_every_operation() {
    quiet();
    let ops = run_with(Kindof::Good, false, vec![]).ops;
    for cut in 1..=ops {
        let mut device = Device::new(Kindof::Good, false, vec![cut]);
        if catch_unwind(AssertUnwindSafe(|| while device.life().is_none() {})).is_ok() {
            continue;
        }
        device.boot += 1;
        device.disk.marks = [None, None];
        let rest = device.run();
        assert!(matches!(device.running.sha256, OLD | NEW | FACTORY), "{rest}");
        assert_eq!(device.running.sha256, NEW, "cut {cut}: rebuilt marks must not end the update: {:?}", device.taken);
    }
}

#[test]
fn a_trial_that_lost_its_terms_goes_back() {
    quiet();
    let mut device = Device::new(Kindof::NoContact, false, vec![]);
    // Up to the flip; then order and description rot while the trial runs.
    while device.marks.b.condition != Condition::Trial {
        assert!(device.life().is_none());
        device.read_marks();
    }
    assert!(matches!(catch_unwind(AssertUnwindSafe(|| launch(&mut device))), Err(payload) if payload.is::<Started>()));
    device.running = Running { image: Image::Slot(Slot::B), ..running(NEW) };
    (device.disk.accepted, device.slot(Slot::B).slot_json) = (None, None);
    assert!(matches!(turn(&mut device), Ok(Turn::Relaunch(reason)) if reason.code == "slot_damaged"));
    device.run();
    assert_eq!(device.running.sha256, OLD);
}

/// The disk has errors, and each process reads its order in vain for so many turns, cut at any operation: the update comes to its end,
/// and so does its order, or it would be shown as open for ever.
#[test]
fn an_order_that_cannot_be_read_for_a_while_is_ended() {
    quiet();
    for unreadable in 0..12 {
        let mut cut = 0;
        loop {
            cut += 1;
            let mut device = Device::new(Kindof::Good, false, vec![cut]);
            device.unreadable = unreadable;
            let rest = device.run();
            let what = format!("read in vain {unreadable} times, cut {cut}: {:?} {:?}", device.disk.accepted, device.taken);
            assert_eq!((device.running.sha256, rest.code.as_ref()), (NEW, "idle"), "{what}");
            assert!(device.is_confirmed(device.running.image), "{what}");
            assert!(device.disk.accepted.as_ref().is_some_and(|a| a.ended), "{what}");
            assert!(!device.taken.is_empty() && device.taken.iter().all(|r| r.outcome == "updated"), "{what}");
            if device.ops < cut {
                break;
            }
        }
        assert!(cut > 10, "{cut} operations");
    }
}

/// What has become of a slot's own files.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Own {
    Whole,
    /// `confirmed` is missing, names another file, or an earlier write of the marks: one bit is enough for each.
    NotConfirmed,
    OtherFile,
    Earlier,
    NotDescribed,
    NoFile,
    Rotten,
}

const OWN: [Own; 7] = [Own::Whole, Own::NotConfirmed, Own::OtherFile, Own::Earlier, Own::NotDescribed, Own::NoFile, Own::Rotten];

impl Own {
    fn happens_to(self, slot: &mut SlotDisk) {
        let sha256 = slot.file.unwrap();
        match self {
            Own::Whole => {}
            Own::NotConfirmed => slot.confirmed = None,
            Own::OtherFile => slot.confirmed = Some(confirmed_text(&[0xee; 32], 9)),
            Own::Earlier => slot.confirmed = Some(confirmed_text(&sha256, 1)),
            Own::NotDescribed => slot.slot_json = None,
            Own::NoFile => slot.file = None,
            Own::Rotten => slot.file = Some([0xdd; 32]),
        }
    }

    /// The slot can still start.
    fn starts(self) -> bool {
        matches!(self, Own::Whole | Own::NotConfirmed | Own::OtherFile | Own::Earlier)
    }
}

/// What is left of the marks.
#[derive(Clone, Debug)]
enum Left {
    Both,
    /// One copy, of any write since the flip: newer ones were lost with the other.
    One(Box<Marks>),
    None,
}

/// After the update nobody is left to say anything: whatever the marks and the slots' own files have come to, no version stays
/// on trial, and the same version can be ordered.
#[test]
fn whatever_is_lost_of_the_marks_leaves_nobody_on_trial() {
    quiet();
    let settled = run_with(Kindof::Good, false, vec![]);
    let flip = settled.written.iter().position(|m| m.b.condition == Condition::Trial).unwrap();
    let one = settled.written[flip..].iter().map(|marks| Left::One(Box::new(marks.clone())));
    let lefts: Vec<Left> = one.chain([Left::Both, Left::None]).collect();
    assert!(lefts.iter().filter(|l| matches!(l, Left::One(m) if m.b.condition == Condition::Trial)).count() >= 2, "{lefts:?}");
    let mut cases = 0;
    for left in &lefts {
        for a in OWN {
            for b in OWN {
                for (on_record, order) in [(true, true), (true, false), (false, true), (false, false)] {
                    rot_then_order(&settled, left, (a, b), on_record, order);
                    cases += 1;
                }
            }
        }
    }
    assert!(cases > 1_000, "{cases}");
}

fn rot_then_order(settled: &Device, left: &Left, (a, b): (Own, Own), on_record: bool, order: bool) {
    let what = format!("slot a {a:?}, slot b {b:?}, result kept {on_record}, order kept {order}, marks left: {left:?}");
    let mut device = Device::new(Kindof::NoContact, false, vec![]);
    device.disk = settled.disk.clone();
    (device.now, device.booted_at, device.boot) = (settled.now + 60, settled.now + 60, 2);
    match left {
        Left::Both => {}
        Left::One(marks) => device.disk.marks = [None, Some((**marks).clone())],
        Left::None => device.disk.marks = [None, None],
    }
    a.happens_to(device.slot(Slot::A));
    b.happens_to(device.slot(Slot::B));
    if !on_record {
        device.disk.last = None;
    }
    if !order {
        device.disk.accepted = None;
    }
    // The Director hears nothing of the new version, and orders nothing.
    device.order_given = settled.order_given.clone();
    device.run();
    let trial = |d: &Device| matches!(d.running.image, Image::Slot(slot) if d.marks.slot(slot).condition == Condition::Trial);
    assert!(!trial(&device), "on trial for ever: {what}");
    let was_trial = matches!(left, Left::One(marks) if marks.b.condition == Condition::Trial);
    if was_trial && on_record && b.starts() {
        assert_eq!(device.running.sha256, NEW, "it was won before: {what}");
        assert!(device.disk.rejected.is_empty(), "{what}");
    }
    if !a.starts() && !b.starts() {
        assert_eq!(device.running.image, Image::Factory, "{what}");
    }
    // Somebody comes and orders it again.
    device.release = Kindof::Good;
    device.order_given = Order { generation: 7, retry: true, end_probation: true, ..settled.order_given.clone() };
    let rest = device.run();
    assert_eq!((device.running.sha256, rest.code.as_ref()), (NEW, "idle"), "{what}");
    assert!(device.is_confirmed(device.running.image) && device.disk.accepted.as_ref().is_some_and(|a| a.ended), "{what}");
}

/// The version that runs is ordered because its slot is damaged: a cut at any point of the repair costs no more than the damage did,
/// and the order is carried out after it.
#[test]
fn a_repair_of_the_running_version_is_cut_at_every_operation() {
    quiet();
    let settled = run_with(Kindof::Good, false, vec![]);
    for b in OWN.into_iter().filter(|b| *b != Own::Earlier) {
        let mut cut = 0;
        loop {
            cut += 1;
            let mut device = Device::new(Kindof::Good, false, vec![cut]);
            device.disk = settled.disk.clone();
            (device.now, device.booted_at, device.boot) = (settled.now + 60, settled.now + 60, 2);
            device.order_given = settled.order_given.clone();
            // It runs, and then its files rot.
            device.cuts.clear();
            assert_eq!(device.run().code, "idle");
            (device.ops, device.cuts) = (0, vec![cut]);
            b.happens_to(device.slot(Slot::B));
            device.order_given = Order { generation: 7, retry: true, end_probation: true, ..settled.order_given.clone() };
            let whole = catch_unwind(AssertUnwindSafe(|| device.work())).is_ok();
            if !whole {
                device.boot += 1;
                device.run();
            }
            let what = format!("{b:?}, cut {cut}: {:?} {:?}", device.marks, device.taken);
            assert_eq!(device.running.sha256, NEW, "{what}");
            assert!(device.is_confirmed(device.running.image) && device.disk.accepted.as_ref().is_some_and(|a| a.ended), "{what}");
            let Image::Slot(slot) = device.running.image else { panic!("{what}") };
            let disk = device.slot(slot).clone();
            assert!(disk.file == Some(NEW) && disk.slot_json.is_some() && device.was_confirmed(slot, &NEW), "{what}");
            if whole {
                assert_eq!(device.taken.last().unwrap().code, if b == Own::Whole { "already" } else { "repaired" }, "{what}");
                break;
            }
        }
        assert!(cut > 3, "{b:?}: {cut} operations");
    }
}
