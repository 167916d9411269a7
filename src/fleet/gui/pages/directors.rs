//! Fleet Management > Directors.

use serde_json::{Value, json};

use super::Templates;
use super::list::{Part, choice, empty, empty_to, found, search, sizes};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::core::rollout::{End, OFFLINE_AFTER_S};
use crate::director::policing::show::NodePolicyView;
use crate::director::registry::Registry;
use crate::director::releases::Releases;
use crate::director::views::AgentView;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;

/// Where they are.
pub const PATH: &str = "/fleet-management/directors";
/// Where one is created.
pub const CREATE: &str = "/fleet-management/directors/new";

/// Routes.
pub static ROUTES: &[Route] =
    &[Route { method: "GET", path: PATH, id: "directors", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged }];

/// Templates.
pub static TEMPLATES: Templates = &[("directors", include_str!("../templates/directors.html"))];

/// Directors that wait for approval and are named above the others.
const PENDING_MAX: usize = 10;

const STATES: [(&str, &str); 6] = [
    ("", "All"),
    ("attention", "Needs attention"),
    ("updating", "Updating"),
    ("failed", "Last update failed"),
    ("silent", "Silent"),
    ("connected", "Connected"),
];

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let part = Part::of(&ask);
    let (views, shown, total) = {
        let registry = ask.site.registry.borrow();
        let tree = ask.site.tree.borrow().clone();
        let fitting = fitting(&ask, &registry);
        let total = fitting.len();
        let views: Vec<Value> =
            fitting.into_iter().skip(part.from).take(part.size).map(|view| row(&registry, &tree.releases, &view, ask.now)).collect();
        (views, total, registry.agents.values().filter(|a| a.removed_at.is_none()).count())
    };
    let pending: Vec<Value> = ask
        .site
        .registry
        .borrow()
        .pending_views(ask.now)
        .take(PENDING_MAX)
        .map(|view| json!({"name": name(&view), "path": path(&view.id), "platform": format!("{} / {}", words::os(&view.os), view.architecture)}))
        .collect();
    let none = match (total, shown) {
        (0, _) if ask.may(Act::Enroll) => empty_to(
            "server",
            "No Director has enrolled yet",
            "Make an API key, and enroll a Director with it. `vmetric-fleet key create` prints the command; the wizard does the same.",
            CREATE,
            "Create a Director",
        ),
        (0, _) => empty("server", "No Director has enrolled yet", "An administrator creates one."),
        (_, 0) => empty_to("search", "No Director fits", "Change the search or the filter.", PATH, "Show all"),
        _ => Value::Null,
    };
    let context = json!({
        "live": true,
        "rows": views,
        "none": none,
        "pager": part.pager(&ask, shown),
        "filters": [
            search(&ask, "Search", "Name, label, id, version, platform"),
            choice(&ask, "status", "Status", &STATES),
            sizes(&ask),
        ],
        "has_pending": !pending.is_empty(),
        "pending": pending,
        "may_create": ask.may(Act::Enroll),
    });
    Page::new("Directors", "directors", context).below(&[("Fleet Management", "")]).reply()
}

/// Who fits the search and the filter, by name.
fn fitting(ask: &Ask, registry: &Registry) -> Vec<AgentView> {
    let (word, status) = (ask.query.get("q"), ask.query.get("status"));
    let live = registry.agents.values().filter(|a| a.removed_at.is_none());
    let wanted =
        live.filter(|a| found(word, &[&a.hostname, &a.id, &a.version, &a.os, &a.architecture, a.label.as_deref().unwrap_or_default()]));
    let silent = |id: &str| ask.now.saturating_sub(registry.last_contact(id)) > OFFLINE_AFTER_S;
    let mut wanted: Vec<_> = match status {
        "silent" => wanted.filter(|a| silent(&a.id)).collect(),
        "connected" => wanted.filter(|a| !silent(&a.id)).collect(),
        _ => wanted.collect(),
    };
    wanted.sort_by(|a, b| (&a.hostname, &a.id).cmp(&(&b.hostname, &b.id)));
    // What an order says of each is looked up only where it decides.
    let part = Part::of(ask);
    let decides = matches!(status, "attention" | "updating" | "failed");
    let mut out = Vec::new();
    for (at, agent) in wanted.into_iter().enumerate() {
        let in_part = at >= part.from && at < part.from + part.size;
        let view = if decides || in_part { registry.agent_view(agent, ask.now) } else { AgentView::default() };
        if !decides || of_status(&view, status) {
            out.push(view);
        }
    }
    out
}

fn of_status(view: &AgentView, status: &str) -> bool {
    match status {
        "attention" => needs_attention(view),
        "updating" => view.scheduled_version.is_some(),
        "failed" => failed(&view.state),
        _ => true,
    }
}

/// A person is asked for something.
pub fn needs_attention(view: &AgentView) -> bool {
    view.owner.as_deref() == Some("operator") || failed(&view.state) || view.second_device.is_some() || view.withdrawn.is_some()
}

/// An end that is a failure.
pub fn failed(state: &str) -> bool {
    End::ALL.into_iter().any(|end| end.word() == state && end.is_failure())
}

fn row(registry: &Registry, releases: &Releases, view: &AgentView, now: u64) -> Value {
    let policy = registry.node_policy(&view.id, releases, now).ok();
    let (policy, source) = policy_words(policy.as_ref());
    json!({
        "name": name(view),
        "id": view.id,
        "label": view.label,
        "path": path(&view.id),
        "status": status(view),
        "online": words::presence(view.online),
        "why": if view.state == "idle" { String::new() } else { words::directors(&words::readable(&view.detail)) },
        "version": view.version,
        "scheduled": view.scheduled_version,
        "percent": view.percent,
        "platform": format!("{} / {}", words::os(&view.os), view.architecture),
        "policy": policy,
        "source": source,
        "seen": words::ago(view.last_contact),
    })
}

/// What it does, as a chip; who is silent is silent first.
pub fn status(view: &AgentView) -> Value {
    match (view.online, view.state.as_str()) {
        (false, _) => words::chip("warn", "alert", "Silent"),
        (true, "enrolled") => words::chip("quiet", "pause", "Enrolled"),
        (true, "idle" | "reported" | "updated" | "already") => words::chip("good", "ok", "Connected"),
        (true, state) => words::state(state),
    }
}

/// Host name, else the identity.
pub fn name(view: &AgentView) -> &str {
    if view.hostname.is_empty() { &view.id } else { &view.hostname }
}

/// Where its page is.
pub fn path(id: &str) -> String {
    format!("{PATH}/{}", encoded(id))
}

/// Mode and method, and the tier that set the mode.
pub fn policy_words(policy: Option<&NodePolicyView>) -> (String, String) {
    let Some(policy) = policy else { return ("Unknown".into(), String::new()) };
    let of = |field: &str| policy.values.iter().find(|v| v.field == field);
    let (mode, method) = (of("mode"), of("method"));
    let text = words::policy(mode.map_or("", |v| &v.value), method.map_or("", |v| &v.value));
    (text, mode.map_or(String::new(), |v| words::tier(&v.tier)))
}
