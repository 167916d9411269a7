//! What systemd is told: ready, alive, what is being done, stopping. Nothing happens where no `NOTIFY_SOCKET` is given.
//!
//! The variable survives `exec`, from the launcher to the slot and back, and so does the process id; so any of them may speak,
//! each on a socket of its own. The agent says no `STOPPING=1`: its stop is one write in a signal handler.

#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
#[cfg(unix)]
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::clock;

/// Least time between two signs of life, seconds: far below any watchdog, and no cost.
const PING_S: u64 = 10;
/// What a start that is at work asks for on top, with each sign of life, seconds: more than the liveness limit, which ends a
/// start that hangs.
const EXTEND_S: u64 = 240;
/// Longest wait for a system whose first process does not read.
#[cfg(unix)]
const SEND_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// Longest status, bytes.
const STATUS_MAX: usize = 300;

static NEXT: AtomicU64 = AtomicU64::new(0);
static READY: AtomicBool = AtomicBool::new(false);

/// The program is ready; said once. `what` is the status.
pub fn ready(what: &str) {
    if !READY.swap(true, Ordering::Relaxed) {
        send(&format!("READY=1\nWATCHDOG=1\nSTATUS={}", line(what)));
    }
}

/// It has been said.
pub fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

/// A sign of life, as often as wanted; until it is ready, with the wish for more time.
pub fn alive() {
    let now = clock::monotonic().as_secs();
    if now < NEXT.load(Ordering::Relaxed) {
        return;
    }
    NEXT.store(now + PING_S, Ordering::Relaxed);
    match READY.load(Ordering::Relaxed) {
        true => send("WATCHDOG=1"),
        false => send(&format!("WATCHDOG=1\nEXTEND_TIMEOUT_USEC={}", EXTEND_S * 1_000_000)),
    }
}

/// What is being done now.
pub fn status(what: &str) {
    send(&format!("STATUS={}", line(what)));
}

/// It stops, and why that takes time.
pub fn stopping(what: &str) {
    send(&format!("STOPPING=1\nSTATUS={}", line(what)));
}

fn line(text: &str) -> &str {
    let text = text.split('\n').next().unwrap_or_default();
    let end = (0..=STATUS_MAX.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    &text[..end]
}

/// A message that gets lost says nothing of the program.
#[cfg(unix)]
fn send(text: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    let _ = address(&name).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        socket.send_to_addr(text.as_bytes(), &address)
    });
}

#[cfg(unix)]
fn address(name: &std::ffi::OsStr) -> std::io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::unix::ffi::OsStrExt::as_bytes(name).strip_prefix(b"@") {
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}

#[cfg(windows)]
fn send(_: &str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_bounded_line() {
        assert_eq!((line("a\nREADY=1"), line("")), ("a", ""));
        assert!(line(&"é".repeat(STATUS_MAX)).len() <= STATUS_MAX);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn both_kinds_of_address_are_understood() {
        assert_eq!(address("/run/systemd/notify".as_ref()).unwrap().as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        assert_eq!(address("@abc".as_ref()).unwrap().as_abstract_name(), Some(b"abc".as_slice()));
    }
}
