//! What is shown: roles, keys, artifacts; for people and, with `--json`, for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use miniserde::json::Value;

use super::add::Added;
use super::cli::Answer;
use super::envelope::Public;
use super::failure::Result;
use super::json::{list, number, object, text};
use super::metadata::{TARGETS, Target};
use super::repo::Repo;
use super::ring::{BUILD, Place, Ring};
use super::state::RoleState;
use crate::core::hex;
use crate::core::time;

const DAY: u64 = 86_400;

/// Canonical JSON escapes only quotes and backslashes; the control characters of a message are escaped here, so that a
/// program can read the answer.
pub fn plain(bytes: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c < ' ' {
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

/// Columns as wide as their widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            if i == widths.len() {
                widths.push(0);
            }
            widths[i] = widths[i].max(cell.len());
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn cells(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| w.to_string()).collect()
}

/// Every role's version, expiry and missing signatures.
pub fn status(repo: &Repo, now: u64) -> Result<Answer> {
    let states = RoleState::all(repo)?;
    let mut rows = vec![cells(&["ROLE", "VERSION", "STATE", "SIGNED/NEEDED", "EXPIRES"])];
    for s in &states {
        let signed: Vec<String> = s.needs.iter().map(|n| format!("{}/{}", n.signed.len(), n.threshold)).collect();
        let expires = if s.version == 0 { "-".into() } else { format!("{} ({})", time::format(s.expires), left(s.expires, now)) };
        rows.push(vec![s.role.clone(), s.version.to_string(), word(s).into(), signed.join(", "), expires]);
    }
    let mut out = table(&rows);
    let waiting: Vec<String> = states.iter().filter_map(RoleState::waiting_on).collect();
    for line in &waiting {
        let _ = write!(out, "\nwaiting on {line}");
    }
    if waiting.is_empty() && states.iter().any(|s| !s.is_published) {
        out.push_str("\nready: 'publish'");
    }
    Ok(Answer::new(out, object([("roles", list(states.iter().map(|s| state_json(s, now))))])))
}

fn word(state: &RoleState) -> &'static str {
    match state {
        s if s.version == 0 => "not made",
        s if s.is_published => "published",
        s if s.is_complete() => "ready",
        _ => "unsigned",
    }
}

fn left(expires: u64, now: u64) -> String {
    match expires.checked_sub(now) {
        Some(seconds) if seconds > 0 => format!("{} days", seconds / DAY),
        _ => "EXPIRED".into(),
    }
}

fn state_json(s: &RoleState, now: u64) -> Value {
    let need = |n: &super::state::Need| {
        object([
            ("authority", text(&n.authority)),
            ("missing", number(n.missing())),
            ("open", list(n.open.iter().map(text))),
            ("signed", list(n.signed.iter().map(text))),
            ("threshold", number(n.threshold)),
        ])
    };
    object([
        ("expired", Value::Bool(s.version > 0 && s.expires <= now)),
        ("expires", text(time::format(s.expires))),
        ("needs", list(s.needs.iter().map(need))),
        ("role", text(&s.role)),
        ("state", text(word(s).replace(' ', "_"))),
        ("version", number(s.version)),
    ])
}

/// Every key that a draft lists: role, id, where its private half is.
pub fn keys(repo: &Repo, ring: &Ring) -> Result<Answer> {
    let (_, root) = repo.root()?;
    let mut all: Vec<(String, BTreeMap<String, Public>)> = Vec::new();
    for role in repo.roles()? {
        let keys = repo.authorities(&role)?.into_iter().flat_map(|a| a.keys).collect();
        all.push((role, keys));
    }
    all.push((BUILD.into(), root.build_keys));
    let mut rows = vec![cells(&["ROLE", "KEY ID", "PRIVATE KEY"])];
    let mut json = Vec::new();
    for (role, keys) in &all {
        for (id, public) in keys {
            let place = ring.place(role, public)?;
            let (kind, shown) = match &place {
                Some(Place::File(_)) => ("encrypted", place.as_ref().map(Place::to_string).unwrap_or_default()),
                Some(Place::Variable(name)) => ("environment", name.clone()),
                None => ("elsewhere", String::new()),
            };
            rows.push(vec![role.clone(), id.clone(), format!("{kind} {shown}")]);
            json.push(object([("keyid", text(id)), ("kind", text(kind)), ("role", text(role)), ("where", text(shown))]));
        }
    }
    let known = |public: &Public| all.iter().any(|(_, keys)| keys.values().any(|k| k == public));
    let stray: Vec<String> =
        ring.files().filter(|(_, _, public)| !known(public)).map(|(place, role, _)| format!("{place} ({role})")).collect();
    let mut out = table(&rows);
    for file in &stray {
        let _ = write!(out, "\nno role lists the key of {file}");
    }
    Ok(Answer::new(out, object([("keys", list(json)), ("unlisted", list(stray.iter().map(text)))])))
}

fn target_json(path: &str, role: &str, target: &Target) -> Value {
    let mut fields = vec![
        ("counter", number(target.counter)),
        ("length", number(target.length)),
        ("path", text(path)),
        ("role", text(role)),
        ("sha256", text(hex::encode(&target.sha256))),
    ];
    fields.extend(target.min_version.as_ref().map(|v| ("min_version", text(v))));
    let unpacked = target.unpacked.map(|u| object([("bytes", number(u.bytes)), ("files", number(u.files))]));
    fields.extend(unpacked.map(|u| ("unpacked", u)));
    object(fields)
}

/// Every artifact that the drafts list.
pub fn artifacts(repo: &Repo) -> Result<Answer> {
    let (_, top) = repo.targets(TARGETS)?;
    let mut rows = vec![cells(&["PATH", "BYTES", "COUNTER", "SHA-256"])];
    let (mut json, mut withdrawn, mut noted) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for role in &top.roles {
        let (_, listed) = repo.targets(&role.name)?;
        withdrawn.extend(listed.withdrawn);
        noted.extend(listed.notes);
        for (path, target) in &listed.targets {
            rows.push(vec![path.clone(), target.length.to_string(), target.counter.to_string(), hex::encode(&target.sha256)]);
            json.push(target_json(path, &role.name, target));
        }
    }
    let mut out = table(&rows);
    let mut fields = vec![("artifacts", list(json))];
    for (path, w) in &withdrawn {
        let _ = write!(out, "\nwithdrawn: {path}: {}", w.reason);
    }
    for (place, lines) in &noted {
        let _ = write!(out, "\nnotes: {place}: {}", lines.first().map_or("", String::as_str));
    }
    if !noted.is_empty() {
        fields.push(("notes", object(noted.iter().map(|(place, lines)| (place, list(lines.iter().map(text)))))));
    }
    if !withdrawn.is_empty() {
        let one = |(path, w): (&String, &super::metadata::Withdrawal)| {
            object([("path", text(path)), ("reason", text(&w.reason)), ("sha256", text(hex::encode(&w.sha256)))])
        };
        fields.push(("withdrawn", list(withdrawn.iter().map(one))));
    }
    Ok(Answer::new(out, object(fields)))
}

/// What `add` did.
pub fn added(added: &[Added], unchecked: Option<&str>) -> Answer {
    let line = |a: &Added| {
        let word = if a.is_new { "added" } else { "unchanged" };
        vec![word.into(), a.path.clone(), format!("{} bytes", a.target.length), format!("role {}", a.role)]
    };
    let mut out = table(&added.iter().map(line).collect::<Vec<_>>());
    if added.iter().any(|a| a.is_new) {
        out.push_str("\nnext: 'sign'");
    }
    let json = list(added.iter().map(|a| target_json(&a.path, &a.role, &a.target)));
    let Some(why) = unchecked else { return Answer::new(out, object([("added", json)])) };
    out.push_str(&format!("\nnot checked whether these are the programs that their paths name: {why}"));
    Answer::new(out, object([("added", json), ("unchecked", text(why))]))
}
