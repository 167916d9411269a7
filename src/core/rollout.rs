//! Who of a group may change version now: the first one alone, then a few at a time, nobody once too many failed.
//!
//! ```text
//!            Proceed                    report                     result
//!  Waiting ---------> Moving(Ordered) -------> Moving(..Trial) ----------> Ended(Updated)
//!     |                    |  deadline passed        |                        |  runs something else again
//!     |                    +----------------------> Ended(Silent)             +--> Ended(Flapping)
//!     +--> Ended(Already | NoArtifact | Refused | Cancelled | Expired)     Ended(RolledBack | Refused)
//! ```
//!
//! Nothing here is stored: [`plan`] looks at the facts and decides again each time. Silence is a failure: an agent that
//! dies with the new version never reports that it did. An agent that was not reachable *before* its order is no
//! failure; it waits, and the others go on without it.
//!
//! | code of a wait | until | meaning |
//! |---|---|---|
//! | `first_agent` | - | the first agent has not finished yet |
//! | `in_flight_limit` | - | as many agents as allowed change version now |
//! | `agent_offline` | - | not heard of for [`OFFLINE_AFTER_S`]; it is ordered when it is back |
//! | `earlier_order` | - | an earlier order of this agent must end first |
//! | `file_not_here` | - | the mirror fetches the file first |
//! | `rollout_halted` | - | too many failed; a person decides |
//! | those of [`Step`] | deadline | the agent owns the next move, until then |
//!
//! A `-` ends with the roll-out itself, [`ROLLOUT_LIFE_S`] after it was made: nothing waits for ever.
//!
//! | code of an end | counts as failure |
//! |---|---|
//! | `updated`, `already`, `refused`, `no_artifact`, `cancelled`, `expired` | no |
//! | `rolled_back`, `silent`, `flapping` | yes |

use std::fmt;
use std::str::FromStr;

use super::reason::Reason;

/// An agent that has not been heard of for this long is not ordered anything: three long polls.
pub const OFFLINE_AFTER_S: u64 = 180;
/// How long an agent may be silent before it accepts an order: several polls (58 s); five minutes survive a Director's
/// own restart and a short network fault.
pub const SILENT_AFTER_S: u64 = 300;
/// An agent that polls must accept a new order within this time, or it does not understand it.
pub const ACCEPT_S: u64 = 600;
/// Longest time from acceptance to the switch without a `switch_in`: the agent's own limit for a fetch, plus an hour.
pub const FETCH_TOTAL_S: u64 = 25 * 3600;
/// Added to the trial's own deadline: stop, start, roll back, start again (each under the liveness limit of 180 s).
pub const SWITCH_SLACK_S: u64 = 600;

/// Life of a roll-out when nobody says otherwise: an agent that could not be ordered by then (a device in a drawer, a
/// halt that nobody looked at) is not surprised by an order of last year. As long as a window may be away.
pub const ROLLOUT_LIFE_S: u64 = 30 * 86_400;

/// How many agents may change version at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// So many.
    Count(u32),
    /// So many of a hundred, rounded up.
    Percent(u32),
}

impl InFlight {
    /// The number for a group of this size: at least 1, so that no group is too small to move, and no more than there are.
    pub fn resolve(self, group: usize) -> usize {
        let wanted = match self {
            InFlight::Count(n) => n as usize,
            InFlight::Percent(p) => (group * p as usize).div_ceil(100),
        };
        wanted.clamp(1, group.max(1))
    }
}

impl FromStr for InFlight {
    type Err = String;

    fn from_str(text: &str) -> Result<InFlight, String> {
        let error = || format!("'{text}' is no limit; expected a number of agents of at least 1, or 1% to 100%");
        match text.strip_suffix('%') {
            Some(p) => p.parse().ok().filter(|p| (1..=100).contains(p)).map(InFlight::Percent),
            None => text.parse().ok().filter(|n| *n >= 1).map(InFlight::Count),
        }
        .ok_or_else(error)
    }
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InFlight::Count(n) => write!(f, "{n}"),
            InFlight::Percent(p) => write!(f, "{p}%"),
        }
    }
}

/// Where a roll-out stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Agents are ordered as others finish.
    Running,
    /// Too many failed: nobody else is started. Only a person ends this.
    Halted(Reason),
    /// Every agent has come to an end.
    Done,
    /// A person ended it.
    Cancelled,
}

/// A roll-out's limits, resolved against the real group, and its state so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Where it stands.
    pub state: State,
    /// From [`InFlight::resolve`].
    pub max_in_flight: usize,
    /// More failures than this halt it.
    pub max_failures: usize,
    /// Whoever has not been ordered by then is not ordered any more.
    pub expires_at: u64,
}

/// What an agent with an order does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Issued, not yet accepted.
    Ordered,
    /// Accepted.
    Accepted,
    /// Waits for a reason of its own: its window, room on its disk, a fresh contact.
    Waiting,
    /// Fetches.
    Downloading,
    /// Checked and ready to switch.
    Staged,
    /// Between the old process and the new one.
    Switching,
    /// The new version runs and has not been confirmed.
    Trial,
}

impl Step {
    /// Each of them, in their order.
    pub const ALL: [Step; 7] =
        [Step::Ordered, Step::Accepted, Step::Waiting, Step::Downloading, Step::Staged, Step::Switching, Step::Trial];

    /// Stable word for files, tables and reasons.
    pub fn word(self) -> &'static str {
        match self {
            Step::Ordered => "ordered",
            Step::Accepted => "accepted",
            Step::Waiting => "waiting",
            Step::Downloading => "downloading",
            Step::Staged => "staged",
            Step::Switching => "switching",
            Step::Trial => "trial",
        }
    }

    /// What an agent does in this step, when it does not say itself.
    pub fn sentence(self) -> &'static str {
        match self {
            Step::Ordered => "ordered; the agent has not accepted yet",
            Step::Accepted => "the agent has the order and begins",
            Step::Waiting => "the agent waits and does not say why",
            Step::Downloading => "the file is on its way",
            Step::Staged => "downloaded and checked",
            Step::Switching => "between the old version and the new one",
            Step::Trial => "the new version runs and is not confirmed yet",
        }
    }

    /// True once a cancel order comes too late: the trial goes on to its own verdict.
    pub fn has_switched(self) -> bool {
        matches!(self, Step::Switching | Step::Trial)
    }
}

/// How an agent's order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The new version runs, confirmed, and reported its own file's hash.
    Updated,
    /// It ran that file before it was its turn.
    Already,
    /// It went back to the version before.
    RolledBack,
    /// Nothing was heard by the deadline.
    Silent,
    /// It was updated and runs something else again, without an order.
    Flapping,
    /// The agent refused the order, for a reason that says nothing about the file's quality.
    Refused,
    /// The release has nothing for its platform.
    NoArtifact,
    /// A person ended it.
    Cancelled,
    /// Its turn did not come in the roll-out's life.
    Expired,
}

impl End {
    /// Each of them.
    pub const ALL: [End; 9] = [
        End::Updated,
        End::Already,
        End::RolledBack,
        End::Silent,
        End::Flapping,
        End::Refused,
        End::NoArtifact,
        End::Cancelled,
        End::Expired,
    ];

    /// Stable word for files, tables and reasons.
    pub fn word(self) -> &'static str {
        match self {
            End::Updated => "updated",
            End::Already => "already",
            End::RolledBack => "rolled_back",
            End::Silent => "silent",
            End::Flapping => "flapping",
            End::Refused => "refused",
            End::NoArtifact => "no_artifact",
            End::Cancelled => "cancelled",
            End::Expired => "expired",
        }
    }

    /// True for an end that speaks against the new version.
    pub fn is_failure(self) -> bool {
        matches!(self, End::RolledBack | End::Silent | End::Flapping)
    }
}

/// Where an agent stands in a roll-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No order issued.
    Waiting,
    /// An order is under way; silence after `deadline` is a failure. The reason says what the agent does.
    Moving {
        /// What the agent does, for people.
        reason: Reason,
        /// From [`deadline`].
        deadline: u64,
    },
    /// At an end.
    Ended(End),
}

/// What is known of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// Where it stands in this roll-out.
    pub standing: Standing,
    /// Its last report names the hash that this roll-out orders for its platform, and runs it confirmed.
    pub runs_target: bool,
    /// Its last report names another hash, and nobody at the device put it there by hand.
    pub left_target: bool,
    /// Why the release has nothing for it, if so.
    pub no_artifact: Option<Reason>,
    /// Why the file is not given to it, if a halt or a person keeps it away.
    pub quarantined: Option<Reason>,
    /// Why it cannot be ordered yet, if so: an earlier order of its must end first, or the file is not here.
    pub busy: Option<Reason>,
    /// When it was last heard of.
    pub last_contact: u64,
}

/// What [`plan`] says about one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Issue the order now.
    Proceed,
    /// Not now.
    Wait {
        /// What has to happen first.
        reason: Reason,
        /// When that ends by itself, if it does; absent = when the reason's cause goes away.
        until: Option<u64>,
    },
    /// Never in this roll-out.
    Refuse {
        /// Why.
        reason: Reason,
        /// [`End::NoArtifact`] or [`End::Refused`].
        end: End,
    },
    /// It is at an end, perhaps one that the facts show only now ([`End::Already`], [`End::Silent`], [`End::Flapping`]).
    Ended(End),
}

impl Decision {
    /// A wait for a cause without an end of its own ends then.
    fn or_until(self, at: u64) -> Decision {
        match self {
            Decision::Wait { reason, until } => Decision::Wait { reason, until: until.or(Some(at)) },
            other => other,
        }
    }
}

/// What follows from the facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the roll-out stands now.
    pub state: State,
    /// One per agent, in the order of the facts.
    pub decisions: Vec<Decision>,
}

/// Looks at a roll-out and says what to do with each of its agents.
pub fn plan(rollout: &Rollout, agents: &[AgentFacts], now: u64) -> Plan {
    let ends: Vec<Option<End>> = agents.iter().map(|a| end_of(a, rollout.expires_at, now)).collect();
    let failures = ends.iter().flatten().filter(|e| e.is_failure()).count();
    let mut state = rollout.state.clone();
    if state == State::Running && failures > rollout.max_failures {
        state = State::Halted(why_halted(&ends, rollout.max_failures));
    }
    let proven = ends.contains(&Some(End::Updated));
    let limit = if proven { rollout.max_in_flight.max(1) } else { 1 };
    let moving = |a: &AgentFacts| matches!(a.standing, Standing::Moving { .. });
    let in_flight = agents.iter().zip(&ends).filter(|(a, end)| end.is_none() && moving(a)).count();
    let mut room = if state == State::Running { limit.saturating_sub(in_flight) } else { 0 };

    let mut decisions = Vec::with_capacity(agents.len());
    for (agent, end) in agents.iter().zip(&ends) {
        let decision = match (end, &agent.standing) {
            (Some(end), _) => Decision::Ended(*end),
            (None, Standing::Moving { reason, deadline }) => Decision::Wait { reason: reason.clone(), until: Some(*deadline) },
            (None, _) => start(agent, &state, room, proven, limit, now).or_until(rollout.expires_at),
        };
        if decision == Decision::Proceed {
            room -= 1;
        }
        decisions.push(decision);
    }
    let over = |d: &Decision| matches!(d, Decision::Ended(_) | Decision::Refuse { .. });
    if state == State::Running && decisions.iter().all(over) {
        state = State::Done;
    }
    Plan { state, decisions }
}

/// The end that the facts show, if they show one.
fn end_of(agent: &AgentFacts, expires_at: u64, now: u64) -> Option<End> {
    match &agent.standing {
        Standing::Ended(End::Updated) if agent.left_target => Some(End::Flapping),
        Standing::Ended(end) => Some(*end),
        Standing::Moving { deadline, .. } if now > *deadline => Some(End::Silent),
        Standing::Moving { .. } => None,
        Standing::Waiting if agent.runs_target => Some(End::Already),
        Standing::Waiting if now > expires_at => Some(End::Expired),
        Standing::Waiting => None,
    }
}

/// Whether a waiting agent may start; the reasons in the order in which they are worth telling.
fn start(agent: &AgentFacts, state: &State, room: usize, proven: bool, limit: usize, now: u64) -> Decision {
    let wait = |reason: Reason| Decision::Wait { reason, until: None };
    if let Some(reason) = &agent.no_artifact {
        return Decision::Refuse { reason: reason.clone(), end: End::NoArtifact };
    }
    match state {
        State::Cancelled | State::Done => return Decision::Ended(End::Cancelled),
        State::Halted(why) => return wait(Reason::new("rollout_halted", format!("halted: {}", why.detail))),
        State::Running => {}
    }
    if let Some(reason) = &agent.quarantined {
        return Decision::Refuse { reason: reason.clone(), end: End::Refused };
    }
    if let Some(reason) = &agent.busy {
        return wait(reason.clone());
    }
    let silent_s = now.saturating_sub(agent.last_contact);
    if silent_s > OFFLINE_AFTER_S {
        return wait(Reason::new("agent_offline", "not reachable; it is ordered when it reports again"));
    }
    match (room, proven) {
        (0, false) => wait(Reason::new("first_agent", "waits until the first agent runs the new version")),
        (0, true) => wait(Reason::new("in_flight_limit", format!("{limit} agents change version at once; waits for its turn"))),
        _ => Decision::Proceed,
    }
}

fn why_halted(ends: &[Option<End>], max_failures: usize) -> Reason {
    let count = |end: End| ends.iter().flatten().filter(|e| **e == end).count();
    let (back, silent, flapping) = (count(End::RolledBack), count(End::Silent), count(End::Flapping));
    let detail = format!("{back} rolled back, {silent} silent past the deadline, {flapping} flapping; more than {max_failures} allowed");
    Reason::new("too_many_failures", detail)
}

/// The times in an order that its deadlines follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Not before so many seconds after receipt.
    pub switch_in_s: u64,
    /// Contact deadline of the trial.
    pub contact_deadline_s: u64,
    /// The switch may happen without contact.
    pub unattended: bool,
    /// Longest unattended trial.
    pub trial_max_s: u64,
}

/// When an agent at this step, entered at `since` and last heard of at `last_contact`, counts as silent.
///
/// Two limits, the earlier one counts: it must be heard of, and it must get on.
pub fn deadline(step: Step, since: u64, last_contact: u64, terms: &Terms) -> u64 {
    let trial_s = if terms.unattended { terms.trial_max_s.max(terms.contact_deadline_s) } else { terms.contact_deadline_s };
    let trial_s = trial_s.saturating_add(SWITCH_SLACK_S);
    let before_s = terms.switch_in_s.saturating_add(FETCH_TOTAL_S);
    let (silence_s, step_s) = match step {
        Step::Ordered => (SILENT_AFTER_S, ACCEPT_S),
        // It may fetch, switch and live on trial without contact; only then is its silence a sign.
        _ if terms.unattended && !step.has_switched() => (before_s.saturating_add(trial_s), before_s.saturating_add(trial_s)),
        // It may switch right after its last word, so the time to come back counts from there.
        Step::Accepted | Step::Waiting | Step::Downloading | Step::Staged => (trial_s, before_s),
        Step::Switching | Step::Trial => (trial_s, trial_s),
    };
    last_contact.saturating_add(silence_s).min(since.saturating_add(step_s))
}
