//! `cluster`: records of Directors that belong together, and their one policy.

use std::rc::Rc;

use smol::net::unix::UnixStream;

use crate::core::reason::Reason;
use crate::director::admin::{AdminWire, line, status};
use crate::director::args::Words;
use crate::director::policing::clusters::{ClusterChange, ClustersView};
use crate::director::site::{Site, random_hex};
use crate::director::table::Table;

/// As it travels to the running Fleet.
pub const COMMAND: &str = "cluster";

/// Reads the options.
///
/// # Errors
/// Wrong usage.
pub fn asks(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    let act = words.act(COMMAND, &["create", "list", "show", "change", "remove"])?;
    request.members = words.list("--member")?;
    match act.as_str() {
        "create" => request.name = Some(words.word()?.ok_or("cluster create needs a NAME, and --member DIRECTOR three times or more")?),
        "list" => {}
        act => {
            request.name = if act == "change" { words.option("--name")? } else { None };
            request.expected = if act == "show" { None } else { words.number("--revision")? };
            request.cluster = Some(words.named(COMMAND, act)?);
        }
    }
    request.act = Some(act);
    Ok(())
}

/// Answers it.
///
/// # Errors
/// The reason.
pub async fn run(site: &Rc<Site>, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let word = request.cluster.clone().unwrap_or_default();
    let members = request.members.clone();
    let done = match request.act.as_deref() {
        Some("create") => {
            let (id, name) = (format!("c-{}", random_hex(4)), request.name.clone().unwrap_or_default());
            Some(site.acting(who, |registry| registry.create_cluster(&id, &name, &members.unwrap_or_default(), now))?)
        }
        Some("change") => {
            let change = ClusterChange { name: request.name.clone(), members, expected: request.expected };
            Some(site.acting(who, |registry| registry.change_cluster(&word, &change, now))?)
        }
        Some("remove") => {
            site.acting(who, |registry| registry.remove_cluster(&word, request.expected, now))?;
            None
        }
        Some("show") => Some(site.registry.borrow().named_cluster(&word)?.clone()),
        _ => None,
    };
    if !matches!(request.act.as_deref(), Some("show" | "list")) {
        site.decide_now(now).await?;
    }
    let view = site.registry.borrow().clusters_view(done.as_ref().map(|row| row.id.as_str()), now)?;
    let gone = |e: std::io::Error| Reason::new("connection_lost", e.to_string());
    status(out, "ok", "").await.map_err(gone)?;
    line(out, &view).await.map_err(gone)
}

/// The answer for people.
pub fn shown(view: &ClustersView) -> String {
    if view.clusters.is_empty() {
        return "there is no cluster; `cluster create NAME --member A --member B --member C` makes one\n".into();
    }
    let mut table = Table::new(&["ID", "NAME", "STATUS", "QUORUM", "POLICY", "REVISION", "MEMBERS"]);
    for cluster in &view.clusters {
        let members: Vec<String> =
            cluster.members.iter().map(|m| format!("{} ({})", m.id, if m.online { &m.version } else { "down" })).collect();
        let words = [if cluster.quorum { "yes" } else { "no" }, if cluster.custom { "custom" } else { "inherited" }].map(String::from);
        let mut cells = vec![cluster.id.clone(), cluster.name.clone(), cluster.status.clone()];
        cells.extend(words);
        cells.extend([cluster.revision.to_string(), members.join(", ")]);
        table.row(cells);
    }
    format!("{}{}\n", table.text(), view.note)
}
