//! A damaged tree of the version that runs, put right: the same archive is unpacked beside it, then takes its place.
//!
//! ```text
//! <slot>/package.again/package.list package/   whole and durable, made by [`super::unpack`]
//!        package.again/package.list -> package.list    the same bytes, unless the list was damaged, too
//!        package -> package.old
//!        package.again/package -> package
//!        package.old package.again             removed
//! ```
//! A power cut leaves what is above some line: the next start finds damage, and begins with what is there, or finds none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::tree;
use super::unpack::{LIST, TREE, step};
use crate::core::reason::Reason;
use crate::io::fs::{remove_all, rename, sync_folder_of};
use crate::io::state::file_error;

/// Beside the tree, in its slot.
const AGAIN: &str = "package.again";
const OLD_TREE: &str = "package.old";

/// The folder in which the tree is made again.
///
/// # Errors
/// The disk's.
pub fn open(slot: &Path) -> Result<PathBuf, Reason> {
    let folder = slot.join(AGAIN);
    step().and_then(|()| fs::create_dir_all(&folder)).map_err(|e| file_error(&folder, "make the folder", &e))?;
    Ok(folder)
}

/// The tree that was made takes the damaged one's place.
///
/// # Errors
/// The disk's.
pub fn replace(slot: &Path) -> Result<(), Reason> {
    let from = slot.join(AGAIN);
    let list_differs = tree::hash_list(&from)? != tree::hash_list(slot).unwrap_or_default();
    let replace = || -> io::Result<()> {
        if list_differs {
            // Without its list the tree beside counts for nothing after a power cut, and is made once more.
            swap(&from.join(LIST), &slot.join(LIST))?;
        }
        if fs::symlink_metadata(slot.join(TREE)).is_ok() {
            step()?;
            remove_all(&slot.join(OLD_TREE))?;
            swap(&slot.join(TREE), &slot.join(OLD_TREE))?;
        }
        swap(&from.join(TREE), &slot.join(TREE))
    };
    replace().map_err(|e| file_error(&slot.join(TREE), "replace", &e))?;
    tidy(slot)
}

fn swap(from: &Path, to: &Path) -> io::Result<()> {
    step()?;
    rename(from, to)?;
    step()?;
    sync_folder_of(to)
}

/// Takes away what a repair left beside a whole tree; none is fine.
///
/// # Errors
/// The disk's.
pub fn tidy(slot: &Path) -> Result<(), Reason> {
    for name in [OLD_TREE, AGAIN] {
        let path = slot.join(name);
        if fs::symlink_metadata(&path).is_ok() {
            step().and_then(|()| remove_all(&path)).map_err(|e| file_error(&path, "remove", &e))?;
        }
    }
    Ok(())
}
