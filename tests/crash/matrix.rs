//! The crash matrix: every n-th call of an update, cut in every way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::PoisonError;

use crate::covered;
use crate::device::{Cut, Device, Flow};
use crate::hang;
use crate::stage::Stage;
use crate::table::Table;
use crate::tracer::KINDS;
use crate::{Args, Ended, each};

/// Cases of a run that is no `--all`: two or three minutes.
const SAMPLE: usize = 300;
/// The same for a Director, whose start reads a store and makes keys.
const SAMPLE_DIRECTOR: usize = 200;

/// One cut.
#[derive(Clone, Debug)]
struct Case {
    group: String,
    flow: Flow,
    kind: String,
    at: u64,
    act: String,
    /// The boot id of the start after it is another one.
    reboot: bool,
}

impl Case {
    fn name(&self) -> String {
        let boot = if self.reboot { "reboot" } else { "restart" };
        format!("{}:{}:{}:{}:{}:{boot}", self.group, flow_word(self.flow), self.kind, self.at, self.act)
    }

    fn parse(name: &str) -> Option<Case> {
        let words: Vec<&str> = name.split(':').collect();
        let [group, flow, kind, at, act, boot] = words[..] else { return None };
        let flow = if flow == "file" { Flow::File } else { Flow::Online };
        Some(Case { group: group.into(), flow, kind: kind.into(), at: at.parse().ok()?, act: act.into(), reboot: boot == "reboot" })
    }
}

/// `file` or `on-line`.
pub fn flow_word(flow: Flow) -> &'static str {
    match flow {
        Flow::File => "file",
        Flow::Online => "on-line",
    }
}

/// How often each kind of call can take each act, in an undisturbed update.
pub type Counts = BTreeMap<(&'static str, String), u64>;

/// Counts the calls of an undisturbed update.
pub fn count(stage: &Stage, flow: Flow) -> Result<Counts, String> {
    let folder = stage.work.join("count");
    let device = Device::of_seed(stage, &folder, &folder.join("state"), flow)?;
    let log = folder.join("calls");
    let cut = Cut { kind: "any".into(), at: 0, act: "count".into(), log: Some(log.clone()) };
    let story = device.update_to(stage, flow, stage.new, "boot-2", Some(&cut))?;
    if !story.codes.is_empty() || story.starts != 1 {
        return Err(format!("an update that nobody disturbed: {story:?}"));
    }
    let mut counts = Counts::new();
    for line in fs::read_to_string(&log).map_err(|e| e.to_string())?.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(kind), Some(_), Some(gives)) = (words.next(), words.next(), words.next()) else { continue };
        let Some(kind) = KINDS.into_iter().find(|k| *k == kind) else { continue };
        for act in gives.split(',').chain(["kill"]) {
            *counts.entry((kind, act.to_string())).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

fn plan(counts: &Counts, flow: Flow, deep: bool, group: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for ((kind, act), count) in counts {
        for at in 1..=*count {
            let case = |act: &str, reboot| Case { group: group.into(), flow, kind: kind.to_string(), at, act: act.into(), reboot };
            cases.push(case(act, at % 2 == 0));
            if deep {
                cases.push(case(act, at % 2 == 1));
                if act.starts_with('E') {
                    cases.push(case(&format!("{act}+"), false));
                }
            }
        }
    }
    cases
}

/// Every k-th case; runs with one seed after the other come by all of them. Every k-th of each kind of call, with each act.
fn sample(cases: Vec<Case>, seed: u64, of: usize) -> Vec<Case> {
    let step = (cases.len() / of).max(1);
    let offset = seed as usize % step;
    cases.into_iter().enumerate().filter(|(n, _)| n % step == offset).map(|(_, case)| case).collect()
}

/// Each word of the name is the pattern's, or the pattern has a `*` there.
fn fits(pattern: &str, name: &str) -> bool {
    pattern.split(':').count() == name.split(':').count() && pattern.split(':').zip(name.split(':')).all(|(p, n)| p == "*" || p == n)
}

/// The group `crash`.
pub fn run(stage: &Stage, args: &Args) -> Result<Table, Ended> {
    let mut cases = Vec::new();
    let mut notes = Vec::new();
    match &args.only {
        Some(name) if hang::Case::parse(name).is_some() => {}
        Some(name) if !name.contains('*') => cases.push(Case::parse(name).ok_or(format!("'{name}' is no case"))?),
        pattern => {
            for flow in stage.flows.iter().copied() {
                let counts = count(stage, flow)?;
                let calls: Vec<String> =
                    counts.iter().filter(|((_, act), _)| act == "kill").map(|((kind, _), n)| format!("{kind} {n}")).collect();
                notes.push(format!("calls of an undisturbed update ({}): {}", flow_word(flow), calls.join(", ")));
                println!("{}", notes[notes.len() - 1]);
                cases.extend(plan(&counts, flow, args.deep, &stage.group("crash")));
            }
            println!("{} cases", cases.len());
            if let Some(pattern) = pattern {
                cases.retain(|case| fits(pattern, &case.name()));
                println!("of them like '{pattern}': {}", cases.len());
            } else if !args.all {
                cases = sample(cases, args.seed, if stage.is_director() { SAMPLE_DIRECTOR } else { SAMPLE });
                println!("of them, from seed {}: {} (--all for all)", args.seed, cases.len());
            }
            if pattern.is_none() {
                notes.extend(covered::compare(stage)?);
            }
        }
    }
    let mut table = each(args, &stage.work, &cases, |case, folder, table| {
        let outcome = play(stage, case, folder);
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        table.add((&format!("{}, {}", flow_word(case.flow), case.kind), &case.act), &case.name(), outcome);
    });
    if stage.is_director() {
        hang::run(stage, args.only.as_deref(), &mut table);
    }
    notes.into_iter().for_each(|note| table.note(note));
    Ok(table)
}

fn play(stage: &Stage, case: &Case, folder: &Path) -> Result<String, String> {
    let device = Device::of_seed(stage, folder, &folder.join("state"), case.flow)?;
    let cut = Cut { kind: case.kind.clone(), at: case.at, act: case.act.clone(), log: None };
    let boot = if case.reboot { "boot-2/boot-3" } else { "boot-2" };
    let told = |why: String| format!("{why}\n  log: {}", tail(&folder.join("log")));
    device.update_to(stage, case.flow, stage.new, boot, Some(&cut)).map(|story| story.outcome()).map_err(told)
}

/// The end of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n       ")
}
