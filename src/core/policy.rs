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
//! | cluster | the policy of a cluster of Directors, for its members |
//! | director | a Director's default for its agents |
//! | director file | the `agents:` section of its `vmetric.yml` |
//! | node | Custom Policy of one Director or agent |
//! | file | the `update:` section of a Director's own `vmetric.yml` |
//! | authorization | a person's word for one version ([`Method::UserAction`]); sets the version only |
//!
//! A tier whose Custom Policy is off keeps what was typed and counts as empty. What to do with the effective values is
//! [`decide`]'s.

mod check;
mod decide;
mod never;
mod windows;

pub use check::{Typed, Wrong, check, check_all, check_complete};
pub use decide::{AUTHORIZATION_TTL_S, Candidate, Decision, Facts, Failed, Granted, Kept, Standing, Wish, decide, may_take, wish};
pub use never::{Group, RARE_S, Warning, warnings};
pub use windows::{FETCH_AHEAD_S, Firing, Schedule, WINDOW_MAX_S, WINDOW_MIN_S, Window};

use super::schedule::INTERVAL_DEFAULT_S;
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
    /// A cluster's policy, in the place of its members' own.
    Cluster,
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
    pub const ALL: [Tier; 8] =
        [Tier::BuiltIn, Tier::Organization, Tier::Cluster, Tier::Director, Tier::DirectorFile, Tier::Node, Tier::File, Tier::Authorization];

    /// Stable word.
    pub fn word(self) -> &'static str {
        match self {
            Tier::BuiltIn => "built_in",
            Tier::Organization => "organization",
            Tier::Cluster => "cluster",
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

#[cfg(test)]
mod tests;
