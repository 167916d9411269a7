//! One artifact into the mirror's folder: resumed where the last try broke off, checked over all its bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::{unreadable, unwritable};
use crate::core::reason::Reason;
use crate::core::trust::FileCheck;
use crate::director::allowance::{Allowance, Taken};
use crate::io::fs::{make_folder, remove_all, remove_if_there, room, sync_folder_of};

/// Room that stays free on the disk when an artifact is fetched.
const RESERVE: u64 = 64 << 20;
/// Pieces in which artifacts are read.
const PIECE: usize = 128 << 10;

/// An artifact's bytes, and the offset at which they really begin.
pub type Body = (Box<dyn Read>, u64);

/// Where an artifact grows until it is whole. Its name holds the hash, so what is there is of these bytes or of no use.
pub fn part(file: &Path) -> PathBuf {
    file.with_extension("part")
}

/// How a copy ended before its end.
enum Broken {
    /// The source broke off: what came stays, and the next refresh goes on behind it.
    Off(Reason),
    /// What came is wrong, or cannot be kept.
    Useless(Reason),
}

/// Fetches the rest of an artifact of `length` bytes to `file`, durably. `check` begins a check of all of it, `open` the source at
/// an offset.
///
/// # Errors
/// The source's, the disk's, or a check that did not hold; only in the first case something of it stays.
pub fn fetch(
    file: &Path,
    length: u64,
    check: &dyn Fn() -> Result<FileCheck, Reason>,
    open: &mut dyn FnMut(u64) -> Result<Body, Reason>,
    allowance: Option<&Allowance>,
) -> Result<(), Reason> {
    let part = part(file);
    if fs::symlink_metadata(&part).is_ok_and(|m| !m.is_file() || m.len() > length) {
        remove_all(&part).map_err(|e| unwritable(&part, &e))?;
    }
    let have = fs::metadata(&part).map_or(0, |m| m.len());
    // First the source: where nobody brings anything, nothing is made on the disk.
    let mut taken = allowance.filter(|_| have < length).map(|allowance| allowance.take(length - have)).transpose()?;
    let body = if have < length { Some(open(have)?) } else { None };
    if body.as_ref().is_some_and(|(_, start)| *start < have) {
        // The source gives everything or nothing: what is here comes once more.
        taken = allowance.map(|allowance| allowance.take(length)).transpose()?;
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    make_folder(folder).map_err(|e| unwritable(folder, &e))?;
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
    let mut out = opened.map_err(|e| unwritable(&part, &e))?;
    match rest(&mut out, &part, (have, length), check, body.map(|body| (body, taken.as_mut()))) {
        Ok(()) => {}
        Err(Broken::Off(reason)) => return Err(reason),
        Err(Broken::Useless(reason)) => {
            let _ = remove_if_there(&part);
            return Err(reason);
        }
    }
    let finish = || {
        out.sync_all()?;
        fs::rename(&part, file)?;
        sync_folder_of(file)
    };
    finish().map_err(|e| unwritable(file, &e))
}

fn rest(
    out: &mut File,
    part: &Path,
    (have, length): (u64, u64),
    new_check: &dyn Fn() -> Result<FileCheck, Reason>,
    body: Option<(Body, Option<&mut Taken>)>,
) -> Result<(), Broken> {
    let disk = |e: std::io::Error| Broken::Useless(unwritable(part, &e));
    let mut check = new_check().map_err(Broken::Useless)?;
    absorb(out, part, &mut check)?;
    let (free, missing) = (room(part).map_err(disk)?.free, length - have);
    if free < missing.saturating_add(RESERVE) {
        let detail = format!("{}: {free} bytes are free, {missing} are needed and {RESERVE} stay free", part.display());
        // What is there is in the way of everything else.
        return Err(Broken::Useless(Reason::new("disk_full", detail)));
    }
    if let Some(((body, start), taken)) = body {
        match start {
            start if start == have => log::debug!("{}: from byte {have} of {length}", part.display()),
            0 => {
                // The source gives everything or nothing.
                out.set_len(0).and_then(|()| out.rewind()).map_err(disk)?;
                check = new_check().map_err(Broken::Useless)?;
            }
            start => {
                let detail = format!("{}: asked for bytes from {have} on, got them from {start} on", part.display());
                return Err(Broken::Off(Reason::new("bad_range", detail)));
            }
        }
        append(body, out, part, &mut check, taken)?;
    }
    check.finish().map_err(|refusal| Broken::Useless(refusal.into()))
}

/// Takes what is there into the check; afterwards the file stands at its end.
fn absorb(out: &mut File, part: &Path, check: &mut FileCheck) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE];
    loop {
        match out.read(&mut piece).map_err(|e| Broken::Useless(unreadable(part, &e)))? {
            0 => return Ok(()),
            n => check.absorb(&piece[..n]).map_err(|refusal| Broken::Useless(refusal.into()))?,
        }
    }
}

fn append(mut from: impl Read, to: &mut File, part: &Path, check: &mut FileCheck, mut taken: Option<&mut Taken>) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE];
    loop {
        let n = from.read(&mut piece).map_err(|e| Broken::Off(unreadable(part, &e)))?;
        if n == 0 {
            return Ok(());
        }
        check.absorb(&piece[..n]).map_err(|refusal| Broken::Useless(refusal.into()))?;
        to.write_all(&piece[..n]).map_err(|e| Broken::Useless(unwritable(part, &e)))?;
        taken.iter_mut().for_each(|taken| taken.came(n as u64));
    }
}

/// Reads a file to its end through the check of its artifact.
pub fn verify(mut from: impl Read, file: &Path, mut check: FileCheck) -> Result<(), Reason> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece).map_err(|e| unreadable(file, &e))? {
            0 => return Ok(check.finish()?),
            n => check.absorb(&piece[..n])?,
        }
    }
}
