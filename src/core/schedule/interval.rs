//! `30s`, `5m`, `1h`, `24h`, `1d`, or plain seconds.

use crate::core::reason::Reason;

/// The specification's minimum: an update check is no poll.
pub const INTERVAL_MIN_S: u64 = 30;
/// A year: what is rarer is a plan for a calendar, and a typing error more often than not.
pub const INTERVAL_MAX_S: u64 = 366 * 86_400;
/// Without `cron` and `interval`.
pub const INTERVAL_DEFAULT_S: u64 = 30;
/// More digits than any interval has; keeps a hostile number out of the arithmetic.
const TEXT_MAX: usize = 12;

/// Every so many seconds, counted from 1970, so that a restart neither postpones nor repeats one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(u64);

impl Default for Interval {
    fn default() -> Interval {
        Interval(INTERVAL_DEFAULT_S)
    }
}

impl Interval {
    /// Reads an interval.
    ///
    /// # Errors
    /// `interval_invalid` with the allowed forms, `interval_range` with the limits.
    pub fn parse(text: &str) -> Result<Interval, Reason> {
        let invalid = || {
            let shown: String = text.chars().take(40).collect();
            Reason::new(
                "interval_invalid",
                format!("interval '{shown}': expected whole seconds, or a whole number with s, m, h or d: 30s 5m 1h 24h 1d"),
            )
        };
        let (digits, unit) = match text.as_bytes() {
            [] => return Err(invalid()),
            [.., b's'] => (&text[..text.len() - 1], 1),
            [.., b'm'] => (&text[..text.len() - 1], 60),
            [.., b'h'] => (&text[..text.len() - 1], 3600),
            [.., b'd'] => (&text[..text.len() - 1], 86_400),
            _ => (text, 1),
        };
        if digits.is_empty() || digits.len() > TEXT_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let seconds = digits.parse::<u64>().map_err(|_| invalid())?.saturating_mul(unit);
        if !(INTERVAL_MIN_S..=INTERVAL_MAX_S).contains(&seconds) {
            let allowed = format!("interval '{text}': allowed are {INTERVAL_MIN_S}s to {}d", INTERVAL_MAX_S / 86_400);
            return Err(Reason::new("interval_range", allowed));
        }
        Ok(Interval(seconds))
    }

    /// Its length.
    pub fn seconds(&self) -> u64 {
        self.0
    }

    /// The first multiple of the interval strictly after this instant.
    pub fn next_after(&self, unix: u64) -> Option<u64> {
        (unix / self.0 + 1).checked_mul(self.0)
    }

    /// In words: `every 5 minutes`.
    pub fn words(&self) -> String {
        let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
        let (length, unit) = units.into_iter().find(|(length, _)| self.0.is_multiple_of(*length)).unwrap_or((1, "second"));
        match self.0 / length {
            1 => format!("every {unit}"),
            n => format!("every {n} {unit}s"),
        }
    }
}
