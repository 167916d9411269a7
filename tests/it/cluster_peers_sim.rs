//! Leases of Fleet and of peers in one simulator: members that ask either, messages that are lost, late, doubled, crashes at
//! every message, clocks that are wrong and jump, a Fleet that believes everybody is well. One number makes a whole run; it is in
//! every failure. Whatever happens, no two members are out at once, and nobody leaves while another one does not serve.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use vmetric::core::cluster::lease::{Ask, Book, Lease, Phase, Terms, may_stop};
use vmetric::core::cluster::member::{Seen, Word};
use vmetric::core::cluster::peers::{Answer, Vote, may_ask_fleet, may_be_away, promise, returned, tally};
use vmetric::core::cluster::plan::{View, Wait};
use vmetric::core::reason::Reason;

const TERMS: Terms = Terms { lease_s: 900, soak_s: 20 };
const NEEDS: u64 = 300;
/// Time for an answer.
const TIMEOUT: u64 = 10;
/// How old a look at a peer may be.
const STALE: u64 = 15;
const EPOCH: u64 = 1_800_000_000;

/// A rule that is broken on purpose: the simulator has to notice.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// A member that promised asks Fleet all the same.
    AsksFleet,
    /// A member that wished from Fleet promises all the same.
    PromisesAll,
    /// A minority is enough.
    Minority,
    /// A new wish takes the place of one under which the member may be away.
    ForgetsAway,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Serving,
    Draining(u64),
    Out(u64),
}

/// On a member's disk: what it wished, from whom, and what it has of it.
#[derive(Clone, Debug, PartialEq)]
struct Wish {
    from_fleet: bool,
    nonce: String,
    epochs: BTreeMap<usize, u64>,
    epoch: Option<u64>,
    away: bool,
}

/// A question that is under way.
struct Round {
    number: u64,
    phase: Option<Phase>,
    sent: u64,
    answers: BTreeMap<usize, Result<Option<(u64, u64)>, String>>,
}

impl Round {
    /// As the member that asked takes it.
    fn answered(&self, asked: Range<usize>) -> Vec<(String, Answer)> {
        let answer = |m: usize| match self.answers.get(&m) {
            Some(Ok(lease)) => lease.map_or(Answer::Promised { epoch: 0, ttl_s: 0 }, |(epoch, ttl_s)| Answer::Promised { epoch, ttl_s }),
            Some(Err(code)) => {
                Answer::Refused(Wait { reason: Reason::received(code.clone(), String::new()), who: None, since: None, until: None })
            }
            None => Answer::Silent(Reason::new("timeout", "no answer")),
        };
        asked.map(|m| (name(m), answer(m))).collect()
    }
}

struct Member {
    book: Book,
    wish: Option<Wish>,
    mode: Mode,
    down_until: u64,
    round: Option<Round>,
    deadline: u64,
    next: u64,
    updated: bool,
    offset: u64,
    drift: u64,
    served_at: u64,
}

#[derive(Clone, Debug)]
enum Event {
    Tick(usize),
    Question { to: usize, from: usize, number: u64, nonce: String, epoch: Option<u64>, known: u64, phase: Option<Phase>, away: bool },
    Answer { to: usize, from: usize, number: u64, said: Result<Option<(u64, u64)>, String> },
    Trouble,
}

struct World {
    random: Random,
    now: u64,
    count: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    members: Vec<Member>,
    fleet: Book,
    fleet_down: u64,
    calm: bool,
    bug: Bug,
    rounds: u64,
    stops: u64,
}

fn name(n: usize) -> String {
    format!("d{n}")
}

impl World {
    fn new(seed: u64, of: usize, bug: Bug) -> World {
        let mut random = Random(seed);
        let member = |random: &mut Random| Member {
            book: Book::default(),
            wish: None,
            mode: Mode::Serving,
            down_until: 0,
            round: None,
            deadline: 0,
            next: 0,
            updated: false,
            offset: 10_000 + random.below(5_000),
            drift: 990 + random.below(20),
            served_at: EPOCH,
        };
        let members = (0..of).map(|_| member(&mut random)).collect();
        let (queue, events) = (BinaryHeap::new(), BTreeMap::new());
        let (fleet, fleet_down) = (Book::default(), 0);
        let mut world =
            World { random, now: EPOCH, count: 0, queue, events, members, fleet, fleet_down, calm: false, bug, rounds: 0, stops: 0 };
        (0..of).for_each(|n| world.at(n as u64, Event::Tick(n)));
        world.at(1, Event::Trouble);
        world
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((self.now + delay, self.count)));
        self.events.insert(self.count, event);
    }

    fn fleet_is(&self) -> usize {
        self.members.len()
    }

    fn is_up(&self, n: usize) -> bool {
        if n == self.fleet_is() { self.now >= self.fleet_down } else { self.now >= self.members[n].down_until }
    }

    fn serves(&self, n: usize) -> bool {
        self.is_up(n) && self.members[n].mode == Mode::Serving
    }

    fn send(&mut self, event: Event) {
        if !self.calm && self.random.one_in(15) {
            return;
        }
        for copy in 0..if !self.calm && self.random.one_in(15) { 2 } else { 1 } {
            let far = if self.calm {
                1
            } else if copy == 1 {
                600
            } else if self.random.one_in(8) {
                2 * TIMEOUT
            } else {
                3
            };
            let delay = self.random.below(far);
            self.at(delay, event.clone());
        }
    }

    fn crash_sometimes(&mut self, n: usize) {
        if self.calm || !self.random.one_in(150) {
            return;
        }
        if n == self.fleet_is() {
            self.fleet_down = self.now + 1 + self.random.below(2_000);
            return;
        }
        let time = if self.random.one_in(4) { 3_000 } else { 30 };
        self.members[n].down_until = self.now + 1 + self.random.below(time);
        self.members[n].round = None;
        if let Mode::Draining(_) = self.members[n].mode {
            self.members[n].mode = Mode::Serving;
        }
    }

    fn own_clock(&self, n: usize) -> u64 {
        (self.now - EPOCH) * self.members[n].drift / 1_000
    }

    /// What a member sees of the others just now.
    fn seen(&self, n: usize) -> Vec<Seen> {
        let now = EPOCH + self.own_clock(n) + self.members[n].offset;
        let word = || vec![Word { peer: name(n), reached: false, at: now }];
        let one = |m: usize| Seen {
            id: name(m),
            heard_at: now,
            // A look is a few seconds old, and a slow answer some more.
            words: if m != n && self.now > self.members[m].served_at + STALE { word() } else { Vec::new() },
            ..Seen::default()
        };
        (0..self.members.len()).map(one).collect()
    }

    fn begin(&mut self, n: usize, phase: Option<Phase>) {
        if self.members[n].round.as_ref().is_some_and(|round| self.now < round.sent + TIMEOUT) {
            return;
        }
        let Some(wish) = self.members[n].wish.clone() else { return };
        self.rounds += 1;
        self.members[n].round = Some(Round { number: self.rounds, phase, sent: self.now, answers: BTreeMap::new() });
        let to: Vec<usize> = if wish.from_fleet { vec![self.fleet_is()] } else { (0..self.members.len()).collect() };
        for to in to {
            let (epoch, known) = (wish.epochs.get(&to).copied(), wish.epoch.unwrap_or(0));
            let number = self.rounds;
            let question = Event::Question { to, from: n, number, nonce: wish.nonce.clone(), epoch, known, phase, away: wish.away };
            if to == n {
                self.at(0, question)
            } else {
                self.send(question)
            }
            self.crash_sometimes(n);
            if !self.is_up(n) {
                return;
            }
        }
    }

    fn question(&mut self, event: Event) {
        let Event::Question { to, from, number, nonce, epoch, known, phase, away } = event else { return };
        if !self.is_up(to) {
            return;
        }
        self.crash_sometimes(to);
        if !self.is_up(to) {
            return;
        }
        let member = name(from);
        let ask = Ask {
            member: &member,
            nonce: &nonce,
            epoch,
            needs_s: NEEDS,
            phase: phase.unwrap_or(if away { Phase::After } else { Phase::Before }),
        };
        // Fleet thinks that everybody is well.
        let fleet = to == self.fleet_is();
        let (now, seen) = match fleet {
            true => {
                let all = (0..self.members.len()).map(|m| Seen { id: name(m), heard_at: self.now, ..Seen::default() });
                (self.now, all.collect::<Vec<Seen>>())
            }
            false => (EPOCH + self.own_clock(to) + self.members[to].offset, self.seen(to)),
        };
        let view = View { name: "sim", members: &seen };
        let own = if fleet { None } else { self.members[to].wish.as_ref() };
        let leaving = own.is_some_and(|wish| wish.from_fleet) && self.bug != Bug::PromisesAll;
        let me = if fleet { "fleet".into() } else { name(to) };
        let book = if fleet { &mut self.fleet } else { &mut self.members[to].book };
        let before = book.clone();
        let said: Result<Option<Lease>, Wait> = match (phase, fleet) {
            (Some(_), true) => book.ask(&view, &ask, &TERMS, now).map(Some),
            (Some(_), false) => promise(book, &view, &Vote { me: &me, leaving, known, forced: false }, &ask, &TERMS, now).map(Some),
            (None, _) => book.release(&view, &ask, &TERMS, now).map(|()| None),
        };
        assert!(book.epoch >= before.epoch, "an epoch went back");
        let said = match said {
            Ok(lease) => Ok(lease.map(|lease| (lease.epoch, lease.expires - now))),
            Err(wait) => {
                assert!(wait.reason.detail.len() > 10);
                Err(wait.reason.code.to_string())
            }
        };
        self.crash_sometimes(to);
        let answer = Event::Answer { to: from, from: to, number, said };
        if from == to { self.at(0, answer) } else { self.send(answer) }
    }

    fn answer(&mut self, n: usize, from: usize, number: u64, said: Result<Option<(u64, u64)>, String>) {
        if !self.is_up(n) {
            return;
        }
        self.crash_sometimes(n);
        let Some(round) = self.members[n].round.as_mut().filter(|round| round.number == number) else { return };
        round.answers.insert(from, said);
        let wish = self.members[n].wish.as_ref();
        let of = if wish.is_some_and(|wish| wish.from_fleet) { 1 } else { self.members.len() };
        let full = self.members[n].round.as_ref().is_some_and(|round| round.answers.len() == of);
        if full {
            self.decide(n);
        }
    }

    /// All have answered, or the time for it is over.
    fn decide(&mut self, n: usize) {
        let Some(round) = self.members[n].round.take() else { return };
        let Some(mut wish) = self.members[n].wish.clone() else { return };
        let asked = self.own_clock(n).saturating_sub((self.now - round.sent) * self.members[n].drift / 1_000);
        let Some(phase) = round.phase else {
            let asked = if wish.from_fleet { self.fleet_is()..self.fleet_is() + 1 } else { 0..self.members.len() };
            match returned(&round.answered(asked)) {
                Ok(()) => {
                    self.forgets(n);
                    self.members[n].next = self.now + self.random.below(200);
                }
                Err(wait) if may_be_away(&wait) => {
                    wish.away = true;
                    self.members[n].wish = Some(wish);
                }
                Err(_) => {}
            }
            return;
        };
        for (from, said) in &round.answers {
            if let Ok(Some((epoch, _))) = said {
                wish.epochs.insert(*from, *epoch);
            }
        }
        let joint = if wish.from_fleet {
            match round.answers.values().next() {
                Some(Ok(Some((epoch, ttl)))) => Some((*epoch, *ttl)),
                _ => None,
            }
        } else {
            let answers = round.answered(0..self.members.len());
            let some: Vec<_> = answers.iter().filter(|(_, a)| matches!(a, Answer::Promised { .. })).cloned().collect();
            let answers = if self.bug == Bug::Minority { some } else { answers };
            tally("sim", &answers, false).ok().map(|joint| (joint.epoch, joint.ttl_s))
        };
        wish.epoch = joint.map(|(epoch, _)| epoch).or(wish.epoch);
        if let Some((_, ttl)) = joint {
            self.members[n].deadline = asked + ttl;
        }
        let left = self.members[n].deadline.saturating_sub(self.own_clock(n));
        match (joint, phase, self.members[n].mode) {
            (Some(_), Phase::Before, Mode::Serving) => {
                let long = if self.random.one_in(4) { 1_000 } else { 10 };
                self.members[n].mode = Mode::Draining(self.now + 2 + self.random.below(long));
            }
            (Some(_), Phase::Stop, Mode::Draining(_)) if may_stop(left, NEEDS).is_ok() => {
                wish.away = true;
                self.members[n].wish = Some(wish);
                return self.leave(n);
            }
            (_, _, Mode::Draining(_)) => {
                wish.away |= phase == Phase::Stop;
                self.stay(n);
            }
            _ => {}
        }
        self.members[n].wish = Some(wish);
    }

    fn stay(&mut self, n: usize) {
        self.members[n].mode = Mode::Serving;
    }

    fn leave(&mut self, n: usize) {
        let long = if self.random.one_in(20) && !self.calm { 3_000 } else { 60 };
        self.members[n].mode = Mode::Out(self.now + 5 + self.random.below(long));
        self.stops += 1;
        let peers = self.members[n].wish.as_ref().is_some_and(|wish| !wish.from_fleet);
        for m in (0..self.members.len()).filter(|m| *m != n && peers) {
            let away = self.now - self.members[m].served_at;
            assert!(away <= STALE + TIMEOUT + 5, "{} leaves although {} has not served for {away} s", name(n), name(m));
        }
        let out = (0..self.members.len()).filter(|m| matches!(self.members[*m].mode, Mode::Out(_))).count();
        assert!(out <= 1, "{out} members are out: {} left, too", name(n));
    }

    fn tick(&mut self, n: usize) {
        self.at(3, Event::Tick(n));
        if !self.is_up(n) {
            return;
        }
        if self.members[n].round.as_ref().is_some_and(|round| self.now >= round.sent + TIMEOUT) {
            self.decide(n);
        }
        match self.members[n].mode {
            Mode::Out(until) if self.now >= until => {
                self.members[n].updated = self.calm || !self.random.one_in(5);
                self.stay(n);
            }
            Mode::Out(_) => {}
            Mode::Draining(_) if self.own_clock(n) >= self.members[n].deadline => self.stay(n),
            Mode::Draining(until) if self.now >= until => self.begin(n, Some(Phase::Stop)),
            Mode::Draining(_) => {}
            Mode::Serving => {
                self.members[n].served_at = self.now;
                let wanted = !self.members[n].updated;
                match self.members[n].wish.clone() {
                    Some(_) if self.members[n].round.is_some() => {}
                    Some(wish) if self.bug == Bug::ForgetsAway && !wish.from_fleet && wish.away && wanted => {
                        self.forgets(n);
                        self.wish(n);
                    }
                    // The engine tells peers again while it wants to go; not one under which it may have been away.
                    Some(wish) if wanted && !wish.from_fleet && !wish.away && self.random.one_in(2) => self.begin(n, Some(Phase::Before)),
                    // Asked for and not granted, or used: it goes back.
                    Some(_) => self.begin(n, None),
                    None if !self.members[n].updated && self.now >= self.members[n].next => self.wish(n),
                    None => {}
                }
            }
        }
    }

    /// A wish is forgotten when nobody holds anything for it any more: what no one gives back binds all until it runs out.
    fn forgets(&mut self, n: usize) {
        let Some(wish) = self.members[n].wish.take() else { return };
        for m in 0..self.members.len() {
            let now = EPOCH + self.own_clock(m) + self.members[m].offset;
            let held = self.members[m].book.lease.as_ref().filter(|lease| lease.stops && lease.nonce == wish.nonce && now < lease.expires);
            assert!(held.is_none(), "{} forgot a lease that {} holds for it: {held:?}", name(n), name(m));
        }
    }

    /// A new wish, durable before it is told.
    fn wish(&mut self, n: usize) {
        let from_fleet = self.random.one_in(2);
        let now = EPOCH + self.own_clock(n) + self.members[n].offset;
        if from_fleet && self.bug != Bug::AsksFleet && may_ask_fleet(&self.members[n].book, "sim", &name(n), now).is_err() {
            self.members[n].next = self.now + 5;
            return;
        }
        let nonce = format!("{n}-{}", self.rounds);
        self.members[n].wish = Some(Wish { from_fleet, nonce, epochs: BTreeMap::new(), epoch: None, away: false });
        self.begin(n, Some(Phase::Before));
    }

    /// Clocks jump, Fleet goes away, a person looks at who serves and says that it goes on.
    fn trouble(&mut self) {
        self.at(40, Event::Trouble);
        if !self.calm {
            let of = self.members.len() as u64;
            let n = self.random.below(of) as usize;
            if self.random.one_in(30) {
                self.members[n].offset = 1 + self.random.below(20_000);
            }
            if self.random.one_in(40) {
                self.fleet_down = self.now + self.random.below(3_000);
            }
        }
        if !self.calm && !self.random.one_in(6) {
            return;
        }
        // Only who is seen to serve, and has no wish any more, is given up.
        let settled = |world: &World, holder: &str| {
            (0..world.members.len()).any(|m| name(m) == holder && world.serves(m) && world.members[m].wish.is_none())
        };
        let (view, now) = (self.seen(0), self.now);
        if self.fleet.lease.clone().is_some_and(|lease| settled(self, &lease.holder)) || self.fleet.lease.is_none() {
            self.fleet.resume(&View { name: "sim", members: &view }, now);
        }
        for m in 0..self.members.len() {
            let lease = self.members[m].book.lease.clone();
            if lease.is_none_or(|lease| settled(self, &lease.holder)) {
                let (seen, now) = (self.seen(m), EPOCH + self.own_clock(m) + self.members[m].offset);
                self.members[m].book.resume(&View { name: "sim", members: &seen }, now);
            }
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            let Some(Reverse((time, count))) = self.queue.pop() else { return };
            self.now = time;
            match self.events.remove(&count) {
                Some(Event::Tick(n)) => self.tick(n),
                Some(Event::Trouble) => self.trouble(),
                Some(Event::Answer { to, from, number, said }) => self.answer(to, from, number, said),
                Some(question) => self.question(question),
                None => {}
            }
        }
    }

    fn settles(&mut self) {
        self.calm = true;
        let end = self.now + 60_000;
        while self.now < end && !self.members.iter().all(|m| m.updated) {
            self.run(50);
        }
        let stuck = || self.members.iter().map(|m| format!("{:?} {:?} {:?}", m.mode, m.wish, m.book)).collect::<Vec<_>>();
        assert!(self.members.iter().all(|m| m.updated), "no progress: {:#?} {:?}", stuck(), self.fleet);
    }
}

fn run(seed: u64, steps: u64, bug: Bug) -> Result<u64, String> {
    let of = [3, 3, 5][(seed % 3) as usize];
    let run = AssertUnwindSafe(|| {
        let mut world = World::new(seed, of, bug);
        for _ in 0..4 {
            world.run(steps / 4);
            world.members.iter_mut().for_each(|m| m.updated = false);
        }
        if bug == Bug::None {
            world.settles();
        }
        world.stops
    });
    let text = |e: Box<dyn std::any::Any + Send>| e.downcast_ref::<String>().cloned().or(e.downcast_ref::<&str>().map(|s| s.to_string()));
    catch_unwind(run).map_err(|e| text(e).unwrap_or_default())
}

#[allow(clippy::disallowed_methods, reason = "a seed that failed is tried again by its number")]
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn fleet_and_peers_never_let_two_go_in_trouble() {
    let (first, runs) = (number("VMETRIC_SIM_SEED", 1), number("VMETRIC_SIM_RUNS", 60));
    let again = |seed| format!("again: VMETRIC_SIM_SEED={seed} VMETRIC_SIM_RUNS=1 cargo test --test it cluster_peers_sim");
    let one = |seed| run(seed, 8_000, Bug::None).unwrap_or_else(|what| panic!("seed {seed}: {what}; {}", again(seed)));
    let stops: u64 = (first..first + runs).map(one).sum();
    assert!(stops >= 3 * runs, "only {stops} updates in {runs} runs");
    println!("{stops} updates in {runs} runs");
}

#[test]
fn a_broken_rule_of_peers_is_noticed() {
    for bug in [Bug::AsksFleet, Bug::PromisesAll, Bug::Minority, Bug::ForgetsAway] {
        let found = (1..300).find_map(|seed| run(seed, 8_000, bug).err().map(|what| (seed, what)));
        println!("{bug:?}: {found:?}");
        assert!(found.is_some(), "{bug:?} was not noticed");
    }
}
