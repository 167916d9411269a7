//! A peer that says prepared bytes, for fuzzing: everything above the socket is the client that devices run.

use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::transport::Shared;
use super::{Http, INPUT, OUTPUT};
use crate::io::tls::PinVerifier;

#[derive(Debug)]
struct Peer {
    answer: Vec<u8>,
    piece: usize,
}

impl Connector<()> for Peer {
    type Out = Connection;

    fn connect(&self, _details: &ConnectionDetails, _chained: Option<()>) -> Result<Option<Connection>, ureq::Error> {
        let buffers = LazyBuffers::new(INPUT, OUTPUT);
        Ok(Some(Connection { left: self.answer.clone(), piece: self.piece, buffers }))
    }
}

struct Connection {
    left: Vec<u8>,
    piece: usize,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("left", &self.left.len()).finish_non_exhaustive()
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, _amount: usize, _timeout: NextTimeout) -> Result<(), ureq::Error> {
        Ok(())
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let room = self.buffers.input_append_buf();
        let n = self.piece.min(room.len()).min(self.left.len());
        for (place, byte) in room.iter_mut().zip(self.left.drain(..n)) {
            *place = byte;
        }
        self.buffers.input_appended(n);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl Http {
    /// A client whose every connection answers `answer`, at most `piece` bytes at a time, and ends.
    pub fn scripted(answer: Vec<u8>, piece: usize) -> Http {
        let shared = Arc::new(Shared {
            wake_fd: None,
            tick: || {},
            proxy: None,
            deadline: Mutex::new(None),
            connects: AtomicUsize::new(0),
            received: AtomicUsize::new(0),
            patience_s: AtomicU32::new(0),
        });
        let verifier = Arc::new(PinVerifier::new(vec![[0; 32]]));
        Http::over(Peer { answer, piece: piece.max(1) }, "fuzz", None, shared, verifier)
    }
}
