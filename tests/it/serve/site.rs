//! A Director's place for one test: CA, server thread, a service, raw clients.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use vmetric::director::pki::{Names, SiteCa};
use vmetric::io::serve::{Answer, Body, Limits, Request, Response, Service, serve};
use vmetric::io::tls::{Pin, PinVerifier, client_config};

/// Longest wait for something that is expected to happen; nothing waits this long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// 2026-11-22, for certificates.
pub const NOW: u64 = 1_795_305_600;
/// Not a multiple of any buffer.
pub const FILE_BYTES: usize = 5_000_011;

/// What the service saw.
#[derive(Debug, PartialEq)]
pub enum Seen {
    Parked,
    Dropped,
}

/// A Director's place for one test: CA, server thread, events.
pub struct Site {
    pub address: SocketAddr,
    pub pin: Pin,
    pub ca: Arc<SiteCa>,
    pub dir: tempfile::TempDir,
    pub seen: Mutex<Receiver<Seen>>,
    pub peers: Arc<Mutex<HashSet<SocketAddr>>>,
    pub events: smol::channel::Sender<String>,
    stop: Option<smol::channel::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct App {
    file: std::path::PathBuf,
    seen: Sender<Seen>,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    events: smol::channel::Receiver<String>,
}

/// Tells when a parked call ends without an answer.
struct Guard(Sender<Seen>, Cell<bool>);

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.1.get() {
            let _ = self.0.send(Seen::Dropped);
        }
    }
}

impl Service for App {
    fn body_limit(&self, _method: &str, path: &str) -> usize {
        if path == "/big" { 1 << 20 } else { 16 * 1024 }
    }

    fn call(&self, request: Request) -> Answer {
        self.peers.lock().unwrap().extend(request.peer);
        let (seen, events, file) = (self.seen.clone(), self.events.clone(), self.file.clone());
        Box::pin(async move {
            match request.path.as_str() {
                "/echo" | "/big" => Response::of(200, "application/octet-stream", request.body),
                "/who" => Response::text(200, format!("{} {:?} {:?}", request.method, request.query, request.bearer())),
                "/park" => {
                    // What a parked handler keeps is memory times thousands.
                    drop(request);
                    let guard = Guard(seen.clone(), Cell::new(false));
                    let _ = seen.send(Seen::Parked);
                    let event = events.recv().await.unwrap_or_default();
                    guard.1.set(true);
                    Response::text(200, event)
                }
                "/throttled" => Response::error(429, "throttled", "later").with("retry-after", "7"),
                "/empty" => Response::empty(204),
                "/large" => Response::of(200, "application/octet-stream", vec![b'x'; 300_000]),
                "/file" => file_answer(&request, &file),
                _ => Response::error(404, "not_found", "no such path"),
            }
        })
    }
}

fn file_answer(request: &Request, file: &std::path::Path) -> Response {
    let range = request.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok());
    let offset = range.unwrap_or(0);
    let length = FILE_BYTES as u64 - offset;
    let body = Body::File { file: File::open(file).unwrap(), offset, length, flow: None };
    let status = if range.is_some() { 206 } else { 200 };
    let response = Response { status, headers: vec![("etag", "\"five\"".into()), ("accept-ranges", "bytes".into())], body, hold: None };
    match range {
        Some(_) => response.with("content-range", format!("bytes {offset}-{}/{FILE_BYTES}", FILE_BYTES - 1)),
        None => response,
    }
}

/// Bytes that never repeat with a buffer's length.
pub fn file_content() -> Vec<u8> {
    (0..FILE_BYTES as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

impl Site {
    pub fn start() -> Site {
        Site::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let names = Names { dns: vec!["localhost".into()], ips: vec!["127.0.0.1".parse().unwrap()] };
        let ca = Arc::new(SiteCa::open_or_create(&dir.path().join("pki"), &names, NOW).unwrap());
        let file = dir.path().join("file");
        File::create(&file).unwrap().write_all(&file_content()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen_tx, seen) = channel();
        let (events, events_rx) = smol::channel::unbounded();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let peers = Arc::new(Mutex::new(HashSet::new()));
        let (pin, tls, all) = (ca.pin(), ca.server_config(), peers.clone());
        let thread = std::thread::spawn(move || {
            let service = Rc::new(App { file, seen: seen_tx, peers: all, events: events_rx });
            let executor = Rc::new(smol::LocalExecutor::new());
            let work = async {
                let serving = async { serve(listener, tls, service, &executor, limits).await.unwrap() };
                let stopping = async {
                    let _ = stopped.recv().await;
                };
                smol::future::or(serving, stopping).await;
            };
            smol::block_on(executor.run(work));
        });
        Site { address, pin, ca, dir, seen: Mutex::new(seen), peers, events, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub fn expect(&self, what: Seen) {
        assert_eq!(self.seen.lock().unwrap().recv_timeout(PATIENCE), Ok(what));
    }

    pub fn next_seen(&self) -> Seen {
        self.seen.lock().unwrap().recv_timeout(PATIENCE).unwrap()
    }

    /// A TLS connection that says whatever a test wants.
    pub fn raw(&self) -> Raw {
        raw(self.address, self.pin)
    }
}

/// See [`Site::raw`].
pub fn raw(address: SocketAddr, pin: Pin) -> Raw {
    raw_with(address, client_config(Arc::new(PinVerifier::new(vec![pin]))))
}

/// A connection of any TLS client.
pub fn raw_with(address: SocketAddr, config: Arc<ClientConfig>) -> Raw {
    let tls = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Raw(StreamOwned::new(tls, socket))
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap();
            }
        }
    }
}

/// See [`Site::raw`].
pub struct Raw(pub StreamOwned<ClientConnection, TcpStream>);

impl Raw {
    pub fn say(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).unwrap();
        self.0.flush().unwrap();
    }

    /// One answer: head and body.
    pub fn hear(&mut self) -> (String, Vec<u8>) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            assert_eq!(self.0.read(&mut byte).unwrap(), 1, "closed within a head: {}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }

    /// One answer's status and body as text.
    pub fn status(&mut self) -> (u16, String) {
        let (head, body) = self.hear();
        (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
    }

    /// The server said close_notify and nothing more.
    pub fn ended(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an end without close_notify is an error");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}
