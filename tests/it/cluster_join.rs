//! Two Directors become one site: an invitation, and the other machine takes the site CA over before its first start.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use vmetric::director::cluster::invite::InviteView;
use vmetric::io::clock;
use vmetric::io::tls::pin_text;

use crate::director::wait_for;
use crate::director_bench::Site;

/// One that was never started.
fn fresh() -> Site {
    let mut site = Site::new();
    site.kill();
    fs::remove_dir_all(site.state()).unwrap();
    site
}

fn token_file(site: &Site, text: &str) -> PathBuf {
    let path = site.bench.path("invitation");
    fs::write(&path, format!("{text}\n")).unwrap();
    path
}

fn line(site: &Site, first: &Site, pin: &str, token: &str) -> String {
    format!("cluster join {} --pin {pin} --token {}", first.url, token_file(site, token).display())
}

#[test]
fn a_member_takes_the_site_ca_over_once() {
    let first = Site::new();
    let mut second = fresh();
    let pin = pin_text(&first.pin);
    let invite: InviteView = first.json("cluster invite --json");
    assert_eq!((invite.url.as_str(), invite.pin.as_str()), (first.url.as_str(), pin.as_str()));
    let (head, secret) = invite.token.rsplit_once('_').unwrap();

    // What is refused leaves nothing behind.
    let none = |site: &Site| !site.state().join("pki").exists() && !site.state().join("pki.join").exists();
    let other = format!("sha256:{}", "00".repeat(32));
    assert!(!second.bad(&line(&second, &first, &other, &invite.token)).is_empty() && none(&second), "another pin");
    let wrong = format!("{head}_{}", "0".repeat(64));
    assert!(second.bad(&line(&second, &first, &pin, &wrong)).contains("invite_unknown") && none(&second));
    assert!(second.bad(&line(&second, &first, &pin, "nothing")).contains("invite_unknown") && none(&second));
    assert!(second.bad(&format!("cluster join {} --pin {pin} --token /nowhere", first.url)).contains("bad_token_file"));
    let late: InviteView = first.json("cluster invite --ttl 1s --json");
    wait_for("the end of its time", || clock::unix() > late.expires);
    assert!(second.bad(&line(&second, &first, &pin, &late.token)).contains("invite_expired") && none(&second));
    assert!(first.bad("cluster invite --ttl 30d").contains("--ttl"));
    assert!(first.bad(&line(&first, &first, &pin, &invite.token)).contains("ca_exists"), "one that runs has its own");

    // Too many wrong secrets close an invitation, whoever has the right one.
    let guessed: InviteView = first.json("cluster invite --json");
    let guess = format!("{}_{}", guessed.token.rsplit_once('_').unwrap().0, "1".repeat(64));
    let closed = (0..8).any(|_| second.bad(&line(&second, &first, &pin, &guess)).contains("invite_closed"));
    assert!(closed && second.bad(&line(&second, &first, &pin, &guessed.token)).contains("invite_closed") && none(&second));

    // A fault of this machine shows before the invitation is used up.
    let (pki, away) = (second.state().join("pki"), second.bench.path("elsewhere"));
    fs::create_dir_all(&away).unwrap();
    fs::create_dir_all(second.state()).unwrap();
    std::os::unix::fs::symlink(&away, &pki).unwrap();
    assert!(second.bad(&line(&second, &first, &pin, &invite.token)).contains("pki_unwritable"), "a link");
    fs::remove_file(&pki).unwrap();
    fs::create_dir(&pki).unwrap();
    fs::write(pki.join("notes"), "x").unwrap();
    assert!(second.bad(&line(&second, &first, &pin, &invite.token)).contains("pki_unwritable"), "not empty");
    assert!(!second.state().join("pki.join").exists());
    fs::remove_file(pki.join("notes")).unwrap();

    let said = second.good(&line(&second, &first, &pin, &invite.token));
    assert!(said.contains("joined") && said.contains(&pin), "{said}");
    for name in ["ca.key", "ca-p256.key"] {
        let file = second.state().join("pki").join(name);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        assert_eq!(fs::read(&file).unwrap(), fs::read(first.state().join("pki").join(name)).unwrap());
    }
    assert!(second.bad(&line(&second, &first, &pin, &invite.token)).contains("ca_exists"), "it has one now");
    let third = fresh();
    assert!(third.bad(&line(&third, &first, &pin, &invite.token)).contains("invite_used") && none(&third));

    second.start();
    assert_eq!(second.pin, first.pin, "they are one site");
    let activity = first.good("activity --limit 1000 --json");
    for code in ["cluster_invited", "cluster_joined", "join_refused"] {
        assert!(activity.contains(&format!("\"{code}\"")), "{code}: {activity}");
    }
    assert!(!activity.contains(secret), "the secret is nowhere");
    for entry in fs::read_dir(first.state().join("storage")).unwrap() {
        let text = fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(secret));
    }
    assert!(!String::from_utf8_lossy(&fs::read(first.state().join("director.redb")).unwrap()).contains(secret));
}
