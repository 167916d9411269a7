//! Mode `manual`: metadata are looked at, what there is is shown, and no file is fetched that nobody may take.

#![allow(clippy::disallowed_methods, reason = "tests look at files")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use miniserde::json;
use vmetric::core::keep::{Facts, Use};
use vmetric::core::reason::Reason;
use vmetric::director::mirror::Source;
use vmetric::director::policing::grants::Authorize;
use vmetric::director::policing::hand::HandedWire;
use vmetric::director::policing::rows::{PolicyChange, PolicyRow, Scope};
use vmetric::director::quarantine::Reject;
use vmetric::director::releases::ReleasesView;
use vmetric::director::tree::Tree;
use vmetric::io::clock;
use vmetric::wire::agent_api::{ErrorWire, OrderWire};
use vmetric::wire::settings::SettingsWire;

use crate::director_bench::{FakeAgent, Site, agent_file};
use crate::director_mirror::{add, mirror, publish, refreshed, released};
use crate::director_orders::{World, all, sha};

/// Far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = clock::monotonic() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(clock::monotonic() < end, "{what} did not come");
        vmetric::io::process::sleep(Duration::from_millis(20));
    }
}

fn uses(versions: &[&str]) -> BTreeSet<Use> {
    let platform = vmetric::core::release::Platform { os: "linux".into(), arch: "amd64".into() };
    versions.iter().map(|v| Use { product: "vmetric-agent".into(), version: v.parse().unwrap(), platform: platform.clone() }).collect()
}

/// The versions of which a file lies below a mirror's folder.
fn on_disk(folder: PathBuf) -> Vec<String> {
    let mut out = Vec::new();
    let mut folders = vec![folder.join("targets")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => out.push(entry.path().components().rev().nth(2).unwrap().as_os_str().to_string_lossy().to_string()),
            }
        }
    }
    out.sort();
    out
}

fn listed(tree: &Tree) -> Vec<String> {
    tree.releases.versions("vmetric-agent").iter().map(ToString::to_string).collect()
}

#[test]
fn what_nobody_may_take_is_listed_and_not_fetched() {
    let bench = released();
    add(&bench, "2.0.0");
    publish(&bench);
    let mut mirror = mirror(&bench, Source::Folder(bench.path("public")));
    let site = bench.path("site/release");
    mirror.facts = Facts { fetched: Some(BTreeSet::new()), ..Facts::default() };
    let nothing = refreshed(&mirror, &Tree::default());
    assert_eq!((listed(&nothing.tree), on_disk(site.clone())), (vec!["2.0.0".into(), "1.0.0".into()], Vec::<String>::new()));
    assert!(nothing.left_out.is_empty(), "nothing is wrong: {:?}", nothing.left_out);
    assert!(nothing.tree.releases.away.values().all(|why| why.code == "not_needed") && nothing.tree.releases.away.len() == 2);
    assert!(!nothing.tree.entries.keys().any(|name| name.starts_with("targets/")));
    // An order names one of them.
    mirror.facts = Facts { ordered: uses(&["1.0.0"]), fetched: Some(uses(&["1.0.0"])), ..Facts::default() };
    let one = refreshed(&mirror, &nothing.tree);
    assert!(one.changed, "the planner has to hear of it");
    assert_eq!((on_disk(site.clone()), one.tree.releases.away.len()), (vec!["1.0.0".to_string()], 1));
    // It ran and is over: what is here stays, and is served.
    mirror.facts = Facts { fetched: Some(BTreeSet::new()), ..Facts::default() };
    let after = refreshed(&mirror, &one.tree);
    assert!(after.tree.entries.contains_key("targets/vmetric-agent/1.0.0/linux-amd64/vmetric-agent"));
    assert_eq!(on_disk(site.clone()), ["1.0.0"]);
    // A restart without the source knows the same.
    std::fs::rename(bench.path("public/targets"), bench.path("public/gone")).unwrap();
    let found = mirror.from_disk().unwrap();
    assert_eq!((listed(&found.tree), found.tree.releases.away.len()), (vec!["2.0.0".into(), "1.0.0".into()], 1));
    // What should be here and does not come stays listed, with the reason: the order that waits for it names it.
    mirror.facts = Facts { fetched: Some(uses(&["2.0.0"])), ..Facts::default() };
    let broken = refreshed(&mirror, &found.tree);
    let away = &broken.tree.releases.away["vmetric-agent/2.0.0/linux-amd64/vmetric-agent"];
    assert_eq!((away.code.as_ref(), broken.left_out.len()), ("mirror_unreadable", 1), "{away}");
    // A person who brings a tree brings all of it.
    std::fs::rename(bench.path("public/gone"), bench.path("public/targets")).unwrap();
    let brought = mirror.import(&bench.path("public"), false, &broken.tree, clock::unix()).unwrap();
    assert_eq!((on_disk(site), brought.tree.releases.away.len()), (vec!["1.0.0".into(), "2.0.0".into()], 0));
}

fn set(world: &mut World, scope: &Scope, text: &str) {
    let mut settings = SettingsWire { ..Default::default() };
    for pair in text.split(';') {
        let (name, value) = pair.split_once('=').unwrap();
        *settings.field(name).unwrap() = Some(value.to_string());
    }
    let change = PolicyChange { set: settings, replace: true, custom: Some(true), ..Default::default() };
    world.registry.set_policy(scope, &change, world.now).unwrap();
}

fn fetched(world: &World) -> Vec<String> {
    let facts = world.registry.mirror_facts(None, &world.releases, world.now);
    facts.fetched.unwrap().iter().map(|u| u.version.to_string()).collect()
}

/// Two nodes that run 1.0.0; there are 1.0.0, 2.0.0 and 2.1.0.
#[test]
fn each_policy_fetches_what_it_lets_nodes_take() {
    let table: [(&str, &[&str]); 7] = [
        ("mode=manual", &[]),
        ("mode=manual;method=immediate;version=2.0.0", &[]),
        ("mode=auto;method=immediate", &["1.0.0", "2.1.0"]),
        ("mode=auto;method=immediate;version=2.0.0", &["1.0.0", "2.0.0"]),
        // Also while its window is far away: it must be here by then.
        ("mode=auto;method=schedule;version=2.0.0;cron=0 3 * * 0", &["1.0.0", "2.0.0"]),
        // What a person is asked to authorize has been verified here.
        ("mode=auto;method=user_action", &["1.0.0", "2.1.0"]),
        ("mode=auto;method=immediate;version=9.0.0", &["1.0.0"]),
    ];
    for (text, expected) in table {
        let mut world = World::new(2);
        set(&mut world, &Scope::Default, text);
        assert_eq!(fetched(&world), expected, "{text}");
        // A node whose own settings are manual adds nothing.
        let mut world = World::new(1);
        set(&mut world, &Scope::Default, text);
        set(&mut world, &Scope::Node("a0".into()), "mode=manual");
        assert_eq!(fetched(&world), Vec::<String>::new(), "{text}");
    }
    // An authorization names what comes; a rejected file does not come.
    let mut world = World::new(1);
    set(&mut world, &Scope::Default, "mode=auto;method=user_action");
    let releases = world.releases.clone();
    let ask = Authorize { nodes: None, version: "2.0.0".into(), ttl_s: None };
    world.registry.authorize(&ask, &releases, world.now).unwrap();
    assert_eq!(fetched(&world), ["1.0.0", "2.0.0"]);
    let mut world = World::new(1);
    set(&mut world, &Scope::Default, "mode=auto;method=immediate");
    let ask = Reject { sha256: sha("2.1.0"), version: "2.1.0".into(), agents: None, for_s: None, why: "x".into() };
    world.registry.reject(&ask, world.now).unwrap();
    assert_eq!(fetched(&world), ["1.0.0"]);
}

#[test]
fn an_order_by_hand_waits_for_its_file_and_says_so() {
    let mut world = World::new(2);
    let path = "vmetric-agent/2.0.0/linux-amd64/vmetric-agent";
    world.releases.away.insert(path.into(), Reason::new("not_needed", "nobody may take it"));
    assert_eq!(fetched(&world), Vec::<String>::new());
    let id = world.assign(&all("2.0.0"));
    assert!(std::mem::take(&mut world.registry.fetch_now), "the mirror does not wait for its minute");
    assert_eq!(world.state(id, "a0"), ("waiting_turn".into(), "file_not_here".into()));
    let row = &world.registry.orders[&(id, "a0".to_string())];
    assert!(row.detail.contains(path) && row.until.is_some(), "{}", row.detail);
    assert_eq!(fetched(&world), ["2.0.0"]);
    assert!(world.order("a0").is_none());
    for _ in 0..3 {
        world.plan();
        assert!(!world.registry.fetch_now, "a source that is away is not asked all the time");
    }
    world.releases.away.clear();
    world.plan();
    assert_eq!((world.state(id, "a0").0.as_str(), world.state(id, "a1").1.as_str()), ("ordered", "first_agent"));
    // Its package belongs to it.
    let package = vmetric::core::release::Artifact {
        path: "vmetric-agent/2.1.0/linux-amd64/package.tar.zst".parse().unwrap(),
        ..world.releases.artifacts[0].clone()
    };
    world.releases.away.insert(package.path.to_string(), Reason::new("mirror_unreachable", "no route"));
    world.releases.artifacts.push(package);
    world.finish("a0", "updated");
    let id = world.assign(&all("2.1.0"));
    let row = &world.registry.orders[&(id, "a0".to_string())];
    assert!(row.code == "file_not_here" && row.detail.contains("package.tar.zst") && row.detail.contains("no route"), "{}", row.detail);
}

#[test]
fn what_fleet_said_of_an_agent_counts_once_it_is_enrolled() {
    let mut world = World::new(1);
    let row = |scope: &str, mode: &str, revision| PolicyRow {
        scope: scope.into(),
        custom: true,
        settings: SettingsWire { mode: Some(mode.into()), method: Some("immediate".into()), ..Default::default() },
        revision,
        ..Default::default()
    };
    let nodes = Some(vec![row("node/late", "auto", 7), row("node/a0", "manual", 8)]);
    let handed = HandedWire { nodes, ..Default::default() };
    world.registry.take_handed(&handed, world.now);
    assert!(!world.registry.policing.rows.contains_key("node/late"));
    world.enroll("late", "linux", "1.0.0");
    world.plan();
    assert_eq!(world.registry.policing.rows["node/late"].handed, Some(7));
    assert_eq!(world.state(1, "late").0, "ordered", "at once, not with Fleet's next change");
    // What was changed here meanwhile is not undone by somebody else's enrollment.
    set(&mut world, &Scope::Node("a0".into()), "mode=auto;method=user_action");
    world.enroll("later", "linux", "1.0.0");
    assert_eq!(world.registry.policing.rows["node/a0"].settings.mode.as_deref(), Some("auto"));
}

fn order_of(agent: &FakeAgent) -> OrderWire {
    until("the order", || agent.report().order)
}

#[test]
fn a_director_in_manual_fetches_what_was_ordered_or_asked_for_by_name() {
    let mut site = Site::new();
    let agent = site.enroll("a");
    agent.report();
    site.good("mirror");
    let folder = site.state().join("release");
    assert_eq!(on_disk(folder.clone()), Vec::<String>::new());
    let view: ReleasesView = site.json("releases --json");
    assert!(view.releases.len() == 2 && view.releases.iter().all(|r| r.away.as_ref().is_some_and(|why| why.contains("not_needed"))));
    assert!(site.good("policy show").contains("manual"));
    // What is there is shown for the agent, too.
    let shown: vmetric::director::policing::show::PolicyView = site.json(&format!("policy show {} --json", agent.report.agent_id));
    assert_eq!(shown.effective.version.as_deref(), Some("2.0.0"));

    site.good(&format!("assign --agent {} --version 2.0.0", agent.report.agent_id));
    let order = order_of(&agent);
    assert_eq!((order.version.as_str(), on_disk(folder.clone())), ("2.0.0", vec!["2.0.0".to_string()]));
    let get = |version: &str| {
        let url = format!("{}/release/targets/vmetric-agent/{version}/linux-amd64/vmetric-agent", agent.url);
        let download = agent.http.get(&url, Some(&agent.credential), None, 1 << 20, PATIENCE).unwrap();
        (download.status, download.retry_after_s)
    };
    assert_eq!(get("2.0.0").0, 200);
    let (status, pause) = get("1.0.0");
    assert!(status == 503 && pause.is_some(), "an agent makes nobody fetch what it was not ordered: {status}");
    assert_eq!(on_disk(folder.clone()), ["2.0.0"]);

    // A first install is a person's act.
    let url = format!("{}/dl/agent/linux/amd64?version=1.0.0", site.url);
    let named = site.http().get(&url, Some("nonsense"), None, 1 << 20, PATIENCE).unwrap();
    assert_eq!((named.status, on_disk(folder.clone())), (403, vec!["2.0.0".to_string()]), "a stranger makes nobody fetch");
    let token = site.token("");
    let mut install = site.http().get(&url, Some(&token), None, 1 << 20, PATIENCE).unwrap();
    let (mut body, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = install.read(&mut piece) {
        body.extend_from_slice(&piece[..n]);
    }
    assert!(install.status == 200 && body == agent_file("1.0.0"));
    assert_eq!(on_disk(folder.clone()), ["1.0.0", "2.0.0"]);

    // A release that comes later is shown and not fetched; a restart changes nothing of that.
    site.add("3.0.0");
    site.publish();
    site.good("mirror");
    site.kill();
    site.start();
    let view: ReleasesView = site.json("releases --json");
    let away: Vec<&str> = view.releases.iter().filter(|r| r.away.is_some()).map(|r| r.version.as_str()).collect();
    assert_eq!((away, on_disk(folder)), (vec!["3.0.0"], vec!["1.0.0".to_string(), "2.0.0".into()]));
}

/// Also where nobody orders it yet: the look that finds a release fetches it.
#[test]
fn a_release_is_here_before_a_person_is_asked_to_authorize_it() {
    let site = Site::new();
    site.enroll("a").report();
    site.add("3.0.0");
    site.publish();
    site.good("policy set --default --mode auto --method user_action");
    site.good("mirror");
    assert_eq!(on_disk(site.state().join("release")), ["1.0.0", "3.0.0"], "and not what was the newest before");
}

#[test]
fn a_policy_in_mode_auto_fetches_its_version_at_once() {
    let site = Site::new();
    let agent = site.enroll("a");
    agent.report();
    site.good("policy set --default --mode auto --method immediate --version 2.0.0");
    assert_eq!(order_of(&agent).version, "2.0.0");
    // What it runs is fetched, too, for a repair; a newer one that the policy does not name is not.
    site.add("3.0.0");
    site.publish();
    site.good("mirror");
    assert_eq!(on_disk(site.state().join("release")), ["1.0.0", "2.0.0"]);
}

/// Fleet's mirror: its Directors' mirrors get what they need by asking for it.
#[cfg(feature = "fleet")]
#[test]
fn fleet_fetches_what_a_mirror_below_it_asks_for() {
    let fleet = Site::fleet();
    fleet.good("mirror");
    let folder = fleet.state().join("release");
    assert_eq!(on_disk(folder.clone()), Vec::<String>::new());
    let get = |name: &str| {
        let mut download = fleet.http().get(&format!("{}/release/targets/{name}", fleet.url), None, None, 1 << 20, PATIENCE).unwrap();
        let (mut body, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = download.read(&mut piece) {
            body.extend_from_slice(&piece[..n]);
        }
        (download.status, body)
    };
    let view: ReleasesView = fleet.json("releases --json");
    let row = view.releases.iter().find(|r| r.version == "1.0.0").unwrap();
    // The name that a mirror asks for; a wrong hash in it names nothing.
    assert_eq!(get(&format!("vmetric-director/1.0.0/linux-amd64/{}.vmetric-director", "0".repeat(64))).0, 404);
    assert_eq!(get(&format!("vmetric-director/1.0.0/linux-amd64/{}.vmetric-director", row.sha256)), (200, agent_file("1.0.0")));
    assert_eq!((get("vmetric-director/9.9.9/linux-amd64/vmetric-director").0, on_disk(folder)), (404, vec!["1.0.0".to_string()]));
}

/// A source that is away: whoever asks by name is told to come again, with the reason.
#[test]
fn what_cannot_be_fetched_is_said_to_who_asks_for_it() {
    let site = Site::new();
    site.good("mirror");
    std::fs::rename(site.bench.path("public"), site.bench.path("gone")).unwrap();
    let url = format!("{}/dl/agent/linux/amd64", site.url);
    let token = site.token("");
    let mut answer = site.http().get(&url, Some(&token), None, 1 << 20, PATIENCE).unwrap();
    let (mut body, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = answer.read(&mut piece) {
        body.extend_from_slice(&piece[..n]);
    }
    let said: ErrorWire = json::from_str(std::str::from_utf8(&body).unwrap()).unwrap();
    assert_eq!((answer.status, said.code.as_str()), (503, "file_not_here"));
    assert!(answer.retry_after_s.is_some() && said.detail.contains("mirror_unreachable"), "{}", said.detail);
}
