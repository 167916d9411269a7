//! ELF: Linux.

use super::{Fault, HEAD, Head, LOADER_MAX, Linkage, Program};

/// Program headers at most: a linker writes about ten.
const SEGMENTS_MAX: u64 = 128;
const LOAD: u64 = 1;
const INTERPRETER: u64 = 3;

/// Where the fields lie that differ between 32 and 64 bits: offset and size of an address, then offsets.
struct Layout {
    word: usize,
    segments: u64,
    sections: u64,
    counts: u64,
    in_file: u64,
    file_size: u64,
}

const BITS_64: Layout = Layout { word: 8, segments: 32, sections: 40, counts: 54, in_file: 8, file_size: 32 };
const BITS_32: Layout = Layout { word: 4, segments: 28, sections: 32, counts: 42, in_file: 4, file_size: 16 };

pub(super) fn read(head: Head) -> Result<Program, Fault> {
    let wide = head.number(4, 1)? == 2;
    let (at, os) = (if wide { BITS_64 } else { BITS_32 }, head.number(7, 1)?);
    // 0 is what a linker writes when nothing special is needed, 3 is Linux.
    let os = if os == 0 || os == 3 { "linux" } else { "other" };
    let little = head.number(5, 1)? == 1;
    let arch = match (head.u16(18)?, wide) {
        _ if !little => "other",
        (62, true) => "amd64",
        (183, true) => "arm64",
        (40, false) => "armv7",
        (3, false) => "x86",
        (243, true) => "riscv64",
        _ => "other",
    };
    if arch == "other" || os == "other" {
        return Ok(Program { os, arch, linkage: Linkage::Unknown, signed: false });
    }
    // 2: at a fixed address, 3: anywhere. A library is like the latter, and has no place to begin.
    if !matches!(head.u16(16)?, 2 | 3) || head.number(24, at.word)? == 0 {
        return Err(Fault::Not("it is an object file or a library"));
    }
    let (segments, size, count) = (head.number(at.segments, at.word)?, head.u16(at.counts)?, head.u16(at.counts + 2)?);
    head.holds(head.number(at.sections, at.word)?, head.u16(at.counts + 4)? * head.u16(at.counts + 6)?)?;
    head.holds(segments, size * count)?;
    if count > SEGMENTS_MAX {
        return Err(Fault::Not("it has too many segments"));
    }
    let far = segments.saturating_add(size * count) > HEAD as u64;
    let linkage = if far { Linkage::Unknown } else { segments_of(head, &at, segments, size, count)? };
    Ok(Program { os, arch, linkage, signed: false })
}

fn segments_of(head: Head, at: &Layout, first: u64, size: u64, count: u64) -> Result<Linkage, Fault> {
    let (mut linkage, mut loads) = (Linkage::Static, false);
    for segment in (0..count).map(|n| first + n * size) {
        let (start, length) = (head.number(segment + at.in_file, at.word)?, head.number(segment + at.file_size, at.word)?);
        head.holds(start, length)?;
        match head.u32(segment)? {
            LOAD => loads = true,
            INTERPRETER => linkage = loader(head, start, length),
            _ => {}
        }
    }
    if loads { Ok(linkage) } else { Err(Fault::Not("it has nothing to load")) }
}

/// The path of the loader: up to its zero byte, and nothing but what paths are made of.
fn loader(head: Head, start: u64, length: u64) -> Linkage {
    let text = usize::try_from(start).ok().zip(usize::try_from(length).ok()).filter(|(_, length)| *length <= LOADER_MAX);
    let text = text.and_then(|(start, length)| head.bytes.get(start..)?.get(..length));
    let text = text.and_then(|bytes| bytes.split(|b| *b == 0).next());
    match text.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
        Some(path) if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => Linkage::Loader(path.into()),
        _ => Linkage::Unknown,
    }
}
