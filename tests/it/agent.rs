//! The real agent at a real Director: enroll, update, status, rollback, and an update without a network.
//!
//! The staged versions are the agent's own file with some bytes behind its end: other files, the same program.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use miniserde::json::{self, Value};
use vmetric::core::{hex, time};
use vmetric::io::clock;
use vmetric::io::tls::pin_text;

use crate::director_bench::{Site, now};

const AGENT: &str = env!("CARGO_BIN_EXE_vmetric-agent");
/// An update takes about a second; a busy test machine gets much more.
const LIMIT: Duration = Duration::from_secs(120);

fn variant(tail: &str) -> Vec<u8> {
    let mut file = fs::read(AGENT).unwrap();
    file.extend_from_slice(tail.as_bytes());
    file
}

/// A device: an image folder and a state folder.
pub struct Device<'a> {
    pub site: &'a Site,
    pub name: String,
    pub process: Option<Child>,
}

impl<'a> Device<'a> {
    pub fn enrolled(site: &'a Site) -> Device<'a> {
        Device::enrolled_with(site, &[])
    }

    /// One with an image and nothing else.
    pub fn bare(site: &'a Site, name: &str) -> Device<'a> {
        let device = Device { site, name: name.into(), process: None };
        fs::create_dir_all(device.path("image")).unwrap();
        crate::place_program(AGENT, device.path("image/vmetric-agent"));
        fs::copy(site.bench.path("release/root.json"), device.path("image/root.json")).unwrap();
        device
    }

    fn enrolled_with(site: &'a Site, more: &[&str]) -> Device<'a> {
        let device = Device::bare(site, "device");
        let pin = pin_text(&site.pin);
        let words = [&["enroll", "--director", &site.url, "--pin", &pin], more].concat();
        let out = device.run(&words);
        assert!(out.status.code() == Some(2) && said(&out).contains("VMETRIC_TOKEN"), "{}", said(&out));
        let out = device.command(&words).env("VMETRIC_TOKEN", site.token("")).output().unwrap();
        assert!(out.status.success(), "{}", said(&out));
        device
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.site.bench.path(&self.name).join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.path("image/vmetric-agent"));
        command.args(words).arg("--state").arg(self.path("state")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// As a service manager does that starts it again: in exec mode every orderly switch keeps this process.
    pub fn start(&mut self) {
        let mut command = self.command(&["run"]);
        self.process = Some(command.env("VMETRIC_RESPAWN", "1").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    pub fn status(&self) -> Value {
        let out = self.run(&["status", "--json"]);
        json::from_str(&said(&out)).unwrap_or_else(|_| panic!("{}", said(&out)))
    }

    pub fn wait(&self, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let end = clock::monotonic() + LIMIT;
        loop {
            let status = self.status();
            if done(&status) {
                return status;
            }
            assert!(clock::monotonic() < end, "no {what} within {LIMIT:?}: {}", json::to_string(&status));
            vmetric::io::process::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Device<'_> {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn field<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(value, |v, name| match v {
        Value::Object(fields) => fields.get(name).unwrap_or(&Value::Null),
        _ => &Value::Null,
    })
}

pub fn text(value: &Value, path: &str) -> String {
    match field(value, path) {
        Value::String(s) => s.clone(),
        other => json::to_string(other),
    }
}

#[test]
fn an_update_its_rollback_and_its_return() {
    let new = variant("two");
    let site = Site::with(&[("2.0.0", new.clone())]);
    let mut device = Device::enrolled(&site);
    device.start();
    device.wait("contact", |s| text(s, "last_contact") != "null");
    let pid = text(&device.status(), "pid");

    site.good("assign --all --version 2.0.0");
    let status =
        device.wait("confirmed update", |s| text(s, "last_result.outcome") == "updated" && text(s, "last_result.reported") == "true");
    assert_eq!((text(&status, "running"), text(&status, "running_as")), ("a".into(), "confirmed".into()));
    assert_eq!(text(&status, "pid"), pid, "the switch keeps the process");
    assert_eq!(fs::read(device.path("state/slots/a/vmetric-agent")).unwrap(), new);
    assert_eq!(text(&status, "metadata.root"), "1");
    let agents = site.good("agents --json");
    assert!(agents.contains(&hex::encode(&hex::sha256(&new))) || agents.contains("\"state\":\"updated\""), "{agents}");
    let version = said(&device.run(&["-version"]));
    assert!(version.contains("running: 2.0.0 (slot a, confirmed)"), "{version}");

    // The operator goes back; the file is rejected until an order says retry.
    let out = device.run(&["rollback"]);
    assert!(said(&out).contains("the factory image"), "{}", said(&out));
    let status = device.wait("rollback", |s| {
        // Until it is reported, the Director believes that 2.0.0 runs, and an assignment of it is fulfilled.
        text(s, "running") == "factory" && text(s, "last_result.outcome") == "rolled_back" && text(s, "last_result.reported") == "true"
    });
    assert_eq!((text(&status, "last_result.code"), text(&status, "pid")), ("operator".into(), pid.clone()));
    site.good("assign --all --version 2.0.0");
    let refused = device.wait("refusal", |s| text(s, "last_result.outcome") == "refused");
    assert_eq!(text(&refused, "last_result.code"), "rejected");
    site.good("assign --all --version 2.0.0 --retry");
    device.wait("second update", |s| text(s, "last_result.outcome") == "updated" && text(s, "running_as") == "confirmed");

    // A second agent with this state refuses and names the first.
    let second = device.command(&["run"]).env("VMETRIC_RESPAWN", "1").output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    assert!(said(&second).contains(&pid), "{}", said(&second));
}

#[test]
fn an_update_from_a_folder_needs_no_director_and_no_network() {
    let mut site = Site::with(&[("2.0.0", variant("two")), ("2.1.0", variant("newest"))]);
    site.kill();
    let site = site;
    // Enrollment needs the Director; this device never had one.
    let mut device = Device { site: &site, name: "device".into(), process: None };
    fs::create_dir_all(device.path("image")).unwrap();
    crate::place_program(AGENT, device.path("image/vmetric-agent"));
    fs::copy(site.bench.path("release/root.json"), device.path("image/root.json")).unwrap();
    let tree = site.bench.path("public");
    let tree = tree.to_str().unwrap();

    let out = device.run(&["update", "--file", tree]);
    assert!(said(&out).contains("agent_not_running"), "{}", said(&out));
    device.start();
    device.wait("running agent", |s| text(s, "runs") == "true" && text(s, "step") == "idle");
    let out = device.run(&["update", "--file", tree]);
    assert!(out.status.success() && said(&out).contains("updated 2.1.0"), "{}", said(&out));
    let status = device.status();
    assert_eq!((text(&status, "version"), text(&status, "running_as")), ("2.1.0".into(), "confirmed".into()));

    let out = device.run(&["update", "--file", tree, "--version", "9.9.9"]);
    assert!(said(&out).contains("version_not_found"), "{}", said(&out));
    let out = device.run(&["update", "--file", device.path("image").to_str().unwrap()]);
    assert!(!out.status.success() && said(&out).contains("has no folder 'metadata'"), "{}", said(&out));
    // An older one by name is fine: the security counter is the same.
    let out = device.run(&["update", "--file", tree, "--version", "2.0.0"]);
    assert!(out.status.success() && said(&out).contains("updated 2.0.0"), "{}", said(&out));
}

#[test]
fn an_update_from_a_bundle_is_the_same_in_one_file() {
    let mut site = Site::with(&[("2.0.0", variant("two")), ("2.1.0", variant("newest"))]);
    site.kill();
    let site = site;
    let mut device = Device { site: &site, name: "device".into(), process: None };
    fs::create_dir_all(device.path("image")).unwrap();
    crate::place_program(AGENT, device.path("image/vmetric-agent"));
    fs::copy(site.bench.path("release/root.json"), device.path("image/root.json")).unwrap();
    site.bench.good(&format!("bundle --tree public --out site.vmb --now {}", now()));
    site.bench.good(&format!("bundle --tree public --out old.vmb --version 2.0.0 --now {}", now()));
    // Nothing but the bundle is there any more.
    fs::remove_dir_all(site.bench.path("public")).unwrap();
    let path = |name: &str| site.bench.path(name).display().to_string();
    device.start();
    device.wait("running agent", |s| text(s, "runs") == "true" && text(s, "step") == "idle");

    let good = fs::read(path("site.vmb")).unwrap();
    let mut flipped = good.clone();
    let last = flipped.len() - 2048;
    flipped[last] ^= 1;
    site.bench.write("flipped.vmb", &flipped);
    site.bench.write("cut.vmb", &good[..good.len() / 2]);
    for (name, says) in [("cut.vmb", "bundle_truncated"), ("flipped.vmb", "file_hash"), ("missing.vmb", "tree_unreadable")] {
        let out = device.run(&["update", "--file", &path(name)]);
        assert!(out.status.code() == Some(1) && said(&out).contains(says), "{name}: {}", said(&out));
        device.wait("rest", |s| text(s, "step") == "idle" && text(s, "running") == "factory");
    }

    let out = device.run(&["update", "--file", &path("site.vmb")]);
    assert!(out.status.success() && said(&out).contains("updated 2.1.0"), "{}", said(&out));
    // The metadata of a restricted bundle name more than it holds.
    let out = device.run(&["update", "--file", &path("old.vmb"), "--version", "2.1.0"]);
    assert!(out.status.code() == Some(1) && said(&out).contains("not_in_bundle"), "{}", said(&out));
    let out = device.run(&["update", "--file", &path("old.vmb")]);
    assert!(out.status.success() && said(&out).contains("updated 2.0.0"), "{}", said(&out));
    let status = device.status();
    assert_eq!((text(&status, "version"), text(&status, "running_as")), ("2.0.0".into(), "confirmed".into()));
}

/// No link to anywhere: the release comes as one file, late; what expired on its way is taken where somebody said so.
#[test]
fn an_air_gapped_site_takes_a_bundle_that_expired_on_its_way() {
    let made = time::format(clock::unix() - 30 * 86_400);
    let new = variant("two");
    let site = Site::without_link(&[("2.0.0", new.clone())], &made);
    site.bench.good(&format!("bundle --tree public --out site.vmb --now {made}"));
    let file = site.bench.path("site.vmb").display().to_string();
    assert!(site.bad("mirror").contains("no_source"));
    assert!(site.bad("assign --all --version 2.0.0").contains("version_unknown"));

    // A bundle without its first block, then the good one.
    let good = fs::read(&file).unwrap();
    site.bench.write("cut.vmb", &good[512..]);
    let said = site.bad(&format!("mirror --file {}", site.bench.path("cut.vmb").display()));
    assert!(said.contains("bundle_") && said.contains("cut.vmb"), "{said}");
    let said = site.bad(&format!("mirror --file {file}"));
    assert!(said.contains("timestamp_expired") && said.contains("--accept-expired"), "{said}");
    let said = site.good(&format!("mirror --file {file} --accept-expired"));
    let expiry = time::format(clock::unix() - 23 * 86_400)[..10].to_string();
    assert!(said.contains("accepted although expired: timestamp") && said.contains(&expiry), "{said}");
    let activity = site.good("activity");
    for code in ["import_refused", "mirror_imported", &expiry] {
        assert!(activity.contains(code), "{code}: {activity}");
    }

    // The device's own word counts, nobody else's: without it the same Director and the same file are not enough.
    let mut device = Device::enrolled_with(&site, &["--offline-site", "60"]);
    device.start();
    site.good("assign --all --version 2.0.0");
    device.wait("update", |s| text(s, "last_result.outcome") == "updated" && text(s, "last_result.reported") == "true");
    assert_eq!(fs::read(device.path("state/slots/a/vmetric-agent")).unwrap(), new);

    // And without the Director, from the same file.
    let out = device.run(&["update", "--file", &file]);
    assert!(said_already(&out), "{}", self::said(&out));

    // What rots in the slot of the version that runs comes again from the same file, in its place, before a start needs it.
    let program = device.path("state/slots/a/vmetric-agent");
    for damage in ["program", "slot.json", "confirmed"] {
        if damage == "program" {
            // Not through the file that runs: its name is given to other bytes.
            site.bench.write("device/state/slots/a/vmetric-agent.rot", b"rot");
            fs::rename(program.with_extension("rot"), &program).unwrap();
        } else {
            site.bench.write(&format!("device/state/slots/a/{damage}"), b"rot");
        }
        let out = device.run(&["update", "--file", &file]);
        assert!(said_already(&out) && self::said(&out).contains("(repaired)"), "{damage}: {}", self::said(&out));
        assert!(fs::read(&program).unwrap() == new);
    }
    let mut process = device.process.take().unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    device.start();
    device.wait("start", |s| {
        text(s, "runs") == "true" && text(s, "running") == "a" && text(s, "running_as") == "confirmed" && text(s, "version") == "2.0.0"
    });
}

/// A site that is never on-line: 8 days and 200 days after its media were made, two updates in a row, each from a new medium.
#[test]
fn a_site_that_is_never_on_line_updates_after_8_and_after_200_days() {
    for days in [8u64, 200] {
        let made = time::format(clock::unix() - days * 86_400);
        let later = time::format(clock::unix() - (days - 1) * 86_400);
        let site = Site::without_link(&[("2.0.0", variant("two"))], &made);
        site.bench.good(&format!("bundle --tree public --out first.vmb --now {made}"));
        site.bench.write("vmetric-agent", &variant("three"));
        site.bench.good(&format!("{} --now {later}", crate::release_bench::add_line("3.0.0")));
        site.publish_at(&later);
        site.bench.good(&format!("bundle --tree public --out second.vmb --now {later}"));
        let mut device = Device::enrolled_with(&site, &["--offline-site", "200"]);
        device.start();
        for (medium, version, file) in [("first.vmb", "2.0.0", "two"), ("second.vmb", "3.0.0", "three")] {
            let said = site.good(&format!("mirror --file {} --accept-expired", site.bench.path(medium).display()));
            assert!(said.contains("accepted although expired: timestamp"), "{days} days: {said}");
            site.good(&format!("assign --all --version {version} --end-probation"));
            let ended = |s: &Value| text(s, "last_result.version") == version && text(s, "last_result.reported") == "true";
            device.wait("update", ended);
            let status = device.status();
            assert_eq!((text(&status, "last_result.outcome"), text(&status, "version")), ("updated".into(), version.into()), "{days} days");
            let slot = device.path(&format!("state/slots/{}/vmetric-agent", text(&status, "running")));
            assert!(fs::read(slot).unwrap() == variant(file));
        }
        // The medium before is no way back to what it knew.
        let said = site.bad(&format!("mirror --file {} --accept-expired", site.bench.path("first.vmb").display()));
        assert!(said.contains("rollback") || said.contains("_version"), "{days} days: {said}");
    }
}

#[test]
fn a_device_that_was_not_told_so_refuses_what_its_director_accepted_although_expired() {
    let made = time::format(clock::unix() - 30 * 86_400);
    let site = Site::without_link(&[("2.0.0", variant("two"))], &made);
    site.bench.good(&format!("bundle --tree public --out site.vmb --now {made}"));
    let file = site.bench.path("site.vmb").display().to_string();
    site.good(&format!("mirror --file {file} --accept-expired"));
    let mut device = Device::enrolled(&site);
    device.start();
    site.good("assign --all --version 2.0.0");
    device.wait("refusal of the metadata", |s| text(s, "code") == "timestamp_expired");
    let out = device.run(&["update", "--file", &file]);
    assert!(out.status.code() == Some(1) && said(&out).contains("timestamp_expired"), "{}", said(&out));
    assert_eq!(text(&device.status(), "running"), "factory");
}

fn said_already(out: &Output) -> bool {
    out.status.success() && said(out).contains("already 2.0.0")
}

/// Staged, tested, waiting for its time: then the publisher takes it back.
#[test]
fn a_withdrawn_release_is_dropped_where_it_is_staged_and_reported_where_it_runs() {
    let (two, three) = (variant("two"), variant("three"));
    let site = Site::with(&[("2.0.0", two.clone()), ("3.0.0", three.clone())]);
    let mut device = Device::enrolled(&site);
    device.start();
    site.good("assign --all --version 2.0.0");
    device.wait("first update", |s| text(s, "last_result.outcome") == "updated" && text(s, "last_result.reported") == "true");
    site.good("assign --all --version 3.0.0 --switch-in 1h --end-probation");
    device.wait("staged update", |s| text(s, "code") == "window");
    assert_eq!(fs::read(device.path("state/slots/b/vmetric-agent")).unwrap(), three);

    for version in ["2.0.0", "3.0.0"] {
        site.bench.good(&format!("withdraw --repo release {version} --reason eats-data --now {}", now()));
    }
    site.publish();
    site.good("mirror");
    let dropped = |s: &Value| text(s, "last_result.version") == "3.0.0" && text(s, "last_result.outcome") == "cancelled";
    device.wait("dropped order", |s| dropped(s) && text(s, "last_result.reported") == "true");
    assert!(
        !device.path("state/slots/b/vmetric-agent").exists(),
        "the staged copy is still there: {} {}",
        json::to_string(&device.status()),
        site.good("activity")
    );
    let status = device.status();
    assert_eq!((text(&status, "running"), text(&status, "running_as")), ("a".into(), "confirmed".into()), "who runs it keeps running");
    let agents = site.good("agents");
    assert!(agents.contains("withdrawn: eats-data"), "{agents}");
    let activity = site.good("activity");
    assert!(activity.contains("running_withdrawn") && activity.contains("withdrawn: eats-data"), "{activity}");
    for version in ["3.0.0", "2.0.0"] {
        let said = site.bad(&format!("assign --all --version {version}"));
        assert!(said.contains("withdrawn: eats-data"), "{said}");
    }

    // An agent that is asked all the same (a Director of yesterday) reads it in the signed metadata, with the reason.
    let tree = site.bench.path("public");
    let out = device.run(&["update", "--file", tree.to_str().unwrap(), "--version", "3.0.0"]);
    assert!(out.status.code() == Some(1) && said(&out).contains("eats-data"), "{}", said(&out));
}

/// A window that closes before the switch, or moves, costs nothing of what is fetched: the next one goes on from there. Another
/// file takes its place.
#[test]
fn what_is_staged_waits_for_the_next_window() {
    let site = Site::with(&[("2.0.0", variant("two"))]);
    let mut device = Device::enrolled(&site);
    device.start();
    device.wait("contact", |s| text(s, "last_contact") != "null");
    let cron = |in_s: u64| {
        let minute = (clock::unix() + in_s) / 60 % 1440;
        format!("{} {} * * *", minute % 60, minute / 60)
    };
    let set = |version: &str, in_s: u64| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmetric-director"));
        command.args("policy set --mode auto --method schedule --zone UTC --version".split(' ')).args([version, "--cron", &cron(in_s)]);
        let out = command.env("VMETRIC_DIRECTOR_STATE", site.state()).output().unwrap();
        assert!(out.status.success(), "{}", said(&out));
    };
    let staged = || fs::read_dir(device.path("state/slots/a")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    set("2.0.0", 1500);
    let first = device.wait("staged update", |s| text(s, "code") == "window");
    let file = device.path("state/slots/a/vmetric-agent");
    let before = fs::metadata(&file).unwrap().ino();
    set("2.0.0", 2700);
    device.wait("the end of the first window", |s| text(s, "last_result.outcome") == "cancelled");
    let second = device.wait("staged again", |s| text(s, "code") == "window" && text(s, "until") != text(&first, "until"));
    assert_eq!(fs::metadata(&file).unwrap().ino(), before, "fetched again: {}", json::to_string(&second));
    let orders = json::to_string(&device.status());
    let accepted = fs::read_to_string(device.path("state/order.json")).unwrap();
    assert!(accepted.contains("\"bytes\":0"), "{accepted} {orders}");
    // A person's cancel keeps nothing.
    site.good("cancel --all");
    device.wait("the person's cancel", |_| staged().is_empty());
}
