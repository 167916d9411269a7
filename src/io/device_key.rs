//! The device's own key: made on the device at its first boot or at `enroll`, whichever comes first, and never anywhere else.
//!
//! ```text
//! <state>/config/device.key   the seed in hex, 0600; its public half is what the Director registered
//!                device.new   the key of an `enroll --replace` that has not been answered yet
//! ```
//!
//! A key is on the disk before it is first used: a lost answer or a power cut is followed by the same request again, which
//! the Director answers with the same identity.

use std::os::unix::fs::MetadataExt;

use ring::rand::{SecureRandom, SystemRandom};

use super::fs::{PRIVATE, read_limited, sync_folder_of, write_durable};
use super::state::{State, file_error};
use super::{clock, random};
use crate::core::hex;
use crate::core::proof::{DeviceKey, INSTANCE_DIGITS};
use crate::core::reason::Reason;

/// The key in use.
pub const KEY: &str = "config/device.key";
/// The key of a replacement under way.
pub const NEW_KEY: &str = "config/device.new";
/// A seed in hex, and a line's end.
const KEY_MAX: u64 = 66;

/// A key file's key; `None`: there is no such file.
///
/// # Errors
/// `device_key_damaged`, or that of the file.
pub fn read(state: &State, name: &str) -> Result<Option<DeviceKey>, Reason> {
    let path = state.path(name);
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

/// The key of this file, made durable now if there is none.
///
/// # Errors
/// `device_key_damaged`, `no_randomness`, or that of the file.
pub fn read_or_make(state: &State, name: &str) -> Result<DeviceKey, Reason> {
    if let Some(key) = read(state, name)? {
        return Ok(key);
    }
    let mut seed = [0; 32];
    // A guessable key would be worse than none: no zeros here.
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| Reason::new("no_randomness", "the system gives no randomness for the device's key; try again after its boot"))?;
    let path = state.path(name);
    write_durable(&path, hex::encode(&seed).as_bytes(), PRIVATE).map_err(|e| file_error(&path, "write", &e))?;
    Ok(DeviceKey::new(seed))
}

/// The key that the configuration speaks of. One of a replacement that a power cut interrupted after its last durable
/// write goes to its place now.
///
/// # Errors
/// `device_key_missing`: neither file holds it; else that of the files.
pub fn of(state: &State, public: &str) -> Result<DeviceKey, Reason> {
    let is_it = |key: &DeviceKey| key.public() == public;
    let known = read(state, KEY);
    if let Ok(Some(key)) = &known
        && is_it(key)
    {
        return Ok(key.clone());
    }
    if let Some(key) = read(state, NEW_KEY)?.filter(is_it) {
        settle(state)?;
        return Ok(key);
    }
    known?;
    let detail = format!("{}: the enrolled key is not there; run `vmetric-agent enroll --replace`", state.path(KEY).display());
    Err(Reason::new("device_key_missing", detail))
}

/// The replacement is answered and configured: its key is the device's.
///
/// # Errors
/// That of the files; nothing is lost then, [`of`] looks in both places.
pub fn settle(state: &State) -> Result<(), Reason> {
    let (from, to) = (state.path(NEW_KEY), state.path(KEY));
    std::fs::rename(&from, &to).and_then(|()| sync_folder_of(&to)).map_err(|e| file_error(&to, "rename", &e))
}

/// Which of the devices that may have this key this is: another boot, another disk or another copy of the folder gives
/// another instance; a restart of the program does not.
pub fn instance(state: &State) -> String {
    let file = std::fs::metadata(state.path(KEY)).map(|m| [m.dev(), m.ino()]).unwrap_or([random::seed(), 0]);
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
        assert!(read(&state, KEY).unwrap().is_none());
        let key = read_or_make(&state, KEY).unwrap();
        assert_eq!(read_or_make(&state, KEY).unwrap().public(), key.public());
        let mode = std::fs::metadata(state.path(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(of(&state, &key.public()).unwrap().public(), key.public());
    }

    #[test]
    fn a_replacement_is_found_at_every_point_of_a_power_cut() {
        let (_dir, state) = state();
        let old = read_or_make(&state, KEY).unwrap().public();
        let new = read_or_make(&state, NEW_KEY).unwrap().public();
        assert_eq!(of(&state, &old).unwrap().public(), old, "not answered yet");
        assert_eq!(of(&state, &new).unwrap().public(), new, "configured, not settled");
        assert!(!state.path(NEW_KEY).exists());
        assert_eq!(of(&state, &new).unwrap().public(), new);
        assert_eq!(of(&state, &old).unwrap_err().code, "device_key_missing");
    }

    #[test]
    fn damage_is_named() {
        let (_dir, state) = state();
        for bad in [&b""[..], b"00", &[0xff; 64], &[b'0'; 4096]] {
            write_durable(&state.path(KEY), bad, PRIVATE).unwrap();
            let reason = read_or_make(&state, KEY).unwrap_err();
            assert!(reason.code == "device_key_damaged" && reason.detail.contains("device.key"), "{reason}");
        }
    }

    #[test]
    fn a_copy_of_the_folder_is_another_instance() {
        let (dir, state) = state();
        read_or_make(&state, KEY).unwrap();
        let copy = State::open(&dir.path().join("copy")).unwrap();
        std::fs::copy(state.path(KEY), copy.path(KEY)).unwrap();
        assert_eq!(instance(&state), instance(&state));
        assert_ne!(instance(&state), instance(&copy));
    }
}
