//! A Director's resources as an archive: read entry by entry, each judged by [`crate::core::package`] before it is used.
//!
//! [`walk`] is the only reader, of the release tool before it signs and of a Director before it unpacks: what the one takes,
//! the other takes. Constant memory: a window of at most 8 MiB, a table of hashes of names, pieces of 64 KiB.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use tar::Archive;

use crate::core::package::{BLOCK, Entry, Format, Kind, PADDING_MAX, Tally, Unpacked, WINDOW_MAX, entry};
use crate::core::reason::Reason;

#[cfg(feature = "director")]
pub mod again;
#[cfg(feature = "director")]
pub mod beside;
#[cfg(feature = "release")]
pub mod pack;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod unpack;

/// Bytes read and written at once.
const PIECE: usize = 64 * 1024;

/// What is done with the entries of an archive.
pub trait Sink {
    /// A folder; it may have been named by a file before.
    fn folder(&mut self, entry: &Entry) -> Result<(), Reason>;
    /// A file; `from` ends after its bytes, or earlier if the archive does.
    fn file(&mut self, entry: &Entry, from: &mut dyn Read) -> Result<(), Reason>;
}

/// Where an archive's packed bytes come from.
pub type Packed<'a> = Box<dyn BufRead + 'a>;

enum Unpacker<'a> {
    Zstd(Box<StreamingDecoder<Packed<'a>, FrameDecoder>>),
    Gzip(GzDecoder<Packed<'a>>),
}

impl Read for Unpacker<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Unpacker::Zstd(from) => from.read(buffer),
            Unpacker::Gzip(from) => from.read(buffer),
        }
    }
}

impl<'a> Unpacker<'a> {
    fn new(format: Format, mut packed: Packed<'a>) -> Result<Unpacker<'a>, Reason> {
        let begins = packed.fill_buf().map_err(|e| unreadable(&e))?.starts_with(format.magic());
        if !begins {
            return Err(Reason::new("package_format", "does not begin as its name says; pack it again"));
        }
        match format {
            Format::Gzip => Ok(Unpacker::Gzip(GzDecoder::new(packed))),
            Format::Zstd => match StreamingDecoder::new_with_max_window_size(packed, WINDOW_MAX) {
                Ok(decoder) => Ok(Unpacker::Zstd(Box::new(decoder))),
                Err(e) => {
                    let detail = format!("{e}; pack it with a window of at most {WINDOW_MAX} bytes (zstd up to -19, without --long)");
                    Err(Reason::new("package_format", detail))
                }
            },
        }
    }

    /// Nothing may lie behind the packed stream: another reader would take it for more of the archive.
    fn end(self) -> Result<(), Reason> {
        let mut packed = match self {
            Unpacker::Zstd(from) => from.into_inner(),
            Unpacker::Gzip(from) => from.into_inner(),
        };
        match packed.fill_buf().map_err(|e| unreadable(&e))?.is_empty() {
            true => Ok(()),
            false => Err(Reason::new("package_trailing", "has bytes behind the end of the packed stream; pack it again, in one piece")),
        }
    }
}

/// The packed stream is none, ends early, or its file cannot be read.
fn unreadable(error: &io::Error) -> Reason {
    Reason::new("package_truncated", format!("cannot be unpacked: {error}; pack it again"))
}

/// Reads an archive of so many packed bytes to its end. Nothing is given to `sink` that was not admitted.
///
/// # Errors
/// A code of [`crate::core::package`], or the sink's.
pub fn walk(
    format: Format,
    packed: Packed<'_>,
    packed_length: u64,
    declared: Option<Unpacked>,
    sink: &mut dyn Sink,
) -> Result<Unpacked, Reason> {
    let mut tally = Tally::new(packed_length, declared)?;
    let mut archive = Archive::new(Unpacker::new(format, packed)?);
    // Raw: the library applies no extension, so that one can be refused.
    let entries = archive.entries().map_err(|e| unreadable(&e))?.raw(true);
    for raw in entries {
        let mut raw = raw.map_err(|e| unreadable(&e))?;
        let header: &[u8; BLOCK] = raw.header().as_bytes();
        let Some(entry) = entry(header)? else { continue };
        tally.admit(&entry)?;
        match entry.kind {
            Kind::Folder => sink.folder(&entry)?,
            Kind::File { length, .. } => {
                let mut counted = Counted { from: &mut raw, seen: 0, failed: None };
                let done = sink.file(&entry, &mut counted);
                if let Some(e) = counted.failed {
                    return Err(unreadable(&e));
                }
                done?;
                if counted.seen != length {
                    return Err(Reason::new("package_truncated", format!("{}: the archive ends within it", entry.name)));
                }
            }
        }
    }
    let mut rest = archive.into_inner();
    padding(&mut rest)?;
    rest.end()?;
    tally.finish()
}

/// The second zero block, and zeros up to the end.
fn padding(rest: &mut dyn Read) -> Result<(), Reason> {
    let (mut piece, mut seen) = ([0; 4096], 0u64);
    loop {
        let n = rest.read(&mut piece).map_err(|e| unreadable(&e))?;
        seen += n as u64;
        match n {
            0 if seen < BLOCK as u64 => return Err(Reason::new("package_truncated", "has no end mark (two zero blocks); pack it again")),
            0 => return Ok(()),
            _ if seen > PADDING_MAX || piece[..n].iter().any(|b| *b != 0) => {
                return Err(Reason::new("package_trailing", "goes on behind its end mark; pack it again"));
            }
            _ => {}
        }
    }
}

/// A file's bytes, counted; an error of the archive is kept apart from one of the disk.
struct Counted<'a> {
    from: &'a mut dyn Read,
    seen: u64,
    failed: Option<io::Error>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buffer) {
            Ok(n) => {
                self.seen += n as u64;
                Ok(n)
            }
            Err(e) => {
                self.failed = Some(e);
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }
}

/// Looks an archive through and keeps nothing of it: what it unpacks to.
///
/// # Errors
/// As [`walk`].
pub fn measure(format: Format, packed: &[u8]) -> Result<Unpacked, Reason> {
    walk(format, Box::new(packed), packed.len() as u64, None, &mut Nothing)
}

/// The same for an archive of which it is signed what it unpacks to.
///
/// # Errors
/// As [`walk`].
pub fn look_through(format: Format, packed: Packed<'_>, packed_length: u64, declared: Unpacked) -> Result<(), Reason> {
    walk(format, packed, packed_length, Some(declared), &mut Nothing).map(drop)
}

struct Nothing;

impl Sink for Nothing {
    fn folder(&mut self, _: &Entry) -> Result<(), Reason> {
        Ok(())
    }

    fn file(&mut self, _: &Entry, from: &mut dyn Read) -> Result<(), Reason> {
        // What goes wrong is the archive's, and walk says it.
        let _ = io::copy(from, &mut io::sink());
        Ok(())
    }
}
