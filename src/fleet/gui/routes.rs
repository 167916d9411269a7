//! The table of pages: what can be asked for, who may, who answers; and the navigation.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};

use super::ask::Ask;
use super::page::Reply;
use super::pages;
use crate::core::access::Act;
use crate::core::access::permits;
use crate::core::reason::Reason;
use crate::fleet::access::Who;
use crate::fleet::api::fields::decoded;

/// A page under way.
pub type Paged = Pin<Box<dyn Future<Output = Result<Reply, Reason>>>>;

/// One path and method.
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// With a `{name}` where a value stands.
    pub path: &'static str,
    /// A name that is its own, for tests.
    pub id: &'static str,
    /// What it does: who may. Everybody has to be somebody; `/login` and `/first` are [`crate::fleet::access::doors`]'.
    pub need: Act,
    /// Who answers.
    pub page: fn(Ask) -> Paged,
}

/// Every page. Each module has its own part of the table beside its pages.
pub static ROUTES: &[&[Route]] = &[
    pages::shell::ROUTES,
    super::live::ROUTES,
    pages::overview::ROUTES,
    pages::directors::ROUTES,
    pages::director::ROUTES,
    pages::acts::ROUTES,
    pages::agents::ROUTES,
    pages::rollouts::ROUTES,
    pages::releases::ROUTES,
    pages::activity::ROUTES,
    pages::policy::ROUTES,
    pages::create::ROUTES,
    pages::devices::ROUTES,
    pages::templates::ROUTES,
    pages::template_edit::ROUTES,
    pages::clusters::ROUTES,
    pages::cluster_acts::ROUTES,
    pages::updates::ROUTES,
    pages::confirm::ROUTES,
    pages::notifications::ROUTES,
    pages::tokens::ROUTES,
    pages::users::ROUTES,
    pages::audit::ROUTES,
    pages::account::ROUTES,
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().flat_map(|part| part.iter())
}

/// A path's route.
pub enum Found {
    /// This one, and the values in its path.
    Route(&'static Route, Vec<String>),
    /// The path has other methods.
    Methods(String),
    /// There is no such path.
    Nothing,
}

/// Looks a request up. `HEAD` is a `GET` whose body is not sent. A path without a value in it goes first.
pub fn find(method: &str, path: &str) -> Found {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut best: Option<(&'static Route, Vec<String>)> = None;
    let mut allowed = Vec::new();
    for route in all() {
        let Some(places) = matches(route.path, path) else { continue };
        if route.method != method {
            allowed.push(route.method);
        } else if best.as_ref().is_none_or(|(_, other)| places.len() < other.len()) {
            best = Some((route, places));
        }
    }
    match best {
        Some((route, places)) => Found::Route(route, places),
        None if allowed.is_empty() => Found::Nothing,
        None => Found::Methods(allowed.join(", ")),
    }
}

fn matches(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut places = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(places),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => places.push(decoded(given).filter(|v| !v.is_empty())?),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

/// One line of the navigation.
struct Item(&'static str, &'static str, &'static str);

/// Groups with their lines: icon, name, path. A line whose page does not exist, or is not for this person, is left out.
const NAVIGATION: [(&str, &[Item]); 5] = [
    ("", &[Item("home", "Overview", "/")]),
    (
        "Fleet Management",
        &[
            Item("server", "Directors", "/fleet-management/directors"),
            Item("cluster", "Clusters", "/fleet-management/clusters"),
            Item("update", "Available updates", "/updates"),
            Item("rollout", "Roll-outs", "/rollouts"),
            Item("box", "Releases", "/releases"),
        ],
    ),
    (
        "Devices",
        &[
            Item("device", "Linux", "/devices/linux"),
            Item("device", "Windows", "/devices/windows"),
            Item("device", "macOS", "/devices/macos"),
            Item("template", "Enrollment Templates", "/devices/templates"),
        ],
    ),
    ("Monitoring", &[Item("pulse", "Activity", "/activity")]),
    (
        "Organization",
        &[
            Item("gear", "Settings", "/organization/settings/update-management"),
            Item("people", "Users", "/organization/users"),
            Item("list", "Audit", "/organization/audit"),
        ],
    ),
];

/// Whether this person may look at a page, and it is there.
pub fn seen(who: &Who, path: &str) -> bool {
    matches!(find("GET", path), Found::Route(route, _) if permits(who.role, route.need).is_ok())
}

/// The navigation as this person sees it here.
pub fn navigation(who: &Who, path: &str) -> Value {
    let seen = |item: &&Item| match find("GET", item.2) {
        Found::Route(route, _) => permits(who.role, route.need).is_ok(),
        _ => false,
    };
    let inside = |at: &str| path == at || (at != "/" && path.strip_prefix(at).is_some_and(|rest| rest.starts_with('/')));
    let groups = NAVIGATION.iter().filter_map(|(name, items)| {
        let items: Vec<&Item> = items.iter().filter(seen).collect();
        // The longest path that fits is where one is.
        let here = items.iter().map(|i| i.2).filter(|p| inside(p)).max_by_key(|p| p.len());
        let lines: Vec<Value> =
            items.iter().map(|Item(icon, name, at)| json!({"icon": icon, "name": name, "path": at, "here": here == Some(*at)})).collect();
        (!lines.is_empty()).then(|| json!({"name": name, "items": lines}))
    });
    Value::Array(groups.collect())
}
