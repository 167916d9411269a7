//! `tests/crash-matrix`: cuts, errors, lost page cache, rot and full disks on the real processes. See `HELP`.
//!
//! Two processes, as in the demo: the outer one guards and cleans up, the inner one works. A third role, `trace`, is the
//! tracer that the agents of cut cases are started below.
#![expect(clippy::disallowed_methods, reason = "damages files, and leaves marks that need not be durable")]

#[path = "../demo/build.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod build;
mod covered;
mod device;
mod director;
mod disk;
mod full;
#[path = "../demo/guard.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod guard;
mod hang;
mod kept;
mod matrix;
mod mount;
mod power;
#[path = "../demo/release.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod release;
mod rot;
#[path = "../demo/show.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod show;
#[path = "../demo/site.rs"]
#[allow(dead_code, reason = "the demo's module: some of it is the demo's only")]
mod site;
mod stage;
mod table;
mod tracer;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use vmetric::io::clock;

use crate::table::Table;
pub use guard::{pause, signal, wait};
pub use mount::Ended;

/// Shown by `--help`.
const HELP: &str = "\
tests/crash-matrix: what a device is after a crash, an error, a power cut, rot or a full disk, on the real processes

Usage: tests/crash-matrix [GROUP...] [--all] [--deep] [--only CASE] [--seed N] [--jobs N] [--keep]

  crash       at every n-th call of openat, write, ftruncate, fsync, rename, unlink, mkdir, execve (and chmod, link) of a
              whole update, by `update --file` and by an order of a Director: SIGKILL, ENOSPC, EIO, EROFS, short write;
              and the list of covered calls against `strace -c`. A run takes every k-th of these cases, from an offset
              that its seed says
  crash-director
              the same for `vmetric-director update --file BUNDLE`, a release with a package: the calls of the store and the backup
              are among them; `vmetric.yml`, `user/`, rows of the store and backups have to be as they were. And a main loop
              that stands still, on trial and confirmed
  power-loss, power-loss-director
              ext4 on a loop mount loses everything that was not synced, at cut points in every phase of the update
  bit-rot     random damage to files and folders of the state folder
  disk        full to many levels, without inodes, read-only, noexec
  disk-director
              a Director's disk, full to many levels, or from the binary, the package, the backup on

  --all       every case of `crash`, small artifact
  --deep      every case of `crash` with a 24 MB artifact, errors also from there on (hours); 1,000 times bit-rot; more cuts
  --only CASE repeats one case, as its line names it; of the calls, with * for a word, all: 'crash:on-line:openat:*:EIO:*'
  --seed N    seed of what is random
  --jobs N    cases at a time, default: processors
  --keep      keep the work folder, and say where it is

After each case: a working binary runs, `status` and `-version` say what it is, and the update is finished or has been
refused with a reason and is finished when it is ordered again.

exit codes: 0 well, 1 a case failed, 2 usage, 77 a group could not run here
";

/// Where the inner process works; set by the guard.
const WORK: &str = "VMETRIC_CRASH_WORK";

/// The command line.
#[derive(Clone, Debug, Default)]
pub struct Args {
    groups: Vec<String>,
    /// Every case of the matrix, not a sample.
    pub all: bool,
    /// Everything, whatever it costs.
    pub deep: bool,
    /// One case.
    pub only: Option<String>,
    /// Seed.
    pub seed: u64,
    /// Cases at a time.
    pub jobs: usize,
    keep: bool,
}

const GROUPS: [&str; 7] = ["crash", "crash-director", "power-loss", "power-loss-director", "bit-rot", "disk", "disk-director"];

fn parse(words: &[String]) -> Result<Args, String> {
    let mut args = Args { jobs: thread::available_parallelism().map_or(2, usize::from), seed: 1, ..Args::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--all" => args.all = true,
            "--deep" => (args.all, args.deep) = (true, true),
            "--keep" => args.keep = true,
            "--only" => args.only = Some(value()?),
            "--seed" => args.seed = value()?.parse().map_err(|_| "--seed needs a number")?,
            "--jobs" => args.jobs = value()?.parse().map_err(|_| "--jobs needs a number")?,
            group if GROUPS.contains(&group) => args.groups.push(group.into()),
            other => return Err(format!("unexpected '{other}'")),
        }
    }
    if let Some(group) = args.only.as_ref().and_then(|only| only.split(':').next()) {
        args.groups = vec![group.to_string()];
    }
    if args.groups.is_empty() {
        args.groups = GROUPS.map(String::from).to_vec();
    }
    Ok(args)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|w| w == "trace") {
        return trace(&words[1..]);
    }
    if words.iter().any(|w| w == "--help" || w == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let args = match parse(&words) {
        Ok(args) => args,
        Err(why) => {
            eprintln!("crash-matrix: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    #[expect(clippy::disallowed_methods, reason = "programs read the environment")]
    let work = std::env::var(WORK).ok().map(PathBuf::from);
    match work {
        Some(work) => inner(&work, &args),
        None => guarded(&words, args.keep),
    }
}

/// `trace KIND N ACT HIT UNTIL LOG PROGRAM ARG...`
fn trace(words: &[String]) -> ExitCode {
    let [kind, at, act, hit, until, log, program, args @ ..] = words else { return ExitCode::from(2) };
    let (Ok(at), Some(act)) = (at.parse(), tracer::Act::parse(act)) else { return ExitCode::from(2) };
    let plan = tracer::Plan {
        kind: kind.clone(),
        at,
        act,
        hit: Some(hit.into()),
        until: Some(until.into()),
        log: Some(PathBuf::from(log)).filter(|l| l.as_os_str() != "-"),
    };
    match tracer::trace(plan, Path::new(program), args) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(why) => {
            eprintln!("crash-matrix trace: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the inner process and sees to it that nothing of it stays.
fn guarded(words: &[String], keep: bool) -> ExitCode {
    let work = std::env::temp_dir().join(format!("vmetric-crash-{}", process::id()));
    let inner = std::env::current_exe().map(|own| {
        let mut inner = Command::new(own);
        inner.args(words).env(WORK, &work);
        inner
    });
    let ended = inner.map_err(|e| e.to_string()).and_then(|inner| guard::guard(&work, inner));
    pause(50);
    guard::leave(&work, keep);
    match ended {
        Ok(code) => ExitCode::from(code.unwrap_or(130)),
        Err(why) => {
            eprintln!("crash-matrix: {why}");
            ExitCode::FAILURE
        }
    }
}

fn inner(work: &Path, args: &Args) -> ExitCode {
    guard::without_guard(|| guard::end_group(process::id()));
    let (mut failed, mut left_out) = (0, Vec::new());
    let mut stages = HashMap::new();
    for group in &args.groups {
        let name = group.strip_suffix("-director").unwrap_or(group);
        let of_director = name != group;
        // What no group needs is not built.
        let stage = match stages.entry(of_director) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let made = if of_director { director::set_up(work, args.deep) } else { stage::Stage::set_up(work, args.deep) };
                match made {
                    Ok(stage) => place.insert(stage),
                    Err(why) => {
                        println!("crash-matrix: {why}");
                        return ExitCode::FAILURE;
                    }
                }
            }
        };
        let began = clock::monotonic();
        let done = match name {
            "crash" => matrix::run(stage, args),
            "power-loss" => power::run(stage, args),
            "bit-rot" => rot::run(stage, args),
            "disk" if of_director => full::run(stage, args),
            "disk" => disk::run(stage, args),
            other => Err(Ended::Failed(format!("there is no group {other}"))),
        };
        let seconds = clock::monotonic().saturating_sub(began).as_secs();
        match done {
            Ok(table) => {
                print!("{}", table.text());
                failed += table.failures();
                println!("{group}: {} cases, {} failed, {seconds} s", table.cases(), table.failures());
            }
            Err(Ended::Failed(why)) => {
                println!("{group}: FAILED: {why}");
                failed += 1;
            }
            Err(Ended::DidNotRun(why)) => {
                println!("{group}: did not run: {why}");
                left_out.push(group);
            }
        }
    }
    match (failed, left_out.is_empty()) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => ExitCode::from(77),
        _ => ExitCode::FAILURE,
    }
}

/// Works on all cases, several at a time. `work` gets a folder of its own for each worker.
pub fn each<C: Sync>(args: &Args, folder: &Path, cases: &[C], work: impl Fn(&C, &Path, &Mutex<Table>) + Sync) -> Table {
    let (next, table) = (AtomicUsize::new(0), Mutex::new(Table::default()));
    thread::scope(|scope| {
        for worker in 0..args.jobs.max(1) {
            let (next, table, work) = (&next, &table, &work);
            let folder = folder.join(format!("worker-{worker}"));
            scope.spawn(move || {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    work(case, &folder, table);
                }
            });
        }
    });
    table.into_inner().unwrap_or_else(PoisonError::into_inner)
}
