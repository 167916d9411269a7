//! A Director that means harm, or whose machine is broken: raw TLS with the stolen keys of a site, and no protocol at all
//! unless a scenario wants one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use miniserde::json;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use vmetric::director::pki::{Names, SiteCa};
use vmetric::wire::agent_api::{AnswerWire, OrderWire, ReportWire};

/// A connection behind TLS.
pub type Tls = StreamOwned<ServerConnection, TcpStream>;

/// What a connection meets.
#[derive(Clone)]
pub enum Act {
    /// Before TLS.
    Raw(fn(&mut TcpStream)),
    /// TLS under another CA.
    Stranger,
    /// After each request: its report, and the connection.
    Says(Arc<Answer>),
}

/// What is done with a request. An error ends the connection.
type Answer = dyn Fn(&ReportWire, &mut Tls) -> std::io::Result<()> + Send + Sync;

/// An act from a function.
pub fn says(answer: impl Fn(&ReportWire, &mut Tls) -> std::io::Result<()> + Send + Sync + 'static) -> Act {
    Act::Says(Arc::new(answer))
}

/// An answer of so much text.
pub fn reply(tls: &mut Tls, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    tls.write_all(head.as_bytes())?;
    tls.write_all(body.as_bytes())?;
    tls.flush()
}

/// A well-formed answer.
pub fn answer(tls: &mut Tls, answer: &AnswerWire) -> std::io::Result<()> {
    reply(tls, "200 OK", "", &json::to_string(answer))
}

/// An answer with an order.
pub fn order(tls: &mut Tls, order: OrderWire) -> std::io::Result<()> {
    answer(tls, &AnswerWire { issuer: order.issuer.clone(), time: vmetric::io::clock::unix(), order: Some(order), ..Default::default() })
}

/// See the module.
pub struct Villain {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    act: Mutex<Act>,
    own: Arc<ServerConfig>,
    strange: Arc<ServerConfig>,
    connections: AtomicU64,
    requests: AtomicU64,
    heard: Mutex<Vec<ReportWire>>,
}

/// What a villain remembers at most.
const HEARD_MAX: usize = 500;

impl Villain {
    /// With the keys of the site whose state folder this is.
    pub fn new(site: &Path, folder: &Path) -> Result<Villain, String> {
        let told = |e: std::io::Error| format!("the villain's port: {e}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(told)?;
        let port = listener.local_addr().map_err(told)?.port();
        let (stolen, strange) = (folder.join("stolen"), folder.join("strange"));
        steal(&site.join("pki"), &stolen).map_err(|e| format!("{}: {e}", stolen.display()))?;
        let ca = |folder: &Path| SiteCa::open_or_create(folder, &Names::default(), vmetric::io::clock::unix()).map_err(|e| e.to_string());
        let shared = Arc::new(Shared {
            act: Mutex::new(Act::Raw(|_| {})),
            own: ca(&stolen)?.server_config(),
            strange: ca(&strange)?.server_config(),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            heard: Mutex::default(),
        });
        let all = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = all.clone();
                thread::spawn(move || one.meet(stream));
            }
        });
        Ok(Villain { port, shared })
    }

    /// What the next connections meet; counting begins anew.
    pub fn play(&self, act: Act) {
        if let (Ok(mut now), Ok(mut heard)) = (self.shared.act.lock(), self.shared.heard.lock()) {
            *now = act;
            heard.clear();
        }
        self.shared.connections.store(0, Ordering::SeqCst);
        self.shared.requests.store(0, Ordering::SeqCst);
    }

    /// Connections since the act began.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Requests since the act began.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Has a report said this?
    pub fn heard(&self, what: impl Fn(&ReportWire) -> bool) -> bool {
        self.shared.heard.lock().is_ok_and(|all| all.iter().any(what))
    }
}

impl Shared {
    fn meet(&self, mut stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        // A device that goes away without a word must not leave a thread.
        let _ = stream.set_read_timeout(Some(Duration::from_secs(90)));
        let _ = stream.set_write_timeout(Some(Duration::from_secs(20)));
        let Ok(act) = self.act.lock().map(|act| act.clone()) else { return };
        let (config, says) = match act {
            Act::Raw(raw) => return raw(&mut stream),
            Act::Stranger => (&self.strange, None),
            Act::Says(says) => (&self.own, Some(says)),
        };
        let Ok(connection) = ServerConnection::new(config.clone()) else { return };
        let mut tls = StreamOwned::new(connection, stream);
        while let Some(report) = request(&mut tls) {
            self.requests.fetch_add(1, Ordering::SeqCst);
            if let Ok(mut heard) = self.heard.lock()
                && heard.len() < HEARD_MAX
            {
                heard.push(report.clone());
            }
            if says.as_ref().is_none_or(|says| says(&report, &mut tls).is_err()) {
                break;
            }
        }
        tls.conn.send_close_notify();
        let _ = tls.flush();
    }
}

/// Copies the keys of a site.
fn steal(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Reads one request; a body that is no report reads as an empty one.
fn request(tls: &mut Tls) -> Option<ReportWire> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        tls.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length:")).and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    tls.read_exact(&mut body).ok()?;
    Some(json::from_str(&String::from_utf8_lossy(&body)).unwrap_or_default())
}
