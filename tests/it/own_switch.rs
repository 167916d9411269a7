//! A Director switches itself while one of its agents is on trial and 200 others hold parked polls: it waits for the trial,
//! answers every poll, and all of them are back at the new version.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use miniserde::json;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use vmetric::director::commands::TokenView;
use vmetric::io::clock;
use vmetric::io::http::{Http, HttpConfig};
use vmetric::io::tls::{Pin, PinVerifier, client_config, parse_pin};
use vmetric::wire::agent_api::{AnswerWire, EnrollWire, EnrolledWire, PROTOCOL, ReportWire};

use crate::agent::{said, text};
use crate::director_bench::{FakeAgent, agent_file, now};
use crate::own_update::{Own, fleet, variant};

const PARKED: usize = 200;
const PATIENCE: Duration = Duration::from_secs(120);

fn http(pin: Pin) -> Http {
    Http::new(HttpConfig { pins: vec![pin], proxy: None, user_agent: "test", wake_fd: None, tick: || {} }).unwrap()
}

fn enroll(own: &Own, pin: Pin, token: &str, name: &str) -> FakeAgent {
    let url = format!("https://{}", own.listen);
    let wire = EnrollWire {
        protocol: PROTOCOL,
        token: token.into(),
        hostname: name.into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        version: "0.9.0".into(),
        ..Default::default()
    };
    let http = http(pin);
    let reply = http.post_json(&format!("{url}/agent/v1/enroll"), None, &json::to_string(&wire), 4096, PATIENCE).unwrap();
    let body = String::from_utf8(reply.body).unwrap();
    let enrolled: EnrolledWire = json::from_str(&body).unwrap_or_else(|_| panic!("{body}"));
    let report = ReportWire {
        protocol: PROTOCOL,
        agent_id: enrolled.agent_id,
        hostname: name.into(),
        os: "linux".into(),
        architecture: "amd64".into(),
        version: "0.9.0".into(),
        running: "factory".into(),
        running_as: "factory".into(),
        running_sha256: "11".repeat(32),
        step: "idle".into(),
        clock: "ok".into(),
        park_s: 55,
        ..Default::default()
    };
    FakeAgent { http, url, credential: enrolled.credential, report }
}

/// What all of them have seen.
#[derive(Default)]
struct Seen {
    answers: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// One poll after the other, on a connection of its own as long as it lasts.
fn poll_on(address: SocketAddr, tls: &Arc<ClientConfig>, agent: &FakeAgent, seen: &Seen) {
    let body = json::to_string(&agent.report);
    let head =
        format!("POST /agent/v1/poll HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nauthorization: Bearer {}", body.len(), agent.credential);
    let request = format!("{head}\r\ncontent-type: application/json\r\n\r\n{body}");
    while !seen.over.load(Ordering::SeqCst) {
        // Between two programs nobody listens.
        let Ok(socket) = TcpStream::connect(address) else {
            thread::park_timeout(Duration::from_millis(50));
            continue;
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let session = ClientConnection::new(tls.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        while stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).is_ok() {
            let Some((status, answer)) = hear(&mut stream) else { break };
            let good = status == 200 && json::from_str::<AnswerWire>(&answer).is_ok();
            if !good && !seen.over.load(Ordering::SeqCst) {
                seen.wrong.lock().unwrap().push(format!("{status} {answer}"));
            }
            seen.answers.fetch_add(1, Ordering::SeqCst);
            // As an agent does, whose pace keeps it from asking in a circle.
            thread::park_timeout(Duration::from_secs(1));
        }
    }
}

/// An answer; nothing when the connection ended without one.
fn hear(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> Option<(u16, String)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head[9..12].parse().unwrap(), String::from_utf8(body).unwrap()))
}

fn parked(own: &Own) -> usize {
    own.status().map_or(0, |s| text(&s, "parked").parse().unwrap_or(0))
}

#[test]
fn a_switch_waits_for_a_trial_answers_200_parked_polls_and_has_them_all_back() {
    let fleet = fleet(&[("2.0.0", &variant("two"))]);
    fleet.bench.write("vmetric-agent", &agent_file("1.0.0"));
    fleet.bench.good(&format!("{} --now {}", crate::release_bench::add_line("1.0.0"), now()));
    fleet.publish();
    let mut own = Own::enrolled(&fleet);
    own.start(false);
    let status = own.wait("contact", |s| text(s, "own.last_contact") != "null");
    let pin = parse_pin(&text(&status, "pin")).unwrap();
    let made = said(&own.run(&["token", "create", "--uses", &(PARKED + 1).to_string(), "--json"]));
    let token = json::from_str::<TokenView>(made.trim()).unwrap_or_else(|_| panic!("{made}")).token;

    // One is on trial, and has not checked itself yet.
    let mut tried = enroll(&own, pin, &token, "tried");
    // The mirror keeps what enrolled platforms may need.
    let brought = own.run(&["mirror", "--file", &fleet.bench.path("public").display().to_string()]);
    assert!(brought.status.success(), "{}", said(&brought));
    let assigned = own.run(&["assign", "--agent", &tried.report.agent_id, "--version", "1.0.0"]);
    assert!(assigned.status.success(), "{}", said(&assigned));
    let order = tried.report().order.expect("an order");
    tried.accept(&order);
    ["downloading", "staged", "switching"].into_iter().for_each(|step| drop(tried.step(step)));
    tried.on_trial(&order);
    let nonce = tried.report.trial_nonce.take();
    tried.report();

    let (seen, tls) = (Arc::new(Seen::default()), client_config(Arc::new(PinVerifier::new(vec![pin]))));
    let address: SocketAddr = own.listen.parse().unwrap();
    let agents: Vec<FakeAgent> = (0..PARKED).map(|n| enroll(&own, pin, &token, &format!("parked-{n}"))).collect();
    let threads: Vec<_> = agents
        .into_iter()
        .map(|agent| {
            let (seen, tls) = (seen.clone(), tls.clone());
            thread::spawn(move || poll_on(address, &tls, &agent, &seen))
        })
        .collect();
    own.wait("parked polls", |_| parked(&own) == PARKED);

    // Fleet orders; the Director is ready, and waits for its agent with the end of that wait.
    own.order("2.0.0");
    let waits = own.wait("the wait for the trial", |s| text(s, "own.code") == "agents_on_trial");
    assert!(text(&waits, "own.detail").contains("1 agents are on trial") && text(&waits, "own.detail").contains("until 20"));
    assert_eq!((text(&waits, "own.running"), parked(&own)), ("factory".into(), PARKED), "nothing stops meanwhile");

    // The agent is well: it gets its acknowledgement from the Director that waits.
    tried.report.trial_nonce = nonce.clone();
    assert_eq!(tried.report().acknowledged, nonce);
    tried.ends(&order, "updated", "result-1");
    assert_eq!(tried.report().result_taken.as_deref(), Some("result-1"));
    let before = seen.answers.load(Ordering::SeqCst);
    let status = own.ended("updated", "2.0.0");
    assert_eq!(text(&status, "own.running"), "a");
    own.wait("all of them back", |_| parked(&own) == PARKED);
    let answered = seen.answers.load(Ordering::SeqCst) - before;
    assert!(answered >= PARKED, "{answered} of {PARKED} parked polls were answered at the switch");
    assert_eq!(*seen.wrong.lock().unwrap(), Vec::<String>::new());
    assert!(own.activity().iter().any(|e| e.code == "confirmed" && e.agent == tried.report.agent_id));

    seen.over.store(true, Ordering::SeqCst);
    drop(own);
    let end = clock::monotonic() + PATIENCE;
    for thread in threads {
        while !thread.is_finished() {
            assert!(clock::monotonic() < end, "a poller does not end");
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}
