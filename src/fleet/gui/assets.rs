//! Static files: their name has the beginning of their SHA-256, so that a browser keeps each for ever and never an old one.

use std::io::Write;
use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::page::sealed;
use crate::core::hex;
use crate::io::serve::{Request, Response};

struct File {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const FILES: [File; 3] = [
    File { name: "style.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("static/style.css") },
    File { name: "script.js", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("static/script.js") },
    File { name: "icon.svg", content_type: "image/svg+xml", bytes: include_bytes!("static/icon.svg") },
];

/// A file ready to be sent.
struct Ready {
    path: String,
    zipped: Vec<u8>,
}

fn ready() -> &'static [Ready] {
    static READY: OnceLock<Vec<Ready>> = OnceLock::new();
    READY.get_or_init(|| {
        FILES
            .iter()
            .map(|file| {
                let hash = hex::encode(&hex::sha256(file.bytes)[..8]);
                let (stem, kind) = file.name.rsplit_once('.').unwrap_or((file.name, ""));
                Ready { path: format!("/static/{stem}.{hash}.{kind}"), zipped: zipped(file.bytes) }
            })
            .collect()
    })
}

/// Once at the first request; pages themselves are not packed: what is typed stands beside a secret there, and the length
/// of a packed page tells of both.
fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    let written = out.write_all(bytes);
    written.and_then(|()| out.finish()).unwrap_or_default()
}

/// Where a file is.
pub fn path(name: &str) -> String {
    FILES.iter().zip(ready()).find(|(file, _)| file.name == name).map_or(String::new(), |(_, ready)| ready.path.clone())
}

/// Answers a request for a static file.
pub fn answer(request: &Request) -> Option<Response> {
    if !request.path.starts_with("/static/") && request.path != "/favicon.ico" {
        return None;
    }
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Some(super::page::wrong_method("GET, HEAD"));
    }
    let wanted = if request.path == "/favicon.ico" { path("icon.svg") } else { request.path.clone() };
    let found = FILES.iter().zip(ready()).find(|(_, ready)| ready.path == wanted);
    let Some((file, ready)) = found else {
        return Some(
            sealed(Response::error(404, "not_found", "there is no such file; load the page again")).with("cache-control", "no-store"),
        );
    };
    let packed = request.header("accept-encoding").is_some_and(|v| v.split(',').any(|c| c.trim().starts_with("gzip")));
    let packed = packed && !ready.zipped.is_empty();
    let bytes = if packed { ready.zipped.clone() } else { file.bytes.to_vec() };
    let response = sealed(Response::of(200, file.content_type, bytes)).with("vary", "accept-encoding");
    let response =
        response.with("cache-control", if request.path == "/favicon.ico" { "max-age=3600" } else { "public, max-age=31536000, immutable" });
    Some(if packed { response.with("content-encoding", "gzip") } else { response })
}
