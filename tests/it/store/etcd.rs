//! The suite over three real etcd servers, what is promised while they die, and what is said when it cannot be kept.
//! `tests/run etcd` installs Debian's etcd-server and runs these.
#![allow(clippy::disallowed_methods, reason = "tests wait, and write files of their own")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use vmetric::core::reason::Reason;
use vmetric::fleet::store::etcd::{Etcd, Settings};
use vmetric::fleet::store::{Commit, Event, Outcome, Span, Step, Store, change};
use vmetric::io::clock;

use super::cluster::Cluster;
use super::on_one_thread;
use super::suite::{self, PATIENCE, put, raise};

const QUOTA: u64 = 256 << 20;

#[test]
#[ignore = "needs etcd: tests/run etcd"]
fn the_suite() {
    let cluster = Cluster::start(3, QUOTA);
    on_one_thread(async |executor| {
        suite::whole(&|| cluster.open(), &executor).await;
        rates(&cluster, &executor).await;
        let health = cluster.open().health().await.unwrap();
        assert_eq!((health.kind, health.members.len()), ("etcd", 3));
        assert_eq!(health.members.iter().filter(|m| m.leads).count(), 1, "{health:?}");
        assert!(health.revision > 0 && health.members.iter().all(|m| m.problem.is_none() && m.version.starts_with("3.")), "{health:?}");
    });
}

/// How many commits a second, when nobody is in each other's way; printed, not judged.
async fn rates(cluster: &Cluster, executor: &Rc<smol::LocalExecutor<'static>>) {
    let store = cluster.open();
    for (writers, rows) in [(1, 1), (8, 1), (8, 100)] {
        let began = clock::monotonic();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let store = store.clone();
                executor.spawn(async move {
                    for _ in 0..50 {
                        let steps = (0..rows).map(|row| Step::put(format!("rates/{writer}/{row}"), vec![b'x'; 300])).collect();
                        suite::done(store.commit(Commit { steps, ..Commit::default() }).await.unwrap());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        let commits = writers * 50 * 1000 / (clock::monotonic() - began).as_millis().max(1) as u64;
        println!("{writers} writers, {rows} rows of 300 bytes in a commit: {commits} commits/s, {} rows/s", commits * rows);
    }
}

/// What the writers and the watch of a run share.
#[derive(Default)]
struct Run {
    made: Cell<u64>,
    stop: Cell<bool>,
    /// Longest time between two commits that were answered.
    pause: Cell<Duration>,
    last: Cell<Duration>,
    told: RefCell<Vec<u64>>,
}

impl Run {
    fn commit(&self) {
        let now = clock::monotonic();
        if self.made.get() > 0 {
            self.pause.set(self.pause.get().max(now - self.last.get()));
        }
        self.last.set(now);
        self.made.set(self.made.get() + 1);
    }

    /// Waits until so many more commits were answered; says how many there were in a second.
    async fn more(&self, count: u64) -> u64 {
        let (from, began) = (self.made.get(), clock::monotonic());
        self.pause.set(Duration::ZERO);
        while self.made.get() < from + count {
            assert!(clock::monotonic() - began < PATIENCE, "{} of {count} commits", self.made.get() - from);
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        ((self.made.get() - from) as u128 * 1000 / (clock::monotonic() - began).as_millis().max(1)) as u64
    }
}

/// Writers raise one counter, a watch follows, a lease is kept; meanwhile servers are killed, frozen and revived. Each number
/// is there once, the watch has told of each, and no commit ended in an error.
#[test]
#[ignore = "needs etcd: tests/run etcd"]
fn nothing_is_lost_and_nothing_made_twice_while_servers_die() {
    const WRITERS: usize = 6;
    let mut cluster = Cluster::start(3, QUOTA);
    on_one_thread(async |executor| {
        let (store, run) = (cluster.open(), Rc::new(Run::default()));
        let begin = put(&*store, "chaos/n", "0").await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let (mine, run) = (cluster.open(), run.clone());
                executor.spawn(async move {
                    let mut done = 0;
                    while !run.stop.get() {
                        change(&*mine, "chaos/n", raise).await.unwrap();
                        run.commit();
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let (follower, told) = (cluster.open(), run.clone());
        let mut watch = follower.watch(Span::prefix("chaos/n"), begin);
        let watching = executor.spawn(async move {
            loop {
                for event in watch.next().await.unwrap().events {
                    let Event::Put(row) = event else { panic!("{event:?}") };
                    told.told.borrow_mut().push(String::from_utf8(row.value).unwrap().parse().unwrap());
                }
            }
        });
        let (keeper, running) = (cluster.open(), run.clone());
        let lease = keeper.grant(Duration::from_secs(15)).await.unwrap();
        let step = Step::Put { key: "chaos/lease".into(), value: vec![], lease: Some(lease) };
        suite::done(keeper.commit(Commit::default().with(step)).await.unwrap());
        let keeping = executor.spawn(async move {
            while !running.stop.get() {
                keeper.renew(lease).await.unwrap();
                smol::Timer::after(Duration::from_secs(1)).await;
            }
        });

        let report = |what: &str, rate: u64| println!("{what}: {rate} commits/s, longest pause {} ms", run.pause.get().as_millis());
        report("three servers", run.more(200).await);
        // A follower dies, and comes back.
        let token = || cluster.token(0);
        let leader = cluster.until_whole(Some(&token()));
        let follower = (leader + 1) % 3;
        cluster.kill(follower);
        report("a follower was killed", run.more(200).await);
        cluster.revive(follower);
        run.more(50).await;
        // The leader dies, three times.
        for _ in 0..3 {
            let at = (0..3).find(|at| *at != follower).unwrap_or(0);
            let leader = cluster.until_whole(Some(&cluster.token(at)));
            cluster.kill(leader);
            report("the leader was killed", run.more(150).await);
            cluster.revive(leader);
            run.more(50).await;
        }
        // The leader is frozen: its connections stay, what it was sent it does later, or not.
        for _ in 0..2 {
            let leader = cluster.until_whole(Some(&cluster.token(0)));
            cluster.signal(leader, "STOP");
            report("the leader was frozen", run.more(150).await);
            cluster.signal(leader, "CONT");
            run.more(100).await;
        }
        // All of them, at once.
        (0..3).for_each(|at| cluster.kill(at));
        smol::Timer::after(Duration::from_secs(1)).await;
        (0..3).for_each(|at| cluster.revive(at));
        report("all were killed and started again", run.more(100).await);

        run.stop.set(true);
        let mut sum = 0;
        for writer in writers {
            sum += writer.await;
        }
        keeping.await;
        assert!(store.get("chaos/lease").await.unwrap().is_some(), "a lease that is renewed is not lost with its leader");
        let row = store.get("chaos/n").await.unwrap().unwrap();
        assert_eq!(String::from_utf8(row.value).unwrap().parse::<u64>().unwrap(), sum, "made twice, or lost");
        let began = clock::monotonic();
        while (run.told.borrow().len() as u64) < sum {
            assert!(clock::monotonic() - began < PATIENCE, "the watch told of {} of {sum}", run.told.borrow().len());
            smol::Timer::after(Duration::from_millis(50)).await;
        }
        assert_eq!(*run.told.borrow(), (1..=sum).collect::<Vec<u64>>(), "the watch tells of each once, in order");
        drop(watching);
        println!("{sum} commits by {WRITERS} writers, each told once");
    });
}

/// From a file to etcd and back, and what is said of each.
#[test]
#[ignore = "needs etcd: tests/run etcd"]
fn backup_restore_and_migration() {
    let cluster = Cluster::start(3, QUOTA);
    super::tools::there_and_back(&format!("etcd:{}", cluster.configuration().display()));
}

fn refused<T: std::fmt::Debug>(result: Result<T, Reason>, code: &str, names: &str) {
    let reason = result.unwrap_err();
    assert!(reason.code == code && reason.detail.contains(names), "{code}, {names}: {reason}");
    println!("{reason}");
}

#[test]
#[ignore = "needs etcd: tests/run etcd"]
fn every_refusal_has_a_clear_reason() {
    let mut cluster = Cluster::start(3, QUOTA);
    let get = |settings: Settings| on_one_thread(async |_| Etcd::new(settings)?.get("a").await);
    let good = cluster.settings();
    assert_eq!(get(good.clone()).unwrap(), None);
    // Who we are.
    let file = |name: &str, text: &str| {
        std::fs::write(cluster.file(name), text).unwrap();
        Some(cluster.file(name))
    };
    refused(get(Settings { password_file: file("wrong", "guess\n"), ..good.clone() }), "store_refused", "password_file");
    refused(get(Settings { user: Some("nobody".into()), ..good.clone() }), "store_refused", "user");
    refused(get(Settings { user: None, password_file: None, ..good.clone() }), "store_refused", "password_file");
    let other = Settings { user: Some("other".into()), password_file: file("other", "of another"), ..good.clone() };
    refused(get(other), "store_refused", "grant-permission");
    refused(get(Settings { prefix: "/elsewhere/".into(), ..good.clone() }), "store_refused", "prefix");
    // Whom we trust, and who trusts us.
    refused(get(Settings { ca: Some(cluster.file("stranger.pem")), ..good.clone() }), "store_refused", "`ca`");
    let (cert, key) = (Some(cluster.file("stranger-client.pem")), Some(cluster.file("stranger-client.key")));
    refused(get(Settings { cert: cert.clone(), key, ..good.clone() }), "store_refused", "`cert`");
    let named = Settings { cert: Some(cluster.file("named.pem")), key: Some(cluster.file("named.key")), ..good.clone() };
    refused(get(named), "store_refused", "CommonName");
    refused(get(Settings { cert: None, key: None, ..good.clone() }), "store_refused", "`cert`");
    refused(get(Settings { cert, ..good.clone() }), "store_misconfigured", "stranger-client.pem");
    refused(get(Settings { ca: None, ..good.clone() }), "store_misconfigured", "`ca`");
    refused(get(Settings { password_file: Some(cluster.file("none")), ..good.clone() }), "store_misconfigured", "none");
    refused(get(Settings { endpoints: vec![], ..good.clone() }), "store_misconfigured", "endpoints");
    refused(get(Settings { prefix: String::new(), ..good.clone() }), "store_misconfigured", "prefix");
    // One dead endpoint among good ones costs a moment, not the call.
    let mut endpoints = good.endpoints.clone();
    endpoints.insert(0, "http://127.0.0.1:1".into());
    assert_eq!(get(Settings { endpoints, ..good.clone() }).unwrap(), None);
    // No quorum, and nobody at all. A writer is told that nothing was changed, and it is so.
    on_one_thread(async |_| {
        let store = cluster.open();
        let before = put(&*store, "quorum", "1").await;
        cluster.kill(0);
        cluster.kill(1);
        // Until the last one has noticed that it is alone, it may take what it cannot pass on.
        let began = clock::monotonic();
        while !matches!(store.get("quorum").await, Err(reason) if reason.code == "store_no_quorum") {
            assert!(clock::monotonic() - began < PATIENCE);
        }
        refused(store.commit(Commit::default().with(Step::put("quorum", "2"))).await, "store_no_quorum", "more than half");
        let health = store.health().await.unwrap();
        assert!(health.members.iter().all(|m| m.problem.is_some()), "{health:?}");
        cluster.kill(2);
        refused(store.get("quorum").await, "store_unreachable", "127.0.0.1");
        (0..3).for_each(|at| cluster.revive(at));
        let began = clock::monotonic();
        let row = loop {
            match store.get("quorum").await {
                Ok(row) => break row.unwrap(),
                Err(reason) => assert!(clock::monotonic() - began < PATIENCE, "{reason}"),
            }
        };
        assert_eq!((row.value.as_slice(), row.modified), (&b"1"[..], before));
    });
}

#[test]
#[ignore = "needs etcd: tests/run etcd"]
fn a_full_etcd_says_so_and_goes_on_when_there_is_room() {
    let cluster = Cluster::start(1, 8 << 20);
    on_one_thread(async |_| {
        let store = cluster.open();
        let first = put(&*store, "full/first", "1").await;
        let mut last = (first, 0);
        let full = loop {
            let commit =
                Commit::default().with(Step::put("full/big", vec![last.1; 256 * 1024])).with(Step::put("full/n", last.1.to_string()));
            match store.commit(commit).await {
                Ok(outcome) => last = (suite::done(outcome), last.1 + 1),
                Err(reason) => break reason,
            }
            assert!(last.1 < 200, "a quota of 8 MiB is not kept");
        };
        refused::<()>(Err(full), "store_full", "alarm disarm");
        // All or nothing, and what is there can be read.
        let row = store.get("full/n").await.unwrap().unwrap();
        assert_eq!((row.modified, row.value), (last.0, (last.1 - 1).to_string().into_bytes()));
        assert_eq!(store.get("full/big").await.unwrap().unwrap().modified, last.0);
        let health = store.health().await.unwrap();
        assert_eq!(health.members[0].problem.as_ref().map(|r| r.code.to_string()).as_deref(), Some("store_full"), "{health:?}");
        // The remedy that it names.
        store.compact(last.0).await.unwrap();
        refused(store.commit(Commit::default().when("full/first", first).with(Step::put("full/first", "2"))).await, "store_full", "defrag");
        let (token, began) = (cluster.token(0), clock::monotonic());
        loop {
            let say = |path: &str, body: &str| {
                let (status, text) = cluster.say(0, &format!("/v3/maintenance/{path}"), body, Some(&token));
                assert_eq!(status, 200, "{text}");
                text
            };
            say("defragment", "{}");
            let alarms = say("alarm", r#"{"action":"GET"}"#);
            for member in alarms.split("\"memberID\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                say("alarm", &format!(r#"{{"action":"DEACTIVATE","memberID":"{member}","alarm":"NOSPACE"}}"#));
            }
            match store.commit(Commit::default().when("full/first", first).with(Step::put("full/first", "2"))).await {
                Ok(again) => break assert!(matches!(again, Outcome::Done(_)), "{again:?}"),
                // etcd compacts in the background: there may have been nothing to give back yet.
                Err(reason) => assert!(clock::monotonic() - began < PATIENCE, "{reason}"),
            }
        }
    });
}
