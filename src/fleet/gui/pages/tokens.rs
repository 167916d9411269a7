//! Organization > Settings > API Tokens: which programs get in.

use serde_json::{Value, json};

use super::Templates;
use super::policy::tabs;
use crate::core::access::{Act, Role};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::fleet::gui::ask::Ask;
use crate::fleet::gui::form::Errors;
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page::{Page, Reply, Toast};
use crate::fleet::gui::routes::{Paged, Route};
use crate::fleet::gui::settings::sentence;
use crate::fleet::gui::words;

/// The tab's address.
pub const TOKENS: &str = "/organization/settings/tokens";
/// Lives of a token, seconds, in the words of the specification's vendor.
const LIVES: [(&str, &str); 3] = [("7776000", "3 months"), ("2592000", "1 month"), ("31536000", "1 year")];

/// Routes.
pub static ROUTES: &[Route] = &[
    Route { method: "GET", path: TOKENS, id: "tokens", need: Act::ManageTokens, page: |ask| Box::pin(tokens(ask)) as Paged },
    Route { method: "POST", path: TOKENS, id: "tokens-change", need: Act::ManageTokens, page: |ask| Box::pin(tokens(ask)) as Paged },
];

/// Templates.
pub static TEMPLATES: Templates = &[("tokens", include_str!("../templates/tokens.html"))];

/// Roles that this person may give, as a list.
fn roles(ask: &Ask) -> Vec<(&'static str, &'static str)> {
    let words = [("viewer", "Viewer"), ("contributor", "Contributor"), ("admin", "Admin"), ("owner", "Owner")];
    words.into_iter().filter(|(word, _)| Role::parse(word).is_ok_and(|role| role <= ask.who.role)).collect()
}

async fn tokens(ask: Ask) -> Result<Reply, Reason> {
    let command = || AdminWire { command: "api-token".into(), ..Default::default() };
    let (mut made, mut errors) = (Value::Null, Errors::default());
    if ask.is_form {
        let revoke = ask.form.some("revoke");
        let create = AdminWire { role: ask.form.some("role"), ttl_s: ask.form.get("ttl").parse().ok(), ..command() };
        let wire = if revoke.is_some() { AdminWire { revoke: revoke.clone(), ..command() } } else { create };
        match ask.command(wire).await {
            Ok(_) if revoke.is_some() => return Ok(Reply::See(TOKENS.into(), Toast::good("The token was revoked."))),
            Ok(answer) => made = json!({"text": answer["token"], "until": words::at(answer["expires_at"].as_u64().unwrap_or(0))}),
            Err(reason) => {
                let field = if reason.code.starts_with("role_") { "role" } else { "" };
                errors.add(field, sentence(&reason.detail));
            }
        }
    }
    let all = ask.command(AdminWire { list: Some(true), ..command() }).await?;
    let row = |t: &Value| {
        let state = t["state"].as_str().unwrap_or_default();
        json!({
            "id": t["id"],
            "role": words::human(t["role"].as_str().unwrap_or_default()),
            "state": words::chip(if state == "valid" { "good" } else { "quiet" }, if state == "valid" { "ok" } else { "pause" }, &words::human(state)),
            "valid": state == "valid",
            "by": words::by(t["by"].as_str().unwrap_or_default()),
            "created": words::at(t["created_at"].as_u64().unwrap_or(0)),
            "expires": words::at(t["expires_at"].as_u64().unwrap_or(0)),
            "csrf": ask.who.csrf,
        })
    };
    let rows: Vec<Value> = all["tokens"].as_array().into_iter().flatten().map(row).collect();
    let about = "What a program may do with it: the same as a user of that role.";
    let fields = vec![
        Input::select("role", "Role", &roles(&ask)).help(about).typed(&ask.form, &errors).json(),
        Input::select("ttl", "Good for", &LIVES).typed(&ask.form, &errors).json(),
    ];
    let status = if errors.is_empty() { 200 } else { 422 };
    let context = json!({"bar": {"tabs": tabs(&ask)}, "rows": rows, "fields": fields, "made": made, "problem": errors.of("")});
    Page::new("Settings", "tokens", context).below(&[("Organization", "")]).status(status).reply()
}
