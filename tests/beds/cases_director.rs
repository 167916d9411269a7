//! Director and Fleet as packages on real systemd: enrolled by the file, updated with resources, crashing, rebooted and upgraded on
//! trial, purged.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use miniserde::json::{self, Value};

use crate::build::FACTORY;
use crate::cases::Cast;
use crate::cases_inits::no_process;
use crate::device::{Device, has, same};

/// A good release, with resources.
const GOOD: &str = "3.1.0";
/// Ends at its start, and has resources, too.
const BROKEN: &str = "3.2.0";
/// Good ones for the trials.
const REBOOTED: &str = "3.3.0";
const INTERRUPTED: &str = "3.4.0";
/// The packages' versions. The program is the same but for its last bytes: another hash is another factory image.
const PACKAGES: [&str; 2] = ["0.1.0", "0.2.0"];
const FLEET: &str = "127.0.0.1:8444";
const STATE: &str = "/var/lib/vmetric-director";
const PROGRAM: &str = "/usr/lib/vmetric-director/vmetric-director";
/// The file whose text says which package is in use.
const RESOURCE: &str = "pipelines/site.yml";
/// Keeps a trial open until the file is there.
const GATE: &str = "/var/lib/vmetric-director/user/open";

/// What this host's builder makes: a folder of programs, releases and packages.
struct Works {
    folder: PathBuf,
    release: PathBuf,
}

impl Works {
    fn new(device: &Device) -> Result<Works, String> {
        let folder = device.stage.work.join("works").join(&device.bed.name);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Works { folder, release: device.stage.builds.release.clone() })
    }

    /// This program, without what only a debugger reads, and with these bytes at its end.
    fn program(&self, from: &Path, name: &str, tail: &str) -> Result<PathBuf, String> {
        let to = self.folder.join(name);
        let told = |e: std::io::Error| format!("{}: {e}", to.display());
        std::fs::create_dir_all(to.parent().unwrap_or(&to)).map_err(told)?;
        crate::mount::run("strip", &["-o", &to.display().to_string(), &from.display().to_string()])?;
        let mut bytes = std::fs::read(&to).map_err(told)?;
        bytes.extend_from_slice(tail.as_bytes());
        std::fs::write(&to, bytes).map_err(told)?;
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).map_err(told)?;
        Ok(to)
    }

    fn tool(&self, line: &str) -> Result<(), String> {
        let mut command = Command::new(&self.release);
        command.args(line.split(' ')).current_dir(&self.folder).stdin(Stdio::null());
        let out = command.env("VMETRIC_RELEASE_PASSPHRASE", "only good for this test").output().map_err(|e| e.to_string())?;
        match out.status.success() {
            true => Ok(()),
            false => Err(format!("vmetric-release {line}: {}", String::from_utf8_lossy(&out.stderr))),
        }
    }

    /// A tree with these Directors, each with its resources.
    fn publish(&self, device: &Device) -> Result<(), String> {
        let here = crate::build::platform();
        self.tool("init --repo release --keys keys --root-keys 1 --root-threshold 1 --targets-keys 1 --targets-threshold 1")?;
        for version in [GOOD, BROKEN, REBOOTED, INTERRUPTED] {
            let from = if version == BROKEN { device.stage.builds.agent(FACTORY) } else { device.stage.builds.director.clone() };
            self.program(&from, &format!("dist/{version}/{here}/vmetric-director"), version)?;
            let file = self.folder.join("resources").join(version).join(RESOURCE);
            let made = std::fs::create_dir_all(file.parent().unwrap_or(&file)).and_then(|()| std::fs::write(&file, version));
            made.map_err(|e| format!("{}: {e}", file.display()))?;
            self.tool(&format!("package resources/{version} --out dist/{version}/{here}/package.tar.zst"))?;
        }
        self.tool("add --repo release --keys keys --unchecked not-of-these-versions dist")?;
        self.tool("sign --repo release --keys keys")?;
        self.tool("publish --repo release --out public")
    }

    /// The package of this program, as `/<name>-<version>.deb` in the bed.
    fn package(&self, device: &Device, name: &str, from: &Path, version: &str) -> Result<(), String> {
        let arch = vmetric::core::release::Platform::here().arch;
        let binary = self.program(from, &format!("{name}-{version}"), version)?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cross/package");
        let mut command = Command::new(script);
        command.args(["--version", version, "--dynamic", "--binary", &format!("{name}-{arch}={}", binary.display())]);
        command.arg("--root").arg(self.folder.join("release/root.json")).arg("--out").arg(self.folder.join("out"));
        let made = command.args(["deb", &arch, name]).stdin(Stdio::null()).output().map_err(|e| format!("{script}: {e}"))?;
        if !made.status.success() {
            return Err(format!("{script}: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let file = self.folder.join(format!("out/vmetric-{name}_{version}-1_{arch}.deb"));
        device.bed.copy(&file, &format!("/{name}-{version}.deb"))
    }
}

/// Everything in a life of both packages.
pub fn packaged(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, cast.init, FACTORY)?;
    let works = Works::new(&device)?;
    works.publish(&device)?;
    let builds = &cast.stage.builds;
    works.package(&device, "fleet", &builds.fleet, PACKAGES[0])?;
    for version in PACKAGES {
        works.package(&device, "director", &builds.director, version)?;
    }
    let tree = device.bed.path("srv/public");
    crate::mount::run("cp", &["-a", &works.folder.join("public").display().to_string(), &tree.display().to_string()])?;
    let end = device.bed.boot().and_then(|()| packaged_in(&mut device));
    cast.look(&device, end)
}

fn packaged_in(device: &mut Device) -> Result<String, String> {
    let key = fleet_up(device)?;
    director_up(device, &key)?;
    let pid = director(device, "MainPID")?;
    fleet(device, &format!("assign --all --version {GOOD}"))?;
    ended(device, "updated", GOOD)?;
    runs(device, GOOD)?;
    same("the main process after the update", director(device, "MainPID")?, &pid)?;
    crashes(device)?;
    rebooted(device)?;
    upgraded(device)?;
    for name in ["director", "fleet"] {
        let kept = dpkg(device, &format!("-r vmetric-{name}"))?;
        has("dpkg -r", &kept, &format!("/var/lib/vmetric-{name} is kept"))?;
        dpkg(device, &format!("-P vmetric-{name}"))?;
    }
    no_process(device)?;
    let left =
        device.bed.sh("ls -d /var/lib/vmetric-* /usr/lib/vmetric-* 2> /dev/null; systemctl list-unit-files --no-legend 'vmetric*' || true");
    same("left after the purge", left.unwrap_or_default().trim(), "")?;
    Ok(format!(
        "Fleet and Director installed; enrolled by the file, key gone; {GOOD} with resources by process {pid} all along; {BROKEN} rolled back \
         by restarts; reboot and upgrade of the package on trial; purged"
    ))
}

fn dpkg(device: &Device, words: &str) -> Result<String, String> {
    device.bed.sh(&format!("DEBIAN_FRONTEND=noninteractive dpkg {words} 2>&1"))
}

fn fleet(device: &Device, line: &str) -> Result<String, String> {
    device.bed.sh(&format!("vmetric-fleet {line}"))
}

fn director(device: &Device, property: &str) -> Result<String, String> {
    device.bed.sh(&format!("systemctl show -P {property} vmetric-director")).map(|text| text.trim().to_string())
}

/// A value of the Director's own status.
fn own(device: &Device, path: &str) -> Option<String> {
    let text = device.bed.sh("vmetric-director status --json").ok()?;
    let mut at: Value = json::from_str(&text).ok()?;
    for name in ["own"].into_iter().chain(path.split('.')) {
        let Value::Object(mut fields) = at else { return None };
        at = fields.remove(name)?;
    }
    match at {
        Value::String(text) => Some(text),
        other => Some(json::to_string(&other)),
    }
}

fn is(device: &Device, path: &str, wanted: &str) -> Option<()> {
    own(device, path).filter(|found| found == wanted).map(drop)
}

/// The package starts it under a user of its own; another address and the mirror stand where the README says.
fn fleet_up(device: &Device) -> Result<String, String> {
    let options = format!("VMETRIC_OPTIONS=\"--mirror /srv/public --listen {FLEET} --name 127.0.0.1\"\n");
    device.bed.write("etc/default/vmetric-fleet", &options)?;
    dpkg(device, &format!("-i /fleet-{}.deb", PACKAGES[0]))?;
    device.until("Fleet to answer", 60, |d| fleet(d, "status").ok())?;
    for (property, wanted) in [("Type", "notify"), ("ActiveState", "active"), ("User", "vmetric-fleet")] {
        same(property, device.bed.sh(&format!("systemctl show -P {property} vmetric-fleet"))?.trim(), wanted)?;
    }
    // The same package again, the only update that Fleet has: restarted, and it knows what it knew.
    let key = fleet(device, "key create --json")?;
    dpkg(device, &format!("-i /fleet-{}.deb", PACKAGES[0]))?;
    device.until("Fleet to answer again", 60, |d| fleet(d, "key list").ok().filter(|text| text.contains("valid")))?;
    Ok(key)
}

/// No command enrolls it: the file says where, and the key lies in its state folder.
fn director_up(device: &Device, key: &str) -> Result<(), String> {
    let key: vmetric::director::commands::TokenView = json::from_str(key).map_err(|_| format!("key create --json: {key}"))?;
    dpkg(device, &format!("-i /director-{}.deb", PACKAGES[0]))?;
    device.bed.write("etc/fleet.key", &format!("{}\n", key.token))?;
    device.bed.sh(&format!("install -o vmetric-director -m 0600 /etc/fleet.key {STATE}/fleet.key && rm /etc/fleet.key"))?;
    let fleet_at = format!("address: https://{FLEET}\n  pin: {}\n  key_file: {STATE}/fleet.key", key.pin);
    device.bed.write("etc/vmetric/vmetric.yml", &format!("name: 127.0.0.1\nlisten: 127.0.0.1:8443\nfleet:\n  {fleet_at}\n"))?;
    let valid = device.bed.sh("vmetric-director -validate")?;
    has("-validate", &valid, "enrolls at https://127.0.0.1:8444 by itself")?;
    device.bed.sh("systemctl restart vmetric-director")?;
    device.until("the Director to enroll by itself", 60, |d| is(d, "enrolled", "true"))?;
    device
        .until("Fleet to list it", 30, |d| fleet(d, "directors").ok().filter(|text| text.contains("1 online") || text.contains("idle")))?;
    let found = device.bed.sh(&format!("grep -rlF {} {STATE} /etc || true", key.token))?;
    same("files with the key", found.trim(), "")
}

fn ended(device: &Device, outcome: &str, version: &str) -> Result<(), String> {
    let found = |d: &Device| {
        is(d, "last_result.version", version)?;
        is(d, "last_result.outcome", outcome)?;
        is(d, "last_result.reported", "true")
    };
    device.until(&format!("{version} to be {outcome}"), 120, found).map_err(|why| format!("{why}: {}", said(device)))
}

/// For whoever looks into a failure.
fn said(device: &Device) -> String {
    device.bed.sh("vmetric-director status; vmetric-fleet directors; journalctl --no-pager -q -u vmetric-fleet -n 20").unwrap_or_else(|e| e)
}

/// Binary and resources of this version, confirmed.
fn runs(device: &Device, version: &str) -> Result<(), String> {
    device.until(&format!("{version} to run, confirmed"), 60, |d| {
        is(d, "version", version)?;
        is(d, "running_as", "confirmed")
    })?;
    let slot = own(device, "running").unwrap_or_default();
    same("its resources", device.bed.sh(&format!("cat {STATE}/slots/{slot}/package/{RESOURCE}"))?, version)?;
    let line = device.bed.sh("vmetric-director -version")?;
    has("-version", &line, &format!("running: {version} (slot {slot}, confirmed)"))
}

/// It ends at each start: systemd restarts, the launcher counts, and binary and resources are those of before.
fn crashes(device: &Device) -> Result<(), String> {
    let before: u32 = director(device, "NRestarts")?.parse().map_err(|_| "NRestarts is no number")?;
    fleet(device, &format!("assign --all --version {BROKEN} --end-probation"))?;
    ended(device, "rolled_back", BROKEN)?;
    same("the verdict", own(device, "last_result.code").unwrap_or_default(), "crashed_or_hung")?;
    let restarts: u32 = director(device, "NRestarts")?.parse().map_err(|_| "NRestarts is no number")?;
    if restarts < before + 2 {
        return Err(format!("systemd restarted it {} times; a verdict takes two deaths", restarts - before));
    }
    runs(device, GOOD)
}

/// On trial, and the operator's own check does not know yet.
fn held_on_trial(device: &Device, version: &str) -> Result<(), String> {
    let hook = format!("{STATE}/config/check");
    device.bed.sh(&format!("rm -f {GATE}; printf '#!/bin/sh\\ntest -e {GATE} || exit 75\\n' > {hook} && chmod 755 {hook}"))?;
    fleet(device, &format!("assign --all --version {version} --end-probation"))?;
    device.until("a trial", 120, |d| {
        is(d, "running_as", "trial")?;
        is(d, "code", "check_unsure")
    })
}

/// A reboot in the middle of a trial holds nothing against it.
fn rebooted(device: &mut Device) -> Result<(), String> {
    held_on_trial(device, REBOOTED)?;
    // Fleet's stop waits for the trial that it is the authority of; on this host it goes down with it, so it is told twice.
    device.bed.sh("systemctl stop --no-block vmetric-fleet")?;
    device.until("Fleet to stop at the second SIGTERM", 60, |d| {
        let stopped = d.bed.sh("systemctl kill vmetric-fleet; systemctl show -P ActiveState vmetric-fleet").ok()?;
        (stopped.trim() == "inactive").then_some(())
    })?;
    device.bed.reboot()?;
    device.until("the trial to go on after the boot", 60, |d| is(d, "running_as", "trial"))?;
    device.bed.sh(&format!("install -d -o vmetric-director -m 0755 {STATE}/user && touch {GATE}"))?;
    ended(device, "updated", REBOOTED)?;
    runs(device, REBOOTED)
}

/// The package's upgrade is a manual update: the trial ends without a verdict, the new image runs, the confirmed slot stays.
fn upgraded(device: &Device) -> Result<(), String> {
    held_on_trial(device, INTERRUPTED)?;
    dpkg(device, &format!("-i /director-{}.deb", PACKAGES[1]))?;
    device.until("the new image to run as manual", 60, |d| is(d, "running_as", "manual"))?;
    device.until("the trial's end", 60, |d| {
        is(d, "last_result.version", INTERRUPTED)?;
        is(d, "last_result.code", "manual_update")
    })?;
    let pid = director(device, "MainPID")?;
    same("the program that runs", device.bed.sh(&format!("readlink /proc/{pid}/exe"))?.trim(), PROGRAM)?;
    let kept = device.bed.sh(&format!("cat {STATE}/slots/*/package/{RESOURCE}"))?;
    has("the slot that stays as fallback", &kept, REBOOTED)?;
    device.bed.sh(&format!("touch {GATE}"))?;
    // And Fleet decides from there.
    fleet(device, &format!("assign --all --version {GOOD} --end-probation --retry"))?;
    ended(device, "updated", GOOD)?;
    runs(device, GOOD)
}
