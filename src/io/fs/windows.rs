//! On Windows: bounded retries against whoever has a file open for a moment, a rename that is on the disk when it returns,
//! access lists instead of modes.
//!
//! Virus scanners, indexers and backup programs open a file as soon as it was written, some without letting others rename or
//! remove it. What they hold is tried again for [`PATIENCE`]; then the error names them, where the Restart Manager can tell.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::time::Duration;

use windows_sys::Win32::Foundation as win;
use windows_sys::Win32::Storage::FileSystem as files;
use windows_sys::Win32::System::Threading::Sleep;

use super::{PRIVATE, Room};
use crate::io::{clock, security};

mod locker;

/// How long somebody else may hold a file before that is an error: scanners take tens of milliseconds, large files more.
const PATIENCE: Duration = Duration::from_millis(2500);
/// First and longest pause between two tries.
const PAUSE_MS: (u32, u32) = (5, 250);

/// Somebody has it open and does not share it.
const HELD: [u32; 3] = [win::ERROR_SHARING_VIOLATION, win::ERROR_LOCK_VIOLATION, win::ERROR_USER_MAPPED_FILE];

/// A path for the system's own calls.
pub(crate) fn wide(text: impl AsRef<std::ffi::OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// Does it again while somebody holds the file; `denied`: also while access is denied, as it is to a name whose removal is
/// under way. At the end the error says who it is.
fn retried<T>(path: &Path, denied: bool, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let (began, mut pause) = (clock::awake(), PAUSE_MS.0);
    loop {
        let error = match act() {
            Err(error) => error,
            done => return done,
        };
        let code = error.raw_os_error().unwrap_or(0) as u32;
        let held = HELD.contains(&code);
        if !held && !(denied && matches!(code, win::ERROR_ACCESS_DENIED | win::ERROR_DELETE_PENDING)) {
            return Err(error);
        }
        if clock::awake().saturating_sub(began) >= PATIENCE {
            let kind = if held { io::ErrorKind::ResourceBusy } else { error.kind() };
            let who = locker::who(path).map_or(String::new(), |who| format!("; {who} has it open: close it there, or exclude the folder"));
            return Err(io::Error::new(kind, format!("{}: {error}{who}", path.display())));
        }
        #[expect(unsafe_code, reason = "takes a number")]
        unsafe {
            Sleep(pause);
        }
        pause = (pause * 2).min(PAUSE_MS.1);
    }
}

/// Gives a file another name, in the place of what has it. On the disk when it returns.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if to.is_dir() && !from.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let (wide_from, wide_to) = (wide(from), wide(to));
    let held = if to.exists() { to } else { from };
    retried(held, true, || {
        #[expect(unsafe_code, reason = "both names end with zero and live until the call returns")]
        let done = unsafe {
            files::MoveFileExW(wide_from.as_ptr(), wide_to.as_ptr(), files::MOVEFILE_REPLACE_EXISTING | files::MOVEFILE_WRITE_THROUGH)
        };
        if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    })
}

pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    retried(path, path.is_file(), || fs::remove_file(path))
}

pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    retried(path, true, || fs::remove_dir_all(path))
}

/// Makes a file that must not be there yet; a private one is so before its first byte.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let access = win::GENERIC_WRITE | files::WRITE_DAC;
    let file = retried(path, true, || OpenOptions::new().write(true).access_mode(access).create_new(true).open(path))?;
    if mode == PRIVATE {
        security::make_private(&file)?;
    }
    Ok(file)
}

/// There are no modes; who may what was set when the file was made.
pub fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

/// Opens a file that is filled over several tries; made if it is not there.
pub fn open_part(path: &Path) -> io::Result<File> {
    retried(path, false, || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path))
}

pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    retried(path, false, || OpenOptions::new().write(true).open(path))
}

/// Opens a file for reading if it is a plain one; others may rename or remove it meanwhile.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let plain = || io::Error::new(io::ErrorKind::InvalidData, "is no plain file");
    match retried(path, false, || File::open(path)) {
        // A folder is no file that could be opened.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && path.is_dir() => Err(plain()),
        Ok(file) if !file.metadata().is_ok_and(|meta| meta.is_file()) => Err(plain()),
        other => other,
    }
}

pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    security::make_private_folder(path)
}

/// A folder's entries are in the file system's journal; that it is on the disk is asked for, and not everyone may.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut options = OpenOptions::new();
    options.access_mode(win::GENERIC_WRITE).custom_flags(files::FILE_FLAG_BACKUP_SEMANTICS);
    match options.open(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(e),
        Ok(folder) => folder.sync_all().or(Ok(())),
        Err(_) => Ok(()),
    }
}

/// Reads at a place. It moves the file's own, which nobody here relies on.
pub fn read_exact_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_read(bytes, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => (bytes, at) = (&mut bytes[n..], at + n as u64),
        }
    }
    Ok(())
}

pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_write(bytes, at)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => (bytes, at) = (&bytes[n..], at + n as u64),
        }
    }
    Ok(())
}

/// What tells this file from every other one on this system.
pub fn file_id(path: &Path) -> io::Result<[u64; 2]> {
    let file = open_plain(path)?;
    #[expect(unsafe_code, reason = "the system fills one struct of plain numbers, ours")]
    let info = unsafe {
        let mut info: files::BY_HANDLE_FILE_INFORMATION = std::mem::zeroed();
        if files::GetFileInformationByHandle(file.as_raw_handle(), &mut info) == 0 {
            return Err(io::Error::last_os_error());
        }
        info
    };
    let index = u64::from(info.nFileIndexHigh) << 32 | u64::from(info.nFileIndexLow);
    Ok([u64::from(info.dwVolumeSerialNumber), index])
}

/// Asks the file system of `path`.
pub fn room(path: &Path) -> io::Result<Room> {
    let name = wide(path);
    let (mut free, mut flags, mut volume) = (0u64, 0u32, [0u16; 260]);
    use std::ptr::null_mut as none;
    #[expect(unsafe_code, reason = "names end with zero; the system writes one number, and at most as much text as told")]
    unsafe {
        if files::GetDiskFreeSpaceExW(name.as_ptr(), &mut free, none(), none()) == 0 {
            return Err(io::Error::last_os_error());
        }
        if files::GetVolumePathNameW(name.as_ptr(), volume.as_mut_ptr(), volume.len() as u32) != 0 {
            files::GetVolumeInformationW(volume.as_ptr(), none(), 0, none(), none(), &mut flags, none(), 0);
        }
    }
    /// `FILE_READ_ONLY_VOLUME`.
    const READ_ONLY: u32 = 0x0008_0000;
    Ok(Room { free, exec: true, read_only: flags & READ_ONLY != 0, files: None })
}
