//! The Director's HTTPS side without sockets: requests in, answers out.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use miniserde::json;
use smol::LocalExecutor;
use ureq_proto::http::{HeaderMap, HeaderName, HeaderValue};
use vmetric::core::hex;
use vmetric::director::pki::{Names, SiteCa};
use vmetric::director::refresh;
use vmetric::director::service::Front;
use vmetric::director::site::{Site, load};
use vmetric::director::store::Store;
use vmetric::director::tree::{DOWNLOADS_MAX, Entry, Tree};
use vmetric::io::clock;
use vmetric::io::serve::{Body, Request, Response, Service};
use vmetric::wire::agent_api::{AnswerWire, BODY_MAX, EnrollWire, EnrolledWire, ErrorWire, PROTOCOL, ReportWire};

pub const ARTIFACT: &str = "/release/targets/vmetric-agent/1.0.0/linux-amd64/vmetric-agent";

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub site: Rc<Site>,
    executor: LocalExecutor<'static>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::over(tempfile::tempdir().unwrap())
    }

    /// A Director over what is in the folder already.
    pub fn over(folder: tempfile::TempDir) -> Bench {
        let path = folder.path().join("director.redb");
        let store = Store::open(&path).unwrap();
        let registry = load(&store, clock::unix()).unwrap();
        let ca = SiteCa::open_or_create(&folder.path().join("pki"), &Names::default(), clock::unix()).unwrap();
        let file = folder.path().join("artifact");
        File::create(&file).and_then(|mut f| std::io::Write::write_all(&mut f, b"0123456789")).unwrap();
        let entry = Entry { file, length: 10, sha256: hex::encode(&hex::sha256(b"0123456789")), artifact: true };
        let mut tree = Tree { timestamp_version: 3, ..Tree::default() };
        tree.entries.insert("metadata/timestamp.json".into(), Entry { artifact: false, ..entry.clone() });
        tree.entries.insert(ARTIFACT.strip_prefix("/release/").unwrap().into(), entry);
        let site = Site::new(registry, store, ca, tree);
        let executor = LocalExecutor::new();
        executor.spawn(site.store.clone().commit_forever()).detach();
        Bench { folder, site, executor }
    }

    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        smol::block_on(self.executor.run(future))
    }

    /// Runs it until it waits for something.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> smol::Task<T> {
        let task = self.executor.spawn(future);
        while self.executor.try_tick() {}
        task
    }

    /// The Director, ended without a word and started again.
    pub fn restart(self) -> Bench {
        let Bench { folder, site, executor } = self;
        drop(executor);
        drop(site);
        Bench::over(folder)
    }

    pub fn request(&self, method: &str, path: &str, credential: &str, headers: &[(&'static str, &str)], body: Vec<u8>) -> Request {
        let mut map = HeaderMap::new();
        if !credential.is_empty() {
            map.insert("authorization", HeaderValue::from_str(&format!("Bearer {credential}")).unwrap());
        }
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let peer = Some("192.0.2.1:50000".parse().unwrap());
        Request { method: method.into(), path: path.into(), query: None, headers: map, body, peer, known: Default::default() }
    }

    pub fn call(&self, request: Request) -> Response {
        self.wait(Front(self.site.clone()).call(request))
    }

    pub fn get(&self, path: &str, credential: &str, headers: &[(&'static str, &str)]) -> Response {
        self.call(self.request("GET", path, credential, headers, Vec::new()))
    }

    pub fn post(&self, path: &str, credential: &str, body: &[u8]) -> (u16, String) {
        let response = self.call(self.request("POST", path, credential, &[], body.to_vec()));
        let status = response.status;
        (status, text(response))
    }

    pub fn enroll(&self, hostname: &str) -> (EnrolledWire, ReportWire) {
        self.site.registry.borrow_mut().create_token("token", 1, 60, clock::unix()).unwrap();
        let wire = EnrollWire { protocol: PROTOCOL, token: "token".into(), hostname: hostname.into(), ..blank() };
        let (status, body) = self.post("/agent/v1/enroll", "", json::to_string(&wire).as_bytes());
        assert_eq!(status, 200, "{body}");
        let enrolled: EnrolledWire = json::from_str(&body).unwrap();
        let report = ReportWire { protocol: PROTOCOL, agent_id: enrolled.agent_id.clone(), park_s: 30, ..blank() };
        (enrolled, report)
    }
}

/// Both derives of miniserde bring a `default`; this is the usual one.
pub fn blank<T: Default>() -> T {
    Default::default()
}

pub fn text(response: Response) -> String {
    match response.body {
        Body::Empty | Body::Stream(_) => String::new(),
        Body::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        Body::File { mut file, offset, length, .. } => {
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).unwrap();
            let mut out = String::new();
            file.take(length).read_to_string(&mut out).unwrap();
            out
        }
    }
}

pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v.as_str())
}

pub fn code(body: &str) -> String {
    json::from_str::<ErrorWire>(body).map_or_else(|_| format!("no error: {body}"), |e| e.code)
}

#[test]
fn files_with_ranges_and_tags() {
    let bench = Bench::new();
    let (agent, _) = bench.enroll("a");
    let whole = bench.get(ARTIFACT, &agent.credential, &[]);
    let tag = header(&whole, "etag").to_string();
    assert_eq!((whole.status, header(&whole, "accept-ranges")), (200, "bytes"));
    assert_eq!(text(whole), "0123456789");

    let part = bench.get(ARTIFACT, &agent.credential, &[("range", "bytes=4-"), ("if-range", &tag)]);
    assert_eq!((part.status, header(&part, "content-range")), (206, "bytes 4-9/10"));
    assert_eq!(text(part), "456789");
    let other = bench.get(ARTIFACT, &agent.credential, &[("range", "bytes=4-"), ("if-range", "\"other\"")]);
    assert_eq!((other.status, text(other).len()), (200, 10), "a part of another file is not continued");
    let beyond = bench.get(ARTIFACT, &agent.credential, &[("range", "bytes=10-")]);
    assert_eq!((beyond.status, header(&beyond, "content-range")), (416, "bytes */10"));
    let same = bench.get(ARTIFACT, &agent.credential, &[("if-none-match", &format!("\"x\", {tag}"))]);
    assert_eq!((same.status, header(&same, "etag"), same.body.len()), (304, tag.as_str(), 0));
    let head = bench.call(bench.request("HEAD", ARTIFACT, &agent.credential, &[], Vec::new()));
    assert_eq!((head.status, head.body.len()), (200, 10));
}

#[test]
fn only_what_the_index_names_is_served() {
    let bench = Bench::new();
    let (agent, _) = bench.enroll("a");
    assert_eq!(bench.get("/release/metadata/timestamp.json", "", &[]).status, 200, "metadata is no secret");
    assert_eq!(bench.get(ARTIFACT, "", &[]).status, 401);
    for path in [
        "/release/metadata/../../pki/ca.key",
        "/release/metadata/%2e%2e/%2e%2e/pki/ca.key",
        "/release/targets/../metadata/timestamp.json",
        "/release//metadata/timestamp.json",
        "/release/metadata\\timestamp.json",
        "/release/metadata/",
        "/release/",
        "/release/director.redb",
        "/release/metadata/timestamp.json\0",
        "/pki/ca.key",
        "*",
        "",
    ] {
        assert_eq!(bench.get(path, &agent.credential, &[]).status, 404, "{path}");
    }
    assert_eq!(bench.call(bench.request("DELETE", ARTIFACT, &agent.credential, &[], Vec::new())).status, 404);
    assert_eq!(bench.get("/agent/v1/poll", &agent.credential, &[]).status, 405);
    assert_eq!(bench.get("/healthz", "", &[]).status, 200);
    assert_eq!(bench.get("/readyz", "", &[]).status, 200);
    bench.site.stop();
    assert_eq!(bench.get("/readyz", "", &[]).status, 503);
}

#[test]
fn polls_are_served_while_the_mirror_is_verified_and_nothing_is_decided_by_it() {
    let bench = Bench::new();
    let (agent, report) = bench.enroll("a");
    let whole = bench.site.tree.borrow().clone();
    let mut entries = whole.entries.clone();
    entries.retain(|name, _| name.starts_with("metadata/"));
    *bench.site.tree.borrow_mut() = Arc::new(Tree { timestamp_version: 3, entries, checking: true, ..Tree::default() });

    assert_eq!(bench.post("/agent/v1/report", &agent.credential, json::to_string(&report).as_bytes()).0, 200);
    assert_eq!(bench.get("/release/metadata/timestamp.json", "", &[]).status, 200);
    bench.site.registry.borrow_mut().create_token("another", 1, 60, clock::unix()).unwrap();
    for (path, secret) in [(ARTIFACT, &*agent.credential), ("/dl/agent/linux/amd64", "another"), ("/readyz", "")] {
        let later = bench.get(path, secret, &[]);
        let pause: u64 = header(&later, "retry-after").parse().unwrap();
        assert_eq!((later.status, (2..=6).contains(&pause)), (503, true), "{path}");
        assert_eq!(code(&text(later)), "mirror_checking", "{path}");
    }
    assert_eq!(bench.get(ARTIFACT, "", &[]).status, 401, "who is nobody does not learn even that");
    let site = bench.site.clone();
    let known = bench.spawn(async move { refresh::known(&site).await });
    assert!(!known.is_finished(), "a command waits for it");

    *bench.site.tree.borrow_mut() = whole;
    bench.site.refreshed.ring();
    bench.wait(known).unwrap();
    assert_eq!(bench.get(ARTIFACT, &agent.credential, &[]).status, 200);
}

#[test]
fn a_stop_waits_for_the_answers_that_are_on_their_way() {
    let bench = Bench::new();
    let (agent, report) = bench.enroll("a");
    let body = json::to_string(&report).into_bytes();
    let poll = Front(bench.site.clone()).call(bench.request("POST", "/agent/v1/poll", &agent.credential, &[], body));
    let poll = bench.spawn(poll);
    assert_eq!((bench.site.parked(), bench.site.answering.get()), (1, 0));
    bench.site.stop();
    let answer = bench.wait(poll);
    assert_eq!((answer.status, bench.site.parked(), bench.site.answering.get()), (200, 0, 1));
    drop(answer);
    assert_eq!(bench.site.answering.get(), 0);
}

#[test]
fn downloads_are_limited_until_they_end() {
    let bench = Bench::new();
    let (agent, _) = bench.enroll("a");
    let mut held: Vec<Response> = (0..DOWNLOADS_MAX).map(|_| bench.get(ARTIFACT, &agent.credential, &[])).collect();
    assert!(held.iter().all(|r| r.status == 200));
    let refused = bench.get(ARTIFACT, &agent.credential, &[]);
    let pause: u64 = header(&refused, "retry-after").parse().unwrap();
    assert_eq!((refused.status, (10..=30).contains(&pause)), (429, true));
    assert_eq!(code(&text(refused)), "downloads_busy");
    assert_eq!(bench.get("/release/metadata/timestamp.json", "", &[]).status, 200, "metadata is never throttled");
    held.pop();
    assert_eq!(bench.get(ARTIFACT, &agent.credential, &[]).status, 200, "one ended, one may begin");
}

#[test]
fn hostile_agents() {
    let bench = Bench::new();
    let (agent, report) = bench.enroll("a");
    let (other, _) = bench.enroll("b");
    let send = |credential: &str, body: &[u8]| {
        let (status, body) = bench.post("/agent/v1/report", credential, body);
        (status, if status == 200 { String::new() } else { code(&body) })
    };
    let good = json::to_string(&report);
    assert_eq!(send(&agent.credential, good.as_bytes()), (200, String::new()));
    assert_eq!(send("", good.as_bytes()), (401, "credential_missing".into()));
    assert_eq!(send("forged", good.as_bytes()), (401, "credential_unknown".into()));
    assert_eq!(send(&other.credential, good.as_bytes()), (403, "agent_mismatch".into()));
    let returned = bench.site.ca.issue("stranger-1", clock::unix(), None);
    assert_eq!(send(&returned, good.as_bytes()), (403, "agent_mismatch".into()));
    for bad in [&b""[..], b"{", b"null", b"[]", b"{\"protocol\":1}", b"\xff\xfe", b"{\"protocol\":-1}"] {
        assert_eq!(send(&agent.credential, bad), (400, "bad_request".into()), "{bad:?}");
    }
    let newer = ReportWire { protocol: 2, ..report.clone() };
    assert_eq!(send(&agent.credential, json::to_string(&newer).as_bytes()), (400, "protocol_unknown".into()));

    let front = Front(bench.site.clone());
    assert_eq!(front.body_limit("POST", "/agent/v1/poll"), BODY_MAX);
    assert_eq!(front.body_limit("GET", "/agent/v1/poll") + front.body_limit("POST", "/release/x"), 0);

    let long = ReportWire {
        hostname: format!("\u{1b}[31m{}", "x".repeat(10_000)),
        detail: "\r\nfake log line".into(),
        running: "a\u{202e}b".into(),
        bytes_done: u64::MAX,
        generation: u64::MAX,
        until: Some(u64::MAX),
        time: u64::MAX,
        park_s: u64::MAX,
        ..report.clone()
    };
    assert_eq!(send(&agent.credential, json::to_string(&long).as_bytes()).0, 200);
    let view = bench.site.registry.borrow().agents_view(clock::unix());
    let shown = json::to_string(&view);
    assert!(!shown.contains("\\u001b") && !shown.contains("\\r") && !shown.contains('\u{202e}'), "{shown}");
    assert!(view.agents[0].hostname.len() <= 128 && view.agents[0].detail == "  fake log line");

    let statuses: Vec<u16> = (0..300).map(|_| send(&agent.credential, good.as_bytes()).0).collect();
    assert!(statuses.contains(&200) && statuses.contains(&429), "a busy loop is slowed down");
    assert_eq!(send(&other.credential, json::to_string(&ReportWire { agent_id: other.agent_id.clone(), ..report }).as_bytes()).0, 200);
}

#[test]
fn a_newer_poll_replaces_the_older_and_a_closed_connection_leaves() {
    let bench = Bench::new();
    let (agent, report) = bench.enroll("a");
    let front = Front(bench.site.clone());
    let poll = || front.call(bench.request("POST", "/agent/v1/poll", &agent.credential, &[], json::to_string(&report).into_bytes()));
    let answers: Rc<RefCell<Vec<&str>>> = Rc::default();
    let spawn = |name: &'static str| {
        let (poll, answers) = (poll(), answers.clone());
        bench.executor.spawn(async move {
            let response = poll.await;
            answers.borrow_mut().push(name);
            assert_eq!(response.status, 200);
            assert!(json::from_str::<AnswerWire>(&text(response)).unwrap().order.is_none());
        })
    };
    let first = spawn("first");
    while bench.executor.try_tick() {}
    assert_eq!(bench.site.parked(), 1);
    let second = spawn("second");
    bench.wait(first);
    assert_eq!((bench.site.parked(), answers.borrow().as_slice()), (1, &["first"][..]));
    bench.wait(second.cancel());
    assert_eq!(bench.site.parked(), 0, "the client left");
}

#[test]
fn what_was_promised_is_on_the_disk() {
    let bench = Bench::new();
    let (agent, report) = bench.enroll("a");
    // No orderly stop: the file as it is when the answer arrives is what a restart finds.
    let result = vmetric::wire::agent_api::ResultWire { id: "r1".into(), outcome: "updated".into(), ..blank() };
    let (_, body) =
        bench.post("/agent/v1/report", &agent.credential, json::to_string(&ReportWire { result: Some(result), ..report }).as_bytes());
    let answer: AnswerWire = json::from_str(&body).unwrap();
    assert_eq!(answer.result_taken.as_deref(), Some("r1"));
    let copy = bench.folder.path().join("copy.redb");
    std::fs::copy(bench.folder.path().join("director.redb"), &copy).unwrap();
    let store = Store::open(&copy).unwrap();
    let registry = load(&store, clock::unix()).unwrap();
    assert_eq!(registry.agents[&agent.agent_id].result_id, "r1");
    assert_eq!(registry.issuer, agent.issuer);
}
