//! One integration binary: the module list, and what is said of tests that cannot run.

#[cfg(all(unix, feature = "fleet"))]
mod access;
#[cfg(all(unix, feature = "fleet"))]
mod access_paths;
#[cfg(unix)]
mod agent;
#[cfg(unix)]
mod agent_identity;
mod agent_lack;
mod agent_room;
#[cfg(all(unix, feature = "fleet"))]
mod audit;
mod canonical;
#[cfg(unix)]
mod certificates;
#[cfg(all(target_os = "linux", feature = "fleet"))]
mod cluster;
#[cfg(unix)]
mod cluster_join;
#[cfg(all(target_os = "linux", feature = "fleet"))]
mod cluster_peers;
#[cfg(feature = "director")]
mod cluster_peers_sim;
#[cfg(feature = "director")]
mod cluster_sim;
#[cfg(all(unix, feature = "company-ca"))]
mod company;
mod core_props;
#[cfg(all(unix, feature = "demo"))]
mod demo;
#[cfg(unix)]
mod director;
#[cfg(unix)]
mod director_bench;
#[cfg(unix)]
mod director_config;
#[cfg(unix)]
mod director_hostile;
#[cfg(unix)]
mod director_identity;
#[cfg(unix)]
mod director_limits;
#[cfg(unix)]
mod director_manual;
#[cfg(unix)]
mod director_mirror;
#[cfg(unix)]
mod director_operator;
#[cfg(unix)]
mod director_orders;
#[cfg(unix)]
mod director_policy;
#[cfg(unix)]
mod director_service;
#[cfg(unix)]
mod failover;
#[cfg(unix)]
mod first_boot;
#[cfg(all(unix, feature = "fleet"))]
mod fleet;
#[cfg(all(unix, feature = "fleet"))]
mod fleet_cluster_agents;
#[cfg(all(unix, feature = "fleet"))]
mod fleet_confirm;
#[cfg(all(unix, feature = "fleet"))]
mod fleet_policy;
mod fleet_templates;
mod fleet_told;
mod fleet_webhooks;
mod frozen;
#[cfg(all(unix, feature = "fleet"))]
mod gui;
#[cfg(all(unix, feature = "fleet"))]
mod gui_clusters;
#[cfg(all(unix, feature = "fleet"))]
mod gui_forms;
mod http_client;
#[cfg(unix)]
mod install;
#[cfg(feature = "director")]
mod install_powershell;
#[cfg(all(unix, feature = "fleet"))]
mod install_text;
mod launcher;
#[cfg(unix)]
mod lossy;
#[cfg(target_os = "linux")]
mod newer_state;
#[cfg(target_os = "linux")]
mod notify;
#[cfg(all(target_os = "linux", feature = "fleet"))]
mod own_resources;
#[cfg(all(target_os = "linux", feature = "fleet"))]
mod own_switch;
#[cfg(target_os = "linux")]
mod own_update;
mod power_cut;
#[cfg(unix)]
#[cfg(all(unix, feature = "fleet"))]
#[path = "../demo/relay.rs"]
#[allow(dead_code, reason = "the demo uses the rest of it")]
mod relay;
mod release;
mod release_bench;
#[cfg(unix)]
mod release_bundle;
#[cfg(unix)]
mod release_inspect;
mod release_keys;
#[cfg(all(unix, feature = "fleet"))]
mod release_notes;
#[cfg(target_os = "linux")]
mod release_package;
mod release_python_tuf;
#[cfg(unix)]
mod release_renew;
#[cfg(unix)]
mod release_rotate;
#[cfg(unix)]
mod release_signers;
#[cfg(unix)]
mod release_withdraw;
mod rollout;
mod schedule_oracles;
mod serve;
#[cfg(unix)]
mod service;
#[cfg(all(unix, feature = "fleet"))]
mod store;
mod tidy;
#[cfg(unix)]
mod transcript;
mod trust;
#[cfg(unix)]
mod trust_advisories;
mod trust_cycle;
mod trust_delegation;
mod trust_ed25519;
mod trust_file;
mod trust_interop;
mod trust_repo;
mod trust_shapes;
mod trust_store;
mod trust_years;
#[cfg(all(unix, feature = "fleet"))]
mod uplink;

/// A test that this machine cannot run says so; where everything has to run (`tests/run` sets `VMETRIC_ALL_TESTS`), it fails.
fn left_out(why: &str) {
    assert!(std::env::var_os("VMETRIC_ALL_TESTS").is_none(), "left out: {why}");
    eprintln!("left out: {why}");
}

/// Puts a copy of a program there. Another process writes it: a descriptor of this one that is open for writing would be
/// inherited by whatever a test beside this one starts at that moment, and the copy could not be executed as long
/// ("Text file busy").
#[cfg(unix)]
fn place_program(from: impl AsRef<std::path::Path>, to: impl AsRef<std::path::Path>) {
    let done = std::process::Command::new("cp").arg("-p").arg("--").args([from.as_ref(), to.as_ref()]).status().unwrap();
    assert!(done.success(), "cp {} {}", from.as_ref().display(), to.as_ref().display());
}

/// The same for a program that a test made.
#[cfg(unix)]
fn write_program(to: &std::path::Path, bytes: &[u8]) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "rm -f \"$0\" && cat > \"$0\" && chmod 755 \"$0\""]).arg(to).stdin(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(child.wait().unwrap().success(), "{}", to.display());
}
