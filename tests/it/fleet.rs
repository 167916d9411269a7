//! Fleet: the real program, and Directors that a test plays.

use vmetric::wire::agent_api::OrderWire;

use crate::director_bench::{Site, agent_file};

#[test]
fn a_director_enrolls_with_a_key_and_is_updated() {
    let site = Site::fleet();
    assert!(site.good("directors").contains("`vmetric-fleet key create` makes a key"), "{}", site.good("directors"));
    let mut director = site.enroll("site-one");
    assert!(director.report().order.is_none());
    let said = site.good("assign --all --version latest");
    assert!(said.contains("version 2.0.0 for 1 director(s)") && said.contains("vmetric-fleet rollouts"), "{said}");
    let order: OrderWire = director.poll().order.unwrap();
    assert_eq!(order.target, "vmetric-director/2.0.0/linux-amd64/vmetric-director");
    assert_eq!(order.sha256, vmetric::core::hex::encode(&vmetric::core::hex::sha256(&agent_file("2.0.0"))));
    director.update(&order);
    let view = site.view(&director);
    assert_eq!((view.state.as_str(), view.version.as_str()), ("updated", "2.0.0"));
    let explained = site.good(&format!("explain {}", director.report.agent_id));
    assert!(explained.starts_with("director ") && explained.contains("it runs it"), "{explained}");
    assert!(site.codes(&director).contains(&"confirmed".to_string()));
    site.good(&format!("remove-director {}", director.report.agent_id));
    let (status, body) = director.send("report");
    assert!(status == 401 && body.contains("this director was removed; enroll it again with a new key"), "{body}");
}

#[test]
fn keys_expire_are_used_up_and_are_revoked() {
    let site = Site::fleet();
    let revoked = site.token("");
    let listed = site.good("key list");
    let id = listed.lines().find(|l| l.contains("valid")).and_then(|l| l.split_whitespace().next()).unwrap();
    assert!(listed.starts_with("KEY"), "{listed}");
    site.good(&format!("key revoke {id}"));
    assert_eq!(site.try_enroll(&revoked, "c").unwrap_err(), (403, "token_revoked".into()));
    let key = site.token("--uses 1");
    assert_eq!(site.try_enroll("vmt_nothing", "a").unwrap_err(), (401, "token_unknown".into()));
    site.try_enroll(&key, "a").unwrap();
    assert_eq!(site.try_enroll(&key, "b").unwrap_err(), (403, "token_used_up".into()));
    let short = site.token("--ttl 1s");
    crate::director::wait_for("the key's end", || site.try_enroll(&short, "b").is_err_and(|e| e == (403, "token_expired".into())));
    let said = site.good("key create");
    assert!(said.contains("vmetric-director enroll --fleet https://127.0.0.1:") && said.contains(" --key vmt_"), "{said}");
}

#[test]
fn one_fleet_per_state_folder() {
    let site = Site::fleet();
    let root = site.bench.path("release/root.json");
    let ended = site.run(&format!("serve --listen 127.0.0.1:0 --name 127.0.0.1 --root {}", root.display()));
    assert_eq!(ended.code, 1);
    let holder = format!("vmetric-fleet runs already with this state folder: process {}", site.pid());
    assert!(ended.err.contains(&holder), "{}", ended.err);
    assert!(site.state().join("fleet.redb").is_file());
}

#[test]
fn what_fleet_has_not_is_said() {
    let site = Site::fleet();
    for (line, word) in [("install-command", "unknown command"), ("assign --agent a --version latest", "--director"), ("fly", "fly")] {
        let ended = site.run(line);
        assert!(ended.code == 2 && ended.err.contains(word), "{line}: {}", ended.err);
    }
}
