//! Full, read-only and noexec disks: the old version runs, the device and its Director say why, and the update goes on by
//! itself when there is room again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use miniserde::{Deserialize, json};
use vmetric::io::clock;
use vmetric::io::fs::room;

use crate::build::FACTORY;
use crate::device::{Device, copy_folder};
use crate::mount::{Mount, own_namespace};
use crate::pause;
use crate::stage::{NEW, OLD, Stage};
use crate::table::Table;
use crate::{Args, Ended, each};

/// Bytes left free: from nothing, over what a record needs, to a little less than what the preflight asks for.
const FREE: [u64; 9] = [0, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 1 << 20, 6 << 20, 12 << 20, 20 << 20];
/// Files that can still be made.
const INODES: [u64; 4] = [0, 1, 2, 4];

#[derive(Clone, Debug)]
enum Want {
    Free(u64),
    Inodes(u64),
    ReadOnly,
    NoExec,
    ImageNoExec,
}

impl Want {
    fn name(&self) -> String {
        match self {
            Want::Free(n) => format!("disk:free:{n}"),
            Want::Inodes(n) => format!("disk:inodes:{n}"),
            Want::ReadOnly => "disk:read-only:0".into(),
            Want::NoExec => "disk:noexec-state:0".into(),
            Want::ImageNoExec => "disk:noexec-image:0".into(),
        }
    }

    fn all() -> Vec<Want> {
        let free = FREE.into_iter().map(Want::Free);
        free.chain(INODES.into_iter().map(Want::Inodes)).chain([Want::ReadOnly, Want::NoExec, Want::ImageNoExec]).collect()
    }

    /// Codes that name the cause.
    fn codes(&self) -> &[&str] {
        match self {
            Want::Free(_) | Want::Inodes(_) => &["disk_full"],
            Want::ReadOnly => &["state_not_writable"],
            Want::NoExec => &["noexec"],
            Want::ImageNoExec => &["image_not_started"],
        }
    }
}

#[derive(Deserialize)]
struct Status {
    step: String,
    code: String,
    detail: String,
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

/// The group `disk`.
pub fn run(stage: &Stage, args: &Args) -> Result<Table, Ended> {
    own_namespace()?;
    let mut cases = Want::all();
    if let Some(name) = &args.only {
        cases.retain(|case| case.name() == *name);
    }
    Ok(each(args, &stage.work, &cases, |case, folder, table| {
        let outcome = play(stage, case, folder).map_err(|why| format!("{why}\n  log: {}", crate::matrix::tail(&folder.join("log"))));
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.add((&case.name(), "an order of the Director"), &case.name(), outcome);
    }))
}

fn play(stage: &Stage, case: &Want, folder: &Path) -> Result<String, String> {
    let state = Mount::tmpfs(&folder.with_extension("tmpfs"), "size=64m")?;
    let mut device = Device::bare(stage, folder)?;
    let image = match case {
        Want::ImageNoExec => {
            let mount = Mount::tmpfs(&folder.with_extension("image"), "size=16m")?;
            copy_folder(&folder.join("image"), &mount.at.join("image")).map_err(|e| e.to_string())?;
            std::fs::remove_dir_all(folder.join("image")).map_err(|e| e.to_string())?;
            std::os::unix::fs::symlink(mount.at.join("image"), folder.join("image")).map_err(|e| e.to_string())?;
            Some(mount)
        }
        _ => None,
    };
    device.state = state.at.join("state");
    device.enroll(stage, false)?;
    copy_folder(&stage.seed, &device.state).map_err(|e| e.to_string())?;
    let mut agent = match case {
        // The others run when the disk becomes what it is. A mount with open files cannot be made read-only by hand.
        Want::NoExec | Want::ReadOnly => {
            state.remount(if matches!(case, Want::NoExec) { "noexec" } else { "ro" })?;
            device.spawn("boot-2", None)?
        }
        _ => {
            let mut agent = device.spawn("boot-2", None)?;
            device.truth(stage, &mut agent)?;
            agent
        }
    };
    match case {
        Want::Free(free) => fill(&state, *free)?,
        Want::Inodes(free) => {
            let used = inodes(&state.at)?;
            state.remount(&format!("nr_inodes={}", used + free))?;
        }
        Want::ImageNoExec => image.as_ref().ok_or("no image")?.remount("noexec")?,
        Want::NoExec | Want::ReadOnly => {}
    }
    let watched = watch(stage, case, &device, &mut agent);
    // Room returns; nobody tells the agent.
    match case {
        Want::Free(_) => std::fs::remove_file(state.at.join("filler")).map_err(|e| e.to_string())?,
        Want::Inodes(_) => state.remount("nr_inodes=1000")?,
        Want::ReadOnly => state.remount("rw")?,
        Want::NoExec => state.remount("exec")?,
        Want::ImageNoExec => image.as_ref().ok_or("no image")?.remount("exec")?,
    }
    let finished = watched.and_then(|code| finish(stage, &device, &mut agent).map(|()| format!("{code}, then finished")));
    device.stop(&mut agent);
    finished
}

/// Orders the update and waits until device and Director say why it does not get on; the old version runs all the time.
fn watch(stage: &Stage, case: &Want, device: &Device, agent: &mut std::process::Child) -> Result<String, String> {
    let site = stage.site.as_ref().ok_or("no Director")?;
    site.assign(&[&device.id], NEW, "--end-probation --retry")?;
    let end = clock::monotonic() + Duration::from_secs(15);
    let mut last = String::new();
    while clock::monotonic() < end {
        let text = device.status_of(&["status", "--json"], case_image(stage))?;
        let status: Status = json::from_str(&text).map_err(|_| format!("status --json: {text}"))?;
        let seen = site.agent(&device.id).map(|a| (a.code, a.version))?;
        if device.is_done(NEW) {
            return Ok("room enough".into());
        }
        let problem = status.problem.as_ref().map_or("", |p| p.code.as_str());
        let told = case.codes().contains(&status.code.as_str()) || case.codes().contains(&problem);
        if told && case.codes().contains(&seen.0.as_str()) {
            let runs = device.truth(stage, agent)?;
            // On trial it is the new version that waits for room.
            let expected = if matches!(case, Want::NoExec) { [FACTORY, FACTORY] } else { [OLD, NEW] };
            return if expected.contains(&runs.as_str()) { Ok(seen.0) } else { Err(format!("{runs} runs")) };
        }
        last = format!("the device says {}: {} ({}), the Director has {seen:?}", status.step, status.detail, status.code);
        pause(100);
    }
    Err(format!("nobody says {:?}: {last}", case.codes()))
}

fn case_image(stage: &Stage) -> std::path::PathBuf {
    stage.builds.agent(FACTORY)
}

fn finish(stage: &Stage, device: &Device, agent: &mut std::process::Child) -> Result<(), String> {
    let end = clock::monotonic() + Duration::from_secs(25);
    let mut last = String::new();
    while clock::monotonic() < end {
        if device.is_done(NEW) {
            return device.truth(stage, agent).map(drop);
        }
        last = device.status_of(&["status"], case_image(stage))?;
        pause(50);
    }
    Err(format!("does not finish after room has returned:\n{last}"))
}

/// Leaves so many bytes free.
pub fn fill(mount: &Mount, free: u64) -> Result<(), String> {
    let told = |e: std::io::Error| format!("filler: {e}");
    let file = File::create(mount.at.join("filler")).map_err(told)?;
    let now = room(&mount.at).map_err(told)?.free;
    let piece = vec![1u8; 4096];
    for at in (0..now.saturating_sub(free)).step_by(4096) {
        if file.write_all_at(&piece, at).is_err() {
            break;
        }
    }
    Ok(())
}

fn inodes(at: &Path) -> Result<u64, String> {
    let out = std::process::Command::new("stat").args(["-f", "-c", "%c %d"]).arg(at).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut numbers = text.split_whitespace().filter_map(|n| n.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(all), Some(free)) => Ok(all - free),
        _ => Err(format!("stat -f: {text}")),
    }
}
