//! `tests/beds/run --enter NAME`: a shell in a bed that is up, for a person who looks inside.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Becomes that shell, or says why not.
pub fn enter(name: &str) -> ExitCode {
    let Some(pid) = pid1_of(name) else {
        eprintln!("beds: no bed called {name} is up; start it with --hold, and it stays when its case has failed");
        return ExitCode::FAILURE;
    };
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", "/usr/bin/env", "-i"]);
    command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/virtualmetric", "TERM=xterm", "bash"]);
    eprintln!("beds: nsenter: {}", command.exec());
    ExitCode::FAILURE
}

/// The process in that bed's cgroup which is number 1 in its innermost namespace.
fn pid1_of(name: &str) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    processes.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit())).find(|pid| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let first = read("status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        let ours = |line: &str| line.contains("/vmetric-beds-") && line.split('/').any(|part| part == name);
        first && read("cgroup").lines().any(ours)
    })
}
