//! Fleet Management > Clusters: records of Directors that have one policy and are updated one at a time.

use serde_json::{Value, json};

use super::create::CLUSTERS;
use super::list::{choice, empty, empty_to, found, search};
use super::{Templates, cluster_acts, directors, events, policy, rollouts};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::policing::clusters::{ClusterView, MemberView};
use crate::director::records::Event;
use crate::director::registry::Registry;
use crate::director::store::Table;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;
use crate::fleet::intake::{Asked, Told};

const ONE: &str = "/fleet-management/clusters/{cluster}";
/// Events on the page; the activity has them all.
const EVENTS: usize = 40;

const STATES: [(&str, &str); 4] =
    [("", "All"), ("attention", "Needs attention"), ("updating", "A member is updated"), ("down", "A member is down")];

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: CLUSTERS, id: "clusters", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged },
    Route { method: "GET", path: ONE, id: "cluster", need: Act::Look, page: |ask| Box::pin(detail(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates =
    &[("clusters", include_str!("../templates/clusters.html")), ("cluster", include_str!("../templates/cluster.html"))];

/// A command about clusters.
pub fn asked(act: &str, cluster: Option<&str>) -> AdminWire {
    AdminWire { command: "cluster".into(), act: Some(act.into()), cluster: cluster.map(str::to_string), ..Default::default() }
}

/// Where a cluster's page is.
pub fn path(id: &str) -> String {
    format!("{CLUSTERS}/{}", encoded(id))
}

/// Whether, and why not, its members are updated now.
fn updates(cluster: &ClusterView) -> Value {
    match (cluster.stopped.as_deref(), cluster.code.as_str()) {
        (Some("paused"), _) => words::chip("warn", "pause", "Paused"),
        (Some("aborted"), _) => words::chip("warn", "pause", "Ended by a person"),
        (Some(_), _) => words::chip("bad", "no", "Halted"),
        (None, "ready") => words::chip("good", "ok", "Ready"),
        (None, "lease_held") => words::chip("busy", "update", "A member is updated"),
        (None, "lease_expired") => words::chip("bad", "no", "Lease ran out"),
        _ => words::chip("warn", "alert", "Waits"),
    }
}

fn row(registry: &Registry, cluster: &ClusterView) -> Value {
    let quorum = match cluster.quorum {
        true => words::chip("good", "ok", "Majority up"),
        false => words::chip("bad", "no", "No majority"),
    };
    let scheduled = |m: &MemberView| registry.order_in_force(&m.id).filter(|(o, _)| o.end().is_none()).map(|(o, _)| o.version.clone());
    json!({
        "id": cluster.id,
        "name": cluster.name,
        "path": path(&cluster.id),
        "status": cluster.status,
        "quorum": quorum,
        "updates": updates(cluster),
        "count": cluster.members.len(),
        "versions": distinct(cluster.members.iter().map(|m| m.version.clone())),
        "scheduled": distinct(cluster.members.iter().filter_map(scheduled)),
        "policy": if cluster.custom { "Custom Policy" } else { "Organization" },
        "changed": words::ago(cluster.changed_at),
        "by": words::by(&cluster.by),
    })
}

/// Each text once, in order.
fn distinct(texts: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
    all.sort();
    all.dedup();
    all.join(", ")
}

fn fits(ask: &Ask, cluster: &ClusterView) -> bool {
    let down = cluster.members.iter().any(|m| !m.is_up());
    let state = match ask.query.get("status") {
        "attention" => cluster.stopped.is_some() || !cluster.quorum || down || cluster.code == "lease_expired",
        "updating" => cluster.holder.is_some(),
        "down" => down,
        _ => true,
    };
    let members = cluster.members.iter().flat_map(|m| [m.id.as_str(), m.hostname.as_str(), m.version.as_str()]);
    let texts: Vec<&str> = [cluster.name.as_str(), cluster.id.as_str()].into_iter().chain(members).collect();
    state && found(ask.query.get("q"), &texts)
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let may = ask.may(Act::EditPolicy);
    let (rows, total) = {
        let registry = ask.site.registry.borrow();
        let all = registry.clusters_view(None, ask.now)?.clusters;
        (all.iter().filter(|c| fits(&ask, c)).map(|c| row(&registry, c)).collect::<Vec<Value>>(), all.len())
    };
    let none = match (rows.is_empty(), total, may) {
        (false, ..) => Value::Null,
        (true, 0, true) => empty_to(
            "cluster",
            "There is no cluster yet",
            "Three Directors or more, an odd number, that stand in for each other: one policy, updated one at a time.",
            &format!("{CLUSTERS}/new"),
            "Create a cluster",
        ),
        (true, 0, false) => empty("cluster", "There is no cluster yet", "A contributor creates one."),
        _ => empty_to("search", "No cluster fits", "Change the search or the filter.", CLUSTERS, "Show all"),
    };
    let filters = [search(&ask, "Search", "Name, member, version"), choice(&ask, "status", "Status", &STATES)];
    let context = json!({"live": true, "rows": rows, "none": none, "may_create": may, "filters": filters});
    Page::new("Clusters", "clusters", context).below(&[("Fleet Management", "")]).reply()
}

/// A cluster by what stands in the path.
///
/// # Errors
/// `cluster_unknown`.
pub fn shown(ask: &Ask) -> Result<ClusterView, Reason> {
    let unknown = || Reason::new("cluster_unknown", format!("there is no cluster '{}'; it may have been removed", ask.place(0)));
    let all = ask.site.registry.borrow().clusters_view(Some(ask.place(0)), ask.now).map_err(|_| unknown())?;
    all.clusters.into_iter().next().ok_or_else(unknown)
}

/// Its members by the names that people know.
pub fn names(cluster: &ClusterView) -> Vec<(String, String)> {
    let name = |m: &MemberView| if m.hostname.is_empty() { m.id.clone() } else { m.hostname.clone() };
    cluster.members.iter().map(|m| (m.id.clone(), name(m))).collect()
}

async fn detail(ask: Ask) -> Result<Reply, Reason> {
    let cluster = shown(&ask)?;
    let names = names(&cluster);
    let (here, members, rollout, top) = {
        let registry = ask.site.registry.borrow();
        let members: Vec<Value> = cluster.members.iter().filter_map(|m| member(&ask, &registry, &cluster, m, &names)).collect();
        (row(&registry, &cluster), members, newest_rollout(&registry, &cluster), notes(&cluster, &names))
    };
    let path = path(&cluster.id);
    let timeline = activity(&ask, &cluster, &names).await?;
    let mut top = top;
    if let Some(halted) = rollout.as_ref().filter(|r| r["halted"] == true) {
        top.push(json!({"kind": "bad", "code": "rollout_halted", "detail": format!("The roll-out of {} is halted: {}", halted["version"].as_str().unwrap_or_default(), halted["detail"].as_str().unwrap_or_default())}));
    }
    let context = json!({
        "live": true,
        "cluster": here,
        "notes": top,
        "members": members,
        "lease": lease(&cluster, &names),
        "rollout": rollout,
        "acts": cluster_acts::of_cluster(&ask, &cluster, &names),
        "events": json!({"rows": timeline}),
        "no_events": timeline.is_empty(),
        "panel": policy::panel(&ask, &format!("cluster/{}", cluster.id), &path).await?,
        "agents_panel": policy::panel(&ask, &format!("cluster-agents/{}", cluster.id), &path).await?,
    });
    Page::new(&cluster.name, "cluster", context).below(&[("Fleet Management", ""), ("Clusters", CLUSTERS)]).reply()
}

/// Why nobody goes now, at the top; who may go, where nothing is in the way.
fn notes(cluster: &ClusterView, names: &[(String, String)]) -> Vec<Value> {
    let (kind, detail) = match (cluster.stopped.as_deref(), cluster.code.as_str()) {
        (None, "ready") => return Vec::new(),
        (None, "lease_held") => ("busy", named(&cluster.detail, names)),
        (None, "lease_expired") | (Some("halted"), _) => ("bad", named(&cluster.detail, names)),
        _ => ("warn", named(&cluster.detail, names)),
    };
    vec![json!({"kind": kind, "code": cluster.code, "detail": detail})]
}

/// A member in the order of updates.
fn member(ask: &Ask, registry: &Registry, cluster: &ClusterView, m: &MemberView, names: &[(String, String)]) -> Option<Value> {
    let view = registry.agents.get(&m.id).map(|a| registry.agent_view(a, ask.now))?;
    let others = cluster.members.len().saturating_sub(1);
    let of = |ids: &[String]| -> String {
        let name = |id: &String| names.iter().find(|(known, _)| known == id).map_or(id.clone(), |(_, name)| name.clone());
        ids.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let peers = match (m.reached_by.len(), m.not_reached_by.is_empty()) {
        (0, true) => "Not looked at yet".to_string(),
        (_, false) => format!("Not reached by {}", of(&m.not_reached_by)),
        (n, true) => format!("Reached by {n} of {others}"),
    };
    Some(json!({
        "turn": m.turn, "name": directors::name(&view), "path": directors::path(&m.id), "status": directors::status(&view),
        "version": view.version, "scheduled": view.scheduled_version, "percent": view.percent,
        "state": words::member(&m.state), "why": own(m.detail.as_deref().unwrap_or_default(), &m.id, names),
        "since": m.since.map(words::ago), "until": m.until.map(words::at),
        "peers": peers, "unreached": !m.not_reached_by.is_empty(), "agents": words::number(m.load),
        "holds": cluster.holder.as_deref() == Some(m.id.as_str()),
    }))
}

/// Who may be away, until when, and what comes then.
fn lease(cluster: &ClusterView, names: &[(String, String)]) -> Value {
    let holder = cluster.holder.as_deref().and_then(|id| names.iter().find(|(known, _)| known == id));
    let step = match (cluster.soaks_until, cluster.stops) {
        (Some(_), _) => "It is back and well, and is watched.",
        (None, true) => "It may be away: its stop was allowed.",
        (None, false) => "It prepares, and serves.",
    };
    json!({
        "holder": holder.map(|(id, name)| json!({"name": name, "path": directors::path(id)})),
        "step": step,
        "since": cluster.granted_at.map(words::ago),
        "until": cluster.expires.map(words::at),
        "watched": cluster.soaks_until.map(words::at),
        "epoch": words::number(cluster.epoch),
        "drain": words::duration(cluster.drain_s),
        "soak": words::duration(cluster.soak_s),
    })
}

/// The newest roll-out that any member is part of.
fn newest_rollout(registry: &Registry, cluster: &ClusterView) -> Option<Value> {
    let of = |m: &MemberView| registry.order_in_force(&m.id).map(|(_, rollout)| rollout);
    let newest = cluster.members.iter().filter_map(of).max_by_key(|rollout| rollout.id)?;
    let view = registry.rollout_view(newest);
    let mut row = rollouts::row(&view, "c");
    row["halted"] = (view.state == "halted").into();
    Some(row)
}

/// What Fleet noted of the cluster and its members, and what those told.
async fn activity(ask: &Ask, cluster: &ClusterView, names: &[(String, String)]) -> Result<Vec<Value>, Reason> {
    let unread = |e: String| Reason::new("store_unavailable", e);
    let (members, mark) = (names.to_vec(), format!("cluster '{}'", cluster.name));
    let concerns = move |e: &Event| match e.agent.is_empty() {
        true => e.code.starts_with("cluster_") && e.detail.contains(&mark),
        false => members.iter().any(|(id, _)| *id == e.agent),
    };
    let ours: Vec<Event> = ask.site.store.newest(Table::Activity, EVENTS, concerns).await.map_err(unread)?;
    let mut theirs: Vec<Told> = Vec::new();
    for (id, _) in names {
        let asked = Asked { director: Some(id.clone()), agent: Some(String::new()), limit: EVENTS, ..Default::default() };
        theirs.extend(ask.intake.activity(&ask.site, &asked).await.map_err(unread)?);
    }
    let mut rows = events::merged(&ours, &theirs, EVENTS);
    for row in &mut rows {
        let id = row["id"].as_str().unwrap_or_default();
        let who = names.iter().find(|(known, _)| known == id).map_or("", |(_, name)| name.as_str());
        row["who"] = who.into();
        row["detail"] = named(row["detail"].as_str().unwrap_or_default(), names).into();
    }
    Ok(rows)
}

/// A sentence with the names of members that people know, and the words of this page.
pub fn named(text: &str, names: &[(String, String)]) -> String {
    let text = names.iter().fold(text.to_string(), |text, (id, name)| text.replace(id, name));
    let text = text.replace("`cluster resume` goes on", "Resume updates lets the next one go");
    let text = text.replace("`cluster resume`", "Resume updates").replace(" by user ", " by ");
    words::readable(&words::sentence(&text))
}

/// The same in a member's own row: it need not be named again, and its times stand beside.
fn own(text: &str, id: &str, names: &[(String, String)]) -> String {
    let text = text.strip_prefix(id).unwrap_or(text).trim_start();
    let text = [", until ", " since "].iter().fold(text, |text, word| match text.rfind(word) {
        Some(at) if text[at + word.len()..].starts_with("20") => &text[..at],
        _ => text,
    });
    named(text, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_have_names_and_no_times_twice() {
        let names = [("web-1-4da35b2b5536".to_string(), "web-1".to_string()), ("harbour-5da35b2b5536".into(), "harbour".into())];
        let text = "web-1-4da35b2b5536 is silent since 2026-11-23T09:36:47Z";
        assert_eq!(
            (own(text, &names[0].0, &names), named(text, &names)),
            ("Is silent".into(), "web-1 is silent since 2026-11-23 09:36 UTC".into())
        );
        let leased =
            "harbour-5da35b2b5536 is drained: it serves nobody new since 2026-11-23T09:36:47Z, until 2026-11-23T10:00:00Z at the latest";
        assert_eq!(own(leased, &names[1].0, &names), "Is drained: it serves nobody new");
        assert_eq!(own("x waits since yesterday", "x", &names), "Waits since yesterday");
        assert_eq!(distinct(["2".to_string(), "1".into(), String::new(), "2".into()].into_iter()), "1, 2");
    }
}
