//! Proof that a request comes from the device that was enrolled: a signature by the device's own key over this request.
//!
//! The credential says who; on its own it would be worth as much to whoever reads it in a backup or a dump. So it names the
//! device's public key, and every request carries, behind the credential, a signature that only the device can make:
//!
//! ```text
//! Authorization: Bearer <credential>~<instance>.<sequence>.<signature>
//! ```
//!
//! *Instance* tells two devices with one key apart ([`super::identity`]); *sequence* never falls within an instance, so that
//! an old request is worth nothing. The signature covers path and body.

use ed25519_compact::{KeyPair, PublicKey, Seed, Signature};

use super::hex;

/// Separates credential and proof; neither contains it.
pub const SEPARATOR: char = '~';
/// Hex digits of an instance.
pub const INSTANCE_DIGITS: usize = 32;
/// Longest proof that is looked at: instance, 20 digits, signature, two dots.
const TEXT_MAX: usize = INSTANCE_DIGITS + 1 + 20 + 1 + 128;
const REQUEST: &[u8] = b"vmetric-request-v1\0";
const ENROLL: &[u8] = b"vmetric-enroll-v1\0";

/// A device's key pair. Its seed never leaves the device.
#[derive(Clone)]
pub struct DeviceKey(KeyPair);

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceKey({})", self.public())
    }
}

impl DeviceKey {
    /// From its seed.
    pub fn new(seed: [u8; 32]) -> DeviceKey {
        DeviceKey(KeyPair::from_seed(Seed::new(seed)))
    }

    /// The public half, in hex.
    pub fn public(&self) -> String {
        hex::encode(self.0.pk.as_ref())
    }

    /// The proof for one request.
    pub fn prove(&self, path: &str, instance: &str, sequence: u64, body: &[u8]) -> String {
        let signature = self.0.sk.sign(request(path, instance, sequence, body), None);
        format!("{instance}.{sequence}.{}", hex::encode(signature.as_ref()))
    }

    /// Proof of possession at enrollment: whoever has only a copy of the public half cannot enroll with it.
    pub fn prove_enrollment(&self, token: &str) -> String {
        hex::encode(self.0.sk.sign([ENROLL, token.as_bytes()].concat(), None).as_ref())
    }
}

/// Whether the holder of this key enrolls with this token. All texts came over the network.
pub fn enrolls(public: &str, token: &str, proof: &str) -> bool {
    verify(public, &[ENROLL, token.as_bytes()].concat(), proof)
}

/// A device's key as people compare it: the first 16 digits of its SHA-256. Too many for anybody to make another key for.
pub fn fingerprint(public: &str) -> String {
    hex::encode(&hex::sha256(public.as_bytes())[..8])
}

/// What a proof claims, before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which of the devices with this key; hex.
    pub instance: String,
    /// Never falls within an instance.
    pub sequence: u64,
    signature: String,
}

impl Proof {
    /// From the text behind the credential.
    pub fn parse(text: &str) -> Option<Proof> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let (instance, rest) = text.split_once('.')?;
        let (sequence, signature) = rest.split_once('.')?;
        hex::decode::<{ INSTANCE_DIGITS / 2 }>(instance)?;
        Some(Proof { instance: instance.into(), sequence: sequence.parse().ok()?, signature: signature.into() })
    }

    /// Whether the holder of this key made it for this request.
    pub fn holds(&self, public: &str, path: &str, body: &[u8]) -> bool {
        verify(public, &request(path, &self.instance, self.sequence, body), &self.signature)
    }
}

/// The parts have fixed lengths or cannot contain the separator, so that no two requests have one message.
fn request(path: &str, instance: &str, sequence: u64, body: &[u8]) -> Vec<u8> {
    let head = format!("{path}\0{instance}\0{sequence}\0");
    [REQUEST, head.as_bytes(), &hex::sha256(body)].concat()
}

fn verify(public: &str, message: &[u8], signature: &str) -> bool {
    let (Some(public), Some(signature)) = (hex::decode::<32>(public), hex::decode::<64>(signature)) else { return false };
    PublicKey::new(public).verify(message, &Signature::new(signature)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn only_this_key_for_this_request() {
        let key = DeviceKey::new([1; 32]);
        let text = key.prove("/agent/v1/report", INSTANCE, 7, b"body");
        let proof = Proof::parse(&text).unwrap();
        assert_eq!((proof.instance.as_str(), proof.sequence), (INSTANCE, 7));
        assert!(proof.holds(&key.public(), "/agent/v1/report", b"body"));
        assert!(!proof.holds(&DeviceKey::new([2; 32]).public(), "/agent/v1/report", b"body"), "another device");
        assert!(!proof.holds(&key.public(), "/agent/v1/poll", b"body"), "another path");
        assert!(!proof.holds(&key.public(), "/agent/v1/report", b"bodY"), "another body");
        assert!(!Proof { sequence: 8, ..proof.clone() }.holds(&key.public(), "/agent/v1/report", b"body"), "another time");
        assert!(!proof.holds("", "/agent/v1/report", b"body") && !proof.holds("zz", "/agent/v1/report", b"body"));
        // A key of low order would verify anything.
        assert!(!proof.holds(&"00".repeat(32), "/agent/v1/report", b"body"));
        assert!(!proof.holds(&format!("01{}", "00".repeat(31)), "/agent/v1/report", b"body"));
    }

    #[test]
    fn nothing_else_is_a_proof() {
        let good = DeviceKey::new([1; 32]).prove("/p", INSTANCE, u64::MAX, b"");
        assert!(good.len() <= TEXT_MAX && Proof::parse(&good).is_some());
        for bad in ["", ".", "..", "é.1.x", &format!("{INSTANCE}.-1.aa"), &format!("{INSTANCE}x.1.aa"), &"a.".repeat(200)] {
            assert!(Proof::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn enrollment_is_bound_to_key_and_token() {
        let key = DeviceKey::new([1; 32]);
        let proof = key.prove_enrollment("vmt_1");
        assert!(enrolls(&key.public(), "vmt_1", &proof));
        assert!(!enrolls(&key.public(), "vmt_2", &proof) && !enrolls(&DeviceKey::new([2; 32]).public(), "vmt_1", &proof));
        let debug = format!("{key:?}");
        assert!(debug.contains(&key.public()) && !debug.contains(&hex::encode(&[1; 32])), "the seed is never shown");
    }
}
