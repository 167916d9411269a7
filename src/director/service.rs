//! The HTTPS side: routes, credentials, reports, polls, files. The protocol is [`crate::wire::agent_api`]; first installs
//! are [`super::dl`].
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `bad_request`, `protocol_unknown` | the body is not what the path wants |
//! | 401 | those of [`super::caller`], `agent_removed` | who is that |
//! | 401 | `token_unknown`, `token_other_site`, `proof_invalid` | enrollment |
//! | 403 | `wrong_program`, `token_expired`, `token_used_up`, `token_revoked`, `serial_*`, `approval_*`, `agent_mismatch` | known, but not allowed |
//! | 404 | `not_found` | no such path, or not in the mirror |
//! | 405 | `method_not_allowed` | |
//! | 409 | `identity_in_use` | another device speaks with this identity |
//! | 429 | `throttled`, `downloads_busy` | with `Retry-After` |
//! | 503 | `file_not_here` | listed, and not fetched yet; with `Retry-After` |
//! | 503 | `store_unavailable`, `stopping`, `not_ready`, `mirror_checking`, `site_full`, `identity_checking` | with `Retry-After`; nothing was promised |

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use miniserde::json;

use super::caller::{Caller, caller, tell_ca, vouch};
use super::dl;
use super::members::tell_members;
use super::metering;
use super::progress::{must_be_durable, says_something};
use super::records::{NAME_MAX, clean};
use super::refresh::{self, not_here};
use super::site::{Site, Wake, random_hex};
use super::tree;
use crate::core::first_boot::token_site;
use crate::core::identity::CALL_S;
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::io::clock;
use crate::io::serve::{Answer, Request, Response, Service};
use crate::wire::agent_api::{APPROVAL_PENDING, AnswerWire, BODY_MAX, EnrollWire, EnrolledWire, PARK_MAX_S, PROTOCOL, ReportWire};

/// The Director as a [`Service`].
pub struct Front(pub Rc<Site>);

impl Service for Front {
    fn turned_away(&self, peer: SocketAddr, code: &'static str) {
        let mut registry = self.0.registry.borrow_mut();
        registry.stranger("connection_refused", &Reason::new(code, why_turned_away(code)), &peer.to_string(), clock::unix());
        drop(registry);
        self.0.flush();
    }

    fn body_limit(&self, method: &str, path: &str) -> usize {
        if method == "POST" && path.starts_with("/agent/v1/") {
            return BODY_MAX;
        }
        #[cfg(unix)]
        if let Some(limit) = self.0.extra.borrow().as_ref().and_then(|extra| extra.body_limit(method, path)) {
            return limit;
        }
        #[cfg(unix)]
        if let Some(limit) = super::cluster::body_limit(method, path).filter(|_| self.0.role.configured) {
            return limit;
        }
        0
    }

    fn call(&self, request: Request) -> Answer {
        let site = self.0.clone();
        let (method, path) = (request.method.as_str(), request.path.as_str());
        match (method, path) {
            ("POST", "/agent/v1/enroll") => enroll(site, &request),
            ("POST", "/agent/v1/report") => report(site, &request, false),
            ("POST", "/agent/v1/poll") => report(site, &request, true),
            ("GET" | "HEAD", "/healthz") => now(Response::text(200, "ok\n")),
            ("GET" | "HEAD", "/readyz") => now(ready(&site)),
            ("GET" | "HEAD", _) if path.starts_with("/release/") => match asked_for(&site, &request) {
                Some(artifact) => Box::pin(brought(site, request, artifact, release)),
                None => release(&site, &request),
            },
            ("GET" | "HEAD", _) if path.starts_with("/dl/") => match dl::answer(&site, &request) {
                dl::Given::Away(artifact) => Box::pin(brought(site, request, *artifact, install)),
                dl::Given::Answer(answer) => given(&site, &request, answer),
            },
            (_, "/agent/v1/enroll" | "/agent/v1/report" | "/agent/v1/poll") => now(wrong_method("POST")),
            #[cfg(unix)]
            ("GET" | "HEAD", "/metrics") => now(metrics(&site, &request)),
            (_, "/metrics") => now(wrong_method("GET, HEAD")),
            (_, "/healthz" | "/readyz") => now(wrong_method("GET, HEAD")),
            _ => other(&site, &request),
        }
    }
}

/// What only this role has.
fn other(site: &Rc<Site>, request: &Request) -> Answer {
    #[cfg(unix)]
    let extra = site.extra.borrow().clone();
    #[cfg(unix)]
    if let Some(answer) = extra.and_then(|extra| extra.call(site, request)) {
        return answer;
    }
    #[cfg(unix)]
    if let Some(answer) = Some(()).filter(|()| site.role.configured).and_then(|()| super::cluster::call(site, request)) {
        return answer;
    }
    let _ = (site, request);
    now(Response::error(404, "not_found", "there is nothing here"))
}

/// What is told of a peer whose request never came to an answer of ours.
fn why_turned_away(code: &str) -> &'static str {
    match code {
        "plain_http" => "it spoke plain HTTP to the HTTPS port and was told to use https://",
        "handshake_failed" => "no TLS handshake: garbage, a protocol that is not spoken here, or a client with another site's pin",
        "handshake_slow" | "arrival_slow" => "its handshake and first request took too long",
        "too_many_strangers" => "its address has too many connections without a credential; further ones are closed at once",
        "connections_full" => "all connections are taken; raise the limit of open files (LimitNOFILE=)",
        "body_too_large" => "its body was longer than the path permits",
        "headers_too_large" => "its headers were longer than permitted",
        "request_too_slow" => "its request did not arrive in time",
        _ => "it sent something that is no acceptable HTTP request",
    }
}

pub(crate) fn now(response: Response) -> Answer {
    Box::pin(std::future::ready(response))
}

pub(crate) fn wrong_method(allowed: &'static str) -> Response {
    Response::error(405, "method_not_allowed", format!("only {allowed} here")).with("allow", allowed)
}

fn ready(site: &Site) -> Response {
    if site.stopping.get() || site.draining.get() {
        return Response::error(503, "stopping", "this server stops").with("retry-after", "5");
    }
    if site.tree.borrow().checking {
        return not_checked();
    }
    if site.tree.borrow().timestamp_version == 0 {
        return Response::error(503, "not_ready", "no release tree has been mirrored yet").with("retry-after", "5");
    }
    Response::text(200, "ready\n")
}

/// To who wants a file that is verified in a moment.
pub(crate) fn not_checked() -> Response {
    plain(503, &refresh::checking()).with("retry-after", retry_after(refresh::CHECKING_RETRY_S))
}

/// What Prometheus gathers.
#[cfg(unix)]
fn metrics(site: &Rc<Site>, request: &Request) -> Response {
    use super::{api_tokens, metrics};
    if let Err(response) = api_tokens::permit(site, request, crate::core::access::Act::Look) {
        return *response;
    }
    let mut page = metrics::page(site);
    if let Some(extra) = site.extra.borrow().as_ref() {
        extra.metrics(site, &mut page);
    }
    Response::of(200, metrics::CONTENT_TYPE, page.text().into_bytes())
}

/// Seconds to wait, spread so that those who were refused together do not come back together.
pub fn retry_after(base_s: u64) -> String {
    let mut byte = [0];
    // Without a random source everybody comes back at the same time; nothing worse.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    (base_s + u64::from(byte[0]) * 2 * base_s / 255).to_string()
}

/// An answer to who asks too often.
pub fn throttled(base_s: u64) -> Response {
    Response::error(429, "throttled", "too many requests; wait as long as Retry-After says").with("retry-after", retry_after(base_s))
}

/// An answer that would promise what is not durable.
pub(crate) fn unavailable(error: &str) -> Response {
    log::warn!("an answer was withheld: {error}");
    Response::error(503, "store_unavailable", "the server cannot write its state; nothing was taken; try again")
        .with("retry-after", retry_after(5))
}

/// Seconds before somebody comes back who is not let in: until a person has done something.
const REFUSED_S: u64 = 900;

fn refused(reason: &Reason) -> Response {
    let (status, pause_s) = match reason.code.as_ref() {
        "token_expired" | "token_used_up" | "token_revoked" | "serial_missing" | "serial_not_listed" | "serial_used" | "wrong_program" => {
            (403, None)
        }
        "token_unknown" | "token_other_site" | "proof_replayed" | "agent_unknown" => (401, None),
        "approval_denied" | "approval_expired" | "approval_needs_key" => (403, Some(REFUSED_S)),
        "site_full" | "approvals_full" => (503, Some(REFUSED_S)),
        "identity_checking" => return plain(503, reason).with("retry-after", CALL_S.to_string()),
        "identity_in_use" => (409, Some(REFUSED_S)),
        _ => (401, Some(REFUSED_S)),
    };
    match pause_s {
        Some(pause_s) => plain(status, reason).with("retry-after", retry_after(pause_s)),
        None => plain(status, reason),
    }
}

fn plain(status: u16, reason: &Reason) -> Response {
    Response::error(status, &reason.code, &*reason.detail)
}

/// The body as a wire type of this protocol's version.
pub(crate) fn parse<T: miniserde::Deserialize>(request: &Request, protocol: fn(&T) -> u32) -> Result<T, Box<Response>> {
    let bad = |detail: &str| Box::new(Response::error(400, "bad_request", detail));
    let text = std::str::from_utf8(&request.body).map_err(|_| bad("the body is not UTF-8"))?;
    let wire: T = json::from_str(text).map_err(|_| bad("the body is not the JSON that this path expects"))?;
    if protocol(&wire) != PROTOCOL {
        let detail = format!("protocol {} is not spoken here; this server speaks {PROTOCOL}", protocol(&wire));
        return Err(Box::new(Response::error(400, "protocol_unknown", detail)));
    }
    Ok(wire)
}

/// The agent behind a request. Who is turned down is told, and so is the activity.
pub(crate) fn agent_of(site: &Site, request: &Request) -> Result<Caller, Box<Response>> {
    let now = clock::unix();
    let found = caller(site, request, now);
    found.map_err(|reason| turned_down(site, request, "access_refused", &reason, now))
}

fn turned_down(site: &Site, request: &Request, event: &str, reason: &Reason, now: u64) -> Box<Response> {
    // A busy probe of the web server is not worth a line.
    if reason.code != "credential_missing" {
        site.registry.borrow_mut().stranger(event, reason, &peer(request), now);
        site.flush();
    }
    // Whoever was turned down begins again with a handshake: guessing costs the guesser as much as it costs us.
    Box::new(refused(reason).closing())
}

fn peer(request: &Request) -> String {
    request.peer.map_or("an unknown address".into(), |peer| peer.to_string())
}

fn enroll(site: Rc<Site>, request: &Request) -> Answer {
    let address = request.peer.map(|p| p.ip());
    if let Err(wait_s) = site.throttle.borrow().may_fail(address, clock::monotonic()) {
        return now(throttled(wait_s));
    }
    let wire: EnrollWire = match parse(request, |w: &EnrollWire| w.protocol) {
        Ok(wire) => wire,
        Err(response) => return now(*response),
    };
    let time = clock::unix();
    let enrolled = site.registry.borrow_mut().enroll_from(&wire, &agent_id(&wire.hostname, site.role.node), &peer(request), time);
    let id = match enrolled.map_err(|reason| of_other_site(&site, &wire, reason)) {
        Ok(id) => id,
        // No failure of its: it has a good token, and waits for a person.
        Err(reason) if reason.code == APPROVAL_PENDING => {
            site.flush();
            let wait_s = site.registry.borrow().approval_retry_s(wire.device_key.as_deref().unwrap_or_default(), time);
            return now(plain(403, &reason).with("retry-after", retry_after(wait_s)));
        }
        Err(reason) => {
            log::warn!("enrollment of '{}' at {} refused: {reason}", clean(&wire.hostname, NAME_MAX), peer(request));
            site.throttle.borrow_mut().failed(address, clock::monotonic());
            return now(*turned_down(&site, request, "enrollment_refused", &reason, time));
        }
    };
    site.flush();
    let credential = site.ca.issue(&id, time, wire.device_key.as_deref());
    let enrolled = EnrolledWire { credential, agent_id: id, issuer: site.registry.borrow().issuer.clone(), time };
    Box::pin(async move {
        match site.store.durable().await {
            Ok(()) => Response::json(200, json::to_string(&enrolled)),
            Err(e) => unavailable(&e),
        }
    })
}

/// An unknown token that names another site was not guessed, but mixed up.
fn of_other_site(site: &Site, wire: &EnrollWire, reason: Reason) -> Reason {
    match token_site(&wire.token) {
        Some(named) if reason.code == "token_unknown" && named != site.token_site() => {
            let detail =
                format!("the token was made at another site ({}), not at this one ({})", clean(named, NAME_MAX), site.token_site());
            Reason::new("token_other_site", detail)
        }
        _ => reason,
    }
}

/// An id that people recognise and nobody can guess or take twice: the host name's letters and a random end.
fn agent_id(hostname: &str, node: &str) -> String {
    const HOST_MAX: usize = 24;
    let host: String = hostname
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
        .take(HOST_MAX)
        .collect();
    let host = host.trim_matches('-');
    format!("{}-{}", if host.is_empty() { node } else { host }, random_hex(6))
}

fn report(site: Rc<Site>, request: &Request, poll: bool) -> Answer {
    let caller = match agent_of(&site, request) {
        Ok(caller) => caller,
        Err(response) => return now(*response),
    };
    let id = caller.id.clone();
    let ordinary = site.throttle.borrow_mut().take(&id, clock::monotonic());
    let wire: ReportWire = match parse(request, |w: &ReportWire| w.protocol) {
        Ok(wire) => wire,
        Err(response) => return now(ordinary.map_or_else(throttled, |()| *response)),
    };
    // A trial that is refused rolls back, and a result that is refused holds up the next order.
    let settles = wire.result.is_some() || site.registry.borrow().on_trial(&id, &wire);
    let settling =
        ordinary.or_else(|wait_s| if settles { site.throttle.borrow_mut().take_settling(&id, clock::monotonic()) } else { Err(wait_s) });
    if let Err(wait_s) = settling {
        return now(throttled(wait_s));
    }
    vouch(request);
    if wire.agent_id != id {
        return now(Response::error(403, "agent_mismatch", "the report's agent_id is not the credential's"));
    }
    let time = clock::unix();
    let listening = site.is_parked(&id);
    let seat = site.registry.borrow_mut().take_seat(&caller, &wire.hostname, &peer(request), listening, time);
    if let Err(reason) = seat {
        if reason.code == "identity_checking" {
            site.call(&id);
            return now(refused(&reason));
        }
        return now(*turned_down(&site, request, "access_refused", &reason, time));
    }
    if site.registry.borrow_mut().hear(&id, &wire, time) {
        site.planner.ring();
    }
    site.flush();
    let timestamp_version = site.tree.borrow().timestamp_version;
    let answer = site.registry.borrow().answer(&id, &wire, timestamp_version, time);
    let mut answer = site.before_stop(answer);
    tell_ca(&site, &id, &mut answer, time);
    tell_members(&site, &id, &wire, poll, &mut answer);
    tell_settings(&site, &id, &mut answer);
    if must_be_durable(&answer) {
        return Box::pin(send(site, answer));
    }
    if says_something(&answer) || !poll || site.stopping.get() {
        return now(Response::json(200, json::to_string(&answer)));
    }
    let time = Duration::from_secs(wire.park_s.clamp(1, PARK_MAX_S));
    // What the park needs of the report, and no more: tens of thousands are parked.
    Box::pin(parked(site, id, wire.issuer, wire.generation, time))
}

/// What Fleet pushes to a Director beside orders.
fn tell_settings(site: &Site, id: &str, answer: &mut AnswerWire) {
    if !site.role.configured {
        site.registry.borrow_mut().tell_handed(id, answer);
    }
}

/// Sends what must not be said before it is durable.
async fn send(site: Rc<Site>, answer: AnswerWire) -> Response {
    match site.store.durable().await {
        Ok(()) => Response::json(200, json::to_string(&answer)),
        Err(e) => unavailable(&e),
    }
}

async fn parked(site: Rc<Site>, id: String, issuer: String, generation: u64, time: Duration) -> Response {
    let woken = site.park(id.clone(), time).await;
    let answering = site.answering();
    // Made only now: a future is as large as its largest part, and an answer has some 2 KB.
    let mut response = unparked(site, &id, issuer, generation, woken).await;
    response.hold = Some(Box::new(answering));
    response
}

/// What a poll hears when its park has ended.
fn unparked(site: Rc<Site>, id: &str, issuer: String, generation: u64, woken: Option<Wake>) -> Answer {
    let report = ReportWire { issuer, generation, ..Default::default() };
    let (unix, timestamp_version) = (clock::unix(), site.tree.borrow().timestamp_version);
    let answer = {
        let mut registry = site.registry.borrow_mut();
        if let Err(reason) = registry.known(id) {
            return now(refused(&reason));
        }
        // An open connection until now is contact.
        registry.contacts.insert(id.to_string(), unix);
        registry.answer(id, &report, timestamp_version, unix)
    };
    let mut answer = site.before_stop(answer);
    tell_ca(&site, id, &mut answer, unix);
    if woken != Some(Wake::Replaced) {
        tell_settings(&site, id, &mut answer);
    }
    if woken == Some(Wake::Replaced) {
        let plain = AnswerWire { order: None, ..answer };
        return now(Response::json(200, json::to_string(&plain)));
    }
    Box::pin(send(site, answer))
}

/// A first install.
fn install(site: &Rc<Site>, request: &Request) -> Answer {
    match dl::answer(site, request) {
        dl::Given::Answer(answer) => given(site, request, answer),
        dl::Given::Away(artifact) => now(not_here(&artifact.path.to_string(), "it has just left")),
    }
}

fn given(site: &Rc<Site>, request: &Request, answer: Response) -> Answer {
    if request.method == "GET" { metering::metered(site, None, answer) } else { now(answer) }
}

/// Fetches a file that somebody asks for by name, then answers.
async fn brought(site: Rc<Site>, request: Request, artifact: Artifact, answer: fn(&Rc<Site>, &Request) -> Answer) -> Response {
    match refresh::bring(&site, &artifact).await {
        Ok(()) => answer(&site, &request).await,
        Err(response) => response,
    }
}

/// The listed file that a mirror below this open one asks for by name, and that is not here.
fn asked_for(site: &Site, request: &Request) -> Option<Artifact> {
    let name = request.path.strip_prefix("/release/targets/")?;
    let open = site.role.open_mirror && request.bearer().is_none() && request.method == "GET";
    let artifact = open.then(|| site.tree.borrow().releases.away_by_name(name).cloned())??;
    let permitted = site.throttle.borrow_mut().take_install(request.peer.map(|p| p.ip()), clock::monotonic());
    permitted.is_ok().then_some(artifact)
}

/// What is not in the mirror, or not yet: an agent is ordered only what is here, so this is on its way again.
fn missing(site: &Site, name: &str) -> Response {
    let tree = site.tree.borrow();
    let away = name.strip_prefix("targets/").and_then(|name| tree.releases.away_by_name(name));
    match away.and_then(|artifact| tree.releases.not_here(artifact)) {
        None => Response::error(404, "not_found", "the mirror has no such file"),
        Some(why) => not_here(name, &why.detail),
    }
}

/// A file of the mirror.
fn release(site: &Rc<Site>, request: &Request) -> Answer {
    let name = request.path.strip_prefix("/release/").unwrap_or("");
    let tree = site.tree.borrow().clone();
    let artifact = name.starts_with("targets/");
    let open = site.role.open_mirror && request.bearer().is_none();
    if open
        && artifact
        && let Err(wait_s) = site.throttle.borrow_mut().take_install(request.peer.map(|p| p.ip()), clock::monotonic())
    {
        return now(throttled(wait_s));
    }
    let agent = match (artifact && !open).then(|| agent_of(site, request)) {
        Some(Err(response)) => return now(*response),
        Some(Ok(agent)) => Some(agent),
        None => None,
    };
    let Some(entry) = tree.entries.get(name) else {
        return now(if tree.checking { not_checked() } else { missing(site, name) });
    };
    if let Some(agent) = &agent
        && let Err(wait_s) = site.throttle.borrow_mut().take(&agent.id, clock::monotonic())
    {
        return now(throttled(wait_s));
    }
    if artifact && !open {
        vouch(request);
    }
    if !entry.artifact || request.method == "HEAD" {
        return now(tree::answer(entry, request, None));
    }
    match metering::permit(site) {
        Ok(permit) => metering::metered(site, agent.as_ref().map(|a| a.id.as_str()), tree::answer(entry, request, Some(permit))),
        Err(busy) => now(busy),
    }
}
