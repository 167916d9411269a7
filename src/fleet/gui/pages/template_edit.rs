//! One enrollment template: its terms and its policy, to be looked at and changed.

use serde_json::{Value, json};

use super::Templates;
use super::create::{LIVES, chosen, settings_errors};
use super::devices::{director_of, refused};
use super::templates::{NEVER, PATH, asked, row, terms_errors};
use crate::core::access::Act;
use crate::core::product::AGENT;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::enroll::TTL_NEVER_S;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::{Errors, Form};
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::{settings, words};

const ONE: &str = "/devices/templates/{template}";
/// What is chosen for an end that stays as it is.
const KEEP: &str = "";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: ONE, id: "template", need: Act::Enroll, page: |ask| Box::pin(show(ask)) as Paged },
    Route { method: "POST", path: ONE, id: "template-save", need: Act::Enroll, page: |ask| Box::pin(save(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates =
    &[("template", include_str!("../templates/template.html")), ("enrolled", include_str!("../templates/enrolled.html"))];

/// How many devices enrolled with it so far, as their Director told: the part that its page and the wizard's last step keep
/// current.
pub fn enrolled(template: &Value, director: &str, director_path: &str) -> Value {
    let used = template["enrolled"].as_u64().unwrap_or(0);
    let limit = template["uses"].as_u64().map_or(String::new(), |limit| format!(" of {}", words::number(limit)));
    json!({
        "used": used > 0,
        "count": format!("{}{limit}", words::number(used)),
        "pending": template["pending"].as_u64().filter(|n| *n > 0).map(words::number),
        "director": director,
        "director_path": director_path,
    })
}

/// A template's page.
pub fn path(template: &Value) -> String {
    format!("{PATH}/{}", encoded(template["id"].as_str().unwrap_or_default()))
}

/// The template as it is.
async fn found(ask: &Ask) -> Result<Value, Reason> {
    let view = ask.command(asked("show", Some(ask.place(0)))).await?;
    let unknown = || Reason::new("template_unknown", "there is no such template; it may have been removed");
    view["templates"].as_array().and_then(|all| all.first()).cloned().ok_or_else(unknown)
}

async fn show(ask: Ask) -> Result<Reply, Reason> {
    let template = found(&ask).await?;
    let typed = filled(&template);
    page(&ask, &template, &typed, &Errors::default(), false).await
}

/// What stands in the form before anybody typed.
fn filled(template: &Value) -> Form {
    let policy = settings::filled(&json!({
        "typed": template["settings"], "inherited": [], "custom": template["custom"], "revision": template["revision"],
    }));
    let uses = template["uses"].as_u64().map_or(String::new(), |n| n.to_string());
    let name = template["name"].as_str().unwrap_or_default();
    let text = policy.with(&[("name", name), ("uses", &uses), ("approval", if template["approval"] == true { "on" } else { "" })]);
    Form::parse(text.trim_start_matches('?')).unwrap_or_default()
}

async fn save(ask: Ask) -> Result<Reply, Reason> {
    let template = found(&ask).await?;
    let mut errors = terms_errors(&ask.form);
    let ends = template["expires_at"].is_u64();
    if ask.form.get("ttl") == KEEP && !ends && !ask.form.has("approval") {
        errors.add("ttl", "Without an end each device needs approval: tick it below, or choose an end.");
    }
    if errors.is_empty() {
        errors = settings_errors(&ask.form);
    }
    if !errors.is_empty() {
        return page(&ask, &template, &ask.form, &errors, false).await;
    }
    let wire = AdminWire {
        name: ask.form.some("name"),
        // 0 = without a limit.
        uses: Some(ask.form.get("uses").parse().unwrap_or(0)),
        ttl_s: match ask.form.get("ttl") {
            NEVER => Some(TTL_NEVER_S),
            ttl => ttl.parse().ok(),
        },
        approval: Some(ask.form.has("approval")),
        // While the toggle is off, what was typed before stays for later.
        settings: chosen(&ask.form),
        custom: Some(settings::custom(&ask.form, true)),
        expected: ask.form.get("revision").parse().ok(),
        ..asked("change", Some(ask.place(0)))
    };
    match ask.command(wire).await {
        Ok(_) => {
            let said = format!("{} is saved. Devices that enrolled before keep the policy that they got.", ask.form.get("name"));
            Ok(Reply::See(PATH.into(), Toast::good(said)))
        }
        Err(reason) if reason.code == "revision_conflict" => {
            let template = found(&ask).await?;
            let mut errors = Errors::default();
            errors.add("", settings::sentence(&reason.detail));
            page(&ask, &template, &ask.form, &errors, true).await
        }
        Err(reason) => {
            let (mut errors, _) = refused(&reason);
            if errors.is_empty() {
                errors.reason(&reason, &crate::wire::settings::FIELDS);
            }
            page(&ask, &template, &ask.form, &errors, false).await
        }
    }
}

async fn page(ask: &Ask, template: &Value, typed: &Form, errors: &Errors, conflict: bool) -> Result<Reply, Reason> {
    // What was typed keeps standing; the revision is the one that it is compared with now.
    let revision = template["revision"].as_u64().unwrap_or(0).to_string();
    let form = Form::parse(typed.with(&[("revision", &revision)]).trim_start_matches('?')).unwrap_or_default();
    let versions = settings::versions(ask, AGENT.name).await?;
    let keeps = match template["expires_at"].as_u64() {
        Some(at) => format!("As it is: until {}", words::utc(at)),
        None => "As it is: Indefinite".into(),
    };
    let mut lives = vec![(KEEP, keeps.as_str())];
    let from_now: Vec<(&str, String)> = LIVES.iter().map(|(value, label)| (*value, format!("{label} from now"))).collect();
    lives.extend(from_now.iter().map(|(value, label)| (*value, label.as_str())));
    lives.push((NEVER, "Indefinite"));
    let fields = vec![
        Input::text("name", "Template Name").required().typed(&form, errors).json(),
        Input::text("uses", "Devices").kind("number").help("How many may enroll; empty: without a limit.").typed(&form, errors).json(),
        Input::select("ttl", "Time Limit", &lives).help("After that its command enrolls nothing.").typed(&form, errors).json(),
        Input::tick("approval", "Approve each device")
            .help("It waits until somebody approves it at its Director: vmetric-director approve.")
            .typed(&form, errors)
            .json(),
    ];
    let name = template["name"].as_str().unwrap_or_default();
    let (director, director_path) = director_of(ask, template["director"].as_str().unwrap_or_default());
    let context = json!({
        "live": true,
        "enrolled": enrolled(template, &director, &director_path),
        "name": name,
        "r": row(ask, template),
        "director": director,
        "director_path": director_path,
        "action": path(template),
        "fields": fields,
        "settings": settings::fields(&form, errors, true, &versions, "each device", "template"),
        "problem": errors.of(""),
        "conflict": conflict,
        "by": words::by(template["by"].as_str().unwrap_or_default()),
        "changed": words::ago(template["changed_at"].as_u64().unwrap_or(0)),
        "back": PATH,
    });
    let status = if errors.is_empty() { 200 } else { 422 };
    Page::new(name, "template", context).below(&[("Devices", ""), ("Enrollment Templates", PATH)]).status(status).reply()
}
