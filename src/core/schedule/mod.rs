//! When an update may happen: standard crontab expressions and intervals, in a named zone.
//!
//! ```text
//!  "0 3 * * 1-5" --fields--> sets of minutes, hours, days --the `cron` crate--> wall-clock minutes --[`Zone`]--> instants
//!  "1h"          ----------> every full hour since 1970, whatever the zone
//! ```
//!
//! The `cron` crate is asked about wall-clock time only, as if every place had UTC: it knows calendars, and neither crontab's
//! spelling (it wants seconds, counts weekdays from 1 = Sunday, joins both day fields with AND) nor what crontab does when
//! clocks change. Both are decided here:
//!
//! * Day of month and day of week, both restricted: either is enough. A field that starts with `*` is unrestricted for this
//!   rule, so `*/2` and a weekday must both fit. That is Vixie cron's rule.
//! * Fixed hours fire once in an hour that comes twice (the first time), and at the first instant after a gap that swallowed
//!   them. Hours that start with `*` fire in both, and not in a gap: their minute is missing there like any other.
//!
//! **Invariant.** No clock, no files, no environment: [`Zone::named`] reads what is compiled in, and the local zone is read by
//! `io::zone` and handed over.

mod cron;
mod field;
mod interval;
mod words;
mod zone;

pub use cron::{CRON_MAX, Cron};
pub use interval::{INTERVAL_DEFAULT_S, INTERVAL_MAX_S, INTERVAL_MIN_S, Interval};
pub use zone::{ZONE_MAX, Zone, parse_instant};

use super::reason::Reason;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// A crontab expression in its zone.
    Cron(Cron, Zone),
    /// Every so many seconds.
    Interval(Interval),
}

impl Schedule {
    /// The schedule of settings as the specification has them: `cron` wins, then `interval`, and with neither every 30 s.
    ///
    /// # Errors
    /// See [`Cron::parse`] and [`Interval::parse`]; what does not apply is still read, so that no error hides behind the other.
    pub fn of(cron: Option<&str>, interval: Option<&str>, zone: &Zone) -> Result<Schedule, Reason> {
        let cron = cron.map(Cron::parse).transpose()?;
        let interval = interval.map(Interval::parse).transpose()?;
        Ok(match (cron, interval) {
            (Some(cron), _) => Schedule::Cron(cron, zone.clone()),
            (None, interval) => Schedule::Interval(interval.unwrap_or_default()),
        })
    }

    /// One text for both: five fields are a crontab expression, one word is an interval.
    ///
    /// # Errors
    /// See [`Cron::parse`] and [`Interval::parse`].
    pub fn parse(text: &str, zone: &Zone) -> Result<Schedule, Reason> {
        match text.trim_matches([' ', '\t']) {
            one if one.starts_with(|c: char| c.is_ascii_digit()) && !one.contains([' ', '\t']) => {
                Ok(Schedule::Interval(Interval::parse(one)?))
            }
            many => Ok(Schedule::Cron(Cron::parse(many)?, zone.clone())),
        }
    }

    /// The first instant strictly after this one, in seconds since 1970; none after the year 2100, where the calendar of the
    /// `cron` crate ends.
    pub fn next_after(&self, unix: u64) -> Option<u64> {
        match self {
            Schedule::Cron(cron, zone) => cron.next_after(unix, zone),
            Schedule::Interval(interval) => interval.next_after(unix),
        }
    }

    /// In words, for people: `at 03:00 on Monday to Friday, Europe/Berlin`.
    pub fn words(&self) -> String {
        match self {
            Schedule::Cron(cron, zone) => format!("{}, {}", cron.words(), zone.name()),
            Schedule::Interval(interval) => interval.words(),
        }
    }
}

#[cfg(test)]
mod tests;
