//! A repository written by python-tuf, the reference implementation (`tests/fixtures/python_tuf/generate.py`).

use std::path::Path;

use vmetric::core::trust::{FileCheck, Goal, Now, Refusal, Trusted};
use vmetric::io::trust_store::{Stopped, TrustStore};

const PATH: &str = "vmetric-agent/2.5.0/linux-amd64/vmetric-agent";
/// 2030-01-01T00:00:00Z; the fixtures expire in 2036.
const NOW: Now = Now { unix: 1_893_456_000, floor: 0, offline_grace_s: 0 };

fn read(name: &str) -> Option<Vec<u8>> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/python_tuf").join(name)).ok()
}

fn refresh(goal: Goal) -> (Trusted, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let (store, trusted) = TrustStore::open(dir.path(), &read("1.root.json").unwrap()).unwrap();
    let mut asked = Vec::new();
    let (trusted, outcome) = store.refresh(trusted, NOW, goal, &mut |name, limit| {
        asked.push(name.to_string());
        let bytes = read(name);
        assert!(bytes.iter().all(|b| b.len() as u64 <= limit));
        Ok::<_, Refusal>(bytes)
    });
    let outcome = outcome.unwrap_or_else(|e| match e {
        Stopped::Refused(refusal) => panic!("{refusal}"),
        other => panic!("{other:?}"),
    });
    assert!(outcome.complete && outcome.left_out.is_empty());
    (trusted, asked)
}

#[test]
fn an_artifact_of_ours() {
    let (trusted, asked) = refresh(Goal::Find(PATH.parse().unwrap()));
    let expected = ["2.root.json", "3.root.json", "timestamp.json", "5.snapshot.json", "3.targets.json", "4.agent.json"];
    assert_eq!(asked, expected);
    assert_eq!(trusted.versions(), [2, 6, 5, 3]);
    assert_eq!(trusted.issued().map(vmetric::core::time::format).as_deref(), Some("2026-11-22T00:00:00Z"));
    let artifact = trusted.find(&PATH.parse().unwrap()).unwrap();
    assert_eq!(artifact.min_version, Some("2.0.0".parse().unwrap()));
    let key = trusted.build_key(&artifact.build_keyid).unwrap();
    let mut check = FileCheck::new(&artifact, key).unwrap();
    check.absorb(b"the agent, by python-tuf").unwrap();
    assert_eq!(check.finish(), Ok(()));
}

#[test]
fn bins_by_hash_prefix() {
    let (all, _) = refresh(Goal::All);
    for path in ["a.txt", "b.txt", "c.txt", "naïve name.txt"] {
        let (trusted, asked) = refresh(Goal::FindPath(path.into()));
        let file = trusted.target(path).unwrap();
        assert_eq!(file.check(path, path.as_bytes()), Ok(()));
        assert_eq!(all.target(path), Ok(file));
        assert_eq!(asked.len(), 6, "one bin only: {asked:?}");
        assert!(asked[5].starts_with("1.bin%20"));
    }
    assert_eq!(all.target("d.txt").unwrap_err().code, "target_unknown");
    assert_eq!(all.files().len(), 7);
}
