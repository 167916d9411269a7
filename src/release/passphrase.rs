//! The passphrase of the key folder: from a file, the environment, or the terminal without echo. Never an argument,
//! because every user of a machine can read the arguments of its processes.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::failure::{Failure, Result};
use super::files;
use super::keyfile::Secret;

/// Where programs put the passphrase.
pub const VARIABLE: &str = "VMETRIC_RELEASE_PASSPHRASE";
/// Shortest passphrase for new keys: argon2id slows guessing down, it does not save a short word.
const SHORTEST: usize = 12;
/// Largest passphrase file.
const FILE_MAX: u64 = 4096;

/// Where to look, in this order.
pub struct Source {
    /// `--passphrase-file`.
    pub file: Option<PathBuf>,
    /// The value of [`VARIABLE`].
    pub variable: Option<Secret>,
}

impl Source {
    /// The passphrase. For `new` keys it must be long enough, and a person types it twice.
    pub fn read(&self, new: bool) -> Result<Secret> {
        let found = match (&self.file, &self.variable) {
            (Some(path), _) => from_file(path)?,
            (None, Some(text)) => text.clone(),
            (None, None) => from_terminal(new)?,
        };
        if found.0.is_empty() {
            return Err(Failure::new("no_passphrase", "the passphrase is empty; give one"));
        }
        if new && found.0.len() < SHORTEST {
            return Err(Failure::new(
                "short_passphrase",
                format!("the passphrase for new keys needs at least {SHORTEST} bytes; choose a longer one"),
            ));
        }
        Ok(found)
    }
}

fn from_file(path: &Path) -> Result<Secret> {
    let mut bytes = Secret(files::read(path, FILE_MAX)?);
    while matches!(bytes.0.last(), Some(b'\n' | b'\r')) {
        bytes.0.pop();
    }
    Ok(bytes)
}

fn from_terminal(new: bool) -> Result<Secret> {
    if !std::io::stdin().is_terminal() || !cfg!(unix) {
        let text = format!("the keys are encrypted and there is no terminal to ask at; set {VARIABLE} or give --passphrase-file FILE");
        return Err(Failure::new("no_passphrase", text));
    }
    let first = ask("Passphrase of the release keys: ")?;
    if new && ask("The same again: ")? != first {
        return Err(Failure::new("no_passphrase", "the two passphrases differ; start again"));
    }
    Ok(first)
}

/// Switches the terminal's echo off, and back on when dropped. Ctrl-C ends the line instead of the program while it is
/// off, so that nobody is left with a silent terminal.
struct Silent(String);

impl Silent {
    fn start() -> Result<Silent> {
        let failed = || Failure::new("no_passphrase", format!("the terminal's echo cannot be switched off (stty); set {VARIABLE} instead"));
        let before = stty(&["-g"]).ok_or_else(failed)?;
        stty(&["-echo", "-isig", "eol", "^C"]).ok_or_else(failed)?;
        Ok(Silent(before.trim().to_string()))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        stty(&[&self.0]);
        eprintln!();
    }
}

fn stty(args: &[&str]) -> Option<String> {
    let out = Command::new("stty").args(args).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

fn ask(prompt: &str) -> Result<Secret> {
    let failed = |e: std::io::Error| Failure::new("no_passphrase", format!("the terminal cannot be read: {e}"));
    let _silent = Silent::start()?;
    eprint!("{prompt}");
    std::io::stderr().flush().map_err(failed)?;
    let mut line = Secret(Vec::new());
    let mut input = std::io::stdin().lock();
    loop {
        let part = input.fill_buf().map_err(failed)?;
        let end = part.iter().position(|b| matches!(b, b'\n' | 3));
        let used = end.map_or(part.len(), |i| i + 1);
        line.0.extend_from_slice(&part[..used]);
        input.consume(used);
        match line.0.last() {
            Some(b'\n') => {
                line.0.pop();
                return Ok(line);
            }
            Some(3) | None => return Err(Failure::new("no_passphrase", "interrupted; nothing was changed")),
            Some(_) if used == 0 => return Err(Failure::new("no_passphrase", "the input ended; nothing was changed")),
            Some(_) => {}
        }
    }
}
