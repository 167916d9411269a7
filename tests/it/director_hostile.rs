//! Peers that mean harm, against the real Director process: it says why, keeps serving everybody else, and stays small.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use miniserde::json;
use vmetric::director::records::Event;

use crate::director_bench::{FakeAgent, Site};
use crate::serve::{Raw, raw};

/// What hostile peers may add to the Director's highest memory, kB. The largest single thing it keeps of one is a report.
pub const MORE_KB: u64 = 24 * 1024;

impl Site {
    fn address(&self) -> SocketAddr {
        self.url.strip_prefix("https://").unwrap().parse().unwrap()
    }

    pub fn hostile(&self) -> Raw {
        raw(self.address(), self.pin)
    }

    /// Codes that the activity knows of refused connections.
    fn refusals(&self) -> String {
        let events = self.good("activity --json --limit 1000");
        let events = events.lines().map(|l| json::from_str::<Event>(l).unwrap());
        events.filter(|e| e.code == "connection_refused" || e.code == "access_refused").map(|e| e.detail + "\n").collect()
    }

    /// The highest memory so far, kB.
    pub fn peak_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn head(agent: &FakeAgent, path: &str, more: &str) -> String {
    format!("POST /agent/v1/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{more}\r\n", agent.credential)
}

/// Writes until the peer has had enough, or to the end; how much it took.
pub fn pour(raw: &mut Raw, piece: &[u8], pieces: usize) -> usize {
    (0..pieces).take_while(|_| raw.0.write_all(piece).and_then(|()| raw.0.flush()).is_ok()).count() * piece.len()
}

#[test]
fn giant_endless_and_pipelined_requests() {
    let site = Site::new();
    let agent = site.enroll("edge");
    agent.report();
    let before = site.peak_kb();

    // A report that says that it has a gigabyte is refused by its head.
    let mut giant = site.hostile();
    giant.say(head(&agent, "report", "content-length: 1073741824\r\n"));
    let (status, body) = giant.status();
    assert!(status == 413 && body.contains("body_too_large"), "{body}");
    // One that does not say so is refused as soon as it is too long, however much still comes.
    let mut endless = site.hostile();
    endless.say(head(&agent, "report", "transfer-encoding: chunked\r\n"));
    let taken = pour(&mut endless, format!("10000\r\n{}\r\n", "x".repeat(0x10000)).as_bytes(), 1 << 14);
    assert!(taken < 64 << 20, "{taken} bytes of a gigabyte were taken");
    let mut long = site.hostile();
    long.say("GET / HTTP/1.1\r\nhost: x\r\n");
    let taken = pour(&mut long, format!("x-a: {}\r\n", "y".repeat(1_000)).as_bytes(), 1 << 16);
    assert!(taken < 64 << 20, "{taken} bytes of headers were taken");

    // A thousand requests in one go: answered in turn, one after the other.
    let mut piped = site.hostile();
    let thousand = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    piped.say(thousand);
    assert!((0..1_000).all(|_| piped.status() == (200, "ok\n".into())));

    // Requests behind a parked poll wait in the kernel, not in our memory.
    let mut parked = site.hostile();
    let body = json::to_string(&agent.report);
    parked.say(head(&agent, "poll", &format!("content-length: {}\r\n", body.len())) + &body);
    parked.0.sock.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    pour(&mut parked, &[b'x'; 16_000], 1 << 12);

    assert!(agent.report().order.is_none(), "others are served");
    let more = site.peak_kb() - before;
    assert!(more < MORE_KB, "{more} kB more");
    let said = site.refusals();
    for code in ["body_too_large", "headers_too_large"] {
        assert!(said.contains(code), "{code} in {said}");
    }
}

#[test]
fn floods_of_connections_that_never_become_agents() {
    let site = Site::new();
    let agent = site.enroll("edge");
    agent.report();
    let before = site.peak_kb();
    let connect = || TcpStream::connect(site.address()).unwrap();

    // Plain HTTP is told what to do, in its own language.
    let mut plain = connect();
    plain.write_all(b"GET /dl/agent/linux/amd64 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    plain.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("https://"), "{said}");
    // Garbage gets an alert at most.
    let mut garbage = connect();
    garbage.write_all(&[0x16, 3, 1, 0x40, 0xff, 9, 9, 9]).and_then(|()| garbage.write_all(&[7; 40_000])).unwrap_or(());
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest);
    assert!(rest.len() < 64, "{rest:?}");
    // Every shape of a first record: what the library makes of it must not be more than an error.
    for kind in [0x14_u8, 0x15, 0x16, 0x17, 0x18, 0x80] {
        for length in [0_u16, 1, 4, 5, 16_384, 16_639, 0xffff] {
            for message in [1_u8, 2, 9, 20, 24, 255] {
                let mut garbage = connect();
                let mut bytes = vec![kind, 3, 1];
                bytes.extend(length.to_be_bytes());
                bytes.extend([message, 0, 0, 3]);
                bytes.resize(bytes.len() + usize::from(length.min(300)) + usize::from(message), message);
                let _ = garbage.write_all(&bytes);
            }
        }
    }

    // More half-open handshakes than there are places for arrivals: agents still come in.
    let half_open: Vec<TcpStream> = (0..600).map(|_| connect()).collect();
    let http = FakeAgent { http: site.http(), url: site.url.clone(), credential: agent.credential.clone(), report: agent.report.clone() };
    assert!(http.report().order.is_none(), "an agent comes in past the flood");
    drop(half_open);

    // Guessed credentials: each costs the guesser a handshake.
    for guess in 0..50 {
        let mut raw = site.hostile();
        raw.say(format!(
            "POST /agent/v1/report HTTP/1.1\r\nhost: x\r\nauthorization: Bearer v1.{guess}.00\r\ncontent-length: 2\r\n\r\n{{}}"
        ));
        let (head, _) = raw.hear();
        assert!(head.contains(" 401 ") && head.contains("connection: close") && head.contains("retry-after"), "{head}");
        raw.ended();
    }
    assert!(agent.report().order.is_none());
    let more = site.peak_kb() - before;
    assert!(more < MORE_KB, "{more} kB more");
    let said = site.refusals();
    for code in ["plain_http", "handshake_failed", "credential_unknown"] {
        assert!(said.contains(code), "{code} in {said}");
    }
    assert!(said.lines().count() < 20, "a flood is a few lines: {said}");
}

#[test]
fn no_path_leaves_the_release_tree() {
    let site = Site::new();
    let agent = site.enroll("edge");
    let paths = [
        "/release/../director.redb",
        "/release/%2e%2e/director.redb",
        "/release/metadata/..%2f..%2fpki%2fca.key",
        "/release/metadata/%2e%2e/%2e%2e/pki/ca.key",
        "/release//etc/passwd",
        "/release/metadata\\..\\..\\pki\\ca.key",
        "/release/metadata/timestamp.json%00.txt",
        "/release/metadata/",
        "/release/metadata/./timestamp.json",
        "/release/METADATA/timestamp.json",
        "/release/targets/../metadata/timestamp.json",
        "/etc/passwd",
        "/agent/v1/../../etc/passwd",
    ];
    // A link in the mirror's folder is not in the index either.
    std::os::unix::fs::symlink("/etc/passwd", site.state().join("release/metadata/passwd")).unwrap();
    for path in paths.into_iter().chain(["/release/metadata/passwd"]) {
        let mut raw = site.hostile();
        raw.say(format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", agent.credential));
        let (status, body) = raw.status();
        assert!(matches!(status, 400 | 404) && body.contains("\"code\""), "{path}: {status} {body}");
    }
    // Bytes that no path may hold end the request.
    for path in ["/release/\0", "/release/\x01x"] {
        let mut raw = site.hostile();
        raw.say(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert_eq!(raw.status().0, 400, "{path:?}");
    }
    let mut raw = site.hostile();
    raw.say("GET /release/metadata/timestamp.json HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(raw.status().0, 200);
}

#[test]
fn an_agent_that_lies_faster_than_it_can_be_heard() {
    let site = Site::new();
    let (mut liar, honest) = (site.enroll("liar"), site.enroll("honest"));
    honest.report();
    let before = site.peak_kb();
    let mut refused = 0;
    for i in 0..400_u64 {
        liar.report.version = format!("{i}.{}", "9".repeat(3_000));
        liar.report.running_sha256 = format!("{i:064x}");
        liar.report.detail = "\u{202e}\u{7}".repeat(500);
        liar.report.generation = u64::MAX - i;
        liar.report.bytes_done = u64::MAX;
        liar.report.until = Some(u64::MAX);
        liar.report.step = ["downloading", "idle", "trial", "\u{0}"][i as usize % 4].into();
        match liar.send("report") {
            (200, _) => {}
            (429, body) => {
                assert!(body.contains("throttled"), "{body}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0, "nobody may ask 400 times at once");
    assert!(honest.report().order.is_none(), "others are heard at once");
    let view = site.view(&liar);
    assert!(view.version.len() <= 128 && !view.detail.contains('\u{202e}'), "{view:?}");
    let more = site.peak_kb() - before;
    assert!(more < MORE_KB, "{more} kB more");
    // The next order is above whatever it says; there is nothing above the highest number, and that harms nobody else.
    site.good("assign --all --version 2.0.0 --max-in-flight 100%");
    assert!(site.good("agents").contains("honest"));
}

#[test]
fn a_flood_of_key_updates_ends_its_own_connection_only() {
    let site = Site::new();
    let agent = site.enroll("edge");
    agent.report();
    let mut raw = site.hostile();
    raw.say("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(raw.status().0, 200);
    // Each asks for an answer that is never read.
    raw.0.sock.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let poured = (0..200_000).take_while(|_| raw.0.conn.refresh_traffic_keys().is_ok() && raw.0.flush().is_ok()).count();
    let mut rest = [0; 16];
    let ended =
        matches!(raw.0.read(&mut rest), Ok(0)) || poured < 200_000 || raw.0.flush().is_err_and(|e| e.kind() != ErrorKind::Interrupted);
    assert!(ended || poured == 200_000);
    assert!(agent.report().order.is_none(), "others are served");
}
