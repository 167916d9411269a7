//! An agent of a cluster of Directors: which member it speaks to, and where it turns when that one does not answer.
//!
//! Each agent has an order of its own among the members (rendezvous hashing: a member that goes takes its agents away from
//! nobody else, and they come down on the others in equal parts). It speaks to the first that answers and stays there; after
//! some time it asks its first one again, so that a roll-out, which empties one member after the other, does not leave the
//! last one empty.
//!
//! | what happens | what it does |
//! |---|---|
//! | no answer, or one that is not this site's | the next member, within seconds, spread over as long as the others need to take all in |
//! | no member answers | the usual back-off ([`super::backoff`]) between one round and the next |
//! | busy (429, 5xx) | it waits as it is asked to; after [`BUSY_MAX`] in a row the next member |
//! | turned down (401, 403) | it stays and says so: asking another member would not make it right |
//! | told that the member is being drained | the next member, at once |

use super::backoff::SPREAD_MAX_S;
use super::hex::{self, Sha256};

/// Most members: DESIGN's clusters have 3 to 15.
pub const MEMBERS_MAX: usize = 15;
/// Longest address, bytes: fifteen of them and the identity fit into the 4 KB of the configuration.
pub const ADDRESS_MAX: usize = 128;
/// Busy answers in a row after which another member is asked.
pub const BUSY_MAX: u32 = 3;
/// After so many seconds away from its first member an agent asks it again; as long again at random, so that they do not all
/// come at once. Longer than an update of a member with its soak.
pub const HOME_AFTER_S: u64 = 15 * 60;
/// Longest time between two such questions, seconds: a member that was taken away for good costs a connection an hour.
pub const HOME_AFTER_MAX_S: u64 = 60 * 60;
/// Milliseconds over which agents leave a member in any case.
const LEAVE_MS: u64 = 500;

/// Length of [`sum`]: to see a difference, not to prove anything.
const SUM_BYTES: usize = 8;

/// What came back instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing, or nothing of this site.
    Silent,
    /// The member is there and asks for patience.
    Busy,
    /// The member is there and does not serve this agent.
    Refused,
}

/// What to do after a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask the same address again after the usual back-off for so many failures.
    BackOff(u32),
    /// Ask the address that [`Failover::address`] now names after so many milliseconds.
    Turn(u64),
}

/// The members as one agent sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failover {
    /// Its own order.
    addresses: Vec<String>,
    at: usize,
    /// Losses since the last answer, of any member.
    losses: u32,
    /// Busy answers of this member in a row.
    busy: u32,
    /// Where it came from when it asks its first member again.
    back: Option<usize>,
    /// When it does that, seconds awake, and how long it waited.
    home: Option<(u64, u64)>,
}

/// Whether `text` can be a member's address: `https://host[:port]`, in plain ASCII.
pub fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    !rest.is_empty() && text.len() <= ADDRESS_MAX && rest.chars().all(plain)
}

/// By what an agent says which members it knows, in whatever order; of none: empty.
pub fn sum(members: &[String]) -> String {
    if members.is_empty() {
        return String::new();
    }
    let mut sum = [0; SUM_BYTES];
    for member in members {
        sum.iter_mut().zip(hex::sha256(member.as_bytes())).for_each(|(sum, byte)| *sum ^= byte);
    }
    hex::encode(&sum)
}

impl Failover {
    /// `known`: the address that it was enrolled with. `members`: all, as a Director said; none = it stands alone.
    pub fn new(agent: &str, known: &str, members: &[String]) -> Failover {
        let known = known.trim_end_matches('/');
        let mut addresses: Vec<String> = Vec::new();
        let mut weights: Vec<Sha256> = Vec::new();
        for member in members.iter().filter(|m| is_address(m)).take(MEMBERS_MAX) {
            // Put in its place: a sort of the library's would be more code than all of this.
            let weight = hex::sha256([agent, member].concat().as_bytes());
            let place = weights.iter().position(|w| *w >= weight).unwrap_or(weights.len());
            if weights.get(place) != Some(&weight) {
                weights.insert(place, weight);
                addresses.insert(place, member.clone());
            }
        }
        // Perhaps a balancer's, or what a person typed; the last resort, should no member be where it was said to be.
        if !addresses.iter().any(|a| a == known) {
            addresses.push(known.to_string());
        }
        Failover { addresses, ..Failover::default() }
    }

    /// The same members and more or less: goes on where `before` is, if that is still one of them.
    pub fn after(mut self, before: &Failover) -> Failover {
        self.at = self.addresses.iter().position(|a| a == before.address()).unwrap_or(0);
        self.losses = before.losses;
        self
    }

    /// Whether both have the same members.
    pub fn knows(&self, other: &Failover) -> bool {
        self.addresses == other.addresses
    }

    /// Whom to speak to.
    pub fn address(&self) -> &str {
        self.addresses.get(self.at).map_or("", String::as_str)
    }

    /// Whether there is anybody else to turn to.
    pub fn has_others(&self) -> bool {
        self.addresses.len() > 1
    }

    /// An answer has come.
    pub fn answered(&mut self, now_s: u64, seed: u64) {
        (self.losses, self.busy) = (0, 0);
        if self.back.take().is_some() || self.at == 0 {
            self.home = None;
        }
        if self.at != 0 && self.home.is_none() {
            self.home = Some((now_s + HOME_AFTER_S + seed % HOME_AFTER_S, HOME_AFTER_S));
        }
    }

    /// No answer has come. `spread_s`: over how long the agents of the member that was lost come back, as it last said.
    pub fn lost(&mut self, loss: Loss, spread_s: Option<u64>, now_s: u64, seed: u64) -> Next {
        if let Some(back) = self.back.take() {
            // Only asked whether the first member is there again: back to the one that is.
            let waited = self.home.map_or(HOME_AFTER_S, |(_, waited)| (waited * 2).min(HOME_AFTER_MAX_S));
            self.home = Some((now_s + waited + seed % waited, waited));
            self.at = back;
            return Next::Turn(0);
        }
        self.losses = self.losses.saturating_add(1);
        self.busy = if loss == Loss::Busy { self.busy.saturating_add(1) } else { 0 };
        if !self.has_others() || loss == Loss::Refused || (loss == Loss::Busy && self.busy < BUSY_MAX) {
            return Next::BackOff(self.losses);
        }
        self.busy = 0;
        let (count, first) = (self.addresses.len(), self.losses == 1);
        self.at = (self.at + 1) % count;
        let round = self.losses / count as u32;
        if self.losses.is_multiple_of(count as u32) {
            return Next::BackOff(round);
        }
        // The others take in what one would take in alone.
        let spread_ms = spread_s.unwrap_or(0).min(SPREAD_MAX_S) * 1_000 / (count as u64 - 1);
        Next::Turn(seed % (LEAVE_MS + if first { spread_ms } else { 0 }))
    }

    /// The member said that it is being drained: speaks to the next from now on. False: there is none.
    pub fn leave(&mut self) -> bool {
        let others = self.has_others();
        if others {
            self.at = (self.at + 1) % self.addresses.len();
            (self.back, self.home) = (None, None);
        }
        others
    }

    /// Asks the first member again when it is time to: true when it speaks to that one from now on.
    pub fn try_home(&mut self, now_s: u64) -> bool {
        let due = self.at != 0 && self.back.is_none() && self.home.is_some_and(|(at, _)| now_s >= at);
        if due {
            self.back = Some(self.at);
            self.at = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("https://director-{n}:8443")).collect()
    }

    fn agents(count: usize, of: usize) -> Vec<Failover> {
        (0..count).map(|n| Failover::new(&format!("agent-{n}"), "https://director-0:8443", &members(of))).collect()
    }

    #[test]
    fn who_stands_alone_backs_off_as_ever() {
        let mut alone = Failover::new("a", "https://d:1/", &[]);
        assert_eq!((alone.address(), alone.has_others()), ("https://d:1", false));
        for failures in 1..5 {
            assert_eq!(alone.lost(Loss::Silent, Some(30), 0, 7), Next::BackOff(failures));
        }
        alone.answered(0, 0);
        assert_eq!(alone.lost(Loss::Silent, None, 0, 7), Next::BackOff(1));
        assert!(!alone.leave() && !alone.try_home(u64::MAX));
    }

    #[test]
    fn agents_of_a_lost_member_come_down_on_the_others_in_equal_parts_and_no_other_moves() {
        let mut all = agents(3_000, 3);
        let at = |all: &[Failover], n: usize| all.iter().filter(|f| f.address() == members(3)[n]).count();
        for n in 0..3 {
            assert!((900..1_100).contains(&at(&all, n)), "{}", at(&all, n));
        }
        let before: Vec<String> = all.iter().map(|f| f.address().to_string()).collect();
        let lost = &members(3)[1];
        for agent in all.iter_mut().filter(|f| f.address() == lost) {
            assert!(matches!(agent.lost(Loss::Silent, None, 0, 3), Next::Turn(_)));
        }
        assert_eq!(at(&all, 1), 0);
        for n in [0, 2] {
            assert!((1_400..1_600).contains(&at(&all, n)), "{}", at(&all, n));
        }
        assert!(all.iter().zip(&before).all(|(f, before)| before == lost || f.address() == before));
    }

    #[test]
    fn nobody_is_left_out_and_a_round_without_an_answer_backs_off() {
        for count in [2, 3, 5, 15] {
            let mut agent = agents(1, count).remove(0);
            for round in 1..4 {
                let mut asked = vec![agent.address().to_string()];
                for _ in 1..count {
                    let Next::Turn(wait_ms) = agent.lost(Loss::Silent, None, 0, u64::MAX) else { panic!("round {round}") };
                    assert!(wait_ms < LEAVE_MS);
                    asked.push(agent.address().to_string());
                }
                assert_eq!(agent.lost(Loss::Silent, None, 0, 1), Next::BackOff(round));
                asked.sort();
                asked.dedup();
                assert_eq!(asked.len(), count);
            }
        }
    }

    #[test]
    fn the_first_turn_is_spread_over_what_the_others_need() {
        let longest = |spread_s| {
            let turn = |seed| match agents(1, 3).remove(0).lost(Loss::Silent, spread_s, 0, seed) {
                Next::Turn(wait_ms) => wait_ms,
                other => panic!("{other:?}"),
            };
            (0..40_000).map(turn).max().unwrap()
        };
        assert_eq!(longest(None), LEAVE_MS - 1);
        assert_eq!(longest(Some(10)), LEAVE_MS + 5_000 - 1, "two others take in at once what one takes in alone");
        assert_eq!(longest(Some(u64::MAX)), LEAVE_MS + SPREAD_MAX_S * 500 - 1, "what a hostile Director asks for is bounded");
    }

    #[test]
    fn busy_is_waited_for_and_a_refusal_stays_where_it_was_said() {
        let mut agent = agents(1, 3).remove(0);
        let here = agent.address().to_string();
        assert_eq!(agent.lost(Loss::Busy, None, 0, 0), Next::BackOff(1));
        assert_eq!(agent.lost(Loss::Busy, None, 0, 0), Next::BackOff(2));
        assert_eq!(agent.address(), here);
        assert!(matches!(agent.lost(Loss::Busy, None, 0, 0), Next::BackOff(1)), "three losses are a round of three members");
        assert_ne!(agent.address(), here);
        agent.answered(0, 0);
        let here = agent.address().to_string();
        for failures in 1..9 {
            assert_eq!(agent.lost(Loss::Refused, None, 0, 0), Next::BackOff(failures));
            assert_eq!(agent.address(), here);
        }
    }

    #[test]
    fn it_goes_home_when_that_answers_again_and_asks_ever_less_often() {
        let mut agent = agents(1, 3).remove(0);
        let home = agent.address().to_string();
        assert!(agent.leave());
        agent.answered(1_000, 0);
        let away = agent.address().to_string();
        let (mut now, mut waits) = (1_000, Vec::new());
        for _ in 0..5 {
            let began = now;
            while !agent.try_home(now) {
                now += 1;
            }
            waits.push(now - began);
            assert_eq!(agent.address(), home);
            assert_eq!(agent.lost(Loss::Silent, Some(30), now, 0), Next::Turn(0), "back at once to the one that answers");
            assert_eq!(agent.address(), away);
            agent.answered(now, 0);
        }
        assert_eq!(waits, [900, 1_800, 3_600, 3_600, 3_600]);
        now += 3_600;
        assert!(agent.try_home(now));
        agent.answered(now, 0);
        assert_eq!(agent.address(), home);
        assert!(!agent.try_home(u64::MAX), "it is at home");
    }

    #[test]
    fn a_changed_list_goes_on_where_it_was() {
        let mut agent = agents(1, 3).remove(0);
        agent.leave();
        let here = agent.address().to_string();
        let more = Failover::new("agent-0", "https://director-0:8443", &members(5)).after(&agent);
        assert_eq!(more.address(), here);
        let gone: Vec<String> = members(3).into_iter().filter(|m| *m != here).collect();
        let fewer = Failover::new("agent-0", "https://director-0:8443", &gone).after(&agent);
        assert!(gone.contains(&fewer.address().to_string()));
    }

    #[test]
    fn addresses_and_their_sum() {
        for good in ["https://d", "https://10.0.0.1:8443", "https://[fd00::1]:8443", "https://d-1.site_a.example:443"] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("https://{}", "d".repeat(ADDRESS_MAX));
        for bad in ["", "https://", "http://d", "https://d/x", "https://u@d", "https://d d", "https://d\n", "https://ä", long.as_str()] {
            assert!(!is_address(bad), "{bad}");
        }
        let mut turned = members(3);
        turned.reverse();
        assert_eq!(sum(&turned), sum(&members(3)));
        assert_ne!(sum(&members(5)), sum(&members(3)));
        assert_eq!((sum(&[]).as_str(), sum(&members(3)).len()), ("", 2 * SUM_BYTES));
        // A list of nothing but rubbish is none: the address that it has goes on.
        assert_eq!(Failover::new("a", "https://d:1", &["http://x".into()]).address(), "https://d:1");
    }
}
