//! Lists in pages, each with the place where the next one begins.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use miniserde::json::{self, Value};
use miniserde::{Deserialize, Serialize};

use super::fields::Parsed;
use super::renamed;
use crate::core::reason::Reason;
use crate::director::activity;
use crate::director::commands::store_error;
use crate::director::records::Event;
use crate::director::site::Site;
use crate::director::store::{Slice, Table};
use crate::director::views::AgentView;
use crate::fleet::intake::{Asked, Intake, SiteAgent, Told};
use crate::io::clock;

/// Rows of a page without `limit`.
const PAGE: u64 = 200;
/// Events that are looked through for one page: a bounded read, however few of them fit.
const LOOKED_MAX: usize = 10_000;

/// What every list is.
type Listed = Pin<Box<dyn Future<Output = Result<String, Reason>>>>;

/// A page of Directors.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct DirectorsPage {
    /// In the order of their ids.
    pub directors: Vec<AgentView>,
    /// Where the next page begins; absent: this is the last one.
    pub next: Option<String>,
    /// Fleet's time.
    pub time: u64,
}

/// A page of the Directors' agents.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct AgentsPage {
    /// In the order of Director and id.
    pub agents: Vec<SiteAgent>,
    /// Where the next page begins; absent: this is the last one.
    pub next: Option<String>,
    /// Fleet's time.
    pub time: u64,
}

/// A page of Fleet's own activity.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ActivityPage {
    /// Oldest first.
    pub events: Vec<Event>,
    /// What `after` is for the next page, now or later.
    pub next: u64,
    /// There are more already.
    pub more: bool,
    /// Fleet's time.
    pub time: u64,
}

/// What Directors told.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ToldPage {
    /// Oldest first.
    pub events: Vec<Told>,
    /// Fleet's time.
    pub time: u64,
}

fn limit(parsed: &Parsed) -> usize {
    usize::try_from(parsed.wire.limit.unwrap_or(PAGE)).unwrap_or(1)
}

/// The document with this server's words.
fn text(page: &impl Serialize) -> String {
    let text = json::to_string(page);
    json::from_str::<Value>(&text).map_or(text, |value| json::to_string(&renamed(value)))
}

/// `GET /api/v1/directors`.
pub fn directors(site: Rc<Site>, _intake: Option<Rc<Intake>>, parsed: Parsed) -> Listed {
    Box::pin(async move {
        let now = clock::unix();
        let view = site.registry.borrow().agents_view(now);
        let (after, most) = (parsed.after.clone().unwrap_or_default(), limit(&parsed));
        let fits = |a: &AgentView| {
            a.id > after
                && parsed.wire.version.as_ref().is_none_or(|v| a.version == *v)
                && parsed.state.as_ref().is_none_or(|s| a.state == *s)
        };
        let mut directors: Vec<AgentView> = view.agents.into_iter().filter(fits).collect();
        directors.sort_by(|a, b| a.id.cmp(&b.id));
        let more = directors.len() > most;
        directors.truncate(most);
        let next = directors.last().filter(|_| more).map(|d| d.id.clone());
        Ok(text(&DirectorsPage { directors, next, time: now }))
    })
}

/// `GET /api/v1/agents`.
pub fn agents(site: Rc<Site>, intake: Option<Rc<Intake>>, parsed: Parsed) -> Listed {
    Box::pin(async move {
        let after = match &parsed.after {
            None => None,
            Some(text) => Some(text.split_once('/').ok_or_else(|| Reason::new("bad_request", "after: expected `next` of a page"))?),
        };
        let most = limit(&parsed);
        let intake = intake.ok_or_else(not_ready)?;
        let mut agents = intake.agents(&site, parsed.director.as_deref(), after, most + 1).await.map_err(store_error)?;
        let more = agents.len() > most;
        agents.truncate(most);
        let next = agents.last().filter(|_| more).map(|a| format!("{}/{}", a.director, a.id));
        // Here an agent is an agent.
        Ok(json::to_string(&AgentsPage { agents, next, time: clock::unix() }))
    })
}

/// `GET /api/v1/activity`.
pub fn activity(site: Rc<Site>, _intake: Option<Rc<Intake>>, parsed: Parsed) -> Listed {
    Box::pin(async move {
        // What an earlier answer promised to be there is there.
        site.store.durable().await.map_err(store_error)?;
        let most = limit(&parsed);
        let first = parsed.after_seq.map_or(0, |seq| seq.saturating_add(1));
        let keys = activity::key(first)..activity::key(u64::MAX);
        let slice =
            Slice { rows: LOOKED_MAX.min(if parsed.director.is_some() { LOOKED_MAX } else { most + 1 }), bytes: 8 << 20, newest: false };
        let rows = site.store.range(Table::Activity, keys, slice).await.map_err(store_error)?;
        let full = rows.len() == slice.rows;
        let (mut events, mut next, mut more) = (Vec::new(), first.saturating_sub(1), false);
        for event in rows.iter().filter_map(|(_, text)| json::from_str::<Event>(text).ok()) {
            if events.len() == most {
                more = true;
                break;
            }
            next = event.seq;
            if parsed.director.as_ref().is_none_or(|d| event.agent == *d) {
                events.push(event);
            }
        }
        Ok(text(&ActivityPage { events, next, more: more || full, time: clock::unix() }))
    })
}

/// `GET /api/v1/told`.
pub fn told(site: Rc<Site>, intake: Option<Rc<Intake>>, parsed: Parsed) -> Listed {
    Box::pin(async move {
        let asked =
            Asked { director: parsed.director.clone(), agent: parsed.agent.clone(), update: parsed.update.clone(), limit: limit(&parsed) };
        let events = intake.ok_or_else(not_ready)?.activity(&site, &asked).await.map_err(store_error)?;
        Ok(json::to_string(&ToldPage { events, time: clock::unix() }))
    })
}

fn not_ready() -> Reason {
    Reason::new("not_ready", "Fleet has not read its store yet")
}
