//! `ca status | rotate | retire`: the administrator's side of [`super::pki::rotate`].

use std::rc::Rc;

use miniserde::{Deserialize, Serialize};
use smol::net::unix::UnixStream;

use super::admin::AdminWire;
use super::caller::Behind;
use super::certificates;
use super::commands::{reply, store_error};
use super::role::Role;
use super::site::Site;
use super::table::{Table, ago};
use crate::core::reason::Reason;
use crate::io::tls::pin_text;

/// Parked polls that are answered when the CA or the cluster's members change, so that a small site is over in a second; the others hear of it when their
/// polls end by themselves, spread over a minute.
pub const CALLED_AT_ONCE: usize = 200;
/// Agents named in one sentence.
const NAMED: usize = 5;

/// The CAs, and who still needs the former one.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct CaView {
    /// Pin of the present CA.
    pub pin: String,
    /// Pin of the former one, while its key is kept.
    pub former: Option<String>,
    /// Pins of those whose keys are gone.
    pub retired: Vec<String>,
    /// Agents.
    pub agents: u64,
    /// Those that would be lost without the former one; in the answer to `retire --force`, those that are.
    pub behind: Vec<Behind>,
    /// Director's time.
    pub time: u64,
}

fn view(site: &Site, now: u64) -> CaView {
    let (registry, pin) = (site.registry.borrow(), pin_text(&site.ca.pin()));
    let former = site.ca.former_pin().map(|p| pin_text(&p));
    let behind = if former.is_some() { registry.behind(&pin) } else { Vec::new() };
    let agents = registry.agents.values().filter(|a| a.removed_at.is_none()).count() as u64;
    CaView { pin, former, retired: site.ca.pins().retired, agents, behind, time: now }
}

/// Runs one of the three.
///
/// # Errors
/// `rotation_open`, `no_rotation`, `agents_behind`, `pki_unwritable`, `store_unavailable`.
pub async fn run(site: &Rc<Site>, request: &AdminWire, who: &str, now: u64, out: &mut UnixStream) -> Result<(), Reason> {
    let (names, node) = (site.naming.borrow().names(), site.role.node);
    match request.act.as_deref() {
        Some("rotate") => {
            site.ca.rotate(&names, certificates::now())?;
            let detail = format!(
                "the site has a new CA for {}, {}; the former one stays until `ca retire`",
                site.role.nodes,
                pin_text(&site.ca.pin())
            );
            site.acting(who, |registry| registry.ca_rotated(now, detail));
            site.wake_some(CALLED_AT_ONCE);
        }
        Some("retire") => {
            let behind = view(site, now).behind;
            if !behind.is_empty() && request.force != Some(true) {
                let detail =
                    format!("{} {node}(s) would be lost: {}; `ca status` lists them, --force goes on", behind.len(), named(&behind));
                return Err(Reason::new("agents_behind", detail));
            }
            let pin = pin_text(&site.ca.retire(&names, certificates::now())?);
            let whom = if behind.is_empty() { String::new() } else { format!(": {}", named(&behind)) };
            let detail = format!("{pin} is retired; {} {node}(s) have to enroll again{whom}", behind.len());
            site.acting(who, |registry| {
                registry.event(now, "", "ca_retired", detail, None);
                // Each finds it in its own timeline, however many there are.
                for lost in &behind {
                    let why = format!("{pin} was retired before this {node} was over ({}); `enroll --replace` attaches it anew", lost.why);
                    registry.event(now, &lost.id, "agent_lost", why, None);
                }
            });
            site.flush();
            site.store.durable().await.map_err(store_error)?;
            // Whoever forced it is told whom to visit: all of them, this once.
            return reply(out, &CaView { behind, ..view(site, now) }).await;
        }
        _ => {}
    }
    site.flush();
    site.store.durable().await.map_err(store_error)?;
    reply(out, &view(site, now)).await
}

/// The first of them, in one sentence.
fn named(behind: &[Behind]) -> String {
    let names: Vec<&str> = behind.iter().take(NAMED).map(|b| b.id.as_str()).collect();
    let more = if behind.len() > NAMED { ", ..." } else { "" };
    names.join(", ") + more
}

/// For people.
pub fn text(view: &CaView, role: &Role) -> String {
    let mut out = format!("{:<10} {}\n", "pin", view.pin);
    match &view.former {
        None => out += &format!("{:<10} none; `ca rotate` makes a new CA\n", "former"),
        Some(former) => {
            let over = view.agents.saturating_sub(view.behind.len() as u64);
            out += &format!("{:<10} {former}, kept until `ca retire`\n{:<10} {over} of {} are over\n", "former", role.nodes, view.agents);
        }
    }
    if !view.behind.is_empty() {
        // After `retire --force`: those whom it lost.
        let who = if view.former.is_some() { "NOT OVER YET" } else { "LOST" };
        let mut table = Table::new(&[who, "HOST", "SEEN", "WHY"]);
        for b in &view.behind {
            table.row(vec![b.id.clone(), b.hostname.clone(), ago(view.time, b.last_contact), b.why.clone()]);
        }
        out += &table.text();
    }
    out
}
