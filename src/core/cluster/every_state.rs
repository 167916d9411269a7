//! Every combination of states that the members of a cluster can have, with every way to stop it and every asking member.

use super::lease::{Ask, Book, Kind, Lease, Phase, Terms};
use super::member::{AFTER_EXPIRY_S, Failure, SILENT_S, Says, Seen, State, Word, state};
use super::plan::{View, Wait};
use super::*;

const NOW: u64 = 1_800_000_000;
const TERMS: Terms = Terms { lease_s: 900, soak_s: 60 };

/// A member that stands so, and what the book has to hold for it.
fn member(n: usize, of: usize, wanted: State, book: &mut Book) -> Seen {
    let words = (0..of).filter(|m| *m != n).map(|m| Word { peer: format!("d{m}"), reached: true, at: NOW - 5 }).collect();
    let mut seen = Seen { id: format!("d{n}"), heard_at: NOW - 5, words, peers_speak: true, load: n as u64, ..Seen::default() };
    match wanted {
        State::Healthy => {}
        State::Draining => seen.says = Says::Draining,
        State::Updating => seen.says = Says::Moving,
        State::Rejoining => seen.says = Says::Unready,
        State::Failed => {
            seen.failed = Some(Failure { id: "7".into(), at: NOW - 9, reason: Reason::new("self_check_failed", "no database") })
        }
        State::Silent => seen.heard_at = NOW - SILENT_S - 1,
        State::Partitioned => seen.words[0].reached = false,
        State::Expired => {
            let (holder, expires) = (seen.id.clone(), NOW - 1);
            book.lease = Some(Lease { holder, nonce: "old".into(), epoch: 7, granted_at: NOW - 901, expires, ..Lease::default() });
        }
    }
    seen
}

fn book(kind: Option<Kind>) -> Book {
    let mut book = Book { epoch: 7, ..Book::default() };
    if let Some(kind) = kind {
        book.pause(kind, "anna", "", NOW - 100);
    }
    book
}

fn ask(member: &str, epoch: Option<u64>, phase: Phase) -> Ask<'_> {
    Ask { member, nonce: "n", epoch, needs_s: 1_000, phase }
}

/// Every vector of states with at most one lease that ran out: there is only one.
fn every(of: usize) -> impl Iterator<Item = Vec<State>> {
    let all = State::ALL.len();
    (0..all.pow(of as u32)).filter_map(move |code| {
        let states: Vec<State> = (0..of).map(|n| State::ALL[code / all.pow(n as u32) % all]).collect();
        (states.iter().filter(|s| **s == State::Expired).count() <= 1).then_some(states)
    })
}

fn has_reason(wait: &Wait) {
    assert!(!wait.reason.code.is_empty() && wait.reason.detail.len() > 20, "{wait:?}");
}

fn one(of: usize, states: &[State], kind: Option<Kind>) {
    let mut book = book(kind);
    let members: Vec<Seen> = states.iter().enumerate().map(|(n, state)| member(n, of, *state, &mut book)).collect();
    let view = View { name: "north", members: &members };
    for (seen, wanted) in members.iter().zip(states) {
        assert_eq!(state(seen, &book, NOW), *wanted);
    }
    let mut granted = 0;
    for n in 0..of {
        let (id, mut after) = (format!("d{n}"), book.clone());
        let others = || states.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, s)| *s);
        let allowed = kind.is_none() && book.lease.is_none() && others().all(|s| s == State::Healthy);
        match after.ask(&view, &ask(&id, None, Phase::Before), &TERMS, NOW) {
            Ok(lease) => {
                assert!(allowed, "{id} of {states:?} under {kind:?}");
                assert!(others().filter(|s| *s == State::Healthy).count() >= majority(of), "below the quorum: {id} of {states:?}");
                assert_eq!((lease.epoch, lease.expires, after.epoch), (8, NOW + 900, 8));
                granted += 1;
                // While it has it, nobody else gets one, and nobody takes it back.
                for m in (0..of).filter(|m| *m != n) {
                    let (other, mut two) = (format!("d{m}"), after.clone());
                    assert_eq!(two.ask(&view, &ask(&other, None, Phase::Before), &TERMS, NOW).unwrap_err().reason.code, "lease_held");
                    two.release(&view, &ask(&other, None, Phase::After), &TERMS, NOW).unwrap();
                    assert_eq!(two, after);
                }
            }
            Err(wait) => {
                assert!(!allowed, "{id} of {states:?} under {kind:?}: {wait:?}");
                has_reason(&wait);
                assert_eq!(after, book, "a refusal changes nothing");
            }
        }
        // Whoever comes late with an older lease changes nothing, whatever the state.
        for phase in [Phase::Before, Phase::Stop, Phase::After] {
            let mut late = book.clone();
            assert_eq!(late.ask(&view, &ask(&id, Some(6), phase), &TERMS, NOW).unwrap_err().reason.code, "lease_lost");
            late.release(&view, &ask(&id, Some(6), phase), &TERMS, NOW).unwrap();
            assert_eq!(late, book, "late {id} of {states:?}");
        }
    }
    // Always progress, or a stated reason: at the next look a lease that ran out and a failed member halt.
    let blocked = states.iter().any(|s| *s != State::Healthy);
    assert!(granted > 0 || blocked || kind.is_some(), "{states:?} under {kind:?}");
    let mut seen = book.clone();
    let stop = seen.observe(&view, NOW);
    let halts = states.iter().any(|s| matches!(s, State::Expired | State::Failed)) && matches!(kind, None | Some(Kind::Paused));
    assert_eq!(stop.is_some(), halts, "{states:?} under {kind:?}");
    assert_eq!((seen.epoch, &seen.lease), (book.epoch, &book.lease), "a look passes no lease on");
}

#[test]
fn three_members_in_every_state() {
    for kind in [None, Some(Kind::Paused), Some(Kind::Aborted), Some(Kind::Halted)] {
        every(3).for_each(|states| one(3, &states, kind));
    }
}

#[test]
fn five_members_in_every_state() {
    every(5).for_each(|states| one(5, &states, None));
}

/// A healthy cluster, at a time.
fn healthy(of: usize, now: u64) -> Vec<Seen> {
    let words = |n: usize| (0..of).filter(|m| *m != n).map(|m| Word { peer: format!("d{m}"), reached: true, at: now }).collect();
    (0..of).map(|n| Seen { id: format!("d{n}"), heard_at: now, words: words(n), peers_speak: true, load: 9, ..Seen::default() }).collect()
}

#[test]
fn a_whole_turn() {
    let (mut book, mut now) = (book(None), NOW);
    let members = healthy(3, now);
    let view = View { name: "north", members: &members };
    let lease = book.ask(&view, &ask("d1", None, Phase::Before), &TERMS, now).unwrap();
    // The same ask again is the same lease.
    assert_eq!(book.ask(&view, &ask("d1", None, Phase::Before), &TERMS, now).unwrap(), lease);
    now += 800;
    let members = healthy(3, now);
    let view = View { name: "north", members: &members };
    let stops = book.ask(&view, &ask("d1", Some(8), Phase::Stop), &TERMS, now).unwrap();
    assert_eq!((stops.expires, stops.stops), (now + 1_000, true), "as long as it needs");
    assert_eq!(state(&members[1], &book, now), State::Updating, "it may be away from now on, whatever it said before");
    // The answer was lost, and meanwhile another member is silent: whoever asks again has not stopped.
    let mut others = healthy(3, now);
    others[0].heard_at = now - 100;
    let view_now = View { name: "north", members: &others };
    for phase in [Phase::Before, Phase::Stop] {
        let again = book.ask(&view_now, &ask("d1", Some(8), phase), &TERMS, now);
        assert_eq!(again.unwrap_err().reason.code, "cluster_member_silent", "{phase:?}");
    }
    // A double of what it said before, or of an ask before the stop, does not give it back.
    assert_eq!(book.release(&view, &ask("d1", Some(8), Phase::Before), &TERMS, now).unwrap_err().reason.code, "lease_in_use");
    // Back: what peers said before does not count.
    now += 100;
    let mut members = healthy(3, now);
    members[1].words.iter_mut().for_each(|word| word.at = now - 50);
    let refused = book.release(&View { name: "north", members: &members }, &ask("d1", Some(8), Phase::After), &TERMS, now).unwrap_err();
    assert_eq!(refused.reason.code, "not_healthy_yet", "{refused:?}");
    let members = healthy(3, now + 10);
    let soaks = book.release(&View { name: "north", members: &members }, &ask("d1", Some(8), Phase::After), &TERMS, now + 10).unwrap_err();
    assert_eq!((soaks.reason.code.as_ref(), soaks.until), ("soaking", Some(now + 70)));
    // A peer loses it: the watch begins anew.
    let mut members = healthy(3, now + 40);
    members[1].words[0].reached = false;
    assert!(book.observe(&View { name: "north", members: &members }, now + 40).is_none());
    let members = healthy(3, now + 80);
    let view = View { name: "north", members: &members };
    assert_eq!(book.release(&view, &ask("d1", Some(8), Phase::After), &TERMS, now + 80).unwrap_err().until, Some(now + 140));
    let members = healthy(3, now + 140);
    let view = View { name: "north", members: &members };
    book.release(&view, &ask("d1", Some(8), Phase::After), &TERMS, now + 140).unwrap();
    assert_eq!(book.lease, None);
    let double = book.ask(&view, &ask("d1", None, Phase::Before), &TERMS, now + 140).unwrap_err();
    assert_eq!(double.reason.code, "ask_over", "a late double of the first ask gets nothing");
    let next = book.ask(&view, &Ask { nonce: "m", ..ask("d2", None, Phase::Before) }, &TERMS, now + 140).unwrap();
    assert_eq!(next.epoch, 9);
}

#[test]
fn a_lease_that_ran_out_is_not_passed_on_and_its_holder_not_believed_at_once() {
    let mut book = book(None);
    let members = healthy(3, NOW);
    let view = View { name: "north", members: &members };
    book.ask(&view, &ask("d0", None, Phase::Before), &TERMS, NOW).unwrap();
    let late = NOW + 900;
    let members = healthy(3, late);
    let view = View { name: "north", members: &members };
    assert_eq!(book.ask(&view, &ask("d0", Some(8), Phase::Stop), &TERMS, late).unwrap_err().reason.code, "lease_expired");
    let stop = book.observe(&view, late).unwrap();
    assert_eq!((stop.reason.code.as_ref(), stop.member.as_deref()), ("lease_expired", Some("d0")));
    assert!(book.observe(&view, late + 1).is_none(), "told once");
    assert_eq!(book.ask(&view, &ask("d1", None, Phase::Before), &TERMS, late).unwrap_err().reason.code, "lease_expired");
    book.resume(&view, late + 5);
    let refused = book.ask(&view, &Ask { nonce: "m", ..ask("d1", None, Phase::Before) }, &TERMS, late + 5).unwrap_err();
    assert_eq!(refused.reason.code, "cluster_member_lease_expired");
    let after = late + 5 + AFTER_EXPIRY_S + 1;
    let members = healthy(3, after);
    let view = View { name: "north", members: &members };
    book.observe(&view, after);
    assert_eq!(book.ask(&view, &Ask { nonce: "m", ..ask("d1", None, Phase::Before) }, &TERMS, after).unwrap().epoch, 9);
}

#[test]
fn pause_holds_whoever_has_not_stopped_and_an_exception_is_told_what_it_costs() {
    let mut book = book(None);
    let members = healthy(3, NOW);
    let view = View { name: "north", members: &members };
    book.ask(&view, &ask("d0", None, Phase::Before), &TERMS, NOW).unwrap();
    book.pause(Kind::Paused, "anna", "lunch", NOW);
    let held = book.ask(&view, &ask("d0", Some(8), Phase::Stop), &TERMS, NOW).unwrap_err();
    assert!(held.reason.code == "cluster_paused" && held.reason.detail.contains("lunch"), "{held:?}");
    book.release(&view, &ask("d0", Some(8), Phase::Before), &TERMS, NOW).unwrap();
    book.resume(&view, NOW + 1);
    let mut members = healthy(3, NOW + 1);
    members[1].heard_at = NOW - 500;
    let view = View { name: "north", members: &members };
    let n = |nonce| Ask { nonce, ..ask("d0", None, Phase::Before) };
    assert_eq!(book.ask(&view, &n("x"), &TERMS, NOW + 1).unwrap_err().reason.code, "cluster_member_silent");
    let cost = view.cost("d0", &book, NOW + 1);
    assert_eq!((cost.left, cost.majority), (1, 2));
    assert!(cost.sentence.contains("THE QUORUM IS LOST: 1 short"), "{}", cost.sentence);
    book.waive(&view, "d0", "anna", NOW + 1).unwrap();
    let lease = book.ask(&view, &n("x"), &TERMS, NOW + 1).unwrap();
    assert!(book.ask(&view, &ask("d0", Some(lease.epoch), Phase::Stop), &TERMS, NOW + 2).unwrap().stops);
    assert_eq!(book.waive(&view, "d2", "anna", NOW + 2).unwrap_err().reason.code, "lease_held", "never two, by exception neither");
}

#[test]
fn a_failure_halts_until_a_person_has_seen_to_it() {
    let mut book = book(None);
    let mut members = healthy(3, NOW);
    let failure = |id: &str| Some(Failure { id: id.into(), at: NOW, reason: Reason::new("self_check_failed", "no database") });
    members[1].failed = failure("7");
    let view = View { name: "north", members: &members };
    let stop = book.observe(&view, NOW).unwrap();
    assert!(stop.reason.code == "member_failed" && stop.reason.detail.contains("no database"), "{stop:?}");
    assert_eq!(book.ask(&view, &ask("d0", None, Phase::Before), &TERMS, NOW).unwrap_err().reason.code, "cluster_halted");
    book.resume(&view, NOW);
    assert!(book.observe(&view, NOW).is_none() && book.ask(&view, &ask("d0", None, Phase::Before), &TERMS, NOW).is_ok());
    members[1].failed = failure("9");
    let again = book.observe(&View { name: "north", members: &members }, NOW).unwrap();
    assert_eq!(again.member.as_deref(), Some("d1"), "the next failure is another one");
}

#[test]
fn the_least_loaded_goes_first() {
    let mut members = healthy(3, NOW);
    (members[0].load, members[1].load, members[2].load) = (30, 10, 10);
    members[2].version = "2.0.0".into();
    let (view, book) = (View { name: "north", members: &members }, book(None));
    let order: Vec<(String, bool)> = view.plan(&book, Some("2.0.0"), NOW).into_iter().map(|p| (p.id, p.done)).collect();
    assert_eq!(order, [("d1".into(), false), ("d2".into(), true), ("d0".into(), false)]);
    assert!(view.is_next("d1", &book, &["d0".into()], NOW).is_ok());
    let waits = view.is_next("d0", &book, &["d1".into()], NOW).unwrap_err();
    assert_eq!((waits.reason.code.as_ref(), waits.who.as_deref()), ("cluster_turn", Some("d1")));
}

#[test]
fn a_holder_counts_its_own_time() {
    assert_eq!(super::lease::needs_s(300), 1_020);
    assert!(super::lease::may_stop(1_020, 1_020).is_ok());
    assert_eq!(super::lease::may_stop(1_019, 1_020).unwrap_err().reason.code, "lease_too_short");
}
