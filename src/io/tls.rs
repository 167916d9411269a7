//! TLS 1.3 as vmetric speaks it: ring, X25519, Ed25519, and a site CA known by the hash of its key.
//!
//! **Pins.** `--pin sha256:<64 hex>` is the SHA-256 of the site CA's DER SubjectPublicKeyInfo, the same number that
//! `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | sha256sum` prints. The server sends leaf and CA; the
//! verifier looks for a presented CA whose key is pinned and checks that the leaf was signed by it.
//!
//! **Dates never refuse under a pin.** A device whose clock says 1970 or 2090 must still be able to update, and a pin is a
//! statement about a key, not about a date. Chains are checked at a fixed time at which every certificate of a site CA is
//! valid (they all start at 1970). What ends a key is a new pin, never a calendar.
//!
//! **Host names are not compared under a pin.** The pin names the site; its addresses change with the customer's network,
//! and a site CA signs for nobody but its own Directors.

use crate::core::reason::Reason;

/// SHA-256 of a DER SubjectPublicKeyInfo.
pub type Pin = [u8; 32];

/// Pins an agent may hold: the one in use, candidates that arrived over an authenticated connection.
pub const PINS_MAX: usize = 4;

/// `sha256:<64 lower-case hex>`, as on the command line and in the configuration.
///
/// # Errors
/// `bad_pin`, with the form that is expected.
pub fn parse_pin(text: &str) -> Result<Pin, Reason> {
    text.strip_prefix("sha256:").and_then(crate::core::hex::decode).ok_or_else(|| {
        Reason::new(
            "bad_pin",
            format!("`{text}` is no pin: it is `sha256:` and 64 lower-case hex digits, as `vmetric-director pin` prints it"),
        )
    })
}

/// The text form that [`parse_pin`] reads.
pub fn pin_text(pin: &Pin) -> String {
    format!("sha256:{}", crate::core::hex::encode(pin))
}
