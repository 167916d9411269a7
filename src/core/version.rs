//! Versions: Semantic Versioning 2.0.0, without build metadata.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// `MAJOR.MINOR.PATCH[-PRE]`. Ordered as SemVer section 11 says. Build metadata (`+...`) is refused: two files that
/// compare equal must not be different files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    pre: String,
}

/// Longest version text: it is part of paths.
pub const VERSION_MAX: usize = 64;

/// The text is no version. The message says what one looks like.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAVersion(pub String);

impl fmt::Display for NotAVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no version; expected MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-PRE, such as 2.5.0 or 2.5.0-rc.1", self.0)
    }
}

impl std::error::Error for NotAVersion {}

impl Version {
    /// True for `2.5.0-rc.1`: never chosen by `latest`.
    pub fn is_pre_release(&self) -> bool {
        !self.pre.is_empty()
    }
}

fn number(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if plain && !leading_zero { text.parse().ok() } else { None }
}

fn pre_release_is_valid(pre: &str) -> bool {
    pre.split('.').all(|id| {
        let digits = id.bytes().all(|b| b.is_ascii_digit());
        !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && (!digits || number(id).is_some())
    })
}

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Version, NotAVersion> {
        let parse = || {
            if text.len() > VERSION_MAX {
                return None;
            }
            let (core, pre) = match text.split_once('-') {
                Some((core, pre)) => (core, Some(pre)),
                None => (text, None),
            };
            if pre.is_some_and(|p| !pre_release_is_valid(p)) {
                return None;
            }
            let mut parts = core.split('.');
            let numbers = [number(parts.next()?)?, number(parts.next()?)?, number(parts.next()?)?];
            match parts.next() {
                Some(_) => None,
                None => Some(Version { numbers, pre: pre.unwrap_or_default().to_string() }),
            }
        };
        parse().ok_or_else(|| NotAVersion(text.chars().take(VERSION_MAX).collect()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.numbers;
        write!(f, "{a}.{b}.{c}")?;
        if self.pre.is_empty() { Ok(()) } else { write!(f, "-{}", self.pre) }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_pre_release(&self.pre, &other.pre),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn compare_pre_release(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (x, y) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => (x, y),
        };
        let order = match (number(x), number(y)) {
            (Some(x), Some(y)) => x.cmp(&y),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn semver_section_11_order() {
        let list = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        for (i, a) in list.iter().enumerate() {
            for (j, b) in list.iter().enumerate() {
                assert_eq!(v(a).cmp(&v(b)), i.cmp(&j), "{a} {b}");
            }
            assert_eq!(v(a).to_string(), *a);
        }
    }

    #[test]
    fn what_is_no_version() {
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.x",
            "1.2.3-",
            "1.2.3-a..b",
            "1.2.3-01",
            "1.2.3+b",
            "v1.2.3",
            " 1.2.3",
            "1.2.3/..",
            "99999999999999999999.0.0",
            "1.2.3-é",
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
        assert!(format!("1.2.3-{}", "a".repeat(VERSION_MAX)).parse::<Version>().is_err());
        assert!(v("1.2.3-rc.1").is_pre_release() && !v("1.2.3").is_pre_release());
    }
}
