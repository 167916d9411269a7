//! One TLS connection without buffers of its own: bytes in, bytes out, no socket.
//!
//! ```text
//!  ciphertext -> feed() -> plain      what the peer said
//!                       -> unsent     handshake messages, KeyUpdate answers, alerts
//!  seal(bytes), close() -> unsent     what we say
//! ```

use std::io;
use std::mem::take;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic};

use super::scratch::RECORD;

/// Most that a peer can make us queue without taking any of it: a flood of KeyUpdates ends here.
const UNSENT_MAX: usize = 256 * 1024;

/// Room for a handshake message to begin with; a longer one says how much it needs. Hundreds of handshakes at once must not
/// leave a heap of large holes behind.
const FLIGHT: usize = 2 * 1024;

/// See the module's text. Every buffer is freed as soon as it is empty.
pub(super) struct Tls {
    connection: UnbufferedServerConnection,
    /// The beginning of a record that is not complete.
    pub unfinished: Vec<u8>,
    /// Decrypted and not yet taken.
    pub plain: Vec<u8>,
    /// Encrypted and not yet sent.
    pub unsent: Vec<u8>,
    /// The handshake is done.
    pub established: bool,
    /// The peer sent close_notify: nothing more will come.
    pub peer_closed: bool,
}

/// What to do once the connection may write.
enum Then<'a> {
    Nothing,
    Seal(&'a [u8]),
    Close,
}

impl Tls {
    pub fn new(config: Arc<ServerConfig>) -> io::Result<Tls> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (unfinished, plain, unsent) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Tls { connection, unfinished, plain, unsent, established: false, peer_closed: false })
    }

    /// Takes `bytes`, which begin with [`Self::unfinished`].
    ///
    /// # Errors
    /// The peer broke the protocol; [`Self::unsent`] then ends with the alert that says so.
    pub fn feed(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let used = self.drive(bytes, Then::Nothing)?;
        let left = &bytes[used..];
        if left.len() > RECORD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message of more than 16 KiB"));
        }
        self.unfinished = left.to_vec();
        Ok(())
    }

    /// Encrypts application data.
    pub fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.without_input(Then::Seal(bytes))
    }

    /// Says close_notify.
    pub fn close(&mut self) -> io::Result<()> {
        self.without_input(Then::Close)
    }

    fn without_input(&mut self, then: Then<'_>) -> io::Result<()> {
        let mut unfinished = take(&mut self.unfinished);
        let used = self.drive(&mut unfinished, then)?;
        unfinished.drain(..used.min(unfinished.len()));
        self.unfinished = unfinished;
        Ok(())
    }

    /// Turns the crank until the connection has nothing more to do; how many bytes were used.
    fn drive(&mut self, bytes: &mut [u8], then: Then<'_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut bytes[used..]);
            let mut done = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        self.plain.extend_from_slice(record.map_err(invalid)?.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.unsent, FLIGHT, |out| match data.encode(out) {
                        Err(EncodeError::InsufficientSize(e)) => Err(Some(e)),
                        other => other.map_err(|_| None),
                    })?;
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    self.established = true;
                    write(&mut traffic, &mut self.unsent, &then)?;
                    done = true;
                }
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::Closed) => {
                    self.peer_closed = true;
                    done = true;
                }
                Ok(ConnectionState::BlockedHandshake) => done = true,
                Ok(_) => return Err(io::Error::other("a TLS state that this server does not enter")),
                Err(error) => {
                    self.collect_alert(&mut bytes[used + discard..]);
                    return Err(invalid(error));
                }
            }
            used += discard;
            if self.unsent.len() > UNSENT_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer asks and does not read"));
            }
            if done {
                return Ok(used);
            }
        }
    }

    /// After an error the alert waits to be encoded. The library has noted places in the bytes that it has not let go: it
    /// must see the same ones again, or it panics.
    fn collect_alert(&mut self, rest: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process_tls_records(rest).state {
            let _ = append(&mut self.unsent, FLIGHT, |out| data.encode(out).map_err(|_| None));
        }
    }
}

fn write<D>(traffic: &mut WriteTraffic<'_, D>, unsent: &mut Vec<u8>, then: &Then<'_>) -> io::Result<()> {
    let size = |error| match error {
        EncryptError::InsufficientSize(e) => Some(e),
        EncryptError::EncryptExhausted => None,
    };
    match then {
        Then::Nothing => Ok(()),
        // Each record adds 22 bytes.
        Then::Seal(bytes) => append(unsent, bytes.len() + 22 * (1 + bytes.len() / 16_384), |out| traffic.encrypt(bytes, out).map_err(size)),
        Then::Close => append(unsent, 64, |out| traffic.queue_close_notify(out).map_err(size)),
    }
}

/// Appends what `encode` writes; it says so when `guess` bytes of room were too few.
fn append(
    out: &mut Vec<u8>,
    guess: usize,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> io::Result<()> {
    let at = out.len();
    out.resize(at + guess, 0);
    let mut written = encode(&mut out[at..]);
    if let Err(Some(InsufficientSizeError { required_size })) = written {
        out.resize(at + required_size, 0);
        written = encode(&mut out[at..]);
    }
    out.truncate(at + *written.as_ref().unwrap_or(&0));
    written.map(|_| ()).map_err(|_| io::Error::other("TLS keys are used up"))
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
