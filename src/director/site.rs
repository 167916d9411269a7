//! The running Director: registry, store, mirror and parked polls of one thread.
//!
//! Borrows of the registry never live across an `await`. The order is always: change memory, queue for the disk, decide
//! the answer, wait for the commit if the answer promises anything, send.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use miniserde::json;

use super::bell::{Bell, Bells};
use super::certificates::Naming;
use super::config::start::Settings;
#[cfg(unix)]
use super::extra::Extra;
use super::metering::SpentRow;
use super::mirror::Source;
use super::pki::SiteCa;
use super::policing::rows::GrantRow;
use super::records::{Agent, Event, Order, Pending, Quarantine, Rollout, Token};
use super::refresh::{Import, Last};
use super::registry::Registry;
use super::role::Role;
use super::store::{Change, Store, Table};
use super::throttle::Throttle;
use super::tree::Tree;
use super::uplink::Shared;
use crate::core::hex;
use crate::io::clock;
use crate::wire::agent_api::AnswerWire;

/// How often deadlines are looked at.
pub const TICK: Duration = Duration::from_secs(1);
/// Shortest time between two plans: a plan looks at every agent of every open roll-out.
pub const PLAN_PAUSE: Duration = Duration::from_millis(100);

/// Why a parked poll is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There may be an order.
    News,
    /// A newer poll of the same agent took its place.
    Replaced,
}

/// A parked poll.
#[derive(Default)]
pub struct Parking {
    bell: Bell,
    replaced: Cell<bool>,
}

/// What a Director was started with.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Addresses.
    pub listen: Vec<String>,
    /// Where agents reach it.
    pub url: String,
    /// Where releases come from; empty = only from what is brought.
    pub mirror: String,
}

/// The running Director.
pub struct Site {
    /// What this server is, and what it manages.
    pub role: &'static Role,
    /// What its role adds.
    #[cfg(unix)]
    pub extra: RefCell<Option<Rc<dyn Extra>>>,
    /// What is known.
    pub registry: RefCell<Registry>,
    /// Where it is kept.
    pub store: Rc<Store>,
    /// Issues and checks credentials.
    pub ca: SiteCa,
    /// The mirrored release tree.
    pub tree: RefCell<Arc<Tree>>,
    /// Who asks too often.
    pub throttle: RefCell<Throttle>,
    /// Downloads under way.
    pub downloads: Rc<Cell<usize>>,
    /// Rung when a roll-out may go on.
    pub planner: Bell,
    /// Rung when the activity grew.
    pub followers: Bells,
    /// Rung when the mirror is to be refreshed now.
    pub refresh: Bell,
    /// Rung when a refresh has ended.
    pub refreshed: Bells,
    /// How the last refresh ended.
    pub last_refresh: RefCell<Last>,
    /// A medium that the next refresh reads instead.
    pub import: RefCell<Option<Import>>,
    /// How many refreshes have begun.
    pub refreshes_begun: Cell<u64>,
    /// Why the server certificate could not be renewed.
    pub certificate_error: RefCell<Option<String>>,
    /// What is wrong with the operator's certificate.
    pub company_error: RefCell<Option<String>>,
    /// What this Director was started with, for people.
    pub about: RefCell<About>,
    /// What is in force of `vmetric.yml`; whoever decides by a setting reads it here each time.
    pub settings: RefCell<Settings>,
    /// Rung when they changed.
    pub settings_changed: Bells,
    /// Most bytes of artifacts in the mirror.
    pub mirror_limit: Cell<Option<u64>>,
    /// Where releases come from, if the file was changed meanwhile.
    pub source: RefCell<Option<Source>>,
    /// It waits for its agents' trials and then stops: no new orders, and no switch that would need it.
    pub draining: Cell<bool>,
    /// Its place among its own versions.
    #[cfg(unix)]
    pub own: RefCell<Option<Rc<super::own::Own>>>,
    /// What the names in its certificates come from.
    pub naming: RefCell<Naming>,
    /// No new park: the Director stops.
    pub stopping: Cell<bool>,
    /// Answers to polls that are made and not sent yet.
    pub answering: Rc<Cell<usize>>,
    /// How it stands with Fleet, and what Fleet wants.
    pub uplink: Shared,
    /// Which agents know the members of its cluster.
    pub told_members: RefCell<super::members::Told>,
    /// The cluster that it is in.
    #[cfg(unix)]
    pub cluster: super::cluster::Member,
    parked: RefCell<HashMap<String, Rc<Parking>>>,
}

impl Site {
    /// A Director over what its store holds.
    pub fn new(registry: Registry, store: Store, ca: SiteCa, tree: Tree) -> Rc<Site> {
        Rc::new(Site {
            role: registry.role,
            #[cfg(unix)]
            extra: RefCell::default(),
            registry: RefCell::new(registry),
            store: Rc::new(store),
            ca,
            tree: RefCell::new(Arc::new(tree)),
            throttle: RefCell::default(),
            downloads: Rc::default(),
            planner: Bell::default(),
            followers: Bells::default(),
            refresh: Bell::default(),
            refreshed: Bells::default(),
            last_refresh: RefCell::default(),
            import: RefCell::default(),
            refreshes_begun: Cell::new(0),
            certificate_error: RefCell::default(),
            company_error: RefCell::default(),
            about: RefCell::default(),
            settings: RefCell::default(),
            settings_changed: Bells::default(),
            mirror_limit: Cell::default(),
            source: RefCell::default(),
            draining: Cell::new(false),
            #[cfg(unix)]
            own: RefCell::default(),
            naming: RefCell::default(),
            stopping: Cell::new(false),
            answering: Rc::default(),
            uplink: Shared::default(),
            told_members: RefCell::default(),
            #[cfg(unix)]
            cluster: Default::default(),
            parked: RefCell::default(),
        })
    }

    /// Adds a line about this server itself to the activity.
    pub fn note(&self, code: &str, detail: &str) {
        self.registry.borrow_mut().event(clock::unix(), "", code, detail, None);
        self.flush();
    }

    /// What this site's tokens begin with: the first digits of its pin.
    pub fn token_site(&self) -> String {
        hex::encode(&self.ca.pin()[..4])
    }

    /// Queues what the registry changed for the disk and tells the followers.
    pub fn flush(&self) {
        let changes = self.registry.borrow_mut().take_changes();
        if std::mem::take(&mut self.registry.borrow_mut().hand_out) {
            self.wake_some(usize::MAX);
        }
        if std::mem::take(&mut self.registry.borrow_mut().fetch_now) {
            self.refresh.ring();
        }
        let told = changes.iter().any(|c| c.table == Table::Activity);
        self.store.queue(changes);
        if told {
            self.followers.ring();
        }
    }

    /// Changes the registry for a person: what happens meanwhile is noted as theirs.
    pub fn acting<T>(&self, who: &str, act: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.registry.borrow_mut();
        registry.by = Some(who.to_string());
        let out = act(&mut registry);
        registry.by = None;
        out
    }

    /// Plans all open roll-outs, waits until the orders are durable, then wakes their agents.
    ///
    /// # Errors
    /// The store could not be written; the orders are sent once it can.
    pub async fn plan(&self) -> Result<(), String> {
        // What is verified in a moment would look as if it were gone.
        if self.draining.get() || self.tree.borrow().checking {
            return Ok(());
        }
        let releases = self.tree.borrow().clone();
        let wake = self.registry.borrow_mut().advance_all(&releases.releases, clock::unix());
        self.deliver(wake).await
    }

    /// Makes what was decided durable, then wakes the agents concerned.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn deliver(&self, wake: Vec<String>) -> Result<(), String> {
        self.flush();
        if wake.is_empty() {
            return Ok(());
        }
        let written = self.store.durable().await;
        // A poll that is woken waits for the commit itself, so an error here loses nobody's order.
        for agent in wake {
            self.wake(&agent);
        }
        written
    }

    /// The planner task: after each change that a roll-out may wait for, and at each tick for the deadlines.
    pub async fn plan_forever(self: Rc<Self>) {
        loop {
            let tick = async {
                smol::Timer::after(TICK).await;
            };
            smol::future::or(self.planner.wait(), tick).await;
            let began = clock::monotonic();
            // The error is the committer's to tell; its batch is kept and written later.
            let _ = self.plan().await;
            // Half of the time at most: the other half is the agents'.
            smol::Timer::after(clock::monotonic().saturating_sub(began).clamp(PLAN_PAUSE, TICK)).await;
        }
    }

    /// What is said while this Director waits for its stop: no new update, and that it stops.
    pub fn before_stop(&self, mut answer: AnswerWire) -> AnswerWire {
        if self.draining.get() {
            answer.order = answer.order.filter(|order| order.kind == "cancel");
            answer.stopping = Some(true);
            // Its agents that know another member go on there.
            #[cfg(unix)]
            {
                answer.draining = self.cluster.told.borrow().is_some().then_some(true);
            }
        }
        answer
    }

    /// Answers a parked poll now.
    pub fn wake(&self, agent: &str) {
        if let Some(parking) = self.parked.borrow().get(agent) {
            parking.bell.ring();
        }
    }

    /// Answers some parked polls now.
    pub fn wake_some(&self, most: usize) {
        self.parked.borrow().values().take(most).for_each(|parking| parking.bell.ring());
    }

    /// Answers an agent's parked poll, which is as good as a question: if it lives, it asks again at once.
    pub fn call(&self, agent: &str) {
        if let Some(parking) = self.parked.borrow().get(agent) {
            parking.replaced.set(true);
            parking.bell.ring();
        }
    }

    /// Whether an agent's poll is parked.
    pub fn is_parked(&self, agent: &str) -> bool {
        self.parked.borrow().get(agent).is_some_and(|p| !p.replaced.get())
    }

    /// Answers all parked polls and parks no more.
    pub fn stop(&self) {
        self.stopping.set(true);
        for parking in self.parked.borrow().values() {
            parking.bell.ring();
        }
    }

    /// An answer that a stop has to wait for, until it is dropped: when it has been sent, or its peer has left.
    pub fn answering(&self) -> Answering {
        self.answering.set(self.answering.get() + 1);
        Answering(self.answering.clone())
    }

    /// How many polls are parked.
    pub fn parked(&self) -> usize {
        self.parked.borrow().len()
    }

    /// Waits until the agent is woken, replaced, or the time is over (`None`).
    pub async fn park(self: &Rc<Self>, agent: String, time: Duration) -> Option<Wake> {
        let place = Parked::take(self.clone(), agent);
        let rung = async {
            place.parking.bell.wait().await;
            Some(if place.parking.replaced.get() { Wake::Replaced } else { Wake::News })
        };
        let over = async {
            smol::Timer::after(time).await;
            None
        };
        smol::future::or(rung, over).await
    }
}

/// See [`Site::answering`].
pub struct Answering(Rc<Cell<usize>>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// A place in the table of parked polls; left when the poll is answered or its connection ends.
struct Parked {
    site: Rc<Site>,
    agent: String,
    parking: Rc<Parking>,
}

impl Parked {
    fn take(site: Rc<Site>, agent: String) -> Parked {
        let parking = Rc::new(Parking::default());
        let older = site.parked.borrow_mut().insert(agent.clone(), parking.clone());
        if let Some(older) = older {
            older.replaced.set(true);
            older.bell.ring();
        }
        Parked { site, agent, parking }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let mut parked = self.site.parked.borrow_mut();
        if parked.get(&self.agent).is_some_and(|p| Rc::ptr_eq(p, &self.parking)) {
            parked.remove(&self.agent);
        }
    }
}

/// The row of the issuer in the `meta` table.
#[derive(miniserde::Serialize, miniserde::Deserialize, Debug, Clone)]
pub struct Issuer {
    /// Random id, made once.
    pub issuer: String,
}

/// Reads the whole state; makes the issuer at the first start.
///
/// # Errors
/// The file is damaged; the text says what to do.
pub fn load(store: &Store, now: u64) -> Result<Registry, String> {
    let mut registry = Registry::default();
    registry.started_at = now;
    let mut issuer = None;
    // A newer version may have put other rows into this table.
    store.each(Table::Meta, |key, text| {
        if key != ISSUER {
            return true;
        }
        issuer = json::from_str::<Issuer>(text).ok().map(|row| row.issuer);
        issuer.is_some()
    })?;
    registry.agents = store.load::<Agent>(Table::Agents)?.into_iter().collect();
    registry.contacts = registry.agents.values().map(|a| (a.id.clone(), a.last_contact)).collect();
    registry.tokens = store.load::<Token>(Table::Tokens)?.into_iter().collect();
    #[cfg(unix)]
    {
        registry.api_tokens = store.load::<super::api_tokens::ApiToken>(Table::ApiTokens)?.into_iter().collect();
    }
    registry.approvals = store.load::<Pending>(Table::Approvals)?.into_iter().collect();
    registry.rollouts = store.load::<Rollout>(Table::Rollouts)?.into_iter().map(|(_, r)| (r.id, r)).collect();
    registry.metering.spent = store.load::<SpentRow>(Table::Spent)?.into_iter().collect();
    registry.quarantine = store.load::<Quarantine>(Table::Quarantine)?.into_iter().collect();
    let orders = store.load::<Order>(Table::Orders)?;
    registry.orders = orders.into_iter().map(|(_, o)| ((o.rollout, o.agent.clone()), o)).collect();
    load_activity(store, &mut registry)?;
    let rows = |table| -> Result<Vec<_>, String> { Ok(store.load(table)?.into_iter().map(|(_, row)| row).collect()) };
    let grants = store.load::<GrantRow>(Table::Grants)?.into_iter().map(|(_, row)| row).collect();
    registry.load_policies(rows(Table::Policies)?, grants);
    registry.load_changes(store.load(Table::PolicyChanges)?.into_iter().map(|(_, row)| row).collect());
    registry.load_templates(store.load(Table::Templates)?.into_iter().map(|(_, row)| row).collect());
    registry.load_confirmations(store.load(Table::Confirmations)?.into_iter().map(|(_, row)| row).collect());
    registry.load_confirmed(store.load(Table::Confirmed)?.into_iter().map(|(_, row)| row).collect());
    registry.load_clusters(store.load(Table::Clusters)?.into_iter().map(|(_, row)| row).collect());
    registry.load_leases(store.load(Table::Leases)?);
    registry.policing.clock_floor = env!("VMETRIC_BUILT_TIME").parse().unwrap_or(0);
    registry.policing.zone = Some(crate::io::zone::local());
    registry.index();
    match issuer {
        Some(issuer) => registry.issuer = issuer,
        None => {
            registry.issuer = random_hex(16);
            let value = json::to_string(&Issuer { issuer: registry.issuer.clone() });
            store.queue(vec![Change { table: Table::Meta, key: ISSUER.into(), value: Some(value) }]);
        }
    }
    Ok(registry)
}

/// The row of [`Table::Meta`] that names who orders.
const ISSUER: &str = "issuer";

/// Counts the kept events and reads the latest ones: there may be hundreds of thousands, and only their age and size count.
fn load_activity(store: &Store, registry: &mut Registry) -> Result<(), String> {
    let mut recent: VecDeque<String> = VecDeque::new();
    store.each(Table::Activity, |key, text| {
        let event = || json::from_str::<Event>(text).ok().map(|e| (e.seq, e.time));
        let Some((seq, time)) = super::activity::seq_and_time(text).or_else(event) else { return false };
        registry.next_seq = seq + 1;
        registry.kept.push_back((time, text.len()));
        recent.push_back(text.to_string());
        if recent.len() > super::activity::RECENT {
            recent.pop_front();
        }
        super::activity::key(seq) == key
    })?;
    for text in recent {
        let event = json::from_str(&text).map_err(|_| store.damaged(&format!("the event {text} does not parse")))?;
        registry.recent.push_back(event);
    }
    Ok(())
}

/// Random bytes as hexadecimal.
pub fn random_hex(bytes: usize) -> String {
    let mut out = vec![0; bytes];
    let random = ring::rand::SystemRandom::new();
    // Without a random source nothing here can be kept safe; there is no state to go on with.
    ring::rand::SecureRandom::fill(&random, &mut out).expect("the operating system has a random source");
    hex::encode(&out)
}
