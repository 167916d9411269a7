//! Available updates: what is new, for whom; a person confirms and triggers. That is the specification's User Action.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::directors::{path as director_path, policy_words};
use super::{Templates, confirm as agents};
use crate::core::access::Act;
use crate::core::notes;
use crate::core::product::{AGENT, DIRECTOR};
use crate::core::reason::Reason;
use crate::core::version::Version;
use crate::director::admin::AdminWire;
use crate::director::registry::Registry;
use crate::director::releases::Releases;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::sentence;
use crate::fleet::gui::words;
use crate::fleet::intake::SiteAgent;

/// The page's address.
pub const PATH: &str = "/updates";
/// Directors that the table shows; the rest is confirmed with "all".
const SHOWN_MAX: usize = 200;
/// Agents that are looked through for what they run.
const AGENTS_MAX: usize = 20_000;
/// Digits of a key's id that are shown: enough to compare by eye.
const KEY_SHOWN: usize = 16;
/// How long a confirmation is good, seconds: value, label.
pub const LIVES: [(&str, &str); 4] = [("86400", "1 day"), ("3600", "1 hour"), ("604800", "7 days"), ("2592000", "30 days")];

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "updates", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged },
    Route { method: "POST", path: PATH, id: "updates-confirm", need: Act::Authorize, page: |ask| Box::pin(confirm(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates = &[("updates", include_str!("../templates/updates.html"))];

/// A product's newest release.
struct Newest {
    version: Version,
    platforms: BTreeMap<String, u64>,
    build_keys: BTreeSet<String>,
}

fn newest(releases: &Releases, product: &str) -> Option<Newest> {
    let version = releases.versions(product).into_iter().find(|v| !v.is_pre_release())?;
    let files = releases.artifacts.iter().filter(|a| a.path.product == product && a.path.version == version);
    let mut platforms = BTreeMap::new();
    let mut build_keys = BTreeSet::new();
    for artifact in files {
        *platforms.entry(artifact.path.platform.to_string()).or_default() += artifact.length;
        build_keys.extend(artifact.build_keyid.get(..KEY_SHOWN).map(str::to_string));
    }
    Some(Newest { version, platforms, build_keys })
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    list_with(&ask, "", "").await
}

/// The page; what is wrong with what was chosen of Directors, or of agents.
///
/// # Errors
/// `store_unavailable`.
pub async fn list_with(ask: &Ask, problem: &str, of_agents: &str) -> Result<Reply, Reason> {
    let tree = ask.site.tree.borrow().clone();
    let (directors, waiting, clusters) = {
        let registry = ask.site.registry.borrow();
        (directors(ask, &registry, &tree.releases), waiting(&registry), clusters(&registry))
    };
    let told = ask.intake.agents(&ask.site, None, None, AGENTS_MAX).await.map_err(|e| Reason::new("store_unavailable", e))?;
    let behind = agents_behind(ask, &tree.releases, &told);
    let (waits, confirmed) = (agents::waiting(ask, &told, of_agents), agents::confirmed(ask));
    let cards: Vec<Value> = [(&DIRECTOR, "Directors"), (&AGENT, "Agents")]
        .into_iter()
        .filter_map(|(product, whom)| Some((newest(&tree.releases, product.name)?, product, whom)))
        .map(|(newest, product, whom)| {
            let platforms: Vec<String> = newest.platforms.iter().map(|(p, bytes)| format!("{p}, {}", words::bytes(*bytes))).collect();
            let count = if product.name == AGENT.name { behind.total } else { count_behind(ask, &newest.version) };
            json!({
                "name": product.name,
                "whom": whom,
                "version": newest.version.to_string(),
                "platforms": platforms.join(" · "),
                "keys": newest.build_keys.into_iter().collect::<Vec<_>>(),
                "targets": tree.versions[2],
                "root": tree.versions[0],
                "behind": words::number(count as u64),
                "notes": tree.releases.notes.get(&notes::key(product.name, &newest.version.to_string())),
                "none": count == 0,
            })
        })
        .collect();
    let versions: BTreeSet<String> = directors.iter().filter_map(|row| row["next"].as_str().map(str::to_string)).collect();
    let context = json!({
        // A form of agents that was not good is shown under its own address, which nobody can look at.
        "live": ask.path == PATH,
        "versions": versions,
        "cards": cards,
        "has_cards": !cards.is_empty(),
        "none": json!({"icon": "box", "what": "The mirror holds no release yet", "next": "Publish one with vmetric-release, and let Fleet look: `vmetric-fleet mirror`.", "path": "", "act": "", "command": ""}),
        "nobody": json!({"icon": "ok", "what": "Nobody waits for you", "next": "Directors and agents whose Update Method is User Action appear here when there is a newer version for them.", "path": "", "act": "", "command": ""}),
        "waiting": directors.len(),
        "more": waiting.len().saturating_sub(directors.len()),
        "all": words::number(waiting.len() as u64),
        "rows": directors,
        "clusters": clusters,
        "by_director": behind.rows,
        "agents_wait": waits["rows"].as_array().is_some_and(|rows| !rows.is_empty()) || !of_agents.is_empty(),
        "agents": waits,
        "has_confirmed": confirmed["rows"].as_array().is_some_and(|rows| !rows.is_empty()),
        "confirmed": confirmed,
        "may": ask.may(Act::Authorize),
        "lives": LIVES.map(|(value, label)| json!({"value": value, "label": label})),
        "problem": problem,
    });
    Page::new("Available updates", "updates", context)
        .below(&[("Fleet Management", "")])
        .status(if problem.is_empty() && of_agents.is_empty() { 200 } else { 422 })
        .reply()
}

/// Directors that wait for a person's word.
fn waiting(registry: &Registry) -> Vec<String> {
    let live = registry.agents.values().filter(|a| a.removed_at.is_none());
    let asks = |id: &str| registry.policing.verdicts.get(id).is_some_and(|v| v.word == "needs_authorization");
    live.filter(|a| asks(&a.id)).map(|a| a.id.clone()).collect()
}

fn directors(ask: &Ask, registry: &Registry, releases: &Releases) -> Vec<Value> {
    let ticked: BTreeSet<String> = ask.form.all("director").into_iter().collect();
    let row = |id: &String| {
        let agent = registry.agents.get(id)?;
        let policy = registry.node_policy(id, releases, ask.now).ok()?;
        let cluster = registry.cluster_of(id);
        Some(json!({
            "id": id,
            "name": if agent.hostname.is_empty() { id } else { &agent.hostname },
            "path": director_path(id),
            "version": agent.version,
            "next": policy.version.clone().unwrap_or_default(),
            "policy": policy_words(Some(&policy)).0,
            "source": policy_words(Some(&policy)).1,
            "checked": ticked.contains(id),
            "cluster": cluster.map_or(String::new(), |row| row.name.clone()),
        }))
    };
    waiting(registry).iter().take(SHOWN_MAX).filter_map(row).collect()
}

/// Clusters of which a member waits: confirmed as a whole, updated one member at a time.
fn clusters(registry: &Registry) -> Vec<Value> {
    let waiting: BTreeSet<String> = waiting(registry).into_iter().collect();
    let all = registry.policing.clusters.values();
    let asks = all.filter(|row| row.members.iter().any(|m| waiting.contains(m)));
    asks.map(|row| json!({"id": row.id, "name": row.name, "members": row.members.len(), "path": format!("/fleet-management/clusters/{}", encoded(&row.id))}))
        .collect()
}

fn count_behind(ask: &Ask, version: &Version) -> usize {
    let registry = ask.site.registry.borrow();
    registry.agents.values().filter(|a| a.removed_at.is_none() && is_behind(&a.version, version)).count()
}

fn is_behind(runs: &str, newest: &Version) -> bool {
    runs.parse::<Version>().is_ok_and(|runs| runs < *newest)
}

struct Behind {
    total: usize,
    rows: Vec<Value>,
}

/// Agents that run something older, by Director: their Directors decide, by the policy that Fleet hands them.
fn agents_behind(ask: &Ask, releases: &Releases, agents: &[SiteAgent]) -> Behind {
    let Some(newest) = newest(releases, AGENT.name) else { return Behind { total: 0, rows: Vec::new() } };
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for agent in agents.iter().filter(|a| a.version.as_ref().is_some_and(|v| is_behind(v, &newest.version))) {
        *by.entry(agent.director.clone()).or_default() += 1;
    }
    let total = by.values().sum();
    let registry = ask.site.registry.borrow();
    let name = |id: &String| registry.agents.get(id).map(|a| a.hostname.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| id.clone());
    let rows = by.iter().take(SHOWN_MAX).map(|(id, count)| {
        json!({"name": name(id), "path": director_path(id), "count": words::number(*count as u64), "version": newest.version.to_string()})
    });
    Behind { total, rows: rows.collect() }
}

async fn confirm(ask: Ask) -> Result<Reply, Reason> {
    let all = ask.form.has("all");
    let mut nodes: BTreeSet<String> = ask.form.all("director").into_iter().collect();
    {
        let registry = ask.site.registry.borrow();
        for id in ask.form.all("cluster") {
            let members = registry.policing.clusters.get(&id).map(|row| row.members.clone()).unwrap_or_default();
            nodes.extend(members);
        }
        let waiting: BTreeSet<String> = waiting(&registry).into_iter().collect();
        match all {
            true => nodes = waiting,
            // A member that runs it already is no reason to refuse the others.
            false => nodes.retain(|id| waiting.contains(id)),
        }
    }
    if nodes.is_empty() {
        return list_with(&ask, "Choose at least one Director or cluster that waits.", "").await;
    }
    // Each is confirmed for the version that it was shown with: by group, one command for each version.
    let seen: BTreeSet<String> = ask.form.all("version").into_iter().collect();
    let mut by: BTreeMap<String, Vec<String>> = BTreeMap::new();
    {
        let (tree, registry) = (ask.site.tree.borrow().clone(), ask.site.registry.borrow());
        for id in nodes {
            let version = registry.node_policy(&id, &tree.releases, ask.now).ok().and_then(|p| p.version);
            by.entry(version.unwrap_or_else(|| "latest".into())).or_default().push(id);
        }
    }
    if let Some(unseen) = by.keys().find(|version| !seen.contains(*version)) {
        let problem = format!("Version {unseen} came after this page was made, and nothing was confirmed: look at it, and confirm again.");
        return list_with(&ask, &problem, "").await;
    }
    let mut said = Vec::new();
    for (version, ids) in by {
        let wire = AdminWire {
            command: "authorize".into(),
            act: Some("give".into()),
            agents: Some(ids),
            version: Some(version.clone()),
            ttl_s: ask.form.get("ttl").parse().ok(),
            ..Default::default()
        };
        match ask.command(wire).await {
            Ok(done) => {
                let count = done["authorized"].as_array().map_or(0, Vec::len);
                said.push(format!("{version} was confirmed for {count} Director{}", if count == 1 { "" } else { "s" }));
            }
            Err(reason) => return list_with(&ask, &sentence(&reason.detail), "").await,
        }
    }
    Ok(Reply::See(PATH.into(), Toast::good(format!("{}. The roll-out begins with one of them.", said.join("; ")))))
}
