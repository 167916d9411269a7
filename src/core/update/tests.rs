//! Every class of facts, and properties of random facts: what a step may never be, whatever led to it.

use proptest::prelude::*;

use super::*;
use crate::core::product::AGENT;
use crate::core::slots::PROBATION_S;

const NEW: Sha256 = [2; 32];
const OLD: Sha256 = [1; 32];
const NOW: u64 = 1_900_000_000;
const UPTIME: u64 = 5_000;

/// Owned facts: a quiet device that runs slot A, confirmed long ago, with an order for the empty slot B.
#[derive(Clone, Debug)]
struct Scene {
    accepted: Option<Accepted>,
    marks: Marks,
    running: Running,
    target: Target,
    staged: Staged,
    rejected: Option<Rejected>,
    preflight: Option<Reason>,
    veto: Option<Reason>,
    contact_age_s: Option<u64>,
    look_age_s: u64,
    now: Moment,
    times: Times,
}

fn here() -> Platform {
    "linux-amd64".parse().unwrap()
}

fn path(text: &str) -> TargetPath {
    text.parse().unwrap()
}

fn artifact() -> Artifact {
    Artifact {
        path: path("vmetric-agent/2.0.0/linux-amd64/vmetric-agent"),
        length: 3,
        sha256: NEW,
        min_version: None,
        counter: 5,
        build_keyid: "k".into(),
        build_sig: [0; 64],
    }
}

fn moment(boot_id: &str, unix: u64, monotonic: u64) -> Moment {
    Moment { unix, monotonic, boot_id: boot_id.into(), director: None }
}

fn order() -> Order {
    Order {
        issuer: "site".into(),
        generation: 4,
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

fn rejection_of(bad: bool, generation: u64) -> Rejected {
    Rejected {
        sha256: NEW,
        version: "2.0.0".into(),
        bad,
        reason: Reason::new("crashed_or_hung", "ended 2 times without a word"),
        count: 1,
        issuer: "site".into(),
        generation,
        since: NOW - 100,
        since_monotonic: UPTIME - 100,
        boot_id: "boot".into(),
        since_director: None,
    }
}

impl Scene {
    fn new() -> Scene {
        let marks = Marks::default().start_trial(Slot::A, OLD).confirm(Slot::A, 1, "long ago", 0);
        Scene {
            accepted: Some(Accepted { order: order(), at: moment("boot", NOW - 10, UPTIME - 10), ended: false, bytes: 0 }),
            marks,
            running: Running { image: Image::Slot(Slot::A), sha256: OLD, version: "1.0.0".parse().unwrap() },
            target: Target::Signed(artifact()),
            staged: Staged::Nothing,
            rejected: None,
            preflight: None,
            veto: None,
            contact_age_s: Some(5),
            look_age_s: 5,
            now: moment("boot", NOW, UPTIME),
            times: Times::DEFAULT,
        }
    }

    fn with(change: impl FnOnce(&mut Scene)) -> Scene {
        let mut scene = Scene::new();
        change(&mut scene);
        scene
    }

    fn order(&mut self) -> &mut Order {
        &mut self.accepted.as_mut().unwrap().order
    }

    fn signed(&mut self) -> &mut Artifact {
        match &mut self.target {
            Target::Signed(artifact) => artifact,
            other => panic!("{other:?}"),
        }
    }

    fn step(&self) -> Step {
        let platform = here();
        next_step(&Facts {
            accepted: self.accepted.as_ref(),
            marks: &self.marks,
            running: &self.running,
            product: &AGENT,
            platform: &platform,
            target: &self.target,
            staged: self.staged,
            rejected: self.rejected.as_ref(),
            preflight: self.preflight.as_ref(),
            veto: self.veto.as_ref(),
            contact_age_s: self.contact_age_s,
            look_age_s: self.look_age_s,
            now: &self.now,
            times: &self.times,
        })
    }

    /// One word for the step, the reason's code where it has one.
    fn word(&self) -> String {
        match self.step() {
            Step::Idle => "idle".into(),
            Step::Already => "already".into(),
            Step::Drop => "drop".into(),
            Step::Wait { reason, .. } => format!("wait {}", reason.code),
            Step::Refuse(reason) => format!("refuse {}", reason.code),
            Step::LookUp => "look up".into(),
            Step::LookAgain => "look again".into(),
            Step::Clear(slot) => format!("clear {}", slot.name()),
            Step::Download(slot) => format!("download {}", slot.name()),
            Step::SelfTest(slot) => format!("self-test {}", slot.name()),
            Step::Contact => "contact".into(),
            Step::Switch(slot, _) => format!("switch {}", slot.name()),
        }
    }
}

fn confirmed_in(scene: &mut Scene, slot: Slot) {
    scene.marks = scene.marks.clone().start_trial(slot, [8; 32]).confirm(slot, 1, "long ago", 0);
    scene.marks.active = Image::Slot(Slot::A);
}

/// Slot A was confirmed an hour ago under this boot id; slot B is its confirmed fallback.
fn probation(scene: &mut Scene) {
    confirmed_in(scene, Slot::B);
    scene.marks = scene.marks.clone().confirm(Slot::A, 1, "boot", NOW - 3600);
}

type Change = fn(&mut Scene);

#[test]
fn every_class_of_facts_has_its_step() {
    let table: &[(&str, Change, &str)] = &[
        ("no order", |s| s.accepted = None, "idle"),
        ("an ended order", |s| s.accepted.as_mut().unwrap().ended = true, "idle"),
        ("cancelled", |s| s.order().kind = Kind::Cancel, "drop"),
        (
            "cancelled, and rejected, and staged",
            |s| {
                s.order().kind = Kind::Cancel;
                s.rejected = Some(rejection_of(true, 1));
                s.staged = Staged::Tested;
            },
            "drop",
        ),
        ("it runs already", |s| s.running.sha256 = NEW, "already"),
        (
            "it runs already and is rejected",
            |s| {
                s.running.sha256 = NEW;
                s.rejected = Some(rejection_of(true, 1));
            },
            "already",
        ),
        ("another product", |s| s.order().target = path("vmetric-director/2.0.0/linux-amd64/vmetric-director"), "refuse wrong_product"),
        ("another architecture", |s| s.order().target = path("vmetric-agent/2.0.0/linux-arm64/vmetric-agent"), "refuse wrong_platform"),
        ("another system", |s| s.order().target = path("vmetric-agent/2.0.0/windows-amd64/vmetric-agent.exe"), "refuse wrong_platform"),
        ("another file of ours", |s| s.order().target = path("vmetric-agent/2.0.0/linux-amd64/notes.txt"), "refuse wrong_platform"),
        ("rejected as bad", |s| s.rejected = Some(rejection_of(true, 1)), "refuse rejected"),
        ("rejected as bad by this very order", |s| s.rejected = Some(rejection_of(true, 4)), "refuse crashed_or_hung"),
        (
            "rejected as bad, retry",
            |s| {
                s.rejected = Some(rejection_of(true, 1));
                s.order().retry = true;
            },
            "download b",
        ),
        (
            "retry does not lift its own rejection",
            |s| {
                s.rejected = Some(rejection_of(true, 4));
                s.order().retry = true;
            },
            "refuse crashed_or_hung",
        ),
        (
            "retry of another issuer's generation",
            |s| {
                s.rejected = Some(Rejected { issuer: "other".into(), ..rejection_of(true, 4) });
                s.order().retry = true;
            },
            "download b",
        ),
        ("could not tell, within the cooldown", |s| s.rejected = Some(rejection_of(false, 1)), "wait cooldown"),
        ("could not tell, this order, within the cooldown", |s| s.rejected = Some(rejection_of(false, 4)), "wait cooldown"),
        (
            "could not tell, this order with retry, within",
            |s| {
                s.rejected = Some(rejection_of(false, 4));
                s.order().retry = true;
            },
            "wait cooldown",
        ),
        (
            "could not tell, retry",
            |s| {
                s.rejected = Some(rejection_of(false, 1));
                s.order().retry = true;
            },
            "download b",
        ),
        (
            "could not tell, after the cooldown",
            |s| {
                s.rejected = Some(rejection_of(false, 4));
                s.now.monotonic += 500;
            },
            "download b",
        ),
        ("not looked up", |s| s.target = Target::Unknown, "look up"),
        ("refused by the trust checks", |s| s.target = Target::Refused(Reason::new("not_signed", "x")), "refuse not_signed"),
        (
            "metadata cannot be had",
            |s| s.target = Target::Unavailable { reason: Reason::new("unreachable", "x"), for_s: 9 },
            "wait unreachable",
        ),
        ("the release plane signed another hash", |s| s.signed().sha256 = [7; 32], "refuse order_mismatch"),
        ("the release plane signed another length", |s| s.signed().length = 4, "refuse order_mismatch"),
        (
            "the release plane signed another path",
            |s| {
                s.signed().path = path("vmetric-agent/2.0.1/linux-amd64/vmetric-agent");
            },
            "refuse order_mismatch",
        ),
        ("below the floor", |s| s.marks.floor = 6, "refuse below_floor"),
        ("at the floor", |s| s.marks.floor = 5, "download b"),
        ("too old to go there", |s| s.signed().min_version = Some("1.0.1".parse().unwrap()), "refuse min_version"),
        ("just new enough", |s| s.signed().min_version = Some("1.0.0".parse().unwrap()), "download b"),
        (
            "a pre-release is older",
            |s| {
                s.running.version = "1.0.0-rc.1".parse().unwrap();
                s.signed().min_version = Some("1.0.0".parse().unwrap());
            },
            "refuse min_version",
        ),
        ("the site forbids it", |s| s.veto = Some(Reason::new("local_policy", "x")), "refuse local_policy"),
        ("disk full", |s| s.preflight = Some(Reason::new("disk_full", "x")), "wait disk_full"),
        (
            "disk full, but all is there",
            |s| {
                s.preflight = Some(Reason::new("disk_full", "x"));
                s.staged = Staged::Verified;
            },
            "self-test b",
        ),
        ("the slot has a tenant", |s| confirmed_in(s, Slot::B), "clear b"),
        ("the slot has a failed tenant", |s| s.marks = s.marks.clone().start_trial(Slot::B, [8; 32]).roll_back(Slot::B), "clear b"),
        ("from the factory image", |s| s.running.image = Image::Factory, "download b"),
        (
            "from slot B",
            |s| {
                confirmed_in(s, Slot::B);
                s.running.image = Image::Slot(Slot::B);
                s.marks.active = Image::Slot(Slot::B);
            },
            "clear a",
        ),
        ("in probation", probation, "wait probation"),
        (
            "in probation, the order ends it",
            |s| {
                probation(s);
                s.order().end_probation = true;
            },
            "clear b",
        ),
        (
            "in probation with an empty slot: nothing is lost",
            |s| {
                s.marks = s.marks.clone().confirm(Slot::A, 1, "boot", NOW - 3600);
            },
            "download b",
        ),
        (
            "in probation, a part of it is there",
            |s| {
                probation(s);
                s.staged = Staged::Partial(1);
            },
            "wait probation",
        ),
        ("a part", |s| s.staged = Staged::Partial(2), "download b"),
        ("all of it", |s| s.staged = Staged::Verified, "self-test b"),
        ("tested", |s| s.staged = Staged::Tested, "switch b"),
        (
            "tested, before the window",
            |s| {
                s.staged = Staged::Tested;
                s.order().switch_in_s = 11;
            },
            "wait window",
        ),
        (
            "tested, at the window",
            |s| {
                s.staged = Staged::Tested;
                s.order().switch_in_s = 10;
            },
            "switch b",
        ),
        (
            "tested, before the window, after a reboot",
            |s| {
                s.staged = Staged::Tested;
                s.order().switch_in_s = 60;
                s.now = moment("next", NOW, 5);
            },
            "wait window",
        ),
        (
            "tested, at the window, after a reboot",
            |s| {
                s.staged = Staged::Tested;
                s.order().switch_in_s = 60;
                s.accepted.as_mut().unwrap().at.director = Some(NOW);
                s.now = Moment { director: Some(NOW + 60), ..moment("next", 0, 5) };
            },
            "switch b",
        ),
        (
            "tested, after a reboot at which the clock was set forward",
            |s| {
                s.staged = Staged::Tested;
                s.order().switch_in_s = 60;
                s.accepted.as_mut().unwrap().at.director = Some(NOW);
                s.now = moment("next", NOW + 1_000_000_000, 5);
            },
            "wait window",
        ),
        (
            "the window came, but nobody answers",
            |s| {
                s.staged = Staged::Tested;
                s.contact_age_s = None;
            },
            "contact",
        ),
        (
            "the last answer is too old",
            |s| {
                s.staged = Staged::Tested;
                s.contact_age_s = Some(61);
            },
            "contact",
        ),
        (
            "the last answer is just fresh",
            |s| {
                s.staged = Staged::Tested;
                s.contact_age_s = Some(60);
            },
            "switch b",
        ),
        (
            "unattended",
            |s| {
                s.staged = Staged::Tested;
                s.contact_age_s = None;
                s.order().unattended = true;
            },
            "switch b",
        ),
        (
            "the operator stands beside it",
            |s| {
                s.staged = Staged::Tested;
                s.contact_age_s = None;
                s.order().issuer = "local:17".into();
            },
            "switch b",
        ),
        (
            "an issuer that only sounds local",
            |s| {
                s.staged = Staged::Tested;
                s.contact_age_s = None;
                s.order().issuer = "locality".into();
            },
            "contact",
        ),
    ];
    for (what, change, expected) in table {
        let scene = Scene::with(*change);
        assert_eq!(scene.word(), *expected, "{what}");
        check_said(&scene);
    }
}

fn is_code(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// Why we wait is data: every wait and refusal carries it, and every wait ends.
fn check_said(scene: &Scene) {
    match scene.step() {
        Step::Wait { reason, for_s } => {
            assert!(is_code(&reason.code) && !reason.detail.is_empty(), "{reason:?}");
            let longest = (2 * PROBATION_S).max(scene.accepted.as_ref().unwrap().order.switch_in_s);
            assert!(for_s > 0 && for_s <= longest, "a wait of {for_s} s: {reason:?} {scene:?}");
        }
        Step::Refuse(reason) => assert!(is_code(&reason.code) && !reason.detail.is_empty(), "{reason:?}"),
        _ => {}
    }
}

#[test]
fn the_window_comes_although_the_clock_was_set_back() {
    // The order came when the clock showed 2099; then a reboot, and the right time.
    let mut scene = Scene::with(|s| {
        s.staged = Staged::Tested;
        s.order().switch_in_s = 3600;
        s.accepted.as_mut().unwrap().at = moment("boot", 4_000_000_000, 10);
        s.now = moment("next", NOW, 0);
    });
    assert_eq!(scene.word(), "wait window");
    scene.now.monotonic = 3600;
    assert_eq!(scene.word(), "switch b", "an hour of uptime is an hour since the order");
}

#[test]
fn a_cooldown_says_when_it_ends_and_then_ends() {
    let mut scene = Scene::with(|s| s.rejected = Some(rejection_of(false, 4)));
    let Step::Wait { for_s, .. } = scene.step() else { panic!("{}", scene.word()) };
    scene.now.monotonic += for_s - 1;
    assert_eq!(scene.word(), "wait cooldown");
    scene.now.monotonic += 1;
    assert_eq!(scene.word(), "download b");
}

#[test]
fn the_switch_is_a_trial_of_the_signed_file_and_keeps_the_running_slot() {
    let scene = Scene::with(|s| s.staged = Staged::Tested);
    let Step::Switch(Slot::B, marks) = scene.step() else { panic!("{}", scene.word()) };
    assert_eq!((marks.active, marks.b.condition, marks.b.sha256), (Image::Slot(Slot::B), Condition::Trial, NEW));
    assert_eq!((&marks.a, marks.floor), (&scene.marks.a, scene.marks.floor), "the floor rises at the confirmation, not before");
}

// -- random facts --

fn pick<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(values.to_vec())
}

fn any_slot_marks(sha: u8) -> impl Strategy<Value = crate::core::slots::SlotMarks> {
    let conditions = [Condition::Empty, Condition::Trial, Condition::Confirmed, Condition::Failed];
    (pick(&conditions), pick(&[sha, 1, 2])).prop_map(|(condition, sha)| {
        let mut marks = Marks::default().start_trial(Slot::A, [sha; 32]).a;
        marks.condition = condition;
        marks
    })
}

fn any_image() -> impl Strategy<Value = Image> {
    pick(&[Image::Slot(Slot::A), Image::Slot(Slot::B), Image::Factory])
}

fn any_time() -> impl Strategy<Value = u64> {
    pick(&[0, 1, 59, 60, 61, 599, 600, 3600, PROBATION_S, NOW - 1, NOW, NOW + 1, NOW + PROBATION_S, 4_000_000_000, u64::MAX])
}

fn any_moment() -> impl Strategy<Value = Moment> {
    (pick(&["boot", "next"]), any_time(), any_time()).prop_map(|(boot_id, unix, monotonic)| moment(boot_id, unix, monotonic))
}

fn any_marks() -> impl Strategy<Value = Marks> {
    let probation = (pick(&["", "boot", "next"]), any_time());
    (any_slot_marks(8), any_slot_marks(9), any_image(), 0..8u64, probation).prop_map(|(a, b, active, floor, (boot, until))| Marks {
        a,
        b,
        active,
        floor,
        probation_boot: boot.into(),
        probation_until: until,
        ..Marks::default()
    })
}

fn any_artifact() -> impl Strategy<Value = Artifact> {
    let paths = ["vmetric-agent/2.0.0/linux-amd64/vmetric-agent", "vmetric-agent/2.0.0/linux-arm64/vmetric-agent"];
    let min = pick(&[None, Some("0.9.0"), Some("1.5.0")]);
    (pick(&paths), pick(&[NEW, OLD, [7; 32]]), 2..4u64, min, 0..8u64).prop_map(|(text, sha256, length, min, counter)| Artifact {
        path: path(text),
        sha256,
        length,
        min_version: min.map(|v| v.parse().unwrap()),
        counter,
        ..artifact()
    })
}

fn any_target() -> impl Strategy<Value = Target> {
    let reason = || Reason::new("unreachable", "x");
    prop_oneof![
        6 => any_artifact().prop_map(Target::Signed),
        1 => Just(Target::Unknown),
        1 => Just(Target::Refused(reason())),
        1 => Just(Target::Unavailable { reason: reason(), for_s: 9 }),
    ]
}

fn any_order() -> impl Strategy<Value = Order> {
    let kinds = pick(&[Kind::Update, Kind::Update, Kind::Update, Kind::Cancel]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (any_artifact(), kinds, pick(&["site", "local:1"]), any_time(), flags).prop_map(|(artifact, kind, issuer, switch_in_s, flags)| Order {
        issuer: issuer.into(),
        kind,
        target: artifact.path,
        sha256: artifact.sha256,
        length: artifact.length,
        switch_in_s,
        unattended: flags.0,
        end_probation: flags.1,
        retry: flags.2,
        ..order()
    })
}

fn any_accepted() -> impl Strategy<Value = Option<Accepted>> {
    let some = (any_order(), any_moment(), pick(&[false, false, false, true]));
    prop::option::weighted(0.95, some.prop_map(|(order, at, ended)| Accepted { order, at, ended, bytes: 0 }))
}

fn any_rejected() -> impl Strategy<Value = Option<Rejected>> {
    let some = (any::<bool>(), 3..5u64, any_moment(), any::<u32>());
    prop::option::weighted(
        0.3,
        some.prop_map(|(bad, generation, at, count)| Rejected {
            since: at.unix,
            since_monotonic: at.monotonic,
            boot_id: at.boot_id,
            count,
            ..rejection_of(bad, generation)
        }),
    )
}

prop_compose! {
    fn any_scene()(
        accepted in any_accepted(),
        marks in any_marks(),
        running in (any_image(), pick(&[OLD, NEW, [7; 32]]), pick(&["1.0.0", "2.0.0"])),
        target in any_target(),
        agree in any::<bool>(),
        staged in pick(&[Staged::Nothing, Staged::Partial(1), Staged::Verified, Staged::Tested, Staged::Tested]),
        rejected in any_rejected(),
        preflight in prop::option::weighted(0.2, Just(Reason::new("disk_full", "x"))),
        contact_age_s in prop::option::of(any_time()),
        look_age_s in pick(&[0, 0, 599, 600]),
        now in any_moment(),
    ) -> Scene {
        let mut scene = Scene {
            accepted, marks, target, staged, rejected, preflight, veto: None, contact_age_s, look_age_s, now, times: Times::DEFAULT,
            running: Running { image: running.0, sha256: running.1, version: running.2.parse().unwrap() },
        };
        // Half of the orders agree with what was signed: else nearly none would get past the first checks.
        if let (true, Some(accepted), Target::Signed(artifact)) = (agree, &mut scene.accepted, &scene.target) {
            let order = &mut accepted.order;
            (order.target, order.sha256, order.length) = (artifact.path.clone(), artifact.sha256, artifact.length);
        }
        scene
    }
}

fn check_switch(scene: &Scene, slot: Slot, marks: &Marks) {
    let accepted = scene.accepted.as_ref().unwrap();
    let order = &accepted.order;
    assert_eq!(scene.staged, Staged::Tested, "untested");
    let fresh = scene.contact_age_s.is_some_and(|age| age <= 60);
    assert!(scene.look_age_s < 600, "withdrawn since, perhaps");
    assert!(fresh || order.unattended || order.issuer.starts_with("local:"), "without contact");
    let Target::Signed(artifact) = &scene.target else { panic!("unsigned") };
    assert!(artifact.counter >= scene.marks.floor, "below the floor");
    assert_eq!((artifact.sha256, &artifact.path, artifact.length), (order.sha256, &order.target, order.length));
    assert_eq!((marks.slot(slot).sha256, marks.slot(slot).condition), (artifact.sha256, Condition::Trial));
    assert_eq!(marks.slot(slot.other()), scene.marks.slot(slot.other()), "the fallback is changed");
    assert_eq!(artifact.path.platform, here());
    assert!(artifact.min_version.as_ref().is_none_or(|min| scene.running.version >= *min));
    if accepted.at.boot_id == scene.now.boot_id {
        assert!(scene.now.monotonic.saturating_sub(accepted.at.monotonic) >= order.switch_in_s, "before its time");
    }
    let own = |r: &Rejected| r.issuer == order.issuer && r.generation == order.generation;
    assert!(!scene.rejected.as_ref().is_some_and(|r| r.bad && (own(r) || !order.retry)), "a bad file is tried again");
}

fn check_write(scene: &Scene, slot: Slot, clears: bool) {
    let marks = scene.marks.slot(slot);
    assert_ne!(Image::Slot(slot), scene.running.image, "the running slot is written");
    let probation = scene.marks.in_probation(&scene.now.boot_id, scene.now.unix);
    let allowed = scene.accepted.as_ref().unwrap().order.end_probation;
    assert!(marks.condition != Condition::Confirmed || !probation || allowed, "the fallback is given up in probation");
    assert_eq!(marks.condition == Condition::Empty, !clears, "only what the marks call empty is written");
    assert!(scene.preflight.is_none() && matches!(scene.target, Target::Signed(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_facts_lead_to_a_forbidden_step(scene in any_scene()) {
        check_said(&scene);
        let active = scene.accepted.as_ref().is_some_and(|a| !a.ended);
        let step = scene.step();
        prop_assert_eq!(step == Step::Idle, !active, "an order in force always leads to something: {:?}", scene);
        match &step {
            Step::Switch(slot, marks) => {
                check_switch(&scene, *slot, marks);
                prop_assert_ne!(Image::Slot(*slot), scene.running.image);
            }
            Step::Download(slot) => check_write(&scene, *slot, false),
            Step::Clear(slot) => check_write(&scene, *slot, true),
            Step::SelfTest(slot) => {
                prop_assert_eq!(scene.staged, Staged::Verified);
                prop_assert_ne!(Image::Slot(*slot), scene.running.image);
            }
            _ => {}
        }
        prop_assert_eq!(step, scene.step(), "the same facts, another step");
    }

    #[test]
    fn a_window_always_comes(scene in any_scene(), wait in 1..10_000_000u64, later in 0..1_000u64) {
        // The device reboots and its wall clock is anything at all; uptime alone must do.
        let mut scene = scene;
        let Some(accepted) = &mut scene.accepted else { return Ok(()) };
        (accepted.order.switch_in_s, scene.staged) = (wait, Staged::Tested);
        scene.now = moment("yet another", scene.now.unix, wait + later);
        if let Step::Wait { reason, .. } = scene.step() {
            prop_assert_ne!(reason.code.clone(), "window");
        }
    }

    #[test]
    fn a_trial_confirms_with_both_and_always_ends(
        passed in 0..5u8, acknowledged: bool, refused: bool, unattended: bool, local: bool,
        silent in any_time(), age in any_time(), deadline in 30..86_400u64, longest in 30..604_800u64,
    ) {
        let issuer = if local { "local:1" } else { "site" };
        let order = Order { unattended, contact_deadline_s: deadline, trial_max_s: longest, issuer: issuer.into(), ..order() };
        let failed = Reason::new("self_check_failed", "x");
        let unsure = Reason::new("check_unsure", "x");
        let self_check =
            [SelfCheck::NotRun, SelfCheck::Passed, SelfCheck::Failed(failed), SelfCheck::CouldNotTell(unsure.clone()), SelfCheck::GaveUp(unsure)]
                [passed as usize]
                .clone();
        let facts = TrialFacts { self_check: &self_check, acknowledged, refused, silent_s: silent.min(age), age_s: age, order: &order, authority: AGENT.authority };
        let step = trial_step(&facts);
        let both = self_check == SelfCheck::Passed && acknowledged;
        prop_assert_eq!(step == TrialStep::Confirm, both, "{:?}", facts);
        match step {
            TrialStep::Ask { for_s } | TrialStep::CheckAgain { for_s, .. } => {
                prop_assert!(for_s > 0, "a trial that asks without time left: {:?}", facts);
                // Whatever the Director says in between, the end is in sight.
                let end = age.saturating_add(deadline.max(longest));
                let facts = TrialFacts { silent_s: 0, age_s: end, refused: false, ..facts };
                prop_assert!(matches!(trial_step(&facts), TrialStep::RollBack(Ended::NoContact, _)));
            }
            TrialStep::RollBack(ended, reason) => {
                prop_assert!(is_code(&reason.code) && !reason.detail.is_empty());
                let expected = match self_check {
                    SelfCheck::Failed(_) => Ended::SelfCheckFailed,
                    _ if refused && !acknowledged => Ended::Operator,
                    _ => Ended::NoContact,
                };
                prop_assert_eq!(ended, expected);
            }
            TrialStep::SelfCheck => prop_assert_eq!(&self_check, &SelfCheck::NotRun),
            TrialStep::Confirm => {}
        }
    }
}

#[test]
fn a_check_that_is_killed_is_tried_again_but_not_for_ever() {
    let order = order();
    let step = |times| {
        let self_check = check_killed(times, Reason::new("check_killed", "signal 9"));
        trial_step(&TrialFacts {
            self_check: &self_check,
            acknowledged: true,
            refused: false,
            silent_s: 0,
            age_s: 0,
            order: &order,
            authority: "",
        })
    };
    assert!((1..CHECK_KILLS_MAX).all(|times| matches!(step(times), TrialStep::CheckAgain { .. })));
    let TrialStep::RollBack(Ended::NoContact, reason) = step(CHECK_KILLS_MAX) else { panic!("the file is not to blame") };
    assert_eq!(reason.code, "check_killed");
}

#[test]
fn the_deadline_of_a_trial() {
    let ask = |change: fn(&mut Order), silent_s, age_s| {
        let mut order = order();
        change(&mut order);
        trial_step(&TrialFacts {
            self_check: &SelfCheck::Passed,
            acknowledged: false,
            refused: false,
            silent_s,
            age_s,
            order: &order,
            authority: AGENT.authority,
        })
    };
    assert_eq!(ask(|_| {}, 0, 0), TrialStep::Ask { for_s: 300 });
    assert_eq!(ask(|_| {}, 299, 299), TrialStep::Ask { for_s: 1 });
    let TrialStep::RollBack(Ended::NoContact, reason) = ask(|_| {}, 300, 300) else { panic!() };
    assert!(reason.code == "no_contact" && reason.detail.contains("Director"), "{reason}");
    // A busy manager (429, 5xx) is contact: it prolongs the trial, up to its longest time.
    assert_eq!(ask(|_| {}, 10, 3_000), TrialStep::Ask { for_s: 290 });
    assert_eq!(ask(|_| {}, 10, 3_590), TrialStep::Ask { for_s: 10 });
    assert!(matches!(ask(|_| {}, 0, 3_600), TrialStep::RollBack(Ended::NoContact, _)));
    assert_eq!(ask(|o| o.unattended = true, 600, 600), TrialStep::Ask { for_s: 3_000 });
    let TrialStep::RollBack(_, reason) = ask(|o| o.issuer = "local:1".into(), 300, 300) else { panic!() };
    assert!(reason.detail.contains("operator"), "{reason}");
}

#[test]
fn only_the_authority_that_ordered_an_update_ends_its_trial() {
    for (issuer, right, wrong) in
        [("site-1", Authority::Director, Authority::Operator), ("local:0011", Authority::Operator, Authority::Director)]
    {
        assert!(acknowledges(right, "n1", issuer, "n1"), "{issuer}");
        assert!(!acknowledges(wrong, "n1", issuer, "n1"), "{issuer}: nothing falls back to another authority");
        assert!(!acknowledges(right, "n0", issuer, "n1"), "{issuer}: an earlier process's nonce");
        assert!(!acknowledges(right, "", issuer, ""), "{issuer}: no nonce is no word");
    }
}

#[test]
fn what_is_staged_is_looked_up_again_before_the_switch_and_while_it_waits() {
    let mut scene = Scene::with(|s| s.staged = Staged::Tested);
    scene.look_age_s = scene.times.recheck_s - 1;
    assert!(matches!(scene.step(), Step::Switch(..)));
    scene.look_age_s += 1;
    assert_eq!(scene.step(), Step::LookAgain);
    if let Some(accepted) = &mut scene.accepted {
        accepted.order.switch_in_s = 7_200;
    }
    assert_eq!(scene.step(), Step::LookAgain, "while it waits for its time, too");
    scene.target = Target::Refused(Reason::new("target_withdrawn", "eats data"));
    assert!(matches!(scene.step(), Step::Refuse(reason) if reason.code == "target_withdrawn"));
}

#[test]
#[cfg(feature = "director")]
fn each_product_takes_its_own_orders_only() {
    use crate::core::product::DIRECTOR;
    let director = path("vmetric-director/2.0.0/linux-amd64/vmetric-director");
    let wrong = |product, target: &TargetPath| {
        let order = Order { target: target.clone(), ..order() };
        wrong_order(&order, product, &here()).map(|reason| reason.code.to_string())
    };
    assert_eq!((wrong(&AGENT, &artifact().path), wrong(&DIRECTOR, &director)), (None, None));
    assert_eq!(wrong(&AGENT, &director).as_deref(), Some("wrong_product"));
    assert_eq!(wrong(&DIRECTOR, &artifact().path).as_deref(), Some("wrong_product"));
    let package = path("vmetric-director/2.0.0/linux-amd64/package.tar.zst");
    assert_eq!(wrong(&DIRECTOR, &package).as_deref(), Some("wrong_platform"), "a package is no program");
}

/// A command that stays with a trial is told the end of that trial, not what was said of the file before.
#[test]
fn a_commands_end_is_the_end_of_what_runs() {
    use Condition::{Confirmed, Empty, Failed, Trial};
    for outcome in ["updated", "rolled_back", "refused", "already", "cancelled"] {
        for old in [false, true] {
            let ends = |condition| ends(condition, outcome, old);
            assert!(!ends(Some(Trial)), "{outcome} {old}: it goes on");
            assert_eq!(ends(Some(Confirmed)), matches!(outcome, "updated" | "already"), "{outcome} {old}");
            for gone in [None, Some(Failed), Some(Empty)] {
                assert_eq!(ends(gone), !(old && outcome == "updated"), "{outcome} {old} {gone:?}: what was won then does not run now");
            }
        }
    }
}
