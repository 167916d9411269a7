//! The peer: a long poll of nginx + nchan by the same client, and its publisher.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, Timer};
use vmetric::core::backoff;
use vmetric::io::{clock, random};

use super::agent::connect;
use super::fleet::{Counted, Fleet};

/// As long as an order with its answer around it.
const MESSAGE: usize = 500;
/// Requests that are sent before their answers are read.
const AHEAD: u64 = 32;

/// So many requests for one path, one after the other.
pub async fn ask(fleet: &Fleet, path: &str, k: u64) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pollers\r\n\r\n", fleet.address.get());
    let mut conn = connect(fleet).await?;
    for _ in 0..k {
        let status = conn.exchange(request.as_bytes()).await?.status;
        if status != 200 {
            return Err(io::Error::other(format!("{path}: {status}")));
        }
    }
    Ok(())
}

/// Polls one channel until the task is dropped.
pub async fn subscribe(fleet: &Rc<Fleet>, path: &str) {
    let host = fleet.address.get();
    let (mut conn, mut failures, mut place) = (None, 0, String::new());
    loop {
        let Some((open, _)) = conn.as_mut() else {
            match connect(fleet).await {
                Ok(open) => conn = Some((open, Counted::new(&fleet.connected))),
                Err(_) => {
                    failures += 1;
                    fleet.refused("connect");
                    Timer::after(Duration::from_millis(backoff::wait_ms(failures, random::seed(), None))).await;
                }
            }
            continue;
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pollers\r\n{place}\r\n");
        let reply = {
            let _waiting = Counted::new(&fleet.waiting);
            super::conn::Conn::exchange(open, request.as_bytes()).await
        };
        match reply {
            Ok(reply) if reply.status == 200 => {
                let mut seen = fleet.seen.borrow_mut();
                seen.told.push(clock::monotonic());
                seen.answers += 1;
                place = format!("If-Modified-Since: {}\r\nIf-None-Match: {}\r\n", reply.last_modified, reply.etag);
                failures = 0;
            }
            // Its time is over: the next one, over the same connection.
            Ok(reply) if reply.status == 408 || reply.status == 304 => {
                fleet.seen.borrow_mut().answers += 1;
                failures = 0;
            }
            other => {
                fleet.refused(&other.map_or("io".into(), |r| r.status.to_string()));
                conn = None;
                failures += 1;
                Timer::after(Duration::from_millis(backoff::wait_ms(failures, random::seed(), None))).await;
            }
        }
    }
}

/// Publishes to `n` channels over plain HTTP, pipelined, as fast as the server takes it.
pub async fn publish(address: SocketAddr, path: &str, n: u64) -> io::Result<()> {
    let mut stream = Async::<TcpStream>::connect(address).await?;
    let body = "m".repeat(MESSAGE);
    let mut heard = String::new();
    let mut buffer = vec![0; 64 * 1024];
    let (mut sent, mut answered) = (0, 0);
    while answered < n {
        let mut batch = String::new();
        while sent < n && sent - answered < AHEAD {
            let path = path.replace("{}", &sent.to_string());
            batch += &format!("POST {path} HTTP/1.1\r\nHost: peer\r\nContent-Length: {MESSAGE}\r\n\r\n{body}");
            sent += 1;
        }
        stream.write_all(batch.as_bytes()).await?;
        match stream.read(&mut buffer).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => heard.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
        // Whole heads only; bodies of a publisher's answers hold no such line.
        let complete = heard.rfind("\r\n\r\n").map_or(0, |at| at + 4);
        let heads = heard[..complete].matches("HTTP/1.1 ").count() as u64;
        if heard[..complete].matches("HTTP/1.1 20").count() as u64 != heads {
            return Err(io::Error::other(heard));
        }
        answered += heads;
        heard.drain(..complete);
    }
    Ok(())
}
