//! Real Fleets over one store.

use vmetric::director::policing::history::HistoryView;
use vmetric::director::views::StatusView;
use vmetric::io::clock;

use super::cluster::Cluster;
use crate::director_bench::Site;
use crate::fleet_told::{join, until};

fn history(fleet: &Site) -> HistoryView {
    HistoryView { time: 0, ..fleet.json::<HistoryView>("policy history --json") }
}

/// Starts Fleet with these options more; what it says when it ends at once.
fn refused(fleet: &Site, more: &str) -> String {
    let root = fleet.bench.path("release/root.json");
    let ended = fleet.run(&format!("run --listen 127.0.0.1:0 --name 127.0.0.1 --root {} {more}", root.display()));
    assert_eq!(ended.code, 1, "{}", ended.err);
    ended.err
}

pub fn set(fleet: &Site, version: &str) -> String {
    fleet.good(&format!("policy set --agents --mode auto --method user_action --version {version}"))
}

#[test]
fn a_fleet_comes_to_a_store_and_leaves_it_and_mistakes_are_refused() {
    let mut fleet = Site::fleet();
    set(&fleet, "1.0.0");
    let before = history(&fleet);
    fleet.stop();
    let file = fleet.bench.path("shared.redb");
    let store = format!("redb:{}", file.display());
    // Its own settings must not be lost for an empty store.
    for join in ["", "--join"] {
        let empty = refused(&fleet, &format!("--store {store} {join}"));
        assert!(empty.contains("it is empty") && empty.contains("store migrate --from fleet"), "{empty}");
    }
    std::fs::remove_file(&file).unwrap();
    fleet.good(&format!("store migrate --from fleet --to {store}"));
    fleet.options = vec!["--store".into(), store.clone()];
    fleet.start();
    assert_eq!(history(&fleet), before);
    set(&fleet, "2.0.0");
    assert_eq!(history(&fleet).changes.len(), 2);

    // Another Fleet: the file is in use, and when it is not, its own settings are others.
    let mut other = Site::fleet();
    set(&other, "3.0.0");
    other.stop();
    let used = refused(&other, &format!("--store {store}"));
    assert!(used.contains("store_in_use"), "{used}");
    fleet.stop();
    let differs = refused(&other, &format!("--store {store}"));
    assert!(differs.contains("--join") && differs.contains("rows"), "{differs}");
    other.options = vec!["--store".into(), store.clone(), "--join".into()];
    other.start();
    assert!(other.good("policy show --agents").contains("2.0.0"));
    set(&other, "4.0.0");
    other.stop();

    // It must be told that it goes on alone; then it does, with what it was told last.
    let alone = refused(&fleet, "");
    assert!(alone.contains("--store fleet"), "{alone}");
    // `--join` was left where Fleet is started, and the store is another one, or was lost.
    let lost = refused(&fleet, &format!("--store redb:{} --join", fleet.bench.path("lost.redb").display()));
    assert!(lost.contains("it is empty") && lost.contains("store restore"), "{lost}");
    let wrong = refused(&fleet, "--store etcd:/nowhere.yml");
    assert!(wrong.contains("/nowhere.yml"), "{wrong}");
    fleet.options = vec!["--store".into(), store];
    fleet.start();
    assert_eq!(history(&fleet).changes.len(), 3, "what others did while it was away");
    fleet.stop();
    fleet.options = vec!["--store".into(), "fleet".into()];
    fleet.start();
    fleet.stop();
    fleet.options.clear();
    fleet.start();
    assert_eq!(history(&fleet).changes.len(), 3);
    assert!(fleet.good("policy show --agents").contains("4.0.0"));
}

/// A Fleet of the cluster's store.
pub fn shares(mut fleet: Site, etcd: &Cluster) -> Site {
    fleet.stop();
    fleet.options = vec!["--store".into(), format!("etcd:{}", etcd.configuration().display())];
    fleet.start();
    fleet
}

fn in_force(director: &Site) -> u64 {
    director.json::<StatusView>("status --json").fleet.and_then(|f| f.settings_revision).unwrap_or(0)
}

#[test]
#[ignore = "needs etcd: tests/run etcd"]
fn a_setting_made_at_one_fleet_reaches_a_director_of_another_within_a_second() {
    let mut etcd = Cluster::start(3, 256 << 20);
    let (a, mut b) = (shares(Site::fleet(), &etcd), shares(Site::fleet(), &etcd));
    let director = Site::new();
    let id = join(&b, &director);
    until("the first contact", || director.json::<StatusView>("status --json").fleet.is_some_and(|f| f.state == "connected"));
    let mut times = Vec::new();
    let mut reaches = |fleet: &Site, version: &str| {
        // A poll that was answered a moment ago is followed by the next one within a second.
        until("the parked poll", || b.json::<StatusView>("status --json").parked == 1);
        set(fleet, version);
        let began = clock::monotonic();
        let revision = history(fleet).changes[0].revision;
        until("the setting at the Director", || in_force(&director) >= revision);
        times.push(clock::monotonic() - began);
    };
    for version in ["1.0.0", "2.0.0", "1.5.0"] {
        reaches(&a, version);
    }
    // Both decide the next one: which of them is asked makes no difference.
    reaches(&b, "1.6.0");
    reaches(&a, "1.7.0");
    until("one history", || history(&a) == history(&b));
    assert_eq!(history(&a).changes.len(), 5);
    assert!(director.good("policy show --default").contains("1.7.0"));

    // The leader of etcd dies, then the Fleet that heard nothing of it.
    let leader = etcd.until_whole(Some(&etcd.token(0)));
    etcd.kill(leader);
    set(&a, "1.8.0");
    until("the setting at the Director", || director.good("policy show --default").contains("1.8.0"));
    b.kill();
    set(&a, "1.9.0");
    b.start();
    until("what was said while it was dead", || history(&a) == history(&b));
    until("the setting at the Director", || director.good("policy show --default").contains("1.9.0"));
    // Without a quorum nothing is changed, anywhere, and that is said; Directors are served on.
    let other = (leader + 1) % 3;
    etcd.kill(other);
    let reason = a.bad("policy set --agents --mode auto --method user_action --version 9.9.9");
    // A server that has not noticed yet that it is alone took it: then it is not known, and that is said.
    assert!(reason.contains("nothing of this was changed") || reason.contains("store_unsure"), "{reason}");
    assert!(!a.good("policy show --agents").contains("9.9.9") && history(&a) == history(&b));
    assert!(b.good("directors").contains(&id));
    // Also by one that starts meanwhile.
    b.kill();
    b.start();
    assert_eq!(history(&a), history(&b));
    etcd.revive(leader);
    etcd.revive(other);
    until("a change", || a.run("policy set --agents --mode auto --method user_action --version 2.1.0").code == 0);
    until("the setting at the Director", || director.good("policy show --default").contains("2.1.0"));
    until("one history", || history(&a) == history(&b));
    times.sort();
    // Measured, not judged: the machine may be busy. The goal is a second.
    println!("from one Fleet's answer until it is in force at a Director of another, looked at every 50 ms: {times:?}");
}
