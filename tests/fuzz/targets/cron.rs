//! Schedules: input is a zone and an instant, then the expression.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::core::schedule::{Cron, Interval, Zone};

/// With and without changes of the clock, on both halves of the globe.
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];

fuzz_target!(|bytes: &[u8]| {
    let Some((head, text)) = bytes.split_at_checked(6) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let zone = Zone::named(ZONES[usize::from(head[0]) % ZONES.len()]).unwrap();
    // From 1970 to far beyond the known changes.
    let from = head[1..].iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte)) >> 4;
    if let Ok(every) = Interval::parse(text) {
        assert!((30..=366 * 86_400).contains(&every.seconds()));
        let next = every.next_after(from).unwrap();
        assert!(next > from && next - from <= every.seconds() && next % every.seconds() == 0);
    }
    match Cron::parse(text) {
        Err(reason) => assert!(matches!(reason.code.as_ref(), "cron_invalid" | "cron_never"), "{reason}"),
        Ok(cron) => {
            let again = Cron::parse(cron.text()).unwrap();
            assert!(!cron.words().is_empty());
            let mut at = from;
            for _ in 0..3 {
                let Some(next) = cron.next_after(at, &zone) else { break };
                assert!(next > at, "{text}: {next} after {at}");
                assert_eq!(again.next_after(at, &zone), Some(next), "{text}");
                // Nothing lies between: asked from just before, it is the same one.
                assert_eq!(cron.next_after(next - 1, &zone), Some(next), "{text}");
                at = next;
            }
        }
    }
});
