//! What goes well: pushed, rolled out, by hand, withdrawn in time.

use crate::build::{FACTORY, GOOD};
use crate::scenarios::{Cast, Untouched, ended, same};
use crate::show::Row;

/// (a) Pushed and confirmed.
pub fn pushed(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-a")?;
    let clock = cast.clock();
    let result = device.order(GOOD, "", 40)?;
    let row = clock.row(&result);
    ended(&result, "updated", "", "confirmed")?;
    cast.confirmed(&device, GOOD)?;
    let length = std::fs::metadata(cast.stage.builds.agent(GOOD)).map_err(|e| e.to_string())?.len();
    same("bytes fetched", &result.bytes.to_string(), &length.to_string())?;
    let seen = || device.view().ok().filter(|v| v.state == "updated" && v.scheduled_version.is_none());
    device.until("the Director shows the order as done", 10, seen)?;
    Ok(row)
}

/// (a) Five devices: the first one alone, then two at a time.
pub fn rolled_out(cast: &Cast) -> Result<Row, String> {
    let devices = (1..=5).map(|n| cast.device(&format!("device-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<&str> = devices.iter().map(|d| d.id.as_str()).collect();
    let clock = cast.clock();
    let ordered = cast.site.assign(&ids, GOOD, "--max-in-flight 2")?;
    same("agents ordered at once", &ordered.told.to_string(), "1")?;
    let done = || cast.site.rollout(ordered.rollout).ok().filter(|r| r.state != "running");
    let end = devices[0].until("the end of the roll-out", 60, done)?;
    let seconds = clock.seconds();
    same("the roll-out", &format!("{}, {} done", end.state, end.done), "done, 5 done")?;
    devices.iter().try_for_each(|d| cast.confirmed(d, GOOD))?;
    alone_first(cast, &ids)?;
    let results: Vec<_> = devices.iter().filter_map(|d| d.last_result()).collect();
    let (bytes, gap_ms) = (results.iter().map(|r| r.bytes).sum(), results.iter().map(|r| r.gap_ms).max().unwrap_or(0));
    Ok(Row { result: "5 updated".into(), code: "done".into(), bytes, seconds, gap_ms })
}

/// Nobody was ordered before the first one was confirmed, and never more than two moved.
fn alone_first(cast: &Cast, ids: &[&str]) -> Result<(), String> {
    let mut moving: i32 = 0;
    let mut confirmed = 0;
    for event in cast.site.activity().iter().filter(|e| ids.contains(&e.agent.as_str())) {
        match event.code.as_str() {
            "update_triggered" => moving += 1,
            "confirmed" => (moving, confirmed) = (moving - 1, confirmed + 1),
            _ => {}
        }
        let most = if confirmed == 0 { 1 } else { 2 };
        if moving > most {
            return Err(format!("{moving} devices changed version at once after {confirmed} confirmations"));
        }
    }
    Ok(())
}

/// (k) The operator's own update from a folder; the Director is away.
pub fn by_hand(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site()?;
    let device = cast.device_at(&site, "device-k")?;
    device.say("stops the Director, then runs: vmetric-agent update --file TREE");
    site.stop();
    let clock = cast.clock();
    let tree = cast.stage.release.tree.display().to_string();
    let said = device.agent(&["update", "--file", &tree, "--version", GOOD])?;
    let result = device.last_result().ok_or("there is no result")?;
    let row = clock.row(&result);
    ended(&result, "updated", "", "confirmed")?;
    if !said.contains("updated 1.1.0") {
        return Err(format!("the command ended with: {said}"));
    }
    device.say("starts the Director again");
    site.up()?;
    cast.confirmed(&device, GOOD)?;
    Ok(row)
}

/// (z) A site without a link: one file is brought to the Director, and another device takes it itself.
pub fn air_gapped(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site_without_link()?;
    let (one, other) = (cast.device_at(&site, "device-z")?, cast.device_at(&site, "device-zz")?);
    let bundle = cast.stage.release.bundle.display().to_string();
    let before = site.status()?;
    same("what the Director serves at first", &before.releases.join(" "), "")?;
    one.say("brings a bundle to the Director: vmetric-director mirror --file BUNDLE");
    let clock = cast.clock();
    let status: vmetric::director::views::StatusView = site.ask(&format!("mirror --file {bundle}"))?;
    same("the releases in the bundle", &status.releases.join(" "), GOOD)?;
    let result = one.order(GOOD, "", 40)?;
    let row = clock.row(&result);
    ended(&result, "updated", "", "confirmed")?;
    cast.confirmed(&one, GOOD)?;
    other.say("takes the same file itself: vmetric-agent update --file BUNDLE");
    let said = other.agent(&["update", "--file", &bundle])?;
    if !said.contains("updated 1.1.0") {
        return Err(format!("the command ended with: {said}"));
    }
    cast.confirmed(&other, GOOD)?;
    Ok(row)
}

/// (m) Withdrawn while it waits for its time to switch.
pub fn cancelled(cast: &Cast) -> Result<Row, String> {
    let device = cast.device("device-m")?;
    let before = Untouched::look(&device)?;
    let clock = cast.clock();
    cast.site.assign(&[&device.id], GOOD, "--switch-in 1h")?;
    device.until("it waits for its window", 40, || device.status().ok().filter(|s| s.code == "window"))?;
    let view = device.view()?;
    same("the Director's scheduled version", view.scheduled_version.as_deref().unwrap_or("none"), GOOD)?;
    device.say("withdraws the order: vmetric-director cancel --agent ...");
    let _: vmetric::director::cancel::CancelView = cast.site.ask(&format!("cancel --agent {}", device.id))?;
    let result = device.result_after("", 20)?;
    let row = clock.row(&result);
    ended(&result, "cancelled", "", "cancelled")?;
    before.still(&device)?;
    let seen = || device.view().ok().filter(|v| v.state == "cancelled" && v.scheduled_version.is_none() && v.version == FACTORY);
    device.until("the Director shows the order as cancelled", 10, seen)?;
    Ok(row)
}
