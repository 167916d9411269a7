//! The HTTPS server against raw clients: every limit, every odd peer.

mod park;
pub mod site;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use vmetric::io::serve::Limits;

pub use site::{FILE_BYTES, NOW, PATIENCE, Raw, Seen, Site, file_content, raw, raw_with};

pub fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::start();
    let mut raw = site.raw();
    raw.say(format!("{}{}{}", post("/echo", "one"), get("/who?a=b"), post("/echo", "three")));
    assert_eq!(raw.status(), (200, "one".into()));
    assert_eq!(raw.status(), (200, "GET Some(\"a=b\") None".into()));
    assert_eq!(raw.status(), (200, "three".into()));
    assert_eq!(site.peers.lock().unwrap().len(), 1);
}

#[test]
fn bytes_that_come_while_parked_are_the_next_request() {
    let site = Site::start();
    let mut raw = site.raw();
    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    let next = post("/echo", &"y".repeat(9_000));
    let (first, second) = next.split_at(5_000);
    raw.say(first);
    raw.say(second);
    site.events.send_blocking("event".into()).unwrap();
    assert_eq!(raw.status(), (200, "event".into()));
    assert_eq!(raw.status(), (200, "y".repeat(9_000)));
}

#[test]
fn more_than_may_wait_stays_in_the_socket_and_is_not_lost() {
    let site = Site::start();
    let mut raw = site.raw();
    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    for i in 0..5 {
        raw.say(post("/big", &i.to_string().repeat(15_000)));
    }
    site.events.send_blocking("event".into()).unwrap();
    assert_eq!(raw.status().1, "event");
    for i in 0..5 {
        assert_eq!(raw.status().1, i.to_string().repeat(15_000));
    }
}

#[test]
fn a_parked_call_is_dropped_when_the_client_leaves() {
    let site = Site::start();
    // In order, with close_notify.
    let mut raw = site.raw();
    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    raw.0.conn.send_close_notify();
    raw.0.flush().unwrap();
    site.expect(Seen::Dropped);
    // Without a word.
    let mut raw = site.raw();
    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    drop(raw.0.sock);
    site.expect(Seen::Dropped);
}

#[test]
fn keys_change_while_parked() {
    let site = Site::start();
    let mut raw = site.raw();
    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    for _ in 0..3 {
        raw.0.conn.refresh_traffic_keys().unwrap();
        raw.0.flush().unwrap();
    }
    site.events.send_blocking("event".into()).unwrap();
    assert_eq!(raw.status(), (200, "event".into()));
    raw.say(post("/echo", "still here"));
    assert_eq!(raw.status(), (200, "still here".into()));
}

#[test]
fn bodies_come_in_chunks_and_after_100_continue() {
    let site = Site::start();
    let mut raw = site.raw();
    raw.say("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n");
    raw.say("1\r\n \r\n5\r\nworld\r\n0\r\n\r\n");
    assert_eq!(raw.status(), (200, "hello world".into()));
    raw.say("POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    assert_eq!(raw.status(), (100, String::new()));
    raw.say("body");
    assert_eq!(raw.status(), (200, "body".into()));
    raw.say("POST /echo HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(raw.status(), (200, String::new()), "neither length nor coding: no body");
    raw.say("GET /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(raw.status(), (200, "body".into()), "the body of a GET is not the next request");
}

#[test]
fn head_and_empty_answers_have_no_body() {
    let site = Site::start();
    let mut raw = site.raw();
    raw.say("HEAD /file HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut head = [0; 17];
    raw.0.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK\r\n");
    let mut rest = String::new();
    while !rest.ends_with("\r\n\r\n") {
        let mut byte = [0];
        raw.0.read_exact(&mut byte).unwrap();
        rest.push(byte[0] as char);
    }
    assert!(rest.contains(&format!("content-length: {FILE_BYTES}\r\n")), "{rest}");
    raw.say(get("/empty"));
    let (head, _) = raw.hear();
    assert!(head.starts_with("HTTP/1.1 204 ") && !head.contains("content-length"), "{head}");
    raw.say("GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let (head, _) = raw.hear();
    assert!(head.contains("connection: close\r\n"));
    raw.ended();
}

#[test]
fn what_cannot_be_read_is_refused_with_its_code() {
    let site = Site::start();
    let long = "a".repeat(9_000);
    let lines = "a: b\r\n".repeat(200);
    let cases: [(String, u16, &str); 16] = [
        ("hello\r\n\r\n".into(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, "bad_host"),
        ("GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n".into(), 400, "bad_host"),
        ("GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n".into(), 400, "bad_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, "http_version"),
        (format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}"), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n"), 431, "headers_too_large"),
        ("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 16385\r\n\r\n".into(), 413, "body_too_large"),
        ("POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 16385\r\n\r\n".into(), 413, "body_too_large"),
        ("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".into(), 400, "bad_"),
        ("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n".into(), 400, "bad_"),
        ("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n".into(), 400, "bad_framing"),
        ("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n".into(), 501, "transfer_coding"),
        ("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".into(), 400, "bad_body"),
        (format!("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;{long}"), 400, "bad_body"),
    ];
    for (request, status, code) in cases {
        let mut raw = site.raw();
        raw.say(&request);
        let (got, body) = raw.status();
        let start = &request[..request.len().min(90)];
        assert_eq!(got, status, "{start}: {body}");
        assert!(body.contains(code), "{start}: {body}");
        raw.ended();
    }
}

#[test]
fn an_oversized_chunked_body_is_refused_while_it_comes() {
    let site = Site::start();
    let mut raw = site.raw();
    raw.say("POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        raw.say(format!("1000\r\n{}\r\n", "z".repeat(0x1000)));
    }
    assert_eq!(raw.status().0, 413);
}

#[test]
fn trickling_headers_and_idle_connections_end() {
    let limits = Limits { request: Duration::from_millis(300), idle: Duration::from_millis(200), ..Limits::default() };
    let site = Site::with(limits);
    let mut raw = site.raw();
    raw.say("GET / HT");
    let (status, body) = raw.status();
    assert!(status == 408 && body.contains("request_too_slow"), "{status} {body}");
    raw.ended();
    let mut idle = site.raw();
    idle.say(get("/who"));
    assert_eq!(idle.status().0, 200);
    idle.ended();
    // A parked call is neither idle nor slow.
    let mut parked = site.raw();
    parked.say(post("/park", ""));
    site.expect(Seen::Parked);
    assert!(site.seen.lock().unwrap().recv_timeout(Duration::from_millis(600)).is_err());
    site.events.send_blocking("event".into()).unwrap();
    assert_eq!(parked.status().1, "event");
}

#[test]
fn a_silent_handshake_ends() {
    let site = Site::with(Limits { handshake: Duration::from_millis(200), ..Limits::default() });
    let mut socket = TcpStream::connect(site.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}

#[test]
fn plain_http_is_told_to_use_https() {
    let site = Site::start();
    let mut socket = TcpStream::connect(site.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("https://"), "{text}");
}

#[test]
fn garbage_never_hurts_anybody_else() {
    let site = Site::start();
    let mut seed = 1_u32;
    for round in 0..200 {
        let mut socket = TcpStream::connect(site.address).unwrap();
        let mut bytes = vec![0x16, 3, 1];
        for _ in 0..(round * 7) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.push((seed >> 24) as u8);
        }
        let _ = socket.write_all(&bytes[round % 3..]);
    }
    let mut raw = site.raw();
    raw.say(post("/echo", "fine"));
    assert_eq!(raw.status().1, "fine");
}

#[test]
fn a_slow_reader_blocks_nobody_and_is_given_up() {
    let site = Site::with(Limits { write_stall: Duration::from_millis(300), ..Limits::default() });
    let mut slow = site.raw();
    slow.say(get("/file"));
    let mut other = site.raw();
    for _ in 0..50 {
        other.say(post("/echo", "quick"));
        assert_eq!(other.status().1, "quick");
    }
    // 5 MB do not fit into the socket's buffers.
    let mut rest = Vec::new();
    std::thread::spawn(move || {
        let (tx, rx) = channel::<()>();
        let _ = rx.recv_timeout(Duration::from_millis(1500));
        drop(tx);
        let result = slow.0.read_to_end(&mut rest);
        assert!(result.is_err() && rest.len() < FILE_BYTES, "given up without close_notify: {result:?} {}", rest.len());
    })
    .join()
    .unwrap();
}

#[test]
fn connections_beyond_the_limit_are_told_so_and_served_later() {
    let site = Site::with(Limits { connections: 1, ..Limits::default() });
    let mut first = site.raw();
    first.say(post("/park", ""));
    site.expect(Seen::Parked);
    let mut second = site.raw();
    second.say(post("/echo", "second"));
    let (head, body) = second.hear();
    assert!(head.contains(" 503 ") && head.contains("retry-after: "), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("connections_full"));
    second.ended();
    site.events.send_blocking("event".into()).unwrap();
    assert_eq!(first.status().1, "event", "who is in stays in");
    drop(first);
    // The server notices that the first has left a moment later.
    let served = (0..100).any(|_| {
        let mut third = site.raw();
        third.say(post("/echo", "third"));
        third.status() == (200, "third".to_string())
    });
    assert!(served);
}

#[test]
fn curl_believes_the_site_ca() {
    let site = Site::start();
    let ca = site.dir.path().join("pki/ca-p256.pem");
    let curl = |args: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--cacert"]).arg(&ca).args(args);
        command.output()
    };
    if curl(&["--version"]).is_err() {
        return crate::left_out("no curl here");
    }
    let out = curl(&["--data", "hello", &site.url("/echo")]).unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "hello", "{}", String::from_utf8_lossy(&out.stderr));
    let out = curl(&[&format!("https://localhost:{}/file", site.address.port())]).unwrap();
    assert!(out.stdout == file_content(), "{}", String::from_utf8_lossy(&out.stderr));
    let body = "z".repeat(15_000);
    let out = curl(&["-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", "--data", &body, &site.url("/echo")]).unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), body);
    let out = curl(&["-I", &site.url("/large")]).unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("content-length: 300000"));
}
