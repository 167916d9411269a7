//! The state folder of a service: whose it is, what it lies on, its end.

use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use super::look::{at, failed, read, user};
use crate::core::reason::Reason;
use crate::core::service::{Manager, Spec, users};
use crate::io::fs::{PUBLIC, make_folder, write_durable};

/// Deepest folder that is given to the service's user.
const DEPTH_MAX: usize = 16;

/// The folder's file system keeps nothing over a power-off.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn in_memory(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    // tmpfs and ramfs, as statfs(2) has them.
    const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];
    let Ok(name) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return false };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    #[expect(unsafe_code, reason = "statfs reads a C string and fills one struct, both ours")]
    let stat = unsafe {
        if libc::statfs(name.as_ptr(), stat.as_mut_ptr()) != 0 {
            return false;
        }
        stat.assume_init()
    };
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between platforms")]
    let kind = stat.f_type as u32;
    IN_MEMORY.contains(&kind)
}

/// The folder's file system keeps nothing over a power-off: not asked on this system.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn in_memory(_: &Path) -> bool {
    false
}

/// A user's name, for people; its number where no name is known.
pub fn name_of_user(root: &Path, uid: u32) -> String {
    let passwd = read(&at(root, "/etc/passwd")).ok().flatten().unwrap_or_default();
    let named = passwd.lines().find(|line| line.split(':').nth(2).and_then(|n| n.parse().ok()) == Some(uid));
    named.and_then(|line| line.split(':').next()).map_or(uid.to_string(), String::from)
}

/// The service's user, made if it is missing. True when it was.
pub fn ensure_user(spec: &Spec, manager: Manager, root: &Path, live: bool) -> Result<bool, Reason> {
    let name = spec.user.as_str();
    if user(root, name)?.is_some() {
        return Ok(false);
    }
    let missing = |what: String| Err(Reason::new("user_missing", what));
    if manager == Manager::Launchd {
        let command = format!("sudo sysadminctl -addUser {name} -UID 299 -roleAccount");
        return missing(format!("there is no user {name}; make it: {command}; or name another one with --user"));
    }
    if !live {
        let (passwd, group) = (at(root, "/etc/passwd"), at(root, "/etc/group"));
        let (users, groups, _) = users::add(&read(&passwd)?.unwrap_or_default(), &read(&group)?.unwrap_or_default(), name)?;
        for (path, text) in [(&group, groups), (&passwd, users)] {
            path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| failed(path, &e))?;
            write_durable(path, text.as_bytes(), PUBLIC).map_err(|e| failed(path, &e))?;
        }
        return Ok(true);
    }
    // The system's own tools: they know its locks, its labels and its other files of users.
    let shadow: &[&str] =
        &["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", "/usr/sbin/nologin", name];
    let busybox: &[&str] = &["adduser", "-S", "-D", "-H", "-h", "/", "-s", "/sbin/nologin", "-G", name, name];
    let made = super::live::call(shadow).or_else(|_| {
        let _ = super::live::call(&["addgroup", "-S", name]);
        super::live::call(busybox)
    });
    match (made, user(root, name)?) {
        (_, Some(_)) => Ok(true),
        (Err(reason), None) => {
            missing(format!("there is no user {name}, and it could not be made: {}; make it, or --user NAME", reason.detail))
        }
        (Ok(_), None) => missing(format!("the user {name} was made, but is not in /etc/passwd; name one that is, with --user")),
    }
}

/// The state folder, owned by the service's user with all that root has left in it. True when anything was changed.
pub fn ensure_folder(spec: &Spec, root: &Path) -> Result<bool, Reason> {
    let folder = at(root, &spec.state);
    let Some((uid, gid)) = user(root, &spec.user)? else { return Ok(false) };
    let mut changed = false;
    if !folder.is_dir() {
        folder.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| failed(&folder, &e))?;
        make_folder(&folder).map_err(|e| failed(&folder, &e))?;
        changed = true;
    }
    // Without the right to give files away (an image built without root) the first start does it.
    if uid != 0 && crate::io::user::is_root() {
        changed |= give(&folder, uid, gid, DEPTH_MAX).map_err(|e| failed(&folder, &e))?;
    }
    Ok(changed)
}

/// Gives a folder and what root owns in it to a user. Links are not followed; `config/check` may stay root's.
fn give(path: &Path, uid: u32, gid: u32, depth: usize) -> io::Result<bool> {
    let meta = path.symlink_metadata()?;
    let mut changed = false;
    if meta.is_dir() && depth > 0 {
        for entry in std::fs::read_dir(path)? {
            changed |= give(&entry?.path(), uid, gid, depth - 1)?;
        }
    }
    if meta.uid() == 0 && !path.ends_with("config/check") {
        lchown(path, Some(uid), Some(gid))?;
        changed = true;
    }
    Ok(changed)
}

/// What makes a folder recognizable as a state folder of ours.
const SIGNS: [&str; 5] = ["run.lock", "marks.0", "slots", "trust", "director.redb"];

/// Removes a state folder with all that is in it, the identity of the device included.
pub fn purge(spec: &Spec, root: &Path) -> Result<(), Reason> {
    let folder = at(root, &spec.state);
    let refused = |what: &str| Err(Reason::new("purge_refused", format!("{}: {what}; remove it yourself", folder.display())));
    let is_ours = SIGNS.iter().any(|name| folder.join(name).exists());
    let is_empty = std::fs::read_dir(&folder).is_ok_and(|mut all| all.next().is_none());
    match folder.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(meta) if !meta.is_dir() => return refused("is no folder but a link or a file"),
        Ok(_) if !is_ours && !is_empty => return refused("is no state folder of ours"),
        Ok(_) if !spec.program.is_empty() && at(root, &spec.program).starts_with(&folder) => return refused("holds the program itself"),
        Ok(_) => {}
    }
    std::fs::remove_dir_all(&folder).map_err(|e| failed(&folder, &e))
}
