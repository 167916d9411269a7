//! Paths that stand in neither table of routes: each is named here with what guards it, and asked without anything.

use crate::access::{ask, form};
use crate::director_bench::Site;
use crate::tidy::sources;

/// What lets somebody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// Whoever reaches the server: it says nothing that is a secret.
    Open,
    /// A Director's credential, in the body's signature or the header.
    Credential,
    /// A token of the API.
    Token,
    /// A password or a one-time link, which the path itself is for; or a session.
    Login,
    /// It is no path but the beginning of some.
    Prefix,
}

/// Every path that the server's own code names. A new one fails the test below until it stands here with its guard.
const PATHS: [(&str, &str, Guard); 24] = [
    ("POST", "/agent/v1/", Guard::Prefix),
    ("POST", "/agent/v1/enroll", Guard::Credential),
    ("POST", "/agent/v1/report", Guard::Credential),
    ("POST", "/agent/v1/poll", Guard::Credential),
    ("GET", "/healthz", Guard::Open),
    ("GET", "/readyz", Guard::Open),
    ("GET", "/release/", Guard::Prefix),
    // Signed by others, and what a Director mirrors before it has anything to show.
    ("GET", "/release/targets/", Guard::Open),
    ("GET", "/dl/", Guard::Prefix),
    ("GET", "/dl/cert.pem", Guard::Open),
    // A Director's; Fleet has none.
    ("GET", "/dl/agent", Guard::Prefix),
    ("GET", "/dl/director", Guard::Credential),
    ("GET", "/metrics", Guard::Token),
    ("POST", "/fleet/v1/health", Guard::Credential),
    ("POST", "/fleet/v1/activity", Guard::Credential),
    ("GET", "/fleet/v1/settings", Guard::Credential),
    ("POST", "/v1/pre-reboot", Guard::Credential),
    ("POST", "/v1/steady-state", Guard::Credential),
    ("POST", "/login", Guard::Login),
    ("POST", "/first", Guard::Login),
    ("POST", "/logout", Guard::Login),
    ("GET", "/static/", Guard::Open),
    ("POST", "/fleet/v1/", Guard::Prefix),
    ("GET", "/api/v1/", Guard::Prefix),
];

/// In the tables of pages and of the API, or their names; `every_page_has_its_act...` and its sister look at them. And what
/// the store asks of etcd.
const TABLES: [&str; 5] =
    ["src/fleet/api/", "src/fleet/gui/pages/", "src/fleet/gui/routes.rs", "src/fleet/gui/live.rs", "src/fleet/store/"];
/// Folders of machines, and pictures.
const OTHERS: [&str; 6] = ["/etc/", "/var/", "/proc/", "/usr/", "/run/", "/favicon.ico"];

/// A path in a line of code.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'/' | b'.' | b'_' | b'-');
    let found = line.match_indices("\"/").filter_map(move |(at, _)| line[at + 1..].split_once('"').map(|(path, _)| path));
    found.filter(move |path| path.len() > 1 && path.bytes().all(plain))
}

#[test]
fn a_path_that_the_server_names_is_named_here() {
    let (mut unknown, mut seen) = (Vec::new(), 0);
    for source in ["src/director", "src/fleet"].into_iter().flat_map(sources) {
        if TABLES.iter().any(|table| source.path.starts_with(table)) {
            continue;
        }
        for path in source.code.iter().flat_map(|line| paths(line)).filter(|path| !OTHERS.iter().any(|other| path.starts_with(other))) {
            seen += 1;
            if !PATHS.iter().any(|(_, known, _)| known.trim_end_matches('/') == path.trim_end_matches('/')) {
                unknown.push(format!("{}: {path}", source.path));
            }
        }
    }
    assert!(seen > 20, "{seen}: the search finds them");
    assert!(unknown.is_empty(), "paths without a rule here: {unknown:#?}");
}

#[test]
fn nothing_but_what_is_open_answers_a_stranger() {
    let site = Site::fleet();
    for (method, path, guard) in PATHS {
        let path = if path.starts_with("/dl/") && guard == Guard::Credential { format!("{path}/linux/amd64") } else { path.to_string() };
        let heard = if guard == Guard::Login {
            form(&site, &path, "", "name=a&password=b&code=c")
        } else {
            ask(&site, method, &path, "content-type: application/json\r\nconnection: close\r\n", "{}")
        };
        let fits = match guard {
            Guard::Open => matches!(heard.status, 200 | 404 | 503),
            Guard::Credential => matches!(heard.status, 400 | 401 | 403),
            Guard::Token => heard.status == 401,
            // `/logout` takes away what is not there.
            Guard::Login => !heard.head.contains("Max-Age=604800") && matches!(heard.status, 303 | 401 | 410),
            Guard::Prefix => matches!(heard.status, 401 | 403 | 404 | 405),
        };
        assert!(fits, "{method} {path} ({guard:?}): {} {}", heard.status, heard.body);
    }
}
