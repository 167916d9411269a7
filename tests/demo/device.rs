//! A device: a state folder, a factory image, a wire to its Director, and something that starts the agent again.
#![expect(clippy::disallowed_methods, reason = "what a test writes need not outlive a power cut")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use miniserde::{Deserialize, json};
use vmetric::agent::command::running_agent;
use vmetric::core::slots::{Condition, Marks, Slot};
use vmetric::director::views::AgentView;
use vmetric::io::state::State;
use vmetric::wire::agent_api::ResultWire;
use vmetric::wire::records::StatusWire;

use crate::relay::Relay;
use crate::show::Show;
use crate::site::Site;
use crate::{pause, signal, wait};

/// Who starts the agent again when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A service manager that respawns: the launcher execs, there is one process.
    Exec,
    /// Nobody: `run --supervise` forks.
    Supervise,
}

impl Mode {
    /// For the table.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Exec => "exec",
            Mode::Supervise => "supervise",
        }
    }
}

/// What `vmetric-agent status --json` says, as far as it is looked at here.
#[derive(Deserialize, Debug, Clone)]
pub struct Status {
    /// Version that runs.
    pub version: String,
    /// Whether an agent runs.
    pub runs: bool,
    /// `a`, `b`, `factory`.
    pub running: String,
    /// `confirmed`, `trial`, `factory`.
    pub running_as: String,
    /// Both.
    pub slots: Vec<SlotStatus>,
    /// The running trial.
    pub trial: Option<TrialStatus>,
    /// What it does.
    pub step: String,
    /// Why; stable code.
    pub code: String,
    /// When that ends.
    pub until: Option<String>,
    /// Why the Director could not be asked last.
    pub contact_code: String,
    /// The same for people.
    pub contact_detail: String,
    /// When it is asked again.
    pub next_contact: Option<String>,
    /// `ok`, `unsure`, `ahead`.
    pub clock: String,
    /// Files that are not tried.
    pub rejected: Vec<RejectedStatus>,
    /// Security counter.
    pub security_floor: u64,
}

/// A slot.
#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct SlotStatus {
    /// `a` or `b`.
    pub slot: String,
    /// `empty`, `trial`, `confirmed`, `failed`.
    pub condition: String,
    /// Version in it.
    pub version: String,
    /// Its hash.
    pub sha256: String,
}

/// Evidence of a trial.
#[derive(Deserialize, Debug, Clone)]
pub struct TrialStatus {
    /// Starts so far.
    pub starts: u32,
    /// How the last one ended.
    pub ended: String,
}

/// A rejected file.
#[derive(Deserialize, Debug, Clone)]
pub struct RejectedStatus {
    /// Version.
    pub version: String,
    /// `bad` or `could_not_tell`.
    pub verdict: String,
    /// Times it lost.
    pub count: u32,
}

/// A device.
pub struct Device {
    /// Scenario.
    pub letter: String,
    /// Name on the timeline.
    pub name: String,
    /// Identity at its Director.
    pub id: String,
    /// The wire to its Director.
    pub relay: Relay,
    /// Its state folder.
    pub state: PathBuf,
    image: PathBuf,
    show: Arc<Show>,
    site: Arc<Site>,
    keeper: Arc<Keeper>,
}

/// Starts the agent again whenever it ends, as a service manager does.
struct Keeper {
    image: PathBuf,
    state: PathBuf,
    mode: Mode,
    times: String,
    /// Its host's name.
    name: String,
    /// The file that says how the device's clocks are off.
    clock: PathBuf,
    wanted: Mutex<Wanted>,
}

#[derive(Default)]
struct Wanted {
    runs: bool,
    boot_id: Option<String>,
    child: Option<Child>,
}

impl Device {
    /// A device in `folder` with this factory image, enrolled at `site`; its agent does not run yet.
    pub fn new(folder: &Path, factory: &Path, root: &Path, times: &str, at: Place) -> Result<Device, String> {
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        let (image, state) = (folder.join("image/vmetric-agent"), folder.join("state"));
        std::fs::create_dir_all(folder.join("image")).map_err(told)?;
        std::fs::hard_link(factory, &image).map_err(told)?;
        std::fs::copy(root, folder.join("image/root.json")).map_err(told)?;
        let relay = Relay::new(at.site.port.clone())?;
        let keeper = Keeper {
            image: image.clone(),
            state: state.clone(),
            mode: at.mode,
            times: times.to_string(),
            name: at.name.clone(),
            clock: folder.join("clock"),
            wanted: Mutex::default(),
        };
        if let Some((wall_s, uptime_s)) = at.clock {
            keeper.set_clock(wall_s, uptime_s)?;
        }
        let mut device = Device {
            letter: at.letter,
            name: at.name,
            id: String::new(),
            relay,
            state,
            image,
            show: at.show,
            site: at.site,
            keeper: Arc::new(keeper),
        };
        device.enroll()?;
        let keeper = device.keeper.clone();
        thread::spawn(move || keeper.keep());
        Ok(device)
    }

    fn enroll(&mut self) -> Result<(), String> {
        let token = self.site.token()?;
        let url = format!("https://127.0.0.1:{}", self.relay.port);
        let said = self.agent(&["enroll", "--director", &url, "--token", &token.token, "--pin", &token.pin])?;
        self.id = said.trim().rsplit(' ').next().unwrap_or_default().to_string();
        self.site.name(&self.id, &self.letter, &self.name);
        Ok(())
    }

    /// Says what the demo does to this device.
    pub fn say(&self, what: &str) {
        self.show.say(&self.letter, &self.name, &format!("DEMO: {what}"));
    }

    /// Runs one command of the agent's program.
    pub fn agent(&self, args: &[&str]) -> Result<String, String> {
        let out = self.command(args).output().map_err(|e| format!("{}: {e}", self.image.display()))?;
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(format!("vmetric-agent {}: {}", args[0], String::from_utf8_lossy(&out.stderr).trim())),
        }
    }

    /// The same, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.image);
        command.args(args).arg("--state").arg(&self.state).stdin(Stdio::null()).env("VMETRIC_TEST_TIMES", &self.keeper.times);
        command.env("VMETRIC_TEST_CLOCK", &self.keeper.clock).env("VMETRIC_TEST_HOSTNAME", &self.name);
        command
    }

    /// Lets the agent run, from now on again and again.
    pub fn start(&self) -> Result<(), String> {
        self.want(true, None);
        self.until("the agent runs", 30, || self.pid())?;
        let heard = || State::look(&self.state).status::<StatusWire>().filter(|s| s.contact_at > 0);
        self.until("the first contact", 30, || heard().filter(|s| Some(s.pid) == self.pid())).map(drop)
    }

    /// The same after a power cut: the boot id is another one.
    pub fn power_on(&self, boot_id: &str) {
        self.want(true, Some(boot_id.to_string()));
    }

    /// SIGKILL for everything on the device at once; nothing is started again.
    pub fn power_off(&self) {
        if let Ok(mut wanted) = self.keeper.wanted.lock() {
            wanted.runs = false;
            let pid = self.pid();
            if let Some(child) = &mut wanted.child {
                let _ = child.kill();
            }
            if let Some(pid) = pid {
                signal(pid, libc::SIGKILL);
            }
        }
        wait(10, || self.pid().is_none().then_some(()));
    }

    /// Nobody starts the agent again for now.
    pub fn hold(&self) {
        self.want(false, None);
    }

    /// The agent is started again from now on.
    pub fn release(&self) {
        self.want(true, None);
    }

    fn want(&self, runs: bool, boot_id: Option<String>) {
        if let Ok(mut wanted) = self.keeper.wanted.lock() {
            (wanted.runs, wanted.boot_id) = (runs, boot_id);
        }
    }

    /// The running agent's process.
    pub fn pid(&self) -> Option<u32> {
        running_agent(&State::look(&self.state))
    }

    /// Ends the agent's process; whoever keeps it starts it again.
    pub fn end(&self, how: i32) -> bool {
        self.pid().is_some_and(|pid| signal(pid, how))
    }

    /// Ends the agent's process with SIGKILL and waits until it is dead: a write that was under way is over then, and
    /// what is on the disk is all that it left.
    pub fn kill(&self) -> Result<(), String> {
        let pid = self.pid().ok_or("there is no process to kill")?;
        signal(pid, libc::SIGKILL);
        let stat = format!("/proc/{pid}/stat");
        let dead = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            // Gone, or a zombie that its parent has not looked at yet.
            text.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])).then_some(())
        };
        self.until("the killed process to be dead", 5, dead)
    }

    /// Sets the device's clocks, running or not: seconds that the wall clock is off, and the time since boot with suspend.
    pub fn set_clock(&self, wall_s: i64, uptime_s: i64) -> Result<(), String> {
        self.keeper.set_clock(wall_s, uptime_s)
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Status, String> {
        let text = self.agent(&["status", "--json"])?;
        json::from_str(&text).map_err(|_| format!("status --json is not understood: {text}"))
    }

    /// The marks as they are on the disk now.
    pub fn marks(&self) -> Marks {
        State::look(&self.state).load_marks().marks
    }

    /// The slot on trial, if one is.
    pub fn trial(&self) -> Option<Slot> {
        let marks = self.marks();
        Slot::BOTH.into_iter().find(|s| marks.slot(*s).condition == Condition::Trial)
    }

    /// The last result, as the device keeps it.
    pub fn last_result(&self) -> Option<ResultWire> {
        let bytes = std::fs::read(self.state.join("last-result.json")).ok()?;
        json::from_str(&String::from_utf8_lossy(&bytes)).ok()
    }

    /// The Director's view of this device.
    pub fn view(&self) -> Result<AgentView, String> {
        self.site.agent(&self.id)
    }

    /// Waits until `found` finds something.
    pub fn until<T>(&self, what: &str, seconds: u64, found: impl FnMut() -> Option<T>) -> Result<T, String> {
        wait(seconds, found).ok_or_else(|| {
            let now = self.status().map_or_else(|e| e, |s| format!("{} ({}) {} {}", s.version, s.running_as, s.step, s.code));
            format!("{}: {seconds} s passed without: {what}; it is {now}", self.name)
        })
    }

    /// The next result after the one named `before`, once the Director has taken it.
    pub fn result_after(&self, before: &str, seconds: u64) -> Result<ResultWire, String> {
        let shown = |r: &ResultWire| self.view().is_ok_and(|v| v.state == r.outcome && v.code == r.code);
        let taken = |r: &ResultWire| r.id != before && shown(r);
        self.until("a result that the Director has", seconds, || self.last_result().filter(taken))
    }

    /// Orders a version and waits for the result.
    pub fn order(&self, version: &str, more: &str, seconds: u64) -> Result<ResultWire, String> {
        let before = self.last_result().map(|r| r.id).unwrap_or_default();
        self.site.assign(&[&self.id], version, more)?;
        self.result_after(&before, seconds)
    }

    /// A slot's program file.
    pub fn program(&self, slot: Slot) -> PathBuf {
        State::look(&self.state).slot_program(slot)
    }
}

/// Where a device is and what it is called.
pub struct Place {
    /// Its Director.
    pub site: Arc<Site>,
    /// The timeline.
    pub show: Arc<Show>,
    /// Scenario.
    pub letter: String,
    /// Name on the timeline.
    pub name: String,
    /// Who starts its agent again.
    pub mode: Mode,
    /// Its clocks, from the beginning.
    pub clock: Option<(i64, i64)>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.power_off();
    }
}

impl Keeper {
    fn set_clock(&self, wall_s: i64, uptime_s: i64) -> Result<(), String> {
        let new = self.clock.with_extension("new");
        let set = std::fs::write(&new, format!("{wall_s} {uptime_s}")).and_then(|()| std::fs::rename(&new, &self.clock));
        set.map_err(|e| format!("{}: {e}", self.clock.display()))
    }

    fn keep(&self) {
        loop {
            let Ok(mut wanted) = self.wanted.lock() else { return };
            let ended = wanted.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                wanted.child = None;
            }
            if ended && wanted.runs {
                wanted.child = self.spawn(wanted.boot_id.as_deref());
            }
            drop(wanted);
            pause(10);
        }
    }

    fn spawn(&self, boot_id: Option<&str>) -> Option<Child> {
        let log = File::options().create(true).append(true).open(self.state.with_extension("log")).ok()?;
        let mut command = Command::new(&self.image);
        command.arg("run").stdin(Stdio::null()).stdout(log.try_clone().ok()?).stderr(log);
        match self.mode {
            Mode::Exec => command.env("VMETRIC_RESPAWN", "1"),
            Mode::Supervise => command.arg("--supervise"),
        };
        command.arg("--state").arg(&self.state).env("VMETRIC_TEST_TIMES", &self.times);
        command.env("VMETRIC_TEST_CLOCK", &self.clock).env("VMETRIC_TEST_HOSTNAME", &self.name);
        if let Some(boot_id) = boot_id {
            command.env("VMETRIC_TEST_BOOT_ID", boot_id);
        }
        command.spawn().ok()
    }
}
