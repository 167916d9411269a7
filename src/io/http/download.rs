//! An answer's body, piece by piece: limited, with a minimum rate, woken by signals.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use ureq::http::{HeaderMap, Response, header};
use ureq::{Body, BodyReader};

use super::rate::{MinRate, WINDOW};
use super::transport::{Late, Shared, classify};
use super::{HttpError, retry_after, wait};

/// An answer whose body is read piece by piece.
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
    reader: BodyReader<'static>,
    shared: Arc<Shared>,
    peer: String,
    limit: u64,
    taken: u64,
    /// `None` = under the deadline of a whole call instead.
    rate: Option<MinRate>,
}

impl Download {
    pub(super) fn new(
        answer: Response<Body>,
        limit: u64,
        peer: &str,
        shared: Arc<Shared>,
        rate: Option<MinRate>,
    ) -> Result<Download, HttpError> {
        let (parts, body) = {
            let retry_after_s = retry_after(&answer);
            let (parts, body) = answer.into_parts();
            ((parts, retry_after_s), body)
        };
        let (parts, retry_after_s) = parts;
        let length = body.content_length();
        if length.is_some_and(|n| n > limit) {
            return Err(HttpError::TooLarge { limit });
        }
        let text = |name| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
        let range = (parts.status == 206).then(|| content_range(&parts.headers)).flatten();
        Ok(Download {
            status: parts.status.as_u16(),
            retry_after_s,
            length,
            start: range.map_or(0, |r| r.0),
            total: range.map_or(length, |r| r.1),
            etag: text(header::ETAG),
            reader: body.into_reader(),
            shared,
            peer: peer.to_string(),
            limit,
            taken: 0,
            rate,
        })
    }

    /// The next bytes; 0 = complete (a connection that ends early is an error, never a 0).
    ///
    /// # Errors
    /// Any [`HttpError`]; `too_slow` below the minimum rate, `too_large` beyond the limit.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        if wait::woken(&self.shared.watch()) {
            return Err(HttpError::Woken);
        }
        let began = wait::now();
        if self.rate.is_some() {
            // One record may trickle in byte by byte, which no rate over complete reads would notice.
            self.shared.set_deadline(Some((began + WINDOW, Late::Body)));
        }
        let result = self.reader.read(buffer);
        if let Some(rate) = &mut self.rate {
            self.shared.set_deadline(None);
            let n = *result.as_ref().unwrap_or(&0);
            if result.is_ok() && n > 0 && !rate.enough(wait::now() - began, n as u64) {
                return Err(HttpError::TooSlow { peer: self.peer.clone() });
            }
        }
        let n = result.map_err(|e| classify(&self.peer, e.into()))?;
        self.taken += n as u64;
        if self.taken > self.limit {
            return Err(HttpError::TooLarge { limit: self.limit });
        }
        Ok(n)
    }
}

/// `bytes 5-9/10` as (5, Some(10)); `*` as total is allowed.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download")
            .field("status", &self.status)
            .field("length", &self.length)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}
