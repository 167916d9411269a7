//! Every kind of key is replaced, threshold included, with a device of the first root looking after each step.

use std::os::unix::fs::PermissionsExt;

use crate::release_bench::{Bench, seed};

const OLDEST_ROOT: &str = "verify --tree public --root public/metadata/1.root.json";

fn keys(bench: &Bench, role: &str) -> Vec<String> {
    let all = bench.good("keys --repo release");
    all.lines().filter(|l| l.starts_with(&format!("{role} "))).map(|l| l.split_whitespace().nth(1).unwrap().to_string()).collect()
}

fn variable(role: &str) -> String {
    format!("VMETRIC_KEY_{}", role.to_uppercase().replace('-', "_"))
}

#[test]
fn a_key_of_every_role_is_replaced_without_a_gap() {
    for (role, number) in [("targets", 1), ("snapshot", 2), ("timestamp", 3), ("agent-linux-amd64", 5)] {
        let mut bench = Bench::with_seeds();
        bench.published();
        let count = if role == "targets" { 3 } else { 1 };
        let old = keys(&bench, role);
        let seeds: Vec<String> = (0..count).map(|n| seed(number, n)).collect();
        bench.set(&variable(role), &format!("{},{}", seeds.join(","), seed(9, 9)));
        bench.good(&format!("rotate --repo release --role {role} --add 1"));
        bench.release();
        bench.good(OLDEST_ROOT);
        bench.good(&format!("sign --repo release --renew --role {role}"));
        bench.release();
        bench.good(OLDEST_ROOT);
        // The first of the old ones goes; the thief's signature counts no more.
        let gone = (0..count).map(|n| seed(number, n)).find(|s| old[0] == id_of(&bench, role, s)).unwrap();
        let left: Vec<String> = (0..count).map(|n| seed(number, n)).filter(|s| *s != gone).chain([seed(9, 9)]).collect();
        bench.set(&variable(role), &left.join(","));
        bench.good(&format!("rotate --repo release --role {role} --remove {}", old[0]));
        bench.release();
        bench.good(OLDEST_ROOT);
        assert!(!keys(&bench, role).contains(&old[0]), "{role}");
        bench.write("vmetric-agent", b"agent 1.1.0");
        bench.add("1.1.0");
        bench.release();
        assert!(bench.good(OLDEST_ROOT).contains("verified: 2 files"), "{role}");
    }
}

/// Signs nothing: asks which key id a seed has, by a refusal that names it.
fn id_of(bench: &Bench, role: &str, wanted: &str) -> String {
    let mut probe = Bench::new();
    probe.set(&variable(role), wanted);
    probe.write(&format!("{role}.json"), &bench.files("release/draft")[&format!("{role}.json")]);
    let said = probe.good(&format!("sign --file {role}.json"));
    said.lines().find_map(|l| l.strip_prefix("signed by ")).unwrap().to_string()
}

#[test]
fn root_keys_and_threshold_change_and_the_oldest_device_walks_up() {
    let mut bench = Bench::with_seeds();
    bench.published();
    let old = keys(&bench, "root");
    let five: Vec<String> = (0..5).map(|n| seed(0, n)).collect();
    bench.set("VMETRIC_KEY_ROOT", &format!("{},{},{}", five.join(","), seed(9, 1), seed(9, 2)));
    bench.good("rotate --repo release --role root --add 2 --threshold 4");
    bench.release();
    bench.good(OLDEST_ROOT);
    // Two old ones go; too few of the holders before are not enough.
    let stay: Vec<String> = five.iter().filter(|s| !old[..2].contains(&id_of(&bench, "root", s))).cloned().collect();
    assert_eq!(stay.len(), 3);
    bench.good(&format!("rotate --repo release --role root --remove {} --remove {}", old[0], old[1]));
    bench.set("VMETRIC_KEY_ROOT", &stay.join(","));
    bench.good("sign --repo release");
    let refusal = bench.bad("publish --repo release --out public");
    assert!(refusal.contains("3 of 4 signatures of root (root version 3)") && refusal.contains("of root (root version 2)"), "{refusal}");
    assert!(!bench.files("public/metadata").contains_key("3.root.json"));
    bench.set("VMETRIC_KEY_ROOT", &format!("{},{},{}", stay.join(","), seed(9, 1), seed(9, 2)));
    bench.release();
    bench.good(OLDEST_ROOT);
    let metadata = bench.files("public/metadata");
    assert!(metadata.contains_key("3.root.json") && metadata.contains_key("1.root.json"));
    // The root after it is signed by those that stay alone.
    bench.good("sign --repo release --renew --role root");
    bench.release();
    bench.good(OLDEST_ROOT);
    assert!(!old[..2].iter().any(|id| keys(&bench, "root").contains(id)));
    assert!(
        bench
            .bad(&format!("rotate --repo release --role root --remove {} --threshold 9 --json", keys(&bench, "root")[0]))
            .contains("impossible")
    );
}

#[test]
fn a_build_key_is_retired_and_what_it_signed_is_signed_again() {
    let mut bench = Bench::with_seeds();
    bench.published();
    let old = keys(&bench, "build")[0].clone();
    bench.set("VMETRIC_KEY_BUILD", &format!("{},{}", seed(4, 0), seed(9, 9)));
    bench.good("rotate --repo release --role build --add 1");
    bench.release();
    bench.good(OLDEST_ROOT);
    bench.unset("VMETRIC_KEY_BUILD");
    let refusal = bench.bad(&format!("rotate --repo release --role build --remove {old}"));
    assert!(refusal.contains("no other build key is at hand"), "{refusal}");
    bench.set("VMETRIC_KEY_BUILD", &seed(9, 9));
    bench.good(&format!("rotate --repo release --role build --remove {old}"));
    // Without a gap: first what the new key signed, then the root that lists it alone.
    bench.good("sign --repo release --role agent-linux-amd64 --role snapshot --role timestamp");
    bench.good("publish --repo release --out public");
    bench.good(OLDEST_ROOT);
    assert!(bench.files("public/metadata").contains_key("2.agent-linux-amd64.json"));
    bench.release();
    assert!(bench.good(OLDEST_ROOT).contains("verified: 1 files"));
    assert!(bench.files("public/metadata").contains_key("3.root.json"));
    assert!(!keys(&bench, "build").contains(&old));
    bench.write("vmetric-agent", b"agent 1.1.0");
    bench.add("1.1.0");
    bench.release();
    assert!(bench.good(OLDEST_ROOT).contains("verified: 2 files"));
}

#[test]
fn two_machines_with_other_umasks_and_folder_orders_publish_the_same_bytes() {
    let release = |umask: &'static str, order: &[&str]| {
        let mut bench = Bench::with_seeds();
        bench.set_umask(umask);
        bench.good("init --repo release --keys keys");
        for place in order {
            bench.write(&format!("dist/{place}/vmetric-agent"), place.as_bytes());
        }
        bench.good("add --repo release --keys keys dist");
        bench.release();
        bench.good("withdraw --repo release 1.0.0 --arch arm64 --reason old");
        bench.release();
        bench.good("bundle --tree public --out site.vmb");
        bench
    };
    let places = ["1.0.0/linux-amd64", "1.0.0/linux-arm64", "2.0.0/linux-amd64", "2.0.0-rc.1/linux-arm64"];
    let one = release("022", &places);
    let mut backwards = places;
    backwards.reverse();
    let two = release("077", &backwards);
    assert_eq!(one.files("public"), two.files("public"));
    assert_eq!(one.files("release"), two.files("release"), "drafts and records as well");
    assert_eq!(one.files("")["site.vmb"], two.files("")["site.vmb"]);
    // What a web server reads must be readable, whatever the publisher's umask was.
    for name in two.files("public").keys() {
        let mode = std::fs::metadata(two.path("public").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{name}");
    }
}
