//! A Director and Fleet in one process, over real TLS: what goes up arrives once and in order, whatever is lost on the way.

use std::cell::Cell;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use smol::{LocalExecutor, Task};
use vmetric::core::copies::KeyFile;
use vmetric::core::product::DIRECTOR;
use vmetric::director::pki::{Names, SiteCa};
use vmetric::director::records::Event;
use vmetric::director::service::Front;
use vmetric::director::site::{Site, load};
use vmetric::director::store::{Store, Table};
use vmetric::director::tree::Tree;
use vmetric::director::uplink::{self, FleetView};
use vmetric::fleet::intake::{Asked, Intake, Told};
use vmetric::io::clock;
use vmetric::io::device_key::read_or_make;
use vmetric::io::serve::{Answer, Body, Limits, Request, Response, Service, serve};
use vmetric::io::state::State;
use vmetric::io::tls::pin_text;
use vmetric::wire::agent_api::EnrollWire;
use vmetric::wire::config::ConfigWire;

/// Longest wait for something that is expected; nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// What Fleet's network does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Good,
    /// Takes everything in and keeps it, and every answer is lost.
    Deaf,
    /// A stolen Fleet: a gigabyte of JSON to every question.
    Huge,
}

/// Fleet's HTTPS side, and what is between.
struct Network {
    front: Front,
    site: Rc<Site>,
    intake: Rc<Intake>,
    mood: Rc<Cell<Mood>>,
    asked: Rc<Cell<usize>>,
    gigabyte: std::path::PathBuf,
}

impl Service for Network {
    fn body_limit(&self, method: &str, path: &str) -> usize {
        self.intake.body_limit(method, path).unwrap_or_else(|| self.front.body_limit(method, path))
    }

    fn call(&self, request: Request) -> Answer {
        self.asked.set(self.asked.get() + 1);
        if self.mood.get() == Mood::Huge {
            let file = File::open(&self.gigabyte).unwrap();
            let body = Body::File { file, offset: 0, length: 1 << 30, flow: None };
            return Box::pin(std::future::ready(Response { status: 200, headers: vec![], body, hold: None }));
        }
        let Some(answer) = self.intake.call(&self.site, &request) else { return self.front.call(request) };
        let deaf = self.mood.get() == Mood::Deaf;
        Box::pin(async move {
            let answer = answer.await;
            if deaf { Response::error(503, "lost", "the answer was lost") } else { answer }
        })
    }
}

/// One side: its state, and the tasks over it, which end with it.
struct Side {
    site: Rc<Site>,
    tasks: Vec<Task<()>>,
    executor: Rc<LocalExecutor<'static>>,
}

/// A helper thread of the process before may hold the file for one more moment.
fn opened(folder: &Path) -> Store {
    let until = clock::monotonic() + PATIENCE;
    loop {
        match Store::open(&folder.join("director.redb")) {
            Ok(store) => return store,
            Err(e) => assert!(e.contains("in use") && clock::monotonic() < until, "{e}"),
        }
    }
}

impl Side {
    fn over(folder: &Path) -> Side {
        std::fs::create_dir_all(folder).unwrap();
        let store = opened(folder);
        let registry = load(&store, clock::unix()).unwrap();
        let ca = SiteCa::open_or_create(&folder.join("pki"), &Names::default(), clock::unix()).unwrap();
        let site = Site::new(registry, store, ca, Tree { timestamp_version: 3, ..Tree::default() });
        let executor = Rc::new(LocalExecutor::new());
        let commits = executor.spawn(site.store.clone().commit_forever());
        Side { site, tasks: vec![commits], executor }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push(self.executor.spawn(task));
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.tasks.clear();
        // Cancelled tasks are dropped by their next turn, and with them what keeps the executor alive.
        while self.executor.try_tick() {}
    }
}

/// A Fleet and its Directors, each in a folder of its own.
struct World {
    folder: tempfile::TempDir,
    fleet: Option<(Side, Rc<Intake>)>,
    directors: Vec<Option<Side>>,
    mood: Rc<Cell<Mood>>,
    asked: Rc<Cell<usize>>,
    port: u16,
}

impl World {
    fn new(directors: usize) -> World {
        let mut world = World {
            folder: tempfile::tempdir().unwrap(),
            fleet: None,
            directors: Vec::new(),
            mood: Rc::new(Cell::new(Mood::Good)),
            asked: Rc::default(),
            port: 0,
        };
        File::create(world.folder.path().join("gigabyte")).unwrap().set_len(1 << 30).unwrap();
        world.start_fleet();
        for n in 0..directors {
            world.enroll(n);
            world.directors.push(None);
            world.start(n);
        }
        world
    }

    fn start_fleet(&mut self) {
        let mut side = Side::over(&self.folder.path().join("fleet"));
        let intake = Rc::new(Intake::load(&side.site.store).unwrap());
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        self.port = listener.local_addr().unwrap().port();
        let service = Rc::new(Network {
            front: Front(side.site.clone()),
            site: side.site.clone(),
            intake: intake.clone(),
            mood: self.mood.clone(),
            asked: self.asked.clone(),
            gigabyte: self.folder.path().join("gigabyte"),
        });
        let (tls, executor) = (side.site.ca.server_config(), side.executor.clone());
        side.spawn(async move {
            let _ = serve(listener, tls, service, &executor, Limits::default()).await;
        });
        side.spawn(intake.clone().keep_house(side.site.clone()));
        self.fleet = Some((side, intake));
    }

    fn director_folder(&self, n: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("director{n}"))
    }

    /// What `vmetric-director enroll` does.
    fn enroll(&mut self, n: usize) {
        let folder = self.director_folder(n);
        let state = State::open_of(&DIRECTOR, &folder).unwrap();
        let key = read_or_make(&state, KeyFile::Key).unwrap();
        let site = &self.fleet.as_ref().unwrap().0.site;
        let mut registry = site.registry.borrow_mut();
        let token = format!("token{n}");
        registry.create_token(&token, 1, 60, clock::unix()).unwrap();
        let wire = EnrollWire {
            device_key: Some(key.public()),
            proof: Some(key.prove_enrollment(&token)),
            token,
            hostname: format!("site{n}"),
            ..Default::default()
        };
        let agent_id = registry.enroll(&wire, &format!("director{n}"), clock::unix()).unwrap();
        let config = ConfigWire {
            format: 1,
            director: format!("https://127.0.0.1:{}", self.port),
            pins: vec![pin_text(&site.ca.pin())],
            credential: site.ca.issue(&agent_id, clock::unix(), Some(&key.public())),
            agent_id,
            issuer: registry.issuer.clone(),
            device_key: Some(key.public()),
            ..Default::default()
        };
        state.write_config(&config).unwrap();
    }

    fn start(&mut self, n: usize) {
        let folder = self.director_folder(n);
        let mut side = Side::over(&folder);
        let task = uplink::forever(side.site.clone(), folder);
        side.spawn(task);
        self.directors[n] = Some(side);
    }

    /// Without a word: whatever was not on the disk is gone.
    fn kill(&mut self, n: usize) {
        self.directors[n] = None;
        drop(opened(&self.director_folder(n)));
    }

    fn director(&self, n: usize) -> &Rc<Site> {
        &self.directors[n].as_ref().unwrap().site
    }

    fn intake(&self) -> &Rc<Intake> {
        &self.fleet.as_ref().unwrap().1
    }

    /// Runs everybody until the future is done.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let idle = || std::future::pending::<()>();
        let sides = self.directors.iter().flatten().chain(self.fleet.iter().map(|(side, _)| side));
        let mut others: Pin<Box<dyn Future<Output = ()>>> = Box::pin(idle());
        for side in sides {
            let executor = side.executor.clone();
            others = Box::pin(smol::future::or(others, async move { executor.run(std::future::pending::<()>()).await }));
        }
        smol::block_on(smol::future::or(async { Some(future.await) }, async {
            others.await;
            None
        }))
        .unwrap()
    }

    /// Runs everybody until it is so.
    fn until(&self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let end = clock::monotonic() + PATIENCE;
        self.run(async {
            while !holds(self) {
                assert!(
                    clock::monotonic() < end,
                    "{what} did not come: {:?}",
                    self.directors.iter().flatten().map(|d| d.site.uplink.view.borrow().clone()).collect::<Vec<_>>()
                );
                smol::Timer::after(Duration::from_millis(5)).await;
            }
        });
    }

    fn enroll_agent(&self, n: usize, id: &str) {
        let mut registry = self.director(n).registry.borrow_mut();
        let token = format!("token-{id}");
        registry.create_token(&token, 1, 60, clock::unix()).unwrap();
        let wire = EnrollWire {
            token,
            hostname: format!("{id}-of-{n}"),
            os: "linux".into(),
            architecture: "arm64".into(),
            version: "1.0.0".into(),
            ..Default::default()
        };
        registry.enroll(&wire, id, clock::unix()).unwrap();
        drop(registry);
        self.director(n).flush();
    }

    fn events(&self, n: usize, count: usize) {
        for i in 0..count {
            self.director(n).registry.borrow_mut().event(clock::unix(), "", "test_event", format!("{i}"), None);
        }
        self.director(n).flush();
    }

    fn is_level(&self, n: usize) -> bool {
        let row = self.intake().row_of(&format!("director{n}")).unwrap_or_default();
        row.next == self.director(n).registry.borrow().next_seq && self.view(n).backlog == 0
    }

    fn view(&self, n: usize) -> FleetView {
        self.director(n).uplink.view.borrow().clone().unwrap_or_default()
    }

    /// What Fleet keeps of a Director's activity.
    fn told(&self, n: usize) -> Vec<Told> {
        let asked = Asked { director: Some(format!("director{n}")), limit: usize::MAX, ..Default::default() };
        let (side, intake) = self.fleet.as_ref().unwrap();
        self.run(intake.activity(&side.site, &asked)).unwrap()
    }

    /// The Director's own activity.
    fn own(&self, n: usize) -> Vec<Event> {
        self.run(async {
            self.director(n).store.durable().await.unwrap();
            self.director(n).store.newest(Table::Activity, usize::MAX, |_: &Event| true).await.unwrap()
        })
    }

    fn agents(&self) -> Vec<(String, String, Option<String>)> {
        let (side, intake) = self.fleet.as_ref().unwrap();
        let agents = self.run(intake.agents(&side.site, None, None, 1_000)).unwrap();
        agents.into_iter().map(|a| (a.director, a.id, a.hostname)).collect()
    }

    /// Fleet has each event of the Director once, in its order.
    fn same(&self, n: usize) {
        let told: Vec<(u64, String, String)> = self.told(n).into_iter().filter_map(|e| Some((e.seq?, e.code, e.detail))).collect();
        let own: Vec<(u64, String, String)> = self.own(n).into_iter().map(|e| (e.seq, e.code, e.detail)).collect();
        assert_eq!(told, own);
    }
}

#[test]
fn health_agents_and_activity_reach_fleet_each_under_its_director() {
    let world = World::new(2);
    // Two sites whose agents have the same names.
    for n in 0..2 {
        world.enroll_agent(n, "edge-1");
        world.events(n, 300);
    }
    world.until("both", |w| w.is_level(0) && w.is_level(1) && w.intake().agents_of("director0") + w.intake().agents_of("director1") == 2);
    (0..2).for_each(|n| world.same(n));
    // The first health may be older than the agent.
    world.until("its health", |w| w.intake().health_of("director0").is_some_and(|(h, _)| h.agents_online == Some(1)));
    let row = |n: usize| (format!("director{n}"), "edge-1".to_string(), Some(format!("edge-1-of-{n}")));
    assert_eq!(world.agents(), [row(0), row(1)]);
    let (health, _) = world.intake().health_of("director0").unwrap();
    assert_eq!((health.version.as_str(), health.scheduled_version), (env!("CARGO_PKG_VERSION"), None));
    assert!(health.disk_free > Some(0) && health.agents_online == Some(1), "{:?}", health.agents);
    assert_eq!(health.agents.unwrap()[0].count, 1);
    assert_eq!(world.view(0).state, "connected");
    // Only what changed goes up: another agent is one more row, and one that is removed is gone.
    world.enroll_agent(1, "edge-2");
    world.until("the new agent", |w| w.intake().agents_of("director1") == 2);
    world.director(1).registry.borrow_mut().remove("edge-1", clock::unix()).unwrap();
    world.director(1).flush();
    world.until("its end", |w| w.intake().agents_of("director1") == 1);
    assert_eq!(world.agents()[0], row(0), "the other Director's agent of that name is still there");
}

#[test]
fn lost_answers_and_killed_processes_lose_and_double_nothing() {
    let mut world = World::new(1);
    world.enroll_agent(0, "edge-1");
    world.until("the first contact", |w| w.is_level(0));
    for round in 0..3 {
        // Taken in by Fleet, and the Director dies before it hears of it.
        world.mood.set(Mood::Deaf);
        world.events(0, 40);
        let goal = world.director(0).registry.borrow().next_seq;
        world.until("the batch", |w| w.intake().row_of("director0").unwrap().next == goal);
        world.kill(0);
        world.mood.set(Mood::Good);
        if round == 1 {
            // Fleet dies, too, at the same moment.
            world.fleet = None;
            world.start_fleet();
        }
        world.start(0);
        world.events(0, 10);
        world.until("the rest", |w| w.is_level(0));
        world.same(0);
    }
    assert!(world.told(0).iter().all(|e| e.code != "activity_gap" && e.code != "activity_anew"));
}

#[test]
fn fleet_away_is_told_once_and_everything_later() {
    let mut world = World::new(1);
    world.until("the first contact", |w| w.is_level(0));
    world.fleet = None;
    world.until("the loss", |w| w.view(0).state == "unreachable");
    let codes = |w: &World| -> Vec<String> {
        let mut codes: Vec<String> = w.own(0).into_iter().map(|e| e.code).collect();
        codes.retain(|c| c.starts_with("fleet_"));
        codes
    };
    world.events(0, 600);
    world.until("the backlog", |w| w.view(0).backlog >= 600);
    // A restart in between tells nothing twice.
    world.kill(0);
    world.start(0);
    world.until("another failure", |w| w.view(0).state == "unreachable");
    assert_eq!(codes(&world), ["fleet_unreachable"]);
    world.start_fleet();
    world.until("all of it", |w| w.is_level(0));
    assert_eq!(codes(&world), ["fleet_unreachable", "fleet_back"]);
    world.same(0);
    assert_eq!(world.view(0).state, "connected");
}

#[test]
fn what_retention_removed_meanwhile_is_a_gap_that_is_told() {
    let mut world = World::new(1);
    world.events(0, 10);
    world.until("the beginning", |w| w.is_level(0));
    world.fleet = None;
    // Fleet is away for a hundred days.
    let (day, now) = (86_400, clock::unix());
    let site = world.director(0).clone();
    for n in 0..50 {
        site.registry.borrow_mut().event(now + n * 2 * day, "", "test_event", format!("day {}", 2 * n), None);
    }
    site.registry.borrow_mut().prune_activity(now + 100 * day);
    site.flush();
    let first = { site.registry.borrow().next_seq - site.registry.borrow().kept.len() as u64 };
    assert!(first > 10, "{first}");
    drop(site);
    world.until("the loss", |w| w.view(0).state == "unreachable");
    world.start_fleet();
    world.until("all that is left", |w| w.is_level(0));
    let told = world.told(0);
    let gaps: Vec<&Told> = told.iter().filter(|e| e.code == "activity_gap").collect();
    assert_eq!(gaps.len(), 1, "{told:?}");
    assert!(gaps[0].detail.contains("10 to"), "{}", gaps[0].detail);
    let seqs: Vec<u64> = told.iter().filter_map(|e| e.seq).collect();
    assert!(seqs.windows(2).all(|w| w[0] < w[1]) && seqs.contains(&first) && !seqs.contains(&(first - 1)), "{seqs:?}");
}

#[test]
fn a_director_that_was_restored_begins_anew_and_loses_nothing_new() {
    let mut world = World::new(1);
    world.events(0, 20);
    world.until("the beginning", |w| w.is_level(0));
    world.kill(0);
    let (file, backup) = (world.director_folder(0).join("director.redb"), world.folder.path().join("backup"));
    std::fs::copy(&file, &backup).unwrap();
    world.start(0);
    world.events(0, 30);
    world.until("what is lost later", |w| w.is_level(0));
    world.kill(0);
    std::fs::copy(&backup, &file).unwrap();
    world.start(0);
    world.director(0).registry.borrow_mut().event(clock::unix(), "", "after_restore", "new", None);
    world.director(0).flush();
    world.until("the new stream", |w| w.is_level(0));
    let codes: Vec<String> = world.told(0).into_iter().map(|e| e.code).collect();
    assert_eq!(codes.iter().filter(|c| *c == "activity_anew").count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|c| *c == "after_restore").count(), 1, "{codes:?}");
}

#[test]
fn a_stolen_fleet_that_sends_a_gigabyte_is_cut_off() {
    let world = World::new(1);
    world.enroll_agent(0, "edge-1");
    world.until("the first contact", |w| w.is_level(0));
    world.mood.set(Mood::Huge);
    world.events(0, 5);
    world.until("the refusal", |w| w.view(0).code == "too_large");
    world.until("the loss", |w| w.view(0).state == "unreachable");
    // The site goes on meanwhile, and all of it is told once Fleet speaks sense again.
    world.enroll_agent(0, "edge-2");
    world.mood.set(Mood::Good);
    world.until("the rest", |w| w.is_level(0) && w.intake().agents_of("director0") == 2);
    world.same(0);
}
