//! `cluster plan`, `cluster health`, `drain`, `resume`: the specification's manual procedure, with commands that do the looking.

use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};
use smol::net::unix::UnixStream;

use super::ballot::{self, Ballot, Ground};
use super::lease::LeaseFile;
use super::{invite, vote};
use crate::core::cluster::lease::Phase;
use crate::core::cluster::majority;
use crate::core::cluster::member::SILENT_S;
use crate::core::cluster::plan::Wait;
use crate::core::reason::Reason;
use crate::core::time;
use crate::director::admin::AdminWire;
use crate::director::args::{Ask, Words};
use crate::director::commands::reply;
use crate::director::console::parse;
use crate::director::own::Own;
use crate::director::own::shared::{Shared, Word};
use crate::director::policing::leases::{DRAIN_MAX_S, DRAIN_S};
use crate::director::site::Site;
use crate::director::table::{Table, ago};
use crate::io::clock;
use crate::io::state::State;
use crate::wire::fleet_api::{ClusterMemberWire, ClusterWire, PeerWire};

/// How long a person may take for stop, deployment and start, unless told otherwise, seconds.
const BY_HAND_S: u64 = 3_600;
/// How often it is looked whether the drain is over.
const LOOK: Duration = Duration::from_millis(200);
/// Downloads under way are waited for so long; whoever is not done by then goes on elsewhere from where it was.
const DOWNLOADS: Duration = Duration::from_secs(60);

/// The cluster as this member knows it.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct HealthView {
    /// As Fleet told it; absent = none.
    pub cluster: Option<ClusterWire>,
    /// When, seconds since 1970.
    pub told_at: u64,
    /// What this member sees of the others.
    pub seen: Vec<PeerWire>,
    /// Every member is healthy, and runs the version that was asked for.
    pub healthy: bool,
    /// Why not.
    pub detail: String,
    /// This Director's time.
    pub time: u64,
}

/// What a drain came to.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct DrainView {
    /// `/readyz` fails.
    pub drained: bool,
    /// In how many seconds the lease runs out; absent = it is in no cluster, or has none.
    pub lease_s: Option<u64>,
    /// Downloads that are still under way.
    pub downloads: u64,
    /// What comes next.
    pub detail: String,
}

/// Reads the options.
///
/// # Errors
/// Wrong usage.
pub fn asks(word: &str, words: &mut Words, request: &mut AdminWire) -> Result<bool, String> {
    match word {
        "cluster" => {
            let act = words.word()?.filter(|act| matches!(act.as_str(), "plan" | "health" | "resume" | "invite"));
            request.act =
                Some(act.ok_or("expected `cluster plan`, `health [--version V]`, `update --file BUNDLE`, `resume`, `invite` or `join`")?);
            request.ttl_s = words.duration("--ttl")?;
            request.version = words.option("--version")?;
        }
        "drain" => {
            request.force = Some(words.flag("--force"));
            request.ttl_s = words.duration("--for")?;
            request.drain_s = words.duration("--wait")?;
        }
        "resume" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// Answers one.
///
/// # Errors
/// The reason.
pub async fn run(site: &Rc<Site>, request: &AdminWire, who: &str, out: &mut UnixStream) -> Result<(), Reason> {
    match request.command.as_str() {
        "cluster" => match request.act.as_deref() {
            Some("lease") => {
                let view = lease_for_update(site, request.force == Some(true), who).await?;
                reply(out, &view).await
            }
            Some("invite") => {
                let view = invite::make(site, request.ttl_s, who)?;
                reply(out, &view).await
            }
            Some("resume") => {
                let view = resume_peers(site, who).await?;
                reply(out, &view).await
            }
            _ => reply(out, &view(site, request.version.as_deref())).await,
        },
        "drain" => {
            let view = drain(site, request, who).await?;
            reply(out, &view).await
        }
        _ => {
            set(site, false)?;
            site.acting(who, |registry| registry.event(clock::unix(), "", "resumed_by_person", "it serves again", None));
            site.flush();
            reply(out, &DrainView { detail: "it serves again; a lease is given back once it was seen well".into(), ..Default::default() })
                .await
        }
    }
}

fn view(site: &Site, version: Option<&str>) -> HealthView {
    let now = clock::unix();
    let seen = site.cluster.words().unwrap_or_default();
    let (cluster, told_at) = site.cluster.told.borrow().clone().unzip();
    let view = HealthView { cluster, told_at: told_at.unwrap_or(0), seen, time: now, ..Default::default() };
    let own = site.uplink.view.borrow().as_ref().map(|view| view.id.clone()).unwrap_or_default();
    let why = unwell(&view, &own, version);
    HealthView { healthy: why.is_none(), detail: why.unwrap_or_else(|| "every member is healthy".into()), ..view }
}

/// The first thing that is wrong.
fn unwell(view: &HealthView, own: &str, version: Option<&str>) -> Option<String> {
    let Some(cluster) = &view.cluster else {
        return Some("Fleet has told of no cluster that this Director is in since it started".into());
    };
    if view.time.saturating_sub(view.told_at) > SILENT_S {
        return Some(format!("Fleet has not been heard since {}: what it told is old", time::format(view.told_at)));
    }
    let bad = cluster.members.iter().find(|member| member.state != "healthy");
    if let Some(member) = bad {
        let why = member.detail.clone().unwrap_or_else(|| format!("{} is {}", member.id, member.state));
        let well = cluster.members.iter().filter(|member| member.state == "healthy").count();
        let of = cluster.members.len();
        return Some(format!("{why}; {well} of {of} members are healthy, a majority is {}", majority(of)));
    }
    if let Some(peer) = view.seen.iter().find(|peer| !peer.reached) {
        return Some(format!("this Director does not reach {} ({})", peer.id, peer.code.as_deref().unwrap_or("not_reached")));
    }
    let unseen = |member: &&ClusterMemberWire| member.id != own && !view.seen.iter().any(|peer| peer.id == member.id);
    if let Some(member) = cluster.members.iter().find(unseen) {
        return Some(format!("this Director has not looked at {} yet; it does every few seconds", member.id));
    }
    let other = |version: &&str| cluster.members.iter().find(|member| member.version != *version);
    version.and_then(|wanted| other(&wanted).map(|member| format!("{} runs {}, not {wanted}", member.id, member.version)))
}

/// Before an update from a medium: the cluster's lease, so that a refusal costs nothing. Fleet's, or that of the peers where
/// Fleet does not answer.
async fn lease_for_update(site: &Rc<Site>, forced: bool, who: &str) -> Result<DrainView, Reason> {
    let own = own(site)?;
    let said = |detail: String| DrainView { detail, ..Default::default() };
    let Some(group) = own.shared.lease_group() else { return Ok(said("this Director is in no cluster".into())) };
    let (state, shared, me) = (own.state(), own.shared.clone(), own.node());
    shared.use_lease();
    let (cost, mut detail) = smol::unblock(move || lease_now(&shared, &state, &me, &group, forced)).await?;
    if let Some(cost) = cost {
        site.acting(who, |registry| registry.event(clock::unix(), "", "cluster_override", cost.clone(), None));
        site.flush();
        detail += &format!("; by exception: {cost}");
    }
    Ok(said(detail))
}

/// What an exception costs, and who gave the lease.
///
/// # Errors
/// Why nobody did; nothing was done.
pub(super) fn lease_now(shared: &Shared, state: &State, me: &str, group: &str, forced: bool) -> Result<(Option<String>, String), Reason> {
    let file = LeaseFile::read(state).filter(|file| file.group == group).unwrap_or_else(|| LeaseFile::wish(group));
    vote::wish(shared, state, me, &file).map_err(|wait| wait.reason)?;
    match file.ask(state, Phase::Before, 0, || {}) {
        Ok(locked) => {
            LeaseFile { epoch: locked.epoch, ..file }.write(state)?;
            return Ok((None, "Fleet gave the cluster's lease".to_string()));
        }
        Err(error) if error.refused => {
            if file.epoch.is_none() {
                LeaseFile::remove(state)?;
            }
            let hint = format!(
                "{}; nothing was done. Fleet answers, so the exception is given there: `vmetric-fleet cluster override`",
                error.reason.detail
            );
            return Err(Reason::received(error.reason.code.to_string(), hint));
        }
        Err(_) => {}
    }
    ballot::clear(shared, state, group, forced, || {}).map_err(not_now)?;
    let ground = Ground::new(shared, state, || {})?;
    let mut ballot = Ballot::wish(group, forced);
    match ballot.ask(&ground, Phase::Before, 0) {
        Ok((joint, _)) => Ok((joint.cost, format!("Fleet does not answer: the members promised the lease, epoch {}", joint.epoch))),
        Err(wait) => {
            if let Err(kept) = ballot.put_back(&ground) {
                log::info!("the peers' lease stays: {}", kept.reason);
            }
            Err(not_now(wait))
        }
    }
}

fn not_now(wait: Wait) -> Reason {
    let remedy = match wait.reason.code.as_ref() {
        "lease_held" | "lease_wanted" | "soaking" | "not_healthy_yet" | "lease_in_use" => "wait for that member",
        "lease_expired" | "cluster_halted" => "`cluster resume` once it is known how that member is",
        "peer_silent" => "nothing was done",
        _ => "bring it back, or --force takes this on",
    };
    Reason::received(wait.reason.code.to_string(), format!("{}; nothing was done: {remedy}", wait.reason.detail))
}

/// A person says that it goes on: what the members hold against the next one is given up. Fleet's own stop is Fleet's.
async fn resume_peers(site: &Rc<Site>, who: &str) -> Result<DrainView, Reason> {
    let own = own(site)?;
    let (state, shared) = (own.state(), own.shared.clone());
    let missed = smol::unblock(move || ballot::resume(&shared, &state)).await?;
    let end = if missed.is_empty() { String::new() } else { format!("; NOT told: {}: say it again once they answer", missed.join(", ")) };
    let detail = format!("the members were told that it goes on{end}");
    site.acting(who, |registry| registry.event(clock::unix(), "", "cluster_resumed", detail.clone(), None));
    site.flush();
    Ok(DrainView { detail, ..Default::default() })
}

fn own(site: &Site) -> Result<Rc<Own>, Reason> {
    site.own.borrow().clone().ok_or_else(|| Reason::new("not_ready", "this Director is still starting"))
}

fn set(site: &Site, drained: bool) -> Result<(), Reason> {
    let own = own(site)?;
    site.cluster.drained.set(drained);
    own.shared.tell(Word::Quiet);
    Ok(())
}

/// Takes this Director out of service: under the lease of its cluster, if it is in one.
async fn drain(site: &Rc<Site>, request: &AdminWire, who: &str) -> Result<DrainView, Reason> {
    let own = own(site)?;
    let group = own.shared.lease_group().filter(|_| request.force != Some(true));
    let state = own.state();
    let leased = match &group {
        Some(group) => {
            Some(ask(&own, LeaseFile::read(&state).filter(|f| f.group == *group).unwrap_or_else(|| LeaseFile::wish(group))).await?)
        }
        None => None,
    };
    let wait_s = request.drain_s.or(leased.as_ref().map(|(_, drain_s)| *drain_s)).unwrap_or(DRAIN_S).min(DRAIN_MAX_S);
    set(site, true)?;
    let how = match (&leased, request.force) {
        (Some(_), _) => "under the cluster's lease",
        (None, Some(true)) => "without a lease: nobody keeps another member from being away at the same time",
        _ => "it is in no cluster",
    };
    site.acting(who, |registry| registry.event(clock::unix(), "", "drained_by_person", how, None));
    site.flush();
    let began = clock::monotonic();
    loop {
        let waited = clock::monotonic().saturating_sub(began);
        let trials = site.registry.borrow().trials(clock::unix()).0;
        let flows = site.downloads.get() > 0 && waited < DOWNLOADS;
        if trials == 0 && !flows && waited >= Duration::from_secs(wait_s) {
            break;
        }
        own.shared.use_lease();
        smol::Timer::after(LOOK).await;
    }
    let needs_s = request.ttl_s.unwrap_or(BY_HAND_S);
    let mut view = DrainView { drained: true, downloads: site.downloads.get() as u64, ..Default::default() };
    if let Some((file, _)) = leased {
        let locked = last_word(&own, file, needs_s).await.inspect_err(|_| drop(set(site, false)))?;
        view.lease_s = locked;
    }
    let end = view.lease_s.map_or(String::new(), |s| format!("; its lease is good for {} min", s / 60));
    view.detail = format!("drained{end}: stop the service, deploy, start it; `resume` if you do not");
    Ok(view)
}

async fn ask(own: &Rc<Own>, file: LeaseFile) -> Result<(LeaseFile, u64), Reason> {
    let (state, shared) = (own.state(), own.shared.clone());
    shared.use_lease();
    let me = own.node();
    smol::unblock(move || {
        vote::wish(&shared, &state, &me, &file).map_err(|wait| wait.reason)?;
        match file.ask(&state, Phase::Before, 0, || {}) {
            Ok(locked) => {
                let file = LeaseFile { epoch: locked.epoch, ..file };
                file.write(&state)?;
                Ok((file, locked.drain_s.unwrap_or(DRAIN_S)))
            }
            Err(error) => {
                if error.refused && file.epoch.is_none() {
                    LeaseFile::remove(&state)?;
                }
                let detail = format!("{}; it serves on. --force drains it all the same", error.reason.detail);
                Err(Reason::received(error.reason.code.to_string(), detail))
            }
        }
    })
    .await
}

async fn last_word(own: &Rc<Own>, file: LeaseFile, needs_s: u64) -> Result<Option<u64>, Reason> {
    let state = own.state();
    smol::unblock(move || {
        let locked = file.ask(&state, Phase::Stop, needs_s, || {}).map_err(|error| error.reason)?;
        LeaseFile { away: true, ..file }.write(&state)?;
        Ok(locked.ttl_s)
    })
    .await
}

/// The answer for people.
///
/// # Errors
/// The running Director is of another version.
pub fn shown(ask: &Ask, line: &str) -> Result<String, String> {
    match ask.request.command.as_str() {
        "cluster" if ask.request.act.as_deref() == Some("invite") => Ok(invite::text(&parse(line)?)),
        "cluster" if ask.request.act.as_deref() == Some("resume") => Ok(parse::<DrainView>(line)?.detail + "\n"),
        "cluster" => Ok(table(&parse(line)?)),
        "drain" | "resume" => Ok(parse::<DrainView>(line)?.detail + "\n"),
        _ => Ok(format!("{line}\n")),
    }
}

/// What `cluster health` ends with: an error is exit code 1, for scripts.
///
/// # Errors
/// Why the cluster is not well.
pub fn verdict(ask: &Ask, line: &str) -> Result<(), String> {
    if (ask.request.command.as_str(), ask.request.act.as_deref()) != ("cluster", Some("health")) {
        return Ok(());
    }
    match json::from_str::<HealthView>(line) {
        Ok(view) if !view.healthy => Err(view.detail),
        _ => Ok(()),
    }
}

fn table(view: &HealthView) -> String {
    let Some(cluster) = &view.cluster else { return format!("{}\n", view.detail) };
    let mut out = format!("cluster {} ({}), as Fleet told {}\n", cluster.name, cluster.id, ago(view.time, view.told_at));
    if let (Some(code), Some(detail)) = (&cluster.code, &cluster.detail) {
        out += &format!("{detail} ({code})\n");
    }
    let mut table = Table::new(&["TURN", "DIRECTOR", "STATE", "VERSION", "AGENTS", "SEEN FROM HERE", "WHY"]);
    for (turn, member) in cluster.members.iter().enumerate() {
        let seen = view.seen.iter().find(|peer| peer.id == member.id).map_or("-".into(), |peer| match peer.reached {
            true => format!("serves, {} s ago", peer.age_s),
            false => peer.code.clone().unwrap_or_else(|| "not reached".into()),
        });
        let why = member.detail.clone().unwrap_or_default();
        table.row(vec![
            (turn + 1).to_string(),
            member.id.clone(),
            member.state.clone(),
            member.version.clone(),
            member.load.to_string(),
            seen,
            why,
        ]);
    }
    out + &table.text()
}
