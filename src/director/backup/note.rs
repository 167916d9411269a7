//! What the activity is told by somebody who cannot write it: a command while the Director does not run, or its engine.

use miniserde::{Deserialize, Serialize};

use crate::core::reason::Reason;
use crate::director::site::Site;
use crate::io::clock;
use crate::io::state::State;

/// Its name in the state folder.
const FILE: &str = "note.json";

/// `note.json`
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct NoteWire {
    /// The event's code.
    pub code: String,
    /// What was done.
    pub detail: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// Leaves a note. The last one counts: a person who restores twice sees the second.
pub fn leave(state: &State, code: &str, detail: &str) {
    let note = NoteWire { code: code.into(), detail: detail.into(), at: clock::unix() };
    if let Err(reason) = state.write(FILE, &note) {
        log::error!("{code}: {detail}: it will not be in the activity: {reason}");
    }
}

/// The note that lies there.
///
/// # Errors
/// It is damaged.
pub fn read(state: &State) -> Result<Option<NoteWire>, Reason> {
    state.read(FILE)
}

/// Tells it, then takes it away.
pub async fn tell(state: &State, site: &Site) {
    let Ok(Some(note)) = read(state) else { return };
    site.registry.borrow_mut().event(note.at, "", &note.code, note.detail, None);
    site.flush();
    if site.store.durable().await.is_ok() {
        let _ = state.remove(FILE);
    }
}
