//! Path patterns of delegations (specification section 4.5).

use std::str::Chars;

/// Does `pattern` match the whole `path`? `*` is any number of characters and `?` is one, neither crosses a `/`.
///
/// Upper and lower case differ on every system (GHSA-qp9x-wp8f-qgjj). The specification leaves bracket sets open, and
/// readers differ in them: a pattern with `[` matches nothing, so that nobody gets more than the delegator meant.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    if pattern.contains('[') {
        return false;
    }
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches_part(pattern, part) => {}
            _ => return false,
        }
    }
}

/// One part between slashes. Each `*` takes as little as possible, and one more each time the rest does not fit: only the
/// last one needs to be tried again, so the time is bounded by the product of the lengths.
fn matches_part(pattern: &str, part: &str) -> bool {
    let (mut pattern, mut part) = (pattern.chars(), part.chars());
    let mut star: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let before = part.clone();
        match (pattern.next(), part.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((pattern.clone(), before.clone()));
                part = before;
            }
            (Some('?'), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => {
                let Some((rest, taken)) = &mut star else { return false };
                if taken.next().is_none() {
                    return false;
                }
                pattern = rest.clone();
                part = taken.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_part_by_part() {
        for (pattern, path) in [
            ("a", "a"),
            ("*", "a"),
            ("*", ""),
            ("a/*", "a/b"),
            ("a/*", "a/"),
            ("*/b", "a/b"),
            ("a?c", "abc"),
            ("a?c", "aéc"),
            ("a*c", "ac"),
            ("a*c", "abcbc"),
            ("*a*b*", "xxaxxbxx"),
            ("**", "abc"),
            ("?*", "a"),
            ("*.tgz", ".tgz"),
            ("vmetric-agent/*/linux-amd64/*", "vmetric-agent/2.5.0/linux-amd64/vmetric-agent"),
            ("*a", "aaaa"),
            ("*ab", "aab"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn stars_cross_no_slash_and_case_counts() {
        for (pattern, path) in [
            ("*", "a/b"),
            ("**", "a/b"),
            ("a*b", "a/b"),
            ("a?b", "a/b"),
            ("a/*", "a/b/c"),
            ("a/*", "a"),
            ("a/**", "a/b/c"),
            ("*/c", "a/b/c"),
            ("A", "a"),
            ("a", "A"),
            ("a*", "ba"),
            ("?", ""),
            ("a", "ab"),
            ("ab", "a"),
            ("", "a"),
            ("[a]", "a"),
            ("[a]", "[a]"),
            ("a[", "a["),
            ("*[!b]", "a"),
            ("a\\*", "a*b"),
            ("vmetric-agent/*/linux-amd64/*", "vmetric-agent/2.5.0/linux-arm64/vmetric-agent"),
            ("vmetric-agent/*/linux-amd64/*", "vmetric-agent/2.5.0/x/linux-amd64/vmetric-agent"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let (pattern, path) = ("*a".repeat(500) + "b", "a".repeat(5000));
        assert!(!matches(&pattern, &path));
    }
}
