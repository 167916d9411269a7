//! The table of the API: what can be asked, by whom, with which values, and what is answered.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::fields::{Field, Parsed, decoded};
use super::lists;
use super::policies;
use super::values::*;
use crate::core::access::Act;
use crate::core::reason::Reason;
use crate::director::site::Site;
use crate::fleet::intake::Intake;

/// A list that the API makes itself: in pages.
pub type List = fn(Rc<Site>, Option<Rc<Intake>>, Parsed) -> Pin<Box<dyn Future<Output = Result<String, Reason>>>>;

/// Who answers.
pub enum Command {
    /// The administration's command of this name.
    Admin(&'static str),
    /// The same, whose document has this API's words already.
    Own(&'static str),
    /// The API itself.
    List(List),
    /// The OpenAPI document.
    Document,
}

/// One path and method.
pub struct Route {
    /// `GET`, ...
    pub method: &'static str,
    /// With a `{name}` where a value stands.
    pub path: &'static str,
    /// A name that is its own, for generated clients.
    pub id: &'static str,
    /// What it does.
    pub about: &'static str,
    /// What the token has to permit; `None`: no token.
    pub need: Option<Act>,
    /// The value in the path.
    pub place: Option<Field>,
    /// Parameters.
    pub query: &'static [Field],
    /// Fields of the body, if it has one.
    pub body: Option<&'static [Field]>,
    /// What the path says already.
    pub base: fn(&mut Parsed),
    /// What several values of it together mean.
    pub then: fn(&mut Parsed) -> Result<(), Reason>,
    /// Who answers.
    pub command: Command,
    /// Status of a good answer.
    pub success: u16,
    /// Name of its schema ([`super::schemas`]).
    pub answer: &'static str,
}

/// A path's route.
pub enum Found {
    /// This one, and the value in its path.
    Route(&'static Route, Option<String>),
    /// The path has other methods.
    Methods(String),
    /// There is no such path.
    Nothing,
}

/// Looks a request up. `HEAD` is a `GET` whose body is not sent.
pub fn find(method: &str, path: &str) -> Found {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut allowed = Vec::new();
    for route in all() {
        let Some(place) = matches(route.path, path) else { continue };
        if route.method == method {
            return Found::Route(route, place);
        }
        allowed.push(route.method);
    }
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    if allowed.is_empty() { Found::Nothing } else { Found::Methods(allowed.join(", ")) }
}

/// The value in the place of `{name}`; outer `None`: another path.
fn matches(pattern: &str, path: &str) -> Option<Option<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut value = None;
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(value),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => value = Some(decoded(given).filter(|v| !v.is_empty())?),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

pub(super) const PLAIN: Route = Route {
    method: "GET",
    path: "",
    id: "",
    about: "",
    need: Some(Act::Look),
    place: None,
    query: &[],
    body: None,
    base: |_| {},
    then: |_| Ok(()),
    command: Command::Document,
    success: 200,
    answer: "",
};

/// Everything that the API knows.
pub static PARTS: &[&[Route]] = &[ROUTES, super::confirmations::ROUTES, super::people::ROUTES];

/// All of it.
pub fn all() -> impl Iterator<Item = &'static Route> {
    PARTS.iter().flat_map(|part| part.iter())
}

/// Updates, Directors, policies and keys.
pub static ROUTES: &[Route] = &[
    Route { path: "/api/v1/openapi.json", id: "document", about: "This document.", need: None, answer: "Document", ..PLAIN },
    Route {
        path: "/api/v1/status",
        id: "status",
        about: "This Fleet: version, certificate, mirror, how many Directors.",
        command: Command::Admin("status"),
        answer: "Status",
        ..PLAIN
    },
    Route {
        path: "/api/v1/directors",
        id: "directors",
        about: "Directors in the order of their ids: version, pending version, state, whose move it is, until when, why.",
        query: DIRECTORS_QUERY,
        command: Command::List(lists::directors),
        answer: "Directors",
        ..PLAIN
    },
    Route {
        path: "/api/v1/directors/{director}",
        id: "director",
        about: "All about one Director: what it should run, why it does not yet, what can be done.",
        place: Some(DIRECTOR),
        command: Command::Admin("explain"),
        answer: "Explanation",
        ..PLAIN
    },
    Route {
        method: "DELETE",
        path: "/api/v1/directors/{director}",
        id: "removeDirector",
        about: "Refuses a Director's credential from now on.",
        need: Some(Act::Remove),
        place: Some(DIRECTOR),
        command: Command::Admin("remove-agent"),
        answer: "Ordered",
        ..PLAIN
    },
    Route {
        path: "/api/v1/agents",
        id: "agents",
        about: "The Directors' agents, as they tell of them.",
        query: AGENTS_QUERY,
        command: Command::List(lists::agents),
        answer: "Agents",
        ..PLAIN
    },
    Route {
        path: "/api/v1/activity",
        id: "activity",
        about: "What Fleet noted, oldest first, from a cursor on.",
        query: ACTIVITY_QUERY,
        command: Command::List(lists::activity),
        answer: "Activity",
        ..PLAIN
    },
    Route {
        path: "/api/v1/told",
        id: "told",
        about: "What Directors told of themselves and their agents: the newest events that fit, oldest first.",
        query: TOLD_QUERY,
        command: Command::List(lists::told),
        answer: "Told",
        ..PLAIN
    },
    Route {
        path: "/api/v1/rollouts",
        id: "rollouts",
        about: "Roll-outs, newest first.",
        command: Command::Admin("rollouts"),
        answer: "Rollouts",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/rollouts",
        id: "assign",
        about: "Orders a version: first one Director, then a few at a time; too many failures halt it.",
        need: Some(Act::Assign),
        body: Some(ASSIGN),
        command: Command::Admin("assign"),
        success: 201,
        answer: "Ordered",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/rollouts/{rollout}/cancel",
        id: "cancel",
        about: "Ends what has not switched.",
        need: Some(Act::Cancel),
        place: Some(ROLLOUT),
        body: Some(CANCEL),
        command: Command::Admin("cancel"),
        answer: "Cancelled",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/rollouts/{rollout}/retry",
        id: "retry",
        about: "Orders again what did not work, and lifts a halt.",
        need: Some(Act::Assign),
        place: Some(ROLLOUT),
        body: Some(&[REASON]),
        command: Command::Admin("retry"),
        answer: "Retried",
        ..PLAIN
    },
    Route {
        path: "/api/v1/releases",
        id: "releases",
        about: "What the mirror holds.",
        query: RELEASES_QUERY,
        command: Command::Admin("releases"),
        answer: "Releases",
        ..PLAIN
    },
    Route {
        path: "/api/v1/rejections",
        id: "rejections",
        about: "Files that are not ordered, to whom, and why.",
        command: Command::Admin("rejections"),
        answer: "Rejections",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/rejections",
        id: "reject",
        about: "A file is not ordered any more: orders are withdrawn, trials go back.",
        need: Some(Act::Reject),
        body: Some(REJECT),
        command: Command::Admin("reject"),
        success: 201,
        answer: "Rejected",
        ..PLAIN
    },
    Route {
        method: "DELETE",
        path: "/api/v1/rejections/{sha256}",
        id: "allow",
        about: "Lifts a rejection, and a halt's quarantine.",
        need: Some(Act::Reject),
        place: Some(FILE),
        command: Command::Admin("allow"),
        answer: "Allowed",
        ..PLAIN
    },
    Route {
        path: "/api/v1/policy",
        id: "policy",
        about: "Update settings of every Director: what counts by default, what was set for whom, what is authorized.",
        base: |p| p.wire.act = Some("show".into()),
        command: Command::Admin("policy"),
        answer: "Policy",
        ..PLAIN
    },
    Route {
        method: "PATCH",
        path: "/api/v1/policy",
        id: "setPolicy",
        about: "Sets what is named, by default for every Director; the rest stays.",
        need: Some(Act::EditPolicy),
        body: Some(POLICY),
        base: |p| p.wire.act = Some("set".into()),
        command: Command::Admin("policy"),
        answer: "Policy",
        ..PLAIN
    },
    Route {
        path: "/api/v1/directors/{director}/policy",
        id: "directorPolicy",
        about: "What counts for one Director, which tier set it, what follows, and when.",
        place: Some(DIRECTOR),
        base: |p| p.wire.act = Some("show".into()),
        command: Command::Admin("policy"),
        answer: "Policy",
        ..PLAIN
    },
    Route {
        method: "PATCH",
        path: "/api/v1/directors/{director}/policy",
        id: "setDirectorPolicy",
        about: "Sets what is named for one Director: its Custom Policy; the rest stays.",
        need: Some(Act::EditPolicy),
        place: Some(DIRECTOR),
        body: Some(POLICY),
        base: |p| p.wire.act = Some("set".into()),
        command: Command::Admin("policy"),
        answer: "Policy",
        ..PLAIN
    },
    policies::AGENTS_POLICY,
    policies::SET_AGENTS_POLICY,
    policies::POLICY_HISTORY,
    policies::CHECK_POLICY,
    policies::WEBHOOKS,
    policies::CREATE_WEBHOOK,
    policies::CHANGE_WEBHOOK,
    policies::TEST_WEBHOOK,
    policies::REMOVE_WEBHOOK,
    policies::TEMPLATES,
    policies::CREATE_TEMPLATE,
    policies::TEMPLATE,
    policies::CHANGE_TEMPLATE,
    policies::RENEW_TEMPLATE,
    policies::REMOVE_TEMPLATE,
    policies::CLUSTERS,
    policies::CREATE_CLUSTER,
    policies::CLUSTER,
    policies::CHANGE_CLUSTER,
    policies::REMOVE_CLUSTER,
    policies::PAUSE_CLUSTER,
    policies::RESUME_CLUSTER,
    policies::ABORT_CLUSTER,
    policies::OVERRIDE_CLUSTER,
    policies::CLUSTER_POLICY,
    policies::SET_CLUSTER_POLICY,
    Route {
        method: "POST",
        path: "/api/v1/authorizations",
        id: "authorize",
        about: "Lets Directors whose method is user_action take one version, once.",
        need: Some(Act::Authorize),
        body: Some(AUTHORIZE),
        base: |p| p.wire.act = Some("give".into()),
        command: Command::Admin("authorize"),
        success: 201,
        answer: "Authorized",
        ..PLAIN
    },
    Route {
        method: "DELETE",
        path: "/api/v1/directors/{director}/authorization",
        id: "revokeAuthorization",
        about: "Takes a Director's authorization back; what has not switched is withdrawn.",
        need: Some(Act::Authorize),
        place: Some(DIRECTOR),
        base: |p| p.wire.act = Some("revoke".into()),
        command: Command::Admin("authorize"),
        answer: "Authorized",
        ..PLAIN
    },
    Route {
        path: "/api/v1/keys",
        id: "keys",
        about: "API keys with which Directors enroll; never their text.",
        command: Command::Admin("token"),
        base: |p| p.wire.list = Some(true),
        answer: "Keys",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/keys",
        id: "createKey",
        about: "Makes an API key; its text is in this answer and nowhere else.",
        need: Some(Act::Enroll),
        body: Some(NEW_KEY),
        command: Command::Admin("token"),
        success: 201,
        answer: "Key",
        ..PLAIN
    },
    Route {
        method: "DELETE",
        path: "/api/v1/keys/{key}",
        id: "revokeKey",
        about: "Takes an API key back; who enrolled with it stays.",
        need: Some(Act::Enroll),
        place: Some(KEY),
        command: Command::Admin("token"),
        answer: "Keys",
        ..PLAIN
    },
];
