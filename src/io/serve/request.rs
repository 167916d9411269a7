//! What the application gets.

use std::net::SocketAddr;

use ureq_proto::http::HeaderMap;

/// A complete request; its body is within [`super::Service::body_limit`].
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, ...; as sent, so compare exactly.
    pub method: String,
    /// Path as sent, percent-encoding untouched; begins with `/` (or is `*`).
    pub path: String,
    /// What follows the first `?`.
    pub query: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body, chunks joined.
    pub body: Vec<u8>,
    /// The other end of the connection (a proxy's address when there is one).
    pub peer: Option<SocketAddr>,
}

impl Request {
    /// A header's text; `None` when absent or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token of `Authorization: Bearer <token>`.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}
