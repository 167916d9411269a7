//! The HTTPS server of Director and Fleet: tens of thousands of parked polls on one thread.
//!
//! ```text
//!  accept -> handshake -> [ request head -> body -> Service::call -> response ]* -> close_notify
//!                              ^ idle (75 s)          ^ parked: the handler decides how long
//! ```
//!
//! Sans-IO parts on one loop: rustls' unbuffered connections and `ureq-proto`'s request machine, with scratch buffers
//! that all connections share (`scratch`). A parked connection owns its socket, its TLS keys, the handler's future and
//! the bytes that came too early, nothing else.
//!
//! Absent on purpose: routing, ranges, compression, HTTP/2, cookies. The [`Service`] answers; `Range` and `HEAD` are its job
//! (a `HEAD` answer's body is measured for `Content-Length` and not sent).

mod conn;
mod request;
mod response;
mod scratch;
mod tls;

pub use request::Request;
pub use response::{Body, Response};

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
use request::Incoming;
use scratch::Scratch;

/// After an accept that failed: the reason does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// One line about it per minute.
const ACCEPT_LOG: Duration = Duration::from_secs(60);

/// The answer to come. Not `Send`: one thread.
pub type Answer = Pin<Box<dyn Future<Output = Response>>>;

/// The application: routes, decides, answers.
pub trait Service {
    /// Longest request body that is accepted for this call, bytes; more is answered with 413 and never kept.
    fn body_limit(&self, method: &str, path: &str) -> usize;

    /// Answers one request. The future may take as long as it wants (a parked poll); it is DROPPED as soon as the client
    /// leaves, so whatever it registered must deregister in `Drop`.
    fn call(&self, request: Request) -> Answer;
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
    /// Connections at once; the next ones wait in the kernel's queue.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: 8 * 1024,
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            connections: 50_000,
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
    let server = Rc::new(Server { tls, service, limits, scratch: Rc::new(Scratch::new()) });
    let free = Arc::new(Semaphore::new(limits.connections));
    let mut quiet_until = None;
    loop {
        let place = free.acquire_arc().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                let server = server.clone();
                let task = async move {
                    server.connection(stream, peer).await;
                    drop(place);
                };
                executor.spawn(task).detach();
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
    async fn connection(&self, stream: Async<TcpStream>, peer: SocketAddr) {
        let Ok(mut conn) = Conn::new(stream, self.tls.clone(), self.scratch.clone()) else { return };
        match within(self.limits.handshake, Box::pin(conn.handshake())).await {
            Some(Ok(())) => {}
            Some(Err(NoHandshake::PlainHttp)) => {
                log::info!("plain_http: {peer} speaks plain HTTP to the HTTPS port; it was told so");
                return Box::pin(conn.answer_plain()).await;
            }
            Some(Err(NoHandshake::Failed(e))) => return log::debug!("handshake_failed: {peer}: {e}"),
            None => return log::debug!("handshake_failed: {peer}: took too long"),
        }
        let linger = loop {
            match request::next(&mut conn, &*self.service, &self.limits, Some(peer)).await {
                Incoming::Closed => break false,
                Incoming::Refused(response) => {
                    log::debug!("request_refused: {peer}: {}", response.status);
                    if self.send(&mut conn, response, false, false).await.is_err() {
                        return;
                    }
                    break true;
                }
                Incoming::Complete { request, keep } => {
                    let head_only = request.method == "HEAD";
                    // The peer left: the handler's future ends here with everything that it registered.
                    let Some(response) = conn.park(self.service.call(request)).await else { break false };
                    if let Err(e) = self.send(&mut conn, response, head_only, keep).await {
                        return log::debug!("answer_lost: {peer}: {e}");
                    }
                    if !keep {
                        break true;
                    }
                }
            }
        };
        Box::pin(conn.close(self.limits.write_stall, linger)).await;
    }

    /// On the heap, like everything that is not there while a call is parked: a future is as large as its largest part.
    fn send<'a>(
        &'a self,
        conn: &'a mut Conn,
        response: Response,
        head_only: bool,
        keep: bool,
    ) -> Pin<Box<impl Future<Output = io::Result<()>>>> {
        Box::pin(response::send(conn, &self.scratch, response, head_only, keep, self.limits.write_stall))
    }
}

#[expect(clippy::disallowed_methods, reason = "io::serve spaces its log lines with the monotonic clock")]
fn now() -> Instant {
    Instant::now()
}
