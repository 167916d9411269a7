//! The smallest program files of each form.

const LOAD: u64 = 1;
const INTERPRETER: u64 = 3;

/// Puts a number at its place, little-endian.
pub fn put(bytes: &mut Vec<u8>, at: usize, size: usize, value: u64) {
    if bytes.len() < at + size {
        bytes.resize(at + size, 0);
    }
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// The smallest ELF program: one segment that is loaded, and a loader if there is one.
pub fn elf(machine: u64, wide: bool, loader: &str) -> Vec<u8> {
    let mut b = b"\x7fELF\x01\x01\x01\0".to_vec();
    b[4] = if wide { 2 } else { 1 };
    let (word, segments, sections, counts, size) = if wide { (8, 32, 40, 54, 56) } else { (4, 28, 32, 42, 32) };
    let (in_file, file_size) = if wide { (8, 32) } else { (4, 16) };
    for (at, size, value) in [(16, 2, 2), (18, 2, machine), (24, word, 0x1000), (segments, word, 64), (sections, word, 0)] {
        put(&mut b, at, size, value);
    }
    let count = if loader.is_empty() { 1 } else { 2 };
    for (n, value) in [size as u64, count, 0, 0].into_iter().enumerate() {
        put(&mut b, counts + 2 * n, 2, value);
    }
    put(&mut b, 64, 4, LOAD);
    put(&mut b, 64 + file_size, word, 256);
    if !loader.is_empty() {
        let at = 64 + size;
        put(&mut b, at, 4, INTERPRETER);
        put(&mut b, at + in_file, word, 200);
        put(&mut b, at + file_size, word, loader.len() as u64 + 1);
    }
    b.resize(256, 0);
    b[200..200 + loader.len()].copy_from_slice(loader.as_bytes());
    b
}

/// A Windows program in a console.
pub fn pe(machine: u64) -> Vec<u8> {
    let mut b = b"MZ".to_vec();
    for (at, size, value) in [(0x3c, 4, 0x80), (0x80, 4, 0x4550), (0x84, 2, machine), (0x86, 2, 1), (0x94, 2, 240), (0x96, 2, 0x22)] {
        put(&mut b, at, size, value);
    }
    let (optional, section) = (0x98, 0x98 + 240);
    for (at, size, value) in [(optional, 2, 0x20b), (optional + 68, 2, 3), (section + 16, 4, 512), (section + 20, 4, 512)] {
        put(&mut b, at, size, value);
    }
    b.resize(1024, 0);
    b
}

/// A macOS program, its code signature of so many bytes.
pub fn macho(cpu: u64, signature: u64) -> Vec<u8> {
    let mut b = vec![0xcf, 0xfa, 0xed, 0xfe];
    for (at, value) in [(4, cpu), (12, 2), (16, 3), (32, 0x19), (36, 72), (104, 0x32), (108, 24), (112, 1), (128, 0x1d), (132, 16)] {
        put(&mut b, at, 4, value);
    }
    put(&mut b, 32 + 48, 8, 600);
    put(&mut b, 136, 4, 600 - signature);
    put(&mut b, 140, 4, signature);
    b.resize(600, 0);
    b
}
