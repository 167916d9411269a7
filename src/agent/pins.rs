//! The site goes over to another CA: this agent learns its pin and takes its credential, and says so in its report.

use super::device::Device;
use super::link::Link;
use crate::core::failover::{MEMBERS_MAX, is_address};
use crate::core::hex::Sha256;
use crate::core::pins::learn;
use crate::core::reason::Reason;
use crate::wire::agent_api::AnswerWire;
use crate::wire::config::{CONFIG_MAX, ConfigWire, PINS_MAX, parse_pin};

/// Longest credential that is kept, bytes: it has to fit into the configuration beside everything else.
const CREDENTIAL_MAX: usize = CONFIG_MAX as usize / 2;

impl Device {
    /// Takes in what an answer says of pins and credential. A configuration that cannot be written now is written after one
    /// of the next answers: until then the old one is right.
    pub(super) fn keep_identity(&mut self, answer: &AnswerWire) {
        let Some(link) = self.link.as_ref().filter(|link| link.is_first()) else { return };
        if answer.pins.is_none() && answer.credential.is_none() && answer.members.is_none() && !link.has_candidates() {
            return;
        }
        let kept = self.next_config(link, answer).and_then(|(before, next)| {
            if next != before {
                self.state.write_config(&next)?;
                log::info!("{}: {}", self.state.product().config, describe(&before, &next));
            }
            link.renewed(&next, &self.state)
        });
        match kept {
            Ok(Some(link)) => self.link = Some(link),
            Ok(None) => {}
            Err(reason) => log::warn!("what {} said of CA and members is not kept yet: {reason}", self.state.product().authority),
        }
    }

    fn next_config(&self, link: &Link, answer: &AnswerWire) -> Result<(ConfigWire, ConfigWire), Reason> {
        let missing = || self.not_enrolled();
        let before = self.state.config()?.map(|(config, _)| config).ok_or_else(missing)?;
        let mut next = before.clone();
        let said = answer.pins.clone().unwrap_or_default();
        let pins = |texts: &[String]| texts.iter().take(2 * PINS_MAX).filter_map(|t| parse_pin(t).ok()).collect::<Vec<Sha256>>();
        // A device that goes by the company's CA holds no pins and begins with none.
        if !before.pins.is_empty() {
            next.hold(&learn(&before.held(), &link.pins_used(), &pins(&said.trust), &pins(&said.retired), PINS_MAX));
        }
        if let Some(credential) = answer.credential.as_ref().filter(|c| !c.is_empty() && c.len() <= CREDENTIAL_MAX) {
            next.credential = credential.clone();
        }
        if let Some(members) = &answer.members {
            next.members =
                Some(members.iter().filter(|m| is_address(m)).take(MEMBERS_MAX).cloned().collect::<Vec<_>>()).filter(|m| !m.is_empty());
        }
        Ok((before, next))
    }

    /// For the report: the pins that are known to work.
    pub(super) fn confirmed_pins(&self, config: &ConfigWire) -> Vec<String> {
        config.pins.iter().filter(|p| !config.candidates.iter().flatten().any(|c| c == *p)).cloned().collect()
    }
}

fn describe(before: &ConfigWire, next: &ConfigWire) -> String {
    let credential = if before.credential == next.credential { "" } else { ", a new credential" };
    let candidates = next.candidates.as_ref().map_or(0, Vec::len);
    let members = next.members.as_ref().map_or(String::new(), |m| format!(", {} members", m.len()));
    format!("{} pin(s), {candidates} of them candidates{credential}{members}", next.pins.len())
}
