//! The trust folder: what is stored is verified again, what is damaged is fetched again.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use tempfile::TempDir;
use vmetric::core::hex;
use vmetric::core::reason::Reason;
use vmetric::core::trust::{Goal, Outcome, Trusted};
use vmetric::io::trust_store::{Stopped, TrustStore, load_root_chain};

use crate::trust_repo::*;

fn put(dir: &Path, name: &str, bytes: &[u8]) {
    File::create(dir.join(name)).and_then(|mut file| file.write_all(bytes)).unwrap();
}

fn open(dir: &TempDir, repo: &Repo) -> (TrustStore, Trusted, Vec<String>) {
    let (mut store, trusted) = TrustStore::open(dir.path(), repo.root(1)).unwrap();
    let left_out = store.take_left_out().into_iter().map(|reason| reason.code.to_string()).collect();
    (store, trusted, left_out)
}

fn refresh(store: &TrustStore, trusted: Trusted, repo: &Repo, goal: Goal) -> (Trusted, Result<Outcome, Stopped<Reason>>) {
    store.refresh(trusted, now(), goal, &mut |name, limit| {
        let bytes = repo.files.get(name).cloned();
        assert!(bytes.iter().all(|b| b.len() as u64 <= limit));
        Ok(bytes)
    })
}

/// Root 3, everything else 1, stored.
fn stored() -> (TempDir, Repo) {
    let dir = tempfile::tempdir().unwrap();
    let mut repo = Repo::new();
    for _ in 2..=3 {
        repo.bump("root");
        repo.publish_root();
    }
    let (store, trusted, left_out) = open(&dir, &repo);
    assert_eq!((trusted.versions(), left_out.len()), ([1, 0, 0, 0], 0));
    let (trusted, outcome) = refresh(&store, trusted, &repo, find());
    assert!(outcome.unwrap().complete);
    assert_eq!(trusted.versions(), [3, 1, 1, 1]);
    (dir, repo)
}

fn role_file() -> String {
    format!("{}.json", hex::encode(&hex::sha256(ROLE.as_bytes())))
}

#[test]
fn what_was_trusted_outlives_the_process() {
    let (dir, repo) = stored();
    let mut names: Vec<String> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut expected = ["2.root.json", "3.root.json", "timestamp.json", "snapshot.json", "targets.json", &role_file()];
    expected.sort();
    assert_eq!(names, expected, "the factory root is not copied, names of roles are no file names");
    let (store, trusted, left_out) = open(&dir, &repo);
    assert_eq!((trusted.versions(), left_out.len()), ([3, 1, 1, 1], 0));
    assert!(trusted.find(&TARGET.parse().unwrap()).is_some());
    let (_, outcome) = refresh(&store, trusted, &repo, find());
    assert_eq!(outcome.unwrap().before, [3, 1, 1, 1]);
    assert_eq!(load_root_chain(dir.path(), repo.root(1)).unwrap().versions(), [3, 0, 0, 0]);
    // A newer factory root walks on from where it is.
    assert_eq!(load_root_chain(dir.path(), repo.root(2)).unwrap().versions(), [3, 0, 0, 0]);
    assert_eq!(load_root_chain(dir.path(), repo.root(3)).unwrap().versions(), [3, 0, 0, 0]);
}

/// Every file: deleted, emptied, cut, overwritten, replaced by a folder. The agent starts, says so, and heals.
#[test]
fn damage_is_left_out_and_healed() {
    type Damage = (&'static str, fn(&Path));
    let damages: &[Damage] = &[
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("emptied", |path| drop(File::create(path).unwrap())),
        ("cut", |path| File::options().write(true).open(path).unwrap().set_len(100).unwrap()),
        ("overwritten", |path| File::create(path).unwrap().write_all(&[b'x'; 200_000]).unwrap()),
        ("replaced by a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (what, damage) in damages {
        for (name, versions, found) in [
            ("2.root.json", [1, 1, 1, 1], true),
            ("3.root.json", [2, 1, 1, 1], true),
            ("timestamp.json", [3, 0, 1, 1], true),
            ("snapshot.json", [3, 1, 0, 0], false),
            ("targets.json", [3, 1, 1, 0], false),
            (&role_file(), [3, 1, 1, 1], false),
        ] {
            let (dir, repo) = stored();
            damage(&dir.path().join(name));
            let (store, trusted, left_out) = open(&dir, &repo);
            assert_eq!(trusted.versions(), versions, "{name} {what}");
            assert_eq!(trusted.find(&TARGET.parse().unwrap()).is_some(), found, "{name} {what}");
            assert_eq!(left_out.is_empty() && name != "snapshot.json", *what == "deleted" && name != "snapshot.json", "{name} {what}");
            if *what == "replaced by a folder" {
                fs::remove_dir(dir.path().join(name)).unwrap();
            }
            let (trusted, outcome) = refresh(&store, trusted, &repo, find());
            assert!(outcome.unwrap().complete, "{name} {what}");
            assert_eq!(trusted.versions(), [3, 1, 1, 1]);
            let (_, trusted, left_out) = open(&dir, &repo);
            assert_eq!((trusted.versions(), left_out.len()), ([3, 1, 1, 1], 0), "{name} {what} is healed");
        }
    }
}

/// A tampered folder brings in no key and no artifact.
#[test]
fn a_tampered_folder_is_not_believed() {
    let (dir, repo) = stored();
    let mut evil = Repo::new();
    for (_, keys) in evil.top.iter_mut() {
        *keys = Keys::new(&["evil"], 1);
    }
    evil.build = vec![Key::new("evil-build")];
    evil.versions.insert("root".into(), 4);
    evil.publish();
    put(dir.path(), "4.root.json", evil.root(4));
    let chain = load_root_chain(dir.path(), repo.root(1)).unwrap();
    assert_eq!(chain.versions()[0], 3);
    assert_eq!(chain.all_build_keyids().collect::<Vec<_>>(), [Key::new("build").id]);
    for name in ["timestamp.json", "1.snapshot.json", "1.targets.json"] {
        put(dir.path(), name.trim_start_matches("1."), &evil.files[name]);
    }
    let (_, trusted, left_out) = open(&dir, &repo);
    assert_eq!(trusted.versions(), [3, 0, 0, 0]);
    assert_eq!(left_out, ["root_threshold_trusted", "timestamp_threshold", "snapshot_threshold", "snapshot_missing"]);
    // A valid document in another's place.
    let (dir, repo) = stored();
    put(dir.path(), "targets.json", &repo.files["1.snapshot.json"]);
    put(dir.path(), &role_file(), &repo.files["1.targets.json"]);
    let (_, trusted, left_out) = open(&dir, &repo);
    assert_eq!((trusted.versions(), &left_out[..]), ([3, 1, 1, 0], &["targets_length".to_string()][..]));
}

/// The stored snapshot alone still protects from a rollback.
#[test]
fn a_lost_timestamp_does_not_lose_the_rollback_check() {
    let (dir, mut repo) = stored();
    let old = repo.clone();
    repo.next_release();
    repo.publish();
    let (store, trusted, _) = open(&dir, &repo);
    let _ = refresh(&store, trusted, &repo, find()).1.unwrap();
    fs::remove_file(dir.path().join("timestamp.json")).unwrap();
    let (store, trusted, _) = open(&dir, &repo);
    assert_eq!(trusted.versions(), [3, 0, 2, 2]);
    let (_, outcome) = refresh(&store, trusted, &old, find());
    assert!(matches!(outcome, Err(Stopped::Refused(refusal)) if refusal.code == "timestamp_snapshot_rollback"));
}

#[cfg(unix)]
#[test]
fn a_link_is_not_followed() {
    let (dir, repo) = stored();
    let outside = tempfile::tempdir().unwrap();
    let path = dir.path().join("timestamp.json");
    fs::rename(&path, outside.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("elsewhere"), &path).unwrap();
    let (store, trusted, left_out) = open(&dir, &repo);
    assert_eq!((trusted.versions()[1], &left_out[..]), (0, &["trust_store_read".to_string()][..]));
    // Writing replaces the link, not what it points to.
    put(outside.path(), "elsewhere", b"untouched");
    let _ = refresh(&store, trusted, &repo, find()).1.unwrap();
    assert_eq!(fs::read(outside.path().join("elsewhere")).unwrap(), b"untouched");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

/// A stored rollback is as little use as one on the network: the version that was trusted is gone, but the next refresh
/// goes on from what the folder says, never below what the repository's own snapshot says.
#[test]
fn stored_delegated_roles_are_checked_against_the_snapshot() {
    let (dir, mut repo) = stored();
    let old = repo.files["1.agent-linux-amd64.json"].clone();
    repo.next_release();
    repo.publish();
    let (store, trusted, _) = open(&dir, &repo);
    let _ = refresh(&store, trusted, &repo, find()).1.unwrap();
    put(dir.path(), &role_file(), &old);
    let (store, trusted, left_out) = open(&dir, &repo);
    assert_eq!(left_out, ["delegated_length"]);
    assert_eq!(code(trusted.lookup(&TARGET.parse().unwrap())), "target_not_loaded");
    let (trusted, _) = refresh(&store, trusted, &repo, find());
    assert!(trusted.find(&TARGET.parse().unwrap()).is_some());
}

/// 5.3.11 with the power cut in between: the new root is stored, the removal is not.
#[test]
fn a_rotation_is_not_forgotten_in_a_power_cut() {
    for role in ["timestamp", "snapshot"] {
        let (dir, mut repo) = stored();
        let (store, trusted, _) = open(&dir, &repo);
        repo.versions.insert("timestamp".into(), 9000);
        repo.versions.insert("snapshot".into(), 9000);
        repo.publish();
        let _ = refresh(&store, trusted, &repo, find()).1.unwrap();
        repo.bump("root");
        repo.top.insert(role.into(), Keys::new(&["fresh"], 1));
        repo.versions.insert("timestamp".into(), 2);
        repo.versions.insert("snapshot".into(), 2);
        repo.publish();
        put(dir.path(), "4.root.json", repo.root(4));
        let (store, trusted, left_out) = open(&dir, &repo);
        assert_eq!(trusted.versions(), [4, 0, 0, 0]);
        assert_eq!(left_out[0], format!("{role}_threshold"));
        let (trusted, outcome) = refresh(&store, trusted, &repo, find());
        assert!(outcome.is_ok());
        assert_eq!(trusted.versions(), [4, 2, 2, 1]);
    }
    // Without a power cut the files are removed.
    let (dir, mut repo) = stored();
    let (store, trusted, _) = open(&dir, &repo);
    repo.bump("root");
    repo.top.insert("timestamp".into(), Keys::new(&["fresh"], 1));
    repo.publish();
    repo.files.remove("timestamp.json");
    let (_, outcome) = refresh(&store, trusted, &repo, find());
    assert!(matches!(outcome, Err(Stopped::Refused(refusal)) if refusal.code == "timestamp_missing"));
    assert!(!dir.path().join("timestamp.json").exists() && !dir.path().join("snapshot.json").exists());
    assert!(dir.path().join("4.root.json").exists());
}

/// After each step the folder alone brings a new process to exactly what the old one trusted.
#[test]
fn each_step_is_durable_before_the_next() {
    let (dir, mut repo) = stored();
    repo.next_release();
    repo.bump("root");
    repo.publish();
    let (store, trusted, _) = open(&dir, &repo);
    let mut seen = Vec::new();
    let (_, outcome) = store.refresh(trusted, now(), find(), &mut |name, _| {
        seen.push(TrustStore::open(dir.path(), repo.root(1)).unwrap().1.versions());
        Ok::<_, Reason>(repo.files.get(name).cloned())
    });
    assert!(outcome.unwrap().complete);
    // Asked for: root 4, root 5, timestamp, snapshot, targets, role. Targets 1 is not what snapshot 2 lists.
    let expected = [[3, 1, 1, 1], [4, 1, 1, 1], [4, 1, 1, 1], [4, 2, 1, 1], [4, 2, 2, 0], [4, 2, 2, 2]];
    assert_eq!(seen, expected);
}

#[test]
fn a_failed_fetch_changes_nothing_that_was_trusted() {
    let (dir, mut repo) = stored();
    repo.next_release();
    repo.publish();
    for stop_at in ["4.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let (store, trusted, _) = open(&dir, &repo);
        let before = trusted.versions();
        let (trusted, outcome) = store.refresh(trusted, now(), find(), &mut |name, _| match name {
            _ if name == stop_at => Err(Reason::new("no_contact", "connection refused")),
            _ => Ok(repo.files.get(name).cloned()),
        });
        let Err(Stopped::Fetch(reason)) = outcome else { panic!("{stop_at}") };
        assert_eq!(reason.code, "no_contact");
        assert!(trusted.versions() >= before, "{stop_at}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::new();
    put(dir.path(), "file", b"");
    let (mut store, trusted) = TrustStore::open(&dir.path().join("file"), repo.root(1)).unwrap();
    assert!(!store.take_left_out().is_empty() && store.take_left_out().is_empty());
    let (trusted, outcome) = refresh(&store, trusted, &repo, find());
    assert_eq!(trusted.versions()[0], 1);
    let Err(Stopped::Store(reason)) = outcome else { panic!("stored in a file?") };
    assert_eq!(reason.code, "trust_store_write");
    assert!(reason.detail.contains("check space and permissions"));
    // Only a device without any root has no trust to begin with.
    assert_eq!(TrustStore::open(dir.path(), b"").unwrap_err().code, "metadata_malformed");
    assert_eq!(load_root_chain(dir.path(), b"{}").unwrap_err().code, "metadata_malformed");
    assert_eq!(load_root_chain(&dir.path().join("none"), repo.root(1)).unwrap().versions(), [1, 0, 0, 0]);
}

#[test]
fn a_mirror_stores_every_role() {
    let dir = tempfile::tempdir().unwrap();
    let mut repo = Repo::new();
    for name in ["CON", "../up", "a:b", "Agent-Linux-AMD64"] {
        repo.delegate("targets", Delegation::new(name, &["nothing"]));
    }
    repo.delegate("CON", Delegation::new("below", &["nothing"]));
    repo.publish();
    let (store, trusted, _) = open(&dir, &repo);
    let (trusted, outcome) = refresh(&store, trusted, &repo, Goal::All);
    assert!(outcome.unwrap().left_out.is_empty());
    assert_eq!(trusted.files().len(), 4 + 6);
    let (_, again, left_out) = open(&dir, &repo);
    assert_eq!((again.files().len(), left_out.len(), again.unloaded().len()), (10, 0, 0));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3 + 6);
}
