//! Backups of a Director: what they are called, which are kept, and what of the configuration a rollback puts back.

use std::fmt;
use std::str::FromStr;

use super::hex::Sha256;
use super::time;
use super::version::Version;

/// Backups that are kept unless the configuration says otherwise: the last few releases of a year.
pub const KEEP: u64 = 5;
/// Their bytes together unless the configuration says otherwise.
pub const KEEP_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A backup's name: `20261123T001500Z-2.5.0`, the time in UTC and the version that ran.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Seconds since 1970.
    pub at: u64,
    /// What ran.
    pub version: Version,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", time::format(self.at).replace(['-', ':'], ""), self.version)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        let parse = || {
            let (at, version) = text.split_once('-')?;
            let (date, clock) = at.strip_suffix('Z')?.split_once('T')?;
            let part = |text: &'_ str, from: usize, to: usize| text.get(from..to).map(String::from);
            let (year, month, day) = (part(date, 0, 4)?, part(date, 4, 6)?, part(date, 6, 8)?);
            let (hour, minute, second) = (part(clock, 0, 2)?, part(clock, 2, 4)?, part(clock, 4, 6)?);
            let at = time::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))?;
            Some(Name { at, version: version.parse().ok()? })
        };
        // One spelling only: the name is a folder's.
        let name = parse().filter(|name| name.to_string() == text);
        let shown: String = text.chars().take(80).collect();
        name.ok_or_else(|| format!("'{shown}' is no backup; `vmetric-director backups` lists them"))
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Number of backups.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { count: KEEP, bytes: KEEP_BYTES }
    }
}

/// What can go, the oldest first. The newest stays whatever it costs: it is what a failed update goes back to.
pub fn to_remove(mut found: Vec<(Name, u64)>, keep: Retention) -> Vec<Name> {
    found.sort();
    let mut bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
    let (mut count, mut gone) = (found.len() as u64, Vec::new());
    for (name, length) in found {
        if count <= 1 || count <= keep.count && bytes <= keep.bytes {
            break;
        }
        (count, bytes) = (count - 1, bytes.saturating_sub(length));
        gone.push(name);
    }
    gone
}

/// What a rollback does with a configuration file that the new version had migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBack {
    /// Nobody has touched it since the migration: the backup's bytes again.
    Restore,
    /// Edited since, or removed: it stays, and both are in the backup.
    Keep,
    /// It is the backup's already.
    Same,
}

/// `now`: the file's bytes, if it is there; `migrated`: what the new version wrote; `before`: the backup's.
pub fn put_back(now: Option<&Sha256>, migrated: &Sha256, before: &Sha256) -> PutBack {
    match now {
        Some(now) if now == before => PutBack::Same,
        Some(now) if now == migrated => PutBack::Restore,
        _ => PutBack::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(at: u64) -> Name {
        Name { at, version: "2.5.0".parse().unwrap() }
    }

    #[test]
    fn a_name_has_one_spelling() {
        let text = "20261123T001500Z-2.5.0-rc.1";
        let name: Name = text.parse().unwrap();
        assert_eq!((name.to_string().as_str(), name.version.to_string().as_str()), (text, "2.5.0-rc.1"));
        for bad in [
            "",
            "x",
            "..",
            "20261123T001500Z",
            "20261123T001500Z-",
            "20261323T001500Z-2.5.0",
            "20261123T001500-2.5.0",
            "20261123T001500Z-2.5.0/..",
            "é0261123T001500Z-2.5.0",
            "+0261123T001500Z-2.5.0",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_oldest_go_and_the_newest_stays() {
        let all = |count: u64, bytes: u64| (0..count).rev().map(|n| (name(n), bytes)).collect::<Vec<_>>();
        let gone = |found, count, bytes| to_remove(found, Retention { count, bytes }).into_iter().map(|n| n.at).collect::<Vec<_>>();
        assert_eq!(gone(all(5, 10), 5, 50), [0; 0]);
        assert_eq!(gone(all(7, 10), 5, 1000), [0, 1]);
        assert_eq!(gone(all(5, 10), 5, 49), [0]);
        assert_eq!(gone(all(5, 10), 5, 5), [0, 1, 2, 3], "one that is too large stays");
        assert_eq!(gone(all(3, u64::MAX / 8), 0, 0), [0, 1]);
        assert_eq!(gone(vec![], 0, 0), [0; 0]);
    }

    #[test]
    fn only_what_the_migration_wrote_is_put_back() {
        let (before, migrated, edited) = ([1; 32], [2; 32], [3; 32]);
        assert_eq!(put_back(Some(&migrated), &migrated, &before), PutBack::Restore);
        assert_eq!(put_back(Some(&edited), &migrated, &before), PutBack::Keep);
        assert_eq!(put_back(Some(&before), &migrated, &before), PutBack::Same);
        assert_eq!(put_back(None, &migrated, &before), PutBack::Keep);
    }
}
