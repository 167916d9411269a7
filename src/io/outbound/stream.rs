//! A socket with or without TLS, for one task. rustls' buffered connection is used: these are a handful of connections, not
//! thousands of parked ones.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use smol::Async;

/// The stream.
pub(super) struct Stream {
    socket: Async<TcpStream>,
    tls: Option<ClientConnection>,
}

impl Stream {
    /// Connects, and shakes hands when there are rules for it.
    pub async fn connect(address: SocketAddr, tls: Option<(Arc<ClientConfig>, ServerName<'static>)>) -> io::Result<Stream> {
        let socket = Async::<TcpStream>::connect(address).await?;
        // Requests are small and wait for their answers.
        socket.get_ref().set_nodelay(true)?;
        let tls = tls.map(|(rules, name)| ClientConnection::new(rules, name).map_err(invalid)).transpose()?;
        let mut stream = Stream { socket, tls };
        while stream.is_handshaking() {
            stream.flush().await?;
            if stream.is_handshaking() && !stream.fill().await? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended in the handshake"));
            }
        }
        stream.flush().await?;
        Ok(stream)
    }

    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Sends all of it.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            sent += match &mut self.tls {
                // The connection's own buffer is limited: it takes what fits.
                Some(tls) => tls.writer().write(&bytes[sent..])?,
                None => self.socket.write_with(|mut socket| socket.write(&bytes[sent..])).await?,
            };
            self.flush().await?;
        }
        Ok(())
    }

    /// What there is, at least a byte; 0 = the peer has ended in order.
    pub async fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return self.socket.read_with(|mut socket| socket.read(out)).await };
            match tls.reader().read(out) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            self.fill().await?;
        }
    }

    /// Sends what TLS has ready.
    async fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            self.socket.write_with(|mut socket| tls.write_tls(&mut socket)).await?;
        }
        Ok(())
    }

    /// Takes bytes from the socket into TLS; `false` = there are no more.
    async fn fill(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        let got = self.socket.read_with(|mut socket| tls.read_tls(&mut socket)).await?;
        if let Err(error) = tls.process_new_packets() {
            // The alert; whether it arrives is the peer's luck.
            let _ = tls.write_tls(&mut self.socket.get_ref());
            return Err(invalid(error));
        }
        self.flush().await?;
        Ok(got > 0)
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
