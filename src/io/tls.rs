//! TLS as vmetric speaks it: agents 1.3 only, with ring, X25519, Ed25519, and a site CA known by the hash of its key.
//!
//! **Pins.** `--pin sha256:<64 hex>` is the SHA-256 of the site CA's DER SubjectPublicKeyInfo, the same number that
//! `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | sha256sum` prints. The server sends leaf and CA; the
//! verifier looks for a presented CA whose key is pinned and checks that the leaf was signed by it. While a site goes over to
//! another CA it shows two certificates of one leaf key, each with its CA: whoever pins either of them is at home.
//!
//! **Dates never refuse under a pin.** A device whose clock says 1970 or 2090 must still be able to update, and a pin is a
//! statement about a key, not about a date. Chains are checked at a fixed time at which every certificate of a site CA is
//! valid (they all start at 1970). What ends a key is a new pin, never a calendar.
//!
//! **Host names are not compared under a pin.** The pin names the site; its addresses change with the customer's network,
//! and a site CA signs for nobody but its own Directors.
//!
//! Narrowed in code, not by features: whatever the provider does not name is not linked (337 KB on an edge device).

#[cfg(feature = "company-ca")]
pub mod company;
mod curve;
#[cfg(feature = "director")]
mod server;

#[cfg(feature = "director")]
pub use server::server_config;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme, SupportedCipherSuite,
};

use crate::core::hex;
use crate::core::reason::Reason;

/// SHA-256 of a DER SubjectPublicKeyInfo.
pub type Pin = [u8; 32];

/// Pins an agent may hold: the one in use, candidates that arrived over an authenticated connection.
pub const PINS_MAX: usize = 4;
/// Certificates of a server's message that are looked at: leaf, CA, and a CA on its way in or out.
const CHAIN_MAX: usize = 4;
/// When chains are checked: the second day of 1970. See the module's text on dates.
const CHECKED_AT: Duration = Duration::from_secs(86_400);

/// `sha256:<64 lower-case hex>`, as on the command line and in the configuration.
///
/// # Errors
/// `bad_pin`, with the form that is expected.
pub fn parse_pin(text: &str) -> Result<Pin, Reason> {
    text.strip_prefix("sha256:").and_then(hex::decode).ok_or_else(|| {
        let expected = "`sha256:` and 64 lower-case hex digits, as `vmetric-director pin` prints it";
        Reason::new("bad_pin", format!("`{text}` is no pin: it is {expected}"))
    })
}

/// The text form that [`parse_pin`] reads.
pub fn pin_text(pin: &Pin) -> String {
    format!("sha256:{}", hex::encode(pin))
}

/// The pin of a certificate; `None` when it cannot be parsed.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(hex::sha256(&parsed.subject_public_key_info()))
}

/// AES-128-GCM, which every TLS 1.3 server has to speak. Before it, on processors that often lack AES instructions,
/// ChaCha20-Poly1305: never slow. Of amd64 hardly any lacks them, and its vector code for ChaCha20 is 49 KB; there ring falls
/// back on a slower AES in constant time.
const SUITES: &[SupportedCipherSuite] = if cfg!(target_arch = "x86_64") {
    &[cipher_suite::TLS13_AES_128_GCM_SHA256]
} else {
    &[cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, cipher_suite::TLS13_AES_128_GCM_SHA256]
};

/// The only cryptography that is linked: TLS 1.3 with the suites above, X25519, Ed25519.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: vec![&curve::X25519],
        signature_verification_algorithms: ALGORITHMS,
        secure_random: &SystemRandom,
        key_provider: &NoKeys,
    })
}

/// A client configuration that accepts the sites behind `pins` and nobody else.
pub fn client_config(verifier: Arc<PinVerifier>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = builder
        .expect("TLS 1.3 is in the provider above")
        .dangerous() // the verifier is stricter than the usual one, not weaker
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A resumed session would not run the verifier, and tickets would be memory for nothing: one connection is kept instead.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Accepts a server that shows a pinned CA and a leaf signed by it.
#[derive(Debug)]
pub struct PinVerifier {
    pins: Vec<Pin>,
    matched: Mutex<Vec<Pin>>,
}

impl PinVerifier {
    /// A verifier for these pins.
    pub fn new(pins: Vec<Pin>) -> PinVerifier {
        PinVerifier { pins, matched: Mutex::default() }
    }

    /// The pins under which the last handshake was accepted.
    pub fn matched(&self) -> Vec<Pin> {
        self.matched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether this CA has signed the leaf, or another presented certificate of the leaf's key.
fn vouches(ca: &CertificateDer<'_>, leaf: &ParsedCertificate<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    let at = UnixTime::since_unix_epoch(CHECKED_AT);
    let signed =
        |certificate: &ParsedCertificate<'_>| verify_server_cert_signed_by_trust_anchor(certificate, &roots, &[], at, ALGORITHMS.all);
    let first = signed(leaf);
    let twin = |other: &CertificateDer<'_>| {
        let Ok(other) = ParsedCertificate::try_from(other) else { return false };
        other.subject_public_key_info() == leaf.subject_public_key_info() && signed(&other).is_ok()
    };
    if first.is_err() && others.iter().take(CHAIN_MAX).any(twin) { Ok(()) } else { first }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let mut presented = hex::sha256(&parsed.subject_public_key_info());
        let mut failure = None;
        let mut matched = Vec::new();
        for ca in others.iter().take(CHAIN_MAX) {
            let Some(pin) = pin_of(ca) else { continue };
            presented = pin;
            if !self.pins.contains(&pin) {
                continue;
            }
            match vouches(ca, &parsed, others) {
                Ok(()) => matched.push(pin),
                Err(error) => failure = Some(error),
            }
        }
        if !matched.is_empty() {
            *self.matched.lock().unwrap_or_else(PoisonError::into_inner) = matched;
            return Ok(ServerCertVerified::assertion());
        }
        Err(failure.unwrap_or_else(|| CertificateError::Other(OtherError(Arc::new(NotPinned { presented }))).into()))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// The verifier's word for "somebody else's CA"; travels inside [`rustls::Error`].
#[derive(Debug)]
pub struct NotPinned {
    /// The CA (or, alone, the leaf) that was shown.
    pub presented: Pin,
}

impl std::error::Error for NotPinned {}

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not pinned", pin_text(&self.presented))
    }
}

/// Which CA was shown, when `error` says that it is not a pinned one.
pub fn not_pinned(error: &Error) -> Option<Pin> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref::<NotPinned>().map(|n| n.presented),
        _ => None,
    }
}

const ALGORITHMS: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: &[&curve::Ed25519], mapping: &[(SignatureScheme::ED25519, &[&curve::Ed25519])] };

/// The system's randomness through ring; rustls' own provider would link everything else with it.
#[derive(Debug)]
struct SystemRandom;

impl SecureRandom for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), bytes).map_err(|_| GetRandomFailed)
    }
}

/// Keys come through a certificate resolver (servers) or not at all (clients).
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("keys come through a certificate resolver".into()))
    }
}
