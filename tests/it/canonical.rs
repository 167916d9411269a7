//! Canonical JSON against securesystemslib's encoder, and its properties.

use miniserde::json;
use proptest::prelude::*;
use vmetric::core::canonical::{DEPTH_MAX, canonicalize, members, split};

fn canonical(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    canonicalize(bytes, &mut |piece| out.extend_from_slice(piece)).ok()?;
    Some(out)
}

/// Documents and forms written by `tests/fixtures/canonical/generate.py`; an empty form = must be refused.
#[test]
fn equal_to_securesystemslib() {
    let (mut accepted, mut refused) = (0, 0);
    for (i, line) in include_str!("../fixtures/canonical/documents.jsonl").split('\n').filter(|line| !line.is_empty()).enumerate() {
        let [document, form]: [String; 2] = json::from_str(line).unwrap_or_else(|_| panic!("line {i}"));
        let ours = canonical(document.as_bytes());
        if form.is_empty() {
            assert_eq!(ours, None, "line {i}: {document}");
            refused += 1;
        } else {
            assert_eq!(ours.as_deref(), Some(form.as_bytes()), "line {i}: {document}");
            accepted += 1;
        }
    }
    assert_eq!((accepted, refused), (2000, 300));
}

/// A document and its canonical form, made side by side.
fn document() -> impl Strategy<Value = (String, String)> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| (n.to_string(), n.to_string())),
        prop_oneof!["true", "false", "null"].prop_map(|w| (w.clone(), w)),
        text(),
    ];
    leaf.prop_recursive(DEPTH_MAX as u32 - 1, 40, 4, |inner| {
        let array = prop::collection::vec(inner.clone(), 0..4).prop_map(|items| {
            let join = |f: fn(&(String, String)) -> &str| format!("[{}]", items.iter().map(f).collect::<Vec<_>>().join(","));
            (join(|i| &i.0).replace(',', " ,\n"), join(|i| &i.1))
        });
        let object = prop::collection::btree_map("[a-zé😀]{0,3}", inner, 0..4).prop_map(|map| {
            let spelled: Vec<String> = map.iter().map(|(k, v)| format!("\"{k}\" :\t{}", v.0)).collect();
            let form: Vec<String> = map.iter().map(|(k, v)| format!("\"{k}\":{}", v.1)).collect();
            (format!("{{ {} }}", spelled.join(" , ")), format!("{{{}}}", form.join(",")))
        });
        // Commas inside strings must stay as they are, so arrays with strings are spelled plainly.
        prop_oneof![array.prop_filter("no strings", |(_, form)| !form.contains('"')), object]
    })
}

fn text() -> impl Strategy<Value = (String, String)> {
    "[ -~\u{e9}\n\u{1}]{0,8}".prop_map(|plain| {
        let escape = |c: char, all: bool| match c {
            '"' | '\\' => format!("\\{c}"),
            c if all && (c as u32) < 0x20 => format!("\\u{:04x}", c as u32),
            c => c.to_string(),
        };
        let spell = |all| format!("\"{}\"", plain.chars().map(|c| escape(c, all)).collect::<String>());
        (spell(true), spell(false))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_form_does_not_depend_on_the_spelling((spelled, form) in document()) {
        prop_assert_eq!(canonical(spelled.as_bytes()), Some(form.into_bytes()), "{}", spelled);
    }

    /// A canonical form is a fixed point unless it contains raw control characters, which are no JSON.
    #[test]
    fn the_form_is_its_own_form((_, form) in document()) {
        let plain = !form.bytes().any(|b| b < 0x20);
        prop_assert_eq!(canonical(form.as_bytes()), plain.then(|| form.into_bytes()));
    }

    /// Any bytes: an answer, with the offset inside the document, and never a panic.
    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Err(e) = canonicalize(&bytes, &mut |_| {}) {
            prop_assert!(e.at <= bytes.len());
        }
        let _ = split(&bytes);
    }

    /// The same with bytes that are more often JSON.
    #[test]
    fn near_json_gets_an_answer(text in r#"[\[\]{}:,"\\u0-9adf \-.étrue]{0,40}"#) {
        if let Err(e) = canonicalize(text.as_bytes(), &mut |_| {}) {
            prop_assert!(e.at <= text.len(), "{} {}", e, text);
        }
        if let Ok(mut members) = members(text.as_bytes()) {
            while let Ok(Some((_, range))) = members.next_member() {
                prop_assert!(canonical(&text.as_bytes()[range]).is_some());
            }
        }
        if let Ok(envelope) = split(text.as_bytes()) {
            prop_assert!(canonical(&text.as_bytes()[envelope.signed]).is_some());
        }
    }
}
