//! One private key at rest: argon2id turns the passphrase into a key, XChaCha20-Poly1305 seals the seed under it.
//!
//! The file is JSON with the public key in the clear, so that listing keys needs no passphrase. Role and public key are
//! authenticated together with the seed: a file cannot be passed off as another role's.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use ed25519_compact::{KeyPair, Seed};
use ring::rand::{SecureRandom, SystemRandom};

use super::envelope::{Public, keyid};
use super::failure::{Failure, Result};
use super::json::{self, Node, number, object, text};
use crate::core::hex;

/// First field of every key file.
const FORMAT: &str = "vmetric-key-v1";
/// RFC 9106's choice for machines without 2 GiB to spare: 64 MiB, 3 passes, 4 lanes. One guess costs an attacker 64 MiB.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// Most that a file may ask for, so that a damaged or hostile file cannot hang the tool.
const MEMORY_KIB_MAX: u64 = 1024 * 1024;
const PASSES_MAX: u64 = 16;
const LANES_MAX: u64 = 16;
/// Largest key file; ours have about 500 bytes.
pub const KEY_FILE_MAX: u64 = 4096;
/// 24 bytes: random nonces never meet.
const NONCE: usize = 24;

/// Bytes that are overwritten when they are dropped. (Best effort: copies that the compiler makes are not reached.)
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

/// How the passphrase becomes a key. Equal recipes with equal passphrases give equal keys, so one run serves a folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipe {
    salt: [u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Recipe {
    /// A recipe with a random salt.
    pub fn fresh() -> Recipe {
        Recipe { salt: random(), memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES }
    }

    /// Runs argon2id: about a tenth of a second, on purpose.
    pub fn derive(&self, passphrase: &Secret) -> Result<Secret> {
        let failed = |e: argon2::Error| Failure::new("key_file", format!("argon2id with these parameters failed: {e}"));
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(failed)?;
        let mut out = Secret(vec![0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&passphrase.0, &self.salt, &mut out.0)
            .map_err(failed)?;
        Ok(out)
    }
}

/// `N` bytes of the system's randomness.
pub fn random<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    // Without randomness no key may be made; there is nothing else to do.
    SystemRandom::new().fill(&mut out).expect("the system's random source works");
    out
}

/// A key pair from its seed, checked.
pub fn pair(seed: &Secret) -> Result<KeyPair> {
    let bad = || Failure::new("bad_key", "the seed gives no usable Ed25519 key; make a new one");
    let pair = KeyPair::try_from_seed(Seed::from_slice(&seed.0).map_err(|_| bad())?).map_err(|_| bad())?;
    pair.validate().map_err(|_| bad())?;
    Ok(pair)
}

/// A key file as it lies on the disk.
#[derive(Clone)]
pub struct KeyFile {
    /// The role the key was made for.
    pub role: String,
    /// The public half.
    pub public: Public,
    /// How its sealing key is made.
    pub recipe: Recipe,
    nonce: [u8; NONCE],
    sealed: Vec<u8>,
}

impl KeyFile {
    /// Seals a seed under a derived key.
    pub fn seal(role: &str, seed: &Secret, recipe: &Recipe, derived: &Secret) -> Result<KeyFile> {
        let public = *pair(seed)?.pk;
        let nonce = random();
        let sealed = cipher(derived)?
            .encrypt(&XNonce::from(nonce), Payload { msg: &seed.0, aad: &bound(role, &public) })
            .map_err(|_| Failure::new("key_file", "the key could not be sealed"))?;
        Ok(KeyFile { role: role.into(), public, recipe: recipe.clone(), nonce, sealed })
    }

    /// The key pair; `file` is for the message.
    pub fn open(&self, derived: &Secret, file: &str) -> Result<KeyPair> {
        let payload = Payload { msg: &self.sealed, aad: &bound(&self.role, &self.public) };
        let seed = cipher(derived)?.decrypt(&XNonce::from(self.nonce), payload).map(Secret).map_err(|_| {
            Failure::new("wrong_passphrase", format!("{file}: wrong passphrase (or the file was changed); give the one it was made with"))
        })?;
        let pair = pair(&seed)?;
        if *pair.pk != self.public {
            return Err(Failure::new("key_file", format!("{file}: public and private key do not belong together; restore the file")));
        }
        Ok(pair)
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let recipe = object([
            ("lanes", number(self.recipe.lanes.into())),
            ("memory_kib", number(self.recipe.memory_kib.into())),
            ("name", text("argon2id")),
            ("passes", number(self.recipe.passes.into())),
            ("salt", text(hex::encode(&self.recipe.salt))),
        ]);
        let mut out = json::canonical(&object([
            ("cipher", text("xchacha20-poly1305")),
            ("format", text(FORMAT)),
            ("kdf", recipe),
            ("keyid", text(keyid(&self.public))),
            ("nonce", text(hex::encode(&self.nonce))),
            ("public", text(hex::encode(&self.public))),
            ("role", text(&self.role)),
            ("sealed", text(hex::encode(&self.sealed))),
        ]));
        out.push(b'\n');
        out
    }

    /// Reads a key file; `file` is for the messages.
    pub fn parse(bytes: &[u8], file: &str) -> Result<KeyFile> {
        let value = json::parse(bytes, file)?;
        let top = Node::top(&value, file);
        let words = [("format", FORMAT), ("cipher", "xchacha20-poly1305")];
        for (name, wanted) in words {
            if top.field(name)?.text()? != wanted {
                return Err(top.field(name)?.expected(wanted));
            }
        }
        let kdf = top.field("kdf")?;
        if kdf.field("name")?.text()? != "argon2id" {
            return Err(kdf.field("name")?.expected("argon2id"));
        }
        let limited = |name: &str, max: u64| {
            let node = kdf.field(name)?;
            node.number()?.try_into().ok().filter(|n: &u32| u64::from(*n) <= max).ok_or_else(|| node.expected(&format!("at most {max}")))
        };
        let recipe = Recipe {
            salt: kdf.field("salt")?.hex()?,
            memory_kib: limited("memory_kib", MEMORY_KIB_MAX)?,
            passes: limited("passes", PASSES_MAX)?,
            lanes: limited("lanes", LANES_MAX)?,
        };
        // 32 bytes of seed and 16 of authentication.
        let sealed: [u8; 48] = top.field("sealed")?.hex()?;
        Ok(KeyFile {
            role: top.field("role")?.text()?.to_string(),
            public: top.field("public")?.hex()?,
            recipe,
            nonce: top.field("nonce")?.hex()?,
            sealed: sealed.to_vec(),
        })
    }
}

fn cipher(derived: &Secret) -> Result<XChaCha20Poly1305> {
    XChaCha20Poly1305::new_from_slice(&derived.0).map_err(|_| Failure::new("key_file", "the derived key has the wrong length"))
}

fn bound(role: &str, public: &Public) -> Vec<u8> {
    [FORMAT.as_bytes(), b"\0", role.as_bytes(), b"\0", public].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick() -> Recipe {
        Recipe { salt: [7; 16], memory_kib: 64, passes: 1, lanes: 1 }
    }

    #[test]
    fn sealed_and_opened() {
        let seed = Secret(vec![9; 32]);
        let derived = quick().derive(&Secret(b"a long passphrase".to_vec())).unwrap();
        let file = KeyFile::seal("root", &seed, &quick(), &derived).unwrap();
        let bytes = file.bytes();
        assert!(!String::from_utf8(bytes.clone()).unwrap().contains(&hex::encode(&seed.0)));
        let again = KeyFile::parse(&bytes, "k").unwrap();
        assert_eq!(*again.open(&derived, "k").unwrap().pk, file.public);

        let wrong = quick().derive(&Secret(b"another passphrase".to_vec())).unwrap();
        assert_eq!(again.open(&wrong, "k").err().unwrap().code, "wrong_passphrase");
        let moved = KeyFile { role: "timestamp".into(), ..again };
        assert_eq!(moved.open(&derived, "k").err().unwrap().code, "wrong_passphrase");
    }

    #[test]
    fn every_torn_or_greedy_file_is_refused() {
        let derived = quick().derive(&Secret(b"a long passphrase".to_vec())).unwrap();
        let bytes = KeyFile::seal("root", &Secret(vec![9; 32]), &quick(), &derived).unwrap().bytes();
        for cut in 0..bytes.len() - 1 {
            assert!(KeyFile::parse(&bytes[..cut], "k").is_err(), "{cut}");
        }
        let greedy = String::from_utf8(bytes).unwrap().replace("\"memory_kib\":64", "\"memory_kib\":1048577");
        assert!(KeyFile::parse(greedy.as_bytes(), "k").is_err_and(|e| e.text.contains("kdf.memory_kib")));
    }
}
