//! Static builds of the agent, which depend on nothing of the device's, kept between runs as long as no source is newer.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::build::{self, Builds, Variant};

/// Builds what is not kept in `<target>/<folder>`, and copies what is wanted into `work`.
pub fn builds(folder: &str, work: &Path, wanted: &[Variant]) -> Result<Builds, String> {
    let told = |e: std::io::Error| e.to_string();
    let own = std::env::current_exe().map_err(told)?;
    let beside = own.parent().ok_or("this program lies in no folder")?;
    let target = beside.parent().ok_or("this program does not lie in a target folder")?;
    let kept = target.join(folder);
    let builds = Builds {
        director: beside.join("vmetric-director"),
        fleet: beside.join("vmetric-fleet"),
        directors: work.join("directors"),
        release: beside.join("vmetric-release"),
        agents: work.join("builds"),
        raised: work.join("raised"),
    };
    let stamp = kept.join("stamp");
    let fresh = fs::metadata(&stamp).and_then(|m| m.modified()).is_ok_and(|at| newest_source() < at);
    if !fresh {
        let _ = fs::remove_file(&stamp);
        build::cargo(target, &["--bin", "vmetric-director", "--bin", "vmetric-release"], &[])?;
    }
    for variant in wanted {
        let file = kept.join(variant.version);
        if !fresh {
            let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            let args =
                ["--profile", "demo", "--no-default-features", "--features", "agent,fault", "--bin", "vmetric-agent", "--target", &host];
            let env =
                [("VMETRIC_VERSION", variant.version), ("VMETRIC_FAULT", variant.fault), ("RUSTFLAGS", "-C target-feature=+crt-static")];
            build::cargo(target, &args, &env)?;
            build::take(&target.join(&host).join("demo/vmetric-agent"), &file, 0)?;
        }
        build::take(&file, &builds.agent(variant.version), variant.padded_to)?;
    }
    if !fresh {
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
    let names = ["src", "build.rs", "Cargo.toml", "Cargo.lock", "tests/demo/build.rs"];
    names.iter().map(|name| newest(&top.join(name))).fold(SystemTime::UNIX_EPOCH, SystemTime::max)
}
