//! How much of each Director's activity Fleet keeps: by age and by bytes, each Director for itself.

use std::rc::Rc;
use std::time::Duration;

use miniserde::json;

use super::{Intake, Told};
use crate::director::site::Site;
use crate::director::store::{Change, Slice, Table};
use crate::io::clock;

/// Oldest kept event, days; as long as a Director keeps its own.
pub const KEPT_DAYS: u64 = 90;
/// Most bytes of events of one Director: sixty thousand of them. A liar fills this, and nothing else.
pub const EVENTS_BYTES: u64 = 16 << 20;
/// How often old events are removed.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Rows read at once.
const CHUNK: Slice = Slice { rows: 1_000, bytes: 1 << 20, newest: false };

impl Intake {
    /// Removes what is too old or too much, now and then.
    pub async fn keep_house(self: Rc<Self>, site: Rc<Site>) {
        loop {
            if let Err(e) = self.prune(&site, clock::unix()).await {
                log::error!("old events of Directors could not be removed: {e}");
            }
            smol::Timer::after(HOUSEKEEPING).await;
        }
    }

    /// More than a half above the limit: this Director waits until old events are gone.
    pub(super) fn is_flooded(&self, director: &str) -> bool {
        self.sources.borrow().get(director).is_some_and(|s| s.row.bytes > EVENTS_BYTES + EVENTS_BYTES / 2)
    }

    /// Removes the events that are too old or too many.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn prune(&self, site: &Site, now: u64) -> Result<(), String> {
        let directors: Vec<String> = self.sources.borrow().keys().cloned().collect();
        for director in directors {
            while self.prune_some(site, &director, now).await? {}
        }
        Ok(())
    }

    /// True: there is more to remove.
    async fn prune_some(&self, site: &Site, director: &str, now: u64) -> Result<bool, String> {
        let from = match self.sources.borrow().get(director) {
            Some(source) if source.row.oldest < source.row.position => Told::key_of(director, source.row.oldest),
            _ => return Ok(false),
        };
        // Rows that were queued and not written yet would be passed over.
        site.store.durable().await?;
        let rows = site.store.range(Table::Relayed, from..Told::key_of(director, u64::MAX), CHUNK).await?;
        let mut sources = self.sources.borrow_mut();
        let Some(source) = sources.get_mut(director) else { return Ok(false) };
        let oldest = now.saturating_sub(KEPT_DAYS * 86_400);
        let (all, mut gone) = (rows.len(), Vec::new());
        for (key, text) in rows {
            // A row that does not parse is as good as gone.
            let event = json::from_str::<Told>(&text).unwrap_or_default();
            if event.told_at >= oldest && source.row.bytes <= EVENTS_BYTES {
                break;
            }
            source.row.bytes = source.row.bytes.saturating_sub(text.len() as u64);
            source.row.oldest = key.rsplit_once('/').and_then(|(_, n)| n.parse::<u64>().ok()).unwrap_or(source.row.oldest) + 1;
            gone.push(Change { table: Table::Relayed, key, value: None });
        }
        let more = all > 0 && gone.len() == all;
        if !gone.is_empty() {
            gone.push(source.row.change());
            site.store.queue(gone);
        }
        Ok(more)
    }
}
