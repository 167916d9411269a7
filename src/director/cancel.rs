//! Cancelling: works in every state that is not over, and says what that means there.
//!
//! | state | what a cancel does |
//! |---|---|
//! | waits for its turn | ends at once |
//! | ordered, accepted, waiting, downloading, staged | ends here at once; the agent is told, drops what it has and says so |
//! | switching, on trial | too late to stop the switch: the trial goes on to its own verdict, which its deadline bounds; `--roll-back` refuses the acknowledgement instead, and the agent goes back |
//! | rolled back, to be tried again | not tried again |
//! | silent | no longer ordered should it come back |
//! | over | nothing, and that is no error |

use miniserde::{Deserialize, Serialize};

use super::registry::Registry;
use crate::core::reason::Reason;
use crate::core::rollout::{End, State, Step};

/// What is wanted of a cancel.
#[derive(Clone, Copy, Debug)]
pub struct Cancel<'a> {
    /// One sentence for the activity.
    pub why: &'a str,
    /// A trial goes back, too.
    pub roll_back: bool,
    /// The same is ordered again later: what the agent has fetched stays there.
    pub keep_staged: bool,
}

impl<'a> Cancel<'a> {
    /// The usual one: a trial goes on.
    pub fn new(why: &'a str) -> Cancel<'a> {
        Cancel { why, roll_back: false, keep_staged: false }
    }
}

/// What became of one agent's part of a roll-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It was over already, or cancelled before.
    Nothing,
    /// It is over; true: the agent is told.
    Ended(bool),
    /// On trial: goes on to its verdict.
    Trial,
    /// On trial: refused, goes back.
    Refused,
}

impl Cancelled {
    /// True: the agent has news.
    pub fn told(self) -> bool {
        !matches!(self, Cancelled::Nothing | Cancelled::Ended(false))
    }
}

/// What a cancel did, for the person who asked for it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct CancelView {
    /// Agents whose part is over now.
    pub cancelled: u64,
    /// Of them and of the trials, those that are told.
    pub told: u64,
    /// On trial or switching: the trial goes on to its own verdict.
    pub on_trial: Vec<String>,
    /// On trial: refused its acknowledgement, goes back.
    pub going_back: Vec<String>,
    /// Roll-outs that are over now.
    pub rollouts: Vec<u64>,
}

/// A cancel's answer and the agents that have news now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CancelDone {
    /// For the person.
    pub view: CancelView,
    /// To be woken.
    pub wake: Vec<String>,
}

impl CancelDone {
    fn add(&mut self, agent: &str, what: Cancelled) {
        match what {
            Cancelled::Nothing => return,
            Cancelled::Ended(_) => self.view.cancelled += 1,
            Cancelled::Trial => self.view.on_trial.push(agent.to_string()),
            Cancelled::Refused => self.view.going_back.push(agent.to_string()),
        }
        if what.told() {
            self.view.told += 1;
            self.wake.push(agent.to_string());
        }
    }
}

impl Registry {
    /// Ends a roll-out by hand. One that is over already is no error: asking twice changes nothing.
    ///
    /// # Errors
    /// `rollout_unknown`.
    pub fn cancel_rollout(&mut self, id: u64, ask: &Cancel, now: u64) -> Result<CancelDone, Reason> {
        let unknown = || Reason::new("rollout_unknown", format!("there is no roll-out {id}; `rollouts` lists them"));
        let rollout = self.rollouts.get(&id).cloned().ok_or_else(unknown)?;
        let agents: Vec<String> = self.orders.range((id, String::new())..(id + 1, String::new())).map(|((_, a), _)| a.clone()).collect();
        let mut done = CancelDone::default();
        for agent in agents {
            let what = self.cancel_row(id, &agent, ask, now);
            done.add(&agent, what);
        }
        if matches!(rollout.state.as_str(), "running" | "halted") {
            self.close(rollout, State::Cancelled, now, &mut Vec::new());
            done.view.rollouts.push(id);
        }
        Ok(done)
    }

    /// Ends every roll-out that is not over, and what is left of the others.
    pub fn cancel_everything(&mut self, ask: &Cancel, now: u64) -> CancelDone {
        let running = self.rollouts.values().filter(|r| r.state == "running" || r.state == "halted").map(|r| r.id);
        let ids: std::collections::BTreeSet<u64> = running.chain(self.open.iter().copied()).collect();
        let mut all = CancelDone::default();
        for id in ids {
            let Ok(CancelDone { view, wake }) = self.cancel_rollout(id, ask, now) else { continue };
            all.view.cancelled += view.cancelled;
            all.view.told += view.told;
            all.view.on_trial.extend(view.on_trial);
            all.view.going_back.extend(view.going_back);
            all.view.rollouts.extend(view.rollouts);
            all.wake.extend(wake);
        }
        all
    }

    /// Ends what these agents have open.
    pub fn cancel_agents(&mut self, agents: &[String], ask: &Cancel, now: u64) -> CancelDone {
        let wanted: std::collections::BTreeSet<&String> = agents.iter().collect();
        let rows: Vec<(u64, String)> = self.orders.keys().filter(|(_, a)| wanted.contains(a)).cloned().collect();
        let mut done = CancelDone::default();
        for (id, agent) in rows {
            let what = self.cancel_row(id, &agent, ask, now);
            done.add(&agent, what);
        }
        done
    }

    /// Ends one row, if it is not over. What was issued gets a cancel order, whatever the agent does with it: our side ends
    /// at once, so that a dead agent cannot hold a roll-out.
    pub fn cancel_row(&mut self, rollout: u64, agent: &str, ask: &Cancel, now: u64) -> Cancelled {
        let Some(mut row) = self.orders.get(&(rollout, agent.to_string())).cloned() else { return Cancelled::Nothing };
        let trial = row.step().is_some_and(Step::has_switched);
        let refuse = trial && ask.roll_back && row.refuse_trial != Some(true);
        let retries = row.end() == Some(End::RolledBack) && row.until.is_some();
        let repairs = row.repair_at.is_some();
        // What was cancelled may have switched before it heard: then it is sent back all the same.
        if ask.roll_back && row.end() == Some(End::Cancelled) && row.generation > 0 && row.refuse_trial != Some(true) {
            row.refuse_trial = Some(true);
            self.keep_order(row);
            return Cancelled::Nothing;
        }
        let open = row.end().is_none() || row.end() == Some(End::Silent) || retries || repairs;
        if !open || (row.cancel_generation > 0 && !refuse) {
            return Cancelled::Nothing;
        }
        row.cancelled_by = self.by.clone().filter(|by| by != super::policing::BY_POLICY).or(row.cancelled_by);
        let issued = row.generation > 0 && self.in_force.get(agent) == Some(&rollout);
        if issued && row.cancel_generation == 0 {
            row.cancel_generation = self.next_generation(agent);
            row.keep_staged = ask.keep_staged.then_some(true);
            self.event(now, agent, "cancel_issued", ask.why, Some(&row));
        }
        // Also before the switch: the report of it may be lost, and a trial that comes then is not wanted either.
        row.refuse_trial = (ask.roll_back && issued).then_some(true).or(row.refuse_trial);
        if refuse {
            self.event(now, agent, "trial_refused", ask.why, Some(&row));
        }
        if retries || repairs {
            // Nothing is tried again; the end stays what it was.
            (row.until, row.repair_at) = (None, None);
            self.repairs.remove(agent);
        }
        // Silence stays a failure of a halted roll-out.
        let halted = row.end() == Some(End::Silent) && self.rollouts.get(&rollout).is_some_and(|r| r.state == "halted");
        if trial || retries || repairs || halted {
            self.keep_order(row);
        } else {
            self.end(row, End::Cancelled, &Reason::new("cancelled", ask.why), now);
        }
        match (trial, refuse) {
            (true, true) => Cancelled::Refused,
            (true, false) => Cancelled::Trial,
            (false, _) => Cancelled::Ended(issued),
        }
    }
}
