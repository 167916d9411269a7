//! Bytes that this server's mirror, or its own update, fetches over a link: they count in `limits: bytes_per_day` and keep to `bytes_per_second`,
//! like those that it sends.
//!
//! The mirror works on a helper thread, the engine on another, the counts are the main thread's: so they ask. What a fetch needs is counted
//! durably before its first byte is asked for, what did not come is given back ([`crate::core::budget`]). What a person
//! brings, and a folder of this machine, cost nothing.

use std::rc::Rc;
use std::time::Duration;

use smol::channel::{Receiver, Sender};

use super::site::Site;
use crate::agent::download::Between;
use crate::agent::duties::Allowed;
use crate::agent::link::tick;
use crate::agent::source::SourceError;
use crate::core::reason::Reason;
use crate::io::{clock, process};

/// The days of which bytes were taken, for giving back, and whether there is a rate.
type Granted = (Vec<(String, String)>, bool);

enum Ask {
    Take(u64, Sender<Result<Granted, Reason>>),
    Wait(u64, Sender<Duration>),
    Back(Vec<(String, String)>, u64),
}

/// The mirror's end.
#[derive(Clone)]
pub struct Allowance(Sender<Ask>);

impl std::fmt::Debug for Allowance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Allowance")
    }
}

/// What a fetch may use; the rest is given back when it is dropped.
pub struct Taken {
    allowance: Allowance,
    days: Vec<(String, String)>,
    slowed: bool,
    left: u64,
}

/// An allowance over what this site counts, as long as the site lives.
pub fn of(site: &Rc<Site>) -> (Allowance, impl Future<Output = ()> + use<>) {
    // As many as one thread can ask; a larger queue would be of a mirror that does not wait.
    let (ask, asked) = smol::channel::bounded(16);
    (Allowance(ask), attend(site.clone(), asked))
}

async fn attend(site: Rc<Site>, asked: Receiver<Ask>) {
    while let Ok(ask) = asked.recv().await {
        match ask {
            Ask::Take(bytes, answer) => {
                let (taken, slowed) = {
                    let mut registry = site.registry.borrow_mut();
                    (registry.take_bytes(None, bytes, clock::unix()), registry.metering.per_second[0].is_some())
                };
                site.flush();
                let written = site.store.durable().await.map_err(|e| Reason::new("store_unavailable", e));
                let _ = answer.try_send(written.and(taken).map(|days| (days, slowed)));
            }
            Ask::Wait(bytes, answer) => {
                let wait = site.registry.borrow_mut().metering.wait_own(bytes, clock::monotonic());
                let _ = answer.try_send(wait);
            }
            Ask::Back(days, unused) => {
                site.registry.borrow_mut().give_bytes_back(&days, unused);
                site.flush();
            }
        }
    }
}

fn stopping<E>(_: E) -> Reason {
    Reason::new("stopping", "this server stops; the next start goes on")
}

impl Allowance {
    /// Takes bytes of today. Blocks.
    ///
    /// # Errors
    /// `bytes_per_day`, `file_over_limit`, `store_unavailable`, `stopping`.
    pub fn take(&self, bytes: u64) -> Result<Taken, Reason> {
        let (answer, answered) = smol::channel::bounded(1);
        self.0.send_blocking(Ask::Take(bytes, answer)).map_err(stopping)?;
        let (days, slowed) = answered.recv_blocking().map_err(stopping)??;
        Ok(Taken { allowance: self.clone(), days, slowed, left: bytes })
    }
}

impl Taken {
    /// So much has come; waits as long as the rate wants.
    pub fn came(&mut self, bytes: u64) {
        process::sleep(self.owes(bytes));
    }

    fn owes(&mut self, bytes: u64) -> Duration {
        self.left = self.left.saturating_sub(bytes);
        let (answer, answered) = smol::channel::bounded(1);
        match self.slowed && self.allowance.0.send_blocking(Ask::Wait(bytes, answer)).is_ok() {
            true => answered.recv_blocking().unwrap_or_default(),
            false => Duration::ZERO,
        }
    }
}

/// On the engine's thread, which has to show that it lives.
impl Allowed for Taken {
    fn came(&mut self, bytes: u64) {
        let mut wait = self.owes(bytes);
        while !wait.is_zero() {
            let part = wait.min(TURN);
            process::sleep(part);
            tick();
            wait -= part;
        }
    }
}

/// The engine's thread shows so often that it lives.
const TURN: Duration = Duration::from_secs(1);

/// What [`Allowance`] allows, between the slices of a download of the engine.
pub struct Counting<'a> {
    /// Who is told of the slices.
    pub between: &'a mut dyn Between,
    /// Of this server.
    pub allowance: &'a Allowance,
    /// What is allowed now.
    pub allowed: Option<Taken>,
}

impl Between for Counting<'_> {
    fn slice(&mut self, on_disk: u64, fetched: u64) -> bool {
        self.between.slice(on_disk, fetched)
    }

    fn wait_s(&mut self, error: &SourceError) -> u64 {
        self.between.wait_s(error)
    }

    fn allow(&mut self, bytes: u64) -> Result<(), Reason> {
        // First back, then again.
        self.allowed = None;
        self.allowed = Some(self.allowance.take(bytes)?);
        Ok(())
    }

    fn came(&mut self, bytes: u64) {
        self.allowed.iter_mut().for_each(|allowed| Allowed::came(allowed, bytes));
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.left > 0 && !self.days.is_empty() {
            // Where nobody listens any more the count stays too high, never too low.
            let _ = self.allowance.0.send_blocking(Ask::Back(std::mem::take(&mut self.days), self.left));
        }
    }
}
