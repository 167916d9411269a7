//! The release engineer's part: keys, signatures, a published tree of static files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vmetric::io::fs::{PUBLIC, write_volatile};

use crate::build::{self, Builds, GOOD, RAISED_COUNTER};
use crate::show::Show;

/// A platform that no device here has.
pub const OTHER_PLATFORM: &str = "windows-amd64";

/// What was published.
pub struct Release {
    /// `metadata/` and `targets/`.
    pub tree: PathBuf,
    /// The root metadata that devices and Directors begin with.
    pub root: PathBuf,
    /// The good version's files and all metadata in one file.
    pub bundle: PathBuf,
}

/// Makes keys, adds every build, signs, publishes, and verifies as a device does.
pub fn publish(work: &Path, builds: &Builds, show: &Show) -> Result<Release, String> {
    let others = work.join("stand-in");
    let other = others.join(GOOD).join(OTHER_PLATFORM).join("vmetric-agent.exe");
    std::fs::create_dir_all(other.parent().unwrap_or(work)).map_err(|e| e.to_string())?;
    write_volatile(&other, b"a program for another platform", PUBLIC).map_err(|e| e.to_string())?;
    let run = |line: &str, operand: Option<&Path>| -> Result<(), String> {
        let mut command = Command::new(&builds.release);
        command.args(line.split(' ')).args(operand).current_dir(work).stdin(Stdio::null());
        command.env("VMETRIC_RELEASE_PASSPHRASE", "only good for this demonstration");
        let out = command.output().map_err(|e| format!("{}: {e}", builds.release.display()))?;
        match out.status.success() {
            true => Ok(()),
            false => Err(format!("vmetric-release {line}: {}", String::from_utf8_lossy(&out.stderr))),
        }
    };
    run("init --repo release --keys keys --root-keys 3 --root-threshold 2 --targets-keys 2 --targets-threshold 2", None)?;
    // Built here, for here: with this system's own C library.
    run("add --repo release --keys keys --product vmetric-agent --allow-dynamic", Some(&builds.agents))?;
    run("add --repo release --keys keys --product vmetric-agent --unchecked a-stand-in", Some(&others))?;
    // Counters never fall, so the release that raises it comes last.
    if builds.raised.exists() {
        run(
            &format!("add --repo release --keys keys --product vmetric-agent --allow-dynamic --counter {RAISED_COUNTER}"),
            Some(&builds.raised),
        )?;
    }
    if builds.directors.exists() {
        for v in build::DIRECTORS
            .iter()
            .chain(&build::STAYING[..1])
            .chain(&build::CLUSTER[2..])
            .filter(|v| builds.director_of(v.version).exists())
        {
            let resources = work.join("resources").join(v.version);
            let package = builds.director_of(v.version).with_file_name("package.tar.zst");
            resource(&resources, "pipelines/site.yml", v.version)?;
            resource(&resources, "lookups/hosts.csv", "name,address\n")?;
            run(&format!("package {} --out", resources.display()), Some(&package))?;
        }
        run("add --repo release --keys keys --allow-dynamic", Some(&builds.directors))?;
    }
    run("sign --repo release --keys keys", None)?;
    run("publish --repo release --out public", None)?;
    run("verify --tree public --root release/root.json", None)?;
    run(&format!("bundle --tree public --out site.vmb --product vmetric-agent --version {GOOD}"), None)?;
    run("verify --bundle site.vmb --root release/root.json", None)?;
    show.say("", "release", "made keys, signed every build (root 2 of 3, targets 2 of 2), published, verified");
    Ok(Release { tree: work.join("public"), root: work.join("release/root.json"), bundle: work.join("site.vmb") })
}

/// A file of a package. Its contents name the version, so that it shows which package is in use.
fn resource(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(|e| format!("{}: {e}", path.display()))?;
    write_volatile(&path, text.as_bytes(), PUBLIC).map_err(|e| format!("{}: {e}", path.display()))
}
