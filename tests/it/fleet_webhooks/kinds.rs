//! Every kind of notice, from what a real Fleet sees to a real receiver: signed, with a text for Slack.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::collections::BTreeMap;
use std::process::Command;

use vmetric::core::notice::{EXPIRES_SOON_S, Kind, SILENT_S};
use vmetric::fleet::notices::Notice;
use vmetric::fleet::webhooks::WebhooksView;

use super::{Receiving, receiver};
use crate::director_bench::{FakeAgent, Site};

/// Builds what moves a process's clock; `None` with the reason where there is no C compiler.
fn shifting(site: &Site) -> Option<std::path::PathBuf> {
    let library = site.bench.path("shift.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fleet_webhooks/shift.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl"]).output();
    match built {
        Ok(out) if out.status.success() => Some(library),
        Ok(out) => {
            crate::left_out(&format!("no clock to be moved: {}", String::from_utf8_lossy(&out.stderr)));
            None
        }
        Err(e) => {
            crate::left_out(&format!("cc: {e}"));
            None
        }
    }
}

/// Takes notices until one of this kind comes; all of them were signed.
fn until(receiver: &Receiving, secret: &str, got: &mut BTreeMap<String, Notice>, kind: Kind) -> Notice {
    while !got.contains_key(kind.word()) {
        let notice = receiver.next(secret);
        assert!(!notice.text.is_empty() && !notice.text.contains(['<', '>']), "{}", notice.text);
        assert_eq!(notice.text, notice.detail.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"));
        assert!(notice.fleet.starts_with("https://") && notice.time > 0 && notice.count > 0, "{notice:?}");
        got.entry(notice.kind.clone()).or_insert(notice);
    }
    got[kind.word()].clone()
}

/// Orders a version to one, which ends like this.
fn ordered(site: &Site, director: &mut FakeAgent, version: &str, outcome: &str) {
    site.good(&format!("assign --director {} --version {version} --max-failures 0", director.report.agent_id));
    let order = director.poll().order.unwrap();
    director.accept(&order);
    if outcome == "rolled_back" {
        director.on_trial(&order);
    }
    director.ends(&order, outcome, &format!("r{}", order.generation));
    director.report();
}

#[test]
fn every_kind_of_notice_arrives_signed_and_readable() {
    let receiver = receiver();
    let mut site = Site::fleet();
    let Some(library) = shifting(&site) else { return };
    let clock = site.bench.path("shift.txt");
    let ca = site.bench.path("receiver.pem");
    std::fs::write(&clock, "0").unwrap();
    std::fs::write(&ca, &receiver.ca).unwrap();
    for (name, path) in [("SSL_CERT_FILE", &ca), ("LD_PRELOAD", &library), ("SHIFT_FILE", &clock)] {
        site.environment.push((name.into(), path.display().to_string()));
    }
    site.stop();
    site.start();
    let mut directors: Vec<FakeAgent> = (0..2).map(|n| site.enroll(&format!("site-<{n}>&"))).collect();
    for director in &directors {
        director.report();
    }
    let url = format!("https://localhost:{}/hook?x=1", receiver.port);
    let made: WebhooksView = site.json(&format!("webhook create all --url {url} --local --json"));
    let (secret, mut got) = (made.secret.unwrap(), BTreeMap::new());
    let mut next = |kind: Kind| until(&receiver, &secret, &mut got, kind);

    ordered(&site, &mut directors[0], "2.0.0", "refused");
    let failed = next(Kind::UpdateFailed);
    assert_eq!(
        (failed.director.as_str(), failed.version.as_str(), failed.code.as_str()),
        (directors[0].report.agent_id.as_str(), "2.0.0", "refused")
    );

    ordered(&site, &mut directors[1], "2.0.0", "rolled_back");
    let back = next(Kind::RolledBack);
    assert_eq!((back.director.as_str(), back.code.as_str()), (directors[1].report.agent_id.as_str(), "rolled_back"));
    let halted = next(Kind::RolloutHalted);
    assert!(halted.text.starts_with("roll-out halted: ") && halted.version == "2.0.0", "{halted:?}");

    site.add("3.0.0");
    site.publish();
    site.good("mirror");
    assert!(next(Kind::UpdateAvailable).text.contains("vmetric-director 3.0.0 is available"));

    // Later, and nobody has spoken since.
    std::fs::write(&clock, (SILENT_S + 60).to_string()).unwrap();
    let silent = next(Kind::SiteSilent);
    assert!(silent.text.contains("&lt;") && silent.text.contains("is silent since"), "{}", silent.text);

    // A week later: whoever signs has to.
    std::fs::write(&clock, (7 * 86_400 - 3_600).to_string()).unwrap();
    let expires = next(Kind::MetadataExpires);
    assert!(
        EXPIRES_SOON_S > 0 && expires.text.contains("timestamp expires") && expires.text.contains("sign and publish"),
        "{}",
        expires.text
    );
    for kind in Kind::ALL {
        assert!(got.contains_key(kind.word()), "{}", kind.word());
    }
}
