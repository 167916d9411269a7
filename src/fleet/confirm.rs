//! `authorize --agents` and `authorizations`: a person's word for agents of Directors, confirmed here, carried out there.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::intake::{Intake, SiteAgent};
use crate::core::hex;
use crate::core::product::AGENT;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::args::Words;
use crate::director::commands::{reply, store_error};
use crate::director::policing::confirmations::{Confirm, ConfirmationRow};
use crate::director::records::{NAME_MAX, clean};
use crate::director::registry::AGENTS_MAX;
use crate::director::site::{Site, random_hex};
use crate::director::table::{Table, utc};
use crate::wire::fleet_api::CountWire;
use crate::wire::site_policy::{AuthorizedWire, ConfirmationStateWire};

/// As it travels to the running Fleet.
pub const COMMAND: &str = "authorize-agents";
/// Confirmations that a list shows.
const LISTED_MAX: usize = 1_000;
/// Agents that the view of one confirmation names.
const NAMED_SHOWN: usize = 1_000;

/// A confirmation as it is shown.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfirmationView {
    /// Its id.
    pub id: String,
    /// Whose agents.
    pub director: String,
    /// Which; absent = all that waited when it arrived.
    pub agents: Option<Vec<String>>,
    /// For which version.
    pub version: String,
    /// Who gave it.
    pub by: String,
    /// Seconds since 1970.
    pub given_at: u64,
    /// Not used after.
    pub expires_at: u64,
    /// `handed` (its Director has not told yet), `open`, `done`, `refused`, `revoking`, `revoked`, `expired`.
    pub state: String,
    /// Why; stable code.
    pub code: Option<String>,
    /// Why; for people.
    pub detail: Option<String>,
    /// Whose move it is: `agent`, `director`, `operator`; absent when it is over.
    pub owner: Option<String>,
    /// When the Director took it, by its clock.
    pub taken_at: Option<u64>,
    /// Agents by what became of it for them.
    pub counts: Vec<CountWire>,
}

/// One agent of a confirmation.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfirmedView {
    /// Whose agent.
    pub director: String,
    /// Which.
    pub agent: String,
    /// Its host name.
    pub hostname: String,
    /// What became of it.
    pub authorization: AuthorizedWire,
}

/// All of them, or one with its agents.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfirmationsView {
    /// The newest first.
    pub confirmations: Vec<ConfirmationView>,
    /// Of a single one: the agents that it reached, as their Director told.
    pub agents: Option<Vec<ConfirmedView>>,
    /// Fleet's time.
    pub time: u64,
}

/// Reads the options. False: it is about Directors.
///
/// # Errors
/// Wrong usage.
pub fn asks(word: &str, words: &mut Words, request: &mut AdminWire) -> Result<bool, String> {
    if word == "authorizations" {
        (request.command, request.revoke) = (COMMAND.into(), words.word()?);
        request.act = Some(if request.revoke.is_some() { "show" } else { "list" }.into());
        return Ok(true);
    }
    if word != "authorize" || !words.flag("--agents") {
        return Ok(false);
    }
    request.command = COMMAND.into();
    if words.flag("--revoke") {
        request.act = Some("revoke".into());
        request.revoke = Some(words.word()?.ok_or("authorize --agents --revoke needs the confirmation's ID; `authorizations` lists them")?);
        return Ok(true);
    }
    request.act = Some("give".into());
    (request.director, request.cluster) = (words.option("--director")?, words.option("--cluster")?);
    (request.agents, request.ttl_s) = (words.list("--agent")?, words.duration("--ttl")?);
    request.all = words.flag("--all").then_some(true);
    let missing = "authorize --agents needs the version: a confirmation is for one version, such as 2.5.0, or latest as it is now";
    request.version = Some(words.option("--version")?.map_or_else(|| words.word(), |v| Ok(Some(v)))?.ok_or(missing)?);
    let whom = [request.director.is_some(), request.cluster.is_some(), request.all.is_some()];
    if whom.into_iter().filter(|given| *given).count() != 1 || (request.agents.is_some() && request.director.is_none()) {
        return Err("authorize --agents needs whom: --director ID [--agent ID...], --cluster CLUSTER, or --all".into());
    }
    if let (Some(director), Some(agents)) = (&request.director, &mut request.agents) {
        agents.iter_mut().for_each(|agent| *agent = format!("{director}/{agent}"));
    }
    Ok(true)
}

/// Runs it.
///
/// # Errors
/// The reason.
pub async fn run(
    intake: Rc<Intake>,
    site: &Rc<Site>,
    request: &AdminWire,
    who: &str,
    now: u64,
    out: &mut UnixStream,
) -> Result<(), Reason> {
    site.store.durable().await.map_err(store_error)?;
    let id = request.revoke.clone().unwrap_or_default();
    let made: Vec<ConfirmationRow> = match request.act.as_deref() {
        Some("give") => give(&intake, site, request, who, now).await?,
        Some("revoke") => vec![site.acting(who, |registry| registry.revoke_confirmation(&id, now))?],
        _ => {
            let registry = site.registry.borrow();
            let wanted = |row: &&ConfirmationRow| id.is_empty() || row.wire.id == id;
            registry.confirmations().into_iter().filter(wanted).take(LISTED_MAX).cloned().collect()
        }
    };
    if made.is_empty() && !id.is_empty() {
        let detail = format!("there is no confirmation '{}'; `authorizations` lists them", clean(&id, NAME_MAX));
        return Err(Reason::new("confirmation_unknown", detail));
    }
    site.flush();
    site.store.durable().await.map_err(store_error)?;
    let agents = match request.act.as_deref() {
        Some("show") => Some(confirmed(&intake, site, &made).await?),
        _ => None,
    };
    let confirmations = made.iter().map(|row| view(&intake, row, now)).collect();
    reply(out, &ConfirmationsView { confirmations, agents, time: now }).await
}

async fn give(intake: &Rc<Intake>, site: &Rc<Site>, request: &AdminWire, who: &str, now: u64) -> Result<Vec<ConfirmationRow>, Reason> {
    let (version, files) = version(site, request.version.as_deref().unwrap_or_default())?;
    let whom = whom(intake, site, request, &version).await?;
    // All of them or none: what a later one is refused for must not leave half of them confirmed.
    site.acting(who, |registry| {
        let (mut made, mut refused) = (Vec::new(), None);
        for (director, agents) in whom {
            let id = format!("u-{}", random_hex(8));
            let ask = Confirm { id, director, agents, version: version.clone(), files: files.clone(), ttl_s: request.ttl_s };
            match registry.confirm_agents(ask, now) {
                Ok(row) => made.push(row),
                Err(reason) => refused = Some(reason),
            }
        }
        let Some(reason) = refused else { return Ok(made) };
        for row in made {
            registry.revoke_confirmation(&row.wire.id, now)?;
        }
        Err(reason)
    })
}

/// The exact version, and the SHA-256 of its file for each platform.
fn version(site: &Site, wanted: &str) -> Result<(String, Vec<String>), Reason> {
    let tree = site.tree.borrow().clone();
    let version = tree.releases.resolve(AGENT.name, wanted)?;
    let ours = tree.releases.artifacts.iter().filter(|a| a.path.product == AGENT.name && a.path.version == version);
    let programs = ours.filter(|a| a.path.file == a.path.platform.program(AGENT.name));
    Ok((version.to_string(), programs.map(|a| hex::encode(&a.sha256)).collect()))
}

type Whom = BTreeMap<String, Option<Vec<String>>>;

/// Which Directors, and which of their agents.
async fn whom(intake: &Rc<Intake>, site: &Rc<Site>, request: &AdminWire, version: &str) -> Result<Whom, Reason> {
    let named = |word: &str| site.registry.borrow().named_agent(word);
    let mut out = Whom::new();
    if let Some(agents) = &request.agents {
        for agent in agents {
            let (director, id) = agent.split_once('/').ok_or_else(|| Reason::new("bad_request", "agents: expected DIRECTOR/AGENT"))?;
            let director = named(director)?;
            if !intake.knows(&director, id) {
                let detail = format!("Director {director} has told of no agent '{}'; `agents` lists them", clean(id, NAME_MAX));
                return Err(Reason::new("agent_unknown", detail));
            }
            let list = out.entry(director).or_default().get_or_insert_default();
            if !list.iter().any(|have| have == id) {
                list.push(id.to_string());
            }
        }
    } else if let Some(cluster) = &request.cluster {
        out.extend(site.registry.borrow().named_cluster(cluster)?.members.iter().map(|member| (member.clone(), None)));
    } else if let Some(director) = &request.director {
        out.insert(named(director)?, None);
    } else if request.all == Some(true) {
        out = waiting_directors(&intake.agents(site, None, None, AGENTS_MAX).await.map_err(store_error)?, version)
            .into_iter()
            .filter(|director| site.registry.borrow().known(director).is_ok())
            .map(|director| (director, None))
            .collect();
        if out.is_empty() {
            return Err(Reason::new(
                "nothing_waits",
                format!("no agent waits for a person's word about {version}, as far as Directors told"),
            ));
        }
    }
    if out.is_empty() {
        return Err(Reason::new("bad_request", "name agents as DIRECTOR/AGENT, a director, a cluster, or all"));
    }
    Ok(out)
}

/// Directors with an agent that waits for this version.
fn waiting_directors(agents: &[SiteAgent], version: &str) -> BTreeSet<String> {
    agents.iter().filter(|a| a.needs.as_deref() == Some(version)).map(|a| a.director.clone()).collect()
}

/// The agents that a confirmation reached.
async fn confirmed(intake: &Intake, site: &Site, rows: &[ConfirmationRow]) -> Result<Vec<ConfirmedView>, Reason> {
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let agents = intake.agents(site, Some(&row.director), None, AGENTS_MAX).await.map_err(store_error)?;
    let ours = agents.into_iter().filter_map(|a| {
        let authorization = a.authorization.filter(|auth| auth.id.as_ref() == Some(&row.wire.id))?;
        Some(ConfirmedView { director: a.director, agent: a.id, hostname: a.hostname.unwrap_or_default(), authorization })
    });
    Ok(ours.take(NAMED_SHOWN).collect())
}

/// A confirmation with what its Director told of it.
pub fn view(intake: &Intake, row: &ConfirmationRow, now: u64) -> ConfirmationView {
    let told = intake.health_of(&row.director).and_then(|(health, _)| health.confirmations).unwrap_or_default();
    let told = told.into_iter().find(|state| state.id == row.wire.id);
    let (state, code, detail, owner) = standing(row, told.as_ref(), now);
    ConfirmationView {
        id: row.wire.id.clone(),
        director: row.director.clone(),
        agents: row.wire.agents.clone(),
        version: row.wire.version.clone(),
        by: row.wire.by.clone(),
        given_at: row.wire.given_at,
        expires_at: row.wire.expires_at,
        state: state.into(),
        code,
        detail,
        owner: owner.map(str::to_string),
        taken_at: told.as_ref().and_then(|t| t.taken_at),
        counts: told.map(|t| t.agents).unwrap_or_default(),
    }
}

type Standing = (&'static str, Option<String>, Option<String>, Option<&'static str>);

fn standing(row: &ConfirmationRow, told: Option<&ConfirmationStateWire>, now: u64) -> Standing {
    let revoked = row.wire.revoked == Some(true);
    let say = |code: &str, detail: &str| (Some(code.to_string()), Some(detail.to_string()));
    let Some(told) = told else {
        let (state, (code, detail), owner) = match (revoked, row.wire.expires_at <= now) {
            (_, true) => ("expired", say("confirmation_expired", "its Director did not take it in time"), None),
            (true, _) => ("revoking", say("director_untold", "its Director has not told yet that it heard"), Some("director")),
            _ => ("handed", say("director_untold", "its Director has not taken it yet"), Some("director")),
        };
        return (state, code, detail, owner);
    };
    let reason = (told.code.clone(), told.detail.clone());
    let open = |states: &[&str]| told.agents.iter().any(|count| count.count > 0 && states.contains(&count.state.as_str()));
    let (state, owner) = match told.state.as_str() {
        "revoked" if open(&["ordered"]) => ("revoked", Some("agent")),
        "revoked" => ("revoked", None),
        "refused" => ("refused", None),
        _ if revoked => ("revoking", Some("director")),
        _ if open(&["ordered"]) => ("open", Some("agent")),
        _ if open(&["waiting", "confirmed"]) => ("open", Some("director")),
        _ if reason.0.is_some() => ("refused", None),
        _ => ("done", None),
    };
    (state, reason.0, reason.1, owner)
}

/// `3 done, 1 failed`, the most telling first.
pub fn counts(view: &ConfirmationView) -> String {
    let all: Vec<String> = view.counts.iter().map(|c| format!("{} {}", c.count, c.state)).collect();
    if all.is_empty() { "-".into() } else { all.join(", ") }
}

/// The answer for people.
pub fn shown(view: &ConfirmationsView) -> String {
    if view.confirmations.is_empty() {
        return "nothing is confirmed for agents; `authorize --agents --all VERSION` confirms what waits\n".into();
    }
    let mut table = Table::new(&["ID", "VERSION", "DIRECTOR", "AGENTS", "STATE", "UNTIL", "BY", "SO FAR", "WHY"]);
    for c in &view.confirmations {
        let whom = c.agents.as_ref().map_or("all that wait".into(), |list| list.len().to_string());
        let why = c.detail.clone().unwrap_or_default();
        let cells = [&c.id, &c.version, &c.director, &whom, &c.state, &utc(c.expires_at), &c.by, &counts(c), &why];
        table.row(cells.into_iter().cloned().collect());
    }
    let mut out = table.text();
    if let Some(agents) = &view.agents {
        let mut table = Table::new(&["AGENT", "STATE", "SINCE", "WHY"]);
        for a in agents {
            let auth = &a.authorization;
            table.row(vec![a.agent.clone(), auth.state.clone(), utc(auth.at), auth.detail.clone().unwrap_or_default()]);
        }
        out += &format!("\n{}", table.text());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::site_policy::ConfirmationWire;

    #[test]
    fn every_state_has_its_owner_and_its_reason() {
        let row = |revoked: Option<bool>| ConfirmationRow {
            wire: ConfirmationWire { expires_at: 100, revoked, ..Default::default() },
            ..Default::default()
        };
        let told = |state: &str, agents: &[(&str, u64)], code: Option<&str>| ConfirmationStateWire {
            state: state.into(),
            code: code.map(str::to_string),
            agents: agents.iter().map(|(state, count)| CountWire { state: state.to_string(), count: *count }).collect(),
            ..Default::default()
        };
        let of = |revoked, told: Option<ConfirmationStateWire>, now| {
            let (state, code, _, owner) = standing(&row(revoked), told.as_ref(), now);
            (state, code.is_some(), owner)
        };
        assert_eq!(of(None, None, 0), ("handed", true, Some("director")));
        assert_eq!(of(None, None, 100), ("expired", true, None));
        assert_eq!(of(Some(true), None, 0), ("revoking", true, Some("director")));
        assert_eq!(of(None, Some(told("taken", &[("confirmed", 1)], None)), 0), ("open", false, Some("director")));
        assert_eq!(of(None, Some(told("taken", &[("ordered", 1), ("done", 2)], None)), 0), ("open", false, Some("agent")));
        assert_eq!(of(None, Some(told("taken", &[("done", 2), ("failed", 1)], None)), 0), ("done", false, None));
        assert_eq!(of(None, Some(told("taken", &[], Some("nothing_authorized"))), 0), ("refused", true, None));
        assert_eq!(of(None, Some(told("refused", &[], Some("confirmation_expired"))), 0), ("refused", true, None));
        assert_eq!(of(Some(true), Some(told("taken", &[("confirmed", 1)], None)), 0), ("revoking", false, Some("director")));
        assert_eq!(of(Some(true), Some(told("revoked", &[("revoked", 1)], None)), 0), ("revoked", false, None));
    }
}
