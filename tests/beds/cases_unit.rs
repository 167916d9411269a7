//! The unit itself: installed, ready, watched, hardened, analyzed.

use crate::bed::{Init, STATE};
use crate::build::{FACTORY, GOOD, HANGS};
use crate::cases::Cast;
use crate::cases_inits::no_process;
use crate::device::{AGENT, Device, IMAGE, ended, has, same};

/// From nothing to nothing, twice where twice must be once.
pub fn install(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        same("the unit's type", device.property("Type")?, "notify")?;
        same("enabled", device.property("UnitFileState")?, "enabled")?;
        let pid = device.property("MainPID")?;
        device.service("install")?;
        same("the main process after a second install", device.property("MainPID")?, &pid)?;
        let user = device.bed.sh(&format!("stat -c %U /proc/{pid} && stat -c '%U %a' {STATE}"))?;
        same("who runs it, and whose the state is", user.trim().replace('\n', ", "), "vmetric-agent, vmetric-agent 700")?;
        has("-service status", &device.service("status")?, "runs")?;
        device.service("restart")?;
        device.until("another process", 30, |d| d.property("MainPID").ok().filter(|now| *now != pid && now != "0"))?;
        // A host that boots starts it.
        device.bed.reboot()?;
        device.until("the agent after a boot", 30, |d| d.status().ok().filter(|s| s.runs))?;
        device.service("stop")?;
        no_process(device)?;
        device.service("start")?;
        device.service("uninstall")?;
        no_process(device)?;
        device.bed.sh(&format!("test -e {STATE}/config/agent.json")).map_err(|_| "uninstall removed the state")?;
        let left = device.bed.sh("systemctl list-unit-files --no-legend 'vmetric*' || true; ls /etc/systemd/system/*/vmetric* || true")?;
        same("units after uninstall", left.trim(), "")?;
        device.service("uninstall").map_err(|why| format!("a second uninstall must be no failure: {why}"))?;
        Ok("enabled, own user, idempotent, starts at boot, leaves no process and no unit, keeps the state".into())
    })
}

/// `systemctl start` waits for the self-check: an agent that never gets there has not started.
pub fn not_ready(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, Init::Systemd, HANGS)?;
    let end = device.bed.boot().and_then(|()| not_ready_in(&mut device));
    cast.look(&device, end)
}

fn not_ready_in(device: &mut Device) -> Result<String, String> {
    device.service("install")?;
    drop_in(device, "TimeoutStartSec=4")?;
    let refused = device.bed.sh("systemctl start vmetric-agent").err().ok_or("the start of an agent that hangs was a success")?;
    let since = device.property("ActiveEnterTimestampMonotonic")?;
    same("when the unit was active", since, 0)?;
    // The image is mended, and the very next start is one.
    device.bed.sh("systemctl stop vmetric-agent")?;
    device.bed.sh(&format!("rm {AGENT}"))?;
    device.bed.copy(&device.stage.builds.agent(FACTORY), AGENT)?;
    device.bed.sh("systemctl start vmetric-agent")?;
    same("the unit", device.property("SubState")?, "running")?;
    let status = device.property("StatusText")?;
    Ok(format!("hanging: '{}', never active; a good one: active, '{status}'", refused.lines().last().unwrap_or_default()))
}

fn drop_in(device: &Device, lines: &str) -> Result<(), String> {
    device.bed.write("etc/systemd/system/vmetric-agent.service.d/bed.conf", &format!("[Service]\n{lines}\n"))?;
    device.bed.sh("systemctl daemon-reload").map(drop)
}

/// SIGSTOP: neither the alarm nor the process itself can do anything.
pub fn watchdog(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let usec = device.property("WatchdogUSec")?;
        if usec == "0" || usec == "infinity" {
            return Err("the unit has no watchdog".into());
        }
        // Lowered, and the polls with it: half a watchdog has to pass between two words to systemd.
        device.bed.sh("sed -i 's/park=[0-9]*/park=2/' /etc/default/vmetric-agent")?;
        drop_in(device, "WatchdogSec=12\nTimeoutAbortSec=3")?;
        device.bed.sh("systemctl restart vmetric-agent")?;
        let pid = device.property("MainPID")?;
        device.bed.sh("sleep 15")?;
        same("the main process after a while with a watchdog", device.property("MainPID")?, &pid)?;
        device.bed.sh(&format!("kill -STOP {pid}"))?;
        let another = |d: &Device| d.property("MainPID").ok().filter(|now| *now != pid && now != "0");
        let now = device.until("systemd to start another process", 60, another)?;
        device.until("it to run", 30, |d| d.status().ok().filter(|s| s.runs && s.step == "idle"))?;
        let journal = device.bed.sh("journalctl --no-pager -q -u vmetric-agent")?;
        has("the journal", &journal, "Watchdog timeout")?;
        Ok(format!("WatchdogSec={usec} in the unit, 12 s here: alive for 15 s, then stopped: killed, and process {now} runs"))
    })
}

/// No number of deaths is one too many.
pub fn restarts(cast: &Cast) -> Result<String, String> {
    const DEATHS: u32 = 8;
    cast.with_device(|device| {
        let mut pid = String::from("0");
        for _ in 0..DEATHS {
            let next = |d: &Device| d.property("MainPID").ok().filter(|now| *now != pid && now != "0");
            pid = device.until("the next process", 30, next)?;
            device.bed.sh(&format!("kill -9 {pid}"))?;
        }
        device.until("the agent to run", 60, |d| d.status().ok().filter(|s| s.runs && s.step == "idle"))?;
        same("restarts", device.property("NRestarts")?, DEATHS)?;
        same("the unit", device.property("ActiveState")?, "active")?;
        let limit = device.property("StartLimitIntervalUSec")?;
        same("the limit of starts", limit, "0")?;
        Ok(format!("killed {DEATHS} times in a row, restarted each time"))
    })
}

/// Tries to write where the unit does not let it, and to get at what it has no business with. One line for each try.
const TRIES: &str = r#"#!/bin/sh
out=$1
[ -n "$out" ] || out=/var/lib/vmetric-agent/tried
: > "$out"
try() {
    name=$1
    shift
    if "$@" > /dev/null 2>&1; then echo "did $name"; else echo "not $name"; fi >> "$out"
}
for folder in /etc /usr /opt/virtualmetric /var /var/lib /var/log /boot /srv /home /root /run /dev; do
    try "write $folder" sh -c "echo x > $folder/tried-x"
done
try "write kernel settings" sh -c 'cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern'
try "write cgroups" mkdir /sys/fs/cgroup/systemd/tried-x
try "mount" mount -t tmpfs tmpfs /mnt
try "new namespaces" unshare -U true
try "set-user-id" sh -c 'cp /bin/true /var/lib/vmetric-agent/suid && chmod u+s /var/lib/vmetric-agent/suid'
try "signal process 1" kill -0 1
try "make devices" mknod /var/lib/vmetric-agent/null c 1 3
try "set the clock" sh -c 'date -s "$(date)"'
try "write state" sh -c 'echo x > /var/lib/vmetric-agent/tried-x'
try "start from state" sh -c 'cp /bin/true /var/lib/vmetric-agent/storage-true && /var/lib/vmetric-agent/storage-true'
id -un >> "$out"
exit 0
"#;

/// What the unit's own agent may do: nothing but work in its state folder. The same tries by root, outside, all succeed
/// where the bed lets them, so it is the unit that refuses.
pub fn hardening(cast: &Cast) -> Result<String, String> {
    cast.with_device(|device| {
        let hook = format!("{STATE}/config/check");
        device.bed.write("root/tries", TRIES)?;
        device.bed.sh(&format!("cp ~root/tries {hook} && chmod 755 {hook}"))?;
        ended(&device.order(GOOD, 60)?, "updated", "", "confirmed")?;
        let by_unit = device.bed.sh(&format!("cat {STATE}/tried"))?;
        let did: Vec<&str> = by_unit.lines().filter_map(|line| line.strip_prefix("did ")).collect();
        same("what the agent's hook could do", did.join(", "), "write state, start from state")?;
        has("who it was", &by_unit, "vmetric-agent")?;
        let by_root = device.bed.sh("sh ~root/tries ~root/tried; cat ~root/tried")?;
        let possible = by_root.lines().filter(|line| line.starts_with("did write /")).count();
        same("folders that root could write to without the unit", possible, 12)?;
        Ok(format!(
            "{} tries refused to the agent's hook, {possible} folders open to root outside",
            by_unit.lines().count() - did.len() - 1
        ))
    })
}

/// All units as installed, judged by systemd itself. Exposure of 10 is a service without any hardening.
const EXPOSURE_MAX: f64 = 2.5;

/// `systemd-analyze verify` and `security`.
pub fn analyze(cast: &Cast) -> Result<String, String> {
    let mut device = Device::bare(cast.stage, cast.name, Init::Systemd, FACTORY)?;
    let end = device.bed.boot().and_then(|()| analyze_in(&mut device));
    cast.look(&device, end)
}

fn analyze_in(device: &mut Device) -> Result<String, String> {
    device.bed.copy(&device.stage.builds.director, &format!("{IMAGE}/vmetric-director"))?;
    device.service("install")?;
    device.bed.copy(&device.stage.builds.fleet, &format!("{IMAGE}/vmetric-fleet"))?;
    for name in ["vmetric-director", "vmetric-fleet"] {
        device.bed.sh(&format!("{IMAGE}/{name} -service install -- --root {IMAGE}/root.json"))?;
    }
    let mut seen = Vec::new();
    for name in ["vmetric-agent", "vmetric-director", "vmetric-fleet"] {
        let complaints = device.bed.sh(&format!("systemd-analyze verify --man=no {name}.service 2>&1"))?;
        same(&format!("systemd-analyze verify {name}"), complaints.trim(), "")?;
        let text = device.bed.sh(&format!("systemd-analyze security --no-pager {name}.service"))?;
        let line = text.lines().find(|line| line.contains("Overall exposure")).ok_or("security shows no overall exposure")?;
        let score = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let score: f64 = score.parse().map_err(|_| format!("no score in: {line}"))?;
        if score > EXPOSURE_MAX {
            return Err(format!("{name}: exposure {score}, at most {EXPOSURE_MAX}\n{text}"));
        }
        seen.push(format!("{name} {score}"));
    }
    Ok(format!("verify: no complaint; exposure (0 best, 10 worst): {}", seen.join(", ")))
}
