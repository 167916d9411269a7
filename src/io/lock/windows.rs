//! On Windows: `LockFileEx`. The launcher holds `run.lock` for its programs, which run as its children.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::windows::io::AsRawHandle;
use std::path::Path;

use windows_sys::Win32::Foundation::{ERROR_IO_PENDING, ERROR_LOCK_VIOLATION};
use windows_sys::Win32::Storage::FileSystem::{LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx};
use windows_sys::Win32::System::IO::OVERLAPPED;

use super::Taken;
use crate::io::fs;

/// The locked byte: far behind the content, because what is locked nobody else can read, and the number in the file is
/// for others.
const LOCKED_AT_HIGH: u32 = 1 << 20;

/// An exclusive lock, until dropped; without a file it is the launcher's, which outlives this process.
#[derive(Debug)]
pub struct Lock(Option<File>);

/// Opens the lock file, made if it is not there. What is no plain file is set aside.
fn open(path: &Path) -> io::Result<File> {
    if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        fs::set_aside(path)?;
    }
    match OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path) {
        // Where nothing can be written the agent must start as well.
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        other => other,
    }
}

fn lock(file: &File, flags: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "an open file, and one struct of ours that the call does not keep: the file is not overlapped")]
    let done = unsafe {
        let mut at: OVERLAPPED = std::mem::zeroed();
        at.Anonymous.Anonymous.OffsetHigh = LOCKED_AT_HIGH;
        LockFileEx(file.as_raw_handle(), flags, 0, 1, 0, &mut at)
    };
    if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(|code| code as u32), Some(ERROR_LOCK_VIOLATION | ERROR_IO_PENDING))
}

impl Lock {
    /// Waits for the lock. Holders keep `lock` for one write, milliseconds.
    pub fn wait(path: &Path) -> io::Result<Lock> {
        let file = open(path)?;
        lock(&file, LOCKFILE_EXCLUSIVE_LOCK)?;
        Ok(Lock(Some(file)))
    }

    /// One try of [`Lock::take`].
    pub(super) fn try_take(path: &Path) -> Result<Lock, Taken> {
        let mut file = open(path).map_err(Taken::Error)?;
        match lock(&file, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY) {
            Ok(()) => {
                let lock = Lock(Some(file));
                // A full disk takes the number away, not the lock: the agent has to run.
                let _ = lock.write_pid();
                Ok(lock)
            }
            Err(e) if is_taken(&e) => Err(Taken::By(holder(&mut file))),
            Err(e) => Err(Taken::Error(e)),
        }
    }

    /// Who holds the lock, without taking it for longer than the question and without touching the file.
    pub fn peek(path: &Path) -> Result<(), Taken> {
        let mut file = fs::open_plain(path).map_err(Taken::Error)?;
        match lock(&file, LOCKFILE_FAIL_IMMEDIATELY) {
            Ok(()) => Ok(()),
            Err(e) if is_taken(&e) => Err(Taken::By(holder(&mut file))),
            Err(e) => Err(Taken::Error(e)),
        }
    }

    /// Writes this process's id into the file: commands wake the agent by it.
    pub fn write_pid(&self) -> io::Result<()> {
        let Some(mut file) = self.0.as_ref() else { return Ok(()) };
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    }

    /// The lock of the launcher with that process id. `None` when another process holds it, or nobody: the number came
    /// through the environment, which anyone may set.
    pub fn inherit(launcher: i32, path: &Path) -> Option<Lock> {
        match Lock::peek(path) {
            Err(Taken::By(Some(pid))) if pid == launcher as u32 => Some(Lock(None)),
            _ => None,
        }
    }

    /// What to name to the next program: this process, which holds the lock for it.
    pub fn pass_on(&self) -> io::Result<i32> {
        Ok(std::process::id() as i32)
    }

    /// Nothing was given away.
    pub fn keep(&self) {}
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    let _ = file.take(20).read_to_string(&mut text);
    text.trim().parse().ok()
}
