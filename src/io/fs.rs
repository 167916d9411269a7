//! Durable files. *Durable* means: a temporary file in the same folder, fsync, rename, fsync of the folder.
#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "the tests make files that are not durable"))]

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

#[cfg(unix)]
#[path = "fs/unix.rs"]
mod sys;
#[cfg(windows)]
#[path = "fs/windows.rs"]
mod sys;

#[cfg(windows)]
pub(crate) use sys::wide;
pub use sys::{create_new, file_id, open_part, open_plain, read_exact_at, rename, room, set_mode, sync_folder_of};

/// Readable and writable by the owner only.
pub const PRIVATE: u32 = 0o600;
/// Readable by all.
pub const PUBLIC: u32 = 0o644;
/// Program.
pub const PROGRAM: u32 = 0o755;

/// Replaces `path` by `bytes`: whoever looks, at whatever moment, power cuts included, sees the old file or the new one.
pub fn write_durable(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace(path, bytes, mode, true)
}

/// Replaces `path` whole, but not durably: for what is only true while the writer lives.
pub fn write_volatile(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace(path, bytes, mode, false)
}

fn replace(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    #[cfg(test)]
    cut::spend()?;
    let temp = temp_name(path);
    let result = write_temp(&temp, bytes, mode, durable).and_then(|()| match rename(&temp, path) {
        // A folder in a file's place would refuse every write from now on.
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => set_aside(path).and_then(|()| rename(&temp, path)),
        other => other,
    });
    if result.is_err() {
        // The first error is the one that matters; the name is used again by the next try.
        let _ = fs::remove_file(&temp);
    } else if durable {
        sync_folder_of(path)?;
    }
    result
}

fn write_temp(temp: &Path, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    // A leftover of a crash may have another mode, or be a link: it is never written through.
    remove_all(temp)?;
    let mut file = create_new(temp, mode)?;
    file.write_all(bytes)?;
    set_mode(&file, mode)?;
    if durable { file.sync_all() } else { Ok(()) }
}

fn temp_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.tmp"))
}

/// The file's bytes, or `None` when there is none. More than `limit` bytes is an error, not a truncation.
pub fn read_limited(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open_plain(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes"))),
        false => Ok(Some(bytes)),
    }
}

/// The first bytes of a plain file, at most `limit`, and its whole length.
pub fn read_head(path: &Path, limit: usize) -> io::Result<(Vec<u8>, u64)> {
    let file = open_plain(path)?;
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(limit as u64).read_to_end(&mut head)?;
    Ok((head, length))
}

/// Overwrites the first bytes of a file that is there already, durably, without needing a free block; `cut`: the rest goes.
pub fn overwrite(path: &Path, bytes: &[u8], cut: bool) -> io::Result<()> {
    let file = sys::open_to_write(path)?;
    sys::write_all_at(&file, bytes, 0)?;
    if cut {
        file.set_len(bytes.len() as u64)?;
    }
    file.sync_data()
}

/// Removes a file; none is fine.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match sys::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Removes a file durably; none is fine.
pub fn remove_durable(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    cut::spend()?;
    remove_if_there(path)?;
    sync_folder_of(path)
}

/// Removes whatever has this name: a file, a link (not what it leads to), a folder with all that is in it.
pub fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => sys::remove_folder(path),
        _ => remove_if_there(path),
    }
}

/// Gives what is in the way of a file or folder of ours the name `<name>.damaged`: seen by people, in nobody's way.
pub fn set_aside(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".damaged");
    let aside = path.with_file_name(name);
    remove_all(&aside)?;
    rename(path, &aside)
}

/// Gives a file that is about to be replaced the second name `<name>.damaged`, for people to look at. It keeps its own:
/// one that is missing for a moment could be missing after a power cut. Where links cannot be made, there is none.
pub fn link_aside(path: &Path) {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".damaged");
    let aside = path.with_file_name(name);
    let _ = remove_all(&aside).and_then(|()| fs::hard_link(path, aside));
}

/// Makes a folder and those above it, private to the owner; one that is there keeps its mode.
pub fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if fs::symlink_metadata(path).is_ok() {
        set_aside(path)?;
    }
    sys::create_folder(path)?;
    sync_folder_of(path)
}

/// What the file system of a folder allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this user can still write.
    pub free: u64,
    /// Programs there may be executed (not mounted `noexec`).
    pub exec: bool,
    /// Mounted read-only.
    pub read_only: bool,
    /// Files that can still be made; `None` where the file system does not count them.
    pub files: Option<u64>,
}

/// A power cut after so many changes of this thread, for tests: each later one fails, and has changed nothing.
#[cfg(test)]
pub mod cut {
    use std::cell::Cell;
    use std::io;

    thread_local!(static LEFT: Cell<usize> = const { Cell::new(usize::MAX) });

    /// Cuts after this many changes; `usize::MAX`: not at all.
    pub fn after(changes: usize) {
        LEFT.set(changes);
    }

    /// Whether the power is off by now.
    pub fn is_cut() -> bool {
        LEFT.get() == 0
    }

    pub(in crate::io) fn spend() -> io::Result<()> {
        match LEFT.get() {
            0 => Err(io::Error::other("the power is cut")),
            usize::MAX => Ok(()),
            left => {
                LEFT.set(left - 1);
                Ok(())
            }
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_durable_file_is_whole_and_has_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_durable(&path, b"one", PUBLIC).unwrap();
        fs::write(temp_name(&path), b"left by a crash").unwrap();
        write_durable(&path, b"two", PRIVATE).unwrap();
        assert_eq!(read_limited(&path, 3).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert!(!temp_name(&path).exists());
        assert!(read_limited(&path, 2).is_err() && read_limited(&dir.path().join("b"), 2).unwrap().is_none());
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("a"), dir.path().join("victim"));
        fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, temp_name(&path)).unwrap();
        write_durable(&path, b"new", PUBLIC).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn overwriting_keeps_the_length_and_needs_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(overwrite(&path, b"x", false).is_err());
        fs::write(&path, b"12345").unwrap();
        overwrite(&path, b"ab", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ab345");
        overwrite(&path, b"cd", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"cd");
        assert!(room(dir.path()).unwrap().free > 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn noexec_is_what_the_mount_table_says() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let last: std::collections::BTreeMap<&str, bool> = mounts
            .lines()
            .filter_map(|line| {
                let mut words = line.split(' ').skip(1);
                let (at, _, options) = (words.next()?, words.next(), words.next()?);
                Some((at, options.split(',').any(|o| o == "noexec")))
            })
            .collect();
        for (at, noexec) in last {
            if let Ok(room) = room(Path::new(at)) {
                assert_eq!(room.exec, !noexec, "{at}");
            }
        }
    }
}
