//! A company's own CA: the operator's certificate on the Director, and clients that know that CA instead of a pin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vmetric::director::certificates::look_company;
use vmetric::director::pki::company::Files;
use vmetric::director::pki::{Names, SiteCa};
use vmetric::director::site::{Site as Running, load};
use vmetric::director::store::Store;
use vmetric::io::clock;
use vmetric::io::fs::write_durable;
use vmetric::io::http::{Http, HttpConfig};
use vmetric::io::process::sleep;
use vmetric::io::tls::company;

use crate::serve::{Site, post};

/// Loopback.
const SOON: Duration = Duration::from_secs(20);
const DAY: u64 = 86_400;

/// A company's CA and the certificates that it hands out.
pub struct Company {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Company {
    pub fn new() -> Company {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "company CA");
        let pem = params.self_signed(&key).unwrap().pem();
        Company { folder: tempfile::tempdir().unwrap(), issuer: rcgen::Issuer::new(params, key), pem }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        write_durable(&self.path(name), text.as_bytes(), 0o600).unwrap();
        self.path(name)
    }

    /// Chain and key for these names, valid between two times.
    pub fn certificate(&self, names: &[&str], from: u64, until: u64) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        (params.not_before, params.not_after) = (epoch + Duration::from_secs(from), epoch + Duration::from_secs(until));
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub fn files(&self, (chain, key): &(String, String)) -> Files {
        Files { certificate: self.put("chain.pem", chain), key: self.put("key.pem", key) }
    }
}

fn curl(ca: &Path, words: &[&str]) -> Option<(Option<i32>, String)> {
    let out = Command::new("curl").args(["-sS", "--noproxy", "*", "--max-time", "20", "--cacert"]).arg(ca).args(words).output().ok()?;
    Some((out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned()))
}

#[test]
fn browsers_see_the_operators_certificate_and_pinned_agents_the_sites() {
    let (site, company, now) = (Site::start(), Company::new(), clock::unix());
    let ca = company.put("ca.pem", &company.pem);
    site.ca.set_company(company.files(&company.certificate(&["localhost"], now - DAY, now + 90 * DAY)).load().unwrap());
    let url = format!("https://localhost:{}/echo", site.address.port());
    let mut agent = site.raw();
    agent.say(post("/echo", "pinned"));
    assert_eq!(agent.status().1, "pinned");
    let Some(answer) = curl(&ca, &["--data", "x", &url]) else { return crate::left_out("no curl here") };
    assert_eq!(answer, (Some(0), "x".into()));
    assert_eq!(curl(&ca, &["--data", "x", "--tls-max", "1.2", &url]).unwrap().0, Some(0));
    let own = site.dir.path().join("pki/ca-p256.pem");
    assert_eq!(curl(&own, &["--data", "x", &url]).unwrap().0, Some(60), "the site's CA does not vouch for it");
    let bundle = company.put("bundle.pem", &site.ca.bundle());
    assert_eq!(curl(&bundle, &["--data", "x", &url]).unwrap().0, Some(0), "what /dl/cert.pem hands out does");

    // An RSA key, as many company CAs have it, and another's key.
    let (chain, key) = (company.path("rsa.pem"), company.path("rsa.key"));
    let words =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=x", "-addext", "subjectAltName=DNS:localhost"];
    let made = Command::new("openssl").args(words).arg("-keyout").arg(&key).arg("-out").arg(&chain).output();
    if made.is_err() {
        return crate::left_out("no openssl here");
    }
    let rsa = Files { certificate: chain.clone(), key };
    site.ca.set_company(rsa.load().unwrap());
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        assert_eq!(curl(&chain, &[&["--data", "x", &url], version].concat()).unwrap(), (Some(0), "x".into()), "{version:?}");
    }
    let reason = Files { key: company.path("key.pem"), ..rsa.clone() }.load().unwrap_err();
    assert!(reason.code == "tls_files" && reason.detail.contains("--tls-key") && reason.detail.contains("belong"), "{reason}");
    for (file, text, word) in [("chain.pem", "", "--tls-cert"), ("chain.pem", "junk", "--tls-cert"), ("key.pem", "junk", "--tls-key")] {
        let files = company.files(&company.certificate(&["localhost"], now - DAY, now + DAY));
        company.put(file, text);
        assert!(files.load().unwrap_err().detail.contains(word), "{file} {text}");
    }
    assert!(Files { key: company.path("none"), ..rsa }.load().unwrap_err().detail.contains("no such file"));
}

#[test]
fn files_that_change_are_taken_once_they_fit_together() {
    let (company, folder, now) = (Company::new(), tempfile::tempdir().unwrap(), clock::unix());
    let store = Store::open(&folder.path().join("director.redb")).unwrap();
    let registry = load(&store, now).unwrap();
    let ca = SiteCa::open_or_create(&folder.path().join("pki"), &Names::default(), now).unwrap();
    let site = Running::new(registry, store, ca, Default::default());
    let codes = || site.registry.borrow().recent.iter().map(|e| e.code.clone()).collect::<Vec<_>>();
    let mut told = None;
    let mut look = |files: &Files, at| look_company(&site, files, at, &mut told);
    let [first, second] = [30, 60].map(|days| company.certificate(&["localhost"], now - DAY, now + days * DAY));
    let files = company.files(&first);
    look(&files, now);
    look(&files, now + 60);
    assert_eq!((codes(), site.ca.company().unwrap().until), (vec!["certificate_replaced".to_string()], now + 30 * DAY));
    // The chain is new, the key not yet.
    company.put("chain.pem", &second.0);
    look(&files, now + 120);
    assert_eq!((codes().last().unwrap().as_str(), site.ca.company().unwrap().until), ("certificate_failed", now + 30 * DAY));
    assert!(site.company_error.borrow().is_some());
    company.put("key.pem", &second.1);
    look(&files, now + 180);
    assert_eq!((codes().last().unwrap().as_str(), site.ca.company().unwrap().until), ("certificate_replaced", now + 60 * DAY));
    assert!(site.company_error.borrow().is_none());
    // Nobody renews it: told two weeks before the end, daily, and after it.
    look(&files, now + 45 * DAY);
    assert_eq!(codes().len(), 3);
    look(&files, now + 47 * DAY);
    look(&files, now + 47 * DAY + 60);
    assert_eq!(codes().len(), 4);
    look(&files, now + 61 * DAY);
    let last = site.registry.borrow().recent.back().unwrap().detail.clone();
    assert!(codes().len() == 5 && last.contains("expired") && last.contains("--tls-cert"), "{last}");
    fs::remove_file(company.path("key.pem")).unwrap();
    look(&files, now + 61 * DAY + 60);
    assert!(site.company_error.borrow().as_ref().unwrap().contains("no such file"));
}

/// The real Director of a site, started anew with the operator's certificate.
struct Director(std::process::Child);

impl Director {
    fn start(site: &crate::director_bench::Site, files: &Files) -> Director {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmetric-director"));
        command.args(["run", "--name", "localhost", "--listen", site.url.strip_prefix("https://").unwrap(), "--mirror"]);
        command.arg(site.bench.path("public")).arg("--root").arg(site.bench.path("release/root.json")).arg("--state").arg(site.state());
        command.arg("--tls-cert").arg(&files.certificate).arg("--tls-key").arg(&files.key);
        let director = Director(command.stderr(Stdio::null()).spawn().unwrap());
        let end = clock::monotonic() + SOON;
        while site.run("status").code != 0 {
            assert!(clock::monotonic() < end, "the Director does not start");
            sleep(Duration::from_millis(20));
        }
        director
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_enrolls_and_runs_under_the_company_ca() {
    let (company, now) = (Company::new(), clock::unix());
    let mut site = crate::director_bench::Site::new();
    site.kill();
    let site = site;
    let files = company.files(&company.certificate(&["localhost"], now - DAY, now + 90 * DAY));
    let director = Director::start(&site, &files);
    let status = site.good("status");
    assert!(status.contains("--tls-cert") && status.contains("pin"), "{status}");
    let ca = company.put("ca.pem", &company.pem);
    let port = site.url.rsplit(':').next().unwrap();
    let (state, image) = (company.path("state"), company.path("image"));
    fs::create_dir_all(&image).unwrap();
    crate::place_program(env!("CARGO_BIN_EXE_vmetric-agent"), image.join("vmetric-agent"));
    fs::copy(site.bench.path("release/root.json"), image.join("root.json")).unwrap();
    let agent = |words: &[&str]| {
        let mut command = Command::new(image.join("vmetric-agent"));
        command.args(words).arg("--state").arg(&state).env("no_proxy", "*").stdin(Stdio::null());
        command
    };
    let enroll = |ca: &Path, host: &str| {
        let url = format!("https://{host}:{port}");
        let mut command = agent(&["enroll", "--director", &url, "--ca", ca.to_str().unwrap()]);
        let out = command.env("VMETRIC_TOKEN", site.token("")).output().unwrap();
        (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    };
    let other = company.put("other.pem", &Company::new().pem);
    for (ca, host, word) in
        [(&other, "localhost", "tls_failed"), (&ca, "127.0.0.1", "tls_failed"), (&company.path("no"), "localhost", "bad_ca")]
    {
        let (code, text) = enroll(ca, host);
        assert!(code == Some(1) && text.contains(word), "{text}");
        assert!(!state.join("config/agent.json").exists(), "{text}");
    }
    let (code, text) = enroll(&ca, "localhost");
    assert!(code == Some(0) && text.contains("enrolled at"), "{text}");
    // The file that was given may go: the agent keeps its own.
    fs::remove_file(&ca).unwrap();
    let mut running = agent(&["run"]).env("VMETRIC_RESPAWN", "1").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let end = clock::monotonic() + Duration::from_secs(60);
    let mut agents = String::new();
    while !agents.contains("\"running_as\":\"factory\"") && clock::monotonic() < end {
        sleep(Duration::from_millis(50));
        agents = site.good("agents --json");
    }
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(agents.contains("\"running_as\":\"factory\""), "{agents}");
    drop(director);
    let out = agent(&["enroll", "--director", "https://x", "--ca", "a", "--pin", "b"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn a_client_of_the_company_ca_checks_chain_name_and_dates() {
    let (site, company, now) = (Site::start(), Company::new(), clock::unix());
    let ask = |pem: &str, host: &str| {
        let config = HttpConfig { pins: Vec::new(), proxy: None, user_agent: "test", wake_fd: None, tick: || {} };
        let http = Http::with_rules(config, company::client_config(pem.as_bytes()).unwrap()).unwrap();
        let url = format!("https://{host}:{}/echo", site.address.port());
        http.post_json(&url, None, "{}", 100, SOON).map(|r| r.status).map_err(|e| e.reason())
    };
    let show = |names: &[&str], from, until| site.ca.set_company(company.files(&company.certificate(names, from, until)).load().unwrap());
    assert!(crate::certificates::offers_1_3_only(company::client_config(company.pem.as_bytes()).unwrap()));
    show(&["localhost", "127.0.0.1"], now - DAY, now + 90 * DAY);
    assert_eq!(ask(&company.pem, "localhost"), Ok(200));
    assert_eq!(ask(&company.pem, "127.0.0.1"), Ok(200));
    assert_eq!(ask(&format!("{}{}", Company::new().pem, company.pem), "localhost"), Ok(200), "an old CA and a new one");
    let refused = |pem: &str, host: &str| ask(pem, host).unwrap_err();
    let reason = refused(&Company::new().pem, "localhost");
    assert!(reason.code == "tls_failed" && reason.detail.contains("invalid peer certificate"), "{reason}");
    show(&["other.example"], now - DAY, now + 90 * DAY);
    let reason = refused(&company.pem, "localhost");
    assert!(reason.code == "tls_failed" && reason.detail.contains("other.example"), "{reason}");
    show(&["localhost"], now - 90 * DAY, now - DAY);
    assert!(refused(&company.pem, "localhost").detail.contains("expired"));
    // A certificate that is younger than this clock, until a signed time says that the clock is behind.
    show(&["localhost"], now + DAY, now + 90 * DAY);
    assert!(refused(&company.pem, "localhost").detail.contains("not valid yet"));
    company::floor_is(now + 2 * DAY);
    company::floor_is(0);
    assert_eq!(ask(&company.pem, "localhost"), Ok(200));
    for (text, word) in
        [("", "no certificate"), ("junk", "no certificate"), ("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "damaged")]
    {
        let reason = company::client_config(text.as_bytes()).unwrap_err();
        assert!(reason.code == "bad_ca" && reason.detail.contains(word), "{text}: {reason}");
    }
}
