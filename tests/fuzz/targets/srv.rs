//! DNS answers and `resolv.conf`: input is a packet behind our question's own beginning, or the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::core::srv::{Answer, answer, choose, question, resolver};

fuzz_target!(|bytes: &[u8]| {
    let Some((tag, rest)) = bytes.split_first() else { return };
    let ask = question(7, "_vmetric._tcp.example.org").unwrap();
    // As it came, and as the answer to our question, which mutation would never find.
    let mut packet = ask.clone();
    (packet[2], packet[3], packet[7]) = (0x81, 0x80, *tag);
    packet.extend_from_slice(rest);
    for packet in [&packet[..], rest] {
        let Answer::Places(places) = answer(&ask, packet) else { continue };
        assert!(places.len() <= 32);
        for place in &places {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            assert!(place.port > 0 && (1..=253).contains(&place.host.len()) && place.host.chars().all(plain), "{place:?}");
        }
        for (failures, seed) in [(0, 0), (u32::MAX, u64::MAX), (u32::from(*tag), 9)] {
            assert_eq!(choose(&places, failures, seed).is_some(), !places.is_empty());
        }
    }
    let found = resolver(&String::from_utf8_lossy(rest));
    assert!(found.servers.len() <= 3 && found.domains.len() <= 6);
    assert!(found.domains.iter().all(|domain| question(1, domain).is_some()));
});
