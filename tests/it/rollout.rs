//! Properties of a roll-out, against a simulated site that knows what its agents really do.
//!
//! The simulation counts on its own: who moves is a set that it keeps, not a formula over the facts it hands out.

use proptest::prelude::*;
use vmetric::core::reason::Reason;
use vmetric::core::rollout::{
    ACCEPT_S, AgentFacts, Decision, End, InFlight, OFFLINE_AFTER_S, Plan, Rollout, SILENT_AFTER_S, Standing, State, Step, Terms, deadline,
    plan,
};

/// What becomes of an agent once it is ordered, or before.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Good {
        turns: u8,
    },
    RollsBack {
        turns: u8,
    },
    Dies,
    Refuses,
    /// Good, and then runs something else again.
    Flaps {
        turns: u8,
    },
    NoPlatform,
    RunsItAlready,
    /// Not reachable before this turn, then good.
    Away {
        until: u8,
    },
    /// Another order of its ends at this turn, then good.
    Busy {
        until: u8,
    },
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (1..6u8).prop_map(|turns| Fate::Good { turns }),
        1 => (1..6u8).prop_map(|turns| Fate::RollsBack { turns }),
        1 => Just(Fate::Dies),
        1 => Just(Fate::Refuses),
        1 => (1..6u8).prop_map(|turns| Fate::Flaps { turns }),
        1 => Just(Fate::NoPlatform),
        1 => Just(Fate::RunsItAlready),
        1 => (1..30u8).prop_map(|until| Fate::Away { until }),
        1 => (1..30u8).prop_map(|until| Fate::Busy { until }),
    ]
}

/// Seconds of a turn; an agent on the move must be heard of within ten of them.
const TURN_S: u64 = 60;
const PATIENCE_S: u64 = 10 * TURN_S;

struct Agent {
    fate: Fate,
    /// Turn of its order.
    started: Option<u64>,
    end: Option<End>,
    left: bool,
}

struct World {
    agents: Vec<Agent>,
    rollout: Rollout,
    turn: u64,
}

impl World {
    fn now(&self) -> u64 {
        1_000_000 + self.turn * TURN_S
    }

    fn facts(&self) -> Vec<AgentFacts> {
        self.agents.iter().map(|a| self.facts_of(a)).collect()
    }

    fn facts_of(&self, agent: &Agent) -> AgentFacts {
        let now = self.now();
        let standing = match (agent.end, agent.started) {
            (Some(end), _) => Standing::Ended(end),
            (None, Some(turn)) => {
                Standing::Moving { reason: Reason::new("downloading", "x"), deadline: 1_000_000 + turn * TURN_S + PATIENCE_S }
            }
            (None, None) => Standing::Waiting,
        };
        let away = matches!(agent.fate, Fate::Away { until } if self.turn < until.into());
        let busy = matches!(agent.fate, Fate::Busy { until } if self.turn < until.into());
        AgentFacts {
            standing,
            runs_target: agent.fate == Fate::RunsItAlready,
            left_target: agent.left,
            no_artifact: (agent.fate == Fate::NoPlatform).then(|| Reason::new("no_artifact", "x")),
            quarantined: None,
            busy: busy.then(|| Reason::new("earlier_order", "x")),
            last_contact: if away { now - OFFLINE_AFTER_S - 1 } else { now },
        }
    }

    fn moving(&self) -> usize {
        self.agents.iter().filter(|a| a.started.is_some() && a.end.is_none()).count()
    }

    /// Agents that nothing but the roll-out keeps from starting.
    fn ready(&self) -> usize {
        let free = |a: &&Agent| match a.fate {
            Fate::Away { until } | Fate::Busy { until } => self.turn >= until.into(),
            Fate::NoPlatform | Fate::RunsItAlready => false,
            _ => true,
        };
        self.agents.iter().filter(|a| a.started.is_none() && a.end.is_none()).filter(free).count()
    }

    /// Plans, checks what must hold of every plan, and lets a minute pass.
    fn step(&mut self) -> Plan {
        let was = self.rollout.state.clone();
        let proven = self.agents.iter().any(|a| a.end == Some(End::Updated) && !a.left);
        let (ready, moving) = (self.ready(), self.moving());
        let plan = plan(&self.rollout, &self.facts(), self.now());
        assert_eq!(plan.decisions.len(), self.agents.len());

        let started = plan.decisions.iter().filter(|d| **d == Decision::Proceed).count();
        for (agent, decision) in self.agents.iter_mut().zip(&plan.decisions) {
            match decision {
                Decision::Proceed => agent.started = Some(self.turn),
                Decision::Wait { reason, until } => {
                    assert!(!reason.code.is_empty() && !reason.detail.is_empty(), "a wait says why");
                    assert!(agent.started.is_none() || until.is_some(), "whoever moves has a deadline");
                }
                Decision::Refuse { .. } => agent.end = Some(End::NoArtifact),
                Decision::Ended(end) => agent.end = Some(*end),
            }
        }
        if plan.state != State::Running {
            assert_eq!(started, 0, "nobody is started unless it runs: {:?}", plan.state);
        }
        let now_moving = self.moving();
        assert!(now_moving <= self.rollout.max_in_flight.max(1), "{now_moving} at once");
        // The only proof may be gone again (flapping) while others are on their way; then nobody else follows.
        assert!(proven || started == 0 || now_moving <= 1, "one alone until one is done");
        if plan.state == State::Running && moving == 0 && ready > 0 && was == State::Running {
            assert!(started > 0, "someone progresses");
        }
        let failed = self.agents.iter().filter(|a| a.end.is_some_and(End::is_failure)).count();
        if was == State::Running {
            assert_eq!(matches!(plan.state, State::Halted(_)), failed > self.rollout.max_failures, "halts exactly when too many failed");
        } else {
            assert_eq!(plan.state, was, "only a person ends a halt; what is over stays over");
        }
        self.rollout.state = plan.state.clone();
        self.turn += 1;
        self.live();
        plan
    }

    fn live(&mut self) {
        for agent in &mut self.agents {
            let Some(started) = agent.started else { continue };
            let age = self.turn - started;
            let after = |turns: u8| age >= turns.into();
            match agent.fate {
                _ if agent.end.is_some() => {
                    agent.left |= matches!(agent.fate, Fate::Flaps { .. }) && agent.end == Some(End::Updated) && age > 8;
                }
                Fate::Good { turns } | Fate::Flaps { turns } if after(turns) => agent.end = Some(End::Updated),
                Fate::Away { .. } | Fate::Busy { .. } if after(2) => agent.end = Some(End::Updated),
                Fate::RollsBack { turns } if after(turns) => agent.end = Some(End::RolledBack),
                Fate::Refuses if after(1) => agent.end = Some(End::Refused),
                _ => {}
            }
        }
    }
}

fn world(fates: Vec<Fate>, max_in_flight: usize, max_failures: usize) -> World {
    let agents = fates.into_iter().map(|fate| Agent { fate, started: None, end: None, left: false }).collect();
    World { agents, rollout: Rollout { state: State::Running, max_in_flight, max_failures, expires_at: u64::MAX }, turn: 0 }
}

proptest! {
    // A found case belongs into a test of its own with a name, not into a file of seeds.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_rollout_comes_to_an_end(fates in prop::collection::vec(fate(), 1..25), limit in 0..8usize, failures in 0..5usize) {
        let count = fates.len() as u64;
        let mut world = world(fates, limit, failures);
        // One after the other, each as long as the patience, and everybody away or busy at first.
        for _ in 0..(count * 12 + 40) {
            world.step();
        }
        prop_assert!(world.rollout.state != State::Running, "{:?}", world.rollout.state);
        if world.rollout.state == State::Done {
            prop_assert!(world.agents.iter().all(|a| a.end.is_some()));
        }
    }

    #[test]
    fn a_cancelled_rollout_starts_nobody(fates in prop::collection::vec(fate(), 1..10), before in 0..10u64) {
        let mut world = world(fates, 3, 100);
        for _ in 0..before {
            world.step();
        }
        world.rollout.state = State::Cancelled;
        let plan = plan(&world.rollout, &world.facts(), world.now());
        prop_assert!(!plan.decisions.contains(&Decision::Proceed));
        prop_assert_eq!(plan.state, State::Cancelled);
    }

    #[test]
    fn an_agent_that_keeps_talking_and_moving_is_never_silent(gaps in prop::collection::vec(1..SILENT_AFTER_S, 1..30), unattended: bool) {
        // It enters a new step with each report, and reports more often than the shortest allowed silence.
        let terms = Terms { switch_in_s: 0, contact_deadline_s: 30, unattended, trial_max_s: 3_600 };
        let mut now = 10;
        for gap in gaps {
            for step in [Step::Ordered, Step::Accepted, Step::Waiting, Step::Downloading, Step::Staged, Step::Switching, Step::Trial] {
                prop_assert!(deadline(step, now, now, &terms) >= now + gap);
            }
            now += gap;
        }
    }
}

#[test]
fn a_small_group_never_wedges() {
    for group in 1..5 {
        for limit in ["1", "1%", "10%", "100%", "50"] {
            let limit: InFlight = limit.parse().unwrap();
            assert!(limit.resolve(group) >= 1);
            let mut world = world(vec![Fate::Good { turns: 1 }; group], limit.resolve(group), 2);
            for _ in 0..20 {
                world.step();
            }
            assert_eq!(world.rollout.state, State::Done);
        }
    }
    assert_eq!(InFlight::Percent(10).resolve(25), 3);
    for bad in ["", "0", "0%", "101%", "-1", "x", "%"] {
        assert!(bad.parse::<InFlight>().is_err(), "{bad}");
    }
}

#[test]
fn silence_halts_like_a_rollback() {
    let mut world = world(vec![Fate::Dies; 9], 3, 2);
    let halted = (0..60).map(|_| world.step()).find(|p| p.state != State::Running).unwrap();
    let State::Halted(why) = halted.state else { panic!("{:?}", halted.state) };
    assert!(why.code == "too_many_failures" && why.detail.contains("3 silent"), "{why}");
    assert_eq!(world.agents.iter().filter(|a| a.started.is_some()).count(), 3, "one after the other, and then nobody");
    assert!(halted.decisions.iter().any(|d| matches!(d, Decision::Wait { reason, .. } if reason.code == "rollout_halted")));
}

#[test]
fn who_is_away_keeps_nobody_waiting() {
    let mut world = world(vec![Fate::Away { until: 30 }, Fate::Good { turns: 1 }, Fate::Good { turns: 1 }], 1, 0);
    let first = world.step();
    assert!(matches!(&first.decisions[0], Decision::Wait { reason, .. } if reason.code == "agent_offline"));
    assert_eq!(first.decisions[1], Decision::Proceed);
    for _ in 0..40 {
        world.step();
    }
    assert_eq!(world.rollout.state, State::Done, "and it has its turn when it is back");
}

#[test]
fn deadlines_leave_room_for_the_trial_and_its_way_back() {
    let terms = Terms { switch_in_s: 0, contact_deadline_s: 300, unattended: false, trial_max_s: 0 };
    assert_eq!(deadline(Step::Ordered, 0, 0, &terms), SILENT_AFTER_S);
    assert_eq!(deadline(Step::Ordered, 0, 590, &terms), ACCEPT_S, "an agent that polls but never accepts");
    assert!(deadline(Step::Trial, 100, 100, &terms) > 100 + 300);
    assert!(deadline(Step::Downloading, 0, 10_000, &terms) > 10_000 + 300, "it may switch right after its last word");
    let unattended = Terms { unattended: true, trial_max_s: 86_400, ..terms };
    assert!(deadline(Step::Trial, 0, 0, &unattended) > 86_400);
    let window = Terms { switch_in_s: 86_400, ..terms };
    assert!(deadline(Step::Waiting, 0, 86_390, &window) > 86_400, "it waits for its window and polls");
    assert_eq!(deadline(Step::Trial, u64::MAX, u64::MAX, &terms), u64::MAX, "no number breaks it");
}
