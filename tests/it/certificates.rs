//! The server's certificates before real clients: curl, OpenSSL, a TLS 1.2 client, a browser, and an agent.

mod browser;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use vmetric::director::certificates;
use vmetric::director::pki::{Names, SiteCa};
use vmetric::io::tls::{PinVerifier, pin_text};

use crate::serve::{FILE_BYTES, NOW, Raw, Seen, Site, file_content, get, post, raw_with};

const DAY: u64 = 86_400;

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// The server certificate that this connection was shown.
fn leaf(raw: &Raw) -> CertificateDer<'static> {
    raw.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

fn names() -> Names {
    Names { dns: vec!["localhost".into()], ips: vec!["127.0.0.1".parse().unwrap()] }
}

#[test]
fn parked_polls_live_through_a_renewal() {
    let site = Site::start();
    let mut parked = site.raw();
    parked.say(post("/park", ""));
    site.expect(Seen::Parked);
    let before = leaf(&parked);
    assert!(site.ca.renew_if_due(&names(), NOW + 80 * DAY).unwrap().is_some());
    let mut fresh = site.raw();
    fresh.say(post("/echo", "new"));
    assert_eq!(fresh.status().1, "new");
    assert_ne!(leaf(&fresh), before, "a new connection gets the new leaf");
    site.events.send_blocking("event".into()).unwrap();
    assert_eq!(parked.status(), (200, "event".into()));
    parked.say(post("/echo", "still here"));
    assert_eq!(parked.status(), (200, "still here".into()));
}

#[test]
fn a_director_with_a_wrong_clock_serves_its_agents() {
    let site = Site::start();
    let right = vmetric::io::clock::unix().max(NOW);
    let ca = site.dir.path().join("pki/ca-p256.pem");
    // 1970; 2099; beyond the end of the CA; and put right.
    for (clock, expires, browser) in [
        (0, 90 * DAY, Some(60)),
        (4_099_000_000, 4_102_444_800, Some(0)),
        (4_200_000_000, 4_102_444_800, Some(0)),
        (right, right + 90 * DAY, Some(0)),
    ] {
        site.ca.renew_if_due(&names(), clock).unwrap();
        assert_eq!(site.ca.leaf().0, expires, "{clock}");
        let mut agent = site.raw();
        agent.say(post("/echo", "served"));
        assert_eq!(agent.status().1, "served", "{clock}");
        let Ok(out) = curl(&ca, &["--data", "x", &site.url("/echo")]) else { return crate::left_out("no curl here") };
        assert_eq!(out.status.code(), browser, "{clock}: {}", said(&out));
    }
}

#[test]
fn the_activity_tells_of_renewals_and_of_those_that_fail() {
    let folder = tempfile::tempdir().unwrap();
    let store = vmetric::director::store::Store::open(&folder.path().join("director.redb")).unwrap();
    let registry = vmetric::director::site::load(&store, NOW).unwrap();
    let (pki, away) = (folder.path().join("pki"), folder.path().join("away"));
    let ca = SiteCa::open_or_create(&pki, &names(), NOW).unwrap();
    let site = vmetric::director::site::Site::new(registry, store, ca, Default::default());
    let codes = || site.registry.borrow().recent.iter().map(|e| e.code.clone()).collect::<Vec<_>>();
    let mut told = None;
    let mut look = |day: u64| certificates::look(&site, &names(), NOW + day * DAY, &mut told);
    (0..=60).for_each(&mut look);
    assert_eq!(codes(), Vec::<String>::new(), "nothing is due");
    std::fs::rename(&pki, &away).unwrap();
    // Every look of a day tells once.
    (0..24).for_each(|_| look(61));
    assert_eq!(codes(), ["certificate_failed"]);
    assert!(site.certificate_error.borrow().as_ref().is_some_and(|e| e.contains("leaf") && e.contains("pki_unwritable")));
    look(62);
    assert_eq!(codes().len(), 2);
    let detail = site.registry.borrow().recent[0].detail.clone();
    assert!(detail.contains("for browsers until 2027-02-20"), "{detail}");
    std::fs::rename(&away, &pki).unwrap();
    look(63);
    assert_eq!(codes().last().unwrap(), "certificate_renewed");
    assert_eq!((site.certificate_error.borrow().clone(), site.ca.leaf().0), (None, NOW + 153 * DAY));
}

/// A client of TLS 1.2 with rustls' usual verifier: names and dates count.
fn older(site: &Site) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(site.dir.path().join("pki/ca-p256.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[test]
fn a_tls_1_2_client_parks_and_is_answered() {
    let site = Site::start();
    // The certificates of this site are of a day that may lie ahead of this machine's clock; only their end counts.
    site.ca.renew_if_due(&names(), vmetric::io::clock::unix().max(NOW)).unwrap();
    let mut raw = raw_with(site.address, older(&site));
    raw.say(format!("{}{}", post("/echo", "one"), post("/echo", "two")));
    assert_eq!((raw.status().1, raw.status().1), ("one".into(), "two".into()));
    assert_eq!(raw.0.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));

    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    // Records of every size arrive while it is parked, and wait their turn.
    let body = "y".repeat(15_000);
    let next = post("/echo", &body);
    raw.say(&next[..1]);
    raw.say(&next[1..9_000]);
    raw.say(&next[9_000..]);
    site.events.send_blocking("event".into()).unwrap();
    assert_eq!(raw.status(), (200, "event".into()));
    assert_eq!(raw.status(), (200, body));

    raw.say(get("/file"));
    let (head, body) = raw.hear();
    assert!(head.starts_with("HTTP/1.1 200") && body.len() == FILE_BYTES && body == file_content());
    raw.say("GET /who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(raw.status().0, 200);
    raw.ended();
}

#[test]
fn a_tls_1_2_client_that_leaves_is_noticed_and_one_that_asks_too_much_refused() {
    let site = Site::start();
    site.ca.renew_if_due(&names(), vmetric::io::clock::unix().max(NOW)).unwrap();
    let mut raw = raw_with(site.address, older(&site));
    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    raw.0.conn.send_close_notify();
    std::io::Write::flush(&mut raw.0).unwrap();
    site.expect(Seen::Dropped);
    let mut raw = raw_with(site.address, older(&site));
    raw.say(post("/park", ""));
    site.expect(Seen::Parked);
    drop(raw.0.sock);
    site.expect(Seen::Dropped);
    for (request, status) in [
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(9_000)), 431),
        ("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n".to_string(), 413),
    ] {
        let mut raw = raw_with(site.address, older(&site));
        raw.say(request);
        assert_eq!(raw.status().0, status);
        raw.ended();
    }
}

fn curl(ca: &Path, words: &[&str]) -> std::io::Result<Output> {
    Command::new("curl").args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20", "--cacert"]).arg(ca).args(words).output()
}

#[test]
fn curl_verifies_either_version() {
    let site = Site::start();
    site.ca.renew_if_due(&names(), vmetric::io::clock::unix().max(NOW)).unwrap();
    let pki = |name: &str| site.dir.path().join("pki").join(name);
    std::fs::File::create(pki("bundle.pem")).and_then(|mut f| std::io::Write::write_all(&mut f, site.ca.bundle().as_bytes())).unwrap();
    let Ok(out) = curl(&pki("ca-p256.pem"), &["--data", "x", &site.url("/echo")]) else { return crate::left_out("no curl here") };
    assert_eq!(said(&out), "x");
    for ca in ["ca-p256.pem", "bundle.pem"] {
        for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"]] {
            let url = format!("https://localhost:{}/echo", site.address.port());
            let out = curl(&pki(ca), &[&["--data", "hello", &url], version].concat()).unwrap();
            assert_eq!(said(&out), "hello", "{ca} {version:?}");
        }
    }
    let key = openssl(&["x509", "-noout", "-pubkey", "-in"], Some(&pki("leaf-p256.pem")));
    let Some(key) = key else { return crate::left_out("no openssl here") };
    let script = "printf %s \"$0\" | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64";
    let hash = said(&Command::new("sh").args(["-c", script, &said(&key)]).output().unwrap());
    let pin =
        |hash: &str| curl(&pki("ca-p256.pem"), &["--pinnedpubkey", &format!("sha256//{hash}"), "--data", "x", &site.url("/echo")]).unwrap();
    assert_eq!(said(&pin(hash.trim())), "x");
    assert_eq!(pin("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").status.code(), Some(90));
    // What must not work: another CA, a name that the leaf does not have, TLS 1.1.
    let other = Site::start();
    assert_eq!(curl(&other.dir.path().join("pki/ca-p256.pem"), &[&site.url("/who")]).unwrap().status.code(), Some(60));
    let resolve = format!("other.example:{}:127.0.0.1", site.address.port());
    let url = format!("https://other.example:{}/who", site.address.port());
    assert_eq!(curl(&pki("ca-p256.pem"), &["--resolve", &resolve, &url]).unwrap().status.code(), Some(60));
    assert_eq!(
        curl(&pki("ca-p256.pem"), &["--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0", &site.url("/who")]).unwrap().status.code(),
        Some(35)
    );
}

fn openssl(words: &[&str], file: Option<&Path>) -> Option<Output> {
    Command::new("openssl").args(words).args(file).stdin(Stdio::null()).output().ok()
}

#[test]
fn openssl_gets_the_chain_that_it_can_verify() {
    let site = Site::start();
    site.ca.renew_if_due(&names(), vmetric::io::clock::unix().max(NOW)).unwrap();
    let address = site.address.to_string();
    let look = |ca: &str, words: &[&str]| {
        let ca = site.dir.path().join("pki").join(ca);
        let base = ["s_client", "-brief", "-verify_return_error", "-verify_ip", "127.0.0.1", "-connect", &address];
        openssl(&[&base, words, &["-CAfile"][..]].concat(), Some(&ca)).map(|out| (out.status.success(), said(&out)))
    };
    let p256 = "ECDSA+SHA256:RSA-PSS+SHA256";
    for (ca, words, signature) in [
        ("ca-p256.pem", &["-tls1_2", "-sigalgs", p256][..], "ECDSA"),
        ("ca-p256.pem", &["-tls1_2"], "ECDSA"),
        ("ca-p256.pem", &["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256"], "ECDSA"),
        ("ca-p256.pem", &["-tls1_3"], "ECDSA"),
        ("ca-p256.pem", &["-tls1_2", "-groups", "P-256"], "ECDSA"),
        ("ca.pem", &["-tls1_3", "-sigalgs", "ed25519"], "ed25519"),
        ("ca.pem", &["-tls1_3", "-sigalgs", "ed25519:ecdsa_secp256r1_sha256"], "ed25519"),
        ("ca.pem", &["-tls1_2", "-sigalgs", "ed25519"], "ed25519"),
    ] {
        let Some((good, text)) = look(ca, words) else { return crate::left_out("no openssl here") };
        assert!(
            good && text.contains("Verification: OK") && text.to_lowercase().contains(&signature.to_lowercase()),
            "{ca} {words:?}: {text}"
        );
    }
    // Nobody is shown a chain of one CA under the other's name, and RSA is not there.
    assert!(!look("ca.pem", &["-tls1_2", "-sigalgs", p256]).unwrap().0);
    assert!(!look("ca-p256.pem", &["-tls1_2", "-sigalgs", "RSA-PSS+SHA256"]).unwrap().0);
}

/// A server with the site's own leaf and key that knows nothing newer than TLS 1.2: a middlebox, or an attacker's.
fn only_tls_1_2(site: &Site) -> String {
    let pki = site.dir.path().join("pki");
    let chain = ["leaf.pem", "ca.pem"].map(|name| CertificateDer::from_pem_file(pki.join(name)).unwrap());
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(pki.join("leaf.key")).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain.to_vec(), key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let _ = connection.complete_io(&mut socket);
            // Whoever got this far is answered.
            let mut stream = rustls::Stream::new(&mut connection, &mut socket);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        }
    });
    url
}

#[test]
fn an_agent_refuses_tls_1_2_although_its_library_knows_it() {
    let site = Site::start();
    let url = only_tls_1_2(&site);
    // The server is sound: another client takes it.
    let ca = site.dir.path().join("pki/ca.pem");
    if let Ok(out) = curl(&ca, &["--insecure", &url]) {
        assert_eq!(said(&out), "{}");
    }
    let state = site.dir.path().join("agent");
    let mut agent = Command::new(env!("CARGO_BIN_EXE_vmetric-agent"));
    let out =
        agent.args(["enroll", "--director", &url, "--pin", &pin_text(&site.pin), "--state"]).arg(&state).env("VMETRIC_TOKEN", "secret");
    let out = out.output().unwrap();
    let text = said(&out);
    assert!(out.status.code() == Some(1) && text.contains("TLS"), "{text}");
    assert!(!text.contains("secret") && !state.join("config/agent.json").exists(), "{text}");
    // Three times: what it offers, what it can compute, and what its verifier says.
    let verifier = PinVerifier::new(vec![site.pin]);
    let provider = vmetric::io::tls::provider();
    assert!(provider.cipher_suites.iter().all(|s| s.tls13().is_some()));
    let config = vmetric::io::tls::client_config(Arc::new(verifier));
    assert!(offers_1_3_only(config));
}

/// What [`ClientConfig`] does not tell directly: the hello's supported_versions (43) has one entry, 0x0304.
pub fn offers_1_3_only(config: Arc<ClientConfig>) -> bool {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello.windows(7).any(|w| w == [0, 43, 0, 3, 2, 3, 4])
}

/// Longest wait for a program of somebody else's.
pub const SLOW: Duration = Duration::from_secs(60);
