//! What Fleet adds to the server that it shares with the Director.

use std::cell::RefCell;
use std::rc::Rc;

use smol::LocalExecutor;
use smol::net::unix::UnixStream;

use super::access::{Access, command, door, doors, rules};
use super::api::Api;
use super::clusters;
use super::confirm;
use super::explain;
use super::gui::Gui;
use super::intake::Intake;
use super::lease;
use super::notices::Notices;
use super::store;
use super::templates;
use super::told;
use super::webhooks;
use crate::core::reason::Reason;
use crate::director::admin::AdminWire;
use crate::director::args::Run;
use crate::director::commands::store_error;
use crate::director::extra::{Commanded, Extra, Logged, Looked, Prepared};
use crate::director::metrics::Page;
use crate::director::policing::rows::Scope;
use crate::director::policing::scopes::Concerned;
use crate::director::records::{NAME_MAX, clean};
use crate::director::site::Site;
use crate::io::clock;
use crate::io::serve::{Answer, Request};

/// Agents that are looked at for warnings before a policy is saved: platforms are few, however many agents there are.
const CONCERNED_MAX: usize = 20_000;
/// Directors that have a series of their own in `/metrics`.
const DIRECTORS_MAX: usize = 1_000;

/// Fleet's own part.
#[derive(Default)]
pub struct FleetExtra {
    /// There from the start on.
    intake: RefCell<Option<Rc<Intake>>>,
    api: Api,
    /// Who gets in.
    pub access: Rc<Access>,
    gui: Rc<Gui>,
    notices: Rc<Notices>,
    /// Where it keeps what several Fleets share, and whether that takes the place of its own.
    store: Option<String>,
    join: bool,
}

impl FleetExtra {
    /// For a run.
    pub fn of(run: &Run) -> FleetExtra {
        FleetExtra { store: run.store.clone(), join: run.join, ..FleetExtra::default() }
    }

    /// What Directors told.
    pub fn intake(&self) -> Option<Rc<Intake>> {
        self.intake.borrow().clone()
    }
}

impl Extra for FleetExtra {
    fn body_limit(&self, method: &str, path: &str) -> Option<usize> {
        let limit = self.api.body_limit(path).or_else(|| doors::body_limit(path)).or_else(|| lease::body_limit(method, path));
        let limit = limit.or_else(|| self.intake()?.body_limit(method, path));
        limit.or_else(|| self.gui.body_limit(method, path))
    }

    fn call(&self, site: &Rc<Site>, request: &Request) -> Option<Answer> {
        let answer = self.api.call(site, request, self.intake()).or_else(|| doors::call(&self.access, site, request));
        let answer = answer.or_else(|| self.intake()?.call(site, request));
        let answer = answer.or_else(|| lease::call(&self.intake()?, site, request));
        let answer = answer.or_else(|| self.gui.call(site, request, &self.intake()?));
        // The server's own paths went before: nothing has this one.
        answer.or_else(|| Some(Box::pin(std::future::ready(self.gui.lost(site, request, 404)?))))
    }

    fn concerned<'a>(&'a self, site: &'a Rc<Site>, scope: &'a Scope) -> Looked<'a> {
        match self.intake() {
            Some(intake) => Box::pin(agents_concerned(intake, site, scope)),
            None => Box::pin(std::future::ready(Ok(Vec::new()))),
        }
    }

    fn metrics(&self, site: &Rc<Site>, page: &mut Page) {
        let Some(intake) = self.intake() else { return };
        page.head("director_agents", "gauge", "Agents that each Director told of.");
        let registry = site.registry.borrow();
        for id in registry.agents.values().filter(|d| d.removed_at.is_none()).map(|d| &d.id).take(DIRECTORS_MAX) {
            page.value("director_agents", &[("director", id)], intake.agents_of(id) as u64);
        }
    }

    fn command<'a>(&'a self, site: &'a Rc<Site>, request: &'a AdminWire, who: &'a str, out: &'a mut UnixStream) -> Option<Commanded<'a>> {
        if request.command == clusters::COMMAND {
            return Some(Box::pin(clusters::run(site, request, who, clock::unix(), out)));
        }
        if command::COMMANDS.contains(&request.command.as_str()) {
            return Some(Box::pin(command::run(&self.access, site, request, who, out)));
        }
        if request.command == webhooks::COMMAND {
            return Some(Box::pin(webhooks::run(self.notices.clone(), site, request, who, clock::unix(), out)));
        }
        let intake = self.intake()?;
        if request.command == templates::COMMAND {
            return Some(Box::pin(templates::run(intake, site, request, who, clock::unix(), out)));
        }
        if request.command == confirm::COMMAND {
            return Some(Box::pin(confirm::run(intake, site, request, who, clock::unix(), out)));
        }
        if request.command == explain::COMMAND {
            return Some(Box::pin(explain::run(intake, site, request, clock::unix(), out)));
        }
        told::COMMANDS.contains(&request.command.as_str()).then(|| -> Commanded<'a> { Box::pin(told::run(intake, site, request, out)) })
    }

    fn logged<'a>(&'a self, site: &'a Rc<Site>, request: &'a AdminWire, who: &'a str) -> Option<Logged<'a>> {
        let logged = || Box::pin(door::logged(&self.access, site, request.clone(), who, "", Ok(()))) as Logged<'a>;
        (!rules::only_looks(request)).then(logged)
    }

    fn prepare<'a>(&'a self, site: &'a Rc<Site>, executor: &'a Rc<LocalExecutor<'static>>) -> Prepared<'a> {
        Box::pin(store::site::begin(site, self.store.as_deref(), self.join, executor))
    }

    fn start(&self, site: &Rc<Site>, executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
        let intake = Rc::new(Intake::load(&site.store)?);
        executor.spawn(intake.clone().keep_house(site.clone())).detach();
        self.gui.start(site, &intake, executor)?;
        self.notices.load(&site.store)?;
        self.notices.begin(site, &intake);
        executor.spawn(self.notices.clone().look_forever(site.clone(), intake.clone())).detach();
        executor.spawn(self.notices.clone().deliver_forever(site.clone())).detach();
        *self.intake.borrow_mut() = Some(intake);
        self.access.start(site)?;
        executor.spawn(self.access.clone().keep_house(site.clone())).detach();
        Ok(())
    }
}

/// The Directors' agents that settings are for, as they told of them. A single one that nobody told of is refused: it is
/// mistyped, or gone.
async fn agents_concerned(intake: Rc<Intake>, site: &Rc<Site>, scope: &Scope) -> Result<Vec<Concerned>, Reason> {
    let director = match scope {
        Scope::AgentsOf(director) | Scope::AgentOf(director, _) => Some(director.as_str()),
        _ => None,
    };
    if let Scope::AgentOf(director, agent) = scope
        && !intake.knows(director, agent)
    {
        let agent = clean(agent, NAME_MAX);
        let detail = format!("Director {director} has told of no agent '{agent}'; `agents --director {director}` lists them");
        return Err(Reason::new("agent_unknown", detail));
    }
    site.store.durable().await.map_err(store_error)?;
    let mut agents = Vec::new();
    match scope {
        Scope::AgentsOfCluster(id) => {
            let members = site.registry.borrow().named_cluster(id)?.members.clone();
            for member in members {
                agents.extend(intake.agents(site, Some(&member), None, CONCERNED_MAX).await.map_err(store_error)?);
            }
        }
        _ => agents = intake.agents(site, director, None, CONCERNED_MAX).await.map_err(store_error)?,
    }
    let wanted = |id: &str| !matches!(scope, Scope::AgentOf(_, agent) if agent != id);
    let text = |text: Option<String>| text.unwrap_or_default();
    let seen = agents.into_iter().filter(|a| wanted(&a.id));
    Ok(seen
        .map(|a| Concerned { os: text(a.os), arch: text(a.architecture), version: text(a.version), sha256: text(a.running_sha256) })
        .collect())
}
