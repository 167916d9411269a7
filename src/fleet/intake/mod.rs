//! What Directors tell Fleet: their health, their agents, their activity ([`crate::wire::fleet_api`]).
//!
//! A Director speaks for itself and its own agents only: everything is kept under the identity that its credential proves,
//! so that two Directors whose agents have the same names never mix. Nothing is acknowledged before it is on the disk.
//! Each has limits of its own, so that one that lies or floods pushes nobody else out.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `bad_request`, `protocol_unknown` | no document of this protocol |
//! | 401, 403 | those of [`crate::director::caller`] | who is that |
//! | 409 | `identity_in_use` | another machine speaks with this identity |
//! | 429 | `throttled` | more than five requests per second for long, or more events than are kept |
//! | 503 | `store_unavailable`, `identity_checking` | nothing was taken; with `Retry-After` |

mod keep;
mod take;
mod views;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use miniserde::{Deserialize, Serialize, json};

use crate::core::inventory::Receiver;
use crate::director::bell::Bell;
use crate::director::caller::{Caller, vouch};
use crate::director::policing::leases::date;
use crate::director::service::{agent_of, now, parse, throttled, unavailable, wrong_method};
use crate::director::site::Site;
use crate::director::store::{Change, Store, Table};
use crate::director::throttle::Throttle;
use crate::io::clock;
use crate::io::serve::{Answer, Request, Response};
use crate::wire::fleet_api::{ActivityWire, FLEET_BODY_MAX, HealthWire, SettingsAnswerWire, without_nulls};
use crate::wire::site_policy::{AuthorizedWire, TierWire};

pub use keep::{EVENTS_BYTES, KEPT_DAYS};
pub use views::{Asked, Told};

/// Advised pause of a Director whose events come faster than old ones can be removed, seconds.
const FULL_WAIT_S: u64 = 30;

/// What is durable of one Director.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct IntakeRow {
    /// Its identity.
    pub director: String,
    /// Name of its stream of events; empty = none was taken yet.
    pub stream: String,
    /// The next sequence of that stream.
    pub next: u64,
    /// The Director's digest of the event before.
    pub last: String,
    /// Former streams.
    pub former: Option<Vec<String>>,
    /// Fleet's own number of the next event of this Director.
    pub position: u64,
    /// The oldest one that is kept.
    pub oldest: u64,
    /// Bytes of all that are kept.
    pub bytes: u64,
    /// What it said last; its agents are a table of their own.
    pub health: Option<HealthWire>,
    /// When, seconds since 1970.
    pub heard_at: u64,
    /// When its present run was heard of first: what agents wait for is known since then.
    pub run_heard_at: Option<u64>,
}

/// An agent of a Director, as that one told of it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct SiteAgent {
    /// Whose agent it is.
    pub director: String,
    /// Identity at its Director.
    pub id: String,
    /// Host name.
    pub hostname: Option<String>,
    /// Running version.
    pub version: Option<String>,
    /// Target version, from trigger to completion.
    pub scheduled_version: Option<String>,
    /// `amd64`, ...
    pub architecture: Option<String>,
    /// `linux`, ...
    pub os: Option<String>,
    /// What it does, or how its last order ended.
    pub state: Option<String>,
    /// Why; stable code.
    pub code: Option<String>,
    /// Why; for people.
    pub detail: Option<String>,
    /// Since when.
    pub since: Option<u64>,
    /// When that ends by itself.
    pub deadline: Option<u64>,
    /// Who makes the next move.
    pub owner: Option<String>,
    /// `confirmed`, `trial`, `factory`, `manual`.
    pub running_as: Option<String>,
    /// SHA-256 of the running file.
    pub running_sha256: Option<String>,
    /// Version in the other slot.
    pub fallback_version: Option<String>,
    /// Trusted timestamp version.
    pub timestamp_version: Option<u64>,
    /// `ok`, `unsure`, `ahead`.
    pub clock: Option<String>,
    /// Its Director heard of it within the last minutes.
    pub online: Option<bool>,
    /// Its own settings, as they are in force at its Director.
    pub policy: Option<TierWire>,
    /// A person's newest word for it, and what became of it.
    pub authorization: Option<AuthorizedWire>,
    /// The version for which its policy waits for a person's word.
    pub needs: Option<String>,
    /// When.
    pub last_contact: Option<u64>,
    /// When its Director told this, seconds since 1970.
    pub told_at: u64,
    /// The Director's sum of the row.
    pub sum: u64,
}

/// One Director.
#[derive(Debug, Default)]
pub struct Source {
    row: IntakeRow,
    table: Receiver,
    /// When all rows were asked for last.
    asked_full: Option<u64>,
}

/// What all Directors told.
pub struct Intake {
    sources: RefCell<BTreeMap<String, Source>>,
    throttle: RefCell<Throttle>,
    /// Rung when a Director told of agents that came, went or changed.
    pub agents_changed: Bell,
}

impl Intake {
    /// Reads what is kept.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn load(store: &Store) -> Result<Intake, String> {
        let mut sources: BTreeMap<String, Source> = BTreeMap::new();
        for (director, row) in store.load::<IntakeRow>(Table::Intake)? {
            sources.insert(director, Source { row, ..Default::default() });
        }
        let mut sums: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        store.each(Table::Inventory, |_, text| match json::from_str::<SiteAgent>(text) {
            Ok(agent) => {
                sums.entry(agent.director).or_default().push((agent.id, agent.sum));
                true
            }
            Err(_) => false,
        })?;
        for (director, rows) in sums {
            sources.entry(director).or_default().table = Receiver::holding(rows);
        }
        Ok(Intake { sources: RefCell::new(sources), throttle: RefCell::default(), agents_changed: Bell::default() })
    }

    /// Longest body of a request that is the intake's.
    pub fn body_limit(&self, method: &str, path: &str) -> Option<usize> {
        (method == "POST" && path.starts_with("/fleet/v1/")).then_some(FLEET_BODY_MAX)
    }

    /// Answers a request, if its path is the intake's.
    pub fn call(self: &Rc<Self>, site: &Rc<Site>, request: &Request) -> Option<Answer> {
        let answer = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/fleet/v1/health") => self.known(site, request).and_then(|caller| self.hear_health(site, request, &caller)),
            ("POST", "/fleet/v1/activity") => self.known(site, request).and_then(|caller| self.hear_activity(site, request, &caller)),
            ("GET", "/fleet/v1/settings") => self.known(site, request).map(|caller| hand_settings(site, request, &caller)),
            (_, "/fleet/v1/settings") => Err(Box::new(wrong_method("GET"))),
            (_, "/fleet/v1/health" | "/fleet/v1/activity") => Err(Box::new(wrong_method("POST"))),
            _ => return None,
        };
        Some(answer.unwrap_or_else(|response| now(*response)))
    }

    /// The Director behind a request.
    ///
    /// # Errors
    /// The answer to whoever is not let in.
    pub fn known(&self, site: &Site, request: &Request) -> Result<Caller, Box<Response>> {
        let caller = agent_of(site, request)?;
        if let Err(wait_s) = self.throttle.borrow_mut().take(&caller.id, clock::monotonic()) {
            return Err(Box::new(throttled(wait_s)));
        }
        vouch(request);
        site.registry.borrow().sits(&caller).map_err(|reason| {
            let (status, wait) = if reason.code == "identity_in_use" { (409, "900") } else { (503, "5") };
            Box::new(Response::error(status, &reason.code, &*reason.detail).with("retry-after", wait))
        })?;
        Ok(caller)
    }

    fn hear_health(&self, site: &Rc<Site>, request: &Request, caller: &Caller) -> Result<Answer, Box<Response>> {
        let mut wire: HealthWire = parse(request, |w: &HealthWire| w.protocol)?;
        let update = wire.update.take();
        let works_by = wire.settings_revision;
        let dated = wire.dated.take();
        let time = clock::unix();
        let mut taken =
            self.take_health(&caller.id, wire, time).map_err(|reason| Box::new(Response::error(400, &reason.code, &*reason.detail)))?;
        let mut registry = site.registry.borrow_mut();
        registry.contacts.insert(caller.id.clone(), time);
        registry.set_reported(&caller.id, update.as_ref(), time);
        // 0 is a word to whoever works by another one: it has left a cluster, and nothing else is said.
        taken.1.settings_revision = Some(registry.handed_revision(&caller.id)).filter(|revision| *revision > 0 || works_by.is_some());
        if let Some((health, _)) = self.health_of(&caller.id) {
            registry.hear_member(&caller.id, &HealthWire { dated, ..health }, time);
        }
        date(&mut taken.1);
        taken.1.cluster = registry.cluster_wire(&caller.id, time);
        drop(registry);
        // Its own row is always one of them.
        if taken.0.len() > 1 {
            self.agents_changed.ring();
        }
        Ok(durable(site, taken.0, without_nulls(&taken.1)))
    }

    fn hear_activity(self: &Rc<Self>, site: &Rc<Site>, request: &Request, caller: &Caller) -> Result<Answer, Box<Response>> {
        let wire: ActivityWire = parse(request, |w: &ActivityWire| w.protocol)?;
        let time = clock::unix();
        if self.is_flooded(&caller.id) {
            return Err(Box::new(throttled(FULL_WAIT_S)));
        }
        let taken =
            self.take_activity(&caller.id, wire, time).map_err(|reason| Box::new(Response::error(400, &reason.code, &*reason.detail)))?;
        Ok(durable(site, taken.0, json::to_string(&taken.1)))
    }
}

/// What is said about a Director's agents, if it has not got it yet.
fn hand_settings(site: &Rc<Site>, request: &Request, caller: &Caller) -> Answer {
    let (revision, handed) = site.registry.borrow().handed_to(&caller.id, clock::unix());
    let after = request.query.as_deref().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("after="));
    let known = after.and_then(|text| text.parse::<u64>().ok()) == Some(revision);
    let document = if known { None } else { json::from_str(&without_nulls(&handed)).ok() };
    durable(site, Vec::new(), json::to_string(&SettingsAnswerWire { revision, document }))
}

/// Answers once the changes are on the disk. A message that changed nothing waits, too: what it is told may be the work of
/// the one before it, which is not there yet.
fn durable(site: &Rc<Site>, changes: Vec<Change>, answer: String) -> Answer {
    site.store.queue(changes);
    let site = site.clone();
    Box::pin(async move {
        match site.store.durable().await {
            Ok(()) => Response::json(200, answer),
            Err(e) => unavailable(&e),
        }
    })
}
