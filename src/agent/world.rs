//! What the engine sees and does. [`super::device::Device`] is the real one; the power-cut test has another.

use crate::core::clock::Moment;
use crate::core::product::Product;
use crate::core::reason::Reason;
use crate::core::rejected::Rejected;
use crate::core::release::{Artifact, Platform};
use crate::core::slots::{Marks, Slot};
use crate::core::times::Times;
use crate::core::update::{Accepted, Order, Running, SelfCheck, Staged, Target};
use crate::wire::agent_api::ResultWire;
use crate::wire::slot::SlotWire;

/// How a download ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The whole file is in the slot under its name, hash and build signature checked, durable.
    Verified,
    /// What came is not what was signed; it has been removed.
    Refused(Reason),
    /// Interrupted; what is there counts. Try again after the wait.
    Later(Reason, u64),
    /// A newer order or a request came: look again.
    Interrupted,
}

/// How the self-test of a staged file ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tested {
    /// Exit code 0 in time.
    Passed,
    /// The file is at fault.
    Bad(Reason),
    /// Nobody can say (no memory, no process).
    CouldNotTell(Reason),
}

/// The device as the engine sees it. Looking is cheap and never fails; each act is durable when it returns.
pub trait World {
    /// Now.
    fn moment(&self) -> Moment;
    /// The times in force.
    fn times(&self) -> Times;
    /// The marks as last saved.
    fn marks(&self) -> Marks;
    /// This process.
    fn running(&self) -> Running;
    /// What updates itself.
    fn product(&self) -> &'static Product;
    /// This device.
    fn platform(&self) -> Platform;
    /// The order in force.
    fn accepted(&self) -> Option<Accepted>;
    /// The ordered target, as last looked up.
    fn target(&self) -> Target;
    /// What lies in a slot of the ordered file.
    fn staged(&self, slot: Slot, order: &Order) -> Staged;
    /// The newest result, taken or not.
    fn last_result(&self) -> Option<ResultWire>;
    /// The rejected list's entry of a hash.
    fn rejected(&self, sha256: &[u8; 32]) -> Option<Rejected>;
    /// Why the disk or the permissions do not allow an update of so many bytes.
    fn preflight(&self, slot: Slot, bytes: u64) -> Option<Reason>;
    /// Seconds since the authority last answered.
    fn contact_age_s(&self) -> Option<u64>;
    /// Seconds since the target was looked up, or that was tried.
    fn look_age_s(&self) -> u64;
    /// The slot's own `confirmed` names this hash: the file was good once.
    fn was_confirmed(&self, slot: Slot, sha256: &[u8; 32]) -> bool;
    /// A slot's own description.
    fn slot_json(&self, slot: Slot) -> Result<SlotWire, Reason>;

    /// Reads the records that could not be read at the start; until then they count as missing.
    fn read_again(&mut self);
    /// Saves the marks.
    fn save_marks(&mut self, marks: Marks) -> Result<(), Reason>;
    /// Refreshes the trusted metadata and looks the ordered target up; afterwards [`World::target`] is not `Unknown`.
    fn look_up(&mut self, order: &Order) -> Result<(), Reason>;
    /// Looks a staged target up once more: what was withdrawn since is refused, what cannot be told now stays as it was.
    fn look_again(&mut self, order: &Order) -> Result<(), Reason>;
    /// Removes a slot's files but the part of the ordered one.
    fn clear_slot(&mut self, slot: Slot, keep: Option<[u8; 32]>) -> Result<(), Reason>;
    /// Fetches the rest of the artifact.
    fn download(&mut self, slot: Slot, artifact: &Artifact) -> Result<Fetched, Reason>;
    /// Runs the staged file's self-test.
    fn self_test(&mut self, slot: Slot) -> Tested;
    /// Asks the authority for a sign of life.
    fn contact(&mut self) -> Result<(), Reason>;
    /// Why this site does not want the order, whoever gave it.
    fn veto(&self, _: &Order) -> Option<Reason> {
        None
    }
    /// Everything else that comes before a stop; the error says why not now, and when it is looked at again.
    fn before_switch(&mut self, _: &Order) -> Result<(), (Reason, u64)> {
        Ok(())
    }
    /// Writes `slot.json`.
    fn write_slot_json(&mut self, slot: Slot, wire: SlotWire) -> Result<(), Reason>;
    /// Writes `confirmed`.
    fn write_confirmed(&mut self, slot: Slot, sha256: [u8; 32]) -> Result<(), Reason>;
    /// The ordered file runs, confirmed: what has become damaged in its slot is fetched again, in its place. `None`: nothing has.
    fn repair(&mut self, _: &Order) -> Result<Option<Fetched>, Reason> {
        Ok(None)
    }
    /// Adds to the rejected list.
    fn reject(&mut self, entry: Rejected) -> Result<(), Reason>;
    /// Keeps a result until it is taken.
    fn add_result(&mut self, result: ResultWire) -> Result<(), Reason>;
    /// Marks the order as ended.
    fn end_order(&mut self) -> Result<(), Reason>;

    /// This trial's self-check.
    fn self_check(&self) -> SelfCheck;
    /// Runs it.
    fn run_self_check(&mut self);
    /// It could not tell: the next turn runs it again.
    fn forget_self_check(&mut self);
    /// The authority has echoed this process's nonce.
    fn acknowledged(&self) -> bool;
    /// The authority has said no to it.
    fn refused(&self) -> bool;
    /// Seconds since this process started, and since it started or the authority said that it is busy.
    fn ages_s(&self) -> (u64, u64);
    /// Asks the authority to acknowledge the trial.
    fn ask(&mut self) -> Result<(), Reason>;
    /// Bytes fetched for the order, and milliseconds without a running agent at the switch (0 = unknown).
    fn costs(&self) -> (u64, u64);
}
