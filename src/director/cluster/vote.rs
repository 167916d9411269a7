//! This member's promises to the others when Fleet is away ([`crate::core::cluster::peers`]).
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `fleet_lock_header`, `bad_request` | no `fleet-lock-protocol: true`, or no document of the protocol |
//! | 401 | `peer_unknown`, `proof_invalid` | not a member that Fleet told of, or not by its key |
//! | 404 | `group_unknown` | this Director is in no cluster, or in another one |
//! | 409 | those of [`crate::core::cluster`] | not now |
//! | 429 | `throttled` | too many words that were refused, or too many at all |
//! | 503 | `not_ready`, `promise_unreadable` | nothing was promised |

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use miniserde::json;

use super::lease::LeaseFile;
use super::{Look, told};
use crate::core::cluster::lease::{Ask, Book, Phase};
use crate::core::cluster::member::{Failure, Says, Seen, Word};
use crate::core::cluster::peers::{Vote, may_ask_fleet, promise};
use crate::core::cluster::plan::{View, Wait};
use crate::core::proof::{Proof, SEPARATOR};
use crate::core::reason::Reason;
use crate::director::own::shared::Shared;
use crate::director::policing::leases::BookRow;
use crate::director::records::{NAME_MAX, clean};
use crate::director::service::{now, throttled, unavailable, wrong_method};
use crate::director::site::Site;
use crate::io::clock;
use crate::io::serve::{Answer, Request, Response};
use crate::io::state::State;
use crate::wire::fleet_api::{ClusterWire, without_nulls};
use crate::wire::fleet_lock::{HEADER, LOCK_MAX, LockErrorWire, LockWire, LockedWire, PRE_REBOOT, STEADY_STATE};

/// Where the promises are.
const FILE: &str = "storage/cluster-promise.json";
/// Longest nonce.
const NONCE_MAX: usize = 64;

/// What this member sees, for both of its threads.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// Of the others.
    pub looks: BTreeMap<String, Look>,
    /// Of itself: it does not serve.
    pub draining: bool,
}

/// Longest body of a request that is one of these.
pub fn body_limit(method: &str, path: &str) -> Option<usize> {
    (method == "POST" && [PRE_REBOOT, STEADY_STATE].contains(&path)).then_some(LOCK_MAX)
}

/// Answers a request, if it is one of these.
pub fn call(site: &Rc<Site>, request: &Request) -> Option<Answer> {
    let path = request.path.as_str();
    if ![PRE_REBOOT, STEADY_STATE].contains(&path) {
        return None;
    }
    if request.method != "POST" {
        return Some(now(wrong_method("POST")));
    }
    Some(answer(site, request, path == PRE_REBOOT).unwrap_or_else(|response| now(*response)))
}

/// A refusal on the wire.
fn refused(status: u16, wait: &Wait) -> Box<Response> {
    let (code, detail) = (wait.reason.code.to_string(), wait.reason.detail.clone());
    let (kind, value) = (code.clone(), detail.clone());
    let wire = LockErrorWire { kind, value, code, detail, who: wait.who.clone(), since: wait.since, until: wait.until };
    Box::new(Response::json(status, without_nulls(&wire)))
}

fn bad(status: u16, code: &'static str, detail: impl Into<String>) -> Box<Response> {
    refused(status, &Wait::plain(code, detail))
}

fn answer(site: &Rc<Site>, request: &Request, wants: bool) -> Result<Answer, Box<Response>> {
    if request.header(HEADER.0) != Some(HEADER.1) {
        return Err(bad(400, "fleet_lock_header", format!("send the header `{}: {}`", HEADER.0, HEADER.1)));
    }
    let address = request.peer.map(|peer| peer.ip());
    site.throttle.borrow().may_fail(address, clock::monotonic()).map_err(|wait_s| Box::new(throttled(wait_s)))?;
    let cluster = site.cluster.told.borrow().as_ref().map(|(cluster, _)| cluster.clone());
    let cluster = cluster.ok_or_else(|| bad(404, "group_unknown", "this Director is in no cluster"))?;
    let stranger = |code, detail: &str| {
        site.throttle.borrow_mut().failed(address, clock::monotonic());
        bad(401, code, detail).closing().into()
    };
    let (id, proof) = request.bearer().and_then(|bearer| bearer.split_once(SEPARATOR)).unwrap_or_default();
    let Some(key) = cluster.members.iter().find(|member| member.id == id).and_then(|member| member.key.as_ref()) else {
        return Err(stranger("peer_unknown", "Fleet has told this Director of no such member with a key of its own"));
    };
    if !Proof::parse(proof).is_some_and(|proof| proof.holds(key, &request.path, &request.body)) {
        return Err(stranger("proof_invalid", "the proof is not by the key that Fleet told of this member"));
    }
    site.throttle.borrow_mut().take(id, clock::monotonic()).map_err(|wait_s| Box::new(throttled(wait_s)))?;
    let text = std::str::from_utf8(&request.body).unwrap_or_default();
    let expected = "expected {\"client_params\": {\"id\": DIRECTOR, \"group\": CLUSTER}, \"phase\": ...}";
    let wire: LockWire = json::from_str(text).map_err(|_| bad(400, "bad_request", expected))?;
    if wire.client_params.id != id {
        return Err(bad(403, "id_mismatch", "client_params.id is not the member whose proof this is"));
    }
    let own = site.own.borrow().clone().ok_or_else(|| bad(503, "not_ready", "this Director is still starting"))?;
    let (site, state, me) = (site.clone(), own.state(), own.node());
    Ok(Box::pin(async move {
        let shared = own.shared.clone();
        let done = smol::unblock(move || decide(&shared, &state, &me, wants, &wire)).await;
        tell(&site, done.as_ref().ok());
        match done {
            Ok(done) => Response::json(200, without_nulls(&done.wire)),
            Err(wait) if wait.reason.code == "promise_unreadable" => unavailable(&wait.reason.detail),
            Err(wait) => *refused(if wait.reason.code == "group_unknown" { 404 } else { 409 }, &wait),
        }
    }))
}

/// What a decision came to.
pub struct Done {
    /// For who asked.
    pub wire: LockedWire,
    /// For the activity.
    pub event: Option<(&'static str, String)>,
    /// Whom this member has promised now.
    pub promised: Option<String>,
}

/// Notes what a decision came to.
pub fn tell(site: &Site, done: Option<&Done>) {
    let Some(done) = done else { return };
    *site.cluster.promised.borrow_mut() = done.promised.clone();
    if let Some((code, detail)) = &done.event {
        site.note(code, detail);
        // Fleet shows it, and orders nobody meanwhile.
        site.uplink.hurry();
    }
}

/// This member's promises, as they are on its disk.
///
/// # Errors
/// `promise_unreadable`: what was promised is not known, so nothing is.
pub fn book(state: &State) -> Result<Book, Wait> {
    let row: Option<BookRow> = state.read(FILE).map_err(|reason| {
        let detail = format!("{reason}; nothing is promised until the file is readable, or removed once every other member serves");
        Wait::plain("promise_unreadable", detail)
    })?;
    Ok(row.unwrap_or_default().book())
}

/// Notes on the disk that Fleet is asked for a lease; not while another member has a promise.
///
/// # Errors
/// That member's, or the file's.
pub fn wish(shared: &Shared, state: &State, me: &str, file: &LeaseFile) -> Result<(), Wait> {
    let _one = shared.promises();
    may_ask_fleet(&book(state)?, &file.group, me, clock::unix())?;
    file.write(state).map_err(|reason| Wait { reason, who: None, since: None, until: None })
}

/// Decides about a question, and makes that durable. On either thread; never on the one that serves.
///
/// # Errors
/// Why not.
pub fn decide(shared: &Shared, state: &State, me: &str, wants: bool, wire: &LockWire) -> Result<Done, Wait> {
    let plain = |reason| Wait { reason, who: None, since: None, until: None };
    let known = told::read(state).map_err(plain)?;
    let group = &wire.client_params.group;
    let Some(cluster) = known.filter(|cluster| [&cluster.id, &cluster.name].contains(&group)) else {
        return Err(Wait::plain("group_unknown", format!("{me} is in no cluster '{}'", clean(group, NAME_MAX))));
    };
    let _one = shared.promises();
    let before = book(state)?;
    let (mut after, now) = (before.clone(), clock::unix());
    // A file that nobody works by is given back: what it is worth is looked up by then. One that was away may be about to prove
    // itself, which a person takes on; not that this member is away under it now: drained, or on trial.
    let (in_use, sight) = (shared.lease_in_use(), shared.sight());
    let leaving = LeaseFile::read(state).is_some_and(|file| in_use || (file.away && (wire.force != Some(true) || sight.draining)));
    let seen = seen(&cluster, &sight, me, wire, now);
    let view = View { name: &cluster.name, members: &seen };
    let event = change(&mut after, &view, &Here { me, cluster: &cluster, leaving }, wants, wire, now);
    if after != before {
        state.write(FILE, &BookRow::of(&after)).map_err(plain)?;
    }
    let event = event?;
    let lease = after.lease.as_ref();
    let wire = LockedWire {
        epoch: lease.filter(|_| wants).map(|lease| lease.epoch),
        ttl_s: lease.filter(|_| wants).map(|lease| lease.expires.saturating_sub(now)),
        drain_s: cluster.drain_s.filter(|_| wants),
    };
    Ok(Done { wire, event, promised: lease.map(|lease| lease.holder.clone()) })
}

struct Here<'a> {
    me: &'a str,
    cluster: &'a ClusterWire,
    leaving: bool,
}

fn change(
    book: &mut Book,
    view: &View,
    here: &Here,
    wants: bool,
    wire: &LockWire,
    now: u64,
) -> Result<Option<(&'static str, String)>, Wait> {
    let (member, terms) = (wire.client_params.id.as_str(), told::terms(here.cluster));
    let phase = match wire.phase.as_deref() {
        Some("before") => Phase::Before,
        Some("stop") => Phase::Stop,
        Some("after") => Phase::After,
        Some("resume") if !wants => {
            book.resume(view, now);
            return Ok(Some(("cluster_resumed", format!("by a person at {member}: promises that ran out are given up, failures seen to"))));
        }
        _ => return Err(Wait::plain("bad_request", "phase: expected before, stop or after")),
    };
    let nonce = clean(wire.nonce.as_deref().unwrap_or_default(), NONCE_MAX);
    let ask = Ask { member, nonce: &nonce, epoch: wire.epoch, needs_s: wire.needs_s.unwrap_or(0), phase };
    let halted = book.observe(view, now).map(|stop| ("cluster_halted", format!("cluster '{}': {}", view.name, stop.reason)));
    let held = book.lease.clone();
    if !wants {
        book.release(view, &ask, &terms, now)?;
        let back = held.filter(|_| book.lease.is_none());
        return Ok(halted.or(back.map(|lease| ("lease_returned", format!("{} gave its lease back, epoch {}", lease.holder, lease.epoch)))));
    }
    let forced = wire.force == Some(true);
    if let Some(stopped) = here.cluster.stopped.as_ref().filter(|_| !forced && phase != Phase::After) {
        return Err(Wait::plain("cluster_stopped", format!("as Fleet told last, {stopped}; --force takes this on")));
    }
    let vote = Vote { me: here.me, leaving: here.leaving, known: wire.known.unwrap_or(0), forced };
    let lease = promise(book, view, &vote, &ask, &terms, now)?;
    if held.is_some_and(|held| held.epoch == lease.epoch) {
        return Ok(None);
    }
    let how = if forced { "; a person took on what is not healthy" } else { "" };
    Ok(Some((
        "lease_promised",
        format!("to {member}, Fleet being away; epoch {}, {} s{how}", lease.epoch, lease.expires.saturating_sub(now)),
    )))
}

/// The members as this one sees them.
fn seen(cluster: &ClusterWire, sight: &Sight, me: &str, wire: &LockWire, now: u64) -> Vec<Seen> {
    let monotonic = clock::monotonic();
    let at = |when: Duration| now.saturating_sub(monotonic.saturating_sub(when).as_secs());
    let one = |member: &crate::wire::fleet_api::ClusterMemberWire| {
        let plain = Seen { id: member.id.clone(), version: member.version.clone(), ..Seen::default() };
        let failed = wire.failed.as_ref().filter(|_| wire.client_params.id == member.id).map(|why| Failure {
            id: wire.nonce.clone().unwrap_or_default(),
            at: now,
            reason: Reason::received("update_failed".into(), clean(why, crate::core::reason::DETAIL_MAX)),
        });
        if member.id == me {
            let says = if sight.draining { Says::Draining } else { Says::Serves };
            return Seen { heard_at: now, says, failed, ..plain };
        }
        let Some(look) = sight.looks.get(&member.id) else { return Seen { failed, ..plain } };
        let heard_at = at(look.at);
        let (says, words) = match look.why.as_ref().map(|(code, _)| code.as_str()) {
            None => (Says::Serves, Vec::new()),
            Some("stopping") => (Says::Draining, Vec::new()),
            Some(_) => (Says::Serves, vec![Word { peer: me.into(), reached: false, at: heard_at }]),
        };
        Seen { heard_at, says, words, failed, ..plain }
    };
    cluster.members.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::product::DIRECTOR;
    use crate::wire::fleet_api::ClusterMemberWire;
    use crate::wire::fleet_lock::ClientWire;

    /// No exception from a lease of Fleet's under which a member is away; one that is back and watched is taken on.
    #[test]
    fn a_person_s_exception_lets_nobody_go_while_another_one_is_out_under_fleet_s_lease() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_of(&DIRECTOR, dir.path()).unwrap();
        let member = |id: &str| ClusterMemberWire { id: id.into(), ..Default::default() };
        let members = ["d0", "d1", "d2"].map(member).to_vec();
        told::keep(&state, None, Some(&ClusterWire { id: "c".into(), name: "north".into(), members, ..Default::default() }));
        LeaseFile { away: true, ..LeaseFile::wish("c") }.write(&state).unwrap();
        let shared = Shared::new(&state);
        let ask = |force| {
            let client_params = ClientWire { id: "d0".into(), group: "c".into() };
            let wire = LockWire { client_params, nonce: Some("n".into()), phase: Some("before".into()), force, ..Default::default() };
            decide(&shared, &state, "d1", true, &wire).map(|done| done.promised).map_err(|wait| wait.reason.code.to_string())
        };
        shared.see(BTreeMap::new(), true);
        assert_eq!(ask(Some(true)), Err("lease_wanted".into()), "drained by hand");
        shared.see(BTreeMap::new(), false);
        shared.set_on_trial(true);
        assert_eq!(ask(Some(true)), Err("lease_wanted".into()), "on trial");
        shared.set_on_trial(false);
        assert_eq!(ask(None), Err("lease_wanted".into()), "without a person");
        assert_eq!(ask(Some(true)), Ok(Some("d0".into())), "back, and watched");
    }
}
