//! The protocol with the managing Director: one client, one credential, contact kept by the monotonic clock. Every request
//! carries the proof that this very device sends it ([`crate::core::proof`]).

use std::cell::{Cell, RefCell};
use std::time::Duration;

use miniserde::json;

use super::build;
use crate::core::failover::{Failover, Loss, Next};
use crate::core::hex::{self, Sha256};
use crate::core::proof::{DeviceKey, SEPARATOR};
use crate::core::reason::Reason;
use crate::io::http::{Download, Http, HttpConfig, HttpError};
use crate::io::process::WakeFd;
use crate::io::state::State;
use crate::io::{clock, device_key, notify, process, random};
use crate::wire::agent_api::{AnswerWire, BODY_MAX, ErrorWire, ReportWire};
use crate::wire::config::ConfigWire;

/// Largest CA file: some dozens of certificates.
pub const CA_FILE_MAX: u64 = 64 * 1024;

/// Where another member can be asked, one that is not heard of for so many seconds is given up: a lost packet or two is sent again
/// in that time, and an operator expects his agents back within half a minute.
const PATIENCE_S: u32 = 12;

/// The way to the Director.
pub struct Link {
    http: Http,
    ways: RefCell<Failover>,
    credential: String,
    pins: Vec<Sha256>,
    candidates: bool,
    way: (Option<WakeFd>, fn()),
    second: Cell<bool>,
    asked: Cell<bool>,
    key: RefCell<Option<DeviceKey>>,
    /// Public half of the key that the configuration speaks of, and where to look for it.
    enrolled: Option<(String, State)>,
    instance: RefCell<String>,
    sequence: Cell<u64>,
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
    /// The Director was there and turned this device down.
    pub refused: bool,
    /// The Director was there and asks for patience.
    pub busy: bool,
}

impl LinkError {
    /// No answer that could be used, for this reason.
    pub fn of(reason: Reason) -> LinkError {
        LinkError { reason, retry_after_s: None, woken: false, refused: false, busy: false }
    }
}

impl From<HttpError> for LinkError {
    fn from(error: HttpError) -> LinkError {
        LinkError { woken: error == HttpError::Woken, ..LinkError::of(error.reason()) }
    }
}

/// A client for the site of this configuration. `ca`: the CA file that its field `ca` names, PEM.
pub fn client(config: &ConfigWire, ca: Option<&[u8]>, wake_fd: Option<WakeFd>, tick: fn()) -> Result<Http, Reason> {
    let http = HttpConfig { pins: config.pin_hashes(), proxy: config.proxy.clone(), user_agent: build::USER_AGENT, wake_fd, tick };
    #[cfg(feature = "company-ca")]
    if let Some(pem) = ca {
        crate::io::tls::company::floor_is(build::time());
        return Http::with_rules(http, crate::io::tls::company::client_config(pem)?).map_err(|e| e.reason());
    }
    let _ = ca;
    Http::new(http).map_err(|e| e.reason())
}

fn ways(config: &ConfigWire) -> Failover {
    Failover::new(&config.agent_id, &config.director, config.members.as_deref().unwrap_or_default())
}

/// The CA file of this configuration; `None` = it has pins.
fn ca_of(config: &ConfigWire, state: &State) -> Result<Option<Vec<u8>>, Reason> {
    // Known at build time: without the feature nothing of this is linked.
    let Some(name) = config.ca.as_ref().filter(|_| cfg!(feature = "company-ca")) else { return Ok(None) };
    let path = state.path("config").join(name);
    let bad = |why: String| Reason::new("bad_ca", format!("{}: {why}; enroll again with --ca or --pin", path.display()));
    let read = crate::io::fs::read_limited(&path, CA_FILE_MAX).map_err(|e| bad(e.to_string()))?;
    read.map(Some).ok_or_else(|| bad("is missing".into()))
}

impl Link {
    /// From the configuration; connects to nothing yet.
    pub fn new(config: &ConfigWire, state: &State, wake_fd: Option<WakeFd>, tick: fn()) -> Result<Link, Reason> {
        let ways = ways(config);
        let http = client(config, ca_of(config, state)?.as_deref(), wake_fd, tick)?;
        if ways.has_others() {
            http.give_up_after(PATIENCE_S);
        }
        Ok(Link {
            key: RefCell::default(),
            enrolled: config.device_key.clone().map(|public| (public, state.clone())),
            instance: RefCell::new(device_key::instance(state)),
            sequence: Cell::new(0),
            http,
            ways: RefCell::new(ways),
            credential: config.credential.clone(),
            pins: config.pin_hashes(),
            candidates: config.candidates.is_some(),
            way: (wake_fd, tick),
            second: Cell::new(false),
            asked: Cell::new(false),
            contact: Cell::new(None),
            busy: Cell::new(None),
        })
    }

    /// Seconds since the Director last answered, authenticated; `None` = never by this process.
    pub fn contact_age_s(&self) -> Option<u64> {
        self.contact.get().map(|at| clock::monotonic().saturating_sub(at).as_secs())
    }

    /// Seconds awake since the Director last said that it is busy (429, 5xx): alive, and no reason for a rollback.
    pub fn busy_age_s(&self) -> Option<u64> {
        self.busy.get().map(|at| clock::awake().saturating_sub(at).as_secs())
    }

    /// A second connection of one process is the same instance.
    pub fn speak_as(&self, first: &Link) {
        self.instance.replace(first.instance.borrow().clone());
        self.ways.replace(first.ways.borrow().clone());
        self.second.set(true);
    }

    /// Not the second connection of a download, which ends with it.
    pub fn is_first(&self) -> bool {
        !self.second.get()
    }

    /// Whether a pin is held that waits for a connection under it.
    pub fn has_candidates(&self) -> bool {
        self.candidates
    }

    /// Whether it should say something at once instead of parking: a candidate is confirmed by the first answer that comes
    /// over a connection under it. Once per link: a candidate that never works must not become a loop.
    pub fn is_curious(&self) -> bool {
        self.candidates && !self.asked.get()
    }

    /// Where it leads.
    pub fn address(&self) -> String {
        self.ways.borrow().address().to_string()
    }

    /// Where it leads, when there are other members to turn to.
    pub fn member(&self) -> Option<String> {
        self.ways.borrow().has_others().then(|| self.address())
    }

    /// Notes what came of the last exchange and says how to go on after a loss.
    pub fn lost(&self, error: &LinkError, spread_s: Option<u64>) -> Next {
        let loss = match error {
            e if e.refused => Loss::Refused,
            // It goes, or is not there yet: no reason to wait for it where there are others.
            e if e.busy && !matches!(&*e.reason.code, "stopping" | "not_ready" | "mirror_checking") => Loss::Busy,
            _ => Loss::Silent,
        };
        self.ways.borrow_mut().lost(loss, spread_s, clock::awake().as_secs(), random::seed())
    }

    /// This member is being drained. True: there is another one, and the next exchange goes there.
    pub fn leave(&self) -> bool {
        self.ways.borrow_mut().leave()
    }

    /// Whether it is time to ask the first member again; the next exchange goes there.
    pub fn try_home(&self) -> bool {
        self.ways.borrow_mut().try_home(clock::awake().as_secs())
    }

    /// The pins under which the connection was verified.
    pub fn pins_used(&self) -> Vec<Sha256> {
        self.http.pins_used()
    }

    /// A link for a changed configuration, which goes on where this one is; `None`: nothing that concerns it has changed.
    pub fn renewed(&self, config: &ConfigWire, state: &State) -> Result<Option<Link>, Reason> {
        let ways = ways(config).after(&self.ways.borrow());
        let same =
            self.pins == config.pin_hashes() && self.credential == config.credential && self.candidates == config.candidates.is_some();
        if same && ways.knows(&self.ways.borrow()) {
            return Ok(None);
        }
        let link = Link::new(config, state, self.way.0, self.way.1)?;
        link.ways.replace(ways);
        link.instance.replace(self.instance.borrow().clone());
        link.contact.set(self.contact.get());
        link.busy.set(self.busy.get());
        Ok(Some(link))
    }

    /// Makes sure of the device's key. Looked for until it is there: one failed read must not leave the device without a proof.
    ///
    /// # Errors
    /// That of the file. A key that is gone or damaged is none: the Director refuses what comes without a proof and says so
    /// too, and the running version goes on.
    fn find_key(&self) -> Result<(), Reason> {
        let Some((public, state)) = self.enrolled.as_ref().filter(|_| self.key.borrow().is_none()) else { return Ok(()) };
        match device_key::of(state, public) {
            Ok(key) => drop(self.key.replace(Some(key))),
            Err(reason) if matches!(&*reason.code, "device_key_missing" | "device_key_damaged") => log::error!("{reason}"),
            Err(reason) => return Err(reason),
        }
        Ok(())
    }

    /// The credential with the proof for one request. The sequence follows the monotonic clock, so that a restarted program
    /// goes on above what the one before it used.
    fn bearer(&self, path: &str, body: &[u8]) -> String {
        let key = self.key.borrow();
        let Some(key) = &*key else { return self.credential.clone() };
        let sequence = (clock::monotonic().as_micros() as u64).max(self.sequence.get() + 1);
        self.sequence.set(sequence);
        format!("{}{SEPARATOR}{}", self.credential, key.prove(path, &self.instance.borrow(), sequence, body))
    }

    /// Sends a report, parked for as long as it says.
    pub fn exchange(&self, path: &str, report: &ReportWire) -> Result<AnswerWire, LinkError> {
        self.asked.set(true);
        let timeout = Duration::from_secs(super::fault::times().answer_s.saturating_add(report.park_s));
        let text = self.post(path, &json::to_string(report), BODY_MAX, timeout)?;
        let answer = json::from_str(&text).map_err(|_| {
            let detail = format!("{}{path}: the answer is not of the agent protocol", self.address());
            LinkError::of(Reason::new("bad_answer", detail))
        })?;
        self.contact.set(Some(clock::monotonic()));
        self.ways.borrow_mut().answered(clock::awake().as_secs(), random::seed());
        Ok(answer)
    }

    /// Sends a document and takes the body of the answer 200, at most `limit` bytes of it.
    pub fn post(&self, path: &str, body: &str, limit: usize, timeout: Duration) -> Result<String, LinkError> {
        self.find_key().map_err(LinkError::of)?;
        let bearer = self.bearer(path, body.as_bytes());
        let reply = self.http.post_json(&format!("{}{path}", self.address()), Some(&bearer), body, limit, timeout)?;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        if reply.status == 200 { Ok(text) } else { Err(self.turned_down(path, reply.status, &text, reply.retry_after_s)) }
    }

    /// The same in the FleetLock protocol.
    #[cfg(feature = "director")]
    pub fn lock(&self, path: &str, body: &str, limit: usize, timeout: Duration) -> Result<String, LinkError> {
        self.http.say_header(crate::wire::fleet_lock::HEADER);
        self.post(path, body, limit, timeout)
    }

    /// An answer other than 200.
    fn turned_down(&self, path: &str, status: u16, text: &str, retry_after_s: Option<u64>) -> LinkError {
        let busy = status == 429 || status >= 500;
        if busy {
            // TLS under the pin has authenticated whoever said this.
            self.contact.set(Some(clock::monotonic()));
            self.busy.set(Some(clock::awake()));
        }
        let said: ErrorWire = json::from_str(text).unwrap_or_default();
        let code = if said.code.is_empty() { "director_error".to_string() } else { said.code };
        if code == "proof_replayed" {
            // The clock of this boot went back: a machine resumed from a snapshot. It is another instance from now on.
            self.instance.replace(hex::encode(&random::bytes::<16>()));
        }
        let detail = format!("{}{path}: {status} {}", self.address(), said.detail);
        LinkError { reason: Reason::received(code, detail), retry_after_s, woken: false, refused: (400..429).contains(&status), busy }
    }

    /// Takes a document, at most `limit` bytes; `query` is not under the proof.
    #[cfg(feature = "director")]
    pub fn document(&self, path: &str, query: &str, limit: usize, timeout: Duration) -> Result<String, LinkError> {
        self.find_key().map_err(LinkError::of)?;
        let url = format!("{}{path}?{query}", self.address());
        let mut answer = self.http.get(&url, Some(&self.bearer(path, b"")), None, limit as u64, timeout)?;
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            match answer.read(&mut piece)? {
                0 => break,
                n => bytes.extend_from_slice(&piece[..n]),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if answer.status == 200 { Ok(text) } else { Err(self.turned_down(path, answer.status, &text, answer.retry_after_s)) }
    }

    /// A file of the mirrored release tree.
    pub fn get(&self, path: &str, from: Option<u64>, limit: u64, timeout: Duration) -> Result<Download, HttpError> {
        if let Err(reason) = self.find_key() {
            log::warn!("{reason}");
        }
        self.http.get(&format!("{}{path}", self.address()), Some(&self.bearer(path, b"")), from, limit, timeout)
    }

    /// The proxy in effect, without its password.
    pub fn proxy(&self) -> Option<String> {
        self.http.proxy_for(self.ways.borrow().address())
    }
}

/// Re-arms the liveness alarm: called in every turn, and while a call waits.
pub fn tick() {
    #[cfg(feature = "director")]
    if is_shared() {
        return super::duties::beat();
    }
    process::alarm(super::fault::times().liveness_s);
    notify::alive();
}

/// Whether another thread of this process re-arms the alarm and speaks to the service manager.
pub fn is_shared() -> bool {
    #[cfg(feature = "director")]
    return super::duties::is_shared();
    #[cfg(not(feature = "director"))]
    false
}

#[cfg(test)]
mod tests;
