//! Bad versions: each device ends with a version that works, and the Director knows why.

use crate::build::{CRASHES, CRASHES_LATER, FACTORY, GOOD, HANGS, MUTE, UNFIT, UNWELL};
use crate::device::Device;
use crate::scenarios::{Cast, Untouched, ended, same};
use crate::show::Row;

/// (b) Dies at its start.
pub fn crashes(cast: &Cast) -> Result<Row, String> {
    condemned(cast, "device-b", CRASHES, "crashed_or_hung", 60)
}

/// (c) Runs and never takes a turn.
pub fn hangs(cast: &Cast) -> Result<Row, String> {
    condemned(cast, "device-c", HANGS, "crashed_or_hung", 60)
}

/// (q) Starts, and finds that it is not well.
pub fn unwell(cast: &Cast) -> Result<Row, String> {
    condemned(cast, "device-q", UNWELL, "self_check_failed", 40)
}

/// Rolled back for good: rejected, and turned down when it is ordered again.
fn condemned(cast: &Cast, name: &str, version: &str, code: &str, seconds: u64) -> Result<Row, String> {
    let device = cast.device(name)?;
    let clock = cast.clock();
    let result = device.order(version, "", seconds)?;
    let row = clock.row(&result);
    ended(&result, "rolled_back", "bad", code)?;
    went_back(&device, FACTORY, code)?;
    let status = device.status()?;
    let bad = status.rejected.iter().any(|r| r.version == version && r.verdict == "bad");
    same("in the rejected list as bad", &bad.to_string(), "true")?;
    let before = Untouched::look(&device)?;
    device.say("orders the same version again");
    let again = device.order(version, "", 30)?;
    ended(&again, "refused", "", "rejected")?;
    before.still(&device)?;
    Ok(row)
}

/// The old version runs again and the Director says why.
fn went_back(device: &Device, version: &str, code: &str) -> Result<(), String> {
    let status = device.until("an agent runs", 20, || device.status().ok().filter(|s| s.runs))?;
    same("the version that runs", &status.version, version)?;
    let seen = || device.view().ok().filter(|v| v.state == "rolled_back" && v.code == code && v.version == version);
    device.until("the Director shows the rollback", 20, seen).map(drop)
}

/// (d) Works, but does not find its Director: nobody can tell; tried again after the cooldown.
pub fn mute(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-d")?;
    let clock = cast.clock();
    let result = device.order(MUTE, "", 60)?;
    let row = clock.row(&result);
    ended(&result, "rolled_back", "could_not_tell", "no_contact")?;
    went_back(&device, FACTORY, "no_contact")?;
    device.until("the second trial, after the cooldown", 30, || device.trial())?;
    let starts = device.status()?.trial.map_or(0, |t| t.starts);
    device.say(&format!("sees it on trial again (start {starts})"));
    device.result_after(&result.id, 40)?;
    let counted = device.status()?.rejected.into_iter().find(|r| r.version == MUTE);
    let counted = counted.ok_or("it is not in the rejected list")?;
    same("the verdict", &counted.verdict, "could_not_tell")?;
    same("times it lost", &counted.count.to_string(), "2")?;
    Ok(row)
}

/// (j) Confirmed, and days later it does not start any more.
pub fn crashes_later(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-j")?;
    for version in [GOOD, CRASHES_LATER] {
        ended(&device.order(version, "", 60)?, "updated", "", "confirmed")?;
    }
    cast.confirmed(&device, CRASHES_LATER)?;
    let before = device.last_result().map(|r| r.id).unwrap_or_default();
    device.say("days later: from now on the confirmed version dies at each start; restarts it");
    vmetric::io::fs::write_volatile(&device.state.join("storage/crash-later"), b"", 0o600).map_err(|e| e.to_string())?;
    let clock = cast.clock();
    device.end(libc::SIGKILL);
    let result = device.result_after(&before, 60)?;
    let row = clock.row(&result);
    ended(&result, "rolled_back", "bad", "crash_loop")?;
    went_back(&device, GOOD, "crash_loop")?;
    cast.confirmed(&device, GOOD)?;
    Ok(row)
}

/// (o) The first device says no, nobody else is touched.
pub fn halted(cast: &Cast) -> Result<Row, String> {
    let devices = (6..=9).map(|n| cast.device(&format!("device-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<&str> = devices.iter().map(|d| d.id.as_str()).collect();
    let clock = cast.clock();
    let ordered = cast.site.assign(&ids, CRASHES, "--max-failures 0 --max-in-flight 100%")?;
    let over = || cast.site.rollout(ordered.rollout).ok().filter(|r| r.state != "running");
    let end = devices[0].until("the halt", 60, over)?;
    let seconds = clock.seconds();
    same("the roll-out", &format!("{}, {} failed, {} wait", end.state, end.failed, end.waiting), "halted, 1 failed, 3 wait")?;
    let ordered = cast.site.activity().iter().filter(|e| e.code == "update_triggered" && ids.contains(&e.agent.as_str())).count();
    same("devices that were ordered anything", &ordered.to_string(), "1")?;
    let run_the_old_one = devices.iter().filter(|d| d.status().is_ok_and(|s| s.runs && s.version == FACTORY)).count();
    same("devices that run the old version", &run_the_old_one.to_string(), "4")?;
    Ok(Row { result: "halted".into(), code: end.code, seconds, ..Row::default() })
}

/// (p) The new file is asked before anything stops.
pub fn unfit(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-p")?;
    let before = Untouched::look(&device)?;
    let clock = cast.clock();
    let result = device.order(UNFIT, "", 40)?;
    let row = clock.row(&result);
    ended(&result, "refused", "", "self_test_failed")?;
    before.still(&device)?;
    Ok(row)
}
