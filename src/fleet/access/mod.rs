//! Who gets in, at Fleet: users, sessions, one-time links. Roles and what they may do are [`crate::core::access`].
//!
//! ```text
//!  console: one-time link -> /first -> the first owner -> more users
//!  /login: name, password -> throttle -> argon2id -> session cookie -> who() -> permits(role, act)
//!  POST of a page: who() looks where it comes from, check_form() at its CSRF token
//! ```
//!
//! | code | when |
//! |---|---|
//! | `login_needed`, `session_expired`, `cookie_twice` | there is no session: [`login_first`] leads to the login and back |
//! | `cross_site` | a form that another site sent |
//! | `form_expired` | the form's CSRF token is not this session's |
//! | `login_wrong`, `login_throttled`, `login_busy` | name or password is wrong; too many tries; too many at once |
//! | `link_invalid`, `name_invalid`, `password_weak`, `password_differs` | choosing a password |
//! | `user_exists`, `user_unknown`, `users_full`, `last_owner`, `user_disabled`, `session_unknown` | managing users |

pub mod audit;
pub mod command;
pub mod door;
pub mod doors;
pub mod own;
pub mod password;
pub mod rules;
pub mod sessions;
pub mod throttle;
pub mod users;

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Serialize, json};

use self::audit::{Audit, Entry};
use self::door::Caller;
use self::password::Bench;
use self::sessions::Session;
use self::throttle::Tries;
use self::users::{Link, User};
use super::extra::FleetExtra;
use super::form::Form;
use crate::core::access::{Act, Role, local_path};
use crate::core::reason::Reason;
use crate::director::api_tokens::same;
use crate::director::site::Site;
use crate::director::store::{Change, Table};
use crate::io::clock;
use crate::io::serve::{Request, Response};

/// Field of every form with a session: its CSRF token.
pub const CSRF: &str = "csrf";

/// Somebody with a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The user's name.
    pub name: String,
    /// What he is, now.
    pub role: Role,
    /// What every form of this session has to hold.
    pub csrf: String,
    /// Where the request came from.
    pub ip: String,
    /// The session's listed id.
    pub session: String,
}

impl Who {
    /// How the activity calls him.
    pub fn by(&self) -> String {
        by_user(&self.name)
    }
}

/// How the activity and the audit log call a user.
pub fn by_user(name: &str) -> String {
    format!("user {name}")
}

/// All of it, in memory; the store has the same.
#[derive(Default)]
pub struct Access {
    users: RefCell<BTreeMap<String, User>>,
    sessions: RefCell<BTreeMap<String, Session>>,
    first: RefCell<Option<Link>>,
    tries: RefCell<Tries>,
    bench: Bench,
    /// What people did.
    pub audit: Audit,
    /// Refusals by role that have a row already, with the time of it; memory only.
    denied: RefCell<BTreeMap<(String, String), u64>>,
}

/// A refusal by role has a row once in so many seconds: a page that loads again and again has one.
const DENIED_EVERY_S: u64 = 300;
/// Of so many different ones.
const DENIED_MAX: usize = 1_000;
/// How often old rows and sessions are removed.
const HOUSEKEEPING: Duration = Duration::from_secs(3_600);

impl Access {
    /// Reads the rows; prints the first owner's link while there is none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(&self, site: &Site) -> Result<(), String> {
        self.audit.start(&site.store)?;
        *self.users.borrow_mut() = site.store.load::<User>(Table::Users)?.into_iter().collect();
        *self.sessions.borrow_mut() = site.store.load::<Session>(Table::Sessions)?.into_iter().collect();
        let now = clock::unix();
        self.prune_sessions(site, now);
        if let Some(code) = self.first_link(now) {
            let url = site.about.borrow().url.clone();
            log::info!("no owner yet; open {url}/first?code={code} within an hour to become the first one");
        }
        Ok(())
    }

    /// Notes what somebody's role did not permit.
    pub fn note_denied(&self, site: &Site, caller: &Caller, what: &str, act: Act) {
        let now = clock::unix();
        let mut denied = self.denied.borrow_mut();
        denied.retain(|_, at| now.saturating_sub(*at) < DENIED_EVERY_S);
        if denied.len() >= DENIED_MAX || denied.insert((caller.by.clone(), what.to_string()), now).is_some() {
            return;
        }
        let description = format!("a {} is not allowed {}", caller.role, act.words());
        let (user, ip, object) = (caller.by.clone(), caller.ip.clone(), what.to_string());
        self.audit.note(site, Entry { user, ip, object_type: "Access".into(), object, action: "AccessDenied".into(), description });
    }

    /// Removes what is too old, as long as the server runs.
    pub async fn keep_house(self: Rc<Self>, site: Rc<Site>) {
        loop {
            let now = clock::unix();
            self.prune_sessions(&site, now);
            if let Err(reason) = self.audit.prune(&site, now).await {
                log::warn!("the audit log: {reason}");
            }
            smol::Timer::after(HOUSEKEEPING).await;
        }
    }

    fn put(&self, site: &Site, table: Table, key: String, value: Option<&impl Serialize>) {
        site.store.queue(vec![Change { table, key, value: value.map(json::to_string) }]);
    }
}

/// Fleet's access.
///
/// # Errors
/// `not_ready`: this server has none.
pub fn of(site: &Site) -> Result<Rc<Access>, Reason> {
    let extra = site.extra.borrow().clone();
    let found = extra.as_deref().and_then(|extra| {
        let any: &dyn Any = extra;
        any.downcast_ref::<FleetExtra>().map(|fleet| fleet.access.clone())
    });
    found.ok_or_else(|| Reason::new("not_ready", "there are no users here"))
}

/// Who asks, by the session's cookie. What changes something has to come from a page of this server, too.
///
/// # Errors
/// `login_needed`, `session_expired`, `cookie_twice`, `cross_site`.
pub fn who(site: &Rc<Site>, request: &Request) -> Result<Who, Reason> {
    same_site(request)?;
    of(site)?.session(site, request, clock::unix())
}

/// Whether a form was made for this session.
///
/// # Errors
/// `form_expired`: show the page again with what was typed and the present token.
pub fn check_form(who: &Who, form: &Form) -> Result<(), Reason> {
    if form.get(CSRF).is_some_and(|token| same(token, &who.csrf)) {
        return Ok(());
    }
    Err(Reason::new("form_expired", "the form is of an earlier session; look at it again and send it once more"))
}

/// Whether a browser sent this from one of our pages. A program that is no browser says nothing of that, and has no cookie
/// that somebody else could use.
///
/// # Errors
/// `cross_site`.
pub fn same_site(request: &Request) -> Result<(), Reason> {
    if matches!(request.method.as_str(), "GET" | "HEAD") {
        return Ok(());
    }
    let refuse = || Err(Reason::new("cross_site", "another site sent this form; open the page here and send it yourself"));
    match (request.header("sec-fetch-site"), request.header("origin")) {
        (Some(site), _) if !matches!(site, "same-origin" | "none") => refuse(),
        (_, Some(origin)) if request.header("host").is_none_or(|host| origin != format!("https://{host}")) => refuse(),
        _ => Ok(()),
    }
}

/// Leads to the login, and from there back to the page that was asked for; after a form, to the page that it stood on.
pub fn login_first(request: &Request) -> Response {
    let query = request.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
    let next = match request.method.as_str() {
        "GET" | "HEAD" => format!("{}{query}", request.path),
        _ => page_of_form(request).unwrap_or_default(),
    };
    let to = match local_path(&next) {
        "/" => "/login".to_string(),
        next => format!("/login?next={}", encoded(next)),
    };
    redirect(&to)
}

/// The page of this server that a form was sent from, as the browser says.
fn page_of_form(request: &Request) -> Option<String> {
    let (host, referer) = (request.header("host")?, request.header("referer")?);
    let page = referer.strip_prefix("https://")?.strip_prefix(host)?;
    page.starts_with('/').then(|| page.to_string())
}

/// A path of this server to go to next, by `GET`.
pub fn redirect(to: &str) -> Response {
    Response::empty(303).with("location", to).with("cache-control", "no-store")
}

/// A text as a value in a path's query.
pub fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'/');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Where a request came from, as text.
pub fn ip_of(request: &Request) -> String {
    request.peer.map_or(String::new(), |peer| peer.ip().to_canonical().to_string())
}

#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod tests;
