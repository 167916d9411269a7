//! Buffers that all connections of one thread share: borrowed between two awaits, never across one.

use std::cell::RefCell;

/// Largest TLS record on the wire: header, 16 KiB, and what encryption may add.
pub(super) const RECORD: usize = 5 + 16 * 1024 + 256;
/// Bytes of a body that are encrypted and sent in one go.
pub(super) const PIECE: usize = 32 * 1024;

/// One per server.
#[derive(Debug)]
pub(super) struct Scratch {
    /// The unfinished record of a connection, then what was just read.
    pub input: RefCell<Box<[u8]>>,
    /// What was just read from a file.
    pub file: RefCell<Box<[u8]>>,
}

impl Scratch {
    pub fn new() -> Scratch {
        let zeros = |n| RefCell::new(vec![0; n].into_boxed_slice());
        Scratch { input: zeros(2 * RECORD), file: zeros(PIECE) }
    }
}
