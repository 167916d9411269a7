//! How a member stands, from what it says, what its peers say, and what was noted of its last update.

use super::lease::Book;
use super::plan::Wait;
use crate::core::reason::Reason;
use crate::core::time;

/// A member that was not heard of for so long is silent: three of its healths are missing.
pub const SILENT_S: u64 = 90;
/// A word of one member about another one is worth something for so long.
pub const WORD_S: u64 = 90;
/// After a lease ran out its holder is believed only once it was heard so long after that: longer than a message may be on
/// its way (30 s), and longer than two clocks drift apart within a lease.
pub const AFTER_EXPIRY_S: u64 = 60;

/// What a member says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Says {
    /// It serves.
    #[default]
    Serves,
    /// Its `/readyz` fails: it is about to stop, or a person took it out.
    Draining,
    /// Between two versions, or on trial.
    Moving,
    /// It does not serve for another reason.
    Unready,
}

/// What one member says of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Who says it.
    pub peer: String,
    /// It reached the other one, which serves.
    pub reached: bool,
    /// When it said so.
    pub at: u64,
}

/// An update that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Tells it from every other one of this member.
    pub id: String,
    /// When.
    pub at: u64,
    /// Why.
    pub reason: Reason,
}

/// What is known of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its identity.
    pub id: String,
    /// When it was heard of last; 0 = never.
    pub heard_at: u64,
    /// What it said.
    pub says: Says,
    /// Since when it says so; 0 = not known.
    pub since: u64,
    /// What its peers say of it.
    pub words: Vec<Word>,
    /// Other members speak of their peers at all: those of an older version do not.
    pub peers_speak: bool,
    /// Its last update failed.
    pub failed: Option<Failure>,
    /// What it has to do, for the order of members: agents that are online.
    pub load: u64,
    /// Running version.
    pub version: String,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It serves, and those who should reach it do.
    Healthy,
    /// It serves no new requests and has not stopped.
    Draining,
    /// Stopped for its update, or on trial.
    Updating,
    /// It is back, and its peers have not all seen it yet.
    Rejoining,
    /// Its update failed, and no person has said since that the others may go on.
    Failed,
    /// Not heard of.
    Silent,
    /// It is heard of, and a peer cannot reach it.
    Partitioned,
    /// Its lease ran out, and it was not heard of since.
    Expired,
}

impl State {
    /// Each of them.
    pub const ALL: [State; 8] = [
        State::Healthy,
        State::Draining,
        State::Updating,
        State::Rejoining,
        State::Failed,
        State::Silent,
        State::Partitioned,
        State::Expired,
    ];

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Draining => "draining",
            State::Updating => "updating",
            State::Rejoining => "rejoining",
            State::Failed => "failed",
            State::Silent => "silent",
            State::Partitioned => "partitioned",
            State::Expired => "lease_expired",
        }
    }

    /// The code of a wait for a member in this state.
    pub fn code(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Draining => "cluster_member_draining",
            State::Updating => "cluster_member_updating",
            State::Rejoining => "cluster_member_rejoining",
            State::Failed => "cluster_member_failed",
            State::Silent => "cluster_member_silent",
            State::Partitioned => "cluster_member_partitioned",
            State::Expired => "cluster_member_lease_expired",
        }
    }
}

/// A member's state.
pub fn state(seen: &Seen, book: &Book, now: u64) -> State {
    let leased = book.lease.as_ref().filter(|lease| lease.holder == seen.id);
    let given_up = book.lost.iter().any(|lost| lost.member == seen.id && seen.heard_at <= lost.until);
    if given_up || leased.is_some_and(|lease| now >= lease.expires) {
        return State::Expired;
    }
    if seen.failed.as_ref().is_some_and(|failure| !book.is_forgiven(&seen.id, &failure.id)) {
        return State::Failed;
    }
    let away = leased.filter(|lease| lease.stops);
    // What was heard before it came back is of the time before.
    if seen.says == Says::Moving || away.is_some_and(|lease| lease.back_at.is_none_or(|back| seen.heard_at < back)) {
        return State::Updating;
    }
    // Heard in the future: this clock went back, and how long ago it was nobody knows.
    if now.checked_sub(seen.heard_at).is_none_or(|age| age > SILENT_S) {
        return State::Silent;
    }
    if seen.says == Says::Draining {
        return State::Draining;
    }
    let (reached, lost) = peers(seen, book, now);
    if seen.says == Says::Unready || (seen.peers_speak && reached.is_empty() && lost.is_empty()) {
        return State::Rejoining;
    }
    match (lost.is_empty(), away) {
        (true, _) => State::Healthy,
        (false, Some(_)) => State::Rejoining,
        (false, None) => State::Partitioned,
    }
}

/// Which peers reached a member lately, and which tried in vain. A word from before the member came back says nothing.
pub fn peers<'a>(seen: &'a Seen, book: &Book, now: u64) -> (Vec<&'a str>, Vec<&'a str>) {
    let leased = book.lease.as_ref().filter(|lease| lease.holder == seen.id && lease.stops);
    let from = now.saturating_sub(WORD_S).max(leased.and_then(|lease| lease.back_at).unwrap_or(0));
    let fresh = || seen.words.iter().filter(|word| (from..=now).contains(&word.at));
    let of = |reached: bool| fresh().filter(|word| word.reached == reached).map(|word| word.peer.as_str()).collect();
    (of(true), of(false))
}

/// Why nobody may leave while this member stands so.
pub fn why(seen: &Seen, state: State, book: &Book, now: u64) -> Wait {
    let lost = peers(seen, book, now).1.join(", ");
    let lease = book.lease.as_ref().filter(|lease| lease.holder == seen.id);
    let (id, since) = (&seen.id, if seen.since == 0 { seen.heard_at } else { seen.since });
    let (what, since, until) = match state {
        State::Healthy => ("is healthy".into(), since, None),
        State::Draining => ("is drained: it serves nobody new".into(), since, lease.map(|l| l.expires)),
        State::Updating => ("is being updated".into(), lease.map_or(since, |l| l.granted_at), lease.map(|l| l.expires)),
        State::Rejoining if seen.says == Says::Unready => ("is up and does not serve yet".into(), since, lease.map(|l| l.expires)),
        State::Rejoining if lost.is_empty() => ("is up, and no peer has reached it yet".into(), since, lease.map(|l| l.expires)),
        State::Rejoining => (format!("is up, and {lost} cannot reach it yet"), since, lease.map(|l| l.expires)),
        State::Failed => {
            let (at, why) = seen.failed.as_ref().map_or((0, String::new()), |f| (f.at, f.reason.to_string()));
            (format!("failed its update: {why}; `cluster resume` goes on"), at, None)
        }
        State::Silent => ("is silent".into(), seen.heard_at, None),
        State::Partitioned => (format!("is not reached by {lost}"), since, None),
        State::Expired => ("let its lease run out and was not heard of since".into(), seen.heard_at, None),
    };
    let when = if since == 0 { String::new() } else { format!(" since {}", time::format(since)) };
    let end = until.map_or(String::new(), |at: u64| format!(", until {} at the latest", time::format(at)));
    let detail = format!("{id} {what}{when}{end}");
    Wait { reason: Reason::new(state.code(), detail), who: Some(id.clone()), since: Some(since).filter(|at| *at > 0), until }
}
