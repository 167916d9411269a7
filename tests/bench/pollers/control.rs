//! What `tests/bench/scale` and `tests/bench/downtime` can ask: one line of words, one line of JSON back.
//!
//! | line | does |
//! |---|---|
//! | `director ADDRESS PIN` | says where; makes the fleet |
//! | `enroll N TOKEN` | enrolls N agents, some at a time |
//! | `connect MS` | all of them connect and poll, each beginning at a random moment of these milliseconds |
//! | `subscribe MS PATH` | the same against nchan; `{}` in the path is the agent's number |
//! | `publish ADDRESS PATH N` | N messages to nchan over one connection |
//! | `probe N` | the last N that enrolled do nothing else from now on than to report in turn, all the time |
//! | `flood N K` | N agents report K times each, as fast as they are answered; answers when all have |
//! | `flood N K PATH` | the same with requests for this path |
//! | `leave` | every connection ends |
//! | `park SECONDS` | how long they poll |
//! | `finish K MS` | the next K orders are fulfilled after so many milliseconds, later ones are accepted and kept waiting |
//! | `mark` | forgets what was counted |
//! | `stats NANOSECONDS` | what was counted; times from that moment of `CLOCK_BOOTTIME` |

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use miniserde::{Serialize, json};
use smol::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use smol::net::unix::UnixStream;
use smol::{LocalExecutor, Task, Timer};
use vmetric::io::{open_files, random, tls};

use super::agent::Agent;
use super::fleet::{CELL, Fleet};
use super::peer;

/// Between two reports of a probe; after one that failed.
const PROBE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(1));
/// Enrollments at once.
const AT_ONCE: usize = 64;

#[derive(Serialize, Default)]
struct Stats {
    waiting: u64,
    connected: u64,
    told: u64,
    twice: u64,
    answers: u64,
    ended: u64,
    /// Milliseconds from the given moment: first, median, 99th percentile, last.
    told_ms: Vec<f64>,
    ended_ms: Vec<f64>,
    begun: u64,
    established: u64,
    /// Most in one second (ten cells in a row).
    begun_peak: u64,
    established_peak: u64,
    /// Reports of the probes: how many were served, the longest time between two, the first that was not served and the
    /// first that was after it, milliseconds from the given moment.
    probed: u64,
    silence_ms: f64,
    lost_ms: Option<f64>,
    back_ms: Option<f64>,
    refused: BTreeMap<String, u64>,
}

struct Bench {
    fleet: Option<Rc<Fleet>>,
    agents: Vec<Rc<RefCell<Agent>>>,
    tasks: Vec<Task<()>>,
    executor: Rc<LocalExecutor<'static>>,
}

/// Obeys until the other side is gone.
pub async fn obey(stream: UnixStream, executor: Rc<LocalExecutor<'static>>) -> Result<(), String> {
    let mut lines = BufReader::new(stream.clone());
    let mut out = stream;
    let mut bench = Bench { fleet: None, agents: Vec::new(), tasks: Vec::new(), executor };
    let mut line = String::new();
    while lines.read_line(&mut line).await.map_err(|e| e.to_string())? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let said = match bench.command(&words).await {
            Ok(said) => said,
            Err(error) => json::to_string(&BTreeMap::from([("error", error.as_str())])),
        };
        out.write_all(format!("{said}\n").as_bytes()).await.map_err(|e| e.to_string())?;
        line.clear();
    }
    Ok(())
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("'{word}' is no number"))
}

impl Bench {
    fn fleet(&self) -> Result<Rc<Fleet>, String> {
        self.fleet.clone().ok_or_else(|| "`director` comes first".to_string())
    }

    async fn command(&mut self, words: &[&str]) -> Result<String, String> {
        match words {
            ["director", address, pin] => {
                let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
                let pin = tls::parse_pin(pin).map_err(|r| r.to_string())?;
                self.fleet = Some(Rc::new(Fleet::new(address, pin)));
            }
            ["enroll", n, token] => self.enroll(number(n)?, token).await?,
            ["connect", ms] => self.connect(number(ms)?)?,
            ["subscribe", n, ms, path] => self.subscribe(number(n)?, number(ms)?, path)?,
            ["publish", address, path, n] => {
                let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
                peer::publish(address, path, number(n)?).await.map_err(|e| format!("publish: {e}"))?;
            }
            ["probe", n] => self.probe(number(n)?)?,
            ["flood", n, k] => self.flood(number(n)?, number(k)?, None).await?,
            ["flood", n, k, path] => self.flood(number(n)?, number(k)?, Some(path)).await?,
            ["leave"] => self.tasks.clear(),
            ["park", s] => self.fleet()?.park_s.set(number(s)?),
            ["finish", k, ms] => {
                self.fleet()?.finish.set(number(k)?);
                self.fleet()?.work_ms.set(number(ms)?);
            }
            ["mark"] => self.fleet()?.mark(),
            ["stats", since] => return Ok(json::to_string(&stats(&*self.fleet()?, Duration::from_nanos(number(since)?)))),
            _ => return Err(format!("unknown: {}", words.join(" "))),
        }
        Ok("{}".to_string())
    }

    async fn enroll(&mut self, n: u64, token: &str) -> Result<(), String> {
        open_files::raise(n).map_err(|r| r.to_string())?;
        let (fleet, token) = (self.fleet()?, token.to_string());
        let (next, enrolled) = (Rc::new(RefCell::new(0..n)), Rc::new(RefCell::new(Vec::new())));
        let workers: Vec<Task<Result<(), String>>> = (0..AT_ONCE)
            .map(|_| {
                let (fleet, token, next, enrolled) = (fleet.clone(), token.clone(), next.clone(), enrolled.clone());
                self.executor.spawn(async move {
                    loop {
                        let Some(i) = next.borrow_mut().next() else { return Ok(()) };
                        let agent = Agent::enroll(&fleet, &token, &format!("edge-{i:05}")).await?;
                        enrolled.borrow_mut().push(Rc::new(RefCell::new(agent)));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await?;
        }
        self.agents.append(&mut enrolled.borrow_mut());
        Ok(())
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "an agent's task is the only one that borrows it, until it is dropped")]
    fn connect(&mut self, over_ms: u64) -> Result<(), String> {
        let fleet = self.fleet()?;
        for agent in &self.agents {
            let (fleet, agent) = (fleet.clone(), agent.clone());
            self.tasks.push(self.executor.spawn(async move {
                Timer::after(Duration::from_millis(random::seed() % (over_ms + 1))).await;
                agent.borrow_mut().live(&fleet).await;
            }));
        }
        Ok(())
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "nobody else has these agents")]
    fn probe(&mut self, n: u64) -> Result<(), String> {
        let fleet = self.fleet()?;
        let from = self.agents.len().saturating_sub(n as usize);
        let mut probes: Vec<_> = self.agents.drain(from..).map(|agent| (agent, None)).collect();
        self.tasks.push(self.executor.spawn(async move {
            loop {
                for (agent, conn) in &mut probes {
                    let served = agent.borrow_mut().probe(&fleet, conn).await;
                    fleet.seen.borrow_mut().probes.note(served);
                    Timer::after(if served { PROBE.0 } else { PROBE.1 }).await;
                }
            }
        }));
        Ok(())
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "whoever floods is told to leave first")]
    async fn flood(&mut self, n: u64, k: u64, path: Option<&str>) -> Result<(), String> {
        let fleet = self.fleet()?;
        let mut floods: Vec<Task<Result<(), String>>> = Vec::new();
        for i in 0..n as usize {
            let (fleet, path) = (fleet.clone(), path.map(String::from));
            let agent = self.agents.get(i).cloned();
            floods.push(self.executor.spawn(async move {
                match (path, agent) {
                    (Some(path), _) => peer::ask(&fleet, &path, k).await.map_err(|e| format!("flood: {e}")),
                    (None, Some(agent)) => agent.borrow_mut().flood(&fleet, k).await,
                    (None, None) => Err("flood: there are not so many agents".into()),
                }
            }));
        }
        for flood in floods {
            flood.await?;
        }
        Ok(())
    }

    fn subscribe(&mut self, n: u64, over_ms: u64, path: &str) -> Result<(), String> {
        open_files::raise(n).map_err(|r| r.to_string())?;
        let fleet = self.fleet()?;
        for i in 0..n {
            let (fleet, path) = (fleet.clone(), path.replace("{}", &i.to_string()));
            self.tasks.push(self.executor.spawn(async move {
                Timer::after(Duration::from_millis(random::seed() % (over_ms + 1))).await;
                peer::subscribe(&fleet, &path).await;
            }));
        }
        Ok(())
    }
}

/// First, median, 99th percentile, last, in milliseconds from `since`.
fn spread(times: &[Duration], since: Duration) -> Vec<f64> {
    let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3 - since.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let part = |share: f64| ms[((ms.len() as f64 * share).ceil() as usize).clamp(1, ms.len()) - 1];
    if ms.is_empty() { Vec::new() } else { vec![ms[0], part(0.5), part(0.99), ms[ms.len() - 1]] }
}

/// Most in any second.
fn peak(cells: &BTreeMap<u64, u64>) -> u64 {
    let second = (Duration::from_secs(1).as_millis() / CELL.as_millis()) as u64;
    cells.keys().map(|first| cells.range(*first..first + second).map(|(_, n)| n).sum()).max().unwrap_or(0)
}

fn stats(fleet: &Fleet, since: Duration) -> Stats {
    let seen = fleet.seen.borrow();
    let from = |at: Duration| at.as_secs_f64() * 1e3 - since.as_secs_f64() * 1e3;
    Stats {
        waiting: fleet.waiting.get(),
        connected: fleet.connected.get(),
        told: seen.told.len() as u64,
        twice: seen.twice,
        answers: seen.answers,
        ended: seen.ended.len() as u64,
        told_ms: spread(&seen.told, since),
        ended_ms: spread(&seen.ended, since),
        begun: seen.begun.values().sum(),
        established: seen.established.values().sum(),
        begun_peak: peak(&seen.begun),
        established_peak: peak(&seen.established),
        probed: seen.probes.served,
        silence_ms: seen.probes.silence.as_secs_f64() * 1e3,
        lost_ms: seen.probes.lost.map(from),
        back_ms: seen.probes.back.map(from),
        refused: seen.refused.clone(),
    }
}
