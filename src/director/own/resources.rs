//! What a Director's slot has beside its binary, and what is kept before a switch: the places where packages and backups
//! join an update.

use std::path::{Path, PathBuf};

use crate::agent::link::tick;
use crate::agent::{build, fault};
use crate::core::backup::Retention;
use crate::core::reason::Reason;
use crate::core::slots::{Image, Slot};
use crate::core::update::{Order, SelfCheck};
use crate::director::backup::{self, Source, migrated, note};
use crate::director::config::Config;
use crate::director::resources;
use crate::io::clock;
use crate::io::package::{again, beside};
use crate::io::state::State;

/// What an order for the version of this slot would say.
///
/// # Errors
/// `slot_damaged`
pub fn as_ordered(state: &State, slot: Slot) -> Result<Order, Reason> {
    let order = state.slot_json(slot)?.as_order(&fault::times());
    let order = order.map_err(|why| Reason::new("slot_damaged", format!("{why}; order a version again")))?;
    Ok(Order { issuer: "repair".into(), generation: 0, ..order })
}

fn running(state: &State) -> Option<Slot> {
    match state.load_marks().marks.active {
        Image::Slot(slot) => Some(slot),
        Image::Factory => None,
    }
}

/// Keeps what runs now, before anything stops; says where.
///
/// # Errors
/// It could not be kept: no switch.
pub fn back_up(state: &State, image: &Path, config: Option<PathBuf>, order: &Order) -> Result<String, Reason> {
    let slot = running(state);
    let said = slot.and_then(|slot| state.slot_json(slot).ok()).map_or(build::VERSION.to_string(), |wire| wire.version);
    let version = said.parse().map_err(|e: crate::core::version::NotAVersion| Reason::new("backup_name", e.to_string()))?;
    let keep = config.as_deref().and_then(|file| Config::read(file).ok()).map_or_else(Retention::default, |(config, _)| {
        let default = Retention::default();
        let (count, bytes) = (config.retention.backups, config.retention.backup_bytes);
        Retention { count: count.map_or(default.count, |at| at.value), bytes: bytes.map_or(default.bytes, |at| at.value) }
    });
    let why = format!("update to {}", order.target.version);
    let program = slot.map_or_else(|| image.to_path_buf(), |slot| state.slot_program(slot));
    let name = backup::make(&Source { state, version, slot, program, config, why: &why }, clock::unix(), keep)?;
    Ok(resources::kept_as(&name))
}

/// The flip has made this slot's package live: what changed.
pub fn activated(state: &State, slot: Slot) -> String {
    resources::activated(state, slot)
}

/// Whether the package of the running slot is what was signed.
pub fn check(state: &State) -> SelfCheck {
    match running(state).map_or(Ok(()), |slot| resources::check(state, slot)) {
        Ok(()) => SelfCheck::Passed,
        Err(reason) => SelfCheck::Failed(reason),
    }
}

/// At each start: damage of a confirmed version's resources is told, or of those beside the factory image; it goes on serving.
/// True: the engine may repair it. What an interrupted repair left beside goes once it is not needed.
pub fn look(state: &State, image: &Path) -> bool {
    let Some(slot) = running(state) else {
        look_beside(state, image);
        return false;
    };
    match check(state) {
        SelfCheck::Failed(reason) => {
            log::error!("{reason}");
            note::leave(state, &reason.code, &reason.detail);
            true
        }
        _ => {
            again::tidy(&state.slot_folder(slot)).unwrap_or_else(|reason| log::warn!("{reason}"));
            false
        }
    }
}

fn look_beside(state: &State, image: &Path) {
    match image.parent().map_or(Ok(None), |folder| beside::check(folder, &mut tick)) {
        Ok(None) => {}
        Ok(Some(files)) => log::info!("{files} files of resources beside the factory image are as their list says"),
        Err(reason) if reason.code == "package_unlisted" => log::warn!("{reason}"),
        Err(reason) => {
            log::error!("{reason}");
            note::leave(state, &reason.code, &reason.detail);
        }
    }
}

/// A version came back: what the one before had changed in the configuration.
pub fn came_back(state: &State, from: &str) {
    match migrated::undo(state, from) {
        Ok(Some(said)) => note::leave(state, "configuration_after_rollback", &said),
        Ok(None) => {}
        Err(reason) => log::error!("{reason}"),
    }
}
