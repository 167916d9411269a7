//! Every form of the GUI: what is wrong stands beside its field, what was typed is kept, a name that is a program is text,
//! and a session that ended leads back to the page of the form. A form that is in no table here fails.

use std::collections::BTreeSet;

use vmetric::fleet::gui::routes;

use crate::access::{Heard, add, ask, form, log_in};
use crate::director_bench::{FakeAgent, Site, agent_file};
use crate::gui::{address, csrf, get, install_wire, row, tell_with, world};

/// What somebody types who looks for a hole.
const EVIL: &str = "<script>alert(1)</script>\"'&";
/// The same in a form, and as the text of a page.
const SENT: &str = "%3Cscript%3Ealert(1)%3C/script%3E%22%27%26";
const SHOWN: &str = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;";

/// A form that is typed into: route, what is sent, which field is wrong and what is said there, what is kept.
struct Typed {
    id: &'static str,
    sent: &'static str,
    wrong: &'static [(&'static str, &'static str)],
    kept: &'static [&'static str],
}

const SCHEDULE: &str = "mode=auto&method=schedule&when=cron&version=latest";

/// `EVIL` stands for [`SENT`] in what is sent and for [`SHOWN`] in what is kept; `ID` for a Director.
const FORMS: &[Typed] = &[
    Typed {
        id: "director-new-step",
        sent: "step=0&go=next&name=&uses=0&ttl=86400&arch=arm64&approval=on",
        wrong: &[("name", "Type a name."), ("uses", "A whole number from 1 to 1000.")],
        kept: &["value=\"86400\" selected", "value=\"arm64\" selected", "value=\"0\"", "value=\"on\" checked"],
    },
    Typed {
        id: "director-new-step",
        sent: "step=1&go=next&name=EVIL&uses=1&ttl=3600&arch=amd64&custom=on&SCHEDULE&cron=EVIL&zone=UTC",
        wrong: &[("cron", "")],
        kept: &["name=\"name\" value=\"EVIL\"", "name=\"cron\" type=\"text\" value=\"EVIL\"", "value=\"schedule\" checked"],
    },
    Typed { id: "cluster-new-step", sent: "step=0&go=next&name=", wrong: &[("name", "Type a name.")], kept: &[] },
    Typed {
        id: "cluster-new-step",
        sent: "step=1&go=next&name=EVIL&member=ID",
        wrong: &[("member", "Choose 3 to 15 Directors, an odd number of them")],
        kept: &["name=\"name\" value=\"EVIL\"", "value=\"ID\" checked"],
    },
    Typed {
        id: "cluster-new-step",
        sent: "step=2&go=next&name=EVIL&member=ID&member=x&member=y&custom=on&SCHEDULE&cron=0+2+*+*+0&zone=EVIL",
        wrong: &[("zone", "")],
        kept: &["name=\"name\" value=\"EVIL\"", "name=\"zone\" type=\"text\" value=\"EVIL\""],
    },
    Typed {
        id: "device-new-step",
        sent: "step=0&go=next&name=&director=EVIL&ttl=604800&approval=on",
        wrong: &[("name", "Type a name."), ("director", "")],
        kept: &["value=\"604800\" selected", "value=\"on\" checked"],
    },
    Typed {
        id: "device-new-step",
        sent: "step=1&go=next&name=EVIL&director=ID&ttl=3600&custom=on&mode=auto&method=schedule&when=interval&interval=EVIL&version=latest",
        wrong: &[("interval", "")],
        kept: &["name=\"name\" value=\"EVIL\"", "name=\"interval\" type=\"text\" value=\"EVIL\"", "value=\"interval\" checked"],
    },
    Typed {
        id: "template-new-step",
        sent: "step=0&go=next&name=&director=ID&uses=EVIL&ttl=never",
        wrong: &[("name", "Type a name."), ("uses", "A whole number from 1"), ("ttl", "Without an end")],
        kept: &["value=\"EVIL\"", "value=\"never\" selected"],
    },
    Typed {
        id: "template-save",
        sent: "name=EVIL&uses=0&ttl=3600&approval=on&mode=manual&revision=0",
        wrong: &[("uses", "A whole number from 1")],
        kept: &["name=\"name\" type=\"text\" value=\"EVIL\"", "value=\"0\"", "value=\"3600\" selected", "value=\"on\" checked"],
    },
    Typed {
        id: "template-save",
        sent: "name=EVIL&uses=7&ttl=&custom=on&SCHEDULE&cron=EVIL",
        wrong: &[("cron", "")],
        kept: &["name=\"name\" type=\"text\" value=\"EVIL\"", "value=\"7\"", "name=\"cron\" type=\"text\" value=\"EVIL\""],
    },
    Typed {
        id: "update-management-save",
        sent: "scope=organization&SCHEDULE&cron=EVIL&zone=UTC&revision=0",
        wrong: &[("cron", "")],
        kept: &["name=\"cron\" type=\"text\" value=\"EVIL\"", "value=\"schedule\" checked"],
    },
    Typed {
        id: "update-management-save",
        sent: "scope=node/ID&custom=on&mode=auto&method=immediate&version=EVIL&revision=0",
        wrong: &[("version", "")],
        kept: &["name=\"version\" type=\"text\" value=\"EVIL\"", "value=\"immediate\" checked"],
    },
    Typed {
        id: "webhook-add",
        sent: "name=EVIL&url=http://EVIL&event=rolled_back",
        wrong: &[("url", "Has blanks, a fragment, or characters")],
        kept: &["value=\"EVIL\"", "value=\"http://EVIL\"", "value=\"rolled_back\" checked"],
    },
    Typed {
        id: "tokens-change",
        sent: "role=EVIL&ttl=31536000",
        wrong: &[("role", "A role is one of")],
        kept: &["value=\"31536000\" selected"],
    },
    Typed {
        id: "userAdd",
        sent: "name=EVIL&role=contributor",
        wrong: &[("name", "A name has 1 to 64 characters")],
        kept: &["value=\"EVIL\"", "value=\"contributor\" checked"],
    },
    Typed {
        id: "account-password",
        sent: "current=EVIL&password=a&again=b",
        wrong: &[("current", "This is not your present password")],
        kept: &[],
    },
    Typed { id: "account-password", sent: "current=PASSWORD&password=short&again=short", wrong: &[("password", "")], kept: &[] },
    Typed {
        id: "account-password",
        sent: "current=PASSWORD&password=quite+long+enough&again=quite+long",
        wrong: &[("again", "This is not the same password again")],
        kept: &[],
    },
];

/// Forms that nothing is typed into but a reason, or that choose among what is shown; what does not work is said on the next page.
const ACTS: &[&str] = &[
    "theme",
    "update-management-preview",
    "directorAssign",
    "directorCancel",
    "directorRetry",
    "directorReject",
    "directorDecide",
    "directorRemove",
    "directorReplace",
    "rolloutResume",
    "rolloutCancel",
    "allow",
    "refresh",
    "template-renew",
    "template-enable",
    "template-disable",
    "template-remove",
    "cluster-remove",
    "cluster-pause",
    "cluster-abort",
    "cluster-override",
    "cluster-resume",
    "updates-confirm",
    "agents-confirm",
    "agents-confirm-revoke",
    "webhook-test",
    "webhook-enable",
    "webhook-disable",
    "webhook-remove",
    "userRole",
    "userLink",
    "userDisable",
    "userEnable",
    "userRemove",
    "sessionEnd",
];

fn cookie(session: &str) -> String {
    format!("cookie: __Host-session={session}\r\n")
}

/// What a page says, without the layout.
fn main_of(body: &str) -> &str {
    body.split_once("<main").map_or(body, |(_, rest)| rest)
}

/// A Fleet whose Director told where devices enroll, with a template; its id.
fn furnished() -> (Site, String, FakeAgent, String) {
    let (site, session, director) = world();
    tell_with(&director, [row(0, EVIL)].into_iter(), Some(&install_wire()));
    site.add_of("vmetric-agent", "2.0.0", &agent_file("2.0.0"));
    site.publish();
    site.good("mirror");
    let made: serde_json::Value =
        serde_json::from_str(&site.good(&format!("template create many --director {} --json", director.report.agent_id))).unwrap();
    let template = made["templates"][0]["id"].as_str().unwrap().to_string();
    (site, session, director, template)
}

#[test]
fn every_form_says_what_is_wrong_beside_its_field_and_keeps_what_was_typed() {
    let known: BTreeSet<&str> = FORMS.iter().map(|f| f.id).chain(ACTS.iter().copied()).collect();
    let posts: BTreeSet<&str> = routes::all().filter(|r| r.method == "POST").map(|r| r.id).collect();
    assert_eq!(posts, known, "a new form belongs into one of the two tables of this file");
    let (site, session, director, template) = furnished();
    let token = csrf(&get(&site, &session, "/account"));
    let id = &director.report.agent_id;
    for typed in FORMS {
        let route = routes::all().find(|r| r.id == typed.id && r.method == "POST").unwrap();
        let path = address(route, &director).replace("{template}", &template);
        let sent = typed.sent.replace("SCHEDULE", SCHEDULE).replace("EVIL", SENT).replace("ID", id);
        let sent = sent.replace("PASSWORD", &crate::access::PASSWORD.replace(' ', "+"));
        let heard = form(&site, &path, &cookie(&session), &format!("csrf={token}&{sent}"));
        let of = format!("{} {}", typed.id, typed.sent);
        assert_eq!(heard.status, 422, "{of}: {}", main_of(&heard.body));
        for (field, says) in typed.wrong {
            let (_, rest) = heard
                .body
                .split_once(&format!("{field}-error\">{says}"))
                .unwrap_or_else(|| panic!("{of}: {field}: {}", main_of(&heard.body)));
            assert!(!rest.starts_with("</p>") || !says.is_empty(), "{of}: nothing is said beside {field}: {}", main_of(&heard.body));
        }
        for kept in typed.kept {
            let kept = kept.replace("EVIL", SHOWN).replace("ID", id);
            assert!(heard.body.contains(&kept), "{of}: {kept} is gone: {}", main_of(&heard.body));
        }
        for password in ["quite long", "short", crate::access::PASSWORD] {
            assert!(!heard.body.contains(&format!("value=\"{password}")), "{of}: a password is shown");
        }
        assert!(!heard.body.contains("<script>alert"), "{of}");
    }
}

#[test]
fn a_name_that_is_a_program_is_text_wherever_it_is_shown() {
    let (site, session, director, _) = furnished();
    let token = csrf(&get(&site, &session, "/account"));
    let id = &director.report.agent_id;
    let more: Vec<FakeAgent> = ["b", "c"].iter().map(|name| site.enroll(name)).collect();
    for one in &more {
        one.report();
    }
    let members = format!("member={id}&member={}&member={}", more[0].report.agent_id, more[1].report.agent_id);
    let policy = "custom=on&mode=auto&method=immediate&version=latest";
    for (path, sent, status) in [
        ("/devices/linux/new".to_string(), format!("step=1&go=next&name=1{SENT}&director={id}&ttl=3600&{policy}"), 200),
        ("/devices/templates/new".into(), format!("step=1&go=next&name=2{SENT}&director={id}&uses=5&ttl=3600&{policy}"), 200),
        ("/fleet-management/clusters/new".into(), format!("step=2&go=next&name=3{SENT}&{members}&{policy}"), 303),
        ("/organization/settings/notifications".into(), format!("name=4{SENT}&url=https://hooks.invalid/x"), 200),
        (format!("/fleet-management/directors/{id}/cancel"), format!("reason=5{SENT}"), 303),
    ] {
        let heard = form(&site, &path, &cookie(&session), &format!("csrf={token}&{sent}"));
        assert_eq!(heard.status, status, "{path}: {}", main_of(&heard.body));
        assert!(!heard.body.contains("<script>alert"), "{path}: {}", main_of(&heard.body));
    }
    let listed = |path: &str, n: u32| {
        let page = get(&site, &session, path);
        assert!(page.body.contains(&format!("{n}{SHOWN}")), "{path}: {}", main_of(&page.body));
        assert!(!page.body.contains("<script>alert"), "{path}");
    };
    listed("/devices/templates", 1);
    listed("/devices/templates", 2);
    listed("/fleet-management/clusters", 3);
    listed(&format!("/fleet-management/directors/{id}"), 3);
    listed("/organization/settings/notifications", 4);
    listed("/activity", 5);
    listed("/organization/audit", 5);
    for path in crate::gui::pages(&director) {
        let heard = get(&site, &session, &path);
        let page = heard.header("content-type").unwrap_or_default().starts_with("text/html");
        assert!(!page || !heard.body.contains("<script>alert"), "{path}");
    }
}

#[test]
fn a_session_that_ends_while_one_types_leads_back_to_the_page_of_the_form() {
    let site = Site::fleet();
    add(&site, "anna", "owner");
    log_in(&site, "anna");
    let leads = |referer: &str| -> Heard {
        form(&site, "/update-management", &format!("cookie: __Host-session=gone\r\nreferer: {referer}\r\n"), "csrf=x")
    };
    let to = |heard: &Heard| heard.header("location").unwrap();
    let page = "https://fleet.test/organization/settings/update-management?x=1";
    assert_eq!(to(&leads(page)), "/login?next=/organization/settings/update-management%3Fx%3D1");
    for other in [
        "https://evil.example/x",
        "https://fleet.test.evil.example/x",
        "http://fleet.test/x",
        "https://fleet.test//evil.example/",
        "/x",
        "",
    ] {
        assert_eq!(to(&leads(other)), "/login", "{other}");
    }
    let asked = ask(&site, "GET", "/devices/linux", "referer: https://fleet.test/elsewhere\r\n", "");
    assert_eq!(to(&asked), "/login?next=/devices/linux");
}
