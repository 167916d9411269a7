//! The plain pages of [`super::doors`]. They hold no script; what was typed is shown as text.

use super::doors::{FirstPage, LoginPage, field_of};
use crate::core::access::PASSWORD;
use crate::core::reason::Reason;
use crate::io::serve::Response;

/// What every page of Fleet permits a browser: its own files, its own forms, no frame around it.
pub const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// A page with the headers that each of them has.
pub fn page(status: u16, html: String) -> Response {
    secured(Response::of(status, "text/html; charset=utf-8", html.into_bytes())).with("cache-control", "no-store")
}

/// The headers against what other sites might do with a page.
pub fn secured(response: Response) -> Response {
    response
        .with("content-security-policy", CONTENT_POLICY)
        .with("x-content-type-options", "nosniff")
        .with("x-frame-options", "DENY")
        .with("referrer-policy", "no-referrer")
        .with("cross-origin-opener-policy", "same-origin")
        .with("cross-origin-resource-policy", "same-origin")
}

/// Text in HTML, in attributes too.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `/login`.
pub fn login(status: u16, page: &LoginPage) -> Response {
    let (name, next) = (escaped(&page.name), escaped(&page.next));
    let error = whole(page.error.as_ref());
    let body = format!(
        "<h1>Log in</h1>{error}<form method=\"post\" action=\"/login\"><input type=\"hidden\" name=\"next\" value=\"{next}\">\
         <p><label>Name <input name=\"name\" value=\"{name}\" autocomplete=\"username\" autocapitalize=\"none\" required autofocus></label></p>\
         <p><label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" required></label></p>\
         <p><button>Log in</button></p></form>"
    );
    self::page(status, shell("Log in", &body))
}

/// `/first`.
pub fn first(status: u16, page: &FirstPage) -> Response {
    let error = whole(page.error.as_ref().filter(|reason| field_of(reason).is_none()));
    if status == 410 {
        return self::page(status, shell("Link", &format!("<h1>This link cannot be used</h1>{error}")));
    }
    let beside = |field: &str| whole(page.error.as_ref().filter(|reason| field_of(reason) == Some(field)));
    let (code, typed) = (escaped(&page.code), escaped(&page.name));
    let (title, name) = match page.user.as_str() {
        "" => (
            "Become the first owner".to_string(),
            format!(
                "<p><label>Name <input name=\"name\" value=\"{typed}\" autocomplete=\"username\" autocapitalize=\"none\" required autofocus></label></p>{}",
                beside("name")
            ),
        ),
        user => (format!("Choose a password for {}", escaped(user)), String::new()),
    };
    let body = format!(
        "<h1>{title}</h1>{error}<form method=\"post\" action=\"/first\"><input type=\"hidden\" name=\"code\" value=\"{code}\">{name}\
         <p><label>Password, at least {} characters <input name=\"password\" type=\"password\" autocomplete=\"new-password\" required></label></p>{}\
         <p><label>The same again <input name=\"again\" type=\"password\" autocomplete=\"new-password\" required></label></p>{}\
         <p><button>Save and log in</button></p></form>",
        PASSWORD.0,
        beside("password"),
        beside("again"),
    );
    self::page(status, shell(&title, &body))
}

fn whole(reason: Option<&Reason>) -> String {
    reason.map_or(String::new(), |reason| {
        format!("<p role=\"alert\" data-code=\"{}\">{}</p>", escaped(&reason.code), escaped(&reason.detail))
    })
}

fn shell(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} - vmetric Fleet</title></head><body><main>{body}</main></body></html>"
    )
}
