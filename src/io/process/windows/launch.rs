//! The launcher's side: it starts the program as its child, in a job that ends with the launcher, and kills it when it shows
//! no life. One thread; a second one belongs to the console's or the service manager's control handler.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use windows_sys::Win32::Foundation as win;
use windows_sys::Win32::System::Console as console;
use windows_sys::Win32::System::JobObjects as jobs;
use windows_sys::Win32::System::Memory::{CreateFileMappingW, FILE_MAP_ALL_ACCESS, MapViewOfFile, PAGE_READWRITE};
use windows_sys::Win32::System::Threading as threading;

use super::{ENV_LAUNCHER, ENV_SUPERVISOR, Ended, WATCHED, event_name};
use crate::io::fs::wide;
use crate::io::{clock, security};

/// How long a program may take to write its stop record and end; then it is killed.
const STOP_WAIT_MS: u32 = 10_000;
/// Longest time between two looks at the child's deadline, which may have been moved.
const LOOK_MS: u64 = 60_000;
/// Exit code of a program that was killed here.
const KILLED: u32 = 137;

static STOPPING: AtomicBool = AtomicBool::new(false);
/// Seconds until the program that is started next has to show life.
pub(super) static LIMIT_S: AtomicU32 = AtomicU32::new(0);

/// What a launcher has for all its programs.
struct Launcher {
    /// Set by a stop of this process.
    stop: OwnedHandle,
    /// Set to let the program end.
    end: OwnedHandle,
    wake: OwnedHandle,
    life: OwnedHandle,
    /// The program's deadline: milliseconds of time awake, 0 = none.
    deadline: &'static AtomicU64,
}

fn launcher() -> io::Result<&'static Launcher> {
    static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
    if let Some(launcher) = LAUNCHER.get() {
        return Ok(launcher);
    }
    let made = make()?;
    WATCHED.store(made.stop.as_raw_handle() as isize, Ordering::SeqCst);
    Ok(LAUNCHER.get_or_init(|| made))
}

#[expect(unsafe_code, reason = "makes events and one page of shared memory, kept for the life of the process")]
fn make() -> io::Result<Launcher> {
    let inherited = security::attributes()?;
    let none = std::ptr::null();
    // Named, for commands. A name that somebody else has taken already is not used: he could wake and end at will.
    let named = |what: &str| unsafe {
        let name = event_name(std::process::id(), what);
        let event = owned(threading::CreateEventW(&inherited, 1, 0, name.as_ptr()));
        let taken = win::GetLastError() == win::ERROR_ALREADY_EXISTS;
        match event {
            Ok(event) if !taken => Ok(event),
            _ => {
                log::warn!("the event '{what}' cannot be named: commands are obeyed at the next turn only");
                owned(threading::CreateEventW(&inherited, 1, 0, none))
            }
        }
    };
    unsafe {
        let stop = owned(threading::CreateEventW(none.cast(), 1, 0, none))?;
        let life = owned(CreateFileMappingW(win::INVALID_HANDLE_VALUE, &inherited, PAGE_READWRITE, 0, size_of::<u64>() as u32, none))?;
        let place = MapViewOfFile(life.as_raw_handle(), FILE_MAP_ALL_ACCESS, 0, 0, 0).Value;
        if place.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Launcher { stop, end: named("end")?, wake: named("wake")?, life, deadline: &*place.cast::<AtomicU64>() })
    }
}

/// A handle of our own, or why there is none.
#[expect(unsafe_code, reason = "the handle was just made for us and nobody else closes it")]
fn owned(handle: win::HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedHandle::from_raw_handle(handle) }) }
}

fn set(event: &OwnedHandle, on: bool) {
    #[expect(unsafe_code, reason = "sets or resets an event of ours")]
    unsafe {
        if on {
            threading::SetEvent(event.as_raw_handle())
        } else {
            threading::ResetEvent(event.as_raw_handle())
        };
    }
}

/// True once a stop of the launcher was asked for.
pub fn stopping() -> bool {
    STOPPING.load(Ordering::SeqCst)
}

/// Stops the launcher: the program writes its record and ends, then this process does. Called on any thread.
pub fn request_stop() {
    STOPPING.store(true, Ordering::SeqCst);
    if let Ok(launcher) = launcher() {
        set(&launcher.stop, true);
    }
}

/// From now on Ctrl-C, the window's end and a shutdown stop the launcher in order.
pub fn install_stop() {
    #[expect(unsafe_code, reason = "the handler lives as long as the program")]
    unsafe {
        if launcher().is_ok() {
            console::SetConsoleCtrlHandler(Some(on_console), 1);
        }
    }
}

/// Runs on a thread that the system makes for it.
#[expect(unsafe_code, reason = "called by the system; waits, and touches nothing but our events")]
unsafe extern "system" fn on_console(event: u32) -> i32 {
    request_stop();
    if !matches!(event, console::CTRL_C_EVENT | console::CTRL_BREAK_EVENT) {
        // The process is ended when this returns: the program has to end first.
        unsafe {
            threading::Sleep(STOP_WAIT_MS);
        }
    }
    1
}

/// Runs another program in this one's place: as a child in a job that ends with this process, watched until it has ended.
/// What it leaves behind is killed.
pub fn exec(program: &Path, args: &[String], env: &[(&str, String)], unset: &[&str]) -> io::Result<Ended> {
    let launcher = launcher()?;
    set(&launcher.end, stopping());
    set(&launcher.wake, false);
    arm(launcher);
    let handles = [&launcher.end, &launcher.wake, &launcher.life].map(|h| (h.as_raw_handle() as isize).to_string());
    let log = crate::io::logger::file().map(|path| ("VMETRIC_LOG", path.display().to_string()));
    let given = [(ENV_LAUNCHER, handles.join(",")), (ENV_SUPERVISOR, std::process::id().to_string())];
    let env: Vec<(&str, &str)> = env.iter().chain(&given).chain(&log).map(|(name, value)| (*name, value.as_str())).collect();
    let job = Job::new()?;
    let child = spawn(program, args, &env, unset, &job)?;
    watch(launcher, &child, &job)
}

fn arm(launcher: &Launcher) {
    let limit = u64::from(LIMIT_S.load(Ordering::SeqCst)) * 1000;
    launcher.deadline.store(if limit == 0 { 0 } else { now_ms() + limit }, Ordering::SeqCst);
}

pub(super) fn now_ms() -> u64 {
    clock::awake().as_millis() as u64
}

fn watch(launcher: &Launcher, child: &OwnedHandle, job: &Job) -> io::Result<Ended> {
    let both = [child.as_raw_handle(), launcher.stop.as_raw_handle()];
    loop {
        let left = match launcher.deadline.load(Ordering::SeqCst) {
            0 => LOOK_MS,
            deadline => match deadline.saturating_sub(now_ms()) {
                0 => {
                    job.kill();
                    wait(child, STOP_WAIT_MS);
                    return Ok(Ended::Hung);
                }
                left => left.min(LOOK_MS),
            },
        };
        #[expect(unsafe_code, reason = "waits for two handles of a live array")]
        let rc = unsafe { threading::WaitForMultipleObjects(2, both.as_ptr(), 0, left as u32 + 1) };
        match rc.wrapping_sub(win::WAIT_OBJECT_0) {
            0 => return exit_code(child),
            1 => {
                set(&launcher.end, true);
                if !wait(child, STOP_WAIT_MS) {
                    log::error!("the program did not end within {} s of the stop and is killed", STOP_WAIT_MS / 1000);
                    job.kill();
                    wait(child, STOP_WAIT_MS);
                }
                return exit_code(child);
            }
            _ if rc == win::WAIT_FAILED => return Err(io::Error::last_os_error()),
            _ => {}
        }
    }
}

pub(super) fn wait(child: &OwnedHandle, millis: u32) -> bool {
    #[expect(unsafe_code, reason = "waits for a process of ours")]
    unsafe {
        threading::WaitForSingleObject(child.as_raw_handle(), millis) == win::WAIT_OBJECT_0
    }
}

fn exit_code(child: &OwnedHandle) -> io::Result<Ended> {
    let mut code = 0;
    #[expect(unsafe_code, reason = "writes one number of ours")]
    let ok = unsafe { threading::GetExitCodeProcess(child.as_raw_handle(), &mut code) };
    if ok != 0 { Ok(Ended::Exited(code as i32)) } else { Err(io::Error::last_os_error()) }
}

/// A group of processes that ends when its last handle is closed, at the latest by the end of this process.
pub(super) struct Job(OwnedHandle);

impl Job {
    #[expect(unsafe_code, reason = "makes an unnamed job and sets its limits from one struct of ours")]
    pub fn new() -> io::Result<Job> {
        unsafe {
            let job = owned(jobs::CreateJobObjectW(std::ptr::null(), std::ptr::null()))?;
            let mut limits: jobs::JOBOBJECT_EXTENDED_LIMIT_INFORMATION = std::mem::zeroed();
            // A crash ends the process; it does not wait for somebody to answer a dialogue.
            limits.BasicLimitInformation.LimitFlags =
                jobs::JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | jobs::JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION;
            let size = size_of_val(&limits) as u32;
            match jobs::SetInformationJobObject(
                job.as_raw_handle(),
                jobs::JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                size,
            ) {
                0 => Err(io::Error::last_os_error()),
                _ => Ok(Job(job)),
            }
        }
    }

    pub fn add(&self, process: win::HANDLE) -> io::Result<()> {
        #[expect(unsafe_code, reason = "two live handles")]
        let done = unsafe { jobs::AssignProcessToJobObject(self.0.as_raw_handle(), process) };
        if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub fn kill(&self) {
        #[expect(unsafe_code, reason = "a live handle and a number")]
        unsafe {
            jobs::TerminateJobObject(self.0.as_raw_handle(), KILLED);
        }
    }
}

/// Starts a program in the job before its first instruction; it inherits the handles that were made for that.
#[expect(unsafe_code, reason = "every pointer names a live local, texts end with zero, and each handle is closed once")]
fn spawn(program: &Path, args: &[String], env: &[(&str, &str)], unset: &[&str], job: &Job) -> io::Result<OwnedHandle> {
    let name = wide(program);
    let mut line = command_line(program.as_os_str(), args);
    let block = environment(env, unset);
    let output = [console::STD_INPUT_HANDLE, console::STD_OUTPUT_HANDLE, console::STD_ERROR_HANDLE].map(inheritable);
    let handle = |at: usize| output[at].as_ref().map_or(std::ptr::null_mut(), |h| h.as_raw_handle());
    unsafe {
        let mut start: threading::STARTUPINFOW = std::mem::zeroed();
        start.cb = size_of_val(&start) as u32;
        start.dwFlags = threading::STARTF_USESTDHANDLES;
        (start.hStdInput, start.hStdOutput, start.hStdError) = (handle(0), handle(1), handle(2));
        let mut made: threading::PROCESS_INFORMATION = std::mem::zeroed();
        // A process group of its own: Ctrl-C is the launcher's to answer.
        let flags = threading::CREATE_SUSPENDED | threading::CREATE_UNICODE_ENVIRONMENT | threading::CREATE_NEW_PROCESS_GROUP;
        let none = std::ptr::null();
        if threading::CreateProcessW(
            name.as_ptr(),
            line.as_mut_ptr(),
            none,
            none,
            1,
            flags,
            block.as_ptr().cast(),
            none.cast(),
            &start,
            &mut made,
        ) == 0
        {
            return Err(io::Error::last_os_error());
        }
        let (process, thread) = (OwnedHandle::from_raw_handle(made.hProcess), OwnedHandle::from_raw_handle(made.hThread));
        if let Err(e) = job.add(process.as_raw_handle()) {
            threading::TerminateProcess(process.as_raw_handle(), KILLED);
            return Err(e);
        }
        threading::ResumeThread(thread.as_raw_handle());
        Ok(process)
    }
}

/// A copy of a standard stream that children inherit; `None` where there is no such stream, as in a service.
fn inheritable(which: u32) -> Option<OwnedHandle> {
    #[expect(unsafe_code, reason = "duplicates a handle of this process into one of our own")]
    unsafe {
        let stream = console::GetStdHandle(which);
        if stream.is_null() || stream == win::INVALID_HANDLE_VALUE {
            return None;
        }
        let (own, mut copy) = (threading::GetCurrentProcess(), std::ptr::null_mut());
        match win::DuplicateHandle(own, stream, own, &mut copy, 0, 1, win::DUPLICATE_SAME_ACCESS) {
            0 => None,
            _ => Some(OwnedHandle::from_raw_handle(copy)),
        }
    }
}

/// This process's environment with these changes, as `CreateProcess` takes it. Names differ in more than their case.
fn environment(env: &[(&str, &str)], unset: &[&str]) -> Vec<u16> {
    let given = |name: &OsStr| unset.iter().any(|n| name == *n) || env.iter().any(|(n, _)| name == *n);
    let mut all: BTreeMap<OsString, OsString> = std::env::vars_os().filter(|(name, _)| !given(name)).collect();
    all.extend(env.iter().map(|(name, value)| (name.into(), value.into())));
    let mut block: Vec<u16> = Vec::new();
    for (name, value) in &all {
        block.extend(name.encode_wide().chain(['=' as u16]).chain(value.encode_wide()).chain([0]));
    }
    block.push(0);
    block
}

/// One line from which the program's runtime gets back exactly these words: quoted, with backslashes before a quote doubled.
fn command_line(program: &OsStr, args: &[String]) -> Vec<u16> {
    let mut line = Vec::new();
    for word in std::iter::once(program.to_os_string()).chain(args.iter().map(OsString::from)) {
        if !line.is_empty() {
            line.push(' ' as u16);
        }
        line.push('"' as u16);
        let mut slashes = 0;
        for unit in word.encode_wide() {
            match char::from_u32(u32::from(unit)) {
                Some('\\') => slashes += 1,
                Some('"') => {
                    line.extend(std::iter::repeat_n('\\' as u16, slashes + 1));
                    slashes = 0;
                }
                _ => slashes = 0,
            }
            line.push(unit);
        }
        line.extend(std::iter::repeat_n('\\' as u16, slashes));
        line.push('"' as u16);
    }
    line.push(0);
    line
}
