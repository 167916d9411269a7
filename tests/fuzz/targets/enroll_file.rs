//! The enrollment file: whatever a stick says, what was read is within its limits, and the token can be taken out in place.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmetric::core::first_boot::{Found, Offer, Settings, Source, choose};
use vmetric::wire::enroll_file::{ENROLL_FILE_MAX, parse, without_token};

fuzz_target!(|bytes: &[u8]| {
    let said = match parse(bytes) {
        Ok(said) => said,
        Err(reason) => {
            assert_eq!(reason.code, "bad_enroll_file");
            return;
        }
    };
    assert!(bytes.len() as u64 <= ENROLL_FILE_MAX && said.pins.len() <= 4 && said.unknown.len() <= 4);
    assert!(said.director.as_ref().is_none_or(|url| url.starts_with("https://") && !url.contains('@')));
    let without = without_token(&said, bytes.len());
    assert_eq!(without.len(), bytes.len());
    if !without.trim_ascii().is_empty() {
        let again = parse(&without).expect("what we write reads");
        assert_eq!(again, Settings { token: None, shared: false, unknown: Vec::new(), ..said.clone() });
    }
    for source in [Source::State, Source::Medium, Source::Dns] {
        let choice = choose(&[Offer { source, name: "x".into(), found: Found::Settings(said.clone()) }]);
        let whole = source != Source::Dns && !said.pins.is_empty() && said.director.is_some() && said.token.is_some();
        assert!(choice.plan.is_err() || whole);
    }
});
