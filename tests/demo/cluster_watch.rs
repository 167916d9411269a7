//! What is seen of a cluster while it is updated: from Fleet, from outside by each member's `/readyz`, and from its agents.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, create_dir_all, hard_link};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vmetric::director::policing::clusters::ClusterView;
use vmetric::io::clock;
use vmetric::io::http::{Http, HttpConfig};
use vmetric::io::state::State;
use vmetric::io::tls::parse_pin;
use vmetric::wire::records::StatusWire;

use crate::cluster::{World, names, north};
use crate::pause;
use crate::site::{FLEET, Site};

/// Between two looks at members and agents, milliseconds: what a failover is measured with.
const LOOK_MS: u64 = 5;
/// Fleet is asked so often: a process of its own for each question.
const ASK: Duration = Duration::from_millis(250);
/// A member that serves answers at once; a busy machine gets more.
const ANSWER: Duration = Duration::from_secs(10);
/// Of three.
const MAJORITY: usize = 2;
/// Longest answer of `/readyz`.
const ANSWER_MAX: u64 = 4 * 1024;

/// One Director of the cluster.
pub struct Member {
    /// Its process and its administrator.
    pub site: Site,
    /// Its identity at Fleet.
    pub id: String,
    /// Its name on the timeline.
    pub name: &'static str,
    url: String,
    http: RefCell<Option<Http>>,
    pin: String,
}

impl Member {
    /// A running one.
    pub fn new(site: Site, id: String, name: &'static str, url: String) -> Result<Member, String> {
        let pin = site.status()?.pin;
        Ok(Member { site, id, name, url, http: RefCell::default(), pin })
    }

    /// As a load balancer sees it.
    fn serves(&self) -> bool {
        let Ok(pin) = parse_pin(&self.pin) else { return false };
        let config = HttpConfig { pins: vec![pin], proxy: None, user_agent: "demo", wake_fd: None, tick: || {} };
        let Some(http) = self.http.take().or_else(|| Http::new(config).ok()) else { return false };
        let answer = http.get(&format!("{}/readyz", self.url), None, None, ANSWER_MAX, ANSWER);
        let Ok(mut answer) = answer else { return false };
        let mut piece = [0; 512];
        while let Ok(1..) = answer.read(&mut piece) {}
        let good = answer.status == 200;
        drop(answer);
        self.http.replace(Some(http));
        good
    }
}

/// A real agent, as a service manager keeps it.
pub struct Agent {
    /// Its name on the timeline.
    pub name: String,
    image: PathBuf,
    state: PathBuf,
    child: RefCell<Option<Child>>,
}

impl Agent {
    /// Enrolled at this member, and running.
    pub fn new(folder: &Path, program: &Path, root: &Path, site: &Site, name: String) -> Result<Agent, String> {
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        let image = folder.join("image");
        create_dir_all(&image).map_err(told)?;
        hard_link(program, image.join("vmetric-agent")).map_err(told)?;
        fs::copy(root, image.join("root.json")).map_err(told)?;
        let agent = Agent { name, image: image.join("vmetric-agent"), state: folder.join("state"), child: RefCell::default() };
        let token = site.token()?;
        let mut enroll = Command::new(&agent.image);
        enroll.args(["enroll", "--director", &token.url, "--pin", &token.pin, "--state"]).arg(&agent.state);
        enroll.env("VMETRIC_TOKEN", &token.token).env("VMETRIC_TEST_HOSTNAME", &agent.name);
        let out = enroll.stdin(Stdio::null()).output().map_err(told)?;
        if !out.status.success() {
            return Err(format!("vmetric-agent enroll: {}", String::from_utf8_lossy(&out.stderr)));
        }
        agent.keep()?;
        Ok(agent)
    }

    /// Starts it when it does not run.
    fn keep(&self) -> Result<(), String> {
        let mut child = self.child.borrow_mut();
        if child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            return Ok(());
        }
        let mut command = Command::new(&self.image);
        command.args(["run", "--state"]).arg(&self.state).env("VMETRIC_RESPAWN", "1").env("VMETRIC_TEST_HOSTNAME", &self.name);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        *child = Some(spawned.map_err(|e| format!("{}: {e}", self.image.display()))?);
        Ok(())
    }

    /// Whether it has been told of so many members.
    pub fn knows(&self, members: usize) -> bool {
        let text = fs::read_to_string(self.state.join("config/agent.json")).unwrap_or_default();
        self.keep().is_ok() && text.matches("https://127.0.0.1:").count() > members
    }

    /// The member that answered it last.
    fn at(&self) -> Option<String> {
        let status: StatusWire = State::look(&self.state).status()?;
        status.member.filter(|_| status.contact_at > 0 && status.link_code.is_none())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One roll-out as it goes.
pub struct Watch<'a> {
    world: &'a World,
    letter: &'static str,
    version: &'static str,
    /// It failed, and is not tried again.
    pub rests: Option<String>,
    names: BTreeMap<String, &'static str>,
    view: ClusterView,
    serving: Vec<bool>,
    /// Since when a member does not serve.
    away: BTreeMap<String, Duration>,
    at: Vec<Option<String>>,
    moved: Vec<Duration>,
    fewest: usize,
    most_out: usize,
    leases: u64,
    asked: Option<Duration>,
    /// Who was said to be next at the beginning, and who had the lease then.
    first: Option<(String, Option<String>)>,
}

impl<'a> Watch<'a> {
    /// Nothing has been seen yet.
    pub fn new(world: &'a World, letter: &'static str, version: &'static str) -> Watch<'a> {
        Watch {
            world,
            letter,
            version,
            rests: None,
            names: names(&world.members),
            view: ClusterView::default(),
            serving: vec![true; world.members.len()],
            away: BTreeMap::new(),
            at: world.agents.iter().map(Agent::at).collect(),
            moved: Vec::new(),
            fewest: world.members.len(),
            most_out: 0,
            leases: 0,
            asked: None,
            first: None,
        }
    }

    /// Looks until it is so.
    pub fn until(&mut self, what: &str, seconds: u64, done: impl Fn(&ClusterView) -> Result<bool, String>) -> Result<ClusterView, String> {
        let end = clock::monotonic() + Duration::from_secs(seconds);
        loop {
            self.look()?;
            if done(&self.view)? {
                return Ok(self.view.clone());
            }
            if clock::monotonic() >= end {
                return Err(format!("{seconds} s passed without {what}: {:?}", self.view));
            }
            pause(LOOK_MS);
        }
    }

    /// Looks for so long.
    pub fn for_s(&mut self, seconds: u64) -> Result<(), String> {
        let end = clock::monotonic() + Duration::from_secs(seconds);
        while clock::monotonic() < end {
            self.look()?;
            pause(LOOK_MS);
        }
        Ok(())
    }

    /// Who goes first.
    pub fn first_turn(&self) -> Result<String, String> {
        let first = self.view.members.iter().min_by_key(|m| m.turn);
        first.map(|m| m.id.clone()).ok_or_else(|| "the cluster has no members".into())
    }

    /// The rules that hold for every roll-out; how long each agent took to be at another member.
    pub fn ended(mut self, leases: u64) -> Result<Vec<Duration>, String> {
        self.asked = None;
        self.look()?;
        if self.leases != leases || self.most_out > 1 || self.fewest < MAJORITY {
            return Err(format!(
                "{} leases (expected {leases}), {} members out at once, {} of {} served at the worst moment",
                self.leases,
                self.most_out,
                self.fewest,
                self.world.members.len()
            ));
        }
        let homeless = || self.world.agents.iter().find(|agent| agent.at().is_none()).map(|agent| agent.name.clone());
        if crate::wait(30, || homeless().is_none().then_some(())).is_none() {
            return Err(format!("{:?} has no Director", homeless()));
        }
        self.moved.sort_unstable();
        if let (Some(middle), Some(worst)) = (self.moved.get(self.moved.len() / 2), self.moved.last()) {
            let (count, fewest, of) = (self.moved.len(), self.fewest, self.world.members.len());
            let what = format!(
                "never fewer than {fewest} of {of} served; {count} moves of agents, median {} ms, worst {} ms",
                middle.as_millis(),
                worst.as_millis()
            );
            self.world.show.say(self.letter, "", &what);
        }
        Ok(self.moved)
    }

    /// Whoever was said to be next at the beginning went first. Later on members' agents move, and what they tell of it is late.
    pub fn went_as_planned(&self) -> Result<(), String> {
        match &self.first {
            Some((next, Some(went))) if next == went => Ok(()),
            other => Err(format!("who was to be next, and went: {other:?}")),
        }
    }

    fn say(&self, who: &str, what: &str) {
        self.world.show.say(self.letter, self.names.get(who).copied().unwrap_or(who), what);
    }

    fn look(&mut self) -> Result<(), String> {
        self.look_at_members();
        self.look_at_agents()?;
        if self.asked.is_some_and(|asked| clock::monotonic().saturating_sub(asked) < ASK) {
            return Ok(());
        }
        self.asked = Some(clock::monotonic());
        let view = north(&self.world.fleet)?;
        self.tell(&view);
        let out = view.members.iter().filter(|m| matches!(m.state.as_str(), "draining" | "updating" | "rejoining")).count();
        self.most_out = self.most_out.max(out);
        self.view = view;
        Ok(())
    }

    fn look_at_members(&mut self) {
        let before = self.serving.clone();
        for (n, member) in self.world.members.iter().enumerate() {
            self.serving[n] = member.serves();
            match self.serving[n] {
                true => drop(self.away.remove(&member.url)),
                false => drop(self.away.entry(member.url.clone()).or_insert_with(clock::monotonic)),
            }
        }
        if before != self.serving {
            let (serve, of) = (self.serving.iter().filter(|s| **s).count(), self.serving.len());
            self.fewest = self.fewest.min(serve);
            let word = if serve >= MAJORITY { "quorum" } else { "NO QUORUM" };
            self.say("", &format!("{serve} of {of} serve: {word}"));
        }
    }

    fn look_at_agents(&mut self) -> Result<(), String> {
        for (n, agent) in self.world.agents.iter().enumerate() {
            agent.keep()?;
            let Some(at) = agent.at() else { continue };
            let Some(before) = self.at[n].replace(at.clone()).filter(|before| *before != at) else { continue };
            let of = |url: &str| self.world.members.iter().find(|m| m.url == url).map_or("?", |m| m.name);
            let since = self.away.get(&before).map(|since| clock::monotonic().saturating_sub(*since));
            let after = since.map_or(String::new(), |d| format!(", {} ms after {} stopped serving", d.as_millis(), of(&before)));
            self.world.show.say(self.letter, &agent.name, &format!("is at {} now{after}", of(&at)));
            self.moved.extend(since);
        }
        Ok(())
    }

    /// What is new at Fleet.
    fn tell(&mut self, view: &ClusterView) {
        let before = &self.view;
        if before.holder != view.holder {
            if let Some(holder) = &before.holder {
                self.say(holder, "has given the lease back");
            }
            if let Some(holder) = &view.holder {
                self.say(holder, &format!("has the lease, epoch {}", view.epoch));
                if let Some((_, went)) = &mut self.first {
                    went.get_or_insert_with(|| holder.clone());
                }
            }
        }
        for member in &view.members {
            let was = before.members.iter().find(|m| m.id == member.id).map_or("healthy", |m| m.state.as_str());
            if was == member.state {
                continue;
            }
            let holds = view.holder.as_ref() == Some(&member.id);
            let what = match member.state.as_str() {
                "draining" => "drains: /readyz fails, its agents move on".into(),
                "updating" if !holds => "has and knows the new version, and asks for the lease".into(),
                "updating" => "is away for its update".into(),
                "rejoining" => "is back; its peers look whether it serves".into(),
                "healthy" if holds => format!("is healthy, and watched for {} s (soak)", view.soak_s),
                "healthy" => "is healthy".into(),
                _ => member.detail.clone().unwrap_or_else(|| member.state.clone()),
            };
            self.say(&member.id, &what);
        }
        if view.epoch > before.epoch && !before.id.is_empty() {
            self.leases += view.epoch - before.epoch;
        }
        // Who is next: at the beginning, and whenever one is done.
        if view.holder.is_none() && view.stopped.is_none() && (before.holder.is_some() || before.id.is_empty()) {
            let left =
                view.members.iter().filter(|m| m.version != self.version && self.rests.as_ref() != Some(&m.id)).min_by_key(|m| m.turn);
            if let Some(next) = left {
                self.first.get_or_insert_with(|| (next.id.clone(), None));
                self.say(FLEET, &format!("next: {}, {} agents", self.names.get(&next.id).copied().unwrap_or("?"), next.load));
            }
        }
        if before.stopped != view.stopped
            && let Some(stopped) = &view.stopped
        {
            self.say(FLEET, &format!("the cluster is {stopped}: the rest stay where they are until `cluster resume`"));
        }
    }
}
