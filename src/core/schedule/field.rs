//! One field of a crontab expression: `*`, lists, ranges, steps, names.

use crate::core::reason::Reason;

/// What a field may hold.
pub(super) struct Unit {
    /// As errors call it.
    pub name: &'static str,
    /// Smallest value.
    pub min: u32,
    /// Largest value.
    pub max: u32,
    /// Names of the values from `min` on.
    pub names: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The five fields in their order.
pub(super) const UNITS: [Unit; 5] = [
    Unit { name: "minute", min: 0, max: 59, names: &[] },
    Unit { name: "hour", min: 0, max: 23, names: &[] },
    Unit { name: "day of month", min: 1, max: 31, names: &[] },
    Unit { name: "month", min: 1, max: 12, names: &MONTHS },
    // 7 is Sunday, too, so that a range may end with it.
    Unit { name: "day of week", min: 0, max: 7, names: &DAYS },
];

/// The values of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Bit n = value n.
    pub bits: u64,
    /// Starts with `*`: unrestricted in crontab's sense, whatever step follows.
    pub star: bool,
}

impl Field {
    /// The values in order.
    pub fn values(&self) -> impl Iterator<Item = u32> + '_ {
        (0..64).filter(|n| self.bits & (1 << n) != 0)
    }

    /// True when every value of the unit is in.
    pub fn is_all(&self, unit: &Unit) -> bool {
        self.bits == all(unit)
    }
}

/// Sunday once.
fn all(unit: &Unit) -> u64 {
    let max = if unit.max == 7 { 6 } else { unit.max };
    (unit.min..=max).fold(0, |bits, n| bits | 1 << n)
}

/// Reads one field.
pub(super) fn parse(text: &str, unit: &Unit) -> Result<Field, Reason> {
    let mut bits = 0;
    for item in text.split(',') {
        bits |= parse_item(item, unit).map_err(|why| wrong(text, unit, &why))?;
    }
    if unit.max == 7 && bits & (1 << 7) != 0 {
        bits = (bits | 1) & !(1 << 7);
    }
    Ok(Field { bits, star: text.starts_with('*') })
}

fn wrong(text: &str, unit: &Unit, why: &str) -> Reason {
    let names = match unit.names {
        [first, .., last] => format!(", {first}-{last}"),
        _ => String::new(),
    };
    let sunday = if unit.max == 7 { " (0 and 7 are Sunday)" } else { "" };
    let allowed = format!("allowed are {}-{}{sunday}{names}, *, lists 1,2, ranges 1-5, steps */2 and 1-5/2", unit.min, unit.max);
    // Short enough for the rest of the sentence.
    let shown: String = text.chars().take(60).collect();
    Reason::new("cron_invalid", format!("cron, {} '{shown}': {why}; {allowed}", unit.name))
}

fn parse_item(item: &str, unit: &Unit) -> Result<u64, String> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (item, None),
    };
    let (low, high) = match range.split_once('-') {
        // Without Sunday's second number: a step counts from the first.
        None if range == "*" => (unit.min, if unit.max == 7 { 6 } else { unit.max }),
        None => {
            let value = parse_value(range, unit)?;
            if let Some(step) = step {
                // Crontabs disagree: Vixie cron ignores this step, others count to the end.
                return Err(format!("a step needs a range, such as {value}-{}/{step}", unit.max));
            }
            (value, value)
        }
        Some((low, high)) => (parse_value(low, unit)?, parse_value(high, unit)?),
    };
    if low > high {
        // Sunday ends a week as 7.
        let instead = if high == 0 && unit.max == 7 { format!("{low}-7") } else { format!("{low}-{},{}-{high}", unit.max, unit.min) };
        return Err(format!("the range {range} runs backwards; write {instead}"));
    }
    let step = match step {
        None => 1,
        Some(text) => parse_number(text).filter(|n| *n > 0).ok_or_else(|| format!("the step '{text}' is no number from 1 to 999"))?,
    };
    Ok((low..=high).step_by(step as usize).fold(0, |bits, n| bits | 1 << n))
}

fn parse_value(text: &str, unit: &Unit) -> Result<u32, String> {
    if let Some(at) = unit.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(unit.min + at as u32);
    }
    match parse_number(text) {
        Some(n) if (unit.min..=unit.max).contains(&n) => Ok(n),
        Some(n) => Err(format!("{n} is out of range")),
        None if text.is_empty() => Err("a value is missing".into()),
        None => Err(format!("'{}' is no value", text.chars().take(20).collect::<String>())),
    }
}

/// At most three digits, so that nothing overflows.
fn parse_number(text: &str) -> Option<u32> {
    let plain = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}
