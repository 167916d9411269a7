//! Files this device does not try again, by hash, each with its reason and its end.
//!
//! *Bad* stays until a release or a person says otherwise. *Could not tell* ends after the cooldown, which survives
//! restarts: within one boot it is measured by the monotonic clock, after a reboot by the uptime or by the Director's time,
//! whichever ends it first. The own wall clock neither ends nor prolongs it (see [`super::clock`]).

use super::clock::Moment;
use super::hex::Sha256;
use super::reason::Reason;
use super::times::Times;

/// Entries kept; the oldest goes first. A release has a handful of files per year and platform.
pub const REJECTED_MAX: usize = 32;

/// One file that lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Hash of the file.
    pub sha256: Sha256,
    /// Its version, for people.
    pub version: String,
    /// Not tried again until somebody says so.
    pub bad: bool,
    /// Why.
    pub reason: Reason,
    /// Times this file has lost.
    pub count: u32,
    /// Order that was in force: the same order's `retry` does not lift its own rejection.
    pub issuer: String,
    /// That order's generation.
    pub generation: u64,
    /// When, by the wall clock, seconds since 1970.
    pub since: u64,
    /// When, by the monotonic clock of `boot_id`, seconds.
    pub since_monotonic: u64,
    /// The boot `since_monotonic` belongs to.
    pub boot_id: String,
    /// When, by the Director's clock, once it has answered in that boot.
    pub since_director: Option<u64>,
}

impl Rejected {
    /// Seconds until the file may be tried again: `None` = not by itself, `Some(0)` = now.
    pub fn remaining_s(&self, now: &Moment, times: &Times) -> Option<u64> {
        if self.bad {
            return None;
        }
        let cooldown = times.cooldown(self.count);
        Some(cooldown.saturating_sub(now.since(&self.moment())))
    }

    fn moment(&self) -> Moment {
        Moment { unix: self.since, monotonic: self.since_monotonic, boot_id: self.boot_id.clone(), director: self.since_director }
    }
}

/// Dates this boot's entries by the Director's clock, which was not heard yet when they were made. True if one changed.
pub fn date(list: &mut [Rejected], now: &Moment) -> bool {
    let mut changed = false;
    for entry in list.iter_mut().filter(|e| e.since_director.is_none()) {
        entry.since_director = now.director_at(&entry.moment());
        changed |= entry.since_director.is_some();
    }
    changed
}

/// Adds or renews the entry of a file: counts rise, *bad* stays bad.
pub fn reject(list: &mut Vec<Rejected>, mut entry: Rejected) {
    if let Some(at) = list.iter().position(|r| r.sha256 == entry.sha256) {
        let old = list.remove(at);
        entry.count = old.count.saturating_add(1);
        entry.bad |= old.bad;
    }
    if list.len() >= REJECTED_MAX {
        list.remove(0);
    }
    list.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sha: u8, bad: bool) -> Rejected {
        Rejected {
            sha256: [sha; 32],
            version: "2.5.0".into(),
            bad,
            reason: Reason::new("no_contact", "x"),
            count: 1,
            issuer: "i".into(),
            generation: 3,
            since: 1_000_000,
            since_monotonic: 500,
            boot_id: "boot-1".into(),
            since_director: Some(1_000_000),
        }
    }

    fn at(boot: &str, unix: u64, monotonic: u64) -> Moment {
        Moment { unix, monotonic, boot_id: boot.into(), director: None }
    }

    #[test]
    fn bad_never_ends_by_itself() {
        assert_eq!(entry(1, true).remaining_s(&at("boot-9", u64::MAX, u64::MAX), &Times::DEFAULT), None);
    }

    #[test]
    fn the_cooldown_is_monotonic_within_a_boot() {
        let left = |unix, mono| entry(1, false).remaining_s(&at("boot-1", unix, mono), &Times::DEFAULT).unwrap();
        assert_eq!(left(1_000_000, 500), 600);
        assert_eq!(left(9_999_999, 501), 599, "a clock step forward ends nothing");
        assert_eq!(left(0, 1100), 0, "a clock step backward prolongs nothing");
    }

    #[test]
    fn after_a_reboot_uptime_or_the_director_end_it() {
        let left = |unix, mono, director| {
            let now = Moment { director, ..at("boot-2", unix, mono) };
            entry(1, false).remaining_s(&now, &Times::DEFAULT).unwrap()
        };
        assert_eq!(left(9_999_999, 5, None), 595, "a clock that was set forward ends nothing");
        assert_eq!(left(0, 10, None), 590, "a device without a clock waits for its uptime");
        assert_eq!(left(0, 600, None), 0);
        assert_eq!(left(0, 5, Some(1_000_060)), 540, "the time off counts when the Director says so");
        assert_eq!(left(0, 5, Some(1_000_600)), 0);
        assert_eq!(left(0, 5, Some(0)), 595);
    }

    #[test]
    fn an_entry_from_before_the_contact_is_dated_by_it() {
        let mut list = vec![Rejected { since_director: None, ..entry(1, false) }];
        assert!(!date(&mut list, &at("boot-1", 0, 560)), "nobody has answered");
        let answered = Moment { director: Some(2_000_060), ..at("boot-1", 0, 560) };
        assert!(date(&mut list, &answered) && !date(&mut list, &answered));
        assert_eq!(list[0].since_director, Some(2_000_000));
        let next = Moment { director: Some(2_000_200), ..at("boot-2", 0, 1) };
        assert_eq!(list[0].remaining_s(&next, &Times::DEFAULT), Some(400));
    }

    #[test]
    fn renewal_counts_and_bad_sticks() {
        let mut list = vec![entry(1, false)];
        reject(&mut list, entry(1, false));
        assert_eq!((list.len(), list[0].count), (1, 2));
        assert_eq!(list[0].remaining_s(&at("boot-1", 0, 500), &Times::DEFAULT), Some(3600));
        reject(&mut list, entry(1, true));
        reject(&mut list, entry(1, false));
        assert!(list[0].bad);
        for sha in 2..100 {
            reject(&mut list, entry(sha, false));
        }
        assert_eq!(list.len(), REJECTED_MAX);
        assert_eq!(list[REJECTED_MAX - 1].sha256, [99; 32]);
    }
}
