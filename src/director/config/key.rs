//! `fleet: key_file:` of the configuration: the API key with which a Director enrolls by itself, once.
//!
//! The key is a secret until it is spent: a file that everybody can read is not used. Once this Director has an identity the
//! key is overwritten where it stands and synced, as an agent's token is; what cannot be overwritten is told in `status`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::Fleet;
use crate::core::first_boot::{self, Settings};
use crate::core::reason::Reason;

/// Longest file, bytes: a key has some 80.
const KEY_FILE_MAX: u64 = 4096;
/// What stands in the file afterwards, in front of blanks up to its length.
const USED: &str = "# enrolled; the key was overwritten";

fn open(path: &Path, write: bool) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(write).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidData, "is no plain file")),
    }
}

/// The key in a file; lines that begin with `#` are comments.
///
/// # Errors
/// `key_file_missing`, `key_file_open`, `key_file_unreadable`, `key_file_empty`.
pub fn read(path: &Path) -> Result<String, Reason> {
    let shown = path.display();
    let make = "`vmetric-fleet key create` makes one";
    let refused = |code, what: String| Reason::new(code, format!("fleet.key_file {shown}: {what}"));
    let file = open(path, false).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            refused("key_file_missing", format!("there is no such file; put the key there, {make}"))
        }
        ErrorKind::PermissionDenied => {
            refused("key_file_unreadable", "this Director's user may not read it: chown it to that user, mode 0600".into())
        }
        _ => refused("key_file_unreadable", e.to_string()),
    })?;
    let unread = |e: io::Error| refused("key_file_unreadable", e.to_string());
    let mode = file.metadata().map_err(unread)?.permissions().mode();
    if mode & 0o007 != 0 {
        let remedy = format!("chmod o= {shown}, and a new key ({make}) where the old one may have been seen");
        return Err(refused("key_file_open", format!("everybody on this machine can get at it, so it is not used: {remedy}")));
    }
    let mut text = String::new();
    file.take(KEY_FILE_MAX).read_to_string(&mut text).map_err(unread)?;
    let key = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    key.map(String::from).ok_or_else(|| refused("key_file_empty", format!("holds no key; {make}")))
}

/// With what a Director without an identity enrolls.
///
/// # Errors
/// Those of [`read`], `no_key_file`, `token_other_site`.
pub fn settings(fleet: &Fleet) -> Result<Settings, Reason> {
    let by_hand = format!("`vmetric-director enroll --fleet {} --key KEY --pin {}`", fleet.address.value, pin(fleet));
    let Some(file) = &fleet.key_file else {
        return Err(Reason::new("no_key_file", format!("fleet: has no key_file, so this Director is enrolled by hand: {by_hand}")));
    };
    let (key, pins) = (read(&file.value)?, vec![pin(fleet)]);
    if !first_boot::is_of_site(&key, &pins) {
        let what = "holds a key of another Fleet than fleet.pin names; nothing was sent; take both from one `vmetric-fleet key create`";
        return Err(Reason::new("token_other_site", format!("fleet.key_file {}: {what}", file.value.display())));
    }
    let director = Some(fleet.address.value.trim_end_matches('/').to_string());
    Ok(Settings { director, pins, token: Some(key), ..Settings::default() })
}

fn pin(fleet: &Fleet) -> String {
    crate::io::tls::pin_text(&fleet.pin.value)
}

/// Whom a Director is enrolled with: address and its id there.
pub type Enrolled = (String, String);

/// What comes of the section at this site, for `-validate` and `status`.
pub fn outlook(fleet: &Fleet, enrolled: Option<&Enrolled>) -> String {
    let wanted = fleet.address.value.trim_end_matches('/');
    match enrolled {
        Some((address, id)) if address.trim_end_matches('/') == wanted => format!("fleet: this Director is {id} at {address}"),
        Some((address, id)) => format!(
            "fleet: this Director is {id} at {address}, and the file names {wanted}: `vmetric-director enroll --replace` moves it, nothing else does"
        ),
        None => match settings(fleet) {
            Ok(_) => format!("fleet: this Director enrolls at {wanted} by itself, and overwrites the key then"),
            Err(reason) => format!("fleet: not enrolled: {reason}"),
        },
    }
}

/// With an identity: takes the key away, which has no more use here. Repeated at each start until it is gone.
///
/// # Errors
/// `key_left`: it is still there, and what to do.
pub fn forget(path: &Path) -> Result<(), Reason> {
    match read(path) {
        // A file that everybody can read is the first that must lose it.
        Err(reason) if reason.code != "key_file_open" => return Ok(()),
        _ => {}
    }
    let wiped = || -> io::Result<()> {
        let mut file = open(path, true)?;
        let length = usize::try_from(file.metadata()?.len().min(KEY_FILE_MAX)).unwrap_or(0);
        let mut text = if length > USED.len() { USED.as_bytes().to_vec() } else { Vec::new() };
        text.resize(length.saturating_sub(1), b' ');
        text.resize(length, b'\n');
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&text)?;
        file.sync_all()
    };
    wiped().map_err(|e| {
        let remedy = "remove it by hand, or `vmetric-fleet key revoke` where it has uses left";
        Reason::new("key_left", format!("fleet.key_file {}: still holds the key: {e}; {remedy}", path.display()))
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write files")]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn code(path: &Path) -> String {
        read(path).unwrap_or_else(|r| r.code.to_string())
    }

    #[test]
    fn a_key_is_read_only_where_not_everybody_can() {
        for (text, mode, expected) in [
            ("vmt_k\n", 0o600, "vmt_k"),
            ("# of the first floor\n\n  vmt_k  \n", 0o640, "vmt_k"),
            ("vmt_k\n", 0o644, "key_file_open"),
            ("vmt_k\n", 0o606, "key_file_open"),
            ("", 0o600, "key_file_empty"),
            ("# used\n   \n", 0o600, "key_file_empty"),
        ] {
            let (_folder, path) = file(text, mode);
            assert_eq!(code(&path), expected, "{text:?} {mode:o}");
        }
        let (folder, path) = file("vmt_k", 0o600);
        assert_eq!(code(&path.with_file_name("none")), "key_file_missing");
        assert_eq!(code(folder.path()), "key_file_unreadable");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(code(&path), "key_file_unreadable");
    }

    #[test]
    fn the_key_is_overwritten_in_place_and_only_once() {
        use std::os::unix::fs::MetadataExt;
        for (text, mode) in [(format!("vmt_{}\n", "s3cret".repeat(12)), 0o600), ("s3cret".into(), 0o600), ("s3cret\n".into(), 0o644)] {
            let (_folder, path) = file(&text, mode);
            let inode = std::fs::metadata(&path).unwrap().ino();
            forget(&path).unwrap();
            let left = std::fs::read_to_string(&path).unwrap();
            assert!(!left.contains("s3cret") && left.len() == text.len(), "{left:?}");
            assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode, "the same blocks");
            forget(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
        let (folder, path) = file("x", 0o600);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(forget(&path), Ok(()));
        assert_eq!(forget(folder.path()), Ok(()), "no key was ever taken from there");
    }
}
