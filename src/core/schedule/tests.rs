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
        ("1h", vec![day(1, "01:00"), day(1, "02:00")]),
        ("24h", vec![day(2, "00:00"), day(3, "00:00")]),
        ("1d", vec![day(2, "00:00"), day(3, "00:00")]),
        ("900", vec![day(1, "00:15"), day(1, "00:30")]),
    ] {
        assert_eq!(next(expression, "UTC", "2027-01-01T00:00:00Z", expected.len()), expected, "{expression}");
    }
}
