//! The store that several Fleet servers can share: one small trait, two implementations, one test suite (`tests/it/store`).
//!
//! | | [`embedded::Embedded`] | [`etcd::Etcd`] |
//! |---|---|---|
//! | where | one redb file, one Fleet | an etcd v3 cluster, any number of Fleets |
//! | speaks | in the process | etcd's JSON gateway over HTTPS |
//! | a commit | one fsync | one consensus round |
//!
//! ## What is promised, by both
//!
//! * **One order.** Every successful [`Store::commit`] has a revision of its own; revisions only rise. A commit is all or
//!   nothing, and its conditions are judged at the same instant as it is made.
//! * **Reads are linearizable**: [`Store::get`] and the first page of a [`Listing`] see every commit that was answered before
//!   they began, whichever server it was made through. The further pages of a listing see the same revision as the first.
//! * **Once.** A commit is made once or not at all, also when the connection or a server dies in the middle: etcd is asked
//!   again what became of it (`etcd::commit`). Only when that cannot be found out in time the reason is `store_unsure`: then
//!   the caller reads before it does anything else. Every other error means that nothing was changed.
//! * **A watch misses nothing**: it tells of every commit after the revision that it began with, in order, a commit's events
//!   together, over any number of lost connections and servers; or it says `store_compacted`, and then one lists again and
//!   watches from the listing's revision.
//! * **A lease ends no earlier than its time after the last renewal that was answered**; the keys that were put under it go
//!   with it, in a commit that watches see. After a restart of the store each lease has its whole time again.
//!
//! ## Which data go here
//!
//! What people decide (settings, clusters, users, tokens, templates, webhooks) and what must not be done twice (leases,
//! audit numbers): kilobytes that change a few times an hour. **Not** what Directors tell all the time (health, last contact,
//! their agents and activity): a beat per Director and minute through consensus would be 170 fsyncs a second on every etcd
//! server for 10,000 Directors, to keep what the next beat replaces. That stays with the Fleet server that heard it.
//!
//! ## Where it stands
//!
//! [`shared`] keeps the tables of [`crate::director::policing::shared::SETTINGS`] here (`policies`, `policy_changes`, `clusters`,
//! `templates`, `confirmations`), keys as `<table>/<key>`; [`joined`] is how a Fleet comes to a store, [`site`] joins both to the
//! running server. The seam is [`crate::director::store::Elsewhere`]: changes of these tables are committed here, `durable` waits
//! for it, and the Fleet's own file keeps a copy. [`command`] carries rows between that file, a file of [`embedded`] and etcd.
//!
//! The next tables, each whole:
//! 1. The leases of clusters: a row each, on the condition that it and its cluster are as they were known. Needs what members say of
//!    themselves at other Fleets.
//! 2. The site's CA and the Directors' records, so that a Director is known at every Fleet; orders and roll-outs, planned by the
//!    Fleet that holds a lease.
//! 3. Users, sessions, tokens; the audit's chain, whose next number is such a condition already.
//!
//! What stays where it is: activity, what Directors told, history.

pub mod command;
mod dump;
pub mod embedded;
pub mod etcd;
pub mod joined;
mod own;
mod place;
pub mod shared;
pub mod site;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use crate::core::reason::Reason;

/// Longest key, bytes: a table's name and ids.
pub const KEY_MAX: usize = 512;
/// Longest value, bytes: the largest rows are settings of some kilobytes.
pub const VALUE_MAX: usize = 256 * 1024;
/// Most conditions, and most changes, of one commit: etcd takes 128 of each unless told otherwise, and ours are among them.
pub const STEPS_MAX: usize = 100;
/// Most bytes of keys and values in one commit: etcd takes requests of 1.5 MiB unless told otherwise.
pub const COMMIT_MAX: usize = 1024 * 1024;
/// Most rows of a page.
pub const PAGE_MAX: usize = 500;
/// Shortest and longest time of a lease: etcd extends shorter ones on its own account.
pub const LEASE_TIME: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(24 * 3600);
/// How often a listing begins anew when its revision was compacted away under it.
const LISTINGS_MAX: u32 = 4;
/// How often [`change`] tries: every loss of a race is somebody else's success.
const CHANGES_MAX: u32 = 1_000;

/// The number of a commit; 0 = before the first.
pub type Revision = u64;

/// What an asynchronous call gives; for one thread.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = Result<T, Reason>> + 'a>>;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Key.
    pub key: String,
    /// Value.
    pub value: Vec<u8>,
    /// The commit that made the key.
    pub created: Revision,
    /// The commit that changed it last.
    pub modified: Revision,
    /// The lease that it goes with.
    pub lease: Option<LeaseId>,
}

/// Keys from one up to another, which is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first key.
    pub from: Vec<u8>,
    /// The first key behind them.
    pub to: Vec<u8>,
}

impl Span {
    /// All keys that begin so. Not for the empty text: nobody needs everything, and etcd is not ours alone.
    pub fn prefix(prefix: &str) -> Span {
        let from = prefix.as_bytes().to_vec();
        let mut to = from.clone();
        // UTF-8 has no byte 255, so the last one can always be raised.
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Span { from, to }
    }

    /// Whether a key is in it.
    pub fn holds(&self, key: &str) -> bool {
        (self.from.as_slice()..self.to.as_slice()).contains(&key.as_bytes())
    }
}

/// A lease's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// What must be so for a commit to be made: the key was changed last by this commit; 0 = there is no such key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Key.
    pub key: String,
    /// Its [`Row::modified`].
    pub modified: Revision,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Puts a value, under a lease if there is one; otherwise the key leaves the lease that it had.
    Put {
        /// Key.
        key: String,
        /// Value.
        value: Vec<u8>,
        /// The key goes when this lease ends.
        lease: Option<LeaseId>,
    },
    /// Removes a key. It need not be there.
    Delete {
        /// Key.
        key: String,
    },
}

impl Step {
    /// Puts a value that stays.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Step {
        Step::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Removes a key.
    pub fn delete(key: impl Into<String>) -> Step {
        Step::Delete { key: key.into() }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        match self {
            Step::Put { key, .. } | Step::Delete { key } => key,
        }
    }
}

/// Changes that are made together, if all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Made in one revision; each key once.
    pub steps: Vec<Step>,
}

impl Commit {
    /// With one more condition.
    pub fn when(mut self, key: impl Into<String>, modified: Revision) -> Commit {
        self.conditions.push(Condition { key: key.into(), modified });
        self
    }

    /// With one more change.
    pub fn with(mut self, step: Step) -> Commit {
        self.steps.push(step);
        self
    }

    /// # Errors
    /// `store_bad_request`: the limits above, a key twice, no change at all.
    pub fn check(&self) -> Result<(), Reason> {
        let bad = |why: String| Err(Reason::new("store_bad_request", why));
        if self.steps.is_empty() || self.steps.len() > STEPS_MAX || self.conditions.len() > STEPS_MAX {
            let (steps, conditions) = (self.steps.len(), self.conditions.len());
            return bad(format!("{steps} changes under {conditions} conditions; 1 to {STEPS_MAX} changes, {STEPS_MAX} conditions at most"));
        }
        let mut keys: Vec<&str> = self.steps.iter().map(Step::key).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return bad(format!("'{}' is changed twice in one commit", twice[0]));
        }
        for key in keys.into_iter().chain(self.conditions.iter().map(|c| c.key.as_str())) {
            if key.is_empty() || key.len() > KEY_MAX {
                return bad(format!("a key of {} bytes; 1 to {KEY_MAX} are allowed", key.len()));
            }
        }
        let mut bytes = 0;
        for step in &self.steps {
            let Step::Put { key, value, .. } = step else { continue };
            if value.len() > VALUE_MAX {
                return bad(format!("'{key}': a value of {} bytes; {VALUE_MAX} are allowed", value.len()));
            }
            bytes += key.len() + value.len();
        }
        if bytes > COMMIT_MAX {
            return bad(format!("{bytes} bytes in one commit; {COMMIT_MAX} are allowed"));
        }
        Ok(())
    }
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was made, with this revision.
    Done(Revision),
    /// A condition did not hold, and nothing was changed.
    Conflict {
        /// The key whose condition did not hold.
        key: String,
        /// The commit that changed it last; 0 = there is no such key.
        modified: Revision,
    },
}

/// Rows of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of keys.
    pub rows: Vec<Row>,
    /// What the store's newest commit was when the listing began: where a watch goes on from.
    pub revision: Revision,
    /// There are further pages.
    pub more: bool,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has this value now.
    Put(Row),
    /// It is gone.
    Deleted {
        /// Key.
        key: String,
        /// By this commit.
        modified: Revision,
    },
}

impl Event {
    /// Whose.
    pub fn key(&self) -> &str {
        match self {
            Event::Put(row) => &row.key,
            Event::Deleted { key, .. } => key,
        }
    }

    /// By which commit.
    pub fn modified(&self) -> Revision {
        match self {
            Event::Put(row) => row.modified,
            Event::Deleted { modified, .. } => *modified,
        }
    }
}

/// Events of whole commits, oldest first. Without events: only that nothing happened up to `revision`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Everything up to this commit has been told.
    pub revision: Revision,
    /// What happened.
    pub events: Vec<Event>,
}

/// One server of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its address, or the file.
    pub name: String,
    /// Version of its program.
    pub version: String,
    /// It leads.
    pub leads: bool,
    /// Bytes that it keeps on its disk.
    pub bytes: u64,
    /// Why it cannot be used.
    pub problem: Option<Reason>,
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// `redb` or `etcd`.
    pub kind: &'static str,
    /// The newest commit.
    pub revision: Revision,
    /// Its servers.
    pub members: Vec<Member>,
}

/// Rows page by page.
pub trait Listing {
    /// The next page, of at most `rows` rows ([`PAGE_MAX`]).
    ///
    /// # Errors
    /// `store_compacted`: begin again; and those of [`Store::get`].
    fn next(&mut self, rows: usize) -> Fut<'_, Page>;
}

/// Commits as they happen.
pub trait Watch {
    /// Waits for something to tell. Dropping the wait loses nothing.
    ///
    /// # Errors
    /// `store_compacted`: what is to be told is no longer kept; list again and watch from there. Any other reason is told once
    /// and the next call goes on where this one stopped.
    fn next(&mut self) -> Fut<'_, Batch>;
}

/// See the module's text for what is promised.
///
/// Codes of all reasons: `store_unreachable`, `store_no_quorum`, `store_refused`, `store_full`, `store_compacted`,
/// `store_too_large`, `store_unsure`, `store_bad_request`, `store_lease_gone`, `store_in_use`, `store_damaged`,
/// `store_write_failed`, `store_misconfigured`.
pub trait Store {
    /// A row, if there is one.
    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, Option<Row>>;

    /// Rows page by page, all of one revision.
    fn list(self: Rc<Self>, span: Span) -> Box<dyn Listing>;

    /// Makes changes if all conditions hold.
    fn commit(&self, commit: Commit) -> Fut<'_, Outcome>;

    /// Tells of every commit after a revision. Nothing is done before the first [`Watch::next`].
    fn watch(self: Rc<Self>, span: Span, after: Revision) -> Box<dyn Watch>;

    /// A new lease of this time (within [`LEASE_TIME`], whole seconds).
    fn grant(&self, time: Duration) -> Fut<'_, LeaseId>;

    /// Gives a lease its whole time again; `store_lease_gone` = it has ended.
    fn renew(&self, lease: LeaseId) -> Fut<'_, ()>;

    /// Ends a lease now, its keys with it. One that has ended already is no error.
    fn revoke(&self, lease: LeaseId) -> Fut<'_, ()>;

    /// Forgets history up to a revision: watches and listings that would need it are told so.
    fn compact(&self, upto: Revision) -> Fut<'_, ()>;

    /// How each server of it is; what keeps it from working is told of its members.
    fn health(&self) -> Fut<'_, Health>;
}

/// Every row of a span, and the revision at which it was so. Begins again when history goes away under it.
///
/// # Errors
/// `store_too_large` for more than `most` rows, and those of [`Listing::next`].
pub async fn all(store: &Rc<dyn Store>, span: &Span, most: usize) -> Result<(Vec<Row>, Revision), Reason> {
    let mut tries = 1;
    'again: loop {
        let (mut listing, mut rows) = (store.clone().list(span.clone()), Vec::new());
        loop {
            let page = match listing.next(PAGE_MAX).await {
                Err(reason) if reason.code == "store_compacted" && tries < LISTINGS_MAX => {
                    tries += 1;
                    continue 'again;
                }
                page => page?,
            };
            rows.extend(page.rows);
            if rows.len() > most {
                let detail = format!("more than {most} rows under '{}'", String::from_utf8_lossy(&span.from));
                return Err(Reason::new("store_too_large", detail));
            }
            if !page.more {
                return Ok((rows, page.revision));
            }
        }
    }
}

/// Reads a row, lets `make` say what its value becomes, and commits that if the row is still as it was; else again.
/// `make` is called once per try, with the row's value at that time; `None` from it leaves everything as it is.
///
/// # Errors
/// Those of `make`, of [`Store::commit`], and `store_busy` when a thousand tries were lost to others.
pub async fn change<F>(store: &dyn Store, key: &str, mut make: F) -> Result<Option<Revision>, Reason>
where
    F: FnMut(Option<&Row>) -> Result<Option<Vec<u8>>, Reason>,
{
    for _ in 0..CHANGES_MAX {
        let row = store.get(key).await?;
        let Some(value) = make(row.as_ref())? else { return Ok(None) };
        let commit = Commit::default().when(key, row.map_or(0, |row| row.modified)).with(Step::put(key, value));
        if let Outcome::Done(revision) = store.commit(commit).await? {
            return Ok(Some(revision));
        }
    }
    Err(Reason::new("store_busy", format!("'{key}' was changed by others {CHANGES_MAX} times in a row; try again later")))
}

/// A lease's time, if it may be one.
fn lease_time(time: Duration) -> Result<Duration, Reason> {
    let (least, most) = (LEASE_TIME.start().as_secs(), LEASE_TIME.end().as_secs());
    match LEASE_TIME.contains(&time) && time.subsec_nanos() == 0 {
        true => Ok(time),
        false => Err(Reason::new("store_bad_request", format!("a lease of {time:?}; whole seconds from {least} to {most} are allowed"))),
    }
}

/// A key that may be read.
fn key_checked(key: &str) -> Result<&str, Reason> {
    match (1..=KEY_MAX).contains(&key.len()) {
        true => Ok(key),
        false => Err(Reason::new("store_bad_request", format!("a key of {} bytes; 1 to {KEY_MAX} are allowed", key.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_what_begins_so() {
        let span = Span::prefix("users/");
        assert!(span.holds("users/") && span.holds("users/a") && span.holds("users/\u{10ffff}"));
        assert!(!span.holds("users") && !span.holds("users0") && !span.holds("user") && !span.holds("v"));
        assert!(Span::prefix("ü").holds("üa") && !Span::prefix("ü").holds("ý"));
    }

    #[test]
    fn commits_beyond_the_limits_are_refused_with_the_limit() {
        let ok = Commit::default().when("a", 0).with(Step::put("a", "1")).with(Step::delete("b"));
        ok.check().unwrap();
        let long = "k".repeat(KEY_MAX + 1);
        let steps = |n: usize| Commit { steps: (0..n).map(|i| Step::put(format!("k{i}"), "")).collect(), ..Commit::default() };
        steps(STEPS_MAX).check().unwrap();
        let big = |n: usize, each: usize| Commit {
            steps: (0..n).map(|i| Step::put(format!("k{i}"), vec![0; each])).collect(),
            ..Commit::default()
        };
        big(4, VALUE_MAX - 2).check().unwrap();
        let bad = [
            Commit::default(),
            ok.clone().with(Step::delete("a")),
            ok.clone().with(Step::put("", "")),
            ok.clone().when(long.clone(), 0),
            ok.with(Step::delete(long)),
            steps(STEPS_MAX + 1),
            big(1, VALUE_MAX + 1),
            big(5, VALUE_MAX),
        ];
        for commit in bad {
            assert_eq!(commit.check().unwrap_err().code, "store_bad_request");
        }
    }

    #[test]
    fn times_of_leases() {
        for ok in [5, 60, 86_400] {
            lease_time(Duration::from_secs(ok)).unwrap();
        }
        for bad in [Duration::ZERO, Duration::from_secs(4), Duration::from_millis(5_500), Duration::from_secs(86_401)] {
            assert_eq!(lease_time(bad).unwrap_err().code, "store_bad_request");
        }
    }
}
