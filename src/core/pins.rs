//! The pins of an agent: how a new site CA comes in and an old one goes out, without a moment in which none is right.
//!
//! A pin that the Director names over an authenticated connection is a *candidate*: it is accepted, but proves nothing yet.
//! A connection that was verified under it makes it *confirmed*. An old pin goes when the Director says that it is retired
//! and this very connection was verified under another confirmed one that the Director stands by. Whatever is named, in
//! whatever order, the pin that works today is never given up for one that was never seen to work.

use super::hex::Sha256;

/// A pin that the agent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// SHA-256 of a site CA's public key.
    pub pin: Sha256,
    /// A connection under it has succeeded, or a person gave it.
    pub confirmed: bool,
}

/// The pins to hold after an answer. `seen`: those under which its connection was verified; `trust`, `retired`: what the
/// Director says; `max`: how many may be held.
pub fn learn(held: &[Held], seen: &[Sha256], trust: &[Sha256], retired: &[Sha256], max: usize) -> Vec<Held> {
    let mut next: Vec<Held> = held.iter().map(|h| Held { confirmed: h.confirmed || seen.contains(&h.pin), ..*h }).collect();
    let works = next.iter().any(|h| h.confirmed && seen.contains(&h.pin) && trust.contains(&h.pin));
    if works {
        next.retain(|h| trust.contains(&h.pin) || seen.contains(&h.pin) || !retired.contains(&h.pin));
    }
    for pin in trust {
        if next.iter().any(|h| h.pin == *pin) {
            continue;
        }
        if next.len() >= max {
            // A candidate that never worked gives way to a newer one; what works never does.
            let Some(stale) = next.iter().position(|h| !h.confirmed && !trust.contains(&h.pin)) else { continue };
            next.remove(stale);
        }
        next.push(Held { pin: *pin, confirmed: false });
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Sha256 = [1; 32];
    const NEW: Sha256 = [2; 32];
    const SPARE: Sha256 = [3; 32];

    fn held(pins: &[(Sha256, bool)]) -> Vec<Held> {
        pins.iter().map(|(pin, confirmed)| Held { pin: *pin, confirmed: *confirmed }).collect()
    }

    #[test]
    fn a_roll_over() {
        let before = held(&[(OLD, true)]);
        let told = learn(&before, &[OLD], &[NEW, OLD], &[], 4);
        assert_eq!(told, held(&[(OLD, true), (NEW, false)]));
        assert_eq!(learn(&told, &[OLD], &[NEW, OLD], &[], 4), told, "told again");
        let both = learn(&told, &[OLD, NEW], &[NEW, OLD], &[], 4);
        assert_eq!(both, held(&[(OLD, true), (NEW, true)]));
        assert_eq!(learn(&both, &[NEW], &[NEW], &[OLD], 4), held(&[(NEW, true)]));
    }

    #[test]
    fn what_works_is_not_given_up_for_what_never_did() {
        let candidate = held(&[(OLD, true), (NEW, false)]);
        assert_eq!(learn(&candidate, &[OLD], &[NEW], &[OLD], 4), candidate, "retired, but the new one was never seen");
        let both = held(&[(OLD, true), (NEW, true)]);
        assert_eq!(learn(&both, &[OLD], &[NEW], &[OLD], 4), both, "this connection came under the old one");
        assert_eq!(learn(&both, &[NEW], &[SPARE], &[OLD], 4), held(&[(OLD, true), (NEW, true), (SPARE, false)]));
        assert_eq!(learn(&both, &[NEW], &[], &[OLD, NEW], 4), both, "a Director that stands by none");
        // What a person gave for later is nobody's to take, unless it is named as retired.
        let spare = held(&[(OLD, true), (SPARE, true)]);
        assert_eq!(learn(&spare, &[OLD], &[OLD], &[], 4), spare);
    }

    #[test]
    fn a_full_list_keeps_what_works() {
        let full = held(&[(OLD, true), ([7; 32], true), ([8; 32], false), ([9; 32], true)]);
        let next = learn(&full, &[OLD], &[NEW, OLD], &[], 4);
        assert_eq!(next, held(&[(OLD, true), ([7; 32], true), ([9; 32], true), (NEW, false)]));
        let stuck = held(&[(OLD, true), ([7; 32], true), ([8; 32], true), ([9; 32], true)]);
        assert_eq!(learn(&stuck, &[OLD], &[NEW, OLD], &[], 4), stuck);
    }

    /// Whatever a Director says over whatever connection: at most `max`, none twice, and the pin of this connection stays.
    #[test]
    fn nothing_locks_an_agent_out() {
        let pins: Vec<Sha256> = (0..4).map(|n| [n; 32]).collect();
        let some = |bits: usize| pins.iter().enumerate().filter(move |(n, _)| bits >> n & 1 == 1).map(|(_, p)| *p).collect::<Vec<_>>();
        for case in 0..1_usize << 16 {
            let (confirmed, candidates) = (case & 15, case >> 4 & 15);
            let now: Vec<Held> = (0..4)
                .filter(|n| (confirmed | candidates) >> n & 1 == 1)
                .map(|n| Held { pin: pins[n], confirmed: confirmed >> n & 1 == 1 })
                .collect();
            let (trust, retired) = (some(case >> 8 & 15), some(case >> 12 & 15));
            for seen in &now {
                let next = learn(&now, &[seen.pin], &trust, &retired, 3);
                assert!(next.iter().any(|h| h.pin == seen.pin && h.confirmed), "{now:?} {trust:?} {retired:?}");
                assert!(next.len() <= now.len().max(3));
                let mut unique: Vec<Sha256> = next.iter().map(|h| h.pin).collect();
                unique.sort();
                unique.dedup();
                assert_eq!(unique.len(), next.len());
            }
        }
    }
}
