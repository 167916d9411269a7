//! Fleet Management > Clusters: records of Directors that have one policy and are updated one at a time.

use serde_json::{Value, json};

use super::create::CLUSTERS;
use super::list::{empty, empty_to};
use super::{Templates, directors, policy};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;

const ONE: &str = "/fleet-management/clusters/{cluster}";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: CLUSTERS, id: "clusters", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged },
    Route { method: "GET", path: ONE, id: "cluster", need: Act::Look, page: |ask| Box::pin(detail(ask)) as Paged },
    Route {
        method: "POST",
        path: "/fleet-management/clusters/{cluster}/remove",
        id: "cluster-remove",
        need: Act::EditPolicy,
        page: |ask| Box::pin(remove(ask)) as Paged,
    },
    Route {
        method: "POST",
        path: "/fleet-management/clusters/{cluster}/pause",
        id: "cluster-pause",
        need: Act::Cancel,
        page: |ask| Box::pin(stop(ask, "pause")) as Paged,
    },
    Route {
        method: "POST",
        path: "/fleet-management/clusters/{cluster}/resume",
        id: "cluster-resume",
        need: Act::Cancel,
        page: |ask| Box::pin(stop(ask, "resume")) as Paged,
    },
];

/// Templates.
pub static TEMPLATES: Templates =
    &[("clusters", include_str!("../templates/clusters.html")), ("cluster", include_str!("../templates/cluster.html"))];

fn asked(act: &str, cluster: Option<&str>) -> AdminWire {
    AdminWire { command: "cluster".into(), act: Some(act.into()), cluster: cluster.map(str::to_string), ..Default::default() }
}

fn row(cluster: &Value) -> Value {
    let id = cluster["id"].as_str().unwrap_or_default();
    let quorum = match cluster["quorum"] == true {
        true => words::chip("good", "ok", "Majority up"),
        false => words::chip("bad", "no", "No majority"),
    };
    json!({
        "id": id,
        "name": cluster["name"],
        "path": format!("{CLUSTERS}/{}", encoded(id)),
        "status": cluster["status"],
        "quorum": quorum,
        "count": cluster["members"].as_array().map_or(0, Vec::len),
        "policy": if cluster["custom"] == true { "Custom Policy" } else { "Organization" },
        "changed": words::ago(cluster["changed_at"].as_u64().unwrap_or(0)),
        "by": words::by(cluster["by"].as_str().unwrap_or_default()),
    })
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let all = ask.command(asked("list", None)).await?;
    let rows: Vec<Value> = all["clusters"].as_array().into_iter().flatten().map(row).collect();
    let may = ask.may(Act::EditPolicy);
    let none = match (rows.is_empty(), may) {
        (false, _) => Value::Null,
        (true, true) => empty_to(
            "cluster",
            "There is no cluster yet",
            "Three Directors or more, an odd number, that stand in for each other: one policy, updated one at a time.",
            &format!("{CLUSTERS}/new"),
            "Create a cluster",
        ),
        (true, false) => empty("cluster", "There is no cluster yet", "A contributor creates one."),
    };
    let context = json!({"rows": rows, "none": none, "may_create": may});
    Page::new("Clusters", "clusters", context).below(&[("Fleet Management", "")]).reply()
}

async fn detail(ask: Ask) -> Result<Reply, Reason> {
    let id = ask.place(0).to_string();
    let all = ask.command(asked("show", Some(&id))).await?;
    let unknown = || Reason::new("cluster_unknown", format!("there is no cluster '{id}'; it may have been removed"));
    let cluster = all["clusters"].as_array().and_then(|c| c.first()).ok_or_else(unknown)?.clone();
    let id = cluster["id"].as_str().unwrap_or_default().to_string();
    let name = cluster["name"].as_str().unwrap_or_default().to_string();
    // Sentences name members by their identities.
    let mut names: Vec<(String, String)> = Vec::new();
    let members: Vec<Value> = {
        let registry = ask.site.registry.borrow();
        let all = cluster["members"].as_array().into_iter().flatten();
        all.filter_map(|m| {
            let id = m["id"].as_str()?;
            let view = registry.agents.get(id).map(|a| registry.agent_view(a, ask.now))?;
            names.push((id.to_string(), directors::name(&view).to_string()));
            Some(json!({
                "name": directors::name(&view), "path": directors::path(id), "status": directors::status(&view), "version": view.version,
                "scheduled": view.scheduled_version, "seen": words::ago(view.last_contact),
                "state": words::member(m["state"].as_str().unwrap_or_default()), "why": own(m["detail"].as_str().unwrap_or_default(), id),
            }))
        })
        .collect()
    };
    let path = format!("{CLUSTERS}/{}", encoded(&id));
    let stopped = !cluster["stopped"].is_null();
    let blocked = (cluster["code"] != "ready")
        .then(|| json!({"kind": if stopped { "bad" } else { "warn" }, "code": cluster["code"], "detail": named(cluster["detail"].as_str().unwrap_or_default(), &names)}));
    let context = json!({
        "cluster": row(&cluster),
        "members": members,
        "panel": policy::panel(&ask, &format!("cluster/{id}"), &path).await?,
        "agents_panel": policy::panel(&ask, &format!("cluster-agents/{id}"), &path).await?,
        "may": ask.may(Act::EditPolicy),
        "blocked": blocked,
        "may_stop": ask.may(Act::Cancel),
        "stop_act": if stopped { "resume" } else { "pause" },
        "stop_word": if stopped { "Resume updates" } else { "Pause updates" },
        "revision": cluster["revision"],
    });
    Page::new(&name, "cluster", context).below(&[("Fleet Management", ""), ("Clusters", CLUSTERS)]).reply()
}

/// Why nobody goes now, with the names of members that people know.
fn named(text: &str, names: &[(String, String)]) -> String {
    let text = names.iter().fold(text.to_string(), |text, (id, name)| text.replace(id, name));
    let text = text.replace("`cluster resume` goes on", "Resume updates lets the next one go").replace(" by user ", " by ");
    words::times(&words::sentence(&text))
}

/// The same in a member's own row: it need not be named again.
fn own(text: &str, id: &str) -> String {
    words::times(&words::sentence(text.strip_prefix(id).unwrap_or(text).trim_start()))
}

async fn remove(ask: Ask) -> Result<Reply, Reason> {
    let wire = AdminWire { expected: ask.form.get("revision").parse().ok(), ..asked("remove", Some(ask.place(0))) };
    ask.command(wire).await?;
    Ok(Reply::See(CLUSTERS.into(), Toast::good("The cluster was removed; its members have their own policies again.")))
}

async fn stop(ask: Ask, act: &str) -> Result<Reply, Reason> {
    let cluster = ask.place(0).to_string();
    ask.command(asked(act, Some(&cluster))).await?;
    let said = if act == "pause" { "No other member goes now; one that is away comes back first." } else { "The next member may go." };
    Ok(Reply::See(format!("{CLUSTERS}/{}", encoded(&cluster)), Toast::good(said)))
}
