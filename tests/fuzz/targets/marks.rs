//! `marks.0` and `marks.1`, torn, rotten and forged, and what the launcher makes of whatever can be read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::core::hex;
use vmetric::core::slots::{Image, Marks, Seen, Slot, next_boot, rebuild};
use vmetric::wire::marks::{RECORD, decode, encode, newest};
use vmetric::wire::slot;

fuzz_target!(|bytes: &[u8]| {
    // The checksum costs an attacker nothing: every input is also tried with a good one.
    let mut forged = bytes.split(|b| *b == b'\n').next().unwrap_or_default().to_vec();
    let sum = hex::encode(&hex::sha256(&forged));
    forged.extend_from_slice(format!("\n{sum}\n").as_bytes());
    for record in [bytes, &forged] {
        match decode(record) {
            Ok(marks) => read(&marks),
            Err(why) => assert!(!why.is_empty() && why.len() < 2 * RECORD),
        }
    }
    let _ = newest([decode(bytes), decode(&forged)]);
});

fn read(marks: &Marks) {
    let record = encode(marks);
    assert_eq!(record.len(), RECORD, "a record that does not fit its file");
    assert_eq!(&decode(&record).expect("our own record"), marks, "the round trip changes the marks");
    let same = Ok((marks.clone(), 0));
    assert_eq!(newest([Ok(marks.clone()), Err(String::new())]), same);
    boots(marks);
    let json = br#"{"format":1,"target":"a/1.0.0/linux-amd64/b","version":"1.0.0","length":1,"sha256":"","counter":1,"build_keyid":"","build_sig":"","issuer":"","generation":1}"#;
    let files = slot::files(json, None);
    let _ = rebuild(files.as_ref(), files.as_ref());
}

/// Whatever the marks say: ten starts in a row end at an image, and what is started is never an empty or failed slot.
fn boots(marks: &Marks) {
    let mut marks = marks.clone();
    for n in 0..10 {
        let seen = Seen { factory: marks.factory, boot_id: format!("{}", n / 4), ..Seen::default() };
        let boot = next_boot(&marks, &seen);
        if let Image::Slot(slot) = boot.image {
            use vmetric::core::slots::Condition::{Confirmed, Trial};
            assert!(matches!(boot.marks.slot(slot).condition, Trial | Confirmed), "starts {slot:?} of {:?}", boot.marks);
        }
        assert_eq!(encode(&boot.marks).len(), RECORD);
        let _ = (boot.marks.inactive(boot.image), boot.marks.fallback(boot.image), boot.marks.in_probation("x", n));
        marks = boot.marks;
    }
    for slot in [Slot::A, Slot::B] {
        let record = encode(&marks.clone().start_trial(slot, [1; 32]).confirm(slot, u64::MAX, "boot", u64::MAX).roll_back(slot));
        assert_eq!(record.len(), RECORD);
    }
}
