//! `verify`: a published tree through the eyes of a device. The same code that devices run ([`crate::core::trust`]), with
//! a folder in place of the network.

use std::path::Path;

use miniserde::json::Value;

use super::cli::Answer;
use super::failure::{Failure, Result};
use super::files;
use super::json::{list, number, object, text};
use super::repo::{METADATA_MAX, consistent_path};
use super::show::table;
use crate::core::hex;
use crate::core::release::Artifact;
use crate::core::time;
use crate::core::trust::{Fetch, Fetched, Goal, Now, Outcome, ROOT_MAX, Refresh, Refusal, Trusted, Want};

/// One artifact that the tree lists, and what is wrong with it.
pub struct Found {
    /// Its path.
    pub path: String,
    /// The signed facts; without them, the reason is in `wrong`.
    pub artifact: Option<Artifact>,
    /// Why a device would refuse it.
    pub wrong: Option<Refusal>,
}

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
pub fn walk(root: &[u8], tree: &Path, depth: Depth, now: u64, fetch: &dyn Fn(&Fetch) -> Result<Option<Vec<u8>>>) -> Result<Report> {
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
        found.push(Found { path, artifact: artifact.ok(), wrong });
    }
    let refused = outcome.refused.into_iter().chain(outcome.left_out).collect();
    Ok(Report { versions: trusted.versions(), expiries: trusted.expiries(), refused, found })
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

fn check_file(trusted: &Trusted, tree: &Path, artifact: &Artifact) -> std::result::Result<(), Refusal> {
    let path = tree.join("targets").join(consistent_path(&artifact.path, &artifact.sha256));
    let unreadable = |e: Failure| Refusal { code: "file_unreadable", role: artifact.path.to_string(), detail: e.text };
    let mut check = trusted.file_check(artifact)?;
    let mut refused = Ok(());
    files::for_each_piece(&path, &mut |piece| {
        refused = check.absorb(piece);
        refused.is_ok()
    })
    .map_err(unreadable)?;
    refused.and_then(|()| check.finish())
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
    let report = walk(&root, tree, Depth::Files, now, &|wanted| from_tree(tree, wanted))?;
    let mut answer = Answer::new(report.text(), report.json());
    answer.good = report.failures().is_empty();
    Ok(answer)
}

impl Report {
    /// Everything that a device would refuse.
    pub fn failures(&self) -> Vec<&Refusal> {
        self.refused.iter().chain(self.found.iter().filter_map(|f| f.wrong.as_ref())).collect()
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
            rows.push(vec![found.path.clone(), length, sha256, if found.wrong.is_some() { "REFUSED" } else { "ok" }.into()]);
        }
        let mut out = table(&rows);
        for failure in self.failures() {
            out.push_str(&format!("\nrefused: {failure}"));
        }
        if self.failures().is_empty() {
            out.push_str(&format!("\nverified: {} files, as a device does", self.found.len()));
        }
        out
    }

    fn json(&self) -> Value {
        let reason = |r: &Refusal| object([("code", text(r.code)), ("detail", text(&r.detail)), ("role", text(&r.role))]);
        let found = |f: &Found| {
            let mut fields = vec![("ok", Value::Bool(f.wrong.is_none())), ("path", text(&f.path))];
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
