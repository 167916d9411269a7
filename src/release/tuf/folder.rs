//! The two folders of `tuf`: trusted metadata, byte for byte as received, and verified targets.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::core::trust::{ROOT_MAX, SNAPSHOT_MAX, TARGETS_MAX, TIMESTAMP_MAX, TargetCheck, TargetFile, Trusted, quoted};
use crate::io::fs::{PUBLIC, make_folder, open_plain, remove_if_there, sync_folder_of, write_durable};
use crate::release::args::Parsed;
use crate::release::failure::{Failure, Result};
use crate::release::files;

/// Bytes of a target handled at once.
const PIECE: usize = 64 * 1024;
/// Names that are devices on Windows, with any ending.
const RESERVED: [&str; 4] = ["con", "prn", "aux", "nul"];
/// The same with a digit behind them.
const NUMBERED: [&str; 2] = ["com", "lpt"];

/// `root.json timestamp.json snapshot.json targets.json <role>.json` and nothing else.
pub struct Metadata(PathBuf);

/// Targets, each in one file: its path, percent-quoted.
pub struct Targets(PathBuf);

impl Metadata {
    /// The folder of `--metadata-dir`.
    pub fn at(parsed: &Parsed) -> Result<Metadata> {
        Ok(Metadata(parsed.need("metadata-dir")?.into()))
    }

    /// What is stored, verified again: all of it stems from the stored root. What no longer holds is left out.
    pub fn load(&self) -> Result<Trusted> {
        let path = self.path("root");
        let root = files::read_if_there(&path, ROOT_MAX)?;
        let none = || Failure::new("no_root", format!("{}: there is no trusted root; 'tuf init ROOT' puts it there", path.display()));
        let mut trusted = Trusted::bootstrap_foreign(&root.ok_or_else(none)?).map_err(super::refused)?;
        let [timestamp, snapshot, targets] = [("timestamp", TIMESTAMP_MAX), ("snapshot", SNAPSHOT_MAX), ("targets", TARGETS_MAX)]
            .map(|(role, limit)| files::read_if_there(&self.path(role), limit).ok().flatten());
        trusted.restore_top(timestamp.as_deref(), snapshot.as_deref(), targets.as_deref());
        let mut tried = Vec::new();
        while let Some(role) = trusted.unloaded().into_iter().find(|role| !tried.contains(role)) {
            if let Ok(Some(bytes)) = files::read_if_there(&self.path(&role), TARGETS_MAX) {
                // One that does not hold any more is fetched again when it is needed.
                let _ = trusted.restore_delegated(&role, &bytes);
            }
            tried.push(role);
        }
        Ok(trusted)
    }

    /// Keeps what is trusted from now on.
    pub fn put(&self, role: &str, bytes: &[u8]) -> Result<()> {
        make_folder(&self.0).and_then(|()| write_durable(&self.path(role), bytes, PUBLIC)).map_err(|e| unwritable(&self.path(role), &e))
    }

    /// Forgets a role.
    pub fn remove(&self, role: &str) -> Result<()> {
        remove_if_there(&self.path(role)).map_err(|e| unwritable(&self.path(role), &e))
    }

    fn path(&self, role: &str) -> PathBuf {
        self.0.join(format!("{}.json", file_name(role)))
    }
}

impl Targets {
    /// The folder of `--target-dir`.
    pub fn at(folder: &Path) -> Targets {
        Targets(folder.into())
    }

    /// Where a target goes: always directly into the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(file_name(name))
    }

    /// Is it there already, with the right bytes? A link to them is not.
    pub fn has(&self, path: &Path, name: &str, file: &TargetFile) -> bool {
        files::length(path).is_ok() && open_plain(path).is_ok_and(|mut old| copy(&mut old, None, name, file.clone()).is_ok())
    }

    /// Writes the target, if every check holds; nothing of it stays otherwise.
    pub fn write(&self, path: &Path, name: &str, file: TargetFile, body: &mut dyn Read) -> Result<()> {
        let temp = self.0.join(format!(".{}.tmp", std::process::id()));
        let begin = || {
            make_folder(&self.0)?;
            remove_if_there(&temp)?;
            File::options().write(true).create_new(true).open(&temp)
        };
        let mut out = begin().map_err(|e| unwritable(&temp, &e))?;
        let written = copy(body, Some(&mut out), name, file).and_then(|()| {
            let end = out.sync_all().and_then(|()| fs::rename(&temp, path)).and_then(|()| sync_folder_of(path));
            end.map_err(|e| unwritable(path, &e))
        });
        // Gone already when all went well.
        let _ = remove_if_there(&temp);
        written
    }
}

/// Length while streaming, then the hashes.
fn copy(body: &mut dyn Read, mut out: Option<&mut File>, name: &str, file: TargetFile) -> Result<()> {
    let mut check = TargetCheck::new(name, file);
    let mut piece = vec![0; PIECE];
    loop {
        let n = body.read(&mut piece).map_err(|e| Failure::new("unreachable", format!("{name}: {e}")))?;
        if n == 0 {
            return check.finish().map_err(super::refused);
        }
        check.absorb(&piece[..n]).map_err(super::refused)?;
        if let Some(out) = &mut out {
            out.write_all(&piece[..n]).map_err(|e| Failure::new("io", format!("{name}: cannot be written: {e}")))?;
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new("io", format!("{}: cannot be written: {error}", path.display()))
}

/// A file name on every system: percent-quoted, and the first character too where the plain name would be a device or a
/// folder (`CON`, `..`).
fn file_name(name: &str) -> String {
    let out = quoted(name);
    let stem = out.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered =
        NUMBERED.iter().any(|device| stem.strip_prefix(device).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit()));
    if stem.is_empty() || numbered || RESERVED.contains(&stem.as_str()) {
        let (first, rest) = out.split_at_checked(1).unwrap_or(("", ""));
        return first.bytes().map(|b| format!("%{b:02X}")).collect::<String>() + rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder_on_every_system() {
        for (name, expected) in [
            ("role", "role"),
            ("a/b", "a%2Fb"),
            ("..", "%2E."),
            (".", "%2E"),
            (".hidden", "%2Ehidden"),
            ("../x", "%2E.%2Fx"),
            ("C:\\x", "C%3A%5Cx"),
            ("CON", "%43ON"),
            ("nul.txt", "%6Eul.txt"),
            ("com1", "%63om1"),
            ("com10", "com10"),
            ("console", "console"),
            ("a%2Fb", "a%252Fb"),
            ("", ""),
        ] {
            assert_eq!(file_name(name), expected, "{name}");
        }
    }
}
