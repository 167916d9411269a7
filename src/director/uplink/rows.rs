//! The table of agents on its way up: which rows changed, and what they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use miniserde::json;

use crate::core::hex;
use crate::core::inventory::{Part, Sender};
use crate::core::rollout::OFFLINE_AFTER_S;
use crate::director::records::CONTACT_KEPT_S;
use crate::director::registry::Registry;
use crate::director::site::Site;
use crate::io::clock;
use crate::wire::fleet_api::{AgentRowWire, CountWire, PageWire};

/// Agents in a page: with every text of each as long as it may be the message is below
/// [`crate::wire::fleet_api::FLEET_BODY_MAX`], which an older Fleet has, too.
const PAGE_ROWS: usize = 80;
/// Agents that are rendered before others get their turn.
const CHUNK: usize = 256;

/// A row's id and sum; no sum = it is gone.
type Sums = Vec<(String, Option<u64>)>;

/// What is known of the rows.
#[derive(Default)]
pub(super) struct Rows {
    sender: Sender,
    /// State of each agent, to be counted.
    states: BTreeMap<String, String>,
    /// Agents that were told as away.
    away: BTreeSet<String>,
}

/// A page that waits for its answer.
pub(super) struct Page {
    pub wire: PageWire,
    part: Part,
    sums: Sums,
}

impl Rows {
    /// Looks at every agent once. What Fleet holds is believed to be that; the first page's total shows whether it is.
    pub async fn read(site: &Site) -> Rows {
        let ids: Vec<String> = site.registry.borrow().agents.keys().cloned().collect();
        let (mut rows, mut believed) = (Rows::default(), Vec::new());
        for chunk in ids.chunks(CHUNK) {
            {
                let (registry, now) = (site.registry.borrow(), clock::unix());
                for id in chunk {
                    if let Some(row) = row(&registry, id, now) {
                        rows.note(&row);
                        believed.push((row.id, row.sum));
                    }
                }
            }
            smol::future::yield_now().await;
        }
        rows.sender = Sender::believing(believed);
        rows
    }

    fn note(&mut self, row: &AgentRowWire) {
        self.states.insert(row.id.clone(), row.state.clone().unwrap_or_default());
        if row.online == Some(true) {
            self.away.remove(&row.id)
        } else {
            self.away.insert(row.id.clone())
        };
    }

    /// Whether there are rows to send.
    pub fn is_pending(&mut self, site: &Site) -> bool {
        let touched = site.registry.borrow_mut().touched.as_mut().map(std::mem::take);
        touched.into_iter().flatten().for_each(|id| self.sender.touch(id));
        self.sender.is_pending()
    }

    /// Who went away or came back since it was told.
    pub fn look_around(&mut self, registry: &Registry, now: u64) {
        for id in registry.agents.keys() {
            if self.states.contains_key(id) && is_online(registry, id, now) == self.away.contains(id) {
                self.sender.touch(id.clone());
            }
        }
    }

    /// The next page.
    pub fn page(&mut self, registry: &Registry, now: u64) -> Page {
        let pick = self.sender.pick(PAGE_ROWS, |after| {
            let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_string()));
            let rest = registry.agents.range::<String, _>((from, Bound::Unbounded));
            rest.filter(|(_, agent)| agent.removed_at.is_none()).map(|(id, _)| id)
        });
        let (mut rows, mut gone, mut sums) = (Vec::new(), Vec::new(), Sums::new());
        for id in pick.ids {
            match row(registry, &id, now) {
                Some(row) => {
                    self.note(&row);
                    sums.push((id, Some(row.sum)));
                    rows.push(row);
                }
                None => {
                    self.states.remove(&id);
                    self.away.remove(&id);
                    sums.push((id.clone(), None));
                    gone.push(id);
                }
            }
        }
        let total = self.sender.total_with(pick.part, &sums);
        let wire = PageWire { part: pick.part.word().into(), rows: Some(rows), gone: Some(gone), sum: total.sum, count: total.count };
        Page { wire, part: pick.part, sums }
    }

    /// Fleet has it.
    pub fn acknowledged(&mut self, page: &Page, wants_full: bool) {
        self.sender.acknowledged(page.part, &page.sums);
        if wants_full {
            self.sender.restart();
        }
    }

    /// Agents by state.
    pub fn counts(&self) -> Vec<CountWire> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        self.states.values().for_each(|state| *counts.entry(state).or_default() += 1);
        counts.into_iter().map(|(state, count)| CountWire { state: state.into(), count }).collect()
    }

    /// Agents that are not away.
    pub fn online(&self) -> u64 {
        self.states.len().saturating_sub(self.away.len()) as u64
    }
}

/// Whether an agent was heard of lately. After a restart the times on the disk are up to ten minutes old, and nobody is
/// called away for that.
fn is_online(registry: &Registry, id: &str, now: u64) -> bool {
    let heard = registry.last_contact(id);
    let known = if heard < registry.started_at { (heard + CONTACT_KEPT_S).min(registry.started_at) } else { heard };
    now.saturating_sub(known) <= OFFLINE_AFTER_S
}

/// The row of an agent that was not removed.
fn row(registry: &Registry, id: &str, now: u64) -> Option<AgentRowWire> {
    let agent = registry.agents.get(id).filter(|a| a.removed_at.is_none())?;
    let view = registry.agent_view(agent, now);
    let some = |text: String| (!text.is_empty()).then_some(text);
    let mut row = AgentRowWire {
        id: view.id,
        hostname: some(view.hostname),
        version: some(view.version),
        scheduled_version: view.scheduled_version,
        architecture: some(view.architecture),
        os: some(view.os),
        state: some(view.state),
        code: some(view.code),
        running_as: some(view.running_as),
        running_sha256: some(view.running_sha256),
        fallback_version: view.fallback_version,
        timestamp_version: Some(view.timestamp_version),
        clock: some(view.clock),
        online: Some(is_online(registry, id, now)),
        policy: registry.own_policy_wire(id),
        authorization: registry.authorized_wire(id),
        ..Default::default()
    };
    // Only what is the same after a restart is summed; what follows changes with every word of the agent.
    let hash = hex::sha256(json::to_string(&row).as_bytes());
    row.sum = u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
    (row.detail, row.since, row.deadline, row.owner) = (some(view.detail), view.since, view.deadline, view.owner);
    row.last_contact = Some(view.last_contact);
    row.needs = registry.policing.needs(id);
    Some(row)
}
