//! An HTTP/1.1 client that lives on a server's one thread: it waits without a thread of its own.
//!
//! The agent's client ([`crate::io::http`]) blocks, and speaks to sites by their pins only. Here are streams that stay open for
//! hours (a watch) and have to end the moment nobody wants them: a helper thread inside a blocking read cannot be told to stop,
//! a future is dropped. The protocol is `ureq-proto`'s, without IO as in [`crate::io::serve`]; TLS is rustls under a CA that the
//! configuration names, with the client's certificate when there is one.
//!
//! Nothing is retried, no redirect is followed, no proxy is used: who calls knows what may be repeated. Whether a request may
//! have reached its peer is told by where it failed: [`Endpoint::connect`] has sent nothing yet.

mod stream;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use ureq_proto::client::state::{RecvBody, RecvResponse};
use ureq_proto::client::{Call, RecvBodyResult, RecvResponseResult, SendRequestResult};
use ureq_proto::http::{Request, Uri};

use super::fs::read_limited;
use crate::core::reason::Reason;
use stream::Stream;

/// Status line and headers of an answer, bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Headers of a request, bytes: a token and a few fixed ones.
const REQUEST_HEAD_MAX: usize = 8 * 1024;
/// What is read at once, bytes.
const PIECE: usize = 16 * 1024;
/// A file of certificates or of a key, bytes.
const PEM_MAX: u64 = 1024 * 1024;
/// Most certificates of a CA file.
const CAS_MAX: usize = 64;

/// Where requests go: `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was configured, without a path.
    pub url: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS is spoken.
    pub tls: bool,
}

impl Endpoint {
    /// Reads the text form. Plain `http://` is for this machine only: what is sent is worth keeping to oneself.
    ///
    /// # Errors
    /// `url_invalid`, with the form that is expected.
    pub fn parse(text: &str) -> Result<Endpoint, Reason> {
        let bad = |why: &str| Reason::new("url_invalid", format!("`{text}` {why}; expected: https://HOST:PORT"));
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| bad("is no URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad("is no URL")) };
        if authority.as_str().contains('@') || uri.path().len() > 1 || uri.query().is_some() {
            return Err(bad("has more than scheme, host and port"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match scheme {
            "https" => {}
            "http" if here => {}
            "http" => return Err(bad("would send everything unencrypted; http:// is for this machine only")),
            _ => return Err(bad("has a scheme that is not spoken")),
        }
        let port = authority.port_u16().ok_or_else(|| bad("names no port"))?;
        if host.is_empty() || port == 0 {
            return Err(bad("names no host, or port 0"));
        }
        Ok(Endpoint { url: format!("{scheme}://{authority}"), host, port, tls: scheme == "https" })
    }

    /// Opens a connection. Nothing of a request has been sent when this fails.
    ///
    /// # Errors
    /// `host_unknown`, `unreachable`, `tls_failed`, `timed_out`.
    pub async fn connect(&self, rules: &Rules, time: Duration) -> Result<Conn, Reason> {
        let late = || Reason::new("timed_out", format!("{}: no connection within {} ms", self.url, time.as_millis()));
        within(time, self.connect_now(rules, time)).await.unwrap_or_else(|| Err(late()))
    }

    async fn connect_now(&self, rules: &Rules, time: Duration) -> Result<Conn, Reason> {
        let unknown = |why: String| Reason::new("host_unknown", format!("{}: cannot be looked up: {why}", self.url));
        let (host, port) = (self.host.clone(), self.port);
        let found = smol::unblock(move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter)).await;
        let found: Vec<SocketAddr> = found.map_err(|e| unknown(e.to_string()))?;
        let mut failed = unknown("it has no address".into());
        for (at, address) in found.iter().enumerate() {
            let tls = match self.tls {
                true => Some((rules.tls.clone(), server_name(&self.host).ok_or_else(|| unknown("it is no host name".into()))?)),
                false => None,
            };
            // A dead address must not use up the time of the next one.
            let share = time / u32::try_from(found.len() - at).unwrap_or(1);
            match within(share, Stream::connect(*address, tls)).await {
                Some(Ok(stream)) => return Ok(Conn { stream, peer: self.url.clone(), plain: Vec::new() }),
                Some(Err(error)) => failed = lost(&self.url, &error),
                None => failed = Reason::new("timed_out", format!("{} ({address}): no connection", self.url)),
            }
        }
        Err(failed)
    }
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_string()).ok()
}

/// Whom we trust, and how we show who we are.
#[derive(Clone, Debug)]
pub struct Rules {
    tls: Arc<ClientConfig>,
}

impl Rules {
    /// From PEM files: a CA (without one nobody is trusted, which is right for plain `http://`), and a certificate with its key.
    ///
    /// # Errors
    /// `tls_file_invalid`, with the file and what it has to hold.
    pub fn load(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Rules, Reason> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = ca {
            let bad = |why: &str| bad_file(path, why, "certificates of CAs in PEM form");
            for certificate in certificates(path, "certificates of CAs in PEM form")?.into_iter().take(CAS_MAX) {
                roots.add(certificate).map_err(|_| bad("holds something that is no CA's certificate"))?;
            }
        }
        let broken = |why: String| Reason::new("tls_file_invalid", why);
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|e| broken(e.to_string()))?;
        let builder = builder.with_root_certificates(roots);
        let tls = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert, "our certificate and those above it in PEM form")?;
                let what = "our private key in PEM form, without a password";
                let text = read(key, what)?;
                let parsed = PrivateKeyDer::from_pem_slice(&text).map_err(|_| bad_file(key, "holds no key", what))?;
                let fits = |e: rustls::Error| bad_file(key, &format!("does not belong to {}: {e}", cert.display()), what);
                builder.with_client_auth_cert(chain, parsed).map_err(fits)?
            }
        };
        Ok(Rules { tls: Arc::new(tls) })
    }
}

fn bad_file(path: &Path, why: &str, expected: &str) -> Reason {
    Reason::new("tls_file_invalid", format!("{} {why}; expected: {expected}", path.display()))
}

fn read(path: &Path, expected: &str) -> Result<Vec<u8>, Reason> {
    let read = read_limited(path, PEM_MAX).map_err(|e| bad_file(path, &format!("cannot be read: {e}"), expected))?;
    read.ok_or_else(|| bad_file(path, "is not there", expected))
}

fn certificates(path: &Path, expected: &str) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let text = read(path, expected)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|_| bad_file(path, "is damaged", expected))?;
    match found.is_empty() {
        true => Err(bad_file(path, "holds no certificate", expected)),
        false => Ok(found),
    }
}

/// What a lost connection was lost by.
fn lost(peer: &str, error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::InvalidData => Reason::new("tls_failed", format!("{peer}: TLS: {error}")),
        _ => Reason::new("unreachable", format!("{peer}: {error}")),
    }
}

/// An open connection between two requests.
pub struct Conn {
    stream: Stream,
    peer: String,
    plain: Vec<u8>,
}

/// An answer whose body is still coming.
pub struct Incoming {
    /// HTTP status.
    pub status: u16,
    conn: Conn,
    /// None: the body is over.
    call: Option<Call<RecvBody>>,
    keep: bool,
}

impl Conn {
    /// Sends JSON and takes the answer's head. From here on the peer may have acted on it, whatever is returned.
    ///
    /// # Errors
    /// `unreachable`, `tls_failed`, `bad_answer`. Time is the caller's to limit.
    pub async fn post(mut self, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Incoming, Reason> {
        let (head, mut call) = prepare(&self.peer, path, headers, body)?;
        let peer = self.peer.clone();
        self.stream.write_all(&[&head, body.as_bytes()].concat()).await.map_err(|e| lost(&peer, &e))?;
        let garbled = |why: String| Reason::new("bad_answer", format!("{peer}: answers no HTTP: {why}"));
        let status = loop {
            let (used, head) = call.try_response(&self.plain, false).map_err(|e| garbled(e.to_string()))?;
            self.plain.drain(..used);
            match head {
                Some(head) => break head.status().as_u16(),
                None if self.plain.len() > HEAD_MAX => return Err(garbled(format!("more than {HEAD_MAX} bytes of headers"))),
                None if used > 0 => {}
                None if self.receive().await? => {}
                None => return Err(Reason::new("unreachable", format!("{peer}: the connection ended before the answer"))),
            }
        };
        match call.proceed() {
            Some(RecvResponseResult::RecvBody(call)) => Ok(Incoming { status, conn: self, call: Some(call), keep: false }),
            Some(RecvResponseResult::Cleanup(call)) => {
                let keep = !call.must_close_connection();
                Ok(Incoming { status, conn: self, call: None, keep })
            }
            _ => Err(garbled(format!("status {status}, and no way to go on"))),
        }
    }

    /// More bytes; `false` = there are none. Nothing is lost when the wait is dropped.
    async fn receive(&mut self) -> Result<bool, Reason> {
        let mut piece = vec![0; PIECE];
        let got = self.stream.read(&mut piece).await.map_err(|e| lost(&self.peer, &e))?;
        self.plain.extend_from_slice(&piece[..got]);
        Ok(got > 0)
    }
}

/// The bytes of the request's head, and the state in which the answer is waited for.
fn prepare(peer: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<(Vec<u8>, Call<RecvResponse>), Reason> {
    let unfit = |why: String| Reason::new("bad_request", format!("{peer}{path}: the request cannot be made: {why}"));
    let mut request =
        Request::post(format!("{peer}{path}")).header("content-type", "application/json").header("content-length", body.len());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).map_err(|e| unfit(e.to_string()))?;
    let mut call = Call::new(request).map_err(|e| unfit(e.to_string()))?.proceed();
    let mut head = vec![0; REQUEST_HEAD_MAX];
    let used = call.write(&mut head).map_err(|e| unfit(e.to_string()))?;
    head.truncate(used);
    let Ok(Some(SendRequestResult::SendBody(mut call))) = call.proceed() else { return Err(unfit("it is too long".into())) };
    if body.is_empty() {
        call.write(&[], &mut []).map_err(|e| unfit(e.to_string()))?;
    } else {
        call.consume_direct_write(body.len()).map_err(|e| unfit(e.to_string()))?;
    }
    let call = call.proceed().ok_or_else(|| unfit("its body has another length".into()))?;
    Ok((head, call))
}

impl Incoming {
    /// The next piece of the body; empty = that was all. Nothing is lost when the wait is dropped.
    ///
    /// # Errors
    /// `unreachable`, `tls_failed`, `bad_answer`. Time is the caller's to limit.
    pub async fn piece(&mut self) -> Result<Vec<u8>, Reason> {
        let mut out = vec![0; PIECE];
        loop {
            let Some(call) = &mut self.call else { return Ok(Vec::new()) };
            let bad = |e: ureq_proto::Error| Reason::new("bad_answer", format!("{}: the body cannot be read: {e}", self.conn.peer));
            let (took, gave) = call.read(&self.conn.plain, &mut out).map_err(bad)?;
            self.conn.plain.drain(..took);
            let ended = call.can_proceed() && !matches!(call.body_mode(), ureq_proto::BodyMode::CloseDelimited);
            if ended && let Some(call) = self.call.take() {
                self.keep = matches!(call.proceed(), Some(RecvBodyResult::Cleanup(call)) if !call.must_close_connection());
            }
            if gave > 0 || ended {
                out.truncate(gave);
                return Ok(out);
            }
            if took == 0 && !self.conn.receive().await? {
                let close = self.call.take().is_some_and(|call| matches!(call.body_mode(), ureq_proto::BodyMode::CloseDelimited));
                let short = || Reason::new("unreachable", format!("{}: the connection ended within the answer", self.conn.peer));
                return if close { Ok(Vec::new()) } else { Err(short()) };
            }
        }
    }

    /// The whole body, and the connection if it may be used again.
    ///
    /// # Errors
    /// `too_large` above `limit` bytes, and those of [`Self::piece`].
    pub async fn whole(mut self, limit: usize) -> Result<(Vec<u8>, Option<Conn>), Reason> {
        let mut body = Vec::new();
        while self.call.is_some() {
            body.extend(self.piece().await?);
            if body.len() > limit {
                return Err(Reason::new("too_large", format!("{}: an answer of more than {limit} bytes", self.conn.peer)));
            }
        }
        Ok((body, self.keep.then_some(self.conn)))
    }
}

/// The future's result, or `None` when it takes longer.
pub async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    smol::future::or(async { Some(future.await) }, async {
        smol::Timer::after(time).await;
        None
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn endpoints_are_read_and_what_is_no_endpoint_is_refused() {
        let endpoint = Endpoint::parse("https://etcd-1.example:2379/").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.tls), ("etcd-1.example", 2379, true));
        assert_eq!(Endpoint::parse("http://[::1]:2379").unwrap().host, "::1");
        let bad =
            ["", "etcd:2379", "https://etcd", "https://u:p@etcd:1", "https://etcd:1/v3", "ftp://etcd:1", "http://etcd:2379", "https://:1"];
        for text in bad.into_iter().chain(["http://10.0.0.1:1", "https://etcd:0", "https://etcd:99999", "https://a b:1"]) {
            let reason = Endpoint::parse(text).unwrap_err();
            assert!(reason.code == "url_invalid" && reason.detail.contains("https://HOST:PORT"), "{text}: {reason}");
        }
    }

    /// A server that says `says` to the first request, piece by piece.
    fn answered(says: &'static [&'static [u8]]) -> Result<(u16, Vec<u8>, bool), Reason> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"{}") {
                let mut piece = [0; 512];
                let n = socket.read(&mut piece).unwrap();
                got.extend_from_slice(&piece[..n]);
            }
            for piece in says {
                let _ = socket.write_all(piece);
            }
            String::from_utf8(got).unwrap()
        });
        let rules = Rules::load(None, None).unwrap();
        let done = smol::block_on(async {
            let conn = Endpoint::parse(&url).unwrap().connect(&rules, Duration::from_secs(20)).await?;
            let answer = conn.post("/v3/kv/range", &[("authorization", "t")], "{}").await?;
            let status = answer.status;
            let (body, conn) = answer.whole(64).await?;
            Ok((status, body, conn.is_some()))
        });
        let asked = server.join().unwrap();
        assert!(asked.starts_with("POST /v3/kv/range HTTP/1.1\r\n") && asked.contains("authorization: t\r\n"), "{asked}");
        done
    }

    #[test]
    fn answers_of_every_form_are_taken_and_broken_ones_have_a_reason() {
        let full = answered(&[b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 2\r\n\r\n{", b"}"]).unwrap();
        assert_eq!(full, (200, b"{}".to_vec(), true));
        let chunked = answered(&[b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n"]).unwrap();
        assert_eq!(chunked, (503, b"{}".to_vec(), true));
        assert_eq!(answered(&[b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}"]).unwrap(), (200, b"{}".to_vec(), false));
        assert_eq!(answered(&[b"HTTP/1.1 204 No Content\r\n\r\n"]).unwrap(), (204, vec![], true));
        let refused = |says: &'static [&'static [u8]], code: &str| assert_eq!(answered(says).unwrap_err().code, code);
        refused(&[b"HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n", &[b'x'; 65]], "too_large");
        refused(&[b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"], "unreachable");
        refused(&[b"SSH-2.0-x\r\n"], "bad_answer");
        refused(&[b"HTTP/1.1 200 OK\r\nx: ", &[b'x'; HEAD_MAX]], "bad_answer");
        refused(&[b""], "unreachable");
    }

    #[test]
    fn nobody_there_and_files_that_are_none() {
        let rules = Rules::load(None, None).unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let connect = |url: String| smol::block_on(Endpoint::parse(&url).unwrap().connect(&rules, Duration::from_secs(20))).err().unwrap();
        assert_eq!(connect(format!("http://{closed}")).code, "unreachable");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let reason = Rules::load(Some(&path), None).unwrap_err();
        assert!(reason.code == "tls_file_invalid" && reason.detail.contains("ca.pem"), "{reason}");
        for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            crate::io::fs::write_durable(&path, text.as_bytes(), 0o600).unwrap();
            assert_eq!(Rules::load(Some(&path), None).unwrap_err().code, "tls_file_invalid", "{text}");
        }
    }
}
