//! Cookies, origins and ways back, without a server.

use ureq_proto::http::{HeaderMap, HeaderName, HeaderValue};

use super::sessions::{COOKIE, IDLE_S, LIFE_S, SESSIONS_MAX, token};
use super::*;
use crate::director::pki::{Names, SiteCa};
use crate::director::registry::Registry;
use crate::director::store::Store;
use crate::director::tree::Tree;
use crate::fleet::access::audit::KEPT_DAYS;

/// A server's state in a folder, without its sockets.
pub(super) fn site(folder: &std::path::Path) -> Rc<Site> {
    let store = Store::open(&folder.join("fleet.redb")).unwrap();
    let ca = SiteCa::open_or_create(&folder.join("pki"), &Names::default(), 1_795_352_400).unwrap();
    Site::new(Registry::default(), store, ca, Tree::default())
}

/// Runs with what commits beside it.
fn with_commits<T>(site: &Rc<Site>, work: impl Future<Output = T>) -> T {
    let executor = smol::LocalExecutor::new();
    executor.spawn(site.store.clone().commit_forever()).detach();
    smol::block_on(executor.run(work))
}

#[test]
fn a_session_ends_by_idleness_and_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let (site, access) = (site(folder.path()), Access::default());
    access.add_user(&site, "anna", Role::Viewer, "test", 0).unwrap();
    let login = request("POST", "/login", &[("user-agent", "a browser")]);
    let with = |token: &str| request("GET", "/", &[("cookie", &format!("{COOKIE}={token}"))]);
    let begun = 1_000_000;
    let code = |token: &str, now: u64| access.session(&site, &with(token), now).map_or_else(|r| r.code.to_string(), |who| who.name);
    let token = access.begin_session(&site, "anna", &login, begun);
    assert_eq!(code(&token, begun + IDLE_S - 1), "anna");
    assert_eq!(code(&token, begun + 2 * IDLE_S), "session_expired");
    assert_eq!(code(&token, begun), "session_expired", "ended for good");
    let token = access.begin_session(&site, "anna", &login, begun);
    let mut now = begun;
    while now + IDLE_S / 2 < begun + LIFE_S {
        now += IDLE_S / 2;
        assert_eq!(code(&token, now), "anna");
    }
    assert_eq!(code(&token, begun + LIFE_S), "session_expired", "however busy");
    let token = access.begin_session(&site, "anna", &login, begun);
    access.set_disabled(&site, "anna", Some(begun)).unwrap();
    assert_eq!(code(&token, begun), "session_expired");
}

#[test]
fn there_are_only_so_many_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let (site, access) = (site(folder.path()), Access::default());
    let login = request("POST", "/login", &[]);
    for n in 0..SESSIONS_MAX as u64 + 5 {
        access.begin_session(&site, &format!("user{}", n % 500), &login, 1_000_000 + n);
    }
    let all = access.sessions(1_000_000);
    assert_eq!(all.len(), SESSIONS_MAX);
    assert_eq!(all.last().unwrap().seen_at, 1_000_005, "the oldest went");
}

#[test]
fn the_chain_goes_on_over_removals_and_restarts_and_shows_a_changed_row() {
    let folder = tempfile::tempdir().unwrap();
    let act = |n: u64| Entry { user: format!("user {n}"), action: "CreateUser".into(), ..Default::default() };
    let now = clock::unix();
    let (kept, removed) = {
        let (site, audit) = (site(folder.path()), Audit::default());
        audit.start(&site.store).unwrap();
        (0..2_500).for_each(|n| audit.note(&site, act(n)));
        with_commits(&site, async {
            assert_eq!(audit.verify(&site, None).await.unwrap(), 2_500);
            audit.prune(&site, now).await.unwrap();
            assert_eq!(audit.head().removed, 0, "nothing is too old");
            audit.prune(&site, now + (KEPT_DAYS + 1) * 86_400).await.unwrap();
            audit.note(&site, act(9_999));
            audit.verify(&site, None).await.unwrap();
        });
        site.store.close();
        (audit.head().head, audit.head().removed)
    };
    assert!(removed >= 2_500, "{removed}");
    let (site, audit) = (site(folder.path()), Audit::default());
    audit.start(&site.store).unwrap();
    assert_eq!(audit.head().head, kept, "the next start goes on where it ended");
    audit.note(&site, act(1));
    with_commits(&site, async {
        audit.verify(&site, Some(&kept)).await.unwrap();
        let mut row = audit.rows(&site, &audit::Wanted { limit: 1, ..Default::default() }).await.unwrap().remove(0);
        row.user = "somebody else".into();
        let (key, n) = (format!("{:020}", row.n), row.n);
        site.store.queue(vec![Change { table: Table::Audit, key: key.clone(), value: Some(json::to_string(&row)) }]);
        let said = audit.verify(&site, None).await.unwrap_err();
        assert!(said.code == "audit_broken" && said.detail.contains(&format!("row {n}:")), "{said}");
        site.store.queue(vec![Change { table: Table::Audit, key, value: None }]);
        assert!(audit.verify(&site, None).await.unwrap_err().detail.contains("missing"));
    });
}

#[test]
fn guessing_programs_do_not_push_out_what_matters() {
    let folder = tempfile::tempdir().unwrap();
    let (site, audit) = (site(folder.path()), Audit::default());
    audit.start(&site.store).unwrap();
    let failed = || Entry { action: "LoginFailed".into(), ..Default::default() };
    (0..5_000).for_each(|_| audit.note_failed_login(&site, failed()));
    assert!(audit.head().last <= 201, "100 an hour, and the sum of the hour before: {}", audit.head().last);
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query.to_string())));
    let (method, path) = (method.to_string(), path.to_string());
    Request { method, path, query, headers: map, body: Vec::new(), peer: None, known: Default::default() }
}

#[test]
fn a_form_comes_from_a_page_of_this_server() {
    let asked = |method: &str, headers: &[(&str, &str)]| same_site(&request(method, "/x", headers)).is_ok();
    let host = ("host", "fleet.example.org:8443");
    let own = ("origin", "https://fleet.example.org:8443");
    assert!(asked("GET", &[("sec-fetch-site", "cross-site")]), "a link may come from anywhere");
    assert!(asked("POST", &[host, own, ("sec-fetch-site", "same-origin")]));
    assert!(asked("POST", &[host, own]) && asked("POST", &[host, ("sec-fetch-site", "none")]) && asked("POST", &[host]));
    for site in ["cross-site", "same-site", "", "SAME-ORIGIN"] {
        assert!(!asked("POST", &[host, own, ("sec-fetch-site", site)]), "{site}");
    }
    for origin in [
        "null",
        "https://evil.example",
        "http://fleet.example.org:8443",
        "https://fleet.example.org",
        "https://fleet.example.org:8443.evil.example",
    ] {
        assert!(!asked("POST", &[host, ("origin", origin)]), "{origin}");
        assert!(!asked("POST", &[host, ("origin", origin), ("sec-fetch-site", "same-origin")]), "{origin}");
    }
    assert!(!asked("POST", &[own]), "without a host nothing is the same");
    assert!(!asked("DELETE", &[host, ("sec-fetch-site", "cross-site")]));
}

#[test]
fn a_cookie_that_a_neighbour_tossed_in_is_no_session() {
    let (one, other) = ("a1".repeat(32), "b2".repeat(32));
    let found = |cookies: &[String]| {
        let headers: Vec<(&str, &str)> = cookies.iter().map(|c| ("cookie", c.as_str())).collect();
        let request = request("GET", "/", &headers);
        token(&request).map(String::from).map_err(|reason| reason.code.to_string())
    };
    let named = |value: &str| format!("{COOKIE}={value}");
    assert_eq!(found(&[named(&one)]), Ok(one.clone()));
    assert_eq!(found(&[format!("a=1; {}; b=2", named(&one)), named(&one)]), Ok(one.clone()));
    for twice in
        [vec![format!("{}; {}", named(&one), named(&other))], vec![named(&one), named(&other)], vec![format!("{}; {COOKIE}=", named(&one))]]
    {
        assert_eq!(found(&twice), Err("cookie_twice".into()));
    }
    let long = named(&"a".repeat(6_000));
    for none in ["", "session=x", &format!("x{}", named(&one)), &named(""), &named("zz"), &named(&one.to_uppercase()), &long] {
        assert_eq!(found(&[none.to_string()]), Err("login_needed".into()), "{none}");
    }
}

#[test]
fn the_login_leads_back_to_the_page_and_nowhere_else() {
    let to = |path: &str| {
        let response = login_first(&request("GET", path, &[("host", "evil.example")]));
        response.headers.into_iter().find(|(name, _)| *name == "location").unwrap().1
    };
    assert_eq!(to("/devices/linux?page=2&q=a"), "/login?next=/devices/linux%3Fpage%3D2%26q%3Da");
    assert_eq!((to("/"), to("//evil.example/"), to("/login?next=/x")), ("/login".into(), "/login".into(), "/login".into()));
}

#[test]
fn a_form_is_of_its_session() {
    let who = Who { name: "anna".into(), role: Role::Viewer, csrf: "c0ffee".into(), ip: String::new(), session: String::new() };
    let form = |text: &str| Form::parse(text).unwrap();
    assert!(check_form(&who, &form("a=1&csrf=c0ffee")).is_ok());
    for bad in ["", "csrf=", "csrf=c0ffe", "csrf=C0FFEE", "csrf=x&csrf=c0ffee", "CSRF=c0ffee"] {
        assert_eq!(check_form(&who, &form(bad)).unwrap_err().code, "form_expired", "{bad}");
    }
}
