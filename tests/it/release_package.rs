//! Resource packages on the release side: what is packed, taken, signed, and seen by a device.

use std::fs;
use std::process::Command;

use crate::release_bench::{Bench, seed};

const ADD: &str = "add --repo release --keys keys dist";
const VERIFY: &str = "verify --tree public --root release/root.json";
const PACKAGE: &str = "dist/2.5.0/linux-amd64/package.tar.zst";

fn bench() -> Bench {
    let mut bench = Bench::with_seeds();
    bench.set("VMETRIC_KEY_DIRECTOR_LINUX_AMD64", &seed(9, 0));
    bench.good("init --repo release --keys keys");
    bench.write("resources/pipelines/syslog.yml", b"stages: []\n");
    bench.write("resources/lookups/ports.csv", b"22,ssh\n");
    bench.write("dist/2.5.0/linux-amd64/vmetric-director", b"director");
    bench
}

fn sh(bench: &Bench, line: &str) {
    let done = Command::new("sh").args(["-ec", line]).current_dir(bench.path("")).status().unwrap();
    assert!(done.success(), "{line}");
}

#[test]
fn a_package_is_published_beside_its_binary_with_what_it_unpacks_to() {
    let bench = bench();
    let said = bench.good(&format!("package resources --out {PACKAGE}"));
    assert!(said.contains("2 files of 18 bytes"), "{said}");
    let first = fs::read(bench.path(PACKAGE)).unwrap();
    // Other dates, another order of making, another folder.
    bench.write("again/lookups/ports.csv", b"22,ssh\n");
    bench.write("again/pipelines/syslog.yml", b"stages: []\n");
    sh(&bench, "touch -d 2001-01-01 again/lookups/ports.csv; chmod 600 again/pipelines/syslog.yml");
    bench.good("package again --out second/package.tar.zst");
    assert_eq!(fs::read(bench.path("second/package.tar.zst")).unwrap(), first, "the same bytes twice");

    let added = bench.good(&format!("{ADD} --json"));
    assert!(added.contains(r#""unpacked":{"bytes":18,"files":2}"#), "{added}");
    bench.release();
    let good = bench.good(VERIFY);
    assert!(good.contains("vmetric-director/2.5.0/linux-amd64/package.tar.zst") && good.contains("verified: 2 files"), "{good}");
    let metadata = bench.files("public/metadata");
    let role = metadata.iter().find(|(name, _)| name.ends_with("director-linux-amd64.json")).unwrap().1;
    assert!(String::from_utf8_lossy(role).contains(r#""unpacked":{"bytes":18,"files":2}"#), "signed by the same role");
    // Once more is nothing new.
    assert!(bench.good(ADD).contains("unchanged"));
}

#[test]
fn what_a_device_would_refuse_is_not_added() {
    let bench = bench();
    fs::create_dir_all(bench.path("dist/2.5.0/linux-amd64")).unwrap();
    let tar = "tar --format=ustar --owner=0 --group=0 -C resources";
    for (make, code) in [
        ("ln -s /etc resources/etc; TAR -c . | gzip > OUT; rm resources/etc", "is a link"),
        ("ln resources/lookups/ports.csv resources/z; TAR -c . | gzip > OUT; rm resources/z", "is a link"),
        ("mkfifo resources/p; TAR -c . | gzip > OUT; rm resources/p", "device or a pipe"),
        ("TAR -P --transform s,^,/abs/, -c lookups | gzip > OUT", "absolute path"),
        ("TAR -P --transform s,^,../up/, -c lookups | gzip > OUT", "lead out"),
        ("touch resources/NUL.csv; TAR -c . | gzip > OUT; rm resources/NUL.csv", "device on Windows"),
        ("touch resources/Lookups; TAR -c . | gzip > OUT; rm resources/Lookups", "differs in case"),
        ("chmod u+s resources/lookups/ports.csv; TAR -c . | gzip > OUT; chmod u-s resources/lookups/ports.csv", "set-user-ID"),
        ("tar --format=pax -C resources -c . | gzip > OUT", "extension of tar"),
        ("head -c 50000000 /dev/zero > resources/zeros; TAR -c . | gzip > OUT; rm resources/zeros", "200 times"),
        ("TAR -c . | gzip | head -c 100 > OUT", "cannot be unpacked"),
        ("(TAR -c . | gzip; TAR -c . | gzip) > OUT", "behind the end"),
        ("TAR -c . > OUT", "does not begin as its name says"),
    ] {
        let line = make.replace("TAR", tar).replace("OUT", "dist/2.5.0/linux-amd64/package.tar.gz");
        sh(&bench, &line);
        let said = bench.bad(ADD);
        assert!(said.contains(code) && said.contains("vmetric-director/2.5.0/linux-amd64/package.tar.gz"), "{make}: {said}");
        assert_eq!(bench.good("list --repo release --json").trim(), r#"{"artifacts":[]}"#, "{make}");
    }
    for (make, code) in [
        ("ln -s /etc resources/etc", "is a link"),
        ("rm resources/etc; touch 'resources/a:b'", "character"),
        ("rm resources/*:*; touch resources/LOOKUPS", "case"),
    ] {
        sh(&bench, make);
        let said = bench.bad("package resources --out out/package.tar.gz");
        assert!(said.contains(code) && !bench.path("out").exists(), "{make}: {said}");
    }
}

#[test]
fn archives_of_ordinary_tools_are_taken() {
    let bench = bench();
    for (version, line) in [
        ("2.5.0", "tar --format=ustar -C resources -c . | gzip -9 > DIR/package.tar.gz"),
        ("2.5.1", "cd resources && tar --format=gnu -czf ../DIR/package.tar.gz lookups pipelines"),
        ("2.5.2", "cd resources && tar --format=ustar --blocking-factor=64 -czf ../DIR/package.tar.gz *"),
    ] {
        let folder = format!("dist/{version}/linux-amd64");
        bench.write(&format!("{folder}/vmetric-director"), b"director");
        sh(&bench, &line.replace("DIR", &folder));
    }
    bench.good(ADD);
    if Command::new("zstd").arg("--version").output().is_ok() {
        bench.write("dist/2.5.3/linux-amd64/vmetric-director", b"director");
        sh(&bench, "tar --format=ustar -C resources -c . | zstd -q -19 > dist/2.5.3/linux-amd64/package.tar.zst");
        bench.good(ADD);
    } else {
        crate::left_out("archives_of_ordinary_tools_are_taken: zstd is not installed");
    }
    bench.release();
    bench.good(VERIFY);
}

#[test]
fn a_package_belongs_to_a_director_and_there_is_one() {
    let bench = bench();
    bench.good(&format!("package resources --out {PACKAGE}"));
    bench.good("package resources --out dist/2.5.0/linux-amd64/package.tar.gz");
    assert!(bench.bad(ADD).contains("a release has one package"));
    fs::remove_file(bench.path("dist/2.5.0/linux-amd64/package.tar.gz")).unwrap();
    let said =
        bench.bad(&format!("add --repo release --keys keys --product vmetric-agent --version 2.5.0 --os linux --arch amd64 {PACKAGE}"));
    assert!(said.contains("is one binary"), "{said}");
    assert_eq!(bench.run("package resources --out out/resources.tar.gz").code, 2);
}
