//! The four kinds of TUF metadata (specification 1.0.34), as far as this tool writes them.
//!
//! Additions of ours, all inside the signed part where TUF keeps unknown fields: `x-vmetric-build-keys` in root, `issued`
//! in timestamp, `custom` of a target, `x-vmetric-withdrawn` in targets roles, `x-vmetric-notes` in the role `notes`.

use std::collections::{BTreeMap, BTreeSet};

use miniserde::json::Value;

use super::envelope::{Authority, Public, key_value, keyid};
use super::failure::Result;
use super::json::{Node, list, number, object, text};
use crate::core::hex::{self, Sha256};
use crate::core::notes::{FIELD, Notes};
use crate::core::package::Unpacked;
use crate::core::time;

/// The TUF version that the documents name.
const SPEC_VERSION: &str = "1.0.34";
/// Role names of TUF itself; a delegated role never has one of them.
pub const ROOT: &str = "root";
/// Delegates to one role per product and platform; lists no file itself.
pub const TARGETS: &str = "targets";
/// Names the version of every targets role.
pub const SNAPSHOT: &str = "snapshot";
/// Names the newest snapshot; the only file that is ever replaced.
pub const TIMESTAMP: &str = "timestamp";

/// Keys and threshold of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders {
    /// Ids of the keys that may sign.
    pub keyids: BTreeSet<String>,
    /// How many of them have to.
    pub threshold: u64,
}

/// Who may sign what.
#[derive(Clone, Debug)]
pub struct Root {
    /// Rises by one with each root.
    pub version: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// Key id to public key.
    pub keys: BTreeMap<String, Public>,
    /// The four top-level roles.
    pub roles: BTreeMap<String, Holders>,
    /// Keys that sign binaries; no TUF role, so that a holder of release keys alone cannot ship code.
    pub build_keys: BTreeMap<String, Public>,
}

/// `targets` and the delegated roles.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Rises with each change.
    pub version: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// Path to file.
    pub targets: BTreeMap<String, Target>,
    /// Keys of the delegated roles.
    pub keys: BTreeMap<String, Public>,
    /// In the order in which a client asks them.
    pub roles: Vec<Delegation>,
    /// Path to what was taken back, and why.
    pub withdrawn: BTreeMap<String, Withdrawal>,
    /// Release notes, in the one role that is theirs.
    pub notes: Notes,
}

/// Why a file was taken back. TUF tools ignore it; devices drop staged copies, Directors report who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// In the publisher's words.
    pub reason: String,
    /// The file.
    pub sha256: Sha256,
}

/// One delegated role. Always terminating: its paths belong to it alone.
#[derive(Clone, Debug)]
pub struct Delegation {
    /// `agent-linux-amd64`.
    pub name: String,
    /// Who signs.
    pub holders: Holders,
    /// Path patterns.
    pub paths: Vec<String>,
}

/// One artifact as a targets role lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Bytes.
    pub length: u64,
    /// Of the file.
    pub sha256: Sha256,
    /// `amd64`, `arm64`, `armv7`.
    pub arch: String,
    /// `linux`, `windows`, `darwin`.
    pub os: String,
    /// The release's version.
    pub release: String,
    /// Lowest version that may be running when this one is installed.
    pub min_version: Option<String>,
    /// Security counter.
    pub counter: u64,
    /// The build key that signed the file.
    pub build_keyid: String,
    /// Its signature.
    pub build_sig: [u8; 64],
    /// What a package unpacks to.
    pub unpacked: Option<Unpacked>,
}

/// How one metadata file describes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// Version of the described file.
    pub version: u64,
    /// Its length.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Sha256,
}

/// Snapshot and, with the one entry `snapshot.json`, timestamp.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Rises with each change.
    pub version: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// File name to description.
    pub meta: BTreeMap<String, FileMeta>,
    /// Timestamp only: when it was signed; raises the clock floor of devices.
    pub issued: Option<u64>,
}

fn header(kind: &str, version: u64, expires: u64) -> Vec<(&'static str, Value)> {
    vec![
        ("_type", text(kind)),
        ("expires", text(time::format(expires))),
        ("spec_version", text(SPEC_VERSION)),
        ("version", number(version)),
    ]
}

/// Version and expiry of any metadata document; refuses a document of another kind.
pub fn read_header(signed: &Node, kind: &str) -> Result<(u64, u64)> {
    let found = signed.field("_type")?;
    if found.text()? != kind {
        return Err(found.expected(&format!("'{kind}'")));
    }
    Ok((signed.field("version")?.number()?, read_time(&signed.field("expires")?)?))
}

fn read_time(node: &Node) -> Result<u64> {
    time::parse(node.text()?).ok_or_else(|| node.expected("a UTC date such as 2026-11-22T00:00:00Z"))
}

fn keys_value(keys: &BTreeMap<String, Public>) -> Value {
    object(keys.iter().map(|(id, public)| (id, key_value(public))))
}

fn read_keys(node: &Node) -> Result<BTreeMap<String, Public>> {
    let mut keys = BTreeMap::new();
    for (id, key) in node.fields()? {
        let public = key.field("keyval")?.field("public")?.hex()?;
        if keyid(&public) != id {
            return Err(key.expected("a key whose id is the SHA-256 of its canonical form"));
        }
        keys.insert(id.to_string(), public);
    }
    Ok(keys)
}

impl Holders {
    fn fields(&self) -> Vec<(&'static str, Value)> {
        vec![("keyids", list(self.keyids.iter().map(text))), ("threshold", number(self.threshold))]
    }

    fn read(node: &Node) -> Result<Holders> {
        let keyids = node.field("keyids")?.items()?.iter().map(|id| Ok(id.text()?.to_string())).collect::<Result<_>>()?;
        Ok(Holders { keyids, threshold: node.field("threshold")?.number()? })
    }

    fn authority(&self, name: String, keys: &BTreeMap<String, Public>) -> Authority {
        let keys = self.keyids.iter().filter_map(|id| Some((id.clone(), *keys.get(id)?))).collect();
        Authority { name, threshold: self.threshold, keys }
    }
}

impl Root {
    /// The signed part.
    pub fn to_value(&self) -> Value {
        let mut fields = header(ROOT, self.version, self.expires);
        fields.push(("consistent_snapshot", Value::Bool(true)));
        fields.push(("keys", keys_value(&self.keys)));
        fields.push(("roles", object(self.roles.iter().map(|(name, holders)| (name, object(holders.fields()))))));
        fields.push(("x-vmetric-build-keys", keys_value(&self.build_keys)));
        object(fields)
    }

    /// Reads the signed part.
    pub fn read(signed: &Node) -> Result<Root> {
        let (version, expires) = read_header(signed, ROOT)?;
        let mut roles = BTreeMap::new();
        for (name, holders) in signed.field("roles")?.fields()? {
            roles.insert(name.to_string(), Holders::read(&holders)?);
        }
        for name in [ROOT, TARGETS, SNAPSHOT, TIMESTAMP] {
            if !roles.contains_key(name) {
                return Err(signed.field("roles")?.expected(&format!("the role '{name}'")));
            }
        }
        let keys = read_keys(&signed.field("keys")?)?;
        Ok(Root { version, expires, keys, roles, build_keys: read_keys(&signed.field("x-vmetric-build-keys")?)? })
    }

    /// Who signs a top-level role by this root.
    pub fn authority(&self, role: &str) -> Option<Authority> {
        Some(self.roles.get(role)?.authority(format!("{role} (root version {})", self.version), &self.keys))
    }
}

impl Targets {
    /// The signed part.
    pub fn to_value(&self) -> Value {
        let mut fields = header(TARGETS, self.version, self.expires);
        fields.push(("targets", object(self.targets.iter().map(|(path, target)| (path, target.to_value())))));
        if !self.roles.is_empty() {
            let role = |role: &Delegation| {
                let mut fields = role.holders.fields();
                fields.push(("name", text(&role.name)));
                fields.push(("paths", list(role.paths.iter().map(text))));
                fields.push(("terminating", Value::Bool(true)));
                object(fields)
            };
            fields.push(("delegations", object([("keys", keys_value(&self.keys)), ("roles", list(self.roles.iter().map(role)))])));
        }
        if !self.withdrawn.is_empty() {
            let one = |w: &Withdrawal| object([("reason", text(&w.reason)), ("sha256", text(hex::encode(&w.sha256)))]);
            fields.push(("x-vmetric-withdrawn", object(self.withdrawn.iter().map(|(path, w)| (path, one(w))))));
        }
        if !self.notes.is_empty() {
            fields.push((FIELD, object(self.notes.iter().map(|(place, lines)| (place, list(lines.iter().map(text)))))));
        }
        object(fields)
    }

    /// Reads the signed part.
    pub fn read(signed: &Node) -> Result<Targets> {
        let (version, expires) = read_header(signed, TARGETS)?;
        let mut out = Targets { version, expires, ..Targets::default() };
        for (path, target) in signed.field("targets")?.fields()? {
            out.targets.insert(path.to_string(), Target::read(&target)?);
        }
        if let Some(withdrawn) = signed.find("x-vmetric-withdrawn") {
            for (path, w) in withdrawn.fields()? {
                let withdrawal = Withdrawal { reason: w.field("reason")?.text()?.to_string(), sha256: w.field("sha256")?.hex()? };
                out.withdrawn.insert(path.to_string(), withdrawal);
            }
        }
        if let Some(notes) = signed.find(FIELD) {
            for (place, lines) in notes.fields()? {
                let lines = lines.items()?.iter().map(|line| Ok(line.text()?.to_string())).collect::<Result<_>>()?;
                out.notes.insert(place.to_string(), lines);
            }
        }
        if let Some(delegations) = signed.find("delegations") {
            out.keys = read_keys(&delegations.field("keys")?)?;
            for role in delegations.field("roles")?.items()? {
                let paths = role.field("paths")?.items()?.iter().map(|p| Ok(p.text()?.to_string())).collect::<Result<_>>()?;
                let name = role.field("name")?.text()?.to_string();
                if !role.field("terminating")?.flag()? {
                    return Err(role.field("terminating")?.expected("true"));
                }
                out.roles.push(Delegation { name, holders: Holders::read(&role)?, paths });
            }
        }
        Ok(out)
    }

    /// Who signs a delegated role.
    pub fn authority(&self, role: &str) -> Option<Authority> {
        let found = self.roles.iter().find(|r| r.name == role)?;
        Some(found.holders.authority(format!("{role} (targets version {})", self.version), &self.keys))
    }
}

impl Target {
    fn to_value(&self) -> Value {
        let sig = object([("keyid", text(&self.build_keyid)), ("sig", text(hex::encode(&self.build_sig)))]);
        let mut custom = vec![
            ("arch", text(&self.arch)),
            ("counter", number(self.counter)),
            ("os", text(&self.os)),
            ("sig", sig),
            ("version", text(&self.release)),
        ];
        if let Some(min) = &self.min_version {
            custom.push(("min_version", text(min)));
        }
        if let Some(unpacked) = &self.unpacked {
            custom.push(("unpacked", object([("bytes", number(unpacked.bytes)), ("files", number(unpacked.files))])));
        }
        let hashes = object([("sha256", text(hex::encode(&self.sha256)))]);
        object([("custom", object(custom)), ("hashes", hashes), ("length", number(self.length))])
    }

    fn read(node: &Node) -> Result<Target> {
        let custom = node.field("custom")?;
        let word = |name: &str| Ok(custom.field(name)?.text()?.to_string());
        Ok(Target {
            length: node.field("length")?.number()?,
            sha256: node.field("hashes")?.field("sha256")?.hex()?,
            arch: word("arch")?,
            os: word("os")?,
            release: word("version")?,
            min_version: custom.find("min_version").map(|v| Ok(v.text()?.to_string())).transpose()?,
            counter: custom.field("counter")?.number()?,
            build_keyid: custom.field("sig")?.field("keyid")?.text()?.to_string(),
            build_sig: custom.field("sig")?.field("sig")?.hex()?,
            unpacked: custom.find("unpacked").map(|u| read_unpacked(&u)).transpose()?,
        })
    }
}

fn read_unpacked(node: &Node) -> Result<Unpacked> {
    Ok(Unpacked { bytes: node.field("bytes")?.number()?, files: node.field("files")?.number()? })
}

impl FileMeta {
    /// Describes a file.
    pub fn of(version: u64, bytes: &[u8]) -> FileMeta {
        FileMeta { version, length: bytes.len() as u64, sha256: hex::sha256(bytes) }
    }
}

impl Listing {
    /// The signed part of the role `kind`, [`SNAPSHOT`] or [`TIMESTAMP`].
    pub fn to_value(&self, kind: &str) -> Value {
        let meta = |m: &FileMeta| {
            let hashes = object([("sha256", text(hex::encode(&m.sha256)))]);
            object([("hashes", hashes), ("length", number(m.length)), ("version", number(m.version))])
        };
        let mut fields = header(kind, self.version, self.expires);
        fields.push(("meta", object(self.meta.iter().map(|(name, m)| (name, meta(m))))));
        if let Some(issued) = self.issued {
            fields.push(("issued", text(time::format(issued))));
        }
        object(fields)
    }

    /// Reads the signed part of the role `kind`.
    pub fn read(signed: &Node, kind: &str) -> Result<Listing> {
        let (version, expires) = read_header(signed, kind)?;
        let mut meta = BTreeMap::new();
        for (name, m) in signed.field("meta")?.fields()? {
            let sha256 = m.field("hashes")?.field("sha256")?.hex()?;
            meta.insert(
                name.to_string(),
                FileMeta { version: m.field("version")?.number()?, length: m.field("length")?.number()?, sha256 },
            );
        }
        Ok(Listing { version, expires, meta, issued: signed.find("issued").map(|t| read_time(&t)).transpose()? })
    }
}
