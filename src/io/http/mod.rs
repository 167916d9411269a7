//! The agent's HTTPS client: blocking, one thread, pinned, limited, woken by signals.
//!
//! One client for everything (report, poll, metadata, artifacts, enrollment), so that proxy, pins and limits are the same
//! for every request. At most one idle connection is kept, so that a poll after a report costs no handshake.
//!
//! While a call waits it watches the socket *and* [`HttpConfig::wake_fd`]: a signal handler that writes to that pipe ends
//! the call at once with [`HttpError::Woken`]. The descriptor is never read here: whoever owns it drains it.

mod download;
mod error;
mod rate;
#[cfg(feature = "fault")]
mod scripted;
mod transport;
mod wait;

pub use download::Download;
pub use error::HttpError;
pub use rate::MinRate;

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ureq::http::{Response, Uri, header};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, Proxy, ProxyProtocol};

use crate::io::tls::{self, PINS_MAX, Pin, PinVerifier};
use transport::{Late, Lookup, Shared, Tcp, Tls, authority, classify};

/// Status line and headers of an answer, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// Each of the buffers of one connection, bytes: one TLS record of input, one report of output.
const INPUT: usize = 16 * 1024;
const OUTPUT: usize = 4 * 1024;
/// A connection that was idle for longer is not used again; servers close at 75 s.
const IDLE: Duration = Duration::from_secs(60);

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
    pub wake_fd: Option<crate::io::process::WakeFd>,
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

/// The client. One call at a time (`!Sync`); a [`Download`] may be open while other calls are made.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    proxy: Option<Proxy>,
    shared: Arc<Shared>,
    verifier: Arc<PinVerifier>,
    /// A header of every request.
    #[cfg(feature = "director")]
    header: Cell<Option<(&'static str, &'static str)>>,
    /// The deadline of the call in progress is shared state: not for two threads at once.
    one_at_a_time: PhantomData<Cell<()>>,
}

impl Http {
    /// A client; connects to nothing yet.
    ///
    /// # Errors
    /// `bad_url` for a proxy that cannot be used or for a number of pins outside 1 to 4.
    pub fn new(config: HttpConfig) -> Result<Http, HttpError> {
        if config.pins.is_empty() || config.pins.len() > PINS_MAX {
            return Err(HttpError::BadUrl { why: format!("{} pins are configured; 1 to {PINS_MAX} are needed", config.pins.len()) });
        }
        let verifier = Arc::new(PinVerifier::new(config.pins.clone()));
        Http::under(config, tls::client_config(verifier.clone()), verifier)
    }

    /// Every request from now on has this header.
    #[cfg(feature = "director")]
    pub fn say_header(&self, header: (&'static str, &'static str)) {
        self.header.set(Some(header));
    }

    /// A client under other rules than pins, which are those of `tls`.
    ///
    /// # Errors
    /// `bad_url` for a proxy that cannot be used.
    #[cfg(feature = "company-ca")]
    pub fn with_rules(config: HttpConfig, tls: Arc<rustls::ClientConfig>) -> Result<Http, HttpError> {
        Http::under(config, tls, Arc::new(PinVerifier::new(Vec::new())))
    }

    fn under(config: HttpConfig, rules: Arc<rustls::ClientConfig>, verifier: Arc<PinVerifier>) -> Result<Http, HttpError> {
        let proxy = proxy(config.proxy.as_deref())?;
        let shared = Arc::new(Shared {
            wake_fd: config.wake_fd,
            tick: config.tick,
            proxy: proxy.as_ref().map(|p| authority(p.uri())),
            deadline: Mutex::new(None),
            connects: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            patience_s: AtomicU32::new(0),
        });
        let chain =
            ().chain(ConnectProxyConnector::default()).chain(Tcp(shared.clone())).chain(Tls { config: rules, shared: shared.clone() });
        Ok(Http::over(chain, config.user_agent, proxy, shared, verifier))
    }

    fn over(
        chain: impl Connector,
        user_agent: &'static str,
        proxy: Option<Proxy>,
        shared: Arc<Shared>,
        verifier: Arc<PinVerifier>,
    ) -> Http {
        let settings = Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(user_agent)
            .accept_encoding("identity")
            .proxy(proxy.clone())
            .max_response_header_size(HEAD_MAX)
            .input_buffer_size(INPUT)
            .output_buffer_size(OUTPUT)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE)
            .build();
        let agent = Agent::with_parts(settings, chain, Lookup(shared.clone()));
        Http {
            agent,
            proxy,
            shared,
            verifier,
            #[cfg(feature = "director")]
            header: Cell::new(None),
            one_at_a_time: PhantomData,
        }
    }

    /// Sends JSON and takes the whole answer, whatever its status.
    ///
    /// Repeated once by itself when a kept connection turns out dead before a byte was answered.
    ///
    /// # Errors
    /// Any [`HttpError`]. `timeout` covers everything from connect to the last byte.
    pub fn post_json(&self, url: &str, bearer: Option<&str>, body: &str, limit: usize, timeout: Duration) -> Result<Reply, HttpError> {
        let peer = self.peer(url)?;
        let end = wait::now() + timeout;
        self.shared.set_deadline(Some((end, Late::Answer(timeout))));
        let before = self.counters();
        let result = match self.post_once(url, &peer, bearer, body, limit) {
            // No new connection was made and nothing came back: the kept one had died while it was idle.
            Err(HttpError::Unreachable { .. }) if before == self.counters() && wait::now() < end => {
                self.post_once(url, &peer, bearer, body, limit)
            }
            other => other,
        };
        self.shared.set_deadline(None);
        result
    }

    fn post_once(&self, url: &str, peer: &str, bearer: Option<&str>, body: &str, limit: usize) -> Result<Reply, HttpError> {
        let mut request = self.agent.post(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        #[cfg(feature = "director")]
        if let Some((name, value)) = self.header.get() {
            request = request.header(name, value);
        }
        let answer = request.send(body).map_err(|e| self.failed(peer, e))?;
        let (status, retry_after_s) = (answer.status().as_u16(), retry_after(&answer));
        let mut download = Download::new(answer, limit as u64, peer, self.shared.clone(), None)?;
        let mut bytes = Vec::new();
        let mut piece = [0; 2048];
        loop {
            match download.read(&mut piece)? {
                0 => return Ok(Reply { status, retry_after_s, body: bytes }),
                n => bytes.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// Fetches, from byte `from` on when given (`Range`). At most `limit` bytes of body are handed out.
    ///
    /// # Errors
    /// Any [`HttpError`]. `timeout` covers everything up to the answer's headers; the body has a minimum rate instead.
    pub fn get(&self, url: &str, bearer: Option<&str>, from: Option<u64>, limit: u64, timeout: Duration) -> Result<Download, HttpError> {
        let peer = self.peer(url)?;
        let mut request = self.agent.get(url);
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        self.shared.set_deadline(Some((wait::now() + timeout, Late::Answer(timeout))));
        let answer = request.call().map_err(|e| self.failed(&peer, e));
        self.shared.set_deadline(None);
        Download::new(answer?, limit, &peer, self.shared.clone(), Some(MinRate::default()))
    }

    /// There is somebody else to turn to: connections from now on are given up when for so many seconds there is none, or
    /// none of the peer's machine is heard on one. Costs two small packets in each third of that time on an idle connection.
    pub fn give_up_after(&self, seconds: u32) {
        self.shared.patience_s.store(seconds, Ordering::Relaxed);
    }

    /// The pin under which the last handshake succeeded; the first of them.
    pub fn pin_used(&self) -> Option<Pin> {
        self.verifier.matched().first().copied()
    }

    /// All pins under which the last handshake succeeded.
    pub fn pins_used(&self) -> Vec<Pin> {
        self.verifier.matched()
    }

    /// The proxy in effect for `url`, without its password; `None` = direct.
    pub fn proxy_for(&self, url: &str) -> Option<String> {
        let uri: Uri = url.parse().ok()?;
        let proxy = self.proxy.as_ref().filter(|p| !p.is_no_proxy(&uri))?;
        Some(format!("http://{}:{}", proxy.host(), proxy.port()))
    }

    fn counters(&self) -> [usize; 2] {
        [&self.shared.connects, &self.shared.received].map(|c| c.load(Ordering::Relaxed))
    }

    fn failed(&self, peer: &str, error: ureq::Error) -> HttpError {
        match (&error, &self.shared.proxy) {
            (ureq::Error::ConnectProxyFailed(_), Some(proxy)) => classify(proxy, error),
            _ => classify(peer, error),
        }
    }

    /// `host:port` of a URL that may be asked.
    fn peer(&self, url: &str) -> Result<String, HttpError> {
        let bad = |why: &str| Err(HttpError::BadUrl { why: format!("`{url}`: {why}") });
        let Ok(uri) = url.parse::<Uri>() else { return bad("not a URL; https://host[:port]/path is expected") };
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), _) => bad("plain http is refused: neither binaries nor orders travel unencrypted; use https"),
            (Some("https"), Some(authority)) if authority.as_str().contains('@') => bad("names a user; credentials do not belong in URLs"),
            (Some("https"), Some(_)) => Ok(authority(&uri)),
            _ => bad("not an https URL; https://host[:port]/path is expected"),
        }
    }
}

/// The proxy from the setting, else from the environment.
fn proxy(setting: Option<&str>) -> Result<Option<Proxy>, HttpError> {
    let proxy = match setting {
        None => Proxy::try_from_env(),
        // The text may hold a password, so it is not repeated.
        Some(text) => Some(
            Proxy::new(text)
                .map_err(|_| HttpError::BadUrl { why: "the proxy setting is no http://[user:password@]host:port".to_string() })?,
        ),
    };
    match &proxy {
        // A proxy behind TLS would have to show the site's pin, and SOCKS is not compiled in.
        Some(p) if p.protocol() != ProxyProtocol::Http => {
            Err(HttpError::BadUrl { why: format!("proxy {}:{}: only http:// proxies (CONNECT) are supported", p.host(), p.port()) })
        }
        _ => Ok(proxy),
    }
}

fn retry_after<B>(answer: &Response<B>) -> Option<u64> {
    answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}
