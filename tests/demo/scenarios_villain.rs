//! A Director that answers and orders anything at all, and proxies that fail: the device keeps its version, says why, asks
//! less and less often, needs no more memory, and is back as soon as somebody sane answers.
#![expect(clippy::disallowed_methods, reason = "what a test writes need not outlive a power cut")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use miniserde::json::{self, Value};
use vmetric::io::clock;
use vmetric::wire::agent_api::{AnswerWire, OrderWire};

use crate::build::{FACTORY, GOOD, platform};
use crate::device::{Device, Status};
use crate::pause;
use crate::scenarios::{Cast, Untouched, ended, same};
use crate::show::Row;
use crate::villain::{Act, Tls, Villain, answer, order, reply, says};

/// Growth of the agent's largest resident set that is allowed over everything a villain does, KiB. An answer of 16 KB, its
/// text and buffers, and what a debug build's allocator keeps.
const GROWTH_KB: u64 = 2048;
/// Connections within the first seconds of an outage: waits of 0.5 to 1 s, 1 to 2 s, 2 to 4 s.
const CONNECTIONS_MAX: u64 = 8;
/// Times of these devices: answers are not waited for as long, polls are short.
const TIMES: &str = "answer=3,park=2";
/// Longest wait that a server's word can cause, seconds: an hour and its jitter.
const SILENCE_MAX_S: u64 = 66 * 60 + 5;

/// What is played, the codes of which one has to show in `status`, and the act.
type Part = (&'static str, &'static [&'static str], Act);

/// (u) Everything but an answer.
pub fn answers(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site()?;
    let device = cast.device_with(&site, "device-u1", TIMES, None)?;
    let villain = Villain::new(&site.state, &cast.folder("villain"))?;
    let (clock, before, memory) = (cast.clock(), Untouched::look(&device)?, peak_kb(&device)?);
    for (what, codes, act) in parts() {
        device.say(&format!("its Director is one that sends {what}"));
        villain.play(act);
        device.relay.lead_to(villain.port);
        let found = || device.status().ok().filter(|s| codes.contains(&s.contact_code.as_str()));
        let status = device.until(&format!("status says {codes:?} of {what}"), 20, found)?;
        check(&status, what)?;
        pause(500);
        if villain.connections() > CONNECTIONS_MAX {
            return Err(format!("{what}: {} connections within seconds", villain.connections()));
        }
        device.relay.lead_to(0);
        back(&device, what)?;
    }
    before.still(&device)?;
    silence(&device, &villain)?;
    grown(&device, memory)?;
    let result = device.order(GOOD, "", 60)?;
    ended(&result, "updated", "", "confirmed")?;
    Ok(clock.row(&result))
}

/// A reason for people and the time of the next try.
fn check(status: &Status, what: &str) -> Result<(), String> {
    same("the version that runs", &status.version, FACTORY)?;
    let clean = !status.contact_detail.is_empty() && status.contact_detail.len() < 600 && !status.contact_detail.contains(char::is_control);
    match clean && status.next_contact.is_some() {
        true => Ok(()),
        false => Err(format!("{what}: status says '{}', next try {:?}", status.contact_detail, status.next_contact)),
    }
}

fn back(device: &Device, after: &str) -> Result<(), String> {
    let answered = || device.status().ok().filter(|s| s.contact_code.is_empty() && s.runs);
    device.until(&format!("contact again after {after}"), 30, answered).map(drop)
}

/// `Retry-After` of a lifetime: obeyed for an hour at most. A restart asks at once.
fn silence(device: &Device, villain: &Villain) -> Result<(), String> {
    villain.play(says(|_, tls| {
        reply(tls, "429 Too Many Requests", "retry-after: 99999999999\r\n", "{\"code\":\"throttled\",\"detail\":\"go\"}")
    }));
    device.relay.lead_to(villain.port);
    let told = || device.status().ok().filter(|s| s.contact_code == "throttled");
    let status = device.until("status says that it is throttled", 20, told)?;
    let next = status.next_contact.as_deref().and_then(vmetric::core::time::parse).ok_or("no next try is named")?;
    if next > clock::unix() + SILENCE_MAX_S {
        return Err(format!("the next try is {} s away", next - clock::unix()));
    }
    pause(1500);
    same("requests while it was told to be silent", &villain.requests().to_string(), "1")?;
    device.relay.lead_to(0);
    device.say("is restarted: it asks at once");
    device.kill()?;
    back(device, "a Retry-After without end")
}

fn peak_kb(device: &Device) -> Result<u64, String> {
    let pid = device.pid().ok_or("no agent runs")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("VmHWM is {line}"))
}

fn grown(device: &Device, before: u64) -> Result<(), String> {
    let now = peak_kb(device)?;
    device.say(&format!("largest resident set: {before} KiB before all this, {now} KiB after it"));
    match now <= before + GROWTH_KB {
        true => Ok(()),
        false => Err(format!("the agent's memory grew from {before} to {now} KiB")),
    }
}

fn parts() -> Vec<Part> {
    let json = |body: String| says(move |_, tls| reply(tls, "200 OK", "", &body));
    let status = |line: &'static str| says(move |_, tls| reply(tls, line, "location: https://127.0.0.1:1/\r\n", "<html>"));
    vec![
        ("another site's certificate", &["pin_mismatch"], Act::Stranger),
        (
            "plain HTTP on the TLS port",
            &["not_tls"],
            Act::Raw(|s| drop((s.read(&mut [0; 512]), s.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")))),
        ),
        ("nothing, and ends", &["unreachable", "tls_failed"], Act::Raw(|s| drop(s.read(&mut [0; 512])))),
        ("nothing, and stays", &["unreachable"], Act::Raw(|_| pause(20_000))),
        ("half a JSON", &["bad_answer"], json("{\"issuer\":\"site\",\"time\":17".into())),
        ("nested JSON", &["bad_answer"], json("[".repeat(16_000))),
        ("nested objects", &["bad_answer"], json("{\"order\":".repeat(1_700))),
        ("JSON of another shape", &["bad_answer"], json("{\"issuer\":[],\"time\":\"now\",\"order\":7,\"timestamp_version\":-1}".into())),
        ("bytes that are no text", &["bad_answer"], says(|_, tls| reply(tls, "200 OK", "", "\u{0}\u{1b}[2J\u{85}"))),
        (
            "a body of 1 GB, announced",
            &["too_large"],
            says(|_, tls| tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n{")),
        ),
        (
            "a body without end",
            &["too_large"],
            says(|_, tls| endless(tls, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "400\r\n", 1024)),
        ),
        ("headers of 1 GB", &["too_large", "unreachable"], says(|_, tls| endless(tls, "HTTP/1.1 200 OK\r\n", "x-a: ", 1024))),
        ("one header of 1 GB", &["too_large", "unreachable"], says(|_, tls| endless(tls, "HTTP/1.1 200 OK\r\nx: ", "", 4096))),
        ("100 Continue without end", &["too_large", "unreachable"], says(|_, tls| endless(tls, "", "HTTP/1.1 100 Continue\r\n\r\n", 0))),
        ("a trickling head", &["unreachable"], says(|_, tls| trickle(tls, b"HTTP/1.1 200 OK\r\n"))),
        ("a trickling body", &["unreachable", "too_slow"], says(|_, tls| trickle(tls, b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n"))),
        (
            "half a body",
            &["unreachable"],
            says(|_, tls| {
                tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"issuer\"")?;
                Err(std::io::ErrorKind::BrokenPipe.into())
            }),
        ),
        ("no HTTP", &["unreachable"], says(|_, tls| tls.write_all(b"\0\x01\x02 SSH-2.0-x\r\n\r\n"))),
        ("a redirect", &["director_error"], status("302 Found")),
        ("401", &["director_error"], status("401 Unauthorized")),
        ("403", &["director_error"], status("403 Forbidden")),
        ("404", &["director_error"], status("404 Not Found")),
        ("500", &["director_error"], status("500 Internal Server Error")),
        (
            "503, with a code of its own",
            &["unknown_code"],
            says(|_, tls| reply(tls, "503 x", "retry-after: -1\r\n", "{\"code\":\"\\u001b[31mEVIL\",\"detail\":\"\\u0007\\nroot@host\"}")),
        ),
    ]
}

/// Writes until the device has had enough.
fn endless(tls: &mut Tls, head: &str, before: &str, filling: usize) -> std::io::Result<()> {
    tls.write_all(head.as_bytes())?;
    let end = if filling > 0 { "\r\n" } else { "" };
    let piece = format!("{before}{}{end}", "a".repeat(filling));
    (0..1 << 20).try_for_each(|_| tls.write_all(piece.as_bytes()))
}

fn trickle(tls: &mut Tls, head: &[u8]) -> std::io::Result<()> {
    tls.write_all(head)?;
    (0..400).try_for_each(|_| {
        pause(50);
        tls.write_all(b"a").and_then(|()| tls.flush())
    })
}

/// An order of the villain's.
fn forged(generation: u64, target: &str) -> OrderWire {
    OrderWire {
        issuer: "villain".into(),
        generation,
        kind: "update".into(),
        target: target.into(),
        version: GOOD.into(),
        sha256: "66".repeat(32),
        length: 1000,
        ..Default::default()
    }
}

/// (u) Well-formed answers with bad orders, too many orders, a wrong time, and somebody else's acknowledgement.
pub fn orders(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site()?;
    let device = cast.device_with(&site, "device-u2", TIMES, None)?;
    let villain = Villain::new(&site.state, &cast.folder("villain"))?;
    let (clock, before, memory) = (cast.clock(), Untouched::look(&device)?, peak_kb(&device)?);
    let good = format!("vmetric-agent/{GOOD}/{}/vmetric-agent", platform());
    let tricks = [
        ("bad_order", "../../../../etc/passwd".to_string()),
        ("bad_order", format!("vmetric-agent/{GOOD}/{}/../../../x", platform())),
        ("bad_order", good.replace('/', "\\")),
        ("wrong_product", good.replacen("vmetric-agent", "vmetric-director", 1)),
        ("wrong_platform", good.replace("linux", "windows")),
    ];
    for (n, (code, target)) in tricks.into_iter().enumerate() {
        device.say(&format!("its Director orders {target}"));
        let forged = forged(n as u64 + 1, &target);
        villain.play(says(move |report, tls| match report.generation < forged.generation || report.issuer != "villain" {
            true => order(tls, forged.clone()),
            false => {
                let taken = report.result.as_ref().map(|r| r.id.clone());
                answer(tls, &AnswerWire { time: clock::unix(), result_taken: taken, ..Default::default() })
            }
        }));
        device.relay.lead_to(villain.port);
        let told = || villain.heard(|r| r.result.as_ref().is_some_and(|x| x.outcome == "refused" && x.code == code)).then_some(());
        device.until(&format!("it reports {code} for {target}"), 20, told)?;
    }
    wrong_times(&device, &villain)?;
    flood(&device, &villain, &good)?;
    device.relay.lead_to(0);
    back(&device, "all those orders")?;
    before.still(&device)?;
    grown(&device, memory)?;
    not_yours(cast, &device, &villain)?;
    device.relay.lead_to(0);
    let result = device.order(GOOD, "--retry", 60)?;
    ended(&result, "updated", "", "confirmed")?;
    Ok(clock.row(&result))
}

/// A Director whose own clock is wrong accuses nobody of a wrong one.
fn wrong_times(device: &Device, villain: &Villain) -> Result<(), String> {
    for (word, time) in [("1970", 0), ("2099", 4_080_000_000), ("the end of time", u64::MAX)] {
        device.say(&format!("its Director says that it is {word}"));
        villain.play(says(move |_, tls| answer(tls, &AnswerWire { time, ..Default::default() })));
        device.relay.lead_to(villain.port);
        let heard = || Some(()).filter(|()| villain.requests() >= 2);
        device.until("it has heard that", 20, heard)?;
        same("what it thinks of its clock", &device.status()?.clock, "ok")?;
    }
    Ok(())
}

/// A new order with every answer: taken one per second, whatever they are.
fn flood(device: &Device, villain: &Villain, target: &str) -> Result<(), String> {
    device.say("its Director sends another order with each answer, updates and cancels by turns");
    let (next, target) = (AtomicU64::new(1000), target.to_string());
    villain.play(says(move |_, tls| {
        let n = next.fetch_add(1, Ordering::SeqCst);
        let kind = if n.is_multiple_of(2) { "update" } else { "cancel" };
        order(tls, OrderWire { kind: kind.into(), switch_in_s: n % 3, ..forged(n, &target) })
    }));
    device.relay.lead_to(villain.port);
    let (began, first) = (clock::monotonic(), villain.requests());
    pause(8000);
    let (seconds, requests) = ((clock::monotonic() - began).as_secs() + 1, villain.requests() - first);
    device.say(&format!("{requests} requests in {seconds} s of a flood of orders"));
    // The burst, one order per second, and for each a look at the metadata and a report.
    match requests <= 4 * (seconds + 12) {
        true => Ok(()),
        false => Err(format!("{requests} requests in {seconds} s: every order of a flood is worked on")),
    }
}

/// An update that the operator ordered is acknowledged by the operator alone, however often a Director says well done.
fn not_yours(cast: &Cast, device: &Device, villain: &Villain) -> Result<(), String> {
    device.say("an operator's own update, whose command dies; the Director acknowledges it, which is none of its business");
    villain.play(says(|report, tls| {
        let taken = report.result.as_ref().map(|r| r.id.clone());
        let said = AnswerWire { time: clock::unix(), acknowledged: report.trial_nonce.clone(), result_taken: taken, ..Default::default() };
        answer(tls, &said)
    }));
    device.relay.lead_to(villain.port);
    let mut command = device.command(&["update", "--file", &cast.stage.release.tree.display().to_string(), "--version", GOOD]);
    // The command acknowledges as soon as the new version is well: it dies as soon as it has ordered.
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
    let path = device.state.join("order.json");
    let local = || std::fs::read_to_string(&path).ok().filter(|text| text.contains("\"local:")).map(drop);
    let ordered = device.until("the operator's order is taken", 40, local);
    let _ = child.kill();
    let _ = child.wait();
    ordered?;
    let over = device.until("the trial is over", 40, || device.last_result().filter(|r| r.issuer.starts_with("local:")))?;
    match (over.outcome.as_str(), over.code.as_str()) {
        ("rolled_back", "no_contact") => Ok(()),
        // The command was faster than its end: the operator has acknowledged after all.
        ("updated", _) => Err("the operator's command acknowledged before it could be stopped".into()),
        other => Err(format!("the operator's update ended with {other:?}")),
    }
}

/// (u) The way to the Director: proxies that refuse, lie or die, and a name that nobody knows.
pub fn proxies(cast: &Cast) -> Result<Row, String> {
    let site = cast.own_site()?;
    let device = cast.device_with(&site, "device-u3", TIMES, None)?;
    let clock = cast.clock();
    let own = configured(&device, "director", None)?;
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
    let ways: [(&str, String, &[&str]); 5] = [
        ("cannot be reached", format!("http://{dead}"), &["proxy_failed"]),
        ("wants a password", proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")?, &["proxy_failed"]),
        ("speaks garbage", proxy(b"\0\x01garbage\r\n\r\n")?, &["proxy_failed", "unreachable"]),
        ("agrees, and dies", proxy(b"HTTP/1.1 200 OK\r\n\r\n")?, &["proxy_failed", "unreachable", "tls_failed"]),
        ("says nothing", proxy(b"")?, &["proxy_failed", "unreachable"]),
    ];
    for (what, url, codes) in ways {
        device.say(&format!("has a proxy that {what}"));
        configured(&device, "proxy", Some(Value::String(url)))?;
        fails(&device, what, codes)?;
    }
    configured(&device, "proxy", Some(Value::Null))?;
    device.say("its Director's name is unknown to DNS");
    configured(&device, "director", Some(Value::String("https://director.invalid:8443".into())))?;
    fails(&device, "an unknown name", &["unreachable"])?;
    configured(&device, "director", own)?;
    device.kill()?;
    back(&device, "all that")?;
    let result = device.order(GOOD, "", 60)?;
    ended(&result, "updated", "", "confirmed")?;
    Ok(clock.row(&result))
}

fn fails(device: &Device, what: &str, codes: &[&str]) -> Result<(), String> {
    let old = device.pid();
    device.kill()?;
    device.until("the agent runs again", 20, || device.pid().filter(|p| Some(*p) != old))?;
    let found = || device.status().ok().filter(|s| codes.contains(&s.contact_code.as_str()) && s.next_contact.is_some());
    check(&device.until(&format!("status says {codes:?}: {what}"), 30, found)?, what)
}

/// Changes one field of the agent's configuration; says what it was.
fn configured(device: &Device, field: &str, value: Option<Value>) -> Result<Option<Value>, String> {
    let path = device.state.join("config/agent.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let Ok(Value::Object(mut config)) = json::from_str::<Value>(&text) else { return Err(format!("{}: no object", path.display())) };
    let before = config.remove(field);
    config.remove("sum");
    let Some(value) = value else { return Ok(before) };
    config.insert(field.to_string(), value);
    std::fs::write(&path, json::to_string(&config)).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(before)
}

/// A proxy with one answer; an empty one lets its client wait.
fn proxy(says: &'static [u8]) -> Result<String, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let meet = move |mut client: TcpStream| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(says);
        if says.is_empty() {
            pause(15_000);
        }
    };
    thread::spawn(move || listener.incoming().flatten().for_each(|client| drop(thread::spawn(move || meet(client)))));
    Ok(format!("http://{address}"))
}
