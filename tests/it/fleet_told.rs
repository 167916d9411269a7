//! What a real vmetric-fleet knows of a real vmetric-director and its agents, seen through its commands.

use std::time::Duration;

use miniserde::json;
use vmetric::core::product::DIRECTOR;
use vmetric::director::api_tokens::ApiTokenView;
use vmetric::director::uplink::FleetView;
use vmetric::director::views::StatusView;
use vmetric::fleet::intake::Told;
use vmetric::fleet::told::{HealthView, SiteAgentsView};
use vmetric::io::clock;
use vmetric::io::state::State;
use vmetric::io::tls::pin_text;
use vmetric::wire::config::ConfigWire;

use crate::director_bench::Site;
use crate::fleet::get;

/// Longest wait for something that is expected: above the pause that a Director makes after its fifth failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Enrolls a Director at a Fleet, as `vmetric-director enroll` does; its id there.
pub fn join(fleet: &Site, director: &Site) -> String {
    let enrolled = fleet.try_enroll(&fleet.token(""), "site-one").unwrap();
    let config = ConfigWire {
        format: 1,
        director: fleet.url.clone(),
        pins: vec![pin_text(&fleet.pin)],
        agent_id: enrolled.agent_id.clone(),
        credential: enrolled.credential,
        issuer: enrolled.issuer,
        ..Default::default()
    };
    State::open_of(&DIRECTOR, &director.state()).unwrap().write_config(&config).unwrap();
    enrolled.agent_id
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock::monotonic() + PATIENCE;
    while !holds() {
        assert!(clock::monotonic() < end, "{what} did not come");
        vmetric::io::process::sleep(Duration::from_millis(50));
    }
}

fn fleet_of(director: &Site) -> FleetView {
    director.json::<StatusView>("status --json").fleet.unwrap_or_default()
}

fn told(fleet: &Site, line: &str) -> Vec<Told> {
    fleet.good(line).lines().map(|l| json::from_str(l).unwrap_or_else(|_| panic!("{l}"))).collect()
}

#[test]
fn one_update_of_an_agent_is_one_list_at_fleet() {
    let (fleet, mut director) = (Site::fleet(), Site::new());
    let id = join(&fleet, &director);
    until("the first contact", || fleet_of(&director).state == "connected");
    assert!(director.good("status").contains(&format!("as {id}: connected")));

    let mut agent = director.enroll("edge");
    director.good("assign --all --version 2.0.0");
    let order = agent.poll().order.unwrap();
    // Pending from its trigger on.
    let row = |fleet: &Site| fleet.json::<SiteAgentsView>("agents --json").agents.into_iter().next();
    until("the pending version", || row(&fleet).is_some_and(|a| a.scheduled_version.as_deref() == Some("2.0.0")));
    // The Director dies in the middle of it, with events that Fleet has and it does not know of.
    agent.accept(&order);
    agent.step("downloading");
    director.kill();
    director.start();
    agent.report.bytes_done = order.length / 2 + 1;
    agent.update(&order);
    until("completion", || row(&fleet).is_some_and(|a| a.scheduled_version.is_none() && a.version.as_deref() == Some("2.0.0")));
    let a = row(&fleet).unwrap();
    assert_eq!((a.director.as_str(), a.id.as_str(), a.state.as_deref()), (id.as_str(), agent.report.agent_id.as_str(), Some("updated")));

    // From trigger to end, in order, once, by one id.
    until("the end", || fleet.good(&format!("activity --told --director {id} --json")).contains("\"confirmed\""));
    let all = told(&fleet, &format!("activity --told --director {id} --json"));
    let update = all.iter().find(|e| e.code == "update_triggered").and_then(|e| e.update.clone()).unwrap();
    let line = told(&fleet, &format!("activity --update {update} --json"));
    let codes: Vec<&str> = line.iter().map(|e| e.code.as_str()).collect();
    let expected = [
        "update_triggered",
        "order_accepted",
        "download_started",
        "download_completed",
        "signature_verified",
        "deployment_started",
        "trial_started",
        "confirmed",
    ];
    let main: Vec<&str> = codes.iter().copied().filter(|c| *c != "download_progress").collect();
    assert_eq!(main, expected, "{codes:?}");
    let signature = line.iter().find(|e| e.code == "signature_verified").unwrap();
    assert!(signature.detail.contains("build key ") && signature.detail.contains("role agent-linux-amd64"), "{}", signature.detail);
    let own = director.good(&format!("activity --update {update} --json"));
    assert_eq!(own.lines().count(), line.len(), "the Director's own list is the same");
    assert!(fleet.good(&format!("activity --update {update}")).contains("update_triggered"));

    // Health has the specification's words; what is absent is absent.
    let text = fleet.good("health --json");
    let health: HealthView = json::from_str(text.lines().next().unwrap()).unwrap();
    let h = health.health.unwrap();
    assert_eq!((h.os.as_str(), h.scheduled_version), (std::env::consts::OS, None));
    // What the thread that updates the Director itself says of it.
    assert_eq!((h.step.as_deref(), h.running_as.as_deref(), h.clock.as_deref()), (Some("idle"), Some("factory"), Some("ok")), "{text}");
    assert!(h.metadata.unwrap()[0].timestamp_expires.is_some() && h.disk_free.is_some(), "{text}");
    assert!(fleet.good("health").contains("MiB free") && fleet.good("agents").contains("updated"));
}

#[test]
fn fleet_away_is_shown_and_the_site_goes_on() {
    let (mut fleet, director) = (Site::fleet(), Site::new());
    let id = join(&fleet, &director);
    let mut agent = director.enroll("edge");
    until("the first contact", || fleet_of(&director).state == "connected");
    let token = director.json::<ApiTokenView>("api-token create --role viewer --json").token;
    let metrics = || get(&director, "/metrics", Some(&token)).1;
    assert!(metrics().contains("\nvmetric_fleet_connected 1\n"), "{}", metrics());
    fleet.kill();
    until("the loss", || fleet_of(&director).state == "unreachable");
    assert!(metrics().contains("\nvmetric_fleet_connected 0\n"), "{}", metrics());
    let shown = |status: String| status.contains("UNREACHABLE since") && status.contains("events wait");
    until("the loss in the status", || shown(director.good("status")));
    // Roll-outs go on meanwhile.
    director.good("assign --all --version 2.0.0");
    let order = agent.poll().order.unwrap();
    agent.update(&order);
    fleet.start();
    until("everything", || fleet.good(&format!("activity --told --director {id} --json")).contains("\"fleet_back\""));
    let all = told(&fleet, &format!("activity --told --director {id} --limit 1000 --json"));
    let seqs: Vec<u64> = all.iter().filter_map(|e| e.seq).collect();
    assert!(seqs.windows(2).all(|w| w[0] + 1 == w[1]) && seqs[0] == 0, "{seqs:?}");
    for code in ["fleet_unreachable", "confirmed", "fleet_back"] {
        assert_eq!(all.iter().filter(|e| e.code == code).count(), 1, "{code}");
    }
}

#[test]
fn settings_are_pushed_to_the_parked_poll_and_in_force_at_the_director() {
    let (fleet, director) = (Site::fleet(), Site::new());
    // Any Director that waits is told, once.
    let other = fleet.enroll("site-two");
    other.report();
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| {
            let waiting = crate::director_bench::FakeAgent {
                http: fleet.http(),
                url: fleet.url.clone(),
                credential: other.credential.clone(),
                report: other.report.clone(),
            };
            waiting.poll()
        });
        until("a parked poll", || fleet.good("status").contains("1 polls parked"));
        fleet.good("policy set --agents --mode auto --method user_action");
        assert_eq!(poll.join().unwrap().settings_revision, Some(1));
    });
    assert_eq!(other.report().settings_revision, None, "told once");
    // A real one fetches them, keeps them, and has them in force.
    join(&fleet, &director);
    until("the settings", || fleet_of(&director).settings_revision == Some(1));
    assert!(director.good("activity").contains("settings_received"));
    // The next ones come long before its next health.
    let revision = |fleet: &Site| fleet.good("policy set --agents --method immediate").len();
    assert!(revision(&fleet) > 0);
    until("the next settings", || fleet_of(&director).settings_revision == Some(2));
}
