//! What a message changes. No IO and no clock: the changes are returned.

use miniserde::json;

use super::{Intake, IntakeRow, SiteAgent, Source, Told};
use crate::core::cluster::MEMBERS_MAX;
use crate::core::inventory::{Part, Total};
use crate::core::policy::{TEXT_MAX, Tier};
use crate::core::reason::{CODE_MAX, Reason};
use crate::core::relay::{FORMER_MAX, Head, Merge, Position, after, merge};
use crate::director::policing::templates::TEMPLATES_MAX;
use crate::director::records::{DETAIL_MAX, NAME_MAX, clean};
use crate::director::registry::AGENTS_MAX;
use crate::director::store::{Change, Table};
use crate::wire::fleet_api::{
    ActivityAnswerWire, ActivityWire, AgentRowWire, BATCH_MAX, CountWire, EventWire, HealthAnswerWire, HealthWire, InstallWire,
    MetadataWire, PAGE_MAX, PageWire, PeerWire, TemplateStateWire,
};
use crate::wire::settings::SettingsWire;
use crate::wire::site_policy::{AuthorizedWire, CONFIRMATIONS_MAX, ConfirmationStateWire, TierWire};

/// Longest name of a stream and longest digest.
const STREAM_MAX: usize = 64;
/// Longest identity of an agent, as Directors make them.
const ID_MAX: usize = 64;
/// How often one Director is asked for all of its rows, seconds: a liar whose totals never fit costs no more than that.
const FULL_EVERY_S: u64 = 60;
/// Most states that are counted, and trust stores that are shown.
const STATES_MAX: usize = 64;

fn bad(detail: &'static str) -> Reason {
    Reason::new("bad_request", detail)
}

fn name(text: Option<String>) -> Option<String> {
    text.map(|t| clean(&t, NAME_MAX)).filter(|t| !t.is_empty())
}

fn sentence(text: Option<String>) -> Option<String> {
    text.map(|t| clean(&t, DETAIL_MAX)).filter(|t| !t.is_empty())
}

/// An identity as Directors give them: a part of a key in the store.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_MAX && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl Intake {
    /// Takes a health and its page of agents.
    ///
    /// # Errors
    /// `bad_request`; nothing was taken.
    pub(super) fn take_health(&self, director: &str, mut wire: HealthWire, now: u64) -> Result<(Vec<Change>, HealthAnswerWire), Reason> {
        let page = wire.inventory.take();
        let mut sources = self.sources.borrow_mut();
        let source = sources.entry(director.to_string()).or_default();
        let mut answer = HealthAnswerWire { time: now, ..Default::default() };
        let mut changes = match page {
            Some(page) => source.take_page(director, page, &mut answer, now)?,
            None => Vec::new(),
        };
        source.row.director = director.to_string();
        if source.row.health.as_ref().is_none_or(|before| before.started_at != wire.started_at) {
            source.row.run_heard_at = Some(now);
        }
        source.row.health = Some(cleaned(wire));
        source.row.heard_at = now;
        changes.push(source.row.change());
        Ok((changes, answer))
    }

    /// Takes a batch of events, if it is the next one.
    ///
    /// # Errors
    /// `bad_request`; nothing was taken.
    pub(super) fn take_activity(&self, director: &str, wire: ActivityWire, now: u64) -> Result<(Vec<Change>, ActivityAnswerWire), Reason> {
        if wire.events.len() > BATCH_MAX || wire.stream.is_empty() || wire.stream.len() > STREAM_MAX {
            return Err(bad("too many events, or no name of the stream"));
        }
        if [&wire.last, &wire.previous].iter().any(|digest| digest.as_ref().is_some_and(|d| d.len() > STREAM_MAX)) {
            return Err(bad("a digest is too long"));
        }
        let mut expected = wire.first;
        for event in &wire.events {
            if event.seq != expected {
                return Err(bad("the events' sequences have a gap; only the beginning of a batch may be one"));
            }
            expected = expected.checked_add(1).ok_or_else(|| bad("the sequence is too high"))?;
        }
        let mut sources = self.sources.borrow_mut();
        let source = sources.entry(director.to_string()).or_default();
        source.row.director = director.to_string();
        let mut changes = Vec::new();
        let head = Head {
            stream: &wire.stream,
            first: wire.first,
            count: wire.events.len() as u64,
            previous: wire.previous.as_deref(),
            lost_from: wire.lost_from,
        };
        let former = source.row.former.clone().unwrap_or_default();
        if let Merge::Take { gap, anew } = merge(&source.row.at(), &former, &head) {
            if anew {
                source.begin_anew(director, now, &mut changes);
            }
            if let Some((from, to)) = gap {
                let detail = format!("its events {from} to {} were removed by its own retention before they could be sent", to - 1);
                source.add(Told { code: "activity_gap".into(), detail, time: now, ..Told::of(director, now) }, &mut changes);
            }
            let position = after(&head, wire.last.as_deref().unwrap_or_default());
            (source.row.stream, source.row.next, source.row.last) = (position.stream, position.next, position.last);
            for event in wire.events {
                source.add(told(director, event, now), &mut changes);
            }
            changes.push(source.row.change());
        }
        let Position { stream, next, last } = source.row.at();
        Ok((changes, ActivityAnswerWire { stream, next, last, time: Some(now) }))
    }
}

impl IntakeRow {
    fn at(&self) -> Position {
        Position { stream: self.stream.clone(), next: self.next, last: self.last.clone() }
    }

    pub(super) fn change(&self) -> Change {
        Change { table: Table::Intake, key: self.director.clone(), value: Some(json::to_string(self)) }
    }
}

impl Source {
    fn take_page(&mut self, director: &str, page: PageWire, answer: &mut HealthAnswerWire, now: u64) -> Result<Vec<Change>, Reason> {
        let part = Part::ALL.into_iter().find(|p| p.word() == page.part).ok_or_else(|| bad("a page of no known part"))?;
        let (rows, gone) = (page.rows.unwrap_or_default(), page.gone.unwrap_or_default());
        if rows.len() + gone.len() > PAGE_MAX || rows.iter().map(|r| &r.id).chain(&gone).any(|id| !is_id(id)) {
            return Err(bad("too many agents in one page, or one whose id is none"));
        }
        let sums: Vec<(String, Option<u64>)> =
            rows.iter().map(|r| (r.id.clone(), Some(r.sum))).chain(gone.into_iter().map(|id| (id, None))).collect();
        let applied = self.table.apply(part, &sums, Total { sum: page.sum, count: page.count }, AGENTS_MAX);
        answer.refused = (!applied.refused.is_empty()).then_some(applied.refused.len() as u64);
        if applied.wants_full && self.asked_full.is_none_or(|at| now.saturating_sub(at) >= FULL_EVERY_S) {
            self.asked_full = Some(now);
            answer.full = Some(true);
        }
        let key = |id: &str| format!("{director}/{id}");
        let kept = rows.into_iter().filter(|row| !applied.refused.contains(&row.id) && self.table.holds(&row.id)).map(|row| {
            let agent = agent(director, row, now);
            Change { table: Table::Inventory, key: key(&agent.id), value: Some(json::to_string(&agent)) }
        });
        let mut changes: Vec<Change> = kept.collect();
        changes.extend(applied.gone.iter().map(|id| Change { table: Table::Inventory, key: key(id), value: None }));
        Ok(changes)
    }

    /// The Director's history is another one from now on.
    fn begin_anew(&mut self, director: &str, now: u64, changes: &mut Vec<Change>) {
        let former = self.row.former.get_or_insert_default();
        if former.len() >= FORMER_MAX {
            former.remove(0);
        }
        former.push(std::mem::take(&mut self.row.stream));
        let detail = "its activity goes on under a new name: its store was restored or replaced; events around this may be there twice";
        self.add(Told { code: "activity_anew".into(), detail: detail.into(), time: now, ..Told::of(director, now) }, changes);
    }

    fn add(&mut self, mut event: Told, changes: &mut Vec<Change>) {
        event.position = self.row.position;
        let text = json::to_string(&event);
        self.row.position += 1;
        self.row.bytes += text.len() as u64;
        changes.push(Change { table: Table::Relayed, key: event.key(), value: Some(text) });
    }
}

fn told(director: &str, event: EventWire, now: u64) -> Told {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let known = !event.code.is_empty() && event.code.len() <= CODE_MAX && event.code.bytes().all(plain);
    Told {
        seq: Some(event.seq),
        time: event.time,
        agent: name(event.agent).unwrap_or_default(),
        code: if known { event.code } else { "unknown_code".into() },
        detail: sentence(event.detail).unwrap_or_default(),
        version: name(event.version).unwrap_or_default(),
        generation: event.generation.unwrap_or(0),
        by: name(event.by),
        update: name(event.update),
        ..Told::of(director, now)
    }
}

fn agent(director: &str, row: AgentRowWire, now: u64) -> SiteAgent {
    SiteAgent {
        director: director.to_string(),
        id: row.id,
        hostname: name(row.hostname),
        version: name(row.version),
        scheduled_version: name(row.scheduled_version),
        architecture: name(row.architecture),
        os: name(row.os),
        state: name(row.state),
        code: name(row.code),
        detail: sentence(row.detail),
        since: row.since,
        deadline: row.deadline,
        owner: name(row.owner),
        running_as: name(row.running_as),
        running_sha256: name(row.running_sha256),
        fallback_version: name(row.fallback_version),
        timestamp_version: row.timestamp_version,
        clock: name(row.clock),
        online: row.online,
        policy: row.policy.map(tier),
        authorization: row.authorization.map(authorized),
        needs: name(row.needs),
        last_contact: row.last_contact,
        told_at: now,
        sum: row.sum,
    }
}

fn count(c: CountWire) -> CountWire {
    CountWire { state: clean(&c.state, NAME_MAX), count: c.count }
}

fn tier(wire: TierWire) -> TierWire {
    let text = |text: Option<String>| text.map(|t| clean(&t, TEXT_MAX));
    let s = wire.settings;
    let settings = SettingsWire {
        mode: text(s.mode),
        method: text(s.method),
        version: text(s.version),
        cron: text(s.cron),
        interval: text(s.interval),
        zone: text(s.zone),
    };
    TierWire { tier: clean(&wire.tier, NAME_MAX), settings, by: name(wire.by), ..wire }
}

fn authorized(wire: AuthorizedWire) -> AuthorizedWire {
    AuthorizedWire {
        id: name(wire.id),
        version: clean(&wire.version, NAME_MAX),
        state: clean(&wire.state, NAME_MAX),
        code: name(wire.code),
        detail: sentence(wire.detail),
        by: clean(&wire.by, NAME_MAX),
        ..wire
    }
}

fn confirmation(wire: ConfirmationStateWire) -> ConfirmationStateWire {
    ConfirmationStateWire {
        id: clean(&wire.id, NAME_MAX),
        state: clean(&wire.state, NAME_MAX),
        code: name(wire.code),
        detail: sentence(wire.detail),
        agents: wire.agents.into_iter().take(STATES_MAX).map(count).collect(),
        ..wire
    }
}

fn cleaned(wire: HealthWire) -> HealthWire {
    let metadata = |m: MetadataWire| MetadataWire { of: clean(&m.of, NAME_MAX), ..m };
    HealthWire {
        version: clean(&wire.version, NAME_MAX),
        scheduled_version: name(wire.scheduled_version),
        architecture: clean(&wire.architecture, NAME_MAX),
        os: clean(&wire.os, NAME_MAX),
        hostname: name(wire.hostname),
        step: name(wire.step),
        code: name(wire.code),
        detail: sentence(wire.detail),
        running: name(wire.running),
        running_as: name(wire.running_as),
        metadata: wire.metadata.map(|list| list.into_iter().take(STATES_MAX).map(metadata).collect()),
        clock: name(wire.clock),
        agents: wire.agents.map(|list| list.into_iter().take(STATES_MAX).map(count).collect()),
        install: wire.install.map(|i| InstallWire {
            url: clean(&i.url, NAME_MAX * 2),
            pin: clean(&i.pin, NAME_MAX),
            certificates_sha256: clean(&i.certificates_sha256, NAME_MAX),
            root_sha256: clean(&i.root_sha256, NAME_MAX),
            ..i
        }),
        templates: wire
            .templates
            .map(|list| list.into_iter().take(TEMPLATES_MAX).map(|t| TemplateStateWire { id: clean(&t.id, NAME_MAX), ..t }).collect()),
        confirmations: wire.confirmations.map(|list| list.into_iter().take(CONFIRMATIONS_MAX).map(confirmation).collect()),
        agents_policy: wire.agents_policy.map(|list| list.into_iter().take(Tier::ALL.len()).map(tier).collect()),
        mirror_error: sentence(wire.mirror_error),
        url: wire.url.map(|url| clean(&url, NAME_MAX * 2)),
        pin: name(wire.pin),
        peers: wire.peers.map(|list| {
            let peer = |p: PeerWire| PeerWire { id: clean(&p.id, NAME_MAX), code: name(p.code), ..p };
            list.into_iter().take(MEMBERS_MAX).map(peer).collect()
        }),
        inventory: None,
        ..wire
    }
}

#[cfg(test)]
mod tests;
