//! What Fleet adds to the server that it shares with the Director.

use std::cell::RefCell;
use std::rc::Rc;

use smol::LocalExecutor;
use smol::net::unix::UnixStream;

use super::intake::Intake;
use super::told;
use crate::director::admin::AdminWire;
use crate::director::extra::{Commanded, Extra};
use crate::director::site::Site;
use crate::io::serve::{Answer, Request};

/// Fleet's own part.
#[derive(Default)]
pub struct FleetExtra {
    /// There from the start on.
    intake: RefCell<Option<Rc<Intake>>>,
}

impl FleetExtra {
    /// What Directors told.
    pub fn intake(&self) -> Option<Rc<Intake>> {
        self.intake.borrow().clone()
    }
}

impl Extra for FleetExtra {
    fn body_limit(&self, method: &str, path: &str) -> Option<usize> {
        self.intake()?.body_limit(method, path)
    }

    fn call(&self, site: &Rc<Site>, request: &Request) -> Option<Answer> {
        self.intake()?.call(site, request)
    }

    fn command<'a>(&'a self, site: &'a Rc<Site>, request: &'a AdminWire, _who: &'a str, out: &'a mut UnixStream) -> Option<Commanded<'a>> {
        let intake = self.intake()?;
        told::COMMANDS.contains(&request.command.as_str()).then(|| -> Commanded<'a> { Box::pin(told::run(intake, site, request, out)) })
    }

    fn start(&self, site: &Rc<Site>, executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
        let intake = Rc::new(Intake::load(&site.store)?);
        executor.spawn(intake.clone().keep_house(site.clone())).detach();
        *self.intake.borrow_mut() = Some(intake);
        Ok(())
    }
}
