//! Settings of several Fleets in one store: one order, one history, and what could not be made is nowhere.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use smol::LocalExecutor;
use vmetric::core::cluster::lease::Kind;
use vmetric::core::reason::Reason;
use vmetric::director::policing::history::ChangeRow;
use vmetric::director::policing::rows::{PolicyChange, PolicyRow, Scope};
use vmetric::director::policing::shared::SETTINGS;
use vmetric::director::policing::templates::TemplateChange;
use vmetric::director::registry::Registry;
use vmetric::director::store::{Change, Elsewhere, PARTLY, Table, UNDONE};
use vmetric::fleet::role::FLEET;
use vmetric::fleet::store::embedded::Embedded;
use vmetric::fleet::store::joined::{self, Rows};
use vmetric::fleet::store::shared::{Memory, Shared, Why, Written};
use vmetric::fleet::store::{Commit, Fut, Health, LeaseId, Listing, Outcome, Revision, Row, Span, Store, Watch};

use super::on_one_thread;
use super::suite::PATIENCE;
use crate::director_policy::settings;

/// A Fleet's registry, and the copy in its file.
#[derive(Default)]
struct Here {
    registry: RefCell<Registry>,
    copy: RefCell<Rows>,
    trouble: RefCell<Vec<String>>,
    /// Whether somebody wished for what was undone.
    undone: RefCell<Vec<bool>>,
}

impl Memory for Here {
    fn take(&self, rows: &[Change], why: Why) {
        let mut registry = self.registry.borrow_mut();
        for row in rows {
            assert!(registry.take_shared(row), "{row:?}");
            if matches!(why, Why::Elsewhere) {
                registry.note_elsewhere(row, 7);
            }
        }
        if let Why::Undone { wished, .. } = why {
            registry.forget_told_revisions();
            self.undone.borrow_mut().push(wished);
        }
        registry.take_changes();
    }

    fn copy(&self, rows: Vec<Change>) {
        rows.iter().for_each(|row| self.copy.borrow_mut().put(row, 1));
    }

    fn written(&self) -> Written<'_> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn trouble(&self, reason: Option<&Reason>) {
        self.trouble.borrow_mut().push(reason.map_or("none".into(), |r| r.code.to_string()));
    }
}

struct Fleet {
    name: &'static str,
    here: Rc<Here>,
    shared: Rc<Shared>,
}

impl Fleet {
    async fn start(name: &'static str, store: Rc<dyn Store>, executor: &LocalExecutor<'static>) -> Fleet {
        let here = Rc::new(Here::default());
        here.registry.borrow_mut().role = &FLEET;
        let (rows, revision) = joined::list(&store).await.unwrap();
        here.take(&Rows::default().differences(&rows), Why::Listed);
        let shared = Shared::new(store, here.clone(), rows, None);
        executor.spawn(shared.clone().commit_forever()).detach();
        executor.spawn(shared.clone().follow_forever(Some(revision))).detach();
        Fleet { name, here, shared }
    }

    /// What a person does: memory first, then the store.
    fn act<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.here.registry.borrow_mut();
        registry.by = Some(self.name.into());
        let done = act(&mut registry);
        registry.by = None;
        let changes = registry.take_changes().into_iter().filter(|change| SETTINGS.contains(&change.table)).collect();
        drop(registry);
        self.shared.queue(changes);
        done
    }

    fn set(&self, scope: &Scope, text: &str) -> PolicyRow {
        let change = PolicyChange { set: settings(text), replace: true, custom: Some(true), ..Default::default() };
        self.act(|registry| registry.set_policy(scope, &change, 5).unwrap())
    }

    fn version(&self, scope: &Scope) -> Option<String> {
        self.here.registry.borrow().policing.rows.get(&scope.key()).and_then(|row| row.settings.version.clone())
    }

    fn history(&self) -> Vec<ChangeRow> {
        self.here.registry.borrow().history(None, None, 1_000, 9).changes
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = vmetric::io::clock::monotonic() + PATIENCE;
    while !holds() {
        assert!(vmetric::io::clock::monotonic() < end, "{what} did not come");
        smol::Timer::after(Duration::from_millis(1)).await;
    }
}

/// Both know the same, and so do their files and the store.
async fn until_same(a: &Fleet, b: &Fleet, store: &Rc<dyn Store>) {
    let (rows, _) = joined::list(store).await.unwrap();
    let same = |fleet: &Fleet| {
        let whole = rows.differences(&fleet.here.copy.borrow()).is_empty();
        whole && a.here.registry.borrow().policing.rows == fleet.here.registry.borrow().policing.rows && a.history() == fleet.history()
    };
    until("the same settings", || same(a) && same(b)).await;
}

fn opened(folder: &tempfile::TempDir) -> Rc<dyn Store> {
    Embedded::open(&folder.path().join("shared.redb")).unwrap()
}

#[test]
fn a_change_at_one_fleet_is_in_force_at_the_other() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let store = opened(&folder);
        let a = Fleet::start("anna", store.clone(), &executor).await;
        let b = Fleet::start("ben", store.clone(), &executor).await;
        a.set(&Scope::Agents, "mode=auto;version=2.0.0");
        a.shared.durable().await.unwrap();
        until("A's word at B", || b.version(&Scope::Agents).as_deref() == Some("2.0.0")).await;
        assert!(b.here.registry.borrow().hand_out, "parked Directors are told");
        let row = b.set(&Scope::AgentsOf("d1".into()), "mode=manual");
        assert_eq!(row.revision, 2, "one order over both");
        let wish = TemplateChange { name: Some("t".into()), ..Default::default() };
        b.here
            .registry
            .borrow_mut()
            .agents
            .insert("d1".into(), vmetric::director::records::Agent { id: "d1".into(), ..Default::default() });
        b.act(|registry| registry.create_template("t1", "d1", &"0".repeat(64), &wish, 5).unwrap());
        b.shared.durable().await.unwrap();
        until("B's template at A", || a.here.registry.borrow().named_template("t").is_ok()).await;
        until_same(&a, &b, &store).await;
        assert_eq!(a.history().iter().map(|c| (c.revision, c.by.as_str())).collect::<Vec<_>>(), [(2, "ben"), (1, "anna")]);
        let told: Vec<_> = b.here.registry.borrow().recent.iter().map(|e| (e.code.clone(), e.by.clone())).collect();
        assert!(told.contains(&("policy_changed".into(), Some("anna".into()))), "{told:?}");
        // One that comes later finds all of it.
        let c = Fleet::start("carla", store.clone(), &executor).await;
        assert_eq!((c.history(), c.version(&Scope::Agents)), (a.history(), Some("2.0.0".into())));
    });
}

#[test]
fn a_clusters_lease_belongs_to_the_fleet_of_its_members() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let store = opened(&folder);
        let a = Fleet::start("anna", store.clone(), &executor).await;
        let b = Fleet::start("ben", store.clone(), &executor).await;
        let members = ["d1", "d2", "d3"].map(String::from);
        for id in &members {
            let director = vmetric::director::records::Agent { id: id.clone(), ..Default::default() };
            a.here.registry.borrow_mut().agents.insert(id.clone(), director);
        }
        a.act(|registry| registry.create_cluster("c-1", "north", &members, 5).unwrap());
        a.shared.durable().await.unwrap();
        until("the cluster at B", || b.here.registry.borrow().named_cluster("north").is_ok()).await;
        // B knows nothing of how its members are: it neither halts it nor lets it go on.
        let reason = b.here.registry.borrow().may_lead_cluster("north").unwrap_err();
        assert!(reason.code == "cluster_elsewhere" && reason.detail.contains("do it there"), "{reason}");
        a.here.registry.borrow().may_lead_cluster("north").unwrap();
        b.here.registry.borrow_mut().watch_clusters(9_999);
        assert!(b.here.registry.borrow_mut().take_changes().is_empty());
        // Nor does it give it other members: it cannot see who of them may be away.
        let others = ["d7", "d8", "d9"].map(String::from);
        for id in &others {
            let director = vmetric::director::records::Agent { id: id.clone(), ..Default::default() };
            b.here.registry.borrow_mut().agents.insert(id.clone(), director);
        }
        let change = vmetric::director::policing::clusters::ClusterChange { members: Some(others.to_vec()), ..Default::default() };
        let reason = b.here.registry.borrow_mut().change_cluster("north", &change, 6).unwrap_err();
        assert_eq!(reason.code, "cluster_elsewhere", "{reason}");
        // Its name and its end are everywhere.
        let name = vmetric::director::policing::clusters::ClusterChange { name: Some("south".into()), ..Default::default() };
        b.act(|registry| registry.change_cluster("north", &name, 6).unwrap());
        b.shared.durable().await.unwrap();
        until("the name at A", || a.here.registry.borrow().named_cluster("south").is_ok()).await;
        a.act(|registry| registry.remove_cluster("south", None, 7).unwrap());
        a.shared.durable().await.unwrap();
        until("the end at B", || b.here.registry.borrow().named_cluster("south").is_err()).await;
        until_same(&a, &b, &store).await;
    });
}

#[test]
fn of_two_changes_at_the_same_moment_one_is_made_and_the_other_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let store = opened(&folder);
        let a = Fleet::start("anna", store.clone(), &executor).await;
        let b = Fleet::start("ben", store.clone(), &executor).await;
        a.set(&Scope::Agents, "mode=auto;version=1.0.0");
        a.shared.durable().await.unwrap();
        until_same(&a, &b, &store).await;
        // Nothing runs between these: both decide by revision 1.
        b.here.registry.borrow_mut().handed_told.insert("d1".into(), 2);
        a.set(&Scope::Agents, "mode=auto;version=2.0.0");
        b.set(&Scope::Agents, "mode=auto;version=3.0.0");
        b.set(&Scope::Organization, "mode=manual");
        let (at_a, at_b) = smol::future::zip(a.shared.durable(), b.shared.durable()).await;
        let (won, lost, reason) = match (at_a, at_b) {
            (Ok(()), Err(reason)) => (&a, &b, reason),
            (Err(reason), Ok(())) => (&b, &a, reason),
            other => panic!("{other:?}"),
        };
        assert!(reason.starts_with(UNDONE) && reason.contains("look again"), "{reason}");
        assert!(lost.here.registry.borrow().handed_told.is_empty(), "a revision that was undone was said to nobody");
        // Whoever lost sees who won.
        until("the winner's word", || lost.version(&Scope::Agents) == won.version(&Scope::Agents)).await;
        until_same(&a, &b, &store).await;
        assert!(lost.history().iter().all(|change| change.revision == 1 || change.by == won.name), "{:?}", lost.history());
        // And may say it again.
        let newest = won.history()[0].revision;
        let again = lost.set(&Scope::Agents, "mode=auto;version=4.0.0");
        lost.shared.durable().await.unwrap();
        assert_eq!(again.revision, newest + 1);
        until_same(&a, &b, &store).await;
    });
}

/// A generator of the test's own: the same changes for the same seed.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn whatever_two_fleets_do_at_once_every_answer_is_true() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let store = opened(&folder);
        let a = Rc::new(Fleet::start("anna", store.clone(), &executor).await);
        let b = Rc::new(Fleet::start("ben", store.clone(), &executor).await);
        let tasks = [a.clone(), b.clone()].map(|fleet| {
            executor.spawn(async move {
                let (mut seed, mut made) = (u64::from(fleet.name.as_bytes()[0]), Vec::new());
                for n in 0..40 {
                    for _ in 0..next(&mut seed) % 40 {
                        smol::future::yield_now().await;
                    }
                    let scope = match next(&mut seed) % 4 {
                        0 => Scope::Agents,
                        1 => Scope::Organization,
                        d => Scope::AgentsOf(format!("d{d}")),
                    };
                    let row = fleet.set(&scope, &format!("mode=auto;version=1.{n}.{}", fleet.name.len()));
                    // Some wait for the answer, others say the next thing at once.
                    if !next(&mut seed).is_multiple_of(3) && fleet.shared.durable().await.is_ok() {
                        made.push(row.revision);
                    }
                }
                (fleet, made)
            })
        });
        let [one, other] = tasks;
        let (one, other) = smol::future::zip(one, other).await;
        let _ = smol::future::zip(a.shared.durable(), b.shared.durable()).await;
        until_same(&a, &b, &store).await;
        let history = a.history();
        let revisions: Vec<u64> = history.iter().map(|c| c.revision).collect();
        assert!(revisions.windows(2).all(|pair| pair[0] == pair[1] + 1), "no revision twice, none left out: {revisions:?}");
        assert!(one.1.len() + other.1.len() > 0);
        for (fleet, made) in [one, other] {
            for revision in made {
                assert!(history.iter().any(|c| c.revision == revision && c.by == fleet.name), "{revision} of {} is lost", fleet.name);
            }
        }
    });
}

/// A store that can be away.
struct Away {
    inner: Rc<dyn Store>,
    why: Cell<Option<&'static str>>,
    /// Commits that were tried.
    tried: Cell<usize>,
    /// Commits until it is gone.
    last: Cell<Option<usize>>,
}

impl Away {
    fn new(inner: Rc<dyn Store>) -> Rc<Away> {
        Rc::new(Away { inner, why: Cell::new(None), tried: Cell::new(0), last: Cell::new(None) })
    }

    fn check(&self) -> Result<(), Reason> {
        self.why.get().map_or(Ok(()), |code| Err(Reason::new(code, "of the test")))
    }
}

impl Store for Away {
    fn get<'a>(&'a self, key: &'a str) -> Fut<'a, Option<Row>> {
        Box::pin(async move {
            if self.why.get() == Some("store_no_quorum") {
                self.check()?;
            }
            self.inner.get(key).await
        })
    }
    fn list(self: Rc<Self>, span: Span) -> Box<dyn Listing> {
        self.inner.clone().list(span)
    }
    fn commit(&self, commit: Commit) -> Fut<'_, Outcome> {
        Box::pin(async move {
            self.tried.set(self.tried.get() + 1);
            self.check()?;
            if self.last.get().is_some_and(|last| self.tried.get() > last) {
                return Err(Reason::new("store_full", "of the test"));
            }
            self.inner.commit(commit).await
        })
    }
    fn watch(self: Rc<Self>, span: Span, after: Revision) -> Box<dyn Watch> {
        self.inner.clone().watch(span, after)
    }
    fn grant(&self, time: Duration) -> Fut<'_, LeaseId> {
        self.inner.grant(time)
    }
    fn renew(&self, lease: LeaseId) -> Fut<'_, ()> {
        self.inner.renew(lease)
    }
    fn revoke(&self, lease: LeaseId) -> Fut<'_, ()> {
        self.inner.revoke(lease)
    }
    fn compact(&self, upto: Revision) -> Fut<'_, ()> {
        self.inner.compact(upto)
    }
    fn health(&self) -> Fut<'_, Health> {
        self.inner.health()
    }
}

#[test]
fn what_the_store_refuses_is_nowhere_and_the_reason_is_told() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let inner = opened(&folder);
        let store = Away::new(inner.clone());
        let a = Fleet::start("anna", store.clone(), &executor).await;
        a.set(&Scope::Agents, "mode=auto;version=1.0.0");
        a.shared.durable().await.unwrap();
        for code in ["store_no_quorum", "store_full", "store_refused", "store_unsure"] {
            store.why.set(Some(code));
            a.set(&Scope::Agents, "mode=auto;version=9.0.0");
            a.set(&Scope::Organization, "mode=manual");
            let reason = a.shared.durable().await.unwrap_err();
            // Of the one it is not known.
            assert_eq!(reason.contains("nothing of this was changed"), code != "store_unsure", "{reason}");
            assert!(reason.contains(code), "{reason}");
            assert_eq!((a.version(&Scope::Agents).as_deref(), a.history().len()), (Some("1.0.0"), 1));
            assert!(!a.here.registry.borrow().policing.rows.contains_key("organization"));
            // Whoever asks afterwards is not told of it.
            a.shared.durable().await.unwrap();
        }
        store.why.set(None);
        assert_eq!(a.set(&Scope::Agents, "mode=auto;version=2.0.0").revision, 2);
        a.shared.durable().await.unwrap();
        until_same(&a, &a, &inner).await;
    });
}

#[test]
fn a_store_that_is_away_is_not_waited_for_with_every_change() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let inner = opened(&folder);
        let store = Away::new(inner.clone());
        let a = Fleet::start("anna", store.clone(), &executor).await;
        a.set(&Scope::Agents, "mode=auto;version=1.0.0");
        a.shared.durable().await.unwrap();
        store.why.set(Some("store_no_quorum"));
        a.set(&Scope::Agents, "mode=auto;version=2.0.0");
        a.shared.durable().await.unwrap_err();
        let tried = store.tried.get();
        a.set(&Scope::Agents, "mode=auto;version=3.0.0");
        let reason = a.shared.durable().await.unwrap_err();
        assert!(reason.contains("store_no_quorum") && reason.contains("nothing of this was changed"), "{reason}");
        // What nobody wished for is no news.
        a.shared.queue(vec![Change { table: Table::Confirmations, key: "over".into(), value: None }]);
        a.shared.durable().await.unwrap();
        assert_eq!(a.here.undone.borrow().as_slice(), [true, true, false]);
        assert_eq!(store.tried.get(), tried, "it is asked for a sign of life first");
        // It is back, and nothing has happened there that a watch could tell.
        store.why.set(None);
        a.set(&Scope::Agents, "mode=auto;version=4.0.0");
        a.shared.durable().await.unwrap();
        until_same(&a, &a, &inner).await;
    });
}

#[test]
fn of_a_change_of_many_rows_is_said_what_was_made() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let inner = opened(&folder);
        let store = Away::new(inner.clone());
        let a = Fleet::start("anna", store.clone(), &executor).await;
        store.last.set(Some(2));
        a.act(|registry| {
            for n in 0..150 {
                let change = PolicyChange { set: settings("mode=manual"), replace: true, custom: Some(true), ..Default::default() };
                registry.set_policy(&Scope::AgentsOf(format!("d{n}")), &change, 5).unwrap();
            }
        });
        let reason = a.shared.durable().await.unwrap_err();
        assert!(reason.starts_with(PARTLY) && reason.contains(" of 300 rows") && reason.contains("store_full"), "{reason}");
        assert!(!reason.contains("nothing of this was changed"), "{reason}");
        // What counts here is what counts at others.
        assert!((1..150).contains(&a.here.registry.borrow().policing.rows.len()));
        let b = Fleet::start("ben", inner.clone(), &executor).await;
        assert_eq!(a.here.registry.borrow().policing.rows, b.here.registry.borrow().policing.rows);
        assert_eq!(a.history(), b.history());
        store.last.set(None);
        a.set(&Scope::Agents, "mode=auto;version=2.0.0");
        a.shared.durable().await.unwrap();
    });
}

#[test]
fn a_store_that_was_brought_back_from_a_backup_counts() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let store = opened(&folder);
        let older: Rc<dyn Store> = Embedded::open(&folder.path().join("older.redb")).unwrap();
        let a = Fleet::start("anna", store.clone(), &executor).await;
        for n in 0..5 {
            a.set(&Scope::Agents, &format!("mode=auto;version=1.0.{n}"));
            a.shared.durable().await.unwrap();
        }
        let (rows, _) = joined::list(&store).await.unwrap();
        let c = Fleet::start("carla", older.clone(), &executor).await;
        c.set(&Scope::Agents, "mode=auto;version=1.0.0");
        c.shared.durable().await.unwrap();
        // B knew the newer one, and lists what is there now.
        let here = Rc::new(Here::default());
        here.take(&Rows::default().differences(&rows), Why::Listed);
        here.copy(Rows::default().differences(&rows));
        let shared = Shared::new(older.clone(), here.clone(), rows, Some("store_unreachable".into()));
        executor.spawn(shared.clone().commit_forever()).detach();
        executor.spawn(shared.clone().follow_forever(None)).detach();
        let b = Fleet { name: "ben", here, shared };
        until("the older word", || b.version(&Scope::Agents).as_deref() == Some("1.0.0")).await;
        until_same(&c, &b, &older).await;
        assert_eq!(b.here.trouble.borrow().as_slice(), ["none"]);
        b.set(&Scope::Agents, "mode=manual");
        b.shared.durable().await.unwrap();
        until_same(&c, &b, &older).await;
    });
}

#[test]
fn a_cluster_whose_removal_was_undone_is_still_paused() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let store = Away::new(opened(&folder));
        let a = Fleet::start("anna", store.clone(), &executor).await;
        let members = ["d1", "d2", "d3"].map(String::from);
        for id in &members {
            let director = vmetric::director::records::Agent { id: id.clone(), ..Default::default() };
            a.here.registry.borrow_mut().agents.insert(id.clone(), director);
        }
        a.act(|registry| registry.create_cluster("c-1", "north", &members, 5).unwrap());
        a.act(|registry| registry.stop_cluster("north", Kind::Paused, "of the test", 6).unwrap());
        a.shared.durable().await.unwrap();
        let paused = a.here.registry.borrow().book_of("c-1");
        assert!(paused.stop.is_some());
        store.why.set(Some("store_no_quorum"));
        a.act(|registry| registry.remove_cluster("north", None, 7).unwrap());
        let reason = a.shared.durable().await.unwrap_err();
        assert!(reason.contains("nothing of this was changed"), "{reason}");
        assert!(a.here.registry.borrow().named_cluster("north").is_ok());
        assert_eq!(a.here.registry.borrow().book_of("c-1"), paused);
    });
}

#[test]
fn what_a_watch_missed_is_listed_again() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |executor| {
        let store = opened(&folder);
        let a = Fleet::start("anna", store.clone(), &executor).await;
        for n in 0..5 {
            a.set(&Scope::Agents, &format!("mode=auto;version=1.0.{n}"));
            a.shared.durable().await.unwrap();
        }
        // B was away meanwhile: it knows nothing, and what it missed is no longer kept.
        store.compact(5).await.unwrap();
        let here = Rc::new(Here::default());
        let shared = Shared::new(store.clone(), here.clone(), Rows::default(), Some("store_unreachable".into()));
        executor.spawn(shared.clone().commit_forever()).detach();
        executor.spawn(shared.clone().follow_forever(Some(1))).detach();
        let b = Fleet { name: "ben", here, shared };
        until_same(&a, &b, &store).await;
        assert_eq!(b.here.trouble.borrow().as_slice(), ["none"]);
        b.set(&Scope::Agents, "mode=manual");
        b.shared.durable().await.unwrap();
        until_same(&a, &b, &store).await;
    });
}
