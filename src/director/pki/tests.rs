use super::*;
use crate::core::hex;
use crate::io::fs::write_durable;
use leaf::{Facts, LEAF_SECONDS, RENEW_SECONDS};
use rustls::sign::CertifiedKey;

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

fn shown(ca: &SiteCa) -> [Arc<CertifiedKey>; 2] {
    [Kind::Ed25519, Kind::P256].map(|kind| ca.shown.certified(kind).unwrap())
}

fn why(outcome: Result<Option<Reason>, Reason>) -> String {
    outcome.unwrap().map_or("kept".into(), |r| r.code.to_string())
}

#[test]
fn a_second_start_finds_everything() {
    let place = Place::new();
    let first = place.open(NOW).unwrap();
    let leaf = place.bytes("leaf.pem");
    let second = place.open(NOW + 59 * DAY).unwrap();
    assert_eq!(first.pin(), second.pin());
    assert_eq!(place.bytes("leaf.pem"), leaf);
    let credential = first.issue("edge-1", NOW, None);
    assert_eq!(second.check(&credential).unwrap().agent_id, "edge-1");
    assert_ne!(Place::new().open(NOW).unwrap().pin(), first.pin());
    assert!(Place::new().open(NOW).unwrap().check(&credential).is_err());
}

#[cfg(unix)]
#[test]
fn keys_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let mode = |name| fs::metadata(place.file(name)).unwrap().permissions().mode() & 0o777;
    let keys = ["ca.key", "leaf.key", "ca-p256.key", "leaf-p256.key"];
    place.open(NOW).unwrap();
    assert_eq!(keys.map(mode), [0o600; 4]);
    place.open(NOW + LEAF_SECONDS).unwrap();
    assert_eq!(keys.map(mode), [0o600; 4], "renewed ones too");
}

#[test]
fn when_a_leaf_is_renewed() {
    let leaf = |until| Facts { until, names: names("a.example").list() };
    let code = |leaf: Option<&Facts>, name: &str, now| why_renew(leaf, &names(name), now).map_or("kept".into(), |r| r.code.to_string());
    let at = |until, now| code(Some(&leaf(until)), "a.example", now);
    assert_eq!(code(None, "a.example", NOW), "leaf_missing");
    assert_eq!(at(NOW + LEAF_SECONDS, NOW), "kept");
    assert_eq!(at(NOW + RENEW_SECONDS, NOW), "kept");
    assert_eq!(at(NOW + RENEW_SECONDS - 1, NOW), "leaf_due");
    assert_eq!(at(NOW, NOW + 400 * DAY), "leaf_due");
    // Made in 1970, looked at once the clock is right; made in 2099, the same.
    assert_eq!(at(LEAF_SECONDS, NOW), "leaf_due");
    assert_eq!(at(4_100_000_000, NOW), "leaf_ahead");
    assert_eq!(at(NOW + LEAF_SECONDS, 0), "leaf_ahead");
    // A clock beyond the CA's end, or at the end of time, does not renew at every look.
    for now in [0, 4_102_444_800 - DAY, 4_102_444_800 + 900 * DAY, u64::MAX - LEAF_SECONDS, u64::MAX] {
        assert_eq!(at(now.saturating_add(LEAF_SECONDS), now), "kept");
    }
    assert_eq!(code(Some(&leaf(NOW + LEAF_SECONDS)), "b.example", NOW), "leaf_names");
    let fewer = Names { dns: vec!["a.example".into()], ips: Vec::new() };
    assert_eq!(why_renew(Some(&leaf(NOW + LEAF_SECONDS)), &fewer, NOW), None, "an address that is gone can wait");
}

#[test]
fn a_leaf_is_renewed_in_its_last_month() {
    let place = Place::new();
    let ca = place.open(NOW).unwrap();
    let before = shown(&ca);
    assert_eq!(why(ca.renew_if_due(&names("a.example"), NOW + 60 * DAY)), "kept");
    assert_eq!(why(ca.renew_if_due(&names("a.example"), NOW + 60 * DAY + 1)), "leaf_due");
    assert_eq!(ca.leaf().0, NOW + 150 * DAY + 1);
    for (before, after) in before.iter().zip(shown(&ca)) {
        assert_ne!(before.cert[0], after.cert[0]);
        assert_eq!(before.cert[1], after.cert[1], "the CA stays");
        assert_ne!(before.key.public_key(), after.key.public_key(), "a new key with each leaf");
    }
    // What is shown is what a restart finds.
    let leaves = [place.bytes("leaf.pem"), place.bytes("leaf-p256.pem")];
    place.open(NOW + 61 * DAY).unwrap();
    assert_eq!([place.bytes("leaf.pem"), place.bytes("leaf-p256.pem")], leaves);
    assert_eq!(why(ca.renew_if_due(&names("b.example"), NOW + 61 * DAY)), "leaf_names");
    assert_eq!(why(ca.renew_if_due(&names("b.example"), NOW + 61 * DAY)), "kept");
    for now in [NOW - 400 * DAY, 0, 4_102_444_800 + DAY, u64::MAX] {
        assert_ne!(why(ca.renew_if_due(&names("b.example"), now)), "kept", "{now}");
        assert_eq!(why(ca.renew_if_due(&names("b.example"), now)), "kept", "{now}");
        assert!(shown(&ca).iter().all(|c| c.keys_match().is_ok()) && ca.leaf().0 <= 4_102_444_800, "{now}");
    }
}

#[test]
fn a_leaf_that_cannot_be_written_leaves_the_old_one_in_use() {
    let place = Place::new();
    let ca = place.open(NOW).unwrap();
    let before = shown(&ca).map(|c| c.cert[0].clone());
    // A file where the temporary one belongs would be replaced; a folder that is gone cannot be.
    fs::rename(place.file(""), place.0.path().join("away")).unwrap();
    let reason = ca.renew_if_due(&names("a.example"), NOW + 80 * DAY).unwrap_err();
    assert!(reason.code == "pki_unwritable" && reason.detail.contains("leaf"), "{reason}");
    assert_eq!(shown(&ca).map(|c| c.cert[0].clone()), before);
    fs::rename(place.0.path().join("away"), place.file("")).unwrap();
    assert_eq!(why(ca.renew_if_due(&names("a.example"), NOW + 80 * DAY)), "leaf_due");
}

#[test]
fn a_damaged_leaf_is_made_again() {
    let good = |place: &Place| {
        let ca = place.open(NOW).unwrap();
        shown(&ca).iter().all(|c| c.keys_match().is_ok())
            && ca.shown.certified(Kind::Ed25519).unwrap().cert[1] == ca.agents().ca.certificate
    };
    for (name, bytes) in [("leaf.pem", b"".as_slice()), ("leaf.key", b"junk"), ("leaf.pem", b"vmetric leaf until x for y\n")] {
        for name in [name.to_string(), name.replace("leaf", "leaf-p256")] {
            let place = Place::new();
            place.open(NOW).unwrap();
            place.put(&name, bytes);
            assert!(good(&place), "{name}");
        }
    }
    // The key of another leaf: a power cut between the two files. Both of another CA: a backup that was restored.
    for files in [&["leaf.key"][..], &["leaf.key", "leaf.pem"]] {
        let (place, other) = (Place::new(), Place::new());
        place.open(NOW).unwrap();
        other.open(NOW).unwrap();
        files.iter().for_each(|name| place.put(name, &other.bytes(name)));
        assert!(good(&place));
        assert!(files.iter().any(|name| place.bytes(name) != other.bytes(name)), "{files:?} is not kept");
    }
}

#[test]
fn a_director_of_before_gets_its_twin() {
    let place = Place::new();
    let pin = place.open(NOW).unwrap().pin();
    for name in ["ca-p256.key", "ca-p256.pem", "leaf-p256.key", "leaf-p256.pem"] {
        fs::remove_file(place.file(name)).unwrap();
    }
    assert_eq!(place.open(NOW).unwrap().pin(), pin);
    // Once it is there, it is kept like the first: half of it is an error that says what to do.
    let pem = place.bytes("ca-p256.pem");
    fs::remove_file(place.file("ca-p256.pem")).unwrap();
    place.open(NOW).unwrap();
    place.put("ca-p256.pem", &pem);
    let bundle = place.open(NOW).unwrap().bundle();
    let line = format!("vmetric site CA pin {}\n", tls::pin_text(&pin));
    assert_eq!(bundle.as_bytes(), [line.into_bytes(), pem, place.bytes("ca.pem")].concat(), "the very bytes that browsers trust");
    fs::remove_file(place.file("ca-p256.key")).unwrap();
    assert!(place.open(NOW).err().unwrap().detail.contains("browsers"));
    place.put("ca-p256.key", &place.bytes("ca.key"));
    assert!(place.open(NOW).err().unwrap().detail.contains("P-256"));
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
    for [ca, leaf] in [["ca.pem", "leaf.pem"], ["ca-p256.pem", "leaf-p256.pem"]] {
        let verify = "openssl verify -CAfile \"$0\" \"$1\" && openssl x509 -noout -startdate -ext subjectAltName -in \"$1\"";
        let out = std::process::Command::new("sh").args(["-c", verify]).arg(place.file(ca)).arg(place.file(leaf)).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1970") && text.contains("DNS:a.example, IP Address:10.0.0.1"), "{text}");
    }
}

fn verifies(ca: &SiteCa, pins: &[Pin]) -> Vec<Pin> {
    use rustls::client::danger::ServerCertVerifier;
    let shown = ca.shown.certified(Kind::Ed25519).unwrap();
    let verifier = tls::PinVerifier::new(pins.to_vec());
    let name = rustls::pki_types::ServerName::try_from("x").unwrap();
    let at = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::ZERO);
    let _ = verifier.verify_server_cert(&shown.cert[0], &shown.cert[1..], &name, &[], at);
    verifier.matched()
}

#[test]
fn a_rotation_loses_nobody_until_it_is_retired() {
    let place = Place::new();
    let ca = place.open(NOW).unwrap();
    let (old, credential) = (ca.pin(), ca.issue("edge-1", NOW, None));
    assert_eq!(ca.retire(&names("a.example"), NOW).unwrap_err().code, "no_rotation");
    ca.rotate(&names("a.example"), NOW).unwrap();
    let new = ca.pin();
    assert_ne!(old, new);
    assert_eq!(ca.rotate(&names("a.example"), NOW).unwrap_err().code, "rotation_open");
    // Also after a restart, and after the leaf was renewed by either.
    for ca in [ca, place.open(NOW + 80 * DAY).unwrap(), place.open(NOW + 81 * DAY).unwrap()] {
        assert_eq!((verifies(&ca, &[old]), verifies(&ca, &[new])), (vec![old], vec![new]));
        assert_eq!(verifies(&ca, &[old, new]), [new, old], "an agent with both sees that both are good");
        assert!(verifies(&ca, &[[7; 32]]).is_empty());
        assert!(ca.check(&credential).unwrap().outdated && !ca.check(&ca.issue("edge-1", NOW, None)).unwrap().outdated);
        assert_eq!(ca.pins().trust, [tls::pin_text(&new), tls::pin_text(&old)]);
    }
    let ca = place.open(NOW + 82 * DAY).unwrap();
    assert_eq!(ca.retire(&names("a.example"), NOW + 82 * DAY).unwrap(), old);
    for ca in [ca, place.open(NOW + 83 * DAY).unwrap()] {
        assert_eq!((verifies(&ca, &[old]), verifies(&ca, &[new])), (vec![], vec![new]));
        assert!(ca.check(&credential).is_err());
        assert_eq!((ca.pins().trust, ca.pins().retired), (vec![tls::pin_text(&new)], vec![tls::pin_text(&old)]));
    }
    assert!(!place.file("ca-former.key").exists());
}

#[test]
fn a_rotation_survives_a_crash_between_any_two_writes() {
    let files = ["ca.key", "ca.pem", "ca-former.key", "leaf.key", "leaf.pem", "retired"];
    let read = |place: &Place| files.map(|f| fs::read(place.file(f)).ok());
    let lay = |place: &Place, name: &str, bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => place.put(name, bytes),
        None => drop(fs::remove_file(place.file(name))),
    };
    let place = Place::new();
    let ca = place.open(NOW).unwrap();
    let (old, credential, before) = (ca.pin(), ca.issue("edge-1", NOW, None), read(&place));
    ca.rotate(&names("a.example"), NOW).unwrap();
    let (new, rotated) = (ca.pin(), read(&place));
    ca.retire(&names("a.example"), NOW).unwrap();
    let retired = read(&place);
    // The order in which the files are written; a prefix of it is what a crash leaves.
    let plans = [(&before, &rotated, [2, 0, 1, 3, 4, 5]), (&rotated, &retired, [5, 2, 3, 4, 0, 1])];
    for (from, to, order) in plans {
        for done in 0..=order.len() {
            for (n, file) in order.iter().enumerate() {
                lay(&place, files[*file], if n < done { &to[*file] } else { &from[*file] });
            }
            let ca = place.open(NOW).unwrap_or_else(|e| panic!("{done}: {e}"));
            let over = ca.pin() == new;
            assert_eq!(over, from == &rotated || done >= 2, "{done}");
            assert_eq!(verifies(&ca, &[ca.pin()]), [ca.pin()], "{done}");
            if to == &rotated || done < 2 {
                assert_eq!(verifies(&ca, &[old]), [old], "{done}: an agent with the old pin only");
                assert!(ca.check(&credential).is_ok(), "{done}");
            }
            assert!(!ca.pins().retired.iter().any(|pin| ca.pins().trust.contains(pin)), "{done}");
        }
    }
}
