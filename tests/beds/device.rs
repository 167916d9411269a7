//! A device: a bed with an agent installed as a service, and the questions that cases ask of it.

use miniserde::{Deserialize, json};
use vmetric::core::slots::{Condition, Marks, Slot};
use vmetric::director::views::AgentView;
use vmetric::io::state::State;
use vmetric::wire::agent_api::ResultWire;

use crate::bed::{Bed, Init, STATE, tail};
use crate::build::FACTORY;
use crate::stage::Stage;
use crate::wait;

/// The folder of the factory image.
pub const IMAGE: &str = "/opt/virtualmetric";
/// The factory image.
pub const AGENT: &str = "/opt/virtualmetric/vmetric-agent";

/// What `vmetric-agent status --json` says, as far as it is looked at here.
#[derive(Deserialize, Debug, Clone)]
pub struct Status {
    /// Version that runs.
    pub version: String,
    /// Whether an agent runs.
    pub runs: bool,
    /// `confirmed`, `trial`, `factory`, `manual`.
    pub running_as: String,
    /// The running trial.
    pub trial: Option<Trial>,
    /// What it does.
    pub step: String,
    /// Why; stable code.
    pub code: String,
}

/// Evidence of a trial.
#[derive(Deserialize, Debug, Clone)]
pub struct Trial {
    /// Starts that count.
    pub starts: u32,
    /// How the last one ended.
    pub ended: String,
}

/// A device.
pub struct Device<'a> {
    /// What all share.
    pub stage: &'a Stage,
    /// Its host.
    pub bed: Bed,
    /// Its identity at the Director.
    pub id: String,
}

impl<'a> Device<'a> {
    /// A host that has not been booted, with this factory image.
    pub fn bare(stage: &'a Stage, name: &str, init: Init, factory: &str) -> Result<Device<'a>, String> {
        let bed = Bed::new(stage, name, init)?;
        bed.copy(&stage.builds.agent(factory), AGENT)?;
        bed.copy(&stage.release.root, &format!("{IMAGE}/root.json"))?;
        Ok(Device { stage, bed, id: String::new() })
    }

    /// Booted, enrolled, with the agent installed as a service and at work.
    pub fn new(stage: &'a Stage, name: &str, init: Init) -> Result<Device<'a>, String> {
        let mut device = Device::bare(stage, name, init, FACTORY)?;
        device.bed.boot()?;
        device.set_up()?;
        Ok(device)
    }

    /// Installs, enrolls and starts.
    pub fn set_up(&mut self) -> Result<(), String> {
        self.service("install")?;
        self.enroll()?;
        self.service("start")?;
        self.until("the agent to be idle", 60, |d| d.status().ok().filter(|s| s.runs && s.step == "idle")).map(drop)
    }

    /// `vmetric-agent -service ...`
    pub fn service(&self, what: &str) -> Result<String, String> {
        self.bed.sh(&format!("{AGENT} -service {what}"))
    }

    /// Makes it known to the Director.
    pub fn enroll(&mut self) -> Result<(), String> {
        let (port, token) = (self.bed.relay.port, &self.stage.token);
        let line = format!("{AGENT} enroll --director https://127.0.0.1:{port} --token {} --pin {}", token.token, token.pin);
        self.id = self.bed.sh(&line)?.trim().rsplit(' ').next().unwrap_or_default().to_string();
        Ok(())
    }

    /// Gives it a check of the operator's own, which every trial runs. Synced, for power may be cut.
    pub fn hook(&self, line: &str) -> Result<(), String> {
        let path = format!("{STATE}/config/check");
        self.bed.sh(&format!("printf '#!/bin/sh\\n{line}\\n' > {path} && chmod 755 {path} && sync {path} {STATE}/config")).map(drop)
    }

    /// `status --json`, asked in the bed.
    pub fn status(&self) -> Result<Status, String> {
        let text = self.bed.sh(&format!("{AGENT} status --json"))?;
        json::from_str(&text).map_err(|_| format!("status --json is not understood: {text}"))
    }

    /// The state folder, as it is on the disk now.
    pub fn state(&self) -> State {
        State::look(&self.bed.path(STATE))
    }

    /// The marks.
    pub fn marks(&self) -> Marks {
        self.state().load_marks().marks
    }

    /// The slot on trial.
    pub fn trial(&self) -> Option<Slot> {
        let marks = self.marks();
        Slot::BOTH.into_iter().find(|slot| marks.slot(*slot).condition == Condition::Trial)
    }

    /// The running agent's process, as it is numbered in the bed.
    pub fn pid(&self) -> Option<u32> {
        // Who holds its lock can be asked in the bed only: here, processes have other numbers.
        let line = format!("pid=$(cat {STATE}/run.lock) && readlink /proc/$pid/exe | grep -q /vmetric-agent && echo $pid");
        self.bed.sh(&line).ok()?.trim().parse().ok()
    }

    /// The version of the file that the running process was started from.
    pub fn runs(&self) -> Result<String, String> {
        let pid = self.pid().ok_or("no agent runs")?;
        let line = self.bed.sh(&format!("sha256sum < /proc/{pid}/exe"))?;
        let hash = line.split(' ').next().unwrap_or_default();
        self.stage.version_of(hash).map(String::from).ok_or_else(|| format!("the running file, {hash}, is none of the published ones"))
    }

    /// The Director's view of it.
    pub fn view(&self) -> Result<AgentView, String> {
        self.stage.site.agent(&self.id)
    }

    /// The last result that the device keeps.
    pub fn last_result(&self) -> Option<ResultWire> {
        self.state().read("last-result.json").ok().flatten()
    }

    /// Orders a version.
    pub fn assign(&self, version: &str) -> Result<(), String> {
        self.stage.site.assign(&[&self.id], version, "--end-probation").map(drop)
    }

    /// Orders a version and waits for the result, which the Director has, too.
    pub fn order(&self, version: &str, seconds: u64) -> Result<ResultWire, String> {
        let before = self.last_result().map(|r| r.id).unwrap_or_default();
        self.assign(version)?;
        self.result_after(&before, seconds)
    }

    /// The next result after the one named `before`.
    pub fn result_after(&self, before: &str, seconds: u64) -> Result<ResultWire, String> {
        let shown = |r: &ResultWire| self.view().is_ok_and(|v| v.state == r.outcome && v.code == r.code);
        self.until("a result that the Director has", seconds, |d| d.last_result().filter(|r| r.id != before && shown(r)))
    }

    /// This version runs, confirmed; file, status and Director agree.
    pub fn confirmed(&self, version: &str) -> Result<(), String> {
        self.runs_as(version, "confirmed")
    }

    /// The same for `confirmed`, `factory`, `manual`, `trial`.
    pub fn runs_as(&self, version: &str, kind: &str) -> Result<(), String> {
        self.until(&format!("{version} to run as {kind}"), 40, |d| d.runs().ok().filter(|v| v == version))?;
        let said = |d: &Device| d.status().ok().filter(|s| s.version == version && s.running_as == kind);
        self.until(&format!("status to say {version}, {kind}"), 20, said)?;
        let seen = |d: &Device| d.view().ok().filter(|v| v.version == version && v.running_as == kind);
        self.until(&format!("the Director to show {version}, {kind}"), 20, seen).map(drop)
    }

    /// Waits until `found` finds something.
    pub fn until<T>(&self, what: &str, seconds: u64, found: impl Fn(&Device<'a>) -> Option<T>) -> Result<T, String> {
        wait(seconds, || found(self)).ok_or_else(|| {
            let now = self.status().map_or_else(|e| e, |s| format!("{} ({}) {} {}", s.version, s.running_as, s.step, s.code));
            format!("{seconds} s passed without: {what}; it is {now}")
        })
    }

    /// What `systemctl show` says of one property of the agent's unit.
    pub fn property(&self, name: &str) -> Result<String, String> {
        self.bed.sh(&format!("systemctl show -P {name} vmetric-agent")).map(|s| s.trim().to_string())
    }

    /// The last lines of the service's log, for whoever looks into a failure.
    pub fn log(&self) -> String {
        let line = match self.bed.init {
            Init::Systemd => "journalctl --no-pager -q -o short-monotonic -u vmetric-agent -u vmetric-director -n 40",
            Init::Runit => "cat /var/log/vmetric-agent/current",
            _ => "cat /var/log/messages /var/log/vmetric-agent* 2>/dev/null",
        };
        let journal = self.bed.sh(line).unwrap_or_else(|e| e);
        format!("{}\nmarks: {:?}", tail(&journal, 40), self.marks())
    }
}

/// Both must be equal.
pub fn same(what: &str, found: impl std::fmt::Display, wanted: impl std::fmt::Display) -> Result<(), String> {
    let (found, wanted) = (found.to_string(), wanted.to_string());
    if found == wanted { Ok(()) } else { Err(format!("{what}: expected {wanted}, found {found}")) }
}

/// The text must contain this.
pub fn has(what: &str, text: &str, part: &str) -> Result<(), String> {
    if text.contains(part) { Ok(()) } else { Err(format!("{what}: expected it to contain '{part}', it is: {text}")) }
}

/// The result must be this one.
pub fn ended(result: &ResultWire, outcome: &str, verdict: &str, code: &str) -> Result<(), String> {
    let found = format!("{} {} {}", result.outcome, result.verdict, result.code);
    same("the result", found, format!("{outcome} {verdict} {code}"))
}
