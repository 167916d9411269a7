//! Valid JSON of every wrong shape, and bytes that are nearly metadata: always an answer, never a panic (CVE-2026-23991).

use std::sync::LazyLock;

use miniserde::json::{self, Value};
use proptest::prelude::*;
use vmetric::core::canonical::canonicalize;
use vmetric::core::trust::{Fetched, Goal, Refresh, Trusted, Want};

use crate::trust_repo::*;

const ROLES: [&str; 5] = ["root", "timestamp", "snapshot", "targets", ROLE];

/// Values that a field may be replaced with. The first six are no canonical JSON, or none with a signature.
const WRONG: [&str; 23] = [
    "1.5",
    "1e3",
    "-0",
    "01",
    "\"\\ud800\"",
    "[[[[[[[[[[[[[]]]]]]]]]]]]]",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"\\u0000\"",
    "\"x/../y\"",
    "[]",
    "[null]",
    "[[[[]]]]",
    "{}",
    "{\"\":{\"targets.json\":1}}",
];

/// What is done to one member of a document.
#[derive(Clone, Debug, PartialEq)]
enum Edit {
    Replace(String),
    Delete,
    /// The key is there twice, with the same value.
    Twice,
    /// The key changes places with its neighbour.
    Swap,
}

fn edits() -> impl Iterator<Item = Edit> {
    let long = quote(&"long ".repeat(600));
    let replace = WRONG.into_iter().map(String::from).chain([long]).map(Edit::Replace);
    replace.chain([Edit::Delete, Edit::Twice, Edit::Swap])
}

/// The text of a document after one edit. Without spaces: where it has a canonical form, this is it.
fn edited(value: &Value, way: Option<(&[String], &Edit)>) -> String {
    let inner = |key: &str, value: &Value| match way {
        Some((path, Edit::Replace(text))) if path == [key] => text.clone(),
        Some((path, edit)) if path[0] == key && path.len() > 1 => edited(value, Some((&path[1..], edit))),
        _ => edited(value, None),
    };
    let here = |key: &str| way.filter(|(path, _)| *path == [key]).map(|(_, edit)| edit);
    let (open, close, members): (_, _, Vec<(String, String)>) = match value {
        Value::Object(object) => {
            ("{", "}", object.iter().map(|(key, value)| (key.clone(), format!("{}:{}", quote(key), inner(key, value)))).collect())
        }
        Value::Array(array) => {
            ("[", "]", array.iter().enumerate().map(|(i, value)| (i.to_string(), inner(&i.to_string(), value))).collect())
        }
        plain => return json::to_string(plain),
    };
    let mut out: Vec<String> = Vec::new();
    for (i, (key, text)) in members.iter().enumerate() {
        match here(key) {
            Some(Edit::Delete) => {}
            Some(Edit::Twice) => out.extend([text.clone(), text.clone()]),
            Some(Edit::Swap) => out.insert(i.saturating_sub(1), text.clone()),
            _ => out.push(text.clone()),
        }
    }
    format!("{open}{}{close}", out.join(","))
}

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

/// `text` as signed metadata of `role`, by its own keys or by strangers who use their names.
fn sealed(role: &str, text: &str, own: bool) -> Vec<u8> {
    static KEYS: LazyLock<Vec<(String, Key)>> = LazyLock::new(|| {
        let names = ["root-1", "root-2", "timestamp", "snapshot", "targets", ROLE];
        names.iter().map(|name| (name.split("-1").next().unwrap().replace("root-2", "root"), Key::new(name))).collect()
    });
    let stranger = Key::new("stranger");
    let signers = KEYS.iter().filter(|(name, _)| name == role).map(|(_, key)| key);
    let signature = |key: &Key| {
        let pair = if own { &key.pair } else { &stranger.pair };
        let sig = vmetric::core::hex::encode(&*pair.sk.sign(text.as_bytes(), None));
        format!(r#"{{"keyid":"{}","sig":"{sig}"}}"#, key.id)
    };
    let signatures: Vec<String> = signers.map(signature).collect();
    format!(r#"{{"signatures":[{}],"signed":{text}}}"#, signatures.join(",")).into_bytes()
}

/// Is this no wrong shape after all: another value of the right type, an optional or an unknown field?
fn fits(path: &[String], edit: &Edit) -> bool {
    let path = path.iter().map(String::as_str).collect::<Vec<_>>();
    let new = |values: &[&str]| matches!(edit, Edit::Replace(new) if values.contains(&new.as_str()));
    let right_type = matches!(edit, Edit::Replace(new) if new.starts_with('"') || new == "[]" || new.parse::<u64>().is_ok());
    let optional = *edit == Edit::Delete || new(&["null"]);
    right_type
        || match &path[..] {
            ["issued"] | ["delegations"] | [.., "keyval", "public"] => optional,
            ["consistent_snapshot"] => optional || new(&["true", "false"]),
            ["x-vmetric-build-keys"] => optional || new(&["{}"]),
            [.., "terminating"] => new(&["true", "false"]),
            // One of several.
            ["targets", _] | [.., "keys", _] | ["x-vmetric-build-keys", _] | [.., "roles", "0"] => *edit == Edit::Delete,
            [.., "keyids", _] | [.., "paths", _] => !matches!(edit, Edit::Replace(_)),
            ["targets"] | [.., "keys"] => new(&["{}"]),
            // A key of some other kind.
            [.., "keyval"] => matches!(edit, Edit::Replace(new) if new.starts_with('{')),
            _ => false,
        }
}

/// Every member of every document, with every edit: signed as it has to be, so that the shape is what is looked at, and
/// not signed at all. A refusal has its code and leaves what was trusted; what is no refusal was no wrong shape.
fn every_member_with_every_wrong_shape(role: &str) {
    let mut start = Repo::at_version_5();
    start.hashes = false;
    start.publish();
    let trusted = start.client(start.bootstrap());
    let mut newer = start.clone();
    newer.next_release();
    newer.bump("root");
    newer.publish();
    let (name, doc) = (newer.file(role), signed(&newer.files[&newer.file(role)]));
    let whole = edited(&doc, None);
    let (mut tried, mut accepted) = (0, 0);
    for path in members(&doc) {
        for (edit, own) in edits().flat_map(|edit| [(edit.clone(), true), (edit, false)]) {
            let text = edited(&doc, Some((&path, &edit)));
            // Whether a signature is asked for does not depend on what is in the document.
            if text == whole || (!own && !matches!(&edit, Edit::Delete | Edit::Twice) && edit != Edit::Replace("null".into())) {
                continue;
            }
            let what = format!("{role} {path:?} {edit:?}");
            let mut bad = newer.clone();
            bad.files.insert(name.clone(), sealed(role, &text, own));
            let done = bad.refresh(trusted.clone(), now(), find());
            let kept = !done.persisted_roles().contains(&role);
            tried += 1;
            if kept {
                let code = done.code();
                assert!(
                    !code.is_empty()
                        && (own || code.ends_with("_threshold") || code == "root_threshold_trusted" || code == "metadata_malformed"),
                    "{what}: {code}"
                );
                assert!(done.trusted.files().iter().all(|(_, bytes)| *bytes != bad.files[&name]), "{what}");
            } else {
                assert!(own && (is_custom(&path) || fits(&path, &edit)), "{what}: accepted");
                accepted += 1;
            }
            // A target's own fields are looked at when it is asked for.
            if is_custom(&path) {
                let found = code(done.trusted.lookup(&path[1].parse().unwrap()));
                assert!(found.starts_with("target_") || fits(&path, &edit), "{what}");
            }
            let _ = (done.trusted.artifacts().count(), done.trusted.check_expiry(&now()));
        }
    }
    assert!(tried > 100 && accepted > 0, "{role}: {tried} tried, {accepted} accepted");
}

fn is_custom(path: &[String]) -> bool {
    path.len() > 2 && path[0] == "targets" && path[2] == "custom"
}

/// Paths to all members, but only two of a kind: keys look alike, and so do targets.
fn members(doc: &Value) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    paths(doc, &mut Vec::new(), &mut all);
    let keys: Vec<String> = all.iter().filter(|path| path.len() == 2 && path[0] == "keys").map(|path| path[1].clone()).collect();
    all.retain(|path| !path.get(1).is_some_and(|key| keys.iter().skip(2).any(|other| other == key) || key == TARGET));
    all
}

#[test]
fn root_of_every_wrong_shape() {
    every_member_with_every_wrong_shape("root");
}

#[test]
fn timestamp_of_every_wrong_shape() {
    every_member_with_every_wrong_shape("timestamp");
}

#[test]
fn snapshot_of_every_wrong_shape() {
    every_member_with_every_wrong_shape("snapshot");
}

#[test]
fn targets_of_every_wrong_shape() {
    every_member_with_every_wrong_shape("targets");
}

#[test]
fn delegated_role_of_every_wrong_shape() {
    every_member_with_every_wrong_shape(ROLE);
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

/// What a signer can write at any depth: the others have no canonical form; `of_every_wrong_shape` has them all.
fn signable(wrong: &&str) -> bool {
    let written = json::from_str::<Value>(wrong).map(|value| json::to_string(&value));
    !wrong.starts_with("[[[[[") && written.is_ok_and(|text| canonicalize(text.as_bytes(), &mut |_| ()).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Mutated before signing: whatever the signer writes, an answer.
    #[test]
    fn signed_nonsense_gets_an_answer(
        role in 0usize..5,
        pick in any::<prop::sample::Index>(),
        wrong in prop::sample::select(WRONG.into_iter().filter(signable).collect::<Vec<_>>()),
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
