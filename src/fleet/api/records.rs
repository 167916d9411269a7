//! The values of policies, clusters, templates and webhooks, beside those of [`super::values`].

use super::fields::{Field, Kind, TEXT_MAX};
use super::values::{LIMIT, OF_DIRECTOR, settings};
use crate::director::enroll::TTL_NEVER_S;
use crate::director::records::NAME_MAX;

/// Which agents settings are for.
pub(super) const WHOSE: &[Field] = &[
    Field { about: "Only those of this Director.", ..OF_DIRECTOR },
    Field { name: "agent", about: "Only this agent of it.", kind: Kind::Text(NAME_MAX), required: false, set: |p, g| p.agent = g.text() },
];
pub(super) const HISTORY: &[Field] = &[
    LIMIT,
    Field {
        name: "before",
        about: "Changes before this revision: the last one of the page before.",
        kind: Kind::Number(0, i64::MAX as u64),
        required: false,
        set: |p, g| p.wire.before = g.number(),
    },
    SCOPE,
];
/// Whose settings.
pub(super) const SCOPE: Field = Field {
    name: "scope",
    about: "Only of these settings: organization, node/DIRECTOR, cluster/ID, agents, agents/DIRECTOR or agents/DIRECTOR/AGENT.",
    kind: Kind::Text(3 * NAME_MAX),
    required: false,
    set: |p, g| p.wire.scope = g.text(),
};
/// Whose settings a body would change.
pub(super) const WOULD: &[Field] =
    &[Field { about: "Whose they would be: a scope as `policy.scope.scope` tells it; without it, every Director's.", ..SCOPE }];
pub(super) const OF_CLUSTER: Field = Field {
    name: "cluster",
    about: "A cluster's id or name, as /clusters lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.cluster = g.text(),
};
pub(super) const MEMBERS: Field = Field {
    name: "members",
    about: "Directors by id: 3 to 15, an odd number, each in one cluster only.",
    kind: Kind::Texts,
    required: false,
    set: |p, g| p.wire.members = g.texts(),
};
pub(super) const NAME: Field = Field {
    name: "name",
    about: "A name for people, its own.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| p.wire.name = g.text(),
};
pub(super) const REVISION: Field = Field {
    name: "revision",
    about: "Only if nobody has changed it since this revision.",
    kind: Kind::Number(0, i64::MAX as u64),
    required: false,
    set: |p, g| p.wire.expected = g.number(),
};
pub(super) const NEW_CLUSTER: &[Field] = &[Field { required: true, ..NAME }, Field { required: true, ..MEMBERS }];
pub(super) const CLUSTER_CHANGES: &[Field] = &[NAME, MEMBERS, REVISION];
pub(super) const OF_TEMPLATE: Field = Field {
    name: "template",
    about: "A template's id or name, as /templates lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.template = g.text(),
};
pub(super) const AT_DIRECTOR: Field = Field {
    name: "director",
    about: "Where its devices enroll.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.director = g.text(),
};
pub(super) const USES: Field = Field {
    name: "uses",
    about: "Devices that it is good for; 0 is without a limit.",
    kind: Kind::Number(0, 100_000),
    required: false,
    set: |p, g| p.wire.uses = g.number(),
};
pub(super) const LIFE: Field = Field {
    name: "ttl_s",
    about: "Its life from now on, seconds; a week without it.",
    kind: Kind::Number(1, 30 * 86_400),
    required: false,
    set: |p, g| p.wire.ttl_s = g.number(),
};
pub(super) const ENDLESS: Field = Field {
    name: "endless",
    about: "True: without an end; needs approval of each device.",
    kind: Kind::Flag,
    required: false,
    set: |p, g| {
        if g.flag() == Some(true) {
            p.wire.ttl_s = Some(TTL_NEVER_S);
        }
    },
};
pub(super) const APPROVAL: Field = Field {
    name: "approval",
    about: "A person approves each device.",
    kind: Kind::Flag,
    required: false,
    set: |p, g| p.wire.approval = g.flag(),
};
pub(super) const ENABLED: Field = Field {
    name: "enabled",
    about: "False: nobody can enroll with it for the time being.",
    kind: Kind::Flag,
    required: false,
    set: |p, g| p.wire.enabled = g.flag(),
};
pub(super) const MODE_VALUE: Field = Field {
    name: "mode",
    about: "Whether updates come by themselves: manual or auto.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| settings(p).mode = g.text(),
};
pub(super) const METHOD_VALUE: Field = Field {
    name: "method",
    about: "How: user_action, immediate or schedule.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| settings(p).method = g.text(),
};
pub(super) const VERSION_VALUE: Field = Field {
    name: "version",
    about: "Which version: exact, or latest.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| settings(p).version = g.text(),
};
pub(super) const CRON_VALUE: Field = Field {
    name: "cron",
    about: "When: five fields of crontab.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| settings(p).cron = g.text(),
};
pub(super) const INTERVAL_VALUE: Field = Field {
    name: "interval",
    about: "Or how often, such as 1h.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| settings(p).interval = g.text(),
};
pub(super) const ZONE_VALUE: Field = Field {
    name: "zone",
    about: "The time zone of cron, such as Europe/Berlin.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| settings(p).zone = g.text(),
};
pub(super) const CUSTOM_VALUE: Field = Field {
    name: "custom",
    about: "False: inherit everything, and keep what was typed.",
    kind: Kind::Flag,
    required: false,
    set: |p, g| p.wire.custom = g.flag(),
};
pub(super) const NEW_TEMPLATE: &[Field] = &[
    Field { required: true, ..NAME },
    AT_DIRECTOR,
    USES,
    LIFE,
    ENDLESS,
    APPROVAL,
    MODE_VALUE,
    METHOD_VALUE,
    VERSION_VALUE,
    CRON_VALUE,
    INTERVAL_VALUE,
    ZONE_VALUE,
    CUSTOM_VALUE,
];
pub(super) const TEMPLATE_CHANGES: &[Field] = &[
    NAME,
    USES,
    LIFE,
    ENDLESS,
    APPROVAL,
    ENABLED,
    MODE_VALUE,
    METHOD_VALUE,
    VERSION_VALUE,
    CRON_VALUE,
    INTERVAL_VALUE,
    ZONE_VALUE,
    CUSTOM_VALUE,
    REVISION,
];
pub(super) const OF_WEBHOOK: Field = Field {
    name: "webhook",
    about: "A webhook's id or name, as /webhooks lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.webhook = g.text(),
};
pub(super) const URL: Field = Field {
    name: "url",
    about: "Where it points: https, and no address of the Fleet's own machine.",
    kind: Kind::Text(TEXT_MAX),
    required: false,
    set: |p, g| p.wire.url = g.text(),
};
pub(super) const EVENTS: Field = Field {
    name: "events",
    about: "What it is told: update_available, update_failed, rolled_back, rollout_halted, metadata_expires, site_silent; all without it.",
    kind: Kind::Texts,
    required: false,
    set: |p, g| p.wire.events = g.texts(),
};
pub(super) const NEW_WEBHOOK: &[Field] = &[Field { required: true, ..NAME }, Field { required: true, ..URL }, EVENTS];
pub(super) const WEBHOOK_CHANGES: &[Field] = &[URL, EVENTS, Field { about: "False: it is not sent to for the time being.", ..ENABLED }];
