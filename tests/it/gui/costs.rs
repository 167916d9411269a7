//! What pages cost a large Fleet: size, time, CPU and memory; figures, no verdicts but the size of a page.
//!
//! `cargo test --release --test it gui::costs -- --ignored --nocapture --test-threads 1`

#![allow(clippy::disallowed_methods, reason = "the size of the fleet is given by whoever measures")]

use std::io::Read;
use std::time::Duration;

use vmetric::director::api_tokens::ApiTokenView;
use vmetric::io::clock;

use super::{PAGE_BYTES, Stream, row, tell};
use crate::access::{add, log_in};
use crate::director_bench::{FakeAgent, Site};

/// Loads of each page.
const LOADS: usize = 20;

/// As many as the environment says: the gate only looks whether it runs.
fn wanted(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// A page's size and the median time to its first byte and to its last.
fn page(site: &Site, session: &str, path: &str) {
    let mut raw = site.hostile();
    let (mut firsts, mut times, mut size) = (Vec::new(), Vec::new(), 0);
    for _ in 0..LOADS {
        let began = clock::monotonic();
        raw.say(format!("GET {path} HTTP/1.1\r\nhost: fleet.test\r\ncookie: __Host-session={session}\r\n\r\n"));
        // The first byte is the H, the rest comes after it.
        raw.0.read_exact(&mut [0]).unwrap();
        firsts.push(clock::monotonic() - began);
        let (head, body) = raw.hear();
        assert!(head.starts_with("TTP/1.1 200"), "{path}: {head}");
        (size, _) = (body.len(), times.push(clock::monotonic() - began));
    }
    firsts.sort();
    times.sort();
    let ms = |times: &[Duration]| times[LOADS / 2].as_secs_f64() * 1e3;
    println!("{path}: {size} bytes, first byte {:.1} ms, whole {:.1} ms (median of {LOADS})", ms(&firsts), ms(&times));
    assert!(size < PAGE_BYTES, "{path}: {size}");
}

/// CPU time of the process, milliseconds, in the kernel's ticks of 10.
fn cpu_ms(site: &Site) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", site.pid())).unwrap();
    let fields: Vec<i64> = stat.rsplit_once(')').unwrap().1.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    (fields[10] + fields[11]) * 10
}

/// Memory of the process, KiB.
fn rss(site: &Site) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Keeps streams open and says what that costs while nothing happens.
fn looked_at(site: &Site, sessions: &[String], pages: &[&str], n: usize) {
    let (memory, cpu) = (rss(site), cpu_ms(site));
    let mut streams: Vec<Stream> = (0..n).map(|n| Stream::open(site, &sessions[n % sessions.len()], pages[n % pages.len()])).collect();
    streams.iter_mut().for_each(|s| s.until("event: region"));
    let opened = cpu_ms(site) - cpu;
    let span = Duration::from_secs(wanted("VMETRIC_COSTS_S", 30) as u64);
    let before = cpu_ms(site);
    vmetric::io::process::sleep(span);
    let share = (cpu_ms(site) - before) as f64 / span.as_millis() as f64 * 100.0;
    let each = if n == 0 { 0 } else { (rss(site) - memory) / n as i64 };
    println!(
        "{n} browsers on {} page(s): opened with {opened} ms CPU, then {share:.2} % of a processor; memory {} KiB, {each} KiB each",
        pages.len(),
        rss(site)
    );
}

/// Page loads, many at once in the sense of the server: one after the other without a pause.
fn loads(site: &Site, session: &str, path: &str) {
    let mut raw = site.hostile();
    let before = cpu_ms(site);
    let n = 100;
    for _ in 0..n {
        raw.say(format!("GET {path} HTTP/1.1\r\nhost: fleet.test\r\ncookie: __Host-session={session}\r\n\r\n"));
        raw.hear();
    }
    println!("{path}: {:.1} ms CPU a load", (cpu_ms(site) - before) as f64 / n as f64);
}

#[test]
#[ignore = "measures: tests/run measure"]
fn ten_thousand_agents_and_fifty_browsers() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    let sessions: Vec<String> = (0..4).map(|_| log_in(&site, "anna")).collect();
    let each = wanted("VMETRIC_COSTS_N", 10_000) / 20;
    let directors: Vec<FakeAgent> = (0..20).map(|n| site.enroll(&format!("site-{n:02}"))).collect();
    for (n, director) in directors.iter().enumerate() {
        director.report();
        tell(director, (0..each).map(|m| row(n * each + m, &format!("edge-{:05}", n * each + m))));
    }
    println!("{} agents of 20 Directors", each * 20);
    for path in
        ["/devices/linux", "/devices/linux?q=edge-09999", "/devices/windows", "/", "/fleet-management/directors", "/activity", "/updates"]
    {
        page(&site, &sessions[0], path);
    }
    loads(&site, &sessions[0], "/");
    loads(&site, &sessions[0], "/devices/linux");
    looked_at(&site, &sessions, &["/"], 0);
    looked_at(&site, &sessions, &["/"], 50);
    looked_at(&site, &sessions, &["/", "/devices/linux", "/fleet-management/directors", "/rollouts", "/activity"], 50);
    // The API's token is another door to the same rows.
    let token = site.json::<ApiTokenView>("token create --role viewer --json").token;
    assert_eq!(crate::fleet::get(&site, "/api/v1/agents?limit=200", Some(&token)).0, 200);
}

#[test]
#[ignore = "measures: tests/run measure"]
fn ten_thousand_directors_in_the_table() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    let session = log_in(&site, "anna");
    let count = wanted("VMETRIC_COSTS_N", 10_000);
    let mut token = String::new();
    for n in 0..count {
        if n.is_multiple_of(1_000) {
            token = site.token("--uses 1000");
        }
        site.try_enroll(&token, &format!("site-{n:05}")).unwrap();
    }
    println!("{count} Directors; memory {} KiB", rss(&site));
    let table = "/fleet-management/directors";
    for query in ["", "?q=site-09999", "?status=silent", "?status=connected", "?status=attention", "?page=100", "?size=10"] {
        page(&site, &session, &format!("{table}{query}"));
    }
    for path in ["/", "/updates", "/activity"] {
        page(&site, &session, path);
    }
    loads(&site, &session, table);
    looked_at(&site, &[session], &[table], 10);
}
