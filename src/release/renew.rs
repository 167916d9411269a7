//! `renew`: what a daily job runs. The timestamp always; everything else when a third of its validity is left and its keys are
//! at hand; else it says who has to sign by when.

use std::path::Path;

use miniserde::json::Value;

use super::cli::Answer;
use super::envelope::Authority;
use super::failure::{Failure, Result};
use super::json::{Node, list, number, object, text};
use super::metadata::{ROOT, SNAPSHOT, TIMESTAMP, read_header};
use super::publish;
use super::repo::Repo;
use super::ring::Ring;
use super::sign;
use super::state::{RoleState, kind};
use crate::core::time;

/// A role is renewed when less than one part in so many of its validity is left: enough time for people who have to meet.
const LEFT: u64 = 3;
const DAY: u64 = 86_400;

/// How `renew` works.
pub struct Wish<'a> {
    /// Say what would be done.
    pub dry_run: bool,
    /// Publish it, too.
    pub out: Option<&'a Path>,
}

/// A role that somebody else has to sign.
struct Due {
    role: String,
    /// Of what is published now; after it devices refuse new versions.
    expires: u64,
    why: String,
    needs: Vec<(String, u64, Vec<String>)>,
}

/// Runs it.
pub fn renew(repo: &Repo, ring: &mut Ring, wish: &Wish, now: u64) -> Result<Answer> {
    let (mut renewed, mut due) = (Vec::new(), Vec::new());
    for role in repo.roles()?.into_iter().filter(|r| r != TIMESTAMP) {
        match decide(repo, ring, &role, now)? {
            Decision::Good => {}
            Decision::Renew => {
                if !wish.dry_run {
                    sign_anew(repo, ring, &role, now)?;
                }
                renewed.push(role);
            }
            Decision::Due(needed) => due.push(needed),
        }
    }
    // Last, because it names the snapshot.
    if at_hand(ring, TIMESTAMP, &repo.authorities(TIMESTAMP)?)? {
        if !wish.dry_run {
            let only = |role: &str| sign::Wish { roles: vec![role.into()], renew: role == TIMESTAMP };
            // What was renewed above is named by a new snapshot, if its key is here.
            if !renewed.is_empty() && at_hand(ring, SNAPSHOT, &repo.authorities(SNAPSHOT)?)? {
                sign::sign(repo, ring, &only(SNAPSHOT), now)?;
            }
            sign::sign(repo, ring, &only(TIMESTAMP), now)?;
        }
        renewed.push(TIMESTAMP.into());
    } else {
        due.push(needed(repo, TIMESTAMP, "its key is not at hand", repo.authorities(TIMESTAMP)?)?);
    }
    let mut published = None;
    if let Some(out) = wish.out.filter(|_| !wish.dry_run) {
        let plan = publish::plan(repo, now)?;
        publish::publish(repo, &plan, out, false, now)?;
        published = Some((out, plan.timestamp.version));
    }
    answer(repo, wish, &renewed, &due, published, now)
}

enum Decision {
    Good,
    Renew,
    Due(Due),
}

fn decide(repo: &Repo, ring: &Ring, role: &str, now: u64) -> Result<Decision> {
    let state = RoleState::look(repo, role)?;
    if let Some(waiting) = state.waiting_on().filter(|_| role != SNAPSHOT) {
        let open = state.needs.iter().filter(|n| n.missing() > 0).map(|n| (n.authority.clone(), n.missing(), n.open.clone())).collect();
        return Ok(Decision::Due(Due { role: role.into(), expires: expiry(repo, role)?, why: waiting, needs: open }));
    }
    let expires = expiry(repo, role)?;
    let validity = repo.settings.expires(role, 0);
    if expires.saturating_sub(now) >= validity / LEFT {
        return Ok(Decision::Good);
    }
    if !state.is_published && state.is_complete() {
        return Ok(Decision::Good);
    }
    let holders = holders(repo, role)?;
    if role == SNAPSHOT && !RoleState::all(repo)?.iter().all(|s| [SNAPSHOT, TIMESTAMP].contains(&s.role.as_str()) || s.is_complete()) {
        return needed(repo, role, "a role before it still lacks signatures", holders).map(Decision::Due);
    }
    if at_hand(ring, role, &holders)? {
        return Ok(Decision::Renew);
    }
    needed(repo, role, "less than a third of its validity is left", holders).map(Decision::Due)
}

/// Who signs the next version. The next root needs the keys of the one before it, which are its own.
fn holders(repo: &Repo, role: &str) -> Result<Vec<Authority>> {
    if role == ROOT {
        return Ok(repo.root()?.1.authority(ROOT).into_iter().collect());
    }
    repo.authorities(role)
}

fn at_hand(ring: &Ring, role: &str, authorities: &[Authority]) -> Result<bool> {
    for authority in authorities {
        let mut held = 0;
        for public in authority.keys.values() {
            held += u64::from(ring.place(role, public)?.is_some());
        }
        if held < authority.threshold {
            return Ok(false);
        }
    }
    Ok(!authorities.is_empty())
}

fn needed(repo: &Repo, role: &str, why: &str, holders: Vec<Authority>) -> Result<Due> {
    let needs = holders.into_iter().map(|a| (a.name, a.threshold, a.keys.into_keys().collect())).collect();
    Ok(Due { role: role.into(), expires: expiry(repo, role)?, why: why.into(), needs })
}

/// When what devices have now expires: the published version, or the draft before the first publication.
fn expiry(repo: &Repo, role: &str) -> Result<u64> {
    let newest = match repo.published(role)?.last() {
        Some(version) => repo.published_envelope(role, *version)?,
        None => repo.draft(role)?,
    };
    let Some(envelope) = newest else { return Ok(0) };
    Ok(read_header(&Node::top(&envelope.signed, role), kind(role))?.1)
}

fn sign_anew(repo: &Repo, ring: &mut Ring, role: &str, now: u64) -> Result<()> {
    sign::sign(repo, ring, &sign::Wish { roles: vec![role.into()], renew: true }, now).map(drop)
}

fn answer(repo: &Repo, wish: &Wish, renewed: &[String], due: &[Due], published: Option<(&Path, u64)>, now: u64) -> Result<Answer> {
    let mut lines = Vec::new();
    let mut done = Vec::new();
    for role in renewed {
        let state = RoleState::look(repo, role)?;
        let line = match wish.dry_run {
            true => format!("would renew: {role}"),
            false => format!("renewed: {role} version {}, valid until {}", state.version, time::format(state.expires)),
        };
        lines.push(line);
        done.push(object([("expires", text(time::format(state.expires))), ("role", text(role)), ("version", number(state.version))]));
    }
    for d in due {
        let days = d.expires.saturating_sub(now) / DAY;
        lines.push(format!("must be signed by {} ({days} days): {}: {}", time::format(d.expires), d.role, d.why));
        for (authority, count, keys) in &d.needs {
            lines.push(format!("  {count} of the keys of {authority}: {}", keys.join(" ")));
        }
        lines.push(format!("  there: vmetric-release sign --repo REPO --keys KEYS --role {} --renew", d.role));
    }
    match published {
        Some((out, version)) => lines.push(format!("{}: timestamp version {version}", out.display())),
        None if !wish.dry_run && !renewed.is_empty() => lines.push("next: 'publish'".into()),
        None => {}
    }
    let need = |(authority, count, keys): &(String, u64, Vec<String>)| {
        object([("authority", text(authority)), ("keys", list(keys.iter().map(text))), ("missing", number(*count))])
    };
    let one = |d: &Due| {
        object([
            ("by", text(time::format(d.expires))),
            ("needs", list(d.needs.iter().map(need))),
            ("role", text(&d.role)),
            ("why", text(&d.why)),
        ])
    };
    let json = object([
        ("dry_run", Value::Bool(wish.dry_run)),
        ("due", list(due.iter().map(one))),
        ("published", Value::Bool(published.is_some())),
        ("renewed", list(done)),
    ]);
    if renewed.is_empty() && due.is_empty() {
        return Err(Failure::new("nothing", "there is nothing to renew"));
    }
    let mut answer = Answer::new(lines.join("\n"), json);
    answer.due = !due.is_empty();
    Ok(answer)
}
