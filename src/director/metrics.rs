//! `GET /metrics`: Prometheus text for Director and Fleet, for who shows a viewer's token ([`super::api_tokens`]).
//!
//! Versions and states come from the network, so the number of series has a limit; the rest is counted as `other`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::registry::Registry;
use super::site::Site;
use crate::core::rollout::OFFLINE_AFTER_S;
use crate::core::trust::TOP_LEVEL;
use crate::io::clock;

/// Most series of one name: a site has a dozen versions in a dozen states.
const SERIES_MAX: usize = 500;
/// The text's type, as Prometheus names it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Lines under their heads.
#[derive(Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a metric: its name, `gauge` or `counter`, and what it is.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP vmetric_{name} {help}\n# TYPE vmetric_{name} {kind}");
    }

    /// One value with its labels.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let list: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if list.is_empty() { String::new() } else { format!("{{{}}}", list.join(",")) };
        let _ = writeln!(self.text, "vmetric_{name}{labels} {value}");
    }

    /// A metric with one value.
    pub fn single(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.value(name, &[], value);
    }

    /// Everything.
    pub fn text(self) -> String {
        self.text
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page of a running server.
pub fn page(site: &Site) -> Page {
    let mut page = Page::default();
    let now = clock::unix();
    page.head("build_info", "gauge", "The running program.");
    page.value("build_info", &[("program", site.role.program), ("version", env!("VMETRIC_BUILT_VERSION"))], 1);
    let registry = site.registry.borrow();
    page.single("start_time_seconds", "When this process began, seconds since 1970.", registry.started_at);
    nodes(&mut page, &registry, site, now);
    updates(&mut page, &registry);
    drop(registry);
    page.single("parked_polls", "Polls that wait for news: the push channel.", site.parked() as u64);
    page.single("downloads", "Downloads under way.", site.downloads.get() as u64);
    mirror(&mut page, site);
    // A Director that is known to no Fleet has no such line.
    if let Some(fleet) = &*site.uplink.view.borrow() {
        page.single("fleet_connected", "1 while Fleet answers this Director.", u64::from(fleet.state == "connected"));
        page.single("fleet_answered_seconds", "When Fleet answered last, seconds since 1970; 0 = never.", fleet.answered_at.unwrap_or(0));
    }
    page
}

fn nodes(page: &mut Page, registry: &Registry, site: &Site, now: u64) {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut online = 0;
    for agent in registry.agents.values().filter(|a| a.removed_at.is_none()) {
        online += u64::from(now.saturating_sub(registry.last_contact(&agent.id)) <= OFFLINE_AFTER_S);
        let state = match registry.concerning(&agent.id) {
            Some((order, _)) => order.state.clone(),
            None if agent.step.is_empty() => "enrolled".into(),
            None => agent.step.clone(),
        };
        let key = (agent.version.clone(), state);
        let full = counts.len() >= SERIES_MAX && !counts.contains_key(&key);
        *counts.entry(if full { ("other".into(), "other".into()) } else { key }).or_default() += 1;
    }
    let nodes = site.role.nodes;
    page.head(nodes, "gauge", "Enrolled, by the version that each runs and what it does.");
    for ((version, state), n) in &counts {
        page.value(nodes, &[("version", version), ("state", state)], *n);
    }
    page.single(&format!("{nodes}_online"), "Heard of within the last minutes.", online);
}

fn updates(page: &mut Page, registry: &Registry) {
    page.head("rollouts", "gauge", "Roll-outs that are kept, by state.");
    let mut states: BTreeMap<&str, u64> = BTreeMap::from([("running", 0), ("halted", 0)]);
    for rollout in registry.rollouts.values() {
        *states.entry(&rollout.state).or_default() += 1;
    }
    for (state, n) in &states {
        page.value("rollouts", &[("state", state)], *n);
    }
    page.head("updates", "gauge", "Orders that are kept and have come to an end, by how.");
    let mut ends: BTreeMap<&str, u64> = BTreeMap::from([("updated", 0), ("rolled_back", 0)]);
    for order in registry.orders.values().filter(|o| o.end().is_some()) {
        *ends.entry(&order.state).or_default() += 1;
    }
    for (outcome, n) in &ends {
        page.value("updates", &[("outcome", outcome)], *n);
    }
}

fn mirror(page: &mut Page, site: &Site) {
    let tree = site.tree.borrow();
    page.single("mirror_verified_seconds", "When the mirror was last found fresh, seconds since 1970; 0 = never.", tree.verified_at);
    page.single("mirror_timestamp_version", "Version of the mirrored timestamp.", tree.timestamp_version);
    let failed = site.last_refresh.borrow().error.is_some();
    page.single("mirror_refresh_failed", "1 when the last look for releases was refused.", u64::from(failed));
    page.head("metadata_expiry_seconds", "gauge", "When each role's metadata expires, seconds since 1970.");
    for (role, at) in TOP_LEVEL.into_iter().zip(tree.expires) {
        if let Some(at) = at {
            page.value("metadata_expiry_seconds", &[("role", role)], at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_over_the_network_cannot_make_lines() {
        let mut page = Page::default();
        page.head("agents", "gauge", "Enrolled.");
        page.value("agents", &[("version", "1\"} 9\nvmetric_evil 1\\"), ("state", "")], 3);
        page.single("parked_polls", "Polls.", 2);
        let want = "# HELP vmetric_agents Enrolled.\n# TYPE vmetric_agents gauge\n\
                    vmetric_agents{version=\"1\\\"} 9\\nvmetric_evil 1\\\\\",state=\"\"} 3\n\
                    # HELP vmetric_parked_polls Polls.\n# TYPE vmetric_parked_polls gauge\nvmetric_parked_polls 2\n";
        assert_eq!(page.text(), want);
    }
}
