//! `policy` and `authorize`: from the command line to the running server, and back to people.

use std::rc::Rc;

use smol::net::unix::UnixStream;

use super::grants::{Authorize, AuthorizeView};
use super::rows::{PolicyChange, Scope};
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

fn policy(words: &mut Words, node: &str, request: &mut AdminWire) -> Result<(), String> {
    let node = format!("--{node}");
    let act = words.word()?.filter(|act| matches!(act.as_str(), "show" | "set" | "unset"));
    let act = act.ok_or("expected `policy show`, `policy set` or `policy unset`")?;
    let handed = node == "--director" && words.flag("--agents");
    let (one, agent) = (words.option(&node)?, if handed { words.option("--agent")? } else { None });
    let everybody = words.flag("--default");
    if one.is_some() && everybody {
        return Err(format!("either {node} ID or --default"));
    }
    if act == "set" {
        let mut settings = SettingsWire { ..Default::default() };
        for name in FIELDS {
            if let Some(field) = settings.field(name) {
                *field = words.option(&format!("--{name}"))?;
            }
        }
        settings.check_values().map_err(|wrong| format!("--{}: {}", wrong.field, wrong.what))?;
        let custom = words.option("--custom")?.map(|text| match text.as_str() {
            "on" => Ok(true),
            "off" => Ok(false),
            other => Err(format!("--custom {other}: expected on or off")),
        });
        (request.custom, request.settings) = (custom.transpose()?, Some(settings));
        let nothing = request.custom.is_none() && request.settings.as_ref().is_some_and(SettingsWire::is_empty);
        if nothing {
            return Err(format!("policy set needs something to set: --{}, or --custom on|off", FIELDS.join(", --")));
        }
    }
    if act == "unset" {
        let named: Vec<String> = FIELDS.iter().filter(|name| words.flag(&format!("--{name}"))).map(|name| name.to_string()).collect();
        request.clear = Some(if named.is_empty() { FIELDS.map(String::from).to_vec() } else { named });
    }
    if act != "show" {
        request.expected = words.number("--revision")?;
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
        None if act == "show" && !everybody => words.word()?.map(|id| vec![id]),
        None => None,
    };
    request.act = Some(act);
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
    let node = match request.agents.as_ref().and_then(|a| a.first()) {
        Some(word) => Some(site.registry.borrow().named_agent(word)?),
        None => None,
    };
    if request.act.as_deref() != Some("show") {
        let scope = match &request.scope {
            Some(key) => Scope::of(key)?,
            None => node.clone().map_or_else(|| default_scope(site), Scope::Node),
        };
        if let Scope::AgentsOf(director) | Scope::AgentOf(director, _) = &scope {
            site.registry.borrow().known(director)?;
        }
        let change = PolicyChange {
            set: request.settings.clone().unwrap_or(SettingsWire { ..Default::default() }),
            clear: request.clear.clone().unwrap_or_default(),
            replace: false,
            custom: request.custom,
            expected: request.expected,
        };
        site.acting(who, |registry| registry.set_policy(&scope, &change, now))?;
        site.decide_now(now).await?;
    }
    let view = show(site, node.as_deref(), now)?;
    reply(out, &view).await
}

/// What a server says for all that it manages: Fleet's word is the organization's.
pub fn default_scope(site: &Site) -> Scope {
    if site.role.configured { Scope::Default } else { Scope::Organization }
}

fn show(site: &Site, node: Option<&str>, now: u64) -> Result<PolicyView, Reason> {
    let tree = site.tree.borrow().clone();
    let registry = site.registry.borrow();
    match node {
        Some(id) => registry.policy_view(id, &tree.releases, now),
        None => Ok(registry.policies_view(now)),
    }
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
        let wake = if self.draining.get() {
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
