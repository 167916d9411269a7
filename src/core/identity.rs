//! Two devices with one identity: a disk was copied after its enrollment. Which of them may speak?
//!
//! Every boot of every copy has an *instance* of its own, derived from the boot and the place of the key file; an agent that
//! is restarted, updated or rolled back keeps it. One device goes from instance to instance and never back. So nobody has to
//! guess by times:
//!
//! * a new instance while the present one is listening: the present one is called. If it answers, there are two, and the
//!   newcomer is refused; if its connection was only the remains of a power cut, the newcomer is admitted at its next try;
//! * an instance that had been left for another one speaks again: there are two, it was first, it gets its place back.
//!
//! The first keeps working, both are named, and a person can decide the other way ([`Seat::give_to_second`]).

/// Instances that are remembered of one identity, of each kind: more reboots of a copy than anybody overlooks.
pub const REMEMBERED: usize = 8;
/// Seconds after which a newcomer tries again while the present instance is being called: a poll and a report fit in.
pub const CALL_S: u64 = 5;

/// Who may speak with an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// The instance that speaks; none before the first report.
    pub current: Option<String>,
    /// Instances that it came after.
    pub former: Vec<String>,
    /// Instances that are refused.
    pub refused: Vec<String>,
    /// The newcomer because of which the current one is being called; memory only.
    pub calling: Option<String>,
}

/// What a report of an instance means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the one that speaks; nothing changes.
    Known,
    /// The device was booted anew: it speaks from now on.
    Moved,
    /// It speaks, and there is a second device: this instance of it is refused from now on.
    Two {
        /// The second one's instance.
        second: String,
    },
    /// The one that speaks is being called first; come back in [`CALL_S`].
    Call,
    /// Refused: another device speaks with this identity.
    Refused,
}

impl Seat {
    /// Takes in that `instance` speaks. `listening`: the current one has a connection open on which it can be called.
    pub fn claim(&mut self, instance: &str, listening: bool) -> Claim {
        if self.current.as_deref() == Some(instance) {
            return match self.calling.take() {
                Some(second) => {
                    remember(&mut self.refused, second.clone());
                    Claim::Two { second }
                }
                None => Claim::Known,
            };
        }
        if self.refused.iter().any(|i| i == instance) {
            return Claim::Refused;
        }
        let Some(current) = self.current.clone() else {
            self.current = Some(instance.to_string());
            return Claim::Moved;
        };
        if self.former.iter().any(|i| i == instance) {
            self.former.retain(|i| i != instance);
            self.current = Some(instance.to_string());
            self.calling = None;
            remember(&mut self.refused, current.clone());
            return Claim::Two { second: current };
        }
        if listening {
            self.calling = Some(instance.to_string());
            return Claim::Call;
        }
        self.calling = None;
        remember(&mut self.former, current);
        self.current = Some(instance.to_string());
        Claim::Moved
    }

    /// A person's word: the second device is the right one, the first is refused from now on. False: there is no second.
    pub fn give_to_second(&mut self) -> bool {
        let Some(second) = self.refused.pop() else { return false };
        if let Some(first) = self.current.replace(second) {
            remember(&mut self.refused, first);
        }
        self.former.clear();
        self.calling = None;
        true
    }
}

fn remember(list: &mut Vec<String>, instance: String) {
    list.retain(|i| *i != instance);
    if list.len() >= REMEMBERED {
        list.remove(0);
    }
    list.push(instance);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(current: &str) -> Seat {
        Seat { current: Some(current.into()), ..Seat::default() }
    }

    fn two(second: &str) -> Claim {
        Claim::Two { second: second.into() }
    }

    #[test]
    fn one_device_is_never_in_its_own_way() {
        let mut seat = Seat::default();
        for boot in 0..100 {
            let instance = format!("boot-{boot}");
            assert_eq!(seat.claim(&instance, false), Claim::Moved, "{boot}");
            assert_eq!(seat.claim(&instance, boot % 2 == 0), Claim::Known);
            // After a power cut the old connection may still be open here.
            let next = format!("boot-{boot}-cut");
            assert_eq!(seat.claim(&next, true), Claim::Call);
            assert_eq!(seat.claim(&next, false), Claim::Moved);
        }
        assert!(seat.former.len() <= REMEMBERED && seat.refused.is_empty());
    }

    #[test]
    fn a_copy_is_refused_while_the_first_listens() {
        let mut seat = seat("first");
        assert_eq!(seat.claim("copy", true), Claim::Call);
        assert_eq!(seat.claim("first", false), two("copy"));
        for _ in 0..3 {
            assert_eq!(seat.claim("copy", false), Claim::Refused);
            assert_eq!(seat.claim("first", true), Claim::Known);
        }
    }

    #[test]
    fn a_copy_that_came_while_the_first_was_away_gives_way() {
        let mut seat = seat("first");
        assert_eq!(seat.claim("copy", false), Claim::Moved);
        assert_eq!(seat.claim("first", true), two("copy"));
        assert_eq!(seat.claim("copy", false), Claim::Refused);
        assert_eq!(seat.current.as_deref(), Some("first"));
    }

    #[test]
    fn a_person_can_decide_the_other_way_and_back() {
        let mut seat = seat("first");
        assert!(!seat.give_to_second(), "there is only one");
        seat.claim("copy", true);
        seat.claim("first", true);
        assert!(seat.give_to_second());
        assert_eq!((seat.claim("copy", true), seat.claim("first", true)), (Claim::Known, Claim::Refused));
        assert!(seat.give_to_second());
        assert_eq!((seat.claim("first", true), seat.claim("copy", true)), (Claim::Known, Claim::Refused));
    }

    /// Two devices, each reporting at will: whatever the order, at every moment at most one of them is served.
    #[test]
    fn never_two_at_once() {
        for plan in 0..4_u32.pow(7) {
            let mut seat = Seat::default();
            let mut served: Vec<&str> = Vec::new();
            for step in 0..7 {
                let choice = plan / 4_u32.pow(step) % 4;
                let (who, listening) = (["first", "copy"][choice as usize % 2], choice / 2 == 0);
                let was_refused = seat.refused.iter().any(|i| i == who);
                let claim = seat.claim(who, listening);
                let admitted = !matches!(claim, Claim::Call | Claim::Refused);
                assert_eq!(admitted, seat.current.as_deref() == Some(who), "{plan} {step}");
                assert!(!(was_refused && admitted), "{plan} {step}: a refused one comes back by itself");
                if admitted {
                    served.push(who);
                }
            }
            let changes = served.windows(2).filter(|w| w[0] != w[1]).count();
            assert!(changes <= 2, "{plan}: the identity goes to and fro: {served:?}");
        }
    }
}
