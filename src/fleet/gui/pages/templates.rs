//! Devices > Enrollment Templates: many devices, one command, and the policy that they get.

use serde_json::{Value, json};

use super::Templates;
use super::create::{LIVES, chosen, name_errors, settings_errors, settings_names, settings_step, step};
use super::devices::{director_errors, director_input, director_of, is_there, made_of, nowhere, ready, refused};
use super::list::{empty, empty_to};
use crate::core::access::Act;
use crate::core::product::AGENT;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::enroll::TTL_NEVER_S;
use crate::director::registry::AGENTS_MAX;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::{Errors, Form};
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::wizard::Wizard;
use crate::fleet::gui::words;

/// Where they are.
pub const PATH: &str = "/devices/templates";
const NEW: &str = "/devices/templates/new";
/// Templates on the page; `vmetric-fleet template list` has all.
const SHOWN_MAX: usize = 60;
/// What is chosen for a template without an end.
pub const NEVER: &str = "never";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "templates", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged },
    Route { method: "GET", path: NEW, id: "template-new", need: Act::Enroll, page: |ask| Box::pin(create(ask)) as Paged },
    of(NEW, "template-new-step", |ask| Box::pin(create(ask)) as Paged),
    of("/devices/templates/{template}/renew", "template-renew", |ask| Box::pin(renew(ask)) as Paged),
    of("/devices/templates/{template}/enable", "template-enable", |ask| Box::pin(switch(ask, true)) as Paged),
    of("/devices/templates/{template}/disable", "template-disable", |ask| Box::pin(switch(ask, false)) as Paged),
    of("/devices/templates/{template}/remove", "template-remove", |ask| Box::pin(remove(ask)) as Paged),
];

const fn of(path: &'static str, id: &'static str, page: fn(Ask) -> Paged) -> Route {
    Route { method: "POST", path, id, need: Act::Enroll, page }
}

/// Templates.
pub static TEMPLATES: Templates = &[("templates", include_str!("../templates/templates.html"))];

const WIZARD: Wizard = Wizard { steps: &["Setup", "Update Management", "Install and Connect"], done: "Create template" };

/// A command about templates.
pub fn asked(act: &str, template: Option<&str>) -> AdminWire {
    AdminWire { command: "template".into(), act: Some(act.into()), template: template.map(str::to_string), ..Default::default() }
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    let all = ask.command(asked("list", None)).await?;
    let all: Vec<&Value> = all["templates"].as_array().into_iter().flatten().collect();
    let rows: Vec<Value> = all.iter().take(SHOWN_MAX).map(|t| row(&ask, t)).collect();
    let may = ask.may(Act::Enroll);
    let next = "A template lets many devices in with one command, and gives each of them its update policy.";
    let none = match (rows.is_empty(), may) {
        (false, _) => Value::Null,
        (true, true) => empty_to("template", "There is no enrollment template yet", next, NEW, "Create a template"),
        (true, false) => empty("template", "There is no enrollment template yet", next),
    };
    let more = all.len().saturating_sub(rows.len());
    let context = json!({"rows": rows, "none": none, "may_create": may, "new": NEW, "more": more});
    Page::new("Enrollment Templates", "templates", context).below(&[("Devices", "")]).reply()
}

/// A template as a row.
pub fn row(ask: &Ask, t: &Value) -> Value {
    let text = |name: &str| t[name].as_str().unwrap_or_default().to_string();
    let (director, director_path) = director_of(ask, &text("director"));
    let limit = t["uses"].as_u64().map_or("Unlimited".into(), words::number);
    let settings = &t["settings"];
    let of = |name: &str| settings[name].as_str().unwrap_or_default();
    let policy = if t["custom"] == true { words::policy(of("mode"), of("method")) } else { "Inherited".into() };
    let chip = match text("status").as_str() {
        "enabled" => words::chip("good", "ok", "Enabled"),
        "disabled" => words::chip("quiet", "pause", "Disabled"),
        "expired" => words::chip("warn", "alert", "Expired"),
        "limit_reached" => words::chip("quiet", "ok", "Limit Reached"),
        _ => words::chip_with("busy", "update", "On its way", "Its Director does not have it yet"),
    };
    json!({
        "name": text("name"),
        "path": format!("{PATH}/{}", encoded(&text("id"))),
        "director": director,
        "director_path": director_path,
        "enrolled": format!("{}/{limit}", words::number(t["enrolled"].as_u64().unwrap_or(0))),
        "pending": t["pending"].as_u64().unwrap_or(0),
        "approval": t["approval"],
        "until": t["expires_at"].as_u64().map(words::at),
        "status": chip,
        "policy": policy,
        "acts": if ask.may(Act::Enroll) { acts(ask, t) } else { Vec::new() },
    })
}

fn acts(ask: &Ask, t: &Value) -> Vec<Value> {
    let base = format!("{PATH}/{}", encoded(t["id"].as_str().unwrap_or_default()));
    let revision = t["revision"].as_u64().unwrap_or(0).to_string();
    let offer = |word: &str, act: &str, about: &str, confirm: &str, danger: bool| {
        json!({
            "word": word, "about": about, "path": format!("{base}/{act}"), "confirm": confirm, "danger": danger, "fields": [],
            "hidden": [{"name": "revision", "value": revision}], "csrf": ask.who.csrf,
        })
    };
    let mut out = vec![offer(
        "Renew",
        "renew",
        "New install commands, shown once. Those before enroll nothing any more.",
        "Show new commands",
        false,
    )];
    out.push(match t["status"] == "disabled" {
        true => offer("Enable", "enable", "Its command enrolls devices again.", "Enable", false),
        false => offer("Disable", "disable", "Its command enrolls nothing until it is enabled again. Who enrolled stays.", "Disable", true),
    });
    out.push(offer(
        "Remove",
        "remove",
        "Its command is worth nothing any more. Devices that enrolled with it stay, with their policy.",
        "Remove",
        true,
    ));
    out
}

fn trail() -> [(String, String); 2] {
    [("Devices".into(), String::new()), ("Enrollment Templates".into(), PATH.into())]
}

fn setup_errors(ask: &Ask, form: &Form) -> Errors {
    let mut errors = terms_errors(form);
    director_errors(ask, &mut errors);
    errors
}

/// What is wrong with a template's name and terms.
pub fn terms_errors(form: &Form) -> Errors {
    let mut errors = name_errors(form, "name");
    let uses = form.get("uses");
    if !uses.is_empty() && !matches!(uses.parse::<usize>(), Ok(n) if (1..=AGENTS_MAX).contains(&n)) {
        errors.add("uses", format!("A whole number from 1 to {AGENTS_MAX}, or nothing for no limit."));
    }
    if form.get("ttl") == NEVER && !form.has("approval") {
        errors.add("ttl", "Without an end each device needs approval: tick it below, or choose an end.");
    }
    errors
}

async fn create(ask: Ask) -> Result<Reply, Reason> {
    if !is_there(&ask) {
        return nowhere("Create template", &trail());
    }
    let at = WIZARD.at(&ask, |step, form| if step == 0 { setup_errors(&ask, form) } else { settings_errors(form) });
    if !at.finish {
        return create_step(&ask, at.step, &at.errors, "").await;
    }
    let ttl = ask.form.get("ttl");
    let wire = AdminWire {
        // 0 = without a limit.
        uses: Some(ask.form.get("uses").parse().unwrap_or(0)),
        ttl_s: if ttl == NEVER { Some(TTL_NEVER_S) } else { ttl.parse().ok() },
        approval: Some(ask.form.has("approval")),
        settings: chosen(&ask.form),
        ..made_of(&ask)
    };
    match ask.command(wire).await {
        Ok(made) => shown(&ask, "Create template", WIZARD.frame(&ask, 2, &[], ""), &made),
        Err(reason) => {
            let (errors, problem) = refused(&reason);
            create_step(&ask, 0, &errors, &problem).await
        }
    }
}

fn shown(ask: &Ask, title: &str, frame: Value, made: &Value) -> Result<Reply, Reason> {
    ready(ask, (title, frame), made, None, (PATH, "To the templates")).below(&[("Devices", ""), ("Enrollment Templates", PATH)]).reply()
}

async fn create_step(ask: &Ask, at: usize, errors: &Errors, problem: &str) -> Result<Reply, Reason> {
    let title = "Create template";
    let below = [("Devices", ""), ("Enrollment Templates", PATH)];
    if at == 1 {
        let settings = settings_step(ask, AGENT.name, errors, "each device").await?;
        let frame = WIZARD.frame(ask, 1, &settings_names(), problem);
        return step(title, frame, "Each device gets these settings as its own when it enrolls.", Vec::new(), Some(settings), PATH)
            .below(&below)
            .reply();
    }
    let with = |input: Input, name: &str, otherwise: &str| {
        let value = if ask.form.has(name) { ask.form.get(name) } else { otherwise };
        input.value(value).error(errors.of(name)).json()
    };
    let mut lives = LIVES.to_vec();
    lives.push((NEVER, "Indefinite"));
    let fields = vec![
        with(Input::text("name", "Template Name").required().help("Such as the kind of device or its place."), "name", ""),
        director_input(ask, errors),
        with(Input::text("uses", "Devices").kind("number").help("How many may enroll; empty: without a limit."), "uses", "100"),
        with(Input::select("ttl", "Time Limit", &lives).help("After that its command enrolls nothing."), "ttl", "604800"),
        Input::tick("approval", "Approve each device")
            .checked(ask.form.has("approval"))
            .help("It waits until somebody approves it at its Director: vmetric-director approve.")
            .json(),
    ];
    let frame = WIZARD.frame(ask, 0, &["name", "director", "uses", "ttl", "approval"], problem);
    let lead = "One command for many devices: it installs, verifies, enrolls, and each gets the template's policy.";
    step(title, frame, lead, fields, None, PATH).below(&below).reply()
}

async fn renew(ask: Ask) -> Result<Reply, Reason> {
    match ask.command(asked("renew", Some(ask.place(0)))).await {
        Ok(made) => {
            let name = made["templates"][0]["name"].as_str().unwrap_or_default();
            let title = format!("Renewed: {name}");
            shown(&ask, &title, json!({"steps": [], "name": "Install and Connect"}), &made)
        }
        Err(reason) => Ok(Reply::See(PATH.into(), Toast::bad(&reason))),
    }
}

async fn switch(ask: Ask, on: bool) -> Result<Reply, Reason> {
    let expected = ask.form.get("revision").parse().ok();
    let wire = AdminWire { enabled: Some(on), expected, ..asked("change", Some(ask.place(0))) };
    let said = if on { "The template is enabled." } else { "The template is disabled; its command enrolls nothing." };
    super::acts::done(&ask, wire, PATH.into(), said.into()).await
}

async fn remove(ask: Ask) -> Result<Reply, Reason> {
    let wire = asked("remove", Some(ask.place(0)));
    super::acts::done(&ask, wire, PATH.into(), "The template was removed; its devices stay.".into()).await
}
