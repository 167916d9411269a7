//! A device in a folder: the real agent as its factory image, signed slots, a state folder with everything in it.
#![allow(clippy::disallowed_methods, reason = "tests write files, wait, and read the clock")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ed25519_compact::{KeyPair, Seed};
use vmetric::core::hex;
use vmetric::core::release::{Artifact, Platform, build_prefix};
use vmetric::core::slots::{Marks, Slot};
use vmetric::wire::marks::{decode, encode, newest};
use vmetric::wire::slot::{SlotWire, confirmed_text};

/// Longest that a device may take to run something.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Most of a log that is looked at, bytes.
const SAID_MAX: usize = 4_000;
/// The program that makes the devices.
pub const AGENT: &str = env!("CARGO_BIN_EXE_vmetric-agent");

/// One device.
pub struct Rig {
    dir: tempfile::TempDir,
}

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed(Seed::new([seed; 32]))
}

/// Root metadata that lists the build key `seed`.
pub fn root_json(seed: u8) -> String {
    let (own, build) = (key(7), key(seed));
    let listed = |key: &KeyPair| format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#, hex::encode(&*key.pk));
    let role = r#"{"keyids":["own"],"threshold":1}"#;
    let signed = format!(
        r#"{{"_type":"root","consistent_snapshot":true,"expires":"2036-01-01T00:00:00Z","keys":{{"own":{}}},"roles":{{"root":{role},"snapshot":{role},"targets":{role},"timestamp":{role}}},"spec_version":"1.0.31","version":1,"x-vmetric-build-keys":{{"build":{}}}}}"#,
        listed(&own),
        listed(&build)
    );
    let sig = hex::encode(&*own.sk.sign(signed.as_bytes(), None));
    format!(r#"{{"signatures":[{{"keyid":"own","sig":"{sig}"}}],"signed":{signed}}}"#)
}

/// A build signature. The agent's own is asked for by many devices and takes a while, so it is remembered.
fn build_sig(path: &str, program: &[u8], seed: u8) -> [u8; 64] {
    static OF_AGENT: Mutex<Option<(String, [u8; 64])>> = Mutex::new(None);
    let mut known = OF_AGENT.lock().unwrap_or_else(PoisonError::into_inner);
    let large = program.len() > 1_000_000 && seed == 1;
    if let Some((_, sig)) = known.as_ref().filter(|(of, _)| large && of == path) {
        return *sig;
    }
    let message = [&build_prefix(path, program.len() as u64), program].concat();
    let sig = *key(seed).sk.sign(message, None);
    if large {
        *known = Some((path.to_string(), sig));
    }
    sig
}

/// A slot program that says that it runs and then waits to be killed.
pub fn script(name: &str) -> Vec<u8> {
    format!("#!/bin/sh\necho \"a script runs: {name}\" >&2\nexec sleep 60\n").into_bytes()
}

impl Rig {
    /// A device with an empty state folder: it has never run.
    pub fn new() -> Rig {
        let rig = Rig { dir: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
        fs::create_dir_all(rig.path("image")).unwrap();
        fs::hard_link(AGENT, rig.image()).unwrap();
        fs::write(rig.path("image/root.json"), root_json(1)).unwrap();
        for folder in ["slots/a", "slots/b", "config", "trust", "storage"] {
            fs::create_dir_all(rig.state().join(folder)).unwrap();
        }
        rig
    }

    /// A device with both slots confirmed, A active: scripts that say who they are.
    pub fn with_slots() -> Rig {
        let rig = Rig::new();
        rig.install(Slot::B, &script("b"));
        rig.install(Slot::A, &script("a"));
        let marks = Marks::default();
        let marks = marks.start_trial(Slot::B, rig.hash(Slot::B)).confirm(Slot::B, 1, "long ago", 0);
        rig.write_marks(&marks.start_trial(Slot::A, rig.hash(Slot::A)).confirm(Slot::A, 1, "long ago", 0));
        rig
    }

    /// A path of the device.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Its factory image.
    pub fn image(&self) -> PathBuf {
        self.path("image/vmetric-agent")
    }

    /// A file of a slot.
    pub fn in_slot(&self, slot: Slot, name: &str) -> PathBuf {
        self.state().join("slots").join(slot.name()).join(name)
    }

    /// Hash of a slot's program.
    pub fn hash(&self, slot: Slot) -> [u8; 32] {
        hex::sha256(&fs::read(self.in_slot(slot, "vmetric-agent")).unwrap())
    }

    /// Puts a program into a slot with all that belongs to it, signed, and confirmed in its own folder.
    pub fn install(&self, slot: Slot, program: &[u8]) {
        self.install_signed(slot, program, 1);
    }

    /// The same, signed by the build key `seed`.
    pub fn install_signed(&self, slot: Slot, program: &[u8], seed: u8) {
        let path = format!("vmetric-agent/2.0.{}/{}/vmetric-agent", slot as u8, Platform::here());
        let artifact = Artifact {
            path: path.parse().unwrap(),
            length: program.len() as u64,
            sha256: hex::sha256(program),
            min_version: None,
            counter: 1,
            build_keyid: "build".into(),
            build_sig: build_sig(&path, program, seed),
        };
        let file = self.in_slot(slot, "vmetric-agent");
        crate::write_program(&file, program);
        fs::write(self.in_slot(slot, "slot.json"), miniserde::json::to_string(&SlotWire::new(&artifact, "site", 1))).unwrap();
        fs::write(self.in_slot(slot, "confirmed"), confirmed_text(&artifact.sha256, 5 - slot as u64)).unwrap();
    }

    /// Writes both copies of the marks, the second one as the newer.
    pub fn write_marks(&self, marks: &Marks) {
        for copy in 0..2 {
            let marks = Marks { sequence: 10 + copy, factory: image_hash(), ..marks.clone() };
            fs::write(self.state().join(format!("marks.{copy}")), encode(&marks)).unwrap();
        }
    }

    /// The marks on disk.
    pub fn marks(&self) -> Marks {
        let read = |copy: u32| decode(&fs::read(self.state().join(format!("marks.{copy}"))).unwrap_or_default());
        newest([read(0), read(1)]).unwrap().0
    }

    /// The command that starts the device's agent.
    pub fn command(&self) -> Command {
        self.command_of(Command::new(self.image()))
    }

    /// `command` with the agent's arguments, an environment of its own, and its log in a file.
    pub fn command_of(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VMETRIC_")) {
            command.env_remove(name);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        command.env("VMETRIC_RESPAWN", "1").args(["run", "--state"]).arg(self.state());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    fn log(&self) -> PathBuf {
        self.path("log")
    }

    /// What was logged so far.
    pub fn said(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(SAID_MAX)..]).into_owned()
    }

    /// Starts the agent.
    pub fn start(&self) -> Process {
        Process(self.command().spawn().unwrap())
    }

    /// Starts the agent, as a service manager again when it ends, until something runs: its name.
    pub fn runs(&self) -> String {
        self.run_until_it_runs().1
    }

    /// The same with the process.
    pub fn run_until_it_runs(&self) -> (Process, String) {
        let began = Instant::now();
        let mut process = self.start();
        loop {
            if let Some(name) = self.running_image() {
                return (process, name);
            }
            assert!(began.elapsed() < PATIENCE, "nothing runs:\n{}", self.said());
            if process.0.try_wait().unwrap().is_some() {
                // A service manager waits before it starts a program again, too.
                std::thread::sleep(Duration::from_millis(20));
                process = self.start();
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// `a`, `b` or `factory`, as logged last.
    pub fn running_image(&self) -> Option<String> {
        let said = self.said();
        let line = said.lines().rev().find(|line| line.contains(" runs: "))?;
        line.split(" runs: ").nth(1)?.split_whitespace().next().map(String::from)
    }
}

/// A process that does not outlive its test.
pub struct Process(pub Child);

impl Process {
    /// Sends a signal; to nobody if it has ended.
    pub fn signal(&self, signal: i32) {
        let kill = Command::new("kill").args([format!("-{signal}"), self.0.id().to_string()]).stderr(Stdio::null()).status();
        kill.unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            if began.elapsed() > at_most {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Hash of the program under test; it is large, so once.
pub fn image_hash() -> [u8; 32] {
    static HASH: std::sync::OnceLock<[u8; 32]> = std::sync::OnceLock::new();
    *HASH.get_or_init(|| vmetric::agent::trial::hash_file(Path::new(AGENT)).unwrap())
}
