//! Release notes: what a text may be, and where its signed place is.
//!
//! A delegated role of its own, `notes`, that lists no file: its signed field [`FIELD`] has a list of lines for each product and
//! version. TUF tools keep what they do not know. No device asks this role: its one pattern fits no artifact's path, so an
//! agent fetches, parses and holds nothing of it; Directors and Fleet have it with all metadata of their mirror.

use std::collections::BTreeMap;

use crate::core::version::Version;

/// The role's name.
pub const ROLE: &str = "notes";
/// Its one path pattern: an artifact's path has a part more.
pub const PATTERN: &str = "*/*/notes";
/// Its signed field: `<product>/<version>` to lines.
pub const FIELD: &str = "x-vmetric-notes";
/// Longest text, bytes: a page. Twelve for each of two products fit into one metadata file.
pub const BYTES_MAX: usize = 4 * 1024;
/// Most lines.
pub const LINES_MAX: usize = 120;
/// Versions of one product that have notes; the lowest fall out.
pub const KEPT: usize = 12;

/// Notes by `<product>/<version>`.
pub type Notes = BTreeMap<String, Vec<String>>;

/// Where the notes of a release are.
pub fn key(product: &str, version: &str) -> String {
    format!("{product}/{version}")
}

/// What shows as something else than it is: control characters, and those that turn the direction of text around.
fn is_plain(line: &str) -> bool {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !line.chars().any(|c| c.is_control() || turns(c))
}

/// The lines of a text, without blanks at their ends and without empty ones around all of it.
///
/// # Errors
/// One sentence: what is wrong, and what is allowed.
pub fn lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let limit = || format!("notes have at most {BYTES_MAX} bytes in {LINES_MAX} lines");
    if bytes.len() > BYTES_MAX {
        return Err(format!("it has {} bytes; {}", bytes.len(), limit()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| format!("it is no UTF-8 from byte {} on", e.valid_up_to()))?;
    let mut out: Vec<String> = text.lines().map(|line| line.trim_end().to_string()).collect();
    while out.last().is_some_and(String::is_empty) {
        out.pop();
    }
    let first = out.iter().position(|line| !line.is_empty()).unwrap_or(0);
    out.drain(..first);
    if out.is_empty() {
        return Err("it is empty".into());
    }
    if out.len() > LINES_MAX {
        return Err(format!("it has {} lines; {}", out.len(), limit()));
    }
    match out.iter().position(|line| !is_plain(line)) {
        Some(at) => {
            Err(format!("line {}: control characters, tabs and characters that turn the direction of text are not allowed", at + first + 1))
        }
        None => Ok(out),
    }
}

/// What was signed, as far as it may be shown: a text that this program would not sign is left out.
pub fn shown(signed: Notes) -> Notes {
    let good = |lines: &Vec<String>| self::lines(lines.join("\n").as_bytes()).is_ok_and(|read| read == *lines);
    signed.into_iter().filter(|(_, lines)| good(lines)).collect()
}

/// Puts a text in its place; the lowest versions of its product fall out beyond [`KEPT`]. False: it was there.
pub fn put(notes: &mut Notes, product: &str, version: &Version, text: &[String]) -> bool {
    let place = key(product, &version.to_string());
    if notes.get(&place).is_some_and(|have| have == text) {
        return false;
    }
    notes.insert(place, text.to_vec());
    let of = |place: &String| place.strip_prefix(product)?.strip_prefix('/')?.parse::<Version>().ok();
    let mut versions: Vec<Version> = notes.keys().filter_map(of).collect();
    versions.sort();
    while versions.len() > KEPT {
        notes.remove(&key(product, &versions.remove(0).to_string()));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_plain_lines() {
        assert_eq!(lines("\n\n# 2.0.0 \r\n\r\n- Caf\u{e9} <b>\n\n".as_bytes()).unwrap(), ["# 2.0.0", "", "- Caf\u{e9} <b>"]);
        for bad in ["", " \n \n", "a\u{7}b", "a\tb", "\u{1b}[2J", "admin\u{202e}txt", "a\n\u{2066}b"] {
            assert!(lines(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(lines(&[0xff]).unwrap_err().contains("UTF-8"));
        assert!(lines(&[b'a'; BYTES_MAX]).is_ok() && lines(&[b'a'; BYTES_MAX + 1]).unwrap_err().contains("4097"));
        assert!(lines("a\n".repeat(LINES_MAX + 1).as_bytes()).unwrap_err().contains("121 lines"));
    }

    #[test]
    fn the_newest_are_kept_and_nothing_is_shown_that_would_not_be_signed() {
        let mut notes = Notes::new();
        let text = vec!["x".to_string()];
        for minor in 0..KEPT + 3 {
            assert!(put(&mut notes, "vmetric-agent", &format!("1.{minor}.0").parse().unwrap(), &text));
        }
        assert!(put(&mut notes, "vmetric-agent-x", &"1.0.0".parse().unwrap(), &text));
        assert!(!put(&mut notes, "vmetric-agent", &"1.9.0".parse().unwrap(), &text));
        assert_eq!(notes.len(), KEPT + 1);
        assert!(!notes.contains_key("vmetric-agent/1.2.0") && notes.contains_key("vmetric-agent/1.14.0"));
        notes.insert("a/1.0.0".into(), vec!["\u{1b}[2J".into()]);
        assert_eq!(shown(notes).len(), KEPT + 1);
    }
}
