//! What Fleet shows of what Directors told.

use std::ops::Range;

use miniserde::{Deserialize, Serialize, json};

use super::{Intake, IntakeRow, SiteAgent};
use crate::director::activity;
use crate::director::records::Event;
use crate::director::site::Site;
use crate::director::store::{Slice, Table};
use crate::wire::fleet_api::HealthWire;

/// Rows that are looked through for one answer: a bounded read, however much is kept.
const LOOKED_MAX: usize = 50_000;

/// An event of a Director.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Whose it is.
    pub director: String,
    /// Fleet's number of it, per Director; without gaps but for what retention removed.
    pub position: u64,
    /// The Director's own number; absent = said by Fleet about this Director.
    pub seq: Option<u64>,
    /// When it happened, by the Director's clock, seconds since 1970.
    pub time: u64,
    /// When Fleet heard of it.
    pub told_at: u64,
    /// Which of its agents; empty = the Director itself.
    pub agent: String,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub detail: String,
    /// Version concerned, or empty.
    pub version: String,
    /// Order's generation, or 0.
    pub generation: u64,
    /// Who caused it.
    pub by: Option<String>,
    /// The update that it belongs to ([`crate::core::relay::update_id`]).
    pub update: Option<String>,
}

/// Which events are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Of one Director.
    pub director: Option<String>,
    /// Of one of its agents.
    pub agent: Option<String>,
    /// Of one update.
    pub update: Option<String>,
    /// The newest ones, at most so many.
    pub limit: usize,
}

impl Told {
    /// An event with nothing but its Director.
    pub(super) fn of(director: &str, told_at: u64) -> Told {
        Told { director: director.to_string(), told_at, ..Default::default() }
    }

    /// Its key in the table.
    pub fn key(&self) -> String {
        Told::key_of(&self.director, self.position)
    }

    /// The key of a position.
    pub fn key_of(director: &str, position: u64) -> String {
        format!("{director}/{}", activity::key(position))
    }
}

impl Asked {
    fn fits(&self, event: &Told) -> bool {
        self.agent.as_ref().is_none_or(|agent| event.agent == *agent)
            && self.update.as_ref().is_none_or(|u| event.update.as_ref() == Some(u))
    }
}

/// Every key below a Director.
fn below(director: &str) -> Range<String> {
    // '0' follows '/'.
    format!("{director}/")..format!("{director}0")
}

impl Intake {
    /// What a Director said last, and when.
    pub fn health_of(&self, director: &str) -> Option<(HealthWire, u64)> {
        let sources = self.sources.borrow();
        let row = &sources.get(director)?.row;
        Some((row.health.clone()?, row.heard_at))
    }

    /// How far Fleet is with a Director.
    pub fn row_of(&self, director: &str) -> Option<IntakeRow> {
        self.sources.borrow().get(director).map(|s| s.row.clone())
    }

    /// Looks at what a Director said last, without a copy of it.
    pub fn with_health<T>(&self, director: &str, look: impl FnOnce(&HealthWire) -> T) -> Option<T> {
        self.sources.borrow().get(director)?.row.health.as_ref().map(look)
    }

    /// Whether a Director told of this agent.
    pub fn knows(&self, director: &str, agent: &str) -> bool {
        self.sources.borrow().get(director).is_some_and(|s| s.table.holds(agent))
    }

    /// How many agents a Director told of.
    pub fn agents_of(&self, director: &str) -> usize {
        self.sources.borrow().get(director).map_or(0, |s| s.table.count())
    }

    /// Agents in the order of Director and id, from `after` on (a Director and an agent), of one Director or of all.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn agents(
        &self,
        site: &Site,
        director: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<SiteAgent>, String> {
        let mut keys = director.map_or(String::new().."~".to_string(), below);
        if let Some((director, agent)) = after {
            keys.start = keys.start.max(format!("{director}/{agent}\0"));
        }
        let rows =
            site.store.range(Table::Inventory, keys, Slice { rows: limit.min(LOOKED_MAX), bytes: usize::MAX, newest: false }).await?;
        Ok(rows.iter().filter_map(|(_, text)| json::from_str(text).ok()).map(|agent| self.as_known(agent)).collect())
    }

    /// What an agent waits for is its Director's word of its present run: the one before may have seen other releases.
    fn as_known(&self, agent: SiteAgent) -> SiteAgent {
        let since = self.sources.borrow().get(&agent.director).and_then(|s| s.row.run_heard_at).unwrap_or(0);
        if agent.told_at >= since { agent } else { SiteAgent { needs: None, ..agent } }
    }

    /// One agent of one Director.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn agent(&self, site: &Site, director: &str, agent: &str) -> Result<Option<SiteAgent>, String> {
        let key = format!("{director}/{agent}");
        let rows = site.store.range(Table::Inventory, key.clone()..format!("{key}\0"), Slice { rows: 1, bytes: usize::MAX, newest: false });
        Ok(rows.await?.first().and_then(|(_, text)| json::from_str(text).ok()).map(|agent| self.as_known(agent)))
    }

    /// The newest events that fit, oldest first; those of all Directors by the time at which they were told.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn activity(&self, site: &Site, asked: &Asked) -> Result<Vec<Told>, String> {
        let directors: Vec<String> = match &asked.director {
            Some(director) => vec![director.clone()],
            None => self.sources.borrow().keys().cloned().collect(),
        };
        let mut out: Vec<Told> = Vec::new();
        for director in directors {
            out.extend(self.newest_of(site, &director, asked).await?);
        }
        // By Fleet's own clock, so that no Director's clock changes another one's place; within one Director by its order.
        out.sort_by(|a, b| (a.told_at, &a.director, a.position).cmp(&(b.told_at, &b.director, b.position)));
        let first = out.len().saturating_sub(asked.limit);
        Ok(out.split_off(first))
    }

    /// Backwards through one Director's events until there are enough.
    async fn newest_of(&self, site: &Site, director: &str, asked: &Asked) -> Result<Vec<Told>, String> {
        let (mut keys, mut found, mut looked) = (below(director), Vec::new(), 0);
        let slice = Slice { rows: 1_000.min(asked.limit.max(64)), bytes: usize::MAX, newest: true };
        loop {
            let rows = site.store.range(Table::Relayed, keys.clone(), slice).await?;
            looked += rows.len();
            let Some((first, _)) = rows.first() else { break };
            keys.end = first.clone();
            let events = rows.iter().rev().filter_map(|(_, text)| json::from_str::<Told>(text).ok());
            found.extend(events.filter(|e| asked.fits(e)));
            if found.len() >= asked.limit || looked >= LOOKED_MAX {
                break;
            }
        }
        found.truncate(asked.limit);
        Ok(found)
    }

    /// One update from its trigger to its end, as one list: what Fleet itself noted, what the Director noted, and what the
    /// Director told of its agent.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn timeline(&self, site: &Site, update: &str, limit: usize) -> Result<Vec<Told>, String> {
        let asked = Asked { update: Some(update.to_string()), limit, ..Default::default() };
        let mut out = self.activity(site, &asked).await?;
        let wanted = update.to_string();
        let own: Vec<Event> = site.store.newest(Table::Activity, limit, move |e: &Event| e.update.as_ref() == Some(&wanted)).await?;
        out.extend(own.into_iter().map(|e| Told {
            director: e.agent,
            position: e.seq,
            time: e.time,
            told_at: e.time,
            code: e.code,
            detail: e.detail,
            version: e.version,
            generation: e.generation,
            by: e.by,
            update: e.update,
            ..Default::default()
        }));
        out.sort_by_key(|e| (e.time, e.seq.is_some(), e.position));
        let first = out.len().saturating_sub(limit);
        Ok(out.split_off(first))
    }
}
