//! A default for the agents of a cluster, and what Fleet knows of what is in force for an agent.

use vmetric::director::api_tokens::ApiTokenView;
use vmetric::director::policing::rows::{PolicyChange, Scope};
use vmetric::fleet::explain::AgentExplainView;

use crate::director_bench::Site;
use crate::director_orders::World;
use crate::director_policy::{policy, set, settings};
use crate::fleet::get;
use crate::fleet_told::{join, until};

fn fleet() -> World {
    let mut fleet = World::new(0);
    for id in ["site-1", "site-2", "site-3"] {
        fleet.enroll(id, "linux", "1.0.0");
    }
    fleet
}

fn cluster(fleet: &mut World) -> Scope {
    let (now, members) = (fleet.now, ["site-1", "site-2", "site-3"].map(String::from));
    Scope::AgentsOfCluster(fleet.registry.create_cluster("c-1", "north", &members, now).unwrap().id)
}

fn hand(fleet: &World, site: &mut World) -> u64 {
    let (revision, handed) = fleet.registry.handed_to("site-1", fleet.now);
    let text = miniserde::json::to_string(&handed);
    site.registry.take_handed(&miniserde::json::from_str(&text).unwrap(), site.now);
    site.plan();
    revision
}

fn mode(site: &World) -> (String, String) {
    let view = policy(site, "a0");
    (view.values[0].value.clone(), view.values[0].tier.clone())
}

fn is(value: &str, tier: &str) -> (String, String) {
    (value.into(), tier.into())
}

fn refused(world: &mut World, scope: &Scope) -> String {
    let change = PolicyChange { set: settings("mode=auto"), ..Default::default() };
    world.registry.set_policy(scope, &change, world.now).unwrap_err().code.to_string()
}

#[test]
fn it_stands_in_the_place_of_each_members_own() {
    let (mut fleet, mut site) = (fleet(), World::new(1));
    set(&mut fleet, &Scope::Agents, "mode=auto;method=user_action");
    set(&mut fleet, &Scope::AgentsOf("site-1".into()), "mode=manual");
    hand(&fleet, &mut site);
    assert_eq!(mode(&site), is("manual", "director"));
    let agents = cluster(&mut fleet);
    let joined = hand(&fleet, &mut site);
    assert_eq!(mode(&site), is("auto", "organization"), "its own rests, and nobody has said anything for the cluster yet");
    set(&mut fleet, &agents, "mode=auto;method=immediate;version=2.0.0");
    assert!(hand(&fleet, &mut site) > joined);
    assert_eq!((mode(&site), site.state(1, "a0").0.as_str()), (is("auto", "cluster"), "ordered"));
    // Neither at Fleet nor here does a member have a default of its own now; a single agent has.
    assert_eq!(refused(&mut fleet, &Scope::AgentsOf("site-1".into())), "policy_of_cluster");
    assert_eq!(refused(&mut site, &Scope::Default), "policy_of_cluster");
    let shown = site.registry.scope_view(&Scope::Default, &[], &site.releases, site.now).unwrap();
    assert_eq!((shown.cluster_name.as_deref(), shown.typed.mode.as_deref()), (Some("north"), Some("manual")), "nothing typed is lost");
    let shown = fleet.registry.scope_view(&Scope::AgentOf("site-1".into(), "a0".into()), &[], &fleet.releases, fleet.now).unwrap();
    assert_eq!((shown.effective[1].value.as_str(), shown.effective[1].tier.as_str()), ("immediate", "cluster"));
    set(&mut site, &Scope::Node("a0".into()), "mode=manual");
    assert_eq!(mode(&site), is("manual", "node"));
    site.registry.set_policy(&Scope::Node("a0".into()), &PolicyChange { custom: Some(false), ..Default::default() }, 0).unwrap();
    // Custom Policy off keeps what was typed.
    let off = PolicyChange { custom: Some(false), ..Default::default() };
    let row = fleet.registry.set_policy(&agents, &off, fleet.now).unwrap();
    assert_eq!((row.custom, row.settings.version.as_deref()), (false, Some("2.0.0")));
    hand(&fleet, &mut site);
    assert_eq!(mode(&site), is("auto", "organization"));
    let on = PolicyChange { custom: Some(true), ..Default::default() };
    fleet.registry.set_policy(&agents, &on, fleet.now).unwrap();
    hand(&fleet, &mut site);
    // After a restart, and before Fleet is heard again.
    site.restart();
    assert_eq!(mode(&site), is("auto", "cluster"));
    fleet.restart();
    assert_eq!(hand(&fleet, &mut site), fleet.registry.handed_revision("site-1"));
    // It leaves: its own counts again.
    let now = fleet.now;
    fleet.registry.remove_cluster("north", None, now).unwrap();
    hand(&fleet, &mut site);
    assert_eq!(mode(&site), is("manual", "director"));
    assert!(set_again(&mut site) && !fleet.registry.policing.rows.contains_key(&agents.key()));
}

/// Whether this Director may say something for its agents again.
fn set_again(site: &mut World) -> bool {
    let change = PolicyChange { set: settings("mode=auto"), ..Default::default() };
    site.registry.set_policy(&Scope::Default, &change, site.now).is_ok()
}

#[test]
fn leaving_is_told_also_when_nothing_else_was_ever_said() {
    let mut fleet = fleet();
    let mut answer = Default::default();
    fleet.registry.tell_handed("site-1", &mut answer);
    assert_eq!(answer.settings_revision, None);
    cluster(&mut fleet);
    fleet.registry.tell_handed("site-1", &mut answer);
    assert!(answer.settings_revision.take().is_some_and(|revision| revision > 0));
    let now = fleet.now;
    fleet.registry.remove_cluster("north", None, now).unwrap();
    fleet.registry.tell_handed("site-1", &mut answer);
    assert_eq!(answer.settings_revision, Some(0));
}

fn explained(fleet: &Site, director: &str, agent: &str) -> AgentExplainView {
    fleet.json(&format!("explain {director}/{agent} --json"))
}

#[test]
fn fleet_knows_what_is_in_force_for_an_agent_and_who_said_it() {
    let (fleet, director) = (Site::fleet(), Site::new());
    let agent = director.enroll("edge");
    agent.report();
    let (id, name) = (join(&fleet, &director), agent.report.agent_id.clone());
    until("the agent at Fleet", || fleet.good("agents").contains(&name));
    let others: Vec<String> = ["b", "c"].map(|other| format!("--member {}", fleet.enroll(other).report.agent_id)).into();
    fleet.good("policy set --agents --mode auto --method user_action");
    let says = |field: &str| {
        let view = explained(&fleet, &id, &name);
        view.values.iter().find(|v| v.field == field).map(|v| format!("{} ({})", v.value, v.tier)).unwrap_or_default()
    };
    until("the organization's word", || says("method") == "user_action (organization)");
    fleet.good(&format!("cluster create north --member {id} {}", others.join(" ")));
    let set = fleet.good("policy set --agents --cluster north --mode auto --method schedule --interval 12h");
    assert!(set.contains("the agents of cluster north"), "{set}");
    until("the cluster's word", || says("interval") == "43200s (cluster)");
    // Fleet shows its own newest word until the Director has told that it is in force.
    until("the cluster's word at the Director", || director.good(&format!("policy show {name}")).contains("43200s (cluster)"));
    assert!(director.bad("policy set --default --mode manual").contains("policy_of_cluster"));
    assert!(fleet.bad(&format!("policy set --agents --director {id} --mode manual")).contains("policy set --agents --cluster"));
    // A person at the site says something for this agent: Fleet shows it, who, and that it is the site's.
    director.good(&format!("policy set --agent {name} --mode manual"));
    until("the site's word", || says("mode") == "manual (node)");
    let view = explained(&fleet, &id, &name);
    assert!(view.told && view.local.len() == 1 && view.local[0].starts_with("node, by uid "), "{view:?}");
    assert_eq!(view.tiers.iter().map(|t| t.tier.as_str()).collect::<Vec<_>>(), ["organization", "cluster", "node"]);
    let text = fleet.good(&format!("explain {id}/{name}"));
    assert!(text.contains("manual (node)") && text.contains("set there"), "{text}");
    assert!(fleet.bad(&format!("explain {id}/nobody")).contains("agent_unknown"));
    let token = fleet.json::<ApiTokenView>("token create --role viewer --json").token;
    let (status, body) = get(&fleet, &format!("/api/v1/agents/explain?director={id}&agent={name}"), Some(&token));
    assert!(status == 200 && body.contains("\"tier\":\"node\""), "{body}");
    assert_eq!(get(&fleet, "/api/v1/agents/explain?director=x", Some(&token)).0, 400);
    assert_eq!(get(&fleet, "/api/v1/agents/policy?cluster=north", Some(&token)).0, 200);
    assert_eq!(get(&fleet, &format!("/api/v1/agents/policy?cluster=north&director={id}"), Some(&token)).0, 400);
    director.good(&format!("policy set --agent {name} --custom off"));
    fleet.good("cluster remove north");
    until("the organization's word again", || says("method") == "user_action (organization)");
    until("no word of the site's", || explained(&fleet, &id, &name).local.is_empty());
}
