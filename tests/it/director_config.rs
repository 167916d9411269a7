//! `vmetric.yml` of a real Director: read at the start, changed while it runs, broken in every way that editors have.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use vmetric::director::config::example;
use vmetric::director::records::Event;
use vmetric::director::views::StatusView;

use crate::director::wait_for;
use crate::director_bench::Site;

fn file(site: &Site) -> PathBuf {
    site.state().join("vmetric.yml")
}

fn write(site: &Site, text: &str) {
    fs::create_dir_all(site.state()).unwrap();
    fs::write(file(site), text).unwrap();
}

fn events(site: &Site, code: &str) -> Vec<String> {
    let out = site.good("activity --json --limit 1000");
    let all = out.lines().map(|line| miniserde::json::from_str::<Event>(line).unwrap());
    all.filter(|e| e.code == code).map(|e| e.detail).collect()
}

fn status(site: &Site) -> StatusView {
    site.json("status --json")
}

fn wait_for_event(site: &Site, code: &str, count: usize) -> String {
    wait_for(code, || events(site, code).len() >= count);
    let all = events(site, code);
    assert_eq!(all.len(), count, "{all:?}");
    all.last().unwrap().clone()
}

/// A Director that has not been started.
fn fresh() -> Site {
    let mut site = Site::new();
    site.kill();
    site
}

#[test]
fn a_file_is_checked_without_a_director() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmetric-director"));
        let output = command.args(args).env("VMETRIC_DIRECTOR_STATE", folder.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, printed, _) = run(&["-example"]);
    assert_eq!((code, printed.as_str()), (Some(0), example::TEXT));
    assert_eq!(run(&["-validate"]).0, Some(1), "there is none");
    let own = folder.path().join("vmetric.yml");
    fs::write(&own, &printed).unwrap();
    let (code, out, err) = run(&["-validate"]);
    assert_eq!((code, out, err.as_str()), (Some(0), format!("{}: valid\n", own.display()), ""));
    let other = folder.path().join("other.yml");
    fs::write(&other, "listen: x\nupdate:\n  mode: automatic\n  cron: \"0 2 * * 0\"\n").unwrap();
    let name = other.display().to_string();
    for words in [&["-validate", &name][..], &["--validate", "--config", &name]] {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains(&format!("{name}:1: listen: found `x`")) && err.contains(&format!("{name}:3: update.mode")), "{err}");
    }
    assert_eq!(run(&["-validate", "a", "b"]).0, Some(2));
}

#[test]
fn a_change_takes_effect_without_a_restart_and_an_invalid_one_changes_nothing() {
    let mut site = fresh();
    write(&site, "name: ignored.example.org\nretention: {activity: 30d}\n");
    site.start();
    let view = status(&site);
    assert_eq!(view.config, Some(file(&site).display().to_string()));
    assert!(view.config_notes.unwrap()[0].starts_with("name: the command line's value counts"), "--name is given");

    write(&site, "time_zone: UTC\nretention: {activity: 10d}\nfleet: {address: 'https://f:1', pin: 'sha256:00'}\n");
    let told = wait_for_event(&site, "config_invalid", 1);
    assert!(told.contains("vmetric.yml:3: fleet.pin: found `sha256:00`") && told.contains("stay in force"), "{told}");
    assert!(status(&site).config_error.unwrap().contains("fleet.pin"));
    assert!(site.good("status").contains("not in force"));

    // As vim does it: another file takes the name.
    let good = format!("time_zone: UTC\nfleet: {{address: 'https://f:1', pin: 'sha256:{}'}}\n", "0".repeat(64));
    fs::rename(file(&site), site.state().join("vmetric.yml~")).unwrap();
    fs::write(site.state().join("4913"), &good).unwrap();
    fs::rename(site.state().join("4913"), file(&site)).unwrap();
    let told = wait_for_event(&site, "config_changed", 1);
    assert!(told.contains("name, fleet, time_zone, retention; takes effect at the next start: name"), "{told}");
    assert!(status(&site).config_notes.unwrap().iter().any(|note| note.contains("no_key_file")), "what the section comes to");
    let view = status(&site);
    assert_eq!((view.config_error, view.config_notes.unwrap().len()), (None, 2));

    // Gone: what is in force stays, and it is told once.
    fs::remove_file(file(&site)).unwrap();
    let told = wait_for_event(&site, "config_invalid", 2);
    assert!(told.contains("no such file"), "{told}");
    // Emptied, as an editor begins to write in place: invalid, not "nothing is set".
    write(&site, "");
    assert!(wait_for_event(&site, "config_invalid", 3).contains("an empty file"));
    write(&site, "# nothing is set\n");
    assert!(wait_for_event(&site, "config_changed", 2).contains("fleet, time_zone"));
    assert_eq!(status(&site).config_notes.unwrap(), ["name: takes effect at the next start"]);
}

#[test]
fn a_restart_with_an_invalid_file_goes_on_with_what_was_valid() {
    let mut site = fresh();
    write(&site, "update: {mode: manual}\n");
    site.start();
    site.kill();
    write(&site, "update: {mode: manul}\n");
    site.start();
    let told = wait_for_event(&site, "config_invalid", 1);
    assert!(told.contains("did you mean `manual`?") && told.contains("started with the settings that were valid last"), "{told}");
    assert!(status(&site).config_error.is_some());
    write(&site, "update: {mode: manual}\n");
    assert!(wait_for_event(&site, "config_changed", 1).contains("valid; nothing is different"));
    assert_eq!(status(&site).config_error, None);
    assert_eq!(events(&site, "config_invalid").len(), 1);
}

#[test]
fn the_mirror_is_changed_while_it_runs() {
    let mut site = fresh();
    site.linked = false;
    site.start();
    assert!(status(&site).mirror.is_empty());
    let before = status(&site).timestamp_version;
    // The first file that appears counts from then on.
    let public = site.bench.path("public");
    site.add("3.0.0");
    site.publish();
    write(&site, &format!("mirror:\n  from: {}\n", public.display()));
    wait_for("the new mirror", || status(&site).timestamp_version > before && status(&site).releases.contains(&"3.0.0".to_string()));
    assert_eq!(status(&site).mirror, public.display().to_string());
    write(&site, "mirror:\n  from: /nowhere\n");
    wait_for("its absence", || status(&site).mirror_error.is_some_and(|e| e.contains("/nowhere")));
    assert!(status(&site).releases.contains(&"3.0.0".to_string()), "what is served stays");
}
