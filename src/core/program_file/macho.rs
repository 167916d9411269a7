//! Mach-O with 64 bits: macOS.

use super::{Fault, Head, Linkage, Program};

/// Load commands at most: a linker writes about twenty.
const COMMANDS_MAX: u64 = 512;
const HEADER_SIZE: u64 = 32;
const EXECUTABLE: u64 = 2;
const SEGMENT: u64 = 0x19;
const CODE_SIGNATURE: u64 = 0x1d;
const BUILD_VERSION: u64 = 0x32;
/// As [`BUILD_VERSION`] names it.
const MACOS: u64 = 1;

pub(super) fn read(head: Head) -> Result<Program, Fault> {
    let arch = match head.u32(4)? {
        0x0100_0007 => "amd64",
        0x0100_000c => "arm64",
        _ => "other",
    };
    if head.u32(12)? != EXECUTABLE {
        return Err(Fault::Not("it is an object file or a library"));
    }
    let count = head.u32(16)?;
    if count == 0 || count > COMMANDS_MAX {
        return Err(Fault::Not("it has no load commands, or too many"));
    }
    let (mut os, mut signed, mut at) = ("darwin", false, HEADER_SIZE);
    for _ in 0..count {
        let (command, size) = (head.u32(at)?, head.u32(at + 4)?);
        match command {
            SEGMENT => head.holds(head.u64(at + 40)?, head.u64(at + 48)?)?,
            CODE_SIGNATURE => {
                let (start, length) = (head.u32(at + 8)?, head.u32(at + 12)?);
                head.holds(start, length)?;
                signed = length > 0;
            }
            BUILD_VERSION if head.u32(at + 8)? != MACOS => os = "other",
            _ => {}
        }
        if size < 8 {
            return Err(Fault::Not("its load commands are damaged"));
        }
        at += size;
    }
    Ok(Program { os, arch, linkage: Linkage::System, signed })
}
