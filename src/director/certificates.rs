//! Keeps the server's certificates fresh while the Director runs: looks once a minute, tells the activity what it did.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::pki::Names;
use super::pki::company::{Files, why_warn};
use super::site::Site;
use crate::core::reason::Reason;
use crate::io::clock;
use crate::io::fs::read_limited;

/// How often: a look costs nothing, and a clock that was set right is noticed soon.
const EVERY: Duration = Duration::from_secs(60);
/// A failure that stays is told again after this long.
const TELL_AGAIN_S: u64 = 86_400;
/// An address of no network (RFC 5737): asking which way leads there sends nothing.
const ELSEWHERE: &str = "192.0.2.1:9";

/// What the certificates come from.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// `--name`.
    pub name: Option<String>,
    /// Addresses that are listened on.
    pub addresses: Vec<SocketAddr>,
    /// `--tls-cert`, `--tls-key`.
    pub files: Option<Files>,
}

impl Naming {
    /// Host name or address that agents use: `--name`, else the host's name of this moment.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(hostname)
    }

    /// The names of this moment. Listening on all addresses means the one that leads outside, as far as there is one. (Only
    /// IPv4: IPv6 hosts change that address daily, for privacy; `--name` is the way to have one in the leaf.)
    pub fn names(&self) -> Names {
        let everywhere = self.addresses.iter().any(|a| a.ip().is_unspecified());
        names(&self.name(), &self.addresses, everywhere.then(outside).flatten())
    }
}

/// The time that leaves are made at: a clock before this program's build is wrong.
pub fn now() -> u64 {
    clock::unix().max(env!("VMETRIC_BUILT_TIME").parse().unwrap_or(0))
}

fn names(name: &str, addresses: &[SocketAddr], outside: Option<IpAddr>) -> Names {
    let mut names = Names { dns: vec!["localhost".into()], ips: vec![IpAddr::from([127, 0, 0, 1])] };
    match name.parse() {
        Ok(ip) => names.ips.push(ip),
        Err(_) => names.dns.push(name.to_string()),
    }
    names.ips.extend(addresses.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()));
    names.ips.extend(outside);
    names.dns.sort();
    names.dns.dedup();
    names.ips.sort();
    names.ips.dedup();
    names
}

fn outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

fn hostname() -> String {
    let read = read_limited(Path::new("/proc/sys/kernel/hostname"), 256).ok().flatten();
    let text = read.and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    if text.trim().is_empty() { "localhost".into() } else { text.trim().to_string() }
}

/// Whether a failure is told: once per cause, and again each day.
pub fn tells(last: Option<&(String, u64)>, failure: &Reason, now: u64) -> bool {
    last.is_none_or(|(code, at)| *code != failure.code || now < *at || now - at >= TELL_AGAIN_S)
}

/// The task.
pub async fn watch(site: Rc<Site>, naming: Naming) {
    let (mut told, mut told_company) = (None, None);
    loop {
        look(&site, &naming.names(), now(), &mut told);
        if let Some(files) = &naming.files {
            look_company(&site, files, clock::unix(), &mut told_company);
        }
        smol::Timer::after(EVERY).await;
    }
}

/// One look at the operator's files: takes what is new and fits together, tells what does not, and tells of a near end.
pub fn look_company(site: &Site, files: &Files, now: u64, told: &mut Option<(String, u64)>) {
    let known = site.ca.company();
    let failure = match files.load() {
        Ok(company) => {
            let end = why_warn(company.until, now);
            if known.is_none_or(|k| k.seen != company.seen) {
                let until = crate::core::time::format(company.until);
                let detail = format!("{}: from now on the one that ends {until}", files.certificate.display());
                site.ca.set_company(company);
                site.registry.borrow_mut().event(now, "", "certificate_replaced", detail, None);
                site.flush();
            }
            end
        }
        Err(reason) => Some(reason),
    };
    *site.company_error.borrow_mut() = failure.as_ref().map(Reason::to_string);
    match failure {
        None => *told = None,
        Some(failure) if tells(told.as_ref(), &failure, now) => {
            site.registry.borrow_mut().event(now, "", "certificate_failed", failure.detail.clone(), None);
            site.flush();
            *told = Some((failure.code.to_string(), now));
        }
        Some(_) => {}
    }
}

/// One look: renews what is due; the next handshake sees it.
pub fn look(site: &Site, names: &Names, now: u64, told: &mut Option<(String, u64)>) {
    let before = site.ca.leaf().0;
    let outcome = site.ca.renew_if_due(names, now);
    let (until, _) = site.ca.leaf();
    *site.certificate_error.borrow_mut() = outcome.as_ref().err().map(Reason::to_string);
    match outcome {
        Ok(None) => *told = None,
        Ok(Some(why)) => {
            *told = None;
            let detail = format!("{}; the new one is for {names} until {}", why.detail, crate::core::time::format(until));
            site.registry.borrow_mut().event(now, "", "certificate_renewed", detail, None);
            site.flush();
        }
        Err(failure) if tells(told.as_ref(), &failure, now) => {
            let detail = format!("{}; the old one stays in use, for browsers until {}", failure.detail, crate::core::time::format(before));
            site.registry.borrow_mut().event(now, "", "certificate_failed", detail, None);
            *told = Some((failure.code.to_string(), now));
            site.flush();
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_stays_is_told_daily() {
        let failure = Reason::new("pki_unwritable", "no space");
        let told = ("pki_unwritable".to_string(), 1_000);
        assert!(tells(None, &failure, 1_000));
        assert!(!tells(Some(&told), &failure, 1_060));
        assert!(tells(Some(&told), &failure, 1_000 + TELL_AGAIN_S));
        assert!(tells(Some(&told), &failure, 0), "the clock was set back");
        assert!(tells(Some(&("other".into(), 1_000)), &failure, 1_060));
    }

    #[test]
    fn every_way_to_reach_it_is_named() {
        let listen = ["10.0.0.1:1".parse().unwrap(), "[::]:1".parse().unwrap()];
        let all = names("d.example", &listen, Some("10.0.0.9".parse().unwrap()));
        assert_eq!(all.to_string(), "d.example,localhost,10.0.0.1,10.0.0.9,127.0.0.1");
        assert_eq!(names("10.0.0.1", &listen[..1], None).to_string(), "localhost,10.0.0.1,127.0.0.1");
    }
}
