//! OpenRC, runit and busybox init: one device each, from install to uninstall.

use vmetric::core::slots::Reached;

use crate::build::{CRASHES, FACTORY, GOOD};
use crate::cases::Cast;
use crate::cases_update::{ask, assign_all, director_up};
use crate::device::{Device, ended, has, same};

/// Install, respawn, update, rollback, reboot on trial, stop, uninstall.
pub fn all(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let mut seen = Vec::new();
        seen.push(respawn(device)?);
        ended(&device.order(GOOD, 60)?, "updated", "", "confirmed")?;
        device.confirmed(GOOD)?;
        seen.push(format!("updated to {GOOD}"));
        ended(&device.order(CRASHES, 90)?, "rolled_back", "bad", "crashed_or_hung")?;
        device.confirmed(GOOD)?;
        seen.push(format!("{CRASHES} rolled back"));
        seen.push(reboot(device)?);
        device.service("stop")?;
        device.until("it to stop", 20, |d| d.pid().is_none().then_some(()))?;
        crate::pause(3000);
        same("agents after a stop", device.pid().is_some(), false)?;
        device.service("start")?;
        device.confirmed(FACTORY)?;
        device.service("uninstall")?;
        no_process(device)?;
        seen.push("stopped, started, uninstalled".into());
        Ok(seen.join(", "))
    })
}

/// A Director of the host's own: install, respawn, an order to the agent beside it, stop, start, uninstall.
pub fn director(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    let end = device.bed.boot().and_then(|()| director_in(&mut device));
    cast.look(&device, end)
}

fn director_in(device: &mut Device) -> Result<String, String> {
    director_up(device)?;
    // The kernel keeps 15 characters of a name.
    let pid = |d: &Device| d.bed.sh("pgrep -o -x vmetric-directo").ok().map(|text| text.trim().to_string());
    has("-service status", &ask(device, "-service status")?, device.bed.init.word())?;
    let before = pid(device).ok_or("no Director runs")?;
    device.bed.sh(&format!("kill -9 {before}"))?;
    device.until("another Director", 30, |d| pid(d).filter(|now| *now != before))?;
    assign_all(device, GOOD)?;
    // The agent's own word: the Director of the other cases knows nothing of it.
    let updated = |d: &Device| d.status().ok().filter(|s| s.runs && s.version == GOOD && s.running_as == "confirmed").map(drop);
    device.until("the agent to run the ordered version, confirmed", 60, updated)?;
    device.until("the Director to say so", 30, |d| ask(d, "agents").ok().filter(|text| text.contains(GOOD)))?;
    ask(device, "-service stop")?;
    device.until("the Director to stop", 20, |d| pid(d).is_none().then_some(()))?;
    crate::pause(3000);
    same("Directors after a stop", pid(device).is_some(), false)?;
    same("the agent runs", device.runs()?, GOOD)?;
    ask(device, "-service start")?;
    device.until("the Director to answer again", 30, |d| ask(d, "status").ok())?;
    device.service("uninstall")?;
    ask(device, "-service uninstall")?;
    no_process(device)?;
    Ok(format!("respawned after SIGKILL, {GOOD} ordered and confirmed, stopped, started, uninstalled"))
}

fn respawn(device: &Device) -> Result<String, String> {
    let pid = device.pid().ok_or("no agent runs")?;
    let status = device.service("status")?;
    has("-service status", &status, device.bed.init.word())?;
    device.bed.sh(&format!("kill -9 {pid}"))?;
    device.until("another process", 30, |d| d.pid().filter(|now| *now != pid))?;
    Ok("respawned after SIGKILL".into())
}

fn reboot(device: &mut Device) -> Result<String, String> {
    device.hook("sleep 2")?;
    let before = device.last_result().map(|r| r.id).unwrap_or_default();
    device.assign(FACTORY)?;
    let slot = device.until("a trial", 60, Device::trial)?;
    device.bed.relay.cut();
    let reached = |d: &Device, start: u32| {
        let evidence = d.marks().slot(slot).evidence.clone();
        (d.pid().is_some() && evidence.starts == start && evidence.reached >= Reached::SelfCheck).then_some(())
    };
    device.until("the trial to pass its self-check", 30, |d| reached(d, 1))?;
    device.bed.reboot()?;
    device.until("the trial to pass its self-check after the reboot", 30, |d| reached(d, 2))?;
    same("deaths held against it", device.marks().slot(slot).evidence.crashes, 0)?;
    device.bed.relay.heal();
    ended(&device.result_after(&before, 60)?, "updated", "", "confirmed")?;
    device.confirmed(FACTORY)?;
    Ok("rebooted on trial, confirmed".into())
}

/// Nothing of the agent is left among the processes of the bed.
pub fn no_process(device: &Device) -> Result<(), String> {
    let find = |d: &Device| d.bed.sh("pgrep -a vmetric || true").ok().filter(|text| text.trim().is_empty()).map(drop);
    device.until("the last process to end", 20, find)
}
