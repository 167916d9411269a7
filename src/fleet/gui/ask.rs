//! What a page is asked for, by whom, with what typed.

use std::rc::Rc;

use miniserde::json;
use serde_json::Value;

use super::Gui;
use super::form::Form;
use super::routes::Route;
use crate::core::access::{Act, permits};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::site::Site;
use crate::fleet::access::Who;
use crate::fleet::access::door::{self, Caller};
use crate::fleet::form;
use crate::fleet::intake::Intake;
use crate::io::clock;
use crate::io::serve::Request;

/// One request for a page.
#[derive(Clone)]
pub struct Ask {
    /// All pages' common part.
    pub gui: Rc<Gui>,
    /// The server.
    pub site: Rc<Site>,
    /// What Directors told.
    pub intake: Rc<Intake>,
    /// Which page.
    pub route: &'static Route,
    /// Who asks.
    pub who: Who,
    /// The values in the path, in its order.
    pub places: Vec<String>,
    /// What follows the `?`.
    pub query: Form,
    /// What was typed.
    pub form: Form,
    /// It is a form that was sent.
    pub is_form: bool,
    /// The path.
    pub path: String,
    /// The whole address, as it is asked for again.
    pub address: String,
    /// `light`, `dark`, or nothing: what the system says.
    pub theme: &'static str,
    /// Seconds since 1970.
    pub now: u64,
}

impl Ask {
    /// Reads a request.
    ///
    /// # Errors
    /// `form_invalid`: what was sent is no form.
    pub fn new(
        gui: &Rc<Gui>,
        site: &Rc<Site>,
        intake: &Rc<Intake>,
        request: &Request,
        route: &'static Route,
        who: Who,
        places: Vec<String>,
    ) -> Result<Ask, Reason> {
        let is_form = request.method == "POST";
        let query_text = request.query.clone().unwrap_or_default();
        Ok(Ask {
            gui: gui.clone(),
            site: site.clone(),
            intake: intake.clone(),
            route,
            who,
            places,
            query: Form::of(form::Form::query(request)?),
            form: if is_form { Form::of(form::Form::of(request)?) } else { Form::default() },
            is_form,
            path: request.path.clone(),
            address: if query_text.is_empty() { request.path.clone() } else { format!("{}?{query_text}", request.path) },
            theme: theme(request),
            now: clock::unix(),
        })
    }

    /// A value in the path.
    pub fn place(&self, n: usize) -> &str {
        self.places.get(n).map_or("", String::as_str)
    }

    /// Runs a command as the administration socket would; its document.
    ///
    /// # Errors
    /// The command's own reason.
    pub async fn command(&self, wire: AdminWire) -> Result<Value, Reason> {
        let text = door::command(&self.site, wire, &Caller::from(&self.who)).await?;
        // Several lines: a list.
        if let Ok(value) = serde_json::from_str(&text) {
            return Ok(value);
        }
        let rows: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
        rows.map(Value::Array).map_err(|_| Reason::new("answer_lost", "the answer was cut; load the page again"))
    }

    /// Who did it, as the activity notes it.
    pub fn by(&self) -> String {
        self.who.by()
    }

    /// Whether this person may do that; for what is shown. The route's own need decides.
    pub fn may(&self, act: Act) -> bool {
        permits(self.who.role, act).is_ok()
    }
}

/// A document of the server as a template takes it.
pub fn value(document: &impl miniserde::Serialize) -> Value {
    serde_json::from_str(&json::to_string(document)).unwrap_or(Value::Null)
}

/// The choice of this browser.
pub fn theme(request: &Request) -> &'static str {
    let cookies = request.header("cookie").unwrap_or_default();
    match cookies.split(';').find_map(|c| c.trim().strip_prefix("__Host-theme=")) {
        Some("dark") => "dark",
        Some("light") => "light",
        _ => "",
    }
}
