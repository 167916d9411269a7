//! `<state>/config/agent.json`: identity, address and pins. Frozen (FROZEN.md); at most [`CONFIG_MAX`] bytes.
//!
//! A start ignores unknown fields (a newer version may have written them) and says so; `-validate` refuses them.
//! Errors name the field.

use miniserde::json::{self, Value};
use miniserde::{Deserialize, Serialize};

use crate::core::failover::{ADDRESS_MAX, is_address};
use crate::core::hex::{self, Sha256};
use crate::core::pins::Held;
use crate::core::reason::Reason;

/// Longest configuration, bytes: a credential, four pins and an address are about 700.
pub const CONFIG_MAX: u64 = 4096;
/// Pins an agent holds: the current one, its successor, and two spare.
pub const PINS_MAX: usize = 4;

/// The agent's configuration.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfigWire {
    /// 1.
    pub format: u32,
    /// `https://host:port` of the managing Director.
    pub director: String,
    /// `sha256:<hex>` of the site CA's public key, at most [`PINS_MAX`].
    pub pins: Vec<String>,
    /// Identity in the site's registry.
    pub agent_id: String,
    /// Bearer credential; secret, the file has mode 0600.
    pub credential: String,
    /// Issuer known from enrollment.
    pub issuer: String,
    /// Proxy URL; absent = from the environment.
    pub proxy: Option<String>,
    /// Days after expiry that timestamp and snapshot are still accepted at a site without an outside link.
    pub offline_site_days: Option<u64>,
    /// Public half of the key that this identity is bound to, hex; which file holds the other half is looked up by it.
    pub device_key: Option<String>,
    /// File beside this one with the CAs of the Director, instead of pins; `ca-<hex>.pem`, needs the cargo feature `company-ca`.
    pub ca: Option<String>,
    /// Those of `pins` under which no connection has succeeded yet.
    pub candidates: Option<Vec<String>>,
    /// All members of the managing Director's cluster, `https://host:port`; absent = it stands alone ([`crate::core::failover`]).
    pub members: Option<Vec<String>>,
}

/// Most days of `--offline-site`: a year and a month.
pub const OFFLINE_SITE_MAX: u64 = 400;

const FIELDS: [&str; 13] = [
    "format",
    "director",
    "pins",
    "agent_id",
    "credential",
    "issuer",
    "proxy",
    "offline_site_days",
    "device_key",
    "ca",
    "candidates",
    "members",
    "sum",
];

/// Between the members that are summed and their sum, which is the last member.
const SUM: &str = ",\"sum\":\"";
/// Hex digits of the sum: against rot, not against people.
const SUM_DIGITS: usize = 16;

/// A pin from `sha256:<64 lower-case hex digits>`.
pub fn parse_pin(text: &str) -> Result<Sha256, Reason> {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    hex::decode(digits).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Reason::new("bad_pin", format!("'{shown}' is no pin; expected sha256: and 64 hex digits, as `vmetric-director` prints it"))
    })
}

impl ConfigWire {
    /// For how many seconds after their expiry a timestamp and a snapshot are accepted here (`--offline-site`).
    pub fn offline_grace_s(&self) -> u64 {
        self.offline_site_days.unwrap_or(0).min(OFFLINE_SITE_MAX) * 24 * 3600
    }

    /// As it is written: with a sum of what stands before it, because one rotten bit in a pin is JSON as good as any.
    pub fn text(&self) -> String {
        let mut text = json::to_string(self);
        text.pop();
        let sum = sum_of(&text);
        text + SUM + &sum + "\"}"
    }

    /// From the file's bytes. Unknown fields are returned by name, to be warned of. A file without a sum was written by hand.
    pub fn parse(bytes: &[u8]) -> Result<(ConfigWire, Vec<String>), Reason> {
        let bad = |why: String| Reason::new("bad_config", why);
        let text = std::str::from_utf8(bytes).map_err(|_| bad("is not UTF-8".into()))?;
        let summed = text.rsplit_once(SUM).and_then(|(before, rest)| Some((before, rest.trim_end().strip_suffix("\"}")?)));
        if let Some((before, sum)) = summed
            && sum != sum_of(before)
        {
            return Err(bad("does not fit its member sum: it rotted, or was edited by hand; whoever edits it takes sum out".into()));
        }
        let value: Value = json::from_str(text).map_err(|_| bad("is not JSON".into()))?;
        let Value::Object(fields) = &value else { return Err(bad("is no JSON object".into())) };
        let unknown = fields.keys().filter(|k| !FIELDS.contains(&k.as_str())).cloned().collect();
        check_types(&value)?;
        let config: ConfigWire = json::from_str(text).map_err(|_| bad("a field is missing or has the wrong type".into()))?;
        config.check()?;
        Ok((config, unknown))
    }

    /// The values' own rules.
    pub fn check(&self) -> Result<(), Reason> {
        let bad = |why: String| Err(Reason::new("bad_config", why));
        if !self.director.starts_with("https://") || self.director.len() > 256 {
            return bad(format!("field director: '{}' must start with https:// and have at most 256 bytes", self.director));
        }
        if let Some(ca) = &self.ca {
            check_ca(ca, &self.pins)?;
        } else if self.pins.is_empty() || self.pins.len() > PINS_MAX {
            return bad(format!("field pins: {} pins, expected 1 to {PINS_MAX}", self.pins.len()));
        }
        for pin in &self.pins {
            parse_pin(pin)?;
        }
        if let Some(bad_one) = self.members.iter().flatten().find(|m| !is_address(m)) {
            return bad(format!("field members: '{bad_one}' must be https://host[:port] of at most {ADDRESS_MAX} bytes"));
        }
        match self.offline_site_days {
            Some(days) if days > OFFLINE_SITE_MAX => bad(format!("field offline_site_days: {days}, at most {OFFLINE_SITE_MAX}")),
            _ => Ok(()),
        }
    }

    /// The pins, each with whether it is confirmed.
    pub fn held(&self) -> Vec<Held> {
        let candidate = |text: &String| self.candidates.iter().flatten().any(|c| c == text);
        self.pins.iter().filter_map(|p| Some(Held { pin: parse_pin(p).ok()?, confirmed: !candidate(p) })).collect()
    }

    /// Holds these pins from now on.
    pub fn hold(&mut self, held: &[Held]) {
        let text = |h: &Held| format!("sha256:{}", hex::encode(&h.pin));
        self.pins = held.iter().map(text).collect();
        let candidates: Vec<String> = held.iter().filter(|h| !h.confirmed).map(text).collect();
        self.candidates = (!candidates.is_empty()).then_some(candidates);
    }

    /// The pins.
    pub fn pin_hashes(&self) -> Vec<Sha256> {
        self.pins.iter().filter_map(|p| parse_pin(p).ok()).collect()
    }
}

fn sum_of(text: &str) -> String {
    let mut sum = hex::encode(&hex::sha256(text.as_bytes()));
    sum.truncate(SUM_DIGITS);
    sum
}

/// The rules of field `ca`.
fn check_ca(ca: &str, pins: &[String]) -> Result<(), Reason> {
    let bad = |why: &str| Err(Reason::new("bad_config", format!("field ca: {why}")));
    let digits = ca.strip_prefix("ca-").and_then(|rest| rest.strip_suffix(".pem")).unwrap_or_default();
    if !cfg!(feature = "company-ca") {
        return bad("this agent was built without the cargo feature company-ca; enroll it with --pin");
    }
    if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return bad("expected ca-<hex>.pem, a file in the same folder");
    }
    if pins.is_empty() { Ok(()) } else { bad("there are pins too; it is one or the other") }
}

/// miniserde names no field in its errors, so the types are walked here first.
fn check_types(value: &Value) -> Result<(), Reason> {
    let Value::Object(fields) = value else { return Ok(()) };
    let get = |name: &str| fields.iter().find(|(k, _)| k.as_str() == name).map(|(_, v)| v);
    for name in ["director", "agent_id", "credential", "issuer"] {
        match get(name) {
            Some(Value::String(_)) => {}
            Some(_) => return Err(Reason::new("bad_config", format!("field {name}: expected a string"))),
            None => return Err(Reason::new("bad_config", format!("field {name} is missing; enroll again"))),
        }
    }
    match get("pins") {
        Some(Value::Array(pins)) if pins.iter().all(|p| matches!(p, Value::String(_))) => Ok(()),
        _ => Err(Reason::new("bad_config", "field pins: expected a list of strings")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConfigWire {
        ConfigWire {
            format: 1,
            director: "https://10.0.0.1:8443".into(),
            pins: vec![format!("sha256:{}", hex::encode(&[1; 32]))],
            agent_id: "a-1".into(),
            credential: "c".into(),
            issuer: "i".into(),
            proxy: None,
            offline_site_days: None,
            device_key: None,
            ca: None,
            candidates: None,
            members: None,
        }
    }

    #[test]
    fn round_trip_and_unknown_fields() {
        let text = json::to_string(&config());
        assert_eq!(ConfigWire::parse(text.as_bytes()).unwrap(), (config(), vec![]));
        let newer = text.replacen('{', "{\"zone\":\"x\",", 1);
        assert_eq!(ConfigWire::parse(newer.as_bytes()).unwrap(), (config(), vec!["zone".to_string()]));
    }

    #[test]
    fn every_flipped_bit_of_what_is_written_is_seen() {
        let text = config().text();
        assert_eq!(ConfigWire::parse(text.as_bytes()).unwrap(), (config(), vec![]));
        assert_eq!(ConfigWire::parse(format!("{text}\n").as_bytes()).unwrap(), (config(), vec![]));
        for at in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            // The name and the frame of the sum itself may rot: what they sum is whole.
            let read = ConfigWire::parse(&bytes).map(|(read, _)| read);
            assert!(read.as_ref().is_err() || read == Ok(config()), "bit {at}: {}", String::from_utf8_lossy(&bytes));
        }
        let edited = text.replace("10.0.0.1", "10.0.0.2");
        assert!(ConfigWire::parse(edited.as_bytes()).unwrap_err().detail.contains("takes sum out"));
        let (before, _) = edited.split_once(SUM).unwrap();
        assert_eq!(ConfigWire::parse(format!("{before}}}").as_bytes()).unwrap().0.director, "https://10.0.0.2:8443");
    }

    #[test]
    fn a_company_ca_takes_the_place_of_pins() {
        let under = |ca: &str, pins: &[&str]| {
            let pins = pins.iter().map(|p| p.to_string()).collect();
            ConfigWire { ca: Some(ca.into()), pins, ..config() }.check().map_err(|r| r.detail.clone())
        };
        if !cfg!(feature = "company-ca") {
            assert!(under("ca-00.pem", &[]).unwrap_err().contains("feature company-ca"));
            return;
        }
        assert_eq!(under("ca-00ff.pem", &[]), Ok(()));
        assert!(under("ca-00ff.pem", &[&config().pins[0]]).unwrap_err().contains("one or the other"));
        for bad in ["", "ca.pem", "ca-.pem", "ca-../../etc/x.pem", "/etc/passwd"] {
            assert!(under(bad, &[]).unwrap_err().contains("field ca"), "{bad}");
        }
    }

    #[test]
    fn errors_name_the_field() {
        let good = json::to_string(&config());
        for (from, to, field) in [
            ("\"https://10.0.0.1:8443\"", "\"http://10.0.0.1\"", "director"),
            ("\"https://10.0.0.1:8443\"", "7", "director"),
            ("\"agent_id\":\"a-1\",", "", "agent_id"),
            ("sha256:", "md5:", "pin"),
            ("\"offline_site_days\":null", "\"offline_site_days\":401", "offline_site_days"),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            let error = ConfigWire::parse(text.as_bytes()).unwrap_err();
            assert!(error.detail.contains(field), "{field}: {error}");
        }
        for garbage in [&b"[]"[..], b"", b"{", &[0xff]] {
            assert!(ConfigWire::parse(garbage).is_err());
        }
    }
}
