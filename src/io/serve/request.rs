//! From bytes to a [`Request`], with every limit and its answer.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ureq_proto::Error;
use ureq_proto::http::{HeaderMap, Request as Head, Version, header};
use ureq_proto::server::state::{RecvBody, RecvRequest};
use ureq_proto::server::{RecvRequestResult, Reply};

use super::conn::{Conn, within};
use super::door::Guest;
use super::response::Response;
use super::{Limits, Service};

/// A chunk's size line, its extensions and the trailer: no more than this may be without meaning.
const CHUNK_HEAD_MAX: usize = 4 * 1024;

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
    /// Where the application says that it knows who this is.
    pub known: Known,
}

/// A connection is a stranger's until somebody vouches for it.
#[derive(Clone, Default)]
pub struct Known(pub(super) Option<Rc<Guest>>);

impl Known {
    /// The application knows this peer, by what `digest` stands for: the limits for strangers end.
    pub fn vouch(&self, digest: Digest) {
        if let Some(guest) = &self.0 {
            guest.known(digest);
        }
    }

    /// Whether the application vouched for this connection by the same: TLS says that it still is the same peer.
    pub fn vouched(&self, digest: Digest) -> bool {
        self.0.as_ref().is_some_and(|guest| guest.known_by() == Some(digest))
    }
}

/// The beginning of a SHA-256 of whatever made a peer known.
pub type Digest = [u8; 16];

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({})", self.0.as_ref().is_none_or(|g| g.known_by().is_some()))
    }
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

/// What became of waiting for a request.
pub(super) enum Incoming {
    /// One came.
    Complete {
        request: Box<Request>,
        /// The connection may be used again.
        keep: bool,
    },
    /// None came, in order.
    Closed,
    /// This is the code and the answer, and then the connection ends.
    Refused(&'static str, Box<Response>),
}

/// Why a request is not taken.
enum Refusal {
    Answer(&'static str, Box<Response>),
    Gone,
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Refusal {
        Refusal::Gone
    }
}

fn refuse(status: u16, code: &'static str, detail: &str) -> Refusal {
    Refusal::Answer(code, Box::new(Response::error(status, code, detail)))
}

/// Waits for the next request, `idle` at most, and reads it whole.
pub(super) async fn next(conn: &mut Conn, service: &dyn Service, limits: &Limits, idle: Duration, peer: SocketAddr) -> Incoming {
    if conn.plain().is_empty() {
        conn.shrink();
        match within(idle, conn.receive()).await {
            Some(Ok(true)) => {}
            _ => return Incoming::Closed,
        }
    }
    // On the heap: none of this is there while a call is parked.
    match within(limits.request, Box::pin(read(conn, service, limits, peer))).await {
        Some(Ok((request, keep))) => Incoming::Complete { request, keep },
        Some(Err(Refusal::Answer(code, response))) => Incoming::Refused(code, response),
        Some(Err(Refusal::Gone)) => Incoming::Closed,
        None if conn.plain().is_empty() => Incoming::Closed,
        None => {
            let seconds = limits.request.as_secs();
            let detail = format!("a request must arrive within {seconds} s");
            Incoming::Refused("request_too_slow", Box::new(Response::error(408, "request_too_slow", detail)))
        }
    }
}

async fn read(conn: &mut Conn, service: &dyn Service, limits: &Limits, peer: SocketAddr) -> Result<(Box<Request>, bool), Refusal> {
    let mut reading = Reading::new(limits.head, Some(peer))?;
    loop {
        match reading.step(conn.plain(), service)? {
            Step::Complete(request, keep) => return Ok((request, keep)),
            Step::Send(line) => conn.send(&line, limits.write_stall).await?,
            Step::More if conn.receive().await? => {}
            Step::More => return Err(Refusal::Gone),
        }
    }
}

/// A request on its way in, without the connection: every decision about its bytes is here.
struct Reading {
    head_max: usize,
    peer: Option<SocketAddr>,
    part: Part,
}

/// What is being read.
#[expect(clippy::large_enum_variant, reason = "one per request on its way, in a box of its own already")]
enum Part {
    Head(Reply<RecvRequest>),
    Body { head: Head<()>, reply: Reply<RecvBody>, body: Vec<u8>, limit: usize },
    Over,
}

/// What a request on its way needs next.
enum Step {
    More,
    /// To the peer: it waits for leave to send its body.
    Send(Vec<u8>),
    /// And whether the connection may be used again.
    Complete(Box<Request>, bool),
}

impl Reading {
    fn new(head_max: usize, peer: Option<SocketAddr>) -> Result<Reading, Refusal> {
        let mut reply = Reply::new().map_err(|_| Refusal::Gone)?;
        // A body after GET is read rather than taken for the next request, which is how requests are smuggled.
        reply.force_recv_body();
        Ok(Reading { head_max, peer, part: Part::Head(reply) })
    }

    /// Takes what it can from the front of `plain`.
    fn step(&mut self, plain: &mut Vec<u8>, service: &dyn Service) -> Result<Step, Refusal> {
        match std::mem::replace(&mut self.part, Part::Over) {
            Part::Head(mut reply) => match try_head(&mut reply, plain, self.head_max)? {
                Some(head) => self.begin(reply, head, plain, service),
                None => {
                    self.part = Part::Head(reply);
                    Ok(Step::More)
                }
            },
            Part::Body { head, mut reply, mut body, limit } => {
                if take_body(&mut reply, plain, &mut body, limit)? {
                    return Ok(self.complete(head, body));
                }
                self.part = Part::Body { head, reply, body, limit };
                Ok(Step::More)
            }
            Part::Over => Err(Refusal::Gone),
        }
    }

    fn begin(&mut self, reply: Reply<RecvRequest>, head: Head<()>, plain: &mut Vec<u8>, service: &dyn Service) -> Result<Step, Refusal> {
        let framing = framing(&head)?;
        let limit = service.body_limit(head.method().as_str(), head.uri().path());
        if let Framing::Length(length) = framing
            && length > limit as u64
        {
            return Err(too_large(limit));
        }
        if framing == Framing::None {
            return Ok(self.complete(head, Vec::new()));
        }
        let (reply, line) = match reply.proceed() {
            Some(RecvRequestResult::RecvBody(reply)) => (reply, None),
            Some(RecvRequestResult::Send100(reply)) => {
                let mut line = [0; 32];
                let (n, reply) = reply.accept(&mut line).map_err(|_| Refusal::Gone)?;
                (reply, Some(line[..n].to_vec()))
            }
            _ => return Ok(self.complete(head, Vec::new())),
        };
        self.part = Part::Body { head, reply, body: Vec::new(), limit };
        line.map_or_else(|| self.step(plain, service), |line| Ok(Step::Send(line)))
    }

    fn complete(&self, head: Head<()>, body: Vec<u8>) -> Step {
        let keep = head.version() == Version::HTTP_11 && !lists(head.headers(), header::CONNECTION, "close");
        let (method, path) = (head.method().as_str().to_string(), head.uri().path().to_string());
        let query = head.uri().query().map(str::to_string);
        let (headers, known) = (head.into_parts().0.headers, Known::default());
        Step::Complete(Box::new(Request { method, path, query, headers, body, peer: self.peer, known }), keep)
    }
}

/// What the server makes of these pieces of a connection: the first request, or the status that refuses it, and the bytes
/// that are left for the next one. `None` = it waits for more. For fuzzing: the same code as behind a socket.
#[cfg(feature = "fault")]
pub fn first_request<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    service: &dyn Service,
    limits: &Limits,
) -> (Option<Result<Request, u16>>, Vec<u8>) {
    let mut plain = Vec::new();
    let mut pieces = pieces.peekable();
    let Ok(mut reading) = Reading::new(limits.head, None) else { return (None, plain) };
    loop {
        match reading.step(&mut plain, service) {
            Ok(Step::Complete(request, _)) => return (Some(Ok(*request)), [plain, pieces.collect::<Vec<_>>().concat()].concat()),
            Ok(Step::Send(_)) => {}
            Ok(Step::More) => match pieces.next() {
                Some(piece) => plain.extend_from_slice(piece),
                None => return (None, plain),
            },
            Err(Refusal::Answer(_, response)) => return (Some(Err(response.status)), plain),
            Err(Refusal::Gone) => return (None, plain),
        }
    }
}

/// The head, once it is complete.
fn try_head(reply: &mut Reply<RecvRequest>, plain: &mut Vec<u8>, max: usize) -> Result<Option<Head<()>>, Refusal> {
    let too_long = || refuse(431, "headers_too_large", &format!("request line and headers may have {max} bytes and 128 lines"));
    match reply.try_request(plain) {
        Ok((used, Some(_))) if used > max => Err(too_long()),
        Ok((used, Some(head))) => {
            plain.drain(..used);
            Ok(Some(head))
        }
        Ok((_, None)) if plain.len() > max => Err(too_long()),
        Ok((_, None)) => Ok(None),
        Err(Error::HttpParseTooManyHeaders) => Err(too_long()),
        Err(Error::UnsupportedVersion) => Err(wrong_version()),
        // The parser's text is the only thing that tells.
        Err(Error::HttpParseFail(why)) if why.contains("version") => Err(wrong_version()),
        Err(error) => Err(refuse(400, "bad_request", &format!("not an HTTP request: {error}"))),
    }
}

fn wrong_version() -> Refusal {
    refuse(505, "http_version", "HTTP/1.1 is spoken here")
}

fn too_large(limit: usize) -> Refusal {
    refuse(413, "body_too_large", &format!("a body for this path may have {limit} bytes"))
}

/// How the end of the body is found.
#[derive(PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// Everything that two programs on the way could read differently is refused.
fn framing(head: &Head<()>) -> Result<Framing, Refusal> {
    let headers = head.headers();
    let hosts = headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && head.version() == Version::HTTP_11) {
        return Err(refuse(400, "bad_host", "exactly one Host header is needed"));
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter().count();
    if lengths + codings > 1 || (codings == 1 && head.version() != Version::HTTP_11) {
        return Err(refuse(400, "bad_framing", "one Content-Length or one Transfer-Encoding, not more"));
    }
    if codings == 1 {
        let only_chunked = headers.get(header::TRANSFER_ENCODING).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"chunked"));
        return if only_chunked { Ok(Framing::Chunked) } else { Err(refuse(501, "transfer_coding", "only chunked is understood")) };
    }
    match headers.get(header::CONTENT_LENGTH) {
        None => Ok(Framing::None),
        Some(value) => {
            let digits = value.to_str().ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|t| t.parse().ok());
            match length {
                Some(0) => Ok(Framing::None),
                Some(length) => Ok(Framing::Length(length)),
                None => Err(refuse(400, "bad_framing", "Content-Length is no number")),
            }
        }
    }
}

/// Moves body bytes from `plain` to `body`; `true` = complete.
fn take_body(reply: &mut Reply<RecvBody>, plain: &mut Vec<u8>, body: &mut Vec<u8>, limit: usize) -> Result<bool, Refusal> {
    let mut piece = [0; 4096];
    let mut used = 0;
    loop {
        let bad = |e: Error| refuse(400, "bad_body", &format!("the body cannot be read: {e}"));
        let (took, gave) = reply.read(&plain[used..], &mut piece).map_err(bad)?;
        used += took;
        body.extend_from_slice(&piece[..gave]);
        if body.len() > limit {
            return Err(too_large(limit));
        }
        if reply.is_ended() || (took == 0 && gave == 0) {
            break;
        }
    }
    plain.drain(..used);
    if !reply.is_ended() && plain.len() > CHUNK_HEAD_MAX {
        return Err(refuse(400, "bad_body", "a chunk's head is too long"));
    }
    Ok(reply.is_ended())
}

/// Whether a header's comma-separated list names `token`.
fn lists(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(token))
}
