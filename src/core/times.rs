//! Times and limits of the agent, each with its reason. One table, so that a test build can lower them all in one place.

/// The times an agent lives by. [`Times::DEFAULT`] everywhere but in builds with the feature `fault`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Seconds without a turn of the main loop after which the kernel kills the process: above the long poll and one
    /// download slice.
    pub liveness_s: u32,
    /// Bounds for an order's contact deadline: longer than a slow boot and TLS retries, shorter than a day.
    pub contact_min_s: u64,
    /// Longest contact deadline.
    pub contact_max_s: u64,
    /// Contact deadline when the order names none.
    pub contact_default_s: u64,
    /// The authority must have answered within this time before a switch.
    pub contact_fresh_s: u64,
    /// Longest trial when the order names none.
    pub trial_default_s: u64,
    /// Longest trial an order may name.
    pub trial_max_s: u64,
    /// Waits after *could not tell*: the specification's cooldown, then patience.
    pub cooldown_s: [u64; 4],
    /// A confirmed image counts as settled after this time of passed checks without contact.
    pub settled_s: u64,
    /// Wait before a cause outside (disk, permission, metadata) is looked at again.
    pub recheck_s: u64,
    /// Middle of the long poll's length, spread by 10 %: under common 60 s proxy limits.
    pub park_s: u64,
    /// Time for an answer that is not parked.
    pub answer_s: u64,
    /// A staged file's self-test may take this long: a slow disk and a cold cache included.
    pub self_test_s: u64,
    /// The operator's own check of a version on trial may take this long: far below the contact deadline.
    pub check_s: u64,
}

impl Times {
    /// The contract with operators; README shows it.
    pub const DEFAULT: Times = Times {
        liveness_s: 180,
        contact_min_s: 30,
        contact_max_s: 24 * 3600,
        contact_default_s: 300,
        contact_fresh_s: 60,
        trial_default_s: 24 * 3600,
        trial_max_s: 7 * 24 * 3600,
        cooldown_s: [600, 3600, 6 * 3600, 24 * 3600],
        settled_s: 600,
        recheck_s: 600,
        park_s: 53,
        answer_s: 30,
        self_test_s: 30,
        check_s: 60,
    };

    /// Cooldown after the `n`-th time (from 1) that nothing could be told of a file.
    pub fn cooldown(&self, n: u32) -> u64 {
        let last = self.cooldown_s.len() - 1;
        self.cooldown_s[(n.saturating_sub(1) as usize).min(last)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let t = Times::DEFAULT;
        assert!(u64::from(t.liveness_s) > 58 + 20, "liveness is above the longest poll and one slice");
        assert!(t.check_s < u64::from(t.liveness_s) && t.check_s < t.contact_default_s);
        assert!(t.contact_min_s <= t.contact_default_s && t.contact_default_s <= t.contact_max_s);
        assert_eq!([t.cooldown(0), t.cooldown(1), t.cooldown(2), t.cooldown(4), t.cooldown(99)], [600, 600, 3600, 86400, 86400]);
    }
}
