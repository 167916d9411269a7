//! Looks at the other members of the cluster: whether each answers and serves, over the network that agents use.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use miniserde::json;

use super::Look;
use crate::director::site::Site;
use crate::io::clock;
use crate::io::http::{Http, HttpConfig};
use crate::io::tls::parse_pin;
use crate::wire::agent_api::ErrorWire;
use crate::wire::fleet_api::ClusterMemberWire;

/// How often each peer is looked at: a lost one is told within seconds, and fourteen peers are three requests per second.
pub const EVERY: Duration = Duration::from_secs(5);
/// Longest wait for an answer; longer is not served.
const ANSWER: Duration = Duration::from_secs(3);
/// Longest answer of `/readyz`, bytes.
const ANSWER_MAX: u64 = 4 * 1024;
/// A peer that serves what its agents need although it has no releases yet.
const SERVES: &str = "not_ready";

/// A peer's address with the client that is kept for it.
type Kept = (String, String, Option<Http>);

/// Until the process ends.
pub async fn forever(site: Rc<Site>) {
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    loop {
        look_around(&site, &mut kept).await;
        smol::Timer::after(EVERY).await;
    }
}

/// The others, as Fleet told of them.
fn others(site: &Site) -> Vec<ClusterMemberWire> {
    let own = site.uplink.view.borrow().as_ref().map(|view| view.id.clone()).unwrap_or_default();
    let told = site.cluster.told.borrow();
    told.iter().flat_map(|(cluster, _)| &cluster.members).filter(|member| member.id != own).cloned().collect()
}

async fn look_around(site: &Rc<Site>, kept: &mut BTreeMap<String, Kept>) {
    let others = others(site);
    kept.retain(|id, _| others.iter().any(|other| other.id == *id));
    // All at once: one that does not answer holds up none.
    let mut looks = Vec::new();
    for other in others {
        let (Some(url), Some(pin)) = (other.url, other.pin) else { continue };
        let http = kept.remove(&other.id).filter(|(u, p, _)| (u, p) == (&url, &pin)).and_then(|(_, _, http)| http);
        let task = smol::unblock(move || {
            let (http, why) = look(&url, &pin, http);
            ((url, pin, http), why)
        });
        looks.push((other.id, task));
    }
    for (id, task) in looks {
        let (client, why) = task.await;
        kept.insert(id.clone(), client);
        let before = site.cluster.looks.borrow_mut().insert(id, Look { at: clock::monotonic(), why: why.clone() });
        if before.is_none_or(|before| before.why.is_some() != why.is_some()) {
            site.uplink.hurry();
        }
    }
    if let Some(own) = site.own.borrow().as_ref() {
        own.shared.see(site.cluster.looks(), site.draining.get());
    }
    // While one of them is away or just back, what is seen of it is waited for.
    if site.cluster.told.borrow().as_ref().is_some_and(|(cluster, _)| cluster.holder.is_some()) {
        site.uplink.hurry();
    }
}

/// One look; why it is not reached, if so.
fn look(url: &str, pin: &str, http: Option<Http>) -> (Option<Http>, Option<(String, String)>) {
    let bad = |code: &str, detail: String| Some((code.to_string(), detail));
    let Ok(parsed) = parse_pin(pin) else { return (None, bad("bad_pin", format!("{url}: its pin is none"))) };
    let config = HttpConfig { pins: vec![parsed], proxy: None, user_agent: crate::agent::build::USER_AGENT, wake_fd: None, tick: || {} };
    let http = match http.map_or_else(|| Http::new(config), Ok) {
        Ok(http) => http,
        Err(e) => return (None, bad(&e.reason().code, e.reason().detail.clone())),
    };
    let said = http.get(&format!("{}/readyz", url.trim_end_matches('/')), None, None, ANSWER_MAX, ANSWER);
    let mut answer = match said {
        Ok(answer) => answer,
        Err(e) => return (None, bad(&e.reason().code, e.reason().detail.clone())),
    };
    let (mut bytes, mut piece) = (Vec::new(), [0; 512]);
    while let Ok(n @ 1..) = answer.read(&mut piece) {
        bytes.extend_from_slice(&piece[..n]);
    }
    if answer.status == 200 {
        return (Some(http), None);
    }
    let said: ErrorWire = json::from_str(&String::from_utf8_lossy(&bytes)).unwrap_or_default();
    match said.code.as_str() {
        SERVES => (Some(http), None),
        code => (Some(http), bad(if code.is_empty() { "not_serving" } else { code }, format!("{url}: {} {}", answer.status, said.detail))),
    }
}
