//! What several Fleets on etcd carry: figures, printed and not judged. `tests/run measure` shows that it works with few.
#![allow(clippy::disallowed_methods, reason = "a bench reads its size from the environment")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use vmetric::director::views::StatusView;
use vmetric::io::clock;

use super::cluster::Cluster;
use super::fleets::{set, shares};
use crate::director_bench::{FakeAgent, Site};
use crate::fleet_told::until;

/// Little for a thread that waits in one call.
const STACK: usize = 256 << 10;
const ROUNDS: u32 = 5;

/// Directors that only poll, `count` of them; each tells when it hears of settings.
fn directors(fleet: &Site, count: usize) -> Vec<FakeAgent> {
    let key = fleet.token(&format!("--uses {count}"));
    let enroll = |n: usize| {
        let mut director = fleet.enroll_with(&key, &format!("site-{n}"));
        director.report.park_s = 15;
        director
    };
    (0..count).map(enroll).collect()
}

#[test]
#[ignore = "takes minutes: VMETRIC_DIRECTORS=1000 cargo test --test it store::figures -- --ignored --nocapture"]
fn a_change_to_all_parked_directors_of_two_fleets() {
    let count: usize = std::env::var("VMETRIC_DIRECTORS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let mut etcd = Cluster::start(3, 256 << 20);
    let fleets = [shares(Site::fleet(), &etcd), shares(Site::fleet(), &etcd)];
    let crowd: Vec<FakeAgent> = fleets.iter().flat_map(|fleet| directors(fleet, count / 2)).collect();
    let (over, (tell, told)) = (AtomicBool::new(false), mpsc::channel());
    std::thread::scope(|scope| {
        for director in crowd {
            let (over, tell) = (&over, tell.clone());
            let poll = move || {
                while !over.load(Ordering::Relaxed) {
                    match director.poll().settings_revision {
                        Some(revision) => drop(tell.send((revision, clock::monotonic()))),
                        None => continue,
                    }
                }
            };
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, poll).unwrap();
        }
        let parked = || fleets.iter().map(|f| f.json::<StatusView>("status --json").parked).sum::<u64>();
        for (state, version) in [("three nodes", 1), ("the leader lost", 2)] {
            for round in 0..ROUNDS {
                until("all parked", || parked() as usize == count / 2 * 2);
                let began = clock::monotonic();
                set(&fleets[0], &format!("{version}.0.{round}"));
                let answered = clock::monotonic() - began;
                let mut times: Vec<Duration> = Vec::new();
                while times.len() < count / 2 * 2 {
                    times.push(told.recv_timeout(super::suite::PATIENCE).unwrap().1 - began);
                }
                times.sort();
                let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
                println!("{count} Directors, {state}: answered {answered:?}; told {median:?} (median), {last:?} (last)");
            }
            if version == 1 {
                let leader = etcd.until_whole(Some(&etcd.token(0)));
                etcd.kill(leader);
            }
        }
        over.store(true, Ordering::Relaxed);
        // They end with their park.
        drop(told);
    });
}
