//! On Windows: the access list says who may have written it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::io::process::{ChildEnd, run_child};
use crate::io::security;

/// What the system knows as programs, in this order.
const KINDS: [&str; 2] = ["exe", "cmd"];

/// The hook's file: the name with an ending that the system executes.
pub fn file(name: &Path) -> PathBuf {
    let mut files = KINDS.map(|kind| name.with_extension(kind)).into_iter();
    files.find(|file| file.symlink_metadata().is_ok()).unwrap_or_else(|| name.with_extension(KINDS[0]))
}

/// Whether there is a hook that may be run with our rights: `Ok(false)` = there is none; an error says what to change.
///
/// # Errors
/// One sentence: file and remedy.
pub fn usable(path: &Path) -> Result<bool, String> {
    let told = |what: &str| Err(format!("{}: {what}", path.display()));
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return told(&format!("cannot be looked at: {e}")),
        Ok(file) if !file.is_file() => return told("is no regular file; put the program itself there"),
        Ok(_) => {}
    }
    for (what, path) in [("", Some(path)), ("its folder ", path.parent())] {
        match path.map(security::only_ours) {
            Some(Ok(true)) => {}
            Some(Err(e)) => return told(&format!("{what}its access list cannot be read: {e}")),
            _ => {
                return told(&format!(
                    "{what}may be changed by others; leave write access to SYSTEM, Administrators and the agent's account only (icacls)"
                ));
            }
        }
    }
    Ok(true)
}

/// Runs the hook: a job of its own, the system's folder, a bare environment, both outputs read. It does not outlive this
/// process.
pub fn run(path: &Path, env: &[(&str, String)], limit: Duration, tick: fn()) -> ChildEnd {
    let root = system_root();
    let mut command = Command::new(path);
    command.current_dir(&root).env_clear().envs(env.iter().map(|(k, v)| (k, v)));
    command.env("SystemRoot", &root).env("PATH", format!("{root}\\System32;{root}"));
    run_child(command, limit, tick)
}

/// Without it hardly a program starts on Windows.
#[expect(clippy::disallowed_methods, reason = "the one variable that a program needs there")]
fn system_root() -> String {
    std::env::var("SystemRoot").unwrap_or_else(|_| "C:\\Windows".into())
}
