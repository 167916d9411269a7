//! The device's own key: made on the device at its first boot or at `enroll`, whichever comes first, and never anywhere else.
//!
//! ```text
//! <state>/config/device.key   the seed in hex, 0600; its public half is what the Director registered
//!                device.new   the key of an `enroll --replace` that has not been answered yet
//!                device.key.copy  device.new.copy   the same once more: one bad sector must not cost a visit
//! ```
//!
//! A key and its copy are on the disk before it is first used: a lost answer or a power cut is followed by the same request
//! again, which the Director answers with the same identity. [`crate::core::copies`] says which file counts.

use ring::rand::{SecureRandom, SystemRandom};

use super::fs::{PRIVATE, file_id, read_limited, remove_durable, write_durable};
use super::state::{State, file_error};
use super::{clock, random};
use crate::core::copies::{self, Found, KeyFile, KeyStep};
use crate::core::hex;
use crate::core::proof::{DeviceKey, INSTANCE_DIGITS};
use crate::core::reason::Reason;

/// The key in use.
pub const KEY: &str = path_of(KeyFile::Key);

/// Where a key is, below the state folder.
pub const fn path_of(file: KeyFile) -> &'static str {
    match file {
        KeyFile::Key => "config/device.key",
        KeyFile::New => "config/device.new",
        KeyFile::KeyCopy => "config/device.key.copy",
        KeyFile::NewCopy => "config/device.new.copy",
    }
}

/// A seed in hex, and a line's end.
const KEY_MAX: u64 = 66;

/// A key file's key; `None`: there is no such file.
///
/// # Errors
/// `device_key_damaged`, or that of the file.
pub fn read(state: &State, file: KeyFile) -> Result<Option<DeviceKey>, Reason> {
    let path = state.path(path_of(file));
    let damaged = || {
        let detail = format!("{}: is no key; remove it and run `vmetric-agent enroll --replace`", path.display());
        Reason::new("device_key_damaged", detail)
    };
    match read_limited(&path, KEY_MAX) {
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => {
            let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
            hex::decode(text.trim()).map(|seed| Some(DeviceKey::new(seed))).ok_or_else(damaged)
        }
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(damaged()),
        Err(e) => Err(file_error(&path, "read", &e)),
    }
}

/// The key of this file, made durable now if there is none. Never called for the key in use while a configuration names
/// another one: its copy would be lost.
///
/// # Errors
/// `device_key_damaged`, `no_randomness`, or that of the file.
pub fn read_or_make(state: &State, file: KeyFile) -> Result<DeviceKey, Reason> {
    match read(state, file) {
        Ok(Some(key)) => return Ok(key),
        // A copy without its file: the key was removed, or is not in use yet.
        Ok(None) => {}
        Err(damage) => match read(state, file.copy()) {
            Ok(Some(key)) => return Ok(key),
            // Nothing depends on a replacement's key.
            _ if file == KeyFile::New => {}
            _ => return Err(damage),
        },
    }
    let mut seed = [0; 32];
    // A guessable key would be worse than none: no zeros here.
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| Reason::new("no_randomness", "the system gives no randomness for the device's key; try again after its boot"))?;
    write(state, file.copy(), &seed)?;
    write(state, file, &seed)?;
    Ok(DeviceKey::new(seed))
}

fn write(state: &State, file: KeyFile, seed: &[u8; 32]) -> Result<(), Reason> {
    let path = state.path(path_of(file));
    write_durable(&path, hex::encode(seed).as_bytes(), PRIVATE).map_err(|e| file_error(&path, "write", &e))
}

fn found(state: &State) -> [Found<String>; 4] {
    KeyFile::ALL.map(|file| match read(state, file) {
        Ok(None) => Found::Missing,
        Ok(Some(key)) => Found::Whole(key.public()),
        Err(_) => Found::Damaged,
    })
}

/// The key that the configuration speaks of, wherever it is.
///
/// # Errors
/// `device_key_missing`: no file holds it; `device_key_damaged`.
pub fn of(state: &State, public: &str) -> Result<DeviceKey, Reason> {
    if let Some(file) = copies::holder(public, &found(state))
        && let Some(key) = read(state, file)?
    {
        return Ok(key);
    }
    read(state, KeyFile::Key)?;
    let detail = format!("{}: the enrolled key is not there; run `vmetric-agent enroll --replace`", state.path(KEY).display());
    Err(Reason::new("device_key_missing", detail))
}

/// Brings the key that the configuration names to its place and to its copy. True: it was restored from a copy.
///
/// # Errors
/// That of the files; nothing is lost then, [`of`] looks in all places.
pub fn settle(state: &State, public: &str) -> Result<bool, Reason> {
    let mut restored = false;
    for step in copies::key_steps(public, &found(state)) {
        match step {
            KeyStep::Copy(from, to) => {
                let path = state.path(path_of(to));
                let bytes = read_limited(&state.path(path_of(from)), KEY_MAX).map_err(|e| file_error(&path, "copy to", &e))?;
                if to == KeyFile::Key && from != KeyFile::New {
                    restored = true;
                    // What is left of it stays for people to look at.
                    super::fs::link_aside(&path);
                }
                write_durable(&path, &bytes.unwrap_or_default(), PRIVATE).map_err(|e| file_error(&path, "write", &e))?;
            }
            KeyStep::Remove(file) => {
                let path = state.path(path_of(file));
                remove_durable(&path).map_err(|e| file_error(&path, "remove", &e))?;
            }
        }
    }
    Ok(restored)
}

/// Which of the devices that may have this key this is: another boot, another disk or another copy of the folder gives
/// another instance; a restart of the program does not.
pub fn instance(state: &State) -> String {
    let file = file_id(&state.path(KEY)).unwrap_or([random::seed(), 0]);
    let text = format!("vmetric-instance-v1\0{}\0{}\0{}\0", clock::boot_id(), file[0], file[1]);
    hex::encode(&hex::sha256(text.as_bytes())[..INSTANCE_DIGITS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s")).unwrap();
        (dir, state)
    }

    #[test]
    fn made_once_for_the_owner_only() {
        let (_dir, state) = state();
        assert!(read(&state, KeyFile::Key).unwrap().is_none());
        let key = read_or_make(&state, KeyFile::Key).unwrap();
        assert_eq!(read_or_make(&state, KeyFile::Key).unwrap().public(), key.public());
        let mode = std::fs::metadata(state.path(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(of(&state, &key.public()).unwrap().public(), key.public());
    }

    #[test]
    fn a_replacement_is_found_at_every_point_of_a_power_cut() {
        let (_dir, state) = state();
        let old = read_or_make(&state, KeyFile::Key).unwrap().public();
        let new = read_or_make(&state, KeyFile::New).unwrap().public();
        assert_eq!(of(&state, &old).unwrap().public(), old, "not answered yet");
        assert_eq!(of(&state, &new).unwrap().public(), new, "configured, not settled");
        assert!(!settle(&state, &new).unwrap() && !settle(&state, &new).unwrap());
        assert!(!state.path(path_of(KeyFile::New)).exists() && !state.path(path_of(KeyFile::NewCopy)).exists());
        assert_eq!(of(&state, &new).unwrap().public(), new);
        assert_eq!(of(&state, &old).unwrap_err().code, "device_key_missing");
    }

    #[test]
    fn damage_is_named() {
        let (_dir, state) = state();
        write_durable(&state.path(path_of(KeyFile::KeyCopy)), b"?", PRIVATE).unwrap();
        for bad in [&b""[..], b"00", &[0xff; 64], &[b'0'; 4096]] {
            write_durable(&state.path(KEY), bad, PRIVATE).unwrap();
            let reason = read_or_make(&state, KeyFile::Key).unwrap_err();
            assert!(reason.code == "device_key_damaged" && reason.detail.contains("device.key"), "{reason}");
        }
    }

    #[test]
    fn a_copy_of_the_folder_is_another_instance() {
        let (dir, state) = state();
        read_or_make(&state, KeyFile::Key).unwrap();
        let copy = State::open(&dir.path().join("copy")).unwrap();
        std::fs::copy(state.path(KEY), copy.path(KEY)).unwrap();
        assert_eq!(instance(&state), instance(&state));
        assert_ne!(instance(&state), instance(&copy));
    }
}
