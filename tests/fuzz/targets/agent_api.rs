//! Bodies of the agent API, both sides. First byte: which one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use miniserde::{Deserialize, Serialize, json};
use vmetric::core::times::Times;
use vmetric::wire::agent_api::{AnswerWire, EnrollWire, EnrolledWire, ErrorWire, ReportWire};
use vmetric::wire::records::order;

fuzz_target!(|bytes: &[u8]| {
    let [which, rest @ ..] = bytes else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which % 5 {
        0 => drop(read::<ReportWire>(text)),
        1 => drop(read::<EnrollWire>(text)),
        2 => drop(read::<EnrolledWire>(text)),
        3 => drop(read::<ErrorWire>(text)),
        _ => {
            let Some(answer) = read::<AnswerWire>(text) else { return };
            let Some(Ok(order)) = answer.order.map(|wire| order(&wire, &Times::DEFAULT)) else { return };
            let path = order.target.to_string();
            let plain = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
            assert!(path.split('/').count() == 4 && path.split('/').all(plain) && path.len() < 400, "{path}");
        }
    }
});

/// What can be read means the same after it was written: a Director passes reports on.
fn read<T: Serialize + Deserialize>(text: &str) -> Option<T> {
    let wire: T = json::from_str(text).ok()?;
    let written = json::to_string(&wire);
    let again: T = json::from_str(&written).expect("what we write we can read");
    assert_eq!(json::to_string(&again), written);
    // A character takes six bytes at most when it is escaped, and a number that was short may become no longer than 20.
    assert!(written.len() <= 6 * text.len() + 4096, "grows");
    Some(wire)
}
