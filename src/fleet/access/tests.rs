//! Cookies, origins and ways back, without a server.

use ureq_proto::http::{HeaderMap, HeaderName, HeaderValue};

use super::sessions::{COOKIE, token};
use super::*;

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
