//! The only place of the release tool that touches files: every error names the file.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::failure::{Failure, Result};
pub use crate::io::fs::{PRIVATE, PUBLIC};
use crate::io::fs::{sync_folder_of, write_durable};

/// Bytes read at once.
const PIECE: usize = 128 * 1024;

fn failed(path: &Path, what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new("io", format!("{}: {what}: {error}", path.display()))
}

/// A whole file of at most `max` bytes; absent is `None`.
pub fn read_if_there(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    match read_after(path, max, Vec::new()) {
        Err(e) if e.code == "missing_file" => Ok(None),
        other => other.map(Some),
    }
}

/// A whole regular file of at most `max` bytes. Never follows a symbolic link.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    read_after(path, max, Vec::new())
}

/// `prefix` and then the file's bytes, in one buffer.
pub fn read_after(path: &Path, max: u64, prefix: Vec<u8>) -> Result<Vec<u8>> {
    length(path)?;
    let mut out = prefix;
    let before = out.len();
    let file = File::open(path).map_err(|e| failed(path, "cannot be read", e))?;
    file.take(max + 1).read_to_end(&mut out).map_err(|e| failed(path, "cannot be read", e))?;
    if (out.len() - before) as u64 > max {
        return Err(Failure::new("too_large", format!("{}: larger than {max} bytes", path.display())));
    }
    Ok(out)
}

/// Hands out a regular file piece by piece until `each` answers false.
pub fn for_each_piece(path: &Path, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
    length(path)?;
    let file = File::open(path).map_err(|e| failed(path, "cannot be read", e))?;
    for_each_piece_of(file, &path.display().to_string(), each)
}

/// The same for what is open already; `name` is for the message.
pub fn for_each_piece_of(mut from: impl Read, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let n = from.read(&mut piece).map_err(|e| failed(Path::new(name), "cannot be read", e))?;
        if n == 0 || !each(&piece[..n]) {
            return Ok(());
        }
    }
}

/// Length of a regular file; anything else is refused.
pub fn length(path: &Path) -> Result<u64> {
    let meta = fs::symlink_metadata(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Failure::new("missing_file", format!("{}: there is no such file", path.display())),
        _ => failed(path, "cannot be read", e),
    })?;
    if !meta.file_type().is_file() {
        return Err(Failure::new(
            "not_regular",
            format!("{}: not a regular file (a link, folder or device); give the file itself", path.display()),
        ));
    }
    Ok(meta.len())
}

/// True for a folder (not a link to one).
pub fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

/// Names in a folder, sorted; an absent folder has none. A name that is not UTF-8 is an error.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| failed(folder, "cannot be listed", e))?,
    };
    let mut out = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| failed(folder, "cannot be listed", e))?.file_name();
        let bad =
            |n: std::ffi::OsString| Failure::new("bad_name", format!("{}: the name {n:?} is not plain text; rename it", folder.display()));
        out.push(name.into_string().map_err(bad)?);
    }
    out.sort();
    Ok(out)
}

/// Writes durably, replacing what was there; makes the folder.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if let Some(folder) = path.parent() {
        make_durable(folder)?;
    }
    write_durable(path, bytes, mode).map_err(|e| failed(path, "cannot be written", e))
}

/// Writes a file that never changes again: the same bytes are fine, other bytes are refused. True if it was new.
pub fn write_once(path: &Path, bytes: &[u8], mode: u32) -> Result<bool> {
    match read_if_there(path, bytes.len() as u64) {
        Ok(None) => write(path, bytes, mode).map(|()| true),
        Ok(Some(old)) if old == bytes => Ok(false),
        Ok(Some(_)) => Err(changed(path)),
        Err(e) if e.code == "too_large" => Err(changed(path)),
        Err(e) => Err(e),
    }
}

/// A large file that is written piece by piece, and appears under its name whole or not at all.
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    done: bool,
}

impl Writer {
    /// Begins a file; makes its folder.
    pub fn new(path: &Path) -> Result<Writer> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            make_durable(folder)?;
        }
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let part = path.with_file_name(format!(".{name}.part"));
        remove(&part)?;
        let mut options = File::options();
        options.write(true).create_new(true);
        let out = options.open(&part).map_err(|e| failed(&part, "cannot be made", e))?;
        Ok(Writer { path: path.to_path_buf(), part, out: BufWriter::with_capacity(PIECE, out), done: false })
    }

    /// The next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| failed(&self.part, "cannot be written", e))
    }

    /// Makes the file durable under its name, readable by all whatever the umask.
    pub fn finish(mut self) -> Result<()> {
        let written = self.out.flush().and_then(|()| {
            crate::io::fs::set_mode(self.out.get_ref(), PUBLIC)?;
            self.out.get_ref().sync_all()?;
            fs::rename(&self.part, &self.path)?;
            sync_folder_of(&self.path)
        });
        self.done = written.is_ok();
        written.map_err(|e| failed(&self.path, "cannot be written", e))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.part);
        }
    }
}

fn changed(path: &Path) -> Failure {
    let text = format!(
        "{}: already there with other bytes; a published file never changes, so move it away only if nobody has fetched it",
        path.display()
    );
    Failure::new("other_bytes", text)
}

/// Makes a folder and those above it; a power cut must not lose a folder whose files are named already.
fn make_durable(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for folder in missing.into_iter().rev() {
        let made = fs::create_dir(folder).and_then(|()| sync_folder_of(folder));
        made.map_err(|e| failed(folder, "cannot be made", e))?;
    }
    Ok(())
}

/// Makes a folder; `private` ones are for their owner only.
pub fn make_folder(path: &Path, private: bool) -> Result<()> {
    make_durable(path)?;
    #[cfg(unix)]
    if private {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|e| failed(path, "cannot be made private", e))?;
    }
    #[cfg(not(unix))]
    let _ = private;
    Ok(())
}

/// Removes a file; absent is fine.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(path, "cannot be removed", e)),
        _ => Ok(()),
    }
}

/// Takes the lock of a folder until the answer is dropped, so that two commands never edit one repository at once.
pub fn lock(folder: &Path) -> Result<File> {
    let path: PathBuf = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| failed(&path, "cannot be opened", e))?;
    file.try_lock().map_err(|_| {
        Failure::new("locked", format!("{}: another vmetric-release works on this repository; wait for it", path.display()))
    })?;
    Ok(file)
}
