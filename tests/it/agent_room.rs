//! A disk without room for two slots, in a mount namespace of its own.

use std::path::Path;
use std::process::Command;

const AGENT: &str = env!("CARGO_BIN_EXE_vmetric-agent");

/// Runs a shell script with `$0` = the state folder, a fresh tmpfs of that size, and `$AGENT`; its output and errors.
fn on_tmpfs(state: &Path, size: &str, script: &str) -> Option<String> {
    if !Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|o| o.status.success()) {
        crate::left_out("no mount namespaces here");
        return None;
    }
    let script = format!("mount -t tmpfs -o size={size} tmpfs \"$0\" || exit 77; {script}");
    let out = Command::new("unshare").args(["-rm", "sh", "-c", &script]).arg(state).env("AGENT", AGENT).output().unwrap();
    assert_ne!(out.status.code(), Some(77), "no tmpfs in a mount namespace");
    Some(String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

#[test]
fn a_disk_without_room_for_two_slots_is_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::fs::metadata(AGENT).unwrap().len();
    // Nobody listens there: what gets so far says something else.
    let enroll = "\"$AGENT\" enroll --state \"$0\" --director https://127.0.0.1:1 --token t --pin sha256:".to_string() + &"00".repeat(32);
    let needs = 2 * program + (16 << 20).max(2 * program / 10);
    let Some(small) = on_tmpfs(folder.path(), "4m", &format!("{enroll}; \"$AGENT\" status --state \"$0\"; ls \"$0/config\"")) else {
        return;
    };
    let told = small.matches("(no_space_for_slots)").count();
    assert!(told == 2 && small.contains(&format!("{needs} are needed")) && small.contains("make room"), "enroll and status: {small}");
    assert!(!small.contains("device.key"), "no identity is made for it: {small}");
    let large = on_tmpfs(folder.path(), &format!("{}k", needs / 1024 + 1024), &enroll).unwrap();
    assert!(!large.contains("no_space") && large.contains("127.0.0.1:1"), "{large}");
}
