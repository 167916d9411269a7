//! First install: the gate of `/dl/agent`, and the printed command, run for real in a clean folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;

use miniserde::json;
use ureq_proto::http::{HeaderMap, HeaderName, HeaderValue};
use vmetric::core::hex;
use vmetric::core::release::Artifact;
use vmetric::director::commands::InstallView;
use vmetric::director::pki::{Names, SiteCa};
use vmetric::director::policing::grants::Authorize;
use vmetric::director::policing::rows::{PolicyChange, Scope};
use vmetric::director::service::Front;
use vmetric::director::site::{Site as Running, load};
use vmetric::director::store::Store;
use vmetric::director::tree::{DOWNLOADS_MAX, Entry, Tree};
use vmetric::io::clock;
use vmetric::io::process::sleep;
use vmetric::io::serve::{Body, Request, Response, Service};
use vmetric::wire::agent_api::EnrollWire;
use vmetric::wire::settings::SettingsWire;

use crate::director_bench::Site;

const AGENT: &str = env!("CARGO_BIN_EXE_vmetric-agent");
const PATH: &str = "/dl/agent/linux/amd64";

/// A Director without sockets, with agents of these paths in its mirror.
struct Gate {
    _folder: tempfile::TempDir,
    site: Rc<Running>,
}

impl Gate {
    /// The default of all agents.
    fn policy(&self, text: &str) {
        let mut set = SettingsWire { ..Default::default() };
        for pair in text.split(';') {
            let (name, value) = pair.split_once('=').unwrap();
            *set.field(name).unwrap() = Some(value.to_string());
        }
        let change = PolicyChange { set, replace: true, ..Default::default() };
        self.site.registry.borrow_mut().set_policy(&Scope::Default, &change, clock::unix()).unwrap();
    }

    fn new(paths: &[&str]) -> Gate {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("director.redb")).unwrap();
        let registry = load(&store, clock::unix()).unwrap();
        let ca = SiteCa::open_or_create(&folder.path().join("pki"), &Names::default(), clock::unix()).unwrap();
        let mut tree = Tree::default();
        for path in paths {
            let file = folder.path().join(path.replace('/', "_"));
            fs::File::create(&file).and_then(|mut f| std::io::Write::write_all(&mut f, path.as_bytes())).unwrap();
            let (length, sha256) = (path.len() as u64, hex::sha256(path.as_bytes()));
            tree.entries.insert(format!("targets/{path}"), Entry { file, length, sha256: hex::encode(&sha256), artifact: true });
            let (path, build_keyid) = (path.parse().unwrap(), String::new());
            let artifact = Artifact { path, length, sha256, min_version: None, counter: 0, build_keyid, build_sig: [0; 64] };
            tree.releases.artifacts.push(artifact);
        }
        Gate { site: Running::new(registry, store, ca, tree), _folder: folder }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&'static str, &str)]) -> Response {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q.to_string())));
        let request = Request {
            method: method.into(),
            path: path.into(),
            query,
            headers: map,
            body: Vec::new(),
            peer: None,
            known: Default::default(),
        };
        smol::block_on(Front(self.site.clone()).call(request))
    }

    fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
        let response = self.ask("GET", path, headers);
        (response.status, text(response))
    }

    fn token(&self, text: &str, uses: u64) -> String {
        self.site.registry.borrow_mut().create_token(text, uses, 60, clock::unix()).unwrap();
        format!("Bearer {text}")
    }
}

fn text(response: Response) -> String {
    match response.body {
        Body::Empty | Body::Stream(_) => String::new(),
        Body::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        Body::File { mut file, offset, length, .. } => {
            let mut out = String::new();
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).unwrap();
            std::io::Read::read_to_string(&mut std::io::Read::take(file, length), &mut out).unwrap();
            out
        }
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let mut found = response.headers.iter().filter(|(n, _)| *n == name);
    let value = found.next().map_or("", |(_, v)| v.as_str());
    assert!(found.next().is_none(), "{name} twice");
    value
}

const ALL: [&str; 5] = [
    "vmetric-agent/1.9.0/linux-amd64/vmetric-agent",
    "vmetric-agent/1.10.0/linux-amd64/vmetric-agent",
    "vmetric-agent/2.0.0-rc.1/linux-amd64/vmetric-agent",
    "vmetric-agent/3.0.0/windows-amd64/vmetric-agent.exe",
    "vmetric-director/9.0.0/linux-arm64/vmetric-director",
];

#[test]
fn a_token_or_a_known_device_gets_the_newest_release() {
    let gate = Gate::new(&ALL);
    let bearer = gate.token("good", 1);
    let token = ("authorization", bearer.as_str());
    assert_eq!(gate.get(PATH, &[token]), (200, ALL[1].into()), "the newest that is no pre-release");
    assert_eq!(gate.get("/dl/agent/windows/amd64", &[token]), (200, ALL[3].into()));
    assert_eq!(gate.get("/dl/agent/linux/amd64?version=1.9.0", &[token]), (200, ALL[0].into()));
    assert_eq!(gate.get("/dl/agent/linux/amd64?version=2.0.0-rc.1", &[token]), (200, ALL[2].into()));
    let whole = gate.ask("GET", PATH, &[token]);
    let sha256 = hex::encode(&hex::sha256(ALL[1].as_bytes()));
    assert_eq!(header(&whole, "etag"), format!("\"{sha256}\""));
    assert_eq!((header(&whole, "x-vm-sha256"), header(&whole, "x-vm-version")), (sha256.as_str(), "1.10.0"));
    assert_eq!(header(&whole, "cache-control"), "private, no-cache", "the next release has the same path");
    let part = gate.ask("GET", PATH, &[token, ("range", "bytes=14-")]);
    assert_eq!((part.status, text(part)), (206, ALL[1][14..].to_string()));
    let head = gate.ask("HEAD", PATH, &[token]);
    assert_eq!((head.status, head.body.len()), (200, ALL[1].len() as u64));
    // Nothing of the token is spent.
    let wire = EnrollWire { token: "good".into(), ..Default::default() };
    assert!(gate.site.registry.borrow_mut().enroll(&wire, "edge-1", clock::unix()).is_ok());
    gate.policy("mode=auto;method=immediate;version=latest");
    assert_eq!(gate.get(PATH, &[("x-vm-device-id", "edge-1")]).0, 200);
}

#[test]
fn a_device_that_names_itself_gets_what_its_policy_says() {
    let gate = Gate::new(&ALL);
    gate.token("good", 1);
    let wire = EnrollWire { token: "good".into(), os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
    gate.site.registry.borrow_mut().enroll(&wire, "edge-1", clock::unix()).unwrap();
    let named = [("x-vm-device-id", "edge-1")];
    let refused = |path: &str, code: &str| {
        let (status, body) = gate.get(path, &named);
        assert!(status == 403 && body.contains(&format!("\"{code}\"")), "{path}: {status} {body}");
    };
    refused(PATH, "policy_manual");
    gate.policy("mode=auto;method=user_action");
    refused(PATH, "policy_needs_authorization");
    let ask = Authorize { nodes: None, version: "1.9.0".into(), ttl_s: None };
    let releases = gate.site.tree.borrow().releases.clone();
    gate.site.registry.borrow_mut().authorize(&ask, &releases, clock::unix()).unwrap();
    assert_eq!(gate.get(PATH, &named), (200, ALL[0].into()), "what was authorized, not what is newest");
    gate.policy("mode=auto;method=schedule;version=1.9.0;cron=0 2 * * 0");
    assert_eq!(gate.get(PATH, &named), (200, ALL[0].into()));
    refused("/dl/agent/linux/amd64?version=1.10.0", "policy_version");
}

#[test]
fn everybody_else_is_refused_with_a_reason() {
    let gate = Gate::new(&ALL);
    let bearer = gate.token("used", 1);
    let wire = EnrollWire { token: "used".into(), ..Default::default() };
    gate.site.registry.borrow_mut().enroll(&wire, "edge-1", clock::unix()).unwrap();
    gate.site.registry.borrow_mut().remove("edge-1", clock::unix()).unwrap();
    gate.site.registry.borrow_mut().create_token("old", 1, 1, clock::unix() - 100).unwrap();
    let cases: &[(&[(&'static str, &str)], &str)] = &[
        (&[], "device_unnamed"),
        (&[("x-vm-device-id", "")], "device_unnamed"),
        (&[("x-vm-device-id", "0")], "device_unmanaged"),
        (&[("x-vm-device-id", "edge-2")], "device_unknown"),
        (&[("x-vm-device-id", "edge-1")], "device_removed"),
        (&[("authorization", "Bearer guess")], "token_unknown"),
        (&[("authorization", "Bearer old")], "token_expired"),
        (&[("authorization", &bearer)], "token_used_up"),
        (&[("authorization", "Bearer guess"), ("x-vm-device-id", "edge-2")], "token_unknown"),
    ];
    // The policy comes before everything else, the platform included.
    for path in [PATH, "/dl/agent/plan9/mips"] {
        for (headers, code) in cases {
            let (status, body) = gate.get(path, headers);
            assert!(status == 403 && body.contains(&format!("\"{code}\"")), "{headers:?}: {status} {body}");
        }
    }
    let good = gate.token("good", 1);
    for path in ["/dl/agent/plan9/mips", "/dl/agent/linux/arm64", "/dl/agent/linux/amd64/x", "/dl/agent/linux/../amd64", "/dl/agent//"] {
        let (status, body) = gate.get(path, &[("authorization", &good)]);
        assert!(
            status == 404 && body.contains("no_artifact") && body.contains("\"platforms\":[\"linux/amd64\",\"windows/amd64\"]"),
            "{body}"
        );
    }
    let (status, body) = gate.get("/dl/agent/linux/amd64?version=7.0.0", &[("authorization", &good)]);
    assert!(status == 404 && body.contains("version_unknown"), "{body}");
    assert_eq!(gate.get("/dl/", &[]).0, 404);
    assert_eq!(gate.ask("POST", PATH, &[]).status, 404);
}

#[test]
fn what_is_in_quarantine_is_not_handed_out() {
    let gate = Gate::new(&ALL);
    let bearer = gate.token("good", 1);
    let token = ("authorization", bearer.as_str());
    let hash = |path: &str| hex::encode(&hex::sha256(path.as_bytes()));
    let reject = |path: &str| {
        let ask = vmetric::director::quarantine::Reject { sha256: hash(path), why: "bad disk format".into(), ..Default::default() };
        gate.site.registry.borrow_mut().reject(&ask, clock::unix()).unwrap();
    };
    reject(ALL[1]);
    assert_eq!(gate.get(PATH, &[token]), (200, ALL[0].into()), "the newest that is left");
    let (status, body) = gate.get("/dl/agent/linux/amd64?version=1.10.0", &[token]);
    assert!(status == 403 && body.contains("quarantined") && body.contains("bad disk format"), "{body}");
    reject(ALL[0]);
    assert_eq!(gate.get(PATH, &[token]).0, 403);
    gate.site.registry.borrow_mut().allow(&hash(ALL[1]), None, "fixed", clock::unix()).unwrap();
    assert_eq!(gate.get(PATH, &[token]), (200, ALL[1].into()));
}

#[test]
fn downloads_have_places_and_guesses_a_price() {
    let gate = Gate::new(&ALL);
    let bearer = gate.token("good", 1);
    let token = ("authorization", bearer.as_str());
    let mut held: Vec<Response> = (0..DOWNLOADS_MAX).map(|_| gate.ask("GET", PATH, &[token])).collect();
    assert!(held.iter().all(|r| r.status == 200));
    let busy = gate.ask("GET", PATH, &[token]);
    assert!(busy.status == 429 && (10..=30).contains(&header(&busy, "retry-after").parse::<u64>().unwrap()));
    assert_eq!(gate.get(PATH, &[("x-vm-device-id", "0")]).0, 403, "refused without a place");
    assert_eq!(gate.ask("HEAD", PATH, &[token]).status, 200);
    held.pop();
    assert_eq!(gate.ask("GET", PATH, &[token]).status, 200);
    let statuses: Vec<u16> = (0..2_000).map(|i| gate.get(PATH, &[("authorization", &format!("Bearer guess{i}"))]).0).collect();
    assert!(statuses.contains(&403) && statuses.last() == Some(&429), "a guesser is slowed down");
}

/// A new device: an image folder and a state folder, both not there yet.
pub struct Device(tempfile::TempDir);

impl Device {
    pub fn new() -> Device {
        Device(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// As a person does who pastes the text into a root shell.
    pub fn paste(&self, command: &str) -> Output {
        let script = self.path("pasted");
        fs::File::create(&script).and_then(|mut f| std::io::Write::write_all(&mut f, command.as_bytes())).unwrap();
        let mut sh = Command::new("sh");
        sh.arg(&script).env("VMETRIC_DIR", self.path("image")).env("VMETRIC_STATE", self.path("state"));
        sh.env("no_proxy", "*").stdin(Stdio::null()).output().unwrap()
    }

    /// Everything below the image folder that somebody could execute.
    pub fn executables(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    walk(&entry.path(), out);
                } else if meta.permissions().mode() & 0o111 != 0 {
                    out.push(entry.path());
                }
            }
        }
        let mut out = Vec::new();
        walk(self.0.path(), &mut out);
        out
    }
}

pub fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn the_printed_command_installs_and_enrolls() {
    if Command::new("curl").arg("--version").output().is_err() {
        return crate::left_out("no curl here");
    }
    let agent = fs::read(AGENT).unwrap();
    let site = Site::with(&[("1.0.0", b"an older one".to_vec()), ("2.0.0", agent.clone())]);
    let text = site.good("install-command");
    let device = Device::new();
    let out = device.paste(&text);
    assert!(out.status.success() && said(&out).contains("installed"), "{}", said(&out));
    assert_eq!(device.executables(), [device.path("image/vmetric-agent")]);
    assert_eq!(fs::read(device.path("image/vmetric-agent")).unwrap(), agent);
    assert_eq!(fs::read(device.path("image/root.json")).unwrap(), fs::read(site.bench.path("release/root.json")).unwrap());
    let left: Vec<_> = fs::read_dir(device.path("image")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    // What was installed runs, and the Director hears it.
    let mut running = Command::new(device.path("image/vmetric-agent"));
    running.args(["run", "--state"]).arg(device.path("state")).env("VMETRIC_RESPAWN", "1").stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = running.spawn().unwrap();
    let end = clock::monotonic() + std::time::Duration::from_secs(60);
    let heard = loop {
        let agents = site.good("agents --json");
        if agents.contains("\"running_as\":\"factory\"") || clock::monotonic() > end {
            break agents;
        }
        sleep(std::time::Duration::from_millis(50));
    };
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(heard.contains("\"running_as\":\"factory\""), "{heard}");

    // The token was good for one device.
    let second = Device::new();
    let out = second.paste(&text);
    assert!(!out.status.success() && said(&out).contains("token_used_up"), "{}", said(&out));
    assert_eq!(second.executables(), Vec::<PathBuf>::new());
    assert!(site.bad("install-command --os darwin").contains("no_artifact"));
    assert!(site.bad("install-command --arch arm64").contains("linux/amd64"));
}

#[test]
fn an_image_that_is_cloned_before_enrollment_holds_no_secret() {
    let site = Site::with(&[("2.0.0", b"any".to_vec())]);
    let device = Device::new();
    fs::create_dir_all(device.path("image")).unwrap();
    crate::place_program(AGENT, device.path("image/vmetric-agent"));
    fs::copy(site.bench.path("release/root.json"), device.path("image/root.json")).unwrap();
    let agent = |state: &Path, words: &[&str]| {
        let mut command = Command::new(device.path("image/vmetric-agent"));
        command.args(words).arg("--state").arg(state).env("no_proxy", "*").env("VMETRIC_RESPAWN", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let image = || {
        let mut files: Vec<_> = fs::read_dir(device.path("image")).unwrap().map(|e| e.unwrap().file_name()).collect();
        files.sort();
        files
    };
    // Looking at it makes no key.
    let state = device.path("state");
    for words in [&["-version"][..], &["--self-test"], &["-validate"], &["status"]] {
        agent(&state, words).status().unwrap();
    }
    assert!(!state.join("config").exists(), "no key, no credential");
    // Two devices of one image: everything that is secret is made in their state folders.
    let mut configs = Vec::new();
    for clone in ["one", "two"].map(|name| device.path(name)) {
        let pin = vmetric::io::tls::pin_text(&site.pin);
        let words = ["enroll", "--director", &site.url, "--pin", &pin];
        assert!(agent(&clone, &words).env("VMETRIC_TOKEN", site.token("")).status().unwrap().success());
        let text = fs::read_to_string(clone.join("config/agent.json")).unwrap();
        configs.push(json::from_str::<vmetric::wire::config::ConfigWire>(&text).unwrap());
        for name in ["agent.json", "device.key"] {
            assert_eq!(fs::metadata(clone.join("config").join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }
    assert_eq!(image(), ["root.json", "vmetric-agent"]);
    assert_ne!(configs[0].agent_id, configs[1].agent_id);
    assert_ne!(configs[0].device_key, configs[1].device_key);
    assert!(configs[0].device_key.is_some());
}

#[test]
fn nothing_that_differs_from_the_command_is_ever_executable() {
    if Command::new("curl").arg("--version").output().is_err() {
        return crate::left_out("no curl here");
    }
    let site = Site::with(&[("2.0.0", fs::read(AGENT).unwrap())]);
    let view: InstallView = json::from_str(site.good("install-command --uses 100 --json").trim()).unwrap();
    let refuses = |text: &str, why: &str| {
        assert_ne!(text, view.command, "{why}");
        let device = Device::new();
        let out = device.paste(text);
        assert!(!out.status.success() && said(&out).contains(why), "{why}: {}", said(&out));
        assert_eq!(device.executables(), Vec::<PathBuf>::new(), "{why}");
        assert!(!device.path("state").exists(), "{why}");
        let left = fs::read_dir(device.path("image")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{why}");
    };
    let zeros = "0".repeat(64);
    let hash_after = |word: &str| view.command.split(word).nth(1).unwrap().trim_start()[..64].to_string();
    refuses(&view.command.replace(&view.sha256, &zeros), "vmetric-agent is not the file");
    refuses(&view.command.replace(&hash_after("verify cert.pem"), &zeros), "cert.pem is not the file");
    refuses(&view.command.replace(&hash_after("verify root.json"), &zeros), "root.json is not the file");
    refuses(&view.command.replace(&hash_after("sha256:"), &zeros), "pin is not this site's");
    // Somebody else answers at the address.
    let other = Site::with(&[("2.0.0", b"evil".to_vec())]);
    refuses(&view.command.replace(&site.url, &other.url), "cert.pem is not the file");
    refuses(&view.command.replace(&site.url, "https://127.0.0.1:1"), "cannot be fetched");
    // A text that was not pasted whole.
    let lines: Vec<&str> = view.command.lines().collect();
    for n in 1..lines.len() - 1 {
        let device = Device::new();
        device.paste(&lines[..n].join("\n"));
        assert!(device.executables().is_empty() && !device.path("image").exists(), "the first {n} lines");
    }
    // The file is altered where the Director keeps it.
    let kept = site.state().join("release");
    let mut altered = 0;
    let mut folders = vec![kept];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.metadata().unwrap().is_dir() {
                folders.push(entry.path());
            } else if hex::encode(&hex::sha256(&fs::read(entry.path()).unwrap())) == view.sha256 {
                let file = fs::OpenOptions::new().write(true).open(entry.path()).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, b"#!/bin/sh\n", 0).unwrap();
                altered += 1;
            }
        }
    }
    assert!(altered > 0);
    refuses(&format!("{}\n", view.command), "vmetric-agent is not the file");
}
