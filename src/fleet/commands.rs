//! Commands that only Fleet has: what Directors told of their agents and of what happened.

use std::rc::Rc;

use super::api::fields::Parsed;
use super::api::lists::{self, AgentsPage, ToldPage};
use super::intake::Intake;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::args::{Ask, Words};
use crate::director::console::parse;
use crate::director::site::Site;
use crate::director::table::{Table, ago, utc};

/// Reads the options of a command that only Fleet has; `false`: it is none.
///
/// # Errors
/// One sentence.
pub fn asks(word: &str, words: &mut Words, request: &mut AdminWire) -> Result<bool, String> {
    match word {
        "agents" => request.command = "inventory".into(),
        "told" => request.file = words.option("--update")?,
        _ => return Ok(false),
    }
    request.agents = words.list("--director")?;
    if word == "told" {
        request.serials = words.list("--agent")?;
    }
    let one = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|l| l.len() == 1);
    if !one(&request.agents) || !one(&request.serials) {
        return Err(format!("{word} takes one --director and one --agent"));
    }
    request.limit = words.number("--limit")?;
    Ok(true)
}

/// The document that answers such a command.
///
/// # Errors
/// `store_unavailable`, `not_ready`.
pub async fn run(site: Rc<Site>, intake: Option<Rc<Intake>>, request: AdminWire) -> Result<String, Reason> {
    let first = |list: &Option<Vec<String>>| list.as_ref().and_then(|l| l.first()).cloned();
    let (director, agent) = (first(&request.agents), first(&request.serials));
    let parsed = Parsed { director, agent, update: request.file.clone(), wire: request, ..Default::default() };
    match parsed.wire.command.as_str() {
        "told" => lists::told(site, intake, parsed).await,
        _ => lists::agents(site, intake, parsed).await,
    }
}

/// Puts such an answer into words.
///
/// # Errors
/// The running Fleet is of another version.
pub fn shown(ask: &Ask, line: &str) -> Result<String, String> {
    match ask.request.command.as_str() {
        "inventory" => Ok(agents(&parse(line)?)),
        "told" => Ok(told(&parse(line)?)),
        _ => Ok(format!("{line}\n")),
    }
}

fn agents(page: &AgentsPage) -> String {
    if page.agents.is_empty() {
        return "no Director has told of an agent yet\n".into();
    }
    let mut table = Table::new(&["DIRECTOR", "AGENT", "VERSION", "STATE", "SEEN", "WHY"]);
    for a in &page.agents {
        let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".into());
        let version = match &a.scheduled_version {
            Some(next) => format!("{} -> {next}", text(&a.version)),
            None => text(&a.version),
        };
        let why = a.detail.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| text(&a.code));
        let seen = a.last_contact.map_or("-".into(), |at| ago(page.time, at));
        table.row(vec![a.director.clone(), a.id.clone(), version, text(&a.state), seen, why]);
    }
    let more = page.next.as_ref().map_or(String::new(), |_| "... and more: --limit, or --director\n".into());
    table.text() + &more
}

fn told(page: &ToldPage) -> String {
    let line = |e: &super::intake::Told| {
        let who = if e.agent.is_empty() { e.director.clone() } else { format!("{}/{}", e.director, e.agent) };
        let version = if e.version.is_empty() { "-" } else { &e.version };
        format!("{}  {who:<40}  {:<18}  {version:<12}  {}", utc(e.time), e.code, e.detail).trim_end().to_string() + "\n"
    };
    page.events.iter().map(line).collect()
}
