//! Webhooks: what is worth a person's attention goes to the places that an administrator named, from a durable queue.
//!
//! ```text
//!  own activity, what Directors told, releases, expiries, silence --look--> notices (rows) --deliver--> POST, signed
//! ```
//!
//! The body is JSON with Slack's `text` and the same for programs. `x-vmetric-signature: v1=<hex>` is the HMAC-SHA-256, under
//! the webhook's secret, of `x-vmetric-timestamp`, a dot and the body: a receiver that compares both and the time believes no
//! forged and no old notice. Many alike at once are one notice with a count.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};

use super::intake::{Intake, Told};
use super::webhooks::HookRow;
use crate::core::hex;
use crate::core::notice::{EXPIRES_SOON_S, Kind, SILENT_S, TIMESTAMP_SOON_S, retry_at, target};
use crate::core::reason::Reason;
use crate::core::time;
use crate::director::activity;
use crate::director::bell::Bell;
use crate::director::records::Event;
use crate::director::site::Site;
use crate::director::store::{Change, Slice, Store, Table};
use crate::io::{clock, webhook};

/// How often it is looked for news; what happens within is gathered.
const LOOK: Duration = Duration::from_secs(2);
/// Notices of one webhook that wait; the oldest are dropped, and that is told.
const QUEUE_MAX: usize = 500;
/// Events of one source that are read at a time.
const READ_MAX: usize = 1_000;

/// What was looked at already.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct CursorRow {
    /// Fleet's own events before this one.
    own: u64,
    /// And those of each Director.
    told: BTreeMap<String, u64>,
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
    pub(super) bell: Bell,
}

fn key(row: &NoticeRow) -> String {
    format!("notice/{}/{}", activity::key(row.number), row.hook)
}

/// Slack's own three, so that a name from a device makes no link and calls nobody.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The signature of a body at a time.
pub fn signature(secret: &str, timestamp: u64, body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("v1={}", hex::encode(ring::hmac::sign(&key, format!("{timestamp}.{body}").as_bytes()).as_ref()))
}

/// Sends once.
///
/// # Errors
/// See [`webhook::post`], and `status_N` for an answer that is not 2xx.
pub(super) async fn send(hook: &HookRow, number: u64, body: &str, now: u64) -> Result<u16, Reason> {
    let target = target(&hook.url)?;
    let headers = vec![
        ("user-agent", concat!("vmetric-fleet/", env!("VMETRIC_BUILT_VERSION")).to_string()),
        ("x-vmetric-delivery", format!("{number}-{}", hook.id)),
        ("x-vmetric-timestamp", now.to_string()),
        ("x-vmetric-signature", signature(&hook.secret, now, body)),
    ];
    let (local, body) = (hook.local, body.to_string());
    let status = smol::unblock(move || webhook::post(&target, &headers, &body, local)).await?;
    if (200..300).contains(&status) {
        return Ok(status);
    }
    Err(Reason::new("refused_by_receiver", format!("the receiver answers {status}")))
}

impl Notices {
    /// Reads what is kept.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn load(&self, store: &Store) -> Result<(), String> {
        *self.hooks.borrow_mut() = store.load::<HookRow>(Table::Webhooks)?.into_iter().collect();
        let mut queue = BTreeMap::new();
        let mut cursor = None;
        store.each(Table::Notices, |key, text| match key {
            "cursor" => {
                cursor = json::from_str(text).ok();
                cursor.is_some()
            }
            _ => json::from_str::<NoticeRow>(text).map(|row| queue.insert((row.number, row.hook.clone()), row)).is_ok(),
        })?;
        (*self.queue.borrow_mut(), *self.cursor.borrow_mut()) = (queue, cursor);
        Ok(())
    }

    /// The first start: what was there before anybody looked is no news.
    pub fn begin(&self, site: &Site, intake: &Intake) {
        let registry = site.registry.borrow();
        let told = registry.agents.keys().filter_map(|id| Some((id.clone(), intake.row_of(id)?.position))).collect();
        let first = CursorRow { own: registry.next_seq, told, ..Default::default() };
        self.cursor.borrow_mut().get_or_insert(first);
    }

    /// How many notices of a webhook wait.
    pub fn pending(&self, hook: &str) -> u64 {
        self.queue.borrow().keys().filter(|(_, of)| of == hook).count() as u64
    }

    /// Forgets what waits for a webhook.
    pub(super) fn forget(&self, hook: &str) -> Vec<Change> {
        let mut gone = Vec::new();
        self.queue.borrow_mut().retain(|(_, of), row| {
            let stays = of != hook;
            if !stays {
                gone.push(Change { table: Table::Notices, key: key(row), value: None });
            }
            stays
        });
        gone
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
            site.store.queue(vec![Change { table: Table::Notices, key: "cursor".into(), value }]);
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
        let directors: Vec<String> = site.registry.borrow().agents.values().map(|d| d.id.clone()).collect();
        cursor.told.retain(|director, _| directors.contains(director));
        for director in directors {
            let Some(row) = intake.row_of(&director) else { continue };
            let from = *cursor.told.entry(director.clone()).or_insert(0);
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
            cursor.told.insert(director, next);
        }
        Ok(groups.into_iter().map(|((kind, director, version), events)| of_events(kind, &director, &version, &events)).collect())
    }

    /// Gives each notice a number, and each webhook that wants it a row.
    fn enqueue(&self, site: &Site, notices: Vec<Notice>, now: u64) {
        let mut changes = Vec::new();
        for notice in notices {
            let number = {
                let mut cursor = self.cursor.borrow_mut();
                let cursor = cursor.get_or_insert_default();
                cursor.next += 1;
                changes.push(Change { table: Table::Notices, key: "cursor".into(), value: Some(json::to_string(cursor)) });
                cursor.next
            };
            let body = json::to_string(&Notice { id: number, fleet: site.about.borrow().url.clone(), ..notice.clone() });
            let hooks = self.hooks.borrow();
            for hook in hooks.values().filter(|hook| hook.enabled && (hook.events.is_empty() || hook.events.contains(&notice.kind))) {
                let row =
                    NoticeRow { number, hook: hook.id.clone(), created_at: now, body: body.clone(), next_at: now, ..Default::default() };
                changes.push(Change { table: Table::Notices, key: key(&row), value: Some(json::to_string(&row)) });
                self.queue.borrow_mut().insert((number, hook.id.clone()), row);
            }
        }
        changes.extend(self.drop_oldest(site, now));
        if !changes.is_empty() {
            site.store.queue(changes);
            self.bell.ring();
        }
    }

    fn drop_oldest(&self, site: &Site, now: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for hook in self.hooks.borrow().keys() {
            let mut queue = self.queue.borrow_mut();
            let mine: Vec<(u64, String)> = queue.keys().filter(|(_, of)| of == hook).cloned().collect();
            let over = mine.len().saturating_sub(QUEUE_MAX);
            for place in mine.into_iter().take(over) {
                if let Some(row) = queue.remove(&place) {
                    changes.push(Change { table: Table::Notices, key: key(&row), value: None });
                }
            }
            if over > 0 {
                tell(site, now, "notices_dropped", format!("webhook {hook}: {over} notices dropped: over {QUEUE_MAX} wait"));
            }
        }
        changes
    }

    /// Sends what is due, one after the other; never returns.
    pub async fn deliver_forever(self: Rc<Self>, site: Rc<Site>) {
        loop {
            let now = clock::unix();
            let due = self.queue.borrow().values().find(|row| row.next_at <= now).cloned();
            let Some(row) = due else {
                let tick = async {
                    smol::Timer::after(LOOK).await;
                };
                smol::future::or(self.bell.wait(), tick).await;
                continue;
            };
            // Nothing is sent that a power cut would forget and send again under another number.
            if site.store.durable().await.is_err() {
                smol::Timer::after(LOOK).await;
                continue;
            }
            let hook = self.hooks.borrow().get(&row.hook).filter(|hook| hook.enabled).cloned();
            let sent = match &hook {
                Some(hook) => send(hook, row.number, &row.body, now).await.map(Some),
                None => Ok(None),
            };
            self.settle(&site, row, sent, clock::unix());
        }
    }

    fn settle(&self, site: &Site, row: NoticeRow, sent: Result<Option<u16>, Reason>, now: u64) {
        let place = (row.number, row.hook.clone());
        // It may have been removed with its webhook meanwhile.
        if !self.queue.borrow().contains_key(&place) {
            return;
        }
        let mut changes = self.note(&row.hook, &sent, now);
        let again = sent.as_ref().err().and_then(|_| retry_at(row.created_at, row.failures + 1, now));
        let kept = again.map(|next_at| NoticeRow { failures: row.failures + 1, next_at, ..row.clone() });
        if let (Err(reason), None) = (&sent, &kept) {
            tell(site, now, "notice_given_up", format!("webhook {}: notice {}: {reason}", row.hook, row.number));
        }
        changes.push(Change { table: Table::Notices, key: key(&row), value: kept.as_ref().map(json::to_string) });
        match kept {
            Some(kept) => drop(self.queue.borrow_mut().insert(place, kept)),
            None => drop(self.queue.borrow_mut().remove(&place)),
        }
        site.store.queue(changes);
    }

    /// How the last try went, for people.
    pub(super) fn note(&self, hook: &str, sent: &Result<Option<u16>, Reason>, now: u64) -> Vec<Change> {
        let mut hooks = self.hooks.borrow_mut();
        let Some(hook) = hooks.get_mut(hook) else { return Vec::new() };
        match sent {
            Ok(None) => return Vec::new(),
            Ok(Some(_)) => (hook.failures, hook.last_error) = (0, None),
            Err(reason) => (hook.failures, hook.last_error) = (hook.failures + 1, Some(reason.to_string())),
        }
        hook.last_at = Some(now);
        vec![hook.change()]
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
    let fresh: Vec<String> = silent.iter().filter(|id| !cursor.silent.contains(id)).cloned().collect();
    cursor.silent = silent;
    let one = |id: String| {
        let sentence = format!("director {id} ({}) is silent since {}", registry.agents[&id].hostname, time::format(heard(&id)));
        notice(Kind::SiteSilent, now, sentence).director(&id)
    };
    fresh.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_any_receiver_computes() {
        // echo -n '1800000000.{"text":"x"}' | openssl dgst -sha256 -hmac secret
        let said = signature("secret", 1_800_000_000, "{\"text\":\"x\"}");
        assert_eq!(said, "v1=5258ebe002859bec1e7c2a9e194132953c28113228e08b855850f7ad19dedb18");
        assert_ne!(said, signature("secret", 1_800_000_001, "{\"text\":\"x\"}"));
    }

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
