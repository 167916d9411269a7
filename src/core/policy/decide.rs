//! What follows from a node's settings and from what is known of it.
//!
//! ```text
//!  settings + versions + clock + node -> wish: what the policy wants, whatever is under way
//!  wish + the node's order            -> decide: what is done now
//! ```
//!
//! | code of a wait | until | who ends it |
//! |---|---|---|
//! | `version_unknown`, `no_artifact`, `withdrawn`, `min_version` | - | the publisher, or other settings |
//! | `below_floor`, `quarantined` | -, or the rejection's end | operator |
//! | `clock_unsure`, `clock_ahead` | - | the clock of the manager, of the node |
//! | `window_not_open` | the window | the schedule; what was missed waits for the next one |
//! | `schedule_never` | - | other settings |
//! | `under_way` | the order's own | the order that is under way |
//! | `cancelled_by_person` | - | `retry`, or other settings |
//! | `rejected` | - | a release or a person: the version was found bad |
//! | `cooldown` | 10 min, 1 h, 6 h, 24 h after the failure | time |
//! | `node_silent` | - | the node |

use super::windows::{FETCH_AHEAD_S, Schedule, Window};
use super::{Effective, Method, Mode, Wanted};
use crate::core::hex::{self, Sha256};
use crate::core::reason::Reason;
use crate::core::times::Times;
use crate::core::version::Version;

/// Life of an authorization when nobody says otherwise: the working day on which it was given, and the night after it.
pub const AUTHORIZATION_TTL_S: u64 = 24 * 3600;

/// A version that there is for the node's platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Version.
    pub version: Version,
    /// Its file.
    pub sha256: Sha256,
    /// Security counter.
    pub counter: u64,
    /// Lowest version that may be running when it is installed.
    pub min_version: Option<Version>,
    /// Why its publisher took it back, if so.
    pub withdrawn: Option<String>,
}

/// A person's word for one version on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Which version.
    pub version: Version,
    /// Which file.
    pub sha256: Sha256,
    /// Not used after.
    pub expires_at: u64,
}

/// Why a file is kept from a node, and until when.
pub type Kept = (Reason, Option<u64>);

/// What became of the node's last order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that stands in the way.
    Free,
    /// An order is under way.
    Open {
        /// What it waits for or does.
        reason: Reason,
        /// When that ends by itself.
        until: Option<u64>,
    },
    /// A person ended the order of this file.
    CancelledByPerson {
        /// When.
        at: u64,
    },
    /// The order of this file failed.
    Failed(Failed),
}

/// A failure of the file that is wanted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Code and sentence of the end.
    pub reason: Reason,
    /// When.
    pub at: u64,
    /// How often by now, from 1.
    pub count: u32,
    /// The node found the version bad; else nothing could be told.
    pub bad: bool,
    /// The node tries it again by itself then.
    pub retry_at: Option<u64>,
}

/// What is known of a node and its manager.
#[derive(Clone)]
pub struct Facts<'a> {
    /// What counts for the node.
    pub settings: &'a Effective,
    /// Everything there is for its platform, in any order.
    pub candidates: &'a [Candidate],
    /// Version of the running file; `None` = it does not parse.
    pub running: Option<Version>,
    /// The running file.
    pub running_sha256: Option<Sha256>,
    /// Security counter of the running file, as far as known.
    pub counter: Option<u64>,
    /// Its schedule, for [`Method::Schedule`].
    pub schedule: Option<Schedule<'a>>,
    /// A person's word, if there is one.
    pub granted: Option<&'a Granted>,
    /// Why a file is kept from it, and until when.
    pub quarantined: &'a dyn Fn(&Sha256) -> Option<Kept>,
    /// What became of its last order of a file.
    pub standing: &'a dyn Fn(&Sha256) -> Standing,
    /// The manager cannot know the time (before its floor).
    pub clock_unsure: bool,
    /// The node's clock is over a day ahead: it takes no new metadata.
    pub clock_ahead: bool,
    /// When the node was last heard of, if that is too long ago to order anything.
    pub silent_since: Option<u64>,
}

/// What the policy wants, whatever is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A person decides; this version is there.
    Manual(Option<Version>),
    /// It runs what it should.
    UpToDate,
    /// A person has to authorize this file.
    NeedsAuthorization(Version, Sha256),
    /// This file, from the window's opening on, until it closes; no window = as soon as possible.
    Act(Version, Sha256, Option<Window>),
    /// Not now.
    Wait(Reason, Option<u64>),
}

/// What to do with a node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Mode manual: nothing is fetched or applied; what is there is shown.
    Manual {
        /// The version that is there for it.
        available: Option<Version>,
    },
    /// Nothing to do.
    UpToDate,
    /// Waits for a person's word.
    NeedsAuthorization {
        /// The version.
        version: Version,
        /// Its file.
        sha256: Sha256,
    },
    /// Order it now.
    Act {
        /// The version.
        version: Version,
        /// Its file.
        sha256: Sha256,
        /// The node does not switch before.
        not_before: u64,
        /// What has not switched by then waits for the next window; `None` = no end.
        closes: Option<u64>,
    },
    /// Not now.
    Wait {
        /// Why.
        reason: Reason,
        /// When that ends by itself; `None` = when its cause goes away.
        until: Option<u64>,
    },
}

/// The file that the policy lets a node take, now or at its time; what a mirror has to have.
///
/// # Errors
/// What is said instead.
pub fn may_take<'a>(facts: &Facts<'a>, now: u64) -> Result<&'a Candidate, Wish> {
    let settings = facts.settings;
    let wanted = match granted(facts, now) {
        Some(granted) => Wanted::Exact(granted.version.clone()),
        None => settings.version.value.clone(),
    };
    let chosen = choose(&wanted, facts);
    if settings.mode.value == Mode::Manual {
        let shown = chosen.ok().flatten().map(|c| c.version.clone());
        return Err(Wish::Manual(shown.filter(|_| !facts.candidates.is_empty())));
    }
    let target = match chosen {
        Err(reason) => return Err(Wish::Wait(reason, None)),
        Ok(None) => return Err(Wish::UpToDate),
        Ok(Some(target)) => target,
    };
    if let Some(floor) = facts.counter.filter(|floor| target.counter < *floor) {
        let detail = format!("{} has security counter {}; this node runs {floor} and never goes below", target.version, target.counter);
        return Err(Wish::Wait(Reason::new("below_floor", detail), None));
    }
    if let Some((reason, until)) = (facts.quarantined)(&target.sha256) {
        return Err(Wish::Wait(reason, until));
    }
    Ok(target)
}

/// A person's word that counts.
fn granted<'a>(facts: &Facts<'a>, now: u64) -> Option<&'a Granted> {
    facts.granted.filter(|g| facts.settings.method.value == Method::UserAction && g.expires_at > now)
}

/// What the policy wants for a node, its orders left aside: so an order that the policy does not want any more is seen.
pub fn wish(facts: &Facts, now: u64) -> Wish {
    let target = match may_take(facts, now) {
        Ok(target) => target,
        Err(instead) => return instead,
    };
    if facts.clock_ahead {
        let detail = "the node's clock is over a day ahead, so it takes no new metadata; set the clock there";
        return Wish::Wait(Reason::new("clock_ahead", detail), None);
    }
    match facts.settings.method.value {
        Method::Immediate => Wish::Act(target.version.clone(), target.sha256, None),
        Method::UserAction => match granted(facts, now) {
            Some(granted) if granted.sha256 == target.sha256 => Wish::Act(target.version.clone(), target.sha256, None),
            // The same version with another file: what was authorized is not what would be ordered.
            _ => Wish::NeedsAuthorization(target.version.clone(), target.sha256),
        },
        Method::Schedule => scheduled(facts, target, now),
    }
}

fn scheduled(facts: &Facts, target: &Candidate, now: u64) -> Wish {
    if facts.clock_unsure {
        let detail = "the manager's clock is before its own build: no schedule can be followed; set the clock";
        return Wish::Wait(Reason::new("clock_unsure", detail), None);
    }
    let window = facts.schedule.and_then(|schedule| schedule.window(facts.settings.changed_at, now));
    let Some(window) = window else {
        let detail = format!("{} is there, and the schedule never fires again; change it", target.version);
        return Wish::Wait(Reason::new("schedule_never", detail), None);
    };
    if window.opens > now.saturating_add(FETCH_AHEAD_S) {
        let detail = format!("{} is there; waits for its window", target.version);
        return Wish::Wait(Reason::new("window_not_open", detail), Some(window.opens - FETCH_AHEAD_S));
    }
    Wish::Act(target.version.clone(), target.sha256, Some(window))
}

/// What to do with a node now.
pub fn decide(facts: &Facts, now: u64) -> Decision {
    let (version, sha256, window) = match wish(facts, now) {
        Wish::Manual(available) => return Decision::Manual { available },
        Wish::UpToDate => return Decision::UpToDate,
        Wish::NeedsAuthorization(version, sha256) => return Decision::NeedsAuthorization { version, sha256 },
        Wish::Wait(reason, until) => return Decision::Wait { reason, until },
        Wish::Act(version, sha256, window) => (version, sha256, window),
    };
    let wait = |code, detail: String, until| Decision::Wait { reason: Reason::new(code, detail), until };
    match (facts.standing)(&sha256) {
        Standing::Free => {}
        Standing::Open { reason, until } => return wait("under_way", format!("{} ({})", reason.detail, reason.code), until),
        Standing::CancelledByPerson { at } if at >= facts.settings.changed_at => {
            let detail = format!("a person ended the order of {version}; `retry`, or other settings, order it again");
            return wait("cancelled_by_person", detail, None);
        }
        Standing::CancelledByPerson { .. } => {}
        Standing::Failed(failed) => {
            if let Some(decision) = after_failure(&failed, &version, now) {
                return decision;
            }
        }
    }
    if let Some(since) = facts.silent_since {
        let detail = format!("nothing heard of it since {}; it is looked at again when it reports", crate::core::time::format(since));
        return wait("node_silent", detail, None);
    }
    let not_before = window.map_or(now, |w| w.opens.max(now));
    Decision::Act { version, sha256, not_before, closes: window.filter(|w| w.binding).map(|w| w.closes) }
}

/// Why a version that failed on the node is not ordered again yet.
fn after_failure(failed: &Failed, version: &Version, now: u64) -> Option<Decision> {
    let Failed { reason, at, count, bad, retry_at } = failed;
    if *bad {
        let detail = format!("{version} was found bad here: {}; a newer release or `retry` goes on", reason.detail);
        return Some(Decision::Wait { reason: Reason::new("rejected", detail), until: None });
    }
    let until = retry_at.unwrap_or(0).max(at.saturating_add(Times::DEFAULT.cooldown(*count)));
    let detail = format!("{version} failed {count} time(s), last: {} ({}); tried again after a pause", reason.detail, reason.code);
    (now < until).then(|| Decision::Wait { reason: Reason::new("cooldown", detail), until: Some(until) })
}

/// The file that the node should run; `None` = it runs it, or something newer than `latest`.
fn choose<'a>(wanted: &Wanted, facts: &Facts<'a>) -> Result<Option<&'a Candidate>, Reason> {
    let runs = |c: &Candidate| facts.running_sha256 == Some(c.sha256);
    let reachable = |c: &Candidate| match (&c.min_version, &facts.running) {
        (Some(floor), Some(running)) => running >= floor,
        // Only a known running version can be too old; an unreadable one is the node's to judge.
        _ => true,
    };
    let target = match wanted {
        Wanted::Exact(version) => exact(version, facts)?,
        Wanted::Latest => {
            let good = |c: &&Candidate| !c.version.is_pre_release() && c.withdrawn.is_none();
            let mut all: Vec<&Candidate> = facts.candidates.iter().filter(good).collect();
            all.sort_by(|a, b| b.version.cmp(&a.version));
            let Some(highest) = all.first().copied() else {
                return Err(Reason::new(
                    "no_artifact",
                    "the mirror has no release for this platform that is neither withdrawn nor a pre-release",
                ));
            };
            let newer = |c: &Candidate| facts.running.as_ref().is_none_or(|running| c.version >= *running);
            // `latest` never means a downgrade.
            if !newer(highest) || runs(highest) {
                return Ok(None);
            }
            // A release that needs a later version first: go there by the one in between.
            all.into_iter().find(|c| newer(c) && reachable(c) && !runs(c)).unwrap_or(highest)
        }
    };
    if runs(target) {
        return Ok(None);
    }
    if !reachable(target) {
        let floor = target.min_version.as_ref().map_or(String::new(), ToString::to_string);
        let running = facts.running.as_ref().map_or(String::new(), ToString::to_string);
        let detail = format!("{} needs at least {floor}; this node runs {running}; choose {floor} first", target.version);
        return Err(Reason::new("min_version", detail));
    }
    Ok(Some(target))
}

fn exact<'a>(version: &Version, facts: &Facts<'a>) -> Result<&'a Candidate, Reason> {
    let found = facts.candidates.iter().find(|c| c.version == *version);
    match found {
        None => Err(Reason::new("version_unknown", format!("the mirror has no {version} for this platform; it has {}", there(facts)))),
        // Who runs it keeps it.
        Some(c) if facts.running_sha256 == Some(c.sha256) => Ok(c),
        Some(Candidate { withdrawn: Some(why), .. }) => {
            Err(Reason::new("withdrawn", format!("{version} was withdrawn: {why}; choose another version")))
        }
        Some(c) => Ok(c),
    }
}

fn there(facts: &Facts) -> String {
    let mut versions: Vec<&Version> = facts.candidates.iter().filter(|c| c.withdrawn.is_none()).map(|c| &c.version).collect();
    versions.sort_by(|a, b| b.cmp(a));
    let list: Vec<String> = versions.iter().take(8).map(|v| v.to_string()).collect();
    if list.is_empty() { "nothing".to_string() } else { list.join(", ") }
}

impl Decision {
    /// Stable word of what is said.
    pub fn word(&self) -> &'static str {
        match self {
            Decision::Manual { .. } => "manual",
            Decision::UpToDate => "up_to_date",
            Decision::NeedsAuthorization { .. } => "needs_authorization",
            Decision::Act { .. } => "act",
            Decision::Wait { .. } => "wait",
        }
    }

    /// Code and sentence for people and programs.
    pub fn reason(&self) -> Reason {
        match self {
            Decision::Manual { available: None } => Reason::new("manual", "mode is manual: a person orders updates (`assign`)"),
            Decision::Manual { available: Some(version) } => {
                Reason::new("manual", format!("{version} is there; mode is manual: a person orders it (`assign`)"))
            }
            Decision::UpToDate => Reason::new("up_to_date", "it runs what its policy says"),
            Decision::NeedsAuthorization { version, sha256 } => {
                let short = hex::encode(&sha256[..4]);
                Reason::new("needs_authorization", format!("{version} ({short}) waits for a person: `authorize`"))
            }
            Decision::Act { version, .. } => Reason::new("due", format!("{version} is due")),
            Decision::Wait { reason, .. } => reason.clone(),
        }
    }
}
