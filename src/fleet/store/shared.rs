//! Fleet's tables in a store that several Fleets share.
//!
//! ```text
//!  a person's act -> registry -> Shared::queue -> one commit, if nobody else's came between -> answer, copy in fleet.redb
//!                                                 else: undone in the registry, the person looks again
//!  another Fleet's commit -> watch -> registry, copy in fleet.redb -> parked Directors at once
//! ```
//!
//! **One order.** Every commit of settings also writes the row [`HEAD`], on the condition that it is as this Fleet knows it. So
//! whatever was checked before the change (names, members, revisions) was checked against the newest settings, and revisions
//! are given once. A change is answered when it is in the store; before that nothing that follows from it is said to anybody
//! ([`crate::director::store::Store::durable`]).
//!
//! **The file keeps a copy**, written after the store. It is what a Fleet starts with while the store is away, and what it goes
//! on with when it leaves the store.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::joined::{self, Rows};
use super::{Commit, Event, Outcome, Revision, STEPS_MAX, Step, Store};
use crate::core::reason::Reason;
use crate::director::bell::Bells;
use crate::director::policing::shared::SETTINGS;
use crate::director::store::{Change, Elsewhere, PARTLY, Table, UNDONE};
use crate::io::clock;

/// The row that every commit of settings changes.
pub const HEAD: &str = "head/settings";
/// Rows in one commit, beside [`HEAD`].
const ROWS: usize = STEPS_MAX - 2;
/// How long a change that lost waits for the one that won, so that whoever looks again sees it.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Pause after a failed watch or listing.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a store that did not take the last change has for a sign of life before the next one is undone: everybody waits for
/// it, also Directors that ask for a lease, which they do for 10 s. One dead endpoint (2 s) is passed over meanwhile.
const PROBE: Duration = Duration::from_secs(4);
/// Undone changes that are remembered for those who wait: each waits a moment only.
const UNDONE_MAX: usize = 256;

/// What is put in force, or taken back.
#[derive(Clone, Copy, Debug)]
pub enum Why<'a> {
    /// It was so when this Fleet came.
    Listed,
    /// Another Fleet did it.
    Elsewhere,
    /// This Fleet's change could not be made.
    Undone {
        /// Why.
        reason: &'a Reason,
        /// Somebody wanted something of it: the removal of what is over is tried again by itself.
        wished: bool,
    },
}

/// Waits for this Fleet's own file.
pub type Written<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// Where the rows are in force: the registry, and the copy in the file.
pub trait Memory {
    /// Puts rows in force as the store has them.
    fn take(&self, rows: &[Change], why: Why);

    /// Keeps rows in the copy.
    fn copy(&self, rows: Vec<Change>);

    /// Waits until what belongs to the changes so far is in this Fleet's own file: the audit's row of an act is there before
    /// the act is made.
    fn written(&self) -> Written<'_>;

    /// The store cannot be reached (`Some`), or can again.
    fn trouble(&self, reason: Option<&Reason>);
}

/// A change on its way.
struct Ticket {
    changes: Vec<Change>,
    /// The head that it was decided by; `None` = what the ticket before it makes.
    base: Option<Revision>,
}

/// See the module's text.
pub struct Shared {
    store: Rc<dyn Store>,
    memory: Rc<dyn Memory>,
    rows: RefCell<Rows>,
    pending: RefCell<VecDeque<Ticket>>,
    queued: Cell<u64>,
    settled: Cell<u64>,
    /// The ticket before the first and the last one that were undone together, and why.
    undone: RefCell<VecDeque<(u64, u64, String)>>,
    work: Bells,
    done: Bells,
    moved: Bells,
    /// The code of what was told last.
    trouble: RefCell<Option<String>>,
    /// The store could not be reached for the last change.
    away: Cell<bool>,
}

impl Shared {
    /// Over rows that were listed, or the copy while the store is `away`, which was told with this code.
    pub fn new(store: Rc<dyn Store>, memory: Rc<dyn Memory>, rows: Rows, away: Option<String>) -> Rc<Shared> {
        Rc::new(Shared {
            store,
            memory,
            rows: RefCell::new(rows),
            pending: RefCell::default(),
            queued: Cell::new(0),
            settled: Cell::new(0),
            undone: RefCell::default(),
            work: Bells::default(),
            done: Bells::default(),
            moved: Bells::default(),
            away: Cell::new(away.is_some()),
            trouble: RefCell::new(away),
        })
    }

    /// The committer; never returns.
    pub async fn commit_forever(self: Rc<Self>) {
        let mut made = 0;
        loop {
            while self.pending.borrow().is_empty() {
                self.work.wait().await;
            }
            let ready = match self.memory.written().await {
                Ok(()) => self.reach().await,
                Err(e) => Err(Reason::new("store_write_failed", e)),
            };
            let Some((count, base, changes)) = self.next() else { continue };
            let done = match ready {
                Ok(()) => self.commit(base.unwrap_or(made), &changes, &mut made).await,
                failed => failed,
            };
            match done {
                Ok(()) => self.settle(count, None),
                Err(reason) => {
                    if matches!(reason.code.as_ref(), "store_unreachable" | "store_no_quorum" | "store_unsure") {
                        self.away.set(true);
                    }
                    self.undo(&reason);
                }
            }
        }
    }

    /// Asks a store for a sign of life that did not take the last change: a commit is tried for much longer.
    async fn reach(&self) -> Result<(), Reason> {
        if self.away.get() {
            let silent = async {
                smol::Timer::after(PROBE).await;
                Err(Reason::new(
                    "store_unreachable",
                    format!("the store did not take the last change, and is silent for {} s", PROBE.as_secs()),
                ))
            };
            smol::future::or(async { self.store.get(HEAD).await.map(drop) }, silent).await?;
            self.away.set(false);
        }
        Ok(())
    }

    /// The oldest changes that fit into one commit: how many tickets, the head that they were decided by, what they change.
    fn next(&self) -> Option<(usize, Option<Revision>, Vec<Change>)> {
        let pending = self.pending.borrow();
        let first = pending.front()?;
        let mut changes = first.changes.clone();
        let mut count = 1;
        for ticket in pending.iter().skip(1).take_while(|ticket| ticket.base.is_none()) {
            if changes.len() + ticket.changes.len() > ROWS {
                break;
            }
            changes.extend(ticket.changes.iter().cloned());
            count += 1;
        }
        Some((count, first.base, changes))
    }

    /// Commits, in more than one step if it is much: what was made stays then, and the reason says so.
    async fn commit(&self, mut head: Revision, changes: &[Change], made: &mut Revision) -> Result<(), Reason> {
        for (at, part) in changes.chunks(ROWS).enumerate() {
            match self.commit_part(head, part).await {
                Ok(revision) => (head, *made) = (revision, revision),
                Err(reason) if at == 0 => return Err(reason),
                Err(reason) => {
                    let (done, all) = (at * ROWS, changes.len());
                    let why = match reason.code.as_ref() {
                        "revision_conflict" => "another Fleet changed the settings meanwhile".to_string(),
                        _ => reason.to_string(),
                    };
                    let detail = format!(
                        "{done} of {all} rows of this change were made and count; of the others: {why}; look again, and repeat what is still \
                         wanted"
                    );
                    return Err(Reason::new("partly_changed", detail));
                }
            }
        }
        Ok(())
    }

    async fn commit_part(&self, head: Revision, part: &[Change]) -> Result<Revision, Reason> {
        // Of two changes of a row the later one counts.
        let last: BTreeMap<(Table, &str), &Change> = part.iter().map(|change| ((change.table, change.key.as_str()), change)).collect();
        let mut commit = Commit::default().when(HEAD, head).with(Step::put(HEAD, clock::unix().to_string()));
        for change in last.values() {
            let key = joined::key(change);
            commit = commit.with(match &change.value {
                Some(text) => Step::put(key, text.as_bytes()),
                None => Step::delete(key),
            });
        }
        match self.store.commit(commit).await? {
            Outcome::Done(revision) => {
                let rows: Vec<Change> = last.into_values().cloned().collect();
                let mut kept = self.rows.borrow_mut();
                kept.head = kept.head.max(revision);
                rows.iter().for_each(|row| kept.put(row, revision));
                drop(kept);
                self.memory.copy(rows);
                Ok(revision)
            }
            Outcome::Conflict { modified, .. } => {
                self.catch_up(modified).await;
                let detail = "another Fleet changed the settings at this very moment, so nothing of this was changed; look again, and \
                              repeat it if it is still wanted";
                Err(Reason::new("revision_conflict", detail))
            }
        }
    }

    /// Waits until the watch has told of a commit.
    async fn catch_up(&self, revision: Revision) {
        let told = async {
            while self.rows.borrow().head < revision {
                self.moved.wait().await;
            }
        };
        let late = async {
            smol::Timer::after(CATCH_UP).await;
        };
        smol::future::or(told, late).await;
    }

    /// Takes back everything that is on its way: each was decided by what the one before it would have made.
    fn undo(&self, reason: &Reason) {
        let tickets = self.pending.borrow().len();
        let pending = self.pending.borrow();
        let keys: BTreeSet<(Table, String)> = pending.iter().flat_map(|t| &t.changes).map(|c| (c.table, c.key.clone())).collect();
        let wished = pending.iter().flat_map(|t| &t.changes).any(|change| change.value.is_some());
        drop(pending);
        let rows: Vec<Change> = {
            let kept = self.rows.borrow();
            keys.into_iter().map(|(table, key)| Change { value: kept.text(table, &key), table, key }).collect()
        };
        let text = match reason.code.as_ref() {
            "revision_conflict" => format!("{UNDONE}{}", reason.detail),
            "partly_changed" => format!("{PARTLY}{}", reason.detail),
            // Its text says that it is not known.
            code @ "store_unsure" => format!("{} ({code})", reason.detail),
            code => format!("{} ({code}); nothing of this was changed", reason.detail),
        };
        log::warn!("a change of settings was undone: {reason}");
        // Those who wait are told first: what is put in force below rings others.
        self.settle(tickets, wished.then_some(text));
        self.memory.take(&rows, Why::Undone { reason, wished });
    }

    fn settle(&self, tickets: usize, undone: Option<String>) {
        self.pending.borrow_mut().drain(..tickets);
        let first = self.settled.get();
        self.settled.set(first + tickets as u64);
        if let Some(text) = undone {
            let mut told = self.undone.borrow_mut();
            told.push_back((first, self.settled.get(), text));
            if told.len() > UNDONE_MAX {
                told.pop_front();
            }
        }
        self.done.ring();
    }

    /// The watch; never returns. `after` = what was listed.
    pub async fn follow_forever(self: Rc<Self>, mut after: Option<Revision>) {
        loop {
            let from = match after {
                Some(revision) => revision,
                None => match self.list_again().await {
                    Ok(revision) => revision,
                    Err(reason) => {
                        self.tell(Some(&reason));
                        smol::Timer::after(PAUSE).await;
                        continue;
                    }
                },
            };
            let mut watch = self.store.clone().watch(joined::everything(), from);
            loop {
                match watch.next().await {
                    Ok(batch) => {
                        self.tell(None);
                        self.take(batch.events);
                    }
                    Err(reason) if reason.code == "store_compacted" => break,
                    Err(reason) => {
                        self.tell(Some(&reason));
                        smol::Timer::after(PAUSE).await;
                    }
                }
            }
            after = None;
        }
    }

    /// Says what keeps the store from being followed, once.
    fn tell(&self, reason: Option<&Reason>) {
        let code = reason.map(|reason| reason.code.to_string());
        if *self.trouble.borrow() != code {
            *self.trouble.borrow_mut() = code;
            self.memory.trouble(reason);
        }
    }

    /// What others did while nothing was told.
    async fn list_again(&self) -> Result<Revision, Reason> {
        let before = self.rows.borrow().head;
        let (listed, revision) = joined::list(&self.store).await?;
        self.tell(None);
        let news = {
            let mut kept = self.rows.borrow_mut();
            // A commit of ours that was answered while the list was read is newer than the list. Otherwise the store was brought
            // back from a backup, and its rows count.
            if listed.head < kept.head && kept.head != before {
                return Err(Reason::new("store_busy", "the store moved while it was listed; it is listed again"));
            }
            let news = kept.differences(&listed);
            *kept = listed;
            news
        };
        self.put_in_force(news);
        Ok(revision)
    }

    /// Events that are news: this Fleet's own come back, too.
    fn take(&self, events: Vec<Event>) {
        let mut news = Vec::new();
        {
            let mut kept = self.rows.borrow_mut();
            let told = events.iter().map(Event::modified).max().unwrap_or(0);
            for event in events {
                if event.key() == HEAD {
                    kept.head = kept.head.max(event.modified());
                }
                let modified = event.modified();
                let Some(change) = joined::change(event) else { continue };
                if kept.is_older(&change, modified) {
                    kept.put(&change, modified);
                    news.push(change);
                }
            }
            kept.forget(told);
        }
        self.put_in_force(news);
        self.moved.ring();
    }

    fn put_in_force(&self, news: Vec<Change>) {
        if news.is_empty() {
            return;
        }
        // What this Fleet is about to change itself either wins, or is undone to what the store has.
        let own: BTreeSet<(Table, String)> =
            self.pending.borrow().iter().flat_map(|t| &t.changes).map(|c| (c.table, c.key.clone())).collect();
        let rows: Vec<Change> = news.iter().filter(|row| !own.contains(&(row.table, row.key.clone()))).cloned().collect();
        self.memory.copy(news);
        self.memory.take(&rows, Why::Elsewhere);
    }
}

impl Elsewhere for Shared {
    fn keeps(&self, table: Table) -> bool {
        SETTINGS.contains(&table)
    }

    fn queue(&self, changes: Vec<Change>) {
        let mut pending = self.pending.borrow_mut();
        let base = pending.is_empty().then(|| self.rows.borrow().head);
        pending.push_back(Ticket { changes, base });
        self.queued.set(self.queued.get() + 1);
        self.work.ring();
    }

    fn durable(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + '_>> {
        let (from, goal) = (self.settled.get(), self.queued.get());
        Box::pin(async move {
            while self.settled.get() < goal {
                self.done.wait().await;
            }
            let undone = self.undone.borrow();
            let ours = undone.iter().find(|(first, last, _)| *first < goal && *last > from);
            match ours {
                Some((_, _, text)) => Err(text.clone()),
                None => Ok(()),
            }
        })
    }
}
