//! The connector chain below ureq: name lookup on this thread, TCP that can be woken, TLS under a pin.
//!
//! ureq's own timeouts are not used: its resolver would start a thread for them. One deadline per call lives in
//! [`Shared`], and every wait obeys it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter};

use super::HttpError;
use super::wait::{self, Unready, Want, Watch};
use crate::io::process::WakeFd;

/// What the client and its transports have in common.
pub(super) struct Shared {
    pub wake_fd: Option<WakeFd>,
    pub tick: fn(),
    /// `host:port` of the proxy, so that a failure on the way to it is told apart.
    pub proxy: Option<String>,
    /// When the call in progress ends, and how it is said then.
    pub deadline: Mutex<Option<(Instant, Late)>>,
    /// Connections opened so far.
    pub connects: AtomicUsize,
    /// Decrypted reads that brought something.
    pub received: AtomicUsize,
    /// Seconds without a sign of the peer's machine after which a connection is given up; 0 = only at the deadline.
    pub patience_s: AtomicU32,
}

/// What a deadline means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// No answer within the caller's time.
    Answer(Duration),
    /// A body that comes too slowly.
    Body,
}

impl Shared {
    pub fn set_deadline(&self, deadline: Option<(Instant, Late)>) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    fn late(&self) -> Option<(Instant, Late)> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn watch(&self) -> Watch {
        Watch { deadline: self.late().map(|l| l.0), wake_fd: self.wake_fd, tick: self.tick }
    }

    /// A failure at `peer`, which may be the proxy.
    fn failed(&self, authority: &str, peer: &str, why: String) -> HttpError {
        match self.proxy.as_deref() {
            Some(proxy) if proxy == authority => HttpError::ProxyFailed { proxy: peer.to_string(), why },
            _ => HttpError::Unreachable { peer: peer.to_string(), why },
        }
    }

    fn unready(&self, authority: &str, peer: &str, doing: &str, unready: Unready) -> ureq::Error {
        wrap(match unready {
            Unready::Woken => HttpError::Woken,
            Unready::Failed(e) => self.failed(authority, peer, format!("{doing}: {e}")),
            Unready::Late => match self.late() {
                Some((_, Late::Body)) => HttpError::TooSlow { peer: peer.to_string() },
                Some((_, Late::Answer(time))) => self.failed(authority, peer, format!("{doing}: no answer within {} s", time.as_secs())),
                None => self.failed(authority, peer, format!("{doing}: no answer")),
            },
        })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("wake_fd", &self.wake_fd).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// Our error on its way through ureq.
pub(super) fn wrap(error: HttpError) -> ureq::Error {
    ureq::Error::Other(Box::new(error))
}

/// `host:port` with the scheme's default port.
pub(super) fn authority(uri: &Uri) -> String {
    let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default))
}

/// Looks names up on this thread: the system's own limits apply (seconds), and no signal ends it early.
#[derive(Debug)]
pub(super) struct Lookup(pub Arc<Shared>);

impl Resolver for Lookup {
    fn resolve(&self, uri: &Uri, _config: &Config, _timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let peer = authority(uri);
        (self.0.tick)();
        let found = peer.to_socket_addrs();
        (self.0.tick)();
        let mut addresses = self.empty();
        match found {
            Ok(found) => found.take(addresses_max()).for_each(|a| addresses.push(a)),
            Err(e) => return Err(wrap(self.0.failed(&peer, &peer, format!("name lookup: {e}")))),
        }
        if addresses.is_empty() {
            return Err(wrap(self.0.failed(&peer, &peer, "name lookup: no address".to_string())));
        }
        Ok(addresses)
    }
}

/// ureq's array holds 16; a name with more is balanced by DNS anyway.
const fn addresses_max() -> usize {
    16
}

/// Opens TCP connections.
#[derive(Debug)]
pub(super) struct Tcp(pub Arc<Shared>);

impl<In: Transport> Connector<In> for Tcp {
    type Out = Either<In, TcpTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A)); // through a proxy
        }
        let authority = authority(details.uri);
        self.0.connects.fetch_add(1, Ordering::Relaxed);
        let mut failure = None;
        let count = details.addrs.len();
        for (i, &address) in details.addrs.iter().enumerate() {
            let peer = format!("{authority} ({address})");
            match wait::connect(address, &self.part_of_watch(i + 1 == count)) {
                Ok(stream) => {
                    // Small messages both ways: waiting to fill a segment only adds latency.
                    let _ = stream.set_nodelay(true);
                    match self.0.patience_s.load(Ordering::Relaxed) {
                        0 => {}
                        // A system that cannot has its own limits, of minutes to hours: the call's deadline comes before.
                        seconds => wait::keep_alive(&stream, seconds).unwrap_or_default(),
                    }
                    let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
                    let transport = TcpTransport { stream, buffers, authority, peer, shared: self.0.clone() };
                    return Ok(Some(Either::B(transport)));
                }
                Err(Unready::Woken) => return Err(wrap(HttpError::Woken)),
                Err(unready) => failure = Some(self.0.unready(&authority, &peer, "connect", unready)),
            }
        }
        Err(failure.unwrap_or(ureq::Error::ConnectionFailed))
    }
}

impl Tcp {
    /// Every address but the last may take half of what is left, so that a silent one does not use up the call.
    fn part_of_watch(&self, last: bool) -> Watch {
        let mut watch = self.0.watch();
        let patience = self.0.patience_s.load(Ordering::Relaxed);
        if patience > 0 {
            let end = wait::now() + Duration::from_secs(patience.into());
            watch.deadline = Some(watch.deadline.map_or(end, |deadline| deadline.min(end)));
        }
        if let (Some(deadline), false) = (watch.deadline, last) {
            let now = wait::now();
            watch.deadline = Some(now + deadline.saturating_duration_since(now) / 2);
        }
        watch
    }
}

/// A TCP connection that can be woken.
pub(super) struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    authority: String,
    peer: String,
    shared: Arc<Shared>,
}

impl TcpTransport {
    fn wait(&self, want: Want, doing: &str) -> Result<(), ureq::Error> {
        wait::wait(&self.stream, want, &self.shared.watch()).map_err(|u| self.shared.unready(&self.authority, &self.peer, doing, u))
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), ureq::Error> {
        let mut sent = 0;
        while sent < amount {
            match (&self.stream).write(&self.buffers.output()[sent..amount]) {
                Ok(n) => sent += n,
                Err(e) if again(&e) => self.wait(Want::Write, "send")?,
                Err(e) => return Err(self.shared.unready(&self.authority, &self.peer, "send", Unready::Failed(e))),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, ureq::Error> {
        loop {
            match (&self.stream).read(self.buffers.input_append_buf()) {
                Ok(n) => {
                    self.buffers.input_appended(n);
                    return Ok(n > 0);
                }
                Err(e) if again(&e) => self.wait(Want::Read, "wait for an answer")?,
                Err(e) => return Err(self.shared.unready(&self.authority, &self.peer, "receive", Unready::Failed(e))),
            }
        }
    }

    /// Open means: silent. Whatever arrived between two requests (close_notify, end of file) makes it useless.
    fn is_open(&mut self) -> bool {
        let silent = |r: io::Result<usize>| matches!(r, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        silent(self.stream.peek(&mut [0]))
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Wraps connections to `https` addresses in TLS.
#[derive(Debug)]
pub(super) struct Tls {
    pub config: Arc<ClientConfig>,
    pub shared: Arc<Shared>,
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport))); // the way to a proxy
        }
        let host = details.uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_string())
            .map_err(|_| wrap(HttpError::BadUrl { why: format!("`{host}` is neither a host name nor an address") }))?;
        let peer = authority(details.uri);
        let mut tls = ClientConnection::new(self.config.clone(), name).map_err(|e| wrap(tls_error(&peer, &e)))?;
        let mut sock = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        tls.complete_io(&mut sock).map_err(|e| from_io(&peer, e))?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        let stream = StreamOwned::new(tls, sock);
        Ok(Some(Either::B(TlsTransport { stream, buffers, peer, shared: self.shared.clone() })))
    }
}

/// A connection under a pin.
pub(super) struct TlsTransport {
    stream: StreamOwned<ClientConnection, TransportAdapter>,
    buffers: LazyBuffers,
    peer: String,
    shared: Arc<Shared>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).and_then(|()| self.stream.flush()).map_err(|e| from_io(&self.peer, e))
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let n = self.stream.read(self.buffers.input_append_buf()).map_err(|e| from_io(&self.peer, e))?;
        self.buffers.input_appended(n);
        self.shared.received.fetch_add(n.min(1), Ordering::Relaxed);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// rustls hands its own errors, and ours from below, out as `io::Error`.
fn from_io(peer: &str, error: io::Error) -> ureq::Error {
    if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        return wrap(tls_error(peer, tls));
    }
    match ureq::Error::from(error) {
        // An end of file inside the handshake is an answer of its own kind, and so is one inside a body: the reader knows.
        ureq::Error::Io(e) => wrap(HttpError::Unreachable { peer: peer.to_string(), why: format!("connection lost: {e}") }),
        ours => ours,
    }
}

fn tls_error(peer: &str, error: &rustls::Error) -> HttpError {
    let peer = peer.to_string();
    match error {
        // Anything that is no TLS record: in practice the answer of a server that speaks plain HTTP.
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => HttpError::NotTls { peer },
        _ => match crate::io::tls::not_pinned(error) {
            Some(presented) => HttpError::PinMismatch { peer, presented },
            None => HttpError::TlsFailed { peer, why: error.to_string() },
        },
    }
}

/// ureq's error as ours.
pub(super) fn classify(peer: &str, error: ureq::Error) -> HttpError {
    let peer = peer.to_string();
    match error {
        ureq::Error::Other(inner) => match inner.downcast::<HttpError>() {
            Ok(ours) => *ours,
            Err(other) => HttpError::Unreachable { peer, why: other.to_string() },
        },
        ureq::Error::ConnectProxyFailed(why) => HttpError::ProxyFailed { proxy: peer, why },
        ureq::Error::LargeResponseHeader(_, limit) => HttpError::TooLarge { limit: limit as u64 },
        ureq::Error::BadUri(why) => HttpError::BadUrl { why },
        ureq::Error::Protocol(e) => HttpError::Unreachable { peer, why: format!("the answer is not HTTP: {e}") },
        ureq::Error::Io(e) => HttpError::Unreachable { peer, why: format!("connection lost: {e}") },
        other => HttpError::Unreachable { peer, why: other.to_string() },
    }
}
