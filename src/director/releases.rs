//! Which verified artifacts this Director has, and which one a version means for an agent.

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize};

use super::table::Table;
use crate::core::hex;
use crate::core::notes::Notes;
use crate::core::reason::Reason;
use crate::core::release::{Artifact, Platform, TargetPath};
use crate::core::trust::Withdrawn;
use crate::core::version::Version;

/// Artifacts of the mirrored tree: signed and listed; those that are not in `away` are on this Director's disk, verified.
#[derive(Clone, Debug, Default)]
pub struct Releases {
    /// In no particular order.
    pub artifacts: Vec<Artifact>,
    /// By path, those whose file is not here, and why: nobody may take them, or they could not be fetched.
    pub away: BTreeMap<String, Reason>,
    /// What was taken back, and why.
    pub withdrawn: Vec<Withdrawn>,
    /// Release notes, plain lines, by product and version.
    pub notes: Notes,
}

impl Releases {
    /// The versions of a product, highest first.
    pub fn versions(&self, product: &str) -> Vec<Version> {
        let mut out: Vec<Version> = self.artifacts.iter().filter(|a| a.path.product == product).map(|a| a.path.version.clone()).collect();
        out.sort_by(|a, b| b.cmp(a));
        out.dedup();
        out
    }

    /// The version that `2.5.0` or `latest` means. `latest` never is a pre-release.
    ///
    /// # Errors
    /// `version_invalid`, `version_unknown`; the detail lists what there is.
    pub fn resolve(&self, product: &str, wanted: &str) -> Result<Version, Reason> {
        let versions = self.versions(product);
        let known = || {
            let list: Vec<String> = versions.iter().take(8).map(Version::to_string).collect();
            if list.is_empty() { "nothing of it".to_string() } else { list.join(", ") }
        };
        if wanted == "latest" {
            let latest = versions.iter().find(|v| !v.is_pre_release()).cloned();
            return latest.ok_or_else(|| Reason::new("version_unknown", format!("no release of {product}; the mirror has {}", known())));
        }
        let version: Version =
            wanted.parse().map_err(|e: crate::core::version::NotAVersion| Reason::new("version_invalid", e.to_string()))?;
        if versions.contains(&version) {
            return Ok(version);
        }
        if let Some(w) = self.withdrawn.iter().find(|w| w.path.product == product && w.path.version == version) {
            return Err(Reason::new("withdrawn", format!("{product} {version} was withdrawn: {}", w.reason)));
        }
        Err(Reason::new("version_unknown", format!("the mirror has no {product} {version}; it has {}", known())))
    }

    /// The file of a version for an agent that runs `running` on this platform.
    ///
    /// # Errors
    /// `no_artifact`, `min_version`.
    pub fn artifact(&self, product: &str, version: &Version, os: &str, arch: &str, running: &str) -> Result<&Artifact, Reason> {
        let platform = Platform { os: os.to_string(), arch: arch.to_string() };
        let file = platform.program(product);
        let fits =
            |a: &&Artifact| a.path.product == product && a.path.version == *version && a.path.platform == platform && a.path.file == file;
        let artifact = self.artifacts.iter().find(fits);
        let withdrawn =
            |w: &&Withdrawn| w.path.product == product && w.path.version == *version && w.path.platform == platform && w.path.file == file;
        let artifact = artifact.ok_or_else(|| match self.withdrawn.iter().find(withdrawn) {
            Some(w) => Reason::new("withdrawn", format!("{product} {version} was withdrawn: {}", w.reason)),
            None => Reason::new("no_artifact", format!("{product} {version} has no file for {os}-{arch}")),
        })?;
        // Only a known running version can be too old; an unreadable one is the agent's to judge.
        match (&artifact.min_version, running.parse::<Version>()) {
            (Some(floor), Ok(running)) if running < *floor => {
                Err(Reason::new("min_version", format!("{product} {version} needs at least {floor}; this device runs {running}")))
            }
            _ => Ok(artifact),
        }
    }

    /// Why a version cannot be ordered yet although it is listed: a file of it (the program, its package) is not here.
    pub fn not_here(&self, of: &Artifact) -> Option<Reason> {
        if self.away.is_empty() {
            return None;
        }
        let same =
            |a: &&Artifact| (&a.path.product, &a.path.version, &a.path.platform) == (&of.path.product, &of.path.version, &of.path.platform);
        self.artifacts.iter().filter(same).find_map(|a| {
            let path = a.path.to_string();
            let why = self.away.get(&path)?;
            Some(Reason::new("file_not_here", format!("{path} is fetched before it is ordered; so far: {} ({})", why.detail, why.code)))
        })
    }

    /// The listed artifact that is not here, by its path or by the name that it has with consistent snapshots.
    pub fn away_by_name(&self, name: &str) -> Option<&Artifact> {
        if self.away.is_empty() {
            return None;
        }
        let (folder, file) = name.rsplit_once('/')?;
        let plain = file.split_once('.').filter(|(sha256, _)| sha256.len() == 64).map(|(_, rest)| format!("{folder}/{rest}"));
        let named = |a: &&Artifact| {
            let path = a.path.to_string();
            path == name || (plain.as_ref() == Some(&path) && file.starts_with(&hex::encode(&a.sha256)))
        };
        self.artifacts.iter().find(named).filter(|a| self.away.contains_key(&a.path.to_string()))
    }

    /// True when this file is still part of the release.
    pub fn has(&self, sha256: &str) -> bool {
        self.artifacts.iter().any(|a| hex::encode(&a.sha256) == sha256)
    }
}

/// One file of the mirror.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ReleaseRow {
    /// `vmetric-agent`, ...
    pub product: String,
    /// Version.
    pub version: String,
    /// `linux`, ...
    pub os: String,
    /// `amd64`, ...
    pub arch: String,
    /// File name.
    pub file: String,
    /// Bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Oldest version from which it may be installed.
    pub min_version: Option<String>,
    /// Why its publisher took it back; it is not served.
    pub withdrawn: Option<String>,
    /// Why the file is not on this server's disk although it is listed; it is fetched when somebody may take it.
    pub away: Option<String>,
}

/// Notes of one release.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct NotesView {
    /// `vmetric-agent`, ...
    pub product: String,
    /// Version.
    pub version: String,
    /// Plain lines.
    pub lines: Vec<String>,
}

/// What the mirror holds, and what it could fetch.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct ReleasesView {
    /// By product and version, the highest first.
    pub releases: Vec<ReleaseRow>,
    /// Notes of the version that was asked for, of each product that has some; absent = none was asked for.
    pub notes: Option<Vec<NotesView>>,
    /// Server's time.
    pub time: u64,
}

/// What is shown of all artifacts.
pub fn view(releases: &Releases, now: u64) -> ReleasesView {
    let row = |path: &TargetPath, sha256: &[u8; 32]| ReleaseRow {
        product: path.product.clone(),
        version: path.version.to_string(),
        os: path.platform.os.clone(),
        arch: path.platform.arch.clone(),
        file: path.file.clone(),
        sha256: hex::encode(sha256),
        ..Default::default()
    };
    let there = releases.artifacts.iter().map(|a| {
        let min_version = a.min_version.as_ref().map(Version::to_string);
        let away = releases.away.get(&a.path.to_string()).map(ToString::to_string);
        (&a.path, ReleaseRow { length: a.length, min_version, away, ..row(&a.path, &a.sha256) })
    });
    let gone = releases.withdrawn.iter().map(|w| (&w.path, ReleaseRow { withdrawn: Some(w.reason.clone()), ..row(&w.path, &w.sha256) }));
    let mut rows: Vec<(&TargetPath, ReleaseRow)> = there.chain(gone).collect();
    let platform = |p: &TargetPath| (p.platform.os.clone(), p.platform.arch.clone(), p.file.clone());
    rows.sort_by(|(a, _), (b, _)| a.product.cmp(&b.product).then(b.version.cmp(&a.version)).then(platform(a).cmp(&platform(b))));
    ReleasesView { releases: rows.into_iter().map(|(_, row)| row).collect(), notes: None, time: now }
}

/// The notes of a version, `latest` for each product's highest one.
pub fn notes_of(releases: &Releases, wanted: &str) -> Vec<NotesView> {
    let split = |place: &String| place.split_once('/').map(|(product, version)| (product.to_string(), version.to_string()));
    let newest = |product: &str| releases.resolve(product, "latest").ok().map(|v| v.to_string());
    let meant = |product: &str, version: &str| version == wanted || (wanted == "latest" && newest(product).as_deref() == Some(version));
    let all = releases.notes.iter().filter_map(|(place, lines)| Some((split(place)?, lines)));
    all.filter(|((product, version), _)| meant(product, version))
        .map(|((product, version), lines)| NotesView { product, version, lines: lines.clone() })
        .collect()
}

/// The same for people.
pub fn text(view: &ReleasesView) -> String {
    if let Some(notes) = &view.notes {
        let one = |n: &NotesView| format!("{} {}\n\n{}\n", n.product, n.version, n.lines.join("\n"));
        let all: Vec<String> = notes.iter().map(one).collect();
        return if all.is_empty() { "there are no notes of this version\n".into() } else { all.join("\n") };
    }
    if view.releases.is_empty() {
        return "the mirror knows no release yet; `status` says when it was looked for last\n".into();
    }
    let mut table = Table::new(&["PRODUCT", "VERSION", "PLATFORM", "FILE", "BYTES", "SHA256", "HERE", "WITHDRAWN"]);
    for r in &view.releases {
        let (platform, why) = (format!("{}-{}", r.os, r.arch), r.withdrawn.clone().unwrap_or_default());
        let short = super::quarantine::short(&r.sha256).to_string();
        let here = if r.away.is_some() || r.withdrawn.is_some() { "no" } else { "yes" };
        table.row(vec![r.product.clone(), r.version.clone(), platform, r.file.clone(), r.length.to_string(), short, here.into(), why]);
    }
    table.text()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An artifact whose hash is its path's.
    pub(crate) fn artifact(path: &str) -> Artifact {
        Artifact {
            path: path.parse().unwrap(),
            length: 1_000,
            sha256: hex::sha256(path.as_bytes()),
            min_version: None,
            counter: 0,
            build_keyid: String::new(),
            build_sig: [0; 64],
        }
    }

    #[test]
    fn latest_is_the_highest_release() {
        let of = |v: &str| artifact(&format!("p/{v}/linux-amd64/p"));
        let withdrawn = vec![Withdrawn { path: of("1.1.0").path, sha256: [0; 32], reason: "eats data".into() }];
        let mut releases = Releases {
            withdrawn,
            away: BTreeMap::new(),
            notes: Notes::new(),
            artifacts: vec![of("1.2.0"), of("1.10.0"), of("2.0.0-rc.1")],
        };
        assert_eq!(releases.resolve("p", "latest").unwrap().to_string(), "1.10.0");
        assert_eq!(releases.resolve("p", "2.0.0-rc.1").unwrap().to_string(), "2.0.0-rc.1");
        assert_eq!(releases.resolve("p", "3.0.0").unwrap_err().code, "version_unknown");
        let reason = releases.resolve("p", "1.1.0").unwrap_err();
        assert!(reason.code == "withdrawn" && reason.detail.contains("eats data"), "{reason}");
        assert_eq!(releases.resolve("q", "latest").unwrap_err().code, "version_unknown");
        assert_eq!(releases.resolve("p", "x").unwrap_err().code, "version_invalid");
        releases.artifacts[0].min_version = Some("1.1.0".parse().unwrap());
        let find = |os: &str, running: &str| {
            releases.artifact("p", &"1.2.0".parse().unwrap(), os, "amd64", running).map(|_| ()).map_err(|r| r.code.clone())
        };
        assert_eq!(find("linux", "1.1.0"), Ok(()));
        assert_eq!(find("linux", "1.0.0"), Err("min_version".into()));
        assert_eq!(find("windows", "1.1.0"), Err("no_artifact".into()));
    }
}
