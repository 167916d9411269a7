//! Who may open what: access lists for files, folders and events of ours.
//!
//! The system, the administrators, the service's own account, and whoever runs this program; nobody else. The service's
//! account is a virtual one, made by Windows for the service of that name: it has no password, and no other service has it.

use std::fs::File;
use std::io;
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::sync::OnceLock;

use windows_sys::Win32::Foundation::{CloseHandle, ERROR_ALREADY_EXISTS, GetLastError, LocalFree};
use windows_sys::Win32::Foundation::{GENERIC_ALL, GENERIC_WRITE};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetNamedSecurityInfoW, SDDL_REVISION_1, SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, DACL_SECURITY_INFORMATION, GetAce, GetTokenInformation, INHERIT_ONLY_ACE, OWNER_SECURITY_INFORMATION,
    PROTECTED_DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, SECURITY_ATTRIBUTES, SetFileSecurityW, SetKernelObjectSecurity,
    TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateDirectoryW, DELETE, FILE_APPEND_DATA, FILE_DELETE_CHILD, FILE_WRITE_DATA, WRITE_DAC, WRITE_OWNER,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::fs::wide;

/// `NT SERVICE\vmetric-agent`: `S-1-5-80-` and the SHA-1 of the name in capitals, UTF-16, as five numbers.
pub const SERVICE_SID: &str = "S-1-5-80-1882498302-4259539379-541263628-3502079248-3100661897";
/// Largest answer about a token's user, bytes: a SID has at most 68.
const USER_MAX: usize = 256;

/// Security descriptors of this process, made once and kept.
struct Descriptors {
    object: usize,
    folder: usize,
}

/// The identity of whoever runs this process, as text.
#[expect(unsafe_code, reason = "the system writes at most as many bytes as told into an aligned buffer of ours; its text is copied")]
fn own_sid() -> io::Result<String> {
    let mut buffer = [0u64; USER_MAX / 8];
    unsafe {
        let mut token = std::ptr::null_mut();
        if OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &mut token) == 0 {
            return Err(io::Error::last_os_error());
        }
        let mut length = 0;
        let ok = GetTokenInformation(token, TokenUser, buffer.as_mut_ptr().cast(), USER_MAX as u32, &mut length);
        CloseHandle(token);
        if ok == 0 {
            return Err(io::Error::last_os_error());
        }
        sid_text((*buffer.as_ptr().cast::<TOKEN_USER>()).User.Sid)
    }
}

/// An identity as text, `S-1-...`.
#[expect(unsafe_code, reason = "the identity is the system's; the text it makes ends with zero, is copied and freed")]
fn sid_text(sid: PSID) -> io::Result<String> {
    let mut text = std::ptr::null_mut();
    unsafe {
        if ConvertSidToStringSidW(sid, &mut text) == 0 {
            return Err(io::Error::last_os_error());
        }
        let length = (0..).take_while(|at| *text.add(*at) != 0).count();
        let copy = String::from_utf16_lossy(std::slice::from_raw_parts(text, length));
        LocalFree(text.cast());
        Ok(copy)
    }
}

#[expect(unsafe_code, reason = "the text ends with zero; what the system allocates is kept for the life of the process")]
fn descriptor(flags: &str, own: &str) -> io::Result<usize> {
    let list = ["SY", "BA", SERVICE_SID, own].map(|who| format!("(A;{flags};GA;;;{who})")).concat();
    let text = wide(format!("D:P{list}"));
    let mut made: PSECURITY_DESCRIPTOR = std::ptr::null_mut();
    unsafe {
        match ConvertStringSecurityDescriptorToSecurityDescriptorW(text.as_ptr(), SDDL_REVISION_1, &mut made, std::ptr::null_mut()) {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(made as usize),
        }
    }
}

fn descriptors() -> io::Result<&'static Descriptors> {
    static MADE: OnceLock<Descriptors> = OnceLock::new();
    if let Some(made) = MADE.get() {
        return Ok(made);
    }
    let own = own_sid()?;
    let made = Descriptors { object: descriptor("", &own)?, folder: descriptor("OICI", &own)? };
    Ok(MADE.get_or_init(|| made))
}

/// For an object that is about to be made; a child of ours inherits its handle.
pub(super) fn attributes() -> io::Result<SECURITY_ATTRIBUTES> {
    let length = size_of::<SECURITY_ATTRIBUTES>() as u32;
    Ok(SECURITY_ATTRIBUTES { nLength: length, lpSecurityDescriptor: descriptors()?.object as _, bInheritHandle: 1 })
}

/// Nobody else may open the file from now on.
pub fn make_private(file: &File) -> io::Result<()> {
    let what = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
    #[expect(unsafe_code, reason = "an open file of ours and a descriptor that lives as long as the process")]
    let done = unsafe { SetKernelObjectSecurity(file.as_raw_handle(), what, descriptors()?.object as _) };
    if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a folder in which everything is private; one that is there stays as it is.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    let length = size_of::<SECURITY_ATTRIBUTES>() as u32;
    let attributes = SECURITY_ATTRIBUTES { nLength: length, lpSecurityDescriptor: descriptors()?.folder as _, bInheritHandle: 0 };
    let name = wide(path);
    #[expect(unsafe_code, reason = "the name ends with zero; the descriptor lives as long as the process")]
    let made = unsafe { CreateDirectoryW(name.as_ptr(), &attributes) != 0 || GetLastError() == ERROR_ALREADY_EXISTS };
    if made { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a folder that is there private, and what will be made in it.
pub fn secure_folder(path: &Path) -> io::Result<()> {
    let name = wide(path);
    let what = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
    #[expect(unsafe_code, reason = "the name ends with zero; the descriptor lives as long as the process")]
    let done = unsafe { SetFileSecurityW(name.as_ptr(), what, descriptors()?.folder as _) };
    if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What lets somebody change a file or what is in a folder: writing, appending, removing, and changing these very rights.
const CHANGES: u32 =
    FILE_WRITE_DATA | FILE_APPEND_DATA | FILE_DELETE_CHILD | DELETE | WRITE_DAC | WRITE_OWNER | GENERIC_WRITE | GENERIC_ALL;
/// Whoever is allowed to: the system, the administrators, the installer of Windows itself.
const TRUSTED: [&str; 3] = ["S-1-5-18", "S-1-5-32-544", "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"];

/// Only the system, the administrators and this very user (or the service's account) can change it.
#[expect(unsafe_code, reason = "walks a list that the system made and checked; it is freed once, after its last use")]
pub fn only_ours(path: &Path) -> io::Result<bool> {
    let (name, own) = (wide(path), own_sid()?);
    let trusted = |sid: &str| sid == own || sid == SERVICE_SID || TRUSTED.contains(&sid);
    let (mut list, mut owner, mut held) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    use std::ptr::null_mut as none;
    unsafe {
        let what = DACL_SECURITY_INFORMATION | OWNER_SECURITY_INFORMATION;
        let code = GetNamedSecurityInfoW(name.as_ptr(), SE_FILE_OBJECT, what, &mut owner, none(), &mut list, none(), &mut held);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code as i32));
        }
        // No list at all: everybody may do everything.
        let mut ours = !list.is_null() && sid_text(owner).is_ok_and(|owner| trusted(&owner));
        let count = if list.is_null() { 0 } else { u32::from((*list).AceCount) };
        for at in 0..count {
            let mut entry = std::ptr::null_mut();
            ours = ours && GetAce(list, at, &mut entry) != 0 && {
                let entry = &*entry.cast::<ACCESS_ALLOWED_ACE>();
                let harmless = entry.Header.AceType == DENIED || u32::from(entry.Header.AceFlags) & INHERIT_ONLY_ACE != 0;
                let sid = (&raw const entry.SidStart).cast_mut().cast();
                harmless || entry.Mask & CHANGES == 0 || (entry.Header.AceType == ALLOWED && sid_text(sid).is_ok_and(|sid| trusted(&sid)))
            };
        }
        LocalFree(held);
        Ok(ours)
    }
}

/// Kinds of entries: `ACCESS_ALLOWED_ACE_TYPE` and `ACCESS_DENIED_ACE_TYPE`. Others are not understood, hence not trusted.
const ALLOWED: u8 = 0;
const DENIED: u8 = 1;
