//! What every case needs once: three builds of the agent, a published release, a running Director, a device to copy.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use vmetric::agent::trial::hash_file;
use vmetric::core::hex;
use vmetric::director::commands::TokenView;

use crate::build::{self, Builds, FACTORY, GOOD, RAISED};
use crate::device::{Device, Flow};
use crate::release::{self, Release};
use crate::show::Show;
use crate::site::Site;

/// What runs before the update, from slot a.
pub const OLD: &str = GOOD;
/// What the update brings; it raises the security counter, too.
pub const NEW: &str = RAISED;
/// A large artifact: every slice of a real download.
const LARGE: usize = 24 << 20;

/// Everything that cases share.
pub struct Stage {
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
    versions: HashMap<String, String>,
}

impl Stage {
    /// Builds, publishes, starts.
    pub fn set_up(work: &Path, deep: bool) -> Result<Stage, String> {
        let show = Arc::new(Show::new(work));
        let builds = builds(work, deep)?;
        let release = release::publish(work, &builds, &show)?;
        let site = Some(Arc::new(Site::start(&work.join("director"), &builds, &release, &show)?));
        let token = site.as_ref().map(|s| s.ask("token create --uses 1000000 --ttl 24h")).transpose()?;
        let mut versions = HashMap::new();
        for version in [FACTORY, OLD, NEW] {
            let hash = hash_file(&builds.agent(version)).map_err(|e| e.to_string())?;
            versions.insert(hex::encode(&hash), version.to_string());
        }
        let mut stage = Stage { work: work.to_path_buf(), builds, release, site, token, seed: work.join("seed/state"), versions };
        stage.make_seed()?;
        Ok(stage)
    }

    /// The version of a program file, by its hash.
    pub fn version_of(&self, file: &Path) -> Option<String> {
        let hash = hash_file(file).ok()?;
        self.versions.get(&hex::encode(&hash)).cloned()
    }

    /// A device that has made one update and has been started once since.
    fn make_seed(&mut self) -> Result<(), String> {
        let device = Device::bare(self, &self.work.join("seed"))?;
        device.update_to(self, Flow::File, OLD, "boot-0", None)?;
        let mut agent = device.spawn("boot-1", None)?;
        let settled = device.truth(self, &mut agent);
        device.stop(&mut agent);
        // Each copy has an identity of its own, or none.
        fs::remove_dir_all(self.seed.join("config")).map_err(|e| e.to_string())?;
        if settled? == OLD { Ok(()) } else { Err("the seed does not run its version".into()) }
    }
}

/// Three static builds, kept between runs as long as no source is newer.
fn builds(work: &Path, deep: bool) -> Result<Builds, String> {
    let told = |e: std::io::Error| e.to_string();
    let own = std::env::current_exe().map_err(told)?;
    let beside = own.parent().ok_or("this program lies in no folder")?;
    let target = beside.parent().ok_or("this program does not lie in a target folder")?;
    let kept = target.join("crash-builds");
    let builds = Builds {
        director: beside.join("vmetric-director"),
        release: beside.join("vmetric-release"),
        agents: work.join("builds"),
        raised: work.join("raised"),
    };
    let stamp = kept.join("stamp");
    let fresh = fs::metadata(&stamp).and_then(|m| m.modified()).is_ok_and(|at| newest_source() < at);
    for version in [FACTORY, OLD, NEW] {
        let file = kept.join(version);
        if !fresh {
            let _ = fs::remove_file(&stamp);
            let host = "x86_64-unknown-linux-gnu";
            let args =
                ["--profile", "demo", "--no-default-features", "--features", "agent,fault", "--bin", "vmetric-agent", "--target", host];
            let env = [("VMETRIC_VERSION", version), ("VMETRIC_FAULT", ""), ("RUSTFLAGS", "-C target-feature=+crt-static")];
            build::cargo(target, &args, &env)?;
            build::take(&target.join(host).join("demo/vmetric-agent"), &file, 0)?;
        }
        let padded_to = if deep && version == NEW { LARGE } else { 0 };
        build::take(&file, &builds.agent(version), padded_to)?;
    }
    if !fresh {
        build::cargo(target, &["--bin", "vmetric-director", "--bin", "vmetric-release"], &[])?;
        fs::write(&stamp, b"").map_err(told)?;
    }
    Ok(builds)
}

fn newest_source() -> SystemTime {
    fn newest(path: &Path) -> SystemTime {
        let own = fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|e| newest(&e.path()));
        inside.fold(own, SystemTime::max)
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["src", "build.rs", "Cargo.toml", "Cargo.lock"].iter().map(|name| newest(&top.join(name))).fold(SystemTime::UNIX_EPOCH, SystemTime::max)
}
