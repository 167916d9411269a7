//! Live data: `/live?page=ADDRESS`, server-sent events.
//!
//! A page marks the parts that change (`data-live="id"` around `<!--live:id-->` and `<!--/live:id-->`). Every few seconds, or
//! as soon as something was noted, the page is made again, once for all who look at it with the same role, and those parts
//! that differ from what a browser has are sent to it. The script puts them in without moving anything.
//!
//! Such a part shows nothing that depends on who looks but the role; a form's CSRF token is put in for each
//! (`TOKEN`). Without script, or when there is no place left, a page is as good as when it was loaded.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use smol::Timer;
use smol::lock::Mutex;

use super::ask::Ask;
use super::page::{self, Reply};
use super::routes::{self, Found, Paged, Route};
use crate::core::access::Act;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::director::bell::{Bell, Bells};
use crate::director::site::Site;
use crate::fleet::access;
use crate::io::clock;
use crate::io::serve::{Body, Response, Source};

/// Streams at once: each holds a connection, and the sums of its parts.
const STREAMS_MAX: usize = 256;
/// Of one session: as many windows as somebody looks at, and no program that only opens them.
const STREAMS_OF_ONE: usize = 16;
/// Longest time between two looks: what nobody notes (a Director seen, a percent) is that old at most.
const LOOK: Duration = Duration::from_secs(5);
/// Shortest time between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// A sign of life, so that what is between does not close a silent connection.
const BEAT: Duration = Duration::from_secs(20);
/// How long a browser waits before it comes again, milliseconds.
const RETRY_MS: u32 = 5_000;
/// Stands in a shared part where each session's own token belongs.
const TOKEN: &str = "\u{1}csrf\u{1}";

/// The stream's route.
pub const STREAM: &str = "live";

/// Its route.
pub static ROUTES: &[Route] =
    &[Route { method: "GET", path: "/live", id: STREAM, need: Act::Look, page: |ask| Box::pin(open(ask)) as Paged }];

/// A part of a page.
struct Region {
    id: String,
    sum: [u8; 8],
    html: String,
}

/// A page as it is for everybody of one role.
#[derive(Default)]
struct Shared {
    /// One makes it, the others wait for it.
    making: Mutex<()>,
    made: Cell<u64>,
    regions: RefCell<Rc<Vec<Region>>>,
}

/// All who look.
#[derive(Default)]
pub struct Hub {
    tick: Cell<u64>,
    bells: Bells,
    came: Bell,
    viewers: RefCell<BTreeMap<String, usize>>,
    pages: RefCell<BTreeMap<String, Rc<Shared>>>,
}

impl Hub {
    /// Says when to look again, as long as somebody looks.
    pub async fn run(self: Rc<Self>, site: Rc<Site>) {
        loop {
            if self.viewers.borrow().is_empty() {
                self.pages.borrow_mut().clear();
                self.came.wait().await;
            }
            let late = async {
                Timer::after(LOOK).await;
            };
            smol::future::or(site.followers.wait(), late).await;
            self.tick.set(self.tick.get() + 1);
            let tick = self.tick.get();
            self.pages.borrow_mut().retain(|_, page| page.made.get() + 2 >= tick);
            self.bells.ring();
            Timer::after(PAUSE).await;
        }
    }

    /// How many streams are open.
    pub fn streams(&self) -> usize {
        self.viewers.borrow().values().sum()
    }

    /// The parts of a page as they are now; made once per look.
    async fn regions(&self, ask: &Ask) -> Option<Rc<Vec<Region>>> {
        let key = format!("{} {}", ask.who.role, ask.address);
        let shared = self.pages.borrow_mut().entry(key).or_default().clone();
        let _making = shared.making.lock().await;
        // The first look is tick 0.
        if shared.made.get() != self.tick.get() + 1 {
            let Ok(Reply::Page(page)) = (ask.route.page)(ask.clone()).await else { return None };
            let body = page::body(ask, &page).ok()?;
            *shared.regions.borrow_mut() = Rc::new(split(&body));
            shared.made.set(self.tick.get() + 1);
        }
        let regions = shared.regions.borrow().clone();
        Some(regions)
    }
}

/// The parts between their marks. No text of anybody's can hold a mark: `<` is escaped.
fn split(body: &str) -> Vec<Region> {
    let mut out = Vec::new();
    for part in body.split("<!--live:").skip(1) {
        let Some((id, rest)) = part.split_once("-->") else { continue };
        let Some((html, _)) = rest.split_once(&format!("<!--/live:{id}-->")) else { continue };
        let hash = hex::sha256(html.as_bytes());
        let mut sum = [0; 8];
        sum.copy_from_slice(&hash[..8]);
        out.push(Region { id: id.to_string(), sum, html: html.to_string() });
    }
    out
}

async fn open(ask: Ask) -> Result<Reply, Reason> {
    let address = ask.query.get("page").to_string();
    let (path, query) = address.split_once('?').unwrap_or((&address, ""));
    let unknown = || Reason::new("page_unknown", "there is no such page to be kept current");
    let Found::Route(route, places) = routes::find("GET", path) else { return Err(unknown()) };
    crate::core::access::permits(ask.who.role, route.need)?;
    if route.id == STREAM {
        return Err(unknown());
    }
    let hub = ask.gui.live.clone();
    let seat = Seat::take(&hub, &ask.who.session)?;
    let mut shown = Ask { route, places, path: path.to_string(), query: super::form::Form::parse(query)?, ..ask.clone() };
    shown.address.clone_from(&address);
    shown.who.csrf = TOKEN.to_string();
    // Nothing but the role is the same for all.
    shown.who.name = String::new();
    let source =
        Viewer { csrf: ask.who.csrf.clone(), session: ask.who.session.clone(), ask: shown, seat, seen: BTreeMap::new(), state: State::New };
    let mut response = Response::of(200, "text/event-stream", Vec::new());
    response.body = Body::Stream(Box::new(source));
    Ok(Reply::Raw(page::sealed(response).with("cache-control", "no-store").with("x-accel-buffering", "no")))
}

/// To a page whose session is over: no news, and it asks again only now and then. A browser takes a login page for a broken stream;
/// whoever typed something goes to the login with it when it is sent.
pub fn nobody() -> Response {
    page::sealed(Response::of(200, "text/event-stream", b"retry: 15000\n\n".to_vec())).with("cache-control", "no-store")
}

/// One of the places; free again when dropped.
struct Seat {
    hub: Rc<Hub>,
    session: String,
}

impl Seat {
    fn take(hub: &Rc<Hub>, session: &str) -> Result<Seat, Reason> {
        let own = hub.viewers.borrow().get(session).copied().unwrap_or(0);
        if hub.streams() >= STREAMS_MAX || own >= STREAMS_OF_ONE {
            return Err(Reason::new(
                "not_ready",
                "as many pages as possible are kept current already; this one is right when it is loaded again",
            ));
        }
        hub.viewers.borrow_mut().insert(session.to_string(), own + 1);
        hub.came.ring();
        Ok(Seat { hub: hub.clone(), session: session.to_string() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut viewers = self.hub.viewers.borrow_mut();
        match viewers.get_mut(&self.session) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(viewers.remove(&self.session)),
        }
    }
}

/// Where a stream is.
enum State {
    New,
    Open,
    Over,
}

/// One browser's stream.
struct Viewer {
    ask: Ask,
    seat: Seat,
    session: String,
    csrf: String,
    seen: BTreeMap<String, [u8; 8]>,
    state: State,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Viewer({})", self.ask.path)
    }
}

impl Source for Viewer {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + '_>> {
        Box::pin(self.piece())
    }
}

impl Viewer {
    async fn piece(&mut self) -> Option<Vec<u8>> {
        match self.state {
            State::Over => return None,
            State::New => {
                self.state = State::Open;
                let first = self.changed().await;
                return Some(format!("retry: {RETRY_MS}\n: open\n\n{first}").into_bytes());
            }
            State::Open => {}
        }
        let quiet_until = clock::monotonic() + BEAT;
        loop {
            let hub = self.seat.hub.clone();
            let left = quiet_until.saturating_sub(clock::monotonic());
            let beat = async {
                Timer::after(left).await;
                true
            };
            let look = async {
                hub.bells.wait().await;
                false
            };
            let quiet = smol::future::or(look, beat).await;
            if self.ask.site.stopping.get() {
                return None;
            }
            let role = access::of(&self.ask.site).ok().and_then(|access| access.role_of_session(&self.session, clock::unix()));
            if role != Some(self.ask.who.role) {
                self.state = State::Over;
                return Some(b"event: gone\ndata: {}\n\n".to_vec());
            }
            if quiet {
                return Some(b": beat\n\n".to_vec());
            }
            let text = self.changed().await;
            if !text.is_empty() {
                return Some(text.into_bytes());
            }
        }
    }

    /// Events for the parts that this browser has not got.
    async fn changed(&mut self) -> String {
        self.ask.now = clock::unix();
        let Some(regions) = self.seat.hub.regions(&self.ask).await else { return String::new() };
        let mut out = String::new();
        for region in regions.iter() {
            if self.seen.insert(region.id.clone(), region.sum) == Some(region.sum) {
                continue;
            }
            let html = region.html.replace(TOKEN, &self.csrf);
            out += &format!("event: region\ndata: {}\n\n", serde_json::json!({"id": region.id, "html": html}));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_their_marks() {
        let parts = split("a<!--live:x-->one<!--/live:x-->b<!--live:y-->&lt;!--live:z--&gt;<!--/live:y--><!--live:w-->open");
        let found: Vec<(&str, &str)> = parts.iter().map(|r| (r.id.as_str(), r.html.as_str())).collect();
        assert_eq!(found, [("x", "one"), ("y", "&lt;!--live:z--&gt;")]);
    }
}
