//! `tests/beds/run`: real service managers, booted in namespaces, with real agents and a real Director. See `HELP` and README.md.
//!
//! Two processes, as in the demo: the outer one guards and cleans up, the inner one is PID 1 of a process namespace with mounts
//! of its own. When it ends, whatever the end is, the kernel ends every bed and takes every mount and loop device away.
#![expect(clippy::disallowed_methods, reason = "what a test writes need not outlive a power cut")]

mod bed;
#[path = "../demo/build.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod build;
mod cases;
mod cases_by_hand;
mod cases_cut;
mod cases_deb;
mod cases_director;
mod cases_inits;
mod cases_unit;
mod cases_update;
mod device;
mod enter;
#[path = "../demo/guard.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod guard;
#[path = "../crash/kept.rs"]
mod kept;
mod leftovers;
#[path = "../crash/mount.rs"]
#[allow(dead_code, reason = "the crash matrix' module: some of it is its only")]
mod mount;
#[path = "../demo/relay.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod relay;
#[path = "../demo/release.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod release;
#[path = "../demo/show.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod show;
#[path = "../demo/site.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod site;
mod stage;

use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::thread;

use crate::cases::CASES;
pub use guard::{pause, signal, wait};
pub use mount::Ended;

/// Shown by `--help`.
const HELP: &str = "\
tests/beds/run: agents and Directors under real service managers, each case on a host of its own in namespaces

Usage: tests/beds/run [GROUP|CASE...] [--list] [--jobs N] [--keep] [--hold]
       tests/beds/run --enter CASE

  systemd    real systemd as PID 1
  inits      OpenRC, runit and busybox init
  CASE       one case, by its name

  --list     list the cases
  --jobs N   cases at a time (default: three per processor; they wait most of their time)
  --keep     keep the work folder (logs, states) and say where it is
  --hold     leave a bed up when its case has failed, until Ctrl-C
  --enter    a shell in the bed of that case, which is up

Needs root, a Debian with mmdebstrap and zstd, and mounted cgroups.
exit codes: 0 well, 1 a case failed, 2 usage, 77 this machine cannot run it
";

/// Where the inner process works; set by the guard.
const WORK: &str = "VMETRIC_BEDS_WORK";

/// The command line.
#[derive(Clone, Debug, Default)]
pub struct Args {
    wanted: Vec<String>,
    /// Cases at a time.
    pub jobs: usize,
    keep: bool,
    /// A failed case's bed stays up.
    pub hold: bool,
}

fn parse(words: &[String]) -> Result<Args, String> {
    let mut args = Args { jobs: thread::available_parallelism().map_or(2, usize::from) * 3, ..Args::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let known = |name: &str| CASES.iter().any(|case| case.name == name || case.group() == name);
        match word.as_str() {
            "--keep" => args.keep = true,
            "--hold" => args.hold = true,
            "--jobs" => args.jobs = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0).ok_or("--jobs needs a number above 0")?,
            name if known(name) => args.wanted.push(name.into()),
            other => return Err(format!("unexpected '{other}'; --list shows the cases")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|w| w == "--help" || w == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|w| w == "--list") {
        CASES.iter().for_each(|case| println!("{:<24} {}", case.name, case.what));
        return ExitCode::SUCCESS;
    }
    if let [option, name] = words.as_slice()
        && option == "--enter"
    {
        return enter::enter(name);
    }
    let args = match parse(&words) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("beds: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match std::env::var(WORK).ok().map(PathBuf::from) {
        Some(work) => inner(&work, &args),
        None => guarded(&words, &args),
    }
}

/// Starts the inner process and sees to it that nothing of it stays.
fn guarded(words: &[String], args: &Args) -> ExitCode {
    if let Err(why) = cannot() {
        println!("beds: did not run: {why}");
        return ExitCode::from(77);
    }
    leftovers::of_dead_runs();
    let work = leftovers::work_of(process::id());
    let inner = std::env::current_exe().map(|own| {
        let mut inner = Command::new("unshare");
        inner.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        inner.arg(own).args(words).env(WORK, &work);
        inner
    });
    let ended = inner.map_err(|e| e.to_string()).and_then(|inner| guard::guard(&work, inner));
    leftovers::cgroups(process::id());
    guard::leave(&work, args.keep);
    match ended {
        Ok(code) => ExitCode::from(code.unwrap_or(130)),
        Err(why) => {
            eprintln!("beds: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Why this machine cannot run a bed.
fn cannot() -> Result<(), String> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        return Err("needs root: namespaces, mounts and cgroups are root's".into());
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == "ID=debian") {
        return Err("needs Debian: the beds are a Debian of the host's release".into());
    }
    if leftovers::hierarchies().is_empty() {
        return Err("needs cgroups: none is mounted below /sys/fs/cgroup".into());
    }
    let unshare = Command::new("unshare").args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "true"]).output();
    match unshare {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(format!("needs namespaces: {}", String::from_utf8_lossy(&out.stderr).trim())),
        Err(e) => Err(format!("needs unshare of util-linux: {e}")),
    }
}

fn inner(work: &Path, args: &Args) -> ExitCode {
    // PID 1 of its namespace: the kernel ends the rest.
    guard::without_guard(|| process::exit(130));
    let wanted: Vec<_> =
        CASES.iter().filter(|case| args.wanted.is_empty() || args.wanted.iter().any(|w| w == case.name || w == case.group())).collect();
    match stage::Stage::set_up(work).and_then(|stage| cases::play(&stage, &wanted, args)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(Ended::DidNotRun(why)) => {
            println!("beds: did not run: {why}");
            ExitCode::from(77)
        }
        Err(Ended::Failed(why)) => {
            println!("beds: FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}
