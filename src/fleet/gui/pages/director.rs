//! One Director: what its update does and why, its health, what happened, and what a person can do.

use serde_json::{Value, json};

use super::directors::{self, name, path, status};
use super::{Templates, acts, clusters, events, policy};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::explain::ExplainView;
use crate::director::records::Event;
use crate::director::store::Table;
use crate::director::views::AgentView;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;
use crate::fleet::intake::Asked;
use crate::wire::fleet_api::{HealthWire, MetadataWire};

const PATH: &str = "/fleet-management/directors/{director}";

/// Routes.
pub static ROUTES: &[Route] =
    &[Route { method: "GET", path: PATH, id: "director", need: Act::Look, page: |ask| Box::pin(detail(ask)) as Paged }];

/// Templates.
pub static TEMPLATES: Templates = &[
    ("director", include_str!("../templates/director.html")),
    ("update", include_str!("../templates/update.html")),
    ("timeline", include_str!("../templates/timeline.html")),
    ("act", include_str!("../templates/act.html")),
];

/// Events on the page; the activity has them all.
const EVENTS: usize = 40;

async fn detail(ask: Ask) -> Result<Reply, Reason> {
    let id = ask.place(0).to_string();
    let (view, pending) = explained(&ask, &id)?;
    let agent = &view.agent;
    let id = agent.id.clone();
    let (health, heard_at) = ask.intake.health_of(&id).unzip();
    let told = Asked { director: Some(id.clone()), agent: Some(String::new()), limit: EVENTS, ..Default::default() };
    let told = ask.intake.activity(&ask.site, &told).await.map_err(unread)?;
    let wanted = id.clone();
    let own: Vec<Event> = ask.site.store.newest(Table::Activity, EVENTS, move |e: &Event| e.agent == wanted).await.map_err(unread)?;
    let backups: Vec<Value> = told.iter().rev().filter(|e| e.code.contains("backup")).take(5).map(events::told).collect();
    let timeline = events::merged(&own, &told, EVENTS);
    // Who waits for approval has no settings yet.
    let (panel, agents_panel) = match pending {
        true => (Value::Null, Value::Null),
        false => {
            let panel = policy::panel(&ask, &format!("node/{id}"), &path(&id)).await?;
            (panel, policy::panel(&ask, &format!("agents/{id}"), &path(&id)).await?)
        }
    };
    let context = json!({
        "live": true,
        "pending": pending,
        "id": id,
        "path": path(&id),
        "name": name(agent),
        "status": status(agent),
        "update": update(&view, "Director"),
        "facts": facts(&view),
        "health": health.as_ref().map(|h| health_of(h, heard_at.unwrap_or(0))),
        "cluster": cluster_of(&ask, &id),
        "agents": words::number(ask.intake.agents_of(&id) as u64),
        "events": json!({"rows": timeline}),
        "no_events": timeline.is_empty(),
        "backups": backups,
        "no_backups": backups.is_empty(),
        "acts": acts::of_director(&ask, &view, pending),
        "panel": panel,
        "agents_panel": agents_panel,
    });
    Page::new(name(agent), "director", context).below(&[("Fleet Management", ""), ("Directors", directors::PATH)]).reply()
}

/// The cluster that it is in, and how it stands there.
fn cluster_of(ask: &Ask, id: &str) -> Value {
    let registry = ask.site.registry.borrow();
    let view = registry.cluster_of(id).and_then(|row| registry.clusters_view(Some(&row.id), ask.now).ok());
    let Some(cluster) = view.and_then(|view| view.clusters.into_iter().next()) else { return Value::Null };
    let state = cluster.members.iter().find(|m| m.id == id).map_or("", |m| m.state.as_str());
    json!({"name": cluster.name, "path": clusters::path(&cluster.id), "state": words::member(state)})
}

fn unread(e: String) -> Reason {
    Reason::new("store_unavailable", e)
}

/// What is known of a Director, and whether it still waits for approval.
fn explained(ask: &Ask, id: &str) -> Result<(ExplainView, bool), Reason> {
    let tree = ask.site.tree.borrow().clone();
    let registry = ask.site.registry.borrow();
    if registry.known(id).is_err()
        && let Some(view) = registry.explain_pending(id, ask.now)
    {
        return Ok((view, true));
    }
    registry.known(id)?;
    Ok((registry.explain(id, &tree.releases, tree.timestamp_version, ask.now)?, false))
}

/// The state of the update, for [`templates/update.html`](super).
pub fn update(view: &ExplainView, node: &str) -> Value {
    let a = &view.agent;
    let policy = view.policy.as_ref();
    let detail = if a.detail.is_empty() { policy.map_or("", |p| &p.detail) } else { &a.detail };
    let owner = a.owner.as_deref().or(policy.and_then(|p| p.owner.as_deref()));
    let remedies: Vec<Value> = view.remedies.iter().map(|r| json!({"what": words::directors(&r.what), "command": r.command})).collect();
    json!({
        "version": if a.version.is_empty() { "Unknown" } else { &a.version },
        "scheduled": a.scheduled_version,
        "state": if a.state == "idle" { words::chip("good", "ok", "Idle") } else { words::state(&a.state) },
        "percent": a.percent,
        "moving": a.scheduled_version.is_some(),
        "detail": words::directors(&words::readable(detail)),
        "since": a.since.map(words::ago),
        "until": a.deadline.map(words::at),
        "then": view.then.as_deref().map(words::directors),
        "retry": view.retry_at.map(words::at),
        "next": policy.and_then(|p| p.next).map(words::at),
        "owner": words::owner(owner, node),
        "desired": view.desired_version,
        "latest": view.latest_version.as_ref().filter(|v| **v != a.version),
        "quarantined": view.quarantined,
        "last": view.last_result.as_ref().map(|l| json!({
            "version": l.version, "chip": words::state(&l.outcome), "detail": words::directors(&words::readable(&l.detail)), "at": words::ago(l.at), "rollout": l.rollout,
        })),
        "remark": policy.and_then(|p| p.note.clone()),
        "remedies": remedies,
        "has_remedies": !view.remedies.is_empty(),
    })
}

fn facts(view: &ExplainView) -> Vec<Value> {
    let a: &AgentView = &view.agent;
    let mut out = vec![
        json!({"name": "Identity", "text": a.id, "mono": true, "time": null}),
        json!({"name": "Platform", "text": format!("{} / {}", words::os(&a.os), a.architecture), "mono": false, "time": null}),
        json!({"name": "Last seen", "text": "", "mono": false, "time": words::ago(a.last_contact)}),
        json!({"name": "Enrolled", "text": "", "mono": false, "time": words::at(a.enrolled_at)}),
        json!({"name": "Runs", "text": running(a), "mono": false, "time": null}),
    ];
    let mut say = |name: &str, text: &Option<String>| {
        if let Some(text) = text {
            out.push(json!({"name": name, "text": text, "mono": false, "time": null}));
        }
    };
    say("Label", &a.label);
    say("Other slot", &a.fallback_version);
    say("Serial number", &a.serial);
    say("Fingerprint", &a.fingerprint);
    say("Withdrawn", &a.withdrawn);
    say("Second device", &a.second_device);
    let clock = Some(a.clock.clone()).filter(|c| !c.is_empty() && c != "ok");
    say("Clock", &clock);
    out
}

fn running(a: &AgentView) -> String {
    // The factory image's state is a name for the same.
    if a.running == a.running_as && !a.running.is_empty() {
        return format!("{} image", a.running);
    }
    let slot = match a.running.as_str() {
        "a" | "b" => format!("slot {}", a.running),
        "" => return "not told yet".into(),
        other => format!("{other} image"),
    };
    format!("{slot}, {}", a.running_as)
}

fn health_of(h: &HealthWire, heard_at: u64) -> Value {
    let counts = h.agents.iter().flatten().map(|c| json!({"chip": words::state(&c.state), "count": words::number(c.count)}));
    let metadata: Vec<Value> = h.metadata.iter().flatten().flat_map(expiries).collect();
    json!({
        "heard": words::ago(heard_at),
        "disk": h.disk_free.map(words::bytes),
        "clock": h.clock,
        "online": h.agents_online.map(words::number),
        "counts": counts.collect::<Vec<_>>(),
        "metadata": metadata,
        "mirror_error": h.mirror_error,
        "backlog": h.backlog.filter(|n| *n > 0).map(words::number),
        "started": h.started_at.map(words::ago),
        "stopping": h.stopping == Some(true),
    })
}

fn expiries(m: &MetadataWire) -> Vec<Value> {
    let roles = [
        ("root", m.root, m.root_expires),
        ("timestamp", m.timestamp, m.timestamp_expires),
        ("snapshot", m.snapshot, m.snapshot_expires),
        ("targets", m.targets, m.targets_expires),
    ];
    let of = if m.of == "own" { "own updates" } else { "mirror" };
    let row = |(role, version, end): (&str, Option<u64>, Option<u64>)| {
        version.map(|version| json!({"role": format!("{role} ({of})"), "version": version, "until": end.map(words::at)}))
    };
    roles.into_iter().filter_map(row).collect()
}
