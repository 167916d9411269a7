//! Which certificate a client is shown, and the place where a renewed one takes over.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::authority::Kind;
use super::leaf::{Facts, Leaf};

/// What the TLS server shows. A leaf is exchanged whole; connections that are open keep what they have seen.
#[derive(Debug, Default)]
pub struct Shown {
    leaves: RwLock<Leaves>,
    company: RwLock<Option<Arc<CertifiedKey>>>,
}

#[derive(Debug, Default)]
struct Leaves {
    ed25519: Option<Leaf>,
    p256: Option<Leaf>,
}

impl Shown {
    /// From the next handshake on, this one.
    pub fn set(&self, kind: Kind, leaf: Leaf) {
        let mut leaves = self.leaves.write().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Ed25519 => leaves.ed25519 = Some(leaf),
            Kind::P256 => leaves.p256 = Some(leaf),
        }
    }

    /// From the next handshake on, the operator's certificate in the place of the P-256 one.
    pub fn set_company(&self, certified: Arc<CertifiedKey>) {
        *self.company.write().unwrap_or_else(PoisonError::into_inner) = Some(certified);
    }

    /// What the current leaf says.
    pub fn facts(&self, kind: Kind) -> Option<Facts> {
        self.of(kind, |leaf| leaf.facts.clone())
    }

    /// The current leaf and its chain.
    pub fn certified(&self, kind: Kind) -> Option<Arc<CertifiedKey>> {
        self.of(kind, |leaf| leaf.certified.clone())
    }

    fn of<T>(&self, kind: Kind, look: impl Fn(&Leaf) -> T) -> Option<T> {
        let leaves = self.leaves.read().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Kind::Ed25519 => leaves.ed25519.as_ref().map(look),
            Kind::P256 => leaves.p256.as_ref().map(look),
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        let kind = preferred(offered);
        // An RSA certificate is nothing to a client that offers no RSA.
        let usable = |c: &Arc<CertifiedKey>| kind == Kind::P256 && c.key.choose_scheme(offered).is_some();
        let company = self.company.read().unwrap_or_else(PoisonError::into_inner).clone();
        company.filter(usable).or_else(|| self.certified(kind))
    }
}

/// The client's own order decides (RFC 8446, 4.2.3: "in descending order of preference").
///
/// Agents offer Ed25519 alone. Browsers and schannel do not offer it. OpenSSL, Go and Java offer it behind P-256, so a
/// person who has told such a client to trust one CA needs to know one only: the P-256 one, the same as for browsers.
pub fn preferred(offered: &[SignatureScheme]) -> Kind {
    let ours = |scheme: &&SignatureScheme| matches!(**scheme, SignatureScheme::ED25519 | SignatureScheme::ECDSA_NISTP256_SHA256);
    match offered.iter().find(ours) {
        Some(SignatureScheme::ED25519) => Kind::Ed25519,
        _ => Kind::P256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SignatureScheme as S;

    #[test]
    fn the_clients_order_decides() {
        assert_eq!(preferred(&[S::ED25519]), Kind::Ed25519, "an agent");
        assert_eq!(preferred(&[S::RSA_PSS_SHA256, S::ED25519, S::ECDSA_NISTP256_SHA256]), Kind::Ed25519);
        assert_eq!(preferred(&[S::ECDSA_NISTP256_SHA256, S::ED25519]), Kind::P256, "OpenSSL, Go, Java");
        assert_eq!(preferred(&[S::ECDSA_NISTP256_SHA256, S::RSA_PSS_SHA256]), Kind::P256, "browsers, schannel");
        assert_eq!(preferred(&[]), Kind::P256);
    }
}
