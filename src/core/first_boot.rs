//! A device without an identity: where it takes address, pins and token from, when it asks again, and what it then forgets.
//!
//! Each setting is taken from the first source that has it, in this order:
//!
//! | source | where | may hold |
//! |---|---|---|
//! | configuration | `<state>/config/enroll.json`, then `<image>/enroll.json` | everything; a token only in `<state>` |
//! | environment | `VMETRIC_CONFIG`: the document itself, or the path of a file with it | everything |
//! | medium | `vmetric-enroll.json` on a mounted medium | everything |
//! | DNS | SRV `_vmetric._tcp.<search domain>` | the address alone |
//!
//! **DNS is never trusted.** Whoever answers a device's DNS (the network's owner, or anybody on it) can send it somewhere,
//! and no more: pins come from the other sources, and a Director without the pinned key is not spoken to. A TXT record
//! with a pin would be as good as no pin, so none is read.
//!
//! **A token is shown only under pins from its own source or one before it.** A stick that brings another pin does not get
//! the token that the device maker put there.

use super::backoff;
use super::hex::{self, Sha256};
use super::reason::Reason;

/// What one source said of each setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `https://host:port`.
    pub director: Option<String>,
    /// `sha256:<hex>` of the site CA's public key.
    pub pins: Vec<String>,
    /// Enrollment token.
    pub token: Option<String>,
    /// The device's serial number.
    pub serial: Option<String>,
    /// A file that holds it.
    pub serial_file: Option<String>,
    /// Proxy URL.
    pub proxy: Option<String>,
    /// Days of `--offline-site`.
    pub offline_site_days: Option<u64>,
    /// The token serves other devices too: it stays on the medium.
    pub shared: bool,
    /// Fields that this version does not know.
    pub unknown: Vec<String>,
}

/// Which source; the order is that of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `<state>/config/enroll.json`.
    State,
    /// `<image>/enroll.json`.
    Image,
    /// `VMETRIC_CONFIG`, the document itself.
    Environment,
    /// `VMETRIC_CONFIG`, a file.
    EnvironmentFile,
    /// A mounted medium.
    Medium,
    /// A service record.
    Dns,
}

impl Source {
    /// Whether only who owns the device can have put it there: a stick may neither have a private file read as the serial
    /// number, nor let the device accept expired metadata.
    fn is_owners(self) -> bool {
        self <= Source::EnvironmentFile
    }
}

/// What was found at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// Something that cannot be used.
    Bad(Reason),
    /// Settings.
    Settings(Settings),
}

/// One place that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which source.
    pub source: Source,
    /// File, variable or name, for people.
    pub name: String,
    /// What was there.
    pub found: Found,
}

/// With what the device enrolls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// As in [`Settings`], each from the first source that had it.
    pub settings: Settings,
    /// Where the token came from: index of the offer.
    pub token_from: usize,
}

/// What becomes of the offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// With what to enroll, or what is missing: `no_pin`, `no_token`, `no_director`.
    pub plan: Result<Plan, Reason>,
    /// Of each offer: its name, and what was taken of it or why nothing.
    pub notes: Vec<(String, String)>,
}

impl Choice {
    /// Whether the address alone is missing: the only thing that DNS may say.
    pub fn lacks_address(&self) -> bool {
        self.plan.as_ref().is_err_and(|reason| reason.code == "no_director")
    }
}

/// The site that a token was made at: the first 8 digits of its pin, from `vmt_<site>_<secret>`. A token is then refused by
/// its device before it is shown to the wrong site.
pub fn token_site(token: &str) -> Option<&str> {
    let (site, _) = token.strip_prefix("vmt_")?.split_once('_')?;
    (site.len() == 8).then_some(site)
}

/// Whether a token may be shown under these pins.
pub fn is_of_site(token: &str, pins: &[String]) -> bool {
    let of = |site: &str| pins.iter().any(|pin| pin.strip_prefix("sha256:").is_some_and(|digits| digits.starts_with(site)));
    token_site(token).is_none_or(of)
}

/// Takes each setting from the first offer that has it. `offers` come in the order of precedence.
pub fn choose(offers: &[Offer]) -> Choice {
    let (mut plan, mut token_from, mut notes) = (Settings::default(), None, Vec::new());
    for (n, offer) in offers.iter().enumerate() {
        let note = match &offer.found {
            Found::Absent => "is not there".to_string(),
            Found::Bad(reason) => format!("is not used: {reason}"),
            Found::Settings(said) => {
                let taken = take(&mut plan, said, offer.source);
                take_token(&mut plan, said, offer.source, taken, &mut || token_from = Some(n))
            }
        };
        notes.push((offer.name.clone(), note));
    }
    let missing = |code, what: &str| Err(Reason::new(code, format!("no source has {what}; `vmetric-agent status` lists them")));
    let plan = match (plan.pins.is_empty(), token_from, &plan.director) {
        (true, ..) => missing("no_pin", "the pin of a Director"),
        (_, None, _) => missing("no_token", "a token for that pin"),
        (_, _, None) => missing("no_director", "the address of a Director, nor has DNS"),
        (_, Some(token_from), Some(_)) => Ok(Plan { settings: plan, token_from }),
    };
    Choice { plan, notes }
}

/// Takes what is still open, the token apart; says what that was.
fn take(plan: &mut Settings, said: &Settings, source: Source) -> Vec<&'static str> {
    let mut taken = Vec::new();
    let mut text = |name, open: &mut Option<String>, said: &Option<String>| {
        if open.is_none() && said.is_some() {
            open.clone_from(said);
            taken.push(name);
        }
    };
    text("address", &mut plan.director, &said.director);
    if source == Source::Dns {
        return taken;
    }
    if plan.serial.is_none() && plan.serial_file.is_none() {
        text("serial number", &mut plan.serial, &said.serial);
        if source.is_owners() {
            text("serial number's file", &mut plan.serial_file, &said.serial_file);
        }
    }
    text("proxy", &mut plan.proxy, &said.proxy);
    if plan.offline_site_days.is_none() && said.offline_site_days.is_some() && source.is_owners() {
        plan.offline_site_days = said.offline_site_days;
        taken.push("offline days");
    }
    if plan.pins.is_empty() && !said.pins.is_empty() {
        plan.pins.clone_from(&said.pins);
        taken.push("pins");
    }
    taken
}

/// Takes the token if it may be shown under the pins that are known by now, and says what was taken of this offer.
fn take_token(plan: &mut Settings, said: &Settings, source: Source, mut taken: Vec<&'static str>, chosen: &mut dyn FnMut()) -> String {
    let mut why_not = None;
    match &said.token {
        Some(_) if source == Source::Dns => {}
        Some(_) if plan.token.is_some() => why_not = Some("a source before it has one"),
        Some(_) if plan.pins.is_empty() => why_not = Some("no pin stands here or in a source before it"),
        Some(token) if !is_of_site(token, &plan.pins) => why_not = Some("it was made at another site than the pin's"),
        Some(token) => {
            plan.token = Some(token.clone());
            plan.shared = said.shared;
            taken.push("token");
            chosen();
        }
        None => {}
    }
    let mut notes = Vec::new();
    match (taken.is_empty(), why_not) {
        (false, _) => notes.push(format!("taken: {}", taken.join(", "))),
        (true, None) => notes.push("nothing taken: sources before it have said all".into()),
        (true, Some(_)) => {}
    }
    notes.extend(why_not.map(|why| format!("its token is not taken: {why}")));
    if !said.unknown.is_empty() {
        notes.push(format!("unknown and ignored: {}", said.unknown.join(", ")));
    }
    notes.join("; ")
}

/// How a try to enroll ended without an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Not reached, or busy.
    Unserved,
    /// A person at the Director has to say yes first.
    Pending,
    /// Turned down.
    Refused,
}

/// Between two looks at the sources, seconds: a person who plugs in a medium waits for it.
pub const LOOK_S: u64 = 15;
/// Base wait of a device that waits for approval when the Director names none, milliseconds.
pub const PENDING_MS: u64 = 30_000;
/// Base wait after a refusal, milliseconds: until a person has done something. Other settings are tried at once.
pub const REFUSED_MS: u64 = 15 * 60_000;

/// Milliseconds until the next try with the same settings: for ever, spread, never sooner than the server asked for.
pub fn wait_ms(ended: Ended, failures: u32, seed: u64, retry_after_s: Option<u64>) -> u64 {
    let own = backoff::wait_ms(failures, seed, retry_after_s);
    let least = match ended {
        Ended::Unserved => 0,
        Ended::Pending if retry_after_s.is_some() => 0,
        Ended::Pending => PENDING_MS,
        Ended::Refused => REFUSED_MS,
    };
    own.max(least / 2 + seed % (least / 2 + 1))
}

/// The token that was last shown from a file which is not the device's own: what must be gone once there is an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The file.
    pub file: String,
    /// SHA-256 of the token.
    pub sha256: Sha256,
}

/// What has to be done with a file of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// Leave it.
    Leave,
    /// Overwrite the token where it stands.
    Token,
    /// It is damaged and this device's own: overwrite all of it.
    All,
}

/// Whether a file must lose its token now. `shown`: what is known to have been shown from it. An unreadable file that is
/// the device's own may be one whose overwriting was cut off.
pub fn forget(source: Source, found: &Found, enrolled: bool, shown: Option<&Sha256>) -> Forget {
    match (found, source) {
        _ if !enrolled => Forget::Leave,
        (Found::Absent, _) => Forget::Leave,
        (Found::Bad(_), Source::State) => Forget::All,
        (Found::Bad(_), _) => Forget::Leave,
        (Found::Settings(said), Source::State) if said.token.is_some() => Forget::Token,
        (Found::Settings(said), _) => match &said.token {
            // A medium may be carried on to other devices; what was not shown by this one is none of its business.
            Some(token) if !said.shared && shown == Some(&hex::sha256(token.as_bytes())) => Forget::Token,
            _ => Forget::Leave,
        },
    }
}

/// What makers leave in the field of the serial number: it is no number, and many devices have it.
const PLACEHOLDERS: [&str; 12] = [
    "to be filled by o.e.m.",
    "default string",
    "system serial number",
    "not specified",
    "not applicable",
    "none",
    "n/a",
    "unknown",
    "invalid",
    "oem",
    "123456789",
    "0123456789",
];

/// A serial number as a file or the firmware tells it; `None`: it tells none.
pub fn serial(text: &str, longest: usize) -> Option<&str> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let plain = text.bytes().all(|b| matches!(b, b' '..=b'~'));
    let empty = text.is_empty() || text.bytes().all(|b| matches!(b, b'0' | b' ' | b'-' | b'.' | b'F' | b'f'));
    let filler = PLACEHOLDERS.iter().any(|p| text.eq_ignore_ascii_case(p));
    (plain && !empty && !filler && text.len() <= longest).then_some(text)
}

#[cfg(test)]
mod tests;
