//! `cargo demo -- --stay`: one Fleet, three Directors, their agents, and the GUI over them, until Ctrl-C.
//!
//! Everything is real, so the pages show what they show in the field: versions, roll-outs, failures, a device that fell silent.
//! The browser tests (`tests/gui`) use the same world, without the roll-outs that come by themselves.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use miniserde::{Serialize, json, json::Value};
use vmetric::director::commands::TokenView;
use vmetric::io::fs::{PRIVATE, write_volatile};

use crate::build::{self, BIG, Builds, CRASHES, DIRECTOR_FACTORY, DIRECTOR_GOOD, FACTORY, GOOD, Variant};
use crate::device::{Device, Mode, Place};
use crate::release::{self, Release};
use crate::scenarios::TIMES;
use crate::show::Show;
use crate::site::{FLEET, Site};
use crate::{pause, place_program, wait};

/// How it is asked for.
#[derive(Clone, Debug, Default)]
pub struct Stay {
    /// Nothing happens by itself, and two names try to be HTML: for tests.
    pub still: bool,
    /// Where Fleet listens.
    pub listen: Option<String>,
    /// Where builds of agents and Directors are kept.
    pub builds: Option<PathBuf>,
    /// Written when everything runs ([`Ready`]).
    pub ready: Option<PathBuf>,
}

/// What a test needs of the world.
#[derive(Serialize, Debug, Clone, Default)]
pub struct Ready {
    /// Where the GUI is.
    pub url: String,
    /// The link that makes the owner, once.
    pub first: String,
    /// Fleet's program.
    pub fleet: String,
    /// Its state folder.
    pub state: String,
    /// Ids of the Directors.
    pub directors: Vec<String>,
    /// `director/agent` of each agent.
    pub agents: Vec<String>,
    /// A host name that is there and must be shown as text.
    pub awkward: String,
}

/// A name that is one in no document but HTML.
const AWKWARD: &str = "<script>document.title='x'</script>\"'&";
const NAMES: [(&str, &[&str]); 3] =
    [("headquarters", &["web-1", "web-2", "database-1"]), ("harbour", &["gate-1", "crane-2"]), ("hillside", &["mast-1"])];
/// Between two things that happen by themselves.
const PAUSE_S: u64 = 45;

/// One Director with its agents.
struct Branch {
    site: Arc<Site>,
    id: String,
    agents: Vec<Device>,
}

/// Runs until the process is ended.
///
/// # Errors
/// Something did not start.
pub fn run(work: &Path, show: &Arc<Show>, stay: &Stay) -> Result<(), String> {
    let wanted = |v: &&Variant| [FACTORY, GOOD, CRASHES, BIG].contains(&v.version);
    let agents: Vec<Variant> = build::VARIANTS.iter().filter(wanted).copied().collect();
    let builds = build::build(work, show, &agents, &build::STAYING, stay.builds.as_deref())?;
    let release = release::publish(work, &builds, show)?;
    let world = World { work, show, builds: &builds, release: &release };
    let fleet = world.fleet(stay.listen.as_deref().unwrap_or("127.0.0.1:0"))?;
    show.say("", FLEET, "runs, has mirrored and verified the releases");
    let mut places = Vec::new();
    for (number, (name, devices)) in NAMES.iter().enumerate() {
        let name = if stay.still && number == 2 { AWKWARD } else { name };
        let mut place = world.place(&fleet, name, number)?;
        for (nth, device) in devices.iter().enumerate() {
            let device = if stay.still && number == 2 && nth == 0 { AWKWARD } else { device };
            place.agents.push(world.device(&place.site, device, number * 10 + nth)?);
        }
        show.say("", "", &format!("{}: a Director with {} agents", if name == AWKWARD { "hillside" } else { name }, devices.len()));
        places.push(place);
    }
    wait(60, || known(&fleet, &places).then_some(())).ok_or("Fleet does not hear of every agent within 60 s")?;
    begin(&fleet, &places)?;
    let ready = ready(&fleet, &places, stay, &builds)?;
    tell(&fleet, &ready)?;
    if let Some(file) = &stay.ready {
        write_volatile(file, json::to_string(&ready).as_bytes(), PRIVATE).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    for round in 0.. {
        pause(PAUSE_S * 1000);
        if !stay.still
            && let Err(why) = happen(&fleet, &places, round)
        {
            show.say("", "demo", &why);
        }
    }
    Ok(())
}

struct World<'a> {
    work: &'a Path,
    show: &'a Arc<Show>,
    builds: &'a Builds,
    release: &'a Release,
}

impl World<'_> {
    fn fleet(&self, listen: &str) -> Result<Site, String> {
        let shown = |path: &Path| path.display().to_string();
        let (tree, root) = (shown(&self.release.tree), shown(&self.release.root));
        let run = ["serve", "--mirror", &tree, "--root", &root, "--listen", listen, "--name", "localhost"];
        Site::open(&self.work.join("fleet"), &self.builds.fleet, run.map(String::from).to_vec(), true, self.show, FLEET)
    }

    /// A Director enrolled at Fleet, with its own factory image, under its own supervisor.
    fn place(&self, fleet: &Site, name: &'static str, number: usize) -> Result<Branch, String> {
        let folder = self.work.join(format!("director-{number}"));
        let told = |e: std::io::Error| format!("{}: {e}", folder.display());
        let (image, state) = (folder.join("image"), folder.join("state"));
        fs::create_dir_all(&image).map_err(told)?;
        fs::create_dir_all(&state).map_err(told)?;
        let program = image.join("vmetric-director");
        place_program(&self.builds.director_of(DIRECTOR_FACTORY), &program)?;
        fs::copy(&self.release.root, image.join("root.json")).map_err(told)?;
        let key: TokenView = fleet.ask("key create")?;
        let mut enroll = Command::new(&program);
        enroll.args(["enroll", "--fleet", &key.url, "--pin", &key.pin, "--state"]).arg(&state);
        enroll.env("VMETRIC_FLEET_KEY", &key.token).env("VMETRIC_TEST_HOSTNAME", name);
        let out = enroll.stdin(Stdio::null()).output().map_err(told)?;
        if !out.status.success() {
            return Err(format!("vmetric-director enroll: {}", String::from_utf8_lossy(&out.stderr)));
        }
        let id = String::from_utf8_lossy(&out.stdout).trim().rsplit(' ').next().unwrap_or_default().to_string();
        fleet.name(&id, "", name);
        // Its agents find it at the same address after an update.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(told)?.port();
        let (tree, root) = (self.release.tree.display().to_string(), image.join("root.json").display().to_string());
        let listen = format!("127.0.0.1:{port}");
        let run = ["run", "--supervise", "--mirror", &tree, "--root", &root, "--listen", &listen, "--name", "localhost"];
        let site = Site::open(&state, &program, run.map(String::from).to_vec(), true, self.show, name)?;
        Ok(Branch { site: Arc::new(site), id, agents: Vec::new() })
    }

    fn device(&self, site: &Arc<Site>, name: &str, number: usize) -> Result<Device, String> {
        let folder = self.work.join(format!("device-{number:02}"));
        let times: Vec<String> = TIMES.iter().map(|(name, s, _)| format!("{name}={s}")).collect();
        let at = Place {
            site: site.clone(),
            show: self.show.clone(),
            letter: String::new(),
            name: name.to_string(),
            mode: Mode::Exec,
            clock: None,
        };
        let device = Device::new(&folder, &self.builds.agent(FACTORY), &self.release.root, &times.join(","), at)?;
        device.start()?;
        // Slow enough to be watched.
        device.relay.limit(2 << 20);
        Ok(device)
    }
}

fn items(value: &Value, name: &str) -> usize {
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(Value::Array(items)) => items.len(),
            _ => 0,
        },
        _ => 0,
    }
}

fn known(fleet: &Site, places: &[Branch]) -> bool {
    let agents: usize = places.iter().map(|p| p.agents.len()).sum();
    fleet.ask::<Value>("agents").is_ok_and(|view| items(&view, "agents") == agents)
}

/// What has happened before anybody looks: agents were updated, one of them took a version that crashed.
fn begin(fleet: &Site, places: &[Branch]) -> Result<(), String> {
    let [first, second, _] = places else { return Err("there are three places".into()) };
    let ids: Vec<&str> = first.agents.iter().map(|a| a.id.as_str()).collect();
    first.site.assign(&ids, GOOD, "")?;
    second.site.assign(&[&second.agents[0].id], CRASHES, "")?;
    let _: Value = fleet.ask("policy set --default --mode auto --method user_action --version latest")?;
    let over = |device: &Device, state: &str| device.view().is_ok_and(|v| v.state == state);
    let ended = || (first.agents.iter().all(|a| over(a, "updated")) && over(&second.agents[0], "rolled_back")).then_some(());
    wait(120, ended).ok_or_else(|| "the first roll-outs do not end within 120 s".to_string())
}

fn ready(fleet: &Site, places: &[Branch], stay: &Stay, builds: &Builds) -> Result<Ready, String> {
    let port = fleet.port.load(std::sync::atomic::Ordering::SeqCst);
    let log = fs::read_to_string(fleet.state.with_extension("log")).map_err(|e| format!("Fleet's log: {e}"))?;
    let first = log.split_whitespace().find(|word| word.contains("/first?")).unwrap_or_default();
    Ok(Ready {
        url: format!("https://localhost:{port}"),
        first: first.to_string(),
        fleet: builds.fleet.display().to_string(),
        state: fleet.state.display().to_string(),
        directors: places.iter().map(|p| p.id.clone()).collect(),
        agents: places.iter().flat_map(|p| p.agents.iter().map(|a| format!("{}/{}", p.id, a.id))).collect(),
        awkward: if stay.still { AWKWARD.into() } else { String::new() },
    })
}

fn tell(fleet: &Site, ready: &Ready) -> Result<(), String> {
    let status = fleet.status()?;
    println!("\nFleet's GUI: {}", ready.url);
    println!("First login, once: {}", ready.first);
    if let Some(ca) = &status.browser_ca {
        println!("The browser asks about the certificate: its authority is this Fleet's own, SHA-256 {ca}.");
        println!("To have it trusted, import {}/pki/ca-p256.pem.", fleet.state.display());
    }
    println!("On the command line: {} directors --state {}", ready.fleet, ready.state);
    println!("Ctrl-C ends and removes everything.\n");
    Ok(())
}

/// One thing after the other: agents come and go between two good versions, one version fails, a Director is updated.
fn happen(fleet: &Site, places: &[Branch], round: usize) -> Result<(), String> {
    let place = &places[round % places.len()];
    let ids: Vec<&str> = place.agents.iter().map(|a| a.id.as_str()).collect();
    match round % 7 {
        3 => {
            let version = if round % 2 == 1 { DIRECTOR_GOOD } else { DIRECTOR_FACTORY };
            let _: Value = fleet.ask(&format!("assign --director {} --version {version}", places[0].id))?;
        }
        5 => {
            place.site.assign(&ids[..1], CRASHES, "--retry")?;
        }
        _ => {
            let version = if (round / 3).is_multiple_of(2) { BIG } else { GOOD };
            place.site.assign(&ids, version, "")?;
        }
    }
    Ok(())
}

/// The table of Fleet's pages, a line each, for the tour of the browser tests: a new page is in it by itself.
#[cfg(feature = "fleet")]
pub fn routes() {
    for route in vmetric::fleet::gui::routes::all() {
        println!("{} {} {}", route.method, route.path, route.id);
    }
}
