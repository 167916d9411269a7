//! Processes: one program after another, the liveness limit, the stop record, waking, bounded children.
//!
//! **Stopping at any moment.** A stop is answered by writing one record that the main program has prepared (the marks with
//! `ended: stopped`), syncing it and leaving. So a stop needs no turn of the main loop: it interrupts a hash, a download, a
//! child, a sleep alike, and the next start knows that it was a stop.
//!
//! | | Unix | Windows |
//! |---|---|---|
//! | the next program | `exec`: no second process | a child in a kill-on-close job; the launcher stays and watches it |
//! | liveness limit | `alarm(2)`, which survives `exec` | a deadline in shared memory that the launcher looks at |
//! | stop | SIGTERM, SIGINT | an event; the service manager, Ctrl-C and a shutdown set it |
//! | wake | SIGHUP | an event, by name |

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::*;

/// What tells this machine from every other, where the system has a call for it. Linux has files instead; on Windows copies
/// of one disk have the same, so nothing is said.
pub fn machine_id() -> Option<String> {
    #[cfg(target_os = "macos")]
    return super::darwin::machine_id();
    #[cfg(not(target_os = "macos"))]
    None
}

/// How a program ended that ran in this one's place; on Unix it never comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Exited(i32),
    /// It showed no sign of life for the liveness limit and was killed.
    Hung,
}

/// How a child ended within its time.
#[derive(Debug)]
pub enum ChildEnd {
    /// Exit code and the last lines it wrote (at most [`OUTPUT_MAX`] bytes).
    Exited(i32, String),
    /// Killed by this signal.
    Signal(i32, String),
    /// Did not end in time and was killed.
    TimedOut,
    /// Could not be started.
    NotStarted(io::Error),
}

/// Most output of a child that is kept, bytes: its last line goes into a report.
pub const OUTPUT_MAX: usize = 2048;

/// How long a wait for a child's output may last before its end and the alarm are looked at.
const READ_SLICE: Duration = Duration::from_millis(500);

/// Runs a program with a time limit, in a process group of its own, with its output read. A stop of this process stops it.
pub fn run_limited(program: &Path, args: &[&str], limit: Duration) -> ChildEnd {
    let mut command = Command::new(program);
    command.args(args).stderr(Stdio::null());
    run_child(command, limit, || {})
}
