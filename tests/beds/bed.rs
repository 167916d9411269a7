//! A bed: a host of its own, made of namespaces, with a service manager as PID 1. It can be rebooted, and its power cut.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use vmetric::core::hex;
use vmetric::io::random;

use crate::mount::{Mount, going_down, run};
use crate::relay::Relay;
use crate::stage::Stage;
use crate::{leftovers, pause, signal, wait};

/// Who is PID 1, or starts services below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC's supervise-daemon, below busybox init, as Alpine has it.
    OpenRc,
    /// runit: PID 1, and runsvdir below it.
    Runit,
    /// busybox init alone.
    Busybox,
}

impl Init {
    /// Its program: PID 1, with its argument.
    fn program(self) -> &'static str {
        match self {
            Init::Systemd => "/lib/systemd/systemd",
            Init::Runit => "/sbin/runit",
            Init::OpenRc | Init::Busybox => "/bin/busybox init",
        }
    }

    /// For names and tables.
    pub fn word(self) -> &'static str {
        match self {
            Init::Systemd => "systemd",
            Init::OpenRc => "openrc",
            Init::Runit => "runit",
            Init::Busybox => "busybox",
        }
    }
}

/// Environment of every service in a bed: lowered times of `fault` builds.
pub const TIMES: &str = "liveness=6,contact=12,cooldown=3,fresh=60,recheck=2,park=20";
/// What a host does at its start that no case needs.
const MASKED: [&str; 12] = [
    "getty.target",
    "console-getty.service",
    "systemd-logind.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "systemd-update-utmp.service",
];
/// Seconds for a boot; one takes two on an idle machine.
const BOOT_S: u64 = 60;
/// Seconds for a command in the bed; above what a service manager waits for a start or a stop by itself.
const COMMAND_S: u64 = 100;
/// Where the agent's state is in a bed.
pub const STATE: &str = "/var/lib/vmetric-agent";

/// A bed.
pub struct Bed {
    /// Its name.
    pub name: String,
    /// Its service manager.
    pub init: Init,
    /// Its root folder as seen from here.
    pub root: PathBuf,
    /// The wire from its loopback to the Director.
    pub relay: Relay,
    /// Boots so far.
    pub boots: u32,
    folder: PathBuf,
    cgroup: String,
    network: File,
    process: Option<Child>,
    /// File systems in its root that can lose what was not synced.
    disks: Vec<Mount>,
    /// Others in its root.
    mounts: Vec<Mount>,
    _overlay: Overlay,
}

impl Bed {
    /// A bed that has not been booted yet.
    pub fn new(stage: &Stage, name: &str, init: Init) -> Result<Bed, String> {
        let folder = stage.work.join("beds").join(name);
        let overlay = Overlay::new(&stage.root, &folder)?;
        let (network, listener) = network()?;
        let bed = Bed {
            name: name.into(),
            init,
            root: folder.join("root"),
            relay: Relay::at(listener, stage.site.port.clone())?,
            boots: 0,
            cgroup: leftovers::cgroup_of(&leftovers::guard_of(&stage.work), name),
            folder,
            network,
            process: None,
            disks: Vec::new(),
            mounts: Vec::new(),
            _overlay: overlay,
        };
        bed.furnish()?;
        Ok(bed)
    }

    /// The settings of this host.
    fn furnish(&self) -> Result<(), String> {
        self.write("etc/machine-id", &format!("{}\n", hex::encode(&random::bytes::<16>())))?;
        self.write("etc/hostname", &format!("{}\n", self.name))?;
        match self.init {
            Init::Systemd => {
                for unit in MASKED {
                    let link = self.root.join("etc/systemd/system").join(unit);
                    std::os::unix::fs::symlink("/dev/null", &link).map_err(|e| format!("{}: {e}", link.display()))?;
                }
                // On the disk, so that the journal of an earlier boot can be read.
                self.write("var/log/journal/.keep", "")
            }
            Init::Runit => {
                // Its first and last stage are those of a whole host; the second one starts runsvdir, as everywhere.
                self.script("etc/runit/1", "touch /run/booted\nmkdir -p /run/runit/supervise")?;
                self.script("etc/runit/3", "sv -w 20 force-stop /etc/service/*; sv exit /etc/service/*")
            }
            init => self.write("etc/inittab", inittab(init)),
        }
    }

    /// Writes a file of the bed.
    pub fn write(&self, path: &str, text: &str) -> Result<(), String> {
        let path = self.root.join(path.trim_start_matches('/'));
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The same for a script.
    fn script(&self, path: &str, text: &str) -> Result<(), String> {
        self.write(path, &format!("#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n{text}\n"))?;
        run("chmod", &["755", &self.path(path).display().to_string()])
    }

    /// Copies a file into the bed.
    pub fn copy(&self, from: &Path, to: &str) -> Result<(), String> {
        let to = self.root.join(to.trim_start_matches('/'));
        let made = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(from, &to));
        made.map(drop).map_err(|e| format!("{}: {e}", to.display()))
    }

    /// The path as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Gives this folder of the bed an ext4 of its own, whose page cache can be lost.
    pub fn disk(&mut self, path: &str) -> Result<(), String> {
        let image = self.folder.join("disk.img");
        let file = image.display().to_string();
        run("truncate", &["-s", "192M", &file])?;
        run("mkfs.ext4", &["-q", "-F", &file])?;
        self.disks.push(Mount::ext4(&image, &self.path(path))?);
        Ok(())
    }

    /// Puts what is in this folder on a file system that is read-only.
    pub fn read_only(&mut self, path: &str) -> Result<(), String> {
        let at = self.path(path);
        let text = at.display().to_string();
        let aside = self.folder.join("aside");
        run("cp", &["-a", &text, &aside.display().to_string()])?;
        let mount = Mount::tmpfs(&at, "size=64m,mode=755")?;
        run("cp", &["-a", &format!("{}/.", aside.display()), &text])?;
        mount.remount("ro")?;
        self.mounts.push(mount);
        Ok(())
    }

    /// Boots, under a new boot id, and waits until services can be asked for.
    pub fn boot(&mut self) -> Result<(), String> {
        self.boots += 1;
        let (boot_id, out) = (self.folder.join("boot_id"), self.folder.join(format!("boot-{}", self.boots)));
        let told = |e: std::io::Error| format!("{}: {e}", out.display());
        fs::create_dir_all(&out).map_err(told)?;
        fs::write(&boot_id, format!("{:08}-0000-4000-8000-{}\n", self.boots, hex::encode(&random::bytes::<6>()))).map_err(told)?;
        fs::write(out.join("console"), "").map_err(told)?;
        self.environment(fs::read_to_string(&boot_id).map_err(told)?.trim())?;
        let log = File::create(out.join("log")).map_err(told)?;
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/beds/boot"));
        command.arg(&self.root).arg(&self.name).arg(self.init.program());
        command.arg(&boot_id).arg(&out).env("CGROUP", &self.cgroup);
        command.env("NETNS", format!("/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(told)?).stderr(log);
        // A child that is not waited for stays in the list, and its number is not given to another.
        self.process = Some(command.spawn().map_err(|e| format!("tests/beds/boot: {e}"))?);
        wait(BOOT_S, || self.is_up().then_some(())).ok_or_else(|| {
            let last = |name: &str| tail(&fs::read_to_string(out.join(name)).unwrap_or_default(), 12);
            format!("{}: did not boot within {BOOT_S} s\n{}\n{}", self.name, last("log"), last("console"))
        })
    }

    /// The environment of both services. ProtectProc= gives a unit a /proc of its own, without the boot id that is mounted over
    /// the host's; so the boot id is told, too.
    fn environment(&self, boot_id: &str) -> Result<(), String> {
        let text = format!("VMETRIC_TEST_TIMES={TIMES}\nVMETRIC_TEST_BOOT_ID={boot_id}\n");
        ["agent", "director"].iter().try_for_each(|name| self.write(&format!("etc/default/vmetric-{name}"), &text))
    }

    fn is_up(&self) -> bool {
        match self.init {
            Init::Systemd => {
                self.sh("systemctl is-system-running || true").is_ok_and(|s| matches!(s.trim(), "running" | "degraded" | "starting"))
            }
            // Its second stage starts runsvdir a moment after the first one has ended.
            Init::Runit => self.sh("test -e /run/booted && pgrep -x runsvdir").is_ok(),
            _ => self.sh("test -e /run/booted").is_ok(),
        }
    }

    /// PID 1, as it is numbered here.
    pub fn pid1(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join(format!("boot-{}/pid", self.boots))).ok()?.trim().parse().ok()
    }

    /// The command that runs a shell line in the bed, for people too.
    fn enter(&self) -> Result<Vec<String>, String> {
        let pid1 = self.pid1().ok_or_else(|| format!("{}: is not up", self.name))?;
        let words = format!("nsenter -t {pid1} -m -u -i -n -p -C -r -w -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb sh -c");
        Ok(words.split(' ').map(String::from).collect())
    }

    /// Runs a shell line in the bed; what it writes, or why it failed.
    pub fn sh(&self, line: &str) -> Result<String, String> {
        let words = self.enter()?;
        let out = Command::new("timeout").args(["-k", "1", &COMMAND_S.to_string()]).args(words).arg(line).stdin(Stdio::null()).output();
        let out = out.map_err(|e| format!("timeout: {e}"))?;
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        match out.status.code() {
            Some(0) => Ok(said.into_owned()),
            Some(124 | 137) => Err(format!("{line}: took more than {COMMAND_S} s: {said}{complained}")),
            code => Err(format!("{line}: exit code {}: {}{}", code.unwrap_or(-1), said, complained.trim())),
        }
    }

    /// An orderly reboot.
    pub fn reboot(&mut self) -> Result<(), String> {
        self.power_off()?;
        self.boot()
    }

    /// An orderly end: services are stopped.
    pub fn power_off(&mut self) -> Result<(), String> {
        let line = match self.init {
            Init::Systemd => "systemctl poweroff",
            Init::Runit => "/usr/lib/runit/runit-init 0",
            _ => "busybox poweroff",
        };
        // The command may end with the bed.
        let _ = self.sh(line);
        let gone = wait(60, || self.ended().then_some(()));
        gone.ok_or_else(|| format!("{}: did not shut down within 60 s; processes:\n{}", self.name, self.sh("ps ax").unwrap_or_default()))
    }

    fn ended(&mut self) -> bool {
        let ended = self.process.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.process = None;
        }
        ended
    }

    /// Everything dies at once, and with a disk of its own what was not synced is lost.
    pub fn power_cut(&mut self) -> Result<(), String> {
        // First the end: a process that outlived its disk would see errors that no power cut gives.
        self.end()?;
        for mount in &self.disks {
            going_down(&mount.at).map_err(|e| format!("{}: {e}", mount.at.display()))?;
        }
        for mount in &self.disks {
            mount.again()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        if let Some(pid1) = self.pid1().filter(|_| self.process.is_some()) {
            signal(pid1, libc::SIGKILL);
        }
        wait(10, || self.ended().then_some(())).ok_or_else(|| format!("{}: PID 1 was killed and has not ended", self.name))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What busybox init does at the start of a bed: the little that namespaces leave to do, and OpenRC.
fn inittab(init: Init) -> &'static str {
    match init {
        Init::OpenRc => {
            "::sysinit:/bin/mkdir -p /run/openrc\n::sysinit:/bin/touch /run/openrc/softlevel\n::wait:/sbin/openrc default\n\
             ::once:/bin/touch /run/booted\n::shutdown:/sbin/openrc shutdown\n"
        }
        _ => "::once:/bin/touch /run/booted\n",
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A network of its own with a loopback, and a socket that listens in it.
fn network() -> Result<(File, TcpListener), String> {
    let made = thread::spawn(|| -> Result<(File, TcpListener), String> {
        #[expect(unsafe_code, reason = "unshare takes a number, and concerns this thread only")]
        let rc = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        if rc != 0 {
            return Err(format!("a network namespace: {}", std::io::Error::last_os_error()));
        }
        let network = File::open("/proc/thread-self/ns/net").map_err(|e| format!("/proc/thread-self/ns/net: {e}"))?;
        run("ip", &["link", "set", "lo", "up"])?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| format!("loopback of a bed: {e}"))?;
        Ok((network, listener))
    });
    made.join().map_err(|_| "the thread that makes networks panicked".to_string())?
}

/// The root: the common one below, what a bed writes above.
struct Overlay(PathBuf);

impl Overlay {
    fn new(lower: &Path, folder: &Path) -> Result<Overlay, String> {
        let (upper, work, root) = (folder.join("upper"), folder.join("work"), folder.join("root"));
        for folder in [&upper, &work, &root] {
            fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        run("mount", &["-t", "overlay", "-o", &options, "overlay", &root.display().to_string()])?;
        Ok(Overlay(root))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let root = self.0.display().to_string();
        for _ in 0..40 {
            if run("umount", &["-R", &root]).is_ok() {
                return;
            }
            pause(50);
        }
    }
}
