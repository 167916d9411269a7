//! Devices > Linux / Windows / macOS > Create: one device, by an enrollment template that is good for one.

use serde_json::{Value, json};

use super::create::{LIVES, chosen, command, name_errors, settings_errors, settings_names, settings_step, step};
use super::list::empty_to;
use super::{Templates, directors, template_edit};
use crate::core::access::Act;
use crate::core::product::AGENT;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::Errors;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::sentence;
use crate::fleet::gui::wizard::Wizard;
use crate::fleet::gui::words;

const NEW: &str = "/devices/{os}/new";
/// Directors that are offered as a list; with more one types a name or an id.
const OFFERED_MAX: usize = 200;
/// Fields of the first step that a command's refusal may name.
const NAMED: [&str; 4] = ["name", "director", "uses", "ttl"];

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: NEW, id: "device-new", need: Act::Enroll, page: |ask| Box::pin(device(ask)) as Paged },
    Route { method: "POST", path: NEW, id: "device-new-step", need: Act::Enroll, page: |ask| Box::pin(device(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates = &[("nowhere", include_str!("../templates/nowhere.html"))];

const DEVICE: Wizard = Wizard { steps: &["Setup", "Update Management", "Install and Connect"], done: "Create device" };

async fn device(ask: Ask) -> Result<Reply, Reason> {
    let os = match ask.place(0) {
        "macos" => "darwin",
        os @ ("linux" | "windows") => os,
        _ => return Err(Reason::new("not_found", "devices are Linux, Windows or macOS; there is no such page")),
    };
    if !is_there(&ask) {
        return nowhere("Create device", &below(os));
    }
    let at = DEVICE.at(&ask, |step, form| match step {
        0 => {
            let mut errors = name_errors(form, "name");
            director_errors(&ask, &mut errors);
            errors
        }
        _ => settings_errors(form),
    });
    if !at.finish {
        return device_step(&ask, os, at.step, &at.errors, "").await;
    }
    let wire = AdminWire {
        uses: Some(1),
        ttl_s: ask.form.get("ttl").parse().ok(),
        approval: Some(ask.form.has("approval")),
        settings: chosen(&ask.form),
        ..made_of(&ask)
    };
    match ask.command(wire).await {
        Ok(made) => {
            let frame = DEVICE.frame(&ask, 2, &[], "");
            let path = format!("/devices/{}", ask.place(0));
            ready(&ask, ("Create device", frame), &made, Some(os), (&path, "To the devices")).below(&pairs(&below(os))).reply()
        }
        Err(reason) => {
            let (errors, problem) = refused(&reason);
            device_step(&ask, os, 0, &errors, &problem).await
        }
    }
}

fn below(os: &str) -> [(String, String); 2] {
    let word = if os == "darwin" { "macos" } else { os };
    [("Devices".into(), String::new()), (words::os(os).into(), format!("/devices/{word}"))]
}

fn pairs(trail: &[(String, String); 2]) -> [(&str, &str); 2] {
    [(&trail[0].0, &trail[0].1), (&trail[1].0, &trail[1].1)]
}

/// What both wizards tell of a new template.
pub fn made_of(ask: &Ask) -> AdminWire {
    AdminWire {
        command: "template".into(),
        act: Some("create".into()),
        name: ask.form.some("name"),
        director: ask.form.some("director"),
        ..Default::default()
    }
}

/// Beside its field, or above the form.
pub fn refused(reason: &Reason) -> (Errors, String) {
    let named = reason.detail.split_once(": ").filter(|(name, _)| NAMED.contains(name));
    let detail = sentence(named.map_or(&*reason.detail, |(_, rest)| rest));
    let field = match (named, reason.code.as_ref()) {
        (Some((name, _)), _) => name,
        (None, code) if code.starts_with("director_") || code.starts_with("agent_") => "director",
        _ => return (Errors::default(), detail),
    };
    let mut errors = Errors::default();
    errors.add(field, detail);
    (errors, String::new())
}

/// Whether there is a Director at all.
pub fn is_there(ask: &Ask) -> bool {
    ask.site.registry.borrow().agents.values().any(|d| d.removed_at.is_none())
}

/// A wizard that cannot begin.
pub fn nowhere(title: &str, trail: &[(String, String); 2]) -> Result<Reply, Reason> {
    let next = "Devices enroll at a Director, and the install command names it. Create a Director first.";
    let none = empty_to("server", "There is no Director yet", next, "/fleet-management/directors/new", "Create a Director");
    Page::new(title, "nowhere", json!({"title": title, "none": none})).below(&pairs(trail)).reply()
}

/// A Director has to be named, and to be there.
pub fn director_errors(ask: &Ask, errors: &mut Errors) {
    match ask.form.get("director") {
        "" => errors.add("director", "Choose the Director at which devices enroll."),
        word => {
            if let Err(reason) = ask.site.registry.borrow().named_agent(word) {
                errors.add("director", sentence(&reason.detail));
            }
        }
    }
}

/// The field for the Director: a list while it is short enough to be read.
pub fn director_input(ask: &Ask, errors: &Errors) -> Value {
    let registry = ask.site.registry.borrow();
    let mut all: Vec<(String, String)> = registry
        .agents
        .values()
        .filter(|d| d.removed_at.is_none())
        .map(|d| (d.id.clone(), if d.hostname.is_empty() { d.id.clone() } else { d.hostname.clone() }))
        .collect();
    all.sort_by(|a, b| a.1.cmp(&b.1));
    let typed = ask.form.get("director");
    if all.len() > OFFERED_MAX {
        let help = "Its name or id; devices have to reach it.";
        return Input::text("director", "Director").required().help(help).value(typed).error(errors.of("director")).json();
    }
    // Two that have one name are told apart by their ids.
    let twice = |name: &str| all.iter().filter(|(_, other)| other == name).count() > 1;
    let labels: Vec<String> = all.iter().map(|(id, name)| if twice(name) { format!("{name} ({id})") } else { name.clone() }).collect();
    let mut options = vec![("", "Choose one")];
    options.extend(all.iter().zip(&labels).map(|((id, _), label)| (id.as_str(), label.as_str())));
    if let [(only, _)] = all.as_slice() {
        options.remove(0);
        return Input::select("director", "Director", &options).value(only).error(errors.of("director")).json();
    }
    let help = "Where it enrolls and asks for updates; it has to reach that Director.";
    Input::select("director", "Director", &options).help(help).value(typed).error(errors.of("director")).json()
}

async fn device_step(ask: &Ask, os: &str, at: usize, errors: &Errors, problem: &str) -> Result<Reply, Reason> {
    let trail = below(os);
    let (title, cancel) = ("Create device", &trail[1].1);
    if at == 1 {
        let settings = settings_step(ask, AGENT.name, errors, "the new device").await?;
        let frame = DEVICE.frame(ask, 1, &settings_names(), problem);
        return step(title, frame, "", Vec::new(), Some(settings), cancel).below(&pairs(&trail)).reply();
    }
    let ttl = if ask.form.has("ttl") { ask.form.get("ttl") } else { "3600" };
    let fields = vec![
        Input::text("name", "Name")
            .required()
            .help("For you: it names the command in lists. The device tells its own host name.")
            .value(ask.form.get("name"))
            .error(errors.of("name"))
            .json(),
        director_input(ask, errors),
        Input::select("ttl", "Good for", &LIVES).help("After that the command installs nothing.").value(ttl).error(errors.of("ttl")).json(),
        Input::tick("approval", "Approve this device")
            .checked(ask.form.has("approval"))
            .help("It waits until somebody approves it at its Director.")
            .json(),
    ];
    let frame = DEVICE.frame(ask, 0, &["name", "director", "ttl", "approval"], problem);
    let lead = "The wizard makes one command, good for one device. For many, make an enrollment template.";
    step(title, frame, lead, fields, None, cancel).below(&pairs(&trail)).reply()
}

/// The last step of both wizards, and what renewing shows: the commands, once. `os`: only those for one system.
pub fn ready(ask: &Ask, (title, frame): (&str, Value), made: &Value, os: Option<&str>, (next, next_name): (&str, &str)) -> Page {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let fits = |c: &&Value| os.is_none_or(|os| c["os"] == os);
    let (mut commands, mut facts) = (Vec::new(), Vec::new());
    let mut fact = |name: String, value: String, mono: bool| {
        facts.push(json!({"name": name, "value": value, "mono": mono, "is_time": false, "time": null}));
    };
    for (n, c) in made["commands"].as_array().into_iter().flatten().filter(fits).enumerate() {
        let (system, arch) = (text(&c["os"]), text(&c["arch"]));
        let id = if n == 0 { "install".to_string() } else { format!("install-{system}-{arch}") };
        let (name, about) = match system.as_str() {
            "windows" => {
                (format!("Windows, PowerShell, {arch}"), "In PowerShell as administrator. It holds a secret key: treat it as a password.")
            }
            "darwin" => (format!("macOS, {arch}"), "In a root shell (sudo -s). It holds a secret key: treat it as a password."),
            _ => (format!("Linux with systemd, bash, {arch}"), "As root. It holds a secret key: treat it as a password."),
        };
        commands.push(command(&id, &name, about, &text(&c["command"])));
        fact(format!("{} {arch}", words::os(&system)), text(&c["version"]), false);
        fact(format!("SHA-256, {} {arch}", words::os(&system)), text(&c["sha256"]), true);
    }
    let mac = os == Some("darwin");
    if commands.is_empty() {
        let about = "Fleet's mirror holds no agent for this yet. Publish one, then renew this template under Enrollment Templates.";
        commands.push(command("missing", "No install command", about, "vmetric-fleet releases"));
    }
    let enroll = text(&made["enroll"]);
    if mac {
        let about = "Nobody has run the launchd service on a Mac here: look whether it starts.";
        commands.push(command("service", "As a service", about, "sudo /opt/vmetric-agent/vmetric-agent -service install --now"));
        let about = "In a root shell. Only enrolls it, with the same key.";
        let enroll = enroll.replacen(" vmetric-agent ", " /opt/vmetric-agent/vmetric-agent ", 1);
        commands.push(command("enroll", "An agent that is installed already", about, &enroll));
    } else {
        let about = "Only enrolls it, with the same key. On Windows set VMETRIC_TOKEN first, then run what follows it.";
        commands.push(command("enroll", "An agent that is installed already", about, &enroll));
    }
    let template = &made["templates"][0];
    fact("Pin".into(), text(&made["pin"]), true);
    fact("Devices".into(), template["uses"].as_u64().map_or("Without a limit".into(), words::number), false);
    match template["expires_at"].as_u64() {
        Some(at) => facts.push(json!({"name": "Good until", "value": "", "mono": false, "is_time": true, "time": words::at(at)})),
        None => facts.push(json!({"name": "Good until", "value": "Indefinite", "mono": false, "is_time": false, "time": null})),
    }
    let lead = "Shown once. Every file that it fetches is compared with the SHA-256 in its text before anything runs.";
    let (director, director_path) = director_of(ask, &text(&template["director"]));
    let context = json!({
        "title": title, "frame": frame, "lead": lead, "commands": commands, "facts": facts, "next": next, "next_name": next_name,
        "live": true, "stream": template_edit::path(template),
        "enrolled": template_edit::enrolled(template, &director, &director_path),
    });
    Page::new(title, "install", context)
}

/// A Director's name and page.
pub fn director_of(ask: &Ask, id: &str) -> (String, String) {
    let registry = ask.site.registry.borrow();
    let name = registry.agents.get(id).map(|d| d.hostname.clone()).filter(|name| !name.is_empty());
    (name.unwrap_or_else(|| id.to_string()), directors::path(id))
}
