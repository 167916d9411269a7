//! On Unix: `flock`, which survives `exec`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::Taken;
use crate::io::fs;

/// An exclusive lock, until dropped.
#[derive(Debug)]
pub struct Lock(File);

/// Opens the lock file, made if it is not there. What is no plain file is set aside: not followed, not waited for.
fn open(path: &Path) -> io::Result<File> {
    if std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        fs::set_aside(path)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// The same on a file system that turned read-only, where the agent must start as well: the lock is on the file as it is,
/// else on its folder.
fn open_for_life(path: &Path) -> io::Result<File> {
    match open(path) {
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path).or_else(|_| File::open(folder_of(path))),
        other => other,
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl Lock {
    /// Waits for the lock. Holders keep `lock` for one write, milliseconds.
    pub fn wait(path: &Path) -> io::Result<Lock> {
        let file = open(path)?;
        file.lock()?;
        Ok(Lock(file))
    }

    /// One try of [`Lock::take`].
    pub(super) fn try_take(path: &Path) -> Result<Lock, Taken> {
        let mut file = open_for_life(path).map_err(Taken::Error)?;
        match file.try_lock() {
            Ok(()) => {
                let lock = Lock(file);
                // A full disk takes the number away, not the lock: the agent has to run.
                let _ = lock.write_pid();
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => Err(Taken::By(holder(&mut file))),
            Err(TryLockError::Error(e)) => Err(Taken::Error(e)),
        }
    }

    /// Who holds the lock, without taking it for longer than the question and without touching the file.
    pub fn peek(path: &Path) -> Result<(), Taken> {
        let mut file = fs::open_plain(path).map_err(Taken::Error)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(Taken::By(holder(&mut file))),
            Err(TryLockError::Error(e)) => Err(Taken::Error(e)),
        }
    }

    /// Writes this process's id into the file: commands signal it. Not durable, it is only true while the process lives.
    pub fn write_pid(&self) -> io::Result<()> {
        let mut file = &self.0;
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    }

    /// Takes over the lock that the previous program of this process held across `exec`. `None` when the descriptor is not
    /// that file: the number came through the environment, which anyone may set.
    pub fn inherit(fd: RawFd, path: &Path) -> Option<Lock> {
        let expected = std::fs::metadata(path).or_else(|_| std::fs::metadata(folder_of(path))).ok()?;
        if fd <= 2 || !is_open(fd) {
            return None;
        }
        #[expect(unsafe_code, reason = "the descriptor is open and nobody else in this process owns it: it came through exec")]
        let file = unsafe { File::from_raw_fd(fd) };
        let found = file.metadata().ok();
        if found.is_some_and(|m| m.dev() == expected.dev() && m.ino() == expected.ino()) {
            set_inheritable(fd, false).ok()?;
            // The same open file description: this only confirms what exec carried over.
            file.try_lock().ok()?;
            return Some(Lock(file));
        }
        std::mem::forget(file);
        None
    }

    /// Lets the lock survive the next `exec`; returns the descriptor to name to the next program.
    pub fn pass_on(&self) -> io::Result<RawFd> {
        set_inheritable(self.0.as_raw_fd(), true)?;
        Ok(self.0.as_raw_fd())
    }

    /// Undoes [`Lock::pass_on`] after an `exec` that failed.
    pub fn keep(&self) {
        let _ = set_inheritable(self.0.as_raw_fd(), false);
    }
}

/// Who holds the lock. The number in the file is only a hint: it is that of an earlier boot until the holder has written
/// its own, and stays so on a full disk; a process that happens to have it now must not be taken for the agent, and
/// signalled. Where the system tells who holds a lock, it is asked.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    let _ = file.take(20).read_to_string(&mut text);
    let said: Option<u32> = text.trim().parse().ok();
    #[cfg(target_os = "linux")]
    {
        let meta = file.metadata().ok()?;
        match said.map(|pid| holds(pid, &meta)) {
            Some(Ok(true)) => said,
            // Another user's process: all that is known is that it lives.
            Some(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => said,
            _ => {
                let all = std::fs::read_dir("/proc").ok()?.flatten();
                let mut numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
                numbers.find(|pid| holds(*pid, &meta).unwrap_or(false))
            }
        }
    }
    #[cfg(target_os = "macos")]
    return said.filter(|pid| crate::io::darwin::is_one_of_us(*pid));
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    said
}

/// The process has the file open, and locked through that descriptor.
#[cfg(target_os = "linux")]
fn holds(pid: u32, lock: &std::fs::Metadata) -> io::Result<bool> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if std::fs::metadata(entry.path()).is_ok_and(|m| m.dev() == lock.dev() && m.ino() == lock.ino()) {
            let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().display());
            let info = fs::read_limited(Path::new(&info), 4096)?.unwrap_or_default();
            if String::from_utf8_lossy(&info).lines().any(|line| line.starts_with("lock:") && line.contains("WRITE")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn is_open(fd: RawFd) -> bool {
    #[expect(unsafe_code, reason = "F_GETFD reads a flag of any number")]
    unsafe {
        libc::fcntl(fd, libc::F_GETFD) >= 0
    }
}

fn set_inheritable(fd: RawFd, yes: bool) -> io::Result<()> {
    let flags = if yes { 0 } else { libc::FD_CLOEXEC };
    #[expect(unsafe_code, reason = "sets one flag of a descriptor that we own")]
    let rc = unsafe { libc::fcntl(fd, libc::F_SETFD, flags) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        let first = Lock::take(&path).unwrap();
        match Lock::take(&path) {
            Err(Taken::By(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(Lock::take(&path).is_ok());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_number_of_an_earlier_boot_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        let _lock = Lock::take(&path).unwrap();
        // Process 1 lives and has nothing to do with it; the others say nothing, or nobody.
        for stale in ["1", "", "4294967295", "garbage"] {
            std::fs::File::options().write(true).truncate(true).open(&path).unwrap().write_all(stale.as_bytes()).unwrap();
            match Lock::peek(&path) {
                Err(Taken::By(pid)) => assert_eq!(pid, Some(std::process::id()), "{stale}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_strange_descriptor_is_not_taken_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        let _lock = Lock::take(&path).unwrap();
        let other = File::create(dir.path().join("other")).unwrap();
        assert!(Lock::inherit(other.as_raw_fd(), &path).is_none());
        assert!(Lock::inherit(1, &path).is_none() && Lock::inherit(9999, &path).is_none());
        assert!(other.metadata().is_ok(), "the strange descriptor was left alone");
    }
}
