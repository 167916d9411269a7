//! An artifact into the inactive slot: in slices, with resume across restarts, checked in the same pass that writes it.
//! Constant memory: one buffer, one hash, one signature state, whatever the file's size.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_compact::PublicKey;

use super::source::{Source, SourceError};
use super::world::Fetched;
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::core::slots::Slot;
use crate::core::trust::FileCheck;
use crate::io::clock;
use crate::io::fs::{PROGRAM, open_part, open_plain, remove_all, remove_if_there, rename, set_mode, sync_folder_of};
use crate::io::state::{State, file_error};

/// Bytes read and written at once.
const PIECE: usize = 64 * 1024;
/// A slice: what a power cut may cost, and how often the Director is heard in between.
const SLICE_BYTES: u64 = 1024 * 1024;
/// A slice on a slow link: well below the liveness limit.
const SLICE_TIME: Duration = Duration::from_secs(20);

/// Said between slices: bytes on disk so far, bytes of them fetched by this call.
pub trait Between {
    /// Reports; false = stop here, something newer has come.
    fn slice(&mut self, on_disk: u64, fetched: u64) -> bool;
    /// Seconds to wait after this error.
    fn wait_s(&mut self, error: &SourceError) -> u64;
    /// So many bytes are about to be asked for over the network: whether they may. What was allowed before is given back.
    #[cfg(feature = "director")]
    fn allow(&mut self, bytes: u64) -> Result<(), Reason>;
    /// So many of them came; waits as long as a rate wants.
    #[cfg(feature = "director")]
    fn came(&mut self, bytes: u64);
}

/// A day's limit that is used up is looked at again so soon: the day ends, or the operator raises it.
#[cfg(feature = "director")]
const ALLOW_AGAIN_S: u64 = 600;

/// Brings the slot's file to the whole, verified artifact, or as far as it gets.
pub fn fetch(
    state: &State,
    slot: Slot,
    artifact: &Artifact,
    key: PublicKey,
    source: &Source,
    between: &mut dyn Between,
) -> Result<Fetched, Reason> {
    fetch_as(state.slot_program(slot), PROGRAM, state.part(slot, &artifact.sha256), artifact, key, source, between)
}

/// The same for any file: under which name and mode it appears once it is whole and verified, and where its part lies.
pub fn fetch_as(
    program: PathBuf,
    mode: u32,
    part: PathBuf,
    artifact: &Artifact,
    key: PublicKey,
    source: &Source,
    between: &mut dyn Between,
) -> Result<Fetched, Reason> {
    let on_disk = |e: io::Error| file_error(&part, "write", &e);
    match whole_file_is_there(&program, artifact, key) {
        Ok(true) => return Ok(Fetched::Verified),
        Ok(false) => {}
        Err(e) => return Err(file_error(&program, "read", &e)),
    }
    let mut check = match FileCheck::new(artifact, key) {
        Ok(check) => check,
        Err(refusal) => return Ok(Fetched::Refused(refusal.into())),
    };
    if fs::symlink_metadata(&part).is_ok_and(|m| !m.is_file()) {
        // Damage, or somebody's trick: nothing is written through it.
        remove_all(&part).map_err(on_disk)?;
    }
    let mut file = open_part(&part).map_err(on_disk)?;
    let mut have = absorb_part(&mut file, artifact.length, &mut check).map_err(on_disk)?;
    let mut fetched = 0;
    if have < artifact.length {
        #[cfg(feature = "director")]
        if let (Source::Director(_), Err(reason)) = (source, between.allow(artifact.length - have)) {
            return Ok(Fetched::Later(reason, ALLOW_AGAIN_S));
        }
        let (mut body, start) = match source.artifact(artifact, have) {
            Ok(body) => body,
            Err(error) => return Ok(later(error, between)),
        };
        if start != have {
            // The server starts elsewhere (a 200 to a range): from the beginning, then.
            if start != 0 {
                let why = format!("asked for bytes from {have}, got bytes from {start}");
                return Ok(Fetched::Later(Reason::new("bad_range", why), 60));
            }
            file.set_len(0).map_err(on_disk)?;
            io::Seek::rewind(&mut file).map_err(on_disk)?;
            check = FileCheck::new(artifact, key).map_err(Reason::from)?;
            have = 0;
            #[cfg(feature = "director")]
            if let Err(reason) = between.allow(artifact.length) {
                return Ok(Fetched::Later(reason, ALLOW_AGAIN_S));
            }
        }
        let end = copy(&mut file, &mut body, &mut check, &mut have, &mut fetched, between);
        file.sync_data().map_err(on_disk)?;
        match end {
            Copied::Whole => {}
            Copied::Stopped => return Ok(Fetched::Interrupted),
            Copied::Source(error) => return Ok(later(error, between)),
            Copied::Disk(e) => return Err(on_disk(e)),
            Copied::Refused(reason) => {
                remove_if_there(&part).map_err(on_disk)?;
                return Ok(Fetched::Refused(reason));
            }
        }
    }
    if let Err(refusal) = check.finish() {
        // Nothing unverified stays under a name that a later try would resume.
        remove_if_there(&part).map_err(on_disk)?;
        return Ok(Fetched::Refused(refusal.into()));
    }
    install(&file, mode, &part, &program).map_err(|e| file_error(&program, "install", &e))?;
    between.slice(artifact.length, fetched);
    Ok(Fetched::Verified)
}

fn later(error: SourceError, between: &mut dyn Between) -> Fetched {
    match error.woken {
        true => Fetched::Interrupted,
        false => Fetched::Later(error.reason.clone(), between.wait_s(&error)),
    }
}

fn install(file: &File, mode: u32, part: &Path, program: &Path) -> io::Result<()> {
    set_mode(file, mode)?;
    file.sync_all()?;
    rename(part, program)?;
    sync_folder_of(program)
}

/// A crash after the rename left the whole file under its name: checked again, not fetched again.
fn whole_file_is_there(program: &Path, artifact: &Artifact, key: PublicKey) -> io::Result<bool> {
    match open_plain(program) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(_) if !fs::symlink_metadata(program).is_ok_and(|m| m.is_file()) => remove_all(program).map(|()| false),
        Err(e) => Err(e),
        Ok(mut file) => {
            let whole = file.metadata()?.len() == artifact.length && check_file(&mut file, artifact, key)?.is_ok();
            if !whole {
                remove_if_there(program)?;
            }
            Ok(whole)
        }
    }
}

/// Reads a file to its end through the check of its artifact.
pub fn check_file(file: &mut impl Read, artifact: &Artifact, key: PublicKey) -> io::Result<Result<(), Reason>> {
    let mut check = match FileCheck::new(artifact, key) {
        Ok(check) => check,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(check.finish().map_err(Reason::from)),
            n => {
                if let Err(refusal) = check.absorb(&piece[..n]) {
                    return Ok(Err(refusal.into()));
                }
            }
        }
    }
}

/// Takes what an earlier try left; a part that is longer than the artifact is no part of it.
fn absorb_part(file: &mut File, length: u64, check: &mut FileCheck) -> io::Result<u64> {
    let have = file.metadata()?.len();
    if have > length {
        file.set_len(0)?;
        return Ok(0);
    }
    let mut piece = vec![0; PIECE];
    let mut left = have;
    while left > 0 {
        let n = file.read(&mut piece)?;
        if n == 0 || check.absorb(&piece[..n]).is_err() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the part changed while it was read"));
        }
        left -= (n as u64).min(left);
        super::link::tick();
    }
    Ok(have)
}

enum Copied {
    Whole,
    Stopped,
    Source(SourceError),
    Disk(io::Error),
    Refused(Reason),
}

fn copy(
    file: &mut File,
    body: &mut super::source::Body,
    check: &mut FileCheck,
    have: &mut u64,
    fetched: &mut u64,
    between: &mut dyn Between,
) -> Copied {
    let mut piece = vec![0; PIECE];
    let (mut in_slice, mut slice_began) = (0u64, clock::monotonic());
    loop {
        let n = match body.read(&mut piece) {
            Ok(0) => return Copied::Whole,
            Ok(n) => n,
            Err(error) => return Copied::Source(error),
        };
        if let Err(refusal) = check.absorb(&piece[..n]) {
            return Copied::Refused(refusal.into());
        }
        if let Err(e) = file.write_all(&piece[..n]) {
            return Copied::Disk(e);
        }
        *have += n as u64;
        in_slice += n as u64;
        #[cfg(feature = "director")]
        between.came(n as u64);
        *fetched += if body.is_remote() { n as u64 } else { 0 };
        if in_slice >= SLICE_BYTES || clock::monotonic().saturating_sub(slice_began) >= SLICE_TIME {
            if let Err(e) = file.sync_data() {
                return Copied::Disk(e);
            }
            super::link::tick();
            if !between.slice(*have, *fetched) {
                return Copied::Stopped;
            }
            (in_slice, slice_began) = (0, clock::monotonic());
        }
    }
}
