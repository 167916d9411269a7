//! Room on the disk: for the next update, and for the two slots that a device fills in its life.

use std::fs;
use std::path::Path;

use crate::core::reason::Reason;
use crate::core::slots::Slot;
use crate::io::fs::room;
use crate::io::process::own_file;
use crate::io::state::State;

/// Kept free whatever happens: room for state and rollback. 16 MiB, or a tenth of what is needed.
const DISK_RESERVE: u64 = 16 * 1024 * 1024;

fn with_reserve(bytes: u64) -> u64 {
    bytes.saturating_add(DISK_RESERVE.max(bytes / 10))
}

/// Bytes of what lies in a slot: overwritten or resumed, so both count for us.
fn there(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).filter(alone).map(|m| m.len()).sum()
}

/// A file that a backup has too goes on taking its room when the slot lets go of it.
#[cfg(unix)]
fn alone(meta: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(meta) == 1
}

#[cfg(not(unix))]
fn alone(_: &fs::Metadata) -> bool {
    true
}

/// Whether a slot takes a file of so many bytes now.
pub fn for_update(state: &State, slot: Slot, bytes: u64) -> Result<(), Reason> {
    let folder = state.slot_folder(slot);
    let at = |e: std::io::Error| Reason::new("state_error", format!("{}: {e}", folder.display()));
    let found = room(&folder).map_err(at)?;
    if !found.exec {
        let detail = format!("{}: is mounted noexec; mount it with exec or move the state folder", folder.display());
        return Err(Reason::new("noexec", detail));
    }
    let (free, need) = (found.free.saturating_add(there(&folder)), with_reserve(bytes));
    if free < need {
        let detail = format!("{}: {free} bytes are free, {need} are needed (file and reserve); make room", folder.display());
        return Err(Reason::new("disk_full", detail));
    }
    Ok(())
}

/// Whether a slot takes a Director's package: its archive (as far as it is not there), what it unpacks to, and the backup.
#[cfg(feature = "package")]
pub fn for_package(slot: &Path, archive: u64, unpacked: u64, backup: u64) -> Result<(), Reason> {
    let found = room(slot).map_err(|e| Reason::new("state_error", format!("{}: {e}", slot.display())))?;
    let need = with_reserve(archive.saturating_add(unpacked).saturating_add(backup));
    match found.free.saturating_add(there(slot)) >= need {
        true => Ok(()),
        false => {
            let parts = format!("archive {archive}, unpacked {unpacked}, backup {backup}, and reserve");
            let detail = format!("{}: {} bytes are free, {need} are needed ({parts}); make room", slot.display(), found.free);
            Err(Reason::new("disk_full", detail))
        }
    }
}

/// Whether both slots find room, by the size of the program that asks: without it a device could be installed, and not be
/// updated. `state` need not exist yet: then the nearest folder above it is asked.
pub fn for_slots(state: &Path) -> Result<(), Reason> {
    let program = own_file().and_then(fs::metadata).map_or(0, |m| m.len());
    slots(state, program)
}

/// The same for a program of so many bytes.
pub fn slots(state: &Path, program: u64) -> Result<(), Reason> {
    // What the system does not tell shows at the first write.
    let above = state.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let Some(free) = above.into_iter().find_map(|folder| room(folder).ok()).map(|room| room.free) else { return Ok(()) };
    let missing = |slot: Slot| program.saturating_sub(there(&state.join("slots").join(slot.name())));
    let need = with_reserve(Slot::BOTH.into_iter().map(missing).sum());
    if free >= need {
        return Ok(());
    }
    let detail = format!(
        "{}: {free} bytes are free, {need} are needed (two slots of {program} and reserve); make room, or name a folder on another disk",
        state.display()
    );
    Err(Reason::new("no_space_for_slots", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slots_need_room_until_they_are_filled() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("not/made/yet");
        let free = room(folder.path()).unwrap().free;
        assert_eq!(slots(&state, 1_000), Ok(()));
        let reason = slots(&state, free / 2).unwrap_err();
        assert!(reason.code == "no_space_for_slots" && reason.detail.contains("make room"), "{reason}");
        // What lies in the slots need not be found again.
        let sparse = |slot: Slot| {
            fs::create_dir_all(state.join("slots").join(slot.name())).unwrap();
            let file = fs::File::create(state.join("slots").join(slot.name()).join("vmetric-agent")).unwrap();
            file.set_len(free / 2).unwrap();
        };
        Slot::BOTH.into_iter().for_each(sparse);
        assert_eq!(slots(&state, free / 2), Ok(()));
    }
}
