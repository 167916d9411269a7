//! The HTTP server's reading of a request: one meaning, however the bytes are cut, and no more kept than the limits say.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::io::serve::{Answer, Limits, Request, Response, Service, first_request};

/// Bytes of a body at most, here.
const BODY: usize = 600;
/// A chunk's own lines, see `io::serve`.
const CHUNK_HEAD: usize = 4096;

struct Quiet;

impl Service for Quiet {
    fn body_limit(&self, _method: &str, path: &str) -> usize {
        if path == "/none" { 0 } else { BODY }
    }

    fn call(&self, _request: Request) -> Answer {
        Box::pin(async { Response::error(404, "not_found", "") })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { head: 1024, ..Limits::default() };
    let read = |piece: usize| first_request(bytes.chunks(piece.max(1)), &Quiet, &limits);
    let (whole, rest) = read(bytes.len());
    match &whole {
        Some(Ok(request)) => {
            assert!(request.body.len() <= BODY && (request.path != "/none" || request.body.is_empty()), "a body over its limit");
            assert!(request.headers.len() <= 128);
            assert!(bytes.ends_with(&rest), "what is left is not the rest of what came");
            let _ = (request.bearer(), request.header("content-type"));
        }
        Some(Err(status)) => assert!((400..=505).contains(status), "{status}"),
        None => assert!(rest.len() <= 1024 + CHUNK_HEAD, "{} bytes are kept of what is no request", rest.len()),
    }
    for piece in [1, 3, bytes.len() / 2] {
        let (cut, left) = read(piece);
        match (&whole, &cut) {
            (Some(Ok(a)), Some(Ok(b))) => {
                assert_eq!((&a.method, &a.path, &a.query, &a.body, &a.headers), (&b.method, &b.path, &b.query, &b.body, &b.headers));
                assert_eq!(rest, left, "another request begins where the bytes are cut otherwise");
            }
            (Some(Err(_)), Some(Err(_))) | (None, None) => {}
            _ => panic!("{:?} whole, {:?} in pieces of {piece}", whole.map(|r| r.map(|r| r.path)), cut.map(|r| r.map(|r| r.path))),
        }
    }
});
