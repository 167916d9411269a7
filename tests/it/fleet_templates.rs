//! Enrollment templates: made at Fleet, taken by the Director, used by devices that get their policy; and the command for a
//! new Director. Both commands are run as people paste them.

#![allow(clippy::disallowed_methods, reason = "tests read and run files")]

use std::fs;
use std::process::Command;

use vmetric::core::hex;
use vmetric::director::commands::InstallView;
use vmetric::director::policing::templates::TemplateChange;
use vmetric::fleet::templates::{TemplateView, TemplatesView};
use vmetric::wire::agent_api::EnrollWire;

use crate::access::{add, log_in};
use crate::director_bench::{Site, agent_file};
use crate::director_orders::World;
use crate::director_policy::{policy, settings};
use crate::fleet_told::{join, until};
use crate::gui::Stream;
use crate::install::{Device, said};

const AGENT: &str = env!("CARGO_BIN_EXE_vmetric-agent");
const DIRECTOR: &str = env!("CARGO_BIN_EXE_vmetric-director");

fn key(token: &str) -> String {
    hex::encode(&hex::sha256(token.as_bytes()))
}

fn enroll(world: &mut World, token: &str, id: &str) -> Result<String, String> {
    let wire =
        EnrollWire { token: token.into(), os: "linux".into(), architecture: "amd64".into(), version: "1.0.0".into(), ..Default::default() };
    world.registry.enroll(&wire, id, world.now).map_err(|r| r.code.to_string())
}

#[test]
fn devices_of_a_template_have_its_policy_and_its_limits() {
    let (mut fleet, mut site) = (World::new(0), World::new(0));
    fleet.enroll("site-1", "linux", "1.0.0");
    let now = fleet.now;
    let wish = TemplateChange {
        name: Some("<b>Kiosks</b>".into()),
        uses: Some(2),
        settings: Some(settings("mode=auto;method=schedule;cron=0 2 * * 0")),
        ..Default::default()
    };
    let made = fleet.registry.create_template("t-1", "site-1", &key("one"), &wish, now).unwrap();
    assert_eq!(made.state(None, now), "waiting");
    let hand = |fleet: &World, site: &mut World| {
        let (_, handed) = fleet.registry.handed_to("site-1", 0);
        assert!(!miniserde::json::to_string(&handed).contains("\"one\""), "the token's text stays where it was made");
        site.registry.take_handed(&handed, site.now);
        site.registry.template_states()
    };
    let told = hand(&fleet, &mut site);
    assert_eq!(made.state(told.first(), now), "enabled");
    assert_eq!(enroll(&mut site, "one", "a1"), Ok("a1".into()));
    let values = policy(&site, "a1").values;
    assert!(values.iter().any(|v| v.field == "cron" && v.tier == "node"), "{values:?}");
    assert!(site.registry.recent.iter().any(|e| e.code == "policy_changed" && e.by.as_deref() == Some("template <b>Kiosks</b>")));
    // Switched off and on again; what was used stays used.
    let enabled = |on| TemplateChange { enabled: Some(on), ..Default::default() };
    fleet.registry.change_template("t-1", &enabled(false), None, now).unwrap();
    hand(&fleet, &mut site);
    assert_eq!(enroll(&mut site, "one", "a2"), Err("token_revoked".into()));
    fleet.registry.change_template("<B>kiosks</B>", &enabled(true), None, now).unwrap();
    site.restart();
    hand(&fleet, &mut site);
    // Another command: the one before is worth nothing, and the count goes on.
    let renewed = fleet.registry.change_template("t-1", &TemplateChange::default(), Some(&key("two")), now).unwrap();
    hand(&fleet, &mut site);
    assert_eq!(enroll(&mut site, "one", "a2"), Err("token_revoked".into()));
    assert_eq!(enroll(&mut site, "two", "a2"), Ok("a2".into()));
    assert_eq!(enroll(&mut site, "two", "a3"), Err("token_used_up".into()));
    let told = site.registry.template_states();
    assert_eq!((told[0].used, renewed.state(told.first(), now)), (2, "limit_reached"));
    assert_eq!(renewed.state(told.first(), now + 8 * 86_400), "expired");
    // Gone at Fleet, gone there; who enrolled stays.
    let more = TemplateChange { uses: Some(0), ..Default::default() };
    fleet.registry.change_template("t-1", &more, None, now).unwrap();
    hand(&fleet, &mut site);
    assert_eq!(enroll(&mut site, "two", "a3"), Ok("a3".into()));
    fleet.registry.remove_template("t-1", now).unwrap();
    hand(&fleet, &mut site);
    assert_eq!(enroll(&mut site, "two", "a4"), Err("token_revoked".into()));
    assert!(site.registry.known("a3").is_ok());
    fleet.restart();
    assert!(fleet.registry.templates().is_empty() && fleet.registry.handed_to("site-1", 0).1.templates.is_some());
}

#[test]
fn terms_are_checked_at_fleet_and_again_at_the_director() {
    let (mut fleet, mut site) = (World::new(0), World::new(0));
    fleet.enroll("site-1", "linux", "1.0.0");
    let now = fleet.now;
    let create = |fleet: &mut World, wish: &TemplateChange| {
        fleet.registry.create_template("t-2", "site-1", &key("x"), wish, now).map_err(|r| r.code.to_string())
    };
    let named = TemplateChange { name: Some("n".into()), ..Default::default() };
    assert_eq!(create(&mut fleet, &TemplateChange::default()).unwrap_err(), "name_invalid");
    let endless = TemplateChange { ttl_s: Some(u64::MAX), ..named.clone() };
    assert_eq!(create(&mut fleet, &endless).unwrap_err(), "token_needs_end");
    let bad = TemplateChange { settings: Some(settings("mode=auto;cron=* * * * *")), ..named.clone() };
    assert_eq!(create(&mut fleet, &bad).unwrap_err(), "settings_invalid");
    create(&mut fleet, &TemplateChange { approval: Some(true), ..endless }).unwrap();
    let stale = TemplateChange { expected: Some(0), ..named };
    assert_eq!(fleet.registry.change_template("t-2", &stale, None, now).unwrap_err().code, "revision_conflict");
    // A stolen Fleet: no hash, a token that a person made here, no end.
    site.registry.create_token("mine", 1, 60, now).unwrap();
    let mut templates = fleet.registry.templates_of("site-1");
    let good = templates.remove(0);
    for (id, hash, approval, ends) in [
        ("a", "zz".to_string(), true, None),
        ("b", key("mine"), true, None),
        ("c", key("new"), false, None),
        ("../d", key("new"), true, None),
    ] {
        let wire = vmetric::wire::fleet_api::TemplateWire { id: id.into(), token_sha256: hash, approval, expires_at: ends, ..good.clone() };
        site.registry.take_templates(&[wire], now);
    }
    assert_eq!(site.registry.recent.iter().filter(|e| e.code == "template_refused").count(), 4);
    assert!(enroll(&mut site, "mine", "a1").is_ok() && enroll(&mut site, "new", "a2").is_err());
    let long = vmetric::wire::fleet_api::TemplateWire { approval: false, expires_at: Some(now + 400 * 86_400), ..good };
    site.registry.take_templates(&[long], now);
    site.now += 31 * 86_400;
    assert_eq!(enroll(&mut site, "x", "a3"), Err("token_expired".into()), "no longer than a token that is made here");
}

#[test]
fn a_template_is_one_command_for_many_devices() {
    if Command::new("curl").arg("--version").output().is_err() {
        return crate::left_out("no curl here");
    }
    let agent = fs::read(AGENT).unwrap();
    let (fleet, director) = (Site::fleet(), Site::with(&[("2.0.0", agent.clone())]));
    fleet.add_of("vmetric-agent", "2.0.0", &agent);
    fleet.publish();
    fleet.good("mirror");
    let id = join(&fleet, &director);
    let create = format!("template create kiosks --director {id} --uses 2 --mode auto --method user_action --json");
    until("the Director's address", || fleet.run(&create).code == 0 || fleet.good("template list").contains("kiosks"));
    let list = || fleet.json::<TemplatesView>("template list --json").templates.remove(0);
    let made: TemplatesView = fleet.json("template renew kiosks --json");
    let command = made.commands.unwrap().into_iter().find(|c| c.os == "linux").unwrap().command;
    until("the template at the Director", || list().status == "enabled");
    // Whoever made it sees who comes, live.
    add(&fleet, "anna", "owner");
    let session = log_in(&fleet, "anna");
    let mut stream = Stream::open(&fleet, &session, &format!("/devices/templates/{}", list().id));
    stream.until("No device has enrolled yet");
    for count in ["1 of 2 enrolled", "2 of 2 enrolled"] {
        let device = Device::new();
        let out = device.paste(&command);
        assert!(out.status.success() && said(&out).contains("installed"), "{}", said(&out));
        stream.until(count);
    }
    let third = Device::new();
    assert!(said(&third.paste(&command)).contains("token_used_up"));
    until("the count", || list().enrolled == 2);
    let view: TemplateView = list();
    assert_eq!((view.status.as_str(), view.uses, view.custom), ("limit_reached", Some(2), true));
    let agents = director.good("policy show --json");
    assert_eq!(agents.matches("\"scope\":\"node/").count(), 2, "{agents}");
    assert!(fleet.good("template list").contains("2/2"));
    fleet.good("template remove kiosks");
}

#[test]
fn the_printed_command_installs_a_director() {
    if Command::new("curl").arg("--version").output().is_err() {
        return crate::left_out("no curl here");
    }
    let program = fs::read(DIRECTOR).unwrap();
    let fleet = Site::fleet_with(&[("2.0.0", program.clone()), ("1.0.0", agent_file("1.0.0"))]);
    let view: InstallView = fleet.json("install-command --json");
    assert_eq!(view.sha256, hex::encode(&hex::sha256(&program)));
    let device = Device::new();
    let out = device.paste(&view.command);
    assert!(out.status.success() && said(&out).contains("vmetric-director -service install"), "{}", said(&out));
    assert_eq!(fs::read(device.path("image/vmetric-director")).unwrap(), program);
    assert!(fleet.good("directors").lines().count() >= 2, "it enrolled");
    let file = device.path("state/vmetric.yml");
    let valid = Command::new(DIRECTOR).arg("-validate").arg(&file).output().unwrap();
    assert!(valid.status.success(), "{}\n{}", said(&valid), fs::read_to_string(&file).unwrap());
    assert!(fs::read_to_string(&file).unwrap().contains(&format!("from: {}/release", fleet.url)));
    assert!(said(&Device::new().paste(&view.command)).contains("token_used_up"));
}
