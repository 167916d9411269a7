//! What the application answers.

use std::fs::File;

use crate::wire::agent_api::ErrorWire;

/// The body of an answer; its length is always known before the first byte.
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
        /// Dropped when the answer has been sent or the client has left: whoever counts downloads counts with it.
        hold: Option<Box<dyn std::any::Any>>,
    },
}

impl Body {
    /// Bytes to send.
    pub fn len(&self) -> u64 {
        match self {
            Body::Empty => 0,
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
}

impl Response {
    /// An answer without a body.
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Body::Empty }
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
        Response { status, headers: vec![("content-type", content_type.to_string())], body: Body::Bytes(bytes) }
    }

    /// An [`ErrorWire`]: a stable code and one sentence that says what to do.
    pub fn error(status: u16, code: &str, detail: impl Into<String>) -> Response {
        let wire = ErrorWire { code: code.to_string(), detail: detail.into() };
        Response::json(status, miniserde::json::to_string(&wire))
    }

    /// Adds a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}
