//! A cluster's pages: what they tell while members come and go, and the acts with what they cost.

use vmetric::core::cluster::member::SILENT_S;
use vmetric::core::rollout::OFFLINE_AFTER_S;
use vmetric::director::api_tokens::ApiTokenView;
use vmetric::director::policing::clusters::ClustersView;
use vmetric::director::records::Agent;
use vmetric::director::store::{Change, Store, Table};
use vmetric::io::clock;
use vmetric::wire::agent_api::OrderWire;

use crate::access::{add, ask, form, log_in};
use crate::director_bench::{FakeAgent, Site};
use crate::gui::{Stream, csrf, get};

const PAGE: &str = "/fleet-management/clusters/north";

/// A Fleet with an owner and a cluster of three whose members were heard of.
fn north() -> (Site, String, Vec<FakeAgent>) {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    let session = log_in(&site, "anna");
    let members: Vec<FakeAgent> = ["harbour", "hillside", "quay"].iter().map(|name| site.enroll(name)).collect();
    members.iter().for_each(|m| drop(m.report()));
    let named: Vec<String> = members.iter().map(|m| format!("--member {}", m.report.agent_id)).collect();
    site.good(&format!("cluster create north {}", named.join(" ")));
    (site, session, members)
}

/// Whoever was ordered first, with the order.
fn ordered(members: &mut [FakeAgent]) -> (usize, OrderWire) {
    let found = members.iter().enumerate().find_map(|(at, member)| Some((at, member.report().order?)));
    found.expect("one of them is ordered")
}

#[test]
fn a_failed_member_is_told_at_the_top_by_every_door() {
    let (site, session, mut members) = north();
    let list = get(&site, &session, "/fleet-management/clusters").body;
    assert!(list.contains("3 up 0 down") && list.contains("Majority up") && list.contains("Ready"), "{list}");
    let page = get(&site, &session, PAGE).body;
    assert!(page.contains("Nobody has it") && !page.contains("class=\"note") && page.contains("Not looked at yet"), "{page}");
    let mut stream = Stream::open(&site, &session, PAGE);
    stream.until("event: region");

    site.good("assign --all --version 2.0.0");
    let (at, order) = ordered(&mut members);
    let factory = members[(at + 1) % 3].report.running_sha256.clone();
    let member = &mut members[at];
    member.accept(&order);
    for step in ["downloading", "staged", "switching"] {
        member.step(step);
    }
    member.on_trial(&order);
    member.report();
    stream.until("Is being updated");
    (member.report.version, member.report.running, member.report.running_as) = ("1.0.0".into(), "factory".into(), "factory".into());
    member.ends(&order, "rolled_back", "r1");
    let result = member.report.result.as_mut().unwrap();
    (result.code, result.detail) = ("check_failed".into(), "the licence server is gone".into());
    (result.running_version, member.report.running_sha256) = ("1.0.0".into(), factory);
    let (name, id) = (members[at].report.hostname.clone(), members[at].report.agent_id.clone());
    members[at].report();
    // It comes by itself, to who looks.
    stream.until("data-code=\\\"cluster_halted\\\"");
    stream.until("the licence server is gone");

    let page = get(&site, &session, PAGE).body;
    let (before, rest) = page.split_once("data-code=\"cluster_halted\"").unwrap();
    let note = rest.split_once("</div>").unwrap().0;
    assert!(note.contains(&format!("{name} failed its update")) && note.contains("the licence server is gone"), "{note}");
    assert!(!note.contains(&id) && note.contains("Resume updates") && !before.contains("<table"), "{note}");
    assert!(get(&site, &session, "/fleet-management/clusters").body.contains("Halted"));
    let token = site.json::<ApiTokenView>("token create --role viewer --json").token;
    let bearer = format!("authorization: Bearer {token}\r\nconnection: close\r\n");
    let api = ask(&site, "GET", "/api/v1/clusters/north", &bearer, "").body;
    for word in ["\"code\":\"cluster_halted\"", "\"stopped\":\"halted\"", &id, "the licence server is gone", "\"state\":\"failed\""] {
        assert!(api.contains(word), "{word}: {api}");
    }
    // The others stay; a person goes on.
    let waiting = members.iter().enumerate().filter(|(n, _)| *n != at).any(|(_, m)| m.report().order.is_some());
    assert!(!waiting, "nobody follows");
    let cookie = format!("cookie: __Host-session={session}\r\n");
    let done = form(&site, &format!("{PAGE}/resume"), &cookie, &format!("csrf={}", csrf(&get(&site, &session, PAGE))));
    assert_eq!(done.status, 303, "{}", done.body);
    let page = get(&site, &session, PAGE).body;
    assert!(!page.contains("cluster_halted") && page.contains("The next member may go"), "{page}");
}

#[test]
fn stops_ask_and_an_exception_says_first_what_it_costs() {
    let (site, session, members) = north();
    let cookie = format!("cookie: __Host-session={session}\r\n");
    let token = csrf(&get(&site, &session, PAGE));
    let send = |act: &str, more: &str| form(&site, &format!("{PAGE}/{act}"), &cookie, &format!("csrf={token}&{more}"));
    let mut stream = Stream::open(&site, &session, PAGE);
    stream.until("event: region");
    assert_eq!(send("pause", "reason=lunch+%3Cb%3E").status, 303);
    stream.until("paused by anna: lunch &lt;b&gt;");
    assert!(get(&site, &session, PAGE).body.contains("Abort updates"));
    assert_eq!(send("abort", "reason=another+version").status, 303);
    let page = get(&site, &session, PAGE).body;
    assert!(
        page.contains("ended by anna: another version") && !page.contains("Abort updates") && page.contains("Resume updates"),
        "{page}"
    );
    assert_eq!(send("resume", "").status, 303);

    let (one, two) = (&members[0].report.agent_id, &members[1].report.agent_id);
    let cost = send("override", &format!("director={one}&reason=ship+sails"));
    assert_eq!(cost.status, 200);
    let said =
        format!("ithout harbour, 2 of 3 members of cluster {}north{} are healthy; a majority is 2: the quorum is kept", "&#39;", "&#39;");
    assert!(cost.body.contains(&said) && cost.body.contains("value=\"ship sails\""), "{}", cost.body);
    let audit = || site.good("audit --limit 1000");
    assert!(!audit().contains("force=yes"), "nothing was done yet");
    assert_eq!(send("override", &format!("director={one}&reason=ship+sails&force=on")).status, 303);
    assert!(get(&site, &session, PAGE).body.contains("harbour may go within the hour"));
    assert!(audit().contains("OverrideCluster"), "{}", audit());
    // A member that is none.
    assert_eq!(send("override", "director=nobody").status, 303);
    assert!(get(&site, &session, PAGE).body.contains("nobody"));

    // A contributor pauses, and makes no exception; a viewer does neither.
    for (name, role, pause, except) in
        [("ben", "contributor", true, false), ("cleo", "viewer", false, false), ("dora", "admin", true, true)]
    {
        add(&site, name, role);
        let page = get(&site, &log_in(&site, name), PAGE).body;
        assert_eq!((page.contains("Pause updates"), page.contains("Override")), (pause, except), "{role}");
    }
    // The API's door to the same.
    let token = site.json::<ApiTokenView>("token create --role admin --json").token;
    let bearer = format!("authorization: Bearer {token}\r\nconnection: close\r\n");
    let asked = |body: String| ask(&site, "POST", "/api/v1/clusters/north/override", &bearer, &body);
    let cost = asked(format!("{{\"director\":\"{two}\"}}"));
    assert!(cost.status == 409 && cost.body.contains("quorum_cost"), "{} {}", cost.status, cost.body);
    let done = asked(format!("{{\"director\":\"{two}\",\"force\":true,\"reason\":\"by a program\"}}"));
    assert_eq!(done.status, 200, "{}", done.body);
}

#[test]
fn a_director_says_what_people_called_its_key() {
    let (site, session, _) = north();
    let key = site.token("--label quayside");
    let id = site.try_enroll(&key, "crane").unwrap().agent_id;
    for path in ["/fleet-management/directors".to_string(), format!("/fleet-management/directors/{id}")] {
        let page = get(&site, &session, &path).body;
        assert!(page.contains("quayside"), "{path}: {page}");
    }
    assert!(get(&site, &session, "/fleet-management/directors?q=quayside").body.contains("crane"));
    assert!(site.good("directors --json").contains("\"label\":\"quayside\""));
}

/// Fleet starts again, and heard this member last so many seconds ago.
fn heard_last(site: &mut Site, member: &FakeAgent, seconds: u64) {
    site.kill();
    let store = Store::open(&site.state().join("fleet.redb")).unwrap();
    let (key, row) = store.load::<Agent>(Table::Agents).unwrap().into_iter().find(|(_, row)| row.id == member.report.agent_id).unwrap();
    let row = Agent { last_contact: clock::unix() - seconds, ..row };
    store.queue(vec![Change { table: Table::Agents, key, value: Some(miniserde::json::to_string(&row)) }]);
    smol::block_on(store.commit()).unwrap();
    drop(store);
    site.start();
}

#[test]
fn a_member_that_falls_silent_is_down_at_every_door_and_says_since_when() {
    let (mut site, session, members) = north();
    let bearer =
        format!("authorization: Bearer {}\r\nconnection: close\r\n", site.json::<ApiTokenView>("token create --role viewer --json").token);
    let (silent, others) = members.split_last().unwrap();
    let (id, name) = (&silent.report.agent_id, &silent.report.hostname);
    // Another cluster that is well stays so.
    let south: Vec<FakeAgent> = ["dock", "mole", "pier"].iter().map(|name| site.enroll(name)).collect();
    let named: Vec<String> = south.iter().map(|m| format!("--member {}", m.report.agent_id)).collect();
    site.good(&format!("cluster create south {}", named.join(" ")));
    // Not heard of for three healths, and then long enough to be shown as offline as well.
    for seconds in [SILENT_S + 30, OFFLINE_AFTER_S + 30] {
        heard_last(&mut site, silent, seconds);
        others.iter().chain(&south).for_each(|m| drop(m.report()));
        let down = format!("{} is silent since", &name[1..]);
        let list = get(&site, &session, "/fleet-management/clusters").body;
        assert!(list.contains("2 up 1 down") && list.contains("Majority up") && list.contains("Waits"), "{seconds}: {list}");
        for status in ["down", "attention"] {
            let found = get(&site, &session, &format!("/fleet-management/clusters?status={status}")).body;
            assert!(found.contains("2 up 1 down") && !found.contains("3 up 0 down"), "{seconds}: {status}: {found}");
        }
        let page = get(&site, &session, PAGE).body;
        let note = page.split_once("data-code=\"cluster_member_silent\"").unwrap_or_else(|| panic!("{page}")).1;
        assert!(note.split_once("</div>").unwrap().0.contains(&down) && page.contains("2 up 1 down"), "{seconds}: {page}");
        let row = page.split("<tr id=\"m-").find(|row| row.contains(&format!(">{name}</a>"))).unwrap();
        assert!(row.contains("Silent") && !row.contains("Unknown"), "{seconds}: {row}");

        let api = ask(&site, "GET", "/api/v1/clusters/north", &bearer, "").body;
        for word in ["\"status\":\"2 up 1 down\"", "\"quorum\":true", "\"code\":\"cluster_member_silent\"", "\"state\":\"silent\""] {
            assert!(api.contains(word), "{seconds}: {word}: {api}");
        }
        let view = site.json::<ClustersView>("cluster show north --json").clusters.remove(0);
        let member = view.members.iter().find(|m| m.id == *id).unwrap();
        let why = member.detail.clone().unwrap_or_default();
        assert!(view.detail == why && why.contains(&format!("{id} is silent since")) && member.since.is_some(), "{why}");
        assert_eq!(view.members.iter().filter(|m| m.state == "healthy").count(), 2);
        let shown = site.good("cluster show north");
        assert!(shown.lines().next().unwrap().ends_with("2 up 1 down") && shown.contains(&why), "{seconds}: {shown}");
        let listed = site.good("cluster list");
        assert!(listed.contains("2 up 1 down") && listed.contains(&format!("{id} (down)")) && listed.contains("3 up 0 down"), "{listed}");
    }
    // Heard again, it is up.
    members.iter().for_each(|m| drop(m.report()));
    let list = get(&site, &session, "/fleet-management/clusters").body;
    assert!(list.contains("3 up 0 down") && !list.contains("1 down"), "{list}");
    assert!(!get(&site, &session, PAGE).body.contains("silent"));
}

#[test]
fn a_version_that_came_after_the_page_was_made_is_not_confirmed_unseen() {
    let (site, session, members) = north();
    site.good("policy set --default --mode auto --method user_action");
    let cookie = format!("cookie: __Host-session={session}\r\n");
    let page = get(&site, &session, "/updates");
    assert!(page.body.contains("name=\"version\" value=\"2.0.0\"") && page.body.contains("Confirm all 3"), "{}", page.body);
    site.add("3.0.0");
    site.publish();
    site.good("mirror");
    let (token, id) = (csrf(&page), &members[0].report.agent_id);
    let cluster = site.json::<ClustersView>("cluster show north --json").clusters.remove(0).id;
    let send = |fields: &str| form(&site, "/updates", &cookie, &format!("csrf={token}&ttl=3600&{fields}"));
    let before = site.good("activity --limit 1000 --json");
    // One, the cluster, and all: as the page that was loaded before sends it; and one that names no version at all.
    for fields in
        [format!("version=2.0.0&director={id}"), format!("version=2.0.0&cluster={cluster}"), "version=2.0.0&all=1".into(), "all=1".into()]
    {
        let heard = send(&fields);
        let says = "Version 3.0.0 came after this page was made, and nothing was confirmed";
        assert!(heard.status == 422 && heard.body.contains(says) && heard.body.contains("value=\"3.0.0\""), "{fields}: {}", heard.body);
    }
    members.iter().for_each(|m| assert!(m.report().order.is_none(), "nothing was confirmed"));
    let after = site.good("activity --limit 1000 --json");
    assert!(!after.contains("authorization_given") && !after.contains("\"ordered\""), "{before}\n{after}");
    assert!(!site.good("audit --limit 1000").contains("Authorize"));
    // The page that shows it confirms it.
    let shown = get(&site, &session, "/updates");
    assert!(shown.body.contains("name=\"version\" value=\"3.0.0\""), "{}", shown.body);
    let done = send(&format!("version=3.0.0&director={id}"));
    assert_eq!(done.status, 303, "{}", done.body);
    assert_eq!(members[0].report().order.expect("an order").version, "3.0.0");
}
