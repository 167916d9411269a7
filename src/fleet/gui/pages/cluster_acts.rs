//! What a person can do about a cluster: each asks first; an exception says what it would cost.

use serde_json::{Value, json};

use super::acts::{Offer, done, reason, why};
use super::clusters::{asked, named, names, path, shown};
use super::create::CLUSTERS;
use super::{Templates, directors};
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::policing::clusters::ClusterView;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};

/// Routes.
pub static ROUTES: &[Route] = &[
    of("/fleet-management/clusters/{cluster}/remove", "cluster-remove", Act::EditPolicy, |ask| Box::pin(remove(ask)) as Paged),
    of("/fleet-management/clusters/{cluster}/pause", "cluster-pause", Act::Cancel, |ask| Box::pin(stop(ask, "pause")) as Paged),
    of("/fleet-management/clusters/{cluster}/abort", "cluster-abort", Act::Cancel, |ask| Box::pin(stop(ask, "abort")) as Paged),
    of("/fleet-management/clusters/{cluster}/resume", "cluster-resume", Act::Cancel, |ask| Box::pin(stop(ask, "resume")) as Paged),
    of("/fleet-management/clusters/{cluster}/override", "cluster-override", Act::Remove, |ask| Box::pin(exception(ask)) as Paged),
];

/// Templates.
pub static TEMPLATES: Templates = &[("cluster-override", include_str!("../templates/cluster-override.html"))];

const fn of(path: &'static str, id: &'static str, need: Act, page: fn(Ask) -> Paged) -> Route {
    Route { method: "POST", path, id, need, page }
}

/// What this person may do about this cluster as it is now.
pub fn of_cluster(ask: &Ask, cluster: &ClusterView, names: &[(String, String)]) -> Vec<Value> {
    let mut out = Vec::new();
    if ask.may(Act::Cancel) {
        out.extend(stops(cluster));
    }
    if ask.may(Act::Remove) {
        let options: Vec<(&str, &str)> = names.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
        let member = Input::select("director", "Member", &options).json();
        let about = "One member is updated although others are not well. What it costs the cluster is said before it counts.";
        let fields = vec![member, why("override")];
        out.push(Offer {
            word: "Override",
            about: about.into(),
            path: "override",
            confirm: "What does it cost?",
            danger: true,
            fields,
            hidden: vec![],
        });
    }
    if ask.may(Act::EditPolicy) {
        let about = "Its members stay, each with its own policy again.".to_string();
        let hidden = vec![("revision", cluster.revision.to_string())];
        out.push(Offer { word: "Remove cluster", about, path: "remove", confirm: "Remove", danger: true, fields: vec![], hidden });
    }
    let page = path(&cluster.id);
    out.into_iter().map(|offer| offer.json(ask, &page)).collect()
}

/// A break, its end, the end.
fn stops(cluster: &ClusterView) -> Vec<Offer<'static>> {
    let mut out = Vec::new();
    let mut offer = |word: &'static str, about: &str, path: &'static str, danger: bool, fields: Vec<Value>| {
        out.push(Offer { word, about: about.into(), path, confirm: word, danger, fields, hidden: vec![] });
    };
    match cluster.stopped.as_deref() {
        Some("halted") => {
            let about = "What halted it counts as seen to, a lease that ran out is given up, and the next member may go.";
            offer("Resume updates", about, "resume", false, vec![]);
        }
        Some(_) => offer("Resume updates", "The next member may go.", "resume", false, vec![]),
        None => offer("Pause updates", "No other member goes. One that is away comes back first.", "pause", false, vec![why("pause")]),
    }
    if cluster.stopped.as_deref() != Some("aborted") {
        let about = "Members that have not begun keep their version, and what has begun and not switched is cancelled. One that is away comes back first.";
        offer("Abort updates", about, "abort", true, vec![why("abort")]);
    }
    out
}

async fn remove(ask: Ask) -> Result<Reply, Reason> {
    let wire = AdminWire { expected: ask.form.get("revision").parse().ok(), ..asked("remove", Some(ask.place(0))) };
    ask.command(wire).await?;
    Ok(Reply::See(CLUSTERS.into(), Toast::good("The cluster was removed; its members have their own policies again.")))
}

async fn stop(ask: Ask, act: &str) -> Result<Reply, Reason> {
    let wire = AdminWire { reason: reason(&ask), ..asked(act, Some(ask.place(0))) };
    let said = match act {
        "pause" => "No other member goes now; one that is away comes back first.",
        "abort" => "The roll-out ended for this cluster; one that is away comes back first.",
        _ => "The next member may go.",
    };
    done(&ask, wire, path(ask.place(0)), said.into()).await
}

/// First what it costs, then the act.
async fn exception(ask: Ask) -> Result<Reply, Reason> {
    let cluster = shown(&ask)?;
    let names = names(&cluster);
    let director = ask.form.get("director").to_string();
    let name = names.iter().find(|(id, _)| *id == director).map_or(director.clone(), |(_, name)| name.clone());
    let sure = ask.form.get("force") == "on";
    let back = path(&cluster.id);
    let wire =
        AdminWire { director: Some(director.clone()), force: Some(sure), reason: reason(&ask), ..asked("override", Some(&cluster.id)) };
    let refused = match ask.command(wire).await {
        Ok(_) => return Ok(Reply::See(back, Toast::good(format!("{name} may go within the hour, whatever the others do.")))),
        Err(refused) => refused,
    };
    if sure || refused.code != "quorum_cost" {
        let refused = Reason::received(refused.code.to_string(), named(&refused.detail, &names));
        return Ok(Reply::See(back, Toast::bad(&refused)));
    }
    let cost = named(refused.detail.trim_end_matches("; --force takes this on"), &names);
    let context = json!({
        "cluster": cluster.name, "name": name, "path": directors::path(&director), "cost": cost, "lost": cost.contains("QUORUM IS LOST"),
        "action": format!("{back}/override"), "director": director, "reason": reason(&ask).unwrap_or_default(), "back": back,
    });
    Page::new("Override", "cluster-override", context)
        .below(&[("Fleet Management", ""), ("Clusters", CLUSTERS), (&cluster.name, &back)])
        .reply()
}
