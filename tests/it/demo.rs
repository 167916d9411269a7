//! `cargo demo`, once, as a test: every scenario passed, and the last line says so.

use std::process::{Command, Stdio};

#[test]
#[ignore = "builds agents and runs for a minute; tests/run runs the demo itself"]
fn every_scenario_passes() {
    let out = Command::new(env!("CARGO_BIN_EXE_vmetric-demo")).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let table = text.rsplit_once("what happens").map_or("", |(_, table)| table);
    let failed: Vec<&str> = table.lines().filter(|line| line.ends_with(" FAIL")).collect();
    let passed = table.lines().filter(|line| line.ends_with(" PASS")).count();
    assert!(failed.is_empty() && out.status.success(), "{text}");
    assert!(passed >= 10, "{text}");
    assert_eq!(text.lines().last(), Some(format!("demo: {passed} scenarios passed, 0 failed").as_str()));
}
