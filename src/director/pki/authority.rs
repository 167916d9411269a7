//! One certificate authority: a key that is made once and never replaced, and its certificate.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ring::rand::SecureRandom;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{unreadable, unwritable};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::io::fs::{PRIVATE, PUBLIC, write_durable};
use crate::io::tls::{self, Pin};

/// Year in which a CA ends; far enough that a new pin comes first.
const CA_ENDS: i32 = 2100;
/// PKCS#8 version 1 around an Ed25519 seed.
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// Which keys a CA and its leaf have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For agents: the pinned one, which also signs their credentials.
    Ed25519,
    /// For browsers and installers, which cannot verify Ed25519.
    P256,
}

impl Kind {
    /// The file of this kind: `ca.key`, `ca-p256.key`.
    pub fn file(self, dir: &Path, stem: &str, extension: &str) -> PathBuf {
        let kind = match self {
            Kind::Ed25519 => "",
            Kind::P256 => "-p256",
        };
        dir.join(format!("{stem}{kind}.{extension}"))
    }

    /// A new private key.
    pub fn make_key(self) -> Result<rcgen::KeyPair, String> {
        match self {
            Kind::Ed25519 => Ok(key_pair(self, &pkcs8(&random_seed()?))?),
            Kind::P256 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| e.to_string()),
        }
    }
}

/// A CA of this site.
pub struct Authority {
    /// Its kind of key.
    pub kind: Kind,
    /// Signs leaves.
    pub issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    /// Sent after the leaf.
    pub certificate: CertificateDer<'static>,
    /// SHA-256 of its public key.
    pub pin: Pin,
    /// The bytes of its `.pem` file.
    pub pem: String,
}

impl Authority {
    /// Reads key and certificate, and makes what is missing. `former`: the CA that this one came after; where a crash left
    /// its certificate beside the new key, the certificate is made again.
    ///
    /// # Errors
    /// `pki_unreadable`, `pki_unwritable`: which file and why. An existing CA is never replaced.
    pub fn open_or_create(dir: &Path, kind: Kind, former: Option<Pin>) -> Result<Authority, Reason> {
        let (key_file, file) = (kind.file(dir, "ca", "key"), kind.file(dir, "ca", "pem"));
        let (key, made) = read_or_make_key(dir, kind)?;
        let params = ca_params(kind, &key);
        let fresh = params.self_signed(&key).map_err(|e| unreadable(&key_file, &e))?;
        let pin = tls::pin_of(fresh.der()).ok_or_else(|| unreadable(&file, &"not an X.509 certificate"))?;
        let (certificate, pem) = match read(&file) {
            // The very bytes that people have told their browsers to trust, whatever version made them.
            Ok((there, pem)) if tls::pin_of(&there) == Some(pin) => (there, pem),
            Ok((there, _)) if former.is_some() && tls::pin_of(&there) == former => {
                write_durable(&file, fresh.pem().as_bytes(), PUBLIC).map_err(|e| unwritable(&file, &e))?;
                (fresh.der().clone(), fresh.pem())
            }
            Ok(_) => return Err(unreadable(&file, &"it does not belong to the .key file beside it; restore both from one backup")),
            Err(e) if !made && file.exists() => return Err(unreadable(&file, &e)),
            Err(_) => {
                write_durable(&file, fresh.pem().as_bytes(), PUBLIC).map_err(|e| unwritable(&file, &e))?;
                (fresh.der().clone(), fresh.pem())
            }
        };
        Ok(Authority { kind, issuer: rcgen::Issuer::new(params, key), certificate, pin, pem })
    }

    /// From a key alone.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn of_key(kind: Kind, key: rcgen::KeyPair) -> Result<Authority, String> {
        let params = ca_params(kind, &key);
        let made = params.self_signed(&key).map_err(|e| e.to_string())?;
        let pin = tls::pin_of(made.der()).ok_or("not an X.509 certificate")?;
        Ok(Authority { kind, certificate: made.der().clone(), pem: made.pem(), pin, issuer: rcgen::Issuer::new(params, key) })
    }

    /// The seed of an Ed25519 key.
    pub fn seed(&self) -> Option<[u8; 32]> {
        self.issuer.key().serialized_der().strip_prefix(&PKCS8_ED25519)?.try_into().ok()
    }
}

fn read(file: &Path) -> Result<(CertificateDer<'static>, String), String> {
    let pem = fs::read_to_string(file).map_err(|e| e.to_string())?;
    Ok((CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?, pem))
}

fn ca_params(kind: Kind, key: &rcgen::KeyPair) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = match kind {
        Kind::Ed25519 => super::name("vmetric site CA"),
        // People see it in a list beside those of other sites.
        Kind::P256 => super::name(&format!("vmetric site CA P-256 {}", &hex::encode(&hex::sha256(key.public_key_raw()))[..8])),
    };
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(CA_ENDS, 1, 1);
    // It signs leaves, never another CA.
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params
}

/// The CA's key, and whether it was made just now.
fn read_or_make_key(dir: &Path, kind: Kind) -> Result<(rcgen::KeyPair, bool), Reason> {
    let (file, certificate) = (kind.file(dir, "ca", "key"), kind.file(dir, "ca", "pem"));
    match fs::read(&file) {
        Ok(pem) => {
            let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|e| unreadable(&file, &e))?;
            Ok((key_pair(kind, &der).map_err(|e| unreadable(&file, &e))?, false))
        }
        Err(e) if e.kind() == ErrorKind::NotFound && certificate.exists() => {
            let lost = match kind {
                Kind::Ed25519 => "everything that enrolled here has to enroll again",
                Kind::P256 => "remove that too, and browsers have to trust a new one",
            };
            let name = certificate.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(unreadable(&file, &format!("missing, although {name} is there: restore it from a backup, or {lost}")))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let key = kind.make_key().map_err(|e| unwritable(&file, &e))?;
            write_durable(&file, key.serialize_pem().as_bytes(), PRIVATE).map_err(|e| unwritable(&file, &e))?;
            Ok((key, true))
        }
        Err(e) => Err(unreadable(&file, &e)),
    }
}

fn random_seed() -> Result<[u8; 32], &'static str> {
    let mut seed = [0; 32];
    ring::rand::SystemRandom::new().fill(&mut seed).map_err(|_| "the system gives no randomness")?;
    Ok(seed)
}

fn pkcs8(seed: &[u8; 32]) -> PrivatePkcs8KeyDer<'static> {
    PrivatePkcs8KeyDer::from([PKCS8_ED25519.as_slice(), seed].concat())
}

/// The key pair of a PKCS#8 document, if it is of this kind.
pub fn key_pair(kind: Kind, der: &PrivatePkcs8KeyDer<'_>) -> Result<rcgen::KeyPair, &'static str> {
    let (algorithm, else_it_is) = match kind {
        Kind::Ed25519 => (&rcgen::PKCS_ED25519, "not an Ed25519 key in PKCS#8"),
        Kind::P256 => (&rcgen::PKCS_ECDSA_P256_SHA256, "not a P-256 key in PKCS#8"),
    };
    let bytes = der.secret_pkcs8_der();
    // Only the short form of Ed25519: the signer of credentials needs the seed alone.
    if kind == Kind::Ed25519 && !(bytes.starts_with(&PKCS8_ED25519) && bytes.len() == PKCS8_ED25519.len() + 32) {
        return Err(else_it_is);
    }
    rcgen::KeyPair::from_pkcs8_der_and_sign_algo(der, algorithm).map_err(|_| else_it_is)
}
