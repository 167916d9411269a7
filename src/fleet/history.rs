//! How the fleet was: a small durable series of counts, for the overview.
//!
//! | rows | kept |
//! |---|---|
//! | at most one in a minute, when something changed; one in five minutes else | 48 hours: 2,880 rows |
//! | one in an hour | 90 days: 2,160 rows |
//!
//! A row is below [`ROW_MAX`] bytes: the eight most frequent names of each kind, the others as one number. So the table never
//! is above a few megabytes, whatever Directors call their versions.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};

use super::intake::Intake;
use crate::core::rollout::{End, OFFLINE_AFTER_S};
use crate::director::site::Site;
use crate::director::store::{Change, Store, Table};
use crate::io::clock;

/// Time between two rows in which nothing changed, seconds.
pub const EVERY_S: u64 = 300;
/// Time between two counts while nobody tells of a change, and between two rows that differ, seconds.
const COUNT_S: u64 = 60;
/// Shortest time between two counts: what Directors tell at once is counted once.
const PAUSE: Duration = Duration::from_secs(2);
/// A count of many agents takes time; at most this part of it is spent so.
const SHARE: u32 = 200;
/// How long each of them is kept, seconds.
const DENSE_S: u64 = 48 * 3_600;
/// Time between two rows after that, seconds.
const SPARSE_EVERY_S: u64 = 3_600;
/// How long those are kept, seconds.
pub const KEPT_S: u64 = 90 * 86_400;
/// Names of each kind in a row.
pub const NAMES_MAX: usize = 8;
/// Longest name in a row, characters: a version, a reason's code.
const NAME_MAX: usize = 32;
/// Most bytes of a row: 3 kinds with 9 names and numbers each, and a few numbers.
pub const ROW_MAX: usize = 3 * 9 * (4 * NAME_MAX + 60) + 400;
/// Agents that are read from the store at once.
const SLICE: usize = 1_000;
/// Agents that are counted for a row: what a Fleet may have.
const AGENTS_MAX: usize = 1_000_000;

/// So many of one name.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct CountRow {
    /// Version, or a reason's code; empty = all others.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// The fleet at one time.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HistoryRow {
    /// Seconds since 1970.
    pub time: u64,
    /// Directors that are enrolled.
    pub directors: u64,
    /// Of them, heard of lately.
    pub online: u64,
    /// Agents that Directors told of.
    pub agents: u64,
    /// Of them, heard of lately by their Directors.
    pub agents_online: u64,
    /// Directors by running version.
    pub versions: Vec<CountRow>,
    /// Agents by running version.
    pub agent_versions: Vec<CountRow>,
    /// Agents whose last update failed, by reason.
    pub failures: Vec<CountRow>,
    /// Agents between two versions.
    pub agents_updating: Option<u64>,
}

/// The series in memory, the oldest first.
#[derive(Default)]
pub struct History {
    rows: RefCell<VecDeque<HistoryRow>>,
    /// The last count, which may be newer than the newest row.
    now: RefCell<Option<HistoryRow>>,
}

impl History {
    /// Reads what is kept.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn load(store: &Store) -> Result<History, String> {
        let rows = store.load::<HistoryRow>(Table::History)?.into_iter().map(|(_, row)| row).collect();
        Ok(History { rows: RefCell::new(rows), now: RefCell::default() })
    }

    /// The rows since a time, the oldest first.
    pub fn since(&self, time: u64) -> Vec<HistoryRow> {
        self.rows.borrow().iter().filter(|row| row.time >= time).cloned().collect()
    }

    /// The last count; after a start, before the first one, the newest row.
    pub fn last(&self) -> Option<HistoryRow> {
        self.now.borrow().clone().or_else(|| self.rows.borrow().back().cloned())
    }

    /// Counts soon after a Director told of a change; adds a row when something changed, and every five minutes.
    pub async fn keep(self: Rc<Self>, site: Rc<Site>, intake: Rc<Intake>) {
        loop {
            let (now, began) = (clock::unix(), clock::monotonic());
            match count(&site, &intake, now).await {
                Ok(row) => {
                    *self.now.borrow_mut() = Some(row.clone());
                    if self.is_due(&row) {
                        let changes = self.add(row);
                        site.store.queue(changes);
                    }
                }
                Err(e) => log::error!("the fleet's history has a gap: {e}"),
            }
            let pause = pause(clock::monotonic().saturating_sub(began));
            smol::Timer::after(pause).await;
            let quiet = async {
                smol::Timer::after(Duration::from_secs(COUNT_S).saturating_sub(pause)).await;
            };
            smol::future::or(intake.agents_changed.wait(), quiet).await;
        }
    }

    fn is_due(&self, row: &HistoryRow) -> bool {
        let rows = self.rows.borrow();
        let Some(last) = rows.back() else { return true };
        let age = row.time.saturating_sub(last.time);
        // A clock that was set back: the row replaces those of the time that did not come.
        age >= EVERY_S || ((age >= COUNT_S || row.time < last.time) && HistoryRow { time: last.time, ..row.clone() } != *last)
    }

    /// Takes a row, and forgets what is too old or too dense; what is to be written.
    fn add(&self, row: HistoryRow) -> Vec<Change> {
        let mut rows = self.rows.borrow_mut();
        // A clock that was set back: its rows replace those of the time that did not come.
        let mut out: Vec<Change> = Vec::new();
        while let Some(last) = rows.pop_back_if(|last| last.time >= row.time) {
            out.push(gone(&last));
        }
        let now = row.time;
        out.push(Change { table: Table::History, key: key(now), value: Some(json::to_string(&row)) });
        rows.push_back(row);
        let mut hour = None;
        rows.retain(|row| {
            let age = now.saturating_sub(row.time);
            let first = hour.replace(row.time / SPARSE_EVERY_S) != Some(row.time / SPARSE_EVERY_S);
            let kept = age <= DENSE_S || (age <= KEPT_S && first);
            if !kept {
                out.push(gone(row));
            }
            kept
        });
        out
    }
}

/// How long to wait after a count that took so long.
fn pause(took: Duration) -> Duration {
    (took * SHARE).clamp(PAUSE, Duration::from_secs(EVERY_S))
}

fn key(time: u64) -> String {
    format!("{time:012}")
}

fn gone(row: &HistoryRow) -> Change {
    Change { table: Table::History, key: key(row.time), value: None }
}

/// Counts the fleet as it is now, a slice at a time.
async fn count(site: &Rc<Site>, intake: &Intake, now: u64) -> Result<HistoryRow, String> {
    // What rang is perhaps still on its way to the disk.
    site.store.durable().await?;
    let mut row = HistoryRow { time: now, ..Default::default() };
    let mut versions = BTreeMap::new();
    {
        let registry = site.registry.borrow();
        for director in registry.agents.values().filter(|d| d.removed_at.is_none()) {
            row.directors += 1;
            row.online += u64::from(now.saturating_sub(registry.last_contact(&director.id)) <= OFFLINE_AFTER_S);
            *versions.entry(director.version.clone()).or_default() += 1;
        }
    }
    let (mut agent_versions, mut failures, mut updating) = (BTreeMap::new(), BTreeMap::new(), 0);
    let mut after: Option<(String, String)> = None;
    loop {
        let cursor = after.as_ref().map(|(d, a)| (d.as_str(), a.as_str()));
        let slice = intake.agents(site, None, cursor, SLICE).await?;
        for agent in &slice {
            row.agents += 1;
            row.agents_online += u64::from(agent.online == Some(true));
            updating += u64::from(agent.scheduled_version.is_some());
            *agent_versions.entry(agent.version.clone().unwrap_or_default()).or_default() += 1;
            if is_failure(agent.state.as_deref().unwrap_or_default()) {
                *failures.entry(agent.code.clone().unwrap_or_default()).or_default() += 1;
            }
        }
        after = slice.last().map(|a| (a.director.clone(), a.id.clone()));
        if slice.len() < SLICE || row.agents >= AGENTS_MAX as u64 {
            break;
        }
        smol::future::yield_now().await;
    }
    row.agents_updating = Some(updating);
    (row.versions, row.agent_versions, row.failures) = (most(versions), most(agent_versions), most(failures));
    Ok(row)
}

/// A word of an end that is a failure.
fn is_failure(state: &str) -> bool {
    End::ALL.into_iter().any(|end| end.is_failure() && end.word() == state)
}

/// The most frequent names, and the others as one.
pub fn most(counts: BTreeMap<String, u64>) -> Vec<CountRow> {
    let short = |name: String| if name.is_empty() { "unknown".to_string() } else { name.chars().take(NAME_MAX).collect() };
    let mut all: Vec<CountRow> = counts.into_iter().map(|(name, count)| CountRow { name: short(name), count }).collect();
    all.sort_by(|a, b| b.count.cmp(&a.count).then(a.name.cmp(&b.name)));
    let rest: u64 = all.iter().skip(NAMES_MAX).map(|c| c.count).sum();
    all.truncate(NAMES_MAX);
    if rest > 0 {
        all.push(CountRow { name: String::new(), count: rest });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_days_are_a_few_thousand_rows() {
        let history = History::default();
        let (mut written, mut removed) = (0_usize, 0_usize);
        for n in 0..100 * 288 {
            for change in history.add(HistoryRow { time: 1_000_000 + n * EVERY_S, ..Default::default() }) {
                *if change.value.is_some() { &mut written } else { &mut removed } += 1;
            }
        }
        let rows = history.rows.borrow();
        assert_eq!(rows.len(), written - removed);
        assert!((2_600..2_740).contains(&rows.len()), "{}", rows.len());
        assert!(rows.iter().zip(rows.iter().skip(1)).all(|(a, b)| a.time < b.time));
        drop(rows);
        // The clock goes back an hour.
        let back = 1_000_000 + (100 * 288 - 12) * EVERY_S;
        history.add(HistoryRow { time: back, ..Default::default() });
        assert_eq!(history.rows.borrow().back().unwrap().time, back);
    }

    #[test]
    fn a_small_fleet_is_counted_at_once_and_a_large_one_seldom() {
        assert_eq!(pause(Duration::from_millis(3)), PAUSE);
        assert_eq!(pause(Duration::from_millis(100)), Duration::from_secs(20));
        assert_eq!(pause(Duration::from_secs(60)), Duration::from_secs(EVERY_S));
        let history = History::default();
        let row = |time, agents| HistoryRow { time, agents, ..Default::default() };
        history.add(row(1_000, 0));
        // What is shown is the last count; rows that differ are a minute apart.
        *history.now.borrow_mut() = Some(row(1_003, 7));
        assert_eq!(history.last().unwrap().agents, 7);
        let due = [(1_003, 7, false), (1_060, 7, true), (1_060, 0, false), (1_300, 0, true), (900, 7, true), (900, 0, false)];
        assert!(due.into_iter().all(|(time, agents, due)| history.is_due(&row(time, agents)) == due));
    }

    #[test]
    fn a_row_has_a_limit_whatever_versions_are_called() {
        let names: BTreeMap<String, u64> = (0..1_000).map(|n| (format!("{n}{}", "\u{10ffff}".repeat(500)), n)).collect();
        let counted = most(names);
        assert_eq!((counted.len(), counted.iter().map(|c| c.count).sum::<u64>()), (NAMES_MAX + 1, 499_500));
        let row = HistoryRow { versions: counted.clone(), agent_versions: counted.clone(), failures: counted, ..Default::default() };
        assert!(json::to_string(&row).len() < ROW_MAX);
    }
}
