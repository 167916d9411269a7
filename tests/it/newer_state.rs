//! What a newer version wrote is read by this one: rows with more fields, more rows, tables, files. FROZEN.md says what stays.
//!
//! `VMETRIC_RECORD=1 cargo test --test it newer_state` wrote `tests/fixtures/frozen/store.jsonl`, once: the rows of a Director's
//! store of 0.1.0 as a newer version leaves them.

#![allow(clippy::disallowed_methods, reason = "tests write files, and read the environment to record")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use miniserde::json::{self, Value};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableHandle};

use vmetric::core::hex;
use vmetric::core::product::DIRECTOR;
use vmetric::core::slots::{Image, Slot};
use vmetric::io::state::State;

use crate::agent::text;
use crate::director_bench::Site;
use crate::own_update::{Own, fleet, release, variant};

/// A field, a table, a key and a file that this version knows nothing of.
const FIELD: &str = r#""a_later_field":{"x":[1,null,"y"]}"#;
const TABLE: &str = "a_later_table";
const KEY: &str = "a_later_key";
const FILES: [&str; 3] = ["a-later-file.json", "a-later-folder/file", "own/a-later-file.json"];
/// What the fixture was recorded into.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/frozen/store.jsonl");

/// Rows by table and key.
type Rows = BTreeMap<(String, String), String>;

fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn read(file: &Path) -> Rows {
    let database = Database::create(file).unwrap();
    let transaction = database.begin_read().unwrap();
    let mut rows = Rows::new();
    for handle in transaction.list_tables().unwrap() {
        for row in transaction.open_table(table(handle.name())).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            rows.insert((handle.name().into(), text(key.value())), text(value.value()));
        }
    }
    rows
}

fn write(file: &Path, rows: &Rows) {
    let transaction = Database::create(file).unwrap().begin_write().unwrap();
    for ((name, key), value) in rows {
        transaction.open_table(table(name)).unwrap().insert(key.as_bytes(), value.as_bytes()).unwrap();
    }
    transaction.commit().unwrap();
}

/// The same rows as a version writes them that has more to say.
fn newer(rows: &Rows) -> Rows {
    let more = |text: &String| match text.strip_suffix('}') {
        Some(rest) if rest.ends_with('{') => format!("{rest}{FIELD}}}"),
        Some(rest) => format!("{rest},{FIELD}}}"),
        None => text.clone(),
    };
    let mut rows: Rows = rows.iter().map(|(key, text)| (key.clone(), more(text))).collect();
    // Before and after the keys that are known.
    for key in [KEY, "zz_later_key"] {
        rows.insert(("meta".into(), key.into()), r#"{"schema":7}"#.into());
        rows.insert(("uplink".into(), key.into()), r#"{"schema":7}"#.into());
        rows.insert((TABLE.into(), key.into()), format!("{{{FIELD}}}"));
    }
    rows
}

/// A store with rows in the tables of a Director that has been at work.
fn at_work(site: &Site) -> crate::director_bench::FakeAgent {
    let mut one = site.enroll("one");
    let two = site.enroll("two");
    site.good(&format!("assign --agent {} --version 2.0.0", one.report.agent_id));
    let order = one.report().order.unwrap();
    one.update(&order);
    site.good(&format!("reject {} --agent {} --reason no", order.sha256, two.report.agent_id));
    site.good(&format!("policy set --agent {} --mode auto --method user_action --version 2.0.0", one.report.agent_id));
    site.good("token create --uses 3 --ttl 365d --approval");
    site.good("api-token create --role viewer");
    one
}

fn lay_files(state: &Path) {
    for name in FILES {
        let path = state.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{{{FIELD}}}")).unwrap();
    }
    // Records that every start reads.
    fs::write(state.join("own/steps.json"), format!(r#"{{"next":9,"steps":[],{FIELD}}}"#)).unwrap();
}

#[test]
fn a_store_that_a_newer_version_wrote_is_served_and_what_is_not_written_again_stays() {
    let mut site = Site::new();
    let mut one = at_work(&site);
    let file = site.state().join("director.redb");
    assert_eq!(site.stop(), Some(0));
    let before = newer(&read(&file));
    write(&file, &before);
    lay_files(&site.state());
    if std::env::var_os("VMETRIC_RECORD").is_some() {
        let line = |((table, key), value): (&(String, String), &String)| json::to_string(&[table, key, value]);
        fs::write(FIXTURE, before.iter().map(line).collect::<Vec<_>>().join("\n") + "\n").unwrap();
    }
    for name in ["agents", "tokens", "orders", "rollouts", "activity", "quarantine", "api_tokens", "policies", "meta"] {
        assert!(before.keys().any(|(table, _)| table == name), "{name} is empty: the test shows nothing of it");
    }

    site.start();
    assert_eq!(site.view(&one).version, "2.0.0", "known, and its credential holds");
    assert_eq!(one.report().issuer, one.report.issuer, "the issuer is the one of before");
    for (command, word) in [("rollouts", "2.0.0"), ("rejections", "no"), ("policy show", "user_action"), ("token list", "approval")] {
        let said = site.good(&format!("{command} --json"));
        assert!(said.contains(word), "{command}: {said}");
    }
    // It works on, and writes one of those rows again.
    one.report.version = "2.0.1".into();
    one.report();
    let three = site.enroll("three");
    assert_eq!(site.view(&one).version, "2.0.1");
    assert_eq!(site.stop(), Some(0));
    let after = read(&file);
    let rewritten: Vec<_> = before.iter().filter(|(key, text)| after.get(*key) != Some(*text)).map(|(key, _)| key).collect();
    assert!(after.contains_key(&("agents".into(), three.report.agent_id.clone())));
    // What this version had to write again keeps what this version knows; all the rest is as the newer version left it.
    let allowed = |table: &str, key: &str| match table {
        "agents" => key == one.report.agent_id,
        "tokens" | "spent" | "uplink" => key != KEY && key != "zz_later_key",
        _ => false,
    };
    let lost: Vec<_> = rewritten.iter().filter(|(table, key)| !allowed(table, key)).collect();
    assert!(lost.is_empty(), "written again or lost: {lost:?}");
    for name in FILES {
        assert_eq!(fs::read_to_string(site.state().join(name)).unwrap(), format!("{{{FIELD}}}"), "{name}");
    }
}

#[test]
fn the_kept_store_of_the_first_version_still_reads() {
    let text = fs::read_to_string(FIXTURE).unwrap();
    let rows: Rows = text
        .lines()
        .map(|line| json::from_str::<Vec<String>>(line).unwrap())
        .map(|r| ((r[0].clone(), r[1].clone()), r[2].clone()))
        .collect();
    let mut site = Site::new();
    assert_eq!(site.stop(), Some(0));
    let file = site.state().join("director.redb");
    fs::remove_file(&file).unwrap();
    write(&file, &rows);
    site.start();
    let agents: Value = site.json("agents --json");
    let said = json::to_string(&agents);
    assert!(said.contains(r#""hostname":"one""#) && said.contains(r#""hostname":"two""#), "{said}");
    // What has no end; the rest is let go of after its time.
    for (command, word) in [("rejections", "no"), ("policy show", "user_action")] {
        let said = site.good(&format!("{command} --json"));
        assert!(said.contains(word), "{command}: {said}");
    }
    let issuer = &rows[&("meta".to_string(), "issuer".to_string())];
    let answered = site.enroll("three").report();
    assert!(issuer.contains(&answered.issuer), "orders are given in the name of the store that was kept: {issuer}");
}

/// A Director went to a newer version and came back: its marks, its identity and its slots say more than it knows.
#[test]
fn marks_and_identity_that_a_newer_version_wrote_are_obeyed() {
    let fleet = fleet(&[]);
    release(&fleet, "2.0.0", &variant("two"));
    let mut own = Own::updated(&fleet, "2.0.0");
    own.end();
    let more = |text: &str| format!("{},{FIELD}}}", text.trim_end().strip_suffix('}').unwrap());
    for name in ["marks.0", "marks.1"] {
        let record = fs::read_to_string(own.path("state").join(name)).unwrap();
        let line = more(record.lines().next().unwrap());
        let sum = hex::encode(&hex::sha256(line.as_bytes()));
        let mut record = format!("{line}\n{sum}\n").into_bytes();
        record.resize(vmetric::wire::marks::RECORD, b' ');
        fs::write(own.path("state").join(name), record).unwrap();
    }
    for name in ["config/fleet.json", "config/fleet.json.copy"] {
        let text = fs::read_to_string(own.path("state").join(name)).unwrap();
        let (body, _) = text.rsplit_once(",\"sum\":\"").unwrap();
        let body = format!("{body},{FIELD}");
        let sum = &hex::encode(&hex::sha256(body.as_bytes()))[..text.trim_end().rsplit('"').nth(1).unwrap().len()];
        fs::write(own.path("state").join(name), format!("{body},\"sum\":\"{sum}\"}}")).unwrap();
    }
    for name in ["slots/a/slot.json", "order.json", "last-result.json"] {
        let path = own.path("state").join(name);
        fs::write(&path, more(&fs::read_to_string(&path).unwrap())).unwrap();
    }
    let identity = fs::read(own.path("state/config/fleet.json")).unwrap();
    let marks = State::look_of(&DIRECTOR, &own.path("state")).load_marks();
    assert!(marks.note.is_none() && marks.marks.active == Image::Slot(Slot::A), "{:?}", marks.note);
    own.start(false);
    let runs = |s: &Value| text(s, "own.running") == "a" && text(s, "own.running_as") == "confirmed";
    let status = own.wait("contact under that identity", |s| runs(s) && text(s, "own.last_contact") != "null");
    assert_eq!((text(&status, "own.last_result.outcome"), text(&status, "own.contact_code")), ("updated".into(), String::new()));
    // It orders and updates on, and what it had no reason to write again stays as it was.
    release(&fleet, "3.0.0", &variant("three"));
    fleet.good("assign --all --version 3.0.0 --end-probation");
    own.ended("updated", "3.0.0");
    assert_eq!(fs::read(own.path("state/config/fleet.json")).unwrap(), identity);
}
