//! A device without an identity at a real Director: it enrolls by itself, waits for approval, forgets its token.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use vmetric::director::enroll::TokensView;
use vmetric::io::tls::pin_text;

use crate::agent::{Device, said, text};
use crate::director_bench::Site;

fn document(site: &Site, token: &str) -> String {
    format!("{{\"format\":1,\"director\":\"{}\",\"pins\":[\"{}\"],\"token\":\"{token}\"}}\n", site.url, pin_text(&site.pin))
}

#[expect(clippy::disallowed_methods, reason = "a device maker writes as people do")]
fn settings(device: &Device, name: &str, text: &str) {
    let path = device.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Files below a folder that hold this text.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|w| w == text.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn a_device_that_is_there_first_enrolls_when_its_director_comes() {
    let mut site = Site::with(&[]);
    let token = site.token("");
    site.kill();
    let document = document(&site, &token);
    {
        let mut device = Device::bare(&site, "device");
        settings(&device, "state/config/enroll.json", &document);
        device.start();
        let status = device.wait("back-off", |s| text(s, "contact_failures").parse::<u32>().is_ok_and(|n| n >= 2));
        assert_eq!((text(&status, "contact_code"), text(&status, "enrolled")), ("unreachable".into(), "false".into()));
        assert_ne!(text(&status, "next_contact"), "null");
        let sources = text(&status, "sources");
        assert!(sources.contains("taken: address, pins, token") && !sources.contains(&token), "{sources}");
        let shown = said(&device.run(&["status"]));
        assert!(shown.contains("next try at") && shown.contains("vmetric-enroll.json on a medium") && !shown.contains(&token), "{shown}");
        assert_eq!(holding(&site.bench.path("device"), &token).len(), 1, "the search can find it");
    }
    site.start();
    let mut device = Device { site: &site, name: "device".into(), process: None };
    device.start();
    let status = device.wait("enrollment", |s| text(s, "enrolled") == "true" && text(s, "last_contact") != "null");
    assert_eq!((text(&status, "sources"), text(&status, "token_left")), ("[]".into(), "null".into()));
    assert_eq!(holding(&site.bench.path("device"), &token), Vec::<String>::new());
    let environ = fs::read_to_string(format!("/proc/{}/environ", text(&status, "pid"))).unwrap();
    assert!(!environ.contains(&token));
}

#[test]
fn the_environments_token_is_forgotten_too() {
    let site = Site::with(&[]);
    let token = site.token("");
    let mut device = Device::bare(&site, "device");
    let mut command = device.command(&["run"]);
    command.env("VMETRIC_RESPAWN", "1").env("VMETRIC_CONFIG", document(&site, &token));
    device.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let status = device.wait("enrollment", |s| text(s, "enrolled") == "true" && text(s, "last_contact") != "null");
    let environ = fs::read_to_string(format!("/proc/{}/environ", text(&status, "pid"))).unwrap();
    assert!(!environ.contains(&token) && environ.contains("VMETRIC_RESPAWN=1"), "{environ}");
    assert_eq!(holding(&site.bench.path("device"), &token), Vec::<String>::new());
}

#[test]
fn a_device_waits_for_approval_without_a_credential() {
    let site = Site::with(&[]);
    let token = site.token("--approval --ttl never --uses 2");
    let mut device = Device::bare(&site, "device");
    // A file that is not the device's own: noted before it is shown.
    settings(&device, "usb/e.json", &document(&site, &token).replace("\"format\":1", "\"format\":1,\"serial\":\"PF-1\""));
    let mut command = device.command(&["run"]);
    command.env("VMETRIC_RESPAWN", "1").env("VMETRIC_CONFIG", device.path("usb/e.json"));
    device.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let status = device.wait("answer", |s| text(s, "contact_code") == "approval_pending");
    let fingerprint = text(&status, "fingerprint");
    assert!(!device.path("state/config/agent.json").exists());
    let agents = site.good("agents");
    assert!(agents.contains(&format!("pending-{fingerprint}")) && agents.contains("PF-1") && agents.contains("1 wait for you"), "{agents}");
    let explained = site.good(&format!("explain pending-{fingerprint}"));
    assert!(explained.contains(&format!("vmetric-director approve pending-{fingerprint}")), "{explained}");
    assert!(site.bad("approve nobody").contains("approval_unknown"));
    assert!(site.good("deny PF-1 --reason maybe").contains("denied"));
    assert!(site.good("agents").contains("maybe"));
    assert!(site.good("approve --serial PF-1").contains("approved"));
    // It asks again by itself, soon enough; a start asks at once.
    drop(device);
    let mut device = Device { site: &site, name: "device".into(), process: None };
    let mut command = device.command(&["run"]);
    command.env("VMETRIC_RESPAWN", "1").env("VMETRIC_CONFIG", device.path("usb/e.json"));
    device.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    device.wait("enrollment", |s| text(s, "enrolled") == "true" && text(s, "last_contact") != "null");
    assert_eq!(holding(&site.bench.path("device"), &token), Vec::<String>::new());
    let tokens: TokensView = site.json("token list --json");
    assert_eq!((tokens.tokens[0].used, tokens.tokens[0].approval), (1, Some(true)));
    let activity = site.good("activity");
    for code in ["approval_wanted", "approval_denied", "approval_given", "enrolled"] {
        assert!(activity.contains(code), "{code}: {activity}");
    }
}

#[test]
fn a_token_that_is_used_up_is_a_reason_and_no_end() {
    let site = Site::with(&[]);
    let token = site.token("--uses 1");
    site.try_enroll(&token, "first").unwrap();
    let mut device = Device::bare(&site, "device");
    settings(&device, "state/config/enroll.json", &document(&site, &token));
    device.start();
    let status = device.wait("refusal", |s| text(s, "contact_code") == "token_used_up");
    assert!(text(&status, "contact_detail").contains("token create") && text(&status, "next_contact") != "null");
    // A person brings a better one: no quarter of an hour is waited for.
    settings(&device, "state/config/enroll.json", &document(&site, &site.token("")));
    device.wait("enrollment", |s| text(s, "enrolled") == "true");
}

#[test]
fn an_identity_that_cannot_be_used_is_no_reason_to_start_again_and_again() {
    let site = Site::with(&[]);
    let mut device = Device::bare(&site, "device");
    settings(&device, "state/config/agent.json", "{\"format\":1,");
    device.start();
    let status = device.wait("the reason", |s| !["null", ""].contains(&text(s, "contact_code").as_str()));
    assert!(text(&status, "contact_detail").contains("agent.json"), "{}", text(&status, "contact_detail"));
    let starts = || vmetric::io::state::State::look(&device.path("state")).load_marks().marks.factory_evidence.starts;
    // Each start is counted, and a loop starts several times before anybody can ask once more.
    assert_eq!((starts(), said(&device.run(&["status"])).contains("agent.json"), starts()), (1, true, 1));
}

#[test]
fn a_damaged_identity_is_told_and_not_replaced() {
    let site = Site::with(&[]);
    let token = site.token("");
    let mut device = Device::bare(&site, "device");
    settings(&device, "state/config/enroll.json", &document(&site, &token));
    settings(&device, "state/config/agent.json", "{\"format\":1");
    device.start();
    let status = device.wait("reason", |s| text(s, "contact_code") == "bad_config");
    assert!(text(&status, "contact_detail").contains("agent.json") && text(&status, "enrolled") == "false");
    assert_eq!(holding(&site.bench.path("device"), &token).len(), 1, "nothing was asked with it");
    fs::remove_file(device.path("state/config/agent.json")).unwrap();
    device.wait("enrollment", |s| text(s, "enrolled") == "true");
}
