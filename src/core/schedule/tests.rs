use super::*;
use crate::core::time;

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap()
}

/// The next times after a UTC instant, as the zone's clock shows them.
fn next(expression: &str, place: &str, from: &str, count: usize) -> Vec<String> {
    let place = zone(place);
    let schedule = Schedule::parse(expression, &place).unwrap_or_else(|r| panic!("{r}"));
    let from = time::parse(from).unwrap();
    let instants = std::iter::successors(schedule.next_after(from), |at| schedule.next_after(*at));
    instants.take(count).map(|at| place.rfc3339(at)).collect()
}

/// 2027-01-01 is a Friday.
#[test]
fn every_example_of_the_specification_fires_when_its_comment_says() {
    let day = |n: u32, hour: &str| format!("2027-01-{n:02}T{hour}:00+00:00");
    for (expression, expected) in [
        // Every Sunday at 2:00 AM.
        ("0 2 * * 0", vec![day(3, "02:00"), day(10, "02:00"), day(17, "02:00")]),
        // Weekdays at 3:00 AM.
        ("0 3 * * 1-5", vec![day(1, "03:00"), day(4, "03:00"), day(5, "03:00"), day(6, "03:00"), day(7, "03:00"), day(8, "03:00")]),
        // First day of each month at midnight.
        ("0 0 1 * *", vec!["2027-02-01T00:00:00+00:00".into(), "2027-03-01T00:00:00+00:00".into()]),
        // What the vendor's page of the syntax has.
        ("*/5 * * * *", vec![day(1, "00:05"), day(1, "00:10"), day(1, "00:15")]),
        ("0 */6 * * *", vec![day(1, "06:00"), day(1, "12:00"), day(1, "18:00"), day(2, "00:00")]),
        ("0 0 * * 1", vec![day(4, "00:00"), day(11, "00:00")]),
        ("0 9 * * 1-5", vec![day(1, "09:00"), day(4, "09:00"), day(5, "09:00")]),
        ("*/30 9-17 * * 1-5", vec![day(1, "09:00"), day(1, "09:30"), day(1, "10:00")]),
        ("0 6,12,18 * * *", vec![day(1, "06:00"), day(1, "12:00"), day(1, "18:00"), day(2, "06:00")]),
        ("0 12 1,15 * *", vec![day(1, "12:00"), day(15, "12:00")]),
        ("0 */4 * * 0,6", vec![day(2, "00:00"), day(2, "04:00")]),
        ("0 0 28-31 * *", vec![day(28, "00:00"), day(29, "00:00"), day(30, "00:00"), day(31, "00:00")]),
        // Intervals.
        ("30s", vec!["2027-01-01T00:00:30+00:00".into(), day(1, "00:01")]),
        ("5m", vec![day(1, "00:05"), day(1, "00:10")]),
        ("30m", vec![day(1, "00:30"), day(1, "01:00")]),
        ("1h", vec![day(1, "01:00"), day(1, "02:00")]),
        ("24h", vec![day(2, "00:00"), day(3, "00:00")]),
        ("1d", vec![day(2, "00:00"), day(3, "00:00")]),
        ("900", vec![day(1, "00:15"), day(1, "00:30")]),
    ] {
        assert_eq!(next(expression, "UTC", "2027-01-01T00:00:00Z", expected.len()), expected, "{expression}");
    }
}

#[test]
fn either_day_is_enough_unless_a_field_starts_with_a_star() {
    let days = |expression| next(expression, "UTC", "2027-01-01T00:00:00Z", 3).iter().map(|t| t[5..10].to_string()).collect::<Vec<_>>();
    assert_eq!(days("0 4 13 * 5"), ["01-01", "01-08", "01-13"], "Fridays and the 13th");
    assert_eq!(days("0 4 */12 * 5"), ["01-01", "06-25", "08-13"], "Fridays that are a 1st, 13th or 25th");
    assert_eq!(days("0 4 1-31 * 5"), ["01-01", "01-02", "01-03"], "1-31 is a restriction that every day fits");
    assert_eq!(days("0 4 13 * *"), ["01-13", "02-13", "03-13"]);
}

/// Berlin: 28 March 2027 has no 02:00 to 03:00; 31 October 2027 has it twice.
#[test]
fn fixed_hours_fire_once_and_hours_with_a_star_in_both() {
    for (expression, place, from, expected) in [
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"]),
        // Everything that the gap swallowed is one turn.
        ("*/10 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:00:00+02:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", ["2027-03-28T03:00:00+02:00", "2027-03-29T02:00:00+02:00"]),
        ("30 * * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", ["2027-03-28T01:30:00+01:00", "2027-03-28T03:30:00+02:00"]),
        ("0 */2 * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", ["2027-03-28T04:00:00+02:00", "2027-03-28T06:00:00+02:00"]),
        ("30 2 * * *", "Europe/Berlin", "2027-10-30T12:00:00Z", ["2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"]),
        // Asked in the second pass, it has had its turn.
        ("45 2 * * *", "Europe/Berlin", "2027-10-31T01:10:00Z", ["2027-11-01T02:45:00+01:00", "2027-11-02T02:45:00+01:00"]),
        ("30 * * * *", "Europe/Berlin", "2027-10-31T00:00:00Z", ["2027-10-31T02:30:00+02:00", "2027-10-31T02:30:00+01:00"]),
        // The change itself is a match.
        ("0 */1 * * *", "Europe/Berlin", "2027-10-31T00:00:00Z", ["2027-10-31T02:00:00+01:00", "2027-10-31T03:00:00+01:00"]),
        // Half an hour, in the south: 3 October 2027 has no 02:00 to 02:30; 4 April 2027 has 01:30 to 02:00 twice.
        ("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T00:00:00Z", ["2027-10-03T02:30:00+11:00", "2027-10-04T02:15:00+11:00"]),
        ("45 * * * *", "Australia/Lord_Howe", "2027-04-03T14:00:00Z", ["2027-04-04T01:45:00+11:00", "2027-04-04T01:45:00+10:30"]),
        // A midnight that does not exist, and a day that does not.
        ("0 0 * * *", "Africa/Cairo", "2027-04-29T12:00:00Z", ["2027-04-30T01:00:00+03:00", "2027-05-01T00:00:00+03:00"]),
        ("0 12 30 12 *", "Pacific/Apia", "2011-06-01T00:00:00Z", ["2011-12-31T00:00:00+14:00", "2012-12-30T12:00:00+14:00"]),
    ] {
        assert_eq!(next(expression, place, from, 2), expected, "{expression} in {place}");
    }
}

#[test]
fn strictly_after() {
    let at = time::parse("2027-01-01T02:00:00Z").unwrap();
    for text in ["0 2 * * *", "0 * * * *", "1h"] {
        let schedule = Schedule::parse(text, &Zone::utc()).unwrap();
        assert_eq!(schedule.next_after(at - 1), Some(at), "{text}");
        assert!(schedule.next_after(at) > Some(at), "{text}");
    }
    let rare = Schedule::parse("0 0 29 2 *", &Zone::utc()).unwrap();
    let last = time::parse("2096-02-29T00:00:00Z").unwrap();
    assert_eq!((rare.next_after(last - 1), rare.next_after(last)), (Some(last), None), "the calendar of the crate ends with 2100");
    for schedule in [rare, Schedule::parse("* * * * *", &zone("Europe/Berlin")).unwrap()] {
        assert_eq!([1 << 40, i64::MAX as u64, u64::MAX].map(|t| schedule.next_after(t)), [None; 3]);
    }
    assert_eq!(Schedule::Interval(Interval::default()).next_after(u64::MAX), None);
}

#[test]
fn settings_take_cron_before_interval_and_30_seconds_without() {
    let of = |cron, interval| Schedule::of(cron, interval, &Zone::utc());
    assert!(matches!(of(Some("0 2 * * 0"), Some("1h")), Ok(Schedule::Cron(..))));
    assert!(matches!(of(None, Some("1h")), Ok(Schedule::Interval(i)) if i.seconds() == 3600));
    assert!(matches!(of(None, None), Ok(Schedule::Interval(i)) if i.seconds() == 30));
    assert_eq!(of(Some("0 2 * * 0"), Some("29s")).unwrap_err().code, "interval_range", "no error hides behind the other");
}

#[test]
fn errors_name_the_field_and_what_is_allowed() {
    let long = "0,".repeat(300) + "0 * * * *";
    for (text, code, parts) in [
        ("60 * * * *", "cron_invalid", ["minute '60'", "0-59"]),
        ("0 24 * * *", "cron_invalid", ["hour '24'", "0-23"]),
        ("0 0 0 * *", "cron_invalid", ["day of month '0'", "1-31"]),
        ("0 0 * 13 *", "cron_invalid", ["month '13'", "1-12, jan-dec"]),
        ("0 0 * * 8", "cron_invalid", ["day of week '8'", "0-7 (0 and 7 are Sunday), sun-sat"]),
        ("0 0 * * monday", "cron_invalid", ["day of week", "'monday' is no value"]),
        ("*/0 * * * *", "cron_invalid", ["minute", "the step '0'"]),
        ("*/1000 * * * *", "cron_invalid", ["minute", "1 to 999"]),
        ("5/10 * * * *", "cron_invalid", ["minute", "5-59/10"]),
        ("0 22-6 * * *", "cron_invalid", ["hour", "22-23,0-6"]),
        ("0 0 * * fri-sun", "cron_invalid", ["day of week", "write 5-7"]),
        ("1,,2 * * * *", "cron_invalid", ["minute", "a value is missing"]),
        ("0 0 L * *", "cron_invalid", ["day of month", "'L' is no value"]),
        ("0 0 0 * * *", "cron_invalid", ["6 fields", "no seconds"]),
        ("0 2 *", "cron_invalid", ["3 fields", "minute hour day-of-month month day-of-week"]),
        ("@daily", "cron_invalid", ["@daily", "0 0 * * *"]),
        ("", "cron_invalid", ["0 fields", "expected 5"]),
        (long.as_str(), "cron_invalid", ["609 bytes", "at most 512"]),
        ("0 0 30 2 *", "cron_never", ["0 0 30 2 *", "never fires"]),
        ("0 0 31 4,6,9,11 */1", "cron_never", ["never fires", "no such day"]),
        ("29s", "interval_range", ["29s", "30s to 366d"]),
        ("0", "interval_range", ["'0'", "30s"]),
        ("367d", "interval_range", ["367d", "366d"]),
        ("999999999999d", "interval_range", ["366d", "30s"]),
        ("9999999999999", "interval_invalid", ["9999999999999", "30s 5m 1h 24h 1d"]),
        ("1h30m", "interval_invalid", ["1h30m", "whole number"]),
        ("1.5h", "interval_invalid", ["1.5h", "whole"]),
        ("5M", "interval_invalid", ["5M", "s, m, h or d"]),
    ] {
        let reason = Schedule::parse(text, &Zone::utc()).unwrap_err();
        assert_eq!(reason.code, code, "{text}: {reason}");
        parts.iter().for_each(|part| assert!(reason.detail.contains(part), "{text}: {reason}"));
    }
    for (name, part) in [
        ("Berlin", "is it Europe/Berlin?"),
        ("new york", "America/New_York"),
        ("Mars/Olympus", "Europe/Berlin or UTC"),
        ("", "no such zone"),
    ] {
        let reason = Zone::named(name).unwrap_err();
        assert!(reason.code == "zone_unknown" && reason.detail.contains(part), "{name}: {reason}");
    }
    assert_eq!(Zone::named(&"x".repeat(65)).unwrap_err().code, "zone_unknown");
}

#[test]
fn zones_have_names_in_any_case_and_local_is_the_callers() {
    let local = zone("Asia/Kathmandu");
    for (text, name) in [
        ("europe/berlin", "Europe/Berlin"),
        ("utc", "UTC"),
        ("local", "Asia/Kathmandu"),
        (" Local ", "Asia/Kathmandu"),
        ("", "Asia/Kathmandu"),
    ] {
        assert_eq!(Zone::parse(text, &local).unwrap().name(), name, "{text}");
    }
    let at = time::parse("2027-01-01T00:00:00Z").unwrap();
    for (name, text) in [
        ("UTC", "2027-01-01T00:00:00+00:00"),
        ("Asia/Kathmandu", "2027-01-01T05:45:00+05:45"),
        ("America/St_Johns", "2026-12-31T20:30:00-03:30"),
    ] {
        assert_eq!(zone(name).rfc3339(at), text);
        assert_eq!(parse_instant(text), Ok(at));
    }
    for bad in ["", "2027-01-01", "2027-01-01T00:00:00", "1969-12-31T23:59:59Z", "yesterday", &"2".repeat(100)] {
        assert_eq!(parse_instant(bad).unwrap_err().code, "time_invalid", "{bad}");
    }
}

#[test]
fn words_for_people() {
    for (expression, words) in [
        ("0 3 * * 1-5", "at 03:00 on Monday to Friday"),
        ("0 2 * * 0", "at 02:00 on Sunday"),
        ("*/5 * * * *", "every 5 minutes"),
        ("* * * * *", "every minute"),
        ("0 */6 * * *", "at 00:00, 06:00, 12:00 and 18:00 every day"),
        ("*/30 9-17 * * 1-5", "every 30 minutes in the hours 09 to 17 on Monday to Friday"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("*/7 * * * *", "at minutes 0, 7, 14 ... 56 of every hour"),
        ("*/90 * * * *", "at minute 0 of every hour"),
        ("0 0 1 1 *", "at 00:00 on day 1 of the month in January"),
        ("0 12 1,15 * *", "at 12:00 on days 1 and 15 of the month"),
        ("0 4 13 * 5", "at 04:00 on day 13 of the month, and besides on Friday"),
        ("0 4 */12 * 5", "at 04:00 on days 1, 13 and 25 of the month, where that is a Friday"),
        ("0 0 1-31 * 1", "at 00:00 every day"),
        ("0 0 * * 5-7", "at 00:00 on Friday to Sunday"),
        ("0 0 * jan-mar 0,6", "at 00:00 on Saturday and Sunday in January to March"),
    ] {
        assert_eq!(Cron::parse(expression).unwrap().words(), words, "{expression}");
    }
    for (interval, words) in
        [("30", "every 30 seconds"), ("60s", "every minute"), ("90m", "every 90 minutes"), ("24h", "every day"), ("2d", "every 2 days")]
    {
        assert_eq!(Interval::parse(interval).unwrap().words(), words);
    }
    assert_eq!(Schedule::parse("0 3 * * *", &zone("Asia/Tokyo")).unwrap().words(), "at 03:00 every day, Asia/Tokyo");
}

proptest::proptest! {
    /// Any text: an answer or a reason, no panic; what is taken is taken again as its own text, and goes forward.
    #[test]
    fn any_text_is_an_answer_or_a_reason(text in r"[0-9*/,\- a-z@é?#L]{0,40}|([0-9*/,\-]{1,7} ){4}[0-7*]", at in 0_u64..5_000_000_000) {
        let Ok(schedule) = Schedule::parse(&text, &zone("America/St_Johns")) else { return Ok(()) };
        if let Schedule::Cron(cron, _) = &schedule {
            proptest::prop_assert_eq!(&Cron::parse(cron.text()).unwrap(), cron);
        }
        proptest::prop_assert!(schedule.next_after(at).is_none_or(|next| next > at));
        proptest::prop_assert!(!schedule.words().is_empty());
    }
}
