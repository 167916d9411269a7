//! Long lives on the agent's real folder: years of roots, stolen keys and their cure, rotations, a factory image that is
//! newer or older than what is stored. Each story is run with the power cut before every single write of it.

use std::fs;

use tempfile::TempDir;
use vmetric::core::hex;
use vmetric::core::reason::Reason;
use vmetric::core::trust::{Fetched, Goal, Now, Refresh, Trusted, Want};
use vmetric::io::trust_store::{Stopped, TrustStore, load_root_chain};

use crate::release_bench::copy;
use crate::trust_repo::*;

/// A device: its folder, and the root it left the factory with.
struct Device {
    dir: TempDir,
    factory: Vec<u8>,
}

impl Device {
    fn new(repo: &Repo) -> Device {
        Device { dir: tempfile::tempdir().unwrap(), factory: repo.root(1).to_vec() }
    }

    fn open(&self) -> (TrustStore, Trusted) {
        TrustStore::open(&self.dir.path().join("trust"), &self.factory).unwrap()
    }

    /// A new process refreshes; what was refused, or "".
    fn refresh_at(&self, repo: &Repo, now: Now, goal: Goal) -> (Trusted, String) {
        let (store, trusted) = self.open();
        let (trusted, outcome) = store.refresh(trusted, now, goal, &mut |name, _| Ok::<_, Reason>(repo.files.get(name).cloned()));
        let code = match outcome {
            Ok(_) => "",
            Err(Stopped::Refused(refusal)) => refusal.code,
            Err(other) => panic!("{other:?}"),
        };
        (trusted, code.to_string())
    }

    fn refresh(&self, repo: &Repo) -> (Trusted, String) {
        self.refresh_at(repo, now(), find())
    }

    /// The same process, with the power cut before its write number `writes`. True = it came to its end before.
    fn refresh_until(&self, repo: &Repo, mut writes: usize) -> bool {
        let (store, trusted) = self.open();
        let mut refresh = Refresh::new(trusted, now(), find());
        while let Want::Fetch(file) = refresh.want() {
            let fetched = repo.files.get(&file.name).map_or(Fetched::NotFound, |bytes| Fetched::Bytes(bytes));
            for step in refresh.give(fetched).unwrap_or_default() {
                if writes == 0 {
                    return false;
                }
                writes -= 1;
                store.persist(&step).unwrap();
            }
        }
        true
    }

    fn twin(&self) -> Device {
        let twin = Device { dir: tempfile::tempdir().unwrap(), factory: self.factory.clone() };
        copy(self.dir.path(), twin.dir.path());
        twin
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.dir.path().join("trust")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Cuts the power before every write of the next refresh. Each time a new process comes to the same end, in one
    /// refresh; then it is done here as well.
    fn with_every_cut(&self, repo: &Repo, versions: [u64; 4]) {
        for writes in 0.. {
            let twin = self.twin();
            let ended = twin.refresh_until(repo, writes);
            let (trusted, code) = twin.refresh(repo);
            assert_eq!((trusted.versions(), code.as_str()), (versions, ""), "cut before write {writes}");
            assert_eq!(twin.open().1.versions(), versions, "and after one more start");
            if ended {
                break;
            }
            assert!(writes < 200, "endless");
        }
        assert_eq!(self.refresh(repo).1, "");
    }
}

fn rotate(repo: &mut Repo, role: &str, names: &[&str], threshold: i64) {
    repo.top.insert(role.into(), Keys::new(names, threshold));
}

/// The next root, which nobody will see as the last one: expired, signed by the holders before and after.
fn next_root(repo: &mut Repo, version: u64) {
    let old = repo.top["root"].keys.clone();
    let names: Vec<String> = (0..3).map(|i| format!("root-{}", (version + i) / 3)).collect();
    repo.top.insert("root".into(), Keys::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), 1));
    repo.signers.insert("root".into(), old.into_iter().chain(repo.top["root"].keys.clone()).collect());
    repo.versions.insert("root".into(), version);
    repo.expires.insert("root".into(), NOW - DAY);
    repo.publish_root();
}

/// Root keys change every few versions, the other roles' now and then; the device was switched off all the time.
#[test]
fn a_device_that_slept_through_300_roots() {
    let mut repo = Repo::new();
    let device = Device::new(&repo);
    assert_eq!(device.refresh(&repo).1, "");
    for version in 2..=301 {
        if version % 50 == 0 {
            for role in ["timestamp", "snapshot", "targets"] {
                rotate(&mut repo, role, &[&format!("{role}-{version}")], 1);
            }
        }
        next_root(&mut repo, version);
    }
    // Somewhere on the way the network goes, and later the power.
    for count in [1, 120, 100] {
        let (store, trusted) = device.open();
        let mut left = count;
        let (_, outcome) = store.refresh(trusted, now(), find(), &mut |name, _| {
            left -= 1;
            if left == 0 { Err(Reason::new("no_contact", "gone")) } else { Ok(repo.files.get(name).cloned()) }
        });
        assert!(matches!(outcome, Err(Stopped::Fetch(_))));
    }
    let before = device.open().1.versions()[0];
    assert!(before > 200, "what was walked is walked: {before}");
    // The last one has expired as well: that far, and no farther.
    let (trusted, code) = device.refresh(&repo);
    assert_eq!((trusted.versions(), code.as_str()), ([301, 0, 0, 0], "root_expired"));
    repo.expires.remove("root");
    repo.versions.insert("root".into(), 302);
    repo.publish();
    let (trusted, code) = device.refresh(&repo);
    assert_eq!((trusted.versions(), code.as_str()), ([302, 1, 1, 1], ""));
    assert!(trusted.find(&TARGET.parse().unwrap()).is_some());
    assert_eq!(load_root_chain(&device.dir.path().join("trust"), &device.factory).unwrap().versions()[0], 302);
}

/// More roots than one refresh walks: the next one goes on, and what is stored is loaded whole.
#[test]
fn more_roots_than_one_refresh_takes() {
    let mut repo = Repo::new();
    repo.top.insert("root".into(), Keys::new(&["root-1"], 1));
    repo.publish();
    let device = Device::new(&repo);
    for _ in 2..=1100 {
        repo.bump("root");
        repo.publish_root();
    }
    let (trusted, code) = device.refresh(&repo);
    assert_eq!((trusted.versions()[0], code.as_str()), (1025, ""));
    let (trusted, code) = device.refresh(&repo);
    assert_eq!((trusted.versions()[0], code.as_str()), (1100, ""));
    assert_eq!(device.open().1.versions(), [1100, 1, 1, 1], "a start without a network knows the newest keys");
    assert_eq!(load_root_chain(&device.dir.path().join("trust"), &device.factory).unwrap().versions()[0], 1100);
}

/// The thief of a key publishes the highest version there is; the root that takes the key away gives the device back.
#[test]
fn stolen_online_keys_are_cured_by_a_root() {
    for stolen in [&["timestamp"][..], &["snapshot", "timestamp"], &["targets", "snapshot", "timestamp"]] {
        let good = Repo::at_version_5();
        let device = Device::new(&good);
        assert_eq!(device.refresh(&good).1, "");
        let mut evil = good.clone();
        for role in ["timestamp", "snapshot", "targets"] {
            if stolen.contains(&role) {
                evil.versions.insert(role.into(), u64::MAX);
            }
        }
        if !stolen.contains(&"targets") && stolen.contains(&"snapshot") {
            evil.edit("snapshot", |doc| set(doc, &["meta", "stranger.json"], r#"{"version":1}"#));
        }
        evil.publish();
        assert_eq!(device.refresh(&evil).1, "", "{stolen:?}");
        let mut next = good.clone();
        next.next_release();
        next.publish();
        assert!(device.refresh(&next).1.ends_with("rollback"), "stuck, and it says so");
        for role in stolen {
            rotate(&mut next, role, &[&format!("{role}-new")], 1);
        }
        next.bump("root");
        next.publish();
        device.with_every_cut(&next, [2, 6, 6, 6]);
        let (_, trusted) = device.open();
        assert!(trusted.find(&TARGET.replace("2.5.0", "2.6.0").parse().unwrap()).is_some());
        // The thief's files are worth nothing any more.
        evil.files.extend(next.files.iter().filter(|(name, _)| name.ends_with("root.json")).map(|(k, v)| (k.clone(), v.clone())));
        assert_eq!(device.refresh(&evil).1, "timestamp_threshold");
    }
}

/// The holder of a platform's key goes bad: targets names another one, and what the old one signed is gone.
#[test]
fn a_stolen_platform_key_is_cured_by_targets() {
    let good = Repo::at_version_5();
    let device = Device::new(&good);
    let mut evil = good.clone();
    evil.add(ROLE, &TARGET.replace("2.5.0", "9.9.9"), b"evil");
    for role in [ROLE, "snapshot", "timestamp"] {
        evil.bump(role);
    }
    evil.publish();
    let (trusted, code) = device.refresh(&evil);
    assert_eq!((code.as_str(), trusted.find(&TARGET.replace("2.5.0", "9.9.9").parse().unwrap()).is_some()), ("", true));
    let mut cured = good.clone();
    cured.delegations.get_mut("targets").unwrap()[0].keys = Keys::new(&["platform-new"], 1);
    // With the thief's own version, and with the next one.
    for version in [6, 7] {
        cured.versions.insert(ROLE.into(), version);
        cured.versions.insert("snapshot".into(), 7);
        cured.versions.insert("timestamp".into(), 7);
        cured.versions.insert("targets".into(), 6);
        cured.publish();
        let twin = device.twin();
        twin.with_every_cut(&cured, [1, 7, 7, 6]);
        let (_, trusted) = twin.open();
        assert!(trusted.find(&TARGET.parse().unwrap()).is_some());
        assert_eq!(code_of(&trusted, "9.9.9"), "target_unknown");
    }
    // Below the thief's version only a new snapshot key helps (5.5.5).
    cured.versions.insert(ROLE.into(), 5);
    cured.versions.insert("snapshot".into(), 8);
    cured.versions.insert("timestamp".into(), 8);
    cured.publish();
    assert_eq!(device.refresh(&cured).1, "snapshot_role_rollback");
    rotate(&mut cured, "snapshot", &["snapshot-new"], 1);
    cured.bump("root");
    cured.publish();
    device.with_every_cut(&cured, [2, 8, 8, 6]);
}

fn code_of(trusted: &Trusted, version: &str) -> &'static str {
    code(trusted.lookup(&TARGET.replace("2.5.0", version).parse().unwrap()))
}

/// Every role gets new keys, one after the other and all at once, with thresholds that rise and fall.
#[test]
fn roles_rotate_and_thresholds_change() {
    type Change = (&'static str, fn(&mut Repo));
    let changes: &[Change] = &[
        ("timestamp key", |r| rotate(r, "timestamp", &["t2"], 1)),
        ("snapshot key", |r| rotate(r, "snapshot", &["s2"], 1)),
        ("targets key", |r| rotate(r, "targets", &["g2"], 1)),
        ("root 2 of 3 to 3 of 5", |r| {
            rotate(r, "root", &["root-1", "root-2", "root-3", "root-4", "root-5"], 3);
        }),
        ("every threshold up", |r| {
            rotate(r, "timestamp", &["t2", "t3", "t4"], 2);
            rotate(r, "snapshot", &["s2", "s3"], 2);
            rotate(r, "targets", &["g2", "g3", "g4"], 3);
        }),
        ("the platform's too", |r| r.delegations.get_mut("targets").unwrap()[0].keys = Keys::new(&[ROLE, "p2"], 2)),
        ("root 3 of 5 to 1 of 1", |r| {
            let old = r.top["root"].keys.clone();
            rotate(r, "root", &["root-5"], 1);
            r.signers.insert("root".into(), old);
        }),
        ("every threshold down", |r| {
            r.signers.remove("root");
            rotate(r, "timestamp", &["t4"], 1);
            rotate(r, "snapshot", &["s3"], 1);
            rotate(r, "targets", &["g4"], 1);
        }),
        ("all at once", |r| {
            r.signers.insert("root".into(), vec![Key::new("root-5"), Key::new("root-6")]);
            rotate(r, "root", &["root-6"], 1);
            rotate(r, "timestamp", &["t9"], 1);
            rotate(r, "snapshot", &["s9"], 1);
            rotate(r, "targets", &["g9"], 1);
            r.delegations.get_mut("targets").unwrap()[0].keys = Keys::new(&["p9"], 1);
        }),
    ];
    let mut repo = Repo::at_version_5();
    let device = Device::new(&repo);
    assert_eq!(device.refresh(&repo).1, "");
    for (i, (what, change)) in changes.iter().enumerate() {
        change(&mut repo);
        for role in ["root", "timestamp", "snapshot", "targets", ROLE] {
            repo.bump(role);
        }
        repo.publish();
        let version = 6 + i as u64;
        device.with_every_cut(&repo, [2 + i as u64, version, version, version]);
        assert_eq!(code_of(&device.open().1, "2.5.0"), "", "{what}");
    }
    // One that slept through all of it walks the same way.
    let late = Device::new(&repo);
    late.with_every_cut(&repo, [10, 14, 14, 14]);
    // Too few of the old holders: no rotation, whatever the new ones say.
    let mut bad = repo.clone();
    rotate(&mut bad, "root", &["root-7"], 1);
    bad.signers.insert("root".into(), vec![Key::new("root-7")]);
    bad.bump("root");
    bad.publish_root();
    assert_eq!(device.refresh(&bad).1, "root_threshold_trusted");
    assert_eq!(device.open().1.versions(), [10, 14, 14, 14]);
}

/// A firmware update brings a newer root than the stored one, or an old image is put back under newer state.
#[test]
fn factory_root_and_stored_roots_in_either_order() {
    let mut repo = Repo::at_version_5();
    let mut device = Device::new(&repo);
    for version in 2..=6 {
        repo.versions.insert("root".into(), version);
        if version == 4 {
            rotate(&mut repo, "timestamp", &["timestamp-4"], 1);
            rotate(&mut repo, "snapshot", &["snapshot-4"], 1);
        }
        repo.publish_root();
    }
    let mut old = Repo::at_version_5();
    for version in 2..=3 {
        old.files.insert(format!("{version}.root.json"), repo.root(version).to_vec());
    }
    assert_eq!(device.refresh(&old).1, "");
    assert_eq!(device.open().1.versions(), [3, 5, 5, 5]);
    // Newer in the image: it counts, stored roots below it are passed over, and what its keys no longer vouch for is gone.
    for (version, expected) in [(2, [3, 5, 5, 5]), (3, [3, 5, 5, 5]), (5, [5, 0, 0, 0]), (6, [6, 0, 0, 0])] {
        device.factory = repo.root(version).to_vec();
        assert_eq!(device.open().1.versions(), expected, "factory root {version}");
        let twin = device.twin();
        repo.publish();
        twin.with_every_cut(&repo, [6, 5, 5, 5]);
    }
    // Older in the image: the stored chain leads to the newest.
    device.factory = repo.root(1).to_vec();
    assert_eq!(device.refresh(&repo).1, "");
    for version in 1..=6 {
        device.factory = repo.root(version).to_vec();
        assert_eq!(device.open().1.versions(), [6, 5, 5, 5], "factory root {version}");
    }
    // A root of somebody else in the image: nothing stored counts, and it is said.
    let mut other = Repo::new();
    other.top.insert("root".into(), Keys::new(&["other"], 1));
    other.publish();
    device.factory = other.root(1).to_vec();
    let (mut store, trusted) = device.open();
    let said: Vec<String> = store.take_left_out().iter().map(|reason| reason.code.to_string()).collect();
    assert_eq!((trusted.versions()[0], said[0].as_str()), (1, "root_threshold_trusted"));
}

fn stored_name(role: &str) -> String {
    format!("{}.json", hex::encode(&hex::sha256(role.as_bytes())))
}

/// A platform that was given up leaves the folder; what is named stays, and so do all roots.
#[test]
fn roles_that_nobody_names_leave_the_folder() {
    let mut repo = Repo::at_version_5();
    for name in ["old-1", "old-2"] {
        repo.delegate("targets", Delegation::new(name, &["vmetric-agent/*/linux-arm64/*"]));
    }
    repo.delegate("old-1", Delegation::new("below", &["*"]));
    repo.publish();
    let device = Device::new(&repo);
    let (trusted, _) = device.refresh_at(&repo, now(), Goal::All);
    assert_eq!((trusted.files().len(), device.names().len()), (4 + 4, 3 + 4));
    repo.bump("root");
    repo.delegations.get_mut("targets").unwrap().retain(|d| d.name == ROLE);
    for role in ["timestamp", "snapshot", "targets"] {
        repo.bump(role);
    }
    repo.publish();
    // Refused or cut short: nothing is removed.
    let mut broken = repo.clone();
    broken.files.remove("6.targets.json");
    assert_eq!(device.refresh(&broken).1, "targets_missing");
    assert!(device.names().contains(&stored_name("below")));
    // Not ours to remove: what only looks like it.
    for odd in ["notes.txt", "0000.json", &format!("{}.json.bak", "00".repeat(32))] {
        fs::File::create(device.dir.path().join("trust").join(odd)).unwrap();
    }
    let (trusted, code) = device.refresh_at(&repo, now(), Goal::All);
    assert_eq!((code.as_str(), trusted.versions()), ("", [2, 6, 6, 6]));
    let names = device.names();
    for gone in ["old-1", "old-2", "below"] {
        assert!(!names.contains(&stored_name(gone)), "{gone}");
    }
    assert!(names.contains(&stored_name(ROLE)) && names.contains(&"2.root.json".to_string()) && names.contains(&"notes.txt".into()));
    assert_eq!(names.len(), 3 + 1 + 1 + 3);
    assert!(trusted.artifacts().all(|(_, found)| found.is_ok()), "nothing unreachable is listed");
    assert_eq!(trusted.files().len(), 4 + 1);
    // A device that looks for one platform keeps the others' roles as long as they are named.
    let mut repo = Repo::at_version_5();
    repo.delegate("targets", Delegation::new("agent-linux-arm64", &["vmetric-agent/*/linux-arm64/*"]));
    repo.publish();
    let device = Device::new(&repo);
    device.refresh_at(&repo, now(), Goal::All);
    assert_eq!(device.refresh(&repo).1, "");
    assert!(device.names().contains(&stored_name("agent-linux-arm64")));
}
