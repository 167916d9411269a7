//! What FROZEN.md promises: the written examples of version 0.1.0 still read, with and without unknown fields, and no field
//! has been renamed or dropped.

use std::fs;

use miniserde::json::{self, Value};
use miniserde::{Deserialize, Serialize};
use vmetric::core::first_boot::Settings;
use vmetric::core::slots::{Condition, Image, Reached};
use vmetric::wire::agent_api::{AnswerWire, EnrollWire, EnrolledWire, ReportWire};
use vmetric::wire::config::ConfigWire;
use vmetric::wire::records::AcceptedWire;
use vmetric::wire::slot::{SlotWire, files};
use vmetric::wire::{agent_api, enroll_file, marks};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(format!("{}/tests/fixtures/frozen/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Names of all fields, nested ones with their path.
fn names(value: &Value, path: &str, out: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        for (name, inner) in fields {
            let path = format!("{path}/{name}");
            names(inner, &path, out);
            out.push(path);
        }
    }
}

/// Reads the example, also with a field of a later version at its start, and writes it with every field it had.
fn reads<T: Serialize + Deserialize>(name: &str) -> T {
    let text = String::from_utf8(fixture(name)).unwrap();
    let later = text.replacen('{', "{\"a_later_field\": {\"x\": [1, null, \"y\"]},", 1);
    json::from_str::<T>(&later).unwrap_or_else(|_| panic!("{name}: a later field is in the way"));
    let parsed: T = json::from_str(&text).unwrap_or_else(|_| panic!("{name}: version 0.1.0 no longer reads"));
    let (mut before, mut after) = (vec![], vec![]);
    names(&json::from_str(&text).unwrap(), "", &mut before);
    names(&json::from_str(&json::to_string(&parsed)).unwrap(), "", &mut after);
    let lost: Vec<_> = before.iter().filter(|n| !after.contains(n)).collect();
    assert!(lost.is_empty(), "{name}: fields were renamed or dropped: {lost:?}");
    parsed
}

#[test]
fn the_protocol_of_the_oldest_agent() {
    let report: ReportWire = reads("report.json");
    assert_eq!((report.protocol, report.generation, report.park_s), (agent_api::PROTOCOL, 7, 53));
    assert_eq!(report.result.unwrap().outcome, "updated");
    let answer: AnswerWire = reads("answer.json");
    assert_eq!(answer.order.unwrap().generation, 8);
    assert_eq!(reads::<EnrollWire>("enroll.json").token, "vmt_00");
    assert_eq!(reads::<EnrolledWire>("enrolled.json").agent_id, "vm-0123456789ab");
}

#[test]
fn the_settings_that_a_maker_put_into_an_image() {
    let text = String::from_utf8(fixture("enroll-file.json")).unwrap();
    let later = text.replacen('{', "{\"a_later_field\": {\"x\": [1, null]},", 1);
    let (said, unknown) = (enroll_file::parse(text.as_bytes()).unwrap(), enroll_file::parse(later.as_bytes()).unwrap());
    assert_eq!(unknown, Settings { unknown: vec!["a_later_field".into()], ..said.clone() });
    assert_eq!((said.director.as_deref(), said.pins.len()), (Some("https://director.example.org:8443"), 1));
    assert_eq!((said.token.as_deref(), said.shared), (Some("vmt_abababab_0123456789abcdef"), true));
    assert_eq!((said.serial.as_deref(), said.serial_file.as_deref()), (Some("PF-0815"), Some("/factory/serial")));
    assert_eq!((said.proxy.as_deref(), said.offline_site_days), (Some("http://proxy.example.org:3128"), Some(30)));
}

#[test]
fn the_files_of_the_oldest_device() {
    let slot: SlotWire = reads("slot.json");
    assert_eq!(slot.artifact().unwrap().counter, 4);
    assert_eq!(files(&fixture("slot.json"), Some(&fixture("confirmed"))).unwrap().confirmed, Some(41));
    assert_eq!(reads::<AcceptedWire>("order.json").director_generation, 8);
    assert_eq!(reads::<ConfigWire>("agent.json").director, "https://director.example.org:8443");
    assert!(ConfigWire::parse(&fixture("agent.json")).unwrap().1.is_empty());
}

#[test]
fn the_marks_of_the_oldest_device() {
    let record = fixture("marks.1");
    assert_eq!(record.len(), marks::RECORD);
    let read = marks::decode(&record).unwrap();
    assert_eq!((read.sequence, read.active.name(), read.floor), (41, "b", 4));
    assert_eq!((read.a.condition, read.a.evidence.reached), (Condition::Confirmed, Reached::Contact));
    assert_eq!((read.b.condition, read.b.evidence.starts), (Condition::Trial, 1));
    assert_eq!(marks::encode(&read), record, "a writer of today writes what a reader of then knows");
    for word in ["a", "b", "factory"] {
        assert_eq!(Image::from_name(word).unwrap().name(), word);
    }
}
