//! How old a health is, by the clock of whoever hears it.
//!
//! ```text
//! Fleet     date D ---answer---+                 +--> arrives at A: made at D + held or later, however long it was on its way
//! Director                     +-- held (its clock) --+ health with D and held
//! ```
//!
//! When it is read says nothing: it may have lain in the buffers of a Fleet that was frozen for minutes. The two clocks need not
//! agree, they only have to run at about the same speed.

use std::time::Duration;

/// A date is held for no longer: clocks that differ by one part in a hundred are nine seconds apart by then.
pub const HELD_MAX: Duration = Duration::from_secs(900);

/// What a health says of its own age: the date that was answered to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dated {
    /// Of which run of the hearer: its clock is another one after a restart of its machine.
    pub run: u64,
    /// The hearer's clock then.
    pub date: Duration,
    /// How long ago the sender had that answer when it made the health, by the sender's clock.
    pub held: Duration,
}

/// When a health was made at the earliest; `None` = nobody knows, and it proves nothing. The answer to it has a new date.
pub fn made_at(run: u64, now: Duration, dated: &Dated) -> Option<Duration> {
    let age = now.checked_sub(dated.date)?;
    (dated.run == run && age <= HELD_MAX).then(|| now.min(dated.date.saturating_add(dated.held)))
}

/// When a health was made, and where it stands among those of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// At the earliest, by the hearer's clock; `None` = nobody knows.
    pub at: Option<Duration>,
    /// The sender's run, and a number that rises within it; `None` = it does not say.
    pub turn: Option<(u64, u64)>,
}

impl Made {
    /// Whether this one was heard although the other one was made before it: the other one is no news.
    pub fn overtook(&self, other: &Made) -> bool {
        match (self.turn, other.turn) {
            (Some((run, mine)), Some((same, its))) if run == same => its < mine,
            _ => self.at.zip(other.at).is_some_and(|(mine, its)| its < mine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_that_was_overtaken_is_none() {
        let s = |n| Some(Duration::from_secs(n));
        let made = Made { at: s(100), turn: Some((5, 70)) };
        for (turn, at, overtaken) in [
            (Some((5, 71)), s(99), false),
            (Some((5, 69)), s(101), true),
            (Some((6, 1)), s(101), false),
            (Some((4, 80)), s(99), true),
            // The first one of a run: nobody knows how old it is, so it counts, and proves nothing.
            (Some((6, 1)), None, false),
            (None, s(101), false),
        ] {
            assert_eq!(made.overtook(&Made { at, turn }), overtaken, "{turn:?} {at:?}");
        }
    }

    #[test]
    fn a_health_is_as_old_as_it_is() {
        let s = Duration::from_secs;
        let dated = Dated { run: 7, date: s(1_000), held: s(30) };
        assert_eq!(made_at(7, s(1_031), &dated), Some(s(1_030)));
        assert_eq!(made_at(7, s(1_317), &dated), Some(s(1_030)), "it lay there for 287 s");
        assert_eq!(made_at(7, s(1_020), &dated), Some(s(1_020)), "never in the future");
        assert_eq!(made_at(7, s(1_020), &Dated { held: Duration::MAX, ..dated }), Some(s(1_020)));
        assert_eq!(made_at(8, s(1_031), &dated), None, "another run");
        assert_eq!(made_at(7, s(999), &dated), None, "a date of the future");
        assert_eq!(made_at(7, s(1_901), &dated), None, "held for too long");
    }
}
