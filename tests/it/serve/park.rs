//! What one parked poll costs, measured from outside: `cargo test --test it -- --ignored --nocapture measure_parked_polls`.
//!
//! The server is a process of its own, so that only its memory is counted. `VMETRIC_PARK` sets the number of connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::post;
use super::site::{Seen, Site};

/// Resident memory and CPU time (ticks of 10 ms) of a process.
fn cost(child: &Child) -> (f64, f64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let status = read("status");
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").parse::<f64>().unwrap();
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (rss * 1024.0, fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap())
}

#[test]
#[ignore = "a measurement: prints bytes per parked poll"]
fn measure_parked_polls() {
    let n = std::env::var_os("VMETRIC_PARK").and_then(|v| v.into_string().ok()?.parse().ok()).unwrap_or(4000_usize);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve::park::child_that_parks", "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut say = child.stdin.take().unwrap();
    let words = lines.find_map(|l| l.strip_prefix("site ").map(str::to_string)).unwrap();
    let (address, pin) = words.split_once(' ').unwrap();
    let raw = || super::site::raw(address.parse().unwrap(), vmetric::io::tls::parse_pin(pin).unwrap());
    let mut parked = |raws: &mut Vec<_>, say: &mut ChildStdin| {
        for raw in raws.iter_mut() {
            super::site::Raw::say(raw, post("/park", &"r".repeat(1500)));
        }
        writeln!(say, "{}", raws.len()).unwrap();
        lines.find(|l| l == "parked").unwrap();
    };
    // Everything that is made once is there before the first look.
    parked(&mut vec![raw()], &mut say);
    let (base, _) = cost(&child);
    let mut raws: Vec<_> = (0..n).map(|_| raw()).collect();
    parked(&mut raws, &mut say);
    let (first, ticks) = cost(&child);
    // The second poll of the same connections: what a fleet costs in the long run.
    writeln!(say, "answer {n}").unwrap();
    raws.iter_mut().for_each(|r| assert_eq!(r.status().0, 200));
    parked(&mut raws, &mut say);
    let (second, later) = cost(&child);
    let per = |bytes: f64| (bytes - base) / n as f64;
    println!("{n} parked polls: {:.0} bytes each at first, {:.0} at the second poll", per(first), per(second));
    println!(
        "CPU {:.0} us per accept and first poll, {:.0} us per answer and next poll",
        ticks * 1e4 / n as f64,
        (later - ticks) * 1e4 / n as f64
    );
    drop(say);
    drop(raws);
    child.wait().unwrap();
}

#[test]
#[ignore = "run by measure_parked_polls in a process of its own"]
fn child_that_parks() {
    let site = Site::start();
    println!("\nsite {} {}", site.address, vmetric::io::tls::pin_text(&site.pin));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        if let Some(n) = line.strip_prefix("answer ") {
            (0..n.parse().unwrap()).for_each(|_| site.events.send_blocking("event".into()).unwrap());
            continue;
        }
        let mut wanted: usize = line.parse().unwrap();
        while wanted > 0 {
            // A connection of the measuring process that ended counts for nothing.
            if site.next_seen() == Seen::Parked {
                wanted -= 1;
            }
        }
        println!("parked");
    }
    let _ = std::io::stdin().read(&mut [0]);
}
