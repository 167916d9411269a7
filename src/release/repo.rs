//! The repository folder: what the release engineer works on.
//!
//! ```text
//! <repo>/settings.json             validity in days, thresholds of delegated roles (written by init)
//! <repo>/root.json                 the newest published root: what a build embeds
//! <repo>/draft/<role>.json         the next version of each role; signatures are added here
//! <repo>/published/N.<role>.json   every version that was ever published, never changed
//! <repo>/targets/<product>/<version>/<os>-<arch>/<sha256>.<file>   the artifacts
//! ```
//!
//! There is no stored phase: a draft is published when `published/` holds its version. `publish` writes there before it
//! writes the tree, so a version number is never used for two different contents, wherever it is interrupted.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::envelope::{Authority, Envelope};
use super::failure::{Failure, Result};
use super::files;
use super::json::{self, Node, number, object, text};
use super::metadata::{FileMeta, Listing, ROOT, Root, SNAPSHOT, TARGETS, TIMESTAMP, Targets};
use crate::core::hex::{self, Sha256};
use crate::core::release::TargetPath;

/// First field of the settings.
const FORMAT: &str = "vmetric-release-v1";
/// Largest metadata file read; the client's own limits are lower.
pub const METADATA_MAX: u64 = 4 * 1024 * 1024;
const DAY: u64 = 86_400;

/// What `init` fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Validity of each kind of role, days.
    pub root_days: u64,
    /// Of `targets`.
    pub targets_days: u64,
    /// Of delegated roles.
    pub delegated_days: u64,
    /// Of the snapshot.
    pub snapshot_days: u64,
    /// Of the timestamp.
    pub timestamp_days: u64,
    /// Keys of a new delegated role.
    pub delegated_keys: u64,
    /// How many of them have to sign.
    pub delegated_threshold: u64,
}

impl Settings {
    /// Names and values, in file order.
    fn fields(&mut self) -> [(&'static str, &mut u64); 7] {
        [
            ("root_days", &mut self.root_days),
            ("targets_days", &mut self.targets_days),
            ("delegated_days", &mut self.delegated_days),
            ("snapshot_days", &mut self.snapshot_days),
            ("timestamp_days", &mut self.timestamp_days),
            ("delegated_keys", &mut self.delegated_keys),
            ("delegated_threshold", &mut self.delegated_threshold),
        ]
    }

    /// When metadata of `role` that is made `now` expires.
    pub fn expires(&self, role: &str, now: u64) -> u64 {
        let days = match role {
            ROOT => self.root_days,
            TARGETS => self.targets_days,
            SNAPSHOT => self.snapshot_days,
            TIMESTAMP => self.timestamp_days,
            _ => self.delegated_days,
        };
        now + days * DAY
    }
}

/// An open repository folder, locked against other commands.
pub struct Repo {
    folder: PathBuf,
    /// What `init` fixed.
    pub settings: Settings,
    _lock: File,
}

impl Repo {
    /// Makes the folder; refuses one that is already a repository.
    pub fn create(folder: &Path, mut settings: Settings) -> Result<Repo> {
        let file = folder.join("settings.json");
        if files::read_if_there(&file, METADATA_MAX)?.is_some() {
            let text = format!("{}: there is a repository already; give another folder", folder.display());
            return Err(Failure::new("repository_exists", text));
        }
        files::make_folder(folder, false)?;
        let lock = files::lock(folder)?;
        let mut fields: Vec<_> = settings.fields().into_iter().map(|(name, value)| (name, number(*value))).collect();
        fields.push(("format", text(FORMAT)));
        files::write(&file, &json::canonical(&object(fields)), files::PUBLIC)?;
        Ok(Repo { folder: folder.into(), settings, _lock: lock })
    }

    /// Opens the folder of an earlier `init`.
    pub fn open(folder: &Path) -> Result<Repo> {
        let path = folder.join("settings.json");
        let Some(bytes) = files::read_if_there(&path, METADATA_MAX)? else {
            let text = format!("{}: there is no repository; make one with 'init', or give its folder with --repo", folder.display());
            return Err(Failure::new("no_repository", text));
        };
        let lock = files::lock(folder)?;
        let name = path.display().to_string();
        let value = json::parse(&bytes, &name)?;
        let top = Node::top(&value, &name);
        if top.field("format")?.text()? != FORMAT {
            return Err(top.field("format")?.expected(FORMAT));
        }
        let mut settings = Settings {
            root_days: 0,
            targets_days: 0,
            delegated_days: 0,
            snapshot_days: 0,
            timestamp_days: 0,
            delegated_keys: 0,
            delegated_threshold: 0,
        };
        for (name, value) in settings.fields() {
            *value = top.field(name)?.number()?;
        }
        Ok(Repo { folder: folder.into(), settings, _lock: lock })
    }

    /// The draft of a role.
    pub fn draft(&self, role: &str) -> Result<Option<Envelope>> {
        let path = self.draft_path(role);
        files::read_if_there(&path, METADATA_MAX)?.map(|bytes| Envelope::parse(&bytes, &path.display().to_string())).transpose()
    }

    fn need_draft(&self, role: &str) -> Result<Envelope> {
        self.draft(role)?.ok_or_else(|| {
            Failure::new("missing_file", format!("{}: there is no such draft; restore it from a backup", self.draft_path(role).display()))
        })
    }

    fn draft_path(&self, role: &str) -> PathBuf {
        self.folder.join("draft").join(format!("{role}.json"))
    }

    /// Writes the draft of a role.
    pub fn save_draft(&self, role: &str, draft: &Envelope) -> Result<()> {
        files::write(&self.draft_path(role), &draft.bytes(), files::PUBLIC)
    }

    /// Writes `root.json`, what a build embeds.
    pub fn save_root(&self, root: &[u8]) -> Result<()> {
        files::write(&self.folder.join("root.json"), root, files::PUBLIC)
    }

    /// Published versions of a role, rising.
    pub fn published(&self, role: &str) -> Result<Vec<u64>> {
        let suffix = format!(".{role}.json");
        let names = files::names(&self.folder.join("published"))?;
        let mut out: Vec<u64> = names.iter().filter_map(|n| n.strip_suffix(&suffix)?.parse().ok()).collect();
        out.sort_unstable();
        Ok(out)
    }

    fn published_path(&self, role: &str, version: u64) -> PathBuf {
        self.folder.join("published").join(format!("{version}.{role}.json"))
    }

    /// The bytes of a published version.
    pub fn published_bytes(&self, role: &str, version: u64) -> Result<Option<Vec<u8>>> {
        files::read_if_there(&self.published_path(role, version), METADATA_MAX)
    }

    /// Burns a version number: from now on this version of this role has these bytes.
    pub fn record(&self, role: &str, version: u64, bytes: &[u8]) -> Result<()> {
        files::write_once(&self.published_path(role, version), bytes, files::PUBLIC).map(|_| ())
    }

    /// A published version, parsed.
    pub fn published_envelope(&self, role: &str, version: u64) -> Result<Option<Envelope>> {
        let name = self.published_path(role, version).display().to_string();
        self.published_bytes(role, version)?.map(|bytes| Envelope::parse(&bytes, &name)).transpose()
    }

    /// The version that an edited draft has to have.
    pub fn next_version(&self, role: &str) -> Result<u64> {
        Ok(self.published(role)?.last().map_or(1, |v| v + 1))
    }

    /// The root's draft.
    pub fn root(&self) -> Result<(Envelope, Root)> {
        let envelope = self.need_draft(ROOT)?;
        let root = Root::read(&Node::top(&envelope.signed, &self.draft_path(ROOT).display().to_string()))?;
        Ok((envelope, root))
    }

    /// The root that devices follow: the draft once it is complete (or the first), else the newest published one.
    pub fn effective_root(&self) -> Result<Root> {
        let (envelope, draft) = self.root()?;
        let previous = self.published_root(draft.version.wrapping_sub(1))?;
        match previous {
            Some(previous) if !envelope.is_complete(&[own_authority(&draft), own_authority(&previous)]) => Ok(previous),
            _ => Ok(draft),
        }
    }

    /// A published root.
    pub fn published_root(&self, version: u64) -> Result<Option<Root>> {
        let name = self.published_path(ROOT, version).display().to_string();
        self.published_envelope(ROOT, version)?.map(|e| Root::read(&Node::top(&e.signed, &name))).transpose()
    }

    /// The draft of `targets` or of a delegated role.
    pub fn targets(&self, role: &str) -> Result<(Envelope, Targets)> {
        let envelope = self.need_draft(role)?;
        let targets = Targets::read(&Node::top(&envelope.signed, &self.draft_path(role).display().to_string()))?;
        Ok((envelope, targets))
    }

    /// The draft of the snapshot or the timestamp, if one was made.
    pub fn listing(&self, role: &str) -> Result<Option<(Envelope, Listing)>> {
        let name = self.draft_path(role).display().to_string();
        self.draft(role)?.map(|e| Listing::read(&Node::top(&e.signed, &name), role).map(|l| (e, l))).transpose()
    }

    /// Every published content of a targets role, oldest first.
    pub fn history(&self, role: &str) -> Result<Vec<Targets>> {
        let mut out = Vec::new();
        for version in self.published(role)? {
            let name = self.published_path(role, version).display().to_string();
            if let Some(envelope) = self.published_envelope(role, version)? {
                out.push(Targets::read(&Node::top(&envelope.signed, &name))?);
            }
        }
        Ok(out)
    }

    /// All roles that exist, in the order in which they are signed.
    pub fn roles(&self) -> Result<Vec<String>> {
        let (_, targets) = self.targets(TARGETS)?;
        let delegated = targets.roles.into_iter().map(|r| r.name);
        let first = [ROOT, TARGETS].map(String::from).into_iter();
        Ok(first.chain(delegated).chain([SNAPSHOT, TIMESTAMP].map(String::from)).collect())
    }

    /// Everybody who has to sign the draft of a role.
    pub fn authorities(&self, role: &str) -> Result<Vec<Authority>> {
        let unknown = || Failure::new("unknown_role", format!("there is no role '{role}'; 'status' lists the roles"));
        if role == ROOT {
            let (_, draft) = self.root()?;
            let previous = self.published_root(draft.version.wrapping_sub(1))?;
            return Ok([Some(own_authority(&draft)), previous.as_ref().map(own_authority)].into_iter().flatten().collect());
        }
        if let Some(top) = self.effective_root()?.authority(role) {
            return Ok(vec![top]);
        }
        let (_, targets) = self.targets(TARGETS)?;
        Ok(vec![targets.authority(role).ok_or_else(unknown)?])
    }

    /// The bytes that a listing describes: a published version, or the draft.
    pub fn described(&self, role: &str, meta: &FileMeta) -> Result<Vec<u8>> {
        let draft = self.draft(role)?.map(|e| e.bytes());
        let candidates = [self.published_bytes(role, meta.version)?, draft];
        let found = candidates.into_iter().flatten().find(|bytes| FileMeta::of(meta.version, bytes) == *meta);
        found.ok_or_else(|| {
            let text = format!("{role} version {}: no file has the signed hash any more; run 'sign' again", meta.version);
            Failure::new("hash_mismatch", text)
        })
    }

    /// Where an artifact lies.
    pub fn artifact(&self, path: &TargetPath, sha256: &Sha256) -> PathBuf {
        self.folder.join("targets").join(consistent_path(path, sha256))
    }
}

fn own_authority(root: &Root) -> Authority {
    // Root::read refuses a root without the role 'root'.
    root.authority(ROOT).unwrap_or(Authority { name: ROOT.into(), threshold: u64::MAX, keys: Default::default() })
}

/// Name of a target's file in a tree with consistent snapshots: `<dir>/<sha256>.<file>`.
pub fn consistent_path(path: &TargetPath, sha256: &Sha256) -> String {
    format!("{}/{}/{}/{}.{}", path.product, path.version, path.platform, hex::encode(sha256), path.file)
}
