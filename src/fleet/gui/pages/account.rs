//! Your account: who one is here, the own password, and where one is logged in.

use serde_json::{Value, json};

use super::Templates;
use crate::core::access::{Act, PASSWORD};
use crate::core::reason::Reason;
use crate::fleet::access::{self, own};
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::Errors;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::sentence;
use crate::fleet::gui::words;

const PATH: &str = "/account";

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: PATH, id: "account", need: Act::Look, page: |ask| Box::pin(show(ask)) as Paged },
    Route { method: "POST", path: PATH, id: "account-password", need: Act::Look, page: |ask| Box::pin(change(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates = &[("account", include_str!("../templates/account.html"))];

async fn show(ask: Ask) -> Result<Reply, Reason> {
    page(&ask, &Errors::default())
}

/// Passwords that were typed are not shown again: what is wrong is said, the rest is typed anew.
fn page(ask: &Ask, errors: &Errors) -> Result<Reply, Reason> {
    let access = access::of(&ask.site)?;
    let session = |s: &access::sessions::SessionRow| {
        json!({
            "browser": words::browser(&s.browser), "agent": s.browser, "ip": s.ip, "seen": words::ago(s.seen_at),
            "ends": words::at(s.expires_at), "own": s.id == ask.who.session,
        })
    };
    let sessions: Vec<Value> = access.sessions(ask.now).iter().filter(|s| s.user == ask.who.name).map(session).collect();
    let field = |name: &str, label: &str, auto: &str| Input::password(name, label, auto).required().error(errors.of(name));
    let help = format!("At least {} characters; several words are easy to remember.", PASSWORD.0);
    let context = json!({
        "name": ask.who.name,
        "role": words::human(ask.who.role.word()),
        "sessions": sessions,
        "problem": errors.of(""),
        "fields": [
            field("current", "Present password", "current-password").json(),
            field("password", "New password", "new-password").help(&help).json(),
            field("again", "The same again", "new-password").json(),
        ],
    });
    let status = if errors.is_empty() { 200 } else { 422 };
    Page::new("Your account", "account", context).status(status).reply()
}

async fn change(ask: Ask) -> Result<Reply, Reason> {
    let access = access::of(&ask.site)?;
    // As it was typed: spaces at its ends belong to a password.
    let field = |name: &str| ask.form.raw().get(name).unwrap_or_default().to_string();
    let (current, new, again) = (field("current"), field("password"), field("again"));
    match access.change_own_password(&ask.site, &ask.who, &current, (&new, &again)).await {
        Ok(ended) => {
            ask.site.store.durable().await.map_err(crate::director::commands::store_error)?;
            let others = if ended > 0 { " Your other sessions have ended." } else { "" };
            Ok(Reply::See(PATH.into(), Toast::good(format!("Your password is changed.{others}"))))
        }
        Err(reason) => {
            let mut errors = Errors::default();
            errors.add(own::field_of(&reason).unwrap_or_default(), sentence(&reason.detail));
            page(&ask, &errors)
        }
    }
}
