//! Clusters of Directors: who may be in one, and which member may be away now.
//!
//! ```text
//!  healthy --grant--> lease --drain--> renew (point of no return) --stop, trial--> rejoined --soak--> release --> next
//!     ^                 |                 | refused: serve on, give the lease back
//!     +-----------------+-----------------+
//!  lease expired | a member failed --> halted: only a person goes on
//! ```
//!
//! A member leaves its service only under a lease, and there is one lease in a cluster ([`lease::Book`]). It is given only
//! while every other configured member is healthy, as the giver and the member's peers see it ([`member::State`]), and the
//! cluster without this one has its majority. A lease that runs out is not passed on: nobody knows where its holder is.
//!
//! | code | who moves next |
//! |---|---|
//! | `lease_held`, `cluster_turn`, `soaking`, `not_healthy_yet` | the member that is named |
//! | `cluster_member_*` | that member, or whoever looks after it |
//! | `lease_expired`, `cluster_halted`, `cluster_paused`, `cluster_aborted` | a person: `cluster resume` |
//! | `lease_lost`, `ask_over`, `lease_too_short` | the asking member: it serves on and asks anew |
//! | `not_a_member` | a person: the cluster's members were changed |
//! | `lease_wanted`, `peer_silent` | the member that is named ([`peers`]: the lease without Fleet) |

pub mod dated;
pub mod invite;
pub mod lease;
pub mod member;
pub mod peers;
pub mod plan;

use std::collections::BTreeSet;

use super::reason::Reason;

/// Fewest members: below, the loss of one is the loss of the majority.
pub const MEMBERS_MIN: usize = 3;
/// Most members: more cost agreement and bring nothing.
pub const MEMBERS_MAX: usize = 15;
/// Longest name, bytes.
pub const NAME_MAX: usize = 64;

/// A member's name and the cluster that it is in already, if so; `None` outside = it is not known.
pub type Known<'a> = &'a dyn Fn(&str) -> Option<Option<String>>;

/// How many members are more than half of so many.
pub fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// Whether these Directors can be a cluster. `known` says for each whether it exists, and which *other* cluster it is in.
///
/// # Errors
/// `members_invalid`: how many are allowed, or who is twice; `director_unknown`; `member_of_another`.
pub fn members(members: &[String], known: Known) -> Result<(), Reason> {
    let count = members.len();
    if !(MEMBERS_MIN..=MEMBERS_MAX).contains(&count) || count.is_multiple_of(2) {
        let detail = format!("members: {count}; expected an odd number from {MEMBERS_MIN} to {MEMBERS_MAX}, so that a majority is certain");
        return Err(Reason::new("members_invalid", detail));
    }
    let mut seen = BTreeSet::new();
    for member in members {
        if !seen.insert(member) {
            return Err(Reason::new("members_invalid", format!("members: '{member}' is named twice")));
        }
        match known(member) {
            None => return Err(Reason::new("director_unknown", format!("members: there is no Director '{member}'"))),
            Some(Some(other)) => {
                let detail = format!("members: '{member}' is in cluster '{other}' already; take it out of that one first");
                return Err(Reason::new("member_of_another", detail));
            }
            Some(None) => {}
        }
    }
    Ok(())
}

/// A name for people: not empty, not long, one line.
///
/// # Errors
/// `name_invalid`.
pub fn name(text: &str) -> Result<String, Reason> {
    let name = text.trim();
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Reason::new("name_invalid", format!("name: expected 1 to {NAME_MAX} bytes without control characters")));
    }
    Ok(name.to_string())
}

#[cfg(test)]
mod every_state;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_members() {
        for count in 0..=MEMBERS_MAX + 2 {
            let names: Vec<String> = (0..count).map(|i| format!("d{i}")).collect();
            let good = matches!(count, 3 | 5 | 7 | 9 | 11 | 13 | 15);
            assert_eq!(members(&names, &|_| Some(None)).is_ok(), good, "{count}");
        }
    }

    #[test]
    fn who_may_not_be_in_is_named() {
        let names = |list: [&str; 3]| list.map(String::from);
        let known = |name: &str| match name {
            "gone" => None,
            "taken" => Some(Some("north".to_string())),
            _ => Some(None),
        };
        let said = |list| members(&names(list), &known).map_err(|r| (r.code.to_string(), r.detail.clone()));
        assert_eq!(said(["a", "b", "c"]), Ok(()));
        for (list, code, word) in [
            (["a", "b", "a"], "members_invalid", "twice"),
            (["a", "gone", "c"], "director_unknown", "gone"),
            (["a", "taken", "c"], "member_of_another", "north"),
        ] {
            let (said_code, detail) = said(list).unwrap_err();
            assert!(said_code == code && detail.contains(word), "{said_code}: {detail}");
        }
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(name(" <b>North</b> "), Ok("<b>North</b>".into()));
        for bad in ["", "  ", "a\nb", &"x".repeat(NAME_MAX + 1)] {
            assert_eq!(name(bad).unwrap_err().code, "name_invalid");
        }
    }
}
