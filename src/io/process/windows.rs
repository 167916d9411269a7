//! On Windows: a launcher that stays, and the program as its child in a job that ends with it.
//!
//! | file | what |
//! |---|---|
//! | [`child`] | bounded children: self-test, hook |
//! | [`launch`] | the launcher's side: start, watch, kill |
//! | [`program`] | the program's side: life, wake, stop record |

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use windows_sys::Win32::Foundation as win;
use windows_sys::Win32::System::SystemInformation::{ComputerNamePhysicalDnsHostname, GetComputerNameExW};
use windows_sys::Win32::System::Threading::{EVENT_MODIFY_STATE, OpenEventW, SetEvent, Sleep, WaitForSingleObject};

use super::{ChildEnd, Ended, OUTPUT_MAX, READ_SLICE};
use crate::io::fs::wide;

mod child;
mod launch;
mod program;

pub use child::run_child;
pub use launch::{exec, install_stop, request_stop, stopping};
pub use program::{StopsHeld, alarm, drain_wake, install_signals, prepare_stop, wake_pipe};

/// An event that is signalled when somebody wakes this process.
pub type WakeFd = isize;

/// What the launcher tells the program: three handles, `end,wake,life`, in decimal. Frozen, see FROZEN.md.
const ENV_LAUNCHER: &str = "VMETRIC_LAUNCHER";
/// Process id of the launcher.
const ENV_SUPERVISOR: &str = "VMETRIC_SUPERVISOR";

/// What [`sleep`] looks at besides the time: a program's wake event, a launcher's stop event.
static WATCHED: AtomicIsize = AtomicIsize::new(0);

/// The event's name for commands of other processes, in any session.
fn event_name(launcher: u32, what: &str) -> Vec<u16> {
    wide(format!("Global\\vmetric-agent-{launcher}-{what}"))
}

fn signal(pid: u32, what: &str) -> bool {
    let name = event_name(pid, what);
    #[expect(unsafe_code, reason = "the name ends with zero; the handle is closed here")]
    unsafe {
        let event = OpenEventW(EVENT_MODIFY_STATE, 0, name.as_ptr());
        !event.is_null() && {
            let done = SetEvent(event) != 0;
            win::CloseHandle(event);
            done
        }
    }
}

/// Wakes the agent whose launcher has that process id. False when there is none, or it is not ours to wake.
pub fn wake(pid: u32) -> bool {
    signal(pid, "wake")
}

/// Asks the program of that launcher to end; the launcher starts what the marks say.
pub fn stop(pid: u32) {
    signal(pid, "end");
}

/// Waits until somebody wakes this process (or, in the launcher, stops it), at most `time`. True when woken.
pub fn sleep(time: Duration) -> bool {
    let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX - 1);
    #[expect(unsafe_code, reason = "waits for an event of ours, or for the time alone")]
    unsafe {
        match WATCHED.load(Ordering::SeqCst) {
            0 => Sleep(millis),
            event if WaitForSingleObject(event as win::HANDLE, millis) == win::WAIT_OBJECT_0 => return drain_wake(),
            _ => {}
        }
    }
    false
}

/// Nothing to do: the launcher kills a program that hangs.
pub fn make_alarm_deadly() {}

/// Nothing to do: a stop is an event, which waits until the program has prepared its record.
pub fn hold_signals() {}

/// Nothing to do: the job ends with the launcher.
pub fn die_with_parent(_: u32) {}

/// The process that holds `run.lock` for this one, and that commands wake: its launcher.
pub fn agent_id() -> u32 {
    variable(ENV_SUPERVISOR).and_then(|pid| pid.parse().ok()).unwrap_or_else(std::process::id)
}

#[expect(clippy::disallowed_methods, reason = "the launcher passes process ids and handles on in the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The lock's holder is the launcher, whatever its child executes: the marks tell.
pub fn program_of(_: u32) -> Option<PathBuf> {
    None
}

/// The running program's own file.
pub fn own_file() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The name under which the running program's file lies.
pub fn own_name() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The device's name, for people.
pub fn hostname() -> String {
    let mut name = [0u16; 256];
    let mut length = name.len() as u32;
    #[expect(unsafe_code, reason = "the system writes at most as many characters as told")]
    let ok = unsafe { GetComputerNameExW(ComputerNamePhysicalDnsHostname, name.as_mut_ptr(), &mut length) };
    if ok != 0 { String::from_utf16_lossy(&name[..length as usize]) } else { String::new() }
}

/// The system lacks something for the moment, or somebody holds the program's file, as virus scanners do with a new one; the
/// program that was to be started is not at fault.
pub fn is_short(error: &io::Error) -> bool {
    let short = [
        win::ERROR_NOT_ENOUGH_MEMORY,
        win::ERROR_OUTOFMEMORY,
        win::ERROR_NO_SYSTEM_RESOURCES,
        win::ERROR_COMMITMENT_LIMIT,
        win::ERROR_SHARING_VIOLATION,
        win::ERROR_LOCK_VIOLATION,
    ];
    error.raw_os_error().is_some_and(|code| short.contains(&(code as u32)))
}

/// The device lacks something for the moment, or a disk does not answer; the file is not at fault.
pub fn is_lack(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy)
        || is_short(e)
        || matches!(
            e.raw_os_error().map(|code| code as u32),
            Some(win::ERROR_IO_DEVICE | win::ERROR_TOO_MANY_OPEN_FILES | win::ERROR_NOT_READY)
        )
}

/// There are no signals: who ends a process from outside also chooses its exit code.
pub fn from_outside(_: i32) -> bool {
    false
}
