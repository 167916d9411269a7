//! One agent: enrolls, polls, takes orders, reports, backs off.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use miniserde::json;
use smol::Timer;
use vmetric::core::proof::{DeviceKey, SEPARATOR};
use vmetric::core::{backoff, hex};
use vmetric::io::{clock, random};
use vmetric::wire::agent_api::{AnswerWire, EnrollWire, EnrolledWire, ErrorWire, OrderWire, PROTOCOL, ReportWire, ResultWire};

use super::conn::{Conn, Reply};
use super::fleet::{Counted, Fleet};

/// An answer that is early and says nothing must not become a loop; the agent's own number.
const EARLY: Duration = Duration::from_millis(900);

pub struct Agent {
    credential: String,
    key: DeviceKey,
    instance: String,
    sequence: u64,
    report: ReportWire,
    failures: u32,
    spread_s: Option<u64>,
}

/// Why there was no answer.
struct Failed {
    retry_after_s: Option<u64>,
}

fn request(fleet: &Fleet, path: &str, credential: &str, body: &str) -> Vec<u8> {
    let host = fleet.address.get();
    let bearer = if credential.is_empty() { String::new() } else { format!("Authorization: Bearer {credential}\r\n") };
    let length = body.len();
    let head = format!("POST /agent/v1/{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pollers\r\nContent-Type: application/json\r\n");
    format!("{head}{bearer}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A connection of this fleet.
pub async fn connect(fleet: &Fleet) -> io::Result<Conn> {
    fleet.began();
    let tls = fleet.tls.borrow().clone();
    let conn = Conn::open(fleet.address.get(), tls).await?;
    fleet.established();
    Ok(conn)
}

impl Agent {
    /// Enrolls over a connection of its own; tries again as long as the Director asks for patience.
    pub async fn enroll(fleet: &Fleet, token: &str, hostname: &str) -> Result<Agent, String> {
        let key = DeviceKey::new(random::bytes());
        let wire = EnrollWire {
            protocol: PROTOCOL,
            device_key: Some(key.public()),
            proof: Some(key.prove_enrollment(token)),
            token: token.into(),
            hostname: hostname.into(),
            os: "linux".into(),
            architecture: "amd64".into(),
            version: "1.0.0".into(),
            ..Default::default()
        };
        let body = json::to_string(&wire);
        let mut failures = 0;
        let enrolled: EnrolledWire = loop {
            let reply = match connect(fleet).await {
                Ok(mut conn) => conn.exchange(&request(fleet, "enroll", "", &body)).await,
                Err(e) => Err(e),
            };
            let wait = match reply {
                Ok(reply) if reply.status == 200 => break read(&reply)?,
                Ok(reply) if reply.status == 429 || reply.status == 503 => reply.retry_after_s,
                Ok(reply) => return Err(format!("enroll: {} {}", reply.status, String::from_utf8_lossy(&reply.body))),
                Err(_) => None,
            };
            failures += 1;
            fleet.refused("enroll");
            Timer::after(Duration::from_millis(backoff::wait_ms(failures, random::seed(), wait))).await;
        };
        let report = ReportWire {
            protocol: PROTOCOL,
            agent_id: enrolled.agent_id,
            hostname: hostname.into(),
            os: "linux".into(),
            architecture: "amd64".into(),
            version: "1.0.0".into(),
            running: "factory".into(),
            running_as: "factory".into(),
            running_sha256: hex::encode(&hex::sha256(b"1.0.0")),
            step: "idle".into(),
            code: "idle".into(),
            detail: "nothing to do".into(),
            clock: "ok".into(),
            root_version: 1,
            timestamp_version: 1,
            snapshot_version: 1,
            targets_version: 1,
            ..Default::default()
        };
        let instance = hex::encode(&random::bytes::<16>());
        Ok(Agent { credential: enrolled.credential, key, instance, sequence: 0, report, failures: 0, spread_s: None })
    }

    /// Polls until the task is dropped.
    pub async fn live(&mut self, fleet: &Rc<Fleet>) {
        let mut conn = None;
        loop {
            let Some(open) = conn.as_mut() else {
                match connect(fleet).await {
                    Ok(open) => conn = Some((open, Counted::new(&fleet.connected))),
                    Err(_) => self.back_off(fleet, "connect", None).await,
                }
                continue;
            };
            let began = clock::monotonic();
            let park_s = backoff::park_s(fleet.park_s.get(), random::seed());
            match self.say(fleet, &mut open.0, "poll", park_s).await {
                Ok(Ok(answer)) => {
                    let news = answer.order.is_some();
                    if let Some(order) = answer.order {
                        if self.obey(fleet, &mut open.0, order).await.is_err() {
                            conn = None;
                            self.back_off(fleet, "io", None).await;
                        }
                    } else if !news && clock::monotonic().saturating_sub(began) < EARLY {
                        Timer::after(Duration::from_secs(1)).await;
                    }
                }
                Ok(Err(failed)) => self.back_off(fleet, "busy", failed.retry_after_s).await,
                Err(_) => {
                    conn = None;
                    self.back_off(fleet, "io", None).await;
                }
            }
        }
    }

    async fn back_off(&mut self, fleet: &Fleet, code: &str, retry_after_s: Option<u64>) {
        self.failures = self.failures.saturating_add(1);
        fleet.refused(code);
        let seed = random::seed();
        let spread_ms = backoff::spread_ms(self.failures, seed, retry_after_s, self.spread_s);
        Timer::after(Duration::from_millis(backoff::wait_ms(self.failures, seed, retry_after_s) + spread_ms)).await;
    }

    /// One report at once, over a connection that is kept; whether it was served.
    pub async fn probe(&mut self, fleet: &Fleet, conn: &mut Option<Conn>) -> bool {
        if conn.is_none() {
            *conn = connect(fleet).await.ok();
        }
        let Some(open) = conn.as_mut() else { return false };
        let said = self.say(fleet, open, "report", 0).await;
        if said.is_err() {
            *conn = None;
        }
        matches!(said, Ok(Ok(_)))
    }

    /// So many reports, one after the other.
    pub async fn flood(&mut self, fleet: &Fleet, k: u64) -> Result<(), String> {
        let mut conn = connect(fleet).await.map_err(|e| format!("flood: {e}"))?;
        for _ in 0..k {
            match self.say(fleet, &mut conn, "report", 0).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(format!("flood: refused: {:?}", fleet.seen.borrow().refused)),
                Err(e) => return Err(format!("flood: {e}")),
            }
        }
        Ok(())
    }

    /// One report or poll. The outer error is the connection's end.
    async fn say(&mut self, fleet: &Fleet, conn: &mut Conn, path: &str, park_s: u64) -> io::Result<Result<AnswerWire, Failed>> {
        self.report.park_s = park_s;
        let body = json::to_string(&self.report);
        self.sequence += 1;
        let proof = self.key.prove(&format!("/agent/v1/{path}"), &self.instance, self.sequence, body.as_bytes());
        let bytes = request(fleet, path, &format!("{}{SEPARATOR}{proof}", self.credential), &body);
        let reply = {
            let _waiting = (path == "poll").then(|| Counted::new(&fleet.waiting));
            conn.exchange(&bytes).await?
        };
        fleet.seen.borrow_mut().answers += 1;
        if reply.status != 200 {
            let said: ErrorWire = read(&reply).unwrap_or_default();
            fleet.refused(&said.code);
            return Ok(Err(Failed { retry_after_s: reply.retry_after_s }));
        }
        let answer: AnswerWire = read(&reply).map_err(io::Error::other)?;
        (self.failures, self.spread_s) = (0, answer.spread_s);
        if answer.result_taken.is_some() && answer.result_taken == self.report.result.as_ref().map(|r| r.id.clone()) {
            self.report.result = None;
            fleet.seen.borrow_mut().ended.push(clock::monotonic());
        }
        Ok(Ok(answer))
    }

    /// Takes an order; says so, and ends it when the fleet is to finish.
    async fn obey(&mut self, fleet: &Fleet, conn: &mut Conn, order: OrderWire) -> io::Result<()> {
        if order.issuer == self.report.issuer && order.generation <= self.report.generation {
            fleet.seen.borrow_mut().twice += 1;
            return Ok(());
        }
        fleet.seen.borrow_mut().told.push(clock::monotonic());
        (self.report.issuer, self.report.generation) = (order.issuer.clone(), order.generation);
        self.report.scheduled_version = Some(order.version.clone());
        let cancelled = order.kind == "cancel";
        // Ten thousand devices sign their next words on ten thousand processors; here one does, and it should not be busy
        // with that while others wait to be told.
        Timer::after(Duration::from_millis(random::seed() % (fleet.spread_ms.get() + 1))).await;
        if !cancelled {
            let finish = fleet.finish.get() > 0;
            fleet.finish.set(fleet.finish.get().saturating_sub(1));
            (self.report.step, self.report.code) = ("waiting".into(), "window".into());
            self.insist(fleet, conn).await?;
            if !finish {
                return Ok(());
            }
            Timer::after(Duration::from_millis(fleet.work_ms.get())).await;
            (self.report.version, self.report.running_sha256) = (order.version.clone(), order.sha256.clone());
            (self.report.running, self.report.running_as) = ("a".into(), "confirmed".into());
        }
        (self.report.step, self.report.code, self.report.scheduled_version) = ("idle".into(), "idle".into(), None);
        self.report.result = Some(ResultWire {
            id: format!("{:016x}", random::seed()),
            issuer: order.issuer,
            generation: order.generation,
            outcome: if cancelled { "cancelled" } else { "updated" }.into(),
            code: if cancelled { "cancelled" } else { "confirmed" }.into(),
            version: order.version,
            sha256: order.sha256,
            running_version: self.report.version.clone(),
            running_sha256: self.report.running_sha256.clone(),
            gap_ms: 15,
            bytes: order.length,
            seconds: 1,
            ..Default::default()
        });
        self.insist(fleet, conn).await
    }

    /// A report that is sent until it is taken; an order in its answer comes again with the next poll.
    async fn insist(&mut self, fleet: &Fleet, conn: &mut Conn) -> io::Result<()> {
        while let Err(failed) = self.say(fleet, conn, "report", 0).await? {
            self.back_off(fleet, "busy", failed.retry_after_s).await;
        }
        Ok(())
    }
}

fn read<T: miniserde::Deserialize>(reply: &Reply) -> Result<T, String> {
    let text = String::from_utf8_lossy(&reply.body);
    json::from_str(&text).map_err(|_| format!("not of the protocol: {text}"))
}
