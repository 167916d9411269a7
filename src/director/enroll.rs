//! Tokens, and what they are good for: a device gets an identity.
//!
//! A token's text is shown once; what is kept is its SHA-256. It is found by that hash: what a guesser could learn from the
//! time of the look-up is about the hash of his guess, not about a token, and nothing secret is compared byte by byte.
//!
//! The device's key is what makes an enrollment idempotent: the same key and token again is an answer that was lost. It gets
//! the same identity, and the token is spent once, also when it has expired or was used up meanwhile.

use miniserde::{Deserialize, Serialize};

use super::records::{Agent, NAME_MAX, Token, clean};
use super::registry::{AGENTS_MAX, Registry};
use super::store::Table;
use crate::core::hex;
use crate::core::proof;
use crate::core::reason::Reason;
use crate::wire::agent_api::{EnrollWire, SERIAL_MAX};
use crate::wire::settings::SettingsWire;

/// Most tokens at once.
pub const TOKENS_MAX: usize = 1_000;
/// Longest token life, seconds: 30 days.
pub const TOKEN_TTL_MAX_S: u64 = 30 * 86_400;
/// A life without an end: for tokens that are bound to serial numbers, or need a person's approval.
pub const TTL_NEVER_S: u64 = u64::MAX;
/// When a token ends that does not: the end of the year 9999, a time that every version can show and add to.
pub const NEVER: u64 = 253_402_300_799;
/// Most serial numbers of one token: a delivery.
pub const SERIALS_MAX: usize = 1_000;
/// Digits of its hash by which a token is listed and revoked: none of its text.
pub const TOKEN_ID_DIGITS: usize = 12;

/// What a token is good for.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Enrollments.
    pub uses: u64,
    /// Seconds; [`TTL_NEVER_S`] only with serial numbers or approval.
    pub ttl_s: u64,
    /// Only for devices with these serial numbers, each once.
    pub serials: Vec<String>,
    /// A person approves each device.
    pub approval: bool,
    /// What a person calls it.
    pub name: Option<String>,
    /// Custom Policy of whoever enrolls with it.
    pub settings: Option<SettingsWire>,
}

/// One token as an operator sees it.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct TokenRow {
    /// First digits of its hash.
    pub id: String,
    /// `valid`, `used_up`, `expired`, `revoked`.
    pub state: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// Enrollments left.
    pub uses_left: u64,
    /// Enrollments made.
    pub used: u64,
    /// Serial numbers it is bound to that have not enrolled yet; absent = bound to none.
    pub serials_left: Option<Vec<String>>,
    /// A person approves each device.
    pub approval: Option<bool>,
    /// What a person calls it.
    pub name: Option<String>,
    /// Custom Policy of whoever enrolls with it.
    pub settings: Option<SettingsWire>,
}

/// All tokens.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct TokensView {
    /// Newest first.
    pub tokens: Vec<TokenRow>,
    /// Director's time.
    pub time: u64,
}

fn state_of(token: &Token, now: u64) -> &'static str {
    match token {
        t if t.revoked_at.is_some() => "revoked",
        t if t.uses_left == 0 => "used_up",
        t if now > t.expires_at => "expired",
        _ => "valid",
    }
}

impl Registry {
    /// A new counted token's row; `token` is its text, shown once and kept nowhere.
    ///
    /// # Errors
    /// `too_many_tokens`.
    pub fn create_token(&mut self, token: &str, uses: u64, ttl_s: u64, now: u64) -> Result<u64, Reason> {
        self.create_token_for(token, Terms { uses, ttl_s, ..Terms::default() }, now)
    }

    /// A new token's row.
    ///
    /// # Errors
    /// `too_many_tokens`, `bad_serial`, `token_needs_end`, `settings_invalid`.
    pub fn create_token_for(&mut self, token: &str, terms: Terms, now: u64) -> Result<u64, Reason> {
        let gone: Vec<String> =
            self.tokens.iter().filter(|(_, t)| t.expires_at.saturating_add(TOKEN_TTL_MAX_S) < now).map(|(k, _)| k.clone()).collect();
        for key in gone {
            self.tokens.remove(&key);
            self.delete(Table::Tokens, key);
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Reason::new("too_many_tokens", format!("there are {TOKENS_MAX} tokens already; wait until some expire")));
        }
        let fits = |s: &String| !s.is_empty() && s.len() <= SERIAL_MAX && *s == clean(s, SERIAL_MAX);
        if terms.serials.len() > SERIALS_MAX || !terms.serials.iter().all(fits) {
            let detail = format!("at most {SERIALS_MAX} serial numbers of 1 to {SERIAL_MAX} printable bytes");
            return Err(Reason::new("bad_serial", detail));
        }
        terms.settings.iter().try_for_each(|settings| settings.check().map(|_| ()))?;
        let mut serials = terms.serials;
        serials.sort();
        serials.dedup();
        let uses = if serials.is_empty() { terms.uses } else { serials.len() as u64 };
        let endless = terms.ttl_s == TTL_NEVER_S;
        if endless && serials.is_empty() && !terms.approval {
            let detail = "a token without an end is bound to serial numbers (--serial) or needs approval (--approval); give a --ttl";
            return Err(Reason::new("token_needs_end", detail));
        }
        let ttl_s = terms.ttl_s.min(TOKEN_TTL_MAX_S);
        let expires_at = if endless { NEVER } else { now + ttl_s };
        let mut bound = if serials.is_empty() { String::new() } else { format!(", bound to {} serial numbers", serials.len()) };
        if terms.approval {
            bound += ", each after approval";
        }
        let serials = (!serials.is_empty()).then_some(serials);
        let approval = terms.approval.then_some(true);
        let name = terms.name.map(|name| clean(&name, NAME_MAX)).filter(|name| !name.is_empty());
        let row =
            Token { created_at: now, expires_at, uses_left: uses, serials, approval, name, settings: terms.settings, ..Default::default() };
        let key = token_key(token);
        let within = if endless { "without an end".to_string() } else { format!("within {} minutes", ttl_s / 60) };
        let detail = format!("{}: good for {uses} enrollments {within}{bound}", token_id(&key));
        self.keep_token(key, row);
        self.event(now, "", "token_created", detail, None);
        Ok(expires_at)
    }

    fn keep_token(&mut self, key: String, row: Token) {
        self.put(Table::Tokens, key.clone(), &row);
        self.tokens.insert(key, row);
    }

    /// What is shown of every token.
    pub fn tokens_view(&self, now: u64) -> TokensView {
        let row = |(key, t): (&String, &Token)| TokenRow {
            id: token_id(key).into(),
            state: state_of(t, now).into(),
            created_at: t.created_at,
            expires_at: t.expires_at,
            uses_left: t.uses_left,
            used: t.used,
            approval: t.approval,
            name: t.name.clone(),
            settings: t.settings.clone(),
            serials_left: t
                .serials
                .as_ref()
                .map(|all| all.iter().filter(|s| !t.serials_used.iter().flatten().any(|u| u == *s)).cloned().collect()),
        };
        let mut tokens: Vec<TokenRow> = self.tokens.iter().map(row).collect();
        tokens.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
        TokensView { tokens, time: now }
    }

    /// Takes a token back; `id` are the first digits of its hash. Who enrolled with it stays.
    ///
    /// # Errors
    /// `token_unknown`.
    pub fn revoke_token(&mut self, id: &str, now: u64) -> Result<(), Reason> {
        let found = self.tokens.iter().find(|(key, _)| token_id(key) == id).map(|(key, row)| (key.clone(), row.clone()));
        let Some((key, mut row)) = found else {
            return Err(Reason::new(
                "token_unknown",
                format!("there is no {what} '{}'; `{what} list` shows them", clean(id, NAME_MAX), what = self.role.token),
            ));
        };
        row.revoked_at.get_or_insert(now);
        self.keep_token(key, row);
        self.event(now, "", "token_revoked", id, None);
        Ok(())
    }

    /// The token that may be spent now.
    fn token(&self, wire: &EnrollWire, key: &str, now: u64) -> Result<&Token, Reason> {
        let refuse = |code: &'static str, detail: String| Err(Reason::new(code, detail));
        let (what, remedy) = (self.role.token, self.role.make_token());
        let Some(token) = self.tokens.get(key) else {
            return refuse("token_unknown", format!("this {} does not know the {what}; {remedy}", self.role.title));
        };
        if token.revoked_at.is_some() {
            return refuse("token_revoked", format!("the {what} was revoked; {remedy}"));
        }
        if now > token.expires_at {
            return refuse("token_expired", format!("the {what} expired {} s ago; {remedy}", now - token.expires_at));
        }
        if let Some(serials) = &token.serials {
            let Some(serial) = &wire.serial else {
                return refuse("serial_missing", format!("the {what} is bound to serial numbers and this device told none; add --serial"));
            };
            let shown = clean(serial, SERIAL_MAX);
            if !serials.contains(serial) {
                return refuse("serial_not_listed", format!("the {what} is not for serial number '{shown}'; {remedy} --serial {shown}"));
            }
            if token.serials_used.iter().flatten().any(|used| used == serial) {
                return refuse("serial_used", format!("another device has enrolled as serial number '{shown}'; {remedy}"));
            }
        }
        if token.uses_left == 0 {
            return refuse("token_used_up", format!("the {what} has been used {} times; {remedy}", token.used));
        }
        Ok(token)
    }

    /// Only what this server can order updates for: an agent at Fleet, or a Director at a Director, would be enrolled and then
    /// refuse every order. Who enrolls without a name is from before it was asked for.
    fn manages(&self, wire: &EnrollWire) -> Result<(), Reason> {
        let (role, wanted) = (self.role, self.role.product.name);
        let Some(product) = wire.product.as_deref().filter(|product| *product != wanted) else { return Ok(()) };
        let detail = format!(
            "this is a {title}, whose {nodes} run {wanted}, and {} asks to enroll; nothing was spent: {remedy}",
            clean(product, NAME_MAX),
            title = role.title,
            nodes = role.nodes,
            remedy = role.others,
        );
        Err(Reason::new("wrong_program", detail))
    }

    /// Enrolls a device and says under which id: a new one, or the one it has already.
    ///
    /// # Errors
    /// `wrong_program`, `token_unknown`, `token_revoked`, `token_expired`, `token_used_up`, `serial_missing`, `serial_not_listed`,
    /// `serial_used`, `proof_invalid`, `site_full`, and those of [`super::approval`].
    pub fn enroll(&mut self, wire: &EnrollWire, new_id: &str, now: u64) -> Result<String, Reason> {
        self.enroll_from(wire, new_id, "", now)
    }

    /// The same, with the address for whoever has to approve.
    ///
    /// # Errors
    /// See there.
    pub fn enroll_from(&mut self, wire: &EnrollWire, new_id: &str, peer: &str, now: u64) -> Result<String, Reason> {
        let device = device_of(wire)?;
        self.manages(wire)?;
        let key = token_key(&wire.token);
        let known = device.and_then(|device| self.devices.get(device)).cloned();
        if let Some(id) = &known
            && self.agents[id].enrolled_with.as_ref() == Some(&key)
        {
            self.event(now, id, "enrolled_again", "the same device with the same token: its answer was lost", None);
            return Ok(id.clone());
        }
        let asked_at = self.asked_at(wire, &key).unwrap_or(now);
        let mut token = self.token(wire, &key, asked_at)?.clone();
        if known.is_none() && self.agents.len() >= AGENTS_MAX {
            return Err(Reason::new("site_full", format!("this {} already has {AGENTS_MAX} {}", self.role.title, self.role.nodes)));
        }
        if token.approval == Some(true) {
            self.approved(wire, &key, peer, now)?;
            device.iter().for_each(|device| self.forget_pending(device));
        }
        token.uses_left -= 1;
        token.used += 1;
        if token.serials.is_some() {
            token.serials_used.get_or_insert_default().extend(wire.serial.clone());
        }
        self.keep_token(key.clone(), token.clone());
        let text = |t: &str| clean(t, NAME_MAX);
        let before = known.as_ref().map(|id| self.agents[id].clone()).unwrap_or_default();
        let agent = Agent {
            id: known.clone().unwrap_or_else(|| new_id.to_string()),
            hostname: text(&wire.hostname),
            os: text(&wire.os),
            architecture: text(&wire.architecture),
            version: text(&wire.version),
            enrolled_at: now,
            last_contact: now,
            device_key: device.map(String::from),
            enrolled_with: Some(key.clone()),
            outdated: None,
            serial: wire.serial.as_deref().map(|s| clean(s, SERIAL_MAX)),
            label: token.name.clone().or_else(|| before.label.clone()),
            ..before
        };
        let id = agent.id.clone();
        let detail = format!("{} ({}-{}, {})", agent.hostname, agent.os, agent.architecture, agent.version);
        if let Some(device) = &agent.device_key {
            self.devices.insert(device.clone(), id.clone());
        }
        self.agents.insert(id.clone(), agent);
        self.contacts.insert(id.clone(), now);
        self.policing.mark(&id);
        self.keep_agent(&id);
        self.event(now, &id, if known.is_some() { "enrolled_again" } else { "enrolled" }, detail, None);
        self.apply_token(&id, &key, &token, now);
        #[cfg(unix)]
        self.take_handed_for(&id, now);
        Ok(id)
    }
}

/// The key of the device that enrolls, once it has proved that it has the other half.
fn device_of(wire: &EnrollWire) -> Result<Option<&str>, Reason> {
    match (&wire.device_key, &wire.proof) {
        (None, _) => Ok(None),
        (Some(key), Some(proof)) if proof::enrolls(key, &wire.token, proof) => Ok(Some(key)),
        _ => Err(Reason::new("proof_invalid", "the device did not prove that it has the key it enrolls with; run `enroll` again")),
    }
}

fn token_key(token: &str) -> String {
    hex::encode(&hex::sha256(token.as_bytes()))
}

/// How a token is listed.
pub fn token_id(key: &str) -> &str {
    key.get(..TOKEN_ID_DIGITS).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::proof::DeviceKey;
    use crate::director::policing::rows::{PolicyChange, Scope};

    fn wire(token: &str) -> EnrollWire {
        EnrollWire { token: token.into(), hostname: "h\n".into(), ..Default::default() }
    }

    fn keyed(token: &str, device: u8) -> EnrollWire {
        let key = DeviceKey::new([device; 32]);
        EnrollWire { device_key: Some(key.public()), proof: Some(key.prove_enrollment(token)), ..wire(token) }
    }

    fn code(result: Result<String, Reason>) -> String {
        result.map_or_else(|r| r.code.to_string(), |id| format!("ok {id}"))
    }

    #[test]
    fn another_program_is_refused_and_spends_nothing() {
        use crate::director::role::DIRECTOR;
        let mut registry = Registry::default();
        registry.create_token("t1", 2, 3_600, 100).unwrap();
        let of = |product: Option<&str>| EnrollWire { product: product.map(String::from), ..wire("t1") };
        let refused = registry.enroll(&of(Some("vmetric-director")), "a1", 100).unwrap_err();
        assert_eq!(refused.code, "wrong_program");
        assert!(refused.detail.contains(DIRECTOR.others) && refused.detail.contains("vmetric-director asks"), "{refused}");
        // Before the token is looked at: what it is worth is nobody else's business.
        assert_eq!(code(registry.enroll(&EnrollWire { token: "t2".into(), ..of(Some("x")) }, "a1", 100)), "wrong_program");
        assert_eq!(code(registry.enroll(&of(Some("vmetric-agent")), "a1", 100)), "ok a1");
        assert_eq!(code(registry.enroll(&of(None), "a2", 100)), "ok a2", "from before the field");
    }

    #[test]
    fn whoever_enrolls_gets_the_policy_of_the_token() {
        let mut registry = Registry::default();
        let policy = SettingsWire { mode: Some("auto".into()), method: Some("immediate".into()), ..Default::default() };
        let terms = Terms { uses: 2, ttl_s: 60, settings: Some(policy.clone()), name: Some("ships\n".into()), ..Terms::default() };
        registry.create_token_for("t1", terms, 100).unwrap();
        assert_eq!(registry.tokens_view(100).tokens[0].name.as_deref(), Some("ships "));
        assert_eq!(code(registry.enroll(&keyed("t1", 1), "a1", 100)), "ok a1");
        let row = registry.policing.rows["node/a1"].clone();
        assert!(row.custom && row.settings == policy && row.by == "token ships ", "{row:?}");
        // One of its own is not overwritten by another token's.
        let other = SettingsWire { mode: Some("manual".into()), ..Default::default() };
        registry.create_token_for("t3", Terms { uses: 1, ttl_s: 60, settings: Some(other), ..Terms::default() }, 100).unwrap();
        assert_eq!(code(registry.enroll(&keyed("t3", 1), "a3", 100)), "ok a1");
        assert_eq!(registry.policing.rows["node/a1"].settings, policy);
        // What a person set since is not undone by the same device's second try.
        let change = PolicyChange { custom: Some(false), ..Default::default() };
        registry.set_policy(&Scope::Node("a1".into()), &change, 101).unwrap();
        assert_eq!(code(registry.enroll(&keyed("t3", 1), "a2", 102)), "ok a1");
        assert!(!registry.policing.rows["node/a1"].custom);
        let wrong = SettingsWire { mode: Some("off".into()), ..Default::default() };
        let refused = registry.create_token_for("t2", Terms { uses: 1, ttl_s: 60, settings: Some(wrong), ..Terms::default() }, 100);
        assert_eq!(refused.unwrap_err().code, "settings_invalid");
    }

    #[test]
    fn a_token_is_counted_and_expires() {
        let mut registry = Registry::default();
        registry.create_token("t1", 2, 3_600, 100).unwrap();
        assert_eq!(code(registry.enroll(&wire("t2"), "a1", 100)), "token_unknown");
        assert_eq!(code(registry.enroll(&wire("t1"), "a1", 100)), "ok a1");
        assert_eq!(code(registry.enroll(&wire("t1"), "a2", 3_700)), "ok a2");
        assert_eq!(code(registry.enroll(&wire("t1"), "a3", 3_700)), "token_used_up");
        assert_eq!(code(registry.enroll(&wire("t1"), "a3", 3_701)), "token_expired");
        assert_eq!(registry.agents["a1"].hostname, "h ");
        let changes = registry.take_changes();
        assert!(
            changes.iter().all(|c| !c.value.as_deref().unwrap_or("").contains("\"t1\"") && c.key != "t1"),
            "the token's text is not kept"
        );
    }

    #[test]
    fn a_lost_answer_costs_nothing_and_changes_nothing() {
        let mut registry = Registry::default();
        registry.create_token("t1", 1, 3_600, 100).unwrap();
        assert_eq!(code(registry.enroll(&keyed("t1", 1), "a1", 100)), "ok a1");
        assert_eq!(code(registry.enroll(&keyed("t1", 1), "a2", 101)), "ok a1", "used up since");
        assert_eq!(code(registry.enroll(&keyed("t1", 1), "a2", 100_000)), "ok a1", "expired since");
        assert_eq!(registry.tokens.values().next().unwrap().used, 1);
        assert_eq!(code(registry.enroll(&keyed("t1", 2), "a2", 101)), "token_used_up", "another device");
        // A person's second token for the same device: the same identity.
        registry.create_token("t2", 1, 3_600, 200).unwrap();
        assert_eq!(code(registry.enroll(&keyed("t2", 1), "a2", 201)), "ok a1");
        assert_eq!((registry.agents.len(), registry.devices.len()), (1, 1));
        registry.remove("a1", 300).unwrap();
        assert_eq!(code(registry.enroll(&keyed("t2", 1), "a2", 301)), "token_used_up", "removed: the old token is no way back");
        registry.create_token("t3", 1, 3_600, 300).unwrap();
        assert_eq!(code(registry.enroll(&keyed("t3", 1), "a2", 301)), "ok a2");
        assert_eq!(registry.known("a1").unwrap_err().code, "agent_removed");
    }

    #[test]
    fn nobody_enrolls_with_another_devices_key() {
        let mut registry = Registry::default();
        registry.create_token("t1", 9, 3_600, 100).unwrap();
        registry.enroll(&keyed("t1", 1), "a1", 100).unwrap();
        let public = keyed("t1", 1).device_key;
        for proof in [None, keyed("t1", 2).proof, keyed("t2", 1).proof, Some(String::new())] {
            let stolen = EnrollWire { device_key: public.clone(), proof, ..wire("t1") };
            assert_eq!(code(registry.enroll(&stolen, "a2", 100)), "proof_invalid");
        }
        assert_eq!(registry.tokens.values().next().unwrap().used, 1);
    }

    #[test]
    fn a_token_bound_to_serial_numbers() {
        let mut registry = Registry::default();
        let terms = Terms { uses: 1, ttl_s: TTL_NEVER_S, serials: vec!["S1".into(), "S2".into(), "S1".into()], ..Terms::default() };
        registry.create_token_for("t1", terms, 100).unwrap();
        let with = |serial: Option<&str>, device| EnrollWire { serial: serial.map(String::from), ..keyed("t1", device) };
        assert_eq!(code(registry.enroll(&with(None, 1), "a1", 100)), "serial_missing");
        assert_eq!(code(registry.enroll(&with(Some("S3"), 1), "a1", 100)), "serial_not_listed");
        assert_eq!(code(registry.enroll(&with(Some("S1"), 1), "a1", 100)), "ok a1");
        assert_eq!(code(registry.enroll(&with(Some("S1"), 1), "a2", 100)), "ok a1", "the same device");
        assert_eq!(code(registry.enroll(&with(Some("S1"), 2), "a2", 100)), "serial_used", "another device of that name");
        assert_eq!(registry.tokens_view(100).tokens[0].serials_left, Some(vec!["S2".to_string()]));
        let later = 100 + 10 * 365 * 86_400;
        registry.create_token("t9", 1, 60, later).unwrap();
        assert_eq!(code(registry.enroll(&with(Some("S2"), 2), "a2", later)), "ok a2", "bound to a number, not to a date");
        let endless = |approval| Terms { uses: 1, ttl_s: TTL_NEVER_S, approval, ..Terms::default() };
        assert_eq!(registry.create_token_for("t8", endless(false), 100).unwrap_err().code, "token_needs_end");
        assert_eq!(registry.create_token_for("t8", endless(true), 100).unwrap(), NEVER);
        let long = Terms { serials: vec!["x".repeat(SERIAL_MAX + 1)], ..Terms::default() };
        assert_eq!(registry.create_token_for("t2", long, 100).unwrap_err().code, "bad_serial");
    }

    #[test]
    fn a_revoked_token_is_refused_and_its_agents_stay() {
        let mut registry = Registry::default();
        registry.create_token("t1", 9, 3_600, 100).unwrap();
        registry.enroll(&keyed("t1", 1), "a1", 100).unwrap();
        let id = registry.tokens_view(100).tokens[0].id.clone();
        assert!(!hex::encode(b"t1").contains(&id) && id.len() == TOKEN_ID_DIGITS);
        assert_eq!(registry.revoke_token("t1", 101).unwrap_err().code, "token_unknown", "by its id, not by its text");
        registry.revoke_token(&id, 101).unwrap();
        assert_eq!(code(registry.enroll(&keyed("t1", 2), "a2", 102)), "token_revoked");
        assert!(registry.known("a1").is_ok());
        assert_eq!(registry.tokens_view(102).tokens[0].state, "revoked");
    }
}
