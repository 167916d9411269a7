//! Updates under systemd: good, crashing, hanging, interrupted; and the Director as a service.

use std::path::PathBuf;

use vmetric::core::slots::Slot;
use vmetric::io::clock;

use crate::bed::STATE;
use crate::build::{BIG, CRASHES, CRASHES_LATER, FACTORY, GOOD, HANGS};
use crate::cases::Cast;
use crate::device::{AGENT, Device, IMAGE, ended, has, same};
use crate::{bed, wait};

/// Bytes per second of a slow link, so that 24 MB take long enough to be interrupted.
const SLOW: u64 = 4 << 20;

/// Pushed and confirmed: by exec, so that systemd sees one process all the time.
pub fn good(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let (pid, invocation) = (device.property("MainPID")?, device.property("InvocationID")?);
        let result = device.order(GOOD, 60)?;
        ended(&result, "updated", "", "confirmed")?;
        device.confirmed(GOOD)?;
        same("the main process", device.property("MainPID")?, &pid)?;
        same("the invocation", device.property("InvocationID")?, invocation)?;
        same("restarts", device.property("NRestarts")?, 0)?;
        same("the unit", device.property("ActiveState")? + "/" + &device.property("SubState")?, "active/running")?;
        let line = device.bed.sh(&format!("{AGENT} -version"))?;
        has("-version", &line, "running: 1.1.0 (slot a, confirmed)")?;
        Ok(format!("updated with process {pid} all along, {} bytes, {} ms without an agent", result.bytes, result.gap_ms))
    })
}

/// It aborts at its start, again and again: the launcher counts, systemd only restarts.
pub fn crashes(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let seen = condemned(device, CRASHES)?;
        // Still there, still of use.
        let result = device.order(GOOD, 60)?;
        ended(&result, "updated", "", "confirmed")?;
        Ok(format!("{seen}; then {GOOD} confirmed"))
    })
}

/// It never takes a turn: the kernel's alarm ends it, not systemd's watchdog.
pub fn hangs(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let seen = condemned(device, HANGS)?;
        let journal = device.bed.sh("journalctl --no-pager -q -u vmetric-agent")?;
        has("systemd's record of the deaths", &journal, "status=14/ALRM")?;
        Ok(format!("{seen}, each by SIGALRM"))
    })
}

fn condemned(device: &Device, version: &str) -> Result<String, String> {
    let result = device.order(version, 90)?;
    ended(&result, "rolled_back", "bad", "crashed_or_hung")?;
    device.runs_as(FACTORY, "factory")?;
    let restarts: u32 = device.property("NRestarts")?.parse().map_err(|_| "NRestarts is no number")?;
    if restarts < 2 {
        return Err(format!("systemd restarted it {restarts} times; a verdict takes two deaths"));
    }
    same("the unit", device.property("ActiveState")?, "active")?;
    Ok(format!("{version} rolled back as bad after {restarts} restarts by systemd"))
}

/// Confirmed, works, and crashes days later at each start: five starts in a row, then the other slot.
pub fn crashes_later(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        ended(&device.order(GOOD, 60)?, "updated", "", "confirmed")?;
        ended(&device.order(CRASHES_LATER, 60)?, "updated", "", "confirmed")?;
        device.confirmed(CRASHES_LATER)?;
        device
            .bed
            .sh(&format!("mkdir -p {STATE}/storage && touch {STATE}/storage/crash-later && kill -9 {}", device.pid().unwrap_or(0)))?;
        device.until("the other slot to run", 60, |d| d.runs().ok().filter(|v| v == GOOD))?;
        device.confirmed(GOOD)?;
        Ok(format!("{CRASHES_LATER} given up for {GOOD} after {} restarts", device.property("NRestarts")?))
    })
}

/// A stop needs no turn of the main loop, and the download goes on where it was.
pub fn stopped_in_download(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let length = std::fs::metadata(cast.stage.builds.agent(BIG)).map_err(|e| e.to_string())?.len();
        device.bed.relay.limit(SLOW);
        device.assign(BIG)?;
        device.until("a part of the download", 60, |d| Some(()).filter(|()| on_disk(d) >= length / 5))?;
        let began = clock::monotonic();
        device.service("stop")?;
        let took = clock::monotonic().saturating_sub(began);
        let kept = on_disk(device);
        same("how the unit ended", device.property("Result")? + " " + &device.property("ActiveState")?, "success inactive")?;
        same("the process", device.property("MainPID")?, 0)?;
        if kept == 0 || kept >= length {
            return Err(format!("{kept} of {length} bytes are on the disk: it was not stopped in the middle"));
        }
        device.bed.relay.limit(0);
        device.service("start")?;
        let result = device.result_after("", 90)?;
        ended(&result, "updated", "", "confirmed")?;
        device.confirmed(BIG)?;
        same("bytes kept and bytes fetched after the start", kept + result.bytes, length)?;
        Ok(format!("stopped in {} ms with {kept} of {length} bytes, which were not fetched again", took.as_millis()))
    })
}

/// Bytes of the part on the disk.
pub fn on_disk(device: &Device) -> u64 {
    let state = device.state();
    let folders = Slot::BOTH.into_iter().map(|slot| state.slot_folder(slot));
    let files = folders.flat_map(|folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let parts = files.filter(|f| f.path().extension().is_some_and(|e| e == "part"));
    parts.filter_map(|f| f.metadata().ok()).map(|m| m.len()).max().unwrap_or(0)
}

/// The factory image is never written: its file system may forbid it.
pub fn read_only_image(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    device.bed.read_only(IMAGE)?;
    let end = device.bed.boot().and_then(|()| device.set_up()).and_then(|()| {
        let refused = device.bed.sh(&format!("touch {IMAGE}/x")).err().ok_or("the image's folder can be written")?;
        has("a write into the image's folder", &refused, "Read-only file system")?;
        ended(&device.order(GOOD, 60)?, "updated", "", "confirmed")?;
        device.confirmed(GOOD)?;
        let seen = condemned(&device, CRASHES).err();
        // Back to the slot, not to the factory image: so the check of what runs is this one.
        has("what runs after a crash", &seen.unwrap_or_default(), "1.0.0 to run as factory")?;
        device.confirmed(GOOD)?;
        Ok(format!("{GOOD} confirmed, {CRASHES} rolled back to it; {IMAGE} is read-only"))
    });
    cast.look(&device, end)
}

/// The Director of this case is a service in the bed.
const PORT: u16 = 8443;

/// A stop of the Director waits for the trial that it is the authority of; so does a restart.
pub fn director(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    let end = device.bed.boot().and_then(|()| director_in(&mut device));
    cast.look(&device, end)
}

/// Asks the bed's own Director.
pub fn ask(device: &Device, line: &str) -> Result<String, String> {
    device.bed.sh(&format!("{IMAGE}/vmetric-director {line}"))
}

/// A Director as a service of the bed, and the bed's agent enrolled with it and started.
pub fn director_up(device: &mut Device) -> Result<(), String> {
    device.bed.copy(&device.stage.builds.director, &format!("{IMAGE}/vmetric-director"))?;
    let tree = device.bed.path("srv/public");
    crate::mount::run("cp", &["-a", &device.stage.release.tree.display().to_string(), &tree.display().to_string()])?;
    let options = format!("--mirror /srv/public --root {IMAGE}/root.json --listen 127.0.0.1:{PORT} --name 127.0.0.1");
    ask(device, &format!("-service install --now -- {options}"))?;
    wait(30, || ask(device, "status").ok()).ok_or("the Director does not answer")?;
    device.service("install")?;
    let said = ask(device, "token create --json")?;
    let token: vmetric::director::commands::TokenView =
        miniserde::json::from_str(&said).map_err(|_| format!("token create --json: {said}"))?;
    device.bed.sh(&format!("{AGENT} enroll --director https://127.0.0.1:{PORT} --token {} --pin {}", token.token, token.pin))?;
    device.service("start").map(drop)
}

/// Serving begins before the first look at the release tree ends.
pub fn assign_all(device: &Device, version: &str) -> Result<(), String> {
    let taken = wait(30, || ask(device, &format!("assign --all --version {version} --end-probation")).ok());
    taken.map(drop).ok_or_else(|| format!("the Director does not take an order of {version}"))
}

fn director_in(device: &mut Device) -> Result<String, String> {
    director_up(device)?;
    // The operator's own check keeps the trial open for a while.
    device.hook("sleep 8")?;
    let mut seen = Vec::new();
    for (act, version) in [("stop", GOOD), ("restart", BIG)] {
        let before = device.last_result().map(|r| r.id).unwrap_or_default();
        assign_all(device, version)?;
        let slot = device.until("a trial", 60, Device::trial)?;
        let began = clock::monotonic();
        device.bed.sh(&format!("systemctl {act} vmetric-director"))?;
        let took = clock::monotonic().saturating_sub(began);
        let result = device.last_result().filter(|r| r.id != before);
        let result = result.ok_or_else(|| format!("systemctl {act} came back with the trial of slot {} open", slot.name()))?;
        ended(&result, "updated", "", "confirmed")?;
        same("the agent runs", device.runs()?, version)?;
        let ended_by = device.bed.sh("systemctl show -P Result vmetric-director")?;
        same("how the Director's unit ended", ended_by.trim(), "success")?;
        if act == "stop" {
            device.bed.sh("systemctl start vmetric-director")?;
        }
        wait(30, || ask(device, "agents").ok().filter(|text| text.contains(version)))
            .ok_or("the Director does not list the new version")?;
        seen.push(format!("{act} waited {:.1} s for the trial of {version}", took.as_secs_f64()));
    }
    let log = device.bed.sh("journalctl --no-pager -q -u vmetric-director")?;
    Ok(format!("{}; its last word: {}", seen.join(", "), bed::tail(&log, 1)))
}
