//! The lease of a cluster over HTTPS: FleetLock for those who speak it, with what it lacks beside it
//! ([`crate::wire::fleet_lock`]). Who asks is the Director whose credential comes with the request, and nobody else.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `fleet_lock_header`, `bad_request` | no `fleet-lock-protocol: true`, or no document of the protocol |
//! | 401, 409 | those of [`crate::director::caller`] | who is that |
//! | 403 | `id_mismatch`, `not_a_member` | a known Director, but not for this |
//! | 404 | `group_unknown` | there is no such cluster |
//! | 409 | those of [`crate::core::cluster`] | not now |
//! | 429 | `throttled` | more than five requests per second for long |
//! | 503 | `store_unavailable` | nothing was given |

use std::rc::Rc;

use miniserde::json;

use crate::core::cluster::lease::{Ask, Phase};
use crate::core::cluster::plan::Wait;
use crate::director::records::{NAME_MAX, clean};
use crate::director::service::{now, unavailable, wrong_method};
use crate::director::site::Site;
use crate::fleet::intake::Intake;
use crate::io::clock;
use crate::io::serve::{Answer, Request, Response};
use crate::wire::fleet_api::without_nulls;
use crate::wire::fleet_lock::{HEADER, LOCK_MAX, LockErrorWire, LockWire, LockedWire, PRE_REBOOT, STEADY_STATE};

/// Longest nonce: sixteen bytes in hexadecimal, and room for what others send.
const NONCE_MAX: usize = 64;

/// Longest body of a request that is one of these.
pub fn body_limit(method: &str, path: &str) -> Option<usize> {
    (method == "POST" && [PRE_REBOOT, STEADY_STATE].contains(&path)).then_some(LOCK_MAX)
}

/// Answers a request, if it is one of these.
pub fn call(intake: &Rc<Intake>, site: &Rc<Site>, request: &Request) -> Option<Answer> {
    let path = request.path.as_str();
    if ![PRE_REBOOT, STEADY_STATE].contains(&path) {
        return None;
    }
    if request.method != "POST" {
        return Some(now(wrong_method("POST")));
    }
    Some(match answer(intake, site, request, path == PRE_REBOOT) {
        Ok(answer) => answer,
        Err(response) => now(*response),
    })
}

fn refused(status: u16, wait: &Wait) -> Box<Response> {
    let (code, detail) = (wait.reason.code.to_string(), wait.reason.detail.clone());
    let (kind, value) = (code.clone(), detail.clone());
    let wire = LockErrorWire { kind, value, code, detail, who: wait.who.clone(), since: wait.since, until: wait.until };
    Box::new(Response::json(status, without_nulls(&wire)))
}

fn bad(status: u16, code: &'static str, detail: impl Into<String>) -> Box<Response> {
    refused(status, &Wait::plain(code, detail))
}

fn answer(intake: &Rc<Intake>, site: &Rc<Site>, request: &Request, wants: bool) -> Result<Answer, Box<Response>> {
    if request.header(HEADER.0) != Some(HEADER.1) {
        return Err(bad(400, "fleet_lock_header", format!("send the header `{}: {}`", HEADER.0, HEADER.1)));
    }
    let caller = intake.known(site, request)?;
    let text = std::str::from_utf8(&request.body).unwrap_or_default();
    let expected = "expected {\"client_params\": {\"id\": DIRECTOR, \"group\": CLUSTER}}";
    let wire: LockWire = json::from_str(text).map_err(|_| bad(400, "bad_request", expected))?;
    if wire.client_params.id != caller.id {
        return Err(bad(403, "id_mismatch", "client_params.id is not the Director whose credential this is"));
    }
    let group = wire.client_params.group;
    let cluster = {
        let registry = site.registry.borrow();
        let row = registry
            .named_cluster(&group)
            .map_err(|_| bad(404, "group_unknown", format!("client_params.group: there is no cluster '{}'", clean(&group, NAME_MAX))))?;
        if !row.members.contains(&caller.id) {
            let detail = format!("{} is no member of cluster '{}'", caller.id, row.name);
            return Err(bad(403, "not_a_member", detail));
        }
        row.clone()
    };
    let phase = match wire.phase.as_deref() {
        None | Some("before") => Phase::Before,
        Some("stop") => Phase::Stop,
        Some("after") => Phase::After,
        Some(_) => return Err(bad(400, "bad_request", "phase: expected before, stop or after")),
    };
    // A plain client of the protocol may reboot as soon as it has its answer, and unlocks when it is back.
    let plain = wire.phase.is_none();
    let phase = match (plain, wants) {
        (true, true) => Phase::Stop,
        (true, false) => Phase::After,
        (false, _) => phase,
    };
    let nonce = clean(&wire.nonce.unwrap_or_default(), NONCE_MAX);
    let ask = Ask { member: &caller.id, nonce: &nonce, epoch: wire.epoch, needs_s: wire.needs_s.unwrap_or(0), phase };
    let time = clock::unix();
    let done = match wants {
        true => site.registry.borrow_mut().ask_lease(&cluster.id, &ask, time).map(|lease| LockedWire {
            epoch: Some(lease.epoch),
            ttl_s: Some(lease.expires.saturating_sub(time)),
            drain_s: Some(cluster.drain_s()),
        }),
        false => site.registry.borrow_mut().release_lease(&cluster.id, &ask, time).map(|()| LockedWire::default()),
    };
    site.flush();
    if !wants && done.is_ok() {
        site.planner.ring();
    }
    let response = match done {
        Ok(locked) => Response::json(200, without_nulls(&locked)),
        Err(wait) => *refused(if wait.reason.code == "not_a_member" { 403 } else { 409 }, &wait),
    };
    let site = site.clone();
    Ok(Box::pin(async move {
        match site.store.durable().await {
            Ok(()) => response,
            Err(e) => unavailable(&e),
        }
    }))
}
