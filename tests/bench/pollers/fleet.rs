//! What all agents of this process have in common: where they connect, what they saw, and what they are told to do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use vmetric::io::clock;
use vmetric::io::tls::{Pin, PinVerifier, client_config};

/// Width of one cell of the connection counts.
pub const CELL: Duration = Duration::from_millis(100);

/// Counts since the last `mark`.
#[derive(Default)]
pub struct Seen {
    /// Connections begun and established, by [`CELL`] since the mark.
    pub begun: BTreeMap<u64, u64>,
    pub established: BTreeMap<u64, u64>,
    /// When each order (or message of the peer) arrived.
    pub told: Vec<Duration>,
    /// When each agent's update was taken as ended.
    pub ended: Vec<Duration>,
    /// An order of a generation that its agent had already.
    pub twice: u64,
    /// Answers of any kind.
    pub answers: u64,
    /// By code, and `io` for connections that failed or ended.
    pub refused: BTreeMap<String, u64>,
    pub probes: Probes,
}

/// What somebody sees who asks all the time.
#[derive(Default)]
pub struct Probes {
    pub served: u64,
    /// The last one that was served, and the longest time until the next one.
    pub last: Option<Duration>,
    pub silence: Duration,
    /// The first one that was not served, and the first one that was after it.
    pub lost: Option<Duration>,
    pub back: Option<Duration>,
}

impl Probes {
    pub fn note(&mut self, served: bool) {
        let now = clock::monotonic();
        if !served {
            self.lost.get_or_insert(now);
            return;
        }
        self.served += 1;
        self.silence = self.silence.max(now - self.last.unwrap_or(now));
        self.last = Some(now);
        if self.lost.is_some() {
            self.back.get_or_insert(now);
        }
    }
}

pub struct Fleet {
    pub address: Cell<SocketAddr>,
    pub tls: RefCell<Arc<ClientConfig>>,
    /// Base of a park, seconds; spread as the agent does.
    pub park_s: Cell<u64>,
    /// So many more orders are fulfilled, after `work_ms` each; the ones after that are accepted and kept waiting.
    pub finish: Cell<u64>,
    pub work_ms: Cell<u64>,
    /// An agent's first word about an order comes so many milliseconds after it at most.
    pub spread_ms: Cell<u64>,
    pub seen: RefCell<Seen>,
    pub marked: Cell<Duration>,
    /// Polls that wait for their answer.
    pub waiting: Cell<u64>,
    /// Open connections.
    pub connected: Cell<u64>,
}

impl Fleet {
    pub fn new(address: SocketAddr, pin: Pin) -> Fleet {
        Fleet {
            address: Cell::new(address),
            tls: RefCell::new(client_config(Arc::new(PinVerifier::new(vec![pin])))),
            park_s: Cell::new(53),
            finish: Cell::new(u64::MAX),
            work_ms: Cell::new(0),
            spread_ms: Cell::new(2_000),
            seen: RefCell::default(),
            marked: Cell::new(clock::monotonic()),
            waiting: Cell::new(0),
            connected: Cell::new(0),
        }
    }

    pub fn mark(&self) {
        *self.seen.borrow_mut() = Seen::default();
        self.marked.set(clock::monotonic());
    }

    fn cell(&self) -> u64 {
        (clock::monotonic().saturating_sub(self.marked.get()).as_millis() / CELL.as_millis()) as u64
    }

    pub fn began(&self) {
        *self.seen.borrow_mut().begun.entry(self.cell()).or_default() += 1;
    }

    pub fn established(&self) {
        *self.seen.borrow_mut().established.entry(self.cell()).or_default() += 1;
    }

    pub fn refused(&self, code: &str) {
        *self.seen.borrow_mut().refused.entry(code.to_string()).or_default() += 1;
    }
}

/// Counts up while it lives.
pub struct Counted<'a>(&'a Cell<u64>);

impl<'a> Counted<'a> {
    pub fn new(cell: &'a Cell<u64>) -> Counted<'a> {
        cell.set(cell.get() + 1);
        Counted(cell)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
