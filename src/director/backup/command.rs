//! `backups` and `restore NAME`: they work on the state folder itself, with or without a running Director.

use std::io::Write;
use std::path::{Path, PathBuf};

use miniserde::{Serialize, json};

use super::restore::{Restore, restore};
use super::{index, list};
use crate::core::product::DIRECTOR;
use crate::core::time;
use crate::director::config::find::found;
use crate::director::table::Table;
use crate::io::state::State;
use crate::io::user::become_owner_of;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backups {
    /// `backups`
    List {
        /// State folder.
        state: PathBuf,
        /// As a document.
        json: bool,
    },
    /// `restore NAME`
    Restore {
        /// State folder.
        state: PathBuf,
        /// Which.
        name: String,
        /// Where the configuration lies, when it is in no usual place.
        config: Option<PathBuf>,
        /// The factory image; this program when absent.
        image: Option<PathBuf>,
        /// As a document.
        json: bool,
    },
}

#[derive(Serialize)]
struct BackupView {
    name: String,
    made_at: u64,
    version: String,
    bytes: u64,
    why: String,
    package: bool,
}

#[derive(Serialize)]
struct BackupsView {
    backups: Vec<BackupView>,
}

#[derive(Serialize)]
struct RestoredView {
    restored: String,
    done: Vec<String>,
}

impl Backups {
    /// Does it.
    ///
    /// # Errors
    /// One line.
    pub fn obey(&self, out: &mut impl Write) -> Result<(), String> {
        let text = match self {
            Backups::List { state, json } => listed(state, *json)?,
            Backups::Restore { state, name, config, image, json } => {
                let name = name.parse()?;
                become_owner_of(state).map_err(|e| format!("{}: its owner cannot be become: {e}", state.display()))?;
                let image = image.clone().map_or_else(std::env::current_exe, Ok).map_err(|e| format!("this program's own file: {e}"))?;
                let version = env!("VMETRIC_BUILT_VERSION").parse().map_err(|e| format!("{e}"))?;
                let config = config.clone().or_else(|| found(state));
                let state = State::look_of(&DIRECTOR, state);
                let done = restore(&Restore { state: &state, name, image, version, config }).map_err(|r| r.to_string())?;
                match json {
                    true => json::to_string(&RestoredView { restored: name_of(self), done }) + "\n",
                    false => done.join("\n") + "\nstart the service again (systemctl start vmetric-director)\n",
                }
            }
        };
        out.write_all(text.as_bytes()).map_err(|e| e.to_string())
    }
}

fn name_of(asked: &Backups) -> String {
    match asked {
        Backups::Restore { name, .. } => name.clone(),
        Backups::List { .. } => String::new(),
    }
}

fn listed(state: &Path, json: bool) -> Result<String, String> {
    let state = State::look_of(&DIRECTOR, state);
    let mut backups = Vec::new();
    for found in list(&state) {
        let (_, wire) = index(&state, &found.name).map_err(|r| r.to_string())?;
        backups.push(BackupView {
            name: found.name.to_string(),
            made_at: found.name.at,
            version: wire.version,
            bytes: found.bytes,
            why: wire.why,
            package: wire.package.is_some(),
        });
    }
    if json {
        return Ok(json::to_string(&BackupsView { backups }) + "\n");
    }
    if backups.is_empty() {
        return Ok("no backups yet; each update makes one before it switches\n".into());
    }
    let mut table = Table::new(&["BACKUP", "MADE", "VERSION", "BYTES", "RESOURCES", "WHY"]);
    for b in &backups {
        let resources = if b.package { "yes" } else { "-" };
        table.row(vec![b.name.clone(), time::format(b.made_at), b.version.clone(), b.bytes.to_string(), resources.into(), b.why.clone()]);
    }
    Ok(table.text())
}
