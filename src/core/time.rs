//! Seconds since 1970 and the one spelling of a time in signed metadata: `2027-01-01T00:00:00Z`.
//!
//! TUF (specification 1.0.34, section 4.2.1) writes times as RFC 3339 in UTC without fractions. Anything else is
//! refused, so that each instant has one spelling. Leap seconds do not exist on this time scale.

/// Length of the only form: `YYYY-MM-DDTHH:MM:SSZ`.
const LENGTH: usize = 20;
/// Days of 400 Gregorian years, after which the calendar repeats.
const DAYS_PER_400_YEARS: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01. Years that begin in March have their leap day last.
const DAYS_TO_1970: u64 = 719_468;
/// The last second with a year of four digits.
pub const MAX: u64 = 253_402_300_799;

/// Seconds since 1970 of `2027-01-01T00:00:00Z`. Years 1970 to 9999.
pub fn parse(text: &str) -> Option<u64> {
    let b = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if b.len() != LENGTH || marks.iter().any(|&(i, mark)| b[i] != mark) {
        return None;
    }
    let year = number(&b[0..4])?;
    let (month, day) = (number(&b[5..7])?, number(&b[8..10])?);
    let (hour, minute, second) = (number(&b[11..13])?, number(&b[14..16])?, number(&b[17..19])?);
    let date_exists = year >= 1970 && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !date_exists || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The text of a time. A time after the year 9999 is written as the last second of 9999.
pub fn format(unix: u64) -> String {
    let unix = unix.min(MAX);
    let (year, month, day) = date(unix / 86_400);
    let second = unix % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + u64::from(d - b'0')))
}

fn days_in(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days before the month in a year that begins with March: 0, 31, 61, 92, ...; five months have 153 days.
fn days_before(months_since_march: u64) -> u64 {
    (153 * months_since_march + 2) / 5
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + days_before(march) + day - 1 - DAYS_TO_1970
}

fn date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * day_of_year + 2) / 153;
    let (month, next_year) = if march < 10 { (march + 3, 0) } else { (march - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day_of_year - days_before(march) + 1)
}

#[cfg(test)]
mod tests;
