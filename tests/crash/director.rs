//! A Director that updates itself: its builds and release, what its state folder holds, and what has to be there whatever
//! was cut.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use miniserde::{Deserialize, json};
use vmetric::agent::trial::hash_file;
use vmetric::core::hex;
use vmetric::core::product::DIRECTOR;
use vmetric::core::slots::Slot;
use vmetric::director::{backup, resources};
use vmetric::io::state::State;

use crate::device::{Device, Flow, Status};
use crate::kept;
use crate::release::Release;
use crate::stage::{LARGE, Stage};

/// In the factory image. The texts of the versions are all of one length, and occur nowhere else in the program.
pub const FACTORY: &str = "730.100.1";
const OLD: &str = "730.101.1";
const NEW: &str = "730.102.1";
/// Seconds for a whole case; an undisturbed one takes two.
const CASE_S: u64 = 40;
/// What the operator wrote, but for the place of the root metadata.
const CONFIG: &str = "name: 127.0.0.1\nlisten:\n  - 127.0.0.1:0\nretention:\n  backups: 5 # as many as by default\n";
/// What belongs to nobody but the operator.
const USER: [(&str, &str); 2] = [("user/pipelines/mine.yml", "mine"), ("user/lookups/hosts.csv", "name,address\n")];
/// Devices may enroll with it; a row of the store that each case looks for.
const TOKEN: &str = "token create --uses 7 --ttl 24h";

/// Builds, publishes, and makes a Director that runs its second version from slot a.
pub fn set_up(work: &Path, deep: bool) -> Result<Stage, String> {
    let work = &work.join("director");
    fs::create_dir_all(work).map_err(|e| e.to_string())?;
    let wanted = [(FACTORY, 0), (OLD, 0), (NEW, if deep { LARGE } else { 0 })];
    let builds = kept::directors("crash-builds-director", work, FACTORY, &wanted)?;
    let mut versions = HashMap::new();
    for (version, _) in wanted {
        let hash = hash_file(&builds.director_of(version)).map_err(|e| e.to_string())?;
        versions.insert(hex::encode(&hash), version.to_string());
    }
    let release = publish(work, &builds)?;
    let stage = Stage {
        product: &DIRECTOR,
        old: OLD,
        new: NEW,
        flows: &[Flow::File],
        source: release.bundle.clone(),
        case_s: CASE_S,
        work: work.clone(),
        builds,
        release,
        site: None,
        token: None,
        seed: work.join("seed/state"),
        versions,
    };
    stage.make_seed()?;
    Ok(stage)
}

fn publish(work: &Path, builds: &crate::build::Builds) -> Result<Release, String> {
    let run = |line: &str, operand: Option<&Path>| -> Result<(), String> {
        let mut command = Command::new(&builds.release);
        command.args(line.split(' ')).args(operand).current_dir(work).stdin(Stdio::null());
        command.env("VMETRIC_RELEASE_PASSPHRASE", "only good for these cases");
        let out = command.output().map_err(|e| format!("{}: {e}", builds.release.display()))?;
        match out.status.success() {
            true => Ok(()),
            false => Err(format!("vmetric-release {line}: {}", String::from_utf8_lossy(&out.stderr))),
        }
    };
    run("init --repo release --keys keys --root-keys 1 --root-threshold 1 --targets-keys 1 --targets-threshold 1", None)?;
    for version in [FACTORY, OLD, NEW] {
        for (name, text) in [("pipelines/site.yml", version), ("lookups/hosts.csv", "name\n"), ("definitions/deep/a.json", "{}")] {
            write(&work.join("resources").join(version).join(name), text)?;
        }
        let package = builds.director_of(version).with_file_name("package.tar.zst");
        run(&format!("package resources/{version} --out"), Some(&package))?;
    }
    run("add --repo release --keys keys --allow-dynamic", Some(&builds.directors))?;
    run("sign --repo release --keys keys", None)?;
    run("publish --repo release --out public", None)?;
    run("bundle --tree public --out site.vmb --product vmetric-director", None)?;
    Ok(Release { tree: work.join("public"), root: work.join("release/root.json"), bundle: work.join("site.vmb") })
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let told = |e| format!("{}: {e}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(told)?;
    fs::write(path, text).map_err(told)
}

/// What an operator has put into the state folder before the first start.
pub fn furnish(stage: &Stage, state: &Path) -> Result<(), String> {
    write(&state.join("vmetric.yml"), &config(stage))?;
    USER.into_iter().try_for_each(|(name, text)| write(&state.join(name), text))
}

fn config(stage: &Stage) -> String {
    format!("{CONFIG}root: {}\n", stage.release.root.display())
}

/// A row in the store.
pub fn use_it(device: &Device) -> Result<(), String> {
    device.agent(&TOKEN.split(' ').collect::<Vec<_>>()).map(drop)
}

/// A Director's `status --json` has its own slots beside what it manages.
pub fn own_status(text: &str) -> Result<Status, String> {
    #[derive(Deserialize)]
    struct Around {
        own: Option<Status>,
    }
    let around: Option<Around> = json::from_str(text).ok();
    around.and_then(|a| a.own).ok_or_else(|| format!("status --json is not understood: {text}"))
}

/// The slot that runs has the resources of its version, each as it was signed.
pub fn has_its_package(device: &Device, running: &str, version: &str) -> Result<(), String> {
    let slot = Slot::BOTH.into_iter().find(|slot| slot.name() == running);
    let Some(slot) = slot.filter(|_| device.product.has_resources) else { return Ok(()) };
    let state = device.look_at_state();
    let described = state.slot_json(slot).map_err(|reason| reason.to_string())?;
    if described.package.is_none() {
        return Err(format!("slot {running} runs {version} without a package"));
    }
    resources::check(&state, slot).map_err(|reason| reason.to_string())?;
    let site = state.slot_folder(slot).join("package/pipelines/site.yml");
    match fs::read_to_string(&site) {
        Ok(text) if text == version => Ok(()),
        other => Err(format!("{version} runs with the resources of {other:?}")),
    }
}

/// What no update touches, and what each keeps: the configuration, `user/`, the store's rows, whole backups.
pub fn is_intact(stage: &Stage, device: &Device) -> Result<(), String> {
    let held = |name: &str, text: &str| match fs::read_to_string(device.state.join(name)) {
        Ok(now) if now == text => Ok(()),
        now => Err(format!("{name} is not what the operator wrote: {now:?}")),
    };
    held("vmetric.yml", &config(stage))?;
    USER.into_iter().try_for_each(|(name, text)| held(name, text))?;
    let state = device.look_at_state();
    let found = backup::list(&state);
    let versions: Vec<String> = found.iter().map(|found| found.name.version.to_string()).collect();
    // The first update kept the factory's, the one under test the old version.
    let wanted: &[&str] = if has_slot(&state, NEW) { &[FACTORY, OLD] } else { &[FACTORY] };
    if let Some(missing) = wanted.iter().find(|wanted| !versions.iter().any(|v| v == *wanted)) {
        return Err(format!("there is no backup of {missing}: {versions:?}"));
    }
    found.iter().try_for_each(|found| is_whole(&state, &found.name))?;
    if stage.seed.exists() && device.state != stage.seed {
        let tokens = device.agent(&["token", "list", "--json"])?;
        if !tokens.contains("\"uses_left\":7") {
            return Err(format!("the store has lost a row: {tokens}"));
        }
    }
    Ok(())
}

fn has_slot(state: &State, version: &str) -> bool {
    Slot::BOTH.into_iter().any(|slot| state.slot_json(slot).is_ok_and(|w| w.version == version))
}

/// Every file of a backup has the hash that its index names.
fn is_whole(state: &State, name: &vmetric::core::backup::Name) -> Result<(), String> {
    let (folder, index) = backup::index(state, name).map_err(|reason| reason.to_string())?;
    for file in &index.files {
        let path = folder.join(&file.name);
        let hash = hash_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if hex::encode(&hash) != file.sha256 {
            return Err(format!("{}: is not what backup.json says", path.display()));
        }
    }
    let claimed = index.package.as_deref().map(|text| hex::decode(text).ok_or(format!("{name}: field package is no SHA-256")));
    let Some(claimed) = claimed.transpose()? else { return Ok(()) };
    vmetric::io::package::tree::check(&folder, &claimed, &mut || {}).map(drop).map_err(|reason| reason.to_string())
}
