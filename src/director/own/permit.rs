//! Before this Director stops for an update: the lease of its cluster, the time that load balancers need, and Fleet's last word.

use std::time::Duration;

use super::shared::Shared;
use crate::agent::duties::Pause;
use crate::agent::link::{LinkError, tick};
use crate::core::cluster::lease::{Phase, may_stop, needs_s};
use crate::core::reason::Reason;
use crate::core::update::Order;
use crate::director::cluster::lease::{LeaseFile, left_s};
use crate::io::clock;
use crate::io::state::State;
use crate::wire::fleet_lock::LockedWire;

/// A refused wish is told again so soon: the next member must not wait long for its turn.
const AGAIN_S: u64 = 5;
/// A drain is looked at again so soon.
const LOOK_S: u64 = 1;
/// A lease is renewed so often while it is waited for something else.
const RENEW: Duration = Duration::from_secs(60);

/// Asked for beside what is needed: the answer is on its way, and what is left is counted from the question on.
const ANSWER_S: u64 = 30;

/// A lease in use.
struct Held {
    file: LeaseFile,
    /// By this machine's monotonic clock, from the moment of the question on.
    deadline: Duration,
    renewed: Duration,
    drain: Duration,
    began: Duration,
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
    /// Under a lease, and drained for long enough; at once for a Director that is in no cluster.
    ///
    /// # Errors
    /// Not yet: why, and when it is looked at again.
    pub fn drained(&mut self, shared: &Shared, state: &State) -> Result<(), Pause> {
        let Some(group) = shared.lease_group() else {
            self.held = None;
            return Ok(());
        };
        if !shared.lease_in_use() {
            // Whatever was held was given back meanwhile.
            self.held = None;
        }
        shared.use_lease();
        if self.held.as_ref().is_none_or(|held| held.file.group != group) {
            self.held = Some(ask(state, &group)?);
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
        if !left.is_zero() {
            let detail = format!(
                "under the cluster's lease (epoch {}); load balancers have {} s more to look elsewhere",
                epoch(held),
                left.as_secs() + 1
            );
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
        held.file.away = true;
        held.file.write(state).map_err(|reason| pause(reason, AGAIN_S))?;
        if let Err(wait) = may_stop(left_s(held.deadline), needs) {
            // Fleet takes it for away; it gives the lease back as one that has come back.
            self.held = None;
            shared.end_quiet();
            return Err(pause(wait.reason, AGAIN_S));
        }
        Ok(())
    }

    fn renew(&mut self, shared: &Shared, state: &State, phase: Phase, needs_s: u64) -> Result<(), Pause> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let asked = clock::monotonic();
        match held.file.ask(state, phase, needs_s, tick) {
            Ok(locked) => {
                (held.deadline, held.renewed) = (asked + Duration::from_secs(locked.ttl_s.unwrap_or(0)), asked);
                Ok(())
            }
            Err(error) => {
                let file = held.file.clone();
                self.held = None;
                shared.end_quiet();
                Err(refused(state, file, error))
            }
        }
    }
}

fn epoch(held: &Held) -> u64 {
    held.file.epoch.unwrap_or(0)
}

/// The first question, or the first one of this process.
fn ask(state: &State, group: &str) -> Result<Held, Pause> {
    let known = LeaseFile::read(state).filter(|file| file.group == group);
    let mut file = known.unwrap_or_else(|| LeaseFile::wish(group));
    file.write(state).map_err(|reason| pause(reason, AGAIN_S))?;
    let asked = clock::monotonic();
    let LockedWire { epoch, ttl_s, drain_s } = match file.ask(state, Phase::Before, 0, tick) {
        Ok(locked) => locked,
        Err(error) => return Err(refused(state, file, error)),
    };
    file.epoch = epoch;
    file.write(state).map_err(|reason| pause(reason, AGAIN_S))?;
    let deadline = asked + Duration::from_secs(ttl_s.unwrap_or(0));
    Ok(Held { file, deadline, renewed: asked, drain: Duration::from_secs(drain_s.unwrap_or(0)), began: clock::monotonic() })
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
