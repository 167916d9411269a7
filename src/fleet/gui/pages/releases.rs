//! Releases: what the mirror holds, what was withdrawn, who runs what, and how fresh it is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Templates;
use super::acts::done;
use super::list::empty;
use crate::core::access::Act;
use crate::core::notes::{Notes, key};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::releases::{self, ReleaseRow};
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::words;

/// Versions of one product on the page.
const VERSIONS: usize = 30;

const PATH: &str = "/releases";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "releases", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged },
    Route { method: "POST", path: "/releases/refresh", id: "refresh", need: Act::Refresh, page: |ask| Box::pin(refresh(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates = &[("releases", include_str!("../templates/releases.html"))];

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let context = {
        let tree = ask.site.tree.borrow().clone();
        let rows = releases::view(&tree.releases, ask.now).releases;
        let mut running: BTreeMap<String, u64> = BTreeMap::new();
        for director in ask.site.registry.borrow().agents.values().filter(|d| d.removed_at.is_none()) {
            *running.entry(director.version.clone()).or_default() += 1;
        }
        let last_row = ask.gui.history().last().unwrap_or_default();
        let on_agents = last_row.agent_versions.into_iter().map(|c| (c.name, c.count)).collect();
        let last = ask.site.last_refresh.borrow();
        let none = if rows.is_empty() {
            empty(
                "box",
                "The mirror holds no release yet",
                "Publish one with vmetric-release, then look for it here. An air-gapped Fleet imports it: vmetric-fleet mirror --file.",
            )
        } else {
            Value::Null
        };
        json!({
            "live": true,
            "none": none,
            "products": products(&rows, &running, &on_agents, &tree.releases.notes),
            "verified": words::ago(tree.verified_at),
            "timestamp": tree.timestamp_version,
            "source": ask.site.about.borrow().mirror.clone(),
            "error": last.error.clone(),
            "mirror_note": last.note.clone(),
            "may_refresh": ask.may(Act::Refresh),
        })
    };
    Page::new("Releases", "releases", context).below(&[("Fleet Management", "")]).reply()
}

fn products(rows: &[ReleaseRow], running: &BTreeMap<String, u64>, on_agents: &BTreeMap<String, u64>, notes: &Notes) -> Vec<Value> {
    let mut by_product: BTreeMap<&str, Vec<(&str, Vec<&ReleaseRow>)>> = BTreeMap::new();
    for row in rows {
        let versions = by_product.entry(&row.product).or_default();
        match versions.last_mut() {
            Some((version, files)) if *version == row.version => files.push(row),
            _ => versions.push((&row.version, vec![row])),
        }
    }
    let product = |(name, versions): (&&str, &Vec<(&str, Vec<&ReleaseRow>)>)| {
        let shown: Vec<Value> = versions
            .iter()
            .take(VERSIONS)
            .enumerate()
            .map(|(at, (v, files))| {
                let mut row = version(v, files, at == 0, if *name == "vmetric-agent" { on_agents } else { running });
                row["notes"] = json!(notes.get(&key(name, v)));
                row
            })
            .collect();
        let title = match *name {
            "vmetric-director" => "Directors",
            "vmetric-agent" => "Agents",
            other => other,
        };
        json!({"name": name, "title": title, "versions": shown, "more": versions.len() > VERSIONS})
    };
    by_product.iter().map(product).collect()
}

fn version(version: &str, files: &[&ReleaseRow], newest: bool, running: &BTreeMap<String, u64>) -> Value {
    let withdrawn = files.iter().find_map(|f| f.withdrawn.clone());
    let file = |f: &&ReleaseRow| {
        json!({
            "platform": format!("{} / {}", words::os(&f.os), f.arch), "file": f.file, "size": words::bytes(f.length),
            "sha256": f.sha256, "short": f.sha256.get(..16), "min": f.min_version, "withdrawn": f.withdrawn.is_some(),
        })
    };
    let on = running.get(version).copied().unwrap_or(0);
    let word = if files.len() == 1 { "1 file".to_string() } else { format!("{} files", files.len()) };
    json!({
        "version": version, "newest": newest, "withdrawn": withdrawn, "files": files.iter().map(file).collect::<Vec<_>>(),
        "count": word, "running": words::number(on),
    })
}

async fn refresh(ask: Ask) -> Result<Reply, Reason> {
    let wire = AdminWire { command: "mirror".into(), ..Default::default() };
    done(&ask, wire, PATH.into(), "The mirror was looked through".into()).await
}
