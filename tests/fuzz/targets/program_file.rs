//! The head of a program file: eight bytes say how much longer the file is, the rest is its head.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::core::program_file::{HEAD, LOADER_MAX, Linkage, inspect, inspect_own};
use vmetric::core::release::{ARCH_NAMES, OS_NAMES, Platform};

fuzz_target!(|bytes: &[u8]| {
    let Some((more, head)) = bytes.split_first_chunk::<8>() else { return };
    let head = &head[..head.len().min(HEAD)];
    let length = (head.len() as u64).saturating_add(u64::from_le_bytes(*more));
    let program = match inspect(head, length) {
        Ok(program) => program,
        Err(reason) => {
            assert!(matches!(reason.code.as_ref(), "not_a_program" | "truncated_program") && reason.detail.ends_with("again"), "{reason:?}");
            assert!(inspect_own(head, length).is_err());
            return;
        }
    };
    let fits = OS_NAMES.iter().flat_map(|os| ARCH_NAMES.map(|arch| Platform { os: (*os).into(), arch: arch.into() }));
    assert!(fits.filter(|platform| program.fits(platform).is_ok()).count() <= 1, "{program:?}");
    if let Linkage::Loader(path) = &program.linkage {
        assert!(path.starts_with('/') && path.len() <= LOADER_MAX && path.bytes().all(|b| b.is_ascii_graphic()), "{path:?}");
    }
    // What is whole stays so when more follows; and a device knows its own form as anybody does.
    assert_eq!(inspect(head, length.saturating_add(1)).as_ref(), Ok(&program));
    if let Ok(own) = inspect_own(head, length) {
        assert_eq!(own, program);
    }
});
