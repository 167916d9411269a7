//! What is wrong with a configuration, for the person who wrote it.

use std::fmt;
use std::path::Path;

use crate::core::reason::Reason;

/// Longest part of a value that an error repeats, characters.
const SHOWN_MAX: usize = 60;
/// Most problems that are told at once; who has more has another file in hand.
pub const PROBLEMS_MAX: usize = 50;

/// One wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// The field as a path (`update.cron`); empty: the text itself.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What may be there.
    pub allowed: String,
    /// A name that this version does not know; all other problems are of values.
    pub unknown: bool,
}

impl Problem {
    /// A problem with what was found and what is allowed.
    pub fn new(line: usize, field: &str, found: &str, allowed: &str) -> Problem {
        Problem { line, field: field.into(), found: found.into(), allowed: allowed.into(), unknown: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.field.is_empty() { "" } else { ": " };
        write!(f, "{}: {}{colon}found {}; {}", self.line, self.field, self.found, self.allowed)
    }
}

/// One line for each problem, `FILE:LINE: FIELD: found X; allowed`, as compilers write it, so that editors find the place.
pub fn listed(file: &Path, problems: &[Problem]) -> String {
    let lines = problems.iter().take(PROBLEMS_MAX).map(|p| format!("{}:{p}\n", file.display()));
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    lines.chain((more > 0).then(|| format!("{}: and {more} more\n", file.display()))).collect::<String>().trim_end().to_string()
}

/// All of it in one reason: the first problem and how many there are.
pub fn reason(file: &Path, problems: &[Problem]) -> Reason {
    let first = problems.first().map_or(String::new(), |p| format!("{}:{p}", file.display()));
    let more = match problems.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more; `vmetric-director -validate` lists them)", n - 1),
    };
    Reason::new("config_invalid", format!("{first}{more}"))
}

/// A value as an error shows it: short, quoted, nothing invisible.
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("`{}`{more}", cut.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"))
}

/// The name that was meant, if one is near: two letters added, lost or changed, or two swapped.
pub fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let plain = |w: &str| w.to_ascii_lowercase().replace('-', "_");
    let word = plain(&word.chars().take(SHOWN_MAX).collect::<String>());
    let (distance, name) = names.iter().map(|name| (distance(&word, name), *name)).min()?;
    // Of a short name, two letters are all that there is.
    (distance <= 2 && distance < name.len().div_ceil(2)).then_some(name)
}

/// Letters to add, take away, change or swap (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let swapped = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                    changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swapped)
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_meant() {
        let names = ["update", "mode", "method", "cron", "time_zone", "listen"];
        for (word, meant) in [
            ("updte", Some("update")),
            ("Update", Some("update")),
            ("mehtod", Some("method")),
            ("time-zone", Some("time_zone")),
            ("cronn", Some("cron")),
            ("zone", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &names), meant, "{word}");
        }
        assert_eq!(nearest(&"é".repeat(100_000), &names), None);
    }

    #[test]
    fn values_are_shown_short_and_visible() {
        assert_eq!(shown("0 2 * * 0"), "`0 2 * * 0`");
        assert_eq!(shown("a\u{1b}[2J\n\"'"), "`a\\u{1b}[2J\\n\"'`");
        assert!(shown(&"x".repeat(1_000_000)).len() < 80);
    }
}
