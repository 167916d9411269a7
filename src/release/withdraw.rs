//! `withdraw`: a release that must not be installed any more.
//!
//! It leaves the list, and why is signed in its place: devices drop staged copies, Directors cancel its orders and report who
//! runs it. Who runs it keeps running; its bytes are not published again unless somebody says so.

use std::collections::BTreeSet;

use super::add::Book;
use super::failure::{Failure, Result};
use super::metadata::Withdrawal;
use super::repo::Repo;
use crate::core::release::TargetPath;
use crate::core::version::Version;

/// Longest reason, bytes: it travels with every refresh of a device, and fits into one line of a report.
const REASON_MAX: usize = 200;

/// Which files.
#[derive(Default)]
pub struct Which {
    /// Versions, or paths as `list` shows them.
    pub words: Vec<String>,
    /// Only of this product.
    pub product: Option<String>,
    /// Only for this system.
    pub os: Option<String>,
    /// Only for this architecture.
    pub arch: Option<String>,
}

impl Which {
    fn takes(&self, path: &TargetPath) -> bool {
        let fits = |wish: &Option<String>, found: &str| wish.as_ref().is_none_or(|w| w == found);
        let word = |w: &String| *w == path.version.to_string() || *w == path.to_string();
        let platform = &path.platform;
        self.words.iter().any(word)
            && fits(&self.product, &path.product)
            && fits(&self.os, &platform.os)
            && fits(&self.arch, &platform.arch)
    }

    /// Paths of this list that are meant; every word must mean one.
    fn pick<'a>(&self, all: impl Iterator<Item = &'a String>) -> Result<BTreeSet<String>> {
        let paths: Vec<TargetPath> = all.filter_map(|path| path.parse().ok()).filter(|path| self.takes(path)).collect();
        for word in &self.words {
            if word.parse::<Version>().is_err() && word.parse::<TargetPath>().is_err() {
                return Err(Failure::usage(format!("{word}: neither a version nor a path; 'list' shows both")));
            }
            if !paths.iter().any(|p| *word == p.version.to_string() || *word == p.to_string()) {
                return Err(Failure::new("unknown_path", format!("{word}: no role lists it; 'list' shows the paths")));
            }
        }
        Ok(paths.iter().map(TargetPath::to_string).collect())
    }
}

/// Takes files back. Answers their paths and the roles that have to be signed.
pub fn withdraw(repo: &Repo, which: &Which, reason: &str, now: u64) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    if reason.trim().is_empty() || reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
        return Err(Failure::usage(format!("--reason: expected one line of 1 to {REASON_MAX} bytes; operators read it")));
    }
    let mut book = Book::open(repo, now)?;
    let paths = which.pick(book.roles.values().flat_map(|role| role.targets.keys()))?;
    let mut roles = BTreeSet::new();
    for name in book.roles.keys().cloned().collect::<Vec<_>>() {
        for path in &paths {
            let Some(target) = book.roles[&name].targets.get(path).cloned() else { continue };
            let role = book.edit(&name);
            role.targets.remove(path);
            role.withdrawn.insert(path.clone(), Withdrawal { reason: reason.to_string(), sha256: target.sha256 });
            roles.insert(name.clone());
        }
    }
    book.save()?;
    Ok((paths, roles))
}

/// Takes the notes of earlier withdrawals out, to make room. The repository itself still knows the bytes.
pub fn forget(repo: &Repo, which: &Which, now: u64) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let mut book = Book::open(repo, now)?;
    let paths = which.pick(book.roles.values().flat_map(|role| role.withdrawn.keys()))?;
    let mut roles = BTreeSet::new();
    for name in book.roles.keys().cloned().collect::<Vec<_>>() {
        if book.roles[&name].withdrawn.keys().any(|path| paths.contains(path)) {
            book.edit(&name).withdrawn.retain(|path, _| !paths.contains(path));
            roles.insert(name);
        }
    }
    book.save()?;
    Ok((paths, roles))
}
