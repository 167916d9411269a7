//! The program's side: it shows life, hears of wakes and stops through what its launcher gave it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use windows_sys::Win32::Foundation as win;
use windows_sys::Win32::System::Console::SetConsoleCtrlHandler;
use windows_sys::Win32::System::Memory::{FILE_MAP_ALL_ACCESS, MapViewOfFile};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, ResetEvent, Sleep, WaitForSingleObject};

use super::launch::{LIMIT_S, now_ms};
use super::{ENV_LAUNCHER, WATCHED, WakeFd, variable};

/// Stack of the thread that waits for a stop; it writes one record.
const STOP_STACK: usize = 64 * 1024;

/// What the launcher gave this program.
struct Given {
    end: isize,
    wake: isize,
    /// Where this program says until when it wants to live.
    deadline: &'static AtomicU64,
}

/// `None`: this process is a launcher, or a command.
fn given() -> Option<&'static Given> {
    static GIVEN: OnceLock<Option<Given>> = OnceLock::new();
    GIVEN.get_or_init(accept).as_ref()
}

#[expect(unsafe_code, reason = "the numbers come from the launcher; wrong ones are errors of the calls, and zero bytes are not read")]
fn accept() -> Option<Given> {
    let text = variable(ENV_LAUNCHER)?;
    let mut numbers = text.split(',').map(|word| word.parse::<isize>().ok());
    let (end, wake, life) = (numbers.next()??, numbers.next()??, numbers.next()??);
    unsafe {
        for handle in [end, wake, life] {
            // Children of ours inherit none of it.
            if win::SetHandleInformation(handle as win::HANDLE, win::HANDLE_FLAG_INHERIT, 0) == 0 {
                return None;
            }
        }
        let place = MapViewOfFile(life as win::HANDLE, FILE_MAP_ALL_ACCESS, 0, 0, size_of::<u64>()).Value;
        (!place.is_null()).then(|| Given { end, wake, deadline: &*place.cast::<AtomicU64>() })
    }
}

/// In a program: until when it wants to live, in seconds from now; 0 = for ever. In a launcher: what the next program gets.
pub fn alarm(seconds: u32) {
    match given() {
        Some(given) => {
            let deadline = if seconds == 0 { 0 } else { now_ms() + u64::from(seconds) * 1000 };
            given.deadline.store(deadline, Ordering::SeqCst);
        }
        None => LIMIT_S.store(seconds, Ordering::SeqCst),
    }
}

/// The event that wakes this program.
pub fn wake_pipe() -> io::Result<WakeFd> {
    let wake = match given() {
        Some(given) => given.wake,
        // Without a launcher nobody wakes it.
        #[expect(unsafe_code, reason = "makes an unnamed event, kept for the life of the process")]
        None => unsafe { CreateEventW(std::ptr::null(), 1, 0, std::ptr::null()) as isize },
    };
    if wake == 0 {
        return Err(io::Error::last_os_error());
    }
    WATCHED.store(wake, Ordering::SeqCst);
    Ok(wake)
}

/// Takes a wake; true when there was one. A launcher's stop stays.
pub fn drain_wake() -> bool {
    let event = WATCHED.load(Ordering::SeqCst) as win::HANDLE;
    #[expect(unsafe_code, reason = "looks at an event of ours and resets it")]
    unsafe {
        let woken = !event.is_null() && WaitForSingleObject(event, 0) == win::WAIT_OBJECT_0;
        if woken && given().is_some() {
            ResetEvent(event);
        }
        woken
    }
}

/// What a stop writes, and where.
static RECORD: Mutex<Option<(File, Vec<u8>)>> = Mutex::new(None);
/// Held while the marks and the record change together.
static HELD: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a stop writes from now on: `bytes` at the start of `path`, in place.
pub fn prepare_stop(path: &Path, bytes: Vec<u8>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    *lock(&RECORD) = Some((file, bytes));
    Ok(())
}

/// Stops are held back while this lives: the marks and the prepared record change together.
pub struct StopsHeld(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl StopsHeld {
    /// Holds stops back until dropped.
    #[expect(clippy::new_without_default, reason = "it has an effect; a default would hide it")]
    pub fn new() -> StopsHeld {
        StopsHeld(lock(&HELD))
    }
}

/// From now on a stop is obeyed, also one that came before. A thread waits for it: a stop must interrupt whatever the program
/// is doing.
pub fn install_signals() {
    #[expect(unsafe_code, reason = "the handler lives as long as the program")]
    unsafe {
        SetConsoleCtrlHandler(Some(on_console), 1);
    }
    let Some(given) = given() else { return };
    let end = given.end;
    let thread = std::thread::Builder::new().stack_size(STOP_STACK).spawn(move || {
        #[expect(unsafe_code, reason = "waits for an event that the launcher gave this process")]
        let rc = unsafe { WaitForSingleObject(end as win::HANDLE, INFINITE) };
        if rc == win::WAIT_OBJECT_0 {
            stop_now();
        }
    });
    if let Err(e) = thread {
        log::warn!("a stop will not be recorded: {e}");
    }
}

fn stop_now() -> ! {
    let _held = lock(&HELD);
    if let Some((file, bytes)) = &*lock(&RECORD) {
        let _ = file.seek_write(bytes, 0).and_then(|_| file.sync_data());
    }
    std::process::exit(0)
}

/// The launcher answers the console; what would end this process waits until it has told this one to stop.
#[expect(unsafe_code, reason = "called by the system on a thread of its own; only waits")]
unsafe extern "system" fn on_console(event: u32) -> i32 {
    use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, CTRL_C_EVENT};
    if !matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT) {
        unsafe {
            Sleep(INFINITE);
        }
    }
    1
}
