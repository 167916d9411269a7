//! From a signed target to a file that may be started: `custom`, length, hash, build signature.

use miniserde::json::Value;
use vmetric::core::release::{Artifact, TargetPath, build_prefix};
use vmetric::core::trust::{FileCheck, Goal};

use crate::trust_repo::*;

const BYTES: &[u8] = b"the agent, version 2.5.0";

fn target() -> TargetPath {
    TARGET.parse().unwrap()
}

/// The artifact after an edit of its entry.
fn looked_up(edit: impl Fn(&mut Value) + Send + Sync + 'static) -> Result<Artifact, vmetric::core::trust::Refusal> {
    let mut repo = Repo::new();
    repo.edit(ROLE, edit);
    repo.publish();
    repo.client(repo.bootstrap()).lookup(&target())
}

#[test]
fn a_target_of_ours_says_what_its_path_says() {
    let artifact = looked_up(|_| {}).unwrap();
    assert_eq!(artifact.path, target());
    assert_eq!((artifact.length, artifact.counter, &artifact.min_version), (BYTES.len() as u64, 3, &None));
    assert_eq!(artifact.build_keyid, Key::new("build").id);
    let with_floor = looked_up(|doc| set(doc, &["targets", TARGET, "custom", "min_version"], "\"2.0.0\"")).unwrap();
    assert_eq!(with_floor.min_version, Some("2.0.0".parse().unwrap()));
    let more = looked_up(|doc| set(doc, &["targets", TARGET, "custom", "deltas"], "[{}]")).unwrap();
    assert_eq!(more, artifact, "fields of later versions are passed over");

    type Break = (&'static str, &'static str, Option<&'static str>);
    let breaks: &[Break] = &[
        ("target_version", "version", Some("\"2.5.1\"")),
        ("target_version", "version", Some("\"02.5.0\"")),
        ("target_os", "os", Some("\"windows\"")),
        ("target_arch", "arch", Some("\"arm64\"")),
        ("target_custom", "version", None),
        ("target_custom", "os", Some("1")),
        ("target_custom", "arch", None),
        ("target_custom", "counter", None),
        ("target_custom", "counter", Some("-1")),
        ("target_custom", "counter", Some("\"3\"")),
        ("target_custom", "min_version", Some("\"two\"")),
        ("target_custom", "min_version", Some("2")),
        ("target_custom", "sig", None),
        ("target_custom", "sig", Some(r#"{"keyid":"x"}"#)),
        ("target_custom", "sig", Some(r#"{"keyid":"x","sig":"00"}"#)),
    ];
    for (expected, field, new) in breaks {
        let result = looked_up(move |doc| match new {
            Some(new) => set(doc, &["targets", TARGET, "custom", field], new),
            None => unset(doc, &["targets", TARGET, "custom", field]),
        });
        assert_eq!(code(result), *expected, "{field} {new:?}");
    }
    for (expected, edit) in [
        ("target_custom", (|doc| unset(doc, &["targets", TARGET, "custom"])) as fn(&mut Value)),
        ("target_custom", |doc| set(doc, &["targets", TARGET, "custom"], "[]")),
        ("target_custom", |doc| set(doc, &["targets", TARGET, "custom"], "\"x\"")),
        ("target_hash", |doc| set(doc, &["targets", TARGET, "hashes"], &format!(r#"{{"sha512":"{}"}}"#, "00".repeat(64)))),
        ("target_unknown", |doc| unset(doc, &["targets", TARGET])),
    ] {
        assert_eq!(code(looked_up(edit)), expected);
    }
}

#[test]
fn all_artifacts_with_what_is_wrong_with_them() {
    let mut repo = Repo::new();
    repo.delegate("targets", Delegation::new("notes", &["notes/*"]));
    repo.add("notes", "notes/a.txt", b"a");
    // Lists what another role may speak for: nobody would find it there.
    repo.add("notes", "vmetric-agent/9.9.9/linux-amd64/vmetric-agent", b"evil");
    repo.add(ROLE, &TARGET.replace("2.5.0", "2.6.0"), b"2.6.0");
    repo.publish();
    let trusted = repo.refresh(repo.bootstrap(), now(), Goal::All).trusted;
    let all: Vec<(String, &str)> = trusted.artifacts().map(|(path, found)| (path, code(found))).collect();
    let expected = [
        ("notes/a.txt", "target_path"),
        (TARGET, ""),
        ("vmetric-agent/2.6.0/linux-amd64/vmetric-agent", ""),
        ("vmetric-agent/9.9.9/linux-amd64/vmetric-agent", "target_unknown"),
    ];
    assert_eq!(all, expected.map(|(path, code)| (path.to_string(), code)));
    assert!(repo.bootstrap().artifacts().next().is_none());
    assert_eq!(code(repo.bootstrap().lookup(&target())), "target_not_loaded");
}

/// Runs the check over `bytes` in pieces.
fn check(artifact: &Artifact, key: &Key, bytes: &[u8], piece: usize) -> &'static str {
    code(FileCheck::new(artifact, key.pair.pk).and_then(|mut check| {
        bytes.chunks(piece).try_for_each(|piece| check.absorb(piece))?;
        check.finish()
    }))
}

#[test]
fn a_file_is_checked_in_one_pass() {
    let artifact = looked_up(|_| {}).unwrap();
    let build = Key::new("build");
    for piece in [1, 5, 1000] {
        assert_eq!(check(&artifact, &build, BYTES, piece), "");
        assert_eq!(check(&artifact, &build, &BYTES[1..], piece), "file_too_short");
        assert_eq!(check(&artifact, &build, &[BYTES, b"x"].concat(), piece), "file_too_long");
        assert_eq!(check(&artifact, &build, b"the agent, version 2.5.1", piece), "file_hash");
        assert_eq!(check(&artifact, &Key::new("build-2"), BYTES, piece), "file_signature");
    }
    assert_eq!(check(&artifact, &build, b"", 1), "file_too_short");
    let mut endless = FileCheck::new(&artifact, build.pair.pk).unwrap();
    assert_eq!(endless.missing(), 24);
    endless.absorb(BYTES).unwrap();
    assert_eq!(endless.missing(), 0);
    assert_eq!(code(endless.absorb(b"x")), "file_too_long", "at once, not at the end");
    assert_eq!(code(endless.finish()), "file_too_long", "and an ignored error stays one");
}

/// The second party: a targets key alone cannot ship code, and a signature cannot be moved.
#[test]
fn the_build_signature_covers_domain_path_and_length() {
    let build = Key::new("build");
    let artifact = looked_up(|_| {}).unwrap();
    let signed_over = |message: &[u8]| {
        let mut other = artifact.clone();
        other.build_sig = vmetric::core::hex::decode(&build.sign(message)).unwrap();
        check(&other, &build, BYTES, 7)
    };
    let whole = |path: &str, length: usize| [build_prefix(path, length as u64), BYTES.to_vec()].concat();
    assert_eq!(signed_over(&whole(TARGET, BYTES.len())), "");
    assert_eq!(signed_over(&whole(&TARGET.replace("amd64", "arm64"), BYTES.len())), "file_signature", "another platform");
    assert_eq!(signed_over(&whole(&TARGET.replace("2.5.0", "2.4.0"), BYTES.len())), "file_signature", "another version");
    assert_eq!(signed_over(&whole(TARGET, BYTES.len() + 1)), "file_signature", "another length");
    assert_eq!(signed_over(BYTES), "file_signature", "a bare signature, as metadata has");
    let mut broken = artifact.clone();
    broken.build_sig = [0xff; 64];
    assert_eq!(check(&broken, &build, BYTES, 7), "file_signature", "refused before the first byte");
    broken.build_sig = [0; 64];
    assert_eq!(check(&broken, &build, BYTES, 7), "file_signature");
}

#[test]
fn targets_of_other_repositories() {
    let mut repo = Repo::empty();
    repo.add("targets", "any name.txt", b"text");
    repo.publish();
    let trusted = repo.refresh(repo.bootstrap(), now(), Goal::FindPath("any name.txt".into())).trusted;
    let file = trusted.target("any name.txt").unwrap();
    let check = |bytes: &[u8]| code(file.check("any name.txt", bytes));
    assert_eq!([check(b"text"), check(b"tex"), check(b"texts"), check(b"TEXT")], ["", "file_too_short", "file_too_long", "file_hash"]);
    assert_eq!(code(trusted.target("another")), "target_unknown");
}
