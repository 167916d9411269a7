//! Commits that are made once, also when the answer is lost.
//!
//! etcd has no way to ask what became of a transaction whose connection died: the leader may have fallen before it was
//! replicated, or after. So each transaction also writes a mark of its own to a *lane*, a key that only this process writes, on
//! the condition that the lane is as it was left. Then
//! * the lane holds the mark: the transaction was made, and the lane's revision is its revision;
//! * the lane is as it was left: it was not made *yet*. It is sent again; if the first one is still under way, only one of the
//!   two can find the lane as it was;
//! * it was refused for the caller's conditions, but was sent before without an answer: the lane is written once more, alone,
//!   which shuts out what may still be under way, and only then it is a conflict.
//!
//! etcd also answers "no space" to the very change that fills it, after making it: the lane tells.
//!
//! A lane carries one commit at a time; there are a few, so that commits need not wait for each other. What a process leaves
//! behind is removed by others after [`ABANDONED`].

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

use super::super::{Commit, Condition, Outcome, PAGE_MAX, Revision, Row, Span, Step};
use super::link::{Link, Tries};
use super::told::{Failed, Then};
use super::wire;
use crate::core::reason::Reason;
use crate::director::site::random_hex;
use crate::io::clock;

/// Commits at the same time.
const LANES: usize = 8;
/// A lane that nobody has written for so long belongs to nobody. Clocks may differ by as much.
const ABANDONED: Duration = Duration::from_secs(7 * 86_400);

/// A lane that is free.
#[derive(Debug)]
struct Lane {
    key: String,
    modified: Revision,
    /// When it was written last: one that may have been removed as abandoned is not used again.
    used: Duration,
}

/// The lanes of a process.
pub struct Lanes {
    /// What keys of lanes begin with; then a random id of this process, then a number.
    prefix: String,
    id: String,
    free: RefCell<Vec<Lane>>,
    made: Cell<u64>,
    places: smol::lock::Semaphore,
    swept: Cell<bool>,
}

/// A commit on its way.
struct Sending<'a> {
    data: &'a str,
    commit: &'a Commit,
    lane: &'a mut Lane,
    mark: String,
    /// It may have been made without our knowing.
    unsure: bool,
}

/// What one answer to it says.
enum Said {
    Made(Outcome),
    /// A condition of the caller does not hold, with its key.
    Refused(Condition),
    /// The lane is not ours any more.
    LaneLost,
}

impl Lanes {
    pub fn new(prefix: String) -> Lanes {
        Lanes {
            prefix,
            id: random_hex(8),
            free: RefCell::default(),
            made: Cell::new(0),
            places: smol::lock::Semaphore::new(LANES),
            swept: Cell::new(false),
        }
    }

    /// Makes a commit, once or not at all.
    pub async fn commit(&self, link: &Link, data: &str, commit: &Commit) -> Result<Outcome, Reason> {
        let _place = self.places.acquire().await;
        if !self.swept.replace(true) {
            self.sweep(link).await;
        }
        let mut lane = self.take();
        let mut sending = Sending { data, commit, lane: &mut lane, mark: String::new(), unsure: false };
        let made = sending.through(link).await;
        // After any error something may still be under way in this lane: it is not used again. So it is when the caller drops us.
        if made.is_ok() {
            lane.used = clock::monotonic();
            self.free.borrow_mut().push(lane);
        }
        made
    }

    fn take(&self) -> Lane {
        let now = clock::monotonic();
        while let Some(lane) = self.free.borrow_mut().pop() {
            if now.saturating_sub(lane.used) < ABANDONED / 2 {
                return lane;
            }
        }
        self.made.set(self.made.get() + 1);
        Lane { key: format!("{}{}/{}", self.prefix, self.id, self.made.get()), modified: 0, used: now }
    }

    /// Removes what others have left behind; what cannot be removed now is removed by the next one.
    async fn sweep(&self, link: &Link) {
        let span = Span::prefix(&self.prefix);
        let Ok(bytes) = link.ask("/v3/kv/range", &wire::range(&span.from, &span.to, PAGE_MAX, 0)).await else { return };
        let Ok(found) = wire::read::<wire::Range>("etcd", &bytes) else { return };
        let old = clock::unix().saturating_sub(ABANDONED.as_secs());
        let abandoned = |row: &Row| written(&row.value).is_some_and(|at| at < old);
        let rows: Vec<Row> = found.kvs.into_iter().flatten().filter_map(|kv| kv.row("etcd", "").ok()).filter(abandoned).collect();
        let removed: HashSet<&str> = rows.iter().take(super::super::STEPS_MAX).map(|row| row.key.as_str()).collect();
        let removals: Vec<String> = removed.iter().map(|key| wire::delete(key)).collect();
        let same: Vec<String> = rows.iter().filter(|r| removed.contains(&*r.key)).map(|r| wire::unchanged(&r.key, r.modified)).collect();
        if !removals.is_empty() && link.ask("/v3/kv/txn", &wire::txn(&same, &removals, &[])).await.is_ok() {
            log::info!("etcd: {} marks of Fleets that are gone were removed", removals.len());
        }
    }
}

/// When a lane was written: the second word of its mark.
fn written(mark: &[u8]) -> Option<u64> {
    std::str::from_utf8(mark).ok()?.split(' ').nth(1)?.parse().ok()
}

impl Sending<'_> {
    async fn through(&mut self, link: &Link) -> Result<Outcome, Reason> {
        let mut tries = Tries::begin();
        self.mark = mark();
        loop {
            match self.send(link, &tries).await {
                Ok(Said::Made(outcome)) => return Ok(outcome),
                Ok(Said::Refused(found)) => {
                    let conflict = Outcome::Conflict { key: found.key, modified: found.modified };
                    match self.unsure {
                        false => return Ok(conflict),
                        true => return self.shut(link, conflict, &mut tries).await,
                    }
                }
                // Nothing of this commit was made, nor can be: what was sent counts on the lane as it was, which never comes back.
                Ok(Said::LaneLost) => {
                    let folder = self.lane.key.rfind('/').map_or(0, |at| at + 1);
                    self.lane.key.truncate(folder);
                    self.lane.key += &random_hex(8);
                    (self.lane.modified, self.unsure) = (0, false);
                }
                Err(failed) => {
                    // etcd refuses the change that fills it, and has made it all the same.
                    if failed.reason.code == "store_full"
                        && let Some(revision) = self.look(link).await?
                    {
                        return Ok(Outcome::Done(revision));
                    }
                    self.failed(link, failed, &mut tries).await?;
                }
            }
        }
    }

    /// The revision of this commit, if it was made.
    async fn look(&mut self, link: &Link) -> Result<Option<Revision>, Reason> {
        let bytes = link.ask("/v3/kv/range", &wire::one(&self.lane.key)).await;
        let unknown = |r: Reason| Reason::new("store_unsure", format!("whether the change was made is not known: {}", r.detail));
        let found: wire::Range = bytes.and_then(|bytes| wire::read("etcd", &bytes)).map_err(unknown)?;
        let row = found.kvs.iter().flatten().next().map(|kv| kv.row("etcd", "")).transpose()?;
        let made = row.filter(|row| row.value == self.mark.as_bytes()).map(|row| row.modified);
        self.lane.modified = made.unwrap_or(self.lane.modified);
        Ok(made)
    }

    /// One transaction at one server, and what its answer says.
    async fn send(&mut self, link: &Link, tries: &Tries) -> Result<Said, Failed> {
        let at = link.at();
        let bytes = link.once(at, "/v3/kv/txn", &self.body(), tries.left()).await?;
        let peer = link.name(at);
        // An answer that cannot be read may have been a yes.
        let answer: wire::Txn = wire::read(peer, &bytes).map_err(Failed::midway)?;
        if answer.succeeded == Some(true) {
            return self.made(peer, wire::revision(&answer.header)).map_err(Failed::midway);
        }
        let mut looks = answer.responses.into_iter().flatten().filter_map(|part| part.response_range);
        let lane = looks.next().map(|look| look.kvs.unwrap_or_default());
        let lane = lane.ok_or_else(|| Failed::midway(wire::strange(peer, "a transaction without its answers")))?;
        let lane = lane.first().map(|kv| kv.row(peer, "")).transpose().map_err(Failed::midway)?;
        match lane {
            Some(row) if row.value == self.mark.as_bytes() => return self.made(peer, row.modified).map_err(Failed::midway),
            row if row.as_ref().map_or(0, |row| row.modified) != self.lane.modified => return Ok(Said::LaneLost),
            _ => {}
        }
        for (condition, look) in self.commit.conditions.iter().zip(looks) {
            let modified = look.kvs.iter().flatten().next().map_or(0, |kv| wire::number(&kv.mod_revision));
            if modified != condition.modified {
                return Ok(Said::Refused(Condition { key: condition.key.clone(), modified }));
            }
        }
        Err(Failed::midway(wire::strange(peer, "a refused transaction whose conditions hold")))
    }

    fn made(&mut self, peer: &str, revision: Revision) -> Result<Said, Reason> {
        if revision == 0 {
            return Err(wire::strange(peer, "a transaction without a revision"));
        }
        self.lane.modified = revision;
        Ok(Said::Made(Outcome::Done(revision)))
    }

    fn body(&self) -> String {
        let place = |key: &str| format!("{}{key}", self.data);
        let mut compare = vec![wire::unchanged(&self.lane.key, self.lane.modified)];
        compare.extend(self.commit.conditions.iter().map(|c| wire::unchanged(&place(&c.key), c.modified)));
        let step = |step: &Step| match step {
            Step::Put { key, value, lease } => wire::put(&place(key), value, lease.map_or(0, |lease| lease.0)),
            Step::Delete { key } => wire::delete(&place(key)),
        };
        let mut success: Vec<String> = self.commit.steps.iter().map(step).collect();
        success.push(wire::put(&self.lane.key, self.mark.as_bytes(), 0));
        let mut failure = vec![wire::look(&self.lane.key, true)];
        failure.extend(self.commit.conditions.iter().map(|c| wire::look(&place(&c.key), false)));
        wire::txn(&compare, &success, &failure)
    }

    /// After a failure: it is sent again, or the caller is told, and told honestly if it may have been made.
    async fn failed(&mut self, link: &Link, failed: Failed, tries: &mut Tries) -> Result<(), Reason> {
        self.unsure |= failed.then == Then::Elsewhere { sent: true };
        let over = link.after(failed, tries).await;
        match over {
            Err(reason) if self.unsure => Err(Reason::new(
                "store_unsure",
                format!("whether the change was made is not known; read again before anything else: {}", reason.detail),
            )),
            other => other,
        }
    }

    /// Writes the lane alone. If that works, what was sent before can no longer be made.
    async fn shut(&mut self, link: &Link, conflict: Outcome, tries: &mut Tries) -> Result<Outcome, Reason> {
        let mine = std::mem::replace(&mut self.mark, mark());
        let same = [wire::unchanged(&self.lane.key, self.lane.modified)];
        let body = wire::txn(&same, &[wire::put(&self.lane.key, self.mark.as_bytes(), 0)], &[wire::look(&self.lane.key, true)]);
        loop {
            let at = link.at();
            let answer = link.once(at, "/v3/kv/txn", &body, tries.left()).await;
            let answer = answer.and_then(|bytes| wire::read::<wire::Txn>(link.name(at), &bytes).map_err(Failed::midway));
            let answer = match answer {
                Ok(answer) => answer,
                Err(failed) => {
                    self.failed(link, failed, tries).await?;
                    continue;
                }
            };
            if answer.succeeded == Some(true) {
                self.lane.modified = wire::revision(&answer.header);
                return Ok(conflict);
            }
            let look = answer.responses.into_iter().flatten().find_map(|part| part.response_range);
            let row = look.and_then(|look| look.kvs?.first()?.row(link.name(at), "").ok());
            return match row {
                Some(row) if row.value == mine.as_bytes() => {
                    self.lane.modified = row.modified;
                    Ok(Outcome::Done(row.modified))
                }
                Some(row) if row.value == self.mark.as_bytes() => {
                    self.lane.modified = row.modified;
                    Ok(conflict)
                }
                // Removed as abandoned: nothing that counted on it can be made any more.
                _ => {
                    self.lane.modified = 0;
                    Ok(conflict)
                }
            };
        }
    }
}

/// A mark that nobody else makes, and when.
fn mark() -> String {
    format!("{} {}", random_hex(16), clock::unix())
}
