//! The one lease of a cluster, as functions of facts and time.
//!
//! [`Book`] is all that has to be durable. Each function changes it or says why not; whoever keeps it writes it with
//! compare-and-set before the answer leaves. A lease is known by its epoch, which only rises: what names an older one
//! changes nothing.

use super::member::{AFTER_EXPIRY_S, State, state, why};
use super::plan::{View, Wait};
use crate::core::reason::Reason;
use crate::core::time;

/// Length of a lease without a wish: several renewals may be lost.
pub const LEASE_S: u64 = 900;
/// Longest wish: the longest contact deadline of a trial, stop and rollback.
pub const NEEDS_MAX_S: u64 = 26 * 3_600;
/// A lease is never renewed beyond this: a trial of seven days is none that a cluster waits for.
pub const TOTAL_MAX_S: u64 = 2 * NEEDS_MAX_S;
/// How long a member is watched before the next one goes, without a wish.
pub const SOAK_S: u64 = 60;
/// Longest watch.
pub const SOAK_MAX_S: u64 = 24 * 3_600;
/// Asks that have ended and are remembered, so that a late double of one gets nothing.
pub const OVER_MAX: usize = 16;
/// How long an exception waits for its member.
pub const WAIVER_S: u64 = 3_600;
/// Stop and start of a program, seconds: each under the liveness limit of 180 s, once forth and once back.
pub const SWITCH_S: u64 = 360;

/// What a cluster's operator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Length of a lease.
    pub lease_s: u64,
    /// Watch after an update.
    pub soak_s: u64,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { lease_s: LEASE_S, soak_s: SOAK_S }
    }
}

/// A member's permission to be away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub holder: String,
    /// The ask that it answers.
    pub nonce: String,
    /// Above all earlier ones.
    pub epoch: u64,
    /// Since when.
    pub granted_at: u64,
    /// Not valid from then on.
    pub expires: u64,
    /// It was renewed directly before the stop: its holder may be away, and nobody can take that back.
    pub stops: bool,
    /// When its holder said first that it is back.
    pub back_at: Option<u64>,
    /// Since when its holder, back, is seen healthy.
    pub healthy_since: Option<u64>,
}

/// Why nobody else goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A person wants a break.
    Paused,
    /// A person ended it.
    Aborted,
    /// A lease ran out, or a member failed.
    Halted,
}

/// A stop of the roll-out; only a person ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// Because of which member.
    pub member: Option<String>,
    /// Since when.
    pub since: u64,
    /// Which person, if one.
    pub by: Option<String>,
}

/// A holder whose lease ran out: what it said before that is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which member.
    pub member: String,
    /// Words until then do not count.
    pub until: u64,
}

/// A failure that a person has seen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgiven {
    /// Whose.
    pub member: String,
    /// Which.
    pub failure: String,
}

/// A person lets one member go although not all others are healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// Which member.
    pub member: String,
    /// Not used by then: void.
    pub until: u64,
    /// Which person.
    pub by: String,
}

/// Everything that is durable of a cluster's leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Of the newest lease; only rises.
    pub epoch: u64,
    /// The lease, live or run out.
    pub lease: Option<Lease>,
    /// Why nobody else goes.
    pub stop: Option<Stop>,
    /// Failures after which a person said that it goes on, the newest of each member.
    pub forgiven: Vec<Forgiven>,
    /// Holders that were given up.
    pub lost: Vec<Lost>,
    /// Asks that have ended.
    pub over: Vec<String>,
    /// An exception.
    pub waiver: Option<Waiver>,
}

/// Where a holder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It serves, or drains.
    #[default]
    Before,
    /// It stops as soon as it has the answer.
    Stop,
    /// It was away, and is back or on its way.
    After,
}

/// What a member asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask<'a> {
    /// Who.
    pub member: &'a str,
    /// The same for all repetitions of one wish; empty: a client that does not know of it.
    pub nonce: &'a str,
    /// The lease that it holds, if it does.
    pub epoch: Option<u64>,
    /// How long it needs from now on.
    pub needs_s: u64,
    /// Where it is.
    pub phase: Phase,
}

impl Book {
    /// Gives a lease, or renews the one that is held: a recursive lock.
    ///
    /// # Errors
    /// Why not; nothing has changed.
    pub fn ask(&mut self, view: &View, ask: &Ask, terms: &Terms, now: u64) -> Result<Lease, Wait> {
        if view.member(ask.member).is_none() {
            let detail = format!("{} is no member of cluster '{}'; its members were changed", ask.member, view.name);
            return Err(Wait::plain("not_a_member", detail));
        }
        let epoch = self.lease.as_ref().filter(|lease| lease.holder == ask.member).map(|lease| lease.epoch);
        let repeats = |lease: &Lease| lease.holder == ask.member && lease.nonce == ask.nonce;
        match (ask.epoch, epoch) {
            (Some(named), held) if held != Some(named) => {
                let detail = format!("the lease of epoch {named} is not {}'s any more: it serves on, and asks anew", ask.member);
                Err(Wait::plain("lease_lost", detail))
            }
            (Some(_), _) => self.renew(view, ask, terms, now),
            (None, Some(_)) if self.lease.as_ref().is_some_and(repeats) => self.renew(view, ask, terms, now),
            (None, _) => self.grant(view, ask, terms, now),
        }
    }

    fn grant(&mut self, view: &View, ask: &Ask, terms: &Terms, now: u64) -> Result<Lease, Wait> {
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.holder != ask.member || now >= lease.expires || lease.stops) {
            return Err(self.held(lease, view.name, now));
        }
        if !ask.nonce.is_empty() && self.over.iter().any(|nonce| nonce == ask.nonce) {
            return Err(Wait::plain("ask_over", "this ask was answered and has ended: a late double gets nothing"));
        }
        if !self.is_waived(ask.member, now) {
            self.goes_on(view.name)?;
            view.can_spare(ask.member, self, now)?;
        }
        let waiver = self.waiver.clone();
        self.forget_lease();
        self.waiver = waiver;
        self.epoch = self.epoch.saturating_add(1);
        let lease = Lease {
            holder: ask.member.into(),
            nonce: ask.nonce.into(),
            epoch: self.epoch,
            granted_at: now,
            expires: now.saturating_add(terms.lease_s),
            ..Lease::default()
        };
        self.lease = Some(lease.clone());
        Ok(lease)
    }

    fn renew(&mut self, view: &View, ask: &Ask, terms: &Terms, now: u64) -> Result<Lease, Wait> {
        let Some(lease) = self.lease.clone() else { return Err(Wait::plain("lease_lost", "there is no lease")) };
        if now >= lease.expires {
            return Err(self.held(&lease, view.name, now));
        }
        // Whoever has not stopped yet can still stay: one that says so again, too, because an answer was lost.
        if ask.phase != Phase::After && !self.is_excepted(&lease) {
            self.goes_on(view.name)?;
            view.can_spare(ask.member, self, now)?;
        }
        let wanted = terms.lease_s.max(if ask.phase == Phase::Stop { ask.needs_s.min(NEEDS_MAX_S) } else { 0 });
        let last = lease.granted_at.saturating_add(TOTAL_MAX_S);
        let renewed = Lease {
            // Never earlier: an answer that says so much may be on its way.
            expires: lease.expires.max(now.saturating_add(wanted).min(last)),
            stops: lease.stops || ask.phase != Phase::Before,
            back_at: lease.back_at.or((ask.phase == Phase::After).then_some(now)),
            ..lease
        };
        self.lease = Some(renewed.clone());
        Ok(renewed)
    }

    /// A lease that was given by exception is renewed by the same; it ends with the lease.
    fn is_excepted(&self, lease: &Lease) -> bool {
        self.waiver.as_ref().is_some_and(|waiver| waiver.member == lease.holder)
    }

    /// The holder gives its lease back: at once if it never stopped, else when it was seen healthy for the length of the soak.
    /// What is not the present lease is answered the same way and changes nothing.
    ///
    /// # Errors
    /// `not_healthy_yet`, `soaking`; the lease lives on.
    pub fn release(&mut self, view: &View, ask: &Ask, terms: &Terms, now: u64) -> Result<(), Wait> {
        let mine =
            |lease: &&mut Lease| lease.holder == ask.member && ask.epoch.is_none_or(|epoch| epoch == lease.epoch) && now < lease.expires;
        let Some(lease) = self.lease.as_mut().filter(mine) else { return Ok(()) };
        if lease.stops && ask.phase == Phase::Before {
            // A double of what it said before it stopped.
            return Err(Wait {
                until: Some(lease.expires),
                ..Wait::plain("lease_in_use", "its holder may be away: it gives the lease back once it is back")
            });
        }
        if !lease.stops {
            self.forget_lease();
            return Ok(());
        }
        // Its holder lives: the watch does not eat up the lease.
        let last = lease.granted_at.saturating_add(TOTAL_MAX_S);
        lease.expires = lease.expires.max(now.saturating_add(terms.lease_s).min(last));
        lease.back_at = lease.back_at.or(Some(now));
        self.observe(view, now);
        let Some(seen) = view.member(ask.member) else {
            self.forget_lease();
            return Ok(());
        };
        let stands = state(seen, self, now);
        if stands == State::Failed {
            // It came back to the version before; observe() has halted the roll-out.
            self.forget_lease();
            return Ok(());
        }
        let since = self.lease.as_ref().and_then(|lease| lease.healthy_since);
        match since.map(|since| since.saturating_add(terms.soak_s)) {
            Some(until) if now >= until => {
                self.forget_lease();
                Ok(())
            }
            Some(until) => {
                let detail = format!("{} is back and healthy; it is watched until {}", ask.member, time::format(until));
                Err(Wait { who: Some(ask.member.into()), since, until: Some(until), ..Wait::plain("soaking", detail) })
            }
            None => {
                let because = why(seen, stands, self, now);
                let detail = format!("the lease stays: {}", because.reason.detail);
                Err(Wait { reason: Reason::new("not_healthy_yet", detail), ..because })
            }
        }
    }

    /// Looks at the time and the members: what ran out or failed halts, and a holder that is back is watched. What halted it,
    /// if that is news.
    pub fn observe(&mut self, view: &View, now: u64) -> Option<Stop> {
        self.lost.retain(|lost| view.member(&lost.member).is_some_and(|seen| seen.heard_at <= lost.until));
        self.waiver = self.waiver.take().filter(|waiver| now < waiver.until || self.holds(&waiver.member));
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.stops && now < lease.expires) {
            let healthy = view.member(&lease.holder).is_some_and(|seen| state(seen, self, now) == State::Healthy);
            let since = if healthy { lease.healthy_since.or(Some(now)) } else { None };
            self.lease.iter_mut().for_each(|lease| lease.healthy_since = since);
        }
        if self.stop.as_ref().is_some_and(|stop| stop.kind != Kind::Paused) {
            return None;
        }
        let expired = self.lease.as_ref().filter(|lease| now >= lease.expires).map(|lease| {
            let (who, end) = (lease.holder.clone(), time::format(lease.expires));
            let detail = format!(
                "the lease of {who} (epoch {}) ran out at {end}; nobody knows whether it is away: look at it, then `cluster resume`",
                lease.epoch
            );
            (who, Reason::new("lease_expired", detail))
        });
        let failed = || {
            let seen = view.members.iter().find(|seen| state(seen, self, now) == State::Failed)?;
            let why = &seen.failed.as_ref()?.reason;
            let detail = format!("{} failed its update: {why}; the others stay where they are until `cluster resume`", seen.id);
            Some((seen.id.clone(), Reason::new("member_failed", detail)))
        };
        let (member, reason) = expired.or_else(failed)?;
        let stop = Stop { kind: Kind::Halted, reason, member: Some(member), since: now, by: None };
        self.stop = Some(stop.clone());
        Some(stop)
    }

    /// A person wants nobody else to go. Who is away comes back first.
    pub fn pause(&mut self, kind: Kind, by: &str, because: &str, now: u64) {
        let word = if kind == Kind::Aborted { "ended" } else { "paused" };
        let code = if kind == Kind::Aborted { "aborted_by_person" } else { "paused_by_person" };
        let because = if because.is_empty() { String::new() } else { format!(": {because}") };
        let reason = Reason::new(code, format!("{word} by {by}{because}; `cluster resume` goes on"));
        self.stop = Some(Stop { kind, reason, member: None, since: now, by: Some(by.into()) });
    }

    /// A person says that it goes on: what failed counts as seen to, and a lease that ran out is given up.
    pub fn resume(&mut self, view: &View, now: u64) {
        self.stop = None;
        let failures = view.members.iter().filter_map(|seen| Some((seen, seen.failed.as_ref()?)));
        self.forgiven = failures.map(|(seen, f)| Forgiven { member: seen.id.clone(), failure: f.id.clone() }).collect();
        // Of a clock that has gone back since.
        let latest = now.saturating_add(AFTER_EXPIRY_S);
        self.lost.iter_mut().for_each(|lost| lost.until = lost.until.min(latest));
        let Some(lease) = self.lease.as_ref().filter(|lease| now >= lease.expires) else { return };
        let lost = Lost { member: lease.holder.clone(), until: latest };
        self.lost.retain(|other| other.member != lost.member);
        self.lost.push(lost);
        self.forget_lease();
    }

    /// A person lets one member go whatever the others do. Not while another one holds a lease: two are never away at once.
    ///
    /// # Errors
    /// `not_a_member`, `lease_held`, `lease_expired`.
    pub fn waive(&mut self, view: &View, member: &str, by: &str, now: u64) -> Result<(), Wait> {
        if view.member(member).is_none() {
            return Err(Wait::plain("not_a_member", format!("'{member}' is no member of cluster '{}'", view.name)));
        }
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.holder != member || now >= lease.expires) {
            return Err(self.held(lease, view.name, now));
        }
        self.waiver = Some(Waiver { member: member.into(), until: now.saturating_add(WAIVER_S), by: by.into() });
        Ok(())
    }

    /// Whether a person has seen to this failure.
    pub fn is_forgiven(&self, member: &str, failure: &str) -> bool {
        self.forgiven.iter().any(|f| f.member == member && f.failure == failure)
    }

    /// Whether a person excepted this member.
    pub fn is_waived(&self, member: &str, now: u64) -> bool {
        self.waiver.as_ref().is_some_and(|waiver| waiver.member == member && now < waiver.until)
    }

    fn holds(&self, member: &str) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.holder == member)
    }

    /// Whether anybody may go.
    ///
    /// # Errors
    /// Why not, and since when.
    pub fn goes_on(&self, name: &str) -> Result<(), Wait> {
        let Some(stop) = &self.stop else { return Ok(()) };
        let code = match stop.kind {
            Kind::Paused => "cluster_paused",
            Kind::Aborted => "cluster_aborted",
            Kind::Halted => "cluster_halted",
        };
        let detail = format!("cluster '{name}' since {}: {}", time::format(stop.since), stop.reason.detail);
        Err(Wait { reason: Reason::new(code, detail), who: stop.member.clone(), since: Some(stop.since), until: None })
    }

    /// Why a lease stands in the way.
    pub fn held(&self, lease: &Lease, name: &str, now: u64) -> Wait {
        let (who, since, end) = (&lease.holder, time::format(lease.granted_at), time::format(lease.expires));
        let (code, detail, until) = if now >= lease.expires {
            let detail = format!(
                "the lease of {who} in cluster '{name}' (epoch {}, since {since}) ran out at {end}; `cluster resume` once it is known where {who} is",
                lease.epoch
            );
            ("lease_expired", detail, None)
        } else {
            let detail =
                format!("{who} of cluster '{name}' has the lease (epoch {}) since {since}, until {end}; one member at a time", lease.epoch);
            ("lease_held", detail, Some(lease.expires))
        };
        Wait { reason: Reason::new(code, detail), who: Some(who.clone()), since: Some(lease.granted_at), until }
    }

    fn forget_lease(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        self.waiver = self.waiver.take().filter(|waiver| waiver.member != lease.holder);
        if !lease.nonce.is_empty() {
            self.over.push(lease.nonce);
        }
        let more = self.over.len().saturating_sub(OVER_MAX);
        self.over.drain(..more);
    }
}

/// Whether a holder may stop now, by its own clock: its lease has time left for the stop, the trial and the way back.
///
/// # Errors
/// `lease_too_short`: it serves on.
pub fn may_stop(left_s: u64, needs_s: u64) -> Result<(), Wait> {
    if left_s >= needs_s {
        return Ok(());
    }
    let detail = format!("the lease has {left_s} s left; stop, trial and the way back may take {needs_s} s: this member serves on");
    Err(Wait::plain("lease_too_short", detail))
}

/// How long a member may be away: to stop and start, to prove itself to its authority, and to come back if it cannot.
pub fn needs_s(contact_deadline_s: u64) -> u64 {
    contact_deadline_s.saturating_add(2 * SWITCH_S).min(NEEDS_MAX_S - SWITCH_S)
}
