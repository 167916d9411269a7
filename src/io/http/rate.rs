//! The minimum rate of a download: pure arithmetic, time is an argument.

use std::time::Duration;

/// Fewest bytes in one window before a connection is given up. Ends the connection, never the progress.
pub const WINDOW_BYTES: u64 = 60 * 1024;
/// Length of a window: 1 KiB/s over 60 s, so that a radio link's pauses are no reason.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Counts what arrived while we were waiting for it; the time between two reads is the reader's own and does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinRate {
    waited: Duration,
    bytes: u64,
}

impl MinRate {
    /// A reading took `waited` and brought `bytes`. `false` = a whole window went by with too few.
    #[must_use]
    pub fn enough(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < WINDOW {
            return true;
        }
        // The window's minimum grows with it: one reading may have taken longer than a window.
        let least = u128::from(WINDOW_BYTES) * self.waited.as_millis() / WINDOW.as_millis();
        let enough = u128::from(self.bytes) >= least;
        *self = MinRate::default();
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[(u64, u64)]) -> bool {
        let mut rate = MinRate::default();
        steps.iter().all(|&(ms, bytes)| rate.enough(Duration::from_millis(ms), bytes))
    }

    #[test]
    fn a_window_is_judged_when_it_ends() {
        assert!(run(&[(59_999, 0)]), "a pause shorter than a window is no reason");
        assert!(!run(&[(60_000, 0)]));
        assert!(!run(&[(30_000, 10_000), (30_000, 10_000)]));
        assert!(run(&[(30_000, 61_440), (30_000, 0)]));
        assert!(!run(&[(120_000, 61_440)]), "a long reading is measured over its own length");
    }

    #[test]
    fn a_new_window_starts_from_nothing() {
        assert!(!run(&[(60_000, 10_000_000), (60_000, 61_439)]), "a fast start buys no later silence");
        assert!(run(&[(60_000, 61_440); 100]));
    }
}
