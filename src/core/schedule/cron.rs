//! Five fields of crontab, and the instants at which they fire.

use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::field::{self, Field, UNITS};
use super::zone::{Mapped, Zone};
use crate::core::reason::Reason;

/// Longest expression in bytes: every value of every field written out has 355.
pub const CRON_MAX: usize = 512;
/// Wall-clock matches inside one doubled stretch at most: a day of minutes, where a country moved across the date line.
const FOLD_MAX: usize = 24 * 60 + 1;
/// Changes of one zone's clock until 2100 at most: four a year, as in Morocco.
const CHANGES_MAX: usize = 600;

/// A crontab expression that fires at least once.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    pub(super) fields: [Field; 5],
    /// Any of them is enough: one, or one for each restricted day field.
    walls: Vec<cron::Schedule>,
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl Cron {
    /// Reads five fields.
    ///
    /// # Errors
    /// `cron_invalid` names the field and what is allowed; `cron_never` for a date that does not exist, such as 30 February.
    pub fn parse(text: &str) -> Result<Cron, Reason> {
        if text.len() > CRON_MAX {
            return Err(Reason::new("cron_invalid", format!("cron: {} bytes long, at most {CRON_MAX} are read", text.len())));
        }
        let words: Vec<&str> = text.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        if let Some(instead) = shorthand(&words) {
            return Err(Reason::new("cron_invalid", format!("cron '{}': write its five fields, {instead}", words[0])));
        }
        let Ok(words) = <[&str; 5]>::try_from(words.as_slice()) else {
            let expected = "expected 5: minute hour day-of-month month day-of-week, such as 0 3 * * 1-5; there are no seconds and no year";
            return Err(Reason::new("cron_invalid", format!("cron: {} fields; {expected}", words.len())));
        };
        let mut fields = [Field { bits: 0, star: false }; 5];
        for ((field, word), unit) in fields.iter_mut().zip(words).zip(&UNITS) {
            *field = field::parse(word, unit)?;
        }
        let cron = Cron { text: words.join(" "), walls: walls(&fields)?, fields };
        match cron.next_wall(0) {
            Some(_) => Ok(cron),
            None => Err(Reason::new("cron_never", format!("cron '{}' never fires: no such day in any of its months", cron.shown()))),
        }
    }

    /// The five fields with one space between.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn shown(&self) -> String {
        self.text.chars().take(100).collect()
    }

    /// True when either day field is enough.
    pub(super) fn either_day(&self) -> bool {
        self.walls.len() == 2
    }

    /// The first instant strictly after this one.
    pub fn next_after(&self, unix: u64, zone: &Zone) -> Option<u64> {
        let unix = i64::try_from(unix).ok().filter(|t| *t <= super::zone::UNIX_MAX)?;
        let next = if self.fields[1].star { self.next_of_every(unix, zone) } else { self.next_of_fixed(unix, zone) };
        next.and_then(|t| u64::try_from(t).ok())
    }

    /// Fixed hours: each wall-clock match has one instant, and these never run backwards. So the first that is late enough it is.
    fn next_of_fixed(&self, unix: i64, zone: &Zone) -> Option<i64> {
        let mut wall = unix + zone.offset(unix);
        for _ in 0..FOLD_MAX {
            wall = self.next_wall(wall)?;
            let (Mapped::Once(instant) | Mapped::First(instant) | Mapped::GapEnd(instant)) = zone.instant(wall)?;
            if instant > unix {
                return Some(instant);
            }
        }
        None
    }

    /// Hours with `*`: whatever the clock shows counts, from one change of the clock to the next.
    fn next_of_every(&self, unix: i64, zone: &Zone) -> Option<i64> {
        let (mut at, mut offset) = (unix, zone.offset(unix));
        for _ in 0..CHANGES_MAX {
            let instant = self.next_wall(at + offset).map(|wall| wall - offset);
            match zone.next_change(at) {
                Some(change) if instant.is_none_or(|instant| instant >= change) => {
                    // From the change itself on, which may be a match.
                    (at, offset) = (change - 1, zone.offset(change));
                    let first = self.next_wall(at + offset).filter(|wall| wall - offset == change);
                    if first.is_some() {
                        return Some(change);
                    }
                    at = change;
                }
                _ => return instant,
            }
        }
        None
    }

    /// The first match strictly after, in seconds that the clock on the wall would count from 1970.
    fn next_wall(&self, wall: i64) -> Option<i64> {
        let after = DateTime::<Utc>::from_timestamp(wall, 0)?;
        self.walls.iter().filter_map(|s| s.after(&after).next()).map(|t| t.timestamp()).min()
    }
}

/// The `cron` crate's form: with seconds, weekdays from 1 = Sunday, and two schedules where either day is enough.
fn walls(fields: &[Field; 5]) -> Result<Vec<cron::Schedule>, Reason> {
    let list = |at: usize, add: u32| match fields[at].is_all(&UNITS[at]) {
        true => "*".to_string(),
        false => fields[at].values().map(|n| (n + add).to_string()).collect::<Vec<_>>().join(","),
    };
    let [minute, hour, day, month, weekday] = [list(0, 0), list(1, 0), list(2, 0), list(3, 0), list(4, 1)];
    let days = match fields[2].star || fields[4].star {
        true => vec![(day.as_str(), weekday.as_str())],
        false => vec![(day.as_str(), "*"), ("*", weekday.as_str())],
    };
    let schedule = |(day, weekday)| {
        let text = format!("0 {minute} {hour} {day} {month} {weekday}");
        cron::Schedule::from_str(&text).map_err(|e| Reason::new("cron_invalid", format!("cron, translated to '{text}': {e}")))
    };
    days.into_iter().map(schedule).collect()
}

fn shorthand(words: &[&str]) -> Option<&'static str> {
    let [word] = words else { return None };
    match word.to_ascii_lowercase().as_str() {
        "@hourly" => Some("0 * * * *"),
        "@daily" | "@midnight" => Some("0 0 * * *"),
        "@weekly" => Some("0 0 * * 0"),
        "@monthly" => Some("0 0 1 * *"),
        "@yearly" | "@annually" => Some("0 0 1 1 *"),
        _ => None,
    }
}
