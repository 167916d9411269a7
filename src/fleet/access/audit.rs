//! The audit log of this Fleet: every act of every door, in one chain ([`crate::wire::audit`]).
//!
//! A row is in the transaction of its act ([`super::door::logged`]), and the answer waits for the disk. Rows are kept for
//! [`KEPT_DAYS`].

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

use miniserde::{Deserialize, Serialize, json};

use crate::core::reason::Reason;
use crate::director::commands::store_error;
use crate::director::records::{DETAIL_MAX, NAME_MAX, clean};
use crate::director::site::Site;
use crate::director::store::{Change, Slice, Store, Table};
use crate::director::table::utc;
use crate::io::clock;
use crate::wire::audit::{BEGINNING, Chain, FORMAT, Head, PRUNED, Row};

/// Oldest row, days: a year's review finds the whole year.
pub const KEPT_DAYS: u64 = 400;
/// Most rows: about 100 MB, which a verification reads in seconds.
pub const ROWS_MAX: u64 = 200_000;
/// Rows read at once.
const PIECE: usize = 1_000;
/// Refused logins that have a row of their own, in an hour: a program that guesses must not push out what matters.
const FAILED_PER_HOUR: u64 = 100;
/// Key of what was removed; after every number.
const CHECKPOINT: &str = "checkpoint";

/// What somebody did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub user: String,
    /// From where.
    pub ip: String,
    /// A kind of thing: `Director`, `User`, ...
    pub object_type: String,
    /// Which one.
    pub object: String,
    /// `CreateUser`, ...
    pub action: String,
    /// With which values, and how it ended.
    pub description: String,
}

/// Rows up to here are gone.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct Checkpoint {
    n: u64,
    hash: String,
}

/// Which rows are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Not older, seconds since 1970.
    pub since: Option<u64>,
    /// Part of the user's name.
    pub user: Option<String>,
    /// The action.
    pub action: Option<String>,
    /// Part of the object's name.
    pub object: Option<String>,
    /// Older than this row.
    pub before: Option<u64>,
    /// Later than this row.
    pub after: Option<u64>,
    /// The newest so many.
    pub limit: usize,
}

impl Wanted {
    /// Whether rows may be missing in between.
    pub fn filters(&self) -> bool {
        self.user.is_some() || self.action.is_some() || self.object.is_some()
    }

    fn fits(&self, row: &Row) -> bool {
        let within = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| text.contains(part.as_str()));
        self.since.is_none_or(|since| row.time >= since)
            && within(&self.user, &row.user)
            && within(&self.object, &row.object)
            && self.action.as_ref().is_none_or(|action| row.action.eq_ignore_ascii_case(action))
    }
}

/// The end of the chain, and what was removed at its beginning.
#[derive(Default)]
pub struct Audit {
    last: Cell<u64>,
    hash: RefCell<String>,
    removed: RefCell<Checkpoint>,
    /// Refused logins of this hour: its begin, rows, and those without a row.
    failed: Cell<(u64, u64, u64)>,
}

fn key(n: u64) -> String {
    format!("{n:020}")
}

fn all() -> Range<String> {
    key(0)..":".into()
}

impl Audit {
    /// Reads where the chain ends.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(&self, store: &Store) -> Result<(), String> {
        let (mut last, mut removed) = (String::new(), None);
        store.each(Table::Audit, |key, text| {
            if key == CHECKPOINT {
                removed = json::from_str(text).ok();
                return removed.is_some();
            }
            last.clear();
            last.push_str(text);
            true
        })?;
        let removed: Checkpoint = removed.unwrap_or_default();
        let row = match last.is_empty() {
            true => Row { n: removed.n, hash: removed.hash.clone(), ..Default::default() },
            false => json::from_str(&last).map_err(|_| store.damaged("the last row of the audit log does not parse"))?,
        };
        self.last.set(row.n);
        *self.hash.borrow_mut() = if row.n == 0 { BEGINNING.into() } else { row.hash };
        *self.removed.borrow_mut() = removed;
        Ok(())
    }

    /// Appends a row; it is on the disk when the store is durable.
    pub fn note(&self, site: &Site, entry: Entry) {
        let text = |text: &str, max: usize| clean(text, max);
        let mut row = Row {
            n: self.last.get() + 1,
            time: clock::unix(),
            user: text(&entry.user, NAME_MAX),
            ip: text(&entry.ip, NAME_MAX),
            object_type: text(&entry.object_type, NAME_MAX),
            object: text(&entry.object, NAME_MAX),
            action: text(&entry.action, NAME_MAX),
            description: text(&entry.description, DETAIL_MAX),
            previous: self.hash.borrow().clone(),
            hash: String::new(),
        };
        row.hash = row.computed();
        self.last.set(row.n);
        *self.hash.borrow_mut() = row.hash.clone();
        site.store.queue(vec![Change { table: Table::Audit, key: key(row.n), value: Some(json::to_string(&row)) }]);
    }

    /// Appends a refused login, unless there are too many; those are counted and told in one row.
    pub fn note_failed_login(&self, site: &Site, entry: Entry) {
        let hour = clock::unix() / 3_600;
        let (mut of, mut rows, mut more) = self.failed.get();
        if of != hour {
            if more > 0 {
                let description = format!("{more} more refused logins in the hour before");
                self.note(site, Entry { action: "LoginFailed".into(), object_type: "User".into(), description, ..Default::default() });
            }
            (of, rows, more) = (hour, 0, 0);
        }
        if rows < FAILED_PER_HOUR {
            rows += 1;
            self.note(site, entry);
        } else {
            more += 1;
        }
        self.failed.set((of, rows, more));
    }

    /// Where the chain stands.
    pub fn head(&self) -> Head {
        let removed = self.removed.borrow();
        Head {
            format: FORMAT.into(),
            time: clock::unix(),
            last: self.last.get(),
            head: self.hash.borrow().clone(),
            removed: removed.n,
            removed_hash: removed.hash.clone(),
            filtered: false,
        }
    }

    /// Rows that are wanted, oldest first: the newest ones, if there are more than the limit.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn rows(&self, site: &Rc<Site>, wanted: &Wanted) -> Result<Vec<Row>, Reason> {
        site.store.durable().await.map_err(store_error)?;
        let (mut out, mut end) = (Vec::new(), wanted.before.map_or(all().end, key));
        let start = key(wanted.after.map_or(0, |after| after.saturating_add(1)));
        'pieces: loop {
            let slice = Slice { rows: PIECE, bytes: 4 << 20, newest: true };
            let piece = site.store.range(Table::Audit, start.clone()..end.clone(), slice).await.map_err(store_error)?;
            let Some((first, _)) = piece.first() else { break };
            end = first.clone();
            for (_, text) in piece.iter().rev() {
                let Ok(row) = json::from_str::<Row>(text) else { continue };
                if out.len() >= wanted.limit || wanted.since.is_some_and(|since| row.time < since) {
                    break 'pieces;
                }
                if wanted.fits(&row) {
                    out.push(row);
                }
            }
        }
        out.reverse();
        Ok(out)
    }

    /// Follows the whole chain: how many rows it has.
    ///
    /// # Errors
    /// `audit_broken`: the first row that does not fit; `store_unavailable`.
    pub async fn verify(&self, site: &Rc<Site>, kept: Option<&str>) -> Result<u64, Reason> {
        site.store.durable().await.map_err(store_error)?;
        let head = self.head();
        let mut chain = Chain::after(head.removed, &head.removed_hash, kept, false);
        let (mut start, mut rows) = (key(0), 0);
        loop {
            let slice = Slice { rows: PIECE, bytes: 4 << 20, newest: false };
            let piece = site.store.range(Table::Audit, start.clone()..all().end, slice).await.map_err(store_error)?;
            let Some((last, _)) = piece.last() else { break };
            start = format!("{last}!");
            for (key, text) in &piece {
                let unread = || Reason::new("audit_broken", format!("the audit log is broken at row {key}: it does not parse"));
                let row: Row = json::from_str(text).map_err(|_| unread())?;
                chain.take(&row)?;
                rows += 1;
            }
        }
        chain.end()?;
        if chain.n < head.last {
            let why = format!("the audit log is broken at row {}: the rows after it are missing", chain.n);
            return Err(Reason::new("audit_broken", why));
        }
        Ok(rows)
    }

    /// Removes rows that are too old or too many; the chain says so itself.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn prune(&self, site: &Rc<Site>, now: u64) -> Result<(), Reason> {
        let oldest = now.saturating_sub(KEPT_DAYS * 86_400);
        // What this removal says of itself stays, whatever the clock did meanwhile.
        let end = self.last.get();
        loop {
            let slice = Slice { rows: PIECE, bytes: 4 << 20, newest: false };
            let piece = site.store.range(Table::Audit, all(), slice).await.map_err(store_error)?;
            let too_many = self.last.get().saturating_sub(self.removed.borrow().n).saturating_sub(ROWS_MAX);
            let most = self.removed.borrow().n + too_many;
            let rows = piece.iter().filter_map(|(key, text)| Some((key, json::from_str::<Row>(text).ok()?)));
            let gone: Vec<(&String, Row)> = rows.take_while(|(_, row)| row.n <= end && (row.time < oldest || row.n <= most)).collect();
            let Some((_, last)) = gone.last() else { return Ok(()) };
            let removed = Checkpoint { n: last.n, hash: last.hash.clone() };
            let description = format!("rows up to {}, of {}, were removed by age or number", last.n, utc(last.time));
            let mut changes: Vec<Change> =
                gone.iter().map(|(key, _)| Change { table: Table::Audit, key: (*key).clone(), value: None }).collect();
            changes.push(Change { table: Table::Audit, key: CHECKPOINT.into(), value: Some(json::to_string(&removed)) });
            let object = Row::removal(removed.n, &removed.hash);
            *self.removed.borrow_mut() = removed;
            site.store.queue(changes);
            let (action, object_type, user) = (PRUNED.into(), "Audit".into(), "vmetric-fleet".into());
            self.note(site, Entry { user, object_type, object, action, description, ..Default::default() });
            site.store.durable().await.map_err(store_error)?;
        }
    }
}
