//! What a device's own clock is worth, and how much time has passed when clocks were set in between.
//!
//! Signed times are facts: the build's date and the trusted timestamp's `issued`. Whoever shows an earlier time is wrong,
//! this device as well as its Director. Nothing here is stored as a floor that was not signed: one boot in 2099 must not
//! block a device for good.
//!
//! Time that passes is counted by the monotonic clock. Across a reboot there are two witnesses left: the uptime, which is
//! never more than what has passed, and the Director's time, if it answered on both sides. The own wall clock is none:
//! without a battery it starts anywhere, and is then set.

/// How far ahead of the Director's time a clock may be: time zones that were set by hand are within a day.
pub const AHEAD_S: u64 = 24 * 3600;

/// A judgement of this device's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// Nothing speaks against it.
    #[default]
    Ok,
    /// It shows a time before signed ones; those are used instead.
    Unsure,
    /// It is over a day ahead of the Director's: no new metadata are accepted by it.
    Ahead,
}

impl Clock {
    /// As in the report.
    pub fn word(self) -> &'static str {
        match self {
            Clock::Ok => "ok",
            Clock::Unsure => "unsure",
            Clock::Ahead => "ahead",
        }
    }
}

/// The Director's time, if it can be true.
pub fn believed(director: u64, floor: u64) -> Option<u64> {
    (director >= floor).then_some(director)
}

/// Judges the own clock by the latest signed time and by the Director's time now, if it is known.
pub fn judge(own: u64, floor: u64, director: Option<u64>) -> Clock {
    if own < floor {
        return Clock::Unsure;
    }
    match director.and_then(|time| believed(time, floor)) {
        Some(time) if own > time.saturating_add(AHEAD_S) => Clock::Ahead,
        _ => Clock::Ok,
    }
}

/// The moment of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock, floored by signed times, seconds since 1970.
    pub unix: u64,
    /// Seconds since boot, suspend included.
    pub monotonic: u64,
    /// Id of this boot.
    pub boot_id: String,
    /// The Director's time, if it has answered this process with one that can be true.
    pub director: Option<u64>,
}

impl Moment {
    /// Seconds that have passed since `then`, as far as witnesses can tell: never more, and never for ever less.
    pub fn since(&self, then: &Moment) -> u64 {
        if self.boot_id == then.boot_id {
            return self.monotonic.saturating_sub(then.monotonic);
        }
        match (then.director, self.director) {
            (Some(then), Some(now)) => now.saturating_sub(then).max(self.monotonic),
            _ => self.monotonic,
        }
    }

    /// What the Director's clock showed at `then`, an earlier moment of this boot.
    pub fn director_at(&self, then: &Moment) -> Option<u64> {
        let same_boot = self.boot_id == then.boot_id;
        self.director.filter(|_| same_boot).map(|now| now.saturating_sub(self.monotonic.saturating_sub(then.monotonic)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const Y2099: u64 = 4_080_000_000;

    fn at(boot_id: &str, monotonic: u64, director: Option<u64>) -> Moment {
        Moment { unix: 0, monotonic, boot_id: boot_id.into(), director }
    }

    #[test]
    fn a_clock_is_judged_by_signed_times_and_by_a_director_that_can_be_right() {
        for (own, director, expected, why) in [
            (NOW, Some(NOW), Clock::Ok, "all agree"),
            (0, Some(NOW), Clock::Unsure, "a boot in 1970"),
            (0, None, Clock::Unsure, "the same without contact"),
            (Y2099, Some(NOW), Clock::Ahead, "a boot in 2099"),
            (Y2099, None, Clock::Ok, "nobody can tell yet"),
            (NOW + AHEAD_S, Some(NOW), Clock::Ok, "a day is allowed"),
            (NOW + AHEAD_S + 1, Some(NOW), Clock::Ahead, "more is not"),
            (NOW, Some(0), Clock::Ok, "a Director in 1970 accuses nobody"),
            (NOW, Some(Y2099), Clock::Ok, "a Director in 2099 accuses nobody"),
            (u64::MAX, Some(u64::MAX), Clock::Ok, "no overflow"),
        ] {
            assert_eq!(judge(own, NOW - 1000, director), expected, "{why}");
        }
    }

    #[test]
    fn within_a_boot_only_the_monotonic_clock_counts() {
        assert_eq!(at("a", 50, Some(Y2099)).since(&at("a", 20, Some(0))), 30);
        assert_eq!(at("a", 10, None).since(&at("a", 20, None)), 0);
    }

    #[test]
    fn across_a_boot_uptime_and_the_director_are_the_witnesses() {
        let then = at("a", 9000, Some(NOW));
        assert_eq!(at("b", 5, None).since(&then), 5, "nobody has answered yet: the uptime has passed at least");
        assert_eq!(at("b", 5, Some(NOW + 600)).since(&then), 600, "the Director counted on while the device was off");
        assert_eq!(at("b", 5, Some(NOW - 600)).since(&then), 5, "a Director whose clock was set back prolongs nothing");
        assert_eq!(at("b", 5, Some(NOW + 600)).since(&at("a", 9000, None)), 5);
    }

    #[test]
    fn a_moment_before_the_contact_is_dated_after_it() {
        assert_eq!(at("a", 50, Some(NOW)).director_at(&at("a", 20, None)), Some(NOW - 30));
        assert_eq!(at("b", 50, Some(NOW)).director_at(&at("a", 20, None)), None, "another boot's uptime says nothing");
        assert_eq!(at("a", 50, None).director_at(&at("a", 20, None)), None);
    }
}
