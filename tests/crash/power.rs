//! Power cuts on a real file system: what was not synced is lost. ext4 on a loop mount is shut down without its journal at
//! one exact call of the agent, mounted again, and the device boots.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use crate::device::{Cut, Device, Flow, copy_folder};
use crate::matrix::flow_word;
use crate::mount::{Mount, own_namespace, run as system};
use crate::stage::Stage;
use crate::table::Table;
use crate::{Args, Ended, each};

/// Cuts in each phase of each kind of update, spread evenly over the phase.
const CUTS: usize = 4;
/// The same with `--deep`.
const CUTS_DEEP: usize = 60;
/// Two slots, a part, and what the agent wants to be free.
const DISK: &str = "128M";
/// The same for a Director, with its backups.
const DISK_DIRECTOR: &str = "256M";

struct Case {
    group: String,
    flow: Flow,
    phase: String,
    at: usize,
}

impl Case {
    fn name(&self) -> String {
        format!("{}:{}:{}:{}", self.group, flow_word(self.flow), self.phase, self.at)
    }

    fn parse(name: &str) -> Option<Case> {
        let words: Vec<&str> = name.split(':').collect();
        let [group, flow, phase, at] = words[..] else { return None };
        let flow = if flow == "file" { Flow::File } else { Flow::Online };
        Some(Case { group: group.into(), flow, phase: phase.into(), at: at.parse().ok()? })
    }
}

/// The group `power-loss`.
pub fn run(stage: &Stage, args: &Args) -> Result<Table, Ended> {
    own_namespace()?;
    let base = base(stage).map_err(Ended::DidNotRun)?;
    let mut cases = Vec::new();
    match &args.only {
        Some(name) => cases.push(Case::parse(name).ok_or(format!("'{name}' is no case"))?),
        None => {
            for flow in stage.flows.iter().copied() {
                cases.extend(plan(stage, flow, if args.deep { CUTS_DEEP } else { CUTS })?);
            }
        }
    }
    Ok(each(args, &stage.work, &cases, |case, folder, table| {
        let outcome = play(stage, case, folder, &base);
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.add((&format!("{}, {}", flow_word(case.flow), case.phase), "page cache lost"), &case.name(), outcome);
    }))
}

/// A disk image with the seed on it. Fails where there are no loop devices or no ext4.
fn base(stage: &Stage) -> Result<std::path::PathBuf, String> {
    let image = stage.work.join("base.img");
    let path = image.display().to_string();
    system("truncate", &["-s", if stage.is_director() { DISK_DIRECTOR } else { DISK }, &path])?;
    system("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", &path])?;
    let mount = Mount::ext4(&image, &stage.work.join("base"))?;
    copy_folder(&stage.seed, &mount.at.join("state")).map_err(|e| e.to_string())?;
    drop(mount);
    Ok(image)
}

/// The phases of an update, told by the file that a call is about.
fn phase<'a>(what: &str, before: &'a str, execs: usize) -> &'a str {
    let is = |names: &[&str]| names.iter().any(|n| what.contains(n));
    match () {
        () if is(&["request.json", "order.json", "tree.json"]) && execs == 0 => "order",
        () if is(&["/trust/"]) && execs == 0 => "metadata",
        () if is(&["/backup/"]) && execs == 0 && before != "start" => "backup",
        () if is(&["/package"]) && execs == 0 => "package",
        () if is(&["director.redb"]) && before == "marks" => "drain",
        () if is(&["director.redb"]) && execs > 0 => "store",
        () if is(&[".part"]) => "download",
        () if is(&["slot.json"]) && before != "start" => "slot.json",
        () if is(&["confirmed"]) && execs > 0 => "confirm",
        () if is(&["result"]) && execs > 0 => "result",
        () if is(&["/marks."]) && before == "slot.json" => "marks",
        () => before,
    }
}

/// Cuts spread over all phases of an undisturbed update.
fn plan(stage: &Stage, flow: Flow, cuts: usize) -> Result<Vec<Case>, String> {
    let folder = stage.work.join("count");
    let device = Device::of_seed(stage, &folder, &folder.join("state"), flow)?;
    let log = folder.join("calls");
    let cut = Cut { kind: "any".into(), at: 0, act: "count".into(), log: Some(log.clone()) };
    device.update_to(stage, flow, stage.new, "boot-2", Some(&cut))?;
    let text = fs::read_to_string(&log).map_err(|e| e.to_string())?;
    let (mut now, mut execs, mut of) = ("start", 0, BTreeMap::<&str, Vec<usize>>::new());
    for (n, line) in text.lines().enumerate() {
        let what = line.splitn(5, ' ').nth(4).unwrap_or_default();
        if line.contains(" execve ") && now != "start" && what.contains("/image/vmetric-") {
            (now, execs) = ("switch", execs + 1);
        } else if line.contains(" execve ") && execs > 0 {
            now = "trial";
        } else {
            now = phase(what, now, execs);
        }
        of.entry(now).or_default().push(n + 1);
    }
    let spread = |all: &Vec<usize>| -> Vec<usize> {
        let n = all.len().min(cuts);
        (0..n).map(|i| all[i * all.len() / n]).collect()
    };
    let case = |phase: &str, at| Case { group: stage.group("power-loss"), flow, phase: phase.into(), at };
    Ok(of.iter().flat_map(|(phase, all)| spread(all).into_iter().map(|at| case(phase, at)).collect::<Vec<_>>()).collect())
}

fn play(stage: &Stage, case: &Case, folder: &Path, base: &Path) -> Result<String, String> {
    let disk = folder.with_extension("disk");
    let image = folder.with_extension("img");
    system("cp", &["--sparse=always", &base.display().to_string(), &image.display().to_string()])?;
    let mount = Mount::ext4(&image, &disk)?;
    let mut device = Device::bare(stage, folder)?;
    device.state = mount.at.join("state");
    if case.flow == Flow::Online {
        device.enroll(stage, false)?;
    }
    let cut = Cut { kind: "any".into(), at: case.at as u64, act: format!("power={}", mount.at.display()), log: None };
    let told = |why: String| format!("{why}\n  log: {}", crate::matrix::tail(&folder.join("log")));
    device.mount = Some(mount);
    device.update_to(stage, case.flow, stage.new, "boot-2/boot-3", Some(&cut)).map(|story| story.outcome()).map_err(told)
}
