//! What the agent and its Director say to each other, and what is taken in from it: orders, acknowledgements, receipts.

use std::time::Duration;

use super::device::Device;
use super::fault::{self, Fault};
use super::link::{Link, LinkError};
use super::world::World;
use crate::core::hex;
use crate::core::reason::Reason;
use crate::core::rejected;
use crate::core::slots::Reached;
use crate::core::update::{Authority, SelfCheck, Staged, Target, acknowledges};
use crate::io::{clock, process};
use crate::wire::agent_api::{AnswerWire, OrderWire, ResultWire};
use crate::wire::records::{AcceptedWire, ResultsWire};

impl Device {
    /// Saves the accepted order as it stands.
    pub(super) fn save_order(&self) -> Result<(), Reason> {
        self.accepted.as_ref().map_or(Ok(()), |a| self.state.write("order.json", a))
    }

    /// Saves the end of an order. If that fails it is tried again before anything else is done: an order that has ended must
    /// not be shown as open, nor be taken up by the next start.
    pub(super) fn save_end(&mut self) -> Result<(), Reason> {
        self.unsaved = true;
        self.save_order()?;
        self.unsaved = false;
        Ok(())
    }

    /// Takes an order unless it is the one in force, an older one, or may not interrupt what runs.
    pub(super) fn accept(&mut self, order: OrderWire) -> Result<bool, Reason> {
        let before = self.accepted.as_ref();
        if !AcceptedWire::takes(&order, before, self.on_trial()) {
            return Ok(false);
        }
        let other = before.is_some_and(|b| b.order.sha256 != order.sha256);
        let mut wire = AcceptedWire::receive(order, &self.moment(), before);
        wire.agent_id = self.agent_id.clone();
        // An order that cannot be obeyed is kept, ended, so that it is not sent for ever; its refusal is a result.
        let refusal = wire.accepted(&self.times).err();
        self.state.write("order.json", &wire)?;
        self.accepted = Some(wire);
        (self.target, self.staged, self.fetch_failures) = (Target::Unknown, Staged::Nothing, 0);
        if other {
            // Of a file that is not wanted any more; a cancel may have left it for the next window.
            super::engine::drop_partial(self).unwrap_or_else(|reason| log::warn!("{reason}"));
        }
        if let Some(reason) = refusal {
            self.refuse_unreadable(reason)?;
        }
        if self.accepted.as_ref().is_some_and(|a| !a.ended) {
            self.triggered();
        }
        Ok(true)
    }

    /// At the start: ends an order that this device was given under an identity that it has no more.
    pub(super) fn end_left_over(&mut self) -> Result<(), Reason> {
        let left = self.accepted.as_ref().filter(|a| a.is_left_over(self.agent_id.as_deref(), self.on_trial()));
        match left.map(|a| a.order.clone()) {
            None => Ok(()),
            Some(order) => {
                let what = "this device was enrolled anew before the order was carried out; order it again where it is enrolled now";
                self.add_result(self.refusal(order, Reason::new("identity_replaced", what)))?;
                self.end_order()
            }
        }
    }

    fn refuse_unreadable(&mut self, reason: Reason) -> Result<(), Reason> {
        let Some(order) = self.accepted.as_ref().map(|a| a.order.clone()) else { return Ok(()) };
        self.add_result(self.refusal(order, reason))?;
        self.end_order()
    }

    /// A command's order that came to nothing before it was one. If it had become the order in force, it ends here.
    pub(super) fn refuse_local(&mut self, order: OrderWire, reason: Reason) -> Result<(), Reason> {
        let in_force = self.accepted.as_ref().is_some_and(|a| a.order.issuer == order.issuer && !a.ended);
        self.add_result(self.refusal(order, reason))?;
        if in_force { self.end_order() } else { Ok(()) }
    }

    fn refusal(&self, order: OrderWire, reason: Reason) -> ResultWire {
        ResultWire {
            id: hex::encode(&hex::sha256(format!("{}\0{}\0{}", order.issuer, order.generation, reason.code).as_bytes())[..8]),
            issuer: order.issuer,
            generation: order.generation,
            outcome: "refused".into(),
            code: reason.code.to_string(),
            detail: reason.detail.clone(),
            version: order.version,
            sha256: order.sha256,
            running_version: self.running.version.to_string(),
            running_sha256: hex::encode(&self.running.sha256),
            at: self.moment().unix,
            ..Default::default()
        }
    }

    /// Sends a report to `path` and takes the answer in. True when something new came.
    pub(super) fn exchange(&mut self, path: &str, park_s: u64) -> Result<bool, LinkError> {
        if fault::built_in() == Fault::NoContact {
            let reason = Reason::new("unreachable", "this build does not find its Director");
            return Err(LinkError::of(reason));
        }
        let report = self.report(park_s);
        self.says(&report);
        let Some(link) = &self.link else {
            return Err(LinkError::of(self.not_enrolled()));
        };
        let answer = match link.exchange(path, &report) {
            Ok(answer) => answer,
            Err(error) => {
                self.status.note_failure(&error);
                self.turned_down(&error);
                return Err(error);
            }
        };
        self.status.note_contact();
        self.status.refused = None;
        match self.take_answer(answer) {
            Ok(news) => {
                self.failures = 0;
                Ok(news)
            }
            Err(reason) => {
                // What was said cannot be kept: the next report says so, or the Director would only see it asked again.
                self.doing("waiting", &reason, None);
                Err(LinkError::of(reason))
            }
        }
    }

    /// There is nobody to ask.
    pub(super) fn not_enrolled(&self) -> Reason {
        let product = self.state.product();
        Reason::new("not_enrolled", format!("{} has no identity; run `{} enroll`", product.config, product.name))
    }

    /// The Director answered and turned this device down: an operator has to see it here too.
    fn turned_down(&mut self, error: &LinkError) {
        let refused = error.refused.then(|| error.reason.to_string());
        if refused.is_some() && self.status.refused != refused {
            log::error!("{} does not serve this device: {}", self.state.product().authority, error.reason);
            // Whoever asked publishes it, with the time of the next try beside it.
            self.status.refused = refused;
        }
    }

    fn take_answer(&mut self, answer: AnswerWire) -> Result<bool, Reason> {
        if let Some(at) = self.switched_at_ms.take() {
            self.gap_ms = (clock::monotonic().as_millis() as u64).saturating_sub(at).max(1);
        }
        self.status.contact_at = clock::unix();
        self.held = answer.stopping == Some(true);
        self.spread_s = answer.spread_s;
        self.hear_time(answer.time)?;
        self.heard(&answer);
        self.keep_identity(&answer);
        if answer.draining == Some(true) && self.link.as_ref().is_some_and(Link::leave) {
            let next = self.link.as_ref().map(Link::address).unwrap_or_default();
            log::info!("{} is being drained; going on with {next}", self.state.product().authority);
        }
        let mut news = false;
        // Heard before anything is written: a full disk must not end a trial that its authority has acknowledged.
        if let Some(said) = &answer.acknowledged {
            news |= self.hear_acknowledgement(Authority::Director, said);
        }
        if let Some(taken) = answer.result_taken {
            let left: Vec<ResultWire> = self.results.iter().filter(|r| r.id != taken).cloned().collect();
            if left.len() != self.results.len() {
                // On the disk first: a receipt that could not be noted is asked for again.
                self.state.write("results.json", &ResultsWire { results: left.clone() })?;
                self.results = left;
                news = true;
            }
        }
        if let Some(said) = &answer.trial_refused {
            news |= self.hear_refusal(said);
        }
        if let Some(order) = answer.order
            && self.accept(order)?
        {
            news = true;
            process::sleep(Duration::from_millis(self.pace.wait_ms(clock::awake().as_millis() as u64)));
        }
        self.reached(Reached::Contact)?;
        self.publish_status();
        Ok(news)
    }

    /// The Director's time: what this device's clock is judged by, and what dates the rejections of this boot.
    fn hear_time(&mut self, time: u64) -> Result<(), Reason> {
        self.director_time = Some((time, clock::monotonic()));
        self.status.director_time = Some(time);
        let now = self.moment();
        if rejected::date(&mut self.rejected, &now) {
            self.save_rejected()?;
        }
        Ok(())
    }

    /// Takes the word that this trial is well, if it comes from the authority that ordered it. True when it counts anew.
    pub(super) fn hear_acknowledgement(&mut self, by: Authority, said: &str) -> bool {
        let counts = !self.acknowledged && self.on_trial() && acknowledges(by, said, &self.trial_issuer(), &self.nonce);
        self.acknowledged |= counts;
        counts
    }

    /// Takes the word that this trial must not win, under the same conditions. What was acknowledged stays so.
    fn hear_refusal(&mut self, said: &str) -> bool {
        let counts = !self.acknowledged && !self.refused && self.on_trial();
        let counts = counts && acknowledges(Authority::Director, said, &self.trial_issuer(), &self.nonce);
        self.refused |= counts;
        counts
    }

    /// What the agent does now, for `status` and the report; written when it changes.
    pub(super) fn doing(&mut self, step: &str, reason: &Reason, for_s: Option<u64>) {
        let now = clock::unix();
        if self.status.step != step || self.status.code != reason.code.as_ref() {
            self.status.since = now;
        }
        self.status.step = step.to_string();
        self.status.code = reason.code.to_string();
        self.status.detail = reason.detail.clone();
        self.status.until = for_s.map(|s| now.saturating_add(s));
        if !super::link::is_shared() {
            crate::io::notify::status(&format!("{step}: {reason}"));
        }
        self.publish_status();
    }

    /// The same, told to the Director at once; a report that fails stops nothing.
    pub(super) fn tell(&mut self, step: &str, reason: &Reason) {
        self.doing(step, reason, None);
        if !self.is_local()
            && let Err(error) = self.exchange("/agent/v1/report", 0)
        {
            log::debug!("{}", error.reason);
        }
    }

    pub(super) fn publish_status(&mut self) {
        self.status.pid = process::agent_id();
        self.status.member = self.link.as_ref().and_then(Link::member);
        self.status.clock = Some(self.clock().word().into());
        self.status.trial_nonce = (self.on_trial() && self.self_check == SelfCheck::Passed).then(|| self.nonce.clone());
        self.status.bytes_total = self.accepted.as_ref().filter(|a| !a.ended).map_or(0, |a| a.order.length);
        if let Some((_, trusted)) = &self.trust {
            [self.status.root_version, self.status.timestamp_version, self.status.snapshot_version, self.status.targets_version] =
                trusted.versions();
        }
        self.state.write_status(&self.status);
    }
}
