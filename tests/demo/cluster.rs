//! `cargo demo -- cluster`: three Directors under a Fleet, agents on all of them, and two roll-outs, watched live.
//!
//! The first one goes through, one member at a time. In the second one the new version does not start on whoever comes
//! second: it goes back, the cluster halts with the reason, and the third stays where it is until a person says that it goes on.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use miniserde::json::Value;
use vmetric::director::commands::TokenView;
use vmetric::director::policing::clusters::{ClusterView, ClustersView};
use vmetric::io::clock;
use vmetric::io::fs::{PUBLIC, write_volatile};

use crate::build::{self, Builds, CLUSTER, DIRECTOR_FACTORY, DIRECTOR_GOOD, DIRECTOR_PICKY, FACTORY, Variant};
use crate::cluster_watch::{Agent, Member, Watch};
use crate::release::{self, Release};
use crate::show::{Row, Show};
use crate::site::{FLEET, Site};
use crate::{place_program, wait};

/// The members, and how many agents enroll at each: the one with the fewest goes first.
const MEMBERS: [(&str, usize); 3] = [("north-1", 3), ("north-2", 1), ("north-3", 2)];
/// How long a member's `/readyz` fails before it stops, and how long it is watched (in the field 10 s and 60 s).
const TERMS: &str = "--drain 3s --soak 5s";
/// Members are told of each other with their healths, which come twice a minute.
const WELL_S: u64 = 150;
/// A roll-out of three takes half a minute; a busy machine gets much more.
const ROLL_OUT_S: u64 = 300;

/// What is shared by both scenarios.
pub struct World {
    /// The timeline.
    pub show: Arc<Show>,
    /// Fleet.
    pub fleet: Site,
    /// In the order in which they were started.
    pub members: Vec<Member>,
    /// Of all members.
    pub agents: Vec<Agent>,
}

/// Builds, publishes and plays; says how many passed and failed.
pub fn run(work: &Path, show: &Arc<Show>, kept: Option<&Path>) -> Result<(usize, usize), String> {
    let agents: Vec<Variant> = build::VARIANTS.iter().filter(|v| v.version == FACTORY).copied().collect();
    let builds = build::build(work, show, &agents, &CLUSTER, kept)?;
    let release = release::publish(work, &builds, show)?;
    let built = show.seconds();
    let world = World::set_up(work, show, &builds, &release)?;
    type Scenario = (&'static str, &'static str, fn(&World) -> Result<Row, String>);
    let all: [Scenario; 3] = [
        ("1", "a cluster of three is updated, one by one", goes_through),
        ("2", "the second member fails, the rest stay", halts),
        ("3", "a person resumes, the third goes", goes_on),
    ];
    let mut ends: Vec<Result<Row, String>> = Vec::new();
    for (letter, what, play) in &all {
        show.say(letter, "", &format!("DEMO: {what}"));
        let end = match ends.iter().any(Result::is_err) {
            true => Err("did not begin: the one before has failed".into()),
            false => play(&world),
        };
        match &end {
            Ok(row) => show.say(letter, "", &format!("PASS: {what}: {} {}", row.result, row.code)),
            Err(why) => show.say(letter, "", &format!("FAIL: {what}: {why}")),
        }
        ends.push(end);
    }
    show.table_head();
    all.iter().zip(&ends).for_each(|((letter, what, _), end)| show.table_row(letter, what, "supervise", end));
    show.plain("");
    show.plain("gap: the longest that an agent was without its Director, milliseconds.");
    show.plain(&format!("builds and release {built:.1} s, scenarios {:.1} s", show.seconds() - built));
    let failed = ends.iter().filter(|e| e.is_err()).count();
    Ok((ends.len() - failed, failed))
}

/// One after the other, and at no moment fewer than two that serve.
fn goes_through(world: &World) -> Result<Row, String> {
    let began = clock::monotonic();
    world.show.say("1", FLEET, &format!("a person: assign --all --version {DIRECTOR_GOOD}"));
    let _: Value = world.fleet.ask(&format!("assign --all --version {DIRECTOR_GOOD}"))?;
    let mut watch = Watch::new(world, "1", DIRECTOR_GOOD);
    let all = |view: &ClusterView| view.holder.is_none() && view.members.iter().all(|m| m.version == DIRECTOR_GOOD && m.state == "healthy");
    let done = |view: &ClusterView| match &view.stopped {
        Some(_) => Err(format!("the cluster stopped: {}", view.detail)),
        None => Ok(all(view)),
    };
    watch.until("three members that are updated", ROLL_OUT_S, done)?;
    watch.went_as_planned()?;
    let moved = watch.ended(3)?;
    Ok(row("updated, 3 of 3", &moved, began))
}

/// What lies on two of the hosts makes the new version crash: whoever of them comes second goes back.
fn halts(world: &World) -> Result<Row, String> {
    let began = clock::monotonic();
    let mut watch = Watch::new(world, "2", DIRECTOR_PICKY);
    watch.until("a cluster that is well", WELL_S, |view| Ok(view.code == "ready"))?;
    let first = watch.first_turn()?;
    for member in world.members.iter().filter(|m| m.id != first) {
        write_volatile(&member.site.state.join("storage/crash-later"), b"", PUBLIC).map_err(|e| e.to_string())?;
        world.show.say("2", member.name, &format!("has a file on which {DIRECTOR_PICKY} crashes; nobody knows"));
    }
    world.show.say("2", FLEET, &format!("a person: assign --all --version {DIRECTOR_PICKY}"));
    let _: Value = world.fleet.ask(&format!("assign --all --version {DIRECTOR_PICKY} --end-probation"))?;
    let done = |view: &ClusterView| Ok(view.stopped.as_deref() == Some("halted") && view.holder.is_none());
    let halted = watch.until("a cluster that is halted", ROLL_OUT_S, done)?;
    let on = |version: &str| halted.members.iter().filter(|m| m.version == version).count();
    if (on(DIRECTOR_PICKY), on(DIRECTOR_GOOD)) != (1, 2) {
        return Err(format!("one member should have the new version, two the one before: {:?}", halted.members));
    }
    let reason = halted.members.iter().find(|m| m.state == "failed").and_then(|m| m.detail.clone());
    let reason = reason.ok_or_else(|| format!("no member is said to have failed: {:?}", halted.members))?;
    if halted.code != "cluster_halted" || !halted.detail.contains("failed its update") || !reason.contains("failed its update") {
        return Err(format!("the reason is not at the top: {} {}", halted.code, halted.detail));
    }
    world.show.plain(&format!("             {} ({})", halted.detail, halted.code));
    // The third is asked for nothing, however long one waits.
    watch.for_s(5)?;
    let tried = |m: &&Member| m.site.activity().iter().any(|e| e.code == "trial_started" && e.version == DIRECTOR_PICKY);
    if world.members.iter().filter(tried).count() > 2 {
        return Err("the third member has tried the version that failed on the second".into());
    }
    let moved = watch.ended(2)?;
    Ok(Row { code: halted.code, ..row("1 updated, then halted", &moved, began) })
}

/// What failed counts as seen to; the member that failed stays where it is.
fn goes_on(world: &World) -> Result<Row, String> {
    let began = clock::monotonic();
    for member in &world.members {
        let _ = fs::remove_file(member.site.state.join("storage/crash-later"));
    }
    world.show.say("3", FLEET, "a person has looked at it: cluster resume north");
    let mut watch = Watch::new(world, "3", DIRECTOR_PICKY);
    watch.rests = north(&world.fleet)?.members.into_iter().find(|m| m.state == "failed").map(|m| m.id);
    let _: Value = world.fleet.ask("cluster resume north")?;
    let on = |view: &ClusterView, version: &str| view.members.iter().filter(|m| m.version == version && m.state == "healthy").count();
    let done = |view: &ClusterView| match &view.stopped {
        Some(_) => Err(format!("the cluster stopped: {}", view.detail)),
        None => Ok(view.holder.is_none() && (on(view, DIRECTOR_PICKY), on(view, DIRECTOR_GOOD)) == (2, 1)),
    };
    watch.until("the third member's update", ROLL_OUT_S, done)?;
    let moved = watch.ended(1)?;
    Ok(row("2 updated, 1 stays", &moved, began))
}

fn row(result: &str, moved: &[Duration], began: Duration) -> Row {
    let worst = moved.iter().max().map_or(0, |d| d.as_millis() as u64);
    let seconds = clock::monotonic().saturating_sub(began).as_secs_f64();
    Row { result: result.into(), code: "quorum at all times".into(), bytes: 0, seconds, gap_ms: worst }
}

impl World {
    fn set_up(work: &Path, show: &Arc<Show>, builds: &Builds, release: &Release) -> Result<World, String> {
        let shown = |path: &Path| path.display().to_string();
        let (tree, root) = (shown(&release.tree), shown(&release.root));
        let run = ["serve", "--mirror", &tree, "--root", &root, "--listen", "127.0.0.1:0", "--name", "127.0.0.1"];
        let fleet = Site::open(&work.join("fleet"), &builds.fleet, run.map(String::from).to_vec(), true, show, FLEET)?;
        let ports = free_ports()?;
        let mut members: Vec<Member> = Vec::new();
        for ((name, _), port) in MEMBERS.iter().zip(&ports) {
            let pki = members.first().map(|first: &Member| first.site.state.join("pki"));
            let member = member(work, show, builds, release, &fleet, name, (*port, &ports, pki))?;
            members.push(member);
        }
        let named: Vec<String> = members.iter().map(|m| format!("--member {}", m.id)).collect();
        let _: Value = fleet.ask(&format!("cluster create north {}", named.join(" ")))?;
        let _: Value = fleet.ask(&format!("cluster change north {TERMS}"))?;
        let mut agents = Vec::new();
        for (member, (name, count)) in members.iter().zip(MEMBERS) {
            for _ in 0..count {
                let agent = format!("agent-{}", agents.len() + 1);
                agents.push(Agent::new(&work.join(&agent), &builds.agent(FACTORY), &release.root, &member.site, agent)?);
            }
            show.say("", name, &format!("a Director of cluster north, with {count} agents"));
        }
        let known = || agents.iter().all(|agent| agent.knows(ports.len())).then_some(());
        wait(WELL_S, known).ok_or("the agents do not learn of the members")?;
        // Members tell twice a minute how many agents they have: the one with the fewest goes first.
        let told = |view: &ClusterView| view.members.iter().map(|m| m.load).sum::<u64>() == agents.len() as u64;
        let well = || north(&fleet).ok().filter(|view| view.code == "ready" && told(view));
        let view = wait(WELL_S, well).ok_or_else(|| format!("the cluster does not become well: {:?}", north(&fleet)))?;
        show.say("", FLEET, &format!("cluster north: {}, each reached by its peers; {TERMS}", view.status));
        Ok(World { show: show.clone(), fleet, members, agents })
    }
}

/// The cluster as Fleet shows it.
pub fn north(fleet: &Site) -> Result<ClusterView, String> {
    fleet.ask::<ClustersView>("cluster show north")?.clusters.pop().ok_or_else(|| "there is no cluster north".into())
}

/// Held until all are known, or the same one would be given twice.
fn free_ports() -> Result<Vec<u16>, String> {
    let held: Result<Vec<TcpListener>, _> = MEMBERS.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let held = held.map_err(|e| format!("127.0.0.1: {e}"))?;
    held.iter().map(|l| l.local_addr().map(|a| a.port()).map_err(|e| e.to_string())).collect()
}

/// A Director with its factory image, under its own supervisor; the members share the first one's CA.
fn member(
    work: &Path,
    show: &Arc<Show>,
    builds: &Builds,
    release: &Release,
    fleet: &Site,
    name: &'static str,
    (port, ports, pki): (u16, &[u16], Option<PathBuf>),
) -> Result<Member, String> {
    let folder = work.join(name);
    let told = |e: std::io::Error| format!("{}: {e}", folder.display());
    let (image, state) = (folder.join("image"), folder.join("state"));
    fs::create_dir_all(&image).map_err(told)?;
    fs::create_dir_all(&state).map_err(told)?;
    let program = image.join("vmetric-director");
    place_program(&builds.director_of(DIRECTOR_FACTORY), &program)?;
    fs::copy(&release.root, image.join("root.json")).map_err(told)?;
    let urls: Vec<String> = ports.iter().map(|port| format!("    - https://127.0.0.1:{port}\n")).collect();
    let config = format!("cluster:\n  members:\n{}", urls.concat());
    write_volatile(&state.join("vmetric.yml"), config.as_bytes(), PUBLIC).map_err(told)?;
    let key: TokenView = fleet.ask("key create")?;
    let mut enroll = Command::new(&program);
    enroll.args(["enroll", "--fleet", &key.url, "--pin", &key.pin, "--state"]).arg(&state);
    enroll.env("VMETRIC_FLEET_KEY", &key.token).env("VMETRIC_TEST_HOSTNAME", name);
    let out = enroll.stdin(Stdio::null()).output().map_err(told)?;
    if !out.status.success() {
        return Err(format!("vmetric-director enroll: {}", String::from_utf8_lossy(&out.stderr)));
    }
    let id = String::from_utf8_lossy(&out.stdout).trim().rsplit(' ').next().unwrap_or_default().to_string();
    if let Some(pki) = pki {
        copy_folder(&pki, &state.join("pki")).map_err(told)?;
    }
    let (tree, root) = (release.tree.display().to_string(), image.join("root.json").display().to_string());
    let listen = format!("127.0.0.1:{port}");
    let run = ["run", "--supervise", "--mirror", &tree, "--root", &root, "--listen", &listen, "--name", "127.0.0.1"];
    let site = Site::open(&state, &program, run.map(String::from).to_vec(), true, show, name)?;
    Member::new(site, id, name, format!("https://{listen}"))
}

/// The site's CA goes to each member before its first start.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}

/// Names by id, for the timeline.
pub fn names(members: &[Member]) -> BTreeMap<String, &'static str> {
    members.iter().map(|m| (m.id.clone(), m.name)).collect()
}
