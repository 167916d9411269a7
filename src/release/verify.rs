//! `verify`: a published tree through the eyes of a device. The same code that devices run ([`crate::core::trust`]), with
//! a folder in place of the network.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use miniserde::json::Value;

use super::cli::Answer;
use super::failure::{Failure, Result};
use super::files;
use super::json::{list, number, object, text};
use super::package;
use super::repo::{METADATA_MAX, consistent_path};
use super::show::table;
use crate::core::hex;
use crate::core::release::Artifact;
use crate::core::time;
use crate::core::trust::{Fetch, Fetched, Goal, Now, Outcome, ROOT_MAX, Refresh, Refusal, Trusted, Want};
use crate::io::medium::{Bundle, Medium};

/// One artifact that the tree lists, and what is wrong with it.
pub struct Found {
    /// Its path.
    pub path: String,
    /// The signed facts; without them, the reason is in `wrong`.
    pub artifact: Option<Artifact>,
    /// Why a device would refuse it.
    pub wrong: Option<Refusal>,
    /// A bundle that was made for other versions or platforms does not have it.
    pub absent: bool,
}

/// Code of a file that a bundle does not hold (see [`Medium::part`]).
const ABSENT: &str = "not_in_bundle";

/// What a device would make of a tree.
pub struct Report {
    /// Trusted versions: root, timestamp, snapshot, targets.
    pub versions: [u64; 4],
    /// When each of them expires.
    pub expiries: [Option<u64>; 4],
    /// Metadata that was refused.
    pub refused: Vec<Refusal>,
    /// Every artifact.
    pub found: Vec<Found>,
    /// What is trusted after the walk.
    pub trusted: Trusted,
}

/// Which files of a tree to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Metadata only.
    Metadata,
    /// Every artifact as well.
    Files,
}

/// Walks a tree from the trusted root. `fetch` answers a metadata file by its name.
pub fn walk(root: &[u8], tree: &Medium, depth: Depth, now: u64, fetch: &dyn Fn(&Fetch) -> Result<Option<Vec<u8>>>) -> Result<Report> {
    let trusted = Trusted::bootstrap(root).map_err(|e| Failure::new(e.code, format!("the trusted root: {e}")))?;
    let now = Now { unix: now, ..Now::default() };
    let (trusted, outcome) = refresh(trusted, now, fetch)?;
    let mut found = Vec::new();
    for (path, artifact) in trusted.artifacts() {
        let wrong = match &artifact {
            Err(refusal) => Some(refusal.clone()),
            Ok(artifact) if depth == Depth::Files => check_file(&trusted, tree, artifact).err(),
            Ok(_) => None,
        };
        let (wrong, absent) = match wrong {
            Some(refusal) if refusal.code == ABSENT => (None, true),
            other => (other, false),
        };
        found.push(Found { path, artifact: artifact.ok(), wrong, absent });
    }
    let refused = outcome.refused.into_iter().chain(outcome.left_out).collect();
    Ok(Report { versions: trusted.versions(), expiries: trusted.expiries(), refused, found, trusted })
}

fn refresh(trusted: Trusted, now: Now, fetch: &dyn Fn(&Fetch) -> Result<Option<Vec<u8>>>) -> Result<(Trusted, Outcome)> {
    let mut refresh = Refresh::new(trusted, now, Goal::All);
    while let Want::Fetch(wanted) = refresh.want() {
        let bytes = fetch(&wanted)?;
        let given = bytes.as_deref().map_or(Fetched::NotFound, Fetched::Bytes);
        // A refusal ends the refresh and is in its outcome.
        let _ = refresh.give(given);
    }
    Ok(refresh.finish())
}

/// Reads a metadata file of a tree. One that is longer than a device reads is refused by the walk, not here.
pub fn from_tree(tree: &Path, wanted: &Fetch) -> Result<Option<Vec<u8>>> {
    files::read_if_there(&tree.join("metadata").join(&wanted.name), METADATA_MAX)
}

fn check_file(trusted: &Trusted, tree: &Medium, artifact: &Artifact) -> std::result::Result<(), Refusal> {
    let name = format!("targets/{}", consistent_path(&artifact.path, &artifact.sha256));
    let unreadable = |code, detail: String| Refusal::new(code, &artifact.path.to_string(), detail);
    let mut check = trusted.file_check(artifact)?;
    let mut refused = Ok(());
    let mut each = |piece: &[u8]| {
        refused = check.absorb(piece);
        refused.is_ok()
    };
    let read = match tree {
        // Not by Medium: a link in a published tree is a mistake of its publisher.
        Medium::Folder(folder) => files::for_each_piece(&folder.join(&name), &mut each),
        Medium::Bundle(_) => match tree.part(&name, 0) {
            Err(reason) if reason.code == ABSENT => return Err(unreadable(ABSENT, reason.detail.clone())),
            part => part.map_err(Failure::of).and_then(|part| files::for_each_piece_of(part, &name, &mut each)),
        },
    };
    read.map_err(|e| unreadable("file_unreadable", e.text))?;
    refused.and_then(|()| check.finish())?;
    package::verify(trusted, tree, &artifact.path, &name, artifact.length)
}

/// The command: a table of everything, and a bad answer if a device would refuse any of it.
pub fn verify(tree: &Path, root: &Path, now: u64) -> Result<Answer> {
    if !files::is_folder(&tree.join("metadata")) {
        return Err(Failure::new(
            "missing_folder",
            format!("{}: there is no folder 'metadata' in it; give the folder that 'publish' wrote", tree.display()),
        ));
    }
    let root = files::read(root, ROOT_MAX)?;
    let report = walk(&root, &Medium::Folder(tree.into()), Depth::Files, now, &|wanted| from_tree(tree, wanted))?;
    Ok(report.answer())
}

/// The same for a bundle; in addition, the roots from version 1 on must lead to the one that is in force, and nothing may
/// be in the bundle that the metadata do not name.
pub fn verify_bundle(file: &Path, root: &Path, now: u64) -> Result<Answer> {
    files::length(file)?;
    let bundle = Bundle::open(file).map_err(Failure::of)?;
    let mut unnamed: BTreeSet<String> = bundle.members().map_err(Failure::of)?.into_iter().map(|m| m.name).collect();
    let medium = Medium::Bundle(bundle);
    let root = files::read(root, ROOT_MAX)?;
    let read = RefCell::new(BTreeSet::new());
    let fetch = |wanted: &Fetch| {
        let name = format!("metadata/{}", wanted.name);
        let bytes = medium.read(&name, METADATA_MAX).map_err(Failure::of)?;
        read.borrow_mut().insert(name);
        Ok(bytes)
    };
    let mut report = walk(&root, &medium, Depth::Files, now, &fetch)?;
    let first = "metadata/1.root.json";
    match medium.read(first, ROOT_MAX).map_err(Failure::of)? {
        None => report.refused.push(Refusal::new("root_missing", first, "older devices need every root")),
        Some(oldest) => {
            let from_first = walk(&oldest, &medium, Depth::Metadata, now, &fetch);
            if from_first.map_or(0, |r| r.versions[0]) != report.versions[0] {
                let detail = "the roots from version 1 on do not lead to the one in force; older devices could not walk up";
                report.refused.push(Refusal::new("root_chain", first, detail));
            }
            read.borrow_mut().insert(first.into());
        }
    }
    unnamed.retain(|name| !read.borrow().contains(name));
    for found in report.found.iter().filter_map(|f| f.artifact.as_ref()) {
        unnamed.remove(&format!("targets/{}", consistent_path(&found.path, &found.sha256)));
    }
    let foreign = |role: String| Refusal::new("bundle_unnamed", &role, "the metadata do not name this member");
    report.refused.extend(unnamed.into_iter().map(foreign));
    Ok(report.answer())
}

impl Found {
    fn word(&self) -> &'static str {
        match (&self.wrong, self.absent) {
            (Some(_), _) => "REFUSED",
            (None, true) => "not in this bundle",
            (None, false) => "ok",
        }
    }
}

impl Report {
    /// Everything that a device would refuse.
    pub fn failures(&self) -> Vec<&Refusal> {
        self.refused.iter().chain(self.found.iter().filter_map(|f| f.wrong.as_ref())).collect()
    }

    fn answer(&self) -> Answer {
        let mut answer = Answer::new(self.text(), self.json());
        answer.good = self.failures().is_empty();
        answer
    }

    fn roles(&self) -> impl Iterator<Item = (&'static str, u64, Option<u64>)> {
        ["root", "timestamp", "snapshot", "targets"].into_iter().zip(self.versions).zip(self.expiries).map(|((r, v), e)| (r, v, e))
    }

    fn text(&self) -> String {
        let mut rows = vec![["ROLE OR PATH", "VERSION OR BYTES", "EXPIRES OR SHA-256", ""].map(String::from).to_vec()];
        for (role, version, expires) in self.roles() {
            rows.push(vec![role.into(), version.to_string(), expires.map_or("-".into(), time::format)]);
        }
        for found in &self.found {
            let length = found.artifact.as_ref().map_or("-".into(), |a| a.length.to_string());
            let sha256 = found.artifact.as_ref().map_or("-".into(), |a| hex::encode(&a.sha256));
            rows.push(vec![found.path.clone(), length, sha256, found.word().into()]);
        }
        let mut out = table(&rows);
        for w in self.trusted.withdrawn() {
            out.push_str(&format!("\nwithdrawn: {}: {}", w.path, w.reason));
        }
        for failure in self.failures() {
            out.push_str(&format!("\nrefused: {failure}"));
        }
        if self.failures().is_empty() {
            out.push_str(&format!("\nverified: {} files, as a device does", self.found.iter().filter(|f| !f.absent).count()));
        }
        out
    }

    fn json(&self) -> Value {
        let reason = |r: &Refusal| object([("code", text(r.code)), ("detail", text(&r.detail)), ("role", text(&r.role))]);
        let found = |f: &Found| {
            let mut fields = vec![("ok", Value::Bool(f.wrong.is_none())), ("path", text(&f.path)), ("absent", Value::Bool(f.absent))];
            if let Some(a) = &f.artifact {
                fields.push(("length", number(a.length)));
                fields.push(("sha256", text(hex::encode(&a.sha256))));
                fields.push(("counter", number(a.counter)));
            }
            object(fields)
        };
        let role = |(role, version, expires): (&str, u64, Option<u64>)| {
            let mut fields = vec![("role", text(role)), ("version", number(version))];
            fields.extend(expires.map(|e| ("expires", text(time::format(e)))));
            object(fields)
        };
        object([
            ("failures", list(self.failures().into_iter().map(reason))),
            ("files", list(self.found.iter().map(found))),
            ("ok", Value::Bool(self.failures().is_empty())),
            ("roles", list(self.roles().map(role))),
        ])
    }
}
