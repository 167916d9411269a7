//! Who may speak as whom, at the Director: proofs, copies of devices, restored and lost registries, tokens.

use miniserde::json;
use vmetric::core::proof::DeviceKey;
use vmetric::director::records::Event;
use vmetric::director::service::Front;
use vmetric::io::clock;
use vmetric::io::serve::Service;
use vmetric::wire::agent_api::{EnrollWire, EnrolledWire, PROTOCOL, ReportWire};

use crate::director_service::{Bench, blank, code, header, text};

/// A device that a test plays: its key, its boot, its clock.
#[derive(Clone)]
struct Player {
    key: DeviceKey,
    instance: String,
    sequence: u64,
    enrolled: EnrolledWire,
}

impl Player {
    fn enroll(bench: &Bench, device: u8, token: &str) -> Result<Player, String> {
        let key = DeviceKey::new([device; 32]);
        let wire = EnrollWire {
            protocol: PROTOCOL,
            token: token.into(),
            hostname: format!("host{device}"),
            device_key: Some(key.public()),
            proof: Some(key.prove_enrollment(token)),
            ..blank()
        };
        let (status, body) = bench.post("/agent/v1/enroll", "", json::to_string(&wire).as_bytes());
        match status {
            200 => Ok(Player { key, instance: format!("{device:032x}"), sequence: 1, enrolled: json::from_str(&body).unwrap() }),
            status => Err(format!("{status} {}", code(&body))),
        }
    }

    /// One that enrolled with a token of its own.
    fn new(bench: &Bench, device: u8) -> Player {
        bench.site.registry.borrow_mut().create_token("t", 1, 60, clock::unix()).unwrap();
        Player::enroll(bench, device, "t").unwrap()
    }

    /// The same disk in another machine, or in the same one after a boot.
    fn copy(&self, boot: u8) -> Player {
        Player { instance: format!("c0c0{boot:028x}"), sequence: 1, ..self.clone() }
    }

    fn body(&self) -> Vec<u8> {
        let report =
            ReportWire { protocol: PROTOCOL, agent_id: self.enrolled.agent_id.clone(), hostname: "me".into(), park_s: 30, ..blank() };
        json::to_string(&report).into_bytes()
    }

    fn bearer(&mut self, path: &str) -> String {
        self.sequence += 1;
        format!("{}~{}", self.enrolled.credential, self.key.prove(path, &self.instance, self.sequence, &self.body()))
    }

    /// `200`, or the code of the refusal.
    fn says(&mut self, bench: &Bench) -> String {
        let bearer = self.bearer("/agent/v1/report");
        self.sends(bench, &bearer)
    }

    fn sends(&self, bench: &Bench, bearer: &str) -> String {
        let (status, body) = bench.post("/agent/v1/report", bearer, &self.body());
        if status == 200 { "200".into() } else { format!("{status} {}", code(&body)) }
    }
}

fn events(bench: &Bench, wanted: &str) -> Vec<Event> {
    bench.site.registry.borrow().recent.iter().filter(|e| e.code == wanted).cloned().collect()
}

#[test]
fn a_credential_alone_is_worth_nothing() {
    let bench = Bench::new();
    let (mut device, mut other) = (Player::new(&bench, 1), Player::new(&bench, 2));
    assert_eq!(device.says(&bench), "200");
    let credential = device.enrolled.credential.clone();
    assert_eq!(device.sends(&bench, &credential), "401 proof_missing", "stolen from a log or a backup");
    let foreign = other.key.prove("/agent/v1/report", &device.instance, 99, &device.body());
    assert_eq!(device.sends(&bench, &format!("{credential}~{foreign}")), "401 proof_invalid");
    let for_poll = device.bearer("/agent/v1/poll");
    assert_eq!(device.sends(&bench, &for_poll), "401 proof_invalid", "made for another path");
    for bad in ["", "x", "..", &"9".repeat(300)] {
        assert_eq!(device.sends(&bench, &format!("{credential}~{bad}")), "401 proof_invalid", "{bad}");
    }
    // An older request again, and the last one again, which may be a repetition after a dead connection.
    let (first, second) = (device.bearer("/agent/v1/report"), device.bearer("/agent/v1/report"));
    assert_eq!([&first, &second, &second, &first].map(|b| device.sends(&bench, b)), ["200", "200", "200", "401 proof_replayed"]);
    assert_eq!((device.says(&bench), other.says(&bench)), ("200".into(), "200".into()));
    let refused = bench.get("/release/targets/vmetric-agent/1.0.0/linux-amd64/vmetric-agent", &credential, &[]);
    assert!(header(&refused, "retry-after").parse::<u64>().unwrap() >= 900, "a person has to act: {:?}", refused.headers);
    assert_eq!(code(&text(refused)), "proof_missing");
    let told = events(&bench, "access_refused");
    assert_eq!(told.len(), 3, "one line per code: {told:?}");
    assert!(told[0].detail.contains("192.0.2.1") && told.iter().all(|e| !e.detail.contains(&credential)));
}

#[test]
fn enrollment_is_the_same_twice() {
    let bench = Bench::new();
    bench.site.registry.borrow_mut().create_token("t", 1, 60, clock::unix()).unwrap();
    let mut first = Player::enroll(&bench, 1, "t").unwrap();
    let mut again = Player::enroll(&bench, 1, "t").unwrap();
    assert_eq!(first.enrolled.agent_id, again.enrolled.agent_id);
    assert_eq!(Player::enroll(&bench, 2, "t").err().unwrap(), "403 token_used_up");
    assert_eq!(Player::enroll(&bench, 1, "u").err().unwrap(), "401 token_unknown");
    let elsewhere = format!("vmt_{}_{}", "0".repeat(8), "5a".repeat(32));
    assert_eq!(Player::enroll(&bench, 3, &elsewhere).err().unwrap(), "401 token_other_site");
    assert_eq!((first.says(&bench), again.says(&bench)), ("200".into(), "200".into()));
    let told = events(&bench, "enrollment_refused");
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|e| !e.detail.contains(&"5a".repeat(32))), "no token in the activity");
}

#[test]
fn a_copied_disk_is_refused_and_both_are_named() {
    let bench = Bench::new();
    let mut first = Player::new(&bench, 1);
    assert_eq!(first.says(&bench), "200");
    // The first listens on a parked poll.
    let poll = |player: &mut Player| {
        let bearer = player.bearer("/agent/v1/poll");
        Front(bench.site.clone()).call(bench.request("POST", "/agent/v1/poll", &bearer, &[], player.body()))
    };
    let parked = bench.spawn(poll(&mut first));
    assert_eq!(bench.site.parked(), 1);
    let mut copy = first.copy(1);
    assert_eq!(copy.says(&bench), "503 identity_checking");
    assert_eq!(bench.wait(parked).status, 200, "the first is called");
    let parked = bench.spawn(poll(&mut first));
    for _ in 0..3 {
        assert_eq!(copy.says(&bench), "409 identity_in_use");
    }
    let told = events(&bench, "identity_twice");
    assert!(told.len() == 1 && told[0].detail.contains("192.0.2.1") && told[0].agent == first.enrolled.agent_id, "{told:?}");
    let view = bench.site.registry.borrow().agents_view(clock::unix());
    assert!(view.agents[0].second_device.as_deref().is_some_and(|s| s.contains("192.0.2.1")), "{:?}", view.agents[0]);
    // The person decides for the copy: the first had died in a fire, the copy is its replacement.
    let id = first.enrolled.agent_id.clone();
    bench.site.registry.borrow_mut().replace_agent(&id, clock::unix()).unwrap();
    assert_eq!((copy.says(&bench), first.says(&bench)), ("200".into(), "409 identity_in_use".into()));
    drop(parked);
    // What was decided outlives a restart.
    bench.site.flush();
    bench.wait(bench.site.store.durable()).unwrap();
    let bench = bench.restart();
    assert_eq!((copy.says(&bench), first.says(&bench)), ("200".into(), "409 identity_in_use".into()));
}

#[test]
fn a_reboot_and_a_snapshot_lock_nobody_out() {
    let bench = Bench::new();
    let mut device = Player::new(&bench, 1);
    assert_eq!(device.says(&bench), "200");
    for boot in 1..20 {
        device = device.copy(boot);
        assert_eq!(device.says(&bench), "200", "boot {boot}");
    }
    // After a power cut the dead connection is still open here: the device waits for one short moment.
    let bearer = device.bearer("/agent/v1/poll");
    let parked = bench.spawn(Front(bench.site.clone()).call(bench.request("POST", "/agent/v1/poll", &bearer, &[], device.body())));
    device = device.copy(30);
    assert_eq!(device.says(&bench), "503 identity_checking");
    bench.wait(parked);
    assert_eq!(device.says(&bench), "200");
    // A machine resumed from a snapshot with its memory: its clock went back, its next instance makes a new start.
    device.sequence -= 2;
    assert_eq!(device.says(&bench), "401 proof_replayed");
    assert_eq!(device.copy(31).says(&bench), "200");
    assert!(events(&bench, "identity_twice").is_empty(), "one device is never taken for two");
}

#[test]
fn a_restored_backup_takes_its_newer_agents_back() {
    let bench = Bench::new();
    let mut old = Player::new(&bench, 1);
    assert_eq!(old.says(&bench), "200");
    bench.wait(bench.site.store.durable()).unwrap();
    let backup = tempfile::tempdir().unwrap();
    let copy = |from: &std::path::Path, to: &std::path::Path| std::fs::copy(from, to).map(drop).unwrap();
    copy(&bench.folder.path().join("director.redb"), &backup.path().join("director.redb"));
    std::fs::create_dir(backup.path().join("pki")).unwrap();
    for file in std::fs::read_dir(bench.folder.path().join("pki")).unwrap().flatten() {
        copy(&file.path(), &backup.path().join("pki").join(file.file_name()));
    }
    let mut newer = Player::new(&bench, 2);
    let restored = Bench::over(backup);
    assert_eq!((newer.says(&restored), old.says(&restored)), ("200".into(), "200".into()));
    let id = newer.enrolled.agent_id.clone();
    let credential = newer.enrolled.credential.clone();
    assert_eq!(newer.sends(&restored, &credential), "401 proof_missing", "its key is learnt with it");
    let told = events(&restored, "agent_returned");
    assert!(told.len() == 1 && told[0].agent == id, "{told:?}");
    restored.site.registry.borrow_mut().remove(&id, clock::unix()).unwrap();
    assert_eq!(newer.says(&restored), "401 agent_removed");
    let foreign = Bench::new();
    assert_eq!(newer.says(&foreign), "401 credential_unknown", "another CA: no way in");
    assert!(foreign.site.registry.borrow().agents.is_empty());
}
