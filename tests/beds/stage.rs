//! What every case needs once: builds of the agent, a published release, a Director, the root file system.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use vmetric::agent::trial::hash_file;
use vmetric::core::hex;
use vmetric::director::commands::TokenView;
use vmetric::io::clock;

use crate::Ended;
use crate::build::{self, BIG, Builds, CRASHES, CRASHES_LATER, FACTORY, GOOD, HANGS, UNWELL, Variant};
use crate::kept;
use crate::mount::{Mount, run};
use crate::release::{self, Release};
use crate::show::Show;
use crate::site::Site;

/// The builds that cases use.
const VERSIONS: [&str; 7] = [FACTORY, GOOD, CRASHES, HANGS, CRASHES_LATER, BIG, UNWELL];

/// Everything that cases share.
pub struct Stage {
    /// Work folder.
    pub work: PathBuf,
    /// The common part of every bed's root.
    pub root: PathBuf,
    /// The programs.
    pub builds: Builds,
    /// The published tree.
    pub release: Release,
    /// The Director on the host.
    pub site: Arc<Site>,
    /// Admits every device.
    pub token: TokenView,
    versions: HashMap<String, String>,
    _beds: Mount,
}

impl Stage {
    /// Builds, publishes, unpacks, starts.
    pub fn set_up(work: &Path) -> Result<Stage, Ended> {
        let began = clock::monotonic();
        let root = unpack(work)?;
        let unpacked = clock::monotonic();
        let show = Arc::new(Show::new(work));
        let wanted: Vec<Variant> = build::VARIANTS.into_iter().filter(|v| VERSIONS.contains(&v.version)).collect();
        let builds = kept::builds("beds-builds", work, &wanted)?;
        let built = clock::monotonic();
        let release = release::publish(work, &builds, &show)?;
        let site = Arc::new(Site::start(&work.join("director"), &builds, &release, &show)?);
        let token = site.ask("token create --uses 1000000 --ttl 24h")?;
        let mut versions = HashMap::new();
        for version in VERSIONS {
            let hash = hash_file(&builds.agent(version)).map_err(|e| e.to_string())?;
            versions.insert(hex::encode(&hash), version.to_string());
        }
        // What beds write is lost with them, and needs no disk.
        let beds = Mount::tmpfs(&work.join("beds"), "size=75%,mode=755")?;
        let seconds = |from: std::time::Duration, to: std::time::Duration| to.saturating_sub(from).as_secs_f64();
        println!(
            "root unpacked in {:.1} s, programs built in {:.1} s, release published and Director up in {:.1} s",
            seconds(began, unpacked),
            seconds(unpacked, built),
            seconds(built, clock::monotonic())
        );
        Ok(Stage { work: work.into(), root, builds, release, site, token, versions, _beds: beds })
    }

    /// The version of a program file, by its hash.
    pub fn version_of(&self, sha256: &str) -> Option<&str> {
        self.versions.get(sha256).map(String::as_str)
    }
}

/// Takes the root from the cache, where it is made first if need be.
fn unpack(work: &Path) -> Result<PathBuf, Ended> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/beds/root");
    let out = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|e| format!("{script}: {e}"))?;
    let tar = String::from_utf8_lossy(&out.stdout).trim().to_string();
    if !out.status.success() {
        return Err(Ended::DidNotRun("the root file system cannot be made (see above); mmdebstrap needs Debian's mirror".into()));
    }
    let root = work.join("root");
    fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    run("tar", &["-C", &root.display().to_string(), "--zstd", "-xf", &tar])?;
    Ok(root)
}
