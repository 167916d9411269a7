//! What is in the file, and each change of it as one transaction. Blocking; every function is given the open file.
//!
//! All text is checked when it is read: a file may be anything.

use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::super::{Batch, Commit, Event, LeaseId, Outcome, Revision, Row, Span, Step};
use super::{HISTORY_BYTES, HISTORY_REVISIONS};

type Bytes = &'static [u8];
const ROWS: TableDefinition<Bytes, Bytes> = TableDefinition::new("rows");
const HISTORY: TableDefinition<(u64, u32), Bytes> = TableDefinition::new("history");
const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
const LEASED: TableDefinition<(u64, Bytes), ()> = TableDefinition::new("leased");
const NUMBERS: TableDefinition<Bytes, u64> = TableDefinition::new("numbers");

const FORMAT: &[u8] = b"format";
const REVISION: &[u8] = b"revision";
const COMPACTED: &[u8] = b"compacted";
const WEIGHT: &[u8] = b"history_bytes";
const LEASE: &[u8] = b"lease";
/// What this version writes.
const FORMAT_NOW: u64 = 1;
/// Events that a watch is given at once: whole commits, until there are this many.
const EVENTS_MAX: usize = 1_000;

/// What a transaction made.
pub struct Applied<T> {
    /// For the caller.
    pub answer: T,
    /// The revision it made, if it made one.
    pub revision: Option<Revision>,
}

/// A value with what is kept of it: created, modified, lease (0 = none), each eight bytes, then the value.
pub struct Cell<'a> {
    created: Revision,
    modified: Revision,
    lease: u64,
    value: &'a [u8],
}

impl<'a> Cell<'a> {
    fn read(bytes: &'a [u8]) -> Result<Cell<'a>, redb::Error> {
        let number = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        let cell = || Some(Cell { created: number(0)?, modified: number(8)?, lease: number(16)?, value: bytes.get(24..)? });
        cell().ok_or_else(|| broken("a row is too short"))
    }

    fn bytes(&self) -> Vec<u8> {
        let numbers = [self.created, self.modified, self.lease].map(u64::to_be_bytes);
        [&numbers.concat(), self.value].concat()
    }

    fn row(&self, key: &[u8]) -> Result<Row, redb::Error> {
        let key = String::from_utf8(key.to_vec()).map_err(|_| broken("a key is no text"))?;
        let lease = Some(LeaseId(self.lease)).filter(|lease| lease.0 > 0);
        Ok(Row { key, value: self.value.to_vec(), created: self.created, modified: self.modified, lease })
    }
}

fn broken(what: &str) -> redb::Error {
    redb::Error::Corrupted(what.into())
}

/// Makes what is missing, and reads what has to be known at the start: the newest revision, and the leases.
pub fn begin(database: &Database) -> Result<(Revision, Vec<(LeaseId, Duration)>), redb::Error> {
    let transaction = database.begin_write()?;
    let newest;
    let mut leases = Vec::new();
    {
        transaction.open_table(ROWS)?;
        transaction.open_table(HISTORY)?;
        transaction.open_table(LEASED)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        let format = numbers.get(FORMAT)?.map(|n| n.value());
        match format {
            None => drop(numbers.insert(FORMAT, FORMAT_NOW)?),
            Some(FORMAT_NOW) => {}
            Some(other) => return Err(broken(&format!("format {other}; this version reads {FORMAT_NOW}"))),
        }
        newest = numbers.get(REVISION)?.map_or(0, |n| n.value());
        for lease in transaction.open_table(LEASES)?.iter()? {
            let (id, seconds) = lease?;
            leases.push((LeaseId(id.value()), Duration::from_secs(seconds.value())));
        }
    }
    transaction.commit()?;
    Ok((newest, leases))
}

fn number(transaction: &ReadTransaction, name: &[u8]) -> Result<u64, redb::Error> {
    Ok(transaction.open_table(NUMBERS)?.get(name)?.map_or(0, |n| n.value()))
}

/// The newest revision.
pub fn newest(database: &Database) -> Result<Revision, redb::Error> {
    number(&database.begin_read()?, REVISION)
}

/// One row.
pub fn get(database: &Database, key: &str) -> Result<Option<Row>, redb::Error> {
    let rows = database.begin_read()?.open_table(ROWS)?;
    rows.get(key.as_bytes())?.map(|cell| Cell::read(cell.value())?.row(key.as_bytes())).transpose()
}

/// Rows of a span from a key on, of the state that the transaction sees; and whether there are more.
pub fn page(transaction: &ReadTransaction, span: &Span, most: usize, bytes: usize) -> Result<(Vec<Row>, bool), redb::Error> {
    if span.from >= span.to {
        return Ok((Vec::new(), false));
    }
    let table = transaction.open_table(ROWS)?;
    let (mut out, mut weight) = (Vec::new(), 0);
    for row in table.range(span.from.as_slice()..span.to.as_slice())? {
        let (key, cell) = row?;
        if out.len() == most || (weight > bytes && !out.is_empty()) {
            return Ok((out, true));
        }
        let row = Cell::read(cell.value())?.row(key.value())?;
        weight += row.key.len() + row.value.len();
        out.push(row);
    }
    Ok((out, false))
}

/// The newest revision that a transaction sees.
pub fn seen(transaction: &ReadTransaction) -> Result<Revision, redb::Error> {
    number(transaction, REVISION)
}

/// What happened in a span after a revision; `None` = that is no longer kept.
pub fn since(database: &Database, span: &Span, after: Revision) -> Result<Option<Batch>, redb::Error> {
    let transaction = database.begin_read()?;
    let newest = number(&transaction, REVISION)?;
    if after < number(&transaction, COMPACTED)? {
        return Ok(None);
    }
    let mut batch = Batch { revision: newest.max(after), events: Vec::new() };
    for entry in transaction.open_table(HISTORY)?.range((after + 1, 0)..)? {
        let (place, bytes) = entry?;
        let (revision, _) = place.value();
        if batch.events.len() >= EVENTS_MAX && batch.events.last().is_some_and(|last| last.modified() < revision) {
            batch.revision = revision - 1;
            break;
        }
        let event = read_event(revision, bytes.value())?;
        if span.holds(event.key()) {
            batch.events.push(event);
        }
    }
    Ok(Some(batch))
}

/// A removal: the key. A value: a byte 1, the key's length (2 bytes), the key, the cell.
fn read_event(revision: Revision, bytes: &[u8]) -> Result<Event, redb::Error> {
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).map_err(|_| broken("a key is no text"));
    match bytes.split_first() {
        Some((0, key)) => Ok(Event::Deleted { key: text(key)?, modified: revision }),
        Some((1, rest)) => {
            let (length, rest) = rest.split_at_checked(2).ok_or_else(|| broken("an event is too short"))?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let (key, cell) = rest.split_at_checked(length).ok_or_else(|| broken("an event is too short"))?;
            Ok(Event::Put(Cell::read(cell)?.row(key)?))
        }
        _ => Err(broken("an event of an unknown kind")),
    }
}

fn event_bytes(key: &str, cell: Option<&[u8]>) -> Vec<u8> {
    match cell {
        None => [&[0], key.as_bytes()].concat(),
        Some(cell) => {
            let length = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
            [&[1], &length[..], key.as_bytes(), cell].concat()
        }
    }
}

/// A commit: judged and made in one transaction.
pub fn apply(database: &Database, commit: &Commit) -> Result<Applied<Outcome>, redb::Error> {
    let transaction = database.begin_write()?;
    let revision;
    {
        let rows = transaction.open_table(ROWS)?;
        for condition in &commit.conditions {
            let cell = rows.get(condition.key.as_bytes())?;
            let modified = cell.map(|cell| Cell::read(cell.value()).map(|cell| cell.modified)).transpose()?.unwrap_or(0);
            if modified != condition.modified {
                return Ok(Applied { answer: Outcome::Conflict { key: condition.key.clone(), modified }, revision: None });
            }
        }
        drop(rows);
        revision = make(&transaction, &commit.steps)?;
    }
    transaction.commit()?;
    Ok(Applied { answer: Outcome::Done(revision), revision: Some(revision) })
}

/// Makes changes as the next revision, and tells the history of them.
fn make(transaction: &WriteTransaction, steps: &[Step]) -> Result<Revision, redb::Error> {
    let mut numbers = transaction.open_table(NUMBERS)?;
    let mut rows = transaction.open_table(ROWS)?;
    let mut leased = transaction.open_table(LEASED)?;
    let mut history = transaction.open_table(HISTORY)?;
    let read = |numbers: &redb::Table<'_, Bytes, u64>, name: &[u8]| -> Result<u64, redb::Error> {
        Ok(numbers.get(name)?.map_or(0, |n| n.value()))
    };
    let revision = read(&numbers, REVISION)? + 1;
    let mut weight = read(&numbers, WEIGHT)?;
    let mut count = 0;
    for step in steps {
        let key = step.key();
        let before = rows.get(key.as_bytes())?.map(|cell| Cell::read(cell.value()).map(|c| (c.created, c.lease))).transpose()?;
        if let Some((_, lease)) = before.filter(|(_, lease)| *lease > 0) {
            leased.remove((lease, key.as_bytes()))?;
        }
        let event = match step {
            // There was nothing to remove, so there is nothing to tell.
            Step::Delete { .. } if before.is_none() => continue,
            Step::Delete { .. } => {
                rows.remove(key.as_bytes())?;
                event_bytes(key, None)
            }
            Step::Put { value, lease, .. } => {
                let lease = lease.map_or(0, |lease| lease.0);
                if lease > 0 {
                    leased.insert((lease, key.as_bytes()), ())?;
                }
                let created = before.map_or(revision, |(created, _)| created);
                let cell = Cell { created, modified: revision, lease, value }.bytes();
                rows.insert(key.as_bytes(), cell.as_slice())?;
                event_bytes(key, Some(&cell))
            }
        };
        history.insert((revision, count), event.as_slice())?;
        weight += event.len() as u64;
        count += 1;
    }
    numbers.insert(REVISION, revision)?;
    trim(&mut history, &mut numbers, revision.saturating_sub(HISTORY_REVISIONS), weight)?;
    Ok(revision)
}

/// Forgets what happened up to a revision, and more while it is too much. The newest commit is always kept.
fn trim(
    history: &mut redb::Table<'_, (u64, u32), Bytes>,
    numbers: &mut redb::Table<'_, Bytes, u64>,
    upto: Revision,
    mut weight: u64,
) -> Result<(), redb::Error> {
    let newest = numbers.get(REVISION)?.map_or(0, |n| n.value());
    let mut compacted = numbers.get(COMPACTED)?.map_or(0, |n| n.value()).max(upto);
    loop {
        let first = history.first()?.map(|(place, bytes)| (place.value(), bytes.value().len() as u64));
        let Some((place, bytes)) = first else { break };
        if place.0 > upto && (weight <= HISTORY_BYTES || place.0 == newest) {
            break;
        }
        history.remove(place)?;
        weight = weight.saturating_sub(bytes);
        compacted = compacted.max(place.0);
    }
    numbers.insert(WEIGHT, weight)?;
    numbers.insert(COMPACTED, compacted)?;
    Ok(())
}

/// A new lease.
pub fn grant(database: &Database, time: Duration) -> Result<Applied<LeaseId>, redb::Error> {
    let transaction = database.begin_write()?;
    let id;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        id = numbers.get(LEASE)?.map_or(0, |n| n.value()) + 1;
        numbers.insert(LEASE, id)?;
        transaction.open_table(LEASES)?.insert(id, time.as_secs())?;
    }
    transaction.commit()?;
    Ok(Applied { answer: LeaseId(id), revision: None })
}

/// Removes a lease and its keys, as one commit if it had any.
pub fn end_lease(database: &Database, id: LeaseId) -> Result<Applied<()>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut steps = Vec::new();
    {
        for entry in transaction.open_table(LEASED)?.range((id.0, &[][..])..(id.0 + 1, &[][..]))? {
            let key = String::from_utf8(entry?.0.value().1.to_vec()).map_err(|_| broken("a key is no text"))?;
            steps.push(Step::Delete { key });
        }
        transaction.open_table(LEASES)?.remove(id.0)?;
    }
    let revision = match steps.is_empty() {
        true => None,
        false => Some(make(&transaction, &steps)?),
    };
    transaction.commit()?;
    Ok(Applied { answer: (), revision })
}

/// Forgets what happened up to a revision.
pub fn compact(database: &Database, upto: Revision) -> Result<Applied<()>, redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut numbers = transaction.open_table(NUMBERS)?;
        let mut history = transaction.open_table(HISTORY)?;
        let newest = numbers.get(REVISION)?.map_or(0, |n| n.value());
        let weight = numbers.get(WEIGHT)?.map_or(0, |n| n.value());
        trim(&mut history, &mut numbers, upto.min(newest), weight)?;
    }
    transaction.commit()?;
    Ok(Applied { answer: (), revision: None })
}
