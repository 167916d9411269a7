//! The web GUI of the real Fleet: every page for every role, hostile names, forms without script, live regions, sizes.

mod costs;

use std::io::Read;
use std::time::Duration;

use miniserde::json;
use vmetric::core::access::{Role, permits};
use vmetric::fleet::gui::page::CSP;
use vmetric::fleet::gui::routes::{self, Route};
use vmetric::io::clock;
use vmetric::wire::agent_api::PROTOCOL;
use vmetric::wire::fleet_api::{AgentRowWire, HealthWire, InstallWire, PAGE_MAX, PageWire};

use crate::access::{Heard, add, ask, form, log_in};
use crate::director_bench::{FakeAgent, Site, agent_file};

/// The goal for a page, bytes.
const PAGE_BYTES: usize = 100_000;
/// What a Director may call itself and its agents.
const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ if x }}";
const LIMIT: Duration = Duration::from_secs(20);

pub fn get(site: &Site, session: &str, path: &str) -> Heard {
    ask(site, "GET", path, &format!("cookie: __Host-session={session}\r\n"), "")
}

/// A Director that tells of so many agents.
fn tell(director: &FakeAgent, agents: impl Iterator<Item = AgentRowWire>) {
    tell_with(director, agents, None);
}

pub fn tell_with(director: &FakeAgent, agents: impl Iterator<Item = AgentRowWire>, install: Option<&InstallWire>) {
    let rows: Vec<AgentRowWire> = agents.collect();
    let pages: Vec<&[AgentRowWire]> = rows.chunks(PAGE_MAX).collect();
    let (mut sum, mut count) = (0_u64, 0);
    for (at, page) in pages.iter().enumerate() {
        sum = page.iter().fold(sum, |sum, row| sum.wrapping_add(row.sum));
        count += page.len() as u64;
        let part = match (at == 0, at + 1 == pages.len()) {
            (true, true) => "only",
            (true, false) => "first",
            (false, false) => "more",
            (false, true) => "last",
        };
        let inventory = Some(PageWire { part: part.into(), rows: Some(page.to_vec()), gone: None, sum, count });
        let wire = HealthWire {
            protocol: PROTOCOL,
            version: director.report.version.clone(),
            os: "linux".into(),
            architecture: "amd64".into(),
            mirror_error: Some(EVIL.into()),
            inventory,
            install: install.cloned(),
            ..Default::default()
        };
        let reply = director.http.post_json(
            &format!("{}/fleet/v1/health", director.url),
            Some(&director.credential),
            &json::to_string(&wire),
            1 << 16,
            LIMIT,
        );
        let reply = reply.unwrap();
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    }
}

pub fn row(n: usize, name: &str) -> AgentRowWire {
    AgentRowWire {
        id: format!("agent-{n:05}"),
        hostname: Some(name.into()),
        version: Some(if n.is_multiple_of(3) { "2.0.0" } else { "1.0.0" }.into()),
        architecture: Some("amd64".into()),
        os: Some("linux".into()),
        state: Some("rolled_back".into()),
        code: Some("self_check_failed".into()),
        detail: Some(EVIL.into()),
        online: Some(true),
        last_contact: Some(clock::unix()),
        sum: n as u64 + 1,
        ..Default::default()
    }
}

/// What a Director tells for install commands.
pub fn install_wire() -> InstallWire {
    InstallWire {
        url: "https://site.test:8443".into(),
        pin: format!("sha256:{}", "ab".repeat(32)),
        certificates_sha256: "cd".repeat(32),
        root_version: 1,
        root_sha256: "ef".repeat(32),
    }
}

/// A Fleet with an owner, a Director with hostile words and its agent, and a roll-out.
pub fn world() -> (Site, String, FakeAgent) {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    let session = log_in(&site, "anna");
    let mut director = site.enroll(EVIL);
    director.report.detail = EVIL.into();
    director.report.code = "waiting".into();
    director.report();
    tell(&director, [row(0, EVIL)].into_iter());
    site.good("assign --all --version 2.0.0");
    (site, session, director)
}

/// A route's address in this world; pages of one thing are of those that are there.
pub fn address(route: &Route, director: &FakeAgent) -> String {
    let id = &director.report.agent_id;
    route.path.replace("{director}", id).replace("{agent}", "agent-00000").replace("{os}", "linux").replace("{rollout}", "1")
}

pub fn pages(director: &FakeAgent) -> Vec<String> {
    let looks = routes::all().filter(|r| r.method == "GET" && r.id != "live");
    let mut out: Vec<String> = looks.map(|r| address(r, director)).filter(|path| !path.contains('{')).collect();
    let evil = "%3Cscript%3Ealert(1)%3C/script%3E%22%27%3E%3Cimg%20src=x%20onerror=alert(2)%3E";
    for path in ["/fleet-management/directors", "/devices/linux", "/activity", "/organization/audit"] {
        out.extend(["q", "status", "period", "page", "after", "user", "director", "size"].map(|field| format!("{path}?{field}={evil}")));
    }
    out
}

#[test]
fn every_page_is_whole_small_and_takes_nothing_from_elsewhere() {
    let (site, session, director) = world();
    for path in pages(&director) {
        let heard = get(&site, &session, &path);
        assert!(matches!(heard.status, 200 | 303 | 400 | 404 | 409), "{path}: {} {}", heard.status, heard.body);
        assert!(heard.status != 400 || path.contains('?'), "{path}: {}", heard.body);
        assert!(heard.body.len() < PAGE_BYTES, "{path}: {} bytes", heard.body.len());
        assert_eq!(heard.header("content-security-policy").as_deref(), Some(CSP), "{path}");
        assert_eq!(heard.header("x-content-type-options").as_deref(), Some("nosniff"), "{path}");
        if !heard.header("content-type").unwrap_or_default().starts_with("text/html") {
            continue;
        }
        assert!(heard.body.starts_with("<!doctype html>") && heard.body.contains("<h1"), "{path}: {}", heard.body);
        for forbidden in ["<script>", "<img", "onerror=alert(2)>", "style=\"", "<style", " onclick", "src=\"http", "href=\"http", "url("] {
            assert!(!heard.body.contains(forbidden), "{path} holds {forbidden}");
        }
    }
}

#[test]
fn a_role_sees_what_it_may() {
    let (site, _, director) = world();
    for role in Role::ALL {
        let name = format!("one.{role}");
        add(&site, &name, role.word());
        let session = log_in(&site, &name);
        for route in routes::all().filter(|r| r.method == "GET" && r.id != "live") {
            let path = address(route, &director);
            if path.contains('{') {
                continue;
            }
            let heard = get(&site, &session, &path);
            let may = permits(role, route.need).is_ok();
            assert_eq!(heard.status != 403, may, "{role} {path}: {} {}", heard.status, heard.body);
        }
        let detail = get(&site, &session, &format!("/fleet-management/directors/{}", director.report.agent_id)).body;
        assert_eq!(detail.contains("action=\"/fleet-management/directors/"), role != Role::Viewer, "{role}");
        assert_eq!(detail.contains("href=\"/organization/audit\""), role >= Role::Admin, "{role}");
    }
    // Nobody is led to the login, and back from there.
    let nobody = ask(&site, "GET", "/devices/linux?q=a", "", "");
    assert_eq!((nobody.status, nobody.header("location").unwrap().as_str()), (303, "/login?next=/devices/linux%3Fq%3Da"));
}

/// The token of the forms of a page.
pub fn csrf(page: &Heard) -> String {
    page.body.split_once("name=\"csrf\" value=\"").unwrap().1.split_once('"').unwrap().0.to_string()
}

#[test]
fn acts_are_forms_that_say_what_became_of_them() {
    let (site, session, director) = world();
    let cookie = format!("cookie: __Host-session={session}\r\n");
    let place = format!("/fleet-management/directors/{}", director.report.agent_id);
    let page = get(&site, &session, &place);
    let token = csrf(&page);
    assert!(page.body.contains("Cancel update"), "{}", page.body);
    let refused = form(&site, &format!("{place}/cancel"), &cookie, "csrf=wrong");
    assert!(refused.status == 403 && refused.body.contains("earlier session"), "{} {}", refused.status, refused.body);
    let done = form(&site, &format!("{place}/cancel"), &cookie, &format!("csrf={token}&reason=another+day"));
    assert_eq!((done.status, done.header("location").as_deref()), (303, Some(place.as_str())));
    let page = get(&site, &session, &place);
    assert!(page.body.contains("The update is cancelled") && page.body.contains("nother day"), "{}", page.body);
    assert!(!get(&site, &session, &place).body.contains("The update is cancelled"), "said once");
    // What does not work is said, too, with the command's own words.
    let done = form(&site, &format!("{place}/assign"), &cookie, &format!("csrf={token}&version=9.9.9"));
    assert_eq!(done.status, 303);
    assert!(get(&site, &session, &place).body.contains("the mirror has no vmetric-director 9.9.9"));
    let theme = form(&site, "/theme", &cookie, &format!("csrf={token}&theme=dark&back=//evil.example/"));
    assert_eq!(theme.header("location").as_deref(), Some("/"));
    let dark = ask(&site, "GET", "/", &format!("cookie: __Host-session={session}; __Host-theme=dark\r\n"), "");
    assert!(dark.body.contains("data-theme=\"dark\""));
}

#[test]
fn devices_and_templates_end_in_commands_that_are_shown_once() {
    let (site, session, director) = world();
    let cookie = format!("cookie: __Host-session={session}\r\n");
    let token = csrf(&get(&site, &session, "/devices/linux/new"));
    let send = |path: &str, fields: &str| form(&site, path, &cookie, &format!("csrf={token}&{fields}"));
    let id = &director.report.agent_id;
    // What is wrong stands beside its field, and what was typed stays.
    let heard = send("/devices/linux/new", "step=0&go=next&name=&director=&ttl=86400");
    assert!(
        heard.status == 422 && heard.body.contains("Type a name.") && heard.body.contains("value=\"86400\" selected"),
        "{}",
        heard.body
    );
    let heard = send("/devices/linux/new", "step=0&go=next&name=%3Cb%3Ekiosk&director=nobody");
    assert!(heard.status == 422 && heard.body.contains("value=\"&lt;b&gt;kiosk\""), "{}", heard.body);
    let device = format!("name=%3Cb%3Ekiosk&director={id}&ttl=3600");
    let heard = send("/devices/linux/new", &format!("step=0&go=next&{device}"));
    assert!(heard.status == 200 && heard.body.contains("Custom Policy"), "{}", heard.body);
    let last = format!("step=1&go=next&{device}&custom=on&mode=auto&method=immediate&version=latest");
    let heard = send("/devices/linux/new", &last);
    assert!(heard.status == 422 && heard.body.contains("has not told its address"), "{}", heard.body);
    // Its Director tells; the mirror has an agent for Linux and none for others.
    let install = install_wire();
    tell_with(&director, [row(0, EVIL)].into_iter(), Some(&install));
    site.add_of("vmetric-agent", "2.0.0", &agent_file("2.0.0"));
    site.publish();
    site.good("mirror");
    let heard = send("/devices/linux/new", &last);
    assert_eq!(heard.status, 200, "{}", heard.body);
    for part in ["id=\"install\"", &install.pin, "vmetric-agent enroll --director https://site.test:8443", "Shown once"] {
        assert!(heard.body.contains(part), "{part}: {}", heard.body);
    }
    let heard = send("/devices/linux/new", &last);
    assert!(heard.status == 422 && heard.body.contains("There is a template"), "the same name: {}", heard.body);
    for os in ["windows", "macos"] {
        let says = "mirror holds no agent for this yet";
        let heard = send(&format!("/devices/{os}/new"), &last.replace("kiosk", os));
        assert!(heard.status == 200 && heard.body.contains(says), "{os}: {}", heard.body);
    }
    let wrong = send("/devices/templates/new", &format!("step=0&go=next&name=many&director={id}&uses=x&ttl=never"));
    assert!(
        wrong.status == 422 && wrong.body.contains("or nothing for no limit") && wrong.body.contains("needs approval"),
        "{}",
        wrong.body
    );
    let made = send("/devices/templates/new", &format!("step=1&go=next&name=many&director={id}&uses=&ttl=never&approval=on"));
    assert!(made.status == 200 && made.body.contains("vmt_") && made.body.contains("Indefinite"), "{}", made.body);
    let list = get(&site, &session, "/devices/templates").body;
    for part in ["0/Unlimited", "0/1", "Auto · Immediate", "Inherited", "&lt;b&gt;kiosk", "On its way", "No approval"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!list.contains("vmt_"), "{list}");
    let template = list.split_once("action=\"/devices/templates/t-").unwrap().1.split_once('/').unwrap().0;
    let renewed = send(&format!("/devices/templates/t-{template}/renew"), "");
    assert!(renewed.status == 200 && renewed.body.contains("vmt_"), "{}", renewed.body);
    let acts = [("disable", "Disabled"), ("enable", "On its way"), ("remove", "its devices stay"), ("remove", "there is no template")];
    for (act, said) in acts {
        let heard = send(&format!("/devices/templates/t-{template}/{act}"), "");
        assert_eq!((heard.status, heard.header("location").as_deref()), (303, Some("/devices/templates")), "{act}: {}", heard.body);
        assert!(get(&site, &session, "/devices/templates").body.contains(said), "{act}");
    }
}

#[test]
fn webhooks_have_a_secret_that_is_shown_once() {
    let (site, session, _) = world();
    let cookie = format!("cookie: __Host-session={session}\r\n");
    let path = "/organization/settings/notifications";
    let token = csrf(&get(&site, &session, path));
    let send = |path: &str, fields: &str| form(&site, path, &cookie, &format!("csrf={token}&{fields}"));
    let heard = send(path, "name=&url=http://hooks.example.org/x&event=rolled_back");
    assert!(
        heard.status == 422 && heard.body.contains("Type a name.") && heard.body.contains("value=\"rolled_back\" checked"),
        "{}",
        heard.body
    );
    let heard = send(path, "name=ops&url=http://hooks.example.org/x");
    assert!(
        heard.status == 422 && heard.body.contains("Is not https") && heard.body.contains("http://hooks.example.org/x"),
        "{}",
        heard.body
    );
    let heard = send(path, "name=ops&url=https://hooks.invalid/T0/secret&event=rolled_back&event=site_silent");
    assert!(heard.status == 200 && heard.body.contains("vms_") && heard.body.contains("Rolled back, Site silent"), "{}", heard.body);
    let list = get(&site, &session, path).body;
    assert!(list.contains("https://hooks.invalid") && !list.contains("vms_") && !list.contains("T0/secret"), "{list}");
    let hook = list.split_once("notifications/w-").unwrap().1.split_once('/').unwrap().0;
    for (act, said) in
        [("test", "Failing"), ("disable", "Disabled"), ("enable", "Notices are sent there again"), ("remove", "There is no webhook yet")]
    {
        let heard = send(&format!("{path}/w-{hook}/{act}"), "");
        assert_eq!((heard.status, heard.header("location").as_deref()), (303, Some(path)), "{act}: {}", heard.body);
        assert!(get(&site, &session, path).body.contains(said), "{act}");
    }
    add(&site, "vera", "viewer");
    let viewer = log_in(&site, "vera");
    assert!(!get(&site, &viewer, path).body.contains("Add a webhook"));
}

#[test]
fn a_browser_that_is_lost_gets_a_page_and_a_program_gets_json() {
    let (site, session, _) = world();
    let cookie = format!("cookie: __Host-session={session}\r\n");
    for (path, status) in [("/nothing/here", 404), ("/devices/beos/new", 404), ("/releases/refresh", 405)] {
        let heard = ask(&site, "GET", path, &format!("{cookie}accept: text/html,*/*;q=0.8\r\n"), "");
        assert_eq!(heard.status, status, "{path}: {}", heard.body);
        assert!(heard.body.starts_with("<!doctype html>") && heard.body.contains("href=\"/\""), "{path}: {}", heard.body);
        assert_eq!(heard.header("content-security-policy").as_deref(), Some(CSP));
        assert_eq!(heard.header("allow").is_some(), status == 405, "{path}");
    }
    let nobody = ask(&site, "GET", "/nothing/here", "accept: text/html\r\n", "");
    assert!(nobody.status == 404 && !nobody.body.contains("anna"), "{}", nobody.body);
    for (method, more) in [("GET", "accept: */*\r\n"), ("POST", "accept: text/html\r\n")] {
        let heard = ask(&site, method, "/nothing/here", more, "");
        assert!(heard.status == 404 && heard.body.contains("not_found"), "{method}: {}", heard.body);
    }
}

#[test]
fn static_files_are_kept_for_ever_by_their_hash() {
    let (site, session, _) = world();
    let page = get(&site, &session, "/").body;
    let at = page.find("/static/style.").unwrap();
    let path = page[at..].split('"').next().unwrap();
    let file = ask(&site, "GET", path, "accept-encoding: gzip\r\n", "");
    assert_eq!((file.status, file.header("content-encoding").as_deref()), (200, Some("gzip")));
    assert!(file.header("cache-control").unwrap().contains("immutable"));
    assert!(ask(&site, "GET", path, "", "").body.contains(":focus-visible"));
    assert_eq!(ask(&site, "GET", "/static/style.0000000000000000.css", "", "").status, 404);
}

/// An open stream, and what came of it.
pub struct Stream(crate::serve::site::Raw, String);

impl Stream {
    pub fn open(site: &Site, session: &str, page: &str) -> Stream {
        let mut raw = site.hostile();
        raw.say(format!("GET /live?page={page} HTTP/1.1\r\nhost: fleet.test\r\ncookie: __Host-session={session}\r\n\r\n"));
        Stream(raw, String::new())
    }

    /// Reads until this came.
    pub fn until(&mut self, what: &str) {
        let mut piece = [0; 4096];
        while !self.1.contains(what) {
            let n = self.0.0.read(&mut piece).unwrap_or_else(|e| panic!("{what} did not come: {e}: {}", self.1));
            assert!(n > 0, "the stream ended before {what}: {}", self.1);
            self.1.push_str(&String::from_utf8_lossy(&piece[..n]));
        }
    }
}

#[test]
fn what_changes_is_sent_to_who_looks() {
    let (site, session, director) = world();
    let path = format!("/fleet-management/directors/{}", director.report.agent_id);
    let mut stream = Stream::open(&site, &session, &path);
    stream.until("event: region");
    assert!(stream.1.starts_with("HTTP/1.1 200 OK") && stream.1.contains("transfer-encoding: chunked"), "{}", stream.1);
    assert!(stream.1.contains("text/event-stream") && !stream.1.contains("\u{1}csrf"), "{}", stream.1);
    stream.1.clear();
    site.good("cancel --all --reason enough-of-this");
    stream.until("enough-of-this");
    // Its regions hold this session's own token.
    stream.until(&csrf(&get(&site, &session, &path)));
    let refused = Stream::open(&site, &session, "/live").0.hear();
    assert!(refused.0.starts_with("HTTP/1.1 404"), "{}", refused.0);
    // The session's end is the stream's.
    stream.1.clear();
    add(&site, "ben", "owner");
    site.good("user disable anna");
    stream.until("event: gone");
}

#[test]
fn a_stop_does_not_wait_for_who_looks() {
    let (mut site, session, _) = world();
    let mut stream = Stream::open(&site, &session, "/");
    stream.until("event: region");
    assert_eq!(site.stop(), Some(0));
}
