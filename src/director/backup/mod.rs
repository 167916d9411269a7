//! What ran, and how it was configured, kept before each switch: `<state>/backup/<UTC time>-<version>/`.
//!
//! ```text
//! backup.json                 written last: every file with its hash; without it, it is no backup
//! vmetric-director slot.json  the program that ran; slot.json when it ran from a slot
//! vmetric.yml                 as it was read
//! config/ pki/                identity and site CA, with their modes; nothing of it leaves the state folder
//! package.list package/       the resources of that program
//! ```
//! Program and resources of a slot are hard links: they are never changed in place, so a second name costs nothing. What an
//! operator may overwrite (the factory image, the configuration) is copied. The registry and the activity are not in it: a
//! rollback never restores them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use miniserde::{Deserialize, Serialize, json};
use ring::digest::{Context, SHA256};

use crate::core::backup::{Name, Retention, to_remove};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::slots::Slot;
use crate::core::version::Version;
use crate::io::fs::{
    PRIVATE, create_new, make_folder, open_plain, read_limited, remove_all, rename, set_mode, sync_folder_of, write_durable,
};
use crate::io::package::unpack::{LIST, TREE};
use crate::io::state::{State, file_error};

pub mod command;
pub mod migrated;
pub mod note;
pub mod restore;

/// The folder of backups in the state folder.
pub const FOLDER: &str = "backup";
/// Written last.
pub const INDEX: &str = "backup.json";
/// While it is made.
const NEW: &str = ".new";
/// The program's name in a backup.
pub const PROGRAM: &str = "vmetric-director";
/// The configuration's.
pub const CONFIG: &str = "vmetric.yml";
/// Folders of the state folder that are kept.
const KEPT: [&str; 2] = ["config", "pki"];
/// Longest index: a few hundred files of configuration.
const INDEX_MAX: u64 = 1024 * 1024;
/// Largest file of configuration that is kept, and most of them: ten times what any installation has.
const FILE_MAX: u64 = 16 * 1024 * 1024;
const FILES_MAX: usize = 1000;
const PIECE: usize = 64 * 1024;

/// One file of a backup.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct FileWire {
    /// In the backup.
    pub name: String,
    /// Bytes.
    pub length: u64,
    /// Hash, hex.
    pub sha256: String,
    /// Unix mode.
    pub mode: u32,
}

/// `backup.json`. Additive only: an older Director restores what a newer one has kept.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct IndexWire {
    /// 1.
    pub format: u32,
    /// What ran.
    pub version: String,
    /// Why it was made.
    pub why: String,
    /// Where the configuration lay; absent when there was none.
    pub config: Option<String>,
    /// Hash of `package.list`, hex; absent when there were no resources.
    pub package: Option<String>,
    /// Everything but the resources, which `package.list` lists.
    pub files: Vec<FileWire>,
}

/// What is to be kept.
#[derive(Debug)]
pub struct Source<'a> {
    /// The Director's folder.
    pub state: &'a State,
    /// Its version.
    pub version: Version,
    /// The slot that runs; none = the factory image.
    pub slot: Option<Slot>,
    /// The program that runs.
    pub program: PathBuf,
    /// The configuration that was read.
    pub config: Option<PathBuf>,
    /// Why.
    pub why: &'a str,
}

/// A backup as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: Name,
    /// Its bytes, hard links included.
    pub bytes: u64,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Reason + '_ {
    move |e| file_error(path, "back up", &e)
}

/// Keeps what runs, then lets older backups go. A full disk costs older backups first.
///
/// # Errors
/// It could not be kept; `disk_full` with what to do.
pub fn make(source: &Source, now: u64, keep: Retention) -> Result<Name, Reason> {
    let folder = source.state.path(FOLDER);
    make_folder(&folder).map_err(|e| file_error(&folder, "make the folder", &e))?;
    loop {
        match make_one(source, &folder, now) {
            Err(reason) if reason.code == "disk_full" => {
                let _ = remove_all(&folder.join(NEW));
                let older = list(source.state);
                if older.len() < 2 {
                    return Err(reason.of("no room for a backup, so nothing is switched"));
                }
                remove(&folder, &older[0].name)?;
            }
            other => {
                let name = other?;
                let found = list(source.state).into_iter().map(|f| (f.name, f.bytes)).collect();
                to_remove(found, keep).iter().for_each(|old| {
                    if let Err(reason) = remove(&folder, old) {
                        log::warn!("{reason}");
                    }
                });
                return Ok(name);
            }
        }
    }
}

fn make_one(source: &Source, folder: &Path, now: u64) -> Result<Name, Reason> {
    let new = folder.join(NEW);
    remove_all(&new).map_err(failed(&new))?;
    make_folder(&new).map_err(failed(&new))?;
    let mut files = Vec::new();
    let in_slot = source.slot.map(|slot| source.state.slot_folder(slot));
    files.push(keep(&source.program, &new, PROGRAM, in_slot.is_some())?);
    if let Some(slot) = &in_slot {
        files.push(keep(&slot.join("slot.json"), &new, "slot.json", false)?);
    }
    if let Some(config) = &source.config {
        files.push(keep(config, &new, CONFIG, false)?);
    }
    for kept in KEPT {
        keep_folder(&source.state.path(kept), &new, kept, &mut files)?;
    }
    let package = match &in_slot {
        Some(slot) if slot.join(LIST).is_file() => Some(keep_package(slot, &new)?),
        _ => None,
    };
    let config = source.config.as_ref().map(|path| path.display().to_string());
    let index = IndexWire { format: 1, version: source.version.to_string(), why: source.why.into(), config, package, files };
    sync(&new)?;
    write_durable(&new.join(INDEX), json::to_string(&index).as_bytes(), PRIVATE).map_err(failed(&new))?;
    // Two in one second are two.
    let names = (0..60).map(|more| Name { at: now + more, version: source.version.clone() });
    let name = names.into_iter().find(|name| !folder.join(name.to_string()).exists());
    let name = name.ok_or_else(|| Reason::new("backup_name", format!("{}: too many backups in a minute", folder.display())))?;
    let path = folder.join(name.to_string());
    rename(&new, &path).and_then(|()| sync_folder_of(&path)).map_err(failed(&path))?;
    Ok(name)
}

/// One file: a second name where nobody changes it in place, else a copy.
fn keep(from: &Path, to: &Path, name: &str, link: bool) -> Result<FileWire, Reason> {
    let at = to.join(name);
    let done = || -> io::Result<FileWire> {
        let mut file = open_plain(from)?;
        let meta = file.metadata()?;
        let mode = mode_of(&meta);
        let linked = link && fs::hard_link(from, &at).is_ok();
        let mut copy = if linked { None } else { Some(create_new(&at, PRIVATE)?) };
        let (mut piece, mut hash, mut length) = (vec![0; PIECE], Context::new(&SHA256), 0);
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                break;
            }
            hash.update(&piece[..n]);
            length += n as u64;
            copy.as_mut().map_or(Ok(()), |copy| copy.write_all(&piece[..n]))?;
            crate::agent::link::tick();
        }
        if let Some(copy) = copy {
            set_mode(&copy, mode)?;
            copy.sync_all()?;
        }
        let sha256 = hex::encode(hash.finish().as_ref());
        Ok(FileWire { name: name.into(), length, sha256, mode })
    };
    done().map_err(failed(from))
}

#[cfg(unix)]
fn mode_of(meta: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777
}

#[cfg(not(unix))]
fn mode_of(_: &fs::Metadata) -> u32 {
    PRIVATE
}

/// The mode that a file has, for the bytes that take its place.
fn mode_there(path: &Path) -> u32 {
    fs::metadata(path).map_or(PRIVATE, |meta| mode_of(&meta))
}

/// The plain files of a folder of secrets; what is none is none of ours.
fn keep_folder(from: &Path, to: &Path, prefix: &str, files: &mut Vec<FileWire>) -> Result<(), Reason> {
    let entries = match fs::read_dir(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(from))?,
    };
    make_folder(&to.join(prefix)).map_err(failed(to))?;
    for entry in entries {
        let entry = entry.map_err(failed(from))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let meta = fs::symlink_metadata(entry.path()).map_err(failed(from))?;
        if !meta.is_file() || name.starts_with('.') {
            continue;
        }
        if meta.len() > FILE_MAX || files.len() >= FILES_MAX {
            let detail = format!("{}: more than a backup keeps; move it out of the folder", entry.path().display());
            return Err(Reason::new("backup_too_large", detail));
        }
        files.push(keep(&entry.path(), to, &format!("{prefix}/{name}"), false)?);
    }
    Ok(())
}

/// List and tree of a slot by second names; where the file system has none, only the list.
fn keep_package(slot: &Path, to: &Path) -> Result<String, Reason> {
    let hash = crate::io::package::tree::hash_list(slot)?;
    keep(&slot.join(LIST), to, LIST, false)?;
    let tree = to.join(TREE);
    if let Err(e) = link_tree(&slot.join(TREE), &tree) {
        // Any other error is the disk's: a backup without its resources would be called whole.
        if !has_no_links(&e) {
            return Err(failed(&tree)(e));
        }
        log::info!("{}: {e}; the backup names its resources without holding them", tree.display());
        remove_all(&tree).map_err(failed(&tree))?;
    }
    Ok(hex::encode(&hash))
}

/// What a file system says that has no second names, or no more of them.
fn has_no_links(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    [PermissionDenied, Unsupported, CrossesDevices, TooManyLinks].contains(&error.kind())
}

/// The same tree with second names for its files.
pub(super) fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            link_tree(&path, &target)?;
        } else if kind.is_file() {
            fs::hard_link(&path, &target)?;
        }
    }
    File::open(to)?.sync_all()
}

fn sync(folder: &Path) -> Result<(), Reason> {
    for name in KEPT {
        let sub = folder.join(name);
        if sub.is_dir() {
            File::open(&sub).and_then(|f| f.sync_all()).map_err(failed(&sub))?;
        }
    }
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed(folder))
}

/// Every whole backup, the oldest first.
pub fn list(state: &State) -> Vec<Found> {
    let folder = state.path(FOLDER);
    let names = fs::read_dir(&folder).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let whole = names.filter_map(|name| name.parse::<Name>().ok()).filter(|name| folder.join(name.to_string()).join(INDEX).is_file());
    let mut found: Vec<Found> = whole.map(|name| Found { bytes: bytes_in(&folder.join(name.to_string())), name }).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let each = entries.filter_map(|e| {
        let meta = fs::symlink_metadata(e.path()).ok()?;
        Some(if meta.is_dir() { bytes_in(&e.path()) } else { meta.len() })
    });
    each.sum()
}

/// The claim goes before what it speaks of.
fn remove(folder: &Path, name: &Name) -> Result<(), Reason> {
    let path = folder.join(name.to_string());
    let gone = || -> io::Result<()> {
        crate::io::fs::remove_durable(&path.join(INDEX))?;
        remove_all(&path)
    };
    gone().map_err(|e| file_error(&path, "remove", &e))
}

/// A backup's index.
///
/// # Errors
/// `backup_unknown`, `backup_damaged`
pub fn index(state: &State, name: &Name) -> Result<(PathBuf, IndexWire), Reason> {
    let path = state.path(FOLDER).join(name.to_string());
    let damaged = |why: String| Reason::new("backup_damaged", format!("{}: {why}; take another one", path.join(INDEX).display()));
    match read_limited(&path.join(INDEX), INDEX_MAX) {
        Ok(Some(bytes)) => {
            let text = std::str::from_utf8(&bytes).map_err(|e| damaged(e.to_string()))?;
            let index = json::from_str(text).map_err(|_| damaged("a field is missing or has the wrong type".into()))?;
            Ok((path, index))
        }
        Ok(None) => Err(Reason::new("backup_unknown", format!("{}: there is no such backup; `backups` lists them", path.display()))),
        Err(e) => Err(damaged(e.to_string())),
    }
}

#[cfg(all(test, unix))]
mod tests;
