//! What changed between two packages: for the event "Resource Update".

use std::collections::BTreeMap;

use super::manifest::Line;

/// Names of each kind that are kept: an event is one line, and the counts say the rest.
pub const NAMED_MAX: usize = 8;

/// How many files, and the first of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// All of them.
    pub count: u64,
    /// The first few.
    pub named: Vec<String>,
}

impl Files {
    fn add(&mut self, name: &str) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(name.to_string());
        }
    }

    fn text(&self, word: &str) -> Option<String> {
        let more = if self.count > self.named.len() as u64 { ", ..." } else { "" };
        (self.count > 0).then(|| format!("{} {word} ({}{more})", self.count, self.named.join(", ")))
    }
}

/// The files that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Only in the new package.
    pub added: Files,
    /// In both, with other bytes or another mode.
    pub changed: Files,
    /// Only in the old one.
    pub removed: Files,
    /// In both, the same.
    pub same: u64,
}

impl Summary {
    /// Compares two lists of files, in any order.
    pub fn of(old: &[Line], new: &[Line]) -> Summary {
        let mut before: BTreeMap<&str, &Line> = old.iter().map(|line| (line.name.as_str(), line)).collect();
        let after: BTreeMap<&str, &Line> = new.iter().map(|line| (line.name.as_str(), line)).collect();
        let mut out = Summary::default();
        for (name, line) in after {
            match before.remove(name) {
                None => out.added.add(name),
                Some(old) if *old == *line => out.same += 1,
                Some(_) => out.changed.add(name),
            }
        }
        before.keys().for_each(|name| out.removed.add(name));
        out
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [self.added.text("added"), self.changed.text("changed"), self.removed.text("removed")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => write!(f, "no resource changed, {} files", self.same),
            false => write!(f, "resources: {}; {} unchanged", parts.join(", "), self.same),
        }
    }
}
