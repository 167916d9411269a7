//! `vmetric-fleet store`: backups, restores and migrations, as an operator runs them.
#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use vmetric::director::store::{Change, Store as Tables, Table};
use vmetric::fleet::store::command::local;
use vmetric::fleet::store::embedded::Embedded;
use vmetric::fleet::store::{Commit, Step, Store};

use super::on_one_thread;

/// Runs the command as `vmetric-fleet` does.
fn store(words: &str, state: &Path) -> Result<String, String> {
    let words: Vec<String> = format!("store {words}").split(' ').map(String::from).collect();
    let done = local(&words, Some(state.display().to_string())).unwrap();
    if let Err(error) = &done {
        println!("{error}");
    }
    done
}

const TABLES: [(Table, &str); 4] =
    [(Table::Meta, "issuer"), (Table::Users, "ada"), (Table::Policies, "organization"), (Table::Activity, "00000000000000000001")];

/// A Fleet's own file with some rows.
fn fleet(state: &Path) {
    std::fs::create_dir_all(state).unwrap();
    let tables = Tables::open(&state.join("fleet.redb")).unwrap();
    let row =
        |n: usize, (table, key): &(Table, &str)| Change { table: *table, key: key.to_string(), value: Some(format!("{{\"n\":{n}}}")) };
    tables.queue(TABLES.iter().enumerate().map(|(n, place)| row(n, place)).collect());
    // More than one commit of a restore takes.
    let many = |n: usize| Change {
        table: Table::PolicyChanges,
        key: format!("{n:020}"),
        value: Some(format!("{{\"at\":\"{}\"}}", "x".repeat(n))),
    };
    tables.queue((0..1_000).map(many).collect());
    smol::block_on(tables.commit()).unwrap();
    tables.close();
}

fn rows(state: &Path) -> BTreeMap<String, String> {
    let tables = Tables::open(&state.join("fleet.redb")).unwrap();
    let mut out = BTreeMap::new();
    for table in TABLES.iter().map(|(table, _)| *table).chain([Table::PolicyChanges, Table::Sessions]) {
        tables.each(table, |key, text| out.insert(format!("{table:?}/{key}"), text.to_string()).is_none()).unwrap();
    }
    out
}

/// Fleet's own file, into `place` and back, by migration and by backup.
pub fn there_and_back(place: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (one, other, third) = (folder.path().join("one"), folder.path().join("other"), folder.path().join("third"));
    fleet(&one);
    let before = rows(&one);
    assert_eq!(before.len(), 1_004);
    assert!(store("check", &one).unwrap().starts_with("good: 1004 rows"));
    // What Fleets do not share is not moved: one row each of activity, people and the file's own.
    let told = store(&format!("migrate --from fleet --to {place}"), &one).unwrap();
    assert!(told.starts_with("migrated and compared: 1001 rows") && told.contains("activity"), "{told}");
    assert!(!one.join("migration.backup").exists());
    let checked = store(&format!("check --from {place}"), &one).unwrap();
    assert!(checked.starts_with("good: revision") && checked.contains("1001 rows"), "{checked}");
    // It is not empty any more.
    let again = store(&format!("migrate --from fleet --to {place}"), &one).unwrap_err();
    assert!(again.contains("store_not_empty"), "{again}");
    std::fs::remove_file(one.join("migration.backup")).unwrap();
    // And back, into a state folder of its own.
    std::fs::create_dir_all(&other).unwrap();
    store(&format!("migrate --from {place} --to fleet"), &other).unwrap();
    let mut moved = before.clone();
    for stays in ["Activity/00000000000000000001", "Users/ada", "Meta/issuer"] {
        moved.remove(stays).unwrap();
    }
    assert_eq!(rows(&other), moved);
    // A backup has everything.
    let file = folder.path().join("backup");
    let told = store(&format!("backup {}", file.display()), &one).unwrap();
    assert!(told.contains("1004 rows") && told.contains("pki/"), "{told}");
    assert!(store(&format!("check {}", file.display()), &one).unwrap().contains("1004 rows of fleet"));
    assert!(store(&format!("backup {}", file.display()), &one).unwrap_err().contains("backup_exists"));
    std::fs::create_dir_all(&third).unwrap();
    store(&format!("restore {} --to fleet", file.display()), &third).unwrap();
    assert_eq!(rows(&third), before);
    assert!(store(&format!("restore {} --to fleet", file.display()), &third).unwrap_err().contains("store_not_empty"));
    assert_eq!(rows(&third), before);
}

#[test]
fn fleets_own_file_and_a_redb_store_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    there_and_back(&format!("redb:{}", folder.path().join("shared.redb").display()));
}

#[test]
fn a_fleet_that_runs_is_not_read_and_a_damaged_backup_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (state, file) = (folder.path().join("state"), folder.path().join("backup"));
    fleet(&state);
    let running = Tables::open(&state.join("fleet.redb")).unwrap();
    let reason = store(&format!("backup {}", file.display()), &state).unwrap_err();
    assert!(reason.contains("store_in_use") && reason.contains("stop"), "{reason}");
    assert!(!file.exists());
    running.close();
    drop(running);
    store(&format!("backup {}", file.display()), &state).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let target = folder.path().join("shared.redb");
    for to in [format!("redb:{}", target.display()), "fleet".to_string()] {
        let empty = folder.path().join("empty");
        std::fs::create_dir_all(&empty).unwrap();
        let reason = store(&format!("restore {} --to {to}", file.display()), &empty).unwrap_err();
        assert!(reason.contains("backup_damaged"), "{reason}");
        assert!(!target.exists() && !empty.join("fleet.redb").exists());
    }
    let nothing = folder.path().join("nothing");
    assert!(store("check", &nothing).unwrap_err().contains("fleet.redb"));
    for wrong in ["", "backup", "restore x", "restore x --to zk:1", "migrate --from fleet --to fleet", "check a b", "check a --from fleet"]
    {
        store(wrong, &state).unwrap_err();
    }
}

#[test]
fn an_interrupted_restore_is_told_and_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (state, file, target) = (folder.path().join("state"), folder.path().join("backup"), folder.path().join("shared.redb"));
    fleet(&state);
    store(&format!("backup {}", file.display()), &state).unwrap();
    on_one_thread(async |_| {
        let half: Rc<dyn Store> = Embedded::open(&target).unwrap();
        let commit = Commit::default().with(Step::put("!restore", "")).with(Step::put("users/half", "x"));
        half.commit(commit).await.unwrap();
    });
    let place = format!("redb:{}", target.display());
    assert!(store(&format!("check --from {place}"), &state).unwrap_err().contains("store_unfinished"));
    assert!(
        store(&format!("backup {} --from {place}", folder.path().join("b").display()), &state).unwrap_err().contains("store_unfinished")
    );
    store(&format!("restore {} --to {place}", file.display()), &state).unwrap();
    assert!(store(&format!("check --from {place}"), &state).unwrap().contains("1004 rows"));
}

#[test]
fn every_mistake_in_the_configuration_has_its_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.yml");
    let good = "store:\n  etcd:\n    endpoints: [https://a:2379, 'https://b:2379']\n    ca: /etc/ca.pem\n    user: fleet\n    password_file: /etc/pw\n";
    let told = |text: &str| {
        std::fs::write(&file, text).unwrap();
        store(&format!("check --from etcd:{}", file.display()), folder.path()).unwrap_err()
    };
    // Good so far: now the CA is looked for.
    assert!(told(good).contains("/etc/ca.pem"));
    for (text, line, field) in [
        ("", 1, "found an empty file"),
        ("# nothing\n", 1, "store: "),
        ("stores: 1\n", 1, "stores: "),
        ("store: redb\n", 1, "store: "),
        ("store:\n  redb: x\n", 2, "store.redb: "),
        (&good.replace("https://a:2379", "http://a:2379"), 3, "store.etcd.endpoints: "),
        (&good.replace("[https://a:2379, 'https://b:2379']", "[]"), 3, "store.etcd.endpoints: "),
        (&good.replace("    ca: /etc/ca.pem\n", ""), 3, "store.etcd.ca: "),
        (&good.replace("/etc/pw", "pw"), 6, "store.etcd.password_file: "),
        (&good.replace("    user: fleet\n", ""), 5, "store.etcd.password_file: "),
        (&good.replace("user:", "users:"), 5, "store.etcd.users: "),
        (&format!("{good}    key: /k\n"), 7, "store.etcd.key: "),
    ] {
        let told = told(text);
        assert!(told.contains(&format!("fleet.yml:{line}: {field}")), "{text}\n{told}");
    }
    assert!(store("check --from etcd:/nowhere/fleet.yml", folder.path()).unwrap_err().contains("no such file"));
}
