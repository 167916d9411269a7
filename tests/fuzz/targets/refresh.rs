//! The whole refresh against a repository that was bent before or after it was signed.
//!
//! The input is a program: each step changes one value of one role before the signature, or bytes after it, or who signs,
//! or which files are there. Nothing that no key of the repository ever signed may become trusted.

#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use miniserde::json::{self, Value};
use vmetric::core::canonical::{canonicalize, split};
use vmetric::core::trust::{Goal, Trusted};

#[allow(dead_code)]
#[path = "../../it/trust_repo.rs"]
mod trust_repo;
use trust_repo::*;

mod shared;
use shared::{ROLES, refreshed};

/// What a value is replaced with.
const WORDS: [&str; 24] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "2",
    "65537",
    "18446744073709551615",
    TOO_BIG,
    "\"\"",
    "\"\\u0000\"",
    "\"x/../y\"",
    "\"*\"",
    "\"targets\"",
    "\"root\"",
    "\"snapshot.json\"",
    "\"1970-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59Z\"",
    "[]",
    "{}",
    "[[[]]]",
    "{\"sha256\":\"00\"}",
    "{\"version\":1}",
];

const STEPS_MAX: usize = 12;

/// The input as an endless tape: zeros at the end.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn text(&mut self) -> String {
        let length = (self.byte() % 24).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    /// A value, or a text of the input's own.
    fn value(&mut self) -> Value {
        match self.byte() {
            n if n < 200 => parse(WORDS[n % WORDS.len()]),
            _ => parse(&quote(&self.text())),
        }
    }
}

/// The `n`-th place of the document, containers before what is in them.
fn place<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Object(object) => object.values_mut().find_map(|v| place(v, n)),
        Value::Array(array) => array.iter_mut().find_map(|v| place(v, n)),
        _ => None,
    }
}

fn bend(doc: &mut Value, kind: usize, at: usize, new: Value, name: &str) {
    let before = json::to_string(doc);
    let mut n = at;
    if let Some(place) = place(doc, &mut n) {
        match (kind % 5, place) {
            (1, Value::Object(object)) => drop(object.insert(name.to_string(), new)),
            (2, Value::Object(object)) => drop(object.keys().nth(at % 3).cloned().map(|k| object.remove(&k))),
            (3, Value::Array(array)) => {
                for _ in 0..1 + at % 70 {
                    let again = array.last().map(|v| parse(&json::to_string(v)));
                    array.push(again.unwrap_or(Value::Null));
                }
            }
            (4, Value::Array(array)) => drop(array.pop()),
            (_, place) => *place = new,
        }
    }
    let text = json::to_string(doc).replace(TOO_BIG, "18446744073709551616");
    if !text.starts_with('{') || canonicalize(text.as_bytes(), &mut |_| {}).is_err() {
        *doc = parse(&before);
    }
}

fn change(repo: &mut Repo, tape: &mut Tape<'_>) {
    let role = ROLES[tape.byte() % ROLES.len()];
    match tape.byte() % 10 {
        0..5 => {
            let (kind, at, new, name) = (tape.byte(), tape.byte(), tape.value(), tape.text());
            let new = json::to_string(&new);
            repo.edit(role, move |doc| bend(doc, kind, at, parse(&new), &name));
        }
        5 => repo.bump(role),
        6 => drop(repo.versions.insert(role.into(), tape.byte() as u64)),
        7 => {
            let names = ["root-1", "root-2", "timestamp", "snapshot", "targets", ROLE, "stranger", "build"];
            let keys = (0..tape.byte() % 4).map(|_| Key::new(names[tape.byte() % names.len()])).collect();
            repo.signers.insert(role.into(), keys);
        }
        8 => {
            let path = tape.text();
            repo.add(role, &path, b"x");
            repo.delegate(role, Delegation::new(&format!("d{}", tape.byte() % 40), &["*", &path]));
        }
        _ => repo.hashes = !repo.hashes,
    }
}

/// After the signature: what anybody on the way can do.
fn tamper(repo: &mut Repo, tape: &mut Tape<'_>) {
    let names: Vec<String> = repo.files.keys().filter(|name| *name != "1.root.json").cloned().collect();
    let name = &names[tape.byte() % names.len()];
    let (kind, at, byte) = (tape.byte() % 5, tape.byte() << 4 | tape.byte() & 15, tape.byte() as u8);
    let Some(file) = repo.files.get_mut(name) else { return };
    let at = at.min(file.len().saturating_sub(1));
    match kind {
        0 => file[at..].iter_mut().take(1).for_each(|b| *b = byte),
        1 => file.truncate(at),
        2 => file.insert(at, byte),
        3 => drop(repo.files.remove(name)),
        _ => {
            let other = repo.files[&names[usize::from(byte) % names.len()]].clone();
            repo.files.insert(name.clone(), other);
        }
    }
}

/// The canonical form of what is signed in a file.
fn signed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let range = split(bytes).ok()?.signed;
    canonicalize(&bytes[range], &mut |piece| out.extend_from_slice(piece)).ok()?;
    Some(out)
}

static BASE: LazyLock<(Repo, Trusted)> = LazyLock::new(|| {
    let repo = Repo::at_version_5();
    (repo.clone(), repo.client(repo.bootstrap()))
});

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    let (base, trusted) = &*BASE;
    let mut repo = base.clone();
    repo.next_release();
    for _ in 0..tape.byte() % STEPS_MAX {
        change(&mut repo, &mut tape);
    }
    if repo.version("root") != 1 {
        repo.publish();
    } else {
        // The device's own first root stays what it is.
        let first = repo.files["1.root.json"].clone();
        repo.publish();
        repo.files.insert("1.root.json".into(), first);
    }
    let genuine: BTreeSet<Vec<u8>> = repo.files.values().filter_map(|file| signed(file)).collect();
    for _ in 0..tape.byte() % 4 {
        tamper(&mut repo, &mut tape);
    }
    let goal = match tape.byte() % 4 {
        0 => find(),
        1 => Goal::All,
        2 => Goal::TopLevel,
        _ => Goal::FindPath(tape.text()),
    };
    let (after, _) = refreshed(&repo, trusted.clone(), goal);
    for (name, file) in after.files() {
        let known = base.files.values().any(|f| f == file);
        assert!(known || signed(file).is_some_and(|form| genuine.contains(&form)), "{name} is trusted and nobody signed it");
    }
});
