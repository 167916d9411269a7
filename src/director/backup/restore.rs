//! `restore NAME`: an operator's act, on a Director that does not run.
//!
//! What is there now is backed up first, so a restore can be undone by another one. Then, in this order: the program with its
//! resources into the slot that does not run, the configuration, and last the marks, which name that slot. A power cut leaves
//! the version that ran. The factory image is never written: where the backup's program is one, its place is told.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::{CONFIG, FileWire, IndexWire, KEPT, PROGRAM, Source, index, link_tree, make, note};
use crate::core::backup::{Name, Retention};
use crate::core::hex::{self, Sha256};
use crate::core::reason::Reason;
use crate::core::slots::{Image, Slot};
use crate::io::clock;
use crate::io::fs::{open_plain, read_limited, sync_folder_of, write_durable};
use crate::io::lock::{Lock, Taken};
use crate::io::package::tree;
use crate::io::package::unpack::{LIST, TREE};
use crate::io::state::{State, file_error};
use crate::wire::slot::SlotWire;

/// What is restored, and where.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The Director's folder.
    pub state: &'a State,
    /// Which backup.
    pub name: Name,
    /// The factory image.
    pub image: PathBuf,
    /// The version of this program, when the factory image runs.
    pub version: crate::core::version::Version,
    /// The configuration that counts now.
    pub config: Option<PathBuf>,
}

/// Puts a backup back, and says what was done, line by line.
///
/// # Errors
/// `director_runs`, `backup_damaged` and others: nothing was changed. Or one of the disk: say it again.
pub fn restore(restore: &Restore) -> Result<Vec<String>, Reason> {
    let state = restore.state;
    let path = state.path("run.lock");
    let _lock = Lock::take(&path).map_err(|taken| match taken {
        Taken::By(_) => {
            Reason::new("director_runs", "the Director runs; stop its service first (systemctl stop vmetric-director), then restore")
        }
        Taken::Error(e) => file_error(&path, "lock", &e),
    })?;
    let (folder, wanted) = index(state, &restore.name)?;
    verify(&folder, &wanted)?;
    let loaded = state.load_marks();
    let plan = plan(restore, &folder, &wanted, &loaded.marks)?;
    let mut said = vec![keep_present(restore, &loaded.marks)?];
    if let Plan::Slot(slot, described) = &plan {
        // Cleared first: half of a program must not be what the marks fall back to.
        let cleared = loaded.marks.clone().clear(*slot);
        let (cleared, copy) = state.save_marks(cleared, loaded.from, loaded.marks.sequence)?;
        fill(state, *slot, &folder, &wanted)?;
        said.extend(configuration(restore, &folder, &wanted)?);
        let sha256: Sha256 = hex::decode(&described.sha256).ok_or_else(|| Reason::new("backup_damaged", "slot.json: no SHA-256"))?;
        state.write_confirmed(*slot, &sha256, cleared.sequence.saturating_add(1))?;
        let marks = cleared.clone().start_trial(*slot, sha256).confirm(*slot, described.counter, &clock::boot_id(), clock::unix());
        state.save_marks(marks, Some(copy), cleared.sequence)?;
        said.push(format!("{} runs at the next start, from slot {}", described.version, slot.name()));
    } else {
        said.extend(configuration(restore, &folder, &wanted)?);
        said.push(match &plan {
            Plan::Image(true) | Plan::Slot(..) => format!("{} runs already", wanted.version),
            Plan::Image(false) => {
                let (from, to) = (folder.join(PROGRAM), restore.image.display());
                format!("{} ran as factory image, which is written by nobody but you: cp {} {to}", wanted.version, from.display())
            }
        });
    }
    note::leave(state, "backup_restored", &format!("{}: {}", restore.name, said.join("; ")));
    Ok(said)
}

enum Plan {
    /// Into this slot.
    Slot(Slot, Box<SlotWire>),
    /// The program is not ours to write; true: it is what runs.
    Image(bool),
}

fn plan(restore: &Restore, folder: &Path, wanted: &IndexWire, marks: &crate::core::slots::Marks) -> Result<Plan, Reason> {
    let program = file(wanted, PROGRAM)?;
    let path = folder.join("slot.json");
    let Some(bytes) = read_limited(&path, crate::wire::slot::SLOT_MAX).map_err(|e| file_error(&path, "read", &e))? else {
        let same = hash(&restore.image).is_ok_and(|hash| hex::encode(&hash) == program.sha256);
        return Ok(Plan::Image(same && marks.active == Image::Factory));
    };
    let described = SlotWire::parse(&bytes).map_err(|e| Reason::new("backup_damaged", e))?;
    if described.sha256 != program.sha256 {
        return Err(Reason::new("backup_damaged", format!("{}: speaks of another program", path.display())));
    }
    if described.counter < marks.floor {
        let detail = format!(
            "{} has security counter {}, this Director's is {}; it must never run again",
            described.version, described.counter, marks.floor
        );
        return Err(Reason::new("below_floor", detail));
    }
    match marks.active {
        Image::Slot(slot) if hex::encode(&marks.slot(slot).sha256) == program.sha256 => Ok(Plan::Image(true)),
        active => Ok(Plan::Slot(marks.inactive(active), Box::new(described))),
    }
}

fn file<'a>(wanted: &'a IndexWire, name: &str) -> Result<&'a FileWire, Reason> {
    let found = wanted.files.iter().find(|file| file.name == name);
    found.ok_or_else(|| Reason::new("backup_damaged", format!("backup.json: names no {name}")))
}

/// Every file that the index names, by its hash; a name that leads elsewhere is none of ours.
fn verify(folder: &Path, wanted: &IndexWire) -> Result<(), Reason> {
    for file in &wanted.files {
        let damaged =
            |why: &str| Reason::new("backup_damaged", format!("{}: {why}; take another backup", folder.join(&file.name).display()));
        let known = [PROGRAM, "slot.json", CONFIG].contains(&file.name.as_str())
            || file
                .name
                .split_once('/')
                .is_some_and(|(sub, name)| KEPT.contains(&sub) && !name.contains(['/', '\\']) && !name.starts_with('.'));
        if !known {
            return Err(damaged("is no file of a backup"));
        }
        match hash(&folder.join(&file.name)) {
            Ok(hash) if hex::encode(&hash) == file.sha256 => {}
            Ok(_) => return Err(damaged("has other bytes")),
            Err(e) => return Err(damaged(&e.to_string())),
        }
    }
    if folder.join(TREE).is_dir() {
        let hash = wanted
            .package
            .as_deref()
            .and_then(hex::decode)
            .ok_or_else(|| Reason::new("backup_damaged", "backup.json: names no package"))?;
        tree::check(folder, &hash, &mut || {})?;
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<Sha256> {
    use io::Read;
    let (mut file, mut hash, mut out) = (open_plain(path)?, Context::new(&SHA256), [0; 32]);
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            n => hash.update(&piece[..n]),
        }
    }
    out.copy_from_slice(hash.finish().as_ref());
    Ok(out)
}

/// What is there now, so that this restore can be undone. Nothing goes for it: the one that is restored may be the oldest.
fn keep_present(restore: &Restore, marks: &crate::core::slots::Marks) -> Result<String, Reason> {
    let slot = match marks.active {
        Image::Slot(slot) => Some(slot),
        Image::Factory => None,
    };
    let version = slot.and_then(|slot| restore.state.slot_json(slot).ok()).and_then(|wire| wire.version.parse().ok());
    let source = Source {
        state: restore.state,
        version: version.unwrap_or_else(|| restore.version.clone()),
        slot,
        program: slot.map_or_else(|| restore.image.clone(), |slot| restore.state.slot_program(slot)),
        config: restore.config.clone(),
        why: "before a restore",
    };
    let name = make(&source, clock::unix(), Retention { count: u64::MAX, bytes: u64::MAX })?;
    Ok(format!("what was there is kept as {name}"))
}

/// Program, description and resources into a slot; all of them second names or copies, none of them moved.
fn fill(state: &State, slot: Slot, folder: &Path, wanted: &IndexWire) -> Result<(), Reason> {
    state.clear_slot(slot, None)?;
    let to = state.slot_folder(slot);
    let program = state.slot_program(slot);
    let at = |e: io::Error| file_error(&to, "restore", &e);
    place(&folder.join(PROGRAM), &program).map_err(at)?;
    if folder.join(TREE).is_dir() {
        link_tree(&folder.join(TREE), &to.join(TREE)).map_err(at)?;
        place(&folder.join(LIST), &to.join(LIST)).map_err(at)?;
    } else if wanted.package.is_some() {
        log::warn!("{}: holds no resources; bring them with `update --file`", folder.display());
    }
    place(&folder.join("slot.json"), &to.join("slot.json")).map_err(at)?;
    sync_folder_of(&program).map_err(at)
}

fn place(from: &Path, to: &Path) -> io::Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
        fs::File::open(to)?.sync_all()?;
    }
    Ok(())
}

/// Configuration, identity and site CA, each file whole or not at all.
fn configuration(restore: &Restore, folder: &Path, wanted: &IndexWire) -> Result<Vec<String>, Reason> {
    let mut said = Vec::new();
    let secret = |file: &&FileWire| KEPT.iter().any(|sub| file.name.starts_with(&format!("{sub}/")));
    let mut count = 0;
    for file in wanted.files.iter().filter(secret) {
        let to = restore.state.path(&file.name);
        copy(&folder.join(&file.name), &to, file.mode)?;
        count += 1;
    }
    said.push(format!("{count} files of {} are as they were", KEPT.join("/ and ")));
    let place = wanted.config.as_ref().map(PathBuf::from).or_else(|| restore.config.clone());
    if let (Ok(file), Some(place)) = (file(wanted, CONFIG), &place) {
        let from = folder.join(CONFIG);
        said.push(match copy(&from, place, file.mode) {
            Ok(()) => format!("{} is as it was", place.display()),
            // The service's user need not be allowed to write what root has put into /etc.
            Err(reason) => format!("{reason}; copy it yourself: cp {} {}", from.display(), place.display()),
        });
    }
    Ok(said)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), Reason> {
    let bytes = read_limited(from, super::FILE_MAX).map_err(|e| file_error(from, "read", &e))?.unwrap_or_default();
    write_durable(to, &bytes, mode).map_err(|e| file_error(to, "restore", &e))
}
