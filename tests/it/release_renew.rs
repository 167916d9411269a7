//! `renew`, as a daily job runs it: what it does alone, and what it asks of whom.

use crate::release_bench::{Bench, add_line};

const DAILY: &str = "renew --repo release --out public";
const SEEDED: [&str; 5] = ["ROOT", "TARGETS", "SNAPSHOT", "BUILD", "AGENT_LINUX_AMD64"];

/// A machine that holds the timestamp's key only.
fn signer_of_the_timestamp() -> Bench {
    let mut bench = Bench::with_seeds();
    bench.published();
    for role in SEEDED {
        bench.set(&format!("VMETRIC_KEY_{role}"), "");
    }
    bench
}

fn keyid(bench: &Bench, role: &str) -> String {
    let keys = bench.good("keys --repo release");
    keys.lines().find(|l| l.starts_with(role)).unwrap().split_whitespace().nth(1).unwrap().to_string()
}

#[test]
fn the_timestamp_is_renewed_every_day_and_nothing_else() {
    let bench = signer_of_the_timestamp();
    let before = bench.files("public");
    let dry = bench.good(&format!("{DAILY} --dry-run --now 2026-11-25T12:00:00Z"));
    assert!(dry.contains("would renew: timestamp") && bench.files("public") == before, "{dry}");
    for (day, version) in [("25", 2), ("26", 3)] {
        let said = bench.good(&format!("{DAILY} --now 2026-11-{day}T12:00:00Z"));
        assert!(said.contains(&format!("renewed: timestamp version {version}")) && !said.contains("must be signed"), "{said}");
    }
    bench.good("verify --tree public --root release/root.json --now 2026-12-02T12:00:00Z");
    let after = bench.files("public");
    let changed: Vec<&String> = after.iter().filter(|(name, bytes)| before.get(*name) != Some(bytes)).map(|(name, _)| name).collect();
    assert_eq!(changed, ["metadata/timestamp.json"]);
}

#[test]
fn in_the_last_third_it_says_who_must_sign_by_when() {
    let mut bench = signer_of_the_timestamp();
    // The snapshot has 59 of its 180 days left.
    let late = format!("{DAILY} --now 2027-03-24T00:00:00Z");
    let ended = bench.run(&late);
    assert_eq!(ended.code, 3, "{}{}", ended.out, ended.err);
    let said = ended.out;
    assert!(said.contains("renewed: timestamp") && said.contains("must be signed by 2027-05-21T12:00:00Z (58 days): snapshot"), "{said}");
    assert!(said.contains(&keyid(&bench, "snapshot")) && said.contains("--role snapshot --renew"), "{said}");
    let json = bench.run(&format!("{late} --json"));
    assert!(
        json.code == 3 && json.out.contains(r#""by":"2027-05-21T12:00:00Z""#) && json.out.contains(r#""role":"snapshot""#),
        "{}",
        json.out
    );

    bench.set("VMETRIC_KEY_SNAPSHOT", &crate::release_bench::seed(2, 0));
    let said = bench.good(&late);
    assert!(said.contains("renewed: snapshot version 2") && said.contains("renewed: timestamp"), "{said}");
    bench.good("verify --tree public --root release/root.json --now 2027-03-24T00:00:00Z");
}

#[test]
fn what_is_at_hand_is_renewed_and_the_rest_is_asked_for_with_its_threshold() {
    let mut bench = signer_of_the_timestamp();
    bench.set("VMETRIC_KEY_SNAPSHOT", &crate::release_bench::seed(2, 0));
    bench.set("VMETRIC_KEY_AGENT_LINUX_AMD64", &crate::release_bench::seed(5, 0));
    // One of two is not enough.
    bench.set("VMETRIC_KEY_TARGETS", &crate::release_bench::seed(1, 0));
    let late = "--now 2027-08-01T00:00:00Z";
    let dry = bench.run(&format!("{DAILY} --dry-run {late}"));
    assert!(dry.code == 3 && dry.out.contains("would renew: agent-linux-amd64"), "{}", dry.out);
    let ended = bench.run(&format!("{DAILY} {late}"));
    assert_eq!(ended.code, 3, "{}{}", ended.out, ended.err);
    for says in ["renewed: agent-linux-amd64 version 2", "renewed: snapshot version 2", "renewed: timestamp version 2"] {
        assert!(ended.out.contains(says), "{says}: {}", ended.out);
    }
    for says in ["2 of the keys of targets", "3 of the keys of root", &keyid(&bench, "root"), &keyid(&bench, "targets")] {
        assert!(ended.out.contains(says), "{says}: {}", ended.out);
    }
    bench.good(&format!("verify --tree public --root release/root.json {late}"));
    assert!(!bench.files("public/metadata").contains_key("2.targets.json"), "nothing half-signed is drafted");
    let again = bench.run(&format!("{DAILY} {late}"));
    assert!(again.code == 3 && !again.out.contains("agent-linux-amd64 version 3"), "once is enough: {}", again.out);
}

#[test]
fn people_who_still_sign_do_not_stop_the_clockwork() {
    let mut bench = signer_of_the_timestamp();
    bench.set("VMETRIC_KEY_BUILD", &crate::release_bench::seed(4, 0));
    bench.write("vmetric-agent", b"agent 1.1.0");
    bench.good(&add_line("1.1.0"));
    let ended = bench.run(&format!("{DAILY} --now 2026-11-25T12:00:00Z"));
    assert_eq!(ended.code, 3, "{}{}", ended.out, ended.err);
    assert!(
        ended.out.contains("renewed: timestamp version 2") && ended.out.contains("0 of 1 signatures of agent-linux-amd64"),
        "{}",
        ended.out
    );
    assert!(ended.out.contains(&keyid(&bench, "agent-linux-amd64")), "{}", ended.out);
    // Even when the snapshot's key is there and its time is near.
    bench.set("VMETRIC_KEY_SNAPSHOT", &crate::release_bench::seed(2, 0));
    let ended = bench.run(&format!("{DAILY} --now 2027-04-25T12:00:00Z"));
    assert!(ended.code == 3 && ended.out.contains("renewed: timestamp version 3"), "{}{}", ended.out, ended.err);
}
