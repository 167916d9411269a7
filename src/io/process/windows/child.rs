//! Bounded children: the staged file's self-test, the operator's check.

use std::io::{self, PipeReader, Read};
use std::os::windows::io::AsRawHandle;
use std::process::{Command, Stdio};
use std::time::Duration;

use windows_sys::Win32::System::Pipes::PeekNamedPipe;
use windows_sys::Win32::System::Threading::WaitForSingleObject;

use super::launch::Job;
use super::{ChildEnd, ENV_LAUNCHER, OUTPUT_MAX, READ_SLICE};
use crate::io::clock;

/// Between two looks at a child's output: a pipe cannot be waited for together with a process.
const LOOK: Duration = Duration::from_millis(20);
/// Pieces read at once: what a pipe may hold, and more.
const PIECES_MAX: usize = 256;

/// Runs a prepared command with a time limit, in a job of its own: whatever it leaves behind is killed at its end. `tick` is
/// called while it runs. What it writes is kept, both streams. A stop of this process ends it, too.
pub fn run_child(mut command: Command, limit: Duration, tick: fn()) -> ChildEnd {
    let started = io::pipe().and_then(|(output, input)| {
        let job = Job::new()?;
        // The launcher's handles are not for it, and their numbers mean something else there.
        command.env_remove(ENV_LAUNCHER).stdin(Stdio::null()).stderr(input.try_clone()?).stdout(input);
        let child = command.spawn();
        // The command holds our copies of the writing end.
        drop(command);
        let child = child?;
        // Its first instructions run outside; what it could start there is still in the launcher's job.
        job.add(child.as_raw_handle())?;
        Ok((output, job, child))
    });
    let (output, job, mut child) = match started {
        Ok(started) => started,
        Err(e) => return ChildEnd::NotStarted(e),
    };
    let end = clock::awake() + limit;
    let (mut kept, mut ticked) = (Vec::new(), Duration::ZERO);
    let status = loop {
        if clock::awake().saturating_sub(ticked) >= READ_SLICE {
            tick();
            ticked = clock::awake();
        }
        let left = LOOK.min(end.saturating_sub(clock::awake()));
        #[expect(unsafe_code, reason = "waits for a process of ours")]
        unsafe {
            WaitForSingleObject(child.as_raw_handle(), left.as_millis() as u32);
        }
        let status = child.try_wait().ok().flatten();
        read_some(&output, &mut kept);
        if status.is_some() || clock::awake() >= end {
            break status;
        }
    };
    job.kill();
    let _ = child.wait();
    let said = String::from_utf8_lossy(&kept).trim().to_string();
    match status {
        None => ChildEnd::TimedOut,
        Some(status) => ChildEnd::Exited(status.code().unwrap_or(-1), said),
    }
}

/// Reads what there is; keeps the last [`OUTPUT_MAX`] bytes.
fn read_some(mut out: &PipeReader, kept: &mut Vec<u8>) {
    let mut buf = [0u8; 512];
    for _ in 0..PIECES_MAX {
        let mut there = 0;
        use std::ptr::null_mut as none;
        #[expect(unsafe_code, reason = "writes one number of ours")]
        let ok = unsafe { PeekNamedPipe(out.as_raw_handle(), none(), 0, none(), &mut there, none()) };
        if ok == 0 || there == 0 {
            return;
        }
        match out.read(&mut buf) {
            Ok(n) if n > 0 => kept.extend_from_slice(&buf[..n]),
            _ => return,
        }
        let surplus = kept.len().saturating_sub(OUTPUT_MAX);
        kept.drain(..surplus);
    }
}
