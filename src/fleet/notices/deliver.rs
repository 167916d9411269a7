//! The queue of notices and its way out: each webhook by itself, so that one whose receiver is away delays no other.

use miniserde::json;

use super::*;
use crate::core::hex;
use crate::core::notice::{LIFE_S, pause_s, retry_at, target};
use crate::core::reason::Reason;
use crate::io::webhook;

/// Notices of one webhook that wait; the oldest are dropped, and that is told.
const QUEUE_MAX: usize = 500;

/// The signature of a body at a time.
pub fn signature(secret: &str, timestamp: u64, body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("v1={}", hex::encode(ring::hmac::sign(&key, format!("{timestamp}.{body}").as_bytes()).as_ref()))
}

/// Sends once.
///
/// # Errors
/// See [`webhook::post`], and `status_N` for an answer that is not 2xx.
pub(in crate::fleet) async fn send(hook: &HookRow, number: u64, body: &str, now: u64) -> Result<u16, Reason> {
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

/// Whether a webhook may be sent to: after a failure it rests, whatever waits for it.
fn rested(hook: &HookRow, now: u64) -> bool {
    hook.failures == 0 || hook.last_at.is_none_or(|at| now >= at.saturating_add(pause_s(hook.failures)))
}

impl Notices {
    /// How many notices of a webhook wait.
    pub fn pending(&self, hook: &str) -> u64 {
        self.queue.borrow().keys().filter(|(_, of)| of == hook).count() as u64
    }

    /// Forgets what waits for a webhook.
    pub(in crate::fleet) fn forget(&self, hook: &str) -> Vec<Change> {
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

    /// Gives each notice a number, and each webhook that wants it a row.
    pub(super) fn enqueue(&self, site: &Site, notices: Vec<Notice>, now: u64) {
        let mut changes = Vec::new();
        let numbered = !notices.is_empty();
        for notice in notices {
            let number = {
                let mut cursor = self.cursor.borrow_mut();
                let cursor = cursor.get_or_insert_default();
                cursor.next += 1;
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
        if let Some(cursor) = self.cursor.borrow().as_ref().filter(|_| numbered) {
            changes.push(Change { table: Table::Notices, key: CURSOR.into(), value: Some(json::to_string(cursor)) });
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
            self.give_up(&site, now);
            let Some(row) = self.due(now) else {
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

    /// The oldest notice of the webhook that was sent to longest ago: each has its turn.
    fn due(&self, now: u64) -> Option<NoticeRow> {
        let (hooks, queue) = (self.hooks.borrow(), self.queue.borrow());
        let hook = |row: &NoticeRow| hooks.get(&row.hook).filter(|hook| hook.enabled);
        let due = queue.values().filter(|row| row.next_at <= now && hook(row).is_none_or(|hook| rested(hook, now)));
        due.min_by_key(|row| (hook(row).and_then(|hook| hook.last_at), row.number)).cloned()
    }

    fn too_old(&self, now: u64) -> Vec<NoticeRow> {
        self.queue.borrow().values().filter(|row| now >= row.created_at.saturating_add(LIFE_S)).cloned().collect()
    }

    /// What waited for a day behind others is no news any more.
    fn give_up(&self, site: &Site, now: u64) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut changes = Vec::new();
        for row in self.too_old(now) {
            changes.push(Change { table: Table::Notices, key: key(&row), value: None });
            *counts.entry(row.hook.clone()).or_default() += 1;
            self.queue.borrow_mut().remove(&(row.number, row.hook));
        }
        site.store.queue(changes);
        for (hook, count) in counts {
            tell(site, now, "notice_given_up", format!("webhook {hook}: {count} notices were not taken within {} h", LIFE_S / 3_600));
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
    pub(in crate::fleet) fn note(&self, hook: &str, sent: &Result<Option<u16>, Reason>, now: u64) -> Vec<Change> {
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
    fn a_receiver_that_is_away_delays_no_other_and_is_not_asked_for_every_notice() {
        let notices = Notices::default();
        let hook = |id: &str, failures: u64, last_at: u64| HookRow {
            id: id.into(),
            enabled: true,
            failures,
            last_at: Some(last_at),
            ..Default::default()
        };
        let put = |number: u64, of: &str| {
            let row = NoticeRow { number, hook: of.into(), created_at: 1_000, next_at: 1_000, ..Default::default() };
            notices.queue.borrow_mut().insert((number, of.into()), row);
        };
        (0..9).for_each(|n| put(n, "away"));
        put(9, "good");
        put(10, "slow");
        let hooks = [hook("away", 1, 1_000), hook("good", 0, 900), hook("slow", 0, 950)];
        *notices.hooks.borrow_mut() = hooks.into_iter().map(|hook| (hook.id.clone(), hook)).collect();
        let due = |now: u64| notices.due(now).map(|row| (row.number, row.hook));
        assert_eq!(due(1_001), Some((9, "good".into())), "it waits longest");
        notices.queue.borrow_mut().remove(&(9, "good".into()));
        assert_eq!(due(1_001), Some((10, "slow".into())));
        notices.queue.borrow_mut().remove(&(10, "slow".into()));
        assert_eq!((due(1_009), due(1_010)), (None, Some((0, "away".into()))), "ten seconds after its failure, and one only");
        // It failed for many other notices since: it rests for longer.
        notices.hooks.borrow_mut().get_mut("away").unwrap().failures = 400;
        assert_eq!((due(1_000 + 3_599), due(1_000 + 3_600).is_some()), (None, true));
        // Nobody sends to what is switched off; its notices go.
        notices.hooks.borrow_mut().get_mut("away").unwrap().enabled = false;
        assert!(due(1_001).is_some());
        let old = notices.too_old(1_000 + LIFE_S);
        assert_eq!((old.len(), notices.too_old(999 + LIFE_S).len()), (9, 0));
    }
}
