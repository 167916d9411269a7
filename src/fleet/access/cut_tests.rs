//! A power cut after any commit finds an act with its row of the audit log, or neither.

use std::collections::BTreeSet;

use super::door::{self, Caller};
use super::tests::site;
use super::*;
use crate::director::admin::AdminWire;
use crate::director::store::Store;
use crate::fleet::extra::FleetExtra;
use crate::fleet::role::FLEET;
use crate::wire::audit::Row;
use crate::wire::settings::SettingsWire;

/// Where acts leave something.
const TABLES: [Table; 9] = [
    Table::Users,
    Table::Sessions,
    Table::ApiTokens,
    Table::Tokens,
    Table::Webhooks,
    Table::Policies,
    Table::PolicyChanges,
    Table::Quarantine,
    Table::Activity,
];

/// What somebody finds after a cut: the state, the rows of the log, and which CA is in force in the files beside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    state: Vec<String>,
    rows: Vec<String>,
    pin: [u8; 32],
}

fn found(site: &Site, folder: &std::path::Path) -> Found {
    let copy = folder.join("copy.redb");
    std::fs::copy(folder.join("fleet.redb"), &copy).unwrap();
    let store = Store::open(&copy).unwrap();
    let (mut state, mut rows) = (Vec::new(), Vec::new());
    for table in TABLES {
        let take = |key: &str, text: &str| {
            state.push(format!("{table:?} {key} {text}"));
            true
        };
        store.each(table, take).unwrap();
    }
    for (_, row) in store.load::<Row>(Table::Audit).unwrap() {
        rows.push(format!("{} {} {}", row.action, row.object, row.description));
    }
    Found { state, rows, pin: site.ca.pin() }
}

/// Runs a command at a Fleet, and cuts after each of its commits: what was before, each different thing that was found, the end.
fn cut(site: &Rc<Site>, folder: &std::path::Path, wire: AdminWire, role: Role) -> (Found, BTreeSet<Found>, Result<String, Reason>) {
    let seen = RefCell::new(BTreeSet::new());
    let commits = async {
        loop {
            while site.store.is_committed() {
                smol::Timer::after(Duration::from_millis(1)).await;
            }
            site.store.commit().await.unwrap();
            seen.borrow_mut().insert(found(site, folder));
        }
    };
    let before = found(site, folder);
    let caller = Caller { by: "user anna".into(), ip: "192.0.2.1".into(), role };
    let done = smol::block_on(smol::future::or(door::command(site, wire, &caller), commits));
    (before, seen.into_inner(), done)
}

fn fleet(folder: &std::path::Path) -> Rc<Site> {
    let site = site(folder);
    site.registry.borrow_mut().role = &FLEET;
    let extra = FleetExtra::default();
    extra.access.start(&site).unwrap();
    *site.extra.borrow_mut() = Some(Rc::new(extra));
    smol::block_on(site.store.commit()).unwrap();
    site
}

fn act(command: &str, act: &str) -> AdminWire {
    AdminWire { command: command.into(), act: Some(act.into()).filter(|act: &String| !act.is_empty()), ..Default::default() }
}

#[test]
fn a_cut_finds_an_act_with_its_row_or_neither() {
    let folder = tempfile::tempdir().unwrap();
    let site = fleet(folder.path());
    let text = |text: &str| Some(text.to_string());
    let ben = |word: &str| AdminWire { user: text("ben"), ..act("user", word) };
    let manual = SettingsWire { mode: text("manual"), ..Default::default() };
    for (wire, action) in [
        (AdminWire { role: text("owner"), password: text("four plain words here"), ..ben("add") }, "CreateUser"),
        (ben("link"), "CreateUserLink"),
        (AdminWire { role: text("viewer"), user: text("cleo"), ..act("user", "add") }, "CreateUser"),
        (AdminWire { role: text("admin"), user: text("cleo"), ..act("user", "role") }, "ChangeUserRole"),
        (AdminWire { user: text("cleo"), ..act("user", "disable") }, "DisableUser"),
        (AdminWire { user: text("cleo"), ..act("user", "remove") }, "RemoveUser"),
        (AdminWire { role: text("viewer"), ..act("api-token", "") }, "CreateToken"),
        // The caller's own, with the token that was just made.
        (AdminWire { role: text("admin"), user: text("anna"), ..act("user", "add") }, "CreateUser"),
        (AdminWire { user: text("anna"), ..act("user", "remove") }, "RemoveUser"),
        (act("token", ""), "CreateKey"),
        (AdminWire { settings: Some(manual), ..act("policy", "set") }, "UpdatePolicy"),
        (AdminWire { hash: text(&"ab".repeat(32)), ..act("reject", "") }, "RejectFile"),
        (AdminWire { name: text("w"), url: text("https://hooks.example.org/x"), ..act("webhook", "create") }, "CreateWebhook"),
    ] {
        let (before, seen, done) = cut(&site, folder.path(), wire, Role::Owner);
        done.unwrap_or_else(|reason| panic!("{action}: {reason}"));
        assert_eq!(seen.len(), 1, "{action}: one transaction; {before:#?} {seen:#?}");
        let after = seen.first().unwrap();
        assert_eq!(after.rows.len(), before.rows.len() + 1, "{action}");
        assert!(after.rows.last().unwrap().starts_with(action) && after.state != before.state, "{action}: {after:#?}");
    }
}

#[test]
fn what_is_refused_has_a_row_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let site = fleet(folder.path());
    let add = AdminWire { role: Some("owner".into()), user: Some("ben".into()), ..act("user", "add") };
    let (before, seen, done) = cut(&site, folder.path(), add, Role::Admin);
    assert_eq!(done.unwrap_err().code, "role_too_low");
    let after = seen.first().unwrap();
    assert_eq!((seen.len(), &after.state, after.rows.len()), (1, &before.state, before.rows.len() + 1));
    assert!(after.rows.last().unwrap().contains("REFUSED (role_too_low)"), "{after:#?}");
}

#[test]
fn what_no_transaction_can_hold_is_noted_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let site = fleet(folder.path());
    let (before, seen, done) = cut(&site, folder.path(), act("ca", "rotate"), Role::Owner);
    done.unwrap();
    let begun = |found: &Found| found.rows.iter().any(|row| row.starts_with("RotateCa") && row.contains("BEGUN"));
    let ended = |found: &Found| found.rows.iter().any(|row| row.starts_with("RotateCa") && !row.contains("BEGUN"));
    assert!(seen.iter().any(|found| found.pin == before.pin && begun(found) && !ended(found)), "the row is there before the new CA is");
    assert!(seen.iter().all(begun) && seen.iter().filter(|found| ended(found)).all(|found| found.pin != before.pin), "{seen:#?}");
    assert!(seen.iter().any(ended));
}
