//! A real Director's resources: live with the switch, back with the rollback; backups; the operator's own ways to update.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use vmetric::core::hex;
use vmetric::io::clock;
use vmetric::io::package::tree;
use vmetric::io::tls::pin_text;
use vmetric::wire::slot::SlotWire;

use crate::agent::{said, text};
use crate::director_bench::{Site, now};
use crate::own_update::{Own, all_steps_ok, fleet, variant};
use crate::relay::Relay;

const ADD: &str = "add --repo release --keys keys --product vmetric-director --os linux --arch amd64";

/// A release with its resources.
fn release(site: &Site, version: &str, program: &[u8], resources: &[(&str, &str)]) {
    let folder = format!("resources-{version}");
    resources.iter().for_each(|(name, bytes)| site.bench.write(&format!("{folder}/{name}"), bytes.as_bytes()));
    site.bench.good(&format!("package {folder} --out packed/package.tar.zst"));
    site.bench.write("vmetric-director", program);
    for file in ["vmetric-director", "packed/package.tar.zst"] {
        site.bench.good(&format!("{ADD} --version {version} {file} --now {}", now()));
    }
    site.publish();
    site.good("mirror");
}

fn broken() -> Vec<u8> {
    // The agent passes the self-test, and does not know the Director's options: it ends at once.
    fs::read(env!("CARGO_BIN_EXE_vmetric-agent")).unwrap()
}

/// A slot's resource, after the whole tree was compared with what `slot.json` names.
fn resource(own: &Own, slot: &str, name: &str) -> Option<String> {
    let folder = own.path("state/slots").join(slot);
    let wire = SlotWire::parse(&fs::read(folder.join("slot.json")).unwrap()).unwrap();
    let hash = hex::decode(&wire.package.expect("slot.json names the package")).unwrap();
    tree::check(&folder, &hash, &mut || {}).unwrap();
    fs::read_to_string(folder.join("package").join(name)).ok()
}

fn last_event(own: &Own, code: &str) -> String {
    own.activity().into_iter().rfind(|e| e.code == code).map(|e| e.detail).unwrap_or_default()
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn resources_go_live_with_the_switch_and_stay_behind_with_the_rollback() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "old"), ("pipelines/p.yml", "p")]);
    release(&fleet, "3.0.0", &variant("three"), &[("lookups/a.csv", "new"), ("lookups/b.csv", "b")]);
    release(&fleet, "4.0.0", &broken(), &[("lookups/a.csv", "never")]);
    let mut own = Own::enrolled(&fleet);
    fs::create_dir_all(own.path("state/user")).unwrap();
    fs::copy(own.path("image/root.json"), own.path("state/user/mine")).unwrap();
    fleet.bench.write("own/state/vmetric.yml", b"name: 127.0.0.1\n");
    own.start(true);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");

    own.order("2.0.0");
    own.ended("updated", "2.0.0");
    assert_eq!(own.steps(), all_steps_ok(), "{:#?}", own.activity());
    assert_eq!(resource(&own, "a", "lookups/a.csv").as_deref(), Some("old"));
    assert_eq!(files_in(&own.path("state/slots/a")), ["confirmed", "package", "package.list", "slot.json", "vmetric-director"]);
    assert!(last_event(&own, "resource_update").contains("2 added"), "{}", last_event(&own, "resource_update"));
    assert!(last_event(&own, "backup").contains("vmetric-director restore"), "{}", last_event(&own, "backup"));

    own.order("3.0.0");
    own.ended("updated", "3.0.0");
    assert_eq!(resource(&own, "b", "lookups/a.csv").as_deref(), Some("new"));
    let changed = "1 added (lookups/b.csv), 1 changed (lookups/a.csv), 1 removed (pipelines/p.yml)";
    assert!(last_event(&own, "resource_update").contains(changed), "{}", last_event(&own, "resource_update"));

    fleet.good("assign --all --version 4.0.0 --end-probation");
    let status = own.ended("rolled_back", "4.0.0");
    assert_eq!(text(&status, "own.running"), "b");
    assert_eq!(resource(&own, "b", "lookups/a.csv").as_deref(), Some("new"), "binary and resources go back together");
    assert_eq!(fs::read(own.path("state/vmetric.yml")).unwrap(), b"name: 127.0.0.1\n");
    assert_eq!(fs::read(own.path("state/user/mine")).unwrap(), fs::read(own.path("image/root.json")).unwrap());

    let backups = said(&own.run(&["backups", "--json"]));
    let versions: Vec<&str> = backups.split(r#""version":""#).skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(versions, ["0.1.0", "2.0.0", "3.0.0"], "{backups}");
    let refused = own.run(&["restore", backups.split(r#""name":""#).nth(2).unwrap().split('"').next().unwrap()]);
    assert!(!refused.status.success() && said(&refused).contains("director_runs"), "{}", said(&refused));
}

/// The eighth of the failures that `own_update` injects: what goes wrong with the Resource Update shows at the start after it.
#[test]
fn resources_damaged_after_their_check_go_back_with_their_version() {
    use std::os::unix::fs::PermissionsExt;
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "good")]);
    let mut own = Own::enrolled(&fleet);
    own.start(true);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    // It waits before its stop, everything staged and checked.
    let image = |mode: u32| fs::set_permissions(own.path("image/vmetric-director"), fs::Permissions::from_mode(mode)).unwrap();
    image(0o644);
    own.order("2.0.0");
    own.wait("staged", |_| last_event(&own, "service_stop").contains("executable"));
    fs::write(own.path("state/slots/a/package/lookups/a.csv"), "evil").unwrap();
    image(0o755);
    let status = own.ended("rolled_back", "2.0.0");
    assert_eq!((text(&status, "own.running"), text(&status, "own.last_result.code")), ("factory".into(), "package_damaged".into()));
    let why: String = text(&status, "own.last_result.detail").chars().take(30).collect();
    own.wait("Fleet's knowledge of it", |_| fleet.good("activity").contains(&why));
}

#[test]
fn an_operator_updates_from_a_bundle_without_any_network_and_restores() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "two")]);
    fleet.bench.good(&format!("bundle --tree public --out release.bundle --now {}", now()));
    // Known to no Fleet, and its file says that nobody else updates it.
    let mut own = Own::new(&fleet);
    fs::create_dir_all(own.path("state")).unwrap();
    fleet.bench.write("own/state/vmetric.yml", b"name: 127.0.0.1\nupdate:\n  mode: manual\n");
    own.start(false);
    own.wait("start", |_| true);
    let bundle = fleet.bench.path("release.bundle");
    let done = own.run(&["update", "--file", bundle.to_str().unwrap()]);
    assert!(done.status.success(), "{}\n{}", said(&done), own.said());
    own.wait("the new version", |s| text(s, "own.running") == "a" && text(s, "own.running_as") == "confirmed");
    assert_eq!(resource(&own, "a", "lookups/a.csv").as_deref(), Some("two"));
    assert!(own.run(&["update", "--file", "/nowhere"]).status.code() == Some(1));

    // What rots beside the running binary comes again from the same medium.
    fs::write(own.path("state/slots/a/package/lookups/a.csv"), "evil").unwrap();
    let done = own.run(&["update", "--file", bundle.to_str().unwrap()]);
    assert!(done.status.success() && said(&done).contains("(repaired)"), "{}\n{}", said(&done), own.said());
    assert_eq!(resource(&own, "a", "lookups/a.csv").as_deref(), Some("two"));
    let again = own.run(&["update", "--file", bundle.to_str().unwrap()]);
    assert!(again.status.success() && said(&again).contains("(already)"), "{}", said(&again));

    fleet.bench.write("own/state/vmetric.yml", b"name: 127.0.0.2\nupdate:\n  mode: manual\n");
    let name = said(&own.run(&["backups"])).lines().nth(1).unwrap().split_whitespace().next().unwrap().to_string();
    own.end();
    let restored = own.run(&["restore", &name]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(fs::read_to_string(own.path("state/vmetric.yml")).unwrap().contains("127.0.0.1"));
    own.start(false);
    own.wait("start", |_| true);
    own.wait("the note", |_| own.activity().iter().any(|e| e.code == "backup_restored" && e.detail.contains(&name)));
}

/// The specification's "Manual Updates", word by word, with processes; `tests/beds` has the services.
#[test]
fn the_documented_manual_steps_work_literally() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "two")]);
    let mut own = Own::updated(&fleet, "2.0.0");

    // 2. Stop  3. Backup current installation directory  4. Extract new binary and resources  5. Start  6. -version
    own.end();
    fleet.bench.write("by-hand/vmetric-director", &variant("by hand"));
    fleet.bench.write("by-hand/package/lookups/a.csv", b"by hand");
    let steps = "cp -a image image.backup && chmod 755 ../by-hand/vmetric-director && tar -C ../by-hand -czf ../new.tar.gz . && tar -C image -xzf ../new.tar.gz";
    assert!(Command::new("sh").args(["-ec", steps]).current_dir(own.path("")).status().unwrap().success());
    own.start(false);
    let status = own.wait("start", |s| text(s, "own.running") == "factory");
    assert_eq!(text(&status, "own.running_as"), "manual", "{}", own.said());
    let version = said(&own.run(&["-version"]));
    assert!(version.starts_with("vmetric-director 0.1.0") && version.contains("running: 0.1.0 (factory image, manual)"), "{version}");
    assert_eq!(fs::read(own.path("state/slots/a/vmetric-director")).unwrap(), variant("two"), "the slots stay as fallback");

    // Beside the image, too, damage is told: a file that is not what the list says.
    own.end();
    let list = "find package -type f -exec sha256sum {} + > package.sha256 && echo other > package/lookups/a.csv";
    assert!(Command::new("sh").args(["-ec", list]).current_dir(own.path("image")).status().unwrap().success());
    own.start(false);
    let told = |e: &vmetric::director::records::Event| e.code == "package_damaged" && e.detail.contains("package/lookups/a.csv");
    own.wait("the reason", |_| own.activity().iter().any(told));
}

/// Rot in the tree of the version that runs: told, and fetched again unless the operator's file says that nothing is.
#[test]
fn damaged_resources_of_the_running_version_are_fetched_again() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "good"), ("pipelines/p.yml", "p")]);
    let mut own = Own::updated(&fleet, "2.0.0");
    own.end();
    fs::write(own.path("state/slots/a/package/lookups/a.csv"), "evil").unwrap();
    fs::remove_file(own.path("state/slots/a/package/pipelines/p.yml")).unwrap();
    fleet.bench.write("own/state/vmetric.yml", b"name: 127.0.0.1\nupdate:\n  mode: manual\n");
    own.start(false);
    let told = |code: &str, what: &str| own.activity().iter().any(|e| e.code == code && e.detail.contains(what));
    own.wait("the damage", |_| told("package_damaged", "lookups/a.csv"));
    own.wait("the reason", |_| told("package_not_repaired", "update.mode is manual") && told("package_not_repaired", "update --file"));
    assert_eq!(fs::read(own.path("state/slots/a/package/lookups/a.csv")).unwrap(), b"evil");

    fleet.bench.write("own/state/vmetric.yml", b"name: 127.0.0.1\n");
    own.wait("the repair", |_| told("package_repaired", "fetched again"));
    assert_eq!(resource(&own, "a", "lookups/a.csv").as_deref(), Some("good"));
    assert_eq!(files_in(&own.path("state/slots/a")), ["confirmed", "package", "package.list", "slot.json", "vmetric-director"]);
    let status = own.status().unwrap();
    assert_eq!((text(&status, "own.running"), text(&status, "own.running_as")), ("a".into(), "confirmed".into()));
}

/// What a Director fetches for itself is of its own day: `limits: bytes_per_day` holds it back, with the reason at Fleet.
#[test]
fn its_own_update_keeps_to_the_bytes_of_the_day() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "two")]);
    release(&fleet, "3.0.0", &variant("three"), &[("lookups/a.csv", "three")]);
    let one = variant("two").len() as u64;
    let limit =
        |bytes: u64| fleet.bench.write("own/state/vmetric.yml", format!("name: 127.0.0.1\nlimits:\n  bytes_per_day: {bytes}\n").as_bytes());
    let mut own = Own::enrolled(&fleet);
    limit(one / 2);
    own.start(false);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    own.order("2.0.0");
    // More than a day's bytes at once can never be.
    own.wait("the limit", |s| text(s, "own.code") == "file_over_limit");
    assert!(!own.path("state/slots/a/vmetric-director").exists());
    limit(one + one / 2);
    own.ended("updated", "2.0.0");
    fleet.good("assign --all --version 3.0.0 --end-probation");
    let status = own.wait("the day's limit", |s| text(s, "own.code") == "bytes_per_day");
    assert_eq!(text(&status, "own.running"), "a");
    own.wait("Fleet's knowledge of it", |_| fleet.good("directors --json").contains("bytes_per_day"));
    // And until when, in Fleet's health of it.
    let health = || fleet.good("health --json");
    own.wait("the deadline", |_| health().contains("\"deadline\":1") || health().contains("\"deadline\":2"));
    limit(3 * one);
    own.ended("updated", "3.0.0");
}

/// A lower bound of the time, which a busy machine only helps.
#[test]
fn its_own_update_keeps_to_the_bytes_of_a_second() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "two")]);
    let length = variant("two").len() as u64;
    let rate = length / 6;
    let mut own = Own::enrolled(&fleet);
    fleet.bench.write("own/state/vmetric.yml", format!("name: 127.0.0.1\nlimits:\n  bytes_per_second: {rate}\n").as_bytes());
    own.start(false);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    let began = clock::monotonic();
    own.order("2.0.0");
    own.ended("updated", "2.0.0");
    // A burst of a second is free.
    let (took, least) = (clock::monotonic() - began, Duration::from_secs_f64((length - rate) as f64 / rate as f64));
    assert!(took >= least, "{length} bytes at {rate} a second in {took:?}, at least {least:?}");
}

/// Rot at a site whose link is down: it serves on, says why nothing comes, and is repaired when the link is back.
#[test]
fn damaged_resources_wait_for_fleet_when_it_is_away() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"), &[("lookups/a.csv", "good")]);
    let port = fleet.url.rsplit(':').next().unwrap().parse().unwrap();
    let wire = Relay::new(Arc::new(AtomicU16::new(port))).unwrap();
    let mut own = Own::new(&fleet);
    let (address, pin) = (format!("https://127.0.0.1:{}", wire.port), pin_text(&fleet.pin));
    let out = own.run(&["enroll", "--fleet", &address, "--key", &fleet.token(""), "--pin", &pin]);
    assert!(out.status.success(), "{}", said(&out));
    own.start(false);
    own.wait("contact", |s| text(s, "own.last_contact") != "null");
    own.order("2.0.0");
    own.ended("updated", "2.0.0");
    own.end();
    fs::write(own.path("state/slots/a/package/lookups/a.csv"), "evil").unwrap();
    wire.cut();
    own.start(false);
    let told = |code: &str| own.activity().iter().any(|e| e.code == code);
    own.wait("the reason", |_| told("package_damaged") && told("package_not_repaired"));
    let status = own.status().unwrap();
    assert_eq!((text(&status, "own.running"), text(&status, "own.running_as")), ("a".into(), "confirmed".into()));
    let why = last_event(&own, "package_not_repaired");
    assert!(why.contains(&format!("127.0.0.1:{}", wire.port)) && why.contains("tries again"), "{why}");
    assert_eq!(fs::read(own.path("state/slots/a/package/lookups/a.csv")).unwrap(), b"evil");
    wire.heal();
    own.wait("the repair", |_| told("package_repaired"));
    assert_eq!(resource(&own, "a", "lookups/a.csv").as_deref(), Some("good"));
}
