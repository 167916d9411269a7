//! What both implementations promise. Each case keeps to keys of its own, so that one store serves them all.

use std::rc::Rc;
use std::time::Duration;

use smol::LocalExecutor;
use vmetric::core::reason::Reason;
use vmetric::fleet::store::{Commit, Event, LeaseId, Outcome, Revision, Row, Span, Step, Store, Watch, all, change};
use vmetric::io::clock;

use super::Open;

/// Patience for what another process or a clock has to do.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// All of it.
pub async fn whole(open: Open<'_>, executor: &Rc<LocalExecutor<'static>>) {
    rows_and_conditions(&*open()).await;
    many_keys_or_none(&*open()).await;
    limits(&*open()).await;
    pages_of_one_revision(&open()).await;
    a_watch_tells_all_in_order(&open()).await;
    a_watch_of_another_sees_it(open).await;
    what_is_no_longer_kept(&open()).await;
    leases(&open()).await;
    leases_end_by_themselves(&open()).await;
    many_writers_one_counter(open, executor).await;
}

pub fn done(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Done(revision) => revision,
        conflict => panic!("{conflict:?}"),
    }
}

pub async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    done(store.commit(Commit::default().with(Step::put(key, value))).await.unwrap())
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    store.get(key).await.unwrap().map(|row| String::from_utf8(row.value).unwrap())
}

fn code<T>(result: Result<T, Reason>) -> String {
    result.err().map_or("none".into(), |reason| reason.code.to_string())
}

async fn rows_and_conditions(store: &dyn Store) {
    assert_eq!(store.get("rows/a").await.unwrap(), None);
    let first = done(store.commit(Commit::default().when("rows/a", 0).with(Step::put("rows/a", "1"))).await.unwrap());
    let row = store.get("rows/a").await.unwrap().unwrap();
    assert_eq!(row, Row { key: "rows/a".into(), value: b"1".to_vec(), created: first, modified: first, lease: None });
    // It is there already.
    let again = store.commit(Commit::default().when("rows/a", 0).with(Step::put("rows/a", "2"))).await.unwrap();
    assert_eq!(again, Outcome::Conflict { key: "rows/a".into(), modified: first });
    let second = done(store.commit(Commit::default().when("rows/a", first).with(Step::put("rows/a", "2"))).await.unwrap());
    assert!(second > first);
    let row = store.get("rows/a").await.unwrap().unwrap();
    assert_eq!((row.value.as_slice(), row.created, row.modified), (&b"2"[..], first, second));
    // Another's key may be the condition, and not be changed.
    let moved = store.commit(Commit::default().when("rows/a", first).with(Step::put("rows/b", "1"))).await.unwrap();
    assert_eq!(moved, Outcome::Conflict { key: "rows/a".into(), modified: second });
    assert_eq!(store.get("rows/b").await.unwrap(), None);
    done(store.commit(Commit::default().when("rows/a", second).with(Step::delete("rows/a"))).await.unwrap());
    assert_eq!(store.get("rows/a").await.unwrap(), None);
    // What is gone is absent again, and made anew.
    let third = done(store.commit(Commit::default().when("rows/a", 0).with(Step::put("rows/a", "3"))).await.unwrap());
    assert_eq!(store.get("rows/a").await.unwrap().unwrap().created, third);
    done(store.commit(Commit::default().with(Step::delete("rows/never"))).await.unwrap());
    // Bytes are bytes.
    let bytes: Vec<u8> = (0..=255).collect();
    done(store.commit(Commit::default().with(Step::put("rows/ü \"\\", bytes.clone()))).await.unwrap());
    assert_eq!(store.get("rows/ü \"\\").await.unwrap().unwrap().value, bytes);
    done(store.commit(Commit::default().with(Step::put("rows/empty", ""))).await.unwrap());
    assert_eq!(store.get("rows/empty").await.unwrap().unwrap().value, b"");
}

async fn many_keys_or_none(store: &dyn Store) {
    let mut commit = Commit::default();
    for n in 0..100 {
        commit = commit.with(Step::put(format!("many/{n:03}"), format!("{n}"))).when(format!("many/{n:03}"), 0);
    }
    let revision = done(store.commit(commit.clone()).await.unwrap());
    let row = store.get("many/099").await.unwrap().unwrap();
    assert_eq!((row.value.as_slice(), row.modified), (&b"99"[..], revision), "all in one revision");
    // One of a hundred conditions does not hold.
    let mut next = Commit::default();
    for n in 0..100 {
        let known = if n == 57 { revision + 1_000 } else { revision };
        next = next.with(Step::delete(format!("many/{n:03}"))).when(format!("many/{n:03}"), known);
    }
    assert_eq!(store.commit(next).await.unwrap(), Outcome::Conflict { key: "many/057".into(), modified: revision });
    assert_eq!(value(store, "many/000").await.as_deref(), Some("0"), "nothing was changed");
}

async fn limits(store: &dyn Store) {
    for bad in [
        Commit::default(),
        Commit::default().with(Step::put("", "")),
        Commit::default().with(Step::put("limits/a", "")).with(Step::delete("limits/a")),
        Commit::default().with(Step::put("limits/big", vec![0; 256 * 1024 + 1])),
    ] {
        assert_eq!(code(store.commit(bad).await), "store_bad_request");
    }
    assert_eq!(code(store.get("").await), "store_bad_request");
    assert_eq!(code(store.grant(Duration::from_secs(1)).await), "store_bad_request");
    // The largest that is allowed goes through, and comes back.
    let mut commit = Commit::default();
    for n in 0..3 {
        commit = commit.with(Step::put(format!("limits/{n}"), vec![n; 256 * 1024]));
    }
    done(store.commit(commit).await.unwrap());
    assert_eq!(store.get("limits/2").await.unwrap().unwrap().value, vec![2; 256 * 1024]);
}

async fn pages_of_one_revision(store: &Rc<dyn Store>) {
    for batch in 0..7 {
        let steps = (0..100).map(|n| Step::put(format!("pages/{:04}", batch * 100 + n), "old")).collect();
        done(store.commit(Commit { steps, ..Commit::default() }).await.unwrap());
    }
    let mut listing = store.clone().list(Span::prefix("pages/"));
    let first = listing.next(300).await.unwrap();
    assert!(first.more && first.rows.len() == 300, "{} rows", first.rows.len());
    // What happens meanwhile is not in the listing.
    let later = put(&**store, "pages/0650", "new").await;
    done(store.commit(Commit::default().with(Step::delete("pages/0651")).with(Step::put("pages/0001a", "new"))).await.unwrap());
    let (mut rows, mut page) = (first.rows.clone(), first.clone());
    while page.more {
        page = listing.next(300).await.unwrap();
        assert_eq!(page.revision, first.revision);
        rows.extend(page.rows.clone());
    }
    assert!(later > first.revision);
    assert_eq!(rows.len(), 700);
    assert!(rows.iter().enumerate().all(|(n, row)| row.key == format!("pages/{n:04}") && row.value == b"old"));
    // And is what a watch from there tells of.
    let mut watch = store.clone().watch(Span::prefix("pages/"), first.revision);
    let told = events(&mut *watch, 3).await;
    let keys: Vec<&str> = told.iter().map(Event::key).collect();
    assert!(keys[0] == "pages/0650" && keys[1..].contains(&"pages/0651") && keys[1..].contains(&"pages/0001a"), "{keys:?}");
    let (now, _) = all(store, &Span::prefix("pages/"), 10_000).await.unwrap();
    assert_eq!((now.len(), now[2].key.as_str()), (700, "pages/0001a"));
    assert_eq!(code(all(store, &Span::prefix("pages/"), 100).await), "store_too_large");
    assert_eq!(all(store, &Span::prefix("nothing/"), 100).await.unwrap().0, []);
}

/// Waits for so many events.
pub async fn events(watch: &mut dyn Watch, count: usize) -> Vec<Event> {
    let mut told = Vec::new();
    while told.len() < count {
        let batch = smol::future::or(async { Some(watch.next().await.unwrap()) }, async {
            smol::Timer::after(PATIENCE).await;
            None
        });
        let batch = batch.await.unwrap_or_else(|| panic!("{count} events were awaited: {told:?}"));
        assert!(batch.events.iter().all(|e| e.modified() <= batch.revision));
        told.extend(batch.events);
    }
    assert!(told.windows(2).all(|pair| pair[0].modified() <= pair[1].modified()), "{told:?}");
    told
}

async fn a_watch_tells_all_in_order(store: &Rc<dyn Store>) {
    let before = put(&**store, "watch/0", "before").await;
    let mut commit = Commit::default();
    for n in 0..5 {
        put(&**store, &format!("watch/{n}"), "1").await;
        commit = commit.with(Step::put(format!("watch/{n}"), "2"));
    }
    put(&**store, "elsewhere/0", "1").await;
    let together = done(store.commit(commit).await.unwrap());
    let gone = done(store.commit(Commit::default().with(Step::delete("watch/3")).with(Step::delete("watch/none"))).await.unwrap());
    let mut watch = store.clone().watch(Span::prefix("watch/"), before);
    let told = events(&mut *watch, 11).await;
    assert_eq!(told.len(), 11, "{told:?}");
    assert!(
        told[..5].iter().enumerate().all(|(n, e)| matches!(e, Event::Put(row) if row.key == format!("watch/{n}") && row.value == b"1"))
    );
    assert!(told[5..10].iter().all(|e| matches!(e, Event::Put(row) if row.modified == together && row.value == b"2")));
    assert_eq!(told[10], Event::Deleted { key: "watch/3".into(), modified: gone });
    // A wait that is given up loses nothing.
    for n in 0..20 {
        let short = smol::future::or(async { Some(watch.next().await) }, async {
            smol::Timer::after(Duration::from_millis(n % 3)).await;
            None
        });
        assert!(short.await.is_none(), "nothing has happened");
    }
    let next = put(&**store, "watch/9", "3").await;
    assert!(matches!(&events(&mut *watch, 1).await[..], [Event::Put(row)] if row.modified == next));
}

async fn a_watch_of_another_sees_it(open: Open<'_>) {
    let (one, other) = (open(), open());
    let mut revision = put(&*one, "shared/a", "0").await;
    let mut watch = other.clone().watch(Span::prefix("shared/"), revision);
    for n in 1..20 {
        let told = smol::future::zip(events(&mut *watch, 1), put(&*one, "shared/a", &n.to_string())).await;
        assert!(told.1 > revision);
        revision = told.1;
        assert!(matches!(&told.0[..], [Event::Put(row)] if row.modified == revision && row.value == n.to_string().as_bytes()));
        assert_eq!(value(&*other, "shared/a").await, Some(n.to_string()), "a read sees what another was answered");
    }
}

async fn what_is_no_longer_kept(store: &Rc<dyn Store>) {
    let first = put(&**store, "compact/a", "1").await;
    for n in 0..10 {
        put(&**store, "compact/a", &n.to_string()).await;
    }
    let last = put(&**store, "compact/b", "9").await;
    let mut early = store.clone().watch(Span::prefix("compact/"), first);
    store.compact(last - 2).await.unwrap();
    // Twice, and further back, is no error.
    store.compact(last - 2).await.unwrap();
    store.compact(first).await.unwrap();
    assert_eq!(code(early.next().await), "store_compacted");
    // List again, and go on from there.
    let (rows, revision) = all(store, &Span::prefix("compact/"), 100).await.unwrap();
    assert_eq!(rows.iter().map(|r| r.key.as_str()).collect::<Vec<_>>(), ["compact/a", "compact/b"]);
    let mut late = store.clone().watch(Span::prefix("compact/"), revision);
    let next = put(&**store, "compact/c", "1").await;
    assert!(matches!(&events(&mut *late, 1).await[..], [Event::Put(row)] if row.modified == next));
}

async fn leases(store: &Rc<dyn Store>) {
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    let under = |key: &str, lease| Step::Put { key: key.into(), value: b"mine".to_vec(), lease: Some(lease) };
    let commit = Commit::default().with(under("lease/a", lease)).with(under("lease/b", lease)).with(under("lease/c", lease));
    let revision = done(store.commit(commit).await.unwrap());
    assert_eq!(store.get("lease/a").await.unwrap().unwrap().lease, Some(lease));
    // This one leaves the lease, that one is removed by hand.
    put(&**store, "lease/b", "stays").await;
    done(store.commit(Commit::default().with(Step::delete("lease/c"))).await.unwrap());
    store.renew(lease).await.unwrap();
    let mut watch = store.clone().watch(Span::prefix("lease/"), revision);
    assert_eq!(events(&mut *watch, 2).await.len(), 2);
    store.revoke(lease).await.unwrap();
    assert!(matches!(&events(&mut *watch, 1).await[..], [Event::Deleted { key, .. }] if key == "lease/a"));
    assert_eq!(store.get("lease/b").await.unwrap().unwrap().lease, None);
    assert_eq!((value(&**store, "lease/a").await, value(&**store, "lease/b").await.as_deref()), (None, Some("stays")));
    store.revoke(lease).await.unwrap();
    assert_eq!(code(store.renew(lease).await), "store_lease_gone");
    // Under a lease that has ended nothing is put, and nothing else of that commit is made.
    for gone in [lease, LeaseId(1 << 40)] {
        let commit = Commit::default().with(Step::put("lease/d", "1")).with(under("lease/e", gone));
        assert_eq!(code(store.commit(commit).await), "store_lease_gone");
    }
    assert_eq!(value(&**store, "lease/d").await, None);
}

/// Tried again when this machine stood still for longer than a lease may be left alone.
async fn leases_end_by_themselves(store: &Rc<dyn Store>) {
    for round in 0..10 {
        if lease_ends(store, &format!("ends/{round}/")).await {
            return;
        }
    }
    panic!("this machine stands still for seconds, again and again");
}

/// False: it stood still.
async fn lease_ends(store: &Rc<dyn Store>, place: &str) -> bool {
    const TIME: Duration = Duration::from_secs(5);
    let mut renewed = clock::monotonic();
    let (short, kept) = (store.grant(TIME).await.unwrap(), store.grant(TIME).await.unwrap());
    let under = |key: &str, lease| Step::Put { key: format!("{place}{key}"), value: vec![], lease: Some(lease) };
    let put = store.commit(Commit::default().with(under("short", short)).with(under("kept", kept))).await;
    let Ok(put) = put else { return false };
    let mut watch = store.clone().watch(Span::prefix(place), done(put));
    let ended = async { Some(events(&mut *watch, 1).await) };
    let keeping = async {
        loop {
            if store.renew(kept).await.is_err() {
                return None;
            }
            renewed = clock::monotonic();
            smol::Timer::after(TIME / 10).await;
        }
    };
    let told = smol::future::or(ended, keeping).await;
    let there = store.get(&format!("{place}kept")).await.unwrap().is_some();
    if clock::monotonic() - renewed >= TIME - Duration::from_secs(1) {
        return false;
    }
    assert!(matches!(told.as_deref(), Some([Event::Deleted { key, .. }]) if *key == format!("{place}short")), "{told:?}");
    assert!(there, "what is renewed stays");
    assert_eq!(code(store.renew(short).await), "store_lease_gone");
    store.revoke(kept).await.unwrap();
    true
}

/// One more.
pub fn raise(row: Option<&Row>) -> Result<Option<Vec<u8>>, Reason> {
    let before: u64 = row.map_or(0, |row| String::from_utf8(row.value.clone()).unwrap().parse().unwrap());
    Ok(Some((before + 1).to_string().into_bytes()))
}

async fn many_writers_one_counter(open: Open<'_>, executor: &Rc<LocalExecutor<'static>>) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 15;
    let store = open();
    let revision = put(&*store, "counter/n", "0").await;
    let mut watch = store.clone().watch(Span::prefix("counter/"), revision);
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let mine = open();
            executor.spawn(async move {
                for _ in 0..EACH {
                    change(&*mine, "counter/n", raise).await.unwrap();
                }
            })
        })
        .collect();
    let told = events(&mut *watch, (WRITERS * EACH) as usize).await;
    for writer in writers {
        writer.await;
    }
    assert_eq!(value(&*store, "counter/n").await, Some((WRITERS * EACH).to_string()));
    for (n, event) in told.iter().enumerate() {
        assert!(matches!(event, Event::Put(row) if row.value == (n + 1).to_string().into_bytes()), "{n}: {event:?}");
    }
}
