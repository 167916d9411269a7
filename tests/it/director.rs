//! The Director as a process: enroll, push, acknowledge, results, restarts.

use std::time::Duration;

use vmetric::core::hex;
use vmetric::director::records::Event;
use vmetric::io::clock;
use vmetric::wire::agent_api::OrderWire;

use crate::director_bench::{Site, agent_file};

/// A push over a parked poll takes milliseconds; a busy test machine gets some more.
const PUSH_MAX: Duration = Duration::from_secs(2);

#[test]
fn an_update_from_the_order_to_the_end() {
    let site = Site::new();
    let mut agent = site.enroll("Edge 1\u{7}");
    assert!(agent.report.agent_id.starts_with("edge1-"), "{}", agent.report.agent_id);
    let answer = agent.report();
    assert!(answer.order.is_none() && answer.timestamp_version > 0);

    // The order is pushed to the parked poll.
    let order = std::thread::scope(|scope| {
        let poll = scope.spawn(|| {
            let http = site.http();
            let parked = crate::director_bench::FakeAgent {
                http,
                url: site.url.clone(),
                credential: agent.credential.clone(),
                report: agent.report.clone(),
            };
            let answer = parked.poll();
            (answer, clock::monotonic())
        });
        wait_for("a parked poll", || site.good("status").contains("1 polls parked"));
        let asked = clock::monotonic();
        let said = site.good("assign --all --version latest");
        assert!(said.contains("version 2.0.0 for 1 agent(s), 1 told now"), "{said}");
        let (answer, at) = poll.join().unwrap();
        assert!(at - asked < PUSH_MAX, "{:?}", at - asked);
        answer.order.unwrap()
    });
    assert_eq!((order.kind.as_str(), order.generation, order.contact_deadline_s), ("update", 1, 300));
    assert_eq!(order.sha256, hex::encode(&hex::sha256(&agent_file("2.0.0"))));
    let view = site.view(&agent);
    assert_eq!((view.state.as_str(), view.owner.as_deref(), view.scheduled_version.as_deref()), ("ordered", Some("agent"), Some("2.0.0")));
    assert!(view.deadline.is_some());

    agent.accept(&order);
    agent.report.bytes_done = order.length / 2;
    assert!(agent.step("downloading").order.is_none(), "it has the order");
    assert!(site.good("agents").contains("downloading 49%") || site.good("agents").contains("downloading 50%"));
    agent.step("staged");
    agent.step("switching");
    agent.on_trial(&order);
    assert_eq!(agent.poll().acknowledged, agent.report.trial_nonce, "a trial's poll is answered at once");
    assert_eq!(site.view(&agent).state, "trial");
    agent.ends(&order, "updated", "r1");
    assert_eq!(agent.poll().result_taken.as_deref(), Some("r1"));
    let view = site.view(&agent);
    assert_eq!((view.state.as_str(), view.scheduled_version, view.version.as_str()), ("updated", None, "2.0.0"));
    wait_for("the roll-out's end", || site.rollout(1).state == "done");

    // The same result again changes nothing.
    let before = site.codes(&agent);
    assert_eq!(agent.report().result_taken.as_deref(), Some("r1"));
    assert_eq!(site.codes(&agent), before);
    let expected = [
        "enrolled",
        "update_triggered",
        "order_accepted",
        "download_started",
        "download_progress",
        "download_progress",
        "download_completed",
        "signature_verified",
        "deployment_started",
        "trial_started",
        "confirmed",
    ];
    // Half of the file may be rounded below 50 %.
    let codes: Vec<&str> = before.iter().map(String::as_str).collect();
    let short: Vec<&str> = expected.iter().copied().enumerate().filter(|(i, _)| *i != 5).map(|(_, c)| c).collect();
    assert!(codes == expected || codes == short, "{codes:?}");
}

#[test]
fn nothing_is_lost_when_the_director_dies() {
    let mut site = Site::new();
    let mut agent = site.enroll("edge");
    agent.report();
    site.good("assign --all --version 2.0.0");
    // The order was promised: it is there after SIGKILL, and so is the agent.
    site.kill();
    site.start();
    let order = agent.report().order.unwrap();
    agent.accept(&order);
    agent.step("downloading");

    // A Director that was restarted in the middle of a trial acknowledges it.
    agent.on_trial(&order);
    site.kill();
    site.start();
    assert_eq!(agent.report().acknowledged, agent.report.trial_nonce);

    // A result that was taken is still there; one that was not answered is sent again.
    agent.ends(&order, "updated", "r1");
    assert_eq!(agent.report().result_taken.as_deref(), Some("r1"));
    site.kill();
    site.start();
    assert_eq!(agent.report().result_taken.as_deref(), Some("r1"));
    assert_eq!(site.view(&agent).state, "updated");
    assert_eq!(site.codes(&agent).iter().filter(|c| *c == "confirmed").count(), 1);
    wait_for("the roll-out's end", || site.rollout(1).state == "done");

    // The next order is above the last one.
    site.good("assign --all --version 1.0.0");
    assert!(agent.report().order.unwrap().generation > order.generation);
}

#[test]
fn an_orderly_stop_answers_parked_polls() {
    let mut site = Site::new();
    let agent = site.enroll("edge");
    std::thread::scope(|scope| {
        let poll = scope.spawn({
            let parked = crate::director_bench::FakeAgent {
                http: site.http(),
                url: site.url.clone(),
                credential: agent.credential.clone(),
                report: agent.report.clone(),
            };
            move || parked.poll()
        });
        wait_for("a parked poll", || site.good("status").contains("1 polls parked"));
        assert_eq!(site.stop(), Some(0));
        assert!(poll.join().unwrap().order.is_none());
    });
    let error = site.bad("agents");
    assert!(error.contains("no Director runs with the state folder"), "{error}");
    site.start();
    assert_eq!(site.view(&agent).hostname, "edge");
}

#[test]
fn tokens() {
    let site = Site::new();
    let token = site.token("--uses 2");
    assert_eq!(site.try_enroll("vmt_nothing", "a").unwrap_err(), (401, "token_unknown".into()));
    let first = site.try_enroll(&token, "a").unwrap();
    let second = site.try_enroll(&token, "a").unwrap();
    assert_ne!(first.agent_id, second.agent_id, "a host name is not an identity");
    assert_eq!(site.try_enroll(&token, "a").unwrap_err(), (403, "token_used_up".into()));
    let short = site.token("--ttl 1s");
    wait_for("the token's end", || site.try_enroll(&short, "b").is_err_and(|e| e == (403, "token_expired".into())));
    let out = site.good("token create");
    assert!(out.contains("vmetric-agent enroll --director https://127.0.0.1:") && out.contains("--pin sha256:"), "{out}");
}

#[test]
fn cancel_remove_and_follow() {
    let site = Site::new();
    let mut agent = site.enroll("edge");
    agent.report();
    let mut follow = std::process::Command::new(env!("CARGO_BIN_EXE_vmetric-director"))
        .args(["activity", "--follow", "--json", "--state"])
        .arg(site.state())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().unwrap()));

    site.good("assign --all --version 2.0.0");
    let order = agent.report().order.unwrap();
    agent.accept(&order);
    agent.step("downloading");
    site.good("cancel --rollout 1");
    let cancel: OrderWire = agent.report().order.unwrap();
    assert_eq!((cancel.kind.as_str(), cancel.generation), ("cancel", order.generation + 1));
    assert_eq!((site.rollout(1).state.as_str(), site.view(&agent).state.as_str()), ("cancelled", "cancelled"));
    agent.accept(&cancel);
    agent.ends(&cancel, "cancelled", "c1");
    let answer = agent.report();
    assert_eq!((answer.result_taken.as_deref(), answer.order.is_none()), (Some("c1"), true));
    agent.report.result = None;

    // After a cancel the next assignment is an ordinary one.
    site.good(&format!("assign --agent {} --version 2.0.0", agent.report.agent_id));
    let order = agent.report().order.unwrap();
    agent.update(&order);
    wait_for("the roll-out's end", || site.rollout(2).state == "done");

    assert!(site.bad("cancel --rollout 9").contains("rollout_unknown"));
    assert!(site.bad("assign --all --version 9.9.9").contains("it has 2.0.0, 1.0.0"));
    site.good(&format!("remove-agent {}", agent.report.agent_id));
    let (status, body) = agent.send("report");
    assert!(status == 401 && body.contains("agent_removed"), "{body}");
    let codes: Vec<String> =
        lines.map(|l| miniserde::json::from_str::<Event>(&l.unwrap()).unwrap().code).take_while(|c| c != "removed").collect();
    for code in ["rollout_created", "update_triggered", "cancel_issued", "rollout_cancelled", "confirmed", "rollout_done"] {
        assert!(codes.iter().any(|c| c == code), "{code} in {codes:?}");
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn new_releases_are_mirrored_and_a_tampered_one_is_not() {
    let site = Site::new();
    let agent = site.enroll("edge");
    agent.report();
    site.add("2.1.0");
    site.publish();
    assert!(site.good("mirror").contains("2.1.0, 2.0.0, 1.0.0"));
    site.good("assign --all --version latest");
    assert_eq!(agent.report().order.unwrap().version, "2.1.0");

    // Only what somebody may take is fetched, and then it is seen.
    site.good("policy set --default --mode auto --method user_action");
    site.add("2.2.0");
    site.publish();
    let file = site.bench.published_artifact("2.2.0");
    let name = file.strip_prefix(site.bench.path("")).unwrap().to_str().unwrap().to_string();
    site.bench.write(&name, b"not what was signed");
    let refused = site.bad("mirror");
    assert!(refused.contains("2.2.0") && refused.contains("file_too_short"), "{refused}");
    let view: vmetric::director::releases::ReleasesView = site.json("releases --json");
    let here = |v: &str| view.releases.iter().any(|r| r.version == v && r.away.is_none());
    assert!(!here("2.2.0") && here("2.1.0"), "what is good is served on");
}

#[test]
fn a_damaged_store_is_named_and_not_touched() {
    let mut site = Site::new();
    site.enroll("edge");
    assert_eq!(site.stop(), Some(0));
    let store = site.state().join("director.redb");
    let good = std::fs::read(&store).unwrap();
    let put = |bytes: &[u8]| std::fs::File::create(&store).and_then(|mut f| std::io::Write::write_all(&mut f, bytes)).unwrap();
    let (root, public) = (site.bench.path("release/root.json"), site.bench.path("public"));
    let line = format!("run --listen 127.0.0.1:0 --mirror {} --root {}", public.display(), root.display());
    // Nonsense, cut off, empty, and a page of the tree that is not one any more.
    let mut page = good.clone();
    page[4096..12_288].fill(0x5a);
    for bytes in [vec![0x5a; 100_000], good[..5_000].to_vec(), Vec::new(), page] {
        put(&bytes);
        let ended = site.run(&line);
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains("director.redb is damaged") && ended.err.contains("backup"), "{}", ended.err);
    }
    put(&good);
    site.start();
}

/// Asks again until it is so; a Director that never gets there is the failure.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = clock::monotonic() + Duration::from_secs(20);
    while !holds() {
        assert!(clock::monotonic() < until, "{what} did not come");
    }
}
