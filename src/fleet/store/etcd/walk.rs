//! Listings and watches over etcd.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::super::{Batch, Event, Fut, Listing, PAGE_MAX, Page, Revision, Span, Watch};
use super::link::Tries;
use super::told::{Failed, spoken};
use super::{Etcd, wire};
use crate::core::reason::Reason;
use crate::io::clock;
use crate::io::outbound::{Incoming, within};

/// A watch that was silent for so long makes sure that its server is still in touch with the others: one that is cut off
/// keeps its connections and simply has nothing to tell. etcd's own progress notices come every 10 minutes, which is too late.
pub const SILENT: Duration = Duration::from_secs(5);
/// For that.
const PROBE: Duration = Duration::from_secs(3);
/// A watch that told nothing for so long is opened anew at the next server: something in between may swallow it.
const RENEW: Duration = Duration::from_secs(60);
/// Longest line of a watch, bytes: more at once is listed again instead.
const LINE_MAX: usize = 32 * 1024 * 1024;
/// For the first line of a new watch.
const BEGIN: Duration = Duration::from_secs(5);

/// Rows page by page, all of the first page's revision.
pub struct Rows {
    store: Rc<Etcd>,
    span: Span,
    at: Revision,
    /// Rows that one answer can hold, as far as is known.
    fit: usize,
}

impl Rows {
    pub fn new(store: Rc<Etcd>, span: Span) -> Rows {
        let span = store.places(&span);
        Rows { store, span, at: 0, fit: PAGE_MAX }
    }

    async fn page(&mut self, rows: usize) -> Result<Page, Reason> {
        let link = &self.store.link;
        let answer = loop {
            let limit = rows.clamp(1, self.fit);
            match link.ask("/v3/kv/range", &wire::range(&self.span.from, &self.span.to, limit, self.at)).await {
                // Large rows: fewer of them.
                Err(reason) if reason.code == "store_too_large" && limit > 1 => self.fit = limit / 2,
                answer => break answer?,
            }
        };
        let peer = link.name(link.at());
        let answer: wire::Range = wire::read(peer, &answer)?;
        if self.at == 0 {
            self.at = wire::revision(&answer.header);
        }
        let kvs = answer.kvs.unwrap_or_default();
        let rows: Result<Vec<_>, Reason> = kvs.iter().map(|kv| kv.row(peer, &self.store.data)).collect();
        let rows = rows?;
        if let Some(last) = rows.last() {
            // The first key that can follow.
            self.span.from = [self.store.place(&last.key).as_bytes(), &[0]].concat();
        }
        Ok(Page { more: answer.more == Some(true) && !rows.is_empty(), rows, revision: self.at })
    }
}

impl Listing for Rows {
    fn next(&mut self, rows: usize) -> Fut<'_, Page> {
        Box::pin(self.page(rows))
    }
}

/// Commits as they happen.
pub struct Follow {
    store: Rc<Etcd>,
    span: Span,
    after: Revision,
    open: Option<Open>,
}

/// A watch at one server.
struct Open {
    incoming: Incoming,
    at: usize,
    /// What came of the next line.
    line: Vec<u8>,
    /// When it last told something.
    heard: Duration,
}

/// What a line says.
enum Said {
    Batch(Batch),
    Nothing,
    /// Another server is to be asked.
    Ended(Failed),
}

impl Follow {
    pub fn new(store: Rc<Etcd>, span: Span, after: Revision) -> Follow {
        let span = store.places(&span);
        Follow { store, span, after, open: None }
    }

    async fn batch(&mut self) -> Result<Batch, Reason> {
        let mut tries = Tries::begin();
        loop {
            let Some(open) = &mut self.open else {
                match self.begin(&tries).await {
                    Ok(open) => self.open = Some(open),
                    Err(failed) => self.store.link.after(failed, &mut tries).await?,
                }
                continue;
            };
            let at = open.at;
            let said = match open.line().await {
                Ok(Some(line)) => match self.read(at, &line) {
                    Ok(said) => said,
                    Err(reason) => {
                        self.open = None;
                        return Err(reason);
                    }
                },
                Ok(None) => self.silence().await,
                Err(failed) => Said::Ended(failed),
            };
            match said {
                Said::Nothing => tries = Tries::begin(),
                Said::Batch(batch) => return Ok(batch),
                Said::Ended(failed) => {
                    self.open = None;
                    self.store.link.after(failed, &mut tries).await?;
                }
            }
        }
    }

    /// Opens the watch at the server that is asked first, from the commit after the last one told.
    async fn begin(&self, tries: &Tries) -> Result<Open, Failed> {
        let link = &self.store.link;
        let (at, sent) = (link.at(), Cell::new(false));
        let late = || Failed::midway(Reason::new("store_unreachable", format!("{}: a watch does not begin", link.name(at))));
        let body = wire::watch(&self.span.from, &self.span.to, self.after + 1);
        let begun = within(BEGIN.min(tries.left()), link.open(at, "/v3/watch", &body, &sent)).await.ok_or_else(late)??;
        Ok(Open { incoming: begun, at, line: Vec::new(), heard: clock::monotonic() })
    }

    /// Nothing was said for a while.
    async fn silence(&mut self) -> Said {
        let Some(open) = &self.open else { return Said::Nothing };
        let (at, link) = (open.at, &self.store.link);
        // Linearizable: the server has to reach the others for it.
        if let Err(failed) = link.once(at, "/v3/kv/range", &wire::one(&self.store.data), PROBE).await {
            return Said::Ended(failed);
        }
        if clock::monotonic().saturating_sub(open.heard) < RENEW {
            return Said::Nothing;
        }
        // Not a failure of the server: the next one, and no pause.
        self.open = None;
        link.leave(at);
        Said::Nothing
    }

    fn read(&mut self, at: usize, line: &[u8]) -> Result<Said, Reason> {
        let peer = self.store.link.name(at);
        let told: wire::Told = wire::read(peer, line)?;
        if let Some(error) = told.error {
            let (text, code) = (error.message.unwrap_or_default(), error.grpc_code.unwrap_or(0));
            return Ok(Said::Ended(spoken(peer, &text, code, true)));
        }
        let told = told.result.unwrap_or_default();
        let (newest, compacted) = (wire::revision(&told.header), wire::number(&told.compact_revision));
        if compacted > 0 || (told.created == Some(true) && newest > 0 && newest < self.after) {
            let detail = match compacted {
                0 => format!("{peer} is at revision {newest}, but {} was read from it (brought back from a backup?)", self.after),
                _ => format!("{peer}: what happened after revision {} is no longer kept", self.after),
            };
            return Err(Reason::new("store_compacted", format!("{detail}; list again and go on from there")));
        }
        if told.canceled == Some(true) {
            let why = told.cancel_reason.unwrap_or_else(|| "the watch was ended".into());
            return Ok(Said::Ended(spoken(peer, &why, 0, true)));
        }
        let mut batch = Batch::default();
        for event in told.events.into_iter().flatten() {
            let row = event.kv.unwrap_or_default().row(peer, &self.store.data)?;
            // Told before: the watch was opened anew within a commit.
            if row.modified <= self.after {
                continue;
            }
            batch.revision = batch.revision.max(row.modified);
            batch.events.push(match event.kind.as_deref() {
                Some("DELETE") => Event::Deleted { key: row.key, modified: row.modified },
                _ => Event::Put(row),
            });
        }
        if batch.events.is_empty() {
            // A progress notice: everything up to there has been told. The greeting says nothing of the kind.
            if told.created != Some(true) && newest > self.after {
                self.after = newest;
            }
            return Ok(Said::Nothing);
        }
        self.after = batch.revision;
        Ok(Said::Batch(batch))
    }
}

impl Open {
    /// The next line; `None` = silence. Nothing is lost when the wait is dropped.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        loop {
            if let Some(end) = self.line.iter().position(|b| *b == b'\n') {
                let rest = self.line.split_off(end + 1);
                let line = std::mem::replace(&mut self.line, rest);
                self.heard = clock::monotonic();
                return Ok(Some(line));
            }
            if self.line.len() > LINE_MAX {
                let detail = format!("more than {LINE_MAX} bytes changed at once; list again and go on from there");
                return Err(Failed::stop(Reason::new("store_compacted", detail)));
            }
            let gone = |why: String| Failed::midway(Reason::new("store_unreachable", why));
            match within(SILENT, self.incoming.piece()).await {
                None => return Ok(None),
                Some(Ok(piece)) if piece.is_empty() => return Err(gone("a watch was ended by its server".into())),
                Some(Ok(piece)) => self.line.extend(piece),
                Some(Err(reason)) => return Err(gone(reason.detail.clone())),
            }
        }
    }
}

impl Watch for Follow {
    fn next(&mut self) -> Fut<'_, Batch> {
        Box::pin(self.batch())
    }
}
