//! The one check of settings: for the GUI, the API, the command line and `vmetric.yml` alike.

use super::{Method, Mode, Settings, TEXT_MAX, Timing, Wanted};
use crate::core::reason::Reason;
use crate::core::schedule::{Cron, INTERVAL_DEFAULT_S, Interval, Zone};
use crate::core::version::NotAVersion;

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

impl From<Vec<Wrong>> for Reason {
    fn from(all: Vec<Wrong>) -> Reason {
        let sentences: Vec<String> = all.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.what)).collect();
        Reason::new("settings_invalid", sentences.join("; "))
    }
}

/// The one check, up to the first problem.
///
/// # Errors
/// The first field that is wrong, and what is allowed.
pub fn check(typed: &Typed) -> Result<Settings, Wrong> {
    // `check_all` fails with at least one problem.
    check_all(typed).map_err(|mut all| if all.is_empty() { Wrong::new("mode", "is not understood") } else { all.swap_remove(0) })
}

/// The one check, with every problem, in the order of the fields.
///
/// # Errors
/// Each field that is wrong, and what is allowed.
pub fn check_all(typed: &Typed) -> Result<Settings, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let mode =
        read(typed.mode, &mut wrong, "mode", |t| Mode::ALL.into_iter().find(|m| m.word() == t).ok_or_else(|| unknown(t, "manual or auto")));
    let method = read(typed.method, &mut wrong, "method", |t| {
        Method::ALL.into_iter().find(|m| m.word() == t).ok_or_else(|| unknown(t, "user_action, immediate or schedule"))
    });
    let version = read(typed.version, &mut wrong, "version", wanted);
    // What an unreadable method was meant to be is not guessed.
    let misplaced = typed.method.is_none() || method.is_some_and(|m| m != Method::Schedule);
    let placed = || match misplaced {
        true => Err("belongs to method: schedule, which has to be said beside it".to_string()),
        false => Ok(()),
    };
    let cron = read(typed.cron, &mut wrong, "cron", |t| {
        placed()?;
        Cron::parse(t).map_err(|r| r.detail.clone())
    });
    let interval = read(typed.interval, &mut wrong, "interval", |t| {
        placed()?;
        Interval::parse(t).map_err(|r| r.detail.clone())
    });
    // Whether `local` can be read is the manager's business, and its name is good everywhere.
    let zone =
        read(typed.zone, &mut wrong, "zone", |t| Zone::parse(t, &Zone::utc()).map(|_| t.trim().to_string()).map_err(|r| r.detail.clone()));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    // The specification: the interval is the fallback when there is no cron; without either, 30 s.
    let timing = match (cron, interval) {
        (Some(cron), _) => Some(Timing::Cron(cron.text().to_string())),
        (None, Some(interval)) => Some(Timing::Interval(interval.seconds())),
        (None, None) => None,
    };
    Ok(Settings { mode, method, version, timing, zone })
}

/// One field: too long, wrong, or what it says.
fn read<T>(text: Option<&str>, wrong: &mut Vec<Wrong>, field: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let text = text?;
    let said = if text.len() > TEXT_MAX { Err(format!("longer than {TEXT_MAX} bytes")) } else { parse(text) };
    said.map_err(|what| wrong.push(Wrong::new(field, what))).ok()
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

fn unknown(text: &str, allowed: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    format!("'{shown}' is not known; expected {allowed}")
}

fn wanted(text: &str) -> Result<Wanted, String> {
    if text == "latest" {
        return Ok(Wanted::Latest);
    }
    text.parse().map(Wanted::Exact).map_err(|e: NotAVersion| format!("{e}, or latest"))
}
