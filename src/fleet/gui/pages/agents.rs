//! Devices > Linux / Windows / macOS: the Directors' agents, and one of them.

use serde_json::{Value, json};

use super::list::{choice, empty, empty_to, found, search};
use super::{Templates, directors, events};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::fleet::access::encoded;
use crate::fleet::explain;
use crate::fleet::gui::ask::{Ask, value};
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;
use crate::fleet::intake::{Asked, SiteAgent};

/// Rows of a page.
const ROWS: usize = 50;
/// Rows that are read from the store at once.
const SLICE: usize = 1_000;
/// Rows that are looked through for one page: a bounded read; the next page goes on from there.
const LOOKED_MAX: usize = 20_000;
/// Events of one agent.
const EVENTS: usize = 40;

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: "/devices/linux", id: "linux", need: Act::Look, page: |ask| Box::pin(list(ask, "linux")) as Paged },
    Route { method: "GET", path: "/devices/windows", id: "windows", need: Act::Look, page: |ask| Box::pin(list(ask, "windows")) as Paged },
    Route { method: "GET", path: "/devices/macos", id: "macos", need: Act::Look, page: |ask| Box::pin(list(ask, "darwin")) as Paged },
    Route {
        method: "GET",
        path: "/devices/{os}/{director}/{agent}",
        id: "agent",
        need: Act::Look,
        page: |ask| Box::pin(detail(ask)) as Paged,
    },
];

/// Templates.
pub static TEMPLATES: Templates =
    &[("agents", include_str!("../templates/agents.html")), ("agent", include_str!("../templates/agent.html"))];

const STATES: [(&str, &str); 5] =
    [("", "All"), ("updating", "Updating"), ("failed", "Last update failed"), ("silent", "Silent"), ("connected", "Connected")];

/// Where an agent's page is.
pub fn path(os: &str, director: &str, agent: &str) -> String {
    let os = if os == "darwin" { "macos" } else { os };
    format!("/devices/{os}/{}/{}", encoded(director), encoded(agent))
}

async fn list(ask: Ask, os: &'static str) -> Result<Reply, Reason> {
    let (rows, next) = page_of(&ask, os).await?;
    let title = words::os(os);
    let names = director_names(&ask);
    let filtered = ["q", "status", "director", "after"].iter().any(|f| !ask.query.get(f).is_empty());
    let shown: Vec<Value> = rows.iter().map(|a| row(a, names(&a.director), ask.now)).collect();
    let none = match (rows.is_empty(), filtered) {
        (false, _) => Value::Null,
        (true, true) => empty_to("search", "No device fits", "Change the search or the filter.", &ask.path, "Show all"),
        (true, false) if ask.may(Act::Enroll) => {
            let next = "Create one: the wizard ends in a command that installs and enrolls an agent at its Director.";
            empty_to("device", &format!("No {title} device is known yet"), next, &format!("{}/new", ask.path), "Create a device")
        }
        (true, false) => empty("device", &format!("No {title} device is known yet"), "A device appears when its Director tells of it."),
    };
    let link = |after: &str| ask.path.clone() + &ask.query.with(&[("after", after)]);
    let context = json!({
        "live": true,
        "title": title,
        "path": ask.path,
        "rows": shown,
        "none": none,
        "director": ask.query.get("director"),
        "filters": [search(&ask, "Search", "Name, id, version, Director"), choice(&ask, "status", "Status", &STATES)],
        "has_first": !ask.query.get("after").is_empty(),
        "first": link(""),
        "next": next.map(|after| link(&after)),
        "may_create": ask.may(Act::Enroll),
    });
    Page::new(title, "agents", context).below(&[("Devices", "")]).reply()
}

/// A Director's host name by its id.
fn director_names(ask: &Ask) -> impl Fn(&str) -> String + use<> {
    let site = ask.site.clone();
    move |id: &str| site.registry.borrow().agents.get(id).map_or(id.to_string(), |d| d.hostname.clone())
}

/// The rows from the cursor on that fit, and where the next page begins.
async fn page_of(ask: &Ask, os: &str) -> Result<(Vec<SiteAgent>, Option<String>), Reason> {
    let director = ask.query.some("director");
    let mut after = ask.query.get("after").split_once('/').map(|(d, a)| (d.to_string(), a.to_string()));
    let (mut out, mut looked) = (Vec::new(), 0);
    let names = director_names(ask);
    loop {
        let cursor = after.as_ref().map(|(d, a)| (d.as_str(), a.as_str()));
        let slice = ask.intake.agents(&ask.site, director.as_deref(), cursor, SLICE).await.map_err(unread)?;
        let ended = slice.len() < SLICE;
        looked += slice.len();
        for agent in slice {
            let key = (agent.director.clone(), agent.id.clone());
            if fits(ask, &agent, os, &names(&agent.director)) {
                if out.len() == ROWS {
                    return Ok((out, after.map(|(d, a)| format!("{d}/{a}"))));
                }
                out.push(agent);
            }
            after = Some(key);
        }
        if ended {
            return Ok((out, None));
        }
        if looked >= LOOKED_MAX {
            return Ok((out, after.map(|(d, a)| format!("{d}/{a}"))));
        }
    }
}

fn fits(ask: &Ask, a: &SiteAgent, os: &str, director: &str) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let known = text(&a.os);
    let of_os = if os == "linux" { known == os || !matches!(known.as_str(), "windows" | "darwin") } else { known == os };
    let state = a.state.as_deref().unwrap_or_default();
    let of_status = match ask.query.get("status") {
        "updating" => a.scheduled_version.is_some(),
        "failed" => directors::failed(state),
        "silent" => a.online != Some(true),
        "connected" => a.online == Some(true),
        _ => true,
    };
    of_os && of_status && found(ask.query.get("q"), &[&a.id, &text(&a.hostname), &text(&a.version), director])
}

fn chip(a: &SiteAgent) -> Value {
    match (a.online, a.state.as_deref().unwrap_or_default()) {
        (Some(true), "idle" | "reported" | "enrolled" | "updated" | "already" | "") => words::chip("good", "ok", "Connected"),
        (Some(true), state) => words::state(state),
        _ => words::chip("warn", "alert", "Silent"),
    }
}

fn name(a: &SiteAgent) -> String {
    a.hostname.clone().filter(|h| !h.is_empty()).unwrap_or(a.id.clone())
}

fn row(a: &SiteAgent, director: String, now: u64) -> Value {
    let detail = a.detail.clone().filter(|_| a.state.as_deref() != Some("idle")).unwrap_or_default();
    json!({
        "name": name(a),
        "path": path(a.os.as_deref().unwrap_or("linux"), &a.director, &a.id),
        "status": chip(a),
        "why": words::sentence(&words::readable(&detail)),
        "version": a.version,
        "scheduled": a.scheduled_version,
        "arch": a.architecture,
        "director": director,
        "director_path": directors::path(&a.director),
        "seen": words::ago(if a.online == Some(true) { a.last_contact.unwrap_or(now) } else { a.last_contact.unwrap_or(0) }),
    })
}

async fn detail(ask: Ask) -> Result<Reply, Reason> {
    let (director, id) = (ask.place(1).to_string(), ask.place(2).to_string());
    let found = ask.intake.agent(&ask.site, &director, &id).await.map_err(unread)?;
    let unknown = || Reason::new("agent_unknown", format!("no Director tells of an agent '{id}'; it may have been removed there"));
    let a = found.ok_or_else(unknown)?;
    let asked = Asked { director: Some(director.clone()), agent: Some(id.clone()), limit: EVENTS, ..Default::default() };
    let told = ask.intake.activity(&ask.site, &asked).await.map_err(unread)?;
    let timeline = events::merged(&[], &told, EVENTS);
    let os = a.os.clone().unwrap_or("linux".into());
    let mut facts = Vec::new();
    let mut say = |name: &str, text: Option<String>, mono: bool| {
        facts.extend(text.filter(|t| !t.is_empty()).map(|text| json!({"name": name, "text": text, "mono": mono, "time": null})));
    };
    say("Identity", Some(a.id.clone()), true);
    say("Platform", Some(format!("{} / {}", words::os(&os), a.architecture.clone().unwrap_or("unknown".into()))), false);
    say("Runs", a.running_as.clone().map(|w| words::human(&w)), false);
    say("Other slot", a.fallback_version.clone(), false);
    say("File", a.running_sha256.clone(), true);
    say("Clock", a.clock.clone().filter(|c| c != "ok"), false);
    let mut panel = super::policy::panel(&ask, &format!("agents/{director}/{id}"), &ask.path).await?;
    let known = explain::view(&ask.intake, &ask.site, a.clone(), ask.now);
    if known.told {
        // What its Director applies, its own word with Fleet's.
        panel["counts"] = Value::Array(super::policy::in_force(&value(&known)["values"], "node"));
        panel["told"] = match known.local.as_slice() {
            [] => "As its Director applies it.".into(),
            local => format!("As its Director applies it. Set there: {}.", local.join("; ")).into(),
        };
    }
    let context = json!({
        "live": true,
        "name": name(&a),
        "status": chip(&a),
        "update": update(&a),
        "confirm": super::confirm::of_agent(&ask, &a),
        "facts": facts,
        "seen": words::ago(a.last_contact.unwrap_or(0)),
        "told": words::ago(a.told_at),
        "director": director_names(&ask)(&director),
        "director_path": directors::path(&director),
        "panel": panel,
        "no_events": timeline.is_empty(),
        "events": json!({"rows": timeline}),
        "activity": super::confirm::activity(&director, &id),
    });
    let parent = (words::os(&os).to_string(), format!("/devices/{}", if os == "darwin" { "macos" } else { &os }));
    Page::new(&name(&a), "agent", context).below(&[("Devices", ""), (&parent.0, &parent.1)]).reply()
}

/// What is known of its update, for `templates/update.html`: its Director tells no more than this.
fn update(a: &SiteAgent) -> Value {
    let state = a.state.as_deref().unwrap_or_default();
    json!({
        "version": a.version.clone().unwrap_or("Unknown".into()), "scheduled": a.scheduled_version,
        "state": if matches!(state, "idle" | "") { words::chip("good", "ok", "Idle") } else { words::state(state) },
        "percent": null, "moving": a.scheduled_version.is_some(), "detail": words::sentence(&words::readable(a.detail.as_deref().unwrap_or_default())),
        "since": a.since.map(words::ago), "until": a.deadline.map(words::at), "then": null, "retry": null, "next": null,
        "owner": words::owner(a.owner.as_deref(), "agent"), "desired": null, "latest": null, "quarantined": null, "last": null,
        "remark": null, "remedies": [], "has_remedies": false,
    })
}

fn unread(e: String) -> Reason {
    Reason::new("store_unavailable", e)
}
