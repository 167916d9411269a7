//! The lease of a cluster without Fleet: its members promise it.
//!
//! Every member keeps a [`Book`] of its own and decides with it as Fleet would, by what it sees itself. Whoever wants to leave
//! asks every configured member, itself included; each makes its promise durable before it answers.
//!
//! Why there are never two holders:
//! * **two of peers**: each has the promises of more than half of the configured members, so at least one member has promised
//!   both, and a book holds one lease. A promise that ran out is not made to another one ([`Book`]).
//! * **one of Fleet, one of peers**: a member that has promised does not ask Fleet for itself ([`may_ask_fleet`]), and one that
//!   wishes or has a lease from Fleet, which it noted on its disk before it asked, promises nobody. Because every other member
//!   has to be healthy, every one is heard. So the members exclude it among themselves: Fleet may be away, cut off from some,
//!   or come back in the middle. It is told of promises all the same, so that it shows them and orders nobody meanwhile.
//!
//! Only a person's exception goes without an answer, and is told what that costs.

use super::lease::{Ask, Book, Lease, Terms};
use super::majority;
use super::plan::{View, Wait};
use crate::core::reason::Reason;

/// A member's word on epochs lifts another one's by no more: a number that is out of its mind must not use them up.
const LIFT_MAX: u64 = 1 << 20;

/// What a member has to decide a promise from, beside its book and its view.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vote<'a> {
    /// Who decides.
    pub me: &'a str,
    /// It wishes or has a lease from Fleet itself.
    pub leaving: bool,
    /// The highest epoch that the asking member knows.
    pub known: u64,
    /// A person takes on what is not healthy.
    pub forced: bool,
}

/// A member's promise, or the renewal of it.
///
/// # Errors
/// Why not; the book is as before.
pub fn promise(book: &mut Book, view: &View, vote: &Vote, ask: &Ask, terms: &Terms, now: u64) -> Result<Lease, Wait> {
    if ask.member != vote.me && vote.leaving {
        let detail = format!("{} wishes or has a lease from Fleet for itself; it promises nobody until it has given that back", vote.me);
        return Err(Wait { who: Some(vote.me.into()), ..Wait::plain("lease_wanted", detail) });
    }
    let mut after = book.clone();
    after.epoch = after.epoch.max(vote.known.min(after.epoch.saturating_add(LIFT_MAX)));
    if vote.forced {
        after.waive(view, ask.member, ask.member, now)?;
    }
    let lease = after.ask(view, ask, terms, now)?;
    *book = after;
    Ok(lease)
}

/// Whether a member may ask Fleet for a lease: not while it has promised another one.
///
/// # Errors
/// Whom.
pub fn may_ask_fleet(book: &Book, name: &str, me: &str, now: u64) -> Result<(), Wait> {
    match book.lease.as_ref().filter(|lease| lease.holder != me) {
        Some(lease) => Err(book.held(lease, name, now)),
        None => Ok(()),
    }
}

/// What a member answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its promise.
    Promised {
        /// Of its book.
        epoch: u64,
        /// Good for so long from the question on.
        ttl_s: u64,
    },
    /// Not now.
    Refused(Wait),
    /// Nothing; why.
    Silent(Reason),
}

/// What the promises come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joint {
    /// Above those of all leases under which somebody left: the last word before a stop lifts every book to it.
    pub epoch: u64,
    /// The shortest of them.
    pub ttl_s: u64,
    /// What an exception costs; absent = it is none.
    pub cost: Option<String>,
}

/// Whether the answers of all configured members, the asking one's included, are a lease.
///
/// # Errors
/// A refusal, whoever's: it is never overruled. `peer_silent`: a member's word is missing.
pub fn tally(name: &str, answers: &[(String, Answer)], forced: bool) -> Result<Joint, Wait> {
    let refusal = answers.iter().find_map(|(id, answer)| match answer {
        Answer::Refused(wait) => Some((id, wait)),
        _ => None,
    });
    if let Some((id, wait)) = refusal {
        let detail = format!("{id} does not promise: {}", wait.reason.detail);
        return Err(Wait { reason: Reason::received(wait.reason.code.to_string(), detail), ..wait.clone() });
    }
    let promised = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Promised { .. })).count();
    let (of, needed) = (answers.len(), majority(answers.len()));
    let silent = |(id, answer): &(String, Answer)| match answer {
        Answer::Silent(why) => Some((id.clone(), format!("{id} ({})", why.code))),
        _ => None,
    };
    let silent: Vec<(String, String)> = answers.iter().filter_map(silent).collect();
    let missing = silent.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(", ");
    let quorum = match promised >= needed {
        true => "they keep each other from leaving".to_string(),
        false => format!("NO MAJORITY: {} short, nobody keeps another member from being away at the same time", needed - promised),
    };
    let cost =
        format!("{promised} of {of} members of cluster '{name}' promised, a majority is {needed}: {quorum}; no answer from {missing}");
    match silent.first() {
        Some((who, _)) if !forced => {
            let detail = format!("without Fleet every other member has to promise: {cost}. Bring them back, or --force takes this on");
            Err(Wait { who: Some(who.clone()), ..Wait::plain("peer_silent", detail) })
        }
        _ => {
            let of_all = |pick: fn(&Answer) -> Option<u64>| answers.iter().filter_map(move |(_, answer)| pick(answer));
            let epoch = of_all(|a| if let Answer::Promised { epoch, .. } = a { Some(*epoch) } else { None }).max().unwrap_or(0);
            let ttl_s = of_all(|a| if let Answer::Promised { ttl_s, .. } = a { Some(*ttl_s) } else { None }).min().unwrap_or(0);
            Ok(Joint { epoch, ttl_s, cost: forced.then_some(if silent.is_empty() { "every member promised".into() } else { cost }) })
        }
    }
}

/// What is left of a wish after all members were told that it is not needed any more.
///
/// # Errors
/// `lease_in_use` before everything else ([`may_be_away`]), then who keeps its promise and why, then `peer_silent`.
pub fn returned(answers: &[(String, Answer)]) -> Result<(), Wait> {
    let refusals = || answers.iter().filter_map(|(_, answer)| if let Answer::Refused(wait) = answer { Some(wait) } else { None });
    if let Some(wait) = refusals().find(|wait| may_be_away(wait)).or(refusals().next()) {
        return Err(wait.clone());
    }
    let silent = answers.iter().find_map(|(id, answer)| match answer {
        // It is in no such cluster, or knows of no such member: it has promised nothing.
        Answer::Silent(why) if !matches!(why.code.as_ref(), "group_unknown" | "peer_unknown") => Some((id, why)),
        _ => None,
    });
    silent.map_or(Ok(()), |(id, why)| {
        let detail = format!("{id} has not heard it: {}", why.detail);
        Err(Wait { who: Some(id.clone()), ..Wait::plain("peer_silent", detail) })
    })
}

/// Whether a member takes the holder for away. Such a wish is given back as by one that came back, and until then no other one
/// takes its place: the members would hold a lease that nobody gives back, until it runs out.
pub fn may_be_away(wait: &Wait) -> bool {
    wait.reason.code == "lease_in_use"
}

#[cfg(test)]
mod tests {
    use super::super::lease::Phase;
    use super::super::member::{Says, Seen, Word};
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const TERMS: Terms = Terms { lease_s: 900, soak_s: 60 };

    fn members(of: usize) -> Vec<Seen> {
        (0..of).map(|n| Seen { id: format!("d{n}"), heard_at: NOW, ..Seen::default() }).collect()
    }

    fn ask(member: &str) -> Ask<'_> {
        Ask { member, nonce: "n", epoch: None, needs_s: 0, phase: Phase::Before }
    }

    fn silent() -> Answer {
        Answer::Silent(Reason::new("no_route", "x"))
    }

    /// Every combination of what members can answer, for 3 and 5.
    #[test]
    fn every_combination_of_answers() {
        let kinds = [
            Answer::Promised { epoch: 7, ttl_s: 900 },
            Answer::Promised { epoch: 9, ttl_s: 300 },
            Answer::Refused(Wait::plain("lease_held", "d9 has it")),
            silent(),
        ];
        for of in [3usize, 5] {
            for code in 0..kinds.len().pow(of as u32) {
                let answers: Vec<(String, Answer)> =
                    (0..of).map(|n| (format!("d{n}"), kinds[code / kinds.len().pow(n as u32) % kinds.len()].clone())).collect();
                let count = |f: fn(&Answer) -> bool| answers.iter().filter(|(_, a)| f(a)).count();
                let (refused, mute) = (count(|a| matches!(a, Answer::Refused(_))), count(|a| matches!(a, Answer::Silent(_))));
                let plain = tally("north", &answers, false);
                assert_eq!(plain.is_ok(), refused == 0 && mute == 0, "{answers:?}");
                if let Err(wait) = &plain {
                    assert_eq!(wait.reason.code, if refused > 0 { "lease_held" } else { "peer_silent" });
                    assert!(wait.reason.detail.len() > 20);
                }
                let forced = tally("north", &answers, true);
                assert_eq!(forced.is_ok(), refused == 0, "an exception overrules no refusal: {answers:?}");
                let short = of - mute < majority(of);
                if let Ok(joint) = forced {
                    assert_eq!(joint.cost.unwrap().contains("NO MAJORITY"), short);
                }
            }
        }
    }

    /// Two members that ask all books, in every order of the questions, from every set of books that were promised before.
    #[test]
    fn two_who_ask_at_the_same_time_never_both_have_it() {
        for of in [3usize, 5] {
            let seen = members(of);
            let view = View { name: "north", members: &seen };
            for order in 0..1u32 << of {
                let mut books = vec![Book::default(); of];
                let mut answers = [Vec::new(), Vec::new()];
                for turn in 0..2 {
                    for (n, book) in books.iter_mut().enumerate() {
                        let first = usize::from(order >> n & 1 == 1) ^ turn;
                        let member = format!("d{first}");
                        let id = format!("d{n}");
                        let vote = Vote { me: &id, ..Vote::default() };
                        let asked = Ask { nonce: &member, ..ask(&member) };
                        answers[first].push((
                            id.clone(),
                            match promise(book, &view, &vote, &asked, &TERMS, NOW) {
                                Ok(lease) => Answer::Promised { epoch: lease.epoch, ttl_s: 900 },
                                Err(wait) => Answer::Refused(wait),
                            },
                        ));
                    }
                }
                let got: Vec<bool> = answers.iter().map(|a| tally("north", a, false).is_ok()).collect();
                assert!(!(got[0] && got[1]), "{order:b}");
            }
        }
    }

    #[test]
    fn fleet_and_peers_exclude_each_other_in_every_member() {
        let seen = members(3);
        let view = View { name: "north", members: &seen };
        let mut book = Book::default();
        let vote = Vote { me: "d1", leaving: true, ..Vote::default() };
        let refused = promise(&mut book, &view, &vote, &ask("d0"), &TERMS, NOW).unwrap_err();
        assert_eq!((refused.reason.code.as_ref(), &book), ("lease_wanted", &Book::default()));
        let forced = promise(&mut book, &view, &Vote { forced: true, ..vote }, &ask("d0"), &TERMS, NOW).unwrap_err();
        assert_eq!(forced.reason.code, "lease_wanted", "no exception from that");
        // Its own wish is none of its own promise's business.
        assert!(promise(&mut book, &view, &vote, &ask("d1"), &TERMS, NOW).is_ok());
        assert!(may_ask_fleet(&book, "north", "d1", NOW).is_ok());
        for late in [NOW, NOW + 100_000] {
            assert!(may_ask_fleet(&book, "north", "d2", late).is_err(), "a promise that ran out binds, too");
        }
    }

    #[test]
    fn a_promise_needs_the_others_healthy_and_an_exception_overrules_that_alone() {
        let mut seen = members(3);
        seen[2].words = vec![Word { peer: "d1".into(), reached: false, at: NOW }];
        let view = View { name: "north", members: &seen };
        let mut book = Book::default();
        let vote = Vote { me: "d1", ..Vote::default() };
        assert_eq!(promise(&mut book, &view, &vote, &ask("d0"), &TERMS, NOW).unwrap_err().reason.code, "cluster_member_partitioned");
        assert_eq!(book, Book::default(), "a refusal changes nothing");
        let forced = Vote { forced: true, ..vote };
        assert!(promise(&mut book, &view, &forced, &ask("d0"), &TERMS, NOW).is_ok());
        let other = promise(&mut book, &view, &forced, &Ask { nonce: "m", ..ask("d2") }, &TERMS, NOW).unwrap_err();
        assert_eq!(other.reason.code, "lease_held");
        seen[2].says = Says::Serves;
    }

    #[test]
    fn epochs_rise_over_every_majority_and_by_no_leaps() {
        let seen = members(3);
        let view = View { name: "north", members: &seen };
        let mut book = Book { epoch: 3, ..Book::default() };
        let vote = Vote { me: "d1", known: 9, ..Vote::default() };
        let lease = promise(&mut book, &view, &vote, &ask("d0"), &TERMS, NOW).unwrap();
        assert_eq!(lease.epoch, 10);
        let (mut stop, last) = (book.clone(), Ask { epoch: Some(10), phase: Phase::Stop, ..ask("d0") });
        assert!(promise(&mut stop, &view, &Vote { known: 40, ..vote }, &last, &TERMS, NOW).is_ok());
        assert_eq!(stop.epoch, 40, "the last word lifts it");
        promise(&mut stop, &view, &Vote { known: u64::MAX, ..vote }, &last, &TERMS, NOW).unwrap();
        assert_eq!(stop.epoch, 40 + LIFT_MAX);
    }

    #[test]
    fn who_takes_the_holder_for_away_is_heard_above_all_others() {
        let answer = |code: &'static str| Answer::Refused(Wait::plain(code, "x"));
        let promised = || Answer::Promised { epoch: 0, ttl_s: 0 };
        let unknown = Answer::Silent(Reason::new("group_unknown", "x"));
        let code = |answers: &[Answer]| {
            let answers: Vec<(String, Answer)> = answers.iter().map(|answer| ("d".into(), answer.clone())).collect();
            returned(&answers).map_err(|wait| wait.reason.code.to_string())
        };
        assert_eq!(code(&[promised(), unknown.clone()]), Ok(()));
        assert_eq!(code(&[unknown, silent(), promised()]), Err("peer_silent".into()));
        assert_eq!(code(&[silent(), answer("soaking"), promised()]), Err("soaking".into()));
        assert_eq!(code(&[silent(), answer("soaking"), answer("lease_in_use")]), Err("lease_in_use".into()));
    }
}
