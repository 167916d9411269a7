//! Bytes that agents may fetch here (and the mirror fetches, see [`super::allowance`]): per day, per second, and how many of them at once (`limits:` of `vmetric.yml`).
//!
//! What a request asks for is counted durably before its first byte goes out, and what was not sent is given back: neither a
//! crash nor requests at the same time can exceed a day's bytes, and a download that goes on counts no byte twice. There is
//! no way around it: whatever an agent falls back to (a whole file, another path, a first install), it is these bytes.
//!
//! | answer | code | when |
//! |---|---|---|
//! | 429 | `bytes_per_day`, `file_over_limit` | see [`crate::core::budget`]; `Retry-After` |
//! | 429 | `downloads_busy` | too many at once |

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize};

use super::config::Config;
use super::registry::Registry;
use super::service::retry_after;
use super::site::Site;
use super::store::Table;
use super::tree::{DOWNLOADS_MAX, Permit, RETRY_AFTER_S};
use crate::core::budget::{Pace, Spent, give_back, take};
use crate::core::reason::Reason;
use crate::core::schedule::{Cron, Zone};
use crate::io::clock;
use crate::io::serve::{Answer, Body, Flow, Response};

/// Longest `Retry-After`: a limit may be raised before the day is over.
const WAIT_MAX_S: u64 = 1800;
/// Pieces of a slowed body in a second, so that it is steady.
const PIECES_PER_S: u64 = 8;
/// Smallest and largest of them, bytes.
const PIECE: (u64, u64) = (1024, 32 * 1024);
/// The Director's own row; agents' ids have no colon.
const ALL: &str = "director:";

/// What was sent on a day: a row of the store.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct SpentRow {
    /// An agent's id, or the Director's own row.
    pub who: String,
    /// The day in the zone of the settings.
    pub day: String,
    /// Bytes taken.
    pub bytes: u64,
}

/// Limits in force and what was used of them.
#[derive(Debug)]
pub struct Metering {
    /// Bytes a day to all agents, and to one.
    pub per_day: [Option<u64>; 2],
    /// Bytes a second to all agents, and to one.
    pub per_second: [Option<u64>; 2],
    /// Downloads at once.
    pub downloads: usize,
    /// In which a day begins at midnight.
    pub zone: Zone,
    /// By [`SpentRow::who`].
    pub spent: BTreeMap<String, SpentRow>,
    paces: BTreeMap<String, Pace>,
    /// Who was refused for want of bytes, on which day and why.
    pub refused: BTreeMap<String, (String, Reason)>,
}

impl Default for Metering {
    fn default() -> Metering {
        let (spent, paces, refused) = Default::default();
        Metering { per_day: [None; 2], per_second: [None; 2], downloads: DOWNLOADS_MAX, zone: Zone::utc(), spent, paces, refused }
    }
}

impl Metering {
    /// Takes over what the file says.
    pub fn configure(&mut self, config: &Config, local: &Zone) {
        let value = |at: &Option<super::config::fields::At<u64>>| at.as_ref().map(|at| at.value);
        let limits = &config.limits;
        self.per_day = [value(&limits.bytes_per_day), value(&limits.agent_bytes_per_day)];
        self.per_second = [value(&limits.bytes_per_second), value(&limits.agent_bytes_per_second)];
        self.downloads = value(&limits.downloads).and_then(|n| n.try_into().ok()).unwrap_or(DOWNLOADS_MAX);
        let zone = config.time_zone.as_ref().map(|z| Zone::parse(&z.value, local));
        self.zone = zone.and_then(Result::ok).unwrap_or_else(|| local.clone());
        // Whom a limit of before kept waiting is told by the one in force, if it is still so.
        self.refused.clear();
    }

    /// The day that it is.
    pub fn today(&self, now: u64) -> String {
        self.zone.rfc3339(now).chars().take(10).collect()
    }

    fn until_midnight(&self, now: u64) -> u64 {
        let midnight = Cron::parse("0 0 * * *").ok().and_then(|cron| cron.next_after(now, &self.zone));
        midnight.map_or(WAIT_MAX_S, |at| at.saturating_sub(now)).clamp(1, WAIT_MAX_S)
    }

    fn rows<'a>(&self, agent: Option<&'a str>) -> Vec<(&'a str, u64, &'static str)> {
        let all = self.per_day[0].map(|limit| (ALL, limit, "this Director's"));
        let one = self.per_day[1].zip(agent).map(|(limit, agent)| (agent, limit, "this agent's"));
        all.into_iter().chain(one).collect()
    }

    fn of(&self, who: &str) -> Spent {
        self.spent.get(who).map_or_else(Spent::default, |row| Spent { day: row.day.clone(), bytes: row.bytes })
    }

    /// How long a piece of what this server fetches itself has to wait, and that it goes then.
    pub fn wait_own(&mut self, bytes: u64, now: Duration) -> Duration {
        let Some(rate) = self.per_second[0] else { return Duration::ZERO };
        self.paces.entry(ALL.into()).or_default().wait(bytes, rate, now)
    }

    /// What an agent has had today, and may have; `None` = no limit is set.
    pub fn today_of(&self, agent: &str, now: u64) -> Option<(u64, u64)> {
        Some((self.of(agent).on(&self.today(now)).bytes, self.per_day[1]?))
    }
}

impl Registry {
    fn keep_spent(&mut self, who: &str, spent: Spent) {
        let row = SpentRow { who: who.into(), day: spent.day, bytes: spent.bytes };
        self.put(Table::Spent, who.to_string(), &row);
        self.metering.spent.insert(who.into(), row);
    }

    /// Takes bytes of a day, of the Director's and of the agent's: both or none. What was taken is returned, for giving back.
    ///
    /// # Errors
    /// See the table of [`crate::core::budget`].
    pub fn take_bytes(&mut self, agent: Option<&str>, want: u64, now: u64) -> Result<Vec<(String, String)>, Reason> {
        let today = self.metering.today(now);
        let rows = self.metering.rows(agent);
        let taken: Result<Vec<(&str, Spent)>, Reason> =
            rows.into_iter().map(|(who, limit, whose)| Ok((who, take(&self.metering.of(who), limit, want, &today, whose)?))).collect();
        let taken = match taken {
            Ok(taken) => taken,
            Err(reason) => {
                let who = agent.unwrap_or(ALL).to_string();
                let first = self
                    .metering
                    .refused
                    .insert(who, (today.clone(), reason.clone()))
                    .is_none_or(|(day, r)| (day, r.code.clone()) != (today, reason.code.clone()));
                if first {
                    self.event(now, agent.unwrap_or(""), "download_refused", reason.detail.clone(), None);
                }
                return Err(reason);
            }
        };
        self.metering.refused.remove(agent.unwrap_or(ALL));
        let days = taken.iter().map(|(who, spent)| (who.to_string(), spent.day.clone())).collect();
        for (who, spent) in taken {
            self.keep_spent(who, spent);
        }
        Ok(days)
    }

    /// Gives back what was taken and not used.
    pub fn give_bytes_back(&mut self, taken: &[(String, String)], unsent: u64) {
        for (who, day) in taken.iter().filter(|_| unsent > 0) {
            let left = give_back(&self.metering.of(who), day, unsent);
            self.keep_spent(who, left);
        }
    }

    /// Forgets the counts of days that are over.
    pub fn prune_spent(&mut self, now: u64) {
        let today = self.metering.today(now);
        let old: Vec<String> = self.metering.spent.values().filter(|row| row.day < today).map(|row| row.who.clone()).collect();
        for who in old {
            self.metering.spent.remove(&who);
            self.delete(Table::Spent, who);
        }
        self.metering.refused.retain(|_, (day, _)| *day >= today);
    }
}

/// A place among the downloads at once.
///
/// # Errors
/// The answer to who finds none.
pub fn permit(site: &Site) -> Result<Permit, Response> {
    let max = site.registry.borrow().metering.downloads;
    Permit::take(&site.downloads, max).ok_or_else(|| {
        let detail = format!("{max} downloads are under way; come back later");
        Response::error(429, "downloads_busy", detail).with("retry-after", retry_after(RETRY_AFTER_S))
    })
}

/// Counts and slows the file in an answer, where there are limits. It is sent once the count is durable.
pub fn metered(site: &Rc<Site>, agent: Option<&str>, mut response: Response) -> Answer {
    let ready = |response| Box::pin(std::future::ready(response)) as Answer;
    let Body::File { length, flow, .. } = &mut response.body else { return ready(response) };
    let (counted, slowed) = {
        let m = &site.registry.borrow().metering;
        (!m.rows(agent).is_empty(), m.per_second[0].is_some() || (m.per_second[1].is_some() && agent.is_some()))
    };
    if !counted && !slowed {
        return ready(response);
    }
    let now = clock::unix();
    let taken = site.registry.borrow_mut().take_bytes(agent, *length, now);
    site.flush();
    let taken = match taken {
        Ok(taken) => taken,
        Err(reason) => {
            let wait_s = site.registry.borrow().metering.until_midnight(now);
            // Dropped first: what it holds is another download's place.
            drop(response);
            return ready(Response::error(429, &reason.code, &*reason.detail).with("retry-after", retry_after(wait_s)));
        }
    };
    *flow = Some(Box::new(Flowing { site: site.clone(), agent: agent.map(String::from), taken, unsent: (*length).into() }));
    let site = site.clone();
    Box::pin(async move {
        match site.store.durable().await {
            Ok(()) => response,
            Err(e) => super::service::unavailable(&e),
        }
    })
}

/// One body under way.
struct Flowing {
    site: Rc<Site>,
    agent: Option<String>,
    taken: Vec<(String, String)>,
    unsent: std::cell::Cell<u64>,
}

impl std::fmt::Debug for Flowing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flowing").field("agent", &self.agent).field("unsent", &self.unsent).finish_non_exhaustive()
    }
}

impl Flow for Flowing {
    fn piece(&self) -> u64 {
        let rate = self.site.registry.borrow().metering.per_second.iter().flatten().min().copied();
        rate.map_or(PIECE.1, |rate| (rate / PIECES_PER_S).clamp(PIECE.0, PIECE.1))
    }

    fn wait(&self, bytes: u64) -> Duration {
        let (m, now) = (&mut self.site.registry.borrow_mut().metering, clock::monotonic());
        let whose = [Some(ALL), self.agent.as_deref()];
        let rates = m.per_second;
        let waits = whose.into_iter().zip(rates).filter_map(|(who, rate)| Some((who?, rate?)));
        waits.map(|(who, rate)| m.paces.entry(who.into()).or_default().wait(bytes, rate, now)).max().unwrap_or_default()
    }

    fn sent(&self, bytes: u64) {
        self.unsent.set(self.unsent.get().saturating_sub(bytes));
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        // The process may be ending in the middle of a change; then the count stays too high, never too low.
        let Ok(mut registry) = self.site.registry.try_borrow_mut() else { return };
        registry.give_bytes_back(&self.taken, self.unsent.get());
        if let Some(agent) = &self.agent {
            registry.metering.paces.remove(agent);
        }
        drop(registry);
        self.site.flush();
    }
}
