//! A policy that can never act, or acts otherwise than it reads: said when it is saved, before a night has passed.
//!
//! | code | field | what |
//! |---|---|---|
//! | `schedule_never` | `cron` | the schedule fires at no time |
//! | `schedule_rare` | `cron` | it fires, but not within [`RARE_S`] |
//! | `schedule_missing` | `cron` | method schedule, and no tier says when: the built-in interval counts |
//! | `mode_manual` | `mode` | what was typed has no effect: mode is manual |
//! | `version_unknown` | `version` | some of the nodes concerned have no such version for their platform |
//! | `withdrawn`, `rejected` | `version` | its publisher took it back; a person or a halt keeps it from all |
//! | `below_floor` | `version` | its security counter is below what some nodes run |
//! | `min_version` | `version` | some nodes run something too old for it |

use super::{Candidate, Effective, Method, Mode, Settings, Timing, Wanted};
use crate::core::schedule::INTERVAL_DEFAULT_S;
use crate::core::time;
use crate::core::version::Version;

/// A window that is further away than this surprises whoever set it: a leap day is, a yearly one is not.
pub const RARE_S: u64 = 367 * 86_400;
/// Versions that a sentence lists.
const LISTED_MAX: usize = 5;

/// Something that the settings do not do, although they read so. It is told, not refused: another tier may put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The specification's name of the field.
    pub field: &'static str,
    /// Stable code.
    pub code: &'static str,
    /// One sentence with the remedy.
    pub detail: String,
}

/// Nodes of one platform that the settings are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `linux-amd64`.
    pub platform: String,
    /// How many.
    pub nodes: u64,
    /// What there is for them.
    pub candidates: Vec<Candidate>,
    /// Highest security counter that one of them runs.
    pub floor: Option<u64>,
    /// Lowest version that one of them runs.
    pub lowest: Option<Version>,
}

/// What is to be said about settings that are about to count.
///
/// `typed` is the tier that was changed, `effective` what counts with it; `firing` is its schedule, if it is a cron line.
/// `rejected` says why a file is kept from everybody.
pub fn warnings(
    typed: &Settings,
    effective: &Effective,
    groups: &[Group],
    firing: &dyn Fn(u64) -> Option<u64>,
    rejected: &dyn Fn(&Candidate) -> Option<String>,
    now: u64,
) -> Vec<Warning> {
    let mut out = Vec::new();
    let mut warn = |field, code, detail: String| out.push(Warning { field, code, detail });
    if effective.mode.value == Mode::Manual {
        if typed.method.is_some() || typed.timing.is_some() {
            warn("mode", "mode_manual", "mode is manual: method and schedule have no effect; set mode: auto".into());
        }
    } else if effective.method.value == Method::Schedule {
        match &effective.timing.value {
            Timing::Cron(cron) => match firing(now) {
                None => warn("cron", "schedule_never", format!("'{cron}' is at no time, so nothing is ever updated; change day or month")),
                Some(at) if at.saturating_sub(now) > RARE_S => {
                    warn("cron", "schedule_rare", format!("'{cron}' is not before {}; change it, if that is too late", time::format(at)))
                }
                Some(_) => {}
            },
            Timing::Interval(_) if effective.timing.tier == super::Tier::BuiltIn => {
                let detail = format!("method is schedule, and nobody says when: it is every {INTERVAL_DEFAULT_S} s; set cron or interval");
                warn("cron", "schedule_missing", detail);
            }
            Timing::Interval(_) => {}
        }
    }
    if let Wanted::Exact(version) = &effective.version.value {
        groups.iter().filter_map(|group| of_group(version, group, rejected)).for_each(|(code, detail)| warn("version", code, detail));
    }
    out
}

fn of_group(version: &Version, group: &Group, rejected: &dyn Fn(&Candidate) -> Option<String>) -> Option<(&'static str, String)> {
    let Group { platform, nodes, candidates, floor, lowest } = group;
    let whom = format!("{platform} ({nodes} of those concerned)");
    let Some(found) = candidates.iter().find(|c| c.version == *version) else {
        let detail = format!("there is no {version} for {whom}; there is {}", there(candidates));
        return Some(("version_unknown", detail));
    };
    if let Some(why) = &found.withdrawn {
        return Some(("withdrawn", format!("{version} for {whom} was withdrawn: {why}; choose another version")));
    }
    if let Some(why) = rejected(found) {
        return Some(("rejected", format!("{version} for {whom} is not ordered: {why}; `allow` lifts that")));
    }
    if let Some(floor) = floor.filter(|floor| found.counter < *floor) {
        let detail = format!("{version} has security counter {}; of {whom} some run {floor} and never go below", found.counter);
        return Some(("below_floor", detail));
    }
    match (&found.min_version, lowest) {
        (Some(least), Some(lowest)) if lowest < least => {
            let detail = format!("{version} needs at least {least}; of {whom} some run {lowest}; choose {least} first");
            Some(("min_version", detail))
        }
        _ => None,
    }
}

fn there(candidates: &[Candidate]) -> String {
    let mut versions: Vec<&Version> = candidates.iter().filter(|c| c.withdrawn.is_none()).map(|c| &c.version).collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.dedup();
    let listed: Vec<String> = versions.iter().take(LISTED_MAX).map(|v| v.to_string()).collect();
    if listed.is_empty() { "nothing".to_string() } else { listed.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::{Layer, Tier, Typed, check, effective};
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn candidate(text: &str, counter: u64) -> Candidate {
        Candidate { version: version(text), sha256: [1; 32], counter, min_version: None, withdrawn: None }
    }

    fn linux(candidates: Vec<Candidate>) -> Group {
        Group { platform: "linux-amd64".into(), nodes: 3, candidates, ..Default::default() }
    }

    fn codes(typed: Typed, groups: &[Group], firing: Option<u64>, rejected: Option<&str>) -> Vec<&'static str> {
        let settings = check(&typed).unwrap();
        let layer = Layer { tier: Tier::Organization, on: true, settings: settings.clone(), changed_at: 0 };
        let said = warnings(&settings, &effective(&[layer]), groups, &|_| firing, &|_| rejected.map(String::from), 1_000);
        assert!(said.iter().all(|w| w.detail.len() > 20 && w.detail.len() <= crate::core::reason::DETAIL_MAX));
        said.iter().map(|w| w.code).collect()
    }

    #[test]
    fn a_window_that_never_opens_is_told() {
        let typed = Typed { mode: Some("auto"), method: Some("schedule"), cron: Some("0 0 29 2 *"), ..Typed::default() };
        assert_eq!(check(&Typed { cron: Some("0 0 30 2 *"), ..typed }).unwrap_err().field, "cron", "no day of any year: not even taken");
        assert_eq!(codes(typed, &[], None, None), ["schedule_never"]);
        assert_eq!(codes(typed, &[], Some(1_000 + RARE_S + 1), None), ["schedule_rare"]);
        assert!(codes(typed, &[], Some(1_000 + RARE_S), None).is_empty());
        let without = Typed { cron: None, ..typed };
        assert_eq!(codes(without, &[], None, None), ["schedule_missing"]);
        assert!(codes(Typed { interval: Some("1h"), ..without }, &[], None, None).is_empty());
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let manual = Typed { mode: Some("manual"), method: Some("immediate"), ..Typed::default() };
        assert_eq!(codes(manual, &[], None, None), ["mode_manual"]);
        assert_eq!(codes(Typed { mode: None, ..manual }, &[], None, None), ["mode_manual"], "the built-in mode is manual");
        assert!(codes(Typed { mode: Some("manual"), ..Typed::default() }, &[], None, None).is_empty());
        assert!(codes(Typed { mode: Some("auto"), ..manual }, &[], None, None).is_empty());
    }

    #[test]
    fn a_version_that_cannot_come_is_told_for_each_platform() {
        let typed = Typed { mode: Some("auto"), method: Some("immediate"), version: Some("2.0.0"), ..Typed::default() };
        let good = linux(vec![candidate("2.0.0", 1), candidate("1.0.0", 1)]);
        assert!(codes(typed, std::slice::from_ref(&good), None, None).is_empty());
        let windows = Group { platform: "windows-amd64".into(), candidates: vec![candidate("1.0.0", 1)], ..good.clone() };
        assert_eq!(codes(typed, &[good.clone(), windows], None, None), ["version_unknown"]);
        let withdrawn = Candidate { withdrawn: Some("it leaks".into()), ..candidate("2.0.0", 0) };
        assert_eq!(codes(typed, &[linux(vec![withdrawn])], None, None), ["withdrawn"]);
        assert_eq!(codes(typed, std::slice::from_ref(&good), None, Some("roll-out 3 halted")), ["rejected"]);
        for (floor, expected) in [(1, vec![]), (2, vec!["below_floor"])] {
            assert_eq!(codes(typed, &[Group { floor: Some(floor), ..good.clone() }], None, None), expected);
        }
        let needs = linux(vec![Candidate { min_version: Some(version("1.5.0")), ..candidate("2.0.0", 1) }]);
        for (lowest, expected) in [("1.4.9", vec!["min_version"]), ("1.5.0", vec![])] {
            assert_eq!(codes(typed, &[Group { lowest: Some(version(lowest)), ..needs.clone() }], None, None), expected);
        }
        assert!(codes(Typed { version: Some("latest"), ..typed }, &[linux(vec![])], None, None).is_empty());
    }
}
