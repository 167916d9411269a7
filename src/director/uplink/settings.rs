//! Fleet's settings for this Director and its agents: fetched when Fleet names another revision, kept, and in force until the
//! next ones, however long Fleet is away.

use std::rc::Rc;
use std::time::Duration;

use miniserde::json;

use super::{Uplink, broken};
use crate::agent::link::LinkError;
use crate::core::backoff::wait_ms;
use crate::core::reason::Reason;
use crate::director::site::Site;
use crate::director::store::{Change, Table};
use crate::io::{clock, random};
use crate::wire::fleet_api::{SETTINGS_MAX, SettingsAnswerWire};

use super::ANSWER;

/// How soon Fleet hears that its settings are in force.
const TOLD_WITHIN: Duration = Duration::from_millis(300);

/// The settings of the last process.
///
/// # Errors
/// They do not parse; Fleet sends them again.
pub(super) fn restore(site: &Site) -> Result<(), String> {
    let mut found = None;
    site.store.each(Table::Uplink, |key, text| {
        if key == "settings" {
            found = Some(json::from_str::<SettingsAnswerWire>(text));
        }
        true
    })?;
    match found {
        None => Ok(()),
        Some(Ok(settings)) => {
            *site.uplink.settings.borrow_mut() = Some(Rc::new(settings));
            site.uplink.settled.ring();
            Ok(())
        }
        Some(Err(_)) => Err(site.store.damaged("the row 'settings' of Uplink does not parse")),
    }
}

impl Uplink {
    /// Whether Fleet named settings that are not in force here.
    pub(super) fn settings_wanted(&self) -> bool {
        let shared = &self.site.uplink;
        let named = shared.announced.get();
        named.is_some() && named != shared.settings_revision() && clock::monotonic() >= self.settings_due
    }

    /// Fetches them. What is no answer of this protocol, or too long, is refused and told; the former ones stay in force.
    pub(super) async fn fetch_settings(&mut self) -> Result<(), LinkError> {
        let query = format!("after={}", self.site.uplink.settings_revision().unwrap_or(0));
        let fetched = self.call(move |link| link.document("/fleet/v1/settings", &query, SETTINGS_MAX, ANSWER)).await;
        let text = match fetched {
            Ok(text) => text,
            Err(error) if error.reason.code == "too_large" => return self.refuse(error.reason),
            Err(error) => return Err(error),
        };
        let Ok(settings) = json::from_str::<SettingsAnswerWire>(&text) else {
            return self.refuse(broken("Fleet's settings are none of this protocol").reason);
        };
        self.answered();
        self.settings_failures = 0;
        self.site.uplink.announced.set(Some(settings.revision));
        if settings.document.is_none() {
            return Ok(());
        }
        let revision = settings.revision;
        self.site.store.queue(vec![Change { table: Table::Uplink, key: "settings".into(), value: Some(text) }]);
        // In force only once they would still be after a power cut: an order must not follow from settings that are forgotten.
        self.site.store.durable().await.map_err(|e| broken(&format!("Fleet's settings could not be kept: {e}")))?;
        *self.site.uplink.settings.borrow_mut() = Some(Rc::new(settings));
        self.site.uplink.settled.ring();
        // What came of it is told soon, not with the next regular word.
        self.next_health = self.next_health.min(clock::monotonic() + TOLD_WITHIN);
        self.tell("settings_received", format!("Fleet's settings of revision {revision} are in force"));
        Ok(())
    }

    fn refuse(&mut self, reason: Reason) -> Result<(), LinkError> {
        if self.settings_failures == 0 {
            self.tell("settings_refused", format!("{} ({}); those from before stay in force", reason.detail, reason.code));
        }
        self.settings_failures = self.settings_failures.saturating_add(1);
        self.settings_due = clock::monotonic() + Duration::from_millis(wait_ms(self.settings_failures, random::seed(), None));
        Ok(())
    }
}
