//! Which source, when again, what is forgotten.

use super::*;

fn pin(n: char) -> String {
    format!("sha256:{}", n.to_string().repeat(64))
}

fn offer(source: Source, said: Settings) -> Offer {
    Offer { source, name: format!("{source:?}"), found: Found::Settings(said) }
}

fn all(n: char) -> Settings {
    Settings { director: Some(format!("https://{n}:8443")), pins: vec![pin(n)], token: Some(format!("token-{n}")), ..Settings::default() }
}

#[test]
fn each_setting_comes_from_the_first_source_that_has_it() {
    let sources = [Source::State, Source::Image, Source::Environment, Source::Medium];
    for first in 0..sources.len() {
        let offers: Vec<Offer> = sources[first..].iter().zip(['a', 'b', 'c', 'd']).map(|(s, n)| offer(*s, all(n))).collect();
        let choice = choose(&offers);
        assert_eq!(choice.plan.unwrap(), Plan { settings: all('a'), token_from: 0 });
        assert!(choice.notes[1..].iter().all(|(_, note)| note.contains("a source before it has one")), "{:?}", choice.notes);
    }
    let address = Settings { director: Some("https://i:1".into()), ..Settings::default() };
    let trust = Settings { director: None, ..all('b') };
    let choice = choose(&[offer(Source::State, address), offer(Source::Medium, trust)]);
    let plan = choice.plan.unwrap();
    assert_eq!((plan.settings.director.as_deref(), plan.token_from), (Some("https://i:1"), 1));
    assert_eq!(choice.notes[0].1, "taken: address");
    assert_eq!(choice.notes[1].1, "taken: pins, token");
}

#[test]
fn a_stick_with_another_pin_does_not_get_the_makers_token() {
    let token_only = Settings { token: Some("secret".into()), ..Settings::default() };
    let thief = Settings { token: None, ..all('e') };
    let choice = choose(&[offer(Source::State, token_only.clone()), offer(Source::Medium, thief)]);
    assert_eq!(choice.plan.unwrap_err().code, "no_token");
    assert!(choice.notes[0].1.contains("no pin stands here"), "{:?}", choice.notes);
    // The maker's pin stands: the stick's is not even looked at.
    let maker = Settings { pins: vec![pin('a')], ..token_only };
    let plan = choose(&[offer(Source::State, maker), offer(Source::Medium, all('e'))]).plan.unwrap();
    assert_eq!((plan.settings.pins, plan.settings.token), (vec![pin('a')], Some("secret".into())));
    // A stick may bring the token for the maker's pin.
    let pinned = Settings { pins: vec![pin('a')], ..Settings::default() };
    let token = |site: &str| Settings { token: Some(format!("vmt_{}_x", site.repeat(8))), ..Settings::default() };
    let plan =
        choose(&[offer(Source::Image, pinned.clone()), offer(Source::Medium, token("a")), offer(Source::Dns, all('d'))]).plan.unwrap();
    assert_eq!((plan.settings.director.as_deref(), plan.token_from), (Some("https://d:8443"), 1));
    let other = choose(&[offer(Source::Image, pinned), offer(Source::Medium, token("b"))]);
    assert!(other.plan.unwrap_err().code == "no_token" && other.notes[1].1.contains("another site"));
}

#[test]
fn dns_says_an_address_and_nothing_else() {
    let choice = choose(&[offer(Source::Dns, all('d'))]);
    assert_eq!((choice.plan.clone().unwrap_err().code.as_ref(), choice.lacks_address()), ("no_pin", false));
    let choice = choose(&[offer(Source::Medium, Settings { director: None, ..all('m') })]);
    assert!(choice.lacks_address(), "now it may be asked for one");
    let serial = Settings { serial: Some("S".into()), proxy: Some("http://p:1".into()), ..all('d') };
    let plan = choose(&[offer(Source::Medium, Settings { director: None, ..all('m') }), offer(Source::Dns, serial)]).plan.unwrap();
    assert_eq!((plan.settings.serial, plan.settings.proxy, plan.settings.pins), (None, None, vec![pin('m')]));
}

#[test]
fn a_stick_has_no_file_read_and_accepts_nothing_expired() {
    let greedy = Settings { serial_file: Some("/etc/shadow".into()), offline_site_days: Some(400), ..all('a') };
    for (source, taken) in [(Source::State, true), (Source::Image, true), (Source::EnvironmentFile, true), (Source::Medium, false)] {
        let plan = choose(&[offer(source, greedy.clone())]).plan.unwrap().settings;
        assert_eq!((plan.serial_file.is_some(), plan.offline_site_days.is_some()), (taken, taken), "{source:?}");
    }
}

#[test]
fn what_is_absent_or_bad_is_reported_and_passed_by() {
    let bad = Offer { source: Source::Image, name: "i".into(), found: Found::Bad(Reason::new("bad_enroll_file", "field pins")) };
    let absent = Offer { source: Source::State, name: "s".into(), found: Found::Absent };
    let choice = choose(&[absent, bad, offer(Source::Environment, Settings { unknown: vec!["pin".into()], ..all('a') })]);
    assert_eq!(choice.plan.unwrap().token_from, 2);
    assert_eq!(choice.notes[0].1, "is not there");
    assert!(choice.notes[1].1.contains("field pins (bad_enroll_file)"));
    assert!(choice.notes[2].1.ends_with("unknown and ignored: pin"));
    assert_eq!(choose(&[]).plan.unwrap_err().code, "no_pin");
}

#[test]
fn it_asks_for_ever_spread_and_as_the_server_wants() {
    for ended in [Ended::Unserved, Ended::Pending, Ended::Refused] {
        for failures in [1, 2, 9, 1_000, u32::MAX] {
            for seed in [0, 1, u64::MAX / 3, u64::MAX] {
                let (free, asked) = (wait_ms(ended, failures, seed, None), wait_ms(ended, failures, seed, Some(120)));
                assert!(free >= backoff::FIRST_MS / 2 && asked >= 120_000);
                assert!(free <= REFUSED_MS.max(backoff::CAP_MS), "{ended:?} {failures}: {free}");
                assert!(wait_ms(ended, failures, seed, Some(u64::MAX)) <= backoff::RETRY_AFTER_CAP_MS * 11 / 10 + 1);
            }
        }
    }
    assert!(wait_ms(Ended::Refused, 1, 0, None) >= REFUSED_MS / 2, "a refusal is no reason to hurry");
    let spread: std::collections::BTreeSet<u64> =
        (0..1_000).map(|n: u64| wait_ms(Ended::Refused, 1, n.wrapping_mul(0x9e37_79b9_7f4a_7c15), None)).collect();
    assert!(spread.len() > 990);
}

#[test]
fn a_token_goes_once_there_is_an_identity_and_not_before() {
    let said = |shared| Found::Settings(Settings { shared, ..all('a') });
    let (own, other) = (hex::sha256(b"token-a"), hex::sha256(b"token-b"));
    let sources = [Source::State, Source::Image, Source::EnvironmentFile, Source::Medium];
    for source in sources {
        for shown in [None, Some(&own), Some(&other)] {
            assert_eq!(forget(source, &said(false), false, shown), Forget::Leave, "not enrolled yet");
            assert_eq!(forget(source, &Found::Absent, true, shown), Forget::Leave);
            let done = forget(source, &said(false), true, shown);
            let expected = if source == Source::State || shown == Some(&own) { Forget::Token } else { Forget::Leave };
            assert_eq!(done, expected, "{source:?} {shown:?}");
        }
    }
    assert_eq!(forget(Source::Medium, &said(true), true, Some(&own)), Forget::Leave, "it serves other devices too");
    assert_eq!(forget(Source::State, &said(true), true, None), Forget::Token, "but never what is this device's own");
    let torn = Found::Bad(Reason::new("bad_enroll_file", "is not JSON"));
    assert_eq!((forget(Source::State, &torn, true, None), forget(Source::Medium, &torn, true, Some(&own))), (Forget::All, Forget::Leave));
    assert_eq!(forget(Source::State, &torn, false, None), Forget::Leave, "a person may mend it");
}

#[test]
fn makers_placeholders_are_no_serial_numbers() {
    for none in
        ["", " \n", "0", "00000000", "To Be Filled By O.E.M.", "Default string\n", "NONE", "FFFFFFFF", "a\u{7}b", "é", &"x".repeat(65)]
    {
        assert_eq!(serial(none, 64), None, "{none:?}");
    }
    assert_eq!(serial("10000000abcdef12\0", 64), Some("10000000abcdef12"), "a device tree ends it with a zero");
    assert_eq!(serial(" PF-0 1\n", 64), Some("PF-0 1"));
}
