//! The values that requests of the API may have: their names, limits and meaning, for [`super::routes`] and for the document.

use super::fields::{Field, Kind, Parsed, TEXT_MAX};
use super::records::*;
use crate::director::records::NAME_MAX;
use crate::wire::settings::SettingsWire;

/// Most rows of one page.
pub const PAGE_MAX: u64 = 1_000;
/// A year, the longest of all lives, seconds.
pub(super) const YEAR_S: u64 = 366 * 86_400;

pub(super) const DIRECTOR: Field =
    Field::needed("director", "A Director's id, as /directors lists it.", Kind::Text(NAME_MAX), |p, g| p.wire.agents = g.texts());
pub(super) const OF_DIRECTOR: Field = Field::of("director", "Only of this Director.", Kind::Text(NAME_MAX), |p, g| p.director = g.text());
pub(super) const ROLLOUT: Field =
    Field::needed("rollout", "A roll-out's number.", Kind::Number(0, u32::MAX as u64), |p, g| p.wire.rollout = g.number());
pub(super) const KEY: Field =
    Field::needed("key", "An API key's id, as /keys lists it.", Kind::Text(NAME_MAX), |p, g| p.wire.revoke = g.text());
pub(super) const FILE: Field =
    Field::needed("sha256", "A file's SHA-256, or its first 8 digits or more.", Kind::Text(64), |p, g| p.wire.hash = g.text());
pub(super) const REASON: Field = Field::of("reason", "Why, for the activity.", Kind::Text(TEXT_MAX), |p, g| p.wire.reason = g.text());
pub(super) const LIMIT: Field =
    Field::of("limit", "Rows of this page, 200 without it.", Kind::Number(1, PAGE_MAX), |p, g| p.wire.limit = g.number());
pub(super) const AFTER: Field =
    Field::of("after", "Rows after this one: `next` of the page before.", Kind::Text(2 * NAME_MAX + 1), |p, g| p.after = g.text());
pub(super) const VERSION: Field =
    Field::of("version", "Only those that run this version.", Kind::Text(NAME_MAX), |p, g| p.wire.version = g.text());
pub(super) const STATE: Field = Field::of("state", "Only those in this state.", Kind::Text(NAME_MAX), |p, g| p.state = g.text());
pub(super) const DIRECTORS: Field = Field::of("directors", "Directors by id.", Kind::Texts, |p, g| p.wire.agents = g.texts());

pub(super) const DIRECTORS_QUERY: &[Field] = &[LIMIT, AFTER, VERSION, STATE];
pub(super) const AGENTS_QUERY: &[Field] = &[LIMIT, AFTER, OF_DIRECTOR];
pub(super) const TOLD_QUERY: &[Field] = &[
    LIMIT,
    OF_DIRECTOR,
    Field::of("agent", "Only of this agent of it.", Kind::Text(NAME_MAX), |p, g| p.agent = g.text()),
    Field::of("update", "Only of this update.", Kind::Text(NAME_MAX), |p, g| p.update = g.text()),
];
pub(super) const ACTIVITY_QUERY: &[Field] = &[
    LIMIT,
    Field::of(
        "after",
        "Events after this number: `next` of the page before; without it, from the oldest on.",
        Kind::Number(0, i64::MAX as u64),
        |p, g| p.after_seq = g.number(),
    ),
    OF_DIRECTOR,
];
pub(super) const ASSIGN: &[Field] = &[
    Field::needed("version", "The version: exact, or `latest`.", Kind::Text(NAME_MAX), |p, g| p.wire.version = g.text()),
    DIRECTORS,
    Field::of("all", "Every Director, instead of naming them.", Kind::Flag, |p, g| p.wire.all = g.flag()),
    Field::of("max_in_flight", "How many at once after the first one: a number, or a share such as `10%`.", Kind::Text(8), |p, g| {
        p.wire.max_in_flight = g.text()
    }),
    Field::of("max_failures", "More failures halt it; 2 without it.", Kind::Number(0, 100_000), |p, g| p.wire.max_failures = g.number()),
    Field::of("contact_deadline_s", "How long a trial may be without Fleet's word, seconds.", Kind::Number(30, 86_400), |p, g| {
        p.wire.contact_deadline_s = g.number()
    }),
    Field::of("unattended", "It may switch without contact.", Kind::Flag, |p, g| p.wire.unattended = g.flag()),
    Field::of("switch_in_s", "Not before so many seconds from now.", Kind::Number(0, 30 * 86_400), |p, g| p.wire.switch_in_s = g.number()),
    Field::of("life_s", "Who has had no turn after so many seconds is left out.", Kind::Number(60, YEAR_S), |p, g| {
        p.wire.life_s = g.number()
    }),
    Field::of("retry", "Also files that a Director rejects.", Kind::Flag, |p, g| p.wire.retry = g.flag()),
];
pub(super) const CANCEL: &[Field] =
    &[REASON, Field::of("roll_back", "A trial goes back, too.", Kind::Flag, |p, g| p.wire.roll_back = g.flag())];
pub(super) const REJECT: &[Field] = &[
    FILE,
    DIRECTORS,
    Field::of("for_s", "Until so many seconds from now; without it, until it is allowed.", Kind::Number(1, YEAR_S), |p, g| {
        p.wire.ttl_s = g.number()
    }),
    REASON,
];
pub(super) const NEW_KEY: &[Field] = &[
    Field::of("uses", "Enrollments that it is good for; 1 without it.", Kind::Number(1, 100_000), |p, g| p.wire.uses = g.number()),
    Field::of("ttl_s", "Its life, seconds; an hour without it.", Kind::Number(1, 30 * 86_400), |p, g| p.wire.ttl_s = g.number()),
    Field::of("approval", "A person approves each Director that comes with it.", Kind::Flag, |p, g| p.wire.approval = g.flag()),
];

/// The settings of a request.
pub(super) fn settings(parsed: &mut Parsed) -> &mut SettingsWire {
    parsed.wire.settings.get_or_insert_with(|| SettingsWire { ..Default::default() })
}

pub(super) const POLICY: &[Field] = &[
    MODE_VALUE,
    METHOD_VALUE,
    VERSION_VALUE,
    CRON_VALUE,
    INTERVAL_VALUE,
    ZONE_VALUE,
    Field::of("clear", "Fields that are forgotten, and inherited then.", Kind::Texts, |p, g| p.wire.clear = g.texts()),
    Field::of("replace", "Forget every field that is not named here.", Kind::Flag, |p, g| p.wire.replace = g.flag()),
    CUSTOM_VALUE,
    Field::of("revision", "Only if nobody has changed it since this revision.", Kind::Number(0, i64::MAX as u64), |p, g| {
        p.wire.expected = g.number()
    }),
];
pub(super) const AUTHORIZE: &[Field] = &[
    Field { required: true, ..DIRECTORS },
    Field { about: "The version: exact, or `latest` as it is now.", required: true, ..VERSION },
    Field::of("ttl_s", "How long it is good, seconds.", Kind::Number(1, YEAR_S), |p, g| p.wire.ttl_s = g.number()),
];

/// Release notes beside the list of releases.
pub(super) const RELEASES_QUERY: &[Field] =
    &[Field::of("notes", "The notes of this version, too: exact, or `latest`.", Kind::Text(NAME_MAX), |p, g| p.wire.version = g.text())];
