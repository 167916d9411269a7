//! The second copy of what makes a device itself: its configuration and its key. Both are written once and read for years;
//! one sector that rots must not cost a visit to the device.
//!
//! ```text
//! <state>/config/agent.json  device.key              written by `enroll`
//!                agent.json.copy  device.key.copy    the same, written when an agent starts with whole ones
//! ```
//!
//! The configuration's copy only ever stands in for a file that is there and damaged. One that is missing was removed: by
//! somebody who makes an image, or enrolls the device anew, and does not want the old identity back. The key's copy stands
//! in whenever the configuration names its key.

use super::device_key::{self, KEY};
use super::fs::{PRIVATE, read_limited, set_aside, write_durable};
use super::state::{State, file_error};
use crate::core::reason::Reason;
use crate::wire::config::{CONFIG_MAX, ConfigWire};

/// The configuration.
pub const CONFIG: &str = "config/agent.json";
/// Its copy.
pub const CONFIG_COPY: &str = "config/agent.json.copy";
/// The key's copy.
pub const KEY_COPY: &str = "config/device.key.copy";

/// The configuration's bytes in one of its files. `None`: there is none, not even a damaged one.
pub(super) fn read_config(state: &State, name: &str) -> Result<Option<(ConfigWire, Vec<String>)>, Reason> {
    let path = state.path(name);
    match read_limited(&path, CONFIG_MAX) {
        // A link that leads nowhere is no removed file.
        Ok(None) if std::fs::symlink_metadata(&path).is_ok() => {
            Err(Reason::new("bad_config", format!("{}: is a link that leads nowhere", path.display())))
        }
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => ConfigWire::parse(&bytes).map(Some).map_err(|mut reason| {
            reason.detail = format!("{}: {}", path.display(), reason.detail);
            reason
        }),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(Reason::new("bad_config", format!("{}: {e}", path.display()))),
        Err(e) => Err(file_error(&path, "read", &e)),
    }
}

/// At the start of the agent: a damaged file is replaced by its copy, a copy that is missing or old is made anew. Says what
/// was restored. What cannot be written is tried again at the next start; reading falls back to the copies until then.
pub fn keep(state: &State) -> Vec<Reason> {
    let mut restored = Vec::new();
    match (read_config(state, CONFIG), read_config(state, CONFIG_COPY)) {
        (Ok(Some((config, _))), copy) if !matches!(&copy, Ok(Some((kept, _))) if *kept == config) => copy_file(state, CONFIG, CONFIG_COPY),
        (Err(damage), Ok(Some(_))) => restored.extend(restore(state, CONFIG_COPY, CONFIG, &damage)),
        _ => {}
    }
    let public = state.config().ok().flatten().and_then(|(config, _)| config.device_key);
    if let Some(public) = public {
        let is_it = |name| device_key::read(state, name).ok().flatten().is_some_and(|key| key.public() == public);
        match (is_it(KEY), is_it(KEY_COPY)) {
            (true, false) => copy_file(state, KEY, KEY_COPY),
            // A configuration that names the key is there: nobody wanted the identity gone.
            (false, true) => {
                let damage = Reason::new("device_key_damaged", format!("{}: is another key or none", state.path(KEY).display()));
                restored.extend(restore(state, KEY_COPY, KEY, &damage));
            }
            _ => {}
        }
    }
    restored
}

fn copy_file(state: &State, from: &str, to: &str) {
    let path = state.path(to);
    let copied = read_limited(&state.path(from), CONFIG_MAX).and_then(|bytes| write_durable(&path, &bytes.unwrap_or_default(), PRIVATE));
    if let Err(e) = copied {
        log::warn!("{}", file_error(&path, "write", &e));
    }
}

fn restore(state: &State, from: &str, to: &str, damage: &Reason) -> Option<Reason> {
    let path = state.path(to);
    let bytes = read_limited(&state.path(from), CONFIG_MAX).ok()??;
    // What is left of it stays for people to look at.
    let _ = set_aside(&path);
    match write_durable(&path, &bytes, PRIVATE) {
        Ok(()) => Some(Reason::new("identity_restored", format!("{}; restored from {from}", damage.detail))),
        Err(e) => {
            log::warn!("{}", file_error(&path, "write", &e));
            None
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make damaged files")]
mod tests {
    use super::*;
    use crate::core::hex;
    use std::fs;

    fn enrolled() -> (tempfile::TempDir, State, ConfigWire) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s")).unwrap();
        let key = device_key::read_or_make(&state, KEY).unwrap();
        let config = ConfigWire {
            format: 1,
            director: "https://10.0.0.1:8443".into(),
            pins: vec![format!("sha256:{}", hex::encode(&[1; 32]))],
            agent_id: "a-1".into(),
            credential: "c".into(),
            device_key: Some(key.public()),
            ..Default::default()
        };
        state.write_config(&config).unwrap();
        (dir, state, config)
    }

    #[test]
    fn one_damaged_file_costs_nothing() {
        let (_dir, state, config) = enrolled();
        assert!(keep(&state).is_empty() && keep(&state).is_empty());
        let key = config.device_key.clone().unwrap();
        for damage in [&b""[..], b"{", b"[]", b"{\"format\":1}", &[0; 5000]] {
            fs::write(state.path(CONFIG), damage).unwrap();
            assert_eq!(state.config().unwrap().unwrap().0, config, "before it is restored");
            assert_eq!(keep(&state)[0].code, "identity_restored");
            assert_eq!(read_config(&state, CONFIG).unwrap().unwrap().0, config);
            fs::write(state.path(KEY), damage).unwrap();
            assert_eq!(keep(&state).len(), 1);
            fs::remove_file(state.path(KEY)).unwrap();
            assert_eq!(keep(&state).len(), 1, "the configuration names it");
            assert_eq!(device_key::of(&state, &key).unwrap().public(), key);
        }
        fs::remove_file(state.path(CONFIG)).unwrap();
        fs::create_dir(state.path(CONFIG)).unwrap();
        assert_eq!(keep(&state).len(), 1, "a folder in its place");
        fs::remove_file(state.path(CONFIG)).unwrap();
        std::os::unix::fs::symlink("/nonexistent/file", state.path(CONFIG)).unwrap();
        assert_eq!(keep(&state).len(), 1, "a link in its place");
    }

    #[test]
    fn what_was_removed_stays_removed_and_a_new_identity_replaces_the_copy() {
        let (_dir, state, config) = enrolled();
        keep(&state);
        fs::remove_file(state.path(CONFIG)).unwrap();
        assert!(keep(&state).is_empty() && state.config().unwrap().is_none());
        let other = ConfigWire { agent_id: "a-2".into(), ..config };
        state.write_config(&other).unwrap();
        keep(&state);
        assert_eq!(read_config(&state, CONFIG_COPY).unwrap().unwrap().0, other);
    }
}
