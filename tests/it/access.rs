//! Who gets in, at the real Fleet: the first owner, logins and their throttle, sessions, forms of others, tokens of each role.

use std::collections::BTreeMap;

use vmetric::core::access::{Act, Role, permits};
use vmetric::director::api_tokens::ApiTokenView;
use vmetric::fleet::access::command::{SessionsView, UsersView};
use vmetric::fleet::access::rules::act_of;
use vmetric::fleet::api::fields::Parsed;
use vmetric::fleet::api::routes::{Command, all};
use vmetric::fleet::gui::routes;

use crate::director_bench::Site;

/// A password that will do.
pub const PASSWORD: &str = "four plain words here";

/// What a browser hears.
pub struct Heard {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(String::from))
    }

    /// The session that it gave.
    pub fn session(&self) -> Option<String> {
        let cookie = self.header("set-cookie")?;
        let (value, rest) = cookie.strip_prefix("__Host-session=")?.split_once(';')?;
        assert_eq!(rest, " Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=604800");
        Some(value.to_string())
    }
}

/// One request of a browser that says whatever is given.
pub fn ask(site: &Site, method: &str, path: &str, more: &str, body: &str) -> Heard {
    let mut raw = site.hostile();
    let length = if method == "GET" { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    raw.say(format!("{method} {path} HTTP/1.1\r\nhost: fleet.test\r\n{more}{length}\r\n{body}"));
    let (head, body) = raw.hear();
    Heard { status: head[9..12].parse().unwrap(), head, body: String::from_utf8_lossy(&body).into_owned() }
}

/// A form as a browser sends it.
pub fn form(site: &Site, path: &str, more: &str, body: &str) -> Heard {
    ask(site, "POST", path, &format!("content-type: application/x-www-form-urlencoded\r\norigin: https://fleet.test\r\n{more}"), body)
}

/// Adds a user with [`PASSWORD`].
pub fn add(site: &Site, name: &str, role: &str) {
    let ended = site.typed(&format!("user add {name} --role {role}"), &format!("{PASSWORD}\n"));
    assert_eq!(ended.code, 0, "{}", ended.err);
}

/// Logs in; the session.
pub fn log_in(site: &Site, name: &str) -> String {
    let heard = form(site, "/login", "", &format!("name={name}&password={}", PASSWORD.replace(' ', "+")));
    assert_eq!(heard.status, 303, "{}", heard.body);
    heard.session().unwrap()
}

fn sessions(site: &Site) -> usize {
    site.json::<SessionsView>("session list --json").sessions.len()
}

#[test]
fn the_first_owner_comes_by_a_link_of_the_console_once() {
    let mut site = Site::fleet();
    let link = |site: &Site| {
        let line = site.said.iter().find(|line| line.contains("/first?code=")).cloned().unwrap_or_default();
        line.split_once("/first?code=").and_then(|(_, rest)| rest.split_whitespace().next()).map(String::from)
    };
    let first = link(&site).unwrap();
    site.stop();
    site.start();
    let code = link(&site).unwrap();
    assert_ne!(first, code, "each start makes a new one");
    assert_eq!(ask(&site, "GET", &format!("/first?code={first}"), "", "").status, 410);
    let page = ask(&site, "GET", &format!("/first?code={code}"), "", "");
    assert!(page.status == 200 && page.body.contains(&code), "{}", page.body);
    assert!(
        ["no-referrer", "same-origin"].map(String::from).contains(&page.header("referrer-policy").unwrap()),
        "no other site hears the code"
    );
    for (fields, code_of) in [
        ("name=%3Cb%3E&password=four+plain+words&again=four+plain+words", "the first a letter or digit"),
        ("name=anna&password=short&again=short", "needs at least 12 characters"),
        ("name=anna&password=four+plain+words&again=four+plain+word", "not the same password again"),
    ] {
        let heard = form(&site, "/first", "", &format!("code={code}&{fields}"));
        assert!(heard.status == 422 && heard.body.contains(code_of), "{fields}: {} {}", heard.status, heard.body);
        assert!(!heard.body.contains("<b>") && !heard.body.contains("four plain"), "what was typed is text, and no password comes back");
    }
    let fields = format!("code={code}&name=Anna&password=four+plain+words&again=four+plain+words");
    let made = form(&site, "/first", "", &fields);
    assert!(made.status == 303 && made.session().is_some(), "{}", made.body);
    assert_eq!(form(&site, "/first", "", &fields).status, 410, "once only");
    let users: UsersView = site.json("user list --json");
    assert_eq!((users.users[0].name.as_str(), users.users[0].role.as_str(), users.users[0].state.as_str()), ("anna", "owner", "active"));
    site.stop();
    site.start();
    assert_eq!(link(&site), None, "there is an owner");
    assert_eq!(sessions(&site), 1, "sessions outlive a restart");
}

#[test]
fn nobody_learns_who_exists_and_guessing_is_slow() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    let known = form(&site, "/login", "", "name=anna&password=wrong+wrong+wrong");
    let unknown = form(&site, "/login", "", "name=nobody&password=wrong+wrong+wrong");
    assert_eq!((known.status, unknown.status), (401, 401));
    assert_eq!(known.body.replace("anna", "nobody"), unknown.body);
    add(&site, "ben", "owner");
    site.good("user disable anna");
    let right = format!("name=anna&password={}", PASSWORD.replace(' ', "+"));
    assert_eq!(form(&site, "/login", "", &right).body, known.body, "disabled is as good as unknown");
}

#[test]
fn a_throttled_login_says_until_when_and_concerns_nobody_else() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    add(&site, "ben", "viewer");
    let wrong = |name: &str| form(&site, "/login", "", &format!("name={name}&password=x"));
    for name in ["anna", "nobody"] {
        for _ in 0..5 {
            assert_eq!(wrong(name).status, 401);
        }
        let refused = wrong(name);
        assert!(refused.status == 429 && refused.header("retry-after").is_some(), "{}", refused.body);
        assert!(refused.body.contains("login_throttled") && refused.body.contains("possible at 20"), "{}", refused.body);
    }
    let right = form(&site, "/login", "", &format!("name=anna&password={}", PASSWORD.replace(' ', "+")));
    assert_eq!(right.status, 429, "the right one, too: or guessing would go on unseen");
    log_in(&site, "ben");
}

#[test]
fn a_session_begins_anew_at_each_login_and_ends_with_role_and_password() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    add(&site, "ben", "contributor");
    // Fixation: what the browser brings is not what it gets.
    let brought = "ab".repeat(32);
    let heard = form(
        &site,
        "/login",
        &format!("cookie: __Host-session={brought}\r\n"),
        &format!("name=ben&password={}&next=/devices/linux%3Fpage%3D2", PASSWORD.replace(' ', "+")),
    );
    let session = heard.session().unwrap();
    assert!(session != brought && heard.header("location").as_deref() == Some("/devices/linux?page=2"));
    let again = form(
        &site,
        "/login",
        &format!("cookie: __Host-session={session}\r\n"),
        &format!("name=ben&password={}&next=//evil.example", PASSWORD.replace(' ', "+")),
    );
    assert_eq!(again.header("location").as_deref(), Some("/"));
    assert_eq!(sessions(&site), 1, "the one before ended");
    for change in ["user role ben admin", "user disable ben", "user enable ben"] {
        site.good(change);
        assert_eq!(sessions(&site), 0, "{change}");
        if !change.contains("disable") {
            log_in(&site, "ben");
        }
    }
    assert_eq!(site.typed("user password ben", "another four words\n").code, 0);
    assert_eq!(sessions(&site), 0);
    assert!(site.bad("user role anna viewer").contains("last_owner"));
    assert!(site.bad("user remove anna").contains("last_owner"));
    let link: UsersView = site.json("user password ben --link --json");
    let code = link.link.unwrap().split_once("code=").unwrap().1.to_string();
    let used = form(&site, "/first", "", &format!("code={code}&password=third+four+words&again=third+four+words"));
    assert_eq!(used.status, 303, "{}", used.body);
    site.good("session revoke --user ben");
    assert_eq!(sessions(&site), 0);
    site.good("user remove ben");
    assert!(site.bad("user remove ben").contains("user_unknown"));
}

#[test]
fn forms_of_other_sites_and_hostile_ones_are_refused() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    let login = format!("name=anna&password={}", PASSWORD.replace(' ', "+"));
    let kind = "content-type: application/x-www-form-urlencoded\r\n";
    for (from, status) in [("origin: https://evil.example\r\n", 403), ("origin: null\r\n", 403), ("sec-fetch-site: cross-site\r\n", 403)] {
        let heard = ask(&site, "POST", "/login", &format!("{kind}{from}"), &login);
        assert!(heard.status == status && heard.session().is_none(), "{from}");
    }
    let session = log_in(&site, "anna");
    let cookie = format!("cookie: __Host-session={session}\r\n");
    assert_eq!(form(&site, "/logout", &cookie, "csrf=wrong").status, 403);
    assert_eq!(ask(&site, "GET", "/logout", &cookie, "").status, 405);
    assert_eq!(sessions(&site), 1);
    let page = ask(&site, "GET", "/", &cookie, "").body;
    let csrf = page.split_once("name=\"csrf\" value=\"").unwrap().1.split_once('"').unwrap().0;
    let left = form(&site, "/logout", &cookie, &format!("csrf={csrf}"));
    assert!(left.status == 303 && left.header("set-cookie").unwrap().ends_with("Max-Age=0"), "{}", left.head);
    assert_eq!((sessions(&site), ask(&site, "GET", "/", &cookie, "").status), (0, 303), "a copy of the cookie is worth nothing");
    for (body, status) in [
        ("name=%ff&password=x".to_string(), 400),
        ("a=1&".repeat(700), 400),
        (format!("name=anna&password={}", "x".repeat(7_000)), 401),
        ("x".repeat(9_000), 413),
        (String::new(), 401),
        ("name=\u{0}&password=\u{0}".into(), 401),
    ] {
        assert_eq!(form(&site, "/login", "", &body).status, status, "{} bytes", body.len());
    }
    assert_eq!(ask(&site, "POST", "/login", "content-type: application/json\r\n", "{}").status, 400);
    assert_eq!(ask(&site, "PUT", "/login", kind, "a=1").status, 405);
    // Nothing of the page comes from what the client calls this host.
    let mut raw = site.hostile();
    raw.say("GET /login?next=%2Fx%22%3E%3Cscript%3E HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    let (head, body) = raw.hear();
    let body = String::from_utf8(body).unwrap();
    assert!(!head.contains("evil.example") && !body.contains("evil.example") && !body.contains("<script>"), "{head}{body}");
    assert!(head.contains("frame-ancestors 'none'") && head.contains("cache-control: no-store"), "{head}");
}

#[test]
fn a_user_has_only_so_many_sessions() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    for _ in 0..23 {
        log_in(&site, "anna");
    }
    assert_eq!(sessions(&site), 20);
    // The newest is there, whichever of the same second had to go.
    let heard = ask(&site, "GET", "/login", &format!("cookie: __Host-session={}\r\n", log_in(&site, "anna")), "");
    assert_eq!(heard.header("location").as_deref(), Some("/"));
}

/// A path with something in place of `{name}`.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "1" } else { part }).collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_of_the_api_has_its_act_and_each_role_is_held_to_it() {
    let site = Site::fleet();
    let tokens: BTreeMap<&str, String> =
        Role::WORDS.map(|role| (role, site.json::<ApiTokenView>(&format!("token create --role {role} --json")).token)).into();
    for route in all() {
        let Some(act) = route.need else {
            assert_eq!(route.path, "/api/v1/openapi.json", "only the document needs no token");
            continue;
        };
        // What the route names and what its command is are one.
        if let Command::Admin(name) | Command::Own(name) = route.command {
            let mut parsed = Parsed::default();
            (route.base)(&mut parsed);
            parsed.wire.command = name.into();
            if route.place.is_some() && route.method == "DELETE" && name == "token" {
                parsed.wire.revoke = Some("x".into());
            }
            assert_eq!(act_of(&parsed.wire, false), act, "{} {}", route.method, route.path);
        }
        let path = filled(route.path);
        let asked = |more: &str| ask(&site, route.method, &path, &format!("{more}connection: close\r\n"), "{\"x\": 1}");
        assert_eq!(asked("").status, 401, "{path}: without a token");
        for role in Role::ALL {
            let heard = asked(&format!("authorization: Bearer {}\r\n", tokens[role.word()]));
            match permits(role, act) {
                Ok(()) => assert!(!matches!(heard.status, 401 | 403), "{role} {} {path}: {}", route.method, heard.body),
                Err(_) => assert!(heard.status == 403 && heard.body.contains("api_role_too_low"), "{role} {path}: {}", heard.body),
            }
        }
    }
    assert_eq!(Act::ALL.iter().filter(|act| permits(Role::Viewer, **act).is_ok()).count(), 1);
}

#[test]
fn every_page_has_its_act_and_each_role_is_held_to_it() {
    let site = Site::fleet();
    for role in Role::ALL {
        add(&site, role.word(), role.word());
        let session = log_in(&site, role.word());
        for route in routes::all() {
            let (method, path) = (route.method, filled(route.path));
            // Without a session: to the login and back, and a form is not taken.
            let stranger = if method == "GET" { ask(&site, method, &path, "", "") } else { form(&site, &path, "", "") };
            // The stream does not end, and is of those who may look; to a stranger it says nothing, and no login page.
            if route.path == "/live" {
                assert_eq!((stranger.status, stranger.body.as_str(), route.need), (200, "retry: 15000\n\n", Act::Look));
                continue;
            }
            assert!(stranger.status == 303 && stranger.header("location").unwrap().starts_with("/login"), "{method} {path}");
            let cookie = format!("cookie: __Host-session={session}\r\nconnection: close\r\n");
            let heard = if method == "GET" { ask(&site, method, &path, &cookie, "") } else { form(&site, &path, &cookie, "") };
            let refused = heard.status == 403 && heard.body.contains("it takes the role");
            assert_eq!(refused, permits(role, route.need).is_err(), "{role} {method} {path}: {} {}", heard.status, heard.body);
            if method == "POST" && !refused {
                assert!(
                    heard.status == 403 && heard.body.contains("of an earlier session"),
                    "{path}: a form without its token: {}",
                    heard.body
                );
            }
            if method == "POST" {
                let evil = ask(&site, method, &path, &format!("{cookie}origin: https://evil.example\r\n"), "");
                assert!(evil.status == 403 && evil.body.contains("another site sent this form"), "{path}: {}", evil.status);
            }
        }
    }
}

#[test]
fn an_expired_session_leads_back_to_where_one_was() {
    let site = Site::fleet();
    add(&site, "anna", "viewer");
    let cookie = format!("cookie: __Host-session={}\r\n", log_in(&site, "anna"));
    let page = "/fleet-management/directors?q=a";
    assert_eq!(ask(&site, "GET", page, &cookie, "").status, 200);
    site.good("session revoke --user anna");
    let to = ask(&site, "GET", page, &cookie, "").header("location").unwrap();
    assert_eq!(to, "/login?next=/fleet-management/directors%3Fq%3Da");
    let login = ask(&site, "GET", &to, &cookie, "");
    assert!(login.body.contains("value=\"/fleet-management/directors?q=a\""), "{}", login.body);
}

#[test]
fn who_changes_the_own_password_stays_and_is_logged_out_everywhere_else() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    add(&site, "ben", "viewer");
    let cookie = |session: &str| format!("cookie: __Host-session={session}\r\n");
    let (here, elsewhere, annas) = (cookie(&log_in(&site, "ben")), cookie(&log_in(&site, "ben")), cookie(&log_in(&site, "anna")));
    let page = ask(&site, "GET", "/account", &here, "").body;
    let csrf = page.split_once("name=\"csrf\" value=\"").unwrap().1.split_once('"').unwrap().0;
    let typed = PASSWORD.replace(' ', "+");
    let send = |current: &str, new: &str, again: &str| {
        form(&site, "/account", &here, &format!("csrf={csrf}&current={current}&password={new}&again={again}"))
    };
    for (current, new, again, said) in [
        ("wrong+wrong+wrong", "another+four+words", "another+four+words", "not your present password"),
        (typed.as_str(), "short", "short", "at least 12"),
        (typed.as_str(), "another+four+words", "another+four+word", "not the same password"),
    ] {
        let heard = send(current, new, again);
        assert!(heard.status == 422 && heard.body.contains(said), "{said}: {}", heard.body);
        assert!(!heard.body.contains("another four"), "no password comes back");
    }
    assert_eq!(sessions(&site), 3, "nothing was changed");
    assert_eq!(send(&typed, "another+four+words", "another+four+words").status, 303);
    let status = |cookie: &str| ask(&site, "GET", "/account", cookie, "").status;
    assert_eq!([&here, &elsewhere, &annas].map(|c| status(c)), [200, 303, 200], "one's own stays, one's others end, others' stay");
    assert_eq!(form(&site, "/login", "", &format!("name=ben&password={typed}")).status, 401);
    assert_eq!(form(&site, "/login", "", "name=ben&password=another+four+words").status, 303);
    let log = site.good("audit --json --action ChangePassword");
    assert!(log.contains("1 other session(s) ended") && log.contains("nothing is changed"), "{log}");
    for _ in 0..5 {
        send("wrong+wrong+wrong", "another+four+words", "another+four+words");
    }
    let refused = send("another+four+words", "third+four+words", "third+four+words");
    assert!(refused.body.contains("oo many wrong tries"), "a stolen session may not guess: {}", refused.body);
}

#[test]
fn a_token_ends_with_the_person_who_made_it() {
    let site = Site::fleet();
    for (name, role) in [("anna", "owner"), ("ben", "admin"), ("cleo", "admin"), ("dora", "admin")] {
        add(&site, name, role);
    }
    let console = site.json::<ApiTokenView>("token create --role admin --json").token;
    let asked = |token: &str, method: &str, path: &str, body: &str| {
        ask(&site, method, path, &format!("authorization: Bearer {token}\r\nconnection: close\r\n"), body)
    };
    let status = |token: &str| asked(token, "GET", "/api/v1/directors", "").status;
    let made = |heard: &Heard, end: char| format!("vma_{}", heard.body.split_once("vma_").unwrap().1.split(end).next().unwrap());
    let by_page = |name: &str, role: &str| {
        let cookie = format!("cookie: __Host-session={}\r\n", log_in(&site, name));
        let page = ask(&site, "GET", "/organization/users", &cookie, "");
        let csrf = page.body.split_once("name=\"csrf\" value=\"").unwrap().1.split_once('"').unwrap().0.to_string();
        let heard = form(&site, "/organization/settings/tokens", &cookie, &format!("csrf={csrf}&role={role}&ttl=2592000"));
        assert_eq!(heard.status, 200, "{}", heard.body);
        made(&heard, '<')
    };
    let bens = by_page("ben", "admin");
    // Made with the token of his: his as well.
    let child = asked(&bens, "POST", "/api/v1/tokens", "{\"role\": \"viewer\"}");
    let child = made(&child, '"');
    let (cleos, doras, doras_look) = (by_page("cleo", "admin"), by_page("dora", "admin"), by_page("dora", "viewer"));
    assert_eq!([&bens, &child, &cleos, &doras, &doras_look].map(|t| status(t)), [200; 5]);
    assert!(site.good("user disable ben").contains("API tokens that ended with it"));
    site.good("user remove cleo");
    site.good("user role dora viewer");
    assert_eq!([&bens, &child, &cleos, &doras].map(|t| status(t)), [401; 4]);
    assert_eq!([&doras_look, &console].map(|t| status(t)), [200; 2], "what she may still do, and what is nobody's own");
    site.good("user enable ben");
    assert_eq!(status(&bens), 401, "who is let in again makes a new one");
    site.good("user add cleo --role viewer --link");
    assert_eq!(status(&cleos), 401, "a name that somebody else has now gives nothing back");
}

#[test]
fn an_admin_manages_users_by_page_and_api_but_no_owner() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    add(&site, "ben", "admin");
    let cookie = format!("cookie: __Host-session={}\r\n", log_in(&site, "ben"));
    let page = ask(&site, "GET", "/organization/users", &cookie, "");
    let csrf = page.body.split_once("name=\"csrf\" value=\"").unwrap().1.split_once('"').unwrap().0.to_string();
    let send = |path: &str, fields: &str| form(&site, path, &cookie, &format!("csrf={csrf}&{fields}"));
    let made = send("/organization/users", "name=%3Cscript%3E&role=viewer");
    assert!(made.status == 422 && made.body.contains("&lt;script&gt;") && !made.body.contains("<script>alert"), "{}", made.body);
    let made = send("/organization/users", "name=cleo&role=owner");
    assert!(made.status == 422 && made.body.contains("it takes the role owner"), "{}", made.body);
    let made = send("/organization/users", "name=cleo&role=contributor");
    assert!(made.status == 200 && made.body.contains("/first?code="), "{} {}", made.status, made.body);
    for act in ["role", "link", "disable", "remove"] {
        send(&format!("/organization/users/anna/{act}"), "role=viewer");
    }
    let users: UsersView = site.json("user list --json");
    let states: Vec<String> = users.users.iter().map(|u| format!("{} {} {}", u.name, u.role, u.state)).collect();
    assert_eq!(states, ["anna owner active", "ben admin active", "cleo contributor invited"]);
    let log = site.good("audit --json");
    assert!(log.contains("\"action\":\"DisableUser\"") && log.contains("REFUSED (role_too_low)"), "{log}");
    // The API is the same door.
    let token = site.json::<ApiTokenView>("token create --role admin --json").token;
    let api = |method: &str, path: &str, body: &str| {
        ask(&site, method, path, &format!("authorization: Bearer {token}\r\nconnection: close\r\n"), body)
    };
    assert_eq!(api("POST", "/api/v1/users", "{\"name\": \"dora\", \"role\": \"owner\"}").status, 403);
    assert_eq!(api("DELETE", "/api/v1/users/anna", "{}").status, 403);
    let made = api("POST", "/api/v1/users", "{\"name\": \"dora\", \"role\": \"viewer\"}");
    assert!(made.status == 201 && made.body.contains("/first?code="), "{}", made.body);
    assert_eq!(api("POST", "/api/v1/users/dora/disable", "{}").status, 200);
    assert_eq!(api("POST", "/api/v1/tokens", "{\"role\": \"owner\"}").status, 403);
    let audit = api("GET", "/api/v1/audit?action=DisableUser", "");
    assert!(audit.status == 200 && audit.body.contains("\"object\":\"dora\"") && audit.body.contains("\"head\":"), "{}", audit.body);
    assert_eq!(api("GET", "/api/v1/audit/verify", "").status, 200);
    assert_eq!(api("GET", &format!("/api/v1/audit/verify?head={}", "0f".repeat(32)), "").status, 409);
}
