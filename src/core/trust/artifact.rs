//! From verified metadata to what the rest of the system works with: artifacts.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_compact::sha512;
use miniserde::{Deserialize, json};
use ring::digest::{Context, SHA256};

use super::delegation::{Link, Walk};
use super::targets::{Target, Targets};
use super::{FileCheck, Refusal, Trusted};
use crate::core::hex::{self, Sha256};
use crate::core::release::{Artifact, TargetPath};
use crate::core::version::Version;

/// Our fields of a target.
#[derive(Deserialize)]
struct CustomWire {
    arch: String,
    counter: u64,
    min_version: Option<String>,
    os: String,
    sig: SigWire,
    version: String,
}

#[derive(Deserialize)]
struct SigWire {
    keyid: String,
    sig: String,
}

/// What any TUF repository says about a target; ours say more, see [`Artifact`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFile {
    /// Bytes.
    pub length: u64,
    /// SHA-256, if listed.
    pub sha256: Option<Sha256>,
    /// SHA-512, if listed.
    pub sha512: Option<[u8; 64]>,
}

impl TargetFile {
    /// "5.7.3 Verify the desired target against its targets metadata": length and all hashes that we know.
    pub fn check(&self, path: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let mut check = TargetCheck::new(path, self.clone());
        check.absorb(bytes)?;
        check.finish()
    }
}

/// The same in one pass over a file that does not fit into memory: feed the bytes in order, then ask once. For targets
/// that are not ours; ours are checked by [`FileCheck`].
pub struct TargetCheck {
    path: String,
    file: TargetFile,
    seen: u64,
    sha256: Context,
    sha512: sha512::Hash,
}

impl TargetCheck {
    /// Nothing seen yet.
    pub fn new(path: &str, file: TargetFile) -> TargetCheck {
        TargetCheck { path: path.to_string(), file, seen: 0, sha256: Context::new(&SHA256), sha512: sha512::Hash::new() }
    }

    /// "5.7.2 Download the target up to the number of bytes specified": one byte more is refused at once.
    pub fn absorb(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if self.seen > self.file.length {
            return Err(Refusal::new("file_too_long", &self.path, format!("more than {} bytes", self.file.length)));
        }
        self.file.sha256.is_some().then(|| self.sha256.update(bytes));
        self.file.sha512.is_some().then(|| self.sha512.update(bytes));
        Ok(())
    }

    /// Length and all hashes that we know; at least one of them is there.
    pub fn finish(self) -> Result<(), Refusal> {
        let (seen, length) = (self.seen, self.file.length);
        if seen != length {
            let code = if seen > length { "file_too_long" } else { "file_too_short" };
            return Err(Refusal::new(code, &self.path, format!("{seen} of {length} bytes")));
        }
        let sha256 = self.file.sha256.is_none_or(|hash| self.sha256.finish().as_ref() == hash);
        let sha512 = self.file.sha512.is_none_or(|hash| self.sha512.finalize() == hash);
        if !(sha256 && sha512) {
            return Err(Refusal::new("file_hash", &self.path, "the hash is not the signed one"));
        }
        Ok(())
    }
}

/// Code of a target that was taken back.
const WITHDRAWN: &str = "target_withdrawn";

/// A release that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// Its path.
    pub path: TargetPath,
    /// Its file.
    pub sha256: Sha256,
    /// Why, in its publisher's words.
    pub reason: String,
}

/// Which links were already verified in this question: asking for all artifacts takes the same links again and again.
type Verified<'a> = BTreeMap<(String, String), &'a Targets>;

impl Trusted {
    /// The artifact at `path`, if the release plane has signed one. [`Trusted::lookup`] says why not.
    pub fn find(&self, path: &TargetPath) -> Option<Artifact> {
        self.lookup(path).ok()
    }

    /// The artifact at `path`, or the first check that did not hold.
    pub fn lookup(&self, path: &TargetPath) -> Result<Artifact, Refusal> {
        let text = path.to_string();
        artifact(&text, &self.search(&text, &mut Verified::new())?)
    }

    /// A target of any repository, ours or not, by its path.
    pub fn target(&self, path: &str) -> Result<TargetFile, Refusal> {
        let target = self.search(path, &mut Verified::new())?;
        Ok(TargetFile { length: target.length, sha256: target.hashes.sha256, sha512: target.hashes.sha512 })
    }

    /// Every path that a role lists, with the artifact that a client asking for it would find, or why it would find none.
    pub fn artifacts(&self) -> impl Iterator<Item = (String, Result<Artifact, Refusal>)> + '_ {
        let mut verified = Verified::new();
        let entries = self.targets.iter().chain(self.delegated.values()).filter_map(|role| role.entries().ok());
        let paths: BTreeSet<String> = entries.flatten().map(|(path, _)| path).collect();
        paths.into_iter().map(move |path| {
            let found = self.search(&path, &mut verified).and_then(|target| artifact(&path, &target));
            (path, found)
        })
    }

    /// Every release that was taken back by a role that may speak for its path.
    pub fn withdrawn(&self) -> Vec<Withdrawn> {
        let roles: Vec<&Targets> = self.targets.iter().chain(self.delegated.values()).collect();
        let paths: BTreeSet<String> = roles.iter().flat_map(|role| role.all_withdrawn()).collect();
        let mut verified = Verified::new();
        let taken_back = |path: String| {
            let refusal = self.search(&path, &mut verified).err().filter(|r| r.code == WITHDRAWN)?;
            let hash = roles.iter().find_map(|role| role.withdrawn(&path).ok().flatten())?.sha256;
            Some(Withdrawn { path: path.parse().ok()?, sha256: hex::decode(&hash)?, reason: refusal.detail.clone() })
        };
        paths.into_iter().filter_map(taken_back).collect()
    }

    /// Release notes: those of the role that the top-level targets delegate them to.
    #[cfg(any(feature = "director", feature = "release"))]
    pub fn notes(&self) -> crate::core::notes::Notes {
        use crate::core::notes::{FIELD, Notes, ROLE, shown};
        let link = Link { delegator: "targets".into(), role: ROLE.into() };
        let Ok(role) = self.link_holds(&link) else { return Notes::new() };
        let signed = role.field(FIELD).and_then(|field| json::from_str::<Notes>(std::str::from_utf8(field).ok()?).ok());
        shown(signed.unwrap_or_default())
    }

    /// A check for the file of this artifact, with the key that the trusted root lists for it.
    pub fn file_check(&self, artifact: &Artifact) -> Result<FileCheck, Refusal> {
        let unknown = || {
            let detail = format!("signed by build key {}, which the root does not list", artifact.build_keyid);
            Refusal::new("build_key_unknown", &artifact.path.to_string(), detail)
        };
        FileCheck::new(artifact, self.build_key(&artifact.build_keyid).ok_or_else(unknown)?)
    }

    /// "5.6.7 Perform a pre-order depth-first search", over what we hold.
    pub(super) fn search<'a>(&'a self, path: &str, verified: &mut Verified<'a>) -> Result<Target<'a>, Refusal> {
        let mut role = self.current("targets")?;
        let mut walk = Walk::to(path);
        loop {
            // Before the list itself: what was taken back is not installed, whatever else is said of it.
            if let Some(withdrawn) = role.withdrawn(path)? {
                return Err(Refusal::new(WITHDRAWN, path, withdrawn.reason));
            }
            if let Some(target) = role.target(path)? {
                return Ok(target);
            }
            walk.descend(role);
            let Some(link) = walk.next_link()? else {
                return Err(Refusal::new("target_unknown", path, "no role that may speak for this path lists it"));
            };
            role = self.verified(link, verified)?;
        }
    }

    fn verified<'a>(&'a self, link: Link, verified: &mut Verified<'a>) -> Result<&'a Targets, Refusal> {
        let key = (link.delegator, link.role);
        if let Some(role) = verified.get(&key) {
            return Ok(role);
        }
        let role = self.link_holds(&Link { delegator: key.0.clone(), role: key.1.clone() })?;
        verified.insert(key, role);
        Ok(role)
    }
}

/// A target of ours: its path says what it is, and `custom` says the same.
fn artifact(path: &str, target: &Target<'_>) -> Result<Artifact, Refusal> {
    let refuse = |code, detail: String| Refusal::new(code, path, detail);
    let parsed: TargetPath = path.parse().map_err(|e| refuse("target_path", e))?;
    let sha256 = target.hashes.sha256.ok_or_else(|| refuse("target_hash", "no SHA-256 is given".into()))?;
    let text = std::str::from_utf8(target.custom.unwrap_or_default()).unwrap_or_default();
    let custom: CustomWire = json::from_str(text).map_err(|_| refuse("target_custom", "'custom' is missing or incomplete".into()))?;
    let differs = |code, field, custom: &str, path: &str| Err(refuse(code, format!("'{field}' is '{custom}', the path says '{path}'")));
    if custom.version != parsed.version.to_string() {
        return differs("target_version", "version", &custom.version, &parsed.version.to_string());
    }
    if custom.os != parsed.platform.os {
        return differs("target_os", "os", &custom.os, &parsed.platform.os);
    }
    if custom.arch != parsed.platform.arch {
        return differs("target_arch", "arch", &custom.arch, &parsed.platform.arch);
    }
    let no_version = |_| refuse("target_custom", "'min_version' is no version".into());
    let min_version = custom.min_version.map(|v| v.parse::<Version>()).transpose().map_err(no_version)?;
    let no_signature = || refuse("target_custom", "'sig' is not 64 bytes in hexadecimal".into());
    let build_sig = hex::decode::<64>(&custom.sig.sig).ok_or_else(no_signature)?;
    Ok(Artifact {
        path: parsed,
        length: target.length,
        sha256,
        min_version,
        counter: custom.counter,
        build_keyid: custom.sig.keyid,
        build_sig,
    })
}
