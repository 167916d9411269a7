//! Two sides of an independent implementation: the reference client downloads every target of what `publish` wrote, and
//! `vmetric-release tuf` answers as it has to when the reference implementation makes the repository.

use std::process::Command;

use crate::release_bench::Bench;

#[expect(clippy::disallowed_methods, reason = "the test runner says where Python is")]
fn python() -> String {
    std::env::var("VMETRIC_PYTHON_TUF").expect("VMETRIC_PYTHON_TUF names a python with tuf; tests/python/setup makes one")
}

#[test]
#[ignore = "needs VMETRIC_PYTHON_TUF; tests/run sets it"]
fn tuf_agrees_with_python_tuf() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/tuf_cases.py");
    let ended = Command::new(python()).arg(script).arg(env!("CARGO_BIN_EXE_vmetric-release")).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    let last = said.lines().rfind(|line| line.contains(" passed, ")).unwrap_or_default();
    assert!(ended.status.success() && last.contains(" passed, 0 failed"), "{said}");
    println!("{last}");
}

#[test]
#[ignore = "needs VMETRIC_PYTHON_TUF; tests/run sets it"]
fn python_tuf_downloads_every_target() {
    let bench = Bench::with_seeds();
    // The other client reads the real clock.
    let line = |line: &str| bench.good(&format!("{line} --now {}", now()));
    bench.write("vmetric-agent", b"agent 1.0.0");
    bench.write("dist/1.1.0/linux-amd64/vmetric-agent", &[0x5a; 300_000]);
    bench.write("dist/1.1.0/linux-arm64/vmetric-agent", b"agent 1.1.0 for arm64");
    line("init --repo release");
    line("add --repo release --product vmetric-agent --version 1.0.0 --os linux --arch amd64 vmetric-agent");
    line("sign --repo release");
    line("publish --repo release --out public");
    line("add --repo release --min-version 1.0.0 --counter 1 dist");
    line("rotate --repo release --role root --threshold 2");
    line("sign --repo release");
    line("publish --repo release --out public");
    line("withdraw --repo release vmetric-agent/1.0.0/linux-amd64/vmetric-agent --reason old");
    line("sign --repo release");
    line("publish --repo release --out public");

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/tuf_client.py");
    let ended =
        Command::new(python()).arg(script).arg(bench.path("public")).arg(bench.path("public/metadata/1.root.json")).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("ok 2 targets"), "{said}");
}

#[expect(clippy::disallowed_methods, reason = "the other client reads the real clock")]
fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    vmetric::core::time::format(since.as_secs())
}
