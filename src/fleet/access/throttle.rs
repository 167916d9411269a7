//! How often somebody may try a password: per name and address together, per name, and per address. Unknown names count
//! like known ones, so a refusal tells nobody who exists.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// How many wrong ones are free, and how long the waits after them are: each twice the one before.
#[derive(Clone, Copy, Debug)]
struct Rule {
    free: u32,
    first_s: u64,
    longest_s: u64,
}

/// Somebody who mistypes has five; a program has then four in an hour.
const PAIR: Rule = Rule { free: 5, first_s: 30, longest_s: 900 };
/// From many addresses. Short waits: a name must not be locked by whoever wants its owner out.
const NAME: Rule = Rule { free: 30, first_s: 5, longest_s: 60 };
/// An office behind one address mistypes now and then; many names from one address is somebody else.
const ADDRESS: Rule = Rule { free: 60, first_s: 10, longest_s: 900 };
/// After so long without a wrong one, it is forgotten.
const FORGET: Duration = Duration::from_secs(3_600);
/// Rows of each table; the one that was quiet longest goes first.
const ROWS_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    wrong: u32,
    last: Duration,
    until: Duration,
}

struct Rows<K> {
    rule: Rule,
    rows: HashMap<K, Row>,
}

impl<K: Eq + Hash + Clone> Rows<K> {
    fn new(rule: Rule) -> Rows<K> {
        Rows { rule, rows: HashMap::new() }
    }

    fn until(&self, key: &K) -> Duration {
        self.rows.get(key).map_or(Duration::ZERO, |row| row.until)
    }

    fn count(&mut self, key: &K, now: Duration) {
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(key) {
            self.rows.retain(|_, row| now.saturating_sub(row.last) < FORGET);
            let oldest = self.rows.iter().min_by_key(|(_, row)| row.last).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| self.rows.len() >= ROWS_MAX) {
                self.rows.remove(&oldest);
            }
        }
        let row = self.rows.entry(key.clone()).or_default();
        if now.saturating_sub(row.last) >= FORGET {
            *row = Row::default();
        }
        row.wrong = row.wrong.saturating_add(1);
        row.last = now;
        if let Some(over) = row.wrong.checked_sub(self.rule.free) {
            let wait = self.rule.first_s.saturating_mul(1 << over.min(20)).min(self.rule.longest_s);
            row.until = now + Duration::from_secs(wait);
        }
    }

    fn back(&mut self, key: &K) {
        if let Some(row) = self.rows.get_mut(key) {
            row.wrong = row.wrong.saturating_sub(1);
            row.until = Duration::ZERO;
        }
    }
}

/// Counts the tries of a Fleet.
pub struct Tries {
    pairs: Rows<(String, IpAddr)>,
    names: Rows<String>,
    addresses: Rows<IpAddr>,
}

impl Default for Tries {
    fn default() -> Tries {
        Tries { pairs: Rows::new(PAIR), names: Rows::new(NAME), addresses: Rows::new(ADDRESS) }
    }
}

impl Tries {
    /// Begins a try, which counts as a wrong one until [`Tries::right`]: so it does not help to begin many at once.
    ///
    /// # Errors
    /// How long to wait.
    pub fn begin(&mut self, name: &str, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let (name, address) = (name.to_string(), counted(address));
        let pair = (name.clone(), address);
        let until = self.pairs.until(&pair).max(self.names.until(&name)).max(self.addresses.until(&address));
        if until > now {
            return Err(until - now);
        }
        self.pairs.count(&pair, now);
        self.names.count(&name, now);
        self.addresses.count(&address, now);
        Ok(())
    }

    /// It was the right password: what this person mistyped is forgotten.
    pub fn right(&mut self, name: &str, address: IpAddr) {
        let (name, address) = (name.to_string(), counted(address));
        self.pairs.rows.remove(&(name.clone(), address));
        self.names.back(&name);
        self.addresses.back(&address);
    }
}

/// Whoever has a /64 has all of its addresses.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(10_000 + seconds)
    }

    #[test]
    fn who_guesses_waits_ever_longer_and_nobody_else() {
        let mut tries = Tries::default();
        for _ in 0..PAIR.free {
            assert_eq!(tries.begin("anna", HERE, at(0)), Ok(()));
        }
        assert_eq!(tries.begin("anna", HERE, at(0)), Err(Duration::from_secs(30)));
        assert_eq!(tries.begin("ben", HERE, at(0)), Ok(()), "another name");
        assert_eq!(tries.begin("anna", IpAddr::from([192, 0, 2, 2]), at(0)), Ok(()), "another address");
        assert_eq!(tries.begin("anna", HERE, at(30)), Ok(()));
        assert_eq!(tries.begin("anna", HERE, at(31)), Err(Duration::from_secs(59)));
        let mut now = at(90);
        let mut guesses = 0;
        while now < at(90 + 86_400) {
            match tries.begin("anna", HERE, now) {
                Ok(()) => guesses += 1,
                Err(wait) => now += wait,
            }
        }
        assert!(guesses <= 100, "{guesses} guesses a day");
    }

    #[test]
    fn the_right_password_clears_what_was_mistyped() {
        let mut tries = Tries::default();
        for _ in 0..20 {
            for _ in 0..PAIR.free {
                tries.begin("anna", HERE, at(0)).unwrap();
                tries.right("anna", HERE);
            }
        }
        assert!(tries.begin("anna", HERE, at(0)).is_ok());
    }

    #[test]
    fn many_addresses_slow_a_name_down_but_do_not_lock_it() {
        let mut tries = Tries::default();
        let from = |n: u32| IpAddr::from(n.to_be_bytes());
        let mut longest = Duration::ZERO;
        for n in 0..10_000 {
            if let Err(wait) = tries.begin("anna", from(n), at(0)) {
                longest = longest.max(wait);
            }
        }
        assert!(longest > Duration::ZERO && longest <= Duration::from_secs(NAME.longest_s));
        for n in 0..3 * ROWS_MAX as u32 {
            let _ = tries.begin(&n.to_string(), from(n), at(1));
        }
        assert!(tries.pairs.rows.len() <= ROWS_MAX && tries.names.rows.len() <= ROWS_MAX && tries.addresses.rows.len() <= ROWS_MAX);
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        assert_eq!(counted(v6(1)), counted(v6(2)));
    }
}
