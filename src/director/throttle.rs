//! How often one agent may ask: a bucket of requests that refills.

use std::collections::HashMap;
use std::time::Duration;

/// Requests an agent may make at once: reports between the slices of a fast download come in bursts.
const BURST: f64 = 120.0;
/// Requests per second that refill the bucket: far above a poll per minute and a report per slice, far below a busy loop.
const REFILL_PER_S: f64 = 5.0;
/// Enrollments at once, all devices together: a whole site may be installed at the same moment.
const ENROLL_BURST: f64 = 500.0;
/// Enrollments per second after that: bounds what a guesser costs.
const ENROLL_REFILL_PER_S: f64 = 20.0;
/// The bucket of all enrollments; no agent id has this form.
const ENROLLMENT: &str = "*enroll";

/// A bucket per agent.
#[derive(Default)]
pub struct Throttle {
    buckets: HashMap<String, (f64, Duration)>,
}

impl Throttle {
    /// Takes one request; `Err` holds the seconds to wait.
    ///
    /// # Errors
    /// The bucket is empty.
    pub fn take(&mut self, agent: &str, now: Duration) -> Result<(), u64> {
        self.take_from(agent, BURST, REFILL_PER_S, now)
    }

    /// Takes one enrollment.
    ///
    /// # Errors
    /// The bucket is empty.
    pub fn take_enrollment(&mut self, now: Duration) -> Result<(), u64> {
        self.take_from(ENROLLMENT, ENROLL_BURST, ENROLL_REFILL_PER_S, now)
    }

    fn take_from(&mut self, name: &str, burst: f64, refill: f64, now: Duration) -> Result<(), u64> {
        if !self.buckets.contains_key(name) {
            self.buckets.insert(name.to_string(), (burst, now));
        }
        let Some((level, at)) = self.buckets.get_mut(name) else { return Ok(()) };
        *level = (*level + now.saturating_sub(*at).as_secs_f64() * refill).min(burst);
        *at = now;
        if *level < 1.0 {
            return Err(5);
        }
        *level -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_loop_ends_and_recovers() {
        let mut throttle = Throttle::default();
        let now = Duration::from_secs(10);
        let taken = (0..1_000).filter(|_| throttle.take("a", now).is_ok()).count();
        assert_eq!(taken, BURST as usize);
        assert!(throttle.take("b", now).is_ok(), "others are not concerned");
        assert!(throttle.take("a", now + Duration::from_secs(1)).is_ok());
    }
}
