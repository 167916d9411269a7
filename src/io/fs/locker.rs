//! Who has a file open: asked of the Restart Manager, which installers use. Loaded when it is needed: not every Windows has
//! it, and a program must start without it.

use std::path::Path;

use windows_sys::Win32::System::LibraryLoader::{GetProcAddress, LOAD_LIBRARY_SEARCH_SYSTEM32, LoadLibraryExW};
use windows_sys::Win32::System::RestartManager::{CCH_RM_SESSION_KEY, RM_PROCESS_INFO};

use super::wide;

/// Processes named at most: more help nobody.
const NAMED_MAX: usize = 4;

type Start = unsafe extern "system" fn(*mut u32, u32, *mut u16) -> u32;
type Register = unsafe extern "system" fn(u32, u32, *const *const u16, u32, *const u8, u32, *const *const u16) -> u32;
type List = unsafe extern "system" fn(u32, *mut u32, *mut u32, *mut RM_PROCESS_INFO, *mut u32) -> u32;
type End = unsafe extern "system" fn(u32) -> u32;

/// `MsMpEng (process 1234), ...`; `None`: the system does not tell.
#[expect(unsafe_code, reason = "calls of one library by their documented types; every buffer is ours and its length is told")]
pub(super) fn who(path: &Path) -> Option<String> {
    let name = wide(std::path::absolute(path).ok()?);
    let library = wide("rstrtmgr.dll");
    let mut told = [const { unsafe { std::mem::zeroed::<RM_PROCESS_INFO>() } }; NAMED_MAX];
    let mut count = NAMED_MAX as u32;
    unsafe {
        // From the system's folder only. It stays loaded: this happens rarely.
        let library = LoadLibraryExW(library.as_ptr(), std::ptr::null_mut(), LOAD_LIBRARY_SEARCH_SYSTEM32);
        if library.is_null() {
            return None;
        }
        let start: Start = std::mem::transmute(GetProcAddress(library, c"RmStartSession".as_ptr().cast())?);
        let register: Register = std::mem::transmute(GetProcAddress(library, c"RmRegisterResources".as_ptr().cast())?);
        let list: List = std::mem::transmute(GetProcAddress(library, c"RmGetList".as_ptr().cast())?);
        let end: End = std::mem::transmute(GetProcAddress(library, c"RmEndSession".as_ptr().cast())?);
        let (mut session, mut key) = (0, [0u16; CCH_RM_SESSION_KEY as usize + 1]);
        if start(&mut session, 0, key.as_mut_ptr()) != 0 {
            return None;
        }
        let (mut needed, mut reasons) = (0, 0);
        let none = std::ptr::null();
        let ok = register(session, 1, [name.as_ptr()].as_ptr(), 0, std::ptr::null(), 0, none) == 0
            && list(session, &mut needed, &mut count, told.as_mut_ptr(), &mut reasons) == 0;
        end(session);
        if !ok {
            return None;
        }
    }
    let said = told.iter().take(count as usize).map(|process| {
        let length = process.strAppName.iter().position(|c| *c == 0).unwrap_or(process.strAppName.len());
        let name = String::from_utf16_lossy(&process.strAppName[..length]);
        format!("{name} (process {})", process.Process.dwProcessId)
    });
    Some(said.collect::<Vec<_>>().join(", ")).filter(|said| !said.is_empty())
}
