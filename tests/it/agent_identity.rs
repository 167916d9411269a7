//! The identity of real agents at a real Director: a lost answer, a rebuilt site, another CA, a copied disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use vmetric::director::ca::CaView;
use vmetric::director::enroll::TokensView;
use vmetric::director::views::AgentsView;
use vmetric::io::tls::pin_text;

use crate::agent::{Device, said, text};
use crate::director_bench::Site;

/// `enroll`; what it says when it fails.
fn enroll(device: &Device, token: &str, more: &[&str]) -> Result<String, String> {
    let pin = pin_text(&device.site.pin);
    let words = [&["enroll", "--director", &device.site.url, "--pin", &pin, "--token", token], more].concat();
    let out = device.run(&words);
    if out.status.success() { Ok(text(&device.status(), "agent_id")) } else { Err(said(&out)) }
}

fn read(device: &Device, file: &str) -> Option<Vec<u8>> {
    fs::read(device.path("state/config").join(file)).ok()
}

#[expect(clippy::disallowed_methods, reason = "lays the files as a power cut leaves them")]
fn lay(device: &Device, file: &str, bytes: &Option<Vec<u8>>) {
    let path = device.path("state/config").join(file);
    match bytes {
        Some(bytes) => fs::write(&path, bytes).unwrap(),
        None => drop(fs::remove_file(&path)),
    }
}

#[test]
fn a_power_cut_while_enrolling_gives_the_same_identity_and_spends_one_use() {
    let site = Site::with(&[]);
    let device = Device::bare(&site, "device");
    let token = site.token("--uses 3");
    let id = enroll(&device, &token, &[]).unwrap();
    let mode = fs::metadata(device.path("state/config/device.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The answer was lost: the key is on the disk, the configuration is not, or only its temporary file is.
    for torn in [None, Some(b"{\"form".to_vec())] {
        lay(&device, "agent.json", &None);
        lay(&device, ".agent.json.tmp", &torn);
        assert_eq!(enroll(&device, &token, &[]).unwrap(), id);
    }
    assert!(enroll(&device, &token, &[]).unwrap_err().contains("already_enrolled"));
    let tokens: TokensView = site.json("token list --json");
    assert_eq!((tokens.tokens[0].used, tokens.tokens[0].uses_left), (1, 2));

    // The same for a replacement: cut before the configuration, and between it and the key's last rename.
    let old = ["agent.json", "device.key", "device.new"].map(|f| (f, read(&device, f)));
    let second = site.token("");
    let replaced = enroll(&device, &second, &["--replace"]).unwrap();
    assert_ne!(replaced, id);
    let (config, key) = (read(&device, "agent.json"), read(&device, "device.key"));
    old.iter().for_each(|(file, bytes)| lay(&device, file, bytes));
    lay(&device, "device.new", &key);
    assert_eq!(text(&device.status(), "agent_id"), id, "still what it was");
    assert_eq!(enroll(&device, &second, &["--replace"]).unwrap(), replaced);
    old.iter().for_each(|(file, bytes)| lay(&device, file, bytes));
    lay(&device, "device.new", &key);
    lay(&device, "agent.json", &config);
    let mut device = device;
    device.start();
    device.wait("contact", |s| text(s, "last_contact") != "null");
    assert!(read(&device, "device.key") == key && read(&device, "device.new").is_none());

    // What is wrong is said before anything is sent, or with the Director's code.
    let stranger = Device::bare(&site, "stranger");
    let foreign = format!("vmt_{}_{}", "0".repeat(8), "5a".repeat(32));
    assert!(enroll(&stranger, &foreign, &[]).unwrap_err().contains("token_other_site"));
    assert!(enroll(&stranger, &second, &[]).unwrap_err().contains("token_used_up"));
    assert!(enroll(&stranger, "vmt_x", &[]).unwrap_err().contains("token_unknown"));
    let bound = site.token("--serial S1");
    assert!(enroll(&stranger, &bound, &["--serial", "S2"]).unwrap_err().contains("serial_not_listed"));
    let third = enroll(&stranger, &bound, &["--serial", "S1"]).unwrap();
    site.good(&format!("remove-agent {third}"));
    assert!(!site.good("activity").contains(&"5a".repeat(32)), "no token in the activity");
}

#[test]
fn another_ca_reaches_every_agent_and_loses_none() {
    let mut site = Site::with(&[]);
    let old = pin_text(&site.pin);
    let (url, names) = (site.url.clone(), ["device-1", "device-2", "asleep"]);
    {
        let devices = names.map(|name| Device::bare(&site, name));
        devices.iter().for_each(|d| drop(enroll(d, &site.token(""), &[]).unwrap()));
        let [mut first, mut second, mut asleep] = devices;
        asleep.start();
        asleep.wait("contact", |s| text(s, "last_contact") != "null");
        drop(asleep);
        [&mut first, &mut second].iter_mut().for_each(|d| d.start());
        [&first, &second].iter().for_each(|d| drop(d.wait("contact", |s| text(s, "last_contact") != "null")));

        let view: CaView = site.json("ca rotate --json");
        assert_eq!(view.former.as_ref(), Some(&old));
        let new = view.pin;
        assert!(site.bad("ca rotate").contains("rotation_open"));
        first.wait("the others to be over", |_| site.json::<CaView>("ca status --json").behind.len() == 1);
        assert!(site.good("ca status").contains("2 of 3 are over"));
        let refused = site.bad("ca retire");
        assert!(refused.contains("agents_behind") && refused.contains(&site.json::<CaView>("ca status --json").behind[0].id), "{refused}");

        // The one that was off for months knows the old pin only.
        let mut asleep = Device { site: &site, name: "asleep".into(), process: None };
        asleep.start();
        asleep.wait("all to be over", |_| site.json::<CaView>("ca status --json").behind.is_empty());
        site.good("ca retire");
        for device in [&first, &second, &asleep] {
            let pins = || String::from_utf8(read(device, "agent.json").unwrap()).unwrap();
            // Two announcements end the polls that were parked before.
            assert!(pins().contains(&new), "{}", pins());
        }
    }
    // A restart under the new CA alone: everybody is back.
    assert_eq!(site.stop(), Some(0));
    site.start();
    assert_eq!(site.url, url);
    assert_ne!(pin_text(&site.pin), old);
    let mut devices = names.map(|name| Device { site: &site, name: name.into(), process: None });
    devices.iter_mut().for_each(Device::start);
    for device in &devices {
        let pins = || String::from_utf8(read(device, "agent.json").unwrap()).unwrap();
        device.wait("the old pin to be gone", |s| text(s, "last_contact") != "null" && !pins().contains(&old));
    }
    assert_eq!(site.json::<AgentsView>("agents --json").agents.iter().filter(|a| a.online).count(), 3);
}

#[test]
fn whoever_forces_the_former_ca_out_is_told_whom_it_loses() {
    let site = Site::with(&[]);
    let device = Device::bare(&site, "asleep");
    let id = enroll(&device, &site.token(""), &[]).unwrap();
    site.good("ca rotate");
    assert!(site.bad("ca retire").contains(&id));
    let view: CaView = site.json("ca retire --force --json");
    assert!(view.former.is_none() && view.behind.len() == 1 && view.behind[0].id == id, "{view:?}");
    let activity = site.good("activity --json");
    let lost = activity.lines().find(|line| line.contains("\"agent_lost\"")).unwrap_or_else(|| panic!("{activity}"));
    assert!(lost.contains(&id) && lost.contains("enroll --replace"), "{lost}");
    assert!(activity.lines().any(|line| line.contains("\"ca_retired\"") && line.contains(&id)), "{activity}");
    // Once it is done nobody is behind any more.
    assert!(site.json::<CaView>("ca status --json").behind.is_empty());
}

/// Everything under a folder, links left out.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, &to).unwrap()),
        }
    }
}

#[test]
fn a_copied_disk_is_refused_and_gets_an_identity_of_its_own() {
    let site = Site::with(&[]);
    let mut first = Device::bare(&site, "device");
    let id = enroll(&first, &site.token(""), &[]).unwrap();
    first.start();
    first.wait("contact", |s| text(s, "last_contact") != "null");
    let mut clone = Device::bare(&site, "clone");
    copy(&first.path("state/config"), &clone.path("state/config"));
    clone.start();
    let status = clone.wait("the refusal", |s| text(s, "refused").contains("identity_in_use"));
    assert_eq!((text(&status, "runs"), text(&status, "running")), ("true".into(), "factory".into()));
    let agents = site.good("agents");
    assert!(agents.contains("second device"), "{agents}");
    assert!(site.good("activity").contains("identity_twice"));
    first.wait("the first still served", |s| text(s, "refused") == "null" && text(s, "last_contact") != "null");
    // An identity of its own; the agent is stopped by it and started again.
    let other = enroll(&clone, &site.token(""), &["--replace"]).unwrap();
    assert_ne!(other, id);
    clone.process.take().unwrap().wait().unwrap();
    clone.start();
    clone.wait("contact", |s| text(s, "last_contact") != "null" && text(s, "refused") == "null");
    assert_eq!(site.json::<AgentsView>("agents --json").agents.len(), 2);
    // A removed agent is told so and runs on.
    site.good(&format!("remove-agent {id}"));
    let status = first.wait("the removal", |s| text(s, "refused").contains("agent_removed"));
    assert_eq!(text(&status, "runs"), "true");
}
