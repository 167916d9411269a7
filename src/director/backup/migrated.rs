//! What a version has changed in the configuration by itself, so that a rollback knows which of its bytes nobody has touched.
//!
//! A migration goes through [`write()`]: first the note, then the file. After a rollback the version that came back calls
//! [`undo`]: a file that is still what the migration wrote gets the backup's bytes again; one that was edited since stays, is
//! reported, and its bytes are put beside the old ones in the backup.

use std::path::Path;

use miniserde::{Deserialize, Serialize};

use super::{CONFIG, FOLDER, index, mode_there};
use crate::core::backup::{Name, PutBack, put_back};
use crate::core::hex::{self, sha256};
use crate::core::reason::Reason;
use crate::io::fs::{PRIVATE, read_limited, write_durable};
use crate::io::state::{State, file_error};

/// The note's name in the state folder.
const NOTE: &str = "migrated.json";
/// Longest configuration file.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// `migrated.json`
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
struct NoteWire {
    /// The version that wrote.
    version: String,
    /// The file.
    file: String,
    /// Its hash afterwards, hex.
    sha256: String,
    /// The backup that has it as it was.
    backup: String,
}

/// A version changes the configuration: noted before it is done.
///
/// # Errors
/// Nothing was changed.
pub fn write(state: &State, version: &str, backup: &Name, file: &Path, bytes: &[u8]) -> Result<(), Reason> {
    let note = NoteWire {
        version: version.into(),
        file: file.display().to_string(),
        sha256: hex::encode(&sha256(bytes)),
        backup: backup.to_string(),
    };
    state.write(NOTE, &note)?;
    write_durable(file, bytes, mode_there(file)).map_err(|e| file_error(file, "write", &e))
}

/// After a rollback of `version`: what became of the file, for the event. `None`: it had changed nothing.
///
/// # Errors
/// The backup is damaged or the file cannot be written: the note stays for the next try.
pub fn undo(state: &State, version: &str) -> Result<Option<String>, Reason> {
    let Some(note) = state.read::<NoteWire>(NOTE)?.filter(|note| note.version == version) else { return Ok(None) };
    let file = Path::new(&note.file);
    let name: Name = note.backup.parse().map_err(|e: String| Reason::new("backup_unknown", e))?;
    let (folder, _) = index(state, &name)?;
    let read = |path: &Path| read_limited(path, FILE_MAX).map_err(|e| file_error(path, "read", &e));
    let damaged = || Reason::new("backup_damaged", format!("{}: is not there", folder.join(CONFIG).display()));
    let before = read(&folder.join(CONFIG))?.ok_or_else(damaged)?;
    let migrated = hex::decode(&note.sha256).ok_or_else(|| Reason::new("backup_damaged", format!("{NOTE}: field sha256 is no SHA-256")))?;
    let now = read(file)?;
    let said = match put_back(now.as_deref().map(sha256).as_ref(), &migrated, &sha256(&before)) {
        PutBack::Same => format!("{}: is as it was before {version}", file.display()),
        PutBack::Restore => {
            write_durable(file, &before, mode_there(file)).map_err(|e| file_error(file, "put back", &e))?;
            format!("{}: put back as it was before {version}", file.display())
        }
        PutBack::Keep => {
            let edited = folder.join(format!("{CONFIG}.edited"));
            now.map_or(Ok(()), |now| write_durable(&edited, &now, PRIVATE)).map_err(|e| file_error(&edited, "write", &e))?;
            let both = format!("{FOLDER}/{name}/{CONFIG} and {CONFIG}.edited");
            format!("{}: was edited since {version} changed it, and stays; both are kept: {both}", file.display())
        }
    };
    state.remove(NOTE)?;
    Ok(Some(said))
}
