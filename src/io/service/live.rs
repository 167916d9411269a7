//! The running system: calls of the service manager, and whether the service's process is there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::look::{at, read};
use crate::core::reason::Reason;
use crate::core::service::inittab::{self, Line};
use crate::core::service::layout::INITTAB;
use crate::core::service::{Act, Manager, Product};
use crate::io::fs::{PUBLIC, write_durable};
use crate::io::lock::{Lock, Taken};
use crate::io::{clock, hook, process};

/// What a service manager needs beyond the time that the service itself may take.
const SLACK: Duration = Duration::from_secs(60);
/// Longest wait for a process that its manager says it has started: runsvdir looks every 5 s.
const APPEAR: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
const CALL_LOOK: Duration = Duration::from_millis(20);

/// Calls a program of the system; what it writes goes to whoever asked.
pub fn call(words: &[&str]) -> Result<(), Reason> {
    call_within(words, SLACK, Stdio::inherit)
}

/// Asks a program of the system something that it may well deny.
fn holds(words: &[&str]) -> bool {
    call_within(words, SLACK, Stdio::null).is_ok()
}

/// Not with the means for children of ours, which end with all that they leave behind: this one may well leave a daemon.
fn call_within(words: &[&str], limit: Duration, output: fn() -> Stdio) -> Result<(), Reason> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let failed = |what: String| Reason::new("manager_failed", format!("{}: {what}", words.join(" ")));
    let mut command = Command::new(program);
    command.args(args).env("PATH", hook::PATH).current_dir("/").stdin(Stdio::null()).stdout(output()).stderr(output());
    let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
    let end = clock::monotonic() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(format!("{status}; its own words are above"))),
            Ok(None) if clock::monotonic() < end => drop(process::sleep(CALL_LOOK)),
            Ok(None) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(failed(format!("did not end within {} s", limit.as_secs())));
            }
            Err(e) => return Err(failed(e.to_string())),
        }
    }
}

/// The process that works with this state folder.
pub fn running(state: &Path) -> Option<u32> {
    match Lock::peek(&state.join("run.lock")) {
        Err(Taken::By(pid)) => Some(pid.unwrap_or(0)),
        _ => None,
    }
}

/// The service that calls are about.
pub struct Live {
    /// Which program.
    pub product: &'static Product,
    /// Its service manager.
    pub manager: Manager,
    /// Its state folder.
    pub state: PathBuf,
    /// Main file of the service.
    pub file: String,
}

impl Live {
    fn limit(&self) -> Duration {
        Duration::from_secs(u64::from(self.product.stop_s + self.product.start_s)) + SLACK
    }

    fn call(&self, words: &[&str]) -> Result<(), Reason> {
        call_within(words, self.limit(), Stdio::inherit)
    }

    /// Starts, stops or restarts it and waits until it has happened.
    pub fn act(&self, act: Act) -> Result<(), Reason> {
        let name = self.product.name;
        let word = match act {
            Act::Start => "start",
            Act::Stop => "stop",
            _ => "restart",
        };
        match self.manager {
            Manager::Systemd => self.call(&["systemctl", word, name]),
            Manager::OpenRc => self.call(&["rc-service", name, word]),
            Manager::Runit => self.runit(word),
            Manager::BusyBox => self.busybox(act),
            Manager::Launchd => self.launchd(act),
            Manager::Windows => Ok(()),
        }?;
        match act {
            Act::Stop => self.wait_gone(),
            _ => self.wait_there(),
        }
    }

    fn wait_there(&self) -> Result<(), Reason> {
        let end = clock::monotonic() + APPEAR;
        while running(&self.state).is_none() {
            if clock::monotonic() >= end {
                let log = match self.manager {
                    Manager::Systemd => format!("journalctl -u {}", self.product.name),
                    Manager::Runit => format!("/var/log/{}/current", self.product.name),
                    _ => "the system's log".to_string(),
                };
                let what = format!("no process holds {}/run.lock after {} s", self.state.display(), APPEAR.as_secs());
                return Err(Reason::new("not_started", format!("{}: {what}; look into {log}", self.product.name)));
            }
            process::sleep(LOOK);
        }
        Ok(())
    }

    fn wait_gone(&self) -> Result<(), Reason> {
        let end = clock::monotonic() + APPEAR;
        while let Some(pid) = running(&self.state) {
            if clock::monotonic() >= end {
                let what = format!("process {pid} still works with {}", self.state.display());
                return Err(Reason::new("not_stopped", format!("{what}; it is none of this service's: stop it where it was started")));
            }
            process::sleep(LOOK);
        }
        Ok(())
    }

    /// The folder that `sv` is given: absolute, so that no variable of the caller leads it elsewhere.
    fn sv(&self) -> String {
        Path::new(&self.file).parent().unwrap_or(Path::new("/")).display().to_string()
    }

    fn runit(&self, word: &str) -> Result<(), Reason> {
        self.runsv()?;
        let wait = self.product.stop_s.to_string();
        self.call(&["sv", "-w", &wait, word, &self.sv()])
    }

    /// Waits until runsvdir has found the service.
    fn runsv(&self) -> Result<(), Reason> {
        let folder = self.sv();
        let end = clock::monotonic() + APPEAR;
        while !holds(&["sv", "status", &folder]) {
            if clock::monotonic() >= end {
                let what = "runsvdir has not found it";
                return Err(Reason::new("not_started", format!("{folder}: {what} within {} s; does it run?", APPEAR.as_secs())));
            }
            process::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends what watches over the service, after its link is gone.
    pub fn let_go(&self) -> Result<(), Reason> {
        match self.manager {
            Manager::Runit => {
                holds(&["sv", "exit", &self.sv()]);
                holds(&["sv", "exit", &format!("{}/log", self.sv())]);
                Ok(())
            }
            _ => self.reload(),
        }
    }

    /// Tells the manager that files have changed.
    pub fn reload(&self) -> Result<(), Reason> {
        match self.manager {
            Manager::Systemd => self.call(&["systemctl", "daemon-reload"]),
            _ => Ok(()),
        }
    }

    /// After an install without a start: a service manager that starts whatever it finds is told not to, this once.
    pub fn hold(&self, root: &Path) -> Result<(), Reason> {
        if self.manager != Manager::Runit || running(&self.state).is_some() {
            return Ok(());
        }
        self.runsv()?;
        let down = at(root, &format!("{}/down", self.sv()));
        crate::io::fs::remove_if_there(&down).map_err(|e| super::look::failed(&down, &e))
    }

    fn busybox(&self, act: Act) -> Result<(), Reason> {
        if act != Act::Start {
            self.inittab(Line::Stopped)?;
            self.end_process()?;
        }
        if act != Act::Stop {
            self.inittab(Line::Runs)?;
        }
        Ok(())
    }

    /// Changes the line in the inittab and has init read it.
    pub fn inittab(&self, wanted: Line) -> Result<(), Reason> {
        set_inittab(Path::new("/"), self.product, &self.file, wanted)?;
        self.call(&["kill", "-HUP", "1"])
    }

    /// Init may have started another one just before it read its file: each is asked once.
    fn end_process(&self) -> Result<(), Reason> {
        let end = clock::monotonic() + Duration::from_secs(self.product.stop_s.into());
        let mut asked = 0;
        while let Some(pid) = running(&self.state) {
            if pid != asked {
                process::stop(pid);
                asked = pid;
            }
            if clock::monotonic() >= end {
                return Ok(());
            }
            process::sleep(LOOK);
        }
        Ok(())
    }

    fn launchd(&self, act: Act) -> Result<(), Reason> {
        let service = format!("system/{}", self.product.name);
        let loaded = holds(&["launchctl", "print", &service]);
        match act {
            Act::Stop if loaded => self.call(&["launchctl", "bootout", &service]),
            Act::Stop => Ok(()),
            _ if !loaded => self.call(&["launchctl", "bootstrap", "system", &self.file]),
            Act::Start => self.call(&["launchctl", "kickstart", &service]),
            _ => self.call(&["launchctl", "kickstart", "-k", &service]),
        }
    }
}

/// Changes the line of a service in the inittab below `root`; true when it was another one.
pub fn set_inittab(root: &Path, product: &Product, script: &str, wanted: Line) -> Result<bool, Reason> {
    let path = at(root, INITTAB);
    let text = read(&path)?.unwrap_or_default();
    let new = inittab::with(&text, product.name, script, wanted);
    if new == text {
        return Ok(false);
    }
    write_durable(&path, new.as_bytes(), PUBLIC).map_err(|e| super::look::failed(&path, &e))?;
    Ok(true)
}
