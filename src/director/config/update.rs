//! `update:`, for the Director itself and, below `agents:`, for its agents: the specification's five fields.

use super::fields::{At, Section};
use super::problem::Problem;
use super::yaml::Node;
use crate::core::reason::Reason;
use crate::core::version::Version;
use crate::wire::settings::SettingsWire;

/// The section's names, in the specification's order.
pub const NAMES: [&str; 5] = ["mode", "method", "version", "cron", "interval"];
const MODES: [&str; 2] = ["auto", "manual"];
const METHODS: [&str; 3] = ["user_action", "immediate", "schedule"];
/// Shortest interval, seconds (the specification's), and what holds when neither cron nor interval is set.
pub const INTERVAL_MIN_S: u64 = 30;
/// Longest: a year, above which somebody has mistyped.
const INTERVAL_MAX_S: u64 = 366 * 86_400;

/// The section as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Where the section begins.
    pub begins: At<()>,
    /// `auto` or `manual`.
    pub mode: Option<At<String>>,
    /// `user_action`, `immediate` or `schedule`.
    pub method: Option<At<String>>,
    /// Exact, or `latest`.
    pub version: Option<At<String>>,
    /// Five fields.
    pub cron: Option<At<String>>,
    /// `1h`, or seconds.
    pub interval: Option<At<String>>,
}

impl Update {
    /// Reads and checks the section.
    pub fn read(prefix: &str, node: &Node, problems: &mut Vec<Problem>) -> Option<Update> {
        let s = Section::open(prefix, node, &NAMES, &[], problems)?;
        let before = problems.len();
        let update = Update {
            begins: At { line: node.line, value: () },
            mode: s.word("mode", &MODES, problems),
            method: s.word("method", &METHODS, problems),
            version: s.version("version", problems),
            cron: s.text("cron", "five fields, such as \"0 2 * * 0\"", problems),
            interval: {
                let allowed = "a duration such as 30s, 5m, 1h, 24h, 1d, or seconds; from 30s on";
                let good = |t: &str| {
                    let s = crate::director::args::seconds(t)?;
                    (INTERVAL_MIN_S..=INTERVAL_MAX_S).contains(&s).then(|| t.to_string())
                };
                s.parsed("interval", allowed, good, problems)
            },
        };
        // What is missing is told of a section whose values are good: else one mistake would be two.
        if problems.len() == before {
            update.complete(&s, problems);
        }
        if problems.len() == before {
            update.check_values(&s, problems);
        }
        Some(update)
    }

    /// What belongs together.
    fn complete(&self, s: &Section<'_>, problems: &mut Vec<Problem>) {
        let mut missing = |name: &str, allowed: &str| problems.push(Problem::new(s.line, &s.path(name), "nothing", allowed));
        let method = self.method.as_ref().map(|m| m.value.as_str());
        match (self.mode(), method) {
            ("", _) => missing("mode", "required: auto or manual"),
            ("auto", None) => missing("method", "required with `mode: auto`: user_action, immediate or schedule"),
            ("auto", Some(method)) if method != "user_action" && self.version.is_none() => {
                missing("version", "required: a version such as \"2.5.0\", or `latest`");
            }
            _ => {}
        }
        if method.is_some_and(|m| m != "schedule") || (method.is_none() && self.mode() == "manual") {
            for (name, at) in [("cron", &self.cron), ("interval", &self.interval)] {
                if let Some(at) = at {
                    let found = super::problem::shown(&at.value);
                    problems.push(Problem::new(at.line, &s.path(name), &found, "only with `method: schedule`"));
                }
            }
        }
    }

    /// As settings travel and are stored.
    pub fn wire(&self) -> SettingsWire {
        let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
        SettingsWire {
            mode: text(&self.mode),
            method: text(&self.method),
            version: text(&self.version),
            cron: text(&self.cron),
            interval: text(&self.interval),
            zone: None,
        }
    }

    /// The check that all settings have, wherever they are typed: crontab and zone are read there.
    fn check_values(&self, s: &Section<'_>, problems: &mut Vec<Problem>) {
        let Err(wrong) = self.wire().check_values() else { return };
        let field = match wrong.field {
            "cron" => &self.cron,
            "interval" => &self.interval,
            "version" => &self.version,
            "method" => &self.method,
            _ => &self.mode,
        };
        let (line, found) = field.as_ref().map_or((s.line, String::new()), |at| (at.line, super::problem::shown(&at.value)));
        problems.push(Problem::new(line, &s.path(wrong.field), &found, &wrong.what));
    }

    /// `auto`, `manual`, or nothing.
    pub fn mode(&self) -> &str {
        self.mode.as_ref().map_or("", |m| &m.value)
    }

    /// Whether this section forbids an order of somebody else to run `version`: `manual` forbids all, an exact version all others.
    ///
    /// # Errors
    /// `file_manual`, `file_version`.
    pub fn permits(&self, file: &str, version: &Version) -> Result<(), Reason> {
        if self.mode() == "manual" {
            let line = self.mode.as_ref().map_or(self.begins.line, |m| m.line);
            let detail =
                format!("{file}:{line}: update.mode is manual; nothing is fetched or applied by an order; change the file to permit it");
            return Err(Reason::new("file_manual", detail));
        }
        match &self.version {
            Some(exact) if exact.value != "latest" && exact.value.parse() != Ok(version.clone()) => {
                let detail = format!(
                    "{file}:{}: update.version is {}; an order for {version} is refused; change the file to permit it",
                    exact.line, exact.value
                );
                Err(Reason::new("file_version", detail))
            }
            _ => Ok(()),
        }
    }
}
