//! The mirror: a verifying client of the release plane that serves on only what it has verified itself.
//!
//! Order of a refresh: metadata is fetched and verified (trust store), every artifact is fetched and verified (length,
//! hash, build signature) into the release folder, then the metadata files are replaced, `timestamp.json` last. So an agent
//! that reads at any moment finds every part that the timestamp leads to. Roots are kept for ever: a device of any factory
//! date walks up from its own.
//!
//! Everything here blocks and runs on a helper thread; the result is an index that replaces the one in use at once.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::fetch::{Body, fetch, part, verify};
use self::origin::Origin;
use super::allowance::Allowance;
use super::tree::{Entry, Tree};
use crate::core::hex::{self, Sha256};
use crate::core::keep::{Facts, Kept, keep};
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::core::time;
use crate::core::trust::{Goal, Now, ROOT_MAX, TOP_LEVEL, Trusted};
use crate::io::fs::{make_folder, read_limited, write_durable};
use crate::io::medium::Medium;
use crate::io::tls::Pin;
use crate::io::trust_store::TrustStore;

mod fetch;
mod origin;

/// Time between two refreshes.
pub const EVERY: Duration = Duration::from_secs(60);
/// Mode of served files.
const MODE: u32 = 0o644;

/// Where releases come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder with `metadata/` and `targets/`.
    Folder(PathBuf),
    /// An `https://` URL of such a folder, and the pins of its server.
    Url(String, Vec<Pin>),
    /// No link: releases are brought by people.
    Nowhere,
}

/// What a refresh works on.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Where releases come from.
    pub source: Source,
    /// `<state>/release`.
    pub folder: PathBuf,
    /// `<state>/trust`.
    pub trust: PathBuf,
    /// The root metadata to begin with.
    pub root: Vec<u8>,
    /// Build time of this program: the clock's floor.
    pub floor: u64,
    /// How much is kept, and what is needed at this site.
    pub facts: Facts,
    /// What it may fetch over a link; `None` = as much as there is.
    pub allowance: Option<Allowance>,
    /// How it names itself to the source.
    pub user_agent: &'static str,
}

/// What a refresh found.
#[derive(Debug)]
pub struct Renewed {
    /// What is served from now on.
    pub tree: Tree,
    /// Something is different from before.
    pub changed: bool,
    /// What had to be left out, each with its reason.
    pub left_out: Vec<Reason>,
    /// Artifacts that the metadata name and an imported bundle was not made to hold.
    pub absent: Vec<String>,
    /// Roles that were accepted although expired, with the date.
    pub expired: Vec<String>,
}

impl Mirror {
    /// The metadata that is on the disk, verified, without any artifact: enough to serve agents while [`Self::from_disk`]
    /// reads and verifies the rest.
    ///
    /// # Errors
    /// The given root is none.
    pub fn metadata_on_disk(&self) -> Result<Tree, Reason> {
        let (_, trusted) = TrustStore::open(&self.trust, &self.root)?;
        let mut tree = Tree { checking: true, ..bare(&trusted, 0) };
        self.add_metadata(&trusted, &Tree::default(), &mut tree);
        Ok(tree)
    }

    /// What is on the disk already, verified again; used until the first refresh succeeds.
    ///
    /// # Errors
    /// The given root is none.
    pub fn from_disk(&self) -> Result<Renewed, Reason> {
        let (_, trusted) = TrustStore::open(&self.trust, &self.root)?;
        let mut nobody = |_: &str, _: u64, _: u64| Err(Reason::new("not_fetched", "only what is on the disk is looked at"));
        Ok(self.build(&trusted, &Tree::default(), 0, &mut nobody))
    }

    /// Fetches what is new. `known` is what is served now: its artifacts are not read again.
    ///
    /// # Errors
    /// The source did not answer, or a check of the metadata did not hold; what is served stays.
    pub fn refresh(&self, known: &Tree, now: u64) -> Result<Renewed, Reason> {
        self.renew(Origin::new(&self.source, self.user_agent)?, 0, known, now)
    }

    /// Takes what a person brought: a bundle or a tree, checked as a source is. Expired timestamps and snapshots only if that
    /// is accepted; signatures, versions and hashes always.
    ///
    /// # Errors
    /// A code of [`crate::core::bundle`] or of the trust checks; what is served stays.
    pub fn import(&self, file: &Path, accept_expired: bool, known: &Tree, now: u64) -> Result<Renewed, Reason> {
        let medium = Medium::open(file)?;
        // A person brings it: all of it is wanted, as far as there is room.
        let mirror = Mirror { facts: Facts { fetched: None, ..self.facts.clone() }, allowance: None, ..self.clone() };
        mirror.renew(Origin::Medium(medium), if accept_expired { u64::MAX } else { 0 }, known, now)
    }

    fn renew(&self, mut origin: Origin, offline_grace_s: u64, known: &Tree, now: u64) -> Result<Renewed, Reason> {
        make_folder(&self.folder.join("metadata")).map_err(|e| unwritable(&self.folder, &e))?;
        let (mut store, trusted) = TrustStore::open(&self.trust, &self.root)?;
        for reason in store.take_left_out() {
            log::warn!("trust store: {reason}");
        }
        let time = Now { unix: now, floor: self.floor, offline_grace_s };
        let mut fetch = |name: &str, limit: u64| origin.read(&format!("metadata/{name}"), limit);
        let (trusted, outcome) = store.refresh(trusted, time, Goal::All, &mut fetch);
        let outcome = outcome.map_err(Reason::from)?;
        let mut open = |path: &str, length: u64, from: u64| origin.open(path, length, from);
        let mut renewed = self.build(&trusted, known, now, &mut open);
        renewed.left_out.extend(outcome.left_out.into_iter().map(Reason::from));
        renewed.expired = expired(&trusted, now.max(self.floor));
        self.publish(&trusted, &mut renewed, &mut origin)?;
        if renewed.changed {
            self.sweep(&trusted, &renewed.tree);
        }
        Ok(renewed)
    }

    /// Verifies (and fetches, where missing) every artifact and makes the index.
    fn build(&self, trusted: &Trusted, known: &Tree, now: u64, open: &mut Open<'_>) -> Renewed {
        let mut tree = bare(trusted, now);
        let (mut left_out, mut absent) = (Vec::new(), Vec::new());
        let listed: Vec<Artifact> = trusted.artifacts().filter_map(|(_, artifact)| artifact.ok()).collect();
        let kept = keep(&listed, &self.facts, &|artifact| self.file_of(artifact).is_file());
        self.drop_files(&listed, &kept);
        left_out.extend(kept.told.iter().cloned());
        for (path, artifact) in trusted.artifacts() {
            let artifact = match artifact {
                Ok(artifact) => artifact,
                Err(refusal) => {
                    left_out.push(Reason::from(refusal).of(&path));
                    continue;
                }
            };
            let done = match (kept.held_back.contains(&path), kept.dropped.contains(&path)) {
                (true, _) => Err(Reason::new("not_needed", "nobody here may take it: mode manual, or another version is named")),
                (_, true) => Err(Reason::new("mirror_full", "limits.mirror_bytes has no place for it")),
                _ => self.obtain(trusted, &artifact, known, open),
            };
            match done {
                Ok(entry) => {
                    tree.entries.insert(format!("targets/{}", consistent(&path, &entry.sha256)), entry.clone());
                    tree.entries.insert(format!("targets/{path}"), entry);
                    tree.releases.artifacts.push(artifact);
                }
                Err(reason) => {
                    match reason.code.as_ref() {
                        "not_needed" | "mirror_full" => {}
                        "not_in_bundle" => absent.push(path.clone()),
                        _ => left_out.push(Reason::received(reason.code.to_string(), format!("{path}: {}", reason.detail))),
                    }
                    if self.shows_what_is_away() {
                        tree.releases.artifacts.push(artifact);
                        tree.releases.away.insert(path, reason);
                    }
                }
            }
        }
        // Bytes that are also listed (for another platform) are not taken back.
        let listed: HashSet<Sha256> = tree.releases.artifacts.iter().map(|a| a.sha256).collect();
        tree.releases.withdrawn = trusted.withdrawn().into_iter().filter(|w| !listed.contains(&w.sha256)).collect();
        tree.releases.notes = trusted.notes();
        self.add_metadata(trusted, known, &mut tree);
        let lost = known.releases.artifacts.iter().any(|a| !listed.contains(&a.sha256));
        let more = tree.releases.artifacts.len() != known.releases.artifacts.len() || tree.releases.away.len() != known.releases.away.len();
        let changed = tree.timestamp_version != known.timestamp_version || lost || more;
        Renewed { tree, changed, left_out, absent, expired: Vec::new() }
    }

    /// Whether what is listed and not here can come by an order: not where people bring the files.
    fn shows_what_is_away(&self) -> bool {
        self.facts.fetched.is_some() && !matches!(self.source, Source::Nowhere)
    }

    /// Where an artifact's file is, or would be.
    fn file_of(&self, artifact: &Artifact) -> PathBuf {
        self.folder.join("targets").join(consistent(&artifact.path.to_string(), &hex::encode(&artifact.sha256)))
    }

    /// Removes what has no place, before anything is fetched: the limit holds at every moment. Bytes that something else
    /// is made of, too, stay.
    fn drop_files(&self, listed: &[Artifact], kept: &Kept) {
        for artifact in listed.iter().filter(|a| kept.dropped.contains(&a.path.to_string())) {
            let file = self.file_of(artifact);
            for file in [part(&file), file] {
                if file.is_file() {
                    log::info!("removing {}: limits.mirror_bytes has no place for it", file.display());
                    let _ = fs::remove_file(&file);
                }
            }
        }
    }

    /// Metadata that is on the disk and verified: the current files, and what was served before (an agent may be between
    /// two of its requests).
    fn add_metadata(&self, trusted: &Trusted, known: &Tree, tree: &mut Tree) {
        let before = known.entries.iter().filter(|(name, _)| name.starts_with("metadata/"));
        tree.entries.extend(before.map(|(name, entry)| (name.clone(), entry.clone())));
        for (name, bytes) in trusted.files() {
            self.index(&name, bytes, tree);
        }
        for (name, bytes) in self.roots(trusted) {
            self.index(&name, &bytes, tree);
        }
    }

    fn index(&self, name: &str, bytes: &[u8], tree: &mut Tree) {
        let file = self.folder.join("metadata").join(name);
        // Only what is there, byte for byte: before the first refresh of a new folder nothing is.
        if read_limited(&file, bytes.len() as u64).ok().flatten().as_deref() == Some(bytes) {
            let entry = Entry { file, length: bytes.len() as u64, sha256: hex::encode(&hex::sha256(bytes)), artifact: false };
            tree.entries.insert(format!("metadata/{name}"), entry);
        }
    }

    /// The chain of roots on the disk that leads to the trusted one, verified link by link.
    fn roots(&self, trusted: &Trusted) -> Vec<(String, Vec<u8>)> {
        let read = |version: u64| {
            let name = format!("{version}.root.json");
            let bytes = read_limited(&self.folder.join("metadata").join(&name), ROOT_MAX).ok().flatten()?;
            Some((name, bytes))
        };
        let last = trusted.versions()[0];
        let chain: Vec<(String, Vec<u8>)> = (1..=last).filter_map(read).collect();
        if chain.len() as u64 == last && is_chain(&chain, trusted) { chain } else { Vec::new() }
    }

    /// One artifact, verified: the one that is served already, the one on the disk, or a fresh copy.
    fn obtain(&self, trusted: &Trusted, artifact: &Artifact, known: &Tree, open: &mut Open<'_>) -> Result<Entry, Reason> {
        let sha256 = hex::encode(&artifact.sha256);
        let path = consistent(&artifact.path.to_string(), &sha256);
        if let Some(entry) = known.entries.get(&format!("targets/{path}")).filter(|e| e.file.is_file()) {
            return Ok(entry.clone());
        }
        let file = self.folder.join("targets").join(&path);
        let entry = Entry { file: file.clone(), length: artifact.length, sha256, artifact: true };
        if file.is_file() {
            let read = File::open(&file).map_err(|e| unreadable(&file, &e));
            match read.and_then(|f| verify(f, &file, trusted.file_check(artifact)?)) {
                Ok(()) => return Ok(entry),
                Err(reason) => log::warn!("the mirror's copy is not used: {}: {reason}", file.display()),
            }
        }
        let plain = artifact.path.to_string();
        let mut from = |from: u64| {
            open(&path, artifact.length, from).or_else(|first| match first.code.as_ref() {
                "not_fetched" | "not_in_bundle" => Err(first),
                _ => open(&plain, artifact.length, from),
            })
        };
        fetch(&file, artifact.length, &|| Ok(trusted.file_check(artifact)?), &mut from, self.allowance.as_ref())?;
        Ok(entry)
    }

    /// Writes the metadata files, the timestamp last, and puts them into the index.
    fn publish(&self, trusted: &Trusted, renewed: &mut Renewed, origin: &mut Origin) -> Result<(), Reason> {
        let folder = self.folder.join("metadata");
        self.complete_roots(trusted, origin, &folder)?;
        for (name, bytes) in trusted.files() {
            let file = folder.join(&name);
            let there = read_limited(&file, bytes.len() as u64).ok().flatten();
            if there.as_deref() != Some(bytes) {
                write_durable(&file, bytes, MODE).map_err(|e| unwritable(&file, &e))?;
                renewed.changed = true;
            }
        }
        self.add_metadata(trusted, &Tree::default(), &mut renewed.tree);
        Ok(())
    }

    /// Every root from 1 on: a device may be older than the root that this Director began with. What comes from the source
    /// is kept only when the whole chain up to the trusted root holds.
    fn complete_roots(&self, trusted: &Trusted, origin: &mut Origin, folder: &Path) -> Result<(), Reason> {
        if !self.roots(trusted).is_empty() {
            return Ok(());
        }
        let mut chain = Vec::new();
        for version in 1..=trusted.versions()[0] {
            let name = format!("{version}.root.json");
            match origin.read(&format!("metadata/{name}"), ROOT_MAX)? {
                Some(bytes) => chain.push((name, bytes)),
                None => break,
            }
        }
        if !is_chain(&chain, trusted) {
            // Devices of this Director's own root and newer still find their way; this is tried again each time.
            log::warn!("the source's roots from version 1 on do not lead to the trusted one; older devices cannot walk up here");
            return Ok(());
        }
        for (name, bytes) in chain {
            let file = folder.join(name);
            write_durable(&file, &bytes, MODE).map_err(|e| unwritable(&file, &e))?;
        }
        Ok(())
    }

    /// Removes artifacts that no metadata names any more. Who has one open reads it to the end. What is there of one that is
    /// still listed stays: the next refresh goes on with it.
    fn sweep(&self, trusted: &Trusted, tree: &Tree) {
        let begun = |(path, artifact): (String, Result<Artifact, _>)| {
            let sha256 = hex::encode(&artifact.ok()?.sha256);
            Some(part(&self.folder.join("targets").join(consistent(&path, &sha256))))
        };
        let files = tree.entries.values().map(|e| e.file.clone());
        let used: HashSet<PathBuf> = files.chain(trusted.artifacts().filter_map(begun)).collect();
        let mut folders = vec![self.folder.join("targets")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(path),
                    Ok(_) if !used.contains(&path) => {
                        log::info!("removing {}: no release names it", path.display());
                        let _ = fs::remove_file(&path);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A tree without files.
fn bare(trusted: &Trusted, now: u64) -> Tree {
    let [root, timestamp, snapshot, targets] = trusted.versions();
    let (versions, expires) = ([root, snapshot, targets], trusted.expiries());
    Tree { timestamp_version: timestamp, versions, expires, verified_at: now, ..Default::default() }
}

/// Opens an artifact by its path in the tree and its length, at an offset.
type Open<'a> = dyn FnMut(&str, u64, u64) -> Result<Body, Reason> + 'a;

/// Root 1 vouches for itself, each next one is signed by the one before, and the last one is the trusted one.
fn is_chain(chain: &[(String, Vec<u8>)], trusted: &Trusted) -> bool {
    let Some(((_, first), rest)) = chain.split_first() else { return false };
    let Ok(mut walker) = Trusted::bootstrap(first) else { return false };
    let walked = rest.iter().all(|(_, bytes)| walker.restore_root(bytes).is_ok());
    let last = chain.last().map(|(_, bytes)| bytes.as_slice());
    walked && walker.versions()[0] == trusted.versions()[0] && trusted.files().first().map(|(_, bytes)| *bytes) == last
}

/// `dir/<sha256>.<file>`: the name of a target with consistent snapshots (TUF 6.2).
fn consistent(path: &str, sha256: &str) -> String {
    match path.rsplit_once('/') {
        Some((dir, file)) => format!("{dir}/{sha256}.{file}"),
        None => format!("{sha256}.{path}"),
    }
}

/// Roles that would be refused at this time without grace.
fn expired(trusted: &Trusted, now: u64) -> Vec<String> {
    let roles = TOP_LEVEL.into_iter().zip(trusted.expiries());
    roles.filter_map(|(role, at)| Some(format!("{role} ({})", time::format(at.filter(|at| *at <= now)?)))).collect()
}

fn unreadable(path: &Path, e: &io::Error) -> Reason {
    Reason::new("mirror_unreadable", format!("{}: {e}", path.display()))
}

fn unwritable(path: &Path, e: &io::Error) -> Reason {
    Reason::new("mirror_unwritable", format!("{}: {e}; check space and permissions of the state folder", path.display()))
}
