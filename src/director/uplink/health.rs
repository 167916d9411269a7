//! How this Director is, as Fleet hears it.

use std::time::Duration;

use miniserde::json;

use super::{Uplink, broken};
use crate::agent::link::LinkError;
use crate::core::hex;
use crate::core::release::Platform;
use crate::director::tree::Tree;
use crate::io::clock;
use crate::io::fs::room;
use crate::io::tls::pin_text;
use crate::wire::agent_api::{PROTOCOL, ReportWire};
use crate::wire::fleet_api::{DatedWire, FLEET_ANSWER_MAX, HealthAnswerWire, HealthWire, InstallWire, MetadataWire, without_nulls};

/// What Fleet's clock said in its last answer to a health.
pub(super) struct Date {
    run: u64,
    ms: u64,
    /// When that came, by this Director's clock.
    heard: Duration,
}

impl Uplink {
    /// Sends the health with a page of the agents. `around`: looks first who went away.
    pub(super) async fn send_health(&mut self, around: bool) -> Result<(), LinkError> {
        let now = clock::unix();
        self.rows.is_pending(&self.site);
        let page = {
            let registry = self.site.registry.borrow();
            if around {
                self.rows.look_around(&registry, now);
            }
            self.rows.page(&registry, now)
        };
        let health = HealthWire { inventory: Some(page.wire.clone()), ..self.health(now) };
        let text = self.post("/fleet/v1/health", without_nulls(&health), FLEET_ANSWER_MAX).await?;
        let answer: HealthAnswerWire = json::from_str(&text).map_err(|_| broken("Fleet's answer to the health is none"))?;
        self.answered();
        self.rows.acknowledged(&page, answer.full == Some(true));
        if let Some(refused) = answer.refused.filter(|n| *n > 0) {
            log::warn!("Fleet has no place for {refused} agents of this Director");
        }
        let date = answer.run.zip(answer.date_ms).map(|(run, ms)| Date { run, ms, heard: clock::monotonic() });
        let run = |date: &Option<Date>| date.as_ref().map(|date| date.run);
        if answer.cluster.is_some() && run(&self.dated) != run(&date) {
            // Nobody could tell how old this one was.
            self.site.uplink.hurry();
        }
        self.dated = date;
        #[cfg(unix)]
        self.site.cluster.hear(&self.state, answer.cluster);
        if answer.settings_revision.is_some() {
            self.site.uplink.announced.set(answer.settings_revision);
        }
        Ok(())
    }

    /// What an install command for agents needs, once there is a mirror.
    fn install(&self, tree: &Tree) -> Option<InstallWire> {
        let root_version = tree.versions[0];
        let root = tree.entries.get(&format!("metadata/{root_version}.root.json"))?;
        Some(InstallWire {
            url: self.site.about.borrow().url.clone(),
            pin: pin_text(&self.site.ca.pin()),
            certificates_sha256: hex::encode(&hex::sha256(self.site.ca.bundle().as_bytes())),
            root_version,
            root_sha256: root.sha256.clone(),
        })
    }

    fn age(&self) -> DatedWire {
        let now = clock::monotonic();
        let ms = |time: Duration| time.as_millis() as u64;
        let plain = DatedWire { made_ms: ms(now), ..Default::default() };
        let said =
            |d: &Date| DatedWire { run: Some(d.run), date_ms: Some(d.ms), held_ms: Some(ms(now.saturating_sub(d.heard))), ..plain.clone() };
        self.dated.as_ref().map_or_else(|| plain.clone(), said)
    }

    fn health(&self, now: u64) -> HealthWire {
        let (registry, tree, here) = (self.site.registry.borrow(), self.site.tree.borrow(), Platform::here());
        let mirror = MetadataWire {
            of: "mirror".into(),
            root: Some(tree.versions[0]),
            timestamp: Some(tree.timestamp_version),
            snapshot: Some(tree.versions[1]),
            targets: Some(tree.versions[2]),
            root_expires: tree.expires[0],
            timestamp_expires: tree.expires[1],
            snapshot_expires: tree.expires[2],
            targets_expires: tree.expires[3],
        };
        let health = HealthWire {
            protocol: PROTOCOL,
            version: env!("VMETRIC_BUILT_VERSION").into(),
            architecture: here.arch,
            os: here.os,
            hostname: Some(self.site.naming.borrow().name()),
            metadata: Some(vec![mirror]),
            time: Some(now),
            started_at: Some(registry.started_at),
            disk_free: room(&self.state.path("")).ok().map(|room| room.free),
            agents: Some(self.rows.counts()),
            agents_online: Some(self.rows.online()),
            rollouts_running: Some(registry.rollouts.values().filter(|r| r.state == "running").count() as u64),
            mirror_error: self.site.last_refresh.borrow().error.clone(),
            backlog: Some(self.backlog()),
            stopping: self.site.draining.get().then_some(true),
            settings_revision: self.site.uplink.settings_revision(),
            update: self.site.settings.borrow().config.own_update(),
            install: self.install(&tree),
            templates: Some(registry.template_states()).filter(|list| !list.is_empty()),
            confirmations: Some(registry.confirmation_states()).filter(|list| !list.is_empty()),
            agents_policy: Some(registry.tiers_in_force()),
            url: Some(self.site.about.borrow().url.clone()),
            pin: Some(pin_text(&self.site.ca.pin())),
            #[cfg(unix)]
            peers: self.site.cluster.words(),
            #[cfg(unix)]
            promised: self.site.cluster.promised.borrow().clone(),
            dated: Some(self.age()),
            ..Default::default()
        };
        match &self.own {
            Some(report) => {
                let deadline = self.site.own.borrow().as_ref().and_then(|own| own.deadline(report));
                HealthWire { deadline, ..with_own(health, report) }
            }
            None => health,
        }
    }
}

/// What the thread that updates this Director said last.
fn with_own(mut health: HealthWire, report: &ReportWire) -> HealthWire {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    health.version = report.version.clone();
    health.scheduled_version = report.scheduled_version.clone();
    (health.step, health.code, health.detail, health.until) = (some(&report.step), some(&report.code), some(&report.detail), report.until);
    (health.running, health.running_as, health.clock) = (some(&report.running), some(&report.running_as), some(&report.clock));
    let done = u128::from(report.bytes_done.min(report.bytes_total));
    let fetching = report.scheduled_version.is_some() && report.bytes_total > 0;
    health.percent = fetching.then(|| (done * 100 / u128::from(report.bytes_total)) as u64);
    let own = MetadataWire {
        of: "own".into(),
        root: Some(report.root_version),
        timestamp: Some(report.timestamp_version),
        snapshot: Some(report.snapshot_version),
        targets: Some(report.targets_version),
        ..Default::default()
    };
    health.metadata.get_or_insert_default().push(own);
    health
}
