//! What ends in the middle: reboots, stops and power cuts.

use vmetric::core::slots::{Reached, Slot};

use crate::bed::STATE;
use crate::build::{BIG, FACTORY, GOOD};
use crate::cases::Cast;
use crate::cases_update::on_disk;
use crate::device::{Device, ended, same};

/// A trial without a Director stays one: its wire is cut as soon as the new version is staged.
pub fn held_on_trial(device: &Device, version: &str) -> Result<Slot, String> {
    // Slow enough that the wire is cut before the acknowledgement, which takes a tenth of a second after the switch.
    device.hook("sleep 2")?;
    device.assign(version)?;
    let slot = device.until("a trial", 60, Device::trial)?;
    device.bed.relay.cut();
    passed(device, slot, 1)?;
    Ok(slot)
}

/// The trial's self-check has passed in its start number `start`.
fn passed(device: &Device, slot: Slot, start: u32) -> Result<(), String> {
    let up = |d: &Device| {
        let evidence = d.marks().slot(slot).evidence.clone();
        (d.pid().is_some() && evidence.starts == start && evidence.reached >= Reached::SelfCheck).then_some(())
    };
    device.until("the trial to pass its self-check", 30, up)
}

/// An orderly reboot in the middle of a trial.
pub fn reboot_on_trial(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let slot = held_on_trial(device, GOOD)?;
        let (first, boot) = (device.status()?, device.bed.sh("cat /proc/sys/kernel/random/boot_id")?);
        let trial = first.trial.ok_or("status shows no trial before the reboot")?;
        same("starts before the reboot", trial.starts, 1)?;
        device.bed.reboot()?;
        let again = device.bed.sh("cat /proc/sys/kernel/random/boot_id")?;
        if boot == again {
            return Err(format!("the boot id is still {boot}"));
        }
        passed(device, slot, 2)?;
        let evidence = device.marks().slot(slot).evidence.clone();
        same("deaths held against it", evidence.crashes, 0)?;
        same("the boot id in the marks", evidence.boot_id, again.trim())?;
        device.bed.relay.heal();
        let result = device.result_after("", 60)?;
        ended(&result, "updated", "", "confirmed")?;
        device.confirmed(GOOD)?;
        Ok(format!("start 1 under {}, start 2 under {}, no death counted, then confirmed", boot.trim(), again.trim()))
    })
}

/// `systemctl stop` says nothing about a version.
pub fn stopped_on_trial(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let slot = held_on_trial(device, GOOD)?;
        for stop in 1..=3 {
            passed(device, slot, stop)?;
            device.bed.sh("systemctl stop vmetric-agent")?;
            let trial = device.status()?.trial.ok_or("it is not on trial any more")?;
            same("how it ended", trial.ended, "stopped")?;
            same("the unit's result", device.property("Result")?, "success")?;
            device.bed.sh("systemctl start --no-block vmetric-agent")?;
        }
        device.bed.relay.heal();
        let result = device.result_after("", 60)?;
        ended(&result, "updated", "", "confirmed")?;
        same("deaths held against it", device.marks().slot(slot).evidence.crashes, 0)?;
        device.confirmed(GOOD)?;
        Ok("3 stops on trial, none held against it, then confirmed".into())
    })
}

/// The whole host dies at once, and its disk forgets what was not synced: in the download, then twice on trial.
pub fn power(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    device.bed.disk(STATE)?;
    let end = device.bed.boot().and_then(|()| device.set_up()).and_then(|()| power_in(&mut device));
    cast.look(&device, end)
}

fn power_in(device: &mut Device) -> Result<String, String> {
    let length = std::fs::metadata(device.stage.builds.agent(BIG)).map_err(|e| e.to_string())?.len();
    // The operator's own check keeps the trial open until its power is cut.
    device.hook("sleep 40")?;
    device.bed.relay.limit(4 << 20);
    device.assign(BIG)?;
    device.until("a part of the download", 60, |d| Some(()).filter(|()| on_disk(d) >= length / 4))?;
    device.bed.power_cut()?;
    let kept = on_disk(device);
    if kept == 0 {
        return Err("the whole part is gone: nothing of it was synced".into());
    }
    device.bed.boot()?;
    device.until("an agent after the power cut in the download", 60, |d| d.runs().ok())?;
    device.bed.relay.limit(0);
    let mut cuts = 0;
    for start in [1, 2] {
        // Once the slot's program runs, and not before, its start has to be on the disk.
        let counted = |d: &Device| d.trial().filter(|slot| d.marks().slot(*slot).evidence.starts == start);
        let up = |d: &Device| counted(d).filter(|_| d.runs().is_ok_and(|version| version == BIG));
        let slot = device.until("a trial", 90, up)?;
        device.bed.power_cut()?;
        let evidence = device.marks().slot(slot).evidence.clone();
        same("starts that survived the cut", evidence.starts, start)?;
        cuts += 1;
        if start == 2 {
            std::fs::remove_file(device.bed.path(STATE).join("config/check")).map_err(|e| e.to_string())?;
        }
        device.bed.boot()?;
    }
    let result = device.result_after("", 90)?;
    ended(&result, "updated", "", "confirmed")?;
    device.confirmed(BIG)?;
    Ok(format!("cut with {kept} of {length} bytes on the disk, {cuts} cuts on trial, each start counted on the disk; then confirmed"))
}
