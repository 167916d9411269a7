//! An edge build has nothing around its engine: what [`duties`](super) a Director adds is nothing here.

use std::time::Duration;

use super::device::Device;
use super::source::Source;
use super::world::Fetched;
use crate::core::reason::Reason;
use crate::core::release::TargetPath;
use crate::core::slots::{Marks, Slot};
use crate::core::stage::Stage;
use crate::core::update::{Order, SelfCheck};
use crate::io::process;
use crate::wire::agent_api::{AnswerWire, ReportWire, ResultWire};
use crate::wire::slot::SlotWire;

impl Device {
    pub(super) fn triggered(&mut self) {}

    pub(super) fn begins(&mut self, _: Stage) {}

    pub(super) fn done(&mut self, _: Stage, _: impl FnOnce() -> String) {}

    pub(super) fn stopped(&mut self, _: Stage, _: &Reason) {}

    pub(super) fn ended(&mut self, _: &ResultWire) {}

    pub(super) fn says(&self, _: &ReportWire) {}

    pub(super) fn heard(&self, _: &AnswerWire) {}

    pub(super) fn vetoed(&self, _: &Order) -> Option<Reason> {
        None
    }

    pub(super) fn with_package(&mut self, _: Slot, _: &TargetPath, _: &Source) -> Result<Fetched, Reason> {
        Ok(Fetched::Verified)
    }

    pub(super) fn package_again(&mut self, _: Slot, _: &TargetPath, _: &Source) -> Result<Fetched, Reason> {
        Ok(Fetched::Verified)
    }

    pub(super) fn before(&mut self, _: &Order) -> Result<(), (Reason, u64)> {
        Ok(())
    }

    pub(super) fn described(&self, _: Slot, wire: SlotWire) -> Result<SlotWire, Reason> {
        Ok(wire)
    }

    pub(super) fn own_part(&self) -> SelfCheck {
        SelfCheck::Passed
    }

    pub(super) fn change_marks(&mut self, marks: Marks) -> Result<(), Reason> {
        let _held = process::StopsHeld::new();
        let (marks, copy) = self.state.save_marks(marks, self.copy, self.marks.sequence)?;
        (self.marks, self.copy) = (marks, Some(copy));
        self.prepare_stop();
        Ok(())
    }

    pub(super) fn prepare_stop(&self) {
        self.prepare_signal();
    }

    pub(super) fn take_identity(&mut self) {}

    pub(super) fn longest_wait_s(&self) -> u64 {
        u64::MAX
    }

    pub(super) fn program_looks_for_identity(&mut self, _: Duration) {}

    pub(super) fn program_is_enrolled(&mut self) -> bool {
        false
    }
}
