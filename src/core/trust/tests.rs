use super::*;

/// Every file of this module that can refuse something.
const SOURCES: [&str; 13] = [
    include_str!("artifact.rs"),
    include_str!("delegation.rs"),
    include_str!("document.rs"),
    include_str!("file_check.rs"),
    include_str!("keys.rs"),
    include_str!("meta.rs"),
    include_str!("mod.rs"),
    include_str!("refresh.rs"),
    include_str!("restore.rs"),
    include_str!("root.rs"),
    include_str!("snapshot.rs"),
    include_str!("targets.rs"),
    include_str!("timestamp.rs"),
];

fn is_code(text: &str) -> bool {
    const FIRST: [&str; 10] =
        ["metadata", "root", "timestamp", "snapshot", "targets", "delegated", "delegation", "target", "build", "file"];
    text.split_once('_').is_some_and(|(first, rest)| {
        FIRST.contains(&first) && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    })
}

/// What stands between two marks, if it looks like a code.
fn codes(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.lines().flat_map(move |line| line.split(mark)).filter(|word| is_code(word))
}

#[test]
fn every_code_is_listed_and_used() {
    let doc: Vec<&str> = include_str!("mod.rs").lines().filter(|line| line.starts_with("//! | `")).collect();
    let doc = doc.join("\n");
    let listed: Vec<&str> = codes(&doc, '`').collect();
    let used: Vec<&str> = SOURCES.iter().flat_map(|source| codes(source, '"')).collect();
    assert!(used.iter().filter(|code| !listed.contains(code)).collect::<Vec<_>>().is_empty(), "not in the table");
    assert_eq!(listed.iter().filter(|code| !used.contains(code)).collect::<Vec<_>>(), Vec::<&&str>::new(), "in the table only");
    assert!(listed.len() > 50);
    let mut once = listed.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), listed.len(), "listed twice");
}

#[test]
fn names_are_quoted_for_urls_and_folders() {
    for (name, expected) in [
        ("agent-linux-amd64", "agent-linux-amd64"),
        ("A.b_c~9", "A.b_c~9"),
        ("../x", "..%2Fx"),
        ("a b%\\:*?\"<>|\0", "a%20b%25%5C%3A%2A%3F%22%3C%3E%7C%00"),
        ("é", "%C3%A9"),
        ("", ""),
    ] {
        assert_eq!(quoted(name), expected);
    }
    assert_eq!(file_name("a/b", 7, true), "7.a%2Fb.json");
    assert_eq!(file_name("a/b", 7, false), "a%2Fb.json");
}

#[test]
fn the_time_used_is_the_latest_signed_or_local_one() {
    let now = |unix, floor| Now { unix, floor, offline_grace_s: 0 };
    assert_eq!(now(5, 3).at(None), 5);
    assert_eq!(now(3, 5).at(None), 5);
    assert_eq!(now(3, 5).at(Some(7)), 7);
    assert_eq!(now(9, 5).at(Some(7)), 9);
    assert!(expired("x", "root", 10, 9, 0).is_ok());
    assert!(expired("x", "root", 10, 10, 0).is_err());
    assert!(expired("x", "root", 10, 10, 1).is_ok());
    assert!(expired("x", "root", u64::MAX, u64::MAX - 1, u64::MAX).is_ok());
}

#[test]
fn a_refusal_becomes_a_reason() {
    let refusal = Refusal::new("root_version", "root", "version 3 instead of 2");
    assert_eq!(refusal.to_string(), "root: version 3 instead of 2 (root_version)");
    let reason = Reason::from(refusal);
    assert_eq!((reason.code.as_ref(), reason.detail.as_str()), ("root_version", "root: version 3 instead of 2"));
}

/// Each mention would cost a pass over the document for each signature: 64 of them times some thousand mentions.
#[test]
fn a_key_id_that_is_listed_again_is_one_key() {
    use super::keys::{KeyWire, Keys, Kinds, RoleKeys, RoleWire};
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let text = format!(r#"{{"a":{{"keytype":"ed25519","scheme":"ed25519","keyval":{{"public":"{public}"}}}}}}"#);
    let wire: BTreeMap<String, KeyWire> = miniserde::json::from_str(&text).unwrap();
    let role = RoleWire { keyids: vec!["a".to_string(); 5000], threshold: 1 };
    let keys = RoleKeys::new("x", &Keys::new(&wire, Kinds::Ed25519), &role).unwrap();
    assert_eq!(keys.len(), 1);
}
