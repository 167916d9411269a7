//! One `POST` to a place that an administrator named. Blocking, for a helper thread; a connection of its own each time.
//!
//! The address is looked up here and checked before it is connected to, so that no name can point back at this machine
//! meanwhile. Refused are this machine, link-local addresses (where clouds keep their credentials), and what is no single
//! host. Private networks are allowed: receivers at an air-gapped site are nowhere else. No redirect is followed, and of the
//! answer nothing but the status is told to anybody.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::core::notice::Target;
use crate::core::reason::Reason;
use crate::io::clock;

/// Time for all of it; each wait is bounded, and the sum is looked at between them.
const TIME: Duration = Duration::from_secs(15);
/// How much of an answer is read for its status.
const HEAD_MAX: usize = 4096;
/// Where systems keep the CAs that they trust.
const BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];
/// The usual variable that names another file of them.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// Why an address is not connected to; `local` = this machine itself was allowed by somebody on it.
fn refused(ip: IpAddr, local: bool) -> Option<&'static str> {
    let v4 = |ip: std::net::Ipv4Addr| match ip {
        ip if ip.is_loopback() && !local => Some("this machine"),
        ip if ip.is_link_local() => Some("a link-local address"),
        ip if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.octets()[0] == 0 => Some("no single host"),
        _ => None,
    };
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip),
            None if ip.is_loopback() && !local => Some("this machine"),
            None if ip.is_unspecified() || ip.is_multicast() => Some("no single host"),
            None if (ip.segments()[0] & 0xffc0) == 0xfe80 => Some("a link-local address"),
            // 6to4 and NAT64 carry an IPv4 address that nobody has looked at.
            None if ip.segments()[0] == 0x2002 || ip.segments()[..2] == [0x64, 0xff9b] => Some("a translated address"),
            None => None,
        },
    }
}

fn addresses(target: &Target, local: bool) -> Result<Vec<SocketAddr>, Reason> {
    let unknown = |e: std::io::Error| Reason::new("host_unknown", format!("{} cannot be looked up: {e}", target.host));
    let found: Vec<SocketAddr> = (target.host.as_str(), target.port).to_socket_addrs().map_err(unknown)?.collect();
    for address in &found {
        if let Some(what) = refused(address.ip(), local) {
            let detail = format!("{} is {} ({what}); a webhook goes to another host", target.host, address.ip());
            return Err(Reason::new("address_refused", detail));
        }
    }
    match found.is_empty() {
        true => Err(Reason::new("host_unknown", format!("{} has no address", target.host))),
        false => Ok(found),
    }
}

/// Whom this system trusts.
#[allow(clippy::disallowed_methods, reason = "io reads the environment")]
fn rules() -> Result<Arc<ClientConfig>, Reason> {
    let none = |why: String| Reason::new("no_cas", format!("{why}; install ca-certificates, or name a file in {BUNDLE_VARIABLE}"));
    let named = std::env::var(BUNDLE_VARIABLE).ok().filter(|path| !path.is_empty());
    let path = named.or_else(|| BUNDLES.iter().find(|path| std::path::Path::new(path).exists()).map(|path| path.to_string()));
    let path = path.ok_or_else(|| none("this system has no file of CAs".into()))?;
    let certificates = CertificateDer::pem_file_iter(&path).map_err(|e| none(format!("{path}: {e}")))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if roots.is_empty() {
        return Err(none(format!("{path} holds no certificate")));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| none(e.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Sends JSON and says with which status it was answered.
///
/// # Errors
/// `address_refused`, `host_unknown`, `no_cas`, `tls_failed`, `unreachable`, `timed_out`, `bad_answer`.
pub fn post(target: &Target, headers: &[(&str, String)], body: &str, local: bool) -> Result<u16, Reason> {
    let end = clock::monotonic() + TIME;
    let left = || end.checked_sub(clock::monotonic()).filter(|left| !left.is_zero());
    let late = || Reason::new("timed_out", format!("{} did not answer within {} s", target.host, TIME.as_secs()));
    let lost = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => late(),
        std::io::ErrorKind::InvalidData => Reason::new("tls_failed", format!("{}: {e}", target.host)),
        _ => Reason::new("unreachable", format!("{}: {e}", target.host)),
    };
    let mut connected = Err(late());
    for address in addresses(target, local)? {
        let Some(left) = left() else { break };
        connected = TcpStream::connect_timeout(&address, left / 2).map_err(lost);
        if connected.is_ok() {
            break;
        }
    }
    let socket = connected?;
    let name = ServerName::try_from(target.host.clone()).map_err(|_| Reason::new("url_invalid", "url: the host is no name"))?;
    let tls = ClientConnection::new(rules()?, name).map_err(|e| Reason::new("tls_failed", format!("{}: {e}", target.host)))?;
    let mut stream = StreamOwned::new(tls, socket);
    let wait = |stream: &StreamOwned<ClientConnection, TcpStream>| -> Result<(), Reason> {
        let left = left().ok_or_else(late)?;
        stream.sock.set_read_timeout(Some(left)).and_then(|()| stream.sock.set_write_timeout(Some(left))).map_err(lost)
    };
    let mut head = format!("POST {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", target.path, target.authority());
    head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    wait(&stream)?;
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).map_err(lost)?;
    stream.flush().map_err(lost)?;
    let (mut answer, mut piece) = (Vec::new(), [0; 512]);
    while !answer.windows(2).any(|pair| pair == b"\r\n") && answer.len() < HEAD_MAX {
        wait(&stream)?;
        match stream.read(&mut piece).map_err(lost)? {
            0 => break,
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    status(&answer).ok_or_else(|| Reason::new("bad_answer", format!("{} answers no HTTP", target.host)))
}

/// `HTTP/1.1 204 ...`
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.get(..3).filter(|_| version.starts_with("HTTP/1."))?;
    code.parse().ok().filter(|code| (100..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_refused() {
        for ip in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(refused(ip.parse().unwrap(), false).is_some() && refused(ip.parse().unwrap(), true).is_none(), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
        ] {
            assert!(refused(ip.parse().unwrap(), true).is_some(), "{ip}");
        }
        for ip in ["10.0.0.7", "192.168.1.1", "203.0.113.9", "2001:db8::1", "fd00::1"] {
            assert!(refused(ip.parse().unwrap(), false).is_none(), "{ip}");
        }
    }

    #[test]
    fn the_status_of_an_answer() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        for bad in [&b"HTTP/2 200\r\n"[..], b"", b"HTTP/1.1", b"HTTP/1.1 x00 ", b"HTTP/1.1 999 x", b"\xff\xff", b"SSH-2.0 200"] {
            assert_eq!(status(bad), None);
        }
    }
}
