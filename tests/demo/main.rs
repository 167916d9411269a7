//! `cargo demo`: the whole chain at work, with real processes, real TLS on loopback, and really different builds of the
//! agent. Builds, publishes, starts Directors and devices, breaks what can break, and says what came of it.
//!
//! Two processes: the one a person starts only guards. The other one, with everything that it starts, is one process
//! group, which the guard kills at the end, whatever the end is: done, failed, Ctrl-C, a panic.

mod build;
mod device;
mod fleet;
mod relay;
mod release;
mod scenarios;
mod scenarios_bad;
mod scenarios_clock;
mod scenarios_good;
mod scenarios_hostile;
mod scenarios_kill;
mod scenarios_operator;
mod scenarios_villain;
mod show;
mod site;
mod villain;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{process, thread};

use vmetric::io::{clock, signals};

const HELP: &str = "\
cargo demo: updates, faults and attacks, on real processes and real TLS on loopback

Usage: cargo demo [--keep] [--only a,h] [--list]
       vmetric-demo --fleet N [--keep]

  --keep       keep the work folder (state, logs, keys) and say where it is
  --only LIST  only these scenarios, by letter
  --list       list the scenarios
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
            ("--list", _) => {
                scenarios::list();
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
        Some(work) => inner(&work, &only, fleet),
        None => guard(&args, keep),
    }
}

/// Starts the inner process and sees to it that nothing of it stays.
fn guard(args: &[String], keep: bool) -> ExitCode {
    let work = std::env::temp_dir().join(format!("vmetric-demo-{}", process::id()));
    let made = std::fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()));
    let started = made.and_then(|()| {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        // The pipe tells the inner process when the guard itself is killed.
        Command::new(own).args(args).env(WORK, &work).stdin(Stdio::piped()).process_group(0).spawn().map_err(|e| e.to_string())
    });
    let mut child = match started {
        Ok(child) => child,
        Err(why) => {
            eprintln!("vmetric-demo: {why}");
            return ExitCode::FAILURE;
        }
    };
    let group = child.id();
    if let Ok(mut stop) = signals::stop_signals() {
        thread::spawn(move || {
            let _ = stop.read(&mut [0]);
            end_group(group);
        });
    }
    let _pipe = child.stdin.take();
    let ended = child.wait();
    end_group(group);
    match keep {
        true => eprintln!("kept: {}", work.display()),
        false => drop(std::fs::remove_dir_all(&work)),
    }
    match ended.ok().and_then(|status| status.code()) {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => {
            println!("demo: stopped");
            ExitCode::from(130)
        }
    }
}

fn inner(work: &Path, only: &[String], fleet: Option<usize>) -> ExitCode {
    thread::spawn(|| {
        // The guard never writes: the end of the pipe is its end.
        let _ = std::io::stdin().read(&mut [0]);
        end_group(process::id());
    });
    let show = Arc::new(show::Show::new(work));
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
    match scenarios::run(work, &show, only) {
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

/// SIGKILL for a whole process group.
fn end_group(leader: u32) {
    if let Ok(leader) = i32::try_from(leader) {
        #[expect(unsafe_code, reason = "kill takes two numbers; the group is the demo's own")]
        unsafe {
            libc::kill(-leader, libc::SIGKILL);
        }
    }
}

/// Sends a signal to one process of a device. False: there is no such process.
pub fn signal(pid: u32, number: i32) -> bool {
    #[expect(unsafe_code, reason = "kill takes two numbers")]
    unsafe {
        i32::try_from(pid).is_ok_and(|pid| pid > 1 && libc::kill(pid, number) == 0)
    }
}

/// Waits.
pub fn pause(ms: u64) {
    vmetric::io::process::sleep(Duration::from_millis(ms));
}

/// Asks again and again until something is found, at most so many seconds.
pub fn wait<T>(seconds: u64, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let end = clock::monotonic() + Duration::from_secs(seconds);
    let mut ms = 10;
    loop {
        if let Some(found) = found() {
            return Some(found);
        }
        if clock::monotonic() >= end {
            return None;
        }
        // Quick answers at first; no busy loop of look-ups when it takes long.
        pause(ms);
        ms = (ms * 3 / 2).min(150);
    }
}
