//! The launcher's device as it is: marks, slot files, root metadata, exec.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::launcher::Site;
use super::run::{ENV_IMAGE, ENV_LOCK, ENV_RUNNING};
use super::{build, download, fault, trial};
use crate::core::hex::Sha256;
use crate::core::reason::Reason;
use crate::core::slots::{Condition, Marks, Slot};
use crate::core::trust::Trusted;
use crate::io::fs::{open_plain, read_limited};
use crate::io::lock::Lock;
use crate::io::process::Ended;
use crate::io::state::State;
use crate::io::trust_store::load_root_chain;
use crate::io::{clock, process};

/// Largest root metadata file, bytes.
const ROOT_MAX: u64 = 64 * 1024;
/// A system short of memory or descriptors right after boot may have them a moment later: tries and pause of an exec.
const EXEC_TRIES: u32 = 4;
const EXEC_PAUSE: Duration = Duration::from_millis(100);
/// The root could not be read now; it may be a moment later.
pub const ROOT_UNREADABLE: &str = "root_unreadable";

/// The launcher's device.
pub struct Host<'a> {
    words: &'a [String],
    state: State,
    lock: &'a Lock,
    image: PathBuf,
    own_hash: Sha256,
    copy: Option<usize>,
    sequence: u64,
    confirmed: [bool; 2],
    /// For the next program, beside what every one gets.
    pub more_env: Vec<(&'static str, String)>,
    /// How the program ended that was started, where it comes back.
    pub ended: Option<Ended>,
}

impl<'a> Host<'a> {
    /// `words` are the arguments for the next program, `image` is the factory image's path, `own_hash` its hash.
    pub fn new(words: &'a [String], state: State, lock: &'a Lock, image: PathBuf, own_hash: Sha256) -> Host<'a> {
        Host { words, state, lock, image, own_hash, copy: None, sequence: 0, confirmed: [false; 2], more_env: Vec::new(), ended: None }
    }
}

impl Host<'_> {
    fn roots(&self) -> Result<Trusted, Reason> {
        factory_root(&self.image).and_then(|root| load_root_chain(&self.state.trust(), &root))
    }
}

impl Site for Host<'_> {
    fn load(&mut self) -> Marks {
        let loaded = self.state.load_marks();
        if let Some(note) = &loaded.note {
            log::warn!("{note}");
        }
        (self.copy, self.sequence) = (loaded.from, loaded.marks.sequence);
        loaded.marks
    }

    fn factory(&mut self) -> Sha256 {
        self.own_hash
    }

    fn boot_id(&mut self) -> String {
        clock::boot_id()
    }

    fn save(&mut self, marks: &Marks) -> Result<(), Reason> {
        self.confirmed = Slot::BOTH.map(|slot| marks.slot(slot).condition == Condition::Confirmed);
        let (saved, copy) = self.state.save_marks(marks.clone(), self.copy, self.sequence)?;
        (self.copy, self.sequence) = (Some(copy), saved.sequence);
        Ok(())
    }

    fn check(&mut self, slot: Slot, sha256: &Sha256) -> Result<(), Reason> {
        let artifact = self.state.slot_json(slot)?.artifact().map_err(|why| Reason::new("slot_damaged", why))?;
        if artifact.sha256 != *sha256 {
            return Err(Reason::new("slot_damaged", "slot.json speaks of another file than the marks"));
        }
        let path = self.state.slot_program(slot);
        let damaged = |why: String| Reason::new("slot_damaged", format!("{}: {why}", path.display()));
        let mut file = open_plain(&path).map_err(|e| Reason::new("slot_missing", format!("{}: {e}", path.display())))?;
        let trusted = (1..EXEC_TRIES).fold(self.roots(), |roots, _| match roots {
            Err(reason) if reason.code == ROOT_UNREADABLE => {
                process::sleep(EXEC_PAUSE);
                self.roots()
            }
            roots => roots,
        });
        match trusted {
            Ok(trusted) => {
                let key = trusted.build_key(&artifact.build_keyid);
                let key = key.ok_or_else(|| Reason::new("slot_signature", "the trusted root does not list this slot's build key"))?;
                let checked = download::check_file(&mut file, &artifact, key).map_err(|e| damaged(e.to_string()))?;
                checked.map_err(|reason| damaged(reason.to_string()))
            }
            // Who can take the root away from the image can replace the image: for a version that was confirmed, its hash is
            // enough to go on, and both slots are not lost with one file.
            Err(reason) if self.confirmed[slot as usize] => {
                log::warn!("slot {} is checked by its hash only: {reason}", slot.name());
                match trial::hash_file(&path) {
                    Ok(hash) if hash == *sha256 => Ok(()),
                    Ok(_) => Err(damaged("its hash is another one".into())),
                    Err(e) => Err(damaged(e.to_string())),
                }
            }
            Err(reason) => Err(reason),
        }
    }

    fn start(&mut self, slot: Slot) -> Result<(), Reason> {
        let mut env = vec![(ENV_RUNNING, slot.name().to_string()), (ENV_IMAGE, self.image.display().to_string())];
        if let Ok(fd) = self.lock.pass_on() {
            env.push((ENV_LOCK, fd.to_string()));
        }
        env.extend(self.more_env.iter().cloned());
        let program = self.state.slot_program(slot);
        process::alarm(fault::times().liveness_s);
        let mut ended = process::exec(&program, self.words, &env, &[]);
        for _ in 1..EXEC_TRIES {
            if !ended.as_ref().is_err_and(process::is_short) {
                break;
            }
            process::sleep(EXEC_PAUSE);
            ended = process::exec(&program, self.words, &env, &[]);
        }
        process::alarm(0);
        self.lock.keep();
        self.ended = Some(ended.map_err(|error| Reason::new("exec_failed", format!("{}: {error}", program.display())))?);
        Ok(())
    }

    fn tell(&mut self, what: &str) {
        log::warn!("{what}");
    }
}

/// The root of the factory date: beside the image, else built in. The newer of the two would be found by the walk anyway.
pub fn factory_root(image: &Path) -> Result<Vec<u8>, Reason> {
    let path = image.with_file_name("root.json");
    match read_limited(&path, ROOT_MAX) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) if !build::ROOT.is_empty() => Ok(build::ROOT.to_vec()),
        Ok(None) => Err(Reason::new(
            "no_root",
            format!("{}: is missing; put the root.json of `vmetric-release init` beside the image", path.display()),
        )),
        Err(e) if process::is_lack(&e) => Err(Reason::new(ROOT_UNREADABLE, format!("{}: {e}", path.display()))),
        Err(e) => Err(Reason::new("no_root", format!("{}: {e}", path.display()))),
    }
}
