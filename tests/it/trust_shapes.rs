//! Valid JSON of every wrong shape, and bytes that are nearly metadata: always an answer, never a panic (CVE-2026-23991).

use std::sync::LazyLock;

use miniserde::json::{self, Value};
use proptest::prelude::*;
use vmetric::core::trust::{Fetched, Goal, Refresh, Trusted, Want};

use crate::trust_repo::*;

const ROLES: [&str; 5] = ["root", "timestamp", "snapshot", "targets", ROLE];

/// Values that a field may be replaced with; each is signed properly.
const WRONG: [&str; 15] = [
    "null",
    "true",
    "0",
    "-1",
    "18446744073709551615",
    TOO_BIG,
    "\"\"",
    "\"\\u0000\"",
    "\"x/../y\"",
    "[]",
    "[null]",
    "[[[[]]]]",
    "{}",
    "{\"\":{}}",
    "{\"targets.json\":1}",
];

/// Every path into a document, containers before what is in them.
fn paths(value: &Value, way: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let mut step = |key: String, value: &Value| {
        way.push(key);
        out.push(way.clone());
        paths(value, way, out);
        way.pop();
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| step(key.clone(), value)),
        Value::Array(array) => array.iter().enumerate().for_each(|(i, value)| step(i.to_string(), value)),
        _ => {}
    }
}

fn signed(bytes: &[u8]) -> Value {
    let Value::Object(mut envelope) = parse(std::str::from_utf8(bytes).unwrap()) else { panic!("no envelope") };
    envelope.remove("signed").unwrap()
}

/// Answers everything that is asked with what the repository has; then asks the trusted metadata everything.
fn survive(repo: &Repo, trusted: Trusted) {
    let done = repo.refresh(trusted, now(), Goal::All);
    let _ = (done.trusted.artifacts().count(), done.trusted.files().len(), done.trusted.check_expiry(&now()));
    let _ = done.trusted.lookup(&TARGET.parse().unwrap());
}

/// Root 2, everything else 1, no hashes in `meta`, so that each document stands for itself. Made once: keys and
/// signatures are what costs time here.
fn base() -> &'static Repo {
    static BASE: LazyLock<Repo> = LazyLock::new(|| {
        let mut repo = Repo::new();
        repo.hashes = false;
        repo.bump("root");
        repo.publish();
        repo
    });
    &BASE
}

#[test]
fn every_field_with_every_wrong_shape() {
    let (repo, factory) = (base(), base().bootstrap());
    let mut tried = 0;
    for role in ROLES {
        let mut all = Vec::new();
        paths(&signed(&repo.files[&repo.file(role)]), &mut Vec::new(), &mut all);
        for path in all {
            for wrong in WRONG {
                let mut bad = repo.clone();
                let path = path.clone();
                bad.edit(role, move |doc| set(doc, &path.iter().map(String::as_str).collect::<Vec<_>>(), wrong));
                bad.publish();
                survive(&bad, factory.clone());
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// The envelope is not signed: anybody can send these.
#[test]
fn every_wrong_envelope() {
    let repo = base();
    for role in ROLES {
        let file = repo.file(role);
        let signed = json::to_string(&signed(&repo.files[&file]));
        for wrong in WRONG {
            for text in [
                wrong.to_string(),
                format!(r#"{{"signatures":{wrong},"signed":{signed}}}"#),
                format!(r#"{{"signatures":[{wrong}],"signed":{signed}}}"#),
                format!(r#"{{"signatures":[{{"keyid":{wrong},"sig":{wrong}}}],"signed":{signed}}}"#),
                format!(r#"{{"signatures":[],"signed":{wrong}}}"#),
                format!(r#"{{"signed":{signed}}}"#),
            ] {
                let mut bad = repo.clone();
                bad.files.insert(file.clone(), text.clone().into_bytes());
                let done = bad.refresh(repo.bootstrap(), now(), find());
                assert_ne!(done.code(), "", "{role} {text}");
                assert!(!done.persisted_roles().contains(&role));
                assert_ne!(code(Trusted::bootstrap(text.as_bytes())), "");
            }
        }
    }
}

/// A download that was cut, at every third byte.
#[test]
fn every_truncation() {
    let (mut repo, factory) = (base().clone(), base().bootstrap());
    for role in ROLES {
        let name = repo.file(role);
        let whole = repo.files[&name].clone();
        // The last byte is a line end: without it the document is whole.
        for length in (0..whole.len() - 1).step_by(3) {
            repo.files.insert(name.clone(), whole[..length].to_vec());
            let done = repo.refresh(factory.clone(), now(), find());
            assert_eq!(done.code(), "metadata_malformed", "{role} {length}");
        }
        repo.files.insert(name, whole);
    }
    repo.client(factory);
}

#[test]
fn answers_that_were_not_asked_for() {
    let repo = Repo::new();
    let mut refresh = Refresh::new(repo.bootstrap(), now(), find());
    while refresh.want() != Want::Done {
        let _ = refresh.give(Fetched::NotFound);
    }
    let again = refresh.give(Fetched::Bytes(&repo.files["timestamp.json"]));
    assert_eq!(again, Ok(Vec::new()));
    let (trusted, outcome) = refresh.finish();
    assert_eq!((trusted.versions(), outcome.refused.unwrap().code), ([1, 0, 0, 0], "timestamp_missing"));
    // Stopped by the caller: not complete, not refused.
    let (_, outcome) = Refresh::new(repo.bootstrap(), now(), find()).finish();
    assert_eq!((outcome.complete, outcome.refused), (false, None));
}

/// Replaces, inserts or removes a few bytes, or swaps two pieces.
fn mutate(bytes: &mut Vec<u8>, at: usize, kind: u8, byte: u8) {
    let at = at % bytes.len();
    match kind % 5 {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => drop(bytes.remove(at)),
        3 => bytes[at] = b"{}[]\",:0\\ "[usize::from(byte) % 10],
        _ => bytes.rotate_left(at),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Mutated after signing: trusted only if the signed part still means the same; never a panic.
    #[test]
    fn mutated_metadata_is_never_trusted(
        role in 0usize..5,
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..4),
    ) {
        let mut repo = base().clone();
        let (role, name) = (ROLES[role], repo.file(ROLES[role]));
        let good = repo.files[&name].clone();
        let mut bad = good.clone();
        for (at, kind, byte) in changes {
            mutate(&mut bad, at, kind, byte);
        }
        repo.files.insert(name, bad.clone());
        let done = repo.refresh(repo.bootstrap(), now(), find());
        if done.persisted_roles().contains(&role) {
            let form = |bytes: &[u8]| canonical(&signed(bytes));
            prop_assert_eq!(form(&bad), form(&good));
        } else {
            prop_assert!(done.outcome.refused.is_some());
        }
        let _ = done.trusted.artifacts().count();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Mutated before signing: whatever the signer writes, an answer.
    #[test]
    fn signed_nonsense_gets_an_answer(
        role in 0usize..5,
        pick in any::<prop::sample::Index>(),
        wrong in prop::sample::select(WRONG.to_vec()),
        key in "[a-z.]{0,6}",
    ) {
        let (mut repo, factory) = (base().clone(), base().bootstrap());
        let mut all = Vec::new();
        paths(&signed(&repo.files[&repo.file(ROLES[role])]), &mut Vec::new(), &mut all);
        let path = pick.get(&all).clone();
        repo.edit(ROLES[role], move |doc| {
            let mut path: Vec<&str> = path.iter().map(String::as_str).collect();
            if path.last().is_some_and(|last| last.parse::<usize>().is_err()) {
                path.pop();
                path.push(&key);
            }
            set(doc, &path, wrong);
        });
        repo.publish();
        survive(&repo, factory);
    }
}
