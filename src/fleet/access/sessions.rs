//! Sessions: a cookie with 256 random bits, of which only the SHA-256 is kept, and the CSRF token that follows from it.

use miniserde::{Deserialize, Serialize};

use super::{Access, Who};
use crate::core::access::Role;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::director::records::clean;
use crate::director::site::{Site, random_hex};
use crate::director::store::Table;
use crate::io::serve::Request;

/// The cookie's name. A browser takes `__Host-` only from this very host, over HTTPS, for every path: no neighbour can set it.
pub const COOKIE: &str = "__Host-session";
/// Without a request, seconds: somebody's working day.
pub const IDLE_S: u64 = 12 * 3_600;
/// At most, seconds.
pub const LIFE_S: u64 = 7 * 86_400;
/// Of one user: browsers on a few machines. The oldest ends when there is one more.
pub const PER_USER_MAX: usize = 20;
/// Of all: every user's few; a program that logs in again and again ends its own.
pub const SESSIONS_MAX: usize = 5_000;
/// How often the time of the last request reaches the disk, seconds.
const SEEN_EVERY_S: u64 = 60;
/// Longest text of a browser about itself that is kept.
const AGENT_MAX: usize = 160;

/// A session's row; its key is the SHA-256 of the cookie's value.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// The user's name.
    pub user: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Last request, seconds since 1970, within a minute.
    pub seen_at: u64,
    /// Where it began.
    pub ip: String,
    /// What the browser says that it is.
    pub agent: String,
}

/// A session as it is listed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SessionRow {
    /// First digits of its hash.
    pub id: String,
    /// The user's name.
    pub user: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub seen_at: u64,
    /// Seconds since 1970; without a request until then.
    pub expires_at: u64,
    /// Where it began.
    pub ip: String,
    /// What the browser says that it is.
    pub browser: String,
}

/// When a session ends if nothing more is heard.
fn ends(session: &Session) -> u64 {
    session.seen_at.saturating_add(IDLE_S).min(session.created_at.saturating_add(LIFE_S))
}

fn key_of(token: &str) -> String {
    hex::encode(&hex::sha256(token.as_bytes()))
}

/// Follows from the cookie, which no script and no other site can read.
fn csrf_of(token: &str) -> String {
    hex::encode(&hex::sha256(format!("vmetric-csrf:{token}").as_bytes())[..16])
}

/// How it is listed.
fn id_of(key: &str) -> &str {
    &key[..key.len().min(12)]
}

/// The session's token in a request. Two different ones are none: somebody else set one of them.
///
/// # Errors
/// `login_needed`, `cookie_twice`.
pub fn token(request: &Request) -> Result<&str, Reason> {
    let none = || Reason::new("login_needed", "log in first");
    let mut found: Option<&str> = None;
    for header in request.headers.get_all("cookie") {
        for pair in header.to_str().unwrap_or_default().split(';') {
            let Some(value) = pair.trim().strip_prefix(COOKIE).and_then(|rest| rest.strip_prefix('=')) else { continue };
            if found.is_some_and(|before| before != value) {
                return Err(Reason::new("cookie_twice", "the browser sent two sessions; delete this site's cookies and log in again"));
            }
            found = Some(value);
        }
    }
    found.filter(|value| hex::decode::<32>(value).is_some()).ok_or_else(none)
}

/// The header that gives a browser its session.
pub fn cookie(token: &str) -> String {
    format!("{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={LIFE_S}")
}

/// The header that takes it away.
pub fn no_cookie() -> String {
    format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
}

impl Access {
    /// Begins a session; always under a new token, whatever the browser brought. The cookie's value.
    pub fn begin_session(&self, site: &Site, user: &str, request: &Request, now: u64) -> String {
        self.prune_sessions(site, now);
        let oldest = |of: Option<&str>| {
            let sessions = self.sessions.borrow();
            let fits = sessions.iter().filter(|(_, s)| of.is_none_or(|user| s.user == user));
            let (count, oldest) = fits.fold((0, None::<(&String, u64)>), |(n, oldest), (key, s)| {
                (n + 1, if oldest.is_none_or(|(_, at)| s.seen_at < at) { Some((key, s.seen_at)) } else { oldest })
            });
            (count, oldest.map(|(key, _)| key.clone()))
        };
        for (of, most) in [(Some(user), PER_USER_MAX), (None, SESSIONS_MAX)] {
            if let (count, Some(key)) = oldest(of)
                && count >= most
            {
                self.end_session(site, &key);
            }
        }
        let token = random_hex(32);
        let agent = clean(request.header("user-agent").unwrap_or_default(), AGENT_MAX);
        let session = Session { user: user.into(), created_at: now, seen_at: now, ip: super::ip_of(request), agent };
        let key = key_of(&token);
        self.put(site, Table::Sessions, key.clone(), Some(&session));
        self.sessions.borrow_mut().insert(key, session);
        token
    }

    /// Who the request's session belongs to.
    ///
    /// # Errors
    /// `login_needed`, `cookie_twice`, `session_expired`.
    pub fn session(&self, site: &Site, request: &Request, now: u64) -> Result<Who, Reason> {
        let token = token(request)?;
        let key = key_of(token);
        let expired = |why: &str| Reason::new("session_expired", format!("{why}; log in again"));
        let Some(mut session) = self.sessions.borrow().get(&key).cloned() else {
            return Err(expired("this session has ended"));
        };
        if ends(&session) <= now {
            self.end_session(site, &key);
            return Err(expired(&format!("this session was idle for {} h, or began {} days ago", IDLE_S / 3_600, LIFE_S / 86_400)));
        }
        let user = self.user(&session.user).ok().filter(|user| user.disabled_at.is_none());
        let user = user.ok_or_else(|| expired("this user may not log in any more"))?;
        if now.saturating_sub(session.seen_at) >= SEEN_EVERY_S {
            session.seen_at = now;
            self.put(site, Table::Sessions, key.clone(), Some(&session));
            self.sessions.borrow_mut().insert(key.clone(), session);
        }
        Ok(Who { role: user.role(), name: user.name, csrf: csrf_of(token), ip: super::ip_of(request), session: id_of(&key).into() })
    }

    /// The role of whoever a listed session belongs to, without keeping it alive; `None`: it has ended.
    pub fn role_of_session(&self, id: &str, now: u64) -> Option<Role> {
        let sessions = self.sessions.borrow();
        let (_, session) = sessions.iter().find(|(key, s)| id_of(key) == id && ends(s) > now)?;
        self.user(&session.user).ok().filter(|user| user.disabled_at.is_none()).map(|user| user.role())
    }

    /// Ends the session that a request came with, if there is one.
    pub fn leave_session(&self, site: &Site, request: &Request) {
        if let Ok(token) = token(request) {
            self.end_session(site, &key_of(token));
        }
    }

    fn end_session(&self, site: &Site, key: &str) {
        if self.sessions.borrow_mut().remove(key).is_some() {
            self.put(site, Table::Sessions, key.to_string(), None::<&Session>);
        }
    }

    fn end_those(&self, site: &Site, which: impl Fn(&str, &Session) -> bool) -> usize {
        let keys: Vec<String> = self.sessions.borrow().iter().filter(|(key, s)| which(key, s)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.end_session(site, key));
        keys.len()
    }

    /// Ends every session of a user: how many there were.
    pub fn end_sessions_of(&self, site: &Site, user: &str) -> usize {
        self.end_those(site, |_, session| session.user == user)
    }

    /// Ends every session of a user but the one with this listed id: how many there were.
    pub fn end_other_sessions(&self, site: &Site, user: &str, kept: &str) -> usize {
        self.end_those(site, |key, session| session.user == user && id_of(key) != kept)
    }

    /// Ends one by its listed id.
    ///
    /// # Errors
    /// `session_unknown`.
    pub fn revoke_session(&self, site: &Site, id: &str) -> Result<(), Reason> {
        match self.end_those(site, |key, _| id_of(key) == id) {
            0 => Err(Reason::new("session_unknown", "there is no such session; `session list` shows all")),
            _ => Ok(()),
        }
    }

    /// Whose session it is, by its listed id.
    pub fn user_of_session(&self, id: &str) -> Option<String> {
        self.sessions.borrow().iter().find(|(key, _)| id_of(key) == id).map(|(_, session)| session.user.clone())
    }

    /// All that have not ended, newest first.
    pub fn sessions(&self, now: u64) -> Vec<SessionRow> {
        let row = |(key, s): (&String, &Session)| SessionRow {
            id: id_of(key).into(),
            user: s.user.clone(),
            created_at: s.created_at,
            seen_at: s.seen_at,
            expires_at: ends(s),
            ip: s.ip.clone(),
            browser: s.agent.clone(),
        };
        let mut rows: Vec<SessionRow> = self.sessions.borrow().iter().filter(|(_, s)| ends(s) > now).map(row).collect();
        rows.sort_by(|a, b| b.seen_at.cmp(&a.seen_at).then(a.id.cmp(&b.id)));
        rows
    }

    /// Forgets those that have ended.
    pub fn prune_sessions(&self, site: &Site, now: u64) {
        self.end_those(site, |_, session| ends(session) <= now);
    }
}
