//! Before this Director stops for an update: the lease of its cluster, the time that load balancers need, and the giver's last
//! word. Fleet gives it; where Fleet does not answer and a person at this Director ordered the update, its peers do.

use std::time::Duration;

use super::shared::{Shared, Word};
use crate::agent::duties::Pause;
use crate::agent::link::{LinkError, tick};
use crate::core::cluster::lease::{Phase, may_stop, needs_s};
use crate::core::cluster::plan::Wait;
use crate::core::reason::Reason;
use crate::core::update::Order;
use crate::director::cluster::ballot::{self, Ballot, Ground};
use crate::director::cluster::lease::{LeaseFile, left_s};
use crate::director::cluster::vote;
use crate::director::policing::leases::{DRAIN_MAX_S, DRAIN_S};
use crate::io::state::State;
use crate::io::{clock, process};
use crate::wire::fleet_lock::LockedWire;

/// A refused wish is told again so soon: the next member must not wait long for its turn.
const AGAIN_S: u64 = 5;
/// A drain is looked at again so soon.
const LOOK_S: u64 = 1;
/// The same, without leaving.
const LOOK: Duration = Duration::from_millis(500);
/// A lease is renewed so often while it is waited for something else.
const RENEW: Duration = Duration::from_secs(60);

/// Asked for beside what is needed: the answer is on its way, and what is left is counted from the question on.
const ANSWER_S: u64 = 30;

/// Who gave a lease.
enum Giver {
    Fleet(LeaseFile),
    Peers(Ballot),
}

/// A lease in use.
struct Held {
    giver: Giver,
    /// By this machine's monotonic clock, from the moment of the question on.
    deadline: Duration,
    renewed: Duration,
    drain: Duration,
    began: Duration,
}

impl Held {
    fn group(&self) -> &str {
        match &self.giver {
            Giver::Fleet(file) => &file.group,
            Giver::Peers(ballot) => &ballot.group,
        }
    }

    fn epoch(&self) -> u64 {
        match &self.giver {
            Giver::Fleet(file) => file.epoch,
            Giver::Peers(ballot) => ballot.epoch,
        }
        .unwrap_or(0)
    }
}

/// The lease of one switch.
#[derive(Default)]
pub struct Permit {
    held: Option<Held>,
}

fn pause(reason: Reason, for_s: u64) -> Pause {
    (reason, for_s)
}

impl Permit {
    /// Under a lease, and drained for long enough; at once for a Director that is in no cluster. `local`: a person at this
    /// Director ordered it, so that its peers may stand in for Fleet.
    ///
    /// # Errors
    /// Not yet: why, and when it is looked at again.
    pub fn drained(&mut self, shared: &Shared, state: &State, local: bool) -> Result<(), Pause> {
        let Some(group) = shared.lease_group() else {
            self.held = None;
            return Ok(());
        };
        if !shared.lease_in_use() {
            // Whatever was held was given back meanwhile.
            self.held = None;
        }
        shared.use_lease();
        if self.held.as_ref().is_none_or(|held| held.group() != group) {
            self.held = Some(ask(shared, state, &group, local)?);
        }
        let Some(held) = &mut self.held else { return Ok(()) };
        if left_s(held.deadline) == 0 {
            shared.end_quiet();
            self.held = None;
            return Err(pause(
                Reason::new("lease_expired", "the cluster's lease ran out before this Director could stop: it serves on"),
                AGAIN_S,
            ));
        }
        // `/readyz` fails from now on.
        shared.ask_for_quiet();
        let left = held.drain.saturating_sub(clock::monotonic().saturating_sub(held.began));
        if let Giver::Peers(_) = held.giver {
            wait_here(shared, left);
        } else if !left.is_zero() {
            let (epoch, s) = (held.epoch(), left.as_secs() + 1);
            let detail = format!("under the cluster's lease (epoch {epoch}); load balancers have {s} s more to look elsewhere");
            return Err(pause(Reason::new("draining", detail), LOOK_S));
        }
        if clock::monotonic().saturating_sub(held.renewed) > RENEW {
            self.renew(shared, state, Phase::Before, 0)?;
        }
        Ok(())
    }

    /// Directly before the stop: is the lease still good, and for long enough?
    ///
    /// # Errors
    /// It serves on.
    pub fn last_word(&mut self, shared: &Shared, state: &State, order: &Order) -> Result<(), Pause> {
        if self.held.is_none() {
            return Ok(());
        }
        let trial_s = if order.unattended { order.trial_max_s.max(order.contact_deadline_s) } else { order.contact_deadline_s };
        let needs = needs_s(trial_s);
        self.renew(shared, state, Phase::Stop, needs.saturating_add(ANSWER_S))?;
        let Some(held) = &mut self.held else { return Ok(()) };
        let kept = match &mut held.giver {
            Giver::Fleet(file) => {
                file.away = true;
                file.write(state)
            }
            Giver::Peers(ballot) => {
                ballot.away = true;
                ballot.write(state)
            }
        };
        kept.map_err(|reason| pause(reason, AGAIN_S))?;
        if let Err(wait) = may_stop(left_s(held.deadline), needs) {
            // The giver takes it for away; it gives the lease back as one that has come back.
            self.held = None;
            shared.end_quiet();
            return Err(pause(wait.reason, AGAIN_S));
        }
        Ok(())
    }

    fn renew(&mut self, shared: &Shared, state: &State, phase: Phase, needs_s: u64) -> Result<(), Pause> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let asked = clock::monotonic();
        let done = match &mut held.giver {
            Giver::Fleet(file) => {
                file.ask(state, phase, needs_s, tick).map(|locked| locked.ttl_s).map_err(|error| refused(state, file.clone(), error))
            }
            Giver::Peers(ballot) => promised(shared, state, ballot, phase, needs_s).map(|(ttl_s, _)| Some(ttl_s)),
        };
        match done {
            Ok(ttl_s) => (held.deadline, held.renewed) = (asked + Duration::from_secs(ttl_s.unwrap_or(0)), asked),
            Err(why) => {
                self.held = None;
                shared.end_quiet();
                return Err(why);
            }
        }
        Ok(())
    }
}

/// Fleet is away, and each of the engine's turns waits for its answer: longer than a wish to stop lives. So none is taken until
/// load balancers have looked elsewhere, which is ten minutes at most.
fn wait_here(shared: &Shared, drain: Duration) {
    let end = clock::monotonic() + drain.min(Duration::from_secs(DRAIN_MAX_S));
    while clock::monotonic() < end {
        shared.use_lease();
        shared.ask_for_quiet();
        tick();
        process::sleep(LOOK.min(end.saturating_sub(clock::monotonic())));
    }
}

/// The first question, or the first one of this process. What Fleet refuses is refused; where Fleet does not answer, the peers
/// are asked.
fn ask(shared: &Shared, state: &State, group: &str, local: bool) -> Result<Held, Pause> {
    let ballot = Ballot::read(state).filter(|ballot| local && ballot.group == *group && !ballot.away);
    if let Some(ballot) = ballot {
        return ask_peers(shared, state, ballot);
    }
    // The peers' lease before, too: this Director is heard of under it until they have it back.
    let cleared = ballot::clear(shared, state, group, false, tick);
    match ask_fleet(shared, state, group) {
        Err((_, Some(_))) if local => {
            cleared.map_err(|wait| pause(of_cluster(wait), AGAIN_S))?;
            ask_peers(shared, state, Ballot::wish(group, false))
        }
        Err((why, _)) => Err(why),
        Ok(held) => Ok(held),
    }
}

/// The wish that Fleet may have heard is beside the refusal.
fn ask_fleet(shared: &Shared, state: &State, group: &str) -> Result<Held, (Pause, Option<LeaseFile>)> {
    let known = LeaseFile::read(state).filter(|file| file.group == group);
    let mut file = known.unwrap_or_else(|| LeaseFile::wish(group));
    let plain = |reason| (pause(reason, AGAIN_S), None);
    let me = state.config().ok().flatten().map_or(String::new(), |(config, _)| config.agent_id);
    vote::wish(shared, state, &me, &file).map_err(|wait| plain(of_cluster(wait)))?;
    let asked = clock::monotonic();
    let LockedWire { epoch, ttl_s, drain_s } = match file.ask(state, Phase::Before, 0, tick) {
        Ok(locked) => locked,
        Err(error) => {
            let unheard = (!error.refused).then(|| file.clone());
            return Err((refused(state, file, error), unheard));
        }
    };
    file.epoch = epoch;
    file.write(state).map_err(plain)?;
    let deadline = asked + Duration::from_secs(ttl_s.unwrap_or(0));
    let drain = Duration::from_secs(drain_s.unwrap_or(0));
    Ok(Held { giver: Giver::Fleet(file), deadline, renewed: asked, drain, began: clock::monotonic() })
}

fn ask_peers(shared: &Shared, state: &State, mut ballot: Ballot) -> Result<Held, Pause> {
    let asked = clock::monotonic();
    let (ttl_s, drain_s) = promised(shared, state, &mut ballot, Phase::Before, 0)?;
    let detail = format!("by the other members' promises, Fleet being away; epoch {}", ballot.epoch.unwrap_or(0));
    shared.tell(Word::Tell(Reason::new("lease_granted", detail)));
    let (deadline, drain) = (asked + Duration::from_secs(ttl_s), Duration::from_secs(drain_s));
    Ok(Held { giver: Giver::Peers(ballot), deadline, renewed: asked, drain, began: clock::monotonic() })
}

/// The peers' promises: for how long, and how long `/readyz` fails before the stop. What was promised in vain is given back.
fn promised(shared: &Shared, state: &State, ballot: &mut Ballot, phase: Phase, needs_s: u64) -> Result<(u64, u64), Pause> {
    let ground = Ground::new(shared, state, tick).map_err(|reason| pause(reason, AGAIN_S))?;
    match ballot.ask(&ground, phase, needs_s) {
        Ok((joint, drain_s)) => Ok((joint.ttl_s, drain_s.unwrap_or(DRAIN_S))),
        Err(wait) => {
            if phase == Phase::Stop {
                // Some may take it for away.
                ballot.away = true;
                ballot.write(state).map_err(|reason| pause(reason, AGAIN_S))?;
            }
            if let Err(kept) = ballot.put_back(&ground) {
                log::info!("the peers' lease stays: {}", kept.reason);
            }
            Err(pause(of_cluster(wait), AGAIN_S))
        }
    }
}

fn of_cluster(wait: Wait) -> Reason {
    Reason::received(wait.reason.code.to_string(), format!("this Director's cluster: {}", wait.reason.detail))
}

/// What a refusal leaves behind: nothing that is not given back.
fn refused(state: &State, file: LeaseFile, error: LinkError) -> Pause {
    if !error.refused {
        // Nobody knows whether it was heard; the wish stays on the disk, and is told again or given back.
        return pause(error.reason, AGAIN_S);
    }
    let code = error.reason.code.clone();
    let returned = file.epoch.is_none() || matches!(code.as_ref(), "lease_lost") || file.give_back(state, tick).is_ok();
    if returned && let Err(reason) = LeaseFile::remove(state) {
        log::error!("{reason}");
    }
    let detail = format!("this Director's cluster: {}", error.reason.detail);
    pause(Reason::received(code.to_string(), detail), AGAIN_S)
}
