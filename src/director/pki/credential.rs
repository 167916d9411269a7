//! Agent credentials: signed by the site CA's key, so that any member of a cluster verifies them without asking anybody.
//!
//! `v1.<hex of "<issued_at>:<agent_id>[:<device key>]">.<hex of the signature>`. The signature covers [`DOMAIN`] and the
//! payload, so that nothing else this key signs (certificates) can ever be taken for a credential. With a device key in it, it
//! is worth nothing to whoever has not that key's other half ([`crate::core::proof`]); and a registry that was restored from an
//! old backup learns the key from it.
//!
//! Nothing secret is compared here: whoever shows a valid signature is known, and everything else is refused with one and the
//! same reason. Whether the agent is still in the registry is the registry's answer, not this module's.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use ed25519_compact::{KeyPair, Seed, Signature};

use crate::core::hex;
use crate::core::reason::Reason;

/// What every signed payload begins with.
pub const DOMAIN: &[u8] = b"vmetric-credential-v1\0";
/// Longest agent id, bytes.
pub const AGENT_ID_MAX: usize = 64;
/// Hex digits of a device key.
const KEY_DIGITS: usize = 64;
/// Longest credential that is looked at: prefix, 20 digits, colons, id, key, two dots, 64 bytes of signature, all in hex.
const TEXT_MAX: usize = 4 + 2 * (20 + 1 + AGENT_ID_MAX + 1 + KEY_DIGITS) + 128;

/// Credentials whose signature is not verified again: twice the largest site. A verification costs more than all the rest
/// of a poll's answer.
const VERIFIED_MAX: usize = 200_000;

/// The beginning of a credential's SHA-256: nobody finds another text for the hash of a text that he does not know.
type Digest = [u8; 16];

/// What a credential says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Identity in the site's registry, `a-z0-9-`, at most 64 bytes.
    pub agent_id: String,
    /// When it was issued, seconds since 1970.
    pub issued_at: u64,
    /// Public key of the device that may use it, hex; absent = it was enrolled without one.
    pub device_key: Option<String>,
    /// Signed by a CA that this site goes away from.
    pub outdated: bool,
}

/// Issues and checks.
pub struct Signer {
    keys: KeyPair,
    verified: Mutex<HashSet<Digest>>,
}

impl Signer {
    /// The signer of a site; `seed` is the CA's.
    pub fn new(seed: [u8; 32]) -> Signer {
        Signer { keys: KeyPair::from_seed(Seed::new(seed)), verified: Mutex::default() }
    }

    /// A credential. The same arguments give the same text.
    pub fn issue(&self, agent_id: &str, issued_at: u64, device_key: Option<&str>) -> String {
        let key = device_key.map_or(String::new(), |key| format!(":{key}"));
        let payload = format!("{issued_at}:{agent_id}{key}");
        let signature = self.keys.sk.sign(message(payload.as_bytes()), None);
        format!("v1.{}.{}", hex::encode(payload.as_bytes()), hex::encode(signature.as_ref()))
    }

    /// Whose credential this is.
    ///
    /// # Errors
    /// `credential_unknown`.
    pub fn check(&self, text: &str) -> Result<Claims, Reason> {
        self.claims(text).ok_or_else(|| {
            Reason::new("credential_unknown", "this credential is not of this site: enroll again with a new token and the site's --pin")
        })
    }

    fn claims(&self, text: &str) -> Option<Claims> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let (payload, signature) = text.strip_prefix("v1.")?.split_once('.')?;
        let signature = Signature::new(hex::decode(signature)?);
        let payload = payload.as_bytes().chunks(2).map(|two| hex::decode::<1>(std::str::from_utf8(two).ok()?).map(|[b]| b));
        let payload = payload.collect::<Option<Vec<u8>>>()?;
        // The signature first: nothing is parsed that was not signed here.
        let mut digest = Digest::default();
        digest.copy_from_slice(&hex::sha256(text.as_bytes())[..16]);
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if !verified.contains(&digest) {
            self.keys.pk.verify(message(&payload), &signature).ok()?;
            if verified.len() >= VERIFIED_MAX {
                verified.clear();
            }
            verified.insert(digest);
        }
        let (issued_at, rest) = std::str::from_utf8(&payload).ok()?.split_once(':')?;
        let (agent_id, device_key) = rest.split_once(':').map_or((rest, None), |(id, key)| (id, Some(key)));
        device_key.map_or(Some([0; KEY_DIGITS / 2]), hex::decode)?;
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = !agent_id.is_empty() && agent_id.len() <= AGENT_ID_MAX && agent_id.bytes().all(known);
        valid.then_some(Claims {
            agent_id: agent_id.to_string(),
            issued_at: issued_at.parse().ok()?,
            device_key: device_key.map(String::from),
            outdated: false,
        })
    }
}

fn message(payload: &[u8]) -> Vec<u8> {
    [DOMAIN, payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_issued_is_known() {
        let signer = Signer::new([7; 32]);
        let text = signer.issue("edge-0001", 1_790_000_000, None);
        let claims = signer.check(&text).unwrap();
        assert_eq!((claims.agent_id.as_str(), claims.issued_at, claims.device_key), ("edge-0001", 1_790_000_000, None));
        let key = "5a".repeat(32);
        let claims = signer.check(&signer.issue("edge-0001", 1, Some(&key))).unwrap();
        assert_eq!((claims.agent_id.as_str(), claims.device_key), ("edge-0001", Some(key.clone())));
        let longest = signer.issue(&"a".repeat(AGENT_ID_MAX), u64::MAX, Some(&key));
        assert!(longest.len() <= TEXT_MAX && signer.check(&longest).is_ok());
    }

    #[test]
    fn nothing_else_is() {
        let signer = Signer::new([7; 32]);
        let text = signer.issue("edge-0001", 1, Some(&"5a".repeat(32)));
        assert!(Signer::new([8; 32]).check(&text).is_err(), "another site's");
        for at in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] ^= 1;
            assert!(signer.check(&String::from_utf8(altered).unwrap()).is_err(), "byte {at} altered");
            assert!(signer.check(&text).is_ok(), "and what was verified once stays known");
            assert!(signer.check(&text[..at]).is_err(), "cut at {at}");
        }
        for bad in ["", "v1.", "v1..", "v2.00.00", "é.é.é", &"v1.".repeat(500), &text.to_uppercase()] {
            assert!(signer.check(bad).is_err(), "{bad}");
        }
        let strange = signer.issue("Not Allowed", 1, None);
        assert!(signer.check(&strange).is_err(), "signed, but no agent id");
        assert!(signer.check(&signer.issue("edge-0001", 1, Some("5a"))).is_err(), "signed, but no key");
    }

    #[test]
    fn a_bare_signature_without_the_domain_is_no_credential() {
        let signer = Signer::new([7; 32]);
        let payload = b"1:edge-0001";
        let signature = signer.keys.sk.sign(payload, None);
        let text = format!("v1.{}.{}", hex::encode(payload), hex::encode(signature.as_ref()));
        assert!(signer.check(&text).is_err());
    }
}
