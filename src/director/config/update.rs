//! `update:`, for the Director itself and, below `agents:`, for its agents: the specification's five fields.

use super::fields::{At, Section};
use super::problem::{Problem, shown};
use super::yaml::Node;
use crate::core::policy::{Method, Mode};
use crate::core::reason::Reason;
use crate::core::version::Version;
use crate::wire::settings::SettingsWire;

/// The section's names, in the specification's order.
pub const NAMES: [&str; 5] = ["mode", "method", "version", "cron", "interval"];

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
    /// Reads and checks the section. `complete`: it stands alone, so what the specification requires must be there; a default for
    /// others may name some of the values.
    pub fn read(prefix: &str, node: &Node, complete: bool, problems: &mut Vec<Problem>) -> Option<Update> {
        let s = Section::open(prefix, node, &NAMES, &[], problems)?;
        let before = problems.len();
        let alone = |field: &'static str| {
            move |text: &str| {
                let mut wire = SettingsWire { method: Some("schedule".into()), ..SettingsWire::default() };
                *wire.field(field)? = Some(text.to_string());
                wire.check().ok().map(|_| text.to_string())
            }
        };
        let cron = "five fields that fire some day: minute hour day-of-month month day-of-week, such as \"0 2 * * 0\"";
        let update = Update {
            begins: At { line: node.line, value: () },
            mode: s.word("mode", &Mode::ALL.map(Mode::word), problems),
            method: s.word("method", &Method::ALL.map(Method::word), problems),
            version: s.version("version", problems),
            cron: s.parsed("cron", cron, alone("cron"), problems),
            interval: s.parsed("interval", "30s, 5m, 1h, 24h, 1d, or seconds; at least 30s, at most 366d", alone("interval"), problems),
        };
        // What is missing is told of a section whose values are good: else one mistake would be two.
        if problems.len() == before {
            update.check(complete, &s, problems);
        }
        Some(update)
    }

    /// The one check of settings has the last word, here as in Fleet and on the command line.
    fn check(&self, complete: bool, s: &Section<'_>, problems: &mut Vec<Problem>) {
        let wire = self.wire();
        let complete = || if complete { wire.check_complete().map(drop) } else { Ok(()) };
        let all = wire.check_all().err().or_else(|| Some(vec![complete().err()?])).unwrap_or_default();
        let at = [
            ("mode", &self.mode),
            ("method", &self.method),
            ("version", &self.version),
            ("cron", &self.cron),
            ("interval", &self.interval),
        ];
        for wrong in all {
            let at = at.iter().find(|(name, _)| *name == wrong.field).and_then(|(_, at)| at.as_ref());
            let (line, found) = at.map_or((s.line, "nothing".into()), |at| (at.line, shown(&at.value)));
            problems.push(Problem::new(line, &s.path(wrong.field), &found, &wrong.what));
        }
    }

    /// As it travels and as policies keep it.
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
