//! Chromium, headless, with the site's CA in its own trust store: the chain, the dates and the names as a browser checks them.

use std::process::{Command, Stdio};

use super::{SLOW, names, said};
use crate::serve::{NOW, Site};

#[test]
#[ignore = "needs chromium and certutil: tests/run browser"]
fn chromium_trusts_the_site_ca() {
    let site = Site::start();
    site.ca.renew_if_due(&names(), vmetric::io::clock::unix().max(NOW)).unwrap();
    let url = format!("https://localhost:{}/who?from=browser", site.address.port());
    let home = site.dir.path().join("home");
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store).unwrap();
    let database = format!("sql:{}", store.display());
    let certutil = |words: &[&str]| {
        let out = Command::new("certutil").args(["-d", &database]).args(words).output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", said(&out));
    };
    certutil(&["-N", "--empty-password"]);
    let load = |profile: &str| {
        let mut browser = Command::new("timeout");
        browser.arg(SLOW.as_secs().to_string()).arg("chromium");
        browser.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-proxy-server",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            "--dump-dom",
        ]);
        browser.arg(format!("--user-data-dir={}", home.join(profile).display())).arg(&url);
        let out = browser.env("HOME", &home).stdin(Stdio::null()).output().unwrap();
        (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    // Without the CA it refuses, and its log says that the authority is unknown (-202); with it, it shows what the server said.
    let (page, log) = load("before");
    assert!(!page.contains("from=browser\"") && log.contains("net_error -202"), "{page}\n{log}");
    let ca = site.dir.path().join("pki/ca-p256.pem");
    certutil(&["-A", "-t", "C,,", "-n", "site", "-i", ca.to_str().unwrap()]);
    let (page, log) = load("after");
    assert!(page.contains("GET Some(\"from=browser\")"), "{page}\n{log}");
}
