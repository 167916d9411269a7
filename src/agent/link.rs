//! The protocol with the managing Director: one client, one credential, contact kept by the monotonic clock.

use std::cell::Cell;
use std::time::Duration;

use miniserde::json;

use super::build;
use crate::core::reason::Reason;
use crate::io::http::{Download, Http, HttpConfig, HttpError};
use crate::io::{clock, process};
use crate::wire::agent_api::{AnswerWire, BODY_MAX, ErrorWire, ReportWire};
use crate::wire::config::ConfigWire;

/// Time for an answer that is not parked.
const ANSWER: Duration = Duration::from_secs(30);

/// The way to the Director.
pub struct Link {
    http: Http,
    base: String,
    credential: String,
    contact: Cell<Option<Duration>>,
    busy: Cell<Option<Duration>>,
}

/// Why there was no answer.
#[derive(Debug)]
pub struct LinkError {
    /// For the operator.
    pub reason: Reason,
    /// What the Director asked for.
    pub retry_after_s: Option<u64>,
    /// A signal ended the wait.
    pub woken: bool,
}

impl From<HttpError> for LinkError {
    fn from(error: HttpError) -> LinkError {
        LinkError { woken: error == HttpError::Woken, reason: error.reason(), retry_after_s: None }
    }
}

/// A client for the site with these pins.
pub fn client(pins: Vec<[u8; 32]>, proxy: Option<String>, wake_fd: Option<i32>, tick: fn()) -> Result<Http, Reason> {
    Http::new(HttpConfig { pins, proxy, user_agent: build::USER_AGENT, wake_fd, tick }).map_err(|e| e.reason())
}

impl Link {
    /// From the configuration; connects to nothing yet.
    pub fn new(config: &ConfigWire, wake_fd: Option<i32>, tick: fn()) -> Result<Link, Reason> {
        Ok(Link {
            http: client(config.pin_hashes(), config.proxy.clone(), wake_fd, tick)?,
            base: config.director.trim_end_matches('/').to_string(),
            credential: config.credential.clone(),
            contact: Cell::new(None),
            busy: Cell::new(None),
        })
    }

    /// Seconds since the Director last answered, authenticated; `None` = never by this process.
    pub fn contact_age_s(&self) -> Option<u64> {
        self.contact.get().map(|at| clock::monotonic().saturating_sub(at).as_secs())
    }

    /// Seconds since the Director last said that it is busy (429, 5xx): alive, and no reason for a rollback.
    pub fn busy_age_s(&self) -> Option<u64> {
        self.busy.get().map(|at| clock::monotonic().saturating_sub(at).as_secs())
    }

    /// Sends a report, parked for as long as it says.
    pub fn exchange(&self, path: &str, report: &ReportWire) -> Result<AnswerWire, LinkError> {
        let body = json::to_string(report);
        let timeout = ANSWER + Duration::from_secs(report.park_s);
        let reply = self.http.post_json(&format!("{}{path}", self.base), Some(&self.credential), &body, BODY_MAX, timeout)?;
        let text = String::from_utf8_lossy(&reply.body);
        if reply.status == 200 {
            let answer = json::from_str(&text).map_err(|_| LinkError {
                reason: Reason::new("bad_answer", format!("{}{path}: the answer is not of the agent protocol", self.base)),
                retry_after_s: None,
                woken: false,
            })?;
            self.contact.set(Some(clock::monotonic()));
            return Ok(answer);
        }
        if reply.status == 429 || reply.status >= 500 {
            // TLS under the pin has authenticated whoever said this.
            self.contact.set(Some(clock::monotonic()));
            self.busy.set(self.contact.get());
        }
        let said: ErrorWire = json::from_str(&text).unwrap_or_default();
        let code = if said.code.is_empty() { "director_error".to_string() } else { said.code };
        let detail = format!("{}{path}: {} {}", self.base, reply.status, said.detail);
        Err(LinkError { reason: Reason::received(code, detail), retry_after_s: reply.retry_after_s, woken: false })
    }

    /// A file of the mirrored release tree.
    pub fn get(&self, path: &str, from: Option<u64>, limit: u64, timeout: Duration) -> Result<Download, HttpError> {
        self.http.get(&format!("{}{path}", self.base), Some(&self.credential), from, limit, timeout)
    }

    /// The proxy in effect, without its password.
    pub fn proxy(&self) -> Option<String> {
        self.http.proxy_for(&self.base)
    }
}

/// Re-arms the liveness alarm: called in every turn, and while a call waits.
pub fn tick() {
    process::alarm(super::fault::times().liveness_s);
}
