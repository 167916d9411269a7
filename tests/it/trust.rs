//! The client workflow of TUF 1.0.34 section 5: every check broken once, refused with its own code, and passing when that
//! one defect is mended. Known bugs of other clients are named at their case.

use miniserde::json::Value;
use vmetric::core::trust::Trusted;

use crate::trust_repo::*;

/// One broken repository. The client trusts version 5 of everything and root 1; `broken` gets version 6 and root 2, not
/// yet published.
struct Case {
    name: &'static str,
    /// The role that is refused, and the code.
    expect: (&'static str, &'static str),
    broken: fn(&mut Repo),
    /// The client starts from its factory root instead.
    fresh: bool,
}

const fn case(name: &'static str, role: &'static str, code: &'static str, broken: fn(&mut Repo)) -> Case {
    Case { name, expect: (role, code), broken, fresh: false }
}

fn check(cases: &[Case]) {
    let start = Repo::at_version_5();
    let trusted = start.client(start.bootstrap());
    let mut good = start.clone();
    good.next_release();
    good.bump("root");
    for case in cases {
        let before = if case.fresh { start.bootstrap() } else { trusted.clone() };
        let mut bad = good.clone();
        (case.broken)(&mut bad);
        let done = bad.refresh(before.clone(), now(), find());
        let refusal = done.outcome.refused.clone().unwrap_or_else(|| panic!("{}: accepted", case.name));
        assert_eq!((refusal.role.as_str(), refusal.code), case.expect, "{}: {refusal}", case.name);
        assert!(!done.outcome.complete, "{}", case.name);
        assert!(!refusal.detail.is_empty() && !refusal.detail.contains('\n'), "{}", case.name);
        // Nothing of the refused document is trusted or persisted (a root that is expired was valid).
        if case.expect.1 != "root_expired" {
            assert!(!done.persisted_roles().contains(&case.expect.0), "{}", case.name);
            assert!(version_of(&done.trusted, case.expect.0) <= version_of(&before, case.expect.0), "{}", case.name);
        }
        // The client is not stuck: without the one defect, and one version later, it goes on from where it is.
        let mut mended = good.clone();
        mended.publish_root();
        for role in ["root", "timestamp", "snapshot", "targets", ROLE] {
            mended.bump(role);
        }
        if done.trusted.versions()[0] == 1 {
            mended.versions.insert("root".into(), 2);
        }
        mended.publish();
        let after = mended.refresh(done.trusted, now(), find());
        assert_eq!(after.code(), "", "{} is mended: {:?}", case.name, after.outcome.refused);
        assert_eq!(after.trusted.versions()[1..], [7, 7, 7], "{}", case.name);
        assert!(after.trusted.find(&TARGET.replace("2.5.0", "2.6.0").parse().unwrap()).is_some(), "{}", case.name);
    }
}

fn version_of(trusted: &Trusted, role: &str) -> u64 {
    let [root, timestamp, snapshot, targets] = trusted.versions();
    match role {
        "root" => root,
        "timestamp" => timestamp,
        "snapshot" => snapshot,
        "targets" => targets,
        // A delegated role shows in what it lists.
        _ => u64::from(trusted.find(&TARGET.replace("2.5.0", "2.6.0").parse().unwrap()).is_some()),
    }
}

fn signers(repo: &mut Repo, role: &str, keys: &[&str]) {
    repo.signers.insert(role.into(), keys.iter().map(|k| Key::new(k)).collect());
    repo.publish();
}

fn edited(repo: &mut Repo, role: &str, edit: fn(&mut Value)) {
    repo.edit(role, edit);
    repo.publish();
}

/// One more space at the end: canonical JSON and signatures stay good, length and hash do not.
fn longer(repo: &mut Repo, role: &str) {
    repo.publish();
    let name = repo.file(role);
    repo.files.get_mut(&name).unwrap().push(b' ');
}

/// Other bytes of the same length and meaning: a space moves from the end to the front.
fn swapped(repo: &mut Repo, role: &str) {
    repo.publish();
    let name = repo.file(role);
    let bytes = repo.files.get_mut(&name).unwrap();
    bytes.rotate_right(1);
    assert!(bytes.starts_with(b"\n{"));
}

fn missing(repo: &mut Repo, role: &str) {
    repo.publish();
    let name = repo.file(role);
    repo.files.remove(&name).unwrap();
}

fn padded(repo: &mut Repo, role: &str, length: usize) {
    repo.edit(role, move |doc| set(doc, &["padding"], &quote(&"x".repeat(length))));
    repo.publish();
}

/// The key of `role` under two ids, both signing, with a threshold of 2 (GHSA-3633-5h82-39pq, GO-2022-1004).
fn one_key_twice(repo: &mut Repo, role: &'static str) {
    repo.edit("root", move |doc| {
        let key = Key::new(role);
        let value = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, key.public());
        set(doc, &["keys", "zz"], &value);
        set(doc, &["roles", role, "keyids"], &format!(r#"["{}","zz"]"#, key.id));
        set(doc, &["roles", role, "threshold"], "2");
    });
    let (first, mut second) = (Key::new(role), Key::new(role));
    second.id = "zz".into();
    repo.signers.insert(role.into(), vec![first, second]);
    repo.publish();
}

#[test]
fn root_5_3() {
    check(&[
        case("arbitrary install: too few of the trusted keys", "root", "root_threshold_trusted", |r| signers(r, "root", &["root-1"])),
        case("key compromise: only keys that nobody trusts yet", "root", "root_threshold_trusted", |r| {
            r.top.insert("root".into(), Keys::new(&["new-1", "new-2"], 2));
            r.publish();
        }),
        case("CVE-2020-15163: not signed by its own keys", "root", "root_threshold_new", |r| {
            r.top.insert("root".into(), Keys::new(&["root-1", "new-2"], 2));
            signers(r, "root", &["root-1", "root-2"]);
        }),
        case("CVE-2020-6174: one signature twice", "root", "root_threshold_trusted", |r| signers(r, "root", &["root-1", "root-1"])),
        case("GMS-2022-4197: its own threshold by one key twice", "root", "root_threshold_new", |r| {
            r.top.insert("root".into(), Keys::new(&["root-1", "root-2", "root-3"], 3));
            signers(r, "root", &["root-1", "root-2", "root-2", "root-1"]);
        }),
        case("GHSA-3633-5h82-39pq: one key under two ids, in itself", "root", "root_threshold_new", |r| {
            r.edit("root", |doc| {
                let key = Key::new("root-1");
                let value = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, key.public());
                set(doc, &["keys", "zz"], &value);
                set(doc, &["roles", "root", "keyids"], &format!(r#"["{}","zz"]"#, key.id));
            });
            let mut twin = Key::new("root-1");
            twin.id = "zz".into();
            r.signers.insert("root".into(), vec![Key::new("root-1"), Key::new("root-2"), twin]);
            r.publish();
        }),
        case("CVE-2025-2885: a version is skipped", "root", "root_version", |r| {
            r.bump("root");
            r.publish();
            let bytes = r.files.remove("3.root.json").unwrap();
            r.files.insert("2.root.json".into(), bytes);
        }),
        case("rollback: the version does not rise", "root", "root_version", |r| edited(r, "root", |doc| set(doc, &["version"], "1"))),
        case("endless data", "root", "metadata_too_long", |r| padded(r, "root", 70_000)),
        case("freeze: the last root is expired", "root", "root_expired", |r| {
            r.expires.insert("root".into(), NOW);
            r.publish();
        }),
    ]);
}

#[test]
fn timestamp_5_4() {
    check(&[
        case("it is not there", "timestamp", "timestamp_missing", |r| missing(r, "timestamp")),
        case("endless data", "timestamp", "metadata_too_long", |r| padded(r, "timestamp", 17_000)),
        case("arbitrary install: signed by another role", "timestamp", "timestamp_threshold", |r| signers(r, "timestamp", &["snapshot"])),
        case("not signed", "timestamp", "timestamp_threshold", |r| signers(r, "timestamp", &[])),
        case("CVE-2020-15093: one signature twice", "timestamp", "timestamp_threshold", |r| {
            r.top.insert("timestamp".into(), Keys::new(&["timestamp", "timestamp-2"], 2));
            signers(r, "timestamp", &["timestamp", "timestamp"]);
        }),
        case("GO-2022-1004: one key under two ids", "timestamp", "timestamp_threshold", |r| one_key_twice(r, "timestamp")),
        case("CVE-2022-29173: rollback", "timestamp", "timestamp_rollback", |r| {
            r.versions.insert("timestamp".into(), 4);
            r.publish();
        }),
        case("CVE-2025-2888: its snapshot falls", "timestamp", "timestamp_snapshot_rollback", |r| {
            r.versions.insert("snapshot".into(), 4);
            r.publish();
        }),
        case("freeze", "timestamp", "timestamp_expired", |r| {
            r.expires.insert("timestamp".into(), NOW);
            r.publish();
        }),
        case("a clock that its signer did not believe", "timestamp", "timestamp_issued", |r| {
            r.issued = Some(NOW + 366 * DAY);
            r.publish();
        }),
        case("no time", "timestamp", "metadata_time", |r| edited(r, "timestamp", |doc| set(doc, &["issued"], "\"now\""))),
        case("only hashes that nobody can check", "timestamp", "metadata_no_known_hash", |r| {
            edited(r, "timestamp", |doc| set(doc, &["meta", "snapshot.json", "hashes"], r#"{"md5":"00"}"#));
        }),
        case("no hash in the list of hashes", "timestamp", "metadata_no_known_hash", |r| {
            edited(r, "timestamp", |doc| set(doc, &["meta", "snapshot.json", "hashes"], "{}"));
        }),
        case("a hash with another spelling", "timestamp", "metadata_shape", |r| {
            edited(r, "timestamp", |doc| set(doc, &["meta", "snapshot.json", "hashes", "sha256"], &quote(&"AB".repeat(32))));
        }),
        case("no snapshot", "timestamp", "metadata_shape", |r| edited(r, "timestamp", |doc| set(doc, &["meta"], "{}"))),
        case("snapshot version 0", "timestamp", "metadata_version_zero", |r| {
            edited(r, "timestamp", |doc| set(doc, &["meta", "snapshot.json", "version"], "0"));
        }),
    ]);
}

#[test]
fn snapshot_5_5() {
    check(&[
        case("it is not there", "snapshot", "snapshot_missing", |r| missing(r, "snapshot")),
        case("endless data", "snapshot", "metadata_too_long", |r| padded(r, "snapshot", 70_000)),
        case("longer than signed", "snapshot", "snapshot_length", |r| longer(r, "snapshot")),
        case("other bytes than signed", "snapshot", "snapshot_hash", |r| swapped(r, "snapshot")),
        case("a SHA-512 that does not match", "snapshot", "snapshot_hash", |r| {
            edited(r, "timestamp", |doc| set(doc, &["meta", "snapshot.json", "hashes", "sha512"], &quote(&"00".repeat(64))));
        }),
        case("arbitrary install", "snapshot", "snapshot_threshold", |r| signers(r, "snapshot", &["timestamp"])),
        case("one key under two ids", "snapshot", "snapshot_threshold", |r| one_key_twice(r, "snapshot")),
        case("mix-and-match: another version than the timestamp's", "snapshot", "snapshot_version", |r| {
            edited(r, "snapshot", |doc| set(doc, &["version"], "7"));
        }),
        case("CVE-2025-2887: a delegated role vanishes", "snapshot", "snapshot_role_removed", |r| {
            edited(r, "snapshot", |doc| unset(doc, &["meta", "agent-linux-amd64.json"]));
        }),
        case("targets vanishes", "snapshot", "snapshot_role_removed", |r| {
            edited(r, "snapshot", |doc| unset(doc, &["meta", "targets.json"]));
        }),
        case("CVE-2025-2887: a delegated role falls", "snapshot", "snapshot_role_rollback", |r| {
            r.versions.insert(ROLE.into(), 4);
            r.publish();
        }),
        case("CVE-2022-29173: targets falls", "snapshot", "snapshot_role_rollback", |r| {
            r.versions.insert("targets".into(), 4);
            r.publish();
        }),
        case("freeze", "snapshot", "snapshot_expired", |r| {
            r.expires.insert("snapshot".into(), NOW);
            r.publish();
        }),
    ]);
}

#[test]
fn targets_5_6() {
    check(&[
        Case {
            name: "the snapshot does not list it",
            expect: ("targets", "snapshot_role_unlisted"),
            broken: |r| edited(r, "snapshot", |doc| unset(doc, &["meta", "targets.json"])),
            fresh: true,
        },
        case("it is not there", "targets", "targets_missing", |r| missing(r, "targets")),
        case("endless data", "targets", "metadata_too_long", |r| padded(r, "targets", 140_000)),
        case("longer than signed", "targets", "targets_length", |r| longer(r, "targets")),
        case("other bytes than signed", "targets", "targets_hash", |r| swapped(r, "targets")),
        case("arbitrary install", "targets", "targets_threshold", |r| signers(r, "targets", &[ROLE])),
        case("one key under two ids", "targets", "targets_threshold", |r| one_key_twice(r, "targets")),
        case("mix-and-match", "targets", "targets_version", |r| edited(r, "targets", |doc| set(doc, &["version"], "7"))),
        case("freeze", "targets", "targets_expired", |r| {
            r.expires.insert("targets".into(), NOW);
            r.publish();
        }),
        case("a target without hashes", "targets", "metadata_shape", |r| {
            edited(r, "targets", |doc| set(doc, &["targets", "a"], r#"{"length":1}"#));
        }),
        case("a target with hashes that nobody can check", "targets", "metadata_no_known_hash", |r| {
            edited(r, "targets", |doc| set(doc, &["targets", "a"], r#"{"hashes":{"md5":"00"},"length":1}"#));
        }),
        case("no targets", "targets", "metadata_shape", |r| edited(r, "targets", |doc| unset(doc, &["targets"]))),
    ]);
}

#[test]
fn delegated_5_6_7() {
    check(&[
        Case {
            name: "the snapshot does not list it",
            expect: (ROLE, "snapshot_role_unlisted"),
            broken: |r| edited(r, "snapshot", |doc| unset(doc, &["meta", "agent-linux-amd64.json"])),
            fresh: true,
        },
        case("it is not there", ROLE, "delegated_missing", |r| missing(r, ROLE)),
        case("endless data", ROLE, "metadata_too_long", |r| padded(r, ROLE, 140_000)),
        case("CVE-2026-6967: longer than signed", ROLE, "delegated_length", |r| longer(r, ROLE)),
        case("CVE-2026-6967: other bytes than signed", ROLE, "delegated_hash", |r| swapped(r, ROLE)),
        case("CVE-2026-6967: freeze", ROLE, "delegated_expired", |r| {
            r.expires.insert(ROLE.into(), NOW);
            r.publish();
        }),
        case("arbitrary install: signed by its delegator", ROLE, "delegated_threshold", |r| signers(r, ROLE, &["targets"])),
        case("CVE-2026-6966: one signature twice", ROLE, "delegated_threshold", |r| {
            r.delegations.get_mut("targets").unwrap()[0].keys = Keys::new(&[ROLE, "second"], 2);
            signers(r, ROLE, &[ROLE, ROLE]);
        }),
        case("one key under two ids", ROLE, "delegated_threshold", |r| {
            r.edit("targets", |doc| {
                let key = Key::new(ROLE);
                let value = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, key.public());
                set(doc, &["delegations", "keys", "zz"], &value);
                set(doc, &["delegations", "roles", "0", "keyids"], &format!(r#"["{}","zz"]"#, key.id));
                set(doc, &["delegations", "roles", "0", "threshold"], "2");
            });
            let mut twin = Key::new(ROLE);
            twin.id = "zz".into();
            r.signers.insert(ROLE.into(), vec![Key::new(ROLE), twin]);
            r.publish();
        }),
        case("mix-and-match", ROLE, "delegated_version", |r| edited(r, ROLE, |doc| set(doc, &["version"], "7"))),
        case("a top-level role in its place", ROLE, "metadata_type", |r| edited(r, ROLE, |doc| set(doc, &["_type"], "\"snapshot\""))),
        case("a threshold of 0", "targets", "metadata_threshold_zero", |r| {
            edited(r, "targets", |doc| set(doc, &["delegations", "roles", "0", "threshold"], "0"));
        }),
        case("the same role twice", "targets", "delegation_twice", |r| {
            r.delegate("targets", Delegation::new(ROLE, &["*"]));
            r.publish();
        }),
        case("neither paths nor prefixes", "targets", "delegation_patterns", |r| {
            edited(r, "targets", |doc| unset(doc, &["delegations", "roles", "0", "paths"]));
        }),
        case("paths and prefixes", "targets", "delegation_patterns", |r| {
            edited(r, "targets", |doc| set(doc, &["delegations", "roles", "0", "path_hash_prefixes"], "[\"\"]"));
        }),
        case("no 'terminating'", "targets", "metadata_shape", |r| {
            edited(r, "targets", |doc| unset(doc, &["delegations", "roles", "0", "terminating"]));
        }),
    ]);
    for name in ["root", "timestamp", "snapshot", "targets", ""] {
        let mut repo = Repo::new();
        repo.delegate("targets", Delegation::new(name, &["*"]));
        repo.targets.remove(name);
        repo.publish();
        let done = repo.refresh(repo.bootstrap(), now(), find());
        assert_eq!(done.code(), "delegation_reserved", "{name}");
    }
}

/// The fields that every role has, broken in every role.
#[test]
fn common_fields_4_2_1() {
    type Break = (&'static str, fn(&mut Value));
    let breaks: &[Break] = &[
        ("metadata_type", |doc| set(doc, &["_type"], "\"mirrors\"")),
        ("metadata_shape", |doc| set(doc, &["_type"], "1")),
        ("metadata_spec_version", |doc| set(doc, &["spec_version"], "\"2.0.0\"")),
        ("metadata_spec_version", |doc| set(doc, &["spec_version"], "\"10.0.0\"")),
        ("metadata_spec_version", |doc| set(doc, &["spec_version"], "\"\"")),
        ("metadata_version_zero", |doc| set(doc, &["version"], "0")),
        ("metadata_shape", |doc| set(doc, &["version"], "-1")),
        ("metadata_shape", |doc| set(doc, &["version"], TOO_BIG)),
        ("metadata_shape", |doc| unset(doc, &["expires"])),
        ("metadata_time", |doc| set(doc, &["expires"], "\"2027-06-01\"")),
        ("metadata_time", |doc| set(doc, &["expires"], "\"2027-06-01T00:00:00.000Z\"")),
    ];
    for role in ["root", "timestamp", "snapshot", "targets", ROLE] {
        for (i, (code, edit)) in breaks.iter().enumerate() {
            let mut repo = Repo::at_version_5();
            let trusted = repo.client(repo.bootstrap());
            repo.next_release();
            repo.bump("root");
            let mut bad = repo.clone();
            bad.edit(role, edit);
            bad.publish();
            let done = bad.refresh(trusted, now(), find());
            assert_eq!(done.code(), *code, "{role} {i}");
            assert!(!done.persisted_roles().contains(&role), "{role} {i}");
        }
    }
}

#[test]
fn thresholds_below_one_disable_nothing() {
    for role in ["root", "timestamp", "snapshot", "targets"] {
        for threshold in ["0", "-1", "-9223372036854775808"] {
            let mut repo = Repo::new();
            let trusted = repo.bootstrap();
            repo.bump("root");
            repo.edit("root", move |doc| set(doc, &["roles", role, "threshold"], threshold));
            repo.publish();
            assert_eq!(repo.refresh(trusted, now(), find()).code(), "metadata_threshold_zero", "{role} {threshold}");
        }
        // So high that nobody can reach it: not an overflow that everybody reaches.
        for threshold in ["4294967297", "9223372036854775807"] {
            let mut repo = Repo::new();
            repo.bump("root");
            repo.edit("root", move |doc| set(doc, &["roles", role, "threshold"], threshold));
            repo.publish();
            let code = repo.refresh(repo.bootstrap(), now(), find()).code();
            assert!(code.ends_with("_threshold") || code == "root_threshold_new" || code == "metadata_threshold_zero", "{role} {code}");
        }
    }
}

#[test]
fn signatures_that_do_not_count_do_no_harm() {
    let mut repo = Repo::new();
    let stranger = Key::new("stranger");
    let mut renamed = Key::new("timestamp");
    renamed.id = "not a listed id".into();
    repo.signers.insert("timestamp".into(), vec![stranger.clone(), renamed.clone()]);
    repo.publish();
    assert_eq!(repo.refresh(repo.bootstrap(), now(), find()).code(), "timestamp_threshold");
    repo.signers.insert("timestamp".into(), vec![stranger, renamed, Key::new("timestamp")]);
    repo.publish();
    repo.client(repo.bootstrap());
    // A signature that is no hexadecimal, and one of another scheme, beside a good one.
    let text = String::from_utf8(repo.files["timestamp.json"].clone()).unwrap();
    let odd = text.replacen(r#"{"signatures":["#, r#"{"signatures":[{"keyid":"x","sig":"-----BEGIN"},{"keyid":"","sig":""},"#, 1);
    repo.files.insert("timestamp.json".into(), odd.into_bytes());
    repo.client(repo.bootstrap());
    // At most 64, with the three that are there: each costs a pass (CVE-2020-6173).
    for (n, code) in [(61, ""), (62, "metadata_signatures")] {
        let many = text.replacen(r#"{"signatures":["#, &format!(r#"{{"signatures":[{}"#, r#"{"keyid":"","sig":""},"#.repeat(n)), 1);
        repo.files.insert("timestamp.json".into(), many.into_bytes());
        assert_eq!(repo.refresh(repo.bootstrap(), now(), find()).code(), code);
    }
}

/// A key listed but of another kind never counts, and does not make the root unreadable.
#[test]
fn other_kinds_of_keys_never_count() {
    for (field, value) in [("keytype", "\"rsa\""), ("scheme", "\"ed25519ph\""), ("keyval", r#"{"public":"-----BEGIN PUBLIC KEY-----"}"#)] {
        let mut repo = Repo::new();
        let trusted = repo.bootstrap();
        repo.bump("root");
        let id = Key::new("timestamp").id;
        repo.edit("root", move |doc| set(doc, &["keys", &id, field], value));
        repo.publish();
        let done = repo.refresh(trusted, now(), find());
        assert_eq!((done.code(), done.trusted.versions()[0]), ("timestamp_threshold", 2), "{field}");
    }
}
