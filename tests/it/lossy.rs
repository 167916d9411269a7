//! Messages between agent and Director get lost, doubled, late, out of order, and both sides restart at any moment: the end
//! is that of a quiet day. Both sides are the real ones: the engine and the rules for orders on one, the registry on the
//! other, each restarted from what it had written; only disk and network are played.

use proptest::prelude::*;
use vmetric::agent::engine::{Turn, turn};
use vmetric::agent::world::{Fetched, Tested, World as Device};
use vmetric::core::clock::Moment;
use vmetric::core::hex;
use vmetric::core::reason::Reason;
use vmetric::core::rejected::{Rejected, reject};
use vmetric::core::release::{Artifact, Platform};
use vmetric::core::slots::{Condition, Image, Marks, Seen, Slot, next_boot};
use vmetric::core::times::Times;
use vmetric::core::update::{Accepted, Order, Running, SelfCheck, Staged, Target};
use vmetric::director::cancel::Cancel;
use vmetric::director::orders::Assign;
use vmetric::director::retry::Whom;
use vmetric::wire::agent_api::{AnswerWire, PROTOCOL, ReportWire, ResultWire};
use vmetric::wire::records::AcceptedWire;
use vmetric::wire::slot::SlotWire;

use crate::director_orders::{World as Site, all, artifact_here, sha};

/// Nothing is older than this on a network: a request has an end (30 s), and so has its connection.
const LATE_MAX_S: u64 = 60;
const FACTORY: &str = "1.0.0";
const GOOD: &str = "2.0.0";
/// Fails its self-check.
const BAD: &str = "2.1.0";

/// What survives a restart of the agent.
#[derive(Clone, Default)]
struct Disk {
    marks: Marks,
    files: [Option<[u8; 32]>; 2],
    slot_json: [Option<SlotWire>; 2],
    confirmed: [Option<[u8; 32]>; 2],
    accepted: Option<AcceptedWire>,
    results: Vec<ResultWire>,
    last: Option<ResultWire>,
    rejected: Vec<Rejected>,
}

/// An agent: the engine over a played disk.
struct Agent {
    disk: Disk,
    running: Running,
    target: Target,
    staged: Staged,
    self_check: SelfCheck,
    acknowledged: bool,
    refused: bool,
    nonce: u64,
    started: u64,
    now: u64,
    sent_ms: u64,
    word: (String, Reason),
    switches: u32,
}

fn version_of(sha256: &[u8; 32]) -> &'static str {
    [FACTORY, GOOD, BAD].into_iter().find(|v| sha(v) == hex::encode(sha256)).unwrap_or("9.9.9")
}

impl Agent {
    fn new(now: u64) -> Agent {
        let running = Running { image: Image::Factory, sha256: hex::sha256(FACTORY.as_bytes()), version: FACTORY.parse().unwrap() };
        let mut agent = Agent {
            disk: Disk::default(),
            running,
            target: Target::Unknown,
            staged: Staged::Nothing,
            self_check: SelfCheck::NotRun,
            acknowledged: false,
            refused: false,
            nonce: 0,
            started: now,
            now,
            sent_ms: 0,
            word: ("idle".into(), Reason::new("idle", "x")),
            switches: 0,
        };
        agent.boot();
        agent
    }

    /// What the launcher does, and a new process.
    fn boot(&mut self) {
        let seen = Seen { factory: hex::sha256(FACTORY.as_bytes()), boot_id: "boot".into(), broken: [None, None] };
        let boot = next_boot(&self.disk.marks, &seen);
        self.disk.marks = boot.marks;
        let sha256 = match boot.image {
            Image::Slot(slot) => self.disk.files[slot as usize].expect("a slot without a file was started"),
            Image::Factory => seen.factory,
        };
        self.running = Running { image: boot.image, sha256, version: version_of(&sha256).parse().unwrap() };
        (self.target, self.staged, self.self_check) = (Target::Unknown, Staged::Nothing, SelfCheck::NotRun);
        (self.acknowledged, self.refused, self.started) = (false, false, self.now);
        self.nonce += 1;
    }

    fn on_trial(&self) -> bool {
        matches!(self.running.image, Image::Slot(slot) if self.disk.marks.slot(slot).condition == Condition::Trial)
    }

    fn nonce(&self) -> String {
        format!("{:032x}", self.nonce)
    }

    fn work(&mut self) {
        match turn(self).unwrap() {
            Turn::Again => {}
            Turn::Idle => self.word = ("idle".into(), Reason::new("idle", "nothing is ordered")),
            Turn::Wait { reason, .. } => self.word = ((if self.on_trial() { "trial" } else { "waiting" }).into(), reason),
            Turn::Relaunch(_) => {
                self.switches += 1;
                self.boot();
            }
        }
    }

    fn report(&mut self) -> ReportWire {
        let trial = self.on_trial() && self.self_check == SelfCheck::Passed;
        let here = Platform::here();
        // Several reports in one second, and never two with the same number.
        self.sent_ms = (self.sent_ms + 1).max(self.now * 1_000);
        ReportWire {
            protocol: PROTOCOL,
            agent_id: "a".into(),
            version: self.running.version.to_string(),
            architecture: here.arch,
            os: here.os,
            running: self.running.image.name().into(),
            running_sha256: hex::encode(&self.running.sha256),
            running_as: match self.running.image {
                Image::Slot(_) if self.on_trial() => "trial",
                Image::Slot(_) => "confirmed",
                Image::Factory => "factory",
            }
            .into(),
            issuer: self.disk.accepted.as_ref().map(|a| a.director_issuer.clone()).unwrap_or_default(),
            generation: self.disk.accepted.as_ref().map_or(0, |a| a.director_generation),
            step: self.word.0.clone(),
            code: self.word.1.code.to_string(),
            detail: self.word.1.detail.clone(),
            trial_nonce: trial.then(|| self.nonce()),
            trial_process: self.on_trial().then(|| self.nonce()),
            trial_sha256: trial.then(|| hex::encode(&self.running.sha256)),
            result: self.disk.results.first().cloned(),
            boot_id: Some("boot".into()),
            sent_us: Some(self.sent_ms),
            ..Default::default()
        }
    }

    fn hear(&mut self, answer: &AnswerWire) {
        if let Some(taken) = &answer.result_taken {
            self.disk.results.retain(|r| r.id != *taken);
        }
        if self.on_trial() && !self.refused && answer.acknowledged == Some(self.nonce()) {
            self.acknowledged = true;
        }
        if self.on_trial() && !self.acknowledged && answer.trial_refused == Some(self.nonce()) {
            self.refused = true;
        }
        if let Some(order) = &answer.order
            && AcceptedWire::takes(order, self.disk.accepted.as_ref(), self.on_trial())
        {
            self.disk.accepted = Some(AcceptedWire::receive(order.clone(), &self.moment(), self.disk.accepted.as_ref()));
            (self.target, self.staged) = (Target::Unknown, Staged::Nothing);
        }
    }
}

impl Device for Agent {
    fn moment(&self) -> Moment {
        Moment { unix: self.now, monotonic: self.now, boot_id: "boot".into(), ..Default::default() }
    }
    fn times(&self) -> Times {
        Times::DEFAULT
    }
    fn marks(&self) -> Marks {
        self.disk.marks.clone()
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
        self.disk.accepted.as_ref().and_then(|a| a.accepted(&Times::DEFAULT).ok())
    }
    fn target(&self) -> Target {
        self.target.clone()
    }
    fn staged(&self, _: Slot, _: &Order) -> Staged {
        self.staged
    }
    fn last_result(&self) -> Option<ResultWire> {
        self.disk.last.clone()
    }
    fn rejected(&self, sha256: &[u8; 32]) -> Option<Rejected> {
        self.disk.rejected.iter().find(|r| r.sha256 == *sha256).cloned()
    }
    fn preflight(&self, _: Slot, _: u64) -> Option<Reason> {
        None
    }
    fn contact_age_s(&self) -> Option<u64> {
        Some(0)
    }
    fn was_confirmed(&self, slot: Slot, sha256: &[u8; 32]) -> bool {
        self.disk.confirmed[slot as usize] == Some(*sha256)
    }
    fn slot_json(&self, slot: Slot) -> Result<SlotWire, Reason> {
        self.disk.slot_json[slot as usize].clone().ok_or_else(|| Reason::new("slot_damaged", "missing"))
    }
    fn save_marks(&mut self, marks: Marks) -> Result<(), Reason> {
        self.disk.marks = marks;
        Ok(())
    }
    fn look_up(&mut self, order: &Order) -> Result<(), Reason> {
        self.target = Target::Signed(artifact_here(&order.target.version.to_string()));
        Ok(())
    }
    fn look_age_s(&self) -> u64 {
        0
    }
    fn look_again(&mut self, _: &Order) -> Result<(), Reason> {
        Ok(())
    }
    fn clear_slot(&mut self, slot: Slot, _: Option<[u8; 32]>) -> Result<(), Reason> {
        let at = slot as usize;
        (self.disk.files[at], self.disk.slot_json[at], self.disk.confirmed[at]) = (None, None, None);
        self.staged = Staged::Nothing;
        Ok(())
    }
    fn download(&mut self, slot: Slot, artifact: &Artifact) -> Result<Fetched, Reason> {
        self.disk.files[slot as usize] = Some(artifact.sha256);
        self.staged = Staged::Verified;
        Ok(Fetched::Verified)
    }
    fn self_test(&mut self, _: Slot) -> Tested {
        self.staged = Staged::Tested;
        Tested::Passed
    }
    fn contact(&mut self) -> Result<(), Reason> {
        Ok(())
    }
    fn write_slot_json(&mut self, slot: Slot, wire: SlotWire) -> Result<(), Reason> {
        self.disk.slot_json[slot as usize] = Some(wire);
        Ok(())
    }
    fn write_confirmed(&mut self, slot: Slot, sha256: [u8; 32]) -> Result<(), Reason> {
        self.disk.confirmed[slot as usize] = Some(sha256);
        Ok(())
    }
    fn read_again(&mut self) {}
    fn reject(&mut self, entry: Rejected) -> Result<(), Reason> {
        reject(&mut self.disk.rejected, entry);
        Ok(())
    }
    fn add_result(&mut self, result: ResultWire) -> Result<(), Reason> {
        if !self.disk.results.iter().any(|r| r.id == result.id) {
            self.disk.last = Some(result.clone());
            self.disk.results.push(result);
        }
        Ok(())
    }
    fn end_order(&mut self) -> Result<(), Reason> {
        if let Some(accepted) = &mut self.disk.accepted {
            accepted.ended = true;
        }
        Ok(())
    }
    fn self_check(&self) -> SelfCheck {
        self.self_check.clone()
    }
    fn run_self_check(&mut self) {
        self.self_check = match version_of(&self.running.sha256) {
            BAD => SelfCheck::Failed(Reason::new("self_check_failed", "played")),
            _ => SelfCheck::Passed,
        };
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
        (self.now - self.started, self.now - self.started)
    }
    fn ask(&mut self) -> Result<(), Reason> {
        self.word = ("trial".into(), Reason::new("trial", "asks"));
        Ok(())
    }
    fn costs(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// What happens next. The numbers choose a message.
#[derive(Clone, Debug)]
enum Act {
    Work,
    Send,
    /// A report arrives, and perhaps arrives again later.
    Report {
        which: u8,
        again: bool,
    },
    LoseReport(u8),
    /// An answer arrives, and perhaps arrives again later.
    Answer {
        which: u8,
        again: bool,
    },
    LoseAnswer(u8),
    RestartAgent,
    RestartDirector,
    Pass(u8),
    Assign {
        good: bool,
    },
    Cancel {
        roll_back: bool,
    },
    Retry,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => Just(Act::Work),
        8 => Just(Act::Send),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(which, again)| Act::Report { which, again }),
        1 => any::<u8>().prop_map(Act::LoseReport),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(which, again)| Act::Answer { which, again }),
        1 => any::<u8>().prop_map(Act::LoseAnswer),
        1 => Just(Act::RestartAgent),
        1 => Just(Act::RestartDirector),
        2 => (0..20u8).prop_map(Act::Pass),
        1 => any::<bool>().prop_map(|good| Act::Assign { good }),
        1 => any::<bool>().prop_map(|roll_back| Act::Cancel { roll_back }),
        1 => Just(Act::Retry),
    ]
}

struct Play {
    site: Site,
    agent: Agent,
    reports: Vec<(u64, ReportWire)>,
    answers: Vec<(u64, AnswerWire)>,
}

fn take<T: Clone>(list: &mut Vec<T>, which: u8, again: bool) -> Option<T> {
    let at = (!list.is_empty()).then(|| which as usize % list.len())?;
    if again { Some(list[at].clone()) } else { Some(list.remove(at)) }
}

impl Play {
    fn new() -> Play {
        let mut site = Site::new(0);
        site.releases.artifacts = [FACTORY, GOOD, BAD].map(artifact_here).to_vec();
        let here = Platform::here();
        let wire = vmetric::wire::agent_api::EnrollWire {
            token: "t".into(),
            os: here.os,
            architecture: here.arch,
            version: FACTORY.into(),
            ..Default::default()
        };
        site.registry.enroll(&wire, "a", site.now).unwrap();
        let agent = Agent::new(site.now);
        let mut play = Play { site, agent, reports: vec![], answers: vec![] };
        play.round();
        play
    }

    fn assign(&mut self, version: &str) {
        let ask = Assign { max_failures: 0, end_probation: true, retry: true, ..all(version) };
        self.site.registry.assign(&ask, &self.site.releases, self.site.now).unwrap();
        self.site.plan();
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Work => self.agent.work(),
            Act::Send => {
                let report = self.agent.report();
                self.reports.push((self.site.now, report));
            }
            Act::Report { which, again } => {
                if let Some((at, report)) = take(&mut self.reports, which, again) {
                    let answer = self.site.hear(&report);
                    self.answers.push((at, answer));
                }
            }
            Act::LoseReport(which) => drop(take(&mut self.reports, which, false)),
            Act::Answer { which, again } => {
                if let Some((_, answer)) = take(&mut self.answers, which, again) {
                    self.agent.hear(&answer);
                }
            }
            Act::LoseAnswer(which) => drop(take(&mut self.answers, which, false)),
            Act::RestartAgent => self.agent.boot(),
            Act::RestartDirector => self.site.restart(),
            Act::Pass(seconds) => self.pass(seconds.into()),
            Act::Assign { good } => self.assign(if good { GOOD } else { BAD }),
            Act::Cancel { roll_back } => {
                let ask = Cancel { roll_back, ..Cancel::new("x") };
                self.site.registry.cancel_agents(&["a".to_string()], &ask, self.site.now);
            }
            Act::Retry => {
                let _ = self.site.registry.retry(&Whom::Agents(vec!["a".into()]), &self.site.releases, self.site.now);
                self.site.plan();
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.site.now += seconds;
        self.agent.now = self.site.now;
        let oldest = self.site.now.saturating_sub(LATE_MAX_S);
        self.reports.retain(|(at, _)| *at >= oldest);
        self.answers.retain(|(at, _)| *at >= oldest);
    }

    /// One exchange without a fault, and a second.
    fn round(&mut self) {
        self.agent.work();
        let report = self.agent.report();
        let answer = self.site.hear(&report);
        self.agent.hear(&answer);
        self.pass(1);
    }

    /// Until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.round();
        }
    }

    fn last_row(&self) -> (String, String, bool) {
        let row = self.site.registry.orders.values().next_back().unwrap();
        (row.version.clone(), row.state.clone(), row.end().is_some())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_network_does_the_end_is_that_of_a_quiet_day(acts in prop::collection::vec(act(), 1..120), good: bool) {
        let mut play = Play::new();
        for act in &acts {
            play.act(act);
        }
        // The last word is a person's; then the network heals.
        let version = if good { GOOD } else { BAD };
        play.assign(version);
        play.settle();
        let (row_version, state, over) = play.last_row();
        prop_assert!(over && row_version == version, "{row_version} {state}: {:?}", play.site.registry.orders);
        if good {
            prop_assert_eq!(version_of(&play.agent.running.sha256), GOOD);
            prop_assert!(!play.agent.on_trial() && matches!(state.as_str(), "updated" | "already"), "{}", state);
        } else {
            prop_assert_ne!(version_of(&play.agent.running.sha256), BAD);
            prop_assert_eq!(state.as_str(), "rolled_back");
        }
        // Both sides agree, nothing waits to be taken, and what was settled stays so.
        prop_assert!(play.agent.disk.results.is_empty(), "{:?}", play.agent.disk.results);
        prop_assert_eq!(&play.site.registry.agents["a"].running_sha256, &hex::encode(&play.agent.running.sha256));
        let (switches, events) = (play.agent.switches, play.site.registry.next_seq);
        play.settle();
        prop_assert_eq!((play.agent.switches, play.site.registry.next_seq), (switches, events), "something went on");
        // No order came to its end twice.
        for generation in 1..=play.site.registry.agents["a"].issued {
            let confirmed = play.site.registry.recent.iter().filter(|e| e.generation == generation && e.code == "confirmed").count();
            prop_assert!(confirmed <= 1, "generation {generation} was confirmed {confirmed} times");
        }
        prop_assert_eq!(play.site.registry.recent.iter().filter(|e| e.code == "flapping").count(), 0, "a late report was taken for news");
    }
}

#[test]
fn a_result_that_comes_again_after_the_next_one_changes_nothing() {
    let mut site = Site::new(1);
    site.assign(&all(GOOD));
    let order = site.order("a0").unwrap();
    let mut back = site.ended(&order, "a0", "rolled_back");
    back.result.as_mut().unwrap().retry_at = Some(site.now + 1);
    assert!(site.hear(&back).result_taken.is_some());
    let done = site.ended(&order, "a0", "updated");
    assert!(site.hear(&done).result_taken.is_some());
    for restarted in [false, true] {
        if restarted {
            site.restart();
        }
        let before = site.registry.next_seq;
        let mut again = back.clone();
        (again.running_sha256, again.running_as) = (sha(GOOD), "confirmed".into());
        assert!(site.hear(&again).result_taken.is_some(), "it is taken, or it would be sent for ever");
        assert_eq!((site.state(1, "a0").0.as_str(), site.registry.next_seq), ("updated", before));
    }
}

#[test]
fn results_of_nobody_of_the_past_and_of_the_future_are_taken_and_change_nothing() {
    let mut site = Site::new(1);
    site.assign(&all(GOOD));
    let order = site.order("a0").unwrap();
    let state = site.state(1, "a0");
    for (n, (issuer, generation)) in [("issuer-1", 9), ("issuer-1", 0), ("another", 1), ("issuer-1", u64::MAX)].into_iter().enumerate() {
        let mut report = site.ended(&order, "a0", "rolled_back");
        let result = report.result.as_mut().unwrap();
        (result.issuer, result.generation, result.id) = (issuer.into(), generation, format!("r{n}"));
        report.generation = 0;
        assert_eq!(site.hear(&report).result_taken, Some(format!("r{n}")));
        assert_eq!(site.state(1, "a0").0, state.0, "{issuer} {generation}");
    }
    // Of a roll-out that was forgotten meanwhile.
    site.finish_by(&order, "a0", "updated");
    site.assign(&all(BAD));
    site.now += 400 * 86_400;
    site.registry.prune_rollouts(site.now);
    let mut late = site.ended(&order, "a0", "rolled_back");
    late.result.as_mut().unwrap().id = "late".into();
    assert_eq!(site.hear(&late).result_taken, Some("late".into()));
}

#[test]
fn a_late_report_is_no_news() {
    let mut site = Site::new(2);
    site.assign(&Assign { max_failures: 0, ..all(GOOD) });
    let numbered = |report: &ReportWire, ms: u64| ReportWire { boot_id: Some("b".into()), sent_us: Some(ms), ..report.clone() };
    let before = numbered(&site.report_of("a0", FACTORY).clone(), 1_000);
    let order = site.hear(&before).order.unwrap();
    let done = numbered(&site.ended(&order, "a0", "updated"), 9_000);
    site.hear(&done);
    assert_eq!(site.state(1, "a0").0, "updated");
    site.hear(&before);
    assert_eq!((site.state(1, "a0").0.as_str(), site.rollout(1).as_str()), ("updated", "running"), "it has not left its version");
    // A device whose clock went back for good (a restored virtual machine) is heard again.
    let restored = numbered(&site.report_of("a0", FACTORY).clone(), 9_000_000_000);
    site.hear(&restored);
    assert_eq!(site.state(1, "a0").0, "flapping");
    let rewound = numbered(&site.report_of("a0", GOOD).clone(), 1_000);
    site.hear(&rewound);
    assert_eq!(site.registry.agents["a0"].version, GOOD);
}
