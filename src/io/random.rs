//! Randomness: nonces, and seeds for jitter.

use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes. Where the system has none (never, on a booted one) they are zero: a nonce is then merely not fresh.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    let _ = SystemRandom::new().fill(&mut out);
    out
}

/// A seed for jitter.
pub fn seed() -> u64 {
    u64::from_le_bytes(bytes())
}
