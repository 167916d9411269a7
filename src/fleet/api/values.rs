//! The values that requests of the API may have: their names, limits and meaning, for [`super::routes`] and for the document.

use super::fields::{Field, Kind, Parsed, TEXT_MAX};
use super::records::*;
use crate::director::records::NAME_MAX;
use crate::wire::settings::SettingsWire;

/// Most rows of one page.
pub const PAGE_MAX: u64 = 1_000;
/// A year, the longest of all lives, seconds.
pub(super) const YEAR_S: u64 = 366 * 86_400;

pub(super) const DIRECTOR: Field = Field {
    name: "director",
    about: "A Director's id, as /directors lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.agents = g.texts(),
};
pub(super) const OF_DIRECTOR: Field = Field {
    name: "director",
    about: "Only of this Director.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| p.director = g.text(),
};
pub(super) const ROLLOUT: Field = Field {
    name: "rollout",
    about: "A roll-out's number.",
    kind: Kind::Number(0, u32::MAX as u64),
    required: true,
    set: |p, g| p.wire.rollout = g.number(),
};
pub(super) const KEY: Field = Field {
    name: "key",
    about: "An API key's id, as /keys lists it.",
    kind: Kind::Text(NAME_MAX),
    required: true,
    set: |p, g| p.wire.revoke = g.text(),
};
pub(super) const FILE: Field = Field {
    name: "sha256",
    about: "A file's SHA-256, or its first 8 digits or more.",
    kind: Kind::Text(64),
    required: true,
    set: |p, g| p.wire.hash = g.text(),
};
pub(super) const REASON: Field = Field {
    name: "reason",
    about: "Why, for the activity.",
    kind: Kind::Text(TEXT_MAX),
    required: false,
    set: |p, g| p.wire.reason = g.text(),
};
pub(super) const LIMIT: Field = Field {
    name: "limit",
    about: "Rows of this page, 200 without it.",
    kind: Kind::Number(1, PAGE_MAX),
    required: false,
    set: |p, g| p.wire.limit = g.number(),
};
pub(super) const AFTER: Field = Field {
    name: "after",
    about: "Rows after this one: `next` of the page before.",
    kind: Kind::Text(2 * NAME_MAX + 1),
    required: false,
    set: |p, g| p.after = g.text(),
};
pub(super) const VERSION: Field = Field {
    name: "version",
    about: "Only those that run this version.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| p.wire.version = g.text(),
};
pub(super) const STATE: Field = Field {
    name: "state",
    about: "Only those in this state.",
    kind: Kind::Text(NAME_MAX),
    required: false,
    set: |p, g| p.state = g.text(),
};
pub(super) const DIRECTORS: Field =
    Field { name: "directors", about: "Directors by id.", kind: Kind::Texts, required: false, set: |p, g| p.wire.agents = g.texts() };

pub(super) const DIRECTORS_QUERY: &[Field] = &[LIMIT, AFTER, VERSION, STATE];
pub(super) const AGENTS_QUERY: &[Field] = &[LIMIT, AFTER, OF_DIRECTOR];
pub(super) const TOLD_QUERY: &[Field] = &[
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
pub(super) const ACTIVITY_QUERY: &[Field] = &[
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
pub(super) const ASSIGN: &[Field] = &[
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
pub(super) const CANCEL: &[Field] = &[
    REASON,
    Field {
        name: "roll_back",
        about: "A trial goes back, too.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.roll_back = g.flag(),
    },
];
pub(super) const REJECT: &[Field] = &[
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
pub(super) const NEW_KEY: &[Field] = &[
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
    Field {
        name: "clear",
        about: "Fields that are forgotten, and inherited then.",
        kind: Kind::Texts,
        required: false,
        set: |p, g| p.wire.clear = g.texts(),
    },
    Field {
        name: "replace",
        about: "Forget every field that is not named here.",
        kind: Kind::Flag,
        required: false,
        set: |p, g| p.wire.replace = g.flag(),
    },
    CUSTOM_VALUE,
    Field {
        name: "revision",
        about: "Only if nobody has changed it since this revision.",
        kind: Kind::Number(0, i64::MAX as u64),
        required: false,
        set: |p, g| p.wire.expected = g.number(),
    },
];
pub(super) const AUTHORIZE: &[Field] = &[
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
