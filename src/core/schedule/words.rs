//! A crontab expression in words, for people who do not read crontab.

use super::cron::Cron;
use super::field::{Field, UNITS};

/// So many times of day are listed one by one; more read better as minutes past hours.
const TIMES_LISTED: usize = 6;
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Cron {
    /// `at 03:00 on Monday to Friday`.
    pub fn words(&self) -> String {
        let [minute, hour, day, month, weekday] = &self.fields;
        let mut words = times(minute, hour);
        words += &days(day, weekday, self.either_day());
        if !month.is_all(&UNITS[3]) {
            words += &format!(" in {}", list(month, |n| MONTHS[n as usize - 1].into()));
        }
        words
    }
}

fn times(minute: &Field, hour: &Field) -> String {
    let (minutes, hours): (Vec<u32>, Vec<u32>) = (minute.values().collect(), hour.values().collect());
    let every_hour = hour.is_all(&UNITS[1]);
    if minute.is_all(&UNITS[0]) {
        return match every_hour {
            true => "every minute".into(),
            false => format!("every minute of {}", hours_of(hour)),
        };
    }
    if !every_hour && minutes.len() * hours.len() <= TIMES_LISTED {
        let all = hours.iter().flat_map(|h| minutes.iter().map(move |m| format!("{h:02}:{m:02}")));
        return format!("at {}", join(&all.collect::<Vec<_>>()));
    }
    let past = match step(&minutes, 60) {
        Some(step) => format!("every {step} minutes"),
        None if minutes == [0] => "on the hour".into(),
        None => format!("at minute{} {}", plural(minutes.len()), list(minute, |n| n.to_string())),
    };
    match (every_hour, past.starts_with("every ")) {
        (true, true) => past,
        (true, false) => format!("{past}, every hour"),
        (false, _) => format!("{past} in {}", hours_of(hour)),
    }
}

/// The hours as spans of the clock: `the hours 09 to 17`.
fn hours_of(hour: &Field) -> String {
    let count = hour.values().count();
    format!("the hour{} {}", plural(count), list(hour, |n| format!("{n:02}")))
}

/// The distance, when the values are spread evenly over the whole unit.
fn step(values: &[u32], whole: u32) -> Option<u32> {
    let step = whole.checked_div(values.len() as u32)?;
    let even = values.len() > 1 && step > 1 && step * values.len() as u32 == whole;
    (even && values.iter().enumerate().all(|(n, value)| *value == n as u32 * step)).then_some(step)
}

fn days(day: &Field, weekday: &Field, either: bool) -> String {
    let dates = || format!("day{} {} of the month", plural(day.values().count()), list(day, |n| n.to_string()));
    let names = || list(weekday, |n| DAYS[n as usize].into());
    let (any_date, any_name) = (day.is_all(&UNITS[2]), weekday.is_all(&UNITS[4]));
    match (any_date, any_name) {
        // Either is enough, so one that is always true decides.
        _ if either && (any_date || any_name) => " every day".into(),
        (true, true) => " every day".into(),
        (false, true) => format!(" on {}", dates()),
        (true, false) => format!(" on {}", names()),
        (false, false) if either => format!(" on {}, and on {} too", dates(), names()),
        (false, false) => format!(" on {}, but only if that is {}", dates(), names_or(weekday)),
    }
}

fn names_or(weekday: &Field) -> String {
    let names: Vec<&str> = weekday.values().map(|n| DAYS[n as usize]).collect();
    names.join(" or ")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `1, 3 to 5 and 9`.
fn list(field: &Field, word: impl Fn(u32) -> String) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in field.values() {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == value => *end = value,
            _ => runs.push((value, value)),
        }
    }
    let run = |&(from, to): &(u32, u32)| match to - from {
        0 => vec![word(from)],
        1 => vec![word(from), word(to)],
        _ => vec![format!("{} to {}", word(from), word(to))],
    };
    join(&runs.iter().flat_map(run).collect::<Vec<_>>())
}

fn join(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
