//! The embedded store: the suite, and what a file can meet.
#![allow(clippy::disallowed_methods, reason = "tests wait, and write files of their own")]

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use vmetric::fleet::store::embedded::{Embedded, HISTORY_BYTES};
use vmetric::fleet::store::{Commit, Outcome, Span, Step, Store, all};

use super::on_one_thread;
use super::suite::{self, done, put};

fn store(path: &Path) -> Rc<dyn Store> {
    Embedded::open(path).unwrap()
}

#[test]
fn the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("store.redb"));
    on_one_thread(async |executor| suite::whole(&|| store.clone(), &executor).await);
}

#[test]
fn a_second_fleet_is_refused_with_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let first = store(&path);
    let reason = Embedded::open(&path).err().unwrap();
    assert!(reason.code == "store_in_use" && reason.detail.contains("store.redb") && reason.detail.contains("etcd"), "{reason}");
    drop(first);
    store(&path);
}

#[test]
fn rows_revisions_history_and_leases_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let (first, last, lease) = on_one_thread(async |_| {
        let store = store(&path);
        let first = put(&*store, "a", "1").await;
        let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
        let step = Step::Put { key: "b".into(), value: b"2".to_vec(), lease: Some(lease) };
        (first, done(store.commit(Commit::default().with(step)).await.unwrap()), lease)
    });
    on_one_thread(async |_| {
        let store = store(&path);
        let (rows, revision) = all(&store, &Span { from: vec![0], to: vec![255] }, 10).await.unwrap();
        assert_eq!((rows.len(), revision), (2, last));
        let mut watch = store.clone().watch(Span { from: vec![0], to: vec![255] }, first);
        assert_eq!(suite::events(&mut *watch, 1).await[0].modified(), last);
        store.renew(lease).await.unwrap();
        store.revoke(lease).await.unwrap();
        assert_eq!(store.get("b").await.unwrap(), None);
        assert!(store.grant(Duration::from_secs(60)).await.unwrap() > lease, "a number is never given twice");
        assert_eq!(store.health().await.unwrap().kind, "redb");
    });
}

#[test]
fn history_is_bounded_and_who_comes_too_late_lists_again() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |_| {
        let store = store(&folder.path().join("store.redb"));
        let first = put(&*store, "a", "1").await;
        let mut late = store.clone().watch(Span::prefix("a"), first);
        let mut last = first;
        for _ in 0..=HISTORY_BYTES / (4 * 250_000) {
            let steps = (0..4).map(|n| Step::put(format!("a{n}"), vec![0; 250_000])).collect();
            last = done(store.commit(Commit { steps, ..Commit::default() }).await.unwrap());
        }
        assert_eq!(late.next().await.unwrap_err().code, "store_compacted");
        let mut recent = store.clone().watch(Span::prefix("a"), last - 1);
        assert_eq!(recent.next().await.unwrap().events.len(), 4);
    });
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for bytes in [&b""[..], b"no database", &[0; 8192], &[0xff; 70_000]] {
        std::fs::write(&path, bytes).unwrap();
        let reason = Embedded::open(&path).err().unwrap();
        assert!(reason.code == "store_damaged" && reason.detail.contains("store.redb"), "{reason}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    let missing = folder.path().join("nowhere/store.redb");
    assert_eq!(Embedded::open(&missing).err().unwrap().code, "store_write_failed");
}

#[test]
fn a_caller_that_gives_up_leaves_the_store_in_order() {
    let folder = tempfile::tempdir().unwrap();
    on_one_thread(async |_| {
        let store = store(&folder.path().join("store.redb"));
        let before = put(&*store, "a", "0").await;
        for n in 1..50 {
            // Polled once, then dropped: it is made, or it is not.
            let commit = store.commit(Commit::default().with(Step::put("a", n.to_string())));
            smol::future::or(async { drop(commit.await) }, async {}).await;
        }
        let row = store.get("a").await.unwrap().unwrap();
        let again = store.commit(Commit::default().when("a", row.modified).with(Step::put("a", "last"))).await.unwrap();
        // What was still being written came between; then there is a conflict, and never a lost change.
        if let Outcome::Conflict { modified, .. } = again {
            assert!(modified > row.modified);
        }
        put(&*store, "a", "last").await;
        let mut watch = store.clone().watch(Span::prefix("a"), before);
        loop {
            let batch = watch.next().await.unwrap();
            if batch.events.iter().any(|e| matches!(e, vmetric::fleet::store::Event::Put(row) if row.value == b"last")) {
                break;
            }
        }
    });
}
