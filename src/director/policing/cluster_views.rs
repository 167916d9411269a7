//! A cluster as it is shown to people, and as its members are told of it.

use super::clusters::{ClusterRow, ClusterView, MemberView};
use super::leases::word;
use super::rows::Scope;
use crate::core::cluster::lease::Book;
use crate::core::cluster::member::{Seen, State, peers, state, why};
use crate::core::cluster::plan::View;
use crate::core::reason::Reason;
use crate::core::rollout::OFFLINE_AFTER_S;
use crate::director::registry::Registry;
use crate::wire::fleet_api::{ClusterMemberWire, ClusterWire};

/// Why nobody of a cluster can go now: the first thing that stands in the way.
fn blocked(view: &View, book: &Book, now: u64) -> Option<Reason> {
    if let Err(wait) = book.goes_on(view.name) {
        return Some(wait.reason);
    }
    if let Some(lease) = &book.lease {
        return Some(book.held(lease, view.name, now).reason);
    }
    let bad = view.members.iter().map(|seen| (seen, state(seen, book, now))).find(|(_, state)| *state != State::Healthy);
    bad.map(|(seen, state)| why(seen, state, book, now).reason)
}

impl Registry {
    /// One cluster for people and programs.
    pub(super) fn cluster_view(&self, row: &ClusterRow, now: u64) -> ClusterView {
        let (seen, book) = (self.cluster_seen(row, now), self.book_of(&row.id));
        let view = View { name: &row.name, members: &seen };
        let members: Vec<MemberView> = view
            .plan(&book, None, now)
            .iter()
            .filter_map(|p| {
                let seen = view.member(&p.id)?;
                Some(self.member_view(seen, p.turn as u64, &book, now))
            })
            .collect();
        let up = members.iter().filter(|m| m.is_up()).count();
        let reason = blocked(&view, &book, now).unwrap_or_else(|| Reason::new("ready", "every member is healthy: the next one may go"));
        let stop = book.stop.as_ref();
        ClusterView {
            id: row.id.clone(),
            name: row.name.clone(),
            status: format!("{up} up {} down", members.len() - up),
            quorum: up > members.len() / 2,
            members,
            custom: self.policing.rows.get(&Scope::Cluster(row.id.clone()).key()).is_some_and(|policy| policy.custom),
            revision: row.revision,
            changed_at: row.changed_at,
            by: row.by.clone(),
            code: reason.code.to_string(),
            detail: reason.detail.clone(),
            stopped: stop.map(|stop| word(stop.kind).to_string()),
            stopped_at: stop.map(|stop| stop.since),
            stopped_by: stop.and_then(|stop| stop.by.clone()),
            holder: book.lease.as_ref().map(|lease| lease.holder.clone()),
            epoch: book.epoch,
            expires: book.lease.as_ref().map(|lease| lease.expires),
            granted_at: book.lease.as_ref().map(|lease| lease.granted_at),
            stops: book.lease.as_ref().is_some_and(|lease| lease.stops),
            soaks_until: book.lease.as_ref().and_then(|lease| lease.healthy_since).map(|since| since.saturating_add(row.terms().soak_s)),
            drain_s: row.drain_s(),
            soak_s: row.terms().soak_s,
        }
    }

    fn member_view(&self, seen: &Seen, turn: u64, book: &Book, now: u64) -> MemberView {
        let stands = state(seen, book, now);
        let wait = why(seen, stands, book, now);
        let (reached, lost) = peers(seen, book, now);
        let named = |words: Vec<&str>| words.into_iter().map(str::to_string).collect();
        MemberView {
            id: seen.id.clone(),
            hostname: self.agents.get(&seen.id).map(|agent| agent.hostname.clone()).unwrap_or_default(),
            version: seen.version.clone(),
            online: now.saturating_sub(self.last_contact(&seen.id)) <= OFFLINE_AFTER_S,
            updating: self.is_moving(&seen.id),
            state: stands.word().into(),
            detail: (stands != State::Healthy).then(|| wait.reason.detail.clone()),
            since: wait.since,
            until: wait.until,
            reached_by: named(reached),
            not_reached_by: named(lost),
            turn,
            load: seen.load,
        }
    }

    /// The cluster that a Director is in, for that Director.
    pub fn cluster_wire(&self, id: &str, now: u64) -> Option<ClusterWire> {
        let row = self.cluster_of(id)?;
        let view = self.cluster_view(row, now);
        let member = |m: MemberView| {
            let address = self.policing.words.get(&m.id).and_then(|word| word.address.clone());
            let (url, pin) = address.unzip();
            let key = self.agents.get(&m.id).and_then(|agent| agent.device_key.clone());
            ClusterMemberWire { id: m.id, url, pin, key, state: m.state, detail: m.detail, version: m.version, load: m.load }
        };
        let stopped = view.stopped.as_ref().map(|_| view.detail.clone());
        let reason = Some((view.code, view.detail)).filter(|(code, _)| code != "ready").unzip();
        Some(ClusterWire {
            id: view.id,
            name: view.name,
            members: view.members.into_iter().map(member).collect(),
            code: reason.0,
            detail: reason.1,
            holder: view.holder,
            expires: view.expires,
            stopped,
            drain_s: Some(view.drain_s),
            soak_s: Some(view.soak_s),
        })
    }
}
