//! Where a release tree comes from: the managing Director, or an operator's medium (a folder or a bundle).

use std::io::Read;
use std::time::Duration;

use super::link::Link;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::io::http::{Download, HttpError};
use crate::io::medium::{Medium, Part};

/// One metadata file or the head of an artifact must answer within this time: slow links included, dead ones not.
const ANSWER: Duration = Duration::from_secs(60);

/// A tree of `metadata/` and `targets/`.
pub enum Source<'a> {
    /// The Director's mirror.
    Director(&'a Link),
    /// A medium at this device.
    Medium(&'a Medium),
}

/// Why a source did not give.
#[derive(Debug)]
pub struct SourceError {
    /// For the operator.
    pub reason: Reason,
    /// What the server asked for.
    pub retry_after_s: Option<u64>,
    /// A signal ended the wait: look for requests.
    pub woken: bool,
}

impl From<HttpError> for SourceError {
    fn from(error: HttpError) -> SourceError {
        SourceError { woken: error == HttpError::Woken, reason: error.reason(), retry_after_s: None }
    }
}

impl From<Reason> for SourceError {
    fn from(reason: Reason) -> SourceError {
        SourceError { reason, retry_after_s: None, woken: false }
    }
}

/// An artifact's bytes from some offset on.
pub enum Body {
    /// Over the network.
    Http(Box<Download>),
    /// From a medium.
    Medium(Part),
}

impl Body {
    /// The next bytes; 0 = complete.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        match self {
            Body::Http(download) => Ok(download.read(buffer)?),
            Body::Medium(part) => part.read(buffer).map_err(|e| Reason::new("tree_unreadable", e.to_string()).into()),
        }
    }

    /// True when these bytes cost network traffic.
    pub fn is_remote(&self) -> bool {
        matches!(self, Body::Http(_))
    }
}

impl Source<'_> {
    /// A metadata file of at most `limit` bytes; `None` = there is none of that name.
    pub fn metadata(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        match self {
            Source::Medium(medium) => Ok(medium.read(&format!("metadata/{name}"), limit)?),
            Source::Director(link) => {
                let mut download = link.get(&format!("/release/metadata/{name}"), None, limit, ANSWER)?;
                match download.status {
                    200 => {
                        let mut bytes = Vec::new();
                        let mut piece = [0; 4096];
                        loop {
                            match download.read(&mut piece)? {
                                0 => return Ok(Some(bytes)),
                                n => bytes.extend_from_slice(&piece[..n]),
                            }
                        }
                    }
                    404 => Ok(None),
                    status => Err(refused(link, name, status, download.retry_after_s)),
                }
            }
        }
    }

    /// An artifact's bytes from `from` on, and the offset at which they really begin.
    pub fn artifact(&self, artifact: &Artifact, from: u64) -> Result<(Body, u64), SourceError> {
        let path = artifact.path.to_string();
        let name = name(artifact);
        match self {
            Source::Medium(medium) => Ok((Body::Medium(medium.part(&name, from)?), from)),
            Source::Director(link) => {
                let range = (from > 0).then_some(from);
                let download = link.get(&format!("/release/{name}"), range, artifact.length, ANSWER)?;
                match download.status {
                    200 => Ok((Body::Http(Box::new(download)), 0)),
                    206 => {
                        let start = download.start;
                        Ok((Body::Http(Box::new(download)), start))
                    }
                    status => Err(refused(link, &path, status, download.retry_after_s)),
                }
            }
        }
    }
}

/// Name of an artifact's file in a tree with consistent snapshots.
pub fn name(artifact: &Artifact) -> String {
    let path = artifact.path.to_string();
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", &path));
    format!("targets/{folder}/{}.{file}", hex::encode(&artifact.sha256))
}

fn refused(link: &Link, what: &str, status: u16, retry_after_s: Option<u64>) -> SourceError {
    let peer = link.address();
    let reason = match status {
        429 | 503 => Reason::new("throttled", format!("{peer} is busy ({status}) and asks to come back for {what}")),
        401 | 403 => Reason::new("credential_refused", format!("{peer} refused {what} ({status}); enroll this device again")),
        404 => Reason::new("artifact_missing", format!("{peer}: its mirror has no {what}")),
        _ => Reason::new("director_error", format!("{peer} answered {status} for {what}")),
    };
    SourceError { reason, retry_after_s, woken: false }
}
