//! The table of the API: what can be asked, by whom, with which values, and what is answered.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::fields::{Field, Kind, Parsed, TEXT_MAX, decoded};
use super::lists;
use crate::core::reason::Reason;
use crate::director::api_tokens::Need;
use crate::director::records::NAME_MAX;
use crate::director::site::Site;
use crate::fleet::intake::Intake;
use crate::wire::settings::SettingsWire;

/// A list that the API makes itself: in pages.
pub type List = fn(Rc<Site>, Option<Rc<Intake>>, Parsed) -> Pin<Box<dyn Future<Output = Result<String, Reason>>>>;

/// Who answers.
pub enum Command {
    /// The administration's command of this name.
    Admin(&'static str),
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
    pub need: Option<Need>,
    /// The value in the path.
    pub place: Option<Field>,
    /// Parameters.
    pub query: &'static [Field],
    /// Fields of the body, if it has one.
    pub body: Option<&'static [Field]>,
    /// What the path says already.
    pub base: fn(&mut Parsed),
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
    for route in ROUTES {
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

const VIEWER: Option<Need> = Some(Need::Viewer);
const ADMIN: Option<Need> = Some(Need::Admin);
/// Most rows of one page.
pub const PAGE_MAX: u64 = 1_000;
/// A year, the longest of all lives, seconds.
const YEAR_S: u64 = 366 * 86_400;

const DIRECTOR: Field = Field {
    name: "director",
    about: "A Director's id, as /directors lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.agents = g.texts(),
};
const OF_DIRECTOR: Field = Field {
    name: "director",
    about: "Only of this Director.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| p.director = g.text(),
};
const ROLLOUT: Field = Field {
    name: "rollout",
    about: "A roll-out's number.",
    kind: Kind::Number(0, u32::MAX as u64),
    required: true,
    set: |p, g| p.wire.rollout = g.number(),
};
const KEY: Field = Field {
    name: "key",
    about: "An API key's id, as /keys lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.revoke = g.text(),
};
const FILE: Field = Field {
    name: "sha256",
    about: "A file's SHA-256, or its first 8 digits or more.",
    kind: Kind::Text(64),
    required: true,
    set: |p, g| p.wire.hash = g.text(),
};
const REASON: Field = Field {
    name: "reason",
    about: "Why, for the activity.",
    kind: Kind::Text(TEXT_MAX),
    required: false,
    set: |p, g| p.wire.reason = g.text(),
};
const LIMIT: Field = Field {
    name: "limit",
    about: "Rows of this page, 200 without it.",
    kind: Kind::Number(1, PAGE_MAX),
    required: false,
    set: |p, g| p.wire.limit = g.number(),
};
const AFTER: Field = Field {
    name: "after",
    about: "Rows after this one: `next` of the page before.",
    kind: Kind::Text(2 * NAME_MAX + 1),
    required: false,
    set: |p, g| p.after = g.text(),
};
const VERSION: Field = Field {
    name: "version",
    about: "Only those that run this version.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| p.wire.version = g.text(),
};
const STATE: Field = Field {
    name: "state",
    about: "Only those in this state.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| p.state = g.text(),
};
const DIRECTORS: Field =
    Field { name: "directors", about: "Directors by id.", kind: Kind::Texts, required: false, set: |p, g| p.wire.agents = g.texts() };

const DIRECTORS_QUERY: &[Field] = &[LIMIT, AFTER, VERSION, STATE];
const AGENTS_QUERY: &[Field] = &[LIMIT, AFTER, OF_DIRECTOR];
const TOLD_QUERY: &[Field] = &[
    LIMIT,
    OF_DIRECTOR,
    Field {
        name: "agent",
        about: "Only of this agent of it.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| p.agent = g.text(),
    },
    Field { name: "update", about: "Only of this update.", kind: Kind::Text(NAME_MAX), required: false, set: |p, g| p.update = g.text() },
];
const ACTIVITY_QUERY: &[Field] = &[
    LIMIT,
    Field {
        name: "after",
        about: "Events after this number: `next` of the page before; without it, from the oldest on.",
        kind: Kind::Number(0, i64::MAX as u64),
        required: false,
        set: |p, g| p.after_seq = g.number(),
    },
    OF_DIRECTOR,
];
const ASSIGN: &[Field] = &[
    Field {
        name: "version",
        about: "The version: exact, or `latest`.",
        kind: Kind::Text(NAME_MAX),
        required: true,
        set: |p, g| p.wire.version = g.text(),
    },
    DIRECTORS,
    Field {
        name: "all",
        about: "Every Director, instead of naming them.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.all = g.flag(),
    },
    Field {
        name: "max_in_flight",
        about: "How many at once after the first one: a number, or a share such as `10%`.",
        kind: Kind::Text(8),
        required: false,
        set: |p, g| p.wire.max_in_flight = g.text(),
    },
    Field {
        name: "max_failures",
        about: "More failures halt it; 2 without it.",
        kind: Kind::Number(0, 100_000),
        required: false,
        set: |p, g| p.wire.max_failures = g.number(),
    },
    Field {
        name: "contact_deadline_s",
        about: "How long a trial may be without Fleet's word, seconds.",
        kind: Kind::Number(30, 86_400),
        required: false,
        set: |p, g| p.wire.contact_deadline_s = g.number(),
    },
    Field {
        name: "unattended",
        about: "It may switch without contact.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.unattended = g.flag(),
    },
    Field {
        name: "switch_in_s",
        about: "Not before so many seconds from now.",
        kind: Kind::Number(0, 30 * 86_400),
        required: false,
        set: |p, g| p.wire.switch_in_s = g.number(),
    },
    Field {
        name: "life_s",
        about: "Who has had no turn after so many seconds is left out.",
        kind: Kind::Number(60, YEAR_S),
        required: false,
        set: |p, g| p.wire.life_s = g.number(),
    },
    Field {
        name: "retry",
        about: "Also files that a Director rejects.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.retry = g.flag(),
    },
];
const CANCEL: &[Field] = &[
    REASON,
    Field {
        name: "roll_back",
        about: "A trial goes back, too.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.roll_back = g.flag(),
    },
];
const REJECT: &[Field] = &[
    FILE,
    DIRECTORS,
    Field {
        name: "for_s",
        about: "Until so many seconds from now; without it, until it is allowed.",
        kind: Kind::Number(1, YEAR_S),
        required: false,
        set: |p, g| p.wire.ttl_s = g.number(),
    },
    REASON,
];
const NEW_KEY: &[Field] = &[
    Field {
        name: "uses",
        about: "Enrollments that it is good for; 1 without it.",
        kind: Kind::Number(1, 100_000),
        required: false,
        set: |p, g| p.wire.uses = g.number(),
    },
    Field {
        name: "ttl_s",
        about: "Its life, seconds; an hour without it.",
        kind: Kind::Number(1, 30 * 86_400),
        required: false,
        set: |p, g| p.wire.ttl_s = g.number(),
    },
    Field {
        name: "approval",
        about: "A person approves each Director that comes with it.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.approval = g.flag(),
    },
];

/// The settings of a request.
fn settings(parsed: &mut Parsed) -> &mut SettingsWire {
    parsed.wire.settings.get_or_insert_with(|| SettingsWire { ..Default::default() })
}

const POLICY: &[Field] = &[
    Field {
        name: "mode",
        about: "Whether updates come by themselves: manual or auto.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| settings(p).mode = g.text(),
    },
    Field {
        name: "method",
        about: "How: user_action, immediate or schedule.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| settings(p).method = g.text(),
    },
    Field {
        name: "version",
        about: "Which version: exact, or latest.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| settings(p).version = g.text(),
    },
    Field {
        name: "cron",
        about: "When: five fields of crontab.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| settings(p).cron = g.text(),
    },
    Field {
        name: "interval",
        about: "Or how often, such as 1h.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| settings(p).interval = g.text(),
    },
    Field {
        name: "zone",
        about: "The time zone of cron, such as Europe/Berlin.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| settings(p).zone = g.text(),
    },
    Field {
        name: "custom",
        about: "False: inherit everything, and keep what was typed.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.custom = g.flag(),
    },
    Field {
        name: "revision",
        about: "Only if nobody has changed it since this revision.",
        kind: Kind::Number(0, i64::MAX as u64),
        required: false,
        set: |p, g| p.wire.expected = g.number(),
    },
];
const AUTHORIZE: &[Field] = &[
    Field { required: true, ..DIRECTORS },
    Field { about: "The version: exact, or `latest` as it is now.", required: true, ..VERSION },
    Field {
        name: "ttl_s",
        about: "How long it is good, seconds.",
        kind: Kind::Number(1, YEAR_S),
        required: false,
        set: |p, g| p.wire.ttl_s = g.number(),
    },
];

const PLAIN: Route = Route {
    method: "GET",
    path: "",
    id: "",
    about: "",
    need: VIEWER,
    place: None,
    query: &[],
    body: None,
    base: |_| {},
    command: Command::Document,
    success: 200,
    answer: "",
};

/// Everything that the API knows.
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
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
        place: Some(DIRECTOR),
        body: Some(POLICY),
        base: |p| p.wire.act = Some("set".into()),
        command: Command::Admin("policy"),
        answer: "Policy",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/authorizations",
        id: "authorize",
        about: "Lets Directors whose method is user_action take one version, once.",
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
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
        need: ADMIN,
        place: Some(KEY),
        command: Command::Admin("token"),
        answer: "Keys",
        ..PLAIN
    },
];
