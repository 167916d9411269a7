//! A certificate that the operator brings (`--tls-cert`, `--tls-key`): for browsers, and for agents that know a company CA.
//!
//! It is shown instead of the P-256 leaf; agents with a pin keep the site's Ed25519 chain. The files are read again when
//! their bytes change, so that whatever renews them (an ACME client, a person) needs no restart. Pairs that do not fit
//! together, half written ones included, change nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::leaf::certified;
use crate::core::hex::{self, Sha256};
use crate::core::reason::Reason;
use crate::core::time;
use crate::io::fs::read_limited;

/// Largest certificate or key file: a chain of a dozen certificates has a tenth of it.
const FILE_MAX: u64 = 256 * 1024;
/// Certificates of a chain.
const CHAIN_MAX: usize = 16;
/// Less than this left is told: most CAs renew a month before the end.
pub const WARN_SECONDS: u64 = 14 * 86_400;

/// Where the operator keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// What was in the files.
#[derive(Clone, Debug)]
pub struct Company {
    /// What the TLS server shows.
    pub certified: Arc<CertifiedKey>,
    /// The chain's text.
    pub pem: String,
    /// End of its leaf, seconds since 1970.
    pub until: u64,
    /// SHA-256 of both files.
    pub seen: Sha256,
}

impl Files {
    /// Reads both files.
    ///
    /// # Errors
    /// `tls_files`: which file, and what is wrong with it.
    pub fn load(&self) -> Result<Company, Reason> {
        let certificate = read("--tls-cert", &self.certificate)?;
        let key = read("--tls-key", &self.key)?;
        let bad = |option: &str, file: &Path, why: &str| Reason::new("tls_files", format!("{option} {}: {why}", file.display()));
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&certificate).take(CHAIN_MAX).collect::<Result<_, _>>().unwrap_or_default();
        let Some(leaf) = chain.first() else {
            return Err(bad("--tls-cert", &self.certificate, "no certificate in PEM form; it is the chain, leaf first"));
        };
        let until = not_after(leaf).ok_or_else(|| bad("--tls-cert", &self.certificate, "the first certificate cannot be read"))?;
        let private = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| bad("--tls-key", &self.key, "no private key in PEM form, or one with a passphrase"))?;
        let certified = certified(chain, private)
            .map_err(|e| bad("--tls-key", &self.key, &format!("does not belong to the certificate, or cannot be used: {e}")))?;
        let pem = String::from_utf8(certificate.clone()).map_err(|_| bad("--tls-cert", &self.certificate, "is not text"))?;
        Ok(Company { certified: Arc::new(certified), pem, until, seen: hex::sha256(&[certificate, key].concat()) })
    }
}

/// What is to be told of its end; `None` = enough is left.
pub fn why_warn(until: u64, now: u64) -> Option<Reason> {
    let end = time::format(until);
    let remedy = "renew the files of --tls-cert and --tls-key; no restart is needed";
    match until.checked_sub(now) {
        None => Some(Reason::new("tls_cert_expired", format!("the certificate of --tls-cert expired {end}; {remedy}"))),
        Some(left) if left < WARN_SECONDS => {
            Some(Reason::new("tls_cert_ends", format!("the certificate of --tls-cert ends {end}; {remedy}")))
        }
        Some(_) => None,
    }
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>, Reason> {
    let bad = |why: String| Reason::new("tls_files", format!("{option} {}: {why}", file.display()));
    read_limited(file, FILE_MAX).map_err(|e| bad(e.to_string()))?.ok_or_else(|| bad("there is no such file".into()))
}

/// One DER element: tag, content, rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The end of a certificate (RFC 5280, 4.1): Certificate > TBSCertificate > [version], serial, algorithm, issuer, validity.
fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.2;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (tag, digits, _) = element(rest)?;
    let text = std::str::from_utf8(digits).ok().filter(|t| t.is_ascii())?;
    // UTCTime has two digits of the year, GeneralizedTime four.
    let text = match tag {
        0x17 if text.len() == 13 => format!("{}{text}", if text < "5" { "20" } else { "19" }),
        0x18 if text.len() == 15 => text.to_string(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let iso = format!("{}-{}-{}T{}:{}:{}Z", part(0, 4)?, part(4, 6)?, part(6, 8)?, part(8, 10)?, part(10, 12)?, part(12, 14)?);
    time::parse(&iso)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        for (year, expected) in [(2027, "2027-03-04T00:00:00Z"), (2049, "2049-03-04T00:00:00Z"), (2051, "2051-03-04T00:00:00Z")] {
            let mut params = rcgen::CertificateParams::new(vec!["a.example".to_string()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 3, 4);
            let der = params.self_signed(&key).unwrap().der().clone();
            assert_eq!(time::format(not_after(&der).unwrap()), expected);
            for cut in 0..der.len().min(400) {
                let _ = not_after(&der[..cut]);
            }
        }
        for junk in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x80\x30\x80"] {
            assert_eq!(not_after(junk), None);
        }
    }

    #[test]
    fn an_end_that_comes_near_is_told() {
        let code = |until, now| why_warn(until, now).map_or("fine".into(), |r| r.code.to_string());
        assert_eq!(code(WARN_SECONDS + 100, 100), "fine");
        assert_eq!(code(WARN_SECONDS + 99, 100), "tls_cert_ends");
        assert_eq!(code(99, 100), "tls_cert_expired");
    }
}
