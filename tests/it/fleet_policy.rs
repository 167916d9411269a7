//! Policies of three tiers, clusters and their history: over the registry, and with a real Fleet and a real Director.

use vmetric::director::api_tokens::ApiTokenView;
use vmetric::director::policing::clusters::{ClusterChange, ClustersView};
use vmetric::director::policing::history::HistoryView;
use vmetric::director::policing::rows::{PolicyChange, Scope};
use vmetric::director::policing::scopes::{CheckView, Concerned, ScopeView};
use vmetric::director::policing::show::PolicyView;
use vmetric::io::clock;

use crate::director_bench::Site;
use crate::director_orders::World;
use crate::director_policy::{node, policy, set, settings};
use crate::fleet::get;
use crate::fleet_told::{join, until};

fn fleet(directors: u32) -> World {
    let mut world = World::new(0);
    for i in 0..directors {
        world.enroll(&format!("d{i}"), "linux", "1.0.0");
    }
    world
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|n| n.to_string()).collect()
}

fn cluster(world: &mut World, name: &str, members: &[&str]) -> Scope {
    let now = world.now;
    let row = world.registry.create_cluster(&format!("c-{}", name.to_lowercase()), name, &names(members), now).unwrap();
    Scope::Cluster(row.id)
}

fn scope(world: &World, scope: &Scope) -> ScopeView {
    let concerned = world.registry.concerned(scope).unwrap_or_default();
    world.registry.scope_view(scope, &concerned, &world.releases, world.now).unwrap()
}

fn says(view: &ScopeView, field: &str) -> (String, String) {
    view.effective.iter().find(|v| v.field == field).map(|v| (v.value.clone(), v.tier.clone())).unwrap_or_default()
}

fn custom(world: &mut World, whose: &Scope, on: bool) {
    let change = PolicyChange { custom: Some(on), ..Default::default() };
    world.registry.set_policy(whose, &change, world.now).unwrap();
}

#[test]
fn every_scope_inherits_and_keeps_what_was_typed() {
    let mut world = fleet(4);
    let north = cluster(&mut world, "north", &["d1", "d2", "d3"]);
    let agents_of = Scope::AgentsOf("d0".into());
    let agent_of = Scope::AgentOf("d0".into(), "a0".into());
    set(&mut world, &Scope::Organization, "mode=auto;method=user_action;zone=Europe/Berlin");
    set(&mut world, &Scope::Agents, "mode=auto;method=user_action;zone=Asia/Tokyo");
    // (scope, tier of its own, tier above)
    for (whose, tier, above) in [
        (node("d0"), "node", "organization"),
        (north.clone(), "cluster", "organization"),
        (agents_of.clone(), "director", "organization"),
        (agent_of, "node", "director"),
    ] {
        set(&mut world, &whose, "mode=auto;method=schedule;cron=0 2 * * 0;version=2.0.0");
        let view = scope(&world, &whose);
        assert_eq!(says(&view, "cron"), ("0 2 * * 0".into(), tier.into()), "{view:?}");
        assert_eq!(says(&view, "zone").1, "organization");
        assert_eq!(view.schedule.as_ref().map(|s| s.next.len()), Some(5));
        custom(&mut world, &whose, false);
        let off = scope(&world, &whose);
        assert_eq!((off.typed.clone(), off.custom), (view.typed.clone(), false), "nothing typed is lost");
        assert_eq!(says(&off, "method").1, above);
        assert_eq!(off.effective, off.inherited);
        custom(&mut world, &whose, true);
        assert_eq!(scope(&world, &whose).effective, view.effective);
        assert_eq!(scope(&world, &whose).inherited, off.effective);
    }
    // Organization defaults of Directors and of agents are two.
    assert_eq!(says(&scope(&world, &Scope::Organization), "method").0, "user_action");
    set(&mut world, &Scope::Agents, "mode=manual");
    assert_eq!(says(&scope(&world, &Scope::Organization), "mode").0, "auto");
    world.restart();
    assert_eq!(says(&scope(&world, &node("d0")), "cron").1, "node");
    assert_eq!(says(&scope(&world, &north), "cron").1, "cluster");
}

#[test]
fn a_members_policy_belongs_to_its_cluster() {
    let mut world = fleet(4);
    set(&mut world, &node("d1"), "mode=manual");
    let north = cluster(&mut world, "North", &["d1", "d2", "d3"]);
    set(&mut world, &north, "mode=auto;method=user_action");
    assert_eq!(policy(&world, "d1").values[0].tier, "cluster");
    let refused = |world: &mut World, whose: &Scope| {
        let change = PolicyChange { set: settings("mode=auto"), ..Default::default() };
        world.registry.set_policy(whose, &change, world.now).map_err(|r| (r.code.to_string(), r.detail.clone()))
    };
    let (code, detail) = refused(&mut world, &node("d1")).unwrap_err();
    assert!(code == "policy_of_cluster" && detail.contains("'North'") && detail.contains("policy set --cluster"), "{detail}");
    let view = scope(&world, &node("d1"));
    assert_eq!((view.cluster_name.as_deref(), view.typed.mode.as_deref()), (Some("North"), Some("manual")), "its own rests");
    let now = world.now;
    assert_eq!(world.registry.remove("d1", now).unwrap_err().code, "cluster_member");
    let again = world.registry.create_cluster("c-x", "x", &names(&["d0", "d2", "d3"]), now).unwrap_err();
    assert_eq!(again.code, "member_of_another");
    assert_eq!(world.registry.create_cluster("c-x", "north", &names(&["d0", "d2", "d3"]), now).unwrap_err().code, "name_taken");
    world.restart();
    assert_eq!(policy(&world, "d1").values[0].tier, "cluster");
    // Two people change its members.
    let view = world.registry.clusters_view(Some("north"), world.now).unwrap().clusters.remove(0);
    let change =
        |members: &[&str], expected| ClusterChange { members: Some(names(members)), expected: Some(expected), ..Default::default() };
    let now = world.now;
    world.registry.by = Some("anna".into());
    world.registry.change_cluster("north", &change(&["d0", "d2", "d3"], view.revision), now).unwrap();
    let late = world.registry.change_cluster("north", &change(&["d1", "d0", "d3"], view.revision), now).unwrap_err();
    assert!(late.code == "revision_conflict" && late.detail.contains("anna") && late.detail.contains("+d0 -d1"), "{late}");
    assert_eq!(policy(&world, "d1").values[0].tier, "node", "its own counts again");
    world.registry.remove_cluster("north", None, now).unwrap();
    assert_eq!(policy(&world, "d2").values[0].tier, "built_in");
    assert_eq!(refused(&mut world, &north).unwrap_err().0, "cluster_unknown");
    let codes: Vec<&str> = world.registry.recent.iter().map(|e| e.code.as_str()).filter(|c| c.starts_with("cluster_")).collect();
    assert_eq!(codes, ["cluster_created", "cluster_changed", "cluster_removed"]);
}

#[test]
fn members_are_updated_one_at_a_time_whoever_orders() {
    for by_policy in [true, false] {
        let mut world = fleet(3);
        let north = cluster(&mut world, "north", &["d0", "d1", "d2"]);
        if by_policy {
            set(&mut world, &north, "mode=auto;method=immediate;version=2.0.0");
        } else {
            let ask = crate::director_orders::all("2.0.0");
            world
                .registry
                .assign(&vmetric::director::orders::Assign { in_flight: "3".parse().unwrap(), ..ask }, &world.releases, world.now)
                .unwrap();
            world.plan();
        }
        let mut done = Vec::new();
        for turn in 0..3 {
            let moving: Vec<String> = (0..3).map(|i| format!("d{i}")).filter(|id| world.state(1, id).0 == "ordered").collect();
            assert_eq!(moving.len(), 1, "turn {turn}: {moving:?}");
            if turn < 2 {
                let waits: Vec<String> = (0..3).map(|i| world.state(1, &format!("d{i}")).1).filter(|code| code == "cluster_turn").collect();
                // The first of a roll-out alone; then the cluster's rule holds the others back.
                assert!(turn == 0 || !waits.is_empty(), "{waits:?}");
            }
            world.finish(&moving[0], "updated");
            done.push(moving[0].clone());
            world.plan();
        }
        done.sort();
        assert_eq!(done, ["d0", "d1", "d2"], "by policy: {by_policy}");
    }
}

#[test]
fn a_silent_member_holds_the_cluster() {
    let mut world = fleet(3);
    let north = cluster(&mut world, "north", &["d0", "d1", "d2"]);
    world.now += vmetric::core::rollout::OFFLINE_AFTER_S + 5;
    for id in ["d0", "d1"] {
        let report = world.report_of(id, "1.0.0");
        world.hear(&report);
    }
    set(&mut world, &north, "mode=auto;method=immediate;version=2.0.0");
    assert_eq!(world.state(1, "d0").1, "cluster_member_silent");
    let report = world.report_of("d2", "1.0.0");
    world.hear(&report);
    world.plan();
    assert_eq!(["d0", "d1"].iter().filter(|id| world.state(1, id).0 == "ordered").count(), 1);
}

#[test]
fn every_change_is_kept_with_before_and_after_and_a_conflict_names_it() {
    let mut world = fleet(1);
    world.registry.by = Some("anna".into());
    set(&mut world, &node("d0"), "mode=auto;method=immediate");
    world.registry.by = Some("ben".into());
    set(&mut world, &node("d0"), "mode=manual");
    set(&mut world, &Scope::Agents, "mode=manual");
    world.restart();
    let history: HistoryView = world.registry.history(Some("node/d0"), None, 10, world.now);
    let said: Vec<(u64, &str, Option<&str>, Option<&str>)> =
        history.changes.iter().map(|c| (c.revision, c.by.as_str(), c.before.mode.as_deref(), c.after.mode.as_deref())).collect();
    assert_eq!(said, [(2, "ben", Some("auto"), Some("manual")), (1, "anna", None, Some("auto"))]);
    assert_eq!(world.registry.history(None, None, 2, world.now).changes.len(), 2);
    assert!(world.registry.history(None, None, 2, world.now).more);
    assert_eq!(world.registry.history(None, Some(2), 2, world.now).changes[0].by, "anna");
    let change = PolicyChange { set: settings("mode=auto"), expected: Some(1), ..Default::default() };
    let refused = world.registry.set_policy(&node("d0"), &change, world.now).unwrap_err();
    assert_eq!(refused.code, "revision_conflict");
    assert!(refused.detail.contains("at revision 2, not 1") && refused.detail.contains("ben: mode auto -> manual"), "{refused}");
    // Kept within limits, and no revision comes twice.
    for i in 0..vmetric::director::policing::history::CHANGES_MAX + 5 {
        set(&mut world, &node("d0"), if i % 2 == 0 { "mode=auto" } else { "mode=manual" });
    }
    let newest = world.registry.policy_revision();
    world.restart();
    assert_eq!(world.registry.policy_revision(), newest);
    assert_eq!(world.registry.history(None, None, u64::MAX, world.now).changes.len(), 1_000, "one answer's limit");
}

#[test]
fn every_problem_is_told_at_once_and_what_can_never_act_is_warned_of() {
    let world = fleet(1);
    let check = |text: &str| -> CheckView {
        let change = PolicyChange { set: settings(text), replace: true, ..Default::default() };
        let concerned = [Concerned { os: "linux".into(), arch: "amd64".into(), version: "1.0.0".into(), sha256: String::new() }];
        world.registry.check_policy(&Scope::Organization, &change, &concerned, &world.releases, world.now).unwrap()
    };
    let bad = check("mode=on;method=schedule;version=x;cron=0 25 * * *;interval=1s;zone=Moon/Base");
    let fields: Vec<&str> = bad.problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["mode", "version", "cron", "interval", "zone"]);
    assert!(!bad.ok && bad.problems.iter().all(|p| p.detail.len() > 10));
    let codes = |view: &CheckView| view.warnings.iter().map(|w| w.code.clone()).collect::<Vec<_>>();
    let never = check("mode=auto;method=schedule;cron=0 0 30 2 *");
    assert!(!never.ok && never.problems[0].field == "cron" && never.problems[0].detail.contains("never fires"), "{never:?}");
    let leap = check("mode=auto;method=schedule;cron=0 0 29 2 *");
    assert!(leap.ok && codes(&leap).iter().all(|code| code == "schedule_rare"), "{leap:?}");
    assert_eq!(codes(&check("mode=auto;method=immediate;version=9.9.9")), ["version_unknown"]);
    assert_eq!(codes(&check("mode=auto;method=schedule")), ["schedule_missing"]);
    let good = check("mode=auto;method=schedule;cron=0 3 * * 1-5;zone=Europe/Berlin");
    assert!(codes(&good).is_empty(), "{good:?}");
    assert_eq!(
        good.schedule.as_ref().map(|s| (s.words.as_str(), s.next_local.len())),
        Some(("at 03:00 on Monday to Friday, Europe/Berlin", 5))
    );
    // While another field is wrong, the times are shown all the same.
    assert!(check("mode=auto;method=schedule;cron=0 3 * * *;version=x").schedule.is_some());
}

#[test]
fn fleets_word_is_in_force_at_a_parked_director_and_its_agent_at_once() {
    let (fleet, director) = (Site::fleet(), Site::new());
    let agent = director.enroll("edge-1");
    agent.report();
    let id = join(&fleet, &director);
    let name = agent.report.agent_id.clone();
    until("the agent at Fleet", || fleet.good("agents").contains(&name));
    assert!(fleet.bad(&format!("policy set --agents --director {id} --agent nobody --mode auto")).contains("agent_unknown"));
    let at_director = |value: &str, tier: &str| director.good(&format!("policy show {name}")).contains(&format!("{value} ({tier})"));
    let mut took = Vec::new();
    for (whose, tier, version) in [
        ("--agents".to_string(), "organization", "1.0.0"),
        (format!("--agents --director {id}"), "director", "2.0.0"),
        (format!("--agents --director {id} --agent {name}"), "node", "1.0.0"),
    ] {
        let set = format!("policy set {whose} --mode auto --method user_action --version {version} --json");
        let began = clock::monotonic();
        let view: PolicyView = fleet.json(&set);
        // Fleet itself mirrors no agents in this test, and says so.
        let warned: Vec<String> = view.scope.iter().flat_map(|s| &s.warnings).map(|w| w.code.clone()).collect();
        assert_eq!(warned, ["version_unknown"], "{set}");
        until("the Director's word", || at_director(version, tier));
        took.push(clock::monotonic() - began);
    }
    // And to the agent, whose poll is parked all the while.
    let began = clock::monotonic();
    let order = std::thread::scope(|threads| {
        let parked = crate::director_bench::FakeAgent {
            http: director.http(),
            url: director.url.clone(),
            credential: agent.credential.clone(),
            report: agent.report.clone(),
        };
        let poll = threads.spawn(move || parked.poll());
        crate::director::wait_for("a parked poll", || director.good("status").contains("1 polls parked"));
        fleet.good(&format!("policy set --agents --director {id} --agent {name} --method immediate --version 2.0.0"));
        poll.join().unwrap().order.unwrap()
    });
    assert_eq!(order.version, "2.0.0");
    println!("policy_push: to the Director {took:?}, order at the agent {:?} after `policy set`", clock::monotonic() - began);
    let history: HistoryView = fleet.json(&format!("policy history --agents --director {id} --agent {name} --json"));
    assert_eq!(history.changes.len(), 2);
    assert!(history.changes[0].by.starts_with("uid "));
}

#[test]
fn clusters_and_scopes_have_their_commands_and_paths() {
    let site = Site::fleet();
    let ids: Vec<String> = ["one", "two", "three"].iter().map(|name| site.enroll(name).report.agent_id.clone()).collect();
    let members = ids.iter().map(|id| format!("--member {id}")).collect::<Vec<_>>().join(" ");
    assert!(site.bad(&format!("cluster create north --member {}", ids[0])).contains("members_invalid"));
    let made: ClustersView = site.json(&format!("cluster create north {members} --json"));
    assert_eq!((made.clusters[0].members.len(), made.clusters[0].name.as_str()), (3, "north"));
    assert!(site.good("cluster list").contains("one at a time"));
    assert!(site.good("policy set --cluster north --mode auto --method user_action").contains("cluster north"));
    assert!(site.bad(&format!("policy set --director {} --mode auto", ids[0])).contains("policy_of_cluster"));
    assert!(site.good("policy check --mode auto --method schedule --cron 1").contains("problem: cron"));
    let token = site.json::<ApiTokenView>("token create --role admin --json").token;
    for path in [
        "/api/v1/clusters",
        "/api/v1/clusters/north",
        "/api/v1/clusters/north/policy",
        "/api/v1/agents/policy",
        &format!("/api/v1/agents/policy?director={}", ids[0]),
        "/api/v1/policy/history",
        "/api/v1/policy/history?scope=agents&limit=2",
    ] {
        let (status, body) = get(&site, path, Some(&token));
        assert_eq!(status, 200, "{path}: {body}");
    }
    assert_eq!(get(&site, "/api/v1/agents/policy?agent=a", Some(&token)).0, 400);
    assert_eq!(get(&site, "/api/v1/clusters/south", Some(&token)).0, 404);
    site.good("cluster change north --name south");
    site.good("cluster remove south");
    assert!(site.good("cluster list").contains("there is no cluster"));
}
