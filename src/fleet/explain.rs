//! `explain DIRECTOR/AGENT`: what counts for an agent, as its Director applies it, each value with the tier that set it.
//!
//! The Director tells the settings of each tier that is in force there, its own word with Fleet's; they are merged here by the
//! same code ([`crate::core::policy::effective`]).

use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::intake::{Intake, SiteAgent};
use crate::core::policy::{Layer, Tier, effective};
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::commands::{reply, store_error};
use crate::director::policing::rows::Scope;
use crate::director::policing::show::{ValueView, values};
use crate::director::records::{NAME_MAX, clean};
use crate::director::site::Site;
use crate::director::table::{ago, utc};
use crate::wire::fleet_api::HealthWire;
use crate::wire::settings::SettingsWire;
use crate::wire::site_policy::TierWire;

/// As it travels to the running Fleet.
pub const COMMAND: &str = "explain-agent";

/// What counts for an agent.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct AgentExplainView {
    /// As its Director told of it.
    pub agent: SiteAgent,
    /// What is in force there, each value with the tier that set it.
    pub values: Vec<ValueView>,
    /// The tiers that it comes from, highest first.
    pub tiers: Vec<TierWire>,
    /// False: the Director does not tell its settings (a program from before this), or not yet that Fleet's newest ones are in
    /// force there; `values` is Fleet's word alone then.
    pub told: bool,
    /// When the Director told its settings, seconds since 1970.
    pub told_at: Option<u64>,
    /// Tiers that a person or a file at the Director set, in words.
    pub local: Vec<String>,
    /// Fleet's time.
    pub time: u64,
}

/// Runs it.
///
/// # Errors
/// `agent_unknown`, `store_unavailable`.
pub async fn run(intake: Rc<Intake>, site: &Rc<Site>, request: &AdminWire, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let word = request.agents.as_ref().and_then(|a| a.first()).cloned().unwrap_or_default();
    let (director, id) = word.split_once('/').ok_or_else(|| Reason::new("bad_request", "expected DIRECTOR/AGENT"))?;
    let director = site.registry.borrow().named_agent(director)?;
    site.store.durable().await.map_err(store_error)?;
    let agent = intake.agent(site, &director, id).await.map_err(store_error)?;
    let agent = agent.ok_or_else(|| {
        let detail =
            format!("Director {director} has told of no agent '{}'; `agents --director {director}` lists them", clean(id, NAME_MAX));
        Reason::new("agent_unknown", detail)
    })?;
    reply(out, &view(&intake, site, agent, now)).await
}

/// What counts for an agent that was told of.
pub fn view(intake: &Intake, site: &Site, agent: SiteAgent, now: u64) -> AgentExplainView {
    let (told, told_at) = intake.health_of(&agent.director).unzip();
    // What was told before Fleet's newest word would show a person who has just saved that nothing was saved.
    let newest = site.registry.borrow().handed_revision(&agent.director);
    let in_step = |health: &HealthWire| health.settings_revision.unwrap_or(0) == newest;
    let Some(above) = told.filter(in_step).and_then(|health| health.agents_policy) else {
        let scope = Scope::AgentOf(agent.director.clone(), agent.id.clone());
        let (tree, registry) = (site.tree.borrow().clone(), site.registry.borrow());
        let values = registry.scope_view(&scope, &[], &tree.releases, now).map(|view| view.effective).unwrap_or_default();
        return AgentExplainView { agent, values, told_at, time: now, ..Default::default() };
    };
    let tiers: Vec<TierWire> = above.into_iter().chain(agent.policy.clone()).collect();
    let layers: Vec<Layer> = tiers.iter().filter_map(layer).collect();
    let local = tiers.iter().filter_map(local).collect();
    AgentExplainView { agent, values: values(&effective(&layers)), tiers, told: true, told_at, local, time: now }
}

fn layer(wire: &TierWire) -> Option<Layer> {
    let tier = Tier::ALL.into_iter().find(|tier| tier.word() == wire.tier)?;
    Some(Layer { tier, on: wire.custom, settings: wire.settings.check().unwrap_or_default(), changed_at: wire.changed_at })
}

/// A tier that is the site's own word: a file's, or a person's there.
fn local(wire: &TierWire) -> Option<String> {
    let by = wire.by.as_deref().unwrap_or_default();
    let counts = wire.custom && wire.settings != SettingsWire { ..Default::default() };
    match (counts, wire.tier.as_str(), by) {
        (false, _, _) | (true, _, "fleet") => None,
        (true, "director_file", _) => Some("the agents: section of the Director's vmetric.yml".into()),
        (true, tier, by) => Some(format!("{tier}, by {by} at the Director, {}", utc(wire.changed_at))),
    }
}

/// The answer for people.
pub fn shown(view: &AgentExplainView) -> String {
    let a = &view.agent;
    let or_dash = |text: &Option<String>| text.clone().unwrap_or("-".into());
    let mut out = format!("agent {} of director {} ({})\n", a.id, a.director, or_dash(&a.hostname));
    let mut say = |name: &str, value: String| out += &format!("{name:<14} {value}\n");
    let next = a.scheduled_version.as_ref().map_or(String::new(), |next| format!(" -> {next}"));
    say("version", format!("{}{next}", or_dash(&a.version)));
    say("state", format!("{}: {}", or_dash(&a.state), a.detail.clone().or(a.code.clone()).unwrap_or("-".into())));
    view.values.iter().for_each(|v| say(&v.field, format!("{} ({})", v.value, v.tier)));
    match view.told {
        true => say("told", ago(view.time, view.told_at.unwrap_or(0))),
        false => say("note", "its Director has not told (yet) what is in force there; this is Fleet's word".into()),
    }
    view.local.iter().for_each(|text| say("set there", text.clone()));
    if let Some(version) = &a.needs {
        say(
            "waits",
            format!("for a person's word: `vmetric-fleet authorize --agents --director {} --agent {} {version}`", a.director, a.id),
        );
    }
    if let Some(auth) = &a.authorization {
        let why = auth.detail.as_ref().map_or(String::new(), |why| format!(": {why}"));
        say("authorization", format!("{} by {}, {} since {}{why}", auth.version, auth.by, auth.state, utc(auth.at)));
    }
    out
}
