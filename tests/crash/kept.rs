//! Static builds of the agent, which depend on nothing of the device's, kept between runs as long as no source is newer.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::build::{self, Builds, Variant};

/// The target folder, what is kept in it, and where the programs of this run lie.
fn places(folder: &str, work: &Path) -> Result<(PathBuf, PathBuf, Builds), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let beside = own.parent().ok_or("this program lies in no folder")?;
    let target = beside.parent().ok_or("this program does not lie in a target folder")?;
    let builds = Builds {
        director: beside.join("vmetric-director"),
        fleet: beside.join("vmetric-fleet"),
        directors: work.join("directors"),
        release: beside.join("vmetric-release"),
        agents: work.join("builds"),
        raised: work.join("raised"),
    };
    Ok((target.to_path_buf(), target.join(folder), builds))
}

/// Builds what is not kept in `<target>/<folder>`, and copies what is wanted into `work`.
pub fn builds(folder: &str, work: &Path, wanted: &[Variant]) -> Result<Builds, String> {
    let (target, kept, builds) = places(folder, work)?;
    let stamp = kept.join("stamp");
    let fresh = fs::metadata(&stamp).and_then(|m| m.modified()).is_ok_and(|at| newest_source() < at);
    if !fresh {
        let _ = fs::remove_file(&stamp);
    }
    // Cargo knows whether there is something to do.
    build::cargo(&target, &["--bin", "vmetric-director", "--bin", "vmetric-fleet", "--bin", "vmetric-release"], &[])?;
    for variant in wanted {
        let file = kept.join(variant.version);
        if !fresh {
            let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            let args =
                ["--profile", "demo", "--no-default-features", "--features", "agent,fault", "--bin", "vmetric-agent", "--target", &host];
            let env =
                [("VMETRIC_VERSION", variant.version), ("VMETRIC_FAULT", variant.fault), ("RUSTFLAGS", "-C target-feature=+crt-static")];
            build::cargo(&target, &args, &env)?;
            build::take(&target.join(&host).join("demo/vmetric-agent"), &file, 0)?;
        }
        build::take(&file, &builds.agent(variant.version), variant.padded_to)?;
    }
    if !fresh {
        fs::write(&stamp, b"").map_err(|e| e.to_string())?;
    }
    Ok(builds)
}

#[allow(dead_code, reason = "the beds' module, too, which build no Director here")]
/// One build of the Director, and as many files of it as there are versions: the version's text is put in its place, for what
/// a Director is takes minutes to build, and it is the launcher and the marks that are under test.
pub fn directors(folder: &str, work: &Path, built: &str, versions: &[(&str, usize)]) -> Result<Builds, String> {
    let (target, kept, builds) = places(folder, work)?;
    let (stamp, file) = (kept.join("stamp"), kept.join(built));
    if !fs::metadata(&stamp).and_then(|m| m.modified()).is_ok_and(|at| newest_source() < at) {
        let _ = fs::remove_file(&stamp);
        build::cargo(&target, &["--bin", "vmetric-release"], &[])?;
        let words = ["--profile", "demo", "--no-default-features", "--features", "director,fault", "--bin", "vmetric-director"];
        build::cargo(&target, &words, &[("VMETRIC_VERSION", built), ("VMETRIC_FAULT", "hang-main")])?;
        build::take(&target.join("demo/vmetric-director"), &file, 0)?;
        fs::write(&stamp, b"").map_err(|e| e.to_string())?;
    }
    let bytes = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    for (version, padded_to) in versions {
        let to = builds.director_of(version);
        build::take(&file, &to, *padded_to)?;
        let there = File::options().write(true).open(&to).map_err(|e| e.to_string())?;
        let mut places = 0;
        for (at, _) in bytes.windows(built.len()).enumerate().filter(|(_, text)| *text == built.as_bytes()) {
            there.write_all_at(version.as_bytes(), at as u64).map_err(|e| e.to_string())?;
            places += 1;
        }
        if places == 0 || version.len() != built.len() {
            return Err(format!("{}: does not name its version {built}", file.display()));
        }
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
    let names = ["src", "build.rs", "Cargo.toml", "Cargo.lock", "tests/demo/build.rs"];
    names.iter().map(|name| newest(&top.join(name))).fold(SystemTime::UNIX_EPOCH, SystemTime::max)
}
