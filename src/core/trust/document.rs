//! What all signed metadata has in common: an envelope, a type, a version, an expiry.

use miniserde::{Deserialize, json};

use super::keys::{Kinds, RoleKeys, Signature, signatures};
use super::{Refusal, date};
use crate::core::canonical::{self, Envelope, Malformed};
use crate::core::time;

/// Received bytes that have the form of signed metadata. Nothing is said about who signed them.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub bytes: Vec<u8>,
    envelope: Envelope,
    /// The signed part with its keys in order, if the received one may have them otherwise.
    #[cfg(feature = "release")]
    sorted: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct HeadWire {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
}

/// The fields of specification section 4.2.1 that every role has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub version: u64,
    pub expires: u64,
}

impl Document {
    /// Looks at no more than the form, and at no more than `limit` bytes.
    pub fn open(role: &str, bytes: &[u8], limit: u64, kinds: Kinds) -> Result<Document, Refusal> {
        if bytes.len() as u64 > limit {
            return Err(Refusal::new("metadata_too_long", role, format!("more than {limit} bytes")));
        }
        Document::split(bytes, kinds).map_err(|e| Refusal::new("metadata_malformed", role, e.to_string()))
    }

    #[cfg_attr(not(feature = "release"), expect(unused_variables, reason = "there is one kind"))]
    fn split(bytes: &[u8], kinds: Kinds) -> Result<Document, Malformed> {
        #[cfg(feature = "release")]
        if kinds == Kinds::Foreign {
            let envelope = canonical::split_unsorted(bytes)?;
            let sorted = Some(canonical::sorted(&bytes[envelope.signed.clone()])?);
            return Ok(Document { bytes: bytes.to_vec(), envelope, sorted });
        }
        let envelope = canonical::split(bytes)?;
        Ok(Document {
            bytes: bytes.to_vec(),
            envelope,
            #[cfg(feature = "release")]
            sorted: None,
        })
    }

    /// The bytes that were signed, as received.
    pub fn signed(&self) -> &[u8] {
        #[cfg(feature = "release")]
        if let Some(sorted) = &self.sorted {
            return sorted;
        }
        &self.bytes[self.envelope.signed.clone()]
    }

    /// Do `keys` vouch for this document? `code` is the refusal if not.
    pub fn verify(&self, role: &str, code: &'static str, keys: &RoleKeys) -> Result<(), Refusal> {
        let signatures: Vec<Signature> = signatures(role, &self.bytes[self.envelope.signatures.clone()])?;
        let good = keys.count(self.signed(), &signatures);
        if good >= keys.threshold {
            return Ok(());
        }
        Err(Refusal::new(code, role, format!("signed by {good} of the {} keys it needs", keys.threshold)))
    }

    /// Reads the signed part. Called after [`Document::verify`]; for a new root between its two checks.
    pub fn read<T: Deserialize>(&self, role: &str) -> Result<T, Refusal> {
        let shape = || Refusal::new("metadata_shape", role, "fields are missing or have the wrong type");
        let text = std::str::from_utf8(self.signed()).map_err(|_| shape())?;
        json::from_str(text).map_err(|_| shape())
    }

    /// Reads the common fields and checks them. `kind` is the expected `_type`.
    pub fn head(&self, role: &str, kind: &str) -> Result<Head, Refusal> {
        let wire: HeadWire = self.read(role)?;
        if wire.kind != kind {
            return Err(Refusal::new("metadata_type", role, format!("'_type' is not '{kind}'")));
        }
        if wire.spec_version != "1" && !wire.spec_version.starts_with("1.") {
            return Err(Refusal::new("metadata_spec_version", role, "written for another major version of the specification"));
        }
        if wire.version == 0 {
            return Err(Refusal::new("metadata_version_zero", role, "versions start with 1"));
        }
        Ok(Head { version: wire.version, expires: instant(role, "expires", &wire.expires)? })
    }
}

/// A time in signed metadata.
pub(super) fn instant(role: &str, field: &str, text: &str) -> Result<u64, Refusal> {
    time::parse(text).ok_or_else(|| Refusal::new("metadata_time", role, format!("'{field}' is not like 2027-01-01T00:00:00Z")))
}

/// "Check for a freeze attack": the expiry must be later than the time of this refresh.
pub(super) fn expired(code: &'static str, role: &str, expires: u64, now: u64, grace: u64) -> Result<(), Refusal> {
    if expires.saturating_add(grace) > now {
        return Ok(());
    }
    Err(Refusal::new(code, role, format!("expired on {}; it is {} now, by the clock or by signed times", date(expires), date(now))))
}
