//! One device: its files, its agent, the operator who updates it, and the questions whether it tells the truth.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use miniserde::{Deserialize, json};
use vmetric::agent::command::running_agent;
use vmetric::core::product::Product;
use vmetric::core::slots::{Condition, Image};
use vmetric::io::clock;
use vmetric::io::state::State;
use vmetric::wire::agent_api::ResultWire;
use vmetric::wire::records::{AcceptedWire, ResultsWire, StatusWire};

use crate::director;
use crate::mount::Mount;
use crate::stage::Stage;
use crate::{pause, signal};

/// Lowered times (feature `fault`): a case takes tenths of a second, a wait one second.
const TIMES: &str = "liveness=10,contact=10,cooldown=1,fresh=60,recheck=1,settled=600,park=55";
/// Starts of the agent in one case before it is called a loop. One cut explains one, a rolled back trial three more.
const STARTS_MAX: u32 = 12;
/// Orders given in one case before nothing is called to come of it.
const ORDERS_MAX: u32 = 6;

/// Who orders the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// `update --file` of the operator.
    File,
    /// An order of the Director, over TLS.
    Online,
}

/// What is done to the first start of the agent.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Kind of the call.
    pub kind: String,
    /// Which one.
    pub at: u64,
    /// See `tracer::Act::parse`.
    pub act: String,
    /// Log of the calls.
    pub log: Option<PathBuf>,
}

/// What came of an update.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Starts of the agent.
    pub starts: u32,
    /// Orders given.
    pub orders: u32,
    /// Why an order did not come to its end: `refused/CODE`, `rolled_back/CODE`.
    pub codes: Vec<String>,
    /// The cut took place.
    pub hit: bool,
}

impl Story {
    /// `finished`, or why the first order was not.
    pub fn outcome(&self) -> String {
        match (&self.hit, self.codes.first()) {
            (false, _) => "not reached".into(),
            (true, None) => "finished".into(),
            (true, Some(code)) => code.clone(),
        }
    }
}

/// A device, or a Director's machine.
pub struct Device {
    /// What runs on it.
    pub product: &'static Product,
    /// Its folder; holds `image`, `state`, logs.
    pub folder: PathBuf,
    /// Its state folder.
    pub state: PathBuf,
    /// Its identity at the Director.
    pub id: String,
    /// The file system of `state`, when a case has one: it is mounted again after a power cut.
    pub mount: Option<Mount>,
    /// A program, with its arguments, that the first agent is started below.
    pub below: Vec<String>,
}

/// What `status --json` says of the program and its slots.
#[derive(Deserialize, Debug)]
pub struct Status {
    version: String,
    runs: bool,
    running: String,
    running_as: String,
}

impl Device {
    /// A factory-new device.
    pub fn bare(stage: &Stage, folder: &Path) -> Result<Device, String> {
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder.join("image")).map_err(told)?;
        let product = stage.product;
        fs::hard_link(stage.factory(), folder.join("image").join(product.name)).map_err(told)?;
        fs::copy(&stage.release.root, folder.join("image/root.json")).map_err(told)?;
        let (folder, state) = (folder.to_path_buf(), folder.join("state"));
        Ok(Device { product, folder, state, id: String::new(), mount: None, below: Vec::new() })
    }

    /// A device in the state of the seed; on-line ones have an identity of their own. `state` may be a mount point.
    pub fn of_seed(stage: &Stage, folder: &Path, state: &Path, flow: Flow) -> Result<Device, String> {
        let mut device = Device { state: state.to_path_buf(), ..Device::bare(stage, folder)? };
        if flow == Flow::Online {
            device.enroll(stage, false)?;
        }
        copy_folder(&stage.seed, state).map_err(|e| format!("{}: {e}", state.display()))?;
        Ok(device)
    }

    /// Makes it known to the Director.
    pub fn enroll(&mut self, stage: &Stage, replace: bool) -> Result<(), String> {
        let (Some(site), Some(token)) = (&stage.site, &stage.token) else { return Err("there is no Director here".into()) };
        let url = format!("https://127.0.0.1:{}", site.port.load(std::sync::atomic::Ordering::SeqCst));
        let mut words = vec!["enroll", "--director", &url, "--token", &token.token, "--pin", &token.pin];
        words.extend(replace.then_some("--replace"));
        let said = self.agent(&words)?;
        self.id = said.trim().rsplit(' ').next().unwrap_or_default().to_string();
        Ok(())
    }

    /// Runs one command of the agent's program.
    pub fn agent(&self, args: &[&str]) -> Result<String, String> {
        let out = self.command(args).output().map_err(|e| e.to_string())?;
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).trim().to_string()),
        }
    }

    /// One command of the device's own program.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("image").join(self.product.name));
        command.args(args).arg("--state").arg(&self.state).stdin(Stdio::null()).env("VMETRIC_TEST_TIMES", TIMES);
        command
    }

    /// A command of another copy of the program: the device's own may not be executable now.
    pub fn status_of(&self, args: &[&str], program: PathBuf) -> Result<String, String> {
        let out = Command::new(program).args(args).arg("--state").arg(&self.state).output().map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    fn hit_file(&self) -> PathBuf {
        self.folder.join("hit")
    }

    /// Room returns, in a case of `ERROR+`.
    fn until_file(&self) -> PathBuf {
        self.folder.join("until")
    }

    /// Starts the agent as a service manager does; with a cut, below the tracer.
    pub fn spawn(&self, boot_id: &str, cut: Option<&Cut>) -> Result<Child, String> {
        let log = File::options().create(true).append(true).open(self.folder.join("log")).map_err(|e| e.to_string())?;
        let again = log.try_clone().map_err(|e| e.to_string())?;
        let mut command = self.command(&["run"]);
        if let Some(cut) = cut {
            let own = std::env::current_exe().map_err(|e| e.to_string())?;
            let run = std::mem::replace(&mut command, Command::new(own));
            command.args(["trace", &cut.kind, &cut.at.to_string(), &cut.act]);
            command.arg(self.hit_file()).arg(self.until_file()).arg(cut.log.clone().unwrap_or_else(|| "-".into()));
            command.arg(run.get_program()).args(run.get_args()).stdin(Stdio::null()).env("VMETRIC_TEST_TIMES", TIMES);
        }
        if let Some((program, args)) = self.below.split_first() {
            let run = std::mem::replace(&mut command, Command::new(program));
            command.args(args).arg(run.get_program()).args(run.get_args()).stdin(Stdio::null()).env("VMETRIC_TEST_TIMES", TIMES);
        }
        command.env("VMETRIC_RESPAWN", "1").env("VMETRIC_TEST_BOOT_ID", boot_id).stdout(log).stderr(again);
        command.spawn().map_err(|e| e.to_string())
    }

    /// Ends the agent the hard way.
    pub fn stop(&self, agent: &mut Child) {
        if !self.below.is_empty()
            && let Some(pid) = self.pid()
        {
            // strace writes its counts when what it traces has ended.
            signal(pid, libc::SIGKILL);
            let _ = agent.wait();
        }
        let _ = agent.kill();
        let _ = agent.wait();
        // Below the tracer the agent is a process of its own, which dies with the tracer, a moment later.
        while let Some(pid) = self.pid() {
            signal(pid, libc::SIGKILL);
            pause(2);
        }
    }

    /// The state folder as it is.
    pub fn look_at_state(&self) -> State {
        State::look_of(self.product, &self.state)
    }

    /// The running program.
    pub fn pid(&self) -> Option<u32> {
        running_agent(&self.look_at_state())
    }

    /// Waits until the agent runs and says what it is; the version that it says and is. The rest of the question, what
    /// `-version` says, is asked once.
    pub fn truth(&self, stage: &Stage, agent: &mut Child) -> Result<String, String> {
        let end = clock::monotonic() + Duration::from_secs(10);
        let mut last = "no agent runs".to_string();
        while clock::monotonic() < end {
            match self.look(stage) {
                Ok(version) => return Ok(version),
                Err(why) => last = why,
            }
            if let Ok(Some(status)) = agent.try_wait() {
                return Err(format!("the agent ended ({status}) before it said what runs: {last}"));
            }
            pause(10);
        }
        Err(last)
    }

    /// Waits for the first word of the running program, which comes after the launcher.
    pub fn until_it_speaks(&self) {
        let spoken = || self.look_at_state().status::<StatusWire>().filter(|s| Some(s.pid) == self.pid());
        crate::wait(10, spoken);
    }

    fn look(&self, stage: &Stage) -> Result<String, String> {
        let pid = self.pid().ok_or("no agent runs")?;
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        let is = stage.version_of(&exe).ok_or("the running file is none of the published ones")?;
        // Asked of a copy of the program: the device's own may be on a file system that forbids it.
        let text = self.status_of(&["status", "--json"], stage.factory())?;
        let unclear = |_| format!("status --json is not understood: {text}");
        let status: Status = match stage.is_director() {
            true => director::own_status(&text)?,
            false => json::from_str(&text).map_err(unclear)?,
        };
        let version = self.status_of(&["-version"], stage.factory())?;
        if self.pid() != Some(pid) || stage.version_of(&exe).as_ref() != Some(&is) {
            return Err("it changed while it was looked at".into());
        }
        let place = if status.running == "factory" { "factory image".to_string() } else { format!("slot {}", status.running) };
        let line = format!("running: {is} ({place}, {})", status.running_as);
        match status.runs && status.version == is && version.lines().nth(1) == Some(&line) {
            true => director::has_its_package(self, &status.running, &is).map(|()| is),
            false => Err(format!("{is} runs, but status says {status:?} and -version says: {version}")),
        }
    }

    /// How the last order ended.
    pub fn last_result(&self) -> Option<ResultWire> {
        self.look_at_state().read("last-result.json").ok().flatten()
    }

    /// The wanted version runs, confirmed, the order has ended, and whoever ordered it knows.
    pub fn is_done(&self, version: &str) -> bool {
        let state = self.look_at_state();
        let marks = state.load_marks().marks;
        let Image::Slot(slot) = marks.active else { return false };
        let order: Option<AcceptedWire> = state.read("order.json").ok().flatten();
        let open: ResultsWire = state.read("results.json").ok().flatten().unwrap_or_default();
        marks.slot(slot).condition == Condition::Confirmed
            && state.slot_json(slot).is_ok_and(|w| w.version == version)
            // An order that rotted away is none; the running version is what the Director wanted.
            && order.is_none_or(|o| o.ended)
            && (self.id.is_empty() || open.results.is_empty())
    }

    /// Orders the version, starts the agent again whenever it ends, gives the order again when it was refused or went
    /// back, and returns when it is done. Everything else is an error: nothing runs, an untruth, a loop, a standstill.
    pub fn update_to(&self, stage: &Stage, flow: Flow, version: &str, boot_id: &str, cut: Option<&Cut>) -> Result<Story, String> {
        let mut update = Update::begin(self, stage, flow, version, boot_id, cut)?;
        let result = update.run().and_then(|()| if stage.is_director() { director::is_intact(stage, self) } else { Ok(()) });
        update.end_operator();
        let mut agent = update.agent;
        self.stop(&mut agent);
        result.map(|()| update.story)
    }
}

struct Update<'a> {
    device: &'a Device,
    stage: &'a Stage,
    flow: Flow,
    version: &'a str,
    boots: (String, String),
    agent: Child,
    operator: Option<Child>,
    story: Story,
    result: String,
    /// What ran has been looked at since the last start.
    looked: bool,
    began: Duration,
}

impl<'a> Update<'a> {
    /// `boot_id`: of the first start; `X/Y`: X at first, Y after a cut.
    fn begin(
        device: &'a Device,
        stage: &'a Stage,
        flow: Flow,
        version: &'a str,
        boot_id: &str,
        cut: Option<&Cut>,
    ) -> Result<Update<'a>, String> {
        let (first, next) = boot_id.split_once('/').unwrap_or((boot_id, boot_id));
        let result = device.last_result().map(|r| r.id).unwrap_or_default();
        let mut story = Story { starts: 1, hit: cut.is_none(), ..Story::default() };
        if flow == Flow::Online {
            order(stage, device, version)?;
            story.orders = 1;
        }
        let agent = device.spawn(first, cut)?;
        let boots = (first.to_string(), next.to_string());
        let began = clock::monotonic();
        Ok(Update { device, stage, flow, version, boots, agent, operator: None, story, result, looked: cut.is_some(), began })
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            self.story.hit |= self.device.hit_file().exists();
            if !matches!(self.agent.try_wait(), Ok(None)) {
                self.start_again()?;
            }
            if !self.looked {
                // After a cut: what runs now says what it is, whatever comes of the update.
                if self.device.truth(self.stage, &mut self.agent).is_ok() {
                    self.looked = true;
                }
            }
            if self.flow == Flow::File {
                self.operate()?;
            }
            if self.device.is_done(self.version) && self.operator.is_none() {
                match self.device.truth(self.stage, &mut self.agent) {
                    Ok(runs) if runs == self.version => break,
                    Ok(runs) => return Err(format!("{runs} runs at the end, not {}", self.version)),
                    // The cut may come after the end: then what starts again has to be the same.
                    Err(_) if !matches!(self.agent.try_wait(), Ok(None)) => continue,
                    Err(why) => return Err(why),
                }
            }
            self.hear()?;
            let age = clock::monotonic().saturating_sub(self.began);
            if age > Duration::from_secs(3) && self.story.hit && !self.device.until_file().exists() {
                let _ = fs::write(self.device.until_file(), b"");
            }
            if age > Duration::from_secs(self.stage.case_s) {
                let now = self.device.agent(&["status"]).unwrap_or_else(|e| e);
                return Err(format!("stands still; {} starts, codes {:?}; status:\n{now}", self.story.starts, self.story.codes));
            }
            pause(5);
        }
        self.story.hit |= self.device.hit_file().exists();
        Ok(())
    }

    fn end_operator(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            let _ = operator.kill();
            let _ = operator.wait();
        }
    }

    fn start_again(&mut self) -> Result<(), String> {
        let _ = self.agent.wait();
        if self.story.starts == 1
            && self.device.hit_file().exists()
            && let Some(mount) = &self.device.mount
        {
            // The power was cut: for everybody on the device.
            self.end_operator();
            mount.again()?;
        }
        self.story.starts += 1;
        if self.story.starts > STARTS_MAX {
            return Err(format!("a loop: the agent ended {STARTS_MAX} times; codes {:?}", self.story.codes));
        }
        // A service manager does not start again at once what dies at once.
        pause(if self.story.starts > 3 { 100 } else { 2 });
        self.agent = self.device.spawn(&self.boots.1, None)?;
        self.looked = false;
        Ok(())
    }

    /// The operator: gives the order when an agent runs, and again when it came to nothing.
    fn operate(&mut self) -> Result<(), String> {
        let Some(operator) = &mut self.operator else {
            if self.device.pid().is_some() && !self.device.is_done(self.version) {
                self.story.orders += 1;
                if self.story.orders > ORDERS_MAX * 2 {
                    return Err(format!("nothing came of {} orders: {:?}", self.story.orders, self.story.codes));
                }
                let source = self.stage.source.display().to_string();
                let mut command = self.device.command(&["update", "--file", &source, "--version", self.version]);
                let out = File::create(self.device.folder.join("operator")).map_err(|e| e.to_string())?;
                let err = out.try_clone().map_err(|e| e.to_string())?;
                self.operator = Some(command.stdout(out).stderr(err).spawn().map_err(|e| e.to_string())?);
            }
            return Ok(());
        };
        if let Ok(Some(status)) = operator.try_wait() {
            self.operator = None;
            if !status.success() {
                let said = fs::read_to_string(self.device.folder.join("operator")).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                let code = last.rsplit_once('(').map_or("", |(_, code)| code.trim_end_matches(')'));
                if code.is_empty() || !last.ends_with(')') {
                    return Err(format!("update --file failed without a code: {said}"));
                }
                self.story.codes.push(format!("command/{code}"));
                pause(50);
            }
        }
        Ok(())
    }

    /// A new result: refused and rolled back ones are noted, and the order is given again.
    fn hear(&mut self) -> Result<(), String> {
        let Some(result) = self.device.last_result().filter(|r| r.id != self.result) else { return Ok(()) };
        self.result = result.id.clone();
        if matches!(result.outcome.as_str(), "updated" | "already") {
            return Ok(());
        }
        if result.code.is_empty() {
            return Err(format!("a result without a reason: {result:?}"));
        }
        self.story.codes.push(format!("{}/{}", result.outcome, result.code));
        if self.flow == Flow::Online {
            self.story.orders += 1;
            if self.story.orders > ORDERS_MAX {
                return Err(format!("nothing came of {} orders: {:?}", self.story.orders, self.story.codes));
            }
            order(self.stage, self.device, self.version)?;
        }
        Ok(())
    }
}

fn order(stage: &Stage, device: &Device, version: &str) -> Result<(), String> {
    let site = stage.site.as_ref().ok_or("there is no Director here")?;
    site.assign(&[&device.id], version, "--end-probation --retry").map(drop)
}

/// A deep copy, for what happens to it happens to no other.
pub fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&path, &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}
