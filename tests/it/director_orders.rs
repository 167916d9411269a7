//! Roll-outs over the registry: time and reports are arguments, nothing is a process.

use vmetric::core::hex;
use vmetric::core::product::AGENT;
use vmetric::core::release::Artifact;
use vmetric::core::rollout::{InFlight, OFFLINE_AFTER_S};
use vmetric::core::trust::Withdrawn;
use vmetric::director::cancel::{Cancel, CancelDone};
use vmetric::director::orders::Assign;
use vmetric::director::registry::Registry;
use vmetric::director::releases::Releases;
use vmetric::director::store::{Change, Store};
use vmetric::wire::agent_api::{AnswerWire, EnrollWire, OrderWire, PROTOCOL, ReportWire, ResultWire};

/// Enough for an agent's trial and its way back.
const LONG_S: u64 = 3_600;

pub struct World {
    pub registry: Registry,
    pub releases: Releases,
    pub now: u64,
    /// Everything that was written so far.
    disk: Vec<Change>,
}

pub fn sha(version: &str) -> String {
    hex::encode(&hex::sha256(version.as_bytes()))
}

fn artifact(version: &str, platform: &str) -> Artifact {
    Artifact {
        path: format!("vmetric-agent/{version}/{platform}/vmetric-agent").parse().unwrap(),
        length: 1_000,
        sha256: hex::sha256(version.as_bytes()),
        min_version: None,
        counter: 0,
        build_keyid: String::new(),
        build_sig: [0; 64],
    }
}

/// The file of a version for this machine's platform.
pub fn artifact_here(version: &str) -> Artifact {
    artifact(version, &vmetric::core::release::Platform::here().to_string())
}

/// Both derives of miniserde bring a `default`; this is the usual one.
fn blank<T: Default>() -> T {
    Default::default()
}

impl World {
    /// Agents `a0`, `a1`, ... that run 1.0.0.
    pub fn new(agents: usize) -> World {
        let releases = Releases { artifacts: ["1.0.0", "2.0.0", "2.1.0"].map(|v| artifact(v, "linux-amd64")).to_vec(), ..blank() };
        let mut world = World { registry: Registry::default(), releases, now: 1_000_000, disk: Vec::new() };
        world.registry.issuer = "issuer-1".into();
        world.registry.started_at = world.now;
        world.registry.create_token("t", 100_000, 86_400, world.now).unwrap();
        for n in 0..agents {
            world.enroll(&format!("a{n}"), "linux", "1.0.0");
        }
        world
    }

    pub fn enroll(&mut self, id: &str, os: &str, version: &str) {
        let wire = EnrollWire { token: "t".into(), os: os.into(), architecture: "amd64".into(), version: version.into(), ..blank() };
        self.registry.enroll(&wire, id, self.now).unwrap();
        let report = self.report_of(id, version);
        self.registry.hear(id, &ReportWire { os: os.into(), ..report }, self.now);
    }

    pub fn report_of(&self, id: &str, version: &str) -> ReportWire {
        ReportWire {
            protocol: PROTOCOL,
            agent_id: id.into(),
            os: "linux".into(),
            architecture: "amd64".into(),
            version: version.into(),
            running_sha256: sha(version),
            running_as: "confirmed".into(),
            step: "idle".into(),
            ..blank()
        }
    }

    pub fn assign(&mut self, ask: &Assign) -> u64 {
        let id = self.registry.assign(ask, &self.releases, self.now).unwrap();
        self.plan();
        id
    }

    pub fn plan(&mut self) -> Vec<String> {
        self.registry.advance_all(&self.releases, self.now)
    }

    pub fn hear(&mut self, report: &ReportWire) -> AnswerWire {
        self.registry.hear(&report.agent_id, report, self.now);
        self.plan();
        self.registry.answer(&report.agent_id, report, 1, self.now)
    }

    /// The order that an idle agent is told.
    pub fn order(&mut self, id: &str) -> Option<OrderWire> {
        self.hear(&self.report_of(id, "1.0.0").clone()).order
    }

    pub fn about(&self, order: &OrderWire, id: &str, step: &str) -> ReportWire {
        ReportWire { issuer: order.issuer.clone(), generation: order.generation, step: step.into(), ..self.report_of(id, "1.0.0") }
    }

    pub fn trial(&self, order: &OrderWire, id: &str) -> ReportWire {
        ReportWire {
            running_as: "trial".into(),
            version: order.version.clone(),
            running_sha256: order.sha256.clone(),
            trial_nonce: Some("ab".repeat(16)),
            trial_sha256: Some(order.sha256.clone()),
            ..self.about(order, id, "trial")
        }
    }

    pub fn ended(&self, order: &OrderWire, id: &str, outcome: &str) -> ReportWire {
        let runs = if outcome == "updated" { order.version.as_str() } else { "1.0.0" };
        let result = ResultWire {
            id: format!("{id}-{}-{outcome}", order.generation),
            issuer: order.issuer.clone(),
            generation: order.generation,
            outcome: outcome.into(),
            code: "code".into(),
            detail: "detail".into(),
            running_sha256: sha(runs),
            ..blank()
        };
        let report = self.report_of(id, runs);
        ReportWire { issuer: order.issuer.clone(), generation: order.generation, step: "reported".into(), result: Some(result), ..report }
    }

    /// The agent takes its order and ends it.
    pub fn finish(&mut self, id: &str, outcome: &str) {
        let order = self.order(id).unwrap_or_else(|| panic!("{id} has no order"));
        let report = self.ended(&order, id, outcome);
        assert!(self.hear(&report).result_taken.is_some());
    }

    /// The order that an agent was given last, as it got it.
    pub fn in_force(&self, id: &str) -> OrderWire {
        let (order, rollout) = self.registry.order_in_force(id).unwrap();
        order.wire(&self.registry.issuer, rollout, self.now)
    }

    /// The agent ends this order.
    pub fn finish_by(&mut self, order: &OrderWire, id: &str, outcome: &str) {
        let report = self.ended(order, id, outcome);
        assert!(self.hear(&report).result_taken.is_some());
    }

    pub fn state(&self, rollout: u64, id: &str) -> (String, String) {
        let order = &self.registry.orders[&(rollout, id.to_string())];
        (order.state.clone(), order.code.clone())
    }

    pub fn rollout(&self, id: u64) -> String {
        self.registry.rollouts[&id].state.clone()
    }

    pub fn codes(&self, id: &str) -> Vec<&str> {
        self.registry.recent.iter().filter(|e| e.agent == id).map(|e| e.code.as_str()).collect()
    }

    /// What a restart finds: everything through the store's own form.
    pub fn restart(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        let issuer = vmetric::director::site::Issuer { issuer: self.registry.issuer.clone() };
        let meta =
            Change { table: vmetric::director::store::Table::Meta, key: "issuer".into(), value: Some(miniserde::json::to_string(&issuer)) };
        store.queue(vec![meta]);
        self.disk.extend(self.registry.take_changes());
        store.queue(self.disk.clone());
        smol::block_on(store.commit()).unwrap();
        self.registry = vmetric::director::site::load(&store, self.now).unwrap();
    }
}

pub fn all(version: &str) -> Assign {
    Assign {
        agents: None,
        product: AGENT.name.into(),
        version: version.into(),
        in_flight: InFlight::Count(3),
        max_failures: 2,
        contact_deadline_s: 300,
        unattended: false,
        trial_max_s: 86_400,
        end_probation: false,
        retry: false,
        switch_in_s: 0,
        life_s: 86_400 * 30,
    }
}

#[test]
fn first_one_then_a_few_then_all() {
    let mut world = World::new(8);
    let id = world.assign(&all("2.0.0"));
    assert_eq!(world.state(id, "a0").0, "ordered");
    assert_eq!(world.state(id, "a1"), ("waiting_turn".into(), "first_agent".into()));
    assert!(world.order("a5").is_none());
    world.finish("a0", "updated");
    let moving: Vec<String> = (1..8).map(|n| format!("a{n}")).filter(|a| world.state(id, a).0 == "ordered").collect();
    assert_eq!(moving, ["a1", "a2", "a3"]);
    assert_eq!(world.state(id, "a4"), ("waiting_turn".into(), "in_flight_limit".into()));
    for n in 1..8 {
        world.finish(&format!("a{n}"), "updated");
    }
    assert_eq!(world.rollout(id), "done");
    assert!(world.registry.open.is_empty());
}

#[test]
fn too_many_failures_halt_and_quarantine_until_somebody_says_retry() {
    let mut world = World::new(9);
    let id = world.assign(&all("2.0.0"));
    world.finish("a0", "updated");
    for agent in ["a1", "a2"] {
        world.finish(agent, "rolled_back");
    }
    assert_eq!(world.rollout(id), "running");
    // The third one dies: nothing is heard of it, the others talk on.
    let silent = world.order("a3").unwrap();
    world.now += LONG_S;
    let waiting = world.order("a4");
    world.hear(&world.report_of("a8", "1.0.0").clone());
    assert_eq!((world.state(id, "a3").0.as_str(), world.rollout(id).as_str()), ("silent", "halted"));
    assert!(waiting.is_none_or(|o| o.kind == "cancel"), "whoever has not switched is stopped");
    assert_eq!(world.state(id, "a8"), ("waiting_turn".into(), "rollout_halted".into()));
    assert!(world.registry.rollouts[&id].detail.contains("2 rolled back"), "{}", world.registry.rollouts[&id].detail);

    // The same file is not tried on this group again, another one is.
    let again = world.assign(&all("2.0.0"));
    assert_eq!(world.state(again, "a8"), ("refused".into(), "quarantined".into()));
    assert_eq!(world.state(again, "a0").0, "already");
    let retry = world.assign(&Assign { retry: true, ..all("2.0.0") });
    assert_eq!(world.state(retry, "a8").1, "first_agent");

    // The dead one comes back with a late result: it is taken, nothing else happens.
    let late = world.ended(&silent, "a3", "rolled_back");
    assert!(world.hear(&late).result_taken.is_some());
    assert_eq!(world.rollout(id), "halted");
}

#[test]
fn flapping_counts_as_failure() {
    let mut world = World::new(3);
    let id = world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    world.finish("a0", "updated");
    let back = ReportWire { step: "idle".into(), ..world.report_of("a0", "1.0.0") };
    world.hear(&back);
    assert_eq!((world.state(id, "a0").0.as_str(), world.rollout(id).as_str()), ("flapping", "halted"));
    assert!(world.codes("a0").contains(&"version_changed"));
}

#[test]
fn a_person_at_the_device_is_no_failure() {
    let mut world = World::new(3);
    let id = world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    world.finish("a0", "updated");
    let manual = ReportWire { running_as: "manual".into(), ..world.report_of("a0", "3.0.0") };
    world.hear(&manual);
    assert_eq!((world.state(id, "a0").0.as_str(), world.rollout(id).as_str()), ("updated", "running"));
}

#[test]
fn a_person_who_replaces_the_image_during_a_trial_is_no_failure() {
    let mut world = World::new(3);
    let id = world.assign(&Assign { max_failures: 0, ..all("2.0.0") });
    let order = world.order("a0").unwrap();
    let mut report = world.ended(&order, "a0", "rolled_back");
    report.result.as_mut().unwrap().code = "manual_update".into();
    assert!(world.hear(&report).result_taken.is_some());
    let (state, code) = world.state(id, "a0");
    assert_eq!((state.as_str(), code.as_str(), world.rollout(id).as_str()), ("cancelled", "manual_update", "running"));
}

#[test]
fn who_is_not_there_or_cannot_does_not_hold_the_others() {
    let mut world = World::new(1);
    world.enroll("b0", "windows", "1.0.0");
    world.enroll("b1", "linux", "0.5.0");
    world.enroll("b2", "linux", "2.0.0");
    world.releases.artifacts[1].min_version = Some("1.0.0".parse().unwrap());
    let old = world.now;
    world.now += OFFLINE_AFTER_S + 1;
    world.enroll("c0", "linux", "1.0.0");
    let id = world.assign(&all("2.0.0"));
    assert_eq!(world.state(id, "a0"), ("waiting_turn".into(), "agent_offline".into()), "{old}");
    assert_eq!(world.state(id, "b0"), ("no_artifact".into(), "no_artifact".into()));
    assert_eq!(world.state(id, "b1"), ("no_artifact".into(), "min_version".into()));
    assert_eq!(world.state(id, "b2").0, "already");
    world.finish("c0", "updated");
    assert_eq!(world.rollout(id), "running");
    world.finish("a0", "updated");
    assert_eq!(world.rollout(id), "done");
}

#[test]
fn a_trial_is_acknowledged_by_whoever_holds_the_order() {
    let mut world = World::new(1);
    world.assign(&all("2.0.0"));
    let order = world.order("a0").unwrap();
    world.restart();
    let trial = world.trial(&order, "a0");
    assert_eq!(world.hear(&trial).acknowledged, trial.trial_nonce);
    for other in [
        ReportWire { trial_sha256: Some(sha("9.9.9")), ..trial.clone() },
        ReportWire { generation: order.generation + 1, ..trial.clone() },
        ReportWire { trial_nonce: Some("not hex".into()), ..trial.clone() },
        ReportWire { trial_nonce: Some("ab".repeat(4_000)), ..trial.clone() },
    ] {
        assert_eq!(world.hear(&other).acknowledged, None);
    }
    // A cancel comes too late for a trial: it still gets its acknowledgement, and its result counts.
    world.registry.cancel_agents(&["a0".into()], &Cancel::new("x"), world.now);
    let answer = world.hear(&trial);
    assert_eq!((answer.acknowledged, answer.order.map(|o| o.kind)), (trial.trial_nonce.clone(), Some("cancel".into())));
    let done = world.ended(&order, "a0", "updated");
    assert!(world.hear(&done).result_taken.is_some());
    assert_eq!(world.state(1, "a0").0, "updated");

    let mut world = World::new(1);
    world.assign(&all("2.0.0"));
    let order = world.order("a0").unwrap();
    let of_another = ReportWire { issuer: "another".into(), ..world.trial(&order, "a0") };
    assert_eq!(world.hear(&of_another).acknowledged, None);
}

#[test]
fn updated_counts_only_with_the_ordered_hash() {
    let mut world = World::new(1);
    let id = world.assign(&all("2.0.0"));
    let order = world.order("a0").unwrap();
    let mut lie = world.ended(&order, "a0", "updated");
    lie.running_sha256 = sha("1.0.0");
    assert!(world.hear(&lie).result_taken.is_some());
    assert_eq!(world.state(id, "a0"), ("rolled_back".into(), "runs_another_file".into()));
}

#[test]
fn a_rejected_file_that_is_tried_again_can_still_succeed() {
    let mut world = World::new(1);
    let id = world.assign(&all("2.0.0"));
    let order = world.order("a0").unwrap();
    let mut back = world.ended(&order, "a0", "rolled_back");
    let retry_at = world.now + 600;
    if let Some(result) = &mut back.result {
        (result.verdict, result.retry_at) = ("could_not_tell".into(), Some(retry_at));
    }
    world.hear(&back);
    assert_eq!((world.state(id, "a0").0.as_str(), world.rollout(id).as_str()), ("rolled_back", "done"));
    assert_eq!(world.registry.orders[&(id, "a0".into())].until, Some(retry_at));
    world.now = retry_at;
    let trial = world.trial(&order, "a0");
    assert_eq!(world.hear(&trial).acknowledged, trial.trial_nonce, "the same order, still in force");
    assert_eq!(world.state(id, "a0").0, "trial");
    let done = world.ended(&order, "a0", "updated");
    world.hear(&done);
    assert_eq!(world.state(id, "a0").0, "updated");
    assert!(world.registry.open.is_empty());
}

#[test]
fn generations_rise_above_everything() {
    let mut world = World::new(1);
    let restored = ReportWire { issuer: "issuer-1".into(), generation: 41, ..world.report_of("a0", "1.0.0") };
    assert!(world.hear(&restored).order.is_none());
    world.assign(&all("2.0.0"));
    assert_eq!(world.hear(&restored).order.unwrap().generation, 42, "the store came from a backup, the agent knows more");
    world.assign(&all("2.1.0"));
    let newer = world.hear(&restored).order.unwrap();
    assert_eq!((newer.version.as_str(), newer.kind.as_str()), ("2.1.0", "update"), "the newest order, not the cancel in between");
    assert!(newer.generation > 42);
    assert_eq!(world.state(1, "a0").0, "cancelled");
}

#[test]
fn a_new_assignment_waits_for_a_trial() {
    let mut world = World::new(1);
    world.assign(&all("2.0.0"));
    let order = world.order("a0").unwrap();
    let trial = world.trial(&order, "a0");
    world.hear(&trial);
    let next = world.assign(&all("2.1.0"));
    assert_eq!(world.state(next, "a0"), ("waiting_turn".into(), "earlier_order".into()));
    assert_eq!(world.hear(&trial).acknowledged, trial.trial_nonce);
    let done = world.ended(&order, "a0", "updated");
    world.hear(&done);
    assert_eq!(world.state(next, "a0").0, "ordered");
}

#[test]
fn a_cancel_ends_what_nobody_hears() {
    let mut world = World::new(2);
    let id = world.assign(&all("2.0.0"));
    world.order("a0").unwrap();
    let told = world.registry.cancel_rollout(id, &Cancel::new("x"), world.now).unwrap();
    assert_eq!((told.wake, world.rollout(id)), (vec!["a0".to_string()], "cancelled".to_string()));
    assert_eq!((world.state(id, "a0").0, world.state(id, "a1").0), ("cancelled".into(), "cancelled".into()));
    world.now += LONG_S;
    world.plan();
    assert_eq!(world.rollout(id), "cancelled", "and its silence is no failure");
    assert_eq!(world.order("a0").unwrap().kind, "cancel");
    let again = world.registry.cancel_rollout(id, &Cancel::new("x"), world.now).unwrap();
    assert_eq!(again, CancelDone::default(), "asking twice changes nothing and is no error");
}

#[test]
fn the_directors_own_absence_is_nobodys_silence() {
    let mut world = World::new(1);
    let id = world.assign(&all("2.0.0"));
    let order = world.order("a0").unwrap();
    let report = world.about(&order, "a0", "downloading");
    world.hear(&report);
    world.now += LONG_S;
    world.restart();
    world.plan();
    assert_eq!(world.state(id, "a0").0, "downloading");
    world.now += LONG_S;
    world.plan();
    assert_eq!(world.state(id, "a0").0, "silent");
    let report = world.about(&order, "a0", "downloading");
    world.hear(&report);
    assert_eq!(world.state(id, "a0").0, "downloading", "and it is welcome when it is back");
}

#[test]
fn a_withdrawn_release_goes_no_further_and_who_runs_it_is_named() {
    let mut world = World::new(4);
    world.finish_first();
    // a0 has it, a1 is on trial, a2 was told, a3 waits for its turn.
    let (two, three) = (world.order("a1").unwrap(), world.order("a2").unwrap());
    world.hear(&world.trial(&two, "a1").clone());
    world.hear(&world.about(&three, "a2", "downloading").clone());
    world.take_back("2.0.0", "eats data");
    let wake = world.plan();
    assert_eq!(wake, ["a2"], "only an agent that can still drop it hears of it, and the trial goes to its verdict");
    for (id, state, code) in [("a0", "updated", "code"), ("a2", "cancelled", "cancelled"), ("a3", "no_artifact", "withdrawn")] {
        assert_eq!(world.state(1, id), (state.to_string(), code.to_string()), "{id}");
    }
    assert!(world.registry.orders[&(1, "a2".into())].detail.contains("eats data"));
    assert!(world.registry.orders[&(1, "a3".into())].detail.contains("eats data"));
    assert_eq!(world.state(1, "a1").0, "trial");
    let cancel = world.order("a2").unwrap();
    assert_eq!(cancel.kind, "cancel");

    let named = |world: &World| world.registry.recent.iter().filter(|e| e.code == "running_withdrawn").count();
    assert_eq!(named(&world), 2, "a0 and the trial of a1");
    world.plan();
    assert_eq!(named(&world), 2, "each once");
    let view = world.registry.agents_view(world.now);
    assert_eq!(view.agents[0].withdrawn.as_deref(), Some("eats data"));
    assert_eq!(view.agents[3].withdrawn, None);
    let again = world.registry.assign(&all("2.0.0"), &world.releases, world.now).unwrap_err();
    assert!(again.code == "withdrawn" && again.detail.contains("eats data"), "{again}");
    assert_eq!(world.releases.resolve("vmetric-agent", "latest").unwrap().to_string(), "2.1.0");
}

impl World {
    /// Roll-out 1 of 2.0.0, two at once; its first agent is done.
    fn finish_first(&mut self) {
        self.assign(&Assign { in_flight: InFlight::Count(2), ..all("2.0.0") });
        self.finish("a0", "updated");
        let report = ReportWire { running_sha256: sha("2.0.0"), ..self.report_of("a0", "2.0.0") };
        self.hear(&report);
    }

    fn take_back(&mut self, version: &str, reason: &str) {
        let gone = self.releases.artifacts.iter().position(|a| a.path.version.to_string() == version).unwrap();
        let artifact = self.releases.artifacts.remove(gone);
        self.releases.withdrawn.push(Withdrawn { path: artifact.path, sha256: artifact.sha256, reason: reason.into() });
    }
}

#[test]
fn an_order_below_what_the_device_has_taken_is_given_anew() {
    let mut world = World::new(1);
    world.assign(&all("2.0.0"));
    let first = world.order("a0").unwrap();
    // The store is an old backup: the device has taken five more orders since, and one of them is on trial.
    let later = OrderWire { generation: first.generation + 5, sha256: sha("2.1.0"), version: "2.1.0".into(), ..first.clone() };
    assert!(world.hear(&world.trial(&later, "a0")).order.is_none(), "a trial takes no order");
    let idle = world.about(&later, "a0", "idle");
    let anew = world.hear(&idle).order.unwrap();
    assert_eq!((anew.generation, &anew.sha256, &anew.kind), (later.generation + 1, &first.sha256, &first.kind));
    assert_eq!(world.hear(&idle).order.unwrap().generation, anew.generation, "given once, offered until it is taken");
    // From here on it is an order like any other.
    assert!(world.hear(&world.about(&anew, "a0", "accepted")).order.is_none());
}
