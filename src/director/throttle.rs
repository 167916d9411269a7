//! How often somebody may ask: buckets of requests that refill.
//!
//! | bucket | of whom | what it holds |
//! |---|---|---|
//! | ordinary | an agent | every report, poll and artifact |
//! | settling | an agent | a trial's question and a result, once the ordinary bucket is empty |
//! | api | a token of the API | every request with it |
//! | installer | an address | first installs (`/dl/agent`) |
//! | stranger | an address | refused enrollments and credentials; those who are known are not touched by it |

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// A bucket's size and what refills it per second.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: f64,
    per_s: f64,
}

/// Reports between the slices of a fast download come in bursts; the refill is far above a poll per minute and a report
/// per slice, and far below a busy loop.
const ORDINARY: Rate = Rate { burst: 120.0, per_s: 5.0 };
/// Two updates a minute have a dozen words that must not wait: a trial's clock runs, and the next order waits for a result.
const SETTLING: Rate = Rate { burst: 60.0, per_s: 1.0 };
/// A program that reads pages, and a person beside it; a loop without a pause is slowed down.
const API: Rate = Rate { burst: 300.0, per_s: 50.0 };
/// Wrong tokens and credentials of one address: a site behind one address whose token expired may try all at once; after
/// that, guessing is slow. What a right token may do is limited by its uses.
const STRANGER: Rate = Rate { burst: 500.0, per_s: 20.0 };
/// A whole site may be installed at the same moment, behind one address; each of them is a file of megabytes.
const INSTALLER: Rate = Rate { burst: 500.0, per_s: 20.0 };
/// Advised wait of whoever finds his bucket empty, seconds; up to twice that is added by chance.
const WAIT_S: u64 = 5;
/// Buckets kept before full ones are forgotten; then as many again as were not full. Most agents ask once a minute and
/// their bucket is full again after a fraction of a second.
const KEPT_MIN: usize = 1024;
/// Addresses whose failures are counted at once: a flood from more than that shares one bucket.
const ADDRESSES_MAX: usize = 4096;

/// Buckets by key.
struct Buckets<K> {
    rate: Rate,
    levels: HashMap<K, (f64, Duration)>,
    look_at: usize,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Rate) -> Buckets<K> {
        Buckets { rate, levels: HashMap::new(), look_at: KEPT_MIN }
    }

    fn level(&self, found: Option<&(f64, Duration)>, now: Duration) -> f64 {
        found.map_or(self.rate.burst, |(level, at)| (level + now.saturating_sub(*at).as_secs_f64() * self.rate.per_s).min(self.rate.burst))
    }

    fn holds<Q: Eq + Hash + ?Sized>(&self, key: &Q, now: Duration) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.level(self.levels.get(key), now) >= 1.0
    }

    fn take<Q: Eq + Hash + ToOwned<Owned = K> + ?Sized>(&mut self, key: &Q, now: Duration) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        let level = self.level(self.levels.get(key), now);
        let left = if level >= 1.0 { level - 1.0 } else { level };
        match self.levels.get_mut(key) {
            Some(bucket) => *bucket = (left, now),
            None => {
                self.forget_full(now);
                self.levels.insert(key.to_owned(), (left, now));
            }
        }
        level >= 1.0
    }

    /// A full bucket is as good as none.
    fn forget_full(&mut self, now: Duration) {
        if self.levels.len() < self.look_at {
            return;
        }
        let Rate { burst, per_s } = self.rate;
        self.levels.retain(|_, (level, at)| *level + now.saturating_sub(*at).as_secs_f64() * per_s < burst);
        self.levels.shrink_to(KEPT_MIN);
        self.look_at = (2 * self.levels.len()).max(KEPT_MIN);
    }
}

/// All buckets of a Director.
pub struct Throttle {
    ordinary: Buckets<String>,
    settling: Buckets<String>,
    api: Buckets<String>,
    strangers: Buckets<IpAddr>,
    installers: Buckets<IpAddr>,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            ordinary: Buckets::new(ORDINARY),
            settling: Buckets::new(SETTLING),
            api: Buckets::new(API),
            strangers: Buckets::new(STRANGER),
            installers: Buckets::new(INSTALLER),
        }
    }
}

impl Throttle {
    /// Takes one request of an agent; `Err` holds the seconds to wait.
    ///
    /// # Errors
    /// The bucket is empty.
    pub fn take(&mut self, agent: &str, now: Duration) -> Result<(), u64> {
        if self.ordinary.take(agent, now) { Ok(()) } else { Err(WAIT_S) }
    }

    /// Takes one word that ends an update, when [`Throttle::take`] had nothing left.
    ///
    /// # Errors
    /// This bucket is empty too.
    pub fn take_settling(&mut self, agent: &str, now: Duration) -> Result<(), u64> {
        if self.settling.take(agent, now) { Ok(()) } else { Err(WAIT_S) }
    }

    /// Takes one request of a token of the API.
    ///
    /// # Errors
    /// The bucket is empty.
    pub fn take_api(&mut self, token: &str, now: Duration) -> Result<(), u64> {
        if self.api.take(token, now) { Ok(()) } else { Err(WAIT_S) }
    }

    /// Whether an address may still be refused at once.
    ///
    /// # Errors
    /// Its refusals came too fast.
    pub fn may_fail(&self, address: Option<IpAddr>, now: Duration) -> Result<(), u64> {
        if self.strangers.holds(&self.strangers.counted(address), now) { Ok(()) } else { Err(WAIT_S) }
    }

    /// Counts a refused token or credential.
    pub fn failed(&mut self, address: Option<IpAddr>, now: Duration) {
        let address = self.strangers.counted(address);
        self.strangers.take(&address, now);
    }

    /// Takes one first install of an address.
    ///
    /// # Errors
    /// The bucket is empty.
    pub fn take_install(&mut self, address: Option<IpAddr>, now: Duration) -> Result<(), u64> {
        let address = self.installers.counted(address);
        if self.installers.take(&address, now) { Ok(()) } else { Err(WAIT_S) }
    }
}

impl Buckets<IpAddr> {
    /// The address by which failures are counted. Whoever has a /64 has all of its addresses.
    fn counted(&self, address: Option<IpAddr>) -> IpAddr {
        let address = match address {
            Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
            Some(other) => other.to_canonical(),
            None => IpAddr::from([0; 4]),
        };
        let known = self.levels.len() < ADDRESSES_MAX || self.levels.contains_key(&address);
        if known { address } else { IpAddr::from([0; 4]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    #[test]
    fn a_busy_loop_ends_and_recovers() {
        let mut throttle = Throttle::default();
        let taken = (0..1_000).filter(|_| throttle.take("a", NOW).is_ok()).count();
        assert_eq!(taken, ORDINARY.burst as usize);
        assert!(throttle.take("b", NOW).is_ok(), "others are not concerned");
        assert!(throttle.take("a", NOW + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_trial_has_words_of_its_own_and_not_without_end() {
        let mut throttle = Throttle::default();
        while throttle.take("a", NOW).is_ok() {}
        let taken = (0..1_000).filter(|_| throttle.take_settling("a", NOW).is_ok()).count();
        assert_eq!(taken, SETTLING.burst as usize);
    }

    #[test]
    fn strangers_are_slowed_by_address_and_their_memory_is_bounded() {
        let mut throttle = Throttle::default();
        let address = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        for _ in 0..STRANGER.burst as usize {
            assert!(throttle.may_fail(address(1), NOW).is_ok());
            throttle.failed(address(1), NOW);
        }
        assert!(throttle.may_fail(address(1), NOW).is_err() && throttle.may_fail(address(2), NOW).is_ok());
        for n in 0..3 * ADDRESSES_MAX as u32 {
            throttle.failed(address(n), NOW);
        }
        assert!(throttle.strangers.levels.len() <= ADDRESSES_MAX + 1);
        let neighbours = |last: u16| Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        assert_eq!(throttle.strangers.counted(neighbours(1)), throttle.strangers.counted(neighbours(2)));
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut throttle = Throttle::default();
        for n in 0..20 * KEPT_MIN {
            assert!(throttle.take(&n.to_string(), Duration::from_secs(n as u64)).is_ok());
        }
        assert!(throttle.ordinary.levels.len() <= KEPT_MIN, "{}", throttle.ordinary.levels.len());
    }
}
