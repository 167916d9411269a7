use proptest::prelude::*;

use super::*;

/// Also what the fuzz target begins with.
mod heads;
use heads::{elf, macho, pe, put};

fn look(bytes: &[u8]) -> Result<Program, Reason> {
    inspect(&bytes[..bytes.len().min(HEAD)], bytes.len() as u64)
}

fn code(bytes: &[u8]) -> String {
    look(bytes).unwrap_err().code.to_string()
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
