//! A Director whose main loop stands still while the thread of its own updates lives: the liveness alarm ends it. On trial
//! it goes back, confirmed it starts again.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use vmetric::io::clock;

use crate::device::{Device, Flow};
use crate::matrix::tail;
use crate::pause;
use crate::stage::Stage;
use crate::table::Table;

/// Several times the lowered liveness limit, for a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
/// Named by it, a version's main loop stands still (`VMETRIC_FAULT=hang-main`).
const FILE: &str = "storage/hang-main";

/// When it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// From the first turn of the version on trial.
    Trial,
    /// Days later, as far as the marks are concerned.
    Confirmed,
}

const ALL: [(&str, Case); 2] = [("crash-director:hang:trial", Case::Trial), ("crash-director:hang:confirmed", Case::Confirmed)];

impl Case {
    /// By its name.
    pub fn parse(name: &str) -> Option<Case> {
        ALL.into_iter().find(|(known, _)| *known == name).map(|(_, case)| case)
    }
}

/// Both at a time: they wait more than they work.
pub fn run(stage: &Stage, only: Option<&str>, table: &mut Table) {
    let wanted: Vec<_> = ALL.into_iter().filter(|(name, _)| only.is_none_or(|only| only == *name)).collect();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let began: Vec<_> = wanted.iter().map(|(name, case)| (name, scope.spawn(|| play(stage, *case)))).collect();
        began.into_iter().map(|(name, one)| (*name, one.join().unwrap_or_else(|_| Err("the case panicked".into())))).collect()
    });
    outcomes.into_iter().for_each(|(name, outcome)| table.add(("file, main loop", "hang"), name, outcome));
}

fn play(stage: &Stage, case: Case) -> Result<String, String> {
    let folder = stage.work.join(format!("hang-{case:?}"));
    let device = Device::of_seed(stage, &folder, &folder.join("state"), Flow::File)?;
    let mut agent = device.spawn("boot-2", None)?;
    let mut operator = None;
    let done = device.truth(stage, &mut agent).and_then(|_| match case {
        Case::Trial => on_trial(stage, &device, &mut agent, &mut operator),
        Case::Confirmed => confirmed(stage, &device, &mut agent),
    });
    if let Some(mut operator) = operator {
        let _ = operator.kill();
        let _ = operator.wait();
    }
    device.stop(&mut agent);
    done.map_err(|why| format!("{why}\n  log: {}", tail(&folder.join("log"))))
}

fn hang(device: &Device, version: &str) -> Result<(), String> {
    fs::write(device.state.join(FILE), format!("\"{version}\"")).map_err(|e| e.to_string())
}

fn heal(device: &Device) -> Result<(), String> {
    fs::remove_file(device.state.join(FILE)).map_err(|e| e.to_string())
}

/// The engine's thread, and how often it has gone to sleep: it does between two of its turns.
fn engine_sleeps(pid: u32) -> Option<(PathBuf, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let engine = tasks.map(|t| t.path()).find(|t| fs::read_to_string(t.join("comm")).is_ok_and(|name| name.trim() == "engine"))?;
    let status = fs::read_to_string(engine.join("status")).ok()?;
    let sleeps = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).and_then(|n| n.trim().parse().ok());
    Some((engine, sleeps?))
}

/// Waits for the alarm; the engine's thread has taken turns until then.
fn ended_by_alarm(agent: &mut Child) -> Result<(), String> {
    let end = clock::monotonic() + LIMIT;
    let (mut thread, mut first, mut last) = (PathBuf::new(), 0, 0);
    loop {
        if let Ok(Some(status)) = agent.try_wait() {
            if status.signal() != Some(libc::SIGALRM) {
                return Err(format!("ended by {status}, not by the liveness alarm"));
            }
            return if last > first { Ok(()) } else { Err(format!("the engine took no turns meanwhile: {first}, {last}")) };
        }
        if let Some((engine, sleeps)) = engine_sleeps(agent.id()) {
            // The version before had a thread of its own.
            if engine != thread {
                (thread, first) = (engine, sleeps);
            }
            last = sleeps;
        }
        if clock::monotonic() > end {
            return Err(format!("a main loop that stands still lives after {} s", LIMIT.as_secs()));
        }
        pause(50);
    }
}

fn on_trial(stage: &Stage, device: &Device, agent: &mut Child, operator: &mut Option<Child>) -> Result<String, String> {
    hang(device, stage.new)?;
    let source = stage.source.display().to_string();
    let out = File::create(device.folder.join("operator")).map_err(|e| e.to_string())?;
    let mut command = device.command(&["update", "--file", &source, "--version", stage.new]);
    *operator = Some(command.stdout(Stdio::null()).stderr(out).spawn().map_err(|e| e.to_string())?);
    // Twice with the same boot id and without a word: bad.
    for _ in 0..2 {
        ended_by_alarm(agent)?;
        *agent = device.spawn("boot-2", None)?;
    }
    let gone_back = || device.last_result().filter(|r| r.outcome == "rolled_back" && r.version == stage.new);
    let result = crate::wait(LIMIT.as_secs(), gone_back).ok_or("no rollback was noted")?;
    let runs = device.truth(stage, agent)?;
    if (runs.as_str(), result.verdict.as_str()) != (stage.old, "bad") {
        return Err(format!("{runs} runs after {result:?}"));
    }
    heal(device)?;
    Ok(format!("rolled_back/{}", result.code))
}

fn confirmed(stage: &Stage, device: &Device, agent: &mut Child) -> Result<String, String> {
    hang(device, stage.old)?;
    ended_by_alarm(agent)?;
    heal(device)?;
    *agent = device.spawn("boot-2", None)?;
    match device.truth(stage, agent)? {
        runs if runs == stage.old => Ok("started again".into()),
        runs => Err(format!("{runs} runs, not {}", stage.old)),
    }
}
