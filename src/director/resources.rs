//! A Director's resources: the archive that a release has beside the binary, into the slot that does not run.
//!
//! The binary is there and verified when [`fetch`] begins. What is interrupted goes on where it was: the archive's part, the
//! whole archive, the unpacked tree. The archive itself goes once its tree is durable.

use std::path::PathBuf;

use crate::agent::download::{Between, fetch_as};
use crate::agent::duties::Package as Wanted;
use crate::agent::link::tick;
use crate::agent::source::Source;
use crate::agent::world::Fetched;
use crate::core::backup::Name;
use crate::core::hex;
use crate::core::package::{Format, Unpacked};
use crate::core::reason::Reason;
use crate::core::release::{Artifact, TargetPath};
use crate::core::slots::{Image, Slot};
use crate::core::trust::Trusted;
use crate::io::fs::{PRIVATE, remove_if_there};
use crate::io::package::unpack::{LIST, Package, forget, is_there, unpack};
use crate::io::package::{again, tree};
use crate::io::room;
use crate::io::state::{State, file_error};

/// What is asked for again when the disk has no room, seconds: an operator has to make some.
const ROOM_AGAIN_S: u64 = 600;
/// Room for what is copied of the configuration.
const BACKUP_EXTRA: u64 = 4 * 1024 * 1024;

/// The package of a release: what was signed of it; `None`: it has none.
///
/// # Errors
/// It is listed, and was withdrawn or is not what a package has to be.
pub fn find(trusted: &Trusted, binary: &TargetPath) -> Result<Option<(Artifact, Unpacked)>, Reason> {
    for file in Format::FILES {
        let path = TargetPath { file: file.to_string(), ..binary.clone() };
        match trusted.lookup(&path) {
            Ok(artifact) => return Ok(Some((artifact, trusted.unpacked(&path)?))),
            Err(refusal) if refusal.code == "target_unknown" => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(None)
}

/// Brings the package of the target's release into a slot: fetched, verified, then unpacked. [`Fetched::Verified`] where there
/// is none.
///
/// # Errors
/// The state folder cannot be read or written: tried again.
pub fn fetch(package: Wanted) -> Result<Fetched, Reason> {
    let Wanted { state, slot, trusted, target, source, between } = package;
    let folder = state.slot_folder(slot);
    let (artifact, unpacked) = match find(trusted, target) {
        Ok(Some(found)) => found,
        Ok(None) => return forget(&folder).map(|()| Fetched::Verified),
        Err(reason) => return Ok(Fetched::Refused(reason)),
    };
    let program = state.slot_program(slot).metadata().map_or(0, |meta| meta.len());
    let into = Into { folder, part: state.part(slot, &artifact.sha256), keep_free: program.saturating_add(BACKUP_EXTRA) };
    bring(&into, artifact, unpacked, trusted, source, between)
}

/// Brings the package of the version that runs beside its damaged tree, whole and verified, then puts it in its place.
/// [`Fetched::Verified`]: that is done.
///
/// # Errors
/// The state folder cannot be read or written: tried again.
pub fn repair(package: Wanted) -> Result<Fetched, Reason> {
    let Wanted { state, slot, trusted, target, source, between } = package;
    let Some((artifact, unpacked)) = find(trusted, target)? else {
        return Ok(Fetched::Refused(Reason::new("package_unlisted", format!("{target}: its release has no package"))));
    };
    let claimed = state.slot_json(slot)?.package.and_then(|hash| hex::decode(&hash));
    let slot = state.slot_folder(slot);
    let folder = again::open(&slot)?;
    let into = Into { part: folder.join("part"), folder, keep_free: BACKUP_EXTRA };
    match bring(&into, artifact, unpacked, trusted, source, between)? {
        Fetched::Verified => {}
        other => return Ok(other),
    }
    if Some(tree::hash_list(&into.folder)?) != claimed {
        again::tidy(&slot)?;
        let detail = "the list of the package that was fetched is not the one that slot.json names; order a version again";
        return Ok(Fetched::Refused(Reason::new("package_differs", detail)));
    }
    again::replace(&slot).map(|()| Fetched::Verified)
}

/// Where a package goes.
struct Into {
    folder: PathBuf,
    /// Of the archive, while it comes.
    part: PathBuf,
    /// Room that other things need.
    keep_free: u64,
}

fn bring(
    into: &Into,
    artifact: Artifact,
    unpacked: Unpacked,
    trusted: &Trusted,
    source: &Source,
    between: &mut dyn Between,
) -> Result<Fetched, Reason> {
    let folder = &into.folder;
    let Some(key) = trusted.build_key(&artifact.build_keyid) else {
        return Ok(Fetched::Refused(Reason::new(
            "build_key_unknown",
            format!("{}: its build key is not in the trusted root", artifact.path),
        )));
    };
    let archive = folder.join(&artifact.path.file);
    let package = Package { artifact: artifact.clone(), unpacked, key };
    if is_there(&package, folder, &mut tick) {
        return remove_if_there(&archive).map(|()| Fetched::Verified).map_err(|e| file_error(&archive, "remove", &e));
    }
    if let Err(reason) = room::for_package(folder, artifact.length, unpacked.bytes, into.keep_free) {
        return Ok(Fetched::Later(reason, ROOM_AGAIN_S));
    }
    match fetch_as(archive.clone(), PRIVATE, into.part.clone(), &artifact, key, source, between)? {
        Fetched::Verified => {}
        other => return Ok(other),
    }
    let done = unpack(&archive, &package, folder, &mut tick);
    let gone = |fetched| remove_if_there(&archive).map(|()| fetched).map_err(|e| file_error(&archive, "remove", &e));
    match done {
        Ok(_) => gone(Fetched::Verified),
        Err(reason) if is_refusal(&reason) => gone(Fetched::Refused(reason.of(&artifact.path))),
        Err(reason) => Err(reason),
    }
}

/// The archive is at fault, and no other try makes it better. What the disk says is another matter.
fn is_refusal(reason: &Reason) -> bool {
    reason.code.starts_with("package_")
        || matches!(reason.code.as_ref(), "file_hash" | "file_signature" | "file_too_long" | "file_too_short")
}

/// What a flip to this slot changed, for the event "Resource Update".
pub fn activated(state: &State, slot: Slot) -> String {
    let new = state.slot_folder(slot);
    if !new.join(LIST).exists() {
        return "this version brings no package".into();
    }
    let marks = state.load_marks().marks;
    let old = marks.fallback(Image::Slot(slot)).map(|old| state.slot_folder(old)).unwrap_or_else(|| state.path("slots/none"));
    tree::what_changed(&old, &new).map_or_else(|reason| reason.to_string(), |changed| changed.to_string())
}

/// Whether the package of a slot is what its `slot.json` names. Reads all of it.
///
/// # Errors
/// `package_damaged`, `slot_damaged`
pub fn check(state: &State, slot: Slot) -> Result<(), Reason> {
    let Some(claimed) = state.slot_json(slot)?.package else { return Ok(()) };
    let hash = hex::decode(&claimed).ok_or_else(|| Reason::new("slot_damaged", "slot.json: field package is no SHA-256"))?;
    tree::check(&state.slot_folder(slot), &hash, &mut tick).map(drop)
}

/// The event text of a backup.
pub fn kept_as(name: &Name) -> String {
    format!("kept as backup/{name}; `vmetric-director restore {name}` puts it back")
}
