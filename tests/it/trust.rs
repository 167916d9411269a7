//! The client workflow of TUF 1.0.34 section 5: every check broken once, refused with its own code, and passing when that
//! one defect is mended. Known bugs of other clients are named at their case.

use miniserde::json::Value;
use vmetric::core::reason::Reason;
use vmetric::core::trust::{Fetch, Fetched, Goal, Now, Refresh, Trusted, Want};

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

fn at_version_5() -> Repo {
    let mut repo = Repo::new();
    for role in ["timestamp", "snapshot", "targets", ROLE] {
        repo.versions.insert(role.into(), 5);
    }
    repo.publish();
    repo
}

fn check(cases: &[Case]) {
    let start = at_version_5();
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
            let mut repo = at_version_5();
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
    let mut repo = at_version_5();
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
    let mut repo = at_version_5();
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
    let mut repo = at_version_5();
    let trusted = repo.client(repo.bootstrap());
    let late = Now { unix: NOW + DAY, floor: 0, offline_grace_s: 400 * DAY };
    repo.versions.insert("timestamp".into(), 4);
    repo.publish();
    assert_eq!(repo.refresh(trusted.clone(), late, find()).code(), "timestamp_rollback");
    for (role, code) in [("targets", "targets_expired"), (ROLE, "delegated_expired")] {
        let mut repo = at_version_5();
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
