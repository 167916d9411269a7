//! The service control manager's calls, each with its error as a reason.

use std::io;

use windows_sys::Win32::Foundation as win;
use windows_sys::Win32::System::Services as sys;

use crate::core::reason::Reason;
use crate::io::fs::wide;

/// Bytes of an answer about a service's configuration at most, as documented.
const ANSWER_MAX: usize = 8192;
/// Pause before a service that ended by itself is started again, milliseconds: the first, the second, every later one.
const RESTART_MS: [u32; 3] = [2_000, 10_000, 60_000];
/// A service that ran so long has no failures behind it, seconds.
const RESET_S: u32 = 3600;

/// A handle of the manager, or of a service.
struct Handle(sys::SC_HANDLE);

impl Drop for Handle {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "closes a handle that is ours alone, once")]
        unsafe {
            sys::CloseServiceHandle(self.0);
        }
    }
}

/// A service of the manager.
pub struct Service(Handle);

/// What is registered.
#[derive(Debug, PartialEq, Eq)]
pub struct Registered {
    /// Command line.
    pub line: String,
    /// Account.
    pub account: String,
    /// Started at boot.
    pub auto: bool,
}

/// What a service is to be.
pub struct Wanted<'a> {
    /// Name of the service.
    pub name: &'a str,
    /// What it is, one line.
    pub about: &'a str,
    /// What is registered.
    pub registered: &'a Registered,
}

/// How it is now.
pub struct Now {
    /// `SERVICE_RUNNING` and the like.
    pub state: u32,
    /// Its process; 0 = none.
    pub pid: u32,
}

fn failed(what: &str) -> Reason {
    let error = io::Error::last_os_error();
    match error.raw_os_error().map(|code| code as u32) {
        Some(win::ERROR_ACCESS_DENIED) => {
            Reason::new("not_root", format!("{what}: access denied; run this command as an administrator (an elevated prompt)"))
        }
        Some(win::ERROR_SERVICE_MARKED_FOR_DELETE) => {
            let remedy = "close what still has it open (the Services window, a monitor), or restart the system";
            Reason::new("service_going", format!("{what}: the service is marked for deletion; {remedy}"))
        }
        _ => Reason::new("service_manager", format!("{what}: {error}")),
    }
}

#[expect(unsafe_code, reason = "null names mean this computer and its active database")]
fn manager(access: u32) -> Result<Handle, Reason> {
    let handle = unsafe { sys::OpenSCManagerW(std::ptr::null(), std::ptr::null(), access) };
    if handle.is_null() { Err(failed("the service control manager")) } else { Ok(Handle(handle)) }
}

/// Opens a service; `None`: there is none of that name.
#[expect(unsafe_code, reason = "the name ends with zero; the handle becomes ours")]
pub fn open(name: &str, access: u32) -> Result<Option<Service>, Reason> {
    let manager = manager(sys::SC_MANAGER_CONNECT)?;
    let text = wide(name);
    let handle = unsafe { sys::OpenServiceW(manager.0, text.as_ptr(), access) };
    if !handle.is_null() {
        return Ok(Some(Service(Handle(handle))));
    }
    match io::Error::last_os_error().raw_os_error().map(|code| code as u32) {
        Some(win::ERROR_SERVICE_DOES_NOT_EXIST) => Ok(None),
        _ => Err(failed(name)),
    }
}

/// Registers a service.
#[expect(unsafe_code, reason = "every text ends with zero and lives until the call returns; the handle becomes ours")]
pub fn create(wanted: &Wanted) -> Result<Service, Reason> {
    let manager = manager(sys::SC_MANAGER_CONNECT | sys::SC_MANAGER_CREATE_SERVICE)?;
    let (name, about) = (wide(wanted.name), wide(wanted.about));
    let (line, account) = (wide(&wanted.registered.line), wide(&wanted.registered.account));
    let none = std::ptr::null;
    let handle = unsafe {
        sys::CreateServiceW(
            manager.0,
            name.as_ptr(),
            about.as_ptr(),
            sys::SERVICE_ALL_ACCESS,
            sys::SERVICE_WIN32_OWN_PROCESS,
            sys::SERVICE_AUTO_START,
            sys::SERVICE_ERROR_NORMAL,
            line.as_ptr(),
            none(),
            std::ptr::null_mut(),
            none(),
            account.as_ptr(),
            none(),
        )
    };
    if handle.is_null() { Err(failed(wanted.name)) } else { Ok(Service(Handle(handle))) }
}

impl Service {
    /// What is registered.
    #[expect(unsafe_code, reason = "the manager writes at most as many bytes as told into an aligned buffer; its texts end with zero")]
    pub fn registered(&self) -> Result<Registered, Reason> {
        let mut answer = [0u64; ANSWER_MAX / 8];
        let mut needed = 0;
        unsafe {
            let config = answer.as_mut_ptr().cast::<sys::QUERY_SERVICE_CONFIGW>();
            if sys::QueryServiceConfigW(self.0.0, config, ANSWER_MAX as u32, &mut needed) == 0 {
                return Err(failed("the service's configuration"));
            }
            let text = |from: *const u16| {
                let length = if from.is_null() { 0 } else { (0..).take_while(|at| *from.add(*at) != 0).count() };
                String::from_utf16_lossy(if length == 0 { &[] } else { std::slice::from_raw_parts(from, length) })
            };
            let (line, account) = (text((*config).lpBinaryPathName), text((*config).lpServiceStartName));
            Ok(Registered { line, account, auto: (*config).dwStartType == sys::SERVICE_AUTO_START })
        }
    }

    /// Changes what is registered.
    #[expect(unsafe_code, reason = "every text ends with zero and lives until the call returns")]
    pub fn change(&self, wanted: &Registered) -> Result<(), Reason> {
        let (line, account) = (wide(&wanted.line), wide(&wanted.account));
        let none = std::ptr::null;
        let done = unsafe {
            sys::ChangeServiceConfigW(
                self.0.0,
                sys::SERVICE_WIN32_OWN_PROCESS,
                sys::SERVICE_AUTO_START,
                sys::SERVICE_ERROR_NORMAL,
                line.as_ptr(),
                none(),
                std::ptr::null_mut(),
                none(),
                account.as_ptr(),
                none(),
                none(),
            )
        };
        if done != 0 { Ok(()) } else { Err(failed("the service's configuration")) }
    }

    /// What can be set apart: description, delayed start, and that it is started again whenever it ends by itself. A manager
    /// that does not know one of them is told, not obeyed: the service runs without.
    #[expect(unsafe_code, reason = "each struct is of the kind that its number says and lives until the call returns")]
    pub fn describe(&self, about: &str) {
        let mut about = wide(about);
        let mut actions = RESTART_MS.map(|delay| sys::SC_ACTION { Type: sys::SC_ACTION_RESTART, Delay: delay });
        let description = sys::SERVICE_DESCRIPTIONW { lpDescription: about.as_mut_ptr() };
        let delayed = sys::SERVICE_DELAYED_AUTO_START_INFO { fDelayedAutostart: 1 };
        let failure = sys::SERVICE_FAILURE_ACTIONSW {
            dwResetPeriod: RESET_S,
            lpRebootMsg: std::ptr::null_mut(),
            lpCommand: std::ptr::null_mut(),
            cActions: actions.len() as u32,
            lpsaActions: actions.as_mut_ptr(),
        };
        // Also when it says that it has stopped, with an error.
        let flag = sys::SERVICE_FAILURE_ACTIONS_FLAG { fFailureActionsOnNonCrashFailures: 1 };
        let all: [(&str, u32, *const std::ffi::c_void); 4] = [
            ("description", sys::SERVICE_CONFIG_DESCRIPTION, (&raw const description).cast()),
            ("delayed start", sys::SERVICE_CONFIG_DELAYED_AUTO_START_INFO, (&raw const delayed).cast()),
            ("recovery actions", sys::SERVICE_CONFIG_FAILURE_ACTIONS, (&raw const failure).cast()),
            ("recovery after errors", sys::SERVICE_CONFIG_FAILURE_ACTIONS_FLAG, (&raw const flag).cast()),
        ];
        for (what, number, value) in all {
            if unsafe { sys::ChangeServiceConfig2W(self.0.0, number, value) } == 0 {
                log::warn!("{}", failed(what));
            }
        }
    }

    /// How it is now.
    #[expect(unsafe_code, reason = "the manager fills one struct of plain numbers, ours")]
    pub fn now(&self) -> Result<Now, Reason> {
        let mut status = sys::SERVICE_STATUS_PROCESS::default();
        let (size, mut needed) = (size_of_val(&status) as u32, 0);
        match unsafe { sys::QueryServiceStatusEx(self.0.0, sys::SC_STATUS_PROCESS_INFO, (&raw mut status).cast(), size, &mut needed) } {
            0 => Err(failed("the service's status")),
            _ => Ok(Now { state: status.dwCurrentState, pid: status.dwProcessId }),
        }
    }

    /// Asks for its start; one that runs already is well.
    #[expect(unsafe_code, reason = "no arguments are given")]
    pub fn start(&self) -> Result<(), Reason> {
        let done = unsafe { sys::StartServiceW(self.0.0, 0, std::ptr::null()) } != 0;
        match done || is(win::ERROR_SERVICE_ALREADY_RUNNING) {
            true => Ok(()),
            false => Err(failed("start")),
        }
    }

    /// Asks for its stop; one that does not run is well.
    #[expect(unsafe_code, reason = "the manager fills one struct of plain numbers, ours")]
    pub fn stop(&self) -> Result<(), Reason> {
        let mut status = sys::SERVICE_STATUS::default();
        let done = unsafe { sys::ControlService(self.0.0, sys::SERVICE_CONTROL_STOP, &mut status) } != 0;
        match done || is(win::ERROR_SERVICE_NOT_ACTIVE) {
            true => Ok(()),
            false => Err(failed("stop")),
        }
    }

    /// Takes it out of the manager's list.
    #[expect(unsafe_code, reason = "a live handle")]
    pub fn delete(&self) -> Result<(), Reason> {
        if unsafe { sys::DeleteService(self.0.0) } != 0 { Ok(()) } else { Err(failed("delete")) }
    }
}

fn is(code: u32) -> bool {
    io::Error::last_os_error().raw_os_error() == Some(code as i32)
}
