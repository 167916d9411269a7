//! What an update of this Director did, step by step: kept on the disk until the activity has it, for the process that began
//! a step is often not the one that sees its end.

use miniserde::{Deserialize, Serialize};

use crate::agent::duties::Note;
use crate::core::reason::Reason;
use crate::core::stage::Stage;
use crate::core::update::Order;
use crate::io::state::State;
use crate::wire::agent_api::ResultWire;

/// The file in the state folder.
pub const FILE: &str = "own/steps.json";
/// Steps that are kept: more than two updates have, and a Director whose store cannot be written keeps the newest.
pub const KEPT: usize = 48;

/// One step.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct StepWire {
    /// Rises by one.
    pub seq: u64,
    /// Issuer and generation of the order.
    pub update: String,
    /// The ordered version.
    pub version: String,
    /// The order's generation.
    pub generation: u64,
    /// The specification's name; empty: the update as a whole.
    pub step: String,
    /// Stable code.
    pub code: String,
    /// Seconds since 1970.
    pub began: u64,
    /// The same, once it is over.
    pub ended: Option<u64>,
    /// `ok`, `failed`, `superseded`.
    pub result: Option<String>,
    /// Stable code of the reason, when it failed.
    pub reason: Option<String>,
    /// One sentence.
    pub detail: String,
}

/// The file.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
struct JournalWire {
    next: u64,
    steps: Vec<StepWire>,
}

/// The steps that the activity does not have yet.
pub struct Journal {
    state: State,
    wire: JournalWire,
    /// How a step of an update ended last, so that a try that ends as the one before says nothing new.
    told: Vec<(String, &'static str, String)>,
}

impl Journal {
    /// As the disk has it.
    pub fn open(state: &State) -> Journal {
        let wire = state.read(FILE).unwrap_or_else(|reason| {
            log::warn!("{reason}");
            None
        });
        Journal { state: state.clone(), wire: wire.unwrap_or_default(), told: Vec::new() }
    }

    /// Takes in what happened, at this time.
    pub fn note(&mut self, note: Note, now: u64) {
        match note {
            Note::Triggered(order) => {
                let key = key(&order.issuer, order.generation);
                self.close(now, |s| s.update != key, "superseded", None, "another order took its place");
                let detail = format!("{} with sha256 {}", order.target, crate::core::hex::encode(&order.sha256));
                self.whole(order, "update_triggered", "ok", None, detail, now);
            }
            Note::Begins(order, stage) => {
                let key = key(&order.issuer, order.generation);
                if self.open_step(&key, stage).is_some() {
                    return;
                }
                let step = StepWire { step: stage.name().into(), code: stage.code().into(), began: now, ..blank(order, key) };
                self.push(step);
            }
            Note::Done(order, stage, detail) => {
                let key = key(&order.issuer, order.generation);
                self.told.retain(|(k, code, _)| *k != key || *code != stage.code());
                self.close(now, |s| s.update == key && s.code == stage.code(), "ok", None, &detail);
            }
            Note::Stopped(order, stage, reason) => {
                let key = key(&order.issuer, order.generation);
                let same = (key.clone(), stage.code(), reason.code.to_string());
                if self.told.contains(&same) {
                    // Tried again with the same end: the try before has told it.
                    self.wire.steps.retain(|s| s.ended.is_some() || s.update != key || s.code != stage.code());
                } else {
                    self.told.retain(|(k, code, _)| *k != key || *code != stage.code());
                    self.told.push(same);
                    self.close(now, |s| s.update == key && s.code == stage.code(), "failed", Some(&reason), &reason.detail);
                }
            }
            Note::Ended(result) => self.end(result, now),
        }
        self.save();
    }

    fn end(&mut self, result: &ResultWire, now: u64) {
        let key = key(&result.issuer, result.generation);
        let won = matches!(result.outcome.as_str(), "updated" | "already");
        let reason = Reason::received(result.code.clone(), result.detail.clone());
        let (word, why) = if won { ("ok", None) } else { ("failed", Some(&reason)) };
        self.close(now, |s| s.update == key, word, why, &result.detail);
        self.told.retain(|(k, _, _)| *k != key);
        let code = if result.outcome == "updated" { "confirmed" } else { result.outcome.as_str() };
        let step = StepWire {
            code: code.into(),
            began: now,
            ended: Some(now),
            result: Some(word.into()),
            reason: why.map(|r| r.code.to_string()),
            detail: result.detail.clone(),
            update: key,
            version: result.version.clone(),
            generation: result.generation,
            ..Default::default()
        };
        self.push(step);
    }

    fn whole(&mut self, order: &Order, code: &str, result: &str, reason: Option<&Reason>, detail: String, now: u64) {
        let step = StepWire {
            code: code.into(),
            began: now,
            ended: Some(now),
            result: Some(result.into()),
            reason: reason.map(|r| r.code.to_string()),
            detail,
            ..blank(order, key(&order.issuer, order.generation))
        };
        self.push(step);
    }

    fn open_step(&self, key: &str, stage: Stage) -> Option<&StepWire> {
        self.wire.steps.iter().find(|s| s.ended.is_none() && s.update == key && s.code == stage.code())
    }

    fn close(&mut self, now: u64, which: impl Fn(&StepWire) -> bool, result: &str, reason: Option<&Reason>, detail: &str) {
        for step in self.wire.steps.iter_mut().filter(|s| s.ended.is_none() && which(s)) {
            (step.ended, step.result) = (Some(now), Some(result.into()));
            (step.reason, step.detail) = (reason.map(|r| r.code.to_string()), detail.into());
        }
    }

    fn push(&mut self, mut step: StepWire) {
        step.seq = self.wire.next;
        self.wire.next += 1;
        self.wire.steps.push(step);
        let surplus = self.wire.steps.len().saturating_sub(KEPT);
        self.wire.steps.drain(..surplus);
    }

    fn save(&self) {
        if let Err(reason) = self.state.write(FILE, &self.wire) {
            log::warn!("{reason}");
        }
    }

    /// What has come to an end and is not in the activity yet.
    pub fn ended(&self) -> Vec<StepWire> {
        self.wire.steps.iter().filter(|s| s.ended.is_some()).cloned().collect()
    }

    /// The step that is under way.
    pub fn current(&self) -> Option<StepWire> {
        self.wire.steps.iter().rev().find(|s| s.ended.is_none()).cloned()
    }

    /// The activity has these for good.
    pub fn forget(&mut self, seqs: &[u64]) {
        self.wire.steps.retain(|s| s.ended.is_none() || !seqs.contains(&s.seq));
        self.save();
    }
}

fn key(issuer: &str, generation: u64) -> String {
    format!("{issuer}/{generation}")
}

fn blank(order: &Order, update: String) -> StepWire {
    StepWire { update, version: order.target.version.to_string(), generation: order.generation, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::product::DIRECTOR;
    use crate::core::update::Kind;

    fn order(generation: u64) -> Order {
        Order {
            issuer: "fleet".into(),
            generation,
            kind: Kind::Update,
            target: "vmetric-director/2.0.0/linux-amd64/vmetric-director".parse().unwrap(),
            sha256: [2; 32],
            length: 3,
            switch_in_s: 0,
            contact_deadline_s: 300,
            unattended: false,
            trial_max_s: 3600,
            end_probation: false,
            retry: false,
            keep_staged: false,
        }
    }

    fn said(journal: &Journal) -> Vec<String> {
        let word =
            |s: &StepWire| format!("{} {} {}", s.code, s.result.clone().unwrap_or("open".into()), s.reason.clone().unwrap_or_default());
        journal.wire.steps.iter().map(|s| word(s).trim_end().to_string()).collect()
    }

    #[test]
    fn a_step_outlives_the_process_that_began_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_of(&DIRECTOR, dir.path()).unwrap();
        let order = order(1);
        let mut journal = Journal::open(&state);
        journal.note(Note::Triggered(&order), 10);
        journal.note(Note::Begins(&order, Stage::Deployment), 11);
        journal.note(Note::Done(&order, Stage::Deployment, "slot a".into()), 12);
        journal.note(Note::Begins(&order, Stage::Start), 12);
        let mut journal = Journal::open(&state);
        assert_eq!(said(&journal), ["update_triggered ok", "deployment ok", "service_start open"]);
        journal.note(Note::Begins(&order, Stage::Start), 20);
        let result = ResultWire {
            outcome: "rolled_back".into(),
            code: "crashed_or_hung".into(),
            detail: "ended 2 times".into(),
            issuer: "fleet".into(),
            generation: 1,
            version: "2.0.0".into(),
            ..Default::default()
        };
        journal.note(Note::Ended(&result), 30);
        assert_eq!(
            said(&journal)[2..],
            ["service_start failed crashed_or_hung".to_string(), "rolled_back failed crashed_or_hung".to_string()]
        );
        let start = &journal.ended()[2];
        assert_eq!((start.began, start.ended, start.step.as_str()), (12, Some(30), "Service Start"));
        let seqs: Vec<u64> = journal.ended().iter().map(|s| s.seq).collect();
        journal.forget(&seqs);
        assert!(Journal::open(&state).ended().is_empty() && Journal::open(&state).wire.next == 4);
    }

    #[test]
    fn a_step_that_fails_again_for_the_same_cause_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&State::open_of(&DIRECTOR, dir.path()).unwrap());
        let order = order(1);
        for (at, code) in [(1, "unreachable"), (2, "unreachable"), (3, "throttled"), (4, "unreachable")] {
            journal.note(Note::Begins(&order, Stage::VersionCheck), at);
            journal.note(Note::Stopped(&order, Stage::VersionCheck, Reason::received(code.into(), "x".into())), at);
        }
        let expected = ["version_check failed unreachable", "version_check failed throttled", "version_check failed unreachable"];
        assert_eq!(said(&journal), expected);
        journal.note(Note::Begins(&order, Stage::VersionCheck), 5);
        journal.note(Note::Triggered(&self::order(2)), 6);
        assert_eq!(said(&journal)[3..], ["version_check superseded".to_string(), "update_triggered ok".to_string()]);
        for n in 0..2 * KEPT as u64 {
            journal.note(Note::Triggered(&self::order(n + 3)), n);
        }
        assert_eq!(journal.wire.steps.len(), KEPT);
    }
}
