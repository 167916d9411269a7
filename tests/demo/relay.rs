//! The wire between one device and its Director: counts what it carries, can be slow, can be cut. It sees TLS only.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vmetric::io::process;

/// One wire.
pub struct Relay {
    /// The device's end.
    pub port: u16,
    wire: Arc<Wire>,
}

struct Wire {
    to: Arc<AtomicU16>,
    /// Leads here instead; 0 = it does not.
    astray: AtomicU16,
    whole: AtomicBool,
    carried: AtomicU64,
    per_s: AtomicU64,
    /// What a new connection waits before it leads anywhere, milliseconds.
    hesitates_ms: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// A wire to whatever port `to` says at the time.
    pub fn new(to: Arc<AtomicU16>) -> Result<Relay, String> {
        Relay::at(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| format!("loopback: {e}"))?, to)
    }

    /// The same with the device's end made elsewhere: a socket stays in the network that it was made in.
    pub fn at(listener: TcpListener, to: Arc<AtomicU16>) -> Result<Relay, String> {
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let wire = Arc::new(Wire {
            to,
            astray: AtomicU16::new(0),
            whole: AtomicBool::new(true),
            carried: AtomicU64::new(0),
            per_s: AtomicU64::new(0),
            hesitates_ms: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        let shared = wire.clone();
        thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let shared = shared.clone();
                match shared.hesitates_ms.load(Ordering::SeqCst) {
                    0 => shared.carry(device),
                    ms => drop(thread::spawn(move || {
                        process::sleep(Duration::from_millis(ms));
                        shared.carry(device);
                    })),
                }
            }
        });
        Ok(Relay { port, wire })
    }

    /// Nothing passes from now on; what is open breaks.
    pub fn cut(&self) {
        if let Ok(mut streams) = self.wire.streams.lock() {
            self.wire.whole.store(false, Ordering::SeqCst);
            for stream in streams.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Connections pass again.
    pub fn heal(&self) {
        self.wire.whole.store(true, Ordering::SeqCst);
    }

    /// From now on this port is what the device reaches, 0 = its Director again; what is open breaks.
    pub fn lead_to(&self, port: u16) {
        self.wire.astray.store(port, Ordering::SeqCst);
        self.cut();
        self.heal();
    }

    /// New connections lead nowhere for so long: a trial that needs one is not over before its wire can be cut.
    pub fn hesitate(&self, time: Duration) {
        self.wire.hesitates_ms.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// So many bytes per second towards the device; 0 = as fast as it goes.
    pub fn limit(&self, per_s: u64) {
        self.wire.per_s.store(per_s, Ordering::SeqCst);
    }

    /// Bytes carried to the device so far, TLS and all.
    pub fn carried(&self) -> u64 {
        self.wire.carried.load(Ordering::SeqCst)
    }
}

impl Wire {
    fn carry(self: Arc<Self>, device: TcpStream) {
        // One that is being made counts as open: a cut in the meantime would not break it, nor lead it elsewhere.
        let Ok(mut streams) = self.streams.lock() else { return };
        if !self.whole.load(Ordering::SeqCst) {
            return;
        }
        let port = match self.astray.load(Ordering::SeqCst) {
            0 => self.to.load(Ordering::SeqCst),
            other => other,
        };
        let Ok(director) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
        let ends = [device.try_clone(), director.try_clone(), device.try_clone(), director.try_clone()];
        let [Ok(a), Ok(b), Ok(c), Ok(d)] = ends else { return };
        streams.extend([c, d]);
        drop(streams);
        let down = self.clone();
        thread::spawn(move || pump(director, device, Some(&down)));
        thread::spawn(move || pump(a, b, None));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, counted: Option<&Wire>) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..n]).is_err() {
            break;
        }
        if let Some(wire) = counted {
            wire.carried.fetch_add(n as u64, Ordering::SeqCst);
            if let Some(ms) = (n as u64 * 1000).checked_div(wire.per_s.load(Ordering::SeqCst)) {
                process::sleep(Duration::from_millis(ms));
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
