//! What the release plane signed about a package beyond what it says of every artifact. No agent asks.

use std::collections::BTreeMap;

use miniserde::{Deserialize, json};

use super::{Refusal, Trusted};
use crate::core::package::Unpacked;
use crate::core::release::TargetPath;

#[derive(Deserialize)]
struct CustomWire {
    unpacked: UnpackedWire,
}

#[derive(Deserialize)]
struct UnpackedWire {
    bytes: u64,
    files: u64,
}

impl Trusted {
    /// What the package at `path` unpacks to.
    ///
    /// # Errors
    /// As for [`Trusted::lookup`], or `target_custom`: it is not said.
    pub fn unpacked(&self, path: &TargetPath) -> Result<Unpacked, Refusal> {
        let text = path.to_string();
        let target = self.search(&text, &mut BTreeMap::new())?;
        let custom = std::str::from_utf8(target.custom.unwrap_or_default()).unwrap_or_default();
        let missing = |_| Refusal::new("target_custom", &text, "'custom' does not say what the package unpacks to");
        let CustomWire { unpacked } = json::from_str(custom).map_err(missing)?;
        Ok(Unpacked { bytes: unpacked.bytes, files: unpacked.files })
    }
}
