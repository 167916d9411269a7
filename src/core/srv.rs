//! DNS service records (RFC 2782): the question, and a careful reader of the answer. Only an address is ever taken from it
//! ([`super::first_boot`]). An answer is one UDP packet from whoever was faster; nothing in it is believed to be well formed.

/// Longest packet that is read, bytes: what DNS without extensions sends.
pub const PACKET_MAX: usize = 512;
/// Longest name as text, bytes.
const NAME_MAX: usize = 253;
/// Jumps followed in one name: a real one has at most one per label.
const JUMPS_MAX: usize = 16;
/// Records looked at: more do not fit into a packet.
const RECORDS_MAX: usize = 32;
/// Name servers and search domains of a `resolv.conf`, as the C library takes them.
const SERVERS_MAX: usize = 3;
/// See above.
const DOMAINS_MAX: usize = 6;
const TYPE_SRV: u16 = 33;
const CLASS_IN: u16 = 1;
const HEADER: usize = 12;

/// A service's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Lower ones first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host name.
    pub host: String,
}

/// What a `resolv.conf` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Addresses of name servers, as they stand there.
    pub servers: Vec<String>,
    /// Search domains.
    pub domains: Vec<String>,
}

/// Reads a `resolv.conf`. The last `search` or `domain` counts.
pub fn resolver(text: &str) -> Resolver {
    let mut out = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") if out.servers.len() < SERVERS_MAX => out.servers.extend(words.next().map(String::from)),
            Some("search" | "domain") => {
                out.domains = words.map(|d| d.trim_matches('.').to_string()).filter(|d| is_name(d)).take(DOMAINS_MAX).collect();
            }
            _ => {}
        }
    }
    out
}

/// Whether a text is a host or domain name: dot-separated labels of letters, digits, hyphens, underscores.
fn is_name(text: &str) -> bool {
    let label = |l: &str| (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.len() <= NAME_MAX && text.split('.').all(label)
}

/// The question for a name's service records. `None`: it is no name.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    if !is_name(name) {
        return None;
    }
    // Recursion desired, one question.
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&TYPE_SRV.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(out)
}

/// What a packet is worth as the answer to `question`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers something else, or nothing: the right one may still come.
    Foreign,
    /// The server says no; its code (3: there is no such name).
    Failed(u8),
    /// The records; none is an answer too. What does not parse ends the list.
    Places(Vec<Place>),
}

/// Reads a packet.
pub fn answer(question: &[u8], packet: &[u8]) -> Answer {
    let head = |at: usize| u16_at(packet, at).unwrap_or(0);
    let same = packet.len() >= question.len() && question.len() > HEADER && packet.len() <= PACKET_MAX;
    // The same number, a response, one question, and that is ours: byte by byte, but for the letters' case.
    if !same
        || packet[..2] != question[..2]
        || packet[2] & 0x80 == 0
        || head(4) != 1
        || !packet[HEADER..question.len()].eq_ignore_ascii_case(&question[HEADER..])
    {
        return Answer::Foreign;
    }
    if packet[3] & 0x0f != 0 {
        return Answer::Failed(packet[3] & 0x0f);
    }
    let mut at = question.len();
    let mut places = Vec::new();
    for _ in 0..usize::from(head(6)).min(RECORDS_MAX) {
        match record(packet, &mut at) {
            None => break,
            Some(place) => places.extend(place),
        }
    }
    Answer::Places(places)
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// One record; `Some(None)` = one of another kind, or without a service (`.`).
fn record(packet: &[u8], at: &mut usize) -> Option<Option<Place>> {
    let (_, end) = name(packet, *at)?;
    let (kind, class, length) = (u16_at(packet, end)?, u16_at(packet, end + 2)?, usize::from(u16_at(packet, end + 8)?));
    let data = end + 10;
    packet.get(data..data + length)?;
    *at = data + length;
    if (kind, class) != (TYPE_SRV, CLASS_IN) || length < 7 {
        return Some(None);
    }
    let (host, host_end) = name(packet, data + 6)?;
    if host_end > *at || !is_name(&host) {
        return Some(None);
    }
    let port = u16_at(packet, data + 4)?;
    Some((port > 0).then_some(Place { priority: u16_at(packet, data)?, weight: u16_at(packet, data + 2)?, port, host }))
}

/// A name at `at`, and where it ends there. Jumps lead back only, so that there is an end.
fn name(packet: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut at, mut end, mut jumps, mut text) = (at, None, 0, String::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        match length {
            0 => return Some((text, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = packet.get(at + 1..at + 1 + length)?;
                if text.len() + length + 1 > NAME_MAX || !label.is_ascii() {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(label.iter().map(|b| char::from(*b)));
                at += 1 + length;
            }
            0xc0.. => {
                let to = usize::from(u16_at(packet, at)? & 0x3fff);
                end = end.or(Some(at + 2));
                jumps += 1;
                if to >= at || jumps > JUMPS_MAX {
                    return None;
                }
                at = to;
            }
            _ => return None,
        }
    }
}

/// Whose turn it is: the lowest priority first, the next one after a failure, and by weight within one.
pub fn choose(places: &[Place], failures: u32, seed: u64) -> Option<&Place> {
    let mut priorities: Vec<u16> = places.iter().map(|p| p.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let turn = priorities.get(failures as usize % priorities.len().max(1))?;
    let group = || places.iter().filter(|p| p.priority == *turn);
    // A weight of 0 has a small chance, too.
    let share = |p: &Place| u64::from(p.weight) * 100 + 1;
    let mut left = seed % group().map(share).sum::<u64>().max(1);
    group().find(|p| {
        let hit = left < share(p);
        left = left.saturating_sub(share(p));
        hit
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "_vmetric._tcp.example.org";

    fn reply(question: &[u8], records: &[(u16, u16, u16, &[u8])]) -> Vec<u8> {
        let mut out = question.to_vec();
        (out[2], out[3], out[7]) = (0x81, 0x80, records.len() as u8);
        for (priority, weight, port, host) in records {
            out.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            out.extend_from_slice(&(6 + host.len() as u16).to_be_bytes());
            for n in [priority, weight, port] {
                out.extend_from_slice(&n.to_be_bytes());
            }
            out.extend_from_slice(host);
        }
        out
    }

    #[test]
    fn an_answer_is_read() {
        let ask = question(7, NAME).unwrap();
        // The second host ends in the question's own name.
        let packet = reply(&ask, &[(10, 5, 8443, b"\x01d\x07example\x03org\0"), (20, 0, 443, b"\x02d2\xc0\x1a")]);
        let Answer::Places(places) = answer(&ask, &packet) else { panic!() };
        assert_eq!(places[0], Place { priority: 10, weight: 5, port: 8443, host: "d.example.org".into() });
        assert_eq!((places[1].host.as_str(), places.len()), ("d2.example.org", 2));
        assert_eq!(choose(&places, 0, 99).unwrap().port, 8443);
        assert_eq!(choose(&places, 1, 99).unwrap().port, 443, "after a failure the next");
        assert_eq!(choose(&places, 2, 99).unwrap().port, 8443);
        assert_eq!(choose(&[], 3, 1), None);
        assert!(question(1, "a..b").is_none() && question(1, "").is_none() && question(1, &"a.".repeat(200)).is_none());
    }

    #[test]
    fn weights_share_a_priority() {
        let place = |weight, port| Place { priority: 1, weight, port, host: "h".into() };
        let places = [place(3, 1), place(1, 2), place(0, 3)];
        let hits = |port| (0..403).filter(|seed| choose(&places, 0, *seed).unwrap().port == port).count();
        assert_eq!((hits(1), hits(2), hits(3)), (301, 101, 1));
    }

    #[test]
    fn what_does_not_answer_us_is_foreign() {
        let ask = question(7, NAME).unwrap();
        let good = reply(&ask, &[(1, 1, 1, b"\x01d\0")]);
        for (at, value) in [(0, 9), (2, 0x01), (5, 2), (14, b'x')] {
            let mut packet = good.clone();
            packet[at] = value;
            assert_eq!(answer(&ask, &packet), Answer::Foreign, "{at}");
        }
        let mut upper = good.clone();
        upper[13..20].make_ascii_uppercase();
        assert!(matches!(answer(&ask, &upper), Answer::Places(p) if p.len() == 1));
        let mut none = good.clone();
        none[3] = 0x83;
        assert_eq!(answer(&ask, &none), Answer::Failed(3));
        assert_eq!(answer(&[], &[]), Answer::Foreign);
    }

    #[test]
    fn hostile_packets_end_the_list_and_nothing_else() {
        let ask = question(7, NAME).unwrap();
        let places = |host: &[u8]| match answer(&ask, &reply(&ask, &[(1, 1, 1, host), (1, 1, 2, b"\x02ok\0")])) {
            Answer::Places(places) => places.iter().map(|p| p.port).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let own = ask.len() as u8 + 12 + 6;
        for (host, left) in [
            (&[0xc0, own][..], vec![]),          // a jump to itself
            (&[0xc1, 0xff], vec![]),             // a jump forward, out of the packet
            (&[0x80, 1], vec![]),                // a label of no kind
            (b"\x09short", vec![]),              // a label that is longer than the record
            (b"\x01\xff\0", vec![]),             // no ASCII
            (b"\x02a/\0", vec![2]),              // no host name
            (b"\x0fhttps://x@evil:\0", vec![2]), // no host name
            (b"\0", vec![2]),                    // '.': no service
        ] {
            assert_eq!(places(host), left, "{host:?}");
        }
        let good = reply(&ask, &[(1, 1, 1, b"\x01d\0")]);
        for cut in 0..good.len() {
            assert!(!matches!(answer(&ask, &good[..cut]), Answer::Places(p) if !p.is_empty()), "{cut}");
        }
        let mut many = good.clone();
        (many[6], many[7]) = (0xff, 0xff);
        assert!(matches!(answer(&ask, &many), Answer::Places(p) if p.len() == 1));
        // A long name made of jumps.
        let mut chain = ask.clone();
        (chain[2], chain[3], chain[7]) = (0x81, 0x80, 1);
        let mut last = 12;
        for _ in 0..100 {
            let here = chain.len();
            chain.extend_from_slice(&[1, b'a', 0xc0 | (last >> 8) as u8, last as u8]);
            last = here;
        }
        chain.resize(PACKET_MAX, 0);
        assert!(name(&chain, last).is_none(), "too many jumps");
    }

    #[test]
    fn resolv_conf() {
        let text =
            "# c\nnameserver 10.0.0.1\nnameserver ::1\nsearch a.example b.example. bad/name\noptions x\nnameserver 3\nnameserver 4\n";
        let expected =
            Resolver { servers: vec!["10.0.0.1".into(), "::1".into(), "3".into()], domains: vec!["a.example".into(), "b.example".into()] };
        assert_eq!(resolver(text), expected);
        assert_eq!(resolver("domain only.example\n").domains, ["only.example"]);
        assert_eq!(resolver("\0\u{fffd}nameserver\nsearch"), Resolver::default());
    }
}
