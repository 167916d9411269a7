//! Tokens of people and programs that speak with this server over HTTPS: the REST API of Fleet, `/metrics` everywhere. They
//! enroll nothing, and what enrolls a device opens nothing here.
//!
//! A token is shown once and kept as its SHA-256. It has a role, as a person has ([`crate::core::access`]); and it ends: by its
//! date, when it is revoked, and with whoever made it. A token that was made with another one ends with that one, too: else a
//! stolen token would make itself another one, and a person who has left would still get in.
//!
//! | status | code | when |
//! |---|---|---|
//! | 401 | `api_token_missing`, `api_token_unknown`, `api_token_expired`, `api_token_revoked` | with `WWW-Authenticate` |
//! | 403 | `api_role_too_low` | the token's role may not do that |

use std::hint::black_box;
use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::admin::AdminWire;
use super::commands::{reply, store_error};
use super::enroll::token_id;
use super::records::{NAME_MAX, clean};
use super::registry::Registry;
use super::role::Role as Server;
use super::service::throttled;
use super::site::{Site, random_hex};
use super::store::Table;
use super::table::{Table as Text, ago, utc};
use crate::core::access::{Act, Role, permits};
use crate::core::hex;
use crate::core::reason::Reason;
use crate::io::clock;
use crate::io::serve::{Request, Response};

/// Most tokens: people and programs of one organization, each with a name; all are compared at each request.
pub const API_TOKENS_MAX: usize = 200;
/// Life without `--ttl`, seconds: 30 days.
pub const API_TTL_S: u64 = 30 * 86_400;
/// Longest life, seconds: a year, after which somebody should ask whether it is still needed.
pub const API_TTL_MAX_S: u64 = 366 * 86_400;
/// How long an ended token is listed, seconds: 30 days.
const LISTED_S: u64 = 30 * 86_400;

/// A token's row; its key is the token's SHA-256.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ApiToken {
    /// `viewer`, `contributor`, `admin`, `owner`.
    pub role: String,
    /// Who made it.
    pub by: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// Seconds since 1970.
    pub revoked_at: Option<u64>,
}

/// A new token; shown once.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ApiTokenView {
    /// Its text.
    pub token: String,
    /// How it is listed.
    pub id: String,
    /// `viewer`, `contributor`, `admin`, `owner`.
    pub role: String,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// Where it is good.
    pub url: String,
}

/// One token as it is listed.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ApiTokenRow {
    /// First digits of its hash.
    pub id: String,
    /// `viewer`, `contributor`, `admin`, `owner`.
    pub role: String,
    /// `valid`, `expired`, `revoked`.
    pub state: String,
    /// Who made it.
    pub by: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub expires_at: u64,
}

/// All tokens.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ApiTokensView {
    /// Newest first.
    pub tokens: Vec<ApiTokenRow>,
    /// Server's time.
    pub time: u64,
}

fn state_of(token: &ApiToken, now: u64) -> &'static str {
    match token {
        t if t.revoked_at.is_some() => "revoked",
        t if now > t.expires_at => "expired",
        _ => "valid",
    }
}

/// What a later version may have written is the lowest one here.
fn role_of(token: &ApiToken) -> Role {
    Role::parse(&token.role).unwrap_or(Role::Viewer)
}

/// How the activity and the audit log call whoever comes with a token.
pub fn by_token(id: &str) -> String {
    format!("api token {id}")
}

/// Looks at every byte, whatever the first ones say, so that the time tells nothing of where two hashes differ.
pub fn same(a: &str, b: &str) -> bool {
    let differ = a.bytes().zip(b.bytes()).fold(a.len() ^ b.len(), |all, (a, b)| black_box(all | usize::from(a ^ b)));
    differ == 0
}

impl Registry {
    /// Keeps a new token; `text` itself is kept nowhere.
    ///
    /// # Errors
    /// `bad_request`, `too_many_tokens`.
    pub fn create_api_token(&mut self, text: &str, role: &str, ttl_s: u64, now: u64) -> Result<u64, Reason> {
        if Role::parse(role).is_err() || ttl_s == 0 {
            let detail = format!("a token needs a --role ({}), and at least one second of life", Role::WORDS.join(", "));
            return Err(Reason::new("bad_request", detail));
        }
        let over = |t: &ApiToken| t.revoked_at.unwrap_or(t.expires_at).saturating_add(LISTED_S) < now;
        let gone: Vec<String> = self.api_tokens.iter().filter(|(_, t)| over(t)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.api_tokens.remove(&key);
            self.delete(Table::ApiTokens, key);
        }
        if self.api_tokens.len() >= API_TOKENS_MAX {
            let detail = format!("there are {API_TOKENS_MAX} tokens already; wait until some have ended");
            return Err(Reason::new("too_many_tokens", detail));
        }
        let by = self.by.clone().unwrap_or_default();
        let maker = self.api_tokens.iter().find(|(key, _)| by_token(token_id(key)) == by).map(|(_, maker)| maker.expires_at);
        let expires_at = (now + ttl_s.min(API_TTL_MAX_S)).min(maker.unwrap_or(u64::MAX));
        let row = ApiToken { role: role.into(), by, created_at: now, expires_at, revoked_at: None };
        let key = key_of(text);
        self.put(Table::ApiTokens, key.clone(), &row);
        self.event(now, "", "api_token_created", format!("{}: {role}, until {}", token_id(&key), utc(expires_at)), None);
        self.api_tokens.insert(key, row);
        Ok(expires_at)
    }

    /// The id and role of a token that permits this.
    ///
    /// # Errors
    /// The codes of the table above.
    pub fn api_token(&self, text: Option<&str>, need: Act, now: u64) -> Result<(String, Role), Reason> {
        let how = format!("make one with `{}`", self.role.command(&format!("{} create", self.role.api_token)));
        let refuse = |code, why: &str| Err(Reason::new(code, format!("{why}; {how}")));
        let Some(text) = text else {
            return refuse("api_token_missing", "send `Authorization: Bearer TOKEN`");
        };
        let asked = key_of(text);
        // All of them, so that the time does not tell which one it is either.
        let mut found = None;
        for (key, token) in &self.api_tokens {
            if same(key, &asked) {
                found = Some((key, token));
            }
        }
        match found {
            None => refuse("api_token_unknown", "the token is not known here"),
            Some((_, t)) if t.revoked_at.is_some() => refuse("api_token_revoked", "the token was revoked"),
            Some((_, t)) if now > t.expires_at => refuse("api_token_expired", "the token has expired"),
            Some((key, t)) => {
                let role = role_of(t);
                permits(role, need).map_err(|reason| Reason::new("api_role_too_low", format!("this token: {}; {how}", reason.detail)))?;
                Ok((token_id(key).to_string(), role))
            }
        }
    }

    /// The role of a token, by its listed id.
    pub fn api_token_role(&self, id: &str) -> Option<Role> {
        let found = self.api_tokens.iter().find(|(key, _)| token_id(key) == id);
        found.map(|(_, row)| role_of(row))
    }

    /// Takes a token back, at once, and those that were made with it.
    ///
    /// # Errors
    /// `api_token_unknown`.
    pub fn revoke_api_token(&mut self, id: &str, now: u64) -> Result<(), Reason> {
        let Some(key) = self.api_tokens.keys().find(|key| token_id(key) == id).cloned() else {
            return Err(Reason::new("api_token_unknown", format!("there is no token '{}' here", clean(id, NAME_MAX))));
        };
        self.end_api_token(key, now);
        self.revoke_api_tokens_of(&by_token(id), None, now);
        Ok(())
    }

    /// Takes back what somebody made, and what was made with that: all of them, or those that may more than a role. Their ids.
    pub fn revoke_api_tokens_of(&mut self, maker: &str, above: Option<Role>, now: u64) -> Vec<String> {
        let (mut makers, mut ended) = (vec![maker.to_string()], Vec::new());
        while let Some(maker) = makers.pop() {
            let over = |t: &ApiToken| above.is_none_or(|most| role_of(t) > most);
            let made = self.api_tokens.iter().filter(|(_, t)| t.by == maker && t.revoked_at.is_none() && over(t));
            for key in made.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                makers.push(by_token(token_id(&key)));
                ended.push(token_id(&key).to_string());
                self.end_api_token(key, now);
            }
        }
        ended
    }

    fn end_api_token(&mut self, key: String, now: u64) {
        let Some(mut row) = self.api_tokens.get(&key).cloned() else { return };
        row.revoked_at.get_or_insert(now);
        self.put(Table::ApiTokens, key.clone(), &row);
        self.event(now, "", "api_token_revoked", token_id(&key), None);
        self.api_tokens.insert(key, row);
    }

    /// What is shown of every token.
    pub fn api_tokens_view(&self, now: u64) -> ApiTokensView {
        let row = |(key, t): (&String, &ApiToken)| ApiTokenRow {
            id: token_id(key).into(),
            role: t.role.clone(),
            state: state_of(t, now).into(),
            by: t.by.clone(),
            created_at: t.created_at,
            expires_at: t.expires_at,
        };
        let mut tokens: Vec<ApiTokenRow> = self.api_tokens.iter().map(row).collect();
        tokens.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
        ApiTokensView { tokens, time: now }
    }
}

/// Whether a request may be answered: its token, and how often. Guesses cost what wrong enrollments cost.
///
/// # Errors
/// The answer to give instead.
pub fn permit(site: &Site, request: &Request, need: Act) -> Result<(String, Role), Box<Response>> {
    let (address, at) = (request.peer.map(|p| p.ip()), clock::monotonic());
    if let Err(wait_s) = site.throttle.borrow().may_fail(address, at) {
        return Err(Box::new(throttled(wait_s)));
    }
    let found = site.registry.borrow().api_token(request.bearer(), need, clock::unix());
    let (id, role) = found.map_err(|reason| {
        if reason.code == "api_role_too_low" {
            return Box::new(Response::error(403, &reason.code, &*reason.detail));
        }
        site.throttle.borrow_mut().failed(address, at);
        Box::new(Response::error(401, &reason.code, &*reason.detail).with("www-authenticate", "Bearer"))
    })?;
    site.throttle.borrow_mut().take_api(&id, at).map_err(|wait_s| Box::new(throttled(wait_s)))?;
    Ok((id, role))
}

/// `api-token create|list|revoke`.
///
/// # Errors
/// Those of the registry, `store_unavailable`.
pub async fn run(site: &Rc<Site>, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    if request.list == Some(true) || request.revoke.is_some() {
        if let Some(id) = &request.revoke {
            site.acting(who, |registry| registry.revoke_api_token(id, now))?;
            site.flush();
            site.store.durable().await.map_err(store_error)?;
        }
        let view = site.registry.borrow().api_tokens_view(now);
        return reply(out, &view).await;
    }
    let token = format!("vma_{}", random_hex(32));
    let (role, ttl_s) = (request.role.clone().unwrap_or_default(), request.ttl_s.unwrap_or(API_TTL_S));
    let expires_at = site.acting(who, |registry| registry.create_api_token(&token, &role, ttl_s, now))?;
    site.flush();
    site.store.durable().await.map_err(store_error)?;
    let (id, url) = (token_id(&key_of(&token)).to_string(), site.about.borrow().url.clone());
    reply(out, &ApiTokenView { token, id, role, expires_at, url }).await
}

/// A new token, for people.
pub fn made(view: &ApiTokenView) -> String {
    let until = utc(view.expires_at);
    format!("{}\n\n{} until {until}; it is not shown again. Send it to {} as `Authorization: Bearer`\n", view.token, view.role, view.url)
}

/// The list, for people.
pub fn listed(view: &ApiTokensView, role: &Server) -> String {
    if view.tokens.is_empty() {
        return format!("no tokens; `{}` makes one\n", role.command(&format!("{} create", role.api_token)));
    }
    let mut table = Text::new(&["TOKEN", "ROLE", "STATE", "MADE", "BY", "EXPIRES"]);
    for t in &view.tokens {
        let (made, end) = (ago(view.time, t.created_at), utc(t.expires_at));
        table.row(vec![t.id.clone(), t.role.clone(), t.state.clone(), made, t.by.clone(), end]);
    }
    table.text()
}

fn key_of(text: &str) -> String {
    hex::encode(&hex::sha256(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(registry: &Registry, text: &str, need: Act, now: u64) -> String {
        registry.api_token(Some(text), need, now).map_or_else(|r| r.code.to_string(), |_| "ok".into())
    }

    #[test]
    fn a_token_has_a_role_and_an_end() {
        let mut registry = Registry::default();
        assert_eq!(registry.create_api_token("a", "root", 60, 100).unwrap_err().code, "bad_request");
        registry.create_api_token("view", "viewer", 60, 100).unwrap();
        registry.create_api_token("change", "admin", u64::MAX, 100).unwrap();
        assert_eq!(code(&registry, "view", Act::Look, 160), "ok");
        assert_eq!(code(&registry, "view", Act::Remove, 160), "api_role_too_low");
        assert_eq!(code(&registry, "view", Act::Look, 161), "api_token_expired");
        assert_eq!(code(&registry, "change", Act::Remove, 100 + API_TTL_MAX_S), "ok");
        assert_eq!(code(&registry, "change", Act::Remove, 101 + API_TTL_MAX_S), "api_token_expired");
        assert_eq!(code(&registry, "", Act::Look, 100), "api_token_unknown");
        assert_eq!(registry.api_token(None, Act::Look, 100).unwrap_err().code, "api_token_missing");
        let kept: Vec<String> = registry.take_changes().into_iter().map(|c| format!("{} {}", c.key, c.value.unwrap_or_default())).collect();
        assert!(kept.iter().all(|row| !row.contains("change\"") && !row.contains("view\"")), "{kept:?}");
    }

    #[test]
    fn a_revoked_token_is_refused_at_once_and_listed_for_a_while() {
        let mut registry = Registry::default();
        registry.create_api_token("t", "admin", 600, 100).unwrap();
        let (id, role) = registry.api_token(Some("t"), Act::Remove, 100).unwrap();
        assert_eq!((role, registry.api_token_role(&id)), (Role::Admin, Some(Role::Admin)));
        registry.revoke_api_token(&id, 101).unwrap();
        assert_eq!(code(&registry, "t", Act::Look, 101), "api_token_revoked");
        assert_eq!(registry.revoke_api_token("t", 101).unwrap_err().code, "api_token_unknown", "by its id, not by its text");
        assert_eq!(registry.api_tokens_view(102).tokens[0].state, "revoked");
        registry.create_api_token("u", "admin", 600, 102 + LISTED_S).unwrap();
        assert_eq!(registry.api_tokens_view(102).tokens.len(), 1);
    }

    #[test]
    fn a_token_ends_with_the_person_and_with_the_token_that_made_it() {
        let mut registry = Registry::default();
        let mut make = |by: &str, text: &str, role: &str, ttl_s: u64| {
            registry.by = Some(by.into());
            let end = registry.create_api_token(text, role, ttl_s, 100).unwrap();
            registry.by = None;
            (token_id(&key_of(text)).to_string(), end)
        };
        let (first, _) = make("user anna", "first", "admin", 1_000);
        let (second, end) = make(&by_token(&first), "second", "admin", 9_000);
        assert_eq!(end, 1_100, "nothing outlives what it was made with");
        make(&by_token(&second), "third", "viewer", 10);
        make("user anna", "look", "viewer", 1_000);
        make("uid 0", "console", "admin", 1_000);
        make("user ann", "other", "admin", 1_000);
        assert_eq!(registry.revoke_api_tokens_of("user anna", Some(Role::Viewer), 101).len(), 2, "what may more than she may now");
        let state = |registry: &Registry, text: &str| code(registry, text, Act::Look, 101);
        assert_eq!(["first", "second"].map(|t| state(&registry, t)), ["api_token_revoked", "api_token_revoked"]);
        assert_eq!(["third", "look", "console", "other"].map(|t| state(&registry, t)), ["ok"; 4]);
        registry.revoke_api_token(&second, 101).unwrap();
        assert_eq!(state(&registry, "third"), "api_token_revoked");
        assert_eq!(registry.revoke_api_tokens_of("user anna", None, 101).len(), 1);
        assert_eq!(["look", "console", "other"].map(|t| state(&registry, t)), ["api_token_revoked", "ok", "ok"]);
    }

    #[test]
    fn hashes_are_compared_whole() {
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab") && !same("ab", "abc") && !same("xbc", "abc"));
    }
}
