//! The REST API: `/api/v1`, JSON, a token in `Authorization: Bearer` ([`crate::director::api_tokens`]).
//!
//! A request becomes the command that `vmetric-fleet` itself would send to the administration socket, and the answer is the
//! document of its `--json`: one implementation, two doors. [`routes::ROUTES`] is the table of both doors' paths; the OpenAPI
//! document is made from it ([`document`]), so that it cannot say anything else.
//!
//! | status | when |
//! |---|---|
//! | 400 | `bad_request` and others: a value is not what the document says |
//! | 401, 403 | the token ([`crate::director::api_tokens`]) |
//! | 404 | `not_found`, `*_unknown`: no such path, Director, roll-out, version |
//! | 405 | `method_not_allowed`, with `Allow` |
//! | 409 | what is asked does not fit the present state; the code says why |
//! | 413 | `body_too_large` |
//! | 429 | `throttled`, `api_busy`, with `Retry-After` |
//! | 503 | `store_unavailable`, `stopping`, with `Retry-After` |
//!
//! `agent` in the server's own documents is whoever it manages; here that is a Director, and is called so ([`renamed`]).

mod confirmations;
pub mod document;
pub mod fields;
pub mod lists;
pub mod people;
mod policies;
mod records;
pub mod routes;
pub mod schemas;
mod values;

use std::cell::Cell;
use std::rc::Rc;

use miniserde::json::{self, Object, Value};

use self::fields::Parsed;
use self::routes::{Command, Found, Route, find};
use super::access::door::{self, Caller};
use super::access::ip_of;
use super::intake::Intake;
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::api_tokens::{by_token, permit};
use crate::director::service::retry_after;
use crate::director::site::Site;
use crate::io::clock;
use crate::io::serve::{Answer, Request, Response};

/// Where it begins.
pub const BASE: &str = "/api/v1/";
/// Longest request: a roll-out that names hundreds of Directors.
pub const BODY_MAX: usize = 64 << 10;
/// Requests that are worked on at once: each holds two descriptors and its answer.
const BUSY_MAX: usize = 32;
/// Advised pause of who finds all of them taken, seconds.
const BUSY_WAIT_S: u64 = 2;

/// The API of a running Fleet.
#[derive(Default)]
pub struct Api {
    busy: Rc<Cell<usize>>,
}

/// One of [`BUSY_MAX`] places; free again when dropped.
struct Place(Rc<Cell<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Api {
    /// Longest body of a request that is the API's, whatever its method: a wrong one is told so, not that it has a body.
    pub fn body_limit(&self, path: &str) -> Option<usize> {
        path.starts_with(BASE).then_some(BODY_MAX)
    }

    /// Answers a request, if its path is the API's.
    pub fn call(&self, site: &Rc<Site>, request: &Request, intake: Option<Rc<Intake>>) -> Option<Answer> {
        if !request.path.starts_with(BASE) {
            return None;
        }
        Some(self.begin(site, request, intake).unwrap_or_else(|response| Box::pin(std::future::ready(*response))))
    }

    fn begin(&self, site: &Rc<Site>, request: &Request, intake: Option<Rc<Intake>>) -> Result<Answer, Box<Response>> {
        let (route, place) = match find(&request.method, &request.path) {
            Found::Route(route, place) => (route, place),
            Found::Methods(allowed) => {
                let detail = format!("only {allowed} here");
                return Err(Box::new(Response::error(405, "method_not_allowed", detail).with("allow", allowed)));
            }
            Found::Nothing => {
                let detail = format!("there is no such path; {BASE}openapi.json lists them");
                return Err(Box::new(Response::error(404, "not_found", detail)));
            }
        };
        let Some(need) = route.need else {
            return Ok(Box::pin(std::future::ready(Response::json(200, document::text(site)))));
        };
        let (token, role) = permit(site, request, need).map_err(|response| kept_out(site, request, route, response))?;
        let caller = Caller { by: by_token(&token), ip: ip_of(request), role };
        let parsed = fields::parse(route, place, request).map_err(|reason| Box::new(refused(&reason)))?;
        if self.busy.get() >= BUSY_MAX {
            let full = Response::error(429, "api_busy", format!("{BUSY_MAX} requests are worked on; come back later"));
            return Err(Box::new(full.with("retry-after", retry_after(BUSY_WAIT_S))));
        }
        self.busy.set(self.busy.get() + 1);
        let (site, place) = (site.clone(), Place(self.busy.clone()));
        Ok(Box::pin(async move {
            let answer = answer(&site, intake, route, parsed, &caller).await;
            drop(place);
            answer.unwrap_or_else(|reason| refused(&reason))
        }))
    }
}

/// Notes who is refused by role.
fn kept_out(site: &Rc<Site>, request: &Request, route: &Route, response: Box<Response>) -> Box<Response> {
    let known = || site.registry.borrow().api_token(request.bearer(), Act::Look, clock::unix()).ok();
    if let (403, Some((token, role)), Some(need)) = (response.status, known(), route.need) {
        let caller = Caller { by: by_token(&token), ip: ip_of(request), role };
        door::note_refused(site, &caller, &format!("{} {}", route.method, route.path), need);
    }
    response
}

async fn answer(site: &Rc<Site>, intake: Option<Rc<Intake>>, route: &Route, parsed: Parsed, caller: &Caller) -> Result<Response, Reason> {
    let text = match route.command {
        Command::List(list) => list(site.clone(), intake, parsed).await?,
        Command::Admin(name) => {
            let mut wire = parsed.wire;
            wire.command = name.to_string();
            let value: Value = json::from_str(&door::command(site, wire, caller).await?).map_err(|_| misread())?;
            json::to_string(&renamed(value))
        }
        Command::Own(name) => door::command(site, AdminWire { command: name.into(), ..parsed.wire }, caller).await?,
        Command::Document => document::text(site),
    };
    Ok(Response::json(route.success, text).with("cache-control", "no-store"))
}

fn misread() -> Reason {
    Reason::new("answer_lost", "the answer was cut; try again")
}

/// The words of this server for what the shared documents call agents.
pub fn renamed(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut out = Object::new();
            for (name, value) in object {
                let name = match name.as_str() {
                    "agent" => "director".to_string(),
                    "agents" => "directors".to_string(),
                    _ => name,
                };
                out.insert(name, renamed(value));
            }
            Value::Object(out)
        }
        Value::Array(array) => Value::Array(array.into_iter().map(renamed).collect()),
        other => other,
    }
}

/// A reason as an answer.
pub fn refused(reason: &Reason) -> Response {
    let code = reason.code.as_ref();
    let status = match code {
        "role_too_low" => 403,
        "password_weak" | "bad_request" | "bad_serial" | "version_invalid" | "max_failures_too_high" | "token_needs_end" => 400,
        "store_unavailable" | "stopping" | "not_ready" | "connection_lost" | "answer_lost" => 503,
        _ if code.ends_with("_ambiguous") || code.ends_with("_invalid") => 400,
        _ if code.ends_with("_unknown") => 404,
        _ => 409,
    };
    let answer = Response::error(status, code, &*reason.detail);
    if status == 503 { answer.with("retry-after", retry_after(5)) } else { answer }
}
