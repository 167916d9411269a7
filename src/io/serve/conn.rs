//! One connection: a socket, its TLS, and nothing that a parked call does not need.

use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smol::{Async, Timer};

use super::scratch::{RECORD, Scratch};
use super::tls::Tls;

/// Bytes that may wait while a call is parked (pipelined requests); the rest stays in the socket.
const AHEAD: usize = 16 * 1024;
/// How long, and how much, a peer may go on talking after it was told to go away. Closing a socket with unread bytes in it
/// sends a reset, which would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// Why the handshake came to nothing.
pub(super) enum NoHandshake {
    /// The peer speaks plain HTTP.
    PlainHttp,
    /// The peer went away without a word that means anything: a health check of a load balancer, a scan.
    Left,
    /// Anything else, for the log.
    Failed(io::Error),
}

pub(super) struct Conn {
    stream: Async<TcpStream>,
    tls: Tls,
    scratch: Rc<Scratch>,
}

impl Conn {
    pub fn new(stream: Async<TcpStream>, config: Arc<rustls::ServerConfig>, scratch: Rc<Scratch>) -> io::Result<Conn> {
        // Answers are small, and the last record of a body must not wait for an acknowledgement.
        stream.get_ref().set_nodelay(true)?;
        Ok(Conn { stream, tls: Tls::new(config)?, scratch })
    }

    /// Decrypted bytes that wait to be taken.
    pub fn plain(&mut self) -> &mut Vec<u8> {
        &mut self.tls.plain
    }

    /// Frees whatever is empty: called before a connection falls silent.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.tls.plain, &mut self.tls.unsent, &mut self.tls.unfinished] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            } else {
                buffer.shrink_to_fit();
            }
        }
    }

    pub async fn handshake(&mut self) -> Result<(), NoHandshake> {
        while !self.tls.established {
            let before = self.tls.unsent.len();
            match poll_fn(|cx| self.poll_receive(cx)).await {
                Ok(true) => {}
                Ok(false) => return Err(NoHandshake::Left),
                Err(error) => {
                    let letter = self.tls.unfinished.first().is_some_and(u8::is_ascii_uppercase);
                    // The alert; whether it arrives is the peer's luck.
                    let _ = self.try_flush();
                    return Err(if letter && before == 0 { NoHandshake::PlainHttp } else { NoHandshake::Failed(error) });
                }
            }
        }
        self.shrink();
        Ok(())
    }

    /// More plain text. `false` = the peer is done.
    pub async fn receive(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// One read from the socket. Answers of the protocol itself (KeyUpdate) are sent along the way.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.tls.peer_closed {
                return Poll::Ready(Ok(false));
            }
            if !self.try_flush()? {
                // Unsent answers come first; a peer that does not take them gets no more of them.
                ready!(self.stream.poll_writable(cx))?;
                continue;
            }
            match self.read() {
                Ok(0) => return Poll::Ready(Ok(false)),
                Ok(_) => {
                    self.try_flush()?;
                    return Poll::Ready(Ok(true));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.stream.poll_readable(cx))?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut input = self.scratch.input.borrow_mut();
        let kept = self.tls.unfinished.len();
        input[..kept].copy_from_slice(&self.tls.unfinished);
        let n = self.stream.get_ref().read(&mut input[kept..kept + RECORD - 1])?;
        if !self.tls.established && self.tls.unfinished.is_empty() && input[..n].first().is_some_and(u8::is_ascii_uppercase) {
            // No TLS record begins with a letter: `GET `, `POST `. Kept for the handshake to see.
            self.tls.unfinished = input[..1].to_vec();
            return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP"));
        }
        if n > 0 {
            self.tls.feed(&mut input[..kept + n])?;
        }
        Ok(n)
    }

    /// Sends what can be sent now; `true` = everything.
    fn try_flush(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.tls.unsent.len() {
            match self.stream.get_ref().write(&self.tls.unsent[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        self.tls.unsent.drain(..sent);
        Ok(self.tls.unsent.is_empty())
    }

    /// Encrypts and sends; gives up when the peer takes nothing for `stall`.
    pub async fn send(&mut self, bytes: &[u8], stall: Duration) -> io::Result<()> {
        self.tls.seal(bytes)?;
        self.flush(stall).await
    }

    /// Encrypts now and sends later: for a piece of a shared buffer that must not be held across a wait.
    pub fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.seal(bytes)
    }

    /// Sends everything that is sealed.
    pub async fn flush(&mut self, stall: Duration) -> io::Result<()> {
        while !self.try_flush()? {
            match within(stall, poll_fn(|cx| self.stream.poll_writable(cx))).await {
                Some(ready) => ready?,
                None => return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")),
            }
        }
        Ok(())
    }

    /// Waits for `answer`; `None` = the peer left first. Whatever the peer sends meanwhile is kept for the next request.
    pub async fn park<'a, T>(&mut self, mut answer: std::pin::Pin<Box<dyn Future<Output = T> + 'a>>) -> Option<T> {
        self.shrink();
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Some(answer));
                }
                if self.tls.plain.len() > AHEAD {
                    return Poll::Pending;
                }
                match ready!(self.poll_receive(cx)) {
                    Ok(true) => self.shrink(),
                    Ok(false) | Err(_) => return Poll::Ready(None),
                }
            }
        })
        .await
    }

    /// Says close_notify. With `linger`, waits for the peer to have read what was said.
    pub async fn close(mut self, stall: Duration, linger: bool) {
        // When the protocol is broken there is no close_notify, but an alert may wait.
        let _ = self.tls.close();
        if self.flush(stall).await.is_ok() && linger {
            self.linger().await;
        }
    }

    /// Tells a peer that came with plain HTTP what to do, in its own language.
    pub async fn answer_plain(&self) {
        const SAYS: &str = "This port speaks HTTPS: use https:// in the address.\n";
        let text = format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{SAYS}",
            SAYS.len()
        );
        // An empty socket takes these 200 bytes at once.
        if self.stream.get_ref().write_all(text.as_bytes()).is_ok() {
            self.linger().await;
        }
    }

    async fn linger(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
        let mut left = LINGER_BYTES;
        let rest = poll_fn(|cx| {
            loop {
                let result = self.stream.get_ref().read(&mut self.scratch.input.borrow_mut());
                match result {
                    Ok(n) if n > 0 && n < left => left -= n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        if ready!(self.stream.poll_readable(cx)).is_err() {
                            return Poll::Ready(());
                        }
                    }
                    _ => return Poll::Ready(()),
                }
            }
        });
        within(LINGER, rest).await;
    }
}

/// The future's result, or `None` when it takes longer.
pub(super) async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    smol::future::or(async { Some(future.await) }, async {
        Timer::after(time).await;
        None
    })
    .await
}
