//! Many devices on trial at the same time, and their Director is killed: nobody may go back for its sake.
//!
//! Real agents, as many processes as devices, in exec mode; what is saved is only what a device has of its own: the image is
//! one file with many names. Each device is ordered by itself, with the same time to switch.

use std::fs::{create_dir_all, hard_link};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use miniserde::json;
use vmetric::core::slots::{Condition, Slot};
use vmetric::director::admin::{AdminWire, SOCKET, StatusWire};
use vmetric::io::clock;
use vmetric::io::state::State;
use vmetric::wire::agent_api::ResultWire;

use crate::build::{self, FACTORY, GOOD, VARIANTS};
use crate::pause;
use crate::release;
use crate::show::Show;
use crate::site::Site;

/// The agents' times: only the long poll is shorter, so that all have been in contact just before the switch.
const TIMES: &str = "park=15";
/// Until the switch: time to order and to fetch, in all and per device.
const SWITCH_IN: (u64, u64) = (40, 4);
/// How long the Director is away once all are on trial, seconds: several tries of each device fall into it.
const AWAY_S: u64 = 15;
/// Part of the devices, in percent, that must be on trial when the Director comes back, or nothing was shown.
const OVERLAP: usize = 95;

struct Member {
    image: PathBuf,
    state: PathBuf,
    id: String,
    child: Option<Child>,
}

impl Member {
    fn new(folder: &Path, agent: &Path, root: &Path, site: &Site, url: &str, token: &str, pin: &str) -> Result<Member, String> {
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        let image = folder.join("image");
        create_dir_all(&image).map_err(told)?;
        hard_link(agent, image.join("vmetric-agent")).map_err(told)?;
        hard_link(root, image.join("root.json")).map_err(told)?;
        let mut member = Member { image: image.join("vmetric-agent"), state: folder.join("state"), id: String::new(), child: None };
        loop {
            let mut command = Command::new(&member.image);
            command.args(["enroll", "--director", url, "--pin", pin, "--state"]).arg(&member.state).env("VMETRIC_TOKEN", token);
            let out = command.stdin(Stdio::null()).output().map_err(told)?;
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            if out.status.success() {
                member.id = said.trim().rsplit(' ').next().unwrap_or_default().to_string();
                return Ok(member);
            }
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            // So many installations at once are slowed down, as they should be.
            if !why.contains("throttled") || site.has_ended() {
                return Err(why);
            }
            pause(1_000);
        }
    }

    /// What a service manager does: starts it when it does not run.
    fn keep(&mut self) -> Result<(), String> {
        if self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
            return Ok(());
        }
        let mut command = Command::new(&self.image);
        command.args(["run", "--state"]).arg(&self.state).env("VMETRIC_RESPAWN", "1").env("VMETRIC_TEST_TIMES", TIMES);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(spawned.map_err(|e| e.to_string())?);
        Ok(())
    }

    fn is(&self, condition: Condition) -> bool {
        let marks = State::look(&self.state).load_marks().marks;
        Slot::BOTH.into_iter().any(|slot| marks.slot(slot).condition == condition)
    }

    fn result(&self) -> Option<ResultWire> {
        State::look(&self.state).read("last-result.json").ok().flatten()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks over the administration socket, without a process for each question.
fn ask(site: &Site, request: &AdminWire) -> Result<String, String> {
    let told = |e: std::io::Error| format!("{SOCKET}: {e}");
    let mut stream = UnixStream::connect(site.state.join(SOCKET)).map_err(told)?;
    stream.write_all((json::to_string(request) + "\n").as_bytes()).map_err(told)?;
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().ok_or("no answer")?.map_err(told)?;
    let status: StatusWire = json::from_str(&first).map_err(|_| first.clone())?;
    if status.code != "ok" {
        return Err(format!("{} ({})", status.detail, status.code));
    }
    lines.next().ok_or("no answer")?.map_err(told)
}

/// Keeps all agents running until `done` counts enough, at most so long. Returns the last count.
fn until(members: &mut [Member], seconds: u64, enough: usize, count: impl Fn(&Member) -> bool) -> Result<usize, String> {
    let end = clock::monotonic() + Duration::from_secs(seconds);
    loop {
        members.iter_mut().try_for_each(Member::keep)?;
        let counted = members.iter().filter(|m| count(m)).count();
        if counted >= enough || clock::monotonic() >= end {
            return Ok(counted);
        }
        pause(200);
    }
}

/// The whole of it; one sentence of figures.
pub fn run(work: &Path, show: &Arc<Show>, devices: usize) -> Result<String, String> {
    let wanted = VARIANTS.into_iter().filter(|v| v.version == FACTORY || v.version == GOOD).collect::<Vec<_>>();
    let builds = build::build(work, show, &wanted, &[], None)?;
    let release = release::publish(work, &builds, show)?;
    // A port that stays the same when the Director comes back.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?.port();
    let site = Site::start_at(&work.join("site"), &builds, &release, show, &format!("127.0.0.1:{port}"))?;
    let token: vmetric::director::commands::TokenView = site.ask(&format!("token create --uses {devices}"))?;
    let began = clock::monotonic();
    let mut members = Vec::new();
    for n in 0..devices {
        let folder = work.join(format!("fleet/{n:05}"));
        members.push(Member::new(&folder, &builds.agent(FACTORY), &release.root, &site, &token.url, &token.token, &token.pin)?);
        members.iter_mut().last().map_or(Ok(()), Member::keep)?;
    }
    let passed = |since: Duration| clock::monotonic().saturating_sub(since).as_secs();
    show.say("", "fleet", &format!("{devices} devices are enrolled and run after {} s", passed(began)));

    let switch_at = clock::monotonic() + Duration::from_secs(SWITCH_IN.0 + devices as u64 / SWITCH_IN.1);
    for member in &members {
        let left = switch_at.saturating_sub(clock::monotonic()).as_secs();
        let request = AdminWire {
            command: "assign".into(),
            agents: Some(vec![member.id.clone()]),
            version: Some(GOOD.into()),
            switch_in_s: Some(left),
            ..Default::default()
        };
        ask(&site, &request)?;
    }
    let staged = |m: &Member| m.state.join("slots/a/vmetric-agent").exists();
    let left = switch_at.saturating_sub(clock::monotonic()).as_secs().saturating_sub(2);
    let ready = until(&mut members, left, devices, staged)?;
    show.say(
        "",
        "fleet",
        &format!("{ready} have the new version; {} s to the switch", switch_at.saturating_sub(clock::monotonic()).as_secs()),
    );
    while switch_at.saturating_sub(clock::monotonic()) > Duration::from_secs(2) {
        members.iter_mut().try_for_each(Member::keep)?;
        pause(200);
    }
    site.kill();
    let killed = clock::monotonic();
    show.say("", "fleet", "the Director is killed (SIGKILL)");
    until(&mut members, 120, devices, |m| m.is(Condition::Trial))?;
    let end = clock::monotonic() + Duration::from_secs(AWAY_S);
    while clock::monotonic() < end {
        members.iter_mut().try_for_each(Member::keep)?;
        pause(200);
    }
    let on_trial = members.iter().filter(|m| m.is(Condition::Trial)).count();
    let away = passed(killed);
    show.say("", "fleet", &format!("{on_trial} are on trial without a Director; it is started again after {away} s"));
    site.up()?;
    let back = clock::monotonic();
    let confirmed = until(&mut members, 400, devices, |m| m.is(Condition::Confirmed))?;
    let took = passed(back);
    let gone_back = members.iter().filter(|m| m.result().is_some_and(|r| r.outcome == "rolled_back")).count();
    let shown = until(&mut members, 60, 1, |_| site.status().is_ok())?;
    let figures = format!(
        "{devices} devices; {on_trial} on trial when the Director was killed and away for {away} s; {confirmed} confirmed {took} s after its return; \
         {gone_back} rollbacks"
    );
    match on_trial * 100 >= devices * OVERLAP && confirmed == devices && gone_back == 0 && shown > 0 {
        true => Ok(figures),
        false => Err(figures),
    }
}
