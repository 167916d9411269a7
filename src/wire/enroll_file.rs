//! The enrollment file: what a device maker, an installer or a person with a stick tells a device that has no identity yet.
//! Frozen (FROZEN.md).
//!
//! ```json
//! {"format": 1, "director": "https://director.example.org:8443", "pins": ["sha256:..."], "token": "vmt_..."}
//! ```
//!
//! Every field but `format` may be missing; others are told and ignored, since a later version may have written them. All
//! of it is hostile: it may come from a stick that somebody found.

use miniserde::json::{self, Array, Number, Object, Value};

use super::config::{OFFLINE_SITE_MAX, PINS_MAX, parse_pin};
use crate::core::first_boot::Settings;
use crate::core::reason::Reason;

/// Longest file, bytes: an address, four pins and a token are about 600.
pub const ENROLL_FILE_MAX: u64 = 4096;
/// Its name on a medium.
pub const MEDIUM_FILE: &str = "vmetric-enroll.json";
/// Its name beside the program, and in the state folder's `config`.
pub const OWN_FILE: &str = "enroll.json";

/// Longest token, bytes; the Director's have 77.
const TOKEN_MAX: usize = 256;
/// Longest of the other texts, bytes.
const TEXT_MAX: usize = 256;
/// Most unknown fields that are named.
const UNKNOWN_MAX: usize = 4;

fn bad(why: impl Into<String>) -> Reason {
    Reason::new("bad_enroll_file", why)
}

/// The settings in a file's bytes.
///
/// # Errors
/// `bad_enroll_file`, naming the field; never its value, which may be the token.
pub fn parse(bytes: &[u8]) -> Result<Settings, Reason> {
    if bytes.len() as u64 > ENROLL_FILE_MAX {
        return Err(bad(format!("is longer than {ENROLL_FILE_MAX} bytes")));
    }
    // What Windows editors put before a text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| bad("is not UTF-8"))?;
    let Ok(Value::Object(fields)) = json::from_str::<Value>(text) else { return Err(bad("is no JSON object")) };
    let mut said = Settings::default();
    let mut format = false;
    for (name, value) in &fields {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("format", Value::Number(Number::U64(1))) => format = true,
            ("format", _) => return Err(bad("field format: expected 1")),
            ("director", value) => said.director = Some(address(text_of("director", value)?)?),
            ("pins", value) => said.pins = pins(value)?,
            ("token", value) => said.token = Some(token(text_of("token", value)?)?),
            ("serial", value) => said.serial = Some(text_of("serial", value)?),
            ("serial_file", value) => said.serial_file = Some(path(text_of("serial_file", value)?)?),
            ("proxy", value) => said.proxy = Some(text_of("proxy", value)?),
            ("offline_site_days", Value::Number(Number::U64(days))) if *days <= OFFLINE_SITE_MAX => said.offline_site_days = Some(*days),
            ("offline_site_days", _) => return Err(bad(format!("field offline_site_days: expected a number up to {OFFLINE_SITE_MAX}"))),
            ("shared", Value::Bool(shared)) => said.shared = *shared,
            ("shared", _) => return Err(bad("field shared: expected true or false")),
            (other, _) if said.unknown.len() < UNKNOWN_MAX => said.unknown.push(plain(other)),
            _ => {}
        }
    }
    if format { Ok(said) } else { Err(bad("field format is missing; expected 1")) }
}

fn text_of(field: &'static str, value: &Value) -> Result<String, Reason> {
    match value {
        Value::String(text) if (1..=TEXT_MAX).contains(&text.len()) && !text.contains(char::is_control) => Ok(text.clone()),
        Value::String(_) => Err(bad(format!("field {field}: expected 1 to {TEXT_MAX} plain characters"))),
        _ => Err(bad(format!("field {field}: expected a string"))),
    }
}

fn address(text: String) -> Result<String, Reason> {
    match text.strip_prefix("https://") {
        Some(rest) if !rest.is_empty() && !rest.contains('@') => Ok(text.trim_end_matches('/').to_string()),
        _ => Err(bad("field director: expected https://host[:port]")),
    }
}

fn token(text: String) -> Result<String, Reason> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if text.len() <= TOKEN_MAX && text.bytes().all(plain) { Ok(text) } else { Err(bad("field token: is no token")) }
}

fn path(text: String) -> Result<String, Reason> {
    if text.starts_with('/') || text.get(1..3) == Some(":\\") { Ok(text) } else { Err(bad("field serial_file: expected an absolute path")) }
}

fn pins(value: &Value) -> Result<Vec<String>, Reason> {
    let Value::Array(list) = value else { return Err(bad("field pins: expected a list of strings")) };
    if list.is_empty() || list.len() > PINS_MAX {
        return Err(bad(format!("field pins: expected 1 to {PINS_MAX}")));
    }
    let pin = |value: &Value| match value {
        Value::String(text) => parse_pin(text).map(|_| text.clone()).map_err(|reason| bad(format!("field pins: {}", reason.detail))),
        _ => Err(bad("field pins: expected a list of strings")),
    };
    list.iter().map(pin).collect()
}

/// A name for people.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(32).collect()
}

/// The same settings without the token, in exactly `length` bytes: what overwrites the file in place. Something shorter than
/// that cannot be said is all blank.
pub fn without_token(said: &Settings, length: usize) -> Vec<u8> {
    let mut fields = Object::new();
    fields.insert("format".into(), Value::Number(Number::U64(1)));
    let mut text = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            fields.insert(name.into(), Value::String(value.clone()));
        }
    };
    text("director", &said.director);
    text("serial", &said.serial);
    text("serial_file", &said.serial_file);
    text("proxy", &said.proxy);
    if !said.pins.is_empty() {
        fields.insert("pins".into(), Value::Array(said.pins.iter().cloned().map(Value::String).collect::<Array>()));
    }
    if let Some(days) = said.offline_site_days {
        fields.insert("offline_site_days".into(), Value::Number(Number::U64(days)));
    }
    let mut bytes = json::to_string(&Value::Object(fields)).into_bytes();
    if bytes.len() > length {
        bytes.clear();
    }
    bytes.resize(length, b' ');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> String {
        let pin = format!("sha256:{}", "a".repeat(64));
        format!(
            "{{\"format\":1,\"director\":\"https://d:8443/\",\"pins\":[\"{pin}\"],\"token\":\"vmt_aaaaaaaa_s3cret\",\"serial\":\"S1\",\
             \"serial_file\":\"/factory/serial\",\"proxy\":\"http://p:1\",\"offline_site_days\":30,\"shared\":true,\"zone\":7}}"
        )
    }

    #[test]
    fn every_field_is_read_and_a_later_one_is_told() {
        let said = parse(whole().as_bytes()).unwrap();
        assert_eq!((said.director.as_deref(), said.token.as_deref()), (Some("https://d:8443"), Some("vmt_aaaaaaaa_s3cret")));
        assert_eq!((said.serial.as_deref(), said.serial_file.as_deref()), (Some("S1"), Some("/factory/serial")));
        assert_eq!((said.pins.len(), said.offline_site_days, said.shared, said.unknown), (1, Some(30), true, vec!["zone".to_string()]));
        assert_eq!(parse(b"\xef\xbb\xbf{\"format\":1,\"token\":null}").unwrap(), Settings::default());
    }

    #[test]
    fn what_is_wrong_is_named_and_the_token_is_not_repeated() {
        for (from, to, field) in [
            ("\"format\":1", "\"format\":2", "format"),
            ("\"format\":1,", "", "format"),
            ("https://d", "http://d", "director"),
            ("https://d:8443/", "https://user@d", "director"),
            ("sha256:", "md5:", "pins"),
            ("[\"sha256", "[7,\"sha256", "pins"),
            ("vmt_aaaaaaaa_s3cret", "s3cret with spaces", "token"),
            ("\"vmt_aaaaaaaa_s3cret\"", "[\"s3cret\"]", "token"),
            ("\"S1\"", "\"\"", "serial"),
            ("/factory/serial", "../serial", "serial_file"),
            (":30", ":401", "offline_site_days"),
            (":30", ":-1", "offline_site_days"),
            (":true", ":1", "shared"),
        ] {
            let text = whole().replacen(from, to, 1);
            assert_ne!(text, whole(), "{from}");
            let reason = parse(text.as_bytes()).unwrap_err();
            assert!(reason.detail.contains(field) && !reason.detail.contains("s3cret"), "{field}: {reason}");
        }
        for garbage in [&b"[]"[..], b"", b"{", b"null", &[0xff], &[b' '; 4097]] {
            assert_eq!(parse(garbage).unwrap_err().code, "bad_enroll_file");
        }
    }

    #[test]
    fn it_loses_its_token_in_place() {
        let text = whole();
        let said = parse(text.as_bytes()).unwrap();
        let without = without_token(&said, text.len());
        assert_eq!(without.len(), text.len());
        assert!(!String::from_utf8_lossy(&without).contains("s3cret"));
        let again = parse(&without).unwrap();
        assert_eq!(again, Settings { token: None, shared: false, unknown: Vec::new(), ..said.clone() });
        assert_eq!(without_token(&said, 5), b"     ");
    }
}
