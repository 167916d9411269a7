//! `schedule explain` and `schedule next`: what an expression means, before it decides about a fleet. They ask nobody and
//! need no state folder.

use std::io::Write;

use crate::core::reason::Reason;
use crate::core::schedule::{Schedule, Zone, parse_instant};
use crate::io::{clock, zone};

/// Instants that `explain` shows.
const SHOWN: u64 = 5;
/// Instants that one `next` prints at most: three a day for a year and more, and no endless loop by a typing error.
const COUNT_MAX: u64 = 10_000;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// In words, with the next times; else only the times.
    pub explain: bool,
    /// A crontab expression or an interval.
    pub expression: String,
    /// Its zone; none = the local one.
    pub zone: Option<String>,
    /// Strictly after this; none = now.
    pub from: Option<String>,
    /// So many.
    pub count: Option<u64>,
}

impl Asked {
    /// What follows `schedule`.
    ///
    /// # Errors
    /// What is wrong and what is expected.
    pub fn parse(words: &mut super::args::Words) -> Result<Asked, String> {
        let explain = match words.word()?.as_deref() {
            Some("explain") => true,
            Some("next") => false,
            _ => return Err("expected `schedule explain EXPR` or `schedule next EXPR`".into()),
        };
        let (zone, from, count) = (words.option("--zone")?, words.option("--from")?, words.number("--count")?);
        let missing = "schedule needs one expression in quotes, such as \"0 3 * * 1-5\", or an interval, such as 1h";
        Ok(Asked { explain, expression: words.word()?.ok_or(missing)?, zone, from, count })
    }
}

/// Answers.
///
/// # Errors
/// One sentence: the field and what is allowed.
pub fn run(asked: &Asked, out: &mut impl Write) -> Result<(), String> {
    answer(asked, &zone::local(), clock::unix(), out)
}

fn answer(asked: &Asked, local: &Zone, now: u64, out: &mut impl Write) -> Result<(), String> {
    let said = |reason: Reason| reason.to_string();
    let zone = Zone::parse(asked.zone.as_deref().unwrap_or("local"), local).map_err(said)?;
    let schedule = Schedule::parse(&asked.expression, &zone).map_err(said)?;
    let from = asked.from.as_deref().map(|text| parse_instant(text).map_err(|r| r.of("--from").to_string())).transpose()?.unwrap_or(now);
    let count = asked.count.unwrap_or(SHOWN);
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(format!("--count {count}: allowed are 1 to {COUNT_MAX}"));
    }
    let mut lines = Vec::new();
    if asked.explain {
        lines.push(schedule.words());
    }
    let instants = std::iter::successors(schedule.next_after(from), |at| schedule.next_after(*at));
    lines.extend(instants.take(count as usize).map(|at| zone.rfc3339(at)));
    writeln!(out, "{}", lines.join("\n")).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(explain: bool, expression: &str, zone: Option<&str>, from: Option<&str>, count: Option<u64>) -> Result<String, String> {
        let text = |t: &str| t.to_string();
        let asked = Asked { explain, expression: expression.into(), zone: zone.map(text), from: from.map(text), count };
        let mut out = Vec::new();
        answer(&asked, &Zone::named("Asia/Tokyo").unwrap(), 1_800_000_000, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn explains_in_words_with_the_next_five() {
        let said = asked(true, "0 3 * * 1-5", Some("Europe/Berlin"), None, None).unwrap();
        let expected = "at 03:00 on Monday to Friday, Europe/Berlin\n2027-01-18T03:00:00+01:00\n2027-01-19T03:00:00+01:00\n\
                        2027-01-20T03:00:00+01:00\n2027-01-21T03:00:00+01:00\n2027-01-22T03:00:00+01:00\n";
        assert_eq!(said, expected);
        let said = asked(true, "1d", None, None, Some(1)).unwrap();
        assert_eq!(said, "every day\n2027-01-16T09:00:00+09:00\n");
    }

    #[test]
    fn next_is_strictly_after_and_in_the_zones_offset() {
        let next = |from| asked(false, "30 2 * * *", Some("Europe/Berlin"), Some(from), Some(2)).unwrap();
        assert_eq!(next("2027-03-27T02:30:00+01:00"), "2027-03-28T03:00:00+02:00\n2027-03-29T02:30:00+02:00\n");
        assert_eq!(next("2027-03-27T01:29:59Z"), "2027-03-27T02:30:00+01:00\n2027-03-28T03:00:00+02:00\n");
        assert_eq!(asked(false, "0 0 * * *", None, Some("2027-01-01T00:00:00Z"), Some(1)).unwrap(), "2027-01-02T00:00:00+09:00\n");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (expression, zone, from, count, part) in [
            ("0 25 * * *", None, None, None, "hour '25'"),
            ("* * *", None, None, None, "3 fields"),
            ("29s", None, None, None, "30s"),
            ("1h", Some("Berlin"), None, None, "Europe/Berlin"),
            ("1h", None, Some("yesterday"), None, "--from"),
            ("1h", None, None, Some(0), "1 to 10000"),
        ] {
            let said = asked(false, expression, zone, from, count).unwrap_err();
            assert!(said.contains(part), "{expression}: {said}");
        }
    }
}
