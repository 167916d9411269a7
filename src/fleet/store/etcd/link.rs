//! The way to etcd: several servers, one of them at a time, the next one when it fails; logged in when there is a user.
//!
//! Every wait is bounded: a server that is silent is left for the next one, and the whole call ends after [`CALL`]. Certificates
//! and the password are read again from their files when they no longer fit, so that they can be renewed without a restart.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use super::told::{Failed, Then, meaning};
use super::wire;
use crate::core::reason::Reason;
use crate::io::clock;
use crate::io::fs::read_limited;
use crate::io::outbound::{Conn, Endpoint, Incoming, Rules, within};

/// For a connection with its handshake.
const CONNECT: Duration = Duration::from_secs(2);
/// For an answer. etcd itself gives up after 7 s when there is no quorum; another server may still have one.
const ANSWER: Duration = Duration::from_secs(5);
/// For a call with all its servers: an election takes a second or two, a restart a few.
pub const CALL: Duration = Duration::from_secs(20);
/// A connection that was idle for longer is not used again.
const IDLE: Duration = Duration::from_secs(20);
/// Idle connections that are kept.
const IDLE_MAX: usize = 8;
/// Most bytes of an answer: a page of rows in base64.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Pause after all servers have failed, doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Log-ins within one call: one after a token has become stale, and one more if that lands on a server that lags.
const LOGINS_MAX: u32 = 3;
/// Longest password file, bytes.
const PASSWORD_MAX: u64 = 1024;
/// Most servers: etcd clusters have three, five or seven.
pub const ENDPOINTS_MAX: usize = 15;

/// How to reach etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `https://HOST:PORT` each; `http://` on this machine only.
    pub endpoints: Vec<String>,
    /// The CA of its servers, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM.
    pub cert: Option<PathBuf>,
    /// And its key.
    pub key: Option<PathBuf>,
    /// Our name in etcd.
    pub user: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// What all our keys begin with.
    pub prefix: String,
}

/// See the module's text.
pub struct Link {
    settings: Settings,
    endpoints: Vec<Endpoint>,
    /// The server that is asked first.
    at: Cell<usize>,
    rules: RefCell<Rules>,
    /// Empty: etcd does not ask for one.
    token: RefCell<Option<String>>,
    idle: RefCell<Vec<(usize, Conn, Duration)>>,
}

/// Time for a call, and how it has gone so far.
pub struct Tries {
    until: Duration,
    failures: usize,
    refusals: usize,
    logins: u32,
    last: Option<Reason>,
}

impl Link {
    /// Reads the files; connects to nothing yet.
    pub fn new(settings: Settings) -> Result<Link, Reason> {
        let unfit = |why: &str| Reason::new("store_misconfigured", why);
        if settings.endpoints.is_empty() || settings.endpoints.len() > ENDPOINTS_MAX {
            return Err(unfit(&format!("etcd: {} endpoints; 1 to {ENDPOINTS_MAX} are allowed", settings.endpoints.len())));
        }
        let endpoints: Result<Vec<Endpoint>, Reason> = settings.endpoints.iter().map(|text| Endpoint::parse(text)).collect();
        let endpoints = endpoints.map_err(|r| unfit(&format!("etcd: endpoints: {}", r.detail)))?;
        if settings.ca.is_none() && endpoints.iter().any(|e| e.tls) {
            return Err(unfit("etcd: https:// needs `ca`: the file with the CA of its servers"));
        }
        if settings.user.is_some() != settings.password_file.is_some() {
            return Err(unfit("etcd: `user` and `password_file` go together"));
        }
        let rules = RefCell::new(load(&settings)?);
        Ok(Link { settings, endpoints, at: Cell::new(0), rules, token: RefCell::default(), idle: RefCell::default() })
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.endpoints.len()
    }

    /// The server that is asked first.
    pub fn at(&self) -> usize {
        self.at.get()
    }

    /// A server's address.
    pub fn name(&self, at: usize) -> &str {
        self.endpoints.get(at).map_or("", |e| &e.url)
    }

    /// That server has failed: the next one is asked first, if it was this one.
    pub fn leave(&self, at: usize) {
        if self.at.get() == at {
            self.at.set((at + 1) % self.endpoints.len());
        }
    }

    /// Asks what may be asked twice, until a server answers.
    pub async fn ask(&self, path: &str, body: &str) -> Result<Vec<u8>, Reason> {
        let mut tries = Tries::begin();
        loop {
            match self.once(self.at(), path, body, tries.left()).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => self.after(failed, &mut tries).await?,
            }
        }
    }

    /// After a failure of the server that was asked first: either the call is over, or it is time to ask again.
    pub async fn after(&self, failed: Failed, tries: &mut Tries) -> Result<(), Reason> {
        match failed.then {
            Then::Stop => return Err(failed.reason),
            Then::LogIn if tries.logins < LOGINS_MAX => {
                tries.logins += 1;
                *self.token.borrow_mut() = None;
            }
            Then::LogIn => return Err(failed.reason),
            Then::Elsewhere { .. } => {
                self.leave(self.at());
                tries.failures += 1;
                tries.refusals += usize::from(failed.reason.code == "store_refused");
                // What says more is kept: a quorum that is missing rather than the server that is dead for it.
                let says_more = |r: &Reason| r.code == "store_no_quorum" || r.code == "store_refused";
                if says_more(&failed.reason) || !tries.last.as_ref().is_some_and(says_more) {
                    tries.last = Some(failed.reason);
                }
                let rounds = tries.failures / self.servers();
                if tries.failures.is_multiple_of(self.servers()) {
                    let pause = (PAUSE * 2u32.saturating_pow(u32::try_from(rounds).unwrap_or(u32::MAX).min(8))).min(PAUSE_MAX);
                    smol::Timer::after(pause.min(tries.left())).await;
                }
            }
        }
        let refused = tries.refusals > 0 && tries.refusals == tries.failures && tries.refusals >= self.servers();
        match tries.last.take() {
            Some(last) if refused || tries.left().is_zero() => Err(last),
            last => {
                tries.last = last;
                Ok(())
            }
        }
    }

    /// One try at one server, `time` at most.
    pub async fn once(&self, at: usize, path: &str, body: &str, time: Duration) -> Result<Vec<u8>, Failed> {
        let late = || Reason::new("store_unreachable", format!("{}: no answer within {} s", self.name(at), ANSWER.min(time).as_secs()));
        let sent = Cell::new(false);
        let end = clock::monotonic() + ANSWER.min(time);
        let work = async {
            let answer = self.open(at, path, body, &sent).await?;
            let (bytes, conn) = answer.whole(ANSWER_MAX).await.map_err(|r| match r.code == "too_large" {
                true => Failed::stop(unreachable(r)),
                false => Failed::midway(unreachable(r)),
            })?;
            if let Some(conn) = conn {
                self.keep(at, conn);
            }
            Ok(bytes)
        };
        let left = end.saturating_sub(clock::monotonic());
        within(left, work).await.unwrap_or_else(|| Err(if sent.get() { Failed::midway(late()) } else { Failed::before(late()) }))
    }

    /// Sends one request and takes the head of a good answer; the body is the caller's.
    pub async fn open(&self, at: usize, path: &str, body: &str, sent: &Cell<bool>) -> Result<Incoming, Failed> {
        let token = match &self.settings.user {
            None => String::new(),
            Some(user) => self.token(at, user).await?,
        };
        let mut headers = vec![("grpc-metadata-hasleader", "true")];
        if !token.is_empty() {
            headers.push(("authorization", token.as_str()));
        }
        let conn = self.connection(at).await?;
        sent.set(true);
        self.post(at, conn, path, &headers, body).await
    }

    async fn post(&self, at: usize, conn: Conn, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Incoming, Failed> {
        let answer = conn.post(path, headers, body).await.map_err(|reason| {
            self.reload(&reason);
            Failed::midway(unreachable(reason))
        })?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let status = answer.status;
        let (bytes, conn) = answer.whole(ANSWER_MAX).await.map_err(|r| Failed::midway(unreachable(r)))?;
        if let Some(conn) = conn {
            self.keep(at, conn);
        }
        Err(meaning(self.name(at), status, &bytes, self.settings.user.is_some()))
    }

    /// A connection that was kept, if there is one that is not too old.
    fn kept(&self, at: usize) -> Option<Conn> {
        let now = clock::monotonic();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, _, since)| now.saturating_sub(*since) < IDLE);
        let place = idle.iter().position(|(of, ..)| *of == at)?;
        Some(idle.swap_remove(place).1)
    }

    /// A kept connection, or a new one.
    async fn connection(&self, at: usize) -> Result<Conn, Failed> {
        if let Some(conn) = self.kept(at) {
            return Ok(conn);
        }
        let Some(endpoint) = self.endpoints.get(at) else { return Err(Failed::before(wire::strange("etcd", "no such endpoint"))) };
        let rules = self.rules.borrow().clone();
        endpoint.connect(&rules, CONNECT).await.map_err(|reason| {
            self.reload(&reason);
            Failed::before(unreachable(reason))
        })
    }

    fn keep(&self, at: usize, conn: Conn) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push((at, conn, clock::monotonic()));
        }
    }

    /// After TLS has failed: the files may have been renewed.
    fn reload(&self, reason: &Reason) {
        if reason.code != "tls_failed" {
            return;
        }
        self.idle.borrow_mut().clear();
        match load(&self.settings) {
            Ok(rules) => *self.rules.borrow_mut() = rules,
            Err(reason) => log::warn!("etcd's certificates: {reason}"),
        }
    }

    /// The token; logs in when there is none.
    async fn token(&self, at: usize, user: &str) -> Result<String, Failed> {
        if let Some(token) = self.token.borrow().clone() {
            return Ok(token);
        }
        let password = self.password().map_err(Failed::stop)?;
        let conn = self.connection(at).await?;
        let answered = self.post(at, conn, "/v3/auth/authenticate", &[], &wire::login(user, &password)).await;
        let token = match answered {
            Ok(answer) => {
                let (bytes, _) = answer.whole(ANSWER_MAX).await.map_err(|r| Failed::before(unreachable(r)))?;
                let answer: wire::Token = wire::read(self.name(at), &bytes).map_err(Failed::stop)?;
                answer.token.ok_or_else(|| Failed::stop(wire::strange(self.name(at), "no token")))?
            }
            Err(failed) if failed.reason.detail.contains("authentication is not enabled") => String::new(),
            // To log in changes nothing: the request itself has not been sent.
            Err(Failed { reason, then: Then::Elsewhere { .. } }) => return Err(Failed::before(reason)),
            Err(failed) => return Err(failed),
        };
        *self.token.borrow_mut() = Some(token.clone());
        Ok(token)
    }

    fn password(&self) -> Result<String, Reason> {
        let Some(path) = &self.settings.password_file else { return Ok(String::new()) };
        let bad = |why: String| Reason::new("store_misconfigured", format!("password_file {}: {why}", path.display()));
        let bytes = read_limited(path, PASSWORD_MAX).map_err(|e| bad(e.to_string()))?.ok_or_else(|| bad("there is no such file".into()))?;
        let text = String::from_utf8(bytes).map_err(|_| bad("is no text".into()))?;
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() { Err(bad("its first line, the password, is empty".into())) } else { Ok(line.to_string()) }
    }
}

impl Tries {
    /// The time of a call begins.
    pub fn begin() -> Tries {
        Tries { until: clock::monotonic() + CALL, failures: 0, refusals: 0, logins: 0, last: None }
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.until.saturating_sub(clock::monotonic())
    }
}

fn load(settings: &Settings) -> Result<Rules, Reason> {
    let identity = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => Some((cert.as_path(), key.as_path())),
        (None, None) => None,
        _ => return Err(Reason::new("store_misconfigured", "etcd: `cert` and `key` go together")),
    };
    let rules = Rules::load(settings.ca.as_deref(), identity);
    rules.map_err(|r| Reason::new("store_misconfigured", format!("etcd: {}", r.detail)))
}

/// A failure of the way to a server, in the store's words.
fn unreachable(reason: Reason) -> Reason {
    match reason.code.as_ref() {
        "tls_failed" => {
            Reason::new("store_refused", format!("{}; check `ca`, `cert` and `key`, and the names in etcd's certificate", reason.detail))
        }
        "too_large" => Reason::new("store_too_large", reason.detail.clone()),
        "bad_answer" => Reason::new("store_misconfigured", format!("{}; check the endpoint", reason.detail)),
        _ => Reason::new("store_unreachable", reason.detail.clone()),
    }
}
