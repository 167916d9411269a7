//! A crontab expression in words, for people who do not read crontab.

use super::cron::Cron;
use super::field::{Field, UNITS};

/// So many values are listed one by one; more read better in short.
const TIMES_LISTED: usize = 6;
const EVERY_DAY: &str = "every day";
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Cron {
    /// `at 03:00 on Monday to Friday`.
    pub fn words(&self) -> String {
        let [minute, hour, day, month, weekday] = &self.fields;
        let days = days(day, weekday, self.either_day());
        let mut words = times(minute, hour);
        // Who is told `every 5 minutes` expects every day.
        if !(hour.is_all(&UNITS[1]) && days == EVERY_DAY) {
            words += &format!(" {days}");
        }
        if !month.is_all(&UNITS[3]) {
            words += &format!(" in {}", list(month.values(), |n| MONTHS[n as usize - 1].into()));
        }
        words
    }
}

fn times(minute: &Field, hour: &Field) -> String {
    let (minutes, hours): (Vec<u32>, Vec<u32>) = (minute.values().collect(), hour.values().collect());
    let every_hour = hour.is_all(&UNITS[1]);
    if !every_hour && minutes.len() * hours.len() <= TIMES_LISTED {
        let all = hours.iter().flat_map(|h| minutes.iter().map(move |m| format!("{h:02}:{m:02}")));
        return format!("at {}", join(&all.collect::<Vec<_>>()));
    }
    let (often, past) = match step(&minutes) {
        Some(1) => (true, "every minute".into()),
        Some(step) => (true, format!("every {step} minutes")),
        None => (false, format!("at minute{} {}", plural(minutes.len()), list(minute.values(), |n| n.to_string()))),
    };
    match (every_hour, often) {
        (true, true) => past,
        (true, false) => format!("{past} of every hour"),
        (false, _) => format!("{past} in the hour{} {}", plural(hours.len()), list(hour.values(), |n| format!("{n:02}"))),
    }
}

/// The distance, when the values are spread evenly over the whole hour.
fn step(minutes: &[u32]) -> Option<u32> {
    let step = 60_u32.checked_div(minutes.len() as u32)?;
    let even = minutes.len() > 1 && step * minutes.len() as u32 == 60;
    (even && minutes.iter().enumerate().all(|(n, value)| *value == n as u32 * step)).then_some(step)
}

fn days(day: &Field, weekday: &Field, either: bool) -> String {
    let dates = || format!("on day{} {} of the month", plural(day.values().count()), list(day.values(), |n| n.to_string()));
    // A week begins with Monday for everybody who works in it; only crontab counts from Sunday.
    let week = || weekday.values().filter(|n| *n > 0).chain(weekday.values().filter(|n| *n == 0).map(|_| 7));
    let name = |n: u32| DAYS[n as usize % 7].to_string();
    match (day.is_all(&UNITS[2]), weekday.is_all(&UNITS[4])) {
        // Either is enough, so one that is always true decides.
        (true, _) | (_, true) if either => EVERY_DAY.into(),
        (true, true) => EVERY_DAY.into(),
        (false, true) => dates(),
        (true, false) => format!("on {}", list(week(), name)),
        (false, false) if either => format!("{}, and besides on {}", dates(), list(week(), name)),
        (false, false) => format!("{}, where that is a {}", dates(), week().map(name).collect::<Vec<_>>().join(" or ")),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `1, 3 to 5 and 9`; a long even row in short: `1, 3, 5 ... 31`.
fn list(values: impl Iterator<Item = u32>, word: impl Fn(u32) -> String) -> String {
    let values: Vec<u32> = values.collect();
    if let [first, second, third, .., last] = values[..] {
        let even = values.windows(2).all(|two| two[1] - two[0] == second - first);
        if even && second - first > 1 && values.len() > TIMES_LISTED {
            return format!("{}, {}, {} ... {}", word(first), word(second), word(third), word(last));
        }
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for value in values {
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
