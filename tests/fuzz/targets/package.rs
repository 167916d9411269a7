//! Resource packages: what is taken has one name for each file, no way out of its folder, and unpacks to what was declared.
//!
//! The first byte chooses the packing: 0 a stream as it is, 1 as zstd, 2 as gzip; for 1 and 2 the bytes are a tar whose
//! checksums are made good and which is packed here, so that mutation gets behind packing and checksums.

#![no_main]

use std::collections::BTreeSet;
use std::io::Read;

use libfuzzer_sys::fuzz_target;
use vmetric::core::package::{BLOCK, DEPTH_MAX, Entry, Format, Kind, NAME_MAX, UNPACKED_MAX, Unpacked};
use vmetric::core::reason::Reason;
use vmetric::io::package::{Sink, walk};

#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    files: u64,
    bytes: u64,
}

impl Seen {
    fn name(&mut self, entry: &Entry) {
        let name = &entry.name;
        assert!(name.len() <= NAME_MAX && name.split('/').count() <= DEPTH_MAX);
        assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.ends_with(['.', ' '])), "{name}");
        assert!(name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'\\' && b != b':'), "{name}");
        assert!(self.names.insert(name.to_ascii_lowercase()), "{name} twice");
    }
}

impl Sink for Seen {
    fn folder(&mut self, entry: &Entry) -> Result<(), Reason> {
        self.name(entry);
        Ok(())
    }

    fn file(&mut self, entry: &Entry, from: &mut dyn Read) -> Result<(), Reason> {
        self.name(entry);
        let Kind::File { length, .. } = entry.kind else { unreachable!() };
        let read = std::io::copy(from, &mut std::io::sink()).unwrap_or(0);
        assert!(read <= length && length <= UNPACKED_MAX);
        (self.files, self.bytes) = (self.files + 1, self.bytes + read);
        Ok(())
    }
}

fn tried(format: Format, packed: &[u8]) {
    let mut seen = Seen::default();
    match walk(format, Box::new(packed), packed.len() as u64, None, &mut seen) {
        Ok(found) => {
            assert_eq!(found, Unpacked { bytes: seen.bytes, files: seen.files });
            let again = walk(format, Box::new(packed), packed.len() as u64, Some(found), &mut Seen::default());
            assert_eq!(again, Ok(found));
            let fewer = Unpacked { files: found.files.wrapping_sub(1), ..found };
            assert!(walk(format, Box::new(packed), packed.len() as u64, Some(fewer), &mut Seen::default()).is_err());
        }
        Err(reason) => {
            assert!(reason.code.starts_with("package_") && !reason.detail.contains(char::is_control), "{reason:?}");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    if how % 3 == 0 {
        tried(Format::Zstd, bytes);
        tried(Format::Gzip, bytes);
        return;
    }
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    match how % 3 {
        1 => tried(Format::Zstd, &stored_zstd(&tar)),
        _ => tried(Format::Gzip, &stored_gzip(&tar)),
    }
});

/// A zstd frame of raw blocks: quick, and every byte of the tar stays where it is.
fn stored_zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38];
    let mut blocks = bytes.chunks(64 * 1024).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&1u32.to_le_bytes()[..3]);
    }
    while let Some(block) = blocks.next() {
        let head = (block.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        out.extend_from_slice(&head.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// The same for gzip.
fn stored_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = bytes.chunks(0xffff).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out
}
