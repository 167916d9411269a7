//! The audit log at the real Fleet: every door's acts, a chain that shows every change, exports that can be verified elsewhere.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use miniserde::json;
use vmetric::director::api_tokens::ApiTokenView;
use vmetric::fleet::access::command::VerifiedView;
use vmetric::wire::audit::{Head, Row, read};

use crate::access::{add, form, log_in};
use crate::director_bench::Site;

fn rows(site: &Site) -> Vec<Row> {
    read(&site.good("audit --json")).unwrap().1
}

fn has(rows: &[Row], action: &str, part: &str) -> bool {
    rows.iter().any(|row| row.action == action && json::to_string(row).contains(part))
}

#[test]
fn every_door_has_its_rows() {
    let mut site = Site::fleet();
    add(&site, "anna", "owner");
    form(&site, "/login", "", "name=anna&password=wrong");
    form(&site, "/login", "", "name=my-password-by-mistake&password=wrong");
    log_in(&site, "anna");
    let admin: ApiTokenView = site.json("token create --role admin --json");
    let viewer: ApiTokenView = site.json("token create --role viewer --json");
    let post = |token: &str, body: &str| {
        let url = format!("{}/api/v1/keys", site.url);
        site.http().post_json(&url, Some(token), body, 1 << 20, std::time::Duration::from_secs(20)).unwrap().status
    };
    assert_eq!((post(&admin.token, "{}"), post(&viewer.token, "{}"), post(&viewer.token, "{}")), (201, 403, 403));
    site.good("policy set --default --mode manual");
    site.bad("user role nobody viewer");
    site.good("status");
    let noted = rows(&site);
    for (action, part) in [
        ("CreateUser", "\"object\":\"anna\""),
        ("LoginFailed", "\"object\":\"anna\""),
        ("LoginSuccess", "\"ip\":\"127.0.0.1\""),
        ("CreateToken", "role=viewer"),
        ("CreateKey", &format!("api token {}", admin.id)),
        ("AccessDenied", "POST /api/v1/keys"),
        ("UpdatePolicy", "mode=manual"),
        ("ChangeUserRole", "REFUSED (user_unknown)"),
    ] {
        assert!(has(&noted, action, part), "{action} {part}: {noted:#?}");
    }
    assert_eq!(noted.iter().filter(|row| row.action == "AccessDenied").count(), 1, "once in five minutes");
    let all = json::to_string(&noted);
    assert!(!all.contains("four plain words") && !all.contains("by-mistake") && !all.contains(&admin.token), "no secret");
    assert!(noted.iter().all(|row| row.action != "Status"));
    site.kill();
    site.start();
    assert_eq!(rows(&site)[..noted.len()], noted[..], "they outlive a SIGKILL");
    let verified: VerifiedView = site.json("audit verify --json");
    assert!(verified.rows > noted.len() as u64 && verified.last == verified.rows, "the export is a row, too: {verified:?}");
    let kept = &noted[3].hash;
    assert!(site.good(&format!("audit verify --head {kept}")).starts_with("good: "));
    assert!(site.bad(&format!("audit verify --head {}", "0f".repeat(32))).contains("kept hash"));
    assert!(site.good("audit --user anna --action loginsuccess").contains("LoginSuccess"));
}

#[test]
fn an_export_is_verified_without_the_server() {
    let mut site = Site::fleet();
    for name in ["anna", "ben", "cleo"] {
        add(&site, name, "owner");
    }
    site.typed("user add dora --role admin", "=cmd|x,y \"z\" long enough\n");
    let (csv, lines) = (site.good("audit --csv"), site.good("audit --json"));
    site.stop();
    let file = site.bench.path("export");
    let verify = |text: &str, more: &str| {
        std::fs::write(&file, text).unwrap();
        site.run(&format!("audit verify --file {} {more}", file.display()))
    };
    for text in [&csv, &lines] {
        let good = verify(text, "");
        assert!(good.code == 0 && good.out.starts_with("good: rows 1 to "), "{}{}", good.out, good.err);
    }
    let head: Head = json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(verify(&lines, &format!("--head {}", head.head)).code, 0);
    for (from, to, row) in [("CreateUser", "RemoveUser", "row 1"), ("\"ben\"", "\"bob\"", "row 2")] {
        for text in [&csv, &lines] {
            let bad = verify(&text.replacen(from, to, 1), "");
            assert!(bad.code == 1 && bad.err.contains("audit_broken") && bad.err.contains(row), "{}", bad.err);
        }
    }
    let without =
        |text: &str, at: usize| text.lines().enumerate().filter(|(n, _)| *n != at).map(|(_, l)| format!("{l}\n")).collect::<String>();
    assert!(verify(&without(&csv, 2), "").err.contains("rows 2 to 2 are missing"));
    let last = lines.lines().count() - 1;
    assert!(verify(&without(&lines, last), "").err.contains("cut off"));
    assert!(verify("{}", "").err.contains("export_invalid") && verify("", "").err.contains("export_invalid"));
    assert_eq!(site.run("audit verify --file /nonexistent").code, 1);
}

#[test]
fn an_older_copy_of_the_store_is_told_by_a_kept_hash() {
    let mut site = Site::fleet();
    add(&site, "anna", "owner");
    site.stop();
    let (store, copy) = (site.state().join("fleet.redb"), site.bench.path("copy.redb"));
    std::fs::copy(&store, &copy).unwrap();
    site.start();
    add(&site, "ben", "owner");
    let kept: VerifiedView = site.json("audit verify --json");
    site.stop();
    std::fs::copy(&copy, &store).unwrap();
    site.start();
    assert!(site.good("audit verify").starts_with("good: 1 rows"), "by itself it is whole");
    assert!(site.bad(&format!("audit verify --head {}", kept.head)).contains("restored"));
    assert!(site.good("user list").contains("anna"));
}
