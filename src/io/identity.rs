//! What makes a device itself, each twice: its configuration and its key. Both are written once and read for years; one
//! sector that rots must not cost a visit to the device.
//!
//! ```text
//! <state>/config/agent.json  agent.json.copy    written by `enroll` and by a change of the pins, the copy first
//!                device.key  device.key.copy    see `device_key`
//! ```
//!
//! [`crate::core::copies`] says which file counts; here it is done.

use super::device_key;
use super::fs::{PRIVATE, link_aside, read_limited, write_durable};
use super::state::{State, file_error};
use crate::core::copies::{ConfigStep, Found, config_step};
use crate::core::reason::Reason;
use crate::wire::config::{CONFIG_MAX, ConfigWire};

/// The configuration's bytes in one of its files. `None`: there is none, not even a damaged one.
pub(super) fn read_config(state: &State, name: &str) -> Result<Option<(ConfigWire, Vec<String>)>, Reason> {
    let path = state.path(name);
    match read_limited(&path, CONFIG_MAX) {
        // A link that leads nowhere is no removed file.
        Ok(None) if std::fs::symlink_metadata(&path).is_ok() => {
            Err(Reason::new("bad_config", format!("{}: is a link that leads nowhere", path.display())))
        }
        Ok(None) => Ok(None),
        Ok(Some(bytes)) => ConfigWire::parse(&bytes).map(Some).map_err(|reason| reason.of(path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(Reason::new("bad_config", format!("{}: {e}", path.display()))),
        Err(e) => Err(file_error(&path, "read", &e)),
    }
}

/// At the start of the agent and the end of `enroll`: a damaged file is replaced by its copy, a copy that is missing or
/// another is made anew, a replacement's key goes to its place. Says what was restored. What cannot be written is tried
/// again at the next start; reading looks in all places until then.
pub fn keep(state: &State) -> Vec<Reason> {
    let mut restored = Vec::new();
    let (name, copy_name) = (state.product().config, state.product().config_copy);
    let (file, copy) = (read_config(state, name), read_config(state, copy_name));
    let done = match (config_step(&found(&file), &found(&copy)), &file) {
        (ConfigStep::Copy, _) => copy_file(state, name, copy_name),
        (ConfigStep::Restore, Err(damage)) => {
            // What is left of it stays for people to look at.
            link_aside(&state.path(name));
            copy_file(state, copy_name, name).map(|()| restored.push(said(&damage.detail, copy_name)))
        }
        _ => Ok(()),
    };
    done.unwrap_or_else(|reason| log::warn!("{reason}"));
    let public = state.config().ok().flatten().and_then(|(config, _)| config.device_key);
    match public.map(|public| device_key::settle(state, &public)) {
        Some(Ok(true)) => {
            let what = format!("{}: was another key or none", state.path(device_key::KEY).display());
            restored.push(said(&what, "its copy"));
        }
        Some(Err(reason)) => log::warn!("{reason}"),
        _ => {}
    }
    restored
}

fn found(read: &Result<Option<(ConfigWire, Vec<String>)>, Reason>) -> Found<&ConfigWire> {
    match read {
        Ok(None) => Found::Missing,
        Ok(Some((config, _))) => Found::Whole(config),
        Err(_) => Found::Damaged,
    }
}

fn said(damage: &str, from: &str) -> Reason {
    Reason::new("identity_restored", format!("{damage}; restored from {from}"))
}

fn copy_file(state: &State, from: &str, to: &str) -> Result<(), Reason> {
    let path = state.path(to);
    read_limited(&state.path(from), CONFIG_MAX)
        .and_then(|bytes| bytes.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .and_then(|bytes| write_durable(&path, &bytes, PRIVATE))
        .map_err(|e| file_error(&path, "write", &e))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests make damaged files")]
mod tests {
    use super::*;
    use crate::core::copies::KeyFile;
    use crate::core::hex;
    use crate::core::product::AGENT;
    use crate::io::device_key::{KEY, path_of};
    use crate::io::fs::cut;
    use std::fs;

    const CONFIG: &str = AGENT.config;
    const CONFIG_COPY: &str = AGENT.config_copy;

    fn enrolled() -> (tempfile::TempDir, State, ConfigWire) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("s")).unwrap();
        let key = device_key::read_or_make(&state, KeyFile::Key).unwrap();
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
        let rotten = fs::read_to_string(state.path(CONFIG)).unwrap().replace("sha256:01", "sha256:11");
        fs::write(state.path(CONFIG), rotten).unwrap();
        assert_eq!(keep(&state).len(), 1, "JSON as good as any, and another pin");
        assert_eq!(read_config(&state, CONFIG).unwrap().unwrap().0, config);
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

    /// What `enroll`, `enroll --replace`, the same identity once more, or new pins write, as their commands do. True: all
    /// of it could be.
    fn change(state: &State, kind: &str) -> bool {
        let before = state.config().ok().flatten().map(|(config, _)| config);
        let next = match (kind, before) {
            ("pins", Some(before)) => ConfigWire { pins: vec![format!("sha256:{}", hex::encode(&[2; 32]))], ..before },
            (_, before) => {
                let file = if kind == "replace" { KeyFile::New } else { KeyFile::Key };
                let Ok(key) = device_key::read_or_make(state, file) else { return false };
                ConfigWire {
                    format: 1,
                    director: "https://10.0.0.1:8443".into(),
                    pins: vec![format!("sha256:{}", hex::encode(&[1; 32]))],
                    // The Director gives the same key the same identity.
                    agent_id: format!("a-{}", &key.public()[..8]),
                    credential: if kind == "credential" { "second" } else { "first" }.into(),
                    device_key: Some(key.public()),
                    ..before.unwrap_or_default()
                }
            }
        };
        let written = state.write_config(&next).is_ok();
        keep(state);
        written
    }

    /// A folder that needs no disk where there is one: hundreds of them are synced thousands of times.
    fn in_memory() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let state = State::open(&dir.path().join("s")).unwrap();
        (dir, state)
    }

    /// Whole or not configured at all: the key is the named one, and the identity is that of the key.
    fn assert_whole(state: &State, about: &str) -> Option<ConfigWire> {
        let (config, _) = state.config().unwrap_or_else(|r| panic!("{about}: {r}"))?;
        let public = config.device_key.clone().unwrap();
        assert_eq!(device_key::of(state, &public).unwrap_or_else(|r| panic!("{about}: {r}")).public(), public, "{about}");
        assert_eq!(config.agent_id, format!("a-{}", &public[..8]), "{about}");
        Some(config)
    }

    #[test]
    fn a_power_cut_at_every_write_and_one_damaged_file_leave_an_identity_with_its_key() {
        let files: Vec<&str> = [CONFIG, CONFIG_COPY].into_iter().chain(KeyFile::ALL.map(path_of)).collect();
        let mut points = 0;
        for kind in ["enroll", "replace", "credential", "pins"] {
            for cut_at in 0.. {
                let mut writes_left = true;
                for damaged in std::iter::once(None).chain(files.iter().map(Some)) {
                    let about = format!("{kind}, cut after {cut_at} writes, {damaged:?} damaged");
                    let (_dir, state) = in_memory();
                    if kind != "enroll" {
                        change(&state, "enroll");
                    }
                    let before = assert_whole(&state, &about);
                    cut::after(cut_at);
                    change(&state, kind);
                    writes_left &= cut::is_cut();
                    cut::after(usize::MAX);
                    let parsed = read_config(&state, CONFIG).unwrap().map(|(config, _)| config);
                    if let Some(file) = damaged.filter(|file| state.path(file).exists()) {
                        fs::write(state.path(file), b"\0\0\0").unwrap();
                    }
                    let seen = assert_whole(&state, &about);
                    // What the next start does is cut, too, at each of its writes.
                    for again in 0..8 {
                        cut::after(again);
                        keep(&state);
                        cut::after(usize::MAX);
                        assert_eq!(assert_whole(&state, &about), seen, "{about}: the start, cut after {again}");
                    }
                    assert!(keep(&state).is_empty(), "{about}");
                    // Never an older configuration than the one that parsed; a newer one only for a damaged one.
                    if damaged != Some(&CONFIG) {
                        assert_eq!(seen, parsed, "{about}");
                    }
                    assert!(parsed.is_none() || parsed == before || seen == parsed, "{about}: older than what was written");
                    assert!(before.is_none() || seen.is_some(), "{about}: no identity");
                    // The operator says it again: the change is there, and nothing of it is left over.
                    assert!(change(&state, kind), "{about}");
                    let config = assert_whole(&state, &about).unwrap();
                    assert!(kind != "pins" || config.pins[0].contains("0202"), "{about}");
                    assert!(kind != "credential" || config.credential == "second", "{about}");
                    assert!(!state.path(path_of(KeyFile::New)).exists(), "{about}");
                    points += 1;
                }
                if !writes_left {
                    break;
                }
            }
        }
        assert!(points > 100, "{points}");
    }
}
