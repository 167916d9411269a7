//! Clocks that are wrong, are set, and stand still: by a file that the agents' test build reads at each look at a clock.

use std::time::Duration;

use vmetric::io::clock;

use crate::build::{BIG, CRASHES_LATER, FACTORY, GOOD, MUTE};
use crate::device::{Device, Status};
use crate::pause;
use crate::scenarios::{Cast, ended, same};
use crate::show::Row;

/// A lifetime either way: to the seventies, and to the end of the century.
const YEARS: i64 = 70 * 365 * 86_400;

/// The wall clock's distance from 1970, so that it shows nearly 0.
fn to_1970() -> i64 {
    -(clock::unix() as i64) + 60
}

fn judged(device: &Device, word: &str) -> Result<Status, String> {
    device.until(&format!("its clock is called {word}"), 90, || device.status().ok().filter(|s| s.clock == word))
}

/// (t) A device without a battery behind its clock, then one in the far future, then one that jumps while it downloads.
pub fn years(cast: &Cast) -> Result<Row, String> {
    let device = cast.device_with(&cast.site, "device-t1", "park=2", Some((to_1970(), 0)))?;
    judged(&device, "unsure")?;
    device.say("has enrolled and talks to its Director although its clock shows 1970");
    let clock = cast.clock();
    let first = device.order(GOOD, "", 60)?;
    ended(&first, "updated", "", "confirmed")?;
    cast.confirmed(&device, GOOD)?;

    device.say("its clock jumps to 2099");
    device.set_clock(YEARS, 0)?;
    judged(&device, "ahead")?;
    cast.site.assign(&[&device.id], CRASHES_LATER, "")?;
    let waits = device.until("it refuses new metadata", 20, || device.status().ok().filter(|s| s.code == "clock_ahead"))?;
    same("the version that runs", &waits.version, GOOD)?;
    if waits.until.is_none() {
        return Err("status does not say until when it waits".into());
    }
    let told = || device.view().ok().filter(|v| v.code == "clock_ahead");
    device.until("the Director knows why", 20, told)?;
    device.say("its clock is set right");
    device.set_clock(0, 0)?;
    ended(&device.result_after(&first.id, 60)?, "updated", "", "confirmed")?;

    let before = device.last_result().map(|r| r.id).unwrap_or_default();
    let carried = device.relay.carried();
    device.relay.limit(6 << 20);
    cast.site.assign(&[&device.id], BIG, "--end-probation")?;
    for wall_s in [86_400, -YEARS / 2, YEARS, to_1970(), 0] {
        device.until("the download goes on", 60, || device.status().ok().filter(|s| s.step == "downloading" || s.version == BIG))?;
        device.say(&format!("its clock steps by {wall_s} s while it downloads"));
        device.set_clock(wall_s, 0)?;
        pause(400);
    }
    device.relay.limit(0);
    let result = device.result_after(&before, 60)?;
    ended(&result, "updated", "", "confirmed")?;
    cast.confirmed(&device, BIG)?;
    let (carried, length) = (device.relay.carried() - carried, 24 << 20);
    if carried > length + (4 << 20) {
        return Err(format!("{carried} bytes crossed the wire for a file of {length}"));
    }
    Ok(clock.row(&result))
}

/// (t) Deadlines of a trial belong to the time awake: no step and no sleep ends one, none makes it endless.
pub fn on_trial(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-t2")?;
    let clock = cast.clock();
    device.say("is to switch on its own; then its wire is cut, and its clock plays mad");
    let order = "--unattended --trial-max 60s --switch-in 15s";
    cast.site.assign(&[&device.id], GOOD, order)?;
    device.until("it waits for its window", 40, || device.status().ok().filter(|s| s.code == "window"))?;
    device.set_clock(YEARS, 0)?;
    device.relay.cut();
    device.until("it is on trial", 40, || device.trial())?;
    for (wall_s, uptime_s) in [(-YEARS / 2, 0), (YEARS, 0), (0, 0), (0, 8 * 3600), (0, 90 * 86_400)] {
        device.set_clock(wall_s, uptime_s)?;
        pause(700);
        same("the version on trial", &device.status()?.running_as, "trial")?;
    }
    device.say("has seemed to sleep for 90 days on trial; the wire is mended");
    device.relay.heal();
    let result = device.result_after("", 40)?;
    ended(&result, "updated", "", "confirmed")?;
    cast.confirmed(&device, GOOD)?;

    device.say("a version that never finds its Director, while the clock is set back again and again");
    cast.site.assign(&[&device.id], MUTE, "")?;
    device.until("it is on trial", 40, || device.trial())?;
    let began = clock::monotonic();
    for n in 1..=6 {
        device.set_clock(-n * 86_400 * 365, 90 * 86_400)?;
        pause(1000);
    }
    let lost = device.until("it goes back", 30, || device.trial().is_none().then_some(clock::monotonic() - began))?;
    if lost > Duration::from_secs(25) {
        return Err(format!("the trial of 8 s ended after {} s", lost.as_secs()));
    }
    device.set_clock(0, 90 * 86_400)?;
    device.until("the good version runs", 20, || device.status().ok().filter(|s| s.version == GOOD))?;
    let _: vmetric::director::cancel::CancelView = cast.site.ask(&format!("cancel --agent {}", device.id))?;
    Ok(clock.row(&result))
}

/// (t) What was to wait still waits after a power cut, whatever the clock shows then; and nothing waits for ever.
pub fn reboots(cast: &Cast) -> Result<Row, String> {
    let uptime = clock::monotonic().as_secs() as i64;
    let window_s = 25;
    let device = cast.device_with(&cast.site, "device-t3", "park=2,cooldown=12", None)?;
    let clock_row = cast.clock();
    let ordered = clock::monotonic();
    cast.site.assign(&[&device.id], GOOD, &format!("--switch-in {window_s}s"))?;
    let window = || device.status().ok().filter(|s| s.code == "window");
    device.until("it waits for its window", 20, window)?;
    let mut uptime_s = 0;
    for (n, (word, wall_s)) in [("2099", YEARS), ("1970", to_1970()), ("a week ahead", 7 * 86_400)].into_iter().enumerate() {
        device.power_off();
        device.say(&format!("a power cut; its clock shows {word} then, and the Director cannot be reached at first"));
        device.relay.cut();
        // The uptime begins at 0 again.
        uptime_s = -uptime - (clock::monotonic() - ordered).as_secs() as i64;
        device.set_clock(wall_s, uptime_s)?;
        device.power_on(&format!("boot-{n}"));
        pause(1500);
        same("the version before its time", &device.status()?.version, FACTORY)?;
        device.relay.heal();
        pause(1500);
        if clock::monotonic() - ordered < Duration::from_secs(window_s - 3) {
            same("the version before its time", &device.status()?.version, FACTORY)?;
        }
    }
    device.set_clock(0, uptime_s)?;
    let result = device.result_after("", 60)?;
    ended(&result, "updated", "", "confirmed")?;
    let took = clock::monotonic() - ordered;
    // The order, the Director's answers and the uptime are whole seconds, each cut.
    if took < Duration::from_secs(window_s - 2) || took > Duration::from_secs(window_s + 30) {
        return Err(format!("it switched {} s after the order, which said {window_s} s", took.as_secs()));
    }

    device.say("a version that cannot find its Director: nothing can be told, it cools down over power cuts");
    cast.site.assign(&[&device.id], MUTE, "")?;
    let lost = || device.status().ok().filter(|s| s.rejected.iter().any(|r| r.verdict == "could_not_tell"));
    device.until("it goes back", 60, lost)?;
    let began = clock::monotonic();
    for (n, wall_s) in [YEARS / 70, -YEARS / 70].into_iter().enumerate() {
        device.power_off();
        device.set_clock(wall_s, -uptime - (clock::monotonic() - ordered).as_secs() as i64)?;
        device.power_on(&format!("later-{n}"));
        let cooling = || device.status().ok().filter(|s| s.code == "cooldown" && s.until.is_some());
        device.until("it cools down", 10, cooling)?;
        if clock::monotonic() - began < Duration::from_secs(10) {
            same("the tries so far", &device.status()?.rejected[0].count.to_string(), "1")?;
        }
    }
    device.until("it tries again", 60, || device.status().ok().filter(|s| s.rejected.iter().any(|r| r.count > 1)))?;
    let _: vmetric::director::cancel::CancelView = cast.site.ask(&format!("cancel --agent {}", device.id))?;
    Ok(clock_row.row(&result))
}
