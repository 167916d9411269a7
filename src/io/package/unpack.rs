//! An archive into a slot: checked whole, then unpacked beside, then made the slot's tree.
//!
//! ```text
//! <slot>/<sha256>.part ..> package.tar.zst     checked: length, hash, build signature, in one pass
//!        package.new/ package.list.new         unpacked, every file and folder synced
//!        package/                              renamed: whole, and nobody's yet
//!        package.list                          renamed: what slot.json will name
//! ```
//! A power cut leaves what is above some line; the next try begins with what it finds. Nothing reads `package/` but by a
//! `slot.json` that names the hash of `package.list`, and that is written last, by the engine.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use ed25519_compact::PublicKey;
use ring::digest::{Context, SHA256};

use super::{PIECE, Sink, tree, walk};
use crate::core::hex::Sha256;
use crate::core::package::manifest::{Head, Line};
use crate::core::package::{Entry, Format, Kind, Unpacked};
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::core::trust::FileCheck;
use crate::io::fs::{PRIVATE, PROGRAM, PUBLIC, create_new, open_plain, remove_all, remove_durable, rename, set_mode, sync_folder_of};
use crate::io::state::file_error;

/// The unpacked tree of a slot.
pub const TREE: &str = "package";
/// Its list of files.
pub const LIST: &str = "package.list";
const NEW_TREE: &str = "package.new";
const NEW_LIST: &str = "package.list.new";

/// What is to be unpacked; all of it was signed.
#[derive(Clone, Debug)]
pub struct Package {
    /// The archive.
    pub artifact: Artifact,
    /// What it unpacks to.
    pub unpacked: Unpacked,
    /// The build key that the trusted root lists for it.
    pub key: PublicKey,
}

/// Brings the tree of an archive into a slot's folder, and answers the SHA-256 of its list for `slot.json`. What is there
/// already is taken as it is, if it is whole. `tick` is called between pieces.
///
/// # Errors
/// The archive is not what was signed or a code of [`crate::core::package`]: nothing of it is left. Or one of the disk.
pub fn unpack(archive: &Path, package: &Package, slot: &Path, tick: &mut dyn FnMut()) -> Result<Sha256, Reason> {
    if let Some(there) = already(package, slot, tick) {
        return Ok(there);
    }
    let file = open_plain(archive).map_err(|e| file_error(archive, "read", &e))?;
    // The same open file is checked and unpacked: nobody can put another in between.
    let mut file = check(file, archive, package, tick)?;
    file.rewind().map_err(|e| file_error(archive, "read", &e))?;
    clear(slot)?;
    let made = make(file, package, slot, tick);
    if made.is_err() {
        // The disk may be full of it.
        for name in [NEW_TREE, NEW_LIST] {
            let _ = remove_all(&slot.join(name));
        }
    }
    made
}

/// Whether a slot has this very tree already.
pub fn is_there(package: &Package, slot: &Path, tick: &mut dyn FnMut()) -> bool {
    already(package, slot, tick).is_some()
}

/// Takes a slot's tree away; none is fine.
///
/// # Errors
/// The disk's.
pub fn forget(slot: &Path) -> Result<(), Reason> {
    match [LIST, TREE, NEW_LIST, NEW_TREE].iter().any(|name| slot.join(name).exists()) {
        true => clear(slot),
        false => Ok(()),
    }
}

/// An earlier try came to its end, and a power cut or a restart was quicker than `slot.json`.
fn already(package: &Package, slot: &Path, tick: &mut dyn FnMut()) -> Option<Sha256> {
    let hash = tree::hash_list(slot).ok()?;
    let head = tree::check(slot, &hash, tick).ok()?;
    let same = (head.artifact.sha256, &head.artifact.path) == (package.artifact.sha256, &package.artifact.path);
    same.then_some(hash)
}

/// "Nothing unverified is unpacked."
fn check(mut file: File, path: &Path, package: &Package, tick: &mut dyn FnMut()) -> Result<File, Reason> {
    let mut check = FileCheck::new(&package.artifact, package.key).map_err(Reason::from)?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(|e| file_error(path, "read", &e))? {
            0 => break,
            n => check.absorb(&piece[..n]).map_err(Reason::from)?,
        }
        tick();
    }
    check.finish().map_err(Reason::from)?;
    Ok(file)
}

/// Takes an older tree out of the slot, and what an interrupted try left; the claim goes before what it speaks of.
fn clear(slot: &Path) -> Result<(), Reason> {
    let clear = || -> io::Result<()> {
        remove_durable(&slot.join(LIST))?;
        for name in [NEW_LIST, NEW_TREE, TREE] {
            step()?;
            remove_all(&slot.join(name))?;
        }
        sync_folder_of(&slot.join(TREE))
    };
    clear().map_err(|e| file_error(&slot.join(TREE), "clear", &e))
}

fn make(file: File, package: &Package, slot: &Path, tick: &mut dyn FnMut()) -> Result<Sha256, Reason> {
    let (root, list_path) = (slot.join(NEW_TREE), slot.join(NEW_LIST));
    let at_list = |e: io::Error| file_error(&list_path, "write", &e);
    let head = Head { artifact: package.artifact.clone(), unpacked: package.unpacked };
    make_folder(&root)?;
    let list = create_new(&list_path, PRIVATE).map_err(at_list)?;
    let mut out = Disk { root: root.clone(), list: BufWriter::new(list), hash: Context::new(&SHA256), tick, piece: vec![0; PIECE] };
    out.say(&head.text()).map_err(at_list)?;
    let format = Format::of(&package.artifact.path.file)?;
    walk(format, Box::new(BufReader::with_capacity(PIECE, file)), package.artifact.length, Some(package.unpacked), &mut out)?;
    let Disk { list, hash, .. } = out;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hash.finish().as_ref());
    let list = list.into_inner().map_err(|e| at_list(e.into_error()))?;
    step().and_then(|()| list.sync_all()).map_err(at_list)?;
    // All files were written before: the first sync carries most of the others.
    tree::sync(&root, tick)?;
    install(slot).map_err(|e| file_error(&slot.join(TREE), "install", &e))?;
    Ok(sha256)
}

fn install(slot: &Path) -> io::Result<()> {
    for (from, to) in [(NEW_TREE, TREE), (NEW_LIST, LIST)] {
        step()?;
        rename(slot.join(from), slot.join(to))?;
        step()?;
        sync_folder_of(&slot.join(to))?;
    }
    Ok(())
}

/// A change of the disk; a test cuts the power before each of them.
pub(super) fn step() -> io::Result<()> {
    #[cfg(test)]
    crate::io::fs::cut::spend()?;
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), Reason> {
    step().and_then(|()| fs::create_dir_all(path)).map_err(|e| file_error(path, "make the folder", &e))
}

/// Writes entries below a folder that is new and ours: no name in it was there before, so none leads anywhere.
struct Disk<'a> {
    root: PathBuf,
    list: BufWriter<File>,
    hash: Context,
    tick: &'a mut dyn FnMut(),
    piece: Vec<u8>,
}

impl Disk<'_> {
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.hash.update(text.as_bytes());
        self.list.write_all(text.as_bytes())
    }

    fn copy(&mut self, path: &Path, program: bool, from: &mut dyn Read) -> io::Result<(u64, Sha256)> {
        step()?;
        let mode = if program { PROGRAM } else { PUBLIC };
        let mut file = create_new(path, mode)?;
        let (mut length, mut hash) = (0, Context::new(&SHA256));
        loop {
            match from.read(&mut self.piece)? {
                0 => break,
                n => {
                    hash.update(&self.piece[..n]);
                    file.write_all(&self.piece[..n])?;
                    length += n as u64;
                }
            }
            (self.tick)();
        }
        set_mode(&file, mode)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(hash.finish().as_ref());
        Ok((length, sha256))
    }
}

impl Sink for Disk<'_> {
    fn folder(&mut self, entry: &Entry) -> Result<(), Reason> {
        make_folder(&self.root.join(&entry.name))
    }

    fn file(&mut self, entry: &Entry, from: &mut dyn Read) -> Result<(), Reason> {
        let path = self.root.join(&entry.name);
        if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
            make_folder(folder)?;
        }
        let program = matches!(entry.kind, Kind::File { program: true, .. });
        let (length, sha256) = self.copy(&path, program, from).map_err(|e| file_error(&path, "unpack", &e))?;
        let line = Line { name: entry.name.clone(), length, sha256, program };
        self.say(&line.text()).map_err(|e| file_error(&path, "list", &e))
    }
}
