//! What macOS tells in its own way. Cross-compiled and linked here, not run: there is no Mac in the tests, so each piece is
//! one documented call whose failure means "not known", and what follows from that is decided where Linux decides it too.
//!
//! Durability needs nothing here: `File::sync_all` and `sync_data` are `F_FULLFSYNC` on macOS, folders included. Plain
//! `fsync` stops at the drive's cache there, so nothing of ours may call it (`process::unix::sync`).

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock::read;
use super::fs::Room;

/// A UUID as text is 36 bytes; the kernel may lengthen what it says.
const TEXT_MAX: usize = 128;
/// Nothing here waits for a daemon: the kernel knows the host's UUID, or it does not.
const UUID_WAIT: libc::timespec = libc::timespec { tv_sec: 1, tv_nsec: 0 };
/// Not in the libc crate: `sys/mount.h`.
const MNT_RDONLY: u32 = 0x1;
const MNT_NOEXEC: u32 = 0x4;

/// Since boot, sleep included. `CLOCK_MONOTONIC` would be wrong: macOS computes it from the wall clock and the boot time,
/// so it has steps when the clock is set. This one is the hardware's counter, which goes on while the system sleeps.
pub fn since_boot() -> Duration {
    read(libc::CLOCK_MONOTONIC_RAW)
}

/// Since boot without sleep.
pub fn awake() -> Duration {
    read(libc::CLOCK_UPTIME_RAW)
}

/// A UUID that the kernel makes at each boot. `kern.boottime` moves when the clock is set, so it is no evidence of a boot.
pub fn boot_id() -> Option<String> {
    text(c"kern.bootsessionuuid")
}

/// The device's name, for people.
pub fn hostname() -> Option<String> {
    text(c"kern.hostname")
}

fn text(name: &CStr) -> Option<String> {
    let mut bytes = [0u8; TEXT_MAX];
    let mut size = bytes.len();
    #[expect(unsafe_code, reason = "sysctl reads a C string and writes at most `size` bytes into our array")]
    let rc = unsafe { libc::sysctlbyname(name.as_ptr(), bytes.as_mut_ptr().cast(), &mut size, std::ptr::null_mut(), 0) };
    if rc != 0 {
        return None;
    }
    let said = String::from_utf8_lossy(&bytes[..size.min(TEXT_MAX)]);
    Some(said.trim_end_matches('\0').trim().to_string()).filter(|t| !t.is_empty())
}

/// What tells this Mac from every other: the hardware UUID. The serial number would take IOKit, a framework that the agent
/// links nothing else of.
pub fn machine_id() -> Option<String> {
    let mut id = [0u8; 16];
    #[expect(unsafe_code, reason = "gethostuuid writes 16 bytes into our array")]
    let rc = unsafe { libc::gethostuuid(id.as_mut_ptr(), &UUID_WAIT) };
    (rc == 0 && id != [0; 16]).then(|| crate::core::hex::encode(&id))
}

/// The file that a process executes.
pub fn program_of(pid: u32) -> Option<PathBuf> {
    let mut path = vec![0u8; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
    #[expect(unsafe_code, reason = "proc_pidpath writes at most as many bytes as the vector has")]
    let length = unsafe { libc::proc_pidpath(i32::try_from(pid).ok()?, path.as_mut_ptr().cast(), path.len() as u32) };
    let length = usize::try_from(length).ok().filter(|n| (1..=path.len()).contains(n))?;
    Some(OsStr::from_bytes(&path[..length]).into())
}

/// The process runs a file of the same name as this one. macOS names no holder of a `flock`; this keeps commands from
/// signalling a stranger that was given the number of an agent of before.
pub fn is_one_of_us(pid: u32) -> bool {
    let own = std::env::current_exe().ok();
    let name = |path: &PathBuf| path.file_name().map(OsStr::to_os_string);
    program_of(pid).as_ref().and_then(name).is_some_and(|theirs| own.as_ref().and_then(name) == Some(theirs))
}

/// `statfs`, because `statvfs` of macOS counts blocks in 32 bits and does not tell of `noexec`.
pub fn room(path: &Path) -> io::Result<Room> {
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    #[expect(unsafe_code, reason = "statfs reads a C string and fills one struct, both ours")]
    let stat = unsafe {
        if libc::statfs(name.as_ptr(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok(Room {
        free: stat.f_bavail.saturating_mul(u64::from(stat.f_bsize)),
        exec: stat.f_flags & MNT_NOEXEC == 0,
        read_only: stat.f_flags & MNT_RDONLY != 0,
        files: (stat.f_files > 0).then_some(stat.f_ffree),
    })
}
