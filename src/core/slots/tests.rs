//! Every combination of marks and evidence, judged by properties, and whole lives of devices, judged by how they end.

use super::*;

const HERE: &str = "boot-2";
const BEFORE: &str = "boot-1";
const FACTORY: Sha256 = [9; 32];
const CONDITIONS: [Condition; 4] = [Condition::Empty, Condition::Trial, Condition::Confirmed, Condition::Failed];
const REACHED: [Reached; 3] = [Reached::Started, Reached::SelfCheck, Reached::Contact];
const ENDED: [Ended; 5] = [Ended::None, Ended::Stopped, Ended::NoContact, Ended::SelfCheckFailed, Ended::Operator];
const ACTIVE: [Image; 3] = [Image::Slot(Slot::A), Image::Slot(Slot::B), Image::Factory];

fn evidence(boot_id: &str, starts: u32, crashes: u32, reached: Reached, ended: Ended) -> Evidence {
    Evidence { boot_id: boot_id.into(), starts, crashes, reached, ended }
}

/// Every evidence, also the ones that no launcher writes: marks outlive the code that wrote them.
fn every_evidence() -> Vec<Evidence> {
    let mut all = Vec::new();
    for boot_id in [HERE, BEFORE] {
        for starts in (0..8).chain([u32::MAX]) {
            for crashes in (0..4).chain([u32::MAX]) {
                for reached in REACHED {
                    all.extend(ENDED.map(|ended| evidence(boot_id, starts, crashes, reached, ended)));
                }
            }
        }
    }
    all
}

/// The few that stand for the rest where the other slot is the subject: fresh, settled, and worn out.
fn some_evidence() -> [Evidence; 3] {
    [
        Evidence::default(),
        evidence(BEFORE, 1, 0, Reached::Contact, Ended::Stopped),
        evidence(HERE, u32::MAX, u32::MAX, Reached::SelfCheck, Ended::None),
    ]
}

fn slot_marks(condition: Condition, sha: u8, evidence: Evidence) -> SlotMarks {
    let failure = (condition == Condition::Failed).then(|| Reason::new("crash_loop", "told before"));
    let sha256 = if condition == Condition::Empty { [0; 32] } else { [sha; 32] };
    SlotMarks { condition, sha256, evidence, bad: failure.is_some(), failure }
}

fn broken(mask: usize) -> [Option<Reason>; 2] {
    [1, 2].map(|bit| (mask & bit != 0).then(|| Reason::new("slot_damaged", "one bit is wrong")))
}

fn seen(boot_id: &str, mask: usize) -> Seen {
    Seen { factory: FACTORY, boot_id: boot_id.into(), broken: broken(mask) }
}

/// Calls `each` with every marks: `subject` has every evidence, the other slot and the factory image some.
fn every_marks(subject: Slot, each: &mut dyn FnMut(&Marks)) {
    for condition in CONDITIONS {
        let startable = matches!(condition, Condition::Trial | Condition::Confirmed);
        let subjects = if startable { every_evidence() } else { some_evidence().to_vec() };
        for evidence in subjects {
            for other in CONDITIONS {
                for other_evidence in some_evidence() {
                    let mine = slot_marks(condition, 1, evidence.clone());
                    let theirs = slot_marks(other, 2, other_evidence.clone());
                    let (a, b) = if subject == Slot::A { (mine, theirs) } else { (theirs, mine) };
                    for active in ACTIVE {
                        // From factory the interesting case is its own crash loop; elsewhere its evidence plays no part.
                        let loops = if active == Image::Factory { 2 } else { 1 };
                        for factory_evidence in [Evidence::default(), evidence_of_a_loop()].into_iter().take(loops) {
                            let (a, b) = (a.clone(), b.clone());
                            each(&Marks { active, a, b, factory: FACTORY, factory_evidence, floor: 3, sequence: 8, ..Marks::default() });
                        }
                    }
                }
            }
        }
    }
}

fn evidence_of_a_loop() -> Evidence {
    evidence(HERE, UNSETTLED_STARTS_MAX, 0, Reached::Started, Ended::None)
}

fn startable(condition: Condition) -> bool {
    matches!(condition, Condition::Trial | Condition::Confirmed)
}

/// A confirmed slot that nothing speaks against: it settled last time, or has hardly been started.
fn healthy(marks: &Marks, seen: &Seen, slot: Slot) -> bool {
    let SlotMarks { condition, evidence, .. } = marks.slot(slot);
    let quiet = evidence.reached == Reached::Contact || evidence.starts < UNSETTLED_STARTS_MAX;
    *condition == Condition::Confirmed && seen.broken[slot as usize].is_none() && quiet
}

fn is_code(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
}

/// What holds for every boot of every device.
fn check_boot(before: &Marks, seen: &Seen, boot: &Boot) {
    let after = &boot.marks;
    let what = || format!("{before:#?}\n{seen:?}\n-> {boot:#?}");
    assert_eq!(after.active, boot.image, "the marks speak of another image than the one that starts: {}", what());
    assert_eq!(
        (after.floor, after.sequence, &after.probation_boot, after.probation_until, after.factory),
        (before.floor, before.sequence, &before.probation_boot, before.probation_until, seen.factory),
        "{}",
        what()
    );
    let started = match boot.image {
        Image::Factory => &after.factory_evidence,
        Image::Slot(slot) => {
            let (was, is) = (before.slot(slot), after.slot(slot));
            assert!(startable(was.condition) && was.condition == is.condition, "{}", what());
            assert!(seen.broken[slot as usize].is_none(), "a broken slot starts: {}", what());
            if was.condition == Condition::Trial {
                assert_eq!(is.evidence.starts, was.evidence.starts + 1, "each start of a trial is counted: {}", what());
                assert!(is.evidence.starts <= TRIAL_STARTS_MAX, "a trial starts for the seventh time: {}", what());
                assert!(!matches!(was.evidence.ended, Ended::NoContact | Ended::SelfCheckFailed | Ended::Operator), "{}", what());
            } else {
                assert!(is.evidence.starts <= UNSETTLED_STARTS_MAX, "{}", what());
            }
            &is.evidence
        }
    };
    assert_eq!((started.reached, started.ended, &started.boot_id), (Reached::Started, Ended::None, &seen.boot_id), "{}", what());
    assert!(started.starts > 0, "{}", what());
    for slot in Slot::BOTH {
        check_slot(before.slot(slot), after.slot(slot), boot.image == Image::Slot(slot), &what);
    }
}

fn check_slot(was: &SlotMarks, is: &SlotMarks, starts: bool, what: &dyn Fn() -> String) {
    assert_eq!(was.sha256, is.sha256, "{}", what());
    if is.condition == was.condition {
        assert!(starts || was == is, "a slot that neither starts nor fails was changed: {}", what());
        return;
    }
    assert!(startable(was.condition) && is.condition == Condition::Failed, "{}", what());
    let reason = is.failure.as_ref().unwrap_or_else(|| panic!("failed without a reason: {}", what()));
    assert!(is_code(&reason.code) && !reason.detail.is_empty(), "{}", what());
}

/// Whose turn it was, and that nobody healthy was passed over.
fn check_order(before: &Marks, seen: &Seen, boot: &Boot) {
    let what = || format!("{before:#?}\n{seen:?}\n-> {boot:#?}");
    if let Image::Slot(active) = before.active {
        let other = active.other();
        if boot.image == before.active {
            assert_eq!(before.slot(other), boot.marks.slot(other), "{}", what());
        } else {
            let condition = boot.marks.slot(active).condition;
            assert!(!startable(condition), "left without a reason: {}", what());
        }
        if healthy(before, seen, active) {
            assert_eq!(boot.image, before.active, "a healthy confirmed slot was left: {}", what());
        } else if boot.image == Image::Factory {
            assert!(!healthy(before, seen, other), "a healthy fallback was passed over: {}", what());
        }
        if boot.image == Image::Slot(other) {
            assert_eq!(before.slot(other).condition, Condition::Confirmed, "only a confirmed slot is a fallback: {}", what());
        }
        return;
    }
    if before.factory_evidence.starts < UNSETTLED_STARTS_MAX {
        assert_eq!(boot.image, Image::Factory, "{}", what());
        assert_eq!((&before.a, &before.b), (&boot.marks.a, &boot.marks.b), "{}", what());
    } else if Slot::BOTH.iter().any(|s| healthy(before, seen, *s)) {
        assert_ne!(boot.image, Image::Factory, "the factory image loops although a slot is healthy: {}", what());
    }
}

#[test]
fn every_boot_of_every_marks() {
    let mut cases = 0u32;
    let mut run = |subject| {
        every_marks(subject, &mut |marks| {
            for mask in 0..4 {
                let seen = seen(HERE, mask);
                let boot = next_boot(marks, &seen);
                check_boot(marks, &seen, &boot);
                check_order(marks, &seen, &boot);
                cases += 1;
            }
        });
    };
    run(Slot::A);
    run(Slot::B);
    assert!(cases > 200_000, "{cases} cases are too few to be all");
}

#[test]
fn a_changed_factory_image_runs_and_leaves_the_slots_alone() {
    every_marks(Slot::A, &mut |marks| {
        let seen = Seen { factory: [7; 32], ..seen(HERE, 0) };
        let boot = next_boot(marks, &seen);
        assert_eq!((boot.image, boot.marks.manual, boot.marks.factory), (Image::Factory, true, [7; 32]), "{marks:?}");
        for slot in Slot::BOTH {
            let (before, after) = (marks.slot(slot), boot.marks.slot(slot));
            if before.condition != Condition::Trial {
                assert_eq!(before, after, "{marks:?}");
                continue;
            }
            // Neither goes on nor is confirmed: it is told, with what its evidence had proved already.
            let code = after.failure.as_ref().map(|f| f.code.to_string());
            assert_eq!(after.condition, Condition::Failed, "{marks:?}");
            let mut judged = before.evidence.clone();
            count_previous(&mut judged, HERE);
            match verdict(&judged) {
                Verdict::OnTrial => assert_eq!((code.as_deref(), after.bad), (Some(MANUAL_UPDATE), false), "{marks:?}"),
                Verdict::Bad(_) => assert!(after.bad && code.is_some_and(|c| c != MANUAL_UPDATE), "{marks:?}"),
                Verdict::CouldNotTell(_) => assert!(!after.bad && code.is_some_and(|c| c != MANUAL_UPDATE), "{marks:?}"),
            }
        }
        let again = next_boot(&boot.marks, &seen);
        assert!(again.image == Image::Factory && again.marks.manual, "it is still the operator's at the next start: {marks:?}");
        // A device that was never started before is no manual update: what its marks want, runs.
        let first = next_boot(&Marks { factory: [0; 32], ..marks.clone() }, &seen);
        check_slotwise(marks, &first);
        assert!(!first.marks.manual, "{marks:?}");
    });
}

fn check_slotwise(before: &Marks, boot: &Boot) {
    if let Image::Slot(slot) = before.active
        && healthy(before, &seen(HERE, 0), slot)
    {
        assert_eq!(boot.image, before.active, "{before:?}");
    }
}

#[test]
fn the_verdict_of_every_evidence() {
    for evidence in every_evidence() {
        let verdict = verdict(&evidence);
        let bad = matches!(verdict, Verdict::Bad(_));
        let blamed = matches!(evidence.ended, Ended::SelfCheckFailed | Ended::Operator);
        let crashed = evidence.ended == Ended::None && evidence.crashes >= 2;
        assert_eq!(bad, blamed || crashed, "{evidence:?}");
        if evidence.ended == Ended::Stopped {
            assert!(!bad, "a stop counts against the file: {evidence:?}");
        }
        if let Verdict::Bad(reason) | Verdict::CouldNotTell(reason) = &verdict {
            assert!(is_code(&reason.code) && reason.detail.len() > 10, "{evidence:?}");
        } else {
            assert!(evidence.starts < TRIAL_STARTS_MAX, "{evidence:?}");
        }
    }
}

/// How the starts of a device end, one after the other; the last one is repeated.
fn live(mut marks: Marks, boots: usize, end: &mut dyn FnMut(usize, &mut Marks, Image) -> String) -> (Marks, Vec<Image>) {
    let mut started = Vec::new();
    let mut boot_id = HERE.to_string();
    for turn in 0..boots {
        let boot = next_boot(&marks, &seen(&boot_id, 0));
        started.push(boot.image);
        marks = boot.marks;
        boot_id = end(turn, &mut marks, boot.image);
    }
    (marks, started)
}

fn on_trial() -> Marks {
    Marks { factory: FACTORY, ..Marks::default() }.start_trial(Slot::A, [1; 32])
}

fn both_confirmed() -> Marks {
    let confirmed = |sha| slot_marks(Condition::Confirmed, sha, evidence(BEFORE, 0, 0, Reached::Contact, Ended::None));
    Marks { active: Image::Slot(Slot::A), a: confirmed(1), b: confirmed(2), factory: FACTORY, ..Marks::default() }
}

#[test]
fn a_device_that_crashes_for_ever_comes_to_rest_at_the_factory_image() {
    every_marks(Slot::A, &mut |marks| {
        // Only sensible evidence: the exhaustive boots above cover the rest.
        if marks.a.evidence.starts > 1 {
            return;
        }
        for reboots in [false, true] {
            let mut boot = 0;
            let (end, started) = live(marks.clone(), 30, &mut |_, _, _| {
                boot += usize::from(reboots);
                format!("boot-{boot}")
            });
            let of = |slot| started.iter().filter(|i| **i == Image::Slot(slot)).count();
            assert!(of(Slot::A) <= 6 && of(Slot::B) <= 6, "{marks:?} {started:?}");
            assert!(started[25..].iter().all(|i| *i == Image::Factory), "no rest: {marks:?} {started:?}");
            assert_eq!(end.active, Image::Factory);
        }
    });
}

#[test]
fn two_wordless_ends_condemn_under_one_boot_id_only() {
    let (end, started) = live(on_trial(), 4, &mut |_, _, _| HERE.into());
    assert_eq!(started, [Image::Slot(Slot::A), Image::Slot(Slot::A), Image::Factory, Image::Factory]);
    assert_eq!((end.a.condition, end.a.bad, end.a.failure.unwrap().code.as_ref()), (Condition::Failed, true, "crashed_or_hung"));

    let (end, started) = live(on_trial(), 7, &mut |turn, _, _| format!("boot-{turn}"));
    assert_eq!(started.iter().filter(|i| **i == Image::Slot(Slot::A)).count(), 6);
    assert_eq!((end.a.condition, end.a.bad, end.a.failure.unwrap().code.as_ref()), (Condition::Failed, false, "too_many_starts"));

    // A crash, then a power cut, again and again: never two wordless ends that the power cannot explain.
    let (end, _) = live(on_trial(), 7, &mut |turn, _, _| format!("boot-{}", turn / 2 + 5));
    assert_eq!((end.a.condition, end.a.bad), (Condition::Failed, false), "{:?}", end.a);
}

#[test]
fn a_stop_between_two_crashes_does_not_clear_the_first() {
    let (end, started) = live(on_trial(), 4, &mut |turn, marks, image| {
        if turn == 1 {
            *marks = marks.clone().end(image, Ended::Stopped);
        }
        HERE.into()
    });
    assert_eq!(started.iter().filter(|i| **i == Image::Slot(Slot::A)).count(), 3);
    assert!(end.a.bad);
}

#[test]
fn stops_alone_never_condemn() {
    let stop = &mut |_: usize, marks: &mut Marks, image: Image| {
        *marks = marks.clone().end(image, Ended::Stopped);
        HERE.to_string()
    };
    let (end, started) = live(both_confirmed(), 50, stop);
    assert!(started.iter().all(|i| *i == Image::Slot(Slot::A)), "a confirmed slot is stopped as often as one likes");
    assert_eq!(end.a.condition, Condition::Confirmed);
    let (end, started) = live(on_trial(), 50, stop);
    assert_eq!(started.iter().filter(|i| **i == Image::Slot(Slot::A)).count(), 6);
    assert!(!end.a.bad && end.a.condition == Condition::Failed, "a trial that is only ever stopped cannot be told");
    let (_, started) = live(Marks { factory: FACTORY, ..Marks::default() }, 50, stop);
    assert!(started.iter().all(|i| *i == Image::Factory));
}

#[test]
fn five_unsettled_starts_give_up_a_confirmed_slot() {
    let (end, started) = live(both_confirmed(), 12, &mut |_, _, _| HERE.into());
    let expected = [vec![Image::Slot(Slot::A); 5], vec![Image::Slot(Slot::B); 5], vec![Image::Factory; 2]].concat();
    assert_eq!(started, expected);
    for slot in Slot::BOTH {
        let marks = end.slot(slot);
        assert_eq!((marks.condition, marks.bad, marks.failure.as_ref().unwrap().code.as_ref()), (Condition::Failed, true, "crash_loop"));
    }
    // The same with a reboot each time: it is the starts in a row that count.
    let (_, started) = live(both_confirmed(), 12, &mut |turn, _, _| format!("boot-{turn}"));
    assert_eq!(started, expected);
    // One settled start in five, and it stays for ever.
    let (_, started) = live(both_confirmed(), 100, &mut |turn, marks, image| {
        if turn % 5 == 4 {
            *marks = marks.clone().reach(image, Reached::Contact);
        }
        HERE.into()
    });
    assert!(started.iter().all(|i| *i == Image::Slot(Slot::A)));
    // A self-check that passes settles nothing: what has no contact cannot be helped from outside.
    let (_, started) = live(both_confirmed(), 6, &mut |_, marks, image| {
        *marks = marks.clone().reach(image, Reached::SelfCheck);
        HERE.into()
    });
    assert_eq!(started[5], Image::Slot(Slot::B));
}

#[test]
fn a_factory_image_that_loops_gives_way_to_a_confirmed_slot() {
    let manual = Marks { active: Image::Factory, manual: true, ..both_confirmed() };
    let (end, started) = live(manual, 7, &mut |_, _, _| HERE.into());
    assert_eq!(started[..5], [Image::Factory; 5]);
    assert_eq!(started[5], Image::Slot(Slot::A));
    assert!(!end.manual, "what runs is not the operator's image any more");
    let (_, started) = live(Marks { factory: FACTORY, ..Marks::default() }, 50, &mut |_, _, _| HERE.into());
    assert!(started.iter().all(|i| *i == Image::Factory), "with no slot it is tried for ever");
}

#[test]
fn every_way_a_trial_ends_is_told() {
    for (ended, bad, code) in
        [(Ended::SelfCheckFailed, true, "self_check_failed"), (Ended::NoContact, false, "no_contact"), (Ended::Operator, true, "operator")]
    {
        let marks = next_boot(&on_trial(), &seen(HERE, 0)).marks.end(Image::Slot(Slot::A), ended);
        for boot_id in [HERE, "another"] {
            let boot = next_boot(&marks, &seen(boot_id, 0));
            let a = &boot.marks.a;
            assert_eq!((boot.image, a.condition, a.bad), (Image::Factory, Condition::Failed, bad));
            assert_eq!(a.failure.as_ref().unwrap().code, code);
        }
    }
    let boot = next_boot(&on_trial(), &seen(HERE, 1));
    assert_eq!((boot.image, boot.marks.a.bad), (Image::Factory, false), "a damaged copy is no fault of the release");
    assert_eq!(boot.marks.a.failure.unwrap().code, "slot_damaged");
}

#[test]
fn counters_at_their_end_do_not_panic() {
    let worn = evidence(HERE, u32::MAX, u32::MAX, Reached::Started, Ended::None);
    for condition in CONDITIONS {
        for active in ACTIVE {
            let slot = slot_marks(condition, 1, worn.clone());
            let marks = Marks { active, a: slot.clone(), b: slot, factory_evidence: worn.clone(), factory: FACTORY, ..Marks::default() };
            let mut marks = Marks { sequence: u64::MAX, probation_until: u64::MAX, ..marks };
            for _ in 0..4 {
                let boot = next_boot(&marks, &seen(HERE, 0));
                assert_eq!(boot.image, Image::Factory, "{condition:?}");
                marks = boot.marks;
            }
            let marks = marks.confirm(Slot::A, u64::MAX, HERE, u64::MAX);
            assert_eq!((marks.floor, marks.probation_until), (u64::MAX, u64::MAX));
        }
    }
}

#[test]
fn rebuilt_marks_start_what_was_confirmed_last() {
    let files = |sha: u8, counter, confirmed| SlotFiles { sha256: [sha; 32], counter, confirmed };
    let confirmations = [None, Some(0), Some(7), Some(u64::MAX)];
    let mut sides: Vec<[Option<SlotFiles>; 2]> = vec![];
    for a in confirmations {
        for b in confirmations {
            for (counter_a, counter_b) in [(0, 9), (9, 0)] {
                sides.push([Some(files(1, counter_a, a)), Some(files(2, counter_b, b))]);
                sides.push([None, Some(files(2, counter_b, b))]);
                sides.push([Some(files(1, counter_a, a)), None]);
            }
        }
    }
    sides.push([None, None]);
    for [a, b] in sides {
        let marks = rebuild(a.as_ref(), b.as_ref());
        let confirmed = |f: &Option<SlotFiles>| f.as_ref().and_then(|f| f.confirmed.map(|n| (n, f.counter)));
        for (slot, files) in [(Slot::A, &a), (Slot::B, &b)] {
            let expected = if confirmed(files).is_some() { Condition::Confirmed } else { Condition::Empty };
            assert_eq!(marks.slot(slot).condition, expected, "{a:?} {b:?}");
            if let Some((sequence, counter)) = confirmed(files) {
                assert!(marks.floor >= counter && marks.sequence > sequence.saturating_sub(1), "{a:?} {b:?}");
                let Image::Slot(active) = marks.active else { panic!("a confirmed slot is not started: {a:?} {b:?}") };
                let newest = confirmed(if active == Slot::A { &a } else { &b }).unwrap().0;
                assert!(newest >= sequence, "the older one is active: {a:?} {b:?}");
                assert_eq!(marks.slot(slot).sha256, files.as_ref().unwrap().sha256);
            }
        }
        if confirmed(&a).is_none() && confirmed(&b).is_none() {
            assert_eq!((marks.active, marks.floor), (Image::Factory, 0), "an unconfirmed file raises no floor");
        }
        assert!(marks.sequence > 0 && !marks.manual);
        assert_eq!(next_boot(&marks, &seen(HERE, 0)).image, marks.active, "{a:?} {b:?}");
    }
}

#[test]
fn the_next_update_never_goes_into_the_running_slot() {
    let worth = |c| CONDITIONS.iter().position(|x| *x == c).unwrap();
    for a in CONDITIONS {
        for b in CONDITIONS {
            let marks = Marks { a: slot_marks(a, 1, Evidence::default()), b: slot_marks(b, 2, Evidence::default()), ..Marks::default() };
            for running in ACTIVE {
                let inactive = marks.inactive(running);
                assert_ne!(Image::Slot(inactive), running);
                let fallback = marks.fallback(running);
                assert!(fallback.is_none_or(|s| marks.slot(s).condition == Condition::Confirmed && Image::Slot(s) != running));
                let exists = Slot::BOTH.iter().any(|s| Image::Slot(*s) != running && marks.slot(*s).condition == Condition::Confirmed);
                assert_eq!(fallback.is_some(), exists);
            }
            // From the factory image a confirmed slot is only given up when both are.
            let from_factory = marks.inactive(Image::Factory);
            if marks.slot(from_factory).condition == Condition::Confirmed {
                assert_eq!((a, b), (Condition::Confirmed, Condition::Confirmed), "{}", worth(a));
            }
        }
    }
}

#[test]
fn the_verbs_change_what_they_name_and_nothing_else() {
    every_marks(Slot::A, &mut |marks| {
        let cleared = marks.clone().clear(Slot::B);
        assert_eq!((&cleared.a, &cleared.b), (&marks.a, &SlotMarks::default()));
        assert_ne!(cleared.active, Image::Slot(Slot::B), "{marks:?}");
        assert!(marks.active == Image::Slot(Slot::B) || cleared.active == marks.active);

        let trial = marks.clone().start_trial(Slot::B, [5; 32]);
        assert_eq!((&trial.a, trial.active, trial.manual), (&marks.a, Image::Slot(Slot::B), false));
        let fresh = SlotMarks { condition: Condition::Trial, sha256: [5; 32], ..SlotMarks::default() };
        assert_eq!(trial.b, fresh, "nothing of the earlier tenant is held against it");

        for counter in [0, 3, 99] {
            let confirmed = trial.clone().confirm(Slot::B, counter, HERE, 1000);
            assert_eq!((confirmed.b.condition, confirmed.floor), (Condition::Confirmed, marks.floor.max(counter)));
            assert_eq!((&confirmed.a, confirmed.b.evidence.starts, confirmed.b.evidence.crashes), (&marks.a, 0, 0));
            assert!(confirmed.in_probation(HERE, 1000));
        }
        let back = trial.clone().roll_back(Slot::B);
        assert_eq!((back.b.condition, back.b.bad, &back.a), (Condition::Failed, true, &marks.a));
        let other = if marks.a.condition == Condition::Confirmed { Image::Slot(Slot::A) } else { Image::Factory };
        assert_eq!(back.active, other);
    });
    let far = Marks::default().reach(Image::Factory, Reached::Contact).reach(Image::Factory, Reached::SelfCheck);
    assert_eq!(far.factory_evidence.reached, Reached::Contact, "what was reached is never taken back");
    assert_eq!(Image::from_name("c"), None);
    assert!(ACTIVE.iter().all(|image| Image::from_name(image.name()) == Some(*image)));
}

#[test]
fn probation_ends_with_a_settled_start_after_a_reboot_or_in_time() {
    let confirmed = on_trial().confirm(Slot::A, 0, HERE, 1_000_000);
    let another_start = |reached| {
        let mut marks = confirmed.clone();
        marks.a.evidence.reached = reached;
        marks
    };
    let week = 7 * 24 * 3600;
    for (marks, boot_id, now, expected, why) in [
        (&confirmed, HERE, 1_000_000, true, "just confirmed"),
        (&confirmed, HERE, 1_000_000 + week - 1, true, "the same boot, a week but a second"),
        (&confirmed, HERE, 1_000_000 + week, false, "a week"),
        (&confirmed, "next", 1_000_001, false, "settled under another boot id"),
        (&another_start(Reached::Started), "next", 1_000_001, true, "rebooted, not settled yet"),
        (&another_start(Reached::SelfCheck), "next", 1_000_001, true, "a self-check does not settle"),
        (&confirmed, HERE, 999_990, true, "the clock was set back a little"),
        (&Marks::default(), HERE, 0, false, "nothing was ever confirmed"),
    ] {
        assert_eq!(marks.in_probation(boot_id, now), expected, "{why}");
    }
    let manual = Marks { active: Image::Factory, ..confirmed.clone() };
    assert!(!manual.in_probation(HERE, 1_000_001), "the factory image is in no probation");
}

#[test]
fn a_clock_set_back_by_decades_does_not_prolong_probation_for_decades() {
    let confirmed = on_trial().confirm(Slot::A, 0, HERE, 4_000_000_000);
    assert!(!confirmed.in_probation(HERE, 1_800_000_000), "the wait would be a lifetime");
}
