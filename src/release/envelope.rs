//! Signatures around a metadata document, and who may give them.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_compact::{KeyPair, PublicKey, Signature};
use miniserde::json::Value;

use super::failure::Result;
use super::json::{self, Node};
use crate::core::hex;

/// An Ed25519 public key.
pub type Public = [u8; 32];

/// The TUF form of a public key.
pub fn key_value(public: &Public) -> Value {
    json::object([
        ("keytype", json::text("ed25519")),
        ("keyval", json::object([("public", json::text(hex::encode(public)))])),
        ("scheme", json::text("ed25519")),
    ])
}

/// TUF's name of a key: the SHA-256 of its canonical form.
pub fn keyid(public: &Public) -> String {
    hex::encode(&hex::sha256(&json::canonical(&key_value(public))))
}

/// Checks one signature.
pub fn is_right(message: &[u8], public: &Public, sig: &[u8; 64]) -> bool {
    PublicKey::new(*public).verify(message, &Signature::new(*sig)).is_ok()
}

/// Some keys of which `threshold` have to sign.
#[derive(Clone, Debug)]
pub struct Authority {
    /// For people: `targets`, `root version 1`.
    pub name: String,
    /// How many different keys.
    pub threshold: u64,
    /// Key id to public key.
    pub keys: BTreeMap<String, Public>,
}

/// A metadata document: what is signed, and its signatures so far.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The signed part.
    pub signed: Value,
    /// Key id to signature; sorted, so that the order of signing does not show in the bytes.
    pub signatures: BTreeMap<String, [u8; 64]>,
}

impl Envelope {
    /// A document that nobody has signed yet.
    pub fn unsigned(signed: Value) -> Envelope {
        Envelope { signed, signatures: BTreeMap::new() }
    }

    /// Reads a document; `file` is for the messages.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Envelope> {
        let value = json::parse(bytes, file)?;
        let top = Node::top(&value, file);
        let mut signatures = BTreeMap::new();
        for entry in top.field("signatures")?.items()? {
            signatures.insert(entry.field("keyid")?.text()?.to_string(), entry.field("sig")?.hex()?);
        }
        Ok(Envelope { signed: top.field("signed")?.value().clone(), signatures })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let signature = |(id, sig): (&String, &[u8; 64])| json::object([("keyid", json::text(id)), ("sig", json::text(hex::encode(sig)))]);
        json::canonical(&json::object([("signatures", json::list(self.signatures.iter().map(signature))), ("signed", self.signed.clone())]))
    }

    /// Adds the signature of `key`. The nonce comes from key and message alone (RFC 8032), so signing twice is the same
    /// signature and there is no random source that could repeat itself.
    pub fn sign(&mut self, key: &KeyPair) {
        let signature = key.sk.sign(json::canonical(&self.signed), None);
        self.signatures.insert(keyid(&key.pk), *signature);
    }

    /// The keys of `authority` whose signature is there and right.
    pub fn signers(&self, authority: &Authority) -> BTreeSet<String> {
        let message = json::canonical(&self.signed);
        let signed_by = |(id, public): (&String, &Public)| {
            self.signatures.get(id).is_some_and(|sig| keyid(public) == *id && is_right(&message, public, sig)).then(|| id.clone())
        };
        authority.keys.iter().filter_map(signed_by).collect()
    }

    /// True when enough different keys of every authority have signed.
    pub fn is_complete(&self, authorities: &[Authority]) -> bool {
        authorities.iter().all(|a| a.threshold > 0 && self.signers(a).len() as u64 >= a.threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_compact::Seed;

    #[test]
    fn the_threshold_counts_different_right_signatures() {
        let keys: Vec<KeyPair> = (1..=3).map(|i| KeyPair::from_seed(Seed::new([i; 32]))).collect();
        let authority =
            Authority { name: "targets".into(), threshold: 2, keys: keys.iter().take(2).map(|k| (keyid(&k.pk), *k.pk)).collect() };
        let mut doc = Envelope::unsigned(json::object([("version", json::number(1))]));
        doc.sign(&keys[0]);
        doc.sign(&keys[0]);
        doc.sign(&keys[2]);
        assert!(!doc.is_complete(std::slice::from_ref(&authority)));
        doc.sign(&keys[1]);
        assert!(doc.is_complete(std::slice::from_ref(&authority)));
        let again = Envelope::parse(&doc.bytes(), "x").unwrap();
        assert_eq!(again.bytes(), doc.bytes());
        doc.signed = json::object([("version", json::number(2))]);
        assert!(doc.signers(&authority).is_empty(), "signatures of other bytes do not count");
    }
}
