//! Organization > Settings > Notifications: where notices of the fleet are sent.

use serde_json::{Value, json};

use super::Templates;
use super::create::name_errors;
use super::policy::tabs;
use crate::core::access::Act;
use crate::core::notice::Kind;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::access::encoded;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::Errors;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::sentence;
use crate::fleet::gui::words;

/// The tab's address.
const PATH: &str = "/organization/settings/notifications";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "notifications", need: Act::Look, page: |ask| Box::pin(list(ask)) as Paged },
    of(PATH, "webhook-add", |ask| Box::pin(add(ask)) as Paged),
    of("/organization/settings/notifications/{webhook}/test", "webhook-test", |ask| Box::pin(test(ask)) as Paged),
    of("/organization/settings/notifications/{webhook}/enable", "webhook-enable", |ask| Box::pin(switch(ask, true)) as Paged),
    of("/organization/settings/notifications/{webhook}/disable", "webhook-disable", |ask| Box::pin(switch(ask, false)) as Paged),
    of("/organization/settings/notifications/{webhook}/remove", "webhook-remove", |ask| Box::pin(remove(ask)) as Paged),
];

const fn of(path: &'static str, id: &'static str, page: fn(Ask) -> Paged) -> Route {
    Route { method: "POST", path, id, need: Act::Notify, page }
}

/// Templates.
pub static TEMPLATES: Templates = &[("notifications", include_str!("../templates/notifications.html"))];

/// What a kind of notice says.
fn about(kind: Kind) -> &'static str {
    match kind {
        Kind::UpdateAvailable => "A version is there that was not before.",
        Kind::UpdateFailed => "An update did not come to a good end.",
        Kind::RolledBack => "A new version was taken back.",
        Kind::RolloutHalted => "Too many failures: a roll-out stopped.",
        Kind::MetadataExpires => "Signed metadata is about to expire.",
        Kind::SiteSilent => "A Director says nothing any more.",
        Kind::Test => "A person tries whether it works.",
    }
}

fn asked(act: &str, webhook: Option<&str>) -> AdminWire {
    AdminWire { command: "webhook".into(), act: Some(act.into()), webhook: webhook.map(str::to_string), ..Default::default() }
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    page(&ask, &Errors::default(), &Value::Null).await
}

/// The page: with what was typed and what is wrong with it, or with a secret that was just made.
async fn page(ask: &Ask, errors: &Errors, made: &Value) -> Result<Reply, Reason> {
    let all = ask.command(asked("list", None)).await?;
    let rows: Vec<Value> = all["webhooks"].as_array().into_iter().flatten().map(|hook| row(ask, hook)).collect();
    // What was typed stands only in a form that was not good.
    let typed = if made.is_null() { ask.form.clone() } else { Default::default() };
    let chosen = typed.all("event");
    let kinds = Kind::ALL.iter().map(|kind| {
        let tick = Input::tick("event", &words::human(kind.word())).value(kind.word()).help(about(*kind));
        let mut tick = tick.checked(chosen.iter().any(|word| word == kind.word())).json();
        tick["id"] = format!("f-event-{}", kind.word()).into();
        tick
    });
    let address = "https only, to another host. A Slack incoming webhook is one, too.";
    let context = json!({
        "bar": {"tabs": tabs(ask)},
        "rows": rows,
        "may": ask.may(Act::Notify),
        "secret": made["secret"],
        "made": ask.form.get("name"),
        "error": errors.of(""),
        "fields": [
            Input::text("name", "Name").required().help("For you.").typed(&typed, errors).json(),
            Input::text("url", "Address").kind("url").required().mono().help(address).typed(&typed, errors).json(),
        ],
        "kinds": kinds.collect::<Vec<Value>>(),
        "kinds_error": errors.of("events"),
    });
    let status = if errors.is_empty() { 200 } else { 422 };
    Page::new("Settings", "notifications", context).below(&[("Organization", "")]).status(status).reply()
}

fn row(ask: &Ask, hook: &Value) -> Value {
    let text = |name: &str| hook[name].as_str().unwrap_or_default().to_string();
    let events: Vec<String> = hook["events"].as_array().into_iter().flatten().filter_map(Value::as_str).map(words::human).collect();
    let failures = hook["failures"].as_u64().unwrap_or(0);
    let tried = hook["last_at"].as_u64();
    let chip = match (hook["enabled"] == true, failures, tried) {
        (false, ..) => words::chip("quiet", "pause", "Disabled"),
        (true, 0, None) => words::chip("quiet", "dot", "Not tried yet"),
        (true, 0, Some(_)) => words::chip("good", "ok", "Delivered"),
        (true, ..) => words::chip("bad", "no", "Failing"),
    };
    json!({
        "name": text("name"),
        "host": text("host"),
        "events": if events.is_empty() { "All".to_string() } else { events.join(", ") },
        "state": chip,
        "why": if failures > 0 { words::sentence(&text("last_error")) } else { String::new() },
        "pending": hook["pending"].as_u64().unwrap_or(0),
        "tried": tried.map(words::ago),
        "acts": if ask.may(Act::Notify) { acts(ask, hook) } else { Vec::new() },
        "test": format!("{PATH}/{}/test", encoded(&text("id"))),
        "csrf": ask.who.csrf,
    })
}

fn acts(ask: &Ask, hook: &Value) -> Vec<Value> {
    let base = format!("{PATH}/{}", encoded(hook["id"].as_str().unwrap_or_default()));
    let offer = |word: &str, act: &str, about: &str, danger: bool| {
        json!({
            "word": word, "about": about, "path": format!("{base}/{act}"), "confirm": word, "danger": danger, "fields": [], "hidden": [],
            "csrf": ask.who.csrf,
        })
    };
    let switch = match hook["enabled"] == true {
        true => offer("Disable", "disable", "Nothing is sent there until it is enabled again.", false),
        false => offer("Enable", "enable", "Notices are sent there again.", false),
    };
    vec![switch, offer("Remove", "remove", "It is forgotten with its secret, and so is what waits for it.", true)]
}

async fn add(ask: Ask) -> Result<Reply, Reason> {
    let mut errors = name_errors(&ask.form, "name");
    if ask.form.get("url").is_empty() {
        errors.add("url", "Type an address, such as https://hooks.example.org/fleet.");
    }
    if !errors.is_empty() {
        return page(&ask, &errors, &Value::Null).await;
    }
    let wire =
        AdminWire { name: ask.form.some("name"), url: ask.form.some("url"), events: Some(ask.form.all("event")), ..asked("create", None) };
    match ask.command(wire).await {
        Ok(made) => page(&ask, &errors, &made).await,
        Err(reason) => {
            let named = reason.detail.split_once(": ").filter(|(name, _)| matches!(*name, "name" | "url" | "events"));
            errors.add(named.map_or("", |(name, _)| name), sentence(named.map_or(&*reason.detail, |(_, rest)| rest)));
            page(&ask, &errors, &Value::Null).await
        }
    }
}

async fn test(ask: Ask) -> Result<Reply, Reason> {
    let toast = match ask.command(asked("test", Some(ask.place(0)))).await {
        Ok(done) => Toast::good(format!("A test was sent; the receiver answered {}.", done["answered"].as_u64().unwrap_or(0))),
        Err(reason) => Toast::bad(&reason),
    };
    Ok(Reply::See(PATH.into(), toast))
}

async fn switch(ask: Ask, on: bool) -> Result<Reply, Reason> {
    let wire = AdminWire { enabled: Some(on), ..asked("change", Some(ask.place(0))) };
    let said = if on { "Notices are sent there again." } else { "Nothing is sent there until it is enabled again." };
    super::acts::done(&ask, wire, PATH.into(), said.into()).await
}

async fn remove(ask: Ask) -> Result<Reply, Reason> {
    super::acts::done(&ask, asked("remove", Some(ask.place(0))), PATH.into(), "The webhook was removed.".into()).await
}
