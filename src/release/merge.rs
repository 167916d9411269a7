//! Several signers on several machines: each signs a pending file where his key is, and the signatures come together again.
//!
//! ```text
//! draft/targets.json --copy--> a signer: 'sign --file targets.json --keys HIS'  --.
//!                    --copy--> another signer, at the same time                  --+--> 'sign --repo R --import FILE' each
//! ```
//!
//! Only signatures travel back: the signed part must be, byte for byte, the one that is drafted here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use miniserde::json::Value;

use super::cli::Answer;
use super::envelope::{Envelope, keyid};
use super::failure::{Failure, Result};
use super::files;
use super::json::{self, Node, list, number, object, text};
use super::metadata::{ROOT, Root, SNAPSHOT, TARGETS, TIMESTAMP, Targets, read_header};
use super::repo::{METADATA_MAX, Repo};
use super::ring::Ring;
use super::sign;
use super::state::RoleState;
use crate::core::hex;
use crate::core::time;

/// Signs a pending file on its own, without a repository. Answers what was signed, so that its holder can compare.
pub fn sign_file(file: &Path, role: Option<&str>, ring: &mut Ring) -> Result<Answer> {
    let name = file.display().to_string();
    let mut envelope = Envelope::parse(&files::read(file, METADATA_MAX)?, &name)?;
    let role = match role {
        Some(role) => role.to_string(),
        None => role_of(file)?,
    };
    let held = ring.held(&role)?;
    if held.is_empty() {
        let text = format!("no key of '{role}' is at hand; give its folder with --keys, or another --role");
        return Err(Failure::new("no_keys", text));
    }
    let mut signed = Vec::new();
    for pair in ring.pairs(&role, &held)? {
        envelope.sign(&pair);
        signed.push(keyid(&pair.pk));
    }
    files::write(file, &envelope.bytes(), files::PUBLIC)?;
    let summary = summary(&envelope, &role, &name)?;
    let lines: Vec<String> = signed.iter().map(|id| format!("signed by {id}")).collect();
    let json = object([("role", text(&role)), ("sha256", text(digest(&envelope.signed))), ("signed", list(signed.iter().map(text)))]);
    let next = "next: send the file back; 'sign --repo REPO --import FILE' takes the signatures";
    Ok(Answer::new(format!("{summary}\n{}\n{next}", lines.join("\n")), json))
}

/// `targets` of `targets.json` and of `3.targets.json`.
fn role_of(file: &Path) -> Result<String> {
    let stem = file.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json")).unwrap_or_default();
    let role = stem.split_once('.').filter(|(n, _)| n.parse::<u64>().is_ok()).map_or(stem, |(_, role)| role);
    match role.is_empty() {
        true => Err(Failure::usage(format!("{}: is not called <role>.json; say --role ROLE", file.display()))),
        false => Ok(role.into()),
    }
}

fn digest(signed: &Value) -> String {
    hex::encode(&hex::sha256(&json::canonical(signed)))
}

/// What a holder should look at before he lets a signature go.
fn summary(envelope: &Envelope, role: &str, file: &str) -> Result<String> {
    let top = Node::top(&envelope.signed, file);
    let kind = top.field("_type")?.text()?.to_string();
    let (version, expires) = read_header(&top, &kind)?;
    let mut out = format!(
        "{role} ({kind}) version {version}, valid until {}\nsha256 of what is signed: {}",
        time::format(expires),
        digest(&envelope.signed)
    );
    if kind == ROOT {
        let root = Root::read(&top)?;
        for (name, holders) in &root.roles {
            out += &format!("\n{name}: {} of {} keys: {}", holders.threshold, holders.keyids.len(), brief(holders.keyids.iter()));
        }
        out += &format!("\nbuild: {}", brief(root.build_keys.keys()));
    } else if kind == TARGETS {
        let targets = Targets::read(&top)?;
        for r in &targets.roles {
            out += &format!("\n{}: {} of {} keys: {}", r.name, r.holders.threshold, r.holders.keyids.len(), brief(r.holders.keyids.iter()));
        }
        out += &targets.targets.iter().map(|(path, t)| format!("\n{path} sha256 {}", hex::encode(&t.sha256))).collect::<String>();
        out += &targets.notes.iter().map(|(place, lines)| format!("\nnotes of {place}:\n  {}", lines.join("\n  "))).collect::<String>();
        out += &targets.withdrawn.iter().map(|(path, w)| format!("\nwithdrawn: {path}: {}", w.reason)).collect::<String>();
    }
    Ok(out)
}

fn brief<'a>(ids: impl Iterator<Item = &'a String>) -> String {
    ids.map(|id| id.get(..12).unwrap_or(id)).collect::<Vec<_>>().join(" ")
}

/// What came with one file.
struct Merged {
    role: String,
    added: Vec<String>,
    known: u64,
}

/// Takes signatures that were given elsewhere: files of any name, or the folder of another copy of this repository.
pub fn import(repo: &Repo, places: &[String]) -> Result<Answer> {
    let mut files_found: Vec<PathBuf> = Vec::new();
    for place in places.iter().map(Path::new) {
        match files::is_folder(place) {
            false => files_found.push(place.into()),
            true => {
                let drafts = if files::is_folder(&place.join("draft")) { place.join("draft") } else { place.into() };
                let names = files::names(&drafts)?.into_iter().filter(|n| n.ends_with(".json"));
                // Snapshot and timestamp are made in one place.
                let names = names.filter(|n| ![SNAPSHOT, TIMESTAMP].iter().any(|r| *n == format!("{r}.json")));
                files_found.extend(names.map(|n| drafts.join(n)));
            }
        }
    }
    let mut merged = BTreeMap::new();
    for file in &files_found {
        merged.insert(file.display().to_string(), merge(repo, file)?);
    }
    let line = |(file, m): (&String, &Merged)| match m.added.is_empty() {
        true => format!("{file}: {}: nothing new, {} signatures were here", m.role, m.known),
        false => format!("{file}: {}: added {}", m.role, m.added.join(" ")),
    };
    let one = |(file, m): (&String, &Merged)| {
        object([("added", list(m.added.iter().map(text))), ("file", text(file)), ("known", number(m.known)), ("role", text(&m.role))])
    };
    let json = object([("imported", list(merged.iter().map(one)))]);
    Ok(Answer::new(merged.iter().map(line).collect::<Vec<_>>().join("\n"), json))
}

fn merge(repo: &Repo, file: &Path) -> Result<Merged> {
    let name = file.display().to_string();
    let theirs = Envelope::parse(&files::read(file, METADATA_MAX)?, &name)?;
    let bytes = json::canonical(&theirs.signed);
    for role in repo.roles()? {
        let Some(mut ours) = repo.draft(&role)?.filter(|d| json::canonical(&d.signed) == bytes) else { continue };
        let holders = sign::wanted(repo, &role)?;
        let before = ours.signatures.len() as u64;
        let mut added = Vec::new();
        for (id, signature) in &theirs.signatures {
            let Some(public) = holders.get(id) else {
                return Err(Failure::new("foreign_key", format!("{name}: signed by {id}, which is no key of '{role}'; 'keys' lists them")));
            };
            if !super::envelope::is_right(&bytes, public, signature) {
                return Err(Failure::new("bad_signature", format!("{name}: the signature of {id} is wrong; let its holder sign again")));
            }
            if ours.signatures.insert(id.clone(), *signature).is_none() {
                added.push(id.clone());
            }
        }
        if !added.is_empty() {
            if RoleState::look(repo, &role)?.is_published {
                return Err(Failure::new("published", format!("{name}: {role} is published with other signatures; its bytes are final")));
            }
            repo.save_draft(&role, &ours)?;
        }
        return Ok(Merged { role, added, known: before });
    }
    let text = format!(
        "{name}: no draft here has this content (sha256 {}); somebody changed the draft after it was sent, or it belongs to another repository",
        digest(&theirs.signed)
    );
    Err(Failure::new("other_content", text))
}
