//! No free descriptor for a while: nothing is lost, nobody gives up, and the work goes on when there is one.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use miniserde::json;
use vmetric::director::views::AgentsView;

use crate::agent::{Device, said, text};
use crate::director_bench::Site;

const AGENT: &str = env!("CARGO_BIN_EXE_vmetric-agent");

fn variant(tail: &str) -> Vec<u8> {
    let mut file = fs::read(AGENT).unwrap();
    file.extend_from_slice(tail.as_bytes());
    file
}

/// A device whose agent writes its log to a file, in contact.
fn in_contact(site: &Site) -> Device<'_> {
    let mut device = Device::enrolled(site);
    let log = fs::File::create(device.path("log")).unwrap();
    let mut command = device.command(&["run"]);
    device.process = Some(command.env("VMETRIC_RESPAWN", "1").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    device.wait("contact", |s| text(s, "last_contact") != "null");
    device
}

/// Sets the soft limit of open files of a running process.
fn limit(pid: u32, files: usize) {
    let out = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={files}:")]).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn an_agent_without_a_free_descriptor_goes_on_when_there_is_one() {
    if !cfg!(target_os = "linux") || Command::new("prlimit").arg("--version").output().is_err() {
        crate::left_out("no prlimit here");
        return;
    }
    let site = Site::with(&[("2.0.0", variant("two"))]);
    let device = in_contact(&site);
    let pid = device.process.as_ref().unwrap().id();
    limit(pid, 3);
    site.good("assign --all --version 2.0.0");
    // `status` is a process of its own, and has descriptors.
    device.wait("word of the lack", |_| fs::read_to_string(device.path("log")).unwrap().contains("Too many open files"));
    assert_eq!(text(&device.status(), "running"), "factory");
    limit(pid, 256);
    let status = device.wait("the update", |s| text(s, "last_result.outcome") == "updated" && text(s, "running_as") == "confirmed");
    assert_eq!(text(&status, "pid"), pid.to_string(), "{}", json::to_string(&status));
}

#[test]
fn a_director_without_a_free_descriptor_loses_nobody() {
    if !cfg!(target_os = "linux") || Command::new("prlimit").arg("--version").output().is_err() {
        crate::left_out("no prlimit here");
        return;
    }
    let site = Site::with(&[("2.0.0", variant("two"))]);
    let device = in_contact(&site);
    let address = site.url.strip_prefix("https://").unwrap();
    limit(site.pid(), open_files(site.pid()));
    // Callers whom it cannot take in: they wait in the kernel's queue, or are turned away.
    let callers: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    limit(site.pid(), 4096);
    drop(callers);
    site.good("assign --all --version 2.0.0");
    device.wait("the update", |s| text(s, "last_result.outcome") == "updated" && text(s, "last_result.reported") == "true");
    assert!(site.json::<AgentsView>("agents --json").agents[0].online);
}
