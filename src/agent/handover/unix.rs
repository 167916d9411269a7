//! On Unix: `exec`, in one process.

use std::path::Path;
use std::time::Duration;

use super::RESPAWN_MS;
use crate::agent::device::Device;
use crate::agent::run::{ENV_IMAGE, ENV_LOCK, ENV_RUNNING, ENV_SUPERVISOR, ENV_SWITCHED, EXIT_RUNS_ALREADY, RunArgs};
use crate::io::lock::Lock;
use crate::io::{clock, process};

/// Whether this process is the one that watches the others: where no service manager starts the agent again.
pub fn is_parent(args: &RunArgs) -> bool {
    args.supervise && args.env.supervisor.is_none()
}

/// Starts the launcher again whenever it ends, faster after a long life than after a short one.
pub fn supervise(args: &RunArgs) -> i32 {
    process::install_stop();
    let own = match process::own_name() {
        Ok(own) => own,
        Err(e) => {
            log::error!("cannot find the own program file: {e}");
            return 1;
        }
    };
    let env = [(ENV_SUPERVISOR, std::process::id().to_string())];
    let mut wait = RESPAWN_MS.0;
    loop {
        let began = clock::monotonic();
        let end = process::supervise(&own, &args.raw, &env);
        if clock::monotonic().saturating_sub(began) > Duration::from_secs(60) {
            wait = RESPAWN_MS.0;
        }
        match end {
            _ if process::stopping() => return 0,
            Ok(status) if status.code() == Some(0) => return 0,
            Ok(status) if status.code() == Some(EXIT_RUNS_ALREADY) => return EXIT_RUNS_ALREADY,
            Ok(status) => log::warn!("{} ended ({status}); it is started again in {wait} ms", args.product.name),
            Err(e) => log::error!("{}: cannot be started: {e}; next try in {wait} ms", own.display()),
        }
        process::sleep(Duration::from_millis(wait));
        wait = (wait * 2).min(RESPAWN_MS.1);
        if process::stopping() {
            return 0;
        }
    }
}

/// An orderly switch: the launcher takes over in this very process.
pub fn relaunch(args: &RunArgs, device: &Device, lock: &Lock, image: &Path) -> std::io::Error {
    let mut env = vec![(ENV_SWITCHED, (clock::monotonic().as_millis() as u64).to_string())];
    if let Ok(fd) = lock.pass_on() {
        env.push((ENV_LOCK, fd.to_string()));
    }
    process::hold_signals();
    let ended = process::exec(image, &args.raw, &env, &[ENV_RUNNING, ENV_IMAGE]);
    lock.keep();
    device.prepare_stop();
    process::install_signals();
    ended.err().unwrap_or_else(|| std::io::ErrorKind::Other.into())
}
