//! What an administrator can ask of a running Director.

use std::collections::BTreeSet;
use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::acts::{Act, OrderedView};
use super::admin::{AdminWire, line, status};
use super::dl;
use super::enroll::{TTL_NEVER_S, Terms};
use super::install::{self, Install};
use super::orders::Assign;
use super::records::Event;
use super::refresh::{self, Import};
use super::releases;
use super::role::Role;
use super::site::{Site, random_hex};
use super::store::{PARTLY, Table, UNDONE};
use super::views::StatusView;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::release::Platform;
use crate::core::rollout::{InFlight, OFFLINE_AFTER_S, ROLLOUT_LIFE_S};
use crate::io::{clock, tls};

/// Default contact deadline of a trial, seconds, and its limits (the agent clamps to the same).
pub const CONTACT_DEADLINE_S: (u64, u64, u64) = (300, 30, 24 * 3600);
/// Default and highest length of an unattended trial, seconds.
pub const TRIAL_MAX_S: (u64, u64) = (24 * 3600, 7 * 24 * 3600);
/// Longest wait for a window, seconds.
pub const SWITCH_IN_MAX_S: u64 = 30 * 24 * 3600;
/// Shortest and longest life of a roll-out, seconds: long enough for a first agent, short enough to be remembered.
pub const LIFE_S: (u64, u64) = (60, 365 * 86_400);
/// Default failures that do not halt.
pub const MAX_FAILURES: u64 = 2;
/// Default life of a token, seconds.
pub const TOKEN_TTL_S: u64 = 3600;
/// Events shown without `--limit`.
pub const EVENTS_SHOWN: u64 = 200;

/// A new token; shown once.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct TokenView {
    /// Its text.
    pub token: String,
    /// Enrollments.
    pub uses: u64,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// Pin to give with it.
    pub pin: String,
    /// Where this Director is reached.
    pub url: String,
}

/// A command for new devices; it holds a token and is shown once.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct InstallView {
    /// Its text.
    pub command: String,
    /// Devices that it is good for.
    pub uses: u64,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// Version that it installs.
    pub version: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// What enrolls an installed one with the same token.
    pub enroll: Option<String>,
    /// Pin of the site's CA.
    pub pin: Option<String>,
}

/// Commands that decide by what the mirror holds.
const NEEDS_RELEASES: [&str; 7] = ["assign", "retry", "reject", "allow", "authorize", "install-command", "releases"];

fn wire_error(e: std::io::Error) -> Reason {
    Reason::new("connection_lost", e.to_string())
}

pub(crate) fn store_error(e: String) -> Reason {
    match (e.strip_prefix(UNDONE), e.strip_prefix(PARTLY)) {
        (Some(detail), _) => Reason::new("revision_conflict", detail.to_string()),
        (_, Some(detail)) => Reason::new("partly_changed", detail.to_string()),
        _ => Reason::new("store_unavailable", format!("the server cannot write its state: {e}")),
    }
}

/// Runs one request and writes its answer.
///
/// # Errors
/// The reason; nothing has been written yet then, unless the administrator left.
pub async fn run(site: &Rc<Site>, request: AdminWire, who: &str, out: &mut UnixStream) -> Result<(), Reason> {
    // Looks show what is known; whoever acts must not be told that a release does not exist.
    match refresh::known(site).await {
        Err(reason) if NEEDS_RELEASES.contains(&request.command.as_str()) => return Err(reason),
        _ => {}
    }
    let now = clock::unix();
    if site.draining.get() && matches!(request.command.as_str(), "assign" | "retry") {
        let (title, nodes) = (site.role.title, site.role.nodes);
        return Err(Reason::new(
            "stopping",
            format!("this {title} is about to stop; it waits for {nodes} on trial and orders nothing new"),
        ));
    }
    match request.command.as_str() {
        "status" => reply(out, &view(site, now)).await,
        "agents" => {
            let view = site.registry.borrow().agents_view(now);
            reply(out, &view).await
        }
        "rollouts" => {
            let view = site.registry.borrow().rollouts_view(now);
            reply(out, &view).await
        }
        "activity" => activity(site, &request, out).await,
        "token" => token(site, &request, who, now, out).await,
        "install-command" => install_command(site, &request, who, now, out).await,
        "assign" => Act { site, request: &request, who, now }.assign(out).await,
        "cancel" => Act { site, request: &request, who, now }.cancel(out).await,
        "retry" => Act { site, request: &request, who, now }.retry(out).await,
        "reject" => Act { site, request: &request, who, now }.reject(out).await,
        "allow" => Act { site, request: &request, who, now }.allow(out).await,
        "approve" | "deny" => decide(site, &request, who, now, out).await,
        "policy" => super::policing::ask::run_policy(site, &request, who, now, out).await,
        "authorize" => super::policing::ask::run_authorize(site, &request, who, now, out).await,
        "explain" => explain(site, &request, now, out).await,
        "rejections" => {
            let view = site.registry.borrow().rejections_view(now);
            reply(out, &view).await
        }
        "releases" => {
            let tree = site.tree.borrow().clone();
            let notes = request.version.as_deref().map(|wanted| releases::notes_of(&tree.releases, wanted));
            reply(out, &releases::ReleasesView { notes, ..releases::view(&tree.releases, now) }).await
        }
        "cluster" | "drain" | "resume" if site.role.configured => super::cluster::command::run(site, &request, who, out).await,
        "api-token" => super::api_tokens::run(site, &request, who, now, out).await,
        "mirror" => mirror(site, &request, out).await,
        "ca" => super::ca::run(site, &request, who, now, out).await,
        "replace-agent" => replace(site, &request, who, now, out).await,
        "remove-agent" => remove(site, &request, who, now, out).await,
        other => {
            let extra = site.extra.borrow().clone();
            if let Some(answer) = extra.as_ref().and_then(|extra| extra.command(site, &request, who, out)) {
                return answer.await;
            }
            let title = site.role.title;
            Err(Reason::new("command_unknown", format!("this {title} does not know '{other}'; is the program newer than the server?")))
        }
    }
}

pub(crate) async fn reply(out: &mut UnixStream, value: &impl Serialize) -> Result<(), Reason> {
    status(out, "ok", "").await.map_err(wire_error)?;
    line(out, value).await.map_err(wire_error)
}

fn view(site: &Site, now: u64) -> StatusView {
    let (registry, tree, here) = (site.registry.borrow(), site.tree.borrow(), Platform::here());
    let agents = || registry.agents.values().filter(|a| a.removed_at.is_none());
    let own = site.own.borrow().as_ref().and_then(|own| super::own::command::view(own));
    let mut notes = site.settings.borrow().notes.clone();
    notes.extend(site.own.borrow().as_ref().and_then(|own| own.fleet_note(&site.settings.borrow().config)));
    let scheduled = site.own.borrow().as_ref().and_then(|own| own.scheduled_version());
    StatusView {
        version: env!("VMETRIC_BUILT_VERSION").into(),
        scheduled_version: scheduled,
        own,
        architecture: here.arch,
        os: here.os,
        issuer: registry.issuer.clone(),
        pin: tls::pin_text(&site.ca.pin()),
        certificate_until: Some(site.ca.leaf().0),
        certificate_names: Some(site.ca.leaf().1),
        certificate_error: site.certificate_error.borrow().clone(),
        company_until: site.ca.company().map(|c| c.until),
        company_error: site.company_error.borrow().clone(),
        browser_ca: Some(site.ca.browser_fingerprint()),
        listen: site.about.borrow().listen.clone(),
        started_at: registry.started_at,
        agents: agents().count() as u64,
        online: agents().filter(|a| now.saturating_sub(registry.last_contact(&a.id)) <= OFFLINE_AFTER_S).count() as u64,
        parked: site.parked() as u64,
        downloads: site.downloads.get() as u64,
        rollouts_running: registry.rollouts.values().filter(|r| r.state == "running").count() as u64,
        mirror: site.about.borrow().mirror.clone(),
        timestamp_version: tree.timestamp_version,
        releases: tree.releases.versions(site.role.product.name).iter().map(|v| v.to_string()).collect(),
        mirror_verified_at: tree.verified_at,
        config: site.settings.borrow().file.as_ref().map(|f| f.display().to_string()),
        config_error: site.settings.borrow().problem.as_ref().map(ToString::to_string),
        config_notes: Some(notes).filter(|n| !n.is_empty()),
        mirror_error: site.last_refresh.borrow().error.clone(),
        mirror_note: site.last_refresh.borrow().note.clone(),
        fleet: site.uplink.view.borrow().clone(),
        time: now,
    }
}

async fn activity(site: &Site, request: &AdminWire, out: &mut UnixStream) -> Result<(), Reason> {
    let wanted: Option<BTreeSet<String>> = request.agents.as_ref().map(|a| a.iter().cloned().collect());
    let limit = usize::try_from(request.limit.unwrap_or(EVENTS_SHOWN)).unwrap_or(usize::MAX);
    // What is followed begins where the store's rows end.
    site.store.durable().await.map_err(store_error)?;
    let update = request.update.clone();
    let fits = move |e: &Event| {
        wanted.as_ref().is_none_or(|w| w.contains(&e.agent)) && update.as_ref().is_none_or(|id| e.update.as_ref() == Some(id))
    };
    let keep = fits.clone();
    let old: Vec<Event> = site.store.newest(Table::Activity, limit, keep).await.map_err(store_error)?;
    let mut next = old.last().map_or(0, |e| e.seq + 1);
    status(out, "ok", "").await.map_err(wire_error)?;
    for event in &old {
        line(out, event).await.map_err(wire_error)?;
    }
    while request.follow == Some(true) {
        let wanted = |e: &&Event| e.seq >= next && fits(e);
        let fresh: Vec<Event> = site.registry.borrow().recent.iter().filter(wanted).cloned().collect();
        for event in &fresh {
            line(out, event).await.map_err(wire_error)?;
            next = event.seq + 1;
        }
        if fresh.is_empty() {
            site.followers.wait().await;
        }
    }
    Ok(())
}

async fn token(site: &Site, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    if let Some(id) = &request.revoke {
        site.acting(who, |registry| registry.revoke_token(id, now))?;
        site.flush();
        site.store.durable().await.map_err(store_error)?;
    }
    if request.revoke.is_some() || request.list == Some(true) {
        let view = site.registry.borrow().tokens_view(now);
        return reply(out, &view).await;
    }
    let (token, uses, expires_at) = make_token(site, request, who, now).await?;
    let url = site.about.borrow().url.clone();
    reply(out, &TokenView { token, uses, expires_at, pin: tls::pin_text(&site.ca.pin()), url }).await
}

async fn install_command(site: &Site, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let (os, arch) = (request.os.as_deref().unwrap_or("linux"), request.arch.as_deref().unwrap_or("amd64"));
    let tree = site.tree.borrow().clone();
    let artifact = dl::choose(&tree.releases, &site.registry.borrow(), os, arch, request.version.as_deref(), now)?;
    let root_version = tree.versions[0];
    let root = tree.entries.get(&format!("metadata/{root_version}.root.json"));
    let root = root.ok_or_else(|| Reason::new("not_ready", "the mirror has no root metadata yet; look at `status`"))?;
    let install = Install {
        product: if site.role.configured { install::AGENT } else { install::DIRECTOR },
        os: os.into(),
        arch: arch.into(),
        url: site.about.borrow().url.clone(),
        pin: tls::pin_text(&site.ca.pin()),
        certificates_sha256: hex::encode(&hex::sha256(site.ca.bundle().as_bytes())),
        root_version,
        root_sha256: root.sha256.clone(),
        version: artifact.path.version.to_string(),
        agent_sha256: hex::encode(&artifact.sha256),
        token: String::new(),
    };
    if install::command(&install).is_none() {
        let systems = install::SYSTEMS.iter().filter(|os| install::command(&Install { os: os.to_string(), ..install.clone() }).is_some());
        let systems: Vec<&str> = systems.copied().collect();
        let detail = format!("there is an install command for {}; on {os}, install by hand and enroll", systems.join(" and "));
        return Err(Reason::new("no_install_command", detail));
    }
    if tree.releases.away.contains_key(&artifact.path.to_string()) {
        // It is on its way before the first device asks.
        site.registry.borrow_mut().ask_for(artifact, now);
        site.flush();
    }
    // The token last: it is made only for a command that can be printed.
    let (token, uses, expires_at) = make_token(site, request, who, now).await?;
    let command = install::command(&Install { token: token.clone(), ..install.clone() }).unwrap_or_default();
    let Install { url, pin, version, agent_sha256: sha256, .. } = install;
    let (variable, program, enroll_at) = (site.role.enroll_variable, site.role.product.name, site.role.enroll_at);
    let enroll = format!("{variable}='{token}' {program} enroll {enroll_at} {url} --pin {pin}");
    reply(out, &InstallView { command, uses, expires_at, version, sha256, enroll: Some(enroll), pin: Some(pin) }).await
}

async fn make_token(site: &Site, request: &AdminWire, who: &str, now: u64) -> Result<(String, u64, u64), Reason> {
    let serials = request.serials.clone().unwrap_or_default();
    let approval = request.approval == Some(true);
    // A serial number is good once: it needs no date beside it.
    let life = if serials.is_empty() { TOKEN_TTL_S } else { TTL_NEVER_S };
    let (uses, ttl_s) = (request.uses.unwrap_or(serials.len().max(1) as u64), request.ttl_s.unwrap_or(life));
    if uses == 0 || ttl_s == 0 {
        return Err(Reason::new("bad_request", "a token needs at least one use and one second"));
    }
    let settings = request.settings.clone().filter(|settings| !settings.is_empty());
    let terms = Terms { uses, ttl_s, serials, approval, name: request.label.clone(), settings };
    let token = format!("vmt_{}_{}", site.token_site(), random_hex(32));
    let expires_at = site.acting(who, |registry| registry.create_token_for(&token, terms, now))?;
    site.flush();
    site.store.durable().await.map_err(store_error)?;
    Ok((token, uses, expires_at))
}

pub(super) fn asked(request: &AdminWire, role: &Role) -> Result<Assign, Reason> {
    let agents = match (request.all, &request.agents) {
        (Some(true), None) => None,
        (None | Some(false), Some(agents)) if !agents.is_empty() => Some(agents.clone()),
        _ => return Err(Reason::new("bad_request", format!("name the {}, or all of them", role.nodes))),
    };
    let limit = request.max_in_flight.as_deref().unwrap_or("10%");
    let (contact, shortest, longest) = CONTACT_DEADLINE_S;
    Ok(Assign {
        agents,
        product: request.product.clone().unwrap_or(role.product.name.into()),
        version: request.version.clone().unwrap_or_default(),
        in_flight: limit.parse::<InFlight>().map_err(|e| Reason::new("bad_request", e))?,
        max_failures: request.max_failures.unwrap_or(MAX_FAILURES),
        contact_deadline_s: request.contact_deadline_s.unwrap_or(contact).clamp(shortest, longest),
        unattended: request.unattended.unwrap_or(false),
        trial_max_s: request.trial_max_s.unwrap_or(TRIAL_MAX_S.0).min(TRIAL_MAX_S.1),
        end_probation: request.end_probation.unwrap_or(false),
        retry: request.retry.unwrap_or(false),
        switch_in_s: request.switch_in_s.unwrap_or(0).min(SWITCH_IN_MAX_S),
        life_s: request.life_s.unwrap_or(ROLLOUT_LIFE_S).clamp(LIFE_S.0, LIFE_S.1),
    })
}

async fn explain(site: &Site, request: &AdminWire, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let tree = site.tree.borrow().clone();
    let word = request.agents.as_ref().and_then(|a| a.first()).cloned().unwrap_or_default();
    let pending = {
        let registry = site.registry.borrow();
        registry.named_agent(&word).err().and_then(|_| registry.explain_pending(&word, now))
    };
    if let Some(view) = pending {
        return reply(out, &view).await;
    }
    let view = {
        let registry = site.registry.borrow();
        let id = registry.named_agent(&word)?;
        registry.explain(&id, &tree.releases, tree.timestamp_version, now)?
    };
    reply(out, &view).await
}

async fn mirror(site: &Site, request: &AdminWire, out: &mut UnixStream) -> Result<(), Reason> {
    if let Some(file) = &request.file {
        refresh::ask_import(site, Import { file: file.into(), accept_expired: request.accept_expired.unwrap_or(false) })?;
    }
    refresh::next(site, request.file.is_some()).await?;
    reply(out, &view(site, clock::unix())).await
}

async fn decide(site: &Site, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let word = request.agents.iter().chain(&request.serials).flatten().next().cloned().unwrap_or_default();
    let (approve, why) = (request.command == "approve", request.reason.as_deref());
    let view = site.acting(who, |registry| registry.decide(&word, approve, why, now))?;
    site.flush();
    site.store.durable().await.map_err(store_error)?;
    reply(out, &view).await
}

async fn remove(site: &Site, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let agents = request.agents.clone().unwrap_or_default();
    for id in &agents {
        site.acting(who, |registry| registry.remove(id, now))?;
        site.wake(id);
    }
    site.flush();
    site.planner.ring();
    site.store.durable().await.map_err(store_error)?;
    reply(out, &OrderedView { told: agents.len() as u64, ..Default::default() }).await
}

async fn replace(site: &Site, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let agents = request.agents.clone().unwrap_or_default();
    for id in &agents {
        site.acting(who, |registry| registry.replace_agent(id, now))?;
        site.call(id);
    }
    site.flush();
    site.store.durable().await.map_err(store_error)?;
    reply(out, &OrderedView { told: agents.len() as u64, ..Default::default() }).await
}
