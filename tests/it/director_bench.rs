//! A site: the real Director over a published release, and agents that a test plays.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use miniserde::{Deserialize, json};
use vmetric::core::{hex, time};
use vmetric::director::records::Event;
use vmetric::director::role::{DIRECTOR, Role};
use vmetric::director::views::{AgentView, AgentsView, RolloutView, RolloutsView};
use vmetric::io::clock;
use vmetric::io::http::{Http, HttpConfig};
use vmetric::io::tls::{Pin, parse_pin};
use vmetric::wire::agent_api::{AnswerWire, EnrollWire, EnrolledWire, ErrorWire, OrderWire, PROTOCOL, ReportWire, ResultWire};

use crate::release_bench::{Bench, Ended};

/// Nothing on loopback takes this long.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes of an agent of a version: long enough for ranges.
pub fn agent_file(version: &str) -> Vec<u8> {
    format!("agent {version} ").repeat(20_000).into_bytes()
}

/// A release and a Director over it.
pub struct Site {
    pub bench: Bench,
    pub url: String,
    pub pin: Pin,
    director: Option<Child>,
    panicked: Arc<AtomicBool>,
    /// It is started with `--mirror`.
    pub linked: bool,
    /// Who serves whom.
    kind: Kind,
    /// What it logged until it was ready.
    pub said: Vec<String>,
    /// The host that it runs on when it is not this one: a network namespace, and its address there.
    pub host: Option<(String, String)>,
    /// Its environment, beside this process's.
    pub environment: Vec<(String, String)>,
    /// Further options of `run`.
    pub options: Vec<String>,
}

/// The two servers of the same code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Director and its agents.
    Director,
    /// Fleet and its Directors.
    #[cfg(feature = "fleet")]
    Fleet,
}

impl Kind {
    fn exe(self) -> &'static str {
        match self {
            Kind::Director => env!("CARGO_BIN_EXE_vmetric-director"),
            #[cfg(feature = "fleet")]
            Kind::Fleet => env!("CARGO_BIN_EXE_vmetric-fleet"),
        }
    }

    fn role(self) -> &'static Role {
        match self {
            Kind::Director => &DIRECTOR,
            #[cfg(feature = "fleet")]
            Kind::Fleet => &vmetric::fleet::role::FLEET,
        }
    }
}

impl Site {
    /// A Director over a release of agent 1.0.0 and 2.0.0 for linux-amd64.
    pub fn new() -> Site {
        Site::with(&[("1.0.0", agent_file("1.0.0")), ("2.0.0", agent_file("2.0.0"))])
    }

    /// A Director without a link to anywhere, and a release that nobody has brought to it yet, made at this time.
    pub fn without_link(agents: &[(&str, Vec<u8>)], at: &str) -> Site {
        let mut site = Site::released(agents, at, Kind::Director);
        site.linked = false;
        site.start();
        site
    }

    /// A Director over a release of these agents.
    pub fn with(agents: &[(&str, Vec<u8>)]) -> Site {
        let mut site = Site::released(agents, &now(), Kind::Director);
        site.start();
        site
    }

    /// A Fleet over a release of Director 1.0.0 and 2.0.0 for linux-amd64.
    #[cfg(feature = "fleet")]
    pub fn fleet() -> Site {
        Site::fleet_with(&[("1.0.0", agent_file("1.0.0")), ("2.0.0", agent_file("2.0.0"))])
    }

    /// A Fleet over these releases of the Director.
    #[cfg(feature = "fleet")]
    pub fn fleet_with(directors: &[(&str, Vec<u8>)]) -> Site {
        let mut site = Site::released(directors, &now(), Kind::Fleet);
        site.start();
        site
    }

    fn released(agents: &[(&str, Vec<u8>)], at: &str, kind: Kind) -> Site {
        let bench = Bench::with_seeds();
        bench.good(&format!("init --repo release --keys keys --now {at}"));
        let site = Site {
            bench,
            url: String::new(),
            pin: [0; 32],
            director: None,
            panicked: Arc::default(),
            linked: true,
            kind,
            said: Vec::new(),
            host: None,
            environment: Vec::new(),
            options: Vec::new(),
        };
        for (version, file) in agents {
            site.add_file(version, file);
        }
        site.publish_at(at);
        site
    }

    pub fn add(&self, version: &str) {
        self.add_file(version, &agent_file(version));
    }

    fn add_file(&self, version: &str, file: &[u8]) {
        self.add_of(self.kind.role().product.name, version, file);
    }

    /// A release of another product, too.
    pub fn add_of(&self, product: &str, version: &str, file: &[u8]) {
        self.bench.write(product, file);
        let line = crate::release_bench::add_line(version).replace("vmetric-agent", product);
        self.bench.good(&format!("{line} --now {}", now()));
    }

    pub fn publish(&self) {
        self.publish_at(&now());
    }

    pub fn publish_at(&self, at: &str) {
        self.bench.good(&format!("sign --repo release --keys keys --now {at}"));
        self.bench.good(&format!("publish --repo release --out public --now {at}"));
    }

    /// Starts the Director and waits until its first look at the mirror is over.
    pub fn start(&mut self) {
        // A restarted Director keeps its address: agents know no other.
        let address = self.host.as_ref().map_or("127.0.0.1", |(_, address)| address.as_str());
        let listen = self.url.strip_prefix("https://").map_or(format!("{address}:0"), String::from);
        let mut command = match &self.host {
            None => Command::new(self.kind.exe()),
            Some((namespace, _)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, self.kind.exe()]);
                command
            }
        };
        if self.linked {
            command.args(["run", "--mirror"]).arg(self.bench.path("public"));
        } else {
            command.arg("run");
        }
        let mut child = command
            .args(["--name", address, "--listen", &listen])
            .args(&self.options)
            .arg("--root")
            .arg(self.bench.path("release/root.json"))
            .arg("--state")
            .arg(self.state())
            .envs(self.environment.iter().cloned())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("the Director ended: {seen:#?}")).unwrap();
            let ready = line.contains("no mirror: releases")
                || line.contains("mirror_refreshed")
                || line.contains("mirror_refused")
                || line.contains("mirror is fresh");
            seen.push(line);
            if ready {
                break;
            }
        }
        self.said = seen;
        // Its log must be read on, or it would stand still once the pipe is full.
        let panicked = self.panicked.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|l| l.contains("panicked at")) {
                eprintln!("the Director: {line}");
                panicked.store(true, Ordering::SeqCst);
            }
        });
        self.director = Some(child);
        let status: vmetric::director::views::StatusView = self.json("status --json");
        self.url = format!("https://{}", status.listen[0]);
        self.pin = parse_pin(&status.pin).unwrap();
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.director.as_ref().unwrap().id()
    }

    pub fn state(&self) -> PathBuf {
        self.bench.path("site")
    }

    /// SIGKILL: nothing is said, nothing is written.
    pub fn kill(&mut self) {
        let mut child = self.director.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.director.take().unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        child.wait().unwrap().code()
    }

    /// A command line of the administrator.
    pub fn run(&self, line: &str) -> Ended {
        let mut command = Command::new(self.kind.exe());
        command.args(line.split_whitespace()).env("VMETRIC_DIRECTOR_STATE", self.state()).env("VMETRIC_FLEET_STATE", self.state());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// One that has to succeed.
    pub fn good(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 0, "{line}\n{}{}", ended.out, ended.err);
        ended.out
    }

    /// One that has to fail with exit 1; what it says.
    pub fn bad(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 1, "{line}\n{}{}", ended.out, ended.err);
        ended.err
    }

    /// A command that reads standard input; its exit code and what it says.
    pub fn typed(&self, line: &str, input: &str) -> Ended {
        use std::io::Write;
        let mut command = Command::new(self.kind.exe());
        command.args(line.split_whitespace()).env("VMETRIC_DIRECTOR_STATE", self.state()).env("VMETRIC_FLEET_STATE", self.state());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The document that a command prints.
    pub fn json<T: Deserialize>(&self, line: &str) -> T {
        let out = self.good(line);
        json::from_str(out.trim()).unwrap_or_else(|_| panic!("{line}: {out}"))
    }

    pub fn view(&self, agent: &FakeAgent) -> AgentView {
        let all: AgentsView = self.json(&format!("{} --json", self.kind.role().nodes));
        all.agents.into_iter().find(|a| a.id == agent.report.agent_id).unwrap()
    }

    pub fn rollout(&self, id: u64) -> RolloutView {
        let all: RolloutsView = self.json("rollouts --json");
        all.rollouts.into_iter().find(|r| r.id == id).unwrap()
    }

    /// Codes of an agent's activity, oldest first.
    pub fn codes(&self, agent: &FakeAgent) -> Vec<String> {
        let out = self.good(&format!("activity --json --{} {}", self.kind.role().node, agent.report.agent_id));
        out.lines().map(|l| json::from_str::<Event>(l).unwrap().code).collect()
    }

    pub fn http(&self) -> Http {
        let config = HttpConfig { pins: vec![self.pin], proxy: None, user_agent: "test", wake_fd: None, tick: || {} };
        Http::new(config).unwrap()
    }

    pub fn token(&self, options: &str) -> String {
        self.json::<vmetric::director::commands::TokenView>(&format!("{} create --json {options}", self.kind.role().token)).token
    }

    /// What enrolling with this token answers.
    pub fn try_enroll(&self, token: &str, hostname: &str) -> Result<EnrolledWire, (u16, String)> {
        let wire = EnrollWire {
            protocol: PROTOCOL,
            token: token.into(),
            hostname: hostname.into(),
            os: "linux".into(),
            architecture: "amd64".into(),
            version: "1.0.0".into(),
            ..Default::default()
        };
        let reply = self.http().post_json(&format!("{}/agent/v1/enroll", self.url), None, &json::to_string(&wire), 4096, LIMIT).unwrap();
        let text = String::from_utf8(reply.body).unwrap();
        match reply.status {
            200 => Ok(json::from_str(&text).unwrap()),
            status => Err((status, json::from_str::<ErrorWire>(&text).unwrap().code)),
        }
    }

    /// An agent that runs 1.0.0.
    pub fn enroll(&self, hostname: &str) -> FakeAgent {
        self.enroll_with(&self.token(""), hostname)
    }

    /// The same with a token that is there.
    pub fn enroll_with(&self, token: &str, hostname: &str) -> FakeAgent {
        let enrolled = self.try_enroll(token, hostname).unwrap();
        let report = ReportWire {
            protocol: PROTOCOL,
            agent_id: enrolled.agent_id,
            hostname: hostname.into(),
            os: "linux".into(),
            architecture: "amd64".into(),
            version: "1.0.0".into(),
            running: "factory".into(),
            running_as: "factory".into(),
            running_sha256: hex::encode(&hex::sha256(&agent_file("1.0.0"))),
            step: "idle".into(),
            clock: "ok".into(),
            park_s: 15,
            ..Default::default()
        };
        FakeAgent { http: self.http(), url: self.url.clone(), credential: enrolled.credential, report }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(child) = &mut self.director {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert!(std::thread::panicking() || !self.panicked.load(Ordering::SeqCst), "the Director panicked");
    }
}

/// An agent whose every word the test chooses.
pub struct FakeAgent {
    pub http: Http,
    pub url: String,
    pub credential: String,
    pub report: ReportWire,
}

impl FakeAgent {
    /// Sends the report as it is now; status and body.
    pub fn send(&self, path: &str) -> (u16, String) {
        let url = format!("{}/agent/v1/{path}", self.url);
        let reply = self.http.post_json(&url, Some(&self.credential), &json::to_string(&self.report), 16 << 10, LIMIT).unwrap();
        (reply.status, String::from_utf8(reply.body).unwrap())
    }

    fn answered(&self, path: &str) -> AnswerWire {
        let (status, body) = self.send(path);
        assert_eq!(status, 200, "{body}");
        json::from_str(&body).unwrap()
    }

    pub fn report(&self) -> AnswerWire {
        self.answered("report")
    }

    pub fn poll(&self) -> AnswerWire {
        self.answered("poll")
    }

    /// Reports a step of the accepted order.
    pub fn step(&mut self, step: &str) -> AnswerWire {
        self.report.step = step.into();
        self.report()
    }

    pub fn accept(&mut self, order: &OrderWire) {
        (self.report.issuer, self.report.generation) = (order.issuer.clone(), order.generation);
        self.report.scheduled_version = Some(order.version.clone());
        self.report.bytes_total = order.length;
    }

    /// The process of the new version, on trial.
    pub fn on_trial(&mut self, order: &OrderWire) {
        (self.report.running, self.report.running_as, self.report.step) = ("a".into(), "trial".into(), "trial".into());
        (self.report.version, self.report.running_sha256) = (order.version.clone(), order.sha256.clone());
        self.report.trial_nonce = Some("00112233445566778899aabbccddeeff".into());
        self.report.trial_sha256 = Some(order.sha256.clone());
    }

    /// The end of an order as this agent would tell it now.
    pub fn ends(&mut self, order: &OrderWire, outcome: &str, id: &str) {
        if outcome == "updated" {
            self.report.running_as = "confirmed".into();
        }
        (self.report.trial_nonce, self.report.trial_sha256, self.report.scheduled_version) = (None, None, None);
        self.report.step = "reported".into();
        self.report.result = Some(ResultWire {
            id: id.into(),
            issuer: order.issuer.clone(),
            generation: order.generation,
            outcome: outcome.into(),
            version: order.version.clone(),
            sha256: order.sha256.clone(),
            running_version: self.report.version.clone(),
            running_sha256: self.report.running_sha256.clone(),
            at: clock::unix(),
            ..Default::default()
        });
    }

    /// Goes through an update from order to result.
    pub fn update(&mut self, order: &OrderWire) {
        self.accept(order);
        self.step("downloading");
        self.step("staged");
        self.step("switching");
        self.on_trial(order);
        assert_eq!(self.report().acknowledged, self.report.trial_nonce);
        self.ends(order, "updated", &format!("r{}", order.generation));
        assert_eq!(self.report().result_taken, Some(format!("r{}", order.generation)));
        self.report.result = None;
        self.report.step = "idle".into();
    }
}

/// The real time: the Director uses the clock.
pub fn now() -> String {
    time::format(clock::unix())
}
