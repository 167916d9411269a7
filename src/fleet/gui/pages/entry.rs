//! `/login` and `/first`: what [`crate::fleet::access::doors`] answers, dressed.

use serde_json::{Value, json};

use super::Templates;
use crate::core::access::{NAME_MAX, PASSWORD};
use crate::core::reason::Reason;
use crate::fleet::access::doors::{FirstPage, LoginPage, field_of};
use crate::fleet::gui::input::Input;
use crate::fleet::gui::page;
use crate::io::serve::Response;

/// Templates.
pub static TEMPLATES: Templates = &[("entry", include_str!("../templates/entry.html"))];

/// `/login`.
pub fn login(status: u16, typed: &LoginPage) -> Response {
    let fields = vec![
        Input::text("name", "Name").value(&typed.name).auto("username").required().json(),
        Input::password("password", "Password", "current-password").required().json(),
    ];
    let hidden = json!({"name": "next", "value": typed.next});
    entry(status, "Log in", "/login", fields, hidden, typed.error.as_ref(), "Log in")
}

/// `/first`.
pub fn first(status: u16, typed: &FirstPage) -> Response {
    let beside = |field: &str| typed.error.as_ref().filter(|r| field_of(r) == Some(field)).map_or("", |r| &*r.detail);
    let whole = typed.error.as_ref().filter(|reason| field_of(reason).is_none());
    let hidden = json!({"name": "code", "value": typed.code});
    if status == 410 {
        return entry(status, "This link cannot be used", "", Vec::new(), hidden, whole, "");
    }
    let title = match typed.user.as_str() {
        "" => "Become the first owner".to_string(),
        user => format!("Choose a password for {user}"),
    };
    let mut fields = Vec::new();
    if typed.user.is_empty() {
        let help = format!("1 to {NAME_MAX} letters, digits and . _ - + @");
        fields.push(Input::text("name", "Name").value(&typed.name).auto("username").help(&help).error(beside("name")).required().json());
    }
    let help = format!("At least {} characters; several words are easy to remember.", PASSWORD.0);
    let password = Input::password("password", "Password", "new-password").help(&help).error(beside("password")).required();
    fields.push(password.json());
    fields.push(Input::password("again", "The same again", "new-password").error(beside("again")).required().json());
    entry(status, &title, "/first", fields, hidden, whole, "Save and log in")
}

fn entry(status: u16, title: &str, action: &str, fields: Vec<Value>, hidden: Value, error: Option<&Reason>, act: &str) -> Response {
    let context = json!({
        "title": title, "action": action, "fields": fields, "hidden": hidden, "act": act,
        "error": error.map(|r| r.detail.to_string()), "code": error.map(|r| r.code.to_string()),
    });
    page::alone(status, title, "entry", &context)
}
