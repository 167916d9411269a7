//! The agent's HTTPS client: blocking, one thread, pinned, limited, woken by signals.
//!
//! One client for everything (report, poll, metadata, artifacts, enrollment), so that proxy, pins and limits are the same
//! for every request. At most one idle connection is kept, so that a poll after a report costs no handshake.
//!
//! While a call waits it watches the socket *and* [`HttpConfig::wake_fd`]: a signal handler that writes to that pipe ends
//! the call at once with [`HttpError::Woken`]. The descriptor is never read here: whoever owns it drains it.

mod error;
mod rate;

pub use error::HttpError;
pub use rate::MinRate;

use std::time::Duration;

use crate::io::tls::Pin;

/// How to reach a site.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The site CA's pins, one to [`crate::io::tls::PINS_MAX`].
    pub pins: Vec<Pin>,
    /// `http://[user:password@]host:port`; `None` = from `https_proxy`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
    pub proxy: Option<String>,
    /// Sent with each request.
    pub user_agent: &'static str,
    /// A descriptor that becomes readable when every wait has to end (Unix; ignored elsewhere).
    pub wake_fd: Option<i32>,
    /// Called when a wait begins and every 20 s in it: re-arms the liveness alarm.
    pub tick: fn(),
}

/// A complete answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds, when given as a number.
    pub retry_after_s: Option<u64>,
    /// The body, within the caller's limit.
    pub body: Vec<u8>,
}

/// An answer whose body is read piece by piece.
#[derive(Debug)]
pub struct Download {
    /// 200, 206, or what the server had to say instead.
    pub status: u16,
    /// `Retry-After` in seconds, when given as a number.
    pub retry_after_s: Option<u64>,
    /// Bytes that follow.
    pub length: Option<u64>,
    /// First byte of the body within the whole: from `Content-Range` for a 206, else 0.
    pub start: u64,
    /// Length of the whole: from `Content-Range` for a 206, else [`Self::length`].
    pub total: Option<u64>,
    /// `ETag` as sent.
    pub etag: Option<String>,
}

impl Download {
    /// The next bytes; 0 = complete.
    ///
    /// # Errors
    /// Any [`HttpError`]; `too_slow` below the minimum rate, `too_large` beyond the limit.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        let _ = buffer;
        todo!()
    }
}

/// The client.
#[derive(Debug)]
pub struct Http {
    config: HttpConfig,
}

impl Http {
    /// A client; connects to nothing yet.
    ///
    /// # Errors
    /// `bad_url` for a proxy that cannot be used or for a number of pins outside 1 to 4.
    pub fn new(config: HttpConfig) -> Result<Http, HttpError> {
        Ok(Http { config })
    }

    /// Sends JSON and takes the whole answer, whatever its status.
    ///
    /// Repeated once by itself when a kept connection turns out dead before a byte was answered.
    ///
    /// # Errors
    /// Any [`HttpError`]. `timeout` covers everything from connect to the last byte.
    pub fn post_json(&self, url: &str, bearer: Option<&str>, body: &str, limit: usize, timeout: Duration) -> Result<Reply, HttpError> {
        let _ = (&self.config, url, bearer, body, limit, timeout);
        todo!()
    }

    /// Fetches, from byte `from` on when given (`Range`). At most `limit` bytes of body are handed out.
    ///
    /// # Errors
    /// Any [`HttpError`]. `timeout` covers everything up to the answer's headers; the body has a minimum rate instead.
    pub fn get(&self, url: &str, bearer: Option<&str>, from: Option<u64>, limit: u64, timeout: Duration) -> Result<Download, HttpError> {
        let _ = (url, bearer, from, limit, timeout);
        todo!()
    }

    /// The pin under which the last handshake succeeded.
    pub fn pin_used(&self) -> Option<Pin> {
        todo!()
    }

    /// The proxy in effect for `url`, without its password; `None` = direct.
    pub fn proxy_for(&self, url: &str) -> Option<String> {
        let _ = url;
        todo!()
    }
}
