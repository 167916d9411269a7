//! What a person can order, stop, forbid and release. Each act names who did it (the kernel's word on the socket's other
//! end) and why, and asking twice is no error.

use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::admin::AdminWire;
use super::cancel::Cancel;
use super::commands::{asked, reply, store_error};
use super::quarantine::Reject;
use super::records::{DETAIL_MAX, clean};
use super::refresh;
use super::registry::Registry;
use super::retry::Whom;
use super::site::Site;
use crate::core::reason::Reason;
use crate::io::clock;

/// How long a person waits for the file of what was ordered, before being told that it is on its way.
const ASSIGN_WAITS: Duration = Duration::from_secs(10);

/// What an assignment did.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct OrderedView {
    /// Roll-out concerned; 0 = several or none.
    pub rollout: u64,
    /// Version.
    pub version: String,
    /// Agents in the group.
    pub group: u64,
    /// Agents of the group that were told at once.
    pub told: u64,
}

/// How many of `wake` were told of these roll-outs: the plan that orders them moves others on, too.
fn told_of(registry: &Registry, rollouts: &[u64], wake: &[String]) -> u64 {
    wake.iter().filter(|agent| rollouts.iter().any(|id| registry.orders.contains_key(&(*id, (*agent).clone())))).count() as u64
}

/// One person's request.
pub struct Act<'a> {
    /// The Director.
    pub site: &'a Rc<Site>,
    /// What is asked.
    pub request: &'a AdminWire,
    /// Who asks.
    pub who: &'a str,
    /// Now.
    pub now: u64,
}

impl Act<'_> {
    /// The reason that the person gave, or a plain one.
    fn why(&self, otherwise: &str) -> String {
        match self.request.reason.as_deref().map(str::trim) {
            Some(reason) if !reason.is_empty() => clean(reason, DETAIL_MAX),
            _ => otherwise.to_string(),
        }
    }

    /// Makes what was done durable and tells the agents.
    async fn settle(&self, wake: Vec<String>) -> Result<(), Reason> {
        // The plan afterwards: it looks at everybody, while those who have news wait for the disk already.
        let delivered = self.site.deliver(wake).await;
        self.site.planner.ring();
        delivered.map_err(store_error)?;
        self.site.store.durable().await.map_err(store_error)
    }

    /// `assign`.
    pub async fn assign(&self, out: &mut UnixStream) -> Result<(), Reason> {
        let ask = asked(self.request, self.site.role)?;
        let tree = self.site.tree.borrow().clone();
        let explicit = self.request.max_failures.is_some();
        let next = self.site.refreshes_begun.get() + 1;
        let (id, wake, fetches) = self.site.acting(self.who, |registry| {
            if explicit {
                registry.check_limits(&ask)?;
            }
            let id = registry.assign(&ask, &tree.releases, self.now)?;
            Ok::<_, Reason>((id, registry.advance_all(&tree.releases, self.now), registry.fetch_now))
        })?;
        let mut told = told_of(&self.site.registry.borrow(), &[id], &wake);
        self.settle(wake).await?;
        if fetches && refresh::ended(self.site, next, ASSIGN_WAITS).await && !self.site.draining.get() {
            let tree = self.site.tree.borrow().clone();
            let wake = self.site.registry.borrow_mut().advance_all(&tree.releases, clock::unix());
            told += told_of(&self.site.registry.borrow(), &[id], &wake);
            self.settle(wake).await?;
        }
        let view = {
            let registry = self.site.registry.borrow();
            let rollout = &registry.rollouts[&id];
            OrderedView { rollout: id, version: rollout.version.clone(), group: rollout.group, told }
        };
        reply(out, &view).await
    }

    /// `cancel`.
    pub async fn cancel(&self, out: &mut UnixStream) -> Result<(), Reason> {
        let (request, now) = (self.request, self.now);
        let why = self.why("cancelled by a person");
        let ask = Cancel { roll_back: request.roll_back == Some(true), ..Cancel::new(&why) };
        let done = self.site.acting(self.who, |registry| match (request.all, &request.agents, request.rollout) {
            (Some(true), None, None) => Ok(registry.cancel_everything(&ask, now)),
            (None, Some(words), None) => {
                let agents = words.iter().map(|w| registry.named_agent(w)).collect::<Result<Vec<_>, _>>()?;
                Ok(registry.cancel_agents(&agents, &ask, now))
            }
            (None, None, Some(id)) => registry.cancel_rollout(id, &ask, now),
            _ => Err(Reason::new("bad_request", format!("name the {}, a roll-out, or all of them", self.site.role.nodes))),
        })?;
        self.settle(done.wake).await?;
        reply(out, &done.view).await
    }

    /// `retry`.
    pub async fn retry(&self, out: &mut UnixStream) -> Result<(), Reason> {
        let (request, now) = (self.request, self.now);
        let tree = self.site.tree.borrow().clone();
        let (mut view, wake) = self.site.acting(self.who, |registry| {
            let whom = match (request.all, &request.agents, request.rollout) {
                (Some(true), None, None) => Whom::Everybody,
                (None, Some(words), None) => Whom::Agents(words.iter().map(|w| registry.named_agent(w)).collect::<Result<Vec<_>, _>>()?),
                (None, None, Some(id)) => Whom::Rollout(id),
                _ => return Err(Reason::new("bad_request", format!("name the {}, a roll-out, or all of them", self.site.role.nodes))),
            };
            let view = registry.retry(&whom, &tree.releases, now)?;
            Ok((view, registry.advance_all(&tree.releases, now)))
        })?;
        let made: Vec<u64> = view.rollouts.iter().map(|again| again.rollout).collect();
        view.told = told_of(&self.site.registry.borrow(), &made, &wake);
        self.settle(wake).await?;
        reply(out, &view).await
    }

    /// `reject`.
    pub async fn reject(&self, out: &mut UnixStream) -> Result<(), Reason> {
        let (request, now) = (self.request, self.now);
        let tree = self.site.tree.borrow().clone();
        let why = self.why("rejected by a person");
        let (view, wake) = self.site.acting(self.who, |registry| {
            let (sha256, version) = registry.file(request.hash.as_deref().unwrap_or_default(), &tree.releases)?;
            let words = request.agents.as_ref();
            let agents = words.map(|words| words.iter().map(|w| registry.named_agent(w)).collect::<Result<_, _>>()).transpose()?;
            registry.reject(&Reject { sha256, version, agents, for_s: request.ttl_s, why }, now)
        })?;
        self.settle(wake).await?;
        reply(out, &view).await
    }

    /// `allow`.
    pub async fn allow(&self, out: &mut UnixStream) -> Result<(), Reason> {
        let (request, now) = (self.request, self.now);
        let tree = self.site.tree.borrow().clone();
        let why = self.why("allowed by a person");
        let view = self.site.acting(self.who, |registry| {
            let (sha256, _) = registry.file(request.hash.as_deref().unwrap_or_default(), &tree.releases)?;
            let words = request.agents.as_ref();
            let agents: Option<Vec<String>> =
                words.map(|words| words.iter().map(|w| registry.named_agent(w)).collect::<Result<_, _>>()).transpose()?;
            registry.allow(&sha256, agents.as_deref(), &why, now)
        })?;
        self.settle(Vec::new()).await?;
        reply(out, &view).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::records::Order;

    #[test]
    fn who_moves_on_in_another_rollout_was_not_told_of_this_one() {
        let mut registry = Registry::default();
        for (rollout, agent) in [(1, "a"), (1, "b"), (2, "c"), (2, "d")] {
            registry.orders.insert((rollout, agent.to_string()), Order { rollout, ..Default::default() });
        }
        let wake = ["a", "b", "c"].map(String::from);
        assert_eq!(told_of(&registry, &[2], &wake), 1);
        assert_eq!(told_of(&registry, &[1, 2], &wake), 3);
        assert_eq!(told_of(&registry, &[3], &wake), 0);
    }
}
