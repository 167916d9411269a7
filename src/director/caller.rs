//! Who asks: a credential of this site, the proof that its device sends it, and the seat of that identity.
//!
//! A valid credential of an agent that the registry does not know means that the registry is older than the agent: it was
//! restored from a backup, or lost. Such an agent is taken back ([`Registry::take_back`]), with a line in the activity; one
//! that was removed stays removed as long as the registry remembers it.
//!
//! | code | when |
//! |---|---|
//! | `credential_missing`, `credential_unknown` | none, or not of this site |
//! | `credential_replaced` | the identity was enrolled with another key since |
//! | `agent_removed` | a person removed it |
//! | `proof_missing`, `proof_invalid` | the credential alone: it was copied, or `config/device.key` was lost |
//! | `proof_replayed` | an old request again |
//! | `identity_checking` | a new instance; the present one is called first |
//! | `identity_in_use` | another device speaks with this identity |

use miniserde::{Deserialize, Serialize};

use super::pki::credential::Claims;
use super::records::{Agent, NAME_MAX, Second, clean};
use super::registry::{AGENTS_MAX, Registry};
use super::role::Role;
use super::site::Site;
use crate::core::hex;
use crate::core::identity::{Claim, REMEMBERED, Seat};
use crate::core::proof::{Proof, SEPARATOR};
use crate::core::reason::Reason;
use crate::io::serve::{Digest, Request};
use crate::wire::agent_api::AnswerWire;

/// How often the activity is told of refusals with one code, seconds: one line says how many there were.
pub const STRANGERS_EVERY_S: u64 = 300;
/// How often the row of a second device is written while it keeps trying, seconds.
const SECOND_KEPT_S: u64 = 3_600;

/// An authenticated request's sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Identity in the registry.
    pub id: String,
    /// What the proof claims, when the agent has a key.
    pub proof: Option<Proof>,
}

/// Who is not over at the site's present CA yet.
#[derive(Serialize, Deserialize, Debug, Clone, Default)]
pub struct Behind {
    /// Identity.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// Seconds since 1970.
    pub last_contact: u64,
    /// `pin_unconfirmed`, `credential_old`, `not_heard`.
    pub why: String,
}

/// Who spoke last with an identity.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Highest sequence of each instance.
    sequences: Vec<(String, u64)>,
    /// Of the instance that speaks.
    place: Second,
    /// The newcomer because of which it is being called, and where that is.
    calling: Option<(String, Second)>,
}

/// Refusals with one code.
#[derive(Clone, Debug, Default)]
pub struct Strangers {
    told_at: u64,
    untold: u64,
}

/// Adds to an answer what the agent has to know of the site's CAs. Never worth an answer of its own: agents hear it within
/// the length of a poll, one after the other.
pub fn tell_ca(site: &Site, id: &str, answer: &mut AnswerWire, now: u64) {
    let registry = site.registry.borrow();
    let Some(agent) = registry.agents.get(id) else { return };
    let said = site.ca.pins();
    if let Some(held) = agent.pins.as_ref().filter(|held| !held.is_empty()) {
        let has = |pin: &String| held.contains(pin);
        answer.pins = (!said.trust.iter().all(has) || said.retired.iter().any(has)).then_some(said);
    }
    if agent.outdated == Some(true) {
        answer.credential = Some(site.ca.issue(id, now, agent.device_key.as_deref()));
    }
}

/// The agent behind a request.
///
/// # Errors
/// See the table above.
pub fn caller(site: &Site, request: &Request, now: u64) -> Result<Caller, Reason> {
    let bearer = request.bearer().ok_or_else(|| Reason::new("credential_missing", "send `Authorization: Bearer <credential>`"))?;
    let (credential, proof) = bearer.split_once(SEPARATOR).map_or((bearer, None), |(c, p)| (c, Some(p)));
    let claims = site.ca.check(credential)?;
    let registered = match site.registry.borrow().known(&claims.agent_id) {
        Ok(agent) => agent.device_key.clone(),
        Err(reason) if reason.code == "agent_unknown" => None,
        Err(reason) => return Err(reason),
    };
    if registered.is_some() && registered != claims.device_key {
        let how = format!("run `{} enroll --replace` with a new {}", site.role.product.name, site.role.token);
        return Err(Reason::new("credential_replaced", format!("this identity was enrolled with another key since; {how}")));
    }
    let proof = match &claims.device_key {
        Some(key) => Some(proven(request, site.role, key, (proof, digest(credential)))?),
        None => None,
    };
    let mut registry = site.registry.borrow_mut();
    if !registry.agents.contains_key(&claims.agent_id) {
        registry.take_back(&claims, now)?;
    } else if registered.is_none() && claims.device_key.is_some() {
        registry.learn_key(&claims);
    }
    registry.note_ca(&claims);
    Ok(Caller { id: claims.agent_id, proof })
}

/// Says that this request's connection is no stranger's. Only after the throttle: an agent that asks too often must not
/// hold thousands of connections by it.
pub fn vouch(request: &Request) {
    if let Some(bearer) = request.bearer() {
        request.known.vouch(digest(bearer.split_once(SEPARATOR).map_or(bearer, |(credential, _)| credential)));
    }
}

/// What a connection is known by.
fn digest(credential: &str) -> Digest {
    let mut out: Digest = [0; 16];
    out.copy_from_slice(&hex::sha256(credential.as_bytes())[..16]);
    out
}

/// The proof, checked once per connection: its signature costs more than all the rest of a poll, and TLS says that whoever
/// goes on is who began.
fn proven(request: &Request, role: &Role, key: &str, (proof, digest): (Option<&str>, Digest)) -> Result<Proof, Reason> {
    let remedy = format!("if this is its device, its config/device.key is gone: run `{} enroll --replace`", role.product.name);
    let text = proof.ok_or_else(|| Reason::new("proof_missing", format!("the credential came without its device's proof; {remedy}")))?;
    let proof = Proof::parse(text).filter(|proof| request.known.vouched(digest) || proof.holds(key, &request.path, &request.body));
    proof.ok_or_else(|| Reason::new("proof_invalid", format!("the proof is not of the device that enrolled; {remedy}")))
}

impl Registry {
    /// An agent whose credential is of this site and that this registry has never seen.
    ///
    /// # Errors
    /// `site_full`.
    pub fn take_back(&mut self, claims: &Claims, now: u64) -> Result<(), Reason> {
        if self.agents.len() >= AGENTS_MAX {
            return Err(Reason::new("site_full", format!("this {} already has {AGENTS_MAX} {}", self.role.title, self.role.nodes)));
        }
        let agent = Agent { id: claims.agent_id.clone(), enrolled_at: claims.issued_at, last_contact: now, ..Default::default() };
        let id = agent.id.clone();
        self.agents.insert(id.clone(), agent);
        self.contacts.insert(id.clone(), now);
        self.learn_key(claims);
        self.keep_agent(&id);
        let detail = format!(
            "its credential is of this site and this registry did not know it: restored from an older backup? `remove-{}` if it was removed",
            self.role.node
        );
        self.event(now, &id, "agent_returned", detail, None);
        Ok(())
    }

    /// Whether the agent's credential is of the present CA.
    fn note_ca(&mut self, claims: &Claims) {
        let Some(agent) = self.agents.get_mut(&claims.agent_id) else { return };
        if agent.outdated.unwrap_or(false) != claims.outdated {
            agent.outdated = Some(claims.outdated);
            self.keep_agent(&claims.agent_id);
        }
    }

    /// The site has another CA: every credential is of the former one.
    pub fn ca_rotated(&mut self, now: u64, detail: String) {
        let ids: Vec<String> = self.agents.values().filter(|a| a.removed_at.is_none()).map(|a| a.id.clone()).collect();
        for id in ids {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.outdated = Some(true);
            }
            self.keep_agent(&id);
        }
        self.event(now, "", "ca_rotated", detail, None);
    }

    /// Who would be lost without the former CA. `pin`: the present one's.
    pub fn behind(&self, pin: &str) -> Vec<Behind> {
        let why = |agent: &Agent| match &agent.pins {
            None => Some("not_heard"),
            Some(pins) if !pins.is_empty() && !pins.iter().any(|p| p == pin) => Some("pin_unconfirmed"),
            _ => agent.outdated.unwrap_or(false).then_some("credential_old"),
        };
        let row = |agent: &Agent| {
            let last_contact = self.last_contact(&agent.id);
            Some(Behind { why: why(agent)?.into(), id: agent.id.clone(), hostname: agent.hostname.clone(), last_contact })
        };
        self.agents.values().filter(|a| a.removed_at.is_none()).filter_map(row).collect()
    }

    fn learn_key(&mut self, claims: &Claims) {
        let (Some(agent), Some(key)) = (self.agents.get_mut(&claims.agent_id), &claims.device_key) else { return };
        agent.device_key = Some(key.clone());
        self.devices.insert(key.clone(), claims.agent_id.clone());
        self.keep_agent(&claims.agent_id);
    }

    /// Whether this instance of the agent's device may speak. `listening`: the present one has a poll parked.
    ///
    /// # Errors
    /// `proof_replayed`, `identity_checking`, `identity_in_use`.
    pub fn take_seat(&mut self, caller: &Caller, hostname: &str, peer: &str, listening: bool, now: u64) -> Result<(), Reason> {
        let (Some(proof), Some(agent)) = (&caller.proof, self.agents.get(&caller.id)) else { return Ok(()) };
        let mut heard = self.heard.remove(&caller.id).unwrap_or_default();
        let here = Second { hostname: clean(hostname, NAME_MAX), peer: clean(peer, NAME_MAX), at: now };
        let mut seat = Seat {
            current: agent.instance.clone(),
            former: agent.former.clone().unwrap_or_default(),
            refused: agent.refused.clone().unwrap_or_default(),
            calling: heard.calling.as_ref().map(|(instance, _)| instance.clone()),
        };
        let verdict = heard.follow(proof).map(|()| seat.claim(&proof.instance, listening));
        let outcome = match verdict {
            Err(replayed) => Err(replayed),
            Ok(claim) => self.seated(&caller.id, seat, &mut heard, here, claim),
        };
        self.heard.insert(caller.id.clone(), heard);
        outcome
    }

    /// Whether a word beside reports and polls comes from whoever sits here. It moves nobody: polls do.
    ///
    /// # Errors
    /// `identity_in_use`, `identity_checking`.
    pub fn sits(&self, caller: &Caller) -> Result<(), Reason> {
        let (Some(proof), Some(agent)) = (&caller.proof, self.agents.get(&caller.id)) else { return Ok(()) };
        if agent.refused.iter().flatten().any(|instance| *instance == proof.instance) {
            return Err(Reason::new("identity_in_use", "another machine speaks with this identity"));
        }
        match &agent.instance {
            Some(instance) if *instance != proof.instance => {
                Err(Reason::new("identity_checking", "this instance has not been heard in a report yet"))
            }
            _ => Ok(()),
        }
    }

    /// Keeps what a claim changed and says what the claimant hears.
    fn seated(&mut self, id: &str, seat: Seat, heard: &mut Heard, here: Second, claim: Claim) -> Result<(), Reason> {
        let now = here.at;
        let speaker = here.clone();
        let newcomer = heard.calling.take().map(|(_, place)| place);
        let second = match &claim {
            Claim::Call => {
                heard.calling = seat.calling.clone().map(|instance| (instance, here));
                let detail = "another instance of this device is connected; it is called first";
                return Err(Reason::new("identity_checking", detail));
            }
            Claim::Refused => Some(here),
            // Who came second: the newcomer that was waiting, or whoever sat here until the first spoke again.
            Claim::Two { .. } => Some(newcomer.unwrap_or_else(|| heard.place.clone())),
            Claim::Known | Claim::Moved => None,
        };
        if claim != Claim::Refused {
            heard.place = speaker;
        }
        if let Some(agent) = self.agents.get_mut(id) {
            let moved = agent.instance != seat.current || agent.refused.as_ref() != Some(&seat.refused);
            let fresh = second.as_ref().is_some_and(|s| agent.second.as_ref().is_none_or(|b| s.at >= b.at + SECOND_KEPT_S));
            (agent.instance, agent.former, agent.refused) = (seat.current, Some(seat.former), Some(seat.refused));
            if let Some(second) = &second {
                agent.second = Some(second.clone());
            }
            if claim != Claim::Known && (fresh || moved) {
                self.keep_agent(id);
            }
        }
        match (claim, second) {
            (Claim::Refused, _) => {
                let detail = format!(
                    "another device speaks as '{id}': this disk is a copy. Run `{} enroll --replace` here for an identity \
                     of its own, or `{} replace-{} {id}` if this one is the right one",
                    self.role.product.name, self.role.program, self.role.node
                );
                Err(Reason::new("identity_in_use", detail))
            }
            (Claim::Two { .. }, Some(second)) => {
                let detail = format!(
                    "a second device with this identity is refused: '{}' at {} (a copied disk, or a snapshot that was taken back); \
                     `replace-{} {id}` decides for it",
                    second.hostname, second.peer, self.role.node
                );
                self.event(now, id, "identity_twice", detail, None);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A person decides for the second device: it speaks from now on, the first is refused.
    ///
    /// # Errors
    /// `agent_unknown`, `agent_removed`, `no_second_device`.
    pub fn replace_agent(&mut self, id: &str, now: u64) -> Result<(), Reason> {
        let agent = self.known(id)?;
        let mut seat =
            Seat { current: agent.instance.clone(), former: Vec::new(), refused: agent.refused.clone().unwrap_or_default(), calling: None };
        if !seat.give_to_second() {
            return Err(Reason::new("no_second_device", format!("no second device has shown the identity of '{id}'")));
        }
        if let Some(agent) = self.agents.get_mut(id) {
            (agent.instance, agent.former, agent.refused, agent.second) = (seat.current, None, Some(seat.refused), None);
        }
        self.heard.remove(id);
        self.keep_agent(id);
        self.event(now, id, "identity_replaced", "a person decided for the second device; the first one is refused from now on", None);
        Ok(())
    }

    /// Tells the activity of a refusal, at most once per code and [`STRANGERS_EVERY_S`].
    pub fn stranger(&mut self, event: &str, reason: &Reason, peer: &str, now: u64) {
        let of_code = self.strangers.entry(reason.code.to_string()).or_default();
        if of_code.told_at > 0 && now.saturating_sub(of_code.told_at) < STRANGERS_EVERY_S {
            of_code.untold = of_code.untold.saturating_add(1);
            return;
        }
        let more = match std::mem::take(&mut of_code.untold) {
            0 => String::new(),
            n => format!("; {n} more since the last line"),
        };
        of_code.told_at = now;
        self.event(now, "", event, format!("{} at {peer}{more}: {}", reason.code, reason.detail), None);
    }
}

impl Heard {
    /// A sequence never falls within an instance. The same again is a repetition, and as harmless as every message.
    fn follow(&mut self, proof: &Proof) -> Result<(), Reason> {
        match self.sequences.iter_mut().find(|(instance, _)| *instance == proof.instance) {
            Some((_, last)) if proof.sequence < *last => {
                Err(Reason::new("proof_replayed", "an older request of this device again; its next one makes a new start"))
            }
            Some((_, last)) => {
                *last = proof.sequence;
                Ok(())
            }
            None => {
                if self.sequences.len() > 2 * REMEMBERED {
                    self.sequences.remove(0);
                }
                // One is the rule, and there are tens of thousands of them.
                self.sequences.reserve_exact(1);
                self.sequences.push((proof.instance.clone(), proof.sequence));
                Ok(())
            }
        }
    }
}
