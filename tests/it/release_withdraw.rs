//! `withdraw`: what is signed in the place of a release that was taken back, and what may never come again unnoticed.

use crate::release_bench::{Bench, add_line};

const VERIFY: &str = "verify --tree public --root release/root.json";

fn two_platforms() -> Bench {
    let bench = Bench::with_seeds();
    bench.good("init --repo release --keys keys");
    for version in ["1.0.0", "2.0.0"] {
        for platform in ["linux-amd64", "linux-arm64"] {
            bench.write(&format!("dist/{version}/{platform}/vmetric-agent"), format!("agent {version} for {platform}").as_bytes());
        }
    }
    bench.good("add --repo release --keys keys dist");
    bench.release();
    bench
}

#[test]
fn the_reason_is_signed_in_the_place_of_the_release() {
    let bench = two_platforms();
    let said = bench.good("withdraw --repo release 2.0.0 --os linux --arch arm64 --reason fills-the-disk");
    assert!(said.contains("withdrawn: vmetric-agent/2.0.0/linux-arm64/vmetric-agent") && !said.contains("amd64"), "{said}");
    assert!(bench.bad("publish --repo release --out public").contains("agent-linux-arm64 version 2"), "unsigned words are nobody's");
    bench.release();
    let seen = bench.good(VERIFY);
    assert!(
        seen.contains("verified: 3 files") && seen.contains("withdrawn: vmetric-agent/2.0.0/linux-arm64/vmetric-agent: fills-the-disk"),
        "{seen}"
    );
    let listed = bench.good("list --repo release --json");
    assert!(listed.contains(r#""reason":"fills-the-disk""#), "{listed}");
    let role = String::from_utf8(bench.files("public")["metadata/2.agent-linux-arm64.json"].clone()).unwrap();
    assert!(
        role.contains(r#""x-vmetric-withdrawn":{"vmetric-agent/2.0.0/linux-arm64/vmetric-agent":{"reason":"fills-the-disk","sha256":""#)
    );
    let other = String::from_utf8(bench.files("public")["metadata/1.agent-linux-amd64.json"].clone()).unwrap();
    assert!(!other.contains("x-vmetric-withdrawn"), "the other platform's role is as it was");
    // Both platforms, by the version alone; what is gone already is no mistake of this one.
    let said = bench.good("withdraw --repo release 1.0.0 --reason old");
    assert!(said.contains("linux-amd64") && said.contains("linux-arm64"), "{said}");
    bench.bad("withdraw --repo release 2.0.0 --arch arm64 --reason again");
}

#[test]
fn withdrawn_bytes_come_back_only_by_name() {
    let bench = two_platforms();
    bench.good("withdraw --repo release 2.0.0 --reason eats-data");
    bench.release();
    bench.write("vmetric-agent", b"agent 2.0.0 for linux-amd64");
    for version in ["2.0.0", "2.0.1"] {
        let refusal = bench.bad(&add_line(version));
        assert!(refusal.contains("were withdrawn as vmetric-agent/2.0.0") && refusal.contains("eats-data"), "{version}: {refusal}");
    }
    // The note may go, the memory does not.
    assert!(bench.good("withdraw --repo release --forget 2.0.0").contains("forgotten: vmetric-agent/2.0.0/linux-amd64"));
    bench.release();
    assert!(!bench.good(VERIFY).contains("withdrawn"));
    assert!(bench.bad(&add_line("2.0.0")).contains("--reinstate"));
    bench.good(&format!("{} --reinstate", add_line("2.0.0")));
    bench.release();
    let seen = bench.good(VERIFY);
    assert!(seen.contains("verified: 3 files") && !seen.contains("withdrawn"), "{seen}");
    assert!(bench.good(&add_line("2.0.0")).contains("unchanged"), "once said is said");
    // A corrected file is another file.
    bench.write("vmetric-agent", b"agent 2.0.2, corrected");
    bench.add("2.0.2");
}

#[test]
fn a_withdrawn_path_is_never_used_for_other_bytes() {
    let bench = two_platforms();
    bench.good("withdraw --repo release 2.0.0 --reason eats-data");
    bench.release();
    bench.write("vmetric-agent", b"something else");
    assert!(bench.bad(&format!("{} --reinstate", add_line("2.0.0"))).contains("already published with other bytes"));
}

#[test]
fn a_release_that_is_back_is_no_longer_withdrawn() {
    let bench = two_platforms();
    bench.good("withdraw --repo release 2.0.0 --reason eats-data");
    bench.release();
    bench.write("vmetric-agent", b"agent 2.0.0 for linux-amd64");
    bench.good(&format!("{} --reinstate", add_line("2.0.0")));
    bench.release();
    let listed = bench.good("list --repo release");
    assert!(
        listed.contains("vmetric-agent/2.0.0/linux-amd64") && !listed.contains("withdrawn: vmetric-agent/2.0.0/linux-amd64"),
        "{listed}"
    );
    assert!(listed.contains("withdrawn: vmetric-agent/2.0.0/linux-arm64"), "{listed}");
}
