//! Agents under policy, over the registry: time and reports are arguments, nothing is a process.

use vmetric::core::rollout::OFFLINE_AFTER_S;
use vmetric::core::schedule::Zone;
use vmetric::director::cancel::Cancel;
use vmetric::director::policing::grants::Authorize;
use vmetric::director::policing::rows::{PolicyChange, Scope};
use vmetric::director::policing::show::NodePolicyView;
use vmetric::wire::settings::SettingsWire;

use crate::director_orders::{World, all};

const HOUR: u64 = 3_600;

/// `mode=auto;method=immediate` as settings.
pub fn settings(text: &str) -> SettingsWire {
    let mut out = SettingsWire { ..Default::default() };
    for pair in text.split(';').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        *out.field(name).unwrap() = Some(value.to_string());
    }
    out
}

/// The scope's settings are these from now on, and the manager acts.
pub fn set(world: &mut World, scope: &Scope, text: &str) {
    let change = PolicyChange { set: settings(text), replace: true, custom: Some(true), ..Default::default() };
    world.registry.set_policy(scope, &change, world.now).unwrap();
    world.plan();
}

pub fn node(id: &str) -> Scope {
    Scope::Node(id.to_string())
}

pub fn policy(world: &World, id: &str) -> NodePolicyView {
    world.registry.node_policy(id, &world.releases, world.now).unwrap()
}

fn says(world: &World, id: &str) -> (String, String) {
    let view = policy(world, id);
    (view.decision, view.code)
}

/// Everybody reports, so that nobody counts as silent.
fn heartbeat(world: &mut World, agents: &[(&str, &str)]) {
    for (id, version) in agents {
        let report = world.report_of(id, version);
        world.hear(&report);
    }
}

fn at(world: &mut World, now: u64, agents: &[(&str, &str)]) {
    world.now = now;
    heartbeat(world, agents);
    world.plan();
}

#[test]
fn without_a_policy_nothing_moves_and_what_is_there_is_shown() {
    let mut world = World::new(2);
    world.plan();
    assert!(world.registry.rollouts.is_empty());
    let view = policy(&world, "a0");
    assert_eq!((view.decision.as_str(), view.version.as_deref(), view.owner.as_deref()), ("manual", Some("2.1.0"), Some("operator")));
    assert!(view.values.iter().all(|v| v.tier == "built_in"), "{:?}", view.values);
}

#[test]
fn immediate_makes_one_roll_out_and_takes_along_who_comes_later() {
    let mut world = World::new(3);
    set(&mut world, &Scope::Default, "mode=auto;method=immediate;version=2.0.0");
    assert_eq!(world.rollout(1), "running");
    assert_eq!(world.state(1, "a0").0, "ordered", "at once");
    assert_eq!(world.state(1, "a1"), ("waiting_turn".into(), "first_agent".into()), "a policy is no way around the first agent");
    assert_eq!(says(&world, "a0"), ("wait".into(), "under_way".into()));
    world.enroll("late", "linux", "1.0.0");
    world.plan();
    assert_eq!((world.registry.rollouts.len(), says(&world, "late").1), (1, "earlier_rollout".into()));
    for id in ["a0", "a1", "a2"] {
        world.finish(id, "updated");
    }
    assert_eq!((world.rollout(1).as_str(), says(&world, "a0").1), ("done", "up_to_date".into()));
    world.now += 3;
    world.plan();
    assert_eq!(world.state(2, "late").0, "ordered");
    world.finish("late", "updated");
    world.plan();
    assert_eq!(world.registry.rollouts.len(), 2, "and then there is peace");
    let by: Vec<_> = world.registry.recent.iter().filter(|e| e.code == "rollout_created").map(|e| e.by.clone()).collect();
    assert_eq!(by, [Some("policy".into()), Some("policy".into())]);
}

#[test]
fn an_agents_custom_policy_wins_and_is_not_lost_when_it_is_off() {
    let mut world = World::new(2);
    set(&mut world, &node("a1"), "mode=manual");
    set(&mut world, &Scope::Organization, "mode=auto;method=immediate;version=2.0.0");
    assert!(!world.registry.orders.contains_key(&(1, "a1".into())));
    assert_eq!(policy(&world, "a1").values[0].tier, "node");
    let off = PolicyChange { custom: Some(false), ..Default::default() };
    let row = world.registry.set_policy(&node("a1"), &off, world.now).unwrap();
    assert_eq!((row.custom, row.settings.mode.as_deref()), (false, Some("manual")));
    world.finish("a0", "updated");
    world.now += 3;
    world.plan();
    assert_eq!(world.state(2, "a1").0, "ordered", "it inherits");
    let on = PolicyChange { custom: Some(true), ..Default::default() };
    world.registry.set_policy(&node("a1"), &on, world.now).unwrap();
    world.plan();
    assert_eq!(world.state(2, "a1").0, "cancelled", "what has not switched is withdrawn");
}

#[test]
fn mode_manual_stops_what_has_not_switched_and_leaves_a_trial_its_verdict() {
    let mut world = World::new(2);
    set(&mut world, &node("a0"), "mode=auto;method=immediate;version=2.0.0");
    set(&mut world, &node("a1"), "mode=auto;method=immediate;version=2.1.0");
    let (on_trial, fetching) = (world.order("a0").unwrap(), world.order("a1").unwrap());
    let trial = world.trial(&on_trial, "a0");
    world.hear(&trial);
    let busy = world.about(&fetching, "a1", "downloading");
    world.hear(&busy);
    for id in ["a0", "a1"] {
        set(&mut world, &node(id), "mode=manual");
    }
    assert_eq!(world.in_force("a1").kind, "cancel");
    assert_eq!((world.state(1, "a0").0.as_str(), world.state(2, "a1").0.as_str()), ("trial", "cancelled"));
    assert!(world.hear(&trial).acknowledged.is_some());
}

#[test]
fn a_persons_order_ends_first_then_the_policy_decides_again() {
    let mut world = World::new(1);
    set(&mut world, &Scope::Default, "mode=auto;method=immediate;version=2.0.0");
    world.finish("a0", "updated");
    let by_hand = world.assign(&all("2.1.0"));
    assert_eq!(world.state(by_hand, "a0").0, "ordered", "a person's word is carried out");
    let view = policy(&world, "a0");
    assert!(view.note.unwrap().contains("--mode manual"));
    let order = world.in_force("a0");
    world.finish_by(&order, "a0", "updated");
    world.plan();
    assert_eq!(world.state(3, "a0").0, "ordered");
    assert_eq!((world.in_force("a0").version.as_str(), world.registry.rollouts[&3].policy), ("2.0.0", Some(true)));
    // In mode manual it stays where the person put it.
    let mut world = World::new(1);
    let by_hand = world.assign(&all("2.1.0"));
    let order = world.in_force("a0");
    world.finish_by(&order, "a0", "updated");
    world.plan();
    assert_eq!((by_hand, world.registry.rollouts.len()), (1, 1));
}

#[test]
fn a_persons_cancel_holds_until_other_settings() {
    let mut world = World::new(1);
    set(&mut world, &Scope::Default, "mode=auto;method=immediate;version=2.0.0");
    world.registry.by = Some("uid 0".into());
    world.registry.cancel_agents(&["a0".to_string()], &Cancel::new("not today"), world.now);
    assert_eq!((world.in_force("a0").kind.as_str(), world.in_force("a0").keep_staged), ("cancel", None), "nothing is kept");
    world.registry.by = None;
    for _ in 0..5 {
        world.now += HOUR;
        heartbeat(&mut world, &[("a0", "1.0.0")]);
    }
    assert_eq!((world.registry.rollouts.len(), says(&world, "a0").1), (1, "cancelled_by_person".into()));
    set(&mut world, &Scope::Default, "mode=auto;method=immediate;version=2.0.0;zone=UTC");
    assert_eq!(world.state(2, "a0").0, "ordered");
}

#[test]
fn user_action_waits_for_an_authorization_that_is_used_once() {
    let mut world = World::new(3);
    set(&mut world, &Scope::Default, "mode=auto;method=user_action");
    set(&mut world, &node("a2"), "mode=auto;method=immediate;version=1.0.0");
    assert_eq!(says(&world, "a0"), ("needs_authorization".into(), "needs_authorization".into()));
    assert!(world.registry.rollouts.is_empty());
    let ask = |version: &str, nodes: Option<&str>| Authorize {
        nodes: nodes.map(|n| vec![n.to_string()]),
        version: version.into(),
        ttl_s: Some(600),
    };
    let releases = world.releases.clone();
    let now = world.now;
    let refused = world.registry.authorize(&ask("9.0.0", Some("a0")), &releases, now).unwrap_err();
    assert!(refused.code == "nothing_authorized" && refused.detail.contains("9.0.0"), "{refused}");
    let given = world.registry.authorize(&ask("2.0.0", None), &releases, now).unwrap();
    assert_eq!((given.authorized.len(), given.left_out[0].code.as_str()), (2, "not_user_action"));
    assert_eq!(given.authorized[0].sha256, crate::director_orders::sha("2.0.0"));
    // One is not used in time, the other one is, and one is taken back while it is used.
    world.restart();
    world.plan();
    assert_eq!((world.state(1, "a0").0.as_str(), world.in_force("a0").version.as_str()), ("ordered", "2.0.0"));
    assert!(world.codes("a0").contains(&"authorization_used"));
    world.finish("a0", "updated");
    world.plan();
    assert_eq!(says(&world, "a0").1, "needs_authorization", "the next version needs a word of its own");
    world.registry.revoke_grants(Some(&["a1".to_string()]), world.now).unwrap();
    world.plan();
    assert_eq!((world.state(1, "a1").0.as_str(), world.in_force("a1").kind.as_str()), ("cancelled", "cancel"));
    assert!(world.registry.revoke_grants(None, world.now).is_err(), "there is none any more");
}

#[test]
fn an_authorization_that_nobody_acts_on_expires() {
    let mut world = World::new(1);
    set(&mut world, &Scope::Default, "mode=auto;method=user_action");
    world.now += OFFLINE_AFTER_S + 1;
    let (releases, now) = (world.releases.clone(), world.now);
    let ask = Authorize { nodes: None, version: "latest".into(), ttl_s: Some(600) };
    world.registry.authorize(&ask, &releases, now).unwrap();
    world.plan();
    assert_eq!(says(&world, "a0").1, "node_silent");
    world.now += 601;
    world.plan();
    assert!(world.codes("a0").contains(&"authorization_expired"));
    heartbeat(&mut world, &[("a0", "1.0.0")]);
    assert!(world.registry.rollouts.is_empty() && world.registry.policing.grants.is_empty());
}

#[test]
fn a_window_is_absolute_and_what_was_missed_waits_for_the_next_one() {
    let mut world = World::new(2);
    world.registry.set_zone(Zone::utc());
    let midnight = world.now.div_ceil(86_400) * 86_400;
    let both = [("a0", "1.0.0"), ("a1", "1.0.0")];
    at(&mut world, midnight, &both);
    set(&mut world, &Scope::Default, "mode=auto;method=schedule;version=2.0.0;cron=0 2 * * *");
    assert_eq!(says(&world, "a0"), ("wait".into(), "window_not_open".into()));
    let view = policy(&world, "a0");
    assert_eq!((view.next, view.next_local.as_deref().map(|t| &t[11..16])), (Some(midnight + 2 * HOUR), Some("02:00")));
    at(&mut world, midnight + HOUR, &both);
    let order = world.in_force("a0");
    assert_eq!((order.version.as_str(), order.switch_in_s), ("2.0.0", HOUR), "ordered early, switches on time");
    let staged = world.about(&order, "a0", "staged");
    at(&mut world, midnight + 2 * HOUR, &both[1..]);
    world.hear(&staged);
    // It does not get there within the window.
    world.now = midnight + 3 * HOUR;
    world.hear(&staged);
    world.plan();
    let cancel = world.in_force("a0");
    assert_eq!((cancel.kind.as_str(), cancel.keep_staged), ("cancel", Some(true)), "what it has stays for the next window");
    assert_eq!(says(&world, "a0").1, "window_not_open");
    assert!(world.registry.rollouts[&1].expires_at() <= midnight + 3 * HOUR);
    at(&mut world, midnight + 25 * HOUR, &both);
    assert_eq!((world.registry.rollouts.len(), world.in_force("a0").switch_in_s), (2, HOUR));
    // Another schedule moves what waits.
    set(&mut world, &Scope::Default, "mode=auto;method=schedule;version=2.0.0;cron=0 5 * * *");
    world.plan();
    assert!(world.registry.orders.values().all(|o| o.end().is_some()), "withdrawn");
    set(&mut world, &Scope::Default, "mode=auto;method=immediate;version=2.0.0");
    world.plan();
    assert_eq!((world.in_force("a0").kind.as_str(), world.in_force("a0").switch_in_s), ("update", 0));
}

#[test]
fn an_interval_begins_at_once_and_goes_on_after_each_run() {
    let mut world = World::new(1);
    set(&mut world, &Scope::Default, "mode=auto;method=schedule;version=latest;interval=24h");
    assert_eq!(world.state(1, "a0").0, "ordered", "the first run is immediate");
    world.now += HOUR / 2;
    world.releases.artifacts.retain(|a| a.path.version.to_string() == "2.1.0");
    world.finish("a0", "updated");
    let ended = world.now;
    world.releases.artifacts.push(crate::director_orders::artifact_here("2.2.0"));
    at(&mut world, ended + 2 * HOUR, &[("a0", "2.1.0")]);
    assert_eq!((world.registry.rollouts.len(), says(&world, "a0").1), (1, "window_not_open".into()));
    at(&mut world, ended + 23 * HOUR, &[("a0", "2.1.0")]);
    assert_eq!(world.in_force("a0").switch_in_s, HOUR, "one interval after the run before had ended");
}

#[test]
fn a_failure_rests_and_many_small_roll_outs_halt_like_a_large_one() {
    let mut world = World::new(1);
    set(&mut world, &Scope::Default, "mode=auto;method=immediate;version=2.0.0");
    world.finish("a0", "rolled_back");
    assert_eq!(says(&world, "a0").1, "cooldown");
    world.now += 599;
    heartbeat(&mut world, &[("a0", "1.0.0")]);
    assert_eq!(world.registry.rollouts.len(), 1);
    world.now += 1;
    heartbeat(&mut world, &[("a0", "1.0.0")]);
    assert_eq!(world.registry.rollouts.len(), 2, "the specification's ten minutes are over");
    world.finish("a0", "rolled_back");
    for n in 1..=2_u64 {
        let id = format!("b{n}");
        world.enroll(&id, "linux", "1.0.0");
        world.now += 3;
        heartbeat(&mut world, &[(&id, "1.0.0")]);
        if n == 1 {
            world.finish(&id, "rolled_back");
            assert_eq!(world.rollout(3), "halted", "the third failure of this version");
        }
    }
    assert_eq!((world.registry.rollouts.len(), says(&world, "b2").1), (3, "quarantined".into()));
    assert!(world.registry.kept_from_new(&crate::director_orders::sha("2.0.0"), world.now).is_some());
}

#[test]
fn settings_are_revisioned_and_survive_a_restart() {
    let mut world = World::new(1);
    world.registry.by = Some("uid 1000".into());
    set(&mut world, &Scope::Default, "mode=auto;method=immediate;version=1.0.0");
    set(&mut world, &node("a0"), "zone=Europe/Berlin");
    world.registry.by = None;
    assert_eq!(world.registry.policy_revision(), 2);
    let change = |expected| PolicyChange { set: settings("version=2.0.0"), expected: Some(expected), ..Default::default() };
    let now = world.now;
    let refused = world.registry.set_policy(&Scope::Default, &change(0), now).unwrap_err();
    assert!(refused.code == "revision_conflict" && refused.detail.contains("uid 1000"), "{refused}");
    world.restart();
    assert_eq!((world.registry.policy_revision(), says(&world, "a0").1), (2, "up_to_date".into()));
    let row = world.registry.set_policy(&Scope::Default, &change(1), now).unwrap();
    assert_eq!((row.revision, row.settings.method.as_deref(), row.settings.version.as_deref()), (3, Some("immediate"), Some("2.0.0")));
    let told = world.registry.recent.iter().rev().find(|e| e.code == "policy_changed").unwrap();
    assert!(told.detail.contains("version 1.0.0 -> 2.0.0"), "{}", told.detail);
    // A new interval takes the place of an old cron, and both go with the method.
    let mut apply = |text: &str| {
        let change = PolicyChange { set: settings(text), ..Default::default() };
        world.registry.set_policy(&Scope::Default, &change, now).map(|row| (row.settings.cron, row.settings.interval))
    };
    assert_eq!(apply("method=schedule;cron=0 2 * * 0").unwrap(), (Some("0 2 * * 0".into()), None));
    assert_eq!(apply("interval=1h").unwrap(), (None, Some("1h".into())));
    assert_eq!(apply("method=immediate").unwrap(), (None, None));
    assert_eq!(apply("cron=0 2 * * 0").unwrap_err().code, "settings_invalid");
}

#[test]
fn only_what_has_news_is_looked_at() {
    let mut world = World::new(500);
    set(&mut world, &Scope::Default, "mode=auto;method=schedule;version=1.0.0;cron=0 2 * * *");
    world.plan();
    let looked = |world: &World| world.registry.policing.looked;
    let before = looked(&world);
    for _ in 0..100 {
        world.now += 1;
        world.plan();
    }
    assert_eq!(looked(&world), before, "ticks without news look at nobody");
    let report = world.report_of("a7", "1.0.0");
    world.hear(&report);
    assert_eq!(looked(&world), before, "nor does a report that says nothing new");
    let other = world.report_of("a7", "0.9.0");
    world.hear(&other);
    let after = looked(&world);
    assert!(after > before && after <= before + 2, "{before} {after}");
    set(&mut world, &node("a8"), "zone=UTC");
    assert!(looked(&world) <= after + 2);
}

#[test]
fn fleets_settings_reach_the_agents_and_the_newest_word_counts() {
    let mut fleet = World::new(0);
    fleet.enroll("site-1", "linux", "1.0.0");
    set(&mut fleet, &Scope::Agents, "mode=auto;method=user_action");
    set(&mut fleet, &Scope::AgentsOf("site-1".into()), "mode=auto;method=immediate;version=2.0.0");
    set(&mut fleet, &Scope::AgentOf("site-1".into(), "a1".into()), "mode=manual");
    set(&mut fleet, &Scope::AgentOf("site-2".into(), "a0".into()), "mode=manual");
    assert!(fleet.registry.rollouts.is_empty(), "not for Fleet's own nodes");
    let (revision, handed) = fleet.registry.handed_to("site-1", 0);
    assert_eq!((revision, handed.nodes.as_ref().map(Vec::len)), (3, Some(1)));
    assert_eq!(fleet.registry.handed_to("site-3", 0).0, 1);

    let mut site = World::new(2);
    site.registry.take_handed(&handed, site.now);
    site.plan();
    assert_eq!(site.state(1, "a0").0, "ordered");
    let view = policy(&site, "a1");
    assert_eq!((view.decision.as_str(), view.values[0].tier.as_str()), ("manual", "node"));
    // A word spoken here later counts, also after a restart, until Fleet says something new.
    set(&mut site, &Scope::Default, "mode=manual");
    site.restart();
    site.registry.take_handed(&handed, site.now);
    assert_eq!(policy(&site, "a0").decision, "manual");
    set(&mut fleet, &Scope::AgentsOf("site-1".into()), "mode=auto;method=immediate;version=2.1.0");
    let (_, handed) = fleet.registry.handed_to("site-1", 0);
    site.registry.take_handed(&handed, site.now);
    assert_eq!(policy(&site, "a0").version.as_deref(), Some("2.1.0"));
    let by: Vec<_> = site.registry.recent.iter().filter(|e| e.code == "policy_changed").filter_map(|e| e.by.clone()).collect();
    assert!(by.iter().any(|by| by == "fleet"), "{by:?}");
    // What a stolen Fleet sends is checked like anybody's word.
    let mut bad = handed;
    bad.organization = Some(vmetric::director::policing::rows::PolicyRow {
        settings: settings("mode=auto;cron=* * * * *"),
        revision: 99,
        custom: true,
        ..Default::default()
    });
    site.registry.take_handed(&bad, site.now);
    assert!(site.registry.recent.iter().any(|e| e.code == "policy_refused"));
}

#[test]
fn a_directors_own_file_wins_over_fleet() {
    let mut fleet = World::new(0);
    fleet.enroll("site-1", "linux", "1.0.0");
    let now = fleet.now;
    fleet.registry.set_reported("site-1", Some(&settings("mode=manual")), now);
    set(&mut fleet, &node("site-1"), "mode=auto;method=immediate;version=2.0.0");
    let view = policy(&fleet, "site-1");
    assert_eq!((view.values[0].value.as_str(), view.values[0].tier.as_str()), ("manual", "file"));
    assert!(fleet.registry.rollouts.is_empty());
    fleet.registry.set_reported("site-1", None, now);
    fleet.plan();
    assert_eq!(fleet.state(1, "site-1").0, "ordered");
}

#[test]
fn a_running_director_pushes_what_its_policy_says() {
    use vmetric::core::hex;
    use vmetric::director::explain::ExplainView;
    use vmetric::director::policing::show::PolicyView;
    let site = crate::director_bench::Site::new();
    let mut agent = site.enroll("edge-1");
    assert!(agent.report().order.is_none());
    let id = agent.report.agent_id.clone();
    let said = site.good(&format!("policy show {id}"));
    assert!(said.contains("mode           manual (built_in)") && said.contains("2.0.0 is there"), "{said}");
    assert_eq!(site.run("policy set --mode off").code, 2);
    assert!(site.bad("policy set --agent nobody --mode auto").contains("agent_unknown"));
    let view: PolicyView = site.json(&format!("policy set --agent {id} --mode auto --method user_action --json"));
    assert_eq!((view.effective.code.as_str(), view.effective.version.as_deref()), ("needs_authorization", Some("2.0.0")));
    assert!(agent.report().order.is_none());
    let order = std::thread::scope(|scope| {
        let parked = crate::director_bench::FakeAgent {
            http: site.http(),
            url: site.url.clone(),
            credential: agent.credential.clone(),
            report: agent.report.clone(),
        };
        let poll = scope.spawn(move || parked.poll());
        crate::director::wait_for("a parked poll", || site.good("status").contains("1 polls parked"));
        let given = site.good(&format!("authorize {id} 2.0.0 --ttl 10m"));
        assert!(given.contains(&hex::encode(&hex::sha256(&crate::director_bench::agent_file("2.0.0")))[..8]), "{given}");
        poll.join().unwrap().order.unwrap()
    });
    assert_eq!((order.kind.as_str(), order.version.as_str()), ("update", "2.0.0"));
    agent.update(&order);
    let shown: ExplainView = site.json(&format!("explain {id} --json"));
    assert_eq!(shown.policy.map(|p| p.code), Some("up_to_date".to_string()));
    // Back by name, at once; and a schedule says when.
    site.good(&format!("policy set --agent {id} --method immediate --version 1.0.0"));
    let order = agent.poll().order.unwrap();
    assert_eq!(order.version, "1.0.0");
    site.good(&format!("policy set --agent {id} --mode manual"));
    assert_eq!(agent.report().order.map(|o| o.kind), Some("cancel".to_string()));
    assert!(site.bad(&format!("policy set --agent {id} --mode auto --revision 1")).contains("revision_conflict"));
    assert!(site.good("activity --json").contains("policy_changed"));
}
