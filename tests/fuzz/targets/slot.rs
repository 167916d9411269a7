//! `slot.json` and `confirmed`: input is both, parted by the first line feed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use miniserde::json;
use vmetric::core::slots::rebuild;
use vmetric::wire::slot::{SlotWire, confirmed_text, files};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |b| *b == b'\n');
    let (slot, confirmed) = (parts.next().unwrap_or_default(), parts.next());
    let found = files(slot, confirmed);
    let marks = rebuild(found.as_ref(), None);
    if let Some(found) = &found {
        assert!(marks.floor == 0 || found.confirmed.is_some(), "a floor from what nobody confirmed");
        assert!(marks.sequence > 0);
        let text = confirmed_text(&found.sha256, 7);
        assert_eq!(files(slot, Some(text.as_bytes())).unwrap().confirmed, Some(7));
        let _ = rebuild(files(slot, Some(text.as_bytes())).as_ref(), Some(found));
    }
    let Ok(wire) = SlotWire::parse(slot) else {
        assert!(found.is_none());
        return;
    };
    assert_eq!(SlotWire::parse(json::to_string(&wire).as_bytes()).as_ref(), Ok(&wire), "the round trip changes it");
    if let Ok(artifact) = wire.artifact() {
        let text = artifact.path.to_string();
        let plain = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) && !part.contains('\\');
        assert!(text == wire.target && text.split('/').count() == 4 && text.split('/').all(plain), "{text}");
        let again = SlotWire::new(&artifact, &wire.issuer, wire.generation);
        assert_eq!(again.artifact().as_ref(), Ok(&artifact));
    }
});
