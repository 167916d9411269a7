//! The HTTP client's reading of an answer. First byte: how the bytes are cut. Second: a report, or a download.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vmetric::io::http::{Http, HttpError};

const LIMIT: usize = 1000;
const URL: &str = "https://127.0.0.1/agent/v1/report";

fuzz_target!(|bytes: &[u8]| {
    let [cut, kind, answer @ ..] = bytes else { return };
    let http = Http::scripted(answer.to_vec(), usize::from(*cut) * 4);
    let time = Duration::from_secs(5);
    let result = match kind % 2 {
        0 => http.post_json(URL, Some("credential"), "{}", LIMIT, time).map(|reply| (reply.status, reply.body)),
        _ => download(&http, time),
    };
    match result {
        Ok((status, body)) => {
            assert!((100..1000).contains(&status));
            assert!(body.len() <= LIMIT && body.len() <= answer.len(), "{} bytes", body.len());
        }
        Err(error) => {
            let reason = error.reason();
            assert!(reason.detail.len() < 1024 && !reason.detail.contains(char::is_control), "{reason:?}");
        }
    }
});

fn download(http: &Http, time: Duration) -> Result<(u16, Vec<u8>), HttpError> {
    let mut download = http.get(URL, None, Some(7), LIMIT as u64, time)?;
    let mut body = Vec::new();
    let mut piece = [0; 256];
    loop {
        match download.read(&mut piece)? {
            0 => {
                assert!(download.length.is_none_or(|length| length == body.len() as u64), "a body of another length than announced");
                return Ok((download.status, body));
            }
            n => body.extend_from_slice(&piece[..n]),
        }
    }
}
