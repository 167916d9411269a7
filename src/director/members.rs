//! What agents hear of the members of this Director's cluster, so that they know whom to turn to ([`crate::core::failover`]).

use std::collections::HashSet;

use super::site::Site;
use crate::core::failover::sum;
use crate::wire::agent_api::{AnswerWire, ReportWire};

/// Who was told of the present members on a poll of its own accord.
#[derive(Debug, Default)]
pub struct Told {
    members: Vec<String>,
    agents: HashSet<String>,
}

/// What a member says beside what its own store knows: the acknowledgement of a trial that another one has ordered, and who the
/// members are. These are added to an answer when the agent knows others. `poll`: it would be parked. Of those an agent is told once: one
/// that cannot keep them must not make a loop of it, and hears of them again with its next start.
pub fn tell_members(site: &Site, id: &str, report: &ReportWire, poll: bool, answer: &mut AnswerWire) {
    let members: Vec<String> = site.settings.borrow().config.members.iter().map(|m| m.value.clone()).collect();
    if !members.is_empty() && answer.acknowledged.is_none() && answer.trial_refused.is_none() {
        answer.acknowledged = site.registry.borrow().acknowledged_for_another(report, answer.time);
    }
    let mut told = site.told_members.borrow_mut();
    if told.members != members {
        *told = Told { members: members.clone(), agents: HashSet::new() };
    }
    if report.members.as_deref().unwrap_or_default() == sum(&members) {
        told.agents.remove(id);
    } else if told.agents.insert(id.to_string()) || !poll {
        answer.members = Some(members);
    }
}
