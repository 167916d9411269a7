//! Keys of other kinds than ours: ECDSA and RSA, for `vmetric-release tuf` on other people's repositories.
//!
//! No device and no Director counts them: [`super::Trusted::bootstrap`] knows Ed25519 only, and the edge build does not
//! contain this file. A key is PEM text around a SubjectPublicKeyInfo, as TUF tools write it; what cannot be read is a key
//! that never counts.

use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};

use crate::core::canonical;

/// Longest signature, bytes: RSA with 8,192 bits.
const SIGNATURE_MAX: usize = 1024;

/// A public key and how it signs.
#[derive(Clone, Debug)]
pub(super) struct ForeignKey {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

/// The same key under another scheme is the same key: it must not count twice.
impl PartialEq for ForeignKey {
    fn eq(&self, other: &ForeignKey) -> bool {
        self.bytes == other.bytes
    }
}

impl ForeignKey {
    pub fn new(keytype: &str, scheme: &str, public: &str) -> Option<ForeignKey> {
        let algorithm: &'static dyn VerificationAlgorithm = match (keytype, scheme) {
            // The second name of the type is that of the specification before 1.0.32.
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => &ECDSA_P256_SHA256_ASN1,
            ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => &ECDSA_P384_SHA384_ASN1,
            ("rsa", "rsassa-pss-sha256") => &RSA_PSS_2048_8192_SHA256,
            ("rsa", "rsa-pkcs1v15-sha256") => &RSA_PKCS1_2048_8192_SHA256,
            _ => return None,
        };
        Some(ForeignKey { algorithm, bytes: public_key(&pem(public)?)?.to_vec() })
    }

    /// Is `sig` (hexadecimal) this key's signature of the canonical form of `signed`?
    pub fn signed(&self, sig: &str, signed: &[u8]) -> bool {
        let mut message = Vec::new();
        let formed = canonical::canonicalize(signed, &mut |piece| message.extend_from_slice(piece)).is_ok();
        let verify = |sig: Vec<u8>| UnparsedPublicKey::new(self.algorithm, &self.bytes).verify(&message, &sig).is_ok();
        formed && bytes(sig).is_some_and(verify)
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
        [a, b] => Some((digit(a)? * 16 + digit(b)?) as u8),
        _ => None,
    });
    (hex.len() <= 2 * SIGNATURE_MAX).then(|| pairs.collect()).flatten()
}

/// The bytes between the two lines of dashes.
fn pem(text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let (mut out, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for b in body.bytes().filter(|b| !b.is_ascii_whitespace()).take_while(|b| *b != b'=') {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

/// The key inside `SEQUENCE { SEQUENCE { algorithm }, BIT STRING }`: a point, or `SEQUENCE { modulus, exponent }`.
fn public_key(der: &[u8]) -> Option<&[u8]> {
    let (info, rest) = element(der, 0x30)?;
    let (_algorithm, after) = element(info, 0x30)?;
    let (bits, end) = element(after, 0x03)?;
    (rest.is_empty() && end.is_empty()).then(|| bits.strip_prefix(&[0])).flatten()
}

/// The contents of the first DER element, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = der.split_at_checked(2)?;
    let (length, rest) = match head[1] {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    (head[0] == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A P-256 key, its signature of `{}`, and the same key cut at every length.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAECM2PbISAIA5DVv4RlTkpW4KcB12F\nFuNVwRHv5DmjM1prbtC8XtPJicNd1H2Y877heFCpJ4/5orjLAUNH84iV5Q==\n-----END PUBLIC KEY-----";
    const SIG: &str = "3045022065813ff8a8a9e63276e9127322f72593f9889618e99ce30dc575c28deb8e2c97022100ab9583ea6cd15ed898670f07b7c7439681fbf82a207b0515136101507fae4e83";

    #[test]
    fn an_ecdsa_key_verifies() {
        let key = ForeignKey::new("ecdsa", "ecdsa-sha2-nistp256", KEY).unwrap();
        assert!(key.signed(SIG, b"{ }"));
        assert!(!key.signed(SIG, b"{\"a\":1}") && !key.signed("", b"{}") && !key.signed("0", b"{}") && !key.signed("zz", b"{}"));
        assert!(!key.signed(&"00".repeat(SIGNATURE_MAX + 1), b"{}"));
    }

    #[test]
    fn what_is_no_key_never_counts() {
        for length in 0..KEY.len() {
            assert!(ForeignKey::new("ecdsa", "ecdsa-sha2-nistp256", &KEY[..length]).is_none(), "{length}");
        }
        for (keytype, scheme) in
            [("rsa", "ecdsa-sha2-nistp256"), ("ecdsa", "rsassa-pss-sha256"), ("ecdsa", ""), ("sigstore-oidc", "Fulcio")]
        {
            assert!(ForeignKey::new(keytype, scheme, KEY).is_none());
        }
        for der in
            [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x82, 1], &[0x30, 0x84, 0, 0, 0, 0], &[0x30, 2, 0x30, 0], &[0x30, 4, 0x30, 0, 3, 0]]
        {
            assert_eq!(public_key(der), None);
        }
        let twin = ForeignKey { algorithm: &RSA_PSS_2048_8192_SHA256, bytes: vec![1] };
        assert_eq!(twin, ForeignKey { algorithm: &RSA_PKCS1_2048_8192_SHA256, bytes: vec![1] });
    }
}
