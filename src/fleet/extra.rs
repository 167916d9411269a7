//! What Fleet adds to the server that it shares with the Director.

use std::cell::RefCell;
use std::rc::Rc;

use smol::LocalExecutor;

use super::intake::Intake;
use crate::director::extra::Extra;
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

    fn start(&self, site: &Rc<Site>, executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
        let intake = Rc::new(Intake::load(&site.store)?);
        executor.spawn(intake.clone().keep_house(site.clone())).detach();
        *self.intake.borrow_mut() = Some(intake);
        Ok(())
    }
}
