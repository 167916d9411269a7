//! `policy` and `authorize`: from the command line to the running server, and back to people.

use std::rc::Rc;

use smol::net::unix::UnixStream;

use super::grants::{Authorize, AuthorizeView};
use super::rows::{PolicyChange, Scope};
use super::scopes::Concerned;
use super::show::PolicyView;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::args::Words;
use crate::director::commands::{reply, store_error};
use crate::director::site::Site;
use crate::director::table::utc;
use crate::wire::settings::{FIELDS, SettingsWire};

/// Reads the rest of a command line. False: it is another command.
///
/// # Errors
/// One sentence.
pub fn parse(command: &str, words: &mut Words, node: &str, request: &mut AdminWire) -> Result<bool, String> {
    match command {
        "policy" => policy(words, node, request)?,
        "authorize" => authorize(words, node, request)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Acts of `policy`.
const ACTS: [&str; 5] = ["show", "set", "unset", "check", "history"];

fn policy(words: &mut Words, node: &str, request: &mut AdminWire) -> Result<(), String> {
    let node = format!("--{node}");
    let act = words.word()?.filter(|act| ACTS.contains(&act.as_str()));
    let act = act.ok_or("expected `policy show`, `policy set`, `policy unset`, `policy check` or `policy history`")?;
    let fleet = node == "--director";
    let handed = fleet && words.flag("--agents");
    let (one, agent) = (words.option(&node)?, if handed { words.option("--agent")? } else { None });
    let cluster = if fleet { words.option("--cluster")? } else { None };
    let everybody = words.flag("--default");
    if (handed && one.is_some() && cluster.is_some())
        || usize::from(one.is_some() || (handed && cluster.is_none())) + usize::from(everybody) + usize::from(cluster.is_some()) > 1
    {
        return Err(format!("either {node} ID or --default{}", if fleet { ", or --agents, or --cluster CLUSTER" } else { "" }));
    }
    match act.as_str() {
        "set" | "check" => settings(words, &act, request)?,
        "unset" => {
            let named: Vec<String> = FIELDS.iter().filter(|name| words.flag(&format!("--{name}"))).map(|name| name.to_string()).collect();
            request.clear = Some(if named.is_empty() { FIELDS.map(String::from).to_vec() } else { named });
        }
        "history" => (request.limit, request.before) = (words.number("--limit")?, words.number("--before")?),
        _ => {}
    }
    if matches!(act.as_str(), "set" | "unset") {
        request.expected = words.number("--revision")?;
    }
    request.cluster = cluster;
    if handed && request.cluster.is_some() {
        if agent.is_some() {
            return Err("--agents --agent ID needs the agent's --director".into());
        }
        (request.scope, request.act) = (Some(Scope::Agents.key()), Some(act));
        return Ok(());
    }
    if handed {
        let scope = match (one, agent) {
            (None, None) => Scope::Agents,
            (Some(director), None) => Scope::AgentsOf(director),
            (Some(director), Some(agent)) => Scope::AgentOf(director, agent),
            (None, Some(_)) => return Err("--agents --agent ID needs the agent's --director".into()),
        };
        (request.scope, request.act) = (Some(scope.key()), Some(act));
        return Ok(());
    }
    request.agents = match one {
        Some(id) => Some(vec![id]),
        None if act == "show" && !everybody && request.cluster.is_none() => words.word()?.map(|id| vec![id]),
        None => None,
    };
    // The history of everything, unless somebody names whose.
    request.all = (act == "history" && !everybody).then_some(true);
    request.act = Some(act);
    Ok(())
}

/// The settings among the options of a command, each value checked.
///
/// # Errors
/// One sentence.
pub fn settings_of(words: &mut Words, request: &mut AdminWire) -> Result<(), String> {
    settings(words, "check", request)?;
    let said = request.settings.as_ref().map(SettingsWire::check_values);
    said.transpose().map(drop).map_err(|wrong| format!("--{}: {}", wrong.field, wrong.what))
}

fn settings(words: &mut Words, act: &str, request: &mut AdminWire) -> Result<(), String> {
    let mut settings = SettingsWire { ..Default::default() };
    for name in FIELDS {
        if let Some(field) = settings.field(name) {
            *field = words.option(&format!("--{name}"))?;
        }
    }
    let custom = words.switch("--custom")?;
    request.replace = words.flag("--replace").then_some(true);
    if act == "set" {
        settings.check_values().map_err(|wrong| format!("--{}: {}", wrong.field, wrong.what))?;
    }
    (request.custom, request.settings) = (custom, Some(settings));
    let nothing = request.custom.is_none() && request.settings.as_ref().is_some_and(SettingsWire::is_empty);
    if nothing && act == "set" {
        return Err(format!("policy set needs something to set: --{}, or --custom on|off", FIELDS.join(", --")));
    }
    Ok(())
}

fn authorize(words: &mut Words, node: &str, request: &mut AdminWire) -> Result<(), String> {
    let node = format!("--{node}");
    request.ttl_s = words.duration("--ttl")?;
    request.all = words.flag("--all").then_some(true);
    request.agents = words.list(&node)?;
    let revoke = words.flag("--revoke");
    if request.agents.is_none() && request.all.is_none() {
        request.agents = words.word()?.map(|id| vec![id]);
    }
    if request.agents.is_some() == request.all.is_some() {
        return Err(format!("authorize needs whom: ID, {node} ID..., or --all"));
    }
    request.act = Some(if revoke { "revoke" } else { "give" }.into());
    if !revoke {
        let missing = "authorize needs the version: an authorization is for one version, such as 2.5.0, or latest as it is now";
        request.version = Some(words.option("--version")?.map_or_else(|| words.word(), |v| Ok(Some(v)))?.ok_or(missing)?);
    }
    Ok(())
}

/// Runs `policy`.
///
/// # Errors
/// The reason.
pub async fn run_policy(site: &Rc<Site>, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let scope = scope_of(site, request)?;
    let change = PolicyChange {
        set: request.settings.clone().unwrap_or(SettingsWire { ..Default::default() }),
        clear: request.clear.clone().unwrap_or_default(),
        replace: request.replace == Some(true),
        custom: request.custom,
        expected: request.expected,
    };
    let tree = site.tree.borrow().clone();
    match request.act.as_deref() {
        Some("history") => {
            let key = scope.key();
            let limit = request.limit.unwrap_or(HISTORY_SHOWN);
            let key = (request.all != Some(true) || request.agents.is_some()).then_some(key.as_str());
            let view = site.registry.borrow().history(key, request.before, limit, now);
            return reply(out, &view).await;
        }
        Some("check") => {
            let concerned = concerned(site, &scope).await?;
            let view = site.registry.borrow().check_policy(&scope, &change, &concerned, &tree.releases, now)?;
            return reply(out, &view).await;
        }
        Some("show") => {}
        _ => {
            // Whoever is named has to be there.
            concerned(site, &scope).await?;
            site.acting(who, |registry| registry.set_policy(&scope, &change, now))?;
            site.decide_now(now).await?;
        }
    }
    let concerned = concerned(site, &scope).await?;
    let view = {
        let registry = site.registry.borrow();
        let view = match &scope {
            Scope::Node(id) => registry.policy_view(id, &tree.releases, now)?,
            _ => registry.policies_view(now),
        };
        PolicyView { scope: Some(registry.scope_view(&scope, &concerned, &tree.releases, now)?), ..view }
    };
    reply(out, &view).await
}

/// Changes shown without `--limit`.
const HISTORY_SHOWN: u64 = 50;

/// Whose settings are meant; words become ids.
fn scope_of(site: &Site, request: &AdminWire) -> Result<Scope, Reason> {
    let registry = site.registry.borrow();
    if let Some(word) = &request.cluster {
        let id = registry.named_cluster(word)?.id.clone();
        let agents = request.scope.as_deref() == Some("agents");
        return Ok(if agents { Scope::AgentsOfCluster(id) } else { Scope::Cluster(id) });
    }
    let scope = match (&request.scope, request.agents.as_ref().and_then(|a| a.first())) {
        (Some(key), _) => Scope::of(key)?,
        (None, Some(word)) => Scope::Node(word.clone()),
        (None, None) => default_scope(site),
    };
    Ok(match scope {
        Scope::Node(word) => Scope::Node(registry.named_agent(&word)?),
        Scope::AgentsOf(word) => Scope::AgentsOf(registry.named_agent(&word)?),
        Scope::AgentsOfCluster(word) => Scope::AgentsOfCluster(registry.named_cluster(&word)?.id.clone()),
        Scope::AgentOf(word, agent) => Scope::AgentOf(registry.named_agent(&word)?, agent),
        other => other,
    })
}

/// The nodes that settings are for: this server's, or what others told.
async fn concerned(site: &Rc<Site>, scope: &Scope) -> Result<Vec<Concerned>, Reason> {
    if let Some(own) = site.registry.borrow().concerned(scope) {
        return Ok(own);
    }
    let extra = site.extra.borrow().clone();
    match &extra {
        Some(extra) => extra.concerned(site, scope).await,
        None => Ok(Vec::new()),
    }
}

/// What a server says for all that it manages: Fleet's word is the organization's.
pub fn default_scope(site: &Site) -> Scope {
    if site.role.configured { Scope::Default } else { Scope::Organization }
}

/// Runs `authorize`.
///
/// # Errors
/// The reason.
pub async fn run_authorize(site: &Rc<Site>, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let tree = site.tree.borrow().clone();
    let view = site.acting(who, |registry| match request.act.as_deref() {
        Some("revoke") => registry.revoke_grants(request.agents.as_deref(), now),
        _ => {
            let ask =
                Authorize { nodes: request.agents.clone(), version: request.version.clone().unwrap_or_default(), ttl_s: request.ttl_s };
            registry.authorize(&ask, &tree.releases, now)
        }
    })?;
    site.decide_now(now).await?;
    reply(out, &view).await
}

impl Site {
    /// Decides by the new settings at once, and waits until all of it is durable.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn decide_now(&self, now: u64) -> Result<(), Reason> {
        let wake = if self.draining.get() || self.tree.borrow().checking {
            Vec::new()
        } else {
            let tree = self.tree.borrow().clone();
            self.registry.borrow_mut().advance_all(&tree.releases, now)
        };
        let delivered = self.deliver(wake).await;
        self.planner.ring();
        delivered.map_err(store_error)?;
        self.store.durable().await.map_err(store_error)
    }
}

/// `authorize` for people.
pub fn authorized(view: &AuthorizeView) -> String {
    let mut out = String::new();
    for row in &view.authorized {
        out += &format!(
            "{}: {} ({}) authorized until {}\n",
            row.node,
            row.version,
            &row.sha256[..row.sha256.len().min(8)],
            utc(row.expires_at)
        );
    }
    for left in &view.left_out {
        out += &format!("{}: left out: {} ({})\n", left.agent, left.detail, left.code);
    }
    for node in &view.revoked {
        out += &format!("{node}: authorization taken back\n");
    }
    out
}
