//! Which file counts when none is named.

use std::path::{Path, PathBuf};

/// The folder of the system's configuration.
pub const ETC: &str = "/etc/vmetric";
/// The vendor's users know both endings.
const NAMES: [&str; 2] = ["vmetric.yml", "vmetric.yaml"];

/// All places, in the order in which they are looked at: the state folder is this Director's own, the system's is everybody's.
pub fn places(state: &Path) -> Vec<PathBuf> {
    [state, Path::new(ETC)].iter().flat_map(|folder| NAMES.map(|name| folder.join(name))).collect()
}

/// The first of them that is there.
pub fn found(state: &Path) -> Option<PathBuf> {
    places(state).into_iter().find(|path| path.symlink_metadata().is_ok())
}
