//! The specification's "Manual Updates", its commands as they stand there, for agent and Director as services.
//!
//! | the specification | here |
//! |---|---|
//! | 2. `systemctl stop vmetric-director` | literally |
//! | 3. Backup current installation directory | `cp -a` |
//! | 4. Extract new binary and resources | `tar -xf` over it |
//! | 5. `systemctl start vmetric-director` | literally |
//! | 6. `./vmetric-director -version` | literally, in that directory |

use std::process::{Command, Stdio};

use crate::bed::STATE;
use crate::build::{CRASHES_LATER, FACTORY, GOOD};
use crate::cases::Cast;
use crate::cases_update::{ask, director_up};
use crate::device::{Device, IMAGE, ended, has, same};

/// Stop, back up, deploy, start, verify.
fn steps(device: &Device, name: &str, archive: &str) -> Result<String, String> {
    device.bed.sh(&format!("systemctl stop {name}"))?;
    device.bed.sh(&format!("rm -rf {IMAGE}.backup && cp -a {IMAGE} {IMAGE}.backup"))?;
    device.bed.sh(&format!("tar -C {IMAGE} -xf {archive}"))?;
    device.bed.sh(&format!("systemctl start {name}"))?;
    device.bed.sh(&format!("cd {IMAGE} && ./{name} -version"))
}

/// An archive in the bed of this folder of the work place.
fn archive(device: &Device, to: &str, files: &[(&str, &std::path::Path)], more: &str) -> Result<(), String> {
    let folder = device.stage.work.join("by-hand").join(to);
    let told = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(told)?;
    for (name, from) in files {
        std::fs::copy(from, folder.join(name)).map_err(told)?;
    }
    let file = device.bed.path(&format!("/srv/{to}.tar"));
    let line = format!("{more}\ntar --owner=0 --group=0 -cf '{}' *", file.display());
    let made = Command::new("sh").args(["-ec", &line]).current_dir(&folder).stdin(Stdio::null()).output().map_err(told)?;
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

/// The agent: its binary alone. Then back, by the same steps with the backup.
pub fn agent(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        ended(&device.order(GOOD, 60)?, "updated", "", "confirmed")?;
        archive(device, "agent", &[("vmetric-agent", &device.stage.builds.agent(CRASHES_LATER))], "")?;
        let said = steps(device, "vmetric-agent", "/srv/agent.tar")?;
        has("-version", &said, &format!("vmetric-agent {CRASHES_LATER}"))?;
        has("-version", &said, &format!("running: {CRASHES_LATER} (factory image, manual)"))?;
        device.runs_as(CRASHES_LATER, "manual")?;
        same("the unit", device.property("ActiveState")?, "active")?;
        same("the slot that stays", device.bed.sh(&format!("ls {STATE}/slots/a/confirmed"))?.trim(), format!("{STATE}/slots/a/confirmed"))?;
        // Back to the backup: the operator's act as well.
        device.bed.sh("systemctl stop vmetric-agent")?;
        device.bed.sh(&format!("rm -rf {IMAGE} && cp -a {IMAGE}.backup {IMAGE}"))?;
        device.bed.sh("systemctl start vmetric-agent")?;
        device.runs_as(FACTORY, "manual")?;
        Ok(format!("{}; back to {FACTORY} from the backup", said.trim().replace('\n', "; ")))
    })
}

/// The Director: binary and resources. What is damaged of them is told.
pub fn director(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    let end = device.bed.boot().and_then(|()| director_in(&mut device));
    cast.look(&device, end)
}

fn director_in(device: &mut Device) -> Result<String, String> {
    director_up(device)?;
    let version = device.bed.sh(&format!("cd {IMAGE} && ./vmetric-director -version"))?;
    has("-version before", &version, "(factory image, factory)")?;
    let more = "printf new >> vmetric-director\nmkdir -p package/lookups\necho a,b > package/lookups/hosts.csv\n\
                find package -type f -exec sha256sum {} + > package.sha256";
    archive(device, "director", &[("vmetric-director", &device.stage.builds.director)], more)?;
    let said = steps(device, "vmetric-director", "/srv/director.tar")?;
    has("-version", &said, "(factory image, manual)")?;
    let pid = device.bed.sh("systemctl show -P MainPID vmetric-director")?;
    let running = device.bed.sh(&format!("sha256sum < /proc/{}/exe", pid.trim()))?;
    same("the program that runs", running, device.bed.sh(&format!("sha256sum < {IMAGE}/vmetric-director"))?)?;
    let told = |d: &Device, code: &str| ask(d, "activity --json --limit 100").ok().filter(|text| text.contains(code)).map(drop);
    device.until("its agent to be back", 60, |d| ask(d, "agents").ok().filter(|text| text.contains(FACTORY)))?;
    same("damage told of whole resources", told(device, "package_damaged").is_some(), false)?;

    device.bed.sh(&format!("systemctl stop vmetric-director && echo rotten > {IMAGE}/package/lookups/hosts.csv"))?;
    device.bed.sh("systemctl start vmetric-director")?;
    device.until("the damaged file to be told", 60, |d| told(d, "package_damaged"))?;
    device.bed.sh("systemctl stop vmetric-director")?;
    device.bed.sh(&format!("rm -rf {IMAGE} && cp -a {IMAGE}.backup {IMAGE} && systemctl start vmetric-director"))?;
    device.until("the Director of the backup", 60, |d| ask(d, "status").ok())?;
    let back = device.bed.sh(&format!("cd {IMAGE} && ./vmetric-director -version"))?;
    has("-version after", &back, "(factory image, manual)")?;
    Ok(format!("{}; a damaged resource told; back from the backup", said.trim().replace('\n', "; ")))
}
