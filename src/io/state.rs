//! The device's state folder: where each file lies, and how it is read and written. The names are an agent's; what is
//! another product's is in [`crate::core::product`].
//!
//! ```text
//! <state>/slots/{a,b}/   vmetric-agent  slot.json  confirmed  <sha256>.part
//! <state>/marks.0 marks.1   order.json results.json rejected.json request.json status.json
//! <state>/config/agent.json   trust/   storage/   lock   run.lock
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use miniserde::{Deserialize, Serialize, json};

use super::fs::{
    PRIVATE, make_folder, overwrite, read_limited, remove_all, remove_if_there, set_aside, sync_folder_of, write_durable, write_volatile,
};
use super::lock::Lock;
use super::{clock, identity};
use crate::core::hex::{self, Sha256};
use crate::core::product::{AGENT, Product};
use crate::core::reason::Reason;
use crate::core::release::Platform;
use crate::core::slots::{Marks, Slot, SlotFiles, rebuild};
use crate::wire::config::ConfigWire;
use crate::wire::marks::{RECORD, decode, encode, newest};
use crate::wire::records::RECORD_MAX;
use crate::wire::slot::{self, CONFIRMED_MAX, SLOT_MAX, SlotWire, confirmed_text};

/// The state folder of an agent.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
    // An edge build knows one product only: it costs nothing there.
    #[cfg(feature = "director")]
    product: &'static Product,
}

/// Looks at a status that may be half overwritten.
const STATUS_TRIES: u32 = 3;

/// What the marks files said.
#[derive(Debug)]
pub struct LoadedMarks {
    /// The marks in force.
    pub marks: Marks,
    /// Which file they came from; `None` = neither was whole, they were rebuilt or are new.
    pub from: Option<usize>,
    /// Why they had to be rebuilt, or which copy was lost.
    pub note: Option<Reason>,
}

/// The code of an error that may be over at the next try: neither room nor permission, and nothing that the file says.
pub const STATE_ERROR: &str = "state_error";

/// An error of a state file, with its name and the remedy.
pub fn file_error(path: &Path, what: &str, error: &io::Error) -> Reason {
    let code = match error.kind() {
        io::ErrorKind::StorageFull => "disk_full",
        io::ErrorKind::ResourceBusy => "file_in_use",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "state_not_writable",
        _ => STATE_ERROR,
    };
    Reason::new(code, format!("{}: {what}: {error}", path.display()))
}

impl State {
    /// The folder, made with its sub-folders if it is not there. A sub-folder that cannot be made stops nobody: whoever
    /// needs it says so.
    pub fn open(root: &Path) -> Result<State, Reason> {
        State::open_of(&AGENT, root)
    }

    /// The same for any product.
    pub fn open_of(product: &'static Product, root: &Path) -> Result<State, Reason> {
        let state = State::look_of(product, root);
        make_folder(root).map_err(|e| file_error(root, "make the folder", &e))?;
        for sub in ["slots", "slots/a", "slots/b", "config", state.product().trust, "storage"] {
            let folder = root.join(sub);
            if let Err(e) = make_folder(&folder) {
                log::warn!("{}", file_error(&folder, "make the folder", &e));
            }
        }
        Ok(state)
    }

    /// The folder as it is, for commands that only look.
    pub fn look(root: &Path) -> State {
        State::look_of(&AGENT, root)
    }

    /// The same for any product.
    pub fn look_of(product: &'static Product, root: &Path) -> State {
        #[cfg(not(feature = "director"))]
        let _ = product;
        State {
            root: root.to_path_buf(),
            #[cfg(feature = "director")]
            product,
        }
    }

    /// Whose folder it is.
    pub fn product(&self) -> &'static Product {
        #[cfg(feature = "director")]
        return self.product;
        #[cfg(not(feature = "director"))]
        &AGENT
    }

    /// The folder of the metadata that are trusted for the product's own updates.
    pub fn trust(&self) -> PathBuf {
        self.root.join(self.product().trust)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A slot's folder.
    pub fn slot_folder(&self, slot: Slot) -> PathBuf {
        self.root.join("slots").join(slot.name())
    }

    /// A slot's program.
    pub fn slot_program(&self, slot: Slot) -> PathBuf {
        self.slot_folder(slot).join(Platform::here().program(self.product().name))
    }

    /// The part of an artifact that has been fetched into a slot: named by content, so that it is never taken for another.
    pub fn part(&self, slot: Slot, sha256: &Sha256) -> PathBuf {
        self.slot_folder(slot).join(format!("{}.part", hex::encode(sha256)))
    }

    fn marks_path(&self, copy: usize) -> PathBuf {
        self.root.join(["marks.0", "marks.1"][copy % 2])
    }

    /// The newest whole copy of the marks; none whole: rebuilt from the slots' own files, confirmed ones first. Never fails.
    pub fn load_marks(&self) -> LoadedMarks {
        let read = |copy| match read_limited(&self.marks_path(copy), RECORD as u64) {
            Ok(Some(bytes)) => decode(&bytes),
            Ok(None) => Err("is missing".to_string()),
            Err(e) => Err(e.to_string()),
        };
        let copies = [read(0), read(1)];
        let lost = copies.iter().position(Result::is_err);
        let new = copies.iter().all(|c| c.as_ref().is_err_and(|e| e == "is missing"));
        match newest(copies) {
            Ok((mut marks, from)) => {
                let note = lost.map(|copy| {
                    // The lost copy may have been the newer one, and may have said that the trial is over.
                    for slot in Slot::BOTH {
                        if let Some(files) = self.slot_files(slot) {
                            marks = marks.clone().recover_confirmed(slot, &files, &clock::boot_id(), clock::unix());
                        }
                    }
                    Reason::new("marks_copy_lost", format!("{} was not whole; the other copy counts", self.marks_path(copy).display()))
                });
                LoadedMarks { marks, from: Some(from), note }
            }
            Err(why) => {
                let marks = rebuild(self.slot_files(Slot::A).as_ref(), self.slot_files(Slot::B).as_ref());
                let fresh = new && marks == (Marks { sequence: 1, ..Marks::default() });
                let note = (!fresh).then(|| Reason::new("marks_rebuilt", format!("{why}; rebuilt from the slots' own files")));
                LoadedMarks { marks, from: None, note }
            }
        }
    }

    /// Makes marks durable in the copy that does not hold the current ones, and returns them with their sequence and that
    /// copy's number. Holds `lock`. A torn write costs this one write only.
    pub fn save_marks(&self, mut marks: Marks, current: Option<usize>, sequence: u64) -> Result<(Marks, usize), Reason> {
        let copy = current.map_or(0, |c| 1 - c % 2);
        let path = self.marks_path(copy);
        let failed = |what| move |e: io::Error| file_error(&path, what, &e);
        let lock_path = self.path("lock");
        let _lock = Lock::wait(&lock_path).map_err(|e| file_error(&lock_path, "lock", &e))?;
        marks.sequence = sequence.saturating_add(1);
        let record = encode(&marks);
        self.allocate_marks().map_err(failed.clone()("allocate"))?;
        overwrite(&self.marks_path(copy), &record, false).map_err(failed("write"))?;
        Ok((marks, copy))
    }

    /// Both copies exist at their length from the first start on: a full disk cannot stop a rollback. One of another
    /// length, or no plain file, would never be whole again.
    fn allocate_marks(&self) -> io::Result<()> {
        for copy in 0..2 {
            let path = self.marks_path(copy);
            if !fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == RECORD as u64) {
                write_durable(&path, &[b' '; RECORD], PRIVATE)?;
            }
        }
        Ok(())
    }

    /// Where a stop record for the marks after `copy` goes.
    pub fn next_marks_path(&self, copy: usize) -> PathBuf {
        self.marks_path(copy + 1)
    }

    fn slot_files(&self, slot: Slot) -> Option<SlotFiles> {
        let folder = self.slot_folder(slot);
        let slot_json = read_limited(&folder.join("slot.json"), SLOT_MAX).ok()??;
        let confirmed = read_limited(&folder.join("confirmed"), CONFIRMED_MAX).ok().flatten();
        slot::files(&slot_json, confirmed.as_deref())
    }

    /// A slot's description of itself.
    pub fn slot_json(&self, slot: Slot) -> Result<SlotWire, Reason> {
        let path = self.slot_folder(slot).join("slot.json");
        let damaged = |why: String| Reason::new("slot_damaged", format!("{}: {why}", path.display()));
        match read_limited(&path, SLOT_MAX) {
            Ok(Some(bytes)) => SlotWire::parse(&bytes).map_err(damaged),
            Ok(None) => Err(damaged("is missing".into())),
            Err(e) => Err(damaged(e.to_string())),
        }
    }

    /// Describes a slot's tested file; before the marks speak of it. What was confirmed there before was another trial, even of
    /// the same file: this one has its confirmation to come.
    pub fn write_slot_json(&self, slot: Slot, wire: &SlotWire) -> Result<(), Reason> {
        let confirmed = self.slot_folder(slot).join("confirmed");
        remove_all(&confirmed).map_err(|e| file_error(&confirmed, "remove", &e))?;
        self.describe_again(slot, wire)
    }

    /// Describes the file that the slot holds, and had confirmed.
    pub fn describe_again(&self, slot: Slot, wire: &SlotWire) -> Result<(), Reason> {
        self.write(&format!("slots/{}/slot.json", slot.name()), wire)
    }

    /// A slot's confirmation in its own folder; before the marks say so.
    pub fn write_confirmed(&self, slot: Slot, sha256: &Sha256, sequence: u64) -> Result<(), Reason> {
        let path = self.slot_folder(slot).join("confirmed");
        write_durable(&path, confirmed_text(sha256, sequence).as_bytes(), PRIVATE).map_err(|e| file_error(&path, "write", &e))
    }

    /// Removes everything in a slot but the part that is still wanted. The marks no longer speak of the slot.
    pub fn clear_slot(&self, slot: Slot, keep: Option<&Sha256>) -> Result<(), Reason> {
        let folder = self.slot_folder(slot);
        let keep = keep.map(|sha256| self.part(slot, sha256));
        let clear = || -> io::Result<()> {
            // The claims go before the file they speak of.
            for name in ["confirmed", "slot.json"] {
                remove_all(&folder.join(name))?;
            }
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if Some(&path) != keep.as_ref() {
                    remove_all(&path)?;
                }
            }
            sync_folder_of(&folder.join("any"))
        };
        clear().map_err(|e| file_error(&folder, "clear the slot", &e))
    }

    /// A JSON record of the state folder; `None` when it is missing. A damaged one is set aside as `<name>.damaged`
    /// and told, not obeyed.
    pub fn read<T: Deserialize>(&self, name: &str) -> Result<Option<T>, Reason> {
        let mut parsed = None;
        self.read_into(name, &mut |text| {
            parsed = json::from_str(text).ok();
            parsed.is_some()
        })?;
        Ok(parsed)
    }

    /// What [`State::read`] does for every type of record; the agent links it once. `take` says whether it is such a record.
    fn read_into(&self, name: &str, take: &mut dyn FnMut(&str) -> bool) -> Result<(), Reason> {
        let path = self.path(name);
        let bytes = match read_limited(&path, RECORD_MAX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(()),
            Err(e) => {
                if e.kind() == io::ErrorKind::InvalidData {
                    let _ = set_aside(&path);
                }
                return Err(file_error(&path, "read", &e));
            }
        };
        if std::str::from_utf8(&bytes).is_ok_and(take) {
            return Ok(());
        }
        let aside = self.path(&format!("{name}.damaged"));
        let _ = set_aside(&path);
        let detail = format!("{}: a field is missing or has the wrong type; kept as {}", path.display(), aside.display());
        Err(Reason::new("record_damaged", detail))
    }

    /// Makes a JSON record durable, private to the owner.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Reason> {
        self.write_text(name, &json::to_string(value))
    }

    fn write_text(&self, name: &str, text: &str) -> Result<(), Reason> {
        let path = self.path(name);
        write_durable(&path, text.as_bytes(), PRIVATE).map_err(|e| file_error(&path, "write", &e))
    }

    /// Replaces `status.json`; its loss costs nothing. On a full disk the file that is there is overwritten: its block is
    /// there, too, and why nothing gets on has to be said just then.
    pub fn write_status<T: Serialize>(&self, value: &T) {
        let (path, text) = (self.path("status.json"), json::to_string(value));
        if write_volatile(&path, text.as_bytes(), PRIVATE).is_err() {
            let _ = overwrite(&path, text.as_bytes(), true);
        }
    }

    /// Reads `status.json`. A look at it sets nothing aside: it may be read while it is overwritten.
    pub fn status<T: Deserialize>(&self) -> Option<T> {
        let path = self.path("status.json");
        let read = || json::from_str(std::str::from_utf8(&read_limited(&path, RECORD_MAX).ok()??).ok()?).ok();
        (0..STATUS_TRIES).find_map(|_| read())
    }

    /// Removes a record durably.
    pub fn remove(&self, name: &str) -> Result<(), Reason> {
        let path = self.path(name);
        remove_if_there(&path).and_then(|()| sync_folder_of(&path)).map_err(|e| file_error(&path, "remove", &e))
    }

    /// What is wrong with the folder's file system, for all to see without a write.
    pub fn problem(&self) -> Option<Reason> {
        let folder = self.root.display();
        let room = super::fs::room(&self.root).ok()?;
        let reason = |code: &'static str, what: &str| Some(Reason::new(code, format!("{folder}: {what}")));
        match () {
            () if room.read_only => reason("state_not_writable", "the file system is mounted read-only; mount it read-write"),
            () if room.free == 0 => reason("disk_full", "the file system has no free block; make room"),
            () if room.files == Some(0) => reason("disk_full", "the file system has no free inode; remove files"),
            () if !room.exec => reason("noexec", "is mounted noexec; mount it with exec or move the state folder"),
            () => None,
        }
    }

    /// The configuration, with the names of fields it does not know; its copy where the file is damaged. `None`: not enrolled.
    pub fn config(&self) -> Result<Option<(ConfigWire, Vec<String>)>, Reason> {
        let damaged = match identity::read_config(self, self.product().config) {
            Err(reason) => reason,
            found => return found,
        };
        match identity::read_config(self, self.product().config_copy) {
            Ok(Some(copy)) => Ok(Some(copy)),
            _ => Err(damaged),
        }
    }

    /// The configuration as it stands in its file, whatever its copy says.
    pub fn config_file(&self) -> Result<Option<(ConfigWire, Vec<String>)>, Reason> {
        identity::read_config(self, self.product().config)
    }

    /// Writes the configuration after a strict check; its copy first, which is never older then.
    pub fn write_config(&self, config: &ConfigWire) -> Result<(), Reason> {
        config.check()?;
        self.write_text(self.product().config_copy, &config.text())?;
        self.write_text(self.product().config, &config.text())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make damaged files")]
mod tests {
    use super::*;
    use crate::core::slots::{Condition, Image};

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s")).unwrap();
        (dir, state)
    }

    fn slot_wire(sha: u8) -> SlotWire {
        SlotWire {
            format: 1,
            target: "vmetric-agent/1.0.0/linux-amd64/vmetric-agent".into(),
            version: "1.0.0".into(),
            length: 1,
            sha256: hex::encode(&[sha; 32]),
            counter: u64::from(sha),
            build_keyid: "k".into(),
            build_sig: hex::encode(&[0; 64]),
            issuer: "i".into(),
            generation: 1,
            package: None,
        }
    }

    #[test]
    fn marks_alternate_between_the_copies() {
        let (_dir, state) = state();
        let first = state.load_marks();
        assert!(first.from.is_none() && first.note.is_none(), "a fresh folder is no damage");
        let (one, copy) = state.save_marks(first.marks, first.from, 0).unwrap();
        assert_eq!((one.sequence, copy), (1, 0));
        let (two, copy) = state.save_marks(one.start_trial(Slot::A, [1; 32]), Some(copy), 1).unwrap();
        assert_eq!((two.sequence, copy), (2, 1));
        assert_eq!(state.load_marks().marks, two);
        fs::write(state.path("marks.1"), b"rotten").unwrap();
        let back = state.load_marks();
        assert_eq!((back.marks.sequence, back.from), (1, Some(0)));
        assert_eq!(back.note.unwrap().code, "marks_copy_lost");
    }

    #[test]
    fn a_lost_copy_takes_no_confirmation_with_it() {
        let (_dir, state) = state();
        state.write_slot_json(Slot::B, &slot_wire(2)).unwrap();
        let trial = Marks::default().start_trial(Slot::B, [2; 32]);
        let (trial, copy) = state.save_marks(trial, None, 6).unwrap();
        state.write_confirmed(Slot::B, &[2; 32], trial.sequence).unwrap();
        let (confirmed, newer) = state.save_marks(trial.clone().confirm(Slot::B, 2, "b", 1), Some(copy), trial.sequence).unwrap();
        fs::write(state.path(["marks.0", "marks.1"][newer]), b"rotten").unwrap();
        let back = state.load_marks().marks;
        assert_eq!((back.b.condition, back.active, back.floor), (Condition::Confirmed, confirmed.active, 2));
        // An earlier confirmation of the same file says nothing about a later trial.
        state.write_confirmed(Slot::B, &[2; 32], trial.sequence - 1).unwrap();
        assert_eq!(state.load_marks().marks.b.condition, Condition::Trial);
        state.write_confirmed(Slot::B, &[3; 32], trial.sequence).unwrap();
        assert_eq!(state.load_marks().marks.b.condition, Condition::Trial, "another file");
    }

    #[test]
    fn both_copies_lost_are_rebuilt_from_the_slots() {
        let (_dir, state) = state();
        state.write_slot_json(Slot::A, &slot_wire(1)).unwrap();
        state.write_slot_json(Slot::B, &slot_wire(2)).unwrap();
        state.write_confirmed(Slot::A, &[1; 32], 9).unwrap();
        let loaded = state.load_marks();
        assert_eq!((loaded.marks.active, loaded.marks.floor), (Image::Slot(Slot::A), 1));
        assert_eq!(loaded.marks.b.condition, Condition::Empty, "an unconfirmed slot does not start without its evidence");
        assert_eq!(loaded.note.unwrap().code, "marks_rebuilt");
        state.write_confirmed(Slot::B, &[2; 32], 12).unwrap();
        assert_eq!(state.load_marks().marks.active, Image::Slot(Slot::B), "the last confirmed first");
        state.write_slot_json(Slot::B, &slot_wire(2)).unwrap();
        assert_eq!(state.load_marks().marks.active, Image::Slot(Slot::A), "what was confirmed there before was another trial");
    }

    #[test]
    fn clearing_keeps_only_the_wanted_part() {
        let (_dir, state) = state();
        for name in ["slot.json", "confirmed", "vmetric-agent"] {
            fs::write(state.slot_folder(Slot::B).join(name), b"x").unwrap();
        }
        fs::write(state.part(Slot::B, &[1; 32]), b"x").unwrap();
        fs::write(state.part(Slot::B, &[2; 32]), b"x").unwrap();
        state.clear_slot(Slot::B, Some(&[2; 32])).unwrap();
        let left: Vec<_> = fs::read_dir(state.slot_folder(Slot::B)).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [state.part(Slot::B, &[2; 32])]);
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_told() {
        let (_dir, state) = state();
        fs::write(state.path("slots/a/slot.json"), b"{").unwrap();
        assert_eq!(state.slot_json(Slot::A).unwrap_err().code, "slot_damaged");
        fs::write(state.path("results.json"), b"{").unwrap();
        let error = state.read::<crate::wire::records::ResultsWire>("results.json").unwrap_err();
        assert_eq!(error.code, "record_damaged");
        assert!(state.path("results.json.damaged").exists());
        assert!(state.read::<crate::wire::records::ResultsWire>("results.json").unwrap().is_none());
    }
}
