//! The activity on its way up: batches from a durable cursor, each acknowledged before the next.

use std::time::Duration;

use miniserde::json;

use super::{BATCH_PAUSE, Turn, Uplink, broken};
use crate::agent::link::LinkError;
use crate::core::backoff::wait_ms;
use crate::core::hex;
use crate::core::relay::{Follow, Position, follow};
use crate::director::activity;
use crate::director::site::random_hex;
use crate::director::store::{Slice, Table};
use crate::io::random;
use crate::wire::agent_api::PROTOCOL;
use crate::wire::fleet_api::{ActivityAnswerWire, BATCH_BYTES, BATCH_MAX, FLEET_ANSWER_MAX};

/// Rows of the activity as they are on the disk, from one sequence on.
struct Batch {
    first: u64,
    previous: Option<String>,
    lost_from: Option<u64>,
    texts: Vec<String>,
}

impl Uplink {
    /// Events that Fleet has not taken.
    pub(super) fn backlog(&self) -> u64 {
        self.site.registry.borrow().next_seq.saturating_sub(self.cursor.next)
    }

    /// Sends the next batch and follows the answer.
    pub(super) async fn send_events(&mut self) -> Result<Turn, LinkError> {
        let store = |e: String| broken(&format!("this Director cannot read its own activity: {e}"));
        // What is not on the disk yet did not happen, should the power fail now.
        self.site.store.durable().await.map_err(store)?;
        let batch = self.batch().await.map_err(store)?;
        if batch.texts.is_empty() && batch.lost_from.is_none() {
            return Ok(Turn::Idle);
        }
        let text = self.post("/fleet/v1/activity", body(&self.cursor.stream, &batch), FLEET_ANSWER_MAX).await?;
        let said: ActivityAnswerWire = json::from_str(&text).map_err(|_| broken("Fleet's answer to the activity is none"))?;
        let said = Position { stream: said.stream, next: said.next, last: said.last };
        self.answered();
        let digest = self.digest_before(said.next).await.map_err(store)?;
        let (before, next_seq) = (self.cursor.next, self.site.registry.borrow().next_seq);
        match follow(&self.cursor.stream, next_seq, &said, digest.as_deref()) {
            Follow::From(next) => self.cursor.next = next,
            Follow::Fork => {
                log::warn!("this activity and what Fleet has of it are two histories (a restored backup?): it goes on under a new name");
                self.cursor.stream = random_hex(8);
            }
        }
        self.keep_cursor();
        if self.cursor.next > before {
            self.stalls = 0;
            return Ok(if self.backlog() > 0 { Turn::Pause(BATCH_PAUSE) } else { Turn::Go });
        }
        // Going back or beginning anew helps; if it does not, nobody is asked a hundred times per second.
        self.stalls = self.stalls.saturating_add(1);
        Ok(Turn::Pause(Duration::from_millis(wait_ms(self.stalls, random::seed(), None))))
    }

    async fn batch(&self) -> Result<Batch, String> {
        let from = self.cursor.next;
        let keys = activity::key(from.saturating_sub(1))..activity::key(u64::MAX);
        let slice = Slice { rows: BATCH_MAX + 1, bytes: BATCH_BYTES, newest: false };
        let mut rows = self.site.store.range(Table::Activity, keys, slice).await?.into_iter().peekable();
        let before = rows.next_if(|(key, _)| from > 0 && *key == activity::key(from - 1));
        let next_seq = self.site.registry.borrow().next_seq;
        let first = rows.peek().and_then(|(key, _)| key.parse().ok()).unwrap_or(next_seq);
        let mut texts = Vec::new();
        // A hole is where retention is at work right now; the rest is of the next batch.
        while let Some((_, text)) = rows.next_if(|(key, _)| *key == activity::key(first + texts.len() as u64)) {
            texts.push(text);
            if texts.len() == BATCH_MAX {
                break;
            }
        }
        let previous = before.filter(|_| first == from).map(|(_, text)| digest(&text));
        Ok(Batch { first, previous, lost_from: (first > from).then_some(from), texts })
    }

    /// The digest of the own event before this sequence, if it is still there.
    async fn digest_before(&self, next: u64) -> Result<Option<String>, String> {
        let Some(seq) = next.checked_sub(1) else { return Ok(None) };
        let keys = activity::key(seq)..activity::key(next);
        let rows = self.site.store.range(Table::Activity, keys, Slice { rows: 1, bytes: 0, newest: false }).await?;
        Ok(rows.first().map(|(_, text)| digest(text)))
    }
}

fn digest(text: &str) -> String {
    hex::encode(&hex::sha256(text.as_bytes())[..8])
}

/// The rows go up as they are: what a newer Director wrote into them is not lost on the way.
fn body(stream: &str, batch: &Batch) -> String {
    let member = |name: &str, value: String| format!("\"{name}\":{value}");
    let mut members = vec![
        member("protocol", PROTOCOL.to_string()),
        member("stream", json::to_string(stream)),
        member("first", batch.first.to_string()),
        member("events", format!("[{}]", batch.texts.join(","))),
    ];
    members.extend(batch.previous.as_ref().map(|digest| member("previous", json::to_string(digest))));
    members.extend(batch.lost_from.map(|from| member("lost_from", from.to_string())));
    members.extend(batch.texts.last().map(|text| member("last", json::to_string(&digest(text)))));
    format!("{{{}}}", members.join(","))
}
