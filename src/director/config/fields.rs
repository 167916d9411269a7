//! One section of the tree: which names it may have, and typed values. Problems are collected, so that a person sees all of
//! them at once.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::problem::{Problem, nearest, shown};
use super::yaml::{Kind, Name, Node};
use crate::core::version::Version;
use crate::director::args::seconds;
use crate::io::tls::{Pin, parse_pin};

/// Longest value of a field; paths and addresses end far before.
const TEXT_MAX: usize = 4096;

/// A value and the line that it is in. Equal are equal values: a line that was moved is no change.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// Line, from 1.
    pub line: usize,
    /// What is written there.
    pub value: T,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &At<T>) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

/// A section that is being read.
pub struct Section<'a> {
    /// `update.`, or nothing for the file itself.
    prefix: String,
    /// Its own line.
    pub line: usize,
    fields: &'a [(Name, Node)],
}

impl<'a> Section<'a> {
    /// The section at a node, if it is one; names beside `names` are problems. `elsewhere` says where an unknown name belongs.
    pub fn open(
        prefix: &str,
        node: &'a Node,
        names: &[&str],
        elsewhere: &[(&str, &str)],
        problems: &mut Vec<Problem>,
    ) -> Option<Section<'a>> {
        let path = prefix.trim_end_matches('.');
        let fields = match &node.kind {
            Kind::Section(fields) => fields,
            // A file of comments sets nothing.
            Kind::Nothing if prefix.is_empty() => return None,
            _ => {
                let allowed = format!("fields below it, indented: {}", names.join(", "));
                problems.push(Problem::new(node.line, path, &node.found(), &allowed));
                return None;
            }
        };
        for (name, _) in fields.iter().filter(|(name, _)| !names.contains(&name.text.as_str())) {
            let allowed = match (elsewhere.iter().find(|(n, _)| *n == name.text), nearest(&name.text, names)) {
                (Some((_, remedy)), _) => remedy.to_string(),
                (_, Some(meant)) => format!("did you mean `{meant}`?"),
                _ => format!("allowed here: {}", names.join(", ")),
            };
            let field = format!("{prefix}{}", name.text.chars().take(60).collect::<String>().escape_debug());
            problems.push(Problem { unknown: true, ..Problem::new(name.line, &field, "an unknown field", &allowed) });
        }
        Some(Section { prefix: prefix.into(), line: node.line, fields })
    }

    /// A field's node.
    pub fn node(&self, name: &str) -> Option<(&'a Name, &'a Node)> {
        self.fields.iter().find(|(n, _)| n.text == name).map(|(name, node)| (name, node))
    }

    /// The field's full name.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// One value.
    pub fn text(&self, name: &str, allowed: &str, problems: &mut Vec<Problem>) -> Option<At<String>> {
        let (at, node) = self.node(name)?;
        self.scalar(name, at.line, node, allowed, problems)
    }

    fn scalar(&self, name: &str, line: usize, node: &Node, allowed: &str, problems: &mut Vec<Problem>) -> Option<At<String>> {
        match &node.kind {
            Kind::Text(text) if !text.trim().is_empty() && text.len() <= TEXT_MAX && !text.contains(char::is_control) => {
                return Some(At { line: node.line, value: text.clone() });
            }
            Kind::Nothing => {
                let allowed = format!("{allowed}; or leave the line out");
                problems.push(Problem::new(line, &self.path(name), "nothing", &allowed));
            }
            _ => problems.push(Problem::new(node.line, &self.path(name), &node.found(), allowed)),
        }
        None
    }

    /// One value through a function.
    pub fn parsed<T>(&self, name: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>, problems: &mut Vec<Problem>) -> Option<At<T>> {
        let text = self.text(name, allowed, problems)?;
        self.converted(name, &text, allowed, parse, problems)
    }

    fn converted<T>(
        &self,
        name: &str,
        text: &At<String>,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
        problems: &mut Vec<Problem>,
    ) -> Option<At<T>> {
        let value = parse(&text.value);
        if value.is_none() {
            problems.push(Problem::new(text.line, &self.path(name), &shown(&text.value), allowed));
        }
        Some(At { line: text.line, value: value? })
    }

    /// One of some words; the nearest is suggested.
    pub fn word(&self, name: &str, words: &[&str], problems: &mut Vec<Problem>) -> Option<At<String>> {
        let allowed = format!("one of: {}", words.join(", "));
        let text = self.text(name, &allowed, problems)?;
        if words.contains(&text.value.as_str()) {
            return Some(text);
        }
        let meant = nearest(&text.value, words).map_or(allowed, |meant| format!("did you mean `{meant}`?"));
        problems.push(Problem::new(text.line, &self.path(name), &shown(&text.value), &meant));
        None
    }

    /// One value or a list of them.
    pub fn addresses(&self, name: &str, problems: &mut Vec<Problem>) -> Vec<At<SocketAddr>> {
        self.list(name, "ADDRESS:PORT, such as 0.0.0.0:8443 or \"[::]:8443\", or a list of them", |t| t.parse().ok(), problems)
    }

    /// One value or a list of them, each once.
    pub fn list<T: PartialEq>(
        &self,
        name: &str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
        problems: &mut Vec<Problem>,
    ) -> Vec<At<T>> {
        let Some((at, node)) = self.node(name) else { return Vec::new() };
        let one = std::slice::from_ref(node);
        let items = match &node.kind {
            Kind::List(items) if items.is_empty() => {
                problems.push(Problem::new(node.line, &self.path(name), "an empty list", allowed));
                return Vec::new();
            }
            Kind::List(items) => items.as_slice(),
            _ => one,
        };
        let mut out: Vec<At<T>> = Vec::new();
        for item in items {
            let address =
                self.scalar(name, at.line, item, allowed, problems).and_then(|text| self.converted(name, &text, allowed, &parse, problems));
            match address.as_ref().and_then(|a| out.iter().find(|other| other.value == a.value)) {
                Some(first) => problems.push(Problem::new(
                    item.line,
                    &self.path(name),
                    &item.found(),
                    &format!("each address once; it is in line {}, too", first.line),
                )),
                None => out.extend(address),
            }
        }
        out
    }

    /// An absolute path: what a service's folder is, nobody knows.
    pub fn file(&self, name: &str, problems: &mut Vec<Problem>) -> Option<At<PathBuf>> {
        let absolute = |t: &str| Some(PathBuf::from(t)).filter(|p| p.is_absolute());
        self.parsed(name, "an absolute path, such as /etc/vmetric/root.json", absolute, problems)
    }

    /// A pin.
    pub fn pin(&self, name: &str, problems: &mut Vec<Problem>) -> Option<At<Pin>> {
        let allowed = "`sha256:` and 64 lower-case hex digits, as `vmetric-director pin` prints it";
        self.parsed(name, allowed, |t| parse_pin(t).ok(), problems)
    }

    /// A version, or `latest`.
    pub fn version(&self, name: &str, problems: &mut Vec<Problem>) -> Option<At<String>> {
        let good = |t: &str| (t == "latest" || t.parse::<Version>().is_ok()).then(|| t.to_string());
        self.parsed(name, "a version such as \"2.5.0\" or \"2.5.0-rc.1\", or `latest`", good, problems)
    }

    /// A whole number within limits.
    pub fn number(&self, name: &str, (least, most): (u64, u64), problems: &mut Vec<Problem>) -> Option<At<u64>> {
        let within = |t: &str| t.parse().ok().filter(|n| (least..=most).contains(n));
        self.parsed(name, &format!("a whole number from {least} to {most}"), within, problems)
    }

    /// A number of bytes within limits.
    pub fn bytes(&self, name: &str, (least, most): (u64, u64), problems: &mut Vec<Problem>) -> Option<At<u64>> {
        let allowed = format!("a number of bytes such as 500MB, 20GiB or 1048576, from {} to {}", bytes_text(least), bytes_text(most));
        self.parsed(name, &allowed, |t| bytes(t).filter(|n| (least..=most).contains(n)), problems)
    }

    /// A duration within limits, seconds.
    pub fn duration(&self, name: &str, (least, most): (u64, u64), problems: &mut Vec<Problem>) -> Option<At<u64>> {
        let allowed = format!("a duration such as 30s, 5m, 1h or 90d, from {} to {}", duration_text(least), duration_text(most));
        self.parsed(name, &allowed, |t| seconds(t).filter(|n| (least..=most).contains(n)), problems)
    }
}

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
];

/// `20GiB`, `500 MB`, `1048576`.
pub fn bytes(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1));
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse::<u64>().ok()?.checked_mul(factor) } else { None }
}

/// The shortest text that [`bytes`] reads as this number.
pub fn bytes_text(bytes: u64) -> String {
    let unit = UNITS[..4].iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or(bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

fn duration_text(seconds: u64) -> String {
    let unit = [("d", 86_400), ("h", 3_600), ("m", 60)].into_iter().find(|(_, s)| seconds.is_multiple_of(*s));
    unit.map_or(format!("{seconds}s"), |(unit, s)| format!("{}{unit}", seconds / s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        for (text, number) in [
            ("20GiB", Some(20 << 30)),
            ("500 MB", Some(500_000_000)),
            ("1048576", Some(1 << 20)),
            ("1.5GB", None),
            ("GB", None),
            ("-1", None),
            ("+1", None),
            ("99999999TiB", None),
            ("5G", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), number, "{text}");
        }
        for number in [0, 1, 1_000, 1 << 10, 3 << 20, 20 << 30, 1 << 40] {
            assert_eq!(bytes(&bytes_text(number)), Some(number));
        }
    }
}
