//! `bundle`: a published tree in one file, for sites without a link.
//!
//! The metadata are those that a client walks to from root version 1, every root and every role, whatever is selected:
//! what a bundle leaves out are artifacts. Nothing of ours is added, so unpacked by any `tar` it is a published tree again.
//! Its form is [`crate::core::bundle`]'s; the same tree gives the same bytes on every machine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::failure::{Failure, Result};
use super::files::{self, Writer};
use super::repo::consistent_path;
use super::verify::{self, Depth, Report};
use crate::core::bundle::{BLOCK, header};
use crate::core::release::Artifact;
use crate::core::trust::ROOT_MAX;
use crate::core::version::Version;
use crate::io::medium::Medium;

/// Which artifacts to take; an empty list restricts nothing.
#[derive(Default)]
pub struct Selection {
    /// Products.
    pub products: Vec<String>,
    /// Versions, or `latest`: the highest of each product that is no pre-release.
    pub versions: Vec<String>,
    /// Operating systems.
    pub os: Vec<String>,
    /// Architectures.
    pub arch: Vec<String>,
}

/// What was written.
pub struct Written {
    /// Metadata files.
    pub metadata: u64,
    /// Artifacts, in order.
    pub artifacts: Vec<String>,
    /// Artifacts that the metadata name and this bundle does not hold.
    pub left_out: u64,
    /// The file's length.
    pub bytes: u64,
}

impl Selection {
    fn takes(&self, artifact: &Artifact, all: &[&Artifact]) -> bool {
        let fits = |list: &[String], word: &str| list.is_empty() || list.iter().any(|w| w == word);
        let path = &artifact.path;
        let version = path.version.to_string();
        let latest = || {
            let of = all.iter().filter(|a| a.path.product == path.product && !a.path.version.is_pre_release());
            of.map(|a| &a.path.version).max_by(|a: &&Version, b| a.cmp(b)) == Some(&path.version)
        };
        let by_version = fits(&self.versions, &version) || self.versions.iter().any(|v| v == "latest") && latest();
        fits(&self.products, &path.product) && fits(&self.os, &path.platform.os) && fits(&self.arch, &path.platform.arch) && by_version
    }
}

/// Writes the bundle of what is current in `tree`, every byte of it checked as a device does.
pub fn bundle(tree: &Path, out: &Path, selection: &Selection, now: u64) -> Result<Written> {
    let (metadata, report) = current(tree, now)?;
    let all: Vec<&Artifact> = report.found.iter().filter_map(|f| f.artifact.as_ref()).collect();
    let mut chosen: Vec<(String, &Artifact)> = Vec::new();
    for artifact in all.iter().filter(|a| selection.takes(a, &all)) {
        chosen.push((format!("targets/{}", consistent_path(&artifact.path, &artifact.sha256)), artifact));
    }
    chosen.sort_by(|a, b| a.0.cmp(&b.0));
    if chosen.is_empty() && !all.is_empty() {
        let text = format!("{}: none of its {} files fits the selection; 'verify' lists them", tree.display(), all.len());
        return Err(Failure::new("nothing_selected", text));
    }
    let mut writer = Writer::new(out)?;
    let mut bytes = 0;
    for (name, content) in &metadata {
        writer.write(&header(name, content.len() as u64).map_err(Failure::of)?)?;
        writer.write(content)?;
        bytes += BLOCK as u64 + pad(&mut writer, content.len() as u64)?;
    }
    for (name, artifact) in &chosen {
        writer.write(&header(name, artifact.length).map_err(Failure::of)?)?;
        copy(&tree.join(name), artifact, &report, &mut writer)?;
        bytes += BLOCK as u64 + pad(&mut writer, artifact.length)?;
    }
    writer.write(&[0; 2 * BLOCK])?;
    writer.finish()?;
    let artifacts: Vec<String> = chosen.iter().map(|(_, a)| a.path.to_string()).collect();
    let left_out = (all.len() - artifacts.len()) as u64;
    Ok(Written { metadata: metadata.len() as u64, artifacts, left_out, bytes: bytes + 2 * BLOCK as u64 })
}

/// Zeros up to the next block; answers the length with them.
fn pad(writer: &mut Writer, length: u64) -> Result<u64> {
    let whole = length.next_multiple_of(BLOCK as u64);
    writer.write(&[0; BLOCK][..(whole - length) as usize])?;
    Ok(whole)
}

/// The metadata that a device of the first root walks through, by member name, and what it finds.
fn current(tree: &Path, now: u64) -> Result<(BTreeMap<String, Vec<u8>>, Report)> {
    let first = tree.join("metadata/1.root.json");
    let root = files::read(&first, ROOT_MAX)?;
    let metadata = RefCell::new(BTreeMap::from([("metadata/1.root.json".to_string(), root.clone())]));
    let report = verify::walk(&root, &Medium::Folder(tree.into()), Depth::Metadata, now, &|wanted| {
        let bytes = verify::from_tree(tree, wanted)?;
        if let Some(bytes) = &bytes {
            metadata.borrow_mut().insert(format!("metadata/{}", wanted.name), bytes.clone());
        }
        Ok(bytes)
    })?;
    match report.failures().first() {
        None => Ok((metadata.into_inner(), report)),
        Some(refusal) => {
            let text = format!("{}: a device would refuse this tree, so no bundle of it is made: {refusal}", tree.display());
            Err(Failure::new("would_be_refused", text))
        }
    }
}

fn copy(file: &Path, artifact: &Artifact, report: &Report, writer: &mut Writer) -> Result<()> {
    let refused = |e| Failure::new("would_be_refused", format!("{}: a device would refuse it, so no bundle is made: {e}", file.display()));
    let mut check = report.trusted.file_check(artifact).map_err(refused)?;
    let mut done = Ok(());
    files::for_each_piece(file, &mut |piece| {
        done = check.absorb(piece).map_err(refused).and_then(|()| writer.write(piece));
        done.is_ok()
    })?;
    done.and_then(|()| check.finish().map_err(refused))
}
