//! The values of policies, clusters, templates and webhooks, beside those of [`super::values`].

use super::fields::{Field, Kind, TEXT_MAX};
use super::values::{LIMIT, OF_DIRECTOR, REASON, settings};
use crate::director::enroll::TTL_NEVER_S;
use crate::director::records::NAME_MAX;

/// Which agents settings are for.
pub(super) const WHOSE: &[Field] = &[
    Field { about: "Only those of this Director.", ..OF_DIRECTOR },
    Field { required: false, about: "Only those of this cluster's members.", ..OF_CLUSTER },
    Field::of("agent", "Only this agent of it.", Kind::Text(NAME_MAX), |p, g| p.agent = g.text()),
];
pub(super) const HISTORY: &[Field] = &[
    LIMIT,
    Field::of("before", "Changes before this revision: the last one of the page before.", Kind::Number(0, i64::MAX as u64), |p, g| {
        p.wire.before = g.number()
    }),
    SCOPE,
];
/// Whose settings.
pub(super) const SCOPE: Field = Field::of(
    "scope",
    "Only of these settings: organization, node/DIRECTOR, cluster/ID, cluster-agents/ID, agents, agents/DIRECTOR or agents/DIRECTOR/AGENT.",
    Kind::Text(3 * NAME_MAX),
    |p, g| p.wire.scope = g.text(),
);
/// Whose settings a body would change.
pub(super) const WOULD: &[Field] =
    &[Field { about: "Whose they would be: a scope as `policy.scope.scope` tells it; without it, every Director's.", ..SCOPE }];
pub(super) const OF_CLUSTER: Field =
    Field::needed("cluster", "A cluster's id or name, as /clusters lists it.", Kind::Text(NAME_MAX), |p, g| p.wire.cluster = g.text());
pub(super) const MEMBERS: Field =
    Field::of("members", "Directors by id: 3 to 15, an odd number, each in one cluster only.", Kind::Texts, |p, g| {
        p.wire.members = g.texts()
    });
pub(super) const NAME: Field = Field::of("name", "A name for people, its own.", Kind::Text(NAME_MAX), |p, g| p.wire.name = g.text());
pub(super) const REVISION: Field =
    Field::of("revision", "Only if nobody has changed it since this revision.", Kind::Number(0, i64::MAX as u64), |p, g| {
        p.wire.expected = g.number()
    });
pub(super) const NEW_CLUSTER: &[Field] = &[Field { required: true, ..NAME }, Field { required: true, ..MEMBERS }];
pub(super) const STOP: &[Field] = &[REASON];
pub(super) const OVERRIDE: &[Field] = &[
    Field::needed("director", "The member that is to go.", Kind::Text(NAME_MAX), |p, g| p.wire.director = g.text()),
    Field::of("force", "True: what it costs is taken on.", Kind::Flag, |p, g| p.wire.force = g.flag()),
    REASON,
];
pub(super) const CLUSTER_CHANGES: &[Field] = &[NAME, MEMBERS, REVISION];
pub(super) const OF_TEMPLATE: Field =
    Field::needed("template", "A template's id or name, as /templates lists it.", Kind::Text(NAME_MAX), |p, g| p.wire.template = g.text());
pub(super) const AT_DIRECTOR: Field =
    Field::needed("director", "Where its devices enroll.", Kind::Text(NAME_MAX), |p, g| p.wire.director = g.text());
pub(super) const USES: Field =
    Field::of("uses", "Devices that it is good for; 0 is without a limit.", Kind::Number(0, 100_000), |p, g| p.wire.uses = g.number());
pub(super) const LIFE: Field =
    Field::of("ttl_s", "Its life from now on, seconds; a week without it.", Kind::Number(1, 30 * 86_400), |p, g| p.wire.ttl_s = g.number());
pub(super) const ENDLESS: Field = Field::of("endless", "True: without an end; needs approval of each device.", Kind::Flag, |p, g| {
    if g.flag() == Some(true) {
        p.wire.ttl_s = Some(TTL_NEVER_S);
    }
});
pub(super) const APPROVAL: Field = Field::of("approval", "A person approves each device.", Kind::Flag, |p, g| p.wire.approval = g.flag());
pub(super) const ENABLED: Field =
    Field::of("enabled", "False: nobody can enroll with it for the time being.", Kind::Flag, |p, g| p.wire.enabled = g.flag());
pub(super) const MODE_VALUE: Field =
    Field::of("mode", "Whether updates come by themselves: manual or auto.", Kind::Text(NAME_MAX), |p, g| settings(p).mode = g.text());
pub(super) const METHOD_VALUE: Field =
    Field::of("method", "How: user_action, immediate or schedule.", Kind::Text(NAME_MAX), |p, g| settings(p).method = g.text());
pub(super) const VERSION_VALUE: Field =
    Field::of("version", "Which version: exact, or latest.", Kind::Text(NAME_MAX), |p, g| settings(p).version = g.text());
pub(super) const CRON_VALUE: Field =
    Field::of("cron", "When: five fields of crontab.", Kind::Text(NAME_MAX), |p, g| settings(p).cron = g.text());
pub(super) const INTERVAL_VALUE: Field =
    Field::of("interval", "Or how often, such as 1h.", Kind::Text(NAME_MAX), |p, g| settings(p).interval = g.text());
pub(super) const ZONE_VALUE: Field =
    Field::of("zone", "The time zone of cron, such as Europe/Berlin.", Kind::Text(NAME_MAX), |p, g| settings(p).zone = g.text());
pub(super) const CUSTOM_VALUE: Field =
    Field::of("custom", "False: inherit everything, and keep what was typed.", Kind::Flag, |p, g| p.wire.custom = g.flag());
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
pub(super) const OF_WEBHOOK: Field =
    Field::needed("webhook", "A webhook's id or name, as /webhooks lists it.", Kind::Text(NAME_MAX), |p, g| p.wire.webhook = g.text());
pub(super) const URL: Field =
    Field::of("url", "Where it points: https, and no address of the Fleet's own machine.", Kind::Text(TEXT_MAX), |p, g| {
        p.wire.url = g.text()
    });
pub(super) const EVENTS: Field = Field::of(
    "events",
    "What it is told: update_available, update_failed, rolled_back, rollout_halted, metadata_expires, site_silent; all without it.",
    Kind::Texts,
    |p, g| p.wire.events = g.texts(),
);
pub(super) const NEW_WEBHOOK: &[Field] = &[Field { required: true, ..NAME }, Field { required: true, ..URL }, EVENTS];
pub(super) const WEBHOOK_CHANGES: &[Field] = &[URL, EVENTS, Field { about: "False: it is not sent to for the time being.", ..ENABLED }];
