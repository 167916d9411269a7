//! Activity: what Fleet noted and what Directors told, by period.

use serde_json::{Value, json};

use super::list::{Part, choice, empty, empty_to, found, search, sizes};
use super::{Templates, events};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::records::Event;
use crate::director::store::Table;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::intake::{Asked, Told};

/// Events that can be leafed through; a filter finds older ones.
const DEEP: usize = 2_000;
/// Directors whose own word is mixed in without being asked for: each is a look into the store.
const MIXED_MAX: usize = 100;

/// Routes.
pub static ROUTES: &[Route] =
    &[Route { method: "GET", path: "/activity", id: "activity", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged }];

/// Templates.
pub static TEMPLATES: Templates = &[("activity", include_str!("../templates/activity.html"))];

/// Periods of the filters, with their seconds.
pub const PERIODS: [(&str, &str, u64); 5] = [
    ("24h", "Last 24 hours", 86_400),
    ("7d", "Last 7 days", 7 * 86_400),
    ("30d", "Last 30 days", 30 * 86_400),
    ("90d", "Last 90 days", 90 * 86_400),
    ("all", "All time", u64::MAX),
];

/// Since when the chosen period is.
pub fn since(ask: &Ask) -> u64 {
    let chosen = PERIODS.iter().find(|(word, ..)| *word == ask.query.get("period"));
    let (_, _, seconds) = chosen.unwrap_or(&PERIODS[1]);
    ask.now.saturating_sub(*seconds)
}

/// The filter.
pub fn periods(ask: &Ask) -> Value {
    let options = PERIODS.map(|(word, label, _)| (word, label));
    let mut field = choice(ask, "period", "Period", &options);
    if ask.query.get("period").is_empty() {
        field["options"][1]["chosen"] = true.into();
    }
    field
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let part = Part::of(&ask);
    let unread = |e: String| Reason::new("store_unavailable", e);
    let (since, word) = (since(&ask), ask.query.get("q").to_string());
    let (director, agent) = (ask.query.some("director"), ask.query.some("agent"));
    let wanted = (part.from + part.size + 1).min(DEEP);
    let own: Vec<Event> = if agent.is_some() {
        Vec::new()
    } else {
        let (director, word) = (director.clone(), word.clone());
        let fits = move |e: &Event| {
            e.time >= since && director.as_ref().is_none_or(|d| e.agent == *d) && found(&word, &[&e.agent, &e.code, &e.detail, &e.version])
        };
        ask.site.store.newest(Table::Activity, wanted, fits).await.map_err(unread)?
    };
    let mixed = director.is_some() || ask.site.registry.borrow().agents.len() <= MIXED_MAX;
    let told: Vec<Told> = if mixed {
        let asked = Asked {
            director: director.clone(),
            agent: agent.clone(),
            limit: if word.is_empty() { wanted } else { DEEP },
            ..Default::default()
        };
        let told = ask.intake.activity(&ask.site, &asked).await.map_err(unread)?;
        told.into_iter().filter(|e| e.time >= since && found(&word, &[&e.director, &e.agent, &e.code, &e.detail, &e.version])).collect()
    } else {
        Vec::new()
    };
    let rows = events::merged(&own, &told, wanted);
    let total = rows.len();
    let rows: Vec<Value> = rows.into_iter().skip(part.from).take(part.size).collect();
    let filtered = ["q", "director", "agent", "period", "page"].iter().any(|f| !ask.query.get(f).is_empty());
    let none = match (rows.is_empty(), filtered) {
        (false, _) => Value::Null,
        (true, true) => empty_to("search", "Nothing fits", "Choose a longer period, or another word.", "/activity?period=all", "Show all"),
        (true, false) => empty("pulse", "Nothing has been noted", "What Fleet and its Directors do appears here as it happens."),
    };
    let mut pager = part.pager(&ask, total);
    pager["total"] = if total >= wanted && wanted > 0 { "many".into() } else { pager["total"].clone() };
    let context = json!({
        "live": part.from == 0,
        "rows": rows,
        "none": none,
        "pager": pager,
        "director": director,
        "agent": agent,
        "mixed": mixed,
        "filters": [search(&ask, "Search", "Name, event, version, words"), periods(&ask), sizes(&ask)],
    });
    Page::new("Activity", "activity", context).below(&[("Monitoring", "")]).reply()
}
