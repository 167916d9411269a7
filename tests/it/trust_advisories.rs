//! Every bug that TUF clients really had, each as a case of its own that fails when our check is taken out.
//!
//! | advisory | whose | case |
//! |---|---|---|
//! | CVE-2020-15163 | python-tuf | `a_root_that_its_own_keys_did_not_sign_is_never_trusted` |
//! | CVE-2020-6174, CVE-2020-15093, RUSTSEC-2020-0024 | python-tuf, tough | `a_signature_counts_once` |
//! | GMS-2022-4197 | python-tuf | `a_new_roots_own_threshold_counts_a_key_once` |
//! | CVE-2026-6966 | tough | `a_signature_counts_once_in_delegated_roles` |
//! | GHSA-3633-5h82-39pq, GO-2022-1004 | go-tuf | `a_key_under_two_ids_counts_once` |
//! | CVE-2026-23992, GHSA-fphv-w9fq-2525 | go-tuf | `a_threshold_below_one_is_refused` |
//! | CVE-2026-23991, GHSA-846p-jg2w-w324 | go-tuf | `a_wrong_shape_without_a_signature_is_an_answer` |
//! | CVE-2020-6173 | python-tuf | `work_is_bounded` |
//! | CVE-2022-29173, GHSA-66x3-6cw3-v5gj | go-tuf | `nothing_rolls_back` |
//! | CVE-2025-2885, GHSA-5vmp-m5v2-hx47 | tough | `a_root_is_exactly_one_version_higher` |
//! | CVE-2025-2886 | tough | `a_terminating_delegation_ends_the_search` |
//! | CVE-2025-2887 | tough | `a_delegated_role_neither_rolls_back_nor_vanishes` |
//! | CVE-2025-2888 | tough | `a_timestamp_is_kept_only_after_its_snapshot_version_was_checked` |
//! | tough <0.20 | tough | `a_cycle_of_delegations_ends` |
//! | CVE-2026-6967 | tough | `a_delegated_role_has_expiry_hash_and_length` |
//! | CVE-2024-47534, GHSA-4f8r-qqr9-fq8j | go-tuf | `the_search_goes_depth_first` |
//! | go-tuf #759, python-tuf #2977 | both | `a_role_is_verified_under_each_delegator` |
//! | GHSA-qp9x-wp8f-qgjj | python-tuf | `patterns_know_upper_and_lower_case` |
//! | CVE-2021-41131, CVE-2021-41150 | python-tuf, tough | `a_role_name_is_no_file_name` |
//! | CVE-2021-41149, CVE-2026-6968 | tough | `a_target_name_or_link_leads_nowhere` |
//! | CVE-2026-24686, GHSA-jqc5-w2xx-5vq4 | go-tuf | `a_repository_address_names_no_folder` |
//! | delegation named like a top-level role | several | `a_delegation_cannot_have_a_top_level_name` |
//! | RUSTSEC-2022-0093 | ed25519-dalek | `a_key_file_with_another_public_half_signs_nothing` |
//!
//! What else attackers try:
//!
//! | attack | case |
//! |---|---|
//! | 2^32 signatures | `signatures_without_end_cost_nothing` |
//! | a deleted or truncated role at every step | `a_role_deleted_or_cut_at_every_step` |
//! | endless bodies (slow ones: `http_client`) | `a_body_without_end_is_cut` |
//! | a symlink where a file is expected | `a_link_is_no_file` |
//! | names with `..`, `\`, drive letters, percent signs, reserved names | `names_of_artifacts_are_plain` |

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use vmetric::core::reason::Reason;
use vmetric::core::release::TargetPath;
use vmetric::core::trust::{Goal, Outcome, Refresh, SIGNATURES_MAX, Trusted, Want};
use vmetric::io::trust_store::{Stopped, TrustStore};
use vmetric::release::cli::{self, World};

use crate::release_bench::Bench;
use crate::trust_repo::*;

/// What TRUST lists, in its order. The table above must have each, once, with a test of this file.
const ADVISORIES: [&str; 38] = [
    "CVE-2020-15163",
    "CVE-2020-6174",
    "CVE-2020-15093",
    "RUSTSEC-2020-0024",
    "GMS-2022-4197",
    "CVE-2026-6966",
    "GHSA-3633-5h82-39pq",
    "GO-2022-1004",
    "CVE-2026-23992",
    "GHSA-fphv-w9fq-2525",
    "CVE-2026-23991",
    "GHSA-846p-jg2w-w324",
    "CVE-2020-6173",
    "CVE-2022-29173",
    "GHSA-66x3-6cw3-v5gj",
    "CVE-2025-2885",
    "GHSA-5vmp-m5v2-hx47",
    "CVE-2025-2886",
    "CVE-2025-2887",
    "CVE-2025-2888",
    "tough <0.20",
    "CVE-2026-6967",
    "CVE-2024-47534",
    "GHSA-4f8r-qqr9-fq8j",
    "go-tuf #759",
    "python-tuf #2977",
    "GHSA-qp9x-wp8f-qgjj",
    "CVE-2021-41131",
    "CVE-2021-41150",
    "CVE-2021-41149",
    "CVE-2026-6968",
    "CVE-2026-24686",
    "GHSA-jqc5-w2xx-5vq4",
    "delegation named like a top-level role",
    "RUSTSEC-2022-0093",
    "2^32 signatures",
    "a deleted or truncated role at every step",
    "a symlink where a file is expected",
];

#[test]
fn every_advisory_has_its_case() {
    let source = include_str!("trust_advisories.rs");
    let rows: Vec<Vec<&str>> = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|row| row.trim_end_matches('|').split(" | ").map(str::trim).collect())
        .filter(|row: &Vec<&str>| row.last().is_some_and(|case| case.starts_with('`')))
        .collect();
    let named: Vec<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    for advisory in ADVISORIES {
        // An endless row of names is no name.
        assert_eq!(named.iter().filter(|name| **name == advisory).count(), 1, "{advisory}");
    }
    let mut cases: Vec<&str> = rows.iter().map(|row| row[row.len() - 1].trim_matches('`')).collect();
    for case in &cases {
        assert!(source.contains(&format!("#[test]\nfn {case}() {{")), "there is no test '{case}'");
    }
    let tests = source.split("\n#[test]\nfn ").skip(1).filter_map(|rest| rest.split_once("()")).map(|(name, _)| name);
    let mut tests: Vec<&str> = tests.filter(|name| *name != "every_advisory_has_its_case").collect();
    cases.sort_unstable();
    tests.sort_unstable();
    assert_eq!(cases, tests, "a test without an advisory, or a case twice");
}

const TOP: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

fn set_version(repo: &mut Repo, role: &str, version: u64) {
    repo.versions.insert(role.into(), version);
}

fn signed_by(repo: &mut Repo, role: &str, keys: Vec<Key>) {
    repo.signers.insert(role.into(), keys);
}

/// The refusal of a client at version 5, on a repository at version 6 and root 2 that `broken` has touched.
fn refused(broken: impl FnOnce(&mut Repo)) -> &'static str {
    let start = Repo::at_version_5();
    let trusted = start.client(start.bootstrap());
    let mut repo = start.clone();
    repo.next_release();
    repo.bump("root");
    broken(&mut repo);
    repo.publish();
    let done = repo.refresh(trusted, now(), find());
    assert_eq!(done.outcome.complete, done.code().is_empty());
    done.code()
}

/// Keys of a role: in the root, or in the delegation.
fn set_keys(repo: &mut Repo, role: &str, keys: Keys) {
    match repo.delegations.values_mut().flatten().find(|d| d.name == role) {
        Some(delegation) => delegation.keys = keys,
        None => drop(repo.top.insert(role.into(), keys)),
    }
}

fn code_of(role: &str) -> String {
    match role {
        "root" => "root_threshold_trusted".into(),
        ROLE => "delegated_threshold".into(),
        top => format!("{top}_threshold"),
    }
}

/// Each role but the root: keys "a" and "b" with a threshold of 2, signed by `signers`.
fn two_of_two(role: &'static str, signers: fn() -> Vec<Key>) -> &'static str {
    refused(|repo| {
        set_keys(repo, role, Keys::new(&["a", "b"], 2));
        signed_by(repo, role, signers());
    })
}

#[test]
fn a_root_that_its_own_keys_did_not_sign_is_never_trusted() {
    let start = Repo::new();
    let dir = tempfile::tempdir().unwrap();
    let mut evil = start.clone();
    evil.bump("root");
    evil.top.insert("root".into(), Keys::new(&["root-1", "evil"], 2));
    evil.top.insert("timestamp".into(), Keys::new(&["evil"], 1));
    signed_by(&mut evil, "root", vec![Key::new("root-1"), Key::new("root-2")]);
    evil.bump("timestamp");
    evil.publish();
    for _ in 0..2 {
        let (trusted, outcome) = stored(&dir, &start, &evil, find());
        assert!(matches!(outcome, Err(Stopped::Refused(refusal)) if refusal.code == "root_threshold_new"));
        assert_eq!(trusted.versions(), [1, 0, 0, 0], "nothing of it stays, in memory or in the folder");
    }
    // What only its keys signed is no timestamp either.
    evil.files.remove("2.root.json");
    let (_, outcome) = stored(&dir, &start, &evil, find());
    assert!(matches!(outcome, Err(Stopped::Refused(refusal)) if refusal.code == "timestamp_threshold"));
}

#[test]
fn a_signature_counts_once() {
    assert_eq!(refused(|repo| signed_by(repo, "root", vec![Key::new("root-1"), Key::new("root-1")])), "root_threshold_trusted");
    for role in ["timestamp", "snapshot", "targets"] {
        assert_eq!(two_of_two(role, || vec![Key::new("a"), Key::new("a")]), code_of(role));
        assert_eq!(two_of_two(role, || vec![Key::new("a"), Key::new("b")]), "", "{role}: two keys are two");
    }
}

#[test]
fn a_new_roots_own_threshold_counts_a_key_once() {
    let root = |signers: &'static [&'static str]| {
        refused(move |repo| {
            set_keys(repo, "root", Keys::new(&["root-1", "root-2", "root-3"], 3));
            signed_by(repo, "root", signers.iter().map(|name| Key::new(name)).collect());
        })
    };
    assert_eq!(root(&["root-1", "root-2", "root-2"]), "root_threshold_new");
    assert_eq!(root(&["root-1", "root-2", "root-3"]), "");
}

#[test]
fn a_signature_counts_once_in_delegated_roles() {
    assert_eq!(two_of_two(ROLE, || vec![Key::new("a"), Key::new("a")]), "delegated_threshold");
    assert_eq!(two_of_two(ROLE, || vec![Key::new("a"), Key::new("b")]), "");
}

#[test]
fn a_key_under_two_ids_counts_once() {
    let twin = |name: &str| Key { id: "zz".into(), ..Key::new(name) };
    let value = |key: &Key| format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, key.public());
    for role in ["timestamp", "snapshot", "targets"] {
        let code = refused(|repo| {
            repo.edit("root", move |doc| {
                let key = Key::new(role);
                set(doc, &["keys", "zz"], &value(&key));
                set(doc, &["roles", role], &format!(r#"{{"keyids":["{}","zz"],"threshold":2}}"#, key.id));
            });
            signed_by(repo, role, vec![Key::new(role), twin(role)]);
        });
        assert_eq!(code, code_of(role));
    }
    let code = refused(|repo| {
        repo.edit("root", move |doc| {
            let key = Key::new("root-1");
            set(doc, &["keys", "zz"], &value(&key));
            set(doc, &["roles", "root"], &format!(r#"{{"keyids":["{}","zz"],"threshold":2}}"#, key.id));
        });
        signed_by(repo, "root", vec![Key::new("root-1"), Key::new("root-2"), twin("root-1")]);
    });
    assert_eq!(code, "root_threshold_new");
    let code = refused(|repo| {
        repo.edit("targets", move |doc| {
            let key = Key::new(ROLE);
            set(doc, &["delegations", "keys", "zz"], &value(&key));
            set(doc, &["delegations", "roles", "0", "keyids"], &format!(r#"["{}","zz"]"#, key.id));
            set(doc, &["delegations", "roles", "0", "threshold"], "2");
        });
        signed_by(repo, ROLE, vec![Key::new(ROLE), twin(ROLE)]);
    });
    assert_eq!(code, "delegated_threshold");
}

#[test]
fn a_threshold_below_one_is_refused() {
    for threshold in [0, -1, i64::MIN] {
        for role in TOP.into_iter().chain([ROLE]) {
            // Nobody signs the role: with verification switched off it would pass.
            let code = refused(|repo| match role {
                "root" => set_keys(repo, role, Keys::new(&["root-1", "root-2", "root-3"], threshold)),
                _ => {
                    set_keys(repo, role, Keys::new(&["a"], threshold));
                    signed_by(repo, role, Vec::new());
                }
            });
            assert_eq!(code, "metadata_threshold_zero", "{role} {threshold}");
        }
    }
}

#[test]
fn a_wrong_shape_without_a_signature_is_an_answer() {
    let shapes = ["null", "true", "0", "-1", "\"\"", "[]", "{}", "[[]]", r#"{"signed":{}}"#];
    for role in TOP.into_iter().chain([ROLE]) {
        for signed in shapes {
            for signatures in shapes {
                let mut repo = Repo::new();
                repo.hashes = false;
                repo.bump("root");
                repo.publish();
                let text = format!(r#"{{"signatures":{signatures},"signed":{signed}}}"#);
                repo.files.insert(repo.file(role), text.clone().into_bytes());
                let done = repo.refresh(repo.bootstrap(), now(), find());
                assert_ne!(done.code(), "", "{role}: {text}");
                assert!(!done.persisted_roles().contains(&role), "{role}: {text}");
                assert_ne!(code(Trusted::bootstrap(text.as_bytes())), "");
            }
        }
    }
}

#[test]
fn work_is_bounded() {
    // Bytes: whatever is signed, no document longer than its limit is looked at.
    for (role, limit) in [("root", 64), ("timestamp", 16), ("snapshot", 64), ("targets", 128), (ROLE, 128)] {
        let padded = |length: usize| refused(move |repo| repo.edit(role, move |doc| set(doc, &["x"], &quote(&"x".repeat(length)))));
        assert_eq!((padded(limit * 1024 - 3000), padded(limit * 1024)), ("", "metadata_too_long"), "{role}");
    }
    // Depth, and passes over a document: one per signature, however often a role lists the key.
    let deep = |depth: usize| {
        let mut repo = Repo::new();
        let text = String::from_utf8(repo.files["timestamp.json"].clone()).unwrap();
        let deeper = text.replacen('{', &format!("{{\"deep\":{}{},", "[".repeat(depth), "]".repeat(depth)), 1);
        repo.files.insert("timestamp.json".into(), deeper.into_bytes());
        repo.refresh(repo.bootstrap(), now(), find()).code()
    };
    assert_eq!((deep(11), deep(12)), ("", "metadata_malformed"));
    let many = refused(|repo| {
        repo.edit("root", |doc| {
            let id = quote(&Key::new("timestamp").id);
            set(doc, &["roles", "timestamp", "keyids"], &format!("[{}]", vec![id; 800].join(",")));
        });
        let bad = Key { pair: Key::new("stranger").pair, ..Key::new("timestamp") };
        signed_by(repo, "timestamp", vec![bad; SIGNATURES_MAX]);
    });
    assert_eq!(many, "timestamp_threshold");
    assert_eq!(refused(|repo| signed_by(repo, "timestamp", vec![Key::new("timestamp"); SIGNATURES_MAX + 1])), "metadata_signatures");
}

#[test]
fn nothing_rolls_back() {
    let lower = |role: &'static str, version: u64| refused(move |repo| set_version(repo, role, version));
    assert_eq!(lower("timestamp", 4), "timestamp_rollback");
    assert_eq!(lower("snapshot", 4), "timestamp_snapshot_rollback");
    assert_eq!(lower("targets", 4), "snapshot_role_rollback");
}

#[test]
fn a_root_is_exactly_one_version_higher() {
    let mut repo = Repo::new();
    for (version, expected) in [(1, "root_version"), (3, "root_version"), (u64::MAX, "root_version"), (2, "")] {
        repo.versions.insert("root".into(), version);
        repo.publish();
        let bytes = repo.root(version).to_vec();
        let mut served = repo.clone();
        served.files.remove("3.root.json");
        served.files.insert("2.root.json".into(), bytes);
        let done = served.refresh(Repo::new().bootstrap(), now(), find());
        assert_eq!((done.code(), done.trusted.versions()[0]), (expected, if expected.is_empty() { 2 } else { 1 }), "{version}");
    }
}

/// `delegator role pattern [!]`, one per line; who is asked for "x", and whose word counts.
fn search(arrows: &str, lists_x: &[&str]) -> (String, String) {
    let mut repo = Repo::empty();
    for line in arrows.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut delegation = Delegation::new(words[1], &[words[2]]);
        delegation.terminating = words.last() == Some(&"!");
        repo.delegate(words[0], delegation);
    }
    for role in lists_x {
        repo.add(role, "x", role.as_bytes());
    }
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), Goal::FindPath("x".into()));
    assert_eq!(done.code(), "");
    let asked = done.asked[4..].iter().map(|name| name.replace("1.", "").replace(".json", "")).collect::<Vec<_>>().join(" ");
    let found = done.trusted.target("x").ok();
    let whose = lists_x.iter().find(|role| found.as_ref().is_some_and(|file| file.check("x", role.as_bytes()).is_ok()));
    (asked, whose.unwrap_or(&"").to_string())
}

fn found(asked: &str, whose: &str) -> (String, String) {
    (asked.into(), whose.into())
}

#[test]
fn a_terminating_delegation_ends_the_search() {
    assert_eq!(search("targets A * !\n targets B *", &["B"]), found("A", ""));
    assert_eq!(search("targets A *\n A C * !\n A D *\n targets B *", &["B", "D"]), found("A C", ""));
    assert_eq!(search("targets A y !\n targets B *", &["B"]), found("B", "B"), "it is about other paths");
}

#[test]
fn a_cycle_of_delegations_ends() {
    assert_eq!(search("targets A *\n A B *\n B A *\n targets D *", &["D"]), found("A B D", "D"));
    assert_eq!(search("targets A *\n A A *", &[]), found("A", ""));
    assert_eq!(search("targets A *\n A B *\n B C *\n C A *", &[]), found("A B C", ""));
}

#[test]
fn the_search_goes_depth_first() {
    assert_eq!(search("targets A *\n targets B *\n A C *\n B D *", &["B", "C", "D"]), found("A C", "C"));
    assert_eq!(search("targets A *\n targets B *\n A C *\n C E *", &["E", "B"]), found("A C E", "E"));
    assert_eq!(search("targets A *\n A C *", &["A", "C"]), found("A", "A"), "pre-order");
}

#[test]
fn patterns_know_upper_and_lower_case() {
    assert_eq!(search("targets A X\n targets B x", &["A", "B"]), found("B", "B"));
    let mut repo = Repo::new();
    repo.delegations.get_mut("targets").unwrap()[0].paths = vec![TARGET.to_uppercase()];
    repo.publish();
    let done = repo.refresh(repo.bootstrap(), now(), find());
    assert_eq!(code(done.trusted.lookup(&TARGET.parse().unwrap())), "target_unknown");
}

#[test]
fn a_delegated_role_neither_rolls_back_nor_vanishes() {
    assert_eq!(refused(|repo| set_version(repo, ROLE, 4)), "snapshot_role_rollback");
    let vanished = |repo: &mut Repo| repo.edit("snapshot", |doc| unset(doc, &["meta", "agent-linux-amd64.json"]));
    assert_eq!(refused(vanished), "snapshot_role_removed");
}

#[test]
fn a_timestamp_is_kept_only_after_its_snapshot_version_was_checked() {
    let dir = tempfile::tempdir().unwrap();
    let start = Repo::at_version_5();
    let _ = stored(&dir, &start, &start, find());
    let mut bad = start.clone();
    bad.bump("timestamp");
    bad.versions.insert("snapshot".into(), 4);
    bad.publish();
    let (trusted, outcome) = stored(&dir, &start, &bad, find());
    assert!(matches!(outcome, Err(Stopped::Refused(refusal)) if refusal.code == "timestamp_snapshot_rollback"));
    assert_eq!(trusted.versions()[1], 5);
    // Not stuck: the same version, mended, is accepted by a new process.
    let mut good = start.clone();
    good.bump("timestamp");
    good.publish();
    let (trusted, outcome) = stored(&dir, &start, &good, find());
    assert!(outcome.unwrap().complete);
    assert_eq!(trusted.versions()[1], 6);
}

#[test]
fn a_delegated_role_has_expiry_hash_and_length() {
    assert_eq!(refused(|repo| repo.expires.extend([(ROLE.to_string(), NOW)])), "delegated_expired");
    type Change = (&'static str, fn(&mut Vec<u8>));
    let changes: [Change; 2] = [("delegated_length", |bytes| bytes.push(b' ')), ("delegated_hash", |bytes| bytes.rotate_right(1))];
    for (expected, change) in changes {
        let mut repo = Repo::new();
        let name = repo.file(ROLE);
        change(repo.files.get_mut(&name).unwrap());
        assert_eq!(repo.refresh(repo.bootstrap(), now(), find()).code(), expected);
    }
}

#[test]
fn a_role_is_verified_under_each_delegator() {
    let mut repo = Repo::empty();
    for (delegator, role, pattern) in [("targets", "A", "a"), ("targets", "B", "b"), ("A", "C", "a"), ("B", "C", "b")] {
        repo.delegate(delegator, Delegation::new(role, &[pattern]));
    }
    repo.delegations.get_mut("B").unwrap()[0].keys = Keys::new(&["other"], 1);
    repo.add("C", "a", b"a");
    repo.add("C", "b", b"b");
    repo.publish();
    let dir = tempfile::tempdir().unwrap();
    let (trusted, outcome) = stored(&dir, &repo, &repo, Goal::FindPath("a".into()));
    assert!(outcome.unwrap().complete && trusted.target("a").is_ok());
    assert_eq!(code(trusted.target("b")), "target_not_loaded");
    // Held in memory or in the folder: B never vouched for it.
    for _ in 0..2 {
        let (trusted, outcome) = stored(&dir, &repo, &repo, Goal::FindPath("b".into()));
        assert!(matches!(outcome, Err(Stopped::Refused(refusal)) if refusal.code == "delegated_threshold"));
        assert_eq!(code(trusted.target("b")), "delegated_threshold");
        assert!(trusted.target("a").is_ok());
    }
}

/// A refresh on the agent's real store, by a process that starts for it. `factory` has root 1.
fn stored(dir: &tempfile::TempDir, factory: &Repo, repo: &Repo, goal: Goal) -> (Trusted, Result<Outcome, Stopped<Reason>>) {
    let (store, trusted) = TrustStore::open(&dir.path().join("trust"), factory.root(1)).unwrap();
    store.refresh(trusted, now(), goal, &mut |name, _| Ok(repo.files.get(name).cloned()))
}

/// Every file under a folder, links and folders included.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    for path in out.clone().iter().filter(|p| p.is_dir() && !p.is_symlink()) {
        out.extend(everything(path));
    }
    out.sort();
    out
}

/// Names that mean something to some file system.
const NAMES: [&str; 16] = [
    "../../escape",
    "..",
    ".",
    "/abs",
    "a/../../b",
    "..\\..\\escape",
    "C:\\x",
    "C:x",
    "\\\\server\\share",
    "%2e%2e%2fescape",
    "CON",
    "nul.txt",
    "com1",
    "a:stream",
    "trailing. ",
    "new\nline",
];

#[test]
fn a_role_name_is_no_file_name() {
    for name in NAMES {
        let dir = tempfile::tempdir().unwrap();
        let mut repo = Repo::empty();
        repo.delegate("targets", Delegation::new(name, &["*"]));
        repo.add(name, "x", b"x");
        repo.publish();
        let (trusted, outcome) = stored(&dir, &repo, &repo, Goal::FindPath("x".into()));
        assert!(outcome.unwrap().complete && trusted.target("x").is_ok(), "{name}");
        let files = everything(dir.path());
        assert_eq!(files.len(), 5, "the folder, three top-level roles and one more: {files:?}");
        let hashed = |path: &Path| path.file_stem().is_some_and(|stem| stem.len() == 64);
        assert_eq!(files.iter().filter(|path| hashed(path)).count(), 1, "{files:?}");
    }
}

/// Runs `vmetric-release tuf` in this process: exit code and what it says.
fn tuf(words: &[&str]) -> (u8, String) {
    let args: Vec<String> = ["tuf"].iter().chain(words).map(|word| word.to_string()).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::run(&args, &World { env: &|_| None, now: NOW, version: "" }, &mut out, &mut err);
    (code, String::from_utf8([out, err].concat()).unwrap())
}

/// A repository in a folder, with a trusted root beside it.
fn served(repo: &Repo, targets: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |folder: &str, name: &str, bytes: &[u8]| {
        let path = dir.path().join(folder).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).and_then(|mut file| file.write_all(bytes)).unwrap();
    };
    repo.files.iter().for_each(|(name, bytes)| put("repo/metadata", name, bytes));
    targets.iter().for_each(|(name, bytes)| put("repo/targets", name, bytes));
    put("", "root.json", repo.root(1));
    let (trusted, root) = (dir.path().join("trusted"), dir.path().join("root.json"));
    assert_eq!(tuf(&["--metadata-dir", trusted.to_str().unwrap(), "init", root.to_str().unwrap()]).0, 0);
    dir
}

fn download(dir: &Path, metadata: &str, name: &str) -> (u8, String) {
    let at = |place: &str| dir.join(place).to_str().unwrap().to_string();
    let url = |place: &str| format!("file://{}", at(place));
    let (trusted, files) = (at("trusted"), at("files"));
    let words =
        ["--metadata-dir", &trusted, "--metadata-url", &url(metadata), "--target-base-url", &url("repo/targets"), "--target-dir", &files];
    tuf(&[&words[..], &["--target-name", name, "download"]].concat())
}

/// One target of any name, in a repository in a folder. It is served where its quoted address leads.
fn with_target(name: &str) -> tempfile::TempDir {
    let mut repo = Repo::empty();
    repo.add("targets", name, b"content");
    repo.publish();
    let hash = vmetric::core::hex::encode(&vmetric::core::hex::sha256(b"content"));
    let (folder, last) = name.rsplit_once('/').map_or(("", name), |(folder, last)| (folder, last));
    let quoted = |part: &str| vmetric::core::trust::quoted(part);
    let folder: String = folder.split('/').map(|part| quoted(part) + "/").collect();
    let address = format!("{}{hash}.{}", if name.contains('/') { folder } else { String::new() }, quoted(last));
    served(&repo, &[(address, b"content".to_vec())].into())
}

#[test]
fn a_target_name_or_link_leads_nowhere() {
    for name in NAMES {
        let dir = with_target(name);
        let (code, said) = download(dir.path(), "repo/metadata", name);
        // A folder serves no address that leaves it; a web server may.
        assert!(code == 0 || name.contains(".."), "{name}: {said}");
        let written = everything(&dir.path().join("files")).len();
        assert_eq!(written, usize::from(code == 0), "{name}: one file, directly in the folder");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_link_is_no_file() {
    use std::os::unix::fs::symlink;
    // Where a target goes: the link is replaced, what it points to stays.
    let dir = with_target("x");
    let outside = dir.path().join("outside");
    fs::create_dir(dir.path().join("files")).unwrap();
    fs::File::create(&outside).and_then(|mut file| file.write_all(b"content")).unwrap();
    symlink(&outside, dir.path().join("files/x")).unwrap();
    assert_eq!(download(dir.path(), "repo/metadata", "x").0, 0);
    assert!(!dir.path().join("files/x").is_symlink() && fs::read(&outside).unwrap() == b"content");
    // Where metadata is kept: not followed, fetched again, replaced.
    let stamp = dir.path().join("trusted/timestamp.json");
    fs::rename(&stamp, &outside).unwrap();
    symlink(&outside, &stamp).unwrap();
    assert_eq!(download(dir.path(), "repo/metadata", "x").0, 0);
    assert!(!stamp.is_symlink());
    // In the agent's own folder: each file in turn.
    let (dir, repo) = (tempfile::tempdir().unwrap(), Repo::new());
    let _ = stored(&dir, &repo, &repo, find());
    for path in everything(&dir.path().join("trust")) {
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        let (mut store, _) = TrustStore::open(&dir.path().join("trust"), repo.root(1)).unwrap();
        let left_out = store.take_left_out();
        assert!(left_out.iter().any(|reason| reason.code == "trust_store_read"), "{}: {left_out:?}", path.display());
        assert!(stored(&dir, &repo, &repo, find()).1.unwrap().complete);
        assert!(!path.is_symlink());
    }
}

#[test]
fn a_repository_address_names_no_folder() {
    let dir = with_target("x");
    let before = everything(dir.path());
    for address in ["repo/metadata", "repo/../repo/metadata/", "repo/targets/../metadata"] {
        assert_eq!(download(dir.path(), address, "x").0, 0, "{address}");
    }
    let mut added: Vec<PathBuf> = everything(dir.path()).into_iter().filter(|path| !before.contains(path)).collect();
    added.iter_mut().for_each(|path| *path = path.strip_prefix(dir.path()).unwrap().into());
    let expected = ["files", "files/x", "trusted/snapshot.json", "trusted/targets.json", "trusted/timestamp.json"];
    assert_eq!(added, expected.map(PathBuf::from), "nothing is named after where it came from");
}

#[test]
fn a_delegation_cannot_have_a_top_level_name() {
    for name in ["root", "timestamp", "snapshot", "targets", ""] {
        let mut repo = Repo::new();
        repo.delegate("targets", Delegation::new(name, &["*"]));
        repo.targets.remove(name);
        repo.publish();
        let dir = tempfile::tempdir().unwrap();
        let (trusted, outcome) = stored(&dir, &repo, &repo, Goal::All);
        assert!(matches!(outcome, Err(Stopped::Refused(refusal)) if refusal.code == "delegation_reserved"), "{name}");
        assert_eq!(trusted.versions(), [1, 1, 1, 0]);
        assert_eq!(fs::read(dir.path().join("trust/timestamp.json")).unwrap(), repo.files["timestamp.json"]);
    }
}

/// The hazard is a signature made with a public key that a caller (or a changed file) supplies beside the seed.
#[test]
fn a_key_file_with_another_public_half_signs_nothing() {
    let bench = Bench::new();
    bench.good("init --repo release --keys keys");
    let before = bench.files("release");
    let file = |name: &str| String::from_utf8(fs::read(bench.path(name)).unwrap()).unwrap();
    let public = |text: &str| text.split(r#""public":""#).nth(1).unwrap()[..64].to_string();
    let (one, two) = (file("keys/targets-1.key"), file("keys/targets-2.key"));
    bench.write("keys/targets-1.key", one.replace(&public(&one), &public(&two)).as_bytes());
    assert!(bench.bad("sign --repo release --keys keys --role targets").contains("keys/targets-1.key"));
    assert_eq!(bench.files("release"), before, "no signature was made");
    bench.write("keys/targets-1.key", one.as_bytes());
    bench.good("sign --repo release --keys keys --role targets");
}

#[test]
fn signatures_without_end_cost_nothing() {
    // A threshold that wraps around to something small in 32 bits.
    for threshold in [1 << 32, (1 << 32) + 1, i64::MAX] {
        for role in ["timestamp", "snapshot", "targets", ROLE] {
            assert_eq!(refused(|repo| set_keys(repo, role, Keys::new(&[role], threshold))), code_of(role), "{role} {threshold}");
        }
    }
    // 2^32 signatures are 600 GB: what fits under the limit is refused by its number before one of them is verified.
    let repo = Repo::new();
    let text = String::from_utf8(repo.files["timestamp.json"].clone()).unwrap();
    let many = |n: usize| {
        let mut repo = repo.clone();
        let one = r#"{"keyid":"","sig":""},"#;
        repo.files.insert("timestamp.json".into(), text.replacen("[{", &format!("[{}{{", one.repeat(n)), 1).into_bytes());
        repo.refresh(repo.bootstrap(), now(), find()).code()
    };
    assert_eq!((many(SIGNATURES_MAX - 1), many(SIGNATURES_MAX), many(600)), ("", "metadata_signatures", "metadata_signatures"));
    assert_eq!(many(1 << 20), "metadata_too_long");
}

#[test]
fn a_role_deleted_or_cut_at_every_step() {
    let start = Repo::at_version_5();
    let mut newer = start.clone();
    newer.next_release();
    newer.bump("root");
    newer.publish();
    for role in ["timestamp", "snapshot", "targets", ROLE] {
        let name = newer.file(role);
        let whole = newer.files[&name].clone();
        for kept in [None, Some(0), Some(1), Some(whole.len() / 2), Some(whole.len() - 2)] {
            let dir = tempfile::tempdir().unwrap();
            let _ = stored(&dir, &start, &start, find());
            let mut broken = newer.clone();
            match kept {
                None => drop(broken.files.remove(&name)),
                Some(n) => drop(broken.files.insert(name.clone(), whole[..n].to_vec())),
            }
            let (trusted, outcome) = stored(&dir, &start, &broken, find());
            let Err(Stopped::Refused(refusal)) = outcome else { panic!("{role} {kept:?}: accepted") };
            let expected = match (kept, role) {
                (None, ROLE) => "delegated_missing".to_string(),
                (None, role) => format!("{role}_missing"),
                (Some(_), "timestamp") => "metadata_malformed".into(),
                (Some(_), ROLE) => "delegated_length".into(),
                (Some(_), role) => format!("{role}_length"),
            };
            assert_eq!((refusal.code, trusted.versions()[0]), (expected.as_str(), 2));
            // The old process and a new one go on from there.
            let (trusted, outcome) = stored(&dir, &start, &newer, find());
            assert!(outcome.unwrap().complete, "{role} {kept:?}");
            assert_eq!(trusted.versions(), [2, 6, 6, 6]);
        }
    }
    // A root that is gone is the end of the chain, and a cut one is no root.
    for (kept, expected) in [(None, ""), (Some(0), "metadata_malformed"), (Some(500), "metadata_malformed")] {
        let mut broken = newer.clone();
        match kept {
            None => drop(broken.files.remove("2.root.json")),
            Some(n) => broken.files.get_mut("2.root.json").unwrap().truncate(n),
        }
        let done = broken.refresh(start.client(start.bootstrap()), now(), find());
        assert_eq!((done.code(), done.trusted.versions()[0]), (expected, 1));
    }
}

#[test]
fn a_body_without_end_is_cut() {
    // What is asked for is limited before it is asked for ...
    let repo = Repo::new();
    let mut refresh = Refresh::new(repo.bootstrap(), now(), find());
    while let Want::Fetch(file) = refresh.want() {
        assert!(file.limit <= 128 * 1024, "{file:?}");
        let bytes = repo.files.get(&file.name);
        let _ = refresh.give(bytes.map_or(vmetric::core::trust::Fetched::NotFound, |b| vmetric::core::trust::Fetched::Bytes(b)));
    }
    // ... and a server that goes on for ever is hung up on.
    let dir = served(&repo, &BTreeMap::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{");
        let mut sent = 0u64;
        while stream.write_all(&[b' '; 8192]).is_ok() {
            sent += 8192;
        }
        sent
    });
    let trusted = dir.path().join("trusted");
    let (code, said) = tuf(&["--metadata-dir", trusted.to_str().unwrap(), "--metadata-url", &url, "refresh"]);
    assert!(code == 1 && said.contains("metadata_too_long"), "{said}");
    // What was sent and never read lay in the buffers of both ends.
    assert!(server.join().unwrap() < 64 << 20);
}

#[test]
fn names_of_artifacts_are_plain() {
    for name in NAMES.into_iter().chain(["a\u{0}b", "A", ".hidden", "-option", "é", "a b", ""]) {
        for place in ["vmetric-agent/2.5.0/linux-amd64/@", "@/2.5.0/linux-amd64/vmetric-agent", "vmetric-agent/@/linux-amd64/vmetric-agent"]
        {
            let path = place.replace('@', name);
            assert!(path.parse::<TargetPath>().is_err(), "{path:?}");
        }
    }
}
