//! A Director's disk is full: before its update, and from a moment of it on. The old version serves on with its package, the
//! reason is told, nothing of the reserve is taken, nothing half is left; with room again the update goes on.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use vmetric::io::clock;
use vmetric::io::fs::room;

use crate::device::{Device, copy_folder};
use crate::director;
use crate::disk::fill;
use crate::matrix::tail;
use crate::mount::{Mount, own_namespace};
use crate::stage::Stage;
use crate::table::Table;
use crate::{Args, Ended, each, pause, signal};

/// Kept free whatever happens (DESIGN 4).
const RESERVE: u64 = 16 << 20;
/// Both slots, a copy of the factory image in a backup, room to play with.
const DISK: &str = "size=192m";
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Want {
    /// Bytes that are free before the order; with `true`, beside what the binary needs.
    Free(u64, bool),
    /// Nothing is free once this file is in the slot that is being filled.
    From(&'static str),
}

impl Want {
    fn name(&self) -> String {
        match self {
            Want::Free(bytes, beside) => format!("disk-director:free:{bytes}:{}", if *beside { "beside-the-binary" } else { "all" }),
            Want::From(file) => format!("disk-director:full-from:{file}"),
        }
    }

    fn all() -> Vec<Want> {
        let free = [0, 4 << 10, 64 << 10, 1 << 20, RESERVE - 4096].map(|bytes| Want::Free(bytes, false));
        // Room for the binary and its reserve, and not for the package and the backup.
        let beside = [RESERVE - (1 << 20), RESERVE + (64 << 10), RESERVE + (1 << 20)].map(|bytes| Want::Free(bytes, true));
        let from = ["vmetric-director", "package", "package.list"].map(Want::From);
        free.into_iter().chain(beside).chain(from).collect()
    }
}

/// The group `disk-director`.
pub fn run(stage: &Stage, args: &Args) -> Result<Table, Ended> {
    own_namespace()?;
    let mut cases = Want::all();
    if let Some(name) = &args.only {
        cases.retain(|case| case.name() == *name);
    }
    Ok(each(args, &stage.work, &cases, |case, folder, table| {
        let outcome = play(stage, case, folder).map_err(|why| format!("{why}\n  log: {}", tail(&folder.join("log"))));
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.add((&case.name(), "update --file"), &case.name(), outcome);
    }))
}

fn play(stage: &Stage, case: &Want, folder: &Path) -> Result<String, String> {
    let disk = Mount::tmpfs(&folder.with_extension("tmpfs"), DISK)?;
    let mut device = Device::bare(stage, folder)?;
    device.state = disk.at.join("state");
    copy_folder(&stage.seed, &device.state).map_err(|e| e.to_string())?;
    let mut agent = device.spawn("boot-2", None)?;
    let mut operator = None;
    let done = device.truth(stage, &mut agent).and_then(|_| order(stage, case, &device, &disk, &mut operator));
    let done = done.and_then(|()| watch(stage, case, &device, &mut agent));
    let done = done.and_then(|code| {
        // Room returns; nobody tells the Director.
        fs::remove_file(disk.at.join("filler")).map_err(|e| e.to_string())?;
        finish(stage, &device, &mut agent).map(|()| format!("{code}, then finished"))
    });
    if let Some(mut operator) = operator {
        let _ = operator.kill();
        let _ = operator.wait();
    }
    device.stop(&mut agent);
    done
}

fn order(stage: &Stage, case: &Want, device: &Device, disk: &Mount, operator: &mut Option<Child>) -> Result<(), String> {
    let program = fs::metadata(stage.program(stage.new)).map_err(|e| e.to_string())?.len();
    match case {
        Want::Free(free, beside) => fill(disk, free + if *beside { program } else { 0 })?,
        Want::From(_) => {}
    }
    let source = stage.source.display().to_string();
    let log = File::create(device.folder.join("operator")).map_err(|e| e.to_string())?;
    let mut command = device.command(&["update", "--file", &source, "--version", stage.new]);
    *operator = Some(command.stdout(Stdio::null()).stderr(log).spawn().map_err(|e| e.to_string())?);
    let Want::From(file) = case else { return Ok(()) };
    let filled = device.state.join("slots/b").join(file);
    let end = clock::monotonic() + LIMIT;
    while !filled.exists() {
        if clock::monotonic() > end {
            return Err(format!("{} did not come", filled.display()));
        }
        std::hint::spin_loop();
    }
    // It takes its next step when the disk is full.
    let pid = device.pid().ok_or("no Director runs")?;
    signal(pid, libc::SIGSTOP);
    let full = fill(disk, 0);
    signal(pid, libc::SIGCONT);
    full
}

/// Waits until the cause is named. The old version runs and serves all the time, with its package.
fn watch(stage: &Stage, case: &Want, device: &Device, agent: &mut Child) -> Result<String, String> {
    let end = clock::monotonic() + LIMIT;
    let mut last = String::new();
    while clock::monotonic() < end {
        if device.is_done(stage.new) && matches!(case, Want::From(_)) {
            // It was faster than the filler.
            return Ok("room enough".into());
        }
        last = device.status_of(&["status", "--json"], stage.factory())?;
        let said = fs::read_to_string(device.folder.join("operator")).unwrap_or_default();
        if last.contains("\"code\":\"disk_full\"") || said.contains("(disk_full)") {
            let runs = device.truth(stage, agent)?;
            if runs == stage.new && matches!(case, Want::From(_)) {
                // It had taken the step before it was stopped: a trial goes on whatever the disk says.
                return Ok("disk_full on trial".into());
            }
            if runs != stage.old {
                return Err(format!("{runs} runs on a full disk"));
            }
            return left_over(case, device).map(|()| "disk_full".into());
        }
        pause(50);
    }
    Err(format!("nobody says disk_full: {last}"))
}

/// What was taken of the reserve, and what lies there half done.
fn left_over(case: &Want, device: &Device) -> Result<(), String> {
    let free = room(&device.state).map_err(|e| e.to_string())?.free;
    // Records of some KB are written on the way: that is what the reserve is for.
    let records = 256 << 10;
    let wanted = match case {
        Want::Free(bytes, false) => bytes.saturating_sub(records),
        Want::Free(..) => RESERVE - (1 << 20) - records,
        Want::From(_) => 0,
    };
    if free < wanted {
        return Err(format!("{free} bytes are free, {wanted} were to be left alone"));
    }
    let slot = device.state.join("slots/b");
    if slot.join("slot.json").exists() || slot.join("confirmed").exists() {
        return Err("slot b is claimed to be complete".into());
    }
    Ok(())
}

fn finish(stage: &Stage, device: &Device, agent: &mut Child) -> Result<(), String> {
    let end = clock::monotonic() + LIMIT;
    let mut last = String::new();
    let mut again: Option<Child> = None;
    while clock::monotonic() < end {
        if device.is_done(stage.new) {
            let runs = device.truth(stage, agent)?;
            if let Some(mut again) = again {
                let _ = again.kill();
                let _ = again.wait();
            }
            let half = device.state.join("backup/.new");
            return match runs == stage.new && !half.exists() {
                true => director::is_intact(stage, device),
                false => Err(format!("{runs} runs; {} is there: {}", half.display(), half.exists())),
            };
        }
        // What even the request found no room for is ordered again.
        let ended = device.last_result().is_some_and(|r| r.version == stage.new);
        let asked = !fs::read_to_string(device.folder.join("operator")).unwrap_or_default().is_empty();
        if again.is_none() && (ended || asked) {
            let mut command = device.command(&["update", "--file", &stage.source.display().to_string(), "--version", stage.new]);
            again = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?);
        }
        last = device.status_of(&["status"], stage.factory())?;
        pause(50);
    }
    Err(format!("does not finish after room has returned:\n{last}"))
}
