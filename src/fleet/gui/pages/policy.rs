//! Update Management: the organization's defaults, and the panel of one Director, cluster or agent.
//!
//! | path | what |
//! |---|---|
//! | `/organization/settings/update-management` | defaults for Directors, and for agents |
//! | `/update-management?scope=S` | one scope's settings: where a panel's form is shown again when it was not good |
//! | `POST /update-management` | Save |
//! | `POST /update-management/preview` | what would count, and the next five times: a fragment, while one types |

use serde_json::{Value, json};

use crate::core::access::{Act, local_path};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::{Errors, Form};
use crate::fleet::gui::page::{Page, Reply, Toast, html};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::{self, sentence};
use crate::fleet::gui::{template, words};

/// The tab's address.
pub const TAB: &str = "/organization/settings/update-management";
const ONE: &str = "/update-management";
/// Changes that a panel shows; the rest is `policy history`'s.
const HISTORY: u64 = 10;

/// This module's part of the table.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: "/organization/settings", id: "settings", need: Act::Look, page: |_| to_tab() },
    Route { method: "GET", path: TAB, id: "update-management", need: Act::Look, page: |ask| Box::pin(tab(ask)) },
    Route { method: "GET", path: ONE, id: "update-management-of", need: Act::Look, page: |ask| Box::pin(one(ask)) },
    Route { method: "POST", path: ONE, id: "update-management-save", need: Act::EditPolicy, page: |ask| Box::pin(save(ask)) },
    Route {
        method: "POST",
        path: "/update-management/preview",
        id: "update-management-preview",
        need: Act::EditPolicy,
        page: |ask| Box::pin(preview(ask)),
    },
];

/// And its templates.
pub static TEMPLATES: super::Templates = &[
    ("settings", include_str!("../templates/settings.html")),
    ("tabs", include_str!("../templates/tabs.html")),
    ("preview", include_str!("../templates/preview.html")),
    ("policy-panel", include_str!("../templates/policy-panel.html")),
    ("update-management", include_str!("../templates/update-management.html")),
    ("policy-one", include_str!("../templates/policy-one.html")),
];

fn to_tab() -> Paged {
    Box::pin(std::future::ready(Ok(Reply::See(TAB.into(), None))))
}

/// Tabs of Organization > Settings: name, path.
pub fn tabs(ask: &Ask) -> Value {
    let all = [
        ("Update Management", TAB),
        ("Notifications", "/organization/settings/notifications"),
        ("API Tokens", "/organization/settings/tokens"),
    ];
    let there = all.iter().filter(|(_, path)| super::super::routes::seen(&ask.who, path));
    Value::Array(there.map(|(name, path)| json!({"name": name, "path": path, "here": ask.path == *path})).collect())
}

async fn tab(ask: Ask) -> Result<Reply, Reason> {
    tab_with(&ask, None).await
}

async fn tab_with(ask: &Ask, again: Option<Again>) -> Result<Reply, Reason> {
    let status = if again.is_some() { 422 } else { 200 };
    let of = |scope: &str| again.as_ref().filter(|a| a.scope == scope);
    let directors = panel_with(ask, "organization", TAB, of("organization")).await?;
    let agents = panel_with(ask, "agents", TAB, of("agents")).await?;
    let context = json!({"bar": {"tabs": tabs(ask)}, "panels": [directors, agents]});
    Page::new("Settings", "update-management", context).below(&[("Organization", "")]).status(status).reply()
}

/// A form that was not good.
struct Again {
    scope: String,
    form: Form,
    errors: Errors,
    conflict: bool,
}

/// A scope's panel for the template `policy-panel`: the pages of Directors, clusters and agents take it in. `back` is the page.
///
/// # Errors
/// The command's own.
pub async fn panel(ask: &Ask, scope: &str, back: &str) -> Result<Value, Reason> {
    panel_with(ask, scope, back, None).await
}

async fn panel_with(ask: &Ask, scope: &str, back: &str, again: Option<&Again>) -> Result<Value, Reason> {
    let shown = ask.command(asked("show", scope)).await?;
    let view = &shown["scope"];
    let history = ask.command(AdminWire { limit: Some(HISTORY), ..asked("history", scope) }).await?;
    let toggle = !matches!(scope, "organization" | "agents");
    let no_errors = Errors::default();
    let (form, errors) = again.map_or((settings::filled(view), &no_errors), |a| (with_revision(&a.form, view), &a.errors));
    let product = if scope.starts_with("agents") || scope.starts_with("cluster-agents") { "vmetric-agent" } else { "vmetric-director" };
    let versions = settings::versions(ask, product).await?;
    let whom = whom(scope);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let changes: Vec<Value> = history["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| json!({"at": words::at(c["at"].as_u64().unwrap_or(0)), "by": words::by(c["by"].as_str().unwrap_or_default()), "what": words::readable(c["what"].as_str().unwrap_or_default()), "revision": c["revision"]}))
        .collect();
    let cluster = text(&view["cluster"]);
    Ok(json!({
        "title": heading(scope),
        "id": scope.replace('/', "-"),
        "scope": scope,
        "back": back,
        "csrf": ask.who.csrf,
        "may": ask.may(Act::EditPolicy) && cluster.is_empty(),
        "whom": whom,
        "cluster": cluster,
        "cluster_name": text(&view["cluster_name"]),
        "counts": in_force(&view["effective"], own_tier(scope)),
        "told": "",
        "is_custom": toggle && view["custom"] == true,
        "preview": settings::preview(view),
        "form": settings::fields(&form, errors, toggle, &versions, whom, &scope.replace('/', "-")),
        "conflict": again.is_some_and(|a| a.conflict),
        "problem": words::meanwhile(&sentence(errors.of(""))),
        "follows": follows(&shown["effective"]),
        "remark": text(&view["note"]).replace("`cluster show` says", "The cluster's page says"),
        "changes": changes,
        "more": history["more"] == true,
    }))
}

/// Typed values keep standing; the revision is the one that they are compared with now.
fn with_revision(form: &Form, view: &Value) -> Form {
    let revision = view["revision"].as_u64().unwrap_or(0).to_string();
    let text = form.with(&[("revision", &revision)]);
    Form::parse(text.trim_start_matches('?')).unwrap_or_default()
}

fn asked(act: &str, scope: &str) -> AdminWire {
    AdminWire { command: "policy".into(), act: Some(act.into()), scope: Some(scope.into()), ..Default::default() }
}

fn heading(scope: &str) -> &'static str {
    match scope {
        "organization" => "Directors",
        "agents" => "Agents",
        scope if scope.starts_with("cluster-agents/") => "Default for its agents",
        scope if scope.starts_with("agents/") && scope.matches('/').count() == 1 => "Default for its agents",
        _ => "Update Management",
    }
}

fn whom(scope: &str) -> &'static str {
    match scope.split('/').collect::<Vec<_>>().as_slice() {
        ["node", _] => "this Director",
        ["cluster", _] => "this cluster",
        ["cluster-agents", _] => "every agent of this cluster",
        ["agents", _] => "every agent of this Director",
        ["agents", _, _] => "this agent",
        _ => "it",
    }
}

/// The tier that a scope's own settings are: in its panel they are its Custom Policy.
fn own_tier(scope: &str) -> &'static str {
    match scope.split('/').collect::<Vec<_>>().as_slice() {
        ["cluster" | "cluster-agents", _] => "cluster",
        ["agents", _] => "director",
        _ => "node",
    }
}

/// What counts, value by value, in the GUI's words, each with the tier that set it.
pub fn in_force(values: &Value, own: &str) -> Vec<Value> {
    let one = |v: &Value| {
        let (field, value) = (v["field"].as_str().unwrap_or_default(), v["value"].as_str().unwrap_or_default());
        let name = match field {
            "mode" => "Update Mode",
            "method" => "Update Method",
            "cron" => "Cron expression",
            "interval" => "Interval",
            "zone" => "Time zone",
            "version" => "Version",
            other => other,
        };
        let shown = match value {
            "manual" => "Manual".to_string(),
            "auto" => "Auto".into(),
            "user_action" => "User Action".into(),
            "immediate" => "Immediate".into(),
            "schedule" => "Scheduled".into(),
            other => other.to_string(),
        };
        let set_by = v["tier"].as_str().unwrap_or_default();
        json!({"name": name, "value": shown, "tier": tier(if set_by == own { "node" } else { set_by })})
    };
    values.as_array().into_iter().flatten().map(one).collect()
}

/// The tiers as the specification names them.
pub fn tier(word: &str) -> String {
    match word {
        "built_in" => "built in".into(),
        "organization" => "Organization".into(),
        "cluster" => "Cluster".into(),
        "director" => "Director".into(),
        "director_file" => "agents: in vmetric.yml".into(),
        "node" => "Custom Policy".into(),
        "file" => "update: in vmetric.yml".into(),
        "authorization" => "confirmed by a person".into(),
        other => words::human(other),
    }
}

/// What the policy comes to for one node: the decision, why, and when.
fn follows(node: &Value) -> Value {
    let there = node["node"].as_str().is_some_and(|n| !n.is_empty());
    let next = node["next"].as_u64().unwrap_or(0);
    let owner = match node["owner"].as_str().unwrap_or_default() {
        "operator" => "It is your move.",
        "director" => "Fleet goes on by itself.",
        "agent" => "It is the Director's move.",
        _ => "",
    };
    let confirm = node["decision"] == "needs_authorization";
    let detail = match (confirm, node["version"].as_str()) {
        (true, Some(version)) => format!("{version} waits until a person confirms it."),
        _ => sentence(&node["detail"].as_str().unwrap_or_default().replace('`', "")),
    };
    json!({
        "there": there,
        "detail": detail,
        "owner": owner,
        "has_next": next > 0,
        "next": words::at(next),
        "confirm": confirm,
    })
}

async fn one(ask: Ask) -> Result<Reply, Reason> {
    let scope = ask.query.some("scope").unwrap_or_else(|| "organization".into());
    one_with(&ask, &scope, None).await
}

async fn one_with(ask: &Ask, scope: &str, again: Option<Again>) -> Result<Reply, Reason> {
    let typed = local_path(ask.form.get("back"));
    let back = if typed == "/" { page_of(scope) } else { typed.to_string() };
    let panel = panel_with(ask, scope, &back, again.as_ref()).await?;
    let (name, path) = match scope.split('/').next() {
        Some("node") => ("Directors", "/fleet-management/directors"),
        Some("cluster" | "cluster-agents") => ("Clusters", "/fleet-management/clusters"),
        Some("agents") if scope.contains('/') => ("Devices", ""),
        _ => ("Settings", TAB),
    };
    let id = scope.split('/').next_back().unwrap_or_default();
    let above = [(name, path), (id, back.as_str())];
    let trail = if back == path || matches!(scope, "organization" | "agents") { &above[..1] } else { &above[..] };
    let status = if again.is_some() { 422 } else { 200 };
    Page::new("Update Management", "policy-one", json!({"panel": panel, "back": back})).below(trail).status(status).reply()
}

/// The page that a scope's panel is on.
fn page_of(scope: &str) -> String {
    match scope.split('/').collect::<Vec<_>>().as_slice() {
        ["node", id] => format!("/fleet-management/directors/{}", encoded(id)),
        ["cluster" | "cluster-agents", id] => format!("/fleet-management/clusters/{}", encoded(id)),
        ["agents", director] => format!("/fleet-management/directors/{}", encoded(director)),
        _ => TAB.to_string(),
    }
}

async fn save(ask: Ask) -> Result<Reply, Reason> {
    let scope = ask.form.get("scope").to_string();
    let toggle = !matches!(scope.as_str(), "organization" | "agents");
    let again = |errors: Errors, conflict: bool| Again { scope: scope.clone(), form: ask.form.clone(), errors, conflict };
    let mut errors = settings::missing(&ask.form, toggle);
    if errors.is_empty() {
        let check = ask.command(AdminWire { expected: None, ..settings::change("check", &scope, &ask.form, toggle) }).await?;
        errors = settings::problems(&check);
    }
    if !errors.is_empty() {
        return shown_again(&ask, again(errors, false)).await;
    }
    match ask.command(settings::change("set", &scope, &ask.form, toggle)).await {
        Ok(view) => {
            let warnings = settings::preview(&view["scope"]);
            let said: Vec<&str> = warnings["warnings"].as_array().into_iter().flatten().filter_map(|w| w["detail"].as_str()).collect();
            let toast = match said.is_empty() {
                true => Toast::good("Update settings saved."),
                false => Some(Toast { bad: true, text: format!("Saved, but: {}", said.join(" ")) }),
            };
            Ok(Reply::See(Some(ask.form.get("back")).filter(|b| !b.is_empty()).map_or_else(|| page_of(&scope), str::to_string), toast))
        }
        Err(reason) => {
            let mut errors = Errors::default();
            errors.reason(&reason, &crate::wire::settings::FIELDS);
            shown_again(&ask, again(errors, reason.code == "revision_conflict")).await
        }
    }
}

async fn shown_again(ask: &Ask, again: Again) -> Result<Reply, Reason> {
    match again.scope.as_str() {
        "organization" | "agents" => tab_with(ask, Some(again)).await,
        scope => {
            let scope = scope.to_string();
            one_with(ask, &scope, Some(again)).await
        }
    }
}

async fn preview(ask: Ask) -> Result<Reply, Reason> {
    let scope = ask.form.get("scope");
    let toggle = !matches!(scope, "organization" | "agents");
    let scope = if scope.is_empty() { "organization" } else { scope };
    let wire = AdminWire { expected: None, ..settings::change("check", scope, &ask.form, toggle) };
    let view = settings::preview(&ask.command(wire).await?);
    Ok(Reply::Raw(html(200, template::render("preview", &view)?)))
}
