//! On Unix: `exec`, `alarm(2)`, signals, a wake pipe.
//!
//! SIGTERM and SIGINT are handled with async-signal-safe calls only: the prepared record is written and synced, and the
//! process ends.

use std::ffi::{CString, NulError, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};
use std::time::Duration;

use super::{ChildEnd, Ended, OUTPUT_MAX, READ_SLICE};
use crate::io::clock;
use crate::io::fs::read_limited;

/// Something that becomes readable when somebody wakes this process.
pub type WakeFd = RawFd;

/// Re-arms (or, with 0, ends) the alarm that survives exec and kills a binary that hangs.
pub fn alarm(seconds: u32) {
    #[expect(unsafe_code, reason = "alarm takes a number and touches no memory")]
    unsafe {
        libc::alarm(seconds);
    }
}

/// SIGALRM kills again, whatever was inherited: a parent may have ignored or blocked it.
pub fn make_alarm_deadly() {
    #[expect(unsafe_code, reason = "sets a default disposition and unblocks one signal; the set is ours")]
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGALRM);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// What the stop handler writes, and where.
struct StopRecord {
    file: File,
    bytes: Vec<u8>,
}

static STOP: AtomicPtr<StopRecord> = AtomicPtr::new(std::ptr::null_mut());
static STOPPING: AtomicBool = AtomicBool::new(false);
static STOP_CHILD: AtomicI32 = AtomicI32::new(0);
static WAKE_READ: AtomicI32 = AtomicI32::new(-1);
static WAKE_WRITE: AtomicI32 = AtomicI32::new(-1);

#[expect(unsafe_code, reason = "async-signal-safe calls only: kill, pwrite, fsync, _exit; the record is leaked until replaced")]
extern "C" fn on_stop(signal: libc::c_int) {
    STOPPING.store(true, Ordering::SeqCst);
    let child = STOP_CHILD.load(Ordering::SeqCst);
    unsafe {
        if child > 0 {
            // A supervised child stops itself, with its own record; a hook or self-test dies with us.
            libc::kill(child, signal);
            if STOP.load(Ordering::SeqCst).is_null() {
                return;
            }
        }
        if let Some(record) = STOP.load(Ordering::SeqCst).as_ref() {
            libc::pwrite(record.file.as_raw_fd(), record.bytes.as_ptr().cast(), record.bytes.len(), 0);
            sync(record.file.as_raw_fd());
        }
        libc::_exit(0);
    }
}

/// `File::sync_all` without what is not async-signal-safe. On macOS `fsync` leaves the bytes in the drive's cache.
fn sync(fd: libc::c_int) {
    #[expect(unsafe_code, reason = "takes numbers; a failure has nobody left to be told")]
    unsafe {
        #[cfg(target_os = "macos")]
        libc::fcntl(fd, libc::F_FULLFSYNC);
        #[cfg(not(target_os = "macos"))]
        libc::fsync(fd);
    }
}

#[expect(unsafe_code, reason = "async-signal-safe: write of one byte to our own pipe")]
extern "C" fn on_wake(_: libc::c_int) {
    unsafe {
        libc::write(WAKE_WRITE.load(Ordering::SeqCst), b"!".as_ptr().cast(), 1);
    }
}

/// Makes the pipe that [`install_signals`] wakes through; returns its read end.
pub fn wake_pipe() -> io::Result<WakeFd> {
    let mut fds = [-1; 2];
    #[expect(unsafe_code, reason = "pipe fills two numbers; flags are set on descriptors we own")]
    unsafe {
        if libc::pipe(fds.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        for fd in fds {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
        }
    }
    WAKE_READ.store(fds[0], Ordering::SeqCst);
    WAKE_WRITE.store(fds[1], Ordering::SeqCst);
    Ok(fds[0])
}

/// Installs the handlers: SIGTERM and SIGINT stop, SIGHUP wakes. What [`hold_signals`] held back comes now.
pub fn install_signals() {
    handle(libc::SIGHUP, on_wake);
    install_stop();
}

/// SIGHUP only wakes: for a program that takes its stops in another way.
#[cfg(feature = "director")]
pub fn install_wake() {
    handle(libc::SIGHUP, on_wake);
}

/// Ends the wait of this process's engine, as a SIGHUP does.
#[cfg(feature = "director")]
pub fn wake_self() {
    on_wake(0);
}

/// Holds stops and wakes back from the first counted start on, also across exec, until the program that runs in the end
/// has prepared its stop record: between, they would kill it, and that would count as a crash.
pub fn hold_signals() {
    #[expect(unsafe_code, reason = "blocks three signals; the set is ours")]
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// SIGTERM and SIGINT only: for the supervising parent.
pub fn install_stop() {
    handle(libc::SIGTERM, on_stop);
    handle(libc::SIGINT, on_stop);
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    #[expect(unsafe_code, reason = "installs a handler that makes async-signal-safe calls only")]
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, std::ptr::null_mut());
        // exec keeps the mask of whoever started us.
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// What a stop writes from now on: `bytes` at the start of `path`, in place.
pub fn prepare_stop(path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let new = Box::into_raw(Box::new(StopRecord { file, bytes }));
    drop_record(STOP.swap(new, Ordering::SeqCst));
    Ok(())
}

fn drop_record(old: *mut StopRecord) {
    if !old.is_null() {
        // One thread, and the handler never returns: nobody can be using the old record.
        #[expect(unsafe_code, reason = "the pointer came from Box::into_raw and was swapped out")]
        drop(unsafe { Box::from_raw(old) });
    }
}

/// Stops are held back while this lives: the marks and the prepared record change together.
pub struct StopsHeld(libc::sigset_t);

impl StopsHeld {
    /// Holds SIGTERM and SIGINT back until dropped.
    #[expect(clippy::new_without_default, reason = "it has an effect; a default would hide it")]
    pub fn new() -> StopsHeld {
        #[expect(unsafe_code, reason = "blocks two signals; the sets are ours")]
        unsafe {
            let (mut set, mut old) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::sigprocmask(libc::SIG_BLOCK, &set, &mut old);
            StopsHeld(old)
        }
    }
}

impl Drop for StopsHeld {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "restores the mask that `new` saved")]
        unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut());
        }
    }
}

/// Waits until somebody wakes this process (SIGHUP), at most `time`. True when woken.
pub fn sleep(time: Duration) -> bool {
    let fd = WAKE_READ.load(Ordering::SeqCst);
    let millis = time.as_millis().min(i32::MAX as u128) as i32;
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    #[expect(unsafe_code, reason = "poll looks at one struct of ours; a negative descriptor is ignored by it")]
    let rc = unsafe { libc::poll(&mut poll, 1, millis) };
    rc != 0 && drain_wake()
}

/// Empties the wake pipe; true when something was in it.
pub fn drain_wake() -> bool {
    let mut buf = [0u8; 64];
    let mut any = false;
    #[expect(unsafe_code, reason = "reads into our buffer from our non-blocking pipe")]
    while unsafe { libc::read(WAKE_READ.load(Ordering::SeqCst), buf.as_mut_ptr().cast(), buf.len()) } > 0 {
        any = true;
    }
    any
}

/// Wakes the agent with that process id. False when there is no such process.
pub fn wake(pid: u32) -> bool {
    #[expect(unsafe_code, reason = "kill takes two numbers")]
    unsafe {
        i32::try_from(pid).is_ok_and(|pid| pid > 1 && libc::kill(pid, libc::SIGHUP) == 0)
    }
}

#[cfg(target_os = "macos")]
pub use crate::io::darwin::program_of;

/// The file that a process executes, where the system tells.
#[cfg(not(target_os = "macos"))]
pub fn program_of(pid: u32) -> Option<std::path::PathBuf> {
    let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // A file whose name has been taken by another one since.
    let text = link.to_str()?;
    Some(text.strip_suffix(" (deleted)").unwrap_or(text).into())
}

/// The process that holds `run.lock` for this one, and that commands wake: this one.
pub fn agent_id() -> u32 {
    std::process::id()
}

/// The running program's own file, even if its name has been taken by another since.
pub fn own_file() -> io::Result<PathBuf> {
    match cfg!(target_os = "linux") {
        true => Ok("/proc/self/exe".into()),
        false => std::env::current_exe(),
    }
}

/// The name under which the running program's file lies now, without links.
pub fn own_name() -> io::Result<PathBuf> {
    own_file().and_then(std::fs::canonicalize)
}

/// The device's name, for people.
pub fn hostname() -> String {
    #[cfg(target_os = "macos")]
    if let Some(name) = crate::io::darwin::hostname() {
        return name;
    }
    let name = read_limited(Path::new("/proc/sys/kernel/hostname"), 256).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&name).trim().to_string()
}

/// The system lacks something for the moment; the program that was to be started is not at fault.
pub fn is_short(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ETXTBSY))
}

/// The device lacks something for the moment, or a disk does not answer; the file is not at fault.
pub fn is_lack(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock | io::ErrorKind::ExecutableFileBusy)
        || matches!(e.raw_os_error(), Some(libc::ENFILE | libc::EMFILE | libc::EIO))
}

/// A signal that somebody else sent: the kernel when memory ran out, or a person. A program does not do it to itself.
pub fn from_outside(signal: i32) -> bool {
    matches!(signal, libc::SIGKILL | libc::SIGTERM)
}

/// Asks a process to stop.
pub fn stop(pid: u32) {
    #[expect(unsafe_code, reason = "kill takes two numbers")]
    unsafe {
        if let Ok(pid) = i32::try_from(pid)
            && pid > 1
        {
            libc::kill(pid, libc::SIGTERM);
        }
    }
}

/// Dies with its parent (Linux): a supervised program never lives on alone.
pub fn die_with_parent(parent: u32) {
    #[cfg(target_os = "linux")]
    {
        #[expect(unsafe_code, reason = "prctl and getppid take and return numbers")]
        let orphan = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            libc::getppid() as u32 != parent
        };
        if orphan {
            std::process::exit(1);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
}

/// Runs a prepared command with a time limit, in a process group of its own. Whatever it leaves behind in its process group is killed at its end. `tick` is called
/// while it runs. What it writes to standard output is kept; standard error too, unless the command says otherwise.
pub fn run_child(mut command: Command, limit: Duration, tick: fn()) -> ChildEnd {
    let (output, input) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(e) => return ChildEnd::NotStarted(e),
    };
    command.stdin(Stdio::null()).stdout(input).process_group(0);
    let spawned = command.spawn();
    // The command holds our copy of the writing end.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => return ChildEnd::NotStarted(e),
    };
    let group = -(child.id() as i32);
    STOP_CHILD.store(group, Ordering::SeqCst);
    let end = clock::monotonic() + limit;
    let (mut kept, mut open) = (Vec::new(), true);
    let status = loop {
        tick();
        let status = child.try_wait().ok().flatten();
        // A child of the child may hold the pipe open; the end of the program that was asked is what counts.
        open = open
            && read_some(
                &output,
                if status.is_some() { Duration::ZERO } else { READ_SLICE.min(end.saturating_sub(clock::monotonic())) },
                &mut kept,
            );
        if status.is_some() || clock::monotonic() >= end {
            break status;
        }
        if !open {
            sleep(Duration::from_millis(5));
        }
    };
    #[expect(unsafe_code, reason = "kill takes two numbers; the group is our child's own")]
    unsafe {
        libc::kill(group, libc::SIGKILL);
    }
    let _ = child.wait();
    STOP_CHILD.store(0, Ordering::SeqCst);
    let said = String::from_utf8_lossy(&kept).trim().to_string();
    match status {
        None => ChildEnd::TimedOut,
        Some(status) => match status.signal() {
            Some(signal) => ChildEnd::Signal(signal, said),
            None => ChildEnd::Exited(status.code().unwrap_or(-1), said),
        },
    }
}

/// Pieces read at once of what a child wrote before it ended: a pipe holds 64 KiB.
const PIECES_MAX: usize = 256;

/// Reads what there is, waiting for the first of it; keeps the last [`OUTPUT_MAX`] bytes. False: the stream has ended.
fn read_some(mut out: &io::PipeReader, wait: Duration, kept: &mut Vec<u8>) -> bool {
    let mut buf = [0u8; 512];
    let mut wait = wait.as_millis().min(i32::MAX as u128) as i32;
    for _ in 0..PIECES_MAX {
        let mut poll = libc::pollfd { fd: out.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        #[expect(unsafe_code, reason = "poll looks at one struct of ours")]
        let ready = unsafe { libc::poll(&mut poll, 1, wait) };
        if ready <= 0 {
            return true;
        }
        match out.read(&mut buf) {
            Ok(0) => return false,
            Ok(n) => kept.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
        let surplus = kept.len().saturating_sub(OUTPUT_MAX);
        kept.drain(..surplus);
        wait = 0;
    }
    true
}

/// True once a stop was passed on to a supervised child.
pub fn stopping() -> bool {
    STOPPING.load(Ordering::SeqCst)
}

/// Lets another program take this one's place. Returns only when that fails.
///
/// `execve` itself: `execvp`, which `std` uses, hands a file that is no program to a shell, which ends at once; the
/// launcher would never hear of it. (That SIGPIPE stays ignored is what every Rust program wants anyway.)
pub fn exec(program: &Path, args: &[String], env: &[(&str, String)], unset: &[&str]) -> io::Result<Ended> {
    let kept = std::env::vars_os().filter(|(k, _)| !unset.iter().any(|n| k == n) && !env.iter().any(|(n, _)| k == n));
    let given = env.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    let pairs = kept.chain(given).map(|(mut pair, value)| {
        pair.push("=");
        pair.push(value);
        pair
    });
    let words = std::iter::once(program.as_os_str().to_os_string()).chain(args.iter().map(OsString::from));
    let (Ok(argv), Ok(envp)) = (c_strings(words), c_strings(pairs)) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a word has a zero byte"));
    };
    let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (arg_pointers, env_pointers) = (pointers(&argv), pointers(&envp));
    #[expect(unsafe_code, reason = "both lists end with null and live until the call has failed")]
    unsafe {
        libc::execve(argv[0].as_ptr(), arg_pointers.as_ptr(), env_pointers.as_ptr());
    }
    Err(io::Error::last_os_error())
}

fn c_strings(words: impl Iterator<Item = OsString>) -> Result<Vec<CString>, NulError> {
    words.map(|word| CString::new(word.into_vec())).collect()
}

/// Runs a supervised child to its end. Stops of this process are passed on to it.
pub fn supervise(program: &Path, args: &[String], env: &[(&str, String)]) -> io::Result<std::process::ExitStatus> {
    let held = StopsHeld::new();
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().map(|(k, v)| (k, v)));
    let mut child = command.spawn()?;
    STOP_CHILD.store(child.id() as i32, Ordering::SeqCst);
    drop(held);
    let status = child.wait();
    STOP_CHILD.store(0, Ordering::SeqCst);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::process::run_limited;

    fn sh(script: &str, millis: u64) -> ChildEnd {
        run_limited(Path::new("/bin/sh"), &["-c", script], Duration::from_millis(millis))
    }

    #[test]
    fn children_are_bounded_in_time_and_output() {
        assert!(matches!(sh("echo well; exit 7", 5000), ChildEnd::Exited(7, out) if out == "well"));
        assert!(matches!(sh("kill -9 $$", 5000), ChildEnd::Signal(9, _)));
        assert!(matches!(sh("sleep 60", 50), ChildEnd::TimedOut));
        assert!(matches!(sh("exec >&-; sleep 60", 50), ChildEnd::TimedOut));
        assert!(matches!(sh("yes", 100), ChildEnd::TimedOut));
        assert!(matches!(sh("sleep 60 & echo done", 5000), ChildEnd::Exited(0, out) if out == "done"), "what it left behind is killed");
        assert!(matches!(run_limited(Path::new("/nonexistent"), &[], Duration::from_secs(1)), ChildEnd::NotStarted(_)));
    }
}
