//! The HTTPS server of Director and Fleet: tens of thousands of parked polls on one thread.
//!
//! ```text
//!  accept -> handshake -> [ request head -> body -> Service::call -> response ]* -> close_notify
//!   door.rs: who may         ^ idle (75 s)          ^ parked: the handler decides how long
//! ```
//!
//! Sans-IO parts on one loop: rustls' unbuffered connections and `ureq-proto`'s request machine, with scratch buffers
//! that all connections share (`scratch`). A parked connection owns its socket, its TLS keys, the handler's future and
//! the bytes that came too early, nothing else.
//!
//! Absent on purpose: routing, ranges, compression, HTTP/2, cookies. The [`Service`] answers; `Range` and `HEAD` are its job
//! (a `HEAD` answer's body is measured for `Content-Length` and not sent).

mod conn;
mod door;
mod request;
mod response;
mod scratch;
mod tls;

#[cfg(feature = "fault")]
pub use request::first_request;
pub use request::{Digest, Known, Request};
pub use response::{Body, Flow, Response, Source};

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::lock::Semaphore;
use smol::{Async, Timer};

use conn::{Conn, NoHandshake, within};
use door::{Door, Guest};
use request::Incoming;
use scratch::Scratch;

/// After an accept that failed: the reason does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// One line about it per minute.
const ACCEPT_LOG: Duration = Duration::from_secs(60);

/// Peers that are told at once that all places are taken: each costs a handshake.
const FULL_LANE: usize = 16;
/// How long that may take.
const FULL_TIME: Duration = Duration::from_secs(4);
/// Shortest wait that they are advised, seconds; up to as much again is added by chance.
const FULL_RETRY_S: u64 = 30;

/// The answer to come. Not `Send`: one thread.
pub type Answer = Pin<Box<dyn Future<Output = Response>>>;

/// The application: routes, decides, answers.
pub trait Service {
    /// Longest request body that is accepted for this call, bytes; more is answered with 413 and never kept.
    fn body_limit(&self, method: &str, path: &str) -> usize;

    /// Answers one request. The future may take as long as it wants (a parked poll); it is DROPPED as soon as the client
    /// leaves, so whatever it registered must deregister in `Drop`.
    fn call(&self, request: Request) -> Answer;

    /// Told of every peer that was turned away before a request of its could be answered, with a stable code. It may come
    /// thousands of times a second.
    fn turned_away(&self, _peer: SocketAddr, _code: &'static str) {}
}

/// How much a peer may take. `Limits::default()` is right for Director and Fleet.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request line and headers, bytes; more is answered with 431.
    pub head: usize,
    /// TCP accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// First byte of a request to the last byte of its body; slower is answered with 408.
    pub request: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Without one byte of an answer taken by the client.
    pub write_stall: Duration,
    /// For a piece of an answer (32 KiB): a client that takes a byte now and then does not hold a file for ever.
    pub write_piece: Duration,
    /// Connections at once; the next ones are told 503, and when there are too many of those too, closed.
    pub connections: usize,
    /// Handshakes and first requests at once; the next ones wait in the kernel's queue. Beyond
    /// a quarter, an address's own slow ones make room.
    pub arriving: usize,
    /// Connections of one address whose peer the application does not know ([`Known::vouch`]).
    pub strangers_per_address: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: 8 * 1024,
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            write_piece: Duration::from_secs(60),
            connections: 50_000,
            // Each takes less than a millisecond of CPU; with these the last one waits less than a second on a slow machine.
            arriving: 256,
            strangers_per_address: 1_024,
        }
    }
}

/// Serves until the future is dropped; connections then end with it when their executor does.
///
/// The listener is made non-blocking here. A certificate is changed without a restart through the configuration's
/// resolver (`director::pki` renews that way). Accept errors (no descriptors left) are logged once per minute with a code
/// and waited out, never spun on.
///
/// # Errors
/// Only when the listener cannot be registered with the reactor.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    service: Rc<dyn Service>,
    executor: &Rc<smol::LocalExecutor<'static>>,
    limits: Limits,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = Async::new(listener)?;
    let door = Door::new(&limits);
    let server = Rc::new(Server { tls, service, limits, scratch: Rc::new(Scratch::new()) });
    let (free, lane) = (Arc::new(Semaphore::new(limits.connections)), Arc::new(Semaphore::new(FULL_LANE)));
    let mut quiet_until = None;
    loop {
        let arrival = door.place().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                let server = server.clone();
                let guest = match door.enter(peer.ip(), arrival, now()) {
                    Ok(guest) => guest,
                    Err(door::TooMany(code)) => {
                        server.service.turned_away(peer, code);
                        continue;
                    }
                };
                if let Some(place) = free.try_acquire_arc() {
                    let task = async move {
                        server.connection(stream, peer, guest).await;
                        drop(place);
                    };
                    executor.spawn(task).detach();
                } else {
                    server.service.turned_away(peer, "connections_full");
                    let Some(place) = lane.try_acquire_arc() else { continue };
                    let task = async move {
                        within(FULL_TIME, server.say_full(stream, guest)).await;
                        drop(place);
                    };
                    executor.spawn(task).detach();
                }
            }
            // The client gave up while it was queued.
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted) => {}
            Err(e) => {
                if quiet_until.is_none_or(|until| now() >= until) {
                    log::error!("accept_failed: no new connections: {e}; raise the limit of open files if that is what is missing");
                    quiet_until = Some(now() + ACCEPT_LOG);
                }
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What all connections have in common.
struct Server {
    tls: Arc<rustls::ServerConfig>,
    service: Rc<dyn Service>,
    limits: Limits,
    scratch: Rc<Scratch>,
}

impl Server {
    async fn connection(&self, stream: Async<TcpStream>, peer: SocketAddr, guest: Rc<Guest>) {
        let Ok(mut conn) = Conn::new(stream, self.tls.clone(), self.scratch.clone()) else { return };
        let Some(mut incoming) = Box::pin(self.arrive(&mut conn, peer, &guest)).await else { return };
        let linger = loop {
            match incoming {
                Incoming::Closed => break false,
                Incoming::Refused(code, response) => {
                    self.service.turned_away(peer, code);
                    if self.send(&mut conn, *response, false, false).await.is_err() {
                        return;
                    }
                    break true;
                }
                Incoming::Complete { mut request, keep } => {
                    let head_only = request.method == "HEAD";
                    request.known = Known(Some(guest.clone()));
                    let called = {
                        // Moved in, so that its place on the heap is free before the call is parked.
                        let request = request;
                        self.service.call(*request)
                    };
                    // The peer left: the handler's future ends here with everything that it registered.
                    let Some(response) = conn.park(called).await else { break false };
                    let keep = keep && !response.closes();
                    if let Err(e) = self.send(&mut conn, response, head_only, keep).await {
                        return log::debug!("answer_lost: {peer}: {e}");
                    }
                    if !keep {
                        break true;
                    }
                }
            }
            let idle = if guest.known_by().is_some() { self.limits.idle } else { self.limits.handshake };
            // On the heap, so that it takes no place while a call is parked.
            incoming = Box::pin(request::next(&mut conn, &*self.service, &self.limits, idle, peer)).await;
        };
        Box::pin(conn.close(self.limits.write_stall, linger)).await;
    }

    /// The handshake and the first request; `None`: it came to nothing, and the connection is of no use any more.
    async fn arrive(&self, conn: &mut Conn, peer: SocketAddr, guest: &Guest) -> Option<Incoming> {
        let arrival = async {
            match within(self.limits.handshake, conn.handshake()).await {
                Some(Ok(())) => {}
                Some(Err(NoHandshake::PlainHttp)) => {
                    self.service.turned_away(peer, "plain_http");
                    conn.answer_plain().await;
                    return None;
                }
                Some(Err(NoHandshake::Left)) => return None,
                Some(Err(NoHandshake::Failed(e))) => {
                    log::debug!("handshake_failed: {peer}: {e}");
                    self.service.turned_away(peer, "handshake_failed");
                    return None;
                }
                None => {
                    self.service.turned_away(peer, "handshake_slow");
                    return None;
                }
            }
            Some(request::next(conn, &*self.service, &self.limits, self.limits.handshake, peer).await)
        };
        let ended = async {
            guest.ended().await;
            self.service.turned_away(peer, "arrival_slow");
            None
        };
        let incoming = smol::future::or(arrival, ended).await;
        guest.arrived();
        incoming
    }

    /// Tells a peer that all places are taken, so that it knows why and when to come back.
    async fn say_full(&self, stream: Async<TcpStream>, guest: Rc<Guest>) {
        let Ok(mut conn) = Conn::new(stream, self.tls.clone(), self.scratch.clone()) else { return };
        if conn.handshake().await.is_ok() {
            guest.arrived();
            let full = Response::error(503, "connections_full", "this server has as many connections as it may; come back later");
            let retry_after = FULL_RETRY_S + u64::from(crate::io::random::bytes::<1>()[0]) * FULL_RETRY_S / 255;
            if self.send(&mut conn, full.with("retry-after", retry_after.to_string()), false, false).await.is_ok() {
                conn.close(self.limits.write_stall, true).await;
            }
        }
    }

    /// On the heap, like everything that is not there while a call is parked: a future is as large as its largest part.
    fn send<'a>(
        &'a self,
        conn: &'a mut Conn,
        response: Response,
        head_only: bool,
        keep: bool,
    ) -> Pin<Box<impl Future<Output = io::Result<()>>>> {
        Box::pin(response::send(conn, &self.scratch, response, head_only, keep, &self.limits))
    }
}

#[expect(clippy::disallowed_methods, reason = "io::serve spaces its log lines with the monotonic clock")]
fn now() -> Instant {
    Instant::now()
}
