//! Events as rows of a timeline.

use serde_json::{Value, json};

use crate::director::records::Event;
use crate::fleet::gui::words;
use crate::fleet::intake::Told;

/// Tone and icon of an event's code: what went wrong is seen at a glance.
fn tone(code: &str) -> (&'static str, &'static str) {
    let has = |words: &[&str]| words.iter().any(|w| code.contains(w));
    if has(&["failed", "rolled_back", "refused", "invalid", "quarantined", "rejected", "crashed", "twice", "damaged", "flapping"]) {
        ("bad", "no")
    } else if has(&["lost", "silent", "halted", "expired", "withdrawn", "wanted", "too_low", "cancel", "left_out"]) {
        ("warn", "alert")
    } else if has(&["confirmed", "completed", "verified", "updated", "returned", "enrolled", "rollout_done"]) {
        ("good", "ok")
    } else if has(&["triggered", "started", "progress", "accepted", "ordered", "rollout_"]) {
        ("busy", "update")
    } else {
        ("quiet", "dot")
    }
}

/// Everything a row needs.
struct Row<'a> {
    time: u64,
    code: &'a str,
    detail: &'a str,
    by: Option<&'a str>,
    subject: String,
    path: String,
    from: &'a str,
    version: &'a str,
}

fn row(row: &Row) -> Value {
    let (tone, icon) = tone(row.code);
    json!({
        "tone": tone, "icon": icon, "at": words::at(row.time), "title": words::human(row.code), "code": row.code,
        "detail": words::sentence(&words::readable(row.detail)), "by": row.by.map(words::by), "subject": words::short(&row.subject), "id": row.subject, "who": "",
        "path": row.path, "from": words::short(row.from), "told_by": row.from,
        "version": row.version,
    })
}

/// One that Fleet noted.
pub fn own(e: &Event) -> Value {
    let path = if e.agent.is_empty() { String::new() } else { super::directors::path(&e.agent) };
    let (detail, by) = (e.detail.as_str(), e.by.as_deref());
    row(&Row { time: e.time, code: &e.code, detail, by, subject: e.agent.clone(), path, from: "Fleet", version: &e.version })
}

/// One that a Director told.
pub fn told(e: &Told) -> Value {
    let (subject, path) = match e.agent.as_str() {
        "" => (e.director.clone(), super::directors::path(&e.director)),
        agent => (agent.to_string(), super::agents::path("any", &e.director, agent)),
    };
    let (detail, by) = (e.detail.as_str(), e.by.as_deref());
    row(&Row { time: e.time, code: &e.code, detail, by, subject, path, from: &e.director, version: &e.version })
}

/// Both, the newest first.
pub fn merged(own: &[Event], told: &[Told], limit: usize) -> Vec<Value> {
    let ours = own.iter().map(|e| (e.time, 1, e.seq, self::own(e)));
    let theirs = told.iter().map(|e| (e.time, 0, e.position, self::told(e)));
    let mut all: Vec<_> = ours.chain(theirs).collect();
    all.sort_by_key(|(time, ours, n, _)| std::cmp::Reverse((*time, *ours, *n)));
    all.into_iter().take(limit).map(|(.., row)| row).collect()
}
