//! `bundle`: one file that holds what an air-gapped site needs, and every way in which it can be spoiled.

use std::fs;
use std::process::Command;

use vmetric::core::bundle::{BLOCK, Member, header, members};

use crate::release_bench::{Bench, copy};

const VERIFY: &str = "verify --bundle site.vmb --root release/root.json";

/// Two versions for two platforms, and a second root.
fn bundled() -> Bench {
    let bench = Bench::with_seeds();
    bench.good("init --repo release --keys keys");
    for version in ["1.0.0", "2.0.0", "3.0.0-rc.1"] {
        for platform in ["linux-amd64", "linux-arm64"] {
            bench.write(&format!("dist/{version}/{platform}/vmetric-agent"), format!("agent {version} for {platform}").as_bytes());
        }
    }
    bench.good("add --repo release --keys keys dist");
    bench.release();
    bench.good("sign --repo release --keys keys --renew --role root");
    bench.release();
    bench.good("bundle --tree public --out site.vmb");
    bench
}

fn bytes(bench: &Bench) -> Vec<u8> {
    fs::read(bench.path("site.vmb")).unwrap()
}

/// A bundle of these members, in this order.
fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.extend_from_slice(&header(name, bytes.len() as u64).unwrap());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn unpacked(all: &[u8]) -> Vec<(String, Vec<u8>)> {
    let part = |m: &Member| all[m.offset as usize..(m.offset + m.length) as usize].to_vec();
    members(all).unwrap().iter().map(|m| (m.name.clone(), part(m))).collect()
}

#[test]
fn a_bundle_is_the_current_tree_in_one_file() {
    let bench = bundled();
    let said = bench.good(VERIFY);
    assert!(said.contains("verified: 6 files"), "{said}");
    assert_eq!(packed(&unpacked(&bytes(&bench))), bytes(&bench));
    let tree = bench.files("public");
    for (name, content) in unpacked(&bytes(&bench)) {
        assert_eq!(tree[&name], content, "{name}");
    }
    // Only what is superseded is not in it: an earlier timestamp has no name of its own, so this is all.
    let names: Vec<String> = unpacked(&bytes(&bench)).into_iter().map(|(n, _)| n).collect();
    assert!(names.contains(&"metadata/1.root.json".into()) && names.contains(&"metadata/2.root.json".into()), "{names:?}");
    assert!(names.len() == tree.len(), "{names:?}");
}

#[test]
fn any_tar_unpacks_a_published_tree() {
    let bench = bundled();
    fs::create_dir(bench.path("unpacked")).unwrap();
    let Ok(ended) = Command::new("tar").args(["-xf", "../site.vmb"]).current_dir(bench.path("unpacked")).output() else {
        crate::left_out("no tar here");
        return;
    };
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
    bench.good("verify --tree unpacked --root release/root.json");
    assert_eq!(bench.files("unpacked"), bench.files("public"));
}

#[test]
fn a_selection_leaves_out_files_and_no_metadata() {
    let bench = bundled();
    for (options, expected) in [
        ("--version latest --arch amd64", vec!["vmetric-agent/2.0.0/linux-amd64/vmetric-agent"]),
        (
            "--version 3.0.0-rc.1 --version 1.0.0 --arch arm64",
            vec!["vmetric-agent/1.0.0/linux-arm64/vmetric-agent", "vmetric-agent/3.0.0-rc.1/linux-arm64/vmetric-agent"],
        ),
    ] {
        let said = bench.good(&format!("bundle --tree public --out site.vmb --product vmetric-agent --os linux {options}"));
        let listed: Vec<&str> = said.lines().filter(|l| l.starts_with("vmetric-agent/")).collect();
        assert_eq!(listed, expected);
        assert!(said.contains(&format!("left out by the selection: {} files", 6 - expected.len())), "{said}");
        let verified = bench.good(VERIFY);
        assert!(verified.contains(&format!("verified: {} files", expected.len())) && verified.contains("not in this bundle"), "{verified}");
    }
    assert!(bench.bad("bundle --tree public --out none.vmb --os darwin").contains("none of its 6 files fits"));
    assert!(!bench.path("none.vmb").exists());
}

#[test]
fn the_same_tree_gives_the_same_bundle() {
    let (one, two) = (bundled(), bundled());
    assert_eq!(bytes(&one), bytes(&two));
    copy(&one.path("public"), &one.path("copy"));
    one.good("bundle --tree copy --out site.vmb");
    assert_eq!(bytes(&one), bytes(&two));
}

#[test]
fn a_bundle_of_a_tree_that_devices_refuse_is_not_made() {
    let bench = bundled();
    let said = bench.bad("bundle --tree public --out late.vmb --now 2027-01-01T00:00:00Z");
    assert!(said.contains("timestamp_expired"), "{said}");
    let artifact = bench.published_artifact("2.0.0/linux-amd64");
    fs::remove_file(&artifact).unwrap();
    assert!(bench.bad("bundle --tree public --out late.vmb").contains("no such file"));
    bench.write("other", b"agent 2.0.0 for linux-amd65");
    fs::copy(bench.path("other"), &artifact).unwrap();
    assert!(bench.bad("bundle --tree public --out late.vmb").contains("file_hash"));
    let left: Vec<String> = bench.files("").into_keys().filter(|n| n.contains("late")).collect();
    assert!(left.is_empty(), "nothing half-made stays: {left:?}");
}

/// Every member: a flipped bit in its header, its bytes and its padding; the file cut within it.
#[test]
fn whatever_is_changed_in_a_bundle_is_refused_and_named() {
    let bench = bundled();
    let good = bytes(&bench);
    let all = members(&good).unwrap();
    for (i, member) in all.iter().enumerate() {
        let at = member.offset as usize;
        // 1.root.json is trusted already and does not have to be read by a device that was made with it.
        for (place, why) in [(at - 500, "header"), (at + 3, "bytes"), (at + member.length as usize + 1, "padding")] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            bench.write("site.vmb", &bad);
            let said = bench.bad(VERIFY);
            let before = i.checked_sub(1).map_or("first member", |b| all[b].name.as_str());
            // Refused content is named by its role, or by its path without the hash.
            let (folder, file) = member.name.split_once('/').and_then(|(_, rest)| rest.rsplit_once('/')).unwrap_or(("", &member.name[9..]));
            let role = file.trim_end_matches(".json").trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let role = if folder.is_empty() { role } else { folder };
            assert!(said.contains(&member.name) || said.contains(before) || said.contains(role), "{why} of {}: {said}", member.name);
        }
        bench.write("site.vmb", &good[..at + member.length as usize / 2]);
        let said = bench.bad(VERIFY);
        let before = i.checked_sub(1).map_or("too few", |b| all[b].name.as_str());
        assert!(said.contains(&member.name) || said.contains(before), "cut in {}: {said}", member.name);
    }
    bench.write("site.vmb", &good);
    bench.good(VERIFY);
}

#[test]
fn what_is_no_bundle_is_refused_with_its_code() {
    let bench = bundled();
    let good = bytes(&bench);
    let mut files = unpacked(&good);
    files.push(("targets/zzz".into(), b"a stowaway".to_vec()));
    let stowaway = packed(&files);
    let without = |name: &str| packed(&unpacked(&good).into_iter().filter(|(n, _)| n != name).collect::<Vec<_>>());
    for (what, bytes, code) in [
        ("a compressed file", [&b"\x1f\x8b\x08\x00"[..], &[3; 4096]].concat(), "bundle_foreign"),
        ("an empty file", Vec::new(), "bundle_truncated"),
        ("a cut copy", good[..good.len() - 512].to_vec(), "bundle_truncated"),
        ("a stowaway", stowaway, "bundle_unnamed"),
        ("no timestamp", without("metadata/timestamp.json"), "timestamp_missing"),
        ("no snapshot", without("metadata/1.snapshot.json"), "snapshot_missing"),
        ("no first root", without("metadata/1.root.json"), "root_missing"),
        ("no second root", without("metadata/2.root.json"), "root_chain"),
    ] {
        bench.write("site.vmb", &bytes);
        let said = bench.bad(&format!("{VERIFY} --json"));
        assert!(said.contains(code), "{what}: {said}");
    }
    let other = Bench::new();
    other.good("init --repo release --keys keys");
    fs::copy(other.path("release/root.json"), bench.path("other.json")).unwrap();
    bench.write("site.vmb", &good);
    let said = bench.bad("verify --bundle site.vmb --root other.json --json");
    assert!(said.contains("root_threshold_trusted"), "somebody else's bundle: {said}");
}
