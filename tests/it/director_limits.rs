//! `limits:` of `vmetric.yml`: bytes a day and a second, downloads at once, bytes of the mirror.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::path::PathBuf;
use std::time::Duration;

use vmetric::core::keep::{Facts, Use};
use vmetric::core::release::Platform;
use vmetric::director::explain::ExplainView;
use vmetric::director::mirror::Source;
use vmetric::director::tree::Tree;
use vmetric::io::clock;
use vmetric::io::serve::{Body, Response};

use crate::director_bench::{Site, agent_file};
use crate::director_mirror::{add, mirror, publish, refreshed, released};
use crate::director_service::{ARTIFACT, Bench, code, header, text};

/// Sends so many bytes of an answer, as far as a client takes them.
fn sent(response: Response, bytes: u64) -> u16 {
    let status = response.status;
    if let Body::File { flow: Some(flow), .. } = &response.body {
        flow.sent(bytes);
    }
    status
}

fn limited(bench: &Bench, per_day: [Option<u64>; 2]) {
    bench.site.registry.borrow_mut().metering.per_day = per_day;
}

fn spent(bench: &Bench, who: &str) -> u64 {
    bench.site.registry.borrow().metering.spent.get(who).map_or(0, |row| row.bytes)
}

#[test]
fn an_agents_day_ends_and_a_restart_does_not_begin_a_new_one() {
    let bench = Bench::new();
    let (agent, _) = bench.enroll("a");
    let id = agent.agent_id.clone();
    limited(&bench, [None, Some(25)]);
    let get = |bench: &Bench, headers: &[(&'static str, &str)]| bench.get(ARTIFACT, &agent.credential, headers);
    let tag = header(&get(&bench, &[]), "etag").to_string();
    assert_eq!(spent(&bench, &id), 0, "nothing was sent of it");
    assert_eq!(sent(get(&bench, &[]), 10), 200);
    // It broke off, and goes on: each byte counts once.
    assert_eq!(sent(get(&bench, &[]), 4), 200);
    assert_eq!(spent(&bench, &id), 14);
    assert_eq!(sent(get(&bench, &[("range", "bytes=4-")]), 6), 206);
    assert_eq!(spent(&bench, &id), 20);
    // What has no body costs nothing.
    assert_eq!(get(&bench, &[("if-none-match", &tag)]).status, 304);
    let head = bench.request("HEAD", ARTIFACT, &agent.credential, &[], Vec::new());
    assert_eq!((bench.call(head).status, spent(&bench, &id)), (200, 20));

    let refused = get(&bench, &[]);
    let pause: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!(refused.status == 429 && pause >= 1, "{pause}");
    let said = text(refused);
    assert_eq!(code(&said), "bytes_per_day");
    assert!(said.contains("5 left, 10 asked for"), "{said}");
    assert_eq!(sent(get(&bench, &[("range", "bytes=5-")]), 5), 206, "what fits is served");
    assert_eq!((get(&bench, &[("range", "bytes=9-")]).status, spent(&bench, &id)), (429, 25));
    {
        let registry = bench.site.registry.borrow();
        let view: ExplainView = registry.explain(&id, &Default::default(), 0, clock::unix()).unwrap();
        assert_eq!((view.bytes_today, view.bytes_per_day), (Some(25), Some(25)));
        assert!(view.bytes_refused.unwrap().contains("bytes_per_day"));
        let told = registry.recent.iter().filter(|e| e.code == "download_refused").count();
        assert_eq!(told, 2, "once for each time that it had some again");
    }

    let bench = bench.restart();
    limited(&bench, [None, Some(25)]);
    assert_eq!((spent(&bench, &id), bench.get(ARTIFACT, &agent.credential, &[]).status), (25, 429));
    let (other, _) = bench.enroll("b");
    assert_eq!(bench.get(ARTIFACT, &other.credential, &[]).status, 200, "others are not concerned");
    let tomorrow = clock::unix() + 86_400;
    assert!(bench.site.registry.borrow_mut().take_bytes(Some(&id), 25, tomorrow).is_ok());
    let yesterday = bench.site.registry.borrow_mut().take_bytes(Some(&id), 25, clock::unix()).unwrap_err();
    assert_eq!(yesterday.code, "bytes_per_day", "a clock that steps back gives nothing");
    // A file that is larger than a day never comes, and says so.
    limited(&bench, [None, Some(9)]);
    assert_eq!(code(&text(bench.get(ARTIFACT, &other.credential, &[]))), "file_over_limit");
    bench.site.registry.borrow_mut().prune_spent(tomorrow + 86_400);
    assert_eq!(spent(&bench, &id), 0);
}

#[test]
fn all_agents_together_have_a_day_too_and_parallel_requests_do_not_exceed_it() {
    let bench = Bench::new();
    let (a, _) = bench.enroll("a");
    let (b, _) = bench.enroll("b");
    limited(&bench, [Some(25), Some(20)]);
    let under_way: Vec<Response> = [&a, &b].map(|agent| bench.get(ARTIFACT, &agent.credential, &[])).into();
    assert!(under_way.iter().all(|r| r.status == 200));
    // Taken in advance: whatever becomes of them.
    assert_eq!(bench.get(ARTIFACT, &a.credential, &[]).status, 429);
    drop(under_way);
    assert_eq!(bench.get(ARTIFACT, &a.credential, &[]).status, 200, "what was not sent is there again");
    // Of two limits that do not both permit it, neither is touched.
    for _ in 0..2 {
        assert_eq!(sent(bench.get(ARTIFACT, &a.credential, &[]), 10), 200);
    }
    assert_eq!(code(&text(bench.get(ARTIFACT, &a.credential, &[]))), "bytes_per_day");
    assert_eq!((spent(&bench, "director:"), spent(&bench, &a.agent_id)), (20, 20));
    assert_eq!(bench.get(ARTIFACT, &b.credential, &[]).status, 429, "5 are left of the Director's");
    assert_eq!(spent(&bench, &b.agent_id), 0);
}

#[test]
fn downloads_at_once_are_configured() {
    let bench = Bench::new();
    let (agent, _) = bench.enroll("a");
    bench.site.registry.borrow_mut().metering.downloads = 1;
    let held = bench.get(ARTIFACT, &agent.credential, &[]);
    assert_eq!((held.status, bench.get(ARTIFACT, &agent.credential, &[]).status), (200, 429));
    drop(held);
    // A refusal for another reason gives the place back.
    limited(&bench, [None, Some(1)]);
    for _ in 0..3 {
        assert_eq!(code(&text(bench.get(ARTIFACT, &agent.credential, &[]))), "file_over_limit");
    }
}

/// A lower bound of the time, which a busy machine only helps.
#[test]
fn a_rate_holds_on_a_real_connection() {
    let mut site = Site::new();
    site.kill();
    std::fs::write(site.state().join("vmetric.yml"), "limits: {agent: {bytes_per_second: 128KiB}}\n").unwrap();
    site.start();
    let agent = site.enroll("a");
    agent.report();
    site.good("assign --all --version 2.0.0");
    let length = agent_file("2.0.0").len() as u64;
    let began = clock::monotonic();
    let url = format!("{}/release/targets/vmetric-agent/2.0.0/linux-amd64/vmetric-agent", agent.url);
    let mut download = agent.http.get(&url, Some(&agent.credential), None, length, Duration::from_secs(60)).unwrap();
    let (mut body, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match download.read(&mut piece).unwrap() {
            0 => break,
            n => body.extend_from_slice(&piece[..n]),
        }
    }
    assert!(body == agent_file("2.0.0"));
    let least = Duration::from_secs_f64((length - 32 * 1024) as f64 / f64::from(128 * 1024));
    assert!(clock::monotonic() - began >= least, "{:?} for {length} bytes", clock::monotonic() - began);
}

fn linux() -> Platform {
    Platform { os: "linux".into(), arch: "amd64".into() }
}

fn facts(limit: u64, running: &str) -> Facts {
    let product = "vmetric-agent".to_string();
    let running = Use { product: product.clone(), version: running.parse().unwrap(), platform: linux() };
    Facts { limit: Some(limit), enrolled: [(product, linux())].into(), running: [running].into(), ..Facts::default() }
}

fn bytes_of(folder: PathBuf) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        sum += if entry.path().is_dir() { bytes_of(entry.path()) } else { entry.metadata().unwrap().len() };
    }
    sum
}

#[test]
fn the_mirror_stays_within_its_bytes_and_keeps_what_is_needed() {
    let bench = released();
    for version in ["1.1.0", "1.2.0"] {
        add(&bench, version);
    }
    publish(&bench);
    let one = agent_file("1.0.0").len() as u64;
    let versions = |tree: &Tree| tree.releases.versions("vmetric-agent").iter().map(|v| v.to_string()).collect::<Vec<_>>();
    let mut mirror = mirror(&bench, Source::Folder(bench.path("public")));
    let all = refreshed(&mirror, &Tree::default()).tree;
    assert_eq!(versions(&all), ["1.2.0", "1.1.0", "1.0.0"]);

    mirror.facts = facts(2 * one, "1.0.0");
    let some = refreshed(&mirror, &all);
    assert_eq!((versions(&some.tree), some.changed), (vec!["1.2.0".to_string(), "1.0.0".into()], true));
    assert!(some.left_out.is_empty(), "an older release that nobody runs is not missed");
    assert_eq!(bytes_of(bench.path("site/release/targets")), 2 * one);
    mirror.facts = facts(one, "1.0.0");
    let least = refreshed(&mirror, &some.tree);
    assert_eq!((versions(&least.tree), bytes_of(bench.path("site/release/targets"))), (vec!["1.0.0".to_string()], one));
    assert!(least.left_out[0].code == "mirror_full" && least.left_out[0].detail.contains("limits.mirror_bytes"), "{:?}", least.left_out);
    // They run another one now: it takes the place, at the same limit.
    mirror.facts = facts(one, "1.1.0");
    let other = refreshed(&mirror, &least.tree);
    assert_eq!((versions(&other.tree), other.changed), (vec!["1.1.0".to_string()], true));
    assert_eq!(bytes_of(bench.path("site/release/targets")), one);
    mirror.facts = Facts::default();
    assert_eq!(versions(&refreshed(&mirror, &other.tree).tree).len(), 3);
}

#[test]
fn what_devices_run_go_back_to_or_are_ordered_is_known() {
    let mut site = Site::new();
    site.add("1.5.0");
    site.publish();
    site.good("mirror");
    let mut agent = site.enroll("a");
    agent.report.version = "1.0.0".into();
    agent.report.fallback_version = Some("1.5.0".into());
    agent.report();
    let one = agent_file("1.0.0").len() as u64;
    // The smallest limit that may be set has room for all of them; so it is asked for what it would keep.
    assert!(3 * one < 1 << 20);
    site.good("assign --all --version 2.0.0");
    site.kill();
    let store = vmetric::director::store::Store::open(&site.state().join("director.redb")).unwrap();
    let registry = vmetric::director::site::load(&store, clock::unix()).unwrap();
    let facts = registry.mirror_facts(Some(1), &Default::default(), clock::unix());
    let versions = |uses: &std::collections::BTreeSet<Use>| uses.iter().map(|u| u.version.to_string()).collect::<Vec<_>>();
    assert_eq!((versions(&facts.running), versions(&facts.fallback)), (vec!["1.0.0".to_string()], vec!["1.5.0".to_string()]));
    assert_eq!(versions(&facts.ordered), ["2.0.0"]);
    assert_eq!(facts.enrolled.len(), 1);
}
