//! Invitations: who may take the site CA over, once, within its time, with few tries.
//!
//! An invitation is an id that tells it from others and a secret of 256 bits, of which only the SHA-256 is kept.
//!
//! | code | when |
//! |---|---|
//! | `invite_unknown` | no such invitation here, or another secret |
//! | `invite_expired` | its time is over |
//! | `invite_used` | somebody has joined with it |
//! | `invite_closed` | too many wrong secrets |

use crate::core::reason::Reason;

/// Life without a wish: the time to go to another machine.
pub const TTL_S: u64 = 3_600;
/// Longest life.
pub const TTL_MAX_S: u64 = 86_400;
/// Wrong secrets for one id before it is worth nothing.
pub const TRIES_MAX: u64 = 5;
/// Kept at a time: the largest cluster twice.
pub const INVITES_MAX: usize = 32;

/// One invitation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invite {
    /// Public.
    pub id: String,
    /// SHA-256 of the secret, hex.
    pub sha256: String,
    /// Not valid from then on.
    pub expires: u64,
    /// Wrong secrets so far.
    pub tries: u64,
    /// When somebody joined with it.
    pub used_at: Option<u64>,
}

/// Makes room and adds one.
///
/// # Errors
/// `too_many_invites`, `bad_argument`.
pub fn add(invites: &mut Vec<Invite>, invite: Invite, now: u64) -> Result<(), Reason> {
    if invite.expires <= now || invite.expires > now.saturating_add(TTL_MAX_S) {
        return Err(Reason::new("bad_argument", format!("--ttl: from one second to {} h", TTL_MAX_S / 3_600)));
    }
    // One that is over is remembered for a day, so that a late try hears why.
    invites.retain(|known| now < known.expires.saturating_add(TTL_MAX_S));
    if invites.len() >= INVITES_MAX {
        return Err(Reason::new("too_many_invites", format!("there are {INVITES_MAX} invitations already; wait until some have ended")));
    }
    invites.push(invite);
    Ok(())
}

/// Uses one up. `same`: compares two hashes in constant time. Whatever comes of it has to be durable before it is answered.
///
/// # Errors
/// The table above; a wrong secret is counted.
pub fn redeem(invites: &mut [Invite], id: &str, sha256: &str, same: fn(&str, &str) -> bool, now: u64) -> Result<(), Reason> {
    let again = "; `vmetric-director cluster invite` at that member makes another one";
    let refuse = |code, why: &str| Err(Reason::new(code, format!("{why}{again}")));
    let Some(invite) = invites.iter_mut().find(|invite| invite.id == id) else {
        return refuse("invite_unknown", "this member made no such invitation");
    };
    if invite.tries >= TRIES_MAX {
        return refuse("invite_closed", "too many wrong secrets came with this invitation");
    }
    if !same(&invite.sha256, sha256) {
        invite.tries += 1;
        return refuse("invite_unknown", "this member made no such invitation");
    }
    if invite.used_at.is_some() {
        return refuse("invite_used", "somebody has joined with this invitation already; was it you?");
    }
    if now >= invite.expires {
        return refuse("invite_expired", "the invitation's time is over");
    }
    invite.used_at = Some(now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        a == b
    }

    fn one(now: u64) -> Vec<Invite> {
        let mut invites = Vec::new();
        add(&mut invites, Invite { id: "a".into(), sha256: "s".into(), expires: now + 100, ..Invite::default() }, now).unwrap();
        invites
    }

    #[test]
    fn once_in_time_and_with_few_tries() {
        let code = |invites: &mut Vec<Invite>, id, secret, now| redeem(invites, id, secret, same, now).map_err(|r| r.code.to_string());
        let mut invites = one(1_000);
        assert_eq!(code(&mut invites, "b", "s", 1_001), Err("invite_unknown".into()));
        assert_eq!(code(&mut invites, "a", "s", 1_001), Ok(()));
        assert_eq!(code(&mut invites, "a", "s", 1_002), Err("invite_used".into()));
        assert_eq!(code(&mut one(1_000), "a", "s", 1_100), Err("invite_expired".into()));
        let mut invites = one(1_000);
        for _ in 0..TRIES_MAX {
            assert_eq!(code(&mut invites, "a", "x", 1_001), Err("invite_unknown".into()));
        }
        assert_eq!(code(&mut invites, "a", "s", 1_001), Err("invite_closed".into()), "the right one comes too late");
    }

    #[test]
    fn there_is_a_limit_and_old_ones_go() {
        let mut invites = Vec::new();
        let invite = |n: usize, now: u64| Invite { id: n.to_string(), expires: now + 10, ..Invite::default() };
        for n in 0..INVITES_MAX {
            add(&mut invites, invite(n, 1_000), 1_000).unwrap();
        }
        assert_eq!(add(&mut invites, invite(99, 1_000), 1_000).unwrap_err().code, "too_many_invites");
        let later = 1_011 + TTL_MAX_S;
        assert!(add(&mut invites, invite(99, later), later).is_ok() && invites.len() == 1);
        assert_eq!(add(&mut invites, Invite::default(), later).unwrap_err().code, "bad_argument");
    }
}
