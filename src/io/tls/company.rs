//! Under a company CA instead of a pin (cargo feature `company-ca`): the usual rules of webpki, with the floored clock.
//!
//! Chain to the given CA, server authentication, host name or address, dates. RSA, P-256 and P-384 are linked for it, which is
//! why it is a feature. TLS 1.3 only, as under a pin.
//!
//! **Dates refuse here.** They are compared with the wall clock, but never with one before the latest signed time that this
//! process knows; so a device that wakes up in 1970 is as late as its last contact, not 56 years behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use super::{NoKeys, Resumption, SystemRandom};
use crate::core::reason::Reason;
use crate::io::clock;

/// Most certificates in it.
const CAS_MAX: usize = 32;

/// Latest signed time that this process knows, seconds since 1970.
static FLOOR: AtomicU64 = AtomicU64::new(0);

/// Tells of a signed time; the latest counts.
pub fn floor_is(signed: u64) {
    FLOOR.fetch_max(signed, Ordering::Relaxed);
}

/// A client configuration that accepts servers of the CAs in `pem`, under their name.
///
/// # Errors
/// `bad_ca`: no certificate in it, or one that is no CA's.
pub fn client_config(pem: &[u8]) -> Result<Arc<ClientConfig>, Reason> {
    let bad = |why: &str| Reason::new("bad_ca", format!("the CA file {why}; expected: certificates in PEM form"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem).take(CAS_MAX) {
        let certificate = certificate.map_err(|_| bad("is damaged"))?;
        roots.add(certificate).map_err(|_| bad("holds something that is no CA certificate"))?;
    }
    if roots.is_empty() {
        return Err(bad("holds no certificate"));
    }
    let provider = CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        signature_verification_algorithms: default_provider().signature_verification_algorithms,
        secure_random: &SystemRandom,
        key_provider: &NoKeys,
    };
    let builder = ClientConfig::builder_with_details(Arc::new(provider), Arc::new(Floored));
    let mut config = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| bad("cannot be used"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The wall clock, floored.
#[derive(Debug)]
struct Floored;

impl TimeProvider for Floored {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(clock::unix().max(FLOOR.load(Ordering::Relaxed)))))
    }
}
