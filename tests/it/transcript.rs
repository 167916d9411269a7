//! What the oldest published agent said, played to today's Director; and what the oldest Director answered, given to today's
//! agent. `tests/fixtures/frozen/protocol-1/record` recorded it, once.
//!
//! Nothing here reads the protocol with the library's own types: they go on, a factory image does not. Requests are sent with
//! the headers and bodies that were recorded, proofs are made anew with a kept key, and an answer has to have every field that
//! the recorded one had, of the same kind and, where it is no name or number of the run, with the same value.

#![allow(clippy::disallowed_methods, reason = "tests write files")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use ed25519_compact::{KeyPair, Seed};
use miniserde::json::{self, Number, Value};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use vmetric::core::hex::{encode, sha256};
use vmetric::director::pki::{Names, SiteCa};
use vmetric::io::clock;
use vmetric::io::tls::{Pin, pin_text};

use crate::agent::{Device, said, text};
use crate::director_bench::{Site, agent_file};
use crate::serve::site::raw;

/// The version that the recording's order named.
const ORDERED: &str = "9.9.9";
/// The kept key of the device.
const SEED: [u8; 32] = [7; 32];
const PATIENCE: Duration = Duration::from_secs(120);
/// Answers that change what a device does: where the recorded one had none, there is none.
const WORDS: [&str; 5] = ["order", "acknowledged", "trial_refused", "stopping", "result_taken"];

fn transcript() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/frozen/protocol-1/transcript.jsonl");
    fs::read_to_string(path).unwrap().lines().map(|line| json::from_str(line).unwrap()).collect()
}

fn get<'v>(value: &'v Value, path: &str) -> &'v Value {
    path.split('/').filter(|name| !name.is_empty()).fold(value, |v, name| match v {
        Value::Object(fields) => fields.get(name).unwrap_or(&Value::Null),
        _ => &Value::Null,
    })
}

fn word(value: &Value, path: &str) -> String {
    match get(value, path) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => json::to_string(other),
    }
}

/// Names and numbers of one run, by what the transcript calls them.
#[derive(Default)]
struct Run(BTreeMap<String, String>);

impl Run {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.into(), value.to_string());
    }

    /// A text with every known name in its place.
    fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let filled = self.text(text);
                // A whole value in braces that stands for a number.
                let number = text.starts_with('{') && NUMBERS.iter().any(|name| *text == format!("{{{name}}}"));
                if number {
                    Value::Number(Number::U64(filled.parse().unwrap_or_else(|_| panic!("{text}: {filled}"))))
                } else {
                    Value::String(filled)
                }
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.fill(item)).collect()),
            Value::Object(fields) => Value::Object(fields.iter().map(|(name, field)| (name.clone(), self.fill(field))).collect()),
            other => json::from_str(&json::to_string(other)).unwrap(),
        }
    }

    /// The recorded answer, in today's: nothing of it is gone, renamed, or of another kind. Names that are new get their values.
    fn meets(&mut self, at: &str, recorded: &Value, today: &Value) {
        match (recorded, today) {
            (Value::Null, today) => {
                let word = WORDS.iter().any(|word| at.ends_with(&format!("/{word}")));
                assert!(!word || matches!(today, Value::Null), "{at}: {}, and the oldest agent was told nothing", json::to_string(today));
            }
            (Value::Object(fields), Value::Object(_)) => {
                fields.iter().for_each(|(name, field)| self.meets(&format!("{at}/{name}"), field, get(today, name)));
            }
            (Value::String(name), Value::Number(number)) if NUMBERS.iter().any(|n| *name == format!("{{{n}}}")) => {
                let (name, number) = (name.trim_matches(['{', '}']).to_string(), json::to_string(number));
                if name == "generation" {
                    let known = self.0.entry(name).or_insert(number.clone());
                    assert_eq!(*known, number, "{at}");
                } else {
                    self.0.insert(name, number);
                }
            }
            (Value::String(name), Value::String(today)) if name.starts_with('{') => {
                let known = self.0.entry(name.trim_matches(['{', '}']).into()).or_insert(today.clone());
                assert_eq!(known, today, "{at}: {name}");
            }
            (recorded, today) => assert_eq!(self.text(&json::to_string(recorded)), json::to_string(today), "{at}"),
        }
    }
}

/// What stands for a number.
const NUMBERS: [&str; 10] =
    ["time", "generation", "length", "timestamp_version", "bytes", "seconds", "gap_ms", "bytes_done", "bytes_total", "from"];

/// The device of then, as far as it has to compute: its proofs.
struct Oldest {
    key: KeyPair,
    sequence: u64,
}

impl Oldest {
    fn prove(&mut self, path: &str, body: &[u8]) -> String {
        self.sequence += 1;
        let (instance, sequence) = ("ab".repeat(16), self.sequence);
        let head = format!("{path}\0{instance}\0{sequence}\0");
        let signature = self.key.sk.sign([b"vmetric-request-v1\0", head.as_bytes(), &sha256(body)].concat(), None);
        format!("{instance}.{sequence}.{}", encode(signature.as_ref()))
    }

    /// The request as it was sent then.
    fn request(&mut self, line: &Value, run: &mut Run) -> Vec<u8> {
        let path = run.text(&word(line, "path"));
        let body = match get(line, "body") {
            Value::Null => String::new(),
            body => json::to_string(&run.fill(body)),
        };
        run.set("content-length", body.len());
        let proof = self.prove(&path, body.as_bytes());
        run.set("request_proof", proof);
        let Value::Array(headers) = get(line, "headers") else { panic!("no headers") };
        let mut head = format!("{} {path} HTTP/1.1\r\n", word(line, "request"));
        for header in headers {
            let Value::Array(pair) = header else { panic!("no header") };
            head.push_str(&format!("{}: {}\r\n", word(&pair[0], ""), run.text(&word(&pair[1], ""))));
        }
        format!("{head}\r\n{body}").into_bytes()
    }
}

/// Asks and hears on a connection of its own, as the recorded agent did after a pause.
fn ask(site: &Site, request: &[u8]) -> (u16, String, Vec<u8>) {
    let address: SocketAddr = site.url.strip_prefix("https://").unwrap().parse().unwrap();
    let mut connection = raw(address, site.pin);
    connection.0.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.say(request);
    let (head, body) = connection.hear();
    (head[9..12].parse().unwrap(), head.to_lowercase(), body)
}

/// What a client of then reads of the metadata to find its file: versions, then hash and length.
fn follow(run: &mut Run, path: &str, document: &Value) {
    let named = |name: &str| word(get(get(document, "signed/meta"), name), "version");
    if path.ends_with("timestamp.json") {
        run.set("snapshot.json", named("snapshot.json"));
    } else if path.ends_with(".snapshot.json") {
        run.set("targets.json", named("targets.json"));
        run.set("agent-linux-amd64.json", named("agent-linux-amd64.json"));
    } else if path.ends_with(".targets.json") {
        let Value::Array(roles) = get(document, "signed/delegations/roles") else { panic!("{path}: no delegations") };
        assert!(roles.iter().any(|role| word(role, "name") == "agent-linux-amd64"), "{path}");
    } else if path.ends_with("agent-linux-amd64.json") {
        let target = match get(document, "signed/targets") {
            Value::Object(targets) => &targets[&format!("vmetric-agent/{ORDERED}/linux-amd64/vmetric-agent")],
            _ => panic!("{path}: no targets"),
        };
        assert_eq!((word(target, "hashes/sha256"), word(target, "length")), (run.text("{sha256:9.9.9}"), run.text("{length}")), "{path}");
        assert!(!word(target, "custom/sig").is_empty(), "{path}: the build signature");
    }
}

#[test]
fn the_oldest_agent_enrolls_updates_and_rolls_back_at_todays_director() {
    let site = Site::with(&[(ORDERED, agent_file(ORDERED))]);
    let mut oldest = Oldest { key: KeyPair::from_seed(Seed::new(SEED)), sequence: 0 };
    let mut run = Run::default();
    let token = site.token("");
    let proof = oldest.key.sk.sign([b"vmetric-enroll-v1\0", token.as_bytes()].concat(), None);
    run.set("token", &token);
    run.set("proof", encode(proof.as_ref()));
    run.set("device_key", encode(oldest.key.pk.as_ref()));
    let fixed = [("hostname", "edge"), ("host", "director.example.org"), ("boot_id", "boot-1"), ("nonce", &"0d".repeat(16))];
    let more = [("result:updated", "00112233445566aa"), ("result:rolled_back", "00112233445566bb")];
    fixed.into_iter().chain(more).for_each(|(name, value)| run.set(name, value));
    run.set("pin", pin_text(&site.pin));
    run.set("sha256:0.1.0", encode(&sha256(b"the factory's")));
    let file = agent_file(ORDERED);
    let half = file.len() / 2;
    let costs = [("bytes", file.len()), ("seconds", 3), ("gap_ms", 9), ("bytes_done", half), ("bytes_total", file.len()), ("from", half)];
    costs.into_iter().for_each(|(name, value)| run.set(name, value));
    let mut played = Vec::new();
    for line in transcript() {
        if let Value::String(command) = get(&line, "operator") {
            site.good(command);
            continue;
        }
        let path = word(&line, "path");
        if path.is_empty() {
            continue;
        }
        run.set("time", clock::unix() + oldest.sequence);
        // Which version of a document is next was in the one before.
        let role = path.rsplit_once("{version}.").map(|(_, role)| role.to_string()).unwrap_or_default();
        let next = if role == "root.json" { "2".to_string() } else { run.text(&format!("{{{role}}}")) };
        run.set("version", next);
        let request = oldest.request(&line, &mut run);
        let (status, head, body) = ask(&site, &request);
        let what = format!("{path}: {head}{}", String::from_utf8_lossy(&body[..body.len().min(2_000)]));
        assert_eq!(status.to_string(), word(&line, "status"), "{what}");
        let Value::Array(headers) = get(&line, "answer_headers") else { panic!("{what}") };
        headers.iter().for_each(|name| assert!(head.contains(&format!("\r\n{}: ", word(name, ""))), "{}: {what}", word(name, "")));
        match status {
            200 if path.starts_with("/agent/") => {
                let today: Value = json::from_str(std::str::from_utf8(&body).unwrap()).unwrap();
                run.meets(&path, get(&line, "answer"), &today);
            }
            200 if path.contains("/metadata/") => follow(&mut run, &path, &json::from_str(std::str::from_utf8(&body).unwrap()).unwrap()),
            200 => assert!(body == file, "{path}: the whole file"),
            206 => assert!(body == file[half..], "{path}: the rest of the file"),
            _ => {}
        }
        played.push(format!("{} {}", word(&line, "body/running_as"), word(&line, "body/result/outcome")));
    }
    for part in ["factory ", "trial ", "confirmed updated", "factory rolled_back"] {
        assert!(played.iter().any(|p| p == part), "the transcript has no '{part}': {played:?}");
    }
    let activity = site.good("activity --json");
    for code in ["\"enrolled\"", "\"confirmed\"", "\"rolled_back\""] {
        assert!(activity.contains(code), "{code}: {activity}");
    }
}

/// A Director of then: its recorded answers, in whatever order they are asked for.
struct Director {
    lines: Vec<Value>,
    tree: std::path::PathBuf,
    run: std::sync::Mutex<Run>,
}

impl Director {
    fn serve(self, listener: TcpListener, tls: Arc<ServerConfig>, told: Sender<String>) {
        let all = Arc::new(self);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (one, tls, told) = (all.clone(), tls.clone(), told.clone());
                std::thread::spawn(move || {
                    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), socket);
                    while one.answer(&mut stream, &told).is_ok() {}
                });
            }
        });
    }

    fn answer(&self, stream: &mut StreamOwned<ServerConnection, TcpStream>, told: &Sender<String>) -> std::io::Result<()> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(|n| n.parse().unwrap_or(0)));
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_string();
        if path.starts_with("/release/") {
            return self.file(stream, &path, &head);
        }
        let said: Value = json::from_str(&String::from_utf8_lossy(&body)).map_err(|_| std::io::Error::other("no JSON"))?;
        let recorded = self.recorded(&path, &said);
        let filled = {
            let mut run = self.run.lock().unwrap();
            run.set("time", clock::unix());
            ["trial_nonce", "result"].into_iter().for_each(|name| match name {
                "result" => run.set(&format!("result:{}", word(&said, "result/outcome")), word(&said, "result/id")),
                _ => run.set("nonce", word(&said, name)),
            });
            json::to_string(&run.fill(&recorded))
        };
        if !word(&said, "result/outcome").is_empty() {
            let _ = told.send(format!("{} {}", word(&said, "result/outcome"), word(&said, "running_as")));
        }
        // A poll without news is parked; here for a moment.
        if path.ends_with("/poll") && WORDS.iter().all(|name| matches!(get(&recorded, name), Value::Null)) {
            vmetric::io::process::sleep(Duration::from_millis(200));
        }
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{filled}", filled.len());
        stream.write_all(reply.as_bytes())?;
        stream.flush()
    }

    /// The answer that was given to a device in this state.
    fn recorded(&self, path: &str, said: &Value) -> Value {
        // The order was given to the poll of a device that had none.
        let state = |path: &str, body: &Value| {
            let trial = !matches!(get(body, "trial_nonce"), Value::Null);
            (trial, word(body, "result/outcome"), word(body, "issuer").is_empty() && path.ends_with("/poll"))
        };
        let fits = |line: &&Value| {
            let of = word(line, "path");
            let same = path.ends_with("/enroll") || state(&of, get(line, "body")) == state(path, said);
            same && if path.ends_with("/enroll") { of == path } else { of.starts_with("/agent/v1/") && !of.ends_with("/enroll") }
        };
        let found = self.lines.iter().find(fits).unwrap_or_else(|| panic!("nothing was recorded for {path} {}", json::to_string(said)));
        json::from_str(&json::to_string(get(found, "answer"))).unwrap()
    }

    /// The release plane is files: any web server's.
    fn file(&self, stream: &mut StreamOwned<ServerConnection, TcpStream>, path: &str, head: &str) -> std::io::Result<()> {
        let Ok(bytes) = fs::read(self.tree.join(path.trim_start_matches("/release/"))) else {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")?;
            return stream.flush();
        };
        let from = head.lines().find_map(|l| l.to_lowercase().strip_prefix("range: bytes=").map(|r| r.trim_end_matches('-').to_string()));
        let from: usize = from.and_then(|n| n.parse().ok()).unwrap_or(0);
        let range = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
        let (status, range) = if from > 0 { ("206 Partial Content", range.as_str()) } else { ("200 OK", "") };
        let more = "content-type: application/octet-stream\r\naccept-ranges: bytes\r\ncache-control: no-cache\r\netag: \"1\"\r\n";
        write!(stream, "HTTP/1.1 {status}\r\n{more}{range}content-length: {}\r\n\r\n", bytes.len() - from)?;
        stream.write_all(&bytes[from..])?;
        stream.flush()
    }
}

fn end(mut process: Child) {
    let _ = process.kill();
    let _ = process.wait();
}

#[test]
fn todays_agent_enrolls_and_updates_at_the_oldest_director() {
    let mut new = fs::read(env!("CARGO_BIN_EXE_vmetric-agent")).unwrap();
    new.extend_from_slice(b"another end");
    let site = Site::with(&[(ORDERED, new.clone())]);
    let folder = tempfile::tempdir().unwrap();
    let names = Names { dns: Vec::new(), ips: vec!["127.0.0.1".parse().unwrap()] };
    // A token names its site: the oldest Director has this site's key.
    let pki = folder.path().join("pki");
    fs::create_dir(&pki).unwrap();
    for entry in fs::read_dir(site.state().join("pki")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), pki.join(entry.file_name())).unwrap();
    }
    let ca = SiteCa::open_or_create(&pki, &names, clock::unix()).unwrap();
    let pin: Pin = ca.pin();
    let mut run = Run::default();
    let known = [("agent_id", "vm-0123456789ab"), ("credential", "v1.aa.bb"), ("issuer", "site-1"), ("generation", "1")];
    known.into_iter().for_each(|(name, value)| run.set(name, value));
    run.set("sha256:9.9.9", encode(&sha256(&new)));
    run.set("length", new.len());
    run.set("timestamp_version", 1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (told, results) = channel();
    let director = Director { lines: transcript(), tree: site.bench.path("public"), run: std::sync::Mutex::new(run) };
    director.serve(listener, ca.server_config(), told);

    let mut device = Device::bare(&site, "device");
    let enroll = ["enroll", "--director", &url, "--pin", &pin_text(&pin)];
    let out = device.command(&enroll).env("VMETRIC_TOKEN", site.token("")).output().unwrap();
    assert!(out.status.success(), "{}", said(&out));
    device.start();
    let status = device.wait("update", |s| text(s, "last_result.outcome") == "updated" && text(s, "last_result.reported") == "true");
    assert_eq!((text(&status, "running"), text(&status, "running_as")), ("a".into(), "confirmed".into()));
    assert_eq!(results.recv_timeout(PATIENCE).unwrap(), "updated confirmed");
    let out = device.run(&["rollback"]);
    assert!(out.status.success(), "{}", said(&out));
    device.wait("rollback", |s| text(s, "last_result.outcome") == "rolled_back" && text(s, "last_result.reported") == "true");
    end(device.process.take().unwrap());
}
