//! Webhooks of a real Fleet: signed, tried again, restarted, and what is refused.

mod kinds;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use miniserde::json;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use vmetric::fleet::notices::Notice;
use vmetric::fleet::notices::deliver::signature;
use vmetric::fleet::webhooks::WebhooksView;

use crate::director_bench::Site;
use crate::fleet_told::until;

/// A receiver on this machine: hands over what it got, and answers what it is told to.
struct Receiving {
    port: u16,
    got: Receiver<String>,
    answer: Arc<Mutex<u16>>,
    ca: String,
}

fn receiver() -> Receiving {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_string()]).unwrap().self_signed(&key).unwrap();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let rules = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let rules = Arc::new(rules.with_no_client_auth().with_single_cert(chain, secret).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, answer) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(204)));
    let (tell, got) = channel();
    let status = answer.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(rules.clone()).unwrap(), socket);
            let (mut text, mut piece) = (Vec::new(), [0; 4096]);
            let whole = |text: &[u8]| {
                let text = String::from_utf8_lossy(text);
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length: usize = head.lines().find_map(|l| l.strip_prefix("content-length: "))?.parse().ok()?;
                (body.len() >= length).then_some(())
            };
            while whole(&text).is_none() {
                match stream.read(&mut piece) {
                    Ok(n) if n > 0 => text.extend_from_slice(&piece[..n]),
                    _ => break,
                }
            }
            let code = *status.lock().unwrap();
            let _ = write!(stream, "HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n").and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
            if tell.send(String::from_utf8(text).unwrap()).is_err() {
                break;
            }
        }
    });
    Receiving { port, got, answer, ca: certificate.pem() }
}

impl Receiving {
    fn next(&self, secret: &str) -> Notice {
        let text = self.got.recv_timeout(std::time::Duration::from_secs(120)).expect("a notice");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let header = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {head}")).to_string();
        let at: u64 = header("x-vmetric-timestamp: ").parse().unwrap();
        assert_eq!(header("x-vmetric-signature: "), signature(secret, at, body));
        assert!(head.starts_with("POST /hook?x=1 HTTP/1.1"), "{head}");
        json::from_str(body).unwrap_or_else(|_| panic!("{body}"))
    }
}

#[test]
fn notices_are_signed_tried_again_and_survive_a_restart() {
    let receiver = receiver();
    let mut site = Site::fleet();
    let ca = site.bench.path("receiver.pem");
    std::fs::File::create(&ca).and_then(|mut f| f.write_all(receiver.ca.as_bytes())).unwrap();
    site.environment.push(("SSL_CERT_FILE".into(), ca.display().to_string()));
    site.stop();
    site.start();
    let mut director = site.enroll("site-one");
    director.report();
    let url = format!("https://localhost:{}/hook?x=1", receiver.port);
    let made: WebhooksView =
        site.json(&format!("webhook create ops --url {url} --event rolled_back --event update_available --local --json"));
    let secret = made.secret.unwrap();
    assert!(site.good("webhook test ops").contains("answered 204"));
    assert_eq!(receiver.next(&secret).kind, "test");
    assert!(!site.good("webhook list --json").contains(&secret) && !site.good("webhook list --json").contains("hook?x"));
    assert!(!site.good("activity --json").contains(&secret) && !site.good("activity --json").contains("hook?x"));
    // A receiver that is away: the notice waits, over a restart, and comes.
    *receiver.answer.lock().unwrap() = 503;
    site.good("assign --all --version 2.0.0");
    let order = director.poll().order.unwrap();
    director.accept(&order);
    director.on_trial(&order);
    director.ends(&order, "rolled_back", "r1");
    director.report();
    let refused = receiver.next(&secret);
    assert_eq!(
        (refused.kind.as_str(), refused.director.as_str(), refused.version.as_str()),
        ("rolled_back", director.report.agent_id.as_str(), "2.0.0")
    );
    assert!(refused.text.contains("rolled back: director"), "{}", refused.text);
    until("the failed try", || site.good("webhook list").contains("503"));
    *receiver.answer.lock().unwrap() = 200;
    site.kill();
    site.start();
    assert_eq!(receiver.next(&secret).id, refused.id, "the same notice again");
    until("nothing waits", || site.json::<WebhooksView>("webhook list --json").webhooks[0].pending == 0);
    // A new release.
    site.add("3.0.0");
    site.publish();
    site.good("mirror");
    let fresh = receiver.next(&secret);
    assert_eq!((fresh.kind.as_str(), fresh.version.as_str()), ("update_available", "3.0.0"));
    site.good("webhook change ops --enabled off");
    site.good("webhook remove ops");
    assert!(site.good("webhook list").contains("there is no webhook"));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(site.state()).unwrap().permissions().mode() & 0o777;
    let file = std::fs::metadata(site.state().join("fleet.redb")).unwrap().permissions().mode() & 0o777;
    assert!(mode & 0o077 == 0 || file & 0o077 == 0, "others read the secrets: {mode:o} {file:o}");
}

#[test]
fn what_a_webhook_may_not_be_is_said() {
    let site = Site::fleet();
    for (line, word) in [
        ("webhook create a --url http://hooks.example.org/x", "url_invalid"),
        ("webhook create a --url https://user:pw@hooks.example.org/x", "url_invalid"),
        ("webhook create a --url https://hooks.example.org/x --event fire", "kinds_invalid"),
        ("webhook test nobody", "webhook_unknown"),
    ] {
        assert!(site.bad(line).contains(word), "{line}: {}", site.bad(line));
    }
    for (name, host, code) in [("self", "127.0.0.1:9", "address_refused"), ("cloud", "169.254.169.254", "address_refused")] {
        site.good(&format!("webhook create {name} --url https://{host}/x"));
        let said = site.bad(&format!("webhook test {name}"));
        assert!(said.contains(code), "{said}");
    }
    site.good("webhook create local --url https://127.0.0.1:9/x --local");
    assert!(!site.bad("webhook test local").contains("address_refused"));
}
