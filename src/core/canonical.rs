//! Canonical JSON (OLPC), as a stream: what signatures of metadata are made over.
//!
//! The received bytes are walked once per signature and the canonical form goes straight into the verifier: no tree, no
//! copy, memory that does not depend on the document. Only documents whose canonical form is the same text without white
//! space and with plain escapes are accepted, so that no reader can see another document than the one that was signed.
//!
//! | refused | because |
//! |---|---|
//! | keys that are not sorted by code point (in what is signed) | the canonical order is the sorted one; sorting would need a copy |
//! | a key twice | readers differ in which one counts |
//! | fractions, exponents, `-0`, leading zeros | canonical numbers are integers, and each has one spelling |
//! | lone surrogates, invalid UTF-8, raw control characters | no text at all, or no JSON |
//! | a number of more than [`DIGITS_MAX`] digits | no typed reader reads it |
//! | nesting deeper than [`DEPTH_MAX`], anything after the document | bounded stack; nothing unsigned rides along |
//!
//! python-tuf and tuf-on-ci write such documents (others may not: `sorted` is for `vmetric-release tuf`); equal to securesystemslib's encoder on every document of
//! `tests/fixtures/canonical/`.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;

/// Deepest nesting of objects and arrays. TUF's own documents need 5; more is an attempt on the stack.
pub const DEPTH_MAX: usize = 12;
/// Most digits of a number: the largest that TUF or ours needs has 20. From 310 on typed readers take no number at all, and what is
/// signed must be readable.
pub const DIGITS_MAX: usize = 64;

/// Why bytes are no document that could be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset of the offending byte.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Malformed {}

/// The two parts of `{"signatures":[..],"signed":{..}}`: ranges of the document's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Of the array.
    pub signatures: Range<usize>,
    /// Of the object.
    pub signed: Range<usize>,
}

/// Feeds the canonical form of the one JSON value in `bytes` to `sink`, piece by piece.
///
/// On an error some pieces may have been fed already: a verdict over them is worth nothing.
pub fn canonicalize(bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), Malformed> {
    let mut walk = Walk::over(bytes)?;
    walk.space();
    walk.value(0, sink)?;
    walk.end()
}

/// Splits signed metadata (specification 1.0.34, section 4.2.1) and checks that all of it has a canonical form.
///
/// Members that the specification does not name are skipped, as it asks; they are not signed and nothing reads them. What
/// is not signed has no canonical form, so its keys may come in any order; only 'signed' and 'signatures' are there once.
pub fn split(bytes: &[u8]) -> Result<Envelope, Malformed> {
    parts(bytes, true)
}

/// The same for a document whose signed part has its keys in any order; see `sorted`.
#[cfg(feature = "release")]
pub fn split_unsorted(bytes: &[u8]) -> Result<Envelope, Malformed> {
    parts(bytes, false)
}

fn parts(bytes: &[u8], sorted: bool) -> Result<Envelope, Malformed> {
    let (mut signatures, mut signed) = (None, None);
    let mut walk = Walk::over(bytes)?;
    walk.space();
    walk.expect(b'{', "expected an object")?;
    let mut first = true;
    while walk.another(first, b'}', &mut ignore)? {
        first = false;
        let key = walk.key(None, &mut ignore)?;
        let name: String = walk.decoded(&key).collect();
        let start = walk.at;
        walk.sorted = sorted && name == "signed";
        walk.value(1, &mut ignore)?;
        let range = start..walk.at;
        let (place, open, what) = match name.as_str() {
            "signatures" => (&mut signatures, b'[', "'signatures' is no array"),
            "signed" => (&mut signed, b'{', "'signed' is no object"),
            _ => continue,
        };
        if bytes[start] != open {
            return Err(Malformed { at: start, what });
        }
        if place.replace(range).is_some() {
            return Err(Malformed { at: start, what: "this key is there twice" });
        }
    }
    walk.end()?;
    match (signatures, signed) {
        (Some(signatures), Some(signed)) => Ok(Envelope { signatures, signed }),
        (None, _) => Err(Malformed { at: bytes.len(), what: "'signatures' is missing" }),
        (_, None) => Err(Malformed { at: bytes.len(), what: "'signed' is missing" }),
    }
}

/// The members of the object in `bytes`, one after the other, each checked when it is reached.
pub fn members(bytes: &[u8]) -> Result<Members<'_>, Malformed> {
    let mut walk = Walk::over(bytes)?;
    walk.space();
    walk.expect(b'{', "expected an object")?;
    Ok(Members { walk, last: None, done: false })
}

/// The bytes of one member of the object in `bytes`; `None` when there is no such member or no such object.
pub fn member<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut members = members(bytes).ok()?;
    while let Some((key, range)) = members.next_member().ok()? {
        if key == name {
            return Some(&bytes[range]);
        }
    }
    None
}

/// See [`members`].
pub struct Members<'a> {
    walk: Walk<'a>,
    last: Option<Range<usize>>,
    done: bool,
}

impl Members<'_> {
    /// The next member's decoded key and the range of its value; `None` after the last one, when also nothing follows.
    pub fn next_member(&mut self) -> Result<Option<(String, Range<usize>)>, Malformed> {
        if self.done {
            return Ok(None);
        }
        if !self.walk.another(self.last.is_none(), b'}', &mut ignore)? {
            self.done = true;
            return self.walk.end().map(|()| None);
        }
        let key = self.walk.key(self.last.take(), &mut ignore)?;
        let start = self.walk.at;
        self.walk.value(1, &mut ignore)?;
        let name = self.walk.decoded(&key).collect();
        self.last = Some(key);
        Ok(Some((name, start..self.walk.at)))
    }
}

fn ignore(_: &[u8]) {}

/// A place in a document that is known to be UTF-8.
#[derive(Clone)]
struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Keys must be sorted: always, but around what is signed.
    sorted: bool,
}

type Sink<'a> = &'a mut dyn FnMut(&[u8]);

impl<'a> Walk<'a> {
    fn over(bytes: &'a [u8]) -> Result<Walk<'a>, Malformed> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Walk { text, at: 0, sorted: true }),
            Err(e) => Err(Malformed { at: e.valid_up_to(), what: "invalid UTF-8" }),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, Malformed> {
        Err(Malformed { at: self.at, what })
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return self.fail(what);
        }
        self.at += 1;
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Malformed> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.fail("bytes after the document") }
    }

    /// One value; `depth` containers are open around it.
    fn value(&mut self, depth: usize, sink: Sink<'_>) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => self.fail("nested deeper than 12"),
            Some(b'{') => self.object(depth + 1, sink),
            Some(b'[') => self.array(depth + 1, sink),
            Some(b'"') => self.string(sink).map(drop),
            Some(b'-' | b'0'..=b'9') => self.integer(sink),
            Some(b't') => self.word("true", sink),
            Some(b'f') => self.word("false", sink),
            Some(b'n') => self.word("null", sink),
            Some(_) => self.fail("expected a value"),
            None => self.fail("the document ends too early"),
        }
    }

    fn object(&mut self, depth: usize, sink: Sink<'_>) -> Result<(), Malformed> {
        self.at += 1;
        sink(b"{");
        let mut last = None;
        while self.another(last.is_none(), b'}', sink)? {
            let key = self.key(last, sink)?;
            self.value(depth, sink)?;
            last = Some(key);
        }
        sink(b"}");
        Ok(())
    }

    fn array(&mut self, depth: usize, sink: Sink<'_>) -> Result<(), Malformed> {
        self.at += 1;
        sink(b"[");
        let mut first = true;
        while self.another(first, b']', sink)? {
            self.value(depth, sink)?;
            first = false;
        }
        sink(b"]");
        Ok(())
    }

    /// Steps over the comma to the next member or element, or over the closing bracket.
    fn another(&mut self, first: bool, close: u8, sink: Sink<'_>) -> Result<bool, Malformed> {
        self.space();
        match self.peek() {
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            _ if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                self.space();
                sink(b",");
                Ok(true)
            }
            Some(_) => self.fail("expected a comma or the closing bracket"),
            None => self.fail("the document ends too early"),
        }
    }

    /// A key that must come after the last one, and its colon. Returns the key's range between the quotes.
    fn key(&mut self, last: Option<Range<usize>>, sink: Sink<'_>) -> Result<Range<usize>, Malformed> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return self.fail("expected a key in quotes");
        }
        let key = self.string(sink)?;
        if let Some(last) = last.filter(|_| self.sorted) {
            match self.decoded(&last).cmp(self.decoded(&key)) {
                Ordering::Less => {}
                Ordering::Equal => return Err(Malformed { at: start, what: "this key is there twice" }),
                Ordering::Greater => return Err(Malformed { at: start, what: "keys are not sorted" }),
            }
        }
        self.space();
        self.expect(b':', "expected a colon")?;
        self.space();
        sink(b":");
        Ok(key)
    }

    /// A string. Canonical strings escape `"` and `\` only. Returns the range between the quotes.
    fn string(&mut self, sink: Sink<'_>) -> Result<Range<usize>, Malformed> {
        self.at += 1;
        let start = self.at;
        let mut plain = self.at;
        let bytes = self.text.as_bytes();
        sink(b"\"");
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    sink(&bytes[plain..self.at]);
                    match self.escape()? {
                        '"' => sink(b"\\\""),
                        '\\' => sink(b"\\\\"),
                        other => sink(other.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                    plain = self.at;
                }
                Some(0..=0x1f) => return self.fail("a control character in a string"),
                Some(_) => self.at += 1,
                None => return self.fail("the document ends inside a string"),
            }
        }
        sink(&bytes[plain..self.at]);
        sink(b"\"");
        self.at += 1;
        Ok(start..self.at - 1)
    }

    /// The character that an escape sequence stands for; `at` is on the backslash.
    fn escape(&mut self) -> Result<char, Malformed> {
        let start = self.at;
        self.at += 2;
        Ok(match self.text.as_bytes().get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex4(start)?;
                let second = match first {
                    0xd800..=0xdbff if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        Some(self.hex4(start)?)
                    }
                    _ => None,
                };
                let units = [first, second.unwrap_or(0)];
                let used = if second.is_some() { &units[..] } else { &units[..1] };
                let mut chars = char::decode_utf16(used.iter().copied());
                match (chars.next(), chars.next()) {
                    (Some(Ok(c)), None) => c,
                    _ => return Err(Malformed { at: start, what: "a lone surrogate" }),
                }
            }
            _ => return Err(Malformed { at: start, what: "an escape that JSON does not have" }),
        })
    }

    fn hex4(&mut self, start: usize) -> Result<u16, Malformed> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        let value = digits.iter().try_fold(0u16, |n, &d| Some(n << 4 | char::from(d).to_digit(16)? as u16));
        self.at += 4;
        match value {
            Some(value) if digits.len() == 4 => Ok(value),
            _ => Err(Malformed { at: start, what: "\\u needs four hexadecimal digits" }),
        }
    }

    fn integer(&mut self, sink: Sink<'_>) -> Result<(), Malformed> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let first = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let digits = &self.text.as_bytes()[first..self.at];
        let what = match (digits, self.peek()) {
            ([], _) => "a minus without digits",
            (_, Some(b'.' | b'e' | b'E')) => "not an integer",
            ([b'0', _, ..], _) => "a leading zero",
            ([b'0'], _) if first > start => "minus zero",
            _ if digits.len() > DIGITS_MAX => "a number of more than 64 digits",
            _ => {
                sink(&self.text.as_bytes()[start..self.at]);
                return Ok(());
            }
        };
        Err(Malformed { at: start, what })
    }

    fn word(&mut self, word: &'static str, sink: Sink<'_>) -> Result<(), Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("expected a value");
        }
        self.at += word.len();
        sink(word.as_bytes());
        Ok(())
    }

    /// The characters of a string that was walked before.
    fn decoded(&self, range: &Range<usize>) -> impl Iterator<Item = char> + use<'a> {
        let mut rest = Walk { text: &self.text[range.clone()], at: 0, sorted: true };
        std::iter::from_fn(move || {
            let next = rest.text[rest.at..].chars().next()?;
            if next == '\\' {
                return rest.escape().ok();
            }
            rest.at += next.len_utf8();
            Some(next)
        })
    }
}

#[cfg(feature = "release")]
mod sorted;
#[cfg(test)]
mod tests;

#[cfg(feature = "release")]
pub use sorted::sorted;
