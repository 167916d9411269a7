//! `vmetric-release add` refuses what is not the program that its path names, and `inspect` says what a file is.

use std::fs;
use std::path::Path;

use vmetric::agent::build;
use vmetric::core::release::Platform;

use crate::release_bench::Bench;

/// The tests' own build of the agent: a whole program, for this platform, with its stamp.
fn agent() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_vmetric-agent")).unwrap()
}

fn add(bench: &Bench, version: &str, platform: &str, more: &str) -> (i32, String) {
    let (os, arch) = platform.split_once('-').unwrap();
    let ended = bench.run_as_is(&format!(
        "add --repo release --keys keys --product vmetric-agent --version {version} --os {os} --arch {arch} vmetric-agent{} {more}",
        if os == "windows" { ".exe" } else { "" }
    ));
    (ended.code, ended.out + &ended.err)
}

#[test]
fn a_build_is_published_as_what_it_is_or_not_at_all() {
    let bench = Bench::with_seeds();
    bench.good("init --repo release --keys keys");
    let (here, own) = (Platform::here().to_string(), agent());
    let dynamic = "--allow-dynamic";
    let refused = |version: &str, platform: &str, more: &str, says: &[&str]| {
        let (code, said) = add(&bench, version, platform, more);
        assert!(code == 1 && said.contains("--unchecked") && says.iter().all(|w| said.contains(w)), "{says:?}: {said}");
        assert_eq!(bench.good("list --repo release --json").trim(), r#"{"artifacts":[]}"#);
    };
    bench.write("vmetric-agent", &own);
    bench.write("vmetric-agent.exe", &own);
    let others = ["linux-amd64", "linux-arm64", "linux-armv7", "windows-amd64", "darwin-arm64"];
    for other in others.into_iter().filter(|o| *o != here) {
        refused(build::VERSION, other, dynamic, &["is made for", &here, other]);
    }
    refused("9.9.9", &here, dynamic, &["calls itself", build::VERSION, "VMETRIC_VERSION=9.9.9"]);
    bench.write("vmetric-agent", &own[..own.len() - 1]);
    refused(build::VERSION, &here, dynamic, &["its contents end at"]);
    bench.write("vmetric-agent", &fs::read(env!("CARGO_BIN_EXE_vmetric-director")).unwrap());
    refused(build::VERSION, &here, dynamic, &["is vmetric-director, not vmetric-agent"]);
    bench.write("vmetric-agent", b"#!/bin/sh\n");
    refused(build::VERSION, &here, dynamic, &["it is a script"]);
    if let Ok(other) = fs::read("/bin/true") {
        bench.write("vmetric-agent", &other);
        refused(build::VERSION, &here, dynamic, &["no build stamp"]);
    }

    bench.write("vmetric-agent", &own);
    // Host builds need the host's C library, unless the tests are built for a static target.
    if cfg!(all(target_os = "linux", not(target_feature = "crt-static"))) {
        refused(build::VERSION, &here, "", &["needs /lib", "cross/build", "--allow-dynamic"]);
    }
    let (code, said) = add(&bench, build::VERSION, &here, dynamic);
    assert!(code == 0 && said.contains("added"), "{said}");
}

#[test]
fn who_knows_better_says_why() {
    let bench = Bench::new();
    bench.good("init --repo release --keys keys");
    bench.write("vmetric-agent", b"any bytes");
    assert_eq!(add(&bench, "1.0.0", "linux-amd64", "--unchecked=").0, 2, "a reason is wanted");
    let (code, said) = add(&bench, "1.0.0", "linux-amd64", "--unchecked a-test-of-mirrors");
    assert!(code == 0 && said.contains("not checked") && said.contains("a-test-of-mirrors"), "{said}");
    // What is no program of ours is nobody's to judge here.
    bench.write("probe", b"any bytes");
    let probe = bench.run_as_is("add --repo release --keys keys --product probe --version 1.0.0 --os linux --arch amd64 probe");
    assert_eq!(probe.code, 0, "{}{}", probe.out, probe.err);
}

#[test]
fn inspect_names_platform_linkage_and_build() {
    let bench = Bench::with_seeds();
    bench.write("vmetric-agent", &agent());
    let said = bench.good("inspect vmetric-agent --json");
    for word in [Platform::here().to_string(), format!(r#""version":"{}""#, build::VERSION), format!(r#""target":"{}""#, build::TARGET)] {
        assert!(said.contains(&word), "{word}: {said}");
    }
    assert!(bench.good("inspect vmetric-agent").contains("linkage"));
    bench.write("text", b"agent 1.0.0");
    assert!(bench.bad("inspect text").contains("text: is no program"));
    assert!(bench.bad("inspect nothing").contains("no such file"));
}

#[test]
fn the_systems_own_programs_are_read_as_what_they_are() {
    let bench = Bench::with_seeds();
    // Static and dynamic, by other linkers than ours, where they are installed.
    for (file, says) in [("/bin/true", "ld-linux"), ("/bin/busybox", "static"), ("/usr/bin/qemu-arm-static", "static")] {
        if cfg!(target_os = "linux") && Path::new(file).exists() {
            let said = bench.good(&format!("inspect {file}"));
            assert!(said.contains("linux-") && (said.contains(says) || said.contains("ld-")), "{file}: {said}");
        }
    }
}
