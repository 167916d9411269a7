//! A Director's way up to Fleet: its health and the table of its agents, its activity from a durable cursor, and Fleet's
//! settings down ([`crate::wire::fleet_api`]).
//!
//! One task, one request at a time, over the client that an agent has; the calls block helper threads, never the Director.
//! Without `config/fleet.json` (`vmetric-director enroll`) it only looks whether there is one. While Fleet is away
//! everything else goes on: events wait on the disk, changed agents in a set, the last settings stay in force. That it is
//! away is told once, and once that it is back.

mod events;
mod health;
mod rows;
mod settings;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Deserialize, Serialize, json};
use smol::channel::{Receiver, Sender};

use super::bell::Bell;
use super::site::{Site, random_hex};
use super::store::{Change, Table};
use crate::agent::link::{Link, LinkError};
use crate::core::backoff::wait_ms;
use crate::core::contact::{Contact, Word};
use crate::core::product::DIRECTOR;
use crate::core::reason::Reason;
use crate::io::state::State;
use crate::io::{clock, process, random};
use crate::wire::agent_api::ReportWire;
use crate::wire::config::ConfigWire;
use crate::wire::fleet_api::SettingsAnswerWire;

use rows::Rows;

/// How often a health is sent when nothing happens: half of what a person waits before looking elsewhere.
pub const HEALTH_EVERY: Duration = Duration::from_secs(30);
/// Shortest time between two pages of changed agents: a thousand that change together are a few pages.
const CHANGES_EVERY: Duration = Duration::from_secs(1);
/// Pause between two batches of a backlog: Fleet takes five requests per second of each Director.
const BATCH_PAUSE: Duration = Duration::from_millis(220);
/// How often it is looked whether there is a `fleet.json`, and whether something is due.
const LOOK: Duration = Duration::from_secs(1);
/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Words of the engine that wait for this task; older ones are worth nothing.
const INBOX: usize = 16;

/// What the thread that updates this Director tells.
#[derive(Debug)]
pub enum Own {
    /// The report that it sent to Fleet.
    Report(Box<ReportWire>),
    /// Fleet's settings are of this revision.
    Settings(u64),
    /// Fleet answered: whatever waits need not wait longer.
    Answered,
}

/// What the rest of the Director and this task share.
pub struct Shared {
    /// Rung when there may be something to do.
    pub bell: Bell,
    /// Settings in force, as Fleet sent them last.
    pub settings: RefCell<Option<Rc<SettingsAnswerWire>>>,
    /// Rung when they changed.
    pub settled: Bell,
    /// How it stands, for people; `None` = no Fleet.
    pub view: RefCell<Option<FleetView>>,
    announced: Cell<Option<u64>>,
    /// There is a word that does not wait for the next health.
    urgent: Cell<bool>,
    inbox: (Sender<Own>, Receiver<Own>),
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            bell: Bell::default(),
            settings: RefCell::default(),
            settled: Bell::default(),
            view: RefCell::default(),
            announced: Cell::new(None),
            urgent: Cell::new(false),
            inbox: smol::channel::bounded(INBOX),
        }
    }
}

impl Shared {
    /// The next health goes at once.
    pub fn hurry(&self) {
        self.urgent.set(true);
        self.bell.ring();
    }

    /// Where another thread puts its words (`try_send`).
    pub fn sender(&self) -> Sender<Own> {
        self.inbox.0.clone()
    }

    /// The revision of the settings in force.
    pub fn settings_revision(&self) -> Option<u64> {
        self.settings.borrow().as_ref().map(|s| s.revision)
    }
}

/// How it stands with Fleet.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct FleetView {
    /// Its address.
    pub url: String,
    /// This Director's identity there.
    pub id: String,
    /// `connected`, `trying`, `unreachable`, `refused`.
    pub state: String,
    /// Since when it does not answer.
    pub since: Option<u64>,
    /// When it answered last.
    pub answered_at: Option<u64>,
    /// Why not; stable code.
    pub code: String,
    /// Why not; for people.
    pub detail: String,
    /// Events that it has not taken yet.
    pub backlog: u64,
    /// Revision of its settings that are in force here.
    pub settings_revision: Option<u64>,
}

/// The row of the cursor.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
struct CursorRow {
    /// Name of the stream.
    stream: String,
    /// All before this sequence is at Fleet.
    next: u64,
    /// Fleet cannot be reached since then, and that was told.
    lost_since: Option<u64>,
    /// With this code.
    lost_code: Option<String>,
    /// Whose stream it is: another Fleet wants everything.
    fleet: Option<String>,
}

/// What a turn came to.
enum Turn {
    /// Something was said and answered; look again at once.
    Go,
    /// The same, but not at once.
    Pause(Duration),
    /// Nothing is due.
    Idle,
}

struct Uplink {
    site: Rc<Site>,
    state: State,
    config: ConfigWire,
    link: Option<Link>,
    contact: Contact,
    cursor: CursorRow,
    rows: Rows,
    own: Option<Box<ReportWire>>,
    dated: Option<health::Date>,
    next_health: Duration,
    next_changes: Duration,
    stalls: u32,
    settings_due: Duration,
    settings_failures: u32,
}

/// Speaks with Fleet as long as this Director runs.
pub async fn forever(site: Rc<Site>, folder: PathBuf) {
    let state = State::look_of(&DIRECTOR, &folder);
    if let Err(e) = settings::restore(&site) {
        log::error!("{e}");
    }
    let mut told = None;
    loop {
        match identity(&state) {
            Ok(Some(config)) => match Uplink::new(&site, &state, config) {
                Ok(uplink) => {
                    // The engine's own link to Fleet: it looks now, too, whatever became of the command's signal.
                    process::wake_self();
                    uplink.run().await;
                }
                Err(reason) => say(&mut told, &reason),
            },
            Ok(None) => *site.uplink.view.borrow_mut() = None,
            Err(reason) => say(&mut told, &reason),
        }
        smol::Timer::after(LOOK).await;
    }
}

/// The row of the cursor; none, or one that does not parse: Fleet says what it has.
fn cursor(site: &Site) -> CursorRow {
    let mut found = None;
    let read = site.store.each(Table::Uplink, |key, text| {
        if key == "cursor" {
            found = json::from_str(text).ok();
        }
        true
    });
    if let Err(e) = read {
        log::error!("{e}");
    }
    found.unwrap_or_default()
}

fn identity(state: &State) -> Result<Option<ConfigWire>, Reason> {
    Ok(state.config()?.map(|(config, _)| config))
}

/// The same thing is not said each second.
fn say(told: &mut Option<Reason>, reason: &Reason) {
    if told.as_ref() != Some(reason) {
        log::error!("{reason}");
        *told = Some(reason.clone());
    }
}

impl Uplink {
    fn new(site: &Rc<Site>, state: &State, config: ConfigWire) -> Result<Uplink, Reason> {
        let link = Link::new(&config, state, None, || {})?;
        let mut cursor = cursor(site);
        if cursor.stream.is_empty() || cursor.fleet.as_ref() != Some(&config.issuer) {
            cursor = CursorRow { stream: random_hex(8), fleet: Some(config.issuer.clone()), ..Default::default() };
        }
        let contact =
            cursor.lost_since.map_or_else(Contact::default, |since| Contact::lost(since, cursor.lost_code.clone().unwrap_or_default()));
        let view = FleetView { url: config.director.clone(), id: config.agent_id.clone(), state: "trying".into(), ..Default::default() };
        *site.uplink.view.borrow_mut() = Some(view);
        site.registry.borrow_mut().touched.get_or_insert_default();
        Ok(Uplink {
            site: site.clone(),
            state: state.clone(),
            config,
            link: Some(link),
            contact,
            cursor,
            rows: Rows::default(),
            own: None,
            dated: None,
            next_health: Duration::ZERO,
            next_changes: Duration::ZERO,
            stalls: 0,
            settings_due: Duration::ZERO,
            settings_failures: 0,
        })
    }

    /// Until this identity is gone.
    async fn run(mut self) {
        // A stream's name is durable before its first event goes up (a batch waits for the disk): a process that dies
        // between must not come back under another name and send everything again.
        self.keep_cursor();
        self.rows = Rows::read(&self.site).await;
        while !self.site.stopping.get() && self.still_enrolled() {
            self.hear_engine();
            match self.turn().await {
                Ok(turn) => {
                    let pause = match turn {
                        Turn::Go => continue,
                        Turn::Pause(pause) => pause,
                        Turn::Idle => LOOK,
                    };
                    self.wait(pause).await;
                }
                Err(error) => {
                    let pause = self.failed(&error);
                    self.wait_failed(pause).await;
                }
            }
        }
    }

    /// The configuration may be renewed (pins, credential) or replaced (another Fleet) at any time.
    fn still_enrolled(&mut self) -> bool {
        let Ok(Some(config)) = identity(&self.state) else { return false };
        if config == self.config {
            return true;
        }
        let same =
            config.director == self.config.director && config.agent_id == self.config.agent_id && config.issuer == self.config.issuer;
        let renewed = self.link.as_ref().map(|link| link.renewed(&config, &self.state));
        match renewed {
            Some(Ok(link)) if same => {
                self.link = link.or(self.link.take());
                self.config = config;
                true
            }
            _ => false,
        }
    }

    /// The most urgent thing that is due.
    async fn turn(&mut self) -> Result<Turn, LinkError> {
        let now = clock::monotonic();
        self.show();
        if self.site.uplink.urgent.take() || now >= self.next_health {
            self.send_health(true).await?;
            self.next_health = clock::monotonic() + HEALTH_EVERY;
            return Ok(Turn::Go);
        }
        if self.settings_wanted() {
            self.fetch_settings().await?;
            return Ok(Turn::Go);
        }
        if self.backlog() > 0 {
            return self.send_events().await;
        }
        if now >= self.next_changes && self.rows.is_pending(&self.site) {
            self.send_health(false).await?;
            self.next_changes = clock::monotonic() + CHANGES_EVERY;
            return Ok(Turn::Go);
        }
        Ok(Turn::Idle)
    }

    fn hear_engine(&mut self) {
        while let Ok(word) = self.site.uplink.inbox.1.try_recv() {
            match word {
                Own::Report(report) => {
                    let step =
                        |r: &Option<Box<ReportWire>>| r.as_ref().map(|r| (r.step.clone(), r.code.clone(), r.scheduled_version.clone()));
                    let before = step(&self.own);
                    self.own = Some(report);
                    if step(&self.own) != before {
                        self.next_health = Duration::ZERO;
                    }
                }
                Own::Settings(revision) => self.site.uplink.announced.set(Some(revision)),
                Own::Answered => {}
            }
        }
    }

    /// Waits, but not longer than until somebody has news.
    async fn wait(&self, pause: Duration) {
        let time = async {
            smol::Timer::after(pause).await;
        };
        let news = async {
            self.site.uplink.bell.wait().await;
        };
        let engine = self.engine();
        if self.backlog() > 0 {
            return smol::future::or(time, smol::future::or(news, engine)).await;
        }
        let events = self.site.followers.wait();
        smol::future::or(smol::future::or(time, events), smol::future::or(news, engine)).await;
    }

    /// After a failure only a sign of life makes it shorter.
    async fn wait_failed(&self, pause: Duration) {
        let time = async {
            smol::Timer::after(pause).await;
        };
        smol::future::or(time, self.engine()).await;
    }

    /// Ends when the engine has something to say. The word stays in the inbox.
    async fn engine(&self) {
        while self.site.uplink.inbox.1.is_empty() {
            smol::Timer::after(Duration::from_millis(100)).await;
        }
    }

    async fn post(&mut self, path: &'static str, body: String, limit: usize) -> Result<String, LinkError> {
        self.call(move |link| link.post(path, &body, limit, ANSWER)).await
    }

    async fn call<F>(&mut self, ask: F) -> Result<String, LinkError>
    where
        F: FnOnce(&Link) -> Result<String, LinkError> + Send + 'static,
    {
        let Some(link) = self.link.take() else { return Err(broken("this link is in use")) };
        let (link, answer) = smol::unblock(move || {
            let answer = ask(&link);
            (link, answer)
        })
        .await;
        self.link = Some(link);
        answer
    }

    /// Fleet answered as it should.
    fn answered(&mut self) {
        if let Some(Word::Back { since }) = self.contact.answered() {
            let now = clock::unix();
            let detail = format!("Fleet at {} answers again; it was away for {} s", self.config.director, now.saturating_sub(since));
            self.tell("fleet_back", detail);
            (self.cursor.lost_since, self.cursor.lost_code) = (None, None);
            self.keep_cursor();
        }
        self.with_view(|view| {
            (view.state, view.code, view.detail, view.since) = ("connected".into(), String::new(), String::new(), None);
            view.answered_at = Some(clock::unix());
        });
    }

    /// Notes a failure and says how long to wait.
    fn failed(&mut self, error: &LinkError) -> Duration {
        let now = clock::unix();
        if let Some(Word::Lost { since }) = self.contact.failed(&error.reason, now) {
            let code = if error.refused { "fleet_refused" } else { "fleet_unreachable" };
            let detail = format!("{} ({}); this site goes on, and everything is told later", error.reason.detail, error.reason.code);
            self.tell(code, detail);
            (self.cursor.lost_since, self.cursor.lost_code) = (Some(since), Some(error.reason.code.to_string()));
            self.keep_cursor();
        }
        let (since, told) = (self.contact.since, self.contact.told.is_some());
        self.with_view(|view| {
            let state = if error.refused { "refused" } else { "unreachable" };
            view.state = if told { state } else { "trying" }.into();
            (view.since, view.code, view.detail) = (since, error.reason.code.to_string(), error.reason.detail.clone());
        });
        Duration::from_millis(wait_ms(self.contact.failures, random::seed(), error.retry_after_s))
    }

    fn tell(&self, code: &str, detail: String) {
        self.site.registry.borrow_mut().event(clock::unix(), "", code, detail, None);
        self.site.flush();
    }

    fn show(&self) {
        let backlog = self.backlog();
        let revision = self.site.uplink.settings_revision();
        self.with_view(|view| (view.backlog, view.settings_revision) = (backlog, revision));
    }

    fn with_view(&self, change: impl FnOnce(&mut FleetView)) {
        if let Some(view) = self.site.uplink.view.borrow_mut().as_mut() {
            change(view);
        }
    }

    fn keep_cursor(&self) {
        let value = json::to_string(&self.cursor);
        self.site.store.queue(vec![Change { table: Table::Uplink, key: "cursor".into(), value: Some(value) }]);
    }
}

/// An answer that is not of this protocol, or something of ours that should not be.
fn broken(what: &str) -> LinkError {
    LinkError::of(Reason::new("bad_answer", what))
}
