//! On Unix: owner and mode say who may have written it.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::io::process::{ChildEnd, run_child};

/// What a hook finds programs with: nothing is inherited from whoever started the agent.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The hook's file: on Unix the name itself.
pub fn file(name: &Path) -> PathBuf {
    name.to_path_buf()
}

/// Whether there is a hook that may be run with our rights: `Ok(false)` = there is none; an error says what to change.
///
/// # Errors
/// One sentence: file and remedy.
pub fn usable(path: &Path) -> Result<bool, String> {
    let told = |what: &str| Err(format!("{}: {what}", path.display()));
    let file = match path.symlink_metadata() {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return told(&format!("cannot be looked at: {e}")),
    };
    if !file.is_file() {
        return told("is no regular file; put the program itself there");
    }
    if file.mode() & 0o111 == 0 {
        return told("is not executable; chmod 755, or remove it");
    }
    if !ours(&file) {
        return told("may be changed by others; chown it to root or the agent's user and chmod go-w");
    }
    match path.parent().map(Path::symlink_metadata) {
        Some(Ok(folder)) if ours(&folder) => Ok(true),
        _ => told("its folder may be changed by others; chown it to root or the agent's user and chmod go-w"),
    }
}

/// Only root or this very user can change it.
fn ours(of: &Metadata) -> bool {
    #[expect(unsafe_code, reason = "geteuid takes nothing and returns a number")]
    let user = unsafe { libc::geteuid() };
    (of.uid() == 0 || of.uid() == user) && of.mode() & 0o022 == 0
}

/// Runs the hook: its own process group, the root folder, no inherited environment, both outputs read. It does not outlive
/// this process.
pub fn run(path: &Path, env: &[(&str, String)], limit: Duration, tick: fn()) -> ChildEnd {
    let mut command = Command::new(path);
    command.current_dir("/").env_clear().env("PATH", PATH).envs(env.iter().map(|(k, v)| (k, v)));
    #[expect(unsafe_code, reason = "between fork and exec only dup2 and prctl are called, both async-signal-safe")]
    unsafe {
        command.pre_exec(|| {
            libc::dup2(1, 2);
            #[cfg(target_os = "linux")]
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    run_child(command, limit, tick)
}
