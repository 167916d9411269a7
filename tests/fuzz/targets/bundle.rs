//! The offline bundle: what is accepted is, byte for byte, what `vmetric-release bundle` would write for its members.
//!
//! Every input is also tried with the checksums of its headers made good, so that mutation gets behind them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::core::bundle::{BLOCK, MEMBERS_MAX, Member, Walk, header};

fn walk(bytes: &[u8]) -> Result<Vec<Member>, String> {
    let mut walk = Walk::new(bytes.len() as u64).map_err(|e| e.code.to_string())?;
    let (mut members, mut blocks) = (Vec::new(), 0);
    while let Some(at) = walk.wants() {
        blocks += 1;
        assert!(blocks <= 2 * MEMBERS_MAX + 2 && blocks as usize <= bytes.len() / BLOCK + 1, "a walk without end");
        let at = usize::try_from(at).unwrap();
        let block: &[u8; BLOCK] = bytes.get(at..at + BLOCK).expect("within the file").try_into().unwrap();
        match walk.give(block) {
            Ok(member) => members.extend(member),
            Err(reason) => {
                assert!(
                    reason.code.starts_with("bundle_") && reason.detail.len() < 1024 && !reason.detail.contains(char::is_control),
                    "{reason:?}"
                );
                return Err(reason.code.to_string());
            }
        }
    }
    Ok(members)
}

/// The same file, from its members alone.
fn rebuilt(bytes: &[u8], members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        let (from, length) = (member.offset as usize, member.length as usize);
        out.extend_from_slice(&header(&member.name, member.length).expect("a member that was accepted"));
        assert_eq!(out.len(), from);
        out.extend_from_slice(&bytes[from..from + length]);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fuzz_target!(|bytes: &[u8]| {
    let mut good = bytes.to_vec();
    for block in good.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    for bytes in [bytes, &good] {
        let Ok(members) = walk(bytes) else { continue };
        assert!(!members.is_empty() && members.windows(2).all(|pair| pair[0].name < pair[1].name), "no order");
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\\');
        assert!(members.iter().all(|m| m.name.split('/').all(plain)), "path tricks");
        assert_eq!(rebuilt(bytes, &members), bytes, "two bundles with the same members");
    }
});
