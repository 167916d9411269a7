//! Several signers on several machines: one file each, at the same time; and what does not come together.

use std::fs;

use crate::release_bench::{Bench, copy, seed};

/// The machine of one signer: no repository, one key.
fn machine(role: &str, seed: &str) -> Bench {
    let mut bench = Bench::new();
    let name = format!("VMETRIC_KEY_{}", role.to_uppercase().replace('-', "_"));
    bench.set(&name, seed);
    bench
}

/// A repository whose desk holds no key of root, targets and the delegated role (2 of 2), all of which are to be signed.
fn pending() -> Bench {
    let mut desk = Bench::with_seeds();
    desk.set("VMETRIC_KEY_AGENT_LINUX_AMD64", &format!("{},{}", seed(5, 0), seed(5, 1)));
    desk.write("vmetric-agent", b"agent 1.0.0");
    desk.good("init --repo release --keys keys --delegated-keys 2 --delegated-threshold 2");
    desk.add("1.0.0");
    for role in ["ROOT", "TARGETS", "AGENT_LINUX_AMD64"] {
        desk.set(&format!("VMETRIC_KEY_{role}"), "");
    }
    desk.good("sign --repo release --renew --role root");
    desk
}

/// Signs a copy of the draft on another machine and brings it back as `name`.
fn signed_elsewhere(desk: &Bench, role: &str, seed: &str, name: &str) -> String {
    let there = machine(role, seed);
    fs::copy(desk.path(&format!("release/draft/{role}.json")), there.path(&format!("{role}.json"))).unwrap();
    let said = there.good(&format!("sign --file {role}.json"));
    fs::copy(there.path(&format!("{role}.json")), desk.path(name)).unwrap();
    said
}

#[test]
fn root_3_of_5_targets_2_of_3_and_a_delegated_2_of_2_come_together() {
    let desk = pending();
    let said = signed_elsewhere(&desk, "root", &seed(0, 0), "root-a");
    assert!(
        said.contains("root (root) version 2") && said.contains("targets: 2 of 3 keys") && said.contains("sha256 of what is signed"),
        "{said}"
    );
    let said = signed_elsewhere(&desk, "agent-linux-amd64", &seed(5, 0), "agent-a");
    assert!(said.contains("vmetric-agent/1.0.0/linux-amd64/vmetric-agent sha256"), "a signer sees what he signs: {said}");
    let plan = [
        ("root-b", "root", seed(0, 3)),
        ("root-c", "root", seed(0, 4)),
        ("targets-a", "targets", seed(1, 2)),
        ("targets-b", "targets", seed(1, 0)),
        ("agent-b", "agent-linux-amd64", seed(5, 1)),
    ];
    for (name, role, seed) in &plan {
        signed_elsewhere(&desk, role, seed, name);
    }
    copy(&desk.path("release"), &desk.path("other"));
    let all = ["root-a", "agent-a", "root-b", "root-c", "targets-a", "targets-b", "agent-b"];
    for (i, name) in all.iter().enumerate() {
        let refused = desk.bad("publish --repo release --out public");
        assert!(refused.contains("agent-linux-amd64 version 1:") && refused.contains("open:"), "after {i}: {refused}");
        desk.good(&format!("sign --repo release --import {name}"));
    }
    assert!(desk.good("sign --repo release --import root-a").contains("nothing new"));
    // In another order, in one go, into another copy: the same bytes.
    let backwards: Vec<String> = all.iter().rev().map(|name| format!("--import {name}")).collect();
    desk.good(&format!("sign --repo other {}", backwards.join(" ")));
    assert_eq!(desk.files("release/draft"), desk.files("other/draft"));
    desk.release();
    desk.good("verify --tree public --root public/metadata/1.root.json");
    assert!(desk.files("public/metadata").contains_key("2.root.json"));
}

#[test]
fn copies_of_a_repository_that_were_signed_in_parallel_are_merged() {
    let mut desk = pending();
    copy(&desk.path("release"), &desk.path("copy"));
    desk.set("VMETRIC_KEY_TARGETS", &seed(1, 0));
    desk.set("VMETRIC_KEY_ROOT", &seed(0, 1));
    desk.good("sign --repo release");
    desk.set("VMETRIC_KEY_TARGETS", &seed(1, 1));
    desk.set("VMETRIC_KEY_ROOT", &format!("{},{}", seed(0, 2), seed(0, 3)));
    desk.set("VMETRIC_KEY_AGENT_LINUX_AMD64", &format!("{},{}", seed(5, 0), seed(5, 1)));
    desk.good("sign --repo copy");
    for role in ["ROOT", "TARGETS", "AGENT_LINUX_AMD64"] {
        desk.set(&format!("VMETRIC_KEY_{role}"), "");
    }
    let said = desk.good("sign --repo release --import copy");
    assert!(said.contains("targets.json: targets: added") && said.contains("root.json: root: added"), "{said}");
    desk.release();
    desk.good("verify --tree public --root public/metadata/1.root.json");
}

#[test]
fn what_does_not_belong_to_this_draft_is_refused() {
    let desk = pending();
    signed_elsewhere(&desk, "targets", &seed(1, 0), "good");
    let text = String::from_utf8(fs::read(desk.path("good")).unwrap()).unwrap();
    let sig = text.split(r#""sig":""#).nth(1).unwrap();
    let flipped = if sig.starts_with('0') { '1' } else { '0' };
    desk.write("flipped", text.replacen(&format!(r#""sig":"{}"#, &sig[..1]), &format!(r#""sig":"{flipped}"#), 1).as_bytes());
    signed_elsewhere(&desk, "targets", &seed(7, 7), "stranger");
    desk.write("older", text.replace(r#""version":1"#, r#""version":2"#).as_bytes());
    desk.write("broken", &text.as_bytes()[..text.len() - 9]);
    for (name, code) in [
        ("flipped", "bad_signature"),
        ("stranger", "foreign_key"),
        ("older", "other_content"),
        ("broken", "broken_file"),
        ("missing", "missing_file"),
    ] {
        let said = desk.bad(&format!("sign --repo release --import {name} --json"));
        assert!(said.contains(code) && said.contains(name), "{name}: {said}");
    }
    assert!(desk.good("status --repo release").contains("0 of 2 signatures of targets"), "nothing of it was kept");

    let other = machine("snapshot", &seed(2, 0));
    fs::copy(desk.path("good"), other.path("targets.json")).unwrap();
    assert!(other.bad("sign --file targets.json").contains("no key of 'targets' is at hand"));
    for (line, says) in [
        ("sign --file good", "is not called <role>.json"),
        ("sign --file targets.json --renew", "without a repository"),
        ("sign --file targets.json --role a --role b", "of one --role"),
    ] {
        let ended = desk.run(line);
        assert!(ended.code == 2 && ended.err.contains(says), "{line}: {}", ended.err);
    }
}
