//! A cluster without Fleet, with real processes: the members promise the lease, and a frozen Fleet holds up nobody for long.

#![allow(clippy::disallowed_methods, reason = "tests read files")]

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use vmetric::director::policing::clusters::{ClusterView, ClustersView};
use vmetric::io::clock;

use crate::agent::{said, text};
use crate::director_bench::Site;
use crate::own_update::{Own, fleet, release, variant};

/// A busy test machine gets much more than it takes.
const PATIENCE: Duration = Duration::from_secs(240);

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

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// `cluster update`, or `update`, of the published tree.
fn update(own: &Own, words: &[&str]) -> Command {
    let mut command = Command::new(own.path("image/vmetric-director"));
    command.args(words).arg("--file").arg(own.fleet.bench.path("public")).arg("--state").arg(own.path("state")).stdin(Stdio::null());
    command
}

fn ended(own: &Own, words: &[&str]) -> Output {
    update(own, words).output().unwrap()
}

fn noted(own: &Own, code: &str) -> bool {
    own.activity().iter().any(|event| event.code == code)
}

fn told(own: &Own) -> String {
    std::fs::read_to_string(own.path("state/storage/cluster-told.json")).unwrap_or_default()
}

/// Fleet is frozen, so that its connections live and nothing is answered.
#[test]
#[ignore = "minutes; in tests/run cluster"]
fn members_promise_the_lease_while_fleet_is_frozen() {
    let fleet = fleet(&[("2.0.0", &variant("two"))]);
    let mut members: Vec<Own> = ["own-a", "own-b", "own-c"].iter().map(|name| Own::enrolled_as(&fleet, name)).collect();
    members.iter_mut().for_each(|own| own.start(false));
    let id = |own: &Own| text(&own.wait("its identity", |s| text(s, "fleet.state") == "connected"), "fleet.id");
    let ids: Vec<String> = members.iter().map(id).collect();
    // In no cluster, or in none that it knows of.
    let alone = ended(&members[0], &["cluster", "update"]);
    assert!(!alone.status.success() && said(&alone).contains("in no cluster"), "{}", said(&alone));
    let named: Vec<String> = ids.iter().map(|id| format!("--member {id}")).collect();
    fleet.good(&format!("cluster create north {}", named.join(" ")));
    fleet.good("cluster change north --drain 2s --soak 2s");
    until("a cluster that is well", || north(&fleet).code == "ready");
    until("the members' own view", || members.iter().all(|own| own.run(&["cluster", "health"]).status.success()));
    let kept = |own: &Own| told(own).contains("\"soak_s\":2") && told(own).matches("\"key\":\"").count() == 3;
    until("what is kept for the time without Fleet", || members.iter().all(kept));
    let group = |own: &Own| own.path("state/storage/cluster.json").exists();
    until("the word that a lease is needed", || members.iter().all(group));

    // 1. Fleet answers and a person has paused the cluster: that is a refusal, and no reason to ask the peers.
    fleet.good("cluster pause north --reason lunch");
    let paused = ended(&members[0], &["update"]);
    assert!(!paused.status.success() && said(&paused).contains("lunch") && said(&paused).contains("nothing was done"), "{}", said(&paused));
    fleet.good("cluster resume north");
    let resumed = |own: &Own| !told(own).contains("lunch");
    until("the end of the pause, at each", || members.iter().all(resumed));

    // 2. Frozen: the others promise, nobody else gets a promise meanwhile, and Fleet comes back in the middle.
    signal(fleet.pid(), "-STOP");
    let first = update(&members[0], &["cluster", "update"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the others' promises", || members[1..].iter().all(|own| noted(own, "lease_promised")));
    let second = ended(&members[1], &["update"]);
    assert!(!second.status.success() && said(&second).contains(&ids[0]), "one at a time: {}", said(&second));
    signal(fleet.pid(), "-CONT");
    let out = first.wait_with_output().unwrap();
    assert!(out.status.success() && said(&out).contains("members promised"), "{}", said(&out));
    members[0].wait("2.0.0", |s| text(s, "own.last_result.outcome") == "updated" && text(s, "own.last_result.version") == "2.0.0");
    until("the promises back", || members[1..].iter().all(|own| noted(own, "lease_returned")) && noted(&members[0], "lease_returned"));
    until("a cluster that is well again", || north(&fleet).code == "ready" && north(&fleet).holder.is_none());

    // 3. A member is gone, too: the reason is said and nothing is done; a person takes it on, and that is noted with its cost.
    signal(fleet.pid(), "-STOP");
    let gone = &mut members[2];
    gone.process.as_mut().unwrap().kill().unwrap();
    gone.process.take().unwrap().wait().unwrap();
    until("the loss, seen by both", || {
        members[..2].iter().all(|own| said(&own.run(&["cluster", "plan", "--json"])).contains("\"reached\":false"))
    });
    let refused = ended(&members[1], &["cluster", "update"]);
    let why = said(&refused);
    assert!(!refused.status.success() && why.contains(&ids[2]) && why.contains("--force") && why.contains("nothing was done"), "{why}");
    let forced = ended(&members[1], &["cluster", "update", "--force"]);
    assert!(forced.status.success() && said(&forced).contains("2 of 3"), "{}", said(&forced));
    let cost = members[1].activity().into_iter().find(|event| event.code == "cluster_override").unwrap();
    assert!(cost.detail.contains("a majority is 2") && cost.detail.contains(&ids[2]), "{}", cost.detail);
    let told = members[1].run(&["cluster", "resume"]);
    assert!(told.status.success() && said(&told).contains(&ids[2]), "{}", said(&told));
    signal(fleet.pid(), "-CONT");
    members[2].start(false);
    until("a cluster of three", || north(&fleet).code == "ready" && north(&fleet).holder.is_none());

    // 4. Fleet freezes while a member drains for its order: the member serves on and says why, and finishes when Fleet is back.
    fleet.good("cluster change north --drain 8s");
    release(&fleet, "3.0.0", &variant("three"));
    fleet.good("assign --all --version 3.0.0 --end-probation");
    let draining = |own: &Own| own.status().is_some_and(|s| text(&s, "own.code") == "draining");
    let mut who = None;
    until("a drain", || {
        who = members.iter().position(draining);
        who.is_some()
    });
    signal(fleet.pid(), "-STOP");
    let own = &members[who.unwrap()];
    until("the drain's end without Fleet", || {
        let status = own.status().unwrap_or_else(|| panic!("it stopped without Fleet's last word"));
        text(&status, "own.code") != "draining" && !own.run(&["cluster", "health"]).status.success()
    });
    signal(fleet.pid(), "-CONT");
    until("the whole roll-out", || {
        let done = |own: &Own| own.status().is_some_and(|s| text(&s, "own.last_result.version") == "3.0.0");
        members.iter().all(done) && north(&fleet).holder.is_none()
    });
}
