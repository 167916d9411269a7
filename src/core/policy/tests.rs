use super::*;

fn typed(text: &str) -> Typed<'_> {
    let mut out = Typed::default();
    for pair in text.split(';').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        let field = match name {
            "mode" => &mut out.mode,
            "method" => &mut out.method,
            "version" => &mut out.version,
            "cron" => &mut out.cron,
            "interval" => &mut out.interval,
            _ => &mut out.zone,
        };
        *field = Some(value);
    }
    out
}

#[test]
fn the_specifications_examples_are_taken() {
    let weekly = check_complete(&typed("mode=auto;method=schedule;version=2.5.0;cron=0 2 * * 0")).unwrap();
    assert_eq!(weekly.timing, Some(Timing::Cron("0 2 * * 0".into())));
    assert_eq!(weekly.version, Some(Wanted::Exact("2.5.0".parse().unwrap())));
    let hourly = check_complete(&typed("mode=auto;method=schedule;version=2.5.0;interval=1h")).unwrap();
    assert_eq!(hourly.timing, Some(Timing::Interval(3_600)));
    let immediate = check_complete(&typed("mode=auto;method=immediate;version=2.5.0")).unwrap();
    assert_eq!((immediate.method, immediate.timing), (Some(Method::Immediate), None));
    let neither = check_complete(&typed("mode=auto;method=schedule;version=latest")).unwrap();
    assert_eq!(neither.timing, Some(Timing::Interval(30)), "neither cron nor interval: 30 s");
    let both = check(&typed("mode=auto;method=schedule;cron=0 3 * * 1-5;interval=1h")).unwrap();
    assert_eq!(both.timing, Some(Timing::Cron("0 3 * * 1-5".into())), "cron wins");
    assert!(check_complete(&typed("mode=manual")).is_ok() && check(&typed("")).unwrap().is_empty());
    for (text, seconds) in [("30s", 30), ("5m", 300), ("1h", 3_600), ("24h", 86_400), ("1d", 86_400), ("90", 90)] {
        let text = format!("method=schedule;interval={text}");
        assert_eq!(check(&typed(&text)).unwrap().timing, Some(Timing::Interval(seconds)), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_is_allowed() {
    for (text, field, words) in [
        ("mode=automatic", "mode", "manual or auto"),
        ("mode=auto;method=now", "method", "user_action, immediate or schedule"),
        ("mode=manual;method=immediate", "method", "mode: auto"),
        ("version=newest", "version", "latest"),
        ("version=2.5", "version", "2.5.0"),
        ("mode=auto;method=immediate;cron=0 2 * * 0", "cron", "schedule"),
        ("mode=auto;cron=0 2 * * 0", "cron", "schedule"),
        ("interval=1h", "interval", "schedule"),
        ("method=schedule;interval=29s", "interval", "30s"),
        ("method=schedule;interval=0", "interval", "30s"),
        ("method=schedule;interval=-1", "interval", "expected 30s"),
        ("method=schedule;interval=1w", "interval", "expected 30s"),
        ("method=schedule;interval=99999999999d", "interval", "366d"),
        ("method=schedule;interval=999999999999999999999", "interval", "expected 30s"),
        ("method=schedule;interval=h", "interval", "expected 30s"),
        ("method=schedule;cron=0 2 * *", "cron", "five"),
        ("method=schedule;cron=@daily", "cron", "five"),
        ("zone=", "zone", "Europe/Berlin"),
        ("zone=a b", "zone", "Europe/Berlin"),
    ] {
        let wrong = check(&typed(text)).unwrap_err();
        assert_eq!(wrong.field, field, "{text}");
        assert!(wrong.what.contains(words), "{text}: {}", wrong.what);
        let reason = Reason::from(wrong);
        assert!(reason.code == "settings_invalid" && reason.detail.starts_with(field), "{reason}");
    }
    for (text, field) in [("", "mode"), ("mode=auto", "method"), ("mode=auto;method=immediate", "version")] {
        assert_eq!(check_complete(&typed(text)).unwrap_err().field, field, "{text}");
    }
    let long = "x".repeat(TEXT_MAX + 1);
    assert_eq!(check(&Typed { zone: Some(&long), ..Default::default() }).unwrap_err().field, "zone");
}

fn layer(tier: Tier, on: bool, text: &str) -> Layer {
    Layer { tier, on, settings: check(&typed(text)).unwrap(), changed_at: tier as u64 }
}

#[test]
fn the_lowest_tier_that_says_something_wins_value_by_value() {
    let default = built_in();
    assert_eq!((default.mode.value, default.version.value.clone()), (Mode::Manual, Wanted::Latest));
    let organization = layer(Tier::Organization, true, "mode=auto;method=schedule;cron=0 2 * * 0;zone=UTC");
    let director = layer(Tier::Director, true, "method=schedule;interval=1h");
    let node = layer(Tier::Node, true, "version=2.5.0");
    // In any order of the list.
    let out = effective(&[node.clone(), director.clone(), organization.clone()]);
    assert_eq!((out.mode.value, out.mode.tier), (Mode::Auto, Tier::Organization));
    assert_eq!(
        (out.timing.value, out.timing.tier),
        (Timing::Interval(3_600), Tier::Director),
        "cron of a higher tier does not come through"
    );
    assert_eq!((out.zone.value.as_str(), out.zone.tier), ("UTC", Tier::Organization));
    assert_eq!((out.version.tier, out.changed_at), (Tier::Node, Tier::Node as u64));
    // Custom Policy off: as if it were not there, and its text is still in the layer.
    let off = Layer { on: false, ..node };
    let out = effective(&[off.clone(), director, organization]);
    assert_eq!(out.version.tier, Tier::BuiltIn);
    assert_eq!(off.settings.version, Some(Wanted::Exact("2.5.0".parse().unwrap())));
}

#[test]
fn every_pair_of_tiers_overrides_in_order() {
    for (n, high) in Tier::ALL.into_iter().enumerate() {
        for low in &Tier::ALL[n + 1..] {
            let out = effective(&[layer(*low, true, "version=1.0.0"), layer(high, true, "version=2.0.0;mode=auto")]);
            assert_eq!((out.version.tier, out.mode.tier), (*low, high));
        }
    }
}
