//! What Fleet and a Director say to each other about the policies of its agents, beside the settings themselves
//! ([`super::fleet_api`]): a person's confirmations on their way down; on the way up what became of them, and which settings
//! are in force there. Additive only.

use miniserde::{Deserialize, Serialize};

use super::fleet_api::CountWire;
use super::settings::SettingsWire;

/// Most confirmations that are handed to one Director at a time: one for each version and group of a busy week.
pub const CONFIRMATIONS_MAX: usize = 64;
/// Most agents that one confirmation names; more are confirmed by their Director or cluster.
pub const NAMED_MAX: usize = 1_000;
/// Most agents that all confirmations of one Director name together: with ids of full length a third of
/// [`super::fleet_api::SETTINGS_MAX`].
pub const NAMED_ALL_MAX: usize = 20_000;
/// Most files of one version: more than there are platforms.
pub const FILES_MAX: usize = 32;

/// A person's word at Fleet for one version on agents of one Director, once.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfirmationWire {
    /// Random; the same id is the same word, however often it comes.
    pub id: String,
    /// Agents by id; absent = every agent whose policy waits for a person's word for this version when it arrives.
    pub agents: Option<Vec<String>>,
    /// Which version; exact.
    pub version: String,
    /// SHA-256 of its files, one for each platform: another file of this name is not confirmed.
    pub files: Vec<String>,
    /// Seconds since 1970.
    pub given_at: u64,
    /// Not used after.
    pub expires_at: u64,
    /// Who.
    pub by: String,
    /// Taken back: nothing begins by it any more.
    pub revoked: Option<bool>,
    /// Rises with every change at Fleet.
    pub revision: u64,
}

/// What became of a confirmation at its Director.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ConfirmationStateWire {
    /// Its id.
    pub id: String,
    /// `taken`, `refused`, `revoked`.
    pub state: String,
    /// Why it is refused, or nobody's; stable code.
    pub code: Option<String>,
    /// The same for people.
    pub detail: Option<String>,
    /// When it came, by the Director's clock.
    pub taken_at: Option<u64>,
    /// Its agents by the state of their [`AuthorizedWire`].
    pub agents: Vec<CountWire>,
}

/// A person's word for one agent, and what became of it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizedWire {
    /// Fleet's confirmation; absent = it was given at the Director.
    pub id: Option<String>,
    /// For which version.
    pub version: String,
    /// `waiting` (the file is not at the Director yet), `confirmed`, `ordered`, and at the end `done`, `failed`, `refused`,
    /// `expired`, `revoked`, `replaced`.
    pub state: String,
    /// Why; stable code.
    pub code: Option<String>,
    /// Why; for people.
    pub detail: Option<String>,
    /// Who gave it.
    pub by: String,
    /// Since when it is so, seconds since 1970.
    pub at: u64,
    /// Not used after.
    pub expires_at: u64,
}

/// Settings of one tier as they are in force at a Director.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct TierWire {
    /// A word of [`crate::core::policy::Tier`].
    pub tier: String,
    /// They count.
    pub custom: bool,
    /// As typed.
    pub settings: SettingsWire,
    /// Seconds since 1970.
    pub changed_at: u64,
    /// Who changed them last; absent = nobody by a command: they are a file's.
    pub by: Option<String>,
    /// Fleet's revision that they are; absent = they were never Fleet's.
    pub handed: Option<u64>,
}
