//! The Debian package on a real host: installed, upgraded in the middle of a trial, removed, purged.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bed::STATE;
use crate::build::{CRASHES_LATER, FACTORY, GOOD};
use crate::cases::Cast;
use crate::cases_inits::no_process;
use crate::device::{AGENT, Device, has, same};

/// Where the package puts the image.
const PACKAGED: &str = "/usr/lib/vmetric-agent/vmetric-agent";

/// The package of this version, made by `cross/package`.
fn package(cast: &Cast, version: &str) -> Result<PathBuf, String> {
    let out = cast.stage.work.join("packages").join(version);
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cross/package"));
    command.args(["--version", version, "--out"]).arg(&out).arg("--root").arg(&cast.stage.release.root);
    command.arg("--binary").arg(format!("agent-amd64={}", cast.stage.builds.agent(version).display()));
    let made = command.args(["deb", "amd64", "agent"]).stdin(Stdio::null()).output().map_err(|e| format!("cross/package: {e}"))?;
    if !made.status.success() {
        return Err(format!("cross/package: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let files = std::fs::read_dir(&out).map_err(|e| format!("{}: {e}", out.display()))?.flatten().map(|e| e.path());
    files.into_iter().find(|path| path.extension().is_some_and(|e| e == "deb")).ok_or_else(|| format!("{}: no package", out.display()))
}

/// From the first installation to a purge.
pub fn deb(cast: &Cast) -> Result<String, String> {
    let packages = [package(cast, FACTORY)?, package(cast, GOOD)?];
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    // The commands of a case go through this name.
    let link = device.bed.path(AGENT);
    std::fs::remove_file(&link).and_then(|()| std::os::unix::fs::symlink(PACKAGED, &link)).map_err(|e| format!("{AGENT}: {e}"))?;
    for (n, package) in packages.iter().enumerate() {
        device.bed.copy(package, &format!("root/{n}.deb"))?;
    }
    let end = device.bed.boot().and_then(|()| deb_in(&mut device));
    cast.look(&device, end)
}

fn deb_in(device: &mut Device) -> Result<String, String> {
    device.bed.sh("dpkg -i /root/0.deb 2>&1")?;
    same("enabled", device.property("UnitFileState")?, "enabled")?;
    device.until("the agent to run", 30, |d| d.status().ok().filter(|s| s.runs))?;
    device.enroll()?;
    device.runs_as(FACTORY, "factory")?;
    device.hook("sleep 25")?;
    device.assign(CRASHES_LATER)?;
    let slot = device.until("a trial", 60, |d| d.trial().filter(|slot| d.marks().slot(*slot).evidence.starts == 1))?;
    device.bed.sh("dpkg -i /root/1.deb 2>&1")?;
    let held = device.slot_program(slot);
    device.runs_as(GOOD, "manual")?;
    let line = device.bed.sh(&format!("{AGENT} -version"))?;
    has("-version", &line, "(factory image, manual)")?;
    if !held.exists() {
        return Err(format!("the upgrade removed {}, which is a fallback", held.display()));
    }
    let result = device.last_result().map_or("none".into(), |r| format!("{} {} {}", r.outcome, r.verdict, r.code));
    device.bed.sh("dpkg -r vmetric-agent 2>&1")?;
    no_process(device)?;
    device.bed.sh(&format!("test -e {STATE}/config/agent.json")).map_err(|_| "a removal took the state along")?;
    device.bed.sh("dpkg -P vmetric-agent 2>&1")?;
    let left = device.bed.sh(&format!("ls -d {STATE} /usr/lib/vmetric-agent /lib/systemd/system/vmetric* 2> /dev/null || true"))?;
    same("what is left after a purge", left.trim(), "")?;
    Ok(format!(
        "installed and enrolled; upgraded while {CRASHES_LATER} was on trial: {GOOD} runs as manual, the order ended: {result}; removed, purged"
    ))
}
