//! The unpacked tree of a slot: compared with its list, made durable, told apart from another.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use ring::digest::{Context, SHA256};

use super::PIECE;
use super::unpack::{LIST, TREE};
use crate::core::hex::{Sha256, sha256};
use crate::core::package::ENTRIES_MAX;
use crate::core::package::manifest::{Head, LINE_MAX, Line, damaged};
use crate::core::package::summary::Summary;
use crate::core::reason::Reason;
use crate::io::fs::open_plain;
use crate::io::state::file_error;

/// Lines of a list at most: its head, and a file each.
const LINES_MAX: u64 = ENTRIES_MAX + 16;

/// Compares a slot's tree with its list, and the list with the hash that `slot.json` names. `tick` is called between pieces.
///
/// # Errors
/// `package_damaged`: with the file that is missing, differs, or is one too many.
pub fn check(slot: &Path, list_hash: &Sha256, tick: &mut dyn FnMut()) -> Result<Head, Reason> {
    // Before anything is made of its lines.
    if hash_list(slot)? != *list_hash {
        return Err(damaged("the list is not the one that slot.json names").of(slot.join(LIST).display()));
    }
    let root = slot.join(TREE);
    let mut listed = BTreeSet::new();
    let mut each = |line: Line| {
        listed.insert(sha256(line.name.as_bytes()));
        let path = root.join(&line.name);
        same(&path, &line, tick).map_err(|e| damaged(&format!("{e}; roll back, or order this version again")).of(path.display()))
    };
    let head = read(slot, &mut each)?;
    for_each(&root, &mut |path, folder| {
        let name = path.strip_prefix(&root).ok().and_then(Path::to_str).unwrap_or_default();
        let ours = folder || listed.contains(&sha256(name.replace('\\', "/").as_bytes()));
        match ours {
            true => Ok(()),
            false => Err(damaged("the release has no such file; keep own files in the folder user").of(path.display())),
        }
    })?;
    Ok(head)
}

fn same(path: &Path, line: &Line, tick: &mut dyn FnMut()) -> io::Result<()> {
    let differs = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, format!("has {what}")));
    let mut file = open_plain(path)?;
    let meta = file.metadata()?;
    if meta.len() != line.length {
        return differs("another length");
    }
    #[cfg(unix)]
    if (std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o100 != 0) != line.program {
        return differs("another mode");
    }
    match hash(&mut file, tick)? == line.sha256 {
        true => Ok(()),
        false => differs("other bytes"),
    }
}

pub(super) fn hash(from: &mut dyn Read, tick: &mut dyn FnMut()) -> io::Result<Sha256> {
    let (mut piece, mut hash, mut out) = (vec![0; PIECE], Context::new(&SHA256), [0; 32]);
    loop {
        match from.read(&mut piece)? {
            0 => break,
            n => hash.update(&piece[..n]),
        }
        tick();
    }
    out.copy_from_slice(hash.finish().as_ref());
    Ok(out)
}

/// The SHA-256 of a slot's list.
///
/// # Errors
/// It cannot be read.
pub fn hash_list(slot: &Path) -> Result<Sha256, Reason> {
    let path = slot.join(LIST);
    let hash = open_plain(&path).and_then(|file| hash(&mut file.take(LINES_MAX * (LINE_MAX as u64 + 1)), &mut || {}));
    hash.map_err(|e| damaged(&e.to_string()).of(path.display()))
}

/// Reads a list line by line.
fn read(slot: &Path, each: &mut dyn FnMut(Line) -> Result<(), Reason>) -> Result<Head, Reason> {
    let path = slot.join(LIST);
    let file = open_plain(&path).map_err(|e| damaged(&e.to_string()).of(path.display()))?;
    let mut file = BufReader::new(file);
    let mut head: (Vec<String>, Option<Head>) = (Vec::new(), None);
    for _ in 0..LINES_MAX {
        let mut line = Vec::new();
        let n =
            (&mut file).take(LINE_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(|e| damaged(&e.to_string()).of(path.display()))?;
        if n == 0 {
            return head.1.ok_or_else(|| damaged("ends too early").of(path.display()));
        }
        let line = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        let line = line.ok_or_else(|| damaged("has a line that is too long, or no text").of(path.display()))?;
        match &head.1 {
            Some(_) => each(Line::parse(line).map_err(|r| r.of(path.display()))?)?,
            None if line.is_empty() => head.1 = Some(Head::parse(&head.0).map_err(|r| r.of(path.display()))?),
            None => head.0.push(line.to_string()),
        }
    }
    Err(damaged("has too many lines").of(path.display()))
}

/// What a slot's list says of its archive.
///
/// # Errors
/// `package_damaged`
pub fn head(slot: &Path) -> Result<Head, Reason> {
    read(slot, &mut |_| Ok(()))
}

/// What changes with the switch from one slot's tree to another's; a slot without a list has no files.
///
/// # Errors
/// `package_damaged`: of the new one.
pub fn what_changed(old: &Path, new: &Path) -> Result<Summary, Reason> {
    let lines = |slot: &Path| {
        let mut lines = Vec::new();
        read(slot, &mut |line| {
            lines.push(line);
            Ok(())
        })
        .map(|_| lines)
    };
    Ok(Summary::of(&lines(old).unwrap_or_default(), &lines(new)?))
}

/// Makes every file and folder of a tree durable.
pub(super) fn sync(root: &Path, tick: &mut dyn FnMut()) -> Result<(), Reason> {
    for_each(root, &mut |path, _| {
        tick();
        #[cfg(test)]
        crate::io::fs::cut::spend().map_err(|e| file_error(path, "sync", &e))?;
        // Windows syncs no folders, and its files through handles that may write.
        #[cfg(unix)]
        let synced = File::open(path).and_then(|file| file.sync_all());
        #[cfg(windows)]
        let synced = if path.is_dir() { Ok(()) } else { File::options().write(true).open(path).and_then(|file| file.sync_all()) };
        synced.map_err(|e| file_error(path, "sync", &e))
    })
}

/// Every file and folder of a tree, the top one last; anything else in it is damage.
pub(super) fn for_each(root: &Path, each: &mut dyn FnMut(&Path, bool) -> Result<(), Reason>) -> Result<(), Reason> {
    let unreadable = |path: &Path, e: &io::Error| damaged(&e.to_string()).of(path.display());
    let (mut folders, mut next) = (vec![root.to_path_buf()], 0);
    while next < folders.len() {
        let folder = folders[next].clone();
        next += 1;
        for entry in fs::read_dir(&folder).map_err(|e| unreadable(&folder, &e))? {
            let path = entry.map_err(|e| unreadable(&folder, &e))?.path();
            let meta = fs::symlink_metadata(&path).map_err(|e| unreadable(&path, &e))?;
            match (meta.is_dir(), meta.is_file()) {
                (true, _) => folders.push(path),
                (_, true) => each(&path, false)?,
                _ => return Err(damaged("is a link or a device, which no package has").of(path.display())),
            }
        }
    }
    folders.iter().rev().try_for_each(|folder| each(folder, true))
}
