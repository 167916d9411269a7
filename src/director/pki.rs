//! The site CA: made at the Director's first start, in every backup, shared by a cluster.
//!
//! ```text
//! <state>/pki/ca.key     PKCS#8 PEM, Ed25519, 0600: signs leaves and agent credentials. Never replaced by us.
//!             ca.pem     the certificate; made again from the key when it is missing (same key, same bytes)
//!             leaf.key   0600, new with each leaf
//!             leaf.pem   90 days; its first line says until when and for which names
//! ```
//!
//! Everything starts at 1970, so that a device with a wrong clock accepts it; agents know the CA by the hash of its key
//! ([`crate::io::tls`]). Browsers and `curl --cacert ca.pem` check names and dates as they always do.

pub mod credential;

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ring::rand::SecureRandom;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::core::reason::Reason;
use crate::io::fs::write_durable;
use crate::io::tls::{self, Pin};

/// Life of a leaf. Short, because it lies on a machine that is on the network; renewed without anybody noticing.
pub const LEAF_SECONDS: u64 = 90 * 86_400;
/// A leaf is renewed when less than this is left: a month in which something may go wrong.
pub const RENEW_SECONDS: u64 = 30 * 86_400;
/// Year in which the CA ends; far enough that a new pin comes first.
const CA_ENDS: i32 = 2100;
/// PKCS#8 version 1 around an Ed25519 seed.
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// First words of `leaf.pem`.
const LEAF_LINE: &str = "vmetric leaf until ";

/// The site's own certificate authority, its current leaf, and the key that signs agent credentials.
pub struct SiteCa {
    dir: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    certificate: CertificateDer<'static>,
    pin: Pin,
    signer: credential::Signer,
    leaf: Arc<Leaf>,
}

/// Names that the leaf is good for. Agents do not compare them; browsers and `curl` do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.dns.iter().cloned().chain(self.ips.iter().map(IpAddr::to_string)).collect::<Vec<_>>();
        write!(f, "{}", all.join(","))
    }
}

impl SiteCa {
    /// Reads `<dir>/ca.key`, `ca.pem`, `leaf.key`, `leaf.pem`, and makes what is missing. `now`: seconds since 1970.
    ///
    /// # Errors
    /// `pki_unreadable`, `pki_unwritable`: which file and why. An existing CA is never replaced.
    pub fn open_or_create(dir: &Path, names: &Names, now: u64) -> Result<SiteCa, Reason> {
        fs::create_dir_all(dir).map_err(|e| unwritable(dir, &e))?;
        let (seed, made) = read_or_make_seed(dir)?;
        let key = key_pair(&pkcs8(&seed)).map_err(|e| unreadable(&dir.join("ca.key"), &e))?;
        let params = ca_params();
        let certificate = params.self_signed(&key).map_err(|e| unreadable(&dir.join("ca.key"), &e))?;
        let file = dir.join("ca.pem");
        match CertificateDer::from_pem_file(&file) {
            Ok(there) if &there == certificate.der() => {}
            // Another version of the same CA is kept: agents compare the key, browsers trust these very bytes.
            Ok(there) if tls::pin_of(&there) == tls::pin_of(certificate.der()) => {}
            Ok(_) => return Err(unreadable(&file, &"it does not belong to ca.key; restore both from one backup")),
            Err(e) if !made && file.exists() => return Err(unreadable(&file, &e)),
            Err(_) => write_durable(&file, certificate.pem().as_bytes(), 0o644).map_err(|e| unwritable(&file, &e))?,
        }
        let certificate = certificate.der().clone();
        let pin = tls::pin_of(&certificate).ok_or_else(|| unreadable(&file, &"not an X.509 certificate"))?;
        let ca = SiteCa {
            dir: dir.to_path_buf(),
            issuer: rcgen::Issuer::new(params, key),
            certificate,
            pin,
            signer: credential::Signer::new(seed),
            leaf: Arc::new(Leaf { current: RwLock::new(None) }),
        };
        match ca.read_leaf(names, now) {
            Some(leaf) => ca.leaf.set(leaf),
            None => ca.make_leaf(names, now)?,
        }
        Ok(ca)
    }

    /// SHA-256 of the CA's SubjectPublicKeyInfo: what agents pin.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// For [`crate::io::serve::serve`]; a renewed leaf is used from the next handshake on, without a restart.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        tls::server_config(self.leaf.clone())
    }

    /// Makes a new leaf when fewer than 30 days of the current one are left or the names changed; call it daily. `true` = made.
    ///
    /// # Errors
    /// `pki_unwritable`; the old leaf stays in use.
    pub fn renew_if_due(&self, names: &Names, now: u64) -> Result<bool, Reason> {
        if self.read_leaf(names, now).is_some() {
            return Ok(false);
        }
        self.make_leaf(names, now).map(|()| true)
    }

    /// A credential for an enrolled agent, compact text. `issued_at`: seconds since 1970.
    pub fn issue(&self, agent_id: &str, issued_at: u64) -> String {
        self.signer.issue(agent_id, issued_at)
    }

    /// Whose credential this is.
    ///
    /// # Errors
    /// `credential_unknown`: not ours, altered, or no credential at all; one code for all, so that a guesser learns nothing.
    pub fn check(&self, text: &str) -> Result<credential::Claims, Reason> {
        self.signer.check(text)
    }

    /// The leaf on disk, unless it is due, for other names, damaged, or half written: all of these mean "make a new one".
    fn read_leaf(&self, names: &Names, now: u64) -> Option<Arc<CertifiedKey>> {
        let pem = fs::read_to_string(self.dir.join("leaf.pem")).ok()?;
        let (until, whom) = pem.lines().next()?.strip_prefix(LEAF_LINE)?.split_once(" for ")?;
        let until: u64 = until.parse().ok()?;
        // A leaf from the far future was made under a wrong clock.
        let due = until < now.saturating_add(RENEW_SECONDS) || until > now.saturating_add(LEAF_SECONDS);
        if due || whom != names.to_string() {
            return None;
        }
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let key = PrivatePkcs8KeyDer::from_pem_file(self.dir.join("leaf.key")).ok()?;
        self.certified(leaf, &key).ok().filter(|c| c.keys_match().is_ok()).map(Arc::new)
    }

    fn make_leaf(&self, names: &Names, now: u64) -> Result<(), Reason> {
        let file = |name: &str| self.dir.join(name);
        let key_der = pkcs8(&random_seed().map_err(|e| unwritable(&file("leaf.key"), &e))?);
        let key = key_pair(&key_der).map_err(|e| unwritable(&file("leaf.key"), &e))?;
        let until = now.saturating_add(LEAF_SECONDS);
        let leaf =
            leaf_params(names, until).and_then(|p| p.signed_by(&key, &self.issuer)).map_err(|e| unwritable(&file("leaf.pem"), &e))?;
        let pem = format!("{LEAF_LINE}{until} for {names}\n{}", leaf.pem());
        let certified = self.certified(leaf.der().clone(), &key_der).map_err(|e| unwritable(&file("leaf.key"), &e))?;
        // A cut between the two leaves a pair that does not match, which is "make a new one" at the next start.
        write_durable(&file("leaf.key"), key.serialize_pem().as_bytes(), 0o600).map_err(|e| unwritable(&file("leaf.key"), &e))?;
        write_durable(&file("leaf.pem"), pem.as_bytes(), 0o644).map_err(|e| unwritable(&file("leaf.pem"), &e))?;
        self.leaf.set(Arc::new(certified));
        log::info!("leaf_made: certificate for {names} until {}", crate::core::time::format(until));
        Ok(())
    }

    fn certified(&self, leaf: CertificateDer<'static>, key: &PrivatePkcs8KeyDer<'_>) -> Result<CertifiedKey, rustls::Error> {
        let key = rustls::crypto::ring::sign::any_eddsa_type(key)?;
        Ok(CertifiedKey::new(vec![leaf, self.certificate.clone()], key))
    }
}

/// What the TLS server shows; changed at renewal.
#[derive(Debug)]
struct Leaf {
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl Leaf {
    fn set(&self, leaf: Arc<CertifiedKey>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(leaf);
    }
}

impl ResolvesServerCert for Leaf {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn ca_params() -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = name("vmetric site CA");
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(CA_ENDS, 1, 1);
    // It signs leaves, never another CA.
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(names: &Names, until: u64) -> Result<rcgen::CertificateParams, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(names.dns.clone())?;
    params.subject_alt_names.extend(names.ips.iter().map(|ip| rcgen::SanType::IpAddress(*ip)));
    params.distinguished_name = name("vmetric director");
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    // Beyond the CA's end the CA's end counts, and no date can overflow.
    let ends = Duration::from_secs(until).min(Duration::from_secs(4_102_444_800));
    params.not_after = params.not_before + ends;
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn name(text: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, text);
    name
}

/// The CA's seed, and whether it was made just now.
fn read_or_make_seed(dir: &Path) -> Result<([u8; 32], bool), Reason> {
    let file = dir.join("ca.key");
    match fs::read(&file) {
        Ok(pem) => {
            let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|e| unreadable(&file, &e))?;
            let seed = der.secret_pkcs8_der().strip_prefix(&PKCS8_ED25519).and_then(|s| s.try_into().ok());
            Ok((seed.ok_or_else(|| unreadable(&file, &"not an Ed25519 key in PKCS#8"))?, false))
        }
        Err(e) if e.kind() == ErrorKind::NotFound && dir.join("ca.pem").exists() => {
            Err(unreadable(&file, &"missing, although ca.pem is there: restore it from a backup, or every agent has to enroll again"))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let seed = random_seed().map_err(|e| unwritable(&file, &e))?;
            let key = key_pair(&pkcs8(&seed)).map_err(|e| unwritable(&file, &e))?;
            write_durable(&file, key.serialize_pem().as_bytes(), 0o600).map_err(|e| unwritable(&file, &e))?;
            Ok((seed, true))
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

fn key_pair(der: &PrivatePkcs8KeyDer<'_>) -> Result<rcgen::KeyPair, rcgen::Error> {
    rcgen::KeyPair::from_pkcs8_der_and_sign_algo(der, &rcgen::PKCS_ED25519)
}

fn unreadable(file: &Path, why: &dyn fmt::Display) -> Reason {
    Reason::new("pki_unreadable", format!("{}: {why}", file.display()))
}

fn unwritable(file: &Path, why: &dyn fmt::Display) -> Reason {
    Reason::new("pki_unwritable", format!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests;
