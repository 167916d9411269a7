use proptest::prelude::*;

use super::*;

/// Puts a number at its place, little-endian.
fn put(bytes: &mut Vec<u8>, at: usize, size: usize, value: u64) {
    if bytes.len() < at + size {
        bytes.resize(at + size, 0);
    }
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// The smallest ELF program: one segment that is loaded, and a loader if there is one.
fn elf(machine: u64, wide: bool, loader: &str) -> Vec<u8> {
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

const LOAD: u64 = 1;
const INTERPRETER: u64 = 3;

fn pe(machine: u64) -> Vec<u8> {
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

fn macho(cpu: u64, signature: u64) -> Vec<u8> {
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

fn look(bytes: &[u8]) -> Result<Program, Reason> {
    inspect(&bytes[..bytes.len().min(HEAD)], bytes.len() as u64)
}

fn code(bytes: &[u8]) -> String {
    look(bytes).unwrap_err().code.into_owned()
}

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

#[test]
fn each_platform_is_known_and_no_other_fits() {
    let musl = "/lib/ld-musl-x86_64.so.1";
    let all = [
        ("linux-amd64", elf(62, true, musl)),
        ("linux-arm64", elf(183, true, "")),
        ("linux-armv7", elf(40, false, "")),
        ("windows-amd64", pe(0x8664)),
        ("windows-arm64", pe(0xaa64)),
        ("darwin-amd64", macho(0x0100_0007, 0)),
        ("darwin-arm64", macho(0x0100_000c, 40)),
    ];
    for (name, bytes) in &all {
        let program = look(bytes).unwrap();
        for (other, _) in &all {
            let fits = program.fits(&platform(other));
            assert_eq!(fits.is_ok(), name == other, "{name} on {other}");
            assert!(fits.is_ok() || fits.as_ref().unwrap_err().code == "wrong_architecture", "{fits:?}");
        }
    }
    assert_eq!(look(&all[0].1).unwrap().linkage, Linkage::Loader(musl.into()));
    assert_eq!(look(&all[0].1).unwrap().libc(), "musl");
    assert_eq!(look(&all[1].1).unwrap().linkage, Linkage::Static);
    assert_eq!(look(&elf(183, true, "/lib/ld-linux-aarch64.so.1")).unwrap().libc(), "glibc");
}

#[test]
fn processors_of_other_devices_are_no_platform_of_ours() {
    // x32, a 32-bit system on arm64, PowerPC, big-endian arm64, FreeBSD, EFI.
    let mut big = elf(183, true, "");
    big[5] = 2;
    let mut bsd = elf(62, true, "");
    bsd[7] = 9;
    let mut efi = pe(0x8664);
    efi[0x98 + 68] = 10;
    let mut phone = macho(0x0100_000c, 40);
    phone[112] = 2;
    for bytes in [elf(62, false, ""), elf(183, false, ""), elf(21, true, ""), big, bsd, efi, phone] {
        let program = look(&bytes).unwrap();
        for os in crate::core::release::OS_NAMES {
            for arch in crate::core::release::ARCH_NAMES {
                assert!(program.fits(&platform(&format!("{os}-{arch}"))).is_err(), "{program:?}");
            }
        }
    }
}

#[test]
fn an_unsigned_program_for_a_mac_on_arm64_is_refused() {
    let arm = look(&macho(0x0100_000c, 0)).unwrap();
    assert_eq!(arm.fits(&platform("darwin-arm64")).unwrap_err().code, "unsigned_program");
    assert!(look(&macho(0x0100_0007, 0)).unwrap().fits(&platform("darwin-amd64")).is_ok());
}

#[test]
fn what_is_cut_off_is_truncated() {
    for whole in [elf(62, true, "/lib64/ld-linux-x86-64.so.2"), elf(40, false, ""), pe(0x8664), macho(0x0100_000c, 40)] {
        assert!(look(&whole).is_ok());
        for length in 8..whole.len() {
            assert_eq!(code(&whole[..length]), "truncated_program", "{length} of {}", whole.len());
        }
        // A program file may be longer than its contents.
        let mut longer = whole.clone();
        longer.resize(HEAD + 3, 0);
        assert_eq!(look(&longer), look(&whole));
    }
}

#[test]
fn what_is_no_program_is_named() {
    let mut library = elf(62, true, "");
    put(&mut library, 24, 8, 0);
    let mut object = elf(62, true, "");
    put(&mut object, 16, 2, 1);
    let mut dll = pe(0x8664);
    put(&mut dll, 0x96, 2, 0x2022);
    for bytes in [&b""[..], b"#!/bin/sh\n", b"agent 1.0.0", b"\xca\xfe\xba\xbe\0\0\0\x02", &library, &object, &dll] {
        let reason = look(bytes).unwrap_err();
        assert!(reason.code == "not_a_program" && reason.detail.ends_with("again"), "{reason}");
    }
    assert_eq!(inspect_own(&pe(0x8664), 1024).is_ok(), cfg!(windows));
}

#[test]
fn hostile_numbers_end_in_a_reason() {
    // Everything at the end of what 64 bits can say.
    for at in 8..120 {
        let mut bytes = elf(62, true, "/lib/x");
        put(&mut bytes, at, 8, u64::MAX);
        let _ = look(&bytes);
    }
    // A loader that is no path.
    for loader in ["lib/x", "/lib/\u{1b}[2J"] {
        assert_eq!(look(&elf(62, true, loader)).unwrap().linkage, Linkage::Unknown);
    }
    // A load command of no length would be read for ever.
    let mut still = macho(0x0100_000c, 40);
    put(&mut still, 36, 4, 0);
    assert_eq!(code(&still), "not_a_program");
}

#[test]
fn this_very_program_fits_this_device() {
    let path = std::env::current_exe().unwrap();
    let bytes = crate::io::fs::read_head(&path, HEAD).unwrap();
    let program = inspect_own(&bytes.0, bytes.1).unwrap();
    assert_eq!(inspect(&bytes.0, bytes.1).unwrap(), program);
    program.fits(&Platform::here()).unwrap();
    if let Linkage::Loader(loader) = &program.linkage {
        assert!(std::path::Path::new(loader).exists());
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(
        which in 0..4usize,
        bends in prop::collection::vec((0..600usize, any::<u8>()), 0..8),
        cut in 0..1100usize,
        length in any::<u64>(),
    ) {
        let mut bytes = [elf(62, true, "/lib/ld-musl-x86_64.so.1"), elf(40, false, ""), pe(0x8664), macho(0x0100_000c, 40)][which].clone();
        for (at, value) in bends {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut);
        for length in [bytes.len() as u64, length.max(bytes.len() as u64)] {
            match inspect(&bytes, length) {
                Ok(program) => prop_assert!(program.fits(&platform("linux-amd64")).is_ok() || program.os != "linux" || program.arch != "amd64"),
                Err(reason) => prop_assert!(matches!(reason.code.as_ref(), "not_a_program" | "truncated_program")),
            }
        }
    }
}
