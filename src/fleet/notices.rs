//! Webhooks: what is worth a person's attention goes to the places that an administrator named, from a durable queue.
//!
//! ```text
//!  own activity, what Directors told, releases, expiries, silence --look--> notices (rows) --deliver--> POST, signed
//! ```
//!
//! The body is JSON with Slack's `text` and the same for programs. `x-vmetric-signature: v1=<hex>` is the HMAC-SHA-256, under
//! the webhook's secret, of `x-vmetric-timestamp`, a dot and the body: a receiver that compares both and the time believes no
//! forged and no old notice. Many alike at once are one notice with a count.

pub mod deliver;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};

use super::intake::{Intake, Told};
use super::webhooks::HookRow;
use crate::core::notice::{EXPIRES_SOON_S, Kind, SILENT_S, TIMESTAMP_SOON_S};
use crate::core::time;
use crate::director::activity;
use crate::director::bell::Bell;
use crate::director::records::Event;
use crate::director::site::Site;
use crate::director::store::{Change, Slice, Store, Table};
use crate::io::clock;

/// How often it is looked for news; what happens within is gathered.
const LOOK: Duration = Duration::from_secs(2);
/// Sites that fell silent at once and are told one by one; more are one notice: their network is gone, not they.
const SILENT_EACH: usize = 3;
/// Key of [`CursorRow`].
const CURSOR: &str = "cursor";
/// Before a Director's id: how far its events were looked at.
const TOLD: &str = "told/";
/// Events of one source that are read at a time.
const READ_MAX: usize = 1_000;

/// What was looked at already.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct CursorRow {
    /// Fleet's own events before this one.
    own: u64,
    /// `product version` of every release.
    releases: Vec<String>,
    /// `role expiry` that was told.
    expiries: Vec<String>,
    /// Directors that were told as silent.
    silent: Vec<String>,
    /// Number of the next notice.
    next: u64,
}

/// A notice on its way to one webhook.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct NoticeRow {
    number: u64,
    hook: String,
    created_at: u64,
    body: String,
    failures: u32,
    next_at: u64,
}

/// What is told, before it has a number.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Notice {
    /// For people, and for Slack.
    pub text: String,
    /// A word of [`Kind`].
    pub kind: String,
    /// Number, the same at every try.
    pub id: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// Who says it.
    pub fleet: String,
    /// Which Director, or empty.
    pub director: String,
    /// The first of its agents, or empty.
    pub agent: String,
    /// How many it is about.
    pub count: u64,
    /// Version concerned, or empty.
    pub version: String,
    /// Code of the event, or empty.
    pub code: String,
    /// Its sentence.
    pub detail: String,
}

/// The running part.
#[derive(Default)]
pub struct Notices {
    pub(super) hooks: RefCell<BTreeMap<String, HookRow>>,
    queue: RefCell<BTreeMap<(u64, String), NoticeRow>>,
    cursor: RefCell<Option<CursorRow>>,
    /// Each Director's events before this one. A row each: most of them stand still while one goes on.
    told: RefCell<BTreeMap<String, u64>>,
    pub(super) bell: Bell,
}

/// The row of a Director's place in [`Notices::told`].
fn told_change(director: &str, place: Option<u64>) -> Change {
    Change { table: Table::Notices, key: format!("{TOLD}{director}"), value: place.map(|n| json::to_string(&n)) }
}

fn key(row: &NoticeRow) -> String {
    format!("notice/{}/{}", activity::key(row.number), row.hook)
}

/// Slack's own three, so that a name from a device makes no link and calls nobody.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Notices {
    /// Reads what is kept.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn load(&self, store: &Store) -> Result<(), String> {
        *self.hooks.borrow_mut() = store.load::<HookRow>(Table::Webhooks)?.into_iter().collect();
        let (mut queue, mut told) = (BTreeMap::new(), BTreeMap::new());
        let mut cursor = None;
        store.each(Table::Notices, |key, text| match key {
            CURSOR => {
                cursor = json::from_str(text).ok();
                cursor.is_some()
            }
            key if key.starts_with(TOLD) => json::from_str(text).map(|n| told.insert(key[TOLD.len()..].to_string(), n)).is_ok(),
            _ => json::from_str::<NoticeRow>(text).map(|row| queue.insert((row.number, row.hook.clone()), row)).is_ok(),
        })?;
        (*self.queue.borrow_mut(), *self.cursor.borrow_mut(), *self.told.borrow_mut()) = (queue, cursor, told);
        Ok(())
    }

    /// The first start: what was there before anybody looked is no news.
    pub fn begin(&self, site: &Site, intake: &Intake) {
        if self.cursor.borrow().is_some() {
            return;
        }
        let registry = site.registry.borrow();
        let places: BTreeMap<String, u64> =
            registry.agents.keys().filter_map(|id| Some((id.clone(), intake.row_of(id)?.position))).collect();
        let first = CursorRow { own: registry.next_seq, ..Default::default() };
        let mut changes = vec![Change { table: Table::Notices, key: CURSOR.into(), value: Some(json::to_string(&first)) }];
        changes.extend(places.iter().map(|(id, place)| told_change(id, Some(*place))));
        site.store.queue(changes);
        (*self.cursor.borrow_mut(), *self.told.borrow_mut()) = (Some(first), places);
    }

    /// Looks for news; never returns.
    pub async fn look_forever(self: Rc<Self>, site: Rc<Site>, intake: Rc<Intake>) {
        loop {
            smol::Timer::after(LOOK).await;
            // Without anybody to tell, only the place is kept: a new webhook is told what happens from then on.
            match self.look(&site, &intake).await {
                Ok(notices) => self.enqueue(&site, notices, clock::unix()),
                Err(e) => log::warn!("notices: {e}"),
            }
        }
    }

    async fn look(&self, site: &Rc<Site>, intake: &Intake) -> Result<Vec<Notice>, String> {
        let now = clock::unix();
        let mut cursor = self.cursor.borrow().clone().unwrap_or(CursorRow { ..Default::default() });
        let before = cursor.clone();
        let mut found = self.look_at_releases(site, &mut cursor, now);
        found.extend(look_at_expiries(site, &mut cursor, now));
        found.extend(look_at_silence(site, &mut cursor, now));
        found.extend(self.look_at_events(site, intake, &mut cursor).await?);
        if cursor != before {
            let value = Some(json::to_string(&cursor));
            *self.cursor.borrow_mut() = Some(cursor);
            site.store.queue(vec![Change { table: Table::Notices, key: CURSOR.into(), value }]);
        }
        Ok(found)
    }

    fn look_at_releases(&self, site: &Site, cursor: &mut CursorRow, now: u64) -> Vec<Notice> {
        let tree = site.tree.borrow().clone();
        let there: BTreeSet<String> = tree.releases.artifacts.iter().map(|a| format!("{} {}", a.path.product, a.path.version)).collect();
        // Not read yet, or looked at for the first time: no news either way.
        if there.is_empty() || cursor.releases.is_empty() {
            cursor.releases = if there.is_empty() { std::mem::take(&mut cursor.releases) } else { there.into_iter().collect() };
            return Vec::new();
        }
        let fresh: Vec<String> = there.iter().filter(|name| !cursor.releases.contains(name)).cloned().collect();
        cursor.releases = there.into_iter().collect();
        let notice = |name: String| {
            let version = name.split(' ').nth(1).unwrap_or_default().to_string();
            notice(Kind::UpdateAvailable, now, format!("{name} is available")).version(&version)
        };
        fresh.into_iter().map(notice).collect()
    }

    async fn look_at_events(&self, site: &Site, intake: &Intake, cursor: &mut CursorRow) -> Result<Vec<Notice>, String> {
        site.store.durable().await?;
        let slice = Slice { rows: READ_MAX, bytes: 1 << 20, newest: false };
        let mut groups: BTreeMap<(Kind, String, String), Vec<Told>> = BTreeMap::new();
        let mut add = |event: Told| {
            if let Some(kind) = Kind::of(&event.code) {
                groups.entry((kind, event.director.clone(), event.version.clone())).or_default().push(event);
            }
        };
        let rows = site.store.range(Table::Activity, activity::key(cursor.own)..activity::key(u64::MAX), slice).await?;
        for event in rows.iter().filter_map(|(_, text)| json::from_str::<Event>(text).ok()) {
            cursor.own = event.seq + 1;
            let Event { agent: director, code, detail, version, time, .. } = event;
            add(Told { director, code, detail, version, time, ..Default::default() });
        }
        let directors: BTreeSet<String> = site.registry.borrow().agents.keys().cloned().collect();
        let before = self.told.borrow().clone();
        let mut moved: BTreeMap<String, Option<u64>> =
            before.keys().filter(|id| !directors.contains(*id)).map(|id| (id.clone(), None)).collect();
        for director in directors {
            let Some(row) = intake.row_of(&director) else { continue };
            let from = before.get(&director).copied().unwrap_or(0);
            if from >= row.position {
                continue;
            }
            let keys = Told::key_of(&director, from)..Told::key_of(&director, row.position);
            let rows = site.store.range(Table::Relayed, keys, slice).await?;
            let mut next = row.position;
            for event in rows.iter().filter_map(|(_, text)| json::from_str::<Told>(text).ok()) {
                next = event.position + 1;
                // Its own update is in Fleet's activity already.
                if !event.agent.is_empty() || event.code == "rollout_halted" {
                    add(event);
                }
            }
            moved.insert(director, Some(next));
        }
        // Only now: what could not be read whole is read again.
        site.store.queue(moved.iter().map(|(director, place)| told_change(director, *place)).collect());
        let mut told = self.told.borrow_mut();
        for (director, place) in moved {
            match place {
                Some(place) => told.insert(director, place),
                None => told.remove(&director),
            };
        }
        Ok(groups.into_iter().map(|((kind, director, version), events)| of_events(kind, &director, &version, &events)).collect())
    }
}

pub(super) fn tell(site: &Site, now: u64, code: &str, detail: String) {
    site.registry.borrow_mut().event(now, "", code, detail, None);
    site.flush();
}

pub(super) fn notice(kind: Kind, now: u64, sentence: String) -> Notice {
    Notice { text: escaped(&sentence), kind: kind.word().into(), time: now, count: 1, detail: sentence, ..Default::default() }
}

impl Notice {
    fn version(self, version: &str) -> Notice {
        Notice { version: version.into(), ..self }
    }

    fn director(self, director: &str) -> Notice {
        Notice { director: director.into(), ..self }
    }
}

fn of_events(kind: Kind, director: &str, version: &str, events: &[Told]) -> Notice {
    let first = events.first().cloned().unwrap_or_default();
    let whom = match (events.len(), first.agent.is_empty()) {
        (1, true) => format!("director {director}"),
        (1, false) => format!("agent {} of director {director}", first.agent),
        (n, true) => format!("director {director}, {n} times"),
        (n, false) => format!("{n} agents of director {director}"),
    };
    let whom = if director.is_empty() { "this fleet".to_string() } else { whom };
    let what = match kind {
        Kind::RolledBack => "rolled back",
        Kind::RolloutHalted => "roll-out halted",
        _ => "update failed",
    };
    let sentence = format!("{what}: {whom}, version {version}: {} ({})", first.detail, first.code);
    let made = notice(kind, first.time, sentence).version(version).director(director);
    Notice { agent: first.agent, count: events.len() as u64, code: first.code, ..made }
}

fn look_at_expiries(site: &Site, cursor: &mut CursorRow, now: u64) -> Vec<Notice> {
    let expires = site.tree.borrow().expires;
    let mut out = Vec::new();
    let mut near = Vec::new();
    for (role, at) in ["root", "timestamp", "snapshot", "targets"].into_iter().zip(expires) {
        let soon = if role == "timestamp" { TIMESTAMP_SOON_S } else { EXPIRES_SOON_S };
        let Some(at) = at.filter(|at| at.saturating_sub(now) < soon) else { continue };
        let told = format!("{role} {at}");
        if !cursor.expiries.contains(&told) {
            let when = if at <= now { "expired" } else { "expires" };
            let sentence = format!("release metadata: {role} {when} {}; sign and publish it anew", time::format(at));
            out.push(Notice { code: role.into(), ..notice(Kind::MetadataExpires, now, sentence) });
        }
        near.push(told);
    }
    cursor.expiries = near;
    out
}

fn look_at_silence(site: &Site, cursor: &mut CursorRow, now: u64) -> Vec<Notice> {
    let registry = site.registry.borrow();
    let heard = |id: &str| registry.last_contact(id).max(registry.started_at);
    let there = registry.agents.values().filter(|d| d.removed_at.is_none());
    let silent: Vec<String> = there.filter(|d| now.saturating_sub(heard(&d.id)) > SILENT_S).map(|d| d.id.clone()).collect();
    let known: BTreeSet<String> = std::mem::take(&mut cursor.silent).into_iter().collect();
    let fresh: Vec<String> = silent.iter().filter(|id| !known.contains(*id)).cloned().collect();
    cursor.silent = silent;
    let one = |id: String| {
        let sentence = format!("director {id} ({}) is silent since {}", registry.agents[&id].hostname, time::format(heard(&id)));
        notice(Kind::SiteSilent, now, sentence).director(&id)
    };
    if fresh.len() <= SILENT_EACH {
        return fresh.into_iter().map(one).collect();
    }
    let first = one(fresh[0].clone()).detail;
    let sentence = format!("{} directors fell silent at once; {first}; `vmetric-fleet directors` lists them", fresh.len());
    vec![Notice { count: fresh.len() as u64, ..notice(Kind::SiteSilent, now, sentence) }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_alike_are_one_and_names_call_nobody() {
        let told = |agent: &str| Told {
            director: "d1".into(),
            agent: agent.into(),
            code: "rolled_back".into(),
            detail: "<!channel> & friends".into(),
            version: "2.0.0".into(),
            ..Default::default()
        };
        let made = of_events(Kind::RolledBack, "d1", "2.0.0", &[told("a1"), told("a2")]);
        assert!(made.text.contains("2 agents of director d1") && made.text.contains("&lt;!channel&gt; &amp; friends"), "{}", made.text);
        assert_eq!((made.count, made.agent.as_str(), made.kind.as_str()), (2, "a1", "rolled_back"));
    }
}
