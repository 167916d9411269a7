//! Records that a process could not read at its start for an error of the disk: neither missing nor damaged. They are read again
//! before each turn, so that nothing that is still on the disk is worked against, shown as open, or written over.

use miniserde::Deserialize;

use super::device::Device;
use crate::core::rejected::{REJECTED_MAX, Rejected};
use crate::io::state::{STATE_ERROR, State};
use crate::wire::agent_api::ResultWire;
use crate::wire::records::{RESULTS_MAX, RejectedListWire, ResultsWire};

pub(super) const ORDER: &str = "order.json";
pub(super) const RESULTS: &str = "results.json";
pub(super) const REJECTED: &str = "rejected.json";

/// Which records have still to be read.
#[derive(Default)]
pub struct Unread(Vec<&'static str>);

impl Unread {
    /// Reads a record; what cannot be read is told, and remembered when reading it again may help.
    pub(super) fn read<T: Deserialize>(&mut self, state: &State, name: &'static str) -> Option<T> {
        self.0.retain(|n| *n != name);
        state.read(name).unwrap_or_else(|reason| {
            log::warn!("{reason}");
            if reason.code == STATE_ERROR {
                self.0.push(name);
            }
            None
        })
    }

    /// What a results file says.
    pub(super) fn results(&mut self, state: &State) -> Vec<ResultWire> {
        self.read::<ResultsWire>(state, RESULTS).unwrap_or_default().results
    }

    /// What a list of rejections says, as far as it can be understood.
    pub(super) fn rejected(&mut self, state: &State) -> Vec<Rejected> {
        let list = self.read::<RejectedListWire>(state, REJECTED).unwrap_or_default().rejected;
        list.into_iter().filter_map(|r| Rejected::try_from(r).ok()).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

impl Device {
    /// Reads what could not be read before. What this process has come by meanwhile is newer and stays.
    pub(super) fn read_unread(&mut self) {
        if self.unread.has(RESULTS) {
            let mut results = self.unread.results(&self.state);
            results.retain(|old| !self.results.iter().any(|r| r.id == old.id));
            results.append(&mut self.results);
            results.drain(..results.len().saturating_sub(RESULTS_MAX));
            self.results = results;
        }
        if self.unread.has(REJECTED) {
            let mut rejected = self.unread.rejected(&self.state);
            rejected.retain(|old| !self.rejected.iter().any(|r| r.sha256 == old.sha256));
            rejected.append(&mut self.rejected);
            rejected.drain(..rejected.len().saturating_sub(REJECTED_MAX));
            self.rejected = rejected;
        }
        if self.unread.has(ORDER) {
            let read = self.unread.read(&self.state, ORDER);
            if self.accepted.is_none() {
                self.accepted = read;
                // Not before it could be noted; the next start tries again.
                self.end_left_over().unwrap_or_else(|reason| log::warn!("{reason}"));
            }
        }
    }
}
