//! User Action for agents: which wait for a person's word, what was confirmed, and the forms on the pages that show it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::agents::path as agent_path;
use super::directors::path as director_path;
use super::updates::{LIVES, PATH};
use super::{Templates, updates};
use crate::core::access::{Act, local_path};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::access::encoded;
use crate::fleet::confirm::{COMMAND, ConfirmationView, counts, view};
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::sentence;
use crate::fleet::gui::words;
use crate::fleet::intake::SiteAgent;

/// Agents that the table shows; the others are confirmed by Director, or all together.
const SHOWN_MAX: usize = 200;
/// Confirmations that are shown; `vmetric-fleet authorizations` lists them all.
const CONFIRMED_MAX: usize = 30;

/// Routes.
pub static ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/updates/agents",
        id: "agents-confirm",
        need: Act::Authorize,
        page: |ask| Box::pin(confirm(ask)) as Paged,
    },
    Route {
        method: "POST",
        path: "/updates/agents/revoke",
        id: "agents-confirm-revoke",
        need: Act::Authorize,
        page: |ask| Box::pin(revoke(ask)) as Paged,
    },
];

/// Templates.
pub static TEMPLATES: Templates = &[
    ("agents-waiting", include_str!("../templates/agents-waiting.html")),
    ("agents-confirmed", include_str!("../templates/agents-confirmed.html")),
    ("agent-confirm", include_str!("../templates/agent-confirm.html")),
];

/// A Director's name for people.
fn director_name(ask: &Ask, id: &str) -> String {
    let registry = ask.site.registry.borrow();
    registry.agents.get(id).map(|a| a.hostname.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| id.to_string())
}

fn name(a: &SiteAgent) -> String {
    a.hostname.clone().filter(|h| !h.is_empty()).unwrap_or(a.id.clone())
}

/// Waits for a person who has not spoken yet.
fn waits(a: &SiteAgent) -> Option<&str> {
    let spoken = a.authorization.as_ref().is_some_and(|auth| matches!(auth.state.as_str(), "waiting" | "confirmed" | "ordered"));
    a.needs.as_deref().filter(|_| !spoken)
}

/// What waits, for the page Available updates.
pub fn waiting(ask: &Ask, agents: &[SiteAgent], problem: &str) -> Value {
    let ticked: BTreeSet<String> = ask.form.all("agent").into_iter().chain(ask.form.all("site")).collect();
    let all: Vec<(&SiteAgent, &str)> = agents.iter().filter_map(|a| Some((a, waits(a)?))).collect();
    let row = |(a, version): &(&SiteAgent, &str)| {
        let value = format!("{}/{}/{version}", a.director, a.id);
        json!({
            "checked": ticked.contains(&value), "value": value, "name": name(a), "version": a.version, "next": version,
            "path": agent_path(a.os.as_deref().unwrap_or("linux"), &a.director, &a.id),
            "director": director_name(ask, &a.director), "director_path": director_path(&a.director),
        })
    };
    let mut sites: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    all.iter().for_each(|(a, version)| *sites.entry((&a.director, version)).or_default() += 1);
    let site = |((director, version), count): (&(&str, &str), &u64)| {
        let value = format!("{director}/{version}");
        json!({
            "checked": ticked.contains(&value), "value": value, "name": director_name(ask, director), "path": director_path(director),
            "count": words::number(*count), "version": version,
        })
    };
    let versions: BTreeSet<&str> = all.iter().map(|(_, version)| *version).collect();
    json!({
        "rows": all.iter().take(SHOWN_MAX).map(row).collect::<Vec<_>>(),
        "more": words::number(all.len().saturating_sub(SHOWN_MAX) as u64),
        "has_more": all.len() > SHOWN_MAX,
        "all": words::number(all.len() as u64),
        "sites": sites.iter().take(SHOWN_MAX).map(site).collect::<Vec<_>>(),
        "versions": versions,
        "may": ask.may(Act::Authorize),
        "lives": LIVES.map(|(value, label)| json!({"value": value, "label": label})),
        "csrf": ask.who.csrf,
        "problem": problem,
    })
}

/// What was confirmed, and what became of it.
pub fn confirmed(ask: &Ask) -> Value {
    let views: Vec<ConfirmationView> = {
        let registry = ask.site.registry.borrow();
        registry.confirmations().into_iter().take(CONFIRMED_MAX).map(|row| view(&ask.intake, row, ask.now)).collect()
    };
    let rows: Vec<Value> = views
        .iter()
        .map(|c| {
            let whom = match c.agents.as_ref().map(Vec::len) {
                None => "every agent that waited".to_string(),
                Some(1) => "1 agent".into(),
                Some(n) => format!("{n} agents"),
            };
            json!({
                "id": c.id, "version": c.version, "director": director_name(ask, &c.director), "path": director_path(&c.director),
                "whom": whom, "by": words::by(&c.by), "at": words::ago(c.given_at), "until": words::at(c.expires_at), "status": chip(&c.state),
                "so_far": counts(c), "why": sentence(c.detail.as_deref().unwrap_or_default()),
                "revocable": ask.may(Act::Authorize) && matches!(c.state.as_str(), "handed" | "open") && c.expires_at > ask.now,
            })
        })
        .collect();
    json!({"rows": rows, "csrf": ask.who.csrf, "back": PATH})
}

fn chip(state: &str) -> Value {
    match state {
        "handed" | "revoking" => words::chip("busy", "update", &words::human(state)),
        "open" => words::chip("busy", "update", "Under way"),
        "revoked" => words::chip("quiet", "pause", "Revoked"),
        other => words::state(other),
    }
}

/// The state of a person's word, and the form, on one agent's page.
pub fn of_agent(ask: &Ask, a: &SiteAgent) -> Value {
    let authorization = a.authorization.as_ref().map(|auth| {
        let open = matches!(auth.state.as_str(), "waiting" | "confirmed" | "ordered");
        json!({
            "version": auth.version, "status": chip(&auth.state), "by": words::by(&auth.by), "at": words::ago(auth.at),
            "until": if open { words::at(auth.expires_at) } else { Value::Null },
            "why": sentence(auth.detail.as_deref().unwrap_or_default()),
            "id": auth.id.clone().filter(|_| open && ask.may(Act::Authorize)), "here": auth.id.is_none(),
        })
    });
    let needs = waits(a);
    let life = LIVES.map(|(value, label)| (value, label));
    json!({
        "shown": needs.is_some() || authorization.is_some(),
        "needs": needs,
        "value": needs.map(|version| format!("{}/{}/{version}", a.director, a.id)),
        "may": ask.may(Act::Authorize),
        "ttl": Input::select("ttl", "Good for", &life).json(),
        "authorization": authorization,
        "csrf": ask.who.csrf,
        "back": ask.path,
    })
}

/// What was chosen: for each version agents, or whole Directors; each for the version that it was shown with.
#[derive(Default)]
struct Chosen {
    agents: BTreeMap<String, Vec<String>>,
    sites: BTreeSet<(String, String)>,
    all: BTreeSet<String>,
}

fn chosen(ask: &Ask) -> Chosen {
    let mut out = Chosen::default();
    if ask.form.has("all") {
        out.all = ask.form.all("version").into_iter().collect();
        return out;
    }
    for value in ask.form.all("site") {
        out.sites.extend(value.split_once('/').map(|(director, version)| (director.to_string(), version.to_string())));
    }
    for value in ask.form.all("agent") {
        let Some((agent, version)) = value.rsplit_once('/') else { continue };
        let covered = agent.split_once('/').is_some_and(|(director, _)| out.sites.contains(&(director.into(), version.into())));
        if !covered {
            out.agents.entry(version.to_string()).or_default().push(agent.to_string());
        }
    }
    out
}

async fn confirm(ask: Ask) -> Result<Reply, Reason> {
    let chosen = chosen(&ask);
    let give = |version: &String| AdminWire {
        command: COMMAND.into(),
        act: Some("give".into()),
        version: Some(version.clone()),
        ttl_s: ask.form.get("ttl").parse().ok(),
        ..Default::default()
    };
    let all = chosen.all.iter().map(|version| AdminWire { all: Some(true), ..give(version) });
    let sites = chosen.sites.iter().map(|(director, version)| AdminWire { director: Some(director.clone()), ..give(version) });
    let agents = chosen.agents.iter().map(|(version, agents)| AdminWire { agents: Some(agents.clone()), ..give(version) });
    let wires: Vec<AdminWire> = all.chain(sites).chain(agents).collect();
    let back = back(&ask);
    if wires.is_empty() {
        return again(&ask, &back, "Choose at least one agent or Director that waits.").await;
    }
    let (mut versions, mut directors) = (BTreeSet::new(), BTreeSet::new());
    for wire in wires {
        match ask.command(wire).await {
            Ok(done) => {
                for c in done["confirmations"].as_array().into_iter().flatten() {
                    versions.extend(c["version"].as_str().map(str::to_string));
                    directors.extend(c["director"].as_str().map(str::to_string));
                }
            }
            Err(reason) => return again(&ask, &back, &sentence(&reason.detail)).await,
        }
    }
    let versions: Vec<String> = versions.into_iter().collect();
    let whom = if directors.len() == 1 {
        "their Director carries it out".to_string()
    } else {
        format!("{} Directors carry it out", directors.len())
    };
    Ok(Reply::See(back, Toast::good(format!("{} was confirmed; {whom}.", versions.join(" and ")))))
}

/// The page that the form came from, with what is wrong.
async fn again(ask: &Ask, back: &str, problem: &str) -> Result<Reply, Reason> {
    if back == PATH {
        return updates::list_with(ask, "", problem).await;
    }
    Ok(Reply::See(back.into(), Some(Toast { bad: true, text: problem.into() })))
}

fn back(ask: &Ask) -> String {
    match ask.form.get("back") {
        "" => PATH.to_string(),
        path => local_path(path).to_string(),
    }
}

async fn revoke(ask: Ask) -> Result<Reply, Reason> {
    let id = ask.form.get("id").to_string();
    let wire = AdminWire { command: COMMAND.into(), act: Some("revoke".into()), revoke: Some(id), ..Default::default() };
    super::acts::done(&ask, wire, back(&ask), "The confirmation is taken back; what has switched already goes on to its end".into()).await
}

/// Where all that was told of an agent's confirmation stands.
pub fn activity(director: &str, agent: &str) -> String {
    format!("/activity?director={}&agent={}", encoded(director), encoded(agent))
}
