//! Users: who may log in, as what, and who is logged in.

use serde_json::{Value, json};

use super::Templates;
use super::acts::done;
use crate::core::access::{Act, Role};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::access::sessions::SessionRow;
use crate::fleet::access::{self, users::User};
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::Errors;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::sentence;
use crate::fleet::gui::words;

/// Sessions on the page; `vmetric-fleet session list` has all.
const SESSIONS: usize = 100;

const PATH: &str = "/organization/users";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "users", need: Act::ManageUsers, page: |ask| Box::pin(list(ask)) as Paged },
    of(PATH, "userAdd", |ask| Box::pin(add(ask)) as Paged),
    of("/organization/users/{user}/role", "userRole", |ask| Box::pin(role(ask)) as Paged),
    of("/organization/users/{user}/link", "userLink", |ask| Box::pin(link(ask)) as Paged),
    of("/organization/users/{user}/disable", "userDisable", |ask| Box::pin(disable(ask)) as Paged),
    of("/organization/users/{user}/enable", "userEnable", |ask| Box::pin(enable(ask)) as Paged),
    of("/organization/users/{user}/remove", "userRemove", |ask| Box::pin(remove(ask)) as Paged),
    of("/organization/sessions/{session}/end", "sessionEnd", |ask| Box::pin(end(ask)) as Paged),
];

const fn of(path: &'static str, id: &'static str, page: fn(Ask) -> Paged) -> Route {
    Route { method: "POST", path, id, need: Act::ManageUsers, page }
}

/// Templates.
pub static TEMPLATES: Templates = &[("users", include_str!("../templates/users.html"))];

/// What each role may, in a few words.
const ABOUT: [(&str, &str, &str); 4] = [
    ("viewer", "Viewer", "Looks"),
    ("contributor", "Contributor", "Changes policies, and orders, authorizes and cancels updates"),
    ("admin", "Admin", "Everything but owners: keys, removals, tokens, users, audit"),
    ("owner", "Owner", "Everything"),
];

/// The roles that this person may give.
fn roles(ask: &Ask) -> Vec<(&'static str, &'static str, &'static str)> {
    ABOUT.into_iter().filter(|(word, ..)| Role::parse(word).is_ok_and(|role| role <= ask.who.role)).collect()
}

async fn list(ask: Ask) -> Result<Reply, Reason> {
    page(&ask, &Errors::default(), None)
}

/// The page: with what was typed and what is wrong with it, or with a link that was just made.
fn page(ask: &Ask, errors: &Errors, link: Option<(String, String)>) -> Result<Reply, Reason> {
    let access = access::of(&ask.site)?;
    let sessions = access.sessions(ask.now);
    let rows: Vec<Value> =
        access.users().iter().map(|user| row(ask, user, sessions.iter().filter(|s| s.user == user.name).count())).collect();
    let session = |s: &SessionRow| {
        let user = access.user(&s.user).ok();
        let may = user.is_some_and(|user| user.role() <= ask.who.role);
        json!({
            "user": s.user, "ip": s.ip, "browser": words::browser(&s.browser), "agent": s.browser, "seen": words::ago(s.seen_at), "ends": words::at(s.expires_at),
            "own": s.id == ask.who.session, "end": may && s.id != ask.who.session,
            "path": format!("/organization/sessions/{}/end", s.id), "csrf": ask.who.csrf,
        })
    };
    let (name, url) = link.unwrap_or_default();
    // Who was added is not typed again.
    let typed = if errors.is_empty() { "" } else { ask.form.get("name") };
    let chosen = if errors.is_empty() || ask.form.get("role").is_empty() { "viewer" } else { ask.form.get("role") };
    let context = json!({
        "rows": rows,
        "sessions": sessions.iter().take(SESSIONS).map(session).collect::<Vec<_>>(),
        "none": rows.is_empty(),
        "error": errors.of(""),
        "fields": [
            Input::text("name", "Name").help("Letters, digits and . _ - + @").required().value(typed).error(errors.of("name")).json(),
            Input::radio("role", "Role", &roles(ask)).value(chosen).error(errors.of("role")).json(),
        ],
        "link": url,
        "link_name": name,
    });
    let status = if errors.is_empty() { 200 } else { 422 };
    Page::new("Users", "users", context).below(&[("Organization", "")]).status(status).reply()
}

fn row(ask: &Ask, user: &User, sessions: usize) -> Value {
    let chip = match user.state(ask.now) {
        "active" => words::chip("good", "ok", "Active"),
        "invited" => words::chip("busy", "dot", "Invited"),
        "disabled" => words::chip("bad", "no", "Disabled"),
        _ => words::chip("warn", "alert", "No password yet"),
    };
    let title = ABOUT.iter().find(|(word, ..)| *word == user.role).map_or("", |(_, title, _)| title);
    json!({
        "name": user.name, "role": title, "chip": chip, "sessions": sessions, "own": user.name == ask.who.name,
        "login": user.login_at.map(words::ago), "acts": acts(ask, user),
    })
}

fn acts(ask: &Ask, user: &User) -> Vec<Value> {
    // Nobody changes who is above.
    if user.role() > ask.who.role {
        return Vec::new();
    }
    let offer = |word: &str, act: &str, about: &str, danger: bool, fields: Vec<Value>| {
        json!({
            "word": word, "about": about, "path": format!("{PATH}/{}/{act}", access::encoded(&user.name)), "confirm": word,
            "danger": danger, "fields": fields, "hidden": [], "csrf": ask.who.csrf,
        })
    };
    let mut choice = Input::radio("role", "Role", &roles(ask)).value(&user.role).json();
    // One such form per user: the ids are their own.
    choice["id"] = format!("f-role-{}", user.name).into();
    for option in choice["options"].as_array_mut().into_iter().flatten() {
        let id = format!("{}-{}", option["id"].as_str().unwrap_or_default(), user.name);
        option["id"] = id.into();
    }
    let mut out = vec![offer("Change role", "role", "It ends this user's sessions.", false, vec![choice])];
    if user.disabled_at.is_some() {
        out.push(offer("Enable", "enable", "This user may log in again.", false, vec![]));
    } else {
        let about = "A one-time link, good for an hour, with which this user chooses a new password. The one so far stays good until then.";
        out.push(offer("New link", "link", about, false, vec![]));
        out.push(offer(
            "Disable",
            "disable",
            "This user may not log in any more and is logged out. API tokens that this user made end for good.",
            true,
            vec![],
        ));
    }
    out.push(offer(
        "Remove",
        "remove",
        "The user is forgotten, and API tokens that this user made end; the audit log keeps the name.",
        true,
        vec![],
    ));
    out
}

fn wire(ask: &Ask, act: &str, user: &str) -> AdminWire {
    AdminWire { command: "user".into(), act: Some(act.into()), user: Some(user.into()), role: ask.form.some("role"), ..Default::default() }
}

/// Runs what makes a link, and shows it on this page: it is shown once.
async fn linked(ask: Ask, wire: AdminWire) -> Result<Reply, Reason> {
    let name = wire.user.clone().unwrap_or_default();
    let mut errors = Errors::default();
    match ask.command(wire).await {
        Ok(view) => {
            let link = view["link"].as_str().unwrap_or_default().to_string();
            page(&ask, &errors, Some((name, link)))
        }
        Err(reason) => {
            let field = match reason.code.as_ref() {
                "name_invalid" | "user_exists" => "name",
                "role_invalid" | "role_too_low" => "role",
                _ => "",
            };
            errors.add(field, sentence(&reason.detail));
            page(&ask, &errors, None)
        }
    }
}

async fn add(ask: Ask) -> Result<Reply, Reason> {
    let wire = wire(&ask, "add", ask.form.get("name"));
    linked(ask, wire).await
}

async fn link(ask: Ask) -> Result<Reply, Reason> {
    let wire = AdminWire { role: None, ..wire(&ask, "link", ask.place(0)) };
    linked(ask, wire).await
}

async fn simply(ask: &Ask, act: &str, said: &str) -> Result<Reply, Reason> {
    let wire = AdminWire { role: None, ..wire(ask, act, ask.place(0)) };
    done(ask, wire, PATH.into(), format!("{} {said}", ask.place(0))).await
}

async fn role(ask: Ask) -> Result<Reply, Reason> {
    let wire = wire(&ask, "role", ask.place(0));
    let said = format!("{} is {} now", ask.place(0), ask.form.get("role"));
    done(&ask, wire, PATH.into(), said).await
}

async fn disable(ask: Ask) -> Result<Reply, Reason> {
    simply(&ask, "disable", "may not log in any more").await
}

async fn enable(ask: Ask) -> Result<Reply, Reason> {
    simply(&ask, "enable", "may log in again").await
}

async fn remove(ask: Ask) -> Result<Reply, Reason> {
    simply(&ask, "remove", "is removed").await
}

async fn end(ask: Ask) -> Result<Reply, Reason> {
    let wire = AdminWire { command: "session".into(), revoke: Some(ask.place(0).into()), ..Default::default() };
    done(&ask, wire, PATH.into(), "The session has ended".into()).await
}
