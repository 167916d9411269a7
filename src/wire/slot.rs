//! `slots/<slot>/slot.json` and `slots/<slot>/confirmed`: what a slot's file is, by its own evidence. Frozen (FROZEN.md).

use miniserde::{Deserialize, Serialize, json};

use crate::core::hex::{self, Sha256};
use crate::core::release::Artifact;
use crate::core::slots::SlotFiles;
use crate::core::times::Times;
use crate::core::update::{Kind, Order};

/// Longest `slot.json` that is read, bytes: about 700 are needed.
pub const SLOT_MAX: u64 = 4096;
/// Longest `confirmed` that is read.
pub const CONFIRMED_MAX: u64 = 128;

/// `slot.json`: written after the self-test and before the marks.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SlotWire {
    /// 1.
    pub format: u32,
    /// Path in the release tree.
    pub target: String,
    /// Version, the path's.
    pub version: String,
    /// Bytes.
    pub length: u64,
    /// Hash, hex.
    pub sha256: String,
    /// Security counter.
    pub counter: u64,
    /// Build key.
    pub build_keyid: String,
    /// Build signature, hex.
    pub build_sig: String,
    /// Issuer of the order that put it here.
    pub issuer: String,
    /// That order's generation.
    pub generation: u64,
    /// A Director's resources: SHA-256 of `package.list`, hex, which names archive and files. Absent: there are none.
    pub package: Option<String>,
}

impl SlotWire {
    /// What will stand in the slot.
    pub fn new(artifact: &Artifact, issuer: &str, generation: u64) -> SlotWire {
        SlotWire {
            format: 1,
            target: artifact.path.to_string(),
            version: artifact.path.version.to_string(),
            length: artifact.length,
            sha256: hex::encode(&artifact.sha256),
            counter: artifact.counter,
            build_keyid: artifact.build_keyid.clone(),
            build_sig: hex::encode(&artifact.build_sig),
            issuer: issuer.to_string(),
            generation,
            package: None,
        }
    }

    /// From the file's bytes, or what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<SlotWire, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "slot.json is not UTF-8")?;
        json::from_str(text).map_err(|_| "slot.json: a field is missing or has the wrong type".to_string())
    }

    /// What an order for it with the default terms would say.
    pub fn as_order(&self, times: &Times) -> Result<Order, String> {
        Ok(Order {
            target: self.target.parse()?,
            issuer: self.issuer.clone(),
            generation: self.generation,
            kind: Kind::Update,
            sha256: hex::decode(&self.sha256).ok_or("slot.json: field sha256 is no SHA-256")?,
            length: self.length,
            switch_in_s: 0,
            contact_deadline_s: times.contact_default_s,
            unattended: false,
            trial_max_s: times.trial_default_s,
            end_probation: false,
            retry: false,
            keep_staged: false,
        })
    }

    /// The artifact it describes; its build signature is still to be checked against the file.
    pub fn artifact(&self) -> Result<Artifact, String> {
        Ok(Artifact {
            path: self.target.parse()?,
            length: self.length,
            sha256: hex::decode(&self.sha256).ok_or("slot.json: field sha256 is no SHA-256")?,
            min_version: None,
            counter: self.counter,
            build_keyid: self.build_keyid.clone(),
            build_sig: hex::decode(&self.build_sig).ok_or("slot.json: field build_sig is no Ed25519 signature")?,
        })
    }
}

/// The text of `confirmed`: the hash and the marks' sequence of the confirmation.
pub fn confirmed_text(sha256: &Sha256, sequence: u64) -> String {
    format!("{} {sequence}\n", hex::encode(sha256))
}

/// What the two files together say, for rebuilding lost marks.
pub fn files(slot_json: &[u8], confirmed: Option<&[u8]>) -> Option<SlotFiles> {
    let wire = SlotWire::parse(slot_json).ok()?;
    let sha256 = hex::decode(&wire.sha256)?;
    let confirmed = confirmed.and_then(|bytes| {
        let (hash, sequence) = std::str::from_utf8(bytes).ok()?.trim_end().split_once(' ')?;
        if hash == wire.sha256 { sequence.parse().ok() } else { None }
    });
    Some(SlotFiles { sha256, counter: wire.counter, confirmed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact() -> Artifact {
        Artifact {
            path: "vmetric-agent/2.5.0/linux-amd64/vmetric-agent".parse().unwrap(),
            length: 12,
            sha256: [3; 32],
            min_version: None,
            counter: 2,
            build_keyid: "k".into(),
            build_sig: [5; 64],
        }
    }

    #[test]
    fn a_slot_describes_its_artifact() {
        let text = json::to_string(&SlotWire::new(&artifact(), "site", 7));
        let wire = SlotWire::parse(text.as_bytes()).unwrap();
        assert_eq!(wire.artifact().unwrap(), artifact());
        assert_eq!((wire.issuer.as_str(), wire.generation), ("site", 7));
        assert!(SlotWire::parse(b"{}").is_err() && SlotWire::parse(&[0xff]).is_err());
        assert!(SlotWire { target: "../x".into(), ..wire }.artifact().is_err());
    }

    #[test]
    fn confirmed_counts_only_for_the_same_file() {
        let text = json::to_string(&SlotWire::new(&artifact(), "site", 7));
        let read = |confirmed: &str| files(text.as_bytes(), Some(confirmed.as_bytes())).unwrap().confirmed;
        assert_eq!(read(&confirmed_text(&[3; 32], 41)), Some(41));
        assert_eq!(read(&confirmed_text(&[4; 32], 41)), None);
        assert_eq!(read("garbage"), None);
        assert_eq!(files(text.as_bytes(), None).unwrap().confirmed, None);
        assert_eq!(files(b"garbage", None), None);
    }
}
