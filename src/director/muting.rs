//! How many events one agent's own reports may make: whoever tells another story each second must not push everybody
//! else's out of the activity. What the Director does by itself or for a person is always told.

use std::collections::HashMap;

/// Events at once: dozens of updates.
const BURST: u64 = 1_000;
/// One more in so many seconds: 860 a day and agent.
const EVERY_S: u64 = 100;
/// How often it is told that events are left out, seconds.
const TOLD_EVERY_S: u64 = 3_600;

/// One agent's allowance; kept only while it is not full.
#[derive(Debug)]
struct Allowance {
    left: u64,
    since: u64,
    untold: u64,
    told_at: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Muting {
    agents: HashMap<String, Allowance>,
    /// Events that the report being taken in may still make; `None` = no report is.
    left: Option<u64>,
    untold: u64,
    now: u64,
}

impl Muting {
    /// A report of this agent is taken in from here on.
    pub fn begin(&mut self, agent: &str, now: u64) {
        let left = self.agents.get(agent).map_or(BURST, |a| BURST.min(a.left + now.saturating_sub(a.since) / EVERY_S));
        (self.left, self.untold, self.now) = (Some(left), 0, now);
    }

    /// Whether one more event may be told.
    pub fn may_tell(&mut self) -> bool {
        match &mut self.left {
            None => true,
            Some(0) => {
                self.untold += 1;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// The report was taken in. How many events were left out since that was told last, when it is time to tell it again.
    pub fn end(&mut self, agent: &str) -> Option<u64> {
        let (left, untold, now) = (self.left.take()?, self.untold, self.now);
        if left == BURST {
            self.agents.remove(agent);
            return None;
        }
        let fresh = Allowance { left: BURST, since: now, untold: 0, told_at: 0 };
        let entry = self.agents.entry(agent.to_string()).or_insert(fresh);
        // The time that has not made a whole event yet is kept.
        let gained = now.saturating_sub(entry.since) / EVERY_S;
        entry.since = if entry.left + gained >= BURST { now } else { entry.since + gained * EVERY_S };
        entry.left = left;
        entry.untold += untold;
        if entry.untold == 0 || (entry.told_at > 0 && now < entry.told_at + TOLD_EVERY_S) {
            return None;
        }
        entry.told_at = now;
        Some(std::mem::take(&mut entry.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(muting: &mut Muting, events: u64, now: u64) -> (u64, Option<u64>) {
        muting.begin("a", now);
        let told = (0..events).filter(|_| muting.may_tell()).count() as u64;
        (told, muting.end("a"))
    }

    #[test]
    fn a_liar_is_cut_off_counted_and_forgiven() {
        let mut muting = Muting::default();
        assert_eq!(told(&mut muting, 0, 1), (0, None));
        assert!(muting.agents.is_empty(), "a quiet agent costs nothing");
        assert_eq!(told(&mut muting, BURST, 1), (BURST, None));
        assert_eq!(told(&mut muting, 7, 1), (0, Some(7)));
        assert_eq!(told(&mut muting, 5, 2), (0, None), "told once an hour");
        assert_eq!(told(&mut muting, 2, 1 + 2 * EVERY_S), (2, None));
        assert_eq!(told(&mut muting, 1, 2 + TOLD_EVERY_S).0, 1);
        assert_eq!(told(&mut muting, 0, 1_000_000).0, 0);
        assert!(muting.agents.is_empty());
        assert!(muting.may_tell(), "what is no report's is always told");
    }
}
