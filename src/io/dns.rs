//! Where DNS says that a Director is: SRV `_vmetric._tcp.<search domain>`, asked of the name servers in `resolv.conf`.
//!
//! A few dozen lines instead of the C library's `res_query`: that one is not everywhere, waits as long as it likes, and its
//! answer would have to be read here anyway ([`crate::core::srv`]).

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::fs::read_limited;
use super::{clock, random};
use crate::core::first_boot::{Found, Offer, Settings, Source};
use crate::core::reason::Reason;
use crate::core::srv::{self, Answer, PACKET_MAX};

/// The service.
const SERVICE: &str = "_vmetric._tcp";
/// Longest `resolv.conf` that is read.
const RESOLV_MAX: u64 = 16 * 1024;
/// Time for one answer: a name server is near, and a lost packet is asked for again at the next try.
const ANSWER: Duration = Duration::from_secs(2);
/// Packets looked at while waiting for one answer: a flood of foreign ones ends the wait.
const PACKETS_MAX: usize = 32;

/// Asks for a Director's address. `failures` so far: after one, the next place is named. `tick` is called between waits.
pub fn director(failures: u32, tick: fn()) -> Offer {
    let path = Path::new("/etc/resolv.conf");
    let text = read_limited(path, RESOLV_MAX).ok().flatten().unwrap_or_default();
    let resolver = srv::resolver(&String::from_utf8_lossy(&text));
    let offer = |name: String, found| Offer { source: Source::Dns, name, found };
    if resolver.servers.is_empty() || resolver.domains.is_empty() {
        let why = format!("{}: names no search domain or no name server", path.display());
        return offer(format!("DNS {SERVICE}"), Found::Bad(Reason::new("dns_no_domain", why)));
    }
    let mut last = Found::Absent;
    for domain in &resolver.domains {
        let name = format!("{SERVICE}.{domain}");
        for server in &resolver.servers {
            tick();
            match ask(server, 53, &name) {
                Ok(Answer::Places(places)) => {
                    if let Some(place) = srv::choose(&places, failures, random::seed()) {
                        let director = Some(format!("https://{}:{}", place.host, place.port));
                        return offer(format!("DNS {name}"), Found::Settings(Settings { director, ..Settings::default() }));
                    }
                    break;
                }
                // There is no such name: no other server knows better.
                Ok(Answer::Failed(3)) => break,
                Ok(Answer::Failed(code)) => last = Found::Bad(Reason::new("dns_failed", format!("{server}: {name}: error {code}"))),
                Ok(Answer::Foreign) => last = Found::Bad(Reason::new("dns_failed", format!("{server}: {name}: only foreign answers"))),
                Err(e) => last = Found::Bad(Reason::new("dns_failed", format!("{server}: {name}: {e}"))),
            }
        }
    }
    let names: Vec<String> = resolver.domains.iter().map(|d| format!("{SERVICE}.{d}")).collect();
    offer(format!("DNS {}", names.join(", ")), last)
}

/// One question to one server. From a port that the system draws, with a number that nobody can guess.
fn ask(server: &str, port: u16, name: &str) -> std::io::Result<Answer> {
    let address: IpAddr = server.parse().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    let question = srv::question(u16::from_le_bytes(random::bytes()), name);
    let question = question.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    // Packets from elsewhere do not arrive then.
    socket.connect((address, port))?;
    socket.send(&question)?;
    let end = clock::monotonic() + ANSWER;
    let mut packet = [0; PACKET_MAX];
    for _ in 0..PACKETS_MAX {
        let left = end.saturating_sub(clock::monotonic());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut packet)?;
        match srv::answer(&question, packet.get(..length).unwrap_or_default()) {
            Answer::Foreign => {}
            answer => return Ok(answer),
        }
    }
    Ok(Answer::Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_packets_are_passed_by_and_the_answer_is_taken() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let peer = std::thread::spawn(move || {
            let mut packet = [0; PACKET_MAX];
            let (n, from) = server.recv_from(&mut packet).unwrap();
            let question = &packet[..n];
            server.send_to(b"garbage", from).unwrap();
            let mut reply = question.to_vec();
            (reply[2], reply[3], reply[7]) = (0x81, 0x80, 1);
            reply.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 9, 0, 1, 0, 1, 0x20, 0xfb, 1, b'd', 0]);
            let mut other = reply.clone();
            other[0] ^= 1;
            server.send_to(&other, from).unwrap();
            server.send_to(&reply, from).unwrap();
        });
        let Ok(Answer::Places(places)) = ask("127.0.0.1", port, "_vmetric._tcp.example") else { panic!() };
        assert_eq!((places[0].host.as_str(), places[0].port), ("d", 8443));
        peer.join().unwrap();
        assert!(ask("no address", 53, "a").is_err() && ask("127.0.0.1", 53, "a..b").is_err());
    }
}
