//! The service control manager of Windows.

use super::Command;
use crate::core::reason::Reason;

impl Command<'_> {
    pub(super) fn obey_windows(&mut self) -> Result<i32, Reason> {
        Err(Reason::new("no_service_manager", "this build knows no service control manager; -service print shows the commands"))
    }
}
