//! This Director as a member of a cluster: what Fleet says of it, what it sees of its peers, its lease, its drain.
//!
//! ```text
//! Fleet --- health's answer: members, addresses, states ---> told ---> peers: GET /readyz every few seconds
//!   ^                                                                    |
//!   +------------------- health: what it sees of each peer <------------+
//!   ^-- /v1/pre-reboot, /v1/steady-state: lease --- the engine before a stop, keep() afterwards
//! ```
//!
//! peers <-- /v1/pre-reboot, /v1/steady-state: their promises, where Fleet does not answer (ballot asks, vote promises)
//!
//! A Director that is in no cluster has none of this: nothing is told, so nobody is looked at and no lease is asked for.

pub mod ballot;
pub mod command;
pub mod invite;
pub mod join;
pub mod lease;
pub mod peers;
pub mod told;
pub mod vote;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::director::site::Site;
use crate::io::clock;
use crate::io::serve::{Answer, Request};
use crate::io::state::State;
use crate::wire::fleet_api::{ClusterWire, PeerWire};

/// Longest body of a request of another member.
pub fn body_limit(method: &str, path: &str) -> Option<usize> {
    vote::body_limit(method, path).or_else(|| invite::body_limit(method, path))
}

/// Answers a request of another member, if it is one.
pub fn call(site: &Rc<Site>, request: &Request) -> Option<Answer> {
    vote::call(site, request).or_else(|| invite::call(site, request))
}

/// What this Director saw of a peer.
#[derive(Clone, Debug)]
pub struct Look {
    /// On the monotonic clock.
    at: Duration,
    /// Why it is not reached; `None` = it is.
    why: Option<(String, String)>,
}

/// What the tasks of this Director share about its cluster.
#[derive(Default)]
pub struct Member {
    /// What Fleet said last, and when, seconds since 1970; `None` = it is in no cluster, or Fleet was not heard since the start.
    pub told: RefCell<Option<(ClusterWire, u64)>>,
    looks: RefCell<BTreeMap<String, Look>>,
    /// Whom this member has promised a lease, Fleet being away.
    pub promised: RefCell<Option<String>>,
    /// A person took it out of the load balancer.
    pub drained: Cell<bool>,
}

impl Member {
    /// What this Director sees, for Fleet; `None` = it has no peers.
    pub fn words(&self) -> Option<Vec<PeerWire>> {
        self.told.borrow().as_ref()?;
        let now = clock::monotonic();
        let word = |(id, look): (&String, &Look)| PeerWire {
            id: id.clone(),
            reached: look.why.is_none(),
            age_s: now.saturating_sub(look.at).as_secs(),
            code: look.why.as_ref().map(|(code, _)| code.clone()),
        };
        Some(self.looks.borrow().iter().map(word).collect())
    }

    /// What was known at the end of the run before: without Fleet it counts on.
    pub fn restore(&self, state: &State) {
        match told::read(state) {
            // When Fleet said it nobody knows.
            Ok(told) => *self.told.borrow_mut() = told.map(|told| (told, 0)),
            Err(reason) => log::error!("{reason}"),
        }
        let book = vote::book(state).map_err(|wait| log::error!("{}", wait.reason)).unwrap_or_default();
        *self.promised.borrow_mut() = book.lease.map(|lease| lease.holder);
    }

    /// What this member sees of the others.
    pub fn looks(&self) -> BTreeMap<String, Look> {
        self.looks.borrow().clone()
    }

    /// Fleet said something new.
    pub fn hear(&self, state: &State, cluster: Option<ClusterWire>) {
        told::keep(state, self.told.borrow().as_ref().map(|(told, _)| told), cluster.as_ref());
        let members: Vec<String> = cluster.iter().flat_map(|c| &c.members).map(|m| m.id.clone()).collect();
        self.looks.borrow_mut().retain(|id, _| members.contains(id));
        *self.told.borrow_mut() = cluster.map(|cluster| (cluster, clock::unix()));
    }
}
