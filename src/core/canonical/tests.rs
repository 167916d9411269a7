use super::*;

fn canonical(text: &str) -> Result<String, Malformed> {
    let mut out = Vec::new();
    canonicalize(text.as_bytes(), &mut |piece| out.extend_from_slice(piece))?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn white_space_goes_and_escapes_become_plain() {
    for (text, expected) in [
        ("  {}  ", "{}"),
        ("[ ]", "[]"),
        (" [ 1 , -2 ,\n30\t] ", "[1,-2,30]"),
        ("{ \"a\" : { \"b\" : [ true , false , null ] } }", "{\"a\":{\"b\":[true,false,null]}}"),
        (r#""\u0041\/\n\t\b\f\r""#, "\"A/\n\t\u{8}\u{c}\r\""),
        (r#""\u0022\u005c\"\\""#, r#""\"\\\"\\""#),
        (r#""\ud83d\ude00é\u00e9""#, "\"😀éé\""),
        (r#""\u0000""#, "\"\0\""),
        ("\"\u{7f}\"", "\"\u{7f}\""),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("0", "0"),
        // Sorted by code point: U+FFFF comes before U+10000, although its UTF-16 unit is higher.
        (r#"{"\uffff":1,"\ud800\udc00":2}"#, "{\"\u{ffff}\":1,\"\u{10000}\":2}"),
        (r#"{"":0,"a":1,"aa":2,"b":3}"#, r#"{"":0,"a":1,"aa":2,"b":3}"#),
        // An escape sorts as the character it stands for.
        (r#"{"\u0041":1,"B":2}"#, r#"{"A":1,"B":2}"#),
    ] {
        assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_canonical_form() {
    for (text, at, what) in [
        ("", 0, "the document ends too early"),
        ("[", 1, "the document ends too early"),
        ("[1", 2, "the document ends too early"),
        ("[1 2]", 3, "expected a comma or the closing bracket"),
        ("[1,]", 3, "expected a value"),
        ("[,1]", 1, "expected a value"),
        ("{,}", 1, "expected a key in quotes"),
        ("{\"a\":1,}", 7, "expected a key in quotes"),
        ("{a:1}", 1, "expected a key in quotes"),
        ("{\"a\" 1}", 5, "expected a colon"),
        ("{\"a\":1]", 6, "expected a comma or the closing bracket"),
        ("{\"b\":1,\"a\":2}", 7, "keys are not sorted"),
        ("{\"a\":1,\"a\":2}", 7, "this key is there twice"),
        (r#"{"a":1,"\u0061":2}"#, 7, "this key is there twice"),
        (r#"{"B":1,"\u0041":2}"#, 7, "keys are not sorted"),
        (r#"{"\ud800\udc00":2,"\uffff":1}"#, 18, "keys are not sorted"),
        ("1.0", 0, "not an integer"),
        ("1e3", 0, "not an integer"),
        ("1E3", 0, "not an integer"),
        ("-0", 0, "minus zero"),
        ("-", 0, "a minus without digits"),
        ("-a", 0, "a minus without digits"),
        ("00", 0, "a leading zero"),
        ("-01", 0, "a leading zero"),
        ("+1", 0, "expected a value"),
        ("NaN", 0, "expected a value"),
        ("Infinity", 0, "expected a value"),
        ("tru", 0, "expected a value"),
        ("nul ", 0, "expected a value"),
        ("'a'", 0, "expected a value"),
        ("\"a", 2, "the document ends inside a string"),
        ("\"\\\"", 3, "the document ends inside a string"),
        ("\"\n\"", 1, "a control character in a string"),
        ("\"\0\"", 1, "a control character in a string"),
        (r#""\x41""#, 1, "an escape that JSON does not have"),
        ("\"\\", 1, "an escape that JSON does not have"),
        (r#""\ud800""#, 1, "a lone surrogate"),
        (r#""\ud800\u0041""#, 1, "a lone surrogate"),
        (r#""\ud800\n""#, 1, "a lone surrogate"),
        (r#""\udc00\ud800""#, 1, "a lone surrogate"),
        (r#""\u12g4""#, 1, "\\u needs four hexadecimal digits"),
        (r#""\u+123""#, 1, "\\u needs four hexadecimal digits"),
        (r#""\u12""#, 1, "\\u needs four hexadecimal digits"),
        ("\"\\u12é\"", 1, "\\u needs four hexadecimal digits"),
        ("\"\\é\"", 1, "an escape that JSON does not have"),
        ("{} {}", 3, "bytes after the document"),
        ("{}\0", 2, "bytes after the document"),
        ("\u{feff}{}", 0, "expected a value"),
        ("[1]/**/", 3, "bytes after the document"),
    ] {
        assert_eq!(canonical(text), Err(Malformed { at, what }), "{text}");
    }
    // Found by fuzzing: a form, and no typed reader that reads it.
    assert!(canonical(&"1".repeat(DIGITS_MAX)).is_ok());
    let what = "a number of more than 64 digits";
    assert_eq!(canonical(&"1".repeat(DIGITS_MAX + 1)), Err(Malformed { at: 0, what }));
    let e = canonicalize(b"\"ab\xff\"", &mut ignore).unwrap_err();
    assert_eq!(e.to_string(), "invalid UTF-8 at byte 3");
}

#[test]
fn depth_is_limited_not_the_stack() {
    let nested = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    assert!(canonical(&nested("[", "]", DEPTH_MAX)).is_ok());
    assert_eq!(canonical(&nested("[", "]", DEPTH_MAX + 1)).unwrap_err().what, "nested deeper than 12");
    assert_eq!(canonical(&"[".repeat(1_000_000)).unwrap_err().at, DEPTH_MAX);
    assert_eq!(canonical(&"{\"a\":".repeat(100_000)).unwrap_err().what, "nested deeper than 12");
}

#[test]
fn an_envelope_has_two_parts() {
    let text = r#" { "signatures" : [ {} ] , "signed" : { "a" : 1 } } "#;
    let e = split(text.as_bytes()).unwrap();
    assert_eq!((&text[e.signatures], &text[e.signed]), ("[ {} ]", r#"{ "a" : 1 }"#));
    let more = r#"{"extra":[1],"signatures":[],"signed":{},"zzz":"x"}"#;
    let e = split(more.as_bytes()).unwrap();
    assert_eq!((&more[e.signatures], &more[e.signed]), ("[]", "{}"));
    // What is not signed has no order.
    let other = r#"{"z":{"b":1,"a":1},"signed":{"a":1},"signatures":[{"sig":"","keyid":""}],"a":0}"#;
    let e = split(other.as_bytes()).unwrap();
    assert_eq!((&other[e.signatures], &other[e.signed]), (r#"[{"sig":"","keyid":""}]"#, r#"{"a":1}"#));
    for (bad, what) in [
        ("[]", "expected an object"),
        ("{}", "'signatures' is missing"),
        (r#"{"signatures":[]}"#, "'signed' is missing"),
        (r#"{"signed":{}}"#, "'signatures' is missing"),
        (r#"{"signatures":{},"signed":{}}"#, "'signatures' is no array"),
        (r#"{"signatures":[],"signed":[]}"#, "'signed' is no object"),
        (r#"{"signatures":[],"signed":{},"signed":{}}"#, "this key is there twice"),
        (r#"{"signed":{},"signatures":[],"sign\u0065d":{}}"#, "this key is there twice"),
        (r#"{"signatures":[],"signed":{},"signatures":[]}"#, "this key is there twice"),
        (r#"{"signatures":[],"signed":{"b":1,"a":1}}"#, "keys are not sorted"),
        (r#"{"signatures":[],"signed":{}} x"#, "bytes after the document"),
        (r#"{"signatures":[],"signed":{}"#, "the document ends too early"),
    ] {
        assert_eq!(split(bad.as_bytes()).unwrap_err().what, what, "{bad}");
    }
}

#[test]
fn members_are_found_by_their_decoded_key() {
    let text = br#"{"a\"b":[1],"c":{"d":"\u0065"}}"#;
    assert_eq!(member(text, "a\"b"), Some(&b"[1]"[..]));
    assert_eq!(member(member(text, "c").unwrap(), "d"), Some(&br#""\u0065""#[..]));
    assert_eq!(member(text, "d"), None);
    assert_eq!(member(b"[]", "d"), None);
    assert_eq!(member(b"{\"a\":x}", "a"), None);
    let mut all = members(b"{}").unwrap();
    assert_eq!((all.next_member(), all.next_member()), (Ok(None), Ok(None)));
}
