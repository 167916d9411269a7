//! `cargo demo`: the whole chain at work, with real processes, real TLS on loopback, and really different builds of the
//! agent. Builds, publishes, starts Directors and devices, breaks what can break, and says what came of it.
//!
//! Two processes: the one a person starts only guards. The other one, with everything that it starts, is one process
//! group, which the guard kills at the end, whatever the end is: done, failed, Ctrl-C, a panic.

mod build;
mod cluster;
mod cluster_watch;
mod device;
mod fleet;
mod guard;
mod relay;
mod release;
mod scenarios;
mod scenarios_bad;
mod scenarios_clock;
mod scenarios_fleet;
mod scenarios_good;
mod scenarios_hostile;
mod scenarios_kill;
mod scenarios_operator;
mod scenarios_villain;
mod show;
mod site;
mod stay;
mod villain;

use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::sync::Arc;

pub use guard::{pause, place_program, signal, wait};

const HELP: &str = "\
cargo demo: updates, faults and attacks, on real processes and real TLS on loopback

Usage: cargo demo [--keep] [--only a,h] [--list]
       cargo demo -- --stay [--listen ADDR:PORT]
       cargo demo -- cluster [--keep] [--builds DIR]
       vmetric-demo --fleet N [--keep]

  --keep       keep the work folder (state, logs, keys) and say where it is
  --only LIST  only these scenarios, by letter
  --list       list the scenarios
  --stay       no scenarios: a Fleet with its web GUI, three Directors and their agents, until Ctrl-C; prints address and login
               --listen where (default: a free port on 127.0.0.1); --still nothing happens by itself; --ready FILE what tests need
               --builds DIR where builds of agents and Directors are kept for the next time, by whoever knows that they fit
  cluster      three Directors in a cluster under a Fleet, their agents, and two roll-outs: one goes through, one fails and halts
  --fleet N    only this: N devices on trial when their Director is killed and started again

Needs no root, installs nothing, leaves nothing. Exit code 0 = every scenario passed.
";

/// Where the inner process works; set by the guard.
const WORK: &str = "VMETRIC_DEMO_WORK";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut only = Vec::new();
    let mut keep = false;
    let mut fleet = None;
    let mut stay = false;
    let mut cluster = false;
    let mut staying = stay::Stay::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match (arg.as_str(), rest.as_slice().first()) {
            ("--keep", _) => keep = true,
            ("--only", Some(list)) => {
                only = list.split(',').map(String::from).collect();
                rest.next();
            }
            ("--fleet", Some(n)) if n.parse::<usize>().is_ok_and(|n| n > 0) => {
                fleet = n.parse().ok();
                rest.next();
            }
            ("--stay", _) => stay = true,
            ("cluster", _) => cluster = true,
            ("--still", _) => staying.still = true,
            ("--listen", Some(listen)) => {
                staying.listen = Some(listen.clone());
                rest.next();
            }
            ("--builds", Some(folder)) => {
                staying.builds = Some(PathBuf::from(folder));
                rest.next();
            }
            ("--ready", Some(file)) => {
                staying.ready = Some(PathBuf::from(file));
                rest.next();
            }
            ("--list", _) => {
                scenarios::list();
                return ExitCode::SUCCESS;
            }
            #[cfg(feature = "fleet")]
            ("--gui-routes", _) => {
                stay::routes();
                return ExitCode::SUCCESS;
            }
            ("--help" | "-h", _) => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            (other, _) => {
                eprintln!("vmetric-demo: unexpected '{other}'\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    #[expect(clippy::disallowed_methods, reason = "programs read the environment")]
    let work = std::env::var(WORK).ok().map(PathBuf::from);
    match work {
        Some(work) if cluster => played(&work, |show| cluster::run(&work, show, staying.builds.as_deref())),
        Some(work) => inner(&work, &only, fleet, stay.then_some(&staying)),
        None => guarded(&args, keep, stay),
    }
}

/// Starts the inner process and sees to it that nothing of it stays.
fn guarded(args: &[String], keep: bool, stay: bool) -> ExitCode {
    let work = std::env::temp_dir().join(format!("vmetric-demo-{}", process::id()));
    let inner = std::env::current_exe().map(|own| {
        let mut inner = Command::new(own);
        inner.args(args).env(WORK, &work);
        inner
    });
    let ended = inner.map_err(|e| e.to_string()).and_then(|inner| guard::guard(&work, inner));
    guard::leave(&work, keep);
    match ended {
        Ok(Some(code)) => ExitCode::from(code),
        Ok(None) => {
            println!("demo: stopped");
            // Whoever asked it to stay has ended it as is meant.
            ExitCode::from(if stay { 0 } else { 130 })
        }
        Err(why) => {
            eprintln!("vmetric-demo: {why}");
            ExitCode::FAILURE
        }
    }
}

fn inner(work: &Path, only: &[String], fleet: Option<usize>, stay: Option<&stay::Stay>) -> ExitCode {
    guard::without_guard(|| guard::end_group(process::id()));
    let show = Arc::new(show::Show::new(work));
    if let Some(stay) = stay {
        return match stay::run(work, &show, stay) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                println!("demo: FAILED: {why}");
                ExitCode::FAILURE
            }
        };
    }
    if let Some(devices) = fleet {
        return match fleet::run(work, &show, devices) {
            Ok(said) => {
                println!("fleet: {said}");
                ExitCode::SUCCESS
            }
            Err(why) => {
                println!("fleet: FAILED: {why}");
                ExitCode::FAILURE
            }
        };
    }
    ends(scenarios::run(work, &show, only))
}

/// The same for scenarios without anything else to choose.
fn played(work: &Path, run: impl FnOnce(&Arc<show::Show>) -> Result<(usize, usize), String>) -> ExitCode {
    guard::without_guard(|| guard::end_group(process::id()));
    ends(run(&Arc::new(show::Show::new(work))))
}

/// The last line.
fn ends(played: Result<(usize, usize), String>) -> ExitCode {
    match played {
        Ok((passed, failed)) => {
            println!("demo: {passed} scenarios passed, {failed} failed");
            ExitCode::from(u8::from(failed > 0))
        }
        Err(why) => {
            println!("vmetric-demo: {why}");
            println!("demo: 0 scenarios passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
