//! Processes die at the worst moment, power fails, disks rot.

use std::path::PathBuf;
use std::time::Duration;

use vmetric::core::slots::{Reached, Slot};
use vmetric::io::state::State;
use vmetric::io::{clock, random};
use vmetric::wire::agent_api::ResultWire;
use vmetric::wire::records::StatusWire;

use crate::build::{BIG, CRASHES_LATER, GOOD};
use crate::device::Device;
use crate::pause;
use crate::scenarios::{Cast, ended, same};
use crate::scenarios_hostile::flip_byte;
use crate::show::Row;
use crate::site::Site;

/// Bytes per second of a slow link, so that a download takes long enough to be interrupted.
const SLOW: u64 = 4 << 20;
/// What TLS, reports and bytes in flight at a kill may cost beside the file.
const BESIDE: u64 = 4 << 20;
/// The process dies within so many milliseconds of its start: launcher, checks, self-test, switch, trial.
const LIFE_MS: u64 = 500;
/// A trial with its Director at hand takes about so many milliseconds.
const TRIAL_MS: u64 = 120;

/// A loaded machine takes the demo away from its watch for tenths of a second, in which a trial can begin and end.
const HESITATES: Duration = Duration::from_secs(3);

/// (h) SIGKILL in the middle of a large download, twice.
pub fn download(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-h")?;
    let (clock, before) = (cast.clock(), device.relay.carried());
    let length = std::fs::metadata(cast.stage.builds.agent(BIG)).map_err(|e| e.to_string())?.len();
    device.relay.limit(SLOW);
    cast.site.assign(&[&device.id], BIG, "")?;
    let mut kept = 0;
    for percent in [25, 60] {
        let there = || Some(()).filter(|()| on_disk(&device) >= length * percent / 100 && bytes_done(&device) > 0);
        device.until("the download to get on", 60, there)?;
        device.kill()?;
        let now = on_disk(&device);
        if now < kept {
            return Err(format!("{now} bytes are on the disk, {kept} were there before"));
        }
        kept = now;
        device.say(&format!("kill -9 with {kept} of {length} bytes on the disk"));
    }
    device.relay.limit(0);
    let result = device.result_after("", 60)?;
    ended(&result, "updated", "", "confirmed")?;
    let carried = device.relay.carried() - before;
    if carried > length + BESIDE {
        return Err(format!("{carried} bytes crossed the wire for a file of {length}: something was fetched twice"));
    }
    same("bytes on disk at the last kill, and fetched after it", &(kept + result.bytes).to_string(), &length.to_string())?;
    cast.confirmed(&device, BIG)?;
    Ok(Row { bytes: carried, ..clock.row(&result) })
}

/// What the device itself says.
fn bytes_done(device: &Device) -> u64 {
    let status: Option<StatusWire> = State::look(&device.state).status();
    status.map_or(0, |s| s.bytes_done)
}

/// What a dead process had written counts, too.
fn on_disk(device: &Device) -> u64 {
    let files = |slot: Slot| std::fs::read_dir(State::look(&device.state).slot_folder(slot)).into_iter().flatten().flatten();
    let parts = Slot::BOTH.into_iter().flat_map(files).filter(|f| f.path().extension().is_some_and(|e| e == "part"));
    parts.filter_map(|f| f.metadata().ok()).map(|m| m.len()).max().unwrap_or(0)
}

/// (h) SIGKILL around the switch, 20 times, with a service manager that starts it again.
pub fn switch_exec(cast: &Cast) -> Result<Row, String> {
    killed(cast, "device-h2", 20)
}

/// (h) The same with `--supervise`: the child is killed. It is started again more and more slowly, so fewer times.
pub fn switch_supervised(cast: &Cast) -> Result<Row, String> {
    killed(cast, "device-h2", 6)
}

fn killed(cast: &Cast, name: &str, kills: u32) -> Result<Row, String> {
    let device = cast.device(name)?;
    let clock = cast.clock();
    let mut done = 0;
    let (mut updates, mut on_trial, mut last) = (0, 0, Err("no update took place".to_string()));
    while done < kills {
        let version = if updates % 2 == 0 { GOOD } else { CRASHES_LATER };
        let before = begin(cast, &cast.site, &device, version)?;
        // A second death on trial would condemn the version, and rightly so: nobody can tell it from a crash.
        while done < kills && device.last_result().is_none_or(|r| r.id == before) {
            aim(&device, &before, done);
            if !device.end(libc::SIGKILL) {
                continue;
            }
            done += 1;
            if device.trial().is_some() {
                on_trial += 1;
                break;
            }
        }
        last = finish(cast, &device, version, &before);
        last.clone()?;
        updates += 1;
    }
    device.say(&format!("killed it {done} times during {updates} updates, {on_trial} times on trial; every update was finished"));
    Ok(Row { code: format!("{done} kills, {on_trial} on trial"), bytes: 0, gap_ms: 0, ..clock.row(&last?) })
}

/// (h) All processes of the device die at once and come back under another boot id.
pub fn power_cuts(cast: &Cast) -> Result<Row, String> {
    const CUTS: u32 = 20;
    /// Six starts in all may be lost before nothing can be told of a version any more.
    const STARTS: u32 = 4;
    let device = cast.device("device-h3")?;
    let clock = cast.clock();
    let (mut done, mut updates, mut on_trial, mut last) = (0, 0, 0, Err("no update took place".to_string()));
    while done < CUTS {
        let version = if updates % 2 == 0 { GOOD } else { CRASHES_LATER };
        let before = begin(cast, &cast.site, &device, version)?;
        while done < CUTS && device.last_result().is_none_or(|r| r.id == before) {
            aim(&device, &before, done);
            device.power_off();
            done += 1;
            let starts = device.trial().map_or(0, |slot| device.marks().slot(slot).evidence.starts);
            on_trial += u32::from(starts > 0);
            device.power_on(&format!("boot-{done}"));
            if starts >= STARTS {
                break;
            }
        }
        last = finish(cast, &device, version, &before);
        last.clone()?;
        updates += 1;
    }
    device.say(&format!("cut the power {done} times during {updates} updates, {on_trial} times on trial; every update was finished"));
    Ok(Row { code: format!("{done} cuts, {on_trial} on trial"), bytes: 0, gap_ms: 0, ..clock.row(&last?) })
}

/// Waits for the moment of the next kill: some moment of the process's life, or, every other time, of the short trial.
fn aim(device: &Device, before: &str, kills: u32) {
    if kills.is_multiple_of(2) {
        return pause(random::seed() % LIFE_MS);
    }
    let over = || device.last_result().is_some_and(|r| r.id != before);
    // Neither comes: the agent is about to be started again, slowly. Then this is a moment as good as any.
    let _ = at_once("a trial", || (device.trial().is_some() || over()).then_some(()));
    pause(random::seed() % TRIAL_MS);
}

/// Orders a version and waits until its file is in the slot. Returns the id of the result before.
fn begin(cast: &Cast, site: &Site, device: &Device, version: &str) -> Result<String, String> {
    let before = device.last_result().map(|r| r.id).unwrap_or_default();
    let length = std::fs::metadata(cast.stage.builds.agent(version)).map_err(|e| e.to_string())?.len();
    let inactive = device.marks().inactive(device.marks().active);
    let program: PathBuf = device.program(inactive);
    let old = std::fs::metadata(&program).ok().and_then(|m| m.modified().ok());
    site.assign(&[&device.id], version, "--end-probation")?;
    let new = || std::fs::metadata(&program).ok().filter(|m| m.len() == length && m.modified().ok() != old);
    at_once("a staged file", new)?;
    Ok(before)
}

fn finish(cast: &Cast, device: &Device, version: &str, before: &str) -> Result<ResultWire, String> {
    let result = device.result_after(before, 60)?;
    ended(&result, "updated", "", "confirmed")?;
    cast.confirmed(device, version)?;
    Ok(result)
}

/// Orders a version and holds it on trial: the wire is cut while the new program's first connection leads nowhere yet.
fn held_on_trial(cast: &Cast, site: &Site, device: &Device) -> Result<Slot, String> {
    device.relay.hesitate(HESITATES);
    begin(cast, site, device, GOOD)?;
    device.relay.cut();
    device.relay.hesitate(Duration::ZERO);
    at_once("a trial", || device.trial())
}

/// (i) Both slots are damaged: the factory image runs, reports, and is repaired without anybody's help.
pub fn both_slots(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-i")?;
    for version in [GOOD, CRASHES_LATER] {
        ended(&device.order(version, "", 60)?, "updated", "", "confirmed")?;
    }
    cast.confirmed(&device, CRASHES_LATER)?;
    let before = device.last_result().map(|r| r.id).unwrap_or_default();
    device.power_off();
    for slot in Slot::BOTH {
        flip_byte(&device.program(slot))?;
    }
    device.say("one byte of either slot has rotted; restarts the agent");
    let clock = cast.clock();
    device.start()?;
    let result = device.until("the loss is reported", 30, || device.last_result().filter(|r| r.id != before))?;
    ended(&result, "rolled_back", "could_not_tell", "slot_damaged")?;
    let seconds = device.until("the repair", 60, || {
        let done = device.last_result().is_some_and(|r| r.outcome == "updated" && r.id != before);
        done.then(|| clock.seconds())
    })?;
    let events = cast.site.activity();
    let ordered = events.iter().any(|e| e.agent == device.id && e.code == "repair_ordered");
    same("the Director ordered the repair by itself", &ordered.to_string(), "true")?;
    let result = device.last_result().ok_or("there is no result")?;
    cast.confirmed(&device, CRASHES_LATER)?;
    Ok(Row { result: "repaired".into(), code: "could_not_tell/slot_damaged".into(), seconds, ..clock.row(&result) })
}

/// (l) An orderly stop says nothing about a version.
pub fn stopped_on_trial(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-l")?;
    let clock = cast.clock();
    let slot = held_on_trial(cast, &cast.site, &device)?;
    device.say("the network is cut, the new version stays on trial; stops it three times (SIGTERM)");
    for stop in 1..=3 {
        let evidence = || device.marks().slot(slot).evidence.clone();
        let up = || device.pid().and(Some(evidence())).filter(|e| e.starts == stop && e.reached >= Reached::SelfCheck);
        device.until("the trial passes its self-check", 20, up)?;
        device.hold();
        device.end(libc::SIGTERM);
        device.until("it has stopped", 10, || device.pid().is_none().then_some(()))?;
        let trial = device.status()?.trial.ok_or("it is not on trial any more")?;
        same("how it ended", &trial.ended, "stopped")?;
        device.release();
    }
    device.relay.heal();
    let result = device.result_after("", 40)?;
    ended(&result, "updated", "", "confirmed")?;
    same("deaths held against it", &device.marks().slot(slot).evidence.crashes.to_string(), "0")?;
    cast.confirmed(&device, GOOD)?;
    Ok(clock.row(&result))
}

/// Looks almost without a pause: a trial with its Director at hand is over in a tenth of a second.
fn at_once<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> Result<T, String> {
    let end = clock::monotonic() + Duration::from_secs(40);
    while clock::monotonic() < end {
        match found() {
            Some(found) => return Ok(found),
            None => pause(1),
        }
    }
    Err(format!("40 s passed without {what}"))
}

/// (n) The authority dies while the trial waits for it, and comes back.
pub fn director_killed(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site()?;
    let device = cast.device_at(&site, "device-n")?;
    let clock = cast.clock();
    let slot = held_on_trial(cast, &site, &device)?;
    device.say("kills the Director (SIGKILL) while the new version is on trial");
    site.kill();
    device.relay.heal();
    pause(1000);
    same("still on trial without a Director", &format!("{:?}", device.trial()), &format!("{:?}", Some(slot)))?;
    device.say("starts the Director again");
    site.up()?;
    let result = device.result_after("", 40)?;
    // Its gap is that of the Director, not of the agent.
    let row = Row { gap_ms: 0, ..clock.row(&result) };
    ended(&result, "updated", "", "confirmed")?;
    cast.confirmed(&device, GOOD)?;
    let seen = || device.view().ok().filter(|v| v.state == "updated");
    device.until("the Director shows the order as done", 10, seen)?;
    Ok(row)
}
