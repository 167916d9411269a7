//! `publish`: the static tree.
//!
//! ```text
//! <out>/targets/<product>/<version>/<os>-<arch>/<sha256>.<file>
//! <out>/metadata/N.targets.json N.<role>.json N.snapshot.json      never change
//! <out>/metadata/N.root.json                                       every version, for ever
//! <out>/metadata/timestamp.json                                    replaced last
//! ```
//!
//! The order is the safety: until the last rename a client sees the old timestamp, which names files that are all still
//! there. The whole tree is checked as a client would before that rename.

use std::path::Path;

use super::failure::{Failure, Result};
use super::files;
use super::json::{self, Node};
use super::metadata::{Listing, ROOT, SNAPSHOT, TIMESTAMP, Targets, read_header};
use super::repo::{METADATA_MAX, Repo, consistent_path};
use super::state::{RoleState, kind};
use super::verify::{self, Depth, Report};
use crate::core::hex;
use crate::core::release::TargetPath;
use crate::core::time;
use crate::io::medium::Medium;

/// A metadata file of the tree.
pub struct Document {
    /// Its role.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a publication consists of.
pub struct Plan {
    /// Every root version, rising.
    pub roots: Vec<Document>,
    /// Targets roles, then the snapshot.
    pub documents: Vec<Document>,
    /// The timestamp.
    pub timestamp: Document,
    /// Artifacts that the roles list.
    pub artifacts: Vec<(TargetPath, super::metadata::Target)>,
    /// Drafts that stay back, with what they wait for.
    pub held_back: Vec<String>,
}

/// Collects what the timestamp's draft describes. Does not write.
pub fn plan(repo: &Repo, now: u64) -> Result<Plan> {
    let states = RoleState::all(repo)?;
    let held_back: Vec<String> = states.iter().filter_map(RoleState::waiting_on).collect();
    let timestamp = states.iter().find(|s| s.role == TIMESTAMP).filter(|s| s.is_complete());
    let Some(state) = timestamp.filter(|s| held_back.is_empty() || !s.is_published) else {
        let text = format!("nothing can be published: {}", held_back.join("; "));
        return Err(Failure::new("threshold", text));
    };
    let Some((envelope, stamp)) = repo.listing(TIMESTAMP)? else {
        return Err(Failure::new("missing_file", "there is no timestamp; run 'sign'"));
    };
    let timestamp = Document { role: TIMESTAMP.into(), version: state.version, bytes: envelope.bytes() };
    not_expired(&timestamp, now)?;
    let mut documents = Vec::new();
    let mut artifacts = Vec::new();
    let snapshot = described(repo, SNAPSHOT, &stamp)?;
    not_expired(&snapshot, now)?;
    let listing = Listing::read(&Node::top(&signed(&snapshot)?, SNAPSHOT), SNAPSHOT)?;
    for file in listing.meta.keys() {
        let document = described(repo, file.strip_suffix(".json").unwrap_or(file), &listing)?;
        not_expired(&document, now)?;
        for (path, target) in Targets::read(&Node::top(&signed(&document)?, &document.role))?.targets {
            let path = path.parse().map_err(|e| Failure::new("bad_name", e))?;
            artifacts.push((path, target));
        }
        documents.push(document);
    }
    documents.push(snapshot);
    let roots = roots(repo)?;
    roots.last().map_or(Ok(()), |newest| not_expired(newest, now))?;
    Ok(Plan { roots, documents, timestamp, artifacts, held_back })
}

fn roots(repo: &Repo) -> Result<Vec<Document>> {
    let newest = repo.effective_root()?.version;
    let draft = RoleState::look(repo, ROOT)?;
    let mut out = Vec::new();
    for version in 1..=newest {
        let bytes = match repo.published_bytes(ROOT, version)? {
            Some(bytes) => bytes,
            None if draft.version == version && draft.is_complete() => repo.root()?.0.bytes(),
            None => {
                return Err(Failure::new(
                    "missing_file",
                    format!("published/{version}.root.json is missing; restore it: devices need every root"),
                ));
            }
        };
        out.push(Document { role: ROOT.into(), version, bytes });
    }
    Ok(out)
}

fn described(repo: &Repo, role: &str, by: &Listing) -> Result<Document> {
    let Some(meta) = by.meta.get(&format!("{role}.json")) else {
        return Err(Failure::new("broken_file", format!("no entry for {role}.json; run 'sign' again")));
    };
    Ok(Document { role: role.into(), version: meta.version, bytes: repo.described(role, meta)? })
}

fn signed(document: &Document) -> Result<miniserde::json::Value> {
    Ok(super::envelope::Envelope::parse(&document.bytes, &document.role)?.signed)
}

fn not_expired(document: &Document, now: u64) -> Result<()> {
    let (_, expires) = read_header(&Node::top(&signed(document)?, &document.role), kind(&document.role))?;
    if expires <= now {
        let (role, version) = (&document.role, document.version);
        let text = format!("{role} version {version} expired on {}; run 'sign --renew --role {role}'", time::format(expires));
        return Err(Failure::new("expired", text));
    }
    Ok(())
}

/// What changed in the tree.
#[derive(Default)]
pub struct Outcome {
    /// Files that were new.
    pub written: u64,
    /// Files that were there already.
    pub kept: u64,
}

impl Outcome {
    fn count(&mut self, is_new: bool) {
        if is_new { self.written += 1 } else { self.kept += 1 }
    }
}

/// Writes the tree. Repeating it after an interruption completes it.
pub fn publish(repo: &Repo, plan: &Plan, out: &Path, allow_gap: bool, now: u64) -> Result<Outcome> {
    not_older_than(out, plan.timestamp.version)?;
    if !allow_gap {
        no_gap(plan, out, now)?;
    }
    let everything = plan.roots.iter().chain(&plan.documents).chain([&plan.timestamp]);
    for document in everything {
        repo.record(&document.role, document.version, &document.bytes)?;
    }
    if let Some(newest) = plan.roots.last() {
        repo.save_root(&newest.bytes)?;
    }
    let mut depth = Depth::Metadata;
    let mut outcome = Outcome::default();
    let metadata = out.join("metadata");
    files::make_folder(&metadata, false)?;
    // Artifacts are written before the snapshot that leads to them. So a renewed timestamp needs no artifact at all, and
    // whoever renews it every day needs no copy of them.
    let snapshot = plan.documents.last().map(|s| metadata.join(format!("{}.{SNAPSHOT}.json", s.version)));
    if snapshot.map(|path| files::read_if_there(&path, METADATA_MAX)).transpose()?.flatten().is_none() {
        depth = Depth::Files;
        for (path, target) in &plan.artifacts {
            outcome.count(copy_artifact(repo, path, target, out)?);
        }
    }
    for document in &plan.documents {
        outcome.count(write_document(&metadata, document)?);
    }
    verify_before(plan, out, depth, now)?;
    for document in &plan.roots {
        outcome.count(write_document(&metadata, document)?);
    }
    let path = metadata.join("timestamp.json");
    let is_new = files::read_if_there(&path, METADATA_MAX)?.as_ref() != Some(&plan.timestamp.bytes);
    if is_new {
        files::write(&path, &plan.timestamp.bytes, files::PUBLIC)?;
    }
    outcome.count(is_new);
    Ok(outcome)
}

fn file_name(document: &Document) -> String {
    format!("{}.{}.json", document.version, document.role)
}

fn write_document(metadata: &Path, document: &Document) -> Result<bool> {
    files::write_once(&metadata.join(file_name(document)), &document.bytes, files::PUBLIC)
}

/// Checks the tree as it will be, before a device can see it.
fn verify_before(plan: &Plan, out: &Path, depth: Depth, now: u64) -> Result<()> {
    let report = Overlay { plan, out, roots: true, timestamp: true }.walk(depth, now)?;
    match report.failures().first() {
        None => Ok(()),
        Some(refusal) => {
            let text = format!("a device would refuse the new tree, so timestamp.json was left as it is: {refusal}");
            Err(Failure::new("would_be_refused", text))
        }
    }
}

/// A tree that is newer than this repository means that the repository folder was restored from an old backup, or that two
/// people publish: going on would serve clients a rollback.
fn not_older_than(out: &Path, version: u64) -> Result<()> {
    let path = out.join("metadata/timestamp.json");
    let Some(bytes) = files::read_if_there(&path, METADATA_MAX)? else { return Ok(()) };
    let name = path.display().to_string();
    let value = json::parse(&bytes, &name)?;
    let there = Node::top(&value, &name).field("signed")?.field("version")?.number()?;
    if there > version {
        let text = format!(
            "{name}: has version {there}, this repository would publish {version}; clients would refuse it. Use the newest copy of the repository folder"
        );
        return Err(Failure::new("rollback", text));
    }
    Ok(())
}

/// A new root is readable before the timestamp is replaced: in between, devices check the old files by the new keys.
fn no_gap(plan: &Plan, out: &Path, now: u64) -> Result<()> {
    let has = |name: &str| Ok(files::read_if_there(&out.join("metadata").join(name), METADATA_MAX)?.is_some());
    let Some(newest) = plan.roots.last() else { return Ok(()) };
    if !has("timestamp.json")? || has(&file_name(newest))? {
        return Ok(());
    }
    // What devices refuse already (it expired) does not get worse.
    let before = Overlay { plan, out, roots: false, timestamp: false };
    if !before.walk(Depth::Metadata, now)?.failures().is_empty() {
        return Ok(());
    }
    let between = Overlay { plan, out, roots: true, timestamp: false };
    match between.walk(Depth::Metadata, now)?.failures().first() {
        None => Ok(()),
        Some(refusal) => {
            let (version, role) = (newest.version, &refusal.role);
            let text = format!(
                "under root version {version} devices would refuse what is published until the new timestamp is there: {refusal}. Publish \
                 {role} signed by a key of both roots first ('sign --renew --role {role}' before the root that removes keys), or accept \
                 the gap with --allow-gap"
            );
            Err(Failure::new("gap", text))
        }
    }
}

/// The tree as devices will see it at some moment of the publication.
struct Overlay<'a> {
    plan: &'a Plan,
    out: &'a Path,
    /// The plan's roots are there already.
    roots: bool,
    /// The plan's timestamp is there already.
    timestamp: bool,
}

impl Overlay<'_> {
    fn walk(&self, depth: Depth, now: u64) -> Result<Report> {
        let oldest = self.plan.roots.first().map_or(&[][..], |r| &r.bytes);
        verify::walk(oldest, &Medium::Folder(self.out.into()), depth, now, &|wanted| {
            let planned = self.plan.roots.iter().find(|r| self.roots && file_name(r) == wanted.name);
            match (planned, wanted.name.as_str()) {
                (Some(root), _) => Ok(Some(root.bytes.clone())),
                (None, "timestamp.json") if self.timestamp => Ok(Some(self.plan.timestamp.bytes.clone())),
                _ => verify::from_tree(self.out, wanted),
            }
        })
    }
}

fn copy_artifact(repo: &Repo, path: &TargetPath, target: &super::metadata::Target, out: &Path) -> Result<bool> {
    let from = repo.artifact(path, &target.sha256);
    let bytes = files::read(&from, target.length).map_err(|e| match e.code {
        "too_large" => changed(&from),
        _ => e,
    })?;
    if bytes.len() as u64 != target.length || hex::sha256(&bytes) != target.sha256 {
        return Err(changed(&from));
    }
    files::write_once(&out.join("targets").join(consistent_path(path, &target.sha256)), &bytes, files::PUBLIC)
}

fn changed(path: &Path) -> Failure {
    Failure::new("artifact_changed", format!("{}: changed after 'add'; restore it, or withdraw it and add it again", path.display()))
}
