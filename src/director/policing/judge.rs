//! One node: what is known of it becomes facts, the facts a decision. Nothing is changed here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::core::hex;
use crate::core::policy::{
    Candidate, Decision, Effective, Facts, Failed, Method, Mode, Schedule, Standing, Timing, Wanted, Wish, decide, wish,
};
use crate::core::reason::Reason;
use crate::core::release::Platform;
use crate::core::rollout::{End, OFFLINE_AFTER_S};
use crate::core::schedule::{Cron, Zone};
use crate::core::version::Version;
use crate::director::records::{Agent, Order, Rollout};
use crate::director::registry::Registry;
use crate::director::releases::Releases;

/// Compiled cron lines that are kept; beyond, all are forgotten and made again.
const COMPILED_MAX: usize = 1_000;
/// How long after a device's own next try the manager would order anew: the device goes first.
const AFTER_OWN_TRY_S: u64 = 60;

/// A compiled cron line in its zone; many nodes ask it the same.
pub struct Compiled {
    next: Box<dyn Fn(u64) -> Option<u64>>,
    asked: RefCell<BTreeMap<u64, Option<u64>>>,
}

impl Compiled {
    /// The first instant strictly after another.
    pub fn next_after(&self, unix: u64) -> Option<u64> {
        *self.asked.borrow_mut().entry(unix).or_insert_with(|| (self.next)(unix))
    }
}

/// A cron line and a zone's name.
type CronInZone = (String, String);

/// Schedules, compiled once.
#[derive(Default)]
pub struct Clockwork {
    compiled: RefCell<BTreeMap<CronInZone, Option<Rc<Compiled>>>>,
}

impl Clockwork {
    /// A new pass begins: time has passed, and what was asked before is not asked again.
    pub fn forget_answers(&self) {
        for compiled in self.compiled.borrow().values().flatten() {
            compiled.asked.borrow_mut().clear();
        }
    }

    /// The compiled cron line of these settings.
    pub fn of(&self, settings: &Effective, local: &Zone) -> Option<Rc<Compiled>> {
        let Timing::Cron(cron) = &settings.timing.value else { return None };
        let zone = &settings.zone.value;
        let mut all = self.compiled.borrow_mut();
        if all.len() >= COMPILED_MAX {
            all.clear();
        }
        let compile = || compile(cron, zone, local).map(|next| Rc::new(Compiled { next, asked: RefCell::default() }));
        all.entry((cron.clone(), zone.clone())).or_insert_with(compile).clone()
    }
}

fn compile(cron: &str, zone: &str, local: &Zone) -> Option<Box<dyn Fn(u64) -> Option<u64>>> {
    let (cron, zone) = (Cron::parse(cron).ok()?, Zone::parse(zone, local).ok()?);
    Some(Box::new(move |unix| cron.next_after(unix, &zone)))
}

/// What there is for each platform, found once in a pass.
pub struct Shelf<'a> {
    product: &'a str,
    releases: &'a Releases,
    found: BTreeMap<(String, String), Vec<Candidate>>,
}

impl<'a> Shelf<'a> {
    /// Over what the mirror has.
    pub fn new(product: &'a str, releases: &'a Releases) -> Shelf<'a> {
        Shelf { product, releases, found: BTreeMap::new() }
    }

    /// Everything for a platform.
    pub fn of(&mut self, os: &str, arch: &str) -> &[Candidate] {
        let (product, releases) = (self.product, self.releases);
        self.found.entry((os.to_string(), arch.to_string())).or_insert_with(|| candidates(product, releases, os, arch))
    }
}

/// What there is of a product for a platform.
pub(super) fn candidates(product: &str, releases: &Releases, os: &str, arch: &str) -> Vec<Candidate> {
    let platform = Platform { os: os.to_string(), arch: arch.to_string() };
    let file = platform.program(product);
    let ours = |path: &crate::core::release::TargetPath| path.product == product && path.platform == platform && path.file == file;
    let gone = releases.withdrawn.iter().filter(|w| ours(&w.path));
    let gone = gone.map(|w| Candidate {
        version: w.path.version.clone(),
        sha256: w.sha256,
        counter: 0,
        min_version: None,
        withdrawn: Some(w.reason.clone()),
    });
    let mut out: Vec<Candidate> = gone.collect();
    for artifact in releases.artifacts.iter().filter(|a| ours(&a.path)) {
        if out.iter().any(|c| c.withdrawn.is_some() && c.version == artifact.path.version) {
            continue;
        }
        out.push(Candidate {
            version: artifact.path.version.clone(),
            sha256: artifact.sha256,
            counter: artifact.counter,
            min_version: artifact.min_version.clone(),
            withdrawn: None,
        });
    }
    out
}

/// An order that the policy does not want any more.
pub struct Withdraw {
    /// Its roll-out.
    pub rollout: u64,
    /// Why.
    pub why: String,
    /// The same is ordered again: what is fetched stays.
    pub keep_staged: bool,
}

/// What a look at one node brought.
pub struct Judgement {
    /// What counts for it.
    pub settings: Effective,
    /// What to do now.
    pub decision: Decision,
    /// What the policy does not want any more.
    pub withdraw: Option<Withdraw>,
    /// When to look again without news.
    pub look: Option<u64>,
    /// The window, open or next, of a schedule; also when nothing is to be done.
    pub next: Option<u64>,
}

impl Registry {
    /// Looks at one node.
    pub(super) fn judge(&self, agent: &Agent, settings: Effective, candidates: &[Candidate], now: u64) -> Judgement {
        let newest = self.newest_row(&agent.id);
        let live = self.live_grant(&agent.id, newest.map(|(o, _)| o), now);
        let compiled = self.policing.clockwork.of(&settings, &self.policing.local_zone());
        let firing = |unix: u64| compiled.as_ref().and_then(|c| c.next_after(unix));
        let schedule = match &settings.timing.value {
            Timing::Cron(_) => Schedule::Cron(&firing),
            Timing::Interval(every) => Schedule::Interval { every: *every, base: base(agent, &settings, newest, *every) },
        };
        let running_sha256 = hex::decode::<32>(&agent.running_sha256);
        let contact = self.last_contact(&agent.id);
        let facts = Facts {
            settings: &settings,
            candidates,
            running: agent.version.parse().ok(),
            running_sha256,
            counter: running_sha256.and_then(|sha| candidates.iter().find(|c| c.sha256 == sha)).map(|c| c.counter),
            schedule: Some(schedule),
            granted: live.as_ref().map(|l| &l.granted),
            quarantined: &|sha256| self.kept_from(&hex::encode(sha256), &agent.id, now),
            standing: &|sha256| self.standing(agent, newest, &hex::encode(sha256), candidates, now),
            clock_unsure: now < self.policing.clock_floor,
            clock_ahead: agent.clock == "ahead",
            silent_since: (now.saturating_sub(contact) > OFFLINE_AFTER_S).then_some(contact),
        };
        let wanted = wish(&facts, now);
        let withdraw = newest.and_then(|(order, rollout)| why_withdraw(order, rollout, &wanted, &facts, now));
        let decision = decide(&facts, now);
        let closes = newest.filter(|(o, _)| o.end().is_none()).and_then(|(_, r)| r.closes_at).filter(|at| *at > now);
        let until = match &decision {
            Decision::Wait { until, .. } => *until,
            _ => None,
        };
        let expires = live.filter(|l| !l.used).map(|l| l.granted.expires_at);
        let look = [closes, until.filter(|at| *at > now), expires].into_iter().flatten().min();
        let scheduled = settings.method.value == Method::Schedule;
        let next = scheduled.then(|| schedule.window(settings.changed_at, now)).flatten().map(|w| w.opens);
        Judgement { decision, withdraw, look, next, settings }
    }

    /// Whether a device may fetch by itself what its policy wants, and which version that is; `None` = the newest.
    ///
    /// # Errors
    /// `policy_manual`, `policy_needs_authorization`, `policy_version`, and those of an unknown device.
    pub fn may_fetch(&self, id: &str, asked: Option<&str>, releases: &Releases, now: u64) -> Result<Option<String>, Reason> {
        let agent = self.known(id)?;
        let settings = self.effective(id);
        let token = format!("or show a token: {}", self.role.make_token());
        if settings.mode.value == Mode::Manual {
            return Err(Reason::new("policy_manual", format!("this device's mode is manual: a person updates it; {token}")));
        }
        let mut version = match &settings.version.value {
            Wanted::Latest => None,
            Wanted::Exact(version) => Some(version.to_string()),
        };
        if settings.method.value == Method::UserAction {
            let product = self.product();
            let candidates = candidates(product, releases, &agent.os, &agent.architecture);
            let live = self.live_grant(id, self.newest_row(id).map(|(order, _)| order), now);
            let same = |c: &&Candidate| live.as_ref().is_some_and(|l| l.granted.sha256 == c.sha256);
            let Some(granted) = candidates.iter().find(same) else {
                let how = self.role.command(&format!("authorize {id} VERSION"));
                let detail = format!("this device waits for a person: `{how}`; {token}");
                return Err(Reason::new("policy_needs_authorization", detail));
            };
            version = Some(granted.version.to_string());
        }
        match (asked, &version) {
            (Some(asked), Some(version)) if asked != version => {
                Err(Reason::new("policy_version", format!("this device's policy names {version}, not {asked}; {token}")))
            }
            _ => Ok(version),
        }
    }

    /// The newest roll-out's row of a node.
    pub(super) fn newest_row(&self, node: &str) -> Option<(&Order, &Rollout)> {
        let id = *self.policing.newest.get(node)?;
        Some((self.orders.get(&(id, node.to_string()))?, self.rollouts.get(&id)?))
    }

    /// Why a file is kept from a node: rejected, or it halted a roll-out, also one that this node was not in.
    pub(super) fn kept_from(&self, sha256: &str, node: &str, now: u64) -> Option<(Reason, Option<u64>)> {
        if let Some(reason) = self.quarantined(sha256, node, false, now) {
            return Some((reason, self.rejection_end(sha256, node)));
        }
        if self.is_allowed(sha256, node, now) {
            return None;
        }
        self.kept_from_new(sha256, now).map(|reason| (reason, None))
    }

    /// What became of a node's last order, as far as it concerns this file.
    fn standing(&self, agent: &Agent, newest: Option<(&Order, &Rollout)>, sha256: &str, candidates: &[Candidate], now: u64) -> Standing {
        let Some((order, _)) = newest else { return self.rejected_by_itself(agent, sha256, now) };
        let Some(end) = order.end() else {
            let reason = Reason::received(order.code.clone(), order.detail.clone());
            return Standing::Open { reason, until: order.until };
        };
        if let Some(at) = order.repair_at {
            let reason = Reason::new("repair", "its confirmed version is gone from the device and is ordered again");
            return Standing::Open { reason, until: Some(at) };
        }
        let version = candidates.iter().find(|c| hex::encode(&c.sha256) == sha256).map(|c| c.version.to_string());
        let same = if order.sha256.is_empty() { version.as_deref() == Some(order.version.as_str()) } else { order.sha256 == sha256 };
        if !same {
            return self.rejected_by_itself(agent, sha256, now);
        }
        match end {
            End::Cancelled if order.cancelled_by.is_some() => Standing::CancelledByPerson { at: order.since },
            End::Cancelled | End::Expired | End::Updated | End::Already => Standing::Free,
            End::RolledBack | End::Silent | End::Flapping | End::Refused | End::NoArtifact => Standing::Failed(Failed {
                reason: Reason::received(order.code.clone(), order.detail.clone()),
                at: order.since,
                count: self.failures_of(&agent.id, &order.version),
                bad: end == End::RolledBack && own_verdict(agent, sha256).is_some_and(|(verdict, _)| verdict == "bad"),
                retry_at: order.until.map(|at| at.saturating_add(AFTER_OWN_TRY_S)),
            }),
        }
    }

    /// A file that the node found bad, whoever ordered it: before the policy's time, or by hand.
    fn rejected_by_itself(&self, agent: &Agent, sha256: &str, now: u64) -> Standing {
        match own_verdict(agent, sha256) {
            Some(("bad", code)) => Standing::Failed(Failed {
                reason: Reason::new("rejected", format!("the device rejects it ({code})")),
                at: now,
                count: 1,
                bad: true,
                retry_at: None,
            }),
            _ => Standing::Free,
        }
    }

    /// How often a version failed on a node, from 1.
    fn failures_of(&self, node: &str, version: &str) -> u32 {
        let rows = self.rollouts.keys().rev().filter_map(|id| self.orders.get(&(*id, node.to_string())));
        let failed = |o: &&Order| o.version == version && o.end().is_some_and(|e| e.is_failure() || e == End::Refused);
        u32::try_from(rows.filter(failed).count()).unwrap_or(u32::MAX).max(1)
    }
}

fn own_verdict<'a>(agent: &'a Agent, sha256: &str) -> Option<(&'a str, &'a str)> {
    let reject = agent.rejects.iter().flatten().find(|r| r.sha256 == sha256)?;
    Some((reject.verdict.as_str(), reject.code.as_str()))
}

/// Where an interval is counted from.
fn base(agent: &Agent, settings: &Effective, newest: Option<(&Order, &Rollout)>, every: u64) -> u64 {
    let from = settings.changed_at.max(agent.enrolled_at);
    let ended = newest.filter(|(o, r)| r.policy == Some(true) && o.generation > 0 && o.end().is_some()).map(|(o, _)| o.since);
    match ended.filter(|at| *at >= from) {
        Some(at) => at.saturating_add(every),
        None => from,
    }
}

/// The same version at another time.
const TIME_CHANGED: &str = "policy: its time has changed";

/// Why what the policy ordered and has not switched is not wanted any more.
fn why_withdraw(order: &Order, rollout: &Rollout, wanted: &Wish, facts: &Facts, now: u64) -> Option<Withdraw> {
    let open = order.end().is_none() && !order.step().is_some_and(|s| s.has_switched());
    if rollout.policy != Some(true) || !open {
        return None;
    }
    let id = rollout.id;
    if rollout.closes_at.is_some_and(|closes| now >= closes) {
        let why = "policy: its window closed before it switched; what is fetched stays, and it waits for the next one";
        return Some(Withdraw { rollout: id, why: why.into(), keep_staged: true });
    }
    let changed = facts.settings.changed_at > rollout.created_at;
    let version: Option<Version> = order.version.parse().ok();
    let why = match wanted {
        Wish::Manual(_) => "policy: mode is manual now",
        Wish::NeedsAuthorization(..) => "policy: it needs an authorization now",
        Wish::UpToDate if version != facts.running => "policy: it runs what it should",
        Wish::Act(wanted, ..) if version.as_ref() != Some(wanted) => "policy: another version is wanted now",
        Wish::Act(_, _, window) if moved(rollout, window.map(|w| w.opens), now) => TIME_CHANGED,
        // What waits for its window has it ahead of it, unless the schedule is another one now.
        Wish::Wait(reason, _)
            if (changed || rollout.switch_at.is_some_and(|at| at > now))
                && matches!(reason.code.as_ref(), "window_not_open" | "schedule_never") =>
        {
            TIME_CHANGED
        }
        _ => return None,
    };
    Some(Withdraw { rollout: id, why: why.into(), keep_staged: why == TIME_CHANGED })
}

/// Whether an order that waits for its window waits for another one than it should.
fn moved(rollout: &Rollout, opens: Option<u64>, now: u64) -> bool {
    rollout.switch_at.is_some_and(|at| at > now && opens != Some(at))
}
