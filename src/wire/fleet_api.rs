//! What flows between a Director and Fleet beside the agent API, version 1. All over HTTPS, opened by the Director,
//! authenticated as its polls are. Additive only.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /fleet/v1/health` | [`HealthWire`] | 200 [`HealthAnswerWire`] |
//! | `POST /fleet/v1/activity` | [`ActivityWire`] | 200 [`ActivityAnswerWire`]: where Fleet stands, whether it took the batch or not |
//! | `GET /fleet/v1/settings?after=REVISION` | | 200 [`SettingsAnswerWire`]; without settings when that is the revision in force |
//!
//! Nothing is answered before it is durable. Every message may be lost, doubled or late: [`crate::core::relay`],
//! [`crate::core::inventory`]. Whatever a Director says is stored under its own identity.

use miniserde::json::{self, Array, Object, Value};
use miniserde::{Deserialize, Serialize};

use super::settings::SettingsWire;
use super::site_policy::{AuthorizedWire, ConfirmationStateWire, TierWire};

/// Longest body of a request, bytes: a full page of agents or events, and the health beside it.
pub const FLEET_BODY_MAX: usize = 192 * 1024;
/// Longest answer but the settings, bytes: a few numbers and names.
pub const FLEET_ANSWER_MAX: usize = 16 * 1024;
/// Longest settings document, bytes: ten thousand agents with a Custom Policy of their own. A stolen Fleet that sends more is
/// cut off here.
pub const SETTINGS_MAX: usize = 4 << 20;
/// Most agents in one page.
pub const PAGE_MAX: usize = 128;
/// Most events in one batch.
pub const BATCH_MAX: usize = 256;
/// Most bytes of events in one batch; a single event is always sent, and is below [`crate::core::reason::DETAIL_MAX`] and a
/// few names.
pub const BATCH_BYTES: usize = 96 * 1024;

/// How a Director is. `version`, `scheduled_version`, `architecture`, `os` are the specification's fields;
/// `scheduled_version` is there from the trigger of an update to its completion, and absent otherwise.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HealthWire {
    /// [`super::agent_api::PROTOCOL`].
    pub protocol: u32,
    /// Running version.
    pub version: String,
    /// Target version of the update under way.
    pub scheduled_version: Option<String>,
    /// `amd64`, ...
    pub architecture: String,
    /// `linux`, ...
    pub os: String,
    /// Host name, for people.
    pub hostname: Option<String>,
    /// The update's step: a word of the report's `step`.
    pub step: Option<String>,
    /// Of the download, in percent.
    pub percent: Option<u64>,
    /// Why it waits, or what it does; stable code.
    pub code: Option<String>,
    /// The same for people.
    pub detail: Option<String>,
    /// When the reason to wait ends, seconds since 1970.
    pub until: Option<u64>,
    /// When the present step ends by itself, and what is done then.
    pub deadline: Option<u64>,
    /// `a`, `b`, `factory`.
    pub running: Option<String>,
    /// `confirmed`, `trial`, `factory`, `manual`.
    pub running_as: Option<String>,
    /// Metadata that it trusts: of its mirror, and of its own updates.
    pub metadata: Option<Vec<MetadataWire>>,
    /// `ok`, `unsure`, `ahead`.
    pub clock: Option<String>,
    /// Its clock, seconds since 1970.
    pub time: Option<u64>,
    /// Running since.
    pub started_at: Option<u64>,
    /// Free bytes where its state is.
    pub disk_free: Option<u64>,
    /// Its agents by state.
    pub agents: Option<Vec<CountWire>>,
    /// Of them, heard of within the last minutes.
    pub agents_online: Option<u64>,
    /// Roll-outs that run.
    pub rollouts_running: Option<u64>,
    /// Why the last refresh of its mirror was refused.
    pub mirror_error: Option<String>,
    /// Events that Fleet has not taken yet.
    pub backlog: Option<u64>,
    /// It is about to stop.
    pub stopping: Option<bool>,
    /// Settings that it works by.
    pub settings_revision: Option<u64>,
    /// The `update:` section of its own `vmetric.yml`, which wins over Fleet's word; absent = it has none.
    pub update: Option<SettingsWire>,
    /// Rows of its table of agents.
    pub inventory: Option<PageWire>,
    /// What an install command for its agents needs to say.
    pub install: Option<InstallWire>,
    /// Fleet's enrollment templates, as far as they are here.
    pub templates: Option<Vec<TemplateStateWire>>,
    /// Fleet's confirmations, as far as they are here.
    pub confirmations: Option<Vec<ConfirmationStateWire>>,
    /// The settings of every tier above its agents' own that is in force here.
    pub agents_policy: Option<Vec<TierWire>>,
    /// Where the other members of its cluster reach it, `https://host:port`.
    pub url: Option<String>,
    /// Under which pin.
    pub pin: Option<String>,
    /// What it sees of the other members; absent = a version that does not look.
    pub peers: Option<Vec<PeerWire>>,
    /// The member of its cluster that it has promised a lease to, Fleet being away; absent = none.
    pub promised: Option<String>,
    /// How old this is; absent = a version that does not say: it counts from when it is heard.
    pub dated: Option<DatedWire>,
}

/// How old a health is ([`crate::core::cluster::dated`]).
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct DatedWire {
    /// The Director's monotonic clock when it made this, milliseconds: a later health of one run has a higher one.
    pub made_ms: u64,
    /// `run` of the last answer; absent = there was none yet.
    pub run: Option<u64>,
    /// `date_ms` of it.
    pub date_ms: Option<u64>,
    /// How long ago it came when this was made, milliseconds.
    pub held_ms: Option<u64>,
}

/// What a member of a cluster sees of another one.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct PeerWire {
    /// Its identity at Fleet.
    pub id: String,
    /// It answers, and serves.
    pub reached: bool,
    /// How long ago that was seen, seconds.
    pub age_s: u64,
    /// Why not; stable code.
    pub code: Option<String>,
}

/// The cluster that a Director is in, as Fleet tells it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ClusterWire {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// All of its members, in the order in which they are updated.
    pub members: Vec<ClusterMemberWire>,
    /// Why nobody goes now, if somebody stopped it or something failed.
    pub code: Option<String>,
    /// For people.
    pub detail: Option<String>,
    /// Who has the lease.
    pub holder: Option<String>,
    /// Until when.
    pub expires: Option<u64>,
    /// Why a person or a failure stopped it; absent = nothing did.
    pub stopped: Option<String>,
    /// How long `/readyz` fails before a stop, seconds.
    pub drain_s: Option<u64>,
    /// How long a member is watched before the next one goes, seconds.
    pub soak_s: Option<u64>,
}

/// One of them.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ClusterMemberWire {
    /// Its identity at Fleet.
    pub id: String,
    /// Where it is reached; absent = it has not said.
    pub url: Option<String>,
    /// Under which pin.
    pub pin: Option<String>,
    /// Its own public key, by which the others know its words.
    pub key: Option<String>,
    /// A word of [`crate::core::cluster::member::State`].
    pub state: String,
    /// Why, for people.
    pub detail: Option<String>,
    /// Running version.
    pub version: String,
    /// Agents that are online there.
    pub load: u64,
}

/// The public parts of an install command: whoever has them knows whom to trust, and no secret.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct InstallWire {
    /// `https://host:port` for agents.
    pub url: String,
    /// Pin of the agents' CA.
    pub pin: String,
    /// SHA-256 of `/dl/cert.pem`.
    pub certificates_sha256: String,
    /// Version of the newest root in its mirror.
    pub root_version: u64,
    /// SHA-256 of it.
    pub root_sha256: String,
}

/// An enrollment template on its way down.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct TemplateWire {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// SHA-256 of its token; the text is in the install command and nowhere else.
    pub token_sha256: String,
    /// Devices; absent = without a limit.
    pub uses: Option<u64>,
    /// Not valid after, seconds since 1970; absent = without an end.
    pub expires_at: Option<u64>,
    /// A person approves each device.
    pub approval: bool,
    /// It can be used.
    pub enabled: bool,
    /// It is gone: its token is worth nothing.
    pub removed: bool,
    /// Devices get the settings as their own.
    pub custom: bool,
    /// Update settings.
    pub settings: SettingsWire,
    /// Rises with every change.
    pub revision: u64,
}

/// How far a template is at its Director.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct TemplateStateWire {
    /// Its id.
    pub id: String,
    /// The revision that is in force.
    pub revision: u64,
    /// Devices that enrolled.
    pub used: u64,
    /// Devices that wait for a person.
    pub pending: u64,
}

/// Metadata of one trust store.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct MetadataWire {
    /// `mirror` or `own`.
    pub of: String,
    /// Versions.
    pub root: Option<u64>,
    /// Of the timestamp.
    pub timestamp: Option<u64>,
    /// Of the snapshot.
    pub snapshot: Option<u64>,
    /// Of the targets.
    pub targets: Option<u64>,
    /// When they expire, seconds since 1970.
    pub root_expires: Option<u64>,
    /// Of the timestamp.
    pub timestamp_expires: Option<u64>,
    /// Of the snapshot.
    pub snapshot_expires: Option<u64>,
    /// Of the targets.
    pub targets_expires: Option<u64>,
}

/// So many agents in one state.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct CountWire {
    /// `idle`, `downloading`, `updated`, ...
    pub state: String,
    /// How many.
    pub count: u64,
}

/// A page of the table of agents ([`crate::core::inventory`]).
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct PageWire {
    /// A word of [`crate::core::inventory::Part`].
    pub part: String,
    /// Rows that are new or changed.
    pub rows: Option<Vec<AgentRowWire>>,
    /// Agents that are gone.
    pub gone: Option<Vec<String>>,
    /// What all rows come to after this page.
    pub sum: u64,
    /// How many they are.
    pub count: u64,
}

/// An agent as its Director tells of it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct AgentRowWire {
    /// Identity at its Director.
    pub id: String,
    /// Host name.
    pub hostname: Option<String>,
    /// Running version.
    pub version: Option<String>,
    /// Target version, from trigger to completion.
    pub scheduled_version: Option<String>,
    /// `amd64`, ...
    pub architecture: Option<String>,
    /// `linux`, ...
    pub os: Option<String>,
    /// What it does, or how its last order ended.
    pub state: Option<String>,
    /// Why; stable code.
    pub code: Option<String>,
    /// Why; for people.
    pub detail: Option<String>,
    /// Since when.
    pub since: Option<u64>,
    /// When that ends by itself.
    pub deadline: Option<u64>,
    /// Who makes the next move.
    pub owner: Option<String>,
    /// `confirmed`, `trial`, `factory`, `manual`.
    pub running_as: Option<String>,
    /// SHA-256 of the running file.
    pub running_sha256: Option<String>,
    /// Version in the other slot.
    pub fallback_version: Option<String>,
    /// Trusted timestamp version.
    pub timestamp_version: Option<u64>,
    /// `ok`, `unsure`, `ahead`.
    pub clock: Option<String>,
    /// Heard of within the last minutes.
    pub online: Option<bool>,
    /// Its own settings.
    pub policy: Option<TierWire>,
    /// A person's newest word for it.
    pub authorization: Option<AuthorizedWire>,
    /// The version for which its policy waits for a person's word.
    pub needs: Option<String>,
    /// When it was heard of last; changes alone make no new row.
    pub last_contact: Option<u64>,
    /// The sender's sum of this row, for [`crate::core::inventory`].
    pub sum: u64,
}

/// The answer to a health.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct HealthAnswerWire {
    /// Fleet's time.
    pub time: u64,
    /// Settings in force for this Director.
    pub settings_revision: Option<u64>,
    /// Fleet's table of agents is another one: all rows, please.
    pub full: Option<bool>,
    /// Agents that found no place at Fleet.
    pub refused: Option<u64>,
    /// The cluster that it is in; absent = none.
    pub cluster: Option<ClusterWire>,
    /// Tells this run of Fleet from others.
    pub run: Option<u64>,
    /// Fleet's monotonic clock, milliseconds: the next health says it back.
    pub date_ms: Option<u64>,
}

/// A batch of the activity ([`crate::core::relay`]).
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ActivityWire {
    /// [`super::agent_api::PROTOCOL`].
    pub protocol: u32,
    /// Name of the stream.
    pub stream: String,
    /// Sequence of the first event.
    pub first: u64,
    /// Digest of the event before it, if the Director still has it.
    pub previous: Option<String>,
    /// Events from here up to `first` were removed by the Director's retention.
    pub lost_from: Option<u64>,
    /// The events, without a gap.
    pub events: Vec<EventWire>,
    /// Digest of the last of them.
    pub last: Option<String>,
}

/// One event, as the Director's activity has it.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct EventWire {
    /// Rises by one.
    pub seq: u64,
    /// Seconds since 1970, the Director's clock.
    pub time: u64,
    /// Which of its agents; empty = the Director itself.
    pub agent: Option<String>,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub detail: Option<String>,
    /// Version concerned.
    pub version: Option<String>,
    /// Order's generation.
    pub generation: Option<u64>,
    /// Who caused it, when a person did.
    pub by: Option<String>,
    /// The update that it belongs to ([`crate::core::relay::update_id`]).
    pub update: Option<String>,
}

/// Where Fleet stands in a Director's stream.
#[derive(Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct ActivityAnswerWire {
    /// Name of the stream; empty = it has nothing.
    pub stream: String,
    /// The next sequence that it takes.
    pub next: u64,
    /// The digest that came with the event before.
    pub last: String,
    /// Fleet's time.
    pub time: Option<u64>,
}

/// Fleet's settings for one Director.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct SettingsAnswerWire {
    /// Rises with every change.
    pub revision: u64,
    /// The settings; absent = those of the revision that was asked after.
    pub document: Option<Value>,
}

/// A document without its members that are null: what is absent is absent.
pub fn without_nulls(document: &impl Serialize) -> String {
    let text = json::to_string(document);
    json::from_str::<Value>(&text).map_or(text, |value| json::to_string(&present(value)))
}

fn present(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let members = object.into_iter().filter(|(_, v)| !matches!(v, Value::Null));
            Value::Object(members.map(|(name, v)| (name, present(v))).collect::<Object>())
        }
        Value::Array(array) => Value::Array(array.into_iter().map(present).collect::<Array>()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_not_there() {
        let health = HealthWire {
            protocol: 1,
            version: "1.0.0".into(),
            architecture: "amd64".into(),
            os: "linux".into(),
            inventory: Some(PageWire {
                rows: Some(vec![AgentRowWire { id: "a".into(), sum: u64::MAX, ..Default::default() }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let text = without_nulls(&health);
        assert!(!text.contains("null") && !text.contains("scheduled_version"), "{text}");
        assert_eq!(json::from_str::<HealthWire>(&text).unwrap(), health);
        let during = without_nulls(&HealthWire { scheduled_version: Some("2.0.0".into()), ..health });
        assert!(during.contains("\"scheduled_version\":\"2.0.0\""), "{during}");
    }

    #[test]
    fn an_event_is_read_as_the_activity_has_it_now_and_as_it_had_it_before() {
        let old = r#"{"seq":7,"time":9,"agent":"a","code":"confirmed","detail":"","version":"1.0.0","generation":3,"by":null}"#;
        let event: EventWire = json::from_str(old).unwrap();
        assert_eq!((event.seq, event.agent.as_deref(), event.update), (7, Some("a"), None));
    }
}
