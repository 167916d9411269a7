//! The agent's small state files and its configuration. First byte: which one.

#![no_main]

use libfuzzer_sys::fuzz_target;
use miniserde::json;
use vmetric::core::clock::Moment;
use vmetric::core::rejected::{Rejected, reject};
use vmetric::core::times::Times;
use vmetric::wire::config::{ConfigWire, PINS_MAX};
use vmetric::wire::records::{AcceptedWire, RECORD_MAX, RejectedListWire, RejectedWire, RequestWire, ResultsWire, StatusWire, order};

fuzz_target!(|bytes: &[u8]| {
    let [which, rest @ ..] = bytes else { return };
    if which % 6 == 5 {
        return config(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which % 6 {
        0 => drop(json::from_str::<AcceptedWire>(text).map(|wire| accepted(&wire))),
        1 => drop(json::from_str::<ResultsWire>(text).map(|wire| same(&wire))),
        2 => drop(json::from_str::<RejectedListWire>(text).map(rejected)),
        3 => drop(json::from_str::<StatusWire>(text).map(|wire| same(&wire))),
        _ => drop(json::from_str::<RequestWire>(text).map(|wire| {
            same(&wire);
            wire.order.map(|wire| order(&wire, &Times::DEFAULT))
        })),
    }
});

fn same<T: miniserde::Serialize + miniserde::Deserialize + PartialEq + std::fmt::Debug>(wire: &T) {
    let again: T = json::from_str(&json::to_string(wire)).expect("what we write we can read");
    assert_eq!(&again, wire);
}

fn accepted(wire: &AcceptedWire) {
    same(wire);
    let t = Times::DEFAULT;
    match wire.accepted(&t) {
        Ok(accepted) => {
            let order = accepted.order;
            assert!((t.contact_min_s..=t.contact_max_s).contains(&order.contact_deadline_s));
            assert!(order.trial_max_s <= t.trial_max_s && order.issuer.len() <= 64);
            let now = Moment { unix: 9, monotonic: 9, boot_id: "b".into(), director: None };
            let next = AcceptedWire::receive(wire.order.clone(), &now, Some(wire));
            assert!(!next.ended && next.bytes == 0);
        }
        Err(reason) => assert!(reason.code == "bad_order" && reason.detail.len() < 1024, "{reason:?}"),
    }
}

fn rejected(wire: RejectedListWire) {
    let mut list = Vec::new();
    for wire in wire.rejected {
        let Ok(entry) = Rejected::try_from(wire) else { continue };
        let again = Rejected::try_from(RejectedWire::from(&entry)).expect("what we write we can read");
        assert_eq!(again, entry);
        for now in [0, 1 << 40, u64::MAX] {
            for boot_id in [entry.boot_id.clone(), "other".into()] {
                let left = entry.remaining_s(&Moment { unix: now, monotonic: now, boot_id, director: Some(now) }, &Times::DEFAULT);
                assert!(left.is_none_or(|s| s <= Times::DEFAULT.cooldown_s[3]), "a cooldown without end: {left:?}");
            }
        }
        reject(&mut list, entry);
        assert!(list.len() <= 32, "grows without end");
    }
}

fn config(bytes: &[u8]) {
    let _ = bytes.len() as u64 <= RECORD_MAX;
    match ConfigWire::parse(bytes) {
        Ok((config, _)) => {
            assert!((1..=PINS_MAX).contains(&config.pins.len()) && config.pin_hashes().len() == config.pins.len());
            let again = ConfigWire::parse(config.text().as_bytes()).expect("what we write we can read");
            assert_eq!(again, (config, vec![]));
        }
        Err(reason) => assert!(!reason.detail.is_empty()),
    }
}
