//! `vmetric.yml`: the Director's configuration file.
//!
//! ```text
//!  bytes -> yaml (a tree with lines, or what is refused) -> fields (names and types) -> Config
//!  Config + command line -> start (what this process runs with; the command line wins)
//!  watch: the file again, twice a second; a valid change takes effect, an invalid one is told and changes nothing
//! ```
//!
//! Every problem has file, line, field, what was found and what is allowed, and all are told at once. [`example::TEXT`] shows
//! every field with its default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub mod command;
pub mod example;
pub mod fields;
pub mod find;
#[cfg(unix)]
pub mod key;
pub mod problem;
pub mod start;
pub mod update;
#[cfg(unix)]
pub mod watch;
pub mod yaml;

use self::fields::{At, Section};
use self::problem::{Problem, reason};
use self::update::Update;
use self::yaml::{FILE_MAX, Node};
use crate::core::cluster::{MEMBERS_MAX, MEMBERS_MIN};
use crate::core::failover::is_address;
use crate::core::reason::Reason;
use crate::core::version::Version;
use crate::io::fs::read_limited;
use crate::io::tls::Pin;
use crate::wire::settings::SettingsWire;

const NAMES: [&str; 12] =
    ["name", "listen", "root", "tls", "mirror", "fleet", "cluster", "time_zone", "update", "agents", "retention", "limits"];
const DAY: u64 = 86_400;
const GIB: u64 = 1 << 30;

/// The file's settings; what is not set is `None`, and has its default where it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Host name or address that agents use.
    pub name: Option<At<String>>,
    /// Addresses to serve on.
    pub listen: Vec<At<SocketAddr>>,
    /// Root metadata to begin with.
    pub root: Option<At<PathBuf>>,
    /// The operator's certificate chain and key.
    pub tls: Option<(At<PathBuf>, At<PathBuf>)>,
    /// Where releases come from.
    pub mirror: Option<MirrorFrom>,
    /// The Fleet that manages this Director.
    pub fleet: Option<Fleet>,
    /// Where agents reach each member of this Director's cluster, itself among them; empty = it stands alone.
    pub members: Vec<At<String>>,
    /// Zone of the schedules; `local` is the system's.
    pub time_zone: Option<At<String>>,
    /// This Director's own updates.
    pub update: Option<Update>,
    /// The default for its agents.
    pub agents_update: Option<Update>,
    /// How long what is kept.
    pub retention: Retention,
    /// How much there may be.
    pub limits: Limits,
}

/// `mirror:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFrom {
    /// A folder, or `https://`.
    pub from: At<String>,
    /// CA key of that server.
    pub pin: Option<At<Pin>>,
}

/// `fleet:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// `https://host:port`.
    pub address: At<String>,
    /// CA key of Fleet.
    pub pin: At<Pin>,
    /// File with the API key that enrolls this Director; needed once.
    pub key_file: Option<At<PathBuf>>,
}

/// `retention:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Age of the oldest event, seconds.
    pub activity: Option<At<u64>>,
    /// Bytes of events.
    pub activity_bytes: Option<At<u64>>,
    /// Number of backups.
    pub backups: Option<At<u64>>,
    /// Bytes of backups.
    pub backup_bytes: Option<At<u64>>,
}

/// `limits:`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of artifacts in the mirror.
    pub mirror_bytes: Option<At<u64>>,
    /// Bytes of artifacts sent to all agents in a day.
    pub bytes_per_day: Option<At<u64>>,
    /// Bytes of artifacts sent to all agents in a second.
    pub bytes_per_second: Option<At<u64>>,
    /// Downloads of agents at once.
    pub downloads: Option<At<u64>>,
    /// As `bytes_per_day`, to one agent.
    pub agent_bytes_per_day: Option<At<u64>>,
    /// As `bytes_per_second`, to one agent.
    pub agent_bytes_per_second: Option<At<u64>>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// All problems; a file that cannot be read is one, in line 1.
    pub fn read(file: &Path) -> Result<(Config, Vec<u8>), Vec<Problem>> {
        let one = |found: &str, allowed: &str| vec![Problem::new(1, "", found, allowed)];
        match read_limited(file, FILE_MAX) {
            Ok(Some(bytes)) => Config::parse(&bytes).map(|config| (config, bytes)),
            Ok(None) => Err(one("no such file", "a file, or no `--config`; `vmetric-director -example` prints one")),
            Err(e) => Err(one(&e.to_string(), "a file that this user can read, of at most 1 MiB")),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// All problems, in the order of their lines.
    pub fn parse(bytes: &[u8]) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let config = Config::collect(&yaml::read(bytes)?, &mut problems);
        problems.sort_by_key(|p| p.line);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// What is good, although there are names that this version does not know: a file of a newer version, after going back.
    pub fn parse_known(bytes: &[u8]) -> Option<Config> {
        let mut problems = Vec::new();
        let config = Config::collect(&yaml::read(bytes).ok()?, &mut problems);
        problems.iter().all(|p| p.unknown).then_some(config)
    }

    fn collect(root: &Node, problems: &mut Vec<Problem>) -> Config {
        // The specification's own example loses its indentation when it is copied from a page.
        let elsewhere: Vec<(&str, &str)> = update::NAMES.iter().map(|n| (*n, "indent it below `update:`")).collect();
        let Some(s) = Section::open("", root, &NAMES, &elsewhere, problems) else { return Config::default() };
        Config {
            name: s.parsed("name", "a host name or an address, without port", host, problems),
            listen: s.addresses("listen", problems),
            root: s.file("root", problems),
            tls: s.node("tls").and_then(|(_, node)| tls(node, problems)),
            mirror: s.node("mirror").and_then(|(_, node)| MirrorFrom::read(node, problems)),
            fleet: s.node("fleet").and_then(|(_, node)| Fleet::read(node, problems)),
            members: s.node("cluster").map(|(_, node)| members(node, problems)).unwrap_or_default(),
            time_zone: s.parsed("time_zone", "a zone such as Europe/Berlin, `UTC` or `local`", zone, problems),
            update: s.node("update").and_then(|(_, node)| Update::read("update.", node, true, problems)),
            agents_update: s.node("agents").and_then(|(_, node)| agents(node, problems)),
            retention: s.node("retention").map(|(_, node)| Retention::read(node, problems)).unwrap_or_default(),
            limits: s.node("limits").map(|(_, node)| Limits::read(node, problems)).unwrap_or_default(),
        }
    }

    /// The `update:` section as Fleet hears of it, with the file's zone.
    pub fn own_update(&self) -> Option<SettingsWire> {
        let zone = self.time_zone.as_ref().map(|zone| zone.value.clone());
        self.update.as_ref().map(|update| SettingsWire { zone, ..update.wire() })
    }

    /// Whether the file forbids that this Director runs `version` because somebody else says so. A stolen Fleet cannot overrule it.
    ///
    /// # Errors
    /// `file_manual`, `file_version`.
    pub fn local_policy(&self, file: &str, version: &Version) -> Result<(), Reason> {
        self.update.as_ref().map_or(Ok(()), |update| update.permits(file, version))
    }
}

/// All problems of a file as one reason.
///
/// # Errors
/// `config_invalid`.
pub fn read(file: &Path) -> Result<(Config, Vec<u8>), Reason> {
    Config::read(file).map_err(|problems| reason(file, &problems))
}

fn host(text: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let good = text.parse::<std::net::IpAddr>().is_ok() || (text.len() <= 253 && text.chars().all(plain) && !text.starts_with('-'));
    good.then(|| text.to_string())
}

fn zone(text: &str) -> Option<String> {
    let wire = SettingsWire { zone: Some(text.to_string()), ..SettingsWire::default() };
    wire.check().ok().map(|_| text.to_string())
}

fn https(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://")?;
    (!rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c == '@')).then(|| text.to_string())
}

fn tls(node: &Node, problems: &mut Vec<Problem>) -> Option<(At<PathBuf>, At<PathBuf>)> {
    let s = Section::open("tls.", node, &["certificate", "key"], &[], problems)?;
    let (certificate, key) = (s.file("certificate", problems), s.file("key", problems));
    for (name, there) in [("certificate", s.node("certificate")), ("key", s.node("key"))] {
        if there.is_none() {
            problems.push(Problem::new(s.line, &s.path(name), "nothing", "both: the chain, leaf first, and its key"));
        }
    }
    Some((certificate?, key?))
}

/// `cluster:`.
fn members(node: &Node, problems: &mut Vec<Problem>) -> Vec<At<String>> {
    let Some(s) = Section::open("cluster.", node, &["members"], &[], problems) else { return Vec::new() };
    let allowed = "https://HOST:PORT, where agents reach a member, each in a line of its own";
    let (before, found) = (problems.len(), s.list("members", allowed, |t| is_address(t).then(|| t.to_string()), problems));
    if problems.len() == before && (found.len().is_multiple_of(2) || !(MEMBERS_MIN..=MEMBERS_MAX).contains(&found.len())) {
        let allowed = format!("an odd number from {MEMBERS_MIN} to {MEMBERS_MAX}: more than half of them must be up");
        problems.push(Problem::new(s.line, "cluster.members", &format!("{} of them", found.len()), &allowed));
    }
    found
}

fn agents(node: &Node, problems: &mut Vec<Problem>) -> Option<Update> {
    let elsewhere: Vec<(&str, &str)> = update::NAMES.iter().map(|n| (*n, "indent it below `agents:`, `update:`")).collect();
    let s = Section::open("agents.", node, &["update"], &elsewhere, problems)?;
    Update::read("agents.update.", s.node("update")?.1, false, problems)
}

impl MirrorFrom {
    fn read(node: &Node, problems: &mut Vec<Problem>) -> Option<MirrorFrom> {
        let s = Section::open("mirror.", node, &["from", "pin"], &[], problems)?;
        let allowed = "an absolute path of a folder with metadata/ and targets/, or https://HOST...";
        let good = |t: &str| https(t).or_else(|| Path::new(t).is_absolute().then(|| t.to_string()));
        let (from, pin) = (s.parsed("from", allowed, good, problems), s.pin("pin", problems));
        match (&from, s.node("pin")) {
            (None, _) if s.node("from").is_none() => problems.push(Problem::new(s.line, "mirror.from", "nothing", allowed)),
            (Some(from), None) if from.value.starts_with("https://") => {
                let allowed = "required with https://: the SHA-256 of the CA's public key; no web CA is trusted here";
                problems.push(Problem::new(s.line, "mirror.pin", "nothing", allowed));
            }
            _ => {}
        }
        Some(MirrorFrom { from: from?, pin })
    }
}

impl Fleet {
    fn read(node: &Node, problems: &mut Vec<Problem>) -> Option<Fleet> {
        let s = Section::open("fleet.", node, &["address", "pin", "key_file"], &[], problems)?;
        let allowed = "https://HOST:PORT of the Fleet server";
        let (address, pin) = (s.parsed("address", allowed, https, problems), s.pin("pin", problems));
        let key_file = s.file("key_file", problems);
        for (name, allowed) in [("address", allowed), ("pin", "required: `sha256:` and 64 hex digits, as `vmetric-fleet pin` prints it")] {
            if s.node(name).is_none() {
                problems.push(Problem::new(s.line, &s.path(name), "nothing", allowed));
            }
        }
        Some(Fleet { address: address?, pin: pin?, key_file })
    }
}

impl Retention {
    fn read(node: &Node, problems: &mut Vec<Problem>) -> Retention {
        let names = ["activity", "activity_bytes", "backups", "backup_bytes"];
        let Some(s) = Section::open("retention.", node, &names, &[], problems) else { return Retention::default() };
        Retention {
            activity: s.duration("activity", (DAY, 3660 * DAY), problems),
            activity_bytes: s.bytes("activity_bytes", (1 << 20, 4 * GIB), problems),
            backups: s.number("backups", (1, 100), problems),
            backup_bytes: s.bytes("backup_bytes", (64 << 20, 1024 * GIB), problems),
        }
    }
}

impl Limits {
    fn read(node: &Node, problems: &mut Vec<Problem>) -> Limits {
        let names = ["mirror_bytes", "bytes_per_day", "bytes_per_second", "downloads", "agent"];
        let Some(s) = Section::open("limits.", node, &names, &[], problems) else { return Limits::default() };
        let agent = s
            .node("agent")
            .and_then(|(_, node)| Section::open("limits.agent.", node, &["bytes_per_day", "bytes_per_second"], &[], problems));
        let (day, second) = ((1 << 20, 1 << 50), (1 << 10, 1 << 40));
        Limits {
            mirror_bytes: s.bytes("mirror_bytes", (1 << 20, 1 << 50), problems),
            bytes_per_day: s.bytes("bytes_per_day", day, problems),
            bytes_per_second: s.bytes("bytes_per_second", second, problems),
            downloads: s.number("downloads", (1, 10_000), problems),
            agent_bytes_per_day: agent.as_ref().and_then(|a| a.bytes("bytes_per_day", day, problems)),
            agent_bytes_per_second: agent.as_ref().and_then(|a| a.bytes("bytes_per_second", second, problems)),
        }
    }
}

#[cfg(test)]
mod tests;
