//! `vmetric-release` from the outside: what it publishes, what it refuses, what an interruption leaves.

use std::fs;

use crate::release_bench::{Bench, NOW, add_line, copy, seed};

const VERIFY: &str = "verify --tree public --root release/root.json";

#[test]
fn a_first_and_a_second_release_verify_as_a_device_does() {
    let bench = Bench::with_seeds();
    bench.published();
    let first = bench.good(VERIFY);
    assert!(first.contains("vmetric-agent/1.0.0/linux-amd64/vmetric-agent") && first.contains("verified: 1 files"), "{first}");

    let before = bench.files("public");
    bench.write("vmetric-agent", b"agent 1.1.0");
    bench.add("1.1.0");
    bench.release();
    let second = bench.good(VERIFY);
    assert!(second.contains("verified: 2 files"), "{second}");
    let after = bench.files("public");
    for (name, bytes) in &before {
        assert_eq!(after[name] == *bytes, name != "metadata/timestamp.json", "only the timestamp ever changes: {name}");
    }
}

#[test]
fn a_folder_of_platforms_is_added_whole_or_not_at_all() {
    let bench = Bench::with_seeds();
    bench.good("init --repo release --keys keys");
    bench.write("dist/1.0.0/linux-amd64/vmetric-agent", b"for amd64");
    bench.write("dist/1.0.0/linux-arm64/vmetric-agent", b"for arm64");
    bench.write("dist/1.0.0/linux-arm64/Notes.TXT", b"no artifact");
    assert!(bench.bad("add --repo release dist").contains("Notes.TXT"));
    assert_eq!(bench.good("list --repo release --json").trim(), r#"{"artifacts":[]}"#);

    fs::remove_file(bench.path("dist/1.0.0/linux-arm64/Notes.TXT")).unwrap();
    bench.good("add --repo release --min-version 0.9.0 --counter 4 dist");
    bench.release();
    let listed = bench.good("list --repo release --json");
    assert!(listed.contains(r#""counter":4"#) && listed.contains(r#""min_version":"0.9.0""#), "{listed}");
    assert!(bench.good(&format!("{VERIFY} --json")).contains(r#""ok":true"#));
}

#[test]
fn what_its_build_did_not_list_is_not_added() {
    let bench = Bench::with_seeds();
    bench.good("init --repo release --keys keys");
    let line = |bytes: &[u8], name: &str| format!("{}  {name}\n", vmetric::core::hex::encode(&vmetric::core::hex::sha256(bytes)));
    let sums = |text: &str| bench.write("dist/1.0.0/SHA256SUMS", text.as_bytes());
    bench.write("dist/1.0.0/linux-amd64/vmetric-agent", b"for amd64");
    bench.write("dist/1.0.0/linux-arm64/vmetric-agent", b"for arm64");
    let (linux, arm) = (line(b"for amd64", "linux-amd64/vmetric-agent"), line(b"for arm64", "linux-arm64/vmetric-agent"));

    let refused = [
        (linux.clone(), "SHA256SUMS beside it does not list it"),
        (format!("{linux}{}", line(b"other bytes", "linux-arm64/vmetric-agent")), "linux-arm64/vmetric-agent: is not what SHA256SUMS"),
        (format!("{linux}{arm}{}", line(b"", "darwin-arm64/vmetric-agent")), "lists darwin-arm64/vmetric-agent, which is not there"),
        (format!("{linux}{arm}garbage\n"), "line 3: expected what sha256sum writes"),
    ];
    for (text, said) in refused {
        sums(&text);
        let refusal = bench.bad("add --repo release dist");
        assert!(refusal.contains(said), "{said}: {refusal}");
        assert_eq!(bench.good("list --repo release --json").trim(), r#"{"artifacts":[]}"#);
    }
    sums(&format!("{linux}{arm}"));
    bench.write("dist/packages/1.0.0/vmetric-agent_1.0.0_amd64.deb", b"not for devices");
    bench.good("add --repo release dist");
    bench.release();
    assert!(bench.good(VERIFY).contains("verified: 2 files"));
}

#[test]
fn a_file_that_no_device_would_look_for_is_not_added() {
    let bench = Bench::with_seeds();
    bench.good("init --repo release --keys keys");
    bench.write("vmetric-agent-1.0.0", b"agent");
    let said = bench.bad("add --repo release --product vmetric-agent --version 1.0.0 --os linux --arch amd64 vmetric-agent-1.0.0");
    assert!(said.contains("look for a file called vmetric-agent;"), "{said}");
    bench.write("vmetric-agent", b"agent");
    let said = bench.bad("add --repo release --product vmetric-agent --version 1.0.0 --os windows --arch amd64 vmetric-agent");
    assert!(said.contains("vmetric-agent.exe"), "{said}");
}

#[test]
fn the_same_content_at_the_same_time_gives_the_same_bytes() {
    let (one, two) = (Bench::with_seeds(), Bench::with_seeds());
    one.published();
    two.published();
    assert_eq!(one.files("public"), two.files("public"));
    one.good("publish --repo release --out elsewhere");
    assert_eq!(one.files("public"), one.files("elsewhere"), "a second tree is the same tree");
}

#[test]
fn a_missing_signature_keeps_a_release_from_being_published() {
    let mut bench = Bench::with_seeds();
    bench.published();
    bench.set("VMETRIC_KEY_AGENT_LINUX_AMD64", "");
    bench.write("vmetric-agent", b"agent 1.1.0");
    bench.add("1.1.0");
    let status = bench.good("sign --repo release");
    assert!(status.contains("waiting on agent-linux-amd64 version 2: 0 of 1 signatures"), "{status}");
    let refusal = bench.bad("publish --repo release --out public");
    assert!(refusal.contains("agent-linux-amd64 version 2"), "{refusal}");
    assert!(bench.good(VERIFY).contains("verified: 1 files"));

    // While people still sign, the published releases must not expire.
    bench.good("sign --repo release --renew --role timestamp --now 2026-11-28T00:00:00Z");
    let renewed = bench.good("publish --repo release --out public --now 2026-11-28T00:00:00Z");
    assert!(renewed.contains("timestamp version 2") && renewed.contains("not yet published: agent-linux-amd64"), "{renewed}");
    bench.good(&format!("{VERIFY} --now 2026-12-04T00:00:00Z"));
}

#[test]
fn signers_on_several_machines_add_up() {
    let mut bench = Bench::with_seeds();
    bench.write("vmetric-agent", b"agent 1.0.0");
    bench.good("init --repo release --keys keys");
    bench.add("1.0.0");
    let seeds: Vec<String> = (0..3).map(|n| seed(1, n)).collect();
    for (i, holder) in seeds.iter().take(2).enumerate() {
        assert!(bench.run("publish --repo release --out public").code == 1, "after {i} signatures of targets");
        bench.set("VMETRIC_KEY_TARGETS", holder);
        bench.good("sign --repo release --role targets");
    }
    bench.good("sign --repo release");
    bench.good("publish --repo release --out public");
    bench.good(VERIFY);
}

#[test]
fn whatever_is_changed_in_the_tree_is_refused() {
    let bench = Bench::with_seeds();
    bench.published();
    let all: Vec<String> = bench.files("public").into_keys().collect();
    assert_eq!(all.len(), 6, "{all:?}");
    for name in all {
        let path = bench.path("public").join(&name);
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        let last = flipped.len() - 3;
        flipped[last] ^= 1;
        let cut = &good[..good.len() - 1];
        let longer = [&good[..], b"x"].concat();
        // 1.root.json is not read again by a device that was made with it.
        let matters = name != "metadata/1.root.json";
        for bad in [&flipped[..], cut, &longer] {
            bench.write(&format!("public/{name}"), bad);
            assert_eq!(bench.run(VERIFY).code, i32::from(matters), "{name}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(bench.run(VERIFY).code, i32::from(matters), "{name} is missing");
        bench.write(&format!("public/{name}"), &good);
    }
    bench.good(VERIFY);
}

#[test]
fn a_publish_that_is_cut_anywhere_leaves_a_tree_that_devices_accept() {
    let bench = Bench::with_seeds();
    bench.published();
    copy(&bench.path("public"), &bench.path("before"));
    let before = bench.files("before");
    bench.write("vmetric-agent", b"agent 1.1.0");
    bench.add("1.1.0");
    bench.good("rotate --repo release --role root --threshold 2");
    bench.release();
    let after = bench.files("public");

    // The order of writing: artifacts, roles, snapshot, root, timestamp.
    let rank = |name: &String| match name.as_str() {
        n if n.starts_with("targets/") => 0,
        n if n.ends_with("timestamp.json") => 4,
        n if n.ends_with("root.json") => 3,
        n if n.ends_with("snapshot.json") => 2,
        _ => 1,
    };
    let mut new: Vec<&String> = after.iter().filter(|(n, bytes)| before.get(*n) != Some(bytes)).map(|(n, _)| n).collect();
    new.sort_by_key(|n| rank(n));
    assert_eq!(new.len(), 5, "{new:?}");
    let root = "--root before/metadata/1.root.json";
    for cut in 0..new.len() {
        let seen = bench.good(&format!("verify --tree before {root}"));
        assert!(seen.contains("verified: 1 files"), "cut before {}", new[cut]);
        bench.write(&format!("before/{}", new[cut]), &after[new[cut]]);
    }
    assert!(bench.good(&format!("verify --tree before {root}")).contains("verified: 2 files"));
}

#[test]
fn an_interrupted_publish_is_completed_by_the_next() {
    let bench = Bench::with_seeds();
    bench.published();
    bench.write("vmetric-agent", b"agent 1.1.0");
    bench.add("1.1.0");
    bench.good("sign --repo release");
    // The disk is full of something else where the snapshot belongs.
    fs::create_dir_all(bench.path("public/metadata/2.snapshot.json")).unwrap();
    bench.bad("publish --repo release --out public");
    assert!(bench.good(VERIFY).contains("verified: 1 files"));
    fs::remove_dir(bench.path("public/metadata/2.snapshot.json")).unwrap();

    // A version number that may have been seen is not used for other content.
    bench.write("vmetric-agent", b"agent 1.2.0");
    bench.add("1.2.0");
    bench.release();
    let files = bench.files("public/metadata");
    assert!(files.contains_key("3.snapshot.json"), "{:?}", files.keys());
    assert!(bench.good(VERIFY).contains("verified: 3 files"));
}

#[test]
fn a_published_path_never_changes_and_the_counter_never_falls() {
    let bench = Bench::with_seeds();
    bench.published();
    assert!(bench.good(&add_line("1.0.0")).contains("unchanged"));
    bench.write("vmetric-agent", b"another agent 1.0.0");
    assert!(bench.bad(&add_line("1.0.0")).contains("already published"));
    bench.good(&format!("{} --counter 5", add_line("1.1.0")));
    assert!(bench.bad(&format!("{} --counter 4", add_line("1.2.0"))).contains("has used 5"));
    assert!(bench.good(&add_line("1.2.0")).contains("added"), "without a number the highest goes on");

    bench.release();
    bench.good("withdraw --repo release --reason test vmetric-agent/1.0.0/linux-amd64/vmetric-agent");
    bench.release();
    assert!(bench.good(VERIFY).contains("verified: 2 files"));
    assert!(bench.bad(&add_line("1.0.0")).contains("already published"), "withdrawn is not forgotten");
}

/// The steps that `rotate --help` gives, with a device that knows only the first root looking after each.
#[test]
fn a_key_is_replaced_without_a_gap() {
    let (mut bench, old) = with_two_timestamp_keys();
    bench.good(OLDEST_ROOT);
    bench.set("VMETRIC_KEY_TIMESTAMP", &seed(9, 9));
    bench.good("sign --repo release --renew --role timestamp");
    bench.good("publish --repo release --out public");
    bench.good(OLDEST_ROOT);
    bench.good(&format!("rotate --repo release --role timestamp --remove {old}"));
    bench.release();
    bench.good(OLDEST_ROOT);
    assert!(bench.files("public/metadata").contains_key("3.root.json"));
}

#[test]
fn a_key_that_goes_too_early_is_noticed() {
    let (mut bench, old) = with_two_timestamp_keys();
    bench.set("VMETRIC_KEY_TIMESTAMP", &seed(9, 9));
    bench.good(&format!("rotate --repo release --role timestamp --remove {old}"));
    bench.good("sign --repo release");
    let refusal = bench.bad("publish --repo release --out public");
    assert!(refusal.contains("sign --renew --role timestamp"), "{refusal}");
    bench.good("sign --repo release --renew --role timestamp");
    let refusal = bench.bad("publish --repo release --out public");
    assert!(refusal.contains("devices would refuse what is published until the new timestamp is there"), "{refusal}");
    bench.good(OLDEST_ROOT);
    bench.good("publish --repo release --out public --allow-gap");
    bench.good(OLDEST_ROOT);
}

const OLDEST_ROOT: &str = "verify --tree public --root public/metadata/1.root.json";

/// Root version 2 lists an old and a new timestamp key; the published timestamp is signed by the old one.
fn with_two_timestamp_keys() -> (Bench, String) {
    let mut bench = Bench::with_seeds();
    bench.published();
    let keys = bench.good("keys --repo release");
    let line = keys.lines().find(|l| l.starts_with("timestamp")).unwrap();
    let old = line.split_whitespace().nth(1).unwrap().to_string();
    bench.set("VMETRIC_KEY_TIMESTAMP", &format!("{},{}", seed(3, 0), seed(9, 9)));
    bench.good("rotate --repo release --role timestamp --add 1");
    bench.release();
    (bench, old)
}

#[test]
fn what_expired_is_not_published() {
    let bench = Bench::with_seeds();
    bench.published();
    assert!(bench.bad(&format!("{VERIFY} --now 2026-11-29T12:00:01Z")).contains("timestamp_expired"));
    let refusal = bench.bad("publish --repo release --out public --now 2026-11-29T12:00:01Z");
    assert!(refusal.contains("timestamp version 1 expired on 2026-11-29T12:00:00Z; run 'sign --renew --role timestamp'"), "{refusal}");
    assert!(bench.good(&format!("status --repo release --now {NOW}")).contains("7 days"));
}

#[test]
fn every_bad_input_is_named_with_its_remedy() {
    let bench = Bench::with_seeds();
    bench.published();
    let add = "add --repo release --product vmetric-agent --version";
    bench.write("Agent", b"x");
    bench.write("empty", b"");
    std::os::unix::fs::symlink(bench.path("vmetric-agent"), bench.path("link")).unwrap();
    for (line, code, says) in [
        ("status --repo nowhere".to_string(), 1, "make one with 'init'"),
        ("sign --repo release --keys nowhere".into(), 1, "give the one that 'init' made"),
        ("init --repo release".into(), 1, "there is a repository already"),
        ("verify --tree nowhere --root release/root.json".into(), 1, "give the folder that 'publish' wrote"),
        ("sign --repo release --role nobody".into(), 1, "the roles are root, targets"),
        ("sign --repo release --renew".into(), 2, "--renew needs --role"),
        ("rotate --repo release --role nobody --add 1".into(), 1, "'status' lists the roles"),
        ("rotate --repo release --role timestamp --remove abc".into(), 1, "'keys' lists the full ids"),
        (format!("{add} 1.0 --os linux --arch amd64 vmetric-agent"), 1, "is no target path"),
        (format!("{add} 1.1.0 --os plan9 --arch amd64 vmetric-agent"), 1, "is no target path"),
        (format!("{add} 1.1.0 --os linux --arch amd64 Agent"), 1, "is no target path"),
        (format!("{add} 1.1.0 --os linux --arch amd64 link"), 1, "not a regular file"),
        (format!("{add} 1.1.0 --os linux --arch amd64 missing"), 1, "no such file"),
        (format!("{add} 1.1.0 --os linux --arch amd64 empty"), 1, "is empty"),
        (format!("{add} 1.1.0 --os linux vmetric-agent"), 2, "--arch is missing"),
        ("withdraw --repo release --reason x vmetric-agent/9.9.9/linux-amd64/vmetric-agent".into(), 1, "'list' shows the paths"),
        ("withdraw --repo release --reason x 9.9.9".into(), 1, "'list' shows the paths"),
        ("withdraw --repo release --reason x nine".into(), 2, "neither a version nor a path"),
        ("withdraw --repo release 1.0.0".into(), 2, "either --reason TEXT or --forget"),
        ("withdraw --repo release --reason x --forget 1.0.0".into(), 2, "either --reason TEXT or --forget"),
        ("withdraw --repo release --reason= 1.0.0".into(), 2, "one line of 1 to 200 bytes"),
        (format!("withdraw --repo release --reason {} 1.0.0", "x".repeat(201)), 2, "one line of 1 to 200 bytes"),
        (format!("{add} 1.1.0 --os linux --arch amd64 --min-version 1.1.0 vmetric-agent"), 1, "lower than the version itself"),
        (format!("{add} 1.1.0 --os linux --arch amd64 --min-version new vmetric-agent"), 2, "is no version"),
        ("init --repo r --root-threshold 6".into(), 2, "6 of 5 keys is impossible"),
        ("init --repo r --timestamp-days 0".into(), 2, "--timestamp-days 0"),
        ("status --repo release --now yesterday".into(), 2, "2026-11-22T00:00:00Z"),
        ("frobnicate".into(), 2, "is no command"),
        ("sign --repo release --passphrase=hunter2".into(), 2, "unknown option"),
    ] {
        let ended = bench.run(&line);
        let said = ended.out + &ended.err;
        assert_eq!(ended.code, code, "{line}\n{said}");
        assert!(said.contains(says) && !said.contains("hunter2"), "{line}\n{said}");
    }
}

#[test]
fn a_role_that_devices_could_not_read_is_refused_early() {
    let bench = Bench::with_seeds();
    bench.published();
    // The longest names that are allowed, so that few files fill the role.
    let name = format!("vmetric-agent.{}", "x".repeat(50));
    for n in 0..230 {
        bench.write(&format!("dist/2.0.0-x{n:0>50}/linux-amd64/{name}"), n.to_string().as_bytes());
    }
    let refusal = bench.bad("add --repo release dist");
    assert!(refusal.contains("agent-linux-amd64") && refusal.contains("withdraw"), "{refusal}");
    bench.good("publish --repo release --out public");
}

#[test]
fn an_artifact_that_changed_after_add_is_refused() {
    let bench = Bench::with_seeds();
    bench.write("vmetric-agent", b"agent 1.0.0");
    bench.good("init --repo release --keys keys");
    bench.add("1.0.0");
    bench.good("sign --repo release");
    let staged = bench.files("release/targets").into_keys().next().unwrap();
    for other in [&b"agent 1.0.1"[..], b"agent", b"agent 1.0.0 and more"] {
        bench.write(&format!("release/targets/{staged}"), other);
        let refusal = bench.bad("publish --repo release --out public");
        assert!(refusal.contains("changed after 'add'"), "{refusal}");
    }
    bench.write(&format!("release/targets/{staged}"), b"agent 1.0.0");
    bench.good("publish --repo release --out public");
    bench.good(VERIFY);
    assert!(bench.published_artifact("linux-amd64").exists());
}

#[test]
fn an_older_copy_of_the_repository_does_not_roll_a_tree_back() {
    let bench = Bench::with_seeds();
    bench.published();
    copy(&bench.path("release"), &bench.path("backup"));
    bench.write("vmetric-agent", b"agent 1.1.0");
    bench.add("1.1.0");
    bench.release();
    let refusal = bench.bad("publish --repo backup --out public");
    assert!(refusal.contains("has version 2, this repository would publish 1"), "{refusal}");
}
