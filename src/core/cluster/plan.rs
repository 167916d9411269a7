//! Who goes first, who may go now, and what an exception would cost.

use super::lease::Book;
use super::majority;
use super::member::{Seen, State, state, why};
use crate::core::reason::Reason;

/// Why not now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Code and sentence.
    pub reason: Reason,
    /// Which member it is about.
    pub who: Option<String>,
    /// Since when.
    pub since: Option<u64>,
    /// When it ends by itself; absent = when its cause goes away.
    pub until: Option<u64>,
}

impl Wait {
    /// Without a member and without times.
    pub fn plain(code: &'static str, detail: impl Into<String>) -> Wait {
        Wait { reason: Reason::new(code, detail), who: None, since: None, until: None }
    }
}

/// A cluster as it is seen now: every configured member once.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// For sentences.
    pub name: &'a str,
    /// All configured members.
    pub members: &'a [Seen],
}

/// A member's place in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its identity.
    pub id: String,
    /// From 1.
    pub turn: usize,
    /// Why it has this place.
    pub load: u64,
    /// Running version.
    pub version: String,
    /// How it stands.
    pub state: State,
    /// It runs the wanted version already: nothing is to be done.
    pub done: bool,
}

/// What it costs to let a member go although not all others are healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Healthy members that are left.
    pub left: usize,
    /// More than half of the configured ones.
    pub majority: usize,
    /// For the person who decides.
    pub sentence: String,
}

impl View<'_> {
    /// A configured member.
    pub fn member(&self, id: &str) -> Option<&Seen> {
        self.members.iter().find(|seen| seen.id == id)
    }

    /// How many members are healthy, without this one.
    pub fn healthy_without(&self, id: &str, book: &Book, now: u64) -> usize {
        self.members.iter().filter(|seen| seen.id != id && state(seen, book, now) == State::Healthy).count()
    }

    /// Whether the cluster can do without this member: every other one is healthy, and they are a majority.
    ///
    /// # Errors
    /// The member that is not, or `quorum_lost`.
    pub fn can_spare(&self, id: &str, book: &Book, now: u64) -> Result<(), Wait> {
        let others = self.members.iter().filter(|seen| seen.id != id);
        if let Some((seen, state)) = others.map(|seen| (seen, state(seen, book, now))).find(|(_, state)| *state != State::Healthy) {
            return Err(why(seen, state, book, now));
        }
        let (left, needed) = (self.healthy_without(id, book, now), majority(self.members.len()));
        match left >= needed {
            true => Ok(()),
            false => {
                let detail = format!("cluster '{}' without {id} has {left} healthy members and needs {needed}", self.name);
                Err(Wait::plain("quorum_lost", detail))
            }
        }
    }

    /// What it costs to let this member go now.
    pub fn cost(&self, id: &str, book: &Book, now: u64) -> Cost {
        let (left, majority) = (self.healthy_without(id, book, now), majority(self.members.len()));
        let what = match left >= majority {
            true => "the quorum is kept".to_string(),
            false => format!("THE QUORUM IS LOST: {} short", majority - left),
        };
        let of = self.members.len();
        let sentence =
            format!("without {id}, {left} of {of} members of cluster '{}' are healthy; a majority is {majority}: {what}", self.name);
        Cost { left, majority, sentence }
    }

    /// The order in which members are updated: those with the least to do first, so that a bad version meets few agents;
    /// then by id. `version`: who runs it has nothing to do.
    pub fn plan(&self, book: &Book, version: Option<&str>, now: u64) -> Vec<Planned> {
        let mut members: Vec<&Seen> = self.members.iter().collect();
        members.sort_by(|a, b| (a.load, &a.id).cmp(&(b.load, &b.id)));
        let planned = |(n, seen): (usize, &&Seen)| Planned {
            id: seen.id.clone(),
            turn: n + 1,
            load: seen.load,
            version: seen.version.clone(),
            state: state(seen, book, now),
            done: version.is_some_and(|version| seen.version == version),
        };
        members.iter().enumerate().map(planned).collect()
    }

    /// Whether a member is the one that is ordered next. `wanting`: others that only wait for their turn.
    ///
    /// # Errors
    /// Who goes first, or what stands in the way.
    pub fn is_next(&self, id: &str, book: &Book, wanting: &[String], now: u64) -> Result<(), Wait> {
        if let Some(lease) = book.lease.as_ref().filter(|lease| lease.holder != id) {
            return Err(book.held(lease, self.name, now));
        }
        if !book.is_waived(id, now) {
            book.goes_on(self.name)?;
            self.can_spare(id, book, now)?;
        }
        let first = self.plan(book, None, now).into_iter().find(|p| p.id == id || wanting.contains(&p.id));
        match first.filter(|first| first.id != id) {
            None => Ok(()),
            Some(first) => {
                let detail = format!("{} of cluster '{}' goes first: it has the fewest agents, {}", first.id, self.name, first.load);
                Err(Wait { who: Some(first.id), ..Wait::plain("cluster_turn", detail) })
            }
        }
    }
}
