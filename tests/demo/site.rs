//! A site: one Director, its process, its administrator, its activity on the timeline.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use miniserde::json;
use vmetric::director::acts::OrderedView;
use vmetric::director::commands::TokenView;
use vmetric::director::records::Event;
use vmetric::director::views::{AgentView, AgentsView, RolloutView, RolloutsView, StatusView};

use crate::build::Builds;
use crate::release::Release;
use crate::show::{Show, words};
use crate::wait;

/// What Fleet is called on the timeline; everything else is a Director.
pub const FLEET: &str = "fleet";

/// One Director, or Fleet.
pub struct Site {
    /// Its state folder.
    pub state: PathBuf,
    /// Where it listens; relays look here for each connection.
    pub port: Arc<AtomicU16>,
    program: PathBuf,
    run: Vec<String>,
    /// Without `--mirror` there is nothing to serve until somebody brings it.
    linked: bool,
    process: Mutex<Option<Child>>,
    follow: Arc<Follow>,
}

/// Who is who on the timeline, and how far it has got.
struct Follow {
    show: Arc<Show>,
    /// What is called so when an event names nobody.
    called: &'static str,
    names: Mutex<HashMap<String, (String, String)>>,
    seen: AtomicU64,
    events: Mutex<Vec<Event>>,
    quiet: AtomicBool,
}

impl Site {
    /// A new Director in `folder`, running, with the release mirrored.
    pub fn start(folder: &Path, builds: &Builds, release: &Release, show: &Arc<Show>) -> Result<Site, String> {
        Site::begin(folder, builds, release, show, true, "127.0.0.1:0")
    }

    /// The same at a given address.
    pub fn start_at(folder: &Path, builds: &Builds, release: &Release, show: &Arc<Show>, listen: &str) -> Result<Site, String> {
        Site::begin(folder, builds, release, show, true, listen)
    }

    /// A new Director without a link to anywhere.
    pub fn start_without_link(folder: &Path, builds: &Builds, release: &Release, show: &Arc<Show>) -> Result<Site, String> {
        Site::begin(folder, builds, release, show, false, "127.0.0.1:0")
    }

    fn begin(folder: &Path, builds: &Builds, release: &Release, show: &Arc<Show>, linked: bool, listen: &str) -> Result<Site, String> {
        let text = |p: &Path| p.display().to_string();
        let mirror = linked.then(|| ["--mirror".into(), text(&release.tree)]).into_iter().flatten();
        let root = ["--root".into(), text(&release.root)];
        let address = ["--listen".into(), listen.into(), "--name".into(), "127.0.0.1".into()];
        let run = ["run".into()].into_iter().chain(mirror).chain(root).chain(address).collect();
        Site::open(folder, &builds.director, run, linked, show, "director")
    }

    /// Any program that is a server of this kind, run with these words.
    pub fn open(
        folder: &Path,
        program: &Path,
        run: Vec<String>,
        linked: bool,
        show: &Arc<Show>,
        called: &'static str,
    ) -> Result<Site, String> {
        let follow = Follow {
            show: show.clone(),
            called,
            names: Mutex::default(),
            seen: AtomicU64::new(0),
            events: Mutex::default(),
            quiet: AtomicBool::new(false),
        };
        let site = Site {
            state: folder.to_path_buf(),
            port: Arc::default(),
            program: program.to_path_buf(),
            run,
            linked,
            process: Mutex::default(),
            follow: Arc::new(follow),
        };
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        site.up()?;
        Ok(site)
    }

    /// Starts the process and waits until it is ready.
    pub fn up(&self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.state.with_extension("log")).map_err(|e| e.to_string())?;
        let again = log.try_clone().map_err(|e| e.to_string())?;
        let mut command = Command::new(&self.program);
        command.args(&self.run).arg("--state").arg(&self.state).stdin(Stdio::null()).stdout(log).stderr(again);
        command.env("VMETRIC_TEST_HOSTNAME", self.follow.called);
        let child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        *self.process.lock().map_err(|e| e.to_string())? = Some(child);
        let ready = || self.status().ok().filter(|s| s.timestamp_version > 0 || !self.linked);
        let status = wait(30, ready).ok_or("the Director did not become ready within 30 s")?;
        let port = status.listen.first().and_then(|a| a.rsplit_once(':')).and_then(|(_, p)| p.parse().ok());
        self.port.store(port.ok_or("the Director names no port")?, Ordering::SeqCst);
        let (program, state, follow) = (self.program.clone(), self.state.clone(), self.follow.clone());
        thread::spawn(move || follow.run(&program, &state));
        Ok(())
    }

    /// SIGKILL: no stop, no last words.
    pub fn kill(&self) {
        self.end(|child| child.kill().unwrap_or_default());
    }

    /// SIGTERM, and goes on.
    pub fn ask_to_stop(&self) {
        if let Ok(process) = self.process.lock()
            && let Some(child) = process.as_ref()
        {
            vmetric::io::process::stop(child.id());
        }
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.process.lock().is_ok_and(|mut p| p.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))))
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&self) {
        self.end(|child| vmetric::io::process::stop(child.id()));
    }

    fn end(&self, how: impl FnOnce(&mut Child)) {
        if let Ok(mut process) = self.process.lock()
            && let Some(mut child) = process.take()
        {
            how(&mut child);
            let _ = child.wait();
        }
    }

    /// Asks the running Director as an administrator does.
    pub fn ask<T: miniserde::Deserialize>(&self, line: &str) -> Result<T, String> {
        let mut command = Command::new(&self.program);
        command.args(line.split(' ')).arg("--json").arg("--state").arg(&self.state).stdin(Stdio::null());
        let out = command.output().map_err(|e| format!("{}: {e}", self.program.display()))?;
        let text = String::from_utf8_lossy(&out.stdout);
        match out.status.success() {
            true => json::from_str(&text).map_err(|_| format!("{line} answered: {text}")),
            false => Err(String::from_utf8_lossy(&out.stderr).trim().to_string()),
        }
    }

    /// The Director itself.
    pub fn status(&self) -> Result<StatusView, String> {
        self.ask("status")
    }

    /// A token for one device.
    pub fn token(&self) -> Result<TokenView, String> {
        self.ask("token create")
    }

    /// What it knows of an agent, or Fleet of a Director.
    pub fn agent(&self, id: &str) -> Result<AgentView, String> {
        let nodes = if self.follow.called == FLEET { "directors" } else { "agents" };
        let all: AgentsView = self.ask(nodes)?;
        all.agents.into_iter().find(|a| a.id == id).ok_or_else(|| format!("{} does not list {id}", self.follow.called))
    }

    /// A roll-out.
    pub fn rollout(&self, id: u64) -> Result<RolloutView, String> {
        let all: RolloutsView = self.ask("rollouts")?;
        all.rollouts.into_iter().find(|r| r.id == id).ok_or_else(|| format!("there is no roll-out {id}"))
    }

    /// Assigns a version to these agents; `more` are further options.
    pub fn assign(&self, ids: &[&str], version: &str, more: &str) -> Result<OrderedView, String> {
        let ids: String = ids.iter().map(|id| format!(" --agent {id}")).collect();
        let more = if more.is_empty() { String::new() } else { format!(" {more}") };
        self.ask(&format!("assign{ids} --version {version}{more}"))
    }

    /// Gives an agent its name on the timeline.
    pub fn name(&self, id: &str, letter: &str, name: &str) {
        if let Ok(mut names) = self.follow.names.lock() {
            names.insert(id.into(), (letter.into(), name.into()));
        }
    }

    /// The activity so far.
    pub fn activity(&self) -> Vec<Event> {
        self.follow.events.lock().map(|e| e.clone()).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.follow.quiet.store(true, Ordering::SeqCst);
        self.kill();
    }
}

impl Follow {
    /// Follows the activity of one run of the Director to its end.
    fn run(&self, program: &Path, state: &Path) {
        let mut command = Command::new(program);
        command.args(["activity", "--follow", "--json", "--limit", "100000", "--state"]).arg(state);
        let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else { return };
        if let Some(out) = child.stdout.take() {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(event) = json::from_str::<Event>(&line) {
                    self.take(event);
                }
            }
        }
        let _ = child.wait();
    }

    fn take(&self, event: Event) {
        // A follower of the next run reads the old events again.
        if event.seq < self.seen.load(Ordering::SeqCst) || self.quiet.load(Ordering::SeqCst) {
            return;
        }
        self.seen.store(event.seq + 1, Ordering::SeqCst);
        let find = || self.names.lock().ok()?.get(&event.agent).cloned();
        // The first events of a device may come before its name.
        let known = if event.agent.is_empty() { Some((String::new(), self.called.into())) } else { find() };
        if let Some((letter, name)) = known
            && let Some(text) = words(&event, name.trim_end_matches('s') == "device-h")
        {
            self.show.say(&letter, &name, &text);
        }
        if let Ok(mut events) = self.events.lock() {
            events.push(event);
        }
    }
}
