//! Whom this process acts as.

use std::io;
#[cfg(unix)]
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// This process may do what only root may.
#[cfg(unix)]
pub fn is_root() -> bool {
    #[expect(unsafe_code, reason = "geteuid takes nothing and returns a number")]
    unsafe {
        libc::geteuid() == 0
    }
}

/// Root becomes the owner of this folder, for good; anyone else stays who they are. A state folder that belongs to a service's
/// user is only ever written by that user, whoever gives a command: what root would make in it, the service could not read,
/// and what the user put there could lead root elsewhere. Service managers without a notion of users need no other tool.
///
/// # Errors
/// The kernel refuses; then nothing may be done in that folder.
#[cfg(unix)]
pub fn become_owner_of(folder: &Path) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    let meta = match folder.metadata() {
        Ok(meta) => meta,
        // Who makes it owns it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if meta.uid() == 0 {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "the calls take numbers and an empty list")]
    let done = unsafe {
        // The groups first: afterwards this process may not any more.
        libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(meta.gid()) == 0 && libc::setuid(meta.uid()) == 0
    };
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "prctl takes numbers; no program started from here gets rights by its file's mode")]
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// On Windows the service's account owns what it makes, and administrators may read it.
#[cfg(windows)]
pub fn become_owner_of(_: &Path) -> io::Result<()> {
    Ok(())
}

/// User and group number of a name that no file has, but the system knows.
#[cfg(unix)]
pub fn number(name: &str) -> Option<(u32, u32)> {
    let name = std::ffi::CString::new(name).ok()?;
    #[cfg(target_os = "macos")]
    #[expect(unsafe_code, reason = "one thread; the entry is read before anything else could replace it")]
    unsafe {
        let entry = libc::getpwnam(name.as_ptr()).as_ref()?;
        Some((entry.pw_uid, entry.pw_gid))
    }
    #[cfg(not(target_os = "macos"))]
    {
        // Static programs cannot ask name services; `/etc/passwd` is what there is.
        let _ = name;
        None
    }
}
