//! The mirrored release tree as it is served: an index of verified files, and nothing that the index does not name.
//!
//! A request's path is a key of the index, never a path of the file system; so no spelling of it can leave the folder.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;

use super::releases::Releases;
use crate::io::serve::{Body, Request, Response};

/// Artifact downloads at once; more are told to come back.
pub const DOWNLOADS_MAX: usize = 64;
/// Shortest advised pause of a refused download, seconds; up to twice that is added by chance.
pub const RETRY_AFTER_S: u64 = 10;

/// A verified file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub file: PathBuf,
    /// Bytes.
    pub length: u64,
    /// SHA-256, hexadecimal: the entity tag.
    pub sha256: String,
    /// An artifact: credential and throttle.
    pub artifact: bool,
}

/// What is served.
#[derive(Debug, Default)]
pub struct Tree {
    /// By path below `/release/`: `metadata/timestamp.json`, `targets/<product>/...`.
    pub entries: HashMap<String, Entry>,
    /// Verified artifacts.
    pub releases: Releases,
    /// Version of the served timestamp.
    pub timestamp_version: u64,
    /// Versions of root, snapshot and targets, for people.
    pub versions: [u64; 3],
    /// When root, timestamp, snapshot and targets expire, seconds since 1970.
    pub expires: [Option<u64>; 4],
    /// When it was last found to be fresh, seconds since 1970.
    pub verified_at: u64,
    /// The files on the disk are still being verified: artifacts that are not here may be there in a moment.
    pub checking: bool,
}

/// One download under way; counted until it is dropped.
pub struct Permit(Rc<Cell<usize>>);

impl Permit {
    /// A place among `max` ([`DOWNLOADS_MAX`], unless it is configured).
    pub fn take(count: &Rc<Cell<usize>>, max: usize) -> Option<Permit> {
        if count.get() >= max {
            return None;
        }
        count.set(count.get() + 1);
        Some(Permit(count.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The bytes that a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// No range, or a form that may be ignored (several ranges, other units).
    Whole,
    /// From this byte, so many.
    Part(u64, u64),
    /// Nothing of it is there.
    Unsatisfiable,
}

/// Reads one `bytes=` range, as RFC 9110 section 14 has it.
pub fn range(header: Option<&str>, length: u64) -> Range {
    let parse = || {
        let (first, last) = header?.strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
        Some(match (first, last) {
            ("", last) => {
                let last = number(last)?.min(length);
                if last == 0 { Range::Unsatisfiable } else { Range::Part(length - last, last) }
            }
            (first, last) => {
                let first = number(first)?;
                let last = if last.is_empty() { u64::MAX } else { number(last)? };
                if last < first {
                    return None;
                }
                let end = last.saturating_add(1).min(length);
                if first >= length { Range::Unsatisfiable } else { Range::Part(first, end - first) }
            }
        })
    };
    parse().unwrap_or(Range::Whole)
}

/// Answers a `GET` or `HEAD` for a file of the index. `permit` is kept until the answer has been sent.
pub fn answer(entry: &Entry, request: &Request, permit: Option<Permit>) -> Response {
    let tag = format!("\"{}\"", entry.sha256);
    let matches = |list: &str| list.split(',').map(str::trim).any(|t| t == "*" || t.trim_start_matches("W/") == tag);
    // An artifact never changes under its path; the timestamp does.
    let cache = if entry.artifact { "private, max-age=31536000, immutable" } else { "no-cache" };
    let typed = if entry.artifact { "application/octet-stream" } else { "application/json" };
    let finish = |r: Response| r.with("etag", tag.clone()).with("cache-control", cache).with("accept-ranges", "bytes");
    if request.header("if-none-match").is_some_and(matches) {
        return finish(Response::empty(304));
    }
    // If-Range with another tag: the client's part is of another file, so it gets the whole one.
    let wanted = request.header("range").filter(|_| request.header("if-range").is_none_or(|t| t.trim() == tag));
    let (status, offset, length) = match range(wanted, entry.length) {
        Range::Unsatisfiable => {
            return finish(Response::error(416, "range_unsatisfiable", format!("the file has {} bytes", entry.length)))
                .with("content-range", format!("bytes */{}", entry.length));
        }
        Range::Part(offset, length) => (206, offset, length),
        Range::Whole => (200, 0, entry.length),
    };
    let file = match File::open(&entry.file) {
        Ok(file) => file,
        Err(e) => {
            log::error!("{} cannot be read: {e}; the next refresh of the mirror restores it", entry.file.display());
            return Response::error(503, "file_unreadable", "the mirror's copy cannot be read; try again later").with("retry-after", "60");
        }
    };
    let hold = permit.map(|p| Box::new(p) as Box<dyn Any>);
    let body = Body::File { file, offset, length, flow: None };
    let answer = finish(Response { status, headers: vec![("content-type", typed.to_string())], body, hold });
    match status {
        206 => answer.with("content-range", format!("bytes {offset}-{}/{}", offset + length - 1, entry.length)),
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            (None, Range::Whole),
            (Some("bytes=0-"), Range::Part(0, 10)),
            (Some("bytes=3-5"), Range::Part(3, 3)),
            (Some("bytes=9-99"), Range::Part(9, 1)),
            (Some("bytes=-4"), Range::Part(6, 4)),
            (Some("bytes=-40"), Range::Part(0, 10)),
            (Some("bytes=10-"), Range::Unsatisfiable),
            (Some("bytes=-0"), Range::Unsatisfiable),
            (Some("bytes=5-3"), Range::Whole),
            (Some("bytes=0-1,3-4"), Range::Whole),
            (Some("bytes=+1-2"), Range::Whole),
            (Some("bytes=99999999999999999999-"), Range::Whole),
            (Some("lines=1-2"), Range::Whole),
            (Some("bytes"), Range::Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(range(header, 10), expected, "{header:?}");
        }
        assert_eq!(range(Some("bytes=0-"), 0), Range::Unsatisfiable);
    }

    #[test]
    fn permits_are_given_back() {
        let count = Rc::new(Cell::new(0));
        let held: Vec<Option<Permit>> = (0..DOWNLOADS_MAX).map(|_| Permit::take(&count, DOWNLOADS_MAX)).collect();
        assert!(held.iter().all(Option::is_some) && Permit::take(&count, DOWNLOADS_MAX).is_none());
        drop(held);
        assert!(Permit::take(&count, 1).is_some());
    }
}
