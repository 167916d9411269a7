//! Routes of users, sessions, tokens and the audit log, beside those of [`super::routes`].

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use miniserde::{Deserialize, Serialize, json};

use super::fields::{Field, Kind, Parsed};
use super::routes::{Command, PLAIN, Route};
use super::values::{LIMIT, YEAR_S};
use crate::core::access::{Act, NAME_MAX, PASSWORD, Role};
use crate::core::reason::Reason;
use crate::director::site::Site;
use crate::fleet::access::audit::Wanted;
use crate::fleet::access::command::wanted;
use crate::fleet::intake::Intake;
use crate::wire::audit::{Head, Row};

/// Longest id of a token or a session.
const ID_MAX: usize = 64;

/// A page of the audit log.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct AuditPage {
    /// Oldest first; the newest that fit.
    pub rows: Vec<Row>,
    /// What `before` is for the page before this one; 0: there is none.
    pub before: u64,
    /// Where the chain stands.
    pub head: Head,
}

/// `GET /api/v1/audit`.
pub fn audit(site: Rc<Site>, _intake: Option<Rc<Intake>>, parsed: Parsed) -> Pin<Box<dyn Future<Output = Result<String, Reason>>>> {
    Box::pin(async move {
        let access = crate::fleet::access::of(&site)?;
        let wanted = Wanted { before: parsed.wire.before, ..wanted(&parsed.wire) };
        let rows = access.audit.rows(&site, &wanted).await?;
        let before = rows.first().filter(|_| rows.len() >= wanted.limit).map_or(0, |row| row.n);
        let head = Head { filtered: wanted.filters(), ..access.audit.head() };
        Ok(json::to_string(&AuditPage { rows, before, head }))
    })
}

const USER: Field = Field::needed("user", "A user's name, as /users lists it.", Kind::Text(NAME_MAX), |p, g| p.wire.user = g.text());
const ROLE: Field =
    Field::needed("role", "What it permits; never more than your own.", Kind::Word(&Role::WORDS), |p, g| p.wire.role = g.text());
const NEW_USER: &[Field] = &[
    Field { name: "name", about: "A name of letters, digits and . _ - + @, in lower case.", ..USER },
    ROLE,
    Field::of(
        "password",
        "A password of 12 characters or more; without it, the answer holds a one-time link.",
        Kind::Text(PASSWORD.1),
        |p, g| p.wire.password = g.text(),
    ),
];
const SESSION: Field =
    Field::needed("session", "A session's id, as /sessions lists it.", Kind::Text(ID_MAX), |p, g| p.wire.revoke = g.text());
const TOKEN: Field = Field { name: "token", about: "A token's id, as /tokens lists it.", ..SESSION };
const NEW_TOKEN: &[Field] = &[
    ROLE,
    Field::of("ttl_s", "Its life, seconds; 30 days without it, a year at most.", Kind::Number(1, YEAR_S), |p, g| p.wire.ttl_s = g.number()),
];
const AUDIT_QUERY: &[Field] = &[
    LIMIT,
    Field::of("before", "Rows before this number: `before` of the page after it.", Kind::Number(0, i64::MAX as u64), |p, g| {
        p.wire.before = g.number()
    }),
    Field { name: "user", about: "Only of users whose name holds this.", required: false, ..USER },
    Field::of("action", "Only of this action.", Kind::Text(ID_MAX), |p, g| p.wire.action = g.text()),
    Field::of("since_s", "Not older than so many seconds.", Kind::Number(1, 2 * YEAR_S), |p, g| p.wire.since_s = g.number()),
];
const KEPT: &[Field] =
    &[Field::of("head", "A hash that was kept elsewhere and has to turn up.", Kind::Text(ID_MAX), |p, g| p.wire.hash = g.text())];

fn listed(parsed: &mut Parsed) {
    parsed.wire.list = Some(true);
}

const USERS: Route = Route { need: Some(Act::ManageUsers), command: Command::Admin("user"), answer: "Users", ..PLAIN };
const ONE: Route = Route { path: "/api/v1/users/{user}", place: Some(USER), ..USERS };

/// This part of the table.
pub static ROUTES: &[Route] = &[
    Route { path: "/api/v1/users", id: "users", about: "Who may log in, by name.", base: listed, ..USERS },
    Route {
        method: "POST",
        path: "/api/v1/users",
        id: "addUser",
        about: "Adds a user; without a password, the answer holds the one-time link with which that person chooses one.",
        body: Some(NEW_USER),
        base: |p| p.wire.act = Some("add".into()),
        success: 201,
        ..USERS
    },
    Route {
        method: "PATCH",
        id: "setUserRole",
        about: "Gives a user another role, and ends that user's sessions, and the tokens made with a higher one.",
        body: Some(&[ROLE]),
        base: |p| p.wire.act = Some("role".into()),
        ..ONE
    },
    Route {
        method: "DELETE",
        id: "removeUser",
        about: "Removes a user, with the sessions and the tokens that user made. The audit log keeps the name.",
        base: |p| p.wire.act = Some("remove".into()),
        ..ONE
    },
    Route {
        method: "POST",
        path: "/api/v1/users/{user}/link",
        id: "linkUser",
        about: "Makes a one-time link with which a user chooses another password.",
        base: |p| p.wire.act = Some("link".into()),
        success: 201,
        ..ONE
    },
    Route {
        method: "POST",
        path: "/api/v1/users/{user}/disable",
        id: "disableUser",
        about: "Lets a user in no more, and ends that user's sessions and the tokens that user made.",
        base: |p| p.wire.act = Some("disable".into()),
        ..ONE
    },
    Route {
        method: "POST",
        path: "/api/v1/users/{user}/enable",
        id: "enableUser",
        about: "Lets a user in again.",
        base: |p| p.wire.act = Some("enable".into()),
        ..ONE
    },
    Route {
        path: "/api/v1/sessions",
        id: "sessions",
        about: "Sessions that have not ended, newest first.",
        command: Command::Admin("session"),
        base: listed,
        answer: "Sessions",
        ..USERS
    },
    Route {
        method: "DELETE",
        path: "/api/v1/sessions/{session}",
        id: "revokeSession",
        about: "Ends a session.",
        place: Some(SESSION),
        command: Command::Admin("session"),
        answer: "Sessions",
        ..USERS
    },
    Route {
        path: "/api/v1/tokens",
        id: "tokens",
        about: "Tokens of this API; never their text.",
        need: Some(Act::ManageTokens),
        command: Command::Admin("api-token"),
        base: listed,
        answer: "Tokens",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/tokens",
        id: "createToken",
        about: "Makes a token of this API; its text is in this answer and nowhere else.",
        need: Some(Act::ManageTokens),
        body: Some(NEW_TOKEN),
        command: Command::Admin("api-token"),
        success: 201,
        answer: "Token",
        ..PLAIN
    },
    Route {
        method: "DELETE",
        path: "/api/v1/tokens/{token}",
        id: "revokeToken",
        about: "Takes a token back, at once.",
        need: Some(Act::ManageTokens),
        place: Some(TOKEN),
        command: Command::Admin("api-token"),
        answer: "Tokens",
        ..PLAIN
    },
    Route {
        path: "/api/v1/audit",
        id: "audit",
        about: "The audit log: the newest rows that fit, oldest first, and where the chain stands.",
        need: Some(Act::ReadAudit),
        query: AUDIT_QUERY,
        command: Command::List(audit),
        answer: "Audit",
        ..PLAIN
    },
    Route {
        path: "/api/v1/audit/verify",
        id: "verifyAudit",
        about: "Follows the whole chain; 409 names the first row that does not fit.",
        need: Some(Act::ReadAudit),
        query: KEPT,
        base: |p| p.wire.act = Some("verify".into()),
        command: Command::Admin("audit"),
        answer: "AuditVerified",
        ..PLAIN
    },
];
