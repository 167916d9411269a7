//! Other people's documents may have their keys in any order: the same document with its keys sorted.
//!
//! For `vmetric-release tuf` only. It takes a copy of the document, which a device does not; everything else that has no
//! canonical form is refused as always, a key that is there twice among it.

use super::{DEPTH_MAX, Malformed, Walk, ignore};

/// The one JSON value in `bytes` with its keys in canonical order; each string is spelled as it was.
pub fn sorted(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut walk = Walk::over(bytes)?;
    let mut out = Vec::new();
    walk.space();
    value(&mut walk, 0, &mut out)?;
    walk.end().map(|()| out)
}

fn value(walk: &mut Walk<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match walk.peek() {
        Some(b'{') if depth < DEPTH_MAX => object(walk, depth + 1, out),
        Some(b'[') if depth < DEPTH_MAX => array(walk, depth + 1, out),
        // Plain values, and what is too deep.
        _ => {
            let start = walk.at;
            walk.value(depth, &mut ignore)?;
            out.extend_from_slice(&walk.text.as_bytes()[start..walk.at]);
            Ok(())
        }
    }
}

fn array(walk: &mut Walk<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    walk.at += 1;
    out.push(b'[');
    let mut first = true;
    while walk.another(first, b']', &mut ignore)? {
        if !first {
            out.push(b',');
        }
        value(walk, depth, out)?;
        first = false;
    }
    out.push(b']');
    Ok(())
}

fn object(walk: &mut Walk<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    walk.at += 1;
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    while walk.another(members.is_empty(), b'}', &mut ignore)? {
        let start = walk.at;
        let key = walk.key(None, &mut ignore)?;
        let mut text = [&walk.text.as_bytes()[start..=key.end], b":"].concat();
        value(walk, depth, &mut text)?;
        members.push((walk.decoded(&key).collect(), text));
    }
    members.sort();
    if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return walk.fail("a key of the object that ends here is there twice");
    }
    out.push(b'{');
    for (i, (_, text)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(text);
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::canonical::canonicalize;

    #[test]
    fn keys_come_in_order_and_nothing_else_changes() {
        for (text, expected) in [
            (r#" { "b" : [ {"z":1,"a":"\u0041\""} , null ] , "a" : { } } "#, r#"{"a":{},"b":[{"a":"\u0041\"","z":1},null]}"#),
            (r#"{"\u0062" : "\n","a":2}"#, r#"{"a":2,"\u0062":"\n"}"#),
            ("{\"\u{10000}\":1,\"\u{ffff}\":2}", "{\"\u{ffff}\":2,\"\u{10000}\":1}"),
            ("[]", "[]"),
            ("-7", "-7"),
        ] {
            let got = sorted(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(got.clone()).unwrap(), expected);
            canonicalize(&got, &mut |_| {}).unwrap();
            assert_eq!(sorted(&got).unwrap(), got);
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        for text in [r#"{"b":1,"a":1,"b":1}"#, r#"{"a":1,"\u0061":1}"#, "1.5", "[1,]", "{", "{} x", r#"{"b":-0,"a":1}"#, "", "{1:2}"] {
            assert!(sorted(text.as_bytes()).is_err(), "{text}");
        }
        let deep = |n: usize| sorted((r#"{"b":1,"a":"#.repeat(n) + "1" + &"}".repeat(n)).as_bytes());
        assert!(deep(DEPTH_MAX).is_ok() && deep(DEPTH_MAX + 1).is_err() && deep(100_000).is_err());
    }
}
