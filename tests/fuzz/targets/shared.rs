//! What holds for every refresh, whatever the repository serves.

use vmetric::core::release::TargetPath;
use vmetric::core::trust::{Fetched, Goal, Outcome, ROOT_MAX, ROTATIONS_MAX, Refresh, SNAPSHOT_MAX, TARGETS_MAX, Trusted, Want};

use crate::trust_repo::*;

/// The roles of [`Repo::new`].
pub const ROLES: [&str; 5] = ["root", "timestamp", "snapshot", "targets", ROLE];

/// Fetches at most: every root, the three top-level files, and each delegation between 32 roles.
const FETCHES_MAX: usize = ROTATIONS_MAX as usize + 4 + 32 * 33;

/// One refresh with every promise checked, and once more: a second one changes nothing.
pub fn refreshed(repo: &Repo, before: Trusted, goal: Goal) -> (Trusted, Outcome) {
    let from = before.versions();
    let (trusted, outcome, persisted) = once(repo, before, goal.clone());
    assert_eq!((outcome.before, outcome.after), (from, trusted.versions()));
    assert!(outcome.refused.is_none() || !outcome.complete);
    let dropped = persisted.iter().any(|(_, bytes)| bytes.is_none());
    assert!(trusted.versions()[0] >= from[0], "the root fell");
    assert!(dropped || trusted.versions()[1] >= from[1], "the timestamp fell");
    for refusal in outcome.refused.iter().chain(&outcome.left_out) {
        assert!(!refusal.code.is_empty() && !refusal.detail.is_empty() && refusal.detail.len() < 4096, "{refusal:?}");
    }
    for (path, artifact) in trusted.artifacts() {
        let Ok(artifact) = artifact else { continue };
        assert_eq!(artifact.path.to_string(), path);
        assert_eq!(path.parse::<TargetPath>().unwrap(), artifact.path);
        let _ = (trusted.lookup(&artifact.path), trusted.file_check(&artifact));
    }
    restored(repo, &trusted);
    let _ = (trusted.check_expiry(&now()), trusted.files());
    let again = once(repo, trusted.clone(), goal);
    assert_eq!(again.0.versions(), trusted.versions(), "a second refresh changes something");
    (trusted, outcome)
}

type Persisted = Vec<(String, Option<Vec<u8>>)>;

fn once(repo: &Repo, before: Trusted, goal: Goal) -> (Trusted, Outcome, Persisted) {
    let mut refresh = Refresh::new(before, now(), goal);
    let (mut fetches, mut persisted) = (0, Vec::new());
    while let Want::Fetch(file) = refresh.want() {
        fetches += 1;
        assert!(fetches <= FETCHES_MAX, "endless");
        assert!(file.limit <= ROOT_MAX.max(SNAPSHOT_MAX).max(TARGETS_MAX), "no limit");
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%".contains(&b);
        assert!(file.name.bytes().all(plain) && file.name.ends_with(".json") && !file.name.starts_with('.'), "{}", file.name);
        let fetched = repo.files.get(&file.name).map_or(Fetched::NotFound, |bytes| Fetched::Bytes(bytes));
        let Ok(steps) = refresh.give(fetched) else { continue };
        for step in steps {
            if let Some(bytes) = &step.bytes {
                assert_eq!(Some(bytes), repo.files.get(&file.name), "made durable what was not fetched");
                assert!(bytes.len() as u64 <= file.limit, "longer than allowed");
            }
            persisted.push((step.role, step.bytes));
        }
    }
    let (trusted, outcome) = refresh.finish();
    (trusted, outcome, persisted)
}

/// What was trusted is trusted again after a restart.
fn restored(repo: &Repo, trusted: &Trusted) {
    let files = trusted.files();
    let find = |name: &str| files.iter().find(|(n, _)| n.split('.').any(|part| part == name)).map(|(_, bytes)| *bytes);
    let mut again = repo.bootstrap();
    for version in 2..=trusted.versions()[0] {
        let root =
            if version == trusted.versions()[0] { find("root") } else { repo.files.get(&format!("{version}.root.json")).map(|b| &b[..]) };
        again.restore_root(root.unwrap()).expect("a root that was trusted");
    }
    let left_out = again.restore_top(find("timestamp"), find("snapshot"), find("targets"));
    assert!(left_out.is_empty(), "{left_out:?}");
    // A targets role that the snapshot no longer lists is kept in memory and not among the files.
    assert_eq!(again.versions()[..3], trusted.versions()[..3]);
}
