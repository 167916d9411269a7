//! Where the files of a repository come from: a web server, or a folder.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;

use crate::io::fs::open_plain;
use crate::release::failure::{Failure, Result};

/// Connecting, and the head of an answer, within this time each.
const ANSWER: Duration = Duration::from_secs(30);
/// A body has this time, and [`SLOWEST`] bytes more per second: slow retrieval and trickling bodies end.
const BODY: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 1024;

/// The base of one of the two trees.
pub struct Source {
    base: String,
    place: Place,
}

enum Place {
    Web(Box<Agent>),
    Folder(PathBuf),
}

impl Source {
    /// `option` is for the message.
    pub fn new(option: &str, base: &str) -> Result<Source> {
        let base = base.trim_end_matches('/').to_string();
        if let Some(folder) = base.strip_prefix("file://") {
            return Ok(Source { place: Place::Folder(folder.into()), base });
        }
        let Some(rest) = base.strip_prefix("http://") else {
            let text = format!("--{option} {base}: expected http://HOST/... or file:///...; metadata needs no TLS, all of it is signed");
            return Err(Failure::usage(text));
        };
        let mut config = Agent::config_builder().http_status_as_error(false).max_redirects(0).max_redirects_will_error(false);
        // A proxy of the environment is for the world outside.
        if ["localhost", "127.", "[::1]"].iter().any(|here| rest.starts_with(here)) {
            config = config.proxy(None);
        }
        let config = config.timeout_connect(Some(ANSWER)).timeout_recv_response(Some(ANSWER)).timeout_per_read(Some(ANSWER));
        let agent = config.user_agent("vmetric-release").accept_encoding("identity").build().new_agent();
        Ok(Source { base, place: Place::Web(Box::new(agent)) })
    }

    /// The whole address of a file.
    pub fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// A file, and one byte more than `limit` of a longer one, so that the check that comes next sees that it is.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(body) = self.open(name, limit)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = body.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|e| self.failed(name, e))?;
        Ok(Some(bytes))
    }

    /// A file of about `length` bytes; `None` = the server says that there is none.
    pub fn open(&self, name: &str, length: u64) -> Result<Option<Box<dyn Read>>> {
        match &self.place {
            Place::Folder(folder) => self.open_file(&folder.join(name), name),
            Place::Web(agent) => {
                let time = BODY.saturating_add(Duration::from_secs(length / SLOWEST));
                let request = agent.get(self.join(name)).config().timeout_recv_body(Some(time)).build();
                let answer = request.call().map_err(|e| self.failed(name, e))?;
                match answer.status().as_u16() {
                    200 => Ok(Some(Box::new(answer.into_body().into_reader()))),
                    // Stores that hide what exists answer 403 for what does not (5.3.3).
                    403 | 404 => Ok(None),
                    status => Err(self.failed(name, format!("the server answered {status}"))),
                }
            }
        }
    }

    fn open_file(&self, path: &Path, name: &str) -> Result<Option<Box<dyn Read>>> {
        match open_plain(path) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed(name, e)),
        }
    }

    /// For errors while reading as well.
    pub fn failed(&self, name: &str, why: impl std::fmt::Display) -> Failure {
        Failure::new("unreachable", format!("{}: {why}", self.join(name)))
    }
}
