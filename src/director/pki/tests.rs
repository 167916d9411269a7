use super::*;
use crate::core::hex;

const NOW: u64 = 1_795_305_600;
const DAY: u64 = 86_400;

fn names(dns: &str) -> Names {
    Names { dns: vec![dns.to_string()], ips: vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()] }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn open(&self, now: u64) -> Result<SiteCa, Reason> {
        SiteCa::open_or_create(&self.0.path().join("pki"), &names("a.example"), now)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("pki").join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    /// As a hostile or clumsy hand would.
    fn put(&self, name: &str, bytes: &[u8]) {
        write_durable(&self.file(name), bytes, 0o600).unwrap();
    }
}

fn shown(ca: &SiteCa) -> Arc<CertifiedKey> {
    ca.leaf.current.read().unwrap().clone().unwrap()
}

#[test]
fn a_second_start_finds_everything() {
    let place = Place::new();
    let first = place.open(NOW).unwrap();
    let leaf = place.bytes("leaf.pem");
    let second = place.open(NOW + 59 * DAY).unwrap();
    assert_eq!(first.pin(), second.pin());
    assert_eq!(place.bytes("leaf.pem"), leaf);
    let credential = first.issue("edge-1", NOW);
    assert_eq!(second.check(&credential).unwrap().agent_id, "edge-1");
    assert_ne!(Place::new().open(NOW).unwrap().pin(), first.pin());
    assert!(Place::new().open(NOW).unwrap().check(&credential).is_err());
}

#[cfg(unix)]
#[test]
fn keys_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.open(NOW).unwrap();
    let mode = |name| fs::metadata(place.file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("leaf.key")), (0o600, 0o600));
}

#[test]
fn a_leaf_is_renewed_in_its_last_month() {
    let place = Place::new();
    let ca = place.open(NOW).unwrap();
    let before = shown(&ca);
    assert!(!ca.renew_if_due(&names("a.example"), NOW + 60 * DAY).unwrap());
    assert!(ca.renew_if_due(&names("a.example"), NOW + 60 * DAY + 1).unwrap());
    assert_ne!(before.cert[0], shown(&ca).cert[0]);
    assert_eq!(before.cert[1], shown(&ca).cert[1], "the CA stays");
    assert!(ca.renew_if_due(&names("b.example"), NOW + 61 * DAY).unwrap(), "another name");
    assert!(!ca.renew_if_due(&names("b.example"), NOW + 61 * DAY).unwrap());
    // A clock that ran ahead made a leaf that would not be renewed for years; one that runs in 1970 still gets one.
    assert!(ca.renew_if_due(&names("b.example"), NOW - 400 * DAY).unwrap());
    assert!(ca.renew_if_due(&names("b.example"), 0).unwrap());
    assert!(ca.renew_if_due(&names("b.example"), u64::MAX).unwrap());
}

#[test]
fn a_damaged_leaf_is_made_again() {
    for (name, bytes) in [("leaf.pem", b"".as_slice()), ("leaf.key", b"junk"), ("leaf.pem", b"vmetric leaf until x for y\n")] {
        let place = Place::new();
        place.open(NOW).unwrap();
        place.put(name, bytes);
        assert!(shown(&place.open(NOW).unwrap()).keys_match().is_ok(), "{name}");
    }
    // The key of another leaf: a power cut between the two files.
    let (place, other) = (Place::new(), Place::new());
    place.open(NOW).unwrap();
    other.open(NOW).unwrap();
    place.put("leaf.key", &other.bytes("leaf.key"));
    assert!(shown(&place.open(NOW).unwrap()).keys_match().is_ok());
}

#[test]
fn a_ca_is_never_replaced() {
    let place = Place::new();
    let pin = place.open(NOW).unwrap().pin();
    let (key, certificate) = (place.bytes("ca.key"), place.bytes("ca.pem"));
    // The certificate follows from the key.
    fs::remove_file(place.file("ca.pem")).unwrap();
    assert_eq!(place.open(NOW + DAY).unwrap().pin(), pin);
    assert_eq!(place.bytes("ca.pem"), certificate);
    for bytes in [b"".as_slice(), b"junk", &certificate] {
        place.put("ca.key", bytes);
        assert_eq!(place.open(NOW).err().unwrap().code, "pki_unreadable");
    }
    fs::remove_file(place.file("ca.key")).unwrap();
    let reason = place.open(NOW).err().unwrap();
    assert!(reason.code == "pki_unreadable" && reason.detail.contains("backup"), "{reason}");
    place.put("ca.key", &key);
    place.put("ca.pem", b"junk");
    assert_eq!(place.open(NOW).err().unwrap().code, "pki_unreadable");
    let other = Place::new();
    other.open(NOW).unwrap();
    place.put("ca.pem", &other.bytes("ca.pem"));
    assert_eq!(place.open(NOW).err().unwrap().code, "pki_unreadable");
    assert_eq!(place.bytes("ca.key"), key);
}

#[test]
fn the_pin_is_what_openssl_says() {
    let place = Place::new();
    let pin = place.open(NOW).unwrap().pin();
    let sh = "openssl x509 -pubkey -noout -in \"$0\" | openssl pkey -pubin -outform der | openssl dgst -sha256 -r";
    let Ok(out) = std::process::Command::new("sh").args(["-c", sh]).arg(place.file("ca.pem")).output() else { return };
    if !out.status.success() || out.stdout.is_empty() {
        assert!(std::env::var_os("VMETRIC_ALL_TESTS").is_none(), "left out: no openssl");
        return eprintln!("left out: no openssl here");
    }
    assert!(String::from_utf8_lossy(&out.stdout).starts_with(&hex::encode(&pin)));
    let verify = "openssl verify -CAfile \"$0\" \"$1\" && openssl x509 -noout -startdate -ext subjectAltName -in \"$1\"";
    let out = std::process::Command::new("sh").args(["-c", verify]).arg(place.file("ca.pem")).arg(place.file("leaf.pem")).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1970") && text.contains("DNS:a.example, IP Address:10.0.0.1"), "{text}");
}
