//! A server certificate: what it says, when it is renewed, how it is made.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::authority::{Authority, key_pair};
use super::{Names, unreadable, unwritable};
use crate::core::reason::Reason;
use crate::core::time;
use crate::io::fs::{PRIVATE, PUBLIC, write_durable};

/// Life of a leaf. Short, because it lies on a machine that is on the network; renewed without anybody noticing.
pub const LEAF_SECONDS: u64 = 90 * 86_400;
/// A leaf is renewed when less than this is left, a third: a month in which something may go wrong.
pub const RENEW_SECONDS: u64 = LEAF_SECONDS / 3;
/// 2100-01-01, the end of the CA, beyond which no leaf goes.
const LAST: u64 = 4_102_444_800;
/// First words of a leaf's `.pem`.
const LINE: &str = "vmetric leaf until ";

/// What the decision about a leaf needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// End of its life, seconds since 1970.
    pub until: u64,
    /// Names and addresses in it.
    pub names: Vec<String>,
}

impl Facts {
    /// The last second at which a browser accepts it.
    pub fn expires(&self) -> u64 {
        self.until.min(LAST)
    }
}

/// Why a leaf has to be made now; `None` = it stays.
///
/// | code | when |
/// |---|---|
/// | `leaf_missing` | there is none, or its files are damaged or do not belong together |
/// | `leaf_due` | a third of its life is left, or less |
/// | `leaf_ahead` | it ends later than one made now would: it was made while the clock was ahead |
/// | `leaf_names` | a name or address has come; one that is gone can wait for the next renewal |
pub fn why_renew(leaf: Option<&Facts>, wanted: &Names, now: u64) -> Option<Reason> {
    let Some(leaf) = leaf else {
        return Some(Reason::new("leaf_missing", "there is no usable server certificate"));
    };
    if leaf.until < now.saturating_add(RENEW_SECONDS) {
        return Some(Reason::new("leaf_due", format!("the server certificate ends {}", time::format(leaf.expires()))));
    }
    if leaf.until > now.saturating_add(LEAF_SECONDS) {
        let detail = format!("the server certificate ends {}: it was made while this clock was ahead", time::format(leaf.expires()));
        return Some(Reason::new("leaf_ahead", detail));
    }
    let new: Vec<String> = wanted.list().into_iter().filter(|n| !leaf.names.contains(n)).collect();
    (!new.is_empty()).then(|| Reason::new("leaf_names", format!("the server certificate does not name {}", new.join(", "))))
}

/// A leaf in use.
#[derive(Debug)]
pub struct Leaf {
    /// What it says.
    pub facts: Facts,
    /// What the TLS server shows.
    pub certified: Arc<CertifiedKey>,
}

impl Leaf {
    /// The leaf on disk. Missing, damaged, half written, of another CA: all of these are `None`, which means "make one".
    pub fn read(dir: &Path, ca: &Authority) -> Option<Leaf> {
        let pem = fs::read_to_string(ca.kind.file(dir, "leaf", "pem")).ok()?;
        let (until, names) = pem.lines().next()?.strip_prefix(LINE)?.split_once(" for ")?;
        let facts = Facts { until: until.parse().ok()?, names: names.split(',').map(String::from).collect() };
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let key = PrivatePkcs8KeyDer::from_pem_file(ca.kind.file(dir, "leaf", "key")).ok()?;
        if !signed_by(&leaf, ca) {
            return None;
        }
        let certified = certified(vec![leaf, ca.certificate.clone()], key.into()).ok()?;
        Some(Leaf { facts, certified: Arc::new(certified) })
    }

    /// Makes one with a new key, and returns when it is durable.
    ///
    /// # Errors
    /// `pki_unwritable`.
    pub fn make(dir: &Path, ca: &Authority, names: &Names, now: u64) -> Result<Leaf, Reason> {
        let (key_file, file) = (ca.kind.file(dir, "leaf", "key"), ca.kind.file(dir, "leaf", "pem"));
        let key = ca.kind.make_key().map_err(|e| unwritable(&key_file, &e))?;
        let facts = Facts { until: now.saturating_add(LEAF_SECONDS), names: names.list() };
        let leaf = params(names, facts.expires()).and_then(|p| p.signed_by(&key, &ca.issuer)).map_err(|e| unwritable(&file, &e))?;
        let pem = format!("{LINE}{} for {names}\n{}", facts.until, leaf.pem());
        let key_der = PrivatePkcs8KeyDer::from(key.serialize_der());
        let certified =
            certified(vec![leaf.der().clone(), ca.certificate.clone()], key_der.into()).map_err(|e| unwritable(&key_file, &e))?;
        // A cut between the two leaves a pair that does not match, which is "make one" at the next start.
        write_durable(&key_file, key.serialize_pem().as_bytes(), PRIVATE).map_err(|e| unwritable(&key_file, &e))?;
        write_durable(&file, pem.as_bytes(), PUBLIC).map_err(|e| unwritable(&file, &e))?;
        Ok(Leaf { facts, certified: Arc::new(certified) })
    }
}

impl Leaf {
    /// The same leaf, which a former CA vouches for too: whoever pins that one is at home. The second certificate of the leaf's
    /// key and that CA come last in the chain.
    ///
    /// # Errors
    /// `pki_unreadable`: the leaf's key.
    pub fn vouched(self, dir: &Path, ca: &Authority, former: &Authority) -> Result<Leaf, Reason> {
        let file = ca.kind.file(dir, "leaf", "key");
        let der = PrivatePkcs8KeyDer::from_pem_file(&file).map_err(|e| unreadable(&file, &e))?;
        let key = key_pair(ca.kind, &der).map_err(|e| unreadable(&file, &e))?;
        let mut names = Names::default();
        for name in &self.facts.names {
            match name.parse() {
                Ok(ip) => names.ips.push(ip),
                Err(_) => names.dns.push(name.clone()),
            }
        }
        let twin = params(&names, self.facts.expires()).and_then(|p| p.signed_by(&key, &former.issuer));
        let twin = twin.map_err(|e| unreadable(&file, &e))?;
        let mut chain: Vec<CertificateDer<'static>> = self.certified.cert.iter().take(2).cloned().collect();
        chain.extend([twin.der().clone(), former.certificate.clone()]);
        let certified = certified(chain, der.into()).map_err(|e| unreadable(&file, &e))?;
        Ok(Leaf { certified: Arc::new(certified), ..self })
    }
}

/// A chain and its key, if they belong together.
pub fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'_>) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(certified)
}

/// After a restored backup the leaf may be another CA's.
fn signed_by(leaf: &CertificateDer<'_>, ca: &Authority) -> bool {
    let mut roots = RootCertStore::empty();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(86_400));
    match (roots.add(ca.certificate.clone()), ParsedCertificate::try_from(leaf)) {
        (Ok(()), Ok(leaf)) => verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], at, algorithms).is_ok(),
        _ => false,
    }
}

fn params(names: &Names, ends: u64) -> Result<rcgen::CertificateParams, rcgen::Error> {
    let mut params = rcgen::CertificateParams::new(names.dns.clone())?;
    params.subject_alt_names.extend(names.ips.iter().map(|ip| rcgen::SanType::IpAddress(*ip)));
    params.distinguished_name = super::name("vmetric director");
    // So that a device whose clock stands at 1970 accepts it.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = params.not_before + Duration::from_secs(ends);
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}
