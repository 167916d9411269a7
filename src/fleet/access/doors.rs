//! The paths that need no session: `/login`, `/logout`, `/first`.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use super::audit::Entry;
use super::password::Hashed;
use super::users::Invited;
use super::{Access, CSRF, redirect, same_site, sessions};
use crate::core::access::{self, Role, local_path};
use crate::core::reason::Reason;
use crate::director::api_tokens::same;
use crate::director::service::{now as ready, wrong_method};
use crate::director::site::Site;
use crate::fleet::form::Form;
use crate::fleet::gui::pages::entry as pages;
use crate::io::clock;
use crate::io::serve::{Answer, Request, Response};

/// Longest body of these forms.
const BODY_MAX: usize = 8 << 10;
/// Longest password that is looked at: beyond it nothing is right, and hashing it would cost.
const TYPED_MAX: usize = 4 * access::PASSWORD.1;

/// The login page.
#[derive(Clone, Debug, Default)]
pub struct LoginPage {
    /// What was typed.
    pub name: String,
    /// Where to go then.
    pub next: String,
    /// Why it was refused.
    pub error: Option<Reason>,
}

/// The page where a password is chosen.
#[derive(Clone, Debug, Default)]
pub struct FirstPage {
    /// The one-time link's code.
    pub code: String,
    /// Whose password; empty = the first owner, who chooses a name, too.
    pub user: String,
    /// What was typed.
    pub name: String,
    /// Why it was refused; its field is [`field_of`].
    pub error: Option<Reason>,
}

/// The form's field that a refusal is about; `None`: the whole form.
pub fn field_of(reason: &Reason) -> Option<&'static str> {
    match reason.code.as_ref() {
        "name_invalid" | "user_exists" => Some("name"),
        "password_weak" => Some("password"),
        "password_differs" => Some("again"),
        _ => None,
    }
}

/// Longest body, if the path is one of these.
pub fn body_limit(path: &str) -> Option<usize> {
    matches!(path, "/login" | "/logout" | "/first").then_some(BODY_MAX)
}

/// Answers a request, if its path is one of these.
pub fn call(access: &Rc<Access>, site: &Rc<Site>, request: &Request) -> Option<Answer> {
    let get = matches!(request.method.as_str(), "GET" | "HEAD");
    let post = request.method == "POST";
    Some(match request.path.as_str() {
        "/login" if get => ready(show_login(access, site, request)),
        "/first" if get => ready(show_first(access, request)),
        "/login" if post => Box::pin(login(access.clone(), site.clone(), begin(request))),
        "/first" if post => Box::pin(first(access.clone(), site.clone(), begin(request))),
        "/logout" if post => ready(logout(access, site, request)),
        "/logout" => ready(wrong_method("POST")),
        "/login" | "/first" => ready(wrong_method("GET, HEAD, POST")),
        _ => return None,
    })
}

/// What outlives the request's borrow.
struct Begun {
    form: Result<Form, Reason>,
    address: IpAddr,
    request: Request,
}

fn begin(request: &Request) -> Begun {
    let form = same_site(request).and_then(|()| Form::of(request));
    let address = request.peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let (method, path, headers) = (request.method.clone(), request.path.clone(), request.headers.clone());
    let request = Request { method, path, query: None, headers, body: Vec::new(), peer: request.peer, known: Default::default() };
    Begun { form, address, request }
}

fn next_of(form: &Form) -> String {
    match local_path(form.get("next").unwrap_or_default()) {
        "/" => String::new(),
        next => next.to_string(),
    }
}

fn show_login(access: &Rc<Access>, site: &Rc<Site>, request: &Request) -> Response {
    let next = Form::query(request).map(|form| next_of(&form)).unwrap_or_default();
    // Who is in need not log in.
    if access.session(site, request, clock::unix()).is_ok() {
        return redirect(local_path(&next));
    }
    pages::login(200, &LoginPage { next, ..Default::default() })
}

fn show_first(access: &Rc<Access>, request: &Request) -> Response {
    let code = Form::query(request).ok().and_then(|form| form.get("code").map(String::from)).unwrap_or_default();
    match access.invited(&code, clock::unix()) {
        Err(reason) => pages::first(410, &FirstPage { error: Some(reason), ..Default::default() }),
        Ok(invited) => pages::first(200, &FirstPage { user: name_of(&invited), code, ..Default::default() }),
    }
}

fn name_of(invited: &Invited) -> String {
    match invited {
        Invited::FirstOwner => String::new(),
        Invited::User(name) => name.clone(),
    }
}

/// The status of a refusal.
fn status(reason: &Reason) -> u16 {
    match reason.code.as_ref() {
        "login_throttled" | "login_busy" => 429,
        "cross_site" => 403,
        "form_invalid" => 400,
        "store_unavailable" => 503,
        "link_invalid" => 410,
        "login_wrong" => 401,
        _ => 422,
    }
}

async fn login(access: Rc<Access>, site: Rc<Site>, begun: Begun) -> Response {
    let form = match &begun.form {
        Ok(form) => form.clone(),
        Err(reason) => return pages::login(status(reason), &LoginPage { error: Some(reason.clone()), ..Default::default() }),
    };
    let (name, next) = (form.get("name").unwrap_or_default().trim().to_string(), next_of(&form));
    let password = form.get("password").unwrap_or_default().to_string();
    match access.log_in(&site, &name, password, &begun).await {
        Ok(token) => {
            let response = redirect(local_path(&next)).with("set-cookie", sessions::cookie(&token));
            durable(&site, response).await
        }
        Err((reason, wait)) => {
            let name = access::user_name(&name).unwrap_or_default();
            let response = pages::login(status(&reason), &LoginPage { name, next, error: Some(reason) });
            match wait {
                Some(wait) => response.with("retry-after", wait.as_secs().max(1).to_string()),
                None => response,
            }
        }
    }
}

/// The answer, once what it promises is on the disk.
async fn durable(site: &Rc<Site>, response: Response) -> Response {
    match site.store.durable().await {
        Ok(()) => response,
        Err(e) => crate::director::service::unavailable(&e),
    }
}

/// A name that nobody has may be a password that somebody typed into the wrong field: it is not kept.
fn login_row(name: &str, known: bool, begun: &Begun, action: &str, description: &str) -> Entry {
    let object = if known { name.to_string() } else { String::new() };
    Entry {
        user: if action == "LoginFailed" { String::new() } else { format!("user {object}") },
        ip: super::ip_of(&begun.request),
        object_type: "User".into(),
        object,
        action: action.into(),
        description: if known { description.into() } else { format!("{description} (a name that is not here)") },
    }
}

impl Access {
    /// The cookie's value of a new session; or why not, and how long to wait.
    async fn log_in(&self, site: &Rc<Site>, name: &str, password: String, begun: &Begun) -> Result<String, (Reason, Option<Duration>)> {
        // A name that cannot be is one that nobody has: the same work, the same words.
        let name = access::user_name(name).unwrap_or_default();
        let found = self.user(&name).ok().filter(|user| user.disabled_at.is_none());
        if let Err(wait) = self.tries.borrow_mut().begin(&name, begun.address, clock::monotonic()) {
            let until = crate::director::table::utc(clock::unix() + wait.as_secs() + 1);
            let what = "not looked at: too many wrong tries";
            self.audit.note_failed_login(site, login_row(&name, self.user(&name).is_ok(), begun, "LoginFailed", what));
            let detail = format!("too many wrong tries with this name or from this address; the next one is possible at {until}");
            return Err((Reason::new("login_throttled", detail), Some(wait)));
        }
        let kept = found.as_ref().and_then(|user| user.password.clone()).unwrap_or_else(Hashed::nobody);
        let right = match self.fits(kept, password).await {
            Ok(right) => right,
            Err(reason) => {
                self.tries.borrow_mut().right(&name, begun.address);
                return Err((reason, Some(Duration::from_secs(5))));
            }
        };
        // Looked at again: hashing took its time.
        let user = self.user(&name).ok().filter(|user| right && user.disabled_at.is_none());
        let Some(mut user) = user else {
            self.audit.note_failed_login(
                site,
                login_row(&name, self.user(&name).is_ok(), begun, "LoginFailed", "the name or the password is wrong"),
            );
            return Err((Reason::new("login_wrong", "the name or the password is wrong"), None));
        };
        self.tries.borrow_mut().right(&name, begun.address);
        let now = clock::unix();
        user.login_at = Some(now);
        self.keep_user(site, user);
        // What the browser brought is not what it leaves with.
        self.leave_session(site, &begun.request);
        self.audit.note(site, login_row(&name, true, begun, "LoginSuccess", ""));
        Ok(self.begin_session(site, &name, &begun.request, now))
    }

    pub(super) async fn fits(&self, kept: Hashed, mut password: String) -> Result<bool, Reason> {
        if password.len() > TYPED_MAX {
            password = "\0".into();
        }
        self.bench.work(move || kept.fits(password.as_bytes())).await
    }

    /// A password's hash, made off the server's thread.
    ///
    /// # Errors
    /// `password_weak`, `login_busy`.
    pub async fn hashed(&self, password: &str, name: &str) -> Result<Hashed, Reason> {
        access::password(password, name)?;
        let password = password.to_string();
        self.bench.work(move || Hashed::new(password.as_bytes())).await
    }

    /// Uses a one-time link: the name of whoever has a password now.
    async fn use_link(&self, site: &Rc<Site>, form: &Form, begun: &Begun) -> Result<String, Reason> {
        let code = form.get("code").unwrap_or_default().to_string();
        let (password, again) = (form.get("password").unwrap_or_default(), form.get("again").unwrap_or_default());
        let invited = self.invited(&code, clock::unix())?;
        let name = match &invited {
            Invited::User(name) => name.clone(),
            Invited::FirstOwner => access::user_name(form.get("name").unwrap_or_default())?,
        };
        access::password(password, &name)?;
        if password != again {
            return Err(Reason::new("password_differs", "this is not the same password again"));
        }
        let hashed = self.hashed(password, &name).await?;
        let now = clock::unix();
        // Once only, although two of them may have been hashed at the same time.
        if self.invited(&code, now)? != invited {
            return Err(Reason::new("link_invalid", "this link has been used meanwhile"));
        }
        if invited == Invited::FirstOwner {
            // A user of that name may be there who never chose a password, or is no owner.
            if self.user(&name).is_err() {
                self.add_user(site, &name, Role::Owner, "the first owner's link", now)?;
            } else {
                self.set_role(site, &name, Role::Owner)?;
                self.set_disabled(site, &name, None)?;
            }
            *self.first.borrow_mut() = None;
        }
        let mut user = self.set_password(site, &name, hashed, now)?;
        // A session begins with it.
        user.login_at = Some(now);
        self.keep_user(site, user);
        self.audit.note(site, login_row(&name, true, begun, "UseLink", "chose a password with a one-time link"));
        Ok(name)
    }
}

async fn first(access: Rc<Access>, site: Rc<Site>, begun: Begun) -> Response {
    let used = match &begun.form {
        Ok(form) => access.use_link(&site, form, &begun).await,
        Err(reason) => Err(reason.clone()),
    };
    match used {
        Ok(name) => {
            access.leave_session(&site, &begun.request);
            let token = access.begin_session(&site, &name, &begun.request, clock::unix());
            durable(&site, redirect("/").with("set-cookie", sessions::cookie(&token))).await
        }
        Err(reason) => {
            let form = begun.form.unwrap_or_default();
            let field = |name: &str| form.get(name).unwrap_or_default().to_string();
            let user = access.invited(&field("code"), clock::unix()).map(|invited| name_of(&invited)).unwrap_or_default();
            pages::first(status(&reason), &FirstPage { code: field("code"), user, name: field("name"), error: Some(reason) })
        }
    }
}

/// Ends the session, if the form is of this session: nobody else shall log somebody out.
fn logout(access: &Rc<Access>, site: &Rc<Site>, request: &Request) -> Response {
    let form = same_site(request).and_then(|()| Form::of(request));
    let form = match form {
        Ok(form) => form,
        Err(reason) => return Response::error(status(&reason), &reason.code, &*reason.detail),
    };
    if let Ok(who) = access.session(site, request, clock::unix()) {
        if !form.get(CSRF).is_some_and(|token| same(token, &who.csrf)) {
            return Response::error(403, "form_expired", "the form is of an earlier session; log out from a fresh page");
        }
        access.leave_session(site, request);
        let (user, ip, object) = (who.by(), who.ip, who.name);
        access.audit.note(site, Entry { user, ip, object_type: "User".into(), object, action: "Logout".into(), ..Default::default() });
    }
    redirect("/login").with("set-cookie", sessions::no_cookie())
}
