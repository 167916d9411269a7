<<<<<<< HEAD
//! Durable files.

use std::io::Write;
use std::path::Path;

/// Replaces `path` with `bytes` so that after a power cut either the old or the new file is there: temp in the same
/// folder, fsync, rename, fsync folder.
pub fn write_durable(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(".tmp");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
=======
//! Files: durable writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Replaces `path` by `bytes` so that after any crash it holds the old or the new content: a temporary file in the same
/// folder, fsync, rename, fsync of the folder. `mode` is the Unix permission; Windows ignores it.
pub fn write_durable(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?.to_os_string();
    name.push(".tmp");
    let temporary = folder.join(name);
    let _ = fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
>>>>>>> 8eed396 ([release] Add init, add, sign, publish, status, keys)
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
<<<<<<< HEAD
    let mut file = options.open(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temp, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
=======
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
>>>>>>> 8eed396 ([release] Add init, add, sign, publish, status, keys)
    Ok(())
}
