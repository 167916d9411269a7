//! `user`, `session`, `audit`: the commands of Fleet's administrator about who gets in, and who did what.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::audit::Wanted;
use super::sessions::SessionRow;
use super::users::User;
use super::{Access, by_user};
use crate::core::access::{PASSWORD, Role};
use crate::core::reason::Reason;
use crate::director::admin::{AdminWire, line, status};
use crate::director::args::{Ask, Words};
use crate::director::commands::{reply, store_error};
use crate::director::console::parse;
use crate::director::site::Site;
use crate::director::table::{Table, ago, until, utc};
use crate::io::clock;
use crate::io::fs::read_limited;
use crate::wire::audit::{self, Chain, Head, Row, csv, csv_head};

/// As they travel to the running Fleet.
pub const COMMANDS: [&str; 3] = ["user", "session", "audit"];
/// Rows shown without `--limit`.
const ROWS_SHOWN: u64 = 100;
/// Largest export that is verified: all rows that there can be.
const EXPORT_MAX: u64 = 512 << 20;

/// A user as it is listed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct UserRow {
    /// In lower case.
    pub name: String,
    /// `viewer`, `contributor`, `admin`, `owner`.
    pub role: String,
    /// `active`, `invited`, `disabled`, `no_password`.
    pub state: String,
    /// Sessions that have not ended.
    pub sessions: u64,
    /// Who made this user.
    pub by: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Last login, seconds since 1970.
    pub login_at: Option<u64>,
}

/// All users, and what was made for one of them.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct UsersView {
    /// By name.
    pub users: Vec<UserRow>,
    /// A one-time link; shown once.
    pub link: Option<String>,
    /// Until when it is good, seconds since 1970.
    pub link_until: Option<u64>,
    /// Ids of API tokens that ended with what was changed.
    pub tokens_revoked: Option<Vec<String>>,
    /// Fleet's time.
    pub time: u64,
}

/// All sessions.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SessionsView {
    /// Newest first.
    pub sessions: Vec<SessionRow>,
    /// Fleet's time.
    pub time: u64,
}

/// What a verification found.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct VerifiedView {
    /// Rows that were followed.
    pub rows: u64,
    /// The newest row.
    pub last: u64,
    /// Its hash, to be kept elsewhere.
    pub head: String,
    /// Rows up to this one were removed by age, and the chain says so.
    pub removed: u64,
}

/// Reads the options.
///
/// # Errors
/// Wrong usage, or there is no password to read.
pub fn asks(word: &str, words: &mut Words, request: &mut AdminWire) -> Result<bool, String> {
    match word {
        "user" => user(words, request)?,
        "session" => match words.word()?.as_deref() {
            Some("list") | None => (request.list, request.user) = (Some(true), words.option("--user")?),
            Some("revoke") => {
                request.user = words.option("--user")?;
                request.revoke = words.word()?;
                if request.user.is_some() == request.revoke.is_some() {
                    return Err("session revoke needs the ID that `session list` shows, or --user NAME for all of that user".into());
                }
            }
            _ => return Err("expected `session list` or `session revoke ID | --user NAME`".into()),
        },
        "audit" => audit_asked(words, request)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn user(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    let usage = "expected `user list`, `user add NAME --role R [--link]`, `user role NAME R`, `user password NAME [--link]`, \
                 `user disable|enable|remove NAME`";
    let act = words.word()?.unwrap_or_default();
    if act == "list" {
        request.list = Some(true);
        return Ok(());
    }
    if !matches!(act.as_str(), "add" | "role" | "password" | "disable" | "enable" | "remove") {
        return Err(usage.into());
    }
    let name = words.word()?.ok_or_else(|| format!("user {act} needs the user's NAME"))?;
    request.user = Some(name);
    let link = words.flag("--link");
    match act.as_str() {
        "add" => request.role = Some(role(words.option("--role")?)?),
        "role" => request.role = Some(role(words.word()?)?),
        _ => {}
    }
    if matches!(act.as_str(), "add" | "password") && !link {
        words.end()?;
        request.password = Some(read_password()?);
    }
    request.act = Some(if act == "password" && link { "link".into() } else { act });
    Ok(())
}

fn role(word: Option<String>) -> Result<String, String> {
    let word = word.ok_or_else(|| format!("a role is needed: {}", Role::WORDS.join(", ")))?;
    Role::parse(&word).map(|role| role.word().to_string()).map_err(|reason| reason.detail.clone())
}

fn audit_asked(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    if words.begins("verify") {
        request.act = Some("verify".into());
        request.hash = words.option("--head")?;
        return Ok(());
    }
    request.since_s = words.duration("--since")?;
    (request.user, request.action) = (words.option("--user")?, words.option("--action")?);
    request.limit = words.number("--limit")?;
    if words.flag("--csv") {
        request.format = Some("csv".into());
    }
    Ok(())
}

/// From the terminal without echo, twice; else the first line of standard input. Never an argument: every user of a machine
/// can read those.
fn read_password() -> Result<String, String> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        let mut text = String::new();
        let most = 4 * PASSWORD.1 as u64;
        std::io::Read::take(input.lock(), most).read_line(&mut text).map_err(|e| format!("the password on standard input: {e}"))?;
        let text = text.trim_end_matches(['\r', '\n']).to_string();
        if text.is_empty() {
            return Err("the password is read from standard input, and there is none; or use --link for a one-time link".into());
        }
        return Ok(text);
    }
    let first = ask_silently("Password: ")?;
    if ask_silently("The same again: ")? != first {
        return Err("the two passwords differ; start again".into());
    }
    Ok(first)
}

fn ask_silently(prompt: &str) -> Result<String, String> {
    let stty = |argument: &str| Command::new("stty").arg(argument).stdin(Stdio::inherit()).status().is_ok_and(|status| status.success());
    if !stty("-echo") {
        return Err("the terminal's echo cannot be switched off (stty); give the password on standard input, or use --link".into());
    }
    let mut text = String::new();
    let read = write!(std::io::stderr(), "{prompt}").and_then(|()| std::io::stdin().read_line(&mut text));
    stty("echo");
    eprintln!();
    read.map_err(|e| format!("the terminal: {e}"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_string())
}

/// Answers one.
///
/// # Errors
/// Those of [`super`], `store_unavailable`, `audit_broken`.
pub async fn run(access: &Rc<Access>, site: &Rc<Site>, request: &AdminWire, who: &str, out: &mut UnixStream) -> Result<(), Reason> {
    let now = clock::unix();
    match request.command.as_str() {
        "session" => {
            match (&request.revoke, &request.user) {
                (Some(id), _) => access.revoke_session(site, id)?,
                (None, Some(user)) if request.list != Some(true) => drop(access.end_sessions_of(site, &access.user(user)?.name)),
                _ => {}
            }
            site.store.durable().await.map_err(store_error)?;
            let mut sessions = access.sessions(now);
            sessions.retain(|s| request.list != Some(true) || request.user.as_ref().is_none_or(|user| s.user == *user));
            reply(out, &SessionsView { sessions, time: now }).await
        }
        "audit" => audit_run(access, site, request, out).await,
        _ => {
            let mut view = UsersView { time: now, ..Default::default() };
            if request.list != Some(true) {
                (view.link, view.link_until) = change(access, site, request, who, now).await?.unzip();
                // In the same transaction: nothing was waited for since the change.
                view.tokens_revoked = end_tokens(access, site, request, who, now);
            }
            site.store.durable().await.map_err(store_error)?;
            view.users = rows(access, now);
            reply(out, &view).await
        }
    }
}

fn rows(access: &Access, now: u64) -> Vec<UserRow> {
    let sessions = access.sessions(now);
    let row = |user: User| UserRow {
        state: user.state(now).into(),
        sessions: sessions.iter().filter(|s| s.user == user.name).count() as u64,
        name: user.name,
        role: user.role,
        by: user.by,
        created_at: user.created_at,
        login_at: user.login_at,
    };
    access.users().into_iter().map(row).collect()
}

/// Ends the API tokens that a user made and may no longer have: whoever has left, or is less now, would go on with them. What
/// belongs to the organization (keys, templates, webhooks) stays, and so does what was made at the console.
fn end_tokens(access: &Access, site: &Site, request: &AdminWire, who: &str, now: u64) -> Option<Vec<String>> {
    let name = crate::core::access::user_name(request.user.as_deref()?).ok()?;
    let above = match request.act.as_deref()? {
        "role" => Some(access.user(&name).ok()?.role()),
        "disable" | "remove" => None,
        _ => return None,
    };
    let ended = site.acting(who, |registry| registry.revoke_api_tokens_of(&by_user(&name), above, now));
    site.flush();
    (!ended.is_empty()).then_some(ended)
}

/// Does what is asked; a link and its end, if one was made.
async fn change(access: &Access, site: &Rc<Site>, request: &AdminWire, who: &str, now: u64) -> Result<Option<(String, u64)>, Reason> {
    let name = request.user.as_deref().unwrap_or_default();
    let role = || Role::parse(request.role.as_deref().unwrap_or_default());
    let link = |name: &str| -> Result<_, Reason> {
        let (code, until) = access.invite(site, name, now)?;
        Ok(Some((format!("{}/first?code={code}", site.about.borrow().url), until)))
    };
    match request.act.as_deref().unwrap_or_default() {
        "add" => {
            let (name, role) = (crate::core::access::user_name(name)?, role()?);
            let Some(password) = &request.password else {
                access.add_user(site, &name, role, who, now)?;
                return link(&name);
            };
            let hashed = access.hashed(password, &name).await?;
            access.add_user(site, &name, role, who, now)?;
            access.set_password(site, &name, hashed, now)?;
        }
        "role" => drop(access.set_role(site, name, role()?)?),
        "password" => {
            let name = access.user(name)?.name;
            let hashed = access.hashed(request.password.as_deref().unwrap_or_default(), &name).await?;
            access.set_password(site, &name, hashed, now)?;
        }
        "link" => return link(name),
        "disable" => drop(access.set_disabled(site, name, Some(now))?),
        "enable" => drop(access.set_disabled(site, name, None)?),
        "remove" => drop(access.remove_user(site, name)?),
        _ => return Err(Reason::new("bad_request", "what about the user? add, role, password, link, disable, enable, remove")),
    }
    Ok(None)
}

/// What rows a request wants.
pub fn wanted(request: &AdminWire) -> Wanted {
    Wanted {
        since: request.since_s.map(|s| clock::unix().saturating_sub(s)),
        user: request.user.clone(),
        action: request.action.clone(),
        object: None,
        before: None,
        after: None,
        limit: match (request.limit, &request.format) {
            (Some(limit), _) => usize::try_from(limit).unwrap_or(usize::MAX),
            (None, Some(_)) => usize::MAX,
            (None, None) => ROWS_SHOWN as usize,
        },
    }
}

async fn audit_run(access: &Rc<Access>, site: &Rc<Site>, request: &AdminWire, out: &mut UnixStream) -> Result<(), Reason> {
    let gone = |e: std::io::Error| Reason::new("connection_lost", e.to_string());
    if request.act.as_deref() == Some("verify") {
        let rows = access.audit.verify(site, request.hash.as_deref()).await?;
        let head = access.audit.head();
        return reply(out, &VerifiedView { rows, last: head.last, head: head.head, removed: head.removed }).await;
    }
    let wanted = wanted(request);
    let rows = access.audit.rows(site, &wanted).await?;
    let head = Head { filtered: wanted.filters(), ..access.audit.head() };
    status(out, "ok", "").await.map_err(gone)?;
    line(out, &head).await.map_err(gone)?;
    for row in &rows {
        line(out, row).await.map_err(gone)?;
    }
    Ok(())
}

/// The answers for people.
///
/// # Errors
/// The running Fleet is of another version.
pub fn shown(ask: &Ask, text: &str) -> Result<Option<String>, String> {
    let request = &ask.request;
    Ok(Some(match request.command.as_str() {
        "user" => users(&parse(text)?),
        "session" => sessions(&parse(text)?),
        "audit" if request.act.is_some() => verified(&parse(text)?),
        "audit" => match (text.starts_with("{\"format\":"), request.format.is_some()) {
            (true, true) => csv_head(),
            (true, false) => head(&parse(text)?),
            (false, csv_wanted) => {
                let row: Row = parse(text)?;
                if csv_wanted { csv(&row, &utc(row.time)) } else { audit_line(&row) }
            }
        },
        _ => return Ok(None),
    }))
}

fn users(view: &UsersView) -> String {
    let mut link = view.link.as_ref().map_or(String::new(), |link| {
        format!("{link}\n\ngood once, until {}; whoever opens it chooses the password\n\n", utc(view.link_until.unwrap_or(0)))
    });
    if let Some(ended) = &view.tokens_revoked {
        link += &format!("API tokens that ended with it: {}\n\n", ended.join(" "));
    }
    if view.users.is_empty() {
        return format!("{link}no users; `vmetric-fleet user add NAME --role owner --link` makes one\n");
    }
    let mut table = Table::new(&["USER", "ROLE", "STATE", "SESSIONS", "LAST LOGIN", "MADE", "BY"]);
    for u in &view.users {
        let (login, made) = (ago(view.time, u.login_at.unwrap_or(0)), ago(view.time, u.created_at));
        table.row(vec![u.name.clone(), u.role.clone(), u.state.clone(), u.sessions.to_string(), login, made, u.by.clone()]);
    }
    link + &table.text()
}

fn sessions(view: &SessionsView) -> String {
    if view.sessions.is_empty() {
        return "no sessions\n".into();
    }
    let mut table = Table::new(&["SESSION", "USER", "FROM", "BEGAN", "SEEN", "ENDS", "BROWSER"]);
    for s in &view.sessions {
        let (began, seen) = (ago(view.time, s.created_at), ago(view.time, s.seen_at));
        table.row(vec![s.id.clone(), s.user.clone(), s.ip.clone(), began, seen, until(view.time, s.expires_at), s.browser.clone()]);
    }
    table.text()
}

fn head(head: &Head) -> String {
    let removed = if head.removed > 0 { format!(", rows up to {} were removed by age", head.removed) } else { String::new() };
    format!("{} rows{removed}; head {}\n", head.last, head.head)
}

fn audit_line(row: &Row) -> String {
    let ip = if row.ip.is_empty() { "-" } else { &row.ip };
    let text = format!(
        "{:>6}  {}  {:<20}  {ip:<15}  {:<20}  {:<9}  {}  {}",
        row.n,
        utc(row.time),
        row.user,
        row.action,
        row.object_type,
        row.object,
        row.description
    );
    text.trim_end().to_string() + "\n"
}

fn verified(view: &VerifiedView) -> String {
    let removed = if view.removed > 0 { format!(" (rows up to {} were removed by age)", view.removed) } else { String::new() };
    format!(
        "good: {} rows, the newest is {}{removed}\nhead {}\nkeep it elsewhere: `audit verify --head` compares it later\n",
        view.rows, view.last, view.head
    )
}

/// `audit verify --file EXPORT`: needs no server. `None`: another command.
pub fn local(words: &[String]) -> Option<Result<String, String>> {
    let (first, second) = (words.first()?, words.get(1)?);
    if first != "audit" || second != "verify" || !words.iter().any(|w| w == "--file" || w.starts_with("--file=")) {
        return None;
    }
    let value = |name: &str| {
        let at = words.iter().position(|w| w == name).map(|at| words.get(at + 1).cloned());
        at.unwrap_or_else(|| words.iter().find_map(|w| w.strip_prefix(name)?.strip_prefix('=').map(String::from)))
    };
    let file = value("--file").unwrap_or_default();
    Some(verify_file(Path::new(&file), value("--head").as_deref()).map_err(|reason| format!("{file}: {reason}")))
}

fn verify_file(file: &Path, kept: Option<&str>) -> Result<String, Reason> {
    let unread = |why: String| Reason::new("export_unreadable", why);
    let bytes = read_limited(file, EXPORT_MAX).map_err(|e| unread(e.to_string()))?.ok_or_else(|| unread("there is no such file".into()))?;
    let text = String::from_utf8(bytes).map_err(|_| unread("it is no UTF-8".into()))?;
    let (head, rows) = audit::read(&text)?;
    let filtered = head.as_ref().is_some_and(|head| head.filtered);
    let Some(first) = rows.first() else { return Err(unread("it holds no row".into())) };
    // An export of the newest rows begins somewhere; from there on it is one chain.
    let mut chain = Chain::after(0, "", kept, filtered);
    if let Some(start) = chain.begin_at(first) {
        chain = start;
    }
    rows.iter().try_for_each(|row| chain.take(row))?;
    chain.end()?;
    if let Some(head) = head.filter(|head| !head.filtered && (head.last, &head.head) != (chain.n, &chain.hash)) {
        let why = format!("the export ends at row {}, and its first line says {}: its end was cut off or changed", chain.n, head.last);
        return Err(Reason::new("audit_broken", why));
    }
    let kind = if filtered { "each row by itself, because rows were left out on request" } else { "one chain" };
    Ok(format!("good: rows {} to {}, {} in all, {kind}\nhead {}\n", first.n, chain.n, rows.len(), chain.hash))
}
