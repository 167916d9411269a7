//! Listings and watches of the file.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redb::{ReadTransaction, ReadableDatabase};

use super::super::{Batch, Fut, Listing, PAGE_MAX, Page, Revision, Row, Span, Watch};
use super::{Embedded, careful, file};
use crate::core::reason::Reason;
use crate::io::clock;

/// Bytes of a page at most, but one row always.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How often a watch looks even if nobody rings: a caller that gave up in the middle of its commit rings no bell.
const LOOK: Duration = Duration::from_secs(1);

/// Rows of one state of the file: redb keeps it as long as somebody reads it.
pub struct Rows {
    store: Rc<Embedded>,
    span: Span,
    state: Option<Arc<ReadTransaction>>,
}

impl Rows {
    pub fn new(store: Rc<Embedded>, span: Span) -> Rows {
        Rows { store, span, state: None }
    }

    async fn page(&mut self, rows: usize) -> Result<Page, Reason> {
        let state = match &self.state {
            Some(state) => state.clone(),
            None => {
                self.store.expire().await;
                let state = Arc::new(self.store.read(|database| Ok(database.begin_read()?)).await?);
                self.state.insert(state).clone()
            }
        };
        let (span, path) = (self.span.clone(), self.store.path.clone());
        let rows = rows.clamp(1, PAGE_MAX);
        let read = move || careful(&path, || Ok((file::page(&state, &span, rows, PAGE_BYTES)?, file::seen(&state)?)));
        let ((rows, more), revision): ((Vec<Row>, bool), Revision) = smol::unblock(read).await?;
        if let Some(last) = rows.last() {
            // The first key that can follow.
            self.span.from = [last.key.as_bytes(), &[0]].concat();
        }
        Ok(Page { rows, revision, more })
    }
}

impl Listing for Rows {
    fn next(&mut self, rows: usize) -> Fut<'_, Page> {
        Box::pin(self.page(rows))
    }
}

/// Commits as they happen.
pub struct Follow {
    store: Rc<Embedded>,
    span: Span,
    after: Revision,
}

impl Follow {
    pub fn new(store: Rc<Embedded>, span: Span, after: Revision) -> Follow {
        Follow { store, span, after }
    }

    async fn batch(&mut self) -> Result<Batch, Reason> {
        loop {
            self.store.expire().await;
            let (span, after) = (self.span.clone(), self.after);
            let found = self.store.read(move |database| file::since(database, &span, after)).await?;
            let gone = || format!("what happened after revision {after} is no longer kept; list again and go on from there");
            let batch = found.ok_or_else(|| Reason::new("store_compacted", gone()))?;
            self.after = batch.revision;
            if !batch.events.is_empty() {
                return Ok(batch);
            }
            // Nothing runs between this look and the beginning of the wait: there is one thread.
            if self.store.newest.load(Ordering::Acquire) > self.after {
                continue;
            }
            let until = self.store.next_end().map_or(LOOK, |end| end.saturating_sub(clock::monotonic()).min(LOOK));
            smol::future::or(self.store.committed.wait(), async {
                smol::Timer::after(until).await;
            })
            .await;
        }
    }
}

impl Watch for Follow {
    fn next(&mut self) -> Fut<'_, Batch> {
        Box::pin(self.batch())
    }
}
