//! Writes the first inputs of every target below the folder that is given: good documents, from which mutation starts.

use std::fs;
use std::path::Path;

use miniserde::json::{self, Value};
use vmetric::core::bundle::{BLOCK, header};
use vmetric::core::slots::{Marks, Seen, Slot, next_boot};
use vmetric::wire::agent_api::{AnswerWire, EnrollWire, EnrolledWire, ErrorWire, OrderWire, ReportWire, ResultWire};
use vmetric::wire::records::{RequestWire, StatusWire};
use vmetric::wire::{marks, slot};

#[allow(dead_code)]
#[path = "../it/trust_repo.rs"]
mod trust_repo;
use trust_repo::*;
#[path = "../../src/core/program_file/tests/heads.rs"]
mod heads;

const ROLES: [&str; 5] = ["root", "timestamp", "snapshot", "targets", ROLE];
const HEX32: &str = "0101010101010101010101010101010101010101010101010101010101010101";

struct Seeds<'a>(&'a Path);

impl Seeds<'_> {
    fn write(&self, target: &str, name: &str, bytes: &[u8]) {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("seed-{name}")), bytes).unwrap();
    }

    fn tagged(&self, target: &str, tag: u8, text: &str) {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(text.as_bytes());
        self.write(target, &tag.to_string(), &bytes);
    }
}

fn order() -> OrderWire {
    OrderWire {
        issuer: "site".into(),
        generation: 4,
        kind: "update".into(),
        target: TARGET.into(),
        version: "2.5.0".into(),
        sha256: HEX32.into(),
        length: 9,
        ..Default::default()
    }
}

fn main() {
    let folder = std::env::args().nth(1).expect("usage: seeds FOLDER");
    let seeds = Seeds(Path::new(&folder));
    let mut repo = Repo::new();
    repo.bump("root");
    repo.publish();
    for (n, role) in ROLES.iter().enumerate() {
        let file = &repo.files[&repo.file(role)];
        seeds.write("canonical", role, file);
        let Value::Object(mut envelope) = parse(std::str::from_utf8(file).unwrap()) else { unreachable!() };
        seeds.tagged("metadata", n as u8, &json::to_string(&envelope.remove("signed").unwrap()));
    }
    let words = r#"{"a\"b":[null,true,-1,"\u00e9\ud83d\ude00\/"],"é":18446744073709551615}"#;
    seeds.write("canonical", "words", words.as_bytes());
    seeds.write("refresh", "quiet", &[0]);
    seeds.write("refresh", "bent", &[3, 4, 0, 0, 9, 3, 4, 1, 1, 2, 5, 1, 97, 0, 7, 2, 0, 1, 1, 0, 40, 9]);

    let seen = Seen { factory: [7; 32], boot_id: "11111111-2222-3333-4444-555555555555".into(), ..Seen::default() };
    let fresh = next_boot(&Marks::default(), &seen).marks;
    let used = fresh.clone().start_trial(Slot::B, [9; 32]).confirm(Slot::B, 4, &seen.boot_id, 1_800_000_000).start_trial(Slot::A, [8; 32]);
    for (name, marks) in [("fresh", fresh), ("used", used)] {
        let record = marks::encode(&marks);
        let end = record.iter().rposition(|b| *b != b' ').unwrap();
        seeds.write("marks", name, &record[..=end]);
    }
    let text = format!(
        r#"{{"format":1,"target":"{TARGET}","version":"2.5.0","length":9,"sha256":"{HEX32}","counter":3,"build_keyid":"k","build_sig":"{HEX32}{HEX32}","issuer":"site","generation":4}}"#
    );
    seeds.write("slot", "confirmed", format!("{text}\n{}", slot::confirmed_text(&[1; 32], 41)).as_bytes());

    let accepted = format!(
        r#"{{"order":{},"at":1,"at_monotonic":2,"boot_id":"b","ended":false,"bytes":3,"director_issuer":"site","director_generation":4}}"#,
        json::to_string(&order())
    );
    seeds.tagged("records", 0, &accepted);
    seeds.tagged("records", 1, &format!(r#"{{"results":[{}]}}"#, json::to_string(&ResultWire::default())));
    seeds.tagged(
        "records",
        2,
        &format!(
            r#"{{"rejected":[{{"sha256":"{HEX32}","version":"2.5.0","verdict":"could_not_tell","code":"no_contact","detail":"x","count":2,"issuer":"site","generation":4,"since":5,"since_monotonic":6,"boot_id":"b"}}]}}"#
        ),
    );
    seeds.tagged("records", 3, &json::to_string(&StatusWire::default()));
    seeds.tagged("records", 4, &json::to_string(&RequestWire { kind: "update_file".into(), order: Some(order()), ..Default::default() }));
    seeds.tagged(
        "records",
        5,
        &format!(
            r#"{{"format":1,"director":"https://10.0.0.1:8443","pins":["sha256:{HEX32}"],"agent_id":"a","credential":"c","issuer":"i","proxy":null,"offline_site_days":3}}"#
        ),
    );
    for (name, head) in [
        ("elf64", heads::elf(62, true, "/lib64/ld-linux-x86-64.so.2")),
        ("elf32", heads::elf(40, false, "")),
        ("pe", heads::pe(0x8664)),
        ("macho", heads::macho(0x0100_000c, 40)),
    ] {
        // The file is so much longer than its head.
        seeds.write("program_file", name, &[&7u64.to_le_bytes()[..], &head].concat());
    }
    seeds.write("srv", "answer", b"\x01\xc0\x0c\0\x21\0\x01\0\0\0\x3c\0\x09\0\x01\0\x01\x20\xfb\x01d\0");
    seeds.write("srv", "resolv", b"\0nameserver 10.0.0.1\nsearch a.example b.example\n");
    seeds.write(
        "enroll_file",
        "whole",
        format!(
            r#"{{"format":1,"director":"https://d:8443","pins":["sha256:{HEX32}"],"token":"vmt_01010101_x","serial":"S","serial_file":"/s","proxy":"http://p:1","offline_site_days":3,"shared":true}}"#
        )
        .as_bytes(),
    );
    for (name, head, text) in [
        ("weekly", 1, "0 2 * * 0"),
        ("lists", 2, "*/5,7 1-5 1 jan-mar mon-fri/2"),
        ("interval", 3, "30m"),
    ] {
        seeds.write("cron", name, &[&[head, 0, 0x6a, 0x48, 0, 0], text.as_bytes()].concat());
    }
    seeds.write("vmetric_yml", "flow", b"update: {mode: auto, method: immediate, version: latest, interval: 1h} # c\n\"fleet\": &a {}\n");
    let mut bundle = Vec::new();
    for (name, bytes) in [("metadata/1.root.json", &b"{}"[..]), ("metadata/timestamp.json", b""), ("targets/a/b", &[7; 513])] {
        bundle.extend_from_slice(&header(name, bytes.len() as u64).unwrap());
        bundle.extend_from_slice(bytes);
        bundle.resize(bundle.len().next_multiple_of(BLOCK), 0);
    }
    bundle.resize(bundle.len() + 2 * BLOCK, 0);
    seeds.write("bundle", "three", &bundle);
    // As a package: the same form without the words in front of the names.
    let mut tar = Vec::new();
    for (name, kind, bytes) in [("./", b'5', &b""[..]), ("lookups/a.csv", b'0', b"22,ssh\n"), ("b", b'0', &[7; 513])] {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        tar.extend_from_slice(&block);
        tar.extend_from_slice(bytes);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    for how in [1, 2] {
        seeds.write("package", &how.to_string(), &[&[how][..], &tar].concat());
    }
    seeds.write("package", "zstd", b"\0\x28\xb5\x2f\xfd\x20\0\x01\0\0");
    for (name, text) in [
        ("length", "POST /agent/v1/report?x=1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\ncontent-length: 2\r\n\r\n{}GET /"),
        (
            "chunked",
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n2;x=y\r\n{}\r\n0\r\na: b\r\n\r\n",
        ),
        ("get", "GET /none HTTP/1.0\r\nConnection: close, x\r\nRange: bytes=1-\r\n\r\n"),
    ] {
        seeds.write("request", name, text.as_bytes());
    }
    for (name, text) in [
        ("length", "\u{40}\0HTTP/1.1 200 OK\r\ncontent-length: 2\r\nretry-after: 7\r\n\r\n{}"),
        ("chunked", "\u{3}\0HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        ("range", "\u{40}\u{1}HTTP/1.1 206 x\r\ncontent-range: bytes 7-8/9\r\netag: \"a\"\r\ncontent-length: 2\r\n\r\n{}"),
        ("redirect", "\u{40}\u{1}HTTP/1.1 302 x\r\nlocation: https://127.0.0.2/\r\ncontent-length: 0\r\n\r\n"),
    ] {
        seeds.write("response", name, text.as_bytes());
    }
    let report = ReportWire { result: Some(ResultWire::default()), until: Some(7), trial_nonce: Some("00".into()), ..Default::default() };
    seeds.tagged("agent_api", 0, &json::to_string(&report));
    seeds.tagged("agent_api", 1, &json::to_string(&EnrollWire::default()));
    seeds.tagged("agent_api", 2, &json::to_string(&EnrolledWire::default()));
    seeds.tagged("agent_api", 3, &json::to_string(&ErrorWire::default()));
    seeds.tagged(
        "agent_api",
        4,
        &json::to_string(&AnswerWire { order: Some(order()), result_taken: Some("1".into()), ..Default::default() }),
    );
}
