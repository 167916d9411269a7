//! What the demo, the crash matrix and the beds have in common: two processes, of which the outer one only guards, and waiting.
//!
//! The inner process, with everything that it starts, is one process group. The guard kills it at the end, whatever the end is:
//! done, failed, Ctrl-C, a panic.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use vmetric::io::{clock, signals};

/// Runs the inner process and sees to it that nothing of it stays. Its exit code; `None`: something ended it.
///
/// # Errors
/// It cannot be started.
pub fn guard(work: &Path, mut inner: Command) -> Result<Option<u8>, String> {
    std::fs::create_dir_all(work).map_err(|e| format!("{}: {e}", work.display()))?;
    // The pipe tells the inner process when the guard itself is killed.
    let started = inner.stdin(Stdio::piped()).process_group(0).spawn();
    let mut child = started.map_err(|e| format!("{}: {e}", inner.get_program().to_string_lossy()))?;
    let group = child.id();
    if let Ok(mut stop) = signals::stop_signals() {
        thread::spawn(move || {
            let _ = stop.read(&mut [0]);
            end_group(group);
        });
    }
    let _pipe = child.stdin.take();
    let ended = child.wait();
    end_group(group);
    Ok(ended.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok()))
}

/// In the inner process: what is done when the guard is no more.
pub fn without_guard(end: fn()) {
    thread::spawn(move || {
        // The guard never writes: the end of the pipe is its end.
        let _ = std::io::stdin().read(&mut [0]);
        end();
    });
}

/// Puts a copy of a program there. Another process writes it: a descriptor of this one that is open for writing would be inherited by
/// whatever another thread starts at that moment, and the copy could not be executed as long ("Text file busy").
///
/// # Errors
/// Names the copy.
pub fn place_program(from: &Path, to: &Path) -> Result<(), String> {
    let done = Command::new("cp").arg("-p").arg("--").args([from, to]).stdin(Stdio::null()).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cp {} {}: {status}", from.display(), to.display())),
        Err(e) => Err(format!("cp {}: {e}", to.display())),
    }
}

/// The work folder is of no use any more, unless somebody wants to look.
pub fn leave(work: &Path, keep: bool) {
    match keep {
        true => eprintln!("kept: {}", work.display()),
        // Who was killed may finish one last call: what it leaves is removed, too.
        false => drop(wait(10, || {
            let gone = std::fs::remove_dir_all(work);
            (gone.is_ok() || !work.exists()).then_some(())
        })),
    }
}

/// SIGKILL for a whole process group.
pub fn end_group(leader: u32) {
    if let Ok(leader) = i32::try_from(leader)
        && leader > 1
    {
        #[expect(unsafe_code, reason = "kill takes two numbers; the group is our own")]
        unsafe {
            libc::kill(-leader, libc::SIGKILL);
        }
    }
}

/// Sends a signal to one process. False: there is no such process.
pub fn signal(pid: u32, number: i32) -> bool {
    #[expect(unsafe_code, reason = "kill takes two numbers")]
    unsafe {
        i32::try_from(pid).is_ok_and(|pid| pid > 1 && libc::kill(pid, number) == 0)
    }
}

/// Waits.
pub fn pause(ms: u64) {
    vmetric::io::process::sleep(Duration::from_millis(ms));
}

/// Asks again and again until something is found, at most so many seconds.
pub fn wait<T>(seconds: u64, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let end = clock::monotonic() + Duration::from_secs(seconds);
    let mut ms = 10;
    loop {
        if let Some(found) = found() {
            return Some(found);
        }
        if clock::monotonic() >= end {
            return None;
        }
        // Quick answers at first; no busy loop of look-ups when it takes long.
        pause(ms);
        ms = (ms * 3 / 2).min(150);
    }
}
