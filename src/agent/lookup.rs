//! The ordered target: what the trusted metadata say of it, and what is noted of its download.

use super::device::Device;
use super::link::Link;
use super::source::Source;
use super::world::Fetched;
use crate::core::backoff;
use crate::core::clock::Clock;
use crate::core::reason::Reason;
use crate::core::release::Artifact;
use crate::core::stage::Stage;
use crate::core::time;
use crate::core::trust::{Goal, Now};
use crate::core::update::{Order, Target};
use crate::io::medium::Medium;
use crate::io::trust_store::Stopped;
use crate::io::{clock, random};
use crate::wire::records::{RejectedListWire, RejectedWire};

impl Device {
    pub(super) fn note_fetched(&mut self, artifact: &Artifact, result: &Result<Fetched, Reason>) {
        match result {
            Ok(Fetched::Verified) => {
                self.done(Stage::Download, || format!("{} bytes of the binary", artifact.length));
                self.begins(Stage::Signature);
                self.done(Stage::Signature, || {
                    format!("{}: length, hash and build signature (key {})", artifact.path, short(&artifact.build_keyid))
                });
            }
            Ok(Fetched::Refused(reason)) => {
                self.begins(Stage::Signature);
                self.stopped(Stage::Signature, reason);
            }
            Ok(Fetched::Later(reason, _)) | Err(reason) => self.stopped(Stage::Download, reason),
            Ok(Fetched::Interrupted) => {}
        }
    }

    pub(super) fn look(&mut self, order: &Order) -> Target {
        self.looked_at = clock::monotonic();
        if self.clock() == Clock::Ahead {
            // Everything would look expired, or fresh for too long: neither is decided by a clock that is known to be wrong.
            let (own, theirs) = (time::format(clock::unix()), time::format(self.director_now().unwrap_or(0)));
            let who = self.state.product().authority;
            let detail = format!("this device's clock shows {own}, that of {who} {theirs}; no new metadata are accepted until it is set");
            return Target::Unavailable { reason: Reason::new("clock_ahead", detail), for_s: self.times.recheck_s };
        }
        self.find_target(order)
    }

    pub(super) fn save_rejected(&self) -> Result<(), Reason> {
        let rejected = self.rejected.iter().map(RejectedWire::from).collect();
        self.state.write("rejected.json", &RejectedListWire { rejected })
    }

    fn find_target(&mut self, order: &Order) -> Target {
        if self.trust.is_none() {
            // What could not be read at the start may be readable, or back in its place, by now.
            (self.trust, self.trust_note) = super::run::open_trust(&self.image, &self.state);
        }
        let Some((store, trusted)) = self.trust.take() else {
            let reason = self.trust_note.clone().err().unwrap_or_else(|| Reason::new("no_root", "no root metadata"));
            return Target::Unavailable { reason, for_s: self.times.recheck_s };
        };
        let now = Now { unix: clock::unix(), floor: super::build::time(), offline_grace_s: self.offline_grace_s };
        let medium = match self.tree.as_deref().filter(|_| order.is_local()).map(Medium::open).transpose() {
            Ok(medium) => medium,
            Err(reason) => {
                self.trust = Some((store, trusted));
                return Target::Unavailable { reason, for_s: self.times.recheck_s };
            }
        };
        let source = match (&medium, &self.link) {
            (Some(medium), _) => Some(Source::Medium(medium)),
            (_, Some(link)) => Some(Source::Director(link)),
            _ => None,
        };
        let mut fetch = |name: &str, limit: u64| match &source {
            Some(source) => source.metadata(name, limit).map_err(|e| e.reason),
            None => Err(self.not_enrolled()),
        };
        let (trusted, result) = store.refresh(trusted, now, Goal::Find(order.target.clone()), &mut fetch);
        let found = trusted.lookup(&order.target);
        self.trust = Some((store, trusted));
        match (result, found) {
            (Ok(_), Ok(artifact)) => Target::Signed(artifact),
            (Ok(_), Err(refusal)) => Target::Refused(refusal.into()),
            // Metadata that were refused or not reached may be good tomorrow; the order waits with that reason.
            (Err(stopped @ Stopped::Fetch(_)), _) => {
                self.fetch_failures = self.fetch_failures.saturating_add(1);
                let for_s = backoff::wait_ms(self.fetch_failures, random::seed(), None).div_ceil(1000);
                Target::Unavailable { reason: stopped.into(), for_s }
            }
            (Err(stopped), _) => Target::Unavailable { reason: stopped.into(), for_s: self.times.recheck_s },
        }
    }

    /// A second way to the Director, for the reports between slices.
    pub(super) fn reporter(&self, first: Option<&Link>) -> Option<Link> {
        let (config, _) = self.state.config().ok()??;
        let link = Link::new(&config, &self.state, None, super::link::tick).ok()?;
        first.into_iter().for_each(|first| link.speak_as(first));
        Some(link)
    }
}

pub(super) fn short(keyid: &str) -> &str {
    keyid.get(..12).unwrap_or(keyid)
}
