//! Routes of single agents and of confirmations for them, beside those of [`super::routes`].

use super::fields::{Field, Kind};
use super::routes::{Command, PLAIN, Route};
use crate::core::access::Act;
use crate::director::policing::grants::TTL_S;
use crate::director::records::NAME_MAX;
use crate::fleet::confirm::COMMAND;
use crate::fleet::explain;

const WHICH: &[Field] = &[
    Field { name: "director", about: "Whose agent.", kind: Kind::Text(NAME_MAX), required: true, set: |p, g| p.director = g.text() },
    Field {
        name: "agent",
        about: "Its identity at that Director.",
        kind: Kind::Text(NAME_MAX),
        required: true,
        set: |p, g| p.agent = g.text(),
    },
];

const ID: Field = Field {
    name: "confirmation",
    about: "A confirmation's id, as /agents/authorizations lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.revoke = g.text(),
};

const CONFIRM: &[Field] = &[
    Field {
        name: "version",
        about: "One version: exact, or `latest` as it is now.",
        kind: Kind::Text(NAME_MAX),
        required: true,
        set: |p, g| p.wire.version = g.text(),
    },
    Field {
        name: "agents",
        about: "Agents, each as DIRECTOR/AGENT.",
        kind: Kind::Texts,
        required: false,
        set: |p, g| p.wire.agents = g.texts(),
    },
    Field {
        name: "director",
        about: "Instead: every agent of this Director that waits.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| p.wire.director = g.text(),
    },
    Field {
        name: "cluster",
        about: "Instead: every agent of this cluster's members that waits.",
        kind: Kind::Text(NAME_MAX),
        required: false,
        set: |p, g| p.wire.cluster = g.text(),
    },
    Field { name: "all", about: "Instead: every agent that waits.", kind: Kind::Flag, required: false, set: |p, g| p.wire.all = g.flag() },
    Field {
        name: "ttl_s",
        about: "How long it is good, seconds; a day without it.",
        kind: Kind::Number(TTL_S.0, TTL_S.1),
        required: false,
        set: |p, g| p.wire.ttl_s = g.number(),
    },
];

/// The routes.
pub static ROUTES: &[Route] = &[
    Route {
        path: "/api/v1/agents/explain",
        id: "explainAgent",
        about: "One agent: what counts for it at its Director, and which tier set each value.",
        query: WHICH,
        then: |p| {
            let words = (p.director.take().unwrap_or_default(), p.agent.take().unwrap_or_default());
            p.wire.agents = Some(vec![format!("{}/{}", words.0, words.1)]);
            Ok(())
        },
        command: Command::Own(explain::COMMAND),
        answer: "AgentExplanation",
        ..PLAIN
    },
    Route {
        path: "/api/v1/agents/authorizations",
        id: "agentAuthorizations",
        about: "What was confirmed for agents, the newest first, and what their Directors made of it.",
        base: |p| p.wire.act = Some("list".into()),
        command: Command::Own(COMMAND),
        answer: "Confirmations",
        ..PLAIN
    },
    Route {
        method: "POST",
        path: "/api/v1/agents/authorizations",
        id: "authorizeAgents",
        about: "Lets agents whose method is user_action take one version, once; their Directors carry it out.",
        need: Some(Act::Authorize),
        body: Some(CONFIRM),
        base: |p| p.wire.act = Some("give".into()),
        command: Command::Own(COMMAND),
        success: 201,
        answer: "Confirmations",
        ..PLAIN
    },
    Route {
        path: "/api/v1/agents/authorizations/{confirmation}",
        id: "agentAuthorization",
        about: "One confirmation, and what became of it for each agent.",
        place: Some(ID),
        base: |p| p.wire.act = Some("show".into()),
        command: Command::Own(COMMAND),
        answer: "Confirmations",
        ..PLAIN
    },
    Route {
        method: "DELETE",
        path: "/api/v1/agents/authorizations/{confirmation}",
        id: "revokeAgentAuthorization",
        about: "Takes a confirmation back; what has not switched is withdrawn.",
        need: Some(Act::Authorize),
        place: Some(ID),
        base: |p| p.wire.act = Some("revoke".into()),
        command: Command::Own(COMMAND),
        answer: "Confirmations",
        ..PLAIN
    },
];
