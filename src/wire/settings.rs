//! Update settings as they travel and as they are stored: in a Director's report, in Fleet's API, in the store.
//!
//! Texts as a person typed them, so that a Custom Policy that is switched off and on again is what it was. What they mean
//! is [`crate::core::policy`]'s.

use miniserde::json::{self, Number, Value};
use miniserde::{Deserialize, Serialize};

use crate::core::policy::{Settings, Typed, Wrong, check, check_all, check_complete};
use crate::core::reason::Reason;

/// The specification's `update` section, and a time zone. Absent = not said at this tier.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsWire {
    /// `manual`, `auto`.
    pub mode: Option<String>,
    /// `user_action`, `immediate`, `schedule`.
    pub method: Option<String>,
    /// Exact, or `latest`.
    pub version: Option<String>,
    /// 5-field crontab, with `method: schedule`.
    pub cron: Option<String>,
    /// `30s`, `5m`, `1h`, `1d`, or seconds, with `method: schedule`.
    pub interval: Option<String>,
    /// IANA name, or `local`.
    pub zone: Option<String>,
}

/// The fields, as people write them.
pub const FIELDS: [&str; 6] = ["mode", "method", "version", "cron", "interval", "zone"];

impl SettingsWire {
    /// As typed, for the check.
    pub fn typed(&self) -> Typed<'_> {
        Typed {
            mode: self.mode.as_deref(),
            method: self.method.as_deref(),
            version: self.version.as_deref(),
            cron: self.cron.as_deref(),
            interval: self.interval.as_deref(),
            zone: self.zone.as_deref(),
        }
    }

    /// The one check of settings of one tier.
    ///
    /// # Errors
    /// The first field that is wrong, and what is allowed.
    pub fn check(&self) -> Result<Settings, Wrong> {
        check(&self.typed())
    }

    /// The same, with every problem.
    ///
    /// # Errors
    /// Each field that is wrong, and what is allowed.
    pub fn check_all(&self) -> Result<Settings, Vec<Wrong>> {
        check_all(&self.typed())
    }

    /// The same for a section that stands alone (`update:` of `vmetric.yml`): what is required must be there.
    ///
    /// # Errors
    /// As [`SettingsWire::check`], and a required field that is missing.
    pub fn check_complete(&self) -> Result<Settings, Wrong> {
        check_complete(&self.typed())
    }

    /// Each value by itself, for a part of a tier's settings: what it needs beside it may be set already.
    ///
    /// # Errors
    /// The first field that is wrong, and what is allowed.
    pub fn check_values(&self) -> Result<(), Wrong> {
        let timed = self.cron.is_some() || self.interval.is_some();
        let method = self.method.clone().or_else(|| timed.then(|| "schedule".to_string()));
        SettingsWire { method, ..self.clone() }.check().map(|_| ())
    }

    /// True when nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == SettingsWire { ..Default::default() }
    }

    /// The field of a name in [`FIELDS`].
    pub fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "mode" => Some(&mut self.mode),
            "method" => Some(&mut self.method),
            "version" => Some(&mut self.version),
            "cron" => Some(&mut self.cron),
            "interval" => Some(&mut self.interval),
            "zone" => Some(&mut self.zone),
            _ => None,
        }
    }

    /// Reads a JSON object strictly: an unknown field, or a value of another kind, is named. The values are not checked.
    ///
    /// # Errors
    /// `settings_invalid`.
    pub fn read(text: &str) -> Result<SettingsWire, Reason> {
        let wrong = |detail: String| Reason::new("settings_invalid", detail);
        let value: Value = json::from_str(text).map_err(|_| wrong("the settings are no JSON".into()))?;
        let Value::Object(object) = value else { return Err(wrong(format!("expected an object with {}", FIELDS.join(", ")))) };
        let mut out = SettingsWire { ..Default::default() };
        for (name, value) in &object {
            let shown: String = name.chars().take(40).collect();
            let Some(field) = out.field(name) else {
                return Err(wrong(format!("{shown}: no such field; allowed: {}", FIELDS.join(", "))));
            };
            *field = match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                // The specification's plain seconds.
                Value::Number(Number::U64(seconds)) if name == "interval" => Some(seconds.to_string()),
                _ => return Err(wrong(format!("{shown}: expected a text"))),
            };
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_named() {
        let read = |text: &str| SettingsWire::read(text).map_err(|r| r.detail.clone());
        let good = read(r#"{"mode":"auto","method":"schedule","interval":90,"cron":null}"#).unwrap();
        assert_eq!((good.interval.as_deref(), good.cron.clone()), (Some("90"), None));
        assert!(good.check().is_ok());
        for (text, word) in [("{", "JSON"), ("[]", "object"), (r#"{"metod":"x"}"#, "metod"), (r#"{"mode":true}"#, "mode: expected")] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn each_field_has_its_name() {
        let mut wire = SettingsWire { ..Default::default() };
        for name in FIELDS {
            *wire.field(name).unwrap() = Some(name.into());
        }
        assert!(wire.field("x").is_none());
        let back: SettingsWire = json::from_str(&json::to_string(&wire)).unwrap();
        assert_eq!(back, wire);
        for name in FIELDS {
            assert_eq!(wire.field(name).unwrap().as_deref(), Some(name));
        }
    }
}
