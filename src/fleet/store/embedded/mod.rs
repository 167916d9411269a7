//! The store of one Fleet: a redb file, every commit durable before it is answered.
//!
//! | table | key | value |
//! |---|---|---|
//! | `rows` | key | created, modified, lease, value |
//! | `history` | revision, number within it | an event, for watches; the newest [`HISTORY_REVISIONS`] commits and [`HISTORY_BYTES`] |
//! | `leases` | lease | its time in seconds |
//! | `leased` | lease, key | nothing |
//! | `numbers` | `format`, `revision`, `compacted`, `history_bytes`, `lease` | a number |
//!
//! The file is locked while it is open: a second Fleet is refused. Reads and writes run on smol's helper threads, writes one
//! after the other. A write that fails closes the file; opening it again tells whether the commit had been made, because its
//! revision is part of it.

mod file;
mod walk;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redb::{Database, DatabaseError};
use smol::lock::Mutex;

use super::{Commit, Fut, Health, LeaseId, Listing, Member, Outcome, Revision, Row, Span, Step, Store, Watch, key_checked, lease_time};
use crate::core::reason::Reason;
use crate::director::bell::Bells;
use crate::io::clock;
use file::Applied;

/// Commits that watches can still be told of: a watch in the same process is never more than moments behind.
pub const HISTORY_REVISIONS: u64 = 10_000;
/// And bytes of them.
pub const HISTORY_BYTES: u64 = 32 * 1024 * 1024;
/// Most memory for pages of the file, bytes.
const CACHE: usize = 16 << 20;
/// Most leases at a time: one per cluster, and some for Fleets.
const LEASES_MAX: usize = 10_000;

/// A lease as it runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    time: Duration,
    /// On the monotonic clock.
    ends: Duration,
}

/// See the module's text.
pub struct Embedded {
    path: PathBuf,
    /// None after a failed write, until it is opened again.
    database: RefCell<Option<Arc<Database>>>,
    /// Held by the one who writes.
    writing: Mutex<()>,
    /// The newest commit; set by the thread that made it, so that a caller who gave up meanwhile does no harm.
    newest: Arc<AtomicU64>,
    committed: Bells,
    leases: RefCell<BTreeMap<LeaseId, Running>>,
}

impl Embedded {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// `store_in_use`, `store_damaged`, `store_write_failed`.
    pub fn open(path: &Path) -> Result<Rc<Embedded>, Reason> {
        // An empty file would be taken for a new one, and everything forgotten without a word.
        if path.metadata().is_ok_and(|m| m.len() == 0) {
            return Err(damaged(path, "it is empty"));
        }
        let database = Arc::new(open_file(path)?);
        let (newest, leases) = careful(path, || file::begin(&database))?;
        let ends = clock::monotonic();
        let running = |(id, time): (LeaseId, Duration)| (id, Running { time, ends: ends + time });
        Ok(Rc::new(Embedded {
            path: path.to_path_buf(),
            database: RefCell::new(Some(database)),
            writing: Mutex::new(()),
            newest: Arc::new(AtomicU64::new(newest)),
            committed: Bells::default(),
            leases: RefCell::new(leases.into_iter().map(running).collect()),
        }))
    }

    /// The open file; opened again after a failed write.
    async fn database(&self) -> Result<Arc<Database>, Reason> {
        if let Some(database) = self.database.borrow().clone() {
            return Ok(database);
        }
        let path = self.path.clone();
        let opened = smol::unblock(move || open_file(&path)).await.map(Arc::new);
        // Another may have opened it meanwhile; then the lock has refused us.
        if let Some(database) = self.database.borrow().clone() {
            return Ok(database);
        }
        let opened = opened?;
        *self.database.borrow_mut() = Some(opened.clone());
        Ok(opened)
    }

    /// Reads beside the thread.
    async fn read<T: Send + 'static>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static) -> Result<T, Reason> {
        let (database, path) = (self.database().await?, self.path.clone());
        smol::unblock(move || careful(&path, || work(&database))).await
    }

    /// Writes beside the thread. `work` says which revision it made, and that one is looked for when the disk failed.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<Applied<T>, redb::Error> + Send + 'static,
    ) -> Result<T, Reason> {
        let _one = self.writing.lock().await;
        let (database, newest) = (self.database().await?, self.newest.clone());
        let made = smol::unblock(move || {
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&database)));
            let made = made.unwrap_or_else(|_| Err(redb::Error::Corrupted("the library met what must not be".into())));
            if let Ok(Applied { revision: Some(revision), .. }) = &made {
                newest.store(*revision, Ordering::Release);
            }
            made
        });
        match made.await {
            Ok(applied) => {
                self.committed.ring();
                Ok(applied.answer)
            }
            Err(error) => Err(self.failed(&error).await),
        }
    }

    /// After a failed write: the file is opened again, which undoes what was not complete, and read.
    async fn failed(&self, error: &redb::Error) -> Reason {
        drop(self.database.take());
        let before = self.newest.load(Ordering::Acquire);
        let now = match self.database().await {
            Ok(database) => smol::unblock(move || file::newest(&database)).await.ok(),
            Err(_) => None,
        };
        let (path, free) = (self.path.display(), "check the disk's free space and health");
        match now {
            Some(now) if now == before => Reason::new("store_write_failed", format!("{path}: nothing was changed: {error}; {free}")),
            Some(now) => {
                self.newest.store(now, Ordering::Release);
                self.committed.ring();
                unsure(format!("{path}: the change was written, but its end failed: {error}"))
            }
            None => unsure(format!("{path}: the change failed, and the file cannot be read any more: {error}; {free}")),
        }
    }

    /// When the next lease ends.
    fn next_end(&self) -> Option<Duration> {
        self.leases.borrow().values().map(|lease| lease.ends).min()
    }

    /// Ends the leases whose time is over. What the disk refuses is tried again by the next one who comes.
    async fn expire(&self) {
        let now = clock::monotonic();
        if self.next_end().is_none_or(|end| end > now) {
            return;
        }
        let over: Vec<LeaseId> = self.leases.borrow().iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect();
        for id in over {
            if let Err(reason) = self.end(id).await {
                log::warn!("a lease could not be ended yet: {reason}");
            }
        }
    }

    /// Ends one lease, its keys with it.
    async fn end(&self, id: LeaseId) -> Result<(), Reason> {
        let running = self.leases.borrow().get(&id).copied();
        let Some(running) = running else { return Ok(()) };
        // Gone for everybody from now on: nobody puts a key under it while it is being removed.
        self.leases.borrow_mut().remove(&id);
        let ended = self.write(move |database| file::end_lease(database, id)).await;
        if ended.is_err() {
            self.leases.borrow_mut().insert(id, running);
        }
        ended
    }

    async fn commit_now(&self, commit: Commit) -> Result<Outcome, Reason> {
        commit.check()?;
        self.expire().await;
        let gone = commit.steps.iter().find_map(|step| match step {
            Step::Put { lease: Some(id), .. } if !self.leases.borrow().contains_key(id) => Some(*id),
            _ => None,
        });
        if let Some(id) = gone {
            return Err(lease_gone(id));
        }
        let newest = self.newest.load(Ordering::Acquire);
        let made = self.write(move |database| file::apply(database, &commit)).await;
        match made {
            // The last sync failed, but it is there: this process is the only writer, so it is ours.
            Err(reason) if reason.code == "store_unsure" && self.newest.load(Ordering::Acquire) == newest + 1 => {
                Ok(Outcome::Done(newest + 1))
            }
            other => other,
        }
    }

    async fn grant_now(&self, time: Duration) -> Result<LeaseId, Reason> {
        let time = lease_time(time)?;
        self.expire().await;
        if self.leases.borrow().len() >= LEASES_MAX {
            return Err(Reason::new("store_full", format!("{LEASES_MAX} leases are running; let some end")));
        }
        let id = self.write(move |database| file::grant(database, time)).await?;
        self.leases.borrow_mut().insert(id, Running { time, ends: clock::monotonic() + time });
        Ok(id)
    }

    async fn renew_now(&self, id: LeaseId) -> Result<(), Reason> {
        self.expire().await;
        match self.leases.borrow_mut().get_mut(&id) {
            Some(lease) => {
                lease.ends = clock::monotonic() + lease.time;
                Ok(())
            }
            None => Err(lease_gone(id)),
        }
    }

    async fn health_now(&self) -> Result<Health, Reason> {
        let revision = self.read(file::newest).await?;
        let bytes = self.path.metadata().map_or(0, |m| m.len());
        let name = self.path.display().to_string();
        let member = Member { name, version: "redb 4".into(), leads: true, bytes, problem: None };
        Ok(Health { kind: "redb", revision, members: vec![member] })
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, Option<Row>> {
        Box::pin(async move {
            let key = key_checked(key)?.to_string();
            self.expire().await;
            self.read(move |database| file::get(database, &key)).await
        })
    }

    fn list(self: Rc<Self>, span: Span) -> Box<dyn Listing> {
        Box::new(walk::Rows::new(self, span))
    }

    fn commit(&self, commit: Commit) -> Fut<'_, Outcome> {
        Box::pin(self.commit_now(commit))
    }

    fn watch(self: Rc<Self>, span: Span, after: Revision) -> Box<dyn Watch> {
        Box::new(walk::Follow::new(self, span, after))
    }

    fn grant(&self, time: Duration) -> Fut<'_, LeaseId> {
        Box::pin(self.grant_now(time))
    }

    fn renew(&self, lease: LeaseId) -> Fut<'_, ()> {
        Box::pin(self.renew_now(lease))
    }

    fn revoke(&self, lease: LeaseId) -> Fut<'_, ()> {
        Box::pin(self.end(lease))
    }

    fn compact(&self, upto: Revision) -> Fut<'_, ()> {
        Box::pin(self.write(move |database| file::compact(database, upto)))
    }

    fn health(&self) -> Fut<'_, Health> {
        Box::pin(self.health_now())
    }
}

fn lease_gone(id: LeaseId) -> Reason {
    Reason::new("store_lease_gone", format!("lease {} has ended; take a new one and look at what it held", id.0))
}

fn unsure(what: String) -> Reason {
    Reason::new("store_unsure", format!("{what}; read again before anything else"))
}

fn damaged(path: &Path, what: &str) -> Reason {
    let file = path.display();
    Reason::new("store_damaged", format!("{file} is damaged ({what}); move it away and bring back the newest backup with `store restore`"))
}

/// redb answers most damage with an error and some with a panic; both end in the same reason.
fn careful<T>(path: &Path, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Reason> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| match error {
            redb::Error::Io(e) => Reason::new("store_unreachable", format!("{}: {e}; check the disk's health", path.display())),
            other => damaged(path, &other.to_string()),
        }),
        Err(_) => Err(damaged(path, "it cannot be read")),
    }
}

/// Opens or creates the file, and reads every page of it once: bit rot is told now and not in the middle of a change.
fn open_file(path: &Path) -> Result<Database, Reason> {
    let file = path.display();
    let opened = std::panic::catch_unwind(|| {
        let mut database = Database::builder().set_cache_size(CACHE).create(path)?;
        database.check_integrity().map(|_| database)
    });
    match opened.map_err(|_| damaged(path, "it cannot be read"))? {
        Ok(database) => Ok(database),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(Reason::new(
            "store_in_use",
            format!("{file} is in use: another Fleet runs with it; stop that one first, or let both share etcd"),
        )),
        Err(DatabaseError::Storage(redb::StorageError::Io(e))) if e.kind() != std::io::ErrorKind::InvalidData => {
            Err(Reason::new("store_write_failed", format!("{file} cannot be opened: {e}; check the folder's owner, rights and free space")))
        }
        Err(error) => Err(damaged(path, &error.to_string())),
    }
}
