//! Facts: which service manager is there, what program and state folder are like.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::core::reason::Reason;
use crate::core::service::Spec;
use crate::core::service::check::Facts;
use crate::core::service::detect::Seen;
use crate::core::service::users;
use crate::io::fs::{read_limited, room};
use crate::io::room::slots;

/// Largest file of a service, of users, of init that is read.
pub const FILE_MAX: u64 = 1024 * 1024;

/// `path` as the system in `root` knows it, from here.
pub fn at(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// A file's text; `None`: there is none.
pub fn read(path: &Path) -> Result<Option<String>, Reason> {
    let bytes = read_limited(path, FILE_MAX).map_err(|e| failed(path, &e))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// What went wrong with a file of the service.
pub fn failed(path: &Path, e: &io::Error) -> Reason {
    let remedy = match e.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "; prepare the image with --root DIR, or make the file system writable",
        io::ErrorKind::PermissionDenied => "; services are root's",
        _ => "",
    };
    Reason::new("service_file", format!("{}: {e}{remedy}", path.display()))
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_string())
}

/// What runs this system, or what would run the one in `root`.
pub fn seen(root: &Path, live: bool) -> Seen {
    let there = |path: &str| at(root, path).exists();
    let init = if live {
        // Without the right to look at process 1, its name is what is known of it.
        let program = std::fs::read_link("/proc/1/exe").ok().and_then(|path| name_of(&path));
        program.or_else(|| Some(read(Path::new("/proc/1/comm")).ok()??.trim().to_string()))
    } else {
        let init = at(root, "/sbin/init");
        std::fs::read_link(&init).ok().and_then(|to| name_of(&to)).or_else(|| init.exists().then(|| "init".into()))
    };
    Seen {
        os: std::env::consts::OS,
        live,
        init: init.unwrap_or_default(),
        systemd: live && there("/run/systemd/system"),
        openrc: there(if live { "/run/openrc" } else { "/sbin/openrc-run" }),
        runit: ["/var/service", "/etc/service"].into_iter().find(|path| there(path)).unwrap_or_default().into(),
        runsvdir: if live { runs("runsvdir") } else { there("/etc/runit") },
        inittab: there("/etc/inittab"),
    }
}

/// Some process has this name.
fn runs(name: &str) -> bool {
    let Ok(all) = std::fs::read_dir("/proc") else { return false };
    all.flatten().any(|entry| read(&entry.path().join("comm")).ok().flatten().is_some_and(|comm| comm.trim() == name))
}

/// What is known of a user: name or number, as `find` needs it.
pub fn user(root: &Path, name: &str) -> Result<Option<(u32, u32)>, Reason> {
    if name == "root" {
        return Ok(Some((0, 0)));
    }
    let passwd = read(&at(root, "/etc/passwd"))?.unwrap_or_default();
    if let Some(found) = users::find(&passwd, name) {
        return Ok(Some(found));
    }
    // Users of a directory (LDAP, macOS) are in no file.
    let known = root == Path::new("/") && cfg!(target_os = "macos");
    Ok(known.then(|| crate::io::user::number(name)).flatten())
}

/// Everything that the refusals are decided by.
pub fn facts(spec: &Spec, root: &Path, live: bool) -> Facts {
    let program = at(root, &spec.program);
    let file = program.metadata();
    let is_program = file.as_ref().is_ok_and(|f| f.is_file() && f.mode() & 0o111 != 0);
    let state = at(root, &spec.state);
    let there = state.ancestors().find(|folder| folder.is_dir()).unwrap_or(root);
    let disk = room(there).ok();
    let owner = state.metadata().ok().map(|m| m.uid()).filter(|uid| *uid != 0);
    let service = user(root, &spec.user).ok().flatten().map(|(uid, _)| uid);
    Facts {
        root: crate::io::user::is_root() || !live,
        in_slot: program.parent().and_then(Path::parent).is_some_and(|folder| folder.ends_with("slots")),
        no_program: !is_program,
        open_to_others: if live { open_to_others(&program) } else { None },
        program_noexec: live && room(&program).is_ok_and(|room| !room.exec),
        state_tmpfs: live && super::state::in_memory(there),
        state_noexec: live && spec.product.slots && disk.is_some_and(|room| !room.exec),
        state_read_only: live && disk.is_some_and(|room| room.read_only),
        // A Director's slots hold more than its program; its mirror looks for itself.
        no_room: file.ok().filter(|_| live && spec.product.name == "vmetric-agent").and_then(|f| slots(&state, f.len()).err()),
        state_owner: owner.filter(|uid| Some(*uid) != service).map(|uid| super::state::name_of_user(root, uid)),
    }
}

/// The program or the first folder above it that somebody besides root may change. A sticky folder counts: others may not
/// rename what is in it, but they could have been first.
fn open_to_others(program: &Path) -> Option<String> {
    let open = |path: &&Path| path.metadata().is_ok_and(|m| m.uid() != 0 || m.mode() & 0o022 != 0);
    program.ancestors().find(open).map(|path| path.display().to_string())
}
