//! Fleet: the real program, and Directors that a test plays.

#![allow(clippy::disallowed_methods, reason = "tests write files, and are told by the environment what to leave out")]

use std::time::Duration;

use miniserde::json;
use vmetric::director::api_tokens::{ApiTokenView, ApiTokensView};
use vmetric::director::policing::grants::AuthorizeView;
use vmetric::fleet::api::lists::{ActivityPage, DirectorsPage};
use vmetric::fleet::api::routes;
use vmetric::wire::agent_api::OrderWire;

use crate::director_bench::{Site, agent_file};
use crate::director_hostile::{MORE_KB, pour};

/// Nothing on loopback takes this long.
const LIMIT: Duration = Duration::from_secs(20);

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
fn a_directors_mirror_takes_releases_from_fleet() {
    let site = Site::fleet();
    let path = "/release/targets/vmetric-director/2.0.0/linux-amd64/";
    let file = agent_file("2.0.0");
    let name = format!("{path}{}.vmetric-director", vmetric::core::hex::encode(&vmetric::core::hex::sha256(&file)));
    let (status, body) = get(&site, &name, None);
    assert!(status == 200 && body.as_bytes() == file, "{status}");
    assert_eq!(get(&site, "/release/metadata/timestamp.json", None).0, 200);
    // A Director's own are for its agents only.
    let director = Site::new();
    let name = format!(
        "/release/targets/vmetric-agent/2.0.0/linux-amd64/{}.vmetric-agent",
        vmetric::core::hex::encode(&vmetric::core::hex::sha256(&file))
    );
    assert_eq!(get(&director, &name, None).0, 401);
}

#[test]
fn what_fleet_has_not_is_said() {
    let site = Site::fleet();
    for (line, word) in [("template fly", "template create"), ("assign --agent a --version latest", "--director"), ("fly", "fly")] {
        let ended = site.run(line);
        assert!(ended.code == 2 && ended.err.contains(word), "{line}: {}", ended.err);
    }
}

/// What the API answers to a `GET`.
pub fn get(site: &Site, path: &str, token: Option<&str>) -> (u16, String) {
    let http = site.http();
    let mut download = http.get(&format!("{}{path}", site.url), token, None, 1 << 20, LIMIT).unwrap();
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match download.read(&mut piece).unwrap() {
            0 => return (download.status, String::from_utf8(text).unwrap()),
            n => text.extend_from_slice(&piece[..n]),
        }
    }
}

/// And to a `POST`.
fn post(site: &Site, path: &str, token: &str, body: &str) -> (u16, String) {
    let reply = site.http().post_json(&format!("{}{path}", site.url), Some(token), body, 1 << 20, LIMIT).unwrap();
    (reply.status, String::from_utf8(reply.body).unwrap())
}

/// The API calls a Director what the type calls an agent.
fn activity(body: &str) -> ActivityPage {
    json::from_str(&body.replace("\"director\":", "\"agent\":")).unwrap()
}

fn api_token(site: &Site, role: &str) -> String {
    site.json::<ApiTokenView>(&format!("token create --role {role} --json")).token
}

#[test]
fn the_api_reads_with_a_viewers_token_and_changes_with_an_admins() {
    let site = Site::fleet();
    let (viewer, admin) = (api_token(&site, "viewer"), api_token(&site, "admin"));
    let director = site.enroll("site-one");
    director.report();
    let (status, body) = get(&site, "/api/v1/directors", Some(&viewer));
    let page: DirectorsPage = json::from_str(&body).unwrap();
    assert_eq!((status, page.directors.len(), page.next), (200, 1, None), "{body}");
    assert!(!body.contains("\"agent"), "they are Directors here: {body}");
    assert_eq!(get(&site, "/api/v1/directors?state=waiting&limit=1", Some(&viewer)).0, 200);

    let order = r#"{"all": true, "version": "latest"}"#;
    let (status, body) = post(&site, "/api/v1/rollouts", &viewer, order);
    assert!(status == 403 && body.contains("api_role_too_low"), "{body}");
    let (status, body) = post(&site, "/api/v1/rollouts", &admin, order);
    assert!(status == 201 && body.contains("\"rollout\":1") && body.contains("\"version\":\"2.0.0\""), "{body}");
    assert!(director.poll().order.is_some());
    let (status, body) = get(&site, &format!("/api/v1/directors/{}", director.report.agent_id), Some(&viewer));
    assert!(status == 200 && body.contains("\"desired_version\":\"2.0.0\""), "{body}");
    assert_eq!(post(&site, "/api/v1/rollouts/1/cancel", &admin, r#"{"reason": "another day"}"#).0, 200);

    // Who did it is the token, and the cursor goes on where it was.
    let (_, body) = get(&site, "/api/v1/activity?limit=3", Some(&viewer));
    let first = activity(&body);
    assert!(first.events.len() == 3 && first.more, "{body}");
    let (_, body) = get(&site, &format!("/api/v1/activity?after={}", first.next), Some(&viewer));
    let rest = activity(&body);
    assert_eq!((rest.events[0].seq, rest.more), (first.next + 1, false));
    assert!(
        rest.events.iter().any(|e| e.code == "rollout_cancelled" && e.by.as_ref().is_some_and(|by| by.starts_with("api token "))),
        "{body}"
    );
    let (status, body) = post(&site, "/api/v1/authorizations", &viewer, "{}");
    assert!(status == 403 && body.contains("api_role_too_low"), "{body}");
    let given = format!("{{\"directors\": [\"{}\"], \"version\": \"2.0.0\"}}", director.report.agent_id);
    let (status, body) = post(&site, "/api/v1/authorizations", &admin, &given);
    assert!(status == 409 && body.contains("nothing_authorized"), "its mode is manual: {body}");
    // With a policy that asks for a person's word, the same call gives it: the parked Director has its order at once.
    let second = site.enroll("site-two");
    second.report();
    site.good(&format!("policy set --director {} --mode auto --method user_action --version 2.0.0", second.report.agent_id));
    let given = format!("{{\"directors\": [\"{}\"], \"version\": \"2.0.0\"}}", second.report.agent_id);
    let (status, body) = post(&site, "/api/v1/authorizations", &admin, &given);
    let view: AuthorizeView = json::from_str(&body.replace("\"director\":", "\"agent\":")).unwrap_or_else(|_| panic!("{status} {body}"));
    assert_eq!((status, view.authorized.len(), view.left_out.len()), (201, 1, 0), "{body}");
    assert_eq!((view.authorized[0].version.as_str(), view.authorized[0].sha256.len()), ("2.0.0", 64), "{body}");
    let order = second.poll().order.unwrap();
    assert_eq!((order.kind.as_str(), &order.sha256), ("update", &view.authorized[0].sha256));
    let (_, body) = get(&site, "/api/v1/activity?limit=200", Some(&viewer));
    let by = |e: &vmetric::director::records::Event| e.by.as_ref().is_some_and(|by| by.starts_with("api token "));
    assert!(activity(&body).events.iter().any(|e| e.code == "authorization_given" && by(e)), "{body}");
    assert_eq!(get(&site, "/api/v1/policy", Some(&viewer)).0, 200);
    assert_eq!(get(&site, "/api/v1/told?limit=1", Some(&viewer)).0, 200);
    site.good("agents --json");
}

#[test]
fn the_api_turns_down_what_is_wrong() {
    let site = Site::fleet();
    let admin = api_token(&site, "admin");
    let key = site.token("");
    for (path, token, status, code) in [
        ("/api/v1/status", None, 401, "api_token_missing"),
        ("/api/v1/status", Some("vma_0"), 401, "api_token_unknown"),
        ("/api/v1/status", Some(key.as_str()), 401, "api_token_unknown"),
        ("/metrics", None, 401, "api_token_missing"),
        ("/api/v1/fly", Some(admin.as_str()), 404, "not_found"),
        ("/api/v1/directors/nobody", Some(&admin), 404, "agent_unknown"),
        ("/api/v1/directors/%ff", Some(&admin), 404, "not_found"),
        ("/api/v1/directors?limit=0", Some(&admin), 400, "bad_request"),
        ("/api/v1/directors?limit=1&limit=1", Some(&admin), 400, "bad_request"),
        ("/api/v1/directors?bogus=1", Some(&admin), 400, "bad_request"),
        ("/api/v1/rollouts/1/cancel", Some(&admin), 405, "method_not_allowed"),
    ] {
        let (got, body) = get(&site, path, token);
        assert!(got == status && body.contains(&format!("\"{code}\"")), "{path}: {got} {body}");
    }
    let deep = "[".repeat(60_000);
    for (path, body, status, code) in [
        ("/api/v1/rollouts", "{}", 400, "bad_request"),
        ("/api/v1/rollouts", "{\"version\": \"1.0.0\"}", 400, "bad_request"),
        ("/api/v1/rollouts", "{\"version\": \"9.9.9\", \"all\": true}", 404, "version_unknown"),
        ("/api/v1/rollouts", "{\"version\": \"1.0.0\", \"all\": true}", 409, "no_agents"),
        ("/api/v1/rollouts", deep.as_str(), 400, "bad_request"),
        ("/api/v1/rollouts/7/retry", "", 404, "rollout_unknown"),
        ("/api/v1/keys", "{\"uses\": -1}", 400, "bad_request"),
        ("/api/v1/status", "", 405, "method_not_allowed"),
    ] {
        let (got, answer) = post(&site, path, &admin, body);
        assert!(got == status && answer.contains(&format!("\"{code}\"")), "{path} {}: {got} {answer}", &body[..body.len().min(60)]);
    }
    let id = site.json::<ApiTokensView>("token list --json").tokens[0].id.clone();
    site.good(&format!("token revoke {id}"));
    assert!(get(&site, "/api/v1/status", Some(&admin)).1.contains("api_token_revoked"));
}

#[test]
fn a_body_of_a_gigabyte_is_turned_down_unread() {
    let site = Site::fleet();
    let admin = api_token(&site, "admin");
    let before = site.peak_kb();
    for path in ["/api/v1/keys", "/fleet/v1/activity", "/fleet/v1/health"] {
        let head = |more: &str| format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin}\r\n{more}\r\n");
        // What says so is refused by its head; what does not, as soon as it is too long.
        let mut giant = site.hostile();
        giant.say(head("content-length: 1073741824\r\n"));
        let (status, body) = giant.status();
        assert!(status == 413 && body.contains("body_too_large"), "{path}: {body}");
        let mut endless = site.hostile();
        endless.say(head("transfer-encoding: chunked\r\n"));
        let piece = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
        let taken = pour(&mut endless, piece.as_bytes(), 16_384);
        assert!(taken < 64 << 20, "{path}: {taken} bytes were taken");
    }
    let more = site.peak_kb() - before;
    assert!(more < MORE_KB, "{more} kB more than before");
    assert_eq!(get(&site, "/api/v1/status", Some(&admin)).0, 200);
}

#[test]
fn the_document_is_served_and_every_reading_path_of_it_answers() {
    let site = Site::fleet();
    let (viewer, admin, director) = (api_token(&site, "viewer"), api_token(&site, "admin"), site.enroll("site-one"));
    let (status, text) = get(&site, "/api/v1/openapi.json", None);
    assert_eq!(status, 200);
    assert!(matches!(json::from_str(&text), Ok(json::Value::Object(_))) && text.contains("\"openapi\":\"3.1.0\""));
    let others: Vec<String> = ["b", "c"].map(|name| format!("--member {}", site.enroll(name).report.agent_id)).into();
    site.good(&format!("cluster create north --member {} {}", director.report.agent_id, others.join(" ")));
    for route in routes::all().filter(|r| r.method == "GET") {
        let path = route.path.replace("{director}", &director.report.agent_id).replace("{cluster}", "north");
        if path.contains("{template}") || path.contains("{confirmation}") || path.ends_with("/agents/explain") {
            continue;
        }
        let looks = route.need.is_none_or(|act| act == vmetric::core::access::Act::Look);
        let (status, body) = get(&site, &path, Some(if looks { &viewer } else { &admin }));
        assert_eq!(status, 200, "{path}: {body}");
    }
}

#[test]
fn prometheus_gathers_from_fleet_and_director() {
    for (site, nodes, token) in [(Site::fleet(), "directors", "token"), (Site::new(), "agents", "api-token")] {
        let node = site.enroll("one");
        node.report();
        let made = site.json::<ApiTokenView>(&format!("{token} create --role viewer --json"));
        let (status, text) = get(&site, "/metrics", Some(&made.token));
        assert_eq!(status, 200, "{text}");
        for line in [
            &format!("vmetric_{nodes}{{version=\"1.0.0\",state=\"idle\"}} 1"),
            &format!("vmetric_{nodes}_online 1"),
            "vmetric_parked_polls 0",
            "vmetric_rollouts{state=\"halted\"} 0",
            "vmetric_updates{outcome=\"updated\"} 0",
            "vmetric_mirror_refresh_failed 0",
            "vmetric_metadata_expiry_seconds{role=\"timestamp\"} ",
        ] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line}\n{text}");
        }
    }
}

#[test]
#[ignore = "needs schemathesis of PyPI: tests/run api"]
fn schemathesis_finds_nothing() {
    let tool = std::env::var("VMETRIC_SCHEMATHESIS").expect("VMETRIC_SCHEMATHESIS: see tests/python/setup-api");
    let site = Site::fleet();
    let admin = api_token(&site, "admin");
    site.enroll("site-one").report();
    let ca = site.bench.path("ca.pem");
    std::fs::write(&ca, get(&site, "/dl/cert.pem", None).1).unwrap();
    let status = std::process::Command::new(tool)
        .arg("run")
        .arg(format!("{}/api/v1/openapi.json", site.url))
        .args(["--header", &format!("Authorization: Bearer {admin}")])
        .arg("--tls-verify")
        .arg(&ca)
        // Whether a version, a file or a Director exists is not in the document, so not all that fits it is accepted.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args([
            "--rate-limit",
            "45/s",
            "--max-examples",
            "25",
            "--generation-deterministic",
            "--no-color",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .current_dir(site.bench.path("."))
        .status()
        .unwrap();
    assert!(status.success(), "schemathesis: {status}");
    // And after all that it serves.
    assert_eq!(get(&site, "/api/v1/status", Some(&admin)).0, 200);
    site.good("status");
}
