//! How long to wait before the next try: doubling, capped, with jitter, and never less than the server asked for.

/// First wait after a failure, milliseconds: a restart of the Director takes about a second.
pub const FIRST_MS: u64 = 1_000;
/// Longest own wait, milliseconds: an outage of hours must not become an outage of days.
pub const CAP_MS: u64 = 5 * 60_000;
/// Longest own wait of a device on trial, milliseconds: it goes back at its contact deadline, so an authority that is back
/// must be found well before; ten tries in the default five minutes.
pub const TRIAL_CAP_MS: u64 = 30_000;
/// Longest wait a server may ask for, milliseconds: a hostile `Retry-After` must not silence a device.
pub const RETRY_AFTER_CAP_MS: u64 = 60 * 60_000;

/// Milliseconds to wait after `failures` failures in a row (1 = the first). `seed` is any random number: the wait is
/// spread over 50 to 100 % of its length, so that a fleet does not come back as one. `retry_after_s` is the server's
/// word: at least that long, plus up to 10 % of jitter.
pub fn wait_ms(failures: u32, seed: u64, retry_after_s: Option<u64>) -> u64 {
    let full = FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(CAP_MS);
    let own = full / 2 + seed % (full / 2 + 1);
    let asked = retry_after_s.map_or(0, |s| s.saturating_mul(1_000).min(RETRY_AFTER_CAP_MS));
    own.max(asked + if asked > 0 { seed % (asked / 10 + 1) } else { 0 })
}

/// Connections that a Director takes in per second without keeping those waiting that have one: a handshake with the first
/// report costs it a third of a millisecond to one of CPU.
pub const RECONNECTS_PER_S: u64 = 800;
/// Longest spread of first reconnects, seconds: what a Director may ask for, and what a device grants at most. An order
/// reaches it that much later after an outage; a trial, which has a deadline, does not wait for it.
pub const SPREAD_MAX_S: u64 = 30;

/// Over how many seconds a fleet of `agents` should come back after it lost its Director; `None` = it is too small to matter.
pub fn spread_s(agents: usize) -> Option<u64> {
    let s = (agents as u64).div_ceil(RECONNECTS_PER_S).min(SPREAD_MAX_S);
    (s > 1).then_some(s)
}

/// Milliseconds to add to [`wait_ms`] before the first try after a loss: anything up to the spread that the Director named
/// in its last answer. Later tries are as far apart as the first ones were. Nothing is added to what the server asked for.
pub fn spread_ms(failures: u32, seed: u64, retry_after_s: Option<u64>, spread_s: Option<u64>) -> u64 {
    if failures != 1 || retry_after_s.is_some() {
        return 0;
    }
    // Other bits than the wait's own: the two must not go up and down together.
    seed.rotate_left(32) % (spread_s.unwrap_or(0).min(SPREAD_MAX_S) * 1_000 + 1)
}

/// Seconds for the next park: `base` spread by 10 % either way.
pub fn park_s(base: u64, seed: u64) -> u64 {
    let spread = base / 10;
    base - spread + seed % (2 * spread + 1)
}

/// New orders that are taken at once: a person who corrects himself a few times does not wait.
pub const ORDERS_BURST: u64 = 8;
/// After that, one per so many milliseconds: each costs durable writes and a look at the metadata.
pub const ORDERS_EVERY_MS: u64 = 1_000;

/// Keeps a Director that sends order after order from wearing out a device's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When the bucket will be full again, milliseconds on a monotonic clock.
    full_at_ms: u64,
}

impl Pace {
    /// Takes note of an order and says how long to wait after it.
    pub fn wait_ms(&mut self, now_ms: u64) -> u64 {
        self.full_at_ms = self.full_at_ms.max(now_ms).saturating_add(ORDERS_EVERY_MS);
        (self.full_at_ms - now_ms).saturating_sub(ORDERS_BURST * ORDERS_EVERY_MS).min(ORDERS_EVERY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_orders_is_taken_one_per_second() {
        let (mut pace, mut now, mut taken) = (Pace::default(), 50, 0);
        while now < 100_050 {
            now += pace.wait_ms(now) + 1;
            taken += 1;
        }
        assert!((100..=100 + ORDERS_BURST + 1).contains(&taken), "{taken} in 100 s");
        let mut calm = Pace::default();
        assert!((0..1000).all(|n| calm.wait_ms(n * 2 * ORDERS_EVERY_MS) == 0), "nobody else waits");
    }

    #[test]
    fn grows_is_capped_and_spread() {
        for failures in 1..100 {
            let (low, high) = (wait_ms(failures, 0, None), wait_ms(failures, u64::MAX, None));
            assert!(low >= FIRST_MS / 2 && high <= CAP_MS, "{failures}: {low} {high}");
            assert!(wait_ms(failures + 1, 0, None) >= low);
        }
        let spread: std::collections::BTreeSet<u64> = (0..1000).map(|seed| wait_ms(9, seed * 7919, None)).collect();
        assert!(spread.len() > 900, "a fleet must not come back as one");
    }

    #[test]
    fn the_server_is_obeyed_within_reason() {
        assert!(wait_ms(1, 3, Some(120)) >= 120_000);
        assert!(wait_ms(1, u64::MAX, Some(u64::MAX)) <= RETRY_AFTER_CAP_MS * 11 / 10 + 1);
        assert_eq!(wait_ms(1, 0, Some(0)), wait_ms(1, 0, None));
    }

    #[test]
    fn a_large_fleet_comes_back_spread_and_a_small_one_at_once() {
        assert_eq!((spread_s(0), spread_s(800), spread_s(10_000), spread_s(usize::MAX)), (None, None, Some(13), Some(SPREAD_MAX_S)));
        for hostile in [None, Some(0), Some(13), Some(31), Some(u64::MAX)] {
            let most = hostile.unwrap_or(0).min(SPREAD_MAX_S) * 1_000;
            assert!((0..2_000).all(|n: u64| spread_ms(1, n.wrapping_mul(0x9e37_79b9_7f4a_7c15), None, hostile) <= most), "{hostile:?}");
            assert_eq!(spread_ms(2, u64::MAX, None, hostile), 0, "only the first try");
            assert_eq!(spread_ms(1, u64::MAX, Some(0), hostile), 0, "the server named its own time");
        }
    }

    #[test]
    fn ten_thousand_agents_begin_no_more_than_1500_connections_in_a_second() {
        let mut begun = [0; 64];
        for n in 1..=10_000_u64 {
            let seed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut at = 0;
            // The Director is away for a second; whoever comes sooner tries again.
            for failures in 1.. {
                at += wait_ms(failures, seed.wrapping_mul(u64::from(failures)), None) + spread_ms(failures, seed, None, spread_s(10_000));
                begun[(at / 1_000) as usize] += 1;
                if at >= 1_000 {
                    break;
                }
            }
        }
        assert!(begun.iter().all(|n| *n <= 1_500), "{begun:?}");
        assert!(begun[16..].iter().all(|n| *n == 0), "all are back in time: {begun:?}");
    }

    #[test]
    fn parks_stay_under_a_minute() {
        for seed in 0..500 {
            let s = park_s(53, seed);
            assert!((48..=58).contains(&s), "{s}");
        }
    }
}
