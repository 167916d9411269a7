//! A release engineer's desk: a folder, keys in the environment, and the real program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The time at which most tests work, so that their output is reproducible.
pub const NOW: &str = "2026-11-22T12:00:00Z";
/// The passphrase of every key folder.
pub const PASSPHRASE: &str = "correct horse battery staple";

/// A temporary folder in which commands run.
pub struct Bench {
    folder: tempfile::TempDir,
    env: BTreeMap<String, String>,
    umask: &'static str,
}

/// A command's end.
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Bench {
    /// An empty folder, and the passphrase in the environment.
    pub fn new() -> Bench {
        let env = BTreeMap::from([("VMETRIC_RELEASE_PASSPHRASE".to_string(), PASSPHRASE.to_string())]);
        Bench { folder: tempfile::tempdir().unwrap(), env, umask: "022" }
    }

    /// Runs the commands under another umask.
    pub fn set_umask(&mut self, umask: &'static str) {
        self.umask = umask;
    }

    /// The same with all keys in the environment, so that no key is random and no passphrase is needed.
    pub fn with_seeds() -> Bench {
        let mut bench = Bench { folder: tempfile::tempdir().unwrap(), env: BTreeMap::new(), umask: "022" };
        let counts = [("ROOT", 5), ("TARGETS", 3), ("SNAPSHOT", 1), ("TIMESTAMP", 1), ("BUILD", 1)];
        let platforms = [("AGENT_LINUX_AMD64", 1), ("AGENT_LINUX_ARM64", 1), ("DIRECTOR_LINUX_AMD64", 1), ("NOTES", 1)];
        for (i, (role, count)) in counts.into_iter().chain(platforms).enumerate() {
            let seeds: Vec<String> = (0..count).map(|n| seed(i, n)).collect();
            bench.set(&format!("VMETRIC_KEY_{role}"), &seeds.join(","));
        }
        bench
    }

    /// Sets a variable for the commands.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.into(), value.into());
    }

    /// Takes a variable away from the commands.
    pub fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(&path).and_then(|mut f| std::io::Write::write_all(&mut f, bytes)).unwrap();
    }

    /// Runs a command line with `--now` appended, unless it has one or takes none. Files that `add` gets here are any bytes:
    /// what is said of them is checked with [`Bench::run_as_is`] (`release_inspect`).
    pub fn run(&self, line: &str) -> Ended {
        match line.starts_with("add ") {
            true => self.run_as_is(&format!("{line} --unchecked any-bytes")),
            false => self.run_as_is(line),
        }
    }

    /// The same, and nothing else appended.
    pub fn run_as_is(&self, line: &str) -> Ended {
        let mut args: Vec<&str> = line.split_whitespace().collect();
        if !args.contains(&"--now") && !matches!(args.first(), Some(&"keys" | &"list" | &"inspect" | &"package")) {
            args.extend(["--now", NOW]);
        }
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {}; exec \"$0\" \"$@\"", self.umask), env!("CARGO_BIN_EXE_vmetric-release")]);
        command.current_dir(self.folder.path()).args(args);
        for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("VMETRIC_")) {
            command.env_remove(name);
        }
        let output: Output = command.envs(&self.env).stdin(std::process::Stdio::null()).output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command line that has to succeed; answers its output.
    pub fn good(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 0, "{line}\n{}{}", ended.out, ended.err);
        ended.out
    }

    /// Runs a command line that has to fail with exit 1; answers what it says.
    pub fn bad(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 1, "{line}\n{}{}", ended.out, ended.err);
        ended.out + &ended.err
    }

    /// `init` and one agent for linux-amd64 in version 1.0.0, published in `public`.
    pub fn published(&self) {
        self.write("vmetric-agent", b"agent 1.0.0");
        self.good("init --repo release --keys keys");
        self.add("1.0.0");
        self.release();
    }

    /// Adds the file `vmetric-agent`.
    pub fn add(&self, version: &str) {
        self.good(&add_line(version));
    }

    /// Signs and publishes.
    pub fn release(&self) {
        self.good("sign --repo release --keys keys");
        self.good("publish --repo release --out public");
    }

    /// Every file under a folder: relative path to content.
    pub fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        collect(&self.path(folder), "", &mut out);
        out
    }

    /// The only file under `public/targets` whose path contains `part`.
    pub fn published_artifact(&self, part: &str) -> PathBuf {
        let names: Vec<String> = self.files("public/targets").into_keys().filter(|n| n.contains(part)).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        self.path("public/targets").join(&names[0])
    }
}

/// The command line that adds the file `vmetric-agent` for linux-amd64.
pub fn add_line(version: &str) -> String {
    format!("add --repo release --keys keys --product vmetric-agent --version {version} --os linux --arch amd64 vmetric-agent")
}

/// The seed number `n` of the role number `role`: any 32 bytes that differ. (32 zeros are refused as a key.)
pub fn seed(role: usize, n: usize) -> String {
    format!("{:02x}{n:02x}", role + 1).repeat(16)
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn collect(folder: &Path, prefix: &str, out: &mut BTreeMap<String, Vec<u8>>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), out);
        } else {
            out.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}
