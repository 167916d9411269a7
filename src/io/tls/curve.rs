//! Curve25519 for TLS through ed25519-compact, which is there for the signatures of releases anyway: a device then carries
//! one implementation of the curve instead of two (ring's was 49 KB of the edge build, this is 5). A key exchange
//! takes 0.2 ms of an amd64 processor, optimized for size, and a device has few of them.
//!
//! Nothing that is secret here lives longer than a handshake: the key of a key exchange is used once.

use ed25519_compact::x25519::{PublicKey, SecretKey};
use ed25519_compact::{PublicKey as VerifyingKey, Signature};
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use rustls::{Error, NamedGroup, PeerMisbehaved};

use super::SystemRandom;

/// Key exchange (RFC 7748).
#[derive(Debug)]
pub(super) struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = [0; SecretKey::BYTES];
        SystemRandom.fill(&mut seed)?;
        // Clamped where it is used; wiped when dropped.
        let secret = SecretKey::new(seed);
        let public = secret.recover_public_key().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Exchange { secret, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: SecretKey,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; PublicKey::BYTES] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        // Refuses a result of zero, as RFC 8446 section 7.4.2 demands.
        let shared = PublicKey::new(peer).dh(&self.secret).map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        Ok(SharedSecret::from(&shared[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public[..]
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// Signatures of certificates and handshakes. rustls' own table would link P-256, P-384 and RSA with it.
#[derive(Debug)]
pub(super) struct Ed25519;

impl SignatureVerificationAlgorithm for Ed25519 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_slice(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_slice(signature).map_err(|_| InvalidSignature)?;
        key.verify(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::kx_group;

    use super::*;
    use crate::core::hex;

    fn bytes(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap()
    }

    #[test]
    fn both_sides_agree_with_rings() {
        for _ in 0..32 {
            let ours = X25519.start().unwrap();
            let rings = kx_group::X25519.start().unwrap();
            let (our_public, ring_public) = (ours.pub_key().to_vec(), rings.pub_key().to_vec());
            let (a, b) = (ours.complete(&ring_public).unwrap(), rings.complete(&our_public).unwrap());
            assert_eq!(a.secret_bytes(), b.secret_bytes());
        }
    }

    /// RFC 7748 section 5.2; the second peer has its unused top bit set, and scalars are clamped.
    #[test]
    fn the_rfcs_vectors_hold() {
        for (secret, peer, shared) in [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ] {
            let secret = SecretKey::new(bytes(secret));
            let public = secret.recover_public_key().unwrap();
            let exchange = Box::new(Exchange { secret, public });
            assert_eq!(exchange.complete(&bytes(peer)).unwrap().secret_bytes(), bytes(shared));
        }
    }

    /// Points of small order, in every spelling that fits: the shared secret would be zero, whoever the peer is.
    #[test]
    fn weak_and_misshapen_shares_are_refused() {
        let weak = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000080",
        ];
        for peer in weak {
            assert!(X25519.start().unwrap().complete(&bytes(peer)).is_err(), "{peer}");
        }
        for length in [0, 31, 33, 64] {
            assert!(X25519.start().unwrap().complete(&vec![9; length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn ring_signs_what_we_verify_and_nothing_else_passes() {
        use ring::signature::{Ed25519KeyPair, KeyPair};
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let (key, message) = (pair.public_key().as_ref().to_vec(), b"a handshake");
        let signature = pair.sign(message);
        assert!(Ed25519.verify_signature(&key, message, signature.as_ref()).is_ok());
        assert!(Ed25519.verify_signature(&key, b"another", signature.as_ref()).is_err());
        assert!(Ed25519.verify_signature(&key[..31], message, signature.as_ref()).is_err());
        for i in 0..64 {
            let mut bad = signature.as_ref().to_vec();
            bad[i] ^= 1;
            assert!(Ed25519.verify_signature(&key, message, &bad).is_err(), "byte {i}");
        }
        assert!(Ed25519.verify_signature(&key, message, &signature.as_ref()[..63]).is_err());
    }
}
