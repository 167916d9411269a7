//! A start without an identity: the device enrolls by itself, and then forgets the token.
//!
//! ```text
//!   look at the sources --> something is missing ----------------> wait, look again
//!        ^                        |
//!        |                  ask the Director --- refused, away ---> wait longer each time, for ever
//!        |                        |                 pending ------> as long as it says
//!        |                  agent.json durable
//!        |                        |
//!        +- another source   forget the token --> start the launcher, which finds an identity
//! ```
//!
//! Nothing of this is remembered but the device's key and which medium's token was shown: after a power cut at any point
//! the next start looks and does the rest. The same key and token get the same identity, however often they ask. What is
//! decided, [`crate::core::first_boot`] decides; where things are found, [`crate::io::offers`] looks.

use std::path::Path;
use std::time::Duration;

use super::device::Device;
use super::enroll::{self, Failed};
use super::link::{Link, tick};
use crate::core::copies::KeyFile;
use crate::core::first_boot::{Choice, Ended, LOOK_S, Offer, Plan, Settings, Source, choose, wait_ms};
use crate::core::proof::fingerprint;
use crate::core::reason::Reason;
use crate::io::state::State;
use crate::io::{clock, device_key, dns, environment, offers, process, random};
use crate::wire::config::ConfigWire;
use crate::wire::records::SourceWire;

/// Settings for a device without an identity: a document, or the path of one.
pub const ENV_CONFIG: &str = "VMETRIC_CONFIG";

/// What a device without an identity knows of its tries.
#[derive(Debug, Default)]
pub struct FirstBoot {
    /// `VMETRIC_CONFIG`.
    environment: Option<String>,
    /// With what it asked last.
    plan: Option<Plan>,
    /// The sources as they were told last.
    told: Option<Vec<SourceWire>>,
    /// What DNS said last.
    dns: Option<Offer>,
    failures: u32,
    /// When it asks again, on the monotonic clock.
    next: Duration,
}

impl FirstBoot {
    /// With what the environment says.
    pub fn new(environment: Option<String>) -> FirstBoot {
        FirstBoot { environment, ..FirstBoot::default() }
    }
}

/// At each start with an identity: what may still hold a token has no more use for it. Tells what could not be done.
pub fn forget(state: &State) -> Option<String> {
    environment::forget(ENV_CONFIG);
    let left = offers::forget_tokens(state);
    left.iter().for_each(|reason| log::warn!("{reason}"));
    left.first().map(ToString::to_string)
}

impl Device {
    /// Waits for an identity, at most `left`: looks at the sources, asks when it is time.
    pub(super) fn first_boot(&mut self, left: Duration) {
        if super::link::is_shared() {
            return self.program_looks_for_identity(left);
        }
        if self.state.path(self.state.product().config).exists() {
            return self.found_identity(left);
        }
        let (offers, choice) = self.look_for_settings();
        // Another address by DNS is the same plan: else its back-off would begin anew with every answer.
        let kept = |plan: &Plan| match offers.last() {
            Some(Offer { source: Source::Dns, .. }) => {
                Plan { settings: Settings { director: None, ..plan.settings.clone() }, ..plan.clone() }
            }
            _ => plan.clone(),
        };
        match &choice.plan {
            Ok(plan) => {
                let kept = kept(plan);
                self.ask_when_due(plan, kept, &offers[plan.token_from]);
            }
            Err(reason) => self.incomplete(reason, &offers),
        }
        if self.relaunch_for.is_none() {
            self.rest_before_next(left);
        }
    }

    /// Asks when it is time; with another plan (`kept`: what counts of it) the waits begin anew.
    pub(super) fn ask_when_due(&mut self, plan: &Plan, kept: Plan, token_from: &Offer) {
        let now = clock::monotonic();
        if self.first.plan.as_ref() != Some(&kept) {
            (self.first.plan, self.first.failures, self.first.next) = (Some(kept), 0, now);
        }
        if now >= self.first.next && !self.on_trial() {
            self.ask_for_identity(plan, token_from);
        }
    }

    /// Nothing can be asked now. Without a reason nobody wants it either.
    #[cfg(feature = "director")]
    pub(super) fn no_plan(&mut self, why: Option<&Reason>) {
        self.first.plan = None;
        match why {
            Some(reason) => self.tell_no_contact(reason, None),
            None if self.status.link_code.take().is_some() => {
                self.status.link_detail = None;
                self.publish_status();
            }
            None => {}
        }
    }

    /// Until it is time to ask, or to look at the sources again.
    pub(super) fn rest_before_next(&self, left: Duration) {
        let until = self.first.plan.as_ref().map_or(Duration::MAX, |_| self.first.next.saturating_sub(clock::monotonic()));
        super::run::sleep(left.min(until).min(Duration::from_secs(self.times.recheck_s.min(LOOK_S))));
    }

    /// An identity is there: of a command that could not reach this process, or one that could not be used when this process
    /// started. Only one that can be used is worth a new start: else each start would be followed by the next at once.
    fn found_identity(&mut self, left: Duration) {
        let found = self.state.config().and_then(|config| match config {
            Some((config, _)) => Link::new(&config, &self.state, None, tick).map(drop),
            None => Err(Reason::new("not_enrolled", "config/agent.json: is there, and holds nothing")),
        });
        match found {
            Ok(()) => self.relaunch_for = Some(Reason::new("enrolled", "this device has an identity now")),
            Err(reason) => {
                self.tell_no_contact(&reason, None);
                super::run::sleep(left.min(Duration::from_secs(self.times.recheck_s.min(LOOK_S))));
            }
        }
    }

    /// Something is missing: the sources are looked at again soon. DNS is asked again as a Director is that does not answer.
    fn incomplete(&mut self, reason: &Reason, offers: &[Offer]) {
        self.first.plan = None;
        let asked = matches!(offers.last(), Some(Offer { source: Source::Dns, .. }));
        if !asked {
            self.tell_no_contact(reason, None);
        } else if clock::monotonic() >= self.first.next {
            self.first.failures = self.first.failures.saturating_add(1);
            let wait = Duration::from_millis(wait_ms(Ended::Unserved, self.first.failures, random::seed(), None));
            self.first.next = clock::monotonic() + wait;
            self.tell_no_contact(reason, Some(wait));
        }
    }

    /// The sources, and what comes of them. DNS is asked for nothing but a missing address, and only when it is time to ask.
    fn look_for_settings(&mut self) -> (Vec<Offer>, Choice) {
        let mut offers = offers::local(&self.state, &self.image, self.first.environment.as_deref(), Path::new("/"));
        let mut choice = choose(&offers);
        if choice.lacks_address() {
            if self.first.dns.is_none() || clock::monotonic() >= self.first.next {
                self.first.dns = Some(dns::director(self.first.failures, tick));
            }
            offers.extend(self.first.dns.clone());
            choice = choose(&offers);
        }
        let sources = choice.notes.iter().map(|(name, said)| SourceWire { name: name.clone(), said: said.clone() }).collect();
        self.status.sources = Some(sources);
        (offers, choice)
    }

    fn ask_for_identity(&mut self, plan: &Plan, token_from: &Offer) {
        match self.obtain(plan, token_from) {
            Ok(agent_id) => {
                log::info!("enrolled at {} as {agent_id}", plan.settings.director.as_deref().unwrap_or_default());
                self.status.note_contact();
                if !self.program_is_enrolled() {
                    forget(&self.state);
                    self.relaunch_for = Some(Reason::new("enrolled", "this device has an identity now"));
                }
            }
            Err(failed) if failed.woken => {
                process::drain_wake();
            }
            Err(failed) => {
                self.first.failures = self.first.failures.saturating_add(1);
                let wait = Duration::from_millis(wait_ms(failed.ended, self.first.failures, random::seed(), failed.retry_after_s));
                self.first.next = clock::monotonic() + wait;
                if self.first.failures <= 3 || self.first.failures.is_multiple_of(10) {
                    log::warn!("not enrolled: {}; next try in {} s", failed.reason, wait.as_secs());
                }
                self.tell_no_contact(&failed.reason, Some(wait));
            }
        }
    }

    /// Asks, and keeps the identity. The key is durable before the first word, and so is the note which file the token
    /// came from; the token goes last.
    fn obtain(&mut self, plan: &Plan, token_from: &Offer) -> Result<String, Failed> {
        let s = &plan.settings;
        let mut config = ConfigWire {
            format: 1,
            director: s.director.clone().unwrap_or_default(),
            pins: s.pins.clone(),
            proxy: s.proxy.clone(),
            offline_site_days: s.offline_site_days,
            ..Default::default()
        };
        config.check()?;
        // As at `enroll`: a device that could never be updated does not spend the token.
        crate::io::room::for_slots(&self.state.path(""))?;
        let key = device_key::read_or_make(&self.state, KeyFile::Key)?;
        self.status.fingerprint = Some(fingerprint(&key.public()));
        let token = s.token.as_deref().unwrap_or_default();
        offers::note_shown(&self.state, token_from, token)?;
        let serial = s.serial.clone().or_else(|| enroll::serial(s.serial_file.as_deref()));
        let enrolled = enroll::ask(&config, None, &enroll::request(self.state.product(), &key, token, serial), (self.wake_fd, tick))?;
        enroll::take(&mut config, enrolled, &key);
        self.state.write_config(&config)?;
        Ok(config.agent_id)
    }

    /// Told when it is news: `status.json` is not written each quarter of a minute for years.
    fn tell_no_contact(&mut self, reason: &Reason, wait: Option<Duration>) {
        let before = (self.status.link_code.clone(), self.status.link_detail.clone(), self.first.told.clone());
        (self.status.link_code, self.status.link_detail) = (Some(reason.code.to_string()), Some(reason.detail.clone()));
        self.status.link_failures = Some(self.first.failures);
        self.status.link_until = wait.map(|wait| clock::unix().saturating_add(wait.as_secs()));
        self.first.told.clone_from(&self.status.sources);
        if wait.is_some() || before != (self.status.link_code.clone(), self.status.link_detail.clone(), self.first.told.clone()) {
            self.publish_status();
        }
    }
}
