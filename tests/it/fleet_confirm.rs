//! User Action from Fleet for agents: over the registries, and with a real Fleet, a real Director and agents that a test plays.

use std::time::Duration;

use miniserde::json;
use vmetric::core::hex;
use vmetric::director::api_tokens::ApiTokenView;
use vmetric::director::policing::confirmations::{Confirm, ConfirmationRow, SHOWN_S};
use vmetric::director::policing::hand::HandedWire;
use vmetric::director::policing::rows::Scope;
use vmetric::fleet::confirm::{ConfirmationView, ConfirmationsView};
use vmetric::fleet::intake::SiteAgent;
use vmetric::fleet::told::SiteAgentsView;
use vmetric::io::clock;
use vmetric::wire::site_policy::{ConfirmationWire, NAMED_MAX};

use crate::access::{add, ask as browse, form, log_in};
use crate::director_bench::{Site, agent_file};
use crate::director_orders::{World, sha};
use crate::director_policy::{node, policy, set};
use crate::fleet::get;
use crate::fleet_told::{join, until};

/// Fleet's registry with one Director, `site-1`.
fn fleet() -> World {
    let mut fleet = World::new(0);
    fleet.enroll("site-1", "linux", "1.0.0");
    fleet
}

/// A Director whose agents ask a person.
fn site(agents: usize) -> World {
    let mut site = World::new(agents);
    set(&mut site, &Scope::Default, "mode=auto;method=user_action");
    site
}

fn ask(id: &str, agents: Option<&[&str]>, version: &str) -> Confirm {
    Confirm {
        id: id.into(),
        director: "site-1".into(),
        agents: agents.map(|list| list.iter().map(|a| a.to_string()).collect()),
        version: version.into(),
        files: vec![sha(version)],
        ttl_s: Some(3_600),
    }
}

fn confirm(fleet: &mut World, ask: Confirm) -> ConfirmationRow {
    fleet.registry.by = Some("user anna".into());
    fleet.registry.confirm_agents(ask, fleet.now).unwrap()
}

/// What Fleet says arrives, over the wire's own form.
fn hand(fleet: &World, site: &mut World) {
    let (_, handed) = fleet.registry.handed_to("site-1", fleet.now);
    take(site, &handed);
}

fn take(site: &mut World, handed: &HandedWire) {
    let handed: HandedWire = json::from_str(&json::to_string(handed)).unwrap();
    site.registry.take_handed(&handed, site.now);
    site.plan();
}

fn became(site: &World, agent: &str) -> (String, String) {
    let row = site.registry.policing.confirmed.get(agent).cloned().unwrap_or_default();
    (row.state, row.code)
}

fn stands(site: &World, id: &str) -> (String, Option<String>) {
    let row = &site.registry.policing.confirmations[id];
    (row.state.clone().unwrap_or_default(), row.code.clone())
}

#[test]
fn a_confirmation_becomes_an_authorization_once() {
    let (mut fleet, mut site) = (fleet(), site(2));
    confirm(&mut fleet, ask("u-1", Some(&["a0"]), "2.0.0"));
    hand(&fleet, &mut site);
    assert_eq!((site.state(1, "a0").0.as_str(), became(&site, "a0").0.as_str()), ("ordered", "ordered"));
    assert_eq!(policy(&site, "a1").decision, "needs_authorization", "nobody else");
    let given = site.registry.recent.iter().find(|e| e.code == "authorization_given").unwrap();
    assert_eq!(given.by.as_deref(), Some("fleet: user anna"));
    site.finish("a0", "updated");
    site.plan();
    assert_eq!(became(&site, "a0").0, "done");
    // Again, and after a restart: the same word is the same word.
    hand(&fleet, &mut site);
    site.restart();
    let back = site.report_of("a0", "1.0.0");
    site.hear(&back);
    hand(&fleet, &mut site);
    assert_eq!((site.registry.rollouts.len(), became(&site, "a0").0.as_str()), (1, "done"), "it was replayed");
    assert_eq!(policy(&site, "a0").decision, "needs_authorization");
    // The same id with other contents is told, and changes nothing.
    let mut other = fleet.registry.handed_to("site-1", fleet.now).1;
    other.confirmations.iter_mut().flatten().for_each(|c| c.agents = Some(vec!["a1".into()]));
    take(&mut site, &other);
    assert_eq!(stands(&site, "u-1").1.as_deref(), Some("confirmation_changed"));
    assert_eq!((site.registry.rollouts.len(), became(&site, "a1").0.as_str()), (1, ""));
}

#[test]
fn all_means_those_whose_policy_asks_about_this_version() {
    let (mut fleet, mut site) = (fleet(), site(5));
    set(&mut site, &node("a1"), "mode=manual");
    set(&mut site, &node("a2"), "mode=auto;method=user_action;version=2.1.0");
    set(&mut site, &node("a3"), "mode=auto;method=schedule;cron=0 3 * * *");
    confirm(&mut fleet, ask("u-1", None, "2.0.0"));
    hand(&fleet, &mut site);
    let open = ["a0", "a1", "a2", "a3", "a4"].map(|id| became(&site, id).0);
    assert_eq!(open, ["ordered", "", "", "", "ordered"]);
    // Named ones are answered each: refused with the Director's own reason.
    confirm(&mut fleet, ask("u-2", Some(&["a1", "a3", "gone", "a2"]), "2.0.0"));
    hand(&fleet, &mut site);
    assert_eq!(became(&site, "a1"), ("refused".into(), "policy_manual".into()));
    assert_eq!(became(&site, "a3"), ("refused".into(), "not_user_action".into()));
    assert_eq!(became(&site, "a2").0, "confirmed", "a person's word for one version wins over its settings, as a command here");
    let said: Vec<&str> = site.codes("gone");
    assert_eq!(said, ["confirmation_refused"]);
    // Nobody's: told as a whole.
    set(&mut site, &Scope::Default, "mode=manual");
    confirm(&mut fleet, ask("u-3", None, "2.1.0"));
    set(&mut site, &node("a2"), "mode=manual");
    hand(&fleet, &mut site);
    assert_eq!(stands(&site, "u-3"), ("taken".into(), Some("nothing_authorized".into())));
}

#[test]
fn what_is_late_taken_back_or_unsigned_is_refused_with_its_reason() {
    let (mut fleet, mut site) = (fleet(), site(4));
    // It ended on the way.
    confirm(&mut fleet, ask("u-1", Some(&["a0"]), "2.0.0"));
    let handed = fleet.registry.handed_to("site-1", fleet.now).1;
    site.now += 3_600;
    take(&mut site, &handed);
    assert_eq!(stands(&site, "u-1"), ("refused".into(), Some("confirmation_expired".into())));
    // It was taken back before it was here.
    site.now = fleet.now;
    confirm(&mut fleet, ask("u-2", Some(&["a1"]), "2.0.0"));
    let now = fleet.now;
    fleet.registry.revoke_confirmation("u-2", now).unwrap();
    hand(&fleet, &mut site);
    assert_eq!((stands(&site, "u-2").0.as_str(), became(&site, "a1").0.as_str()), ("revoked", ""));
    // A stolen Fleet names a version that nobody signed, another file, another life, and no sense at all.
    let wire = |id: &str, version: &str, files: Vec<String>| ConfirmationWire {
        id: id.into(),
        agents: Some(vec!["a2".into()]),
        version: version.into(),
        files,
        given_at: now,
        expires_at: u64::MAX,
        by: "\u{1b}[2Jmallory".into(),
        ..Default::default()
    };
    let bad = vec![
        wire("u-3", "9.9.9", vec![sha("9.9.9")]),
        wire("../u", "2.0.0", vec![sha("2.0.0")]),
        wire("u-5", "2.0.0", vec!["zz".into()]),
        wire("u-6", "latest", vec![sha("2.0.0")]),
        ConfirmationWire { agents: Some(vec!["a2".into(); NAMED_MAX + 1]), ..wire("u-7", "2.0.0", vec![sha("2.0.0")]) },
    ];
    take(&mut site, &HandedWire { confirmations: Some(bad), ..Default::default() });
    assert_eq!(became(&site, "a2"), ("waiting".into(), "version_unknown".into()), "it waits for what may never come");
    for id in ["u-5", "u-6", "u-7"] {
        assert_eq!(stands(&site, id), ("refused".into(), Some("confirmation_invalid".into())), "{id}");
    }
    assert!(!site.registry.policing.confirmations.contains_key("../u"));
    let file = wire("u-8", "2.0.0", vec![hex::encode(&hex::sha256(b"mallory"))]);
    take(&mut site, &HandedWire { confirmations: Some(vec![file]), ..Default::default() });
    assert_eq!(became(&site, "a2"), ("refused".into(), "file_differs".into()));
    assert!(site.registry.rollouts.is_empty() && site.registry.policing.grants.is_empty());
    // Its life is a local authorization's at most.
    take(&mut site, &HandedWire { confirmations: Some(vec![wire("u-9", "2.0.0", vec![sha("2.0.0")])]), ..Default::default() });
    assert_eq!(site.registry.policing.confirmations["u-9"].wire.expires_at, site.now + 31 * 86_400);
    assert!(site.registry.recent.iter().all(|e| !e.by.as_deref().unwrap_or_default().contains('\u{1b}')));
}

#[test]
fn it_is_taken_back_until_it_has_switched() {
    let (mut fleet, mut site) = (fleet(), site(3));
    confirm(&mut fleet, ask("u-1", Some(&["a0", "a1", "a2"]), "2.0.0"));
    hand(&fleet, &mut site);
    // The first one goes first; it is on trial, the others wait for their turn.
    let order = site.in_force("a0");
    let trial = site.trial(&order, "a0");
    site.hear(&trial);
    let now = fleet.now;
    fleet.registry.revoke_confirmation("u-1", now).unwrap();
    hand(&fleet, &mut site);
    assert_eq!(stands(&site, "u-1").0, "revoked");
    assert_eq!(["a0", "a1", "a2"].map(|id| became(&site, id).0), ["ordered", "revoked", "revoked"]);
    assert_eq!((site.state(1, "a1").0.as_str(), site.state(1, "a2").0.as_str()), ("cancelled", "cancelled"));
    site.finish_by(&order, "a0", "updated");
    site.plan();
    assert_eq!(became(&site, "a0").0, "done");
    // Fleet's word of it does not come again; a new one does.
    confirm(&mut fleet, ask("u-2", Some(&["a1"]), "2.0.0"));
    hand(&fleet, &mut site);
    assert_eq!(became(&site, "a1").0, "ordered");
    site.finish("a1", "rolled_back");
    site.plan();
    assert_eq!(became(&site, "a1").0, "failed");
}

#[test]
fn it_waits_for_its_file_until_it_ends_while_fleet_is_away() {
    let (mut fleet, mut site) = (fleet(), site(2));
    let late = site.releases.artifacts.iter().position(|a| a.path.version.to_string() == "2.1.0").unwrap();
    let late = site.releases.artifacts.remove(late);
    confirm(&mut fleet, ask("u-1", Some(&["a0"]), "2.1.0"));
    hand(&fleet, &mut site);
    assert_eq!(became(&site, "a0"), ("waiting".into(), "version_unknown".into()));
    assert!(site.registry.fetch_now, "the mirror looks at once");
    site.restart();
    site.plan();
    site.releases.artifacts.push(late.clone());
    site.plan();
    let report = site.report_of("a0", "1.0.0");
    site.hear(&report);
    assert_eq!((became(&site, "a0").0.as_str(), site.state(1, "a0").0.as_str()), ("ordered", "ordered"));
    // And one whose file never comes ends at its time, with a reason.
    confirm(&mut fleet, ask("u-2", Some(&["a1"]), "3.0.0"));
    hand(&fleet, &mut site);
    site.now += 3_600;
    site.plan();
    assert_eq!(became(&site, "a1"), ("expired".into(), "confirmation_expired".into()));
    // Long after their end nothing of them is left, here and there.
    for world in [&mut fleet, &mut site] {
        world.now += SHOWN_S + 3_700;
        world.plan();
        world.now += 61;
        world.plan();
    }
    assert!(site.registry.policing.confirmations.is_empty());
    let left = fleet.registry.confirmations().len();
    assert!(left <= 1, "but for the newest revision: {left}");
}

#[test]
fn fleet_has_limits_and_gives_all_or_nothing() {
    let mut fleet = fleet();
    let now = fleet.now;
    let unknown = fleet.registry.confirm_agents(Confirm { director: "nobody".into(), ..ask("u-0", None, "2.0.0") }, now).unwrap_err();
    assert_eq!(unknown.code, "agent_unknown");
    let names: Vec<String> = (0..=NAMED_MAX).map(|n| format!("a{n}")).collect();
    let many = Confirm { agents: Some(names), ..ask("u-0", None, "2.0.0") };
    assert_eq!(fleet.registry.confirm_agents(many, now).unwrap_err().code, "too_many_agents");
    assert_eq!(
        fleet.registry.confirm_agents(Confirm { files: vec![], ..ask("u-0", None, "2.0.0") }, now).unwrap_err().code,
        "version_unknown"
    );
    for n in 0..64 {
        confirm(&mut fleet, ask(&format!("u-{n}"), None, "2.0.0"));
    }
    assert_eq!(fleet.registry.confirm_agents(ask("u-x", None, "2.0.0"), now).unwrap_err().code, "confirmations_full");
    assert_eq!(fleet.registry.revoke_confirmation("u-x", now).unwrap_err().code, "confirmation_unknown");
    fleet.now += 3_601;
    let now = fleet.now;
    assert_eq!(fleet.registry.revoke_confirmation("u-1", now).unwrap_err().code, "confirmation_over");
    let handed = fleet.registry.handed_to("site-1", now).1;
    assert!(handed.confirmations.iter().flatten().all(|c| c.files.is_empty()), "of what is over the id is enough");
    confirm(&mut fleet, ask("u-x", None, "2.0.0"));
    fleet.restart();
    assert_eq!(fleet.registry.confirmations().len(), 65);
}

/// A Fleet that mirrors agents, too.
fn fleet_with_agents() -> Site {
    let fleet = Site::fleet();
    fleet.add_of("vmetric-agent", "2.0.0", &agent_file("2.0.0"));
    fleet.publish();
    fleet.good("mirror");
    fleet
}

fn row(fleet: &Site, agent: &str) -> Option<SiteAgent> {
    fleet.json::<SiteAgentsView>("agents --json").agents.into_iter().find(|a| a.id == agent)
}

fn view(fleet: &Site, id: &str) -> ConfirmationView {
    fleet.json::<ConfirmationsView>(&format!("authorizations {id} --json")).confirmations.remove(0)
}

fn state_of(fleet: &Site, agent: &str) -> String {
    row(fleet, agent).and_then(|a| a.authorization).map(|a| a.state).unwrap_or_default()
}

#[test]
fn agents_are_confirmed_from_fleet_over_the_wire() {
    let (mut fleet, director) = (fleet_with_agents(), Site::new());
    let mut agents: Vec<_> = (0..3).map(|n| director.enroll(&format!("edge-{n}"))).collect();
    agents.iter().for_each(|agent| drop(agent.report()));
    let ids: Vec<String> = agents.iter().map(|a| a.report.agent_id.clone()).collect();
    let id = join(&fleet, &director);
    until("the agents at Fleet", || ids.iter().all(|a| fleet.good("agents").contains(a)));
    assert!(fleet.bad("authorize --agents --all 2.0.0").contains("nothing_waits"), "their mode is manual");
    fleet.good("policy set --agents --mode auto --method user_action");
    until("what they wait for", || ids.iter().all(|a| row(&fleet, a).is_some_and(|a| a.needs.as_deref() == Some("2.0.0"))));
    assert!(fleet.bad(&format!("authorize --agents --director {id} --agent nobody 2.0.0")).contains("agent_unknown"));
    assert!(fleet.bad(&format!("authorize --agents --director {id} 9.9.9")).contains("version_unknown"));

    // One agent, whose poll is parked: it has its order within two seconds.
    let began = clock::monotonic();
    let order = std::thread::scope(|threads| {
        let parked = crate::director_bench::FakeAgent {
            http: director.http(),
            url: director.url.clone(),
            credential: agents[0].credential.clone(),
            report: agents[0].report.clone(),
        };
        let poll = threads.spawn(move || parked.poll());
        crate::director::wait_for("a parked poll", || director.good("status").contains("1 polls parked"));
        fleet.good(&format!("authorize --agents --director {id} --agent {} latest", ids[0]));
        poll.join().unwrap().order.unwrap()
    });
    println!("confirm_push: order at the agent {:?} after `authorize --agents`", clock::monotonic() - began);
    assert_eq!(order.version, "2.0.0");
    let first = fleet.json::<ConfirmationsView>("authorizations --json").confirmations.remove(0);
    assert_eq!((first.director.as_str(), first.agents.as_deref()), (id.as_str(), Some(&ids[..1])));
    until("the order at Fleet", || state_of(&fleet, &ids[0]) == "ordered" && view(&fleet, &first.id).state == "open");
    agents[0].update(&order);
    until("its end at Fleet", || state_of(&fleet, &ids[0]) == "done" && view(&fleet, &first.id).state == "done");
    let told = fleet.good(&format!("activity --told --director {id} --agent {} --json", ids[0]));
    assert!(told.contains("authorization_given") && told.contains("fleet: uid "), "{told}");
    assert!(fleet.good("authorizations").contains("1 done"));

    // The rest, while Fleet goes away: what was handed down stays, and what came of it is told later.
    let all: ConfirmationsView = fleet.json("authorize --agents --all 2.0.0 --ttl 2h --json");
    assert_eq!(all.confirmations.len(), 1);
    until("the second order", || agents[1].report().order.is_some() || agents[2].report().order.is_some());
    fleet.kill();
    let turn = if agents[1].report().order.is_some() { [1, 2] } else { [2, 1] };
    for n in turn {
        until("its order", || agents[n].report().order.is_some());
        let order = agents[n].report().order.unwrap();
        agents[n].update(&order);
    }
    fleet.start();
    until("both ends", || turn.iter().all(|n| state_of(&fleet, &ids[*n]) == "done"));
    until("its end", || view(&fleet, &all.confirmations[0].id).state == "done");
    assert!(ids.iter().all(|a| row(&fleet, a).unwrap().needs.is_none()));
}

#[test]
fn a_confirmation_is_revoked_and_noted_by_every_door() {
    let (fleet, director) = (fleet_with_agents(), Site::new());
    let agent = director.enroll("edge");
    agent.report();
    let (id, name) = (join(&fleet, &director), agent.report.agent_id.clone());
    fleet.good("policy set --agents --mode auto --method user_action");
    until("what it waits for", || row(&fleet, &name).is_some_and(|a| a.needs.is_some()));
    let token = |role: &str| fleet.json::<ApiTokenView>(&format!("token create --role {role} --json")).token;
    let (viewer, contributor) = (token("viewer"), token("contributor"));
    let post = |token: &str, body: &str| {
        let url = format!("{}/api/v1/agents/authorizations", fleet.url);
        let reply = fleet.http().post_json(&url, Some(token), body, 1 << 20, Duration::from_secs(20)).unwrap();
        (reply.status, String::from_utf8(reply.body).unwrap())
    };
    let body = format!("{{\"agents\": [\"{id}/{name}\"], \"version\": \"2.0.0\", \"ttl_s\": 600}}");
    assert_eq!(post(&viewer, &body).0, 403);
    for bad in
        ["{}", r#"{"version": "2.0.0"}"#, r#"{"version": "2.0.0", "agents": ["x"]}"#, r#"{"version": "2.0.0", "ttl_s": 1, "all": true}"#]
    {
        let (status, answer) = post(&contributor, bad);
        assert_eq!(status, 400, "{bad}: {answer}");
    }
    let (status, answer) = post(&contributor, &body);
    let made: ConfirmationsView = json::from_str(&answer).unwrap();
    assert_eq!((status, made.confirmations.len()), (201, 1), "{answer}");
    let confirmation = made.confirmations[0].id.clone();
    until("the order", || state_of(&fleet, &name) == "ordered");
    let (status, answer) = get(&fleet, &format!("/api/v1/agents/authorizations/{confirmation}"), Some(&viewer));
    assert!(status == 200 && answer.contains(&format!("\"agent\":\"{name}\"")), "{answer}");
    assert_eq!(get(&fleet, "/api/v1/agents/authorizations", Some(&viewer)).0, 200);
    assert_eq!(get(&fleet, "/api/v1/agents/authorizations/u-none", Some(&viewer)).0, 404);
    fleet.good(&format!("authorize --agents --revoke {confirmation}"));
    until("its end", || state_of(&fleet, &name) == "revoked" && view(&fleet, &confirmation).state == "revoked");
    until("the order's end", || agent.report().order.is_none_or(|order| order.kind == "cancel"));
    let audit = fleet.good("audit");
    assert!(audit.contains("AuthorizeAgents") && audit.contains("RevokeAgentAuthorization"), "{audit}");
    assert!(audit.contains("role_too_low") || audit.contains("REFUSED"), "{audit}");
    // Locally given ones are told, too.
    director.good(&format!("authorize {name} 2.0.0"));
    until("the local word", || {
        row(&fleet, &name).and_then(|a| a.authorization).is_some_and(|a| a.id.is_none() && a.by.starts_with("uid "))
    });
}

#[test]
fn pages_confirm_one_some_and_all_agents() {
    let (fleet, director) = (fleet_with_agents(), Site::new());
    let agents: Vec<_> = ["edge-one", "edge-two", "edge-three"].iter().map(|name| director.enroll(name)).collect();
    agents.iter().for_each(|agent| drop(agent.report()));
    let ids: Vec<String> = agents.iter().map(|a| a.report.agent_id.clone()).collect();
    let id = join(&fleet, &director);
    fleet.good("policy set --agents --mode auto --method user_action");
    until("what they wait for", || ids.iter().all(|a| row(&fleet, a).is_some_and(|a| a.needs.is_some())));
    for (name, role) in [("anna", "contributor"), ("vera", "viewer")] {
        add(&fleet, name, role);
    }
    let (anna, vera) = (log_in(&fleet, "anna"), log_in(&fleet, "vera"));
    let cookie = |session: &str| format!("cookie: __Host-session={session}\r\n");
    let page = |session: &str, path: &str| browse(&fleet, "GET", path, &cookie(session), "").body;
    let token = |body: &str| body.split_once("name=\"csrf\" value=\"").unwrap().1.split_once('"').unwrap().0.to_string();
    let looked = page(&vera, "/updates");
    assert!(looked.contains("edge-one") && looked.contains("a contributor confirms") && !looked.contains("Confirm all"), "{looked}");
    let shown = page(&anna, "/updates");
    assert!(shown.contains("Confirm all 3 agents") && !shown.contains("confirmed at its Director"), "{shown}");
    let send = |body: &str| form(&fleet, "/updates/agents", &cookie(&anna), &format!("csrf={}&{body}", token(&shown)));
    let nobody = send("ttl=3600");
    assert!(nobody.status == 422 && nobody.body.contains("Choose at least one agent"), "{}", nobody.status);
    let place = format!("/devices/linux/{id}/{}", ids[0]);
    assert!(page(&anna, &place).contains("Confirm and update to 2.0.0") && !page(&vera, &place).contains("Confirm and update"));
    let sent = send(&format!("agent={id}/{}/2.0.0&ttl=3600&back={place}", ids[0]));
    assert_eq!((sent.status, sent.header("location").as_deref()), (303, Some(place.as_str())), "{}", sent.body);
    until("its state on the page", || page(&anna, &place).contains("confirmed by anna"));
    let confirmation = fleet.json::<ConfirmationsView>("authorizations --json").confirmations.remove(0).id;
    assert!(page(&anna, "/updates").contains(&confirmation));
    let revoked = form(&fleet, "/updates/agents/revoke", &cookie(&anna), &format!("csrf={}&id={confirmation}", token(&shown)));
    assert_eq!(revoked.status, 303, "{}", revoked.body);
    until("the end of it", || view(&fleet, &confirmation).state == "revoked");
    // All agents of a Director, and all there are.
    assert_eq!(send(&format!("site={id}/2.0.0&agent={id}/{}/2.0.0&ttl=3600", ids[1])).status, 303);
    let newest = fleet.json::<ConfirmationsView>("authorizations --json").confirmations.remove(0);
    assert_eq!((newest.agents, newest.by.as_str()), (None, "user anna"));
    until("all of them", || ids.iter().all(|a| matches!(state_of(&fleet, a).as_str(), "ordered" | "confirmed")));
    fleet.good(&format!("authorize --agents --revoke {}", newest.id));
    until("that they wait again", || ids.iter().all(|a| row(&fleet, a).is_some_and(|a| a.needs.is_some())));
    assert_eq!(send("version=2.0.0&all=1&ttl=3600").status, 303);
    until("all of them again", || ids.iter().all(|a| matches!(state_of(&fleet, a).as_str(), "ordered" | "confirmed")));
    assert!(fleet.good("audit").contains("user anna"));
    // A version that came after the page was made: what waits now was not seen, and nothing is confirmed.
    let newest = fleet.json::<ConfirmationsView>("authorizations --json").confirmations.remove(0);
    fleet.good(&format!("authorize --agents --revoke {}", newest.id));
    for site in [&fleet, &director] {
        site.add_of("vmetric-agent", "3.0.0", &agent_file("3.0.0"));
        site.publish();
        site.good("mirror");
    }
    until("that they wait for another one", || ids.iter().all(|a| row(&fleet, a).is_some_and(|a| a.needs.as_deref() == Some("3.0.0"))));
    let count = || fleet.json::<ConfirmationsView>("authorizations --json").confirmations.len();
    let before = count();
    let late = send("version=2.0.0&all=1&ttl=3600");
    assert!(late.status == 422 && late.body.contains("word about 2.0.0"), "{}", late.body);
    assert_eq!(count(), before);
    assert!(ids.iter().all(|a| row(&fleet, a).is_some_and(|a| a.needs.as_deref() == Some("3.0.0"))), "they wait still");
}
