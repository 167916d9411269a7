//! PE: Windows.

use super::{Fault, Head, Linkage, Program};

/// Sections at most, as Windows has it.
const SECTIONS_MAX: u64 = 96;
const SECTION_SIZE: u64 = 40;
/// Characteristics: can be run, is a library.
const RUNS: u64 = 0x0002;
const LIBRARY: u64 = 0x2000;

pub(super) fn read(head: Head) -> Result<Program, Fault> {
    let pe = head.u32(0x3c)?;
    if head.u32(pe)? != u64::from(u32::from_le_bytes(*b"PE\0\0")) {
        return Err(Fault::Not("it is made for DOS"));
    }
    let arch = match head.u16(pe + 4)? {
        0x8664 => "amd64",
        0xaa64 => "arm64",
        0x01c4 => "armv7",
        0x014c => "x86",
        _ => "other",
    };
    let (sections, optional_size, kind) = (head.u16(pe + 6)?, head.u16(pe + 20)?, head.u16(pe + 22)?);
    if kind & RUNS == 0 || kind & LIBRARY != 0 {
        return Err(Fault::Not("it is an object file or a library"));
    }
    if sections == 0 || sections > SECTIONS_MAX {
        return Err(Fault::Not("it has no sections, or too many"));
    }
    let optional = pe + 24;
    // 2: with windows, 3: in a console. What else there is starts without Windows.
    let os = if matches!(head.u16(optional + 68)?, 2 | 3) { "windows" } else { "other" };
    for section in (0..sections).map(|n| optional + optional_size + n * SECTION_SIZE) {
        head.holds(head.u32(section + 20)?, head.u32(section + 16)?)?;
    }
    Ok(Program { os, arch, linkage: Linkage::System, signed: false })
}
