//! The overview, to be left open on a wall: versions over time, roll-outs, failures by reason, sites that fell silent.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Templates, directors, rollouts};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::core::rollout::{End, OFFLINE_AFTER_S};
use crate::director::registry::Registry;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::charts;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words::{self, number};
use crate::fleet::history::{CountRow, HistoryRow, NAMES_MAX, most};

/// Rows of each list; the pages behind them have all.
const LIST: usize = 8;
/// How far back failures count, seconds: 30 days.
const FAILURES_S: u64 = 30 * 86_400;
/// Colours of a chart.
const CLASSES: [&str; NAMES_MAX] = ["k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"];
/// Spans of the charts.
const SPANS: [(&str, &str, u64); 3] = [("48h", "48 hours", 48 * 3_600), ("7d", "7 days", 7 * 86_400), ("90d", "90 days", 90 * 86_400)];

/// Routes.
pub static ROUTES: &[Route] =
    &[Route { method: "GET", path: "/", id: "overview", need: Act::Look, page: |ask| Box::pin(overview(ask)) as Paged }];

/// Templates.
pub static TEMPLATES: Templates =
    &[("overview", include_str!("../templates/overview.html")), ("chart", include_str!("../templates/chart.html"))];

async fn overview(ask: Ask) -> Result<Reply, Reason> {
    let (word, _, span) = *SPANS.iter().find(|(word, ..)| *word == ask.query.get("span")).unwrap_or(&SPANS[0]);
    let history = ask.gui.history();
    let from = ask.now.saturating_sub(span);
    let rows = history.since(from);
    let last = history.last().unwrap_or_default();
    let registry = ask.site.registry.borrow();
    let live: Vec<_> = registry.agents.values().filter(|d| d.removed_at.is_none()).collect();
    let mut silent: Vec<_> =
        live.iter().map(|d| (registry.last_contact(&d.id), d)).filter(|(at, _)| ask.now.saturating_sub(*at) > OFFLINE_AFTER_S).collect();
    silent.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let all = registry.rollouts_view(ask.now).rollouts;
    let running: Vec<Value> =
        all.iter().filter(|r| matches!(r.state.as_str(), "running" | "halted")).take(LIST).map(|r| rollouts::row(r, "o")).collect();
    let halted = all.iter().filter(|r| r.state == "halted").count();
    let updating = live.iter().filter(|d| d.scheduled_version.is_some()).count();
    let waiting = registry.pending_views(ask.now).count();
    let mut now: BTreeMap<String, u64> = BTreeMap::new();
    live.iter().for_each(|d| *now.entry(d.version.clone()).or_default() += 1);
    let fallen = silent
        .iter()
        .take(LIST)
        .map(|(at, d)| json!({"name": d.hostname, "path": directors::path(&d.id), "seen": words::ago(*at), "version": d.version}));
    let failures = failures(&registry, &last, ask.now);
    let (sites, more_sites) = moving(&ask, live.iter().map(|d| (d.id.as_str(), d.hostname.as_str())));
    let updating_agents = last.agents_updating.unwrap_or(0);
    let spans = SPANS.map(|(w, label, _)| json!({"word": label, "path": format!("/?span={w}"), "here": w == word}));
    let context = json!({
        "live": true,
        "empty": live.is_empty() && waiting == 0,
        "first": super::list::empty_to("server", "Nothing to watch yet", "Enroll a Director: make an API key, run the command that comes with it, and it appears here.", directors::CREATE, "Create a Director"),
        "tiles": [
            tile("Directors", live.len() as u64, &format!("{} connected", number((live.len() - silent.len()) as u64)), directors::PATH, ""),
            tile("Agents", last.agents, &format!("{} connected", number(last.agents_online)), "/devices/linux", ""),
            tile("Silent Directors", silent.len() as u64, "for over 3 minutes", "/fleet-management/directors?status=silent", if silent.is_empty() { "good" } else { "warn" }),
            tile("Updating", updating as u64 + updating_agents, &format!("{} Directors", number(updating as u64)), "/fleet-management/directors?status=updating", ""),
            tile("Halted roll-outs", halted as u64, "wait for a person", "/rollouts", if halted == 0 { "good" } else { "bad" }),
            tile("To approve", waiting as u64, "new Directors", directors::PATH, if waiting == 0 { "" } else { "warn" }),
        ],
        "spans": spans,
        "directors": chart("Directors by version", &rows, |r| &r.versions, (ask.now, most(now)), (from, ask.now)),
        "agents": chart("Agents by version", &rows, |r| &r.agent_versions, (last.time, last.agent_versions.clone()), (from, ask.now)),
        "rollouts": running,
        "idle": running.is_empty() && sites.is_empty(),
        "sites": sites,
        "more_sites": more_sites,
        "failures": failures,
        "no_failures": failures.is_empty(),
        "silent": fallen.collect::<Vec<_>>(),
        "no_silent": silent.is_empty(),
        "more_silent": silent.len().saturating_sub(LIST),
    });
    drop(live);
    drop(registry);
    Page::new("Overview", "overview", context).reply()
}

/// Directors whose agents are being updated, and how many more there are than are shown.
fn moving<'a>(ask: &Ask, live: impl Iterator<Item = (&'a str, &'a str)>) -> (Vec<Value>, usize) {
    let (mut out, mut more) = (Vec::new(), 0);
    for (id, name) in live {
        let counts: Vec<(String, u64)> = ask
            .intake
            .with_health(id, |h| h.agents.iter().flatten().map(|c| (c.state.clone(), c.count)).filter(|(_, n)| *n > 0).collect())
            .unwrap_or_default();
        let toned: Vec<(Value, u64)> = counts.iter().map(|(state, n)| (words::state(state), *n)).collect();
        let is_moving = |chip: &Value, state: &str| chip["tone"] == "busy" || matches!(state, "waiting_turn" | "ordered");
        if !toned.iter().zip(&counts).any(|((chip, _), (state, _))| is_moving(chip, state)) {
            continue;
        }
        if out.len() == LIST {
            more += 1;
            continue;
        }
        let class = |tone: &Value| match tone.as_str() {
            Some("good") => "kgood",
            Some("bad") => "kbad",
            Some("warn") => "kwarn",
            Some("busy") => "kbusy",
            _ => "kwait",
        };
        let parts: Vec<(&str, u64)> = toned.iter().map(|(chip, n)| (class(&chip["tone"]), *n)).collect();
        let total: u64 = counts.iter().map(|(_, n)| n).sum();
        out.push(json!({
            "name": name, "path": format!("/devices/linux?director={}", crate::fleet::access::encoded(id)), "total": number(total),
            "meter": charts::meter(&parts, total),
            "counts": toned.into_iter().map(|(chip, n)| json!({"chip": chip, "count": number(n)})).collect::<Vec<_>>(),
        }));
    }
    (out, more)
}

fn tile(name: &str, n: u64, about: &str, path: &str, tone: &str) -> Value {
    json!({"name": name, "n": number(n), "about": about, "path": path, "tone": tone})
}

/// A chart with its numbers: `now` is the last count, and when that was. The names are those of now and of the rows, the most frequent of now first.
fn chart(
    title: &str,
    rows: &[HistoryRow],
    of: fn(&HistoryRow) -> &Vec<CountRow>,
    (at, now): (u64, Vec<CountRow>),
    (from, until): (u64, u64),
) -> Value {
    let mut names: Vec<String> = Vec::new();
    for count in now.iter().chain(rows.iter().rev().flat_map(|row| of(row).iter())) {
        if names.len() < CLASSES.len() - 1 && !count.name.is_empty() && !names.contains(&count.name) {
            names.push(count.name.clone());
        }
    }
    let split = |counts: &[CountRow]| {
        let mut out: Vec<u64> = names.iter().map(|n| counts.iter().find(|c| c.name == *n).map_or(0, |c| c.count)).collect();
        out.push(counts.iter().map(|c| c.count).sum::<u64>() - out.iter().sum::<u64>());
        out
    };
    let mut series: Vec<(u64, Vec<u64>)> = rows.iter().map(|row| (row.time, split(of(row)))).collect();
    series.push((at.min(until), split(&now)));
    // Before the first one was heard of there is nothing to see; what did not change needs no point.
    let first = series.iter().position(|(_, counts)| counts.iter().any(|n| *n > 0)).unwrap_or(series.len());
    series.drain(..first);
    series.dedup_by(|b, a| a.1 == b.1);
    let total: u64 = now.iter().map(|c| c.count).sum();
    let counts = split(&now);
    let share = |n: u64| (n * 100 + total / 2).checked_div(total).unwrap_or(0);
    let named = names.iter().map(String::as_str).chain(["others"]);
    let legend: Vec<Value> = named
        .zip(counts)
        .zip(CLASSES)
        .filter(|((name, n), _)| *n > 0 || *name != "others")
        .map(|((name, n), class)| json!({"name": name, "class": class, "count": number(n), "share": share(n)}))
        .collect();
    let peak = series.iter().map(|(_, c)| c.iter().sum::<u64>()).max().unwrap_or(0);
    // An area has a width, also in the first seconds.
    let begins = series.first().map_or(from, |(time, _)| (*time).max(from)).min(until.saturating_sub(1));
    let classes: Vec<&str> = CLASSES.iter().copied().take(names.len() + 1).collect();
    json!({
        "title": title,
        "key": title.split(' ').next().unwrap_or_default().to_lowercase(),
        "svg": charts::stacked(&series, &classes, begins, until),
        "legend": legend,
        "none": total == 0 && peak == 0,
        "peak": number(peak),
        "from": words::at(begins),
    })
}

/// Failures of the last 30 days by reason: the Directors' orders, and the agents whose last update failed.
fn failures(registry: &Registry, last: &HistoryRow, now: u64) -> Vec<Value> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for order in registry.orders.values().filter(|o| o.since + FAILURES_S >= now && o.end().is_some_and(End::is_failure)) {
        counts.entry(order.code.clone()).or_default().0 += 1;
    }
    for count in &last.failures {
        counts.entry(count.name.clone()).or_default().1 += count.count;
    }
    let mut rows: Vec<(String, (u64, u64))> = counts.into_iter().collect();
    rows.sort_by_key(|(_, (directors, agents))| std::cmp::Reverse(directors + agents));
    let most = rows.first().map_or(1, |(_, (d, a))| d + a);
    let row = |(code, (d, a)): &(String, (u64, u64))| {
        let name = if code.is_empty() { "Other reasons".to_string() } else { words::human(code) };
        json!({"name": name, "directors": number(*d), "agents": number(*a), "meter": charts::meter(&[("kbad", d + a)], most)})
    };
    rows.iter().take(LIST).map(row).collect()
}
