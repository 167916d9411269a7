//! From a page to an answer: layout, headers, errors.

use std::rc::Rc;

use serde_json::{Value, json};

use super::Gui;
use super::ask::{self, Ask};
use super::{assets, routes, template};
use crate::core::access::local_path;
use crate::core::reason::Reason;
use crate::fleet::access::Who;
use crate::io::serve::{Request, Response};

/// What a browser may do with a page: nothing that is not from here, no script and no style inside it.
pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                       form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What a page function answers.
pub enum Reply {
    /// A page.
    Page(Page),
    /// Look there (303), and say this on that page.
    See(String, Option<Toast>),
    /// Anything else: a download, a stream.
    Raw(Response),
}

/// A page to be rendered.
pub struct Page {
    /// 200, or 422 for a form that was not good.
    pub status: u16,
    /// Its name, for the window and the head.
    pub title: String,
    /// Which template.
    pub template: &'static str,
    /// What the template takes.
    pub context: Value,
    /// Where one is: name and path of the pages above.
    pub trail: Vec<(String, String)>,
}

impl Page {
    /// A page. The template's context must have every field that the template names.
    pub fn new(title: &str, template: &'static str, context: Value) -> Page {
        Page { status: 200, title: title.to_string(), template, context, trail: Vec::new() }
    }

    /// Below these pages.
    pub fn below(mut self, trail: &[(&str, &str)]) -> Page {
        self.trail = trail.iter().map(|(name, path)| (name.to_string(), path.to_string())).collect();
        self
    }

    /// With another status.
    pub fn status(mut self, status: u16) -> Page {
        self.status = status;
        self
    }

    /// As a reply.
    pub fn reply(self) -> Result<Reply, Reason> {
        Ok(Reply::Page(self))
    }
}

/// One sentence on the next page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toast {
    /// Something did not work: it stays until it is closed.
    pub bad: bool,
    /// The sentence.
    pub text: String,
}

impl Toast {
    /// It worked.
    pub fn good(text: impl Into<String>) -> Option<Toast> {
        Some(Toast { bad: false, text: text.into() })
    }

    /// It did not.
    pub fn bad(reason: &Reason) -> Option<Toast> {
        Some(Toast { bad: true, text: reason.detail.to_string() })
    }
}

/// Which status a reason has.
pub fn status(reason: &Reason) -> u16 {
    match reason.code.as_ref() {
        "bad_request" | "cross_site" => 400,
        "store_unavailable" | "stopping" | "not_ready" => 503,
        "template_broken" => 500,
        code if code.ends_with("_unknown") || code == "not_found" => 404,
        code if code.ends_with("_invalid") => 400,
        _ => 409,
    }
}

/// Renders a page's own part, without the layout.
///
/// # Errors
/// `template_broken`: a field is missing; a defect.
pub fn body(ask: &Ask, page: &Page) -> Result<String, Reason> {
    let mut context = page.context.clone();
    if let Value::Object(object) = &mut context {
        object.insert("csrf".into(), ask.who.csrf.clone().into());
        object.insert("here".into(), ask.address.clone().into());
    }
    template::render(page.template, &context)
}

/// The whole answer.
pub fn answer(ask: &Ask, page: &Page) -> Response {
    match body(ask, page) {
        Ok(body) => html(page.status, whole(&ask.gui, Some(&ask.who), (&ask.path, &ask.address, ask.theme), page, body)),
        Err(reason) => error(ask, 500, &reason),
    }
}

/// A page that says what did not work.
pub fn error(ask: &Ask, status: u16, reason: &Reason) -> Response {
    problem(&ask.gui, Some(&ask.who), (&ask.path, &ask.address, ask.theme), status, reason)
}

/// The same before there is more than a request.
pub fn refused(gui: &Rc<Gui>, who: Option<&Who>, request: &Request, status: u16, reason: &Reason) -> Response {
    problem(gui, who, (&request.path, &request.path, ask::theme(request)), status, reason)
}

fn problem(gui: &Gui, who: Option<&Who>, at: (&str, &str, &'static str), status: u16, reason: &Reason) -> Response {
    let title = match status {
        403 => "Not permitted",
        404 => "Not found",
        405 => "Not a page",
        409 => "That does not fit the present state",
        503 => "Not now",
        500 => "A defect of this program",
        _ => "That did not work",
    };
    let context = json!({"detail": reason.detail, "code": title, "back": at.0});
    let page = Page::new(title, "problem", context).status(status);
    let body = template::render("problem", &page.context).unwrap_or_else(|_| title.to_string());
    html(status, whole(gui, who, at, &page, body))
}

/// A page for who is nobody yet.
pub fn alone(status: u16, title: &str, template: &'static str, context: &Value) -> Response {
    let page = Page::new(title, template, Value::Null);
    let body = template::render(template, context).unwrap_or_else(|reason| {
        log::error!("{reason}");
        title.to_string()
    });
    html(status, whole(&Gui::default(), None, ("", "", ""), &page, body))
}

/// Layout around a body.
fn whole(gui: &Gui, who: Option<&Who>, (path, address, theme): (&str, &str, &'static str), page: &Page, body: String) -> String {
    let toast = who.and_then(|who| gui.told(who));
    let trail: Vec<Value> = page.trail.iter().map(|(name, path)| json!({"name": name, "path": path})).collect();
    let context = json!({
        "title": page.title,
        "body": body,
        "trail": trail,
        "has_trail": !page.trail.is_empty(),
        "known": who.is_some(),
        "name": who.map(|w| w.name.clone()),
        "role": who.map(|w| super::words::human(w.role.word())),
        "csrf": who.map(|w| w.csrf.clone()),
        "nav": who.map_or(Value::Null, |who| routes::navigation(who, path)),
        "here": address,
        "theme": theme,
        "other_theme": if theme == "dark" { "light" } else { "dark" },
        "style": assets::path("style.css"),
        "script": assets::path("script.js"),
        "icon": assets::path("icon.svg"),
        "live": body_is_live(&page.context),
        // The answer to a form has no address of its own: it names a page that has the same regions.
        "stream": page.context.get("stream").and_then(Value::as_str).unwrap_or(address),
        "toast": toast.as_ref().map(|t| t.text.clone()),
        "toast_bad": toast.as_ref().is_some_and(|t| t.bad),
        "version": env!("VMETRIC_BUILT_VERSION"),
    });
    template::render("layout", &context).unwrap_or_else(|reason| {
        log::error!("{reason}");
        context["body"].as_str().unwrap_or_default().to_string()
    })
}

/// Pages with regions that change say so in their context.
fn body_is_live(context: &Value) -> bool {
    context.get("live").is_some_and(|v| v == true)
}

/// HTML with the headers that every page has. No `Strict-Transport-Security`: it would bind every other service of this host.
pub fn html(status: u16, text: String) -> Response {
    sealed(Response::of(status, "text/html; charset=utf-8", text.into_bytes())).with("cache-control", "no-store")
}

/// The headers of everything that a browser is given.
pub fn sealed(response: Response) -> Response {
    response
        .with("content-security-policy", CSP)
        .with("x-content-type-options", "nosniff")
        .with("x-frame-options", "DENY")
        .with("referrer-policy", "same-origin")
        .with("cross-origin-opener-policy", "same-origin")
        .with("cross-origin-resource-policy", "same-origin")
        .with("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}

/// Look there instead.
pub fn see(path: &str) -> Response {
    sealed(Response::empty(303)).with("location", local_path(path)).with("cache-control", "no-store")
}

/// A known path, another method.
pub fn wrong_method(allowed: &str) -> Response {
    sealed(Response::error(405, "method_not_allowed", format!("only {allowed} here"))).with("allow", allowed)
}
