//! The typed readers of all roles behind the signature check: the input is the signed part of one role, we sign it.
//!
//! First byte: which role. The rest: the text of `signed`. Everything else of the repository is good.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vmetric::core::canonical::canonicalize;
use vmetric::core::hex;
use vmetric::core::trust::{Goal, Trusted};

#[allow(dead_code)]
#[path = "../../it/trust_repo.rs"]
mod trust_repo;
use trust_repo::*;

mod shared;
use shared::{ROLES, refreshed};

/// No hashes and lengths in `meta`, so that a document may be another one.
static BASE: LazyLock<(Repo, Trusted, Vec<Key>)> = LazyLock::new(|| {
    let mut repo = Repo::new();
    repo.hashes = false;
    repo.bump("root");
    repo.publish();
    let keys = ["root-1", "timestamp", "snapshot", "targets", ROLE, "root-2"].map(Key::new).to_vec();
    (repo.clone(), repo.bootstrap(), keys)
});

fuzz_target!(|bytes: &[u8]| {
    let [which, signed @ ..] = bytes else { return };
    let mut message = Vec::new();
    if canonicalize(signed, &mut |piece| message.extend_from_slice(piece)).is_err() || !signed.starts_with(b"{") {
        return;
    }
    let (base, factory, keys) = &*BASE;
    let role = usize::from(*which) % ROLES.len();
    let signers = if role == 0 { vec![&keys[0], &keys[5]] } else { vec![&keys[role]] };
    let signature = |key: &&Key| format!(r#"{{"keyid":"{}","sig":"{}"}}"#, key.id, hex::encode(&*key.pair.sk.sign(&message, None)));
    let signatures: Vec<String> = signers.iter().map(signature).collect();
    let mut file = format!("{{\"signatures\":[{}],\"signed\":", signatures.join(",")).into_bytes();
    file.extend_from_slice(signed);
    file.push(b'}');
    // A root that lists other keys and a stranger's first root are read by the same code.
    let _ = Trusted::bootstrap(&file);
    let mut repo = base.clone();
    repo.files.insert(repo.file(ROLES[role]), file);
    for goal in [find(), Goal::All] {
        let (_, outcome) = refreshed(&repo, factory.clone(), goal);
        assert!(outcome.left_out.len() <= 32 * 33);
    }
});
