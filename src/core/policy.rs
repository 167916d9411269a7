//! Update settings: what may be said, at which tier, and what follows for one node.
//!
//! The specification's values (`mode`, `method`, `version`, `cron`, `interval`) and a time zone. Each tier may set any of
//! them; a lower one wins, value by value. `cron` and `interval` are one value, *when*: a tier that names one of them
//! replaces both of the tiers above.
//!
//! | tier, highest first | who sets it |
//! |---|---|
//! | built-in | this program: `manual`, `user_action`, `latest`, 30 s, the manager's zone |
//! | organization | Fleet, for all of its Directors, and for all agents |
//! | director | a Director's default for its agents |
//! | director file | the `agents:` section of its `vmetric.yml` |
//! | node | Custom Policy of one Director or agent |
//! | file | the `update:` section of a Director's own `vmetric.yml` |
//! | authorization | a person's word for one version ([`Method::UserAction`]); sets the version only |
//!
//! A tier whose Custom Policy is off keeps what was typed and counts as empty. What to do with the effective values is
//! [`decide`]'s.

mod decide;
mod windows;

pub use decide::{AUTHORIZATION_TTL_S, Candidate, Decision, Facts, Failed, Granted, Kept, Standing, Wish, decide, wish};
pub use windows::{FETCH_AHEAD_S, Firing, Schedule, WINDOW_MAX_S, WINDOW_MIN_S, Window};

use super::reason::Reason;
use super::schedule::{Cron, INTERVAL_DEFAULT_S, Interval, Zone};
use super::version::Version;

/// Longest text of a value: a cron line with lists in each field fits.
pub const TEXT_MAX: usize = 256;

/// Who starts an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A person, by hand: nothing is fetched or applied.
    Manual,
    /// The manager, by [`Method`].
    Auto,
}

impl Mode {
    /// Each of them.
    pub const ALL: [Mode; 2] = [Mode::Manual, Mode::Auto];

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Manual => "manual",
            Mode::Auto => "auto",
        }
    }
}

/// What triggers an update in mode `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A person's authorization of this version.
    UserAction,
    /// The version's being there.
    Immediate,
    /// The schedule's next window.
    Schedule,
}

impl Method {
    /// Each of them.
    pub const ALL: [Method; 3] = [Method::UserAction, Method::Immediate, Method::Schedule];

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Method::UserAction => "user_action",
            Method::Immediate => "immediate",
            Method::Schedule => "schedule",
        }
    }
}

/// Which version a node should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The highest one without a pre-release part that is not withdrawn and there for the platform.
    Latest,
    /// This one, also if it is older.
    Exact(Version),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Latest => f.write_str("latest"),
            Wanted::Exact(version) => version.fmt(f),
        }
    }
}

/// When a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Standard 5-field crontab, as written.
    Cron(String),
    /// Every so many seconds.
    Interval(u64),
}

/// What one tier says; `None` = nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who starts.
    pub mode: Option<Mode>,
    /// What triggers.
    pub method: Option<Method>,
    /// Which version.
    pub version: Option<Wanted>,
    /// When; cron wins where both were typed.
    pub timing: Option<Timing>,
    /// IANA name, or `local` for the manager's own.
    pub zone: Option<String>,
}

impl Settings {
    /// True when it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }
}

/// Where a value comes from; in the order in which they are overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// This program.
    BuiltIn,
    /// Fleet's default.
    Organization,
    /// A Director's default for its agents.
    Director,
    /// The same, from its `vmetric.yml`.
    DirectorFile,
    /// Custom Policy of the node.
    Node,
    /// The node's own `vmetric.yml`.
    File,
    /// A person's authorization.
    Authorization,
}

impl Tier {
    /// Each of them, highest first.
    pub const ALL: [Tier; 7] =
        [Tier::BuiltIn, Tier::Organization, Tier::Director, Tier::DirectorFile, Tier::Node, Tier::File, Tier::Authorization];

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Tier::BuiltIn => "built_in",
            Tier::Organization => "organization",
            Tier::Director => "director",
            Tier::DirectorFile => "director_file",
            Tier::Node => "node",
            Tier::File => "file",
            Tier::Authorization => "authorization",
        }
    }
}

/// One tier's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Which.
    pub tier: Tier,
    /// Its Custom Policy is on; off = nothing of it counts, and nothing is lost.
    pub on: bool,
    /// What it says.
    pub settings: Settings,
    /// When it was last changed, seconds since 1970.
    pub changed_at: u64,
}

/// A value with the tier that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// What counts.
    pub value: T,
    /// Who said so.
    pub tier: Tier,
}

/// What counts for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Who starts.
    pub mode: Set<Mode>,
    /// What triggers.
    pub method: Set<Method>,
    /// Which version.
    pub version: Set<Wanted>,
    /// When.
    pub timing: Set<Timing>,
    /// In which zone.
    pub zone: Set<String>,
    /// When a tier that sets one of them was last changed; a schedule counts from here.
    pub changed_at: u64,
}

/// What holds when nobody has said anything: a newly enrolled node changes version only when its policy says so.
pub fn built_in() -> Effective {
    fn of<T>(value: T) -> Set<T> {
        Set { value, tier: Tier::BuiltIn }
    }
    Effective {
        mode: of(Mode::Manual),
        method: of(Method::UserAction),
        version: of(Wanted::Latest),
        timing: of(Timing::Interval(INTERVAL_DEFAULT_S)),
        zone: of("local".to_string()),
        changed_at: 0,
    }
}

/// Merges the tiers, whatever their order in the list; of two layers of one tier the later one wins.
pub fn effective(layers: &[Layer]) -> Effective {
    let mut out = built_in();
    let mut sorted: Vec<&Layer> = layers.iter().filter(|l| l.on && !l.settings.is_empty()).collect();
    sorted.sort_by_key(|l| l.tier);
    for Layer { tier, settings, changed_at, .. } in sorted {
        take(&mut out.mode, &settings.mode, *tier);
        take(&mut out.method, &settings.method, *tier);
        take(&mut out.version, &settings.version, *tier);
        take(&mut out.timing, &settings.timing, *tier);
        take(&mut out.zone, &settings.zone, *tier);
        out.changed_at = out.changed_at.max(*changed_at);
    }
    out
}

fn take<T: Clone>(into: &mut Set<T>, value: &Option<T>, tier: Tier) {
    if let Some(value) = value {
        *into = Set { value: value.clone(), tier };
    }
}

/// Values as they were typed, before anybody looked at them; the names are those of the specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Typed<'a> {
    /// `manual`, `auto`.
    pub mode: Option<&'a str>,
    /// `user_action`, `immediate`, `schedule`.
    pub method: Option<&'a str>,
    /// `latest` or a version.
    pub version: Option<&'a str>,
    /// Crontab.
    pub cron: Option<&'a str>,
    /// `30s`, `5m`, `1h`, `1d`, or seconds.
    pub interval: Option<&'a str>,
    /// IANA name or `local`.
    pub zone: Option<&'a str>,
}

/// What is wrong with a value: the field's name, and a sentence with what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The specification's name of the field.
    pub field: &'static str,
    /// One sentence, without the field's name.
    pub what: String,
}

impl Wrong {
    fn new(field: &'static str, what: impl Into<String>) -> Wrong {
        Wrong { field, what: what.into() }
    }
}

impl From<Wrong> for Reason {
    fn from(wrong: Wrong) -> Reason {
        Reason::new("settings_invalid", format!("{}: {}", wrong.field, wrong.what))
    }
}

/// The one check of settings: for the GUI, the API, the command line and `vmetric.yml` alike.
///
/// # Errors
/// The first field that is wrong, and what is allowed.
pub fn check(typed: &Typed) -> Result<Settings, Wrong> {
    let fields = [typed.mode, typed.method, typed.version, typed.cron, typed.interval, typed.zone];
    for (name, value) in ["mode", "method", "version", "cron", "interval", "zone"].into_iter().zip(fields) {
        if value.is_some_and(|v| v.len() > TEXT_MAX) {
            return Err(Wrong::new(name, format!("longer than {TEXT_MAX} bytes")));
        }
    }
    let mode = typed.mode.map(|t| Mode::ALL.into_iter().find(|m| m.word() == t).ok_or_else(|| unknown("mode", t, "manual or auto")));
    let method = typed.method.map(|t| {
        let found = Method::ALL.into_iter().find(|m| m.word() == t);
        found.ok_or_else(|| unknown("method", t, "user_action, immediate or schedule"))
    });
    let (mode, method) = (mode.transpose()?, method.transpose()?);
    let version = typed.version.map(wanted).transpose()?;
    for (name, value) in [("cron", typed.cron), ("interval", typed.interval)] {
        if value.is_some() && method != Some(Method::Schedule) {
            return Err(Wrong::new(name, "belongs to method: schedule, which has to be said beside it"));
        }
    }
    let of = |field| move |reason: Reason| Wrong::new(field, reason.detail.clone());
    let interval = typed.interval.map(Interval::parse).transpose().map_err(of("interval"))?;
    let cron = typed.cron.map(Cron::parse).transpose().map_err(of("cron"))?;
    // Whether `local` can be read is the manager's business, and its name is good everywhere.
    let zone = typed.zone.map(|text| Zone::parse(text, &Zone::utc()).map(|_| text.trim().to_string()));
    let zone = zone.transpose().map_err(of("zone"))?;
    // The specification: the interval is the fallback when there is no cron; without either, 30 s.
    let timing = match (cron, interval) {
        (Some(cron), _) => Some(Timing::Cron(cron.text().to_string())),
        (None, Some(interval)) => Some(Timing::Interval(interval.seconds())),
        (None, None) => None,
    };
    Ok(Settings { mode, method, version, timing, zone })
}

/// The same for a section that stands alone, as `update:` of `vmetric.yml`: what the specification requires must be there.
///
/// # Errors
/// As [`check`], and a required field that is missing.
pub fn check_complete(typed: &Typed) -> Result<Settings, Wrong> {
    let mut settings = check(typed)?;
    let missing = |field, allowed: &str| Wrong::new(field, format!("is required; expected {allowed}"));
    match settings.mode {
        None => return Err(missing("mode", "manual or auto")),
        Some(Mode::Manual) => return Ok(settings),
        Some(Mode::Auto) => {}
    }
    let method = settings.method.ok_or_else(|| missing("method", "user_action, immediate or schedule, with mode: auto"))?;
    // A person's authorization names the version.
    if settings.version.is_none() && method != Method::UserAction {
        return Err(missing("version", "a version such as 2.5.0, or latest, with mode: auto"));
    }
    if method == Method::Schedule && settings.timing.is_none() {
        settings.timing = Some(Timing::Interval(INTERVAL_DEFAULT_S));
    }
    Ok(settings)
}

fn unknown(field: &'static str, text: &str, allowed: &str) -> Wrong {
    Wrong::new(field, format!("'{text}' is not known; expected {allowed}"))
}

fn wanted(text: &str) -> Result<Wanted, Wrong> {
    if text == "latest" {
        return Ok(Wanted::Latest);
    }
    text.parse().map(Wanted::Exact).map_err(|e: super::version::NotAVersion| Wrong::new("version", format!("{e}, or latest")))
}

#[cfg(test)]
mod tests;
