//! The administrator's side of the socket: one request, then tables for people or JSON for programs.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use miniserde::json;

use super::acts::OrderedView;
use super::admin::{AdminWire, SOCKET, StatusWire};
use super::api_tokens;
use super::approval::ApprovalView;
use super::args::Ask;
use super::commands::{InstallView, TokenView};
use super::enroll::{NEVER, TokensView};
use super::records::Event;
use super::releases;
use super::role::Role;
use super::shown;
use super::table::{Table, ago, until, utc};
use super::uplink::FleetView;
use super::views::{RolloutsView, StatusView};

/// Asks the running Director and prints its answer.
///
/// # Errors
/// One line for standard error: what is wrong and what to do.
pub fn run(ask: &Ask, role: &Role, out: &mut impl Write) -> Result<(), String> {
    let mut stream = connect(&ask.state, role)?;
    let mut request = json::to_string(&ask.request);
    request.push('\n');
    stream.write_all(request.as_bytes()).map_err(|e| format!("{} does not take the request: {e}", role.program))?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().ok_or("the server ended the connection without an answer; its log says why")?.map_err(gone)?;
    let status: StatusWire = parse(&first)?;
    if status.code != "ok" {
        return Err(format!("{} ({})", status.detail, status.code));
    }
    for line in lines {
        let line = line.map_err(gone)?;
        let printed = match (ask.json, ask.request.command.as_str()) {
            (true, "agents") => writeln!(out, "{}", json::to_string(&shown::chosen(parse(&line)?, &ask.filter))),
            (true, _) => writeln!(out, "{line}"),
            _ => print(ask, role, &line, out)?,
        };
        match printed.and_then(|()| out.flush()) {
            // `| head` has seen enough.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(|e| e.to_string())?,
        }
        super::cluster::command::verdict(ask, &line)?;
    }
    Ok(())
}

/// One question, and the first line of its answer; `None`: nobody runs there.
///
/// # Errors
/// The refusal.
pub fn ask_one(state: &Path, request: &AdminWire) -> Result<Option<String>, String> {
    let Ok(mut stream) = UnixStream::connect(state.join(SOCKET)) else { return Ok(None) };
    stream.write_all((json::to_string(request) + "\n").as_bytes()).map_err(|e| e.to_string())?;
    let mut lines = BufReader::new(stream).lines();
    let status: StatusWire = parse(&lines.next().unwrap_or(Ok(String::new())).map_err(gone)?)?;
    match status.code.as_str() {
        "ok" => lines.next().transpose().map_err(gone),
        _ => Err(format!("{} ({})", status.detail, status.code)),
    }
}

fn connect(state: &Path, role: &Role) -> Result<UnixStream, String> {
    let socket = state.join(SOCKET);
    UnixStream::connect(&socket).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
            "no {} runs with the state folder {}; start it with `{} run`, or name the right folder with --state",
            role.title,
            state.display(),
            role.program
        ),
        ErrorKind::PermissionDenied => format!("{} belongs to another user; run this as the user of {}", socket.display(), role.program),
        _ => format!("{}: {e}", socket.display()),
    })
}

fn gone(e: io::Error) -> String {
    format!("the connection to the server ended: {e}")
}

/// One line of an answer.
///
/// # Errors
/// The other side is of another version.
pub fn parse<T: miniserde::Deserialize>(line: &str) -> Result<T, String> {
    json::from_str(line).map_err(|_| "the answer is not understood; this program and the running one differ in version".to_string())
}

fn print(ask: &Ask, role: &Role, line: &str, out: &mut impl Write) -> Result<io::Result<()>, String> {
    let text = match ask.request.command.as_str() {
        "agents" => shown::agents(&parse(line)?, &ask.filter, ask.terminal, role),
        "explain" => shown::explain(&parse(line)?, role),
        "rejections" => shown::rejections(&parse(line)?, role),
        "cancel" => shown::cancelled(&parse(line)?, role),
        "retry" => shown::retried(&parse(line)?, role),
        "reject" => shown::rejected(&parse(line)?, role),
        "allow" => shown::allowed(&parse(line)?, role),
        "rollouts" => rollouts(&parse(line)?, role),
        "policy" => match ask.request.act.as_deref() {
            Some("history") => super::policing::history::text(&parse(line)?),
            Some("check") => super::policing::scopes::text(&parse(line)?),
            _ => super::policing::show::text(&parse(line)?),
        },
        "authorize" => super::policing::ask::authorized(&parse(line)?),
        "activity" => event(&parse(line)?),
        "token" if ask.request.list == Some(true) || ask.request.revoke.is_some() => tokens(&parse(line)?, role),
        "token" => token(&parse(line)?, role),
        "api-token" if ask.request.role.is_some() => api_tokens::made(&parse(line)?),
        "api-token" => api_tokens::listed(&parse(line)?, role),
        "releases" => releases::text(&parse(line)?),
        "install-command" => install(&parse(line)?, role),
        "ca" => super::ca::text(&parse(line)?, role),
        "replace-agent" => "replaced; the second device is served at its next try, the first is refused from now on\n".to_string(),
        "assign" => assigned(&parse(line)?, role),
        "approve" | "deny" => decided(&parse(line)?),
        "remove-agent" => "removed; its credential is refused from now on\n".to_string(),
        _ if ask.pin_only => format!("{}\n", parse::<StatusView>(line)?.pin),
        "status" | "mirror" => status(&parse(line)?, role),
        _ => (role.shown)(ask, line)?,
    };
    Ok(out.write_all(text.as_bytes()))
}

fn rollouts(view: &RolloutsView, role: &Role) -> String {
    if view.rollouts.is_empty() {
        return format!("no roll-outs yet; `{}` makes one\n", role.command("assign"));
    }
    let mut table =
        Table::new(&["ROLL-OUT", "VERSION", "STATE", "DONE", "MOVING", "WAITING", "FAILED", "LEFT OUT", "MADE", "UNTIL", "WHY"]);
    for r in &view.rollouts {
        table.row(vec![
            r.id.to_string(),
            r.version.clone(),
            r.state.clone(),
            format!("{}/{}", r.done, r.group),
            format!("{} (max {})", r.moving, r.max_in_flight),
            r.waiting.to_string(),
            format!("{} (max {})", r.failed, r.max_failures),
            r.left_out.to_string(),
            ago(view.time, r.created_at),
            r.deadline.map_or("-".into(), |at| until(view.time, at)),
            match r.owner.as_deref() {
                Some("operator") => format!("{}; `retry --rollout {id}` or `cancel --rollout {id}`", r.detail, id = r.id),
                _ => r.detail.clone(),
            },
        ]);
    }
    table.text()
}

fn event(event: &Event) -> String {
    let who = if event.agent.is_empty() { "-" } else { &event.agent };
    let version = if event.version.is_empty() { "-" } else { &event.version };
    let by = event.by.as_ref().map_or(String::new(), |by| format!(" [{by}]"));
    format!("{}  {who:<32}  {:<18}  {version:<12}  {}{by}", utc(event.time), event.code, event.detail).trim_end().to_string() + "\n"
}

fn decided(view: &ApprovalView) -> String {
    let done = match (view.already, view.state.as_str()) {
        (true, state) => format!("was {state} before"),
        (false, "approved") => "approved; it enrolls when it asks again, within minutes".to_string(),
        (false, state) => state.to_string(),
    };
    format!("{}: {done}\n", view.device)
}

fn token(view: &TokenView, role: &Role) -> String {
    format!(
        "{}\n\ngood for {} enrollment(s), {}; it is not shown again. On a device:\n\n  {} enroll {} {} --pin {} {} {}\n",
        view.token,
        view.uses,
        until_when(view.expires_at),
        role.product.name,
        role.enroll_at,
        view.url,
        view.pin,
        role.enroll_with,
        view.token
    )
}

/// On standard output alone: `vmetric-director install-command > install.sh` is a script.
fn install(view: &InstallView, role: &Role) -> String {
    format!(
        "# Installs and enrolls {} {}; run it with the rights to write to its folders. It holds a secret {}, good for {}\n# of them until {}. Everything that it fetches is compared with the SHA-256 in it.\n{}",
        role.product.name,
        view.version,
        role.token,
        view.uses,
        utc(view.expires_at),
        view.command
    )
}

fn until_when(at: u64) -> String {
    if at >= NEVER { "without an end".into() } else { format!("until {}", utc(at)) }
}

fn tokens(view: &TokensView, role: &Role) -> String {
    if view.tokens.is_empty() {
        return format!("no {}s; {}\n", role.token, role.make_token());
    }
    let mut table =
        Table::new(&[&role.token.to_uppercase(), "STATE", "MADE", "EXPIRES", "USED", "LEFT", "APPROVAL", "SERIAL NUMBERS LEFT"]);
    for t in &view.tokens {
        table.row(vec![
            t.id.clone(),
            t.state.clone(),
            ago(view.time, t.created_at),
            if t.expires_at >= NEVER { "never".into() } else { utc(t.expires_at) },
            t.used.to_string(),
            t.uses_left.to_string(),
            if t.approval == Some(true) { "needed" } else { "-" }.into(),
            t.serials_left.as_ref().map_or("any".into(), |left| left.join(" ")),
        ]);
    }
    table.text()
}

fn assigned(view: &OrderedView, role: &Role) -> String {
    format!(
        "roll-out {}: version {} for {} {}(s), {} told now; `{} rollouts` shows how it goes\n",
        view.rollout, view.version, view.group, role.node, view.told, role.program
    )
}

fn status(view: &StatusView, role: &Role) -> String {
    let mirrored = match view.timestamp_version {
        0 => "nothing yet".to_string(),
        version => format!("timestamp {version}, verified {}", ago(view.time, view.mirror_verified_at)),
    };
    let releases = if view.releases.is_empty() { "none".to_string() } else { view.releases.join(", ") };
    let mut out = String::new();
    for (name, value) in [
        ("version", format!("{} ({}-{})", view.version, view.os, view.architecture)),
        ("running since", format!("{} ({})", utc(view.started_at), ago(view.time, view.started_at))),
        ("listens on", view.listen.join(", ")),
        ("pin", view.pin.clone()),
        ("browser CA", format!("SHA-256 {}", view.browser_ca.as_deref().unwrap_or("unknown"))),
        ("certificate", certificate(view, role.nodes)),
        ("issuer", view.issuer.clone()),
        (role.nodes, format!("{} ({} online, {} polls parked, {} downloads)", view.agents, view.online, view.parked, view.downloads)),
        ("roll-outs", format!("{} running", view.rollouts_running)),
        ("configuration", view.config.clone().unwrap_or_else(|| "no file: the command line and the defaults count".into())),
        ("mirror of", if view.mirror.is_empty() { "nothing: releases are brought with mirror --file".into() } else { view.mirror.clone() }),
        ("mirrored", mirrored),
        ("releases", releases),
    ] {
        out += &format!("{name:<14} {value}\n");
    }
    out += &view.own.as_ref().map_or(String::new(), super::own::command::text);
    if let Some(fleet) = &view.fleet {
        out += &format!("{:<14} {}\n", "fleet", self::fleet(fleet, view.time));
    }
    if let Some(until) = view.company_until {
        out += &format!("{:<14} until {}\n", "--tls-cert", utc(until));
    }
    if let Some(error) = &view.company_error {
        out += &format!("{:<14} {error}\n", "--tls-cert");
    }
    for note in view.config_notes.iter().flatten() {
        out += &format!("{:<14} {note}\n", "");
    }
    if let Some(error) = &view.config_error {
        out += &format!("{:<14} {error}; the settings before stay in force\n", "not in force");
    }
    if let Some(error) = &view.certificate_error {
        out += &format!("{:<14} {error}\n", "not renewed");
    }
    if let Some(note) = &view.mirror_note {
        out += &format!("{:<14} {note}\n", "imported");
    }
    if let Some(error) = &view.mirror_error {
        out += &format!("{:<14} {error}\n", "mirror error");
    }
    out
}

fn fleet(view: &FleetView, now: u64) -> String {
    let waiting = match view.backlog {
        0 => String::new(),
        n => format!("; {n} events wait to be told"),
    };
    let settings = view.settings_revision.map_or(String::new(), |revision| format!("; settings {revision}"));
    let contact = match (view.state.as_str(), view.since) {
        ("connected", _) => format!("connected, answered {}", ago(now, view.answered_at.unwrap_or(0))),
        (state, Some(since)) => format!("{} since {}: {} ({})", state.to_uppercase(), utc(since), view.detail, view.code),
        (state, None) => state.to_string(),
    };
    format!("{} as {}: {contact}{settings}{waiting}", view.url, view.id)
}

fn certificate(view: &StatusView, nodes: &str) -> String {
    let names = view.certificate_names.as_deref().unwrap_or_default().join(", ");
    match view.certificate_until {
        Some(end) if end <= view.time => format!("EXPIRED {} for browsers; {nodes} do not mind; for {names}", utc(end)),
        Some(end) => format!("until {}, for {names}", utc(end)),
        None => "unknown".to_string(),
    }
}
