//! The web GUI: server-rendered pages, a third door to the commands beside the CLI and the REST API.
//!
//! ```text
//!  request -> routes (who may) -> page function (looks, or asks a command) -> template -> layout -> answer
//!                                     | a form that was good: 303 and a toast; one that was not: the same page, 422
//!  /live   -> the same page function -> its live regions -> only those that changed, to every browser that has it open
//! ```
//!
//! Everything works without JavaScript; the one script adds live data, local times and copy buttons. No page loads anything
//! from elsewhere, and none has script or style in it: the policy in [`page`] forbids both.
//!
//! Absent on purpose: state. A page is made from what the server knows at that moment, and what was typed stands in the form.

pub mod ask;
pub mod assets;
pub mod charts;
pub mod form;
pub mod input;
pub mod live;
pub mod page;
pub mod pages;
pub mod routes;
pub mod settings;
pub mod template;
pub mod wizard;
pub mod words;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use smol::LocalExecutor;

use self::ask::Ask;
use self::live::Hub;
use self::page::{Reply, Toast};
use self::routes::{Found, Route};
use super::access::{self, Who};
use super::history::History;
use super::intake::Intake;
use crate::core::access::permits;
use crate::core::reason::Reason;
use crate::director::site::Site;
use crate::io::serve::{Answer, Request, Response};

/// Longest form: release notes and lists of names are the longest that anybody types.
pub const BODY_MAX: usize = 64 << 10;
/// Pages that are made at once: each may hold a few megabytes of rows.
const BUSY_MAX: usize = 32;
/// People who have a message waiting for their next page; more is a program that never looks.
const TOASTS_MAX: usize = 1_000;

/// What all pages have in common.
#[derive(Default)]
pub struct Gui {
    busy: Cell<usize>,
    toasts: RefCell<BTreeMap<String, Toast>>,
    history: RefCell<Rc<History>>,
    /// Who looks.
    pub live: Rc<Hub>,
}

/// One of [`BUSY_MAX`] places; free again when dropped.
struct Place(Rc<Gui>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl Gui {
    /// Longest body of a request for a page.
    pub fn body_limit(&self, method: &str, path: &str) -> Option<usize> {
        (method == "POST" && !matches!(routes::find(method, path), Found::Nothing)).then_some(BODY_MAX)
    }

    /// Answers a request, if its path is a page's.
    pub fn call(self: &Rc<Self>, site: &Rc<Site>, request: &Request, intake: &Rc<Intake>) -> Option<Answer> {
        if let Some(file) = assets::answer(request) {
            return Some(now(file));
        }
        let (route, places) = match routes::find(&request.method, &request.path) {
            Found::Route(route, places) => (route, places),
            Found::Methods(allowed) => {
                let page = self.lost(site, request, 405).map(|page| page.with("allow", &allowed));
                return Some(now(page.unwrap_or_else(|| page::wrong_method(&allowed))));
            }
            Found::Nothing => return None,
        };
        Some(self.begin(site, request, intake, route, places).unwrap_or_else(|response| now(*response)))
    }

    /// For a browser that asks for what is not there: a page with a way back. Programs get the server's own document.
    pub fn lost(self: &Rc<Self>, site: &Rc<Site>, request: &Request, status: u16) -> Option<Response> {
        let reads = request.header("accept").is_some_and(|kinds| kinds.contains("text/html"));
        if !reads || !matches!(request.method.as_str(), "GET" | "HEAD") {
            return None;
        }
        let who = access::who(site, request).ok();
        let reason = match status {
            405 => Reason::new("method_not_allowed", "This address is only for forms; go to the page that has the form."),
            _ => Reason::new("not_found", "There is no such page. The address may be mistyped, or what it showed was removed."),
        };
        Some(page::refused(self, who.as_ref(), request, status, &reason))
    }

    fn begin(
        self: &Rc<Self>,
        site: &Rc<Site>,
        request: &Request,
        intake: &Rc<Intake>,
        route: &'static Route,
        places: Vec<String>,
    ) -> Result<Answer, Box<Response>> {
        let who = match access::who(site, request) {
            Ok(who) => who,
            Err(reason) if reason.code == "cross_site" => return Err(Box::new(page::refused(self, None, request, 403, &reason))),
            Err(_) if route.id == live::STREAM => return Err(Box::new(live::nobody())),
            Err(_) => return Err(Box::new(access::login_first(request))),
        };
        let refused = |status: u16, reason: &Reason| Box::new(page::refused(self, Some(&who), request, status, reason));
        permits(who.role, route.need).map_err(|reason| {
            access::door::note_refused(site, &(&who).into(), &format!("{} {}", request.method, request.path), route.need);
            refused(403, &reason)
        })?;
        let ask = Ask::new(self, site, intake, request, route, who.clone(), places).map_err(|reason| refused(400, &reason))?;
        if self.busy.get() >= BUSY_MAX {
            let reason = Reason::new("gui_busy", "many pages are made at this moment; load it again in a few seconds");
            return Err(Box::new(refused(503, &reason).with("retry-after", "3")));
        }
        self.busy.set(self.busy.get() + 1);
        let place = Place(self.clone());
        Ok(Box::pin(async move {
            let answer = respond(&ask).await;
            drop(place);
            answer
        }))
    }

    /// How the fleet was.
    pub fn history(&self) -> Rc<History> {
        self.history.borrow().clone()
    }

    /// Starts what goes on beside the pages.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn start(&self, site: &Rc<Site>, intake: &Rc<Intake>, executor: &Rc<LocalExecutor<'static>>) -> Result<(), String> {
        let history = Rc::new(History::load(&site.store)?);
        *self.history.borrow_mut() = history.clone();
        executor.spawn(history.keep(site.clone(), intake.clone())).detach();
        executor.spawn(self.live.clone().run(site.clone())).detach();
        Ok(())
    }

    /// Says something on the next page of this person.
    pub fn tell(&self, who: &Who, toast: Toast) {
        let mut toasts = self.toasts.borrow_mut();
        if toasts.len() >= TOASTS_MAX {
            toasts.clear();
        }
        toasts.insert(who.session.clone(), toast);
    }

    /// What was to be said, once.
    pub fn told(&self, who: &Who) -> Option<Toast> {
        self.toasts.borrow_mut().remove(&who.session)
    }
}

async fn respond(ask: &Ask) -> Response {
    if ask.is_form
        && let Err(reason) = access::check_form(&ask.who, ask.form.raw())
    {
        return page::error(ask, 403, &reason);
    }
    match (ask.route.page)(ask.clone()).await {
        Ok(Reply::Page(page)) => page::answer(ask, &page),
        Ok(Reply::See(path, toast)) => {
            if let Some(toast) = toast {
                ask.gui.tell(&ask.who, toast);
            }
            page::see(&path)
        }
        Ok(Reply::Raw(response)) => response,
        Err(reason) => page::error(ask, page::status(&reason), &reason),
    }
}

fn now(response: Response) -> Answer {
    Box::pin(std::future::ready(response))
}
