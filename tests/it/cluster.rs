//! Clusters with real processes: the lease over HTTPS, and a roll-out of three Directors, one of which fails.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use miniserde::json;
use vmetric::director::cluster::command::HealthView;
use vmetric::director::policing::clusters::{ClusterView, ClustersView};
use vmetric::io::clock;
use vmetric::io::http::{Http, HttpConfig};
use vmetric::wire::fleet_lock::{ClientWire, HEADER, LOCK_MAX, LockErrorWire, LockWire, LockedWire, PRE_REBOOT, STEADY_STATE};

use crate::agent::{said, text};
use crate::director_bench::{FakeAgent, Site};
use crate::own_update::{Own, fleet, release, variant};

const LIMIT: Duration = Duration::from_secs(30);

/// A busy test machine gets much more than it takes.
const PATIENCE: Duration = Duration::from_secs(240);

/// Asks again until it is so.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock::monotonic() + PATIENCE;
    while !holds() {
        assert!(clock::monotonic() < end, "{what} did not come");
        vmetric::io::process::sleep(Duration::from_millis(100));
    }
    println!("{what}");
}

fn north(site: &Site) -> ClusterView {
    site.json::<ClustersView>("cluster show north --json").clusters.remove(0)
}

fn client(site: &Site, header: bool) -> Http {
    let config = HttpConfig { pins: vec![site.pin], proxy: None, user_agent: "test", wake_fd: None, tick: || {} };
    let http = Http::new(config).unwrap();
    if header {
        http.say_header(HEADER);
    }
    http
}

/// A call of the FleetLock protocol: status and body.
fn lock(site: &Site, path: &str, credential: Option<&str>, wire: &LockWire) -> (u16, String) {
    let reply = client(site, true).post_json(&format!("{}{path}", site.url), credential, &json::to_string(wire), LOCK_MAX, LIMIT).unwrap();
    (reply.status, String::from_utf8(reply.body).unwrap())
}

fn wish(member: &FakeAgent, group: &str) -> LockWire {
    let client_params = ClientWire { id: member.report.agent_id.clone(), group: group.into() };
    LockWire { client_params, nonce: Some(format!("n-{}", member.report.agent_id)), phase: Some("before".into()), ..Default::default() }
}

fn refusal(said: &(u16, String)) -> LockErrorWire {
    json::from_str(&said.1).unwrap_or_else(|_| panic!("{} {}", said.0, said.1))
}

fn granted(said: &(u16, String)) -> LockedWire {
    assert_eq!(said.0, 200, "{}", said.1);
    json::from_str(&said.1).unwrap()
}

#[test]
fn fleet_gives_one_lease_to_members_only() {
    let mut site = Site::fleet();
    let mut members: Vec<FakeAgent> = ["one", "two", "three"].iter().map(|name| site.enroll(name)).collect();
    let stranger = site.enroll("four");
    let named: Vec<String> = members.iter().map(|m| format!("--member {}", m.report.agent_id)).collect();
    site.good(&format!("cluster create north {}", named.join(" ")));
    members.iter_mut().for_each(|m| drop(m.report()));
    let ask = |site: &Site, m: &FakeAgent, wire: &LockWire| lock(site, PRE_REBOOT, Some(&m.credential), wire);

    // Who is let in.
    let (one, two) = (&members[0], &members[1]);
    let mine = wish(one, "north");
    assert_eq!(lock(&site, PRE_REBOOT, None, &mine).0, 401);
    assert_eq!(lock(&site, PRE_REBOOT, Some("vmc_forged"), &mine).0, 401);
    assert_eq!(refusal(&ask(&site, two, &mine)).kind, "id_mismatch");
    assert_eq!(
        (ask(&site, &stranger, &wish(&stranger, "north")).0, refusal(&ask(&site, &stranger, &wish(&stranger, "north"))).kind.as_str()),
        (403, "not_a_member")
    );
    let unknown = ask(&site, one, &wish(one, "south"));
    assert_eq!((unknown.0, refusal(&unknown).kind.as_str()), (404, "group_unknown"));
    let bare = client(&site, false).post_json(&format!("{}{PRE_REBOOT}", site.url), Some(&one.credential), "{}", LOCK_MAX, LIMIT).unwrap();
    assert!(bare.status == 400 && String::from_utf8_lossy(&bare.body).contains("fleet_lock_header"));
    let no_document = lock(&site, PRE_REBOOT, Some(&one.credential), &LockWire { phase: Some("fly".into()), ..mine.clone() });
    assert_eq!((no_document.0, refusal(&no_document).kind.as_str()), (400, "bad_request"));

    // One lease, the same for the same wish, through a crash of Fleet.
    let first = granted(&ask(&site, one, &mine));
    assert_eq!((first.epoch, granted(&ask(&site, one, &mine)).epoch), (Some(1), Some(1)));
    let held = ask(&site, two, &wish(two, "north"));
    let why = refusal(&held);
    assert_eq!(
        (held.0, why.kind.as_str(), why.code.as_str(), why.who.as_deref()),
        (409, "lease_held", "lease_held", Some(one.report.agent_id.as_str()))
    );
    assert!(why.since.is_some() && why.until.is_some() && why.value == why.detail);
    site.kill();
    site.start();
    let (one, two) = (&members[0], &members[1]);
    assert_eq!(refusal(&ask(&site, two, &wish(two, "north"))).kind, "lease_held", "what was answered is durable");
    assert_eq!(north(&site).holder.as_deref(), Some(one.report.agent_id.as_str()));

    // A late holder changes nothing; the real one gives it back, and the next wish has a higher epoch.
    let late = LockWire { epoch: Some(7), ..mine.clone() };
    assert_eq!(refusal(&ask(&site, one, &late)).kind, "lease_lost");
    assert_eq!(lock(&site, STEADY_STATE, Some(&one.credential), &late).0, 200);
    assert_eq!(refusal(&ask(&site, two, &wish(two, "north"))).kind, "lease_held");
    let back = LockWire { epoch: Some(1), ..mine.clone() };
    assert_eq!(granted(&lock(&site, STEADY_STATE, Some(&one.credential), &back)).epoch, None);
    assert_eq!(refusal(&ask(&site, one, &mine)).kind, "ask_over", "a late double of the first wish");
    // Fleet has just started: it gives nothing away before it has heard the others.
    members.iter_mut().for_each(|m| drop(m.report()));
    let two = &members[1];
    assert_eq!(granted(&ask(&site, two, &wish(two, "north"))).epoch, Some(2));

    // A person pauses, sees what an exception costs, and goes on; all of it is in the audit log.
    assert!(site.bad(&format!("cluster override north --director {}", members[2].report.agent_id)).contains("quorum_cost"));
    assert!(site.bad(&format!("cluster override north --director {} --force", members[2].report.agent_id)).contains("lease_held"));
    site.good("cluster pause north --reason lunch");
    let last = LockWire { epoch: Some(2), phase: Some("stop".into()), needs_s: Some(600), ..wish(two, "north") };
    let paused = refusal(&ask(&site, two, &last));
    assert!(paused.kind == "cluster_paused" && paused.value.contains("lunch"), "{paused:?}");
    assert!(site.good("cluster show north").contains("lunch"));
    site.good("cluster resume north");
    assert!(granted(&ask(&site, two, &last)).ttl_s.unwrap() >= 600);
    let audit = site.good("audit");
    assert!(audit.contains("PauseCluster") && audit.contains("ResumeCluster") && audit.contains("OverrideCluster"), "{audit}");
    for bad in ["cluster change north --drain 1h", "cluster remove nowhere", "cluster pause nowhere"] {
        site.bad(bad);
    }
}

/// Members are told of each other with their healths, twice a minute: it takes its time.
#[test]
#[ignore = "minutes; in tests/run cluster"]
fn a_roll_out_of_three_and_one_that_fails_on_the_second_member() {
    let fleet = fleet(&[("2.0.0", &variant("two"))]);
    let mut members: Vec<Own> = ["own-a", "own-b", "own-c"].iter().map(|name| Own::enrolled_as(&fleet, name)).collect();
    members.iter_mut().for_each(|own| own.start(false));
    let id = |own: &Own| text(&own.wait("its identity", |s| text(s, "fleet.state") == "connected"), "fleet.id");
    members.sort_by_key(id);
    let ids: Vec<String> = members.iter().map(id).collect();
    let named: Vec<String> = ids.iter().map(|id| format!("--member {id}")).collect();
    fleet.good(&format!("cluster create north {}", named.join(" ")));
    fleet.good("cluster change north --drain 2s --soak 3s");
    // Seen by Fleet and by each other.
    until("a cluster that is well", || north(&fleet).code == "ready");
    until("the members' own view", || members.iter().all(|own| own.run(&["cluster", "health"]).status.success()));
    let plan = said(&members[0].run(&["cluster", "plan"]));
    assert!(plan.contains(&ids[2]) && plan.contains("serves, "), "{plan}");

    // 1. All three, one after the other.
    fleet.good("assign --all --version 2.0.0");
    let mut most = 0;
    until("the whole roll-out", || {
        let seen = north(&fleet);
        let out = seen.members.iter().filter(|m| matches!(m.state.as_str(), "draining" | "updating" | "rejoining")).count();
        most = most.max(out);
        assert!(seen.stopped.is_none() && out <= 1, "{}", json::to_string(&seen));
        seen.epoch == 3 && seen.holder.is_none()
    });
    assert_eq!(most, 1);
    members.iter().for_each(|own| drop(own.ended("updated", "2.0.0")));
    for code in ["lease_granted", "lease_stops", "lease_returned"] {
        let all = fleet.good("activity --limit 1000 --json");
        assert_eq!(all.lines().filter(|line| line.contains(&format!("\"{code}\""))).count(), 3, "{code}\n{all}");
    }
    // All of these files say of themselves that they are of this version.
    let own_version = env!("CARGO_PKG_VERSION");
    until("health with a version", || members[0].run(&["cluster", "health", "--version", own_version]).status.success());
    let wrong = members[0].run(&["cluster", "health", "--version", "9.0.0"]);
    assert_eq!(wrong.status.code(), Some(1));

    // 2. The second one's own check does not like the next version.
    release(&fleet, "3.0.0", &variant("three"));
    let check = members[1].path("state/config/check");
    crate::write_program(&check, b"#!/bin/sh\necho the license server is gone\nexit 1\n");
    assert!(fs::metadata(&check).unwrap().permissions().mode() & 0o111 != 0);
    until("a cluster that is well again", || north(&fleet).code == "ready");
    fleet.good("assign --all --version 3.0.0 --end-probation");
    until("the halt", || north(&fleet).stopped.as_deref() == Some("halted") && north(&fleet).holder.is_none());
    members[1].ended("rolled_back", "3.0.0");
    let halted = north(&fleet);
    assert!(halted.code == "cluster_halted" && halted.detail.contains(&ids[1]), "{}", halted.detail);
    assert!(fleet.good("cluster show north").lines().nth(1).unwrap().contains("cluster_halted"));
    members[0].ended("updated", "3.0.0");
    let waits = members[2].wait("the third", |_| true);
    assert_eq!((text(&waits, "own.last_result.version"), text(&waits, "own.running_as")), ("2.0.0".into(), "confirmed".into()));
    until("the third's word of the failure", || {
        let health = members[2].run(&["cluster", "health", "--json"]);
        let view = json::from_str::<HealthView>(String::from_utf8_lossy(&health.stdout).trim());
        view.is_ok_and(|view| !health.status.success() && !view.healthy && view.detail.contains("failed its update"))
    });

    // 3. A person has looked at it: the third goes on, the second stays where it is.
    fleet.good("cluster resume north");
    until("the third's update", || members[2].status().is_some_and(|s| text(&s, "own.last_result.version") == "3.0.0"));
    members[2].ended("updated", "3.0.0");
    until("the lease back", || north(&fleet).holder.is_none());
    assert_eq!(text(&members[1].wait("the second", |_| true), "own.last_result.outcome"), "rolled_back");
    let began = clock::monotonic();

    // 4. By hand: one is drained, the others may not be.
    until("health before the work by hand", || members[0].run(&["cluster", "health"]).status.success());
    // What a member was told is a few seconds older than what Fleet knows.
    until("a drain", || members[0].run(&["drain", "--for", "20m"]).status.success());
    let other = members[1].run(&["drain"]);
    assert!(!other.status.success() && said(&other).contains("lease_held"), "{}", said(&other));
    assert!(members[0].run(&["resume"]).status.success());
    until("the lease back", || north(&fleet).holder.is_none());
    println!("by hand: {:?}", clock::monotonic() - began);
}
