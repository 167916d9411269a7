//! The commands of Fleet's administrator about what Directors told: their health, agents and activity.

use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::clusters;
use super::confirm;
use super::explain;
use super::intake::{Asked, Intake, SiteAgent, Told};
use super::{templates, webhooks};
use crate::core::reason::Reason;
use crate::director::admin::{AdminWire, line, status};
use crate::director::args::{Ask, Words};
use crate::director::commands::EVENTS_SHOWN;
use crate::director::console::parse;
use crate::director::site::Site;
use crate::director::table::{Table, ago, span, utc};
use crate::io::clock;
use crate::wire::fleet_api::{HealthWire, MetadataWire};

/// As they travel to the running Fleet.
pub const COMMANDS: [&str; 3] = ["site-agents", "told", "health"];
/// Agents shown without `--limit`.
const AGENTS_SHOWN: u64 = 10_000;

/// A Director as it said last.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct HealthView {
    /// Its identity.
    pub director: String,
    /// When it was heard last, seconds since 1970; absent = never.
    pub heard_at: Option<u64>,
    /// What it said.
    pub health: Option<HealthWire>,
    /// How many agents it told of.
    pub agents: u64,
    /// Fleet's time.
    pub time: u64,
}

/// An agent for people and programs.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct SiteAgentsView {
    /// In the order of Directors and ids.
    pub agents: Vec<SiteAgent>,
    /// There are more.
    pub more: bool,
    /// Fleet's time.
    pub time: u64,
}

/// Reads the options.
///
/// # Errors
/// Wrong usage.
pub fn asks(word: &str, words: &mut Words, request: &mut AdminWire) -> Result<bool, String> {
    match word {
        "agents" => {
            request.command = "site-agents".into();
            (request.director, request.limit) = (words.option("--director")?, words.number("--limit")?);
            Ok(true)
        }
        "health" => Ok(true),
        // Two words with a slash are an agent's; one is a Director's, and the server's own.
        "explain" if words.any_word(|word| word.contains('/')) => {
            request.command = explain::COMMAND.into();
            request.agents = words.word()?.map(|word| vec![word]);
            Ok(true)
        }
        "authorize" | "authorizations" => confirm::asks(word, words, request),
        clusters::COMMAND => clusters::asks(words, request).map(|()| true),
        templates::COMMAND => templates::asks(words, request).map(|()| true),
        webhooks::COMMAND => webhooks::asks(words, request).map(|()| true),
        "activity" => {
            let update = words.option("--update")?;
            if update.is_none() && !words.flag("--told") {
                return Ok(false);
            }
            request.command = "told".into();
            (request.director, request.limit, request.update) = (words.option("--director")?, words.number("--limit")?, update);
            request.agents = words.option("--agent")?.map(|agent| vec![agent]);
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Answers one.
///
/// # Errors
/// `store_unavailable`, or the administrator left.
pub async fn run(intake: Rc<Intake>, site: &Rc<Site>, request: &AdminWire, out: &mut UnixStream) -> Result<(), Reason> {
    let gone = |e: std::io::Error| Reason::new("connection_lost", e.to_string());
    let unread = |e: String| Reason::new("store_unavailable", e);
    let limit = |shown: u64| usize::try_from(request.limit.unwrap_or(shown)).unwrap_or(usize::MAX);
    let time = clock::unix();
    site.store.durable().await.map_err(unread)?;
    match request.command.as_str() {
        "site-agents" => {
            let most = limit(AGENTS_SHOWN).max(1);
            let mut agents = intake.agents(site, request.director.as_deref(), None, most.saturating_add(1)).await.map_err(unread)?;
            let more = agents.len() > most;
            agents.truncate(most);
            status(out, "ok", "").await.map_err(gone)?;
            line(out, &SiteAgentsView { agents, more, time }).await.map_err(gone)
        }
        "told" => {
            let most = limit(EVENTS_SHOWN);
            let told = match &request.update {
                Some(update) => intake.timeline(site, update, most).await,
                None => {
                    let agent = request.agents.as_ref().and_then(|a| a.first().cloned());
                    intake.activity(site, &Asked { director: request.director.clone(), agent, limit: most, ..Default::default() }).await
                }
            };
            let told = told.map_err(unread)?;
            status(out, "ok", "").await.map_err(gone)?;
            for event in &told {
                line(out, event).await.map_err(gone)?;
            }
            Ok(())
        }
        _ => {
            let ids: Vec<String> =
                site.registry.borrow().agents.values().filter(|a| a.removed_at.is_none()).map(|a| a.id.clone()).collect();
            status(out, "ok", "").await.map_err(gone)?;
            for id in ids {
                let (health, heard_at) = intake.health_of(&id).unzip();
                let agents = intake.agents_of(&id) as u64;
                line(out, &HealthView { director: id, heard_at, health, agents, time }).await.map_err(gone)?;
            }
            Ok(())
        }
    }
}

/// The answer for people.
///
/// # Errors
/// The running Fleet is of another version.
pub fn shown(ask: &Ask, text: &str) -> Result<String, String> {
    match ask.request.command.as_str() {
        "site-agents" => Ok(agents(&parse(text)?)),
        "told" => Ok(event(&parse(text)?)),
        "health" => Ok(health(&parse(text)?)),
        explain::COMMAND => Ok(explain::shown(&parse(text)?)),
        confirm::COMMAND => Ok(confirm::shown(&parse(text)?)),
        clusters::COMMAND => Ok(clusters::shown(&parse(text)?)),
        templates::COMMAND => Ok(templates::shown(&parse(text)?)),
        webhooks::COMMAND => Ok(webhooks::shown(&parse(text)?)),
        _ => Ok(format!("{text}\n")),
    }
}

fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or("-".into())
}

fn agents(view: &SiteAgentsView) -> String {
    if view.agents.is_empty() {
        return "no Director has told of an agent yet\n".into();
    }
    let mut table = Table::new(&["DIRECTOR", "AGENT", "VERSION", "PLATFORM", "STATE", "SEEN", "WHY"]);
    for a in &view.agents {
        let version = match &a.scheduled_version {
            Some(next) => format!("{} -> {next}", or_dash(&a.version)),
            None => or_dash(&a.version),
        };
        let seen = match a.online {
            Some(true) => "online".into(),
            _ => a.last_contact.map_or("-".into(), |at| ago(view.time, at)),
        };
        let platform = format!("{}-{}", or_dash(&a.os), or_dash(&a.architecture));
        let why = a.detail.clone().or(a.code.clone()).unwrap_or_default();
        table.row(vec![a.director.clone(), a.id.clone(), version, platform, or_dash(&a.state), seen, why]);
    }
    let more = if view.more { "... and more: --director ID, --limit N\n" } else { "" };
    format!("{}{more}", table.text())
}

fn event(event: &Told) -> String {
    let who = match event.agent.is_empty() {
        true => event.director.clone(),
        false => format!("{}/{}", event.director, event.agent),
    };
    let version = if event.version.is_empty() { "-" } else { &event.version };
    let by = event.by.as_ref().map_or(String::new(), |by| format!(" [{by}]"));
    let late = match event.told_at.saturating_sub(event.time) {
        late @ 60.. => format!(" (told {} later)", span(late)),
        _ => String::new(),
    };
    let text = format!("{}  {who:<40}  {:<18}  {version:<12}  {}{by}{late}", utc(event.time), event.code, event.detail);
    text.trim_end().to_string() + "\n"
}

fn health(view: &HealthView) -> String {
    let Some(h) = &view.health else { return format!("{}: has not said anything yet\n", view.director) };
    let mut out = format!(
        "{} ({}): {}{}, {}-{}, heard {}\n",
        view.director,
        or_dash(&h.hostname),
        h.version,
        h.scheduled_version.as_ref().map_or(String::new(), |next| format!(" -> {next}")),
        h.os,
        h.architecture,
        ago(view.time, view.heard_at.unwrap_or(0)),
    );
    let mut say = |name: &str, value: String| out += &format!("  {name:<12} {value}\n");
    if let Some(step) = &h.step {
        let percent = h.percent.map_or(String::new(), |p| format!(" {p} %"));
        let until = h.until.map_or(String::new(), |at| format!(", until {}", utc(at)));
        say("step", format!("{step}{percent}: {} ({}){until}", or_dash(&h.detail), or_dash(&h.code)));
    }
    let counts: Vec<String> = h.agents.iter().flatten().map(|c| format!("{} {}", c.count, c.state)).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    say("agents", format!("{} ({} online){counts}", view.agents, h.agents_online.unwrap_or(0)));
    h.metadata.iter().flatten().for_each(|m| say(&m.of, metadata(m)));
    say("disk", h.disk_free.map_or("-".into(), |free| format!("{} MiB free", free >> 20)));
    if let Some(clock) = &h.clock {
        say("clock", clock.clone());
    }
    if let Some(error) = &h.mirror_error {
        say("mirror", error.clone());
    }
    if h.backlog.unwrap_or(0) > 0 {
        say("backlog", format!("{} events", h.backlog.unwrap_or(0)));
    }
    out
}

fn metadata(m: &MetadataWire) -> String {
    let roles = [
        ("root", m.root, m.root_expires),
        ("timestamp", m.timestamp, m.timestamp_expires),
        ("snapshot", m.snapshot, m.snapshot_expires),
        ("targets", m.targets, m.targets_expires),
    ];
    let known = roles.into_iter().filter_map(|(name, version, end)| {
        let end = end.map_or(String::new(), |at| format!(" until {}", utc(at)));
        version.map(|version| format!("{name} {version}{end}"))
    });
    known.collect::<Vec<_>>().join(", ")
}
