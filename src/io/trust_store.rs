//! The folder `<state>/trust/`: trusted metadata that outlives the process.
//!
//! | file | what |
//! |---|---|
//! | `N.root.json` | every root above the factory one: a launcher walks them up, so a tampered folder brings in no key |
//! | `timestamp.json` `snapshot.json` `targets.json` | as received |
//! | `<sha256 of the name, hex>.json` | a delegated role: its name is no file name (case, `CON`, `:`, `..`) |
//!
//! **Invariant.** Nothing here is believed: all of it is verified again when it is loaded. A file that is damaged, missing
//! or no plain file is left out with a reason, and the next refresh fetches it anew; in the worst case the device is back
//! at its factory root and walks up again.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::fs::write_durable;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::trust::{
    Fetched, Goal, Now, Outcome, Persist, ROOT_MAX, Refresh, Refusal, SNAPSHOT_MAX, TARGETS_MAX, TIMESTAMP_MAX, TOP_LEVEL, Trusted, Want,
};

/// Readable by the service only: nothing in it is secret, and nobody else has business with it.
const MODE: u32 = 0o600;

/// The folder, opened.
#[derive(Debug)]
pub struct TrustStore {
    dir: PathBuf,
    left_out: Vec<Reason>,
}

/// Fetches one file of the repository's metadata folder: its name and the most bytes to read; `None` = no such file.
pub type Fetcher<'a, E> = dyn FnMut(&str, u64) -> Result<Option<Vec<u8>>, E> + 'a;

/// Why [`TrustStore::refresh`] ended before its end.
#[derive(Debug)]
pub enum Stopped<E> {
    /// A check did not hold.
    Refused(Refusal),
    /// The caller's fetch failed: nobody answered. Nothing is wrong with what is trusted.
    Fetch(E),
    /// What was trusted could not be made durable.
    Store(Reason),
}

impl<E: Into<Reason>> From<Stopped<E>> for Reason {
    fn from(stopped: Stopped<E>) -> Reason {
        match stopped {
            Stopped::Refused(refusal) => refusal.into(),
            Stopped::Fetch(e) => e.into(),
            Stopped::Store(reason) => reason,
        }
    }
}

impl TrustStore {
    /// Opens the folder (made if it is not there) and loads what is in it. Only a factory root that is none is an error.
    pub fn open(dir: &Path, factory_root: &[u8]) -> Result<(TrustStore, Trusted), Reason> {
        let mut trusted = Trusted::bootstrap(factory_root)?;
        let mut store = TrustStore { dir: dir.to_path_buf(), left_out: Vec::new() };
        if let Err(e) = fs::create_dir_all(dir) {
            store.left_out.push(unreadable(dir, &e.to_string()));
        }
        walk_roots(dir, &mut trusted, &mut store.left_out);
        store.load_top(&mut trusted);
        store.load_delegated(&mut trusted);
        Ok((store, trusted))
    }

    /// What was left out when the folder was opened, with the reason; each is told once.
    pub fn take_left_out(&mut self) -> Vec<Reason> {
        std::mem::take(&mut self.left_out)
    }

    /// Makes one step of a refresh durable.
    pub fn persist(&self, step: &Persist) -> Result<(), Reason> {
        let path = self.dir.join(file_name(&step.role, step.version));
        let done = match &step.bytes {
            Some(bytes) => write_durable(&path, bytes, MODE),
            None => remove(&path),
        };
        let advice = "check space and permissions of the state folder";
        done.map_err(|e| Reason::new("trust_store_write", format!("{}: {e}; {advice}", path.display())))
    }

    /// A whole refresh: asks `fetch` for one file after the other and makes each step durable before the next one. Whatever
    /// happens, what was validly trusted comes back.
    pub fn refresh<E>(&self, trusted: Trusted, now: Now, goal: Goal, fetch: &mut Fetcher<'_, E>) -> (Trusted, Result<Outcome, Stopped<E>>) {
        let mut refresh = Refresh::new(trusted, now, goal);
        let stopped = self.drive(&mut refresh, fetch).err();
        let (trusted, outcome) = refresh.finish();
        match (stopped, outcome.refused.clone()) {
            (Some(stopped), _) => (trusted, Err(stopped)),
            (None, Some(refusal)) => (trusted, Err(Stopped::Refused(refusal))),
            (None, None) => {
                if outcome.complete {
                    self.remove_unnamed(&trusted);
                }
                (trusted, Ok(outcome))
            }
        }
    }

    /// Files of delegated roles that nobody names any more. They are never loaded, so one that cannot be removed does no
    /// harm and the next refresh tries again. Roots stay: an older factory image walks them up.
    fn remove_unnamed(&self, trusted: &Trusted) {
        let named: Vec<String> = trusted.named().iter().map(|role| file_name(role, 0)).collect();
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            let is_role = name.strip_suffix(".json").is_some_and(|stem| hex::decode::<32>(stem).is_some());
            if is_role && !named.contains(&name) {
                let _ = remove(&self.dir.join(name));
            }
        }
    }

    fn drive<E>(&self, refresh: &mut Refresh, fetch: &mut Fetcher<'_, E>) -> Result<(), Stopped<E>> {
        while let Want::Fetch(file) = refresh.want() {
            let bytes = fetch(&file.name, file.limit).map_err(Stopped::Fetch)?;
            let fetched = bytes.as_deref().map_or(Fetched::NotFound, Fetched::Bytes);
            for step in refresh.give(fetched).map_err(Stopped::Refused)? {
                self.persist(&step).map_err(Stopped::Store)?;
            }
        }
        Ok(())
    }

    fn load_top(&mut self, trusted: &mut Trusted) {
        let limits = [TIMESTAMP_MAX, SNAPSHOT_MAX, TARGETS_MAX];
        let mut found: [Option<Vec<u8>>; 3] = [None, None, None];
        for (i, role) in ["timestamp", "snapshot", "targets"].into_iter().enumerate() {
            found[i] = self.load(role, limits[i]);
        }
        let [timestamp, snapshot, targets] = &found;
        let left_out = trusted.restore_top(timestamp.as_deref(), snapshot.as_deref(), targets.as_deref());
        self.left_out.extend(left_out.into_iter().map(Reason::from));
    }

    /// Delegated roles, level by level. One that is not there was never needed on this device.
    fn load_delegated(&mut self, trusted: &mut Trusted) {
        let mut tried: Vec<String> = Vec::new();
        loop {
            let fresh: Vec<String> = trusted.unloaded().into_iter().filter(|role| !tried.contains(role)).collect();
            if fresh.is_empty() {
                return;
            }
            for role in fresh {
                if let Some(bytes) = self.load(&role, TARGETS_MAX)
                    && let Err(refusal) = trusted.restore_delegated(&role, &bytes)
                {
                    self.left_out.push(refusal.into());
                }
                tried.push(role);
            }
        }
    }

    fn load(&mut self, role: &str, limit: u64) -> Option<Vec<u8>> {
        read(&self.dir.join(file_name(role, 0)), limit).unwrap_or_else(|reason| {
            self.left_out.push(reason);
            None
        })
    }
}

/// Only the roots: what a launcher needs to know the build keys. No signature but theirs is verified.
pub fn load_root_chain(dir: &Path, factory_root: &[u8]) -> Result<Trusted, Reason> {
    let mut trusted = Trusted::bootstrap(factory_root)?;
    walk_roots(dir, &mut trusted, &mut Vec::new());
    Ok(trusted)
}

/// All of them, however many: a start must know the newest keys, and each step needs a file that the step before vouches for.
fn walk_roots(dir: &Path, trusted: &mut Trusted, left_out: &mut Vec<Reason>) {
    loop {
        let next = trusted.versions()[0].saturating_add(1);
        let reason = match read(&dir.join(file_name("root", next)), ROOT_MAX) {
            Ok(None) => return,
            Ok(Some(bytes)) => match trusted.restore_root(&bytes) {
                Ok(()) => continue,
                Err(refusal) => refusal.into(),
            },
            Err(reason) => reason,
        };
        left_out.push(reason);
        return;
    }
}

fn file_name(role: &str, version: u64) -> String {
    match role {
        "root" => format!("{version}.root.json"),
        top if TOP_LEVEL.contains(&top) => format!("{top}.json"),
        delegated => format!("{}.json", hex::encode(&hex::sha256(delegated.as_bytes()))),
    }
}

/// A plain file of at most `limit` bytes. A link, a pipe or a folder in its place is not followed and not waited for.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Reason> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(path, &e.to_string())),
        Ok(meta) => meta,
    };
    if !meta.is_file() {
        return Err(unreadable(path, "it is no plain file"));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Err(e) => Err(unreadable(path, &e.to_string())),
        Ok(_) if bytes.len() as u64 > limit => Err(unreadable(path, &format!("it has more than {limit} bytes"))),
        Ok(_) => Ok(Some(bytes)),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn unreadable(path: &Path, why: &str) -> Reason {
    Reason::new("trust_store_read", format!("{}: {why}; it is fetched again", path.display()))
}
