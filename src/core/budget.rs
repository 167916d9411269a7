//! How many bytes may still be sent on a day, and how fast: decisions about numbers that others keep.
//!
//! What is asked for is taken in advance, all of it, and what was not sent is given back: so no crash and no two requests at
//! once can exceed a limit. A file that was sent in parts counts each byte once, because each part asks for itself.
//!
//! | code | when |
//! |---|---|
//! | `bytes_per_day` | the day's bytes are used up, or the rest is less than what was asked for; the next day has as many again |
//! | `file_over_limit` | the file alone is more than a day's bytes: waiting does not help |

use std::time::Duration;

use super::reason::Reason;

/// What was taken on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The day, as `2026-11-23` in the zone of the settings; compared as text.
    pub day: String,
    /// Bytes.
    pub bytes: u64,
}

impl Spent {
    /// The same on `today`. A day that went by is over; one that the clock went back to is the one before still.
    pub fn on(&self, today: &str) -> Spent {
        if today > self.day.as_str() { Spent { day: today.into(), bytes: 0 } } else { self.clone() }
    }
}

/// Takes `want` bytes of a day's `limit`. `whose` is named in the refusal: `this agent's`, `this Director's`.
///
/// # Errors
/// See the table.
pub fn take(spent: &Spent, limit: u64, want: u64, today: &str, whose: &str) -> Result<Spent, Reason> {
    let mut now = spent.on(today);
    if want > limit {
        let detail = format!("{want} bytes are more than {whose} {limit} bytes a day; raise bytes_per_day in vmetric.yml");
        return Err(Reason::new("file_over_limit", detail));
    }
    let left = limit.saturating_sub(now.bytes);
    if want > left {
        let detail = format!("{whose} {limit} bytes of {} are used up ({left} left, {want} asked for); it goes on tomorrow", now.day);
        return Err(Reason::new("bytes_per_day", detail));
    }
    now.bytes += want;
    Ok(now)
}

/// Gives back what was taken on `day` and not sent. Of a day that is over, nothing is left to give back to.
pub fn give_back(spent: &Spent, day: &str, unsent: u64) -> Spent {
    match spent.day == day {
        true => Spent { bytes: spent.bytes.saturating_sub(unsent), ..spent.clone() },
        false => spent.clone(),
    }
}

/// Bytes per second: each piece moves the time at which the next one may go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    free_at: Duration,
}

impl Pace {
    /// How long a piece has to wait at `now`, and that it goes then.
    pub fn wait(&mut self, bytes: u64, per_second: u64, now: Duration) -> Duration {
        let start = self.free_at.max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(per_second.max(1));
        self.free_at = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "2026-11-23";

    #[test]
    fn a_limit_is_never_exceeded_and_the_next_day_is_a_new_one() {
        let code = |spent: &Spent, want| take(spent, 100, want, DAY, "its").map(|s| s.bytes).map_err(|r| r.code.to_string());
        let none = Spent::default();
        assert_eq!((code(&none, 60), code(&none, 100)), (Ok(60), Ok(100)));
        assert_eq!(code(&none, 101), Err("file_over_limit".into()));
        let some = Spent { day: DAY.into(), bytes: 60 };
        assert_eq!((code(&some, 40), code(&some, 41)), (Ok(100), Err("bytes_per_day".into())));
        assert_eq!(code(&Spent { day: "2026-11-22".into(), bytes: 100 }, 100), Ok(100));
        // A clock that was set back opens no second budget for the same day.
        let ahead = Spent { day: "2026-11-24".into(), bytes: 100 };
        assert_eq!(code(&ahead, 1), Err("bytes_per_day".into()));
        // The limit was lowered below what is spent.
        assert_eq!(code(&Spent { day: DAY.into(), bytes: 500 }, 1), Err("bytes_per_day".into()));
    }

    #[test]
    fn what_was_not_sent_is_given_back_once_and_to_its_day() {
        let spent = Spent { day: DAY.into(), bytes: 60 };
        assert_eq!(give_back(&spent, DAY, 50).bytes, 10);
        assert_eq!(give_back(&spent, DAY, 70).bytes, 0);
        assert_eq!(give_back(&spent, "2026-11-22", 50), spent);
    }

    #[test]
    fn any_sequence_of_parts_stays_within_the_rate() {
        for (rate, piece) in [(1_000, 100), (65_536, 32_768), (1, 1), (3_000_000, 7)] {
            let (mut pace, mut now, mut sent) = (Pace::default(), Duration::from_secs(5), 0);
            for n in 0..200 {
                now += pace.wait(piece, rate, now);
                sent += piece;
                // Some peers are slower than they may be.
                now += Duration::from_millis(n % 3);
                let seconds = (now - Duration::from_secs(5)).as_secs_f64();
                assert!((sent - piece) as f64 <= seconds * rate as f64 + 1.0, "{rate} {piece} {n}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn sums_hold(limit in 1u64..1_000, asks in proptest::collection::vec((0u64..400, 0u64..400, 0u8..4), 0..50)) {
            let (mut spent, mut sent) = (Spent::default(), std::collections::BTreeMap::<String, u64>::new());
            let mut day = 10;
            for (want, really, skip) in asks {
                day += u64::from(skip == 3);
                let today = format!("2026-11-{day}");
                if let Ok(taken) = take(&spent, limit, want, &today, "its") {
                    let really = really.min(want);
                    spent = give_back(&taken, &today, want - really);
                    *sent.entry(today).or_default() += really;
                }
            }
            proptest::prop_assert!(sent.values().all(|bytes| *bytes <= limit));
        }
    }
}
