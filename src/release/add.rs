//! `add`: what the delegated roles list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ed25519_compact::KeyPair;

use super::envelope::{Envelope, Public, keyid};
use super::failure::{Failure, Result};
use super::files;
use super::init::named;
use super::metadata::{Delegation, Holders, TARGETS, Target, Targets};
use super::package;
use super::repo::Repo;
use super::ring::{BUILD, Ring};
use crate::core::hex::{self, Sha256};
use crate::core::notes;
use crate::core::release::{Platform, TargetPath, build_prefix, role_name};
use crate::core::trust::{ROLES_MAX, TARGETS_MAX};
use crate::core::version::Version;

/// Largest artifact. It is held in memory whole: length, hash and signature come from the same bytes, and the signature's
/// nonce from key and message, so no random source can leak the build key.
pub(super) const ARTIFACT_MAX: u64 = 512 * 1024 * 1024;
/// Room for signatures in a metadata file: sixteen of 220 bytes.
const SIGNATURES_SIZE: u64 = 4 * 1024;

/// One file to add.
pub struct Input {
    /// Where it lies.
    pub file: PathBuf,
    /// What it becomes.
    pub path: TargetPath,
    /// What its build's `SHA256SUMS` says of it.
    pub sha256: Option<Sha256>,
}

/// What is said about all files of one `add`.
pub struct Facts {
    /// Lowest version that may be running when it is installed.
    pub min_version: Option<Version>,
    /// Security counter; absent = as high as the role's highest.
    pub counter: Option<u64>,
    /// Bytes that were withdrawn may be listed again.
    pub reinstate: bool,
    /// An agent may need a loader of its devices.
    pub allow_dynamic: bool,
    /// Somebody knows better than [`super::inspect::check`].
    pub unchecked: bool,
    /// Release notes of every version that is added.
    pub notes: Option<Vec<String>>,
}

/// One line of the answer.
pub struct Added {
    /// Target path.
    pub path: String,
    /// Role that lists it.
    pub role: String,
    /// The signed facts.
    pub target: Target,
    /// False: it was listed already, nothing changed.
    pub is_new: bool,
}

/// What a role's files are called.
fn role_pattern(product: &str, platform: &Platform) -> String {
    format!("{product}/*/{platform}/*")
}

/// The targets roles while they are edited; written once at the end, so that a refused file changes nothing.
pub(super) struct Book<'a> {
    repo: &'a Repo,
    now: u64,
    pub(super) roles: BTreeMap<String, Targets>,
    changed: BTreeSet<String>,
}

impl<'a> Book<'a> {
    pub(super) fn open(repo: &'a Repo, now: u64) -> Result<Book<'a>> {
        let mut roles = BTreeMap::from([(TARGETS.to_string(), repo.targets(TARGETS)?.1)]);
        let names: Vec<String> = roles[TARGETS].roles.iter().map(|r| r.name.clone()).collect();
        for name in names {
            let (_, role) = repo.targets(&name)?;
            roles.insert(name, role);
        }
        Ok(Book { repo, now, roles, changed: BTreeSet::new() })
    }

    pub(super) fn edit(&mut self, role: &str) -> &mut Targets {
        self.changed.insert(role.to_string());
        self.roles.entry(role.to_string()).or_default()
    }

    /// Makes the delegated role of a product and platform if there is none.
    fn delegate(&mut self, ring: &mut Ring, product: &str, platform: &Platform) -> Result<String> {
        self.delegate_to(ring, role_name(product, platform), role_pattern(product, platform), product)
    }

    fn delegate_to(&mut self, ring: &mut Ring, name: String, pattern: String, product: &str) -> Result<String> {
        if let Some(role) = self.roles[TARGETS].roles.iter().find(|r| r.name == name) {
            if role.paths != [pattern.clone()] {
                let text = format!("role '{name}' is for {}; product '{product}' needs another name", role.paths.join(", "));
                return Err(Failure::new("role_taken", text));
            }
            return Ok(name);
        }
        if self.roles[TARGETS].roles.len() >= ROLES_MAX {
            return Err(Failure::new("too_many_roles", format!("there are {ROLES_MAX} roles already; devices ask no more")));
        }
        let settings = &self.repo.settings;
        let made = named(ring.make(&name, settings.delegated_keys, &BTreeMap::new())?);
        let holders = Holders { keyids: made.keys().cloned().collect(), threshold: settings.delegated_threshold };
        let targets = self.edit(TARGETS);
        targets.keys.extend(made);
        targets.roles.push(Delegation { name: name.clone(), holders, paths: vec![pattern] });
        targets.roles.sort_by(|a, b| a.name.cmp(&b.name));
        self.edit(&name);
        Ok(name)
    }

    /// The new drafts, if devices could read them.
    fn drafts(&self) -> Result<Vec<(&String, Envelope)>> {
        let mut drafts = Vec::new();
        for name in &self.changed {
            let mut role = self.roles[name].clone();
            role.version = self.repo.next_version(name)?;
            role.expires = self.repo.settings.expires(name, self.now);
            let draft = Envelope::unsigned(role.to_value());
            if draft.bytes().len() as u64 + SIGNATURES_SIZE > TARGETS_MAX {
                let text = format!(
                    "role '{name}' would be longer than the {TARGETS_MAX} bytes that a device reads; withdraw old releases, then forget them ('withdraw --forget')"
                );
                return Err(Failure::new("role_full", text));
            }
            drafts.push((name, draft));
        }
        Ok(drafts)
    }

    pub(super) fn save(&self) -> Result<()> {
        self.drafts()?.iter().try_for_each(|(name, draft)| self.repo.save_draft(name, draft))
    }
}

/// A device looks for its program under one name only; `vmetric-agent-2.5.0` would be signed, listed, and never found.
fn well_named(path: &TargetPath) -> Result<()> {
    let program = path.platform.program(&path.product);
    let versioned = path.file.starts_with(&format!("{}-", path.product));
    if versioned || path.file == path.product && path.file != program {
        let text = format!("{path}: devices on {} look for a file called {program}; rename it", path.platform);
        return Err(Failure::new("file_name", text));
    }
    Ok(())
}

/// Adds files: all of them or none.
pub fn add(repo: &Repo, ring: &mut Ring, inputs: &[Input], facts: &Facts, now: u64) -> Result<Vec<Added>> {
    let (_, root) = repo.root()?;
    let key = ring.pairs(BUILD, &root.build_keys)?.into_iter().next().ok_or_else(|| {
        let text = "no build key is at hand; give its folder with --keys, or its seed in VMETRIC_KEY_BUILD";
        Failure::new("no_keys", text)
    })?;
    let mut book = Book::open(repo, now)?;
    let (mut histories, mut out) = (BTreeMap::new(), Vec::new());
    for input in inputs {
        if facts.min_version.as_ref().is_some_and(|min| *min >= input.path.version) {
            let text = format!("{}: --min-version must be lower than the version itself; it says from where one may update", input.path);
            return Err(Failure::new("min_version", text));
        }
        well_named(&input.path)?;
        // Before a key is made for its role: what is refused changes nothing.
        let mut target = describe(input, facts, &key)?;
        let role = book.delegate(ring, &input.path.product, &input.path.platform)?;
        if !histories.contains_key(&role) {
            histories.insert(role.clone(), repo.history(&role)?);
        }
        let history = &histories[&role];
        target.counter = counter(history, &book.roles[&role], facts.counter, &role)?;
        let path = input.path.to_string();
        package::alone(&input.path, book.roles[&role].targets.keys())?;
        let is_new = is_new(history, &book.roles[&role], &path, &target)?;
        if is_new {
            not_withdrawn(&histories, &book.roles, &path, &target, facts.reinstate)?;
            let edited = book.edit(&role);
            edited.withdrawn.remove(&path);
            edited.targets.insert(path.clone(), target.clone());
        }
        out.push(Added { path, role, target, is_new });
    }
    if let Some(text) = &facts.notes {
        let role = book.delegate_to(ring, notes::ROLE.into(), notes::PATTERN.into(), notes::ROLE)?;
        for input in inputs {
            let mut all = book.roles[&role].notes.clone();
            if notes::put(&mut all, &input.path.product, &input.path.version, text) {
                book.edit(&role).notes = all;
            }
        }
    }
    book.drafts()?;
    for (input, added) in inputs.iter().zip(&out).filter(|(_, added)| added.is_new) {
        stage(repo, input, &added.target)?;
    }
    book.save()?;
    Ok(out)
}

/// Copies an artifact into the repository. It is read a second time, so that nothing is copied before every file passed.
fn stage(repo: &Repo, input: &Input, target: &Target) -> Result<()> {
    let bytes = files::read(&input.file, ARTIFACT_MAX)?;
    if hex::sha256(&bytes) != target.sha256 {
        return Err(changed(&input.file));
    }
    files::write_once(&repo.artifact(&input.path, &target.sha256), &bytes, files::PUBLIC).map(drop)
}

fn changed(file: &Path) -> Failure {
    Failure::new("changed", format!("{}: changed while it was read; add it when its build is finished", file.display()))
}

/// Reads, checks, hashes and signs one file; its counter is the role's to say.
fn describe(input: &Input, facts: &Facts, key: &KeyPair) -> Result<Target> {
    let path = input.path.to_string();
    let prefix = build_prefix(&path, files::length(&input.file)?);
    let start = prefix.len();
    let message = files::read_after(&input.file, ARTIFACT_MAX, prefix)?;
    let bytes = &message[start..];
    if message[..start] != build_prefix(&path, bytes.len() as u64) {
        return Err(changed(&input.file));
    }
    if bytes.is_empty() {
        return Err(Failure::new("empty_file", format!("{}: is empty; a release needs its bytes", input.file.display())));
    }
    let unpacked = package::check(&input.path, bytes)?;
    if !facts.unchecked {
        super::inspect::check(&input.path, bytes, facts.allow_dynamic)?;
    }
    let sha256 = hex::sha256(bytes);
    if input.sha256.is_some_and(|built| built != sha256) {
        let text = format!("{}: is not what SHA256SUMS of its build says; build again, or look who changed it", input.file.display());
        return Err(Failure::new("checksum", text));
    }
    Ok(Target {
        length: bytes.len() as u64,
        sha256,
        arch: input.path.platform.arch.clone(),
        os: input.path.platform.os.clone(),
        release: input.path.version.to_string(),
        min_version: facts.min_version.as_ref().map(Version::to_string),
        counter: 0,
        build_keyid: keyid(&key.pk),
        build_sig: *key.sk.sign(&message, None),
        unpacked,
    })
}

/// Gives every listed file whose build key is gone the signature of one that stays.
pub fn sign_again(repo: &Repo, ring: &mut Ring, keys: &BTreeMap<String, Public>, now: u64) -> Result<()> {
    let mut book = Book::open(repo, now)?;
    let gone = |t: &Target| !keys.contains_key(&t.build_keyid);
    let listed =
        book.roles.iter().flat_map(|(role, t)| t.targets.iter().map(move |(path, target)| (role.clone(), path.clone(), target.clone())));
    let work: Vec<(String, String, Target)> = listed.filter(|(_, _, target)| gone(target)).collect();
    if work.is_empty() {
        return Ok(());
    }
    let key = ring.pairs(BUILD, keys)?.into_iter().next().ok_or_else(|| {
        let text = "files are listed that only a removed build key has signed, and no other build key is at hand to sign them again";
        Failure::new("no_keys", text)
    })?;
    for (role, path, mut target) in work {
        let parsed: TargetPath = path.parse().map_err(|e: String| Failure::new("bad_name", e))?;
        let file = repo.artifact(&parsed, &target.sha256);
        let prefix = build_prefix(&path, target.length);
        let start = prefix.len();
        let message = files::read_after(&file, ARTIFACT_MAX, prefix)?;
        if hex::sha256(&message[start..]) != target.sha256 {
            return Err(changed(&file));
        }
        (target.build_keyid, target.build_sig) = (keyid(&key.pk), *key.sk.sign(&message, None));
        book.edit(&role).targets.insert(path, target);
    }
    book.save()
}

/// The counter to use: never below any that this role has ever published or drafted.
fn counter(history: &[Targets], draft: &Targets, wanted: Option<u64>, role: &str) -> Result<u64> {
    let all = history.iter().chain([draft]).flat_map(|t| t.targets.values());
    let highest = all.map(|t| t.counter).max().unwrap_or(0);
    match wanted {
        Some(n) if n < highest => {
            let text =
                format!("--counter {n}: role '{role}' has used {highest} already, and the counter never falls; give {highest} or more");
            Err(Failure::new("falling_counter", text))
        }
        other => Ok(other.unwrap_or(highest)),
    }
}

/// False when the same file is listed already; an error when the path has ever been published as something else.
fn is_new(history: &[Targets], draft: &Targets, path: &str, target: &Target) -> Result<bool> {
    for old in history.iter().filter_map(|t| t.targets.get(path)) {
        if old.sha256 != target.sha256 || old.min_version != target.min_version || old.counter != target.counter {
            let text = format!(
                "{path}: already published with other bytes or facts (sha256 {}); a release never changes, so give the new one a new version",
                hex::encode(&old.sha256)
            );
            return Err(Failure::new("already_published", text));
        }
    }
    Ok(draft.targets.get(path) != Some(target))
}

/// Bytes that were ever taken back come again only if somebody says so, under whatever version.
fn not_withdrawn(
    histories: &BTreeMap<String, Vec<Targets>>,
    drafts: &BTreeMap<String, Targets>,
    path: &str,
    target: &Target,
    reinstate: bool,
) -> Result<()> {
    let all = histories.values().flatten().chain(drafts.values()).flat_map(|t| &t.withdrawn);
    match all.into_iter().find(|(_, w)| w.sha256 == target.sha256).filter(|_| !reinstate) {
        None => Ok(()),
        Some((old, w)) => {
            let text = format!("{path}: these bytes were withdrawn as {old}: {}; publish a corrected file, or say --reinstate", w.reason);
            Err(Failure::new("withdrawn", text))
        }
    }
}

/// Makes the roles of a product's platforms.
pub fn delegate(repo: &Repo, ring: &mut Ring, product: &str, platforms: &[Platform], now: u64) -> Result<Vec<String>> {
    let mut book = Book::open(repo, now)?;
    let names = platforms.iter().map(|platform| book.delegate(ring, product, platform)).collect::<Result<_>>()?;
    book.save()?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_roles() {
        let platform = "linux-amd64".parse().unwrap();
        assert_eq!(role_name("vmetric-agent", &platform), "agent-linux-amd64");
        assert_eq!(role_name("probe", &platform), "probe-linux-amd64");
    }
}
