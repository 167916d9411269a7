//! Whole cycles of the client workflow: walks over several roots, recovery, clocks, what stays after a refusal.

use vmetric::core::reason::Reason;
use vmetric::core::trust::{Fetch, Fetched, Goal, Now, Refresh, Trusted, Want};

use crate::trust_repo::*;

#[test]
fn roots_are_walked_one_by_one() {
    let mut repo = Repo::new();
    let factory = repo.bootstrap();
    for version in 2..=6 {
        repo.bump("root");
        // Every other one rotates the root keys altogether, all on the way are expired.
        repo.expires.insert("root".into(), NOW - DAY);
        if version % 2 == 0 {
            let old = repo.top["root"].keys.clone();
            let names: Vec<String> = (1..=3).map(|i| format!("root-{version}-{i}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            repo.top.insert("root".into(), Keys::new(&names, 2));
            repo.signers.insert("root".into(), old.into_iter().chain(repo.top["root"].keys.clone()).collect());
        } else {
            repo.signers.remove("root");
        }
        if version == 6 {
            repo.expires.remove("root");
        }
        repo.publish_root();
    }
    repo.publish();
    let done = repo.refresh(factory.clone(), now(), find());
    assert_eq!((done.code(), done.trusted.versions()[0]), ("", 6));
    let expected = ["2.root.json", "3.root.json", "4.root.json", "5.root.json", "6.root.json", "7.root.json", "timestamp.json"];
    assert_eq!(done.asked[..7], expected);
    assert_eq!(done.asked[7..], ["1.snapshot.json", "1.targets.json", "1.agent-linux-amd64.json"]);
    assert_eq!(done.persisted.iter().map(|p| p.version).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 1, 1, 1, 1]);
    assert_eq!(done.outcome.before, [1, 0, 0, 0]);
    assert_eq!(done.outcome.after, [6, 1, 1, 1]);
    // A gap ends the walk: an old root is not skipped over, whatever else it would allow.
    let mut gap = repo.clone();
    gap.files.remove("4.root.json");
    let done = gap.refresh(factory.clone(), now(), find());
    assert_eq!((done.code(), done.trusted.versions()[0]), ("root_expired", 3));
    assert_eq!(done.persisted_roles(), ["root", "root"]);
    // And a bad one in the middle keeps what is below it.
    let mut bad = repo.clone();
    bad.files.insert("4.root.json".into(), repo.root(5).to_vec());
    let done = bad.refresh(factory, now(), find());
    assert_eq!((done.code(), done.trusted.versions()[0]), ("root_threshold_trusted", 3));
    let done = repo.refresh(done.trusted, now(), find());
    assert_eq!((done.code(), done.trusted.versions()[0]), ("", 6));
}

#[test]
fn at_most_1024_rotations_in_one_refresh() {
    let mut repo = Repo::new();
    repo.top.insert("root".into(), Keys::new(&["root-1"], 1));
    repo.publish();
    let factory = repo.bootstrap();
    for _ in 0..1100 {
        repo.bump("root");
        repo.publish_root();
    }
    let done = repo.refresh(factory, now(), Goal::TopLevel);
    assert_eq!((done.code(), done.trusted.versions()[0]), ("", 1025));
    let done = repo.refresh(done.trusted, now(), Goal::TopLevel);
    assert_eq!((done.code(), done.trusted.versions()[0]), ("", 1101));
}

#[test]
fn bootstrap_5_2() {
    let repo = Repo::new();
    let root = repo.root(1);
    assert_eq!(repo.bootstrap().versions(), [1, 0, 0, 0]);
    let expired = {
        let mut repo = repo.clone();
        repo.expires.insert("root".into(), 1);
        repo.publish_root();
        repo
    };
    assert_eq!(expired.bootstrap().versions(), [1, 0, 0, 0], "its expiry does not matter");
    let code = |bytes: &[u8]| code(Trusted::bootstrap(bytes));
    assert_eq!(code(b""), "metadata_malformed");
    assert_eq!(code(&root[..root.len() - 2]), "metadata_malformed");
    assert_eq!(code(&repo.files["timestamp.json"]), "metadata_type");
    let text = String::from_utf8(root.to_vec()).unwrap();
    assert_eq!(code(text.replace("2028-01", "2029-01").as_bytes()), "root_not_self_signed");
    let mut weak = repo.clone();
    weak.signers.insert("root".into(), vec![Key::new("root-1"), Key::new("root-1"), Key::new("stranger")]);
    weak.publish_root();
    assert_eq!(code(weak.root(1)), "root_not_self_signed");
}

/// 5.4.3.1: the same version is normal. What we have stays, even if other bytes with that version are signed.
#[test]
fn an_equal_timestamp_changes_nothing() {
    let mut repo = Repo::new();
    let trusted = repo.client(repo.bootstrap());
    let done = repo.refresh(trusted.clone(), now(), find());
    assert_eq!((done.code(), done.persisted.len()), ("", 0));
    assert_eq!(done.asked, ["2.root.json", "timestamp.json"]);
    repo.issued = Some(NOW + DAY);
    repo.bump("snapshot");
    repo.publish();
    let done = repo.refresh(trusted.clone(), now(), find());
    assert_eq!((done.code(), done.persisted.len()), ("", 0));
    assert_eq!(done.trusted.issued(), Some(NOW - DAY));
    assert_eq!(done.trusted.versions(), [1, 1, 1, 1]);
    // But it must be current.
    let late = Now { unix: NOW + 365 * DAY, ..Now::default() };
    repo.expires.insert("root".into(), NOW + 1000 * DAY);
    repo.bump("root");
    repo.publish();
    assert_eq!(repo.refresh(trusted, late, find()).code(), "timestamp_expired");
}

/// 5.3.11. An attacker with the timestamp key sets the version to the highest there is; the new root takes the key away.
#[test]
fn fast_forward_is_recovered_from_by_rotating_a_key() {
    for role in ["timestamp", "snapshot"] {
        let mut repo = Repo::new();
        repo.versions.insert(role.into(), u64::MAX);
        repo.versions.insert("snapshot".into(), u64::MAX);
        repo.publish();
        let trusted = repo.client(repo.bootstrap());
        repo.versions.insert("timestamp".into(), 2);
        repo.versions.insert("snapshot".into(), 2);
        repo.publish();
        let stuck = repo.refresh(trusted, now(), find());
        assert!(stuck.code().ends_with("rollback"), "{}", stuck.code());
        repo.bump("root");
        repo.top.insert(role.into(), Keys::new(&["fresh"], 1));
        repo.publish();
        let done = repo.refresh(stuck.trusted, now(), find());
        assert_eq!((done.code(), &done.trusted.versions()[..3]), ("", &[2, 2, 2][..]), "{role}");
        let removed: Vec<&str> = done.persisted.iter().filter(|p| p.bytes.is_none()).map(|p| p.role.as_str()).collect();
        assert_eq!(removed, ["timestamp", "snapshot"]);
    }
}

/// A key that is only added was in no attacker's hands: the rollback check must survive it.
#[test]
fn an_added_key_drops_nothing() {
    let mut repo = Repo::at_version_5();
    let trusted = repo.client(repo.bootstrap());
    repo.bump("root");
    repo.top.insert("timestamp".into(), Keys::new(&["timestamp", "timestamp-2"], 1));
    repo.versions.insert("timestamp".into(), 4);
    repo.publish();
    assert_eq!(repo.refresh(trusted.clone(), now(), find()).code(), "timestamp_rollback");
    // Unless what is stored no longer reaches its threshold.
    repo.top.insert("timestamp".into(), Keys::new(&["timestamp", "timestamp-2"], 2));
    repo.publish();
    assert_eq!(repo.refresh(trusted, now(), find()).code(), "");
}

/// One of two keys is taken away, and what is stored still reaches its threshold with the other: dropped all the same, as
/// the stolen one may have signed it too.
#[test]
fn a_key_taken_away_drops_what_it_may_have_signed() {
    let mut repo = Repo::new();
    repo.top.insert("timestamp".into(), Keys::new(&["timestamp", "timestamp-2"], 1));
    repo.versions.insert("timestamp".into(), 9000);
    repo.publish();
    let trusted = repo.client(repo.bootstrap());
    repo.versions.insert("timestamp".into(), 2);
    repo.top.insert("timestamp".into(), Keys::new(&["timestamp-2"], 1));
    repo.bump("root");
    repo.publish();
    let done = repo.refresh(trusted, now(), find());
    assert_eq!((done.code(), done.trusted.versions()[1]), ("", 2));
}

/// A stored role that the new metadata still names is not fetched again, but it must be current.
#[test]
fn what_is_held_must_be_current_too() {
    for (role, code) in [("snapshot", "snapshot_expired"), ("targets", "targets_expired"), (ROLE, "delegated_expired")] {
        let mut repo = Repo::new();
        repo.expires.insert(role.into(), NOW + 10 * DAY);
        repo.publish();
        let trusted = repo.client(repo.bootstrap());
        repo.bump("timestamp");
        repo.publish();
        for (days, expected) in [(9, ""), (10, code)] {
            let done = repo.refresh(trusted.clone(), Now { unix: NOW + days * DAY, ..Now::default() }, find());
            assert_eq!((done.code(), done.persisted_roles()), (expected, vec!["timestamp"]), "{role} {days}");
            assert_eq!(done.outcome.complete, expected.is_empty());
        }
    }
}

#[test]
fn rotated_targets_keys_refetch_what_is_stored() {
    let mut repo = Repo::new();
    let trusted = repo.client(repo.bootstrap());
    repo.bump("root");
    repo.top.insert("targets".into(), Keys::new(&["new-targets"], 1));
    // Same versions, no new targets: what is stored is not signed by the keys of today.
    repo.publish_root();
    let done = repo.refresh(trusted.clone(), now(), find());
    assert_eq!(done.code(), "targets_threshold");
    repo.bump("timestamp");
    repo.bump("snapshot");
    repo.bump("targets");
    repo.publish();
    assert_eq!(repo.refresh(trusted, now(), find()).code(), "");
}

#[test]
fn a_refusal_keeps_what_was_valid_before_it() {
    let mut repo = Repo::at_version_5();
    let trusted = repo.client(repo.bootstrap());
    repo.next_release();
    repo.bump("root");
    repo.publish();
    repo.files.remove("6.targets.json");
    let done = repo.refresh(trusted, now(), find());
    assert_eq!((done.code(), done.trusted.versions()), ("targets_missing", [2, 6, 6, 5]));
    assert_eq!(done.persisted_roles(), ["root", "timestamp", "snapshot"]);
    // What is listed no longer agrees with what is held: no artifact until the way is whole again.
    assert_eq!(code(done.trusted.lookup(&TARGET.parse().unwrap())), "target_not_loaded");
    repo.publish();
    let done = repo.refresh(done.trusted, now(), find());
    assert_eq!((done.code(), done.trusted.versions()), ("", [2, 6, 6, 6]));
}

/// Length and hashes in `meta` are optional (4.4, 4.6), and so is consistent_snapshot (6.2).
#[test]
fn repositories_that_say_less() {
    let mut repo = Repo::new();
    repo.hashes = false;
    repo.issued = None;
    repo.bump("root");
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), find());
    assert_eq!((done.code(), done.trusted.issued()), ("", None));
    let mut repo = Repo::new();
    repo.consistent = false;
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), find());
    assert_eq!(done.code(), "");
    assert_eq!(done.asked, ["2.root.json", "timestamp.json", "snapshot.json", "targets.json", "agent-linux-amd64.json"]);
}

#[test]
fn limits_are_known_before_the_fetch() {
    let repo = Repo::new();
    let mut refresh = Refresh::new(repo.bootstrap(), now(), find());
    let mut seen = Vec::new();
    while let Want::Fetch(Fetch { name, limit, optional }) = refresh.want() {
        let bytes = repo.files.get(&name);
        let exact = bytes.map_or(0, |b| b.len() as u64);
        seen.push((name, if limit == exact { 1 } else { limit }, optional));
        let _ = refresh.give(bytes.map_or(Fetched::NotFound, |b| Fetched::Bytes(b)));
    }
    let expected = [
        ("2.root.json", 65_536, true),
        ("timestamp.json", 16_384, false),
        ("1.snapshot.json", 1, false),
        ("1.targets.json", 1, false),
        ("1.agent-linux-amd64.json", 1, false),
    ];
    assert_eq!(seen, expected.map(|(name, limit, optional)| (name.to_string(), limit, optional)));
    assert!(refresh.finish().1.complete);
    // A signed length does not lift the fixed limit.
    let mut huge = Repo::new();
    huge.edit("timestamp", |doc| set(doc, &["meta", "snapshot.json", "length"], "18446744073709551615"));
    huge.publish();
    let mut refresh = Refresh::new(huge.bootstrap(), now(), find());
    refresh.give(Fetched::NotFound).unwrap();
    refresh.give(Fetched::Bytes(&huge.files["timestamp.json"])).unwrap();
    assert!(matches!(refresh.want(), Want::Fetch(Fetch { limit: 65_536, .. })));
}

#[test]
fn clocks() {
    let mut repo = Repo::new();
    repo.expires.insert("timestamp".into(), NOW + 7 * DAY);
    repo.expires.insert("snapshot".into(), NOW + 180 * DAY);
    repo.publish();
    let run = |unix, floor, offline_grace_s| repo.refresh(repo.bootstrap(), Now { unix, floor, offline_grace_s }, find()).code();
    assert_eq!(run(NOW, 0, 0), "");
    assert_eq!(run(0, 0, 0), "", "a device without a clock updates");
    assert_eq!(run(0, NOW + 7 * DAY - 1, 0), "");
    assert_eq!(run(0, NOW + 7 * DAY, 0), "timestamp_expired", "the floor is not fooled by a clock that is behind");
    assert_eq!(run(NOW + 7 * DAY, 0, 0), "timestamp_expired");
    assert_eq!(run(4_070_908_800, 0, 0), "root_expired", "far ahead: everything looks expired");
    // Offline sites: timestamp and snapshot only, and only as long as was said.
    assert_eq!(run(NOW + 30 * DAY, 0, 23 * DAY), "timestamp_expired");
    assert_eq!(run(NOW + 30 * DAY, 0, 23 * DAY + 1), "");
    assert_eq!(run(NOW + 200 * DAY, 0, 193 * DAY + 1), "");
    assert_eq!(run(NOW + 365 * DAY, 0, u64::MAX), "root_expired");
    let mut short = repo.clone();
    short.expires.insert("snapshot".into(), NOW + DAY);
    short.publish();
    let run = |grace| short.refresh(short.bootstrap(), Now { unix: NOW + 2 * DAY, floor: 0, offline_grace_s: grace }, find()).code();
    assert_eq!((run(0), run(DAY), run(DAY + 1)), ("snapshot_expired", "snapshot_expired", ""));
}

#[test]
fn grace_does_not_extend_to_version_checks_or_targets() {
    let mut repo = Repo::at_version_5();
    let trusted = repo.client(repo.bootstrap());
    let late = Now { unix: NOW + DAY, floor: 0, offline_grace_s: 400 * DAY };
    repo.versions.insert("timestamp".into(), 4);
    repo.publish();
    assert_eq!(repo.refresh(trusted.clone(), late, find()).code(), "timestamp_rollback");
    for (role, code) in [("targets", "targets_expired"), (ROLE, "delegated_expired")] {
        let mut repo = Repo::at_version_5();
        repo.next_release();
        repo.expires.insert(role.into(), NOW + DAY);
        repo.publish();
        assert_eq!(repo.refresh(trusted.clone(), late, find()).code(), code);
    }
}

/// A device boots in 1970; a timestamp raises the floor, and what expired before it was signed is refused in the same cycle.
#[test]
fn issued_floors_the_clock() {
    let mut repo = Repo::new();
    repo.expires.insert("snapshot".into(), NOW - 2 * DAY);
    repo.publish();
    assert_eq!(repo.refresh(repo.bootstrap(), Now::default(), find()).code(), "snapshot_expired");
    let repo = Repo::new();
    let trusted = repo.refresh(repo.bootstrap(), Now::default(), find()).trusted;
    assert_eq!(trusted.issued(), Some(NOW - DAY));
    let health = |unix| trusted.check_expiry(&Now { unix, ..Now::default() });
    assert_eq!(health(0), Ok(()));
    assert_eq!(health(NOW + 365 * DAY).unwrap_err().role, "root");
    let reason = Reason::from(health(NOW + 365 * DAY).unwrap_err());
    assert_eq!(reason.code, "root_expired");
    assert_eq!(reason.detail, "root: expired on 2028-01-01T00:00:00Z; it is 2028-01-01T00:00:00Z now, by the clock or by signed times");
}

/// A stolen timestamp key can push the floor into the future. Rotating it cures that in one refresh.
#[test]
fn a_poisoned_floor_is_cured_by_rotating_the_timestamp_key() {
    let mut repo = Repo::new();
    let far = NOW + 3000 * DAY;
    repo.issued = Some(far);
    repo.expires.insert("timestamp".into(), far + DAY);
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), find());
    assert_eq!(done.code(), "snapshot_expired");
    assert_eq!(repo.refresh(done.trusted.clone(), now(), find()).code(), "root_expired");
    repo.issued = Some(NOW);
    repo.expires.remove("timestamp");
    repo.bump("root");
    repo.top.insert("timestamp".into(), Keys::new(&["timestamp-2"], 1));
    repo.publish();
    assert_eq!(repo.refresh(done.trusted, now(), find()).code(), "");
}

#[test]
fn a_mirror_gets_files_in_publication_order() {
    let mut repo = Repo::new();
    repo.delegate("targets", Delegation::new("agent-linux-arm64", &["vmetric-agent/*/linux-arm64/*"]).terminating());
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), Goal::All);
    assert!(done.outcome.complete && done.outcome.left_out.is_empty());
    let files = done.trusted.files();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let expected =
        ["1.root.json", "1.agent-linux-amd64.json", "1.agent-linux-arm64.json", "1.targets.json", "1.snapshot.json", "timestamp.json"];
    assert_eq!(names, expected);
    for (name, bytes) in files {
        assert_eq!(bytes, repo.files[&name]);
    }
}

#[test]
fn build_keys_come_from_the_root() {
    let mut repo = Repo::new();
    repo.build.push(Key::new("build-2"));
    repo.bump("root");
    repo.publish();
    let trusted = repo.client(repo.bootstrap());
    let mut ids = [Key::new("build").id, Key::new("build-2").id];
    ids.sort();
    assert_eq!(trusted.all_build_keyids().collect::<Vec<_>>(), ids);
    assert_eq!(trusted.build_key(&Key::new("build-2").id), Some(Key::new("build-2").pair.pk));
    assert_eq!(trusted.build_key(&Key::new("root-1").id), None, "a metadata key signs no binary");
    // A root without them is valid metadata, it only lets no binary through.
    repo.edit("root", |doc| unset(doc, &["x-vmetric-build-keys"]));
    repo.bump("root");
    repo.publish();
    let trusted = repo.client(trusted);
    assert_eq!(trusted.all_build_keyids().count(), 0);
    let artifact = trusted.find(&TARGET.parse().unwrap()).unwrap();
    assert_eq!(code(trusted.file_check(&artifact)), "build_key_unknown");
}
