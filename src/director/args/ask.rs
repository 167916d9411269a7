//! Words and options that become a request to the running server.

use std::path::PathBuf;

use super::{Ask, Filter, Words};
use crate::core::rollout::InFlight;
use crate::director::admin::AdminWire;
use crate::director::role::Role;

/// The server's word for a command: each role calls what it manages, and what lets one enroll, by its own name.
fn common(word: &str, role: &Role) -> String {
    match word {
        word if word == role.nodes => "agents".into(),
        word if word == role.token => "token".into(),
        word if word == role.api_token => "api-token".into(),
        word => match word.split_once('-') {
            Some((act @ ("remove" | "replace"), node)) if node == role.node => format!("{act}-agent"),
            _ => word.into(),
        },
    }
}

pub(super) fn ask(typed: &str, words: &mut Words, state: PathBuf, role: &Role) -> Result<Ask, String> {
    let mut request = AdminWire { command: typed.to_string(), ..Default::default() };
    let json = words.flag("--json");
    let mut filter = Filter::default();
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    request.format = json.then(|| "json".into());
    // First: Fleet's `agents` are not its nodes.
    if typed != role.nodes && (role.asks)(typed, words, &mut request)? {
        return Ok(Ask { state, json, pin_only: false, filter, terminal, request });
    }
    request.format = None;
    let (common, one) = (common(typed, role), format!("--{}", role.node));
    let word = common.as_str();
    request.command = word.to_string();
    match word {
        _ if role.without.contains(&typed) => return Err(format!("unknown command '{typed}'; --help lists them")),
        "mirror" => {
            request.accept_expired = words.flag("--accept-expired").then_some(true);
            request.file = words.option("--file")?.map(|file| absolute(&file)).transpose()?;
            if request.accept_expired.is_some() && request.file.is_none() {
                return Err("--accept-expired belongs to --file: a mirror that is reached has no reason to be expired".into());
            }
        }
        "rollouts" | "status" | "pin" | "rejections" => {}
        "releases" => request.version = words.option("--notes")?,
        "api-token" => api_token(words, &mut request, typed)?,
        "agents" => filter = Filter::parse(words)?,
        "explain" => request.agents = Some(vec![words.word()?.ok_or_else(|| explain_whom(role))?]),
        "activity" => {
            (request.agents, request.follow) = (words.list(&one)?, Some(words.flag("--follow")));
            (request.update, request.limit) = (words.option("--update")?, words.number("--limit")?);
        }
        "token" => token(words, &mut request, role.token)?,
        "approve" | "deny" => decide(words, &mut request)?,
        "install-command" => install_command(words, &mut request)?,
        "assign" => assign(words, &mut request, &one)?,
        "cancel" | "retry" => again(words, &mut request, &one)?,
        "reject" | "allow" => file(words, &mut request, &one, role)?,
        "ca" => {
            let act = words.word()?.filter(|act| matches!(act.as_str(), "status" | "rotate" | "retire"));
            request.act = Some(act.ok_or("expected `ca status`, `ca rotate` or `ca retire [--force]`")?);
            request.force = Some(words.flag("--force"));
        }
        "remove-agent" | "replace-agent" => {
            let missing = || format!("{typed} needs the {}'s ID; `{}` lists them", role.node, role.nodes);
            request.agents = Some(vec![words.word()?.ok_or_else(missing)?]);
        }
        _ if crate::director::policing::ask::parse(word, words, role.node, &mut request)? => {}
        "" => return Err("expected a command; --help lists them".into()),
        other => return Err(format!("unknown command '{other}'; --help lists them")),
    }
    let pin_only = word == "pin";
    if pin_only {
        request.command = "status".into();
    }
    Ok(Ask { state, json, pin_only, filter, terminal, request })
}

/// `cancel`, `retry`.
fn again(words: &mut Words, request: &mut AdminWire, one: &str) -> Result<(), String> {
    request.all = words.flag("--all").then_some(true);
    (request.agents, request.rollout) = (words.list(one)?, words.number("--rollout")?);
    request.reason = words.option("--reason")?;
    request.roll_back = Some(request.command == "cancel" && words.flag("--roll-back"));
    match [request.all.is_some(), request.agents.is_some(), request.rollout.is_some()].into_iter().filter(|given| *given).count() {
        1 => Ok(()),
        _ => Err(format!("{} needs one of --all, {one} ID, --rollout N", request.command)),
    }
}

/// `reject`, `allow`.
fn file(words: &mut Words, request: &mut AdminWire, one: &str, role: &Role) -> Result<(), String> {
    (request.agents, request.reason) = (words.list(one)?, words.option("--reason")?);
    if request.command == "reject" {
        request.ttl_s = words.duration("--for")?;
    }
    let word = request.command.clone();
    let missing = || format!("{word} needs the file's SHA-256, or its first digits; `{} --json` and `explain` show it", role.nodes);
    request.hash = Some(words.word()?.ok_or_else(missing)?);
    Ok(())
}

fn install_command(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    request.os = words.option("--os")?;
    request.arch = words.option("--arch")?;
    request.version = words.option("--version")?;
    request.uses = words.number("--uses")?;
    request.ttl_s = words.duration("--ttl")?;
    Ok(())
}

/// What tokens of both kinds have in common; true: one is to be made.
fn creates(words: &mut Words, request: &mut AdminWire, name: &str) -> Result<bool, String> {
    match words.word()?.as_deref() {
        Some("create") => return Ok(true),
        Some("list") => request.list = Some(true),
        Some("revoke") => {
            request.revoke = Some(words.word()?.ok_or_else(|| format!("{name} revoke needs the ID that `{name} list` shows"))?)
        }
        _ => return Err(format!("expected `{name} create`, `{name} list` or `{name} revoke ID`")),
    }
    Ok(false)
}

fn token(words: &mut Words, request: &mut AdminWire, name: &str) -> Result<(), String> {
    creates(words, request, name)?;
    request.uses = words.number("--uses")?;
    request.ttl_s = words.life("--ttl")?;
    request.serials = words.list("--serial")?;
    request.approval = words.flag("--approval").then_some(true);
    request.label = words.option("--label")?;
    Ok(())
}

fn api_token(words: &mut Words, request: &mut AdminWire, name: &str) -> Result<(), String> {
    if creates(words, request, name)? {
        let roles = crate::core::access::Role::WORDS;
        let role = words.option("--role")?.filter(|role| roles.contains(&role.as_str()));
        request.role = Some(role.ok_or_else(|| format!("{name} create needs --role: {}", roles.join(", ")))?);
        request.ttl_s = words.duration("--ttl")?;
    }
    Ok(())
}

fn decide(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    request.serials = words.list("--serial")?;
    request.reason = words.option("--reason")?;
    request.agents = words.word()?.map(|id| vec![id]);
    match request.serials.as_ref().map_or(0, Vec::len) + request.agents.as_ref().map_or(0, Vec::len) {
        1 => Ok(()),
        _ => Err(format!("{} needs one device: its listed ID, or --serial S", request.command)),
    }
}

fn explain_whom(role: &Role) -> String {
    format!("explain needs the {}'s ID; `{}` lists them", role.node, role.nodes)
}

/// The server may run in another folder.
fn absolute(file: &str) -> Result<String, String> {
    let path = std::path::absolute(file).map_err(|e| format!("--file {file}: {e}"))?;
    path.into_os_string().into_string().map_err(|_| format!("--file {file}: the path is no plain text"))
}

fn assign(words: &mut Words, request: &mut AdminWire, one: &str) -> Result<(), String> {
    request.all = words.flag("--all").then_some(true);
    request.agents = words.list(one)?;
    if request.all.is_some() == request.agents.is_some() {
        return Err(format!("assign needs either --all or {one} ID (several times for several)"));
    }
    request.version = Some(words.option("--version")?.ok_or("assign needs --version: 2.5.0, or latest")?);
    request.product = words.option("--product")?;
    request.max_in_flight = words.option("--max-in-flight")?;
    if let Some(limit) = &request.max_in_flight {
        limit.parse::<InFlight>().map_err(|e| format!("--max-in-flight: {e}"))?;
    }
    request.max_failures = words.number("--max-failures")?;
    request.contact_deadline_s = words.duration("--contact-deadline")?;
    request.unattended = Some(words.flag("--unattended"));
    request.trial_max_s = words.duration("--trial-max")?;
    if request.trial_max_s.is_some() && request.unattended != Some(true) {
        return Err("--trial-max is the length of an unattended trial; add --unattended".into());
    }
    request.end_probation = Some(words.flag("--end-probation"));
    request.retry = Some(words.flag("--retry"));
    request.switch_in_s = words.duration("--switch-in")?;
    request.life_s = words.duration("--life")?;
    Ok(())
}
