//! What every case needs once: three builds of the agent, a published release, a running Director, a device to copy.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmetric::agent::trial::hash_file;
use vmetric::core::hex;
use vmetric::core::product::{AGENT, Product};
use vmetric::director::commands::TokenView;

use crate::build::{self, Builds, FACTORY, GOOD, RAISED, Variant};
use crate::device::{Device, Flow};
use crate::director;
use crate::kept;
use crate::release::{self, Release};
use crate::show::Show;
use crate::site::Site;

/// What runs before the update, from slot a.
pub const OLD: &str = GOOD;
/// What the update brings; it raises the security counter, too.
pub const NEW: &str = RAISED;
/// A large artifact: every slice of a real download.
pub const LARGE: usize = 24 << 20;
/// Seconds for a whole case; an undisturbed one takes under one.
const CASE_S: u64 = 14;

/// Everything that cases share.
pub struct Stage {
    /// What is updated, and cut.
    pub product: &'static Product,
    /// What runs before the update, from slot a.
    pub old: &'static str,
    /// What the update brings.
    pub new: &'static str,
    /// Who orders updates.
    pub flows: &'static [Flow],
    /// What `update --file` is given: a tree, or a bundle of one.
    pub source: PathBuf,
    /// Seconds for a whole case.
    pub case_s: u64,
    /// Work folder.
    pub work: PathBuf,
    /// The programs.
    pub builds: Builds,
    /// The published tree.
    pub release: Release,
    /// The Director; none when nothing goes on-line.
    pub site: Option<Arc<Site>>,
    /// Admits every device.
    pub token: Option<TokenView>,
    /// State folder of a device that runs [`OLD`] from slot a, confirmed.
    pub seed: PathBuf,
    /// Versions of program files by their hashes.
    pub versions: HashMap<String, String>,
}

impl Stage {
    /// Builds, publishes, starts.
    pub fn set_up(work: &Path, deep: bool) -> Result<Stage, String> {
        let show = Arc::new(Show::new(work));
        let wanted: Vec<Variant> = [FACTORY, OLD, NEW].into_iter().filter_map(|v| variant(v, deep)).collect();
        let builds = kept::builds("crash-builds", work, &wanted)?;
        let release = release::publish(work, &builds, &show)?;
        let site = Some(Arc::new(Site::start(&work.join("director"), &builds, &release, &show)?));
        let token = site.as_ref().map(|s| s.ask("token create --uses 1000000 --ttl 24h")).transpose()?;
        let mut versions = HashMap::new();
        for version in [FACTORY, OLD, NEW] {
            let hash = hash_file(&builds.agent(version)).map_err(|e| e.to_string())?;
            versions.insert(hex::encode(&hash), version.to_string());
        }
        let stage = Stage {
            product: &AGENT,
            old: OLD,
            new: NEW,
            flows: &[Flow::File, Flow::Online],
            source: release.tree.clone(),
            case_s: CASE_S,
            work: work.to_path_buf(),
            builds,
            release,
            site,
            token,
            seed: work.join("seed/state"),
            versions,
        };
        stage.make_seed()?;
        Ok(stage)
    }

    /// The program of a version; of the factory's, too.
    pub fn program(&self, version: &str) -> PathBuf {
        if self.is_director() { self.builds.director_of(version) } else { self.builds.agent(version) }
    }

    /// The program of the factory image.
    pub fn factory(&self) -> PathBuf {
        self.program(if self.is_director() { director::FACTORY } else { FACTORY })
    }

    /// A Director updates itself here.
    pub fn is_director(&self) -> bool {
        self.product != &AGENT
    }

    /// A group's name for this product.
    pub fn group(&self, name: &str) -> String {
        if self.is_director() { format!("{name}-director") } else { name.into() }
    }

    /// The version of a program file, by its hash.
    pub fn version_of(&self, file: &Path) -> Option<String> {
        let hash = hash_file(file).ok()?;
        self.versions.get(&hex::encode(&hash)).cloned()
    }

    /// A device that has made one update and has been started once since.
    pub fn make_seed(&self) -> Result<(), String> {
        let device = Device::bare(self, &self.work.join("seed"))?;
        if self.is_director() {
            director::furnish(self, &device.state)?;
        }
        device.update_to(self, Flow::File, self.old, "boot-0", None)?;
        let mut agent = device.spawn("boot-1", None)?;
        let settled = device.truth(self, &mut agent);
        if self.is_director() {
            director::use_it(&device)?;
        } else {
            // Each copy has an identity of its own, or none.
            fs::remove_dir_all(self.seed.join("config")).map_err(|e| e.to_string())?;
        }
        device.stop(&mut agent);
        if settled? == self.old { Ok(()) } else { Err("the seed does not run its version".into()) }
    }
}

/// A deep run's update is a large one.
fn variant(version: &str, deep: bool) -> Option<Variant> {
    let found = build::VARIANTS.into_iter().find(|v| v.version == version)?;
    Some(Variant { padded_to: if deep && version == NEW { LARGE } else { 0 }, ..found })
}
