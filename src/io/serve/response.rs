//! What the application answers.

use std::fmt::Write;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::time::Duration;

use ureq_proto::http::{HeaderName, StatusCode};

use super::Limits;
use super::conn::{Conn, within};
use super::scratch::{PIECE, Scratch};
use crate::wire::agent_api::ErrorWire;

/// The body of an answer; its length is known before the first byte, but for a stream's.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// `length` bytes of a file from `offset` on, streamed in pieces. A file that turns out shorter ends the connection
    /// without `close_notify`, so that the client never takes it for complete.
    File {
        /// Open for reading.
        file: File,
        /// First byte to send.
        offset: u64,
        /// How many bytes to send.
        length: u64,
        /// How fast it goes; `None` = as fast as the client takes it.
        flow: Option<Box<dyn Flow>>,
    },
    /// Pieces as they come, without an end that is known: chunked, or until the connection ends where the peer does not know
    /// chunks. One piece is in memory at a time, and the next one is asked for when the peer has taken it.
    Stream(Box<dyn Source>),
}

/// Where the pieces of a stream come from. Dropped when it has ended or the client has left.
pub trait Source: std::fmt::Debug {
    /// Waits for the next piece; `None` = that was all. It is dropped when the client leaves meanwhile.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + '_>>;
}

/// Slows a body down and counts it. Dropped when the answer has been sent or the client has left.
pub trait Flow: std::fmt::Debug {
    /// Most bytes of a piece: short enough that a slow flow is steady.
    fn piece(&self) -> u64;
    /// How long the next piece has to wait.
    fn wait(&self, bytes: u64) -> Duration;
    /// So many bytes are on their way.
    fn sent(&self, bytes: u64);
}

impl Body {
    /// Bytes to send; 0 of a stream, of which nobody knows.
    pub fn len(&self) -> u64 {
        match self {
            Body::Empty | Body::Stream(_) => 0,
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File { length, .. } => *length,
        }
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An answer. `Content-Length` and `Connection` are added when it is sent.
#[derive(Debug)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Names in lower case; a value with a control character is dropped with a log line instead of being sent.
    pub headers: Vec<(&'static str, String)>,
    /// What follows.
    pub body: Body,
    /// Dropped when the answer has been sent or the client has left.
    pub hold: Option<Box<dyn std::any::Any>>,
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Body::Empty, hold: None }
    }

    /// `application/json`.
    pub fn json(status: u16, json: String) -> Response {
        Response::of(status, "application/json", json.into_bytes())
    }

    /// `text/plain; charset=utf-8`.
    pub fn text(status: u16, text: impl Into<String>) -> Response {
        Response::of(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// Any content type.
    pub fn of(status: u16, content_type: &str, bytes: Vec<u8>) -> Response {
        Response { status, headers: vec![("content-type", content_type.to_string())], body: Body::Bytes(bytes), hold: None }
    }

    /// An [`ErrorWire`]: a stable code and one sentence that says what to do.
    pub fn error(status: u16, code: &str, detail: impl Into<String>) -> Response {
        let wire = ErrorWire { code: code.to_string(), detail: detail.into() };
        Response::json(status, miniserde::json::to_string(&wire))
    }

    /// Ends the connection after this answer: for a peer that has to show first that it is worth another one.
    pub fn closing(self) -> Response {
        self.with("connection", "close")
    }

    pub(super) fn closes(&self) -> bool {
        self.headers.iter().any(|(name, value)| *name == "connection" && value == "close")
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}

/// Sends an answer: head and body, the latter in pieces. Between two pieces other connections have their turn.
///
/// Files are read on this thread: local disks and the page cache answer faster than a second thread would.
///
/// # Errors
/// The connection cannot be used any more; nothing that was sent can be taken for complete.
pub(super) async fn send(
    conn: &mut Conn,
    scratch: &Scratch,
    response: Response,
    head_only: bool,
    keep: bool,
    limits: &Limits,
) -> io::Result<()> {
    let stall = limits.write_stall;
    let head = head(&response, head_only, keep);
    let _answer = response.hold;
    let body = if head_only || !has_body(response.status) { Body::Empty } else { response.body };
    match body {
        Body::Empty => conn.send(head.as_bytes(), stall).await,
        Body::Bytes(bytes) => {
            let mut all = head.into_bytes();
            all.extend_from_slice(&bytes);
            drop(bytes);
            for piece in all.chunks(PIECE) {
                within(limits.write_piece, conn.send(piece, stall)).await.unwrap_or_else(too_slow)?;
            }
            Ok(())
        }
        Body::File { mut file, offset, length, flow } => {
            conn.seal(head.as_bytes())?;
            file.seek(SeekFrom::Start(offset))?;
            let mut left = length;
            while left > 0 {
                let most = flow.as_ref().map_or(left, |flow| left.min(flow.piece().max(1)));
                let pause = flow.as_ref().map_or(Duration::ZERO, |flow| flow.wait(most));
                if !pause.is_zero() {
                    // What is sealed goes first: the head must not wait for the body's turn.
                    within(limits.write_piece, conn.flush(stall)).await.unwrap_or_else(too_slow)?;
                    smol::Timer::after(pause).await;
                }
                let sealed = seal_piece(conn, scratch, &mut file, most)?;
                flow.iter().for_each(|flow| flow.sent(sealed));
                left -= sealed;
                within(limits.write_piece, conn.flush(stall)).await.unwrap_or_else(too_slow)?;
                smol::future::yield_now().await;
            }
            conn.flush(stall).await
        }
        Body::Stream(source) => {
            conn.send(head.as_bytes(), stall).await?;
            stream(conn, source, keep, limits).await
        }
    }
}

/// The pieces of a stream until it ends or the peer leaves.
async fn stream(conn: &mut Conn, mut source: Box<dyn Source>, chunked: bool, limits: &Limits) -> io::Result<()> {
    loop {
        let next = conn.park(source.next()).await;
        let Some(next) = next else { return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer left its stream")) };
        let Some(piece) = next else { break };
        for part in piece.chunks(PIECE) {
            let framed = if chunked { [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat() } else { part.to_vec() };
            within(limits.write_piece, conn.send(&framed, limits.write_stall)).await.unwrap_or_else(too_slow)?;
        }
    }
    if chunked { conn.send(b"0\r\n\r\n", limits.write_stall).await } else { Ok(()) }
}

fn too_slow() -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes the answer too slowly"))
}

fn seal_piece(conn: &mut Conn, scratch: &Scratch, file: &mut File, left: u64) -> io::Result<u64> {
    let mut piece = scratch.file.borrow_mut();
    let want = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    match file.read(&mut piece[..want])? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent")),
        n => conn.seal(&piece[..n]).map(|()| n as u64),
    }
}

fn has_body(status: u16) -> bool {
    !matches!(status, 100..=199 | 204 | 304)
}

/// Status line and headers. Written by hand: nothing of the request machine has to live while a call is parked.
fn head(response: &Response, head_only: bool, keep: bool) -> String {
    let status = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("Status"));
    // For HEAD the application may know the length without having the body.
    let own_length = head_only && response.headers.iter().any(|(name, _)| *name == "content-length");
    for (name, value) in &response.headers {
        let framing = matches!(*name, "connection" | "transfer-encoding") || (*name == "content-length" && !own_length);
        if framing {
            continue;
        }
        if value.bytes().any(|b| b.is_ascii_control()) || HeaderName::from_bytes(name.as_bytes()).is_err() {
            log::warn!("bad_header: an answer's `{name}` holds a control character and is left out");
            continue;
        }
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if matches!(response.body, Body::Stream(_)) {
        head.push_str(if keep { "transfer-encoding: chunked\r\n" } else { "" });
    } else if has_body(response.status) && !own_length {
        let _ = write!(head, "content-length: {}\r\n", response.body.len());
    }
    head.push_str(if keep { "\r\n" } else { "connection: close\r\n\r\n" });
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_can_be_split() {
        let response = Response::text(200, "x").with("x-a", "b\r\nx-evil: 1").with("content-length", "999");
        let text = head(&response, false, true);
        assert!(!text.contains("evil") && text.contains("content-length: 1\r\n") && !text.contains("999"));
    }

    #[test]
    fn head_knows_the_length_without_the_body() {
        let head_of = |r: &Response| head(r, true, true);
        assert!(head_of(&Response::text(200, "four")).contains("content-length: 4\r\n"));
        assert!(head_of(&Response::empty(200).with("content-length", "77")).contains("content-length: 77\r\n"));
        assert!(!head(&Response::empty(304), false, false).contains("content-length"));
    }
}
