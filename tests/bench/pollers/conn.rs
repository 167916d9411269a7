//! One connection: TLS 1.3 under a pin, and as much of HTTP/1.1 as a poll needs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use smol::Async;

/// Time for a connection and its handshake; the agent's own.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest answer's head.
const HEAD_MAX: usize = 8 * 1024;

/// An answer: what a poll needs of it.
#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub retry_after_s: Option<u64>,
    /// For nchan: where the next poll goes on.
    pub last_modified: String,
    pub etag: String,
    pub body: Vec<u8>,
}

pub struct Conn {
    stream: Async<TcpStream>,
    tls: ClientConnection,
    plain: Vec<u8>,
}

impl Conn {
    pub async fn open(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Conn> {
        within(CONNECT, async {
            let stream = Async::<TcpStream>::connect(address).await?;
            stream.get_ref().set_nodelay(true)?;
            let name = ServerName::IpAddress(address.ip().into());
            let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
            let mut conn = Conn { stream, tls, plain: Vec::new() };
            while conn.tls.is_handshaking() {
                conn.flush().await?;
                if conn.tls.is_handshaking() {
                    conn.receive().await?;
                }
            }
            conn.flush().await?;
            Ok(conn)
        })
        .await
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream.get_ref()) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<()> {
        loop {
            match self.tls.read_tls(&mut self.stream.get_ref()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => break,
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.stream.readable().await?,
                Err(e) => return Err(e),
            }
        }
        let state = self.tls.process_new_packets().map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        let at = self.plain.len();
        self.plain.resize(at + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut self.plain[at..])
    }

    /// Sends a request and waits for its answer, however long that takes.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
        self.tls.writer().write_all(request)?;
        self.flush().await?;
        let head = loop {
            if let Some(end) = self.plain.windows(4).position(|w| w == b"\r\n\r\n") {
                break String::from_utf8_lossy(&self.plain[..end]).into_owned();
            }
            if self.plain.len() > HEAD_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            self.receive().await?;
        };
        self.plain.drain(..head.len() + 4);
        let (mut reply, length) = read_head(&head).ok_or(ErrorKind::InvalidData)?;
        while self.plain.len() < length {
            self.receive().await?;
        }
        reply.body = self.plain.drain(..length).collect();
        if self.plain.is_empty() {
            self.plain = Vec::new();
        }
        Ok(reply)
    }
}

fn read_head(head: &str) -> Option<(Reply, usize)> {
    let mut lines = head.split("\r\n");
    let mut reply = Reply { status: lines.next()?.split(' ').nth(1)?.parse().ok()?, ..Default::default() };
    let mut length = 0;
    for (name, value) in lines.filter_map(|l| l.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "retry-after" => reply.retry_after_s = value.parse().ok(),
            "last-modified" => reply.last_modified = value.into(),
            "etag" => reply.etag = value.into(),
            _ => {}
        }
    }
    Some((reply, length))
}

/// The future's result, or `TimedOut`.
pub async fn within<T>(time: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    smol::future::or(future, async {
        smol::Timer::after(time).await;
        Err(ErrorKind::TimedOut.into())
    })
    .await
}
