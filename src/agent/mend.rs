//! An order for the version that runs: what has become damaged in its slot is brought again, in its place. The process runs on;
//! its next start would have gone to the other slot.

use super::device::Device;
use super::trial::hash_file;
use super::world::{Fetched, World};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::core::slots::{Condition, Image, Slot};
use crate::core::update::{Order, SelfCheck, Staged, Target};
use crate::wire::slot::SlotWire;

/// The artifact of the version that runs, as it was signed; else what comes of its repair.
pub(super) fn signed(target: Target, order: &Order) -> Result<Artifact, Fetched> {
    match target {
        Target::Signed(artifact) if artifact.sha256 == order.sha256 => Ok(artifact),
        Target::Signed(artifact) => {
            let detail = format!("{}: what runs here is not what is signed now", artifact.path);
            Err(Fetched::Refused(Reason::new("order_mismatch", detail)))
        }
        Target::Refused(reason) => Err(Fetched::Refused(reason)),
        Target::Unavailable { reason, for_s } => Err(Fetched::Later(reason, for_s)),
        Target::Unknown => Err(Fetched::Interrupted),
    }
}

impl Device {
    /// `None`: nothing is damaged, or nothing of it can be mended: the factory image is its owner's, a trial has its own end.
    ///
    /// # Errors
    /// The state folder cannot be read or written: tried again.
    pub(super) fn repair_slot(&mut self, order: &Order) -> Result<Option<Fetched>, Reason> {
        let Image::Slot(slot) = self.running.image else { return Ok(None) };
        let marks = self.marks.slot(slot);
        let ours = marks.condition == Condition::Confirmed && marks.sha256 == order.sha256;
        if !ours || self.is_whole(slot, order) {
            return Ok(None);
        }
        if matches!(self.target, Target::Unknown) {
            self.look_up(order)?;
        }
        let artifact = match signed(self.target.clone(), order) {
            Ok(artifact) => artifact,
            Err(not) => return Ok(Some(not)),
        };
        log::warn!("slot {}: the files of the running version are damaged and are brought again", slot.name());
        // The package's list is bound to the binary by this file; what it said is known to nobody else here.
        let described = self.is_described(slot, order);
        if !described && self.state.product().has_resources {
            let detail = format!("slots/{}/slot.json is damaged and names the resources; order another version", slot.name());
            return Ok(Some(Fetched::Refused(Reason::new("slot_damaged", detail))));
        }
        let fetched = self.download(slot, &artifact);
        self.staged = Staged::Nothing;
        if fetched == Ok(Fetched::Verified) {
            if !self.was_confirmed(slot, &order.sha256) {
                self.write_confirmed(slot, order.sha256)?;
            }
            // Last: from then on the slot is whole.
            if !described {
                self.state.describe_again(slot, &SlotWire::new(&artifact, &order.issuer, order.generation))?;
            }
        }
        fetched.map(Some)
    }

    fn is_described(&self, slot: Slot, order: &Order) -> bool {
        self.state.slot_json(slot).is_ok_and(|w| w.sha256 == hex::encode(&order.sha256) && w.artifact().is_ok())
    }

    fn is_whole(&self, slot: Slot, order: &Order) -> bool {
        let program = hash_file(&self.state.slot_program(slot)).is_ok_and(|hash| hash == order.sha256);
        let resources = !matches!(self.own_part(), SelfCheck::Failed(_));
        program && resources && self.is_described(slot, order) && self.was_confirmed(slot, &order.sha256)
    }
}
