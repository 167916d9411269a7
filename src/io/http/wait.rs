//! Waiting for a socket without sleeping through a wake: the only unsafe code of the client, for what the standard library
//! does not offer without blocking.

use std::io;
use std::time::{Duration, Instant};

use crate::io::process::WakeFd;

/// Longest silence between two calls of `tick`; the liveness limit is 180 s (in a `fault` build it may be a few seconds).
const TICK: Duration = Duration::from_secs(if cfg!(feature = "fault") { 1 } else { 20 });

/// What a socket is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    Write,
}

/// Why a wait ended without the socket being ready.
#[derive(Debug)]
pub(super) enum Unready {
    /// The wake descriptor is readable.
    Woken,
    /// The deadline went by.
    Late,
    /// The system says no.
    Failed(io::Error),
}

impl From<io::Error> for Unready {
    fn from(error: io::Error) -> Unready {
        Unready::Failed(error)
    }
}

/// How long to wait, and for what else.
#[derive(Clone, Copy)]
pub(super) struct Watch {
    pub deadline: Option<Instant>,
    pub wake_fd: Option<WakeFd>,
    pub tick: fn(),
}

impl Watch {
    /// Length of the next slice.
    fn slice(&self) -> Result<Duration, Unready> {
        let Some(deadline) = self.deadline else { return Ok(TICK) };
        match deadline.saturating_duration_since(now()) {
            Duration::ZERO => Err(Unready::Late),
            left => Ok(left.min(TICK)),
        }
    }
}

/// Probes that may stay unanswered, so many in each span that a connection may be silent.
const PROBES: u32 = 3;

#[expect(clippy::disallowed_methods, reason = "io::http waits for the network, so it reads the monotonic clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(super) use unix::{connect, keep_alive, wait, woken};
#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(super) use windows::{connect, keep_alive, wait, woken};
