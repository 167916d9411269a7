//! Three real etcd servers on this machine, over TLS with client certificates, asking for a user; and what can happen to them.
#![allow(clippy::disallowed_methods, reason = "tests wait, and write files of their own")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use vmetric::fleet::store::Store;
use vmetric::fleet::store::etcd::{Etcd, Settings};
use vmetric::io::outbound::{Endpoint, Rules};

use super::suite::PATIENCE;

/// Below the ports that the kernel gives to outgoing connections, so that a server that was killed finds its own again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// One server.
struct Node {
    client: u16,
    peer: u16,
    child: Option<Child>,
}

/// The servers. All are killed when it goes.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    nodes: Vec<Node>,
    quota: u64,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.nodes.len() {
            self.signal(at, "CONT");
            self.kill(at);
        }
    }
}

impl Cluster {
    /// Starts so many servers and waits until they are one. With a user `fleet` for the keys under `/fleet/`.
    pub fn start(count: usize, quota: u64) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let ports = ports(count * 2);
        let nodes = ports.chunks(2).map(|pair| Node { client: pair[0], peer: pair[1], child: None }).collect();
        let mut cluster = Cluster { folder, nodes, quota };
        (0..count).for_each(|at| cluster.run(at));
        cluster.until_whole(None);
        for (path, body) in [
            ("user/add", r#"{"name":"root","password":"of the test"}"#),
            ("role/add", r#"{"name":"root"}"#),
            ("user/grant", r#"{"user":"root","role":"root"}"#),
            ("user/add", r#"{"name":"fleet","password":"of the fleet"}"#),
            ("user/add", r#"{"name":"other","password":"of another"}"#),
            ("role/add", r#"{"name":"fleet"}"#),
            ("user/grant", r#"{"user":"fleet","role":"fleet"}"#),
            // "/fleet/" up to "/fleet0", read and write.
            ("role/grant", r#"{"name":"fleet","perm":{"permType":"READWRITE","key":"L2ZsZWV0Lw==","range_end":"L2ZsZWV0MA=="}}"#),
            ("enable", "{}"),
        ] {
            let (status, text) = cluster.say(0, &format!("/v3/auth/{path}"), body, None);
            assert_eq!(status, 200, "{path}: {text}");
        }
        cluster
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&mut self, at: usize) {
        let (name, file) = (|at: usize| format!("n{at}"), |name: &str| self.file(name).display().to_string());
        let all: Vec<String> =
            self.nodes.iter().enumerate().map(|(n, node)| format!("{}=http://127.0.0.1:{}", name(n), node.peer)).collect();
        let (client, peer) = (format!("https://127.0.0.1:{}", self.nodes[at].client), format!("http://127.0.0.1:{}", self.nodes[at].peer));
        let log = std::fs::File::options().create(true).append(true).open(self.file(&format!("n{at}.log"))).unwrap();
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", &name(at), "--data-dir", &file(&name(at)), "--log-level", "error"]);
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &all.join(",")]);
        etcd.args(["--cert-file", &file("server.pem"), "--key-file", &file("server.key"), "--trusted-ca-file", &file("ca.pem")]);
        etcd.args(["--client-cert-auth", "--quota-backend-bytes", &self.quota.to_string()]);
        let child = etcd.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.nodes[at].child = Some(child.unwrap_or_else(|e| panic!("etcd cannot be started: {e}; tests/run etcd installs it")));
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.nodes[at].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts one again.
    pub fn revive(&mut self, at: usize) {
        if self.nodes[at].child.is_none() {
            self.run(at);
        }
    }

    /// Any other signal.
    pub fn signal(&self, at: usize, signal: &str) {
        if let Some(child) = &self.nodes[at].child {
            let done = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
            assert!(done.success());
        }
    }

    /// Waits until every server that runs knows a leader, and all the same one.
    pub fn until_whole(&self, token: Option<&str>) -> usize {
        let began = vmetric::io::clock::monotonic();
        loop {
            let alive: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].child.is_some()).collect();
            let said: Vec<(u64, String, String)> = alive.iter().filter_map(|at| self.status(*at, token)).collect();
            let mut leaders: Vec<&String> = said.iter().map(|(_, _, leader)| leader).collect();
            leaders.dedup();
            if said.len() == alive.len() && leaders.len() == 1 && !leaders[0].is_empty() {
                let leads = said.iter().position(|(_, id, leader)| id == leader);
                if let Some(place) = leads {
                    return alive[place];
                }
            }
            let passed = vmetric::io::clock::monotonic() - began;
            assert!(passed < PATIENCE, "no cluster: {said:?}; logs in {}", self.folder.path().display());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Revision, own id, leader's id.
    fn status(&self, at: usize, token: Option<&str>) -> Option<(u64, String, String)> {
        let (status, text) = self.try_say(at, "/v3/maintenance/status", "{}", token)?;
        let field = |name: &str| text.split(&format!("\"{name}\":\"")).nth(1).and_then(|rest| rest.split('"').next()).map(str::to_string);
        (status == 200).then(|| (0, field("member_id").unwrap_or_default(), field("leader").unwrap_or_default()))
    }

    /// Asks one server as its administrator.
    pub fn say(&self, at: usize, path: &str, body: &str, token: Option<&str>) -> (u16, String) {
        self.try_say(at, path, body, token).unwrap_or_else(|| panic!("server {at} does not answer {path}"))
    }

    fn try_say(&self, at: usize, path: &str, body: &str, token: Option<&str>) -> Option<(u16, String)> {
        let (cert, key) = (self.file("client.pem"), self.file("client.key"));
        let rules = Rules::load(Some(&self.file("ca.pem")), Some((&cert, &key))).unwrap();
        let headers: Vec<(&str, &str)> = token.iter().map(|token| ("authorization", *token)).collect();
        smol::block_on(smol::future::or(
            async {
                let conn = Endpoint::parse(&self.endpoint(at)).unwrap().connect(&rules, Duration::from_secs(5)).await.ok()?;
                let answer = conn.post(path, &headers, body).await.ok()?;
                let status = answer.status;
                let (bytes, _) = answer.whole(1 << 20).await.ok()?;
                Some((status, String::from_utf8_lossy(&bytes).into_owned()))
            },
            async {
                smol::Timer::after(Duration::from_secs(10)).await;
                None
            },
        ))
    }

    /// The administrator's token.
    pub fn token(&self, at: usize) -> String {
        let (status, text) = self.say(at, "/v3/auth/authenticate", r#"{"name":"root","password":"of the test"}"#, None);
        assert_eq!(status, 200, "{text}");
        text.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap().to_string()
    }

    pub fn endpoint(&self, at: usize) -> String {
        format!("https://127.0.0.1:{}", self.nodes[at].client)
    }

    /// What Fleet is configured with.
    pub fn settings(&self) -> Settings {
        std::fs::write(self.file("password"), "of the fleet\n").unwrap();
        Settings {
            endpoints: (0..self.nodes.len()).map(|at| self.endpoint(at)).collect(),
            ca: Some(self.file("ca.pem")),
            cert: Some(self.file("client.pem")),
            key: Some(self.file("client.key")),
            user: Some("fleet".into()),
            password_file: Some(self.file("password")),
            prefix: "/fleet/".into(),
        }
    }

    /// The same as a file.
    pub fn configuration(&self) -> PathBuf {
        let settings = self.settings();
        let (file, path) = (self.file("fleet.yml"), |name: &str| self.file(name).display().to_string());
        let text = format!(
            "store:\n  etcd:\n    endpoints: [{}]\n    ca: {}\n    cert: {}\n    key: {}\n    user: fleet\n    password_file: {}\n    prefix: {}\n",
            settings.endpoints.join(", "),
            path("ca.pem"),
            path("client.pem"),
            path("client.key"),
            path("password"),
            settings.prefix
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    /// One more Fleet.
    pub fn open(&self) -> Rc<dyn Store> {
        Etcd::new(self.settings()).unwrap()
    }
}

/// Free ports that nobody is given by chance.
fn ports(count: usize) -> Vec<u16> {
    let seed = u16::from_le_bytes(vmetric::io::random::bytes());
    let width = PORTS.end - PORTS.start;
    let candidates = (0..width).map(|n| PORTS.start + (seed % width + n * 7) % width);
    let mut held = Vec::new();
    for port in candidates {
        held.extend(TcpListener::bind(("127.0.0.1", port)));
        if held.len() == count {
            return held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        }
    }
    panic!("no free ports");
}

/// A CA, a server's certificate, a client's; and another CA.
fn certificates(folder: &Path) {
    for (ca_name, leaves) in [("ca", &["server", "client", "named"][..]), ("stranger", &["stranger-client"][..])] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(format!("{ca_name}.pem")), ca.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for leaf in leaves.iter().copied() {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
            // A server's gateway calls the server with the server's own certificate.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            // And refuses a client with a CommonName, which it could not take for a user.
            params.distinguished_name = DistinguishedName::new();
            if leaf == "named" {
                params.distinguished_name.push(DnType::CommonName, "fleet");
            }
            std::fs::write(folder.join(format!("{leaf}.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
            std::fs::write(folder.join(format!("{leaf}.key")), key.serialize_pem()).unwrap();
        }
    }
}
