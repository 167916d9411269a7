//! The check of a downloaded or stored file: length, SHA-256 and build signature in one pass, in constant memory.

use ed25519_compact::{PublicKey, Signature, VerifyingState};
use ring::digest::{Context, SHA256};

use super::Refusal;
use crate::core::hex::Sha256;
use crate::core::release::{Artifact, build_prefix};

/// "5.7 Verify target", and the build signature of a file of ours.
///
/// Feed the bytes in order, in pieces of any size, then ask once.
pub struct FileCheck {
    path: String,
    length: u64,
    sha256: Sha256,
    seen: u64,
    hash: Context,
    signature: VerifyingState,
}

impl FileCheck {
    /// `key` is the build key that [`Artifact::build_keyid`] names in the trusted root. A weak key or a signature that
    /// cannot be one is refused here, before anything is fetched.
    pub fn new(artifact: &Artifact, key: PublicKey) -> Result<FileCheck, Refusal> {
        let path = artifact.path.to_string();
        let Ok(mut signature) = key.verify_incremental(&Signature::new(artifact.build_sig)) else {
            return Err(Refusal::new("file_signature", &path, "the build key or signature is malformed"));
        };
        signature.absorb(build_prefix(&path, artifact.length));
        Ok(FileCheck { path, length: artifact.length, sha256: artifact.sha256, seen: 0, hash: Context::new(&SHA256), signature })
    }

    /// "5.7.2 Download the target up to the number of bytes specified": one byte more is refused at once.
    pub fn absorb(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if self.seen > self.length {
            return Err(Refusal::new("file_too_long", &self.path, format!("more than {} bytes", self.length)));
        }
        self.hash.update(bytes);
        self.signature.absorb(bytes);
        Ok(())
    }

    /// How many bytes are still missing.
    pub fn missing(&self) -> u64 {
        self.length.saturating_sub(self.seen)
    }

    /// "5.7.3 Verify the desired target against its targets metadata", then the build signature.
    pub fn finish(self) -> Result<(), Refusal> {
        if self.seen > self.length {
            return Err(Refusal::new("file_too_long", &self.path, format!("more than {} bytes", self.length)));
        }
        if self.seen < self.length {
            return Err(Refusal::new("file_too_short", &self.path, format!("{} of {} bytes", self.seen, self.length)));
        }
        if self.hash.finish().as_ref() != self.sha256 {
            return Err(Refusal::new("file_hash", &self.path, "the SHA-256 is not the signed one"));
        }
        let bad = |_| Refusal::new("file_signature", &self.path, "the build key did not sign this file for this path");
        self.signature.verify().map_err(bad)
    }
}
