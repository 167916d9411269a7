//! A real Director that updates itself, with a real Fleet.
//!
//! The staged versions are the Director's own file with some bytes behind its end: other files, the same program.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use miniserde::json::{self, Value};
use vmetric::core::stage::Stage;
use vmetric::director::records::Event;
use vmetric::io::clock;
use vmetric::io::tls::pin_text;

use crate::agent::{said, text};
use crate::director_bench::{Site, agent_file, now};

const DIRECTOR: &str = env!("CARGO_BIN_EXE_vmetric-director");
/// An update takes some seconds; a busy test machine gets much more.
const LIMIT: Duration = Duration::from_secs(120);

/// The Director's own file with another end.
pub fn variant(tail: &str) -> Vec<u8> {
    let mut file = fs::read(DIRECTOR).unwrap();
    file.extend_from_slice(tail.as_bytes());
    file
}

/// A Fleet with these releases, and one that nobody asks for.
pub fn fleet(releases: &[(&str, &[u8])]) -> Site {
    let site = Site::fleet_with(&[("1.0.0", agent_file("1.0.0"))]);
    releases.iter().for_each(|(version, file)| release(&site, version, file));
    site
}

/// One more release.
pub fn release(site: &Site, version: &str, file: &[u8]) {
    site.bench.write("vmetric-director", file);
    let add = "add --repo release --keys keys --product vmetric-director --os linux --arch amd64";
    site.bench.good(&format!("{add} --version {version} vmetric-director --now {}", now()));
    site.publish();
    site.good("mirror");
}

/// A Director that updates itself.
pub struct Own<'a> {
    pub fleet: &'a Site,
    /// Of several beside each other.
    pub name: String,
    pub listen: String,
    pub process: Option<Child>,
    pub log: Arc<Mutex<Vec<String>>>,
}

impl<'a> Own<'a> {
    pub fn new(fleet: &'a Site) -> Own<'a> {
        Own::named(fleet, "own")
    }

    pub fn named(fleet: &'a Site, name: &str) -> Own<'a> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = Own { fleet, name: name.into(), listen: format!("127.0.0.1:{port}"), process: None, log: Arc::default() };
        fs::create_dir_all(own.path("image")).unwrap();
        crate::place_program(DIRECTOR, own.path("image/vmetric-director"));
        fs::copy(fleet.bench.path("release/root.json"), own.path("image/root.json")).unwrap();
        own
    }

    pub fn enrolled(fleet: &'a Site) -> Own<'a> {
        Own::enrolled_as(fleet, "own")
    }

    pub fn enrolled_as(fleet: &'a Site, name: &str) -> Own<'a> {
        let own = Own::named(fleet, name);
        let out = own.run(&["enroll", "--fleet", &fleet.url, "--key", &fleet.token(""), "--pin", &pin_text(&fleet.pin)]);
        assert!(out.status.success(), "{}", said(&out));
        own
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.fleet.bench.path(&self.name).join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        // The service manager starts the image, and an update from a medium trusts what lies beside it.
        let program = if ["run", "update"].contains(&words[0]) { self.path("image/vmetric-director") } else { DIRECTOR.into() };
        let mut command = Command::new(program);
        command.args(words).arg("--state").arg(self.path("state")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// As a service manager does that starts it again, or under its own supervisor.
    pub fn start(&mut self, supervise: bool) {
        let root = self.path("image/root.json");
        let mut command = self.command(&["run", "--name", "127.0.0.1", "--listen", &self.listen, "--root"]);
        command.arg(root);
        match supervise {
            true => command.arg("--supervise"),
            false => command.env("VMETRIC_RESPAWN", "1"),
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, log) = (BufReader::new(child.stderr.take().unwrap()).lines(), self.log.clone());
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line)));
        self.process = Some(child);
    }

    pub fn said(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub fn status(&self) -> Option<Value> {
        let out = self.run(&["status", "--json"]);
        out.status.success().then(|| json::from_str(&said(&out)).unwrap_or_else(|_| panic!("{}", said(&out))))
    }

    pub fn wait(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let end = clock::monotonic() + LIMIT;
        let mut last = None;
        loop {
            last = self.status().or(last);
            if let Some(status) = last.as_ref().filter(|s| done(s)) {
                return json::from_str(&json::to_string(status)).unwrap();
            }
            assert!(clock::monotonic() < end, "no {what} within {LIMIT:?}: {}\n{}", json::to_string(&last), self.said());
            vmetric::io::process::sleep(Duration::from_millis(50));
        }
    }

    pub fn activity(&self) -> Vec<Event> {
        let end = clock::monotonic() + LIMIT;
        let out = loop {
            // Between two of its versions there is nobody to ask.
            let out = self.run(&["activity", "--json", "--limit", "200"]);
            if out.status.success() {
                break out;
            }
            assert!(clock::monotonic() < end, "{}", said(&out));
            vmetric::io::process::sleep(Duration::from_millis(50));
        };
        said(&out).lines().map(|line| json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// The steps of the last update: name and result, oldest first.
    pub fn steps(&self) -> Vec<(String, String)> {
        let events = self.activity();
        let begin = events.iter().rposition(|e| e.code == "update_triggered" && e.agent.is_empty()).unwrap_or(0);
        events[begin..].iter().filter_map(|e| Some((e.step.clone()?, e.result.clone()?))).collect()
    }

    pub fn order(&self, version: &str) {
        self.fleet.good(&format!("assign --all --version {version}"));
    }

    pub fn ended(&self, outcome: &str, version: &str) -> Value {
        self.wait(&format!("{outcome} {version}"), |s| {
            text(s, "own.last_result.outcome") == outcome
                && text(s, "own.last_result.version") == version
                && text(s, "own.last_result.reported") == "true"
        })
    }

    /// SIGTERM, and its end.
    pub fn end(&mut self) {
        let mut process = self.process.take().unwrap();
        assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
        process.wait().unwrap();
    }

    /// Enrolled, started and updated to this version.
    pub fn updated(fleet: &'a Site, version: &str) -> Own<'a> {
        let mut own = Own::enrolled(fleet);
        own.start(false);
        own.wait("contact", |s| text(s, "own.last_contact") != "null");
        own.order(version);
        own.ended("updated", version);
        own
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }
}

pub fn all_steps_ok() -> Vec<(String, String)> {
    Stage::ALL.iter().map(|s| (s.name().to_string(), "ok".to_string())).collect()
}

#[test]
fn a_director_updates_itself_in_eight_steps_and_keeps_its_agents() {
    let new = variant("two");
    let fleet = fleet(&[("2.0.0", &new)]);
    let mut own = Own::enrolled(&fleet);
    own.start(false);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    assert!(said(&own.run(&["-version"])).lines().nth(1).unwrap().starts_with("running: 0.1.0 (factory image, factory)"));

    own.order("2.0.0");
    let status = own.ended("updated", "2.0.0");
    assert_eq!((text(&status, "own.running"), text(&status, "own.running_as")), ("a".into(), "confirmed".into()), "{}", own.said());
    assert_eq!(text(&status, "own.pid"), own.pid().to_string(), "the switch keeps the process");
    assert_eq!(fs::read(own.path("state/slots/a/vmetric-director")).unwrap(), new);
    assert_eq!(own.steps(), all_steps_ok(), "{:#?}", own.activity());
    let events = own.activity();
    let last = events.iter().find(|e| e.code == "confirmed" && e.version == "2.0.0" && e.agent.is_empty()).unwrap();
    // The id under which Fleet has its part of the story.
    let update = last.update.as_deref().unwrap();
    assert!(own.fleet.good("activity --json").contains(&format!("\"update\":\"{update}\"")), "{update}");
    assert!(events.iter().filter(|e| e.step.is_some()).all(|e| e.update.as_deref() == Some(update)), "{events:#?}");
    assert!(said(&own.run(&["-version"])).contains("running: 2.0.0 (slot a, confirmed)"), "{}", said(&own.run(&["-version"])));
    let orderly = Command::new("kill").args(["-TERM", &own.pid().to_string()]).status().unwrap();
    assert!(orderly.success());
    assert_eq!(own.process.take().unwrap().wait().unwrap().code(), Some(0), "{}", own.said());
}

#[test]
fn a_version_that_does_not_start_is_rolled_back_with_its_reason() {
    // The agent passes the self-test, and does not know the Director's options: it ends at once.
    let broken = fs::read(env!("CARGO_BIN_EXE_vmetric-agent")).unwrap();
    let fleet = fleet(&[("2.0.0", &broken)]);
    let mut own = Own::enrolled(&fleet);
    own.start(true);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    own.order("2.0.0");
    let status = own.ended("rolled_back", "2.0.0");
    assert_eq!((text(&status, "own.running"), text(&status, "own.last_result.code")), ("factory".into(), "crashed_or_hung".into()));
    let steps = own.steps();
    assert_eq!(steps.last().unwrap(), &("Service Start".to_string(), "failed".to_string()), "{steps:?}");
    own.wait("Fleet's knowledge of it", |_| own.fleet.good("activity --json").contains("ended 2 times without a word"));
}

/// What goes wrong at one step of an update, and what it leaves.
struct Case {
    /// The step, by its name.
    step: &'static str,
    /// Damages; then the order is given.
    injure: fn(&Own, &str),
    /// Puts it right again.
    heal: fn(&Own, &str),
    /// What is released under the version: the Director itself with another end, or not.
    file: fn(&str) -> Vec<u8>,
    /// Code of the reason, in the activity and at Fleet.
    code: &'static str,
    /// It waits and would go on; else it has ended.
    waits: bool,
}

fn target(own: &Own, version: &str) -> PathBuf {
    let folder = own.fleet.state().join("release/targets/vmetric-director").join(version).join("linux-amd64");
    fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).next().unwrap().unwrap().path()
}

fn role(own: &Own) -> PathBuf {
    let folder = own.fleet.state().join("release/metadata");
    let mut all: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.to_str().unwrap().ends_with(".director-linux-amd64.json"));
    let number = |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().parse::<u64>().unwrap();
    all.sort_by_key(number);
    all.pop().unwrap()
}

fn flip_bit(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn mode(own: &Own, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(own.path("image/vmetric-director"), fs::Permissions::from_mode(mode)).unwrap();
}

const NOTHING: fn(&Own, &str) = |_, _| {};

const CASES: [Case; 7] = [
    Case {
        step: "Version Check",
        injure: |own, _| flip_bit(&role(own)),
        heal: |own, _| flip_bit(&role(own)),
        file: variant,
        code: "delegated_hash",
        waits: true,
    },
    Case {
        step: "Download",
        injure: |own, version| fs::rename(target(own, version), own.path("away")).unwrap(),
        heal: |own, version| {
            let folder = own.fleet.state().join("release/targets/vmetric-director").join(version).join("linux-amd64");
            let sha = vmetric::core::hex::encode(&vmetric::core::hex::sha256(&fs::read(own.path("away")).unwrap()));
            fs::rename(own.path("away"), folder.join(format!("{sha}.vmetric-director"))).unwrap();
        },
        file: variant,
        code: "throttled",
        waits: true,
    },
    Case {
        step: "Signature Verification",
        injure: |own, version| flip_bit(&target(own, version)),
        heal: NOTHING,
        file: variant,
        code: "file_hash",
        waits: false,
    },
    Case {
        step: "Backup",
        injure: |own, _| fs::File::create(own.path("state/config/large")).unwrap().set_len(17 << 20).unwrap(),
        heal: |own, _| fs::remove_file(own.path("state/config/large")).unwrap(),
        file: variant,
        code: "backup_too_large",
        waits: true,
    },
    Case {
        step: "Service Stop",
        injure: |own, _| mode(own, 0o644),
        heal: |own, _| mode(own, 0o755),
        file: variant,
        code: "image_not_started",
        waits: true,
    },
    Case {
        step: "Deployment",
        injure: NOTHING,
        heal: NOTHING,
        file: |_| b"#!/bin/sh\nexit 0\n".repeat(20),
        code: "not_a_program",
        waits: false,
    },
    Case {
        step: "Service Start",
        injure: NOTHING,
        heal: NOTHING,
        file: |_| fs::read(env!("CARGO_BIN_EXE_vmetric-agent")).unwrap(),
        code: "crashed_or_hung",
        waits: false,
    },
];

#[test]
fn a_failure_at_any_step_leaves_the_old_version_serving_and_is_told() {
    let fleet = fleet(&[]);
    let mut own = Own::enrolled(&fleet);
    own.start(true);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    for (n, case) in CASES.iter().enumerate() {
        let version = format!("2.0.{n}");
        release(&fleet, &version, &(case.file)(&version));
        // The file is here before the order, and no look at the source puts right meanwhile what is injured here.
        fleet.good(&format!("mirror --file {}", fleet.bench.path("public").display()));
        let (source, away) = (fleet.bench.path("public"), fleet.bench.path("public.away"));
        fs::rename(&source, &away).unwrap();
        (case.injure)(&own, &version);
        own.order(&version);
        let what = format!("{}: {}", case.step, case.code);
        own.wait(&what, |_| {
            own.activity()
                .iter()
                .any(|e| e.version == version && e.step.as_deref() == Some(case.step) && e.result.as_deref() == Some("failed"))
        });
        let event = own.activity().into_iter().rfind(|e| e.version == version && e.step.as_deref() == Some(case.step)).unwrap();
        assert_eq!(event.reason.as_deref(), Some(case.code), "{what}: {event:?}");
        let agents = || fleet.good("directors --json");
        if case.waits {
            own.wait(&what, |_| agents().contains(case.code));
            fleet.good("cancel --all");
        }
        (case.heal)(&own, &version);
        fs::rename(&away, &source).unwrap();
        let status = own.wait(&format!("end after {what}"), |s| {
            text(s, "own.last_result.version") == version && text(s, "own.last_result.reported") == "true"
        });
        assert_eq!(text(&status, "own.running"), "factory", "{what}");
        assert!(case.waits || text(&status, "own.last_result.code") == case.code, "{what}: {}", json::to_string(&status));
        assert_eq!(text(&status, "version"), "0.1.0");
        let slot = own.path("state/slots/a/vmetric-director");
        assert!(!slot.exists() || case.step == "Service Start" || case.waits, "{what}: {}", slot.display());
    }
    // Nothing of it has to be repaired by hand: a good version goes on.
    release(&fleet, "2.1.0", &variant("good"));
    own.order("2.1.0");
    own.ended("updated", "2.1.0");
    assert_eq!(own.steps(), all_steps_ok(), "{:#?}", own.activity());
}

#[test]
fn what_the_file_at_the_site_forbids_is_not_done_for_fleet() {
    let fleet = fleet(&[("2.0.0", &variant("two"))]);
    let mut own = Own::enrolled(&fleet);
    fs::write(own.path("state/vmetric.yml"), "update:\n  mode: manual\n").unwrap();
    own.start(false);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    own.order("2.0.0");
    let status = own.ended("refused", "2.0.0");
    assert_eq!((text(&status, "own.last_result.code"), text(&status, "own.running")), ("file_manual".into(), "factory".into()));
    fs::write(own.path("state/vmetric.yml"), "update:\n  mode: auto\n  method: immediate\n  version: \"2.0.0\"\n").unwrap();
    own.wait("the new settings", |_| own.activity().iter().any(|e| e.code == "config_changed"));
    fleet.good("retry --all");
    own.ended("updated", "2.0.0");
}

/// `fleet:` of the file: nothing is asked while the key could have been read by anybody, then it enrolls, and the key is gone.
#[test]
fn a_director_enrolls_by_the_fleet_section_of_its_file_and_forgets_the_key() {
    use std::os::unix::fs::PermissionsExt;
    let fleet = fleet(&[("3.0.0", &variant("three"))]);
    let mut own = Own::new(&fleet);
    let (file, key_file, key) = (own.path("state/vmetric.yml"), own.path("fleet.key"), fleet.token(""));
    let mode = |mode| fs::set_permissions(&key_file, PermissionsExt::from_mode(mode)).unwrap();
    fs::create_dir_all(own.path("state")).unwrap();
    fs::write(&key_file, format!("{key}\n")).unwrap();
    mode(0o644);
    let section = format!("fleet:\n  address: {}\n  pin: {}\n  key_file: {}\n", fleet.url, pin_text(&fleet.pin), key_file.display());
    fs::write(&file, &section).unwrap();
    let validate =
        |own: &Own| said(&Command::new(DIRECTOR).arg("-validate").env("VMETRIC_DIRECTOR_STATE", own.path("state")).output().unwrap());
    assert!(validate(&own).contains(": valid\n") && validate(&own).contains("key_file_open"), "{}", validate(&own));
    own.start(false);
    let status = own.wait("the refusal", |s| text(s, "own.contact_code") == "key_file_open");
    assert_eq!(text(&status, "own.enrolled"), "false");
    assert!(fleet.good("key list").contains("valid"), "nothing was asked");

    mode(0o600);
    own.wait("the identity", |s| text(s, "own.enrolled") == "true" && text(s, "fleet.state") == "connected");
    let left = fs::read_to_string(&key_file).unwrap();
    assert!(!left.contains(&key) && left.contains("# enrolled") && left.len() == key.len() + 1, "{left:?}");
    assert!(validate(&own).contains("fleet: this Director is "), "{}", validate(&own));
    // What was placed anew is overwritten at the next start; the file's other address moves nobody.
    fs::write(&key_file, &key).unwrap();
    fs::write(&file, section.replace("https://127.0.0.1", "https://other.example")).unwrap();
    own.wait("the note", |s| text(s, "config_notes").contains("enroll --replace"));
    let stopped = Command::new("kill").args(["-TERM", &own.pid().to_string()]).status().unwrap();
    assert!(stopped.success());
    own.process.take().unwrap().wait().unwrap();
    own.start(false);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    assert!(!fs::read_to_string(&key_file).unwrap().contains(&key));
    own.order("3.0.0");
    own.ended("updated", "3.0.0");
    let everywhere = Command::new("grep").args(["-rlF", &key]).arg(own.path("")).output().unwrap();
    assert_eq!(said(&everywhere), "", "files with the key");
}

#[test]
fn an_agent_at_fleet_and_a_director_at_a_director_are_refused_before_anything_is_spent() {
    let (fleet, site) = (fleet(&[]), Site::new());
    let (key, token) = (fleet.token("--uses 1"), site.token("--uses 1"));
    let enroll = |program: &str, at: &str, address: &Site, with: &str, secret: &str| {
        let state = address.bench.path("strange");
        let mut command = Command::new(program);
        command.args(["enroll", at, &address.url, with, secret, "--pin", &pin_text(&address.pin), "--state"]).arg(state);
        said(&command.output().unwrap())
    };
    let agent = enroll(env!("CARGO_BIN_EXE_vmetric-agent"), "--director", &fleet, "--token", &key);
    assert!(agent.contains("wrong_program") && agent.contains("vmetric-director token create"), "{agent}");
    let director = enroll(DIRECTOR, "--fleet", &site, "--key", &token);
    assert!(director.contains("wrong_program") && director.contains("vmetric-fleet key create"), "{director}");
    assert!(site.good("token list").contains("valid") && fleet.good("key list").contains("valid"), "both can be used still");
}

#[test]
fn a_stop_in_a_trial_is_no_crash() {
    let new = variant("two");
    let fleet = fleet(&[("2.0.0", &new)]);
    let mut own = Own::enrolled(&fleet);
    // The operator's check holds the trial open.
    let gate = own.path("open");
    crate::write_program(&own.path("state/config/check"), format!("#!/bin/sh\n[ -e {} ] || exit 75\n", gate.display()).as_bytes());
    own.start(false);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    own.order("2.0.0");
    for n in 1..=3 {
        own.wait("trial", |s| text(s, "own.running_as") == "trial" && text(s, "own.code") == "check_unsure");
        let mut process = own.process.take().unwrap();
        assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
        assert_eq!(process.wait().unwrap().code(), Some(0), "{}", own.said());
        let state = vmetric::io::state::State::look_of(&vmetric::core::product::DIRECTOR, &own.path("state"));
        let evidence = state.load_marks().marks.a.evidence;
        assert_eq!((evidence.starts, evidence.crashes, evidence.ended), (n, 0, vmetric::core::slots::Ended::Stopped));
        own.start(false);
    }
    fs::write(&gate, "").unwrap();
    own.ended("updated", "2.0.0");
}
