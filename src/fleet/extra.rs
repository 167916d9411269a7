//! What Fleet adds to the server that it shares with the Director.

use std::cell::RefCell;
use std::rc::Rc;

use smol::LocalExecutor;
use smol::net::unix::UnixStream;

use super::access::{Access, doors};
use super::api::Api;
use super::gui::Gui;
use super::intake::Intake;
use super::told;
use crate::director::admin::AdminWire;
use crate::director::extra::{Commanded, Extra};
use crate::director::metrics::Page;
use crate::director::site::Site;
use crate::io::serve::{Answer, Request};

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
}

impl FleetExtra {
    /// What Directors told.
    pub fn intake(&self) -> Option<Rc<Intake>> {
        self.intake.borrow().clone()
    }
}

impl Extra for FleetExtra {
    fn body_limit(&self, method: &str, path: &str) -> Option<usize> {
        let limit = self.api.body_limit(path).or_else(|| doors::body_limit(path)).or_else(|| self.intake()?.body_limit(method, path));
        limit.or_else(|| self.gui.body_limit(method, path))
    }

    fn call(&self, site: &Rc<Site>, request: &Request) -> Option<Answer> {
        let answer = self.api.call(site, request, self.intake()).or_else(|| doors::call(&self.access, site, request));
        let answer = answer.or_else(|| self.intake()?.call(site, request));
        answer.or_else(|| self.gui.call(site, request, &self.intake()?))
    }

    fn metrics(&self, site: &Rc<Site>, page: &mut Page) {
        let Some(intake) = self.intake() else { return };
        page.head("director_agents", "gauge", "Agents that each Director told of.");
        let registry = site.registry.borrow();
        for id in registry.agents.values().filter(|d| d.removed_at.is_none()).map(|d| &d.id).take(DIRECTORS_MAX) {
            page.value("director_agents", &[("director", id)], intake.agents_of(id) as u64);
        }
    }

    fn command<'a>(&'a self, site: &'a Rc<Site>, request: &'a AdminWire, _who: &'a str, out: &'a mut UnixStream) -> Option<Commanded<'a>> {
        let intake = self.intake()?;
        told::COMMANDS.contains(&request.command.as_str()).then(|| -> Commanded<'a> { Box::pin(told::run(intake, site, request, out)) })
    }

    fn start(&self, site: &Rc<Site>, executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
        let intake = Rc::new(Intake::load(&site.store)?);
        executor.spawn(intake.clone().keep_house(site.clone())).detach();
        executor.spawn(self.gui.live.clone().run(site.clone())).detach();
        *self.intake.borrow_mut() = Some(intake);
        self.access.start(site)
    }
}
