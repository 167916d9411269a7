//! Trust: the client side of The Update Framework, specification 1.0.34 section 5, as a pure function of bytes and time.
//!
//! ```text
//!  bootstrap(factory root) -> Trusted --.                        .--> Trusted, Outcome
//!                                       v                        |
//!            .-- want() -- "5.root.json", at most 64 KB --> caller fetches
//!  Refresh --+-- give(bytes | not found) -> [Persist]   --> caller makes durable, asks again
//!            '-- root* -> timestamp -> snapshot -> targets -> delegated roles, depth first -> done
//!
//!  Trusted::find(path) -> Artifact -> FileCheck: length, SHA-256 and build signature in one pass
//! ```
//!
//! **Invariants.** Nothing is parsed further than its signature needs: a document is first walked as canonical JSON (see
//! [`super::canonical`]), then its signatures are checked over those bytes, then those same bytes are read into the
//! fields that we use. That is why the wire form of signed metadata lives here and not in `wire`: both happen to the same
//! bytes. (A new root is read between its two signature checks, as its own keys are inside it.) What was trusted stays
//! trusted until all checks of its successor passed. Ed25519 only; keys of other kinds are there but never count.
//!
//! | extra signed field | where | what |
//! |---|---|---|
//! | `x-vmetric-build-keys` | root | the keys that sign binaries: `{<keyid>: {"keytype","scheme","keyval":{"public"}}}` |
//! | `issued` | timestamp | when it was signed; floors the clock |
//! | `x-vmetric-withdrawn` | targets roles | what was taken back: `{<path>: {"reason","sha256"}}` |
//! | `custom` | each target | `{"arch","counter","min_version"?,"os","sig":{"keyid","sig"},"version"}` |
//!
//! ## Codes
//!
//! | code | step | what did not hold |
//! |---|---|---|
//! | `metadata_too_long` | 5.x.1 | at most the announced or the fixed number of bytes |
//! | `metadata_malformed` | 5.x | canonical JSON with `signatures` and `signed` |
//! | `metadata_shape` | 5.x | the fields of this type of metadata |
//! | `metadata_type` | 4.2.1 | `_type` is what was asked for |
//! | `metadata_spec_version` | 4.2.1 | `spec_version` is 1.x |
//! | `metadata_version_zero` | 4.2.1 | versions start with 1 |
//! | `metadata_time` | 4.2.1 | times are `2027-01-01T00:00:00Z` |
//! | `metadata_threshold_zero` | 4.2.1 | thresholds are at least 1 |
//! | `metadata_signatures` | | at most [`SIGNATURES_MAX`] signatures |
//! | `metadata_no_known_hash` | 5.7.3 | hashes, if there are any, include SHA-256 or SHA-512 |
//! | `root_not_self_signed` | 5.2 | the first root carries its own threshold |
//! | `root_threshold_trusted` | 5.3.4 | threshold by the keys of the root trusted before |
//! | `root_threshold_new` | 5.3.4 | threshold by its own keys |
//! | `root_version` | 5.3.5 | exactly the next version |
//! | `root_expired` | 5.3.10 | the final root is current |
//! | `timestamp_missing` `snapshot_missing` `targets_missing` `delegated_missing` | 5.x.1 | the file is there |
//! | `timestamp_threshold` | 5.4.2 | threshold by the root's keys |
//! | `timestamp_rollback` | 5.4.3.1 | version not lower than the trusted one's |
//! | `timestamp_snapshot_rollback` | 5.4.3.2 | its snapshot's version is not lower either |
//! | `timestamp_issued` | | `issued` is not after `expires` |
//! | `timestamp_expired` | 5.4.4 | current |
//! | `snapshot_length` `snapshot_hash` | 5.5.2 | as the timestamp says |
//! | `snapshot_threshold` | 5.5.3 | threshold by the root's keys |
//! | `snapshot_version` | 5.5.4 | as the timestamp says |
//! | `snapshot_role_removed` `snapshot_role_rollback` | 5.5.5 | every role listed before is listed, with no lower version |
//! | `snapshot_expired` | 5.5.6 | current |
//! | `snapshot_role_unlisted` | 5.6.1 | the snapshot lists this role |
//! | `targets_length` `targets_hash` | 5.6.2 | as the snapshot says |
//! | `targets_threshold` | 5.6.3 | threshold by the root's keys |
//! | `targets_version` | 5.6.4 | as the snapshot says |
//! | `targets_expired` | 5.6.5 | current |
//! | `delegated_length` `delegated_hash` `delegated_version` `delegated_expired` | 5.6.7 | the same for a delegated role |
//! | `delegated_threshold` | 5.6.7 | threshold by the keys of **this** delegator |
//! | `delegation_reserved` | | a delegated role is not called `root`, `timestamp`, `snapshot`, `targets` or nothing |
//! | `delegation_twice` | | a role is delegated to once per delegator |
//! | `delegation_patterns` | 4.5 | exactly one of `paths` and `path_hash_prefixes` |
//! | `delegation_roles` | 5.6.7.1 | at most [`ROLES_MAX`] roles on the way |
//! | `target_not_loaded` | | metadata on the way to this target has not been fetched |
//! | `target_unknown` | 5.6.7 | a role on the way lists this path |
//! | `target_withdrawn` | | the role that may speak for this path has not taken it back; the detail is its reason |
//! | `target_path` | | `<product>/<version>/<os>-<arch>/<file>` |
//! | `target_hash` | 5.7.3 | a target of ours has a SHA-256 |
//! | `target_custom` | | `custom` has our fields |
//! | `target_version` `target_os` `target_arch` | | `custom` says what the path says |
//! | `build_key_unknown` | | the root lists the key that signed the file |
//! | `file_too_long` `file_too_short` `file_hash` | 5.7.2-3 | as signed |
//! | `file_signature` | | the build signature over domain, path, length and bytes |

mod artifact;
mod delegation;
mod document;
mod file_check;
#[cfg(feature = "release")]
mod foreign;
mod glob;
mod keys;
mod meta;
#[cfg(feature = "package")]
mod package;
mod refresh;
mod restore;
mod root;
mod snapshot;
mod targets;
mod timestamp;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use ed25519_compact::PublicKey;

pub use artifact::{TargetCheck, TargetFile, Withdrawn};
pub use file_check::FileCheck;
pub use refresh::{Fetch, Fetched, Goal, Outcome, Persist, Refresh, Want};

use super::reason::Reason;
use super::time;
use document::expired;
use keys::Kinds;
use root::Root;
use snapshot::Snapshot;
use targets::Targets;
use timestamp::Timestamp;

/// Largest root metadata, bytes. Five keys, five signatures and build keys are under 4 KB; room for ten times that.
pub const ROOT_MAX: u64 = 64 * 1024;
/// Largest timestamp, bytes. A usual one has 500; it is fetched most often and its length is not known before.
pub const TIMESTAMP_MAX: u64 = 16 * 1024;
/// Largest snapshot, bytes: [`ROLES_MAX`] roles with long names and hashes need 8 KB.
pub const SNAPSHOT_MAX: u64 = 64 * 1024;
/// Largest targets or delegated metadata, bytes: about 250 artifacts. It is the agent's largest allocation.
pub const TARGETS_MAX: u64 = 128 * 1024;
/// Most delegated roles visited in one search: two products on nine platforms, and some to spare. TUF's own advice.
pub const ROLES_MAX: usize = 32;
/// Most roots walked up in one refresh; the next refresh goes on. Twenty years of weekly roots.
pub const ROTATIONS_MAX: u32 = 1024;
/// Most signatures on one document: each costs a pass over it. Usual are one to five.
pub const SIGNATURES_MAX: usize = 64;

/// Names of the four top-level roles; no delegated role may have one.
pub const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// One check that did not hold. The codes are listed at the top of this module. One pointer wide, as [`Reason`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(Box<Refused>);

/// The parts of a [`Refusal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stable, one per check.
    pub code: &'static str,
    /// The role (or for a file its path) that the check was about.
    pub role: String,
    /// What was found, for people.
    pub detail: String,
}

impl Refusal {
    /// What was found (`detail`) of `role`.
    pub fn new(code: &'static str, role: &str, detail: impl Into<String>) -> Refusal {
        Refusal(Box::new(Refused { code, role: role.to_string(), detail: detail.into() }))
    }
}

impl Deref for Refusal {
    type Target = Refused;

    fn deref(&self) -> &Refused {
        &self.0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.role, self.detail, self.code)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Reason {
        Reason::new(refusal.code, format!("{}: {}", refusal.role, refusal.detail))
    }
}

/// What is known of the time, fixed once per refresh (5.1).
///
/// The time used is the later of the local clock and the floor. The floor comes from signed times only: the build time
/// given here, and the `issued` field of the trusted timestamp, which [`Trusted`] adds by itself. So a device that boots
/// in 1970 is not fooled by metadata that expired before it was built, and one bad boot in 2099 blocks nothing for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Local clock, seconds since 1970; however wrong.
    pub unix: u64,
    /// Time of this build, or a later signed time.
    pub floor: u64,
    /// For how many seconds after their expiry a timestamp and a snapshot are still accepted: for sites without an
    /// outside link, set on the device itself (DESIGN 5). Version checks do not change. Usually 0.
    pub offline_grace_s: u64,
}

impl Now {
    fn at(&self, issued: Option<u64>) -> u64 {
        self.unix.max(self.floor).max(issued.unwrap_or(0))
    }
}

/// Metadata whose every check passed.
///
/// Made from a root that came with the device or was given by a person; grows by [`Refresh`] and by the `restore`
/// functions. Expiry is checked by [`Refresh`], at the time of use; [`Trusted::check_expiry`] asks again.
#[derive(Clone, Debug)]
pub struct Trusted {
    root: Root,
    timestamp: Option<Timestamp>,
    snapshot: Option<Snapshot>,
    targets: Option<Targets>,
    delegated: BTreeMap<String, Targets>,
}

impl Trusted {
    /// "5.2 Load the trusted root metadata file": from the device's image, or named by an operator. Its expiry does not
    /// matter; it must carry the threshold of its own keys.
    pub fn bootstrap(factory_root: &[u8]) -> Result<Trusted, Refusal> {
        Trusted::with(Root::bootstrap(factory_root, Kinds::Ed25519)?)
    }

    /// The same for other people's repositories: ECDSA and RSA keys count as well, here and in all that follows from this
    /// root. For hand use only; the checks are those of [`Trusted::bootstrap`].
    #[cfg(feature = "release")]
    pub fn bootstrap_foreign(root: &[u8]) -> Result<Trusted, Refusal> {
        Trusted::with(Root::bootstrap(root, Kinds::Foreign)?)
    }

    fn with(root: Root) -> Result<Trusted, Refusal> {
        Ok(Trusted { root, timestamp: None, snapshot: None, targets: None, delegated: BTreeMap::new() })
    }

    /// The bytes of the trusted root.
    pub fn root_bytes(&self) -> &[u8] {
        &self.root.doc.bytes
    }

    /// Target files are named with their hash (6.2).
    pub fn consistent_snapshot(&self) -> bool {
        self.root.consistent_snapshot
    }

    /// Trusted versions of root, timestamp, snapshot, targets; 0 = none yet.
    pub fn versions(&self) -> [u64; 4] {
        let timestamp = self.timestamp.as_ref().map_or(0, |t| t.head.version);
        let snapshot = self.snapshot.as_ref().map_or(0, |s| s.head.version);
        let targets = self.targets.as_ref().map_or(0, |t| t.head.version);
        [self.root.head.version, timestamp, snapshot, targets]
    }

    /// When each of root, timestamp, snapshot, targets expires, seconds since 1970.
    pub fn expiries(&self) -> [Option<u64>; 4] {
        let timestamp = self.timestamp.as_ref().map(|t| t.head.expires);
        let snapshot = self.snapshot.as_ref().map(|s| s.head.expires);
        let targets = self.targets.as_ref().map(|t| t.head.expires);
        [Some(self.root.head.expires), timestamp, snapshot, targets]
    }

    /// When the trusted timestamp was signed: the newest signed time this device has seen.
    pub fn issued(&self) -> Option<u64> {
        self.timestamp.as_ref().and_then(|t| t.issued)
    }

    /// Which of the top-level roles is expired, the most fundamental first. For health reports.
    pub fn check_expiry(&self, now: &Now) -> Result<(), Refusal> {
        let at = now.at(self.issued());
        let graces = [0, now.offline_grace_s, now.offline_grace_s, 0];
        let codes = ["root_expired", "timestamp_expired", "snapshot_expired", "targets_expired"];
        for (i, expires) in self.expiries().into_iter().enumerate() {
            if let Some(expires) = expires {
                expired(codes[i], TOP_LEVEL[i], expires, at, graces[i])?;
            }
        }
        Ok(())
    }

    /// The public key with this id among the root's build keys.
    pub fn build_key(&self, keyid: &str) -> Option<PublicKey> {
        self.root.build_keys.get(keyid).copied()
    }

    /// Ids of all build keys of the trusted root.
    pub fn all_build_keyids(&self) -> impl Iterator<Item = &str> {
        self.root.build_keys.keys().map(String::as_str)
    }

    /// The current metadata as files, in the order in which a mirror may replace them without ever showing a reader a
    /// file whose parts are not there yet: root, delegated roles, targets, snapshot, timestamp. Earlier roots are not here.
    pub fn files(&self) -> Vec<(String, &[u8])> {
        let mut out = vec![(file_name("root", self.root.head.version, true), &self.root.doc.bytes[..])];
        let consistent = self.root.consistent_snapshot;
        let current = |role: &&Targets| self.current(&role.name).is_ok();
        for role in self.delegated.values().chain(&self.targets).filter(current) {
            out.push((file_name(&role.name, role.head.version, consistent), &role.doc.bytes[..]));
        }
        if let Some(snapshot) = &self.snapshot {
            out.push((file_name("snapshot", snapshot.head.version, consistent), &snapshot.doc.bytes[..]));
        }
        if let Some(timestamp) = &self.timestamp {
            out.push(("timestamp.json".into(), &timestamp.doc.bytes[..]));
        }
        out
    }
}

/// "6.2 Consistent snapshots": the file name of metadata in a repository. Role names are percent-quoted, so that none
/// can leave the folder.
fn file_name(role: &str, version: u64, consistent: bool) -> String {
    let role = quoted(role);
    if consistent { format!("{version}.{role}.json") } else { format!("{role}.json") }
}

/// A role name as part of a URL or a file name: all but `a-z A-Z 0-9 - . _ ~` percent-quoted (RFC 3986 section 2.3).
pub fn quoted(role: &str) -> String {
    let mut out = String::with_capacity(role.len());
    for b in role.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn date(unix: u64) -> String {
    time::format(unix)
}

#[cfg(test)]
mod tests;
