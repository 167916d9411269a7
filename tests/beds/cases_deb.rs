//! The deb package: on real systemd and on OpenRC, with real updates before, during and after its upgrade.

use std::path::Path;
use std::process::{Command, Stdio};

use vmetric::core::slots::{Condition, Slot};

use crate::bed::STATE;
use crate::build::{BIG, CRASHES_LATER, FACTORY, GOOD};
use crate::cases::Cast;
use crate::cases_cut::held_on_trial;
use crate::cases_inits::no_process;
use crate::device::{Device, IMAGE, ended, has, same};

/// Where the package puts the factory image.
const PACKAGED: &str = "/usr/lib/vmetric-agent/vmetric-agent";

/// Makes the package of this version's agent and puts it into the bed as `/<version>.deb`.
fn package(device: &Device, version: &str) -> Result<(), String> {
    let stage = device.stage;
    let out = stage.work.join("packages").join(&device.bed.name);
    let arch = vmetric::core::release::Platform::here().arch;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cross/package");
    let mut command = Command::new(script);
    command.args(["--version", version, "--binary", &format!("agent-{arch}={}", stage.builds.agent(version).display())]);
    command.arg("--root").arg(&stage.release.root).arg("--out").arg(&out).args(["deb", &arch, "agent"]);
    let made = command.stdin(Stdio::null()).output().map_err(|e| format!("{script}: {e}"))?;
    if !made.status.success() {
        return Err(format!("{script}: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let file = out.join(format!("vmetric-agent_{version}-1_{arch}.deb"));
    device.bed.copy(&file, &format!("/{version}.deb"))
}

/// A host with the packages of two versions, booted, nothing installed.
fn host<'a>(cast: &Cast<'a>) -> Result<Device<'a>, String> {
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    // The device's questions are asked through the link: by the packaged program.
    let opt = device.bed.path(IMAGE);
    let linked = std::fs::remove_dir_all(&opt).and_then(|()| std::os::unix::fs::symlink("/usr/lib/vmetric-agent", &opt));
    linked.map_err(|e| format!("{}: {e}", opt.display()))?;
    package(&device, FACTORY)?;
    package(&device, BIG)?;
    device.bed.boot()?;
    Ok(device)
}

fn dpkg(device: &Device, words: &str) -> Result<String, String> {
    device.bed.sh(&format!("DEBIAN_FRONTEND=noninteractive dpkg {words} 2>&1"))
}

/// Installed, enrolled, updated, upgraded during a trial, removed, installed again, purged.
pub fn systemd(cast: &Cast) -> Result<String, String> {
    let mut device = host(cast)?;
    let end = systemd_in(&mut device);
    cast.look(&device, end)
}

fn systemd_in(device: &mut Device) -> Result<String, String> {
    not_where_it_is_forbidden(device)?;
    device.enroll()?;
    device.bed.sh("systemctl restart vmetric-agent")?;
    device.runs_as(FACTORY, "factory")?;
    has("the service's file", &device.property("FragmentPath")?, "/lib/systemd/system/vmetric-agent.service")?;
    let pid = device.property("MainPID")?;
    let whose = device.bed.sh(&format!("stat -c %U /proc/{pid} && stat -c '%U %a' {STATE}"))?;
    same("who runs it, and whose the state is", whose.trim().replace('\n', ", "), "vmetric-agent, vmetric-agent 700")?;
    ended(&device.order(GOOD, 60)?, "updated", "", "confirmed")?;
    let good = device.marks().active;
    upgraded_on_trial(device)?;
    // Policy decides from there.
    ended(&device.order(CRASHES_LATER, 60)?, "updated", "", "confirmed")?;
    device.confirmed(CRASHES_LATER)?;
    // The same package again restarts the service and changes nothing.
    dpkg(device, &format!("-i /{BIG}.deb"))?;
    device.confirmed(CRASHES_LATER)?;
    let kept = dpkg(device, "-r vmetric-agent")?;
    has("dpkg -r", &kept, &format!("{STATE} is kept"))?;
    no_process(device)?;
    dpkg(device, &format!("-i /{FACTORY}.deb"))?;
    device.runs_as(FACTORY, "manual")?;
    dpkg(device, "-P vmetric-agent")?;
    no_process(device)?;
    let left = device
        .bed
        .sh(&format!("ls -d {STATE} /usr/lib/vmetric-agent 2> /dev/null; systemctl list-unit-files --no-legend 'vmetric*' || true"));
    same("left after the purge", left.unwrap_or_default().trim(), "")?;
    Ok(format!("installed, {GOOD} confirmed in slot {}, upgraded during a trial, ordered anew, removed, back, purged", good.name()))
}

/// policy-rc.d forbids the start, and an operator who disabled the service keeps it so.
fn not_where_it_is_forbidden(device: &Device) -> Result<(), String> {
    device.bed.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")?;
    device.bed.sh("chmod 755 /usr/sbin/policy-rc.d")?;
    dpkg(device, &format!("-i /{FACTORY}.deb"))?;
    same("the unit where policy-rc.d says no", device.property("ActiveState")?, "inactive")?;
    same("enabled", device.property("UnitFileState")?, "enabled")?;
    device.bed.sh("rm /usr/sbin/policy-rc.d && systemctl disable vmetric-agent")?;
    dpkg(device, &format!("-i /{FACTORY}.deb"))?;
    same("the disabled unit after an upgrade", device.property("ActiveState")?, "inactive")?;
    device.bed.sh("systemctl enable --now vmetric-agent")?;
    same("the unit", device.property("ActiveState")?, "active")
}

/// The trial ends without a verdict, its file is not confirmed, the new factory image runs, the confirmed slot stays.
fn upgraded_on_trial(device: &mut Device) -> Result<(), String> {
    let slot = held_on_trial(device, CRASHES_LATER)?;
    let pid = device.property("MainPID")?;
    dpkg(device, &format!("-i /{BIG}.deb"))?;
    device.bed.relay.heal();
    let told = |d: &Device| d.last_result().filter(|r| r.code == "manual_update");
    ended(&device.until("the trial's end", 60, told)?, "rolled_back", "could_not_tell", "manual_update")?;
    device.runs_as(BIG, "manual")?;
    let seen = |d: &Device| d.view().ok().filter(|v| v.state == "cancelled" && v.code == "manual_update").map(drop);
    device.until("the Director to take it for a person's act", 30, seen)?;
    if device.property("MainPID")? == pid {
        return Err("the service was not restarted".into());
    }
    let marks = device.marks();
    same("the slot of the trial", format!("{:?}", marks.slot(slot).condition), "Empty")?;
    same("the fallback", format!("{:?}", marks.slot(slot.other()).condition), "Confirmed")?;
    same("rejections", device.state().path("rejected.json").exists(), false)?;
    device.bed.sh(&format!("rm {STATE}/config/check")).map(drop)
}

/// Under another service manager: what `-service install` made is restarted by an upgrade, and goes with the package.
pub fn openrc(cast: &Cast) -> Result<String, String> {
    let mut device = host(cast)?;
    let end = openrc_in(&mut device);
    cast.look(&device, end)
}

fn openrc_in(device: &mut Device) -> Result<String, String> {
    let said = dpkg(device, &format!("-i /{FACTORY}.deb"))?;
    has("dpkg -i", &said, "vmetric-agent -service install")?;
    device.bed.sh(&format!("{PACKAGED} -service install"))?;
    device.enroll()?;
    device.bed.sh(&format!("{PACKAGED} -service start"))?;
    device.runs_as(FACTORY, "factory")?;
    ended(&device.order(GOOD, 60)?, "updated", "", "confirmed")?;
    dpkg(device, &format!("-i /{BIG}.deb"))?;
    device.runs_as(BIG, "manual")?;
    let fallback = Slot::BOTH.into_iter().filter(|s| device.marks().slot(*s).condition == Condition::Confirmed).count();
    same("confirmed slots", fallback, 1)?;
    dpkg(device, "-r vmetric-agent")?;
    no_process(device)?;
    same("the init script", Path::exists(&device.bed.path("/etc/init.d/vmetric-agent")), false)?;
    dpkg(device, "-P vmetric-agent")?;
    same("the state", Path::exists(&device.bed.path(STATE)), false)?;
    Ok("installed with -service, updated, upgraded and restarted by dpkg, removed with its service, purged".into())
}
