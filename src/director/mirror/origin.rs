//! The source of releases, opened for one refresh: a folder, a server, or a medium.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use super::{Body, Source, unreadable};
use crate::core::reason::Reason;
use crate::io::fs::read_limited;
use crate::io::http::{Http, HttpConfig};
use crate::io::medium::Medium;

/// Longest wait for an answer of the source.
const ANSWER: Duration = Duration::from_secs(30);

/// The source, opened for one refresh.
pub(super) enum Origin {
    Folder(PathBuf),
    Url(String, Http),
    Medium(Medium),
}

impl Origin {
    pub(super) fn new(source: &Source, user_agent: &'static str) -> Result<Origin, Reason> {
        match source {
            Source::Nowhere => Err(Reason::new("no_source", "this server was started without --mirror; releases are brought to it")),
            Source::Folder(folder) => Ok(Origin::Folder(folder.clone())),
            Source::Url(base, pins) => {
                let config = HttpConfig { pins: pins.clone(), proxy: None, user_agent, wake_fd: None, tick: || {} };
                let http = Http::new(config).map_err(|e| e.reason())?;
                Ok(Origin::Url(base.trim_end_matches('/').to_string(), http))
            }
        }
    }

    /// A small file; `None` = the source says that there is none.
    pub(super) fn read(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, Reason> {
        match self {
            Origin::Medium(medium) => medium.read(name, limit),
            Origin::Folder(folder) => {
                let file = folder.join(name);
                if !folder.is_dir() {
                    let detail = format!("{} is no folder; --mirror names one with metadata/ and targets/", folder.display());
                    return Err(Reason::new("mirror_unreachable", detail));
                }
                match read_limited(&file, limit) {
                    Ok(bytes) => Ok(bytes),
                    Err(e) => Err(unreadable(&file, &e)),
                }
            }
            Origin::Url(base, http) => {
                let mut download = http.get(&format!("{base}/{name}"), None, None, limit, ANSWER).map_err(|e| e.reason())?;
                match download.status {
                    200 => {}
                    403 | 404 => return Ok(None),
                    status => return Err(Reason::new("mirror_unreachable", format!("{base}/{name}: the server answered {status}"))),
                }
                let (mut out, mut piece) = (Vec::new(), [0; 4096]);
                loop {
                    match download.read(&mut piece).map_err(|e| e.reason())? {
                        0 => return Ok(Some(out)),
                        n => out.extend_from_slice(&piece[..n]),
                    }
                }
            }
        }
    }

    /// An artifact from byte `from` on, to be read in pieces.
    pub(super) fn open(&mut self, path: &str, length: u64, from: u64) -> Result<Body, Reason> {
        match self {
            Origin::Medium(medium) => Ok((Box::new(medium.part(&format!("targets/{path}"), from)?), from)),
            Origin::Folder(folder) => {
                let file = folder.join("targets").join(path);
                let open = || {
                    let mut opened = File::open(&file)?;
                    opened.seek(SeekFrom::Start(from)).map(|_| opened)
                };
                Ok((Box::new(open().map_err(|e| unreadable(&file, &e))?), from))
            }
            Origin::Url(base, http) => {
                let url = format!("{base}/targets/{path}");
                let range = (from > 0).then_some(from);
                let download = http.get(&url, None, range, length, ANSWER).map_err(|e| e.reason())?;
                let start = download.start;
                match download.status {
                    200 | 206 => Ok((Box::new(Stream(download)), start)),
                    status => Err(Reason::new("mirror_unreachable", format!("{url}: the server answered {status}"))),
                }
            }
        }
    }
}

struct Stream(crate::io::http::Download);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| io::Error::other(e.reason().to_string()))
    }
}
