//! A program that the service control manager has started: it is told how the service is, and it tells to stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicIsize, Ordering};

use windows_sys::Win32::Foundation::{ERROR_CALL_NOT_IMPLEMENTED, ERROR_SERVICE_SPECIFIC_ERROR, NO_ERROR};
use windows_sys::Win32::System::Services as sys;

use crate::io::fs::wide;
use crate::io::process;

/// How long a stop may take before the manager asks again: the program's end, and a slow disk.
const STOP_HINT_MS: u32 = 25_000;

type Body = Box<dyn FnOnce() -> i32 + Send>;

static NAME: Mutex<Vec<u16>> = Mutex::new(Vec::new());
static BODY: Mutex<Option<Body>> = Mutex::new(None);
static HANDLE: AtomicIsize = AtomicIsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

fn locked<T>(mutex: &'static Mutex<T>) -> std::sync::MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs `body` as the service of that name; its exit code. `Err` gives it back: no service manager has started this process.
pub fn serve(name: &str, body: Body) -> Result<i32, Body> {
    let mut text = wide(name);
    locked(&NAME).clone_from(&text);
    *locked(&BODY) = Some(body);
    let table = [
        sys::SERVICE_TABLE_ENTRYW { lpServiceName: text.as_mut_ptr(), lpServiceProc: Some(main) },
        sys::SERVICE_TABLE_ENTRYW { lpServiceName: std::ptr::null_mut(), lpServiceProc: None },
    ];
    #[expect(unsafe_code, reason = "the table ends with an empty entry and lives until the call returns")]
    let ran = unsafe { sys::StartServiceCtrlDispatcherW(table.as_ptr()) } != 0;
    match locked(&BODY).take() {
        Some(body) if !ran => Err(body),
        _ => Ok(CODE.load(Ordering::SeqCst)),
    }
}

#[expect(unsafe_code, reason = "called by the system on a thread of its own")]
unsafe extern "system" fn main(_: u32, _: *mut *mut u16) {
    let Some(body) = locked(&BODY).take() else { return };
    let name = locked(&NAME).clone();
    let handle = unsafe { sys::RegisterServiceCtrlHandlerExW(name.as_ptr(), Some(control), std::ptr::null()) };
    HANDLE.store(handle as isize, Ordering::SeqCst);
    tell(sys::SERVICE_RUNNING, 0);
    let code = body();
    CODE.store(code, Ordering::SeqCst);
    // With an error the manager starts it again, see its recovery actions.
    tell(sys::SERVICE_STOPPED, code);
}

#[expect(unsafe_code, reason = "called by the system; sets an event and tells a number")]
unsafe extern "system" fn control(what: u32, _: u32, _: *mut std::ffi::c_void, _: *mut std::ffi::c_void) -> u32 {
    match what {
        sys::SERVICE_CONTROL_STOP | sys::SERVICE_CONTROL_SHUTDOWN => {
            tell(sys::SERVICE_STOP_PENDING, 0);
            process::request_stop();
            NO_ERROR
        }
        sys::SERVICE_CONTROL_INTERROGATE => NO_ERROR,
        _ => ERROR_CALL_NOT_IMPLEMENTED,
    }
}

fn tell(state: u32, code: i32) {
    let running = state == sys::SERVICE_RUNNING;
    let status = sys::SERVICE_STATUS {
        dwServiceType: sys::SERVICE_WIN32_OWN_PROCESS,
        dwCurrentState: state,
        dwControlsAccepted: if running { sys::SERVICE_ACCEPT_STOP | sys::SERVICE_ACCEPT_SHUTDOWN } else { 0 },
        dwWin32ExitCode: if code == 0 { NO_ERROR } else { ERROR_SERVICE_SPECIFIC_ERROR },
        dwServiceSpecificExitCode: code as u32,
        dwCheckPoint: 0,
        dwWaitHint: if state == sys::SERVICE_STOP_PENDING { STOP_HINT_MS } else { 0 },
    };
    #[expect(unsafe_code, reason = "the handle is the one that the manager gave; the call copies the struct")]
    unsafe {
        sys::SetServiceStatus(HANDLE.load(Ordering::SeqCst) as sys::SERVICE_STATUS_HANDLE, &status);
    }
}
