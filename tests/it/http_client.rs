//! The agent's client against the real server, a proxy, and peers that mean no good.

mod odd;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmetric::director::pki::{Names, SiteCa};
use vmetric::io::http::{Download, Http, HttpConfig, HttpError};
use vmetric::io::tls::{Pin, parse_pin, pin_text};

use odd::{Odd, connect_proxy, read_request};

use crate::serve::{FILE_BYTES, NOW, PATIENCE, Seen, Site, file_content};

const LIMIT: usize = 16 * 1024;

fn config(pin: Pin) -> HttpConfig {
    // An address that is never asked: the environment's proxies, if any, are not for tests.
    HttpConfig { pins: vec![pin], proxy: None, user_agent: "vmetric-test/1", wake_fd: None, tick: || {} }
}

fn client(pin: Pin) -> Http {
    Http::new(config(pin)).unwrap()
}

fn echo(http: &Http, site: &Site, text: &str) -> String {
    let reply = http.post_json(&site.url("/echo"), None, text, LIMIT, PATIENCE).unwrap();
    assert_eq!(reply.status, 200);
    String::from_utf8(reply.body).unwrap()
}

fn all(download: &mut Download) -> Result<Vec<u8>, HttpError> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 10_000]);
    loop {
        match download.read(&mut piece)? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

#[test]
fn a_report_and_a_parked_poll_share_one_connection() {
    let site = Site::start();
    let http = client(site.pin);
    assert_eq!(http.pin_used(), None);
    assert_eq!(echo(&http, &site, "{}"), "{}");
    assert_eq!(http.pin_used(), Some(site.pin));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            site.expect(Seen::Parked);
            site.events.send_blocking("order".into()).unwrap();
        });
        let reply = http.post_json(&site.url("/park"), Some("secret"), "{}", LIMIT, PATIENCE).unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (200, b"order".as_slice()));
    });
    let reply = http.post_json(&site.url("/who?x"), Some("secret"), "{}", LIMIT, PATIENCE).unwrap();
    assert_eq!(String::from_utf8(reply.body).unwrap(), "POST Some(\"x\") Some(\"secret\")");
    assert_eq!(site.peers.lock().unwrap().len(), 1, "one connection, one handshake");
}

#[test]
fn any_of_up_to_four_pins_is_enough() {
    let site = Site::start();
    let pins = vec![[1; 32], [2; 32], [3; 32], site.pin];
    let http = Http::new(HttpConfig { pins, ..config(site.pin) }).unwrap();
    assert_eq!(echo(&http, &site, "{}"), "{}");
    assert_eq!(http.pin_used(), Some(site.pin));
    for pins in [vec![], vec![site.pin; 5]] {
        assert_eq!(Http::new(HttpConfig { pins, ..config(site.pin) }).unwrap_err().code(), "bad_url");
    }
}

#[test]
fn another_ca_is_refused_by_name() {
    let site = Site::start();
    let error = client([9; 32]).post_json(&site.url("/echo"), None, "{}", LIMIT, PATIENCE).unwrap_err();
    assert_eq!(error, HttpError::PinMismatch { peer: site.address.to_string(), presented: site.pin });
    assert!(error.to_string().contains(&pin_text(&site.pin)) && error.to_string().contains("--pin"), "{error}");
    assert!(site.peers.lock().unwrap().is_empty(), "not a byte of the request was sent");
}

#[test]
fn a_true_ca_beside_a_false_leaf_is_refused() {
    let (site, thief) = (Site::start(), tempfile::tempdir().unwrap());
    // The CA's certificate is public: anybody can show it, nobody else can sign a leaf with it.
    let own = SiteCa::open_or_create(thief.path(), &Names::default(), NOW).unwrap();
    drop(own);
    let pem = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    use rustls::pki_types::pem::PemObject;
    let leaf = rustls::pki_types::CertificateDer::from_pem_slice(&pem(thief.path().join("leaf.pem"))).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(&pem(thief.path().join("leaf.key"))).unwrap();
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(&pem(site.dir.path().join("pki/ca.pem"))).unwrap();
    let key = rustls::crypto::ring::sign::any_eddsa_type(&key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![leaf, ca], key);
    let server = Odd::tls(Arc::new(certified), |_| {});
    let error = client(site.pin).post_json(&server.url(), None, "{}", LIMIT, PATIENCE).unwrap_err();
    assert_eq!(error.code(), "tls_failed", "{error}");
}

#[test]
fn certificate_dates_never_refuse_under_a_pin() {
    let dir = tempfile::tempdir().unwrap();
    // Made in 1971 and long over: a pin is about a key, not about a date.
    let ca = SiteCa::open_or_create(dir.path(), &Names::default(), 400 * 86_400).unwrap();
    let server = Odd::config(ca.server_config(), |stream| {
        read_request(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    });
    let reply = client(ca.pin()).post_json(&server.url(), None, "{}", LIMIT, PATIENCE).unwrap();
    assert_eq!(reply.body, b"ok");
}

#[test]
fn a_download_arrives_whole_and_in_parts() {
    let site = Site::start();
    let http = client(site.pin);
    let mut download = http.get(&site.url("/file"), None, None, FILE_BYTES as u64, PATIENCE).unwrap();
    assert_eq!((download.status, download.start, download.total, download.length), (200, 0, Some(5_000_011), Some(5_000_011)));
    assert_eq!(download.etag.as_deref(), Some("\"five\""));
    // A report between two slices, on a second connection.
    let mut piece = vec![0; 1000];
    let n = download.read(&mut piece).unwrap();
    assert_eq!(echo(&http, &site, "{}"), "{}");
    let whole = [&piece[..n], &all(&mut download).unwrap()].concat();
    assert!(whole == file_content());
    let mut rest = http.get(&site.url("/file"), Some("x"), Some(4_000_000), FILE_BYTES as u64, PATIENCE).unwrap();
    assert_eq!((rest.status, rest.start, rest.total, rest.length), (206, 4_000_000, Some(5_000_011), Some(1_000_011)));
    assert!(all(&mut rest).unwrap() == file_content()[4_000_000..]);
    assert_eq!(http.get(&site.url("/file"), None, None, 1000, PATIENCE).unwrap_err(), HttpError::TooLarge { limit: 1000 });
}

#[test]
fn throttling_passes_through() {
    let site = Site::start();
    let http = client(site.pin);
    let reply = http.post_json(&site.url("/throttled"), None, "{}", LIMIT, PATIENCE).unwrap();
    assert_eq!((reply.status, reply.retry_after_s), (429, Some(7)));
    let mut download = http.get(&site.url("/throttled"), None, None, 1000, PATIENCE).unwrap();
    assert_eq!((download.status, download.retry_after_s), (429, Some(7)));
    assert!(String::from_utf8(all(&mut download).unwrap()).unwrap().contains("throttled"));
}

#[cfg(unix)]
#[test]
fn a_wake_ends_a_parked_poll_at_once() {
    use std::os::fd::AsRawFd;
    let site = Site::start();
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let http = Http::new(HttpConfig { wake_fd: Some(ours.as_raw_fd()), ..config(site.pin) }).unwrap();
    let woken_at = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            site.expect(Seen::Parked);
            *woken_at.lock().unwrap() = Some(now());
            theirs.write_all(b"!").unwrap();
        });
        let error = http.post_json(&site.url("/park"), None, "{}", LIMIT, PATIENCE).unwrap_err();
        assert_eq!(error, HttpError::Woken);
    });
    let took = woken_at.lock().unwrap().unwrap().elapsed();
    assert!(took < Duration::from_millis(500), "{took:?}");
    site.expect(Seen::Dropped);
    // Still readable: nothing waits. Drained: everything works again.
    assert_eq!(http.post_json(&site.url("/echo"), None, "{}", LIMIT, PATIENCE).unwrap_err(), HttpError::Woken);
    (&ours).read_exact(&mut [0]).unwrap();
    assert_eq!(echo(&http, &site, "{}"), "{}");
}

#[cfg(unix)]
#[test]
fn a_wake_ends_a_connect_and_a_download() {
    use std::os::fd::AsRawFd;
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let site = Site::start();
    let http = Http::new(HttpConfig { wake_fd: Some(ours.as_raw_fd()), ..config(site.pin) }).unwrap();
    let mut download = http.get(&site.url("/file"), None, None, FILE_BYTES as u64, PATIENCE).unwrap();
    theirs.write_all(b"!").unwrap();
    assert_eq!(download.read(&mut [0; 100]).unwrap_err(), HttpError::Woken);
    // TEST-NET: nobody answers, so the connect would last until its deadline.
    let error = http.post_json("https://192.0.2.1/", None, "{}", LIMIT, PATIENCE).unwrap_err();
    assert!(matches!(error, HttpError::Woken | HttpError::Unreachable { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_unreachable() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let http = client([1; 32]);
    let ask = |url: &str, time| http.post_json(url, None, "{}", LIMIT, time).unwrap_err();
    let error = ask(&format!("https://{closed}/"), PATIENCE);
    assert!(error.code() == "unreachable" && error.to_string().contains(&closed.to_string()), "{error}");
    let error = ask("https://no-such-host.invalid/", PATIENCE);
    assert!(error.code() == "unreachable" && error.to_string().contains("name lookup"), "{error}");
    // A peer that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = ask(&format!("https://{}/", silent.local_addr().unwrap()), Duration::from_millis(300));
    assert!(error.code() == "unreachable" && error.to_string().contains("no answer within"), "{error}");
}

#[test]
fn only_https_is_spoken() {
    let http = client([1; 32]);
    for url in ["http://x/", "ftp://x/", "x", "", "https://", "https://u:p@x/", "https:///y", "https://x y/"] {
        let error = http.post_json(url, None, "{}", LIMIT, PATIENCE).unwrap_err();
        assert_eq!(error.code(), "bad_url", "{url}: {error}");
        assert_eq!(http.get(url, None, None, 1, PATIENCE).unwrap_err().code(), "bad_url", "{url}");
    }
}

#[test]
fn a_plain_port_is_not_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut hello = [0; 64];
        let _ = socket.read(&mut hello);
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let error = client([1; 32]).post_json(&format!("https://{address}/"), None, "{}", LIMIT, PATIENCE).unwrap_err();
    assert_eq!(error, HttpError::NotTls { peer: address.to_string() });
}

#[test]
fn every_answer_has_a_limit() {
    let site = Site::start();
    let http = client(site.pin);
    let large = |limit| http.post_json(&site.url("/large"), None, "{}", limit, PATIENCE);
    assert_eq!(large(299_999).unwrap_err(), HttpError::TooLarge { limit: 299_999 });
    assert_eq!(large(300_000).unwrap().body.len(), 300_000);
    let dir = tempfile::tempdir().unwrap();
    let ca = SiteCa::open_or_create(dir.path(), &Names::default(), NOW).unwrap();
    // A body without an end, and a head without one.
    for (start, more) in [("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "100\r\n"), ("HTTP/1.1 200 OK\r\n", "x: ")] {
        let server = Odd::config(ca.server_config(), move |stream| {
            read_request(stream);
            let _ = stream.write_all(start.as_bytes());
            while stream.write_all(format!("{more}{}\r\n", "y".repeat(0x100)).as_bytes()).is_ok() {}
        });
        let error = client(ca.pin()).post_json(&server.url(), None, "{}", LIMIT, PATIENCE).unwrap_err();
        assert_eq!(error.code(), "too_large", "{error}");
    }
}

#[test]
fn an_answer_cut_short_is_never_complete() {
    let dir = tempfile::tempdir().unwrap();
    let ca = SiteCa::open_or_create(dir.path(), &Names::default(), NOW).unwrap();
    let answers: [&'static [u8]; 3] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive!",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfive!\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nfive!",
    ];
    for answer in answers {
        let server = Odd::config(ca.server_config(), move |stream| {
            read_request(stream);
            stream.write_all(answer).unwrap();
            // Without close_notify: somebody on the way cut the line.
        });
        let error = client(ca.pin()).post_json(&server.url(), None, "{}", LIMIT, PATIENCE).unwrap_err();
        assert_eq!(error.code(), "unreachable", "{}: {error}", String::from_utf8_lossy(answer));
    }
}

#[test]
fn a_kept_connection_that_died_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let ca = SiteCa::open_or_create(dir.path(), &Names::default(), NOW).unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    // Each connection answers once, swallows the next request and hangs up.
    let server = Odd::config(ca.server_config(), move |stream| {
        read_request(stream);
        count.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        stream.flush().unwrap();
        read_request(stream);
    });
    let http = client(ca.pin());
    for _ in 0..3 {
        assert_eq!(http.post_json(&server.url(), None, "{}", LIMIT, PATIENCE).unwrap().body, b"ok");
    }
    assert_eq!(served.load(Ordering::SeqCst), 3);
}

#[test]
fn redirects_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let ca = SiteCa::open_or_create(dir.path(), &Names::default(), NOW).unwrap();
    let server = Odd::config(ca.server_config(), |stream| {
        read_request(stream);
        stream.write_all(b"HTTP/1.1 307 Elsewhere\r\nlocation: https://192.0.2.1/\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    assert_eq!(client(ca.pin()).post_json(&server.url(), None, "{}", LIMIT, PATIENCE).unwrap().status, 307);
}

#[test]
fn a_proxy_carries_everything() {
    let site = Site::start();
    let (proxy, asked) = connect_proxy("200 OK");
    let through = |setting: String| Http::new(HttpConfig { proxy: Some(setting), ..config(site.pin) });
    let http = through(format!("http://user:word@{proxy}")).unwrap();
    assert_eq!(echo(&http, &site, "{}"), "{}");
    let head = asked.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1", site.address)) && head.contains("Basic dXNlcjp3b3Jk"), "{head}");
    assert_eq!(http.proxy_for(&site.url("/")).unwrap(), format!("http://{proxy}"));
    let mut file = http.get(&site.url("/file"), None, None, FILE_BYTES as u64, PATIENCE).unwrap();
    assert!(all(&mut file).unwrap() == file_content());

    let (refusing, _asked) = connect_proxy("407 Proxy Authentication Required");
    let ask = |http: Http| http.post_json(&site.url("/echo"), None, "{}", LIMIT, PATIENCE).unwrap_err();
    let error = ask(through(format!("http://{refusing}")).unwrap());
    assert!(error.code() == "proxy_failed" && error.to_string().contains("407"), "{error}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = ask(through(format!("http://{closed}")).unwrap());
    assert!(error.code() == "proxy_failed" && error.to_string().contains(&closed.to_string()), "{error}");
    for bad in ["https://proxy:1", "socks5://proxy:1", "::", ""] {
        assert_eq!(through(bad.into()).unwrap_err().code(), "bad_url", "{bad}");
    }
}

#[test]
fn pins_have_one_spelling() {
    let text = format!("sha256:{}", "0a".repeat(32));
    assert_eq!(pin_text(&parse_pin(&text).unwrap()), text);
    for bad in ["", "sha256:", &text[7..], &text[..70], &text.to_uppercase(), &text.replace("0a", "0A"), "sha1:00"] {
        assert_eq!(parse_pin(bad).unwrap_err().code, "bad_pin", "{bad}");
    }
}

/// The most threads that were alive in any wait of the child below.
static THREADS: AtomicUsize = AtomicUsize::new(0);

fn threads() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix("Threads:")).map_or(0, |n| n.trim().parse().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn the_client_starts_no_thread() {
    let site = Site::start();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "http_client::child_that_counts_threads", "--ignored", "--nocapture", "--test-threads=1"])
        // A name, so that the lookup with its deadline is part of it.
        .env("VMETRIC_TEST_SITE", format!("https://localhost:{} {}", site.address.port(), pin_text(&site.pin)))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&child.stderr));
}

#[test]
#[ignore = "run by the_client_starts_no_thread in a process of its own"]
fn child_that_counts_threads() {
    let given = std::env::var_os("VMETRIC_TEST_SITE").unwrap().into_string().unwrap();
    let (url, pin) = given.split_once(' ').unwrap();
    let before = threads();
    let tick = || {
        THREADS.fetch_max(threads(), Ordering::SeqCst);
    };
    let http = Http::new(HttpConfig { tick, ..config(parse_pin(pin).unwrap()) }).unwrap();
    assert_eq!(http.post_json(&format!("{url}/echo"), None, "{}", LIMIT, PATIENCE).unwrap().body, b"{}");
    let mut file = http.get(&format!("{url}/file"), None, None, FILE_BYTES as u64, PATIENCE).unwrap();
    assert_eq!(all(&mut file).unwrap().len(), FILE_BYTES);
    assert_eq!((THREADS.load(Ordering::SeqCst), threads()), (before, before));
}

#[expect(clippy::disallowed_methods, reason = "a test measures how quickly a wake is seen")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
