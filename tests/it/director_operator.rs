//! The operator's way out: cancel, retry, reject, allow, explain, over the real registry; time and reports are arguments.

use vmetric::core::rollout::{End, InFlight, ROLLOUT_LIFE_S, Step};
use vmetric::director::cancel::Cancel;
use vmetric::director::orders::Assign;
use vmetric::director::quarantine::Reject;
use vmetric::director::retry::Whom;
use vmetric::director::role::DIRECTOR;
use vmetric::wire::agent_api::{RejectWire, ReportWire};

use crate::director_orders::{World, all, sha};

fn reject(version: &str, agents: &[&str]) -> Reject {
    let agents = (!agents.is_empty()).then(|| agents.iter().map(|a| a.to_string()).collect());
    Reject { sha256: sha(version), version: version.into(), agents, for_s: None, why: "too hot".into() }
}

fn agent(id: &str) -> Whom {
    Whom::Agents(vec![id.into()])
}

impl World {
    /// Brings `a0` to this step of roll-out 1.
    fn at(step: Step) -> World {
        let mut world = World::new(1);
        world.assign(&all("2.0.0"));
        if step == Step::Ordered {
            return world;
        }
        let order = world.order("a0").unwrap();
        let report = match step {
            Step::Accepted => world.about(&order, "a0", "looking"),
            Step::Trial => world.trial(&order, "a0"),
            step => world.about(&order, "a0", step.word()),
        };
        world.hear(&report);
        assert_eq!(world.state(1, "a0").0, step.word());
        world
    }

    fn retry(&mut self, whom: &Whom) -> vmetric::director::retry::RetryView {
        let view = self.registry.retry(whom, &self.releases, self.now).unwrap();
        self.plan();
        view
    }

    fn explain(&self, id: &str) -> vmetric::director::explain::ExplainView {
        self.registry.explain(id, &self.releases, 1, self.now).unwrap()
    }
}

#[test]
fn cancel_works_in_every_state_and_twice_is_no_error() {
    for step in Step::ALL {
        for whole in [false, true] {
            let mut world = World::at(step);
            let mut cancel = |roll_back: bool| match whole {
                true => world.registry.cancel_rollout(1, &Cancel { roll_back, ..Cancel::new("x") }, world.now).unwrap(),
                false => world.registry.cancel_agents(&["a0".into()], &Cancel { roll_back, ..Cancel::new("x") }, world.now),
            };
            let done = cancel(false);
            assert_eq!(done.wake, ["a0"], "{step:?}");
            assert_eq!((done.view.cancelled == 1, done.view.on_trial.len() == 1), (!step.has_switched(), step.has_switched()), "{step:?}");
            let again = cancel(false);
            assert!(again.wake.is_empty() && again.view.cancelled == 0 && again.view.on_trial.is_empty(), "{step:?}");
            let back = cancel(true);
            assert_eq!(back.view.going_back.len() == 1, step.has_switched(), "{step:?}: a trial can still be sent back");
            assert!(cancel(true).wake.is_empty(), "{step:?}");
            let ended = world.registry.orders[&(1, "a0".to_string())].end();
            assert_eq!(ended, (!step.has_switched()).then_some(End::Cancelled), "{step:?}");
        }
    }
}

#[test]
fn a_refused_trial_goes_back_and_is_no_failure() {
    let mut world = World::new(3);
    world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    let order = world.order("a0").unwrap();
    let trial = world.trial(&order, "a0");
    world.registry.cancel_agents(&["a0".into()], &Cancel { roll_back: true, ..Cancel::new("x") }, world.now);
    let answer = world.hear(&trial);
    assert_eq!((answer.acknowledged, answer.trial_refused), (None, trial.trial_nonce.clone()));
    world.restart();
    assert_eq!(world.hear(&trial).trial_refused, trial.trial_nonce, "a restart forgets nothing");
    let back = world.ended(&order, "a0", "rolled_back");
    assert!(world.hear(&back).result_taken.is_some());
    assert_eq!((world.state(1, "a0").0.as_str(), world.rollout(1).as_str()), ("cancelled", "running"), "no failure: nothing is halted");
    // It was confirmed before it heard: the truth counts.
    let mut world = World::at(Step::Trial);
    let order = world.registry.orders[&(1, "a0".to_string())].clone();
    world.registry.cancel_agents(&["a0".into()], &Cancel { roll_back: true, ..Cancel::new("x") }, world.now);
    let order = order.wire("issuer-1", &world.registry.rollouts[&1].clone(), world.now);
    let done = world.ended(&order, "a0", "updated");
    world.hear(&done);
    assert_eq!(world.state(1, "a0").0, "updated");
}

#[test]
fn retry_passes_a_halt_and_the_devices_own_rejection_once() {
    let mut world = World::new(4);
    world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    world.finish("a0", "rolled_back");
    assert_eq!((world.rollout(1).as_str(), world.state(1, "a1").1.as_str()), ("halted", "rollout_halted"));
    let again = world.assign(&all("2.0.0"));
    assert_eq!(world.state(again, "a1"), ("refused".into(), "quarantined".into()));
    // One agent at first; the others stay where they are.
    let view = world.retry(&agent("a0"));
    assert_eq!((view.rollouts.len(), view.rollouts[0].group), (1, 1));
    assert_eq!(world.retry(&agent("a0")).left_out[0].code, "under_way", "asking twice makes no second order");
    let order = world.order("a0").unwrap();
    assert!(order.retry, "the device lifts its own rejection");
    world.finish("a0", "updated");
    assert_eq!(world.retry(&agent("a0")).left_out[0].code, "runs_it");
    assert!(world.registry.quarantined(&sha("2.0.0"), "a1", false, world.now).is_some());
    // Now everybody who was left out.
    let view = world.retry(&Whom::Everybody);
    assert_eq!(view.rollouts.iter().map(|r| r.group).sum::<u64>(), 3);
    for id in ["a1", "a2", "a3"] {
        world.finish(id, "updated");
    }
    assert!(world.retry(&Whom::Everybody).rollouts.is_empty());
}

#[test]
fn retry_of_a_halted_roll_out_is_its_release() {
    let mut world = World::new(5);
    world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    world.finish("a0", "updated");
    world.finish("a1", "rolled_back");
    assert_eq!(world.rollout(1), "halted");
    let view = world.retry(&Whom::Rollout(1));
    assert_eq!((view.rollouts[0].group, view.left_out.len()), (4, 1), "{view:?}");
    assert!(world.registry.quarantine.is_empty(), "the quarantine is lifted with it");
    for id in ["a1", "a2", "a3", "a4"] {
        world.finish(id, "updated");
    }
    assert_eq!(world.rollout(2), "done");
    let view = world.retry(&Whom::Rollout(1));
    assert!(view.rollouts.is_empty(), "{view:?}");
}

#[test]
fn a_rejected_file_is_withdrawn_in_every_state() {
    for step in Step::ALL {
        let mut world = World::at(step);
        let order = world.registry.orders[&(1, "a0".to_string())].wire("issuer-1", &world.registry.rollouts[&1].clone(), world.now);
        let (view, wake) = world.registry.reject(&reject("2.0.0", &[]), world.now).unwrap();
        assert_eq!((view.withdrawn, view.going_back.len()), if step.has_switched() { (0, 1) } else { (1, 0) }, "{step:?}");
        assert_eq!((wake, view.already), (vec!["a0".to_string()], false));
        let report = if step == Step::Trial { world.trial(&order, "a0") } else { world.about(&order, "a0", step.word()) };
        let answer = world.hear(&report);
        assert_eq!(answer.order.unwrap().kind, "cancel", "{step:?}");
        assert_eq!((answer.acknowledged, answer.trial_refused.is_some()), (None, step == Step::Trial));
        let (again, wake) = world.registry.reject(&reject("2.0.0", &[]), world.now).unwrap();
        assert!(again.already && wake.is_empty() && again.withdrawn == 0, "{step:?}: twice changes nothing");
    }
}

#[test]
fn what_a_person_rejected_only_a_person_allows() {
    let mut world = World::new(3);
    world.registry.by = Some("uid 7".into());
    let (view, _) = world.registry.reject(&reject("2.0.0", &[]), world.now).unwrap();
    assert!(view.running.is_empty());
    world.restart();
    let id = world.assign(&Assign { retry: true, ..all("2.0.0") });
    assert_eq!(world.state(id, "a0"), ("refused".into(), "quarantined".into()), "--retry does not pass it");
    let detail = world.registry.orders[&(id, "a0".to_string())].detail.clone();
    assert!(detail.contains("uid 7") && detail.contains("too hot") && detail.contains("vmetric-director allow"), "{detail}");
    assert_eq!(world.retry(&agent("a0")).rollouts.len(), 1, "a refused row has no file; the plan refuses it again");
    assert_eq!(world.state(id + 1, "a0").1, "quarantined");
    // One agent may have it.
    let view = world.registry.allow(&sha("2.0.0"), Some(&["a1".into()]), "canary", world.now).unwrap();
    assert_eq!(view.lifted, 1);
    assert_eq!(world.registry.allow(&sha("2.0.0"), Some(&["a1".into()]), "canary", world.now).unwrap().lifted, 0);
    let id = world.assign(&all("2.0.0"));
    assert_eq!((world.state(id, "a0").0, world.state(id, "a1").0), ("refused".into(), "ordered".into()));
    // And then all.
    assert_eq!(world.registry.allow(&sha("2.0.0"), None, "", world.now).unwrap().lifted, 2);
    assert_eq!(world.registry.allow(&sha("2.0.0"), None, "", world.now).unwrap().lifted, 0);
    world.finish("a1", "updated");
    let id = world.assign(&all("2.0.0"));
    assert_eq!(world.state(id, "a0").0, "ordered");
}

#[test]
fn a_rejection_has_scope_and_end() {
    let mut world = World::new(2);
    let week = 7 * 86_400;
    world.registry.reject(&Reject { for_s: Some(week), ..reject("2.0.0", &["a0"]) }, world.now).unwrap();
    assert!(world.registry.quarantined(&sha("2.0.0"), "a0", true, world.now).is_some());
    assert!(world.registry.quarantined(&sha("2.0.0"), "a1", true, world.now).is_none());
    assert!(world.registry.quarantined(&sha("2.1.0"), "a0", true, world.now).is_none());
    assert!(world.registry.quarantined(&sha("2.0.0"), "a0", true, world.now + week).is_none());
    world.registry.prune_quarantine(world.now + week);
    assert!(world.registry.quarantine.is_empty());
    assert_eq!(world.registry.reject(&reject("2.0.0", &["nobody"]), world.now).unwrap_err().code, "agent_unknown");
    // Who runs it is told and left alone.
    world.assign(&Assign { agents: Some(vec!["a1".into()]), ..all("2.0.0") });
    world.finish("a1", "updated");
    let (view, wake) = world.registry.reject(&reject("2.0.0", &[]), world.now).unwrap();
    assert_eq!((view.running, wake.len()), (vec!["a1".to_string()], 0));
    assert_eq!(world.state(1, "a1").0, "updated");
}

#[test]
fn hashes_are_named_by_their_beginning() {
    let world = World::new(1);
    let whole = sha("2.0.0");
    let file = |text: &str| world.registry.file(text, &world.releases).map(|f| f.0).map_err(|r| r.code.to_string());
    assert_eq!(file(&whole), Ok(whole.clone()));
    assert_eq!(file(&whole[..8]), Ok(whole.clone()));
    assert_eq!(file(&format!("sha256:{}", whole[..12].to_uppercase())), Ok(whole.clone()));
    assert_eq!(file(&"0".repeat(64)), Ok("0".repeat(64)), "a file that nobody here knows can be rejected beforehand");
    for (text, code) in [("1234567", "hash_invalid"), ("not hexadecimal", "hash_invalid"), ("00000000", "hash_unknown")] {
        assert_eq!(file(text), Err(code.into()), "{text}");
    }
}

#[test]
fn nothing_waits_for_ever() {
    let mut world = World::new(2);
    world.now += 1_000;
    world.hear(&world.report_of("a0", "1.0.0").clone());
    let id = world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    assert_eq!(world.state(id, "a1").1, "agent_offline");
    world.finish("a0", "updated");
    world.now += ROLLOUT_LIFE_S + 1;
    world.plan();
    assert_eq!((world.state(id, "a1").0.as_str(), world.rollout(id).as_str()), ("expired", "done"));
    assert!(world.order("a1").is_none(), "a device that comes back after a year is not surprised");
}

#[test]
fn every_state_that_is_not_over_shows_owner_deadline_and_reason() {
    let mut shown = Vec::new();
    let mut look = |world: &World, id: &str, what: &str| {
        let e = world.explain(id);
        let a = &e.agent;
        assert!(a.owner.is_some(), "{what}: no owner: {a:?}");
        assert!(a.deadline.is_some_and(|at| at > world.now), "{what}: no deadline: {a:?}");
        assert!(!a.code.is_empty() && !a.detail.is_empty(), "{what}: no reason: {a:?}");
        assert!(e.then.is_some() || a.state == "enrolled", "{what}: what happens then");
        assert!(!e.remedies.is_empty(), "{what}: nothing can be done");
        shown.push((a.state.clone(), a.code.clone()));
    };
    for step in Step::ALL {
        look(&World::at(step), "a0", step.word());
    }
    // What waits for its turn, for each reason.
    let mut world = World::new(4);
    world.assign(&Assign { max_failures: 0, in_flight: InFlight::Count(1), ..all("2.0.0") });
    look(&world, "a1", "first_agent");
    world.finish("a0", "updated");
    look(&world, "a2", "in_flight_limit");
    let order = world.order("a1").unwrap();
    let trial = world.trial(&order, "a1");
    world.hear(&trial);
    world.assign(&Assign { agents: Some(vec!["a1".into()]), ..all("2.1.0") });
    look(&world, "a1", "earlier_order");
    let back = world.ended(&order, "a1", "rolled_back");
    world.hear(&back);
    look(&world, "a3", "rollout_halted");
    let halted = world.registry.rollouts_view(world.now).rollouts.into_iter().find(|r| r.state == "halted").unwrap();
    assert_eq!((halted.owner.as_deref(), halted.deadline.is_some()), (Some("operator"), true));
    let mut world = World::new(2);
    world.now += 1_000;
    world.hear(&world.report_of("a0", "1.0.0").clone());
    world.assign(&all("2.0.0"));
    look(&world, "a1", "agent_offline");
    // Tried again by the device itself; ordered again by the Director.
    let order = world.order("a0").unwrap();
    let mut back = world.ended(&order, "a0", "rolled_back");
    back.result.as_mut().unwrap().retry_at = Some(world.now + 600);
    world.hear(&back);
    look(&world, "a0", "retry pending");
    let mut world = World::new(1);
    world.assign(&all("2.0.0"));
    world.finish("a0", "updated");
    for n in 0..2 {
        let mut lost = world.ended(&world.in_force("a0"), "a0", "rolled_back");
        let result = lost.result.as_mut().unwrap();
        (result.code, result.verdict, result.sha256) = ("slot_damaged".into(), "could_not_tell".into(), sha("2.0.0"));
        result.id = format!("lost{n}");
        (lost.running, lost.running_as) = ("factory".into(), "factory".into());
        world.hear(&lost);
        if n == 0 {
            world.finish("a0", "updated");
        }
    }
    look(&world, "a0", "repair pending");
    // Enrolled, and never heard of.
    let mut world = World::new(0);
    let wire = vmetric::wire::agent_api::EnrollWire { token: "t".into(), ..Default::default() };
    world.registry.enroll(&wire, "b", world.now).unwrap();
    look(&world, "b", "never_reported");
    for code in ["first_agent", "in_flight_limit", "earlier_order", "rollout_halted", "agent_offline", "never_reported"] {
        assert!(shown.iter().any(|(_, c)| c == code), "{code} was not among {shown:?}");
    }
    for step in Step::ALL {
        assert!(shown.iter().any(|(s, _)| s == step.word()));
    }
}

#[test]
fn explain_names_the_whole_way_out() {
    let mut world = World::new(3);
    world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    let order = world.order("a0").unwrap();
    let mut back = world.ended(&order, "a0", "rolled_back");
    back.rejects = Some(vec![RejectWire { sha256: sha("2.0.0"), version: "2.0.0".into(), verdict: "bad".into(), ..Default::default() }]);
    world.hear(&back);
    let e = world.explain("a0");
    assert_eq!((e.desired_version.as_deref(), e.agent.version.as_str(), e.fulfilled), (Some("2.0.0"), "1.0.0", false));
    assert_eq!(e.rollout_state.as_deref(), Some("halted"));
    assert!(e.last_result.as_ref().is_some_and(|r| r.outcome == "rolled_back" && r.detail == "detail"));
    assert_eq!(e.rejects[0].verdict, "bad");
    assert!(e.remedies.iter().any(|r| r.command == "vmetric-director retry --agent a0"), "{:?}", e.remedies);
    assert!(e.quarantined.is_some_and(|q| q.contains("halted roll-out 1")));
    let view = world.registry.allow(&sha("2.0.0"), None, "", world.now).unwrap();
    assert_eq!(view.own, ["a0"], "the device itself still says no: only a retry passes that");
    let text = vmetric::director::shown::explain(&world.explain("a1"), &DIRECTOR);
    for word in ["should run", "2.0.0", "halted", "retry --rollout 1", "next move", "operator", "until"] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    assert_eq!(world.registry.named_agent("a").unwrap_err().code, "agent_ambiguous");
    assert_eq!(world.registry.named_agent("x").unwrap_err().code, "agent_unknown");
}

#[test]
fn limits_are_held_against_the_real_group() {
    let world = World::new(3);
    let check = |max_failures| world.registry.check_limits(&Assign { max_failures, ..all("2.0.0") }).map_err(|r| r.code.to_string());
    assert_eq!(check(2), Ok(()));
    assert_eq!(check(3), Err("max_failures_too_high".into()), "it could never halt");
    for limit in ["100", "100%", "1", "1%"] {
        let mut world = World::new(3);
        let id = world.assign(&Assign { in_flight: limit.parse().unwrap(), ..all("2.0.0") });
        for n in 0..3 {
            world.finish(&format!("a{n}"), "updated");
        }
        assert_eq!(world.rollout(id), "done", "{limit}: no group is too small to move");
        assert!(world.registry.rollouts[&id].max_in_flight <= 3, "{limit}");
    }
}

#[test]
fn agents_are_shown_with_what_needs_somebody_first() {
    use vmetric::director::args::Filter;
    let mut world = World::new(30);
    world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    world.finish("a0", "updated");
    world.finish("a1", "rolled_back");
    let busy = ReportWire { step: "waiting".into(), code: "disk_full".into(), ..world.report_of("a5", "1.0.0") };
    world.hear(&busy);
    let view = world.registry.agents_view(world.now);
    let text = vmetric::director::shown::agents(&view, &Filter::default(), false, &DIRECTOR);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].contains("[operator, 30 d left]") && lines[1].contains("waiting_turn"), "{}", lines[1]);
    assert!(lines[0].starts_with("AGENT") && !lines[0].contains("PLATFORM"), "one platform needs no column");
    assert!(text.contains("30 agents; 29 run 1.0.0, 1 run 2.0.0; 26 wait for you; 1 failed"), "{text}");
    assert!(lines.iter().all(|l| l.chars().count() < 200), "{text}");
    let screen = vmetric::director::shown::agents(&view, &Filter::default(), true, &DIRECTOR);
    assert!(screen.lines().count() < 20 && screen.contains("... and 16 more on 1.0.0, waiting_turn, rollout_halted"), "{screen}");
    let only = |filter: Filter| vmetric::director::shown::chosen(view.clone(), &filter).agents.len();
    assert_eq!(only(Filter { state: Some("rolled_back".into()), ..Filter::default() }), 1);
    assert_eq!(only(Filter { version: Some("2.0.0".into()), ..Filter::default() }), 1);
    assert_eq!(only(Filter { why: Some("rollout_halted".into()), ..Filter::default() }), 26);
    let none = vmetric::director::shown::agents(&view, &Filter { why: Some("nothing".into()), ..Filter::default() }, true, &DIRECTOR);
    assert_eq!(none, "none of 30 agents fits\n");
}
