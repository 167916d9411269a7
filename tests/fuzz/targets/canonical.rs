//! Canonical JSON against a typed reader: whatever has a canonical form means the same to both, and has that form only.

#![no_main]

use libfuzzer_sys::fuzz_target;
use miniserde::json::{self, Number, Value};
use vmetric::core::canonical::{DEPTH_MAX, canonicalize, member, members, split};

fn canonical(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    canonicalize(bytes, &mut |piece| out.extend_from_slice(piece)).ok().map(|()| out)
}

/// Has the value a canonical form once it is written? The second is about numbers that miniserde keeps as floats.
fn depth(value: &Value, exact: &mut bool) -> usize {
    match value {
        Value::Array(array) => 1 + array.iter().map(|v| depth(v, exact)).max().unwrap_or(0),
        Value::Object(object) => 1 + object.values().map(|v| depth(v, exact)).max().unwrap_or(0),
        Value::Number(Number::F64(_)) => {
            *exact = false;
            0
        }
        _ => 0,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let value: Option<Value> = std::str::from_utf8(bytes).ok().and_then(|text| json::from_str(text).ok());
    let form = canonical(bytes);
    if let Some(form) = &form {
        assert!(form.len() <= bytes.len(), "the form grows");
        match canonical(form) {
            Some(again) => assert_eq!(&again, form, "the form has another form"),
            // A canonical string holds control characters as they are, which is no JSON.
            None => assert!(form.iter().any(|b| *b < 0x20), "the form has no form"),
        }
        let value = value.as_ref().expect("signed, but no typed reader can read it");
        let mut exact = true;
        assert!(depth(value, &mut exact) <= DEPTH_MAX);
        if exact {
            assert_eq!(canonical(json::to_string(value).as_bytes()).as_ref(), Some(form), "two readers, two documents");
        }
    } else if let Some(value) = &value {
        let mut exact = true;
        if depth(value, &mut exact) <= DEPTH_MAX && exact {
            assert!(canonical(json::to_string(value).as_bytes()).is_some(), "what we write ourselves has a form");
        }
    }
    objects(bytes, form.as_deref(), value.as_ref());
});

/// `members`, `member` and `split` see what the whole walk sees.
fn objects(bytes: &[u8], form: Option<&[u8]>, value: Option<&Value>) {
    let mut seen = Vec::new();
    let whole = members(bytes).and_then(|mut members| {
        while let Some(next) = members.next_member()? {
            seen.push(next);
        }
        Ok(())
    });
    let object = match value {
        Some(Value::Object(object)) => Some(object),
        _ => None,
    };
    assert_eq!(whole.is_ok(), form.is_some() && object.is_some(), "members() and canonicalize() disagree");
    // Around what is signed keys may come in any order; what is signed has its one form.
    if let Ok(envelope) = split(bytes) {
        assert!(canonical(&bytes[envelope.signed]).is_some());
    }
    let (Ok(()), Some(object)) = (whole, object) else { return };
    assert_eq!(seen.len(), object.len());
    for (name, range) in &seen {
        assert!(object.contains_key(name));
        assert!(canonical(&bytes[range.clone()]).is_some());
        assert_eq!(member(bytes, name), Some(&bytes[range.clone()]));
    }
    if let Ok(envelope) = split(bytes) {
        assert!(matches!(object["signatures"], Value::Array(_)) && matches!(object["signed"], Value::Object(_)));
        assert!(bytes[envelope.signed].starts_with(b"{") && bytes[envelope.signatures].starts_with(b"["));
    }
}
