//! Agents and what was done to them, as a person reads it: what needs somebody comes first, and every line that is not
//! over says why, whose move it is and until when.

use std::collections::BTreeMap;

use super::args::Filter;
use super::cancel::CancelView;
use super::explain::{ExplainView, Remedy};
use super::quarantine::{AllowView, RejectView, short};
use super::retry::RetryView;
use super::role::Role;
use super::table::{Table, ago, until, utc};
use super::views::{AgentView, AgentsView, RejectionsView};

/// Longest sentence in a table, characters: the whole one is in `explain`.
const WHY_MAX: usize = 100;
/// Agents of one kind (same version, state and code) that a terminal shows; the rest is counted. A pipe gets all.
const ALIKE_MAX: usize = 10;
/// Names listed in a sentence; the rest is counted.
const NAMES_MAX: usize = 8;

/// The agents that fit, those that need somebody first, then those on the move, then the quiet ones.
pub fn chosen(mut view: AgentsView, filter: &Filter) -> AgentsView {
    let version = |a: &AgentView, v: &String| a.version == *v || a.scheduled_version.as_ref() == Some(v);
    let why = |a: &AgentView, w: &String| a.code.contains(w.as_str()) || a.detail.contains(w.as_str());
    view.agents.retain(|a| {
        filter.state.as_ref().is_none_or(|s| a.state == *s)
            && filter.version.as_ref().is_none_or(|v| version(a, v))
            && filter.why.as_ref().is_none_or(|w| why(a, w))
    });
    view.agents.sort_by(|a, b| (rank(a), &a.id).cmp(&(rank(b), &b.id)));
    view
}

fn rank(agent: &AgentView) -> u8 {
    match (agent.owner.as_deref(), agent.state.as_str()) {
        (Some("operator"), _) => 0,
        (_, "silent" | "flapping" | "rolled_back") => 1,
        (_, "refused" | "expired") => 2,
        (Some("agent"), _) => 3,
        (Some(_), _) => 4,
        _ if !agent.online => 5,
        _ => 6,
    }
}

/// `agents`. `terminal`: whoever reads it sees a screen, and many of one kind are counted.
pub fn agents(view: &AgentsView, filter: &Filter, terminal: bool, role: &Role) -> String {
    if view.agents.is_empty() {
        let (nodes, token, program) = (role.nodes, role.token, role.program);
        return format!("no {nodes} yet; `{program} {token} create` makes a {token} to enroll one\n");
    }
    let all = view.agents.len();
    let view = chosen(view.clone(), filter);
    if view.agents.is_empty() {
        return format!("none of {all} {} fits\n", role.nodes);
    }
    let mut platforms: Vec<String> = view.agents.iter().map(|a| format!("{}-{}", a.os, a.architecture)).collect();
    platforms.sort();
    platforms.dedup();
    let mixed = platforms.len() > 1;
    let node = role.node.to_uppercase();
    let mut head = vec![node.as_str(), "VERSION", "STATE", "SINCE", "SEEN", "WHY"];
    if mixed {
        head.insert(2, "PLATFORM");
    }
    let mut table = Table::new(&head);
    let mut alike: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for a in &view.agents {
        let seen = alike.entry((&a.version, &a.state, &a.code)).or_default();
        *seen += 1;
        if terminal && *filter == Filter::default() && *seen > ALIKE_MAX {
            continue;
        }
        let since = a.since.filter(|_| a.owner.is_some()).map_or("-".into(), |at| ago(view.time, at));
        let mut row = vec![a.id.clone(), versions(a), state(a), since, ago(view.time, a.last_contact), clipped(&why(a, view.time))];
        if mixed {
            row.insert(2, format!("{}-{}", a.os, a.architecture));
        }
        table.row(row);
    }
    let mut out = table.text();
    if terminal && *filter == Filter::default() {
        for ((version, state, code), n) in alike.iter().filter(|(_, n)| **n > ALIKE_MAX) {
            let more = n - ALIKE_MAX;
            out += &format!("... and {more} more on {version}, {state}, {code}: `{} --state {state} --version {version}`\n", role.nodes);
        }
    }
    out + &summary(&view, all, role)
}

fn versions(a: &AgentView) -> String {
    match &a.scheduled_version {
        Some(next) if *next != a.version => format!("{} -> {next}", a.version),
        _ => a.version.clone(),
    }
}

/// One line below the table: with a thousand agents it is what is seen.
fn summary(view: &AgentsView, all: usize, role: &Role) -> String {
    let count = |fits: &dyn Fn(&AgentView) -> bool| view.agents.iter().filter(|a| fits(a)).count();
    let mut by_version: Vec<(String, usize)> = Vec::new();
    for a in &view.agents {
        match by_version.iter_mut().find(|(v, _)| *v == a.version) {
            Some((_, n)) => *n += 1,
            None => by_version.push((a.version.clone(), 1)),
        }
    }
    by_version.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let versions: Vec<String> = by_version.iter().take(4).map(|(v, n)| format!("{n} run {v}")).collect();
    let shown =
        if view.agents.len() == all { format!("{all} {}", role.nodes) } else { format!("{} of {all} {}", view.agents.len(), role.nodes) };
    let (needing, failed) = (count(&|a| rank(a) == 0), count(&|a| rank(a) == 1));
    let (moving, offline) = (count(&|a| matches!(rank(a), 3 | 4)), count(&|a| !a.online));
    let mut parts = vec![shown, versions.join(", ")];
    for (n, what) in [(needing, "wait for you"), (failed, "failed"), (moving, "under way"), (offline, "not reachable")] {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    }
    let mut out = format!("\n{}\n", parts.join("; "));
    if needing + failed > 0 {
        out += &format!("`{} explain {}` says what to do\n", role.program, role.node.to_uppercase());
    }
    out
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(WHY_MAX) {
        Some((at, _)) => format!("{}...", text[..at].trim_end()),
        None => text.to_string(),
    }
}

fn state(agent: &AgentView) -> String {
    match agent.percent {
        Some(percent) if agent.state == "downloading" => format!("downloading {percent}%"),
        _ => agent.state.clone(),
    }
}

/// The owner and the time come first: they must not be cut off.
fn why(agent: &AgentView, now: u64) -> String {
    let mut out = String::new();
    if let Some(owner) = &agent.owner {
        out = match agent.deadline {
            Some(deadline) => format!("[{owner}, {}] ", until(now, deadline)),
            None => format!("[{owner}] "),
        };
    }
    out += if agent.detail.is_empty() { &agent.code } else { &agent.detail };
    if let Some(second) = &agent.second_device {
        out = format!("[refused: a second device with this identity, {second}] {out}");
    }
    if let Some(reason) = &agent.withdrawn {
        out = format!("[withdrawn: {reason}] {out}");
    }
    if agent.clock != "ok" && !agent.clock.is_empty() {
        out = format!("[clock {}] {out}", agent.clock);
    }
    out
}

fn moment(now: u64, at: u64) -> String {
    match at {
        0 => "never".into(),
        _ if at > now => format!("{} ({})", utc(at), until(now, at)),
        _ => format!("{} ({})", utc(at), ago(now, at)),
    }
}

/// What its policy says and does about it.
fn policy_lines(view: &ExplainView) -> Lines {
    let Some(policy) = &view.policy else { return Vec::new() };
    let values: Vec<String> = policy.values.iter().map(|v| format!("{} {} ({})", v.field, v.value, v.tier)).collect();
    let mut out = vec![("policy", values.join(", "))];
    out.push(("decides", format!("{}: {} ({})", policy.decision, policy.detail, policy.code)));
    if let Some(next) = policy.next {
        out.push(("acts", format!("{} = {}", moment(view.time, next), policy.next_local.as_deref().unwrap_or_default())));
    }
    out.extend(policy.note.clone().map(|note| ("but", note)));
    out
}

/// A name and what is said of it.
type Lines = Vec<(&'static str, String)>;

/// `explain`.
pub fn explain(view: &ExplainView, role: &Role) -> String {
    let parts =
        [runs_lines(view, role), policy_lines(view), now_lines(view), byte_lines(view), past_lines(view), contact_lines(view, role)];
    let mut out: String = parts.into_iter().flatten().map(|(name, value)| format!("{name:<13} {value}\n")).collect();
    if !view.remedies.is_empty() {
        out += "\nyou can\n";
        view.remedies.iter().for_each(|r| out += &remedy(r));
    }
    out
}

/// What a limit of bytes lets it have.
fn byte_lines(view: &ExplainView) -> Lines {
    let today = view.bytes_today.zip(view.bytes_per_day).map(|(bytes, limit)| ("bytes today", format!("{bytes} of {limit}")));
    today.into_iter().chain(view.bytes_refused.clone().map(|refused| ("no more bytes", refused))).collect()
}

/// What it said when it was enrolled is all there is before its first report.
fn has_reported(a: &AgentView) -> bool {
    !a.running_sha256.is_empty()
}

/// Who it is, what it runs, what it should run.
fn runs_lines(view: &ExplainView, role: &Role) -> Lines {
    let a = &view.agent;
    let place = if a.running == "factory" { "factory image".to_string() } else { format!("slot {}", a.running) };
    let runs = match (&a.fingerprint, has_reported(a)) {
        (Some(_), _) => format!("{} by its own word; it has no identity here", a.version),
        (None, true) => format!("{} ({place}, {}) sha256 {}", a.version, a.running_as, short(&a.running_sha256)),
        (None, false) => format!("{} by its enrollment; it has not reported yet", a.version),
    };
    let desired = match (&view.desired_version, &view.desired_sha256) {
        (Some(version), Some(sha256)) => format!("{version} sha256 {}{}", short(sha256), if view.fulfilled { ": it runs it" } else { "" }),
        (Some(version), None) => version.clone(),
        _ => "nothing: no roll-out has it on its list".into(),
    };
    let who = format!("{} ({}, {}-{})", a.id, a.hostname, a.os, a.architecture);
    let mut out = vec![(role.node, who), ("runs", runs), ("should run", desired)];
    if let (Some(id), Some(state)) = (a.rollout, &view.rollout_state) {
        let detail = view.rollout_detail.as_ref().map_or(String::new(), |d| format!(": {d}"));
        out.push(("because of", format!("roll-out {id}, {state}{detail}")));
    }
    out
}

/// Its state: why, since and until when, whose move it is.
fn now_lines(view: &ExplainView) -> Lines {
    let (a, now) = (&view.agent, view.time);
    let why = format!("{} ({})", if a.detail.is_empty() { &a.state } else { &a.detail }, a.code);
    let mut out = vec![("state", state(a)), ("why", why)];
    out.extend(a.since.map(|since| ("since", moment(now, since))));
    match (&a.owner, a.deadline) {
        (Some(owner), Some(deadline)) => {
            let lost = if a.fingerprint.is_some() { "it is told that nobody decided" } else { "it counts as lost" };
            out.push(("until", format!("{}: then {}", moment(now, deadline), view.then.as_deref().unwrap_or(lost))));
            out.push(("next move", owner.clone()));
        }
        _ => out.push(("next move", "nobody's: it is at an end".into())),
    }
    out.extend(view.retry_at.map(|at| ("tried again", moment(now, at))));
    out
}

/// What came of earlier orders, and what keeps new ones away.
fn past_lines(view: &ExplainView) -> Lines {
    let (now, mut out) = (view.time, Lines::new());
    if let Some(r) = &view.last_result {
        let what = format!("{} {} by roll-out {}, {}: {} ({})", r.outcome, r.version, r.rollout, moment(now, r.at), r.detail, r.code);
        out.push(("last result", what));
    }
    out.extend(view.quarantined.clone().map(|why| ("kept from it", why)));
    for r in &view.rejects {
        let end = r.retry_at.map_or("until somebody says retry".into(), |at| format!("until {}", moment(now, at)));
        let what = format!("{} sha256 {}: {} ({}), {} time(s), {end}", r.version, short(&r.sha256), r.verdict, r.code, r.count);
        out.push(("it rejects", what));
    }
    out
}

/// Whether it can be reached, and what it knows.
fn contact_lines(view: &ExplainView, role: &Role) -> Lines {
    let a = &view.agent;
    let contact = match (has_reported(a) || a.fingerprint.is_some(), a.online) {
        (false, _) => "enrolled, not heard since",
        (true, true) => "reachable",
        (true, false) => "NOT REACHABLE",
    };
    let mut out = vec![("contact", format!("{}; {contact}", moment(view.time, a.last_contact)))];
    if let Some(second) = &a.second_device {
        let what = format!("a second device with this identity, {second}; `replace-{} {}` decides for it", role.node, a.id);
        out.push(("refused", what));
    }
    out.push(("clock", if a.clock.is_empty() { "unknown".into() } else { a.clock.clone() }));
    let metadata = format!(
        "root {}, timestamp {}, snapshot {}, targets {}",
        a.root_version, a.timestamp_version, a.snapshot_version, a.targets_version
    );
    out.push(("metadata", format!("{metadata}; the mirror has timestamp {}", view.mirror_timestamp_version)));
    out
}

fn remedy(r: &Remedy) -> String {
    if r.command.is_empty() { format!("  {}\n", r.what) } else { format!("  {}\n      {}\n", r.command, r.what) }
}

/// `rejections`.
pub fn rejections(view: &RejectionsView, role: &Role) -> String {
    if view.rejections.is_empty() {
        return "no file is rejected\n".into();
    }
    let mut table = Table::new(&["SHA256", "VERSION", "WHOM", "SINCE", "UNTIL", "BY", "WHY"]);
    for q in &view.rejections {
        let whom = match (q.rollout, q.agent.as_str()) {
            (0, "") => format!("every {}", role.node),
            (0, agent) if q.allowed => format!("allowed to {agent}"),
            (0, agent) => agent.to_string(),
            (id, _) => format!("{} of roll-out {id}", role.nodes),
        };
        let until = q.expires_at.map_or("allow".into(), |at| until(view.time, at));
        let by = if q.by.is_empty() { "director".to_string() } else { q.by.clone() };
        table.row(vec![short(&q.sha256).into(), q.version.clone(), whom, ago(view.time, q.since), until, by, q.detail.clone()]);
    }
    table.text()
}

fn names(list: &[String]) -> String {
    let more = list.len().saturating_sub(NAMES_MAX);
    let shown: Vec<&str> = list.iter().take(NAMES_MAX).map(String::as_str).collect();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

/// `cancel`.
pub fn cancelled(view: &CancelView, role: &Role) -> String {
    let mut out = match view.cancelled {
        0 => String::new(),
        n => format!("cancelled for {n} {}(s); {} told\n", role.node, view.told),
    };
    for id in &view.rollouts {
        out += &format!("roll-out {id} is over\n");
    }
    if !view.on_trial.is_empty() {
        out += &format!(
            "too late for {}: on trial; the trial goes on to its own verdict (`explain` says until when), or goes back with --roll-back\n",
            names(&view.on_trial)
        );
    }
    if !view.going_back.is_empty() {
        out += &format!("refused on trial, goes back: {}\n", names(&view.going_back));
    }
    if out.is_empty() { "nothing was open; nothing has changed\n".into() } else { out }
}

/// `retry`.
pub fn retried(view: &RetryView, role: &Role) -> String {
    let mut out = String::new();
    for r in &view.rollouts {
        out += &format!("roll-out {}: version {} for {} {}(s) again\n", r.rollout, r.version, r.group, role.node);
    }
    for l in view.left_out.iter().take(NAMES_MAX) {
        out += &format!("not {}: {} ({})\n", l.agent, l.detail, l.code);
    }
    let more = view.left_out.len().saturating_sub(NAMES_MAX);
    if more > 0 {
        out += &format!("and not {more} others; --json lists them\n");
    }
    if out.is_empty() { "there is nothing to try again\n".into() } else { out }
}

/// `reject`.
pub fn rejected(view: &RejectView, role: &Role) -> String {
    let file = format!("{} {}", view.version, short(&view.sha256));
    let mut out = match view.already {
        true => format!("{file} was rejected before\n"),
        false => format!("{file} is rejected\n"),
    };
    if view.withdrawn > 0 {
        out += &format!("withdrawn from {} {}(s), which drop what they have staged\n", view.withdrawn, role.node);
    }
    if !view.going_back.is_empty() {
        out += &format!("refused on trial, goes back: {}\n", names(&view.going_back));
    }
    if !view.running.is_empty() {
        let n = view.running.len();
        out += &format!("{n} {}(s) run it and are left alone: {}\n", role.node, names(&view.running));
        out += &format!("to move them: {} assign --{} ID... --version ANOTHER\n", role.program, role.node);
    }
    out
}

/// `allow`.
pub fn allowed(view: &AllowView, role: &Role) -> String {
    let file = format!("{} {}", view.version, short(&view.sha256));
    let mut out = match view.lifted {
        0 => format!("{} was not rejected here; nothing has changed\n", file.trim_start()),
        _ => format!("{file} may be ordered again; `retry` orders it where it was left out\n"),
    };
    if !view.own.is_empty() {
        out += &format!("rejected by their own trial, which only `retry --{} ID` passes: {}\n", role.node, names(&view.own));
    }
    out
}
