//! Three real Directors of one cluster, and a real agent: it learns the members, and turns to another one when its own is gone.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::fs;
use std::process::Command;

use vmetric::director::views::{AgentsView, StatusView};
use vmetric::io::clock;

use crate::agent::{Device, text};
use crate::director::wait_for;
use crate::director_bench::Site;

/// Three Directors with one site CA, each with the others in its file. The first one's agents are known to it alone.
fn cluster() -> Vec<Site> {
    cluster_on([None, None, None])
}

/// The same, each on that host.
fn cluster_on(hosts: [Option<(String, String)>; 3]) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for host in hosts {
        let mut site = Site::new();
        site.kill();
        if host.is_some() {
            (site.host, site.url) = (host, String::new());
        }
        if let Some(first) = sites.first() {
            fs::remove_dir_all(site.state().join("pki")).unwrap();
            copy(&first.state().join("pki"), &site.state().join("pki"));
        }
        site.start();
        assert!(sites.first().is_none_or(|first| first.pin == site.pin), "they are one site");
        sites.push(site);
    }
    let members: Vec<String> = sites.iter().map(|site| format!("    - {}\n", site.url)).collect();
    for site in &sites {
        fs::write(site.state().join("vmetric.yml"), format!("cluster:\n  members:\n{}", members.concat())).unwrap();
    }
    for site in &sites {
        wait_for("the file in force", || site.good("activity --json --limit 100").contains("config_changed"));
    }
    sites
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() { copy(&entry.path(), &target) } else { fs::copy(entry.path(), &target).map(drop).unwrap() }
    }
}

/// Who of them has the agent's poll.
fn holder(sites: &[Site], id: &str) -> Option<usize> {
    sites.iter().position(|site| {
        let parked = site.json::<StatusView>("status --json").parked == 1;
        parked && site.json::<AgentsView>("agents --json").agents.iter().any(|a| a.id == id && a.online)
    })
}

#[test]
fn an_agent_turns_to_another_member_and_keeps_its_identity() {
    let mut sites = cluster();
    let urls: Vec<String> = sites.iter().map(|site| site.url.clone()).collect();
    let first = sites.remove(0);
    let mut device = Device::enrolled(&first);
    let id = text(&device.status(), "agent_id");
    device.start();
    let config = device.path("state/config/agent.json");
    wait_for("the members on the device", || urls.iter().all(|url| fs::read_to_string(&config).unwrap().contains(url)));
    wait_for("its poll where it enrolled", || holder(std::slice::from_ref(&first), &id).is_some());

    // The Director that it enrolled at is gone, and then the one that it turned to: SIGKILL, as a power cut of the machine.
    let pid = first.pid().to_string();
    let killed = clock::monotonic();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    wait_for("its poll at another member", || holder(&sites, &id).is_some());
    println!("parked at another member after {:?}", clock::monotonic() - killed);
    let at = holder(&sites, &id).unwrap();
    let known = sites[at].good("activity --json --limit 100");
    assert!(known.contains("agent_returned"), "a credential of the site is enough: {known}");
    sites.remove(at).kill();
    wait_for("its poll at the last member", || holder(&sites, &id).is_some());
    let status = device.status();
    assert_eq!((text(&status, "agent_id"), text(&status, "director")), (id.clone(), sites[0].url.clone()));

    // Nobody is left: it waits, and finds the last one when that is back.
    sites[0].kill();
    device.wait("failures", |status| !text(status, "contact_code").is_empty());
    sites[0].start();
    wait_for("its poll again", || holder(&sites, &id).is_some());
}

#[test]
fn an_order_of_another_member_overrules_ours_and_is_acknowledged_here() {
    let sites = cluster();
    let mut agent = sites[0].enroll("edge");
    sites[0].good("assign --version 2.0.0 --all");
    let order = agent.poll().order.unwrap();
    agent.accept(&order);
    agent.step("downloading");

    // It was cut off, and obeys another member meanwhile.
    agent.url = sites[1].url.clone();
    agent.report.step = "idle".into();
    agent.report();
    sites[1].good("assign --version 2.0.0 --all");
    let other = agent.poll().order.unwrap();
    assert_ne!(other.issuer, order.issuer);
    agent.accept(&other);
    agent.step("staged");
    agent.on_trial(&other);

    // The trial comes back to the first: it did not order it, and is of the same authority.
    agent.url = sites[0].url.clone();
    let answer = agent.report();
    assert_eq!(answer.order, None, "our older order would send it back");
    assert_eq!(answer.acknowledged, agent.report.trial_nonce);
    let row = sites[0].view(&agent);
    assert_eq!((row.state.as_str(), row.code.as_str()), ("refused", "ordered_elsewhere"), "{}", row.detail);
    agent.ends(&other, "updated", "r1");
    assert_eq!(agent.report().result_taken.as_deref(), Some("r1"));
    agent.report.result = None;

    // What is ordered here from now on counts.
    sites[0].good("assign --version 1.0.0 --all");
    assert_eq!(agent.poll().order.unwrap().version, "1.0.0");
}

#[test]
fn who_stands_alone_acknowledges_no_trial_of_another() {
    let site = Site::new();
    let mut agent = site.enroll("edge");
    site.good("assign --version 2.0.0 --all");
    let order = agent.poll().order.unwrap();
    let foreign = vmetric::wire::agent_api::OrderWire { issuer: "elsewhere".into(), ..order };
    agent.accept(&foreign);
    agent.on_trial(&foreign);
    assert_eq!(agent.report().acknowledged, None);
}

/// Three hosts in namespaces of their own, each on a wire to this one; gone when dropped.
struct Hosts(Vec<String>);

impl Hosts {
    fn up() -> Hosts {
        let id = std::process::id();
        let hosts = Hosts((0..3).map(|n| format!("vmf{n}-{id}")).collect());
        for (n, name) in hosts.0.iter().enumerate() {
            ip(&format!("netns add {name}"));
            ip(&format!("link add {name} type veth peer name e0 netns {name}"));
            ip(&format!("addr add 10.99.{n}.2/30 dev {name}"));
            ip(&format!("link set {name} up"));
            ip(&format!("-n {name} addr add 10.99.{n}.1/30 dev e0"));
            ip(&format!("-n {name} link set e0 up"));
            ip(&format!("-n {name} link set lo up"));
        }
        hosts
    }

    /// From now on nothing comes back from there, not even that nobody is there.
    fn silence(&self, n: usize) {
        ip(&format!("-n {} route add blackhole 10.99.{n}.2/32", self.0[n]));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.0 {
            // The wire goes with its end.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
}

#[test]
#[ignore = "needs root for network namespaces; tests/run cluster"]
fn a_machine_that_falls_silent_is_left() {
    let hosts = Hosts::up();
    let mut sites = cluster_on(std::array::from_fn(|n| Some((hosts.0[n].clone(), format!("10.99.{n}.1")))));
    let mut device = Device::enrolled(&sites[0]);
    let id = text(&device.status(), "agent_id");
    device.start();
    let config = device.path("state/config/agent.json");
    let last = sites[2].url.clone();
    wait_for("the members on the device", || fs::read_to_string(&config).unwrap().contains(&last));
    wait_for("its poll where it enrolled", || holder(&sites[..1], &id).is_some());
    hosts.silence(0);
    let silent = clock::monotonic();
    let until = silent + std::time::Duration::from_secs(120);
    while holder(&sites[1..], &id).is_none() {
        assert!(clock::monotonic() < until, "it still waits for a machine that says nothing");
    }
    println!("parked at another member after {:?}", clock::monotonic() - silent);
    drop(device);
    sites.iter_mut().for_each(Site::kill);
}
