//! The signature scheme itself: which edge cases count, so that an update of the library cannot change it unseen.

use ed25519_compact::{PublicKey, Signature};
use vmetric::core::hex;
use vmetric::core::trust::Trusted;

use crate::trust_repo::*;

/// The twelve vectors of "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020): message, public key, signature.
/// Small-order keys and points, mixed orders, S not below the group's order, encodings that are not canonical.
const SPECCHECK: [(&str, &str, &str); 12] = [
    (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
    ),
    (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
    ),
    (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
    ),
    (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d7428d12ffc5df5f37e359941266a4e35f0f",
    ),
    (
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a4775aa233aa0505711d8fdcfdaa943d4908",
    ),
    (
        "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
    (
        "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
    ),
];

/// The row of ed25519-compact 2.6.0: no small orders, nothing that is not canonical, S below the order, cofactored.
/// 4 and 5 need the holder of the secret key and do no harm.
const OURS: &str = "---VVV------";
/// The row of another library, which shows that these are the vectors they claim to be.
const RING: &str = "VVVV-------V";

fn row(verify: impl Fn(&[u8], &[u8; 32], &[u8; 64]) -> bool) -> String {
    let verdict = |(message, key, sig): &(&str, &str, &str)| {
        let message = hex::decode::<32>(message).unwrap();
        if verify(&message, &hex::decode(key).unwrap(), &hex::decode(sig).unwrap()) { 'V' } else { '-' }
    };
    SPECCHECK.iter().map(verdict).collect()
}

#[test]
fn edge_cases_of_verification() {
    let whole = |message: &[u8], key: &[u8; 32], sig: &[u8; 64]| PublicKey::new(*key).verify(message, &Signature::new(*sig)).is_ok();
    let streamed = |message: &[u8], key: &[u8; 32], sig: &[u8; 64]| {
        let Ok(mut state) = PublicKey::new(*key).verify_incremental(&Signature::new(*sig)) else { return false };
        message.chunks(7).for_each(|piece| state.absorb(piece));
        state.verify().is_ok()
    };
    let ring = |message: &[u8], key: &[u8; 32], sig: &[u8; 64]| {
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key).verify(message, sig).is_ok()
    };
    assert_eq!(row(whole), OURS);
    assert_eq!(row(streamed), OURS, "metadata and files are verified as streams");
    assert_eq!(row(ring), RING);
}

/// S + L is the same number: without the check of S a signature would have a second form.
#[test]
fn signatures_are_not_malleable() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0x10,
    ];
    let key = Key::new("any");
    let good = hex::decode::<64>(&key.sign(b"message")).unwrap();
    assert!(key.pair.pk.verify(b"message", &Signature::new(good)).is_ok());
    let mut other = good;
    let mut carry = 0;
    for (s, l) in other[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*s) + u16::from(l) + carry;
        (*s, carry) = (sum as u8, sum >> 8);
    }
    assert!(key.pair.pk.verify(b"message", &Signature::new(other)).is_err());
}

/// A weak key in a root would verify anything: such a root is no root.
#[test]
fn a_weak_key_signs_nothing() {
    for weak in ["00".repeat(32), format!("01{}", "00".repeat(31)), format!("ec{}7f", "ff".repeat(30)), SPECCHECK[0].1.to_string()] {
        let mut repo = Repo::new();
        let id = Key::new("root-1").id;
        let signer = id.clone();
        repo.edit("root", move |doc| {
            set(doc, &["keys", &id, "keyval", "public"], &quote(&weak));
            set(doc, &["roles", "root", "keyids"], &format!("[{}]", quote(&id)));
            set(doc, &["roles", "root", "threshold"], "1");
        });
        repo.publish_root();
        let text = String::from_utf8(repo.root(1).to_vec()).unwrap();
        // R of small order and S = 0: what a weak key lets through in a lax verifier.
        let (start, end) = (text.find('[').unwrap(), text.find(']').unwrap());
        for r in [format!("01{}", "00".repeat(31)), SPECCHECK[0].2[..64].to_string()] {
            let forged = format!(r#"[{{"keyid":"{signer}","sig":"{r}{}"}}"#, "00".repeat(32));
            let root = format!("{}{forged}{}", &text[..start], &text[end..]);
            assert_eq!(code(Trusted::bootstrap(root.as_bytes())), "root_not_self_signed");
        }
    }
}
