//! What the mirror has to know of this site: who runs, may go back to, is ordered or may take what.
//!
//! In mode `manual` nothing is fetched by itself. A file comes when somebody may take it: a person's order names it, a policy
//! in mode `auto` lets a node take it, now or at its time, or a person fetches it by name (a first install, and for an
//! open mirror: a mirror below it). Under `user_action` the file comes before the authorization: what is authorized has been
//! verified at this site, and the person's word acts at once.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::Shelf;
use crate::core::hex;
use crate::core::keep::{self, Facts, Use};
use crate::core::policy::{self, Candidate, Effective, Mode, Standing};
use crate::core::release::{Artifact, Platform};
use crate::core::version::Version;
use crate::director::records::Agent;
use crate::director::registry::Registry;
use crate::director::releases::Releases;

/// How long what was asked for by name counts as needed: a fetch that failed is tried again so long.
const ASKED_S: u64 = 3600;

/// Nodes with the same settings of which the policy lets all take the same.
type Kind<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Registry {
    /// A person, or a mirror below this one, asks for a file by name.
    pub fn ask_for(&mut self, artifact: &Artifact, now: u64) {
        self.asked.retain(|_, until| *until > now);
        self.asked.insert(keep::used(artifact), now + ASKED_S);
        self.fetch_now = true;
    }

    /// An order waits for files that are not here.
    pub(in crate::director) fn fetch_for(&mut self, product: &str, version: &Version, releases: &Releases) {
        let away =
            |a: &&Artifact| a.path.product == product && a.path.version == *version && releases.away.contains_key(&a.path.to_string());
        self.fetch_now |= releases.artifacts.iter().any(|a| away(&a));
    }

    /// What the mirror has to know of this site.
    pub fn mirror_facts(&self, limit: Option<u64>, releases: &Releases, now: u64) -> Facts {
        let product = self.product();
        let mut facts = Facts { limit, ..Facts::default() };
        let used = |version: &str, platform: &Platform| {
            Some(Use { product: product.into(), version: version.parse().ok()?, platform: platform.clone() })
        };
        let mut shelf = Shelf::new(product, releases);
        let common = self.effective("");
        let mut found: BTreeMap<Kind, Option<Version>> = BTreeMap::new();
        let mut fetched = BTreeSet::new();
        for agent in self.agents.values().filter(|a| a.removed_at.is_none()) {
            let platform = Platform { os: agent.os.clone(), arch: agent.architecture.clone() };
            let own: Vec<Use> = [Some(agent.version.as_str()), agent.fallback_version.as_deref()]
                .into_iter()
                .flatten()
                .filter_map(|v| used(v, &platform))
                .collect();
            facts.running.extend(used(&agent.version, &platform));
            facts.fallback.extend(agent.fallback_version.as_deref().and_then(|v| used(v, &platform)));
            let ordered = self.order_in_force(&agent.id).and_then(|(order, rollout)| {
                Some(Use { product: rollout.product.clone(), version: order.version.parse().ok()?, platform: platform.clone() })
            });
            facts.ordered.extend(ordered);
            facts.enrolled.insert((product.into(), platform.clone()));
            let particular = self.has_own_settings(&agent.id) || self.policing.grants.contains_key(&agent.id);
            let settings = if particular { &self.effective(&agent.id) } else { &common };
            if settings.mode.value == Mode::Manual {
                continue;
            }
            fetched.extend(own);
            let candidates = shelf.of(&agent.os, &agent.architecture);
            let kind = (agent.os.as_str(), agent.architecture.as_str(), agent.version.as_str(), agent.running_sha256.as_str());
            let version = match particular {
                true => self.takes(agent, settings, candidates, now),
                false => found.entry(kind).or_insert_with(|| self.takes(agent, settings, candidates, now)).clone(),
            };
            facts.wanted.extend(version.map(|version| Use { product: product.into(), version, platform }));
        }
        // Those whose turn comes later have no order yet.
        for id in &self.open {
            let Some(rollout) = self.rollouts.get(id).filter(|r| r.state == "running") else { continue };
            let Ok(version) = rollout.version.parse::<Version>() else { continue };
            let of = |(_, platform): &(String, Platform)| Use {
                product: rollout.product.clone(),
                version: version.clone(),
                platform: platform.clone(),
            };
            facts.ordered.extend(facts.enrolled.iter().map(of));
        }
        facts.asked = self.asked.iter().filter(|(_, until)| **until > now).map(|(this, _)| this.clone()).collect();
        fetched.extend([&facts.ordered, &facts.wanted, &facts.asked].into_iter().flatten().cloned());
        facts.fetched = Some(fetched);
        facts
    }

    /// The version that a node's policy lets it take.
    fn takes(&self, agent: &Agent, settings: &Effective, candidates: &[Candidate], now: u64) -> Option<Version> {
        let newest = self.newest_row(&agent.id).map(|(order, _)| order);
        let live = self.live_grant(&agent.id, newest, now);
        let running_sha256 = hex::decode::<32>(&agent.running_sha256);
        let facts = policy::Facts {
            settings,
            candidates,
            running: agent.version.parse().ok(),
            running_sha256,
            counter: running_sha256.and_then(|sha| candidates.iter().find(|c| c.sha256 == sha)).map(|c| c.counter),
            schedule: None,
            granted: live.as_ref().map(|live| &live.granted),
            quarantined: &|sha256| self.kept_from(&hex::encode(sha256), &agent.id, now),
            standing: &|_| Standing::Free,
            clock_unsure: false,
            clock_ahead: false,
            silent_since: None,
        };
        policy::may_take(&facts, now).ok().map(|candidate| candidate.version.clone())
    }
}
