//! The lease of this Director on its disk, and the words with Fleet about it.
//!
//! What is asked for is written before it is asked, so that a process that dies in between knows that there may be a lease,
//! and gives it back.

use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};

use crate::agent::link::{Link, LinkError};
use crate::core::cluster::lease::Phase;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::director::own::shared::Shared;
use crate::director::site::Site;
use crate::io::state::State;
use crate::io::{clock, random};
use crate::wire::fleet_lock::{ClientWire, LOCK_MAX, LockWire, LockedWire, PRE_REBOOT, STEADY_STATE};

/// Where it is.
const FILE: &str = "storage/cluster-lease.json";
/// Time for an answer: a lease is no reason to hold up anything for long.
const ANSWER: Duration = Duration::from_secs(10);
/// How often it is tried to give a lease back.
const AGAIN: Duration = Duration::from_secs(2);

/// A lease, or the wish for one.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct LeaseFile {
    /// Of which cluster.
    pub group: String,
    /// Of the wish.
    pub nonce: String,
    /// Of the lease; absent = not known to be given.
    pub epoch: Option<u64>,
    /// This Director may have been away under it.
    pub away: bool,
}

impl LeaseFile {
    /// A new wish.
    pub fn wish(group: &str) -> LeaseFile {
        LeaseFile { group: group.to_string(), nonce: hex::encode(&random::bytes::<8>()), epoch: None, away: false }
    }

    /// What is on the disk. One that does not parse is none: Fleet lets it run out, and says so.
    pub fn read(state: &State) -> Option<LeaseFile> {
        state.read(FILE).ok().flatten()
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// That of the file.
    pub fn write(&self, state: &State) -> Result<(), Reason> {
        state.write(FILE, self)
    }

    /// There is none any more.
    ///
    /// # Errors
    /// That of the file.
    pub fn remove(state: &State) -> Result<(), Reason> {
        state.remove(FILE)
    }

    /// Asks for the lease, or renews it.
    ///
    /// # Errors
    /// Why not; no answer.
    pub fn ask(&self, state: &State, phase: Phase, needs_s: u64, tick: fn()) -> Result<LockedWire, LinkError> {
        self.say(state, PRE_REBOOT, phase, needs_s, tick)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// Why it stays; no answer.
    pub fn give_back(&self, state: &State, tick: fn()) -> Result<(), LinkError> {
        self.say(state, STEADY_STATE, if self.away { Phase::After } else { Phase::Before }, 0, tick).map(drop)
    }

    fn say(&self, state: &State, path: &'static str, phase: Phase, needs_s: u64, tick: fn()) -> Result<LockedWire, LinkError> {
        let broken = |reason: Reason| LinkError { reason, retry_after_s: None, woken: false, refused: false, busy: false };
        let missing = || broken(Reason::new("not_enrolled", "this Director is known to no Fleet"));
        let config = state.config().map_err(broken)?.ok_or_else(missing)?.0;
        let phase = match phase {
            Phase::Before => "before",
            Phase::Stop => "stop",
            Phase::After => "after",
        };
        let wire = LockWire {
            client_params: ClientWire { id: config.agent_id.clone(), group: self.group.clone() },
            nonce: Some(self.nonce.clone()),
            epoch: self.epoch,
            needs_s: Some(needs_s),
            phase: Some(phase.into()),
            ..Default::default()
        };
        let link = Link::new(&config, state, None, tick).map_err(broken)?;
        let text = link.lock(path, &json::to_string(&wire), LOCK_MAX, ANSWER)?;
        json::from_str(&text).map_err(|_| broken(Reason::new("bad_answer", format!("{path}: the answer is not of the FleetLock protocol"))))
    }
}

/// Gives back what is not needed any more: after an update as soon as Fleet has seen this Director well for long enough.
pub async fn keep(site: Rc<Site>, shared: std::sync::Arc<Shared>, state: State) {
    let (mut told, mut told_peers) = (String::new(), String::new());
    loop {
        smol::Timer::after(AGAIN).await;
        if shared.is_on_trial() || shared.lease_in_use() || site.cluster.drained.get() || site.stopping.get() {
            continue;
        }
        super::ballot::keep(&site, &shared, &state, &mut told_peers).await;
        // A process that waits for the launcher has not come back yet.
        let Some(file) = LeaseFile::read(&state) else { continue };
        let state = state.clone();
        let said = smol::unblock(move || {
            let said = file.give_back(&state, || {});
            let gone = match &said {
                Ok(()) => LeaseFile::remove(&state),
                Err(e) if e.reason.code == "lease_in_use" => LeaseFile { away: true, ..file }.write(&state),
                // The cluster is another one now: nothing is held there.
                Err(e) if matches!(e.reason.code.as_ref(), "group_unknown" | "not_a_member" | "not_enrolled" | "id_mismatch") => {
                    LeaseFile::remove(&state)
                }
                Err(_) => Ok(()),
            };
            (said, gone)
        })
        .await;
        let code = match &said {
            (_, Err(reason)) => reason.code.to_string(),
            (Ok(()), _) => "lease_returned".into(),
            (Err(e), _) => e.reason.code.to_string(),
        };
        if code != told {
            match &said {
                (_, Err(reason)) => log::error!("{reason}"),
                (Ok(()), _) => site.note("lease_returned", "the cluster's lease is given back: the next member may go"),
                (Err(e), _) => log::info!("the cluster's lease stays: {}", e.reason),
            }
            told = code;
        }
    }
}

/// Seconds from now to a time of the monotonic clock.
pub fn left_s(deadline: Duration) -> u64 {
    deadline.saturating_sub(clock::monotonic()).as_secs()
}
