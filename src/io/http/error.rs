//! Why a request failed, with a stable code and a remedy.

use crate::core::reason::Reason;
use crate::io::tls::{Pin, pin_text};

/// Everything that keeps an answer from arriving. An answer with any HTTP status is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpError {
    /// No answer: name lookup, refused, no route, timeout, connection lost.
    Unreachable {
        /// `host:port (address)`.
        peer: String,
        /// What happened.
        why: String,
    },
    /// The server's CA is not the one that is pinned.
    PinMismatch {
        /// `host:port`.
        peer: String,
        /// What the server showed.
        presented: Pin,
    },
    /// TLS failed for another reason.
    TlsFailed {
        /// `host:port`.
        peer: String,
        /// What happened.
        why: String,
    },
    /// The peer does not speak TLS.
    NotTls {
        /// `host:port`.
        peer: String,
    },
    /// The answer is larger than the caller allows.
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// Under 1 KiB/s over 60 s.
    TooSlow {
        /// `host:port`.
        peer: String,
    },
    /// The wake descriptor became readable.
    Woken,
    /// The URL, the proxy setting or the pins cannot be used as they are.
    BadUrl {
        /// What is wrong, with the remedy.
        why: String,
    },
    /// The proxy refused or could not be reached.
    ProxyFailed {
        /// `host:port` of the proxy.
        proxy: String,
        /// What happened.
        why: String,
    },
}

impl HttpError {
    /// The code of the reason.
    pub fn code(&self) -> &'static str {
        match self {
            HttpError::Unreachable { .. } => "unreachable",
            HttpError::PinMismatch { .. } => "pin_mismatch",
            HttpError::TlsFailed { .. } => "tls_failed",
            HttpError::NotTls { .. } => "not_tls",
            HttpError::TooLarge { .. } => "too_large",
            HttpError::TooSlow { .. } => "too_slow",
            HttpError::Woken => "woken",
            HttpError::BadUrl { .. } => "bad_url",
            HttpError::ProxyFailed { .. } => "proxy_failed",
        }
    }

    /// Code and sentence for reports and logs; holds no secret.
    pub fn reason(&self) -> Reason {
        Reason::new(self.code(), self.to_string())
    }
}

impl From<HttpError> for Reason {
    fn from(error: HttpError) -> Reason {
        error.reason()
    }
}

impl std::error::Error for HttpError {}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HttpError::Unreachable { peer, why } => write!(f, "{peer}: {why}"),
            HttpError::PinMismatch { peer, presented } => write!(
                f,
                "{peer} shows a site CA that is not pinned: {}. Compare with `vmetric-director pin` at the site; only if they are \
                 equal, enroll again with that --pin",
                pin_text(presented)
            ),
            HttpError::TlsFailed { peer, why } => write!(f, "{peer}: TLS failed: {why}"),
            HttpError::NotTls { peer } => write!(f, "{peer} does not speak TLS: check port and https"),
            HttpError::TooLarge { limit } => write!(f, "the answer is larger than the {limit} bytes allowed for it"),
            HttpError::TooSlow { peer } => write!(f, "{peer}: less than 1 KiB/s over 60 s; the progress so far is kept"),
            HttpError::Woken => write!(f, "interrupted by a signal"),
            HttpError::BadUrl { why } => write!(f, "{why}"),
            HttpError::ProxyFailed { proxy, why } => write!(f, "proxy {proxy}: {why}"),
        }
    }
}
