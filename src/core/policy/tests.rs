use super::*;
use crate::core::reason::Reason;

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
        ("version=newest", "version", "latest"),
        ("version=2.5", "version", "2.5.0"),
        ("mode=auto;method=immediate;cron=0 2 * * 0", "cron", "schedule"),
        ("mode=auto;cron=0 2 * * 0", "cron", "schedule"),
        ("interval=1h", "interval", "schedule"),
        ("method=schedule;interval=29s", "interval", "30s"),
        ("method=schedule;interval=0", "interval", "30s"),
        ("method=schedule;interval=-1", "interval", "30s"),
        ("method=schedule;interval=1w", "interval", "30s"),
        ("method=schedule;interval=99999999999d", "interval", ""),
        ("method=schedule;interval=999999999999999999999", "interval", "30s"),
        ("method=schedule;interval=h", "interval", "30s"),
        ("method=schedule;cron=0 2 * *", "cron", ""),
        ("method=schedule;cron=0 0 30 2 *", "cron", ""),
        ("zone=Mars/Olympus", "zone", ""),
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

const HOUR: u64 = 3_600;
/// A Monday, 00:00:00 UTC.
const T0: u64 = 1_795_392_000;

fn candidate(version: &str, n: u8) -> Candidate {
    Candidate { version: version.parse().unwrap(), sha256: [n; 32], counter: 1, min_version: None, withdrawn: None }
}

/// What a test changes of a node that is online, free, and runs 1.0.0 of 1.0.0, 2.0.0 and 2.1.0-rc.1.
struct Node {
    settings: Effective,
    candidates: Vec<Candidate>,
    running: (&'static str, u8),
    counter: Option<u64>,
    schedule: Option<Schedule<'static>>,
    granted: Option<Granted>,
    quarantined: Option<(Reason, Option<u64>)>,
    standing: Standing,
    clock_unsure: bool,
    clock_ahead: bool,
    silent_since: Option<u64>,
}

impl Node {
    fn of(text: &str) -> Node {
        Node {
            settings: effective(&[Layer { changed_at: T0, ..layer(Tier::Node, true, text) }]),
            candidates: vec![candidate("2.0.0", 2), candidate("1.0.0", 1), candidate("2.1.0-rc.1", 3)],
            running: ("1.0.0", 1),
            counter: Some(1),
            schedule: None,
            granted: None,
            quarantined: None,
            standing: Standing::Free,
            clock_unsure: false,
            clock_ahead: false,
            silent_since: None,
        }
    }

    fn decide(&self, now: u64) -> Decision {
        let facts = Facts {
            settings: &self.settings,
            candidates: &self.candidates,
            running: self.running.0.parse().ok(),
            running_sha256: Some([self.running.1; 32]),
            counter: self.counter,
            schedule: self.schedule,
            granted: self.granted.as_ref(),
            quarantined: &|_| self.quarantined.clone(),
            standing: &|_| self.standing.clone(),
            clock_unsure: self.clock_unsure,
            clock_ahead: self.clock_ahead,
            silent_since: self.silent_since,
        };
        decide(&facts, now)
    }

    /// The decision in one line.
    fn says(&self, now: u64) -> String {
        match self.decide(now) {
            Decision::Act { version, not_before, closes, .. } => format!("act {version} at {} {closes:?}", not_before - T0),
            Decision::Wait { reason, until } => format!("wait {} {:?}", reason.code, until.map(|at| at.saturating_sub(T0))),
            Decision::Manual { available } => format!("manual {}", available.map_or("-".into(), |v| v.to_string())),
            Decision::NeedsAuthorization { version, sha256 } => format!("authorize {version} {}", sha256[0]),
            Decision::UpToDate => "up to date".into(),
        }
    }
}

#[test]
fn every_policy_on_a_free_node() {
    for (text, says) in [
        ("", "manual 2.0.0"),
        ("mode=manual;method=immediate", "manual 2.0.0"),
        ("mode=auto", "authorize 2.0.0 2"),
        ("mode=auto;method=user_action", "authorize 2.0.0 2"),
        ("mode=auto;method=immediate", "act 2.0.0 at 5 None"),
        ("mode=auto;method=immediate;version=1.0.0", "up to date"),
        ("mode=auto;method=immediate;version=2.1.0-rc.1", "act 2.1.0-rc.1 at 5 None"),
        ("mode=auto;method=immediate;version=3.0.0", "wait version_unknown None"),
    ] {
        assert_eq!(Node::of(text).says(T0 + 5), says, "{text}");
    }
}

#[test]
fn each_obstacle_has_its_reason() {
    let auto = || Node::of("mode=auto;method=immediate");
    let reason = |code| Reason::new(code, "x");
    let failed = |bad, retry_at, count| Standing::Failed(Failed { reason: Reason::new("silent", "x"), at: T0, count, bad, retry_at });
    let withdrawn = Some("eats data".to_string());
    for (what, node, says) in [
        ("quarantined", Node { quarantined: Some((reason("quarantined"), Some(T0 + 9))), ..auto() }, "wait quarantined Some(9)"),
        ("clock of the node", Node { clock_ahead: true, ..auto() }, "wait clock_ahead None"),
        ("silent", Node { silent_since: Some(T0), ..auto() }, "wait node_silent None"),
        ("floor", Node { counter: Some(2), ..auto() }, "wait below_floor None"),
        (
            "under way",
            Node { standing: Standing::Open { reason: reason("downloading"), until: Some(T0 + 7) }, ..auto() },
            "wait under_way Some(7)",
        ),
        ("cancelled", Node { standing: Standing::CancelledByPerson { at: T0 + 1 }, ..auto() }, "wait cancelled_by_person None"),
        ("cancelled before the settings", Node { standing: Standing::CancelledByPerson { at: T0 - 1 }, ..auto() }, "act 2.0.0 at 5 None"),
        ("bad", Node { standing: failed(true, None, 1), ..auto() }, "wait rejected None"),
        ("the specification's cooldown", Node { standing: failed(false, None, 1), ..auto() }, "wait cooldown Some(600)"),
        ("patience", Node { standing: failed(false, None, 2), ..auto() }, "wait cooldown Some(3600)"),
        ("the device's own pause", Node { standing: failed(false, Some(T0 + 9_000), 1), ..auto() }, "wait cooldown Some(9000)"),
        ("nothing there", Node { candidates: vec![candidate("2.1.0-rc.1", 3)], ..auto() }, "wait no_artifact None"),
        ("no version", Node { running: ("?", 9), ..auto() }, "act 2.0.0 at 5 None"),
        ("newer than latest", Node { running: ("2.1.0", 9), ..auto() }, "up to date"),
        ("its own clock does not matter without a schedule", Node { clock_unsure: true, ..auto() }, "act 2.0.0 at 5 None"),
        (
            "withdrawn",
            Node {
                candidates: vec![Candidate { withdrawn: withdrawn.clone(), ..candidate("2.0.0", 2) }],
                ..Node::of("mode=auto;method=immediate;version=2.0.0")
            },
            "wait withdrawn None",
        ),
        (
            "latest is not what was withdrawn",
            Node { candidates: vec![Candidate { withdrawn, ..candidate("2.0.0", 2) }, candidate("1.5.0", 5)], ..auto() },
            "act 1.5.0 at 5 None",
        ),
    ] {
        assert_eq!(node.says(T0 + 5), says, "{what}");
    }
    assert_eq!(Node { standing: failed(false, None, 1), ..auto() }.says(T0 + 600), "act 2.0.0 at 600 None", "the cooldown ends");
}

#[test]
fn a_downgrade_is_asked_for_by_name_and_ends_at_the_floor() {
    let by_name = Node { running: ("2.0.0", 2), ..Node::of("mode=auto;method=immediate;version=1.0.0") };
    assert_eq!(by_name.says(T0), "act 1.0.0 at 0 None");
    assert_eq!(Node { counter: Some(2), ..by_name }.says(T0), "wait below_floor None");
    let latest = Node { running: ("3.0.0", 9), ..Node::of("mode=auto;method=immediate") };
    assert_eq!(latest.says(T0), "up to date");
}

#[test]
fn latest_goes_by_the_version_in_between() {
    let needs = |version: &str, n, floor: &str| Candidate { min_version: Some(floor.parse().unwrap()), ..candidate(version, n) };
    let candidates = vec![needs("3.0.0", 3, "2.0.0"), candidate("2.0.0", 2), candidate("1.0.0", 1)];
    let node = Node { candidates: candidates.clone(), ..Node::of("mode=auto;method=immediate") };
    assert_eq!(node.says(T0), "act 2.0.0 at 0 None");
    assert_eq!(Node { running: ("2.0.0", 2), ..node }.says(T0), "act 3.0.0 at 0 None");
    let exact = Node { candidates, ..Node::of("mode=auto;method=immediate;version=3.0.0") };
    assert_eq!(exact.says(T0), "wait min_version None");
}

#[test]
fn an_authorization_names_version_and_file_and_expires() {
    let grant = |version: &str, n, expires_at| Some(Granted { version: version.parse().unwrap(), sha256: [n; 32], expires_at });
    let node = |granted| Node { granted, ..Node::of("mode=auto;method=user_action") };
    assert_eq!(node(grant("2.0.0", 2, T0 + 10)).says(T0), "act 2.0.0 at 0 None");
    assert_eq!(node(grant("2.1.0-rc.1", 3, T0 + 10)).says(T0), "act 2.1.0-rc.1 at 0 None", "its version, not the setting's");
    assert_eq!(node(grant("2.0.0", 2, T0)).says(T0), "authorize 2.0.0 2", "expired");
    assert_eq!(node(grant("2.0.0", 7, T0 + 10)).says(T0), "authorize 2.0.0 2", "another file of that name");
    let immediate = Node { granted: grant("2.1.0-rc.1", 3, T0 + 10), ..Node::of("mode=auto;method=immediate") };
    assert_eq!(immediate.says(T0), "act 2.0.0 at 0 None", "only for user_action");
    let manual = Node { granted: grant("2.0.0", 2, T0 + 10), ..Node::of("mode=manual") };
    assert_eq!(manual.says(T0), "manual 2.0.0");
}

/// Fires each day at 02:00 UTC.
fn nightly(unix: u64) -> Option<u64> {
    Some((unix + 22 * HOUR) / 86_400 * 86_400 + 2 * HOUR)
}

#[test]
fn windows_are_absolute_and_what_was_missed_waits_for_the_next_one() {
    let node = || Node { schedule: Some(Schedule::Cron(&nightly)), ..Node::of("mode=auto;method=schedule;cron=0 2 * * *") };
    let closes = Some(T0 + 3 * HOUR);
    for (at, says) in [
        (0, "wait window_not_open Some(3600)".to_string()),
        (HOUR - 1, "wait window_not_open Some(3600)".into()),
        (HOUR, format!("act 2.0.0 at 7200 {closes:?}")),
        (2 * HOUR, format!("act 2.0.0 at 7200 {closes:?}")),
        (3 * HOUR - 1, format!("act 2.0.0 at 10799 {closes:?}")),
        // A reboot at noon does not update at noon.
        (3 * HOUR, format!("wait window_not_open Some({})", 25 * HOUR)),
        (12 * HOUR, format!("wait window_not_open Some({})", 25 * HOUR)),
    ] {
        assert_eq!(node().says(T0 + at), says, "{at}");
    }
    assert_eq!(Node { clock_unsure: true, ..node() }.says(T0), "wait clock_unsure None");
    assert_eq!(Node { schedule: Some(Schedule::Cron(&|_| None)), ..node() }.says(T0), "wait schedule_never None");
    // A setting that is made while a window is open counts from the next one.
    let mut late = node();
    late.settings.changed_at = T0 + 2 * HOUR + 1;
    assert_eq!(late.says(T0 + 2 * HOUR + 2), format!("wait window_not_open Some({})", 25 * HOUR));
}

#[test]
fn an_interval_runs_at_once_and_then_after_each_run() {
    let node =
        |base| Node { schedule: Some(Schedule::Interval { every: 24 * HOUR, base }), ..Node::of("mode=auto;method=schedule;interval=24h") };
    assert_eq!(node(T0).says(T0 + 1), "act 2.0.0 at 1 None", "the first run is immediate; an interval promises no end");
    assert_eq!(node(T0).says(T0 + 2 * HOUR), format!("wait window_not_open Some({})", 23 * HOUR));
    assert_eq!(node(T0 + 30 * HOUR).says(T0 + 7 * HOUR), format!("wait window_not_open Some({})", 29 * HOUR), "after the run before");
    let often = Node { schedule: Some(Schedule::Interval { every: 30, base: T0 }), ..Node::of("mode=auto;method=schedule") };
    for at in 0..200 {
        assert!(often.says(T0 + at).starts_with("act 2.0.0"), "{at}");
    }
}

proptest::proptest! {
    #[test]
    fn a_window_is_open_or_to_come_and_opens_when_the_schedule_fires(
        every in 30_u64..10_000_000, base in 0_u64..4_000_000_000, since in 0_u64..4_000_000_000, now in 0_u64..4_000_000_000,
    ) {
        let schedule = Schedule::Interval { every, base };
        let window = schedule.window(since, now).unwrap();
        proptest::prop_assert!(now < window.closes && window.opens < window.closes);
        proptest::prop_assert!(window.opens >= since.max(base).min(window.opens) && window.opens >= base && window.opens >= since);
        proptest::prop_assert!((window.opens - base).is_multiple_of(every));
        let length = window.closes - window.opens;
        proptest::prop_assert!((WINDOW_MIN_S..=WINDOW_MAX_S).contains(&length));
        // Nothing that is open was left out.
        if window.opens > now {
            let before = schedule.next(now.saturating_sub(every)).filter(|at| *at <= now && *at >= since);
            proptest::prop_assert!(before.is_none_or(|at| now >= at + (every / 4).clamp(WINDOW_MIN_S, WINDOW_MAX_S)));
        }
    }

    #[test]
    fn nobody_acts_in_manual_mode_and_every_wait_says_why(
        mode in 0..2_usize, method in 0..3_usize, now in 0_u64..100_000, flags in 0_u8..128, standing in 0..5_u8,
    ) {
        let (mode, method) = (Mode::ALL[mode], Method::ALL[method]);
        let text = format!("mode={};method={}", mode.word(), method.word());
        let bit = |n: u8| flags & (1 << n) != 0;
        let failed = |bad| Standing::Failed(Failed { reason: Reason::new("silent", "x"), at: T0, count: 3, bad, retry_at: None });
        let node = Node {
            clock_unsure: bit(0),
            clock_ahead: bit(1),
            silent_since: bit(2).then_some(T0),
            counter: bit(3).then_some(9),
            quarantined: bit(4).then(|| (Reason::new("quarantined", "x"), None)),
            granted: bit(5).then(|| Granted { version: "2.0.0".parse().unwrap(), sha256: [2; 32], expires_at: u64::MAX }),
            schedule: Some(Schedule::Cron(&nightly)),
            standing: match standing {
                0 => Standing::Free,
                1 => Standing::Open { reason: Reason::new("trial", "x"), until: None },
                2 => Standing::CancelledByPerson { at: T0 },
                3 => failed(true),
                _ => failed(false),
            },
            ..Node::of(&text)
        };
        let now = T0 + now;
        let rested = standing == 0 || (standing == 4 && now >= T0 + 6 * HOUR);
        let free = !bit(1) && !bit(2) && !bit(3) && !bit(4) && rested;
        match node.decide(now) {
            Decision::Act { not_before, closes, .. } => {
                proptest::prop_assert!(mode == Mode::Auto && free && not_before >= now);
                proptest::prop_assert!(closes.is_none_or(|at| at > not_before));
                proptest::prop_assert!(method != Method::UserAction || bit(5));
            }
            Decision::Wait { reason, until } => {
                proptest::prop_assert!(mode == Mode::Auto && !reason.detail.is_empty());
                proptest::prop_assert!(until.is_none_or(|at| at > now), "{} {until:?}", reason.code);
            }
            Decision::Manual { .. } => proptest::prop_assert!(mode == Mode::Manual),
            Decision::NeedsAuthorization { .. } => proptest::prop_assert!(mode == Mode::Auto && method == Method::UserAction),
            Decision::UpToDate => proptest::prop_assert!(false, "it runs an old version"),
        }
    }
}
