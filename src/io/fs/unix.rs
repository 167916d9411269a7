//! On Unix: modes, fsync of the folder, `statvfs`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::PRIVATE;

pub use std::fs::rename;

pub(super) use std::fs::{remove_dir_all as remove_folder, remove_file};

/// Makes a file that must not be there yet.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Opens a file that is filled over several tries, private to the owner until it is whole; made if it is not there.
pub fn open_part(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(path)
}

pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Reads at a place without moving the file's own.
pub fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(bytes, at)
}

pub(super) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)
}

/// What tells this file from every other one on this system.
pub fn file_id(path: &Path) -> io::Result<[u64; 2]> {
    fs::metadata(path).map(|m| [m.dev(), m.ino()])
}

/// Sets an open file's mode, whatever the umask was.
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Makes a rename, creation or removal in the folder of `path` durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Opens a file for reading if it is a plain one: a pipe in its place would be waited for, a device would not end.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "is no plain file")),
    }
}

#[cfg(target_os = "macos")]
pub use crate::io::darwin::room;

/// Asks the file system of `path`.
#[cfg(not(target_os = "macos"))]
pub fn room(path: &Path) -> io::Result<super::Room> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    #[expect(unsafe_code, reason = "statvfs reads a C string and fills one struct, both ours")]
    let stat = unsafe {
        if libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "the field types differ between platforms")]
    let free = (stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let exec = stat.f_flag & libc::ST_NOEXEC == 0;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let exec = true;
    #[allow(clippy::unnecessary_cast, reason = "the field types differ between platforms")]
    let files = (stat.f_files > 0).then_some(stat.f_favail as u64);
    Ok(super::Room { free, exec, read_only: stat.f_flag & libc::ST_RDONLY != 0, files })
}
