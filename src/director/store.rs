//! The Director's durable state: one redb file, JSON values, group commit.
//!
//! A change goes to one pending batch at once; a committer task writes the batch in one transaction a few milliseconds
//! later ([`GATHER`]), so that a thousand reports cost one fsync. An answer that promises durability waits for
//! [`Store::durable`]. A failed commit (disk full) keeps its batch and tries again; those who wait are told.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `issuer` | random id of this store: who orders |
//! | `agents` | agent id | [`super::records::Agent`] |
//! | `tokens` | SHA-256 of the token | [`super::records::Token`] |
//! | `orders` | `<roll-out, 10 digits>/<agent id>` | [`super::records::Order`] |
//! | `rollouts` | 10 digits | [`super::records::Rollout`] |
//! | `quarantine` | `<sha256>/<agent id, nothing, or #roll-out>` | [`super::records::Quarantine`] |
//! | `approvals` | a device's public key | [`super::records::Pending`] |
//! | `policies` | [`super::policing::rows::Scope`] | [`super::policing::rows::PolicyRow`] |
//! | `policy_changes` | revision, 20 digits | [`super::policing::history::ChangeRow`] |
//! | `clusters` | cluster's id | Fleet: [`super::policing::clusters::ClusterRow`] |
//! | `cluster_leases` | cluster's id | Fleet: [`super::policing::leases::BookRow`] |
//! | `templates` | template's id | Fleet: [`super::policing::templates::TemplateRow`] |
//! | `webhooks`, `notices` | id; `cursor`, `notice/...` | Fleet: where notices go, and those that wait |
//! | `grants` | agent id | [`super::policing::rows::GrantRow`] |
//! | `confirmations` | id | [`super::policing::confirmations::ConfirmationRow`], at Fleet and at a Director |
//! | `confirmed` | agent id | [`super::policing::confirmed::ConfirmedRow`] |
//! | `activity` | sequence, 20 digits | [`super::records::Event`] |
//! | `uplink` | `cursor`, `settings` | a Director's [`super::uplink`] to Fleet |
//! | `intake` | Director's id | Fleet: how far it is with each Director, and its health |
//! | `inventory` | `<Director>/<agent>` | Fleet: the Directors' agents |
//! | `users` | name | Fleet: who may log in |
//! | `sessions` | SHA-256 of the cookie | Fleet: who has |
//! | `audit` | number, 20 digits | Fleet: what people did, each row with the hash of the one before |
//! | `relayed` | `<Director>/<position, 20 digits>` | Fleet: the Directors' activity |
//! | `history` | seconds since 1970, 12 digits | Fleet: how the fleet was |

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use miniserde::{Deserialize, json};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableHandle};

use super::bell::Bells;

mod table;

pub use table::Table;

/// How long a change waits for others before the commit: far below what a person or an agent notices.
pub const GATHER: Duration = Duration::from_millis(3);
/// Pause after a failed commit.
pub const RETRY: Duration = Duration::from_secs(1);

/// Most memory for pages of the file, bytes: the registry has all rows itself, and only a change and the activity's readers
/// go to the file. The library's own limit is a gigabyte.
pub const CACHE: usize = 16 << 20;

/// What the error of a change begins with that another server's change undid.
pub const UNDONE: &str = "revision_conflict: ";
/// What the error of a change begins with that was made in part: it was more than one commit.
pub const PARTLY: &str = "partly_changed: ";

/// One change: a value, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Which.
    pub key: String,
    /// JSON, or `None` to remove the key.
    pub value: Option<String>,
}

/// How much of a range is read.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Rows at most.
    pub rows: usize,
    /// Bytes of text at most.
    pub bytes: usize,
    /// The last ones instead of the first.
    pub newest: bool,
}

/// Keeps some tables for several servers; this file has a copy of what it kept.
pub trait Elsewhere {
    /// Whether a table is its own.
    fn keeps(&self, table: Table) -> bool;

    /// Takes changes of such tables. What it cannot keep it undoes, in memory, too.
    fn queue(&self, changes: Vec<Change>);

    /// Waits for all that was queued before this call; `Err` = some of it was undone.
    fn durable(&self) -> Pin<Box<dyn Future<Output = Result<(), String>> + '_>>;
}

type Batch = BTreeMap<(Table, String), Option<String>>;

/// Queues what belongs to the next change ([`super::together`]).
pub type Rider = Box<dyn FnOnce()>;

/// The store. One per state folder; the file is locked while it is open.
pub struct Store {
    path: PathBuf,
    /// None after a failed write: redb refuses to go on with a file whose writes failed until it is opened anew.
    database: RefCell<Option<Arc<Database>>>,
    pending: RefCell<Batch>,
    queued: Cell<u64>,
    committed: Cell<u64>,
    failure: RefCell<Option<String>>,
    work: Bells,
    done: Bells,
    rider: RefCell<Option<Rider>>,
    elsewhere: RefCell<Option<Rc<dyn Elsewhere>>>,
}

impl Store {
    /// Opens or creates the file. The error names the file and what to do.
    pub fn open(path: &Path) -> Result<Store, String> {
        let (mut database, recovered) = open_file(path).map_err(|e| explain(path, &e))?;
        // Every page is read once, so that bit rot is told at the start and not met in the middle of an order. The recovery
        // after a crash has done that already, and an agent on trial waits for this start.
        if !recovered {
            match database.check_integrity() {
                Ok(true) => {}
                Ok(false) => log::warn!("{} was repaired: the last commit before a crash may be gone", path.display()),
                Err(e) => return Err(explain(path, &e)),
            }
        }
        let prepare = || -> Result<(), redb::Error> {
            // A write costs a sync of the disk, and agents may be waiting for this start.
            if Self::is_complete(&database)? {
                return Ok(());
            }
            let transaction = database.begin_write()?;
            for table in Table::ALL {
                transaction.open_table(table.definition())?;
            }
            Ok(transaction.commit()?)
        };
        prepare().map_err(|e| damaged(path, &e.to_string()))?;
        Ok(Store {
            path: path.to_path_buf(),
            database: RefCell::new(Some(Arc::new(database))),
            pending: RefCell::default(),
            queued: Cell::new(0),
            committed: Cell::new(0),
            failure: RefCell::default(),
            work: Bells::default(),
            done: Bells::default(),
            rider: RefCell::default(),
            elsewhere: RefCell::default(),
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether all tables are there: this version's, or a later one's, has opened the file before.
    fn is_complete(database: &Database) -> Result<bool, redb::Error> {
        let there: Vec<String> = database.begin_read()?.list_tables()?.map(|table| table.name().to_string()).collect();
        Ok(Table::ALL.iter().all(|table| there.iter().any(|name| name == table.definition().name())))
    }

    /// Every row of a table, in the order of keys. For the start only.
    pub fn load<T: Deserialize>(&self, table: Table) -> Result<Vec<(String, T)>, String> {
        let mut out = Vec::new();
        self.each(table, |key, text| match json::from_str(text) {
            Ok(value) => {
                out.push((key.to_string(), value));
                true
            }
            Err(_) => false,
        })?;
        Ok(out)
    }

    /// Shows every row's key and text, in the order of keys, without keeping them all; `false` = it is not what it must be.
    /// For the start only.
    pub fn each(&self, table: Table, mut take: impl FnMut(&str, &str) -> bool) -> Result<(), String> {
        let path = &self.path;
        let database = self.database.borrow().clone().ok_or_else(|| format!("{} is not open", path.display()))?;
        let mut read = || -> Result<Option<String>, redb::Error> {
            let transaction = database.begin_read()?;
            let rows = transaction.open_table(table.definition())?;
            for row in rows.iter()? {
                let (key, value) = row?;
                let (key, text) = (String::from_utf8_lossy(key.value()), String::from_utf8_lossy(value.value()));
                if !take(&key, &text) {
                    return Ok(Some(key.into_owned()));
                }
            }
            Ok(None)
        };
        match read().map_err(|e| damaged(path, &e.to_string()))? {
            Some(key) => Err(damaged(path, &format!("the row '{key}' of {table:?} does not parse"))),
            None => Ok(()),
        }
    }

    /// What is told of this file when its content is not what it must be.
    pub fn damaged(&self, what: &str) -> String {
        damaged(&self.path, what)
    }

    /// The newest rows of a table that `keep` accepts, at most `limit`, oldest first; read without blocking the thread.
    pub async fn newest<T, F>(&self, table: Table, limit: usize, keep: F) -> Result<Vec<T>, String>
    where
        T: Deserialize + Send + 'static,
        F: Fn(&T) -> bool + Send + 'static,
    {
        let database = self.database().await?;
        let read = move || -> Result<Vec<T>, redb::Error> {
            let transaction = database.begin_read()?;
            let rows = transaction.open_table(table.definition())?;
            let mut out = Vec::new();
            for row in rows.iter()?.rev() {
                if out.len() == limit {
                    break;
                }
                let row = row?;
                let parsed: Option<T> = std::str::from_utf8(row.1.value()).ok().and_then(|text| json::from_str(text).ok());
                out.extend(parsed.filter(&keep));
            }
            out.reverse();
            Ok(out)
        };
        smol::unblock(read).await.map_err(|e| format!("reading {table:?}: {e}"))
    }

    /// Rows of a table from one key up to another, which is left out: the first `rows` of them, or the last (`newest`), and no
    /// more than `bytes` of text, but one row always. Oldest first; read without blocking the thread.
    pub async fn range(&self, table: Table, keys: Range<String>, take: Slice) -> Result<Vec<(String, String)>, String> {
        let database = self.database().await?;
        let read = move || -> Result<Vec<(String, String)>, redb::Error> {
            let transaction = database.begin_read()?;
            let opened = transaction.open_table(table.definition())?;
            if keys.start >= keys.end {
                return Ok(Vec::new());
            }
            let mut found = opened.range(keys.start.as_bytes()..keys.end.as_bytes())?;
            let (mut out, mut bytes) = (Vec::new(), 0);
            while let Some(row) = if take.newest { found.next_back() } else { found.next() } {
                let (key, value) = row?;
                let (key, text) = (String::from_utf8_lossy(key.value()), String::from_utf8_lossy(value.value()));
                bytes += text.len();
                if out.len() == take.rows || (bytes > take.bytes && !out.is_empty()) {
                    break;
                }
                out.push((key.into_owned(), text.into_owned()));
            }
            if take.newest {
                out.reverse();
            }
            Ok(out)
        };
        smol::unblock(read).await.map_err(|e| format!("reading {table:?}: {e}"))
    }

    /// Adds changes to the pending batch.
    pub fn queue(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        // The batch is taken whole, and never within one poll: what the rider queues now is in the same transaction.
        let rider = self.rider.take();
        if let Some(rider) = rider {
            rider();
        }
        let elsewhere = self.elsewhere.borrow().clone();
        let Some(elsewhere) = elsewhere else { return self.queue_here(changes) };
        let (shared, own): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| elsewhere.keeps(change.table));
        self.queue_here(own);
        if !shared.is_empty() {
            elsewhere.queue(shared);
        }
    }

    /// Some tables are kept elsewhere from now on.
    pub fn keep_elsewhere(&self, elsewhere: Rc<dyn Elsewhere>) {
        *self.elsewhere.borrow_mut() = Some(elsewhere);
    }

    /// Adds changes to this file's pending batch, whoever keeps their tables: a copy of what is kept elsewhere.
    pub fn queue_here(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut pending = self.pending.borrow_mut();
        for change in changes {
            pending.insert((change.table, change.key), change.value);
        }
        self.queued.set(self.queued.get() + 1);
        self.work.ring();
    }

    /// What the next change has to take along; the one before.
    pub(super) fn swap_rider(&self, rider: Option<Rider>) -> Option<Rider> {
        self.rider.replace(rider)
    }

    /// Waits until everything queued so far is kept: on the disk, and elsewhere what belongs there.
    ///
    /// # Errors
    /// The disk's, or why a change of what is kept elsewhere was undone; [`UNDONE`] and [`PARTLY`] tell them apart.
    pub async fn durable(&self) -> Result<(), String> {
        let elsewhere = self.elsewhere.borrow().clone();
        let kept = elsewhere.as_ref().map(|elsewhere| elsewhere.durable());
        self.written().await?;
        match kept {
            Some(kept) => kept.await,
            None => Ok(()),
        }
    }

    /// Waits until everything queued so far is in this file.
    ///
    /// # Errors
    /// The disk's.
    pub async fn written(&self) -> Result<(), String> {
        let goal = self.queued.get();
        while self.committed.get() < goal {
            self.done.wait().await;
            if self.committed.get() < goal
                && let Some(failure) = self.failure.borrow().clone()
            {
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Whether nothing waits for a commit.
    pub fn is_committed(&self) -> bool {
        self.committed.get() == self.queued.get()
    }

    /// The committer task; never returns.
    pub async fn commit_forever(self: Rc<Self>) {
        loop {
            while self.is_committed() {
                self.work.wait().await;
            }
            smol::Timer::after(GATHER).await;
            if let Err(e) = self.commit().await {
                log::error!("the state could not be written, trying again: {e}");
                self.done.ring();
                smol::Timer::after(RETRY).await;
            }
        }
    }

    /// The open file; opened again after a failed write.
    async fn database(&self) -> Result<Arc<Database>, String> {
        if let Some(database) = self.database.borrow().clone() {
            return Ok(database);
        }
        let path = self.path.clone();
        let opened = smol::unblock(move || open_file(&path).map_err(|e| explain(&path, &e))).await?.0;
        let opened = Arc::new(opened);
        *self.database.borrow_mut() = Some(opened.clone());
        Ok(opened)
    }

    /// Closes the file, so that the next start need not recover it. Nothing is queued any more.
    pub fn close(&self) {
        drop(self.database.take());
    }

    /// Writes what is pending in one transaction.
    pub async fn commit(&self) -> Result<(), String> {
        let goal = self.queued.get();
        let batch = Arc::new(self.pending.take());
        let rows = batch.clone();
        let written = match self.database().await {
            Ok(database) => smol::unblock(move || write(&database, &rows).map_err(|e| e.to_string())).await,
            Err(e) => Err(e),
        };
        if let Err(text) = written {
            *self.database.borrow_mut() = None;
            // Newer changes of the same rows win over those that were not written.
            let newer = self.pending.take();
            let mut merged = Arc::unwrap_or_clone(batch);
            merged.extend(newer);
            *self.pending.borrow_mut() = merged;
            *self.failure.borrow_mut() = Some(text.clone());
            return Err(text);
        }
        *self.failure.borrow_mut() = None;
        self.committed.set(goal);
        self.done.ring();
        Ok(())
    }
}

/// Opens or creates the file. True: it was not closed, and all of it was verified and recovered.
fn open_file(path: &Path) -> Result<(Database, bool), DatabaseError> {
    let recovered = Rc::new(Cell::new(false));
    let seen = recovered.clone();
    let database = Database::builder().set_cache_size(CACHE).set_repair_callback(move |_| seen.set(true)).create(path)?;
    Ok((database, recovered.get()))
}

fn write(database: &Database, rows: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    // The batch is in the order of tables: each is opened once, which costs as much as a row.
    let mut rest = rows.iter().peekable();
    while let Some(((first, _), _)) = rest.peek() {
        let first = *first;
        let mut table = transaction.open_table(first.definition())?;
        while let Some(((_, key), value)) = rest.next_if(|((table, _), _)| *table == first) {
            match value {
                Some(value) => drop(table.insert(key.as_bytes(), value.as_bytes())?),
                None => drop(table.remove(key.as_bytes())?),
            }
        }
    }
    Ok(transaction.commit()?)
}

fn explain(path: &Path, error: &DatabaseError) -> String {
    let file = path.display();
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            format!("{file} is in use: another process runs with this state folder; stop it first")
        }
        DatabaseError::Storage(redb::StorageError::Io(e)) if e.kind() != std::io::ErrorKind::InvalidData => {
            format!("{file} cannot be opened: {e}; check the folder's owner, rights and free space")
        }
        DatabaseError::UpgradeRequired(_) => format!("{file} was written by an older format ({error}); restore the release that wrote it"),
        other => damaged(path, &other.to_string()),
    }
}

/// What is told of a file that cannot be read.
pub fn damaged(path: &Path, what: &str) -> String {
    format!(
        "{} is damaged ({what}); restore it from the newest backup, or move it away: the site CA stays, agents keep their \
         credentials, but each has to be enrolled again to be known",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_closed_needs_no_recovery_and_one_that_was_not_is_verified() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
        let store = Store::open(&path).unwrap();
        store.queue(vec![Change { table: Table::Meta, key: "k".into(), value: Some("{}".into()) }]);
        smol::block_on(store.commit()).unwrap();
        // What a power cut leaves.
        std::fs::copy(&path, &copy).unwrap();
        store.close();
        assert!(!open_file(&path).unwrap().1);
        assert!(open_file(&copy).unwrap().1, "recovered, which verifies every page");
        let mut rows = 0;
        Store::open(&copy)
            .unwrap()
            .each(Table::Meta, |key, text| {
                (key, text) == ("k", "{}") && {
                    rows += 1;
                    true
                }
            })
            .unwrap();
        assert_eq!(rows, 1);
    }
}
