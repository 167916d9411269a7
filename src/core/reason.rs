//! Why: the reason that every wait, refusal and rollback carries to the operator.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// A stable code for programs and a sentence for people.
///
/// Codes are `snake_case`, never change their meaning and are listed where they are made. The detail names the file or
/// peer, the field and the remedy; it holds no secret and is at most [`DETAIL_MAX`] bytes long.
///
/// One pointer wide: hundreds of functions hand one on as their error, and every copy of it is code on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Box<Said>);

/// The two parts of a [`Reason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Stable, for programs: `no_contact`, `hash_mismatch`, ...
    pub code: Cow<'static, str>,
    /// One sentence, for people.
    pub detail: String,
}

impl Deref for Reason {
    type Target = Said;

    fn deref(&self) -> &Said {
        &self.0
    }
}

/// Longest detail in bytes: one line of a report; a hostile peer cannot make the activity grow through us.
pub const DETAIL_MAX: usize = 400;
/// Longest code in bytes, as the marks keep them.
pub const CODE_MAX: usize = 40;

impl Reason {
    /// A reason with its code and its sentence (cut at [`DETAIL_MAX`] on a character boundary).
    pub fn new(code: &'static str, detail: impl Into<String>) -> Reason {
        Reason::said(Cow::Borrowed(code), detail.into())
    }

    /// A reason that came over the wire or from a file. What is no code reads `unknown_code`.
    pub fn received(code: String, detail: String) -> Reason {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let known = !code.is_empty() && code.len() <= CODE_MAX && code.bytes().all(plain);
        Reason::said(if known { Cow::Owned(code) } else { Cow::Borrowed("unknown_code") }, detail)
    }

    /// The same reason with the file or peer in front that it is about.
    pub fn of(self, what: impl fmt::Display) -> Reason {
        let detail = format!("{what}: {}", self.detail);
        Reason::said(self.0.code, detail)
    }

    fn said(code: Cow<'static, str>, detail: String) -> Reason {
        Reason(Box::new(Said { code, detail: clip(detail) }))
    }
}

/// One line, nothing that moves a terminal's cursor, and at most [`DETAIL_MAX`] bytes: it may be a peer's or a program's text.
fn clip(mut text: String) -> String {
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ");
    }
    if text.len() > DETAIL_MAX {
        let end = (0..=DETAIL_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_words_are_one_plain_line() {
        let reason = Reason::received("\u{1b}[31mevil".into(), "a\nb\u{1b}[2J\u{9b}31m\0".into());
        assert_eq!((reason.code.as_ref(), reason.detail.as_str()), ("unknown_code", "a b [2J 31m "));
        for (code, kept) in [("throttled", true), ("", false), ("Bad", false), (&"a".repeat(41), false), (&"a".repeat(40), true)] {
            assert_eq!(Reason::received(code.into(), String::new()).code == code, kept, "{code}");
        }
    }

    #[test]
    fn detail_is_cut_on_a_character_boundary() {
        let r = Reason::new("x", "é".repeat(DETAIL_MAX));
        assert!(r.detail.len() <= DETAIL_MAX && r.detail.chars().all(|c| c == 'é'));
        assert_eq!(Reason::new("no_contact", "silent").to_string(), "silent (no_contact)");
    }
}
