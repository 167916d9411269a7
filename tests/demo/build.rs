//! Really different builds of the agent and the Director, each with its own version and, for most, a fault of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vmetric::io::fs::{PROGRAM, write_volatile};

use crate::show::Show;

/// One build of the agent.
#[derive(Clone, Copy)]
pub struct Variant {
    /// The version it calls itself.
    pub version: &'static str,
    /// What is wrong with it (`VMETRIC_FAULT`), or nothing.
    pub fault: &'static str,
    /// The same for people.
    pub words: &'static str,
    /// Length that trailing bytes bring it to; 0 = as it is.
    pub padded_to: usize,
}

const fn variant(version: &'static str, fault: &'static str, words: &'static str) -> Variant {
    Variant { version, fault, words, padded_to: 0 }
}

/// The version in the factory image of every device.
pub const FACTORY: &str = "1.0.0";
/// A good version.
pub const GOOD: &str = "1.1.0";
/// Aborts at its start.
pub const CRASHES: &str = "1.2.0";
/// Never takes a turn.
pub const HANGS: &str = "1.3.0";
/// Does not find its Director.
pub const MUTE: &str = "1.4.0";
/// Works until a file appears, then aborts at each start.
pub const CRASHES_LATER: &str = "1.5.0";
/// A good version, large enough to be interrupted on its way.
pub const BIG: &str = "1.6.0";
/// A good version whose copy in a mirror gets damaged.
pub const TAMPERED: &str = "1.7.0";
/// Fails its self-test.
pub const UNFIT: &str = "1.8.0";
/// Fails its self-check.
pub const UNWELL: &str = "1.9.0";
/// A good version that says: nothing older than me any more.
pub const RAISED: &str = "2.0.0";
/// The security counter of [`RAISED`].
pub const RAISED_COUNTER: u64 = 5;

/// Every build there is.
pub const VARIANTS: [Variant; 11] = [
    variant(FACTORY, "", "good; the factory image"),
    variant(GOOD, "", "good"),
    variant(CRASHES, "crash", "crashes at its start"),
    variant(HANGS, "hang", "hangs at its start"),
    variant(MUTE, "no-contact", "never finds its Director"),
    variant(CRASHES_LATER, "crash-later", "good, crashes days later"),
    Variant { version: BIG, fault: "", words: "good, 24 MB", padded_to: 24 << 20 },
    variant(TAMPERED, "", "good, to be tampered with"),
    variant(UNFIT, "self-test", "fails its self-test"),
    variant(UNWELL, "self-check", "fails its self-check"),
    variant(RAISED, "", "good, forbids older ones"),
];

/// The version in the factory image of Directors that show themselves in Fleet's GUI.
pub const DIRECTOR_FACTORY: &str = "3.0.0";
/// A good version of the Director. No agent has these versions, so that nothing is mistaken for the other product's.
pub const DIRECTOR_GOOD: &str = "3.1.0";
/// A Director that aborts at its start.
pub const DIRECTOR_BROKEN: &str = "3.2.0";
/// The same for `--stay`, where they are the factory image, too: only they have the names that are given to them.
pub const STAYING: [Variant; 2] = [variant(DIRECTOR_FACTORY, "", "good; the factory image"), variant(DIRECTOR_GOOD, "", "good")];
/// A Director that aborts at its start where a certain file lies.
pub const DIRECTOR_PICKY: &str = "3.3.0";
/// Of `cargo demo -- cluster`.
pub const CLUSTER: [Variant; 3] = [STAYING[0], STAYING[1], variant(DIRECTOR_PICKY, "crash-later", "good, crashes on some hosts")];
/// Builds of the Director that are released here; the one beside this program is everybody's factory image.
pub const DIRECTORS: [Variant; 2] =
    [variant(DIRECTOR_GOOD, "", "good, with a package"), variant(DIRECTOR_BROKEN, "crash", "crashes at its start, with a package")];

/// The programs under test, all built.
pub struct Builds {
    /// `vmetric-director`, beside this program.
    pub director: PathBuf,
    /// `vmetric-fleet`, beside this program.
    pub fleet: PathBuf,
    /// `<version>/<os>-<arch>/vmetric-director` for every one of [`DIRECTORS`].
    pub directors: PathBuf,
    /// `vmetric-release`, beside this program.
    pub release: PathBuf,
    /// `<version>/<os>-<arch>/vmetric-agent` for every [`Variant`] but [`RAISED`].
    pub agents: PathBuf,
    /// The same for [`RAISED`], which is added with a security counter.
    pub raised: PathBuf,
}

impl Builds {
    /// The program of one version.
    pub fn agent(&self, version: &str) -> PathBuf {
        let folder = if version == RAISED { &self.raised } else { &self.agents };
        folder.join(version).join(platform()).join("vmetric-agent")
    }

    /// A released Director of one version.
    pub fn director_of(&self, version: &str) -> PathBuf {
        self.directors.join(version).join(platform()).join("vmetric-director")
    }
}

/// `linux-amd64`.
pub fn platform() -> String {
    vmetric::core::release::Platform::here().to_string()
}

/// Builds everything into `work`. What lies in `kept` is taken from there, and what is built is left there: whoever names that
/// folder sees to it that it belongs to these sources.
pub fn build(work: &Path, show: &Show, wanted: &[Variant], directors: &[Variant], kept: Option<&Path>) -> Result<Builds, String> {
    let own = std::env::current_exe().map_err(|e| format!("where is this program: {e}"))?;
    let beside = own.parent().ok_or("this program lies in no folder")?;
    let target = beside.parent().ok_or("this program does not lie in a target folder")?;
    let profile = beside.file_name().and_then(|n| n.to_str()).unwrap_or("debug");
    let profile = if profile == "debug" { "dev" } else { profile };
    let programs = ["--profile", profile, "--bin", "vmetric-fleet", "--bin", "vmetric-director", "--bin", "vmetric-release"];
    show.say("", "", "builds Fleet, Directors, release tool and agents; the first time takes some minutes");
    cargo(target, &programs, &[])?;
    let builds = Builds {
        director: beside.join("vmetric-director"),
        fleet: beside.join("vmetric-fleet"),
        directors: work.join("directors"),
        release: beside.join("vmetric-release"),
        agents: work.join("builds"),
        raised: work.join("raised"),
    };
    for v in wanted {
        variant_of("vmetric-agent", "agent,fault", v, target, (&builds.agent(v.version), kept), show)?;
    }
    for v in directors {
        variant_of("vmetric-director", "director,fault", v, target, (&builds.director_of(v.version), kept), show)?;
    }
    Ok(builds)
}

fn variant_of(
    program: &str,
    features: &str,
    v: &Variant,
    target: &Path,
    (to, kept): (&Path, Option<&Path>),
    show: &Show,
) -> Result<(), String> {
    let kept = kept.map(|folder| folder.join(format!("{program}-{}", v.version)));
    if let Some(kept) = kept.as_ref().filter(|kept| kept.exists()) {
        take(kept, to, 0)?;
        return Ok(());
    }
    let words = ["--profile", "demo", "--no-default-features", "--features", features, "--bin", program];
    cargo(target, &words, &[("VMETRIC_VERSION", v.version), ("VMETRIC_FAULT", v.fault)])?;
    let length = take(&target.join("demo").join(program), to, v.padded_to)?;
    if let Some(kept) = &kept {
        // Whole or not at all: another run may look for it now.
        let new = kept.with_extension("new");
        take(to, &new, 0)?;
        fs::rename(&new, kept).map_err(|e| format!("{}: {e}", kept.display()))?;
    }
    show.say("", "", &format!("built {program} {:<6} {length:>8} bytes  {}", v.version, v.words));
    Ok(())
}

/// Runs `cargo build` into this target folder.
pub fn cargo(target: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    let mut command = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    command.args(["build", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "--target-dir"]);
    command.arg(target).args(args).envs(env.iter().copied()).stdin(Stdio::null());
    // A library may bring a file that names another toolchain, and this program may have been started without cargo.
    if let Some(toolchain) = option_env!("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    // What `cargo run` tells this program about its package would make build scripts of libraries run again, each time.
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "OUT_DIR"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| told.iter().any(|t| name.starts_with(t))) {
            command.env_remove(name);
        }
    }
    let out = command.output().map_err(|e| format!("cargo cannot be started: {e}"))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(format!("cargo build {} failed:\n{}", args.join(" "), String::from_utf8_lossy(&out.stderr))),
    }
}

/// Copies a fresh build aside, for the next one takes its place. A program file may be longer than its contents.
pub fn take(from: &Path, to: &Path, padded_to: usize) -> Result<usize, String> {
    let mut bytes = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    bytes.resize(bytes.len().max(padded_to), 0);
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(|e| format!("{}: {e}", to.display()))?;
    write_volatile(to, &bytes, PROGRAM).map_err(|e| format!("{}: {e}", to.display()))?;
    Ok(bytes.len())
}
