//! On Windows: the launcher stays. It starts what the marks say, watches it, and decides again when it has ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RESPAWN_MS;
use crate::agent::device::Device;
use crate::agent::fault;
use crate::agent::host::Host;
use crate::agent::launcher::launch;
use crate::agent::run::{ENV_IMAGE, ENV_LOCK, ENV_RUNNING, ENV_SWITCHED, EXIT_RUNS_ALREADY, RunArgs, take_lock};
use crate::agent::trial;
use crate::core::hex::Sha256;
use crate::core::reason::Reason;
use crate::core::service::AGENT;
use crate::core::slots::Image;
use crate::io::lock::Lock;
use crate::io::process::{self, Ended};
use crate::io::service::dispatch;
use crate::io::state::State;
use crate::io::{clock, logger};

/// Exit code of a program that asks the launcher to decide again by the marks. Frozen, see FROZEN.md.
const EXIT_SWITCH: i32 = 75;
/// A program that lived so long may be started again at once.
const LONG_LIFE: Duration = Duration::from_secs(60);
/// One that ends sooner is started again after a pause, whatever it asks for: a switch takes longer than this.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// The log of a service, in the state folder.
const LOG: &str = "vmetric-agent.log";

/// The launcher is whatever no launcher has started.
pub fn is_parent(args: &RunArgs) -> bool {
    args.env.running.is_none()
}

/// The launcher, until it is stopped; returns the exit code.
pub fn supervise(args: &RunArgs) -> i32 {
    process::install_stop();
    let own = args.clone();
    let body = move || {
        // A service has no standard error.
        logger::to_file(own.state.join(LOG));
        launcher(&own)
    };
    match dispatch::serve(AGENT.name, Box::new(body)) {
        Ok(code) => code,
        Err(_) => launcher(args),
    }
}

fn launcher(args: &RunArgs) -> i32 {
    match parent(args) {
        Ok(code) => code,
        Err(reason) => {
            log::error!("{reason}");
            1
        }
    }
}

/// An orderly switch: this program ends, and the launcher decides again.
pub fn relaunch(_: &RunArgs, _: &Device, _: &Lock, _: &Path) -> std::io::Error {
    std::process::exit(EXIT_SWITCH)
}

/// What stays the same for all programs of a launcher.
struct Site<'a> {
    args: &'a RunArgs,
    state: State,
    lock: Lock,
    image: PathBuf,
    own_hash: Sha256,
}

fn parent(args: &RunArgs) -> Result<i32, Reason> {
    let own = |e| Reason::new("own_file", format!("cannot read the own program file: {e}"));
    let image = process::own_name().map_err(own)?;
    let own_hash = trial::hash_file(&image).map_err(own)?;
    let state = State::open_of(args.product, &args.state)?;
    let Some(lock) = take_lock(&state, args)? else { return Ok(EXIT_RUNS_ALREADY) };
    let site = Site { args, state, lock, image, own_hash };
    let (mut wait, mut switched_at) = (RESPAWN_MS.0, args.env.switched_at);
    while !process::stopping() {
        let began = clock::awake();
        let ended = site.run(switched_at.take());
        let life = clock::awake().saturating_sub(began);
        if process::stopping() {
            break;
        }
        if life > LONG_LIFE {
            wait = RESPAWN_MS.0;
        }
        match ended {
            Ok(Ended::Exited(0 | EXIT_SWITCH)) if life > SHORT_LIFE => {
                switched_at = Some(clock::monotonic().as_millis() as u64);
                log::info!("the program has ended in order; the marks say what runs next");
                continue;
            }
            Ok(Ended::Hung) => log::error!("the program showed no life for the liveness limit and was killed; next start in {wait} ms"),
            Ok(Ended::Exited(code)) => log::warn!("the program ended with {code}; it is started again in {wait} ms"),
            Err(reason) => log::error!("{reason}; next try in {wait} ms"),
        }
        process::sleep(Duration::from_millis(wait));
        wait = (wait * 2).min(RESPAWN_MS.1);
    }
    Ok(0)
}

impl Site<'_> {
    /// One program, from the decision to its end.
    fn run(&self, switched_at: Option<u64>) -> Result<Ended, Reason> {
        let switched = switched_at.map(|at| (ENV_SWITCHED, at.to_string()));
        let mut host = Host::new(&self.args.raw, self.state.clone(), &self.lock, self.image.clone(), self.own_hash);
        host.more_env.extend(switched.clone());
        if launch(&mut host).is_none()
            && let Some(ended) = host.ended
        {
            return Ok(ended);
        }
        self.run_factory(switched)
    }

    /// Nothing better starts: the factory image as a program, in a process of its own like any other.
    fn run_factory(&self, switched: Option<(&'static str, String)>) -> Result<Ended, Reason> {
        let mut env = vec![(ENV_RUNNING, Image::Factory.name().to_string()), (ENV_IMAGE, self.image.display().to_string())];
        env.extend(self.lock.pass_on().ok().map(|launcher| (ENV_LOCK, launcher.to_string())));
        env.extend(switched);
        process::alarm(fault::times().liveness_s);
        let failed = |e| Reason::new("exec_failed", format!("{}: {e}", self.image.display()));
        process::exec(&self.image, &self.args.raw, &env, &[]).map_err(failed)
    }
}
