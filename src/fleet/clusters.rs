//! `cluster`: records of Directors that belong together, and their one policy.

use std::rc::Rc;

use smol::net::unix::UnixStream;

use crate::core::cluster::lease::Kind;
use crate::core::reason::Reason;
use crate::director::admin::{AdminWire, line, status};
use crate::director::args::Words;
use crate::director::policing::clusters::{ClusterChange, ClusterView, ClustersView};
use crate::director::site::{Site, random_hex};
use crate::director::table::{Table, until};

/// As it travels to the running Fleet.
pub const COMMAND: &str = "cluster";
/// What can be done.
const ACTS: [&str; 9] = ["create", "list", "show", "change", "remove", "pause", "resume", "abort", "override"];
/// What somebody says why for.
const STOPS: [&str; 3] = ["pause", "abort", "override"];

/// Reads the options.
///
/// # Errors
/// Wrong usage.
pub fn asks(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    let act = words.act(COMMAND, &ACTS)?;
    request.members = words.list("--member")?;
    if act == "change" {
        (request.drain_s, request.soak_s) = (words.duration("--drain")?, words.duration("--soak")?);
    }
    if STOPS.contains(&act.as_str()) {
        request.reason = words.option("--reason")?;
    }
    if act == "override" {
        request.director = Some(words.option("--director")?.ok_or("cluster override needs --director ID: the member that is to go")?);
        request.force = Some(words.flag("--force"));
    }
    match act.as_str() {
        "create" => request.name = Some(words.word()?.ok_or("cluster create needs a NAME, and --member DIRECTOR three times or more")?),
        "list" => {}
        act => {
            request.name = if act == "change" { words.option("--name")? } else { None };
            request.expected = if matches!(act, "change" | "remove") { words.number("--revision")? } else { None };
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
    let mut gone = None;
    let done = match request.act.as_deref() {
        Some("create") => {
            let (id, name) = (format!("c-{}", random_hex(4)), request.name.clone().unwrap_or_default());
            Some(site.acting(who, |registry| registry.create_cluster(&id, &name, &members.unwrap_or_default(), now))?)
        }
        Some("change") => {
            let (drain_s, soak_s) = (request.drain_s, request.soak_s);
            let change = ClusterChange { name: request.name.clone(), members, expected: request.expected, drain_s, soak_s };
            Some(site.acting(who, |registry| registry.change_cluster(&word, &change, now))?)
        }
        Some("remove") => {
            site.registry.borrow().may_lead_cluster(&word)?;
            gone = Some(site.acting(who, |registry| registry.remove_cluster(&word, request.expected, now))?);
            None
        }
        Some(act @ ("pause" | "resume" | "abort" | "override")) => {
            stop_or_go(site, request, who, act, now)?;
            let row = site.registry.borrow().named_cluster(&word)?.clone();
            // Whoever was told to stop hears it now, and not at its next poll.
            row.members.iter().for_each(|member| site.wake(member));
            Some(row)
        }
        Some("show") => Some(site.registry.borrow().named_cluster(&word)?.clone()),
        _ => None,
    };
    if !matches!(request.act.as_deref(), Some("show" | "list")) {
        site.decide_now(now).await?;
    }
    if let Some(row) = gone {
        site.registry.borrow_mut().forget_leases(&row.id);
        site.flush();
    }
    let view = site.registry.borrow().clusters_view(done.as_ref().map(|row| row.id.as_str()), now)?;
    let gone = |e: std::io::Error| Reason::new("connection_lost", e.to_string());
    status(out, "ok", "").await.map_err(gone)?;
    line(out, &view).await.map_err(gone)
}

fn stop_or_go(site: &Rc<Site>, request: &AdminWire, who: &str, act: &str, now: u64) -> Result<(), Reason> {
    let word = request.cluster.clone().unwrap_or_default();
    let because = request.reason.clone().unwrap_or_default();
    site.registry.borrow().may_lead_cluster(&word)?;
    site.acting(who, |registry| match act {
        "resume" => registry.resume_cluster(&word, now),
        "override" => {
            let member = registry.named_agent(request.director.as_deref().unwrap_or_default())?;
            registry.waive_member(&word, &member, request.force == Some(true), &because, now).map(drop)
        }
        "abort" => registry.stop_cluster(&word, Kind::Aborted, &because, now),
        _ => registry.stop_cluster(&word, Kind::Paused, &because, now),
    })
}

/// The answer for people.
pub fn shown(view: &ClustersView) -> String {
    if view.clusters.is_empty() {
        return "there is no cluster; `cluster create NAME --member A --member B --member C` makes one\n".into();
    }
    if let [cluster] = view.clusters.as_slice() {
        return one(cluster, view.time) + "\n" + &view.note + "\n";
    }
    let mut table = Table::new(&["ID", "NAME", "STATUS", "QUORUM", "POLICY", "REVISION", "NEXT", "MEMBERS"]);
    for cluster in &view.clusters {
        let members: Vec<String> =
            cluster.members.iter().map(|m| format!("{} ({})", m.id, if m.is_up() { &m.version } else { "down" })).collect();
        let words = [if cluster.quorum { "yes" } else { "no" }, if cluster.custom { "custom" } else { "inherited" }].map(String::from);
        let mut cells = vec![cluster.id.clone(), cluster.name.clone(), cluster.status.clone()];
        cells.extend(words);
        cells.extend([cluster.revision.to_string(), cluster.code.clone(), members.join(", ")]);
        table.row(cells);
    }
    format!("{}{}\n", table.text(), view.note)
}

/// One cluster: first why nobody goes, then its members in the order of updates.
fn one(cluster: &ClusterView, now: u64) -> String {
    let mut out = format!("{} ({}): {}\n{} ({})\n", cluster.name, cluster.id, cluster.status, cluster.detail, cluster.code);
    if let (Some(holder), Some(expires)) = (&cluster.holder, cluster.expires) {
        out += &format!("lease: {holder}, epoch {}, {}\n", cluster.epoch, until(now, expires));
    }
    let policy = if cluster.custom { "custom" } else { "inherited" };
    let quorum = if cluster.quorum { "kept" } else { "LOST" };
    out += &format!(
        "quorum {quorum}, policy {policy}, revision {}, drain {} s, soak {} s\n",
        cluster.revision, cluster.drain_s, cluster.soak_s
    );
    let mut table = Table::new(&["TURN", "DIRECTOR", "STATE", "VERSION", "AGENTS", "WHY"]);
    for m in &cluster.members {
        let why = m.detail.clone().unwrap_or_default();
        table.row(vec![m.turn.to_string(), m.id.clone(), m.state.clone(), m.version.clone(), m.load.to_string(), why]);
    }
    out + &table.text()
}
